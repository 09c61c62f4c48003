"""``scoresde train``."""

from __future__ import annotations

import contextlib
import math
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import InvalidArgumentError, check_choice
from ..core.support.registries import DEFAULT_PRESET as DEFAULT
from ..core.support.registries import PRESETS
from ._options import make_device, threads
from ._parameters import Quiet, names
from ._run import command, stoppable

LOGS = ("csv", "tensorboard")
CLASSIFIER = "classifier"  # beside the presets, which are score networks
_SMALL = 16  # pixels, for two resolutions
HINT = (
    f"The network of the preset {DEFAULT} has two resolutions, for images of 8 x 8 pixels; for data of {{}}, "
    "--preset mnist is the better start."
)


@command
def train(
    out: Annotated[Path, typer.Option(help="Folder for the model, its checkpoints, log and samples.")],
    data: Annotated[
        str,
        typer.Option(
            help="digits; a folder of images; a .npz, .npy or .safetensors file with an array x (and label); a file "
            "such as train-images-idx3-ubyte.gz, with the file of its labels beside it; or torchvision:NAME."
        ),
    ] = "digits",
    hold_out: Annotated[
        int,
        typer.Option(
            min=0, help="Number of samples, chosen at random, that are kept out of the training; see training.hold_out."
        ),
    ] = 0,
    preset: Annotated[
        str,
        typer.Option(
            help="What to train: a name of `scoresde presets`, or classifier.",
            autocompletion=names(PRESETS, [CLASSIFIER]),
        ),
    ] = DEFAULT,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps; default the preset's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Samples per step; default the preset's.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate of the optimiser; default the preset's.")
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(min=8, help="Width of the network: features at the full resolution; default the preset's."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of all randomness of the run.")] = 0,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="Precision: float32, bfloat16, float16; default the preset's.")
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    levels: Annotated[int | None, typer.Option(min=2, help="Grey levels of integer arrays; 256 for uint8.")] = None,
    data_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--data-range",
            "--value-range",
            metavar="LOW HIGH",
            help="Range of floating-point arrays; default the preset's.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side in pixels of the squares to which a folder's images are cropped and resized."),
    ] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror images at random; default the preset's.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load data.")] = 0,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--no-resume",
            help="Continue a run, or refuse a folder that has one. Default: continue a run if there is one.",
        ),
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    sample_every: Annotated[int, typer.Option(min=0, help="Steps between pictures of samples; 0 for none.")] = 1000,
    log: Annotated[
        str,
        typer.Option(
            "--logger",
            "--log",
            help="Log: csv (log.csv only), or tensorboard (log.csv and TensorBoard).",
            autocompletion=names(LOGS),
        ),
    ] = "csv",
    quiet: Quiet = False,
) -> None:
    """Train a network on your data.

    Ctrl-C or SIGTERM ends the run after the current step, with a checkpoint; a second signal ends it at once. The
    same command resumes from the last checkpoint, with the same result. When the run is complete, OUT is a model for
    `scoresde sample --model OUT`. For several processes write torchrun --nproc-per-node 2 -m scoresde train ...
    """
    began = time.perf_counter()
    check_choice("log", log, LOGS)
    check_choice("preset", preset, (*PRESETS, CLASSIFIER))
    from .. import training
    from ..training.classifier import NET
    from ..training.parallel import processes, rank_and_world

    where = make_device(device)
    changes: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    changes |= {"precision": precision, "compile": compile}
    planned = training.CLASSIFIER if preset == CLASSIFIER else PRESETS[preset].recipe
    recipe = replace(planned, **{name: value for name, value in changes.items() if value is not None})
    width = {} if channels is None else {"channels": channels}
    with _resumable(out, resume):
        source = training.read(data, levels=levels, size=size)
        if hold_out:
            source, _ = training.hold_out(source, hold_out)
        if recipe.batch_size > len(source):
            raise InvalidArgumentError(
                f"`batch_size` must be at most {len(source)}, the number of samples of {data!r}, got "
                f"{recipe.batch_size}; write --batch-size {len(source)} or less."
            )
        if preset == DEFAULT and len(source.event_shape) == 3 and max(source.event_shape) > _SMALL and not quiet:
            typer.echo(HINT.format(" x ".join(map(str, source.event_shape))), err=True)
        shown = {"data": data, "preset": preset, "steps": recipe.steps, "batch-size": recipe.batch_size, "seed": seed}
        others = {"learning-rate": learning_rate, "channels": channels, "hold-out": hold_out or None}
        shown |= {name: value for name, value in others.items() if value is not None}
        values = recipe.batch_size * math.prod(source.event_shape)
        options: dict[str, Any] = {
            **{"seed": seed, "value_range": data_range, "workers": workers, "resume": resume},
            **{
                "progress": not quiet and sys.stderr.isatty(),
                "checkpoint_every": checkpoint_every,
                "tensorboard": log == "tensorboard",
            },
        }
        with processes(where) as where, threads(where, values), stoppable() as stop:
            options["stop"] = stop
            if preset == CLASSIFIER:
                net: Any = training.train_classifier(
                    source, out, recipe, kwargs={**NET, **width}, device=where, flip=bool(flip), **options
                )
            else:
                chosen = PRESETS[preset]
                net = training.train(
                    replace(chosen, recipe=recipe, kwargs={**chosen.kwargs, **width}),
                    source,
                    out,
                    device=where,
                    flip=flip,
                    command="scoresde train " + " ".join(f"--{k} {shlex.quote(str(v))}" for k, v in shown.items()),
                    sample_every=sample_every,
                    settings={"preset": preset},
                    **options,
                ).net
            first = rank_and_world()[0] == 0
    if first and not quiet:
        count = sum(p.numel() for p in net.parameters())
        typer.echo(
            f"{out}: {count:,} parameters, {recipe.steps} steps on {source.name}; {time.perf_counter() - began:.1f} s"
        )
        if preset != CLASSIFIER:
            typer.echo(f"Sample it: scoresde sample --model {shlex.quote(str(out))}")


@contextlib.contextmanager
def _resumable(out: Path, resume: bool | None) -> Iterator[None]:
    """Say where the same command resumes when it is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        from ..training.checkpoint import latest, step_of

        last = latest(out / "checkpoints")
        again = "the same command" + (" without --no-resume" if resume is False else "")
        kept = (
            "the same command starts again, for there is no checkpoint yet"
            if last is None
            else f"a checkpoint is kept, and {again} resumes at step {step_of(last)}"
        )
        raise KeyboardInterrupt(f"Interrupted; {kept}.") from None
