"""Runs of the rows of the catalogue, each computed once a process."""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from tests.catalogue import ROWS

STEPS = 12
SHAPES = {"w": (4, 6), "stack": (2, 3, 4), "b": (6,), "s": ()}


def random_tree(seed, dtype=np.float32, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), dtype) for k, s in shapes.items()}


def params_and_grads(dtype=np.float32, steps=STEPS):
    grads = [random_tree(i + 1, dtype) for i in range(steps)]
    return random_tree(0, dtype), jax.tree.map(lambda *g: np.stack(g), *grads)


def steps_of(tx, params, grads, extra=None):
    """Parameters, state and all updates after the steps, called one by one."""
    state, updates = tx.init(params), []
    for t in range(len(jax.tree.leaves(grads)[0])):
        g = jax.tree.map(lambda x, t=t: jnp.asarray(x[t]), grads)
        u, state = tx.update(g, state, params, **(extra(params) if extra else {}))
        params = jopt.apply_updates(params, u)
        updates.append(u)
    return params, state, jax.tree.map(lambda *u: np.stack(u), *updates)


def scanned(tx, extra=None):
    """A function for the same that is one program: most of the time is compiling."""

    @jax.jit
    def run(params, grads):
        def step(carry, g):
            p, state = carry
            u, state = tx.update(g, state, p, **(extra(p) if extra else {}))
            return (jopt.apply_updates(p, u), state), u

        (p, state), updates = jax.lax.scan(step, (params, tx.init(params)), grads)
        return p, state, updates

    return run


def is_of_the_whole_tree(row):
    """Whether what is done to a leaf depends on the others."""
    return row.whole_tree or row.extra or "nois" in row.name


def some_of(row, tree):
    """Two leaves, which compile in half of the time; all if a row reads them all."""
    return tree if is_of_the_whole_tree(row) else two_of(row, tree)


def two_of(row, tree, names=("w", "b")):
    """Two leaves, unless a function of the row names all."""
    names_all = "weight_dimension_numbers" in row.settings
    return tree if names_all else {k: tree[k] for k in names}


@functools.cache
def run_of(row_id: str, dtype: Any):
    """A row's parameters, state and all updates after the steps, in `dtype`.

    In float64 of all leaves, in float32 of some.
    """
    row = next(row for row in ROWS if row.id == row_id)
    with jax.enable_x64(dtype == np.float64):
        given = params_and_grads(dtype)
        if dtype == np.float32:
            given = [some_of(row, x) for x in given]
        return scanned(row.make(), row.extra)(*given)


@contextlib.contextmanager
def optax_rules():
    """optax itself needs JAX's looser promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
