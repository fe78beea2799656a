"""Schedules that optax has not, against float64 NumPy written from the papers."""

import builtins
import math

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pytest

from jopt import schedules
from tests.schedule_promises import VALUES, check_knows_its_call, check_traced

matplotlib.use("agg")

LAST = 2**31 - 1

# --------------------------------------------------- references, of a float64 count t


def warmed(t, init, peak, warmup, after):
    return np.where(t < warmup, init + (peak - init) * t / max(warmup, 1), after)


def wsd(t, init, peak, warmup, total, begin=None, end=0.0, cooldown="1-sqrt"):
    begin = math.floor(0.8 * total) if begin is None else begin
    x = np.clip(t - begin, 0, total - begin) / (total - begin)
    left = np.clip(total - t, 0, total - begin) / (total - begin)
    if cooldown == "exponential":
        after = np.exp(np.log(peak) * left + np.log(end) * x)
    else:
        f = {
            "linear": left,
            "1-sqrt": left / (1 + np.sqrt(x)),
            "cosine": np.sin(np.pi / 2 * left) ** 2,
        }[cooldown]
        after = end + (peak - end) * f
    return warmed(t, init, peak, warmup, after)


def rex(t, init, steps, end=0.0):
    left = np.clip(steps - t, 0, steps) / steps
    return end + (init - end) * left / (0.5 + 0.5 * left)


def inverse_sqrt(t, init, peak, warmup):
    return warmed(t, init, peak, warmup, peak * np.sqrt(warmup / np.maximum(t, warmup)))


def linear_to_zero(t, init, peak, warmup, total):
    left = np.maximum(total - t, 0) / (total - warmup)
    return warmed(t, init, peak, warmup, peak * left)


def power(t, peak, total, scale, exponent=1.2):
    return np.minimum(peak, scale * np.maximum(total - t, 0) ** exponent)


def cyclic(t, init, peak, steps, mode="triangular", rate=None):
    cycle = np.floor(1 + t / (2 * steps))  # the paper's, which counts from 1
    x = np.abs(t / steps - 2 * cycle + 1)
    scale = {
        "triangular": lambda: 1.0,
        "triangular2": lambda: 0.5 ** (cycle - 1),
        "exp_range": lambda: rate**t,
    }[mode]()
    return init + (peak - init) * np.maximum(0, 1 - x) * scale


def cosine_restarts(t, init, steps, factor=1, rate=1.0, end=0.0):
    value, cycle, begin = np.full(t.shape, np.nan), 0, 0
    if factor == 1:
        cycle = t // steps
        begin = cycle * steps
        length = np.full(t.shape, float(steps))
    else:
        begin, cycle, length = np.zeros(t.shape), np.zeros(t.shape), np.zeros(t.shape)
        first, n, i = 0, steps, 0
        while first <= t.max():
            begin = np.where(t >= first, first, begin)
            cycle = np.where(t >= first, i, cycle)
            length = np.where(t >= first, n, length)
            first, n, i = first + n, n * factor, i + 1
    c = np.sin(np.pi / 2 * (begin + length - t) / length) ** 2
    value = end + (init * rate**cycle - end) * c
    return value


# ---------------------------------------- (name, arguments, reference, the boundaries)

CASES = [
    ("wsd", (0.1, 1.0, 7, 50), wsd, [7, 40, 50]),
    ("wsd", (0.1, 1.0, 0, 33, 0, 0.3, "linear"), wsd, [33]),
    ("wsd", (0.0, 0.5, 7, 33, 7, 0.0, "cosine"), wsd, [7, 33]),
    ("wsd", (0.0, 0.5, 7, 33, 20, 1e-3, "exponential"), wsd, [7, 20, 33]),
    ("wsd", (0.0, 0.5, 7, 33, 20, 2.0, "exponential"), wsd, [7, 20, 33]),
    ("wsd", (0.0, 0.5, 7, 33, 20, 0.1, "1-sqrt"), wsd, [7, 20, 33]),
    ("rex", (0.5, 33), rex, [33]),
    ("rex", (0.5, 33, 0.7), rex, [33]),
    ("inverse_sqrt", (0.0, 2.0, 7), inverse_sqrt, [7]),
    ("inverse_sqrt", (2.0, 2.0, 1), inverse_sqrt, [1]),
    ("linear_to_zero", (0.1, 2.0, 7, 33), linear_to_zero, [7, 33]),
    ("linear_to_zero", (0.1, 2.0, 0, 33), linear_to_zero, [33]),
    ("power", (0.5, 33, 0.02), power, [18, 33]),
    ("power", (0.5, 33, 1e-3, 2), power, [18, 33]),
    ("cyclic", (0.1, 1.0, 7), cyclic, [7, 14, 21]),
    ("cyclic", (1.0, 0.1, 1, "triangular2"), cyclic, [1, 2, 3]),
    ("cyclic", (0.1, 1.0, 7, "triangular2"), cyclic, [7, 14, 21]),
    ("cyclic", (0.1, 1.0, 7, "exp_range", 0.99), cyclic, [7, 14, 21]),
    ("cosine_restarts", (0.5, 10), cosine_restarts, [10, 20]),
    ("cosine_restarts", (0.5, 10, 1, 0.9, 0.01), cosine_restarts, [10, 20]),
    ("cosine_restarts", (0.5, 1, 2), cosine_restarts, [1, 3, 7, 15]),
    ("cosine_restarts", (0.5, 10, 3, 0.5, 0.1), cosine_restarts, [10, 40, 130]),
]
IDS = [f"{name}-{i}" for i, (name, *_) in enumerate(CASES)]
cases = pytest.mark.parametrize("name, args, reference, boundaries", CASES, ids=IDS)


def counts_around(boundaries):
    near = [b + d for b in boundaries for d in (-1, 0, 1)]
    return np.unique([*range(60), *near, 1000, 10**6, 2**24 + 1, LAST - 1, LAST])


def want_at(reference, counts, args):
    with np.errstate(under="ignore"):
        return reference(counts.astype(np.float64), *args)


@cases
def test_every_schedule_is_its_formula(name, args, reference, boundaries):
    counts = counts_around(boundaries)
    got = getattr(schedules, name)(*args)(jnp.asarray(counts, jnp.int32))
    assert got.dtype == jnp.float32
    assert got.shape == counts.shape
    want = want_at(reference, counts, args)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-37)


@cases
def test_float64_where_it_is_enabled(name, args, reference, boundaries):
    with jax.enable_x64(True):
        got = getattr(schedules, name)(*args)(jnp.arange(60))
        assert got.dtype == jnp.float64
        want = reference(np.arange(60.0), *args)
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-16)


@cases
def test_any_kind_of_count_and_of_call(name, args, reference, boundaries):
    schedule = getattr(schedules, name)(*args)
    counts = jnp.asarray(counts_around(boundaries), jnp.int32)
    want = np.asarray(schedule(counts))

    @jax.jit
    def compiled(counts):
        scan = jax.lax.scan(lambda carry, c: (carry, schedule(c)), 0, counts)[1]
        return schedule(counts), jax.vmap(schedule)(counts), scan

    for got in compiled(counts):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=5e-7, atol=1e-37)
    matrix = counts[: len(counts) // 2 * 2].reshape(2, -1)
    np.testing.assert_array_equal(schedule(matrix).ravel(), want[: matrix.size])
    for kind in (int, float, np.int8, np.uint32, jnp.bfloat16):
        got = schedule(kind(5))
        assert got.dtype == jnp.float32
        assert got.shape == ()
        np.testing.assert_allclose(got, want[5], rtol=3e-7)


@cases
def test_a_schedule_knows_its_call(name, args, reference, boundaries):
    factory = getattr(schedules, name)
    schedule = factory(*args)
    assert schedule != factory(args[0] + 0.25, *args[1:])
    assert repr(schedule).startswith(f"{name}({args[0]}, {args[1]}")
    check_knows_its_call(factory, args)


# ---------------------------------------------------------------- accuracy, long runs

LONG = [
    ("wsd", (0.0, 1e-3, 10**6, LAST), wsd),
    ("wsd", (0.0, 1e-3, 3, 2 * 10**9, 10**9 + 7, 0.0, "linear"), wsd),
    ("wsd", (0.0, 1e-3, 3, 2 * 10**9, 10**9 + 7, 1e-9, "exponential"), wsd),
    ("wsd", (0.0, 1e-3, 3, 2 * 10**6, 10**5, 0.0, "cosine"), wsd),
    ("rex", (1e-3, 2 * 10**9), rex),
    ("rex", (1e-3, 2 * 10**6, 1e-9), rex),
    ("inverse_sqrt", (0.0, 1e-3, 10**6), inverse_sqrt),
    ("linear_to_zero", (0.0, 1e-3, 10**6, 2 * 10**9), linear_to_zero),
    ("power", (1e-3, 2 * 10**9, 1e-13), power),
    ("cyclic", (0.0, 1.0, 10**6), cyclic),
    ("cyclic", (0.0, 1.0, 2**30 + 10), cyclic),  # a cycle longer than any count
    ("cyclic", (0.0, 1.0, 10**8, "triangular2"), cyclic),
    ("cyclic", (0.0, 1.0, 2 * 10**9, "exp_range", 1 - 1e-9), cyclic),
    ("cosine_restarts", (1.0, 10**6), cosine_restarts),
    ("cosine_restarts", (1.0, 10**6, 1, 0.97), cosine_restarts),
    ("cosine_restarts", (1.0, 10**6, 2, 0.9), cosine_restarts),
    ("cosine_restarts", (1.0, 2**31 + 10**6), cosine_restarts),
    ("cosine_restarts", (1.0, 2**31 + 10**6, 2), cosine_restarts),
]


@pytest.mark.parametrize("name, args, reference", LONG)
def test_long_runs_are_as_accurate_as_short_ones(name, args, reference):
    rng = np.random.default_rng(0)
    near = (0, 10**6, 2 * 10**6, 2**24, 10**9, 2**30, 2 * 10**9, LAST - 49)
    near = [np.arange(max(n - 50, 0), n + 50) for n in near]
    counts = [*near, rng.integers(0, LAST, 3000), rng.integers(0, 3 * 10**6, 3000)]
    counts = np.unique(np.concatenate(counts))
    schedule = getattr(schedules, name)(*args)
    want = want_at(reference, counts, args)
    for f in (schedule, jax.jit(schedule)):
        got = np.asarray(f(jnp.asarray(counts, jnp.int32)))
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("cooldown", ["linear", "1-sqrt", "cosine", "exponential"])
@pytest.mark.parametrize("peak, end", [(1e-3, 3e-5), (0.7, 0.1), (3e-4, 1e-9)])
def test_the_ends_are_exact(cooldown, peak, end):
    schedule = schedules.wsd(0.0, peak, 7, 10**7, 10**6, end, cooldown)
    got = schedule(jnp.array([7, 100, 10**6, 10**7, 10**7 + 1, LAST]))
    want = np.float32([peak, peak, peak, end, end, end])
    ulps = 1 if cooldown == "exponential" else 0
    np.testing.assert_array_max_ulp(got, want, ulps)


def test_what_ends_at_zero_is_zero_there_and_not_before():
    for schedule in (
        schedules.wsd(0.0, 1e-3, 10, 10**7),
        schedules.rex(1e-3, 10**7),
        schedules.linear_to_zero(0.0, 1e-3, 10, 10**7),
        schedules.power(1e-3, 10**7, 1e-9),
    ):
        before, *after = schedule(jnp.array([10**7 - 1, 10**7, LAST]))
        assert 0 < before < 1e-8
        assert after == [0.0, 0.0]


def test_steps_may_outnumber_any_count():
    steps = 2**40
    for name, args, want in (
        ("rex", (1.0, steps), 1.0),
        ("wsd", (0.0, 1.0, 3, steps), 1.0),
        ("inverse_sqrt", (0.0, 1.0, steps), LAST / steps),
        ("power", (1.0, steps, 1.0), 1.0),
        ("cyclic", (0.0, 1.0, steps), LAST / steps),
        ("cyclic", (0.0, 1.0, steps, "triangular2"), LAST / steps),
        ("cosine_restarts", (1.0, steps), 1.0),
        ("cosine_restarts", (1.0, steps, 3), 1.0),
    ):
        got = getattr(schedules, name)(*args)(LAST)
        np.testing.assert_allclose(got, want, rtol=2e-3, err_msg=name)


# -------------------------------------------------- tracing over the hyper-parameters


def with_values(init, peak, end, x):
    s = schedules
    return [
        s.wsd(init, peak, 4, 10, 6, end),
        s.wsd(init, peak, 4, 10, 6, end, "exponential"),
        s.rex(init, 10, end),
        s.inverse_sqrt(init, peak, 4),
        s.linear_to_zero(init, peak, 4, 10),
        s.power(peak, 10, end, x),
        s.cyclic(init, peak, 3),
        s.cyclic(init, peak, 3, "triangular2"),
        s.cyclic(init, peak, 3, "exp_range", x),
        s.cosine_restarts(init, 3, 1, x, end),
        s.cosine_restarts(init, 3, 2, x, end),
    ]


@pytest.mark.parametrize("which", range(len(with_values(*VALUES))))
def test_hyper_parameters_may_be_traced(which):
    check_traced(lambda *values: with_values(*values)[which], seed=which)


def test_no_gradient_is_nan_at_the_ends():
    for args in ((0.5,), (0.0,)):
        schedule = schedules.wsd(0.0, 1.0, 2, 10, 6, *args)
        slopes = jax.vmap(jax.grad(schedule))(jnp.array([0.0, 2, 6, 8, 10, 11]))
        assert jnp.all(jnp.isfinite(slopes))


# ----------------------------------------------------------- particular behaviours


@pytest.mark.parametrize("cooldown", ["linear", "1-sqrt", "cosine", "exponential"])
def test_a_cooldown_branches_off_a_longer_run(cooldown):
    trunk = schedules.warmup_constant_schedule(0.0, 1e-3, 10)
    longer = schedules.wsd(0.0, 1e-3, 10, 1000, 800, 1e-5, cooldown)
    branch = schedules.wsd(0.0, 1e-3, 10, 110, 90, 1e-5, cooldown)
    until = jnp.arange(91)
    np.testing.assert_array_equal(branch(until), trunk(until))
    np.testing.assert_array_equal(branch(until), longer(until))
    assert branch(91) < longer(91)


def test_the_last_fifth_cools_down():
    for total, begin in ((1000, 800), (1, 0), (4, 3), (7, 5)):
        schedule = schedules.wsd(0.0, 1.0, 0, total)
        assert schedule == schedules.wsd(0.0, 1.0, 0, total)
        assert schedule(begin) == 1.0
        assert schedule(begin + 1) < 1.0
    assert schedules.wsd(0.0, 1.0, 950, 1000)(950) == 1.0


def test_the_peak_does_not_move_the_end_of_a_power_cooldown():
    low, high = (schedules.power(p, 1000, 1e-5)(jnp.arange(1001)) for p in (0.01, 0.02))
    cools = np.asarray(low) < 0.01
    np.testing.assert_array_equal(low[cools], high[cools])
    assert np.sum(cools) == math.ceil((0.01 / 1e-5) ** (1 / 1.2))


def test_without_a_warmup_the_inverse_root_holds_and_falls():
    got = schedules.inverse_sqrt(2.0, 2.0, 100)(jnp.array([0, 50, 100, 400]))
    np.testing.assert_array_equal(got, [2.0, 2.0, 2.0, 1.0])


def test_whole_floats_are_counts():
    assert schedules.wsd(0.0, 1.0, 1e1, 1e3, 5e2, 0.0, "linear")(750) == 0.5
    assert schedules.cosine_restarts(1.0, 1e1, 2.0)(10) == 1.0


# ----------------------------------------------------------------------- bad arguments

NAN = float("nan")
BAD = [
    ("wsd", (NAN, 1.0, 5, 10), ValueError, "init_value must be a finite"),
    ("wsd", (0.0, None, 5, 10), TypeError, "peak_value must be a number"),
    ("wsd", (0.0, 1.0, -1, 10), ValueError, "warmup_steps must be at least 0"),
    ("wsd", (0.0, 1.0, 10, 10), ValueError, "warmup_steps must be fewer than total_st"),
    ("wsd", (0.0, 1.0, 5, 10.5), TypeError, "total_steps must be an integer"),
    ("wsd", (0.0, 1.0, 5, 0), ValueError, "total_steps must be at least 1"),
    ("wsd", (0.0, 1.0, 5, 10, 4), ValueError, "decay_begin must be at least warmup_st"),
    (
        "wsd",
        (0.0, 1.0, 5, 10, 10),
        ValueError,
        "decay_begin .* less than total_steps=1",
    ),
    ("wsd", (0.0, 1.0, 5, 10, 0.5), TypeError, "decay_begin must be an integer"),
    ("wsd", (0.0, 1.0, 5, 10, 6, NAN), ValueError, "end_value must be a finite"),
    (
        "wsd",
        (0.0, 1.0, 5, 10, 6, 0.0, "sqrt"),
        ValueError,
        "cooldown must be one of 'l",
    ),
    (
        "wsd",
        (0.0, 1.0, 5, 10, 6, 0.0, "exponential"),
        ValueError,
        "end_value of an exponential cooldown must be positive, got 0.0",
    ),
    (
        "wsd",
        (0.0, -1.0, 5, 10, 6, 0.1, "exponential"),
        ValueError,
        "peak_value of an exponential cooldown must be positive, got -1.0",
    ),
    ("rex", (jnp.inf, 5), ValueError, "init_value must be a finite"),
    ("rex", (1.0, 0), ValueError, "decay_steps must be at least 1"),
    ("rex", (1.0, 5, "0"), TypeError, "end_value must be a number"),
    ("inverse_sqrt", (0.0, 1.0, 0), ValueError, "warmup_steps must be at least 1"),
    ("inverse_sqrt", (0.0, NAN, 5), ValueError, "peak_value must be a finite"),
    ("linear_to_zero", (0.0, 1.0, 5, 5), ValueError, "warmup_steps must be fewer than"),
    (
        "linear_to_zero",
        (0.0, 1.0, 5, None),
        TypeError,
        "total_steps must be an integer",
    ),
    ("power", (NAN, 5, 1.0), ValueError, "peak_value must be a finite"),
    ("power", (1.0, 0, 1.0), ValueError, "total_steps must be at least 1"),
    ("power", (1.0, 5, 0.0), ValueError, "scale must be positive"),
    ("power", (1.0, 5, 1.0, 0), ValueError, "exponent must be positive"),
    ("cyclic", (0.0, 1.0, 0), ValueError, "transition_steps must be at least 1"),
    ("cyclic", (0.0, 1.0, 5, "square"), ValueError, "mode must be one of 'triangular'"),
    ("cyclic", (0.0, 1.0, 5, "exp_range"), ValueError, "decay_rate must be given for"),
    (
        "cyclic",
        (0.0, 1.0, 5, "triangular", 0.9),
        ValueError,
        "decay_rate must be given",
    ),
    (
        "cyclic",
        (0.0, 1.0, 5, "exp_range", 0.0),
        ValueError,
        "decay_rate must be positi",
    ),
    ("cosine_restarts", (1.0, 0), ValueError, "decay_steps must be at least 1"),
    ("cosine_restarts", (1.0, 5, 0), ValueError, "cycle_factor must be at least 1"),
    ("cosine_restarts", (1.0, 5, 1.5), TypeError, "cycle_factor must be an integer"),
    ("cosine_restarts", (1.0, 5, 2, 0.0), ValueError, "decay_rate must be positive"),
    ("cosine_restarts", (1.0, 5, 2, 1.0, NAN), ValueError, "end_value must be a finit"),
]


@pytest.mark.parametrize("name, args, error, words", BAD)
def test_bad_arguments_are_refused_at_construction(name, args, error, words):
    with pytest.raises(error, match=f"^{name}: .*{words}"):
        getattr(schedules, name)(*args)


# ------------------------------------------------------------------------------- plots


@pytest.fixture
def ax():
    figure = matplotlib.figure.Figure()
    return figure.subplots()


def test_a_plot_draws_the_values(ax):
    schedule = schedules.rex(1e-3, 30)
    assert schedules.plot_schedule(schedule, 40, ax) is ax
    counts, values = ax.lines[0].get_data()
    np.testing.assert_array_equal(counts, np.arange(41))
    np.testing.assert_array_equal(values, schedule(jnp.arange(41)))
    assert ax.get_legend() is None


def test_a_plot_of_several_names_them(ax):
    curves = {"a": schedules.rex(1e-3, 30), "b": lambda count: 0.5}
    schedules.plot_schedule(curves, 10**6, ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    counts, values = ax.lines[1].get_data()
    assert (counts[0], counts[-1], len(counts)) == (0, 10**6, 10_000)
    np.testing.assert_array_equal(values, 0.5)


def test_a_plot_makes_its_own_axes():
    from matplotlib import pyplot

    ax = schedules.plot_schedule(schedules.rex(1e-3, 30), 40)
    assert ax.lines
    pyplot.close(ax.figure)


def test_a_plot_says_what_it_needs(monkeypatch, ax):
    with pytest.raises(ValueError, match="plot_schedule: steps must be at least 1"):
        schedules.plot_schedule(schedules.rex(1e-3, 30), 0, ax)
    with pytest.raises(TypeError, match="plot_schedule: 'lr' must be a function"):
        schedules.plot_schedule({"lr": 0.1}, 10, ax)
    really = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return really(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ImportError, match=r"pip install jopt\[plot\]"):
        schedules.plot_schedule(schedules.rex(1e-3, 30), 40)
