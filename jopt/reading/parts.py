"""The parts of an optimizer: the calls that made it, and what each works on."""

import inspect
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
from jax.tree_util import DictKey

from ..base import Params
from ..engine import hide, resolve
from ..plan import Chain, Made, Masked, Rule, Whole, states_inside
from ..settings import Call, Recorded
from ..tree import NamedTupleKey, paths
from ..wrappers.groups import groups, is_of_one_estimate, rules_of_leaves
from ..wrappers.inject import flat_arguments

__all__ = []


class Part(NamedTuple):
    """A node within an optimizer that a call made, and what it works on."""

    node: Any
    state: Any  # None if there is none yet
    params: Params | None  # those that it sees, if they are asked for
    path: tuple = ()  # keys to its state: of chains, partitions, choices of a wrapper
    groups: tuple = ()  # the labels of the partitions among them
    maker: Call | None = None  # of the optimizer that is made of it, if one is
    names: Mapping[str, str] = MappingProxyType({})  # of the groups of leaves, by path
    unsaid: Any = None  # the key of a label that is all groups in one

    @property
    def call(self) -> Call | None:
        """None for what no factory of ours made."""
        return self.node.call if isinstance(self.node, Made) else None

    def group_of(self, path: str) -> str:
        """The labels of a leaf, or the rules that say something of it."""
        return self.names.get(path, "/".join(map(str, self.groups)))

    @property
    def is_injected(self) -> bool:
        """Whether its state holds its numbers."""
        return self.call is not None and isinstance(self.call.factory, Recorded)

    @property
    def arguments(self) -> dict[str, tuple[inspect.Parameter, Any]]:
        """By name, with what is said of them: defaults and `**kwargs` as well."""
        if self.call is None:
            return {}
        bound = self.call.bound()
        bound.apply_defaults()
        return flat_arguments(bound)

    def counts(self) -> Iterator[jax.Array]:
        """The numbers of steps in its state, as its rules and wrappers say them."""
        for part, state in states_inside(self.node, self.state):
            fields = part.counts if isinstance(part, Rule) else [part.count]
            known = getattr(state, "_fields", ())
            yield from (getattr(state, f) for f in fields if f in known)

    def parts(self) -> list["Part"]:
        """The parts in it, in the order in which they are applied."""
        part, call = self, self.call
        if call is not None:
            if not self._goes_on():
                return []
            part = self._replace(node=self.node.node)
            several = _is_partition(_without_calls(part.node))
            if call.factory is groups or (several and not self.node.combines):
                part = part._replace(maker=call)
        return [*_below(part)]

    def _goes_on(self) -> bool:
        """Whether what it is made of says more than its own call.

        A factory that is given transformations does nothing by itself; nor does a mask.
        An optimizer may be several, for leaves of several kinds.
        """
        if self.is_injected:
            return self.state is None
        node = _without_calls(self.node)
        if self.node.combines:
            return True
        if isinstance(node, Masked):
            return isinstance(node.inner, Made)
        return self.params is not None and _is_partition(node)

    def walk(self) -> Iterator[tuple["Part", bool]]:
        """This part and all within, each with whether there are none in it."""
        parts = self.parts()
        yield self, not parts
        for part in parts:
            yield from part.walk()


def _below(part: Part) -> Iterator[Part]:
    """The nearest parts below that calls made, or that nothing is below."""
    node = part.node
    if isinstance(node, Made):
        yield part
        return
    if isinstance(node, Chain) and _is_partition(node):
        below = _groups(part)
    else:
        below = _parts_of(part)
    for inner in below:
        if isinstance(inner.node, Made | Rule | Whole):
            yield inner
        else:
            yield from _below(inner)


def _parts_of(part: Part) -> Iterator[Part]:
    node: Any = part.node
    keys, params = [None] * len(node.parts), part.params
    if isinstance(node, Chain):
        keys = node.keys
    elif isinstance(node, Masked):
        params = _shown(node.mask, params)
    elif isinstance(node, Whole) and part.state is not None:
        kind = type(part.state).__name__
        keys = [NamedTupleKey(kind, f) if f != "" else None for f in node.inside]
    states = _states_in(part)
    for inner, key, state in zip(node.parts, keys, states):
        path = part.path if key is None else (*part.path, key)
        yield part._replace(node=inner, state=state, params=params, path=path)


def _groups(part: Part) -> Iterator[Part]:
    """The groups of a partition: each behind the mask of its label."""
    node, maker, rule_of = part.node, part.maker, {}
    labels = [masked.mask.label[0] for masked in node.parts]
    made_by_rules = all_in_one = False
    if maker is not None and maker.factory is groups:
        made_by_rules, all_in_one = True, is_of_one_estimate(maker, labels)
        if part.params is not None:
            rule_of = rules_of_leaves(maker.arguments["rules"], part.params)

    def names(label, params):
        if params is None or not (rule_of or part.names):
            return {}
        before = {path: part.group_of(path) for path in paths(params)}
        return {
            path: "/".join(filter(None, [before[path], rule_of.get(path, str(label))]))
            for path in before
        }

    for masked, label, state in zip(node.parts, labels, _states_in(part)):
        params, key = _shown(masked.mask, part.params), DictKey(label)
        yield part._replace(
            node=masked.inner,
            state=None if state is None else _taken(part, masked, state)[0],
            params=params,
            path=(*part.path, key),
            groups=(*part.groups, label),
            maker=None if made_by_rules else part.maker,
            names=names(label, params),
            unsaid=key if all_in_one and label == "default" else None,
        )


def _shown(mask: Any, params: Params | None) -> Params | None:
    return None if params is None else hide(resolve(mask, params), params, mask.name)


def _states_in(part: Part) -> list:
    """The state of each part of a node."""
    if part.state is None:
        return [None] * len(part.node.parts)
    return [*_taken(part, part.node, part.state)]


def _taken(part: Part, node: Any, state: Any) -> Any:
    try:
        return node.split(state)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        maker = "the optimizer" if part.call is None else repr(part.call)
        raise ValueError(
            f"the state of {maker} is a {type(state).__name__} that does not "
            "fit it: was it made by another transformation?"
        ) from None


def _without_calls(node: Any) -> Any:
    return _without_calls(node.node) if isinstance(node, Made) else node


def _is_partition(node: Any) -> bool:
    """Whether its parts stand side by side, each for the leaves of a label."""
    return isinstance(node, Chain) and any(
        isinstance(part, Masked) and part.mask.label for part in node.parts
    )
