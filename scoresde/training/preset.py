"""Presets: all that a training run needs but the data, under one name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ..core.errors import InvalidArgumentError
from ..core.sdes import EDMSDE, AffineSDE
from ..core.support.checks import best_device
from ..core.support.declared import Device, Index, Interval, Probability, called, checked, instance
from ..discrete import Chain
from ..likelihood import Bound, bits_per_dim, dequantize
from ..nets import ARCHITECTURES, Architecture, build
from ..scores import Score, ScoreModel
from ..zoo import Labels, Pretrained, Sampler, save, store
from . import parallel
from .callbacks import SampleCallback
from .data import DATA, WEIGHTS, Batches, Rows, Source, Unlabelled, as_source, generator_of, seed_of
from .recipe import Recipe
from .settings import samples_per_batch
from .stream import Stateless
from .trainer import Callbacks, Every, Loss, Trainer, parts_of

Model = Annotated[ScoreModel, instance(Score, "a score function such as scoresde.ScoreModel")]


@checked
@dataclass(frozen=True)
class Preset:
    """A published way to train, or one of yours.

    Args:
        summary: a description in one line.
        loss: ``loss(model, x0, generator, **context) -> (batch,)``, with a `scoresde.ScoreModel`.
        recipe: the hyperparameters.
        process: makes the process or the discrete chain; None for an EDM network that serves all processes.
        prediction, time_input, input_scale, variance: see `scoresde.ScoreModel`.
        architecture: its name in `scoresde.nets.ARCHITECTURES`.
        kwargs: its arguments; ``event_shape`` and ``labels``, if it takes them, come from the data.
        data_range: the range that grey levels are mapped to.
        label_dropout: the share of labels that are hidden, which trains the null class.
        flip: mirror images at random.
        sampler: the sampler of its networks, which is saved with them.
        paper: the publication.
        bound: ``bound(model, x, seed=…) -> scoresde.likelihood.Bound``, its own; with ``levels``, ``data_range`` for
            grey levels.
        labelled: whether networks receive the labels of the data.
        dequantise: whether grey levels get noise, see `Batches`.
        grey_loss: whether the loss has the arguments ``levels`` and ``data_range``, which come from the data.

    Example:
        >>> preset = scoresde.presets.PRESETS["ddpm"]
        >>> preset.prediction, preset.recipe.batch_size, preset.sampler.levels
        ('noise', 128, 1000)
    """

    summary: str
    loss: Loss
    recipe: Recipe
    process: Annotated[Callable[[], AffineSDE | Chain], called("process()")] | None = None
    prediction: str = "edm"
    time_input: str | None = None
    input_scale: str = "x"
    variance: str | None = None
    architecture: Architecture = "unet"
    kwargs: Mapping[str, object] = field(default_factory=dict)
    data_range: Interval = (-1.0, 1.0)
    label_dropout: Probability = 0.1
    flip: bool = False
    sampler: Sampler = field(default_factory=lambda: Sampler("auto", evaluations=20))
    paper: str = ""
    bound: Annotated[Callable[..., Bound], called("bound(model, x, seed=0)")] | None = None
    labelled: bool = True
    dequantise: bool = True
    grey_loss: bool = False

    @checked
    def arguments(self, source: Rows) -> dict[str, object]:
        """The arguments of the network for some data."""
        taken = inspect.signature(ARCHITECTURES[self.architecture]).parameters
        known: dict[str, object] = {"event_shape": list(source.event_shape), "labels": source.classes or 1}
        return {name: value for name, value in known.items() if name in taken} | dict(self.kwargs)

    @checked
    def model(self, source: Source, sigma_data: float, seed: Index = 0) -> ScoreModel:
        """A new network for some data, its weights drawn with a seed.

        Example:
            >>> from scoresde.training import read
            >>> scoresde.presets.PRESETS["edm"].model(read("digits"), 0.6).event_shape
            (1, 8, 8)
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, WEIGHTS))
            net = self._network(source)
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

    def _network(self, source: Source) -> nn.Module:
        try:
            return build(self.architecture, self.arguments(source))
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"The preset's network {self.architecture!r} does not fit data of shape {source.event_shape}: {error} "
                "For vectors: replace(preset, architecture='mlp', kwargs={})."
            ) from None

    @checked
    def bits(self, model: Model, v: Tensor, *, levels: int, seed: Index = 0, **options: object) -> Tensor:
        """Bits per dimension of grey levels by the system's own bound, ``(batch,)``: that of the density of dequantised
        values where it is trained with these, else that of the levels themselves.

        Args:
            model: a network of the preset.
            v: integers 0 … levels - 1, ``(batch, *event)``.
            levels: the number of levels.
            seed: of noise and draws.
            options: of the bound.

        Raises:
            InvalidArgumentError: the preset has no bound; or as the bound.

        Example:
            >>> from scoresde.training import digits_split, read
            >>> preset = scoresde.presets.PRESETS["score-sde-vp"]
            >>> model = preset.model(preset.source(read("digits")), 0.6)
            >>> preset.bits(model, digits_split().test_images[:2], levels=17, draws=4).shape
            torch.Size([2])
        """
        if self.bound is None:
            raise InvalidArgumentError("This preset has no bound of its own; take scoresde.variational_bound.")
        if not self.dequantise:
            return self.bound(model, v, levels=levels, data_range=self.data_range, seed=seed, **options).bits_per_dim
        x = dequantize(v, levels=levels, data_range=self.data_range, generator=generator_of(seed, DATA))
        density = self.bound(model, x, seed=seed, **options)
        return bits_per_dim(-density.total, density.event_shape, levels=levels, data_range=self.data_range)

    @checked
    def source(self, source: Rows) -> Source:
        """The data as its networks see them: without labels, if it does not receive them."""
        return source if self.labelled else Unlabelled(source)

    @checked
    def told(self, source: Rows) -> str:
        """A description of the data, and of their mapping to the network's range.

        Example:
            >>> from scoresde.training import read
            >>> scoresde.presets.PRESETS["ddpm"].told(read("digits")).partition("; ")[2]
            'grey v = 0 ... 16 mapped by x = -1 + 2 (v + 1/2) / 17'
        """
        if source.levels is None:
            return source.name
        (low, high), noise = self.data_range, "u" if self.dequantise else "1/2"
        law = ", u ~ U[0, 1)" if self.dequantise else ""
        mapped = f"x = {low:g} + {high - low:g} (v + {noise}) / {source.levels}{law}"
        return f"{source.name}; grey v = 0 ... {source.levels - 1} mapped by {mapped}"

    @checked
    def loss_on(self, source: Rows) -> Callable[..., Tensor]:
        """The loss for some data."""
        if not self.grey_loss:
            return self.loss
        return functools.partial(self.loss, levels=source.levels, data_range=self.data_range)


@checked
def train(
    preset: Preset,
    source: Any,
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    device: Device | None = None,
    value_range: tuple[float, float] | None = None,
    flip: bool | None = None,
    workers: int = 0,
    command: str = "",
    sample_every: Index = 0,
    callbacks: Callbacks = (),
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Pretrained:
    """Train a preset's network on some data, and save it.

    Args:
        preset: the preset to train.
        source: the data: a `Source`, or a map-style dataset as `read` takes it.
        folder: where the model, its checkpoints, its log and its samples go. A run in it continues.
        seed: of the run: all its randomness is a function of it.
        device: the device of the network; by default a GPU if there is one (that of this rank), else the CPU.
        value_range: the range of floating-point data, mapped to the preset's ``data_range``, which is the default.
        flip: mirror images at random; the preset's choice by default.
        workers: processes that load the data.
        command: the command that makes the model, for its config.
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
        >>> small = replace(
        ...     scoresde.presets.PRESETS["edm"], recipe=Recipe(steps=1, batch_size=4)
        ... )
        >>> train(small, read("digits"), progress=False).config.sampler.method
        'rho_heun'
    """
    device = best_device() if device is None else device
    recipe, (rank, world) = preset.recipe, parallel.rank_and_world()
    size = samples_per_batch(recipe, world)
    source = preset.source(as_source(source))
    batches = Batches(
        source,
        size,
        seed,
        preset.data_range,
        value_range,
        preset.flip if flip is None else flip,
        preset.label_dropout,
        rank,
        world,
        preset.dequantise,
    )
    model = preset.model(source, round(batches.std(), 4), seed)
    nn.ModuleDict(parts_of(model)).to(device)
    if sample_every:
        sampler = preset.sampler.arguments(model.chain)
        shown = SampleCallback(
            source.event_shape, sampler=sampler, data_range=preset.data_range, clip=preset.sampler.clip
        )
        callbacks = (*callbacks, Every(sample_every, shown))
    own = {"architecture": {"name": preset.architecture, "kwargs": preset.arguments(source)}}
    stream = Stateless(batches, device, workers)
    trainer = Trainer(
        model,
        preset.loss_on(source),
        stream,
        recipe,
        folder=folder,
        settings=own | dict(settings or {}),
        callbacks=callbacks,
        **options,
    )
    pretrained = functools.partial(_pretrained, preset, source, command)
    names = (store.CONFIG, store.WEIGHTS)
    return pretrained(trainer.run(lambda trained, folder: save(pretrained(trained), folder), names))


def _pretrained(preset: Preset, source: Source, command: str, trained: ScoreModel) -> Pretrained:
    """The network as it is saved, with what it was trained on and by what."""
    network = Pretrained.of(
        trained,
        preset.arguments(source),
        labels=None if source.classes is None else Labels("label", source.classes, source.classes),
        levels=source.levels,
        data_range=preset.data_range,
        data=preset.told(source),
        command=command,
        every_process=preset.process is None,
        sampler=preset.sampler,
    )
    network.net.requires_grad_(False)
    return network
