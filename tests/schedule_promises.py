"""What every schedule promises, optax's and jopt's own."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np

from jopt import schedules

VALUES = (0.7, 2.0, 0.3, 0.6)  # initial, peak and last value, and another number


def check_traced(make, seed):
    """`make(*VALUES)` may be of traced values: jit, vmap and derivatives are right."""
    counts = jnp.arange(13)

    def curve(*values):
        return make(*values)(counts)

    want = curve(*VALUES)
    np.testing.assert_allclose(jax.jit(curve)(*VALUES), want, rtol=1e-6)
    batch = [jnp.stack([jnp.float32(v), jnp.float32(0.9 * v)]) for v in VALUES]
    got = jax.vmap(curve)(*batch)
    np.testing.assert_allclose(got[0], want, rtol=1e-6)
    np.testing.assert_allclose(got[1], curve(*(0.9 * v for v in VALUES)), rtol=1e-6)

    with jax.enable_x64(True):
        weights = np.random.default_rng(seed).normal(size=13)

        @jax.jit
        def total(*values):
            return jnp.sum(weights * make(*values)(jnp.arange(13)))

        got = jax.jit(jax.grad(total, (0, 1, 2, 3)))(*VALUES)
        h = 1e-6
        for i, slope in enumerate(got):
            up, down = ([*VALUES] for _ in "ab")
            up[i] += h
            down[i] -= h
            want = (total(*up) - total(*down)) / (2 * h)
            np.testing.assert_allclose(slope, want, rtol=1e-6, atol=1e-7)


def check_knows_its_call(factory, args):
    """Equal calls make equal schedules, which print as the call and can be pickled."""
    schedule, again = factory(*args), factory(*args)
    assert schedule == again
    assert hash(schedule) == hash(again)
    assert repr(eval(repr(schedule), vars(schedules))) == repr(schedule)
    copy = pickle.loads(pickle.dumps(schedule))
    assert copy == schedule
    assert float(copy(5)) == float(schedule(5))
