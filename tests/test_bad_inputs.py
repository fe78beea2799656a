"""What users get wrong is refused in words that say what and where; what is odd works.

Every row is one input. A bad one raises eagerly and while traced, with all of its
words, and the state that was given stays as it is.
"""

import functools
import re
from typing import Any, NamedTuple

import chex
import equinox as eqx
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt

P = {"w": jnp.ones((4, 3)), "enc": {"b": jnp.ones(3)}, "s": jnp.ones(())}
G = jax.tree.map(lambda x: x / 2, P)
W, B, S = P["w"], P["enc"]["b"], P["s"]


def at(path, value, tree=G):
    """The tree with another leaf; without it if the value is `...`."""
    first, *rest = path.split("/")
    new = dict(tree)
    if rest:
        new[first] = at("/".join(rest), value, tree.get(first, {}))
    elif value is ...:
        del new[first]
    else:
        new[first] = value
    return new


def raises(words, call, *args, **kwargs):
    with pytest.raises((ValueError, TypeError)) as info:
        call(*args, **kwargs)
    for word in words:
        assert word in str(info.value), (word, str(info.value))


def traced(function, *args):
    """The function while its arrays are traced; other leaves stay what they are."""
    leaves, treedef = jax.tree.flatten(args)
    is_array = [isinstance(x, jax.Array) for x in leaves]

    def of_arrays(arrays):
        arrays = iter(arrays)
        full = [next(arrays) if a else x for a, x in zip(is_array, leaves)]
        function(*treedef.unflatten(full))

    jax.eval_shape(of_arrays, [x for a, x in zip(is_array, leaves) if a])


def table(rows):
    return pytest.mark.parametrize("row", rows.values(), ids=list(rows))


# ---------------------------------------------------------------------------- gradients

METHODS = {
    "adam": jopt.adam(0.1),
    "clipped": jopt.chain(jopt.clip_by_global_norm(1.0), jopt.sgd(0.1, momentum=0.9)),
    "adafactor": jopt.adafactor(0.1),
    "dog": jopt.contrib.dog(0.1),
    "accumulated": jopt.multi_steps(jopt.adam(0.1), 2),
    "guarded": jopt.apply_if_finite(jopt.lion(0.1), 2),
    "injected": jopt.inject_hyperparams(jopt.adam)(learning_rate=0.1),
    "flat": jopt.flatten(jopt.adam(0.1)),
}
methods = pytest.mark.parametrize("tx", METHODS.values(), ids=list(METHODS))


class Thing:
    """No array."""


GRADIENTS = {
    "a key missing": (at("enc/b", ...), "['enc']['b']"),
    "a key too many": (at("enc/z", B), "['enc']['z']"),
    "a key renamed": (at("enc/c", B, at("enc/b", ...)), "['enc']['c']"),
    "a list for a dict": ([W, {"b": B}, S], "updates"),
    "a tuple for a dict": (at("enc", (B,)), "['enc']"),
    "a level too many": (at("enc/b", {"x": B}), "['enc']['b']"),
    "a level too few": (at("enc", B), "['enc']"),
    "one array for a tree": (W, "updates"),
    "a number for a tree": (1.0, "updates"),
    "nothing": ({}, "missing in updates"),
    "None": (None, "updates"),
    "a function for a tree": (jnp.sin, "updates"),
    "a string for a tree": ("grads", "updates"),
    "transposed": (at("w", W.T), "f32[3, 4]"),
    "flattened": (at("w", W.ravel()), "f32[12]"),
    "a batch axis on all": (jax.tree.map(lambda x: jnp.stack([x] * 8), G), "batch"),
    "a batch axis on one": (at("enc/b", jnp.ones((8, 3))), "f32[8, 3]"),
    "an axis that broadcasts": (at("w", jnp.ones((1, 3))), "f32[1, 3]"),
    "an axis behind": (at("enc/b", jnp.ones((3, 1))), "f32[3, 1]"),
    "an axis before": (at("enc/b", jnp.ones((1, 3))), "f32[1, 3]"),
    "an array for a scalar": (at("s", jnp.ones(1)), "['s']"),
    "a scalar for an array": (at("enc/b", jnp.ones(())), "f32[]"),
    "a number for an array": (at("enc/b", 0.5), "['enc']['b']"),
    "one element for three": (at("enc/b", jnp.ones(1)), "f32[1]"),
    "too short": (at("enc/b", jnp.ones(2)), "f32[2]"),
    "empty": (at("enc/b", jnp.ones(0)), "f32[0]"),
    "complex for real": (at("w", W.astype(jnp.complex64)), "complex"),
    "int32": (at("w", jnp.ones((4, 3), jnp.int32)), "i32[4, 3]"),
    "int8": (at("w", jnp.ones((4, 3), jnp.int8)), "i8[4, 3]"),
    "uint8": (at("w", np.ones((4, 3), np.uint8)), "u8[4, 3]"),
    "booleans": (at("w", W > 0), "bool[4, 3]"),
    "a Python int": (at("s", 1), "['s']"),
    "a Python bool": (at("s", True), "['s']"),
    "a list of numbers": (at("enc/b", [0.1, 0.2, 0.3]), "['enc']['b']"),
    "a string": (at("enc/b", "zero"), "['enc']['b']"),
    "bytes": (at("enc/b", b"zero"), "['enc']['b']"),
    "an object": (at("enc/b", Thing()), "['enc']['b']"),
    "a function": (at("enc/b", jnp.sin), "['enc']['b']"),
    "a type": (at("enc/b", float), "['enc']['b']"),
    "a set": (at("enc/b", {0.1, 0.2}), "['enc']['b']"),
    "strings of NumPy": (at("enc/b", np.array(["a", "b", "c"])), "['enc']['b']"),
    "objects of NumPy": (at("enc/b", np.array([1, None, 2])), "['enc']['b']"),
    "a PRNG key": (at("s", jax.random.key(0)), "['s']"),
    "an abstract array": (at("s", jax.ShapeDtypeStruct((), jnp.float32)), "['s']"),
}


@functools.cache
def state_of(tx):
    return tx.init(P)


@table(GRADIENTS)
@methods
def test_bad_gradients(tx, row):
    grads, words = row
    state = state_of(tx)
    before, structure = jax.tree.flatten(state)
    for run in (lambda *args: args[0](*args[1:]), traced):
        raises(["updates", words], run, tx.update, grads, state, P)
    assert jax.tree.structure(state) == structure
    for a, b in zip(before, jax.tree.leaves(state)):
        assert a is b
