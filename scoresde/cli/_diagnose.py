"""``scoresde diagnose``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _parameters as parameters
from ._data import DIGITS, fits, named, prepare, range_of, read
from ._options import labelled, open_model, parse_options, plan_of, sample_seeds, threads
from ._output import PICTURE, check_plot
from ._run import command

if TYPE_CHECKING:
    from torch import Tensor

METHOD, BUDGET = "auto", 25  # and its evaluations


@command
def diagnose(
    data_argument: parameters.DataArgument = None,
    data: parameters.Data = None,
    held_out: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Data that the model was not trained on, in any form of --data; tells overfitting."
        ),
    ] = None,
    model: parameters.Model = "digits",
    sde: parameters.Process = None,
    label: parameters.Label = None,
    labels: parameters.Labels = None,
    method: Annotated[
        str, typer.Option(help="Solver: a name of `scoresde methods`, auto, or a FILE.json of what was tuned.")
    ] = METHOD,
    steps: parameters.Steps = None,
    pilot: Annotated[int, typer.Option(min=32, help="Number of samples of each kind.")] = 256,
    confidence: Annotated[
        float, typer.Option(help="Probability that a sound sampler is found to have no faults, about.")
    ] = 0.95,
    half: Annotated[bool, typer.Option("--half", help="Also compare half precision (bfloat16) with float32.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help=f"Draw how much each cause explains as bars to this {PICTURE}.")
    ] = None,
    rtol: parameters.Rtol = None,
    atol: parameters.Atol = None,
    grid: parameters.Grid = None,
    option: parameters.Options = None,
    levels: parameters.Levels = None,
    data_range: parameters.DataRange = None,
    key: parameters.Key = None,
    seed: parameters.Seed = 0,
    device: parameters.Device = "auto",
    batch_size: parameters.BatchSize = 64,
    quiet: parameters.Quiet = False,
) -> None:
    """Say what limits the samples of a model: the steps, the prior, t_min, the network, overfitting, ...

    DATA is what the model was trained on. For each cause a repair is tried, and what it changes is measured. A model
    with labels is asked for samples of no class, unless --label or --labels says of which.
    """
    began = time.perf_counter()
    picture = check_plot(plot)
    network, where, process, title, event = open_model(model, device, sde)
    if data is None and data_argument is None and network.config.data.startswith("scikit-learn digits"):
        data = DIGITS
    source = named("data", data, data_argument)
    if method == METHOD and steps is None and rtol is None and atol is None:
        steps = BUDGET
    chosen = plan_of(method, steps, grid, parse_options(option or []))
    told: dict[str, Any] = {name: value for name, value in chosen.told.items() if value is not None}
    told |= {name: value for name, value in {"rtol": rtol, "atol": atol}.items() if value is not None}

    def opened(source: str) -> tuple[Callable[..., Tensor], tuple[Tensor, dict[str, Any]]]:
        """The score function, data as the network takes them, and their classes."""
        found = read(source, key, fits(event, source), labels)
        inputs = prepare(found, event, levels, range_of(network, data_range), within=False)
        score_fn, context_of = labelled(network, process, label, found)
        return score_fn, (inputs.x(0, sample_seeds(seed, 0, len(found.names))), context_of(slice(None)))

    score_fn, (rows, context) = opened(source)
    others = None if held_out is None else opened(held_out)[1]
    if not quiet:
        typer.echo(f"Diagnosing {model} ({title}) with {len(rows)} data ...", err=True)
    import torch

    from ..trust import diagnose as diagnosed

    with threads(where, batch_size * math.prod(event)):
        found = diagnosed(
            process,
            score_fn,
            rows,
            **{"steps": None, **told},
            held_out=others,
            context=context,
            pilot=pilot,
            confidence=confidence,
            half_precision=torch.bfloat16 if half else None,
            seed=seed,
            batch_size=batch_size,
            device=where,
        )
    typer.echo(found.table())
    if picture is not None:
        found.plot(picture)
    if not quiet:
        typer.echo(f"{found.evaluations} evaluations of single samples, {time.perf_counter() - began:.1f} s")
