"""``scoresde likelihood``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidArgumentError, SolveFailedError
from ._data import Inputs, ModelDataOptions, NamedDataOptions, Rows
from ._options import Opened, check_named, sample_seeds, source_of, span, weights_of
from ._output import PICTURE, check_plot
from ._run import command, flag
from ._sets import ManyOptions, Show, batches, check_failures
from ._table import PARQUET, TABLES, Row, Table, pyarrow_parquet

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


@dataclass(frozen=True, kw_only=True)
class LikelihoodOptions(NamedDataOptions, ModelDataOptions, ManyOptions):
    """The options of ``scoresde likelihood``."""

    divergence: str = flag(
        "hutchinson",
        "Trace of the Jacobian: hutchinson, exact (one vector-Jacobian product per dimension), hutch++, xtrace.",
    )
    probes: int = flag(1, "Vector-Jacobian products per evaluation; two or more give an error estimate.", min=1)
    probe: str = flag("rademacher", "Distribution of the probes: rademacher, gaussian, orthogonal.")
    method: str = flag("adams", "Solver: adams, or an adaptive pair such as rk45.")
    rtol: float | None = 1e-5
    atol: float | None = 1e-5
    out: str = flag(
        "likelihood.csv",
        f"Table with one row per sample; its extension determines its format: {', '.join(TABLES)}. A set has a folder.",
        metavar="FILE or FOLDER/",
    )
    plot: Path | None = flag(None, f"Draw a histogram of the bits per dimension to this {PICTURE}.")
    force: bool = flag(
        False,
        "Start again and replace existing files. Default: resume the same command.",
        "--force",
        "--overwrite",
    )


@command
def likelihood(options: LikelihoodOptions) -> None:
    """Compute log-likelihoods of data under a model, in nats and in bits per dimension.

    The output has one row per sample, with the settings beside it in FILE.json. An interrupted run keeps the batches
    that are done, and the same command resumes it. Samples that fail have a row with their status and no values, and
    the exit code is then 3.

    With --shard-size or --format the output is a set in a folder, which several processes make together, as
    `scoresde sample` makes it, with the columns as arrays.
    """
    source = options.source
    check_named(options.method)
    opened = options.opened()
    target, extension = options.target(TABLES, force=options.force, replaced=True)  # or continued
    if extension == PARQUET:
        pyarrow_parquet()
    picture = check_plot(options.plot)
    rows = options.read(opened, source)
    if picture is not None and rows.inputs.levels is None:
        raise InvalidArgumentError(
            "`plot` shows bits per dimension, which floating-point data have with --levels only."
        )
    estimates = _Estimates(options, opened, rows, picture)
    if options.in_set:
        estimates.into_set()
    else:
        estimates.into_table(target)


@dataclass(frozen=True)
class _Estimates:
    """Log-likelihoods of data, batch by batch."""

    options: LikelihoodOptions
    opened: Opened
    rows: Rows
    picture: Path | None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `log_likelihood`."""
        options = self.options
        return {"divergence": options.divergence, "probes": options.probes, "probe": options.probe, **options.accuracy}

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the results."""
        options = self.options
        told = {"method": options.method, "options": options.method_options, **self.arguments, "seed": options.seed}
        return {**options.settings(self.rows, self.opened, **told), "weights": weights_of(self.opened.network)}

    def of(self, rows: Tensor, first: int, **more: Any) -> Likelihood:
        """Those of some of the data, the first of which is the sample ``first``."""
        from ..likelihood import log_likelihood

        options = self.options
        seeds = sample_seeds(options.seed, first, len(rows))
        return log_likelihood(
            self.opened.process,
            self.rows.score_fn,
            self.rows.inputs.rows(rows, seeds).to(self.opened.device),
            method=options.method,
            seeds=seeds,
            context=self.rows.context(rows),
            throw=False,
            **more,
            **self.arguments,
            **options.method_options,
        )

    def into_set(self) -> None:
        """Write them into a set."""
        options, names, event = self.options, self.rows.data.names, self.opened.event

        def solved(batch: Batch, show: Show) -> tuple[dict[str, Tensor], None]:
            found = self.of(batch.indices % len(names), int(batch.indices[0]), callback=batch.callback)
            columns = ("log_prob", "std_error", "prior_log_prob", "nfe", "status")
            values = {name: getattr(found, name) for name in columns}
            return {**values, "bits_per_dim": _bits(found, self.rows.inputs, event)}, None

        made = options.make(self.settings, solved, self.opened, len(names), title=f"likelihood ({self.opened.title})")
        rows = _rows_of(made)
        self.report(rows, [row for row in rows if row["status"] == 0])
        options.say(options.made(made))
        check_failures(made, names, options.out)

    def into_table(self, target: Path) -> None:
        """Write them into a table."""
        import torch

        options, opened, names = self.options, self.opened, self.rows.data.names
        num, size = len(names), min(options.batch_size, len(names))

        def run(first: int, count: int, show: Show | None) -> list[Row]:
            found = self.of(torch.arange(first, first + count), first)
            return _rows(found, first, names, self.rows.inputs, opened.event)

        source = source_of(opened.network, options.model)
        told = {"model": source, "num": num, "device": opened.device.type, "batch_size": size}
        table = Table(target, COLUMNS, {**self.settings, **told}, num, size)
        with table.writing(options.force), opened.threads(size):
            kept = len(table.rows)
            for rows in batches(run, num, size, f"likelihood ({opened.title})", options.quiet, kept):
                table.append(rows)
        good = [row for row in table.rows if row["status"] == SUCCESS]
        self.report(table.rows, good)
        before = f", {kept} of them were there" * (kept > 0)
        options.say(f"{options.out}: {num} rows{before}; {options.took}")
        if len(good) < num:
            raise _failed(table.rows, options.out)

    def report(self, rows: list[Row], good: list[Row]) -> None:
        """Draw what came out, and print what was done, what came out on average, and what it took."""
        options, size = self.options, math.prod(self.opened.event)
        if self.picture is not None and good:
            _draw_bits(good, self.picture, options.model, size)
        nfe = [row["nfe"] for row in rows]
        what = f"{self.opened.title}, {options.method}, {_estimate(options.divergence, options.probes)}"
        options.say(f"{len(rows)} samples under {options.model}: {what}, {span(nfe)} evaluations per sample")
        for text in _summary(good, size):
            options.say(text)
        options.say(f"failures: {len(rows) - len(good)}; evaluations: {sum(nfe)}")


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


def _rows_of(made: Generated) -> list[Row]:
    """The rows of a set."""
    from ..sets import Samples

    values = {name: value.tolist() for name, value in Samples(made.folder, check=False).all().items()}
    names = [name for name in COLUMNS if name in values]
    rows = [dict(zip(names, cells, strict=True)) for cells in zip(*(values[name] for name in names), strict=True)]
    return [{k: None if v != v else v for k, v in row.items()} for row in rows]


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
