"""``scoresde check``."""

from __future__ import annotations

from typing import Annotated

import typer

from ..core.errors import InvalidArgumentError
from ..core.support.registries import shipped
from ._data import DIGITS, fits, named, prepare, range_of, read
from ._options import labelled, open_model, sample_seeds
from ._parameters import MODEL, Data, DataRange, Device, Key, Label, Labels, Levels, Process, names
from ._run import NUMERICAL, command


@command
def check(
    model_argument: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="The same as --model.", autocompletion=names(shipped()))
    ] = None,
    model: Annotated[str | None, MODEL] = None,
    data: Data = None,
    levels: Levels = None,
    data_range: DataRange = None,
    key: Key = None,
    sde: Process = None,
    label: Label = None,
    labels: Labels = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the noise.")] = 0,
    device: Device = "auto",
) -> None:
    """Check that a model denoises data as a score should.

    The report has the error of the model at several noise levels, beside that of a Gaussian denoiser, and names the
    convention that is likely wrong. A model of the digits is checked on the digits that were held out of its training;
    for other models give --data, on which the model should not have been trained. Exit code 3 means that the model
    fails the check.
    """
    network, where, process, _, event = open_model(named("model", model, model_argument), device, sde)
    if data is None and not network.config.data.startswith("scikit-learn digits"):
        raise InvalidArgumentError("`data`: only models of the digits come with data; give --data FILE.npz.")
    source = read(DIGITS if data is None else data, key, fits(event, data), labels)
    inputs = prepare(source, event, levels, range_of(network, data_range), within=False)
    clean = inputs.x(0, sample_seeds(seed, 0, len(source.names)))
    from ..scores.conventions import check_score

    score_fn, context_of = labelled(network, process, label, source)
    report = check_score(process, score_fn, clean.to(where), context=context_of(slice(None)), seed=seed)
    typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(NUMERICAL)
