"""Schedule-free: an average of the iterates in place of a decaying learning rate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskOrFn,
    OptState,
    Params,
    PerLeaf,
    Schedule,
)
from ..curves import warmup_constant_schedule
from ..engine import Leaves, in_types_of, per_tree, transformation, wrap
from ..kinds import is_schedule
from ..numerics import cast, compute_dtype, safe_increment, width_of
from ..optimizers.rmsprop import scale_by_rms
from ..optimizers.sgd import sgd
from ..parts.combine import chain, check_transformation
from ..parts.decay import add_decayed_weights
from ..parts.scale import descend
from ..settings import FINITE, PLAIN_DECAY, Range, schedule, setting_at
from ..settings.resolve import largest
from .branch import as_updates, check_state, slots_of

__all__ = [
    "ScheduleFreeState",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
]

_SHARE = Range(0, 1, open_low=True)


class ScheduleFreeState(NamedTuple):
    """The base optimizer's state and its iterate `z`, and what weighs the average."""

    b1: jax.Array
    weight_sum: jax.Array
    step_count: jax.Array
    max_lr: jax.Array
    base_optimizer_state: OptState
    z: Params


class _Average(NamedTuple):
    weight_sum: jax.Array
    max_lr: jax.Array
    z: Params


@transformation(b1=_SHARE, weight_lr_power=FINITE)
def schedule_free(
    base_optimizer: GradientTransformation,
    learning_rate: PerLeaf,
    b1: float = 0.9,
    weight_lr_power: float = 2.0,
    state_dtype: DTypeLike | None = None,
) -> GradientTransformationExtraArgs:
    """Schedule-free learning: averages the iterates, so that no rate has to decay.

        u  = base_optimizer(g at y)              the parameters are y
        z <- z + u
        w  = (largest learning_rate so far)^weight_lr_power
        c  = w / (sum of w)
        x <- (1 - c) x + c z                     what is to be evaluated
        y  = (1 - b1) z + b1 x

    Only y and z are stored; the update is `(1 - b1 (1 - c)) u + c (z - y)`, from the
    old y and z. Evaluate x, which `schedule_free_eval_params` gives.

    Args:
        base_optimizer: the transformation that moves z: without momentum, which b1
            takes the place of, and with the same learning rate.
        learning_rate: a number, or a schedule with a warm-up and no decay; of several,
            as `descend` takes them, the largest at each step. Only the weights of the
            average use it, and they read it as the base optimizer reads its own, at 0
            in the first step. (optax reads it one step ahead, so that steps of the
            warm-up weigh more than the paper says.)
        b1: the share of the average in y, in (0, 1].
        weight_lr_power: how much less the steps of a warm-up weigh; 0 for not at all.
        state_dtype: dtype `z` is stored in. The parameter's, or float32 if that has 16
            bits, if `None`.

    Returns:
        A transformation whose state is `ScheduleFreeState(b1: f32[], weight_sum: f32[],
        step_count: i32[], max_lr: f32[], base_optimizer_state, z)`; `z` has the shapes
        of the parameters (memory: one copy more than `base_optimizer`), and
        `step_count` is 1 before the first step. The update needs the parameters.

    Raises:
        ValueError: a number is outside its range, or `params` is missing.
        TypeError: `base_optimizer` is no transformation.

    Example:
        >>> tx = jopt.schedule_free(jopt.sgd(1.0), learning_rate=1.0)
        >>> p = jnp.array(1.0)
        >>> state = tx.init(p)
        >>> for _ in range(20):
        ...     u, state = tx.update(2 * p, state, p)
        ...     p = jopt.apply_updates(p, u)
        >>> bool(jopt.schedule_free_eval_params(state, p) ** 2 < 0.01)
        True

    Reference:
        Defazio et al., The Road Less Scheduled, NeurIPS 2024, arXiv:2405.15682.
    """
    check_transformation("schedule_free", "base_optimizer", base_optimizer)
    average = _average(b1, weight_lr_power, state_dtype)

    def build(base):
        def init(params):
            now = average.init(params)
            return ScheduleFreeState(
                b1=jnp.array(b1, now.max_lr.dtype, copy=True),
                weight_sum=now.weight_sum,
                step_count=jnp.ones((), jnp.int32),
                max_lr=now.max_lr,
                base_optimizer_state=base.init(params),
                z=now.z,
            )

        def update(updates, state, params=None, **extra_args):
            check_state("schedule_free", state, ScheduleFreeState)
            if params is None:
                raise ValueError(
                    "schedule_free: params is missing; "
                    "call update(updates, state, params)"
                )
            base_state = state.base_optimizer_state
            u, new_state = base.update(updates, base_state, params, **extra_args)
            step = state.step_count
            rate = largest(
                [
                    setting_at("schedule_free", "learning_rate", x, step, state.max_lr)
                    for x in jax.tree.leaves(learning_rate)
                ]
            )
            u, now = average.update(
                as_updates(u, updates),
                _Average(state.weight_sum, state.max_lr, state.z),
                params,
                rate=rate,
            )
            return u, type(state)(
                b1=jnp.asarray(b1, state.b1.dtype),
                weight_sum=now.weight_sum,
                step_count=safe_increment(step),
                max_lr=now.max_lr,
                base_optimizer_state=in_types_of(base_state, new_state),
                z=now.z,
            )

        return init, update

    return wrap(build, count="step_count", base_optimizer_state=base_optimizer)


def _average(b1, power, state_dtype) -> GradientTransformationExtraArgs:
    """Turns the steps of z into those of y, the parameters."""

    def init(p):
        return dict(z=p if state_dtype is None else p.astype(width_of(p, state_dtype)))

    def reduce(us, s, ps, *, rate, **extra_args):
        largest = jnp.maximum(s.max_lr, rate.astype(s.max_lr.dtype))
        weight = largest**power
        total = s.weight_sum + weight
        share = jnp.where(total > 0, weight / jnp.where(total > 0, total, 1), 0)
        return share, dict(weight_sum=total, max_lr=largest)

    def schedule_free(u, s, p, share):
        # y' - y without x: no quotient by b1, and exact where z and y are near.
        step = (1 - b1 * (1 - share)) * u + share * (s.z - p)
        return step, s._replace(z=s.z + u)

    whole = dict(weight_sum=0.0, max_lr=0.0)
    return per_tree(_Average, init, schedule_free, reduce=reduce, whole=whole)


def schedule_free_eval_params(state: OptState, params: Params) -> Params:
    """The parameters to evaluate with: the average x of schedule-free learning.

        x = (y - (1 - b1) z) / b1

    Args:
        state: the state of `schedule_free`, or one that holds it, as a chain's does.
        params: the parameters y that are trained.

    Returns:
        A tree like `params`, in their dtypes. Leaves without a `z` are as they are.

    Raises:
        ValueError: there is no `ScheduleFreeState` in `state`, or more than one.

    Example:
        >>> tx = jopt.schedule_free_adamw(1e-3)
        >>> p = jnp.ones(2)
        >>> jopt.schedule_free_eval_params(tx.init(p), p)
        Array([1., 1.], dtype=float32)

    Reference:
        Defazio et al., The Road Less Scheduled, NeurIPS 2024, arXiv:2405.15682.
    """
    states = jax.tree.leaves(state, is_leaf=_is_schedule_free)
    found = [s for s in states if _is_schedule_free(s)]
    if len(found) != 1:
        raise ValueError(
            "schedule_free_eval_params: expected one ScheduleFreeState in state, "
            f"found {len(found)} in a {type(state).__name__}"
        )
    leaves = Leaves(params, params)
    for i, z in enumerate(slots_of(found[0].z, params)):
        if leaves.optimized[i] and z is not None:
            leaves.g[i] = average_of(leaves.p[i], z, found[0].b1)
    return leaves.tree(leaves.g)


def average_of(y: Any, z: Any, b1: Any) -> jax.Array:
    """x of one leaf, in the dtype of y."""
    dtype = compute_dtype(y.dtype, z.dtype)
    share = jnp.asarray(b1, jnp.finfo(dtype).dtype)
    with jax.numpy_dtype_promotion("standard"):  # complex leaves, real share
        x = cast(y, dtype) + (1 / share - 1) * (cast(y, dtype) - z)
    return cast(x, y.dtype)


def _is_schedule_free(x: Any) -> bool:
    return getattr(type(x), "_fields", None) == ScheduleFreeState._fields


@transformation(b1=_SHARE, weight_lr_power=FINITE)
def schedule_free_adamw(
    learning_rate: PerLeaf = 0.0025,
    warmup_steps: int | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: PerLeaf = 0.0,
    weight_lr_power: float = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    mask: MaskOrFn = None,
    warmup_from_zero: bool = True,
) -> GradientTransformationExtraArgs:
    """Schedule-free AdamW: no momentum in the base, so that b1 averages instead.

        nu <- b2 nu + (1 - b2) |g|^2
        z  <- z - learning_rate (g / (sqrt(nu / (1 - b2^t)) + eps) + weight_decay y)

    and x and y of `schedule_free`.

    Args:
        learning_rate: as `descend` takes it; the largest weighs the average.
        warmup_steps: the steps in which the learning rate rises to it, in a straight
            line; none if `None`.
        b1: the share of the average in y, in (0, 1].
        b2: decay of the mean squared gradient, in [0, 1).
        eps: added outside the root, not negative.
        weight_decay, mask: as `descend` takes them.
        weight_lr_power, state_dtype: as `schedule_free` takes them.
        warmup_from_zero: whether the share of the rate in step t, from 1, is
            `(t - 1) / warmup_steps`, as in optax, so that the first step moves nothing;
            the authors' `t / warmup_steps` if not.

    Returns:
        A transformation whose state is `ScheduleFreeState`, with that of `chain` of
        `scale_by_rms`, decay and learning rate in it (memory: two copies of the
        parameters). The update needs the parameters.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> tx = jopt.schedule_free_adamw(0.0025, warmup_steps=100)

    Reference:
        Defazio et al., The Road Less Scheduled, NeurIPS 2024, arXiv:2405.15682.
    """
    rate = _warmed_up(learning_rate, warmup_steps, warmup_from_zero)
    direction = scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
    base = descend(direction, rate, weight_decay, mask)
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


@transformation(
    b1=_SHARE,
    weight_decay=PLAIN_DECAY,
    weight_lr_power=FINITE,
)
def schedule_free_sgd(
    learning_rate: PerLeaf = 1.0,
    warmup_steps: int | None = None,
    b1: float = 0.9,
    weight_decay: PerLeaf | None = None,
    weight_lr_power: float = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    mask: MaskOrFn = None,
    warmup_from_zero: bool = True,
) -> GradientTransformationExtraArgs:
    """Schedule-free gradient descent: b1 averages in place of momentum.

        z <- z - learning_rate (g + weight_decay y)

    and x and y of `schedule_free`.

    Args:
        learning_rate: as `descend` takes it; the largest weighs the average.
        warmup_steps, warmup_from_zero: as `schedule_free_adamw` takes them.
        b1: the share of the average in y, in (0, 1].
        weight_decay, mask: as `add_decayed_weights` takes them; none if `None`.
        weight_lr_power, state_dtype: as `schedule_free` takes them.

    Returns:
        A transformation whose state is `ScheduleFreeState`, with that of `sgd`, after
        that of a decay, in it (memory: one copy of the parameters). The update needs
        the parameters.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> tx = jopt.schedule_free_sgd(0.1, warmup_steps=100)

    Reference:
        Defazio et al., The Road Less Scheduled, NeurIPS 2024, arXiv:2405.15682.
    """
    rate = _warmed_up(learning_rate, warmup_steps, warmup_from_zero)
    base = sgd(rate)
    if weight_decay is not None:
        base = chain(add_decayed_weights(weight_decay, mask), base)
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


def _warmed_up(
    learning_rate: PerLeaf, warmup_steps: int | None, from_zero: bool
) -> PerLeaf:
    if warmup_steps is None:
        return learning_rate

    def one(rate):
        if is_schedule(rate):
            return warmed_up(rate, warmup_steps, from_zero)
        return _rise(rate, warmup_steps, from_zero)

    return jax.tree.map(one, learning_rate)


def _rise(rate: float, steps: int, from_zero: bool) -> Schedule:
    if from_zero or steps == 0:
        return warmup_constant_schedule(0.0, rate, steps)
    return warmup_constant_schedule(rate / steps, rate, steps - 1)


@schedule
def warmed_up(rate: Schedule, warmup_steps: int, from_zero: bool) -> Schedule:
    """A schedule times its warm-up."""
    share = _rise(1.0, warmup_steps, from_zero)
    return lambda count: rate(count) * share(count)
