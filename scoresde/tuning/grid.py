r"""Grids fitted to a network: the best nodes for a given number of steps.

With few steps the error of a solve depends on where they are more than on the method. `fit_grid` takes a pilot batch,
solves it once almost exactly, and moves the nodes until a solve with the given number of steps comes close to it. Nodes
are written as

.. math:: \lambda_k = \lambda_0 + (\lambda_N-\lambda_0)\sum_{j<k}\mathrm{softmax}(\theta)_j,

so that both ends stay and the order is kept, and :math:`\theta` follows the gradient of the pilot's error, which goes
backwards through the solver. The gradient is that of one half of the pilot; the error of the other half decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import grids
from ..core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, short
from ..core.sdes import SDE, AffineSDE
from ..core.sdes.base import check_affine
from ..core.solve import solve
from ..core.support.checks import MOST_STEPS, check_integer, check_tensor
from ..grids import Grid
from ..solvers import Solver, make_solver
from ..solvers.registry.auto import HIGH, level_of
from ..solvers.registry.config import to_text
from ..solvers.registry.rows import MethodName
from .pilot import Pilot
from .records import FittedGrid
from .search import Objective, PilotProblem, Search, check_objective, check_ways

_LEAST_GAP = 1e-3  # of the mean gap
_RATE = 0.15  # Adam's first step in theta
_STARTING = 4.0  # a first step so much smaller than the next one was not chosen by the error


def fit_grid(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    steps: int | None = None,
    method: MethodName | str | Solver = "unipc2",
    *,
    evaluations: int | None = None,
    pilot: int | None = None,
    objective: str | Objective = "log",
    x: Tensor | None = None,
    shape: Sequence[int] | None = None,
    seed: int = 0,
    starts: str | Sequence[str | Grid | Tensor] | None = None,
    iterations: int | None = None,
    gradient: bool = True,
    checkpoint: bool = True,
    reference: int | Tensor | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    context: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **solver_options: object,
) -> FittedGrid:
    r"""Fit the nodes of a grid to a score function, a process and a deterministic method.

    A few iterations of Adam from each start choose one of them; Adam continues with it, and BFGS finishes. A third of
    the iterations is for each of the three. The grid that did best on the held-out half is returned, so a fit is never
    worse there than its starts and the default grid.

    Args:
        sde: an affine process.
        score_fn: as for `solve`; one that is not ``rowwise`` is evaluated on the whole pilot where a half would do.
        steps: the number of steps; evaluations follow from the method.
        method: a deterministic method with fixed steps.
        evaluations: in place of ``steps``, the number of calls of the network per sample.
        pilot: the number of samples in the pilot batch, by default 64, or as many as ``x`` or ``shape`` has: one half
            to learn from, one half held out.
        objective: ``"log"``, the mean logarithm of the samples' RMS errors, which a few samples that end in another
            mode do not dominate; ``"rms"``; or a function ``(x, reference) -> (batch,)``, whose mean is minimised.
        x: the pilot's states at ``t_start`` instead of draws from the prior. Without ``t_start`` a grid of up to 29
            evaluations begins at :math:`\sigma/\alpha` = 300, in units of the data, at most.
        shape: ``(pilot, *event)``, if the score function does not declare the shape of its events.
        seed: of the pilot.
        starts: names of grids, ``"quick"`` (the steps of an adaptive method), ``"perturbed"`` (the default grid with
            random gaps), grids, or tensors of times; by default ``"log_snr"`` (``"time"`` if the log-SNR is infinite),
            ``"quadratic"``, ``"cosine"`` and ``"quick"``.
        iterations: steps of the optimiser in all, by default 720 / evaluations of a solve (10 to 150), so that a fit of
            up to 40 evaluations takes about 2,000 calls on the pilot; 0 takes the best of the starts.
            ``starts="quick", iterations=0`` needs only one adaptive solve: as many steps fall in an interval as the
            adaptive pair took there.
        gradient: False if the score function has no gradient: finite differences then take twice ``steps`` solves per
            iteration.
        checkpoint: keep only states for the gradient and call the network again in the backward pass, so that memory
            does not grow with the network's depth times the steps.
        reference: the number of steps of the reference by `scoresde.solvers.UniPC3`, by default 200, or ten times
            ``steps``; or the pilot's end states themselves.
        t_start, t_end: the interval, as for `solve`.
        context: of the pilot, as for `scoresde.solve`.
        dtype, device: of the pilot; as of `solve`.
        **solver_options: fields of the method's class.

    Returns:
        A `FittedGrid`.

    Raises:
        InvalidArgumentError: an argument does not fit, a layer of the network is in training mode and
            depends on it, or the score function has no gradient.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
        >>> sde = scoresde.VPSDE()
        >>> grid = fit_grid(sde, target.score(sde), 5, pilot=16, iterations=80)
        >>> grid.fitted.rms < 0.2 * grid.default.rms
        True
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="unipc2", grid=grid, shape=(3, 2)
        ... ).evaluations
        5

    References:
        Xue et al. (2024), Accelerating Diffusion Sampling with Optimized Time Steps. https://arxiv.org/abs/2402.17376
    """
    solver = make_solver(method, solver_options, ())
    sde = check_affine(sde)
    check_method(solver)
    if (steps is None) == (evaluations is None):
        raise InvalidArgumentError("Give `steps` or `evaluations`, one of them.")
    if evaluations is not None:
        steps = solver.steps_for(check_integer("evaluations", evaluations, low=solver.cost(2), high=MOST_STEPS))
    steps = check_integer("steps", steps, low=2, high=MOST_STEPS)
    count = min(max(720 // (steps * solver.evaluations), 10), 150)
    if iterations is not None:
        count = check_integer("iterations", iterations, low=0, high=MOST_STEPS)
    check_ways(gradient, checkpoint)
    check_objective(objective)
    batch = Pilot.of(
        sde, score_fn, pilot, 64, checkpoint=checkpoint, level=level_of(steps * solver.evaluations, HIGH), x=x,
        shape=shape, seed=seed, t_start=t_start, t_end=t_end, context=context, dtype=dtype, device=device,
    )  # fmt: skip
    exact = batch.reference(max(200, 10 * steps) if reference is None else reference)
    batch = batch.measured(exact, level_of(steps * solver.evaluations, HIGH))
    clock = Clock(sde, batch.start, batch.end)
    problem = GridProblem(batch, exact, objective, gradient, solver, clock)
    best = optimise(problem, [problem.start(s, steps, seed) for s in _listed(starts, clock)], count)
    times = clock.times(best).detach()
    with torch.no_grad():
        log_snr = sde.log_snr(times)
    return FittedGrid(
        tuple(times.tolist()),
        method=to_text(solver),
        process=repr(sde),
        from_noise=batch.from_noise,
        log_snr=tuple(log_snr.tolist()),
        fitted=problem.errors(best),
        default=problem.errors(clock.theta(clock.default(steps))),
        cost=batch.cost,
        **batch.made_with,
    )


def check_method(solver: Solver) -> None:
    """Refuse a method whose error is no function of the nodes."""
    if solver.stochastic:
        raise InvalidArgumentError(
            f"`method` must be deterministic with fixed steps, but {solver.name!r} draws noise; try 'unipc2'."
        )
    check_fixed(solver)


def check_fixed(solver: Solver) -> None:
    """Refuse a method that does not step from node to node."""
    if solver.adaptive or solver.own_steps:
        raise InvalidArgumentError(
            f"`method` must have fixed steps, but {solver.name!r} chooses its own steps; try 'unipc2'."
        )


def _listed(starts: Any, clock: Clock) -> list[Any]:
    if starts is None:
        return ["time", "quadratic", "cosine"] if clock.in_time else ["log_snr", "quadratic", "cosine", "quick"]
    if isinstance(starts, str | Grid | Tensor):
        starts = [starts]
    if not isinstance(starts, Sequence) or not starts:
        raise InvalidTypeError(f"`starts` must be a name, a grid, or a list of those, got {short(starts)}.")
    for i, start in enumerate(starts):
        if not isinstance(start, str | Grid) and not callable(start):
            check_tensor(f"starts[{i}]", start, (-1,))
    return list(starts)


class Clock:
    """Times as functions of theta: gaps in the log-SNR, or in time where that is infinite at an end."""

    def __init__(self, sde: AffineSDE, start: float, end: float) -> None:
        self.sde, self.start, self.end = sde, start, end
        with torch.no_grad():
            ends = [float(sde.log_snr(t)) for t in (self.start, self.end)]
        self.in_time = not all(math.isfinite(v) for v in ends)
        self.low, self.high = (self.start, self.end) if self.in_time else (ends[0], ends[1])

    def default(self, steps: int) -> Tensor:
        return grids.resolve(None, self.sde, self.start, self.end, steps)

    def times(self, theta: Tensor) -> Tensor:
        gaps = (torch.softmax(theta, 0) + _LEAST_GAP / len(theta)) / (1 + _LEAST_GAP)
        inner = self.low + (self.high - self.low) * gaps.cumsum(0)[:-1]
        ends = torch.tensor([self.start, self.end], dtype=torch.float64)
        return torch.cat([ends[:1], inner if self.in_time else self.sde.time(inner), ends[1:]])

    def theta(self, times: Tensor) -> Tensor:
        """The inverse, apart from gaps that are too small."""
        with torch.no_grad():
            u = times if self.in_time else self.sde.log_snr(times)
        return self.theta_of_gaps(u.diff() / (self.high - self.low))

    @staticmethod
    def theta_of_gaps(gaps: Tensor) -> Tensor:
        """Theta of gaps that sum to one."""
        given = gaps * (1 + _LEAST_GAP) - _LEAST_GAP / len(gaps)
        theta = given.clamp_min(0.1 * _LEAST_GAP / len(gaps)).log()
        return theta - theta.mean()


@dataclass(frozen=True)
class GridProblem(PilotProblem):
    """The error of a method as a function of the gaps of its grid."""

    solver: Solver
    clock: Clock

    def method(self, theta: Tensor) -> tuple[Solver, Tensor]:
        return self.solver, self.clock.times(theta)

    def start(self, start: Any, steps: int, seed: int) -> Tensor:
        """Theta of a start."""
        clock = self.clock
        if isinstance(start, str) and start == "quick":
            return clock.theta(self._quick(steps))
        if isinstance(start, str) and start == "perturbed":
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(steps, generator=generator, dtype=torch.float64)
            return clock.theta(clock.default(steps)) + 0.5 * noise
        if isinstance(start, str) or (callable(start) and not isinstance(start, Grid)):
            return clock.theta(grids.resolve(start, clock.sde, clock.start, clock.end, steps))
        given = torch.as_tensor(start.times_for(clock.sde) if isinstance(start, Grid) else start, dtype=torch.float64)
        if len(given) != steps + 1 or not torch.allclose(
            given[[0, -1]].detach(), torch.tensor([clock.start, clock.end], dtype=torch.float64), rtol=1e-6, atol=0.0
        ):
            raise InvalidArgumentError(
                f"A grid among `starts` must have {steps + 1} times from {clock.start:g} to {clock.end:g}, got "
                f"{given.tolist()}."
            )
        return clock.theta(given.detach())

    def _quick(self, steps: int) -> Tensor:
        """Equidistribution: every step has the same share of the steps that an adaptive method took."""
        if not float(self.clock.sde.node(self.clock.end).sigma) > 0:
            raise InvalidArgumentError(
                f"starts='quick' takes an adaptive solve, which cannot end at t={self.clock.end:g}, where no noise is "
                "left; leave `starts` out, or give a `t_end` above."
            )
        x, context, found = self.pilot.batch(self.train)
        path = solve(
            self.pilot.sde, self.pilot.score, x, method="rk45", rtol=1e-3, atol=1e-3, save_at="steps",
            t_start=self.clock.start, t_end=self.clock.end, context=context,
        )  # fmt: skip
        return equidistribute(path.ts.T[found], steps, self.clock)  # type: ignore[union-attr]


def equidistribute(paths: Tensor, steps: int, clock: Clock) -> Tensor:
    """Times between which each sample's path, ``(batch, n)`` times, has on average equal shares of its own steps."""
    at = torch.linspace(0.0, 1.0, 16 * steps + 1, dtype=torch.float64)
    shares = torch.zeros_like(at)
    for path in paths:
        times = torch.unique_consecutive(path[torch.isfinite(path)])  # rejected steps do not move
        u = (times if clock.in_time else clock.sde.log_snr(times)).sub(clock.low).div(clock.high - clock.low)
        while len(u) > 3 and _STARTING * (u[1] - u[0]) < u[2] - u[1]:  # steps that had not found their size
            u = torch.cat([u[:1], u[2:]])
        shares += _interpolate(at, u, torch.linspace(0.0, 1.0, len(u), dtype=torch.float64)) / len(paths)
    inner = _interpolate(torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64), shares, at)
    return clock.times(clock.theta_of_gaps(inner.diff()))


def _interpolate(x: Tensor, xp: Tensor, fp: Tensor) -> Tensor:
    """Linear, for growing xp."""
    i = torch.searchsorted(xp, x, right=True).clamp(1, len(xp) - 1)
    return fp[i - 1] + (fp[i] - fp[i - 1]) * (x - xp[i - 1]) / (xp[i] - xp[i - 1])


def optimise(problem: GridProblem, starts: list[Tensor], iterations: int) -> Tensor:
    """The theta that did best on the held-out half."""
    search = Search(problem)
    search.look(problem.clock.theta(problem.clock.default(len(starts[0]))))
    each = iterations // 3 // len(starts)
    reached = []
    for theta in starts:
        value = search.look(theta)
        if each:
            theta = search.adam(theta, each, _RATE)
            value = problem.value(theta, problem.train, problem.floor(theta))
        reached.append((value, theta))
    if not math.isfinite(search.lowest):
        raise NonFiniteError("No starting grid gives a finite result; take more steps or other starts.", stage="state")
    left = iterations - each * len(starts)
    if left:
        theta = search.adam(min(reached, key=lambda pair: pair[0])[1], left // 2, _RATE / 2)
        search.bfgs(theta, left - left // 2)
    return search.best
