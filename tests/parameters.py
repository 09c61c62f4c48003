"""Parameters of tests: their names, and which of many pairs are left to slow runs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import pytest


def described(value: object) -> str:
    """The representation without addresses in memory, since all processes of a parallel run name a test alike."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def turns(cases: Iterable[Any], of: int, number: int) -> list[Any]:
    """The cases, of which only every ``of``-th, from ``number`` on, is not slow: where ``of`` tests sweep the same
    cases, each with its own number, every case is in one of them."""
    return [
        pytest.param(case, id=str(case), marks=() if i % of == number % of else pytest.mark.slow)
        for i, case in enumerate(cases)
    ]


def pairs(cases: Iterable[Any], names: Iterable[str], each: int, first: int = 0) -> list[Any]:
    """Cases and processes as parameters: every case on ``each`` of the processes in turn, from the process number
    ``first`` on, so that every process has about as many cases. The other pairs are slow: what is wrong with a method
    shows on any process, and what is wrong with a process shows with any method, which knows of it only numbers."""
    listed = list(names)
    turn = each if math.gcd(each, len(listed)) == 1 else 1
    return [
        pytest.param(
            case,
            name,
            id=f"{case}-{name}",
            marks=() if (j - turn * i - first) % len(listed) < each else pytest.mark.slow,
        )
        for i, case in enumerate(cases)
        for j, name in enumerate(listed)
    ]
