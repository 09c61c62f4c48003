"""``scoresde certify``."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from . import _parameters as parameters
from ._options import label_of, open_model, parse_options, plan_of, threads
from ._output import PICTURE, check_output, check_plot
from ._run import command

RECORD = ".json"
METHOD, BUDGET = "auto", 25  # and its evaluations


@command
def certify(
    model: parameters.Model = "mnist",
    sde: parameters.Process = None,
    method: Annotated[
        str, typer.Option(help="Solver: a name of `scoresde methods`, auto, or a FILE.json of what was tuned.")
    ] = METHOD,
    steps: parameters.Steps = None,
    target: Annotated[
        float | None,
        typer.Option(
            help="Find the fewest steps (or, of an adaptive method, the largest tolerance) whose bound is at most this."
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option(help="Probability with which the error of a sample is within its bound.")
    ] = 0.95,
    confidence_in_pilot: Annotated[
        float | None,
        typer.Option(
            metavar="SURE",
            help="If given, this pilot itself covers that share of all samples, with the probability SURE over pilots.",
        ),
    ] = None,
    pilot: Annotated[int, typer.Option(min=2, help="Number of draws that the errors are measured on.")] = 256,
    indicator: Annotated[
        str,
        typer.Option(
            help="What the bound of a sample is made of: auto, constant, embedded, half, embedded_half.",
            autocompletion=parameters.names(("auto", "constant", "embedded", "half", "embedded_half")),
        ),
    ] = "auto",
    norm: Annotated[
        str,
        typer.Option(
            help="Of the error: rms (over all elements), max (the largest), pixel (each element by itself).",
            autocompletion=parameters.names(("rms", "max", "pixel")),
        ),
    ] = "rms",
    label: parameters.Label = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pilot.")] = 0,
    device: parameters.Device = "auto",
    out: Annotated[
        Path | None, typer.Option(metavar=f"FILE{RECORD}", help="Also write the certificate, for use from Python.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help=f"Draw the errors, and their ratios to the bounds, to this {PICTURE}.")
    ] = None,
    rtol: parameters.Rtol = None,
    atol: parameters.Atol = None,
    grid: parameters.Grid = None,
    option: parameters.Options = None,
    batch_size: parameters.BatchSize = 64,
    force: parameters.Force = False,
    quiet: parameters.Quiet = False,
) -> None:
    """Measure how far samples are from the exact solution for their network, and say what that guarantees.

    A pilot of samples is solved by the method and by an accurate reference. The bound holds for new samples with the
    probability that is stated, whatever the network. It is about the solver: it says nothing of the distance to the
    data.
    """
    began = time.perf_counter()
    kept = None if out is None else check_output(out, (RECORD,), force=force)[0]
    picture = check_plot(plot)
    if method == METHOD and target is None and steps is None and rtol is None and atol is None:
        steps = BUDGET
    network, where, process, title, event = open_model(model, device, sde)
    chosen = plan_of(method, steps, grid, parse_options(option or []))
    told: dict[str, Any] = {name: value for name, value in chosen.told.items() if value is not None}
    if not quiet:
        typer.echo(f"Measuring {pilot} draws of {model} ({title}) ...", err=True)
    from ..trust import certify as certified

    with threads(where, batch_size * math.prod(event)):
        certificate = certified(
            process,
            network.score(process, **label_of(network, label)),
            **told,
            rtol=rtol,
            atol=atol,
            target=target,
            confidence=confidence,
            confidence_in_pilot=confidence_in_pilot,
            pilot=pilot,
            indicator=indicator,
            norm=norm,
            shape=(pilot, *event),
            seed=seed,
            batch_size=batch_size,
            device=where,
        )
    typer.echo(certificate.statement())
    if picture is not None:
        certificate.plot(picture, title=f"{model}: {certificate.method}, {certificate.evaluations:g} evaluations")
    if kept is not None:
        certificate.save(kept)
        if not quiet:
            typer.echo(f"{out}: {time.perf_counter() - began:.1f} s")
