"""Small mistakes that once passed in silence, or whose error said too little."""

import jax
import jax.numpy as jnp
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
