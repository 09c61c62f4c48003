"""Run a process forward: from data to noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import grids
from ..solvers import EulerMaruyama, Solver, Transition, drift_methods, make_solver
from .arguments import check_save_at
from .controllers import FixedGrid
from .errors import InvalidArgumentError
from .loop import Recorder, integrate
from .noise import Noise
from .noise import resolve as resolve_noise
from .processes import ForwardProcess, Network
from .sdes import SDE, AffineSDE
from .solution import Solution
from .support.checks import check_finite_rows
from .support.declared import State, Steps, checked
from .support.tensors import compute_dtype


@checked
def simulate(
    sde: SDE,
    x0: State,
    *,
    t_start: float | None = None,
    t_end: float | None = None,
    steps: Steps = 100,
    grid: str | grids.GridFunction | None = "time",
    method: str | Solver | None = None,
    seed: int | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: Noise | Callable[[int, Tensor], Tensor] | None = None,
    save_at: Sequence[float] | str | None = None,
) -> Solution:
    r"""Draw a path of the forward process :math:`dx = f\,dt + g\,dw`.

    Affine processes compose their transition kernels :math:`q(x_t|x_s)`, so that the distribution is exact whatever the
    steps; other processes take a method that needs drift and diffusion only.

    Args:
        sde: the process.
        x0: ``(batch, *event)``: clean data if ``t_start`` is None (an affine process then draws the state at t_min from
            its kernel), else the state at ``t_start``.
        t_start, t_end: the interval, by default [t_min, t_max].
        steps: the number of steps.
        grid: a name or a function, as in `solve`.
        method: ``"euler_maruyama"``, ``"heun_sde"``, ``"sra1"`` or ``"shark"`` (the last two of strong order 1.5), for
            any process; None is the exact kernel of an affine process, and ``"euler_maruyama"`` for others.
        seed, seeds, generator, noise: as in `solve`.
        save_at: times to keep the state at, which become additional nodes of the grid, or ``"steps"``.

    Returns:
        A `Solution`, with no evaluations.

    Raises:
        InvalidArgumentError: an argument does not fit, or a learned schedule has become one that cannot be computed.
        NonFiniteError: NaN or infinity in ``x0`` or a state.

    Example:
        >>> import scoresde
        >>> path = simulate(
        ...     scoresde.VPSDE(), torch.ones(4, 2), steps=10, save_at="steps", seed=0
        ... )
        >>> path.xs.shape
        torch.Size([11, 4, 2])
    """
    start = grids.time_of("t_start", t_start, sde, sde.t_min)
    end = grids.time_of("t_end", t_end, sde, sde.t_max)
    if not start < end:
        raise InvalidArgumentError(
            f"simulate runs forward: t_start={start:g} must be below t_end={end:g}; backwards is scoresde.solve."
        )
    if isinstance(sde, AffineSDE) and sde.node(end).alpha < torch.finfo(torch.float32).tiny:
        sde.check_schedule()  # 0 may be a limit or an underflow
    source = resolve_noise(seed=seed, seeds=seeds, generator=generator, noise=noise, device=x0.device, batch=len(x0))
    x: Any = x0.to(compute_dtype(x0.dtype))
    check_finite_rows("`x0`", x)
    times = grids.resolve(grid, sde, start, end, steps)
    saved = check_save_at(save_at, sde, (start, end))
    if saved:
        times = torch.tensor(sorted({*times.tolist(), *saved}), dtype=torch.float64)
    recorder = None if save_at is None else Recorder("steps" if isinstance(save_at, str) else saved)
    solver = _solver(sde, method)
    with torch.no_grad():
        if isinstance(sde, AffineSDE) and t_start is None:
            x, _ = sde.perturb(x, start, source.normal(x))
        process = ForwardProcess(sde, Network(_no_score))
        solution = integrate(process, solver, FixedGrid(times), x, source, recorder=recorder)
    xs = None if solution.xs is None else solution.xs.to(x0.dtype)
    return replace(solution, x=solution.x.to(x0.dtype), xs=xs)


def _no_score(x: Tensor, t: Tensor) -> Tensor:
    raise InvalidArgumentError("A process that runs forwards has no score.")


def _solver(sde: SDE, method: str | Solver | None) -> Solver:
    """The method that steps the process forward."""
    if method is None:
        return Transition() if isinstance(sde, AffineSDE) else EulerMaruyama()
    solver = make_solver(method, {})
    if type(solver).name not in drift_methods():
        raise InvalidArgumentError(
            f"method={solver.name!r} does not step a drift and a diffusion; simulate takes "
            f"{', '.join(drift_methods())}."
        )
    return solver
