"""What a program is made of: numbers that are the same in every run."""

import re
from typing import Any

import jax

from jopt.compat import subjaxprs


def counts(
    traced: jax.stages.Traced,
    lowered: jax.stages.Lowered,
    compiled: jax.stages.Compiled,
) -> dict[str, float]:
    """Equations, lines of StableHLO, instructions of HLO, bytes."""
    jaxpr = traced.jaxpr.jaxpr
    cost: Any = compiled.cost_analysis() or {}
    return {
        "equations": equations(jaxpr, {}, once=True),
        "equations_inlined": equations(jaxpr, {}, once=False),
        "stablehlo_lines": len(lowered.as_text().splitlines()),
        "hlo_instructions": instructions(compiled.as_text() or ""),
        "bytes_accessed": cost.get("bytes accessed", float("nan")),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def instructions(hlo: str) -> int:
    """The instructions of all computations of a module."""
    return len(re.findall(r"^\s*(?:ROOT )?%?[\w.-]+ = ", hlo, re.M))


def equations(jaxpr: Any, counted: dict[int, int], *, once: bool) -> int:
    """Equations at all depths; an inner function counts once, or at every call."""
    if id(jaxpr) in counted:
        return 0 if once else counted[id(jaxpr)]
    counted[id(jaxpr)] = 0
    inner = subjaxprs(jaxpr)
    total = len(jaxpr.eqns) + sum(equations(x, counted, once=once) for x in inner)
    counted[id(jaxpr)] = total
    return total
