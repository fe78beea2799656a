"""Short names for what stands somewhere in a state: `learning_rate`, `decay/b1`."""

import collections
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
from jax.tree_util import DictKey, SequenceKey

from ..tree import NamedTupleKey

__all__ = []


class Entry(NamedTuple):
    """A value, what it is called, and the keys to the state that holds it."""

    where: tuple
    name: str
    value: Any


def named(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The entries by the shortest names that tell them apart.

    A name is what the entry is called, after the keys of dicts on the way to it, such
    as the labels of groups; then with positions in chains, then with the whole path.
    """
    entries = list({(entry.where, entry.name): entry for entry in entries}.values())
    kinds = DictKey, (DictKey, SequenceKey), object
    names = [[_text(entry, kind) for kind in kinds] for entry in entries]
    uses = [collections.Counter(column) for column in zip(*names)]
    found = {}
    for entry, candidates in zip(entries, names):
        short = (x for x, use in zip(candidates, uses) if use[x] == 1)
        found[next(short, candidates[-1])] = entry
    return found


def _text(entry: Entry, kinds: Any) -> str:
    words = [_word(key) for key in entry.where if isinstance(key, kinds)]
    return "/".join([*words, entry.name])


def _word(key: Any) -> str:
    if isinstance(key, NamedTupleKey):
        return key.name
    return jax.tree_util.keystr((key,), simple=True)
