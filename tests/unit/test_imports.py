"""`import scoresde` imports nothing heavy, and every public name is the same object however it is reached."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import scoresde

ROOT = Path(scoresde.__file__).parent
HEAVY = ("torch", "numpy", "scipy", "PIL", "tqdm", "safetensors", "torchdiffeq", "torchsde", "matplotlib", "sklearn")


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def names() -> dict[str, str]:
    """``{name: module}`` of what type checkers see of the package; a module is itself in ``.``."""
    tree = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: node.module or "." for node in imports for alias in node.names}


def test_python_finds_the_names_that_type_checkers_see() -> None:
    seen = names()
    assert set(scoresde.__all__) <= set(seen) & set(dir(scoresde)) and len(scoresde.__all__) <= 60
    for name, home in seen.items():
        value = getattr(scoresde, name)
        if home == ".":
            assert isinstance(value, ModuleType) and value.__name__ == f"scoresde.{name}", name
            continue
        module = importlib.import_module(f"scoresde.{home}")
        assert value is getattr(module, name) and not isinstance(value, ModuleType), name
        assert name in getattr(module, "__all__", [name]), name
        assert (name in scoresde.__all__) == (name in dir(scoresde)), name


def test_importing_the_package_its_commands_and_the_names_of_its_methods_imports_nothing_heavy() -> None:
    fresh(f"""
import sys, scoresde, scoresde.cli, scoresde.solvers.registry.rows
assert not {set(HEAVY)} & set(sys.modules), sorted(sys.modules)
""")


@pytest.mark.slow
def test_importing_every_module_leaves_every_public_name_what_it_was() -> None:
    """An import of a submodule sets it on its package, in the place of what has the same name."""
    fresh(f"""
import importlib, pkgutil, sys, scoresde
used = {{name: getattr(scoresde, name) for name in {sorted(names())}}}
first = {{}}
for found in pkgutil.walk_packages(scoresde.__path__, "scoresde."):
    if not found.name.endswith("__main__"):
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", ()):
            first[module, name] = getattr(module, name)
assert len(first) > 400, len(first)
for (module, name), value in first.items():
    assert getattr(module, name) is value, (module, name)
for name, value in used.items():
    assert getattr(scoresde, name) is value, name

sys.modules["diffusers"] = None  # as if it were not installed
from scoresde.interop import *
for make in (DiffusersScheduler, lambda: DiffusersScheduler.from_config({{"_class_name": "DDIMScheduler"}})):
    try:
        make()
    except ImportError as error:
        assert "pip install 'scoresde[diffusers]'" in str(error), error
    else:
        raise AssertionError
""")


@pytest.mark.slow
def test_every_module_of_the_package_can_be_imported_first() -> None:
    """The order of imports follows from use, so no module may need that another one came before."""
    fresh("""
import importlib, pkgutil, sys, torch, scoresde
for name in [found.name for found in pkgutil.iter_modules(scoresde.__path__, "scoresde.")]:
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "scoresde"]:
        del sys.modules[loaded]
    if not name.endswith("__main__"):
        importlib.import_module(name)
""")


def test_modules_are_attributes_and_unknown_names_are_refused() -> None:
    assert isinstance(scoresde.likelihood, ModuleType) and isinstance(scoresde.core.sdes, ModuleType)
    with pytest.raises(AttributeError, match="no attribute 'slove'"):
        _ = scoresde.slove
