"""The coefficients of multistep methods are the same whether they are computed at once or in each step."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.solvers import Multistep, Solver, make_solver
from tests.parameters import own_methods

SDE = scoresde.VPSDE()
METHODS = [m.name for m in own_methods() if isinstance(m.solver(), Multistep)]
# Pairs of nodes that lie beside each other drop out of the history, whose nodes then are not the last of the grid.
GRIDS = {
    "even": torch.linspace(1.0, SDE.t_min, 25, dtype=torch.float64),
    "pairs": torch.cat([t * torch.tensor([1.0, 0.9999]) for t in torch.linspace(1.0, 0.05, 24, dtype=torch.float64)]),
    "one pair": torch.tensor([1.0 - 0.04 * i for i in range(10)] + [0.6399, *(0.6 - 0.04 * i for i in range(12))]),
}


def unprepared(solver: Solver) -> Solver:
    """The same method, which computes nothing before its first step."""
    cls = type("Unprepared", (type(solver),), {"prepare": Solver.prepare})
    return cls(**{field.name: getattr(solver, field.name) for field in dataclasses.fields(solver) if field.init})


@pytest.mark.cells(12)
@pytest.mark.parametrize("method", [*METHODS, "dpmpp_2m final"])
def test_rows_of_a_grid_are_those_of_a_step(method: str) -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x + 0.1 * torch.sin(3 * x)

    name, _, final = method.partition(" ")
    solver = make_solver(name, {"lower_order_final": True} if final else {})
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for grid, times in GRIDS.items():
        model = scoresde.ScoreModel(net, SDE, "noise")
        results = [scoresde.solve(SDE, model, x, method=m, grid=times, seed=0).x for m in (solver, unprepared(solver))]
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11, msg=lambda text, grid=grid: f"{grid}: {text}")
