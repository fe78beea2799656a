"""Types are kept from step to step, and never at the price of a value."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from jopt.engine.types import in_types_of, keep_types, keeps_values

LOSSES = [  # from, to
    (jnp.float32, jnp.int32),
    (jnp.float32, jnp.bool_),
    (jnp.bfloat16, jnp.uint8),
    (jnp.int32, jnp.bool_),
    (jnp.int32, jnp.uint32),
    (jnp.complex64, jnp.float32),
    (jnp.complex64, jnp.int32),
]
KEPT = [
    (jnp.bool_, jnp.int8),
    (jnp.int32, jnp.float16),
    (jnp.int32, jnp.int8),
    (jnp.uint32, jnp.int32),
    (jnp.float32, jnp.bfloat16),
    (jnp.bfloat16, jnp.float32),
    (jnp.float32, jnp.complex64),
]


class Rising:
    """A stateful schedule that begins with an integer and goes on in halves."""

    def __init__(self, start):
        self.start = start

    def init(self):
        return {"at": self.start}

    def update(self, state, **extra_args):
        return {"at": jnp.asarray(state["at"], float) + 0.5}

    def __call__(self, state, **extra_args):
        return state["at"]


def step_of(tx, params):
    return jax.eval_shape(lambda p: tx.update(p, tx.init(p), p), params)


@pytest.mark.parametrize("kind, other", LOSSES)
def test_what_would_lose_a_value_is_refused(kind, other):
    x, like = {"a": [jnp.ones(2, kind)]}, {"a": [jnp.ones(2, other)]}
    assert not keeps_values(x["a"][0], jnp.dtype(other))
    where = (
        r"^the new one at \['a'\]\[0\] is .*\[2\] where .*\[2\] was before: as .* lost"
    )
    for keep in (
        lambda: keep_types(x, like, "the new one"),
        lambda: in_types_of(like, x, "the new one"),
    ):
        with pytest.raises(TypeError, match=where):
            keep()


@pytest.mark.parametrize("kind, other", KEPT)
def test_widths_are_kept_in_silence(kind, other):
    x = keep_types(jnp.ones(2, kind), jnp.zeros(2, other))
    assert x.dtype == other
    assert not jax.typeof(in_types_of(jnp.uint8(3), 4)).weak_type


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit])
def test_states_of_schedules_that_would_be_truncated_are_refused(jit):
    tx = jopt.inject_hyperparams(jopt.sgd)(Rising(0))
    p = jnp.ones(2)
    with pytest.raises(
        TypeError,
        match=r"inject_hyperparams\(sgd\): hyperparams_states at "
        r"\['learning_rate'\]\['at'\] is f32\[\] where i32\[\] was before: as int32 "
        "the fraction would be lost; begin with float32",
    ):
        jit(tx.update)(p, tx.init(p))
    tx = jopt.inject_hyperparams(jopt.sgd)(Rising(0.0))
    state = tx.init(p)
    for expected in (0.0, -0.5, -1.0):
        u, state = jit(tx.update)(p, state)
        np.testing.assert_array_equal(u, [expected] * 2)


def foreign(init, update):
    return optax.GradientTransformation(init, update)


WRAPPERS = {
    "multi_steps": lambda tx: jopt.multi_steps(tx, 2),
    "apply_if_finite": lambda tx: jopt.apply_if_finite(tx, 2),
    "lookahead": lambda tx: jopt.lookahead(tx, 2, 0.5),
    "schedule_free": lambda tx: jopt.contrib.schedule_free(tx, 0.1),
    "mechanize": lambda tx: jopt.contrib.mechanize(tx),
    "sam": lambda tx: jopt.contrib.sam(tx, jopt.sgd(0.1)),
    "inject": lambda tx: jopt.inject_hyperparams(lambda rate: tx)(0.1),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_refuse_a_state_that_would_be_truncated(wrap):
    inner = foreign(
        lambda p: {"n": jnp.zeros((), jnp.int32)},
        lambda u, s, p=None: (u, {"n": s["n"].astype(float) + 0.5}),
    )
    with pytest.raises(TypeError, match=r"\['n'\] is f32\[\] where i32\[\] was"):
        step_of(wrap(inner), {"w": jnp.ones(2)})


@pytest.mark.parametrize("name", ["multi_steps", "apply_if_finite", "schedule_free"])
def test_wrappers_refuse_updates_that_would_lose_their_imaginary_part(name):
    inner = foreign(
        lambda p: (),
        lambda u, s, p=None: (jax.tree.map(lambda x: jax.lax.complex(x, x), u), s),
    )
    with pytest.raises(TypeError, match="imaginary part would be lost"):
        step_of(WRAPPERS[name](inner), {"w": jnp.ones(2)})


@pytest.mark.parametrize(
    "slot, new, lost",
    [
        (jnp.zeros((), jnp.int32), 0.5, "fraction"),
        (jnp.zeros(()), 1j, "imaginary part"),
        (jnp.zeros((), bool), 2.0, "truth"),
    ],
)
def test_rules_may_not_lose_what_they_keep(slot, new, lost):
    def init(p):
        return dict(trace=slot)

    def rule(g, s, p):
        return g, s._replace(trace=jnp.full(s.trace.shape, new))

    tx = jopt.per_leaf(jopt.TraceState, init, rule)
    with pytest.raises(TypeError, match=f"the rule turned a slot .* {lost}"):
        step_of(tx, jnp.ones(2))


def test_rules_may_not_lose_the_imaginary_part_of_an_update():
    tx = jopt.per_leaf(
        jopt.EmptyState, lambda p: {}, lambda g, s, p: (jax.lax.complex(g, g), s)
    )
    with pytest.raises(TypeError, match=r"into c64\[2\]; the imaginary part would"):
        step_of(tx, jnp.ones(2))


def test_hyperparameters_that_are_integers_are_not_set_to_fractions():
    state = optax.inject_hyperparams(optax.sgd)(0.1).init(jnp.ones(2))
    state.hyperparams["learning_rate"] = jnp.int32(1)
    assert jopt.set_hyperparams(state, learning_rate=2).hyperparams == {
        "learning_rate": 2
    }
    with pytest.raises(TypeError, match=r"learning_rate is i32.*lose the fraction"):
        jopt.set_hyperparams(state, learning_rate=0.5)


# ---------------------------------------------------------------------- complex slots

WIDTHS = {  # named, and not
    "adafactor": (
        dict(momentum=0.9),
        dict(momentum=0.9, dtype_momentum=jnp.complex64),
    ),
    "adam": (dict(mu_dtype=jnp.bfloat16), {}),
    "amsgrad": (dict(mu_dtype=jnp.float32), {}),
    "contrib.ademamix": (dict(mu_dtype=jnp.bfloat16), {}),
    "contrib.adopt": (dict(mu_dtype=jnp.float32), {}),
    "contrib.muon": (dict(mu_dtype=jnp.bfloat16), {}),
    "contrib.schedule_free_sgd": (dict(state_dtype=jnp.float32), {}),
    "lion": (dict(mu_dtype=jnp.bfloat16), {}),
    "nadam": (dict(mu_dtype=jnp.float16), {}),
    "nadamw": (
        dict(mu_dtype=jnp.float16, momentum_decay=0.004),
        dict(momentum_decay=0.004),
    ),
    "optimistic_adam_v2": (dict(mu_dtype=jnp.float32), {}),
    "sgd": (
        dict(momentum=0.9, accumulator_dtype=jnp.bfloat16),
        dict(momentum=0.9),
    ),
    "signum": (dict(accumulator_dtype=jnp.float32), {}),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_a_slot_of_a_named_width_keeps_the_imaginary_part(name):
    """As complex64, the least that there is, it is the slot without the setting."""
    *module, method = name.split(".")
    factory = getattr(jopt.contrib if module else jopt, method)
    params = {"w": jnp.array([[1.0 + 2.0j, -3.0j], [0.5, 2.0 - 1.0j]], jnp.complex64)}
    found = []
    for settings in WIDTHS[name]:
        tx = factory(0.1, **settings)
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(params, state, params)
        found.append(jax.tree.leaves((updates, state)))
    for x, y in zip(*found, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
