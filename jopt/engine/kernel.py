"""What happens to one leaf between two reductions, as one function."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..compat import set_xla_metadata
from ..numerics import cast, compute_dtype
from ..sharding import split_as
from ..tree.devices import are_apart, moved, places_of
from ..words import spell
from .batches import batching, is_worth_a_batch, reduces, stack, unstack
from .calls import WIDTH, chunks
from .compiled import call_compiled
from .leaves import is_complex, is_inexact
from .stages import LeafStage, Plan
from .sums import added
from .types import keeps_values, lost

__all__ = []


def kernel_of(
    plan: Plan, stages: tuple, hints: tuple, form: Any, roles: tuple, adds: bool
):
    """The rules of the stages in a row as one function, made once a plan.

    `form` is the structure of the numbers of all stages, and `roles` says of each
    number what `roles_of` found. Calls of it give the update, the slots and, if it
    `adds` and the call is not written out, the new parameter.
    """
    key = (*(stage.rule for stage in stages), hints, form, roles, adds)
    if key not in plan.kernels:

        def leaf(g, slots, p, own, shared):
            dtype = compute_dtype(g.dtype, *(() if p is None else (p.dtype,)))
            u, p = cast(g, dtype), None if p is None else _compute(p, dtype)
            new = []
            numbers = form.unflatten(_join(roles, own, shared))
            for stage, hint, slot, (whole, each) in zip(stages, hints, slots, numbers):
                with jax.named_scope(stage.name):
                    u, out = _rule(stage, hint, u, slot, p, whole, each, dtype)
                new.append(out)
            return split_as(cast(u, g.dtype), g), tuple(new)

        leaf.__name__ = stages[0].name if len(stages) == 1 else "leaf"
        plan.kernels[key] = _calls_of(leaf, adds)
    return plan.kernels[key]


def _calls_of(leaf: Callable, adds: bool) -> Callable:
    """Calls of one function: written out, traced and lowered once, or as one batch."""
    worth_it = {}

    def with_sum(g, slots, p, own, shared):
        u, new = leaf(g, slots, p, own, shared)
        return u, new, added(p, u) if adds else None

    with_sum.__name__ = leaf.__name__
    one = jax.jit(with_sum)

    @jax.jit
    def many(given, own, shared):
        return [one(*x, numbers, shared) for x, numbers in each_with(given, own)]

    @jax.jit
    def batch(given, own, shared):
        rows = [(*x, numbers) for x, numbers in each_with(given, own)]
        columns = jax.tree.map(lambda *xs: stack(xs), *rows)
        out = jax.vmap(leaf, in_axes=(0, 0, 0, 0, None))(*columns, shared)
        columns, treedef = jax.tree.flatten((*out, None))
        return [treedef.unflatten(row) for row in zip(*map(unstack, columns))]

    def each_with(given, own):
        return zip(given, own * (len(given) // len(own)))

    def calls(given: list, own: list, shared: list) -> Iterator[tuple]:
        if len(given) == 1:
            return iter([(*leaf(*given[0], own[0], shared), None)])
        together, width = many, None
        if len(given) >= WIDTH and is_worth_it(given, own, shared):
            together, width = batch, WIDTH
        return in_chunks(together, width, given, own, shared)

    def is_worth_it(given, own, shared):
        types = [tuple(map(jax.typeof, jax.tree.leaves(x))) for x in zip(given, own)]
        key = (batching.get(), *types[0])
        if key not in worth_it:
            worth_it[key] = is_worth_a_batch(types[0]) and (
                batching.get() is True or reduces(one, *given[0], own[0], shared)
            )
        return worth_it[key] and len(set(types)) == 1

    def in_chunks(together, width, given, own, shared):
        for chunk in chunks(len(given), width):
            some, numbers = given[chunk], own[chunk]
            if len(some) == 1:
                yield one(*some[0], *numbers, shared)
            else:
                yield from together(some, once(numbers), shared)

    def once(own):  # numbers that all leaves of a call share are given once
        return own[:1] if all(x is own[0] for x in own) else own

    return calls


@dataclasses.dataclass(frozen=True)
class _Together:
    """Calls as one function, equal for the same kernel."""

    calls: Callable

    def __call__(self, given: list, own: list, shared: list) -> list:
        return list(self.calls(given, own, shared))


def eager(calls: Callable, given: list, own: list, shared: list) -> list:
    """Calls with values, compiled: one program for each set of devices."""
    together = _Together(calls)
    at = [places_of(x) for x in given]
    if len(set(at)) == 1 and not are_apart((given[:1], own, shared)):
        return call_compiled(together, given, own, shared)
    results: dict = {}
    for place in dict.fromkeys(at):
        some = [i for i, other in enumerate(at) if other == place]
        numbers = moved([own[i] for i in some], place), moved(shared, place)
        out = call_compiled(together, [given[i] for i in some], *numbers)
        results.update(zip(some, out))
    return [results[i] for i in range(len(given))]


def sealed(numbers: Any) -> Any:
    """The numbers, computed once: XLA would compute them again in every kernel.

    A schedule of forty scalar operations is forty more instructions in each of them.
    Python numbers stay what they are.
    """
    leaves, treedef = jax.tree.flatten(numbers)
    arrays = [x for x in leaves if not _is_python(x)]
    if not arrays:
        return numbers
    with set_xla_metadata(inlineable="false"):
        left = iter(_numbers(arrays))
    return treedef.unflatten([x if _is_python(x) else next(left) for x in leaves])


@jax.jit
def _numbers(numbers: Any) -> Any:
    return numbers


def _is_python(x: Any) -> bool:
    return isinstance(x, (int, float))


OWN, SHARED = "own", "shared"


def roles_of(rows: Sequence[list]) -> tuple:
    """What each number is to a kernel: a constant, shared by all leaves, or a leaf's.

    Each row is the numbers of some leaves. A Python number that is the same in all is
    a constant, `(type, value)`.
    """
    return tuple(_role(*column) for column in zip(*rows))


def _role(first: Any, *others: Any) -> Any:
    if all(x is first for x in others):
        return (type(first), first) if _is_python(first) else SHARED
    same = _is_python(first) and all(type(x) is type(first) for x in others)
    return (type(first), first) if same and {first, *others} == {first} else OWN


def taken(numbers: list, roles: tuple, role: str) -> list:
    """The numbers of one role."""
    return [x for x, r in zip(numbers, roles) if r == role]


def _join(roles: tuple, own: list, shared: list) -> list:
    """What `taken` took apart, with the constants between."""
    left = {OWN: iter(own), SHARED: iter(shared)}
    return [next(left[r]) if r in left else r[1] for r in roles]


def _rule(stage: LeafStage, hint, u, slot, p, whole, numbers, dtype):
    """One stage on one leaf, in `dtype`; the slots come back in their own types."""
    compute = functools.partial(_compute, dtype=dtype)
    s = stage.state(**jax.tree.map(compute, slot), **whole)
    more = [] if numbers is None else [jax.tree.map(compute, numbers)]
    more += [] if stage.hint is None else [hint]
    if is_complex(dtype):  # real factors of complex arrays are right, strict or not
        with jax.numpy_dtype_promotion("standard"):
            new, s = stage.update(u, s, p, *more)
    else:
        new, s = stage.update(u, s, p, *more)
    if jnp.shape(new) != u.shape:
        raise ValueError(
            f"{stage.name}: the rule turned {spell(u)} into {spell(new)}; "
            "an update must have the shape of its gradient"
        )
    new = jnp.asarray(new)
    if not keeps_values(new, dtype):
        raise TypeError(
            f"{stage.name}: the rule turned {spell(u)} into {spell(new)}; "
            f"{lost(new.dtype, dtype)} would be lost"
        )
    out = {f: getattr(s, f) for f in stage.slots}
    like = functools.partial(_like, stage.name)
    return cast(new, dtype), jax.tree.map(like, out, slot)


def _compute(x: Any, dtype: Any) -> Any:
    """A float in the dtype of the arithmetic, a real one in its real counterpart."""
    if isinstance(x, (int, float)):
        return x
    x = jnp.asarray(x)
    if not is_inexact(x.dtype):
        return x
    return cast(x, dtype if is_complex(x.dtype) else jnp.finfo(dtype).dtype)


def _like(name: str, new: Any, old: jax.Array) -> jax.Array:
    new = jnp.asarray(new)
    same_shape = new.shape == old.shape
    if same_shape and keeps_values(new, old.dtype):
        return split_as(cast(new, old.dtype), old)
    words = f"{name}: the rule turned a slot {spell(old)} into {spell(new)}"
    if not same_shape:
        raise ValueError(words)
    raise TypeError(f"{words}; {lost(new.dtype, old.dtype)} would be lost")
