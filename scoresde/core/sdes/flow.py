"""The straight-line process of flow matching."""

from __future__ import annotations

import torch
from torch import Tensor

from ..support.declared import Probability, checked
from ..support.tensors import sigmoid
from .base import AffineSDE, NormalPrior


class FlowSDE(AffineSDE):
    r"""Rectified flow / flow matching: :math:`\alpha = 1-t,\ \sigma = t`, prior :math:`N(0, \sigma(t_{max})^2 I)`.

    Args:
        t_min: the data end.
        t_max: the noise end, at most 1. At 1 there is no signal left: a solve can begin there only with a data, v or
            flow prediction and with a method that is defined in this limit; `scoresde.solve` refuses the others.
        prior: the distribution at ``t_max``.

    Example:
        >>> float(FlowSDE().log_snr(0.5))
        0.0

    References:
        Liu, Gong, Liu (2023), Flow Straight and Fast. https://arxiv.org/abs/2209.03003
        Lipman et al. (2023), Flow Matching for Generative Modeling. https://arxiv.org/abs/2210.02747
    """

    @checked
    def __init__(self, *, t_min: float = 1e-3, t_max: Probability = 1 - 1e-3, prior: NormalPrior | None = None) -> None:
        super().__init__(t_min=t_min, t_max=t_max, prior=NormalPrior(t_max or 1.0) if prior is None else prior)

    def _log_alpha(self, t: Tensor) -> Tensor:
        return torch.log1p(-t)

    def _log_sigma(self, t: Tensor) -> Tensor:
        return t.log()

    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -1 / (1 - t), 1 / t

    def _alpha_rate(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -1.0)

    def _sigma_rate(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def _g2(self, t: Tensor) -> Tensor:
        return 2 * t / (1 - t)

    def _time(self, lam: Tensor) -> Tensor:
        return sigmoid(-lam)
