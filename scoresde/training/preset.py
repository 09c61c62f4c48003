"""Presets: all that a training run needs but the data, under one name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..discrete import Chain
from ..errors import InvalidArgumentError
from ..losses import edm
from ..models import ScoreModel
from ..nets import ARCHITECTURES, build
from ..sdes import EDMSDE, AffineSDE
from ..zoo import Labels, Pretrained, save
from . import parallel
from .callbacks import Samples
from .data import Batches, Source
from .digits import DIGITS, DIGITS_DROPOUT, DIGITS_LABEL_DROPOUT, DIGITS_LEVELS
from .recipe import Recipe
from .seeds import WEIGHTS, seed_of
from .stream import Stateless
from .trainer import Every, Trainer, parts_of

__all__ = ["PRESETS", "Preset", "train"]


@dataclass(frozen=True)
class Preset:
    """A published way to train, or one of yours.

    Args:
        summary: what it is, in a line.
        loss: ``loss(model, x0, generator, **context) -> (batch,)``, with a `scoresde.ScoreModel`.
        recipe: the numbers.
        process: makes the process or the discrete chain; None for an EDM network that serves all processes.
        prediction, time_input, input_scale, variance: see `scoresde.ScoreModel`.
        architecture: its name in `scoresde.nets.ARCHITECTURES`.
        kwargs: its arguments; ``event_shape`` and ``labels``, if it takes them, come from the data.
        data_range: what the grey levels are mapped to.
        label_dropout: the share of labels that are hidden, which trains the null class.
        flip: mirror images at random.
        sampler: arguments of `scoresde.solve` that suit its networks.

    Example:
        >>> PRESETS["edm"].prediction, PRESETS["edm"].recipe.batch_size
        ('edm', 128)
    """

    summary: str
    loss: Callable[..., Tensor]
    recipe: Recipe
    process: Callable[[], AffineSDE | Chain] | None = None
    prediction: str = "edm"
    time_input: str | None = None
    input_scale: str = "x"
    variance: str | None = None
    architecture: str = "unet"
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    data_range: tuple[float, float] = (-1.0, 1.0)
    label_dropout: float = 0.1
    flip: bool = False
    sampler: Mapping[str, Any] = field(default_factory=lambda: {"method": "auto", "steps": 20})

    def arguments(self, source: Source) -> dict[str, Any]:
        """The arguments of the network for some data."""
        taken = inspect.signature(ARCHITECTURES[self.architecture]).parameters
        known: dict[str, Any] = {"event_shape": list(source.event_shape), "labels": source.classes or 1}
        return {name: value for name, value in known.items() if name in taken} | dict(self.kwargs)

    def model(self, source: Source, sigma_data: float, seed: int = 0) -> ScoreModel:
        """A new network for some data, its weights drawn with a seed.

        Example:
            >>> from scoresde.training import read
            >>> PRESETS["edm"].model(read("digits"), 0.6).event_shape
            (1, 8, 8)
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, WEIGHTS))
            net = build(self.architecture, self.arguments(source))
            made = EDMSDE() if self.process is None else self.process()
        chain = made if isinstance(made, Chain) else None
        return ScoreModel(
            net,
            made.sde() if isinstance(made, Chain) else made,
            self.prediction,
            self.time_input,
            self.input_scale,
            chain=chain,
            variance=self.variance,
            sigma_data=sigma_data,
            event_shape=source.event_shape,
        )


def train(
    preset: Preset,
    source: Source,
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    value_range: tuple[float, float] | None = None,
    flip: bool | None = None,
    workers: int = 0,
    command: str = "",
    sample_every: int = 0,
    callbacks: Sequence[Every] = (),
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Pretrained:
    """Train a preset's network on some data, and save it.

    Args:
        preset: what to train.
        source: the data.
        folder: where the model, its checkpoints, its log and its samples go. A run that is there goes on.
        seed: of the run: all its randomness is a function of it.
        device: where the network is.
        value_range: of floating-point data, mapped to the preset's ``data_range``, which is the default.
        flip: mirror images at random; the preset's choice by default.
        workers: processes that load the data.
        command: what made the model, for its config.
        sample_every: steps between pictures of samples; 0 for none.
        callbacks, settings: see `Trainer`.
        options: of the `Trainer`.

    Returns:
        The averaged network.

    Raises:
        InvalidArgumentError: the folder has another run, or a model; or an argument does not fit.

    Example:
        >>> from dataclasses import replace
        >>> from scoresde.training import Recipe, read
        >>> small = replace(PRESETS["edm"], recipe=Recipe(steps=1, batch_size=4), kwargs={"channels": 8})
        >>> train(small, read("digits"), progress=False).labels.count
        10
    """
    recipe, (rank, world) = preset.recipe, parallel.rank_and_world()
    shares = world * recipe.accumulate
    if recipe.batch_size % shares:
        raise InvalidArgumentError(
            f"`batch_size` must be a multiple of ranks x micro-batches = {shares}, got {recipe.batch_size}."
        )
    directory = None if folder is None else Path(folder)
    if directory is not None and (directory / "config.json").exists() and not (directory / "checkpoints").exists():
        raise InvalidArgumentError(f"{directory} holds a saved model; take another folder, nothing is overwritten.")
    batches = Batches(
        source,
        recipe.batch_size // shares,
        seed,
        preset.data_range,
        value_range,
        preset.flip if flip is None else flip,
        preset.label_dropout,
        rank,
        world,
    )
    model = preset.model(source, round(batches.std(), 4), seed)
    torch.nn.ModuleDict(parts_of(model)).to(device)
    if sample_every:
        shown = Samples(source.event_shape, sampler=preset.sampler, data_range=preset.data_range)
        callbacks = (*callbacks, Every(sample_every, shown))
    own = {"architecture": {"name": preset.architecture, "kwargs": preset.arguments(source)}}
    stream = Stateless(batches, device, workers)
    trained = Trainer(
        model,
        preset.loss,
        stream,
        recipe,
        folder=directory,
        settings=own | dict(settings or {}),
        callbacks=callbacks,
        **options,
    ).run()
    network = Pretrained.of(
        trained,
        preset.arguments(source),
        labels=None if source.classes is None else Labels("label", source.classes, source.classes),
        levels=source.levels,
        data_range=preset.data_range,
        data=source.name,
        command=command,
        every_process=preset.process is None,
    )
    network.net.requires_grad_(False)
    if directory is not None and rank == 0:
        save(network, directory)
    parallel.barrier()
    return network


def _edm(model: ScoreModel, x0: Tensor, generator: torch.Generator | None = None, **context: Any) -> Tensor:
    """EDM's loss with the noise levels of all processes."""
    return edm(model.net, x0, generator, sigma_data=model.sigma_data, levels=DIGITS_LEVELS, **context)


# By name, for `scoresde train --preset`.
PRESETS: dict[str, Preset] = {
    "edm": Preset(
        summary="EDM's preconditioning and loss at the noise levels of all processes, as the shipped digits have it",
        loss=_edm,
        recipe=replace(DIGITS, ema_power=9.0),
        kwargs={"channels": 32, "blocks": 3, "width": 64, "dropout": DIGITS_DROPOUT},
        label_dropout=DIGITS_LABEL_DROPOUT,
    ),
}
