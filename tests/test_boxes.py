"""Trees of flax: variables of nnx and metadata of linen stand for their values."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jopt
from jopt import boxes

MAKE = {
    "adam": lambda: jopt.adam(0.1),
    "sm3": lambda: jopt.sm3(0.1),
    "adafactor": lambda: jopt.adafactor(0.1, min_dim_size_to_factor=2),
    "muon": lambda: jopt.contrib.muon(0.1),
    "injected": lambda: jopt.inject_hyperparams(jopt.adam)(0.1),
    "groups": lambda: jopt.groups({"**/bias": dict(lr_mult=0.5)}, jopt.adamw(0.1)),
    "multi_steps": lambda: jopt.multi_steps(jopt.adam(0.1), 2),
    "with_metrics": lambda: jopt.with_metrics(jopt.adam(0.1)),
    "averaged": lambda: jopt.chain(jopt.sgd(0.1), jopt.params_ema(0.9)),
    "lookahead": lambda: jopt.lookahead(jopt.sgd(0.1), 2, 0.5),
    "schedule_free": lambda: jopt.contrib.schedule_free_sgd(0.1),
    "sam": lambda: jopt.contrib.sam(jopt.sgd(0.1), jopt.sgd(0.1)),
}
makers = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
X = jnp.linspace(0.1, 1.3, 6).reshape(2, 3)


class Net(nnx.Module):
    def __init__(self):
        self.kernel = nnx.Param(jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), note="rows")
        self.bias = nnx.Param(jnp.full(4, 0.5, jnp.float32))

    def __call__(self, x):
        return x @ self.kernel[...] + self.bias[None]


def loss(net):
    return jnp.sum((net(X) - 1.0) ** 2)


def plain_params():
    return nnx.to_pure_dict(nnx.state(Net(), nnx.Param))


def plain_loss(p):
    return jnp.sum((X @ p["kernel"] + p["bias"][None] - 1.0) ** 2)


def trained(tx, steps=3):
    """Three steps through nnx, and three on the plain dictionary."""
    net = Net()
    optimizer = nnx.Optimizer(net, tx, wrt=nnx.Param)
    p = plain_params()
    state = tx.init(p)
    for _ in range(steps):
        optimizer.update(net, nnx.grad(loss)(net))
        u, state = tx.update(jax.grad(plain_loss)(p), state, p)
        p = jopt.apply_updates(p, u)
    return net, optimizer, p, state


def linen_params():
    """One kernel in each kind of box, biases in none."""
    p = {name: plain_params() for name in ("a", "b")}
    p["a"]["kernel"] = nn.Partitioned(p["a"]["kernel"], (None, "model"))
    p["b"]["kernel"] = nn.LogicallyPartitioned(p["b"]["kernel"], ("embed", None))
    return p


def assert_close(got, expected):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------ what is one


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Own:
    """A program's own node, whose field is merely called so."""

    value: jax.Array


def test_only_nodes_that_promise_to_stand_for_a_value_are_boxes():
    x = jnp.ones(2)
    for box in (nnx.Param(x), nn.Partitioned(x, (None,)), nnx.OptState(x)):
        assert boxes.is_box(box)
        assert boxes.content(box) is x
    for other in (x, {"value": x}, [x], Own(x), nnx.State({"w": x}), None, 1.0):
        assert not boxes.is_box(other)
    assert jopt.tree.paths({"w": Own(x)}) == ["w/value"]


def test_boxes_in_boxes_are_opened_and_leaves_keep_their_order():
    tree = {"b": nnx.Param(nn.Partitioned([1.0, None, 2.0], ())), "a": 3.0}
    assert boxes.unboxed(tree) == {"b": [1.0, None, 2.0], "a": 3.0}
    again = boxes.boxed_as(tree, boxes.unboxed(tree))
    assert jax.tree.structure(again) == jax.tree.structure(tree)


# ----------------------------------------------------------------------------- by path


@pytest.mark.parametrize("params", [linen_params(), {"a": nnx.state(Net())}])
def test_boxes_have_no_place_in_paths(params):
    names = jopt.tree.paths(params)
    assert {name.split("/")[-1] for name in names} == {"kernel", "bias"}
    for which in ("**/kernel", re.compile("kernel$"), lambda p, x: p.endswith("l")):
        chosen = jopt.tree.select(params, which)
        assert jax.tree.leaves(chosen) == [n.endswith("kernel") for n in names]
    labels = jopt.tree.map_with_path(lambda path, x, y: path, params, params)
    assert jax.tree.structure(labels) == jax.tree.structure(params)
    assert jax.tree.leaves(labels) == names
    rates = {re.compile("bias$"): 0.0, "default": 1.0}
    assert jopt.tree.values_of(rates, params) == [n.endswith("kernel") for n in names]


def test_trees_in_boxes_and_without_are_matched_by_path():
    boxed = linen_params()
    plain = boxes.unboxed(boxed)
    mask = jax.tree.map(lambda x: x.ndim > 1, boxed)
    for a, b in ((mask, plain), (boxes.unboxed(mask), boxed)):
        assert jax.tree.leaves(jopt.tree.select(b, a)) == [False, True] * 2
    got = jopt.tree.map_with_path(lambda path, x, y: x is y, boxed, plain)
    assert all(jax.tree.leaves(got))


def test_messages_name_leaves_without_their_boxes():
    tx, params = jopt.adam(0.1), linen_params()
    grads = jax.tree.map(jnp.ones_like, params)
    missing = r"missing in updates: \['b'\]\['bias'\], \['b'\]\['kernel'\]\n"
    with pytest.raises(ValueError, match=missing):
        tx.update({"a": grads["a"]}, tx.init(params), params)
    grads["a"]["kernel"] = grads["a"]["kernel"].replace(value=jnp.ones(3))
    with pytest.raises(ValueError, match=r"updates at \['a'\]\['kernel'\] is"):
        tx.update(grads, tx.init(params), params)


def test_masks_by_path_choose_the_same_leaves_at_init_and_update():
    def mask(path, x):
        return path == "kernel"

    tx = jopt.chain(jopt.masked(jopt.trace(0.9), mask), jopt.sgd(0.1))
    net, _, p, _ = trained(tx)
    assert_close(nnx.to_pure_dict(nnx.state(net)), p)


# -------------------------------------------------------------------- nnx's optimizer


@makers
def test_steps_through_nnx_are_those_on_plain_arrays(make):
    net, optimizer, p, state = trained(make())
    assert_close(nnx.to_pure_dict(nnx.state(net, nnx.Param)), p)
    assert_close(optimizer.opt_state, state)


@pytest.mark.parametrize("name", ["adam", "sm3", "adafactor"])
@pytest.mark.parametrize("boxed_state", [True, False])
def test_a_state_in_boxes_fits_gradients_without_and_keeps_them(name, boxed_state):
    tx, boxed = MAKE[name](), linen_params()
    plain = boxes.unboxed(boxed)
    given, made_for = (plain, boxed) if boxed_state else (boxed, plain)
    state = tx.init(made_for)
    u, new = tx.update(given, state, given)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert jax.tree.structure(u) == jax.tree.structure(given)
    expected, after = tx.update(plain, tx.init(plain), plain)
    assert_close((u, new), (expected, after))


def test_slots_that_are_lists_stay_what_nnx_made_of_them():
    tx, p = jopt.scale_by_sm3(), plain_params()
    state = tx.init(p)
    as_nnx = state._replace(
        mu={k: nnx.State(dict(enumerate(v))) for k, v in state.mu.items()}
    )
    u, new = tx.update(p, state, p)
    u_nnx, new_nnx = tx.update(p, as_nnx, p)
    assert_close(u_nnx, u)
    assert jax.tree.structure(new_nnx) == jax.tree.structure(as_nnx)
    assert jax.tree.structure(new) == jax.tree.structure(state)


@makers
def test_states_of_nnx_are_read_as_plain_ones(make):
    tx = make()
    net, optimizer, p, state = trained(tx)
    boxed, params = optimizer.opt_state, nnx.state(net, nnx.Param)
    assert_close(jopt.metrics(boxed), jopt.metrics(state))
    assert_close(jopt.hyperparams(boxed), jopt.hyperparams(state))
    assert jopt.hyperparams(boxed, tx).keys() == jopt.hyperparams(state, tx).keys()
    assert str(jopt.describe(tx, params)) == str(jopt.describe(tx, p))
    found = jopt.eval_params(boxed, params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    assert_close(found, jopt.eval_params(state, p))
    saved = jopt.state_dict(tx, boxed)
    assert saved.keys() == jopt.state_dict(tx, state).keys()
    loaded, report = jopt.load_state_dict(tx, params, saved)
    assert not any(report)
    assert jax.tree.structure(loaded) == jax.tree.structure(tx.init(params))
    assert_close(loaded, state)
    assert_close(jopt.load_state_dict(tx, p, saved)[0], state)


def test_numbers_in_variables_are_set_in_place():
    tx = jopt.inject_hyperparams(jopt.sgd)(0.1)
    _, optimizer, *_ = trained(tx)
    new = jopt.set_hyperparams(optimizer.opt_state, learning_rate=0.5)
    assert jax.tree.structure(new) == jax.tree.structure(optimizer.opt_state)
    assert jopt.hyperparams(new) == {"learning_rate": 0.5}
    found = jopt.tree.get_all_with_path(new, "learning_rate")
    assert [(str(path[-1]), float(x)) for path, x in found] == [
        ("['learning_rate']", 0.5)
    ]
    assert jopt.tree.get(new, "value") is None


# --------------------------------------------------------------- what maps over states


@makers
def test_mapping_over_states_reads_through_boxes(make):
    tx = make()
    _, optimizer, _, state = trained(tx, 1)
    specs = {"kernel": "K", "bias": "B"}

    def mapped(state, specs):
        return jopt.tree_map_params(
            tx, lambda x, s: s, state, specs, transform_non_params=lambda x: 0
        )

    plain = jax.tree.leaves(mapped(state, specs))
    params = nnx.state(Net(), nnx.Param)
    for like in (specs, boxes.boxed_as(params, specs)):
        assert jax.tree.leaves(mapped(optimizer.opt_state, like)) == plain
    assert {"K", "B"} <= set(plain) or not any(x.shape for x in jax.tree.leaves(state))


def test_mapping_keeps_metadata_which_may_be_leaves():
    params, tx = linen_params(), jopt.adam(0.1)
    state = tx.init(params)
    got = jopt.tree_map_params(tx, lambda x: x + 1, state)
    assert jax.tree.structure(got) == jax.tree.structure(state)
    is_metadata = lambda x: isinstance(x, nn.Partitioned)  # noqa: E731
    got = jopt.tree_map_params(
        tx, lambda x: getattr(x, "names", None), state, is_leaf=is_metadata
    )
    assert got[0].mu["a"] == {"bias": None, "kernel": (None, "model")}
