r"""The probability of data, bounded from below by the density of the flow: of grey values with a dequantiser, and of
grey or real values with a decoder.

The flow gives the density of :math:`z = \alpha x + \sigma\varepsilon` at :math:`t_{min}`, not that of x. A last step,
from z to x by a decoder :math:`p(x|z)`, makes it one of x, bounded by Jensen's inequality:

.. math:: \ln p_0(x) \ge E_{q(z|x)}\big[\ln p_{t_{min}}(z) + \ln p(x|z) - \ln q(z|x)\big],\qquad
    q(z|x) = N(\alpha x, \sigma^2).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .. import grids
from ..core.arguments import affine_model, context_of
from ..core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from ..core.noise import check_seed
from ..core.processes import Network
from ..core.sdes import SDE, Estimate, Node
from ..core.support.checks import check_state
from ..core.support.declared import checked
from ..core.support.tensors import expand, row_finite, where
from .bits import Draws, bits_of, cell, float_dtype, grey_levels
from .checks import check_wide
from .dequantisation import Dequantizer, UniformDequantizer
from .flow import log_likelihood


@dataclass(frozen=True, eq=False)
class LowerBound:
    r"""A lower bound of log-probabilities from k draws with the log-weights :math:`\ln w_i`: in the mean,

    .. math:: \ln P \ge E\Big[\ln\tfrac1k\sum_i w_i\Big] \ge E\Big[\tfrac1k\sum_i\ln w_i\Big].

    Attributes:
        log_prob: nats, float64 ``(batch,)``: the left one with ``importance``, else the right one.
        log_weights: of the draws, nats, ``(batch, k)``.
        importance: see log_prob.
        event_shape: of one sample.
        levels: of grey values, or None for a density.
        nfe: score evaluations of all draws, ``(batch,)``.
        success: whether all draws of a sample arrived; the others are NaN.

    Example:
        >>> weights = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)
        >>> one = torch.ones(1)
        >>> LowerBound(weights, True, (2,), None, one, one > 0).log_prob.exp().round(
        ...     decimals=6
        ... )
        tensor([2.], dtype=torch.float64)
    """

    log_weights: Tensor
    importance: bool
    event_shape: tuple[int, ...]
    levels: int | None
    nfe: Tensor
    success: Tensor

    @property
    def draws(self) -> int:
        """The number k of draws."""
        return self.log_weights.shape[1]

    @property
    def log_prob(self) -> Tensor:
        """See the class."""
        if self.importance:
            return self.log_weights.logsumexp(1) - math.log(self.draws)
        return self.log_weights.mean(1)

    @property
    def spread(self) -> Tensor:
        """The standard deviation of the log-weights over the draws, ``(batch,)``; NaN for one draw."""
        return _std(self.log_weights)

    @property
    def std_error(self) -> Tensor:
        r"""The standard error of ``log_prob`` as an estimate of its mean over draws, NaN for one draw: spread over
        :math:`\sqrt k`, or by the delta method :math:`s_w/(\bar w\sqrt k)` with the weights' standard deviation. It
        does not include the distance from the bound to :math:`\ln P`, and where few weights make the sum
        (`effective_draws`), it is too small."""
        if not self.importance:
            return self.spread / math.sqrt(self.draws)
        relative = (self.log_weights - self.log_prob[:, None]).exp()  # the mean is 1
        return _std(relative) / math.sqrt(self.draws)

    @property
    def effective_draws(self) -> Tensor:
        r""":math:`(\sum w)^2/\sum w^2`, ``(batch,)``."""
        return (2 * self.log_weights.logsumexp(1) - (2 * self.log_weights).logsumexp(1)).exp()

    @property
    def bits_per_dim(self) -> Tensor:
        r"""Bits per dimension of grey values, :math:`-\ln P/(D\ln 2)`, ``(batch,)``: an upper bound in the mean."""
        return bits_of(-self.log_prob, self.event_shape, self.levels, "bound.log_prob")


def _std(values: Tensor) -> Tensor:
    return values.std(1) if values.shape[1] > 1 else torch.full_like(values[:, 0], torch.nan)


@checked
def discrete_log_likelihood(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    v: Tensor,
    *,
    dequantizer: Dequantizer | None = None,
    draws: Draws = 1,
    importance: bool = False,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> LowerBound:
    r"""A lower bound of the log-probability of grey values under the flow's density:

    .. math:: \ln P(v) = \ln\int_{cell(v)}p(x)\,dx \ge E_{x_i\sim q(x|v)}\ln\frac1k\sum_{i=1}^k\frac{p(x_i)}{q(x_i|v)},

    which grows with k to :math:`\ln P(v)`; without ``importance`` the logarithms are averaged instead, which is the
    bound of a single draw with less noise.

    Hutchinson's noise :math:`\eta` has no bias in :math:`\ln p`, but has one in the sum over draws, since
    :math:`E e^\eta > 1`: up to half the variance, and upwards, so that the result would not be a bound. ``importance``
    therefore needs ``divergence="exact"``.

    Args:
        sde, score_fn: as for `log_likelihood`.
        v: integers 0 … L - 1, ``(batch, *event)``.
        dequantizer: a `Dequantizer`, by default ``UniformDequantizer(256)``.
        draws: k, each of them one likelihood of the batch.
        importance: the bound by importance weights, see above.
        seed, generator: of the noise in cells and of probes; at most one.
        dtype: of x, float32 or float64; torch's default otherwise.
        **options: of `log_likelihood`, such as ``divergence``, ``rtol`` or ``context``.

    Returns:
        A `LowerBound`.

    Raises:
        InvalidArgumentError: an argument does not fit, or ``importance`` with an estimated divergence.
        Others: as `log_likelihood`.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.1)
        >>> sde = scoresde.VPSDE()
        >>> v = torch.tensor([[8, 9], [3, 12]])
        >>> options = {
        ...     "dequantizer": UniformDequantizer(17),
        ...     "draws": 4,
        ...     "divergence": "exact",
        ...     "dtype": torch.float64,
        ... }
        >>> bound = discrete_log_likelihood(
        ...     sde, target.score(sde), v, importance=True, seed=0, **options
        ... )
        >>> bound.log_prob.shape, bool((bound.log_prob >= bound.log_weights.mean(1)).all())
        (torch.Size([2]), True)

    References:
        Theis, van den Oord, Bethge (2016), section 3.1. https://arxiv.org/abs/1511.01844
        Burda, Grosse, Salakhutdinov (2016), Importance weighted autoencoders, theorem 1.
        https://arxiv.org/abs/1509.00519
    """
    q = UniformDequantizer() if dequantizer is None else dequantizer
    if isinstance(q, type) or not isinstance(q, Dequantizer):
        raise InvalidTypeError(f"`dequantizer` must have levels and sample(v), as UniformDequantizer, got {q!r}.")
    grey_levels(v, q.levels)
    source = source_of(seed, generator, v.device)

    def draw(given: Mapping[str, Any]) -> Draw:
        with torch.no_grad():
            x, log_q = _sample(q, v, source, dtype)
        got = log_likelihood(sde, score_fn, x, generator=source, **given)
        return got.log_prob - log_q, got.nfe, got.success

    return bound_of(draw, draws, importance, options, tuple(v.shape[1:]), q.levels)


@checked
def decoder_bound(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    x: Tensor,
    *,
    levels: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    draws: Draws = 1,
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
        >>> bound = decoder_bound(
        ...     sde, target.score(sde), x, draws=4, divergence="exact", seed=0
        ... )
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
    source = source_of(seed, generator, data.device)
    start = grids.time_of("t_start", options.get("t_start"), sde, sde.t_min)
    network = Network(score, context_of(options.get("context"), score, data))

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


def _sample(
    q: Dequantizer, v: Tensor, source: torch.Generator | None, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    out = q.sample(v, generator=source, dtype=dtype)
    x, log_q = out if isinstance(out, tuple) and len(out) == 2 else (None, None)
    if not isinstance(x, Tensor) or not isinstance(log_q, Tensor) or x.shape != v.shape or log_q.shape != v.shape[:1]:
        raise InvalidTypeError(
            f"`dequantizer.sample` must return x {tuple(v.shape)} and log_q {tuple(v.shape[:1])}, got {type(out)}."
        )
    if not bool(torch.isfinite(log_q).all()):
        raise NonFiniteError("`dequantizer.sample` returned a log_q that is NaN or infinite.", stage="input")
    return x, log_q.to(torch.float64)


Draw: TypeAlias = tuple[Tensor, Tensor, Tensor]  # one log-weight per sample, its evaluations, whether it arrived


def bound_of(
    draw: Callable[[Mapping[str, object]], Draw],
    count: int,
    importance: bool,
    options: Mapping[str, object],
    event_shape: tuple[int, ...],
    levels: int | None,
) -> LowerBound:
    """The bound of a number of draws, if the options go with it; what the first has checked is not checked again."""
    if importance and options.get("divergence", "hutchinson") != "exact":
        raise InvalidArgumentError("`importance` needs divergence='exact': the noise of another one raises the bound.")
    for name in ("seeds", "differentiable"):
        if name in options:
            raise InvalidArgumentError(f"`{name}` is no option here, but one of log_likelihood.")
    draws = [draw(options if i == 0 else {**options, "check": False}) for i in range(count)]
    weights, nfe, success = (torch.stack(values, 1) for values in zip(*draws, strict=True))
    return LowerBound(weights, importance, event_shape, levels, nfe.sum(1), success.all(1))


def source_of(seed: int | None, generator: torch.Generator | None, device: torch.device) -> torch.Generator | None:
    """The generator that all draws come from, one after the other; None is torch's global one."""
    if seed is None:
        return generator
    if generator is not None:
        raise InvalidArgumentError("`seed` and `generator` are both given; give one.")
    return torch.Generator(device).manual_seed(check_seed("seed", seed))
