"""Orders of a solver, and its error for a number of evaluations, on problems with exact answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import grids
from ..core.errors import InvalidArgumentError
from ..core.sdes import VPSDE, AffineSDE
from ..core.sdes.base import check_sde
from ..core.support.checks import (
    MOST_STEPS,
    MOST_STOCHASTICITY,
    check_choice,
    check_integer,
    check_integers,
    check_kind,
    check_number,
    check_tensor,
    check_times,
)
from ..solvers import Solver, make_solver
from ..targets import Gaussian, GaussianMixture
from .exact import Convergence, Draw, Weight, converge, gaussian_state, mixture_flow_map, probe, strong_error
from .kolmogorov import MOST_DRAWS_A_STEP, expectations, expectations_of_law
from .run import end_of, run

_F64 = torch.float64


def _mixture() -> GaussianMixture:
    """Unequal weights, a gap and three widths; its probability flow is strongly non-linear."""
    means = torch.tensor([[-1.2], [0.4], [1.5]], dtype=_F64)
    return GaussianMixture(torch.tensor([0.3, 0.5, 0.2]), means, scales=torch.tensor([0.3, 0.2, 0.4]))


def _problem(
    method: Solver | str, sde: AffineSDE | None, t_start: float | None, t_end: float | None, options: dict[str, object]
) -> tuple[Solver, AffineSDE, tuple[float, float]]:
    """The solver, the process and the interval of a measurement, checked."""
    process = VPSDE() if sde is None else sde
    check_sde(process, affine=True)
    first = grids.time_of("t_start", t_start, process, process.t_max)
    last = grids.time_of("t_end", t_end, process, process.t_min)
    return make_solver(method, options), process, (first, last)


def estimate_order(
    method: Solver | str,
    sde: AffineSDE | None = None,
    *,
    steps: Sequence[int] = (40, 80, 160, 320),
    grid: str | grids.GridFunction = "log_snr",
    t_start: float | None = None,
    t_end: float | None = None,
    **options: object,
) -> Convergence:
    r"""The order of a deterministic method, on the probability flow of a one-dimensional mixture.

    The error is the largest over six starts, against the quantile map.

    Args:
        method: a solver or a name; ``options`` are the name's.
        sde: the process, `VPSDE` by default.
        steps: numbers of steps, growing.
        grid: where the steps are, a name or a function ``(sde, t_start, t_end, steps)``. On a smooth grid neighbouring
            steps are nearly equal, so that a multistep method with wrong weights for unequal ones shows its order
            nevertheless; an uneven grid shows the fault.
        t_start, t_end: the interval; a bad first step hardly shows at ``t_max``; pass ``t_start=0.5``,
            say, to test the first steps of a multistep method.

    Returns:
        A `Convergence`: errors, slopes, ``order()``.

    Example:
        >>> round(estimate_order("dpmpp_2m", steps=(80, 160)).order(), 1)
        2.0
    """
    solver, process, interval = _problem(method, sde, t_start, t_end, options)
    target = _mixture()
    if solver.stochastic:
        raise InvalidArgumentError(f"method={solver.name!r} draws noise; see weak_order and strong_order.")
    starts = process.prior.std * torch.tensor([-1.7, -0.9, -0.2, 0.35, 0.8, 1.6], dtype=_F64)[:, None]
    x = mixture_flow_map(target, starts, process, process.t_max, interval[0])
    exact = mixture_flow_map(target, x, process, *interval)

    def error(n: int) -> float:
        got = end_of(solver, process, target.score(process), x, grids.resolve(grid, process, *interval, n))
        return float((got - exact).abs().max())

    return converge(error, steps)


def _started(solver: Solver, sde: AffineSDE, times: Tensor, stochasticity: float | None) -> tuple[Gaussian, Any]:
    """A Gaussian problem, and its solve from the exact distribution at the first time."""
    target = Gaussian(torch.tensor([0.7], dtype=_F64), 0.3)

    def solve(shape: tuple[int, ...], draw: Draw) -> Tensor:
        x = gaussian_state(target, sde, float(times[0]), draw(0, torch.empty(shape, dtype=_F64)))
        later: Draw = lambda k, like: draw(k + 1, like)  # noqa: E731
        return end_of(solver, sde, target.score(sde), x, times, later, stochasticity)

    return target, solve


def _check_draws(solver: Solver) -> None:
    """Refuse a method whose distribution is a point."""
    if not solver.stochastic:
        raise InvalidArgumentError(f"method={solver.name!r} draws no noise; see estimate_order.")


def _check_linear(solver: Solver, sde: AffineSDE, times: Tensor, stochasticity: float | None) -> None:
    """Refuse a method whose step, from one state, is not linear in its draws."""
    middle = len(times) // 2
    target = Gaussian(torch.tensor([0.7], dtype=_F64), 0.3)

    def step(shape: tuple[int, ...], draw: Draw) -> Tensor:
        x = torch.full(shape, sde.prior.std / 2, dtype=_F64)
        return end_of(solver, sde, target.score(sde), x, times[middle - 1 : middle + 1], draw, stochasticity)

    probe(step, (1,))


def _stochasticity(solver: Solver, given: float | None) -> float:
    """Eta of the SDE that a solver solves: that of the solve, or an option of its own."""
    if given is not None and not solver.takes_stochasticity:
        raise InvalidArgumentError(f"method={solver.name!r} has no stochasticity; it may have an option such as eta.")
    own = getattr(solver, "eta", getattr(solver, "tau", solver.default_stochasticity))
    if callable(own):
        raise InvalidArgumentError("`tau` must be a number: the exact solution is known for constants only.")
    return check_number("stochasticity", own if given is None else given, low=0.0, high=MOST_STOCHASTICITY)


def weak_order(
    method: Solver | str,
    sde: AffineSDE | None = None,
    *,
    problem: str = "gaussian",
    steps: Sequence[int] = (64, 128, 256),
    grid: str | grids.GridFunction = "log_snr",
    t_start: float | None = None,
    t_end: float = 0.01,
    draws: int = 1,
    stochasticity: float | None = None,
    **options: object,
) -> Convergence:
    r"""The order of the distribution of a method, without Monte Carlo error.

    On ``"gaussian"``, N(0.7, 0.3), the error is :math:`|V/S - 1|` of the variance, exact by probing. On ``"mixture"``
    it is the root of the summed squares of the errors of :math:`E x^2, E\cos 2x, E\,\mathrm{sigmoid}(4x)`, by the
    backward recursion: for methods without a memory, whose step does not depend on the number of steps. Both hold for
    steps that are linear in their draws.

    Args:
        method, sde, steps, grid, t_start, t_end, options: as in `estimate_order`.
        problem: ``"gaussian"`` or ``"mixture"``.
        draws: of the mixture: how many draws a step makes.
        stochasticity: eta, of methods that take it.

    Example:
        >>> round(weak_order("dpmpp_2m_sde").order(), 1)
        2.0
    """
    solver, process, interval = _problem(method, sde, t_start, t_end, options)
    check_integer("draws", draws, low=1, high=MOST_DRAWS_A_STEP)
    _stochasticity(solver, stochasticity)
    t_end = interval[1]

    def gaussian_error(n: int) -> float:
        target, solve = _started(solver, process, grids.resolve(grid, process, *interval, n), stochasticity)
        covariance = probe(solve, (1,)).covariance
        exact = float(process.alpha(t_end)) ** 2 * float(target.spectrum.values) + float(process.sigma(t_end)) ** 2
        return abs(float(covariance) / exact - 1)

    def mixture_error(n: int) -> float:
        times = grids.resolve(grid, process, *interval, n)
        _check_linear(solver, process, times, stochasticity)
        got = expectations(_mixture(), process, times, solver, draws=draws, nodes=20 if draws == 1 else 10)
        return float(((got - expectations_of_law(_mixture(), process, t_end)) ** 2).sum() ** 0.5)

    problems = {"gaussian": gaussian_error, "mixture": mixture_error}
    check_choice("problem", problem, problems)
    _check_draws(solver)
    return converge(problems[problem], steps)


def strong_order(
    method: Solver | str,
    sde: AffineSDE | None = None,
    *,
    steps: Sequence[int] = (64, 128, 256),
    grid: str | grids.GridFunction = "log_snr",
    t_start: float | None = None,
    t_end: float = 0.01,
    weight: Weight | Sequence[Weight] | None = None,
    cells: Sequence[float] = (),
    stochasticity: float | None = None,
    **options: object,
) -> Convergence:
    r"""The order of a method's distance from the exact solution on the same Brownian path, on N(0.7, 0.3), exact by
    probing, for steps that are linear in their draws.

    The exact solution is that of the reverse SDE with the method's :math:`\eta`: ``stochasticity``, or an attribute
    ``eta`` of the method, or 1. A method that draws more or less noise than that SDE may be right in distribution, and
    is far from its paths: its order here is near 0.

    Args:
        method, sde, steps, grid, t_start, t_end, options: as in `estimate_order`.
        weight: which increment of the path a draw stands for, see `strong_error`.
        cells: of a method that draws for parts of a step, where the parts end, as fractions of the step in
            :math:`\lambda`.
        stochasticity: eta, of methods that take it.

    Example:
        >>> round(strong_order("euler_maruyama", grid="time", steps=(128, 256)).order(), 1)
        1.0
    """
    solver, process, interval = _problem(method, sde, t_start, t_end, options)
    _check_draws(solver)
    eta = _stochasticity(solver, stochasticity)
    t_end = interval[1]
    fractions = check_times("cells", cells, "fractions").tolist()

    def error(n: int) -> float:
        times = grids.resolve(grid, process, *interval, n)
        target, solve = _started(solver, process, times, stochasticity)
        affine = probe(solve, (1,))
        ends = times
        if fractions:
            lam = process.log_snr(times)
            parts = [process.time(lam[:-1] + c * lam.diff()) for c in fractions]
            ends = torch.cat([torch.stack([times[:-1], *parts], dim=1).flatten(), times[-1:]])
        centre = float(process.alpha(t_end)) * target.mean
        return strong_error(affine._replace(constant=centre), target, process, ends, weight=weight, stochasticity=eta)

    return converge(error, steps)


def work_precision(
    method: Solver | str,
    target: Gaussian | GaussianMixture,
    sde: AffineSDE,
    *,
    x: Tensor | None = None,
    exact: Tensor | None = None,
    budgets: Sequence[int] = (5, 10, 20, 50),
    grid: str | grids.GridFunction = "log_snr",
    **options: object,
) -> Mapping[int, float]:
    r"""The error of a deterministic method for numbers of evaluations: RMS over samples and dimensions of the distance
    of the end points from the exact ones.

    Args:
        method, options: a solver or a name, with fixed steps.
        target: the data distribution.
        sde: the process, from t_max to t_min.
        x: states at t_max; 64 draws of the prior, of seed 0, by default.
        exact: where the flow takes them; of a `Gaussian` it is known.
        budgets: numbers of evaluations; a budget too small for one step is left out.
        grid: where the steps are, a name or a function ``(sde, t_start, t_end, steps)``.

    Example:
        >>> import scoresde
        >>> target = Gaussian(torch.zeros(4, dtype=torch.float64), 0.3)
        >>> errors = work_precision("dpmpp_2m", target, scoresde.VPSDE(), budgets=(10, 20))
        >>> errors[10] > errors[20]
        True
    """
    solver = make_solver(method, options)
    check_kind("target", target, (Gaussian, GaussianMixture), "a Gaussian or a GaussianMixture of scoresde.targets")
    check_sde(sde, affine=True)
    budgets = check_integers("budgets", budgets, low=1, high=MOST_STEPS)
    if solver.adaptive:
        raise InvalidArgumentError(f"method={solver.name!r} chooses its steps, so it has no error for a budget.")
    if solver.stochastic:
        raise InvalidArgumentError(f"method={solver.name!r} draws noise, so it has no distance from an end point.")
    if x is None:
        generator = torch.Generator().manual_seed(0)
        x = sde.prior_sample((64, *target.event_shape), generator=generator, dtype=_F64)
    if exact is None:
        if not isinstance(target, Gaussian):
            raise InvalidArgumentError("`exact` is missing: only a Gaussian target has a closed form of its flow.")
        exact = target.flow_map(x, sde, sde.t_max, sde.t_min)
    x = check_tensor("x", x, (-1, *target.event_shape)).detach()
    if not len(x):
        raise InvalidArgumentError("`x` must have at least one sample, got none.")
    exact = check_tensor("exact", exact, x.shape).detach()
    errors = {}
    for budget in budgets:
        steps = solver.steps_for(budget)
        if steps < 1:
            continue
        got = run(solver, sde, target.score(sde), x, grids.resolve(grid, sde, sde.t_max, sde.t_min, steps))
        errors[budget] = math.sqrt(float((got.x - exact).square().mean()))
    return errors
