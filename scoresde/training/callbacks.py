"""Callbacks that examine a network while it is trained; see `scoresde.training.Every`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from ..core.sdes import AffineSDE
from ..core.solve import solve
from ..core.support.checks import check_batch, check_finite_rows, check_shape, check_state, named
from ..core.support.declared import Interval, Kind, checked
from ..likelihood import variational_bound
from ..likelihood.bounds.terms import read
from ..plot import image_grid
from ..scores import Clip
from .data import Many, Seed
from .trainer import Progress


@checked
@dataclass(frozen=True)
class SampleCallback:
    """Samples of the averaged model: a picture ``samples/step-….png`` of images, and their standard deviation.

    Args:
        event_shape: the shape of one sample.
        num: how many.
        sde: the process; the model's own by default.
        sampler: arguments of `scoresde.solve`.
        data_range: the values of black and white.
        clip: the range that the data estimate is clipped to, or None.
        seed: sample i is drawn with seed + i, so that pictures of different steps can be compared.

    Example:
        >>> model = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(
        ...     scoresde.VPSDE()
        ... )
        >>> sorted(
        ...     SampleCallback((2,), 4, sampler={"method": "ddim", "steps": 2})(
        ...         Progress(1, model, None)
        ...     )
        ... )
        ['samples_std']
    """

    event_shape: Annotated[tuple[int, ...], Kind(partial(check_shape, rank=1))]
    num: Many = 64
    sde: AffineSDE | None = None
    sampler: Mapping[str, Any] = field(default_factory=lambda: {"method": "auto", "evaluations": 20})
    data_range: Interval = (-1.0, 1.0)
    seed: Seed = 0
    clip: Interval | None = None

    def _drawn(self, progress: Progress, places: Sequence[int]) -> Tensor:
        """The samples of some places, 0 … num - 1."""
        model = progress.model if self.sde is None else progress.model.on(self.sde)
        parameters = model.net.parameters() if hasattr(model, "net") else ()
        return solve(
            model.sde,
            model if self.clip is None else Clip(model, *self.clip),
            shape=(len(places), *self.event_shape),
            seeds=[self.seed + i for i in places],
            device=next((parameter.device for parameter in parameters), None),
            **{"denoise": True, **self.sampler},
        ).x

    def __call__(self, progress: Progress) -> dict[str, float]:
        x = self._drawn(progress, range(self.num))
        if progress.folder is not None and len(self.event_shape) == 3 and self.event_shape[0] in (1, 3):
            pictures = progress.folder / "samples"
            pictures.mkdir(parents=True, exist_ok=True)
            image_grid(x, pictures / f"step-{progress.step:010d}.png", data_range=self.data_range)
        return {"samples_std": float(x.std())}


@checked
@dataclass(frozen=True)
class BoundCallback:
    r"""The variational bound of the averaged model on held-out data: bits per dimension for grey levels, else nats.

    Args:
        x: held-out samples ``(n, *event)``: grey levels if ``levels`` is given, else in the network's units.
        levels, data_range: of the data; see `scoresde.variational_bound`.
        sde: the process; the model's own by default.
        seed: of the draws.
        options: of `scoresde.variational_bound`.

    Example:
        >>> model = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(
        ...     scoresde.VPSDE()
        ... )
        >>> sorted(BoundCallback(torch.zeros(4, 2))(Progress(1, model, None)))
        ['bound_nats']
    """

    x: Tensor
    levels: int | None = None
    data_range: Interval = (-1.0, 1.0)
    sde: AffineSDE | None = None
    seed: Seed = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        read(self.x, self.levels, self.data_range)

    def __call__(self, progress: Progress) -> dict[str, float]:
        model = progress.model if self.sde is None else progress.model.on(self.sde)
        more = dict(self.options)
        if self.levels is not None:
            more |= {"levels": self.levels, "data_range": self.data_range}
        with torch.no_grad():
            bound = variational_bound(model.sde, model, self.x, seed=self.seed, **more)
        if self.levels is None:
            return {"bound_nats": float(bound.total.mean())}
        return {"bound_bits": float(bound.bits_per_dim.mean())}


@checked
@dataclass(frozen=True)
class Metric:
    """A metric of images, such as torchmetrics' FID and KID, between samples of the averaged model and data.

    The metric is called as ``reset()``, ``update(images, real=True)``, ``update(images, real=False)`` and
    ``compute()``, which returns a number, a pair (mean, standard deviation), or a mapping of numbers. It gets images of
    one or three channels as uint8 ``(n, 3, h, w)``, and other events as they are.

    Args:
        metric: a new metric for this callback.
        real: data in the network's units, ``(n, *event)``; None if the metric has them already and keeps them when it
            is reset, as torchmetrics' metrics with ``reset_real_features=False`` do.
        samples: how samples are drawn: their number, shape, seed, process and sampler; no picture is written.
        name: of the figure; that of the metric's class by default. A standard deviation is called ``name_std``.
        batch: the number of samples that are drawn, and given to the metric, at once.

    Raises:
        NonFiniteError: the metric is NaN or infinite.

    Example:
        >>> class Difference:
        ...     def reset(self):
        ...         self.means = {}
        ...
        ...     def update(self, images, real):
        ...         self.means[real] = images.mean()
        ...
        ...     def compute(self):
        ...         return (self.means[True] - self.means[False]).abs()
        >>> model = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(
        ...     scoresde.VPSDE()
        ... )
        >>> few = SampleCallback((2,), 4, sampler={"method": "ddim", "steps": 2})
        >>> sorted(Metric(Difference(), torch.zeros(8, 2), few)(Progress(1, model, None)))
        ['Difference']
    """

    metric: Any
    real: Tensor | None
    samples: SampleCallback
    name: str = ""
    batch: Many = 256

    def __post_init__(self) -> None:
        calls = ("update", "compute", "reset")
        if isinstance(self.metric, type) or not all(callable(getattr(self.metric, call, None)) for call in calls):
            got = named(self.metric)
            raise InvalidTypeError(f"`metric` must have update(images, real=…), compute() and reset(), got {got}.")
        if getattr(self.metric, "normalize", False) is True:
            raise InvalidArgumentError("`metric` gets bytes 0 … 255; make it with normalize=False.")
        keeps = getattr(self.metric, "reset_real_features", True) is False
        if keeps != (self.real is None):
            raise InvalidArgumentError(
                "`real` must be None for a metric that keeps its data (reset_real_features=False), else data."
            )
        if self.real is not None:
            check_batch("real", check_state("real", self.real), self.samples.event_shape)
            check_finite_rows("`real`", self.real)

    def __call__(self, progress: Progress) -> dict[str, float]:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.samples.seed)  # of metrics that draw subsets
            self.metric.reset()
            for x in () if self.real is None else self.real.split(self.batch):
                self.metric.update(self._images(x), real=True)
            for x in self._batches(progress):
                self.metric.update(self._images(x), real=False)
            figures = self._figures(self.metric.compute())
        for name, value in figures.items():
            if not math.isfinite(value):
                raise NonFiniteError(f"The metric {name} is {value} at step {progress.step}; give it more samples.")
        return figures

    def _batches(self, progress: Progress) -> Iterator[Tensor]:
        places = range(self.samples.num)
        for start in places[:: self.batch]:
            yield self.samples._drawn(progress, places[start : start + self.batch])

    def _images(self, x: Tensor) -> Tensor:
        x = x.to(getattr(self.metric, "device", x.device))
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            return x
        low, high = self.samples.data_range
        grey = (255 * (x.float() - low) / (high - low)).round().clamp(0, 255)
        return grey.to(torch.uint8).expand(-1, 3, -1, -1)

    def _figures(self, result: Any) -> dict[str, float]:
        if isinstance(result, Mapping):
            return {str(name): float(value) for name, value in result.items()}
        name = self.name or type(self.metric).__name__
        values = result if isinstance(result, tuple | list) else (result,)
        return {key: float(value) for key, value in zip((name, f"{name}_std"), values, strict=False)}
