"""Rules by a Gaussian density of the measurement given a state; they differ in the covariance of the data in it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.support.declared import Count, NonNegative, Positive, checked
from ...core.support.tensors import Scalar, expand
from ..measurement import Measurement, dot, scaled
from .base import Known, Node, Rule

_WIDEST = 4.0  # times that of a flat density: a variance of the data given a state that only a wrong Jacobian has


@checked
@dataclass(frozen=True)
class DPS(Rule):
    r"""DPS: :math:`x_0` is taken to be :math:`\hat x`, without uncertainty.

    .. math:: p(y|x_t) \approx N(y; A\hat x, \sigma_y^2 I), \qquad
              \nabla\ln p(y|x_t) \approx \frac{\zeta}{\sigma_y^2} J^TA^T(y - A\hat x).

    Facts:
        1 product per evaluation; any operator, also a function. Exact only where :math:`C_t = 0`: it trusts the
        measurement too much while there is noise, so that the posterior comes out too narrow, and the smaller
        :math:`\sigma_y` the stiffer the equation, so that its default solver is ``"ancestral"``, which diverges later
        than ``"dpmpp_2m_sde"``. `DPSStep` is the rule with the published step size.

    Args:
        scale: :math:`\zeta`.

    Example:
        >>> DPS().products
        1

    References:
        Chung et al. (2023), Diffusion Posterior Sampling for General Noisy Inverse Problems, eq. 16.
        https://arxiv.org/abs/2209.14687
    """

    scale: NonNegative = 1.0

    name: ClassVar[str] = "dps"
    gradients: ClassVar[bool] = True
    products: ClassVar[int] = 1
    reference: ClassVar[str] = "Chung et al. (2023), eq. 16"
    needs: ClassVar = (Measurement.noisy,)
    sampler: ClassVar[str] = "ancestral"

    def apply(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.apply`."""
        slope = measurement.pull(known.data, y - measurement.operator.forward(known.data))
        return known.data + self.scale / measurement.std**2 * known.covary(slope)

    def log_likelihood(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.log_likelihood`."""
        residual = (y - measurement.operator.forward(known.data)).double()
        return -0.5 * self.scale / measurement.std**2 * dot(residual, residual)


@checked
@dataclass(frozen=True)
class PiGDM(Rule):
    r"""ΠGDM: :math:`x_0` is taken to be spread about :math:`\hat x` as data N(0, v I) would be.

    .. math::
        p(y|x_t) \approx N(y; A\hat x, r_t^2AA^T + \sigma_y^2I),\qquad r_t^2 = \frac{\sigma^2v}{\alpha^2v+\sigma^2},
        \qquad \nabla\ln p(y|x_t) \approx J^TA^T(r_t^2AA^T+\sigma_y^2I)^{-1}(y-A\hat x).

    Facts:
        1 product per evaluation, and the singular values of A. Exact for data N(m, v I). With :math:`\sigma_y = 0` the
        inverse is the pseudo-inverse.

    Differs from:
        the published sampler, which takes v = 1 and multiplies the guidance by :math:`r_t^2` in a DDIM step.

    Args:
        data_std: :math:`\sqrt v`, the standard deviation of the data.

    Example:
        >>> PiGDM(data_std=0.5).variance(scoresde.EDMSDE().node(0.5))
        0.125

    References:
        Song et al. (2023), Pseudoinverse-Guided Diffusion Models for Inverse Problems, eq. 7-8 and appendix A.
    """

    data_std: Positive = 1.0

    name: ClassVar[str] = "pigdm"
    gradients: ClassVar[bool] = True
    products: ClassVar[int] = 1
    reference: ClassVar[str] = "Song et al. (2023), ΠGDM, eq. 7"
    needs: ClassVar = (Measurement.spectral,)

    def variance(self, node: Node) -> Scalar:
        r""":math:`r_t^2`."""
        v = self.data_std**2
        return node.sigma * node.sigma * v / (node.alpha * node.alpha * v + node.sigma * node.sigma)

    def apply(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.apply`."""
        operator = measurement.linear(self.name)
        slope = operator.adjoint(y - operator.forward(known.data))
        return known.data + known.covary(operator.filter(slope, self._inverse(measurement, known.node)))

    def log_likelihood(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.log_likelihood`."""
        operator, inverse = measurement.linear(self.name), self._inverse(measurement, known.node)
        slope = operator.adjoint((y - operator.forward(known.data)).double())
        return -0.5 * dot(slope, operator.filter(slope, lambda s: inverse(s) / s**2))  # what A cannot reach is fixed

    def _inverse(self, measurement: Measurement, node: Node) -> Callable[[Tensor], Tensor]:
        r2 = self.variance(node)
        return lambda s: 1 / (measurement.std**2 + expand(r2, s) * s**2)


@checked
@dataclass(frozen=True)
class MMPS(Rule):
    r"""MMPS: :math:`x_0` given :math:`x_t` is taken to be Gaussian with its true mean and covariance.

    .. math::
        p(y|x_t) \approx N(y; A\hat x, AC_tA^T + \sigma_y^2I), \qquad
        E[x_0|x_t,y] \approx \hat x + C_tA^T(AC_tA^T+\sigma_y^2I)^{-1}(y-A\hat x),

    with :math:`C_t = \frac{\sigma^2}{\alpha}J` (second-order Tweedie). The system is solved by conjugate gradients,
    whose products with :math:`C_t` are vector-Jacobian products of the network; no matrix is formed.

    Facts:
        One product per iteration; any linear operator. Exact for Gaussian data, whatever their covariance, when the
        iterations are as many as there are distinct eigenvalues, and within the radius below. A network's Jacobian is
        no exact covariance. With :math:`v = A^Tp` a sample stops at a direction p where :math:`v^TC_tv < 0`; and where
        :math:`|C_tv|^2 > \frac{4\sigma^2}{\alpha^2}\,v^TC_tv` if the step would make the residual larger. For a
        covariance :math:`|Cv|^2 \leq \lambda_{max}\,v^TCv`, with :math:`\lambda_{max} \leq \sigma^2/\alpha^2` for data
        of a log-concave density and more between modes, where the step makes the residual smaller. It also stops where
        its residual is down to rounding. Without these stops a few samples of a trained network leave the range of the
        data altogether, above all where ``noise_std`` is 0 or small, so that nothing is added to :math:`AC_tA^T`.

        What y adds to the estimate has a mean square of at most :math:`\mathrm{tr}\,C_t \leq d\,\sigma^2/\alpha^2` over
        y, for d entries of data of a log-concave density, and is longer than :math:`(\sqrt d+r)\,\sigma/\alpha` with a
        probability below :math:`e^{-r^2/2}` if they are Gaussian. Any change of the data that meets y is at least
        :math:`|y-A\hat x|^2/|A^T(y-A\hat x)|` long. What is longer than the former, and than twice the latter, is
        shortened to the larger of the two: mostly the state belongs to another mode than y, the Jacobian is far from a
        covariance, and what is not measured would leave the range of the data, above all with few steps. The next
        steps bring the state nearer to y.

    Args:
        iterations: of conjugate gradients.
        radius: r, of the region in which the linearisation is trusted; None for no limit.

    Example:
        >>> MMPS(iterations=3).products
        3

    References:
        Rozet et al. (2024), Learning Diffusion Priors from Observations by Expectation Maximization, section 4.2.
        https://arxiv.org/abs/2405.13712
        Boys et al. (2023), Tweedie Moment Projected Diffusions for Inverse Problems, eq. 11.
        https://arxiv.org/abs/2310.06721
    """

    iterations: Count = 5
    radius: Positive | None = 4.0

    name: ClassVar[str] = "mmps"
    gradients: ClassVar[bool] = True
    reference: ClassVar[str] = "Rozet et al. (2024), section 4.2"
    needs: ClassVar = (Measurement.solvable,)

    @property
    def products(self) -> int:
        """One per iteration."""
        return self.iterations

    def apply(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.apply`."""
        operator = measurement.linear(self.name)
        variance = measurement.std**2
        left = gap = y - operator.forward(known.data)
        direction, added = left, torch.zeros_like(known.data)
        size = first = dot(left, left)
        widest = _WIDEST * known.spread / known.node.alpha
        slack = 100 * torch.finfo(left.dtype).eps
        floor = (4 * torch.finfo(left.dtype).eps) ** 2 * first
        for _ in range(self.iterations):
            moved = known.covary(operator.adjoint(direction))
            image = operator.forward(moved)
            bend = dot(direction, image)
            image = image + variance * direction
            curvature = dot(direction, image)
            least = (1 - slack) * variance * dot(direction, direction)  # what a covariance C cannot go below
            go = (size > floor) & (curvature > 0) & (curvature >= least)
            step = torch.where(go, size / torch.where(go, curvature, torch.ones_like(size)), torch.zeros_like(size))
            rest = left - scaled(step, image)
            go = go & ((dot(moved, moved) <= widest * bend) | (dot(rest, rest) <= size))
            step = torch.where(go, step, torch.zeros_like(size))
            added = added + scaled(step, moved)
            left = left - scaled(step, image)
            before, size = size, torch.where(go, dot(left, left), torch.zeros_like(size))
            ratio = torch.where(go, size / torch.where(go, before, torch.ones_like(size)), torch.zeros_like(size))
            direction = left + scaled(ratio, direction)
        if self.radius is not None:
            added = _trusted(added, known, self.radius, first, operator.adjoint(gap))
        return known.data + added


def _trusted(added: Tensor, known: Known, radius: float, first: Tensor, back: Tensor) -> Tensor:
    """What y adds, no longer than is trusted; ``first`` is the square of the residual, ``back`` its image under the
    transposed operator."""
    usual = (math.sqrt(math.prod(added.shape[1:])) + radius) * known.node.sigma / known.node.alpha
    square = dot(back, back)
    least = first / torch.where(square > 0, square, torch.ones_like(square)).sqrt()
    longest = torch.maximum(2 * least, torch.zeros_like(least) + usual).square()
    length = dot(added, added)
    far = length > longest
    share = torch.where(far, longest / torch.where(far, length, torch.ones_like(length)), torch.ones_like(length))
    return scaled(share.sqrt(), added)


@dataclass(frozen=True)
class TMPD(Rule):
    r"""TMPD: as `MMPS`, with the diagonal of row sums in place of :math:`AC_tA^T`.

    .. math:: p(y|x_t) \approx N(y; A\hat x, \mathrm{diag}(AC_tA^T1) + \sigma_y^2I).

    Facts:
        2 products per evaluation; any linear operator. Exact for Gaussian data where :math:`AC_tA^T` is diagonal. Row
        sums below 0, which a covariance may have, count as 0.

    Example:
        >>> TMPD().products
        2

    References:
        Boys et al. (2023), Tweedie Moment Projected Diffusions for Inverse Problems, section 4.
        https://arxiv.org/abs/2310.06721
    """

    name: ClassVar[str] = "tmpd"
    gradients: ClassVar[bool] = True
    products: ClassVar[int] = 2
    reference: ClassVar[str] = "Boys et al. (2023), section 4"
    needs: ClassVar = (Measurement.linear, Measurement.noisy)

    def apply(self, known: Known, measurement: Measurement, y: Tensor) -> Tensor:
        """See `Rule.apply`."""
        operator = measurement.linear(self.name)
        sums = operator.forward(known.covary(operator.adjoint(torch.ones_like(y))))
        residual = y - operator.forward(known.data)
        return known.data + known.covary(operator.adjoint(residual / (sums.clamp_min(0) + measurement.std**2)))
