"""What a rule may know once a step, beside its leaf."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..kinds import is_complex, is_inexact
from ..numerics import cast, compute_dtype
from ..plan import Stage
from .fit import StateParts
from .leaves import Leaves

__all__ = []


class Rows(NamedTuple):
    """Numbers of each leaf of its own, in order; leaves may share an object."""

    rows: list


class Once:
    """What a step is about, before any leaf: its number, and all leaves at once.

    Lists have what takes part, in the order of the leaves; every float in `gs`, `ps`
    and `s` has one dtype, float32 at least.
    """

    def __init__(
        self,
        stage: Stage,
        parts: StateParts,
        leaves: Leaves,
        hints: list,
        run: Callable[[], None],
        extra_args: dict[str, Any],
    ):
        self._stage, self._parts, self._leaves = stage, parts, leaves
        self._hints, self._run, self.extra_args = hints, run, extra_args
        self._wide: tuple | None = None

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """The numbers of the step, and the whole fields in their own dtypes."""
        rule: Any = self._stage.part
        promotion = contextlib.nullcontext()
        if any([is_complex(g.dtype) for g in self._leaves.g if hasattr(g, "dtype")]):
            # Real factors of complex arrays are right, strict or not.
            promotion = jax.numpy_dtype_promotion("standard")
        with jax.named_scope(rule.name), promotion:
            numbers, whole = rule.once(self)
        before = self._parts.whole
        return numbers, {
            f: jax.lax.convert_element_type(x, jax.dtypes.result_type(before[f]))
            for f, x in whole.items()
        }

    @property
    def name(self) -> str:
        """What messages call the rule."""
        return self._stage.name

    @property
    def t(self) -> jax.Array:
        """The number of this step, from 1."""
        return self.counts[0]

    @property
    def counts(self) -> list[jax.Array]:
        """The number of this step as each field says it that counts."""
        rule: Any = self._stage.part
        return [self._parts.whole[f] for f in rule.counts]

    @property
    def visible(self) -> list[int]:
        """Which leaves of the tree the masks let through."""
        return [*self._parts.slots]

    @property
    def indices(self) -> list[int]:
        """Which of these take part."""
        parts, optimized = self._parts, self._leaves.optimized
        return [i for i in parts.slots if optimized[i] and i not in parts.absent]

    @property
    def raw_gs(self) -> list[jax.Array]:
        """The gradients as they come to this rule, in their own dtypes."""
        self._run()
        return [self._leaves.g[i] for i in self.indices]

    @property
    def raw_ps(self) -> list:
        """The parameters, in their own dtypes; `None`s if they were not given."""
        return [self._leaves.p[i] for i in self.indices]

    @property
    def gs(self) -> list[jax.Array]:
        """The gradients as they come to this rule."""
        return self._wide_lists()[0]

    @property
    def ps(self) -> list:
        """The parameters; `None`s if they were not given."""
        return self._wide_lists()[2]

    @property
    def s(self) -> Any:
        """The state, with a list in each slot."""
        rule: Any = self._stage.part
        _, columns, _, whole, _ = self._wide_lists()
        return rule.state(**columns, **whole)

    @property
    def dtype(self) -> np.dtype:
        """The real dtype of all floats here."""
        return self._wide_lists()[4]

    @property
    def hints(self) -> list:
        """The hint of each leaf."""
        return [self._hints[i] for i in self.indices]

    @property
    def params(self) -> Any:
        """The tree of parameters that this rule sees, or else of gradients."""
        leaves = self._leaves
        given = leaves.p if leaves.has_params else leaves.g
        view = leaves.view(self._stage.masks)
        return view.treedef.unflatten([given[i] for i in view.indices])

    def _wide_lists(self) -> tuple:
        if self._wide is None:
            rule: Any = self._stage.part
            slots = self._parts.slots
            columns = {f: [slots[i][f] for i in self.indices] for f in rule.slots}
            given = self.raw_gs, columns, self.raw_ps
            dtype = precision_of(given)
            whole = widened(self._parts.whole, dtype)
            self._wide = (*widened(given, dtype), whole, dtype)
        return self._wide


def widened(arrays: Any, dtype: Any) -> Any:
    """Every float in the dtype, a complex one in its complex counterpart."""

    def one(x):
        x = jnp.asarray(x)
        return cast(x, compute_dtype(x.dtype, dtype)) if is_inexact(x.dtype) else x

    return jax.tree.map(one, arrays)


def precision_of(arrays: Any) -> np.dtype:
    """The real dtype of the widest of some arrays, float32 at least."""
    dtypes = [x.dtype for x in jax.tree.leaves(arrays) if is_inexact(x.dtype)]
    return compute_dtype(jnp.float32, *(jnp.finfo(d).dtype for d in dtypes))
