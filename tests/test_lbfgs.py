"""L-BFGS as a whole: where it gets to, from which memory, in which dtypes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import checkify

import jopt


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def quadratic(x):
    scales = jnp.logspace(-1, 1, x.size, dtype=x.dtype)
    return 0.5 * jnp.sum(scales * x**2) - jnp.sum(x)


def logistic(p):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(60, 5)), p["w"].dtype)
    y = jnp.asarray(rng.random(60) < 0.5, p["w"].dtype)
    z = x @ p["w"] + p["b"]
    return jnp.mean(jnp.logaddexp(0.0, z) - y * z) + 1e-3 * jnp.sum(p["w"] ** 2)


PROBLEMS = {
    "quadratic": (quadratic, np.zeros(8)),
    "rosenbrock": (rosenbrock, np.full(10, -1.0)),
    "logistic": (logistic, dict(w=np.zeros(5), b=np.zeros(()))),
}


def minimize(library, tx, loss, p, steps):
    """All parameters, and the number of points that the line searches tried."""
    value_and_grad = library.value_and_grad_from_state(loss)

    def step(carry, _):
        p, state = carry
        value, g = value_and_grad(p, state=state)
        u, state = tx.update(g, state, p, value=value, grad=g, value_fn=loss)
        p = jax.tree.map(jnp.add, p, u)
        return (p, state), (p, state[-1].info.num_linesearch_steps)

    carry = p, tx.init(p)
    return jax.jit(lambda c: jax.lax.scan(step, c, length=steps)[1])(carry)


@pytest.mark.each_value_once
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(
    "settings",
    [{}, dict(memory_size=3), dict(scale_init_precond=False)],
    ids=["default", "short memory", "no scale"],
)
def test_takes_the_steps_of_optax(name, settings):
    loss, start = PROBLEMS[name]
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        p = jax.tree.map(jnp.asarray, start)
        ours, tried = minimize(jopt, jopt.lbfgs(**settings), loss, p, 14)
        theirs, they = minimize(optax, optax.lbfgs(**settings), loss, p, 14)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_equal(tried, they)


@pytest.mark.each_value_once
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("memory_size", [2, 5])
def test_without_a_search_it_takes_the_steps_of_optax(name, dtype, rtol, memory_size):
    loss, start = PROBLEMS[name]
    settings = dict(learning_rate=0.5, memory_size=memory_size, linesearch=None)

    def path(tx, p):
        def step(carry, _):
            p, state = carry
            u, state = tx.update(jax.grad(loss)(p), state, p)
            p = jax.tree.map(jnp.add, p, u)
            return (p, state), p

        return jax.jit(lambda c: jax.lax.scan(step, c, length=15)[1])((p, tx.init(p)))

    with jax.enable_x64(dtype == np.float64):
        p = jax.tree.map(lambda x: jnp.asarray(x, dtype), start)
        ours = path(jopt.lbfgs(**settings), p)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            theirs = path(optax.lbfgs(**settings), p)
    chex.assert_trees_all_close(ours, theirs, rtol=rtol, atol=rtol)


def test_finds_the_minimum_in_float32():
    p, tried = minimize(jopt, jopt.lbfgs(), rosenbrock, jnp.full(4, -1.0), 60)
    chex.assert_trees_all_close(p[-1], jnp.ones(4), atol=1e-3)
    assert np.sum(tried) < 150


def test_a_pair_without_curvature_is_left_out():
    """The direction descends also where the loss is concave."""
    tx = jopt.scale_by_lbfgs(memory_size=3)
    p = jnp.array([1.0, 2.0])
    g = jnp.array([0.3, 0.4])
    _, state = tx.update(g, tx.init(p), p)
    u, state = tx.update(g - 0.1 * p, state, 2 * p)
    chex.assert_trees_all_equal(state.weights_memory, jnp.zeros(3))
    assert jnp.vdot(u, g - 0.1 * p) > 0
    # and where the parameters did not move, so that there is no pair at all
    u, _ = tx.update(2 * g, tx.init(p)._replace(count=jnp.int32(1)), jnp.zeros(2))
    chex.assert_trees_all_close(u, 2 * g)


def test_the_first_step_is_no_longer_than_one():
    tx = jopt.scale_by_lbfgs()
    p = jnp.zeros(2)
    for g, want in (([30.0, 40.0], [0.6, 0.8]), ([0.03, 0.04], [0.03, 0.04])):
        u, _ = tx.update(jnp.array(g), tx.init(p), p)
        chex.assert_trees_all_close(u, jnp.array(want))


def test_equals_newton_where_it_remembers_enough():
    """After n conjugate pairs H is the inverse Hessian: B y = s for all of them."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        a = rng.normal(size=(4, 4))
        hessian = jnp.asarray(a @ a.T + np.eye(4))
        tx = jopt.scale_by_lbfgs(memory_size=4)
        p = jnp.zeros(4)
        state = tx.init(p)
        # conjugate steps
        for s in np.linalg.eigh(hessian)[1].T:
            _, state = tx.update(hessian @ p, state, p)
            p = p + jnp.asarray(s)
        g = hessian @ p
        u, _ = tx.update(g, state, p)
        chex.assert_trees_all_close(u, p, rtol=1e-9)


def test_complex_parameters():
    target = jnp.array([1 + 2j, 3 - 1j])

    def loss(z):
        return jnp.sum(jnp.array([1.0, 3.0]) * jopt.abs_sq(z - target))

    z = jnp.array([0.5 + 0.3j, 0.1 - 0.2j])
    tx = jopt.lbfgs()
    state = tx.init(z)
    assert state[0].weights_memory.dtype == jnp.float32
    for _ in range(6):
        value, g = jopt.value_and_grad_from_state(loss)(z, state=state)
        g = jnp.conj(g)  # the direction of ascent
        u, state = tx.update(g, state, z, value=value, grad=g, value_fn=loss)
        z = jopt.apply_updates(z, u)
    chex.assert_trees_all_close(z, target, rtol=1e-5)


@pytest.mark.parametrize("dtypes", ["bfloat16 bfloat16", "float32 bfloat16"])
def test_types_of_the_state_do_not_change(dtypes):
    param, grad = dtypes.split()

    def loss(p):
        return jnp.sum((p.astype(jnp.float32) - 0.3) ** 2)

    tx = jopt.lbfgs(memory_size=3)
    p = jnp.ones(4, param)
    state = tx.init(p)
    types = jax.tree.map(jax.typeof, state)
    assert {x.dtype.name for x in jax.tree.leaves(types)} == {"float32", "int32"}
    for _ in range(3):
        value, g = jopt.value_and_grad_from_state(loss)(p, state=state)
        assert g.dtype == p.dtype
        g = g.astype(grad)
        u, state = tx.update(g, state, p, value=value, grad=g, value_fn=loss)
        assert u.dtype == g.dtype
        p = jopt.apply_updates(p, u)
        assert jax.tree.map(jax.typeof, state) == types
        # what it found holds for the rounded parameters
        chex.assert_trees_all_equal(state[-1].value, loss(p))
    assert loss(p) < 1e-4


def test_continues_from_the_state_of_optax():
    p = jnp.full(4, -1.0)
    value, g = jax.value_and_grad(rosenbrock)(p)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = optax.lbfgs().init(p)
        for _ in range(3):
            value, g = jax.value_and_grad(rosenbrock)(p)
            more = dict(value=value, grad=g, value_fn=rosenbrock)
            u, theirs = optax.lbfgs().update(g, theirs, p, **more)
            p = p + u
        value, g = jax.value_and_grad(rosenbrock)(p)
        more = dict(value=value, grad=g, value_fn=rosenbrock)
        want, _ = optax.lbfgs().update(g, theirs, p, **more)
    u, state = jopt.lbfgs().update(g, theirs, p, **more)
    chex.assert_trees_all_close(u, want, rtol=1e-3)
    assert jax.tree.structure(state) == jax.tree.structure(theirs)


def test_arguments():
    with pytest.raises(ValueError, match="memory_size"):
        jopt.scale_by_lbfgs(memory_size=0)
    with pytest.raises(TypeError, match="linesearch"):
        jopt.lbfgs(linesearch="zoom")
    p = jnp.ones(2)
    tx = jopt.lbfgs()
    with pytest.raises(ValueError, match="value is missing"):
        tx.update(p, tx.init(p), p)
    with pytest.raises(ValueError, match="params is missing"):
        tx.update(p, tx.init(p))


# -------------------------------------------------------------------------- hard cases


@pytest.mark.parametrize("linesearch", [True, False])
def test_a_zero_gradient_divides_nothing_by_zero(linesearch):
    tx = jopt.lbfgs() if linesearch else jopt.lbfgs(linesearch=None)
    p = jnp.zeros(3)

    def loss(p):
        return jnp.sum(p**2)

    def step(state):
        extra = dict(value=loss(p), grad=p, value_fn=loss) if linesearch else {}
        return tx.update(p, state, p, **extra)

    checked = checkify.checkify(step, errors=checkify.float_checks)
    state = tx.init(p)
    for _ in range(3):
        with jax.disable_jit():
            error, (u, state) = checked(state)
        error.throw()
        np.testing.assert_array_equal(u, 0)
    with jax.debug_nans(True), jax.debug_infs(True):
        plain = jopt.scale_by_lbfgs()
        plain.update(p, plain.init(p), p)


@pytest.mark.parametrize("share", [1e-6, 1e-5, 1e-4])
def test_a_first_pair_with_hardly_any_curvature_throws_nothing_away(share):
    """A step along which the gradient turns and does not grow: s . y is of rounding."""
    tx = jopt.lbfgs(linesearch=None)
    p, g = jnp.array([0.0, 0.0]), jnp.array([0.6, 0.8])
    u, state = tx.update(g, tx.init(p), p)
    across = jnp.array([-u[1], u[0]]) / jnp.linalg.norm(u)
    change = across + share * u / jnp.linalg.norm(u)
    u, _ = tx.update(g + change, state, p + u)
    assert np.linalg.norm(u) < 10
