"""What an optimizer is made of: a tree of nodes, and where their states stand.

The leaves of that tree are rules for one array and transformations of whole trees. A
`Chain` and a `Masked` say of what they are made and where in their state the states of
these parts stand; a `Whole` says which transformations it runs inside, and in which
fields it keeps their states; a `Made` says which call of a factory made what is below.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.tree_util import SequenceKey

from ..base import (
    EmptyState,
    GradientTransformation,
    OptState,
    with_extra_args_support,
)
from ..kinds import is_transformation
from ..settings.call import Call, signature_of

__all__ = []

NEW = object()  # stands for the state before the first


class MaskedState(NamedTuple):
    """The state of a masked transformation."""

    inner_state: Any


class Mask(NamedTuple):
    """Which leaves a part sees: a tree of booleans or a function that makes one."""

    tree: Any  # or, with a label, a function that makes a tree of labels
    of_extra_args: bool = False  # whether trees among the extra arguments are masked
    label: tuple = ()  # the one, if there are labels
    maker: str = ""  # the factory that it was given to

    @property
    def argument(self) -> str:
        """The argument that it was given as."""
        return "param_labels" if self.label else "mask"

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.maker}: {self.argument}" if self.maker else self.argument


class AsMade(NamedTuple):
    """The start of a whole field that is what a function of nothing makes, as it is."""

    make: Callable[[], Any]


class Rule(NamedTuple):
    """A rule for one array; see `per_leaf`."""

    name: str
    state: type
    init: Callable  # p -> the slots
    update: Callable  # g, s, p and what `once` and `hint` say -> u, s
    slots: tuple[str, ...]  # fields that have one value for each leaf
    counts: tuple[str, ...] = ()  # fields that count steps
    whole: Mapping[str, Any] = {}  # fields that are one value, and where they start
    numbers: Any = None  # that are the same at every step
    each: Callable | None = None  # the numbers of the steps -> those of a step
    once: Callable | None = None  # `Once` -> the numbers of a step, the whole fields
    hint: Callable | None = None  # params -> something static for each leaf
    sees_all: bool = False  # whether a leaf's update depends on the others
    needs_params: bool = False
    takes: frozenset = frozenset()  # names of the extra arguments that `once` reads
    parts: tuple = ()

    def slots_of(self, made: Any, maker: str) -> dict[str, Any]:
        """The slots in what `init` or `update` made: a dict or a NamedTuple."""
        if made is None and not self.slots:
            return {}
        as_dict: Any = getattr(made, "_asdict", None)
        given: Any = made if as_dict is None else as_dict()
        fields: Any = getattr(self.state, "_fields", ())
        if not isinstance(given, Mapping):
            raise TypeError(
                f"{self.name}: {maker} must make a {self.state.__name__} or a dict of "
                f"its slots, got {type(made).__name__}"
            )
        if not (set(given) <= {*fields} and {*given} >= {*self.slots}):
            raise ValueError(
                f"{self.name}: {maker} made {[*given]}, and the slots of "
                f"{self.state.__name__} are {[*self.slots]}"
            )
        return {f: given[f] for f in self.slots}


class Whole(NamedTuple):
    """A transformation of whole trees, called as it is.

    `inside` has the transformations that it runs, by the field of its state that holds
    theirs (by `""` if that is its own state); `build` makes the pair `(init, update)`
    of them. One that says nothing of itself, such as another library's, is `opaque`.
    """

    init: Callable
    update: Callable
    inside: Mapping[Any, GradientTransformation] = {}
    build: Callable | None = None
    takes: frozenset | None = frozenset()  # names of extra arguments; any if `None`
    began_with: Callable | None = None  # state, params -> what `init` was given
    expected: Callable | None = None  # state -> its types, where more than `init`'s fit
    leaf_by_leaf: bool = False  # whether it does to a leaf what it would to it alone
    count: str = ""  # the field that counts the steps it took, if there is one
    opaque: bool = False
    name: str = ""  # of the function that made it; where it comes from, if opaque

    @property
    def parts(self) -> tuple:
        return tuple(map(node_of, self.inside.values()))

    def split(self, state: OptState) -> Sequence:
        """The states of what is inside."""
        return [_field(state, field) for field in self.inside]

    def with_inside(self, *inner: GradientTransformation) -> "Whole":
        """The same around other transformations."""
        init, update = self.build(*inner)  # pyright: ignore[reportOptionalCall]
        inside = dict(zip(self.inside, inner))
        return self._replace(init=init, update=update, inside=inside)


def _field(state: Any, field: Any) -> Any:
    if field == "":
        return state
    return state[field] if isinstance(field, int) else getattr(state, field)


class Masked(NamedTuple):
    """A part that sees the leaves which a mask lets through."""

    inner: Any
    mask: Mask

    @property
    def parts(self) -> tuple:
        return (self.inner,)

    def split(self, state: OptState) -> Sequence:
        if getattr(type(state), "_fields", None) != MaskedState._fields:
            raise ValueError(
                f"masked: expected a MaskedState, got a {type(state).__name__}: "
                "was the state made by another transformation?"
            )
        return (state.inner_state,)

    def join(self, states: Sequence, before: OptState) -> OptState:
        return MaskedState(*states)


class Chain(NamedTuple):
    """Parts one after the other.

    `keys` has what each is called on the way to its state: its position, its name or
    its label, or `None` where it has none. `split` takes a state apart into those of
    the parts, and `join(states, before)` makes one as the state `before` was.
    """

    parts: tuple
    keys: tuple
    split: Callable[[OptState], Sequence]
    join: Callable[[Sequence, OptState], OptState]


class Made(NamedTuple):
    """What a call of a factory made."""

    call: Call
    node: Any

    @property
    def parts(self) -> tuple:
        return (self.node,)

    @property
    def combines(self) -> bool:
        """Whether the factory must be given transformations, to act on them."""
        given = signature_of(self.call.factory).parameters.values()
        required = [p.name for p in given if p.default is p.empty]
        values = [self.call.arguments.get(name) for name in required]
        leaves = jax.tree.leaves(values, is_leaf=is_transformation)
        return any(map(is_transformation, leaves))


# ------------------------------------------------------------------------ their states


def split(node: Any, state: OptState) -> list:
    """One state for each of the `stages`."""
    while isinstance(node, Made):
        node = node.node
    if isinstance(node, Rule | Whole):
        return [state]
    states = node.split(state)
    return [s for part, x in zip(node.parts, states) for s in split(part, x)]


def join(node: Any, states: Iterator, before: OptState = NEW) -> OptState:
    """The state of all stages, in the containers of the state before."""
    while isinstance(node, Made):
        node = node.node
    if isinstance(node, Rule | Whole):
        return next(states)
    known = [NEW] * len(node.parts) if before is NEW else node.split(before)
    return node.join([join(p, states, x) for p, x in zip(node.parts, known)], before)


# ------------------------------------------------------------------------ making them


def node_of(tx: GradientTransformation) -> Any:
    """What a transformation says that it is; of another library's, that it is one."""
    node = getattr(tx.update, "node", None)
    if node is not None:
        return node
    kinds = [p.kind for p in inspect.signature(tx.update).parameters.values()]
    takes = None if inspect.Parameter.VAR_KEYWORD in kinds else keywords_of(tx.update)
    home = getattr(tx.update, "__module__", type(tx.update).__module__)
    name = getattr(tx.update, "__qualname__", type(tx.update).__name__)
    name = f"{home.partition('.')[0]}: {name.partition('.')[0]}"
    tx = with_extra_args_support(tx)
    return Whole(tx.init, tx.update, takes=takes, opaque=True, name=name)


def nothing() -> Chain:
    """What leaves everything as it is."""

    def join(states, before):
        return EmptyState() if before is NEW else before

    return Chain((), (), lambda state: (), join)


def chain_of(parts: Sequence) -> Chain:
    """Parts whose states are in a tuple."""

    def split(state):
        states = as_tuple(state)
        if len(states) != len(parts):
            raise ValueError(
                f"state: expected the states of {len(parts)} parts of a chain, got "
                f"{len(states)}: was it made by another transformation?"
            )
        return states

    def join(states, before):
        return list(states) if isinstance(before, list) else tuple(states)

    keys = tuple(map(SequenceKey, range(len(parts))))
    return Chain(tuple(parts), keys, split, join)


def as_tuple(state: Any) -> Sequence:
    """The states of a chain, one for each part; refuses what no chain made.

    A list is taken as well: files and other programs make lists of tuples.
    """
    if not isinstance(state, tuple | list) or hasattr(state, "_fields"):
        raise ValueError(
            "chain: expected a tuple of the parts' states, got a "
            f"{type(state).__name__}: was the state made by another transformation?"
        )
    return state


def keywords_of(function: Callable) -> frozenset:
    """The names of the arguments that a function takes by keyword alone."""
    parameters = inspect.signature(function).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def name_of(function: Callable) -> str:
    """What messages call it: its own name, its method's class, what it was made in."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", type(function).__name__)
    return name.split(".")[0]
