"""Null-space projection for noisy measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.support.declared import Steps, checked
from ...core.support.tensors import expand
from ...solvers.base import SDE, Node, Process, Step, StepResult
from ...solvers.families.particles import posterior_weights
from ...solvers.families.transition import leap
from .base import Repeats, SpectralSolver, detours


@checked
@dataclass(frozen=True, eq=False)
class DDNMPlus(SpectralSolver):
    r"""DDNM+: the null-space projection, taken as far as the noise of the step covers that of y. With the ancestral
    step's weight a of the data estimate and its standard deviation b, in the coordinates of V,

    .. math::
        \hat x \leftarrow \hat x + \lambda (A^+y - \hat x),\qquad x_t = \ldots + a\hat x + \gamma z, \qquad
        \lambda = \min\Big(1, \frac{b\,s}{a\,\sigma_y}\Big),\quad \gamma^2 = b^2 - a^2\lambda^2\sigma_y^2/s^2.

    Facts:
        1 evaluation per step, no vector-Jacobian product. With ``repeats`` above 1 every stretch of ``jump`` steps is
        repeated that many times (the paper's time travel). Where :math:`\lambda < 1` the noise of y is all the noise of
        the step, and the same in every step, while a reverse process redraws it.

    Args:
        measurement: of a linear operator with singular values.
        jump, repeats: of the time travel.

    Example:
        >>> from scoresde.inverse import DDNMPlus, Mask, Measurement
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> seen = Measurement(Mask(torch.tensor([True, False])), torch.tensor([3.0]))
        >>> x = scoresde.solve(
        ...     sde, target.score(sde), method=DDNMPlus(seen), steps=20, shape=(9, 2), seed=0
        ... ).x
        >>> bool((x[:, 0] - 3).abs().max() < 0.1)
        True

    References:
        Wang, Yu, Zhang (2023), Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model, eq. 17-19 and
        algorithm 2. https://arxiv.org/abs/2212.00490
    """

    jump: Steps = 10
    repeats: Repeats = 1

    name: ClassVar[str] = "ddnm_plus"
    keeps_estimates: ClassVar[bool] = False
    reference: ClassVar[str] = "Wang, Yu, Zhang (2023), eq. 17-19"
    data_limit: ClassVar[bool] = True

    def visit(self, sde: SDE, times: Tensor) -> Tensor:
        """The grid with its repeats."""
        return detours(times, self.jump, self.repeats)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Tensor) -> Step:
        """See `Solver.step`."""
        if stop.lam < start.lam:
            return StepResult(leap(x, start, stop, (yield process.normal(x))), state)
        values, into, back = self.operator.svd
        values = values.to(x)
        estimate, z = (yield process.estimate(x, start)), (yield process.normal(x))
        x_s, data, seen, z = (into(v) for v in (x, estimate.data, state, z))
        keep, gain, std = (expand(w, data.real) for w in posterior_weights(start, stop))
        there = values > 0
        blur = gain * self.measurement.std / torch.where(there, values, torch.ones_like(values))  # of y, in the step
        share = torch.where(there, (std / blur.clamp_min(1e-300)).clamp_max(1.0), torch.zeros_like(values))
        spread = (std**2 - (share * blur) ** 2).clamp_min(0).sqrt()
        return StepResult(back(keep * x_s + gain * (data + share * (seen - data)) + spread * z), state)
