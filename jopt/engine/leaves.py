"""The leaves of gradients and parameters, side by side, checked, and under masks."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..base import MaskedNode, Params, Updates
from ..boxes import flatten_with_path
from ..compat import Tracer
from ..kinds import (
    is_complex,
    is_inexact,
    is_none,
    is_optimizable,
    is_own_object,
    is_value,
)
from ..plan import Mask
from ..tree import select
from ..words import explain, keystr, of_a_pair, spell
from .eager import deleted, is_deleted
from .types import strong

__all__ = []

_SKIPPED = (type(None), MaskedNode)


class Visible(NamedTuple):
    """The part of a tree that a stage sees."""

    treedef: Any  # hidden leaves are MaskedNodes in it
    indices: list[int]  # of the visible leaves


class Leaves:
    """The leaves of `updates` and `params` in one order.

    `optimized[i]` says whether leaf i takes part: it has a gradient and can have one.
    Leaves of integers, booleans, keys or functions are untouched.
    """

    g: list[Any]
    p: list[Any]

    misfit: Exception | None = None  # why the parameters were left out

    def __init__(self, updates: Updates, params: Params | None):
        if params is not None:
            self.p, self.treedef = jax.tree.flatten(params)
            self.g = _flatten_up_to(self.treedef, updates, params, "updates", "params")
        else:
            is_leaf = None if updates is None else is_none
            self.g, self.treedef = jax.tree.flatten(updates, is_leaf=is_leaf)
            self.p = [None] * len(self.g)
        self.has_params = params is not None
        self.reference = updates if params is None else params
        _check_root("updates" if params is None else "params", self.reference)
        self.untouched = [_is_untouched(p, g) for p, g in zip(self.p, self.g)]
        self.optimized = [
            not untouched and not isinstance(g, _SKIPPED)
            for untouched, g in zip(self.untouched, self.g)
        ]
        for i, takes_part in enumerate(self.optimized):
            if takes_part:
                self._check(i)
            elif self.untouched[i] and self.has_params:
                self._check_untouched(i)
        self._views: dict[tuple, Visible] = {}
        self._labels: dict[tuple, Any] = {}

    @classmethod
    def reading(cls, updates: Updates, params: Params | None, needed: bool) -> "Leaves":
        """The leaves for rules that need the parameters, or do not look at them.

        Where they are not needed they need not fit, and are then left out.
        """
        try:
            return cls(updates, params)
        except (ValueError, TypeError) as error:
            if needed or params is None or updates is None or _fits(updates, params):
                raise
            if of_a_pair(updates, jax.tree.structure(params)):
                raise  # the error says so
            misfit = error
        try:
            leaves = cls(updates, None)
        except (ValueError, TypeError):
            raise misfit from None
        leaves.misfit = misfit
        return leaves

    def path(self, i: int) -> str:
        """Where leaf i stands, for messages."""
        tree = self.treedef.unflatten(range(len(self.g)))
        return keystr(flatten_with_path(tree)[i][0])

    def _check(self, i: int) -> None:
        if self.has_params:
            self.p[i] = as_array(self.p[i], self, i, "params")
        g = self.g[i] = as_array(self.g[i], self, i, "updates")
        if not is_inexact(g.dtype):
            raise TypeError(
                f"updates at {self.path(i)} must be floating or complex, "
                f"got {spell(g)}; gradients of integers are not defined"
            )
        if not self.has_params:
            return
        p = self.p[i]
        if g.shape != p.shape:
            raise ValueError(
                f"updates at {self.path(i)} is {spell(g)}, params there is {spell(p)}: "
                "the shapes must be equal (was a batch axis left on the gradients, "
                "or were they made for other parameters?)"
            )
        if is_complex(g.dtype) and not is_complex(p.dtype):
            raise TypeError(
                f"updates at {self.path(i)} is {spell(g)}, params there is {spell(p)}: "
                "a complex update of a real parameter would lose its imaginary part"
            )

    def check_complex(self, i: int) -> None:
        """Refuse what a rule would make complex and its gradient's dtype could not."""
        g, p = self.g[i], self.p[i]
        if p is not None and is_complex(p.dtype) and not is_complex(g.dtype):
            raise TypeError(
                f"updates at {self.path(i)} is {spell(g)}, params there is {spell(p)}: "
                f"cast the gradient to {p.dtype} if its imaginary part is zero"
            )

    def _check_untouched(self, i: int) -> None:
        g, p = self.g[i], self.p[i]
        if not (is_value(p) or callable(p) or hasattr(p, "dtype")) and is_value(g):
            as_array(p, self, i, "params")  # an object of the program's own
        if not isinstance(g, _SKIPPED) and not jax.tree_util.all_leaves([g]):
            raise ValueError(
                f"updates at {self.path(i)} is a {type(g).__name__}, params there is "
                f"{spell(p)}: updates must have the tree structure of params"
            )

    def pairs(self) -> list[tuple[jax.Array, jax.Array]]:
        """Parameter and update of each leaf that takes part."""
        return [
            (p, g)
            for p, g, takes_part in zip(self.p, self.g, self.optimized)
            if takes_part
        ]

    def view(self, masks: Sequence[Mask]) -> Visible:
        """What a stage under these masks sees of the tree."""
        key = tuple(map(id, masks))
        if key not in self._views:
            self._views[key] = self._view(masks)
        return self._views[key]

    def _view(self, masks: Sequence[Mask]) -> Visible:
        tree = self.treedef.unflatten(range(len(self.g)))
        reference = self.reference
        for n, mask in enumerate(masks):
            labels = None
            if mask.label:  # one tree of labels is many masks
                key = (*map(id, masks[:n]), id(mask.tree))
                if key not in self._labels:
                    self._labels[key] = mask.tree(reference)
                labels = self._labels[key]
            shown = resolve(mask, reference, labels)
            tree = hide(shown, tree, mask.name, lambda i: not self.untouched[i])
            if n + 1 < len(masks):
                reference = hide(shown, reference, mask.name)
        if any(self.untouched):
            untouched = self.untouched
            tree = jax.tree.map(lambda i: MaskedNode() if untouched[i] else i, tree)
        indices, treedef = jax.tree.flatten(tree)
        return Visible(treedef, indices)

    def tree(self, leaves: Sequence) -> Any:
        """A tree of these leaves in the structure of the gradients."""
        return self.treedef.unflatten(leaves)


def _flatten_up_to(treedef, tree, like, name, like_name) -> list:
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError):
        message = explain(name, tree, like_name, like)
        raise ValueError(message + of_a_pair(tree, treedef)) from None


def _fits(updates: Updates, params: Params) -> bool:
    """Whether the parameters have the structure and the shapes of the updates."""
    try:
        ps, treedef = jax.tree.flatten(params)
        gs = treedef.flatten_up_to(updates)
    except (ValueError, TypeError):
        return False
    return not any(map(is_own_object, ps)) and all(
        isinstance(g, _SKIPPED)
        or (jax.tree_util.all_leaves([g]) and not is_value(g))  # they are at fault
        or getattr(p, "shape", None) == getattr(g, "shape", () if is_value(g) else None)
        for p, g in zip(ps, gs)
    )


def resolve(mask: Mask, tree: Any, labels: Any = None) -> Any:
    """The tree of booleans of a mask, in the structure of a prefix of the tree."""
    if not mask.label:
        return select(tree, mask.tree, name=mask.name)
    labels = mask.tree(tree) if labels is None else labels
    leaves, treedef = jax.tree.flatten(labels)
    return treedef.unflatten([bool(label == mask.label[0]) for label in leaves])


def hide(
    shown: Any,
    tree: Any,
    name: str = "mask",
    is_real: Callable[[Any], bool] | None = None,
) -> Any:
    """The tree with a `MaskedNode` where `shown`, a prefix of it, says False.

    Where it says nothing, `None`, there may be no real leaf, no optimizable one.
    """
    is_real = is_real or is_optimizable
    unsaid = []

    def one(keep, subtree):
        if keep is None:
            unsaid.extend(filter(is_real, jax.tree.leaves(subtree)))
        return subtree if keep is None or keep else MaskedNode()

    try:
        hidden = jax.tree.map(one, shown, tree, is_leaf=is_none)
    except (ValueError, TypeError):
        raise ValueError(explain(name, shown, "params", tree)) from None
    if unsaid:
        said = jax.tree_util.tree_flatten_with_path(shown, is_leaf=is_none)[0]
        where = ", ".join(keystr(path) for path, keep in said if keep is None)
        raise ValueError(
            f"{name} is None at {where}, where params has leaves: it must say "
            "something of each of them (is a `return` missing?)"
        )
    return hidden


def unhide(shown: Any, inner: Any, outer: Any) -> Any:
    """`inner` where `shown` says True, `outer` elsewhere."""

    def one(keep, new, old):
        return new if keep is None or keep else old

    return jax.tree.map(one, shown, inner, outer, is_leaf=is_none)


def as_array(x: Any, leaves: Leaves, i: int, name: str) -> jax.Array:
    """Arrays, and numbers of Python and NumPy, as arrays of a strong type."""
    if isinstance(x, jax.Array):
        if isinstance(x, Tracer) and not jax.typeof(x).weak_type:
            return x  # nearly always
        if is_deleted(x):
            raise ValueError(deleted(f"{name} at {leaves.path(i)}", x))
        return strong(x)
    try:
        if isinstance(x, (list, tuple, dict)):
            raise TypeError
        return strong(jnp.asarray(x))
    except (TypeError, ValueError):
        words = f"{name} at {leaves.path(i)} must be an array, got {type(x).__name__}"
        if name == "updates" and leaves.has_params:
            words += f"; params there is {spell(leaves.p[i])}"
        words += of_a_pair(x, jax.tree.structure(0))
        raise TypeError(words) from None


def types_of(function: Callable, tree: Any) -> Any:
    """`jax.eval_shape` of a function of a tree, whose other leaves stay as they are."""
    kinds = jax.Array, jax.ShapeDtypeStruct
    return jax.eval_shape(
        *as_function_of(function, tree, lambda x: isinstance(x, kinds))
    )


def as_function_of(
    function: Callable, tree: Any, is_chosen: Callable[[Any], bool]
) -> tuple[Callable, list]:
    """The function as one of the chosen leaves, the others fixed; and these leaves."""
    leaves, treedef = jax.tree.flatten(tree)
    chosen = [is_chosen(x) for x in leaves]

    def of_chosen(some):
        some = iter(some)
        full = [next(some) if c else x for c, x in zip(chosen, leaves)]
        return function(treedef.unflatten(full))

    return of_chosen, [x for c, x in zip(chosen, leaves) if c]


def _check_root(name: str, tree: Any) -> None:
    """Refuse one leaf that is no array: a function, a class, a path."""
    numbers = (bool, int, float, complex, *_SKIPPED)
    is_leaf = jax.tree_util.all_leaves([tree])
    if is_leaf and not (hasattr(tree, "shape") or isinstance(tree, numbers)):
        raise TypeError(
            f"{name} must be a pytree of arrays, got {type(tree).__name__} {tree!r:.60}"
        )


def _is_untouched(p: Any, g: Any) -> bool:
    """Whether a leaf cannot be optimized, so that it is left alone."""
    if isinstance(p, jax.Array):
        return not is_inexact(p.dtype)
    if p is not None:
        return not is_optimizable(p)
    dtype = getattr(g, "dtype", None)  # without parameters a gradient must tell
    return (
        dtype == jax.dtypes.float0
        or (dtype is not None and jnp.issubdtype(dtype, jax.dtypes.extended))
        or (callable(g) and not hasattr(g, "shape"))
    )
