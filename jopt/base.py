"""The words of the library: the protocol, its types and the empty states."""

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.typing import ArrayLike

__all__ = [
    "ArrayTree",
    "EmptyState",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "MaskedNode",
    "MaskOrFn",
    "OptState",
    "Params",
    "PerLeaf",
    "ScalarOrSchedule",
    "Schedule",
    "TransformInitFn",
    "TransformUpdateExtraArgsFn",
    "TransformUpdateFn",
    "Updates",
    "init_empty_state",
    "with_extra_args_support",
]

# A pytree: nested containers of arrays, or whatever else JAX has registered.
ArrayTree = Any
Params = ArrayTree
Updates = ArrayTree
OptState = ArrayTree

Schedule = Callable[[Any], jax.Array | np.ndarray | np.floating | np.integer | float]
Curve = Callable[[ArrayLike], jax.Array]  # a schedule that jopt made
ScalarOrSchedule = float | jax.Array | Schedule
# One for all leaves, a tree prefix of the parameters, or {path pattern: value}.
PerLeaf = ScalarOrSchedule | ArrayTree
MaskOrFn = ArrayTree | Callable[[Params], ArrayTree] | None


class TransformInitFn(Protocol):
    """Makes the state that fits the parameters."""

    def __call__(self, params: Params) -> OptState: ...


class TransformUpdateFn(Protocol):
    """Turns gradients and a state into updates and the next state."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None
    ) -> tuple[Updates, OptState]: ...


class TransformUpdateExtraArgsFn(Protocol):
    """The same with further keyword arguments, such as the loss as `value`."""

    def __call__(
        self,
        updates: Updates,
        state: OptState,
        params: Params | None = None,
        **extra_args: Any,
    ) -> tuple[Updates, OptState]: ...


class GradientTransformation(NamedTuple):
    """A pair of pure functions, `init` and `update`.

    Two transformations are equal if the calls that made them are; `repr` reads like
    that call.

    Example:
        >>> tx = jopt.adam(1e-3)
        >>> state = tx.init({"w": jnp.ones(3)})
        >>> updates, state = tx.update({"w": jnp.ones(3)}, state)
        >>> tx
        adam(0.001)
    """

    init: TransformInitFn
    update: TransformUpdateFn

    def __repr__(self) -> str:
        call = getattr(self.update, "call", None)
        if call is not None:
            return repr(call)
        return f"{type(self).__name__}(init={self.init}, update={self.update})"


class GradientTransformationExtraArgs(GradientTransformation):
    """A transformation whose update takes, or ignores, further keyword arguments."""

    __slots__ = ()
    update: TransformUpdateExtraArgsFn


def with_extra_args_support(
    tx: Any,
) -> GradientTransformationExtraArgs:
    """The same transformation, ignoring keyword arguments it does not know.

    Example:
        >>> tx = jopt.with_extra_args_support(jopt.GradientTransformation(
        ...     lambda params: (), lambda updates, state, params=None: (updates, ())))
        >>> tx.update(1.0, (), value=2.0)
        (1.0, ())
    """
    if any(c.__name__ == "GradientTransformationExtraArgs" for c in type(tx).__mro__):
        return tx  # by name, so that another library's counts as well

    def update(updates, state, params=None, **extra_args):
        return tx.update(updates, state, params)

    return GradientTransformationExtraArgs(tx.init, update)


class EmptyState(NamedTuple):
    """The state of a transformation that keeps none."""


def init_empty_state(params: Params) -> EmptyState:
    """The state of a transformation that keeps none, whatever the parameters."""
    return EmptyState()


class MaskedNode(NamedTuple):
    """Stands where a mask hides a leaf; it has no leaves itself."""


@jax.tree_util.register_pytree_with_keys_class
class Rules(Mapping):
    """A mapping as a tree: its values are the children, and the order of keys counts.

    JAX sorts the keys of a `dict`, and cannot if one is a regular expression.
    """

    def __init__(self, mapping: Mapping):
        self._items = dict(mapping)

    def __getitem__(self, key: Any) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        """Equal in order as well: the first rule that chooses a leaf counts."""
        return isinstance(other, Rules) and [*self.items()] == [*other.items()]

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(self._items)

    def tree_flatten_with_keys(self):
        keys = tuple(self)
        return [(jax.tree_util.DictKey(k), self[k]) for k in keys], keys

    @classmethod
    def tree_unflatten(cls, keys, values):
        return cls(dict(zip(keys, values)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class WeightDecay:
    """Weight decay of another kind than decoupled; what `l2` and `independent` make."""

    value: Any
    kind: str = dataclasses.field(metadata=dict(static=True))

    def __repr__(self) -> str:
        return f"{self.kind}({self.value!r})"


def only_public_names(package: dict[str, Any], *more: str) -> None:
    """Show of a package the names that it gathered, and of its modules only `more`.

    Importing a file binds it in its package; a star import would hand it on.
    """
    names = [
        name
        for name, value in package.items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    ]
    package["__all__"] = sorted({*names, *more})
    package["__dir__"] = lambda: package["__all__"]
