"""A whole training step in one line."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from .base import GradientTransformation, with_extra_args_support
from .engine.compiled import explaining_deletion, fixed, freed
from .kinds import is_array, is_optimizable, is_value
from .parts import apply_updates
from .parts.combine import check_transformation

__all__ = ["make_step"]


def make_step(
    loss_fn: Callable[..., Any],
    tx: GradientTransformation,
    *,
    has_aux: bool = False,
    donate: bool = True,
) -> Callable[..., tuple[Any, Any, Any]]:
    """Makes the compiled step: value, gradients, update, new parameters.

        value, g = value_and_grad(loss_fn)(p, *args)
        u, state = tx.update(g, state, p, value=value, grad=g, value_fn=...)
        p       <- p + u

    It is compiled once for equal `loss_fn` and `tx` and types of arguments, however
    often it is made. Line searches and Polyak steps get the arguments they need.

    Parameters that `jax.grad` takes are moved, every leaf. In others, such as a module
    with functions and flags, the floating and complex arrays are moved: the rest takes
    no part and comes back as it is. What is no array in them, or in an argument that
    holds a function, is a part of the program.

    Args:
        loss_fn: `loss_fn(params, *args, **kwargs) -> value`, a scalar, or
            `(value, aux)`.
        tx: the optimizer.
        has_aux: whether `loss_fn` returns the pair.
        donate: whether the step may write into the buffers of the parameters and the
            state that it is given; these can then not be used again.

    Returns:
        `step(params, state, *args, **kwargs) -> (params, state, value)`, the last what
        `loss_fn` returned, before the step.

    Raises:
        TypeError: `loss_fn` is no function, or `tx` no transformation.

    Example:
        >>> tx = jopt.sgd(0.5)
        >>> step = jopt.make_step(lambda p, x: jnp.sum((p - x) ** 2), tx)
        >>> params = jnp.ones(2)
        >>> params, state, loss = step(params, tx.init(params), 3.0)
        >>> params, loss
        (Array([3., 3.], dtype=float32), Array(8., dtype=float32))
    """
    if not callable(loss_fn):
        raise TypeError(f"make_step: loss_fn must be a function, got {loss_fn!r}")
    check_transformation("make_step", "tx", tx)
    run = _donating if donate else _keeping
    compiled = functools.partial(run, loss_fn, with_extra_args_support(tx), has_aux)

    def step(params, state, *args, **kwargs):
        with explaining_deletion(step, params, state, *args):
            if all(map(is_optimizable, jax.tree.leaves(params))):
                given = params, state
            else:
                given = fixed(params, is_array), fixed(state)
            more = map(_traceable, args)
            named = {name: _traceable(x) for name, x in kwargs.items()}
            params, state, out = compiled(*given, *more, **named)
            return freed(params), freed(state), out

    return step


def _traceable(x: Any) -> Any:
    """An argument as it is, or one that holds functions with these as its structure."""
    return x if all(map(is_value, jax.tree.leaves(x))) else fixed(x, is_array)


def _step(loss_fn, tx, has_aux, params, state, *args, **kwargs):
    params, state, args, kwargs = freed((params, state, args, kwargs))
    leaves, treedef = jax.tree.flatten(params)
    moved = [
        i for i, x in enumerate(leaves) if is_optimizable(x) and not _is_setting(x)
    ]

    settings = {i: x for i, x in enumerate(leaves) if not hasattr(x, "dtype")}

    def value_fn(params):
        given = treedef.flatten_up_to(params)
        params = treedef.unflatten([settings.get(i, x) for i, x in enumerate(given)])
        out = loss_fn(params, *args, **kwargs)
        return out[0] if has_aux else out

    def loss_of(some):
        full = list(leaves)
        for i, x in zip(moved, some):
            full[i] = x
        return loss_fn(treedef.unflatten(full), *args, **kwargs)

    value_and_grad = jax.value_and_grad(loss_of, has_aux=has_aux)
    out, found = value_and_grad([leaves[i] for i in moved])
    every: list[Any] = [None] * len(leaves)
    for i, g in zip(moved, found):
        every[i] = g
    grads = treedef.unflatten(every)
    value = out[0] if has_aux else out
    updates, state = tx.update(
        grads, state, params, value=value, grad=grads, value_fn=value_fn
    )
    params = fixed(apply_updates(params, updates), is_array)
    return params, fixed(state), out


def _is_setting(x: Any) -> bool:
    """Whether it was left outside of the trace: a number of Python is none inside."""
    return isinstance(x, (float, complex)) and not hasattr(x, "dtype")


_keeping = jax.jit(_step, static_argnums=(0, 1, 2))
_donating = jax.jit(_step, static_argnums=(0, 1, 2), donate_argnums=(3, 4))
