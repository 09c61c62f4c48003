"""Networks of score_sde_pytorch, whose published conventions are derived here by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import InvalidArgumentError, InvalidTypeError
from scoresde.interop import from_score_sde
from tests.interop.common import Net, normals, same, solved, start
from tests.refusals import refuses

pytestmark = pytest.mark.filterwarnings("ignore:.*leave the range of the data")  # of a network that is not trained
LEVELS = 30
KINDS = ["vp", "subvp", "ve"]


def theirs(kind: str, levels: int = 1000) -> Any:
    """The attributes of a process of ``sde_lib``, equations 29, 30 and 33 of the paper."""
    if kind == "ve":
        low, high = 0.01, 50.0
        return SimpleNamespace(
            N=levels, sigma_min=low, sigma_max=high, marginal_prob=lambda x, t: (x, low * (high / low) ** t)
        )
    low, high = 0.1, 12.0

    def marginal_prob(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        log_mean = -0.25 * t**2 * (high - low) - 0.5 * t * low
        variance = 1 - torch.exp(2 * log_mean)
        return torch.exp(log_mean)[:, None, None, None] * x, variance if kind == "subvp" else variance.sqrt()

    return SimpleNamespace(N=levels, beta_0=low, beta_1=high, marginal_prob=marginal_prob)


def drift(kind: str, net: Callable[..., Tensor], x: Tensor, t: float) -> Tensor:
    """The probability flow of the published code, with the score of its ``get_score_fn``."""
    sde, time = theirs(kind), torch.full((len(x),), t, dtype=torch.float64)
    std = sde.marginal_prob(torch.zeros_like(x), time)[1]
    if kind == "ve":
        g2 = (std**2 * 2 * math.log(sde.sigma_max / sde.sigma_min))[:, None, None, None]
        return -0.5 * g2 * net(x, std)
    beta = (sde.beta_0 + time * (sde.beta_1 - sde.beta_0))[:, None, None, None]
    discount = 1.0
    if kind == "subvp":
        discount = (1 - torch.exp(-2 * sde.beta_0 * time - (sde.beta_1 - sde.beta_0) * time**2))[:, None, None, None]
    score = -net(x, time * 999) / std[:, None, None, None]
    return -0.5 * beta * x - 0.5 * beta * discount * score


def network(kind: str) -> Callable[..., Tensor]:
    """A network of the convention of a process: that of VE takes sigma and divides by it."""
    net = Net(unit=999.0)
    if kind == "ve":
        return lambda x, sigma: (
            net(x / (1 + sigma[:, None, None, None]), 300 + 100 * sigma.log()) / sigma[:, None, None, None]
        )
    return net


@pytest.mark.parametrize("kind", KINDS)
def test_the_probability_flow(kind: str) -> None:
    """Runge-Kutta steps of order 4 with the published drift, on the same grid; t_min is the published eps."""
    net, eps, steps = network(kind), 1e-5 if kind == "ve" else 1e-3, 20
    model = from_score_sde(net, theirs(kind))
    assert model.sde.t_min == eps and type(model.sde).__name__.lower() == f"{kind}sde"
    x = start() * (50.0 if kind == "ve" else 1.0)
    mine = solved(model, x, "rk4", steps)
    with torch.no_grad():
        for k in range(steps):
            t, h = 1 + (eps - 1) * k / steps, (eps - 1) / steps
            first = drift(kind, net, x, t)
            second = drift(kind, net, x + h / 2 * first, t + h / 2)
            third = drift(kind, net, x + h / 2 * second, t + h / 2)
            fourth = drift(kind, net, x + h * third, t + h)
            x = x + h / 6 * (first + 2 * second + 2 * third + fourth)
    same(mine, x, 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_our_processes_do_as_well(kind: str) -> None:
    net, sde = network(kind), theirs(kind)
    own = {
        "vp": scoresde.VPSDE(0.1, 12.0),
        "subvp": scoresde.SubVPSDE(0.1, 12.0),
        "ve": scoresde.VESDE(0.01, 50.0),
    }[kind]
    x, times = start(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    first, second = from_score_sde(net, sde), from_score_sde(net, own)
    assert torch.equal(first(x, times), second(x, times)) and second.sde is own


def test_ancestral_sampling_of_a_discrete_vp_network() -> None:
    """DDPM's steps with the variances beta, labels 0 … N - 1 as numbers, and no noise in the last one."""
    net, draws = Net(unit=LEVELS), normals(LEVELS)
    seen: list[Tensor] = []

    def noted(x: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        return net(x, labels)

    betas = torch.linspace(0.1 / LEVELS, 12.0 / LEVELS, LEVELS, dtype=torch.float64)
    std = (1 - torch.cumprod(1 - betas, 0)).sqrt()
    model = from_score_sde(noted, theirs("vp", LEVELS), continuous=False)
    assert model.chain is not None and len(model.chain) == LEVELS
    mine = solved(model, start(), "ancestral", LEVELS - 1, variance="large", denoise=True, draws=draws)
    assert all(labels.is_floating_point() for labels in seen)
    assert [float(labels[0]) for labels in seen] == [float(i) for i in reversed(range(LEVELS))]
    x = start()
    with torch.no_grad():
        for k, i in enumerate(reversed(range(LEVELS))):
            score = -net(x, torch.full((len(x),), i)) / std[i]
            x = (x + betas[i] * score) / (1 - betas[i]).sqrt()
            x = x + betas[i].sqrt() * draws[k] if i else x
    same(mine, x, 1e-10)


def test_ancestral_sampling_of_a_discrete_ve_network() -> None:
    """NCSN's steps; label 0 is the noisiest level."""
    net, draws = Net(unit=LEVELS), normals(LEVELS)
    seen: list[Tensor] = []
    sigmas = torch.linspace(math.log(0.01), math.log(50.0), LEVELS, dtype=torch.float64).exp()

    def scaled(x: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        sigma = sigmas.flip(0)[labels][:, None, None, None]
        return net(x / (1 + sigma), labels) / sigma

    model = from_score_sde(scaled, theirs("ve", LEVELS), continuous=False)
    mine = solved(model, 50.0 * start(), "ancestral", LEVELS - 1, variance="small", denoise=True, draws=draws)
    assert [int(labels[0]) for labels in seen] == list(range(LEVELS)) and seen[0].dtype == torch.int64
    x = 50.0 * start()
    with torch.no_grad():
        for k, i in enumerate(reversed(range(LEVELS))):
            below = sigmas[i - 1] if i else torch.zeros((), dtype=torch.float64)
            score = scaled(x, torch.full((len(x),), LEVELS - 1 - i))
            gain = sigmas[i] ** 2 - below**2
            x = x + gain * score + below * gain.sqrt() / sigmas[i] * draws[k]
    same(mine, x, 1e-10)


def test_the_events_their_range_and_the_levels() -> None:
    assert from_score_sde(Net(), theirs("ve")).data_range == (0.0, 1.0)
    assert from_score_sde(Net(), theirs("subvp")).data_range == (-1.0, 1.0)
    assert len(from_score_sde(Net(), scoresde.VPSDE(), continuous=False, levels=500).chain) == 500  # type: ignore[arg-type]
    assert len(from_score_sde(Net(), scoresde.VESDE(), continuous=False).chain) == 1000  # type: ignore[arg-type]
    net = Net()
    net.config = SimpleNamespace(data=SimpleNamespace(num_channels=2, image_size=8, centered=False))  # type: ignore[assignment]
    model = from_score_sde(torch.nn.DataParallel(net), theirs("vp"))
    assert model.event_shape == (2, 8, 8) and model.data_range == (0.0, 1.0)
    assert from_score_sde(net, theirs("vp"), data_range=(0, 255)).data_range == (0.0, 255.0)


def _other(**changes: Any) -> Any:
    return SimpleNamespace(**{**vars(theirs("vp")), **changes})


V, T = InvalidArgumentError, InvalidTypeError
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: from_score_sde(3, theirs("vp")), T, "`model` must be callable"),  # type: ignore[arg-type]
    (lambda: from_score_sde(Net(), SimpleNamespace()), V, "with beta_0 and beta_1, or sigma_min"),
    (lambda: from_score_sde(Net(), scoresde.EDMSDE()), V, "`sde`: its marginal_prob|marginal_prob"),
    (lambda: from_score_sde(Net(), _other(beta_1=20.0)), V, "other standard deviations than VPSDE"),
    (lambda: from_score_sde(Net(), SimpleNamespace(beta_0=0.1)), V, "the attribute beta_1"),
    (lambda: from_score_sde(Net(), theirs("subvp"), continuous=False), V, "sub-VP"),
    (lambda: from_score_sde(Net(), theirs("vp"), levels=10), V, "continuous=False"),
    (lambda: from_score_sde(Net(), theirs("vp"), continuous=1), T, "`continuous` must be True"),  # type: ignore[arg-type]
]


def test_what_fits_no_convention_is_refused() -> None:
    refuses(REFUSED)
