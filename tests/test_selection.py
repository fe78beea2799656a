"""Leaves chosen by path: masks, labels, groups."""

import collections
import pickle
import re

import equinox
import flax.core
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt

PARAMS = {
    "embed": jnp.ones(3),
    "layers": [{"w": jnp.ones((3, 2)), "bias": jnp.ones(2)} for _ in range(2)],
    "head": {"w": jnp.ones((2, 4)), "bias": jnp.ones(4)},
}
PATHS = [
    "embed",
    "head/bias",
    "head/w",
    *(f"layers/{i}/{k}" for i in (0, 1) for k in ("bias", "w")),
]


def chosen(which):
    shown = jopt.tree.select(PARAMS, which)
    spread = jax.tree.map(
        lambda keep, x: jax.tree.map(lambda _: keep, x), shown, PARAMS
    )
    shown = jax.tree.leaves(spread)
    return [path for path, keep in zip(PATHS, shown) if keep]


def test_paths():
    assert jopt.tree.paths(PARAMS) == PATHS
    named = jopt.tree.map_with_path(lambda path, x, y: (path, x is y), PARAMS, PARAMS)
    assert named["head"]["w"] == ("head/w", True)


@pytest.mark.parametrize(
    "which, expected",
    [
        ("**/bias", [p for p in PATHS if "bias" in p]),
        ("*/bias", ["head/bias"]),
        ("head", ["head/bias", "head/w"]),
        ("embed", ["embed"]),
        ("layers/?/w", ["layers/0/w", "layers/1/w"]),
        ("layers/[1-9]/w", ["layers/1/w"]),
        ("layers/[!1-9]/[vw]", ["layers/0/w"]),
        ("[eh]*", ["embed", "head/bias", "head/w"]),
        ("layers/**", [p for p in PATHS if p.startswith("layers")]),
        ("**", PATHS),
        (re.compile(r"\d/w$"), ["layers/0/w", "layers/1/w"]),
        (["embed", "head/w"], ["embed", "head/w"]),
        (lambda path, x: x.ndim == 2, [p for p in PATHS if p.endswith("w")]),
        (lambda tree: "head", ["head/bias", "head/w"]),
        ({"embed": True, "layers": False, "head": True}, PATHS[:3]),
        (True, PATHS),
    ],
)
def test_select(which, expected):
    assert chosen(which) == expected


@pytest.mark.parametrize("which", ["**/bais", re.compile("biass"), ["**", "*/bais"]])
def test_a_pattern_that_chooses_nothing_is_an_error(which):
    with pytest.raises(ValueError, match=r"matches no leaf; the nearest.*head/bias"):
        jopt.tree.select(PARAMS, which)
    tx = jopt.masked(jopt.scale(2.0), which)
    with pytest.raises(ValueError, match=r"mask: the pattern"):
        jax.jit(tx.init)(PARAMS)


@pytest.mark.parametrize(
    "pattern, keys",
    [
        ("w[[]0]", ["w[0]"]),
        ("w[[][0-9]]", ["w[0]"]),
        ("w[0]", ["w0"]),
        ("w[!]*", ["w[!]"]),
        ("w[^x]", ["w^"]),
        ("w[]]", ["w]"]),
        ("[!]w]*", ["v/a", "v-"]),
        ("v[+-]", ["v-"]),
        ("v[+-9]*", ["v-"]),
        ("v[a-]", ["v-"]),
        (r"[\w]*", ["w0", "w[!]", "w[0]", "w]", "w^"]),
    ],
)
def test_classes_of_characters(pattern, keys):
    tree = {k: 0 for k in ("v-", "w0", "w[!]", "w[0]", "w]", "w^")} | {"v": {"a": 0}}
    shown = jax.tree.leaves(jopt.tree.select(tree, pattern))
    assert [p for p, x in zip(jopt.tree.paths(tree), shown) if x] == keys


def test_a_bracket_that_is_meant_as_such():
    with pytest.raises(
        ValueError, match=r"'w\[1\]' matches no leaf.*a bracket of a key"
    ):
        jopt.tree.select({"w[1]": 0}, "w[1]")
    with pytest.raises(ValueError, match=r"'\[z-a\]' matches no leaf.* are w$"):
        jopt.tree.select({"w": 0}, "[z-a]")


def test_a_mask_is_matched_by_keys_and_not_by_containers():
    params = {"a": jnp.ones(2), "b": {"c": jnp.ones(2)}}
    mask = {"a": True, "b": {"c": False}}

    class Module(equinox.Module):
        a: jax.Array
        b: dict

        def __call__(self, x):
            raise AssertionError("a callable node is data")

    for make in (
        flax.core.freeze,
        lambda tree: Module(**tree),
        lambda tree: collections.OrderedDict(reversed(tree.items())),
    ):
        for p, m in ((params, make(mask)), (make(params), mask)):
            tx = jopt.masked(jopt.scale(2.0), m)
            updates, _ = tx.update(p, tx.init(p), p)
            assert jax.tree.structure(updates) == jax.tree.structure(p)
            doubled = dict(zip(jopt.tree.paths(p), jax.tree.leaves(updates)))
            assert doubled["a"][0] == 2 and doubled["b/c"][0] == 1
    with pytest.raises(ValueError, match=r"only in mask: \['d'\]"):
        tx = jopt.masked(jopt.scale(2.0), {**mask, "d": True})
        tx.init(params)
    with pytest.raises(ValueError, match=r"missing in mask: \['b'\]"):
        jopt.masked(jopt.scale(2.0), flax.core.freeze({"a": True})).init(params)


def test_masks_and_labels_by_pattern():
    grads = jax.tree.map(jnp.zeros_like, PARAMS)
    tx = jopt.adamw(1.0, weight_decay=0.5, mask="**/w")
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    moved = [p for p, u in zip(PATHS, jax.tree.leaves(updates)) if jnp.any(u)]
    assert moved == [p for p in PATHS if p.endswith("w")]
    labels = {"**/bias": "plain", "**": "double"}
    transforms = {"plain": jopt.scale(1.0), "double": jopt.scale(2.0)}
    for given in (labels, lambda p, x: "plain" if "bias" in p else "double"):
        tx = jopt.partition(transforms, given)
        updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
        factors = [float(jnp.max(u)) for u in jax.tree.leaves(updates)]
        assert factors == [1.0 if "bias" in p else 2.0 for p in PATHS]
    with pytest.raises(ValueError, match=r"'no label' at \['embed'\]"):
        jopt.partition(transforms, {"**/bias": "plain", "*/w": "double"}).init(PARAMS)


def test_a_pattern_may_find_its_leaves_masked_already():
    decayed = jopt.add_decayed_weights(0.1, mask="**/bias")
    tx = jopt.masked(decayed, "**/w")
    tx.update(PARAMS, tx.init(PARAMS), PARAMS)


# ----------------------------------------------------------------------------- groups

RULES = {
    "**/bias": dict(weight_decay=0.0),
    "embed": dict(lr_mult=0.1, weight_decay=0.0),
    re.compile("^layers/0"): None,
    "layers": jopt.sgd(0.5),
}


def step(tx, params=PARAMS):
    grads = jax.tree.map(lambda p: 0.5 * p, params)
    updates, state = jax.jit(tx.update)(grads, tx.init(params), params)
    return dict(zip(PATHS, jax.tree.leaves(updates))), state


def test_groups():
    default = jopt.adamw(1e-2, weight_decay=0.3)
    updates, state = step(jopt.groups(RULES, default))
    plain, _ = step(jopt.adamw(1e-2, weight_decay=0.0))
    with_decay, _ = step(default)
    expected = {p: with_decay[p] for p in PATHS}
    expected |= {p: plain[p] for p in PATHS if "bias" in p}
    expected["embed"] = 0.1 * plain["embed"]
    expected["layers/0/w"] = jnp.zeros((3, 2))
    expected["layers/1/w"] = jnp.full((3, 2), -0.25)
    for path in PATHS:
        np.testing.assert_allclose(updates[path], expected[path], rtol=1e-6)
    assert not jax.tree.leaves(state.inner_states["^layers/0"])
    assert set(state.inner_states) == {
        *("default", "**/bias", "embed", "^layers/0", "layers")
    }


def test_the_first_rule_counts_and_equal_groups_are_equal():
    first = jopt.groups({"head": None, "head/w": jopt.sgd(1.0)}, jopt.sgd(1.0))
    updates, _ = step(first)
    assert not np.any(updates["head/w"])
    make = lambda: jopt.groups(RULES, jopt.adamw(1e-2))  # noqa: E731
    assert make() == make() and hash(make()) == hash(make())
    assert pickle.loads(pickle.dumps(make())) == make()
    assert repr(first).startswith("groups(")


@pytest.mark.parametrize(
    "error, words, rules, default",
    [
        (ValueError, "'\\*\\*/bais' matches no leaf", {"**/bais": None}, jopt.sgd(1.0)),
        (TypeError, "takes learning_rate", {"head": dict(lr=1.0)}, jopt.sgd(1.0)),
        (TypeError, "rules\\['head'\\]", {"head": 0.1}, jopt.sgd(1.0)),
        (
            ValueError,
            "weight_decay",
            {"head": dict(weight_decay=-1.0)},
            jopt.adamw(1.0),
        ),
        (TypeError, "default", {"head": None}, 0.1),
    ],
)
def test_bad_groups(error, words, rules, default):
    with pytest.raises(error, match=words):
        jopt.groups(rules, default).init(PARAMS)
