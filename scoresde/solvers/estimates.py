"""Error estimates of methods of one order."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Estimates


def of_power(error: Tensor, power: float) -> Estimates:
    r"""One estimate, which is proportional to :math:`h^p` with any p.

    Example:
        >>> of_power(torch.ones(4, 2), 1.5).values.shape
        torch.Size([4, 1, 2])
    """
    used = torch.zeros(len(error), dtype=torch.long, device=error.device)
    powers = torch.full((1,), power, dtype=torch.float64, device=error.device)
    return Estimates(error[:, None], powers, used, used[:, None] == 0)
