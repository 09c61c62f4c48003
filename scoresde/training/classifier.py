r"""A classifier of noisy data, trained by the same `Trainer`: ``scoresde train --preset classifier``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..core.errors import InvalidArgumentError
from ..core.support.checks import best_device
from ..core.support.declared import Device, checked
from ..guidance import NoisyClassifier
from ..losses import noisy_cross_entropy
from ..nets import Classifier, made
from ..zoo.classifier import FILE, save_classifier
from . import parallel
from .data import WEIGHTS, Batches, as_source, seed_of
from .recipe import Recipe
from .settings import samples_per_batch
from .stream import Stateless
from .trainer import Trainer

CLASSIFIER = Recipe(steps=2000, learning_rate=2e-3, warmup=100, weight_decay=0.05, ema=0.995, ema_power=9.0)
NET: Mapping[str, object] = {"channels": 16, "dropout": 0.1}


@checked
def train_classifier(
    source: Any,
    folder: str | Path | None = None,
    recipe: Recipe = CLASSIFIER,
    *,
    kwargs: Mapping[str, Any] = NET,
    seed: int = 0,
    device: Device | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    value_range: tuple[float, float] | None = None,
    flip: bool = False,
    workers: int = 0,
    **options: Any,
) -> NoisyClassifier:
    """Train a classifier of noisy data, for `scoresde.guidance.classifier_guidance`.

    Args:
        source: images with labels: a `Source`, or a map-style dataset as `read` takes it.
        folder: where the classifier, its checkpoints and its log go. A run in it continues.
        recipe: the hyperparameters.
        kwargs: arguments of `scoresde.nets.Classifier`; the shape and the classes come from the data.
        seed: the seed of the run.
        device: the device of the network; by default a GPU if there is one (that of this rank), else the CPU.
        data_range: the range that grey levels are mapped to.
        value_range: the range of floating-point data.
        flip: mirror images at random.
        workers: processes that load the data.
        options: of the `Trainer`.

    Returns:
        The averaged classifier, in evaluation mode.

    Raises:
        InvalidArgumentError: the data have no labels; or as `Trainer`.

    Example:
        >>> from scoresde.training import Recipe, read
        >>> classifier = train_classifier(
        ...     read("digits"), recipe=Recipe(steps=1, batch_size=4), progress=False
        ... )
        >>> vp = scoresde.VPSDE()
        >>> classifier.log_prob(vp, 3)(torch.zeros(2, 1, 8, 8), torch.full((2,), 0.1)).shape
        torch.Size([2])
    """
    source = as_source(source)
    device = best_device() if device is None else device
    if source.classes is None:
        raise InvalidArgumentError(f"`data` must have labels to train a classifier, but {source.name} have none.")
    rank, world = parallel.rank_and_world()
    size = samples_per_batch(recipe, world)
    batches = Batches(source, size, seed, data_range, value_range, flip, rank=rank, world=world)
    arguments = {"event_shape": list(source.event_shape), "classes": source.classes, **kwargs}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, WEIGHTS))
        model = NoisyClassifier(made(Classifier, arguments), round(batches.std(), 4)).to(device)
    trained: NoisyClassifier = Trainer(
        model,
        noisy_cross_entropy,
        Stateless(batches, device, workers),
        recipe,
        folder=folder,
        settings={"architecture": {"name": "classifier", "kwargs": arguments}},
        **options,
    ).run(save_classifier, (FILE,))
    trained.requires_grad_(False)
    return trained
