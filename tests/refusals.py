"""Tables of calls that are refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Errors = type[Exception] | tuple[type[Exception], ...]


def refuses(cases: Iterable[tuple[Callable[[], object], Errors, str]]) -> None:
    """Each call raises its error, whose text has the given pattern."""
    for call, errors, pattern in cases:
        said = None
        try:
            call()
        except errors as error:
            said = str(error)
        assert said is not None and re.search(pattern, said), f"wanted {pattern!r}, got {said!r}"
