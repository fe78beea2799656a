"""Equinox modules as parameters: they hold functions, flags, numbers and a dropout.

`init` and `update` may be given the whole module or its arrays alone, each of them
either; what comes out is what the arrays alone give.
"""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.catalogue import METHODS, by_form

MIXTURES = [
    (init_on, update_with)
    for init_on in ("whole", "arrays")
    for update_with in ("whole", "arrays")
]
X, Y = jnp.linspace(-1.0, 1.0, 24).reshape(8, 3), jnp.ones((8, 2))


class Net(eqx.Module):
    hidden: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    out: eqx.nn.Linear
    activation: Callable
    scale: float
    steps: jax.Array
    name: str
    extra: None
    train: bool

    def __init__(self):
        one, two = jax.random.split(jax.random.key(0))
        self.hidden = eqx.nn.Linear(3, 4, key=one)
        self.dropout = eqx.nn.Dropout(0.5)
        self.out = eqx.nn.Linear(4, 2, key=two)
        self.activation = jax.nn.relu
        self.scale = 0.5
        self.steps = jnp.arange(3)
        self.name = "net"
        self.extra = None
        self.train = True

    def __call__(self, x):
        return self.out(self.activation(self.hidden(x))) * self.scale


NET = Net()
WITHOUT_NUMBERS = eqx.tree_at(lambda net: (net.dropout.p, net.scale), NET, (1, 1))
ARRAYS, REST = eqx.partition(NET, eqx.is_inexact_array)


def loss(arrays, x=X):
    """Of the arrays, or of the whole module."""
    net = eqx.combine(eqx.filter(arrays, eqx.is_inexact_array), REST)
    return jnp.mean((jax.vmap(net)(x) - Y) ** 2)


GRADS = [jax.grad(loss)(ARRAYS, X + i) for i in range(4)]


def extra_of(row, params, grads):
    """What the row's update takes: it refuses what its functions do not."""
    if row.extra is None:
        return {}
    if "sophia" in row.name:
        return dict(obj_fn=loss)
    return dict(value=loss(params), grad=grads, value_fn=loss)


def run(tx, init_on, update_with, extra=lambda *_: {}, net=NET):
    """The arrays after some steps, and all updates."""
    state = tx.init(net if init_on == "whole" else ARRAYS)
    updates = []
    for grads in GRADS:
        arrays = eqx.filter(net, eqx.is_inexact_array)
        params = net if update_with == "whole" else arrays
        u, state = tx.update(grads, state, params, **extra(params, grads))
        updates.append(eqx.filter(u, eqx.is_inexact_array))
        net = eqx.apply_updates(net, u)
    return eqx.filter(net, eqx.is_inexact_array), updates


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_array_equal(x, y)


mixtures = pytest.mark.parametrize("mixture", MIXTURES[:-1], ids="-".join)


@pytest.mark.each_value_once
@mixtures
@pytest.mark.parametrize("row", by_form(METHODS.values()))
def test_every_method(row, mixture):
    extra = functools.partial(extra_of, row)
    # These measure all that may be a parameter at `init`, numbers of Python as well.
    net = WITHOUT_NUMBERS if row.name in ("dog",) else NET
    with jax.disable_jit():  # operation by operation: these are compiled once for all
        want = run(row.make(), "arrays", "arrays", extra, net)
        assert_same(run(row.make(), *mixture, extra, net), want)


def is_matrix(tree):
    return jax.tree.map(lambda x: np.ndim(x) > 1, tree)


def label(tree):
    return jax.tree.map(lambda x: "matrix" if np.ndim(x) > 1 else "other", tree)


ADAMW = jopt.adamw(0.1, weight_decay=0.1)
WRAPPED = {
    "chain": jopt.chain(jopt.clip_by_global_norm(0.1), ADAMW),
    "named_chain": jopt.named_chain(("clip", jopt.clip(0.1)), ("adam", ADAMW)),
    "multi_steps": jopt.multi_steps(ADAMW, 2),
    "MultiSteps": jopt.MultiSteps(ADAMW, 2, use_grad_mean=False),
    "skipping": jopt.multi_steps(ADAMW, 2, should_skip_update_fn=jopt.skip_not_finite),
    "apply_if_finite": jopt.apply_if_finite(ADAMW, 2),
    "inject": jopt.inject_hyperparams(jopt.adamw)(0.1, weight_decay=0.1),
    "scheduled": jopt.inject_hyperparams(jopt.adamw)(jopt.linear_schedule(0.1, 0.2, 3)),
    "lookahead": jopt.lookahead(ADAMW, 2, 0.5),
    "resetting": jopt.lookahead(ADAMW, 2, 0.5, reset_state=True),
    "schedule_free": jopt.schedule_free(ADAMW, 0.1),
    "mechanize": jopt.contrib.mechanize(ADAMW),
    "masked": jopt.masked(ADAMW, is_matrix),
    "partition": jopt.partition({"matrix": ADAMW, "other": jopt.sgd(0.1)}, label),
    "groups": jopt.groups(
        {"hidden/*": dict(lr_mult=0.5), "out/*": dict(weight_decay=0.0)}, ADAMW
    ),
    "groups of one estimate": jopt.groups(
        {"hidden/*": dict(lr_mult=0.5)}, jopt.contrib.prodigy()
    ),
    "freeze": jopt.chain(ADAMW, jopt.freeze(is_matrix)),
    "sam": jopt.contrib.sam(ADAMW, jopt.sgd(0.05)),
    "sam that goes on": jopt.contrib.sam(
        ADAMW, jopt.sgd(0.05), sync_period=3, reset_state=False
    ),
    "flatten": jopt.flatten(ADAMW),
    "flatten of a norm": jopt.flatten(jopt.chain(jopt.scale_by_trust_ratio(), ADAMW)),
    "flatten of few": jopt.flatten(jopt.lars(0.1, weight_decay=0.1)),
    "split_real_and_imaginary": jopt.split_real_and_imaginary(ADAMW),
    "with_metrics": jopt.with_metrics(ADAMW),
    "conditionally_transform": jopt.conditionally_transform(
        ADAMW, lambda step: step % 2 == 1
    ),
    "conditionally_mask": jopt.conditionally_mask(ADAMW, lambda step: step % 2 == 1),
    "keep_params_nonnegative": jopt.chain(ADAMW, jopt.keep_params_nonnegative()),
    "apply_every": jopt.chain(ADAMW, jopt.apply_every(2)),
    "params_ema": jopt.chain(ADAMW, jopt.params_ema(0.9)),
    "deep": jopt.multi_steps(
        jopt.apply_if_finite(jopt.masked(jopt.lookahead(ADAMW, 2, 0.5), is_matrix), 2),
        2,
    ),
    "flatten of wrappers": jopt.flatten(jopt.multi_steps(jopt.adam(0.1), 2)),
    "wrappers of flatten": jopt.multi_steps(jopt.flatten(jopt.adam(0.1)), 2),
}


@pytest.mark.each_value_once
@mixtures
@pytest.mark.parametrize("name", WRAPPED)
def test_every_wrapper(name, mixture):
    with jax.disable_jit():
        want = run(WRAPPED[name], "arrays", "arrays")
        assert_same(run(WRAPPED[name], *mixture), want)


@pytest.mark.parametrize("name", ["multi_steps", "flatten", "sam", "resetting", "deep"])
def test_compiled_as_operation_by_operation(name):
    """Alone, and inside of the program's own `jit`."""
    with jax.disable_jit():
        want = run(WRAPPED[name], "arrays", "arrays")
    jitted = WRAPPED[name]._replace(update=eqx.filter_jit(WRAPPED[name].update))
    for tx, mixture in zip((WRAPPED[name], jitted, jitted), MIXTURES):
        got = run(tx, *mixture)
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


FEWER = eqx.tree_at(lambda net: net.hidden, ARRAYS, None)


# `flatten` has one slot for all; others pass on what they do not change.
PASS_ON = [
    "masked",
    "partition",
    "groups",
    "freeze",
    "conditionally_transform",
    "flatten",
]


@pytest.mark.parametrize(
    "name",
    [x for x in WRAPPED if not any(word in x for word in PASS_ON) and x != "deep"],
)
def test_a_leaf_without_a_slot_takes_no_part(name):
    """The state was made for the last layer alone, the gradients are of both."""
    tx, params = WRAPPED[name], NET
    state = tx.init(FEWER)
    kinds = jax.tree.map(jnp.shape, state)
    with jax.disable_jit():
        for grads in GRADS:
            u, state = tx.update(grads, state, params)
            params = eqx.apply_updates(params, u)
    assert jax.tree.map(jnp.shape, state) == kinds
    assert_same(params.hidden, NET.hidden)
    assert not np.array_equal(params.out.weight, NET.out.weight)


def test_flatten_says_what_has_no_place():
    tx = jopt.flatten(jopt.adam(0.1))
    params = {"w": jnp.ones(3), "s": 0.5}
    state = tx.init(params)
    grads = {"w": jnp.ones(3), "s": jnp.ones(())}
    with pytest.raises(
        ValueError, match=r"flatten: updates at \['s'\].*a number of Py"
    ):
        tx.update(grads, state, params)
    numbers = {"a": 0.5, "b": 1.5}
    u, _ = tx.update(numbers, tx.init(numbers), numbers)
    np.testing.assert_allclose([u["a"], u["b"]], -0.1, rtol=1e-5)


# --------------------------------------------------------------------------- make_step


@pytest.mark.each_value_once
@pytest.mark.parametrize("init_on", ["whole", "arrays"])
@pytest.mark.parametrize("tx", [ADAMW, WRAPPED["multi_steps"], jopt.lbfgs()], ids=str)
def test_make_step_moves_the_arrays_of_a_module(tx, init_on):
    def loss_fn(net, x, *, scale):
        assert net.train and net.dropout.p == 0.5  # no tracers
        return scale * jnp.mean((jax.vmap(net)(x) - Y) ** 2)

    def of_arrays(arrays, x, *, scale):
        return loss_fn(eqx.combine(arrays, REST), x, scale=scale)

    net = jax.tree.map(lambda x: jnp.copy(x) if eqx.is_array(x) else x, NET)
    arrays = ARRAYS
    state, other = tx.init(net if init_on == "whole" else ARRAYS), tx.init(ARRAYS)
    step = jopt.make_step(loss_fn, tx)
    same = jopt.make_step(of_arrays, tx, donate=False)
    before = net
    for _ in range(3):
        net, state, value = step(net, state, X, scale=2.0)
        arrays, other, want = same(arrays, other, X, scale=2.0)
        np.testing.assert_allclose(value, want, rtol=1e-5)
    moved, rest = eqx.partition(net, eqx.is_inexact_array)
    for x, y in zip(jax.tree.leaves(moved), jax.tree.leaves(arrays)):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    assert eqx.tree_equal(rest, REST) and net.activation is NET.activation
    assert before.hidden.weight.is_deleted() and before.steps.is_deleted()


def test_make_step_takes_modules_as_further_arguments_too():
    def distance(net, teacher, x):
        assert teacher.train
        return jnp.mean((jax.vmap(net)(x) - jax.vmap(teacher)(x)) ** 2)

    traced = []
    step = jopt.make_step(
        lambda *args: traced.append(0) or distance(*args), ADAMW, donate=False
    )
    net, state = NET, ADAMW.init(NET)
    teacher = eqx.tree_at(lambda net: net.out.bias, NET, jnp.ones(2))
    values = []
    for _ in range(3):
        net, state, value = step(net, state, teacher, X)
        values.append(value)
    assert values[2] < values[0] and len(traced) == 1


def test_make_step_moves_all_that_a_gradient_can_be_taken_of():
    step = jopt.make_step(lambda p: (p["a"] - 3.0) ** 2, jopt.sgd(0.5), donate=False)
    params, _, _ = step({"a": 0.5}, jopt.sgd(0.5).init({"a": 0.5}))
    np.testing.assert_allclose(params["a"], 3.0)
