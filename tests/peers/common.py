"""What the comparisons share: an exact network, the grid of a peer on our side, and a verdict.

Exponential methods do not see a rescaling of the state, so x_edm = x/alpha on the noise levels rho = sigma/alpha is the
same solve as x on any process with that ratio. Every comparison therefore runs scoresde on `EDMSDE`, on the peer's own
noise levels, and divides the peer's state by alpha.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import scoresde
from scoresde.solvers import Solver
from scoresde.solvers.base import StepResult

TOLERANCE = 1e-9  # asked for is 1e-6
Make = Callable[..., Any]  # see the fixture `make`
DIM, BATCH = 3, 6
MEASURED: dict[str, float] = {}  # the largest deviation of each comparison, shown at the end of a run

# wide enough for every grid here, and for the noise that EDM's sampler adds on top
SDE = scoresde.EDMSDE(sigma_max=1e4, t_min=0.0)
FLOW = scoresde.FlowSDE(t_min=0.0, t_max=1.0)


def _target() -> scoresde.targets.GaussianMixture:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn((4, DIM), generator=generator, dtype=torch.float64)
    roots = 0.3 * torch.randn((4, DIM, DIM), generator=generator, dtype=torch.float64)
    covs = roots @ roots.mT + 0.05 * torch.eye(DIM, dtype=torch.float64)
    weights = torch.tensor([1.0, 3.0, 2.0, 4.0], dtype=torch.float64)
    return scoresde.targets.GaussianMixture(weights, means, covs)


TARGET = _target()


def estimate(x: Tensor, alpha: Any, sigma: Any) -> scoresde.Estimate:
    """The exact estimate of data and noise at a state alpha x0 + sigma eps."""
    return TARGET.score(SDE).denoise(x, alpha, sigma)


def normals(count: int, seed: int = 1) -> list[Tensor]:
    """Standard normal draws, the same for both sides."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn((BATCH, DIM), generator=generator, dtype=torch.float64) for _ in range(count)]


def ours(
    method: str | Solver,
    rho: Tensor | Sequence[float],
    x: Tensor,
    draws: Sequence[Tensor] | None = None,
    sde: scoresde.AffineSDE = SDE,
    **options: Any,
) -> Tensor:
    """Our end state on the given noise levels, from a state ``x`` of x/alpha."""
    grid = torch.as_tensor(rho, dtype=torch.float64)
    noise = None if draws is None else (lambda k, like: draws[k])
    return scoresde.solve(sde, TARGET.score(sde), x, method=method, grid=grid, noise=noise, **options).x


def deviation(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference."""
    assert a.dtype == b.dtype == torch.float64
    return float((a - b).abs().max())


def same(name: str, a: Tensor, b: Tensor) -> None:
    """Both are one algorithm."""
    gap = deviation(a, b)
    MEASURED[name] = max(gap, MEASURED.get(name, 0.0))
    assert gap <= TOLERANCE, f"{name}: ours and theirs differ by {gap:.2e}"


def different(name: str, a: Tensor, b: Tensor, least: float = 1e-4) -> None:
    """They are two algorithms, for the reason that the test gives. It fails when they come to agree."""
    gap = deviation(a, b)
    shown = f"{name} (differs)"
    MEASURED[shown] = max(gap, MEASURED.get(shown, 0.0))
    assert gap > least, f"{name}: ours and theirs differ by {gap:.2e} only; is the reason still true?"


@dataclasses.dataclass(frozen=True)
class RhoABToTheEnd(scoresde.solvers.RhoAB):
    """With a step of full order to sigma = 0, where ours make one of DDIM."""

    def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any) -> Any:
        history, _ = yield from self.look(process, x, start, state)
        return StepResult(self.advance(process, x, stop, history), history)


class TreePath:
    """A peer's own Brownian tree over sigma as its sampler of noise, and what it has given as the draws of ours."""

    def __init__(self, sampler: Callable[..., Any], high: float) -> None:
        self.tree = sampler(torch.zeros(BATCH, DIM), 0.0, 1.01 * float(high), seed=3)
        self.calls: list[tuple[float, float, Tensor]] = []

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        z = self.tree(sigma, sigma_next)
        assert z.dtype == torch.float64
        self.calls.append((float(sigma), float(sigma_next), z))
        return z

    def draws(self) -> list[Tensor]:
        """The draws of the pieces one after the other; a call for a whole step after one for its first part is split.
        Then one more, for our step to sigma = 0, which multiplies it by 0."""
        pieces = []
        for last, (start, stop, z) in itertools.pairwise([(0.0, 0.0, torch.zeros(())), *self.calls]):
            if last[0] == start:
                z = ((start - stop) ** 0.5 * z - (start - last[1]) ** 0.5 * last[2]) / (last[1] - stop) ** 0.5
            pieces.append(z)
        return [*pieces, torch.zeros(BATCH, DIM)]
