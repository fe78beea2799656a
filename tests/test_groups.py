"""Groups: rules that add up, one estimate over all leaves, rates and decays by path."""

import functools
import inspect
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jopt
from tests.catalogue import METHODS
from tests.references import step_free

SHAPES = {"a": (3, 2), "b": (4,), "c": (2,)}
HALVES = jopt.piecewise_constant_schedule(0.1, {2: 0.5})


def tree(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), dtype) for k, s in SHAPES.items()}


def gradient(i, dtype=np.float32):
    """Of step `i`: nearly the same each time, so that estimates grow."""
    return jax.tree.map(lambda x, y: x + 0.3 * y, tree(9, dtype), tree(i, dtype))


def steps(tx, n=4, loss=None, dtype=np.float32):
    """The parameters after some steps of gradients that do not depend on them."""
    p = tree(0, dtype)
    state = tx.init(p)
    update = jax.jit(tx.update)
    # Few steps are taken operation by operation: these are compiled once for all.
    with jax.disable_jit(n <= 4):
        for i in range(n):
            extra = {} if loss is None else dict(value=loss(p))
            u, state = update(gradient(i + 1, dtype), state, p, **extra)
            p = jopt.apply_updates(p, u)
    return p


def loss(p):
    return 0.5 * sum(jnp.sum((x - 0.3) ** 2) for x in jax.tree.leaves(p))


# ------------------------------------------------------------------------ one estimate

contrib = jopt.contrib
OF_THE_TREE = {
    "prodigy": lambda **rate: contrib.prodigy(estim_lr0=1e-3, **rate),
    "dadapt_adamw": lambda **rate: contrib.dadapt_adamw(estim_lr0=0.1, **rate),
    "dog": lambda **rate: contrib.dog(init_step=("distance", 0.1), **rate),
    "dowg": lambda **rate: contrib.dowg(**rate),
    "momo": lambda **rate: contrib.momo(**rate),
    "momo_adam": lambda learning_rate=10.0: contrib.momo_adam(learning_rate),
    "lbfgs": lambda **rate: jopt.lbfgs(linesearch=None, **rate),
    "mechanize": lambda learning_rate=1.0: contrib.mechanize(
        jopt.sgd(learning_rate), s_init=0.1
    ),
    "a clip": lambda learning_rate=1.0: jopt.chain(
        jopt.clip_by_global_norm(1.0), jopt.sgd(learning_rate)
    ),
    "multi_steps": lambda learning_rate=1.0: jopt.multi_steps(
        jopt.chain(jopt.clip_by_global_norm(1.0), jopt.sgd(learning_rate)), 2
    ),
}
# They are of one kind with others.
LIKE_OTHERS = ("dadapt_adamw", "dowg", "momo_adam", "mechanize", "a clip")
of_the_tree = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in LIKE_OTHERS))
        for name in OF_THE_TREE
    ],
)


def loss_of(name):
    return loss if "momo" in name else None


@of_the_tree
def test_one_estimate_over_all_groups(name):
    make, n = OF_THE_TREE[name], 30 if name == "prodigy" else 4
    plain = steps(make(), n, loss=loss_of(name))
    for rules in (
        {"a": dict(lr_mult=1.0)},
        {"a": make()},
        {"a": {}, "b": dict(lr_mult=1.0)},
    ):
        grouped = steps(jopt.groups(rules, make()), n, loss=loss_of(name))
        chex.assert_trees_all_close(grouped, plain, rtol=1e-5)
    apart = jopt.groups({"a": dict(lr_mult=1.0)}, make(), separate_estimates=True)
    apart = steps(apart, n, loss=loss_of(name))
    assert not np.allclose(apart["a"], plain["a"], rtol=1e-3)


@of_the_tree
def test_a_multiplier_of_a_group_is_a_rate_by_path(name):
    make = OF_THE_TREE[name]
    rate = inspect.signature(make).parameters.get("learning_rate")
    base = 0.5 if rate is None or rate.default is rate.empty else rate.default
    by_path = make(learning_rate={"a": 0.25 * base, "default": base})
    grouped = jopt.groups({"a": dict(lr_mult=0.25)}, make(learning_rate=base))
    own = jopt.groups({"a": make(learning_rate=0.25 * base)}, make(learning_rate=base))
    want = steps(by_path, loss=loss_of(name))
    for tx in (grouped, own):
        chex.assert_trees_all_close(steps(tx, loss=loss_of(name)), want, rtol=2e-6)


def test_leaves_with_a_small_multiplier_learn_under_prodigy():
    p = {"embed": jnp.full(4, 3.0), "w": jnp.full(4, 3.0)}
    tx = jopt.groups({"embed": dict(lr_mult=0.1)}, contrib.prodigy())
    state = tx.init(p)

    @jax.jit
    def step(p, state):
        u, state = tx.update(jax.tree.map(lambda x: 2 * x, p), state, p)
        return jopt.apply_updates(p, u), state

    for _ in range(400):
        p, state = step(p, state)
    assert abs(p["embed"]).max() < 1.5 and abs(p["w"]).max() < 0.1
    assert len(jax.tree.leaves(jopt.metrics(state))) == 1


def test_frozen_leaves_and_those_of_another_optimizer_are_not_in_it():
    clipped = jopt.chain(jopt.clip_by_global_norm(1.0), jopt.sgd(1.0))
    rules = {"a": None, "b": jopt.sgd(0.5), "c": dict(lr_mult=0.5)}
    g = {"a": jnp.full((3, 2), 1e3), "b": jnp.full(4, 1e3), "c": jnp.array([3.0, 4.0])}
    tx = jopt.groups(rules, clipped)
    u, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(u["c"], [-0.3, -0.4], rtol=1e-6)
    np.testing.assert_array_equal(u["a"], 0)
    np.testing.assert_array_equal(u["b"], -500)


def test_another_librarys_method_makes_one_estimate_too():
    make = lambda: optax.contrib.prodigy(estim_lr0=0.1)  # noqa: E731
    with jax.numpy_dtype_promotion("standard"):
        grouped = steps(jopt.groups({"a": dict(lr_mult=1.0)}, make()))
        chex.assert_trees_all_close(grouped, steps(make()), rtol=1e-6)


# In units of their rates all leaves have the same: what the papers say of one rate
# says what the method does with several.
RATES = {"a": 0.2, "b": 0.8, "c": 0.4}
SHARES = {k: x / 0.8 for k, x in RATES.items()}


@pytest.mark.parametrize("name", ["prodigy", "dadapt_adamw", "momo", "momo_adam"])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_rates_are_units(name, decay, monkeypatch):
    settings = dict(eps=1e-30) if name != "momo" else {}
    if name in ("prodigy", "dadapt_adamw"):
        settings |= dict(estim_lr0=0.1)
    power = 0.5 if name == "momo" else 1.0
    unit = {k: x**power for k, x in SHARES.items()}
    with jax.enable_x64(True):
        p = {k: np.asarray(x) for k, x in tree(0, np.float64).items()}
        grads = [gradient(i + 1, np.float64) for i in range(4)]
        mine = [{k: np.asarray(g[k]) * unit[k] for k in g} for g in grads]
        plain = step_free.loss
        monkeypatch.setattr(
            step_free, "loss", lambda y: plain({k: unit[k] * y[k] for k in y})
        )
        reference = getattr(step_free, name)
        start = {k: p[k] / unit[k] for k in p}
        want = reference(start, mine, learning_rate=0.8, weight_decay=decay, **settings)
        tx = getattr(contrib, name)(
            RATES, weight_decay={k: decay / x for k, x in SHARES.items()}, **settings
        )
        value = loss if "momo" in name else None
        got = steps(tx, loss=value, dtype=np.float64)
    for k in p:
        np.testing.assert_allclose(got[k], unit[k] * want[k], rtol=1e-9)


def test_a_leaf_with_a_rate_of_zero_has_no_part_in_the_estimate():
    for make in (contrib.prodigy, contrib.dadapt_adamw):
        rates = {"a": 0.0, "default": 1.0}
        got = steps(make(rates, estim_lr0=0.1))
        alone = steps(jopt.groups({"a": None}, make(1.0, estim_lr0=0.1)))
        chex.assert_trees_all_close(got, alone, rtol=1e-6)


# --------------------------------------------------------- rates and decays everywhere

PER_LEAF = {
    "rprop": jopt.rprop,
    "madgrad": contrib.madgrad,
    "novograd": jopt.novograd,
    "schedule_free_sgd": contrib.schedule_free_sgd,
    "schedule_free_adamw": contrib.schedule_free_adamw,
}


@pytest.mark.parametrize("name", PER_LEAF)
def test_every_leaf_has_its_own_rate_and_decay(name):
    make = PER_LEAF[name]
    rates, decays = {"a": 0.1, "default": 0.4}, {"b": 0.3}
    got = steps(make(rates, weight_decay=decays))
    for k in SHAPES:
        alone = make(rates.get(k, 0.4), weight_decay=decays.get(k, 0.0))
        np.testing.assert_allclose(got[k], steps(alone)[k], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*PER_LEAF, "prodigy", "dadapt_adamw", "momo"])
def test_every_optimizer_takes_schedules(name):
    make = PER_LEAF.get(name) or getattr(contrib, name)
    value = loss if name == "momo" else None
    if name in ("prodigy", "dadapt_adamw"):
        make = functools.partial(make, estim_lr0=0.1)
    constant = jopt.constant_schedule
    plain = steps(make(0.1, weight_decay=0.3), loss=value)
    same = steps(make(constant(0.1), weight_decay=constant(0.3)), loss=value)
    chex.assert_trees_all_close(same, plain, rtol=2e-6)
    other = steps(make(HALVES, weight_decay=0.3), loss=value)
    assert not np.allclose(other["a"], plain["a"], rtol=1e-4)
    mixed = steps(make({"a": HALVES, "default": 0.1}, weight_decay=0.3), loss=value)
    if name in ("rprop", "madgrad", "novograd"):
        chex.assert_trees_all_close(mixed["a"], other["a"], rtol=1e-6)
        chex.assert_trees_all_close(mixed["b"], plain["b"], rtol=1e-6)


def test_rprop_steps_are_times_what_a_schedule_is_of_its_first_value():
    schedule = jopt.exponential_decay(0.1, 1, 0.5)
    p, before = tree(0), [steps(jopt.rprop(0.1), n) for n in range(5)]
    for t, (old, new) in enumerate(itertools.pairwise(before)):
        p = jax.tree.map(lambda x, a, b, t=t: x + 0.5**t * (b - a), p, old, new)
    chex.assert_trees_all_close(steps(jopt.rprop(schedule)), p, rtol=1e-5)
    chex.assert_trees_all_equal(
        steps(jopt.rprop(jopt.constant_schedule(0.1))), steps(jopt.rprop(0.1))
    )
    with pytest.raises(ValueError, match="rprop: learning_rate must not begin at zero"):
        jopt.rprop(jopt.linear_schedule(0.0, 1.0, 5))


def test_mechanic_draws_the_scale_down_by_the_decay_of_each_leaf():
    decays = {"a": 0.5, "b": 0.0, "c": 2.0}
    with jax.enable_x64(True):
        tx = contrib.mechanize(jopt.sgd(1.0), decays, s_init=0.1)
        got = steps(tx, dtype=np.float64)
        grads = [gradient(i + 1, np.float64) for i in range(4)]
        p = {k: np.asarray(x) for k, x in tree(0, np.float64).items()}
        full = {k: np.full(np.shape(x), decays[k]) for k, x in p.items()}
        want = step_free.mechanize_sgd(
            p, grads, weight_decay=step_free.flat(full), s_init=0.1
        )
    chex.assert_trees_all_close(got, want, rtol=1e-9)


def test_scale_takes_factors_by_path():
    tx = jopt.scale({"a": 0.5})
    u, _ = tx.update(tree(1), tx.init(tree(0)))
    factors = {"a": 0.5, "b": 1.0, "c": 1.0}
    chex.assert_trees_all_close(u, {k: factors[k] * x for k, x in tree(1).items()})
    with pytest.raises(TypeError, match=r"scale: step_size must be a number.*schedule"):
        jopt.scale(HALVES)


# ---------------------------------------------------------------------- rules add up

NET = {
    "embed": {"w": jnp.ones(3), "b": jnp.ones(3)},
    "hidden": {"w": jnp.ones((3, 2)), "b": jnp.ones(2)},
    "head": {"w": jnp.ones(2), "b": jnp.ones(2), "scale": jnp.ones(2)},
}


def said(tx):
    """Rate and decay of every leaf, as `describe` has them, and as its updates show."""
    rows = {row.path: row for row in jopt.describe(tx, NET).rows}
    zeros = jax.tree.map(jnp.zeros_like, NET)
    u, _ = tx.update(zeros, tx.init(NET), NET)
    moved = dict(zip(jopt.tree.paths(NET), jax.tree.leaves(u)))
    for path, row in rows.items():
        if row.optimizer != "frozen":
            rate = row.learning_rate * row.weight_decay
            np.testing.assert_allclose(moved[path], -rate, rtol=1e-5, err_msg=path)
    return {
        k: (row.group, row.learning_rate, row.weight_decay) for k, row in rows.items()
    }


@pytest.mark.parametrize("wrap", [None, "injected", "clipped", "one more setting"])
def test_rules_add_up(wrap):
    default = jopt.adamw(0.5, weight_decay=0.25)
    rules = {
        "embed": None,
        "hidden": dict(lr_mult=0.5),
        "head/b": jopt.sgd(1.0, weight_decay=0.125),
        "**/b": dict(weight_decay=0.0, lr_mult=0.25),
        "**/{b,scale}": dict(weight_decay=1.0),
    }
    if wrap == "injected":
        default = jopt.inject_hyperparams(jopt.adamw)(0.5, weight_decay=0.25)
    if wrap == "clipped":
        default = jopt.chain(jopt.clip_by_global_norm(1.0), default)
    if wrap == "one more setting":
        rules["**/b"] |= dict(b1=0.5)
    found = said(jopt.groups(rules, default))
    assert found == {
        "embed/b": ("embed", "", ""),
        "embed/w": ("embed", "", ""),
        "head/b": ("head/b", 1.0, 0.125),
        "head/scale": ("**/{b,scale}", 0.5, 1.0),
        "head/w": ("default", 0.5, 0.25),
        "hidden/b": ("hidden + **/b", 0.25, 0.0),
        "hidden/w": ("hidden", 0.25, 0.25),
    }


def test_a_setting_that_leaves_cannot_have_each_makes_a_group_of_its_own():
    rules = {"hidden": dict(lr_mult=0.5), "**/b": dict(b1=0.5)}
    tx = jopt.groups(rules, jopt.adam(0.1))
    labels = {"default", "hidden", "hidden + **/b", "**/b"}
    assert set(tx.init(NET).inner_states) == labels
    u, _ = tx.update(NET, tx.init(NET), NET)
    _, state = tx.update(NET, tx.init(NET), NET)
    mu = state.inner_states["hidden + **/b"].inner_state[0].mu
    np.testing.assert_allclose(mu["hidden"]["b"], 0.5)
    np.testing.assert_allclose(u["hidden"]["b"], 0.5 * u["head"]["b"], rtol=1e-6)


def test_rates_and_multipliers_of_two_rules_are_multiplied():
    default = jopt.chain(
        jopt.clip_by_global_norm(1.0), jopt.adamw(0.5, weight_decay=1.0)
    )
    rules = {"hidden": dict(learning_rate=0.25), "**/b": dict(lr_mult=0.5)}
    for tx in (default, jopt.adamw(0.5, weight_decay=1.0)):
        found = {k: x[1] for k, x in said(jopt.groups(rules, tx)).items()}
        assert found == {
            **{"embed/b": 0.25, "embed/w": 0.5, "hidden/b": 0.125, "hidden/w": 0.25},
            **{"head/b": 0.25, "head/scale": 0.5, "head/w": 0.5},
        }


CHOOSING = {
    "a list": (["**/b", "**/scale"], "**/b, **/scale"),
    "a list of expressions": (
        [re.compile("/b$"), re.compile("scale")],
        "/b$, scale",
    ),
    "a choice": ("**/{b,scale}", "**/{b,scale}"),
    "a function": (lambda path, x: path.endswith(("/b", "/scale")), "function 0"),
    "a tree": (jax.tree.map(lambda x: x.shape == (2,), NET), "rule 0"),
}


@pytest.mark.parametrize("name", CHOOSING)
def test_groups_take_what_select_takes(name):
    which, label = CHOOSING[name]
    for default in (
        jopt.adamw(0.5, weight_decay=0.25),
        jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(0.5, weight_decay=0.25)),
    ):
        tx = jopt.groups([(which, dict(weight_decay=0.0))], default)
        chosen = dict(
            zip(jopt.tree.paths(NET), jax.tree.leaves(jopt.tree.select(NET, which)))
        )
        assert {k: x[::2] for k, x in said(tx).items()} == {
            k: (label, 0.0) if x else ("default", 0.25) for k, x in chosen.items()
        }
        assert tx == jopt.groups([(which, dict(weight_decay=0.0))], default)


def test_choices_in_patterns():
    keys = {"a": 1.0, "ab": 2.0, "{a,b}": 3.0, "{}": 4.0, "c": {"a": 5.0, "d": 6.0}}
    for pattern, want in {
        "{a,c}": ["a", "c/a", "c/d"],
        "**/{a,d}": ["a", "c/a", "c/d"],
        "{a,c/{a,d}}": ["a", "c/a", "c/d"],
        "a{,b}": ["a", "ab"],
        "[{]a,b}": ["{a,b}"],
        "{}": ["{}"],
    }.items():
        shown = jax.tree.leaves(jopt.tree.select(keys, pattern))
        got = [path for path, s in zip(jopt.tree.paths(keys), shown) if s]
        assert got == want, pattern


REFUSED = {
    "names the rule": (
        dict(rules={"hidden": {}, "**/bais": {}}, default=jopt.sgd(0.1)),
        ValueError,
        r"groups: the rule '\*\*/bais': the pattern '\*\*/bais' matches no leaf",
    ),
    "a rule of a list": (
        dict(rules=[(["**/b", "bais"], None)], default=jopt.sgd(0.1)),
        ValueError,
        r"the rule '\*\*/b, bais'.*: the pattern 'bais' matches no leaf",
    ),
    "in doubt": (
        dict(
            rules={"head": dict(weight_decay=0.0)},
            default=contrib.mechanize(jopt.adamw(1.0)),
        ),
        TypeError,
        r"rules\['head'\] changes weight_decay, which is an argument of mechanize and "
        "of adamw",
    ),
    "not one estimate": (
        dict(rules={"head": dict(betas=(0.5, 0.9))}, default=contrib.prodigy()),
        TypeError,
        r"rules\['head'\] changes betas.*outside.*separate_estimates=True",
    ),
    "a setting under a clip": (
        dict(
            rules={"head": dict(b1=0.5)},
            default=jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adam(0.1)),
        ),
        TypeError,
        r"rules\['head'\] changes b1.*clip, outside",
    ),
    "no setting of a chain": (
        dict(
            rules={"head": dict(rate=0.5)},
            default=jopt.chain(jopt.clip(1.0), jopt.sgd(0.1)),
        ),
        TypeError,
        r"rules\['head'\] has \['rate'\], which chain does not take; it takes "
        "max_delta, learning_rate",
    ),
    "kinds": (
        dict(
            rules={"head": {}, "**/b": dict(weight_decay=jopt.l2(0.1))},
            default=jopt.chain(jopt.clip_by_global_norm(1.0), jopt.adamw(0.1)),
        ),
        TypeError,
        "gives weight_decay of another kind",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    given, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        jopt.groups(**given).init(NET)


def test_settings_reach_through_chains_and_wrappers():
    rules = {"**/b": dict(weight_decay=0.0, b1=0.5)}
    adamw = jopt.adamw(0.5, weight_decay=0.25)
    for default in (
        jopt.chain(jopt.clip(1.0), adamw),
        jopt.named_chain(("clip", jopt.clip(1.0)), ("main", adamw)),
        jopt.chain(jopt.clip(1.0), jopt.chain(jopt.identity(), adamw)),
    ):
        found = said(jopt.groups(rules, default))
        assert found["hidden/b"] == ("**/b", 0.5, 0.0)
        assert found["hidden/w"] == ("default", 0.5, 0.25)


# ------------------------------------------------------------------- reading agrees

RATED = {
    name: row
    for name, row in METHODS.items()
    if "learning_rate" in inspect.signature(row.make().update.call.factory).parameters
}


@pytest.mark.parametrize("row", RATED.values(), ids=RATED)
def test_hyperparams_and_describe_say_one_rate(row):
    default = row.make()
    if default.update.call.arguments.get("learning_rate") is None:
        pytest.skip("it has no rate")
    tx = jopt.groups({"a": dict(lr_mult=0.25)}, default)
    p = {"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2))}
    if callable(default.update.call.arguments["learning_rate"]):
        pytest.skip("a schedule stands as itself in a table")
    rates = {row.path: row.learning_rate for row in jopt.describe(tx, p).rows}
    found = jopt.hyperparams(tx.init(p), tx)
    assert found["a/learning_rate"] == rates["a"]
    assert found["default/learning_rate"] == rates["b"]
    assert rates["a"] == 0.25 * rates["b"]


def test_a_rate_in_the_state_has_its_multiplier_beside_it():
    tx = jopt.groups(
        {"hidden": dict(lr_mult=0.5)}, jopt.inject_hyperparams(jopt.sgd)(0.25)
    )
    found = jopt.hyperparams(tx.init(NET), tx)
    assert found["hidden/learning_rate"] == 0.25 and found["hidden/lr_mult"] == 0.5
    assert said_rate(tx, "hidden/w") == 0.125


def said_rate(tx, path):
    rows = {row.path: row for row in jopt.describe(tx, NET).rows}
    return rows[path].learning_rate


def test_the_vector_of_all_leaves_has_no_paths():
    """A multiplier stands behind it; what is inside has one setting for all."""
    tx = jopt.groups({"hidden/w": dict(lr_mult=0.5)}, jopt.flatten(jopt.adamw(0.25)))
    plain = jopt.flatten(jopt.adamw(0.25))
    u, _ = tx.update(NET, tx.init(NET), NET)
    v, _ = plain.update(NET, plain.init(NET), NET)
    want = jax.tree.map(lambda x: x, v) | {"hidden": dict(v["hidden"])}
    want["hidden"]["w"] = 0.5 * v["hidden"]["w"]
    chex.assert_trees_all_close(u, want, rtol=1e-6)
    with pytest.raises(TypeError, match="changes weight_decay, and flatten"):
        jopt.groups({"hidden/w": dict(weight_decay=0.0)}, plain)
    decayed = dict(weight_decay=0.0)
    apart = jopt.groups({"hidden/w": decayed}, plain, separate_estimates=True)
    found, _ = apart.update(NET, apart.init(NET), NET)
    free = jopt.adam(0.25)
    u, _ = free.update(NET, free.init(NET), NET)
    np.testing.assert_allclose(found["hidden"]["w"], u["hidden"]["w"], rtol=1e-6)
