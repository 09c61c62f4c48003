r"""Noise inside the cells of grey values.

A value v stands for a cell of x. For any density :math:`q(x|v)` on it,

.. math:: \ln P(v) = \ln\int_{cell} p(x)\,dx \ge E_{q(x|v)}\big[\ln p(x) - \ln q(x|v)\big],

with equality where :math:`q(x|v) \propto p(x)`. A dequantiser draws from q and gives :math:`\ln q`, the width of the
cell included.
"""

from __future__ import annotations

import math
from typing import Annotated, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..core.errors import InvalidArgumentError, NonFiniteError, ScoreFnError
from ..core.sdes import AffineSDE
from ..core.support.checks import MOST_WIDTH, check_number, form
from ..core.support.declared import checked, instance, integer
from ..core.support.tensors import row_finite
from .bits import EventShape, cell, float_dtype, grey_levels, uniform


@runtime_checkable
class Dequantizer(Protocol):
    """What `discrete_log_likelihood` requires of a dequantiser.

    Attributes:
        levels: L; values are 0 … L - 1.

    Example:
        >>> isinstance(UniformDequantizer(levels=17), Dequantizer)
        True
    """

    levels: int

    def sample(
        self, v: Tensor, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""x, shaped like v, ``(batch, *event)``, and :math:`\ln q(x|v)` in nats, float64 ``(batch,)``."""


class UniformDequantizer:
    r"""Uniform noise, that of `dequantize`: :math:`x = lo + w(v+u)`, :math:`\ln q = -D\ln w`.

    Args:
        levels: L.
        data_range: lo and hi; the cells are :math:`w = (hi-lo)/L` wide.

    Example:
        >>> x, log_q = UniformDequantizer(levels=256).sample(
        ...     torch.zeros(2, 3, dtype=torch.long)
        ... )
        >>> (log_q / 3 / math.log(2)).round(decimals=6)
        tensor([7., 7.], dtype=torch.float64)
    """

    def __init__(self, levels: int = 256, data_range: tuple[float, float] = (-1.0, 1.0)) -> None:
        self.low, self.width = cell(levels, data_range)
        self.levels = levels

    @checked
    def sample(
        self, v: Tensor, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Dequantizer`."""
        v = _events(v, self.levels)
        x = self.low + self.width * (v + uniform(v, generator))
        return x.to(float_dtype(dtype)), v.new_full((len(v),), -math.prod(v.shape[1:]) * math.log(self.width))


class TruncatedNormalDequantizer:
    r"""The noise of the process itself, cut at the cell: the state :math:`z = \alpha x_v + \sigma\varepsilon` at ``t``,
    with :math:`x_v` the middle of the cell and :math:`|\varepsilon| \le \tau = \alpha w/2\sigma`,

    .. math:: \ln q(z|v) = -\tfrac12|\varepsilon|^2 - \tfrac D2\ln 2\pi\sigma^2 - D\ln Z,\qquad Z = erf(\tau/\sqrt2).

    z lies in the cell times :math:`\alpha`, and P(v) is the model's probability of that cell at ``t``. The bound is
    looser than that of uniform noise where the density is even within cells: by 0.57 bits per dimension for
    :math:`\tau = 3`, by little for a small :math:`\tau`.

    Args:
        sde: an affine process.
        levels: L.
        data_range: lo and hi of x.
        t: the time of z, ``sde.t_min`` by default; give it to `discrete_log_likelihood` as ``t_start``, too.

    Example:
        >>> q = TruncatedNormalDequantizer(scoresde.VDMSDE())
        >>> round(q.tau, 2)
        3.02
        >>> # of a uniform density on [-1, 1]
        >>> bits = (math.log(2 * q.alpha) - q.entropy) / math.log(2)
        >>> round(bits, 3)
        8.569

    References:
        Zheng, Lu, Chen, Zhu (2023), Improved techniques for maximum likelihood estimation for diffusion ODEs.
        https://arxiv.org/abs/2305.03935
    """

    @checked
    def __init__(
        self,
        sde: AffineSDE,
        levels: int = 256,
        data_range: tuple[float, float] = (-1.0, 1.0),
        *,
        t: float | None = None,
    ) -> None:
        self.low, self.width = cell(levels, data_range)
        self.levels = levels
        node = sde.node(sde.t_min if t is None else check_number("t", t, low=sde.t_min, high=sde.t_max))
        self.alpha, self.sigma = float(node.alpha), float(node.sigma)
        if not self.sigma > 0.0 or not self.alpha > 0.0:
            raise InvalidArgumentError("`t` must be a time at which alpha and sigma are positive; take t_min above 0.")

    @property
    def tau(self) -> float:
        r""":math:`\tau`, where the normal is cut."""
        return 0.5 * self.alpha * self.width / self.sigma

    @property
    def _log_scale(self) -> float:
        return 0.5 * math.log(2 * math.pi) + math.log(self.sigma) + math.log(math.erf(self.tau / math.sqrt(2)))

    @property
    def entropy(self) -> float:
        r""":math:`-E\ln q` of one dimension, nats:

        .. math:: \tfrac12(1+\ln 2\pi\sigma^2) + \ln Z - \frac{\tau e^{-\tau^2/2}}{\sqrt{2\pi}\,Z}.
        """
        z = math.erf(self.tau / math.sqrt(2))
        cut = self.tau * math.exp(-0.5 * self.tau**2) / (math.sqrt(2 * math.pi) * z)
        return self._log_scale + 0.5 - cut

    @checked
    def sample(
        self, v: Tensor, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Dequantizer`."""
        v = _events(v, self.levels)
        z = math.erf(self.tau / math.sqrt(2))
        noise = math.sqrt(2) * torch.special.erfinv(z * (2 * uniform(v, generator) - 1)).clamp(
            -self.tau / math.sqrt(2), self.tau / math.sqrt(2)
        )
        x = self.alpha * (self.low + self.width * (v + 0.5)) + self.sigma * noise
        log_q = -0.5 * noise.square().flatten(1).sum(1) - math.prod(v.shape[1:]) * self._log_scale
        return x.to(float_dtype(dtype)), log_q


_Net = Annotated[nn.Module, instance(nn.Module, "a module (batch, *event) -> (batch, 2, *event)")]
_Width = Annotated[int, integer(low=1, high=MOST_WIDTH)]


class VariationalDequantizer(nn.Module):
    r"""Learned noise: :math:`x = lo + w(v+u)` with :math:`u = sigmoid(g)`, :math:`g = m + e^{l}\varepsilon`, and the
    mean m and log-scale l by a network of v,

    .. math:: \ln q(x|v) = \sum\Big[\ln N(\varepsilon; 0, 1) - l - \ln u(1-u)\Big] - D\ln w.

    It is trained by :math:`\max E[\ln p(x) - \ln q(x|v)]`. The gradient of :math:`\ln p` in x is the score, so that a
    step needs one evaluation of it and no likelihood. The bound holds for any parameters.

    Args:
        event_shape: the shape of v without the batch.
        levels: L.
        data_range: lo and hi.
        net: from the values on [-1, 1], ``(batch, *event)``, to m and l, ``(batch, 2, *event)``; by default two layers.
        hidden: the width of those.

    Example:
        >>> q = VariationalDequantizer((1, 8, 8), levels=17)
        >>> x, log_q = q.sample(torch.zeros(2, 1, 8, 8, dtype=torch.long))
        >>> x.shape, log_q.shape, log_q.requires_grad
        (torch.Size([2, 1, 8, 8]), torch.Size([2]), True)

    References:
        Ho, Chen, Srinivas, Duan, Abbeel (2019), Flow++, section 3.1. https://arxiv.org/abs/1902.00275
    """

    @checked
    def __init__(
        self,
        event_shape: EventShape,
        levels: int = 256,
        data_range: tuple[float, float] = (-1.0, 1.0),
        *,
        net: _Net | None = None,
        hidden: _Width = 64,
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        if not all(self.event_shape):
            raise InvalidArgumentError(f"`event_shape` must have a size of 1 or more, got {self.event_shape}.")
        self.low, self.width = cell(levels, data_range)
        self.levels = levels
        self.net = _layers(self.event_shape, hidden) if net is None else net

    @checked
    def sample(
        self, v: Tensor, *, generator: torch.Generator | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `Dequantizer`; both have gradients in the parameters."""
        v = _events(v, self.levels)
        if tuple(v.shape[1:]) != self.event_shape:
            raise InvalidArgumentError(f"`v` must have events of shape {self.event_shape}, got {tuple(v.shape[1:])}.")
        some = next(self.net.parameters(), v)
        out = self.net(((2 * v + 1) / self.levels - 1).to(some.dtype))
        if not isinstance(out, Tensor) or out.shape != (len(v), 2, *self.event_shape):
            wanted = (len(v), 2, *self.event_shape)
            raise ScoreFnError(f"`net` must return {wanted}, mean and log-scale, got {form(out)}.")
        if not bool(row_finite(out).all()):
            raise NonFiniteError("`net` of the dequantiser returned NaN or infinity.", stage="score")
        mean, log_scale = out.to(torch.float64).unbind(1)
        log_scale = log_scale.clamp(-7.0, 7.0)
        noise = torch.special.ndtri(uniform(v, generator).clamp_min(2**-60))
        g = mean + log_scale.exp() * noise
        inside = -nn.functional.logsigmoid(g) - nn.functional.logsigmoid(-g)
        log_q = -0.5 * (noise.square() + math.log(2 * math.pi)) - log_scale + inside
        x = self.low + self.width * (v + torch.sigmoid(g))
        return x.to(float_dtype(dtype)), log_q.flatten(1).sum(1) - math.prod(v.shape[1:]) * math.log(self.width)


def _layers(event: tuple[int, ...], hidden: int) -> nn.Module:
    size = math.prod(event)
    last = nn.Linear(hidden, 2 * size)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    with torch.no_grad():
        last.bias[size:] = 0.55  # nearly uniform: 0.01 nats per dimension from it
    return nn.Sequential(nn.Flatten(), nn.Linear(size, hidden), nn.SiLU(), last, nn.Unflatten(1, (2, *event)))


def _events(v: Tensor, levels: int) -> Tensor:
    """Checked values, float64."""
    v = grey_levels(v, levels)
    if v.ndim < 2 or not all(v.shape[1:]):
        raise InvalidArgumentError(
            f"`v` must be (batch, *event) with an event of rank 1 or more, got shape {tuple(v.shape)}."
        )
    return v.to(torch.float64)
