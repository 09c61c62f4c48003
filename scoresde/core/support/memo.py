"""What is computed once and kept, for later calls with the same constants."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import FunctionType, NoneType
from typing import Generic, TypeVar

Value = TypeVar("Value")

_NUMBERS = (bool, float, int, str, NoneType)


class Memo(Generic[Value]):
    """The values that were requested last.

    Args:
        most: how many are kept.

    Example:
        >>> memo = Memo(most=2)
        >>> memo.get("key", lambda: 1), memo.get("key", lambda: 2)
        (1, 1)
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not kept; several threads may make it at once."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self.most:
                self._values.popitem(last=False)
        return value

    def drop(self, key: Hashable) -> None:
        """Forget a value."""
        with self._lock:
            self._values.pop(key, None)


def constants_of(value: object) -> Hashable | None:
    """What an object of this package consists of, if that is numbers and the like, functions of this package, and such
    objects, alone: two with equal constants do the same. None for others, which may change or follow what changes.

    Example:
        >>> (
        ...     constants_of(scoresde.VPSDE()) == constants_of(scoresde.VPSDE()),
        ...     constants_of(torch.zeros(1)),
        ... )
        (True, None)
    """
    if isinstance(value, _NUMBERS):
        return type(value), value
    if isinstance(value, list | tuple):
        parts = tuple(map(constants_of, value))
    elif isinstance(value, FunctionType):
        own = _is_own(value.__module__) and "<" not in value.__qualname__  # neither a closure nor a lambda
        return (FunctionType, value) if own else None
    elif _is_own(type(value).__module__) and hasattr(value, "__dict__"):
        named = {name: constants_of(part) for name, part in vars(value).items()}
        return None if None in named.values() else (type(value), tuple(named.items()))
    else:
        return None
    return None if None in parts else (type(value), parts)


def _is_own(module: str | None) -> bool:  # functions that `exec` makes may have none
    return module is not None and module.partition(".")[0] == __package__.partition(".")[0]
