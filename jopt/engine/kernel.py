"""What happens to one leaf between two reductions, as one function."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..compat import set_xla_metadata
from ..kinds import is_complex, is_inexact
from ..numerics import cast, compute_dtype
from ..plan import Rule
from ..sharding import split_as
from ..tree.devices import are_apart, moved, places_of
from ..words import spell
from .batches import batching, is_worth_a_batch, reduces, stack, unstack
from .calls import WIDTH, chunks
from .eager import call_compiled
from .types import keeps_values, lost

__all__ = []

_FEW = 6  # calls that to write as one would not make fewer


def kernel_of(
    kernels: dict, rules: tuple, hints: tuple, form: Any, roles: tuple, adds: bool
):
    """The rules in a row as one function of a leaf, made once and kept in `kernels`.

    `form` is the structure of the numbers of all rules, and `roles` says of each what
    it is to the kernel. Calls of it give the update, the slots and, if it `adds` and
    the call is not written out, the new parameter.
    """
    key = tuple([(r.update, r.state) for r in rules]), hints, form, roles, adds
    if key not in kernels:

        def leaf(g, slots, p, own, shared):
            dtype = compute_dtype(g.dtype, *(() if p is None else (p.dtype,)))
            u, p = _in(dtype, g), None if p is None else _in(dtype, p)
            new = []
            numbers = form.unflatten(Numbers.join(roles, own, shared))
            for rule, hint, slot, (whole, more) in zip(rules, hints, slots, numbers):
                with jax.named_scope(rule.name):
                    u, out = _apply(rule, hint, u, slot, p, whole, more, dtype)
                new.append(out)
            return _as(g, u), tuple(new)

        leaf.__name__ = rules[0].name if len(rules) == 1 else "leaf"
        kernels[key] = _calls_of(leaf, adds)
    return kernels[key]


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
        if len(given) < _FEW:
            return iter([one(*x, n, shared) for x, n in zip(given, own)])
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


def added(p: jax.Array, u: jax.Array) -> jax.Array:
    """`p + u`, rounded once, to the type of `p`."""
    dtype = compute_dtype(p.dtype, u.dtype)
    # lax.add and not `+`: traced once for every leaf, this is most of the cost.
    return _as(p, jax.lax.add(_in(dtype, p), _in(dtype, u)))


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


def computed_once(numbers: Any) -> Any:
    """The numbers, out of the kernels: XLA would compute them again in every one.

    A schedule of forty scalar operations is forty more instructions in each of them.
    Python numbers stay what they are.
    """
    leaves, treedef = jax.tree.flatten(numbers)
    arrays = [x for x in leaves if not isinstance(x, int | float)]
    if not arrays:
        return numbers
    with set_xla_metadata(inlineable="false"):
        left = iter(_numbers(arrays))
    return treedef.unflatten(
        [x if isinstance(x, int | float) else next(left) for x in leaves]
    )


@jax.jit
def _numbers(numbers: Any) -> Any:
    return numbers


class Numbers:
    """The numbers of a step, for the leaves of one kernel: a row for some of them.

    Each has a role: a constant of the kernel, `(type, value)`, if it is one number of
    Python in all rows; one that all leaves share; or a leaf's own.
    """

    OWN, SHARED = "own", "shared"

    def __init__(self, rows: Sequence[list]):
        first, *others = rows
        columns = zip(first, *others)
        self.roles = tuple([self._role(x, more) for x, *more in columns])
        self.shared = [x for x, r in zip(first, self.roles) if r == self.SHARED]

    @classmethod
    def _role(cls, first: Any, others: list) -> Any:
        if not isinstance(first, int | float):
            return cls.OWN if [x for x in others if x is not first] else cls.SHARED
        constant = type(first), first
        return cls.OWN if [x for x in others if (type(x), x) != constant] else constant

    def own(self, row: list) -> list:
        """Those of a row that are its leaves' own."""
        return [x for x, r in zip(row, self.roles) if r == self.OWN]

    @classmethod
    def join(cls, roles: tuple, own: list, shared: list) -> list:
        """A row, of what was taken apart and the constants between."""
        left = {cls.OWN: iter(own), cls.SHARED: iter(shared)}
        return [next(left[r]) if r in left else r[1] for r in roles]


def _apply(rule: Rule, hint, u, slot, p, whole, numbers, dtype):
    """One rule on one leaf, in `dtype`; the slots come back in their own types."""
    compute = functools.partial(_in, dtype)
    s = rule.state(**jax.tree.map(compute, slot), **whole)
    more = [] if numbers is None else [jax.tree.map(compute, numbers)]
    more += [] if rule.hint is None else [hint]
    if is_complex(dtype):  # real factors of complex arrays are right, strict or not
        with jax.numpy_dtype_promotion("standard"):
            made = rule.update(u, s, p, *more)
    else:
        made = rule.update(u, s, p, *more)
    if type(made) is not tuple or len(made) != 2:
        raise TypeError(
            f"{rule.name}: the rule must return the pair (update, state), "
            f"got {spell(made)}"
        )
    new, s = made
    if jnp.shape(new) != u.shape:
        raise ValueError(
            f"{rule.name}: the rule turned {spell(u)} into {spell(new)}; "
            "an update must have the shape of its gradient"
        )
    new = jnp.asarray(new)
    if new.dtype != dtype and not keeps_values(new, dtype):
        raise TypeError(
            f"{rule.name}: the rule turned {spell(u)} into {spell(new)}; "
            f"{lost(new.dtype, dtype)} would be lost"
        )
    known = type(s) is rule.state  # nearly always
    out = (
        {f: getattr(s, f) for f in rule.slots}
        if known
        else rule.slots_of(s, "the rule")
    )
    like = functools.partial(_as_slot, rule.name)
    new = new if new.dtype == dtype else cast(new, dtype)
    return new, jax.tree.map(like, slot, out)


def _in(dtype: Any, x: Any) -> Any:
    """A float in the dtype of the arithmetic, a real one in its real counterpart."""
    if isinstance(x, int | float):
        return x
    x = jnp.asarray(x)
    if x.dtype == dtype or not is_inexact(x.dtype):
        return x
    return cast(x, dtype if is_complex(x.dtype) else jnp.finfo(dtype).dtype)


def _as(old: jax.Array, new: jax.Array) -> jax.Array:
    """The array in the dtype of another of its shape, and split as that is."""
    if jax.typeof(new) == jax.typeof(old):
        return new  # nearly always
    return split_as(cast(new, old.dtype), old)


def _as_slot(name: str, old: jax.Array, new: Any) -> jax.Array:
    new = jnp.asarray(new)
    if jax.typeof(new) == jax.typeof(old):
        return new  # nearly always
    same_shape = new.shape == old.shape
    if same_shape and keeps_values(new, old.dtype):
        return _as(old, new)
    words = f"{name}: the rule turned a slot {spell(old)} into {spell(new)}"
    if not same_shape:
        raise ValueError(words)
    raise TypeError(f"{words}; {lost(new.dtype, old.dtype)} would be lost")
