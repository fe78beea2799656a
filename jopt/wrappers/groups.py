"""Parameter groups: another optimizer, or other settings, for leaves chosen by path."""

import inspect
import itertools
import re
import typing
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from .. import settings
from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    Params,
    PerLeaf,
    Rules,
    ScalarOrSchedule,
    Schedule,
    WeightDecay,
)
from ..engine import transformation
from ..kinds import is_function, is_leaf, is_schedule, is_transformation
from ..optimizers.dadapt_adamw import dadapt_adamw
from ..optimizers.lbfgs import lbfgs
from ..optimizers.momo import momo, momo_adam
from ..optimizers.prodigy import prodigy
from ..parts.combine import (
    chain,
    check_transformation,
    named_chain,
    partition,
    set_to_zero,
)
from ..parts.scale import ends_in_learning_rate, scale
from ..plan import is_leaf_by_leaf, node_of
from ..settings import Range, check_number, check_numbers
from ..tree import paths
from ..tree.selection import Which, chosen_by, numbers_in
from .flatten import flatten
from .schedule_free import schedule_free_adamw, schedule_free_sgd

__all__ = ["groups", "layerwise_lr_decay"]


def _as_pairs(arguments: dict[str, Any]) -> dict[str, Any]:
    rules = arguments.get("rules", ())
    pairs = rules.items() if isinstance(rules, Mapping) else rules
    try:
        return {"rules": tuple((which, _ordered(group)) for which, group in pairs)}
    except (TypeError, ValueError):
        raise TypeError(
            "groups: rules must be a mapping from patterns to groups, or pairs of the "
            f"two, got {type(rules).__name__} {rules!r:.60}"
        ) from None


def _ordered(group: Any) -> Any:
    """The group, with settings by path in the order that they were given."""
    if not isinstance(group, Mapping):
        return group
    return {k: settings.rules_as_tree(k, v) for k, v in group.items()}


@transformation(normal=_as_pairs)
def groups(
    rules: Mapping[Any, Any] | tuple[tuple[Any, Any], ...],
    default: GradientTransformation,
    *,
    separate_estimates: bool = False,
) -> GradientTransformationExtraArgs:
    """Gives leaves that are chosen by path an optimizer or settings of their own.

    Rules add up: the first rule that chooses a leaf says its optimizer, and each
    setting is that of the first rule that gives it. With `{"hidden": dict(lr_mult=0.3),
    "**/bias": dict(weight_decay=0.0)}` the bias of the hidden layer has both. A rule
    that gives an optimizer, or freezes, is complete: no other adds to it.

    A method that looks at the whole tree, as `prodigy`, `dog`, `lbfgs`, `mechanize` and
    a clip of the global norm do, makes one estimate over all leaves of `default`,
    whatever rates and decays they have. So do leaves of a rule with an optimizer that
    differs from `default` in these alone.

    Args:
        rules: from what `tree.select` takes, a path pattern above all, to the group:
            an optimizer; settings, a dict of arguments of `default` and `lr_mult`, a
            factor of its updates; or `None` for leaves that are frozen and take no
            state. A mapping, or pairs. A setting is for the part of a chain, or the
            optimizer in a wrapper, that takes it.
        default: the optimizer of the leaves that no rule chooses.
        separate_estimates: whether a method of the whole tree is to look at the leaves
            of each group alone, which may then have all other settings too.

    Returns:
        A transformation whose state is `PartitionState`: the states of the groups by
        name, `"default"` and the rule's pattern; where there is one estimate, that of
        all leaves is `"default"`. Where only rates and decays differ, `default` alone
        can have them by path, as `descend` takes them, and its state.

    Raises:
        ValueError: a pattern chooses no leaf; the nearest paths are named.
        TypeError: a group is none of the above, a setting no argument of `default`, or
            one of several parts of it; or it is none that leaves with one estimate can
            have of their own.

    Example:
        >>> tx = jopt.groups(
        ...     {"**/bias": dict(weight_decay=0.0), "embed": dict(lr_mult=0.1),
        ...      "frozen/**": None},
        ...     default=jopt.adamw(1e-3, weight_decay=0.1))
        >>> params = {"embed": jnp.ones(3), "frozen": {"w": jnp.ones(2)},
        ...           "out": {"w": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
        >>> tx.init(params).inner_states["frozen/**"]
        MaskedState(inner_state=EmptyState())
    """
    check_transformation("groups", "default", default)
    named = _named(rules)
    joint = not separate_estimates and _sees_the_tree(default)
    if joint:
        named = [rule._replace(group=_as_settings(rule, default)) for rule in named]
    for rule in named:
        _check(rule, default)
    if joint:
        return _of_one_estimate(named, default)
    return _of_groups(named, default)


class _Rule(NamedTuple):
    which: Any  # as a key of a mapping
    name: str
    group: Any

    @property
    def gives(self) -> Mapping:
        """The settings that it gives."""
        return self.group if isinstance(self.group, Mapping) else {}

    @property
    def adds(self) -> bool:
        """Whether it is one of settings."""
        return isinstance(self.group, Mapping)


def _named(rules: Any) -> list[_Rule]:
    found = []
    for i, (which, group) in enumerate(rules):
        name = _name_of(which, i)
        if name in ("default", *(rule.name for rule in found)):
            raise ValueError(f"groups: two rules are named {name!r}")
        is_key = isinstance(which, (str, re.Pattern, Which)) or is_function(which)
        key = which if is_key else Which(which, name)
        found.append(_Rule(key, name, group))
    return found


def _name_of(which: Any, i: int) -> str:
    if isinstance(which, (str, re.Pattern)):
        return which if isinstance(which, str) else which.pattern
    several = isinstance(which, (list, tuple)) and bool(which)
    if several and all(isinstance(x, (str, re.Pattern)) for x in which):
        return ", ".join(_name_of(x, i) for x in which)
    if is_function(which):
        name = getattr(which, "__name__", "<lambda>")
        return name if name != "<lambda>" else f"function {i}"
    return f"rule {i}"


def _check(rule: _Rule, default: Any) -> None:
    if rule.group is None:
        return
    if not rule.adds:
        check_transformation("groups", f"rules[{rule.name!r}]", rule.group)
        return
    factor = rule.group.get("lr_mult")
    if factor is not None:
        check_number("groups", f"rules[{rule.name!r}]: lr_mult", factor, Range())
    _made(rule.name, default, dict(rule.group))


# ------------------------------------------------------- groups one beside the other


def _of_groups(rules: list[_Rule], default: Any) -> GradientTransformationExtraArgs:
    """A partition: what the first rule of a leaf does not say, later ones may.

    A rate or a decay of later rules is one by path within the group; leaves with
    another setting of theirs are a group of their own.
    """
    by_path = {key for rule in rules for key in rule.gives if _is_by_path(key, default)}
    made: dict[Any, GradientTransformation] = {"default": default}
    for i, rule in enumerate(rules):
        if not rule.adds:
            made[rule.name] = set_to_zero() if rule.group is None else rule.group
            continue
        later = [r for r in rules[i + 1 :] if r.adds]
        given = dict(rule.group) | {
            key: cases
            for key in sorted(by_path - set(rule.group))
            if (cases := _cases(key, later))
        }
        for more in _choices(rule, later, by_path):
            name = _joined([rule, *more])
            rest = {k: v for r in reversed(more) for k, v in r.gives.items()}
            rest = {k: v for k, v in rest.items() if k not in by_path}
            made[name] = _made(name, default, rest | given)

    def label(rows):
        first = next((r for r, chosen in zip(rules, rows) if chosen), None)
        if first is None:
            return "default"
        if not first.adds:
            return first.name
        seen = set(first.gives) | by_path
        names = [first]
        for rule, chosen in zip(rules, rows):
            if chosen and rule is not first and set(rule.gives) - seen:
                names.append(rule)
                seen |= set(rule.gives)
        return _joined(names)

    return partition(made, _Labels(tuple(rule.which for rule in rules), label))


_MOST = 64  # groups that one rule may be with others


def _choices(rule: _Rule, later: list[_Rule], by_path: set) -> list[list[_Rule]]:
    """The later rules that may say more of the leaves of a rule, together."""
    seen = set(rule.gives) | by_path
    others = [r for r in later if set(r.gives) - seen]
    found = []
    for chosen in itertools.product((False, True), repeat=min(len(others), 20)):
        names, known = [], set(seen)
        for r in itertools.compress(others, chosen):
            if set(r.gives) - known:
                names.append(r)
                known |= set(r.gives)
        if names not in found:
            found.append(names)
        if len(found) > _MOST:
            raise ValueError(
                f"groups: rules[{rule.name!r}] may be with too many others at once, "
                f"{', '.join(repr(r.name) for r in others[:5])} ...: say in it what "
                "they say"
            )
    return found


def _joined(rules: list[_Rule]) -> str:
    return " + ".join(rule.name for rule in rules)


class _Labels:
    """A function that makes the tree of labels, from the rules that choose a leaf."""

    def __init__(self, whiches: tuple, label: Callable[[tuple], str]):
        self.whiches, self.label = whiches, label

    def __call__(self, tree: Any) -> Any:
        rows = chosen_by([*self.whiches], tree, "groups: ")
        return jax.tree.structure(tree).unflatten(map(self.label, rows))


def rules_of_leaves(rules: Any, params: Params) -> dict[str, str]:
    """The names of the rules that say something of each leaf, for `describe`."""
    named = _named(rules)
    rows = chosen_by([rule.which for rule in named], params, "groups: ")

    def one(row):
        names, seen = [], set()
        for rule, chosen in zip(named, row):
            if chosen and not (names and not rule.adds):
                if not names or set(rule.gives) - seen:
                    names.append(rule)
                    seen |= set(rule.gives)
                if not rule.adds:
                    break
        return _joined(names) or "default"

    return dict(zip(paths(params), map(one, rows)))


# -------------------------------------------------------------------- one estimate


def is_of_one_estimate(call: settings.Call, transforms: Container) -> bool:
    """Whether the groups of settings are all in `default`, for `hyperparams`."""
    return any(rule.name not in transforms for rule in _named(call.arguments["rules"]))


def _sees_the_tree(tx: GradientTransformation) -> bool:
    """Whether what it does to a leaf may depend on the others."""
    return not is_leaf_by_leaf(node_of(tx))


def _of_one_estimate(
    rules: list[_Rule], default: Any
) -> GradientTransformationExtraArgs:
    """One optimizer for the leaves of all rules of settings, and `default`'s."""
    adding = [rule for rule in rules if rule.adds]
    keys = dict.fromkeys(key for rule in adding for key in rule.gives)
    for key in keys:
        if not _is_by_path(key, default):
            name = next(rule.name for rule in adding if key in rule.gives)
            raise TypeError(
                f"groups: rules[{name!r}] changes {key}, and {default!r} makes one "
                "estimate over the leaves of all groups, which have rates and decays "
                "of their own alone; put what looks at the whole tree, such as a clip, "
                "outside, in a chain, or give separate_estimates=True"
            )
    given = {key: _cases(key, adding) for key in keys}
    where = _joined([r for r in adding if r.gives]) or "default"
    made: dict[Any, Any] = {"default": _made(where, default, given)}
    for rule in rules:
        if not rule.adds:
            made[rule.name] = set_to_zero() if rule.group is None else rule.group

    def label(rows):
        first = next((r for r, chosen in zip(rules, rows) if chosen), None)
        return "default" if first is None or first.adds else first.name

    return partition(made, _Labels(tuple(rule.which for rule in rules), label))


def _as_settings(rule: _Rule, default: Any) -> Any:
    """The settings by which an optimizer differs from `default`, if they are all."""
    if rule.group is None or rule.adds:
        return rule.group
    check_transformation("groups", f"rules[{rule.name!r}]", rule.group)
    found = _difference(rule.group, default)
    return rule.group if found is None else found


def _difference(tx: Any, default: Any) -> dict[str, Any] | None:
    """The rate and the decay of one where they are not the other's."""
    calls: Any = [getattr(x.update, "call", None) for x in (tx, default)]
    if None in calls or calls[0].factory is not calls[1].factory:
        return None
    found = {}
    mine, others = ({**_defaults(call), **call.arguments} for call in calls)
    for name in {**mine, **others}:
        a, b = mine.get(name), others.get(name)
        if settings.same(a, b):
            continue
        pairs = [*zip(_transformations(a), _transformations(b))]
        if pairs and len(_transformations(a)) == len(_transformations(b)):
            for (x, _), (y, _) in pairs:
                more = _difference(x, y)
                if more is None or set(more) & set(found):
                    return None
                found |= more
        elif name in ("learning_rate", "weight_decay") and a is not None:
            found[name] = a
        else:
            return None
    return found


def _defaults(call: settings.Call) -> dict[str, Any]:
    parameters = inspect.signature(call.factory).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


# ------------------------------------------------------------------------- settings


class _Cases(tuple):
    """Pairs of what chooses leaves and the value of a setting there."""


def _cases(key: str, rules: list[_Rule]) -> _Cases:
    return _Cases((rule.which, rule.gives[key]) for rule in rules if key in rule.gives)


def _is_by_path(key: str, default: Any) -> bool:
    """Whether leaves of one optimizer can have the setting each for itself."""
    if key == "lr_mult":
        return True
    takers = [call for call, _ in _takers(default, key)]
    said = [inspect.signature(call.factory).parameters[key] for call in takers]
    injected = any(isinstance(call.factory, settings.Recorded) for call in takers)
    has_paths = len(takers) == len(_takers(default, key, by_path=True))
    named = key.endswith(("learning_rate", "weight_decay", "weight_decay_rate"))
    return (
        (named or key in ("scaling", "step_size"))
        and has_paths
        and not (injected and not _sees_the_tree(default))
        and all(Any in typing.get_args(p.annotation) for p in said)
    )


def _made(where: str, default: Any, given: dict[str, Any]) -> GradientTransformation:
    """`default` with other settings, each one for all leaves or several by path."""
    given = dict(given)
    factor = given.pop("lr_mult", None)
    tx = default
    for key, value in given.items():
        tx = _with_setting(where, tx, key, value)
    return tx if factor is None else _with_factor(tx, factor)


def _with_setting(where: str, tx: Any, key: str, value: Any) -> GradientTransformation:
    """The transformation with another setting in the one part that takes it."""
    takers = _takers(tx, key)
    if not takers:
        raise TypeError(_not_taken(where, tx, key))
    used = [x for x in takers if _now(x[0], key) is not None]
    if len(used or takers) > 1:
        names = " and of ".join(call.name for call, _ in used or takers)
        raise TypeError(
            f"groups: rules[{where!r}] changes {key}, which is an argument of {names} "
            "in default; give the group an optimizer, or put one of the two outside"
        )
    call, put = (used or takers)[0]
    if isinstance(value, _Cases):
        value = _over(where, key, value, _now(call, key))
    return put(call.replace(**{key: value}).again())


def _now(call: settings.Call, key: str) -> Any:
    return call.arguments.get(key, _defaults(call).get(key))


def _takers(
    tx: Any, key: str, by_path: bool = False
) -> list[tuple[settings.Call, Callable]]:
    """The calls in it that take the setting, and what puts another product there.

    Or those that see the paths of the leaves, which one vector of all has not.
    """
    call: Any = getattr(tx.update, "call", None)
    if call is None or (by_path and call.factory is flatten):
        return []
    found = []
    if key in inspect.signature(call.factory).parameters:
        found.append((call, lambda new: new))
    for inner, put in _inside(call):
        for taker, again in _takers(inner, key, by_path):
            found.append((taker, lambda new, p=put, a=again: p(a(new))))
    return found


def _inside(call: settings.Call) -> Iterator[tuple[Any, Callable]]:
    """The transformations among the arguments, and the call's product with another."""
    for name, value in call.arguments.items():
        for inner, put in _transformations(value):
            yield (
                inner,
                lambda new, n=name, p=put: call.replace(**{n: p(new)}).again(),
            )


def _transformations(value: Any) -> list[tuple[Any, Callable]]:
    """Those in an argument, and the argument with another in its place."""
    if is_transformation(value):
        return [(value, lambda new: new)]
    if not isinstance(value, (tuple, list)):
        return []
    found = []
    for i, x in enumerate(value):
        for inner, put in _transformations(x):

            def again(new, i=i, put=put):
                return (*value[:i], put(new), *value[i + 1 :])

            found.append((inner, again))
    return found


def _not_taken(where: str, tx: Any, key: str) -> str:
    call: Any = getattr(tx.update, "call", None)
    if call is None:
        return (
            f"groups: rules[{where!r}] changes settings of default, which no optimizer "
            "of jopt made; give an optimizer instead"
        )
    names = dict.fromkeys(_names_in(call))
    return (
        f"groups: rules[{where!r}] has {[key]}, which {call.name} does not take; it "
        f"takes {', '.join(names)} and lr_mult"
    )


def _names_in(call: settings.Call) -> Iterator[str]:
    inner = [getattr(x.update, "call", None) for x, _ in _inside(call)]
    if call.factory not in (chain, named_chain):
        yield from inspect.signature(call.factory).parameters
    for more in filter(None, inner):
        yield from _names_in(more)


def _over(where: str, key: str, cases: _Cases, now: Any) -> Any:
    """A setting by path, with what it is now elsewhere."""
    kinds = {now.kind} if isinstance(now, WeightDecay) else set()
    kinds |= {x.kind for _, x in cases if isinstance(x, WeightDecay)}
    plain = [x for _, x in cases if not isinstance(x, WeightDecay)]
    plain += [] if now is None or isinstance(now, WeightDecay) else [now]
    if len(kinds) + any(is_schedule(x) or x != 0 for x in map(_one, plain)) > 1:
        raise TypeError(
            f"groups: rules[{where!r}] gives {key} of another kind than default has, "
            "to a part of its leaves; give the group an optimizer"
        )
    values = {which: getattr(x, "value", x) if kinds else x for which, x in cases}
    now = getattr(now, "value", now) if kinds else now
    now = (1.0 if key.endswith("learning_rate") else 0.0) if now is None else now
    if not isinstance(now, Rules):
        now = Rules({"default": now})
    flat = [*values.values(), *now.values()]
    if not jax.tree_util.all_leaves(flat):
        raise TypeError(
            f"groups: rules[{where!r}] gives {key} to a part of the leaves, where it "
            "is a tree; give it by patterns, in rules or in default"
        )
    found = Rules(values | {k: v for k, v in now.items() if k not in values})
    return WeightDecay(found, *kinds) if kinds else found


def _one(x: Any) -> Any:
    """A number that is not zero, of several that may be."""
    return x if is_leaf(x) else 1.0


# ----------------------------------------------------------------------- a multiplier

# What they find depends on the rates of the leaves, which are the units of it.
_IN_UNITS = (
    *(prodigy, dadapt_adamw, momo, momo_adam, lbfgs),
    *(schedule_free_adamw, schedule_free_sgd),
)


def _with_factor(tx: GradientTransformation, factor: Any) -> GradientTransformation:
    """The transformation with its updates times a factor, or several by path.

    Where a learning rate has the last word it takes the factor: a kernel more for the
    leaves of the group would be to trace. A wrapper keeps account of its updates, so
    what it wraps takes it.
    """
    call: Any = getattr(tx.update, "call", None)
    by_path = isinstance(factor, _Cases)
    outside = (lbfgs, flatten) if by_path else (lbfgs,)  # a line search; no paths
    if call is not None and not isinstance(call.factory, settings.Recorded):
        inner = [*_inside(call)]
        if inner and call.factory in (chain, named_chain):
            last, put = inner[-1]
            if _takers(last, "learning_rate"):
                return put(_with_factor(last, factor))
        elif len(inner) == 1 and call.factory not in outside:
            last, put = inner[0]
            return put(_with_factor(last, factor))
        rate = _rate(call)
        if rate is not None and (
            call.factory in _IN_UNITS or ends_in_learning_rate(tx)
        ):
            return call.replace(learning_rate=_product(rate, factor)).again()
    if by_path:
        factor = Rules(dict(factor) | {"default": 1.0})
    return chain(tx, lr_mult(factor))


@transformation(lr_mult=Range(per_leaf=True))
def lr_mult(lr_mult: PerLeaf) -> GradientTransformationExtraArgs:
    """What a multiplier of groups is where no learning rate can take it."""
    return scale(lr_mult)


def _rate(call: settings.Call) -> Any:
    """The learning rate of a call, one or by path; None if it has none such."""
    if "learning_rate" not in inspect.signature(call.factory).parameters:
        return None
    rate = _now(call, "learning_rate")
    if rate is None and call.factory is lbfgs:
        return 1.0
    if isinstance(rate, Rules):
        return rate if jax.tree_util.all_leaves(rate.values()) else None
    is_one = isinstance(rate, (int, float, jax.Array)) or is_schedule(rate)
    return rate if is_one else None


def _product(rate: Any, factor: Any) -> Any:
    if not isinstance(factor, _Cases):
        return jax.tree.map(lambda x: _times(x, factor), rate)
    if not isinstance(rate, Rules):
        found = {which: _times(rate, x) for which, x in factor}
        return Rules({**found, "default": rate})
    factors = [*factor, ("default", 1.0)]
    rates = [*rate.items()]
    cells = {}
    for i, (which, x) in enumerate(rates):
        for j, (other, f) in enumerate(factors):  # where both are the first
            pairs = (tuple(k for k, _ in rates), i), (tuple(k for k, _ in factors), j)
            words = [str(getattr(k, "pattern", k)) for k in (which, other)]
            name = " + ".join(dict.fromkeys(w for w in words if w != "default"))
            cells[_Cell(pairs, name) if name else "default"] = _times(x, f)
    return Rules(cells)


class _Cell:
    """The leaves for which a certain rule is the first, of each of several lists."""

    def __init__(self, pairs: tuple, name: str):
        self.pairs, self.name = pairs, name

    def __call__(self, tree: Any) -> Any:
        shown = [True] * len(jax.tree.leaves(tree))
        for whiches, at in self.pairs:
            some = [which for which in whiches if which != "default"]
            first = [
                next((w for w, c in zip(some, row) if c), "default")
                for row in chosen_by(some, tree, "groups: ")
            ]
            shown = [s and w == whiches[at] for s, w in zip(shown, first)]
        return jax.tree.structure(tree).unflatten(shown)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Cell) and self.pairs == other.pairs

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __repr__(self) -> str:
        return repr(self.name)

    def __str__(self) -> str:
        return self.name


# --------------------------------------------------------------------- layer by layer


def layerwise_lr_decay(
    params: Params,
    learning_rate: ScalarOrSchedule,
    decay: float,
    *,
    layers: str = "layers/{}",
    first: str | tuple[str, ...] = (),
) -> dict[str, ScalarOrSchedule]:
    """Learning rates that fall from the head of a network to its first layer.

        learning_rate                      of the head, and of all that is not named
        learning_rate decay^(n - i)        of the layer i of n, i from 0
        learning_rate decay^(n + 1)        of what comes first, the embeddings

    Args:
        params: the parameters, or their shapes: how many layers there are.
        learning_rate: the largest: a number, or a schedule of the steps taken so far.
        decay: what each layer takes off, in (0, 1].
        layers: the path pattern of a layer, as `tree.select` takes it, with `{}` where
            its number stands. Layers are counted in the order of their numbers.
        first: the patterns of what comes before the layers.

    Returns:
        A mapping from patterns to learning rates, which every optimizer takes as its
        `learning_rate`. With a learning rate of 1 these are factors, for `lr_mult`.

    Raises:
        ValueError: `layers` has no `{}` or finds no layer, or `decay` is out of range.
        TypeError: `learning_rate` is no number or schedule.

    Example:
        >>> params = {"embed": jnp.ones(2), "layers": [jnp.ones(2)] * 2,
        ...           "head": jnp.ones(2)}
        >>> rates = jopt.layerwise_lr_decay(params, 1.0, 0.5, first="embed")
        >>> rates
        {'embed': 0.125, 'layers/0': 0.25, 'layers/1': 0.5, 'default': 1.0}
        >>> tx = jopt.adamw(rates)

    Reference:
        Howard & Ruder, Universal Language Model Fine-tuning for Text Classification,
        ACL 2018, arXiv:1801.06146. Clark et al., ELECTRA, ICLR 2020, arXiv:2003.10555.
    """
    where = "layerwise_lr_decay"
    check_numbers(where, "learning_rate", learning_rate, Range())
    check_number(where, "decay", decay, Range(0, 1, open_low=True))
    if layers.count("{}") != 1:
        raise ValueError(
            f"{where}: layers must have one {{}}, for the number, got {layers!r}"
        )
    numbers = numbers_in(params, layers, name=f"{where}: layers")
    n = len(numbers)
    depths = dict.fromkeys([first] if isinstance(first, str) else first, n + 1)
    depths |= {layers.replace("{}", text): n - i for i, text in enumerate(numbers)}
    rates = {
        pattern: _times(learning_rate, decay**depth)
        for pattern, depth in depths.items()
    }
    return {**rates, "default": learning_rate}


def _times(rate: Any, factor: float) -> Any:
    return scaled(rate, factor) if is_schedule(rate) else factor * rate


@settings.schedule
def scaled(schedule: Schedule, factor: float) -> Schedule:
    """A multiple of a schedule."""
    return lambda count: factor * schedule(count)
