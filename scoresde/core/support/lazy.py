"""Names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

_IMPORT = re.compile(r"^( *)from (\.\S*) import (\w+)", re.MULTILINE)


def lazy(
    package: str, modules: Mapping[str, str], shown: Iterable[str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package, whose own modules are among its names.

    Args:
        package: its full name.
        modules: the module that has each of the names, in full or relative to the package.
        shown: the names that ``dir`` lists; by default all of these.

    Example:
        >>> lazy("scoresde.solvers", {"DDIM": ".ddim"})[0]("DDIM").__name__
        'DDIM'
    """

    def get(name: str) -> Any:
        if name in modules:
            value = importlib.import_module(modules[name], package)
            value = value if modules[name] == f".{name}" else getattr(value, name)
        elif name.isidentifier() and not name.startswith("__") and importlib.util.find_spec(f".{name}", package):
            value = importlib.import_module(f".{name}", package)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        there = vars(sys.modules[package])
        if shown is None:
            return sorted({*there, *there.get("__all__", ()), *modules})
        return sorted({*shown, *(name for name in there if name.startswith("__"))})

    return get, names


def listed(file: str) -> tuple[dict[str, str], dict[str, str]]:
    """The module of each name that a package has, and of those that it has besides, from the stub beside its
    ``__init__.py``, which type checkers read: what it imports, and what it imports in an indented block.

    Example:
        >>> names, besides = listed(scoresde.__file__)
        >>> names["solve"], names["zoo"], besides["SampleNoise"]
        ('.core.solve', '.zoo', '.core.noise')
    """
    found: tuple[dict[str, str], dict[str, str]] = {}, {}
    for inner, module, name in _IMPORT.findall(Path(file).with_suffix(".pyi").read_text(encoding="utf-8")):
        found[bool(inner)][name] = f".{name}" if module == "." else module
    return found
