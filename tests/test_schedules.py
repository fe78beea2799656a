"""Schedules against float64 NumPy written from the formulas, and against optax."""

import functools
import inspect
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jopt import schedules
from tests.schedule_promises import VALUES, check_knows_its_call, check_traced

LAST = 2**31 - 1

# --------------------------------------------------- references, of a float64 count t


def polynomial(t, init, end, power, steps, begin=0):
    done, left = np.clip(t - begin, 0, steps), np.clip(begin + steps - t, 0, steps)
    if power == 1:
        return (init * left + end * done) / steps
    with np.errstate(divide="ignore"):
        log = np.where(done < left, np.log1p(-done / steps), np.log(left / steps))
    return init * np.exp(power * log) - end * np.expm1(power * log)


def linear(t, init, end, steps, begin=0):
    return polynomial(t, init, end, 1, steps, begin)


def exponential(t, init, steps, rate, begin=0, staircase=False, end=None):
    n = np.maximum(t - begin, 0)
    with np.errstate(over="ignore"):
        value = init * rate ** (n // steps if staircase else n / steps)
    if end is None:
        return value
    return np.maximum(value, end) if rate < 1 else np.minimum(value, end)


def cosine(t, init, steps, alpha=0.0, exponent=1.0):
    half = np.sin(np.pi / 2 * np.clip(steps - t, 0, steps) / steps)
    return init * (alpha + (1 - alpha) * half ** (2 * exponent))


def piecewise_constant(t, init, scales):
    value = np.full(t.shape, init)
    for boundary, scale in scales.items():
        value = np.where(t >= boundary, value * scale, value)
    return value


def piecewise_interpolate(t, kind, init, scales):
    value, begin, before = np.full(t.shape, float(init)), 0, init
    for boundary in sorted(scales):
        after = before * scales[boundary]
        x = (t - begin) / max(boundary - begin, 1)
        if kind == "cosine":
            x = np.sin(np.pi / 2 * x) ** 2
        value = np.where(t >= begin, before * (1 - x) + after * x, value)
        value = np.where(t >= boundary, after, value)
        begin, before = boundary, after
    return value


def joined(t, pieces, boundaries):
    value = pieces[0](t)
    for boundary, piece in zip(boundaries, pieces[1:]):
        value = np.where(t >= boundary, piece(t - boundary), value)
    return value


def warmup_constant(t, init, peak, warmup):
    return linear(t, init, peak, warmup)


def warmup_cosine(t, init, peak, warmup, steps, end=0.0, exponent=1.0):
    left = np.clip(steps - t, 0, steps - warmup) / (steps - warmup)
    c = np.sin(np.pi / 2 * left) ** (2 * exponent)
    down = peak * c + end * (1 - c)
    return np.where(t < warmup, init + (peak - init) * t / max(warmup, 1), down)


def warmup_exponential(t, init, peak, warmup, *decay, **kwargs):
    up = init + (peak - init) * t / max(warmup, 1)
    return np.where(t < warmup, up, exponential(t - warmup, peak, *decay, **kwargs))


def onecycle(t, kind, steps, first, peak, fractions, last):
    """`last` is the end; `fractions` when the peak and, maybe, the start is reached."""
    times = [0, *(int(f * steps) for f in fractions), steps]
    values = [first, peak, first][: len(fractions) + 1] + [last]
    if kind == "linear":
        return np.interp(t, times, values)
    (_, rise, _), (first, peak, last) = times, values
    up = first + (peak - first) * (1 - np.cos(np.pi * t / max(rise, 1))) / 2
    down = cosine(t - rise, peak - last, steps - rise) + last
    return np.where(t < rise, up, down)


def sgdr(t, cycles):
    lengths = [c["decay_steps"] for c in cycles]
    names = dict(init_value="init", peak_value="peak", warmup_steps="warmup")
    names |= dict(decay_steps="steps", end_value="end", exponent="exponent")
    pieces = [
        functools.partial(lambda t, c: warmup_cosine(t, **c), c=renamed)
        for renamed in [{names[k]: v for k, v in c.items()} for c in cycles]
    ]
    return joined(t, pieces, np.cumsum(lengths)[:-1])


# ---------------------------------------- (name, arguments, reference, the boundaries)

CYCLE = dict(init_value=0.0, peak_value=1.0, warmup_steps=3, decay_steps=10)
CYCLES = [CYCLE, dict(CYCLE, peak_value=0.5, end_value=0.1, decay_steps=20)]

CASES = [
    ("constant_schedule", (0.3,), lambda t, v: np.full(t.shape, v), []),
    ("linear_schedule", (0.1, 1.0, 10), linear, [10]),
    ("linear_schedule", (1.0, 0.01, 100, 7), linear, [7, 107]),
    ("linear_schedule", (0.3, 1.0, 0), lambda t, i, *_: np.full(t.shape, i), []),
    ("polynomial_schedule", (1.0, 0.1, 2, 10, 5), polynomial, [5, 15]),
    ("polynomial_schedule", (0.1, 1.0, 0.5, 33), polynomial, [33]),
    ("polynomial_schedule", (1.0, 0.5, 0, 10), lambda t, *_: np.ones(t.shape), [10]),
    ("exponential_decay", (0.5, 10, 0.9), exponential, [10]),
    ("exponential_decay", (0.5, 10, 0.5, 4, True), exponential, [4, 14, 24, 34]),
    ("exponential_decay", (0.5, 10, 0.5, 4, False, 0.1), exponential, [4, 14]),
    ("exponential_decay", (0.5, 10, 1.5, 4, False, 2.0), exponential, [4, 14]),
    ("exponential_decay", (0.5, 10, 0.5, 4, False, 2.0), exponential, [4, 14]),
    ("exponential_decay", (0.5, 10, 0.0), lambda t, *_: np.full(t.shape, 0.5), []),
    ("exponential_decay", (0.5, 0, 0.5), lambda t, *_: np.full(t.shape, 0.5), []),
    ("cosine_decay_schedule", (0.5, 10), cosine, [10]),
    ("cosine_decay_schedule", (0.5, 33, 0.1, 2.0), cosine, [33]),
    ("piecewise_constant_schedule", (0.5, {4: 0.1, 9: 3}), piecewise_constant, [4, 9]),
    ("piecewise_constant_schedule", (0.5, {9: 3, 0: 0.1}), piecewise_constant, [9]),
    ("piecewise_constant_schedule", (0.5,), lambda t, v: np.full(t.shape, v), []),
    (
        "piecewise_interpolate_schedule",
        ("linear", 0.5, {4: 0.1, 9: 3.0}),
        piecewise_interpolate,
        [4, 9],
    ),
    (
        "piecewise_interpolate_schedule",
        ("cosine", 0.5, {9: 3.0, 4: 0.1}),
        piecewise_interpolate,
        [4, 9],
    ),
    (
        "piecewise_interpolate_schedule",
        ("linear", 0.5, {0: 0.1, 9: 3.0}),
        piecewise_interpolate,
        [9],
    ),
    ("warmup_constant_schedule", (0.1, 1.0, 7), warmup_constant, [7]),
    ("warmup_cosine_decay_schedule", (0.1, 1.0, 7, 30), warmup_cosine, [7, 30]),
    ("warmup_cosine_decay_schedule", (0.1, 1, 7, 30, 0.2, 2), warmup_cosine, [7, 30]),
    ("warmup_cosine_decay_schedule", (0.1, 1.0, 0, 30, 0.2), warmup_cosine, [30]),
    (
        "warmup_exponential_decay_schedule",
        (0.1, 1.0, 7, 10, 0.5, 3),
        warmup_exponential,
        [7, 10, 20],
    ),
    (
        "warmup_exponential_decay_schedule",
        (0.1, 1.0, 7, 10, 0.5, 3, True, 0.2),
        warmup_exponential,
        [7, 10, 20, 30],
    ),
    (
        "linear_onecycle_schedule",
        (33, 2.0),
        lambda t, n, p: onecycle(t, "linear", n, p / 25, p, (0.3, 0.85), p / 25e4),
        [9, 28, 33],
    ),
    (
        "linear_onecycle_schedule",
        (33, 2.0, 0.0, 1.0, 4.0, 10.0),
        lambda t, *_: np.interp(t, [0, 33], [2.0, 0.5]) - np.where(t < 33, 0, 0.45),
        [33],
    ),
    (
        "cosine_onecycle_schedule",
        (33, 2.0),
        lambda t, n, p: onecycle(t, "cosine", n, p / 25, p, (0.3,), p / 25e4),
        [9, 33],
    ),
    ("sgdr_schedule", (CYCLES,), sgdr, [3, 10, 13, 30]),
]
IDS = [f"{name}-{i}" for i, (name, *_) in enumerate(CASES)]
cases = pytest.mark.parametrize("name, args, reference, boundaries", CASES, ids=IDS)


def counts_around(boundaries):
    near = [b + d for b in boundaries for d in (-1, 0, 1)]
    return np.unique([*range(40), *near, 1000, 10**6, 2**24 + 1, LAST - 1, LAST])


@cases
def test_every_schedule_is_its_formula(name, args, reference, boundaries):
    counts = counts_around(boundaries)
    got = getattr(schedules, name)(*args)(jnp.asarray(counts, jnp.int32))
    assert got.dtype == jnp.float32
    assert got.shape == counts.shape
    want = reference(counts.astype(np.float64), *args)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-37)


@cases
def test_every_schedule_is_optaxs(name, args, reference, boundaries):
    if args == (33, 2.0, 0.0, 1.0, 4.0, 10.0):
        pytest.skip("two of optax's boundaries coincide, and it drops one")
    ours, theirs = getattr(schedules, name)(*args), getattr(optax, name)(*args)
    counts = counts_around(boundaries)
    counts = [int(c) for c in counts if c <= 1000]
    for wide, rtol in ((False, 1e-6), (True, 1e-12)):
        with jax.enable_x64(wide):
            with jax.numpy_dtype_promotion("standard"):
                want = np.float64(jax.jit(jax.vmap(theirs))(jnp.asarray(counts)))
            got = np.float64(jax.jit(jax.vmap(ours))(jnp.asarray(counts)))
        atol = 0.3 * rtol * np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


@cases
def test_signatures_are_optaxs(name, args, reference, boundaries):
    def arguments(f):
        return [(p.name, p.default) for p in inspect.signature(f).parameters.values()]

    ours, theirs = getattr(schedules, name), getattr(optax, name)
    assert arguments(ours) == arguments(theirs)
    assert ours.__name__ == name


def test_all_of_optaxs_schedules_are_here():
    ends = ("_schedule", "_schedules", "_decay")
    theirs = {n for n in dir(optax.schedules) if n.endswith(ends) and n[0] != "_"}
    assert len(theirs) == 14
    assert theirs == {name for name, *_ in CASES} | {"join_schedules"}


@cases
def test_any_kind_of_count_and_of_call(name, args, reference, boundaries):
    schedule = getattr(schedules, name)(*args)
    counts = jnp.asarray(counts_around(boundaries), jnp.int32)
    want = np.asarray(schedule(counts))
    scan = jax.lax.scan(lambda carry, c: (carry, schedule(c)), 0, counts)[1]
    for got in (jax.jit(schedule)(counts), jax.vmap(schedule)(counts), scan):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=5e-7, atol=1e-37)
    n = len(counts) // 2 * 2
    np.testing.assert_array_equal(
        schedule(counts[:n].reshape(2, -1)), want[:n].reshape(2, -1)
    )
    for kind in (int, float, np.int64, np.int8, np.uint32, np.float32, jnp.bfloat16):
        got = schedule(kind(5))
        assert got.dtype == jnp.float32
        assert got.shape == ()
        np.testing.assert_allclose(got, want[5], rtol=3e-7)


def test_a_narrow_count_is_widened_before_it_is_subtracted():
    for kind in (np.int8, np.uint8, np.float16, jnp.bfloat16):
        got = schedules.linear_schedule(1.0, 0.0, 1000)(kind(5))
        np.testing.assert_allclose(got, 0.995, rtol=1e-6)


@cases
def test_a_schedule_knows_its_call(name, args, reference, boundaries):
    factory = getattr(schedules, name)
    schedule = factory(*args)
    assert schedule != schedules.constant_schedule(0.7)
    check_knows_its_call(factory, args)


def test_a_joined_schedule_knows_its_parts():
    def make(value):
        warmup = schedules.linear_schedule(0.0, value, 10)
        return schedules.join_schedules(
            [warmup, schedules.constant_schedule(1.0)], [10]
        )

    assert make(1.0) == make(1.0) != make(2.0)
    assert pickle.loads(pickle.dumps(make(1.0))) == make(1.0)
    want = "[linear_schedule(0.0, 1.0, 10), constant_schedule(1.0)], [10]"
    assert repr(make(1.0)) == f"join_schedules({want})"


# ---------------------------------------------------------------- accuracy, long runs

LONG = [
    ("linear_schedule", (0.0, 1e-3, LAST), linear),
    ("linear_schedule", (1e-3, 0.0, 10**9, 10**9 + 7), linear),
    ("polynomial_schedule", (0.0, 1.0, 2, 2 * 10**9, 3), polynomial),
    ("polynomial_schedule", (1.0, 0.0, 2.0, 2 * 10**9, 3), polynomial),
    ("polynomial_schedule", (1e-6, 1.0, 0.5, 2 * 10**9), polynomial),
    ("cosine_decay_schedule", (1.0, 10**6), cosine),
    ("cosine_decay_schedule", (1.0, LAST, 0.0, 0.7), cosine),
    ("exponential_decay", (1.0, 10**7, 0.7, 3), exponential),
    ("exponential_decay", (1.0, 10**7, 0.7, 3, True), exponential),
    ("exponential_decay", (1.0, 1, 1 - 1e-7), exponential),
    ("exponential_decay", (1.0, 1000, 0.96), exponential),
    (
        "warmup_cosine_decay_schedule",
        (1e-7, 1.0, 10**6, 2 * 10**9, 1e-6),
        warmup_cosine,
    ),
]


@pytest.mark.parametrize("name, args, reference", LONG)
def test_long_runs_are_as_accurate_as_short_ones(name, args, reference):
    rng = np.random.default_rng(0)
    starts = [
        0,
        10**6 - 50,
        2**24 - 50,
        10**9,
        2 * 10**9 - 50,
        2 * 10**9 + 7,
        LAST - 99,
    ]
    counts = [np.arange(s, s + 100) for s in starts] + [rng.integers(0, LAST, 3000)]
    counts = np.unique(np.concatenate([*counts, rng.integers(0, 2 * 10**6, 3000)]))
    schedule = getattr(schedules, name)(*args)
    want = reference(counts.astype(np.float64), *args)
    for f in (schedule, jax.jit(schedule)):
        got = np.asarray(f(jnp.asarray(counts, jnp.int32)))
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-37)


def test_steps_may_outnumber_any_count():
    steps = 2**40
    got = schedules.linear_schedule(0.0, 1.0, steps)(LAST)
    np.testing.assert_allclose(got, LAST / steps, rtol=1e-6)
    got = schedules.linear_schedule(1.0, 0.0, 2**31 + 100)(LAST)
    np.testing.assert_allclose(got, 101 / (2**31 + 100), rtol=1e-6)
    late = schedules.join_schedules(
        [schedules.constant_schedule(1.0), schedules.constant_schedule(2.0)], [2**40]
    )
    assert late(LAST) == 1.0
    assert schedules.exponential_decay(1.0, steps, 0.5, staircase=True)(5) == 1.0


def test_beyond_the_range_of_float32():
    assert schedules.exponential_decay(1.0, 1, 0.5)(LAST) == 0.0
    assert schedules.exponential_decay(1.0, 1, 3.0)(LAST) == jnp.inf
    assert schedules.exponential_decay(1.0, 1, 3.0, end_value=7.0)(LAST) == 7.0
    assert schedules.exponential_decay(1.0, 1, 1.0)(LAST) == 1.0


def test_float64_where_it_is_enabled():
    with jax.enable_x64(True):
        for name, args, reference, _ in CASES:
            got = getattr(schedules, name)(*args)(jnp.arange(40))
            assert got.dtype == jnp.float64
            want = reference(np.arange(40.0), *args)
            np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-16)
        single = schedules.linear_schedule(jnp.float32(1.0), 0.0, 4)
        assert single(jnp.int32(1)).dtype == jnp.float32


# -------------------------------------------------- tracing over the hyper-parameters


def with_values(init, peak, end, x):
    s = schedules
    return [
        s.constant_schedule(init),
        s.linear_schedule(init, end, 10),
        s.polynomial_schedule(init, end, x, 10),
        s.exponential_decay(init, 10, x, 2, False, end),
        s.cosine_decay_schedule(init, 10, end, x),
        s.piecewise_constant_schedule(init, {4: x, 6: end}),
        s.piecewise_interpolate_schedule("cosine", init, {4: x, 6: end}),
        s.warmup_constant_schedule(init, peak, 4),
        s.warmup_cosine_decay_schedule(init, peak, 4, 10, end, x),
        s.warmup_exponential_decay_schedule(init, peak, 4, 10, x, 2, False, end),
        s.linear_onecycle_schedule(10, peak, 0.3, 0.8, x, init),
        s.cosine_onecycle_schedule(10, peak, 0.3, x, init),
        s.sgdr_schedule([dict(CYCLE, init_value=init, peak_value=peak, exponent=x)]),
    ]


@pytest.mark.parametrize("which", range(len(with_values(*VALUES))))
def test_hyper_parameters_may_be_traced(which):
    check_traced(lambda *values: with_values(*values)[which], seed=which)


def test_no_gradient_is_nan_at_the_ends():
    def value(count, power):
        return schedules.polynomial_schedule(1.0, 0.5, power, 10)(count)

    for count in (0, 5, 10, 11):
        assert math.isfinite(jax.grad(value, 1)(count, 2.0))
        assert math.isfinite(jax.grad(value)(float(count), 2.0))


# ----------------------------------------------------------- particular behaviours


def test_a_joined_schedule_takes_any_function():
    parts = [
        lambda c: 1,
        lambda c: jnp.bfloat16(0.5),
        optax.linear_schedule(0.0, 1.0, 4),
    ]
    schedule = schedules.join_schedules(parts, [2, 3])
    with jax.numpy_dtype_promotion("standard"):
        got = schedule(jnp.arange(6))
    np.testing.assert_array_equal(got, [1, 1, 0.5, 0, 0.25, 0.5])
    assert got.dtype == jnp.float32


def test_parts_count_from_their_own_beginning():
    schedule = schedules.join_schedules([lambda c: c, lambda c: c], [3])
    np.testing.assert_array_equal(schedule(jnp.arange(6)), [0, 1, 2, 0, 1, 2])


def test_without_steps_a_warmup_is_over_at_once():
    assert schedules.warmup_constant_schedule(0.0, 1.0, 0)(0) == 1.0
    assert schedules.warmup_exponential_decay_schedule(0.0, 1.0, 0, 5, 0.5)(0) == 1.0


def test_a_peak_of_zero_ends_where_it_is_told_to():
    schedule = schedules.warmup_cosine_decay_schedule(0.2, 0.0, 5, 10, -3.0, 2.0)
    got = schedule(jnp.array([0, 5, 10]))
    np.testing.assert_allclose(got, [0.2, 0.0, -3.0], rtol=1e-6)


def test_a_cycle_of_few_steps_still_ends():
    for steps in range(1, 8):
        for pct in (0.0, 0.3, 1.0):
            linear = schedules.linear_onecycle_schedule(steps, 1.0, pct, 1.0, 2.0, 4.0)
            cosine = schedules.cosine_onecycle_schedule(steps, 1.0, pct, 2.0, 4.0)
            for schedule in (linear, cosine):
                assert schedule(steps) == schedule(LAST) == 0.125
                values = schedule(jnp.arange(steps + 1))
                assert jnp.all((values >= 0.125) & (values <= 1))


def test_whole_floats_are_counts():
    schedule = schedules.linear_schedule(0.0, 1.0, 1e4, np.float32(2))
    assert schedule(5002) == 0.5
    steps = schedules.join_schedules([lambda c: 1.0, lambda c: 2.0], [1e1])
    assert (steps(9), steps(10)) == (1.0, 2.0)


# ----------------------------------------------------------------------- bad arguments

NAN = float("nan")
HALF = schedules.constant_schedule(0.5)
BAD = [
    ("constant_schedule", (NAN,), ValueError, "value must be a finite number"),
    ("constant_schedule", (None,), TypeError, "value must be a number, got None"),
    ("constant_schedule", ([1.0],), TypeError, "value must be a number, got a list"),
    ("constant_schedule", (np.ones(2),), ValueError, "value must be a scalar"),
    ("constant_schedule", (1j,), TypeError, "value must be a number"),
    ("linear_schedule", (NAN, 0.0, 5), ValueError, "init_value must be a finite"),
    ("linear_schedule", (HALF, 0.0, 5), TypeError, "init_value must be a number"),
    ("linear_schedule", (0.0, jnp.inf, 5), ValueError, "end_value must be a finite"),
    ("linear_schedule", (0.0, 1.0, 2.5), TypeError, "transition_steps must be an int"),
    ("linear_schedule", (0.0, 1.0, NAN), TypeError, "transition_steps must be an int"),
    ("linear_schedule", (0.0, 1.0, True), TypeError, "transition_steps must be an int"),
    ("linear_schedule", (0.0, 1.0, "5"), TypeError, "transition_steps must be an int"),
    ("linear_schedule", (0.0, 1.0, 5, -1), ValueError, "transition_begin must be at l"),
    ("polynomial_schedule", (0.0, 1.0, -1.0, 5), ValueError, "power must be at least"),
    ("polynomial_schedule", (0.0, 1.0, NAN, 5), ValueError, "power must be at least 0"),
    ("polynomial_schedule", (0.0, 1.0, 1.0, None), TypeError, "transition_steps must"),
    ("exponential_decay", (NAN, 5, 0.5), ValueError, "init_value must be a finite"),
    ("exponential_decay", (1.0, 5, -0.5), ValueError, "decay_rate must be at least 0"),
    ("exponential_decay", (1.0, 5, NAN), ValueError, "decay_rate must be at least 0"),
    ("exponential_decay", (1.0, 5.5, 0.5), TypeError, "transition_steps must be an in"),
    ("exponential_decay", (1.0, 5, 0.5, -3), ValueError, "transition_begin must be at"),
    ("exponential_decay", (1.0, 5, 0.5, 0, "False"), TypeError, "staircase must be Tr"),
    ("exponential_decay", (1.0, 5, 0.5, 0, False, NAN), ValueError, "end_value must b"),
    ("cosine_decay_schedule", (1.0, 0), ValueError, "decay_steps must be at least 1"),
    ("cosine_decay_schedule", (1.0, -5), ValueError, "decay_steps must be at least 1"),
    ("cosine_decay_schedule", (1.0, 5, NAN), ValueError, "alpha must be a finite"),
    ("cosine_decay_schedule", (1.0, 5, 0.0, -1), ValueError, "exponent must be at le"),
    ("piecewise_constant_schedule", (NAN, {}), ValueError, "init_value must be a fin"),
    ("piecewise_constant_schedule", (1.0, {2.5: 1.0}), TypeError, "boundary 2.5 in b"),
    ("piecewise_constant_schedule", (1.0, {"2": 1.0}), TypeError, "boundary '2' in b"),
    ("piecewise_constant_schedule", (1.0, {-2: 1.0}), ValueError, "boundary -2 in bo"),
    (
        "piecewise_constant_schedule",
        (1.0, {2: -0.1}),
        ValueError,
        r"boundaries_and_scales\[2\] must be at least 0, got -0.1",
    ),
    (
        "piecewise_constant_schedule",
        (1.0, {2: NAN}),
        ValueError,
        r"boundaries_and_scales\[2\] must be at least 0, got nan",
    ),
    ("piecewise_constant_schedule", (1.0, [(2, 0.1)]), TypeError, "must be a dict of"),
    (
        "piecewise_interpolate_schedule",
        ("quadratic", 1.0, {2: 0.5}),
        ValueError,
        "interpolate_type must be 'linear' or 'cosine', got 'quadratic'",
    ),
    (
        "piecewise_interpolate_schedule",
        ("linear", 1.0, {2: -0.5}),
        ValueError,
        r"boundaries_and_scales\[2\] must be at least 0, got -0.5",
    ),
    ("join_schedules", ([HALF], [3]), ValueError, "1 boundaries for 1 schedules"),
    ("join_schedules", ([HALF] * 3, [3]), ValueError, "1 boundaries for 3 schedules"),
    ("join_schedules", ([], []), ValueError, "0 boundaries for 0 schedules"),
    ("join_schedules", ([HALF] * 3, [5, 3]), ValueError, r"must increase, got \[5, 3"),
    ("join_schedules", ([HALF] * 3, [3, 3]), ValueError, r"must increase, got \[3, 3"),
    ("join_schedules", ([HALF] * 2, [-1]), ValueError, r"boundaries\[0\] must be at l"),
    ("join_schedules", ([HALF] * 2, [2.5]), TypeError, r"boundaries\[0\] must be an i"),
    ("join_schedules", ([HALF, 0.1], [2]), TypeError, r"schedules\[1\] must be a func"),
    ("warmup_constant_schedule", (0.0, NAN, 5), ValueError, "peak_value must be a fi"),
    ("warmup_constant_schedule", (0.0, 1.0, -5), ValueError, "warmup_steps must be at"),
    (
        "warmup_cosine_decay_schedule",
        (0.0, 1.0, 11, 10),
        ValueError,
        "warmup_steps must be fewer than decay_steps=10, which includes them, got 11",
    ),
    (
        "warmup_cosine_decay_schedule",
        (0.0, 1.0, 10, 10),
        ValueError,
        "warmup_steps must be fewer than decay_steps=10",
    ),
    ("warmup_cosine_decay_schedule", (0, 1, -1, 10), ValueError, "warmup_steps must b"),
    (
        "warmup_cosine_decay_schedule",
        (0, 1, 0, 0),
        ValueError,
        "decay_steps must be at",
    ),
    (
        "warmup_cosine_decay_schedule",
        (0, 1, 1, 9, NAN),
        ValueError,
        "end_value must be",
    ),
    (
        "warmup_exponential_decay_schedule",
        (0.0, 1.0, 5, 5, -0.5),
        ValueError,
        "decay_rate must be at least 0, got -0.5",
    ),
    ("linear_onecycle_schedule", (0, 1.0), ValueError, "transition_steps must be at l"),
    ("linear_onecycle_schedule", (9, NAN), ValueError, "peak_value must be a finite"),
    (
        "linear_onecycle_schedule",
        (9, 1.0, 1.5),
        ValueError,
        r"pct_start must be in \[0",
    ),
    ("linear_onecycle_schedule", (9, 1.0, -0.1), ValueError, "pct_start must be in"),
    ("linear_onecycle_schedule", (9, 1.0, 0.3, 2), ValueError, "pct_final must be in"),
    (
        "linear_onecycle_schedule",
        (9, 1.0, 0.5, 0.4),
        ValueError,
        "pct_final must be at least pct_start=0.5, got 0.4",
    ),
    ("linear_onecycle_schedule", (9, 1.0, 0.3, 0.8, 0), ValueError, "div_factor must"),
    ("cosine_onecycle_schedule", (-3, 1.0), ValueError, "transition_steps must be at"),
    ("cosine_onecycle_schedule", (9, 1.0, NAN), ValueError, "pct_start must be in"),
    ("cosine_onecycle_schedule", (9, 1.0, 0.3, 1, 0), ValueError, "final_div_factor m"),
    ("sgdr_schedule", ([],), ValueError, "must have at least one cycle"),
    ("sgdr_schedule", ([1],), TypeError, r"cosine_kwargs\[0\] must be a dict"),
    (
        "sgdr_schedule",
        ([CYCLE, dict(CYCLE, decay=3)],),
        TypeError,
        r"cosine_kwargs\[1\]: .*'decay'",
    ),
    (
        "sgdr_schedule",
        ([dict(peak_value=1.0, warmup_steps=1, decay_steps=5)],),
        TypeError,
        r"cosine_kwargs\[0\]: .*'init_value'",
    ),
    (
        "sgdr_schedule",
        ([CYCLE, dict(CYCLE, warmup_steps=99)],),
        ValueError,
        r"cosine_kwargs\[1\]: .*warmup_steps must be fewer than decay_steps=10",
    ),
]


@pytest.mark.parametrize("name, args, error, words", BAD)
def test_bad_arguments_are_refused_at_construction(name, args, error, words):
    with pytest.raises(error, match=f"^{name}: .*{words}"):
        getattr(schedules, name)(*args)


def test_numbers_of_steps_are_static():
    def of(steps):
        return schedules.linear_schedule(0.0, 1.0, steps)(3)

    with pytest.raises(TypeError, match="transition_steps must be an integer"):
        jax.jit(of)(5)

    def cycle(fraction):
        return schedules.cosine_onecycle_schedule(10, 1.0, fraction)(3)

    with pytest.raises(TypeError, match="pct_start must not be traced"):
        jax.jit(cycle)(0.3)


@pytest.mark.parametrize("count", [1j, True])
def test_a_count_is_a_real_number(count):
    with pytest.raises(TypeError, match="count must be a real number"):
        HALF(count)
