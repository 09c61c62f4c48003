r"""A learned noise schedule for `scoresde.VDMSDE`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.support.checks import check_below, check_number
from ..core.support.tensors import sigmoid
from .embeddings import check_sizes


def _positive(raw: Tensor) -> Tensor:
    """softplus, without the jump at 20 of torch's own."""
    return raw.clamp_min(0) + torch.log1p(torch.exp(-raw.abs()))


def _raw(positive: Tensor) -> Tensor:
    """The inverse of `_positive`."""
    return positive + torch.log(-torch.expm1(-positive))


class RisingCurve(nn.Module):
    r"""A rising function with u(0) = 0 and u(1) = 1: a line and smooth steps, normalised.

    .. math::
        u(t) = \frac{\tilde u(t) - \tilde u(0)}{\tilde u(1) - \tilde u(0)}, \qquad
        \tilde u(t) = w t + \frac1K\sum_{k=1}^K c_k\,\varsigma(s_k t + b_k), \qquad w, c_k, s_k > 0.

    Shapes:
        t: any; the result has its shape.

    Example:
        >>> RisingCurve(4)(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        [0.0, 1.0]
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        places, sharpness = torch.rand(2, steps, dtype=torch.float64)
        slopes = 2.0 * 32.0**sharpness
        self.line = nn.Parameter(_raw(torch.ones((), dtype=torch.float64)))
        self.heights = nn.Parameter(_raw(torch.ones(steps, dtype=torch.float64)))
        self.slopes = nn.Parameter(_raw(slopes))
        self.biases = nn.Parameter(-slopes * places)

    def _unscaled(self, t: Tensor) -> Tensor:
        steps = _positive(self.heights) * sigmoid(t[..., None] * _positive(self.slopes) + self.biases)
        return _positive(self.line) * t + steps.mean(-1)

    def forward(self, t: Tensor) -> Tensor:
        first, last = self._unscaled(torch.arange(2, dtype=self.line.dtype, device=self.line.device))
        return (self._unscaled(t) - first) / (last - first)


class MonotoneGamma(nn.Module):
    r"""VDM's learned :math:`\gamma(t)`, minus the log-SNR: :math:`\gamma = \gamma_0 + (\gamma_1-\gamma_0)\,u(t)`.

    The endpoints have parameters of their own, ``endpoints``, and the rising curve u with u(0) = 0 and u(1) = 1 has
    the others, ``interior.parameters()``. A continuous-time bound depends on the endpoints alone, so these follow the
    bound, and the interior may follow another aim, the variance of its estimate.

    Args:
        gamma_min, gamma_max: the endpoints at the start.
        hidden: K, the number of smooth steps in the curve. 0 leaves a line: VDM's ``learnable_scalar``.

    Differs from:
        the paper's network: the first linear layer is absorbed in the second (both are affine in t), and positive
        weights are softplus of parameters, not absolute values, so that none can pass through 0. Parameters are float64
        (``.float()`` makes them float32, with a log-SNR of six digits).

    Shapes:
        t: any, in [0, 1] between the endpoints; the result has its shape.

    Raises:
        InvalidArgumentError: gamma_min is not below gamma_max, or hidden is out of range.

    Example:
        >>> gamma = MonotoneGamma()
        >>> sde = scoresde.VDMSDE(gamma)
        >>> round(sde.log_snr(0.0).item(), 6), round(sde.log_snr(1.0).item(), 6)
        (13.3, -5.0)
        >>> (
        ...     sum(p.numel() for p in gamma.endpoints),
        ...     sum(p.numel() for p in gamma.interior.parameters()),
        ... )
        (2, 3073)

    References:
        Kingma et al. (2021), Variational Diffusion Models, appendices H and I.2. https://arxiv.org/abs/2107.00630
    """

    def __init__(self, gamma_min: float = -13.3, gamma_max: float = 5.0, hidden: int = 1024) -> None:
        super().__init__()
        low, high = check_number("gamma_min", gamma_min), check_number("gamma_max", gamma_max)
        check_below("gamma_min", low, "gamma_max", high)
        check_sizes(hidden=(hidden, 0, 65_536))
        self.arguments = {"gamma_min": low, "gamma_max": high, "hidden": hidden}
        self.gamma_0 = nn.Parameter(torch.tensor(low, dtype=torch.float64))
        self.width = nn.Parameter(_raw(torch.tensor(high - low, dtype=torch.float64)))
        self.interior = RisingCurve(hidden) if hidden else nn.Identity()

    @property
    def gamma_1(self) -> Tensor:
        r""":math:`\gamma(1)`."""
        return self.gamma_0 + _positive(self.width)

    @property
    def endpoints(self) -> list[nn.Parameter]:
        """The parameters of the endpoints."""
        return [self.gamma_0, self.width]

    def forward(self, t: Tensor) -> Tensor:
        return self.gamma_0 + _positive(self.width) * self.interior(t)
