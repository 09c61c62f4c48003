"""Faults planted in samplers, and sound samplers, by someone who had not seen how `scoresde.diagnose` works.

Each case has the arguments of `scoresde.diagnose` and the names that may come first in what it finds; () stands for a
sampler that nothing limits. The names were decided before `diagnose` was run on any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import scoresde
from scoresde import guidance, targets
from scoresde.training import digits_split, grey_to_x


@dataclass(frozen=True)
class Case:
    """The arguments of `scoresde.diagnose`, and the names that may come first; () if nothing should be found."""

    arguments: Callable[[], dict[str, Any]]
    accepted: tuple[str, ...]


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _train(
    net: nn.Module,
    data: Tensor,
    sigma_data: float,
    steps: int,
    *,
    label: Tensor | None = None,
    batch: int = 256,
    rate: float = 2e-3,
    seed: int = 0,
) -> nn.Module:
    """Train F of EDM's preconditioning, with noise levels from 0.003 to 100 about."""
    generator = _seeded(seed)
    optimiser = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    each = (-1,) + (1,) * (data.ndim - 1)
    for _ in range(steps):
        rows = torch.randint(len(data), (batch,), generator=generator)
        sigma = (1.7 * torch.randn(batch, generator=generator) - 0.9 + math.log(2 * sigma_data)).exp().view(each)
        y = data[rows] + sigma * torch.randn(data[rows].shape, generator=generator)
        size = (sigma.square() + sigma_data**2).sqrt()
        wanted = (data[rows] - (sigma_data / size) ** 2 * y) / (sigma * sigma_data / size)
        inputs = (y / size, sigma.flatten().log() / 4)
        output = net(*inputs) if label is None else net(*inputs, label[rows])
        loss = (output - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def _mlp(seed: int, *shape: int, channels: int = 96, labels: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return scoresde.nets.MLP(shape, channels=channels, blocks=3, labels=labels)


def latents_not_normalised() -> dict[str, Any]:
    """Latents of mean 20 and standard deviation 7 are used as they are: at ``t_max`` 0.8 % of them is left."""
    sde = scoresde.CosineVPSDE()
    means = 20 + 6 * torch.randn(5, 16, generator=_seeded(1))
    target = targets.GaussianMixture(torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0]), means, scales=3.0)
    data, held_out = target.sample(2000, generator=_seeded(2)).split(1000)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "dpmpp_2m",
        "steps": 30,
        "pilot": 256,
        "seed": 3,
    }


def euler_in_a_hurry() -> dict[str, Any]:
    """Euler-Maruyama, which needs hundreds of steps, takes 8 for a ring of eight narrow modes."""
    sde = scoresde.SubVPSDE()
    angle = torch.arange(8) * math.pi / 4
    target = targets.GaussianMixture(torch.ones(8), torch.stack([angle.cos(), angle.sin()], 1), scales=0.08)
    data, held_out = target.sample(3000, generator=_seeded(4)).split(1500)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "euler_maruyama",
        "steps": 8,
        "pilot": 256,
        "seed": 5,
    }


def sigma_data_left_at_its_default() -> dict[str, Any]:
    """A network that was trained with ``sigma_data=2`` is wrapped with EDM's default, 0.5."""
    sde = scoresde.EDMSDE()
    means = 1.8 * torch.randn(4, 6, generator=_seeded(6))
    target = targets.GaussianMixture(torch.ones(4), means - means.mean(0), scales=0.9)
    data, held_out = target.sample(6000, generator=_seeded(7)).split(3000)
    net = _train(_mlp(8, 6), data, 2.0, 1500, seed=9)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(net, sde, "edm", sigma_data=0.5),
        "data": data,
        "held_out": held_out,
        "method": "heun",
        "steps": 25,
        "pilot": 192,
        "seed": 10,
    }


def trained_for_a_second() -> dict[str, Any]:
    """A U-Net of digits saw fifteen batches only."""
    sde, split = scoresde.FlowSDE(), digits_split()
    data, held_out = grey_to_x(split.train_images), grey_to_x(split.test_images)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        net = scoresde.nets.UNet((1, 8, 8), channels=16, blocks=1)
    generator, optimiser = _seeded(12), torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(15):
        x = data[torch.randint(len(data), (64,), generator=generator)]
        t, noise = torch.rand(64, generator=generator), torch.randn(x.shape, generator=generator)
        late = t.view(-1, 1, 1, 1)
        loss = (net((1 - late) * x + late * noise, t) - (noise - x)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(net.eval().requires_grad_(False), sde, "flow"),
        "data": data,
        "held_out": held_out,
        "method": "midpoint",
        "steps": 20,
        "pilot": 128,
        "seed": 13,
    }


def forty_digits_by_heart() -> dict[str, Any]:
    """A network was trained on forty digits until it knew them by heart."""
    sde, split = scoresde.VPSDE(), digits_split()
    data, held_out = grey_to_x(split.train_images)[:40], grey_to_x(split.test_images)
    net = _train(_mlp(14, 1, 8, 8, channels=128), data, 0.7, 2500, seed=15)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(net, sde, "edm", sigma_data=0.7),
        "data": data,
        "held_out": held_out,
        "method": "unipc",
        "steps": 20,
        "pilot": 128,
        "seed": 16,
    }


def digits_from_zero_to_one() -> dict[str, Any]:
    """The data are grey values from 0 to 1, and the network's are from -1 to 1."""
    sde, split = scoresde.VPSDE(), digits_split()
    return {
        "sde": sde,
        "score_fn": scoresde.load("digits").score(sde),
        "data": split.train_images.float().view(-1, 1, 8, 8) / 16,
        "held_out": split.test_images.float().view(-1, 1, 8, 8) / 16,
        "method": "dpmpp_2m",
        "steps": 20,
        "pilot": 96,
        "seed": 17,
    }


def guided_eightfold() -> dict[str, Any]:
    """Classifier-free guidance of scale 8, where 1 gives the conditional distribution."""
    sde, split, network = scoresde.EDMSDE(), digits_split(), scoresde.load("digits")
    data, held_out = grey_to_x(split.train_images), grey_to_x(split.test_images)
    return {
        "sde": sde,
        "score_fn": guidance.classifier_free(network.score(sde), network.score(sde), 8.0),
        "data": data,
        "held_out": (held_out, {"label": split.test_labels}),
        "context": {"label": split.train_labels},
        "method": "dpmpp_2m",
        "steps": 30,
        "pilot": 96,
        "seed": 18,
    }


class _NaiveMixture(nn.Module):
    """The denoiser of a mixture in the dtype of its weights; squared distances above 65,504 are infinite in float16."""

    def __init__(self, means: Tensor, scale: float) -> None:
        super().__init__()
        self.means, self.scale = nn.Parameter(means.clone(), requires_grad=False), scale

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        variance = sigma[:, None].square() + self.scale**2  # (batch, 1)
        squares = (x[:, None] - self.means).square().sum(2)  # (batch, K)
        centre = (-squares / variance / 2).softmax(1).nan_to_num(0.0) @ self.means
        return centre + self.scale**2 / variance * (x - centre)


def bytes_in_float16() -> dict[str, Any]:
    """Pixels from 0 to 255 go through a float16 network, whose squared distances overflow and are then set to 0."""
    sde = scoresde.VESDE(sigma_min=0.5, sigma_max=2000.0)
    means = 255 * torch.rand(6, 16, generator=_seeded(19))
    target = targets.GaussianMixture(torch.ones(6), means, scales=12.0)
    data, held_out = target.sample(2000, generator=_seeded(20)).split(1000)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(_NaiveMixture(means, 12.0).half(), sde, "data", "sigma"),
        "data": data,
        "held_out": held_out,
        "method": "dpmpp_2m",
        "steps": 40,
        "half_precision": torch.float16,
        "pilot": 192,
        "seed": 21,
    }


def stopped_at_an_eighth() -> dict[str, Any]:
    """The solve ends at t = 0.125, where noise of 0.125 is left in images whose standard deviation is about 0.5."""
    sde = scoresde.FlowSDE(t_min=0.125)
    means = torch.rand(6, 3, 4, 4, generator=_seeded(22)) * 1.6 - 0.8
    target = targets.GaussianMixture(torch.ones(6), means, scales=0.06)
    data, held_out = target.sample(1600, generator=_seeded(23)).split(800)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "heun",
        "steps": 30,
        "pilot": 192,
        "seed": 24,
    }


def labels_in_another_order() -> dict[str, Any]:
    """The labels were shuffled before the training, so that the network learned to ignore them."""
    sde = scoresde.VPSDE()
    means = torch.randn(4, 12, generator=_seeded(25))
    label = torch.randint(4, (4000,), generator=_seeded(26))
    points = (means - means.mean(0))[label] + 0.5 * torch.randn(4000, 12, generator=_seeded(27))
    data, held_out = points.split(2000)
    shuffled = label[:2000][torch.randperm(2000, generator=_seeded(28))]
    net = _train(_mlp(29, 12, labels=4), data, 1.0, 1200, label=shuffled, seed=30)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(net, sde, "edm", sigma_data=1.0),
        "data": data,
        "held_out": (held_out, {"label": label[2000:]}),
        "context": {"label": label[:2000]},
        "method": "dpmpp_2m",
        "steps": 30,
        "pilot": 192,
        "seed": 31,
    }


def heavy_tails() -> dict[str, Any]:
    """Nothing is wrong: the data have heavy tails (a kurtosis of about 9), few rows, and an exact score."""
    sde = scoresde.VESDE(sigma_max=150.0)
    target = targets.GaussianMixture(
        torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.zeros(4, 3) + 1.0, scales=torch.tensor([0.3, 1.0, 3.0, 8.0])
    )
    data, held_out = target.sample(800, generator=_seeded(32)).split(400)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "adams",
        "rtol": 1e-3,
        "pilot": 192,
        "seed": 33,
    }


def many_dimensions() -> dict[str, Any]:
    """Nothing is wrong: 64 dimensions, of which five carry most of the variance, and an exact score."""
    sde = scoresde.SubVPSDE()
    factor = 0.6 * torch.randn(64, 5, generator=_seeded(34))
    target = targets.Gaussian(0.3 * torch.randn(64, generator=_seeded(35)), targets.LowRank(factor, 0.04))
    data, held_out = target.sample(2000, generator=_seeded(36)).split(1000)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "dpmpp_2m",
        "steps": 60,
        "pilot": 256,
        "seed": 37,
    }


class _ByClass:
    """The exact score of class y, N(m_y, s_y^2 I)."""

    def __init__(self, sde: scoresde.AffineSDE, means: Tensor, scales: Tensor) -> None:
        self.sde, self.means, self.scales = sde, means, scales

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        alpha, sigma = (torch.as_tensor(f(t)).to(x).reshape(-1, 1) for f in (self.sde.alpha, self.sde.sigma))
        mean, scale = self.means.to(x)[y], self.scales.to(x)[y][:, None]
        return (alpha * mean - x) / ((alpha * scale) ** 2 + sigma**2)


def classes() -> dict[str, Any]:
    """Nothing is wrong: five classes of different widths and shares in ten dimensions, each with its exact score."""
    sde = scoresde.FlowSDE()
    means, scales = 1.2 * torch.randn(5, 10, generator=_seeded(38)), torch.tensor([0.3, 0.5, 0.2, 0.8, 0.4])
    y = torch.multinomial(torch.tensor([1.0, 4, 2, 2, 1]), 3000, replacement=True, generator=_seeded(39))
    points = means[y] + scales[y, None] * torch.randn(3000, 10, generator=_seeded(40))
    return {
        "sde": sde,
        "score_fn": _ByClass(sde, means, scales),
        "data": points[:1500],
        "held_out": (points[1500:], {"y": y[1500:]}),
        "context": {"y": y[:1500]},
        "method": "unipc",
        "steps": 30,
        "pilot": 256,
        "seed": 41,
    }


def trained_well() -> dict[str, Any]:
    """Nothing is wrong: a network was trained on 20,000 points of a smooth banana for long enough."""
    sde = scoresde.EDMSDE()
    z = torch.randn(24000, 2, generator=_seeded(42))
    points = torch.stack([z[:, 0], 0.6 * z[:, 0].square() - 0.6 + 0.5 * z[:, 1]], 1)
    data, held_out = points[:20000], points[20000:]
    net = _train(_mlp(43, 2, channels=64), data, 1.0, 4000, seed=44)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(net, sde, "edm", sigma_data=1.0),
        "data": data,
        "held_out": held_out,
        "method": "heun",
        "steps": 25,
        "pilot": 256,
        "seed": 45,
    }


def clipped_where_it_does_no_harm() -> dict[str, Any]:
    """Nothing is wrong: images of uniform pixels from -1 to 1, whose data estimate is clipped to that range."""
    sde = scoresde.CosineVPSDE()
    target = targets.Uniform(-torch.ones(1, 4, 4), 1.0)
    data, held_out = target.sample(3000, generator=_seeded(46)).split(1500)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "dpmpp_2m_sde",
        "steps": 80,
        "clip": (-1.0, 1.0),
        "pilot": 192,
        "seed": 47,
    }


FAULTS: dict[str, Case] = {
    "latents not normalised": Case(latents_not_normalised, ("prior",)),
    "Euler-Maruyama in a hurry": Case(euler_in_a_hurry, ("steps",)),
    "sigma_data left at its default": Case(sigma_data_left_at_its_default, ("network",)),
    "trained for a second": Case(trained_for_a_second, ("network",)),
    "forty digits by heart": Case(forty_digits_by_heart, ("overfitting", "memorisation")),
    "digits from zero to one": Case(digits_from_zero_to_one, ("range",)),
    "guided eightfold": Case(guided_eightfold, ("guidance",)),
    "bytes in float16": Case(bytes_in_float16, ("dtype",)),
    "stopped at an eighth": Case(stopped_at_an_eighth, ("t_min",)),
    "labels in another order": Case(labels_in_another_order, ("labels",)),
}

SOUND: dict[str, Case] = {
    "heavy tails": Case(heavy_tails, ()),
    "many dimensions": Case(many_dimensions, ()),
    "classes": Case(classes, ()),
    "trained well": Case(trained_well, ()),
    "clipped where it does no harm": Case(clipped_where_it_does_no_harm, ()),
}
