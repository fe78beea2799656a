"""The decorator of factories: arguments checked, the call remembered.

A factory is a public function that makes something callable from settings: a gradient
transformation, a schedule. `recorded` turns a plain function into one, so that its
product knows the call that made it. Arguments are checked once, here, by their names
and by their annotations.
"""

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, overload

import jax

from ..base import Schedule
from ..kinds import is_schedule
from ..words import name_mixed_keys, type_in_words
from .call import Call, same, signature_of
from .ranges import (
    ANY,
    FINITE,
    RANGES,
    Range,
    check_bool,
    check_floating_dtype,
    check_function,
    check_numbers,
    check_schedule,
    rules_as_tree,
)

__all__ = []

F = TypeVar("F", bound=Callable[..., Any])

_OURS = re.compile(r"\w+: ")  # how our messages begin


class Static(type):
    """The class of classes that JAX cannot trace, whose text says what to do.

    JAX's own errors show of such an argument the class, and where it was passed.
    """

    def __repr__(cls) -> str:
        return (
            f"<class '{cls.__module__}.{cls.__qualname__}', a transformation or a "
            "schedule, which is no array: close over it, or name its argument in "
            "static_argnames>"
        )


class Recorded(metaclass=Static):
    """A function that knows the call that made it, and compares and prints as it.

    Without a call it is equal to itself alone.
    """

    __slots__ = ("__weakref__", "__wrapped__", "call")

    def __init__(self, function: Callable, call: Call | None):
        self.__wrapped__ = function
        self.call = call

    def __call__(self, *args, **kwargs):
        return self.__wrapped__(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Recorded) or type(self) is not type(other):
            return False
        return self.call is not None and self.call == other.call

    def __hash__(self) -> int:
        return id(self) if self.call is None else self.call.hash

    def __repr__(self) -> str:
        return object.__repr__(self) if self.call is None else repr(self.call)

    def __reduce__(self):
        if self.call is None:
            raise TypeError("only what a decorated factory made can be pickled")
        return self._again, (self.call,)

    @staticmethod
    def _again(call: Call) -> Any:
        return call.again()


class Decorator(Protocol):
    """What `recorded` makes; for a type checker a factory stays the function it is."""

    @overload
    def __call__(self, function: F, /) -> F: ...

    @overload
    def __call__(
        self, *, normal: Any = None, **ranges: Range | None
    ) -> Callable[[F], F]: ...


def recorded(record: Callable[[Any, Call], Any]) -> Decorator:
    """The decorator of factories whose product `record(product, call)` makes knowing.

    The factory's arguments are checked by name first; keyword arguments of the
    decorator replace a name's range, or drop its check with `None`. `normal`, if given,
    brings arguments into the form that is recorded.
    """

    def decorator(
        function: Any = None,
        /,
        *,
        normal: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        **ranges: Range | None,
    ) -> Any:
        if function is None:
            return functools.partial(decorator, normal=normal, **ranges)
        rules = RANGES
        if ranges:
            rules = {k: v for k, v in (RANGES | ranges).items() if v is not None}

        @functools.wraps(function)
        def factory(*args, **kwargs):
            signature = signature_of(function)
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python's own words name it
            if normal is not None:
                bound.arguments.update(normal(bound.arguments))
            for name, value in bound.arguments.items():
                if isinstance(value, Mapping):
                    bound.arguments[name] = rules_as_tree(name, value, rules)
            args, kwargs = bound.args, bound.kwargs
            try:
                for name, value in [*bound.arguments.items()]:
                    default = signature.parameters[name].default
                    if value is default or same(value, default):
                        del bound.arguments[name]  # equal to the call without it
            except ValueError as error:
                name_mixed_keys(error, bound.arguments, f"{function.__name__}: ")
                raise
            call = Call(factory, bound.arguments)
            _check_arguments(signature, call, rules)
            try:  # what the factory checks itself, it says best
                product = function(*args, **kwargs)
            except Exception as error:
                if not _OURS.match(str(error)):
                    _check_annotations(signature, call, rules)
                raise
            _check_annotations(signature, call, rules)
            return record(product, call)

        return factory

    return decorator


schedule = recorded(Recorded)


# ------------------------------------------------------------ what annotations say


def _check_arguments(signature: inspect.Signature, call: Call, ranges: dict) -> None:
    """Refuse what is not in the range of its name, or is no dtype where one is due."""
    for parameter, named, value in _given(signature, call):
        name = parameter.name
        if name in ranges:
            _refuse_function(call.name, name, value, named)
            check_numbers(call.name, name, value, ranges[name])
        elif value is not None and (
            name.endswith("_dtype") or name.startswith("dtype_")
        ):
            check_floating_dtype(call.name, name, value)


def _check_annotations(signature: inspect.Signature, call: Call, ranges: dict) -> None:
    """Refuse what does not fit its annotation, where the name has no range."""
    for parameter, named, value in _given(signature, call):
        where, name = call.name, parameter.name
        if name in ranges:
            continue
        if _are_of_numbers(named):
            _refuse_function(where, name, value, named)
            check_numbers(where, name, value, ANY if float in named else FINITE)
        elif named == (bool,):
            check_bool(where, name, value)
        functions = tuple(x for x in named if x is not type(None))
        if functions and all(map(_is_of_functions, functions)):
            check_function(where, name, value)
            if functions == (Schedule,):
                check_schedule(where, name, value)


def _given(signature: inspect.Signature, call: Call) -> Iterator[tuple]:
    """Each parameter that was given, the types that it names, and the value."""
    for name, value in call.arguments.items():
        parameter = signature.parameters[name]
        named = _types_named(parameter)
        may_be_none = value is None and type(None) in named
        if value is not parameter.default and not may_be_none:
            yield parameter, named, value


def _types_named(parameter: inspect.Parameter) -> tuple:
    """The types that the annotation of one value names; none where all may come."""
    said = parameter.annotation
    many = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    if many or said is parameter.empty or isinstance(said, str):
        return ()
    named = typing.get_args(said) if _is_union(said) else (said,)
    return () if Any in named else named


def _is_union(said: Any) -> bool:
    return typing.get_origin(said) in (typing.Union, types.UnionType)


def _is_of_functions(x: Any) -> bool:
    return typing.get_origin(x) is Callable


def _are_of_numbers(named: tuple) -> bool:
    numbers = {int, float, jax.Array, type(None)}
    known = all(x in numbers or _is_of_functions(x) for x in named)
    return known and not {int, float}.isdisjoint(named)


def _refuse_function(where: str, name: str, value: Any, named: tuple) -> None:
    """Refuse a function where the annotation says that only a number is known."""
    if named and not any(map(_is_of_functions, named)) and is_schedule(value):
        raise TypeError(
            f"{where}: {name} must be a number, got {type_in_words(value)}; "
            f"inject_hyperparams({where}) takes a schedule for it"
        )
