"""Options that are the papers' or PyTorch's form of a rule, where optax has another."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from tests.references import conventions

LR = 0.05
BETAS = dict(b1=0.8, b2=0.9)
CASES = {
    "prodigy": (
        partial(jopt.prodigy, use_bias_correction=False),
        conventions.prodigy,
        {},
    ),
    "prodigy, decayed": (
        partial(
            jopt.prodigy,
            betas=(0.8, 0.9),
            estim_lr0=0.01,
            weight_decay=0.1,
            use_bias_correction=False,
        ),
        partial(conventions.prodigy, betas=(0.8, 0.9), d0=0.01, weight_decay=0.1),
        {},
    ),
    "dadapt_adamw": (
        partial(jopt.dadapt_adamw, use_bias_correction=False),
        conventions.dadapt_adamw,
        {},
    ),
    "dadapt_adamw, decayed": (
        partial(
            jopt.dadapt_adamw,
            betas=(0.8, 0.9),
            estim_lr0=0.01,
            weight_decay=0.1,
            use_bias_correction=False,
        ),
        partial(conventions.dadapt_adamw, betas=(0.8, 0.9), d0=0.01, weight_decay=0.1),
        {},
    ),
    "adan": (
        partial(jopt.adan, LR, eps_root=0.0, weight_decay=0.3, proximal=True),
        partial(conventions.adan, lr=LR, weight_decay=0.3),
        {},
    ),
    "lars": (
        partial(
            jopt.lars,
            1.0,
            weight_decay=0.3,
            trust_coefficient=0.02,
            separate_norms=True,
        ),
        partial(conventions.lars, lr=1.0, weight_decay=0.3, trust=0.02),
        {},
    ),
    "radam": (
        partial(jopt.radam, LR, eps=1e-2, eps_after_correction=False),
        partial(conventions.radam, lr=LR, eps=1e-2),
        {},
    ),
    "nadam": (
        partial(jopt.nadam, LR, momentum_decay=4e-3, **BETAS),
        partial(conventions.nadam, lr=LR, psi=4e-3, betas=(0.8, 0.9)),
        {},
    ),
    "nadamw": (
        partial(jopt.nadamw, LR, momentum_decay=0.5, weight_decay=0.3),
        partial(conventions.nadam, lr=LR, psi=0.5, weight_decay=0.3),
        {},
    ),
    "amsgrad": (
        partial(jopt.amsgrad, LR, correct_after_max=True, **BETAS),
        partial(conventions.amsgrad, lr=LR, betas=(0.8, 0.9)),
        {},
    ),
    "adagrad": (
        partial(
            jopt.adagrad,
            lambda t: LR / (1 + 0.1 * jnp.asarray(t, float)),
            initial_accumulator_value=0.0,
            eps=0.0,
            eps_outside=1e-2,
        ),
        partial(conventions.adagrad, lr=LR, lr_decay=0.1, eps=1e-2),
        {},
    ),
    "muon": (
        partial(jopt.contrib.muon, LR, bias_correction=False),
        partial(conventions.muon, lr=LR),
        {},
    ),
    "muon without Nesterov": (
        partial(jopt.contrib.muon, LR, bias_correction=False, nesterov=False),
        partial(conventions.muon, lr=LR, nesterov=False),
        {},
    ),
    "galore": (
        partial(jopt.galore, LR, 2, 5, scale=0.25, side="shorter"),
        partial(conventions.galore, lr=LR, rank=2, gap=5),
        dict(rtol=1e-7),
    ),
}


def steps(shape, n=14):
    rng = np.random.default_rng(0)
    p = rng.normal(size=shape)
    return p, [np.cos(k) * rng.normal(size=shape) + 0.3 * p for k in range(n)]


@pytest.mark.each_value_once
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_authors_rule(name, shape):
    make, reference, tolerance = CASES[name]
    p, gs = steps(shape)
    with jax.enable_x64(True):
        x = {"w": jnp.asarray(p)}
        tx = make()
        state = tx.init(x)
        structure = jax.tree.map(jnp.result_type, state)

        @jax.jit
        def step(x, state, g):
            u, state = tx.update({"w": g}, state, x)
            return jopt.apply_updates(x, u), state

        for g in gs:
            x, state = step(x, state, jnp.asarray(g))
        assert jax.tree.map(jnp.result_type, state) == structure
    np.testing.assert_allclose(x["w"], reference(p, gs), **{"rtol": 1e-9, **tolerance})


# The same in the way of optax, which an option that does nothing would pass too.
DEFAULTS = {
    "prodigy": jopt.prodigy,
    "dadapt_adamw": jopt.dadapt_adamw,
    "adan": partial(jopt.adan, LR, eps_root=0.0, weight_decay=0.3),
    "lars": partial(jopt.lars, 1.0, weight_decay=0.3, trust_coefficient=0.02),
    "radam": partial(jopt.radam, LR, eps=1e-2),
    "nadam": partial(jopt.nadam, LR, **BETAS),
    "amsgrad": partial(jopt.amsgrad, LR, **BETAS),
    "adagrad": partial(jopt.adagrad, LR, 0.0, 0.0),
    "muon": partial(jopt.contrib.muon, LR),
    "galore": partial(jopt.galore, LR, 2, 5, scale=0.25),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_other_form_is_another(name):
    p, gs = steps((5, 3))
    x = jnp.asarray(p, jnp.float32)
    tx = DEFAULTS[name]()
    state = tx.init(x)
    for g in gs:
        u, state = tx.update(jnp.asarray(g, jnp.float32), state, x)
        x = x + u
    want = CASES[name][1](p, gs)
    assert np.abs(x - want).max() > 1e-5 * np.abs(want - p).max()


def test_both_masks_of_lars_hold_with_separate_norms():
    p = {"w": jnp.full((3,), 2.0), "b": jnp.full((2,), 3.0)}
    g = jax.tree.map(jnp.ones_like, p)
    only = {"w": True, "b": False}
    kw = dict(weight_decay=0.5, trust_coefficient=0.1, momentum=0.0)

    def first(**masks):
        tx = jopt.lars(1.0, separate_norms=True, **kw, **masks)
        return jax.tree.map(lambda u: float(-u[0]), tx.update(g, tx.init(p), p)[0])

    both = {"w": 0.1 * 2 / (1 + 0.5 * 2) * 2, "b": 0.1 * 3 / (1 + 0.5 * 3) * 2.5}
    assert first() == pytest.approx(both)
    assert first(weight_decay_mask=only) == pytest.approx(both | {"b": 0.1 * 3})
    assert first(trust_ratio_mask=only) == pytest.approx(both | {"b": 1 + 0.5 * 3})


def test_proximal_decay_takes_a_mask_rates_by_path_and_schedules():
    p = {"w": jnp.full((3,), 2.0), "b": jnp.full((2,), 2.0)}
    zero = jax.tree.map(jnp.zeros_like, p)

    def second(rate, weight_decay, mask=None):
        tx = jopt.adan(rate, weight_decay=weight_decay, mask=mask, proximal=True)
        state = tx.init(p)
        _, state = tx.update(zero, state, p)
        u, _ = tx.update(zero, state, p)
        return jax.tree.map(lambda u, p: float((p + u)[0]), u, p)

    assert second(0.5, 1.0) == pytest.approx({"w": 2 / 1.5, "b": 2 / 1.5})
    assert second(0.5, 1.0, {"w": True, "b": False}) == pytest.approx(
        {"w": 2 / 1.5, "b": 2.0}
    )
    by_path = second(
        {"w": 0.5, "b": lambda t: 1.0 + jnp.asarray(t, float)}, {"w": 2.0, "b": 1.0}
    )
    assert by_path == pytest.approx({"w": 2 / 2, "b": 2 / 3})


@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda: jopt.adan(1.0, weight_decay=jopt.l2(0.1), proximal=True),
            "adan: weig",
        ),
        (
            lambda: jopt.nadam(1.0, momentum_decay=0.1, nesterov=False),
            "nadam: momentum",
        ),
        (lambda: jopt.nadamw(1.0, momentum_decay=-1.0), "nadamw: momentum_decay must"),
        (lambda: jopt.adagrad(1.0, eps_outside=-1.0), "adagrad: eps_outside must"),
        (lambda: jopt.galore(1.0, side="short"), "galore: side must be"),
    ],
)
def test_what_does_not_go_together_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
