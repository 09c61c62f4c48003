r"""Discrete chains: the lists of noise levels that NCSN and DDPM networks were trained on.

A chain converts to the affine process that it samples, :math:`x_t = \alpha_t x_0 + \sigma_t\varepsilon`, so that every
solver serves its networks. The conventions, for all chains:

- **Order.** The arrays of a chain run from the cleanest level to the noisiest, as time does.
- **Time.** Level i, i = 0 … N - 1, is at the time i. At these times :math:`\alpha` and :math:`\sigma` of `Chain.sde`
  are the chain's own; between them :math:`\ln(\alpha^2/\sigma^2)` is a monotone cubic of time.
- **Label.** What a network is told is an integer: its level's place in the list that the network was trained with. Off
  the chain it is that of the level nearest in log-SNR (`Chain.label`).
- **The last step**, from the cleanest level to the data, gives :math:`E[x_0|x]` in these samplers:
  ``solve(..., denoise=True)``. A grid of n levels so takes n evaluations: n - 1 steps and one to denoise.
- **Respacing.** A part of a chain keeps the times, labels, :math:`\alpha` and :math:`\sigma` of its levels.
"""

from __future__ import annotations

import abc
import copy
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ._tensors import MOST_LEVELS, check_choice, check_integer, check_integers, check_number, check_times
from .errors import InvalidArgumentError
from .ncsnv2 import best_step, largest_distance, ratio
from .sdes import VDMSDE, AffineSDE, GaussianSDE, NormalPrior, SigmoidVPSDE
from .sdes.base import as_time

__all__ = ["CHAINS", "SPACINGS", "BetaChain", "Chain", "NoiseScales"]

C = TypeVar("C", bound="Chain")


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


class Chain(abc.ABC):
    r"""A list of noise levels, and the affine process through them; see the module for its conventions.

    Attributes:
        times: float64 ``(n,)``, rising: where the levels are on the process's clock.
        labels: int64 ``(n,)``: what a network is told at them.
        log_snrs: float64 ``(n,)``, falling: :math:`\ln(\alpha^2/\sigma^2)` of the levels.

    Example:
        >>> chain = BetaChain.linear(1000)
        >>> part = chain.respace(5)
        >>> part.times.tolist(), bool((part.log_snrs == chain.log_snrs[part.labels]).all())
        ([0.0, 250.0, 500.0, 749.0, 999.0], True)
    """

    def __init__(self, name: str, log_snrs: Tensor, labels: Tensor) -> None:
        flat = ~(log_snrs.diff() < 0)
        if bool(flat.any()):
            raise InvalidArgumentError(
                f"`{name}` must make every level noisier than the one before; levels {int(flat.int().argmax())} and "
                f"{int(flat.int().argmax()) + 1} do not differ in float64."
            )
        self.times = torch.arange(len(log_snrs), dtype=torch.float64, device=log_snrs.device)
        self.labels = labels
        self.log_snrs = log_snrs
        self._all = (log_snrs, labels)  # of the chain that this is a part of
        self._curve = _MonotoneCurve(self.times, -log_snrs)
        self._nearest = _Nearest(log_snrs, labels)

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} levels, times {self.times[0]:g} to {self.times[-1]:g})"

    @abc.abstractmethod
    def sde(
        self, *, t_min: float | None = None, t_max: float | None = None, prior: NormalPrior | None = None
    ) -> AffineSDE:
        r"""The affine process that the chain samples.

        At the chain's times :math:`\alpha` and :math:`\sigma` are the chain's (to rounding). The processes of a chain
        and of its parts have the same schedule.

        Args:
            t_min, t_max: the interval, by default from the cleanest to the noisiest level of this chain.
            prior: the law at ``t_max``; default that of the class that is returned.
        """

    @abc.abstractmethod
    def scale(self, log_snr: Tensor) -> Tensor:
        r""":math:`\alpha` at a log-SNR: how the chain's networks expect the data to be scaled."""

    def label(self, log_snr: Tensor) -> Tensor:
        """The label of the level nearest in log-SNR, int64; of two as near, that of the cleaner one.

        Args:
            log_snr: a float or a tensor, 0-d or ``(batch,)``, as `AffineSDE.log_snr` gives it; beyond the ends of the
                chain the end is the nearest.

        Example:
            >>> chain = BetaChain.linear(1000)
            >>> chain.label(chain.sde().log_snr(torch.tensor([0.0, 400.2, 998.8]))).tolist()
            [0, 400, 999]
        """
        return self._nearest(as_time("log_snr", log_snr, -math.inf))

    def grid(self, n: int | Sequence[int] | Tensor | None = None, spacing: str = "trailing") -> Tensor:
        r"""Times of n levels, from noisy to clean, for ``solve(..., grid=chain.grid(n), denoise=True)``.

        Args:
            n: how many levels, 2 or more; or the places of the levels; None for all.
            spacing: how n levels are chosen: ``"trailing"`` :math:`\mathrm{round}(kN/n) - 1` (k = 1 … n),
                ``"leading"`` :math:`k\lfloor N/n\rfloor` (k = 0 … n - 1), ``"linspace"``
                :math:`\mathrm{round}(k(N-1)/(n-1))`; halves are rounded to the even integer.

        Returns:
            float64 ``(n,)``, falling.

        Raises:
            InvalidArgumentError: n is below 2 or above the number of levels, a place is not in the chain or comes
                twice, or the spacing is unknown.
            InvalidTypeError: n is no integer and no list of integers.

        Differs from:
            diffusers' ``DDIMScheduler``, whose steps go :math:`\lfloor N/n\rfloor` down from each label, whatever the
            next one is: with ``"linspace"`` it steps to other levels than it evaluates next. Published code, improved
            DDPM's too, breaks ties by the rounding errors of its quotients, so that at some n (21, 48, …; none of 10,
            20, 25, 50, 100, 200, 250) a few levels are one lower or higher there.

        Example:
            >>> chain = BetaChain.linear(1000)
            >>> chain.grid(4).tolist(), chain.grid(4, "leading").tolist()
            ([999.0, 749.0, 499.0, 249.0], [750.0, 500.0, 250.0, 0.0])

        References:
            Lin et al. (2023), Common Diffusion Noise Schedules and Sample Steps Are Flawed, table 2.
            https://arxiv.org/abs/2305.08891
        """
        return self.times[self._places(len(self) if n is None else n, spacing)].flip(0)

    def respace(self: C, n: int | Sequence[int] | Tensor, spacing: str = "linspace") -> C:
        r"""The chain of some of the levels, which keep their times, labels, :math:`\alpha` and :math:`\sigma`.

        Args:
            n: how many levels, 2 or more; or the places (0 … len - 1, cleanest first) of those to keep.
            spacing: as in `grid`; the default is improved DDPM's.

        Raises:
            InvalidArgumentError, InvalidTypeError: as in `grid`.

        Example:
            >>> BetaChain.linear(1000).respace(range(0, 1000, 20)).grid(2, "linspace").tolist()
            [980.0, 0.0]

        References:
            Nichol, Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models, section 4.
            https://arxiv.org/abs/2102.09672
        """
        places = self._places(n, spacing)
        part = copy.copy(self)
        part.times, part.labels, part.log_snrs = self.times[places], self.labels[places], self.log_snrs[places]
        part._nearest = _Nearest(part.log_snrs, part.labels)
        return part

    def to_config(self) -> dict[str, object]:
        """The chain as JSON values, of the levels that `respace` left out too; `from_config` reads them.

        Example:
            >>> part = NoiseScales([1.0, 0.5, 0.1]).respace([0, 2])
            >>> again = Chain.from_config(part.to_config())
            >>> torch.equal(again.log_snrs, part.log_snrs), again.labels.tolist(), again.to_config()["places"]
            (True, [2, 0], [0, 2])
        """
        log_snrs, labels = self._all
        places = self.times.to(torch.int64).tolist()
        return {
            "name": type(self).__name__,
            "log_snrs": log_snrs.tolist(),
            "labels": labels.tolist(),
            "places": None if len(places) == len(labels) else places,
        }

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Chain:
        """The chain that `to_config` described.

        Raises:
            InvalidArgumentError, InvalidTypeError: there is no such chain.
        """
        if not isinstance(config, Mapping) or set(config) != {"name", "log_snrs", "labels", "places"}:
            raise InvalidArgumentError("a chain must have name, log_snrs, labels and places.")
        check_choice("name", config["name"], CHAINS)
        log_snrs = check_times("log_snrs", config["log_snrs"], "numbers")
        if len(log_snrs) < 2 or not bool(torch.isfinite(log_snrs).all()):
            raise InvalidArgumentError("`log_snrs` must be two finite numbers or more.")
        if not isinstance(config["labels"], Sequence) or len(config["labels"]) != len(log_snrs):
            raise InvalidArgumentError("`labels` must be a list with one label a level.")
        labels = [check_integer("labels", label, low=0, high=_MOST_LABEL) for label in config["labels"]]
        chain = object.__new__(CHAINS[config["name"]])
        Chain.__init__(chain, "log_snrs", log_snrs, torch.tensor(labels, device="cpu"))
        return chain if config["places"] is None else chain.respace(config["places"])

    def _places(self, n: object, spacing: str) -> Tensor:
        """The places of the levels that are asked for, rising."""
        check_choice("spacing", spacing, SPACINGS)
        size = len(self)
        if (
            isinstance(n, Sequence | Tensor | np.ndarray)
            and not isinstance(n, str | bytes)
            and getattr(n, "ndim", True)
        ):
            places = sorted(check_integers("n", n, low=0, high=size - 1))
            twice = [a for a, b in itertools.pairwise(places) if a == b]
            if twice:
                raise InvalidArgumentError(f"`n` must name each level once, got {twice[0]} twice.")
            check_integer("len(n)", len(places), low=2, hint=_LEVELS)
            return torch.tensor(places, device="cpu")
        return SPACINGS[spacing](size, check_integer("n", n, low=2, high=size, hint=_LEVELS))

    def _ends(self, t_min: float | None, t_max: float | None) -> tuple[float, float]:
        low, high = float(self.times[0]), float(self.times[-1])
        hint = " (the chain's own times)"
        return (
            low if t_min is None else check_number("t_min", t_min, low=low, high=high, hint=hint),
            high if t_max is None else check_number("t_max", t_max, low=low, high=high, hint=hint),
        )


_LEVELS = (
    " (`n` is a number of levels or the list of their places; one level alone is solve(..., t_start=t, t_end=t, "
    "denoise=True))"
)


class BetaChain(Chain):
    r"""DDPM's chain, variance preserving: :math:`q(x_i|x_{i-1}) = N(\sqrt{1-\beta_i}\,x_{i-1}, \beta_i I)`.

    .. math:: \bar\alpha_i = \prod_{j\le i}(1-\beta_j), \qquad \alpha = \sqrt{\bar\alpha_i}, \qquad
              \sigma = \sqrt{1-\bar\alpha_i}.

    Labels are 0 … N - 1, as in the published code (the paper's t is the label plus 1), and the time is the label.

    Args:
        betas: N numbers in (0, 1), the first level's first; two or more.

    Attributes:
        betas: :math:`1-\bar\alpha_i/\bar\alpha_{i-1}` between the levels of this chain, with :math:`\bar\alpha_{-1} =
            1`.
        alphas_bar: :math:`\bar\alpha_i`.
        posterior_variances: :math:`\tilde\beta_i = \beta_i(1-\bar\alpha_{i-1})/(1-\bar\alpha_i)`, 0 at the first, where
            improved DDPM's code repeats the second; no sampler draws noise there.

    Raises:
        InvalidArgumentError: a beta is not in (0, 1), or there are fewer than two.
        InvalidTypeError: betas is no list of real numbers.

    Example:
        >>> chain = BetaChain.linear()
        >>> sde = chain.sde()
        >>> x = torch.randn(4, 2, dtype=torch.float64)
        >>> model = scoresde.ScoreModel(lambda x, i: x, sde, "noise", time_input="index", chain=chain)
        >>> scoresde.solve(
        ...     sde, model, x, method="ancestral", variance="large", grid=chain.grid(50), denoise=True
        ... ).evaluations
        50

    References:
        Ho, Jain, Abbeel (2020), Denoising Diffusion Probabilistic Models, section 2. https://arxiv.org/abs/2006.11239
        Nichol, Dhariwal (2021), eq. 19 (respacing). https://arxiv.org/abs/2102.09672
    """

    def __init__(self, betas: Sequence[float] | Tensor) -> None:
        values = _numbers("betas", betas, 1.0)
        log_alphas_bar = torch.log1p(-values).cumsum(0)
        log_snrs = log_alphas_bar - torch.log(-torch.expm1(log_alphas_bar))
        super().__init__("betas", log_snrs, torch.arange(len(values), device=values.device))

    @classmethod
    def linear(cls, n: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> BetaChain:
        r"""n values of :math:`\beta` evenly from ``beta_min`` to ``beta_max``.

        They belong to n = 1000; improved DDPM multiplies both by 1000/n for other n.

        Example:
            >>> round(float(BetaChain.linear().alphas_bar[-1]), 8)
            4.036e-05
        """
        n = check_integer("n", n, low=2, high=MOST_LEVELS)
        low = check_number("beta_min", beta_min, low=0.0, high=1.0, strict=True)
        high = check_number("beta_max", beta_max, low=0.0, high=1.0, strict=True)
        return cls(torch.linspace(low, high, n, dtype=torch.float64))

    @classmethod
    def cosine(cls, n: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> BetaChain:
        r"""Improved DDPM's: :math:`\beta_i = \min(1 - f_{i+1}/f_i,\ \beta_{max})` with :math:`f_i = \cos^2 a_i,\ a_i =
        \frac{i/n+s}{1+s}\frac{\pi}{2}`.

        It is computed as :math:`\sin(a_{i+1}-a_i)\sin(a_{i+1}+a_i)/\cos^2 a_i`, which loses no digits.

        Example:
            >>> round(float(BetaChain.cosine(1000).betas[0]), 7)
            4.13e-05

        References:
            Nichol, Dhariwal (2021), eq. 17. https://arxiv.org/abs/2102.09672
        """
        n = check_integer("n", n, low=2, high=MOST_LEVELS)
        s = check_number("s", s, low=0.0, strict=True)
        max_beta = check_number("max_beta", max_beta, low=0.0, high=1.0, strict=True)
        speed = 0.5 * math.pi / (1 + s) / n
        a = speed * (torch.arange(n, dtype=torch.float64) + n * s)
        betas = math.sin(speed) * torch.sin(2 * a + speed) / torch.cos(a) ** 2
        return cls(betas.clamp(max=max_beta))

    @classmethod
    def sigmoid(
        cls, n: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, max_beta: float = 0.999
    ) -> BetaChain:
        r"""Of the sigmoid schedule: :math:`\beta_i = \min(1 - \bar\alpha_{i+1}/\bar\alpha_i,\ \beta_{max})` with
        :math:`\bar\alpha_i = \alpha^2(i/n)` of `scoresde.SigmoidVPSDE`.

        Example:
            >>> round(float(BetaChain.sigmoid(1000).alphas_bar[499]), 12)
            0.5

        References:
            Jabri, Fleet, Chen (2022), algorithm 3. https://arxiv.org/abs/2212.11972
        """
        n = check_integer("n", n, low=2, high=MOST_LEVELS)
        max_beta = check_number("max_beta", max_beta, low=0.0, high=1.0, strict=True)
        return cls(SigmoidVPSDE(start, end, tau).betas(n).clamp(max=max_beta))

    @property
    def alphas_bar(self) -> Tensor:
        return torch.sigmoid(self.log_snrs)

    @property
    def betas(self) -> Tensor:
        log_alphas_bar = logsigmoid(self.log_snrs)
        return -torch.expm1(torch.cat([log_alphas_bar[:1], log_alphas_bar.diff()]))

    @property
    def posterior_variances(self) -> Tensor:
        log_rest = logsigmoid(-self.log_snrs)  # ln(1 - alpha_bar)
        return self.betas * torch.cat([log_rest.new_zeros(1), (-log_rest.diff()).exp()])

    def scale(self, log_snr: Tensor) -> Tensor:
        r""":math:`\alpha = \mathrm{sigmoid}(\mathrm{log\text{-}SNR})^{1/2}`."""
        return torch.sigmoid(log_snr).sqrt()

    def sde(
        self, *, t_min: float | None = None, t_max: float | None = None, prior: NormalPrior | None = None
    ) -> AffineSDE:
        r"""The variance preserving process through the levels, prior :math:`N(0, I)`; see `Chain.sde`.

        Example:
            >>> chain = BetaChain.linear()
            >>> sde = chain.sde()
            >>> bool((sde.alpha(chain.times) ** 2 - chain.alphas_bar).abs().max() < 1e-12)
            True
        """
        low, high = self._ends(t_min, t_max)
        return VDMSDE(self._curve, t_min=low, t_max=high, prior=prior)


class NoiseScales(Chain):
    r"""NCSN's noise levels, :math:`x_i = x_0 + \sigma_i\varepsilon`.

    A label is the place in the list that is given: with NCSN's own decreasing list, label 0 is the noisiest level and
    level i (from the cleanest) has the label N - 1 - i.

    Args:
        sigmas: positive numbers, strictly decreasing or increasing; two or more.

    Attributes:
        sigmas: the levels from the cleanest on.

    Raises:
        InvalidArgumentError: a sigma is not positive, they are not strictly monotone, or there are fewer than two.
        InvalidTypeError: sigmas is no list of real numbers.

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
        values = _numbers("sigmas", sigmas, math.inf)
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
        low = math.log(check_number("sigma_min", sigma_min, low=0.0, strict=True))
        high = math.log(check_number("sigma_max", sigma_max, low=0.0, strict=True))
        if not low < high:
            raise InvalidArgumentError(f"`sigma_min` must be below `sigma_max`, got {sigma_min} and {sigma_max}.")
        return cls(torch.linspace(high, low, n, dtype=torch.float64).exp())

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
        with a ratio near that of `scoresde.ncsnv2.ratio`.

        Args:
            data: ``(n, *event)``, events of 5 numbers or more.
            sigma_min: the cleanest level, below what can be seen in the data; the published 0.01 is for data in [0, 1].
            overlap: how much neighbouring levels overlap; the published lists have 0.566.
            sample, chunk, generator: of `scoresde.ncsnv2.largest_distance`.

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
        r"""NCSNv2's :math:`\epsilon` for `scoresde.solvers.AnnealedLangevin` with ``moves`` moves a level: the one that
        keeps the samples' variance nearest to the level's, by `scoresde.ncsnv2.best_step` for the largest ratio of
        neighbours.

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


CHAINS: dict[str, type[Chain]] = {"BetaChain": BetaChain, "NoiseScales": NoiseScales}
_MOST_LABEL = 1 << 31


def _sigma(curve: _MonotoneCurve, t: Tensor) -> Tensor:
    r""":math:`\sigma` where :math:`\alpha = 1`, from minus the log-SNR."""
    return (0.5 * curve(t)).exp()


def _numbers(name: str, values: object, high: float) -> Tensor:
    """A list of two or more numbers in (0, high), float64 ``(n,)``."""
    numbers = check_times(name, values, "numbers")
    if len(numbers) < 2:
        raise InvalidArgumentError(f"`{name}` must have two entries or more, got {len(numbers)}.")
    bad = ~((numbers > 0) & (numbers < high))
    if bool(bad.any()):
        i = int(bad.int().argmax())
        raise InvalidArgumentError(f"`{name}` must be in (0, {high:g}); entry {i} is {float(numbers[i]):.6g}.")
    return numbers


class _Tables:
    """Tensors that are copied to a device once."""

    def __init__(self, *tensors: Tensor) -> None:
        self._copies = {tensors[0].device: tensors}
        self._source = tensors

    def __reduce__(self) -> tuple[type[_Tables], tuple[Tensor, ...]]:
        return _Tables, self._source  # a copy starts without those on other devices

    def on(self, device: torch.device) -> tuple[Tensor, ...]:
        if device not in self._copies:
            self._copies[device] = tuple(t.to(device) for t in self._source)
        return self._copies[device]


class _Nearest:
    """From a log-SNR to the label of the nearest level."""

    def __init__(self, log_snrs: Tensor, labels: Tensor) -> None:
        self._tables = _Tables(-0.5 * (log_snrs[1:] + log_snrs[:-1]), labels)

    def __call__(self, log_snr: Tensor) -> Tensor:
        edges, labels = self._tables.on(log_snr.device)
        return labels[torch.bucketize(-log_snr.detach(), edges)]


class _MonotoneCurve:
    r"""A rising curve through points, cubic between them and straight beyond (PCHIP).

    On a cell of width h with secant d, end slopes :math:`m_0, m_1` and :math:`s = (t-t_0)/h`,

    .. math:: y = y_0 + (t-t_0)\,[m_0 + s\,(3d - 2m_0 - m_1 + s\,(m_0 + m_1 - 2d))].

    The slope at an inner point is a weighted harmonic mean of the secants beside it, which keeps the curve strictly
    rising; at an end it is that of the parabola through three points, kept within the secant's half and double.

    References:
        Fritsch, Butland (1984), A Method for Constructing Local Monotone Piecewise Cubic Interpolants.
    """

    def __init__(self, t: Tensor, y: Tensor) -> None:
        h = t.diff()
        d = y.diff() / h
        near, far = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
        inner = (near + far) / (near / d[:-1] + far / d[1:])
        first, last = (_end_slope(h[[i, j]], d[[i, j]]) if len(d) > 1 else d for i, j in ((0, 1), (-1, -2)))
        self._tables = _Tables(t, y, torch.cat([first, inner, last]))
        self._points, self._low, self._high = len(t), float(t[0]), float(t[-1])

    def __call__(self, t: Tensor) -> Tensor:
        points, values, slopes = self._tables.on(t.device)
        inside = t.clamp(self._low, self._high)
        k = torch.bucketize(inside.detach(), points[1:-1], right=True)
        h, m0, m1 = points[k + 1] - points[k], slopes[k], slopes[k + 1]
        d = (values[k + 1] - values[k]) / h
        u = inside - points[k]
        s = u / h
        cubic = values[k] + u * (m0 + s * (3 * d - 2 * m0 - m1 + s * (m0 + m1 - 2 * d)))
        return cubic + torch.where(t < self._low, slopes[0], slopes[-1]) * (t - inside)

    def __repr__(self) -> str:
        return f"a monotone curve through {self._points} levels"


def _end_slope(h: Tensor, d: Tensor) -> Tensor:
    """The slope at an end, ``(1,)``, from the widths and secants of the end cell and its neighbour."""
    parabola = d[:1] + h[:1] * (d[:1] - d[1:]) / (h[:1] + h[1:])
    return torch.minimum(torch.maximum(parabola, 0.5 * d[:1]), 2 * d[:1])
