"""``scoresde sample``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._files import check_target
from ..errors import InvalidArgumentError, NonFiniteError
from ._options import SDES, make_device, make_sde, parse_options, sample_seeds, threads
from ._output import EXTENSIONS, PICTURE, Samples, check_extension, write
from ._run import command

if TYPE_CHECKING:
    from torch import Tensor

    from ..integrate import Info, Solution


@command
def sample(
    model: Annotated[str, typer.Option(help="Name of a shipped model, or the directory of a saved one.")] = "digits",
    sde: Annotated[str, typer.Option(help=f"Forward process: {', '.join(SDES)}.")] = "vp",
    method: Annotated[str, typer.Option(help="Solver; see `scoresde methods`, or auto.")] = "pc",
    steps: Annotated[
        int | None, typer.Option(help="Steps of a fixed-step method; default 500 for pc, 50 for others.")
    ] = None,
    num: Annotated[int, typer.Option(min=1, max=2**32, help="Number of samples.")] = 64,
    label: Annotated[int | None, typer.Option(help="Class of all samples; default none given.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Sample i depends on this and on i alone, not on --num or --batch-size.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    out: Annotated[
        Path, typer.Option(help=f"Output file; its extension is its format: {', '.join(EXTENSIONS)}.")
    ] = Path("samples.png"),
    rtol: Annotated[float | None, typer.Option(help="Relative tolerance of an adaptive method.")] = None,
    atol: Annotated[float | None, typer.Option(help="Absolute tolerance of an adaptive method.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Limit of the steps of an adaptive method.")] = None,
    grid: Annotated[
        str | None, typer.Option(help="Where a fixed-step method steps: log_snr, time, karras, quadratic.")
    ] = None,
    stochasticity: Annotated[
        float | None, typer.Option(help="Eta of the reverse process, for methods that take it.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Option of the method, as snr=0.16; repeatable.")
    ] = None,
    denoise: Annotated[
        bool | None,
        typer.Option(
            "--denoise/--no-denoise",
            help="End with the expected clean image, without the noise that is left at the last level, for one more "
            "evaluation. Default: on for pictures, off for arrays, whose law then is the solver's own.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples solved together; halved if memory is short.")] = 256,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no summary.")] = False,
) -> None:
    """Draw samples of a model.

    Writes a picture (.png), or arrays x, seeds and nfe with the settings as metadata (.npz, .safetensors). A file is
    there completely or not at all; if any sample fails, nothing is written.
    """
    began = time.perf_counter()
    extension = check_extension(out)
    options = parse_options(option or [])
    process = make_sde(sde)
    target = check_target(out)
    from ..solvers import choose, make_solver
    from ..zoo import load

    if method == "auto":
        solver, steps = choose(process.affine, steps, options)
    else:
        solver = make_solver(method, options)
    where = make_device(device)
    network = load(model, device=where)
    event = tuple(network.event_shape)
    if extension == PICTURE and not (len(event) == 3 and event[0] in (1, 3)):
        raise InvalidArgumentError(
            f"`out`: samples of shape {event} are no pictures; write arrays, --out {out.with_suffix('.npz')}."
        )
    clean = extension == PICTURE if denoise is None else denoise
    score_fn = network.score(process, **_label(network, label))
    arguments: dict[str, Any] = {
        "steps": steps,
        "grid": grid,
        "rtol": rtol,
        "atol": atol,
        "max_steps": max_steps,
        "stochasticity": stochasticity,
        "denoise": clean,
    }

    def run(seeds: list[int], callback: Callable[[Info], None] | None) -> Solution:
        from ..solve import solve

        return solve(
            process,
            score_fn,
            method=solver,
            shape=(len(seeds), *event),
            seeds=seeds,
            callback=callback,
            device=where,
            **arguments,
        )

    def share(info: Info) -> float:
        if not solver.adaptive:
            return info.step / (steps or solver.default_steps)
        return float((process.t_max - _mean(info.t)) / (process.t_max - process.t_min))

    size = min(batch_size, num)
    with threads(where, size * _numel(event)):
        x, nfe, evaluations = _all(run, share, seed, num, size, f"{method} ({sde})", quiet)
    metadata = {
        "scoresde": _version(),
        "model": model,
        "sde": repr(process),
        "method": method,
        "options": options,
        **arguments,
        "label": label,
        "seed": seed,
        "num": num,
    }
    what = write(target, extension, Samples(x, sample_seeds(seed, 0, num), nfe, metadata))
    if not quiet:
        used = f"{int(nfe.min())}" if bool((nfe == nfe[0]).all()) else f"{int(nfe.min())} to {int(nfe.max())}"
        taken = "adaptive steps" if solver.adaptive else f"{steps or solver.default_steps} steps"
        typer.echo(f"{num} samples of {model}: {sde}, {method}, {taken}, {used} evaluations a sample")
        typer.echo(f"{out}: {what}; {evaluations} network calls, {time.perf_counter() - began:.1f} s")


def _all(
    run: Callable[[list[int], Callable[[Info], None] | None], Solution],
    share: Callable[[Info], float],
    seed: int,
    num: int,
    size: int,
    title: str,
    quiet: bool,
) -> tuple[Tensor, Tensor, int]:
    """Solve batch by batch: the samples, the evaluations of each, and the calls of the network."""
    import torch
    from tqdm import tqdm

    xs: list[Tensor] = []
    nfes: list[Tensor] = []
    done, evaluations = 0, 0
    with tqdm(
        total=num,
        desc=title,
        file=sys.stderr,
        disable=True if quiet else None,  # None: off where standard error is no terminal
        bar_format="{desc} {bar} {percentage:3.0f}% [{elapsed}<{remaining}]",
    ) as bar:

        def show(info: Info) -> None:
            bar.n = done + count * min(share(info), 1.0)
            bar.refresh()

        while done < num:
            count = min(size, num - done)
            seeds = sample_seeds(seed, done, count)
            try:
                solution = run(seeds, None if bar.disable else show)
            except NonFiniteError as error:
                raise _located(error, done, seeds) from error
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                if count == 1:
                    raise MemoryError(f"There is too little memory for one sample: {error}") from error
                size = count // 2
                tqdm.write(f"Too little memory; going on in batches of {size}.", file=sys.stderr)
                continue
            if not bool(torch.isfinite(solution.x).all()):
                raise NonFiniteError("A sample is not finite. Nothing was written.", stage="state")
            xs.append(solution.x.cpu())
            nfes.append(solution.nfe)
            done, evaluations = done + count, evaluations + solution.evaluations
            bar.n = done
            bar.refresh()
    return torch.cat(xs), torch.cat(nfes), evaluations


def _located(error: NonFiniteError, first: int, seeds: list[int]) -> NonFiniteError:
    """The error, with the samples counted over all batches, and their seeds."""
    indices = [first + i for i in error.indices]
    named = ", ".join(f"{i} (seed {seeds[i - first]})" for i in indices)
    return NonFiniteError(
        f"{error}\nFailed: sample {named}{', ...' if len(indices) == 5 else ''}. Nothing was written.",
        stage=error.stage,
        step=error.step,
        t=error.t,
        indices=indices,
    )


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _label(network: Any, label: int | None) -> dict[str, int]:
    if label is None:
        return {}
    if network.labels is None:
        raise InvalidArgumentError("`label`: this model has no labels; leave --label out.")
    return {network.labels.name: label}


def _mean(t: Any) -> float:
    return float(t.mean()) if hasattr(t, "mean") else float(t)


def _numel(event: tuple[int, ...]) -> int:
    count = 1
    for size in event:
        count *= size
    return count


def _version() -> str:
    from .. import __version__

    return __version__
