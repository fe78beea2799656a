"""Parameters whose leaves are objects of the program's own.

They carry more than an array, which transformations of the program's own read. jopt's
parts hand them on as they are: the very objects, in eager use and in `jit`, where they
hold tracers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt


class Opaque:
    """It looks like no array."""

    def __init__(self, value, weight_decay_scale):
        self.value, self.weight_decay_scale = value, weight_decay_scale


@dataclasses.dataclass
class Typed:
    """It has the shape and the dtype of its array."""

    value: Any
    weight_decay_scale: float

    @property
    def shape(self):
        return self.value.shape

    @property
    def dtype(self):
        return self.value.dtype


VALUES = {"w": jnp.array([1.0, 2.0, 3.0]), "b": jnp.array([4.0, 5.0])}
GRADS = {"w": jnp.ones(3), "b": jnp.full(2, 2.0)}
SCALES = {"w": 0.5, "b": 0.0}


def of_objects(kind, values):
    if kind is None:
        return dict(values)
    return {k: kind(v, SCALES[k]) for k, v in values.items()}


def decayed(library, seen):
    """A transformation in plain style that reads what the objects carry."""

    def one(path, g, p):
        if isinstance(p, jax.Array):  # what it should equal
            return g + SCALES[path[-1].key] * p
        return g + p.weight_decay_scale * p.value

    def init(params):
        seen.append(params)
        return library.EmptyState()

    def update(updates, state, params=None):
        seen.append(params)
        return jax.tree_util.tree_map_with_path(one, updates, params), state

    return library.GradientTransformation(init, update)


WRAPPED = {
    "alone": lambda o, tx: o.chain(tx),
    "chain": lambda o, tx: o.chain(o.clip(1.5), tx, o.scale(-0.1)),
    "norm": lambda o, tx: o.chain(o.clip_by_global_norm(1.0), tx),
    "scheduled": lambda o, tx: o.chain(tx, o.scale_by_schedule(lambda step: 0.5)),
    "masked": lambda o, tx: o.masked(tx, {"w": True, "b": False}),
    "masked chain": lambda o, tx: o.masked(
        o.chain(o.scale(2.0), tx), lambda params: {"w": True, "b": False}
    ),
    "partition": lambda o, tx: o.partition(
        {"own": tx, "other": o.scale(2.0)}, {"w": "own", "b": "other"}
    ),
    "apply_if_finite": lambda o, tx: o.apply_if_finite(o.chain(o.scale(2.0), tx), 2),
    "MultiSteps of one": lambda o, tx: o.MultiSteps(o.chain(o.scale(2.0), tx), 1),
    "inject": lambda o, tx: o.inject_hyperparams(
        lambda rate: o.chain(tx, o.scale(rate))
    )(0.1),
    "conditionally": lambda o, tx: o.conditionally_mask(tx, lambda step: step >= 0),
}
# These make slots, and need to know shapes.
WITH_SLOTS = {
    "adam": lambda o, tx: o.chain(tx, o.scale_by_adam()),
    "trace": lambda o, tx: o.chain(o.trace(0.9), tx),
    "MultiSteps": lambda o, tx: o.MultiSteps(o.chain(tx, o.scale_by_adam()), 2),
}
CASES = [(kind, name) for kind in (Opaque, Typed) for name in WRAPPED]
CASES += [(Typed, name) for name in WITH_SLOTS]


def run(library, kind, name, jit, steps=3):
    """All updates; and what the transformation saw beside what it was given."""
    seen, given = [], []
    tx = (WRAPPED | WITH_SLOTS)[name](library, decayed(library, seen))
    state = tx.init(of_objects(kind, VALUES))
    seen.clear()

    def step(grads, state, values):
        given.append(of_objects(kind, values))
        return tx.update(grads, state, given[-1])

    step = jax.jit(step) if jit else step
    updates = []
    for i in range(steps):
        grads = jax.tree.map(lambda g, i=i: g * (i + 1), GRADS)
        u, state = step(grads, state, VALUES)
        updates.append(u)
    return updates, seen, given


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("kind, name", CASES, ids=lambda x: getattr(x, "__name__", x))
def test_transformations_see_the_objects_that_the_program_gave(kind, name, jit):
    got, seen, given = run(jopt, kind, name, jit)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        want, _, _ = run(optax, None, name, jit)  # of plain arrays
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), got, want
    )
    ours = {id(x) for params in given for x in params.values()}
    found = [x for params in seen for x in params.values() if isinstance(x, kind)]
    assert found and {id(x) for x in found} <= ours


def test_a_rule_that_reads_parameters_says_that_it_needs_arrays():
    params = of_objects(Typed, VALUES)
    tx = jopt.add_decayed_weights(0.1)
    with pytest.raises(TypeError, match=r"params at \['b'\] must be an array, got Ty"):
        tx.update(GRADS, tx.init(params), params)
    with pytest.raises(TypeError, match="must be an array, got Typed"):
        jopt.contrib.dog().init(params)
