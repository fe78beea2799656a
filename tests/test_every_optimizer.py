"""Every promise, for every row of the catalogue."""

import functools
import pickle
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jopt
from tests import stored
from tests.catalogue import FORMS, METHODS, ROWS, by_form, extra_of, form_of
from tests.runs import (
    STEPS,
    is_of_the_whole_tree,
    optax_rules,
    params_and_grads,
    random_tree,
    run_of,
    scanned,
    steps_of,
    two_of,
)

# By row and not by test, so that the runs of one row are there when they are compared.
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id, scope="module")
# What does not depend on the settings of a method.
methods = pytest.mark.parametrize(
    "row", METHODS.values(), ids=lambda row: row.id, scope="module"
)
# What the engine promises, whatever the mathematics of a method: one row of each form.
forms = pytest.mark.parametrize("row", by_form(METHODS.values()), scope="module")


# ---------------------------------------------------------------------------- machinery


def few_of(row, tree):
    """A leaf, or two where what is done to one depends on the others."""
    return two_of(row, tree, ("w", "b") if is_of_the_whole_tree(row) else ("w",))


def a_step_of(row):
    """Parameters and gradients of one step, of two leaves."""
    return two_of(row, random_tree(0)), two_of(row, random_tree(1))


def one_step(row, params, grads, state=None):
    tx = row.make()
    state = tx.init(params) if state is None else state
    extra = row.extra(params) if row.extra else {}
    return tx.update(grads, state, params, **extra)


def distance(a, b):
    """The largest difference in each leaf, relative to the leaf's largest entry."""

    def one(x, y):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        size = np.max(np.abs(y), initial=1e-30)
        return np.max(np.abs(x - y), initial=0) / size

    return jax.tree.map(one, a, b)


def assert_close(a, b, rtol, slack=None):
    chex.assert_trees_all_equal_structs(a, b)
    off = distance(a, b)
    slack = jax.tree.map(lambda _: 0.0, off) if slack is None else slack
    for (path, d), s in zip(jax.tree.leaves_with_path(off), jax.tree.leaves(slack)):
        assert d <= rtol + s, f"{jax.tree_util.keystr(path)}: {d:.2e} > {rtol + s:.2e}"


def types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


# ------------------------------------------------------------------------- mathematics


@rows
def test_equals_its_paper(row):
    assert row.reference is not None, "every row has a float64 reference"
    with jax.enable_x64(True):
        params, grads = params_and_grads(np.float64)
    got, _, updates = run_of(row.id, np.float64)
    want, want_updates = reference(row, params, grads)
    if want_updates is None:
        assert_close(got, want, row.paper_rtol)
    else:
        assert_close(updates, want_updates, row.paper_rtol)
    single, _, _ = run_of(row.id, np.float32)
    assert_close(single, {k: got[k] for k in single}, row.f32_rtol)


def reference(row, params, grads):
    """The parameters after all steps, or for a part the updates of all steps."""
    settings = (
        row.settings if row.reference_settings is None else row.reference_settings
    )
    p = {k: np.asarray(x) for k, x in params.items()}
    gs = {k: list(np.asarray(x)) for k, x in grads.items()}
    if row.whole_tree:
        steps = [{k: gs[k][t] for k in gs} for t in range(STEPS)]
        out = row.reference(p, steps, **settings)
        if row.descends:
            return out, None
        return None, {k: np.stack([u[k] for u in out]) for k in p}
    out = {k: row.reference(p[k], gs[k], **settings) for k in p}
    return (out, None) if row.descends else (None, {k: np.stack(out[k]) for k in p})


@rows
def test_equals_optax(row):
    """Its results are stored; `-m peers` makes them anew."""
    if row.optax is None:
        pytest.skip("optax has no such transformation")
    want = stored.result_of(row)
    got, _, updates = run_of(row.id, np.float64)
    updates = {k: np.asarray(x)[list(stored.KEPT)] for k, x in updates.items()}
    if row.differs:
        with pytest.raises(AssertionError):
            assert_close(got, want.params, 1e-6)
            assert_close(updates, want.updates, 1e-6)
        return
    assert_close(got, want.params, row.rtol64)
    assert_close(updates, want.updates, row.rtol64)
    # In float32 as near as optax is to itself in float64: its 1 - b**t is off by 1e-5.
    got, _, _ = run_of(row.id, np.float32)
    single, exact = ({k: x[k] for k in got} for x in (want.params32, want.params))
    assert_close(got, single, row.rtol, slack=distance(single, exact))


def test_what_is_stored_is_of_this_optax_and_of_these_rows():
    assert stored.version() == optax.__version__
    assert stored.digests() == [stored.digest_of(row) for row in stored.COMPARED]


@pytest.mark.peers
@pytest.mark.parametrize("row", stored.COMPARED, ids=lambda row: row.id)
def test_optax_still_gives_what_is_stored(row):
    for now, then in zip(stored.computed(row), stored.result_of(row)):
        assert_close(now, then, 1e-11 if then["s"].dtype == np.float64 else 1e-6)


@rows
def test_state_reads_as_optax_s(row):
    if row.optax is None:
        pytest.skip("optax has no such transformation")
    params, _ = params_and_grads(steps=1)
    ours = jax.eval_shape(row.make().init, params)
    with optax_rules():
        theirs = jax.eval_shape(row.make_optax().init, params)
    same_state(ours, theirs)
    # and a state made by optax can be continued
    jax.eval_shape(functools.partial(one_step, row), params, params, theirs)


def same_state(ours, theirs):
    if hasattr(theirs, "_fields"):
        assert type(theirs).__name__ in [c.__name__ for c in type(ours).__mro__]
        assert ours._fields == theirs._fields
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            same_state(a, b)
    elif isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for k in theirs:
            same_state(ours[k], theirs[k])
    else:
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)


@rows
def test_descends(row):
    if not row.descends:
        pytest.skip("a part of an optimizer")

    target = jnp.array([0.5, -0.3])

    def loss(p):
        return jnp.sum((p["x"] - target) ** 2)

    tx = row.make()

    def step(carry, _):
        p, state = carry
        value, g = jax.value_and_grad(loss)(p)
        u, state = tx.update(g, state, p, **(row.extra(p) if row.extra else {}))
        return (jopt.apply_updates(p, u), state), value

    @jax.jit
    def run(p):
        return jax.lax.scan(step, (p, tx.init(p)), length=200)

    (p, _), values = run({"x": jnp.array([1.0, 1.0])})
    assert loss(p) < 0.7 * values[0]
    assert jnp.all(jnp.isfinite(values))


# ------------------------------------------------------------------------ low precision

PAIRS = [("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")]


@pytest.mark.parametrize("param_dtype, grad_dtype", PAIRS)
@rows
def test_types_are_stable(row, param_dtype, grad_dtype):
    params, grads = random_tree(0, param_dtype), random_tree(1, grad_dtype)
    state = jax.eval_shape(row.make().init, params)
    step = functools.partial(one_step, row)
    updates, new_state = jax.eval_shape(step, params, grads, state)
    assert types(new_state) == types(state)
    assert types(updates) == types(grads)
    new = jax.eval_shape(jopt.apply_updates, params, updates)
    assert types(new) == types(params)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state) if is_float(x))


def is_float(x):
    return jnp.issubdtype(x.dtype, jnp.floating)


@pytest.mark.parametrize("param_dtype, grad_dtype", [PAIRS[0], PAIRS[2]])
@methods
def test_values_are_finite(row, param_dtype, grad_dtype):
    params = few_of(row, random_tree(0, param_dtype))
    tx, extra = row.make(), row.extra or (lambda p: {})
    small = float(jnp.finfo(grad_dtype).smallest_subnormal)
    scales = jnp.array([0.0, small, 1e-4, 1.0, 300.0], grad_dtype)

    @jax.jit
    def run(params, scales):
        def step(state, scale):
            grads = {k: jnp.full(x.shape, scale) for k, x in params.items()}
            updates, new = tx.update(grads, state, params, **extra(params))
            assert types(new) == types(state) and types(updates) == types(grads)
            return new, (updates, [x for x in jax.tree.leaves(new) if is_float(x)])

        return jax.lax.scan(step, tx.init(params), scales)[1]

    found = run(params, scales)
    assert found[0]["w"].shape == (5, *params["w"].shape)
    chex.assert_tree_all_finite(found)


# ---------------------------------------------------------------------- transformations


def test_each_form_has_a_row():
    found = set.union(*(set(form_of(row.make())) for row in FORMS.values()))
    assert found == {
        *("elementwise", "step", "all leaves", "hint", "slots", "whole"),
        *("trees", "wrapper", "masked"),
    }
    assert "contrib.muon" in FORMS, "the form with matrices"
    extra = set.union(*(set(extra_of(row)) for row in FORMS.values()))
    assert {"value", "obj_fn", "value_fn"} <= extra
    known = {form_of(row.make()) for row in FORMS.values()}
    assert known == {form_of(row.make()) for row in METHODS.values()}


@forms
def test_jit_equals_eager_and_compiled_once(row):
    params, grads = a_step_of(row)
    state = row.make().init(params)
    traces = 0

    @jax.jit
    def step(g, s, p):
        nonlocal traces
        traces += 1
        return one_step(row, p, g, s)

    jitted, jitted_state = step(grads, state, params)
    eager, eager_state = one_step(row, params, grads, state)
    assert_close(eager, jitted, 1e-6)
    assert types(eager_state) == types(jitted_state)
    with jax.disable_jit():  # operation by operation
        plain, _ = one_step(row, params, grads)
    assert_close(plain, jitted, 3e-6)

    step(jitted, jitted_state, params)
    assert traces == 1
    with count_compiles() as compiled:
        one_step(row, params, grads, jitted_state)
    assert not compiled, "an equal transformation, rebuilt, must not compile again"


@forms
def test_steps_one_by_one_equal_a_scan(row):
    given = [two_of(row, x) for x in params_and_grads()]
    got = steps_of(row.make(), *given, row.extra)
    want = scanned(row.make(), row.extra)(*given)
    assert types(got) == types(want)
    assert_close(got[0], want[0], row.f32_rtol)
    assert_close(got[2], want[2], row.f32_rtol)


class count_compiles(list):
    """Collects the names of programs that XLA compiles within the block."""

    def __enter__(self):
        self.open = True
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def _listen(self, event, duration, **kwargs):
        if self.open and event.endswith("backend_compile_duration"):
            self.append(event)

    def __exit__(self, *_):
        self.open = False


@forms
def test_vmap_equals_a_loop(row):
    if row.extra or "noise" in row.name or "noisy" in row.name:
        pytest.skip("its extra arguments or keys are not batched")
    trees = [two_of(row, random_tree(i)) for i in range(2)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *trees)
    tx = row.make()
    state = jax.vmap(tx.init)(batch)
    got, _ = jax.jit(jax.vmap(tx.update))(batch, state, batch)
    for i, p in enumerate(trees):
        want, _ = tx.update(p, tx.init(p), p)
        assert_close({k: x[i] for k, x in got.items()}, want, 3e-6)


@rows
def test_init_is_abstract_and_owns_its_buffers(row):
    params = random_tree(0)
    state = row.make().init(params)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    abstract = row.make().init(shapes)
    assert types(abstract) == types(state)
    assert types(jax.eval_shape(row.make().init, shapes)) == types(state)
    mine = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(params)}
    keys = jax.dtypes.prng_key
    arrays = [x for x in jax.tree.leaves(state) if not jnp.issubdtype(x.dtype, keys)]
    buffers = [x.unsafe_buffer_pointer() for x in arrays if x.size]
    assert not mine.intersection(buffers)
    assert len(set(buffers)) == len(buffers), "a donated step needs every buffer once"


@forms
def test_sharded_equals_unsharded(row):
    mesh = jax.make_mesh(
        (4, 2), ("x", "y"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    specs = {"w": ("x", "y"), "stack": (), "b": ("y",), "s": ()}
    params, grads = a_step_of(row)

    def shard(tree):
        return {
            k: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*specs[k])))
            for k, x in tree.items()
        }

    sharded = shard(params)
    state = jax.jit(row.make().init)(sharded)
    for x in jax.tree.leaves(state):
        for p in sharded.values():
            if x.shape == p.shape and x.ndim > 0:
                assert x.sharding.is_equivalent_to(p.sharding, x.ndim)
    got, _ = one_step(row, sharded, shard(grads), state)
    assert_close(got, one_step(row, params, grads)[0], 3e-6)


# ------------------------------------------------------------------------------- leaves


@forms
def test_odd_leaves(row):
    odd = {
        "none": None,
        "empty": {},
        "no_rows": jnp.zeros((0, 3)),
        "step": jnp.arange(3),
        "key": jax.random.key(0),
        "function": jnp.tanh,
        "number": 1.5,
        "w": jnp.ones((2, 3)),
        "unused": jnp.ones(2),
    }
    grads = odd | dict.fromkeys(("step", "key", "function", "unused"))
    grads["number"] = 0.5
    if row.extra:
        pytest.skip("its extra arguments differentiate the parameters")
    updates, state = one_step(row, odd, grads)
    for _ in range(2):
        updates, state = one_step(row, odd, grads, state)
    new = jopt.apply_updates(odd, updates)
    assert new["none"] is None and new["empty"] == {}
    assert new["function"] is jnp.tanh
    chex.assert_trees_all_equal(new["step"], odd["step"])
    chex.assert_trees_all_equal(new["unused"], odd["unused"])
    assert new["no_rows"].shape == (0, 3)
    assert jnp.isfinite(new["number"]) and new["number"].shape == ()
    chex.assert_tree_all_finite(new["w"])


@methods
def test_complex_parameters(row):
    """Real numbers in a complex dtype take real ones' steps; others are finite."""
    tx, (params, grads) = row.make(), params_and_grads(steps=2)
    params, grads = few_of(row, params), few_of(row, grads)
    real_part = functools.partial(jax.tree.map, jnp.real)

    def extra(p):
        given = row.extra(real_part(p)) if row.extra else {}
        return {k: of_real(x) if callable(x) else x for k, x in given.items()}

    def of_real(function):
        return lambda p, *args: function(real_part(p), *args)

    as_complex = functools.partial(jax.tree.map, lambda x: x.astype(jnp.complex64))
    turned = jax.tree.map(jax.lax.complex, params, params)
    run = scanned(tx, extra)
    same, turned = (run(p, as_complex(grads))[2] for p in (as_complex(params), turned))
    with jax.disable_jit():
        real = steps_of(tx, params, grads, row.extra)[2]
    assert_close(real_part(same), real, row.f32_rtol)
    for x, y in zip(jax.tree.leaves(same), jax.tree.leaves(turned)):
        assert x.dtype == y.dtype == jnp.complex64
        assert np.max(np.abs(np.imag(x))) < 1e-12
        assert np.all(np.isfinite(y))


@forms
def test_masked_equals_alone(row):
    if is_of_the_whole_tree(row):
        pytest.skip("it looks at the whole tree")
    params, grads = random_tree(0), random_tree(1)
    mask = {"w": True, "stack": False, "b": True, "s": False}
    tx = jopt.masked(row.make(), mask)
    state = tx.init(params)
    got, state = tx.update(grads, state, params)
    some = ("w", "b")
    alone = {k: params[k] for k in some}
    want, _ = one_step(row, alone, {k: grads[k] for k in some})
    for k in some:
        chex.assert_trees_all_equal(got[k], want[k])
    for k in ("stack", "s"):
        chex.assert_trees_all_equal(got[k], grads[k])
    hidden = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, jopt.MaskedNode))
    if len(jax.tree.leaves(row.make().init(params))) > 4:
        assert any(isinstance(x, jopt.MaskedNode) for x in hidden)


@forms
def test_wrong_gradients_are_refused(row):
    if row.name == "identity":
        pytest.skip("it looks at nothing")
    params = random_tree(0)
    tx, extra = row.make(), row.extra(params) if row.extra else {}
    state = tx.init(params)
    wrong = {
        "batch axis": {k: jnp.zeros((8, *x.shape)) for k, x in params.items()},
        "broadcast": params | {"b": jnp.zeros((1,))},
        "missing": {k: x for k, x in params.items() if k != "b"},
        "integer": params | {"b": jnp.zeros((6,), int)},
    }
    for grads in wrong.values():
        update = functools.partial(tx.update, **extra)
        for call in (update, jax.jit(update)):
            with pytest.raises((ValueError, TypeError), match=r"updates.*'"):
                updates, _ = call(grads, state, params)
                # what keeps nothing and reads no parameters cannot know
                assert not any(map(np.ndim, jax.tree.leaves(state)))
                jopt.apply_updates(params, updates)


# --------------------------------------------------------------------- how it was made


@rows
def test_is_known_by_its_settings(row):
    a, b = row.make(), row.make()
    assert a == b and hash(a) == hash(b) and len({a, b}) == 1
    assert repr(a) == repr(b) and repr(a).startswith(row.name.split(".")[-1] + "(")
    assert a != jopt.chain(a)
    numbers = {
        k: v for k, v in row.settings.items() if isinstance(v, float) and k != "b1"
    }
    for k, v in numbers.items():
        assert type(row)(row.name, row.settings | {k: v * 0.95}).make() != a
    if not any(callable(v) for v in row.settings.values()):
        again = pickle.loads(pickle.dumps(a))
        assert again == a and isinstance(again, jopt.GradientTransformation)


def with_traced_numbers(row):
    """The first step as a function of the settings that are numbers, and these."""
    params, grads = a_step_of(row)
    numbers = {k: v for k, v in row.settings.items() if isinstance(v, float)}
    if not numbers:
        pytest.skip("it has none")

    def step(numbers):
        other = row._replace(settings=row.settings | numbers)
        return one_step(other, params, grads)[0]

    return step, numbers


@rows
def test_hyperparameters_may_be_traced(row):
    step, numbers = with_traced_numbers(row)
    assert types(jax.eval_shape(step, numbers)) == types(a_step_of(row)[0])


@forms
def test_traced_hyperparameters_give_the_same_step(row):
    step, numbers = with_traced_numbers(row)
    want, _ = one_step(row, *a_step_of(row))
    assert_close(jax.jit(step)(numbers), want, 2e-5)


@rows
def test_docstring_is_complete(row):
    factory = jopt
    for name in row.name.split("."):
        factory = getattr(factory, name)
    doc = factory.__doc__
    assert doc and doc.splitlines()[0].endswith("."), "one sentence first"
    for part in ("Args:" if row.settings else "", "Returns:", "Example:"):
        assert part in doc
    if row.descends:
        assert "Reference:" in doc and re.search(r"\d{4}", doc)
    for name in re.findall(r"\w+", " ".join(row.settings)):
        assert name in doc
