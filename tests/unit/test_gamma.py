"""The learned schedule of VDM: it rises, keeps its endpoints, has the right derivative and inverse, and learns."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from scoresde import VDMSDE, InvalidArgumentError, InvalidTypeError
from scoresde.nets import MonotoneGamma

from .refusals import assert_refused

F64 = torch.float64


def random_gamma(seed: int, hidden: int = 32, std: float = 3.0) -> MonotoneGamma:
    """Random parameters everywhere, far from those at the start."""
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    gamma = MonotoneGamma(hidden=hidden)
    for parameter in gamma.parameters():
        torch.nn.init.normal_(parameter, std=std, generator=g)
    return gamma


@pytest.fixture(params=[0, 1, 32])
def gamma(request: pytest.FixtureRequest) -> Any:
    return random_gamma(0, request.param)


def test_gamma_rises_strictly_and_starts_near_a_line() -> None:
    t = torch.linspace(0, 1, 1001, dtype=F64)
    for seed, hidden in itertools.product(range(10), (0, 1, 7, 200)):
        gamma = random_gamma(seed, hidden)
        with torch.no_grad():
            assert bool((gamma(t).diff() > 0).all()), (seed, hidden)
    with torch.no_grad():
        curve, line = MonotoneGamma()(t), MonotoneGamma(hidden=0)(t)
    torch.testing.assert_close(line, -13.3 + 18.3 * t, rtol=1e-12, atol=1e-12)
    assert float((curve - line).abs().max()) < 0.1 * 18.3


def test_the_endpoints_are_exact_and_do_not_see_the_interior(gamma: Any) -> None:
    ends = gamma(torch.tensor([0.0, 1.0], dtype=F64))
    assert torch.equal(ends[0], gamma.gamma_0) and torch.equal(ends[1], gamma.gamma_1)
    alone = gamma(torch.tensor(1.0, dtype=F64))
    assert alone.shape == () and torch.equal(alone, gamma.gamma_1)
    interior = list(gamma.interior.parameters())
    assert {id(p) for p in gamma.parameters()} == {id(p) for p in [*gamma.endpoints, *interior]}
    if interior:
        assert max(float(g.abs().max()) for g in torch.autograd.grad(ends.sum(), interior)) < 1e-12
    for low, high in ((-13.3, 5.0), (-1e-3, 1e-3), (-30.0, 20.0)):
        fresh = MonotoneGamma(low, high, hidden=4)
        assert fresh.gamma_0.item() == low
        assert fresh.gamma_1.item() == pytest.approx(high, rel=1e-13, abs=1e-13)


def test_the_curve_is_the_formula() -> None:
    """Written out with Python's floats."""
    gamma = random_gamma(3, hidden=5, std=1.0)
    p = {k: v.detach().tolist() for k, v in gamma.interior.named_parameters()}

    def positive(raw: float) -> float:
        return math.log1p(math.exp(raw))

    def unscaled(t: float) -> float:
        steps = [
            positive(c) / (1 + math.exp(-(positive(s) * t + b)))
            for c, s, b in zip(p["heights"], p["slopes"], p["biases"], strict=True)
        ]
        return positive(p["line"]) * t + sum(steps) / len(steps)

    low, width = gamma.gamma_0.item(), positive(gamma.width.item())
    for t in (0.0, 0.123, 0.5, 0.99, 1.0):
        share = (unscaled(t) - unscaled(0.0)) / (unscaled(1.0) - unscaled(0.0))
        assert gamma(torch.tensor(t, dtype=F64)).item() == pytest.approx(low + width * share, rel=1e-12)


def test_the_rate_is_that_of_differences(gamma: Any) -> None:
    """g² = σ² γ', by automatic differentiation inside the process, against differences of γ."""
    sde = VDMSDE(gamma)
    t, h = torch.linspace(0.05, 0.95, 13, dtype=F64), 1e-5
    with torch.no_grad():
        rate = (gamma(t + h) - gamma(t - h)) / (2 * h)
        torch.testing.assert_close(sde.diffusion(t) ** 2 / sde.sigma(t) ** 2, rate, rtol=1e-7, atol=1e-9)
        f = sde.drift(torch.ones(13, 1, dtype=F64), t)[:, 0]
        torch.testing.assert_close(f, -0.5 * sde.sigma(t) ** 2 * rate, rtol=1e-7, atol=1e-9)


def test_the_inverse_is_accurate() -> None:
    """To the rounding of the log-SNR, over its rate."""
    t = torch.linspace(0, 1, 41, dtype=F64)
    for seed in range(5):
        sde = VDMSDE(random_gamma(seed, hidden=32, std=2.0))
        with torch.no_grad():
            back = sde.time(sde.log_snr(t))
            rate = 2 * sde.nodes(t).g2 / sde.sigma(t) ** 2
            size = 1 + sde.log_snr(t).abs().max()
        assert bool(((back - t).abs() < 1e-14 + 8e-16 * size / rate.clamp(min=1e-4) * 8).all()), seed


def test_a_row_does_not_depend_on_its_place(gamma: Any) -> None:
    sde = VDMSDE(gamma)
    t = torch.linspace(0, 1, 101, dtype=F64)
    with torch.no_grad():
        whole = gamma(t)
        for size in (1, 3, 17):
            assert torch.equal(torch.cat([gamma(part) for part in t.split(size)]), whole)
        nodes = sde.nodes(t)
        parts = [sde.nodes(part) for part in t.split(7)]
    for one, column in zip(nodes, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(column), one)


def test_gradients_by_the_implicit_function(gamma: Any) -> None:
    """Parameters and times have the derivatives of differences, of γ and of its inverse."""
    names = [name for name, _ in gamma.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in gamma.parameters())
    t = torch.tensor([0.2, 0.7], dtype=F64, requires_grad=True)

    def call(t: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(gamma, dict(zip(names, values, strict=True)), (t,))

    assert torch.autograd.gradcheck(call, (t, *values), atol=1e-6)
    sde = VDMSDE(gamma)
    value = sde.log_snr(0.4).item()
    sde.time(value).backward()
    slope = sde.nodes(torch.tensor([0.4], dtype=F64))
    rate = (slope.g2 / slope.sigma**2).item()
    assert gamma.gamma_0.grad.item() == pytest.approx(-1 / rate, rel=1e-8)  # a lift of γ by 1 moves the time back


def cosine_like(t: Tensor) -> Tensor:
    return 2 * torch.log(torch.tan(0.5 * math.pi * (0.02 + 0.96 * t)))


def test_it_learns_a_given_gamma() -> None:
    """The cosine schedule, -6.9 to 6.9, to 0.3 at the steep ends, from endpoints half a unit off; a line cannot."""
    t = torch.linspace(0, 1, 65, dtype=F64)
    wanted, left = cosine_like(t), []
    torch.manual_seed(0)
    for hidden, steps in ((64, 250), (0, 100)):
        gamma = MonotoneGamma(float(wanted[0]) - 0.5, float(wanted[-1]) + 0.5, hidden=hidden)
        optimiser = torch.optim.Adam(gamma.parameters(), lr=0.1)
        for _ in range(steps):
            optimiser.zero_grad()
            (gamma(t) - wanted).square().mean().backward()
            optimiser.step()
        left.append(float((gamma(t) - wanted).detach().abs().max()))
    assert left[0] < 0.3 and left[1] > 1.0


def test_float32_parameters() -> None:
    torch.manual_seed(0)
    gamma = MonotoneGamma(hidden=16)
    exact = VDMSDE(copy.deepcopy(gamma))
    sde = VDMSDE(gamma.float())
    t = torch.linspace(0, 1, 9, dtype=F64)
    with torch.no_grad():
        torch.testing.assert_close(sde.log_snr(t), exact.log_snr(t), rtol=0, atol=1e-5)
        assert float((sde.time(sde.log_snr(t)) - t).abs().max()) < 1e-5


def test_refuses_bad_input() -> None:
    assert_refused(
        [
            (lambda: MonotoneGamma(5.0, -13.3), InvalidArgumentError, ("`gamma_min`", "5.0")),
            (lambda: MonotoneGamma(math.nan), InvalidArgumentError, ("`gamma_min`", "nan")),
            (lambda: MonotoneGamma(0.0, "1"), InvalidTypeError, ("`gamma_max`", "'1'")),
            (lambda: MonotoneGamma(hidden=-1), InvalidArgumentError, ("`hidden`", "-1")),
        ]
    )
