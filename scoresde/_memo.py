"""What is computed once and kept, for later calls with the same constants."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import NoneType
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


def constants_of(value: object) -> Hashable | None:
    """What an object of this package consists of, if that is numbers and the like, and such objects, alone: two with
    equal constants do the same. None for other objects, whose parameters may change.

    Example:
        >>> constants_of(scoresde.VPSDE()) == constants_of(scoresde.VPSDE()), constants_of(torch.zeros(1))
        (True, None)
    """
    if isinstance(value, _NUMBERS):
        return type(value), value
    if isinstance(value, list | tuple):
        parts = tuple(map(constants_of, value))
    elif type(value).__module__.partition(".")[0] == __package__ and hasattr(value, "__dict__"):
        parts = tuple(map(constants_of, vars(value).values()))
    else:
        return None
    return None if None in parts else (type(value), parts)
