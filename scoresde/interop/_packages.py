"""Packages that only some users have."""

from __future__ import annotations

import importlib
from types import ModuleType


def package(name: str, purpose: str, install: str) -> ModuleType:
    """Import a package, or say how to install it.

    Args:
        name: of the module.
        purpose: what needs it, as the subject of a sentence.
        install: what ``pip install`` gets.

    Raises:
        ImportError: it is missing.

    Example:
        >>> package("math", "An example", "nothing").__name__
        'math'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{purpose} needs {name}: pip install '{install}'.") from error
