"""What is refused: tables of calls, the errors that they raise, and words of their messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import scoresde


def assert_refused(cases: Mapping[str, Any] | Iterable[Any]) -> None:
    """Every call ``(call, error, words)`` raises its error (a `ScoreSDEError` where none is given) with its words in
    the message: a regular expression, or several texts. Names all cases that do not."""
    named = cases.items() if isinstance(cases, Mapping) else enumerate(cases)
    wrong = [f"{name}: {said}" for name, case in named if (said := _complaint(*case))]
    assert not wrong, "\n".join(wrong)


def _complaint(call: Callable[[], Any], *rest: Any) -> str | None:
    error, words = rest if len(rest) == 2 else (scoresde.ScoreSDEError, *rest)
    try:
        call()
    except error as caught:
        text = str(caught)
        found = all(w in text for w in words) if isinstance(words, tuple) else re.search(words, text)
        return None if found else f"{words!r} is not in {text!r}"
    except Exception as caught:
        return f"raised {caught!r}"
    return "was not refused"
