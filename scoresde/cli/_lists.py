"""``scoresde methods`` and ``scoresde presets``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import typer

from ..core.errors import check_choice
from ..core.support.registries import PRESETS
from ._run import argument, command, flag
from ._train import CLASSIFIER

if TYPE_CHECKING:
    from ..training import Preset

_METHOD_COLUMNS = {
    "name": "method",
    "kind": "kind",
    "evaluations": "evaluations",
    "ode_order": "ODE",
    "weak_order": "weak",
    "strong_order": "strong",
    "adaptive": "adaptive",
    "states": "states",
    "reference": "reference",
}
_PRESET_COLUMNS = ("preset", "process", "predicts", "loss", "sampler", "paper")


@dataclass(frozen=True, kw_only=True)
class MethodsOptions:
    """The options of ``scoresde methods``."""

    as_json: bool = flag(False, "Print JSON, with the options of each method.", "--json")


@command
def methods(options: MethodsOptions) -> None:
    """List the methods of solve.

    The columns are the evaluations of the score function per step, the orders of convergence (as an ODE solver, weak
    and strong), whether the method chooses its own steps, its peak memory in units of the state, and its reference.
    """
    from ..solvers import methods as registry

    records = [_record(method) for method in registry()]
    if options.as_json:
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    _print(_METHOD_COLUMNS.values(), [[_cell(record[key]) for key in _METHOD_COLUMNS] for record in records])


@dataclass(frozen=True, kw_only=True)
class PresetsOptions:
    """The options of ``scoresde presets``."""

    name: str | None = argument(None, "Print all settings of this preset.", names=(*PRESETS, CLASSIFIER))


@command
def presets(options: PresetsOptions) -> None:
    """List the presets of `scoresde train`: published systems by name."""
    name = options.name
    if name is None:
        _print(_PRESET_COLUMNS, [_row(known, preset) for known, preset in PRESETS.items()])
        typer.echo(f"{CLASSIFIER}: of noisy data, for guidance; no score network")
        return
    check_choice("preset", name, (*PRESETS, CLASSIFIER))
    from .. import training
    from ..training.stream import described

    preset = training.CLASSIFIER if name == CLASSIFIER else PRESETS[name]
    shown: dict[str, object] = {field.name: getattr(preset, field.name) for field in fields(preset)}
    if name != CLASSIFIER:
        shown["process"] = _process(PRESETS[name])
    for key, value in shown.items():
        typer.echo(f"{key}: {described(value) if callable(value) else value}")


def _print(head: Iterable[str], rows: list[list[str]]) -> None:
    """Print a table, each column as wide as its longest cell."""
    lines = [list(head), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _record(method: Any) -> dict[str, object]:
    """A method as plain values.

    Example:
        >>> _record(scoresde.methods()[0])["options"]["order"]
        'cp'
    """
    record = method._asdict()
    cls = record.pop("solver")
    plain = (bool, int, float, str, type(None))
    options = {key: value if isinstance(value, plain) else repr(value) for key, value in vars(cls()).items()}
    return {**record, "solver": cls.__name__, "options": options}


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _row(name: str, preset: Preset) -> list[str]:
    """Cells of the table.

    Example:
        >>> _row("ddpm", scoresde.presets.PRESETS["ddpm"])[3:5]
        ['ddpm_simple', 'ancestral, 1000 levels']
    """
    from ..training.stream import described

    sampler, loss = preset.sampler, described(preset.loss)
    taken = f"{sampler.levels} levels" if sampler.levels else f"{sampler.steps} steps"
    process = _process(preset).partition("(")[0]
    kind = loss["name"] if isinstance(loss, dict) else str(loss)
    return [name, process, preset.prediction, kind, f"{sampler.method}, {taken}", preset.paper]


def _process(preset: Preset) -> str:
    """The process or chain, as text."""
    return "every process" if preset.process is None else repr(preset.process())
