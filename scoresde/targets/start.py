"""The first part of a solve, made by a Gaussian."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..core.sdes import AffineSDE
from ..core.sdes.base import check_affine
from ..core.support.checks import check_kind, check_number, check_state
from .gaussian import Gaussian


class Solved(NamedTuple):
    """A pilot's solve: mean evaluations per sample, and RMS and median over the samples of the distance (RMS over
    dimensions) from an almost exact one.

    Example:
        >>> Solved(evaluations=20.0, rms=0.1, median=0.01).median
        0.01
    """

    evaluations: float = math.nan
    rms: float = math.nan
    median: float = math.nan


_UNKNOWN = Solved()


@dataclass(frozen=True, eq=False)
class GaussianStart:
    r"""A warm start for ``start=`` of `scoresde.solve`: from ``t_max`` to ``t`` the flow of a Gaussian, which is exact
    and needs no network,

    .. math:: x_t = \alpha_t m + S_t^{1/2} S_T^{-1/2}(x_T - \alpha_T m),\qquad S_t = \alpha_t^2\Sigma + \sigma_t^2 I.

    At high noise every distribution of data has the score of the Gaussian with its mean and covariance, to leading
    order. `scoresde.fit_start` finds how far that goes for a network; with a time of your own nothing is fitted.

    Args:
        gaussian: with the mean and covariance of the data, such as `Gaussian.fit` gives.
        sde: the process.
        t: the time at which the method takes over.
        bound: of the error at t in units of the data, as fitted.
        full, warm: the pilot from ``t_max``, and with this start.

    Example:
        >>> import torch, scoresde
        >>> target = Gaussian(torch.zeros(2), torch.tensor([1.0, 4.0]))
        >>> sde = scoresde.VPSDE()
        >>> start = GaussianStart(target, sde, t=0.5)
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="unipc2", steps=5, start=start
        ... ).evaluations
        5

    References:
        Wang, Vastola (2024), The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and
        its Applications. https://arxiv.org/abs/2412.09726
    """

    gaussian: Gaussian
    sde: AffineSDE
    t: float
    bound: float = math.nan
    full: Solved = _UNKNOWN
    warm: Solved = _UNKNOWN

    def __post_init__(self) -> None:
        check_kind("gaussian", self.gaussian, Gaussian, "a targets.Gaussian")
        check_affine(self.sde)
        check_number("t", self.t, low=self.sde.t_min, high=self.sde.t_max)
        check_kind("bound", self.bound, (float, int), "a number, or NaN for an error that is not known")
        for name in ("full", "warm"):
            check_kind(name, getattr(self, name), Solved, "figures of a pilot")

    @property
    def saved(self) -> float:
        """Mean evaluations per sample of the pilot that the start saves."""
        return self.full.evaluations - self.warm.evaluations

    def state(self, x: Tensor) -> Tensor:
        """The states at ``t``, given those at ``t_max``, shaped like ``x``."""
        check_state("x", x)
        return self.gaussian.flow_map(x, self.sde, self.sde.t_max, self.t).to(x.dtype)

    def __repr__(self) -> str:
        text = f"GaussianStart(t={self.t:.4g}"
        if not math.isnan(self.bound):
            text += f", error at most {self.bound:.2g}; median error {self.warm.median:.2g} with "
            text += f"{self.warm.evaluations:.1f} evaluations, before {self.full.median:.2g} with "
            text += f"{self.full.evaluations:.1f}"
        return text + ")"
