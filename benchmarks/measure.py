"""Two libraries on one case and one tree, in turns, in one process.

Every sample is of a newly made optimizer, so that none finds its own earlier work.
"""

import functools
import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax

from . import trees
from .cases import Case
from .counts import counts
from .peers import Floor, Torch
from .sampling import Effort, alternate, summary


def compare(
    libraries: dict[str, ModuleType],
    case: Case,
    shapes: trees.Shapes,
    effort: Effort,
    say: Callable[[str], Any],
) -> dict[str, Any]:
    """How far the results are apart, and all figures: `summary` says what each holds.

    Raises:
        AttributeError: a library lacks something that the case needs.
    """
    jax.clear_caches()
    params, grads = trees.random(shapes, 0), trees.random(shapes, 1)
    sides = {name: Side(lib, case, params, grads) for name, lib in libraries.items()}
    few = effort._replace(least=1)  # of what takes seconds on trees of many leaves

    say("trace and lower")
    each(sides, Side.lower)  # warm
    samples = alternate(sides, Side.lower, few)
    say("compile")
    samples |= alternate(sides, Side.compile, few._replace(most=5))
    say("jitted step")
    difference = distance(*each(sides, Side.start).values(), params)
    repeats = max(each(sides, lambda side: side.repeats(effort.in_a_row)).values())
    peers = others(case, params, grads)
    each(peers, lambda peer: peer.step(2))  # warm
    samples |= alternate(sides | peers, lambda side: side.step(repeats), effort)
    del peers
    samples |= alternate(sides, lambda side: side.dispatch(repeats), few)
    say("eager step")
    jax.clear_caches()  # the two share next to nothing of what they compile here
    samples |= alternate(sides, Side.first_eager, effort._replace(least=1, most=1))
    samples |= alternate(sides, lambda side: side.eager(effort.in_a_row), few)

    counted = each(sides, lambda side: side.counts)
    for name in counted["jopt"]:
        samples[name] = {k: [c[name]] for k, c in counted.items()}
    figures = {name: summary(**values) for name, values in samples.items()}
    return {"difference": difference, "figures": figures}


class Side:
    """One library's half of a comparison."""

    def __init__(self, lib: ModuleType, case: Case, params: Any, grads: Any):
        self.lib, self.case, self.params, self.grads = lib, case, params, grads
        self.abstract = abstract_step(lib, case, params)

    def build(self) -> tuple[Any, Callable]:
        """A new optimizer, and its whole step."""
        return build(self.lib, self.case)

    def lower(self) -> dict[str, float]:
        """Seconds to trace the step and to lower it to StableHLO."""
        _, step = self.build()
        step = jax.jit(step, donate_argnums=(0, 1))
        start = time.perf_counter()
        self.traced = step.trace(*self.abstract)
        middle = time.perf_counter()
        self.lowered = self.traced.lower()
        end = time.perf_counter()
        return {
            "trace": middle - start,
            "lower": end - middle,
            "trace_and_lower": end - start,
        }

    def compile(self) -> dict[str, float]:
        """Seconds that XLA takes for the lowered step."""
        self.lower()
        start = time.perf_counter()
        self.compiled = self.lowered.compile()
        return {"compile": time.perf_counter() - start}

    @functools.cached_property
    def counts(self) -> dict[str, float]:
        """What the trace, the lowered and the compiled program are made of."""
        return counts(self.traced, self.lowered, self.compiled)

    def start(self) -> Any:
        """The parameters after two periods of compiled steps from the start."""
        params = jax.tree.map(lambda x: x.copy(), self.params)
        self.carry = params, self.case.make(self.lib).init(params)
        self.step(2)
        return self.carry[0]

    def step(self, repeats: int) -> dict[str, float]:
        """Seconds a compiled, donated step, over so many periods of steps."""
        steps, carry = repeats * self.case.period, self.carry
        start = time.perf_counter()
        for _ in range(steps):
            carry = self.compiled(*carry, self.grads)
        self.carry = jax.block_until_ready(carry)
        return {"step": (time.perf_counter() - start) / steps}

    def repeats(self, seconds: float) -> int:
        """How many periods of steps make a sample that is long enough."""
        period = self.case.period * self.step(1)["step"]
        return max(1, math.ceil(seconds / period))

    def dispatch(self, repeats: int) -> dict[str, float]:
        """Seconds until the call of a step returns, whether its results are ready.

        On CPU a call also runs programs that are small.
        """
        seconds = []
        for _ in range(repeats * self.case.period):
            start = time.perf_counter()
            self.carry = self.compiled(*self.carry, self.grads)
            seconds.append(time.perf_counter() - start)
            jax.block_until_ready(self.carry)
        return {"dispatch": statistics.median(seconds)}

    def first_eager(self) -> dict[str, float]:
        """Seconds of the first step outside of jit, when nothing is compiled yet."""
        tx, step = self.build()
        state = tx.init(self.params)
        self.carry = None  # what the jitted steps held: trees may be large
        start = time.perf_counter()
        self.eager_carry = jax.block_until_ready(step(self.params, state, self.grads))
        return {"first_eager_step": time.perf_counter() - start}

    def eager(self, at_least: float) -> dict[str, float]:
        """Seconds a step outside of jit, later on, over whole periods of steps."""
        _, step = self.build()

        def some_steps():
            for _ in range(self.case.period):
                carry = step(*self.eager_carry, self.grads)
                self.eager_carry = jax.block_until_ready(carry)

        some_steps()  # in a loop, none comes after the other library and the collector
        start, seconds, steps = time.perf_counter(), 0.0, 0
        while seconds < at_least:
            some_steps()
            steps += self.case.period
            seconds = time.perf_counter() - start
        return {"eager_step": seconds / steps}


def build(lib: ModuleType, case: Case) -> tuple[Any, Callable]:
    """A new optimizer, and its whole step."""
    tx, apply_updates = case.make(lib), lib.apply_updates

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return apply_updates(params, updates), state

    return tx, step


def abstract_step(lib: ModuleType, case: Case, params: Any) -> tuple[Any, Any, Any]:
    """The types of the arguments of a step."""
    return jax.eval_shape(lambda p: (p, case.make(lib).init(p), p), params)


def others(case: Case, params: Any, grads: Any) -> dict[str, Any]:
    """What the step is held against beside optax, as far as it is installed."""
    peers: dict[str, Any] = {}
    if case.words:
        peers["floor"] = Floor(case.words, params)
    if case.torch and importlib.util.find_spec("torch"):
        peers["torch"] = Torch(case.torch, params, grads)
    return peers


def each(sides: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    """The function's value for each side."""
    return {name: function(side) for name, side in sides.items()}


def distance(ours: Any, theirs: Any, start: Any) -> float:
    """The largest difference of the results, relative to the largest change."""
    largest = lambda a, b: max(  # noqa: E731
        float(abs(x - y).max()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )
    return largest(ours, theirs) / (largest(theirs, start) or 1.0)
