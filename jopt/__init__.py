"""jopt: optimizers for JAX.

Two faces over one mathematics: functions of arrays and trees (`adam_update`,
`execute_with_gradients`, ...) and gradient transformations (`tx.init`, `tx.update`) in
optax's protocol and with optax's names.
"""

from . import (
    assignment,
    contrib,
    experimental,
    losses,
    microbatching,
    numerics,
    perturbations,
    projections,
    schedules,
    transforms,
    tree,
    tree_utils,
    wrappers,
)
from .base import *
from .base import publish as _publish
from .checkpoint import *
from .deprecated import renamed as _renamed
from .distributions import *
from .engine import *
from .grad import *
from .linalg import *
from .losses import (
    convex_kl_divergence,
    cosine_distance,
    cosine_similarity,
    ctc_loss,
    ctc_loss_with_forward_probs,
    generalized_kl_divergence,
    hinge_loss,
    huber_loss,
    kl_divergence,
    l2_loss,
    log_cosh,
    ntxent,
    safe_softmax_cross_entropy,
    sigmoid_binary_cross_entropy,
    sigmoid_focal_loss,
    smooth_labels,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
    squared_error,
)
from .microbatching import microbatch
from .nnls import *
from .numerics import *
from .optimizers import *
from .optimizers.optimistic import optimistic_adam as _optimistic_adam
from .parts import *
from .reading import *
from .schedules import *
from .step import *
from .tree import (
    bias_correction,
    update_infinity_moment,
    update_moment,
    update_moment_per_elem_norm,
)
from .tree_utils import tree_map_params
from .updates import *
from .wrappers import *

__version__ = "0.1.0"

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

_publish(
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
