"""The optimizers that are measured, each as one call that both libraries understand."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax


class Case(NamedTuple):
    """How `lib`, jopt or optax, makes the optimizer; and what it does at the least."""

    make: Callable[[ModuleType], Any]
    words: tuple[
        int, ...
    ] = ()  # read and written a parameter, in each step of a period
    trees: tuple[str, ...] = ()  # where it is measured unless others are named; or all
    torch: Callable[[ModuleType, list], Any] | None = None

    @property
    def period(self) -> int:
        """Steps after which it does the same again."""
        return max(1, len(self.words))


def matrices(params):
    """The mask of the leaves that decay, as in most training programs."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _clipped_adamw(lib):
    schedule = lib.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 1000)
    return lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(schedule, mask=matrices))


@functools.cache  # one function for all muons, as in a program
def _weights(lib):
    axes = lib.contrib.MuonDimensionNumbers(-2, -1)
    return lambda params: {k: axes if k.endswith("w") else None for k in params}


def _muon(lib):
    return lib.contrib.muon(1e-3, muon_weight_dimension_numbers=_weights(lib))


def _torch_adamw(torch, params):
    return torch.optim.AdamW(params, 1e-3, eps=1e-8, weight_decay=1e-4, fused=True)


# words: gradient and parameter read, parameter written, and each moment read and
# written; a sum over the whole tree reads the gradient once more. MultiSteps reads the
# gradient and the mean and writes the mean, and in the end reads the mean for AdamW.
CASES = {
    "sgd": Case(lambda lib: lib.sgd(1e-3, momentum=0.9), (5,)),
    "adamw": Case(lambda lib: lib.adamw(1e-3), (7,), torch=_torch_adamw),
    "lion": Case(lambda lib: lib.lion(1e-3), (5,)),
    "lamb": Case(lambda lib: lib.lamb(1e-3), (7,)),
    "adafactor": Case(lambda lib: lib.adafactor(1e-3, min_dim_size_to_factor=32), (3,)),
    "muon": Case(_muon, trees=("2000", "mlp6", "scan12", "gpt2_small")),
    "clipped_adamw": Case(_clipped_adamw, (8,)),
    "multi_steps": Case(lambda lib: lib.MultiSteps(lib.adamw(1e-3), 4), (3, 3, 3, 8)),
    "apply_if_finite": Case(lambda lib: lib.apply_if_finite(lib.adamw(1e-3), 3), (8,)),
    "inject": Case(lambda lib: lib.inject_hyperparams(lib.adamw)(1e-3), (7,)),
}
