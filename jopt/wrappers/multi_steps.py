"""One step of an optimizer for the mean gradient of several."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskedNode,
    OptState,
    Params,
    Updates,
)
from ..compat import shard_alike
from ..engine import Leaves, in_types_of, keep_types, traced_once, transformation, wrap
from ..kinds import is_complex, is_numeric, is_own_object
from ..numerics import abs_sq, compute_dtype, safe_increment
from ..parts.combine import check_transformation
from ..settings import (
    Range,
    Static,
    called,
    check_floating_dtype,
    check_integer,
    check_number,
)
from ..tree.devices import together
from ..tree.matching import beside
from ..words import explain, spell
from .branch import as_updates, check_state, choose_step, inexact_leaves, zeros

__all__ = [
    "MultiSteps",
    "MultiStepsState",
    "ShouldSkipUpdateFunction",
    "multi_steps",
    "skip_large_updates",
    "skip_not_finite",
]


class MultiStepsState(NamedTuple):
    """Gradients since the last step, steps, the inner state and the mean gradient."""

    mini_step: jax.Array
    gradient_step: jax.Array
    inner_opt_state: OptState
    acc_grads: Updates
    skip_state: Any = ()

    measured = ("gradient_step", "skip_state")  # what `metrics` shows


class ShouldSkipUpdateFunction(Protocol):
    """Tells from gradients whether to ignore them, and keeps notes of it."""

    def __call__(
        self, updates: Updates, gradient_step: jax.Array, params: Params | None
    ) -> tuple[jax.Array, Any]: ...


# ------------------------------------------------------------------ gradients to ignore


def skip_not_finite(
    updates: Updates, gradient_step: jax.Array, params: Params | None
) -> tuple[jax.Array, Any]:
    """Whether an element is infinite or not a number; for `MultiSteps`.

    Args:
        updates: the gradients.
        gradient_step, params: not used.

    Returns:
        `bool[]`, and `{"should_skip": bool[], "num_not_finite": i32[]}`.

    Example:
        >>> bool(jopt.skip_not_finite(jnp.array([1.0, jnp.inf]), 0, None)[0])
        True
    """
    gs = inexact_leaves(updates)
    parts = [jnp.sum(~jnp.isfinite(g), dtype=jnp.int32) for g in gs]
    bad = sum(together(parts), jnp.zeros((), jnp.int32))
    return bad > 0, dict(should_skip=bad > 0, num_not_finite=bad)


def skip_large_updates(
    updates: Updates,
    gradient_step: jax.Array,
    params: Params | None,
    max_squared_norm: ArrayLike,
) -> tuple[jax.Array, Any]:
    """Whether the squared norm is not below a bound, or not a number; for `MultiSteps`.

    Args:
        updates: the gradients.
        gradient_step, params: not used.
        max_squared_norm: the bound, at least 0; give it by `functools.partial`.

    Returns:
        `bool[]`, and `{"should_skip": bool[], "norm_squared": f32[]}`.

    Example:
        >>> g = jnp.array([3.0, 4.0])
        >>> bool(jopt.skip_large_updates(g, 0, None, max_squared_norm=26.0)[0])
        False
    """
    where, name = "skip_large_updates", "max_squared_norm"
    check_number(where, name, max_squared_norm, Range(0, finite=False))
    gs = inexact_leaves(updates)
    parts = [jnp.sum(abs_sq(g), dtype=jnp.float32) for g in gs]
    norm_squared = sum(together(parts), jnp.zeros((), jnp.float32))
    skip = ~(norm_squared < max_squared_norm)  # also if it is not a number
    return skip, dict(should_skip=skip, norm_squared=norm_squared)


# ---------------------------------------------------------------------- accumulation


@transformation
def multi_steps(
    opt: GradientTransformation,
    every_k_schedule: int | Callable[[jax.Array], ArrayLike],
    use_grad_mean: bool = True,
    should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
    accumulator_dtype: DTypeLike = jnp.float32,
) -> GradientTransformationExtraArgs:
    """Collects the gradients of k calls and takes one step with their mean.

        acc <- acc + (g - acc) / (mini_step + 1)
        u, s = opt(acc, s), acc <- 0    at every k-th call
        u, s = 0, s                     at the others

    A call that collects does not touch the state of `opt`.

    Args:
        opt: the transformation that takes the steps.
        every_k_schedule: k, at least 1, or a function from the number of steps taken
            (`i32[]`) to k.
        use_grad_mean: the mean if true, else the sum, `acc <- acc + g`.
        should_skip_update_fn: tells gradients to ignore, as `skip_not_finite` does; a
            call with such makes zero updates and does not count.
        accumulator_dtype: dtype of `acc` (its complex counterpart for complex leaves).

    Returns:
        A transformation whose state is `MultiStepsState(mini_step: i32[],
        gradient_step: i32[], inner_opt_state, acc_grads, skip_state)`. Memory: what
        `opt` needs and one copy of the parameters in `accumulator_dtype`.

    Raises:
        TypeError: `opt` is no transformation, or `every_k_schedule` no integer.
        ValueError: `every_k_schedule` is less than 1.

    Example:
        >>> tx = jopt.multi_steps(jopt.scale(-1.0), 2)
        >>> u, state = tx.update(jnp.array(1.0), tx.init(jnp.array(0.0)))
        >>> tx.update(jnp.array(2.0), state)[0]
        Array(-1.5, dtype=float32)
    """
    check_transformation("multi_steps", "opt", opt)
    if not callable(every_k_schedule):
        check_integer("multi_steps", "every_k_schedule", every_k_schedule)
    if should_skip_update_fn is not None and not callable(should_skip_update_fn):
        raise TypeError(
            "multi_steps: should_skip_update_fn must be a function of updates, "
            f"gradient_step and params, got {should_skip_update_fn!r}"
        )
    check_floating_dtype("multi_steps", "accumulator_dtype", accumulator_dtype)

    def build(opt):
        def init(params):
            count = jnp.zeros((), jnp.int32)
            skip_state = ()
            if should_skip_update_fn is not None:
                _, skip_state = should_skip_update_fn(zeros(params), count, params)
            return MultiStepsState(
                mini_step=count,
                gradient_step=jnp.zeros((), jnp.int32),
                inner_opt_state=opt.init(params),
                acc_grads=_accumulators(params, accumulator_dtype),
                skip_state=skip_state,
            )

        def update(updates, state, params=None, **extra_args):
            check_state("multi_steps", state, MultiStepsState)

            def step(grads):
                new, inner = opt.update(
                    grads, state.inner_opt_state, params, **extra_args
                )
                # The accumulators are left as they are, which costs no traffic:
                # the next call begins anew, whatever they hold.
                return as_updates(new, updates), state._replace(
                    mini_step=jnp.zeros_like(state.mini_step),
                    gradient_step=safe_increment(state.gradient_step),
                    inner_opt_state=in_types_of(state.inner_opt_state, inner),
                )

            def collect():
                _, acc = _accumulate(updates, state, params, use_grad_mean)
                mini_step = safe_increment(state.mini_step)
                return None, state._replace(mini_step=mini_step, acc_grads=acc)

            def step_with_all():
                return step(_accumulate(updates, state, params, use_grad_mean)[0])

            if every_k_schedule == 1:
                choices, which = (lambda: step(updates),), 0
            else:
                k = _every_k(every_k_schedule, state.gradient_step)
                choices, which = (
                    (collect, step_with_all),
                    safe_increment(state.mini_step) >= k,
                )
            if should_skip_update_fn is None:
                return choose_step(which, updates, params, *choices)
            skip, skip_state = should_skip_update_fn(
                updates, state.gradient_step, params
            )
            which = jnp.where(skip, 0, jnp.asarray(which, jnp.int32) + 1)
            choices = (lambda: (None, state), *choices)
            new, state = choose_step(which, updates, params, *choices)
            return new, state._replace(
                skip_state=keep_types(skip_state, state.skip_state)
            )

        return init, update

    return wrap(build, count="gradient_step", inner_opt_state=opt)


def _every_k(schedule: Any, gradient_step: jax.Array) -> ArrayLike:
    if not callable(schedule):
        return schedule
    where, name = "multi_steps", "every_k_schedule"
    k = jnp.asarray(called(where, name, schedule, gradient_step))
    if k.shape != () or not jnp.issubdtype(k.dtype, jnp.number) or is_complex(k.dtype):
        raise ValueError(
            "multi_steps: every_k_schedule must return one integer, got "
            f"{k.dtype}{list(k.shape)}"
        )
    return jnp.round(k).astype(jnp.int32)  # schedules of floats: 3.9999 means 4


def _accumulators(params: Params, dtype: DTypeLike) -> Updates:
    """Zeros for every array; nothing for other leaves, such as functions and keys."""

    def like(p, dtype):
        return shard_alike(p, jnp.zeros_like(p, dtype))

    def one(p):
        if is_own_object(p):
            p = jax.ShapeDtypeStruct(p.shape, p.dtype)
            of_p = p.dtype
        else:
            of_p = jax.dtypes.result_type(p) if is_numeric(p) else jax.dtypes.extended
        if jnp.issubdtype(of_p, jax.dtypes.extended):
            return MaskedNode()
        if is_complex(of_p):
            return like(p, compute_dtype(dtype, jnp.complex64))
        return like(p, dtype)

    return jax.tree.map(one, params)


def _accumulate(
    updates: Updates, state: MultiStepsState, params: Params | None, mean: bool
) -> tuple[Updates, Updates]:
    """The gradients together with those before, for `opt` and for the state."""
    leaves = Leaves.reading(updates, params, needed=False)
    try:
        accs, form = beside(leaves.treedef, state.acc_grads)
    except ValueError:
        words = explain("the state's 'acc_grads'", state.acc_grads, "updates", updates)
        raise leaves.misfit or ValueError(f"multi_steps: {words}") from None
    for i, acc in enumerate(accs):
        if leaves.optimized[i] and acc is None:
            leaves.optimized[i], leaves.g[i] = False, None  # it was left out at `init`
    live = [i for i, live in enumerate(leaves.optimized) if live]
    for i in live:
        if leaves.g[i].shape != getattr(accs[i], "shape", None):
            raise leaves.misfit or ValueError(
                f"multi_steps: updates at {leaves.path(i)} is {spell(leaves.g[i])}, "
                f"the state's 'acc_grads' there is {spell(accs[i])}: was the state "
                "made for other parameters?"
            )
    collect = _with_mean if mean else _with_sum
    together = collect([(leaves.g[i], accs[i]) for i in live], state.mini_step)
    for i, acc in zip(live, together):
        leaves.g[i] = accs[i] = acc
    return leaves.tree(leaves.g), form.unflatten(accs)


@traced_once
def _with_mean(g: jax.Array, acc: jax.Array, before: jax.Array) -> jax.Array:
    g = g.astype(acc.dtype)
    mean = acc + (g - acc) / safe_increment(before).astype(acc.dtype)
    return jnp.where(before == 0, g, mean)  # it may hold those of an earlier step


@traced_once
def _with_sum(g: jax.Array, acc: jax.Array, before: jax.Array) -> jax.Array:
    g = g.astype(acc.dtype)
    return jnp.where(before == 0, g, acc + g)


class MultiSteps(metaclass=Static):
    """Collects the gradients of k calls and takes one step: `multi_steps` as a class.

    Args:
        opt, every_k_schedule, use_grad_mean, should_skip_update_fn, accumulator_dtype:
            as `multi_steps` takes them.

    It has `init` and `update` and so can stand wherever a transformation can; two are
    equal if their settings are.

    Example:
        >>> tx = jopt.MultiSteps(jopt.adam(1e-3), every_k_schedule=4)
        >>> state = tx.init(jnp.zeros(3))
        >>> updates, state = tx.update(jnp.ones(3), state)
        >>> bool(tx.has_updated(state))
        False
    """

    def __init__(
        self,
        opt: GradientTransformation,
        every_k_schedule: int | Callable[[jax.Array], ArrayLike],
        use_grad_mean: bool = True,
        should_skip_update_fn: ShouldSkipUpdateFunction | None = None,
        accumulator_dtype: DTypeLike = jnp.float32,
    ):
        self.inner_opt = opt
        self._tx = multi_steps(
            opt,
            every_k_schedule,
            use_grad_mean,
            should_skip_update_fn,
            accumulator_dtype,
        )

    @property
    def init(self) -> Any:
        """Makes the state that fits the parameters."""
        return self._tx.init

    @property
    def update(self) -> Any:
        """Turns gradients and a state into updates and the next state."""
        return self._tx.update

    def has_updated(self, state: MultiStepsState) -> jax.Array:
        """Whether the last call took a step, `bool[]`."""
        return (state.mini_step == 0) & (state.gradient_step > 0)

    def gradient_transformation(self) -> GradientTransformationExtraArgs:
        """The same as a pair of functions."""
        return self._tx

    def __iter__(self):
        return iter(self._tx)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._tx == other._tx

    def __hash__(self) -> int:
        return hash(self._tx)

    def __repr__(self) -> str:
        return repr(self._tx).replace("multi_steps", "MultiSteps", 1)
