"""What users get wrong is refused in words that say what and where; what is odd works.

Every row is one input. A bad one raises eagerly and while traced, with all of its
words, and the state that was given stays as it is.
"""

import functools
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


ADAM, MOMENTUM = jopt.adam(0.1), jopt.sgd(0.1, momentum=0.9)


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


# --------------------------------------------------------------------------- parameters

PARAMS = {
    "a key missing": (at("enc/b", ..., P), "['enc']['b']"),
    "a key too many": (at("enc/z", B, P), "['enc']['z']"),
    "a list for a dict": ([W, {"b": B}, S], "params"),
    "transposed": (at("w", W.T, P), "['w']"),
    "a batch axis": (at("w", jnp.ones((2, 4, 3)), P), "['w']"),
    "a function for a tree": (jnp.sin, "params must be a pytree of arrays"),
    "a string for a tree": ("params", "params must be a pytree of arrays"),
    "a leaf for a node": (at("enc", 1, P), "['enc']"),
}


READING = {
    "adamw": jopt.adamw(0.1),
    "clipped": jopt.chain(jopt.clip_by_global_norm(1.0), jopt.lamb(0.1)),
    "dog": jopt.contrib.dog(0.1),
    "accumulated": jopt.multi_steps(jopt.adamw(0.1), 2),
    "guarded": jopt.apply_if_finite(jopt.lion(0.1), 2),
    "injected": jopt.inject_hyperparams(jopt.adamw)(learning_rate=0.1),
    "flat": jopt.flatten(jopt.adamw(0.1)),
}


@table(PARAMS)
@pytest.mark.parametrize("tx", READING.values(), ids=list(READING))
def test_bad_parameters(tx, row):
    params, words = row
    for run in (lambda *args: args[0](*args[1:]), traced):
        raises(["params", words], run, tx.update, G, state_of(tx), params)


@pytest.mark.parametrize(
    "tx",
    [
        METHODS["adam"],
        METHODS["clipped"],
        METHODS["injected"],
        METHODS["accumulated"],
        jopt.apply_if_finite(jopt.adam(0.1), 2),
        jopt.sgd(0.1),
    ],
    ids=str,
)
@pytest.mark.parametrize("params", [P | {"more": B}, {}, {"w": W.T}, [B] * 9, 1.0])
def test_parameters_that_no_rule_reads_need_not_fit(tx, params):
    state = state_of(tx)
    want = tx.update(G, state)
    chex.assert_trees_all_equal(want, tx.update(G, state, params))
    chex.assert_trees_all_close(want, jax.jit(tx.update)(G, state, params), rtol=1e-6)


@pytest.mark.parametrize(
    "state", [None, (), ADAM.init(P), Thing()], ids=["None", "()", "Adam", "an object"]
)
@pytest.mark.parametrize(
    "tx",
    [
        jopt.clip_by_global_norm(1.0),
        jopt.scale(2.0),
        jopt.identity(),
        jopt.centralize(),
    ],
    ids=str,
)
def test_where_nothing_is_kept_any_state_is_taken(tx, state):
    updates, after = tx.update(G, state)
    chex.assert_trees_all_equal(updates, tx.update(G, tx.init(P))[0])
    assert after is state or jax.tree.structure(after) == jax.tree.structure(state)


def test_the_state_of_a_chain_may_be_a_list():
    tx = jopt.chain(jopt.clip(1.0), jopt.trace(0.9))
    want, state = tx.update(G, tx.init(P))
    got, after = tx.update(G, list(tx.init(P)))
    chex.assert_trees_all_equal(got, want)
    assert isinstance(after, list)
    chex.assert_trees_all_equal(tuple(after), state)


# ------------------------------------------------------------------------------- states


def with_leaf(state, name, value):
    """The state with another leaf wherever the path ends so."""
    paths, structure = jax.tree_util.tree_flatten_with_path(state)
    hit = [jax.tree_util.keystr(path).endswith(name) for path, _ in paths]
    assert any(hit)
    return structure.unflatten(value(x) if h else x for h, (_, x) in zip(hit, paths))


def in_state(name, value):
    return lambda tx: with_leaf(tx.init(P), name, value)


A, NO = (jax.tree.map(lambda x, y=y: y, P) for y in ("a", False))
DOG, MULTI = jopt.contrib.dowg(), METHODS["accumulated"]
GUARD, INJECTED = METHODS["guarded"], METHODS["injected"]
NOISY = jopt.noisy_sgd(0.1, key=0)
PLATEAU = jopt.contrib.reduce_on_plateau()
FREE = jopt.contrib.schedule_free_sgd(0.1)
OTHER = {"q": jnp.ones(2)}

STATES = {
    "None": (ADAM, lambda tx: None, "state"),
    "a number": (ADAM, lambda tx: 0.0, "state"),
    "a string": (ADAM, lambda tx: "state", "state"),
    "empty": (ADAM, lambda tx: (), "state"),
    "the parameters": (ADAM, lambda tx: P, "state"),
    "the gradients of a guard": (GUARD, lambda tx: G, "ApplyIfFiniteState"),
    "its leaves": (ADAM, lambda tx: jax.tree.leaves(tx.init(P)), "state"),
    "as a dict": (ADAM, lambda tx: tx.init(P)[0]._asdict(), "state"),
    "in a tuple": (ADAM, lambda tx: (tx.init(P),), "state"),
    "too long a chain": (ADAM, lambda tx: (*tx.init(P), ()), "2 parts"),
    "too short a chain": (ADAM, lambda tx: tx.init(P)[:1], "2 parts"),
    "of adabelief": (ADAM, lambda tx: jopt.adabelief(0.1).init(P), "ScaleByAdamState"),
    "of yogi": (ADAM, lambda tx: jopt.yogi(0.1).init(P), "ScaleByAdamState"),
    "of sgd": (MOMENTUM, lambda tx: jopt.sgd(0.1).init(P), "TraceState"),
    "not wrapped": (MULTI, lambda tx: ADAM.init(P), "MultiStepsState"),
    "wrapped": (ADAM, lambda tx: MULTI.init(P), "state"),
    "another wrapper's": (GUARD, lambda tx: MULTI.init(P), "ApplyIfFiniteState"),
    "wrapped around another": (
        MULTI,
        lambda tx: tx.init(P)._replace(inner_opt_state=MOMENTUM.init(P)),
        "ScaleByAdamState",
    ),
    "for other parameters": (ADAM, lambda tx: tx.init(OTHER), "other parameters"),
    "for others, of a tree": (DOG, lambda tx: tx.init(OTHER), "other parameters"),
    "for others, wrapped": (MULTI, lambda tx: tx.init(OTHER), "other parameters"),
    "for a list": (ADAM, lambda tx: tx.init(jax.tree.leaves(P)), "other parameters"),
    "for other shapes": (
        ADAM,
        lambda tx: tx.init(jax.tree.map(lambda x: x[None], P)),
        "['enc']['b'] is f32[1, 3]",
    ),
    "a moment transposed": (ADAM, in_state(".mu['w']", jnp.transpose), "f32[3, 4]"),
    "a moment of one": (ADAM, in_state(".nu['w']", lambda x: x[:1, :1]), "f32[1, 1]"),
    "a moment batched": (ADAM, in_state(".mu['w']", lambda x: x[None]), "['w']"),
    "a moment of integers": (ADAM, in_state(".mu['w']", jnp.int32), "i32[4, 3]"),
    "a moment of booleans": (ADAM, in_state(".mu['w']", jnp.bool_), "bool[4, 3]"),
    "a complex moment": (ADAM, in_state(".nu['w']", jnp.complex64), "c64[4, 3]"),
    "None for a moment": (ADAM, in_state(".mu['w']", lambda x: None), "'mu' at ['w']"),
    "a number for one": (ADAM, in_state(".mu['w']", lambda x: 0.0), "'mu' at ['w']"),
    "a string for one": (ADAM, in_state(".mu['w']", lambda x: "0"), "'mu' at ['w']"),
    "a function for one": (ADAM, in_state(".mu['w']", lambda x: max), "'mu' at ['w']"),
    "an object for one": (ADAM, in_state(".mu['w']", lambda x: Thing()), "'mu' at"),
    "a float count": (ADAM, in_state(".count", jnp.float32), "'count' is f32[]"),
    "a Python float count": (ADAM, in_state(".count", float), "'count'"),
    "a boolean count": (ADAM, in_state(".count", jnp.bool_), "'count' is bool[]"),
    "a vector of counts": (ADAM, in_state(".count", lambda x: x[None]), "i32[1]"),
    "None for a count": (ADAM, in_state(".count", lambda x: None), "'count'"),
    "a string for a count": (ADAM, in_state(".count", lambda x: "1"), "'count'"),
    "a trace of another shape": (MOMENTUM, in_state("['w']", jnp.ravel), "f32[12]"),
    "a number over the tree": (
        DOG,
        in_state(".estim_sq_dist", lambda x: x[None]),
        "'estim_sq_dist' is f32[1]",
    ),
    "an integer over the tree": (DOG, in_state(".estim_sq_dist", jnp.int32), "i32[]"),
    "accumulated of another shape": (
        MULTI,
        in_state(".acc_grads['w']", jnp.transpose),
        "state.acc_grads['w'] is f32[3, 4]",
    ),
    "a float step": (MULTI, in_state(".mini_step", jnp.float32), "mini_step is f32[]"),
    "a vector of steps": (MULTI, in_state(".gradient_step", lambda x: x[None]), "step"),
    "a count for a truth": (GUARD, in_state(".last_finite", jnp.int32), "last_finite"),
    "inside a guard": (GUARD, in_state(".mu['w']", jnp.transpose), "'mu' at ['w']"),
    "a rate of a string": (
        INJECTED,
        in_state("['learning_rate']", lambda x: "1e-3"),
        "state.hyperparams['learning_rate']",
    ),
    "a vector of rates": (
        INJECTED,
        in_state("['learning_rate']", lambda x: jnp.ones(2)),
        "state.hyperparams['learning_rate'] is f32[2]",
    ),
    "None for a rate": (
        INJECTED,
        in_state("['learning_rate']", lambda x: None),
        "hyperparams['learning_rate']",
    ),
    "a rate missing": (
        INJECTED,
        lambda tx: tx.init(P)._replace(hyperparams={"b1": 0.9}),
        "hyperparams must hold",
    ),
    "no key": (NOISY, in_state(".rng_key", lambda x: 0.5), "rng_key"),
    "many keys": (NOISY, in_state(".rng_key", jax.random.split), "rng_key"),
    "another class inside": (NOISY, lambda tx: MOMENTUM.init(P), "AddNoiseState"),
    "a vector of scales": (PLATEAU, in_state(".scale", lambda x: x[None]), "scale"),
    "a point of another shape": (FREE, in_state(".z['w']", jnp.transpose), "z['w']"),
}


@table(STATES)
def test_bad_states(row):
    tx, make, words = row
    state = make(tx)
    for run in (lambda *args: args[0](*args[1:]), traced):

        def update(g, s, p):
            tx.update(g, s, p, **({"value": 1.0} if tx is PLATEAU else {}))

        raises(["state", words], run, update, G, state, P)


# ------------------------------------------------------------------------- construction

COMPLEX = B.astype(jnp.complex64)
NAN, INF = float("nan"), float("inf")
NO_DICT = {"w": True, "enc": True}


def step(tx, **extra):
    return tx.update(G, tx.init(P), P, **extra)


def scheduled(value):
    return lambda: step(jopt.sgd(lambda count: value))


CALLS = {
    # settings
    "rate of a string": (lambda: jopt.adam("1e-3"), "learning_rate"),
    "rate of None": (lambda: jopt.adam(None), "learning_rate"),
    "rate of a vector": (lambda: jopt.adam(jnp.ones(3)), "learning_rate"),
    "rate NaN": (lambda: jopt.adam(NAN), "learning_rate"),
    "rate infinite": (lambda: jopt.adam(INF), "learning_rate"),
    "rate complex": (lambda: jopt.adam(1j), "learning_rate"),
    "rate a boolean": (lambda: jopt.adam(True), "learning_rate"),
    "rate a dtype": (lambda: jopt.scale("fast"), "step_size"),
    "rate missing": (lambda: jopt.adam(), "learning_rate"),
    "rate twice": (lambda: jopt.adam(0.1, learning_rate=0.1), "learning_rate"),
    "unknown setting": (lambda: jopt.adam(0.1, beta1=0.9), "beta1"),
    "b1 of one": (lambda: jopt.adam(0.1, b1=1.0), "b1"),
    "b1 negative": (lambda: jopt.adam(0.1, b1=-0.1), "b1"),
    "b1 of a string": (lambda: jopt.adam(0.1, b1="0.9"), "b1"),
    "b2 of one": (lambda: jopt.adamw(0.1, b2=1.0), "b2"),
    "b2 over one": (lambda: jopt.lion(0.1, b2=1.1), "b2"),
    "b2 NaN": (lambda: jopt.adam(0.1, b2=NAN), "b2"),
    "b2 of None": (lambda: jopt.adam(0.1, b2=None), "b2"),
    "eps negative": (lambda: jopt.adam(0.1, eps=-1e-8), "eps"),
    "eps NaN": (lambda: jopt.adam(0.1, eps=NAN), "eps"),
    "eps of None": (lambda: jopt.adam(0.1, eps=None), "eps"),
    "eps_root negative": (lambda: jopt.adam(0.1, eps_root=-1.0), "eps_root"),
    "momentum over one": (lambda: jopt.sgd(0.1, momentum=1.5), "momentum"),
    "momentum negative": (lambda: jopt.sgd(0.1, momentum=-0.5), "momentum"),
    "decay negative": (lambda: jopt.adamw(0.1, weight_decay=-0.1), "weight_decay"),
    "decay of a string": (lambda: jopt.adamw(0.1, weight_decay="1"), "weight_decay"),
    "decay of moments": (lambda: jopt.rmsprop(0.1, decay=2.0), "decay"),
    "mu_dtype of integers": (lambda: jopt.adam(0.1, mu_dtype=jnp.int32), "mu_dtype"),
    "mu_dtype unknown": (lambda: jopt.adam(0.1, mu_dtype="float33"), "mu_dtype"),
    "mu_dtype boolean": (lambda: jopt.lion(0.1, mu_dtype=bool), "mu_dtype"),
    "clip negative": (lambda: jopt.clip(-1.0), "max_delta"),
    "clip NaN": (lambda: jopt.clip(NAN), "max_delta"),
    "norm negative": (lambda: jopt.clip_by_global_norm(-1.0), "max_norm"),
    "norm of None": (lambda: jopt.clip_by_global_norm(None), "max_norm"),
    "norm of a string": (lambda: jopt.clip_by_global_norm("1"), "max_norm"),
    "block negative": (lambda: jopt.clip_by_block_rms(-1.0), "threshold"),
    "units negative": (lambda: jopt.adaptive_grad_clip(-1.0), "clipping"),
    "a decay of one": (lambda: jopt.ema(1.0), "decay"),
    "no steps": (lambda: jopt.MultiSteps(jopt.adam(0.1), 0), "every_k_schedule"),
    "less than none": (lambda: jopt.MultiSteps(ADAM, -1), "every_k_schedule"),
    "half a step": (lambda: jopt.MultiSteps(ADAM, 1.5), "every_k_schedule"),
    "errors negative": (lambda: jopt.apply_if_finite(ADAM, -1), "max_consecutive"),
    "errors of a float": (lambda: jopt.apply_if_finite(ADAM, 1.5), "max_consecutive"),
    "sync of zero": (lambda: jopt.lookahead(ADAM, 0, 0.5), "sync_period"),
    "slow step of two": (lambda: jopt.lookahead(ADAM, 2, 2.0), "slow_step_size"),
    "every zero": (lambda: jopt.apply_every(0), "k must"),
    "noise without key": (lambda: jopt.add_noise(0.1, 0.5), "key is missing"),
    "noise of a float key": (lambda: jopt.add_noise(0.1, 0.5, 1.5), "key"),
    "a rate by no function": (lambda: jopt.scale_by_schedule(0.1), "step_size_fn"),
    # transformations
    "chain of a list": (lambda: jopt.chain([ADAM]), "chain: argument 0"),
    "chain of a factory": (lambda: jopt.chain(jopt.clip(1.0), jopt.adam), "argument 1"),
    "chain of None": (lambda: jopt.chain(None), "argument 0"),
    "chain of a number": (lambda: jopt.chain(0.1), "argument 0"),
    "names twice": (lambda: jopt.named_chain(("a", ADAM), ("a", ADAM)), "must differ"),
    "no names": (lambda: jopt.named_chain(ADAM), "named_chain"),
    "names to a factory": (lambda: jopt.named_chain(("a", jopt.adam)), "'a'"),
    "mask of a factory": (lambda: jopt.masked(jopt.adam, True), "forget to call"),
    "steps of a factory": (lambda: jopt.MultiSteps(jopt.adam, 2), "forget to call"),
    "guard of a factory": (lambda: jopt.apply_if_finite(jopt.adam, 2), "forget"),
    "step of a factory": (lambda: jopt.make_step(lambda p: 0.0, jopt.adam), "forget"),
    "step of no loss": (lambda: jopt.make_step(0.0, ADAM), "loss_fn"),
    "flat factory": (lambda: jopt.flatten(jopt.adam), "forget to call"),
    "lookahead of a factory": (lambda: jopt.lookahead(jopt.adam, 2, 0.5), "forget"),
    "groups of a factory": (lambda: jopt.groups({}, jopt.adam), "default"),
    "a group of a factory": (lambda: jopt.groups({"w": jopt.sgd}, ADAM), "rules"),
    "partition of a list": (lambda: jopt.partition([ADAM], "a"), "transforms"),
    "partition of factories": (
        lambda: jopt.partition({"a": jopt.adam}, "a"),
        "transforms['a']",
    ),
    "injection of an optimizer": (
        lambda: jopt.inject_hyperparams(ADAM),
        "inner_factory",
    ),
    "injection of no setting": (
        lambda: jopt.inject_hyperparams(jopt.adam)(learning_rate=0.1, beta=0.9),
        "beta",
    ),
    "static of no setting": (
        lambda: jopt.inject_hyperparams(jopt.adam, static_args="beta"),
        "static_args",
    ),
    "injection out of range": (
        lambda: jopt.inject_hyperparams(jopt.adam)(learning_rate=0.1, b1=1.5),
        "b1",
    ),
    # schedules
    "schedule of a vector": (scheduled(jnp.ones(2)), "must return"),
    "schedule of None": (scheduled(None), "must return"),
    "schedule of a string": (scheduled("0.1"), "must return"),
    "schedule of a complex": (scheduled(1j), "must return"),
    "schedule of NaN": (scheduled(NAN), "must return a finite"),
    "schedule of a key": (lambda: step(jopt.sgd(jax.random.key)), "must return"),
    "schedule not called": (lambda: step(jopt.sgd(jopt.linear_schedule)), "schedule"),
    "steps negative": (lambda: jopt.cosine_decay_schedule(0.1, -1), "decay_steps"),
    "steps of zero": (lambda: jopt.cosine_decay_schedule(0.1, 0), "decay_steps"),
    "steps of a fraction": (lambda: jopt.linear_schedule(1, 0, 1.5), "transition_st"),
    "steps of a string": (lambda: jopt.linear_schedule(1, 0, "9"), "transition_steps"),
    "start of NaN": (lambda: jopt.linear_schedule(NAN, 0, 9), "init_value"),
    "start of None": (lambda: jopt.constant_schedule(None), "value"),
    "begin negative": (lambda: jopt.linear_schedule(1, 0, 9, -1), "transition_begin"),
    "boundaries not rising": (
        lambda: jopt.join_schedules([lambda t: 1.0] * 3, [5, 2]),
        "boundaries",
    ),
    "boundaries too many": (
        lambda: jopt.join_schedules([lambda t: 1.0], [5]),
        "boundaries",
    ),
    "boundary of a float": (
        lambda: jopt.piecewise_constant_schedule(1.0, {1.5: 0.1}),
        "boundaries_and_scales",
    ),
    "scale negative": (
        lambda: jopt.piecewise_constant_schedule(1.0, {2: -1.0}),
        "boundaries_and_scales",
    ),
    # masks and labels
    "mask of strings": (
        lambda: jopt.masked(
            ADAM, at("w", "False", at("enc/b", True, at("s", True)))
        ).init(P),
        "mask at ['w']",
    ),
    "mask of floats": (
        lambda: jopt.masked(ADAM, jax.tree.map(lambda x: 1.0, P)).init(P),
        "mask at ['enc']['b']",
    ),
    "mask of a function without a return": (
        lambda: jopt.masked(ADAM, lambda params: None).init(P),
        "mask: the function of the tree returned None",
    ),
    "mask too short": (lambda: jopt.masked(ADAM, {"w": True}).init(P), "['enc']['b']"),
    "mask too long": (
        lambda: jopt.masked(ADAM, NO_DICT | {"s": True, "z": True}).init(P),
        "['z']",
    ),
    "mask renamed": (
        lambda: jopt.masked(ADAM, NO_DICT | {"t": True}).init(P),
        "mask must have",
    ),
    "mask of None": (lambda: jopt.masked(ADAM, None), "mask must be"),
    "mask of a number": (lambda: jopt.masked(ADAM, 1).init(P), "mask"),
    "mask by a pattern of nothing": (
        lambda: jopt.masked(ADAM, "**/bias").init(P),
        "matches no leaf",
    ),
    "mask by a function of nonsense": (
        lambda: jopt.masked(ADAM, lambda p: 3).init(P),
        "mask",
    ),
    "mask by a function of None": (
        lambda: jopt.masked(ADAM, lambda p: {}).init(P),
        "mask",
    ),
    "decay by no mask": (
        lambda: jopt.adamw(0.1, mask={"w": "yes"}).init({"w": W}),
        "mask at ['w']",
    ),
    "label unknown": (
        lambda: jopt.partition({"a": ADAM}, {"w": "a", "enc": "b", "s": "a"}).init(P),
        "['enc']",
    ),
    "label missing": (
        lambda: jopt.partition({"a": ADAM}, {"w": "a", "s": "a"}).init(P),
        "['enc']['b']",
    ),
    "label too many": (
        lambda: jopt.partition({"a": ADAM}, {**dict.fromkeys(P, "a"), "z": "a"}).init(
            P
        ),
        "['z']",
    ),
    "label without a hash": (
        lambda: jopt.partition({"a": ADAM}, at("w", {1}, dict.fromkeys(P, "a"))).init(
            P
        ),
        "['w']",
    ),
    "label by rules for some": (
        lambda: jopt.partition({"a": ADAM}, {"enc/*": "a"}).init(P),
        "['w']",
    ),
    "label by a function of nonsense": (
        lambda: jopt.partition({"a": ADAM}, lambda p: 3).init(P),
        "param_labels",
    ),
    "group of no leaf": (lambda: jopt.groups({"bias": None}, ADAM).init(P), "bias"),
    "group of no setting": (lambda: jopt.groups({"w": {"lr": 1}}, ADAM), "'lr'"),
    "lr_mult of a string": (
        lambda: jopt.groups({"w": {"lr_mult": "1"}}, ADAM),
        "lr_mult",
    ),
    "lr_mult NaN": (lambda: jopt.groups({"w": {"lr_mult": NAN}}, ADAM), "lr_mult"),
    "Nesterov by a string": (lambda: jopt.adam(0.1, nesterov="False"), "nesterov"),
    "centered by an array": (lambda: jopt.rmsprop(0.1, centered=B), "centered"),
    "mask of no argument": (lambda: jopt.adamw(0.1, mask=lambda: P).init(P), "mask"),
    "labels None": (
        lambda: jopt.partition({"a": ADAM}, None).init(P),
        "param_labels is None at the root",
    ),
    "labels without a return": (
        lambda: jopt.partition({"a": ADAM}, lambda p: None).init(P),
        "return",
    ),
    "label None": (
        lambda: jopt.partition({"a": ADAM}, at("w", None, A)).init(P),
        "param_labels is None at ['w']",
    ),
    "mask None of a leaf": (lambda: jopt.freeze(at("w", None, NO)).init(P), "['w']"),
    "groups of a list": (lambda: jopt.groups([1.0], ADAM), "rules"),
    "freezes a string": (
        lambda: jopt.selective_transform("adam", freeze_mask=NO),
        "optimizer",
    ),
    "schedule of a class": (lambda: jopt.scale_by_schedule(dict), "step_size_fn"),
    "rate of a class": (lambda: jopt.adam(dict), "learning_rate"),
    "rate of no argument": (lambda: jopt.adam(lambda: 0.1), "learning_rate"),
    "rate of two": (lambda: jopt.sgd({"w": lambda a, b: 0.1, "**": 0.1}), "'w'"),
    "moments of an array": (lambda: jopt.adam(0.1, mu_dtype=B), "mu_dtype"),
    "infinite offset": (
        lambda: jopt.adafactor(0.1, decay_offset=float("inf")),
        "offset",
    ),
    "clip by a number": (lambda: jopt.contrib.adopt(0.1, clip_value_fn=1.0), "clip_v"),
    "Hessian of a string": (
        lambda: jopt.contrib.sophia(0.1, hessian_diagonal_fn="g"),
        "hessian_diagonal_fn",
    ),
    "axis 0.5": (lambda: jopt.adaptive_grad_clip(0.1, axis=0.5), "axis"),
    "key of a function": (lambda: jopt.add_noise(0.1, 0.1, key=jnp.sin), "key"),
    "Muon of numbers": (
        lambda: jopt.contrib.muon(0.1, muon_weight_dimension_numbers={"w": 1}).init(P),
        "dimension_numbers",
    ),
    "schedule of b1": (lambda: jopt.adam(0.1, b1=lambda t: 0.9), "inject_hyperparams"),
    "schedule of a factor": (lambda: jopt.scale(lambda t: 0.9), "step_size"),
    # calls
    "init of a function": (lambda: ADAM.init(jnp.sin), "params"),
    "init of a string": (lambda: ADAM.init("params"), "params"),
    "init of a class": (lambda: ADAM.init(dict), "params"),
    "a real gradient of a complex parameter": (
        lambda: ADAM.update(B, ADAM.init(COMPLEX), COMPLEX),
        "params there is c64[3]: cast the gradient",
    ),
    "state first": (lambda: ADAM.update(ADAM.init(P), G), "state"),
    "parameters first": (lambda: ADAM.update(P, G, ADAM.init(P)), "state"),
    "state last": (lambda: ADAM.update(G, P, ADAM.init(P)), "state"),
    "no params": (
        lambda: jopt.adamw(0.1).update(G, jopt.adamw(0.1).init(P)),
        "params is missing",
    ),
    "no value": (lambda: step(jopt.polyak_sgd()), "value is missing"),
    "value of a vector": (lambda: step(jopt.polyak_sgd(), value=W), "value must be"),
    "value of a string": (lambda: step(PLATEAU, value="low"), "value must be"),
    "no value_fn": (lambda: step(jopt.lbfgs(), value=1.0, grad=G), "value_fn"),
    "no grad_fn": (
        lambda: step(jopt.contrib.sam(ADAM, ADAM, opaque_mode=True)),
        "grad_fn is missing",
    ),
    "no obj_fn": (lambda: step(jopt.contrib.sophia(0.1)), "obj_fn is missing"),
    "lookahead's parameters": (
        lambda: jopt.lookahead(ADAM, 2, 0.5).update(
            G, jopt.lookahead(ADAM, 2, 0.5).init(jopt.LookaheadParams(P, P)), P
        ),
        "got a LookaheadState",
    ),
    "misspelt": (
        lambda: step(jopt.polyak_sgd(), strict=True, vlaue=1.0),
        "did you mean 'value'?",
    ),
    "unknown": (lambda: step(ADAM, strict=True, value=1.0), "['value']"),
    "apply to a list": (lambda: jopt.apply_updates(P, [W, B, S]), "updates"),
    "apply without a key": (lambda: jopt.apply_updates(P, at("w", ...)), "['w']"),
    "apply of another shape": (lambda: jopt.apply_updates(P, at("w", B)), "f32[3]"),
    "apply of a batch": (lambda: jopt.apply_updates(B, jnp.ones((2, 3))), "batch"),
    "apply of integers": (lambda: jopt.apply_updates(S, jnp.int32(1)), "i32[]"),
    "apply of a string": (lambda: jopt.apply_updates(P, at("s", "1")), "['s']"),
    "apply to a function": (lambda: jopt.apply_updates(jnp.sin, G), "params"),
}


@table(CALLS)
def test_bad_calls(row):
    call, words = row
    raises([words], call)
    raises([words], lambda: jax.eval_shape(lambda _: call() and None, 0.0))


# ------------------------------------------------- losses, projections, linear algebra

L, TO, MICRO = jopt.losses, jopt.projections, jopt.microbatching
CLASSES = jnp.zeros(4, int)  # of the rows of W
INTEGERS = jnp.arange(3)
EYE = jnp.eye(3)
FRAMES = jnp.ones((1, 2, 3)), jnp.zeros((1, 2)), jnp.ones((1, 1), int)
CTC = (*FRAMES, jnp.zeros((1, 1)))
perturbed = jopt.perturbations.make_perturbed_fun
assigned = jopt.assignment.hungarian_algorithm
integer_labels = L.softmax_cross_entropy_with_integer_labels
inverse_root = jopt.matrix_inverse_pth_root


def micro(*args, **kwargs):
    return MICRO.microbatch(jnp.sum, *args, **kwargs)


FUNCTIONS = {
    # shapes
    "loss of two shapes": (lambda: L.l2_loss(W, B), "targets is f32[3], predictions"),
    "loss of a column": (lambda: L.huber_loss(W, W[:, :2]), "f32[4, 2]"),
    "loss of a stretched row": (lambda: L.log_cosh(B, B[:, None]), "must not stretch"),
    "loss of a wrong batch": (lambda: L.hinge_loss(W, W[:2]), "targets is f32[2, 3]"),
    "classes for one-hot": (lambda: L.softmax_cross_entropy(W, CLASSES), "labels is"),
    "one-hot for classes": (lambda: integer_labels(W, W.astype(int)), "i32[4, 3]"),
    "labels of another batch": (
        lambda: L.multiclass_hinge_loss(W, INTEGERS),
        "labels are i32[3]",
    ),
    "one score without classes": (lambda: L.multiclass_hinge_loss(S, 0), "scores"),
    "one logit without classes": (lambda: L.safe_softmax_cross_entropy(S, S), "f32[]"),
    "regions of two shapes": (lambda: L.binary_dice_loss(W, B), "targets is"),
    "weights of classes": (lambda: L.dice_loss(W, W, class_weights=B[:2]), "(3,)"),
    "embeddings of one": (lambda: L.ntxent(B, INTEGERS), "[batch, dim]"),
    "frames of one": (lambda: L.ctc_loss(W, *CTC[1:]), "logits must be"),
    "no such axis": (lambda: L.kl_divergence(W, W, axis=2), "kl_divergence: axis 2"),
    "an axis of a string": (lambda: L.kl_divergence(W, W, axis="0"), "axis must be"),
    "an axis of a float": (lambda: L.cosine_distance(W, W, axis=1.0), "axis must be"),
    "an axis twice": (lambda: L.kl_divergence(W, W, axis=(0, -2)), "twice"),
    # dtypes
    "labels of floats": (lambda: integer_labels(W, W[:, 0]), "labels"),
    "labels of booleans": (lambda: integer_labels(W, W[:, 0] > 0), "labels"),
    "predictions of integers": (lambda: L.l2_loss(INTEGERS), "predictions"),
    "logits of integers": (lambda: L.sparsemax_loss(INTEGERS, B), "logits"),
    "predictions of None": (lambda: L.squared_error(None, B), "predictions"),
    "predictions of a list": (lambda: L.squared_error([1.0, 2.0]), "got list"),
    "predictions in a tree": (lambda: L.l2_loss(P, P), "got dict"),
    "predictions of a key": (lambda: L.l2_loss(jax.random.key(0)), "predictions"),
    "complex errors": (lambda: L.log_cosh(COMPLEX), "complex64[3]"),
    "targets of a string": (lambda: L.l2_loss(B, "b"), "targets"),
    "frames of None": (lambda: L.ctc_loss(None, None, None, None), "logits"),
    # settings
    "delta negative": (lambda: L.huber_loss(B, delta=-1.0), "delta must be at least 0"),
    "delta NaN": (lambda: L.huber_loss(B, delta=NAN), "delta"),
    "delta infinite": (lambda: L.huber_loss(B, delta=INF), "delta"),
    "delta of None": (lambda: L.huber_loss(B, delta=None), "delta"),
    "one delta negative": (lambda: L.huber_loss(B, delta=np.array([1, -1, 1])), "-1"),
    "alpha over one": (lambda: L.sigmoid_focal_loss(B, B, alpha=1.5), "alpha"),
    "gamma negative": (lambda: L.sigmoid_focal_loss(B, B, gamma=-1.0), "gamma"),
    "smoothing over one": (lambda: L.smooth_labels(B, 2.0), "alpha must be in [0, 1]"),
    "smoothing below zero": (lambda: L.smooth_labels(B, -0.1), "alpha"),
    "smoothing of a string": (lambda: L.smooth_labels(B, "0.1"), "alpha"),
    "a poly loss of NaN": (lambda: L.poly_loss_cross_entropy(B, B, epsilon=NAN), "eps"),
    "epsilon negative": (lambda: L.cosine_similarity(B, B, epsilon=-1.0), "epsilon"),
    "margin negative": (lambda: L.triplet_margin_loss(B, B, B, margin=-1.0), "margin"),
    "norm of degree zero": (
        lambda: L.triplet_margin_loss(B, B, B, norm_degree=0),
        "norm_degree must be positive",
    ),
    "norm of a string's degree": (
        lambda: L.triplet_margin_loss(B, B, B, norm_degree="2"),
        "norm_degree",
    ),
    "temperature of zero": (lambda: L.ntxent(W, CLASSES, 0.0), "temperature"),
    "smooth negative": (lambda: L.dice_loss(W, W, smooth=-1.0), "smooth"),
    "false negatives' weight": (lambda: L.dice_loss(W, W, beta=-0.5), "beta"),
    "a positive logarithm": (lambda: L.ctc_loss(*CTC, log_epsilon=1.0), "log_epsilon"),
    "a blank of a string": (lambda: L.ctc_loss(*CTC, blank_id="0"), "blank_id"),
    "a blank of no class": (lambda: L.ctc_loss(*CTC, blank_id=3), "blank_id"),
    "lists reduced by a word": (
        lambda: L.ranking_softmax_loss(B, B, reduce_fn="mean"),
        "reduce_fn must be a function",
    ),
    "a maximum of no function": (lambda: L.make_fenchel_young_loss(3), "max_fun"),
    "a maximum of a vector": (
        lambda: L.make_fenchel_young_loss(lambda x: x)(B, B),
        "max_fun must return a scalar",
    ),
    # reductions and masks
    "reduction unknown": (lambda: L.l2_loss(B, reduction="max"), "'mean' or 'sum'"),
    "reduction of optax's dice": (lambda: L.l2_loss(B, reduction="none"), "reduction"),
    "reduction by a function": (lambda: L.l2_loss(B, reduction=jnp.mean), "reduction"),
    "reduction of a boolean": (lambda: L.log_cosh(B, reduction=True), "reduction"),
    "reduction of an array": (lambda: L.kl_divergence(B, B, reduction=B), "reduction"),
    "reduction of dice": (lambda: L.dice_loss(W, W, reduction="max"), "reduction"),
    "a mask of floats": (lambda: L.l2_loss(W, where=W), "where must be of booleans"),
    "a mask of a string": (lambda: L.l2_loss(W, where="all"), "where"),
    "a mask of another shape": (
        lambda: L.l2_loss(W, where=B[:2] > 0),
        "where is bool[2], which does not broadcast to the shape (4, 3) of the losses",
    ),
    "a mask of classes": (
        lambda: L.multiclass_hinge_loss(W, CLASSES, where=W > 0),
        "the shape (4,) of the losses",
    ),
    # projections
    "ball of negative radius": (lambda: TO.projection_l2_ball(B, -1.0), "scale"),
    "ball of radius NaN": (lambda: TO.projection_l1_ball(B, NAN), "scale"),
    "ball of many radii": (lambda: TO.projection_linf_ball(B, B), "scale"),
    "sphere of no radius": (lambda: TO.projection_l1_sphere(B, None), "scale"),
    "simplex of a string": (lambda: TO.projection_simplex(B, "1"), "scale"),
    "simplex of complex": (lambda: TO.projection_simplex(COMPLEX), "tree must be real"),
    "cube of negative scale": (lambda: TO.projection_hypercube(P, -1.0), "scale"),
    "cube of one negative scale": (
        lambda: TO.projection_hypercube(P, at("enc/b", -1.0)),
        "scale at ['enc']['b'] must be at least 0",
    ),
    "box of strings": (lambda: TO.projection_box(B, "0", "1"), "lower"),
    "box of NaN": (lambda: TO.projection_box(B, 0.0, NAN), "upper"),
    "box of another tree": (lambda: TO.projection_box(P, {"w": 0.0}, 1.0), "lower"),
    "box of another shape": (lambda: TO.projection_box(B, B[:2], 1.0), "f32[2]"),
    "a string in a tree": (lambda: TO.projection_l2_ball(at("s", "1")), "['s'] must"),
    "a function in a tree": (lambda: TO.projection_non_negative([B, max]), "[1] must"),
    "a key in a tree": (lambda: TO.projection_l2_sphere([jax.random.key(0)]), "tree"),
    "plane of another shape": (
        lambda: TO.projection_hyperplane(B, W, 1.0),
        "f32[4, 3]",
    ),
    "plane of another tree": (lambda: TO.projection_hyperplane(P, OTHER, 1.0), "['q']"),
    "plane at a string": (lambda: TO.projection_hyperplane(B, B, "1"), "b must be"),
    "plane at NaN": (lambda: TO.projection_hyperplane(B, B, NAN), "b must be"),
    "a complex side": (lambda: TO.projection_halfspace(B, COMPLEX, 1.0), "a must be"),
    "line of another shape": (lambda: TO.projection_vector(B, W), "f32[4, 3]"),
    # linear algebra
    "orthogonal vector": (lambda: jopt.orthogonalize(B), "[..., m, n]"),
    "orthogonal integers": (lambda: jopt.orthogonalize(W.astype(int)), "of floats"),
    "orthogonal string": (lambda: jopt.orthogonalize("w"), "orthogonalize: x must"),
    "no triples": (lambda: jopt.orthogonalize(W, (1.0, 2.0, 3.0)), "coefficients"),
    "eps of a matrix": (lambda: jopt.orthogonalize(W, eps=-1.0), "eps"),
    "unknown scale": (lambda: jopt.orthogonalize(W, preconditioning="l2"), "one of"),
    "eigenvalue of no square": (lambda: jopt.power_iteration(W), "square"),
    "eigenvalue of None": (lambda: jopt.power_iteration(None), "matrix"),
    "eigenvalue from elsewhere": (lambda: jopt.power_iteration(EYE, v0=B[:2]), "v0"),
    "less than no steps": (lambda: jopt.power_iteration(EYE, num_iters=-1), "num_iter"),
    "tolerance negative": (
        lambda: jopt.power_iteration(EYE, error_tolerance=-1.0),
        "error_tolerance",
    ),
    "root of no square": (lambda: inverse_root(W, 2), "square"),
    "root of integers": (lambda: inverse_root(EYE.astype(int), 2), "of floats"),
    "root of degree zero": (lambda: inverse_root(EYE, 0), "p must"),
    "root of a fraction": (lambda: inverse_root(EYE, 2.5), "p must"),
    "ridge negative": (lambda: inverse_root(EYE, 2, ridge_epsilon=-1.0), "ridge_eps"),
    "costs of a vector": (lambda: assigned(B), "cost_matrix"),
    "costs of complex": (lambda: assigned(COMPLEX[None]), "cost_matrix"),
    "costs of a string": (lambda: assigned("w"), "cost_matrix"),
    "costs of None": (lambda: assigned(None), "cost_matrix"),
    # microbatches and perturbations
    "rows that do not divide": (
        lambda: micro(0, 3)(W),
        "multiple of microbatch_size=3",
    ),
    "no rows in a part": (lambda: micro(0, 0), "microbatch_size"),
    "half a row in a part": (lambda: micro(0, 0.5), "microbatch_size"),
    "parts of no function": (lambda: MICRO.microbatch(3, 0, 2), "fun must be"),
    "parts of no argument": (lambda: micro(5, 2)(W), "argument 5 must be given"),
    "parts of no axis": (lambda: micro(0, 2, in_axes=2)(W), "no batch axis 2"),
    "parts of a fractional axis": (lambda: micro(0, 2, in_axes=0.5), "in_axes"),
    "parts of a scalar": (lambda: micro(0, 2)(S), "no batch axis"),
    "parts of a string": (lambda: micro(0, 2)("w"), "argument 0 must be an array"),
    "parts added by a word": (lambda: micro(0, 2, "sum"), "accumulator"),
    "more parts than are": (
        lambda: micro(0, 2, num_real_microbatches=3)(W),
        "num_real_microbatches must be from 0 to 2",
    ),
    "half a part": (
        lambda: micro(0, 2, num_real_microbatches=0.5)(W),
        "num_real_microbatches must be an integer",
    ),
    "maps of no function": (lambda: MICRO.micro_vmap(3), "fun must be"),
    "gradients of no function": (lambda: MICRO.micro_grad(3), "fun must be"),
    "rows reshaped unevenly": (lambda: MICRO.reshape_batch_axis(W, 3), "multiple"),
    "rows along a fraction": (lambda: MICRO.reshape_batch_axis(W, 2, 0.5), "axis"),
    "no samples": (lambda: perturbed(jnp.sum, 0), "num_samples"),
    "no noise": (lambda: perturbed(jnp.sum, 2, 0.0), "sigma"),
    "noise of a string": (lambda: perturbed(jnp.sum, 2, noise="normal"), "noise"),
    "noise of a class": (
        lambda: perturbed(jnp.sum, 2, noise=jopt.perturbations.Normal),
        "noise",
    ),
    "noise on no function": (lambda: perturbed(3), "fun must be"),
    "noise on integers": (lambda: perturbed(jnp.sum)(jax.random.key(0), INTEGERS), "x"),
    "a baseline of a word": (lambda: perturbed(jnp.sum, use_baseline="no"), "baseline"),
}


@table(FUNCTIONS)
def test_bad_arguments_of_functions(row):
    call, words = row
    raises([words], call)
    raises([words], lambda: jax.eval_shape(lambda _: call() and None, 0.0))


# ----------------------------------------------------------------------- donated arrays


def deleted(tree, path):
    """The tree with one array in a buffer that is gone."""
    leaf = jnp.ones((4, 3))
    leaf.delete()
    return with_leaf(tree, path, lambda x: leaf)


@pytest.mark.parametrize("which", ["updates", "state", "params"])
def test_a_donated_array_is_named(which):
    tx = jopt.adamw(0.1)
    given = dict(updates=G, state=tx.init(P), params=P)
    path = ".mu['w']" if which == "state" else "['w']"
    given[which] = deleted(given[which], path)
    raises([which, "['w']", "f32[4, 3]", "donated"], tx.update, *given.values())


def test_a_donated_parameter_has_no_state():
    raises(["params at ['w']", "donated"], ADAM.init, deleted(P, "['w']"))
    raises(["updates at ['w']"], jopt.apply_updates, P, deleted(G, "['w']"))


# ------------------------------------------------------------------------ odd but legal


class Pair(NamedTuple):
    first: Any
    second: Any


class Linear(eqx.Module):
    w: jax.Array
    name: str = eqx.field(static=True)
    activation: Any = jnp.tanh

    def __call__(self, x):
        return self.activation(self.w @ x)


@chex.dataclass
class Record:
    w: Any
    b: Any


X64 = np.ones(3, np.float64)
READ_ONLY = np.ones(3, np.float32)
READ_ONLY.flags.writeable = False
FLOAT0 = np.zeros(3, jax.dtypes.float0)

LEGAL = {  # parameters and gradients
    "a number": (1.0, 0.5),
    "a scalar": (jnp.ones(()), jnp.ones(())),
    "a bare array": (B, B),
    "NumPy": (np.ones(3, np.float32), np.ones(3, np.float32)),
    "NumPy float64 without x64": (X64, X64),
    "NumPy scalars": (np.float32(1), np.float32(2)),
    "NumPy and JAX": ({"a": X64, "b": B}, {"a": B, "b": X64}),
    "read-only": (READ_ONLY, READ_ONLY),
    "a gradient of a number": (jnp.ones(()), 0.5),
    "a number of a gradient": (1.0, jnp.ones(())),
    "empty tree": ({}, {}),
    "empty list": ([], []),
    "only None": ({"a": None}, {"a": None}),
    "empty arrays": ({"a": jnp.ones((0, 3))}, {"a": jnp.ones((0, 3))}),
    "None among both": ({"a": B, "b": None}, {"a": B, "b": None}),
    "None for a gradient": ({"a": B, "b": B}, {"a": B, "b": None}),
    "None for all": ({"a": B}, {"a": None}),
    "integers left alone": ({"a": B, "n": 3}, {"a": B, "n": None}),
    "huge integers": ({"a": B, "n": 2**70}, {"a": B, "n": None}),
    "arrays of integers": (
        {"a": B, "n": jnp.arange(3)},
        {"a": B, "n": FLOAT0},
    ),
    "integers with a gradient": (
        {"a": B, "n": jnp.arange(3)},
        {"a": B, "n": jnp.zeros(3, jnp.int32)},
    ),
    "booleans": ({"a": B, "n": True}, {"a": B, "n": None}),
    "keys": ({"a": B, "k": jax.random.key(0)}, {"a": B, "k": None}),
    "functions": ({"a": B, "f": jnp.tanh}, {"a": B, "f": None}),
    "strings": ({"a": B, "f": "relu"}, {"a": B, "f": None}),
    "bfloat16": (B.astype(jnp.bfloat16), B.astype(jnp.bfloat16)),
    "float16": (B.astype(jnp.float16), B.astype(jnp.float16)),
    "float8": (B.astype(jnp.float8_e4m3fn), B.astype(jnp.float8_e4m3fn)),
    "16 bits and a wide gradient": (B.astype(jnp.bfloat16), B),
    "a narrow gradient": (B, B.astype(jnp.bfloat16)),
    "mixed dtypes": ([B, B.astype(jnp.float16)], [B, B.astype(jnp.float16)]),
    "complex": (B.astype(jnp.complex64), B.astype(jnp.complex64)),
    "a namedtuple": (Pair(B, W), Pair(B, W)),
    "a dataclass": (Record(w=W, b=B), Record(w=W, b=B)),
    "frozen": (flax.core.freeze(P), flax.core.freeze(G)),
    "a module": (Linear(W, "x"), Linear(W, "x", None)),
    "nested lists": ([[B], (W, [])], [[B], (W, [])]),
    "keys of integers": ({0: B, 1: W}, {0: B, 1: W}),
    "not finite": (B, jnp.full(3, jnp.nan)),
    "many axes": (jnp.ones((1,) * 8), jnp.ones((1,) * 8)),
}
PLAIN = {"adam": ADAM, "sgd": MOMENTUM, "guarded": GUARD, "clipped": METHODS["clipped"]}


@table(LEGAL)
@pytest.mark.parametrize("tx", PLAIN.values(), ids=list(PLAIN))
def test_odd_inputs_work(tx, row):
    params, grads = row

    def run(p, g):
        state = tx.init(p)
        updates, new = tx.update(g, state, p)
        assert jax.tree.structure(new) == jax.tree.structure(state)
        new_params = jopt.apply_updates(p, updates)
        assert jax.tree.structure(new_params) == jax.tree.structure(p)

    traced(run, params, grads)


IN_NUMPY = jax.tree.map(np.asarray, ADAM.init(P))

ODD_CALLS = {
    "rate of NumPy": lambda: step(jopt.adam(np.float32(0.1))),
    "rate of an array": lambda: step(jopt.adam(jnp.float32(0.1))),
    "rate of an integer": lambda: step(jopt.sgd(1)),
    "rate of zero": lambda: step(jopt.sgd(0)),
    "rate below zero": lambda: step(jopt.sgd(-0.1)),
    "b1 of zero": lambda: step(jopt.adam(0.1, b1=0)),
    "eps of zero": lambda: step(jopt.adam(0.1, eps=0.0)),
    "no clip": lambda: step(jopt.clip_by_global_norm(0.0)),
    "schedule of a number": lambda: step(jopt.sgd(lambda t: 0.1)),
    "schedule of an integer": lambda: step(jopt.sgd(lambda t: 1)),
    "schedule of NumPy": lambda: step(jopt.sgd(lambda t: np.float64(0.1))),
    "empty chain": lambda: step(jopt.chain()),
    "chain of optax": lambda: step(jopt.chain(optax.identity(), ADAM)),
    "a mask of one": lambda: step(jopt.masked(ADAM, True)),
    "a mask of none": lambda: step(jopt.masked(ADAM, False)),
    "a mask prefix": lambda: step(
        jopt.masked(ADAM, {"w": True, "enc": False, "s": True})
    ),
    "a mask of NumPy": lambda: step(
        jopt.masked(ADAM, jax.tree.map(lambda x: np.bool_(True), P))
    ),
    "one label": lambda: step(jopt.partition({"a": ADAM}, "a")),
    "a label unused": lambda: step(jopt.partition({"a": ADAM, "b": MOMENTUM}, "a")),
    "labels of integers": lambda: step(jopt.partition({0: ADAM}, dict.fromkeys(P, 0))),
    "an unknown argument": lambda: step(ADAM, vlaue=1.0),
    "a known argument": lambda: step(jopt.polyak_sgd(), value=1.0, strict=True),
    "an argument passed on": lambda: step(
        jopt.multi_steps(jopt.polyak_sgd(), 2), value=1.0, strict=True
    ),
    "an argument injected": lambda: step(
        jopt.inject_hyperparams(jopt.polyak_sgd)(), value=1.0, strict=True
    ),
    "any argument of others": lambda: step(
        jopt.masked(optax.lbfgs(linesearch=None), True), what=1.0, strict=True
    ),
    "an integer as a rate": lambda: INJECTED.update(
        G, with_leaf(INJECTED.init(P), "['learning_rate']", lambda x: 1), P
    ),
    "a Python count": lambda: ADAM.update(
        G, with_leaf(ADAM.init(P), ".count", lambda x: 3), P
    ),
    "a state of NumPy": lambda: ADAM.update(G, IN_NUMPY, P),
    "a mask None of a function": lambda: jopt.masked(ADAM, {"w": True, "f": None}).init(
        {"w": W, "f": jnp.tanh}
    ),
    "a Hessian beside a key": lambda: sophia_of({"w": W, "k": jax.random.key(0)}),
    "a Hessian beside a function": lambda: sophia_of({"w": W, "f": jnp.tanh}),
    "a search over nothing": lambda: jopt.scale_by_lbfgs().update(
        {}, jopt.scale_by_lbfgs().init({}), {}
    ),
}


def sophia_of(params):
    tx = jopt.contrib.sophia(0.1)
    grads = {k: W if k == "w" else None for k in params}
    return tx.update(grads, tx.init(params), params, obj_fn=lambda p: jnp.sum(p["w"]))


@table({name: (call,) for name, call in ODD_CALLS.items()})
def test_odd_calls_work(row):
    jax.eval_shape(lambda _: row[0]() and None, 0.0)


NONE = jnp.ones((0, 3))

ODD_FUNCTIONS = {
    "an empty batch": lambda: L.l2_loss(NONE, NONE, reduction="mean"),
    "an empty batch of classes": lambda: integer_labels(NONE, jnp.zeros(0, int)),
    "an empty batch of scores": lambda: L.multiclass_hinge_loss(NONE, CLASSES[:0]),
    "a loss of numbers": lambda: L.huber_loss(1.0, 2, delta=1),
    "a loss of NumPy": lambda: L.log_cosh(X64, X64, where=X64 > 0, reduction="sum"),
    "a loss in 16 bits": lambda: L.l2_loss(B.astype(jnp.bfloat16), B),
    "labels in 8 bits": lambda: integer_labels(W, CLASSES.astype(jnp.uint8)),
    "labels of booleans": lambda: L.sigmoid_binary_cross_entropy(B, B > 0),
    "scores of integers": lambda: L.perceptron_loss(INTEGERS, INTEGERS),
    "infinite logits": lambda: L.softmax_cross_entropy(
        W.at[0].set(-INF), W, where=W > 0
    ),
    "one mask for all": lambda: L.l2_loss(W, where=True, reduction="mean"),
    "a mask of a row": lambda: L.l2_loss(W, where=B > 0),
    "an axis of NumPy": lambda: L.kl_divergence(W, W, axis=np.int64(0)),
    "a list of axes": lambda: L.kl_divergence(W, W, axis=[0, -1]),
    "no delta at all": lambda: L.huber_loss(B, delta=0),
    "no margin": lambda: L.triplet_margin_loss(B, B, -B, margin=0),
    "no smoothing": lambda: L.smooth_labels(INTEGERS, 0),
    "all smoothing": lambda: L.smooth_labels(B, np.float64(1)),
    "a poly loss below -1": lambda: L.poly_loss_cross_entropy(B, B, epsilon=-2),
    "a ball of radius zero": lambda: TO.projection_l2_ball(P, 0),
    "a ball of integers": lambda: TO.projection_l1_ball(INTEGERS),
    "an endless cube": lambda: TO.projection_hypercube(P, INF),
    "half a box": lambda: TO.projection_box(B, None, INF),
    "a box that is crossed": lambda: TO.projection_box(B, 1.0, 0.0),
    "an empty tree": lambda: TO.projection_simplex({}),
    "a tree of numbers": lambda: TO.projection_simplex([1.0, 2, np.float32(3)]),
    "a complex ball": lambda: TO.projection_l2_ball(COMPLEX),
    "all of space": lambda: TO.projection_halfspace(B, B, INF),
    "many matrices": lambda: jopt.orthogonalize(jnp.ones((2, 1, 4, 3), jnp.bfloat16)),
    "no matrices": lambda: jopt.orthogonalize(jnp.ones((0, 4, 3))),
    "coefficients of an array": lambda: jopt.orthogonalize(W, jnp.ones((2, 3))),
    "no steps": lambda: jopt.power_iteration(EYE, num_iters=0),
    "an eigenvalue of NumPy": lambda: jopt.power_iteration(np.eye(3, dtype=np.float32)),
    "costs of a list": lambda: assigned([[1, 2], [3, 4]]),
    "costs of none": lambda: assigned(NONE),
    "costs without an end": lambda: assigned(EYE * INF),
    "parts as they are": lambda: micro(0, None)(W),
    "parts along the last axis": lambda: micro((0,), 1, in_axes=[-1])(np.asarray(W)),
    "no part": lambda: micro(0, 2, num_real_microbatches=np.int32(0))(W),
    "a scale of NumPy": lambda: perturbed(jnp.sum, 2, np.float32(1))(
        jax.random.key(0), 1.0
    ),
}


@table({name: (call,) for name, call in ODD_FUNCTIONS.items()})
def test_odd_arguments_of_functions_work(row):
    jax.block_until_ready(row[0]())
    jax.eval_shape(lambda _: (row[0](), None)[1], 0.0)


# ----------------------------------------------------------------------- mended defects


@pytest.mark.parametrize("tx", [MOMENTUM, ADAM, jopt.clip_by_global_norm(1.0)])
def test_a_weak_gradient_gives_a_strong_update(tx):
    weak = jnp.asarray(1.0)
    assert jax.typeof(weak).weak_type
    update, _ = jax.eval_shape(tx.update, weak, tx.init(weak), weak)
    assert not update.weak_type


def test_a_staircase_may_be_longer_than_int32():
    stairs = jopt.exponential_decay(1.0, 2**40, 0.5, staircase=True)
    np.testing.assert_array_equal(stairs(jnp.array([0, 2**31 - 1])), [1.0, 1.0])


def test_a_search_in_64_bits_may_be_asked_in_32():
    with jax.enable_x64(True):
        zero, error = jnp.float64(0.0), jnp.float64(1.0)
    assert jopt.ZoomLinesearchInfo(jnp.int32(3), error, zero).failed
    assert not jopt.ZoomLinesearchInfo(jnp.int32(3), zero, error).failed


def test_a_measure_sees_no_values_in_init():
    seen = []

    def measure(updates):
        seen.append(isinstance(updates["w"], jax.core.Tracer))
        return jopt.tree.norm(updates)

    jopt.snapshot("size", measure).init(P)
    jopt.monitor({"size": measure}).init(P)
    assert seen and all(seen)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jopt.adamw(0.1), "adamw: params is missing"),
        (lambda: jopt.lamb(0.1), "lamb: params is missing"),
        (lambda: jopt.contrib.muon(0.1), "muon: params is missing"),
        (
            lambda: jopt.chain(jopt.clip(1.0), jopt.lion(0.1)),
            "lion: params is missing",
        ),
        (
            lambda: jopt.multi_steps(jopt.adamw(0.1), 1),
            "adamw: params is missing",
        ),
    ],
)
def test_messages_name_the_factory_that_was_called(make, words):
    """Not a part inside it."""
    params = {"w": jnp.ones((3, 2))}
    tx = make()
    with pytest.raises(ValueError, match=f"^{words}"):
        tx.update(params, tx.init(params))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda mask: jopt.adamw(0.1, mask=mask), "adamw: mask must have the tree"),
        (lambda mask: jopt.masked(jopt.clip(1.0), mask), "masked: mask must have the"),
        (
            lambda mask: jopt.chain(jopt.masked(jopt.adamw(0.1), mask)),
            "masked: mask must have the tree",
        ),
    ],
)
def test_messages_say_whose_mask_it_is(make, words):
    with pytest.raises(ValueError, match=f"^{words}.*; only in mask: "):
        make({"v": True}).init({"w": jnp.ones((3, 2))})
