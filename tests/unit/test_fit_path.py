"""``objective="path"``: the errors of a solve at its own nodes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import fit_solver, solve
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError
from scoresde.solvers.registry.auto import HIGH
from scoresde.tuning.path import PilotPaths
from scoresde.tuning.pilot import Pilot

F64 = torch.float64
RING = scoresde.targets.GaussianMixture(
    torch.ones(4, dtype=F64), torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=F64), scales=0.2
)
FAR = scoresde.VPSDE(beta_min=1e-6, beta_max=32.0)  # whose solves of few evaluations begin below t_max
PROCESSES = {"vp": scoresde.VPSDE(), "edm": scoresde.EDMSDE(), "far": FAR}
ROWS = slice(0, 3)


def pilot(sde: Any) -> Pilot:
    return Pilot.of(
        sde, RING.score(sde), 6, checkpoint=True, level=HIGH, x=None, shape=None, seed=0, t_start=None,
        t_end=None, context=None, dtype=F64, device=None,
    )  # fmt: skip


def some_times(batch: Pilot) -> Tensor:
    return batch.times(scoresde.grids.VPTime(0.3, 0.375), 6)


def tight(batch: Pilot, times: Tensor) -> Tensor:
    """The states of an exact solve at some times."""
    limits = {"rtol": 1e-8, "atol": 1e-8, "t_start": batch.start, "save_at": times.tolist()}
    states = solve(batch.sde, batch.score, batch.x, method="dop853", **limits).xs
    assert states is not None
    return states


@pytest.mark.parametrize("name", PROCESSES)
def test_the_loss_is_that_of_the_errors(name: str) -> None:
    """The end has nine tenths, and the rest is that of all nodes but the first; a tight solve is on the path, also
    between the levels at which the path is known."""
    batch = pilot(PROCESSES[name])
    times = some_times(batch)
    exact, node, states = PilotPaths.of(batch, 200), batch.sde.nodes(times), tight(batch, times)
    losses = exact.losses(times, states[:, ROWS], ROWS, 1e-14)
    assert losses.shape == (3,) and bool((losses < math.log(1e-4)).all())
    losses = exact.losses(times, states[:, :3], slice(3, 6), 1e-14)  # the paths of others
    assert bool((losses > math.log(1e-2)).all())
    moves = torch.tensor([9.0, 0.1, 0.2, 0.4, 0.8, 0.1, 0.5], dtype=F64)[:, None, None]
    moved = states + moves * torch.hypot(node.alpha, node.sigma)[:, None, None]
    wanted = (0.9 * moves[-1].log() + 0.1 * moves[1:-1].log().mean()).flatten().expand(6)
    torch.testing.assert_close(exact.losses(times, moved, slice(None), 0.0), wanted, rtol=0.0, atol=1e-3)


def test_the_gradient_of_times_goes_through_the_path() -> None:
    batch = pilot(PROCESSES["vp"])
    exact, times = PilotPaths.of(batch, 100), some_times(batch)
    states = batch.states(scoresde.solvers.DDIM(), times)

    def loss(inner: Tensor) -> Tensor:
        return exact.losses(torch.cat([times[:1], inner, times[-1:]]), states, slice(None), 1e-3).mean()

    inner = times[1:-1].clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(loss(inner), inner)
    for i in range(len(inner)):
        step = torch.zeros(len(inner), dtype=F64)
        step[i] = 1e-5
        numeric = (loss(times[1:-1] + step) - loss(times[1:-1] - step)) / 2e-5
        assert float(slope[i]) == pytest.approx(float(numeric), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("gradient", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_it_learns(gradient: bool) -> None:
    sde = PROCESSES["vp"]
    options: dict[str, Any] = {"pilot": 6, "objective": "path", "gradient": gradient, "reference": 40, "dtype": F64}
    iterations = 18 if gradient else 6
    fitted = fit_solver(sde, RING.score(sde), 4, iterations=iterations, **options)
    start = fit_solver(sde, RING.score(sde), 4, iterations=0, **options)
    batch, losses = pilot(sde), []
    for record in (fitted, start):
        states = solve(sde, RING.score(sde), batch.x, method=record, save_at="steps").xs
        assert states is not None
        times = torch.tensor(record.times, dtype=F64)
        losses.append(float(PilotPaths.of(batch, 100).losses(times, states, slice(None), 1e-14).mean()))
    assert losses[0] < losses[1] - (0.5 if gradient else 0.05)
    assert fitted.fitted.rms <= fitted.default.rms and fitted.fitted.median <= fitted.default.median


def test_refusals() -> None:
    sde = PROCESSES["vp"]
    x = sde.prior_sample((4, 2), generator=torch.Generator().manual_seed(0), dtype=F64)
    with pytest.raises(InvalidTypeError, match=r"`reference` must be an integer, .* needs a number of steps"):
        fit_solver(sde, RING.score(sde), 3, x=x, reference=x, objective="path")
    with pytest.raises(InvalidArgumentError, match="path"):
        scoresde.fit_grid(sde, RING.score(sde), 3, x=x, objective="path")
