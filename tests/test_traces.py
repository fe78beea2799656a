"""What a trace leaves behind: no tracer, no program for each number, no old rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.catalogue import FORMS, METHODS

P = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), "b": jnp.full(4, 0.5, jnp.float32)}
G = jax.tree.map(lambda x: 0.1 * x + 0.01, P)
ADAM = jopt.adam(0.1)


# ---------------------------------------------------------------- numbers of factories

NUMBERED = {
    "sgd": jopt.sgd,
    "sgd(momentum)": lambda x: jopt.sgd(0.1, momentum=x),
    "adamw": jopt.adamw,
    "adamw(weight_decay)": lambda x: jopt.adamw(1e-3, weight_decay=x),
    "adam(b1, eps)": lambda x: jopt.adam(1e-3, b1=x, eps=x * 1e-6),
    "lion(schedule)": lambda x: jopt.lion(jopt.cosine_decay_schedule(x, 20)),
    "clip": lambda x: jopt.chain(jopt.clip_by_global_norm(x), jopt.sgd(0.1)),
    "lamb": jopt.lamb,
    "prodigy": jopt.contrib.prodigy,
    "muon": jopt.contrib.muon,
    "apply_if_finite": lambda x: jopt.apply_if_finite(jopt.adam(x), 2),
}


LIKE_OTHERS = ("sgd(momentum)", "adamw(weight_decay)", "lamb", "muon")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in LIKE_OTHERS))
        for name in NUMBERED
    ],
)
def test_a_new_number_compiles_nothing(name, compilations):
    state, updates = NUMBERED[name](0.1).init(P), []
    numbers = [0.1 + 0.01 * i for i in range(9)]
    for i, number in enumerate(numbers):
        if i == 3:
            before = len(compilations)
        last = state
        u, state = NUMBERED[name](number).update(G, state, P)
        updates.append(u)
    assert before > 0
    assert len(compilations) == before, "programs for six numbers that are new"
    with jax.disable_jit():
        want, _ = NUMBERED[name](number).update(G, last, P)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5), u, want)


# ---------------------------------------------------------------------------- tracers

WRAPPED = {
    "apply_if_finite": lambda: jopt.apply_if_finite(ADAM, 2),
    "MultiSteps": lambda: jopt.MultiSteps(ADAM, 2).gradient_transformation(),
    "inject": lambda: jopt.inject_hyperparams(jopt.adam)(0.1),
    "masked": lambda: jopt.masked(ADAM, dict(w=True, b=False)),
    "partition": lambda: jopt.partition(
        dict(x=ADAM, y=jopt.sgd(jopt.cosine_decay_schedule(0.1, 9))), dict(w="x", b="y")
    ),
    "flatten": lambda: jopt.flatten(ADAM),
    "conditionally": lambda: jopt.conditionally_transform(ADAM, lambda t: t % 2 < 1),
    "a user's schedule": lambda: jopt.adamw(lambda t: 0.1 * 0.5 ** t.astype(float)),
    "groups": lambda: jopt.groups({"b": dict(lr_mult=0.5)}, default=ADAM),
}
MADE = {name: row.make for name, row in METHODS.items()} | WRAPPED


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in METHODS.keys() - FORMS))
        for name in MADE
    ],
)
def test_no_tracer_outlives_its_trace(name):
    row = METHODS.get(name)
    more = {} if row is None or row.extra is None else row.extra(P)
    arrays = {k: x for k, x in more.items() if not callable(x)}
    functions = {k: x for k, x in more.items() if callable(x)}
    tx = MADE[name]()

    def step(state, arrays):
        updates, state = tx.update(G, state, P, **arrays, **functions)
        return jopt.apply_updates(P, updates), state

    with jax.checking_leaks():
        state = tx.init(P)
        _, state = tx.update(G, state, P, **more)
        jax.eval_shape(step, state, arrays)
        tx.update(G, state, P, **more)


# ------------------------------------------------- derivatives that the user wrote


def with_rule(rule, kind):
    """`sum((p - 1)**2)`, whose derivative is what the rule says."""
    if kind == "vjp":
        loss = jax.custom_vjp(lambda p: jnp.sum((p - 1) ** 2))
        loss.defvjp(lambda p: (loss(p), p), lambda p, g: (g * rule(p),))
    else:
        loss = jax.custom_jvp(lambda p: jnp.sum((p - 1) ** 2))
        loss.defjvp(lambda p, t: (loss(*p), jnp.sum(rule(*p) * t[0])))
    return loss


@pytest.mark.parametrize("kind", ["vjp", "jvp"])
@pytest.mark.parametrize("number", [float, jnp.float32], ids=["a number", "an array"])
def test_a_rule_of_the_users_is_called_anew_in_eager_line_searches(kind, number):
    scale = 1.0
    loss = with_rule(lambda p: number(scale) * 2 * (p - 1), kind)
    tx = jopt.scale_by_backtracking_linesearch(5, store_grad=True)
    p, g = jnp.zeros(3), jnp.full(3, -2.0)
    for scale in (1.0, 1.0, 3.0, 5.0):
        start = tx.init(p)
        value, grad = jopt.value_and_grad_from_state(loss)(p, state=start)
        np.testing.assert_allclose(grad, -2 * scale)
        u, state = tx.update(-0.1 * g, start, p, value=value, grad=g, value_fn=loss)
        np.testing.assert_allclose(state.grad, scale * 2 * (p + u - 1), rtol=1e-6)


def test_an_array_that_a_rule_reads_is_read_anew():
    batch = jnp.ones(3)
    loss = jax.custom_vjp(lambda p: jnp.sum((p - batch) ** 2))
    loss.defvjp(lambda p: (loss(p), p), lambda p, g: (g * 2 * (p - batch),))
    for n in (1.0, 1.0, 3.0):
        batch = jnp.full(3, n)
        tx, p = jopt.lbfgs(), jnp.zeros(3)
        state = tx.init(p)
        for _ in range(3):
            value, g = jax.value_and_grad(loss)(p)
            u, state = tx.update(g, state, p, value=value, grad=g, value_fn=loss)
            p = jopt.apply_updates(p, u)
        np.testing.assert_allclose(p, batch, rtol=1e-5)


def test_a_rule_that_stays_and_rules_of_jax_compile_nothing_anew(compilations):
    batch = jnp.ones(3)
    own = with_rule(lambda p: 2 * (p - 1), "vjp")
    losses = [
        lambda p: own(p - batch),
        lambda p: jnp.sum(jax.nn.relu(p - batch) ** 2 + p**2),
    ]
    for loss in losses:
        tx, p, counts = jopt.lbfgs(), jnp.zeros(3), []
        state = tx.init(p)
        for n in range(4):
            batch = jnp.full(3, float(n))
            value, g = jnp.float32(loss(p)), jax.grad(loss)(p)
            before = len(compilations)
            _, state = tx.update(g, state, p, value=value, grad=g, value_fn=loss)
            counts.append(len(compilations) - before)
        assert counts[2:] == [0, 0], counts


# -------------------------------------------------------------- branches outside of jit


def test_branches_outside_of_jit_compile_nothing_anew(compilations):
    xs = {"a": jnp.full(3, 1e30), "b": jnp.ones((80, 80))}

    def all_of_them():
        jopt.tree.norm(xs)
        jopt.safe_norm(xs["b"] * 1e-25, 0.0)
        jopt.periodic_update(xs, xs, 4, 2)

    for _ in range(2):
        all_of_them()
    before = len(compilations)
    all_of_them()
    assert len(compilations) == before
