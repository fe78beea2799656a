"""Runs a plan: makes its state, and turns gradients into updates.

Between two stages that need whole trees every leaf goes through one kernel, traced and
lowered once for each distinct shape and dtype. Arithmetic is in float32 at least;
updates leave in the dtype of the gradients, and every slot of the state keeps the
dtype that `init` gave it.
"""

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp

from ..base import OptState, Params, Updates
from ..compat import Tracer, shard_alike
from ..numerics import compute_dtype
from .checks import check_whole
from .kernel import OWN, SHARED, eager, kernel_of, roles_of, sealed, taken
from .leaves import Leaves, hide, is_own_object, resolve, types_of, unhide
from .stages import NEW, LeafStage, Plan, WholeStage
from .states import StateParts, is_absent, read, write
from .sums import remember

__all__ = []


# -------------------------------------------------------------------------------- init


def init(plan: Plan, params: Params) -> OptState:
    """The state of every stage for these parameters; abstract if they are."""
    leaves = jax.tree.leaves(params)
    if any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
        return types_of(lambda params: init(plan, params), params)
    return plan.pack([_init_stage(stage, params) for stage in plan.stages], NEW)


def _init_stage(stage: LeafStage | WholeStage, params: Params) -> OptState:
    if not jax.tree.leaves(params):  # nothing to hide; see `tree.map_params`
        stage = stage._replace(masks=())
    if isinstance(stage, WholeStage):
        for mask in stage.masks:
            params = hide(resolve(mask, params), params, mask.name)
        return stage.tx.init(params)
    typed = params
    if not stage.needs_params:  # no value is read then, so that the types are enough
        typed = jax.tree.map(_typed, params)
    leaves = Leaves(typed, typed)
    leaves.reference = params
    view = leaves.view(stage.masks)
    slots = []
    for i in view.indices:
        p: Any = leaves.p[i]
        slot = stage.init(p.astype(compute_dtype(p.dtype)))
        slots.append(jax.tree.map(functools.partial(_own, p, set()), slot))
    trees = {f: view.treedef.unflatten([s[f] for s in slots]) for f in stage.slots}
    counts = {f: jnp.zeros((), jnp.int32) for f in stage.counts}
    shared = {f: make() for f, make in (stage.shared or {}).items()}
    return stage.state(**trees, **counts, **shared)


def _typed(p: Any) -> Any:
    """Zeros in place of an object of the program's own that stands for an array."""
    return jnp.zeros(p.shape, p.dtype) if is_own_object(p) else p


def _own(p: jax.Array, seen: set[int], slot: jax.Array) -> jax.Array:
    """The slot in a buffer of its own, sharded as its parameter if it has its shape."""
    if isinstance(p, Tracer):
        if slot.shape == p.shape:
            return shard_alike(p, slot)
        return slot
    if slot is p or id(slot) in seen:  # a donated step needs every buffer once
        return jnp.array(slot, copy=True)
    seen.add(id(slot))
    return slot


# ------------------------------------------------------------------------------ update


def update(
    plan: Plan,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra_args: dict[str, Any],
) -> tuple[Updates, OptState]:
    """One step of every stage."""
    states = plan.unpack(state)
    needs_params = any(getattr(s, "needs_params", False) for s in plan.stages)
    done = []
    leaves = None
    for first, last in _runs(plan.stages):
        stage = plan.stages[first]
        if isinstance(stage, WholeStage):
            updates, new = _whole(stage, updates, states[first], params, extra_args)
            done.append(new)
            leaves = None
            continue
        if leaves is None:
            given = _given(updates, params, plan.stages[first:last])
            leaves = Leaves.reading(given, params, needs_params)
        adds = leaves.has_params and last == len(plan.stages)
        done += _leafwise(plan, first, last, leaves, states[first:last], adds)
        updates = None if updates is None else leaves.tree(leaves.g)
    return updates, plan.pack(done, state)


def _given(updates: Updates, params: Params | None, stages: tuple) -> Updates:
    """The gradients; `None` for all of them does where nothing is kept of them."""
    if updates is None and not any(stage.slots for stage in stages):
        return jax.tree.map(lambda p: None, params)
    return updates


def _runs(stages):
    """Pairs (first, last): one whole stage, or leaf stages that can run together."""
    first = 0
    for i, stage in enumerate(stages):
        if isinstance(stage, WholeStage):
            if first < i:
                yield first, i
            yield i, i + 1
            first = i + 1
        elif stage.reduce is not None and first < i:
            yield first, i
            first = i
    if first < len(stages):
        yield first, len(stages)


def _whole(stage: WholeStage, updates, state, params, extra_args):
    if not stage.masks:
        return _checked(stage, updates, state, params, extra_args)
    seen, shown_by = updates, []
    for mask in stage.masks:
        shown = resolve(mask, seen if params is None else params)
        shown_by.append((shown, seen))
        seen = hide(shown, seen, mask.name)
        params = None if params is None else hide(shown, params, mask.name)
        if mask.of_extra_args:
            extra_args = {k: _hide_if_alike(shown, v) for k, v in extra_args.items()}
    new, state = _checked(stage, seen, state, params, extra_args)
    for shown, outer in reversed(shown_by):
        new = unhide(shown, new, outer)
    return new, state


def _checked(stage: WholeStage, updates, state, params, extra_args):
    if stage.name:
        check_whole(stage, updates, state, params)
    return stage.tx.update(updates, state, params, **extra_args)


def _hide_if_alike(shown: Any, extra: Any) -> Any:
    try:
        return hide(shown, extra)
    except ValueError:
        return extra  # not a tree like the parameters: a loss, a function


def _leafwise(
    plan: Plan, first: int, last: int, leaves: Leaves, states: list, adds: bool
) -> list:
    """Stages `first` to `last` on every leaf; `leaves.g` become their updates."""
    stages: Any = plan.stages[first:last]
    try:
        parts = [read(stage, state, leaves) for stage, state in zip(stages, states)]
    except (ValueError, TypeError):
        if leaves.misfit is not None:  # that says more
            raise leaves.misfit from None
        raise
    tables, entries = zip(*(_numbers(part, leaves) for part in parts))
    hints = [_hints(stage, leaves) for stage in stages]
    numbers = [(part.whole, table) for part, table in zip(parts, tables)]
    traced = _has_tracers((leaves.g, numbers)) or _has_tracers(
        (leaves.p, [part.slots for part in parts])
    )
    numbers = sealed(numbers) if traced else numbers
    rules: dict = {}
    same = [rules.setdefault(stage.rule, k) for k, stage in enumerate(stages)]

    @functools.cache
    def flat(ks, entry):
        chosen = [(numbers[k][0], numbers[k][1][e]) for k, e in zip(ks, entry)]
        return jax.tree.flatten(chosen)

    groups = collections.defaultdict(dict)  # leaves that one trace is enough for
    for i, live in enumerate(leaves.live):
        if not live:
            continue
        ks = tuple(k for k, part in enumerate(parts) if i in part.slots)
        if any(is_absent(parts[k].slots[i]) for k in ks):
            leaves.g[i] = None
        elif ks:
            leaves.check_complex(i)
            hint = tuple(hints[k][i] for k in ks)
            row, form = flat(ks, tuple(entries[k].get(i, 0) for k in ks))
            rule = tuple(same[k] for k in ks)
            shape = leaves.g[i].shape, leaves.g[i].dtype
            by_row = groups[rule, hint, form, shape]
            by_row.setdefault(id(row), (row, []))[1].append((i, ks))
    for (rule, hint, form, _), by_row in groups.items():
        rows, alike = zip(*by_row.values())
        group = [leaf for some in alike for leaf in some]
        roles = roles_of(rows)
        of_rule = tuple(stages[k] for k in rule)
        kernel = kernel_of(plan, of_rule, hint, form, roles, adds and traced)
        given = [
            (leaves.g[i], tuple(parts[k].slots[i] for k in ks), leaves.p[i])
            for i, ks in group
        ]
        own = []
        for row, some in zip(rows, alike):
            own += [taken(row, roles, OWN)] * len(some)
        shared = taken(rows[0], roles, SHARED)
        run = kernel if traced else functools.partial(eager, kernel)
        results = run(given, own, shared)
        for (i, ks), (u, new, total) in zip(group, results):
            leaves.g[i] = u
            if total is not None:
                remember(leaves.p[i], u, total)
            for k, slot in zip(ks, new):
                parts[k].slots[i] = slot
    return [write(part) for part in parts]


def _has_tracers(tree: Any) -> bool:
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(tree))


def _numbers(part: StateParts, leaves: Leaves) -> tuple[list, dict[int, int]]:
    """What leaves need to know of the step or of the whole tree: a table of entries.

    And the entry of each leaf, the first of those that are not named.
    """
    stage, t = part.stage, [part.whole[f] for f in part.stage.counts]
    if stage.needs_params and not leaves.has_params:
        raise ValueError(
            f"{stage.name}: params is missing; call update(updates, state, params)"
        )
    if stage.reduce is not None:
        live = [i for i in part.slots if leaves.live[i]]
        gs, ps = [leaves.g[i] for i in live], [leaves.p[i] for i in live]
        return [stage.reduce(gs, ps)], {}
    if stage.each is not None:
        return [stage.each(*t)], {}
    if stage.by_leaf is not None:
        given = leaves.p if leaves.has_params else leaves.g
        view = leaves.view(stage.masks)
        seen = view.treedef.unflatten([given[i] for i in view.indices])
        table: dict = {}
        values = stage.by_leaf(seen, *t)
        rows = [table.setdefault(id(x), (len(table), x))[0] for x in values]
        return [x for _, x in table.values()], dict(zip(view.indices, rows))
    return [None], {}


def _hints(stage: LeafStage, leaves: Leaves) -> list:
    """The static hint of every leaf for this stage."""
    if stage.hint is None:
        return [None] * len(leaves.g)
    return leaves.treedef.flatten_up_to(stage.hint(leaves.reference))
