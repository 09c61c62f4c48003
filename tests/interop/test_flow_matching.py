"""Velocities of flow_matching through its own solver and through ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.interop import from_flow_matching
from tests.interop.common import Net, same, solved, start

pytest.importorskip("flow_matching", exc_type=ImportError)
from flow_matching.path import AffineProbPath
from flow_matching.path import scheduler as schedulers
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper

pytestmark = pytest.mark.peers

STEPS = 8
SCHEDULERS: dict[str, Any] = {
    "CondOT": schedulers.CondOTScheduler(),
    "polynomial": schedulers.PolynomialConvexScheduler(2.0),
    "VP": schedulers.VPScheduler(0.1, 15.0),
    "linear VP": schedulers.LinearVPScheduler(),
    "cosine": schedulers.CosineScheduler(),
}
OURS = {"CondOT": scoresde.FlowSDE, "VP": scoresde.VPSDE}


class Wrapped(ModelWrapper):
    """A velocity with labels; the solver passes one time for all samples."""

    def forward(self, x: Tensor, t: Tensor, **extras: Any) -> Tensor:
        return self.model(x, t.reshape(-1).expand(len(x)), extras.get("label"))


@pytest.mark.parametrize("method", ["euler", "midpoint"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_its_solver(name: str, dtype: torch.dtype, method: str) -> None:
    """From noise to data in steps even in time, whatever the path."""
    velocity, label = Wrapped(Net(classes=4)).to(dtype), torch.eye(4, dtype=dtype)[[1, 0, 2]]
    noise_end = 0.99 if name == "polynomial" else 1.0  # whose velocity at t = 0 is 0 whatever the data
    model = from_flow_matching(velocity, SCHEDULERS[name], t_max=noise_end)
    assert type(model.sde) is OURS.get(name, scoresde.GaussianSDE)
    x = start().to(dtype)
    times = torch.linspace(1 - noise_end, 1.0, STEPS + 1, dtype=torch.float64).to(dtype)
    other = ODESolver(velocity).sample(x, None, method=method, time_grid=times, label=label)
    mine = solved(model, x, method, STEPS, context={"label": label})
    same(mine, other, 1e-11 if dtype is torch.float64 else 1e-5)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_its_predictions(name: str) -> None:
    """The data and the noise that the library's path finds in a velocity."""
    velocity = Wrapped(Net())
    model, path = from_flow_matching(velocity, SCHEDULERS[name], t_max=0.99), AffineProbPath(SCHEDULERS[name])
    x, t = start(), torch.full((3, 1, 1, 1), 0.3, dtype=torch.float64)
    with torch.no_grad():
        out = velocity(x, t[:, 0, 0, 0])
        same(model.data(x, 0.7), path.velocity_to_target(out, x, t), 1e-11)
        same(model.noise(x, 0.7), path.velocity_to_epsilon(out, x, t), 1e-11)


def test_its_likelihood() -> None:
    """Both integrate the divergence of the flow, here exactly, to tight tolerances of an adaptive method. Ours stops
    short of the data by 1e-10, where a score would be infinite, and the divergence is about 1."""
    velocity = torch.nn.Linear(2, 2).double()
    torch.nn.init.normal_(velocity.weight, generator=torch.Generator().manual_seed(0))

    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(velocity(x)) + t.reshape(-1, 1)

    model = from_flow_matching(field, t_min=1e-10)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
    options: dict[str, Any] = {"step_size": None, "method": "dopri5", "rtol": 1e-10, "atol": 1e-10, "time_grid": ends}
    prior = model.sde.prior.log_prob
    _, other = ODESolver(field).compute_likelihood(x, prior, exact_divergence=True, **options)
    mine = scoresde.log_likelihood(
        model.sde, model, x, divergence="exact", method="rk45", rtol=1e-10, atol=1e-10, check=False
    )
    same(mine.log_prob, other.detach(), 1e-8)
