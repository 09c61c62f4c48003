"""Callbacks that examine a network while it is trained; see `scoresde.training.Every`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._checks import MOST_DRAWS, check_integer, check_interval, check_kind, check_shape
from ..likelihood import variational_bound
from ..likelihood.bounds.terms import read
from ..noise import check_seed
from ..plot import image_grid
from ..scores import Clip
from ..sdes import AffineSDE
from ..solving import solve
from .trainer import Progress


@dataclass(frozen=True)
class Samples:
    """Samples of the averaged model: a picture ``samples/step-….png`` of images, and their standard deviation.

    Args:
        event_shape: the shape of one sample.
        num: how many.
        sde: the process; the model's own by default.
        sampler: arguments of `scoresde.solve`.
        data_range: the values of black and white.
        clip: the range that the data estimate is limited to, or None.
        seed: sample i is drawn with seed + i, so that pictures of different steps can be compared.

    Example:
        >>> model = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(scoresde.VPSDE())
        >>> sorted(Samples((2,), 4, sampler={"method": "ddim", "steps": 2})(Progress(1, model, None)))
        ['samples_std']
    """

    event_shape: tuple[int, ...]
    num: int = 64
    sde: AffineSDE | None = None
    sampler: Mapping[str, Any] = field(default_factory=lambda: {"method": "auto", "steps": 20})
    data_range: tuple[float, float] = (-1.0, 1.0)
    seed: int = 0
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_shape("event_shape", self.event_shape, rank=1)
        check_integer("num", self.num, low=1, high=MOST_DRAWS)
        check_kind("sde", self.sde, (AffineSDE, type(None)), "an affine process, or None")
        check_kind("sampler", self.sampler, Mapping, "a mapping of arguments of scoresde.solve")
        check_interval("data_range", self.data_range)
        check_seed("seed", self.seed)
        if self.clip is not None:
            check_interval("clip", self.clip)

    def __call__(self, progress: Progress) -> dict[str, float]:
        model = progress.model if self.sde is None else progress.model.on(self.sde)
        parameters = model.net.parameters() if hasattr(model, "net") else ()
        x = solve(
            model.sde,
            model if self.clip is None else Clip(model, *self.clip),
            shape=(self.num, *self.event_shape),
            seeds=[self.seed + i for i in range(self.num)],
            device=next((parameter.device for parameter in parameters), None),
            **{"denoise": True, **self.sampler},
        ).x
        if progress.folder is not None and len(self.event_shape) == 3 and self.event_shape[0] in (1, 3):
            pictures = progress.folder / "samples"
            pictures.mkdir(parents=True, exist_ok=True)
            image_grid(x, pictures / f"step-{progress.step:010d}.png", data_range=self.data_range)
        return {"samples_std": float(x.std())}


@dataclass(frozen=True)
class Bound:
    r"""The variational bound of the averaged model on held-out data: bits per dimension for grey levels, else nats.

    Args:
        x: held-out samples ``(n, *event)``: grey levels if ``levels`` is given, else in the network's units.
        levels, data_range: of the data; see `scoresde.variational_bound`.
        sde: the process; the model's own by default.
        seed: of the draws.
        options: of `scoresde.variational_bound`.

    Example:
        >>> model = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(scoresde.VPSDE())
        >>> sorted(Bound(torch.zeros(4, 2))(Progress(1, model, None)))
        ['bound_nats']
    """

    x: Tensor
    levels: int | None = None
    data_range: tuple[float, float] = (-1.0, 1.0)
    sde: AffineSDE | None = None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_interval("data_range", self.data_range)
        read(self.x, self.levels, self.data_range)
        check_kind("sde", self.sde, (AffineSDE, type(None)), "an affine process, or None")
        check_seed("seed", self.seed)
        check_kind("options", self.options, Mapping, "a mapping of arguments of scoresde.variational_bound")

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
