"""The problems of `benchmarks.few`: networks and exact scores, one half to choose a rule on and one to report it on.

The small networks are trained here, by seed, in a minute or two altogether on two cores; ``folder`` keeps them.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import scoresde
from benchmarks.work_precision import gaussian, ring
from scoresde import guidance
from scoresde.nets import MLP
from scoresde.scores import Clip, GaussianAbove
from scoresde.scores.high_noise import best_of
from scoresde.targets import Gaussian, GaussianMixture, Uniform

F64 = torch.float64
PILOT = 16
POSTERIOR = scoresde.VPSDE(beta_min=1e-6, beta_max=32.0, t_min=2e-3)  # sigma / alpha = 2981 at t_max


@dataclass(frozen=True)
class Problem:
    """A process, a score and states at its end.

    Attributes:
        name: of the problem.
        half: ``"choose"``, ``"report"``, or ``"foreign"``, a network of somebody else.
        kind: ``"network"`` or ``"exact"``.
        sde, score, x: the process, the score and states at t_max; the first `PILOT` of them are pilots.
        sharp: the score in float64, for the reference.
        context: of all states.
        tolerance: of the tighter reference; that of its kind if it is None.
        method: of the reference.
    """

    name: str
    half: str
    kind: str
    sde: Any
    score: Any
    x: Tensor
    sharp: Any
    context: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float | None = None
    method: str = "adams"


def draws(seed: int) -> torch.Generator:
    """A source of noise."""
    return torch.Generator().manual_seed(seed)


# The data of small networks: samples, or pairs of samples and observations.


def roll(count: int, source: torch.Generator) -> Tensor:
    """A Swiss roll in two dimensions, of width 0.02."""
    angle = 1.5 * math.pi * (1 + 2 * torch.rand(count, generator=source))
    x = torch.stack([angle * angle.cos(), angle * angle.sin()], 1) / 8
    return x + 0.02 * torch.randn(count, 2, generator=source)


def mixture16(count: int, source: torch.Generator) -> Tensor:
    """Ten normals in 16 dimensions, of widths from 0.03 to 0.3."""
    means = torch.randn(10, 16, generator=draws(7))
    widths = torch.logspace(math.log10(0.03), math.log10(0.3), 10)
    which = torch.randint(10, (count,), generator=source)
    return means[which] + widths[which, None] * torch.randn(count, 16, generator=source)


def heavy(count: int, source: torch.Generator) -> Tensor:
    """A table of six columns with heavy tails (Student's t with 3 degrees of freedom), dependent, standardised."""
    chi = torch.randn(count, 3, generator=source).square().sum(1, keepdim=True) / 3
    t = torch.randn(count, 6, generator=source) / chi.sqrt()
    t[:, 3:] = t[:, 3:] * 0.3 + t[:, :3].abs()
    return t / math.sqrt(3)


def petals(count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Five classes: narrow ellipses around a centre."""
    label = torch.randint(5, (count,), generator=source)
    angle = 2 * math.pi * label / 5
    along, across = 1 + 0.3 * torch.randn(count, generator=source), 0.05 * torch.randn(count, generator=source)
    x = along * angle.cos() - across * angle.sin(), along * angle.sin() + across * angle.cos()
    return torch.stack(x, 1), label


def linear(count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Five parameters seen through a matrix, with noise of 0.1."""
    matrix = torch.randn(5, 5, generator=draws(11)) / math.sqrt(5)
    theta = torch.randn(count, 5, generator=source)
    return theta, theta @ matrix.T + 0.1 * torch.randn(count, 5, generator=source)


def moons(count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two moons: parameters with a crescent and its mirror image as posterior."""
    theta = 2 * torch.rand(count, 2, generator=source) - 1
    angle = math.pi * (torch.rand(count, generator=source) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(count, generator=source)
    sum_, difference = -theta.sum(1).abs() / math.sqrt(2), (theta[:, 1] - theta[:, 0]) / math.sqrt(2)
    y = torch.stack([radius * angle.cos() + 0.25 + sum_, radius * angle.sin() + difference], 1)
    return theta, y


def squares(count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
    """Three parameters of which two are seen squared, with noise: four modes."""
    theta = torch.randn(count, 3, generator=source)
    y = torch.cat([theta[:, :2].square(), theta[:, 2:]], 1)
    return theta, y + 0.1 * torch.randn(count, 3, generator=source)


class Net(nn.Module):
    """The noise in x, of which the observation, if any, is an input beside it."""

    def __init__(self, size: int, seen: int, sde: Any, **options: Any) -> None:
        super().__init__()
        self.net, self.size, self.sde = MLP((size + seen,), **options), size, sde

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        """``(batch, size)``."""
        node = self.sde.nodes(t.to(F64))
        unit = (node.alpha**2 + node.sigma**2).rsqrt().to(x.dtype)[:, None]
        inner = x * unit if y is None else torch.cat([x * unit, y.to(x.dtype)], 1)
        out: Tensor = self.net(inner, (-node.lam / 4).to(x.dtype), label)[:, : self.size]
        return out


def train(net: Net, data: Callable[..., Any], steps: int, seed: int) -> Net:
    """Train by the plain loss of the noise, with a moving average of the weights."""
    source, sde = draws(seed), net.sde
    average = copy.deepcopy(net).requires_grad_(False)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        drawn = data(512, source)
        x, seen = drawn if isinstance(drawn, tuple) else (drawn, None)
        given: dict[str, Tensor] = {}
        if seen is not None and seen.is_floating_point():
            given = {"y": seen}
        elif seen is not None:  # a tenth without its label
            hidden = torch.rand(len(seen), generator=source) < 0.1
            given = {"label": seen.masked_fill(hidden, 5)}
        lam = torch.rand(len(x), generator=source, dtype=F64)
        ends = [float(sde.log_snr(t)) for t in (sde.t_max, sde.t_min)]
        node = sde.nodes(sde.time(ends[0] + lam * (ends[1] - ends[0])).clamp(sde.t_min, sde.t_max))
        noise = torch.randn(x.shape, generator=source)
        noisy = (node.alpha[:, None] * x + node.sigma[:, None] * noise).float()
        loss = (net(noisy, node.t, **given) - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), net.parameters(), strict=True):
                mean.lerp_(value, max(0.002, 1 / (step + 1)))
    return average.eval()


CHAIN = scoresde.discrete.BetaChain(torch.linspace(1e-4, 0.02, 1000, dtype=F64)).sde()
FLOW, EDM, VP = scoresde.FlowSDE(), scoresde.EDMSDE(), scoresde.VPSDE()
STEPS = 4000
# Small networks: their half, data, size, numbers seen, process, share of the steps, options.
SMALL: dict[str, tuple[str, Callable[..., Any], int, int, Any, float, dict[str, Any]]] = {
    "roll, chain": ("choose", roll, 2, 0, CHAIN, 1.0, {}),
    "linear posterior": ("choose", linear, 5, 5, POSTERIOR, 1.0, {}),
    "mixture, 16 dimensions": ("choose", mixture16, 16, 0, VP, 1.0, {}),
    "four modes posterior": ("choose", squares, 3, 3, POSTERIOR, 1.0, {}),
    "two moons posterior": ("report", moons, 2, 2, POSTERIOR, 1.0, {}),
    "heavy tails": ("report", heavy, 6, 0, scoresde.CosineVPSDE(), 1.0, {}),
    "mixture, badly trained": ("report", mixture16, 16, 0, EDM, 0.1, {}),
    "roll, badly trained": ("report", roll, 2, 0, FLOW, 0.1, {}),
    "mixture, VP, badly trained": ("choose", mixture16, 16, 0, VP, 0.1, {}),
    "linear posterior, badly trained": ("choose", linear, 5, 5, POSTERIOR, 0.1, {}),
    "roll, VP, badly trained": ("report", roll, 2, 0, VP, 0.1, {}),
    "two moons, cosine, badly trained": ("report", moons, 2, 2, scoresde.CosineVPSDE(), 0.1, {}),
    "petals, flow": ("report", petals, 2, 0, FLOW, 1.0, {"labels": 5}),
    "mixture, flow": ("choose", mixture16, 16, 0, FLOW, 1.0, {}),
    "two moons, flow": ("choose", moons, 2, 2, FLOW, 1.0, {}),
    "heavy tails, flow": ("report", heavy, 6, 0, FLOW, 1.0, {}),
    "petals, guidance 3": ("report", petals, 2, 0, VP, 1.0, {"labels": 5}),
}


def kept(folder: Path | None, name: str) -> Path | None:
    """The file that keeps something of that name in a folder, if there is a folder."""
    return folder and folder / f"{name.replace(', ', '_').replace(' ', '_')}.pt"


def small(name: str, folder: Path | None, samples: int) -> Problem:
    """One of the small networks, trained or read."""
    half, data, size, seen, sde, share, options = SMALL[name]
    torch.manual_seed(3)
    net = Net(size, seen, sde, **options)
    file = kept(folder, name)
    if file and file.exists():
        net.load_state_dict(torch.load(file, weights_only=True))
        net.eval().requires_grad_(False)
    else:
        net = train(net, data, round(share * STEPS), 5)
        if file:
            torch.save(net.state_dict(), file)
    drawn = data(samples, draws(6))
    context = {}
    if isinstance(drawn, tuple):
        context = {"y" if seen else "label": drawn[1]}

    def score(net: nn.Module) -> Any:
        model = scoresde.ScoreModel(net, sde, "noise", event_shape=(size,))
        if "labels" not in options:
            return model
        plain = scoresde.ScoreModel(lambda x, t: net(x, t, label=torch.full(x.shape[:1], 5)), sde, "noise")
        return guidance.classifier_free(model, plain, scale=3.0)

    x = sde.prior_sample((samples, size), generator=draws(4), dtype=F64).float()
    cure = cure_of(score(net), sde, data(512, draws(12)), seen) if "badly trained" in name else None
    if cure:
        return Problem(f"{name}, cured", half, "network", sde, cure(score(net)), x,
                       cure(score(copy.deepcopy(net).double())), context)  # fmt: skip
    return Problem(name, half, "network", sde, score(net), x, score(copy.deepcopy(net).double()), context)


def cure_of(score: Any, sde: Any, data: Any, seen: int) -> Callable[[Any], Any] | None:
    """What `scoresde.check_score` proposes for a network that is unreliable at high noise; None for other networks."""
    x, y = data if isinstance(data, tuple) else (data, None)
    report = scoresde.check_score(sde, score, x, context=None if y is None else {"y" if seen else "label": y})
    if not report.cures:
        return None
    names = {"Clip": Clip, "GaussianAbove": GaussianAbove, "data": x, "sde": sde}

    def cure(score: Any) -> Any:
        names["score_fn"] = score
        exec(best_of(report.cures), names)
        return names["score_fn"]

    return cure


def shipped(name: str, half: str, network: str, sde: Any, samples: int, scale: float | None = None) -> Problem:
    """A network of the package on a process, each sample with its label."""
    model = scoresde.load(network)
    sharp = type(model)(copy.deepcopy(model.net).double(), model.config)
    context = {"label": torch.arange(samples) % 10}

    def score(model: Any) -> Any:
        plain = model.score(sde)
        return plain if scale is None else guidance.classifier_free(plain, model.score(sde), scale=scale)

    x = sde.prior_sample((samples, *model.config.event_shape), generator=draws(4), dtype=F64).float()
    return Problem(name, half, "network", sde, score(model), x, score(sharp), context)


def foreign(folder: Path, samples: int) -> Problem:
    """The noise network in a folder with ``network.py``, of which ``load()`` returns it, on a VP process.

    Its encoding of the time has waves of up to 290 periods in [0, 1], so that a solve to 1e-6 takes thousands of calls.
    The reference is that of a Runge-Kutta pair at 1e-5, of 727 calls.
    """
    made: Any = importlib.util.spec_from_file_location("foreign", folder / "network.py")
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    net, sharp = module.load(), module.load().double()
    x = VP.prior_sample((samples, 1, 28, 28), generator=draws(4), dtype=F64).float()
    models = [scoresde.ScoreModel(n, VP, "noise", event_shape=(1, 28, 28)) for n in (net, sharp)]
    return Problem("foreign network", "foreign", "network", VP, models[0], x, models[1], tolerance=1e-5, method="rk45")


def exact(name: str, half: str, target: Any, sde: Any, samples: int) -> Problem:
    """An exact score."""
    score = target.score(sde)
    x = sde.prior_sample((samples, *score.event_shape), generator=draws(4), dtype=F64)
    return Problem(name, half, "exact", sde, score, x, score)


def blobs(dimensions: int, modes: int, width: float, seed: int) -> GaussianMixture:
    """Normals of one width around points that are normal."""
    means = torch.randn(modes, dimensions, generator=draws(seed), dtype=F64)
    return GaussianMixture(torch.ones(modes, dtype=F64), means, scales=width)


def circle(modes: int, width: float) -> GaussianMixture:
    """Normals around points on a circle."""
    angle = torch.arange(modes, dtype=F64) * (2 * math.pi / modes)
    return GaussianMixture(torch.ones(modes, dtype=F64), torch.stack([angle.cos(), angle.sin()], 1), scales=width)


def curve(dimensions: int, width: float) -> GaussianMixture:
    """Forty normals along a closed curve in several dimensions."""
    angle = torch.arange(40, dtype=F64)[:, None] * (2 * math.pi / 40)
    rates = torch.arange(1, dimensions + 1, dtype=F64) / 2
    means = (angle * rates.ceil() + rates.frac() * math.pi).cos() / rates.ceil()
    return GaussianMixture(torch.ones(40, dtype=F64), means, scales=width)


def spread(dimensions: int, smallest: float, mean: float) -> Gaussian:
    """A normal with variances from the smallest to 1."""
    variances = torch.logspace(math.log10(smallest), 0, dimensions, dtype=F64)
    return Gaussian(torch.full((dimensions,), mean, dtype=F64), variances)


def box(dimensions: int) -> Uniform:
    """A uniform law on a box around another point than 0."""
    low = torch.linspace(-1.5, 0.0, dimensions, dtype=F64)
    return Uniform(low, low + torch.linspace(0.3, 2.0, dimensions, dtype=F64))


def far() -> GaussianMixture:
    """Six normals in three dimensions, 30 times as large as usual."""
    means = 30 * torch.randn(6, 3, generator=draws(8), dtype=F64)
    return GaussianMixture(torch.full((6,), 1 / 6, dtype=F64), means, scales=3.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose problems."""
    parser.add_argument("--network", type=Path, help="the folder of another network")
    parser.add_argument("--folder", type=Path, help="keeps the small networks and the references")
    parser.add_argument("--only", nargs="*", help="problems; the others are kept as in the file")


COSINE, VE, SUB = scoresde.CosineVPSDE(), scoresde.VESDE(), scoresde.SubVPSDE()
# Exact scores: their half, law and process; flows of broad and of narrow laws are in both halves.
EXACT: dict[str, tuple[str, Callable[[], Any], Any]] = {
    "flow, mixture in 3 dimensions": ("choose", lambda: blobs(3, 5, 0.3, 21), FLOW),
    "flow, mixture in 32 dimensions": ("choose", lambda: blobs(32, 8, 0.2, 22), FLOW),
    "flow, narrow circle": ("choose", lambda: circle(12, 0.02), FLOW),
    "flow, box": ("choose", lambda: box(3), FLOW),
    "flow, normal in 8 dimensions": ("choose", lambda: spread(8, 1e-4, 0.5), FLOW),
    "cosine, narrow mixture": ("choose", lambda: blobs(4, 6, 0.05, 23), COSINE),
    "VE, mixture in 10 dimensions": ("choose", lambda: blobs(10, 6, 0.3, 24), VE),
    "EDM, box": ("choose", lambda: box(2), EDM),
    "to noise 2981, mixture": ("choose", lambda: blobs(4, 4, 0.2, 25), POSTERIOR),
    "to noise 2981, normal": ("choose", lambda: spread(5, 1e-3, 0.3), POSTERIOR),
    "flow, mixture in 10 dimensions": ("report", lambda: blobs(10, 10, 0.3, 31), FLOW),
    "flow, wide circle": ("report", lambda: circle(5, 0.25), FLOW),
    "flow, narrow curve": ("report", lambda: curve(3, 0.03), FLOW),
    "flow, box in 6 dimensions": ("report", lambda: box(6), FLOW),
    "flow, narrow mixture": ("report", lambda: blobs(2, 9, 0.02, 32), FLOW),
    "flow, normal in 24 dimensions": ("report", lambda: spread(24, 1e-2, -0.5), FLOW),
    "VP, narrow curve": ("report", lambda: curve(4, 0.05), VP),
    "cosine, normal": ("report", lambda: spread(12, 1e-3, 0.0), COSINE),
    "VE, circle": ("report", lambda: circle(7, 0.1), VE),
    "sub-VP, mixture in 5 dimensions": ("report", lambda: blobs(5, 7, 0.15, 33), SUB),
    "to noise 2981, curve": ("report", lambda: curve(3, 0.1), POSTERIOR),
    "to noise 2981, mixture in 8 dimensions": ("report", lambda: blobs(8, 5, 0.3, 34), POSTERIOR),
}


# All problems but the foreign network: how each is made, given the folder of small networks.
PROBLEMS: dict[str, Callable[[Path | None], Problem]] = {
    "digits, VP": lambda _: shipped("digits, VP", "choose", "digits", VP, PILOT + 16),
    "digits, flow": lambda _: shipped("digits, flow", "choose", "digits", FLOW, PILOT + 16),
    "mnist, VP": lambda _: shipped("mnist, VP", "choose", "mnist", VP, PILOT + 8),
    "digits, guidance 3": lambda _: shipped("digits, guidance 3", "choose", "digits", VP, PILOT + 16, 3.0),
    "ring": lambda _: exact("ring", "choose", ring(), VP, PILOT + 128),
    "gaussian": lambda _: exact("gaussian", "choose", gaussian(), VP, PILOT + 128),
    "digits, EDM": lambda _: shipped("digits, EDM", "report", "digits", EDM, PILOT + 16),
    "digits, sub-VP": lambda _: shipped("digits, sub-VP", "report", "digits", scoresde.SubVPSDE(), PILOT + 16),
    "mnist, EDM": lambda _: shipped("mnist, EDM", "report", "mnist", EDM, PILOT + 8),
    "mixture, 30 times as large": lambda _: exact(
        "mixture, 30 times as large", "report", far(), scoresde.VESDE(), PILOT + 128
    ),
    **{
        name: (lambda _, name=name, half=half, law=law, sde=sde: exact(name, half, law(), sde, PILOT + 128))
        for name, (half, law, sde) in EXACT.items()
    },
    **{name: (lambda folder, name=name: small(name, folder, PILOT + 128)) for name in SMALL},
}
