"""Steps that ask functions of the user's, compiled between the questions.

Outside of `jit` a schedule, a mask or a label of the user's is called at every step,
with values. What is computed before a question, and after the last, is compiled all the
same: a step is traced up to the first question, the function is asked, the step is
traced with the answer up to the next. An answer of numbers is an argument of what
follows; one of booleans and words is a part of it: another is another program, kept as
well.
"""

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from .. import settings
from ..compat import Tracer
from ..kinds import is_transformation, is_value
from .eager import call_compiled, types_of
from .purity import is_pure

__all__ = []

_MOST = 16  # different answers that are compiled for, to one question
_DEPTH = 8  # questions of one step; a function of (path, leaf) has one for each leaf


class Questions:
    """A step of what a call makes, asking; in plain Python where it can't be traced."""

    def __init__(self, call: settings.Call):
        self.call = _asking(call, [])
        self.first: dict[Any, _Place | None] = {}

    def step(self, plain: Callable, *args: Any) -> Any:
        """One step, with values; by what it is in plain Python where that must be."""
        types = types_of(args)
        if types not in self.first:
            if len(self.first) >= 256:
                self.first.clear()
            self.first[types] = _Place(self, ())
        place, answers, numbers = self.first[types], [], []
        if place is None:
            return plain(*args)
        while place is not None and len(answers) <= _DEPTH:
            try:
                place.learn(numbers, args)
                if place.question is None:
                    return call_compiled(place, numbers, *args)
                values = place.question.values(place, numbers, args)
            except Exception:  # plain Python says what is wrong, if something is
                break
            answers.append(place.question.ask(values))
            place, number = place.after(answers[-1])
            numbers = [*numbers, number]
        self.first[types] = None
        with _answering(answers, live=True):
            return self.traced(*args)

    def traced(self, *args: Any) -> Any:
        """The step as it is, with what asks in the place of the user's functions."""
        return self.call.again().update.eager.step(*args)


def questions_of(call: settings.Call) -> Questions | None:
    """How a call's step asks; `None` if there is more than functions to ask.

    The same for an equal call of the very functions: equal ones may have variables of
    their own.
    """
    functions: list[_Asking] = []
    try:
        _asking(call, functions)
    except _NotAsked:
        return None
    return _questions_of(call, tuple(functions))


@functools.lru_cache(maxsize=1024)
def _questions_of(call: settings.Call, functions: tuple) -> Questions:
    return Questions(call)


class _Place:
    """Where a step stands after some answers: before a question, or at its end."""

    def __init__(self, questions: Questions, known: tuple):
        self.questions, self.known = questions, known
        self.question: _Question | None = None
        self.is_learned = False
        self.places: dict[Any, _Place] = {}

    def learn(self, numbers: list, args: tuple) -> None:
        """Find out what is asked next."""
        if not self.is_learned:
            consts = jax.make_jaxpr(self)(numbers, *args).consts
            if any(isinstance(x, Tracer) for x in consts):
                raise _NotAsked  # within a loop or a branch
            self.is_learned = True

    def __call__(self, numbers: list, *args: Any) -> Any:
        """The result of the step; or what the question is about and is no argument."""
        answers = [_joined(x, known) for x, known in zip(numbers, self.known)]
        given = jax.tree.leaves((numbers, args))
        with _answering(answers, given):
            try:
                return self.questions.traced(*args)
            except _Asked as asked:
                self.question, computed = _Question.about(asked, given)
                return jax.lax.optimization_barrier(computed)

    def after(self, answer: Any) -> tuple["_Place | None", list]:
        """The place that an answer leads to, and the numbers in it."""
        number, known = _parted(answer)
        try:
            key = known, types_of((number,))
            if key not in self.places and len(self.places) < _MOST:
                self.places[key] = _Place(self.questions, (*self.known, known))
        except TypeError:  # it has no hash
            return None, []
        return self.places.get(key), number


# --------------------------------------------------------------------------- questions


class _Asking:
    """A function of the user's, which a traced step asks instead of calling it."""

    def __init__(self, function: Callable):
        self.function = function

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "function"), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        answers = _answers.get()
        if answers is None:
            return self.function(*args, **kwargs)
        left, given, live = answers
        for answer in left:
            return answer
        if live:
            return self.function(*args, **kwargs)
        raise _Asked(self.function, (args, kwargs), given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asking) and self.function is other.function

    def __hash__(self) -> int:
        return id(self.function)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.function)


class _Asked(Exception):
    """A traced step has come to a question that it has no answer to.

    A mark says in which trace: within a loop or a branch nothing can be asked.
    """

    def __init__(self, function: Callable, arguments: tuple, given: list):
        self.function, self.arguments = function, arguments
        self.mark = jax.lax.optimization_barrier(given[:1])


_answers: contextvars.ContextVar[tuple[Iterator, list, bool] | None]
_answers = contextvars.ContextVar("_answers", default=None)


@contextlib.contextmanager
def _answering(
    answers: list, given: Sequence = (), live: bool = False
) -> Iterator[None]:
    token = _answers.set((iter(answers), [*given], live))
    try:
        yield
    finally:
        _answers.reset(token)


class _Question:
    """A function, and where what it is asked about comes from."""

    def __init__(self, function: Callable, treedef: Any, sources: list):
        self.function, self.treedef, self.sources = function, treedef, sources

    @classmethod
    def about(cls, asked: _Asked, given: list) -> tuple["_Question", list]:
        """The question; and what is to be computed for it from what is given."""
        leaves, treedef = jax.tree.flatten(asked.arguments)
        places = {id(x): i for i, x in enumerate(given)}
        computed, sources = [], []
        for x in leaves:
            if not isinstance(x, Tracer):
                sources.append((None, x))
            elif id(x) in places:
                sources.append(("given", places[id(x)]))
            else:
                sources.append(("computed", len(computed)))
                computed.append(x)
        return cls(asked.function, treedef, sources), computed + asked.mark

    def values(self, place: _Place, numbers: list, args: tuple) -> tuple:
        """What the function is asked about, as its arguments."""
        values = {"given": jax.tree.leaves((numbers, args))}
        if any(where == "computed" for where, _ in self.sources):
            values["computed"] = call_compiled(place, numbers, *args)
        leaves = [x if where is None else values[where][x] for where, x in self.sources]
        return self.treedef.unflatten(leaves)

    def ask(self, values: tuple) -> Any:
        """The answer."""
        args, kwargs = values
        return self.function(*args, **kwargs)


# ----------------------------------------------------------------------------- answers


def _parted(answer: Any) -> tuple[list, tuple]:
    """The numbers of an answer, and all else of it."""
    leaves, treedef = jax.tree.flatten(answer)
    alone = jax.tree_util.all_leaves([answer])
    varies = [_varies(x, alone) for x in leaves]
    numbers = [x for x, v in zip(leaves, varies) if v]
    return numbers, (
        treedef,
        *(None if v else (type(x), x) for x, v in zip(leaves, varies)),
    )


def _joined(numbers: list, known: tuple) -> Any:
    treedef, *leaves = known
    left = iter(numbers)
    return treedef.unflatten([next(left) if x is None else x[1] for x in leaves])


def _varies(x: Any, alone: bool) -> bool:
    """Whether an answer is a number that may be another one each time.

    Whole ones are settings, but where one is all of the answer. What is not finite is
    looked at where it is used.
    """
    if isinstance(x, bool | np.bool_) or not is_value(x):
        return False
    if isinstance(x, int):
        return alone
    if isinstance(x, float | np.floating):
        return bool(np.isfinite(x))
    return True


# ---------------------------------------------------------------------- what is asked


class _NotAsked(Exception):
    """There is something of the user's that is no function, or nowhere to ask it."""


def _asking(call: settings.Call, functions: list) -> settings.Call:
    """The call with what asks in the place of functions of the user's, and these."""
    if isinstance(call.factory, settings.Recorded) and not is_pure(call.factory):
        raise _NotAsked

    def one(x):
        if is_pure(x):
            return x
        if is_transformation(x):
            if getattr(x.update, "call", None) is None:
                raise _NotAsked
            return _asking(x.update.call, functions).again()
        if isinstance(x, settings.Recorded):
            if x.call is None:
                raise _NotAsked
            return _asking(x.call, functions).again()
        if hasattr(x, "init") or hasattr(x, "update"):  # a schedule with a state
            raise _NotAsked
        functions.append(_Asking(x))
        return functions[-1]

    return settings.Call(call.factory, _in_order(one, call.arguments))


def _in_order(one: Callable, x: Any) -> Any:
    """A function of every leaf; a dict keeps its order, which patterns depend on."""
    if type(x) is dict:
        return {key: _in_order(one, value) for key, value in x.items()}
    if is_transformation(x) or jax.tree_util.all_leaves([x]):
        return one(x)
    children, node = jax.tree.flatten(x, is_leaf=lambda child: child is not x)
    return node.unflatten([_in_order(one, child) for child in children])
