r"""Processes of which only drift and diffusion are known, forward and reverse: strong orders on a fine Brownian path.

The fine path is the reference's own noise. A step of a method gets the increment of its interval and, for its second
draw, the interval's space-time area: with unit cells :math:`W_k`, :math:`H = \frac1h\int(W_u - \frac uh W_h)\,du`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from tests.parameters import own_methods

F64 = torch.float64
FINE = 2048
ORDERS = {"euler_maruyama": 1.0, "heun_sde": 1.0, "sra1": 1.5, "shark": 1.5}


class Wells(scoresde.SDE):
    """dx = sin(2x) dt + g(t) dw: no transition kernel in closed form."""

    def drift(self, x: Tensor, t: Any) -> Tensor:
        return torch.sin(2 * x)

    def diffusion(self, t: Any) -> Tensor:
        return 0.6 + 0.3 * torch.sin(3 * torch.as_tensor(t, dtype=F64))


SDE = Wells(t_min=0.0, t_max=1.0, prior=scoresde.NormalPrior(1.0))
PATHS = torch.randn(FINE, 200, 1, dtype=F64, generator=torch.Generator().manual_seed(0)) / math.sqrt(FINE)
AREAS = torch.randn(FINE, 200, 1, dtype=F64, generator=torch.Generator().manual_seed(1)) / math.sqrt(12 * FINE)


def path(steps: int, double: bool) -> Callable[[int, Tensor], Tensor]:
    """The draws of a method with so many steps, in the order of its steps; ``double``: two per step."""
    cells = FINE // steps
    h, fine = 1 / steps, 1 / FINE
    w = PATHS.reshape(steps, cells, 200, 1)
    before = w.cumsum(1) - w
    whole = w.sum(1)
    # the integral of W over a cell is fine (W_begin + dW / 2 + H_cell)
    integral = fine * (before + 0.5 * w + AREAS.reshape(w.shape)).sum(1)
    area = integral / h - 0.5 * whole

    def draw(k: int, like: Tensor) -> Tensor:
        step = k // 2 if double else k
        second = double and k % 2 == 1
        return area[step] * math.sqrt(12 / h) if second else whole[step] / math.sqrt(h)

    return draw


def score(x: Tensor, t: Tensor) -> Tensor:
    """Any smooth function will do: the order is that of the equation it makes."""
    return torch.sin(2 * x) * torch.cos(t)[:, None] - x


def forward(method: str, steps: int) -> Tensor:
    x = torch.linspace(-1.5, 1.5, 200, dtype=F64)[:, None]
    noise = path(steps, ORDERS[method] == 1.5)
    return scoresde.simulate(SDE, x, method=method, steps=steps, noise=noise).x


def reverse(method: str, steps: int) -> Tensor:
    x = torch.linspace(-1.5, 1.5, 200, dtype=F64)[:, None]
    noise = path(steps, ORDERS[method] == 1.5)
    return scoresde.solve(SDE, score, x, method=method, steps=steps, grid="time", noise=noise).x


@pytest.fixture(scope="module")
def exact() -> dict[Callable[[str, int], Tensor], Tensor]:
    return {run: run("sra1", FINE) for run in (forward, reverse)}


@pytest.mark.parametrize("run", [forward, reverse])
@pytest.mark.parametrize("method", ORDERS)
def test_strong_order(method: str, run: Callable[[str, int], Tensor], exact: Any) -> None:
    """The root mean square over the paths: a rate seen on 200 fixed paths, not a Monte Carlo estimate."""
    coarse, fine = (float((run(method, n) - exact[run]).square().mean().sqrt()) for n in (32, 256))
    assert math.log2(coarse / fine) / 3 == pytest.approx(ORDERS[method], abs=0.15)


def test_higher_strong_order_is_worth_it(exact: Any) -> None:
    error = {m: float((forward(m, 64) - exact[forward]).square().mean().sqrt()) for m in ORDERS}
    assert max(error["sra1"], error["shark"]) < 0.1 * error["euler_maruyama"]


@pytest.mark.parametrize("method", ["heun", "rk4", "rk45"])
def test_the_probability_flow_goes_there_and_back(method: str) -> None:
    x = torch.linspace(-1, 1, 5, dtype=F64)[:, None]
    options = {"rtol": 1e-9, "atol": 1e-9} if method == "rk45" else {"steps": 100, "grid": "time"}
    there = scoresde.solve(SDE, score, x, method=method, t_start=0.0, t_end=1.0, **options).x
    back = scoresde.solve(SDE, score, there, method=method, t_start=1.0, t_end=0.0, **options).x
    torch.testing.assert_close(back, x, rtol=0, atol=1e-4 if method == "heun" else 1e-8)


def test_methods_that_need_a_kernel_or_step_no_drift_are_refused() -> None:
    for method in ("ddim", "pc", "rk45", "ancestral", "nothing"):
        with pytest.raises(scoresde.InvalidArgumentError, match=r"nothing|euler_maruyama, heun_sde, sra1, shark"):
            scoresde.simulate(SDE, torch.zeros(2, 1), method=method)
    for method in (m.name for m in own_methods() if m.solver().affine):
        with pytest.raises(scoresde.InvalidArgumentError, match="needs alpha and sigma"):
            scoresde.solve(SDE, score, torch.zeros(2, 1), method=method)
