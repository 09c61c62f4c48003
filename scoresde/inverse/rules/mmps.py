"""Moment matching posterior sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.support.checks import check_integer, check_positive
from ..measurement import Measurement, dot, scaled
from .base import Known, Rule

_WIDEST = 4.0  # times that of a flat density: a variance of the data given a state that only a wrong Jacobian has


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

    iterations: int = 5
    radius: float | None = 4.0

    name: ClassVar[str] = "mmps"
    gradients: ClassVar[bool] = True
    reference: ClassVar[str] = "Rozet et al. (2024), section 4.2"
    needs: ClassVar = (Measurement.solvable,)

    def __post_init__(self) -> None:
        check_integer("iterations", self.iterations, low=1)
        if self.radius is not None:
            check_positive("radius", self.radius, high=math.inf)

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
