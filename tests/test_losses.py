"""Losses against float64 NumPy written from the definitions, and against optax."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jopt import losses
from tests.references import losses as reference

pytestmark = pytest.mark.filterwarnings("ignore:.*convex_kl:DeprecationWarning")

NAMES = [n for n in dir(optax.losses) if callable(getattr(optax.losses, n))]
NAMES = [n for n in NAMES if not n.startswith("_")]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4)) * 2
E = RNG.normal(size=(2, 3, 4)) * 2
P = np.exp(E) / np.exp(E).sum(-1, keepdims=True)  # distributions, on the last axis
LOG_P = X - np.log(np.exp(X).sum(-1, keepdims=True))
YES = (E > 0).astype(float)
SIDES = np.sign(E)
LABELS = RNG.integers(0, 4, (2, 3))
MASK = RNG.uniform(size=(2, 3, 4)) < 0.6
MASK[0, 1] = False
KEEP = np.array([[True, False, True], [False, True, True]])
DICE = RNG.normal(size=(2, 3, 4, 3)), np.eye(3)[RNG.integers(0, 3, (2, 3, 4))]
CTC = (
    RNG.normal(size=(3, 5, 4)),
    np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1]]),
    np.array([[1, 2, 2], [3, 1, 0], [2, 0, 0]]),
    np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1]]),
)
GROUPS = np.array([0, 1, 0, 2, 1, 0])

AXES = [dict(), dict(axis=0), dict(axis=(-1, 1)), dict(axis=None)]
WHERE = [dict(where=MASK), dict(where=MASK, axis=(0, -2))]


def calls():
    """Name, positional and keyword arguments."""
    for name in ("squared_error", "l2_loss", "huber_loss", "log_cosh"):
        yield name, (X,), {}
        yield name, (X, E), {}
        yield name, (X[0, 0, 0], E[0, 0, 0]), {}
    yield "huber_loss", (X, E[0]), dict(delta=0.3)
    yield "huber_loss", (X, 0.5), dict(delta=np.array([0.1, 0.5, 1.0, 2.0]))
    yield "log_cosh", (X, E[:, :1]), {}
    for kw in (*AXES, *WHERE, dict(epsilon=9.0)):
        yield "cosine_similarity", (X, E), kw
        yield "cosine_distance", (X, E), kw
    yield "cosine_similarity", (X[:, :1], E), {}
    yield "cosine_similarity", (X, E[0, 0]), {}
    for name in ("sigmoid_binary_cross_entropy", "sigmoid_focal_loss"):
        yield name, (X, YES), {}
        yield name, (X, P), {}
        yield name, (X, YES.astype(int)), {}
        yield name, (X, YES[0].astype(bool)), {}
    yield "sigmoid_focal_loss", (X, P), dict(alpha=0.3, gamma=1.5)
    yield "sigmoid_focal_loss", (X, YES), dict(alpha=0.3, gamma=0.0)
    for name in ("softmax_cross_entropy", "poly_loss_cross_entropy"):
        for kw in (*AXES, *WHERE, dict(where=KEEP[:, :, None])):
            yield name, (X, P), kw
        yield name, (X, P[0, 0]), {}
        yield name, (X, P[:, :1]), {}
    yield "softmax_cross_entropy", (X, P), dict(where=KEEP)
    yield "softmax_cross_entropy", (X, np.eye(4, dtype=int)[LABELS]), {}
    yield "poly_loss_cross_entropy", (X, P), dict(epsilon=-1.0)
    yield "safe_softmax_cross_entropy", (X, P), {}
    yield "safe_softmax_cross_entropy", (X, YES), {}
    integer = "softmax_cross_entropy_with_integer_labels"
    yield integer, (X, LABELS), {}
    yield integer, (X, LABELS.astype(np.uint8)), dict(where=KEEP)
    yield integer, (X[0, 0], 2), {}
    yield integer, (X, LABELS[:1]), {}
    yield integer, (X, LABELS - 4), {}
    yield integer, (X, LABELS[:, :2] @ np.ones((2, 4), int) % 3), dict(axis=1)
    yield integer, (X, np.array([7, 2, 5])), dict(axis=(0, 2))
    yield integer, (X, np.array([7, 2, 5])), dict(axis=(-1, 0))
    yield integer, (X, np.int32(20)), dict(axis=(0, 1, 2))
    for kw in (*AXES, *WHERE, dict(where=MASK[0, 0])):
        yield "kl_divergence", (LOG_P, P), kw
    for kw in ({}, dict(where=MASK, axis=(0, -1))):
        yield "kl_divergence_with_log_targets", (LOG_P, np.log(P)), kw
        yield "generalized_kl_divergence", (X, np.exp(E)), kw
        yield "convex_kl_divergence", (LOG_P, P), kw
    yield "kl_divergence", (LOG_P, YES), {}
    for name in ("hinge_loss", "perceptron_loss"):
        yield name, (X, SIDES), {}
        yield name, (X, SIDES.astype(int)), {}
    yield "hinge_loss", (X, 1), {}
    for name in ("multiclass_hinge_loss", "multiclass_perceptron_loss"):
        yield name, (X, LABELS), {}
        yield name, (X[0, 0], 3), {}
        yield name, (X, 3), {}
    yield "sparsemax_loss", (X, YES), {}
    yield "sparsemax_loss", (X, YES.astype(int)), {}
    yield "multiclass_sparsemax_loss", (X[0], LABELS[0]), {}
    for kw in (*AXES, dict(where=KEEP[:, :, None] | [True, False, True, True])):
        yield "smooth_labels", (P, 0.1), kw
    yield "smooth_labels", (P, np.array([0.1, 0.2, 0.3, 0.4])), {}
    for kw in ({}, dict(where=MASK), dict(weights=P), dict(where=MASK, weights=P)):
        yield "ranking_softmax_loss", (X, P), kw
    for reduce_fn in (None, jnp.sum):
        yield "ranking_softmax_loss", (X, P), dict(where=MASK, reduce_fn=reduce_fn)
    yield "ranking_softmax_loss", (X, LABELS[..., None] + np.arange(4)), {}
    yield "ntxent", (X.reshape(6, 4), GROUPS), {}
    yield "ntxent", (X.reshape(6, 4), GROUPS), dict(temperature=1.0)
    for kw in ({}, dict(axis=0), dict(axis=(0, 1)), dict(margin=3.0, eps=0.1)):
        yield "triplet_margin_loss", (X, E, P), kw
    yield "triplet_margin_loss", (X, E, P), dict(norm_degree=4)
    yield "triplet_margin_loss", (X, E[:1], P[0, 0]), {}
    for kw in (
        *({}, dict(reduction="sum"), dict(reduction="none"), dict(axis=0)),
        *(dict(axis=(1, 2)), dict(axis=[0, 1, 2]), dict(axis=-2)),
        *(dict(alpha=0.3, beta=0.7, smooth=0.1), dict(ignore_background=True)),
        dict(class_weights=np.array([1.0, 2, 3]), ignore_background=True),
    ):
        yield "dice_loss", DICE, kw
    yield "dice_loss", (DICE[0][0, 0, 0], DICE[1][0, 0, 0]), {}
    yield "dice_loss", (DICE[0][..., :1], DICE[1][..., :1]), {}
    for kw in ({}, dict(smooth=0.1), dict(ignore_background=True)):
        yield "multiclass_generalized_dice_loss", DICE, kw
    yield "multiclass_generalized_dice_loss", (DICE[0][0, 0, 0], DICE[1][0, 0, 0]), {}
    yield "binary_dice_loss", (X, YES), {}
    yield "binary_dice_loss", (X[..., None], YES.astype(int)), dict(smooth=0.1)
    yield "ctc_loss", CTC, {}
    yield "ctc_loss", (CTC[0], CTC[1], CTC[2] - 1 + (CTC[2] == 0), CTC[3]), {}
    yield "ctc_loss_with_forward_probs", CTC, dict(log_epsilon=-1e4)
    yield "ctc_loss_with_forward_probs", (-CTC[0], *CTC[1:]), dict(blank_id=3)


CALLS = list(calls())
IDS = [f"{c[0]}-{i}" for i, c in enumerate(CALLS)]
OWN = {"multiclass_generalized_dice_loss"}  # the paper's rule, not optax's


def as_jax(x, dtype):
    if isinstance(x, tuple):
        return tuple(as_jax(y, dtype) for y in x)
    if isinstance(x, (np.ndarray, np.number)):
        floating = np.issubdtype(x.dtype, np.floating)
        return jnp.asarray(x, dtype if floating else None)
    return x


def call(module, name, args, kwargs, dtype):
    kwargs = {k: v if k == "axis" else as_jax(v, dtype) for k, v in kwargs.items()}
    return getattr(module, name)(*(as_jax(x, dtype) for x in args), **kwargs)


def loose():
    return jax.numpy_dtype_promotion("standard")


# ------------------------------------------------------------------------ against optax


@pytest.mark.parametrize("case", CALLS, ids=IDS)
def test_equals_optax(case):
    if case[0] in OWN:
        pytest.skip("not optax's rule")

    def both():
        ours = call(losses, *case, jnp.float64)
        with loose(), jax.numpy_rank_promotion("allow"):
            return ours, call(optax.losses, *case, jnp.float64)

    with jax.enable_x64(True):
        got, want = jax.jit(both)()
    if case[0] == "ctc_loss_with_forward_probs":  # what cannot be may be as it will
        got, want = ((x[0], *map(np.exp, x[1:])) for x in (got, want))
    for x, y in zip(*map(jax.tree.leaves, (got, want))):
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9)


FIRST = {name: (args, kwargs) for name, args, kwargs in reversed(CALLS)}


@pytest.mark.parametrize("name", NAMES)
def test_is_as_good_in_float32_jitted_and_batched(name):
    if name == "make_fenchel_young_loss":
        return  # below
    args, kwargs = FIRST[name]
    with jax.enable_x64(True):
        want = jax.jit(lambda: call(losses, name, args, kwargs, jnp.float64))()

    def one(x):
        return call(losses, name, (x, *args[1:]), kwargs, jnp.float32)

    x = np.stack([args[0], 0.5 * args[0]]).astype(np.float32)
    got = jax.jit(jax.vmap(one))(x)
    for y, z in zip(jax.tree.leaves(want), jax.tree.leaves(got)):
        assert z.dtype == jnp.float32
        y, z = np.asarray(y), np.asarray(z[0])
        small = np.abs(y) < 100  # beyond are logarithms of zero
        np.testing.assert_allclose(z[small], y[small], rtol=1e-6, atol=2e-6)
    if name in OWN:
        return
    with loose(), jax.numpy_rank_promotion("allow"):
        theirs = jax.jit(lambda: call(optax.losses, name, args, kwargs, jnp.float32))()
    for y, z in zip(jax.tree.leaves(theirs), jax.tree.leaves(got)):
        y, z = np.asarray(y), np.asarray(z[0])
        small = np.abs(y) < 100
        np.testing.assert_allclose(z[small], y[small], rtol=1e-5, atol=1e-5)


OURS = inspect.Parameter.KEYWORD_ONLY  # what optax does not have


def test_every_loss_of_optax_is_here_with_its_arguments():
    for name in NAMES:
        theirs = inspect.signature(getattr(optax.losses, name)).parameters
        ours = inspect.signature(getattr(losses, name)).parameters
        ours = {k: p for k, p in ours.items() if k in theirs or p.kind is not OURS}
        assert [(p.name, p.kind) for p in ours.values()] == [
            (p.name, p.kind) for p in theirs.values()
        ]
        for p, q in zip(ours.values(), theirs.values()):
            assert p.default is q.default or p.default == q.default
    assert sorted(NAMES) == sorted(n for n in NAMES if hasattr(losses, n))


# ------------------------------------------------------------------ against references

ELEMENTS = [
    ("squared_error", X, {}),
    ("l2_loss", X, {}),
    ("huber_loss", X, dict(delta=0.7)),
    ("log_cosh", X, {}),
    ("sigmoid_binary_cross_entropy", (X, P), {}),
    ("sigmoid_focal_loss", (X, P), dict(alpha=0.2, gamma=1.5)),
    ("sigmoid_focal_loss", (X, YES), dict(gamma=0.5)),
    ("hinge_loss", (X, SIDES), {}),
    ("perceptron_loss", (X, SIDES), {}),
    ("sparsemax_loss", (X, YES), {}),
]
VECTORS = [
    ("cosine_similarity", (X, E), {}),
    ("cosine_similarity", (X, E), dict(epsilon=9.0)),
    ("cosine_distance", (X, E), dict(epsilon=9.0)),
    ("softmax_cross_entropy", (X, P), {}),
    ("softmax_cross_entropy", (X, YES), {}),
    ("safe_softmax_cross_entropy", (X, YES), {}),
    ("softmax_cross_entropy_with_integer_labels", (X, LABELS), {}),
    ("ranking_softmax_loss", (X, P), dict(reduce_fn=None)),
    ("poly_loss_cross_entropy", (X, P), dict(epsilon=-1.0)),
    ("kl_divergence", (LOG_P, P), {}),
    ("kl_divergence", (LOG_P, YES), {}),
    ("kl_divergence_with_log_targets", (LOG_P, np.log(P)), {}),
    ("generalized_kl_divergence", (X, YES * np.exp(E)), {}),
    ("convex_kl_divergence", (X, YES * np.exp(E)), {}),
    ("multiclass_hinge_loss", (X, LABELS), {}),
    ("multiclass_perceptron_loss", (X, LABELS), {}),
    ("multiclass_sparsemax_loss", (X, LABELS), {}),
]


@pytest.mark.parametrize("name, args, kwargs", ELEMENTS + VECTORS)
def test_equals_definition(name, args, kwargs):
    args = args if isinstance(args, tuple) else (args,)
    with jax.enable_x64(True):
        got = jax.jit(lambda: call(losses, name, args, kwargs, jnp.float64))()
    want = np.empty(got.shape)
    for i in np.ndindex(got.shape):
        want[i] = getattr(reference, name)(*(a[i] for a in args), **kwargs)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_integer_labels_are_one_hot_labels():
    one_hot = np.eye(4)[LABELS]
    masks = (MASK, KEEP, one_hot == 0)  # the last leaves all classes but the true one
    for kw in ({}, *(dict(where=mask) for mask in masks)):
        args, kw = (
            as_jax((X, LABELS, one_hot), jnp.float32),
            {k: jnp.asarray(v) for k, v in kw.items()},
        )
        got = losses.softmax_cross_entropy_with_integer_labels(*args[:2], **kw)
        want = losses.softmax_cross_entropy(args[0], args[2], **kw)
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_sets_of_embeddings_equal_definition():
    x = X.reshape(6, 4)
    with jax.enable_x64(True):
        for labels in (GROUPS, np.arange(6), np.zeros(6, int)):
            got = losses.ntxent(jnp.asarray(x), jnp.asarray(labels), 0.5)
            want = reference.ntxent(x, labels, 0.5)
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
        for kw in (dict(norm_degree=1, eps=0.0), dict(norm_degree=3), dict(margin=0.1)):
            got = losses.triplet_margin_loss(*as_jax((X, E, P), jnp.float64), **kw)
            want = reference.triplet_margin_loss(X, E, P, **kw)
            np.testing.assert_allclose(got, want, rtol=1e-9)
            traced = losses.triplet_margin_loss(
                *as_jax((X, E, P), jnp.float64),
                **{k: jnp.asarray(v, float) for k, v in kw.items()},
            )
            np.testing.assert_allclose(traced, want, rtol=1e-9)


def test_regions_equal_definition():
    logits, targets = DICE
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kw = dict(smooth=0.2, alpha=0.3, beta=0.6)
    want = [
        [reference.tversky(p[b, ..., c], targets[b, ..., c], **kw) for c in range(3)]
        for b in range(2)
    ]
    with jax.enable_x64(True):
        x, t = as_jax(DICE, jnp.float64)
        got = losses.dice_loss(x, t, reduction="none", **kw)
        np.testing.assert_allclose(got, want, rtol=1e-9)
        same = losses.dice_loss(
            jnp.asarray(p), t, reduction="none", apply_softmax=False, **kw
        )
        np.testing.assert_allclose(same, want, rtol=1e-9)
        # optax refuses all probabilities here, as those of one class sum not to one
        q, y = 1 / (1 + np.exp(-X)), jnp.asarray(YES)
        got = losses.binary_dice_loss(jnp.asarray(q), y, apply_sigmoid=False)
        want = [reference.tversky(a, b) for a, b in zip(q, YES)]
        np.testing.assert_allclose(got, want, rtol=1e-9)


def test_generalized_dice_equals_the_paper():
    logits, targets = DICE
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    with jax.enable_x64(True):
        x, t = as_jax(DICE, jnp.float64)
        for kw in ({}, dict(smooth=0.0), dict(smooth=0.3)):
            got = losses.multiclass_generalized_dice_loss(x, t, **kw)
            want = reference.generalized_dice(p, targets, kw.get("smooth", 1.0))
            np.testing.assert_allclose(got, want, rtol=1e-9)
        got = losses.multiclass_generalized_dice_loss(
            x, t, smooth=0.0, ignore_background=True
        )
        want = reference.generalized_dice(p[..., 1:], targets[..., 1:], 0.0)
        np.testing.assert_allclose(got, want, rtol=1e-9)
        # a class that is nowhere weighs as much as the rarest, and not 1e7 times that
        none = targets.copy()
        none[..., 1] += none[..., 2]
        none[..., 2] = 0
        got = losses.multiclass_generalized_dice_loss(x, jnp.asarray(none), smooth=0.0)
        want = reference.generalized_dice(p, none, 0.0)
        np.testing.assert_allclose(got, want, rtol=1e-9)


def test_the_rule_of_optax_for_generalized_dice_is_that_of_dice_with_weights():
    sizes = jnp.sum(DICE[1], (0, 1, 2))
    weights = 1 / (sizes**2 + 1e-7)
    weights = weights / jnp.mean(weights)
    got = losses.dice_loss(*DICE, class_weights=weights, reduction="none")
    with loose(), jax.numpy_rank_promotion("allow"):
        want = optax.losses.multiclass_generalized_dice_loss(*DICE)
    np.testing.assert_allclose(jnp.mean(got), want, rtol=1e-5)


def test_smooth_labels_are_mixed_with_equal_ones():
    with jax.enable_x64(True):
        got = losses.smooth_labels(jnp.asarray(P), 0.1)
    np.testing.assert_allclose(got, 0.9 * P + 0.1 / 4, rtol=1e-12)


def test_a_deprecated_loss_warns_where_it_is_called():
    with pytest.warns(DeprecationWarning, match="use generalized_kl") as warned:
        losses.convex_kl_divergence(jnp.zeros(2), jnp.ones(2))
    assert warned[0].filename == __file__


def test_ctc_sums_over_all_paths():
    logits, logit_paddings, labels, label_paddings = CTC
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    with jax.enable_x64(True):
        for blank in (0, 3):
            want = [
                -np.log(
                    reference.ctc_probability(
                        p[b, logit_paddings[b] == 0],
                        labels[b, label_paddings[b] == 0] - (blank == 3),
                        blank,
                    )
                )
                for b in range(3)
            ]
            args = as_jax((logits, logit_paddings, labels - (blank == 3)), jnp.float64)
            for loss in (
                losses.ctc_loss,
                lambda *a, **k: losses.ctc_loss_with_forward_probs(*a, **k)[0],
            ):
                got = loss(*args, jnp.asarray(label_paddings), blank_id=blank)
                np.testing.assert_allclose(got, want, rtol=1e-9)


def test_fenchel_young_loss_is_cross_entropy_for_the_entropy():
    make = losses.make_fenchel_young_loss
    x, t = as_jax((X, P), jnp.float32)
    got = make(jax.nn.logsumexp)(x, t)
    with loose():
        want = optax.losses.make_fenchel_young_loss(jax.nn.logsumexp)(x, t)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got, losses.softmax_cross_entropy(x, t), rtol=2e-6)

    def soft(scores, temperature, *, shift):
        return temperature * jax.nn.logsumexp(scores / temperature) + shift

    got = make(soft)(x, t, 2.0, shift=1.0)
    want = 2 * losses.softmax_cross_entropy(x / 2, t) + 1
    np.testing.assert_allclose(got, want, rtol=1e-6)
    gradient = jax.grad(lambda x: make(jax.nn.logsumexp)(x, t).sum())(x)
    np.testing.assert_allclose(gradient, jax.nn.softmax(x) - t, atol=1e-6)
    with pytest.raises(TypeError, match="max_fun must be a function, got 3"):
        make(3)


# --------------------------------------------------------------------------- the edges


def value_and_gradients(function, *args, **kwargs):
    """Of all arguments, compiled once for each function of this module's."""
    args = [jnp.asarray(x, jnp.float32) for x in args]
    return _value_and_gradients(function)(args, kwargs)


@functools.cache
def _value_and_gradients(function):
    def both(args, kwargs):
        value, pull = jax.vjp(lambda *a: function(*a, **kwargs), *args)
        return value, pull(jnp.ones_like(value))

    return jax.jit(both)


NOTHING = [
    ("cosine_similarity", (X, E), 0),
    ("cosine_distance", (X, E), 1),
    ("softmax_cross_entropy", (X, P), 0),
    ("poly_loss_cross_entropy", (X, P), 0),
    ("kl_divergence", (LOG_P, P), 0),
    ("kl_divergence_with_log_targets", (LOG_P, LOG_P), 0),
    ("generalized_kl_divergence", (X, P), 0),
    ("convex_kl_divergence", (X, P), 0),
    ("ranking_softmax_loss", (X, P), 0),
]


@pytest.mark.each_value_once
@pytest.mark.parametrize("name, args, want", NOTHING)
@pytest.mark.parametrize("junk", [0.0, np.nan, np.inf, -np.inf])
def test_what_is_masked_has_no_part(name, args, want, junk):
    function = getattr(losses, name)
    masked = np.broadcast_to(False, X.shape)
    value, gradients = value_and_gradients(
        function,
        *(np.where(masked, x, junk) for x in args),
        where=jnp.asarray(masked),
    )
    np.testing.assert_array_equal(value, np.full(value.shape, want))
    for g in gradients:
        np.testing.assert_array_equal(g, 0)

    value, gradients = value_and_gradients(
        function,
        *(np.where(MASK, x, junk) for x in args),
        where=jnp.asarray(MASK),
    )
    clean, _ = value_and_gradients(function, *args, where=jnp.asarray(MASK))
    np.testing.assert_array_equal(value, clean)
    for g in gradients:
        assert np.isfinite(g).all() and not g[~MASK].any() and g[MASK].any()


def test_masked_classes_and_examples_of_integer_labels():
    loss = losses.softmax_cross_entropy_with_integer_labels
    x = jnp.where(jnp.asarray(MASK), jnp.asarray(X, jnp.float32), jnp.nan)
    for where in (MASK, MASK.any(-1), np.zeros_like(MASK), np.zeros_like(KEEP)):
        where, labels = jnp.asarray(where), jnp.asarray(LABELS)
        if where.ndim == 2:
            x = jnp.where(where[..., None], jnp.nan_to_num(x), jnp.nan)
        value, pull = jax.vjp(lambda x: loss(x, labels, where=where), x)  # noqa: B023
        assert np.isfinite(value).all() and (value >= 0).all()
        assert np.isfinite(pull(jnp.ones_like(value))[0]).all()
        if not where.any():
            assert not value.any()
    labels = jnp.array([0, -100])
    keep = jnp.array([True, False])
    value = loss(jnp.zeros((2, 3)), labels, where=keep)
    np.testing.assert_allclose(value, [np.log(3), 0], rtol=1e-6)


def test_smooth_labels_is_finite_where_no_class_is_left():
    got = losses.smooth_labels(jnp.eye(2), 0.2, where=jnp.zeros((2, 2), bool))
    assert np.isfinite(got).all()


def test_zero_vectors_have_no_direction():
    x = np.zeros((2, 3))
    x[1] = 1e-30, 0, 1e-30
    y = np.array([[1.0, 2, 3], [3e30, 0, 0]])
    value, gradients = value_and_gradients(losses.cosine_similarity, x, y)
    np.testing.assert_allclose(value, [0, 0.5**0.5], rtol=1e-6)
    assert all(np.isfinite(g).all() for g in gradients)
    assert not gradients[0][0].any() and gradients[0][1].any()
    value, _ = value_and_gradients(losses.cosine_distance, x, y)
    np.testing.assert_allclose(value, [1, 1 - 0.5**0.5], rtol=1e-6)
    value, gradients = value_and_gradients(losses.ntxent, x, np.zeros(2))
    assert value == 0 and np.isfinite(gradients[0]).all()
    value, gradients = value_and_gradients(losses.triplet_margin_loss, x, x, x, eps=0.0)
    np.testing.assert_array_equal(value, 1)
    assert all(np.isfinite(g).all() for g in gradients)


INF = np.inf
INFINITE = [
    ("huber_loss", ([INF, -INF],), [INF, INF]),
    ("log_cosh", ([INF, -INF, 1e30],), [INF, INF, 1e30]),
    (
        "sigmoid_binary_cross_entropy",
        ([INF, -INF, INF, -INF], [1, 0, 0, 1]),
        [0, 0, INF, INF],
    ),
    ("sigmoid_focal_loss", ([INF, -INF, 200.0, INF], [1, 0, 1, 0]), [0, 0, 0, INF]),
    ("hinge_loss", ([INF, -INF, INF], [1, -1, -1]), [0, 0, INF]),
    ("perceptron_loss", ([INF, -INF, INF], [1, -1, -1]), [0, 0, INF]),
    ("sparsemax_loss", ([INF, -INF, INF, -INF], [1, 0, 0, 1]), [0, 0, INF, INF]),
    ("softmax_cross_entropy", ([0, 0, -INF], [0.5, 0.5, 0]), np.log(2)),
    ("softmax_cross_entropy", ([0, 5, INF], [0, 0, 1]), 0),
    ("softmax_cross_entropy", ([0, 5, -INF], [0, 0, 1]), INF),
    ("softmax_cross_entropy", ([-1e30, 1e30], [0, 1]), 0),
    ("softmax_cross_entropy", ([-INF, -INF], [0, 0]), 0),
    ("softmax_cross_entropy", ([-INF, -INF], [0, 1]), INF),
    ("safe_softmax_cross_entropy", ([0, 0, -INF], [0.5, 0.5, 0]), np.log(2)),
    ("poly_loss_cross_entropy", ([0, 0, -INF], [0.5, 0.5, 0]), np.log(2) + 1),
    ("kl_divergence", ([0, -INF], [1, 0]), 0),
    ("kl_divergence", ([0, -INF], [0, 1]), INF),
    ("kl_divergence_with_log_targets", ([0, -INF], [0, -INF]), 0),
    ("generalized_kl_divergence", ([0, -INF], [1, 0]), 0),
    ("generalized_kl_divergence", ([0, -INF], [0.5, 0]), 0.5 - np.log(2) / 2),
    ("ranking_softmax_loss", ([0, 0, -INF], [1, 0, 0]), np.log(2)),
]


@pytest.mark.parametrize("name, args, want", INFINITE)
def test_infinite_logits_have_a_finite_loss_where_there_is_one(name, args, want):
    value, gradients = value_and_gradients(getattr(losses, name), *args)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    finite = np.isfinite(np.broadcast_to(value, gradients[0].shape))
    assert np.isfinite(gradients[0][finite]).all()


@pytest.mark.parametrize(
    "name, scores, label, want",
    [
        ("softmax_cross_entropy_with_integer_labels", [0, INF, 1], 1, 0),
        ("softmax_cross_entropy_with_integer_labels", [0, -INF, 0], 0, np.log(2)),
        ("softmax_cross_entropy_with_integer_labels", [0, -INF, 0], 1, INF),
        ("multiclass_hinge_loss", [0, INF, 1], 1, 0),
        ("multiclass_hinge_loss", [0, -INF, 0], 0, 1),
        ("multiclass_perceptron_loss", [0, INF, 1], 1, 0),
        ("multiclass_perceptron_loss", [0, -INF, 1], 0, 1),
        ("multiclass_sparsemax_loss", [0, INF, 1], 1, 0),
        ("multiclass_sparsemax_loss", [0, -INF, 0], 0, 0.25),
        ("multiclass_sparsemax_loss", [1e6, 1e6, 0], 0, 0.25),
    ],
)
def test_infinite_scores(name, scores, label, want):
    function = functools.partial(getattr(losses, name), labels=label)
    value, gradients = value_and_gradients(function, scores)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    assert np.isfinite(gradients[0]).all() or not np.isfinite(value)


def test_nan_is_not_hidden():
    x = jnp.array([[0.0, jnp.nan], [0.0, 1.0]])
    y = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    names = [n for n, args, _ in NOTHING if n != "ranking_softmax_loss"]
    for name in names:
        value, _ = value_and_gradients(getattr(losses, name), x, y)
        # a target of zero wants nothing of its prediction
        np.testing.assert_array_equal(np.isnan(value), [name != "kl_divergence", 0])
    labels = jnp.array([2, 0])
    for name in NAMES:
        if name.startswith("multiclass_") and "dice" not in name:
            value = getattr(losses, name)(jnp.zeros((2, 2)), labels)
            assert np.isnan(value[0]) and np.isfinite(value[1])


def test_losses_are_not_negative():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(2000, 8)), jnp.float32)
    p = jax.nn.softmax(x)
    labels = jnp.argmax(x, -1)

    @jax.jit
    def values(x, p, labels):
        return [
            losses.log_cosh(1e-4 * x),
            losses.cosine_distance(x, 3 * x),
            losses.generalized_kl_divergence(jnp.log(p), p),
            losses.softmax_cross_entropy(30 * x, jax.nn.one_hot(labels, 8)),
            losses.softmax_cross_entropy_with_integer_labels(30 * x, labels),
            losses.multiclass_sparsemax_loss(30 * x, labels),
            losses.multiclass_perceptron_loss(x, labels),
            losses.poly_loss_cross_entropy(30 * x, jax.nn.one_hot(labels, 8)),
        ]

    values = values(x, p, labels)
    assert all((v >= 0).all() for v in values)
    assert (losses.cosine_similarity(x, 3 * x) <= 1).all()
    np.testing.assert_allclose(values[0], np.float64(1e-4 * x) ** 2 / 2, rtol=1e-5)


def test_ctc_is_never_negative_and_always_finite():
    rng = np.random.default_rng(2)
    labels = jnp.asarray(rng.integers(1, 5, (50, 3)))
    frames = jnp.stack([labels, 0 * labels], -1).reshape(50, 6)  # the labels, apart
    logits = 40.0 * jax.nn.one_hot(frames, 5)
    none, all_ = jnp.zeros((50, 3)), jnp.ones((50, 3))
    frame_none, frame_all = jnp.zeros((50, 6)), jnp.ones((50, 6))

    def loss(x, *rest):
        paddings, labels, label_paddings = rest
        return losses.ctc_loss(x, paddings, labels, label_paddings)

    @jax.jit
    def both(x, *rest):
        value, pull = jax.vjp(lambda x: loss(x, *rest), x)
        return value, *pull(jnp.ones_like(value))

    for noise in (0.0, 1e-3, 1.0):
        x = logits + noise * jnp.asarray(rng.normal(size=logits.shape), jnp.float32)
        assert (both(x, frame_none, labels, none)[0] >= 0).all()
    for paddings, label_paddings in [
        (frame_none, all_),
        (frame_all, all_),
        (frame_all, none),
        (frame_none.at[:, 2:].set(1), none),
    ]:
        for x in (logits, jnp.where(logits > 0, 0, -jnp.inf)):
            value, gradient = both(x, paddings, labels, label_paddings)
            assert np.isfinite(value).all() and (value >= 0).all()
            assert np.isfinite(gradient).all()
    value = both(logits, frame_all, labels, all_)[0]
    np.testing.assert_array_equal(value, 0)
    wrong = labels.at[0, 1].set(5).at[1, 0].set(-1)
    value = both(logits, frame_none, wrong, none)[0]
    np.testing.assert_array_equal(np.isnan(value), [True, True] + [False] * 48)
    value = both(logits, frame_none, wrong, none.at[:2].set(1))[0]
    assert np.isfinite(value).all()


@pytest.mark.parametrize("scale", [6e4, 2e5, 1e30])
def test_ctc_of_improbable_labels_is_not_cut_off(scale):
    rng = np.random.default_rng(3)
    logits = np.float32(scale * rng.normal(size=(12, 4)))
    labels = rng.integers(1, 4, 3)
    want, slope = reference.ctc_loss_and_gradient(np.float64(logits), labels)
    assert want > 1e5
    got, gradient = jax.value_and_grad(one_ctc_loss)(jnp.asarray(logits), labels)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_ctc_in_float16_is_finite():
    rng = np.random.default_rng(4)
    for scale in (1.0, 6e3):
        logits = jnp.asarray(scale * rng.normal(size=(12, 4)), jnp.float16)
        labels = rng.integers(1, 4, 3)
        want, slope = reference.ctc_loss_and_gradient(np.float64(logits), labels)
        got, gradient = jax.value_and_grad(one_ctc_loss)(logits, labels)
        np.testing.assert_allclose(np.float64(got), min(want, 65504), rtol=1e-3)
        np.testing.assert_allclose(np.float64(gradient), slope, atol=1e-3)
    # three equal labels need five frames: a weight of zero must make a loss of zero
    short, same = jnp.zeros((1, 3, 4), jnp.float16), jnp.ones((1, 3), int)
    values = losses.ctc_loss_with_forward_probs(short, short[..., 0], same, 0 * same)
    assert all(np.isfinite(x).all() for x in values)


def test_ctc_of_many_frames_keeps_its_gradient():
    rng = np.random.default_rng(5)
    logits = np.float32(3 * rng.normal(size=(1500, 30)))
    labels = rng.integers(1, 30, 300)
    want, slope = reference.ctc_loss_and_gradient(np.float64(logits), labels)
    got, gradient = jax.jit(jax.value_and_grad(one_ctc_loss))(
        jnp.asarray(logits), labels
    )
    np.testing.assert_allclose(got, want, rtol=2e-7)
    np.testing.assert_allclose(gradient, slope, atol=2e-4)


def one_ctc_loss(logits, labels):
    none = jnp.zeros((1, len(logits))), jnp.zeros((1, len(labels)))
    return losses.ctc_loss(logits[None], none[0], jnp.asarray(labels)[None], none[1])[0]


def test_dice_without_softmax_takes_probabilities_alone():
    _, t = as_jax(DICE, jnp.float32)
    p = jnp.full_like(t, 1 / 3)
    for name in ("dice_loss", "multiclass_generalized_dice_loss"):
        loss = functools.partial(getattr(losses, name), apply_softmax=False)
        for bad in (
            p * 1.01,
            p.at[0, 0, 0].add(jnp.array([-0.5, 0.5, 0])),
            p * jnp.nan,
        ):
            with pytest.raises(ValueError, match=f"{name}: predictions must be prob"):
                loss(bad, t)
        loss(p, t)
        loss(p.astype(jnp.bfloat16), t)  # as near to one as 16 bits are
        jax.jit(loss)(2 * p, t)  # whose values are not known
    with pytest.raises(ValueError, match="dice_loss: predictions must be prob"):
        losses.binary_dice_loss(3 * t[..., 0], t[..., 0], apply_sigmoid=False)
    losses.binary_dice_loss(0.3 * t[..., 0], t[..., 0], apply_sigmoid=False)


def test_dice_of_one_class_may_lack_the_axis_of_classes():
    x, t = as_jax((X, YES), jnp.float32)
    want = losses.dice_loss(x[..., None], t[..., None])
    np.testing.assert_array_equal(losses.dice_loss(x, t[..., None]), want)
    np.testing.assert_array_equal(losses.dice_loss(x[..., None], t), want)
    with pytest.raises(ValueError, match="targets is"):
        losses.dice_loss(x, t[..., 0])


def test_dice_of_nothing():
    zero = jnp.zeros((2, 3, 2))

    def loss(p, apply_softmax):
        kw = dict(smooth=0.0, alpha=0.0, apply_softmax=apply_softmax)
        return jnp.sum(losses.dice_loss(p, zero, **kw))

    for apply_softmax in (False, True):
        value, gradient = jax.jit(jax.value_and_grad(loss), static_argnums=1)(
            zero, apply_softmax
        )
        assert value == 0 and np.isfinite(gradient).all()
    assert np.isfinite(losses.multiclass_generalized_dice_loss(zero, zero))


# --------------------------------------------------------------------- what it is given


@pytest.mark.parametrize("name", NAMES)
def test_16_bits_are_computed_in_32_and_returned(name, dtype=jnp.bfloat16):
    if name == "make_fenchel_young_loss":
        return
    args, kwargs = FIRST[name]

    def rounded(x):
        y = as_jax(x, dtype)
        floating = isinstance(y, jax.Array) and y.dtype == dtype
        return y.astype(jnp.float32) if floating else y

    @jax.jit
    def both():
        wide = [rounded(x) for x in args]
        want = call(losses, name, wide, kwargs, jnp.float32)
        return call(losses, name, args, kwargs, dtype), want

    got, want = both()
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert x.dtype == dtype
        x, y = (np.asarray(v, np.float32) for v in (x, y.astype(dtype)))
        np.testing.assert_array_equal(x, y)


def test_dtypes_promote_and_settings_do_not():
    x, y = jnp.ones(3, jnp.bfloat16), jnp.ones(3, jnp.float32)
    assert losses.huber_loss(x, y).dtype == jnp.float32
    assert losses.huber_loss(x, x, delta=jnp.float32(1)).dtype == jnp.bfloat16
    assert losses.smooth_labels(x, jnp.float32(0.1)).dtype == jnp.bfloat16
    assert losses.smooth_labels(jnp.eye(2, dtype=int), 0.1).dtype == jnp.float32
    assert losses.softmax_cross_entropy(x, jnp.array([0, 1, 0])).dtype == jnp.bfloat16
    assert losses.hinge_loss(1, -1).dtype == jnp.float32
    assert losses.huber_loss(2.0) == 1.5
    assert losses.squared_error(np.float64(3), 1) == 4
    big = jnp.full(4, 300.0, jnp.float16)  # its square is not in float16
    assert losses.cosine_similarity(big, big) == 1
    assert (
        losses.log_cosh(big).dtype == jnp.float16
        and np.isfinite(losses.log_cosh(big)).all()
    )


LOST = [
    (lambda a, b: losses.l2_loss(a, b[0]), ValueError, r"targets is f32\[3\], predic"),
    (lambda a, b: losses.squared_error(a, b[:, :1]), ValueError, "must be equal"),
    (lambda a, b: losses.huber_loss(a[:, 0], a[:, :1]), ValueError, "must not stretch"),
    (lambda a, b: losses.huber_loss(a[:, :2], b), ValueError, r"f32\[2, 2\]"),
    (lambda a, b: losses.huber_loss(a, delta=a[0, :2]), ValueError, "delta is f32"),
    (lambda a, b: losses.log_cosh(jnp.arange(3)), TypeError, "predictions .* i32"),
    (lambda a, b: losses.l2_loss([1.0, 2.0]), TypeError, "array or a number, got list"),
    (
        lambda a, b: losses.l2_loss(jnp.ones(2, complex)),
        TypeError,
        r"real, got complex64\[2\]",
    ),
    (lambda a, b: losses.l2_loss(None), TypeError, "predictions must be .* NoneType"),
    (lambda a, b: losses.softmax_cross_entropy(a, "b"), TypeError, "labels .* got str"),
    (
        lambda a, b: losses.softmax_cross_entropy(a, b, where=jnp.ones(3, bool)),
        ValueError,
        r"where is bool\[3\].*\(2, 3\) of the elements or that of the losses",
    ),
    (
        lambda a, b: losses.kl_divergence(a, b, where=jnp.ones((2, 3))),
        TypeError,
        r"where must be of booleans, got f32\[2, 3\]",
    ),
    (lambda a, b: losses.softmax_cross_entropy(a, b, axis=2), ValueError, "out of b"),
    (
        lambda a, b: losses.softmax_cross_entropy_with_integer_labels(a, b),
        TypeError,
        "labels must be the integers of classes, got f32",
    ),
    (
        lambda a, b: losses.softmax_cross_entropy_with_integer_labels(
            a, jnp.zeros((2, 1), int)
        ),
        ValueError,
        r"labels are i32\[2, 1\], but the examples of logits have the shape \(2,\)",
    ),
    (
        lambda a, b: losses.softmax_cross_entropy_with_integer_labels(
            a, jnp.zeros(2, int), axis=3
        ),
        ValueError,
        "axis 3 is out of bounds",
    ),
    (
        lambda a, b: losses.multiclass_hinge_loss(a, jnp.zeros(3, int)),
        ValueError,
        r"i32\[3\]",
    ),
    (lambda a, b: losses.ntxent(a, jnp.zeros(3)), ValueError, r"labels \[batch\], got"),
    (lambda a, b: losses.dice_loss(a, b, reduction="max"), ValueError, "reduction"),
    (lambda a, b: losses.dice_loss(a, b, axis=-1), ValueError, "axis must not contain"),
    (
        lambda a, b: losses.dice_loss(a, b, class_weights=jnp.ones(2)),
        ValueError,
        r"class_weights must have shape \(3,\)",
    ),
    (lambda a, b: losses.dice_loss(1.0, 1.0), ValueError, "an axis of classes"),
    (lambda a, b: ctc(a, a, a, a), ValueError, r"logits must be \[batch, frames"),
    (lambda a, b: ctc(a[None], a[:1], a[:1] > 0, a[:1]), TypeError, "labels must be i"),
    (
        lambda a, b: ctc(a[None], a[:1], jnp.ones((1, 2), int), a[:1]),
        ValueError,
        "logit_p",
    ),
    (
        lambda a, b: ctc(a[None], a[:1, :2], jnp.ones((1, 2), int), a[:1]),
        ValueError,
        "label_paddings are",
    ),
    (
        lambda a, b: ctc(a[None], a[:1, :2], jnp.ones((1, 3), int), a[:1], blank_id=3),
        ValueError,
        "blank_id must be less than the 3 classes",
    ),
    (
        lambda a, b: ctc(a[None], a[:1, :2], jnp.ones((1, 3), int), a[:1], blank_id=-1),
        ValueError,
        "blank_id must be at least 0",
    ),
]
ctc = losses.ctc_loss


@pytest.mark.parametrize("function, kind, words", LOST)
def test_errors_name_the_argument_and_the_shapes(function, kind, words):
    a, b = as_jax((X[0, :2, :3], P[0, :2, :3]), jnp.float32)
    with pytest.raises(kind, match=words):
        function(a, b)
    with pytest.raises(kind, match=words):
        jax.jit(function)(a, b)


# ----------------------------------------------------------------- masks and reductions

WITHOUT = {  # of one number, of their own reduction, or no losses
    "binary_dice_loss",
    "ctc_loss_with_forward_probs",
    "dice_loss",
    "make_fenchel_young_loss",
    "multiclass_generalized_dice_loss",
    "ntxent",
    "ranking_softmax_loss",
    "smooth_labels",
}
REDUCED = {name: FIRST[name] for name in NAMES if name not in WITHOUT}


def keep_some(name, args, all_or_none=None):
    """A mask of losses, and one as the loss takes it."""
    shape = call(losses, name, args, {}, jnp.float32).shape
    some = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 3 != 1
    some = some if all_or_none is None else np.full(shape, all_or_none)
    of_elements = "divergence" in name or "cosine" in name
    return some, some[..., None] if of_elements else some


@pytest.mark.parametrize("name", REDUCED)
def test_masked_means_and_sums_equal_numpy(name):
    args, kwargs = REDUCED[name]
    with jax.enable_x64(True):
        for fill in (None, True, False):
            some, where = keep_some(name, args, fill)

            def run(reduction, where=None):
                kw = dict(kwargs, **({} if where is None else dict(where=where)))
                value = call(losses, name, args, kw, jnp.float64)
                kw |= dict(reduction=reduction)
                return value, getattr(losses, name)(
                    *(as_jax(x, jnp.float64) for x in args), **kw
                )

            plain, mean = run("mean")
            np.testing.assert_allclose(mean, np.mean(plain), rtol=1e-12)
            left = np.asarray(plain)[some]
            assert mean.shape == () and mean.dtype == jnp.float64
            masked, total = run("sum", jnp.asarray(where))
            np.testing.assert_allclose(total, left.sum(), rtol=1e-12, atol=1e-12)
            _, mean = run("mean", jnp.asarray(where))
            want = left.mean() if left.size else 0
            np.testing.assert_allclose(mean, want, rtol=1e-12, atol=1e-12)
            rest = 1.0 if name == "cosine_distance" else 0.0  # of no vector
            np.testing.assert_allclose(masked, np.where(some, plain, rest), rtol=1e-12)


@pytest.mark.parametrize("name", REDUCED)
def test_what_is_masked_gives_no_gradient(name):
    args, kwargs = REDUCED[name]
    rest = tuple(as_jax(x, jnp.float32) for x in args[1:])
    x = jnp.asarray(args[0], jnp.float32)

    def mean(x, where, reduction):
        function = getattr(losses, name)
        return function(x, *rest, where=where, reduction=reduction, **kwargs)

    run = jax.jit(jax.value_and_grad(mean), static_argnums=2)
    some, where = (jnp.asarray(m) for m in keep_some(name, args))
    axes = tuple(range(some.ndim, x.ndim))
    on = jnp.expand_dims(some, axes)
    value, gradient = run(x, where, "mean")
    junk_value, junk_gradient = run(jnp.where(on, x, jnp.nan), where, "mean")
    np.testing.assert_array_equal(value, junk_value)
    np.testing.assert_array_equal(gradient, junk_gradient)
    assert jnp.all(jnp.where(on, 0, gradient) == 0) and jnp.any(gradient != 0)

    for reduction in ("mean", "sum"):
        value, gradient = run(jnp.full_like(x, jnp.nan), where & False, reduction)
        assert value == 0 and jnp.all(gradient == 0), name


def test_an_empty_batch_has_a_mean_of_zero():
    x = jnp.ones((0, 3))
    assert losses.l2_loss(x, x, reduction="mean") == 0
    assert losses.softmax_cross_entropy(x, x, reduction="mean") == 0


def test_16_bits_are_reduced_in_32():
    x = jnp.ones(1000, jnp.bfloat16)  # a sum in 16 bits ends at 256
    total = losses.squared_error(x, reduction="sum")
    assert total == 1000 and total.dtype == jnp.bfloat16
    x = jnp.full(1000, 100.0, jnp.float16)  # the sum of squares overflows, not the mean
    assert losses.squared_error(x, reduction="mean") == 10000


# ---------------------------------------------------------------------- and derivatives


OF_OUR_OWN = [
    ("huber_loss", (X, E), {}),
    ("log_cosh", (X, E), {}),
    ("cosine_similarity", (X, E), dict(where=MASK | (E > 0))),
    ("cosine_distance", (X, E), dict(epsilon=9.0)),
    ("sigmoid_focal_loss", (X, P), {}),
    ("softmax_cross_entropy", (X, P), dict(where=MASK)),
    ("softmax_cross_entropy_with_integer_labels", (X, LABELS), dict(where=KEEP)),
    ("poly_loss_cross_entropy", (X, P), dict(where=MASK)),
    ("kl_divergence", (X, P), {}),
    ("generalized_kl_divergence", (X, P), {}),
    ("multiclass_hinge_loss", (X, LABELS), {}),
    ("multiclass_sparsemax_loss", (X[0], LABELS[0]), {}),
    ("ranking_softmax_loss", (X, P), dict(where=MASK)),
    ("ntxent", (X.reshape(6, 4), GROUPS), {}),
    ("dice_loss", DICE, {}),
    ("ctc_loss", CTC, {}),
]


@pytest.mark.parametrize("name, args, kwargs", OF_OUR_OWN)
def test_gradient_equals_optax(name, args, kwargs):
    def gradient(module):
        def total(x):
            value = call(module, name, (x, *args[1:]), kwargs, jnp.float64)
            return jnp.sum(jnp.sin(value))

        return jax.grad(total)(jnp.asarray(args[0]))

    def both():
        ours = gradient(losses)
        with loose(), jax.numpy_rank_promotion("allow"):
            return ours, gradient(optax.losses)

    with jax.enable_x64(True):
        got, want = jax.jit(both)()
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)


def test_second_derivatives():
    with jax.enable_x64(True):
        x = jnp.asarray(X.ravel())
        got = jax.vmap(jax.grad(jax.grad(losses.log_cosh)))(x)
        np.testing.assert_allclose(got, np.cosh(X.ravel()) ** -2, rtol=1e-9)

        x = jnp.array([0.3, 0.1, -2.0])  # the support is of two
        got = jax.jit(jax.hessian(losses.multiclass_sparsemax_loss))(x, 0)
        np.testing.assert_allclose(got, [[0.5, -0.5, 0], [-0.5, 0.5, 0], [0, 0, 0]])
