"""How some of the levels of a chain are chosen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _leading(size: int, n: int) -> Tensor:
    r"""Every :math:`\lfloor N/n\rfloor`-th level from the cleanest on; the noisiest levels are left out.

    Example:
        >>> _leading(1000, 4).tolist()
        [0, 250, 500, 750]
    """
    return torch.arange(n, device="cpu") * (size // n)


def _trailing(size: int, n: int) -> Tensor:
    r""":math:`\mathrm{round}(kN/n) - 1`, k = 1 … n: from the noisiest level on; the cleanest ones are left out.

    Example:
        >>> _trailing(1000, 4).tolist()
        [249, 499, 749, 999]

    References:
        Lin et al. (2023), Common Diffusion Noise Schedules and Sample Steps Are Flawed, table 2.
        https://arxiv.org/abs/2305.08891
    """
    return _rounded(torch.arange(1, n + 1, device="cpu") * size, n) - 1


def _linspace(size: int, n: int) -> Tensor:
    r""":math:`\mathrm{round}(k(N-1)/(n-1))`, k = 0 … n - 1: both ends and evenly between, as improved DDPM respaces.

    Example:
        >>> _linspace(1000, 4).tolist()
        [0, 333, 666, 999]

    References:
        Nichol, Dhariwal (2021), section 4. https://arxiv.org/abs/2102.09672
    """
    return _rounded(torch.arange(n, device="cpu") * (size - 1), n - 1)


def _rounded(numerator: Tensor, denominator: int) -> Tensor:
    """The quotient, rounded to the nearest integer, halves to the even one."""
    return (numerator.to(torch.float64) / denominator).round().to(torch.int64)


SPACINGS: dict[str, Callable[[int, int], Tensor]] = {"leading": _leading, "trailing": _trailing, "linspace": _linspace}
