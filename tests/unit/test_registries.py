"""What is chosen by name: one table of each kind, complete, and the same in code, command line and documentation."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import scoresde
from scoresde import _registries, inverse, losses, presets, zoo
from scoresde._registries import DEFAULT_PRESET, LOSSES, PRESETS, PROCESSES, RULES, SAMPLERS, SDES, Registry
from scoresde.cli import app
from scoresde.cli._inverse import _NEEDY
from scoresde.cli._operators import EXAMPLES, OPERATORS

ROOT = Path(scoresde.__file__).parents[1]
TABLES = {name: table for name, table in vars(_registries).items() if isinstance(table, Registry)}


def concrete(module: Any, base: type) -> set[type]:
    """The public classes of a module that derive from a class and are not abstract."""
    found = {getattr(module, name) for name in module.__all__}
    return {c for c in found if inspect.isclass(c) and issubclass(c, base) and not inspect.isabstract(c)} - {base}


def first_column(page: str, head: str) -> list[str]:
    """The names in the first column of a page's table."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    _, found, body = text.partition(f"| {head} |")
    assert found, f"{page} has no table of {head}s"
    rows = body.partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


# ---- the table -------------------------------------------------------------------------------------------------------


def test_a_registry_is_a_dictionary_that_imports_late(monkeypatch: pytest.MonkeyPatch) -> None:
    table: Registry[Any] = Registry({"pi": "math:pi", "missing": "no_such_module:thing"})
    assert list(table) == ["pi", "missing"] and len(table) == 2 and "missing" in table and "e" not in table
    assert table["pi"] == 3.141592653589793 and table.get("e") is None
    with pytest.raises(KeyError, match="e"):
        table["e"]
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        table["missing"]
    del table["missing"]
    table["mine"] = "math:e"  # an object, not a place
    assert {**table} == {"pi": table["pi"], "mine": "math:e"} and repr(table) == "Registry(pi, mine)"
    with monkeypatch.context() as patch:
        patch.setitem(table, "pi", 3)
        assert table["pi"] == 3
    assert table["pi"] > 3


def test_the_tables_import_nothing_heavy() -> None:
    code = """
import sys
from scoresde._registries import *
from scoresde import _registries
for table in vars(_registries).values():
    if isinstance(table, _registries.Registry):
        assert list(table) and "nothing" not in table and repr(table)
heavy = sorted({"torch", "numpy", "scipy"} & set(sys.modules))
sys.exit(f"imported: {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", TABLES)
def test_every_row_leads_to_its_object(name: str) -> None:
    objects = dict(TABLES[name])
    assert len({id(value) for value in objects.values()}) == len(objects) > 1
    assert all(value is not None for value in objects.values())


# ---- complete, and one table everywhere ------------------------------------------------------------------------------


def test_the_rooms_export_the_same_tables() -> None:
    assert zoo.PROCESSES is PROCESSES and losses.LOSSES is LOSSES and presets.PRESETS is PRESETS
    assert inverse.rules.RULES is RULES and inverse.samplers.SAMPLERS is SAMPLERS
    assert presets.DEFAULT == DEFAULT_PRESET and DEFAULT_PRESET in PRESETS


def test_processes() -> None:
    assert set(SDES.values()) == concrete(scoresde.sdes, scoresde.AffineSDE) - {scoresde.GaussianSDE}
    assert {name: cls.__name__ for name, cls in PROCESSES.items()} == {name: name for name in PROCESSES}
    assert list(PROCESSES.values()) == list(SDES.values())


def test_methods_for_inverse_problems() -> None:
    for table, base in ((RULES, inverse.Rule), (SAMPLERS, inverse.InverseSolver)):
        assert set(table.values()) == concrete(inverse, base)
        assert {name: cls.name for name, cls in table.items()} == {name: name for name in table}
    assert [method.name for method in inverse.methods()] == [*RULES, *SAMPLERS]
    assert set(_NEEDY) <= set(RULES)


def test_losses() -> None:
    """Every function with the signature of a loss is registered, but that of a classifier."""
    functions = {name: getattr(losses, name) for name in losses.__all__ if inspect.isfunction(getattr(losses, name))}
    drawn = {name for name, f in functions.items() if list(inspect.signature(f).parameters)[2:3] == ["generator"]}
    assert drawn - {"noisy_cross_entropy"} == set(LOSSES)
    for name, loss in LOSSES.items():
        assert loss is functions[name] and "Example:" in str(loss.__doc__)
        assert inspect.signature(loss).parameters["generator"].default is None


def test_presets() -> None:
    assert {type(preset) for preset in PRESETS.values()} == {scoresde.training.Preset}


# ---- the command line ------------------------------------------------------------------------------------------------


def test_help_lists_the_tables() -> None:
    text = " ".join(CliRunner().invoke(app, ["sample", "--help"]).output.split())
    for names in (SDES, [name for name in RULES if name not in _NEEDY], SAMPLERS):
        assert ", ".join(names) in text
    assert EXAMPLES in text and [example.partition(":")[0] for example in EXAMPLES.split(", ")] == list(OPERATORS)


# ---- the documentation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "head", "table"),
    [
        ("inverse.md", "rule", RULES),
        ("inverse.md", "solver", SAMPLERS),
        ("training.md", "loss", LOSSES),
        ("systems.md", "preset", PRESETS),
    ],
)
def test_tables_of_the_documentation_list_all(page: str, head: str, table: Registry[Any]) -> None:
    assert first_column(page, head) == list(table)


def test_the_documentation_shows_the_operators_of_the_command_line() -> None:
    text = (ROOT / "docs" / "inverse.md").read_text(encoding="utf-8")
    sentence = text.partition("The operators are")[2].partition("`.\n")[0] + "`"
    assert re.findall(r"`([^`]+)`", sentence) == EXAMPLES.split(", ")
