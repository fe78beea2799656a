"""Programs of the kinds that people write for optax, run on both libraries.

Each takes the library as an argument named `optax`, its body is a user's, and it
returns the parameters that it trained and whatever it reads from the state.
"""

import functools
import pickle
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax as real_optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jopt

X = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
Y = np.sin(X.sum(axis=1, keepdims=True))
PARAMS = {
    "dense": {"kernel": X[:4] / 2, "bias": X[4]},
    "out": {"kernel": X[5:9, :1] / 2, "bias": X[9, :1]},
}


def start():
    return jax.tree.map(jnp.asarray, PARAMS)


def loss_fn(params, x=X, y=Y):
    dense, out = params["dense"], params["out"]
    hidden = jnp.tanh(x @ dense["kernel"] + dense["bias"])
    return jnp.mean((hidden @ out["kernel"] + out["bias"] - y) ** 2)


def fit(optax, tx, params, loss_fn=loss_fn, steps=4):
    """The loop of every tutorial."""

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss_fn)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def own_transformation(optax):
    """A transformation of the user's, in a chain, whose state is read by position."""

    class AverageState(NamedTuple):
        count: chex.Array
        average: optax.Params

    def average_params(decay: float) -> optax.GradientTransformation:
        def init_fn(params):
            return AverageState(jnp.zeros([], jnp.int32), params)

        def update_fn(updates, state, params=None):
            new = optax.apply_updates(params, updates)
            average = optax.incremental_update(new, state.average, 1 - decay)
            return updates, AverageState(optax.safe_increment(state.count), average)

        return optax.GradientTransformation(init_fn, update_fn)

    tx = optax.chain(optax.clip(1.0), optax.adamw(1e-2), average_params(0.9))
    params, state = fit(optax, tx, start())
    assert isinstance(tx, optax.GradientTransformation)
    assert isinstance(state[0], optax.EmptyState)
    return params, state[1][0].mu, state[1][0].count, state[2]._asdict()


def state_by_hand(optax):
    """A state that the program builds from the public classes, and edits."""
    params = start()
    zeros = jax.tree.map(jnp.zeros_like, params)
    adam = optax.ScaleByAdamState(count=jnp.zeros([], jnp.int32), mu=zeros, nu=zeros)
    tx = optax.adam(1e-2)
    state = (adam, optax.EmptyState())
    chex.assert_trees_all_equal(state, tx.init(params))
    for step in range(4):
        if step == 2:  # forget the momentum
            state = (state[0]._replace(mu=zeros), *state[1:])
        updates, state = tx.update(jax.grad(loss_fn)(params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state[0].nu


def ensemble_in_a_scan(optax):
    """Members trained together, with the state in the carry."""
    tx = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.linear_schedule(1e-2, 0.0, 9))
    )

    def step(carry, _):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    def train(scale):
        params = jax.tree.map(lambda p: p * scale, start())
        (params, state), losses = jax.lax.scan(
            step, (params, tx.init(params)), length=4
        )
        counts = optax.tree_utils.tree_get_all_with_path(state, "count")
        return params, losses, [count for _, count in counts]

    params, losses, counts = jax.jit(jax.vmap(train))(jnp.array([1.0, 0.5]))
    return jax.tree.map(lambda p: p[0], params), losses, counts


def lbfgs_until_flat(optax):
    """A loop that ends by what it finds in the state, by optax's older names too."""
    tx = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss_fn)
    otu = optax.tree_utils

    def step(carry):
        params, state = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = tx.update(
            grad, state, params, value=value, grad=grad, value_fn=loss_fn
        )
        return optax.apply_updates(params, updates), state

    def goes_on(carry):
        _, state = carry
        count, grad = otu.tree_get(state, "count"), otu.tree_get(state, "grad")
        steep = otu.tree_l2_norm(grad) + optax.global_norm(grad) > 0.1
        return (count == 0) | ((count < 5) & steep)

    params = start()
    return jax.lax.while_loop(goes_on, step, (params, tx.init(params)))[0], 0


def rate_set_by_hand(optax):
    """Hyperparameters in the state: changed, pickled and taken up again."""

    @functools.partial(optax.inject_hyperparams, static_args="mask")
    def make(learning_rate, weight_decay, mask):
        return optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)

    tx = make(1e-2, 0.1, lambda params: jax.tree.map(lambda p: p.ndim > 1, params))
    params, state = fit(optax, tx, start())
    state = pickle.loads(pickle.dumps(jax.device_get(state)))
    state.hyperparams["learning_rate"] = 1e-3
    updates, state = tx.update(jax.grad(loss_fn)(params), state, params)
    params = optax.apply_updates(params, updates)
    return params, state.hyperparams["learning_rate"], state.inner_state[0].mu


def frozen_by_label(optax):
    tx = optax.multi_transform(
        {"train": optax.sgd(0.1, momentum=0.9), "frozen": optax.set_to_zero()},
        {"dense": "frozen", "out": {"kernel": "train", "bias": "train"}},
    )
    params, state = fit(optax, tx, start())
    chex.assert_trees_all_equal(params["dense"], start()["dense"])
    trace = state.inner_states["train"].inner_state[0].trace
    assert isinstance(trace["dense"], optax.MaskedNode)
    return params, trace["out"]


def sharded_state(optax):
    """The state's sharding from the parameters', and the loss over all devices."""
    tx = optax.adamw(1e-2)
    params = start()
    mesh = Mesh(np.array(jax.devices()), ("data",))
    shardings = optax.tree_map_params(
        tx,
        lambda _, p: NamedSharding(mesh, PartitionSpec(*[None] * p.ndim)),
        jax.eval_shape(tx.init, params),
        params,
        transform_non_params=lambda _: NamedSharding(mesh, PartitionSpec()),
    )
    state = jax.jit(tx.init, out_shardings=shardings)(params)
    everywhere, split = PartitionSpec(), PartitionSpec("data")

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(everywhere, everywhere, split, split),
        out_specs=everywhere,
    )
    def step(params, state, x, y):
        def loss(params):
            return jax.lax.pmean(loss_fn(params, x, y), "data")

        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(3):
        params, state = step(params, state, X, Y)
    return params, state[0].count


def restored_train_state(optax):
    serialization = pytest.importorskip("flax.serialization")
    train_state = pytest.importorskip("flax.training.train_state")

    class TrainState(train_state.TrainState):
        average: Any = None

    tx = optax.chain(optax.clip(1.0), optax.adamw(optax.cosine_decay_schedule(0.1, 9)))
    create = functools.partial(TrainState.create, apply_fn=None, tx=tx, average=0.0)

    @jax.jit
    def step(state):
        return state.apply_gradients(grads=jax.grad(loss_fn)(state.params))

    state = step(step(create(params=start())))
    saved = serialization.to_bytes(state)
    state = step(serialization.from_bytes(create(params=start()), saved))
    names = sorted(serialization.to_state_dict(state)["opt_state"]["1"]["0"])
    assert names == ["count", "mu", "nu"]
    return state.params, state.opt_state[1][0].mu, state.step


def nnx_accumulation(optax):
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self):
            self.dense = nnx.data(
                {k: nnx.Param(p) for k, p in start()["dense"].items()}
            )
            self.out = nnx.data({k: nnx.Param(p) for k, p in start()["out"].items()})

    def loss(model):
        return loss_fn(nnx.to_pure_dict(nnx.state(model, nnx.Param)))

    model = Model()
    tx = optax.inject_hyperparams(optax.adam)(optax.linear_schedule(1e-2, 0.0, 9))
    optimizer = nnx.Optimizer(model, optax.MultiSteps(tx, 2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(4):
        step(model, optimizer)
    graph, state = nnx.split(optimizer)
    inner = nnx.merge(graph, state).opt_state.inner_opt_state
    rate = inner.hyperparams["learning_rate"][...]
    return nnx.to_pure_dict(nnx.state(model, nnx.Param)), rate


def haiku_decay_of_weights(optax):
    hk = pytest.importorskip("haiku")

    def decays(params):
        return hk.data_structures.map(lambda module, name, p: name != "bias", params)

    tx = optax.chain(
        optax.scale_by_adam(eps=1e-4),
        optax.add_decayed_weights(0.1, decays),
        optax.scale_by_schedule(lambda count: -1e-2 / (1 + count)),
    )
    params, state = fit(optax, tx, start())
    return params, state[2].count


def equinox_frozen_layers(optax):
    eqx = pytest.importorskip("equinox")

    class Model(eqx.Module):
        dense: dict
        out: dict
        activation: Any = jnp.tanh

    model = Model(**start())
    moves = eqx.tree_at(lambda m: m.out, jax.tree.map(lambda _: False, model), True)
    moving, still = eqx.partition(model, moves)

    def loss(moving):
        model = eqx.combine(moving, still)
        return loss_fn({"dense": model.dense, "out": model.out})

    tx = optax.chain(optax.zero_nans(), optax.adaptive_grad_clip(0.1), optax.adam(1e-2))
    state = tx.init(moving)

    @eqx.filter_jit
    def step(moving, state):
        updates, state = tx.update(eqx.filter_grad(loss)(moving), state, moving)
        return eqx.apply_updates(moving, updates), state

    for _ in range(4):
        moving, state = step(moving, state)
    model = eqx.combine(moving, still)
    return {"dense": model.dense, "out": model.out}, state[2][0].mu.out


PROGRAMS = [
    own_transformation,
    state_by_hand,
    ensemble_in_a_scan,
    lbfgs_until_flat,
    rate_set_by_hand,
    frozen_by_label,
    sharded_state,
    restored_train_state,
    nnx_accumulation,
    haiku_decay_of_weights,
    equinox_frozen_layers,
]


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_program(program):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params, *ours = program(jopt)
        their_params, *theirs = program(real_optax)
    moved = jax.tree.map(lambda p, q: np.abs(p - q).max(), params, PARAMS)
    assert max(jax.tree.leaves(moved)) > 1e-3
    close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-5)
    close((params, ours), (their_params, theirs))
