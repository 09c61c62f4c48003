"""NCSN's chain."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import AffineSDE, GaussianSDE, NormalPrior
from ..core.support.checks import MOST_LEVELS, check_below, check_integer, check_number
from .base import Chain, numbers_of
from .curve import MonotoneCurve
from .ncsnv2 import best_step, largest_distance, ratio


class NoiseScales(Chain):
    r"""NCSN's noise levels, :math:`x_i = x_0 + \sigma_i\varepsilon`.

    A label is the place in the list that is given: with NCSN's own decreasing list, label 0 is the noisiest level and
    level i (from the cleanest) has the label N - 1 - i.

    Args:
        sigmas: positive numbers, strictly decreasing or increasing; at least two.

    Attributes:
        sigmas: the levels from the cleanest on.

    Raises:
        InvalidArgumentError: a sigma is not positive, they are not strictly monotone, or there are fewer than two.
        InvalidTypeError: sigmas is not a list of real numbers.

    Example:
        >>> chain = NoiseScales([1.0, 0.5, 0.1])
        >>> [round(s, 12) for s in chain.sigmas.tolist()], chain.labels.tolist()
        ([0.1, 0.5, 1.0], [2, 1, 0])
        >>> round(float(chain.sde().sigma(1.0)), 12)
        0.5

    References:
        Song, Ermon (2019), Generative Modeling by Estimating Gradients of the Data Distribution.
        https://arxiv.org/abs/1907.05600
    """

    def __init__(self, sigmas: Sequence[float] | Tensor) -> None:
        values = numbers_of("sigmas", sigmas, math.inf)
        steps = values.diff()
        wrong = steps * torch.sign(values[-1] - values[0]) <= 0
        if bool(wrong.any()):
            i = int(wrong.int().argmax())
            raise InvalidArgumentError(
                f"`sigmas` must be strictly monotone; entries {i} and {i + 1} are {float(values[i]):.6g} and "
                f"{float(values[i + 1]):.6g}."
            )
        order = torch.argsort(values)
        super().__init__("sigmas", -2 * values[order].log(), order)

    @classmethod
    def geometric(cls, n: int = 10, sigma_min: float = 0.01, sigma_max: float = 1.0) -> NoiseScales:
        r"""n levels with a constant ratio, from ``sigma_max`` down to ``sigma_min``: NCSN's (label 0 is the noisiest).

        Example:
            >>> [round(s, 12) for s in NoiseScales.geometric(3).sigmas.tolist()]
            [0.01, 0.1, 1.0]
        """
        n = check_integer("n", n, low=2, high=MOST_LEVELS)
        low = check_number("sigma_min", sigma_min, low=0.0, strict=True)
        high = check_number("sigma_max", sigma_max, low=0.0, strict=True)
        check_below("sigma_min", low, "sigma_max", high)
        return cls(torch.linspace(math.log(high), math.log(low), n, dtype=torch.float64).exp())

    @classmethod
    def ncsnv2(
        cls,
        data: Tensor,
        sigma_min: float = 0.01,
        overlap: float = 0.5,
        *,
        sample: int | None = None,
        chunk: int = 1024,
        generator: torch.Generator | None = None,
    ) -> NoiseScales:
        r"""NCSNv2's levels for a data set: geometric, from the largest distance between two data down to ``sigma_min``,
        with a ratio near that of `scoresde.discrete.ncsnv2.ratio`.

        Args:
            data: ``(n, *event)``, events of at least 5 elements.
            sigma_min: the cleanest level, below what can be seen in the data; the published 0.01 is for data in [0, 1].
            overlap: how much neighbouring levels overlap; the published lists have 0.566.
            sample, chunk, generator: of `scoresde.discrete.ncsnv2.largest_distance`.

        Raises:
            InvalidArgumentError: sigma_min is not below the largest distance, or the data do not fit.
            NonFiniteError: the data have a value that is NaN or infinite.

        Example:
            >>> data = torch.rand(100, 3, 32, 32, generator=torch.Generator().manual_seed(0))
            >>> chain = NoiseScales.ncsnv2(data)
            >>> len(chain), round(float(chain.sigmas[-1]), 1)
            (200, 23.5)

        References:
            Song, Ermon (2020), Improved Techniques for Training Score-Based Generative Models, sections 3.1 and 3.2.
            https://arxiv.org/abs/2006.09011
        """
        low = check_number("sigma_min", sigma_min, low=1e-100)
        high = largest_distance(data, sample=sample, chunk=chunk, generator=generator)
        if not low < high:
            raise InvalidArgumentError(
                f"`sigma_min` must be below the largest distance between two data, {high:.4g}, got {sigma_min}."
            )
        wanted = ratio(data[0].numel(), overlap)
        return cls.geometric(1 + max(1, round(math.log(high / low) / math.log(wanted))), low, high)

    def langevin_step(self, moves: int = 5) -> float:
        r"""NCSNv2's :math:`\epsilon` for `scoresde.solvers.AnnealedLangevin` with ``moves`` moves per level: the one
        that keeps the samples' variance nearest to the level's, by `scoresde.discrete.ncsnv2.best_step` for the largest
        ratio of neighbours.

        Example:
            >>> chain = NoiseScales.geometric(232, 0.01, 50.0)
            >>> f"{chain.langevin_step(moves=5):.2g}"
            '6.2e-06'

        References:
            Song, Ermon (2020), section 3.4. https://arxiv.org/abs/2006.09011
        """
        widest = math.exp(-0.5 * float(self.log_snrs.diff().min()))
        return best_step(moves, widest) * float(self.sigmas[0]) ** 2

    @property
    def sigmas(self) -> Tensor:
        return (-0.5 * self.log_snrs).exp()

    def scale(self, log_snr: Tensor) -> Tensor:
        r""":math:`\alpha = 1`."""
        return torch.ones_like(log_snr)

    def sde(
        self, *, t_min: float | None = None, t_max: float | None = None, prior: NormalPrior | None = None
    ) -> AffineSDE:
        r"""The variance exploding process through the levels, prior :math:`N(0, \sigma(t_{max})^2 I)`; see `Chain.sde`.

        Example:
            >>> NoiseScales.geometric(10, 0.01, 50.0).sde().t_max
            9.0
        """
        low, high = self._ends(t_min, t_max)
        return GaussianSDE(torch.ones_like, functools.partial(_sigma, self._curve), low, high, prior=prior)


def _sigma(curve: MonotoneCurve, t: Tensor) -> Tensor:
    r""":math:`\sigma` where :math:`\alpha = 1`, from minus the log-SNR."""
    return (0.5 * curve(t)).exp()
