"""The loss and the gradient that a line search has computed already."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ... import tree
from ...base import OptState, Updates
from ...engine import OtherArguments, as_it_is_now, call_compiled
from ...numerics import cond

__all__ = ["value_and_grad_from_state"]


def value_and_grad_from_state(
    value_fn: Callable[..., Any], *, has_aux: bool = False
) -> Callable[..., tuple[Any, Updates]]:
    """`jax.value_and_grad` that takes both from the state of a line search.

    They are computed where the state has none yet: before the first step, after a loss
    that was not finite, or where the search saw only some of the parameters. It is for
    a function that does not change, not for one of a batch.

    Args:
        value_fn: a function of the parameters, and of more, that returns a real scalar.
        has_aux: whether it returns `(value, aux)`; the state does not hold `aux`, so
            that `value_fn` is called for it.

    Returns:
        `value_and_grad(params, *args, state, **kwargs) -> (value, grad)`, or
        `((value, aux), grad)`, where `grad` is as `jax.grad` returns it.

    Raises:
        ValueError: (when called) the state holds no loss and gradient, as that of
            `scale_by_backtracking_linesearch` without `store_grad`.
        KeyError: (when called) it holds several.

    Example:
        >>> def loss(p):
        ...     return jnp.sum(p**2)
        >>> state = jopt.lbfgs().init(jnp.ones(2))
        >>> jopt.value_and_grad_from_state(loss)(jnp.ones(2), state=state)
        (Array(2., dtype=float32), Array([2., 2.], dtype=float32))
    """
    run = _with_aux if has_aux else _without_aux

    def value_and_grad(params, *args, state: OptState, **kwargs):
        value, grad = tree.get(state, "value"), tree.get(state, "grad")
        if value is None or grad is None:
            raise ValueError(
                "value_and_grad_from_state: the state must be that of a line search "
                "that keeps value and grad, one of them is missing (was "
                "scale_by_backtracking_linesearch made without store_grad?)"
            )
        now = as_it_is_now(value_fn, params, *args, **kwargs)
        if now is not None:
            with contextlib.suppress(OtherArguments):
                return call_compiled(run, now, value, grad, params, args, kwargs)
        return run(value_fn, value, grad, params, args, kwargs)

    return value_and_grad


def _without_aux(value_fn, *given):
    (value, _), grad = _from_state(
        lambda *args, **kwargs: (value_fn(*args, **kwargs), None),
        lambda *args, **kwargs: None,
        *given,
    )
    return value, grad


def _with_aux(value_fn, *given):
    return _from_state(value_fn, lambda *args, **kw: value_fn(*args, **kw)[1], *given)


def _from_state(value_fn, aux_fn, value, grad, params, args, kwargs):
    def compute():
        return jax.value_and_grad(value_fn, has_aux=True)(params, *args, **kwargs)

    def stored():
        cast = jax.tree.map(lambda x, y: x.astype(y.dtype), grad, like_grad)
        return (value.astype(like.dtype), aux_fn(params, *args, **kwargs)), cast

    (like, _), like_grad = jax.eval_shape(compute)
    if jax.tree.structure(grad) != jax.tree.structure(like_grad):
        return compute()  # a mask hid some of the parameters
    return cond(jnp.isfinite(value), stored, compute)
