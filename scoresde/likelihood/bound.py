r"""The variational bound of a diffusion model in continuous time.

With :math:`\gamma = -\ln(\alpha^2/\sigma^2)` the negative log-SNR and z the diffused data,

.. math::
    -\ln p(x) \le \underbrace{KL(q(z_T|x)\,\|\,\pi)}_{prior} +
    \underbrace{\tfrac12\int_{\gamma_0}^{\gamma_T} E\|\varepsilon-\hat\varepsilon\|^2\,d\gamma}_{diffusion} +
    \underbrace{E[-\ln p(x|z_0)]}_{reconstruction}.

It bounds the likelihood of the reverse SDE, from z at :math:`t_{max}` to z at :math:`t_{min}`, and depends on the
process by the ends of :math:`\gamma` only. The density of the probability flow is another one where the score is not
exact; no inequality between the two is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._arguments import check_events, check_made_for, context_of
from .._tensors import check_integer, check_state, expand, row_finite
from ..errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from ..noise import check_seed
from ..processes import Network
from ..sdes import SDE, AffineSDE, NormalPrior
from .bits import cell


@dataclass(frozen=True)
class Term:
    """A part of the bound: nats ``(batch,)``, and the standard error of each from its draws (0 where it is exact).

    Example:
        >>> Term(torch.tensor([1.0]), torch.tensor([0.0])).value
        tensor([1.])
    """

    value: Tensor
    std_error: Tensor


@dataclass(frozen=True)
class Bound:
    """A variational bound, term by term.

    Attributes:
        prior, diffusion, reconstruction: see `variational_bound`.
        event_shape, levels: of the data.
        nfe: evaluations a sample.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> bound = variational_bound(sde, target.score(sde), torch.zeros(3, 2, dtype=torch.float64), seed=0)
        >>> bool((bound.total == bound.prior.value + bound.diffusion.value + bound.reconstruction.value).all())
        True
    """

    prior: Term
    diffusion: Term
    reconstruction: Term
    event_shape: tuple[int, ...]
    levels: int | None
    nfe: int

    @property
    def total(self) -> Tensor:
        """Nats, ``(batch,)``: an upper bound of the negative log-likelihood."""
        return self.prior.value + self.diffusion.value + self.reconstruction.value

    @property
    def std_error(self) -> Tensor:
        """Of the total, from all draws."""
        parts = (self.prior, self.diffusion, self.reconstruction)
        return torch.stack([part.std_error.square() for part in parts]).sum(0).sqrt()

    @property
    def bits_per_dim(self) -> Tensor:
        """Of the grey values: the total over D ln 2."""
        if self.levels is None:
            raise InvalidArgumentError(
                "This is the bound of a density; for data from dequantize(v, levels=L) its bits are "
                "bits_per_dim(-bound.total, event_shape, levels=L)."
            )
        return self.total / (math.prod(self.event_shape) * math.log(2))


def variational_bound(
    sde: SDE,
    score_fn: Callable[..., Any],
    x: Tensor,
    *,
    levels: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    draws: int = 32,
    context: Mapping[str, Tensor] | None = None,
    seed: int | None = None,
) -> Bound:
    r"""The bound of variational diffusion models, for any affine process and any score function.

    The diffusion term is drawn with :math:`\gamma` even between its ends, on a grid that is shifted by one uniform
    number for all samples and draws (low discrepancy), so that its spread is less than its ``std_error`` tells, which
    takes the draws for independent ones.

    Args:
        sde: an affine process with a finite log-SNR at both ends, and a normal prior.
        score_fn: as for `scoresde.solve`.
        x: data, ``(batch, *event)``; with ``levels`` the integers 0 … L - 1.
        levels: L of data in grey levels, which stand at the middle of their cells of ``data_range``:
            :math:`x = lo + w(v+\tfrac12)`, and over the levels of each dimension
            :math:`p(v|z_0) \propto \exp(-(z_0/\alpha_0 - x)^2\alpha_0^2/2\sigma_0^2)`. None for a density: the
            reconstruction is then the entropy :math:`\tfrac D2\ln 2\pi e\sigma_0^2` of :math:`q(z_0|x)`, and the
            bound that of :math:`E[-\ln p_{t_{min}}(z_0)]`.
        data_range: lo and hi.
        draws: of noise levels and noise, a sample.
        context: as for `scoresde.solve`.
        seed: of the draws.

    Raises:
        InvalidArgumentError: an argument does not fit.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> x = target.sample(2000, generator=torch.Generator().manual_seed(0))
        >>> bound = variational_bound(sde, target.score(sde), x, draws=8, seed=0)
        >>> entropy = 1 + math.log(2 * math.pi * 0.3)  # of the data; at t_min a little more
        >>> bool((bound.total.mean() - entropy).abs() < 0.05)
        True

    References:
        Kingma, Salimans, Poole, Ho (2021), Variational Diffusion Models, equations 11-18.
        https://arxiv.org/abs/2107.00630
    """
    if not isinstance(sde, AffineSDE):
        raise InvalidArgumentError(f"`sde` must be an affine process such as scoresde.VPSDE(), got {sde!r}.")
    if not callable(score_fn):
        raise InvalidTypeError(f"`score_fn` must be callable as score_fn(x, t), got {type(score_fn).__name__}.")
    check_made_for(sde, score_fn)
    if not isinstance(sde.prior, NormalPrior):
        raise InvalidArgumentError("The bound needs a NormalPrior, whose divergence is known.")
    count = check_integer("draws", draws, low=2)
    first, last = sde.node(sde.t_min), sde.node(sde.t_max)
    if not (math.isfinite(first.lam) and math.isfinite(last.lam)):
        raise InvalidArgumentError("The log-SNR must be finite at both ends; take t_min or t_max inside the interval.")
    values, data = _data(x, levels, data_range)
    check_events(score_fn, data)
    device = data.device
    generator = torch.Generator(device).manual_seed(0 if seed is None else check_seed("seed", seed))
    with torch.no_grad():
        prior = _prior(data, last.alpha, last.sigma, sde.prior)
        network = Network(score_fn, context_of(context, score_fn, len(data), device))
        diffusion = _diffusion(sde, network, data, -2 * first.lam, -2 * last.lam, count, generator)
        if values is None:
            size = data[0].numel() if len(data) else 0
            entropy = 0.5 * size * math.log(2 * math.pi * math.e * first.sigma**2)
            reconstruction = Term(torch.full_like(prior, entropy), torch.zeros_like(prior))
        else:
            reconstruction = _reconstruction(values, data, first, levels, data_range, count, generator)
    zero = torch.zeros_like(prior)
    return Bound(Term(prior, zero), diffusion, reconstruction, tuple(data.shape[1:]), levels, network.calls)


def _data(x: Any, levels: int | None, data_range: tuple[float, float]) -> tuple[Tensor | None, Tensor]:
    """The grey values, if there are some, and the data."""
    if levels is None:
        check_state("x", x)
        if not bool(x.isfinite().all()):
            raise NonFiniteError("`x` has NaN or infinite values.", stage="input")
        return None, x.to(torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype)
    low, width = cell(levels, data_range)
    if not isinstance(x, Tensor) or x.is_floating_point() or x.is_complex() or x.dtype == torch.bool or x.ndim < 2:
        raise InvalidTypeError("`x` must hold integers 0 … levels - 1, (batch, *event), where `levels` is given.")
    x = x.to(torch.int64)  # in a narrow type the number of levels would wrap
    if bool(((x < 0) | (x >= levels)).any()):
        raise InvalidArgumentError(f"`x` must hold integers 0 … {levels - 1}.")
    return x, (low + width * (x.to(torch.float64) + 0.5)).to(torch.get_default_dtype())


def _prior(x: Tensor, alpha: float, sigma: float, prior: NormalPrior) -> Tensor:
    r""":math:`KL(N(\alpha x, \sigma^2)\,\|\,N(m, s^2))`."""
    away = (alpha * x - prior.mean).to(torch.float64).flatten(1)
    ratio = (sigma / prior.std) ** 2
    return 0.5 * ((away / prior.std).square() + (ratio - 1 - math.log(ratio))).sum(1)


def _diffusion(
    sde: AffineSDE, network: Network, x: Tensor, low: float, high: float, count: int, generator: torch.Generator
) -> Term:
    batch = len(x)
    shift = torch.rand((), generator=generator, dtype=torch.float64, device=x.device)
    order = torch.randperm(batch * count, generator=generator, device=x.device)
    even = ((order.to(torch.float64) + shift) / max(1, batch * count)).reshape(count, batch)
    squares = []
    for u in even:
        t = sde.time(-(low + (high - low) * u)).clamp(sde.t_min, sde.t_max)
        node = sde.nodes(t)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        state = expand(node.alpha, x) * x + expand(node.sigma, x) * noise
        missed = network.estimate(state, node).noise - noise
        bad = ~row_finite(missed)
        if bool(bad.any()):
            rows = bad.nonzero()[:, 0].tolist()
            raise NonFiniteError(
                f"The score function returned NaN or infinity for {len(rows)} of {batch} samples (first: {rows[:5]}).",
                stage="score",
                indices=rows[:5],
            )
        squares.append(0.5 * (high - low) * missed.to(torch.float64).flatten(1).square().sum(1))
    return _mean(torch.stack(squares) if squares else torch.zeros(count, batch))


def _reconstruction(
    v: Tensor,
    x: Tensor,
    node: Any,
    levels: int | None,
    data_range: tuple[float, float],
    count: int,
    generator: torch.Generator,
) -> Term:
    low, width = cell(levels or 2, data_range)
    centres = low + width * (torch.arange(levels or 2, dtype=torch.float64, device=x.device) + 0.5)
    rho = node.sigma / node.alpha
    out = []
    for _ in range(count):
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64, device=x.device)
        seen = x.to(torch.float64) + rho * noise
        logits = -0.5 * ((seen[..., None] - centres) / rho).square()
        out.append(-logits.log_softmax(-1).gather(-1, v.long()[..., None])[..., 0].flatten(1).sum(1))
    return _mean(torch.stack(out))


def _mean(draws: Tensor) -> Term:
    return Term(draws.mean(0), draws.std(0) / math.sqrt(len(draws)))
