"""The coefficients of multistep methods are the same whether they are computed at once or in each step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import ScoreModel, _plan
from scoresde._memo import Memo
from scoresde.solvers.families import multistep
from scoresde.solvers.families.multistep import Multistep
from scoresde.solvers.registry import make_solver

SDE = scoresde.VPSDE()
METHODS = [m.name for m in scoresde.methods() if m.kind != "backend" and isinstance(m.solver(), Multistep)]
# Pairs of nodes that lie beside each other drop out of the history, whose nodes then are not the last of the grid.
GRIDS = {
    "even": torch.linspace(1.0, SDE.t_min, 25, dtype=torch.float64),
    "pairs": torch.cat([t * torch.tensor([1.0, 0.9999]) for t in torch.linspace(1.0, 0.05, 24, dtype=torch.float64)]),
    "one pair": torch.tensor([1.0 - 0.04 * i for i in range(10)] + [0.6399, *(0.6 - 0.04 * i for i in range(12))]),
}


def net(x: Tensor, t: Tensor) -> Tensor:
    return 0.3 * x + 0.1 * torch.sin(3 * x)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", [*METHODS, "dpmpp_2m final"])
def test_rows_of_a_grid_and_of_a_step(method: str, grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, final = method.split()[0], method.endswith("final")
    solver = make_solver(name, {"lower_order_final": True} if final else {})
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    results = []
    for few in (multistep._FEW, 10**6):
        monkeypatch.setattr(multistep, "_FEW", few)
        monkeypatch.setattr(_plan, "_plans", Memo(1))
        score_fn = ScoreModel(net, SDE, "noise")
        results.append(scoresde.solve(SDE, score_fn, x, method=solver, grid=GRIDS[grid], seed=0).x)
    assert torch.allclose(*results, rtol=1e-9, atol=1e-11)
