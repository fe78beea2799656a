"""Functions of trees: as optax's where these are right, and where they are not."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import jopt
from jopt import tree, tree_utils
from jopt.tree.states import by_param

X = {"a": jnp.array([1.0, -2.0]), "b": (jnp.float32(3), None)}
Y = {"a": jnp.array([0.5, 4.0]), "b": (jnp.float32(-1), None)}
Z = [jnp.array([1 + 2j, -3.0])]
KEY = jax.random.key(0)
NAMES = [name for name in dir(optax.tree) if not name.startswith("_")]

# Calls that must equal optax's.
CALLS = [
    ("add", X, Y),
    ("add", X, Y, X, Y),
    ("add_scale", X, 0.5, Y),
    ("add_scale", {"a": None, "b": X["b"]}, 0.5, Y),
    ("allclose", X, X),
    ("allclose", X, Y),
    ("allclose", [jnp.nan], [jnp.nan]),
    ("allclose", {}, {}),
    ("batch_shape", X, (2, 3)),
    ("bias_correction", X, 0.9, jnp.int32(3)),
    ("cast", X, jnp.bfloat16),
    ("cast", X, None),
    ("cast_like", X, jax.tree.map(lambda x: x.astype(jnp.float16), Y)),
    ("clip", X, -1.0, 1.0),
    ("clip", X, None, 0.0),
    ("conj", Z),
    ("div", X, Y),
    ("dtype", X),
    ("dtype", {}),
    ("dtype", [jnp.ones(1), jnp.ones(1, jnp.bfloat16)], "lowest"),
    ("dtype", [jnp.ones(1), jnp.ones(1, jnp.bfloat16)], "highest"),
    ("dtype", [jnp.ones(1, jnp.float16), jnp.ones(1, jnp.bfloat16)], "promote"),
    ("full_like", X, 2.0),
    ("full_like", X, 2, jnp.int8),
    ("max", X),
    ("max", [jnp.zeros((0, 3)), jnp.ones(2)]),
    ("max", {}),
    ("min", X),
    ("min", {}),
    ("mul", X, Y),
    ("norm", X),
    ("norm", X, 1),
    ("norm", X, 1, True),
    ("norm", X, 2, True),
    ("norm", X, "inf"),
    ("norm", X, np.inf, True),
    ("norm", Z),
    ("norm", Z, 1),
    ("norm", [jnp.array([3, 4])]),
    ("norm", {}),
    ("ones_like", X),
    ("ones_like", X, jnp.int8),
    ("random_like", KEY, X),
    ("random_like", KEY, X, jax.random.uniform, jnp.bfloat16),
    ("real", Z),
    ("scale", 2.0, X),
    ("size", X),
    ("size", [jnp.ones((2, 3)), 1.0]),
    ("sub", X, Y),
    ("sum", X),
    ("sum", X, True),
    ("sum", [jnp.arange(4)]),
    ("sum", {}),
    ("unwrap_random_key_data", [KEY, jnp.ones(1)]),
    ("update_infinity_moment", X, Y, 0.9, 1e-3),
    ("update_moment", X, Y, 0.9, 1),
    ("update_moment", X, Y, 0.9, 2),
    ("update_moment", X, Y, 0.9, 3),
    ("update_moment", {"a": None, "b": X["b"]}, Y, 0.9, 2),
    ("update_moment_per_elem_norm", X, Y, 0.9, 2),
    ("update_moment_per_elem_norm", Z, [jnp.zeros(2)], 0.9, 3),
    ("vdot", X, Y),
    ("vdot", Z, [jnp.array([1j, 2.0])]),
    ("vdot", {}, {}),
    ("where", jnp.array(True), X, Y),
    ("where", jnp.array(False), X, Y),
    ("zeros_like", X),
    ("zeros_like", X, jnp.int8),
]


calls = pytest.mark.parametrize(
    "call", CALLS, ids=lambda c: f"{c[0]}-{'-'.join(type(x).__name__ for x in c[1:])}"
)


def widened(x):
    """The same of 64 bits, in numbers that 32 bits do not hold."""
    if isinstance(x, jax.Array) and x.dtype in (np.float32, np.complex64):
        return jnp.asarray(np.asarray(x, np.result_type(x.dtype, np.float64)) * 1.1)
    return x


@calls
def test_equals_optax(call):
    check_call(call, rtol=1e-5, atol=1e-6)


@calls
def test_equals_optax_in_float64(call):
    with jax.enable_x64(True):
        check_call(jax.tree.map(widened, call), rtol=1e-12, atol=1e-14)


def check_call(call, rtol, atol):
    name, *args = call
    got = getattr(tree, name)(*args)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        want = getattr(optax.tree, name)(*args)
    if name == "dtype":
        assert got == want
        return
    chex.assert_trees_all_equal_structs(got, want)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert jnp.shape(x) == jnp.shape(y)
        if jax.tree.leaves(args):  # of nothing the norm is a zero in float32
            assert jax.dtypes.result_type(x) == jax.dtypes.result_type(y)
        np.testing.assert_allclose(
            np.asarray(x).astype(complex),
            np.asarray(y).astype(complex),
            rtol=rtol,
            atol=atol,
        )


# What the numbers are, of the elements of all leaves together.
MEANINGS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "vdot": lambda x, y: np.conj(x) @ y,
    "norm": lambda x: np.sqrt(np.sum(abs(x) ** 2)),
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
    "conj": np.conj,
    "real": np.real,
    "scale": lambda a, x: a * x,
    "add_scale": lambda x, a, y: x + a * y,
    "clip": np.clip,
    "update_moment": lambda x, m, b, k: (1 - b) * x**k + b * m,
    "update_infinity_moment": lambda x, m, b, eps: np.maximum(abs(x) + eps, b * m),
    "update_moment_per_elem_norm": lambda x, m, b, k: (1 - b) * abs(x) ** k + b * m,
    "bias_correction": lambda m, b, t: m / (1 - b**t),
}
MEANT = {call[0]: call for call in reversed(CALLS) if call[0] in MEANINGS}


@pytest.mark.parametrize("name", MEANINGS)
def test_means_what_its_name_says(name):
    def flat(x):
        leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(x)]
        return np.concatenate(leaves) if isinstance(x, (dict, list, tuple)) else x

    with jax.enable_x64(True):
        _, *args = jax.tree.map(widened, MEANT[name])
        got = flat(getattr(tree, name)(*args))
        want = MEANINGS[name](*map(flat, args))
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_names_and_arguments_are_those_of_optax():
    for name in NAMES:
        ours = list(inspect.signature(getattr(tree, name)).parameters)
        theirs = list(inspect.signature(getattr(optax.tree, name)).parameters)
        assert ours[: len(theirs)] == theirs, name
        assert getattr(tree_utils, f"tree_{name}") is getattr(tree, name)
    assert tree_utils.NamedTupleKey is tree.NamedTupleKey
    assert {n[5:] for n in tree_utils.__all__ if n != "NamedTupleKey"} == set(NAMES)
    tried = {call[0] for call in CALLS}
    apart = {"get", "get_all_with_path", "map_params", "set", "split_key_like"}
    assert tried | apart == set(NAMES)


# --------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    "function",
    [tree.add, tree.sub, tree.mul, tree.div, tree.vdot, tree.allclose, tree.cast_like,
     functools.partial(tree.where, True), lambda x, y: tree.add_scale(x, 2.0, y),
     lambda x, y: tree.add(x, x, y)],
)  # fmt: skip
def test_trees_of_other_structure_are_refused(function):
    for wrong, path in (
        ({"a": X["a"]}, r"\['b'\]\[0\]"),
        ({"a": X["a"], "b": [X["b"][0], None]}, r"\['b'\]"),
        ({"a": {"x": X["a"]}, "b": X["b"]}, r"\['a'\]"),
        ({"a": None, "b": X["b"]}, r"\['a'\]"),
    ):
        with pytest.raises(ValueError, match=f"must have the tree structure.*{path}"):
            function(X, wrong)


def test_trees_may_be_abstract():
    shapes = jax.eval_shape(lambda: X)
    chex.assert_trees_all_equal(tree.zeros_like(shapes), tree.zeros_like(X))
    chex.assert_trees_all_equal(tree.full_like(shapes, 2), tree.full_like(X, 2))
    chex.assert_trees_all_equal(tree.random_like(KEY, shapes), tree.random_like(KEY, X))
    assert tree.size(shapes) == 3 and tree.dtype(shapes) == np.float32


# -------------------------------------------------------------------------------- norms


@pytest.mark.parametrize(
    "size", [1e-38, 1e-30, 1e-20, 1e-10, 1.0, 1e18, 1e19, 1e30, 6e37]
)
def test_norm_at_any_magnitude(size):
    rng = np.random.default_rng(0)
    x = {
        k: np.float32(rng.uniform(1.2, 1.5, n) * size) for k, n in zip("abc", (5, 5, 3))
    }
    want = np.linalg.norm(np.concatenate(list(x.values())).astype(float))
    for norm in (tree.norm, jax.jit(tree.norm)):
        np.testing.assert_allclose(norm(x), want, rtol=1e-6)
    batch = jax.tree.map(lambda a: jnp.stack([a, jnp.ones_like(a), 0 * a]), x)
    got = jax.vmap(tree.norm)(batch)
    np.testing.assert_allclose(got, [want, 13**0.5, 0], rtol=1e-6)


def test_norm_of_64_bits_and_of_mixed_trees():
    with jax.enable_x64(True):
        for size in (1e-300, 1e-200, 1.0, 1e200, 1e307):
            x = [jnp.array([3 * size]), jnp.array([4 * size])]
            np.testing.assert_allclose(tree.norm(x), 5 * size, rtol=1e-14)
        mixed = [jnp.zeros(2, jnp.float32), jnp.zeros(2)]
        assert tree.norm(mixed) == 0
        chex.assert_trees_all_equal(
            jopt.normalize().update(mixed, jopt.EmptyState())[0], mixed
        )
        x = [jnp.float32(3e30), jnp.float64(4e200)]
        np.testing.assert_allclose(tree.norm(x), 4e200, rtol=1e-7)


def test_norm_is_precise_in_16_bits():
    x = [jnp.full((4096,), 300, jnp.float16), jnp.zeros(3, jnp.bfloat16)]
    for ord, want in ((None, 300 * 64), (1, 300 * 4096), ("inf", 300)):
        got = tree.norm(x, ord)
        assert got == want and got.dtype == np.float32
    assert tree.norm(x, squared=True) == 90000 * 4096


def test_square_of_a_norm_whose_squares_underflow():
    x = jnp.full((10_000,), 1e-20)
    np.testing.assert_allclose(tree.norm(x, squared=True), 1e-36, rtol=1e-6)


def test_norms_of_nothing_and_of_what_is_not_finite():
    for ord in (None, 1, 2, "inf", np.inf):
        assert tree.norm({}, ord) == tree.norm([jnp.zeros((0, 3))], ord) == 0
        assert tree.norm([jnp.ones(2), jnp.array([-jnp.inf])], ord) == np.inf
        assert np.isnan(tree.norm([jnp.ones(2), jnp.array([jnp.nan])], ord))
    with pytest.raises(ValueError, match="ord must be 1, 2, inf or None, got 3"):
        tree.norm(X, 3)


def test_norm_has_derivatives():
    np.testing.assert_array_equal(jax.grad(tree.norm)(jnp.zeros(3)), jnp.zeros(3))
    for size in (1e-30, 1.0, 1e30):
        got = jax.grad(tree.norm)(jnp.array([3.0, -4.0]) * size)
        np.testing.assert_allclose(got, [0.6, -0.8], rtol=1e-6)


@pytest.mark.parametrize("ord", [None, 1, "inf"])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_norm_over_named_axes(ord, size):
    x = np.float32(np.arange(1, 9) * size).reshape(4, 2)
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("x")
    norm = functools.partial(tree.norm, ord=ord, axis_name="x")
    over_devices = jax.shard_map(
        norm, mesh=mesh, in_specs=spec, out_specs=PartitionSpec()
    )
    np.testing.assert_allclose(jax.jit(over_devices)(x), tree.norm(x, ord), rtol=1e-6)
    over_batch = jax.vmap(norm, axis_name="x")(x)
    np.testing.assert_allclose(over_batch, [tree.norm(x, ord)] * 4, rtol=1e-6)


# --------------------------------------------------------------------------- reductions


def test_sums_are_precise_in_16_bits():
    ones = [jnp.ones(1000, jnp.bfloat16)] * 3
    for total in (tree.sum(ones), tree.sum(ones, True), tree.vdot(ones, ones)):
        assert total.dtype == jnp.float32 and float(total) == 3000


def test_mixed_trees_are_summed():
    mixed = [jnp.ones(2, jnp.bfloat16), jnp.ones(2), jnp.arange(3), 1j, 2.0]
    for pairwise in (False, True):
        assert tree.sum(mixed, pairwise) == 9 + 1j
    assert tree.max([jnp.bfloat16(1), jnp.float32(2), 3]) == 3
    assert tree.vdot([jnp.bfloat16(2)], [jnp.float32(3)]) == 6
    assert np.isnan(tree.max([jnp.ones(2), jnp.nan]))


def test_inner_products_want_equal_shapes():
    with pytest.raises(ValueError, match=r"tree_x at \['a'\] is f32\[2, 3\].*f32\[6\]"):
        tree.vdot({"a": jnp.ones((2, 3))}, {"a": jnp.ones(6)})


def test_dtypes_that_do_not_compare():
    mixed = {"a": jnp.ones(1, jnp.bfloat16), "b": jnp.ones(1, jnp.float16)}
    with pytest.raises(
        ValueError, match=r"one dtype, got bfloat16 at \['a'\], float16 at"
    ):
        tree.dtype(mixed)
    for handler in ("highest", "lowest"):
        with pytest.raises(ValueError, match=f"none is the {handler}"):
            tree.dtype(mixed, handler)
    with pytest.raises(ValueError, match=r"mixed_dtype_handler must be .* got 'other'"):
        tree.dtype(mixed, "other")


# ---------------------------------------------------------------------- keys and random


def test_every_leaf_has_a_key_of_its_own():
    keys = tree.split_key_like(KEY, X)
    chex.assert_trees_all_equal_structs(keys, X)
    a, b = (jax.random.key_data(k) for k in jax.tree.leaves(keys))
    assert np.any(a != b)
    noise = tree.random_like(KEY, [jnp.zeros(100)] * 2)
    assert abs(np.corrcoef(*noise)[0, 1]) < 0.3 and np.any(noise[0] != noise[1])
    assert tree.random_like(KEY, {}) == tree.split_key_like(KEY, {}) == {}


# ------------------------------------------------------------------------------ moments


def test_moments_are_rounded_by_whoever_stores_them():
    """So a step can use what was not rounded yet, as optax's methods do."""
    g, m = [jnp.ones(2)], [jnp.zeros(2, jnp.bfloat16)]
    for update in (
        tree.update_moment,
        tree.update_moment_per_elem_norm,
        tree.update_infinity_moment,
    ):
        assert update(g, m, 0.9, 2)[0].dtype == jnp.float32
        assert update(m, g, 0.9, 2)[0].dtype == jnp.float32
        assert update(m, m, 0.9, 2)[0].dtype == jnp.bfloat16
    assert (
        tree.update_moment([jnp.ones(1, jnp.float16)], g, 0.9, 1)[0].dtype == np.float32
    )
    corrected = tree.bias_correction([jnp.ones(2, jnp.bfloat16)], 0.9, 3)
    assert corrected[0].dtype == jnp.bfloat16


def test_moments_of_16_bits_are_computed_in_32():
    g, m = [jnp.full(1, 300, jnp.float16)], [jnp.zeros(1)]
    np.testing.assert_allclose(tree.update_moment(g, m, 0.999, 2)[0], 90, rtol=1e-6)


def test_moments_of_odd_order_are_of_the_size():
    g, m = [jnp.array([-3.0])], [jnp.array([1.0])]
    for order, power in ((1, 3), (3, 27), (0.5, 3**0.5)):
        got = tree.update_moment_per_elem_norm(g, m, 0.9, order)[0]
        np.testing.assert_allclose(got, 0.9 + 0.1 * power, rtol=1e-6)


def test_moments_take_traced_decays():
    with jax.enable_x64(True):
        g, m = (
            [jnp.ones(2), jnp.ones(2, complex)],
            [jnp.zeros(2), jnp.zeros(2, complex)],
        )
        update = jax.jit(lambda b: tree.update_moment(g, m, b, 1))
        for x in update(jnp.float32(0.75)):
            np.testing.assert_allclose(x, 0.25)


@pytest.mark.parametrize("decay", [0.9, 0.999, 1 - 1e-8])
def test_bias_correction_does_not_cancel(decay):
    for t in (1, 10, 10_000):
        got = tree.bias_correction(jnp.ones(1), decay, jnp.int32(t))
        want = 1 / -np.expm1(t * np.log(np.float64(decay)))
        np.testing.assert_allclose(got, want, rtol=1e-6)


# ------------------------------------------------------------------------------- states

PARAMS = {"w": jnp.ones(2), "b": jnp.zeros(())}


def schedule(count):
    return 0.1


def test_values_are_found_by_name():
    state = jopt.chain(jopt.clip(1.0), jopt.adamw(schedule)).init(PARAMS)
    assert tree.get(state, "mu") is state[1][0].mu
    assert tree.get(state, "ScaleByAdamState") is state[1][0]
    assert tree.get(state, "nothing") is None
    assert tree.get(state, "nothing", default=3) == 3
    (mu, _), (nu, _) = tree.get_all_with_path(state, "w")
    Key, At = tree.NamedTupleKey, jax.tree_util.SequenceKey
    last = jax.tree_util.DictKey("w")
    assert mu == (At(1), At(0), Key("ScaleByAdamState", "mu"), last)
    assert nu == (At(1), At(0), Key("ScaleByAdamState", "nu"), last)
    assert str(mu[2]) == "ScaleByAdamState.mu"


def test_found_as_optax_finds():
    ours = jopt.chain(jopt.clip(1.0), jopt.adamw(schedule)).init(PARAMS)
    theirs = optax.chain(optax.clip(1.0), optax.adamw(schedule)).init(PARAMS)
    for key in ("count", "mu", "w", "b", "EmptyState", "ScaleByScheduleState", 0):
        got = tree.get_all_with_path(ours, key)
        want = optax.tree.get_all_with_path(theirs, key)
        assert [str(path) for path, _ in got] == [str(path) for path, _ in want]
        paths = [path for path, _ in optax.tree.get_all_with_path(ours, key)]
        assert [str(path) for path, _ in got] == [str(path) for path in paths]


def test_a_name_in_two_states_is_an_error():
    state = jopt.adamw(schedule).init(PARAMS)
    with pytest.raises(
        KeyError, match=r"'count' is at 2 places, \[0\].count, \[2\].count"
    ):
        tree.get(state, "count")

    def of_adam(path, value):
        return getattr(path[-1], "tuple_name", None) == "ScaleByAdamState"

    assert tree.get(state, "count", filtering=of_adam) is state[0].count
    assert tree.get(state, "count", filtering=lambda path, value: False) is None
    injected = jopt.inject_hyperparams(jopt.sgd)(schedule).init(PARAMS)
    with pytest.raises(KeyError, match="learning_rate"):
        tree.get(injected, "learning_rate")


def test_a_state_goes_by_the_name_of_its_base_too():
    state = jopt.yogi(0.1).init(PARAMS)
    assert type(state[0]).__name__ == "ScaleByYogiState"
    assert tree.get(state, "ScaleByAdamState") is tree.get(state, "ScaleByYogiState")


def test_fields_of_dataclasses_are_found():
    @chex.dataclass
    class TrainState:
        step: int
        opt_state: object

    state = TrainState(step=3, opt_state=jopt.sgd(0.1, momentum=0.9).init(PARAMS))
    assert tree.get(state, "step") == 3
    assert tree.get(state, "trace") is state.opt_state[0].trace
    assert tree.get(tree.set(state, step=4), "step") == 4


def test_values_are_replaced_by_name():
    state = jopt.adamw(schedule).init(PARAMS)
    new = tree.set(state, count=jnp.int32(7), mu={"x": 1})
    assert new[0].count == new[2].count == 7 and new[0].mu == {"x": 1}
    assert new[0].nu is not None and state[0].count == 0
    assert type(new[0]) is type(state[0]) and new[1] == jopt.EmptyState()

    def of_schedule(path, value):
        return getattr(path[-1], "tuple_name", None) == "ScaleByScheduleState"

    new = tree.set(state, of_schedule, count=jnp.int32(7))
    assert new[0].count == 0 and new[2].count == 7
    assert tree.set({"x": {"x": 1}, "y": (2,)}, x=5) == {"x": 5, "y": (2,)}
    assert tree.set(state, EmptyState=None)[1] is None
    with pytest.raises(KeyError, match="no 'nothing'"):
        tree.set(state, count=1, nothing=0)
    with pytest.raises(KeyError, match="filtering"):
        tree.set(state, lambda path, value: False, count=1)


def test_a_hyperparameter_is_set_and_the_state_of_its_schedule_is_not():
    schedule = jopt.linear_schedule(0.1, 0.2, 2)
    tx = jopt.inject_hyperparams(jopt.sgd)(schedule, momentum=0.9)
    params = jnp.ones(2)
    state = jopt.tree_utils.tree_set(tx.init(params), learning_rate=0.5, momentum=0.8)
    assert (state.hyperparams["learning_rate"], state.hyperparams["momentum"]) == (
        0.5,
        0.8,
    )
    _, state = tx.update(params, state, params)  # the schedule goes on
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 0.1)
    _, state = tx.update(params, state, params)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], 0.15)
    with pytest.raises(ValueError, match="is a tree with arrays"):
        jopt.tree.set(state, lambda path, x: hasattr(x, "count"), learning_rate=0.5)


def test_a_learning_rate_can_be_set_between_steps():
    tx = jopt.inject_hyperparams(jopt.sgd)(0.1)
    state = tree.set(tx.init(PARAMS), learning_rate=jnp.float32(0.5))
    updates, _ = tx.update(PARAMS, state, PARAMS)
    np.testing.assert_array_equal(updates["w"], [-0.5, -0.5])


# ---------------------------------------------------------- what is like the parameters

LABELS = {"w": "a", "b": "b"}
WRAPPED = [
    (lambda: jopt.adamw(schedule), 4),
    (lambda: jopt.sgd(0.1), 0),
    (lambda: jopt.masked(jopt.adam(0.1), {"w": True, "b": False}), 2),
    (lambda: jopt.masked(jopt.adam(0.1), lambda p: {k: k == "w" for k in p}), 2),
    (lambda: jopt.chain(jopt.freeze({"w": True, "b": False}), jopt.adam(0.1)), 4),
    (lambda: jopt.partition({"a": jopt.adam(0.1), "b": jopt.sgd(0.1, 0.9)}, LABELS), 3),
    (lambda: jopt.inject_hyperparams(jopt.adam)(0.1), 4),
    (lambda: jopt.MultiSteps(jopt.adam(0.1), 2), 6),
    (lambda: jopt.apply_if_finite(jopt.adam(0.1), 2), 4),
    (lambda: jopt.add_noise(0.1, 0.5, 0), 0),
    (lambda: jopt.zero_nans(), 2),
]  # fmt: skip


@pytest.mark.parametrize("make, slots", WRAPPED, ids=lambda x: "")
@pytest.mark.parametrize("map_params", [tree.map_params, optax.tree.map_params])
def test_slots_of_the_parameters_are_mapped(map_params, make, slots):
    tx = make()
    state = tx.init(PARAMS)
    for made_by in (tx, tx.init):
        got = map_params(
            made_by, lambda x: "slot", state, transform_non_params=lambda x: "other"
        )
        leaves = jax.tree.leaves(got)
        assert leaves.count("slot") == slots
        assert leaves.count("other") == len(leaves) - slots
        assert jax.tree.structure(got) == jax.tree.structure(state)
    kept = map_params(tx, lambda x: x, state)
    assert jax.tree.structure(kept) == jax.tree.structure(state)


@pytest.mark.parametrize("make, slots", WRAPPED, ids=lambda x: "")
def test_slots_meet_what_belongs_to_their_parameter(make, slots):
    tx = make()
    spec = {"w": "W", "b": "B"}
    got = tree.map_params(tx, lambda x, s: (s, x.shape), tx.init(PARAMS), spec)
    pairs = [x for x in jax.tree.leaves(got, is_leaf=_is_pair) if _is_pair(x)]
    assert len(pairs) == slots
    ours = {"B": (), "W": () if isinstance(got, jopt.ZeroNansState) else (2,)}
    assert all(ours[name] == shape for name, shape in pairs)


@pytest.mark.parametrize("wrap", [lambda tx: tx, lambda tx: jopt.chain(tx)])
@pytest.mark.parametrize("library", [jopt, optax])
def test_slots_of_lookahead_are_mapped_with_both_copies_or_one(library, wrap):
    tx = wrap(library.lookahead(library.adam(0.1), 5, 0.5))
    pair = library.LookaheadParams
    state = tx.init(pair.init_synced(PARAMS))
    fast = {"w": "W", "b": "B"}
    for spec in (fast, pair(fast, {"w": "no", "b": "no"})):
        got = tree.map_params(
            tx, lambda x, s: s, state, spec, transform_non_params=lambda x: 0
        )
        adam = tree.get(got, "ScaleByAdamState")
        assert adam.mu == adam.nu == {"w": "W", "b": "B"}
        assert tree.get(got, "steps_since_sync") == 0
        assert jax.tree.structure(got) == jax.tree.structure(state)
    same = tree.map_params(tx, lambda x: x, state)
    assert all(map(np.array_equal, *map(jax.tree.leaves, (same, state))))


def test_slots_of_plain_lookahead_are_mapped():
    tx = jopt.lookahead(jopt.adam(0.1), 5, 0.5)
    got = tree.map_params(tx, lambda x, s: s, tx.init(PARAMS), {"w": "W", "b": "B"})
    assert got.slow == got.fast_state[0].mu == {"w": "W", "b": "B"}


def test_lookahead_of_both_copies_is_described():
    tx = jopt.lookahead(jopt.adam(0.1), 5, 0.5)
    params = jopt.LookaheadParams.init_synced(PARAMS)
    mine, shared = by_param(tx, tx.init(params), params)
    assert [len(slots) for slots in mine] == [2, 2, 0, 0]
    assert len(shared) == 2  # the counts of Adam and of the steps


def test_every_leaf_of_a_slot_meets_its_parameter():
    tx = jopt.scale_by_sm3()
    state = tx.init({"w": jnp.ones((2, 3)), "b": jnp.ones(2)})
    got = tree.map_params(tx, lambda x, s: s, state, {"w": "W", "b": "B"})
    assert got.mu == {"w": ["W", "W"], "b": ["B"]}
    with pytest.raises(ValueError):
        tree.map_params(tx, lambda x, s: s, state, {"w": "W", "c": "B"})


def _is_pair(x):
    return isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], str)


def test_mapping_wants_the_state_of_the_transformation():
    adam, sgd = jopt.adam(0.1), jopt.sgd(0.1, momentum=0.9)
    with pytest.raises(ValueError):
        tree.map_params(adam, lambda x: x, sgd.init(PARAMS))
    with pytest.raises(ValueError):
        tree.map_params(adam, lambda x, s: x, adam.init(PARAMS), {"w": 1})


def test_masked_slots_can_be_leaves():
    tx = jopt.masked(jopt.trace(0.9), {"w": True, "b": False})
    got = tree.map_params(
        tx,
        lambda x, s: s,
        tx.init(PARAMS),
        {"w": 1, "b": 2},
        is_leaf=lambda x: isinstance(x, jopt.MaskedNode),
    )
    assert got.inner_state.trace == {"w": 1, "b": 2}
