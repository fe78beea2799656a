"""jopt: optimizers for JAX.

Two faces over one mathematics: functions of arrays and trees (`adam_update`,
`execute_with_gradients`, ...) and gradient transformations (`tx.init`, `tx.update`) in
optax's protocol and with optax's names.
"""

import typing as _typing

from . import (
    assignment as assignment,
    contrib as contrib,
    experimental as experimental,
    losses as losses,
    microbatching as microbatching,
    numerics,
    perturbations as perturbations,
    projections as projections,
    schedules as schedules,
    transforms as transforms,
    tree as tree,
    tree_utils as tree_utils,
    wrappers,
)
from .base import *
from .base import only_public_names as _only_public_names
from .deprecated import renamed as _renamed
from .distributions import *
from .engine import *
from .grad import *
from .linalg import *
from .losses import (
    convex_kl_divergence as convex_kl_divergence,
    cosine_distance as cosine_distance,
    cosine_similarity as cosine_similarity,
    ctc_loss as ctc_loss,
    ctc_loss_with_forward_probs as ctc_loss_with_forward_probs,
    generalized_kl_divergence as generalized_kl_divergence,
    hinge_loss as hinge_loss,
    huber_loss as huber_loss,
    kl_divergence as kl_divergence,
    l2_loss as l2_loss,
    log_cosh as log_cosh,
    ntxent as ntxent,
    safe_softmax_cross_entropy as safe_softmax_cross_entropy,
    sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy,
    sigmoid_focal_loss as sigmoid_focal_loss,
    smooth_labels as smooth_labels,
    softmax_cross_entropy as softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,  # noqa: E501
    squared_error as squared_error,
)
from .microbatching import microbatch as microbatch
from .nnls import *
from .numerics import *
from .optimizers import *
from .optimizers.optimistic import optimistic_adam as _optimistic_adam
from .parts import *
from .reading import *
from .schedules import *
from .step import *
from .tree import (
    bias_correction as bias_correction,
    update_infinity_moment as update_infinity_moment,
    update_moment as update_moment,
    update_moment_per_elem_norm as update_moment_per_elem_norm,
)
from .tree_utils import tree_map_params as tree_map_params
from .updates import *
from .wrappers import *

__version__ = "0.1.0"

if _typing.TYPE_CHECKING:  # by name, so that any other name is an error for a checker
    global_norm = tree.norm
    inject_stateful_hyperparams = wrappers.inject_hyperparams
    optimistic_adam = _optimistic_adam
    safe_int32_increment = numerics.safe_increment
else:
    __getattr__ = _renamed(
        __name__,
        {
            "global_norm": ("jopt.tree.norm", tree.norm),
            "inject_stateful_hyperparams": (
                "jopt.inject_hyperparams",
                wrappers.inject_hyperparams,
            ),
            "optimistic_adam": ("jopt.optimistic_adam_v2", _optimistic_adam),
            "safe_int32_increment": ("jopt.safe_increment", numerics.safe_increment),
        },
    )

_only_public_names(
    globals(),
    "assignment",
    "contrib",
    "experimental",
    "losses",
    "microbatching",
    "perturbations",
    "projections",
    "schedules",
    "transforms",
    "tree",
    "tree_utils",
)
