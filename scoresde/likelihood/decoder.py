r"""From the density at the data end of the process to that of the data.

The flow gives the density of :math:`z = \alpha x + \sigma\varepsilon` at :math:`t_{min}`, not that of x. A last step,
from z to x by a decoder :math:`p(x|z)`, makes it one of x, bounded by Jensen's inequality:

.. math:: \ln p_0(x) \ge E_{q(z|x)}\big[\ln p_{t_{min}}(z) + \ln p(x|z) - \ln q(z|x)\big],\qquad
    q(z|x) = N(\alpha x, \sigma^2).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .. import grids
from .._arguments import affine_model, check_events, context_of
from .._checks import check_state
from .._tensors import expand, row_finite, where
from ..processes import Network
from ..sdes import SDE, Estimate, Node
from .bits import cell, float_dtype, grey_levels
from .checks import check_wide
from .discrete import Draw, LowerBound, bound_of, source_of
from .flow import log_likelihood


def decoder_bound(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    x: Tensor,
    *,
    levels: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    draws: int = 1,
    importance: bool = False,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> LowerBound:
    r"""A lower bound of the log-density of data at t = 0, or of the log-probability of grey values: the flow from
    ``t_start`` and a decoder around the denoised z,

    .. math:: p(x|z) = N\Big(\hat x(z), \frac{\sigma^2}{\alpha^2}\Big),\qquad
        P(v|z) = \prod\big[\Phi(b_v) - \Phi(a_v)\big],

    the second where ``levels`` are given: the normal's part in the cell of each value, where the first and the last
    cell extend to infinity; the values stand at the middle of their cells. Only the process's own noise is added.

    For Gaussian data of the variance V per dimension and an exact score, the gap of the density is
    :math:`\tfrac12(r - 1 - \ln r)` in the mean, with :math:`r = V/(V + \sigma^2/\alpha^2)` the true posterior's
    variance in the decoder's: it is small where the data vary on the scale of the noise.

    Args:
        sde, score_fn: as for `log_likelihood`; the score function also denoises, once per draw.
        x: data ``(batch, *event)``; with ``levels`` the integers 0 … L - 1.
        levels, data_range: of grey values, as for `dequantize`. None for a density.
        draws, importance, seed, generator: as for `discrete_log_likelihood`; the draws are of z.
        dtype: of z where ``levels`` are given.
        **options: of `log_likelihood`.

    Returns:
        A `LowerBound`.

    Raises:
        InvalidArgumentError: an argument does not fit.
        Others: as `log_likelihood`.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(1, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> x = torch.tensor([[0.2]], dtype=torch.float64)
        >>> bound = decoder_bound(sde, target.score(sde), x, draws=4, divergence="exact", seed=0)
        >>> bool((bound.log_prob - target.log_prob(x)).abs() < 0.01)
        True

    References:
        Song, Durkan, Murray, Ermon (2021), Maximum likelihood training of score-based diffusion models, appendix on
        numerical stability. https://arxiv.org/abs/2101.09258
    """
    sde, score = affine_model(sde, score_fn)
    decode: Callable[[Estimate, Tensor, Node[Tensor]], Tensor] = _density
    if levels is None:
        data = check_wide(x)
    else:
        low, width = cell(levels, data_range)
        values = grey_levels(x, levels)
        data = (low + width * (values.to(torch.float64) + 0.5)).to(float_dtype(dtype))
        check_state("x", data)
        edges = low + width * torch.arange(levels + 1, dtype=torch.float64, device=data.device)
        decode = functools.partial(_mass, values.long(), edges)
    check_events(score, data)
    source = source_of(seed, generator, data.device)
    start = grids.time_of("t_start", options.get("t_start"), sde, sde.t_min)
    network = Network(score, context_of(options.get("context"), score, len(data), data.device))

    def draw(given: Mapping[str, Any]) -> Draw:
        with torch.no_grad():
            node = sde.nodes(torch.full((len(data),), start, dtype=torch.float64, device=data.device))
            where_drawn = data.device if source is None else source.device
            noise = torch.randn(data.shape, generator=source, dtype=data.dtype, device=where_drawn).to(data)
            z = expand(node.alpha, data) * data + expand(node.sigma, data) * noise
        got = log_likelihood(sde, score, z, generator=source, **given)
        with torch.no_grad():
            state = where(row_finite(z), z, torch.zeros_like(z))  # the other samples are NaN anyway
            estimate = network.estimate(state, node)
            size = data[0].numel() if len(data) else 0
            log_q = -0.5 * noise.to(torch.float64).square().flatten(1).sum(1) - size * (
                0.5 * math.log(2 * math.pi) + torch.log(node.sigma)
            )
            decoded = decode(estimate, noise, node).flatten(1).sum(1)
        return got.log_prob + decoded - log_q, got.nfe + 1, got.success

    return bound_of(draw, draws, importance, options, tuple(data.shape[1:]), levels)


def _density(estimate: Estimate, noise: Tensor, node: Node[Tensor]) -> Tensor:
    r""":math:`\ln N(x; \hat x, \sigma^2/\alpha^2)` of each number, with
    :math:`x - \hat x = -(\varepsilon - \hat\varepsilon)\sigma/\alpha`."""
    missed = (noise - estimate.noise).to(torch.float64)
    scale = 0.5 * math.log(2 * math.pi) + torch.log(node.sigma / node.alpha)
    return -0.5 * missed.square() - expand(scale, missed)


def _mass(values: Tensor, edges: Tensor, estimate: Estimate, noise: Tensor, node: Node[Tensor]) -> Tensor:
    r""":math:`\ln[\Phi(b) - \Phi(a)]` of each grey value, given the edges of all cells."""
    edges = edges.clone()
    edges[0], edges[-1] = -math.inf, math.inf
    data = estimate.data.to(torch.float64)
    ratio = expand(node.alpha / node.sigma, data)
    a, b = ((edges[values + i] - data) * ratio for i in (0, 1))
    a, b = torch.where(a > 0, -b, a), torch.where(a > 0, -a, b)  # the tail in which differences keep their digits
    upper, lower = torch.special.log_ndtr(b), torch.special.log_ndtr(a)
    return upper + torch.log1p(-torch.exp(lower - upper))
