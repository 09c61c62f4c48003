r"""A warm start fitted to a network: how far the flow of a Gaussian is accurate enough.

In :math:`y = x/\sqrt{\sigma^2 + s^2\alpha^2}` and the angle :math:`\varphi`, :math:`\tan\varphi = \sigma/s\alpha`, the
flows of the network and of the Gaussian are :math:`dy/d\varphi = \cos\varphi\,\hat\varepsilon -
\sin\varphi\,\hat x/s`. Their difference e obeys, along the path of the network,

.. math:: \frac{de}{d\varphi} = J_G\,e - \frac{\hat x - \hat x_G}{s\sin\varphi},

with the Jacobian of the Gaussian's flow, which takes each eigenvector of variance v from :math:`\varphi_0` to
:math:`\varphi_1` by the root of :math:`(v\cos^2\varphi_1 + s^2\sin^2\varphi_1)/(v\cos^2\varphi_0 +
s^2\sin^2\varphi_0)`. So the size of e is at most the integral of :math:`|\hat x - \hat x_G|/s\sin\varphi`, each part
stretched by the largest of these factors. In units of the data it is :math:`s|e|/\cos\varphi`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.arguments import context_of
from ..core.errors import InvalidArgumentError
from ..core.noise import check_seed
from ..core.processes.network import Network
from ..core.sdes import SDE, AffineSDE
from ..core.sdes.base import check_affine
from ..core.solution import Solution
from ..core.solve import solve
from ..core.support.checks import MOST_DRAWS, check_integer, check_kind, check_number
from ..scores import as_score
from ..solvers import Solver, make_solver
from ..solvers.registry.rows import MethodName
from ..targets import Gaussian, GaussianStart
from ..targets.start import Solved
from .pilot import Watched, check_count, pilot_states

_MOST_LEVELS = 100_000  # each is an evaluation of the pilot
_FINER = 0.03  # the tolerance of the reference, in units of that of the pilot


def fit_start(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    gaussian: Gaussian,
    *,
    rtol: float = 1e-2,
    method: MethodName | str | Solver = "adams",
    evaluations: int | None = None,
    steps: int | None = None,
    pilot: int | None = None,
    x: Tensor | None = None,
    seed: int = 0,
    levels: int = 64,
    context: Mapping[str, object] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **solver_options: Any,
) -> GaussianStart:
    """Find the noise level down to which a Gaussian's flow replaces the network's, and measure what that saves.

    A pilot batch follows the Gaussian's flow from ``t_max`` downwards, and the network is evaluated on the way to see
    how far it disagrees. The start is the last level where the bound on the error, RMS over the pilot, is within the
    tolerance. Then the pilot is solved with and without it.

    Args:
        sde: an affine process.
        score_fn: as for `scoresde.solve`.
        gaussian: with the mean and covariance of the data, in full, diagonal or of low rank; see `Gaussian.fit`.
        rtol: the error that is allowed, in units of the RMS of the data; also the tolerance of the pilot's solves by
            an adaptive method.
        method, evaluations, steps: the method that is measured with and without the start, and the number of its
            evaluations or of its fixed steps.
        pilot: the number of samples, by default 64, or as many as ``x`` has.
        x: the pilot's states at ``t_max``, instead of draws from the prior.
        seed: of the pilot.
        levels: how many noise levels, even in the angle, the network is evaluated at, at most; few are needed, since
            it ends at the first where the bound is passed.
        context: as for `scoresde.solve`, of the pilot.
        dtype, device: of the pilot; as of `solve`.
        **solver_options: fields of the method's class.

    Returns:
        A `GaussianStart`, with ``t = t_max`` where the Gaussian is not good enough for a single level.

    Raises:
        InvalidArgumentError: an argument does not fit, or a layer of the network is in training mode and
            depends on it.

    Example:
        >>> import scoresde
        >>> ring = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> target = scoresde.targets.GaussianMixture(torch.ones(4), ring, scales=0.3)
        >>> sde = scoresde.VPSDE()
        >>> # the mean and the variances of the mixture
        >>> gaussian = Gaussian(torch.zeros(2), 0.59)
        >>> start = fit_start(
        ...     sde, target.score(sde), gaussian, rtol=0.01, method="unipc2", steps=8
        ... )
        >>> start.t < 0.5, start.warm.median < 0.2 * start.full.median
        (True, True)
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="unipc2", steps=8, start=start
        ... ).evaluations
        8

    References:
        Wang, Vastola (2024), The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and
        its Applications. https://arxiv.org/abs/2412.09726
    """
    check_kind("gaussian", gaussian, Gaussian, "a targets.Gaussian")
    sde = check_affine(sde)
    solver = make_solver(method, solver_options, ())
    if solver.stochastic:
        raise InvalidArgumentError(f"`method` must be deterministic, but {solver.name!r} draws noise; try 'adams'.")
    fixed = {"steps": steps, "evaluations": evaluations}
    if solver.adaptive == any(value is not None for value in fixed.values()):
        what = "chooses its steps; leave `steps` and `evaluations` out"
        what = what if solver.adaptive else "makes fixed steps; give `steps` or `evaluations`"
        raise InvalidArgumentError(f"method={solver.name!r} {what}.")
    rtol = check_number("rtol", rtol, low=0.0, strict=True)
    seed = check_seed("seed", seed)
    check_integer("levels", levels, low=2, high=_MOST_LEVELS)
    count = 64 if pilot is None else check_integer("pilot", pilot, low=1, high=MOST_DRAWS)
    score = Watched(as_score(score_fn, sde), checkpoint=False)
    x = pilot_states(sde, score, x, (count, *gaussian.event_shape), seed, dtype, device)
    if not len(x) or tuple(x.shape[1:]) != gaussian.event_shape:
        raise InvalidArgumentError(
            f"The pilot must have at least one sample, of the Gaussian's shape {gaussian.event_shape}, got shape "
            f"{tuple(x.shape)}."
        )
    check_count(pilot, x)

    def run(method: str | Solver, tolerance: float | None, **options: Any) -> Solution:
        given = {"rtol": tolerance, "atol": tolerance, "context": context, **options}
        return solve(sde, score, x, method=method, **given)

    exact = run("adams", max(_FINER * rtol, 100 * torch.finfo(x.dtype).eps)).x
    network = Network(score, context_of(context, score, x))
    times, bounds = _bounds(sde, network, gaussian, x, rtol * _size(gaussian), levels)
    start = GaussianStart(gaussian, sde, times[-1], bounds[-1])
    tolerance = rtol if solver.adaptive else None
    full = _against(run(solver, tolerance, **fixed), exact)
    if start.t == sde.t_max:
        return replace(start, full=full, warm=full)
    return replace(start, full=full, warm=_against(run(solver, tolerance, **fixed, start=start), exact))


def _size(gaussian: Gaussian) -> float:
    """The RMS of the data."""
    return math.sqrt(gaussian.spectrum.mean + float(gaussian.mean.square().mean()))


@torch.no_grad()
def _bounds(
    sde: AffineSDE, network: Network, gaussian: Gaussian, x: Tensor, allowed: float, levels: int
) -> tuple[list[float], list[float]]:
    """The levels passed and the bound at each, from the first to the last where it is allowed."""
    spread = math.sqrt(gaussian.spectrum.mean) or 1.0
    largest = float(gaussian.spectrum.eigenvalues()[0].max()) / spread**2
    exact = gaussian.score(sde)
    angles = [math.atan2(float(sde.sigma(t)), spread * float(sde.alpha(t))) for t in (sde.t_max, sde.t_min)]
    times, bounds, bound, before = [sde.t_max], [0.0], 0.0, (angles[0], 0.0)
    for i in range(levels):
        angle = angles[0] + (angles[1] - angles[0]) * i / levels
        t = sde.t_max if i == 0 else _time(sde, spread * math.tan(angle))
        node = sde.node(t)
        state = gaussian.flow_map(x, sde, sde.t_max, t).to(x.dtype)
        missed = network.estimate(state, node).data - exact.estimate(state, node).data
        slope = math.sqrt(float(missed.to(torch.float64).square().mean())) / (spread * math.sin(angle))
        if i:
            stretch = max(math.sqrt(_variance(v, angle) / _variance(v, before[0])) for v in (0.0, largest))
            half = 0.5 * (before[0] - angle)
            bound = stretch * (bound + half * before[1]) + half * slope
            here = spread * bound / math.cos(angle)
            if not here <= allowed:
                break
            times.append(t)
            bounds.append(here)
        before = (angle, slope)
    return times, bounds


def _time(sde: AffineSDE, rho: float) -> float:
    """Where sigma / alpha is rho."""
    return float(sde.time(torch.tensor(-2 * math.log(rho), dtype=torch.float64)))


def _variance(v: float, angle: float) -> float:
    return v * math.cos(angle) ** 2 + math.sin(angle) ** 2


def _against(solution: Solution, exact: Tensor) -> Solved:
    squares = (solution.x - exact).to(torch.float64).flatten(1).square().mean(1)
    used = float(solution.nfe.to(torch.float64).mean())
    return Solved(used, float(squares.mean().sqrt()), float(squares.median().sqrt()))
