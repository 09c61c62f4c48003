"""Warnings about data and score functions, before a likelihood is computed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._checks import warn_caller
from .._tensors import expand, row_finite
from ..processes.density import LogDensityFlow, sample_of

_ROWS = 64  # searched for a lattice
_DIMENSIONS = 16  # grids that densities are drawn on have fewer
_POINTS = 2**16  # of a lattice, at most; random numbers do not stand on so few
_NOISE_END = 0.5  # of the denoising error there; a score that fits the data has hundredths
_CHANCE = 6.0  # standard deviations of the error of no denoising at all, by which that is exceeded


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
        f"dequantised, and the density of a flow that has learned the levels is unbounded. Write dequantize(v, "
        f"levels=L) of the grey values v, or discrete_log_likelihood; check=False if it is intended."
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
            missed = (flow.estimate(state, node).noise - noise).to(torch.float64).flatten(1).square().mean(1)
        missed = missed[missed.isfinite()]
        if len(missed) and float(missed.mean()) > limit:
            warn_caller(
                f"The score function does not denoise `x`: at t={float(node.t[0]):.3g} its error of the noise is "
                f"{float(missed.mean()):.2g} of its variance, where {limit:.2g} is the most for a score of these data. "
                f"It is untrained, follows another convention, or was trained on data of another range than `x` of RMS "
                f"{scale:.2g}; print(check_score(sde, score_fn, data)) names the cause; check=False skips this check."
            )
            break
