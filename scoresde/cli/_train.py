"""``scoresde train``."""

from __future__ import annotations

import contextlib
import math
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidArgumentError, check_choice
from ..core.support.registries import DEFAULT_PRESET as DEFAULT
from ..core.support.registries import PRESETS
from ._options import make_device, threads
from ._run import QuietOptions, command, flag, stoppable

if TYPE_CHECKING:
    from ..training import Recipe

LOGS = ("csv", "tensorboard")
CLASSIFIER = "classifier"  # beside the presets, which are score networks
_SMALL = 16  # pixels, for two resolutions
HINT = (
    f"The network of the preset {DEFAULT} has two resolutions, for images of 8 x 8 pixels; for data of {{}}, "
    "--preset mnist is the better start."
)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(QuietOptions):
    """The options of ``scoresde train``."""

    out: Path = flag(..., "Folder for the model, its checkpoints, log and samples.")
    data: str = flag(
        "digits",
        "digits; a folder of images; a .npz, .npy or .safetensors file with an array x (and label); a file "
        "such as train-images-idx3-ubyte.gz, with the file of its labels beside it; or torchvision:NAME.",
    )
    hold_out: int = flag(
        0,
        "Number of samples, chosen at random, that are kept out of the training; see training.hold_out.",
        min=0,
    )
    preset: str = flag(
        DEFAULT, "What to train: a name of `scoresde presets`, or classifier.", names=(*PRESETS, CLASSIFIER)
    )
    steps: int | None = flag(None, "Optimiser steps; default the preset's.", min=1)
    batch_size: int | None = flag(None, "Samples per step; default the preset's.", min=1)
    learning_rate: float | None = flag(None, "Learning rate of the optimiser; default the preset's.")
    channels: int | None = flag(
        None, "Width of the network: features at the full resolution; default the preset's.", min=8
    )
    seed: int = flag(0, "Seed of all randomness of the run.", min=0, max=2**31 - 1)
    device: str = flag("auto", "Device: auto, cpu, cuda, cuda:1, ...")
    precision: str | None = flag(None, "Precision: float32, bfloat16, float16; default the preset's.")
    compile: bool = flag(False, "Use torch.compile.", "--compile")
    levels: int | None = flag(None, "Grey levels of integer arrays; 256 for uint8.", min=2)
    data_range: tuple[float, float] | None = flag(
        None,
        "Range of floating-point arrays; default the preset's.",
        "--data-range",
        "--value-range",
        metavar="LOW HIGH",
    )
    size: int | None = flag(
        None, "Side in pixels of the squares to which a folder's images are cropped and resized.", min=1
    )
    flip: bool | None = flag(None, "Mirror images at random; default the preset's.", "--flip/--no-flip")
    workers: int = flag(0, "Processes that load data.", min=0)
    resume: bool | None = flag(
        None,
        "Continue a run, or refuse a folder that has one. Default: continue a run if there is one.",
        "--resume/--no-resume",
    )
    checkpoint_every: int = flag(500, "Steps between checkpoints.", min=1)
    sample_every: int = flag(1000, "Steps between pictures of samples; 0 for none.", min=0)
    log: str = flag(
        "csv", "Log: csv (log.csv only), or tensorboard (log.csv and TensorBoard).", "--logger", "--log", names=LOGS
    )


@command
def train(options: TrainOptions) -> None:
    """Train a network on your data.

    Ctrl-C or SIGTERM ends the run after the current step, with a checkpoint; a second signal ends it at once. The
    same command resumes from the last checkpoint, with the same result. When the run is complete, OUT is a model for
    `scoresde sample --model OUT`. For several processes write torchrun --nproc-per-node 2 -m scoresde train ...
    """
    check_choice("log", options.log, LOGS)
    check_choice("preset", options.preset, (*PRESETS, CLASSIFIER))
    from .. import training
    from ..training.parallel import processes

    where, out = make_device(options.device), options.out
    classifies = options.preset == CLASSIFIER
    names = ("steps", "batch_size", "learning_rate", "precision", "compile")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    recipe = replace(training.CLASSIFIER if classifies else PRESETS[options.preset].recipe, **changes)
    with _resumable(out, options.resume):
        source = training.read(options.data, levels=options.levels, size=options.size)
        if options.hold_out:
            source, _ = training.hold_out(source, options.hold_out)
        _check_source(options, recipe, source)
        values = recipe.batch_size * math.prod(source.event_shape)
        with processes(where) as where, threads(where, values), stoppable() as stop:
            more = {
                "device": where,
                "seed": options.seed,
                "value_range": options.data_range,
                "workers": options.workers,
                "resume": options.resume,
                "progress": not options.quiet and sys.stderr.isatty(),
                "checkpoint_every": options.checkpoint_every,
                "tensorboard": options.log == "tensorboard",
                "stop": stop,
            }
            net = (_classifier if classifies else _network)(options, recipe, source, more)
    count = sum(p.numel() for p in net.parameters())
    options.say(f"{out}: {count:,} parameters, {recipe.steps} steps on {source.name}; {options.took}")
    if not classifies:
        options.say(f"Sample it: scoresde sample --model {shlex.quote(str(out))}")


def _check_source(options: TrainOptions, recipe: Recipe, source: Any) -> None:
    """Refuse less data than a batch has, and say what suits large images better."""
    if recipe.batch_size > len(source):
        raise InvalidArgumentError(
            f"`batch_size` must be at most {len(source)}, the number of samples of {options.data!r}, got "
            f"{recipe.batch_size}; write --batch-size {len(source)} or less."
        )
    if options.preset == DEFAULT and len(source.event_shape) == 3 and max(source.event_shape) > _SMALL:
        options.say(HINT.format(" x ".join(map(str, source.event_shape))), err=True)


def _classifier(options: TrainOptions, recipe: Recipe, source: Any, more: dict[str, Any]) -> Any:
    """A classifier of noisy data, trained."""
    from ..training import train_classifier
    from ..training.classifier import NET

    width = {} if options.channels is None else {"channels": options.channels}
    return train_classifier(source, options.out, recipe, kwargs={**NET, **width}, flip=bool(options.flip), **more)


def _network(options: TrainOptions, recipe: Recipe, source: Any, more: dict[str, Any]) -> Any:
    """The network of a preset, trained."""
    from ..training import train

    preset = PRESETS[options.preset]
    shown = {"data": options.data, "preset": options.preset, "steps": recipe.steps, "batch-size": recipe.batch_size}
    shown |= {"seed": options.seed}
    others = {
        "learning-rate": options.learning_rate,
        "channels": options.channels,
        "hold-out": options.hold_out or None,
    }
    shown |= {name: value for name, value in others.items() if value is not None}
    width = {} if options.channels is None else {"channels": options.channels}
    return train(
        replace(preset, recipe=recipe, kwargs={**preset.kwargs, **width}),
        source,
        options.out,
        flip=options.flip,
        command="scoresde train " + " ".join(f"--{k} {shlex.quote(str(v))}" for k, v in shown.items()),
        sample_every=options.sample_every,
        settings={"preset": options.preset},
        **more,
    ).net


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
