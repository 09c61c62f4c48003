"""``scoresde certify`` and ``scoresde diagnose``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ._data import DIGITS, ModelDataOptions, NamedDataOptions
from ._options import AUTO, RECORD, ClassOptions, SolveOptions, label_of
from ._output import PICTURE, check_output, check_plot
from ._parameters import flag
from ._run import command


@dataclass(frozen=True, kw_only=True)
class TrustOptions(SolveOptions):
    """A solve that is measured."""

    method: str = flag(AUTO, "Solver: a name of `scoresde methods`, auto, or a FILE.json of what was tuned.")

    def told(self, *, budget: bool) -> dict[str, Any]:
        """The solve, as arguments of `scoresde.solve`."""
        plan = self.plan(self.method, budget=budget and self.method == AUTO)
        told = {**plan.told, "rtol": self.rtol, "atol": self.atol}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class CertifyOptions(ClassOptions, TrustOptions):
    """The options of ``scoresde certify``."""

    model: str = "mnist"
    target: float | None = flag(
        None,
        "Find the fewest steps (or, of an adaptive method, the largest tolerance) whose bound is at most this.",
    )
    confidence: float = flag(0.95, "Probability with which the error of a sample is within its bound.")
    confidence_in_pilot: float | None = flag(
        None,
        "If given, this pilot itself covers that share of all samples, with the probability SURE over pilots.",
        metavar="SURE",
    )
    pilot: int = flag(256, "Number of draws that the errors are measured on.", min=2)
    indicator: str = flag(
        "auto",
        "What the bound of a sample is made of: auto, constant, embedded, half, embedded_half.",
        names=("auto", "constant", "embedded", "half", "embedded_half"),
    )
    norm: str = flag(
        "rms",
        "Of the error: rms (over all elements), max (the largest), pixel (each element by itself).",
        names=("rms", "max", "pixel"),
    )
    seed: int = flag(0, "Seed of the pilot.", min=0)
    out: Path | None = flag(None, "Also write the certificate, for use from Python.", metavar=f"FILE{RECORD}")
    plot: Path | None = flag(None, f"Draw the errors, and their ratios to the bounds, to this {PICTURE}.")
    force: bool = flag(False, "Replace an existing output.", "--force")


@command
def certify(options: CertifyOptions) -> None:
    """Measure how far samples are from the exact solution for their network, and say what that guarantees.

    A pilot of samples is solved by the method and by an accurate reference. The bound holds for new samples with the
    probability that is stated, whatever the network. It is about the solver: it says nothing of the distance to the
    data.
    """
    kept = None if options.out is None else check_output(options.out, (RECORD,), force=options.force)[0]
    picture = check_plot(options.plot)
    opened = options.opened()
    told = options.told(budget=options.target is None)
    options.say(f"Measuring {options.pilot} draws of {options.model} ({opened.title}) ...", err=True)
    from ..trust import certify as certified

    with opened.threads(options.batch_size):
        certificate = certified(
            opened.process,
            opened.network.score(opened.process, **label_of(opened.network, options.label)),
            **told,
            target=options.target,
            confidence=options.confidence,
            confidence_in_pilot=options.confidence_in_pilot,
            pilot=options.pilot,
            indicator=options.indicator,
            norm=options.norm,
            shape=(options.pilot, *opened.event),
            seed=options.seed,
            batch_size=options.batch_size,
            device=opened.device,
        )
    typer.echo(certificate.statement())
    if picture is not None:
        title = f"{options.model}: {certificate.method}, {certificate.evaluations:g} evaluations"
        certificate.plot(picture, title=title)
    if kept is not None:
        certificate.save(kept)
        options.say(f"{options.out}: {options.took}")


@dataclass(frozen=True, kw_only=True)
class DiagnoseOptions(NamedDataOptions, ModelDataOptions, TrustOptions):
    """The options of ``scoresde diagnose``."""

    held_out: str | None = flag(
        None, "Data that the model was not trained on, in any form of --data; tells overfitting.", metavar="DATA"
    )
    pilot: int = flag(256, "Number of samples of each kind.", min=32)
    confidence: float = flag(0.95, "Probability that a sound sampler is found to have no faults, about.")
    half: bool = flag(False, "Also compare half precision (bfloat16) with float32.", "--half")
    plot: Path | None = flag(None, f"Draw how much each cause explains as bars to this {PICTURE}.")


@command
def diagnose(options: DiagnoseOptions) -> None:
    """Say what limits the samples of a model: the steps, the prior, t_min, the network, overfitting, ...

    DATA is what the model was trained on. For each cause a repair is tried, and what it changes is measured. A model
    with labels is asked for samples of no class, unless --label or --labels says of which.
    """
    picture = check_plot(options.plot)
    opened = options.opened()
    given = options.data is not None or options.data_argument is not None
    source = DIGITS if not given and opened.of_digits else options.source
    told = options.told(budget=True)
    rows = options.read(opened, source, within=False)
    others = None
    if options.held_out is not None:
        unseen = options.read(opened, options.held_out, within=False)
        others = (unseen.x(options.seed), unseen.context())
    options.say(f"Diagnosing {options.model} ({opened.title}) with {len(rows.data.names)} data ...", err=True)
    import torch

    from ..trust import diagnose as diagnosed

    with opened.threads(options.batch_size):
        found = diagnosed(
            opened.process,
            rows.score_fn,
            rows.x(options.seed),
            **{"steps": None, **told},
            held_out=others,
            context=rows.context(),
            pilot=options.pilot,
            confidence=options.confidence,
            half_precision=torch.bfloat16 if options.half else None,
            seed=options.seed,
            batch_size=options.batch_size,
            device=opened.device,
        )
    typer.echo(found.table())
    if picture is not None:
        found.plot(picture)
    options.say(f"{found.evaluations} evaluations of single samples, {options.took}")
