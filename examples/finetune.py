"""Fine-tunes a part of a network, and changes its optimizer on the way.

A network that knows five digits learns the others: its first layer is frozen.
"""

import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import jopt


def init_params(rng):
    def layer(m, n):
        w = rng.normal(size=(m, n)) * (2 / m) ** 0.5
        return {"w": jnp.float32(w), "b": jnp.zeros(n)}

    return {"embed": layer(64, 128), "hidden": layer(128, 64), "head": layer(64, 10)}


def logits(params, x):
    for name in ("embed", "hidden"):
        x = jax.nn.relu(x @ params[name]["w"] + params[name]["b"][None])
    return x @ params["head"]["w"] + params["head"]["b"][None]


def loss_fn(params, x, y):
    return jopt.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()


def train(tx, params, state, x, y, *rates):
    """300 steps at each learning rate, all of one trace."""
    traces = []

    @jax.jit
    def step(params, state, x, y):
        traces.append(tx)
        updates, state = tx.update(jax.grad(loss_fn)(params, x, y), state, params)
        return jopt.apply_updates(params, updates), state

    rng = np.random.default_rng(0)
    for rate in rates:
        state = jopt.set_hyperparams(state, learning_rate=rate)
        for _ in range(300):
            batch = rng.integers(len(x), size=128)
            params, state = step(params, state, x[batch], y[batch])
    assert len(traces) == 1, "a changed learning rate must not cost a trace"
    return params, state


def main(argv=None):
    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(np.float32(x / 16), y, random_state=0)
    params, low = init_params(np.random.default_rng(0)), y < 5
    adamw = jopt.inject_hyperparams(jopt.adamw)(3e-3, weight_decay=0.1)
    params, _ = train(adamw, params, adamw.init(params), x[low], y[low], 3e-3)

    groups = {"embed": None, "hidden": {"lr_mult": 0.3}, "**/b": {"weight_decay": 0.0}}
    tx = jopt.groups(groups, default=adamw)
    print(jopt.describe(tx, params), "\n")
    params, state = train(tx, params, tx.init(params), x, y, 1e-2, 3e-3)

    clipped = jopt.chain(jopt.clip_by_global_norm(1.0), tx)
    with tempfile.TemporaryFile() as file:
        np.savez(file, **jopt.state_dict(tx, state))
        file.seek(0)
        state, _ = jopt.load_state_dict(clipped, params, np.load(file))
    params, _ = train(clipped, params, state, x, y, 1e-3)

    right = jnp.mean(logits(params, x_test).argmax(axis=1) == y_test)
    print(f"test accuracy {right:.2%}, test loss {loss_fn(params, x_test, y_test):.3f}")


if __name__ == "__main__":
    main()
