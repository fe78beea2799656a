"""What an optimizer is made of is said by its nodes: readers go through wrappers of
others' as through jopt's, where these say what is inside."""

import functools
import re
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.plan import node_of, walk

PARAMS = {"b": jnp.ones(3), "w": jnp.full((3, 2), 2.0)}
GRADS = jax.tree.map(lambda p: 0.5 * p, PARAMS)


class EveryOther(NamedTuple):
    """A state whose class and fields are not called states."""

    calls: jax.Array
    kept: jopt.OptState


def functions(inner):
    def init(params):
        return EveryOther(jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates, state, params=None, **extra_args):
        new, kept = inner.update(updates, state.kept, params, **extra_args)
        now = state.calls % 2 == 0
        new = jax.tree.map(lambda u: jnp.where(now, u, 0), new)
        kept = jax.tree.map(lambda x, y: jnp.where(now, x, y), kept, state.kept)
        return new, EveryOther(state.calls + 1, kept)

    return init, update


def says(inner):
    """A wrapper that says what is inside."""
    return jopt.wrap(functions, kept=inner)


def plain(inner):
    """One in optax's plain style."""
    return jopt.GradientTransformationExtraArgs(*functions(inner))


@jopt.transformation
def factory(inner: jopt.GradientTransformation) -> jopt.GradientTransformation:
    """One that says what is inside, and is known by its call."""
    return says(inner)


SAYING = pytest.mark.parametrize("wrapper", [says, factory])
ALL = pytest.mark.parametrize("wrapper", [says, factory, plain])


class Mean(NamedTuple):
    mu: jopt.Updates


def mean_of_gradients():
    def init(p):
        return Mean(jnp.zeros_like(p))

    def update(g, s, p):
        mu = 0.9 * s.mu + 0.1 * g
        return mu, dict(mu=mu)

    return jopt.per_leaf(Mean, init, update)


def steps(tx, n=4):
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(n):
        updates, state = tx.update(GRADS, state, params)
        params = jopt.apply_updates(params, updates)
    return params, state


# ----------------------------------------------------------------------- they run alike


@ALL
def test_it_steps_at_every_other_call(wrapper):
    tx = wrapper(jopt.sgd(0.1))
    params, state = steps(tx)
    want = jax.tree.map(lambda p, g: p - 2 * 0.1 * g, PARAMS, GRADS)
    chex.assert_trees_all_close(params, want, rtol=1e-6)
    jitted, _ = jax.jit(tx.update)(GRADS, state, params)
    chex.assert_trees_all_close(jitted, tx.update(GRADS, state, params)[0])


# ------------------------------------------------------------------------- the readers


@SAYING
def test_hyperparameters_of_what_is_inside(wrapper):
    tx = jopt.chain(jopt.clip(1.0), wrapper(jopt.sgd(0.5, momentum=0.9)))
    found = jopt.hyperparams(tx.init(PARAMS), tx)
    assert found == {"max_delta": 1.0, "learning_rate": 0.5, "momentum": 0.9}


@SAYING
def test_a_schedule_inside_is_at_the_step_that_was_taken(wrapper):
    tx = wrapper(jopt.sgd(jopt.linear_schedule(1.0, 0.0, 10)))
    _, state = steps(tx, 5)  # three steps: the last at 2
    assert float(jopt.hyperparams(state, tx)["learning_rate"]) == pytest.approx(0.8)


def test_what_says_nothing_has_no_hyperparameters_to_read():
    tx = plain(jopt.sgd(0.5))
    assert jopt.hyperparams(tx.init(PARAMS), tx) == {}


@ALL
def test_hyperparameters_in_the_state_are_read_and_set(wrapper):
    tx = wrapper(jopt.inject_hyperparams(jopt.sgd)(0.5))
    state = jopt.set_hyperparams(tx.init(PARAMS), learning_rate=0.25)
    assert float(jopt.hyperparams(state, tx)["learning_rate"]) == 0.25
    updates, _ = tx.update(GRADS, state, PARAMS)
    chex.assert_trees_all_close(updates, jax.tree.map(lambda g: -0.25 * g, GRADS))


@SAYING
def test_describe_sees_the_optimizer_inside(wrapper):
    rows = jopt.describe(wrapper(jopt.adamw(0.5, weight_decay=0.25)), PARAMS).rows
    assert {(r.optimizer, r.learning_rate, r.weight_decay) for r in rows} == {
        ("adamw", 0.5, 0.25)
    }


def test_describe_says_where_what_says_nothing_comes_from():
    rows = jopt.describe(plain(jopt.adamw(0.5)), PARAMS).rows
    assert {row.optimizer for row in rows} == {"tests: functions"}
    assert {row.learning_rate for row in rows} == {""}


@ALL
def test_metrics_are_found_in_a_field_of_any_name(wrapper):
    _, state = steps(wrapper(jopt.with_metrics(jopt.sgd(0.1))), 1)
    size = float(jopt.metrics(state)["gradient_norm"])
    assert size == pytest.approx(float(jopt.tree.norm(GRADS)), rel=1e-6)


def test_a_class_of_your_own_says_what_it_measures():
    class Counted(NamedTuple):
        calls: jax.Array
        largest: jax.Array

        measured = ("largest",)

    state = (Counted(jnp.int32(3), jnp.float32(2.5)), jopt.EmptyState())
    assert {k: float(x) for k, x in jopt.metrics(state).items()} == {"largest": 2.5}


@SAYING
def test_a_checkpoint_names_what_is_inside(wrapper):
    tx = wrapper(mean_of_gradients())
    _, state = steps(tx, 1)
    saved = jopt.state_dict(tx, state)
    names = {"version", "every_other/calls", "mean/mu/b", "mean/mu/w"}
    assert set(saved) == names
    found, report = jopt.load_state_dict(mean_of_gradients(), PARAMS, saved, True)
    chex.assert_trees_all_equal(found.mu, state.kept.mu)
    assert report.unused == ("every_other/calls",)


@ALL
def test_a_checkpoint_comes_back(wrapper):
    tx = wrapper(jopt.chain(jopt.clip(1.0), mean_of_gradients()))
    _, state = steps(tx, 3)
    found, report = jopt.load_state_dict(tx, PARAMS, jopt.state_dict(tx, state))
    chex.assert_trees_all_equal(found, state)
    assert not any(report)


@ALL
def test_averages_are_found_in_a_field_of_any_name(wrapper):
    params, state = steps(wrapper(jopt.chain(jopt.sgd(0.1), jopt.params_ema(0.5))), 1)
    found = jopt.eval_params(state, params)
    chex.assert_trees_all_close(found, params, rtol=1e-6)
    state = jax.tree.map(lambda x: x + 1 if x.dtype == jnp.float32 else x, state)
    moved = jopt.eval_params(state, params)
    assert all(np.all(a != b) for a, b in zip(*map(jax.tree.leaves, (found, moved))))


@SAYING
def test_misspelt_arguments_are_refused_through_it(wrapper):
    tx = wrapper(jopt.polyak_sgd(1.0))
    state = tx.init(PARAMS)
    tx.update(GRADS, state, PARAMS, value=1.0, strict=True)
    with pytest.raises(TypeError, match=r"\['valeu'\].*did you mean 'value'"):
        tx.update(GRADS, state, PARAMS, valeu=1.0, strict=True)


def test_arguments_of_what_says_nothing_are_not_known():
    tx = jopt.chain(plain(jopt.sgd(0.1)), jopt.sgd(0.1))
    tx.update(GRADS, tx.init(PARAMS), PARAMS, whatever=1.0, strict=True)


@ALL
def test_trees_like_the_parameters_are_found_in_it(wrapper):
    tx = wrapper(jopt.adam(0.1))
    marked = jopt.tree.map_params(tx, lambda x: "slot", tx.init(PARAMS))
    assert jax.tree.leaves(marked).count("slot") == 4


@SAYING
def test_a_rate_is_multiplied_inside_of_it(wrapper):
    tx = jopt.groups({"b": dict(lr_mult=0.5)}, wrapper(jopt.sgd(0.1)))
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    want = dict(b=-0.05 * GRADS["b"], w=-0.1 * GRADS["w"])
    chex.assert_trees_all_close(updates, want, rtol=1e-6)


@SAYING
def test_states_of_others_are_refused_and_the_field_is_named(wrapper):
    tx = wrapper(jopt.adam(0.1))
    state = tx.init(PARAMS)
    name = wrapper.__name__ if wrapper is factory else "functions"
    with pytest.raises(ValueError, match=f"{name}: state: expected a EveryOther"):
        tx.update(GRADS, (state.calls, state.kept), PARAMS)
    with pytest.raises(ValueError, match=re.escape(f"{name}: state.calls is i32[2]")):
        tx.update(GRADS, state._replace(calls=jnp.zeros(2, jnp.int32)), PARAMS)
    other = jopt.adam(0.1).init({"b": jnp.ones(4), "w": jnp.ones((3, 2))})
    with pytest.raises(ValueError, match=r"adam.*'mu' at \['b'\] is f32\[4\]"):
        tx.update(GRADS, state._replace(kept=other), PARAMS)


@SAYING
def test_a_clip_inside_is_measured(wrapper):
    inner = jopt.chain(jopt.clip_by_global_norm(0.5), jopt.sgd(0.1))
    _, state = steps(jopt.with_metrics(inner), 1)
    shrunk = 0.5 / float(jopt.tree.norm(GRADS))
    assert float(jopt.metrics(state)["clip_factor"]) == pytest.approx(shrunk, rel=1e-6)
    _, state = steps(jopt.with_metrics(wrapper(inner)), 1)
    assert "clip_factor" not in jopt.metrics(state)  # it is not known when it acts


# ---------------------------------------------------------------------- as a value


def test_a_wrapper_that_a_factory_made_prints_compares_and_hashes():
    a, b, c = (factory(jopt.sgd(rate)) for rate in (0.1, 0.1, 0.2))
    assert repr(a) == "factory(sgd(0.1))"
    assert a == b != c and hash(a) == hash(b)


def test_what_is_inside_must_be_a_transformation():
    with pytest.raises(TypeError, match="wrap: kept must be a gradient transformation"):
        jopt.wrap(functions, kept=lambda p: p)


def test_a_walk_comes_to_every_node():
    tx = jopt.multi_steps(
        jopt.masked(says(jopt.adamw(0.1)), {"b": True, "w": False}), 2
    )
    names = [
        getattr(node, "name", "") or type(node).__name__ for node in walk(node_of(tx))
    ]
    for name in ("scale_by_adam", "scale_by_learning_rate", "functions", "Masked"):
        assert name in names
    assert jopt.plan.is_leaf_by_leaf(node_of(jopt.adamw(0.1)))
    assert not jopt.plan.is_leaf_by_leaf(node_of(tx))


# ------------------------------------------------------------------- a stranger's rule


class SignState(NamedTuple):
    mu: jopt.Updates


def sign(decay, g, s, p):
    mu = decay * s.mu + (1 - decay) * g
    return jnp.sign(mu), s._replace(mu=mu)


class Sign:
    """The same as an object, and as a method of it."""

    def __init__(self, decay):
        self.decay = decay

    def __call__(self, g, s, p):
        return sign(self.decay, g, s, p)

    def init(self, p):
        return SignState(jnp.zeros_like(p))


@pytest.mark.parametrize("form", ["partial", "object", "method"])
def test_a_rule_may_be_any_callable(form):
    rule = Sign(0.9)
    update = dict(
        partial=functools.partial(sign, 0.9), object=rule, method=rule.__call__
    )
    tx = jopt.per_leaf(SignState, rule.init, update[form])
    updates, state = jax.jit(tx.update)(GRADS, tx.init(PARAMS))
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.ones_like, PARAMS))
    chex.assert_trees_all_close(state.mu, jax.tree.map(lambda g: 0.1 * g, GRADS))
    name = "sign" if form == "partial" else "Sign"
    assert node_of(tx).name == name


def zeros(p):
    return dict(mu=jnp.zeros_like(p))


@pytest.mark.parametrize(
    ("init", "update", "error", "words"),
    [
        (lambda p: dict(nu=p), sign, ValueError, r"init made \['nu'\].*\['mu'\]"),
        (lambda p: p, sign, TypeError, "init must make a SignState or a dict"),
        (zeros, lambda g, s, p: (g, dict(nu=g)), ValueError, r"the rule made \['nu'\]"),
        (zeros, lambda g, s, p: (g, {}), ValueError, r"the rule made \[\]"),
        (zeros, lambda g, s, p: g, TypeError, r"the pair \(update, state\), got f32"),
        (zeros, lambda g, s, p: (g, None), TypeError, "the rule must make a SignState"),
        (zeros, lambda g, s, p: (g[0], s), ValueError, r"turned f32\[3\] into f32\[\]"),
    ],
)
def test_what_a_rule_makes_is_named(init, update, error, words):
    with pytest.raises(error, match=words):
        tx = jopt.per_leaf(SignState, init, update)
        tx.update(GRADS, tx.init(PARAMS))


def test_a_whole_field_must_be_one_of_the_state():
    with pytest.raises(ValueError, match=r"whole names \['scale'\]"):
        jopt.per_leaf(SignState, zeros, sign, whole=dict(scale=1.0))


class DistanceState(NamedTuple):
    count: jax.Array
    start: jopt.Updates
    distance: jax.Array
    total: jax.Array


def test_a_rule_of_the_whole_tree_is_as_its_paper():
    """DoG by `once`: numbers over all leaves, kept from step to step."""

    def once(at):
        come = jopt.tree.norm(jopt.tree.sub(at.ps, at.s.start))
        distance = jnp.maximum(at.s.distance, come)
        total = at.s.total + jopt.tree.norm(at.gs, squared=True)
        step = distance / jnp.sqrt(total)
        return step, dict(distance=distance, total=total)

    def dog(g, s, p, step):
        return -step * g, s

    tx = jopt.per_leaf(
        DistanceState,
        lambda p: dict(start=p),
        dog,
        once=once,
        whole=dict(distance=1e-3, total=0.0),
        needs_params=True,
    )
    params, state = steps(tx, 5)
    x = {k: np.asarray(v, np.float64) for k, v in PARAMS.items()}
    start, distance, total = dict(x), 1e-3, 0.0
    for _ in range(5):
        come = np.sqrt(sum(np.sum((x[k] - start[k]) ** 2) for k in x))
        distance = max(distance, come)
        total += sum(np.sum(np.asarray(g, np.float64) ** 2) for g in GRADS.values())
        x = {k: x[k] - distance / np.sqrt(total) * np.asarray(GRADS[k]) for k in x}
    chex.assert_trees_all_close(params, x, rtol=1e-5)
    assert int(state.count) == 5
    masked = jopt.masked(tx, {"b": True, "w": False})
    alone, _ = jax.jit(masked.update)(GRADS, masked.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(alone["w"], GRADS["w"])
    step = 1e-3 / np.linalg.norm(GRADS["b"])
    chex.assert_trees_all_close(alone["b"], -step * GRADS["b"], rtol=1e-5)


def test_fields_of_the_whole_tree_may_start_as_they_are_made():
    class Keyed(NamedTuple):
        number: jax.Array
        scale: jax.Array

    def rule(g, s, p):
        return g * s.scale.astype(g.dtype), s

    shared = dict(number=lambda: jnp.int32(7), scale=lambda: jnp.float16(2.0))
    tx = jopt.per_leaf(Keyed, lambda p: {}, rule, shared=shared)
    updates, state = tx.update(GRADS, tx.init(PARAMS))
    assert (state.number.dtype, state.scale.dtype) == (jnp.int32, jnp.float16)
    assert int(state.number) == 7
    chex.assert_trees_all_equal(updates, jax.tree.map(lambda g: 2 * g, GRADS))


def test_the_init_of_what_says_nothing_is_not_called_at_a_step():
    calls = []

    def init(params):
        calls.append(params)
        return ()

    inner = jopt.GradientTransformation(init, lambda g, s, p=None: (g, s))
    for tx in (
        jopt.chain(jopt.clip(1.0), inner),
        jopt.masked(inner, {"b": True, "w": False}),
    ):
        state = tx.init(PARAMS)
        calls.clear()
        jax.jit(tx.update)(GRADS, state)
        assert not calls


def test_what_is_asked_once_a_step_sees_what_came_before():
    def once(at):
        return jnp.minimum(1.0, 1.0 / jopt.tree.norm(at.gs)), {}

    clip = jopt.per_leaf(
        jopt.EmptyState,
        lambda p: {},
        lambda g, s, p, factor: (factor * g, s),
        once=once,
    )
    tx = jopt.chain(jopt.scale(2.0), clip, jopt.scale(3.0))
    updates, _ = jax.jit(tx.update)(GRADS, tx.init(PARAMS))
    size = float(jopt.tree.norm(jax.tree.map(lambda g: 2 * g, GRADS)))
    want = jax.tree.map(lambda g: 6 * g / size, GRADS)
    chex.assert_trees_all_close(updates, want, rtol=1e-6)


def test_numbers_of_one_name_are_told_apart_by_the_field_that_holds_them():
    class Both(NamedTuple):
        first: jopt.OptState
        second: jopt.OptState

    def build(first, second):
        def init(params):
            return Both(first.init(params), second.init(params))

        def update(updates, state, params=None, **extra_args):
            updates, one = first.update(updates, state.first, params, **extra_args)
            updates, two = second.update(updates, state.second, params, **extra_args)
            return updates, Both(one, two)

        return init, update

    tx = jopt.wrap(build, first=jopt.sgd(0.5), second=jopt.sgd(0.25))
    found = jopt.hyperparams(tx.init(PARAMS), tx)
    assert found == {"first/learning_rate": 0.5, "second/learning_rate": 0.25}


def test_a_mask_of_extra_arguments_is_one_of_what_is_asked_once_a_step():
    seen = []

    def once(at):
        seen.append(at.extra_args)
        return jnp.float32(1.0), {}

    rule = jopt.per_leaf(
        jopt.EmptyState, lambda p: {}, lambda g, s, p, x: (x * g, s), once=once
    )
    mask = {"b": True, "w": False}
    for also in (False, True):
        tx = jopt.masked(rule, mask, mask_compatible_extra_args=also)
        jax.jit(tx.update)(GRADS, tx.init(PARAMS), like=PARAMS, value=2.0)
        assert isinstance(seen[-1]["like"]["w"], jopt.MaskedNode) == also
        assert seen[-1]["like"]["b"].shape == (3,) and "value" in seen[-1]
