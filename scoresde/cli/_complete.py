"""Completion of names in the shell, from tables that import nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def names(*tables: Iterable[str]) -> Callable[[str], list[str]]:
    """The completion of an option that takes a name from some tables.

    Example:
        >>> names(["vp", "ve"], ["flow"])("v")
        ['vp', 've']
    """

    def complete(incomplete: str) -> list[str]:
        return [name for table in tables for name in table if name.startswith(incomplete)]

    return complete
