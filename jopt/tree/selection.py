"""Choosing leaves by their paths."""

import difflib
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ..boxes import flatten_with_path, unboxed
from ..kinds import is_function, is_leaf, is_masked, is_none
from ..words import explain, keystr, listed, misfit_of_one

__all__ = ["map_with_path", "partition_by", "paths", "select", "values_of"]


def paths(tree: Any) -> list[str]:
    """The path of every leaf, keys joined by slashes.

    Example:
        >>> jopt.tree.paths({"enc": {"w": 1.0, "b": 2.0}, "layers": [3.0]})
        ['enc/b', 'enc/w', 'layers/0']
    """
    return [_text(path) for path, _ in flatten_with_path(tree)]


def map_with_path(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` of a function that takes the path, keys joined by slashes, first.

    Example:
        >>> jopt.tree.map_with_path(lambda path, x: path.upper(), {"a": {"b": 1.0}})
        {'a': {'b': 'A/B'}}
    """
    structure = jax.tree.structure(tree)
    columns = [paths(tree), jax.tree.leaves(tree), *_up_to(structure, tree, rest)]
    return structure.unflatten([f(*row) for row in zip(*columns)])


def _up_to(structure: Any, tree: Any, rest: tuple) -> list[list]:
    """What each tree of `rest` has for the leaves of `tree`, in boxes or without."""
    plain = jax.tree.structure(unboxed(tree))
    if plain == structure:
        return [structure.flatten_up_to(x) for x in rest]
    return [plain.flatten_up_to(unboxed(x)) for x in rest]


def select(tree: Any, which: Any, *, name: str = "which") -> Any:
    """A tree of booleans: the leaves of `tree` that are chosen.

    Args:
        tree: any pytree.
        which: a glob over the keys, `"**/bias"` (`*`, `?`, `[0-9]` and `[!0-9]` stay
            within a key, `**` goes over any number, `{b,bias}` is any of these, and
            what names a node chooses all below it; a bracket or a brace itself is `[[]`
            or `[{]`); a compiled regular expression,
            searched for in the path; a list of such; a function of `(path, leaf)`, or
            of the tree that returns any of the others; a tree of booleans or a prefix
            of one, matched by keys, whatever the containers.
        name: what to call `which` in messages.

    Returns:
        Booleans in the structure of `tree`, or of the prefix that was given.

    Raises:
        ValueError: a pattern chooses nothing, or a tree of booleans has other keys.
        TypeError: a leaf of that tree is no boolean.

    Example:
        >>> params = {"enc": {"w": 1.0, "b": 2.0}, "head": {"w": 3.0, "b": 4.0}}
        >>> jopt.tree.select(params, "*/b")
        {'enc': {'b': True, 'w': False}, 'head': {'b': True, 'w': False}}
        >>> jopt.tree.select(params, lambda path, x: x > 2)["enc"]
        {'b': False, 'w': False}
    """
    if is_function(which):
        if takes_a_path(which):
            return map_with_path(lambda path, x: bool(which(path, x)), tree)
        _check_takes_a_tree(which, name)
        chosen = which(tree)
        if chosen is None and jax.tree.leaves(tree):
            raise TypeError(
                f"{name}: the function of the tree returned None, expected booleans or "
                "patterns: is a `return` missing?"
            )
        return select(tree, chosen, name=name)
    if _is_pattern(which):
        return _matches(tree, [which], name)
    if isinstance(which, (list, tuple)) and which and all(map(_is_pattern, which)):
        return _matches(tree, which, name)
    shown = _alongside(which, tree, name)
    for path, leaf in flatten_with_path(shown):
        if not isinstance(leaf, (bool, np.bool_)):
            raise TypeError(
                f"{name} at {keystr(path)} must be True or False, "
                f"got {type(leaf).__name__} {leaf!r}"
            )
    return shown


def partition_by(
    tree: Any, rules: Mapping[Any, Any] | Sequence[Any], default: Any = None
) -> Any:
    """A tree of labels: the first rule that chooses a leaf gives its label.

    Args:
        tree: any pytree.
        rules: from what `select` takes to a label; a mapping, or pairs.
        default: the label of leaves that no rule chooses.

    Raises:
        ValueError: a pattern chooses nothing.

    Example:
        >>> params = {"w": 1.0, "b": 2.0}
        >>> jopt.tree.partition_by(params, {"b": "plain"}, default="decay")
        {'b': 'plain', 'w': 'decay'}
    """
    pairs = [*(rules.items() if isinstance(rules, Mapping) else rules)]
    return jax.tree.structure(tree).unflatten(_first_of(tree, pairs, default))


def values_of(
    values: Any, tree: Any, *, name: str = "values", **default: Any
) -> list[Any]:
    """The value of every leaf: one for all, of a tree prefix, or by path.

    Args:
        values: one value; a tree prefix of them, matched by keys; or a mapping from
            path patterns or functions, as `select` takes them, of which the first that
            chooses a leaf counts. Its entry `"default"` is for the leaves that none
            chooses.
        tree: any pytree.
        name: what to call `values` in messages.
        default: `default=value` for the leaves that a mapping has nothing for.

    Raises:
        ValueError: a leaf has no value, a pattern chooses no leaf, or the tree has
            other keys.

    Example:
        >>> params = {"enc": {"w": 1.0, "b": 2.0}, "head": {"w": 3.0, "b": 4.0}}
        >>> jopt.tree.values_of({"**/b": 0.0, "default": 0.1}, params)
        [0.0, 0.1, 0.0, 0.1]
        >>> jopt.tree.values_of({"enc": 0.5, "head": {"w": 1.0, "b": 2.0}}, params)
        [0.5, 0.5, 2.0, 1.0]
    """
    if is_leaf(values):
        return [values] * len(jax.tree.leaves(tree))
    if not _is_by_pattern(values):
        return _filled(_alongside(values, tree, name), tree)
    rules = dict(values)
    given = {"default": rules.pop("default")} if "default" in rules else default
    found = _first_of(
        tree, [*rules.items()], given.get("default", _NOTHING), f"{name}: "
    )
    if any(value is _NOTHING for value in found):
        left = [p for p, value in zip(paths(tree), found) if value is _NOTHING]
        raise ValueError(
            f"{name} has no value for the leaves {listed(left)}: "
            'give a pattern that chooses them, or "default"'
        )
    return found


_NOTHING = object()


def _is_by_pattern(values: Any) -> bool:
    """Whether it is a mapping of patterns, not of the keys of a tree with subtrees."""
    return (
        isinstance(values, Mapping)
        and all(_is_pattern(key) or is_function(key) for key in values)
        and jax.tree_util.all_leaves(values.values())
    )


def _first_of(tree: Any, pairs: Any, default: Any, where: str = "") -> list:
    """The value of the first pair that chooses a leaf, for every leaf."""
    rows = chosen_by([which for which, _ in pairs], tree, where)
    values = [value for _, value in pairs]
    return [next((v for s, v in zip(row, values) if s), default) for row in rows]


def chosen_by(whiches: list, tree: Any, where: str = "") -> list[tuple[bool, ...]]:
    """For every leaf, which of the rules choose it."""
    chosen = [
        _filled(select(tree, which, name=f"{where}the rule {which!r}"), tree)
        for which in whiches
    ]
    return [*zip(*chosen)] if chosen else [()] * len(jax.tree.leaves(tree))


class Which:
    """What `select` takes, as a key of a mapping, which a list or a tree cannot be."""

    def __init__(self, given: Any, name: str):
        self.given, self.name = given, name

    def __call__(self, tree: Any) -> Any:
        return select(tree, self.given, name=f"the rule {self.name!r}")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Which) or self.name != other.name:
            return False
        mine, others = jax.tree.flatten(self.given), jax.tree.flatten(other.given)
        return mine[1] == others[1] and all(map(_same, mine[0], others[0]))

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return repr(self.name)

    def __str__(self) -> str:
        return self.name


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and np.ndim(a) == 0 and bool(a == b))


def numbers_in(tree: Any, pattern: str, *, name: str) -> list[str]:
    """The numbers that stand for `{}` in the paths that fit the pattern, in order."""
    before, after = map(_glob, pattern.split("{}"))
    search = re.compile(f"{before}([0-9]+){after}(/.*)?")
    found = {m[1] for path in paths(tree) if (m := search.fullmatch(path))}
    if not found:
        raise ValueError(f"{name}: {_no_leaf(pattern, tree)}")
    return sorted(found, key=int)


def _filled(prefix: Any, tree: Any) -> list:
    """A value of the prefix for every leaf of the tree."""
    if jax.tree.structure(prefix) == jax.tree.structure(tree):
        return jax.tree.leaves(prefix)
    spread = jax.tree.map(lambda x, sub: jax.tree.map(lambda _: x, sub), prefix, tree)
    return jax.tree.leaves(spread)


def takes_a_path(function: Any) -> bool:
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    needed = code.co_argcount - len(function.__defaults__ or ())
    return needed - hasattr(function, "__self__") == 2


def _check_takes_a_tree(function: Any, name: str) -> None:
    misfit = misfit_of_one(function)
    if misfit is not None:
        raise TypeError(
            f"{name} must be a function of the tree, or of (path, leaf), got "
            f"{getattr(function, '__name__', type(function).__name__)}: {misfit}"
        )


def _is_pattern(x: Any) -> bool:
    return isinstance(x, (str, re.Pattern))


def _matches(tree: Any, patterns: Any, name: str) -> Any:
    treedef = jax.tree.structure(tree)
    chosen = [_hits(treedef, pattern) for pattern in patterns]
    for pattern, hits in zip(patterns, chosen):
        if not any(hits) and hits and not _has_hidden(tree):
            text = getattr(pattern, "pattern", pattern)
            raise ValueError(f"{name}: {_no_leaf(text, tree)}")
    return treedef.unflatten(map(any, zip(*chosen)))


def _no_leaf(pattern: str, tree: Any) -> str:
    names = paths(tree)
    near = difflib.get_close_matches(pattern, names, 5, 0) or names
    found = f"the pattern {pattern!r} matches no leaf; the nearest paths are "
    bracket = any("[" in name for name in near)
    hint = ' (a bracket of a key is "[[]" in a glob)' if bracket else ""
    return found + listed(near) + hint


@functools.lru_cache(maxsize=1024)
def _hits(treedef: Any, pattern: str | re.Pattern) -> tuple[bool, ...]:
    """Whether the pattern matches, for each leaf: asked anew at every trace."""
    return tuple(_search(pattern, path) for path in _paths(treedef))


@functools.lru_cache(maxsize=64)
def _paths(treedef: Any) -> list[str]:
    return paths(treedef.unflatten(range(treedef.num_leaves)))


def _search(pattern: str | re.Pattern, path: str) -> bool:
    if isinstance(pattern, str):
        globs = map(_glob, _without_braces(pattern))
        return any(re.fullmatch(glob + "(/.*)?", path) for glob in globs)
    return pattern.search(path) is not None


def _without_braces(pattern: str) -> list[str]:
    """The patterns that one with `{a,b}` stands for, the innermost braces first."""
    found = re.search(r"(?<!\[)\{([^{}]*,[^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [
        whole
        for word in found[1].split(",")
        for whole in _without_braces(before + word + after)
    ]


def _glob(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[(?:![^/]|[^/!])[^]/]*\])", pattern)
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = [words.get(sign) or _class(sign) for sign in parts[1::2]]
    return "".join(parts)


def _class(sign: str) -> str:
    """One of `[0-9]` or, with `!`, none of it, and never the slash; as in `fnmatch`."""
    no, characters = ("^", sign[2:-1]) if sign[1] == "!" else ("", sign[1:-1])
    escaped = re.sub(r"([^\w-])", r"\\\1", characters)
    try:
        return re.compile(f"(?!/)[{no}{escaped}]").pattern
    except re.error:
        return "(?!)"  # of a range from z to a there is none


def _has_hidden(tree: Any) -> bool:
    """Whether masks further out took leaves away, so that patterns may find none."""
    return any(map(is_masked, jax.tree.leaves(tree, is_leaf=is_masked)))


def _alongside(prefix: Any, tree: Any, name: str) -> Any:
    """The prefix as it is if its containers are the tree's, else matched by keys."""
    try:
        jax.tree.structure(prefix, is_leaf=is_none).flatten_up_to(tree)
        return prefix
    except (ValueError, TypeError):
        pass
    flat = flatten_with_path(prefix, is_leaf=is_none)
    named = {_keys(path): value for path, value in flat}
    used = set()

    def find(path):
        keys = _keys(path)
        for n in range(len(keys), -1, -1):
            if keys[:n] in named:
                used.add(keys[:n])
                return named[keys[:n]]
        raise ValueError(explain(name, prefix, "params", tree))

    found = [find(path) for path, _ in flatten_with_path(tree)]
    unused = [keys for keys, x in named.items() if x is not None and keys not in used]
    if unused and not _has_hidden(tree):
        raise ValueError(explain(name, prefix, "params", tree))
    return jax.tree.structure(tree).unflatten(found)


def _keys(path: tuple) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _text(path: tuple) -> str:
    return "/".join(_keys(path))
