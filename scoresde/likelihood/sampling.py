"""Samples with their log-densities, in one solve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.arguments import SolveOptions
from ..core.controllers import Adaptive
from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.loop import integrate, progress_bar
from ..core.processes.density import LogDensityFlow
from ..core.sdes import SDE, NormalPrior
from ..core.sdes.base import check_affine
from ..core.setup import Setup
from ..core.solution import Solution
from ..core.support.checks import check_choice, check_flag, check_kind
from ..grids import Grid
from .checks import NOT_ADAPTIVE, adaptive_solver, check_gradients
from .flow import DEFAULT, SHARE, density_flow, make_divergence

TOLERANCE = DEFAULT
SETTINGS: dict[str, Any] = {
    "divergence": "hutchinson",
    "probes": 1,
    "probe": "rademacher",
    "chunk": None,
    "check": True,
}


def check_log_prob(asked: SolveOptions, sde: SDE) -> tuple[SolveOptions, dict[str, Any]]:
    """The options with the tolerances of densities, and the settings of the divergence, if a solve can return the
    densities of its samples."""
    wanted, method = asked.log_prob, asked.method
    check_kind("log_prob", wanted, (bool, Mapping), "True, False or a mapping such as {'divergence': 'exact'}")
    given = dict(wanted) if isinstance(wanted, Mapping) else {}
    for name in given:
        check_choice("log_prob", name, SETTINGS)
    if isinstance(method, Grid):
        raise InvalidTypeError(NOT_ADAPTIVE.format(name=f"a {type(method).__name__}, which has fixed steps"))
    adaptive_solver(method, asked.solver_options)
    check_affine(sde)
    if not isinstance(sde.prior, NormalPrior):
        raise InvalidTypeError(f"`log_prob` needs a process whose prior has a density, got {type(sde.prior).__name__}.")
    for name in ("save_at", "callback", "denoise", "start", "differentiable", "path_log_prob"):
        if getattr(asked, name) not in (None, False):
            raise InvalidArgumentError(f"`{name}` does not go together with `log_prob`; leave it out.")
    check_flag("log_prob['check']", given.get("check", True))
    rtol, atol = (TOLERANCE if value is None else value for value in (asked.rtol, asked.atol))
    return replace(asked, rtol=rtol, atol=atol), {**SETTINGS, **given}


def with_log_prob(setup: Setup, settings: Mapping[str, Any], *, progress: bool = False) -> Solution:
    r"""The samples of a solve that is ready to begin, with :math:`\ln p(x)`, integrated beside them,

    .. math:: \ln p(x_{t_{end}}) = \ln\pi(x_T) - \ln\Big|\frac{\partial x_{t_{end}}}{\partial x_T}\Big|.
    """
    loop = setup.loop
    if loop is None:
        raise InvalidArgumentError("`log_prob` needs at least one step and one sample.")
    solver, grid, x, flow = loop.solver, loop.controller, loop.x, loop.process
    sde: Any = flow.sde
    if not isinstance(grid, Adaptive) or grid.t_start != sde.t_max:
        raise InvalidArgumentError(f"`log_prob` needs a solve from the prior, at t_max={sde.t_max:g}.")
    network = flow.network
    own = {name: value for name, value in settings.items() if name != "check"}
    divergence = make_divergence(**own, source=loop.process.noise, x=x)
    process = density_flow(sde, network.score_fn, x, network.context, divergence)
    ends = [sde.node(t) for t in (sde.t_max, setup.t_end)]
    if settings["check"]:
        check_gradients(process, x / math.hypot(ends[0].alpha, ends[0].sigma), setup.t_end, sde.t_max)
    tight = replace(grid, rtol=SHARE * grid.rtol, atol=SHARE * grid.atol)
    with progress_bar(solver.name if progress else None) as bar:
        solution = integrate(
            process,
            solver,
            tight,
            process.pack(x),
            loop.process.noise,
            compact=network.traits.rowwise,
            max_steps=loop.limit,
            progress=bar,
            throw=setup.throw,
        )
    first, last = (float(solver.coordinate.scale(node)) for node in ends)
    return _told(process, solution, sde.prior.log_prob(x.to(torch.float64)), first, last, setup.dtype)


def _told(
    process: LogDensityFlow, solution: Solution, prior: Tensor, first: float, last: float, dtype: torch.dtype
) -> Solution:
    """The samples and their densities."""
    scale = torch.tensor(last / first, dtype=torch.float64)
    moved = process.size * scale.log() + process.integrals(solution.x, last)  # of each path of the divergence
    paths = prior[:, None] - moved
    return replace(
        solution,
        x=process.unpack(solution.x).to(dtype),
        log_prob=paths.mean(1),
        log_prob_error=process.divergence.std_error(paths),
    )
