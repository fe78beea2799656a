"""Rules that need numbers over the whole tree which are kept from step to step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..base import GradientTransformationExtraArgs
from ..numerics import cast, compute_dtype
from . import from_plan, run, scalar
from .leaves import Leaves, is_complex, is_inexact
from .stages import LeafStage, WholeStage, one_stage
from .states import is_absent, read

__all__ = ["per_tree", "setting_at"]


def per_tree(
    state: type,
    init: Callable[[jax.Array], dict[str, Any]],
    update: Callable[..., tuple[jax.Array, Any]],
    *,
    reduce: Callable[..., tuple[Any, dict[str, Any]]],
    whole: dict[str, Any] | None = None,
    hint: Callable[[Any], Any] | None = None,
    needs_params: bool = False,
) -> GradientTransformationExtraArgs:
    """Lifts a rule as `per_leaf` does; what it reduces over the tree may be kept.

    Args:
        state: the NamedTuple of the state: slots, `whole` fields and perhaps `count`.
        init: `init(p) -> dict` of the slots for one parameter.
        update: `update(g, s, p, numbers) -> (u, s)` for one array; the hint comes last.
        reduce: `reduce(gs, s, ps, **extra_args) -> (numbers, whole)`, called once a
            step with the lists of all gradients and parameters and a state whose slots
            are such lists and whose count is the number of this step; if there is a
            `hint`, with that of every leaf as `hints`. It returns the numbers that
            every leaf needs and the new values of the `whole` fields.
            Every float that it sees has one dtype, float32 at least.
        whole: the fields that are one value for the tree and where they start: floats,
            booleans, or functions of the list of all parameters that return a float.
        hint: as `per_leaf` takes it.
        needs_params: whether `update` must be given the parameters.
    """
    name = update.__qualname__.split(".")[0]
    whole = whole or {}
    stage = LeafStage(
        name,
        state,
        init,
        update,
        hint=hint,
        counts=tuple(c for c in ("count",) if c in state._fields),
        shared={f: partial(_like_start, start) for f, start in whole.items()},
        needs_params=needs_params,
    )

    def init_tree(params):
        leaves = Leaves(params, params)
        ps = _alike([p for p, live in zip(leaves.p, leaves.live) if live])
        dtype = _precision(ps)

        def begin(value):
            value = value(ps) if callable(value) else value
            return jnp.array(
                value, bool if isinstance(value, bool) else dtype, copy=True
            )

        totals = {f: begin(value) for f, value in whole.items()}
        slots = stage._replace(shared=dict.fromkeys(whole, lambda: None))
        return run.init(one_stage(slots), params)._replace(**totals)

    def update_tree(updates, state, params=None, **extra_args):
        if needs_params and params is None:
            raise ValueError(
                f"{name}: params is missing; call update(updates, state, params)"
            )
        leaves = Leaves(updates, params)
        parts = read(stage, state, leaves)
        live = [
            i
            for i, slot in parts.slots.items()
            if leaves.live[i] and not is_absent(slot)
        ]
        columns = {f: [parts.slots[i][f] for i in live] for f in stage.slots}
        if hint is not None:
            hints = leaves.treedef.flatten_up_to(hint(leaves.reference))
            extra_args["hints"] = [hints[i] for i in live]
        given = [leaves.g[i] for i in live], columns, [leaves.p[i] for i in live]
        (gs, columns, ps), totals = _alike(given), _alike(parts.whole, given)
        mixed = any(is_complex(g.dtype) for g in gs)  # real factors of complex arrays
        config: Any = jax.config
        rules = "standard" if mixed else config.jax_numpy_dtype_promotion
        with jax.named_scope(name), jax.numpy_dtype_promotion(rules):
            numbers, new = reduce(gs, type(parts.state)(**columns, **totals), ps, **extra_args)
        new = {
            f: jax.lax.convert_element_type(x, jax.dtypes.result_type(parts.whole[f]))
            for f, x in new.items()
        }
        leafwise = stage._replace(each=lambda *counts: numbers)
        return run.update(
            one_stage(leafwise), updates, state._replace(**new), params, {}
        )

    tx = GradientTransformationExtraArgs(init_tree, update_tree)
    return from_plan(one_stage(WholeStage(tx)))


def setting_at(where: str, name: str, setting: Any, t: jax.Array, like: jax.Array):
    """What a number or a schedule is at step `t`, from 1, in the dtype of `like`."""
    value = scalar(where, name, setting(t - 1)) if callable(setting) else setting
    return jnp.asarray(value, like.dtype)


def _like_start(start: Any) -> Any:
    """A field that starts so: a boolean, or floats even if they start at an integer."""
    start = start([jnp.zeros(())]) if callable(start) else start
    return start if isinstance(start, bool) else jnp.asarray(start, float)


def _alike(arrays: Any, like: Any = None) -> Any:
    """Every float in the precision of the widest, float32 at least."""
    dtype = _precision(arrays if like is None else like)

    def one(x):
        x = jnp.asarray(x)
        return cast(x, compute_dtype(x.dtype, dtype)) if is_inexact(x.dtype) else x

    return jax.tree.map(one, arrays)


def _precision(arrays: Any) -> np.dtype:
    dtypes = [x.dtype for x in jax.tree.leaves(arrays) if is_inexact(x.dtype)]
    return compute_dtype(jnp.float32, *(jnp.finfo(d).dtype for d in dtypes))
