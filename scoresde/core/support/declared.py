"""Arguments that are checked as their annotations declare."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial, wraps
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import torch
from torch import Tensor

from ..errors import short
from .checks import (
    MOST_STEPS,
    MOST_STOCHASTICITY,
    check_callable,
    check_choice,
    check_device,
    check_dtype,
    check_flag,
    check_generator,
    check_integer,
    check_integers,
    check_interval,
    check_kind,
    check_number,
    check_score_fn,
    check_shape,
    check_state,
    check_tensor,
    check_times,
    warn_caller,
)

T = TypeVar("T")


class Kind:
    """What an argument must be, in its annotation: ``Annotated[float, Kind(check)]``.

    Args:
        check: ``check(name, value)`` returns the value to use, or raises; None stands for the value as it is.
    """

    def __init__(self, check: Callable[[str, Any], Any]) -> None:
        self.check = check


def number(low: float = -math.inf, high: float = math.inf, strict: bool = False, hint: str = "") -> Kind:
    """A finite number within [low, high], or within (low, high) if ``strict``."""
    return Kind(partial(check_number, low=low, high=high, strict=strict, hint=hint))


def integer(low: int, high: int | None = None, hint: str = "") -> Kind:
    """An integer within [low, high]."""
    return Kind(partial(check_integer, low=low, high=high, hint=hint))


def integers(low: int, high: int | None = None) -> Kind:
    """A sequence of integers within [low, high], which becomes a tuple."""
    return Kind(partial(check_integers, low=low, high=high))


def one_of(*known: str) -> Kind:
    """One of some names. An annotation ``Literal["a", "b"]`` needs no kind."""
    return Kind(partial(check_choice, known=known))


def instance(kind: type | tuple[type, ...], what: str) -> Kind:
    """An instance of a class, which ``what`` describes. An annotation with a class of this package needs no kind."""
    return Kind(partial(check_kind, kind=kind, what=what))


def called(call: str) -> Kind:
    """What can be called, as in ``f(x, t)``."""
    return Kind(partial(check_callable, call=call))


def tensor(**options: Any) -> Kind:
    """A tensor; the options are those of `check_tensor`."""
    return Kind(partial(check_tensor, **options))


Number = Annotated[float, number()]
Positive = Annotated[float, number(low=0.0, strict=True)]
NonNegative = Annotated[float, number(low=0.0)]
Probability = Annotated[float, number(low=0.0, high=1.0)]
Count = Annotated[int, integer(low=1)]
Index = Annotated[int, integer(low=0)]
Stochasticity = Annotated[float, number(low=0.0, high=MOST_STOCHASTICITY)]
Steps = Annotated[int, integer(low=1, high=MOST_STEPS)]
ScoreFunction = Annotated[Callable[..., Tensor], Kind(lambda _, score_fn: check_score_fn(score_fn))]
Interval = Annotated[tuple[float, float], Kind(check_interval)]
Shape = Annotated[tuple[int, ...], Kind(partial(check_shape, rank=2))]
State = Annotated[Tensor, Kind(check_state)]
Times = Annotated[Tensor, Kind(check_times)]
Device = Annotated[torch.device | str, Kind(lambda _, device: check_device(device))]

# What a plain annotation declares; modules add their own classes by `declares`.
_KINDS: dict[Any, Kind] = {
    bool: Kind(check_flag),
    str: instance(str, "a string"),
    Mapping: instance(Mapping, "a mapping of names to values"),
    torch.Generator: Kind(lambda _, generator: check_generator(generator)),
    torch.dtype: Kind(check_dtype),
}


def declares(annotation: type, kind: Kind) -> None:
    """Let a plain annotation with a class declare a kind."""
    _KINDS[annotation] = kind


def check_as(name: str, value: Any, annotation: Any) -> Any:
    """Check a value as an argument with an annotation is checked, and return the value to use."""
    return _used(_of(annotation), name, value)


def checked(target: T) -> T:
    """Check the arguments of a function, or those that a class is made with, as their annotations declare.

    An annotation declares a check if it is ``Annotated[..., Kind(...)]`` (the names above, such as `Count`), a
    ``Literal`` of strings, ``bool``, ``str``, a ``Mapping``, a ``torch.Generator``, or a class of this package, with or
    without ``| None``. Other annotations declare none, and defaults are not checked. Checks may replace values: a NumPy
    integer becomes an int.

    Example:
        >>> @checked
        ... def repeat(word: str, times: Count, sep: Literal["", "-"] = ""):
        ...     return sep.join([word] * times)
        >>> repeat("ab", 2, sep="-")
        'ab-ab'
        >>> repeat("ab", 0)
        Traceback (most recent call last):
        scoresde.core.errors.InvalidArgumentError: `times` must be at least 1, got 0.
    """
    if isinstance(target, type):
        target.__init__ = _wrapped(target.__init__, target)  # type: ignore[misc]
        return target
    return _wrapped(target)  # type: ignore[arg-type, return-value]


def _wrapped(function: Callable[..., Any], cls: type | None = None) -> Callable[..., Any]:
    names = tuple(inspect.signature(function).parameters)
    declared: dict[str, _Check | None] | None = None

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal declared
        if declared is None:  # at the first call, when all modules are there
            declared = {name: _declared(function, cls, name) for name in names}
        given = [_used(declared[name], name, value) for name, value in zip(names, args, strict=False)]
        kwargs = {name: _used(declared.get(name), name, value) for name, value in kwargs.items()}
        return function(*given, *args[len(names) :], **kwargs)

    return call


def alias(old: str, new: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Take the argument ``old`` of a function as ``new``, with a warning."""

    def wrap(function: Callable[..., T]) -> Callable[..., T]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> T:
            if old in kwargs:
                warn_caller(f"`{old}` is named `{new}` here, and will go; pass {new}={short(kwargs[old])}.")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return wrap


class _Check(NamedTuple):
    check: Callable[[str, Any], Any]
    optional: bool = False


def _used(declared: _Check | None, name: str, value: Any) -> Any:
    if declared is None or (value is None and declared.optional):
        return value
    made = declared.check(name, value)
    return value if made is None else made


def _declared(function: Callable[..., Any], cls: type | None, name: str) -> _Check | None:
    annotation, scope = function.__annotations__.get(name), function.__globals__
    for owner in cls.__mro__ if cls else ():  # a field of a dataclass is annotated in the module of its class
        if name in inspect.get_annotations(owner):
            scope = vars(sys.modules[owner.__module__])
            break
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, scope)
        except NameError:  # a name for type checkers only
            return None
    return _of(annotation)


@cache
def _fields(cls: type) -> dict[str, _Check | None]:
    init = cls.__init__  # type: ignore[misc]
    return {name: _declared(init, cls, name) for name in init.__annotations__}


def checked_fields(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of fields of a dataclass, checked as `checked` would, for a class that is often made from another one.

    Example:
        >>> from dataclasses import make_dataclass
        >>> checked_fields(make_dataclass("Size", [("width", Count)]), {"width": 3})
        {'width': 3}
    """
    declared = _fields(cls)
    return {name: _used(declared[name], name, value) for name, value in values.items()}


def _of(annotation: Any) -> _Check | None:
    """The check that an annotation declares, if any."""
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return next((_Check(each.check) for each in annotation.__metadata__ if isinstance(each, Kind)), None)
    if origin in (Union, UnionType):
        others = [each for each in members if each is not NoneType]
        one = _of(others[0]) if len(others) == 1 else None
        return one and _Check(one.check, len(others) < len(members))
    if origin is Literal:
        return _Check(partial(check_choice, known=members))
    kind = origin or annotation
    if kind in _KINDS:
        return _Check(_KINDS[kind].check)
    ours = isinstance(kind, type) and kind.__module__.startswith(__package__.partition(".")[0] + ".")
    if ours and not vars(kind).get("_is_protocol"):
        return _Check(partial(check_kind, kind=kind, what=f"a {kind.__name__}"))
    return None
