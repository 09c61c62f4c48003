"""Conventions of k-diffusion, flow_matching and azula derived by hand, and what is refused. Their own samplers are
compared in `test_k_diffusion.py`, `test_flow_matching.py` and `test_azula.py`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import InvalidArgumentError, InvalidTypeError
from scoresde.interop import from_azula, from_flow_matching, from_k_diffusion
from tests.interop.common import Net, same, solved, start
from tests.refusals import refuses

V, T = InvalidArgumentError, InvalidTypeError


class Discrete(torch.nn.Module):
    """A denoiser with levels, as k-diffusion's of discrete chains; it predicts the noise of a unit state."""

    def __init__(self, sigmas: Tensor) -> None:
        super().__init__()
        self.sigmas, self.net = sigmas, Net()

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.reshape(-1, 1, 1, 1)
        return x - sigma * self.net(x / (1 + sigma**2).sqrt(), sigma.flatten().log())


def test_a_denoiser_with_levels() -> None:
    """Euler's steps in sigma, on levels even in their position, between neighbours in the logarithm."""
    sigmas = torch.logspace(-2, 1, 50, dtype=torch.float64) ** 1.1
    denoiser, steps = Discrete(sigmas), 8
    model = from_k_diffusion(denoiser)
    places = torch.linspace(len(sigmas) - 1, 0, steps + 1, dtype=torch.float64)
    low, share = places.floor().long(), places.frac()
    levels = (sigmas.log()[low] * (1 - share) + sigmas.log()[(low + 1).clamp(max=49)] * share).exp()
    x = levels[0] * start()
    mine = solved(model, x, "ddim", steps, denoise=True)
    with torch.no_grad():
        for now, then in itertools.pairwise([*levels, torch.zeros(())]):
            x = x + (then - now) * (x - denoiser(x, now.expand(len(x)))) / now
    same(mine, x, 1e-11)
    sigmas = torch.logspace(-2, 1, 50, dtype=torch.float64)  # levels that were rounded are taken
    model = from_k_diffusion(Discrete(sigmas), sigma_max=10.000001, event_shape=(2, 8, 8), data_range=(-1, 1))
    assert model.sde.t_max == 10.000001 and model.event_shape == (2, 8, 8) and model.data_range == (-1.0, 1.0)


PATHS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], type]] = {
    "straight": (lambda t: t, lambda t: 1 - t, scoresde.FlowSDE),
    "cosine": (lambda t: torch.sin(math.pi / 2 * t), lambda t: torch.cos(math.pi / 2 * t), scoresde.GaussianSDE),
}


def scheduler(alpha: Callable[[Tensor], Tensor], sigma: Callable[[Tensor], Tensor], **more: Any) -> Any:
    """What flow_matching calls a scheduler."""

    class Scheduler(SimpleNamespace):
        def __call__(self, t: Tensor) -> Any:
            return SimpleNamespace(alpha_t=alpha(t), sigma_t=sigma(t))

    return Scheduler(**more)


@pytest.mark.parametrize("path", PATHS)
def test_a_velocity(path: str) -> None:
    """Euler's steps from noise at t = 0 to data at t = 1."""
    alpha, sigma, kind = PATHS[path]
    net, steps, x = Net(), 8, start()
    model = from_flow_matching(net, scheduler(alpha, sigma))
    assert type(model.sde) is kind and model.grid is scoresde.grids.time
    mine = solved(model, x, "euler", steps)
    with torch.no_grad():
        for k in range(steps):
            x = x + net(x, torch.full((len(x),), k / steps, dtype=torch.float64)) / steps
    same(mine, x, 1e-11)
    assert type(from_flow_matching(net).sde) is scoresde.FlowSDE


def test_the_path_of_a_vp_process() -> None:
    def integral(t: Tensor) -> Tensor:
        return (1 - t) * 0.2 + 0.5 * (1 - t) ** 2 * 7.8

    path = scheduler(lambda t: torch.exp(-integral(t) / 2), lambda t: (1 - torch.exp(-integral(t))).sqrt())
    assert type(from_flow_matching(Net(), path).sde) is scoresde.GaussianSDE
    path.beta_min, path.beta_max = 0.2, 8.0
    sde = from_flow_matching(Net(), path).sde
    assert isinstance(sde, scoresde.VPSDE) and (sde.beta_min, sde.beta_max) == (0.2, 8.0)


class Preconditioned(torch.nn.Module):
    """An azula denoiser with Karras's preconditioning, on a path."""

    def __init__(self, alpha: Callable[[Tensor], Tensor], sigma: Callable[[Tensor], Tensor], **more: Any) -> None:
        super().__init__()
        self.backbone, self.schedule = Net(), _Schedule(alpha, sigma, **more)

    def forward(self, x: Tensor, t: Tensor) -> Any:
        alpha, sigma = (v.reshape(-1, 1, 1, 1) for v in self.schedule(t))
        size = (alpha**2 + sigma**2).sqrt()
        out = self.backbone(x / size, (sigma / alpha).flatten().log())
        return SimpleNamespace(mean=alpha / size**2 * x + sigma / size * out)


class _Schedule:
    def __init__(self, alpha: Callable[[Tensor], Tensor], sigma: Callable[[Tensor], Tensor], **more: Any) -> None:
        self.alpha, self.sigma = alpha, sigma
        vars(self).update(more)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.alpha(t), self.sigma(t)


@pytest.mark.parametrize("kind", ["VE", "rectified"])
def test_a_denoiser_with_a_schedule(kind: str) -> None:
    """DDIM's steps, even in time."""
    alpha: Callable[[Tensor], Tensor] = torch.ones_like
    if kind == "VE":
        denoiser = Preconditioned(alpha, lambda t: 0.01 * 1000.0**t, sigma_min=0.01, sigma_max=10.0)
    else:
        denoiser = Preconditioned(lambda t: 1 - 0.9 * t, lambda t: t + (1 - t) * 0.001)
    model, steps = from_azula(denoiser), 8
    assert type(model.sde) is (scoresde.VESDE if kind == "VE" else scoresde.GaussianSDE)
    times = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    ends = [float(v) for v in denoiser.schedule(times[0])]
    assert abs(float(model.sde.prior.std) - math.hypot(*ends)) < 1e-12
    x = model.sde.prior.std * start()
    mine = solved(model, x, "ddim", steps)
    with torch.no_grad():
        for t, s in itertools.pairwise(times):
            (alpha_t, sigma_t), (alpha_s, sigma_s) = denoiser.schedule(t), denoiser.schedule(s)
            mean = denoiser(x, t.expand(len(x))).mean
            x = alpha_s * mean + sigma_s * (x - alpha_t * mean) / sigma_t
    same(mine, x, 1e-11)


def _denoiser(**attributes: Any) -> Any:
    def denoiser(x: Tensor, t: Tensor) -> Any:
        return SimpleNamespace(mean=x)

    vars(denoiser).update(attributes)
    return denoiser


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: from_k_diffusion(3), T, "`model` must be callable"),  # type: ignore[arg-type]
    (lambda: from_k_diffusion(Net()), V, "`sigma_min` is missing"),
    (lambda: from_k_diffusion(Net(), sigma_min=0.1), V, "`sigma_max` is missing"),
    (lambda: from_k_diffusion(Discrete(torch.tensor([1.0, 0.1]))), V, "rising positive noise levels"),
    (
        lambda: from_k_diffusion(Discrete(torch.tensor([0.1, 1.0])), sigma_max=2.0),
        V,
        "the levels of `model.sigmas`",
    ),
    (lambda: from_k_diffusion(Net(), sigma_min=1.0, sigma_max=2.0, data_range=(1, 0)), V, "`data_range`"),
    (lambda: from_flow_matching(3), T, "`velocity` must be callable"),  # type: ignore[arg-type]
    (lambda: from_flow_matching(lambda t, x: x), V, r"its arguments are \(t, x\)"),
    (lambda: from_flow_matching(Net(), 3), T, "`scheduler` must be callable"),  # type: ignore[arg-type]
    (lambda: from_flow_matching(Net(), lambda t: (t, 1 - t)), V, "alpha_t and sigma_t are tensors, got tuple"),
    (lambda: from_flow_matching(Net(), scheduler(lambda t: t**2, lambda t: 1 - t**2)), V, "`t_max`=1: the path's"),
    (lambda: from_flow_matching(Net(), t_max=1.5), V, "`t_max`"),
    (lambda: from_azula(3), T, "`denoiser` must be callable"),  # type: ignore[arg-type]
    (lambda: from_azula(_denoiser()), V, "`denoiser` must have a schedule"),
    (lambda: from_azula(_denoiser(schedule=lambda t: t)), V, "must return two tensors"),
    (lambda: from_azula(_denoiser(schedule=lambda t: (1 - t, t), cov=1)), V, "GaussianDenoiser"),
]


def test_what_fits_no_convention_is_refused() -> None:
    refuses(REFUSED)
