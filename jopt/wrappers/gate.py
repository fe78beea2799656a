"""A step taken or left out as a whole, and what else the wrappers share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..base import GradientTransformationExtraArgs, OptState, Params, Updates
from ..engine.leaves import is_inexact, strong
from ..tree import explain
from ..tree.joined import Joint, joined

__all__ = []


def check_state(where: str, state: Any, kind: type) -> None:
    """Refuse the state of another transformation."""
    if getattr(type(state), "_fields", None) != kind._fields:
        raise ValueError(
            f"{where}: expected a {kind.__name__}, got a {type(state).__name__}: "
            "was the state made by another transformation?"
        )


def step_if(
    condition: ArrayLike,
    inner: GradientTransformationExtraArgs,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra_args: dict[str, Any],
    otherwise: Callable[[Updates], Updates],
) -> tuple[Updates, OptState]:
    """A step of `inner` if the condition holds; else its state stays, bit for bit."""

    def step():
        new, after = inner.update(updates, state, params, **extra_args)
        return keep_types(new, updates), keep_types(after, state)

    return choose(condition, lambda: (otherwise(updates), state), step)


def choose(index: ArrayLike, *branches: Callable[[], Any]) -> Any:
    """The branch of that number (or truth), alone computed; leaves may be no arrays."""
    results = []

    def arrays_of(branch):
        def arrays():
            leaves, treedef = jax.tree.flatten(branch())
            results.append((treedef, leaves))
            return [strong(jnp.asarray(x)) for x in leaves if is_array(x)]

        return arrays

    index = jnp.asarray(index).astype(jnp.int32)
    arrays = iter(jax.lax.switch(index, [arrays_of(branch) for branch in branches]))
    treedef, leaves = results[0]
    return treedef.unflatten([next(arrays) if is_array(x) else x for x in leaves])


def zeros(updates: Updates) -> Updates:
    """Updates that change nothing."""
    return jax.tree.map(lambda g: jnp.zeros_like(g) if is_live(g) else g, updates)


def keep_types(new: Any, old: Any) -> Any:
    """`new` in the dtypes of `old`: what is carried from step to step never changes."""

    def one(x, y):
        if not is_array(y):
            return x
        x, dtype = jnp.asarray(x), jnp.asarray(y).dtype
        return strong(x if x.dtype == dtype else x.astype(dtype))

    if jax.tree.structure(new) != jax.tree.structure(old):
        raise ValueError(
            explain("what the inner update returned", new, "its input", old)
        )
    return jax.tree.map(one, new, old)


def is_array(x: Any) -> bool:
    """Whether it is an array or a number that JAX can compute with."""
    if isinstance(x, (np.ndarray, np.generic)):
        return x.dtype != jax.dtypes.float0 and x.dtype.kind not in "OSU"
    return isinstance(x, (jax.Array, bool, int, float, complex))


def is_live(x: Any) -> bool:
    """Whether it is a floating or complex array: something to optimize."""
    return is_array(x) and is_inexact(jax.dtypes.result_type(x))


def live_leaves(tree: Any) -> list[jax.Array]:
    """The floating and complex leaves."""
    return [jnp.asarray(x) for x in jax.tree.leaves(tree) if is_live(x)]


def all_finite(tree: Any) -> jax.Array:
    """Whether no element of any leaf is infinite or not a number, `bool[]`."""
    return joined(_NOT_FINITE, live_leaves(tree), jnp.float32) == 0


def _not_finite(x: jax.Array) -> jax.Array:
    return (~jnp.isfinite(x)).astype(jnp.float32)


_NOT_FINITE = Joint(_not_finite, jnp.maximum, lambda x: jnp.max(x, initial=0))
