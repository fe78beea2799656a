"""The loss along a direction, as line searches see it."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ... import tree
from ...base import Params, Updates
from ...engine import per_leaf
from ...engine.leaves import Leaves
from ...engine.skeletons import OtherArguments
from ...kinds import is_masked
from ...numerics import cast, compute_dtype, cond
from ...settings import scalar
from ...tree.devices import check_together
from ...tree.matching import beside
from ...words import explain, spell

__all__ = []


class Line:
    """The loss at `p + eta u` for any eta, and its derivative by eta.

    A step is rounded as `apply_updates` will round it, so that what is found here holds
    for the parameters that the caller will have.
    """

    def __init__(
        self,
        where: str,
        updates: Updates,
        params: Params | None,
        value: Any,
        grad: Updates | None,
        value_fn: Callable[..., Any] | None,
        extra_args: dict[str, Any],
    ):
        given = dict(params=params, value=value, grad=grad, value_fn=value_fn)
        for name, x in given.items():
            if x is None:
                raise ValueError(
                    f"{where}: {name} is missing; call update(updates, state, params, "
                    "value=value, grad=grad, value_fn=loss)"
                )
        function: Any = value_fn
        _check_arguments(where, function, extra_args)
        self.where, self.value_fn, self.extra_args = where, function, extra_args
        self.leaves = Leaves(updates, params)
        check_together(where, params=params)
        self.treedef, self.indices = self.leaves.view(())
        # What jax.grad returns is the conjugate of the gradient as a direction.
        self.grads = [jnp.conj(g) for g in self._gradients(grad, params)]
        self.dtype = precision_of(self.grads)
        self.value = scalar(where, "value", value, returned=False).astype(self.dtype)
        self.slope = self._slope(self.grads)

    def updates_at(self, eta: jax.Array) -> Updates:
        """`eta u`, in the dtypes of the updates."""
        steps = list(self.leaves.g)
        for i, live in enumerate(self.leaves.live):
            if live:
                steps[i] = self._step(i, eta)
        return self.leaves.tree(steps)

    def numbers(self, *settings: Any) -> list[Any]:
        """The settings in the dtype of the search, however wide they were given.

        Python numbers, which widen nothing, stay as they are.
        """
        return [
            x if x is None or type(x) in (int, float) else jnp.asarray(x, self.dtype)
            for x in settings
        ]

    def value_at(self, eta: jax.Array) -> jax.Array:
        """The loss."""
        return self._loss(self._params_at(eta))

    def all_at(self, eta: jax.Array) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
        """The loss, its derivative by eta and its gradients."""
        value, grads = jax.value_and_grad(self._loss)(self._params_at(eta))
        grads = [_wide(g) for g in grads]
        return value, self._slope(grads), grads

    def stored(self, grads: list[jax.Array], like: Updates) -> Updates:
        """The gradients as the tree that the state holds."""
        old: list = []
        form: Any = None
        with contextlib.suppress(ValueError):
            old, form = beside(self.treedef, like)
        pairs = zip(old, grads)
        if form is None or any(x is not None and x.shape != g.shape for x, g in pairs):
            tree = self.treedef.unflatten(grads)
            message = explain("the state's 'grad'", like, "params", tree)
            raise ValueError(
                f"{self.where}: {message}; was the state made for other parameters?"
            )
        return form.unflatten([x if x is None else g for x, g in zip(old, grads)])

    def _params_at(self, eta: jax.Array) -> list[jax.Array]:
        leaves = self.leaves
        moved = []
        for i in self.indices:
            p = jnp.asarray(leaves.p[i])
            if leaves.live[i]:
                u = self._step(i, eta)
                dtype = compute_dtype(p.dtype, u.dtype)
                p = cast(cast(p, dtype) + cast(u, dtype), p.dtype)
            moved.append(p)
        return moved

    def _step(self, i: int, eta: jax.Array) -> jax.Array:
        u = self.leaves.g[i]
        wide = _wide(u)
        return cast(eta.astype(wide.dtype) * wide, u.dtype)

    def _loss(self, ps: list[jax.Array]) -> jax.Array:
        leaves = list(self.leaves.p)
        for i, p in zip(self.indices, ps):
            leaves[i] = p
        params = self.leaves.tree(leaves)
        try:
            value = self.value_fn(params, **self.extra_args)
        except OtherArguments:
            raise
        except Exception as error:
            if not any(map(is_masked, jax.tree.leaves(params, is_leaf=is_masked))):
                raise
            raise ValueError(
                f"{self.where}: value_fn failed on parameters of which a mask hides "
                "some; search along the whole step: chain(masked(...), "
                f"{self.where}(...))"
            ) from error
        value = value[0] if isinstance(value, tuple) else value  # (value, aux)
        return scalar(self.where, "value_fn", value).astype(self.dtype)

    def _slope(self, grads: list[jax.Array]) -> jax.Array:
        live = [(i, g) for i, g in zip(self.indices, grads) if self.leaves.live[i]]
        us = [jnp.conj(_wide(self.leaves.g[i])) for i, _ in live]
        slope = tree.vdot(us, [g for _, g in live])
        return jnp.asarray(slope).real.astype(self.dtype)

    def _gradients(self, grad: Updates, params: Params) -> list[jax.Array]:
        """The leaves of the gradient that the caller gave, zeros where it has none."""
        leaves, treedef = jax.tree.flatten(params, is_leaf=is_masked)
        try:
            gs = treedef.flatten_up_to(grad)
        except (ValueError, TypeError):
            message = explain("grad", grad, "params", params)
            raise ValueError(f"{self.where}: {message}") from None
        gs = [g for p, g in zip(leaves, gs) if not is_masked(p)]
        found = []
        for i in self.indices:
            p = self.leaves.p[i]
            g = jnp.zeros_like(p) if gs[i] is None else jnp.asarray(gs[i])
            if g.shape != jnp.shape(p):
                raise ValueError(
                    f"{self.where}: grad at {self.leaves.path(i)} is {spell(g)}, "
                    f"params there is {spell(p)}: the shapes must be equal"
                )
            found.append(_wide(g))
        return found


def _check_arguments(where: str, value_fn: Callable, extra_args: dict) -> None:
    try:
        signature = inspect.signature(value_fn)
    except (TypeError, ValueError):
        return  # of a built-in function, say
    try:
        signature.bind(None, **extra_args)
    except TypeError as error:
        raise TypeError(
            f"{where}: value_fn is called with the parameters and the other arguments "
            f"that update was given, {sorted(extra_args)}: {error}"
        ) from None


def _wide(x: jax.Array) -> jax.Array:
    return cast(x, compute_dtype(x.dtype))


class _Gradient(NamedTuple):
    grad: Updates


_gradient = per_leaf(
    _Gradient, lambda p: dict(grad=jnp.zeros_like(p)), lambda g, s, p: (g, s)
)


def no_gradient(params: Params) -> Updates:
    """Zeros where the parameters can have a gradient, float32 at least."""
    return _gradient.init(params).grad


def precision_of(gradient: Updates) -> np.dtype:
    """The dtype of numbers over the whole tree."""
    reals = (jnp.finfo(x.dtype).dtype for x in jax.tree.leaves(gradient))
    return compute_dtype(jnp.float32, *reals)


def is_failed(info: Any) -> jax.Array:
    """Whether a search was made and lacks decrease; also where float64 is disabled."""
    error = jnp.asarray(info.decrease_error)
    return (info.num_linesearch_steps > 0) & ~(error <= jnp.zeros_like(error))


def report(
    where: str, failed: jax.Array, line: Line, eta: jax.Array, value: jax.Array
) -> None:
    """Prints a search that failed, when it runs."""
    text = (
        where + " failed: loss {start:.6e}, slope {slope:.6e}; it takes the step size "
        "{eta:.6e}, where the loss is {value:.6e}"
    )

    def show():
        jax.debug.print(text, start=line.value, slope=line.slope, eta=eta, value=value)

    cond(failed, show, lambda: None)
