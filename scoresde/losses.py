r"""Training losses. Each is ``loss(model, x0, generator=None, **context) -> Tensor (batch,)``, to be averaged.

A loss draws noise levels and noise from ``generator`` alone (None: torch's global one), calls the model once, and never
imports a solver. ``context`` goes to the model unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._tensors import expand
from .errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, ScoreFnError

__all__ = ["NoiseLevels", "edm"]


@dataclass(frozen=True)
class NoiseLevels:
    r"""A law of noise levels ρ = σ/α: log-normal, with a share of log-uniform.

    .. math:: \ln \rho \sim (1 - w)\, N(\mu, s^2) + w\, U[\ln \rho_{min}, \ln \rho_{max}]

    EDM's law is ``uniform=0``; its tails are thin: one draw in 2000 is above ρ = 16, although VE starts at 50. The
    uniform share trains the whole range that some process will ask for.

    Args:
        mean: μ, the mean of ln ρ of the log-normal part.
        std: s, its standard deviation.
        uniform: w, the share of the log-uniform part, in [0, 1].
        rho_min: smallest level of the log-uniform part.
        rho_max: largest level of the log-uniform part.

    Example:
        >>> NoiseLevels(uniform=0.0)(torch.tensor([0.5], dtype=torch.float64)).log()
        tensor([-1.2000], dtype=torch.float64)
        >>> NoiseLevels(uniform=1.0, rho_min=0.01, rho_max=100.0)(torch.tensor([0.5], dtype=torch.float64))
        tensor([1.0000], dtype=torch.float64)

    References:
        Karras, Aittala, Aila, Laine (2022), section 5. https://arxiv.org/abs/2206.00364
    """

    mean: float = -1.2
    std: float = 1.2
    uniform: float = 0.0
    rho_min: float = 1e-3
    rho_max: float = 80.0

    def __post_init__(self) -> None:
        if not (0 <= self.uniform <= 1 and self.std > 0 and 0 < self.rho_min < self.rho_max < math.inf):
            raise InvalidArgumentError(
                f"{self} is no law of noise levels: it needs 0 <= uniform <= 1, std > 0 and 0 < rho_min < rho_max;"
                " write NoiseLevels(mean=-1.2, std=1.2), for example."
            )

    def __call__(self, u: Tensor) -> Tensor:
        """Map uniform numbers in [0, 1) to noise levels, ``(batch,)`` to ``(batch,)``."""
        low, high = math.log(self.rho_min), math.log(self.rho_max)
        rest = 1 - self.uniform
        uniform = low + (high - low) * u / (self.uniform or 1.0)
        edge = torch.finfo(u.dtype).eps  # the tails beyond it are infinite
        quantile = ((u - self.uniform) / (rest or 1.0)).clamp(edge, 1 - edge)
        normal = self.mean + self.std * torch.special.ndtri(quantile)
        return torch.where(u < self.uniform, uniform, normal).exp()


def edm(
    model: Callable[..., Tensor],
    x0: Tensor,
    generator: torch.Generator | None = None,
    *,
    sigma_data: float = 0.5,
    levels: Callable[[Tensor], Tensor] = NoiseLevels(),
    **context: Any,
) -> Tensor:
    r"""EDM's denoising loss of a raw network F, per sample, averaged over the event.

    With :math:`y = x_0 + \rho \varepsilon` and the denoiser :math:`D = c_{skip} y + c_{out} F(c_{in} y, c_{noise})`,

    .. math::
        \lambda(\rho) \lVert D - x_0 \rVert^2 = \lVert F(c_{in} y, c_{noise}) - (x_0 - c_{skip} y)/c_{out} \rVert^2,
        \qquad \lambda = \frac{\rho^2 + \sigma_d^2}{(\rho \sigma_d)^2},

    .. math::
        c_{skip} = \frac{\sigma_d^2}{\rho^2 + \sigma_d^2}, \quad c_{out} = \frac{\rho \sigma_d}{\sqrt{\rho^2 +
        \sigma_d^2}}, \quad c_{in} = \frac1{\sqrt{\rho^2 + \sigma_d^2}}, \quad c_{noise} = \tfrac14 \ln \rho.

    The target is written without the cancellation at small ρ: :math:`x_0 - c_{skip} y = (\rho^2 x_0 - \sigma_d^2 \rho
    \varepsilon) / (\rho^2 + \sigma_d^2)`.

    Differs from:
        EDM's code: the levels of a batch are stratified (``u_i = u_0 + i/batch mod 1``, the low-discrepancy times of
        VDM), and the loss is a mean over the event, not a sum.

    Args:
        model: the raw network ``model(x_in, c_noise, **context)``.
        x0: data, ``(batch, *event)``, floating.
        generator: source of the noise levels and of the noise; None is torch's global one.
        sigma_data: standard deviation of the data, :math:`\sigma_d`.
        levels: maps uniform numbers ``(batch,)`` to noise levels ρ, such as `NoiseLevels`.
        context: passed on to the model, for example ``label=``.

    Raises:
        NonFiniteError: the loss of a sample is not finite; the message names its noise level.

    Example:
        >>> data = torch.zeros(6, 2)
        >>> edm(lambda x, c_noise: torch.zeros_like(x), data, torch.Generator().manual_seed(0)).shape
        torch.Size([6])

    References:
        Karras, Aittala, Aila, Laine (2022), eq. 8 and table 1. https://arxiv.org/abs/2206.00364
        Kingma, Salimans, Poole, Ho (2021), Variational Diffusion Models, appendix I.1. https://arxiv.org/abs/2107.00630
    """
    if not x0.is_floating_point():
        raise InvalidTypeError(f"`x0` must be floating, got {x0.dtype}; write x0.float().")
    if x0.ndim < 2:
        raise InvalidArgumentError(f"`x0` must be (batch, *event), got shape {tuple(x0.shape)}; write x0[:, None].")
    if not 0 < sigma_data < math.inf:
        raise InvalidArgumentError(
            f"`sigma_data` must be positive and finite, got {sigma_data}; write x0.std().item()."
        )
    batch = x0.shape[0]
    if not batch:
        return x0.new_zeros(0)
    shift = torch.rand((), generator=generator, dtype=torch.float64, device=x0.device)
    u = (shift + torch.arange(batch, device=x0.device, dtype=torch.float64) / batch) % 1.0
    rho_samples = levels(u).to(x0.dtype)
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
    rho = expand(rho_samples, x0)
    total = (rho**2 + sigma_data**2) ** 0.5
    target = (rho * x0 / sigma_data - sigma_data * noise) / total
    output = model((x0 + rho * noise) / total, rho_samples.log() / 4, **context)
    if output.shape != x0.shape:
        raise ScoreFnError(f"the model returned shape {tuple(output.shape)} for an input of shape {tuple(x0.shape)}.")
    loss = (output - target).square().flatten(1).mean(1)
    bad = ~torch.isfinite(loss)
    if bool(bad.any()):
        indices = bad.nonzero().flatten().tolist()
        raise NonFiniteError(
            f"the EDM loss is {loss[indices[0]].item()} at noise level rho = {rho_samples[indices[0]].item():.4g} "
            f"({len(indices)} of {batch} samples, first {indices[:5]}): check the data for NaN, lower the learning "
            "rate, or narrow `levels`.",
            stage="score",
            t=rho_samples[indices[0]].item(),
            indices=indices[:5],
        )
    return loss
