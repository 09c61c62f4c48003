r"""A uniform distribution on a box, as many priors of simulators are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import Estimate
from ..core.support.checks import as_tensor, check_tensor
from ..core.support.tensors import Scalar, row_sums
from .base import Target

_FLAT = 1e-3  # half the width of the box in units of the noise, below which a series replaces the quotients
_FAR, _NARROW = 3e3, 1e-4  # distance from the box, half its width in units of the noise: see `Uniform._estimate`
_NO_NOISE = 1e-30  # in place of a standard deviation of 0: quotients by it, and their squares, are numbers


class Uniform(Target):
    r"""The uniform data distribution on a box, :math:`\prod_i U(l_i, h_i)`.

    With m the centre of an element's interval and w half its width, :math:`z = (x-\alpha m)/\sigma`,
    :math:`c = \alpha w/\sigma`, and the density :math:`\varphi` and the distribution function :math:`\Phi` of N(0, 1),
    the diffused density of the element is :math:`P/(2\alpha w)`, and

    .. math:: P = \Phi(z+c) - \Phi(z-c), \qquad \hat\varepsilon = \frac{\varphi(z-c) - \varphi(z+c)}P, \qquad
              \hat x = m + \frac\sigma\alpha(z - \hat\varepsilon).

    Facts:
        They are computed in float64, whatever the dtype of the state. Outside the box both parts of the quotient are
        divided by :math:`\varphi(|z|-c)`, so that the score and the log-density keep their digits at any distance. Far
        from the box the density within it is exponential, and :math:`\hat x=m\pm w(\coth\kappa-1/\kappa)` with
        :math:`\kappa=c(a+2/a)` and :math:`a=|z|-c`.

    Args:
        low: l, a floating-point tensor of the event's shape.
        high: h, above l: a tensor of the same shape, or a number.

    Raises:
        InvalidArgumentError: an end is not finite, the shapes differ, or an upper end is not above the lower one.

    Example:
        >>> prior = Uniform(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 1.0]))
        >>> prior.log_prob(torch.tensor([[0.5, 0.0], [0.5, 2.0]]))
        tensor([-0.6931,    -inf])
        >>> prior.score(scoresde.VPSDE())(torch.zeros(1, 2), t=1.0).shape
        torch.Size([1, 2])
    """

    def __init__(self, low: Tensor, high: Tensor | float) -> None:
        low, high = as_tensor("low", low).detach(), as_tensor("high", high).detach()
        if low.ndim < 1 or not low.dtype.is_floating_point:
            raise InvalidArgumentError(
                f"`low` must be a floating-point tensor of the event's shape, got {low.dtype} {tuple(low.shape)}."
            )
        if high.shape not in (low.shape, ()):
            raise InvalidArgumentError(
                f"`high` must be a number or have the shape of `low`, {tuple(low.shape)}, got {tuple(high.shape)}."
            )
        for name, end in (("low", low), ("high", high)):
            check_tensor(name, end, kind="real", finite=True)
        self.dtype = low.dtype
        self.event_shape = tuple(low.shape)
        self.low, self.high = low.to(torch.float64), high.to(low.device, torch.float64).expand_as(low)
        width = self.high - self.low
        if not bool(((width > 0) & width.isfinite()).all()):
            raise InvalidArgumentError(
                f"`high` must be above `low` in every element, got a smallest difference of {float(width.min()):.3g}."
            )

    @property
    def data_std(self) -> float:
        """The standard deviation, RMS over dimensions."""
        return math.sqrt(float((self.high - self.low).square().mean()) / 12)

    def _estimate(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Estimate:
        centre, half, z, c = self._in_noise(x, *_numbers(x, alpha, sigma))
        noise, _ = _cut(z, c)
        flat, away = _is_flat(z, c), z.abs() - c
        far = ~flat & ((away > _FAR) | (c < _NARROW))  # where digits are lost in z - noise
        away = torch.where(far, away, 1.0)
        rate = torch.where(far, c * (away + 2 / away), 1.0)
        edge = torch.copysign(1 / rate.tanh() - 1 / rate, z)
        shift = torch.where(flat, c * z / 3, torch.where(far, edge, (z - noise) / torch.where(flat, 1.0, c)))
        return Estimate(data=(centre + half * shift).to(x.dtype), noise=noise.to(x.dtype))

    def _log_prob(self, x: Tensor, alpha: Scalar, sigma: Scalar) -> Tensor:
        alpha, sigma = _numbers(x, alpha, sigma)
        _, half, z, c = self._in_noise(x, alpha, sigma)
        low, high = (alpha * end.to(x.device) for end in (self.low, self.high))
        clean = torch.where((x >= low) & (x <= high), -(2 * alpha * half).log(), -math.inf)
        noisy = _cut(z, c)[1] - sigma.clamp_min(_NO_NOISE).log()
        return row_sums(torch.where(sigma > 0, noisy, clean)).to(x.dtype)

    def _draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        share = torch.rand((n, *self.event_shape), generator=generator, dtype=self.dtype)
        return torch.lerp(self.low.to(share), self.high.to(share), share)

    def _covariance(self) -> Tensor:
        return torch.diag((self.high - self.low).flatten().square() / 12)

    def _in_noise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The centre of the box and half its width, then the state's distance from the centre and half the width in
        units of the noise."""
        low, high = self.low.to(x.device), self.high.to(x.device)
        centre, half, noise = (low + high) / 2, (high - low) / 2, sigma.clamp_min(_NO_NOISE)
        return centre, half, (x.to(torch.float64) - alpha * centre) / noise, alpha * half / noise


def _numbers(x: Tensor, *values: Scalar) -> list[Tensor]:
    """As float64 tensors where x is."""
    return [torch.as_tensor(value, dtype=torch.float64, device=x.device) for value in values]


def _is_flat(z: Tensor, c: Tensor) -> Tensor:
    """Whether the noise is so wide that the density of N(0, 1) hardly changes between z - c and z + c."""
    return (c < _FLAT) & (c * z.abs() < _FLAT)


def _cut(z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    r"""The noise estimate, and the logarithm of :math:`P/(2c)`. In both branches of a ``where`` the values are finite,
    so that gradients are too."""
    flat, back = _is_flat(z, c), z < 0
    away = torch.where(back, -z, z)
    inside = flat | (away <= c)
    wide = torch.where(flat, 1.0, c)
    near, far = torch.where(inside & ~flat, away, 0.0), torch.where(inside, wide + 1, away)
    u, v, rest = (near - wide) / math.sqrt(2), (near + wide) / math.sqrt(2), -2 * near * wide
    mass = torch.erf(v) - torch.erf(u)
    slope, log_mass = -(-u.square()).exp() * torch.expm1(rest) / mass, mass.log()
    u, v, rest = (far - wide) / math.sqrt(2), (far + wide) / math.sqrt(2), -2 * far * wide
    mass = torch.special.erfcx(u) - rest.exp() * torch.special.erfcx(v)
    slope = math.sqrt(2 / math.pi) * torch.where(inside, slope, -torch.expm1(rest) / mass)
    log_mass = torch.where(inside, log_mass, mass.log() - u.square()) - (4 * wide).log()
    level = (c.square() * (z.square() - 1) / 3 - z.square() - math.log(2 * math.pi)) / 2
    noise = torch.where(flat, z * (1 - c.square() / 3), torch.where(back, -slope, slope))
    return noise, torch.where(flat, level, log_mass)
