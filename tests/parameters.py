"""Parameters of tests: names of cells, and representatives of the methods."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pytest

import scoresde
from scoresde.solvers.registry import BY_NAME


def described(value: object) -> str:
    """The representation without addresses in memory, since all processes of a parallel run name a test alike."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def pairs(cases: Iterable[Any], names: Iterable[str]) -> list[Any]:
    """Every case with every name, as parameters. The default tier takes some in each turn: what is wrong with a method
    shows on any process, and what is wrong with a process shows with any method, which knows of it only numbers."""
    listed = list(names)
    return [pytest.param(case, name, id=f"{case}-{name}") for case in cases for name in listed]


def own_methods() -> list[scoresde.Method]:
    """The methods of this package without aliases, which are the same objects."""
    return [m for m in scoresde.methods() if m.kind != "backend" and BY_NAME[m.name].name == m.name]


def ways() -> list[str]:
    """One method per way of stepping: of those that share the class that makes their steps, and are adaptive,
    stochastic and have an order or not alike, the one that keeps most states."""
    found: dict[object, str] = {}
    for m in own_methods():
        family = next(
            cls for cls in m.solver.__mro__ if ".families." in cls.__module__ or cls.__module__.endswith("solvers.base")
        )
        key = family, m.adaptive, m.stochastic, (m.ode_order or m.weak_order or m.strong_order) is None
        if key not in found or BY_NAME[m.name].states > BY_NAME[found[key]].states:
            found[key] = m.name
    return list(found.values())
