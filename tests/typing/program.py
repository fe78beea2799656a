"""A program as a user writes it: a strict type checker has nothing to say about it.

`test_typing.py` runs it and has basedpyright read it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jopt
from jopt import contrib, losses, projections, schedules, tree

Params = dict[str, jax.Array]

# jax's own functions are not of types that are wholly known: device=Unknown
untyped: Any = jax
array: Callable[[Any], jax.Array] = untyped.numpy.asarray


def predict(params: Params, x: jax.Array) -> jax.Array:
    return x @ params["w"] + params["b"]


def loss_of(params: Params, x: jax.Array, y: jax.Array) -> jax.Array:
    squares: jax.Array = jopt.l2_loss(predict(params, x), y)
    robust: jax.Array = losses.huber_loss(predict(params, x), y, delta=1.0)
    return squares.mean() + 0.1 * jnp.mean(robust)


def own_schedule(count: jax.Array) -> jax.Array:
    return 1e-2 / (1.0 + count.astype(float))


def learning_rate(steps: int) -> jopt.Schedule:
    warmup = jopt.linear_schedule(0.0, 1e-2, transition_steps=2)
    decay = schedules.cosine_decay_schedule(1e-2, decay_steps=steps)
    joined = jopt.join_schedules([warmup, decay, own_schedule], [2, steps])
    peak: float = float(joined(2))
    value: jax.Array = decay(array([0, 1, 2]))
    assert value.shape == (3,) and 0.0 < peak < 1.0
    return joined


def optimizer(steps: int, mask: Callable[[Params], Any]) -> jopt.GradientTransformation:
    inner = jopt.chain(
        jopt.clip_by_global_norm(1.0),
        jopt.scale_by_adam(b1=0.9, b2=0.95, nesterov=True),
        jopt.add_decayed_weights(1e-4, mask),
        jopt.scale_by_learning_rate(learning_rate(steps)),
    )
    tx = jopt.apply_if_finite(jopt.masked(inner, True), max_consecutive_errors=3)
    labels = {"w": "matrix", "b": "vector"}
    return jopt.partition({"matrix": tx, "vector": jopt.sgd(own_schedule)}, labels)


def step_of(
    tx: jopt.GradientTransformation,
    x: jax.Array,
    y: jax.Array,
) -> Callable[[Params, jopt.OptState], tuple[Params, jopt.OptState, jax.Array]]:
    def step(
        params: Params, state: jopt.OptState
    ) -> tuple[Params, jopt.OptState, jax.Array]:
        value, grads = untyped.value_and_grad(loss_of)(params, x, y)
        updates, state = tx.update(grads, state, params)
        params = jopt.apply_updates(params, updates)
        return projections.projection_box(params, -1.0, 1.0), state, value

    jitted: Callable[..., tuple[Params, jopt.OptState, jax.Array]] = untyped.jit(step)
    return jitted


def others() -> list[jopt.GradientTransformationExtraArgs]:
    injected = jopt.inject_hyperparams(jopt.adamw)(learning_rate=1e-3)
    accumulated = jopt.MultiSteps(contrib.muon(1e-3), every_k_schedule=2)
    return [
        injected,
        jopt.with_extra_args_support(accumulated.gradient_transformation()),
        jopt.lbfgs(),
        jopt.lookahead(jopt.lion(1e-3), sync_period=2, slow_step_size=0.5),
    ]


def main() -> None:
    x, y, zero = array(np.eye(3)), array([0.0, 1.0, 2.0]), array([0.0, 0.0, 0.0])
    params: Params = {"w": zero, "b": array(0.0)}
    tx = optimizer(10, lambda p: {"w": True, "b": False})
    step, state = step_of(tx, x, y), tx.init(params)
    first, last = array(jnp.inf), array(jnp.inf)
    for i in range(10):
        params, state, last = step(params, state)
        first = last if i == 0 else first
    norm: jax.Array = tree.norm(params)
    mw: jax.Array
    _, mw, _ = jopt.adam_update(y, y, 1e-3, zero, zero, 1)
    average = jopt.incremental_update(params, tree.zeros_like(params), 0.5)
    moment = jopt.bias_correction(jopt.update_moment(params, average, 0.9, 1), 0.9, 1)
    assert last < first and norm > 0 and len(others()) == 4
    print(f"{float(last):.4f}", float(norm), mw.shape, moment)


if __name__ == "__main__":
    main()
