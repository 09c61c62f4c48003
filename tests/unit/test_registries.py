"""What is chosen by name: one table of each kind, complete, and the same in code, command line and documentation."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import scoresde
from scoresde import inverse, losses, presets, zoo
from scoresde.cli import app
from scoresde.inverse.rules import RULES
from scoresde.inverse.samplers import SAMPLERS
from scoresde.losses import LOSSES
from scoresde.presets import PRESETS
from scoresde.zoo import PROCESSES
from tests.unit import strategies

ROOT = Path(scoresde.__file__).parents[1]
Registry = type(PROCESSES)
SDES = {name: cls for name, cls in strategies.PROCESSES.items() if name != "gaussian"}  # as the command line names them


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


def test_a_registry_is_a_dictionary_that_imports_late() -> None:
    table: Any = Registry({"pi": "math:pi", "missing": "no_such_module:thing"})
    assert list(table) == ["pi", "missing"] and len(table) == 2 and "missing" in table and "e" not in table
    assert table["pi"] == 3.141592653589793 and table.get("e") is None
    with pytest.raises(KeyError, match="e"):
        table["e"]
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        table["missing"]
    del table["missing"]
    table["mine"] = "math:e"  # an object, not a place
    assert {**table} == {"pi": table["pi"], "mine": "math:e"}


def test_every_row_leads_to_its_object() -> None:
    for table in (PROCESSES, LOSSES, PRESETS, RULES, SAMPLERS):
        objects = dict(table)
        assert len({id(value) for value in objects.values()}) == len(objects) > 1
        assert all(value is not None for value in objects.values())
    assert presets.DEFAULT in PRESETS
    assert {type(preset) for preset in PRESETS.values()} == {scoresde.training.Preset}


def test_processes() -> None:
    assert set(PROCESSES.values()) == concrete(scoresde.core.sdes, scoresde.AffineSDE) - {scoresde.GaussianSDE}
    assert {name: cls.__name__ for name, cls in PROCESSES.items()} == {name: name for name in PROCESSES}
    assert list(PROCESSES.values()) == list(SDES.values()) and zoo.PROCESSES is PROCESSES


def test_methods_for_inverse_problems() -> None:
    for table, base in ((RULES, inverse.Rule), (SAMPLERS, inverse.InverseSolver)):
        assert set(table.values()) == concrete(inverse, base)
        assert {name: cls.name for name, cls in table.items()} == {name: name for name in table}
    assert [method.name for method in inverse.methods()] == [*RULES, *SAMPLERS]


def test_losses() -> None:
    """Every function with the signature of a loss is registered, but that of a classifier."""
    functions = {name: getattr(losses, name) for name in losses.__all__ if inspect.isfunction(getattr(losses, name))}
    drawn = {name for name, f in functions.items() if list(inspect.signature(f).parameters)[2:3] == ["generator"]}
    assert drawn - {"noisy_cross_entropy"} == set(LOSSES)
    for name, loss in LOSSES.items():
        assert loss is functions[name] and "Example:" in str(loss.__doc__)
        assert inspect.signature(loss).parameters["generator"].default is None


def test_help_and_the_documentation_list_the_tables() -> None:
    text = " ".join(CliRunner().invoke(app, ["sample", "--help"]).output.split())
    for names in (SDES, [name for name in RULES if name != "exact"], SAMPLERS):
        assert ", ".join(names) in text
    for page, head, table in (
        ("inverse.md", "rule", RULES),
        ("inverse.md", "solver", SAMPLERS),
        ("training.md", "loss", LOSSES),
        ("systems.md", "preset", PRESETS),
    ):
        assert first_column(page, head) == list(table), page
    operators = (ROOT / "docs" / "inverse.md").read_text(encoding="utf-8").partition("The operators are")[2]
    shown = re.findall(r"`([^`]+)`", operators.partition("`.\n")[0] + "`")
    assert len(shown) > 5 and f"Operator of the measurement: {', '.join(shown)}." in text
