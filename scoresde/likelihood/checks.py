"""What is refused, and warned of, before a likelihood is computed: data, score functions, methods."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..core.arguments import affine_model, check_events, check_no_vmap, for_data_of
from ..core.errors import InvalidArgumentError, InvalidTypeError, ScoreFnError
from ..core.processes import ReverseProcess
from ..core.processes.density import LogDensityFlow, examine, sample_of
from ..core.sdes import SDE, AffineSDE, Node
from ..core.support.checks import check_finite_rows, check_state, warn_caller
from ..core.support.tensors import expand, row_finite
from ..scores import Score, ScoreFn
from ..solvers import Adams, Solver, make_solver
from ..solvers.pairs import Pair

_ROWS = 64  # searched for a lattice
_DIMENSIONS = 16  # grids that densities are drawn on have fewer
_POINTS = 2**16  # of a lattice, at most; random numbers do not stand on so few
_NOISE_END = 0.5  # of the denoising error there; a score that fits the data has hundredths
_CHANCE = 6.0  # standard deviations of the error of no denoising at all, by which that is exceeded
_BLOCKED = 0.1  # of a mismatch between products and differences; rounding and curvature make hundredths
_RANDOM = 1e-2  # of a change of the answer; kernels that add in any order make millionths
_COUPLED = 1e-4  # of what a sample's gradient may hold of others


NOT_ADAPTIVE = "`method` must be 'adams' or an adaptive pair such as 'rk45' or 'dop853', got {name}."


def adaptive_solver(method: str | Solver, options: Mapping[str, object]) -> Solver:
    """The solver of a density; others are refused, and so is a mode in which no divergence can be computed."""
    solver = make_solver(method, options, ())
    if not isinstance(solver, Adams | Pair):
        raise InvalidArgumentError(NOT_ADAPTIVE.format(name=repr(solver.name)))
    if torch.is_inference_mode_enabled():
        raise InvalidArgumentError("The divergence needs gradients, which torch.inference_mode() forbids.")
    return solver


def check_density(
    sde: SDE, score_fn: ScoreFn, x: object, method: str | Solver, options: Mapping[str, object]
) -> tuple[AffineSDE, Score, Solver]:
    """The process, the score function and the solver, if there is a density of x that they give."""
    solver = adaptive_solver(method, options)
    sde, score = affine_model(sde, score_fn)
    x = check_wide(x)
    check_no_vmap("x", x)
    check_events(score, x)
    return sde, score, for_data_of(score, solver)


def check_wide(x: object) -> Tensor:
    """The data, float32 or float64, whose density is defined; what is wrong with others."""
    if isinstance(x, Tensor) and x.dtype not in (torch.float32, torch.float64):
        raise InvalidTypeError(
            f"`x` must have the floating-point dtype float32 or float64 for a density, got {x.dtype}; try x.float(), "
            "or dequantize(x, levels=L) for grey values."
        )
    return check_state("x", x)


def check_finite(x: Tensor) -> None:
    """Refuse samples that are not finite."""
    check_finite_rows("`x`", x, "leave them out (throw=False of log_likelihood lets the others finish)")


def check_plausible(
    process: LogDensityFlow, state: Tensor, finite: Tensor, start: float, end: float, *, whole: bool
) -> None:
    """What is likely wrong with the data, the gradients and the score, before the density is computed."""
    told_of_lattice(state.detach()[finite.to(state.device)])
    check_gradients(process, state, start, end)
    told_of_denoising(process, state.detach(), start, end if whole else None)


def check_gradients(process: LogDensityFlow, x: Tensor, start: float, end: float) -> None:
    """Refuse a score function whose gradients are not those of what it returns, at three levels of noise."""
    rows, flow = sample_of(process, x)
    batch, x = len(x), x.detach()[rows]
    noisy, clean = (process.sde.node(t).lam for t in (end, start))
    scale = float(x[row_finite(x)].to(torch.float64).square().mean().sqrt())
    levels = (-max(1.0, math.log(scale)) if scale > 0 else -1.0, 0.0, 2.0)  # in large units noise is large
    lams = torch.tensor([min(max(level, noisy), clean) for level in levels], dtype=torch.float64, device=x.device)
    at_once = len(levels) if len(levels) * len(x) <= batch else 1  # no batch larger than that of the solve
    flow = replace(flow, network=flow.network.take(torch.arange(len(x), device=x.device).repeat(at_once)))
    x = x.repeat(at_once, *[1] * (x.ndim - 1))
    for seed, lam in enumerate(torch.split(lams, at_once)):
        with torch.no_grad():
            node = process.nodes.at(lam.repeat_interleave(len(x) // at_once))
        _judge(process, flow, x, node, at_once, seed)
    process.network.warned = flow.network.warned


def _judge(
    process: LogDensityFlow, flow: ReverseProcess, x: Tensor, node: Node[Tensor], levels: int, seed: int
) -> None:
    """Examine some states, a part of them at each level, and refuse what was found of any part."""
    parts = examine(flow, x, node, process.backward, process.differentiable, levels=levels, seed=seed)
    for i, found in enumerate(parts):
        if found.moved > _RANDOM:
            raise ScoreFnError("The score function is not deterministic: two calls differ (dropout? net.eval()).")
        if found.coupled > _COUPLED:
            raise ScoreFnError("The score of a sample depends on the rest of its batch (batch norm? net.eval()).")
        mismatch = found.mismatch
        if mismatch > _BLOCKED:  # of the score function, not of the step? Half precision needs a wide one
            mismatch = min(mismatch, examine(flow, x, node, levels=levels, seed=seed, step=0.2)[i].mismatch)
        if mismatch > _BLOCKED:
            raise ScoreFnError(
                "The score function blocks gradients (torch.no_grad, .detach(), .numpy() or quantised layers inside?), "
                "or rounds too much for a divergence (half precision? net.float()): its vector-Jacobian products and "
                f"finite differences differ by {100 * mismatch:.0f} %."
            )


def told_of_lattice(x: Tensor) -> None:
    """Warn of data on few levels, which have no density. Constant samples are passed over."""
    rows = x[:_ROWS].flatten(1)
    if not len(rows) or rows.shape[1] < _DIMENSIONS:
        return
    rows = rows[(rows != rows[:, :1]).any(1)].to(torch.float64)
    values = rows.unique()
    if len(values) < 2 or not on_a_lattice(values, torch.finfo(x.dtype).eps):
        return
    warn_caller(
        f"`x` takes few different values ({len(values)} values in {rows.numel()} elements, evenly spaced): it is not "
        f"dequantised, and discrete data have no density. Add uniform noise, x = dequantize(v, levels=L, "
        f"data_range=...) of the grey values v in the range that the network has seen, or write "
        f"discrete_log_likelihood; check=False if it is intended."
    )


def on_a_lattice(values: Tensor, epsilon: float) -> bool:
    """Whether sorted, distinct numbers are multiples of one width, up to their rounding."""
    gaps = values.diff()
    rounding = 4 * epsilon * float(values.abs().max())
    gaps = gaps[gaps > rounding]
    if not len(gaps):
        return False
    least = float(gaps.min())
    for part in (1, 2, 3):
        width = least / part
        slack = 0.01 + rounding / width
        if slack < 0.1 and float(gaps.sum()) / width < _POINTS:
            multiples = gaps / width
            if float((multiples - multiples.round()).abs().max()) < slack:
                return True
    return False


def told_of_denoising(process: LogDensityFlow, x: Tensor, start: float, end: float | None) -> None:
    r"""Warn of a score function whose noise estimate is worse than 0, from
    :math:`\|\hat\varepsilon-\varepsilon\|^2/D` of up to eight samples at three levels of noise.

    At the noise end of the process (where ``end`` is given) little of the data is left, and the error is small whatever
    they are. At noise of a third and twice the data's RMS it is 1 at most on average, for data of the score function's
    distribution; that is required in many dimensions only, where densities of data are computed.
    """
    rows, flow = sample_of(process, x)
    data = x[rows]
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(data)
    scale = float(data[row_finite(data)].to(torch.float64).square().mean().sqrt()) if len(data) else 0.0
    with torch.no_grad():
        nodes = [process.sde.node(t) for t in (process.sde.t_max if end is None else end, start)]
    lowest, highest = (float(node.lam) for node in nodes)
    levels: list[tuple[float, float]] = []
    if end is not None:
        lam = max(lowest, -7.0)
        share = 4 * scale * math.exp(lam)  # data as large as the noise leave more
        levels.append((lam, _NOISE_END + share * share))
    if data[0].numel() >= _DIMENSIONS and scale > 0:
        chance = 1 + _CHANCE * math.sqrt(2 / data.numel())
        levels += [(min(max(-math.log(share * scale), lowest), highest), chance) for share in (2.0, 1 / 3)]
    for lam, limit in levels:
        with torch.no_grad():
            node = process.nodes.at(torch.full((len(data),), lam, dtype=torch.float64, device=x.device))
            state = expand(node.alpha, data) * data + expand(node.sigma, data) * noise
            missed = (flow.network.estimate(state, node).noise - noise).to(torch.float64).flatten(1).square().mean(1)
        missed = missed[missed.isfinite()]
        if len(missed) and float(missed.mean()) > limit:
            warn_caller(
                f"The score function does not denoise `x`: at t={float(node.t[0]):.3g} its error of the noise is "
                f"{float(missed.mean()):.2g} of its variance, where {limit:.2g} is the most for a score of these data. "
                f"It is untrained, follows another convention, or was trained on data of another range than `x` of RMS "
                f"{scale:.2g}; print(check_score(sde, score_fn, data)) names the cause; check=False skips this check."
            )
            break
