"""Programs that measure scoresde; ``python -m benchmarks`` lists them, ``benchmarks/results`` has what they printed."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from types import ModuleType


def run_named(package: ModuleType) -> int:
    """Run the program of a package that the command line names; without a name, list them."""
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith(("_", "tests")))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        for name in names:
            first_line = (importlib.import_module(f"{package.__name__}.{name}").__doc__ or "").strip().splitlines()[0]
            print(f"{name:12} {first_line}")
        return 0 if len(sys.argv) < 2 else 2
    importlib.import_module(f"{package.__name__}.{sys.argv[1]}").main(sys.argv[2:])
    return 0
