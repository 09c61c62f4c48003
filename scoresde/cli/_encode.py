"""``scoresde encode``."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..errors import SolveFailedError
from . import _parameters as parameters
from ._batches import Show, batches
from ._data import fits, named, prepare, range_of, read
from ._options import (
    choose_method,
    effort,
    follow,
    label_of,
    open_model,
    parse_options,
    sample_seeds,
    source_of,
    threads,
)
from ._output import ARRAYS, check_output, write_arrays
from ._run import command
from ._tuned import check_named

if TYPE_CHECKING:
    from ..integrate import Solution


@command
def encode(
    data_argument: parameters.DataArgument = None,
    data: parameters.Data = None,
    out: Annotated[
        Path, typer.Option(help=f"Output file; its extension determines its format: {', '.join(ARRAYS)}.")
    ] = Path("latents.npz"),
    model: parameters.Model = "digits",
    sde: parameters.Process = None,
    label: parameters.Label = None,
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
    batch_size: parameters.BatchSize = 256,
    force: parameters.Force = False,
    quiet: parameters.Quiet = False,
) -> None:
    """Compute latents of data: the states at the noise end of a model's probability flow.

    The output has the arrays latent, index (of the sample in DATA) and nfe, with the settings as metadata. The file is
    written as a whole, and an existing file is kept unless --force is given. Samples that fail are left out, and the
    exit code is then 3.
    """
    began = time.perf_counter()
    source_name = named("data", data, data_argument)
    target, extension = check_output(out, ARRAYS, force=force)
    check_named(method, "adams")
    options = parse_options(option or [])
    solver, steps, told = choose_method(method, steps, grid, options)
    network, where, process, title, event = open_model(model, device, sde)
    source = read(source_name, key, fits(event, source_name))
    inputs = prepare(source, event, levels, range_of(network, data_range))
    score_fn = network.score(process, **label_of(network, label))
    num = len(source.names)
    arguments: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_steps": max_steps}

    def run(first: int, count: int, show: Show | None) -> Solution:
        from ..latents import encode

        x = inputs.x(first, sample_seeds(seed, first, count)).to(where)
        shown = follow(show, solver, process, steps, encodes=True)
        return encode(process, score_fn, x, callback=shown, throw=False, **told, **arguments)

    import torch

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
    metadata = {
        "scoresde": __version__,
        "model": source_of(network, model),
        "sde": repr(process),
        "label": label,
        "method": method,
        "options": options,
        "steps": steps,
        "grid": grid,
        **arguments,
        "data": source.digest,
        "names": source.names,
        "levels": inputs.levels,
        "data_range": list(inputs.data_range),
        "seed": seed,
    }
    what = write_arrays(target, extension, {"latent": latent[good], "index": index, "nfe": nfe[good]}, metadata)
    if not quiet:
        typer.echo(f"{len(index)} latents under {model}: {title}, {method}, {effort(solver, steps, nfe.tolist())}")
        typer.echo(f"{out}: {what}; {time.perf_counter() - began:.1f} s")
    if failures:
        raise SolveFailedError(f"{failed}. {str(out)!r} is without them.")
