"""The update functions: figures, structures, shapes, dtypes and derivatives."""

import collections
import dataclasses
import functools
import inspect
import itertools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jopt.compat import subjaxprs
from jopt.updates import (
    adam_step,
    adam_update,
    gradient_descent_update,
    lamb_update,
    lars_update,
    optimizer_update,
)

W, G = np.array([1.0, -2.0, 0.5]), np.array([0.3, 0.1, -4.0])


# ------------------------------------------------- references, float64, from the papers


def adam_reference(g, m, v, t, beta1=0.9, beta2=0.999, epsilon=1e-7):
    """Kingma & Ba, end of section 2, with epsilon in the bias correction as well."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    alpha = np.sqrt(1 - beta2**t) / (1 - beta1**t + epsilon)
    return alpha * m / (np.sqrt(np.maximum(v, 0)) + epsilon), m, v


def lars_reference(w, g, lr, decay=0.0):
    """You et al. 2017, eq. 6, with the trust coefficient in the learning rate."""
    g = np.broadcast_to(g, w.shape)
    w_norm, g_norm = np.linalg.norm(w), np.linalg.norm(g)
    local = w_norm / (g_norm + decay * w_norm + 1e-12) if w_norm > 0 else 1.0
    return w - lr * local * (g + decay * w)


def lamb_reference(w, g, lr, m, v, t, cap=10.0, decay=0.0, **adam):
    """You et al. 2020, algorithm 2, with phi(z) = z and the ratio capped."""
    r, m, v = adam_reference(g, m, v, t, **adam)
    u = np.broadcast_to(r, w.shape) + decay * w
    w_norm, u_norm = np.linalg.norm(w), np.linalg.norm(u)
    ratio = min(w_norm / (u_norm + 1e-12) if w_norm > 0 else 1.0, cap)
    return w - lr * ratio * u, m, v


# One form for all: weights and gradients, the rest fixed.
def gd(w, g, lr=0.1, **kwargs):
    return gradient_descent_update(w, g, lr, **kwargs)


def effective(w, g, lr=0.1, **kwargs):
    return optimizer_update(w, g, lr, **kwargs)


def lars(w, g, lr=0.1, **kwargs):
    return lars_update(w, g, lr, **kwargs)


def adam(w, g, lr=0.1, m=0.0, v=0.0, step=1, **kwargs):
    return adam_update(w, g, lr, m, v, step, **kwargs)[0]


def lamb(w, g, lr=0.1, m=0.0, v=0.0, step=1, **kwargs):
    return lamb_update(w, g, lr, m, v, step, **kwargs)[0]


EVERY = pytest.mark.parametrize("update", [effective, gd, lars, adam, lamb])


def close(x, y, rtol=3e-6, atol=1e-6):
    assert jax.tree.structure(x) == jax.tree.structure(y)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), x, y
    )


# ------------------------------------------------------------------------------ figures


@pytest.mark.parametrize("t", [1, 2, 3.4, 0.5, 1000, 10**6])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.0), (0.5, 1 - 1e-6)])
@pytest.mark.parametrize("epsilon", [1e-7, 1e-3, 0.3])
def test_adam_equals_float64(t, betas, epsilon):
    settings = dict(beta1=betas[0], beta2=betas[1], epsilon=epsilon)
    m, v = np.array([0.2, -0.1, 0.0]), np.array([0.01, 2.0, 0.3])
    g32, m32, v32 = (x.astype(np.float32) for x in (G, m, v))
    want = adam_reference(*(x.astype(float) for x in (g32, m32, v32)), t, **settings)
    close(adam_step(g32, m32, v32, t, **settings), want, atol=1e-9)


def test_adam_over_many_steps_equals_float64():
    rng = np.random.default_rng(0)
    gs = rng.normal(size=(300, 3)).astype(np.float32)

    def step(carry, tg):
        t, g = tg
        w, m, v = adam_update(carry[0], g, 0.01, carry[1], carry[2], t)
        return (w, m, v), None

    zeros = jnp.zeros(3)
    carry = (jnp.asarray(W, jnp.float32), zeros, zeros)
    got = jax.jit(lambda c: jax.lax.scan(step, c, (jnp.arange(1, 301), gs))[0])(carry)
    w, m, v = W, np.zeros(3), np.zeros(3)
    for t, g in enumerate(gs.astype(float), 1):
        u, m, v = adam_reference(g, m, v, t)
        w = w - 0.01 * u
    close(got, (w, m, v), rtol=1e-5)


@pytest.mark.parametrize("decay", [0, 0.01, 0.5, 3.0])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_lars_and_lamb_equal_float64(decay, shape):
    rng = np.random.default_rng(1)
    w, g, m = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
    v = m**2
    w64, g64, m64, v64 = (np.asarray(x, float) for x in (w, g, m, v))
    got = lars_update(w, g, 0.1, decay_lambda=decay)
    close(got, lars_reference(w64, g64, 0.1, decay))
    for cap in (10, 0.2):
        kwargs = dict(max_trust_ratio=cap, decay_lambda=decay)
        got = lamb_update(w, g, 0.1, m, v, 3, **kwargs)
        close(got, lamb_reference(w64, g64, 0.1, m64, v64, 3, cap, decay))


def test_epsilon_stands_in_the_bias_correction_and_beside_the_uncorrected_root():
    u, _, _ = adam_step(
        jnp.array([0.0]), jnp.array([1.0]), jnp.array([0.0]), 1, epsilon=0.1
    )
    want = np.sqrt(0.001) / (0.1 + 0.1) * 0.9 / 0.1
    close(u, np.array([want]))


def test_negative_second_moment_is_clipped_under_the_root_only():
    u, _, v = adam_step(jnp.zeros(1), jnp.ones(1), -jnp.ones(1), 1, epsilon=0.1)
    close(v, np.array([-0.999]))
    close(u, np.array([np.sqrt(0.001) / 0.2 * 0.9 / 0.1]))


def test_lars_at_zero_weight_has_the_ratio_one():
    close(lars_update(jnp.zeros(2), jnp.array([3.0, 4.0]), 0.1), np.array([-0.3, -0.4]))


@pytest.mark.parametrize("cap, ratio", [(10, 1.0), (0.25, 0.25)])
def test_lamb_at_zero_weight_has_the_ratio_one_or_the_cap(cap, ratio):
    g = jnp.array([3.0, 4.0])
    u, _, _ = adam_reference(np.asarray(g, float), 0.0, 0.0, 1)
    w, _, _ = lamb_update(jnp.zeros(2), g, 0.1, 0.0, 0.0, 1, max_trust_ratio=cap)
    close(w, -0.1 * ratio * u)


@EVERY
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e-30, 1e20, 1e30])
def test_zero_gradient_leaves_the_weights_exactly(update, scale):
    w = jnp.asarray(W * scale, jnp.float32)
    assert (update(w, jnp.zeros(3)) == w).all()


def test_zero_gradient_with_an_infinite_cap_leaves_the_weights_exactly():
    w = jnp.array([1e30, 2.0])
    assert (lamb(w, jnp.zeros(2), max_trust_ratio=float("inf")) == w).all()


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(
    "w_scale, g_scale",
    [(1e20, 1.0), (1e20, 1e20), (1.0, 1e20), (1e30, 1e-10), (1e-30, 1.0)],
)
def test_norms_do_not_overflow(w_scale, g_scale, decay):
    w, g = (np.float32(x) for x in (W * w_scale, G * g_scale))
    want = lars_reference(np.float64(w), np.float64(g), 0.1, decay)
    close(lars_update(w, g, 0.1, decay_lambda=decay), want, atol=0)
    if g_scale <= 1:
        got = lamb_update(w, g, 0.1, 0.0, 0.0, 1, decay_lambda=decay)[0]
        want = lamb_reference(np.float64(w), np.float64(g), 0.1, 0, 0, 1, decay=decay)
        close(got, want[0], rtol=1e-5, atol=0)


def test_a_gradient_is_broadcast_before_its_norm():
    w = jnp.asarray(W, jnp.float32)
    for g in (2.0, jnp.array([2.0]), jnp.array([[2.0]])):
        close(lars_update(w, g, 0.1), lars_reference(W, 2.0, 0.1))
    m = np.ones((2, 3), np.float32)
    want = lars_reference(np.ones((2, 3)), G, 0.1)
    close(lars_update(m, np.float32(G), 0.1), want)
    want = lamb_reference(np.ones((2, 3)), G, 0.1, 0, 0, 1, decay=0.1)
    close(lamb_update(m, np.float32(G), 0.1, 0.0, 0.0, 1, decay_lambda=0.1), want)


@EVERY
def test_nan_and_inf_stay_within_their_leaf(update):
    w = {"a": jnp.ones(2), "b": jnp.ones(2)}
    for bad in (np.nan, np.inf):
        new = update(w, {"a": jnp.array([bad, 1.0]), "b": jnp.ones(2)})
        assert not np.isfinite(new["a"]).all()
        assert np.isfinite(new["b"]).all()


@EVERY
@pytest.mark.parametrize("lr", [0, -0.1, np.float64(0.1)])
def test_any_learning_rate_is_legal(update, lr):
    w, g = jnp.asarray(W, jnp.float32), jnp.asarray(G, jnp.float32)
    towards = w - update(w, g, lr=1.0)
    close(update(w, g, lr=lr), w - np.float32(lr) * towards)


def test_epsilon_zero_is_legal():
    assert np.isfinite(adam(jnp.ones(2), jnp.ones(2), epsilon=0)).all()


# ------------------------------------------------------------------------ tree prefixes


class Pair(NamedTuple):
    left: Any
    right: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    k: Any
    b: Any


def tree_of(leaf):
    """Every kind of node, `leaf(i)` at the i-th leaf."""
    i = iter(range(100))
    return {
        "enc": {"k": leaf(next(i)), "b": leaf(next(i))},
        "list": [leaf(next(i)), (leaf(next(i)), None)],
        "pair": Pair(leaf(next(i)), {"x": leaf(next(i))}),
        "layer": Layer(leaf(next(i)), leaf(next(i))),
        "none": None,
        "empty": {},
        "ordered": collections.OrderedDict(z=leaf(next(i)), a=leaf(next(i))),
    }


def random_tree(seed):
    rng = np.random.default_rng(seed)
    return tree_of(lambda i: rng.normal(size=(3,) if i % 2 else ()).astype(np.float32))


@EVERY
def test_trees_are_updated_leaf_by_leaf(update):
    w, g = random_tree(0), random_tree(1)
    want = jax.tree.map(lambda w, g: update(w, g), w, g)
    got = update(w, g)
    assert jax.tree.structure(got) == jax.tree.structure(w)
    close(got, want, rtol=0, atol=0)
    assert type(got["pair"]) is Pair and type(got["layer"]) is Layer
    assert got["none"] is None and got["empty"] == {}
    close(jax.jit(update)(w, g), got)


HYPER = {
    "lr": lambda i: 0.1 + 0.01 * i,
    "step": lambda i: 1 + i,
    "beta1": lambda i: 0.5 + 0.02 * i,
    "beta2": lambda i: 0.9 + 0.005 * i,
    "epsilon": lambda i: 0.01 * (i + 1),
    "max_trust_ratio": lambda i: 0.1 + 0.1 * i,
    "decay_lambda": lambda i: 0.1 * i,
}
TAKES = {
    gd: ["lr"],
    effective: ["lr"],
    lars: ["lr", "decay_lambda"],
    adam: ["lr", "step", "beta1", "beta2", "epsilon"],
    lamb: list(HYPER),
}


def prefixes(x, none):
    """`x(i)` at the root, at inner nodes, and at the leaves of `tree_of`."""
    inner = {
        "enc": x(1),
        "list": x(2),
        "pair": Pair(x(3), x(4)),
        "layer": x(5),
        "none": none,
        "empty": x(6),
        "ordered": x(7),
    }
    return x(0), inner, tree_of(x)


def spread(prefix, full):
    """The leaves of a prefix at each of the leaves that they serve."""
    return jax.tree.map(lambda p, sub: jax.tree.map(lambda _: p, sub), prefix, full)


@pytest.mark.each_value_once
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize(
    "setting",
    [(u, n) for u, names in TAKES.items() for n in names],
    ids=lambda setting: f"{setting[0].__name__}-{setting[1]}",
)
def test_each_setting_may_be_a_prefix(setting, depth):
    update, name = setting
    w, g = random_tree(0), random_tree(1)
    prefix = prefixes(HYPER[name], none=0.5)[depth]
    want = jax.tree.map(
        lambda w, g, x: update(w, g, **{name: x}), w, g, spread(prefix, w)
    )
    close(update(w, g, **{name: prefix}), want)
    traced = jax.eval_shape(lambda x: update(w, g, **{name: x}), prefix)
    chex.assert_trees_all_equal_shapes_and_dtypes(traced, want)
    if depth == 1:  # traced, the values come from the same places
        close(jax.jit(lambda x: update(w, g, **{name: x}))(prefix), want)


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("name", ["dcdw", "mw", "vw"])
@pytest.mark.parametrize("function", [adam_update, lamb_update])
def test_each_array_may_be_a_prefix(function, name, depth):
    w = random_tree(0)
    args = dict(dcdw=random_tree(1), mw=random_tree(2), vw=random_tree(3))
    prefix = prefixes(lambda i: 0.25 * (i + 1), none=None)[depth]

    def new(x):
        a = {**args, name: x}
        return function(w, a["dcdw"], 0.1, a["mw"], a["vw"], 2)

    close(new(prefix), new(spread(prefix, w)))


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("function", [lars_update, gradient_descent_update])
def test_the_gradient_may_be_a_prefix(function, depth):
    w = random_tree(0)
    g = prefixes(lambda i: 0.25 * (i + 1), none=None)[depth]
    close(function(w, g, 0.1), function(w, spread(g, w), 0.1))


def test_results_have_the_structure_of_what_they_are_computed_from():
    w = {"a": jnp.ones(3), "b": jnp.ones(3)}
    x, tree, number = jnp.ones(3), dict.fromkeys("ab", 0.5), 0.5

    def structures(*args, **kwargs):
        return tuple(isinstance(r, dict) for r in adam_step(*args, **kwargs))

    assert structures(x, x, x, 1) == (False, False, False)
    assert structures(w, x, x, 1) == (True, True, True)
    assert structures(x, w, x, 1) == (True, True, False)
    assert structures(x, x, w, 1) == (True, False, True)
    assert structures(x, x, x, tree) == (True, False, False)
    assert structures(x, x, x, 1, beta1=tree) == (True, True, False)
    assert structures(x, x, x, 1, beta2=tree) == (True, False, True)
    assert structures(x, x, x, 1, epsilon=tree) == (True, False, False)
    for function in (adam_update, lamb_update):
        new, m, v = function(w, x, number, x, x, tree)
        assert isinstance(new, dict) and m.shape == v.shape == (3,)
        # An empty tree of weights has nothing to update; the moments still move.
        new, m, v = function({}, x, number, x, x, 1)
        assert new == {} and m.shape == v.shape == (3,)


def test_two_prefixes_join_where_neither_has_the_structure_of_the_other():
    x = jnp.ones(3)
    g, m = {"a": x, "b": {"c": x}}, {"a": {"d": 2 * x}, "b": 3 * x}
    u, m_new, v_new = adam_step(g, m, 0.0, 1)
    assert jax.tree.structure(m_new) == jax.tree.structure(
        {"a": {"d": 0}, "b": {"c": 0}}
    )
    assert jax.tree.structure(u) == jax.tree.structure(m_new)
    assert jax.tree.structure(v_new) == jax.tree.structure(g)
    close(m_new["a"]["d"], 1.9 * x)
    close(m_new["b"]["c"], 2.8 * x)


@EVERY
def test_empty_trees_and_none_stay(update):
    assert update({}, {}) == {}
    assert update([], []) == []
    assert update({"a": None}, {"a": None}) == {"a": None}
    moments = dict(m=None, v=None) if update in (adam, lamb) else {}
    assert update(None, None, **moments) is None


# ------------------------------------------------------------------------------- shapes


@EVERY
@pytest.mark.parametrize("one", [[], [1], [1, 1]])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
def test_one_element_counts_as_a_scalar(update, shape, one):
    w = jnp.arange(1.0, 7.0)[: int(np.prod(shape))].reshape(shape)
    g = 0.5 * w
    got = update(w, g, lr=jnp.full(one, 0.1))
    assert got.shape == shape
    close(got, update(w, g))
    close(update(w, jnp.full(one, 2.0)), update(w, jnp.full_like(w, 2.0)))
    if update in (adam, lamb):
        got = update(
            w, g, m=jnp.full(one, 2.0), v=jnp.full(one, 3.0), step=jnp.full(one, 2)
        )
        close(got, update(w, g, m=2.0, v=3.0, step=2))


def test_the_learning_rate_broadcasts_along_the_last_axis():
    w = jnp.ones((2, 2))
    close(gd(w, w, lr=jnp.array([0.1, 0.2])), np.array([[0.9, 0.8]] * 2))
    close(gd(w, w, lr=jnp.array([[0.1], [0.2]])), np.array([[0.9] * 2, [0.8] * 2]))
    close(lars(w, w, lr=jnp.array([0.1, 0.2])), np.array([[0.9, 0.8]] * 2))


@pytest.mark.parametrize(
    "moment, gradient, new",
    [
        ((1,), (3,), (3,)),
        ((), (3,), (3,)),
        ((1, 1), (3,), (3,)),
        ((3,), (), (3,)),
        ((3,), (1, 1), (3,)),
        ((1,), (), ()),
        ((), (1,), (1,)),
        ((3,), (2, 1), (2, 3)),
        ((0,), (1,), (0,)),
    ],
)
def test_moments_take_the_joint_shape(moment, gradient, new):
    _, m, v = adam_step(jnp.ones(gradient), jnp.ones(moment), jnp.ones(()), 1)
    assert m.shape == new
    u, m, v = adam_step(jnp.ones(gradient), jnp.ones(()), jnp.ones(moment), 1)
    assert v.shape == new
    assert u.shape == v.shape


def test_moments_of_full_shape_keep_it_for_any_gradient():
    for shape, gradient in [((), (1,)), ((1,), ()), ((3,), (1,)), ((2, 3), (3,))]:
        zeros = jnp.zeros(shape)
        results = adam_update(zeros, jnp.ones(gradient), 0.1, zeros, zeros, 1)
        assert [x.shape for x in results] == [shape] * 3


# ------------------------------------------------------------------------------- dtypes

FLOATS = [jnp.float32, jnp.bfloat16, jnp.float16]


@EVERY
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("other", FLOATS)
def test_weights_and_moments_keep_their_dtypes(update, dtype, other):
    w, g = jnp.ones(3, dtype), jnp.ones(3, other)
    assert update(w, g, lr=jnp.full(3, 0.1, other)).dtype == dtype
    assert update(w, g, lr=np.float64(0.1)).dtype == dtype
    assert update(w, g, lr=np.full(3, 0.1)).dtype == dtype
    if update in (adam, lamb):
        function = adam_update if update is adam else lamb_update
        w, m, v = function(w, g, 0.1, jnp.zeros(3, dtype), jnp.zeros(3, other), 1)
        assert (w.dtype, m.dtype, v.dtype) == (dtype, dtype, other)


@pytest.mark.parametrize("m", FLOATS)
@pytest.mark.parametrize("v", FLOATS)
def test_the_step_has_the_promoted_dtype_of_the_moments(m, v):
    u, *_ = adam_step(jnp.ones(3), jnp.zeros(3, m), jnp.zeros(3, v), 1)
    assert u.dtype == (m if m == v else jnp.float32)


@pytest.mark.parametrize("dtype", FLOATS)
def test_python_numbers_do_not_widen(dtype):
    for zero in (0, 0.0):
        results = adam_step(
            jnp.ones(3, dtype), zero, zero, 1.0, beta1=0.5, epsilon=1e-3
        )
        assert {x.dtype for x in results} == {jnp.dtype(dtype)}
    assert gd(jnp.ones(3, dtype), 1.0, lr=1).dtype == dtype


@EVERY
def test_integers_become_the_default_float(update):
    for w, g in [(np.arange(1, 4), jnp.ones(3, jnp.int8)), (2, 3)]:
        got = update(w, g)
        assert isinstance(got, jax.Array) and got.dtype == jnp.float32
        close(got, update(np.asarray(w, np.float32), np.asarray(g, np.float32)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("decay", [0, 0.1])
def test_sixteen_bits_are_computed_in_32_and_rounded_once(dtype, decay):
    w = jnp.array([300.0, -2.0, 0.5], dtype)
    g = jnp.array([300.0, 1e-3, -4.0], dtype)
    m, v = jnp.array([0.5, 0.25, 1.0], dtype), jnp.array([50.0, 1e-3, 2.0], dtype)
    w64, g64, m64, v64 = (
        np.asarray(x.astype(jnp.float32), float) for x in (w, g, m, v)
    )
    adam_kwargs = dict(beta2=0.999, epsilon=1e-12)

    def rounded(x):
        return jnp.asarray(x, jnp.float32).astype(dtype)

    def same(got, want):
        for x, y in zip(got, want):
            assert x.dtype == dtype
            np.testing.assert_array_equal(
                np.asarray(x, float), np.asarray(rounded(y), float)
            )

    same([gd(w, g)], [w64 - 0.1 * g64])
    same([lars(w, g, decay_lambda=decay)], [lars_reference(w64, g64, 0.1, decay)])
    u, m_new, v_new = adam_reference(g64, m64, v64, 3, **adam_kwargs)
    same(adam_step(g, m, v, 3, **adam_kwargs), (u, m_new, v_new))
    got = adam_update(w, g, 0.1, m, v, 3, **adam_kwargs)
    same(got, (w64 - 0.1 * u, m_new, v_new))
    got = lamb_update(w, g, 0.1, m, v, 3, **adam_kwargs, decay_lambda=decay)
    same(got, lamb_reference(w64, g64, 0.1, m64, v64, 3, decay=decay, **adam_kwargs))
    # A zero second moment, over an epsilon that 16 bits do not have.
    zero = jnp.zeros(3, dtype)
    same(adam_step(g, zero, zero, 1, **adam_kwargs)[1:], (0.1 * g64, 1e-3 * g64**2))
    assert np.isfinite(adam(w, zero, epsilon=1e-12)).all()


@EVERY
def test_double_precision(update):
    with jax.enable_x64(True):
        w, g = jnp.asarray(W), jnp.asarray(G)
        got = update(w, g)
        assert got.dtype == jnp.float64
        references = {
            gd: lambda: W - 0.1 * G,
            effective: lambda: W - 0.1 * G,
            lars: lambda: lars_reference(W, G, 0.1),
            adam: lambda: W - 0.1 * adam_reference(G, 0, 0, 1)[0],
            lamb: lambda: lamb_reference(W, G, 0.1, 0, 0, 1)[0],
        }
        want = references[update]()
        close(got, want, rtol=1e-12, atol=0)
        # Also with gradients and moments of less precision.
        g32 = jnp.asarray(G, jnp.float32)
        zero = jnp.zeros(3, jnp.float32)
        moments = dict(m=zero, v=zero) if update in (adam, lamb) else {}
        close(
            update(w, g32.astype(float)), update(w, g32, **moments), rtol=1e-12, atol=0
        )
        # What is wider does not widen.
        w32 = w.astype(jnp.float32)
        for lr in (0.1, np.float64(0.1), jnp.asarray(0.1), np.full(3, 0.1)):
            assert update(w32, g, lr=lr).dtype == jnp.float32
        assert update(np.arange(3), np.arange(3)).dtype == jnp.float64


# ---------------------------------------------------------------------- transformations


@EVERY
def test_every_setting_may_be_traced(update):
    w, g = random_tree(0), random_tree(1)
    kwargs = {name: HYPER[name](1) for name in TAKES[update]}
    want = update(w, g, **kwargs)
    close(jax.jit(lambda w, g, k: update(w, g, **k))(w, g, kwargs), want)
    arrays = {name: jnp.float32(x) for name, x in kwargs.items()}
    close(update(w, g, **arrays), want)


@EVERY
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32, jnp.float64])
def test_settings_of_any_dtype(update, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        w, g = jnp.asarray(W, jnp.float32), jnp.asarray(G, jnp.float32)
        kwargs = {name: jnp.ones((1,), dtype) for name in TAKES[update]}
        got = update(w, g, **kwargs)
        assert got.dtype == jnp.float32
        close(got, update(w, g, **dict.fromkeys(kwargs, 1)))


def test_the_bias_correction_does_not_cancel():
    for t in (1, jnp.float32(1), np.array([1])):
        u, *_ = jax.jit(adam_step)(jnp.float32(1), 0.0, 0.0, t)
        want = adam_reference(1.0, 0.0, 0.0, 1)[0]
        close(u, np.array(want), rtol=1e-6, atol=0)


@EVERY
def test_vmap(update):
    rng = np.random.default_rng(0)
    w, g = rng.normal(size=(2, 4, 3)).astype(np.float32)
    lr = jnp.arange(1.0, 5.0) / 10
    kwargs = [{"step": jnp.arange(1, 5)}] if update in (adam, lamb) else [{}]
    got = jax.vmap(lambda w, g, lr, k: update(w, g, lr=lr, **k))(w, g, lr, *kwargs)
    for i in range(4):
        k = {name: x[i] for name, x in kwargs[0].items()}
        close(got[i], update(w[i], g[i], lr=lr[i], **k))


@pytest.mark.parametrize("function", [adam_update, lamb_update])
@pytest.mark.parametrize("dtype", FLOATS)
def test_results_are_scan_carries(function, dtype):
    w = {"a": jnp.ones(3, dtype), "b": jnp.array(2.0, dtype)}
    m = jax.tree.map(jnp.zeros_like, w)
    v = jax.tree.map(lambda x: jnp.zeros(x.shape), w)

    def step(carry, t):
        w, m, v = carry
        return function(w, w, 0.1, m, v, t), None

    carry, _ = jax.lax.scan(step, (w, m, v), jnp.arange(1, 4))
    for t in range(1, 4):
        w, m, v = function(w, w, 0.1, m, v, t)
    close(carry, (w, m, v), rtol=1e-2 if dtype != jnp.float32 else 3e-6)


@EVERY
def test_inputs_are_neither_written_nor_donated(update):
    w, g = np.float32(W), np.float32(G)
    old = w.copy(), g.copy()
    w_, g_ = jnp.array(w), jnp.array(g)
    update(w, g)
    update(w_, g_, inplace=True)
    update(w_, g_, inplace=False)
    for x, y in zip((w, g, w_, g_), old * 2):
        np.testing.assert_array_equal(x, y)


# -------------------------------------------------------------------------- derivatives


@EVERY
def test_stopped_weights_are_constants(update):
    w = jnp.asarray(W, jnp.float32)
    grads = jax.grad(lambda w: jnp.sum(update(w, 2 * w) ** 2))(w)
    assert (grads == 0).all()
    assert (jax.jacfwd(lambda lr: update(w, 2 * w, lr=lr))(0.1) == 0).all()


@pytest.mark.parametrize("update", [gd, effective])
def test_derivatives_of_gradient_descent(update):
    w, lr = jnp.asarray(W, jnp.float32), 0.1

    def cost(w, lr):
        return jnp.sum(update(w, 2 * w, lr=lr, stop_gradients=False) ** 2)

    by_w, by_lr = jax.grad(cost, argnums=(0, 1))(w, lr)
    close(by_w, 2 * W * (1 - 2 * lr) ** 2)
    close(by_lr, np.sum(2 * (W - lr * 2 * W) * (-2 * W)))


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("function", [adam_update, lamb_update])
def test_moments_stay_attached(function, flag):
    def mean(w):
        return function(w, w**2, 0.1, 0.0, 0.0, 1, stop_gradients=flag)[1]

    w = jnp.asarray(W, jnp.float32)
    close(jax.grad(lambda w: jnp.sum(mean(w)))(w), 0.2 * W)


def test_the_step_stays_attached():
    w = jnp.asarray(W, jnp.float32)
    step = jax.grad(lambda w: jnp.sum(adam_step(w**2, 0.0, 0.0, 1)[0]))
    assert (step(w) != 0).any()


@EVERY
def test_flags_are_a_prefix(update):
    w = {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array([3.0]), "d": None}}

    def cost(w, flags):
        new = update(w, w, stop_gradients=flags)
        return sum(map(jnp.sum, jax.tree.leaves(new)))

    open_ = jax.grad(cost)(w, False)
    for flags in ({"a": True, "b": False}, {"a": True, "b": {"c": False, "d": None}}):
        got = jax.grad(cost)(w, flags)
        assert (got["a"] == 0).all()
        close(got["b"], open_["b"])
    if update in (gd, effective):
        close(open_["b"]["c"], np.array([0.9]))


@EVERY
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_derivatives_equal_finite_differences(update, decay):
    decay = {"decay_lambda": decay} if "decay_lambda" in TAKES[update] else {}
    with jax.enable_x64(True):
        x = {"w": jnp.asarray(W), "g": jnp.asarray(G)}
        x |= {name: jnp.asarray(HYPER[name](1)) for name in TAKES[update]} | decay
        x = jax.tree.map(lambda y: jnp.asarray(y, float), x)

        def cost(x):
            new = update(**x, stop_gradients=False)
            return jnp.sum(new * jnp.arange(1.0, 4.0))

        grads = jax.grad(cost)(x)
        for name in x:
            direction = jnp.cos(jnp.arange(1.0, 1 + x[name].size)).reshape(
                x[name].shape
            )
            h = 1e-6 * direction
            up, down = ({**x, name: x[name] + s * h} for s in (1, -1))
            if name == "decay_lambda" and x[name] == 0:
                up, down = {**x, name: 2 * h}, {**x, name: 0 * h}  # not below zero
            slope = (cost(up) - cost(down)) / 2e-6
            got = jnp.sum(grads[name] * direction)
            np.testing.assert_allclose(got, slope, rtol=1e-4, atol=1e-6, err_msg=name)


@EVERY
@pytest.mark.parametrize(
    "decay, argument",
    [
        (0.1, 0),
        (0.0, 1),
        pytest.param(0.0, 0, marks=pytest.mark.slow),
        pytest.param(0.1, 1, marks=pytest.mark.slow),
    ],
)
def test_derivatives_at_zero_are_finite_to_third_order(update, decay, argument):
    kwargs = {"decay_lambda": decay} if "decay_lambda" in TAKES[update] else {}
    w, g = jnp.asarray(W, jnp.float32), jnp.asarray(G, jnp.float32)

    def derivative(w, g):
        return update(w, g, stop_gradients=False, **kwargs)

    for mode in (jax.jacrev, jax.jacfwd, jax.jacrev):
        derivative = mode(derivative, argument)
        compiled = jax.jit(derivative)
        for w_at, g_at in itertools.product([0.0, 1.0], repeat=2):
            assert np.isfinite(compiled(w_at * w, g_at * g)).all(), (w_at, g_at)


def test_the_derivative_of_adam_at_zero():
    epsilon = 1e-7
    got = jax.grad(lambda g: adam_step(g, 0.0, 0.0, 1, epsilon=epsilon)[0])(0.0)
    alpha = np.sqrt(0.001) / (0.1 + epsilon)
    close(got, np.array(alpha * 0.1 / epsilon))
    by_v = jax.grad(lambda v: adam_step(0.0, 0.0, v, 1)[0])(0.0)
    assert np.isfinite(by_v)


def test_the_derivative_of_lars_at_a_zero_gradient():
    with jax.enable_x64(True):
        w = jnp.asarray(W)
        got = jax.jacobian(lambda g: lars_update(w, g, 0.1, stop_gradients=False))(
            0 * w
        )
        close(got, -0.1 * np.linalg.norm(W) * 1e12 * np.eye(3), rtol=1e-6)


# ---------------------------------------------------------------------------------- out


@EVERY
def test_out_gives_shape_and_dtype(update):
    w, g = jnp.asarray(W, jnp.float32), jnp.asarray(G, jnp.float32)
    want = update(w, g)
    for out in (jnp.zeros(3), jnp.zeros((2, 3), jnp.bfloat16), w):
        got = update(w, g, out=out)
        assert (got.shape, got.dtype) == (out.shape, out.dtype)
        close(got, jnp.broadcast_to(want, out.shape).astype(out.dtype))
        assert (update({"a": w}, g, out={"a": out})["a"] == got).all()
        assert (jax.jit(lambda out: update(w, g, out=out))(out).shape) == out.shape
    half = w.astype(jnp.bfloat16)  # rounded once, to the dtype of out
    got = update(half, g, out=jnp.zeros(3))
    assert (got != got.astype(jnp.bfloat16).astype(jnp.float32)).any()


def test_out_means_the_first_of_three():
    g = {"a": jnp.ones(2)}
    out = {"a": jnp.zeros((4, 2), jnp.float16)}
    u, m, v = adam_step(g, 0.0, 0.0, 1, out=out)
    assert (u["a"].shape, u["a"].dtype) == ((4, 2), jnp.float16)
    assert m["a"].shape == v["a"].shape == (2,)
    for function in (adam_update, lamb_update):
        w, m, v = function(g, g, 0.1, 0.0, 0.0, 1, out=out)
        assert w["a"].shape == (4, 2) and m["a"].shape == (2,)


def test_out_may_be_stopped_and_differentiated():
    def cost(w, flag):
        return jnp.sum(gd(w, w, stop_gradients=flag, out=jnp.zeros((2, 3))))

    w = jnp.ones(3)
    assert (jax.grad(cost)(w, True) == 0).all()
    close(jax.grad(cost)(w, False), np.full(3, 1.8))


# --------------------------------------------------------------------------- signatures


@pytest.mark.parametrize(
    "function, positional, keywords",
    [
        (adam_step, "dcdw mw vw step", "beta1 beta2 epsilon out"),
        (optimizer_update, "w effective_grad lr", "stop_gradients out inplace"),
        (gradient_descent_update, "w dcdw lr", "stop_gradients out inplace f"),
        (lars_update, "w dcdw lr", "decay_lambda stop_gradients out inplace"),
        (
            adam_update,
            "w dcdw lr mw_tm1 vw_tm1 step",
            "beta1 beta2 epsilon stop_gradients out inplace f",
        ),
        (
            lamb_update,
            "w dcdw lr mw_tm1 vw_tm1 step",
            "beta1 beta2 epsilon max_trust_ratio decay_lambda stop_gradients out "
            "inplace",
        ),
    ],
)
def test_signatures(function, positional, keywords):
    parameters = inspect.signature(function).parameters.values()
    kinds = {kind: [p.name for p in parameters if p.kind == kind] for kind in (0, 3)}
    assert kinds == {0: positional.split(), 3: keywords.split()}
    defaults = {p.name: p.default for p in parameters if p.kind == 3}
    documented = dict(
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-7,
        stop_gradients=True,
        out=None,
        decay_lambda=0,
        max_trust_ratio=10,
    )
    for name, default in defaults.items():
        assert default == documented.get(name)


def count_of(primitive, jaxpr):
    """How often it stands there, in calls too."""
    here = sum(e.primitive.name == primitive for e in jaxpr.eqns)
    return here + sum(count_of(primitive, inner) for inner in subjaxprs(jaxpr))


def test_settings_shared_by_all_leaves_are_computed_once():
    """Two powers for the two bias corrections, however many leaves there are."""
    tree = [jnp.ones(2)] * 5
    jaxpr = jax.make_jaxpr(functools.partial(adam_step, beta2=0.99))(tree, 0.0, 0.0, 1)
    assert count_of("expm1", jaxpr.jaxpr) == 2


def test_bare_moments_are_computed_once():
    w, x = [jnp.ones(3)] * 5, jnp.ones(3)
    jaxpr = jax.make_jaxpr(adam_update)(w, x, 0.1, x, x, 1)
    assert str(jaxpr).count(" sqrt ") == 2  # of the second moment, of the correction
