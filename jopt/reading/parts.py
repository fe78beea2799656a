"""The parts of a transformation: the calls that made it, and what each works on."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
from jax.tree_util import DictKey, SequenceKey

from ..base import Params
from ..engine.leaves import hide, resolve
from ..engine.stages import Mask
from ..kinds import is_transformation
from ..parts.combine import (
    as_tuple,
    chain,
    freeze,
    labels_of,
    masked,
    named_chain,
    partition,
)
from ..settings import Call, Recorded
from ..tree import NamedTupleKey, paths
from ..wrappers.groups import groups, is_of_one_estimate, rules_of_leaves
from ..wrappers.inject import flat_arguments

__all__ = []


class Part(NamedTuple):
    """A call within a transformation, and what it works on."""

    tx: Any
    state: Any  # None if there is none yet
    params: Params | None  # those that it sees, if they are asked for
    path: tuple = ()  # keys to its state: of chains, partitions, choices of a wrapper
    groups: tuple = ()  # the labels of the partitions among them
    maker: Call | None = None  # of the optimizer that is made of it, if one is
    names: Mapping[str, str] = MappingProxyType({})  # of the groups of leaves, by path
    unsaid: Any = None  # the key of a label that is all groups in one

    @property
    def call(self) -> Call | None:
        """None for what jopt did not make."""
        return getattr(getattr(self.tx, "update", None), "call", None)

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

    def parts(self) -> list["Part"]:
        """The parts in it, in the order in which they are applied."""
        return [] if self.call is None else [*_parts(self, self.call)]

    def walk(self) -> Iterator[tuple["Part", bool]]:
        """This part and all within, each with whether there are none in it."""
        parts = self.parts()
        yield self, not parts
        for part in parts:
            yield from part.walk()


def _parts(part: Part, call: Call) -> Iterator[Part]:
    given = call.arguments
    if call.factory is chain:
        txs = given.get("args", ())
        for i, tx in enumerate(txs):
            state = _state_in(part, lambda s, i=i: _of_chain(s, len(txs))[i])
            yield part._replace(tx=tx, state=state, path=(*part.path, SequenceKey(i)))
    elif call.factory is named_chain:
        for name, tx in given.get("args", ()):
            state = _state_in(part, lambda s, name=name: s[name])
            yield part._replace(tx=tx, state=state, path=(*part.path, DictKey(name)))
    elif call.factory is masked:
        state = _state_in(part, lambda s: s.inner_state)
        params = _shown(given["mask"], part.params)
        yield part._replace(tx=given["inner"], state=state, params=params)
    elif call.factory is partition:
        yield from _groups(part, **given)
    else:
        yield from _within(part, call)


def _groups(part: Part, transforms, param_labels, **_) -> Iterator[Part]:
    def mask(label):
        def of_label(params):
            labels = labels_of(params, param_labels)
            return jax.tree.map(lambda x: bool(x == label), labels)

        return of_label

    maker, rule_of = part.maker, {}
    made_by_rules = all_in_one = False
    if maker is not None and maker.factory is groups:
        made_by_rules, all_in_one = True, is_of_one_estimate(maker, transforms)
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

    for label, tx in transforms.items():
        params, key = _shown(mask(label), part.params), DictKey(label)
        yield part._replace(
            names=names(label, params),
            maker=None if made_by_rules else part.maker,
            unsaid=key if all_in_one and label == "default" else None,
            tx=tx,
            state=_state_in(part, lambda s, k=label: s.inner_states[k].inner_state),
            params=params,
            path=(*part.path, key),
            groups=(*part.groups, label),
        )


def _shown(mask: Any, params: Params | None) -> Params | None:
    return None if params is None else hide(resolve(Mask(mask), params), params)


def _state_in(part: Part, get: Callable[[Any], Any]) -> Any:
    if part.state is None:
        return None
    try:
        return get(part.state)
    except (AttributeError, IndexError, KeyError, TypeError):
        raise ValueError(
            f"the state of {part.tx!r} is a {type(part.state).__name__} that does not "
            "fit it: was it made by another transformation?"
        ) from None


def _of_chain(state: Any, length: int) -> Sequence:
    states = as_tuple(state)
    if len(states) != length:
        raise IndexError
    return states


def _within(part: Part, call: Call) -> Iterator[Part]:
    """The parts in a wrapper, or in what the factory made with other factories."""
    if part.is_injected and part.state is not None:
        return
    required = [p for p in part.arguments.values() if p[0].default is p[0].empty]
    inner = [x for _, x in required if is_transformation(x)]
    if inner or part.is_injected or call.factory is freeze or part.params is not None:
        product = part._replace(tx=call.inside())
        made = product.call
        if call.factory is groups:
            product = product._replace(maker=call)
        if made and (inner or part.is_injected or call.factory is freeze):
            yield product
            return
        if made and made.factory is partition:  # an optimizer that is several
            yield product._replace(maker=call)
            return
    states = _states_of(part.state, call)
    for i, tx in enumerate(inner):
        key, state = states[i] if states else (None, part.state)
        path = part.path if key is None else (*part.path, key)
        yield part._replace(tx=tx, state=state, path=path)


def _states_of(state: Any, call: Call) -> list[tuple[NamedTupleKey, Any]]:
    """The states within that of a wrapper: they are named so, in order."""
    if type(state).__module__ != call.factory.__module__:
        return []  # it is the inner one's own
    fields = [f for f in state._fields if f.endswith("state")]
    return [(NamedTupleKey(type(state).__name__, f), getattr(state, f)) for f in fields]
