"""The problems that orders are measured on, and the parameters that tests share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import scoresde
from scoresde import testing
from scoresde.solvers.families.exponential import History

PROCESSES: dict[str, scoresde.AffineSDE] = {
    "ve": scoresde.VESDE(),
    "vp": scoresde.VPSDE(),
    "subvp": scoresde.SubVPSDE(),
    "vdm": scoresde.VDMSDE(),
    "flow": scoresde.FlowSDE(),
    "cosine": scoresde.CosineVPSDE(),
    "edm": scoresde.EDMSDE(),
}

# A mixture with unequal weights, a gap and three widths; the probability flow of it is strongly non-linear.
MIXTURE = scoresde.targets.GaussianMixture(
    torch.tensor([0.3, 0.5, 0.2]),
    torch.tensor([[-1.2], [0.4], [1.5]], dtype=torch.float64),
    scales=torch.tensor([0.3, 0.2, 0.4]),
)
STARTS = torch.tensor([-1.7, -0.9, -0.2, 0.35, 0.8, 1.6], dtype=torch.float64)[:, None]  # in units of the prior's std

GAUSSIAN = scoresde.targets.Gaussian(torch.zeros(1, dtype=torch.float64), 0.3)
SHIFTED = scoresde.targets.Gaussian(torch.tensor([0.7], dtype=torch.float64), 0.3)


def ode_error(method: str | scoresde.Solver, name: str, t_end: float, grid: str, steps: int) -> float:
    """The largest distance from the exact flow map over `STARTS`, from t_max to ``t_end``."""
    sde = PROCESSES[name]
    x = sde.prior.std * STARTS
    exact = testing.mixture_flow_map(MIXTURE, x, sde, sde.t_max, t_end)
    got = scoresde.solve(sde, MIXTURE.score(sde), x, method=method, steps=steps, grid=grid, t_end=t_end)
    return float((got.x - exact).abs().max())


def started(solver: scoresde.Solver, nodes: Sequence[Any], estimates: Sequence[Any]) -> scoresde.Solver:
    """The same multistep method with a memory of earlier nodes (oldest first) from the beginning."""
    history = History()
    for node, estimate in zip(nodes, estimates, strict=True):
        history = history.push(node, getattr(estimate, solver.prediction), solver.memory)

    class Started(type(solver)):
        def init(self, process: Any, x: Tensor, start: Any) -> Any:
            return history

    return Started(**{f.name: getattr(solver, f.name) for f in dataclasses.fields(solver)})


def affine_from(
    target: scoresde.targets.Gaussian,
    sde: scoresde.AffineSDE,
    times: Tensor,
    method: str | scoresde.Solver,
    basis: Tensor | None = None,
    **options: object,
) -> testing.AffineMap:
    """The map of a solve over ``times`` that starts at the exact distribution there; draw 0 makes the start."""

    def run(shape: tuple[int, ...], draw: testing.Draw) -> Tensor:
        x = testing.gaussian_state(target, sde, float(times[0]), draw(0, torch.empty(shape, dtype=torch.float64)))
        later = lambda k, like: draw(k + 1, like)  # noqa: E731
        return scoresde.solve(sde, target.score(sde), x, method=method, grid=times, noise=later, **options).x

    return testing.probe(run, target.event_shape, basis=basis)
