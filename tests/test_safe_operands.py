"""No step makes a NaN or divides by zero on its way, even where it is then not used.

A `where` hides such a value from the result, not from `checkify.float_checks` and
`jax_debug_nans`, with which users look for their own.
"""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import checkify

import jopt
from tests.catalogue import METHODS, ROWS, by_form

SOME = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "b": jnp.ones(2)}
NONE = jax.tree.map(jnp.zeros_like, SOME)


@pytest.mark.parametrize("row", by_form(ROWS, also=METHODS.values()))
@pytest.mark.parametrize("of", ["gradients", "parameters"])
def test_zeros_make_no_nan_on_the_way(row, of):
    grads, params = (NONE, SOME) if of == "gradients" else (SOME, NONE)
    tx = row.make()
    extra = row.extra(params) if row.extra else {}

    def step(state):
        return tx.update(grads, state, params, **extra)

    checked = checkify.checkify(step, errors=checkify.float_checks)
    state = tx.init(params)
    for _ in range(2 if of == "gradients" else 1):
        with jax.disable_jit():  # operation by operation: these are compiled once
            error, (_, state) = checked(state)
        error.throw()


@pytest.mark.parametrize("function", [jopt.safe_norm, jopt.safe_root_mean_squares])
def test_the_slope_of_a_norm_at_zero_divides_nothing_by_zero(function):
    slope = checkify.checkify(jax.grad(function), errors=checkify.float_checks)
    error, found = slope(jnp.zeros(3), 0.0)
    error.throw()
    assert not found.any()
