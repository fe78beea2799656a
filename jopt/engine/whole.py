"""Rules that need numbers over the whole tree which are kept from step to step."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..base import GradientTransformationExtraArgs
from ..numerics import cast, compute_dtype
from ..settings import setting_at
from ..tree import values_of
from . import from_plan, run
from .leaves import Leaves, is_complex, is_inexact
from .stages import LeafStage, WholeStage, one_stage
from .states import is_absent, read

__all__ = ["Own", "largest", "once_each", "per_tree"]


class Own(NamedTuple):
    """What one leaf has of the settings that may be given by path, at a step."""

    learning_rate: Any
    weight_decay: Any


def per_tree(
    state: type,
    init: Callable[[jax.Array], dict[str, Any]],
    update: Callable[..., tuple[jax.Array, Any]],
    *,
    reduce: Callable[..., tuple[Any, dict[str, Any]]],
    whole: dict[str, Any] | None = None,
    hint: Callable[[Any], Any] | None = None,
    settings: Own | None = None,
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
        settings: the learning rate and the decay as `descend` takes them, with a count
            of steps in the state. Then `reduce` is given that of every leaf as `owns`,
            one object where they are equal, and returns for `numbers` a function of
            such an `Own`, which is called once for each.
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
        owns = {}
        if settings is not None:
            like = jnp.zeros((), _precision(given))
            now = parts.whole["count"]
            owns = dict(enumerate(_owns(name, settings, leaves.reference, now, like)))
            extra_args["owns"] = [owns[i] for i in live]
        mixed = any(is_complex(g.dtype) for g in gs)  # real factors of complex arrays
        config: Any = jax.config
        rules = "standard" if mixed else config.jax_numpy_dtype_promotion
        with jax.named_scope(name), jax.numpy_dtype_promotion(rules):
            numbers, new = reduce(
                gs, type(parts.state)(**columns, **totals), ps, **extra_args
            )
        new = {
            f: jax.lax.convert_element_type(x, jax.dtypes.result_type(parts.whole[f]))
            for f, x in new.items()
        }
        if settings is None:
            leafwise = stage._replace(each=lambda *counts: numbers)
        else:
            number = once_each(numbers)
            rows = [number(owns[i]) for i in parts.slots]
            leafwise = stage._replace(by_leaf=lambda *_: rows)
        return run.update(
            one_stage(leafwise), updates, state._replace(**new), params, {}
        )

    tx = GradientTransformationExtraArgs(init_tree, update_tree)
    return from_plan(one_stage(WholeStage(tx)))


def _owns(where: str, settings: Own, tree: Any, t: jax.Array, like: Any) -> list[Own]:
    """The settings of every leaf at step `t`, from 1: one object where they are equal.

    Numbers of Python stay such, but for a rate.
    """
    known, made = {}, {}

    def at_step(name, value):
        if isinstance(value, (int, float)) and name != "learning_rate":
            return value
        if id(value) not in known:
            known[id(value)] = setting_at(where, name, value, t, like)
        return known[id(value)]

    rates = values_of(settings.learning_rate, tree, name=f"{where}: learning_rate")
    decays = values_of(
        settings.weight_decay, tree, name=f"{where}: weight_decay", default=0.0
    )
    for rate, decay in zip(rates, decays):
        if (id(rate), id(decay)) not in made:
            now = at_step("learning_rate", rate), at_step("weight_decay", decay)
            made[id(rate), id(decay)] = Own(*now)
    return [made[id(rate), id(decay)] for rate, decay in zip(rates, decays)]


def once_each(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function, called once for each object that it is given."""
    made = {}

    def once(x):
        if id(x) not in made:
            made[id(x)] = function(x)
        return made[id(x)]

    return once


def largest(numbers: list) -> Any:
    """The largest of some numbers, many of which are one object."""
    first, *others = {id(x): x for x in numbers}.values() or [0.0]
    for x in others:
        first = jnp.maximum(first, x)
    return first


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
