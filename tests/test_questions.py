"""Functions of the user's are asked at every eager step, and the rest is compiled."""

import contextlib
import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jopt
from jopt.engine import eager, questions, step

PARAMS = {"w": jnp.array([[1.0, -2.0], [3.0, 0.5]]), "b": jnp.ones(2)}
GRADS = jax.tree.map(lambda x: 0.5 * x + 0.1, PARAMS)


class Seen:
    """A function of the user's that notes what it was given, and reads a variable."""

    def __init__(self, answer):
        self.answer, self.given, self.now = answer, [], 0

    def __call__(self, x):
        self.given.append(x)
        assert not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(x))
        return self.answer(self.now, x)


def matrices(now, params):
    return jax.tree.map(lambda x: (x.ndim > 1) == (now % 2 == 0), params)


CASES = {
    "schedule": (
        lambda f: jopt.sgd(f, momentum=0.9),
        lambda now, count: 0.1 + 0.25 * now + 0.0 * int(count),
    ),
    "a schedule that gives an array": (
        lambda f: jopt.adam(f),
        lambda now, count: np.float32(0.1 * (now + 1)),
    ),
    "a schedule that gives whole numbers": (
        lambda f: jopt.sgd(f),
        lambda now, count: now + int(count),
    ),
    "mask": (lambda f: jopt.adamw(0.1, weight_decay=0.5, mask=f), matrices),
    "masked": (lambda f: jopt.masked(jopt.scale(2.0), f), matrices),
    "labels": (
        lambda f: jopt.partition({"a": jopt.adam(0.1), "b": jopt.adam(0.3)}, f),
        lambda now, params: {"w": "a", "b": "b"},
    ),
    "a mask beside patterns in their order": (
        lambda f: jopt.partition(
            {"a": jopt.adamw(0.1, mask=f), "b": jopt.sgd(0.3)}, {"w": "b", "**": "a"}
        ),
        lambda now, params: jax.tree.map(lambda x: now % 2 == 0, params),
    ),
    "injected": (
        lambda f: jopt.inject_hyperparams(jopt.adam)(f),
        lambda now, count: 0.1 * (now + 1),
    ),
    "joined": (
        lambda f: jopt.sgd(jopt.join_schedules([f, jopt.constant_schedule(1.0)], [9])),
        lambda now, count: 0.5 * (now + 1),
    ),
    "behind a norm": (
        lambda f: jopt.chain(jopt.clip_by_global_norm(1.0), jopt.lamb(f)),
        lambda now, count: 0.1 * (now + 1),
    ),
}


def steps(tx, asked, n=4):
    params, state, out = PARAMS, tx.init(PARAMS), []
    del asked.given[:]
    for now in range(n):
        asked.now = now
        updates, state = tx.update(GRADS, state, params)
        params = jopt.apply_updates(params, updates)
        out.append((params, state))
    return out


@contextlib.contextmanager
def counted_steps(monkeypatch):
    """A list that grows by one for each step that is traced, or runs in Python."""
    seen, plain = [], step.update

    def counted(*args):
        seen.append(args)
        return plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(step, "update", counted)
        yield seen


@pytest.mark.parametrize("name", CASES)
def test_asked_once_a_step_and_equal_to_plain_python(name, monkeypatch):
    make, answer = CASES[name]
    asked = Seen(answer)
    tx = make(asked)
    got = steps(tx, asked)
    times = len(asked.given)
    with monkeypatch.context() as patch:
        patch.setattr("jopt.engine.pair.questions_of", lambda call: None)
        want = steps(make(asked), asked)
    assert times == len(asked.given) >= 4
    chex.assert_trees_all_close(got, want, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_traced_or_compiled_for_answers_that_were_given(
    name, programs, monkeypatch
):
    make, answer = CASES[name]
    asked = Seen(answer)
    tx = make(asked)
    steps(tx, asked)
    known = questions.questions_of(tx.update.call)
    assert known.first and all(known.first.values())  # none steps in plain Python
    del programs[:]
    with counted_steps(monkeypatch) as traced:
        steps(tx, asked)
    assert not programs and not traced


def test_another_optimizer_of_the_same_function_shares_what_it_compiled(programs):
    asked = Seen(lambda now, count: 0.1 * now)
    steps(jopt.adam(asked), asked)
    del programs[:]
    steps(jopt.adam(asked), asked)
    assert not programs


def test_inside_of_a_step_that_is_left_out_nothing_is_asked():
    when = []

    def answer(now, params):
        when.append(now)
        return matrices(now, params)

    asked = Seen(answer)
    tx = jopt.multi_steps(jopt.adamw(0.1, weight_decay=0.5, mask=asked), 2)
    del when[:]
    asked.now = 1  # for init
    out = steps(tx, asked)
    plain = jopt.adamw(0.1, weight_decay=0.5, mask=functools.partial(matrices, 1))
    u, _ = plain.update(GRADS, plain.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(out[0][0], PARAMS)
    chex.assert_trees_all_close(out[1][0], jopt.apply_updates(PARAMS, u), rtol=1e-6)
    assert set(when) == {1, 3}  # the second step and the fourth


def test_more_answers_than_are_compiled_for():
    names = [f"p{i}" for i in range(20)]
    params = {name: jnp.ones(2) for name in names}
    chosen = [""]
    tx = jopt.masked(
        jopt.scale(3.0), lambda tree: {name: name == chosen[0] for name in tree}
    )
    state = tx.init(params)
    for name in names:
        chosen[0] = name
        updates, state = tx.update(params, state, params)
        assert {k for k, u in updates.items() if u[0] == 3} == {name}


def test_what_a_function_raises_comes_out_and_the_next_step_is_right():
    fails = [False]

    def rate(count):
        if fails[0]:
            raise RuntimeError("no rate today")
        return 0.5

    tx = jopt.sgd(rate)
    state = tx.init(PARAMS)
    tx.update(GRADS, state, PARAMS)
    fails[0] = True
    with pytest.raises(RuntimeError, match="no rate today"):
        tx.update(GRADS, state, PARAMS)
    fails[0] = False
    updates, _ = tx.update(GRADS, state, PARAMS)
    chex.assert_trees_all_close(updates, jax.tree.map(lambda g: -0.5 * g, GRADS))


def test_an_answer_that_is_no_number_is_refused_at_the_step_that_has_it():
    now = [0.5]
    tx = jopt.sgd(lambda count: now[0])
    state = tx.init(PARAMS)
    tx.update(GRADS, state, PARAMS)
    now[0] = float("nan")
    with pytest.raises(ValueError, match="must return a finite number, got nan"):
        tx.update(GRADS, state, PARAMS)


def test_a_program_per_kind_of_arguments_that_come_in_turns(programs, monkeypatch):
    asked = Seen(lambda now, count: 0.1 * (now + 1))
    for tx in (jopt.adam(asked), jopt.adam(0.1)):
        trees = PARAMS, {"other": jnp.ones((3, 5))}
        made = [(p, tx.init(p)) for p in trees]
        for _ in range(2):
            for p, state in made:
                tx.update(p, state, p)
        del programs[:]
        with counted_steps(monkeypatch) as traced:
            for p, state in made:
                tx.update(p, state, p)
        assert not programs and not traced


def test_a_step_is_quick_again_after_the_caches_were_cleared():
    """After it raised once, `jit` would run the program from Python for ever."""
    tx = jopt.adam(0.0123)  # no other test has it
    state = tx.init(PARAMS)
    tx.update(GRADS, state, PARAMS)
    before = eager._program(tx.update.eager.step, None).known
    (old,) = (skeleton for skeleton, _ in before.values())
    jax.clear_caches()
    tx.update(GRADS, state, PARAMS)
    (new,) = (skeleton for skeleton, _ in before.values())
    assert new is not old
    tx.update(GRADS, state, PARAMS)
    assert {new} == {skeleton for skeleton, _ in before.values()}


@dataclasses.dataclass
class Rate:
    """A schedule with a list of its own, equal to another of the same rate."""

    rate: float
    counts: list = dataclasses.field(default_factory=list, compare=False)

    def __call__(self, count):
        self.counts.append(int(count))
        return self.rate


@pytest.mark.parametrize("factory", [jopt.sgd, jopt.scale_by_schedule])
@pytest.mark.parametrize("where", ["between programs", "in plain Python"])
def test_functions_that_are_equal_are_asked_each_for_itself(
    factory, where, monkeypatch
):
    if where == "in plain Python":
        monkeypatch.setattr("jopt.engine.pair.questions_of", lambda call: None)
    rates = Rate(0.5), Rate(0.5)
    assert rates[0] == rates[1]
    for rate in rates:
        tx = factory(rate)
        tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert [rate.counts for rate in rates] == [[0], [0]]


def test_a_function_of_a_path_and_a_leaf_is_asked_leaf_by_leaf():
    """One with more leaves than there are questions in a step runs in Python."""
    params = {f"layer{i}": PARAMS for i in range(8)}
    ends = ["b"]
    tx = jopt.masked(jopt.scale(2.0), lambda path, leaf: path.endswith(ends[0]))
    state = tx.init(params)
    for ends[0] in ("b", "w"):
        updates, _ = tx.update(params, state, params)
        for layer in updates.values():
            changed = {k for k, u in layer.items() if (u == 2 * PARAMS[k]).all()}
            assert changed == {ends[0]}
