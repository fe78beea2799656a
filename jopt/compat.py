"""What differs between the versions of JAX, at one place.

Nothing else of jopt takes a name that JAX does not promise to keep. Each of them has
another way here, for a JAX that has it no more or not yet.
"""

import contextlib
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

try:
    from jax.core import ShapedArray, Tracer
except ImportError:

    def _of_a_trace() -> tuple[Any, Any]:
        seen = []
        jax.eval_shape(lambda x: seen.extend([x, jax.typeof(x)]), 0.0)
        kinds = type(seen[0]).__mro__
        return type(seen[1]), next(k for k in kinds if k.__name__ == "Tracer")

    ShapedArray, Tracer = _of_a_trace()


# `jax.extend.core` has the next names, and takes 20 ms to import.
try:
    from jax.core import eval_jaxpr
except ImportError:

    def eval_jaxpr(jaxpr: Any, consts: Any, *args: Any) -> Any:
        """What a jaxpr computes."""
        from jax.extend.core import jaxpr_as_fun

        return jaxpr_as_fun(ClosedJaxpr(jaxpr, consts))(*args)


def jaxpr_as_fun(closed_jaxpr: Any) -> Any:
    """The function of a closed jaxpr: flat arguments to a list of results."""

    def run(*args):
        with jax.debug_nans(False):  # a part may turn NaN into something else
            return eval_jaxpr(closed_jaxpr.jaxpr, closed_jaxpr.consts, *args)

    return run


def _of_a_jaxpr() -> tuple[Any, Any, Any]:
    """The types of jaxprs, and of constants in them."""
    closed = jax.make_jaxpr(lambda x: x + 1.5)(0.0)
    return type(closed), type(closed.jaxpr), type(closed.jaxpr.eqns[0].invars[1])


if TYPE_CHECKING:
    from jax.extend.core import (
        ClosedJaxpr as ClosedJaxpr,  # pyright: ignore[reportPrivateImportUsage]
        Jaxpr as Jaxpr,
        Literal as Literal,
    )
else:
    ClosedJaxpr, Jaxpr, Literal = _of_a_jaxpr()

try:
    from jax.experimental.xla_metadata import set_xla_metadata
except ImportError:

    def set_xla_metadata(**metadata: Any) -> Any:
        """Nothing: what it says to XLA is about speed alone."""
        return contextlib.nullcontext()


__all__ = []


def subjaxprs(jaxpr: Any) -> list:
    """The jaxprs that the equations of this one call, branch to or repeat."""
    found = []
    for equation in jaxpr.eqns:
        for x in jax.tree.leaves(list(equation.params.values()), is_leaf=_has_eqns):
            if _has_eqns(x):
                found.append(getattr(x, "jaxpr", x))  # of a closed one, its jaxpr
    return found


def _has_eqns(x: Any) -> bool:
    return hasattr(x, "eqns")


def file_of(jaxpr: Any) -> str:
    """Where the function that a jaxpr was traced from is written; "" if that is lost.

    JAX keeps it for its error messages.
    """
    said = getattr(getattr(jaxpr, "jaxpr", jaxpr), "debug_info", None)
    return getattr(said, "func_filename", None) or ""


def with_weak_type(x: jax.Array) -> jax.Array:
    """The array as one that acts as a Python number does in promotion.

    JAX shows such types but has no public function to them.
    """
    try:
        bind: Any = jax.lax.convert_element_type_p.bind
        return bind(x, new_dtype=x.dtype, weak_type=True, sharding=None)
    except (AttributeError, TypeError):  # gone, or of other parameters
        return _set_in_weak_zeros(x)


def _set_in_weak_zeros(x: jax.Array) -> jax.Array:
    """`x` in an array that Python's zero made: of the default width, and weak."""
    kinds = {jnp.complexfloating: 0j, jnp.floating: 0.0, jnp.integer: 0}
    zero = next(zero for kind, zero in kinds.items() if jnp.issubdtype(x.dtype, kind))
    zeros = jnp.broadcast_to(jnp.asarray(zero), x.shape)
    return zeros.at[...].set(x.astype(zeros.dtype))


def shard_alike(p: jax.Array, slot: jax.Array) -> jax.Array:
    """The slot of a parameter, or of a part, of its shape, sharded as that is.

    Along explicit axes the type of `p` says how. Along the others, of a tracer, only
    XLA knows, and it looks at what depends on what: the slot is made to depend on `p`,
    by a choice that is made when the program runs and always comes out for the slot.
    """
    if not isinstance(p, Tracer):
        return slot
    wanted, given = jax.typeof(p), jax.typeof(slot)
    if any(getattr(wanted, x, None) != getattr(given, x, None) for x in _MANUAL):
        return slot  # within shard_map, one per device
    if wanted.sharding.spec != given.sharding.spec:
        slot = jax.sharding.reshard(slot, wanted.sharding)
    return _chosen(p, slot)


_MANUAL = ("vma", "manual_axis_type")  # the types' names for axes that they vary over


@jax.jit
def _chosen(p: jax.Array, slot: jax.Array) -> jax.Array:
    if jnp.iscomplexobj(p) and not jnp.iscomplexobj(slot):
        p = p.real
    like = p.astype(slot.dtype)
    if jax.typeof(slot).weak_type:
        like = with_weak_type(like)
    # Behind the barrier, nobody can tell that the choice is always the same.
    never = jax.lax.optimization_barrier(jnp.bool(False))
    return jax.lax.select(never, like, slot)
