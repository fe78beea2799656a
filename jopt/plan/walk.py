"""Walks over what an optimizer is made of."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ..base import OptState
from .nodes import Made, Mask, Masked, Rule, Whole, split

__all__ = []


class Stage(NamedTuple):
    """A leaf of the tree of nodes, and what the nodes above say of it."""

    part: Rule | Whole
    masks: tuple[Mask, ...] = ()
    call: Any = None  # of the factory that made it, perhaps with others
    maker: str = ""  # the factory that the user called for it
    is_known: bool = True  # whether a factory made it alone, or it says what it is

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.maker or self.part.name


def stages(
    node: Any,
    masks: tuple = (),
    call: Any = None,
    maker: str = "",
    above: Any = None,
) -> Iterator[Stage]:
    """The rules and the transformations of whole trees, in the order of their steps."""
    if isinstance(node, Rule | Whole):
        maker = maker or ("" if call is None else call.name)
        is_known = isinstance(above, Made) or not getattr(node, "opaque", False)
        yield Stage(node, masks, call, maker, is_known)
        return
    if isinstance(node, Masked):
        where = maker or ("" if call is None else call.name)
        masks = (*masks, node.mask._replace(maker=where))
    if isinstance(node, Made):
        call = node.call
        if not maker and not node.combines:
            maker = call.name
    for part in node.parts:
        yield from stages(part, masks, call, maker, node)


def names_taken(node: Any) -> frozenset | None:
    """The further arguments of `update` that some part takes; any if `None`."""
    own = getattr(node, "takes", frozenset())
    if own is None:
        return None
    for part in node.parts:
        more = names_taken(part)
        if more is None:
            return None
        own |= more
    return own


def states_inside(node: Any, state: OptState) -> Iterator[tuple[Any, Any]]:
    """Each rule and each transformation of whole trees with its state, at any depth."""
    for stage, own in zip(stages(node), split(node, state)):
        yield stage.part, own
        if isinstance(stage.part, Whole):
            for inner, inside in zip(stage.part.parts, stage.part.split(own)):
                yield from states_inside(inner, inside)


def walk(node: Any) -> Iterator[Any]:
    """This node and all below."""
    yield node
    for part in node.parts:
        yield from walk(part)


def is_leaf_by_leaf(node: Any) -> bool:
    """Whether what is done to a leaf is said not to depend on the others."""
    for part in walk(node):
        if isinstance(part, Rule) and part.sees_all:
            return False
        if isinstance(part, Whole) and not part.leaf_by_leaf:
            return False
    return True
