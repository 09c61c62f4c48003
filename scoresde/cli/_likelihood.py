"""``scoresde likelihood``."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..core.errors import InvalidArgumentError, SolveFailedError
from ..core.support.registries import ARRAY_CONTAINERS
from . import _parameters as parameters
from ._batches import Show, batches
from ._data import Inputs, fits, named, prepare, range_of, read
from ._options import labelled, open_model, parse_options, sample_seeds, source_of, span, threads, weights_of
from ._output import PICTURE, check_plot
from ._run import command
from ._sets import PATIENCE, Sharding, check_failures, check_output_of_data, leads, made_of, make_set
from ._table import PARQUET, TABLES, Row, Table, pyarrow_parquet
from ._tuned import check_named

if TYPE_CHECKING:
    from torch import Tensor

    from ..likelihood import Likelihood
    from ..sets import Batch, Generated

COLUMNS: dict[str, type] = {
    "index": int,
    "name": str,
    "log_prob": float,
    "std_error": float,
    "bits_per_dim": float,
    "prior_log_prob": float,
    "nfe": int,
    "status": str,
}
SUCCESS = "success"


@command
def likelihood(
    data_argument: parameters.DataArgument = None,
    data: parameters.Data = None,
    model: parameters.Model = "digits",
    sde: parameters.Process = None,
    label: parameters.Label = None,
    labels: parameters.Labels = None,
    divergence: Annotated[
        str,
        typer.Option(
            help="Trace of the Jacobian: hutchinson, exact (one vector-Jacobian product per dimension), hutch++, "
            "xtrace."
        ),
    ] = "hutchinson",
    probes: Annotated[
        int, typer.Option(min=1, help="Vector-Jacobian products per evaluation; two or more give an error estimate.")
    ] = 1,
    probe: Annotated[
        str, typer.Option(help="Distribution of the probes: rademacher, gaussian, orthogonal.")
    ] = "rademacher",
    method: Annotated[str, typer.Option(help="Solver: adams, or an adaptive pair such as rk45.")] = "adams",
    rtol: parameters.Rtol = 1e-5,
    atol: parameters.Atol = 1e-5,
    max_steps: parameters.MaxSteps = None,
    option: parameters.Options = None,
    levels: parameters.Levels = None,
    data_range: parameters.DataRange = None,
    key: parameters.Key = None,
    seed: parameters.Seed = 0,
    device: parameters.Device = "auto",
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE or FOLDER/",
            help=f"Table with one row per sample; its extension determines its format: {', '.join(TABLES)}. A set has "
            "a folder.",
        ),
    ] = "likelihood.csv",
    plot: Annotated[
        Path | None, typer.Option(help=f"Draw a histogram of the bits per dimension to this {PICTURE}.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            "--overwrite",
            help="Start again and replace existing files. Default: resume the same command.",
        ),
    ] = False,
    shard_size: parameters.ShardSize = None,
    container: parameters.Container = None,
    patience: parameters.Patience = PATIENCE,
    batch_size: parameters.BatchSize = 64,
    quiet: parameters.Quiet = False,
) -> None:
    """Compute log-likelihoods of data under a model, in nats and in bits per dimension.

    The output has one row per sample, with the settings beside it in FILE.json. An interrupted run keeps the batches
    that are done, and the same command resumes it. Samples that fail have a row with their status and no values, and
    the exit code is then 3.

    With --shard-size or --format the output is a set in a folder, which several processes make together, as
    `scoresde sample` makes it, with the columns as arrays.
    """
    began = time.perf_counter()
    source_name = named("data", data, data_argument)
    sharding = Sharding(shard_size, container, patience, max_failures=1.0)
    target, extension = check_output_of_data(out, sharding, TABLES, force=force, replaced=True)  # or continued
    if extension == PARQUET:
        pyarrow_parquet()
    check_named(method, "adams")
    options = parse_options(option or [])
    picture = check_plot(plot)
    network, where, process, title, event = open_model(model, device, sde)
    source = read(source_name, key, fits(event, source_name), labels)
    inputs = prepare(source, event, levels, range_of(network, data_range))
    if picture is not None and inputs.levels is None:
        raise InvalidArgumentError(
            "`plot` shows bits per dimension, which floating-point data have with --levels only."
        )
    score_fn, context_of = labelled(network, process, label, source)
    num = len(source.names)
    size = min(batch_size, num)
    trace = {"divergence": divergence, "probes": probes, "probe": probe}
    arguments: dict[str, Any] = trace | {"rtol": rtol, "atol": atol, "max_steps": max_steps}
    settings = {
        "scoresde": __version__,
        "weights": weights_of(network),
        "sde": repr(process),
        "label": label,
        **({} if labels is None else {"labels": labels}),
        "method": method,
        "options": options,
        **arguments,
        "data": source.digest,
        "levels": inputs.levels,
        "data_range": list(inputs.data_range),
        "seed": seed,
    }

    import torch

    def estimate(rows: Tensor, seeds: list[int], **more: Any) -> Likelihood:
        from ..likelihood import log_likelihood

        x = inputs.rows(rows, seeds).to(where)
        told: dict[str, Any] = {"method": method, "seeds": seeds, "context": context_of(rows), "throw": False}
        return log_likelihood(process, score_fn, x, **told, **more, **arguments, **options)

    if sharding.wanted:

        def solved(batch: Batch, show: Show) -> tuple[dict[str, Tensor], None]:
            seeds = sample_seeds(seed, int(batch.indices[0]), len(batch.indices))
            found = estimate(batch.indices % num, seeds, callback=batch.callback)
            columns = ("log_prob", "std_error", "prior_log_prob", "nfe", "status")
            values = {name: getattr(found, name) for name in columns}
            return {**values, "bits_per_dim": _bits(found, inputs, event)}, None

        sizes = {"first": 0, "count": num, "batch_size": batch_size}
        bar = None if quiet else f"likelihood ({title})"
        with threads(where, batch_size * math.prod(event)):
            made = make_set(
                target,
                {**settings, "container": container or ARRAY_CONTAINERS[0]},
                sizes,
                solved,
                where,
                sharding,
                title=bar,
            )
        _summarise(
            made, picture, event, model, f"{title}, {method}, {_estimate(divergence, probes)}", quiet or not leads()
        )
        if not quiet and leads():
            typer.echo(f"{made_of(made, out)}; {time.perf_counter() - began:.1f} s")
        check_failures(made, source.names, out)
        return

    def run(first: int, count: int, show: Show | None) -> list[Row]:
        found = estimate(torch.arange(first, first + count), sample_seeds(seed, first, count))
        return _rows(found, first, source.names, inputs, event)

    table_of = {"model": source_of(network, model), "num": num, "device": where.type, "batch_size": size}
    table = Table(target, COLUMNS, {**settings, **table_of}, num, size)
    with table.writing(force), threads(where, size * math.prod(event)):
        kept = len(table.rows)
        for rows in batches(run, num, size, f"likelihood ({title})", quiet, kept):
            table.append(rows)
    good = [row for row in table.rows if row["status"] == SUCCESS]
    if picture is not None and good:
        _draw_bits(good, picture, model, math.prod(event))
    if not quiet:
        what = f"{num} samples under {model}: {title}, {method}, {_estimate(divergence, probes)}"
        _report(what, table.rows, good, math.prod(event))
        before = f", {kept} of them were there" * (kept > 0)
        typer.echo(f"{out}: {num} rows{before}; {time.perf_counter() - began:.1f} s")
    if len(good) < num:
        raise _failed(table.rows, out)


def _rows(got: Likelihood, first: int, names: list[str], inputs: Inputs, event: tuple[int, ...]) -> list[Row]:
    """The rows of a batch, one per sample."""
    import torch

    from ..core.solution import Status

    values: list[Tensor] = [got.log_prob, got.std_error, _bits(got, inputs, event), got.prior_log_prob]
    rows = []
    for i, numbers in enumerate(torch.stack([v.cpu() for v in values], dim=1).tolist()):
        known = [None if math.isnan(number) else number for number in numbers]
        status = Status(int(got.status[i])).name.lower()
        cells = [first + i, names[first + i], *known, int(got.nfe[i]), status]
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return rows


def _bits(got: Likelihood, inputs: Inputs, event: tuple[int, ...]) -> Tensor:
    """Bits per dimension, NaN of data that have no grey levels."""
    import torch

    from ..likelihood import bits_per_dim

    if inputs.levels is None:
        return torch.full_like(got.log_prob, torch.nan)
    return bits_per_dim(got.log_prob, event, levels=inputs.levels, data_range=inputs.data_range, throw=False)


def _summarise(
    made: Generated, picture: Path | None, event: tuple[int, ...], model: str, how: str, quiet: bool
) -> None:
    """Print what came out of a set on average, and draw it."""
    from ..core.solution import Status
    from ..sets import Samples

    values = {name: value.tolist() for name, value in Samples(made.folder, check=False).all().items()}
    names = [name for name in COLUMNS if name in values]
    rows = [dict(zip(names, cells, strict=True)) for cells in zip(*(values[name] for name in names), strict=True)]
    rows = [{k: None if v != v else v for k, v in row.items()} for row in rows]
    good = [row for row in rows if row["status"] == Status.SUCCESS]
    if picture is not None and good:
        _draw_bits(good, picture, model, math.prod(event))
    if not quiet:
        _report(f"{len(rows)} samples under {model}: {how}", rows, good, math.prod(event))


def _draw_bits(rows: list[Row], picture: Path, model: str, dimensions: int) -> None:
    """Write a histogram of the bits per dimension, with error bars where every row has a standard error."""
    import torch

    from ..plot import bits_histogram

    bits = torch.tensor([row["bits_per_dim"] for row in rows], dtype=torch.float64)
    nats = [row["std_error"] for row in rows]
    errors = None if None in nats else torch.tensor(nats, dtype=torch.float64) / (dimensions * math.log(2))
    bits_histogram(bits, picture, errors=errors, title=model)


def _estimate(divergence: str, probes: int) -> str:
    """Describe the divergence estimate in a few words.

    Example:
        >>> _estimate("hutchinson", 2)
        'hutchinson (2 probes)'
    """
    return divergence if divergence == "exact" else f"{divergence} ({probes} probe{'s' * (probes > 1)})"


def _report(what: str, rows: list[Row], good: list[Row], size: int) -> None:
    """Print what was done, what came out on average, and what it took."""
    nfe = [row["nfe"] for row in rows]
    typer.echo(f"{what}, {span(nfe)} evaluations per sample")
    for text in _summary(good, size):
        typer.echo(text)
    typer.echo(f"failures: {len(rows) - len(good)}; evaluations: {sum(nfe)}")


def _summary(rows: list[Row], size: int) -> list[str]:
    """Means, with the standard error over the set and that of the trace estimate."""
    if not rows:
        return []
    mean, over = _mean([row["log_prob"] for row in rows])
    errors = [row["std_error"] for row in rows]
    trace = None if None in errors else math.sqrt(sum(error * error for error in errors)) / len(rows)
    lines = [_line("log-likelihood", "nats", mean, over, trace)]
    if rows[0]["bits_per_dim"] is not None:
        mean, over = _mean([row["bits_per_dim"] for row in rows])
        unit = size * math.log(2)
        lines.append(_line("bits", "per dimension", mean, over, None if trace is None else trace / unit))
    return lines


def _mean(values: list[float]) -> tuple[float, float | None]:
    """The mean, and its standard error, which one value does not have."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1) / count)


def _line(name: str, unit: str, mean: float, over: float | None, trace: float | None) -> str:
    """A mean in words.

    Example:
        >>> _line("bits", "per dimension", 3.25, 0.012, None)
        'bits: mean 3.2500 per dimension; standard error 0.012 over the samples, unknown of the trace estimate'
    """
    first, second = ("unknown" if error is None else f"{error:.2g}" for error in (over, trace))
    shown = f"{mean:.4f}" if abs(mean) < 1000 else f"{mean:.2f}"
    return f"{name}: mean {shown} {unit}; standard error {first} over the samples, {second} of the trace estimate"


def _failed(rows: list[Row], out: object) -> SolveFailedError:
    bad = [row for row in rows if row["status"] != SUCCESS]
    named = ", ".join(f"{row['name']} ({row['status']})" for row in bad[:5])
    return SolveFailedError(
        f"{len(bad)} of {len(rows)} samples failed: {named}{', ...' if len(bad) > 5 else ''}. Their rows in "
        f"{str(out)!r} have a status and no values."
    )
