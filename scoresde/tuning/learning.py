r"""A solver learned for a network: its coefficients, its nodes and the levels that the network gets.

`fit_solver` starts from the best of the methods of `tune`, written as the coefficients of
`scoresde.solvers.learned.Learned`, and of fitted grids. It then follows the gradient of the pilot's error, which
goes backwards through the solve, on one half of the pilot, where the other half decides which iterate is kept; and once
more with the halves exchanged. The coefficients of each step are projected on the conditions of the order,

.. math:: \sum_j u_j = \sum_j v_j = 1, \qquad
    \sum_j u_j\,\delta_j^k - e^{-\lambda'}\sum_j v_j E_k(\delta_j) = h^k - e^{-\lambda'}E_k(h), \qquad
    E_k(\delta) = \int_0^\delta k s^{k-1} e^{\lambda+s}\,ds,

with :math:`\delta_j = \lambda_j - \lambda`, :math:`h = \lambda'-\lambda`, for k = 1 (order 2) and k = 2 (order 3): they
say that the step is exact where :math:`\hat x` is a polynomial of degree k in :math:`\lambda`, since
:math:`d\hat\varepsilon = -e^\lambda d\hat x` along a path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, NonFiniteError
from ..core.sdes import SDE, AffineSDE, Estimate, Node
from ..core.sdes.base import check_affine
from ..core.solve import solve
from ..core.support.checks import MOST_STEPS, check_flag, check_integer
from ..core.support.declared import alias
from ..scores import Score
from ..scores.base import Traits
from ..solvers import Solver
from ..solvers.learned import MEMORY, Learned
from ..solvers.registry.auto import HIGH, level_of
from ..solvers.registry.config import to_text
from .grid import Clock, GridProblem, optimise
from .path import PilotPaths
from .pilot import Pilot, distances, summary
from .records import FittedSolver, PilotErrors
from .search import Objective, PilotProblem, Search, check_objective, check_ways
from .tuning import candidates_of

_COEFFICIENT = 0.1  # of a coefficient, in a number of theta
_SHIFT = 0.1  # and of the logarithm of alpha/sigma
_MOST = 200  # steps, whose coefficients a file can hold
_METHODS = 4  # whose grids are fitted a little for a start
_TRIED = 2  # starts that are learned from
_CALLS = 135  # on the pilot, for each step, of which 40 are counted at least, with the default number of gradients
_EXACT = 1e-7  # of a method that is written as coefficients

Coefficients = tuple[list[Tensor], list[Tensor]]  # u and v of each step, newest first


@alias("steps", "evaluations")
def fit_solver(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    evaluations: int,
    *,
    pilot: int | None = None,
    order: int = 1,
    shifts: bool = True,
    objective: str | Objective = "log",
    x: Tensor | None = None,
    shape: Sequence[int] | None = None,
    seed: int = 0,
    iterations: int | None = None,
    gradient: bool = True,
    checkpoint: bool = True,
    reference: int | Tensor | None = None,
    t_start: float | None = None,
    t_end: float | None = None,
    context: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> FittedSolver:
    r"""Learn a solver for a score function, a process and a number of evaluations.

    What is learned are the coefficients of `scoresde.solvers.learned.Learned`, the nodes, and the noise levels that the
    network gets, by BFGS: from the two best starts on one half of the pilot, and once more from the better of these
    on the other half. The half that is held out decides which iterate is kept: one counts only if neither the RMS nor
    the median of its errors is larger than that of the best start, so that samples that end in another mode are
    noticed. Of the results, the one with the smallest objective on the whole pilot is returned, or the best start where
    none is better.

    Args:
        sde: an affine process, with a finite log-SNR at both ends.
        score_fn: as for `solve`; it must be differentiable in x, and in t for the nodes. One that is not ``rowwise`` is
            evaluated on the whole pilot where a half would do.
        evaluations: the number of calls of the network per sample, which is that of steps, 2 to 200.
        pilot: the number of samples, by default 32, or as many as ``x`` or ``shape`` has; each half is learned from
            once, and held out once.
        order: 1, 2 or 3: conditions that the coefficients keep (as many as the first steps can). Higher ones leave less
            to learn, and more accuracy on networks that the solver was not learned on.
        shifts: whether the levels that the network gets are learned; only with order 1.
        objective: as of `fit_grid`: ``"log"``, ``"rms"``, or a function ``(x, reference) -> (batch,)``, such as a
            perceptual distance; or ``"path"``, the mean logarithm of the errors at all nodes, of which the end has nine
            tenths, for those who need the states on the way; it is not known to bring the ends nearer.
        x: the pilot's states at ``t_start`` instead of draws from the prior.
        shape: ``(pilot, *event)``, where the score function does not declare the shape of its events.
        seed: of the pilot.
        iterations: gradients of each of the three searches, by default 560 / ``evaluations`` (25 to 75). To begin with,
            the grids of four methods are fitted, with a third as many each. By default, the searches also end after
            5,400 calls on the pilot in all (135 times ``evaluations`` above 40 steps), about three times the cost of
        `fit_grid`. gradient: False where the score function has no gradient, or is too large to go backwards through:
            by finite differences, the nodes and two numbers are learned, one for how far the coefficients are from
            those of DDIM, and one shift for all levels; by default 700 / ``evaluations`` / (``evaluations`` + 2)
        iterations. checkpoint: as of `fit_grid`: memory does not grow with the network's depth times the steps.
        reference: as of `fit_grid`: a number of steps of `scoresde.solvers.UniPC3`, by default 200 or ten times
            ``evaluations``; or the pilot's end states themselves.
        t_start, t_end: the interval, as for `solve`.
        context: as for `scoresde.solve`, of the pilot.
        dtype, device: of the pilot; as of `solve`.

    Returns:
        A `FittedSolver`, for ``method=`` of `solve`.

    Raises:
        InvalidArgumentError: an argument does not fit, a layer of the network is in training mode and
            depends on it, or the score function has no gradient.
        NonFiniteError: no start gives a finite result.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
        >>> sde = scoresde.VPSDE()
        >>> fitted = fit_solver(sde, target.score(sde), 4, pilot=16, iterations=60)
        >>> fitted.fitted.rms <= fitted.default.rms
        True
        >>> scoresde.solve(sde, target.score(sde), method=fitted, shape=(3, 2)).evaluations
        4

    References:
        Shaul et al. (2024), Bespoke Non-Stationary Solvers. https://arxiv.org/abs/2403.01329
        Wang et al. (2025), Differentiable Solver Search. https://arxiv.org/abs/2505.21114
    """
    sde = check_affine(sde)
    steps = check_integer("evaluations", evaluations, low=2, high=_MOST)
    check_integer("order", order, low=1, high=3)
    check_flag("shifts", shifts)
    check_ways(gradient, checkpoint)
    count = min(max(560 // steps, 25), 75) if gradient else max(700 // (steps * (steps + 2)), 10)
    if iterations is not None:
        count = check_integer("iterations", iterations, low=0, high=MOST_STEPS)
    check_objective(objective, ("log", "rms", "path"))
    batch = Pilot.of(
        sde, score_fn, pilot, 32, checkpoint=checkpoint, level=level_of(steps, HIGH), x=x, shape=shape, seed=seed,
        t_start=t_start, t_end=t_end, context=context, dtype=dtype, device=device,
    )  # fmt: skip
    if Clock(sde, batch.start, batch.end).in_time:
        ends = [
            f"{name}={t:g}"
            for name, t in (("t_start", batch.start), ("t_end", batch.end))
            if not math.isfinite(float(sde.log_snr(t)))
        ]
        raise InvalidArgumentError(
            f"The log-SNR must be finite at both ends to learn a solver, which it is not at {' and '.join(ends)}; "
            "pass another end nearby, or make the process or model with t_min=1e-3 and t_max=0.999."
        )
    whole = 1 if batch.score.traits.rowwise else 2  # halves that a half takes
    most = _CALLS * max(steps, 40) * whole if iterations is None else math.inf
    tight = max(200, 10 * steps) if reference is None else reference
    exact = batch.reference(tight)
    batch.warn_of_far(exact)
    batch = batch.measured(exact, level_of(steps, HIGH))
    clock = Clock(sde, batch.start, batch.end)
    goal = PilotPaths.of(batch, tight) if isinstance(objective, str) and objective == "path" else objective
    grids = min(max(120 // steps, 4), 24) if iterations is None and gradient else count // 3
    starts = _starts(batch, clock, exact, goal, gradient, steps, grids)

    def learned(start: _Start, pilot: Pilot) -> _LearnedResult:
        limits = _held_out(pilot, exact, starts[0].solver, clock.times(starts[0].theta))
        problem = _LearnedProblem.at(start, pilot, exact, goal, gradient, clock, order, shifts and order == 1, limits)
        search, first = Search(problem), problem.first(start)
        search.look(first)
        search.bfgs(first, count, most)
        if search.kept == math.inf:
            return unchanged
        loss = problem.value(search.best, slice(None), 1e-14)
        return _LearnedResult(start, pilot, problem.solver(search.best), search.best[:steps], loss, order)

    best = unchanged = _LearnedResult(starts[0], batch, starts[0].solver, starts[0].theta, starts[0].loss, 1)
    if count:
        best = min([unchanged, *(learned(start, batch) for start in starts[:_TRIED])], key=_loss)
        best = min([best, learned(best.start, batch.turned())], key=_loss)
    times = clock.times(best.theta).detach()
    batch.warn_of_modes(distances(batch.solve(best.solver, times), exact), exact)
    with torch.no_grad():
        log_snr = sde.log_snr(times)
    return FittedSolver(
        tuple(times.tolist()),
        method=to_text(best.solver),
        process=repr(sde),
        from_noise=batch.from_noise,
        log_snr=tuple(log_snr.tolist()),
        fitted=_held_out(best.pilot, exact, best.solver, times),
        default=_held_out(best.pilot, exact, starts[0].solver, clock.times(starts[0].theta)),
        cost=batch.cost,
        **batch.made_with,
        start=best.start.name,
        order=best.order,
    )


@dataclass(frozen=True)
class _Start:
    """Coefficients and times to begin with.

    Attributes:
        name: the method and its grid, as text.
        method: the method.
        coefficients: those that it is written with.
        theta: of the gaps of its grid.
        loss: the objective on the whole pilot.
    """

    name: str
    method: Solver
    coefficients: Coefficients
    theta: Tensor
    loss: float

    @property
    def solver(self) -> Learned:
        """The method as its coefficients."""
        u, v = (tuple(tuple(row.tolist()) for row in rows) for rows in self.coefficients)
        return Learned(u, v)


@dataclass(frozen=True)
class _LearnedResult:
    """A solver, and what it was learned from.

    Attributes:
        start: where the search began.
        pilot: the pilot, with the half that was held out.
        solver, theta: the solver, and the theta of the gaps of its grid.
        loss: the objective on the whole pilot.
        order: the conditions that are kept.
    """

    start: _Start
    pilot: Pilot
    solver: Learned
    theta: Tensor
    loss: float
    order: int


def _loss(found: _Start | _LearnedResult) -> float:
    """What is compared."""
    return found.loss


def _starts(
    batch: Pilot,
    clock: Clock,
    exact: Tensor,
    objective: str | Objective | PilotPaths,
    gradient: bool,
    steps: int,
    count: int,
) -> list[_Start]:
    """The candidates of `tune` that can be written as coefficients, each method once, the best first; those of the
    best methods on their own grids or on fitted ones, whichever is better."""

    def measured(solver: Solver, theta: Tensor, grid: str) -> _Start | None:
        times = clock.times(theta).detach()
        coefficients = coefficients_of(solver, batch.sde, times)
        if coefficients is None:
            return None
        problem = GridProblem(batch, exact, objective, gradient, solver, clock)
        loss = problem.value(theta, slice(None), 1e-14)
        return _Start(f"{to_text(solver)} on {grid}", solver, coefficients, theta, loss)

    def fitted(start: _Start, iterations: int) -> _Start:
        problem = GridProblem(batch, exact, objective, gradient, start.method, clock)
        theta = optimise(problem, [start.theta], iterations)
        return measured(start.method, theta, "a fitted grid") or start

    entries = [entry for entry in candidates_of(batch, steps) if entry.count(steps) == steps]
    given = [measured(entry.solver, clock.theta(batch.times(entry.grid, steps)), entry.name) for entry in entries]
    found = sorted((start for start in given if start is not None), key=_loss)
    if not found or not found[0].loss < math.inf:
        raise NonFiniteError("No start gives a finite result; take more steps.", stage="state")
    first = {start.method: start for start in reversed(found)}  # of each method the best
    short = sorted(first.values(), key=_loss)[:_METHODS]
    return sorted([min(start, fitted(start, count), key=_loss) for start in short] if count else short, key=_loss)


@dataclass(frozen=True)
class _LearnedProblem(PilotProblem):
    """The error of a learned solver: theta are the gaps of the grid, changes of the coefficients, and shifts."""

    clock: Clock
    base: Coefficients
    order: int
    shifts: bool
    limits: PilotErrors  # of the best start, which an iterate must not pass

    @classmethod
    def at(
        cls,
        start: _Start,
        batch: Pilot,
        exact: Tensor,
        objective: str | Objective | PilotPaths,
        gradient: bool,
        clock: Clock,
        order: int,
        shifts: bool,
        limits: PilotErrors,
    ) -> _LearnedProblem:
        """The problem whose theta = 0, beside the gaps, is a start."""
        u, v = (
            [torch.cat([row, row.new_zeros(min(i + 1, MEMORY) - len(row))]) for i, row in enumerate(rows)]
            for rows in start.coefficients
        )
        return cls(batch, exact, objective, gradient, clock, (u, v), order, shifts, limits)

    def first(self, start: _Start) -> Tensor:
        """The theta of a start."""
        theta = torch.zeros(self.size, dtype=torch.float64)
        theta[: self.steps] = start.theta
        return theta

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.base[0])

    @property
    def size(self) -> int:
        """The length of theta."""
        if not self.gradient:
            return self.steps + 1 + self.shifts
        return self.steps + 2 * sum(map(len, self.base[0])) + self.shifts * self.steps

    def _full(self, theta: Tensor) -> Tensor:
        """The theta with a gradient that one without stands for."""
        n = self.steps
        parts = [theta[:n]]
        for row in (row for pair in zip(*self.base, strict=True) for row in pair):
            first = torch.zeros_like(row)
            first[0] = 1.0
            parts.append(theta[n] * (row - first))
        return torch.cat([*parts, theta[n + 1 :].expand(n if self.shifts else 0)])

    def solver(self, theta: Tensor) -> Learned:
        """The solver of a theta; its numbers are tensors where theta has a gradient."""
        n = self.steps
        if not self.gradient:
            theta = self._full(theta)
        lams = 0.5 * self.clock.sde.log_snr(self.clock.times(theta[:n])) if self.order > 1 else None
        rows: tuple[list[Any], list[Any]] = ([], [])
        at = n
        for i, (u, v) in enumerate(zip(*self.base, strict=True)):
            k = len(u)
            w = torch.cat([u, v]) + _COEFFICIENT * theta[at : at + 2 * k]
            w, at = _projected(w, None if lams is None else lams[: i + 2], self.order), at + 2 * k
            for row, part in zip(rows, (w[:k], w[k:]), strict=True):
                row.append(tuple(part.unbind()) if theta.requires_grad else tuple(part.tolist()))
        told: tuple[Any, ...] = ()
        if self.shifts:
            moved = _SHIFT * theta[at:]
            told = tuple(moved.unbind()) if theta.requires_grad else tuple(moved.tolist())
        return Learned(tuple(rows[0]), tuple(rows[1]), told)

    def method(self, theta: Tensor) -> tuple[Solver, Tensor]:
        return self.solver(theta), self.clock.times(theta[: self.steps])

    def judged(self, theta: Tensor) -> tuple[float, bool]:
        """See `PilotProblem.judged`: neither the RMS nor the median of the errors may be larger than that of the
        start."""
        with torch.no_grad():
            end, loss = self._solved(theta, self.held_out, 1e-14)
            got = summary(distances(end, self.exact[self.held_out]))
        return float(loss), got.rms <= self.limits.rms and got.median <= self.limits.median


def _held_out(pilot: Pilot, exact: Tensor, solver: Solver, times: Tensor) -> PilotErrors:
    """The errors of the half that is held out."""
    rows = pilot.halves[1]
    with torch.no_grad():
        return summary(distances(pilot.solve(solver, times, rows), exact[rows]))


def _projected(w: Tensor, lams: Tensor | None, order: int) -> Tensor:
    """The nearest coefficients of a step that keep the conditions of an order; ``lams`` up to the end of the step."""
    k = len(w) // 2
    ones, zeros = torch.ones(k, dtype=w.dtype), torch.zeros(k, dtype=w.dtype)
    rows, goals = [torch.cat([ones, zeros]), torch.cat([zeros, ones])], [torch.ones((), dtype=w.dtype)] * 2
    if lams is not None:
        now, end = lams[-2], lams[-1]
        delta = lams[:-1].flip(0)[:k] - now
        for power in range(1, min(order, k)):
            rows.append(torch.cat([delta**power, -_integral(power, delta, now, end)]))
            goals.append((end - now) ** power - _integral(power, end - now, now, end))
    a = torch.stack(rows)
    return w - a.T @ torch.linalg.solve(a @ a.T, a @ w - torch.stack(goals))


def _integral(power: int, delta: Tensor, now: Tensor, end: Tensor) -> Tensor:
    r""":math:`e^{-\lambda'}E_k(\delta)`, k = 1 or 2."""
    scale = torch.exp(now - end)
    if power == 1:
        return scale * torch.expm1(delta)
    return 2 * scale * ((delta - 1) * torch.exp(delta) + 1)


class _Unit(Score):
    """A score function whose i-th estimate of the noise is the i-th unit vector: what a linear method makes of it are
    the method's coefficients."""

    def __init__(self, size: int) -> None:
        self.traits = Traits(event_shape=(size,), rowwise=True)
        self.states: list[Tensor] = []
        self.noises: list[Tensor] = []
        self.nodes: list[Node[Any]] = []

    def score(self, x: Tensor, node: Node[Any], **context: object) -> Tensor:
        return -self.estimate(x, node).noise / node.sigma

    def estimate(self, x: Tensor, node: Node[Any], **context: object) -> Estimate:
        noise = torch.zeros_like(x)
        noise[:, min(len(self.states) + 1, x.shape[1] - 1)] = 1.0
        self.states.append(x[0].clone())
        self.noises.append(noise[0].clone())
        self.nodes.append(node)
        return Estimate((x - node.sigma * noise) / node.alpha, noise)


def coefficients_of(solver: Solver, sde: AffineSDE, times: Tensor) -> Coefficients | None:
    """The coefficients of a linear method with one evaluation per step on a grid, u and v of each step; None if its
    steps are not of this form.

    Example:
        >>> u, v = coefficients_of(
        ...     scoresde.solvers.DDIM(), scoresde.VPSDE(), torch.tensor([1.0, 0.5, 0.1])
        ... )
        >>> u[0].tolist(), v[0].tolist()
        ([1.0], [1.0])
    """
    steps = len(times) - 1
    unit = _Unit(steps + 1)
    x = torch.zeros(1, steps + 1, dtype=torch.float64)
    x[0, 0] = 1.0
    end = solve(sde, unit, x, method=solver, grid=times.to(torch.float64)).x[0]
    if len(unit.states) != steps:
        return None
    states, stops = [*unit.states, end], [*(float(t) for t in times[1:])]
    found: Coefficients = ([], [])
    for i, t in enumerate(stops):
        stop, k = sde.node(t), min(i + 1, MEMORY)
        past = range(i, i - k, -1)
        data = [(unit.states[j] - unit.nodes[j].sigma * unit.noises[j]) / unit.nodes[j].alpha for j in past]
        columns = torch.stack([stop.alpha * d for d in data] + [stop.sigma * unit.noises[j] for j in past], 1)
        w = torch.linalg.lstsq(columns, states[i + 1][:, None], driver="gelsd").solution[:, 0]  # the smallest
        if float((columns @ w - states[i + 1]).norm()) > _EXACT * float(states[i + 1].norm()):
            return None
        u, v = w[:k], w[k:]
        if max(abs(float(u.sum()) - 1), abs(float(v.sum()) - 1)) > _EXACT * float(w.abs().sum()):
            return None
        found[0].append(u / u.sum())
        found[1].append(v / v.sum())
    return found
