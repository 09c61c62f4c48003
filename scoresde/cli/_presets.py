"""``scoresde presets``."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

import typer

from .._registries import PRESETS
from ..errors import unknown
from ._complete import names
from ._run import command
from ._train import CLASSIFIER

if TYPE_CHECKING:
    from ..training import Preset

_COLUMNS = ("preset", "process", "predicts", "loss", "sampler", "paper")


@command
def presets(
    name: Annotated[
        str | None,
        typer.Argument(help="Print all settings of this preset.", autocompletion=names(PRESETS, [CLASSIFIER])),
    ] = None,
) -> None:
    """List the presets of `scoresde train`: published systems by name."""
    if name is not None and name not in (*PRESETS, CLASSIFIER):
        raise unknown("preset", name, (*PRESETS, CLASSIFIER))
    from .. import training
    from ..training.stream import described

    if name is None:
        rows = [list(_COLUMNS), *(_row(known, preset) for known, preset in PRESETS.items())]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
        for row in rows:
            typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        typer.echo(f"{CLASSIFIER}: of noisy data, for guidance; no score network")
        return
    preset = training.CLASSIFIER if name == CLASSIFIER else PRESETS[name]
    shown: dict[str, object] = {field.name: getattr(preset, field.name) for field in fields(preset)}
    if name != CLASSIFIER:
        shown["process"] = _process(PRESETS[name])
    for key, value in shown.items():
        typer.echo(f"{key}: {described(value) if callable(value) else value}")


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
