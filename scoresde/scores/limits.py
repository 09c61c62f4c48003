r"""Limits for the data estimate: score functions made from score functions.

Data that lie in a known range, as images, have estimates in that range; a network at high noise, or under strong
guidance, leaves it. Both wrappers limit :math:`\hat x` and keep :math:`x = \alpha\hat x + \sigma\hat\varepsilon`.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.support.checks import check_below, check_number, check_positive, check_tensor
from ..core.support.tensors import expand
from .base import with_data
from .wrapper import AffineSDE, Estimate, Node, Wrapper


class Limited(Wrapper):
    r"""A score function with limits on its data estimate, :math:`\hat x \leftarrow limit(\hat x)`.

    Subclasses give `limit`, such as a projection onto what the data may be.

    Args:
        score_fn: a `ScoreModel`, a target's score, or any score function.
        sde: the process, if the score function does not declare it.

    Example:
        >>> class InBall(Limited):
        ...     def limit(self, data):
        ...         return data / data.norm(dim=1, keepdim=True).clamp(min=1.0)
        >>> sde = scoresde.VPSDE()
        >>> wide = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(sde)
        >>> x = scoresde.solve(
        ...     sde, InBall(wide), method="ddim", steps=5, shape=(9, 2), seed=0, denoise=True
        ... ).x
        >>> bool((x.norm(dim=1) < 1 + 1e-5).all())
        True
    """

    def __init__(self, score_fn: Callable[..., Tensor], *, sde: AffineSDE | None = None) -> None:
        super().__init__((score_fn,), sde)

    @abc.abstractmethod
    def limit(self, data: Tensor) -> Tensor:
        """The data estimate, within its limits."""

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        """See `Score.estimate`."""
        given = self.ask(self.score_fns[0], x, node, context)
        return with_data(given, self.limit(given.data), x, node)


class Clip(Limited):
    r"""Clip the data estimate: :math:`\hat x \leftarrow \min(\max(\hat x, lo), hi)`.

    Args:
        score_fn: a `ScoreModel`, a target's score, or any score function.
        low, high: the range of the data.
        sde: the process, if the score function does not declare it.

    Example:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> model = scoresde.ScoreModel(
        ...     lambda x, t: 3 * torch.ones_like(x), sde, prediction="data"
        ... )
        >>> Clip(model).estimate(torch.zeros(1, 2), sde.node(0.5)).data
        tensor([[1., 1.]])

    References:
        Ho, Jain, Abbeel (2020), the released code. https://arxiv.org/abs/2006.11239
    """

    def __init__(
        self, score_fn: Callable[..., Tensor], low: float = -1.0, high: float = 1.0, *, sde: AffineSDE | None = None
    ) -> None:
        super().__init__(score_fn, sde=sde)
        self.low, self.high = check_number("low", low), check_number("high", high)
        check_below("low", self.low, "high", self.high)

    def limit(self, data: Tensor) -> Tensor:
        """See `Limited.limit`."""
        return data.clamp(self.low, self.high)


class DynamicThreshold(Limited):
    r"""Dynamic thresholding: each sample's data estimate is clipped at a quantile of its own, and scaled back.

    With s the larger of the bound and the quantile of :math:`|\hat x|` over a sample's elements,
    :math:`\hat x \leftarrow \min(\max(\hat x, -s), s)\,\cdot bound/s`.

    Args:
        score_fn: a `ScoreModel`, a target's score, or any score function.
        quantile: in (0, 1], 0.995 as published.
        bound: half the width of the data's range, which is symmetric.
        sde: the process, if the score function does not declare it.

    Example:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> model = scoresde.ScoreModel(
        ...     lambda x, t: torch.tensor([[4.0, 2.0]]), sde, prediction="data"
        ... )
        >>> DynamicThreshold(model, quantile=1.0).estimate(
        ...     torch.zeros(1, 2), sde.node(0.5)
        ... ).data
        tensor([[1.0000, 0.5000]])

    References:
        Saharia et al. (2022), Imagen, section 2.3. https://arxiv.org/abs/2205.11487
    """

    def __init__(
        self,
        score_fn: Callable[..., Tensor],
        quantile: float = 0.995,
        bound: float = 1.0,
        *,
        sde: AffineSDE | None = None,
    ) -> None:
        super().__init__(score_fn, sde=sde)
        self.quantile = check_positive("quantile", quantile, high=1.0)
        self.bound = check_number("bound", bound, low=0.0, strict=True)

    def limit(self, data: Tensor) -> Tensor:
        """See `Limited.limit`."""
        sizes = data.flatten(1).abs()
        scale = expand(_quantile(sizes.to(torch.float32), self.quantile).clamp_min(self.bound), data)
        return torch.minimum(torch.maximum(data, -scale), scale) * (self.bound / scale)


class GaussianAbove(Wrapper):
    r"""Where there is more noise than a level, the estimate of a Gaussian in place of the network's:
    :math:`\hat x = \mu + \frac{s^2}{s^2+\rho^2}(x/\alpha - \mu)` for :math:`\rho = \sigma/\alpha > level`.

    Far above the data it is nearly exact, whatever their distribution, and a network that was trained too little is
    not. The network is not evaluated there, if all samples have one time.

    Args:
        score_fn: a `ScoreModel`, a target's score, or any score function.
        level: the largest :math:`\rho` at which the network is used.
        mean, std: :math:`\mu`, of the data, ``event`` or a number, and s, their standard deviation, RMS over entries.
        sde: the process, if the score function does not declare it.

    Example:
        >>> import scoresde
        >>> model = scoresde.ScoreModel(
        ...     lambda x, t: 3 * torch.ones_like(x), scoresde.VPSDE(), prediction="data"
        ... )
        >>> good = GaussianAbove(model, 10.0, mean=0.5, std=1.0)
        >>> node = scoresde.VPSDE().node
        >>> [
        ...     round(float(good.estimate(torch.zeros(1, 2), node(t)).data[0, 0]), 2)
        ...     for t in (0.5, 1.0)
        ... ]
        [3.0, 0.5]

    References:
        Wang, Vastola (2024), The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models and
        its Applications. https://arxiv.org/abs/2412.09726
    """

    def __init__(
        self,
        score_fn: Callable[..., Tensor],
        level: float,
        mean: Tensor | float,
        std: float,
        *,
        sde: AffineSDE | None = None,
    ) -> None:
        super().__init__((score_fn,), sde=sde)
        self.level, self.std = (
            check_number(name, value, low=0.0, strict=True) for name, value in (("level", level), ("std", std))
        )
        self.mean = mean if isinstance(mean, Tensor) else check_number("mean", mean)
        if isinstance(mean, Tensor):
            check_tensor("mean", mean, finite=True)

    def estimate(self, x: Tensor, node: Node, **context: object) -> Estimate:
        """See `Score.estimate`."""
        above = torch.as_tensor(node.sigma > self.level * node.alpha)
        if not bool(above.any()):
            return self.ask(self.score_fns[0], x, node, context)
        alpha, sigma = expand(node.alpha, x), expand(node.sigma, x)
        mean = self.mean.to(x) if isinstance(self.mean, Tensor) else self.mean
        if isinstance(mean, Tensor) and mean.ndim and mean.shape != x.shape[1:]:
            raise InvalidArgumentError(f"`mean` has the shape {tuple(mean.shape)}, but events {tuple(x.shape[1:])}.")
        unit = (x - alpha * mean) / (self.std**2 * alpha**2 + sigma**2)
        simple = Estimate(mean + self.std**2 * alpha * unit, sigma * unit)
        if bool(above.all()):
            return simple
        own, above = self.ask(self.score_fns[0], x, node, context), expand(above, x).bool()
        return own._replace(**{k: torch.where(above, v, getattr(own, k)) for k, v in simple._asdict().items()})


def _quantile(rows: Tensor, share: float) -> Tensor:
    """The quantile of each row; `torch.quantile` takes no more than 16 million numbers."""
    size = rows.shape[1]
    if not size:
        return rows.new_zeros(len(rows))
    if size <= _MOST_SORTED:
        return torch.cat([torch.quantile(part, share, dim=1) for part in rows.split(_MOST_SORTED // size)])
    ordered, place = rows.sort(dim=1).values, share * (size - 1)
    low, high = ordered[:, math.floor(place)], ordered[:, math.ceil(place)]
    return low + (place - math.floor(place)) * (high - low)


_MOST_SORTED = 2**24
