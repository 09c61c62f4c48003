"""Error estimates of methods of one order."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .base import Estimates


def of_power(error: Tensor, power: float) -> Estimates:
    r"""One estimate, which is proportional to :math:`h^p` with any p.

    Example:
        >>> of_power(torch.ones(4, 2), 1.5).values.shape
        torch.Size([4, 1, 2])
    """
    used = np.zeros(len(error), dtype=np.int64)
    return Estimates(error[:, None], np.array([power]), used, used[:, None] == 0)
