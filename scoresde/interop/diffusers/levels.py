r"""The levels of a chain, as diffusers computes them.

Its schedulers multiply the :math:`1-\beta_i` in single precision, and it trains with the products. Near the data
:math:`1-\bar\alpha` has few digits left then (a relative error of some 1e-4 at the cleanest level), and so the same
products are taken here: the levels are what the network has seen, not what the formula gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError, check_choice
from ...core.support.checks import MOST_LEVELS, check_integer, check_number, check_times

FAINT = 2.0**-24  # what most schedulers take for a terminal signal of zero


def _linear(n: int, first: float, last: float) -> Tensor:
    return torch.linspace(first, last, n, dtype=torch.float32)


def _scaled_linear(n: int, first: float, last: float) -> Tensor:
    """Linear in the square root, as of latent diffusion."""
    return torch.linspace(first**0.5, last**0.5, n, dtype=torch.float32).square()


def _cosine(n: int, first: float, last: float) -> Tensor:
    """Improved DDPM's, which follows from n alone."""
    signal = [math.cos((i / n + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(n + 1)]
    return torch.tensor([min(1 - signal[i + 1] / signal[i], 0.999) for i in range(n)], dtype=torch.float32)


def _sigmoid(n: int, first: float, last: float) -> Tensor:
    """GeoDiff's."""
    return torch.linspace(-6, 6, n, dtype=torch.float32).sigmoid() * (last - first) + first


BETAS: dict[str, Callable[[int, float, float], Tensor]] = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "squaredcos_cap_v2": _cosine,
    "sigmoid": _sigmoid,
}


def alphas_bar(config: Mapping[str, Any]) -> Tensor:
    r""":math:`\bar\alpha_k` of the levels of a config, float64 ``(N,)`` with the digits of single precision.

    With ``rescale_betas_zero_snr`` the roots are shifted and scaled, so that the last is 0 and the first stays,
    :math:`\sqrt{\bar\alpha_k} \leftarrow (\sqrt{\bar\alpha_k}-\sqrt{\bar\alpha_N})
    \sqrt{\bar\alpha_1}/(\sqrt{\bar\alpha_1}-\sqrt{\bar\alpha_N})`.

    Args:
        config: the fields of a scheduler.

    Raises:
        InvalidArgumentError, InvalidTypeError: there are no such betas.

    Example:
        >>> config = {
        ...     "num_train_timesteps": 1000,
        ...     "beta_schedule": "linear",
        ...     "beta_start": 1e-4,
        ...     "beta_end": 0.02,
        ... }
        >>> exact = scoresde.discrete.BetaChain.linear().alphas_bar
        >>> bool(((alphas_bar(config) - exact) / exact).abs().max() < 1e-4)
        True

    References:
        Lin et al. (2023), Common Diffusion Noise Schedules and Sample Steps Are Flawed, algorithm 1.
        https://arxiv.org/abs/2305.08891
    """
    alphas = 1.0 - _betas(config)
    bars = alphas.cumprod(0)
    if config.get("rescale_betas_zero_snr"):
        roots = bars.sqrt()
        roots = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
        bars = roots**2
        alphas = torch.cat([bars[:1], bars[1:] / bars[:-1]])
        bars = (1.0 - (1.0 - alphas)).cumprod(0)
    return bars.to(torch.float64)


def _betas(config: Mapping[str, Any]) -> Tensor:
    """The betas of a config, float32 ``(N,)``."""
    given = config.get("trained_betas")
    if given is not None:
        betas = check_times("trained_betas", given, "numbers").to(torch.float32)
    else:
        n = check_integer("num_train_timesteps", config["num_train_timesteps"], low=3, high=MOST_LEVELS)
        first, last = (check_number(name, config[name]) for name in ("beta_start", "beta_end"))
        betas = BETAS[check_choice("beta_schedule", config["beta_schedule"], BETAS)](n, first, last)
    if len(betas) < 3 or not bool(((betas > 0) & (betas < 1)).all()):
        raise InvalidArgumentError("`trained_betas`, or the betas of `beta_schedule`, must be at least 3 in (0, 1).")
    return betas
