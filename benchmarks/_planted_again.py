"""More planted faults and sound samplers, by an independent examiner who had not seen how `scoresde.diagnose` works.

They are as in `benchmarks._planted_blind`, but of other kinds: other processes, data, networks and methods, and most of
the faults are milder. The names were decided before `diagnose` was run on any of them.

The docstrings have what was measured to see that a fault is real. There "energy" is the energy distance of ``pilot``
samples to the held-out data, both divided by the standard deviation of the training data; training data have 0, give or
take 0.03. Each sound sampler passed a permutation test of this distance, at level 0.05, with 1000 samples.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

import scoresde
from benchmarks._planted_blind import Case, _mlp, _seeded, _train
from scoresde import discrete, guidance, targets
from scoresde.core import sdes
from scoresde.training import digits_split, grey_to_x


class _Denoiser(nn.Module):
    """EDM's denoiser D(y, sigma) of data that F saw as (y - mean) / scale, where they have standard deviation 1."""

    mean: Tensor
    scale: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        z, rho = (y - self.mean) / self.scale, sigma / self.scale
        size = (rho.square() + 1).sqrt()[:, None]
        output = self.net(z / size, rho.log() / 4)
        return self.mean + self.scale * (z / size**2 + rho[:, None] / size * output)


def _fields(count: int, shape: tuple[int, int, int], length: float, floor: float, seed: int) -> Tensor:
    """Covariances of smooth random fields of unit variance, stretched in another direction in each of ``count``."""
    channels, height, width = shape
    rows, columns = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    mixing = torch.randn(count, channels, channels, dtype=torch.float64, generator=_seeded(seed))
    covs = []
    for k in range(count):
        angle = math.pi * k / count
        along = (math.cos(angle) * rows + math.sin(angle) * columns).flatten()
        across = (math.cos(angle) * columns - math.sin(angle) * rows).flatten()
        square = ((along[:, None] - along) / (2 * length)).square() + ((across[:, None] - across) / length).square()
        colour = mixing[k] @ mixing[k].T + 0.3 * torch.eye(channels, dtype=torch.float64)
        spread = colour.diagonal().rsqrt()
        cov = torch.kron(colour * spread[:, None] * spread, (-square / 2).exp())
        covs.append((1 - floor) * cov + floor * torch.eye(len(cov), dtype=torch.float64))
    return torch.stack(covs).float()


def two_hundred_and_fifty_levels() -> dict[str, Any]:
    """DDPM's betas, 1e-4 to 0.02, with 250 levels for its 1000: 0.28 of the data is left at the noisiest level.

    Energy: 0.13, and 0.00 with 1000 levels.
    """
    sde = discrete.BetaChain.linear(250, beta_min=1e-4, beta_max=0.02).sde()
    means = 1.0 + torch.randn(3, 12, generator=_seeded(101))
    target = targets.GaussianMixture(torch.tensor([2.0, 1.0, 1.0]), means, scales=torch.tensor([0.3, 0.5, 0.4]))
    data, held_out = target.sample(4000, generator=_seeded(102)).split(2000)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "dpmpp_3m",
        "steps": 40,
        "pilot": 256,
        "seed": 103,
    }


def ddim_in_ten_steps() -> dict[str, Any]:
    """DDIM, of order 1, takes ten steps for images of smooth textures.

    Energy: 0.06, and -0.01 for 60 steps of unipc3; the standard deviation is 0.92 for 1.10.
    """
    sde = scoresde.VPSDE()
    means = 0.5 * torch.randn(4, 3, 4, 4, generator=_seeded(104))
    target = targets.GaussianMixture(torch.ones(4), means, covs=_fields(4, (3, 4, 4), 2.0, 0.01, 105))
    data, held_out = target.sample(3000, generator=_seeded(106)).split(1500)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "ddim",
        "steps": 10,
        "pilot": 192,
        "seed": 107,
    }


def sigma_for_its_logarithm() -> dict[str, Any]:
    """F of EDM's preconditioning, which was trained with a quarter of log(sigma / alpha), receives sigma.

    Energy: 0.05, and 0.00 with the right time; the median distance to the training data is 0.77 for 0.11.
    """
    sde = scoresde.VPSDE()
    generator = _seeded(108)
    angle = 2 * math.pi * torch.rand(8000, generator=generator)
    circle = torch.stack([angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()], 1)
    data, held_out = (1.3 * circle + 0.15 * torch.randn(8000, 4, generator=generator)).split(4000)
    net = _train(_mlp(109, 4), data, 1.0, 2000, seed=111)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(net, sde, "edm", "sigma", sigma_data=1.0),
        "data": data,
        "held_out": held_out,
        "method": "dpmpp_2m",
        "steps": 30,
        "pilot": 256,
        "seed": 112,
    }


def clusters_in_a_hurry() -> dict[str, Any]:
    """A network of twelve narrow clusters in six dimensions was trained for 80 batches, a twentieth of what it takes.

    Energy: 0.05, and 0.02 after 1500 batches; the median distance to the training data is 0.74 for 0.13.
    """
    sde = scoresde.SubVPSDE()
    generator = _seeded(113)
    centres = 0.9 * (torch.randint(3, (12, 6), generator=generator) - 1)
    which = torch.randint(12, (8000,), generator=generator)
    points = centres[which] + 0.12 * torch.randn(8000, 6, generator=generator)
    data, held_out = points.split(4000)
    net = _train(_mlp(114, 6), data, 0.75, 80, seed=115)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(net, sde, "edm", sigma_data=0.75),
        "data": data,
        "held_out": held_out,
        "method": "rk45",
        "rtol": 1e-3,
        "pilot": 256,
        "seed": 116,
    }


def wines_for_too_long() -> dict[str, Any]:
    """A network was trained on 89 wines, a table of 13 columns, for 1,900 batches of 256 rows.

    At noise 0.5 its squared error is 0.05 for the wines that it was trained on and 0.25 for others. Of the samples 62 %
    are less than half as far from one of those as from any other; of held-out wines, 1 %.
    """
    from sklearn.datasets import load_wine

    table = torch.as_tensor(load_wine(return_X_y=True)[0], dtype=torch.float32)
    table = ((table - table.mean(0)) / table.std(0))[torch.randperm(len(table), generator=_seeded(117))]
    data, held_out = table.split(89)
    sde = scoresde.VESDE(sigma_max=80.0)
    net = _train(_mlp(118, 13, channels=128), data, 1.0, 1900, seed=119)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(net, sde, "edm", sigma_data=1.0),
        "data": data,
        "held_out": held_out,
        "method": "rho_heun",
        "steps": 25,
        "pilot": 128,
        "seed": 120,
    }


def latents_clipped_as_pixels() -> dict[str, Any]:
    """Latents of standard deviation 1 are clipped to -1 to 1, as is right for pixels; 31 % of their values are outside.

    Energy: 0.27, and 0.00 without clipping.
    """
    sde = scoresde.VDMSDE()
    means = 0.6 * torch.randn(3, 2, 4, 4, generator=_seeded(121))
    target = targets.GaussianMixture(torch.ones(3), means, covs=0.6 * _fields(3, (2, 4, 4), 1.0, 0.1, 122))
    data, held_out = target.sample(3000, generator=_seeded(123)).split(1500)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "unipc3",
        "steps": 40,
        "clip": (-1.0, 1.0),
        "pilot": 192,
        "seed": 124,
    }


class _Classes:
    """Classes N(m_y, s^2 I) in equal shares: their mixture, and the classifier of noisy data that belongs to it."""

    def __init__(self, sde: scoresde.AffineSDE, means: Tensor, scale: float) -> None:
        self.sde, self.means, self.scale = sde, means, scale
        self.target = targets.GaussianMixture(torch.ones(len(means)), means, scales=scale)

    def log_prob(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.target.log_responsibilities(x, self.sde, t).gather(1, y[:, None])[:, 0]

    def points(self, y: Tensor, seed: int) -> Tensor:
        return self.means[y] + self.scale * torch.randn(len(y), *self.means.shape[1:], generator=_seeded(seed))


def classifier_times_four() -> dict[str, Any]:
    """Guidance by a classifier of noisy data, of scale 4, where 1 gives the distribution of a class.

    Energy, with the labels: 0.15, and 0.00 for scale 1; the standard deviation is 1.23 for 0.88.
    """
    sde = scoresde.SubVPSDE()
    classes = _Classes(sde, 0.7 * torch.randn(5, 6, generator=_seeded(125)), 0.6)
    y = torch.randint(5, (4000,), generator=_seeded(126))
    points = classes.points(y, 127)
    return {
        "sde": sde,
        "score_fn": guidance.classifier_guidance(classes.target.score(sde), classes.log_prob, 4.0, sde=sde),
        "data": points[:2000],
        "held_out": (points[2000:], {"y": y[2000:]}),
        "context": {"y": y[:2000]},
        "method": "dpmpp_2m",
        "steps": 40,
        "pilot": 256,
        "seed": 128,
    }


def pressures_in_bfloat16() -> dict[str, Any]:
    """A network standardises pressures itself, in bfloat16, where numbers near 1013 hPa are 4 hPa apart.

    Energy: 0.14 to 0.21, and 0.00 in float32.
    """
    generator = _seeded(129)
    weather = torch.randn(8000, 2, generator=generator) @ torch.randn(2, 6, generator=generator)
    points = 1013.0 + 4.0 * (weather + 0.3 * torch.randn(8000, 6, generator=generator)).tanh()
    data, held_out = points.split(4000)
    mean, scale = data.mean().view(1), data.std().view(1)
    sde = scoresde.EDMSDE(0.02, 400.0, prior=sdes.NormalPrior(400.0, 1013.0))
    net = _train(_mlp(130, 6), (data - mean) / scale, 1.0, 2000, seed=131)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(_Denoiser(net, mean, scale).bfloat16(), sde, "data", "sigma"),
        "data": data,
        "held_out": held_out,
        "method": "rho_heun",
        "steps": 25,
        "half_precision": torch.bfloat16,
        "pilot": 192,
        "seed": 132,
    }


def returns_in_fractions() -> dict[str, Any]:
    """EDM's sigma_min, 0.002, is left on daily returns in fractions, whose standard deviation is about 0.005.

    Energy: 0.04, and 0.32 in the coordinates in which the data are white; 0.01 and 0.00 with sigma_min = 2e-5.
    """
    sde = scoresde.EDMSDE()
    factor = 0.004 * torch.randn(3, 8, 2, generator=_seeded(133))
    size = torch.tensor([0.6, 1.0, 2.0])[:, None, None]  # calm, usual, wild
    covs = size.square() * (factor @ factor.mT + 0.001**2 * torch.eye(8))
    target = targets.GaussianMixture(torch.tensor([5.0, 4.0, 1.0]), torch.full((3, 8), 0.0004), covs=covs)
    data, held_out = target.sample(4000, generator=_seeded(134)).split(2000)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "dpmpp_2m",
        "steps": 80,
        "pilot": 256,
        "seed": 135,
    }


def labels_counted_from_one() -> dict[str, Any]:
    """The labels of digits are counted from one, and 0 is the tenth, as in some files; the network counts from zero.

    The nearest training digit is of the class that was asked for for 0.6 % of the samples, and for 96 % with the right
    labels.
    """
    sde, split = scoresde.FlowSDE(), digits_split()
    generator = _seeded(157)
    data, held_out = grey_to_x(split.train_images, generator), grey_to_x(split.test_images, generator)
    return {
        "sde": sde,
        "score_fn": scoresde.load("digits").score(sde),
        "data": data,
        "held_out": (held_out, {"label": (split.test_labels + 9) % 10}),
        "context": {"label": (split.train_labels + 9) % 10},
        "method": "dpm_3m",
        "steps": 20,
        "pilot": 128,
        "seed": 136,
    }


def moons_in_bfloat16() -> dict[str, Any]:
    """Nothing is wrong: a network of two blurred moons in bfloat16, which takes what it is given normalised.

    In float32 the same noise gives the same samples, within 0.01.
    """
    sde = scoresde.FlowSDE()
    generator = _seeded(137)
    angle = math.pi * torch.rand(24000, generator=generator)
    upper = torch.randint(2, (24000,), generator=generator) * 2 - 1
    points = torch.stack([angle.cos() + upper / 2, upper * (angle.sin() - 0.3)], 1)
    points = points + 0.15 * torch.randn(24000, 2, generator=generator)
    data, held_out = points[:20000], points[20000:]
    net = _train(_mlp(138, 2, channels=64), data, 0.8, 2400, seed=139)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(net.bfloat16(), sde, "edm", sigma_data=0.8),
        "data": data,
        "held_out": held_out,
        "method": "midpoint",
        "steps": 25,
        "half_precision": torch.bfloat16,
        "pilot": 256,
        "seed": 140,
    }


def four_hundred_ancestral_steps() -> dict[str, Any]:
    """Nothing is wrong: DDPM's own stochastic steps, 400 of them, for correlated modes in 20 dimensions."""
    sde = sdes.SigmoidVPSDE()
    means = 0.8 * torch.randn(6, 20, generator=_seeded(141))
    factor = 0.35 * torch.randn(6, 20, 4, generator=_seeded(142))
    covs = factor @ factor.mT + 0.1 * torch.eye(20)
    target = targets.GaussianMixture(torch.tensor([3.0, 2, 2, 1, 1, 1]), means - means.mean(0), covs=covs)
    data, held_out = target.sample(3000, generator=_seeded(143)).split(1500)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "ancestral",
        "steps": 400,
        "pilot": 192,
        "seed": 144,
    }


def three_species() -> dict[str, Any]:
    """Nothing is wrong: a network with labels, trained long enough on three correlated classes in four dimensions."""
    sde = scoresde.VESDE(sigma_max=40.0)
    generator = _seeded(145)
    label = torch.multinomial(torch.tensor([3.0, 2.0, 1.0]), 24000, replacement=True, generator=generator)
    means, factor = torch.randn(3, 4, generator=generator), 0.45 * torch.randn(3, 4, 4, generator=generator)
    noise = torch.randn(24000, 4, generator=generator)
    points = means[label] + (factor[label] @ noise[:, :, None])[:, :, 0]
    net = _train(_mlp(146, 4, channels=64, labels=3), points[:20000], 1.0, 2400, label=label[:20000], seed=147)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(net, sde, "edm", sigma_data=1.0),
        "data": points[:20000],
        "held_out": (points[20000:], {"label": label[20000:]}),
        "context": {"label": label[:20000]},
        "method": "sa_solver",
        "steps": 60,
        "pilot": 256,
        "seed": 148,
    }


def textures() -> dict[str, Any]:
    """Nothing is wrong: images (2, 6, 6) of smooth textures, an exact score and an adaptive method."""
    sde = scoresde.CosineVPSDE()
    means = 0.3 * torch.randn(3, 2, 6, 6, generator=_seeded(149))
    target = targets.GaussianMixture(torch.ones(3), means, covs=0.7 * _fields(3, (2, 6, 6), 1.5, 0.02, 150))
    data, held_out = target.sample(2400, generator=_seeded(161)).split(1200)
    return {
        "sde": sde,
        "score_fn": target.score(sde),
        "data": data,
        "held_out": held_out,
        "method": "erk43",
        "rtol": 1e-3,
        "pilot": 192,
        "seed": 152,
    }


def shares_of_a_whole() -> dict[str, Any]:
    """Nothing is wrong: three of four shares of a whole, from 0 to 1, and a network that was trained well on them."""
    sde = scoresde.EDMSDE(sigma_max=20.0)
    parts = -torch.rand(24000, 10, generator=_seeded(153)).clamp(1e-7).log()  # of Dirichlet(2, 3, 2, 3)
    sums = torch.stack([part.sum(1) for part in parts.split([2, 3, 2, 3], 1)], 1)
    points = (sums / sums.sum(1, keepdim=True))[:, :3]
    data, held_out = points[:20000], points[20000:]
    net = _train(_mlp(154, 3, channels=64), data, 0.3, 2400, seed=155)
    return {
        "sde": sde,
        "score_fn": scoresde.ScoreModel(net, sde, "edm", sigma_data=0.3),
        "data": data,
        "held_out": held_out,
        "method": "restart",
        "steps": 30,
        "pilot": 256,
        "seed": 156,
    }


FAULTS: dict[str, Case] = {
    "two hundred and fifty levels": Case(two_hundred_and_fifty_levels, ("prior",)),
    "DDIM in ten steps": Case(ddim_in_ten_steps, ("steps",)),
    "sigma for its logarithm": Case(sigma_for_its_logarithm, ("network",)),
    "clusters in a hurry": Case(clusters_in_a_hurry, ("network",)),
    "wines for too long": Case(wines_for_too_long, ("overfitting", "memorisation")),
    "latents clipped as pixels": Case(latents_clipped_as_pixels, ("range",)),
    "classifier times four": Case(classifier_times_four, ("guidance",)),
    "pressures in bfloat16": Case(pressures_in_bfloat16, ("dtype",)),
    "returns in fractions": Case(returns_in_fractions, ("t_min",)),
    "labels counted from one": Case(labels_counted_from_one, ("labels",)),
}

SOUND: dict[str, Case] = {
    "moons in bfloat16": Case(moons_in_bfloat16, ()),
    "four hundred ancestral steps": Case(four_hundred_ancestral_steps, ()),
    "three species": Case(three_species, ()),
    "textures": Case(textures, ()),
    "shares of a whole": Case(shares_of_a_whole, ()),
}
