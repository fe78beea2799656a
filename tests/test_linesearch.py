"""Line searches: the steps that they take, what they cost, what they say."""

import functools
import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import jopt
from tests import references

ZOOM = jopt.scale_by_zoom_linesearch
BACKTRACKING = jopt.scale_by_backtracking_linesearch


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def waves(x):
    return jnp.sum((x - 0.3) ** 2 + 0.3 * jnp.sin(9 * x))


def distance(p):
    return jnp.sum((p - 3.0) ** 2)


def kink(x):
    return jnp.sum(jnp.abs(x - 0.37))


def flat(x):
    return jnp.sum(0 * x) + 1


def barrier(x):
    """Without a value where x is too large."""
    return jnp.sum(x**2 - jnp.log(0.4 - x))


LOSSES = [rosenbrock, waves, distance, kink, flat, barrier]


def search(tx, loss, p, u=None, state=None, **more):
    """One step along `u`, downhill if there is none."""
    value, g = jax.value_and_grad(loss)(p, **more)
    u = jax.tree.map(jnp.negative, g) if u is None else u
    state = tx.init(p) if state is None else state
    more = dict(value=value, grad=g, value_fn=loss, **more)
    return tx.update(u, state, p, **more)


# --------------------------------------------------------------------------- the steps


@functools.cache
def stepper(library, name, words=()):
    """A compiled step downhill; its loss and its numbers may change."""

    def loss(p, kind):
        return jax.lax.switch(kind, LOSSES, ravel_pytree(p)[0])

    def step(p, state, kind, numbers):
        tx = getattr(library, name)(**numbers, **dict(words))
        return search(tx, loss, p, state=state, kind=kind)

    return jax.jit(step)


def optax_rules():
    """optax itself needs JAX's looser promotion."""
    return jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")


def points(state):
    return int(state.info.num_linesearch_steps)


def compare_steps(name, numbers, words, kind, dtype, rtol):
    """Every step of optax, from its own state, against the same step of ours."""
    theirs = stepper(optax, name, words)
    ours = stepper(jopt, name, words)
    p = {"a": jnp.array([-1.5, -0.5], dtype), "b": jnp.array([[0.2, 0.3]], dtype)}
    state = getattr(optax, name)(**numbers, **dict(words)).init(p)
    state = jax.tree.map(lambda x: x.astype(x.dtype), state)  # no weak types: one trace
    for _ in range(6):
        with optax_rules()[0], optax_rules()[1]:
            want, after = theirs(p, state, kind, numbers)
        got = ours(p, state, kind, numbers)
        chex.assert_trees_all_close(got[0], want, rtol=rtol, atol=rtol)
        for name in ("learning_rate", "value", "grad"):
            x, y = getattr(got[1], name), getattr(after, name)
            chex.assert_trees_all_close(x, y, rtol=rtol, atol=rtol)
        assert points(got[1]) == points(after)
        p, state = jax.tree.map(jnp.add, p, want), after


kinds = pytest.mark.parametrize(
    "kind", range(len(LOSSES)), ids=lambda i: LOSSES[i].__name__
)
precisions = pytest.mark.parametrize(
    "dtype, rtol", [(np.float32, 1e-3), (np.float64, 1e-8)], ids=["float32", "float64"]
)


OTHER_WORDS = (("approx_dec_rtol", None), ("initial_guess_strategy", "one"))


@pytest.mark.each_value_once
@kinds
@precisions
@pytest.mark.parametrize(
    "numbers, words",
    [
        (dict(), ()),
        (dict(curv_rtol=0.1, increase_factor=3.0), ()),
        (dict(max_learning_rate=0.05, slope_rtol=0.3, tol=1e-3), ()),
        (dict(curv_rtol=0.1), OTHER_WORDS),
    ],
    ids=str,
)
def test_zoom_takes_the_steps_of_optax(numbers, words, kind, dtype, rtol):
    default = dict(
        max_linesearch_steps=20,
        max_learning_rate=1e9,
        curv_rtol=0.9,
        increase_factor=2.0,
        slope_rtol=1e-4,
        tol=0.0,
    )
    with jax.enable_x64(dtype == np.float64):
        numbers = default | numbers
        compare_steps("scale_by_zoom_linesearch", numbers, words, kind, dtype, rtol)


@kinds
@precisions
@pytest.mark.parametrize(
    "numbers",
    [
        dict(),
        dict(decrease_factor=0.5, increase_factor=np.inf, slope_rtol=0.5),
        dict(max_backtracking_steps=3, max_learning_rate=1e-3),
        dict(atol=0.5, rtol=0.5, increase_factor=1.0),
    ],
    ids=str,
)
def test_backtracking_takes_the_steps_of_optax(numbers, kind, dtype, rtol):
    default = dict(
        max_backtracking_steps=30,
        slope_rtol=1e-4,
        decrease_factor=0.8,
        increase_factor=1.5,
        max_learning_rate=1.0,
        atol=0.0,
        rtol=0.0,
    )
    with jax.enable_x64(dtype == np.float64):
        compare_steps(
            "scale_by_backtracking_linesearch",
            default | numbers,
            (("store_grad", True),),
            kind,
            dtype,
            rtol,
        )


@pytest.mark.parametrize(
    "numbers",
    [
        dict(),
        dict(decrease_factor=0.5, increase_factor=np.inf, slope_rtol=0.5),
        dict(max_learning_rate=1e-3, max_backtracking_steps=1),
        dict(atol=5.0, rtol=0.5, increase_factor=1.0),
    ],
    ids=str,
)
def test_backtracking_follows_the_book(numbers):
    numbers = dict(max_backtracking_steps=20) | numbers
    tx = BACKTRACKING(**numbers, store_grad=True)

    def loss(p):
        return rosenbrock(p["x"])

    with jax.enable_x64(True):
        p, directions, steps = {"x": jnp.array([-1.5, 0.5, 0.2])}, [], []
        start, state = p, tx.init(p)
        for _ in range(6):
            directions.append(jax.tree.map(jnp.negative, jax.grad(loss)(p)))
            u, state = search(tx, loss, p, directions[-1], state)
            p = jax.tree.map(jnp.add, p, u)
            steps.append(u)
            chex.assert_trees_all_close(state.value, loss(p))
            chex.assert_trees_all_close(state.grad, jax.grad(loss)(p))
        want = references.backtracking(
            jax.tree.map(np.asarray, start), directions, loss, jax.grad(loss), **numbers
        )
    chex.assert_trees_all_close(steps, want, rtol=1e-9)


@pytest.mark.parametrize("loss", [rosenbrock, waves, distance, barrier])
@pytest.mark.parametrize("numbers", [dict(), dict(slope_rtol=0.2, curv_rtol=0.3)])
def test_zoom_ends_where_the_strong_wolfe_conditions_hold(loss, numbers):
    tx = ZOOM(30, **numbers, approx_dec_rtol=None)
    c1, c2 = numbers.get("slope_rtol", 1e-4), numbers.get("curv_rtol", 0.9)

    @jax.jit
    def step(p, state):
        u, state = search(tx, loss, p, state=state)
        g, new = jax.grad(loss)(p), jax.grad(loss)(p + u)
        slopes = -jnp.vdot(g, g), -jnp.vdot(g, new)
        return p + u, state, (loss(p), loss(p + u), *slopes)

    p = jnp.linspace(-1.5, 0.3, 4)
    state = tx.init(p)
    for _ in range(4):
        p, state, (start, end, slope, new_slope) = step(p, state)
        assert end <= start + c1 * state.learning_rate * slope
        assert abs(new_slope) <= -c2 * slope
        assert not state.info.failed


CURVES = {
    "quadratic": lambda x: (x - 0.1) ** 2,
    "far": lambda x: (x - 30.0) ** 4,
    "waves": lambda x: (x - 0.3) ** 4 + 0.1 * jnp.sin(20 * x) - 4 * x,
    "kink": lambda x: jnp.sqrt((x - 0.37) ** 2 + 1e-4),
    "cubic": lambda x: x**3 - 2 * x,
}


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("curv_rtol", [0.9, 0.1, 0.01])
def test_zoom_follows_the_book(name, curv_rtol):
    with jax.enable_x64(True):
        curve = jax.jit(CURVES[name])
        slope = jax.grad(curve)
        want = references.wolfe_step(
            lambda x: float(curve(x)), lambda x: float(slope(x)), c2=curv_rtol
        )
        tx = ZOOM(60, curv_rtol=curv_rtol, approx_dec_rtol=None, stepsize_precision=0.0)
        _, state = search(tx, curve, jnp.array(0.0), jnp.array(1.0))
        assert state.info.curvature_error == 0
    np.testing.assert_allclose(state.learning_rate, want, rtol=1e-6)
    assert not state.info.failed


def test_zoom_settles_for_decrease_in_a_short_interval():
    """There is no point of small slope beside a kink."""
    tx = ZOOM(40, stepsize_precision=1e-3)
    loss = lambda x: jnp.abs(x - 0.37)  # noqa: E731
    _, state = search(tx, loss, jnp.array(0.0), jnp.array(1.0))
    assert not state.info.failed
    assert state.info.curvature_error > 0
    assert state.info.num_linesearch_steps < 15
    np.testing.assert_allclose(state.learning_rate, 0.37, atol=1e-3)


def test_zoom_returns_the_best_point_when_its_steps_are_spent():
    tx = ZOOM(4, curv_rtol=1e-3)
    loss = lambda x: (x - 0.3) ** 4 + 0.1 * jnp.sin(20 * x)  # noqa: E731
    p = jnp.array(0.0)
    u, state = search(tx, loss, p, jnp.array(-1.0))
    assert state.info.num_linesearch_steps == 4
    assert not state.info.failed
    np.testing.assert_allclose(state.value, loss(p + u), rtol=1e-6)
    assert loss(p + u) < loss(p)


def test_zoom_stops_at_the_largest_step():
    loss = lambda x: -x  # noqa: E731
    u, state = search(ZOOM(20, max_learning_rate=3.0), loss, jnp.array(0.0))
    assert u == 3
    assert state.info.num_linesearch_steps == 3


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("tx", [ZOOM(10), BACKTRACKING(10)], ids=str)
def test_a_loss_that_is_not_finite_is_too_high(tx, bad):
    loss = lambda x: jnp.where(x > 0.3, bad, (x - 0.2) ** 2)  # noqa: E731
    _, state = search(tx, loss, jnp.array(0.0), jnp.array(1.0))
    assert 0 < state.learning_rate < 0.3
    assert not state.info.failed


@pytest.mark.parametrize("tx", [ZOOM(5), BACKTRACKING(5)], ids=str)
def test_failure_is_said(tx):
    assert not tx.init(jnp.zeros(2)).info.failed  # nothing was tried
    uphill = lambda x: x + x**2  # noqa: E731
    _, state = search(tx, uphill, jnp.array(0.5), jnp.array(1.0))
    assert state.info.failed
    assert state.learning_rate > 0
    nowhere = lambda x: jnp.where(x > 0, jnp.nan, -x)  # noqa: E731
    u, state = search(tx, nowhere, jnp.array(0.0), jnp.array(1.0))
    assert state.info.failed
    assert u == 0
    assert state.value == 0
    # and the next search is none the worse for it
    bowl = lambda x: (x - 3.0) ** 2  # noqa: E731
    _, state = search(tx, bowl, jnp.array(0.0), state=state)
    assert not state.info.failed
    assert state.learning_rate > 0


def test_verbose_prints_a_failure(capfd):
    loss = lambda x: x + x**2  # noqa: E731
    for tx in (ZOOM(3, verbose=True), BACKTRACKING(3, verbose=True)):
        search(tx, loss, jnp.array(0.5), jnp.array(1.0))
        jax.effects_barrier()
        assert "failed: loss 7.5" in capfd.readouterr().out
        search(tx, loss, jnp.array(0.5))
        jax.effects_barrier()
        assert not capfd.readouterr().out


@pytest.mark.parametrize(
    "tx", [ZOOM(20, curv_rtol=0.1), BACKTRACKING(20, store_grad=True)], ids=str
)
def test_a_batch_is_searched_as_each_alone(tx):
    def loss(p, x):
        return jnp.sum((p["a"] - x) ** 4) + p["b"] ** 2

    def step(p, state, x):
        u, state = search(tx, loss, p, state=state, x=x)
        return jopt.apply_updates(p, u), state

    def steps(p, x):
        start = p, tx.init(p)
        return jax.lax.scan(lambda c, _: (step(*c, x), None), start, length=3)[0]

    x = jnp.array([0.5, 3.0, -20.0])
    ps = {"a": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "b": jnp.arange(3.0)}
    together = jax.vmap(steps)(ps, x)
    for i in range(3):
        p, one = (jax.tree.map(operator.itemgetter(i), tree) for tree in (ps, together))
        state = tx.init(p)
        for _ in range(3):
            p, state = step(p, state, x[i])
        chex.assert_trees_all_close((p, state), one, rtol=1e-4, atol=1e-5)


def test_complex_parameters_are_pairs_of_real_ones():
    target = jnp.array([1 + 2j, 3 - 1j])

    def loss(z):
        return jnp.sum(jopt.abs_sq(z**2 - target))

    def of_pair(p):
        return loss(jax.lax.complex(p["re"], p["im"]))

    z = jnp.array([0.5 + 0.3j, 0.1 - 0.2j])
    p = {"re": z.real, "im": z.imag}
    for tx in (ZOOM(20, curv_rtol=0.1), BACKTRACKING(20, store_grad=True)):
        (value, g), (u, state) = jax.value_and_grad(loss)(z), search(tx, of_pair, p)
        g = jnp.conj(g)  # the direction of ascent
        got, same = tx.update(-g, tx.init(z), z, value=value, grad=g, value_fn=loss)
        chex.assert_trees_all_close(got, jax.lax.complex(u["re"], u["im"]), rtol=1e-5)
        chex.assert_trees_all_close(same.value, state.value, rtol=1e-5)
        assert points(same) == points(state) > 1
        assert same.learning_rate.dtype == same.value.dtype == jnp.float32
        chex.assert_trees_all_close(same.grad, jax.grad(loss)(z + got), rtol=1e-5)


# ------------------------------------------------------------------------ what it costs


@pytest.mark.parametrize(
    "make",
    [
        jopt.lbfgs,
        lambda: jopt.chain(jopt.sgd(1.0), BACKTRACKING(15, store_grad=True)),
    ],
    ids=["zoom", "backtracking"],
)
def test_nothing_is_traced_from_the_second_step_on(make):
    traces = 0

    @jax.jit  # says that it is pure
    def loss(p, x):
        nonlocal traces
        traces += 1
        return jnp.sum((p - x) ** 2 * jnp.array([1.0, 10.0]))

    p = jnp.zeros(2)
    state = make().init(p)
    for i in range(6):
        # all of it made anew, as a newcomer's loop does, but for the function
        tx, value_and_grad = make(), jopt.value_and_grad_from_state(loss)
        x = jnp.ones(2) + i
        value, g = value_and_grad(p, x, state=state)
        u, state = tx.update(g, state, p, value=value, grad=g, value_fn=loss, x=x)
        p = jopt.apply_updates(p, u)
        if i == 0:
            first = traces
    assert traces == first
    assert first < 10


@pytest.mark.parametrize("make", [jopt.lbfgs])
def test_a_loss_that_reads_an_attribute_is_read_at_each_eager_step(make):
    class Model:
        batch = jnp.zeros(2)

        def loss(self, p):
            return jnp.sum((p - self.batch) ** 2 * jnp.array([1.0, 10.0]))

    def run(read_by_jopt):
        model, p, points = Model(), jnp.ones(2), []
        tx = make()
        state = tx.init(p)
        for i in range(4):
            model.batch = jnp.full(2, float(i))
            if read_by_jopt:
                value, g = jopt.value_and_grad_from_state(model.loss)(p, state=state)
                more = dict(value_fn=model.loss)
            else:  # all that was read, passed on
                value, g = jax.value_and_grad(model.loss)(p)
                batch = model.batch
                more = dict(value_fn=lambda p, b=batch: Model.loss(Fixed(b), p))
            u, state = tx.update(g, state, p, value=value, grad=g, **more)
            p = jopt.apply_updates(p, u)
            state = jopt.tree.set(state, value=jnp.inf)  # the batch is another one
            points.append(p)
        return jnp.stack(points)

    class Fixed:
        def __init__(self, batch):
            self.batch = batch

    np.testing.assert_allclose(run(True), run(False), rtol=1e-5)


def test_backtracking_computes_one_gradient():
    gradients = 0

    @jax.custom_jvp
    def loss(p):
        return jnp.sum((p - 3.0) ** 2)

    @loss.defjvp
    def loss_jvp(primals, tangents):
        nonlocal gradients
        gradients += 1
        return loss(*primals), 2 * jnp.vdot(primals[0] - 3.0, tangents[0])

    p = jnp.zeros(2)
    more = dict(value=loss(p), grad=jnp.full(2, -6.0), value_fn=loss)
    for stored in (False, True):
        tx = BACKTRACKING(15, store_grad=stored)
        # Under jit: in eager use the rule is traced once more, to know what it is now.
        step = jax.jit(functools.partial(tx.update, **more))
        _, state = step(jnp.full(2, 60.0), tx.init(p), p)
        assert state.info.num_linesearch_steps > 5
        assert gradients == stored


def test_value_and_gradient_come_from_the_state():
    tx = jopt.chain(jopt.sgd(1.0), ZOOM(15))
    p = jnp.array([-1.0, 2.0])
    value_and_grad = jopt.value_and_grad_from_state(rosenbrock)
    chex.assert_trees_all_equal(
        value_and_grad(p, state=tx.init(p)), jax.value_and_grad(rosenbrock)(p)
    )
    value, g = value_and_grad(p, state=tx.init(p))
    more = dict(value=value, grad=g, value_fn=rosenbrock)
    u, state = tx.update(g, tx.init(p), p, **more)
    p = jopt.apply_updates(p, u)
    chex.assert_trees_all_close(
        value_and_grad(p, state=state), jax.value_and_grad(rosenbrock)(p), rtol=1e-6
    )
    marked = jopt.tree.set(state, value=jnp.float32(7.0))
    assert value_and_grad(p, state=marked)[0] == 7


def test_value_and_grad_from_state_with_aux():
    def loss(p, x):
        return jnp.sum((p - x) ** 2), {"error": p - x}

    p, x = jnp.zeros(2), jnp.array([1.0, 2.0])
    tx = jopt.lbfgs()
    value_and_grad = jopt.value_and_grad_from_state(loss, has_aux=True)
    state = tx.init(p)
    for _ in range(3):
        (value, aux), g = value_and_grad(p, x=x, state=state)
        want = jax.value_and_grad(loss, has_aux=True)(p, x)
        chex.assert_trees_all_close(((value, aux), g), want, rtol=1e-6, atol=1e-6)
        u, state = tx.update(g, state, p, value=value, grad=g, value_fn=loss, x=x)
        p = jopt.apply_updates(p, u)
    chex.assert_trees_all_close(p, x)


def test_value_and_grad_from_state_needs_both():
    p = jnp.zeros(2)
    value_and_grad = jopt.value_and_grad_from_state(distance)
    for tx in (jopt.sgd(0.1), BACKTRACKING(5)):
        with pytest.raises(ValueError, match="store_grad"):
            value_and_grad(p, state=tx.init(p))
    with pytest.raises(KeyError, match="2 places"):
        value_and_grad(p, state=(ZOOM(5).init(p), ZOOM(5).init(p)))


# -------------------------------------------------------------------------- its leaves


def test_other_leaves_stay_and_are_passed_on():
    odd = {
        "w": jnp.ones(3),
        "none": None,
        "step": jnp.arange(2),
        "function": jnp.tanh,
        "frozen": jnp.full(2, 2.0),
    }

    def loss(p):
        assert p["function"] is jnp.tanh
        return jnp.sum((p["w"] - p["frozen"][0] * p["step"][1].astype(float)) ** 2)

    g = odd | dict(w=2 * (odd["w"] - 2.0), step=None, function=None, frozen=None)
    u = g | dict(w=-g["w"])
    for tx in (ZOOM(10), BACKTRACKING(10, store_grad=True)):
        more = dict(value=loss(odd), grad=g, value_fn=loss)
        got, state = tx.update(u, tx.init(odd), odd, **more)
        new = jopt.apply_updates(odd, got)
        chex.assert_trees_all_equal(new["frozen"], odd["frozen"])
        assert loss(new) < loss(odd)
        # a gradient of all that can have one, moved or not
        assert state.grad["frozen"].shape == (2,)
        assert jnp.any(state.grad["frozen"] != 0) or loss(new) == 0


def test_under_a_mask_it_says_where_it_belongs():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}

    def loss(p):
        return jnp.sum((p["a"] - 3.0) ** 2) + jnp.sum(p["b"] ** 2)

    value, g = jax.value_and_grad(loss)(params)
    more = dict(value=value, grad=g, value_fn=loss)
    inner = {"newton": jopt.scale_by_lbfgs(), "plain": jopt.sgd(1.0)}
    labels = {"a": "newton", "b": "plain"}
    tx = jopt.partition(inner | {"newton": jopt.lbfgs()}, labels)
    try:
        u, _ = tx.update(g, tx.init(params), params, **more)
    except ValueError as error:
        assert "chain(masked(...), scale_by_zoom_linesearch" in str(error)
    else:  # where the mask hands the whole of the parameters on
        chex.assert_trees_all_close(u["a"], jnp.full(2, 2.0))
    # a function of what is seen is fine, and a search along the whole step
    seen = lambda p: jnp.sum((p["a"] - 3.0) ** 2)  # noqa: E731
    tx = jopt.masked(jopt.lbfgs(), {"a": True, "b": False})
    u, _ = tx.update(g, tx.init(params), params, **more | dict(value_fn=seen))
    chex.assert_trees_all_close(u["b"], g["b"])
    inner["newton"] = jopt.chain(inner["newton"], jopt.scale(-1.0))
    tx = jopt.chain(jopt.partition(inner, labels), ZOOM(10))
    u, state = tx.update(g, tx.init(params), params, **more)
    assert not state[-1].info.failed
    assert loss(jopt.apply_updates(params, u)) < value


def test_arguments_are_checked():
    p = jnp.zeros(2)
    for tx in (ZOOM(5), BACKTRACKING(5)):
        given = dict(value=distance(p), grad=jax.grad(distance)(p), value_fn=distance)
        for name in given:
            some = {k: v for k, v in given.items() if k != name}
            with pytest.raises(ValueError, match=f"{name} is missing"):
                tx.update(p, tx.init(p), p, **some)
        with pytest.raises(ValueError, match="params is missing"):
            tx.update(p, tx.init(p), **given)
        with pytest.raises(TypeError, match=r"value_fn is called with.*'batch'"):
            tx.update(p, tx.init(p), p, **given, batch=1)
        with pytest.raises(ValueError, match="grad at the root is"):
            tx.update(p, tx.init(p), p, **given | dict(grad=jnp.zeros(3)))
        with pytest.raises(ValueError, match="grad must have the tree structure"):
            tx.update({"p": p}, tx.init({"p": p}), {"p": p}, **given)
        with pytest.raises(ValueError, match="value must be a real scalar"):
            tx.update(p, tx.init(p), p, **given | dict(value=p))
    for wrong in (
        dict(max_linesearch_steps=0),
        dict(increase_factor=1.0),
        dict(initial_guess_strategy="two"),
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ZOOM(**dict(max_linesearch_steps=3) | wrong)
    with pytest.raises(ValueError, match="decrease_factor"):
        BACKTRACKING(3, decrease_factor=1.0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_types_of_the_state_do_not_change(dtype):
    wide = jnp.dtype("float64" if dtype == "float64" else "float32")
    for tx in (ZOOM(10), BACKTRACKING(10, store_grad=True)):
        with jax.enable_x64(dtype == "float64"):
            p = jnp.ones(4, dtype)
            state = tx.init(p)
            types = jax.tree.map(jax.typeof, state)
            assert types.grad.dtype == types.value.dtype == wide
            g = jax.grad(distance)(p).astype(wide)
            u, state = search(tx, distance, p, u=-g)
        assert jax.tree.map(jax.typeof, state) == types
        assert u.dtype == wide
        assert not state.info.failed  # read where float64 is not enabled
