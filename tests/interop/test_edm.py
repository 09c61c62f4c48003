"""Networks of EDM and EDM2, whose published conventions are derived here by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import InvalidArgumentError, InvalidTypeError
from scoresde.interop import from_edm
from tests.interop.common import Net, same, solved

SHAPE = (2, 3, 8, 8)
CLASSES = 4


class Network(torch.nn.Module):
    """Table 1 of Karras et al. (2022), the column "Ours"; with a list of levels, those of iDDPM's column."""

    sigma_min, sigma_max = 0.0, math.inf
    img_channels, img_resolution = SHAPE[1:3]

    def __init__(self, label_dim: int = CLASSES, levels: Tensor | None = None, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.label_dim, self.sigma_data, self.levels = label_dim, sigma_data, levels
        self.raw = Net(classes=CLASSES, channels=SHAPE[1])
        if levels is not None:
            self.sigma_min, self.sigma_max = float(levels[-1]), float(levels[0])

    def round_sigma(self, sigma: Tensor) -> Tensor:
        sigma = torch.as_tensor(sigma)
        if self.levels is None:
            return sigma
        flat = (sigma.reshape(-1, 1) - self.levels.to(sigma)).abs().argmin(1)
        return self.levels[flat].to(sigma).reshape(sigma.shape)

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        x = x.to(self.raw.enter.dtype)
        sigma = self.round_sigma(sigma.to(x.dtype).reshape(-1)).reshape(-1, 1, 1, 1)
        labels = None
        if self.label_dim:
            labels = x.new_zeros(1, self.label_dim) if class_labels is None else class_labels
        size = (sigma**2 + self.sigma_data**2).sqrt()
        raw = self.raw(x / size, sigma.flatten().log() / 4, labels)
        return self.sigma_data**2 / size**2 * x + sigma * self.sigma_data / size * raw


def published(net: Network, x: Tensor, levels: int, labels: Tensor | None = None) -> Tensor:
    """Algorithm 1 without churn: Heun's steps on the Karras grid, then one to 0 without correction, in float64."""
    low, high = max(0.002, net.sigma_min), min(80.0, net.sigma_max)
    ramp = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    times = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    times = torch.cat([net.round_sigma(times), torch.zeros(1, dtype=torch.float64)])
    x = x * times[0]
    for now, then in itertools.pairwise(times):
        slope = (x - net(x, now.expand(len(x)), labels).double()) / now
        ahead = x + (then - now) * slope
        if then > 0:
            slope = 0.5 * (slope + (ahead - net(ahead, then.expand(len(x)), labels).double()) / then)
        x = x + (then - now) * slope
    return x


def start() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_published_sampler(labelled: bool, dtype: torch.dtype, tolerance: float) -> None:
    """Networks in single precision too, with the state in double precision on both sides, as published."""
    net = Network().to(dtype)
    model = from_edm(net)
    labels = torch.eye(CLASSES, dtype=dtype)[[3, 1]] if labelled else None
    with torch.no_grad():
        other = published(net, start(), 12, labels)
    context = {"class_labels": labels} if labelled else None
    same(solved(model, 80.0 * start(), "rho_heun", 11, denoise=True, context=context), other, tolerance)


def test_weights_in_half_precision_do_not_round_the_state() -> None:
    """EDM2's checkpoints have such weights, and its code computes in single precision around them: in half precision a
    state of size 1 has no noise of the level 0.002 left."""

    class Half(torch.nn.Module):  # of data N(0, 1/4)
        sigma_data = 0.5

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones((), dtype=torch.float16))
            self.seen: set[torch.dtype] = set()

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            self.seen |= {x.dtype, sigma.dtype}
            x, sigma = x.to(torch.float32), sigma.to(torch.float32).reshape(-1, 1)
            return self.weight.to(torch.float32) * x * 0.25 / (0.25 + sigma**2)

    net, x = Half(), start().flatten(1)
    model = from_edm(net)
    score = model(x, 0.002)
    assert net.seen == {torch.float32}
    assert (score + x / (0.25 + 0.002**2)).abs().max() < 0.2  # the resolution of x over sigma^2, some 1e-7 / 4e-6
    solved(model, 80.0 * x, "rho_heun", 4)
    assert net.seen == {torch.float32}


def test_a_network_with_few_levels_has_them_on_its_grid() -> None:
    levels = torch.logspace(2.5, -3, 60, dtype=torch.float64)
    net = Network(levels=levels)
    model = from_edm(net)
    with torch.no_grad():
        other = published(net, start(), 12)
    assert all(float((levels - t).abs().min()) < 1e-12 * t for t in (model.sde.t_min, model.sde.t_max))
    same(solved(model, model.sde.t_max * start(), "rho_heun", 11, denoise=True), other, 1e-11)


def test_what_is_read_from_the_network() -> None:
    model = from_edm(Network())
    assert model.event_shape == SHAPE[1:] and model.data_range == (-1.0, 1.0) and model.data_std == 0.5
    assert (model.sde.t_min, model.sde.t_max, model.prediction) == (0.002, 80.0, "data")
    net = Network()
    net.img_channels = 4  # the latent codes of EDM2, which declares no levels
    del net.label_dim
    model = from_edm(net, sigma_max=50.0, event_shape=(4, 2, 2))
    assert model.event_shape == (4, 2, 2) and model.data_range is None and model.sde.t_max == 50.0
    model = from_edm(lambda x, sigma: x)
    assert not hasattr(model, "event_shape") and model.data_std is None and model.grid is scoresde.grids.karras


def test_labels_that_the_network_would_misread_are_refused() -> None:
    options: dict[str, Any] = {"steps": 2, "method": "ddim", "shape": SHAPE, "seed": 0}
    with pytest.raises(InvalidArgumentError, match=r"`class_labels` must be one-hot, \(2, 4\)"):
        scoresde.solve(
            from_edm(Network()).sde, from_edm(Network()), context={"class_labels": torch.arange(2)}, **options
        )
    model = from_edm(Network(label_dim=0))
    with pytest.raises(InvalidArgumentError, match="class_labels"):
        scoresde.solve(model.sde, model, context={"class_labels": torch.eye(4)[:2]}, **options)


def test_levels_beyond_the_network_are_refused() -> None:
    net = Network(levels=torch.logspace(1, -2, 30, dtype=torch.float64))
    assert from_edm(net).sde.t_max == 10.0
    with pytest.raises(
        InvalidArgumentError, match=r"`sigma_max` must be in .*\(the network's own levels: net.sigma_max\)"
    ):
        from_edm(net, sigma_max=80.0)
    with pytest.raises(InvalidArgumentError, match="`sigma_min`"):
        from_edm(net, sigma_min=0.001)
    with pytest.raises(InvalidTypeError, match="`net` must be callable"):
        from_edm(3)  # type: ignore[arg-type]
