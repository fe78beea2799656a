"""The machine: a rule for one array becomes a transformation of pytrees.

This is its one door: nobody else imports from the modules inside.
"""

from .batches import batch_leaves as batch_leaves, stack as stack, unstack as unstack
from .calls import traced_once as traced_once
from .eager import (
    as_it_is_now as as_it_is_now,
    call_compiled as call_compiled,
    explaining_deletion as explaining_deletion,
    fixed as fixed,
    freed as freed,
)
from .fit import Inside as Inside, is_class as is_class
from .leaves import (
    Leaves as Leaves,
    hide as hide,
    resolve as resolve,
    types_of as types_of,
)
from .once import Once as Once, Rows as Rows
from .pair import (
    from_node as from_node,
    transformation as transformation,
    whole_tree as whole_tree,
    wrap as wrap,
)
from .placement import at_home as at_home
from .rule import (
    per_leaf as per_leaf,
    per_tree as per_tree,
    stateless_leaf as stateless_leaf,
)
from .skeletons import OtherArguments as OtherArguments
from .step import (
    known_sums as known_sums,
    remember as remember,
    sum_of as sum_of,
    sums_of as sums_of,
)
from .types import (
    begun_anew as begun_anew,
    in_types_of as in_types_of,
    keep_types as keep_types,
    keeps_values as keeps_values,
    lost as lost,
    strong as strong,
)

__all__ = ["batch_leaves", "per_leaf", "transformation", "wrap"]
