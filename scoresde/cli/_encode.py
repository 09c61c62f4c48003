"""``scoresde encode``."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..core.errors import SolveFailedError
from ..core.support.registries import ARRAY_CONTAINERS
from . import _parameters as parameters
from ._batches import Show, batches
from ._data import fits, named, prepare, range_of, read
from ._options import (
    choose_method,
    effort,
    follow,
    labelled,
    open_model,
    parse_options,
    sample_seeds,
    source_of,
    threads,
    weights_of,
)
from ._output import ARRAYS, write_arrays
from ._run import command
from ._sets import PATIENCE, Sharding, both, check_failures, check_output_of_data, leads, made_of, make_set
from ._tuned import check_named

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.solution import Solution
    from ..sets import Batch


@command
def encode(
    data_argument: parameters.DataArgument = None,
    data: parameters.Data = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE or FOLDER/",
            help=f"Output file; its extension determines its format: {', '.join(ARRAYS)}. A set has a folder.",
        ),
    ] = "latents.npz",
    model: parameters.Model = "digits",
    sde: parameters.Process = None,
    label: parameters.Label = None,
    labels: parameters.Labels = None,
    method: Annotated[str, typer.Option(help="Deterministic solver; see `scoresde methods`.")] = "adams",
    steps: parameters.Steps = None,
    grid: parameters.Grid = None,
    rtol: parameters.Rtol = None,
    atol: parameters.Atol = None,
    max_steps: parameters.MaxSteps = None,
    option: parameters.Options = None,
    levels: parameters.Levels = None,
    data_range: parameters.DataRange = None,
    key: parameters.Key = None,
    seed: parameters.Seed = 0,
    device: parameters.Device = "auto",
    shard_size: parameters.ShardSize = None,
    container: parameters.Container = None,
    patience: parameters.Patience = PATIENCE,
    batch_size: parameters.BatchSize = 256,
    force: parameters.Force = False,
    quiet: parameters.Quiet = False,
) -> None:
    """Compute latents of data: the states at the noise end of a model's probability flow.

    The output has the arrays latent, index (of the sample in DATA) and nfe, with the settings as metadata. The file is
    written as a whole, and an existing file is kept unless --force is given. Samples that fail are left out, and the
    exit code is then 3.

    With --shard-size or --format the output is a set in a folder, as `scoresde sample` makes it. It has all samples;
    those that fail are NaN and have a status.
    """
    began = time.perf_counter()
    source_name = named("data", data, data_argument)
    sharding = Sharding(shard_size, container, patience, max_failures=1.0)
    target, extension = check_output_of_data(out, sharding, ARRAYS, force=force)
    check_named(method, "adams")
    options = parse_options(option or [])
    solver, steps, told = choose_method(method, steps, grid, options)
    network, where, process, title, event = open_model(model, device, sde)
    source = read(source_name, key, fits(event, source_name), labels)
    inputs = prepare(source, event, levels, range_of(network, data_range))
    score_fn, context_of = labelled(network, process, label, source)
    num = len(source.names)
    arguments: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_steps": max_steps}

    import torch

    def latents(rows: Tensor, seeds: list[int], callback: Any) -> Solution:
        from ..core.latents import encode

        x = inputs.rows(rows, seeds).to(where)
        asked = {"context": context_of(rows), "callback": callback, "throw": False}
        return encode(process, score_fn, x, **asked, **told, **arguments)

    def run(first: int, count: int, show: Show | None) -> Solution:
        shown = follow(show, solver, process, steps, encodes=True)
        return latents(torch.arange(first, first + count), sample_seeds(seed, first, count), shown)

    settings = {
        "scoresde": __version__,
        "sde": repr(process),
        "label": label,
        **({} if labels is None else {"labels": labels}),
        "method": method,
        "options": options,
        "steps": steps,
        "grid": grid,
        **arguments,
        "data": source.digest,
        "levels": inputs.levels,
        "data_range": list(inputs.data_range),
        "seed": seed,
    }
    if sharding.wanted:

        def solved(batch: Batch, show: Show) -> tuple[dict[str, Tensor], Tensor]:
            seeds = sample_seeds(seed, int(batch.indices[0]), len(batch.indices))
            shown = both(batch.callback, follow(show, solver, process, steps, encodes=True))
            found = latents(batch.indices % num, seeds, shown)
            return {"latent": found.x, "nfe": found.nfe, "status": found.status}, found.t

        sizes = {"first": 0, "count": num, "batch_size": batch_size}
        whole = {**settings, "weights": weights_of(network), "container": container or ARRAY_CONTAINERS[0]}
        bar = None if quiet else f"{method} ({title})"
        with threads(where, batch_size * math.prod(event)):
            made = make_set(target, whole, sizes, solved, where, sharding, title=bar)
        if not quiet and leads():
            took = f"{time.perf_counter() - began:.1f} s"
            typer.echo(f"{num} latents under {model}: {title}, {method}\n{made_of(made, out)}; {took}")
        check_failures(made, source.names, out)
        return
    size = min(batch_size, num)
    with threads(where, size * math.prod(event)):
        solutions = list(batches(run, num, size, f"{method} ({title})", quiet))
    latent, nfe = (torch.cat([getattr(s, name).cpu() for s in solutions]) for name in ("x", "nfe"))
    good = torch.cat([s.success for s in solutions])
    index = good.nonzero()[:, 0]
    failures = (~good).nonzero()[:, 0].tolist()
    if failures:
        names = ", ".join(source.names[i] for i in failures[:5])
        failed = f"{len(failures)} of {num} samples failed: {names}{', ...' if len(failures) > 5 else ''}"
        if not len(index):
            raise SolveFailedError(f"{failed}. Nothing was written.")
    metadata = {**settings, "model": source_of(network, model), "names": source.names}
    what = write_arrays(target, extension, {"latent": latent[good], "index": index, "nfe": nfe[good]}, metadata)
    if not quiet:
        typer.echo(f"{len(index)} latents under {model}: {title}, {method}, {effort(solver, steps, nfe.tolist())}")
        typer.echo(f"{out}: {what}; {time.perf_counter() - began:.1f} s")
    if failures:
        raise SolveFailedError(f"{failed}. {str(out)!r} is without them.")
