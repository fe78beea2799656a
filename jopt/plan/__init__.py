"""What an optimizer is made of, as data: nodes, and the walks over them."""

from .nodes import (
    NEW as NEW,
    AsMade as AsMade,
    Chain as Chain,
    Made as Made,
    Mask as Mask,
    Masked as Masked,
    MaskedState as MaskedState,
    Rule as Rule,
    Whole as Whole,
    as_tuple as as_tuple,
    chain_of as chain_of,
    join as join,
    keywords_of as keywords_of,
    name_of as name_of,
    node_of as node_of,
    nothing as nothing,
    split as split,
)
from .walk import (
    Stage as Stage,
    is_leaf_by_leaf as is_leaf_by_leaf,
    names_taken as names_taken,
    stages as stages,
    states_inside as states_inside,
    walk as walk,
)

__all__ = []
