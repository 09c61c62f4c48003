"""Steps along the gradient of the misfit: DPS with the published step size, and MCG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.support.declared import NonNegative, checked
from ...core.support.tensors import expand
from ...solvers.base import Asking, Node, Process, Step, StepResult
from ...solvers.families.particles import posterior_step
from ..measurement import Measurement, dot, scaled
from ..rules import Known, look
from .base import InverseSolver, SpectralSolver, impute


@dataclass(frozen=True, eq=False)
class _GradientStep(InverseSolver):
    """An ancestral step, and a step down the gradient of the misfit."""

    zeta: NonNegative = 1.0

    keeps_estimates: ClassVar[bool] = False
    gradients: ClassVar[bool] = True
    products: ClassVar[int] = 1
    data_limit: ClassVar[bool] = True

    def _descend(self, process: Process, x: Tensor, start: Node, stop: Node, y: Tensor) -> Asking[Tensor]:
        known = look(process.network.estimate, x, start, self.tally, True)
        mean, std = posterior_step(x, known.data, start, stop)
        x = mean + expand(std, x) * (yield process.normal(x))
        return x - self.zeta * misfit_slope(known, self.measurement, y)


@checked
@dataclass(frozen=True, eq=False)
class DPSStep(_GradientStep):
    r"""DPS as published: an ancestral step, and a step of fixed size down the gradient of the misfit.

    .. math:: x_t \leftarrow x_t - \zeta\,\nabla_{x_s}\|y - A\hat x(x_s)\|.

    Facts:
        1 evaluation and 1 product per step; any operator, also a function. The shift does not shrink with the step, so
        that the answer depends on the number of steps; it leads to images that fit y, not to the posterior.

    Args:
        measurement: any.
        zeta: :math:`\zeta`, as ``scale`` in the published code (which takes the norm over the batch; here each sample
            has its own); the paper's :math:`\zeta'`, of the squared norm over the norm, is half of it. The default is
            the published one, held against 0.03 to 2 on half digits in 50 steps (``python -m benchmarks inverse_digits
            --sweep``): 0.3 and 0.5 fit what was seen to its noise, 1 to twice that, but with 1 more samples are the
            right digit.

    Example:
        >>> from scoresde.inverse import DPSStep, Measurement
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> seen = Measurement(lambda x: x[:, :1] ** 2, torch.tensor([4.0]))
        >>> method = DPSStep(seen, zeta=0.02)
        >>> x = scoresde.solve(
        ...     sde, target.score(sde), method=method, steps=200, shape=(50, 2), seed=0
        ... ).x
        >>> bool((x[:, 0].abs() - 2).abs().median() < 0.1)
        True

    References:
        Chung et al. (2023), Diffusion Posterior Sampling for General Noisy Inverse Problems, algorithm 1.
        https://arxiv.org/abs/2209.14687
    """

    name: ClassVar[str] = "dps_step"
    reference: ClassVar[str] = "Chung et al. (2023), algorithm 1"

    def init(self, process: Process, x: Tensor, start: Node) -> object:
        """The measurements."""
        return self.measurement.of(x)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Tensor) -> Step:
        """See `Solver.step`."""
        return StepResult((yield from self._descend(process, x, start, stop, state)), state)


@checked
@dataclass(frozen=True, eq=False)
class MCG(_GradientStep, SpectralSolver):
    r"""Manifold-constrained gradients: the step of `DPSStep`, then the replacement of what is measured.

    .. math:: x_t \leftarrow x_t - \zeta\,\nabla_{x_s}\|y - A\hat x(x_s)\|, \qquad
              V^Hx_t \leftarrow \alpha_tV^HA^+y + \sigma_tV^Hz\ \text{where } s > 0.

    Facts:
        1 evaluation and 1 product per step. The noise of y is treated as signal.

    Differs from:
        the paper, whose gradient is that of the squared norm; the norm's is that of its released code and of DPS.

    Args:
        measurement: of a linear operator with singular values.
        zeta: the step. The default is held against 0.03 to 2 on half digits in 50 steps (``python -m benchmarks
            inverse_digits --sweep``): with a larger step more samples are the right digit, but above 1 they are
            overconfident.

    Example:
        >>> from scoresde.inverse import MCG, Mask, Measurement
        >>> seen = Measurement(Mask(torch.tensor([True, False])), torch.tensor([3.0]))
        >>> MCG(seen).products
        1

    References:
        Chung et al. (2022), Improving Diffusion Models for Inverse Problems using Manifold Constraints, eq. 14-15.
        https://arxiv.org/abs/2206.00941
    """

    name: ClassVar[str] = "mcg"
    reference: ClassVar[str] = "Chung et al. (2022), eq. 14-15"

    def init(self, process: Process, x: Tensor, start: Node) -> object:
        """The measurements, and the known part."""
        y = self.measurement.of(x)
        return y, self.operator.pseudo_inverse(y)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: tuple[Tensor, Tensor]) -> Step:
        """See `Solver.step`."""
        y, seen = state
        x = yield from self._descend(process, x, start, stop, y)
        return StepResult((yield from impute(process, self.operator, x, seen, stop)), state)


def misfit_slope(known: Known, measurement: Measurement, y: Tensor) -> Tensor:
    r""":math:`\nabla_{x_s}\|y-A\hat x\|` of each sample, 0 where there is no misfit.

    Example:
        >>> from scoresde.inverse import Measurement
        >>> from scoresde.inverse.rules import Tally
        >>> sde = scoresde.EDMSDE()
        >>> score_fn = scoresde.targets.Gaussian(torch.zeros(1), 1.0).score(sde)
        >>> known = look(score_fn.estimate, torch.zeros(1, 1), sde.node(1.0), Tally(), True)
        >>> misfit_slope(known, Measurement(torch.eye(1), torch.ones(1)), torch.ones(1, 1))
        tensor([[-0.5000]])
    """
    residual = y - measurement.operator.forward(known.data)
    size = dot(residual, residual).sqrt()
    unit = scaled(1 / torch.where(size > 0, size, torch.ones_like(size)), residual)
    return -known.pull(measurement.pull(known.data, unit))
