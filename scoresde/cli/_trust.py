"""How far results can be trusted: ``scoresde certify``, ``diagnose``, ``check`` and ``verify``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from ..core.errors import CorruptCheckpointError, InvalidArgumentError
from ..core.support.registries import shipped
from ._data import DIGITS, ModelDataOptions, NamedDataOptions, named
from ._options import AUTO, RECORD, ClassOptions, SolveOptions, label_of
from ._output import PICTURE, check_output, check_plot
from ._run import NUMERICAL, QuietOptions, argument, command, flag

_NAMED = 10  # shards that a message names


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
    opened = options.opened()
    told = options.told(budget=options.target is None)
    kept = None if options.out is None else check_output(options.out, (RECORD,), force=options.force)[0]
    picture = check_plot(options.plot)
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
        None, "Data that the model was not trained on, in any form of --data; they show overfitting.", metavar="DATA"
    )
    pilot: int = flag(256, "Number of samples of each kind.", min=32)
    confidence: float = flag(0.95, "Probability that a sound sampler is found to have no faults, about.")
    half: bool = flag(False, "Also compare half precision (bfloat16) with float32.", "--half")
    plot: Path | None = flag(None, f"Draw how much each cause explains as bars to this {PICTURE}.")


@command
def diagnose(options: DiagnoseOptions) -> None:
    """Say what limits the samples of a model: the steps, the prior, t_min, the network, overfitting, ...

    DATA is what the model was trained on. For each cause a repair is tried, and what it changes is measured. A model
    with labels draws samples of no class, unless --label or --labels names one.
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
            **told,
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


@dataclass(frozen=True, kw_only=True)
class CheckOptions(ModelDataOptions):
    """The options of ``scoresde check``."""

    model_argument: str | None = argument(None, "The same as --model.", metavar="MODEL", names=shipped())
    model: str | None = None  # type: ignore[assignment]
    seed: int = flag(0, "Seed of the noise.", min=0, max=2**63 - 1)


@command
def check(options: CheckOptions) -> None:
    """Check that a model denoises data as a score should.

    The report has the error of the model at several noise levels, beside that of a Gaussian denoiser, and names the
    convention that is likely wrong. A model of the digits is checked on the digits that were held out of its training;
    for other models give --data, on which the model should not have been trained. Exit code 3 means that the model
    fails the check.
    """
    opened = replace(options, model=named("model", options.model, options.model_argument)).opened()
    if options.data is None and not opened.of_digits:
        raise InvalidArgumentError("`data`: only models of the digits come with data; give --data FILE.npz.")
    rows = options.read(opened, options.data or DIGITS, within=False)
    clean = rows.x(options.seed).to(opened.device)
    from ..scores.conventions import check_score

    report = check_score(opened.process, rows.score_fn, clean, context=rows.context(), seed=options.seed)
    typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(NUMERICAL)


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(QuietOptions):
    """The options of ``scoresde verify``."""

    folder: Path = argument(..., "Folder of a set, as `scoresde sample --shard-size` makes it.")


@command
def verify(options: VerifyOptions) -> None:
    """Read all of a set of samples, and say whether everything is there, as it was made.

    The exit code is 0 if it is, and 5 if a shard is missing or damaged; the command that made the set makes it again.
    """
    from ..sets import verify as look

    found = look(options.folder)
    if found.missing:
        named = ", ".join(map(str, found.missing[:_NAMED])) + ", ..." * (len(found.missing) > _NAMED)
        raise CorruptCheckpointError(
            f"{len(found.missing)} shards of {str(options.folder)!r} are missing or damaged: {named}. Run "
            f"the command again that made the set."
        )
    failed = f"; {len(found.failures)} samples failed" if found.failures else ""
    options.say(f"{options.folder}: all {found.count} samples are there{failed}")
