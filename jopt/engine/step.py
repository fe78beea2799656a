"""One step: gradients through the stages of an optimizer, to updates and a new state.

Rules wait until a stage needs all gradients as they are by then, or until the end.
Those that waited run on every leaf as one kernel, traced and lowered once for each
distinct shape and dtype. Arithmetic is in float32 at least; updates leave in the dtype
of the gradients, and every slot of the state keeps the dtype that `init` gave it.
"""

import collections
import functools
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from ..base import OptState, Params, Updates
from ..compat import Tracer
from ..numerics import is_traced
from ..plan import Rule, Stage, Whole, join, split, stages
from .fit import StateParts, check_whole, read, write
from .kernel import Numbers, added, computed_once, eager, kernel_of
from .leaves import Leaves, hide, resolve, unhide
from .once import Once, Rows
from .purity import is_pure_call

__all__ = []


class Plan:
    """The stages of a node, found when they are needed, and kernels made for them."""

    __slots__ = ("_stages", "kernels", "needs_params", "node")

    def __init__(self, node: Any):
        self.node, self._stages = node, None
        self.kernels: dict = {}

    @property
    def stages(self) -> list[Stage]:
        if self._stages is None:
            self._stages = _shared([*stages(self.node)])
            rules: list[Any] = [
                s.part for s in self._stages if isinstance(s.part, Rule)
            ]
            self.needs_params = any([rule.needs_params for rule in rules])
        return self._stages


def _shared(found: list[Stage]) -> list[Stage]:
    """The stages; the rules that equal calls made are one, and share their kernels."""
    factories = collections.Counter(id(s.call.factory) for s in found if s.call)
    if max(factories.values(), default=0) < 2:
        return found
    known, order = {}, collections.Counter()
    for i, stage in enumerate(found):
        call = stage.call
        if not isinstance(stage.part, Rule) or call is None or not _may_share(call):
            continue
        order[id(call)] += 1  # one call may have made several
        rule = known.setdefault((call, order[id(call)]), stage.part)
        found[i] = stage._replace(part=rule)
    return found


def _may_share(call: Any) -> bool:
    """Not with arrays in it, nor functions of the user's: they may hold variables."""
    arrays = (isinstance(x, jax.Array) for x in jax.tree.leaves(call.arguments))
    return not any(arrays) and is_pure_call(call)


def update(
    plan: Plan,
    updates: Updates,
    state: OptState,
    params: Params | None,
    extra_args: dict[str, Any],
) -> tuple[Updates, OptState]:
    """One step of every stage."""
    step = _Step(plan, updates, params, extra_args)
    done: list = []
    for k, old in enumerate(split(plan.node, state)):
        stage = plan.stages[k]
        take = step.wait if isinstance(stage.part, Rule) else step.call
        done.append(take(k, stage, old))
    step.run(is_last=True)
    new = [write(x) if isinstance(x, StateParts) else x for x in done]
    return step.updates, join(plan.node, iter(new), state)


class _Waiting(NamedTuple):
    """A rule that waits, with the numbers of the step: a table and each leaf's row."""

    stage: Stage
    state: StateParts
    rows: list
    row_of: Mapping[int, int]  # the first row for those that are not in it
    hints: list


class _Step:
    """The gradients on their way, side by side while rules wait for them."""

    def __init__(self, plan: Plan, updates: Any, params: Any, extra_args: dict):
        self.plan, self.params, self.extra_args = plan, params, extra_args
        self.leaves: Leaves | None = None
        self.waiting: list[_Waiting] = []
        self._updates = updates

    @property
    def updates(self) -> Updates:
        if self.leaves is None or self._updates is None:
            return self._updates
        return self.leaves.tree(self.leaves.g)

    # ------------------------------------------------------------ a whole tree at once

    def call(self, k: int, stage: Stage, state: OptState) -> OptState:
        """A transformation of whole trees, on what its masks let through."""
        self.run()
        self._updates, self.leaves = self.updates, None
        seen, params, extra_args = self._updates, self.params, self.extra_args
        shown_by = []
        for mask in stage.masks:
            shown = resolve(mask, seen if params is None else params)
            shown_by.append((shown, seen))
            seen = hide(shown, seen, mask.name)
            params = None if params is None else hide(shown, params, mask.name)
            if mask.of_extra_args:
                extra_args = _hidden_alike(shown, extra_args)
        whole: Any = stage.part
        if stage.is_known:
            check_whole(stage, seen, state, params)
        new, state = whole.update(seen, state, params, **extra_args)
        for shown, outer in reversed(shown_by):
            new = unhide(shown, new, outer)
        self._updates = new
        return state

    # -------------------------------------------------------------------- leaf by leaf

    def wait(self, k: int, stage: Stage, state: OptState) -> StateParts:
        """Reads the state of a rule, and finds the numbers that its leaves will need.

        To see the gradients of all leaves is to let the rules before it run.
        """
        rule: Any = stage.part
        leaves = self.leaves = self.leaves or self._read(k)
        if rule.needs_params and not leaves.has_params:
            raise ValueError(
                f"{stage.name}: params is missing; call update(updates, state, params)"
            )
        try:
            parts = read(stage, state, leaves)
        except (ValueError, TypeError):
            if leaves.misfit is not None:  # that says more
                raise leaves.misfit from None
            raise
        hints = [None] * len(leaves.g)
        if rule.hint is not None:
            hints = leaves.treedef.flatten_up_to(rule.hint(leaves.reference))
        numbers = rule.numbers
        if rule.each is not None:
            numbers = rule.each(*[parts.whole[f] for f in rule.counts])
        elif rule.once is not None:
            extra_args = _seen_by(stage, leaves.reference, self.extra_args)
            once = Once(stage, parts, leaves, hints, self.run, extra_args)
            numbers, whole = once.ask()
            parts.whole.update(whole)
        if isinstance(numbers, Rows):
            table = {id(x): x for x in numbers.rows}
            place = {key: n for n, key in enumerate(table)}
            row_of = {i: place[id(x)] for i, x in zip(parts.slots, numbers.rows)}
            waiting = _Waiting(stage, parts, [*table.values()], row_of, hints)
        else:
            waiting = _Waiting(stage, parts, [numbers], {}, hints)
        self.waiting.append(waiting)
        return parts

    def _read(self, k: int) -> Leaves:
        """The leaves, for the rules from `k` to the next whole tree."""
        rules: list[Any] = []
        for stage in self.plan.stages[k:]:
            if isinstance(stage.part, Whole):
                break
            rules.append(stage.part)
        updates = self._updates
        if updates is None and not any([rule.slots for rule in rules]):
            updates = jax.tree.map(lambda p: None, self.params)
        return Leaves.reading(updates, self.params, self.plan.needs_params)

    def run(self, *, is_last: bool = False) -> None:
        """The rules that wait, on every leaf: `leaves.g` become their updates."""
        if not self.waiting:
            return
        leaves, waiting = self.leaves, self.waiting
        self.waiting = []
        assert leaves is not None
        numbers = [(w.state.whole, w.rows) for w in waiting]
        slots = [w.state.slots for w in waiting]
        traced = is_traced((leaves.g, numbers, leaves.p, slots))
        if traced:
            numbers = computed_once(numbers)
        flat = _flatten_chosen(numbers)
        adds = traced and is_last and leaves.has_params
        rules: dict = {}
        for k, w in enumerate(waiting):
            rules.setdefault((w.state.rule.update, w.state.rule.state), k)
        same = [rules[w.state.rule.update, w.state.rule.state] for w in waiting]
        groups = collections.defaultdict(dict)  # leaves that one trace is enough for
        for i, takes_part in enumerate(leaves.optimized):
            if not takes_part:
                continue
            ks = tuple([k for k, some in enumerate(slots) if i in some])
            if any([i in waiting[k].state.absent for k in ks]):
                leaves.g[i], leaves.optimized[i] = None, False
            elif ks:
                leaves.check_complex(i)
                row, form = flat(ks, tuple([waiting[k].row_of.get(i, 0) for k in ks]))
                hints = tuple([waiting[k].hints[i] for k in ks])
                kind = leaves.g[i].shape, leaves.g[i].dtype
                key = tuple([same[k] for k in ks]), hints, form, kind
                groups[key].setdefault(id(row), (row, []))[1].append((i, ks))
        for (ks, hints, form, _), by_row in groups.items():
            rows, alike = zip(*by_row.values())
            step_numbers = Numbers(rows)
            parts = tuple([waiting[k].state.rule for k in ks])
            kernel = kernel_of(
                self.plan.kernels, parts, hints, form, step_numbers.roles, adds
            )
            group = [leaf for some in alike for leaf in some]
            given = [
                (leaves.g[i], tuple([slots[k][i] for k in ks]), leaves.p[i])
                for i, ks in group
            ]
            own = [
                step_numbers.own(row) for row, some in zip(rows, alike) for _ in some
            ]
            run = kernel if traced else functools.partial(eager, kernel)
            results = run(given, own, step_numbers.shared)
            for (i, ks), (u, new, total) in zip(group, results):
                leaves.g[i] = u
                if total is not None:
                    remember(leaves.p[i], u, total)
                for k, slot in zip(ks, new):
                    slots[k][i] = slot


def _flatten_chosen(numbers: list) -> Any:
    """A function of stages and their rows: the numbers of a leaf, and their form."""

    @functools.cache
    def flat(ks, rows):
        chosen = [(numbers[k][0], numbers[k][1][row]) for k, row in zip(ks, rows)]
        return jax.tree.flatten(chosen)

    return flat


def _seen_by(stage: Stage, tree: Any, extra_args: dict) -> dict:
    """The extra arguments behind the masks of a stage that are of these as well."""
    if any([mask.of_extra_args for mask in stage.masks]):
        for mask in stage.masks:
            shown = resolve(mask, tree)
            tree = hide(shown, tree, mask.name)
            if mask.of_extra_args:
                extra_args = _hidden_alike(shown, extra_args)
    return extra_args


def _hidden_alike(shown: Any, extra_args: dict) -> dict:
    """The extra arguments; of trees like the parameters what the mask lets through."""
    hidden = dict(extra_args)
    for name, extra in extra_args.items():
        try:
            hidden[name] = hide(shown, extra)
        except ValueError:
            continue  # a loss, a function
    return hidden


# ------------------------------------------------------------------ the new parameters

# A sum of parameter and update that is made inside of a call or a branch with the
# update costs no equation and no pass of its own. Whoever calls `apply_updates` with
# these very tracers finds it: id(u) -> (u, p, p + u), while u lives.
_sums: dict[int, tuple[weakref.ref, jax.Array, jax.Array]] = {}


def sums_of(params: Params, updates: Updates) -> list[jax.Array]:
    """`p + u` of the leaves that are updated."""
    return [sum_of(p, u) for p, u in Leaves(updates, params).pairs()]


def sum_of(p: jax.Array, u: jax.Array) -> jax.Array:
    """`p + u`, the one that is known already or a new one."""
    known = _sums.get(id(u))
    return known[2] if known is not None and known[1] is p else added(p, u)


def known_sums(params: Params, updates: Updates) -> Params | None:
    """`params + updates` if that of every leaf is known; they were checked before."""
    us, treedef = jax.tree.flatten(updates)
    known = [k for k in (_sums.get(id(u)) for u in us) if k is not None]
    if len(known) < len(us) or jax.tree.structure(params) != treedef:
        return None
    if any(k[1] is not p for k, p in zip(known, jax.tree.leaves(params))):
        return None
    return treedef.unflatten([k[2] for k in known])


def remember(p: jax.Array, u: jax.Array, total: jax.Array) -> None:
    """Notes a parameter, its update and their sum.

    The sum may not have been made from the very tracer `u`: both would live for ever.
    """
    if isinstance(u, Tracer):
        _sums[id(u)] = weakref.ref(u, functools.partial(_sums.pop, id(u))), p, total
