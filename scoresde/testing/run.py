"""A solve without the arguments of `scoresde.solve`: given times, given draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .. import grids
from ..core.arguments import check_events
from ..core.controllers import FixedGrid
from ..core.errors import InvalidArgumentError
from ..core.loop import integrate
from ..core.noise import CallableNoise, Noise
from ..core.processes import GeneralReverse, Network, ReverseProcess
from ..core.sdes import SDE
from ..core.sdes.base import check_sde
from ..core.solution import Solution
from ..core.support.checks import MOST_STOCHASTICITY, check_callable, check_number, check_state, check_times
from ..core.support.tensors import compute_dtype
from ..scores import as_score
from ..solvers import Solver, make_solver


def run(
    method: Solver | str,
    sde: SDE,
    score_fn: Callable[..., Tensor],
    x: Tensor,
    times: Tensor,
    noise: Noise | Callable[[int, Tensor], Tensor] | None = None,
    stochasticity: float | None = None,
) -> Solution:
    """Step a method over given times, from ``x`` at the first; half precision is computed in float32."""
    solver = make_solver(method, {})
    if solver.adaptive or solver.own_steps:
        raise InvalidArgumentError(f"method={solver.name!r} chooses its steps; given times are for fixed steps.")
    if solver.stochastic and noise is None:
        raise InvalidArgumentError(f"method={solver.name!r} draws noise; pass `noise`.")
    check_sde(sde)
    score = as_score(score_fn, sde)
    check_state("x", x)
    check_events(score, x)
    if noise is not None and not isinstance(noise, Noise):
        check_callable("noise", noise, "noise(k, like)")
    if stochasticity is not None:
        check_number("stochasticity", stochasticity, low=0.0, high=MOST_STOCHASTICITY)
    times = grid_of(times, sde.t_min, sde.t_max)
    eta = solver.default_stochasticity if stochasticity is None else stochasticity
    network = Network(score, copies=solver.keeps_estimates)
    process = (ReverseProcess if sde.affine else GeneralReverse)(sde, network, eta=eta)
    source = noise if isinstance(noise, Noise) else CallableNoise(_none if noise is None else noise)
    state = x.to(compute_dtype(x.dtype))
    with torch.no_grad():
        solution = integrate(process, solver, FixedGrid(solver.visit(sde, times)), state, source)
    return solution if state.dtype == x.dtype else replace(solution, x=solution.x.to(x.dtype))


def end_of(
    method: Solver | str,
    sde: SDE,
    score_fn: Callable[..., Tensor],
    x: Tensor,
    times: Tensor,
    noise: Noise | Callable[[int, Tensor], Tensor] | None = None,
    stochasticity: float | None = None,
) -> Tensor:
    """The final state of a method that is stepped over given times.

    Args:
        method: a name of `scoresde.methods` or a solver, with fixed steps.
        sde, score_fn: the problem.
        x: the state at ``times[0]``, ``(batch, *event)``.
        times: ``(steps + 1,)`` float64, falling to generate.
        noise: a `scoresde.Noise` or a function ``(k, like)``; a deterministic method needs none.
        stochasticity: eta, of methods that take it.

    Example:
        >>> import scoresde
        >>> sde, target = (
        ...     scoresde.VPSDE(),
        ...     scoresde.targets.Gaussian(torch.zeros(1), torch.ones(1)),
        ... )
        >>> end_of(
        ...     "ddim",
        ...     sde,
        ...     target.score(sde),
        ...     torch.ones(1, 1),
        ...     torch.tensor([1.0, 0.5, 0.1]),
        ... ).shape
        torch.Size([1, 1])
    """
    return run(method, sde, score_fn, x, times, noise, stochasticity).x


def grid_of(times: object, low: float, high: float) -> Tensor:
    """Times of steps, checked."""
    return grids.check_times(check_times("times", times), low, high, "times")


def _none(k: int, like: Tensor) -> Tensor:
    raise AssertionError("a deterministic method drew noise")
