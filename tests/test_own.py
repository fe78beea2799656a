"""The optimizers that docs/adding_an_optimizer.md shows are what they are called."""

import importlib.util
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt

FOLDER = pathlib.Path(__file__).parent.parent / "docs" / "own"
PAGE = (FOLDER.parent / "adding_an_optimizer.md").read_text()
FILES = sorted(FOLDER.glob("*.py"))


def load(name):
    spec = importlib.util.spec_from_file_location(f"own_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def run(tx, steps=6):
    rng = np.random.default_rng(0)

    def some(scale):
        return {
            "b": jnp.asarray(scale * rng.normal(size=3), jnp.float32),
            "w": jnp.asarray(scale * rng.normal(size=(3, 2)), jnp.float32),
            "name": None,
        }

    params = some(1.0)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(steps):
        updates, state = update(some(2.0), state, params)
        params = jopt.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    ("name", "arguments", "ours"),
    [
        ("lion", (0.1,), jopt.lion(0.1, weight_decay=0.0)),
        ("adam", (0.1,), jopt.adam(0.1)),
        ("dog", (1e-2,), jopt.dog(1.0, init_step=("distance", 1e-2))),
        ("clip", (0.5,), jopt.clip_by_global_norm(0.5)),
    ],
)
def test_it_is_the_method(name, arguments, ours):
    tx = load(name)(*arguments)
    chex.assert_trees_all_close(run(tx), run(ours), rtol=2e-5, atol=1e-6)
    assert repr(tx).startswith(f"{name}(")


def test_the_wrapper_steps_at_every_other_call():
    tx = load("every_other")(jopt.sgd(0.5))
    params, state = jnp.ones(2), tx.init(jnp.ones(2))
    seen = []
    for _ in range(4):
        updates, state = tx.update(jnp.ones(2), state, params)
        seen.append(float(updates[0]))
    assert seen == [-0.5, 0.0, -0.5, 0.0]
    assert jopt.hyperparams(state, tx) == {"learning_rate": 0.5}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_page_includes_the_file(file):
    assert f'--8<-- "docs/own/{file.name}"' in PAGE
    assert f"(own/{file.name})" in PAGE
