"""Editors know the names of methods, and type checkers take any text."""

from __future__ import annotations

import typing

from scoresde.inverse import registry
from scoresde.solvers.registry.rows import ROWS, MethodName


def test_the_names_of_types_are_those_of_the_lists() -> None:
    assert typing.get_args(MethodName) == ("auto", *(name for row in ROWS for name in (row.name, *row.aliases)))
    assert typing.get_args(registry.RuleName) == tuple(registry.RULES)
    assert typing.get_args(registry.SamplerName) == tuple(registry.SAMPLERS)
