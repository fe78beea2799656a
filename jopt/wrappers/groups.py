"""Parameter groups: another optimizer, or other settings, for leaves chosen by path."""

import inspect
from collections.abc import Mapping
from typing import Any

from .. import settings
from ..base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    Params,
    ScalarOrSchedule,
    Schedule,
)
from ..engine import transformation
from ..parts.combine import chain, check_transformation, partition, set_to_zero
from ..parts.scale import ends_in_learning_rate, scale
from ..parts.values import is_schedule
from ..settings import Range, check_number, check_numbers
from ..tree import partition_by
from ..tree.selection import numbers_in

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
) -> GradientTransformationExtraArgs:
    """Gives leaves that are chosen by path an optimizer or settings of their own.

    Args:
        rules: from what `tree.select` takes, a path pattern above all, to the group:
            an optimizer; settings, a dict of arguments of `default` and `lr_mult`, a
            factor of its updates; or `None` for leaves that are frozen and take no
            state. The first rule that chooses a leaf counts. A mapping, or pairs.
        default: the optimizer of the leaves that no rule chooses.

    Returns:
        A transformation whose state is `PartitionState`: the states of the groups by
        name, `"default"` and the rule's pattern. Where only rates and decays differ,
        `default` alone can have them by path, as `descend` takes them, and its state.

    Raises:
        ValueError: a pattern chooses no leaf; the nearest paths are named.
        TypeError: a group is none of the above, or a setting no argument of `default`.

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
    named: dict[Any, GradientTransformation] = {"default": default}
    for which, group in rules:
        name = which if isinstance(which, str) else getattr(which, "pattern", which)
        if name in named:
            raise ValueError(f"groups: two rules are named {name!r}")
        named[name] = _of_group(repr(name), group, default)
    labels = [(which, name) for (which, _), name in zip(rules, [*named][1:])]
    return partition(named, lambda tree: partition_by(tree, labels, "default"))


def _of_group(name: str, group: Any, default: Any) -> GradientTransformation:
    if group is None:
        return set_to_zero()
    if not isinstance(group, Mapping):
        check_transformation("groups", f"rules[{name}]", group)
        return group
    settings = dict(group)
    factor = settings.pop("lr_mult", None)
    tx = _with_settings(name, settings, default) if settings else default
    if factor is None:
        return tx
    check_number("groups", f"rules[{name}]: lr_mult", factor, Range())
    return _with_factor(tx, factor)


def _with_factor(tx: GradientTransformation, factor: Any) -> GradientTransformation:
    """The transformation with its updates times a factor.

    Where a learning rate has the last word it takes the factor: a kernel more for the
    leaves of the group would be to trace.
    """
    call: Any = getattr(tx.update, "call", None)
    rate = getattr(call, "arguments", {}).get("learning_rate")
    is_one = isinstance(rate, (int, float)) or is_schedule(rate)
    if is_one and ends_in_learning_rate(tx):
        return call.replace(learning_rate=_times(rate, factor)).again()
    return chain(tx, scale(factor))


def _with_settings(name: str, settings: dict, default: Any) -> GradientTransformation:
    """What the call that made `default` makes with other settings."""
    call = getattr(default.update, "call", None)
    if call is None:
        raise TypeError(
            f"groups: rules[{name}] changes settings of default, which no optimizer of "
            "jopt made; give an optimizer instead"
        )
    names = list(inspect.signature(call.factory).parameters)
    unknown = [key for key in settings if key not in names]
    if unknown:
        raise TypeError(
            f"groups: rules[{name}] has {unknown}, which {call.name} does not take; it "
            f"takes {', '.join(names)} and lr_mult"
        )
    return call.replace(**settings).again()


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
