"""Small mistakes that once passed in silence, or whose error said too little."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt

o = jnp.ones


# ------------------------------------------------- updates of one tree by another


def incremental(new, old):
    return jopt.incremental_update(new, old, 0.5)


def periodic(new, old):
    return jopt.periodic_update(new, old, 2, 2)


@pytest.mark.parametrize("function", [incremental, periodic])
@pytest.mark.parametrize("new, old", [((1,), (3,)), ((3,), (1,)), ((), (3,))])
def test_no_leaf_stretches_another(function, new, old):
    with pytest.raises(ValueError, match=r"_update: new_tensors at \['a'\] is f32"):
        function({"a": o(new)}, {"a": o(old)})


@pytest.mark.parametrize("function", [incremental, periodic])
def test_two_trees_of_other_structures_say_where(function):
    with pytest.raises(ValueError, match=r"missing in new_tensors: \['b'\]"):
        function({"a": o(2)}, {"a": o(2), "b": o(2)})
    with pytest.raises(ValueError, match="_update: new_tensors must have the tree"):
        function({"a": {"c": o(1)}}, {"a": o(1)})
    with pytest.raises(TypeError, match=r"old_tensors at \['a'\] must be an array"):
        function({"a": o(1)}, {"a": {"c": o(1)}})


@pytest.mark.parametrize("function", [incremental, periodic])
def test_containers_of_two_trees_stay(function):
    new, old = ((o(1), (o(2),), ()), [3.0, None]), ((o(1), (o(2),), ()), [3.0, None])
    got = jax.jit(function)(new, old)
    assert jax.tree.structure(got) == jax.tree.structure(new)


def test_step_size_does_not_stretch_a_leaf():
    with pytest.raises(ValueError, match=r"step_size, of shape \(3,\), does not"):
        jopt.incremental_update(o(1), o(1), o(3))
    with pytest.raises(TypeError, match="step_size must be an array or a number"):
        jopt.incremental_update(o(1), o(1), "0.5")


@pytest.mark.parametrize("period", [0, -2])
def test_update_period_counts(period):
    with pytest.raises(ValueError, match="update_period must be at least 1"):
        jopt.periodic_update(o(1), o(1), 1, period)


def test_periodic_update_keeps_one_dtype():
    with pytest.raises(ValueError, match=r"bf16.*the dtypes must be equal"):
        jopt.periodic_update(o(1), o(1, jnp.bfloat16), 1, 2)


def test_none_in_place_of_parameters_stays():
    assert jopt.apply_updates(None, o(3)) is None
    assert jopt.incremental_update(None, {"a": o(3)}, 0.5) is None
    got = jopt.apply_updates({"a": None, "b": o(1)}, {"a": o(3), "b": o(1)})
    assert got["a"] is None and float(got["b"][0]) == 2.0
    with pytest.raises(ValueError, match="updates must have the tree structure"):
        jopt.apply_updates({"a": None, "b": o(1)}, {"c": o(3), "b": o(1)})


# ------------------------------------------------------------------ sizes and counts

STEPS = [
    (jopt.linear_schedule, dict(init_value=1.0, end_value=0.0)),
    (jopt.polynomial_schedule, dict(init_value=1.0, end_value=0.0, power=1)),
    (jopt.exponential_decay, dict(init_value=1.0, decay_rate=0.5)),
    (
        jopt.warmup_exponential_decay_schedule,
        dict(init_value=0.0, peak_value=1.0, warmup_steps=1, decay_rate=0.5),
    ),
]


@pytest.mark.parametrize("make, others", STEPS, ids=[s[0].__name__ for s in STEPS])
def test_steps_of_a_transition_are_not_negative(make, others):
    with pytest.raises(
        ValueError, match=r"transition_steps must be at least 0, got -5"
    ):
        make(transition_steps=-5, **others)
    make(transition_steps=0, **others)  # none, as in optax


SIZES = {
    "min_dim_size_to_factor": [jopt.adafactor, jopt.scale_by_factored_rms],
    "print_win_rate_every_n_steps": [jopt.scale_by_sophia],
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_not_negative(name):
    for factory in SIZES[name]:
        with pytest.raises(ValueError, match=f"{factory.__name__}: {name} must be at"):
            factory(**{name: -1})


def test_bounds_of_sizes_are_not_negative():
    with pytest.raises(ValueError, match="safe_norm: min_norm must be at least 0"):
        jopt.safe_norm(o(2), -1.0)
    with pytest.raises(ValueError, match="squares: min_rms must be at least 0"):
        jopt.safe_root_mean_squares(o(2), np.float32(-1.0))
    with pytest.raises(ValueError, match="max_squared_norm must be at least 0"):
        jopt.skip_large_updates(o(2), 0, None, -1.0)
    assert not bool(jopt.skip_large_updates(o(2), 0, None, jnp.inf)[0])


@pytest.mark.parametrize(
    "update", [jopt.update_moment, jopt.update_moment_per_elem_norm]
)
def test_the_order_of_a_moment_is_positive(update):
    with pytest.raises(ValueError, match=f"{update.__name__}: order must be positive"):
        update([o(2)], [o(2)], 0.9, -1)


# ----------------------------------------------------------------------- tree.set


@pytest.mark.parametrize(
    "new, words",
    [
        (
            dict(count=o(3)),
            r"set: count at .*count is i32\[\], the new value is f32\[3",
        ),
        (dict(mu={"w": o(5), "b": o(())}), r"mu\['w'\] is f32\[2\], .* is f32\[5\]"),
        (dict(mu={"w": o(5)}), r"mu\['w'\] is f32\[2\], .* is f32\[5\]"),
        (
            dict(mu=o(2)),
            r"mu is a tree with arrays at \['b'\], \['w'\], .* is f32\[2\]",
        ),
    ],
)
def test_set_refuses_another_shape(new, words):
    state = jopt.adam(0.1).init({"w": o(2), "b": o(())})
    with pytest.raises(ValueError, match=words):
        jopt.tree.set(state, **new)


def test_set_takes_what_is_no_array():
    state = jopt.adam(0.1).init({"w": o(2)})
    assert jopt.tree.get(jopt.tree.set(state, mu=None), "mu") is None
    marked = jopt.tree.set(state, mu="sharding", count=7)
    assert jopt.tree.get(marked, "mu") == "sharding"
    assert jopt.tree.get(marked, "count") == 7
    grown = jopt.tree.set(state, mu={"w": o(2), "head": o(3)})
    assert jopt.tree.get(grown, "mu")["head"].shape == (3,)
    tree = {"a": 1, "b": {"c": 2.0}}
    assert jopt.tree.set(tree, b=3)["b"] == 3


# ----------------------------------------------------------------- masks and labels

P = {"w": o(2), "b": o(2)}


@pytest.mark.parametrize("first", [True, False])
def test_a_mask_that_changes_its_answer_is_asked_about(first):
    answer = [first]

    def mask(params):
        return {"w": True, "b": answer[0]}

    def labels(params):
        return {"w": "a", "b": "a" if answer[0] else "b"}

    parts = {"a": jopt.adam(0.1), "b": jopt.adam(0.1)}
    for make in (
        lambda: jopt.masked(jopt.adam(0.1), mask),
        lambda: jopt.partition(parts, labels),
    ):
        answer[0] = first
        tx = make()
        state = tx.init(P)
        answer[0] = not first
        for update in (tx.update, jax.jit(tx.update)):
            with pytest.raises(ValueError, match=r"did the \w+ choose other leaves at"):
                update(P, state, P)


@pytest.mark.parametrize(
    "mask",
    [
        np.array([True, False]),
        {"w": np.array([True, False]), "b": True},
        {"w": np.ma.masked_array([True], [True]), "b": True},
    ],
    ids=["one", "leaf", "masked"],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda mask: jopt.masked(jopt.sgd(0.1), mask),
        lambda mask: jopt.adamw(0.1, mask=mask),
        lambda mask: jopt.add_decayed_weights(0.1, mask),
    ],
)
def test_masks_choose_leaves_and_no_elements(make, mask):
    with pytest.raises(TypeError, match=r"mask at .* must be True or False, got"):
        make(mask).init(P)


def test_a_masked_array_is_refused():
    hidden = np.ma.masked_array([1.0, 2.0], [True, False])
    for call in (
        lambda: jopt.adam(0.1).init(hidden),
        lambda: jopt.sgd(0.1).update(hidden, jopt.sgd(0.1).init(o(2))),
        lambda: jopt.apply_updates(o(2), hidden),
        lambda: jopt.apply_updates(hidden, o(2)),
        lambda: jopt.incremental_update(hidden, o(2), 0.5),
        lambda: jopt.l2_loss(hidden),
        lambda: jopt.tree.norm(hidden),
        lambda: jopt.adam_update(hidden, o(2), 0.1, o(2), o(2), 1),
        lambda: jopt.adam_update(o(2), hidden, 0.1, o(2), o(2), 1),
        lambda: jopt.projections.projection_simplex(hidden),
        lambda: jopt.adam(np.ma.masked_array(0.1, True)),
        lambda: jopt.linear_schedule(np.ma.masked_array(0.1, True), 0.0, 3),
        lambda: jopt.adam_update(o(2), o(2), np.ma.masked, o(2), o(2), 1),
        lambda: jopt.execute_with_gradients(jnp.sum, hidden),
        lambda: jopt.assignment.hungarian_algorithm(np.ma.masked_array(np.eye(2), 1)),
    ):
        with pytest.raises((TypeError, ValueError), match=r"(?i)masked ?array"):
            call()


# ------------------------------------------------------- what stands for gradients


@pytest.mark.parametrize("make", [jopt.adam, jopt.sgd])
@pytest.mark.parametrize("params", [P, o(2)], ids=["dict", "array"])
def test_a_loss_among_the_gradients_is_seen(make, params):
    tx = make(0.1)
    state = tx.init(params)
    words = r"the pair \(value, gradients\) of jax.value_and_grad\? Give the gradients"
    for pair in ((jnp.float32(1.0), params), (1.0, params)):
        with pytest.raises((ValueError, TypeError), match=words):
            tx.update(pair, state, params)
        with pytest.raises((ValueError, TypeError), match=words):
            jopt.apply_updates(params, pair)
    with pytest.raises((ValueError, TypeError), match=r"\(gradients, auxiliary\)"):
        tx.update((params, {"loss": o(())}), state, params)


def test_a_loss_among_the_gradients_is_seen_by_the_state():
    tx = jopt.adam(0.1)
    with pytest.raises(ValueError, match=r"^adam: .*of jax.value_and_grad"):
        tx.update((1.0, P), tx.init(P))


def test_parameters_that_are_a_pair_stay_a_pair():
    params = (o(()), P)
    tx = jopt.adam(0.1)
    updates, _ = tx.update(params, tx.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


# ---------------------------------------------------------------- under jit and grad


@pytest.mark.parametrize(
    "thing",
    [
        jopt.adam(0.1),
        jopt.adam(0.1).update,
        jopt.linear_schedule(1.0, 0.0, 3),
        jopt.MultiSteps(jopt.adam(0.1), 2),
    ],
    ids=["transformation", "update", "schedule", "MultiSteps"],
)
def test_a_transformation_is_no_argument_of_jit(thing):
    for way in (jax.jit, jax.grad, jax.vmap):
        with pytest.raises(
            TypeError, match=r"close over it, or name .*static_argnames"
        ):
            way(lambda thing: 1.0)(thing)


def with_if(count):
    return 0.1 if count < 3 else 0.01


def with_float(count):
    return 0.1 * float(count)


def with_numpy(count):
    return np.minimum(count, 3) * 0.1


@pytest.mark.parametrize("schedule", [with_if, with_float, with_numpy])
@pytest.mark.parametrize(
    "where, make",
    [
        ("learning_rate", jopt.adam),
        ("learning_rate", lambda s: jopt.sgd({"w": s, "b": 0.1})),
        ("learning_rate", jopt.inject_hyperparams(jopt.adam)),
        ("b1", lambda s: jopt.inject_hyperparams(jopt.adam)(0.1, b1=s)),
        ("weight_decay", lambda s: jopt.adamw(0.1, weight_decay=s)),
        ("learning_rate", lambda s: jopt.adam(jopt.join_schedules([s, s], [5]))),
        ("step_size_fn", jopt.scale_by_schedule),
        ("alpha", lambda s: jopt.ademamix(0.1, alpha=s)),
        ("decay", lambda s: jopt.params_ema(s)),
        ("every_k_schedule", lambda s: jopt.MultiSteps(jopt.sgd(0.1), s)),
    ],
)
def test_a_schedule_that_looks_at_a_traced_step_is_named(schedule, where, make):
    tx = make(schedule)
    state = tx.init(P)
    with pytest.raises(jax.errors.ConcretizationTypeError) as error:
        jax.jit(tx.update)(P, state, P)
    text = str(error.value)
    assert f"{where}, the function" in text and schedule.__name__ in text
    assert "jnp.where" in text


def test_a_condition_that_looks_at_a_traced_step_is_named():
    tx = jopt.conditionally_mask(jopt.sgd(0.1), lambda step: bool(step > 2))
    with pytest.raises(jax.errors.ConcretizationTypeError, match="should_transform_fn"):
        jax.jit(tx.update)(P, tx.init(P), P)


# ---------------------------------------------------------------------- keys of dicts


def test_keys_of_two_types_are_named():
    mixed = {"layers": [o(1), {1: o(2), "a": o(2)}]}
    tx = jopt.sgd(0.1)
    words = r"with the keys 1 \(int\) and 'a' \(str\), which cannot be sorted"
    for name, call in {
        "params": lambda: tx.init(mixed),
        "updates": lambda: tx.update(mixed, tx.init(P)),
        "new_tensors": lambda: jopt.incremental_update(mixed, mixed, 0.5),
        "w": lambda: jopt.adam_update(mixed, mixed, 0.1, mixed, mixed, 1),
        "masked: mask": lambda: jopt.masked(tx, mixed),
    }.items():
        with pytest.raises(
            ValueError, match=rf"^{name} at \['layers'\]\[1\] is a dict {words}"
        ):
            call()
    with pytest.raises(
        ValueError, match=rf"^params at \['layers'\]\[1\] is a .*{words}"
    ):
        jopt.apply_updates(mixed, mixed)
