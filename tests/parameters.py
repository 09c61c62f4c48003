"""Parameters of tests: their names, and which of many pairs are left to slow runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest


def described(value: object) -> str:
    """The representation without addresses in memory, since all processes of a parallel run name a test alike."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def pairs(cases: Iterable[Any], names: Iterable[str], each: int, first: int = 0) -> list[Any]:
    """Cases and processes as parameters: every case on ``each`` of the processes in turn, so that every process has as
    many cases, from the process number ``first`` on. The other pairs are slow: what is wrong with a method shows on any
    process, and what is wrong with a process with any method, since a method knows only the numbers of its nodes."""
    listed = list(names)
    return [
        pytest.param(
            case,
            name,
            id=f"{case}-{name}",
            marks=() if (j - each * i - first) % len(listed) < each else pytest.mark.slow,
        )
        for i, case in enumerate(cases)
        for j, name in enumerate(listed)
    ]
