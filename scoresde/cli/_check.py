"""``scoresde check`` and ``scoresde verify``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import typer

from ..core.errors import CorruptCheckpointError, InvalidArgumentError
from ..core.support.registries import shipped
from ._data import DIGITS, ModelDataOptions, named
from ._parameters import argument, flag
from ._run import NUMERICAL, QuietOptions, command

_NAMED = 10  # shards that a message names


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
