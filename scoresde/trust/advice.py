r"""Advice before a score network is trained: noise levels and a process that fit the data, from the data alone.

A process adds noise from a level :math:`\rho = \sigma/\alpha` that hides nothing of the data to one that hides
everything. Both ends leave an error that no network and no solver can remove, and both follow from moments of the data.

**The noise end.** The states at ``t_max`` have the distribution :math:`p_T` of :math:`\alpha x_0+\sigma\varepsilon`,
and sampling starts from the prior. With x and x' two independent data, measured from the prior's mean over
:math:`\alpha`,

.. math::
    \chi^2(p_T\,\|\,N(\alpha m, \sigma^2I)) = E\,e^{\langle x, x'\rangle/\rho^2} - 1 \approx
        \frac{\|E x\|^2}{\rho^2} + \frac{\mathrm{tr}\,M^2}{2\rho^4}, \qquad M = E\,xx^T, \qquad
    TV \le \tfrac12\sqrt{\chi^2}.

The mean dominates where it is not 0, so that a prior with the mean of the data may start at far less noise. For a prior
:math:`N(m_\pi, s^2I)` with another scale, with :math:`r = \sigma^2/s^2 < 2` and :math:`a = \alpha x_0 - m_\pi`,

.. math::
    \chi^2 + 1 = (r(2-r))^{-D/2}\,E\exp\frac{2\langle a, a'\rangle - (1-r)(\|a\|^2 + \|a'\|^2)}{2\sigma^2(2-r)} .

The expectation is estimated by the mean over pairs of different rows, a U-statistic, which has no bias. About the mean
of the same rows, products would be too small by :math:`\mathrm{tr}\,S/n`, with S the covariance matrix; they are
therefore U-centred, which makes the estimate of :math:`\mathrm{tr}\,S^2` unbiased. A prior with the mean of n rows in
place of that of their distribution adds :math:`\mathrm{tr}\,S/n\rho^2`. This is the floor that n rows set.

**The data end.** Samples at ``t_min`` keep the noise of that time; per element and with :math:`x_0` coupled to
:math:`\alpha x_0 + \sigma\varepsilon`,

.. math:: W_2(p_{t_{min}}, p_0)/\sqrt D \le \sqrt{(1-\alpha)^2 E\|x_0\|^2/D + \sigma^2} .

It does no harm below the resolution of the data: rounding to steps of h is noise with the standard deviation
:math:`h/\sqrt{12}`.

References:
    Ingster, Suslina (2003), Nonparametric Goodness-of-Fit Testing under Gaussian Models (chi-square of mixtures).
    Székely, Rizzo (2014), Partial distance correlation with methods for dissimilarities, section 2 (U-centring).
    https://arxiv.org/abs/1310.2926
    Song, Ermon (2020), Improved Techniques for Training Score-Based Generative Models.
    https://arxiv.org/abs/2006.09011
    Karras, Aittala, Aila, Laine (2022), Elucidating the Design Space of Diffusion-Based Generative Models, table 1.
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, check_choice
from ..core.noise.philox import fold
from ..core.noise.sources import check_seed
from ..core.sdes import EDMSDE, VDMSDE, VESDE, VPSDE, AffineSDE, LinearGamma, NormalPrior, ShiftedGamma
from ..core.sdes.base import check_sde
from ..core.support import display as _display
from ..core.support.checks import (
    check_flag,
    check_interval,
    check_number,
    check_positive,
    check_tensor,
    named,
    refuse_rows,
)
from ..core.support.tensors import row_finite
from ..discrete.ncsnv2 import largest_distance, ratio
from ..losses import NoiseLevels
from ..tuning.energy import PairMean, mean_of_pairs

_ROWS, _PRODUCTS, _FEWEST_ROWS = 2048, 2**34, 64  # rows that are compared in pairs, and the multiplications it may take
_BLOCK = 2**22  # numbers that are read at once
_LEVELS = (16, 65_536)  # the fewest and the most values of a lattice that shows the resolution of the data
_LARGEST = 1e100  # its square is a float
_LEAST_TV = 1e-9
_ERRORS = 1.96  # standard errors, of an interval of 95 %
_SLACK = 1e-6  # relative, of ends that are compared
_BETA_MIN = 0.1
_STREAM = 0xAD71  # of the draws, which must not be those of data that have the same seed
_HEAD, _WIDTHS = ("", "value", "rule", "source"), (16, 24, 34, 23)  # of the table
_STEPS = {
    "given": ("resolution / sqrt(12)", "variance of rounding"),
    "lattice": ("step / sqrt(12), step detected", "variance of rounding"),
    "data_range": ("step / sqrt(12), 8 bits in range", "variance of rounding"),
    "none": ("0.002 sigma_data / 0.5, no step", "Karras 2022, table 1"),
}


@dataclass(frozen=True, repr=False)
class HarmlessEnd(_display.Displayed):
    r"""The least noise at which sampling may start from a normal prior, and the schedules that reach it.

    Attributes:
        rho: the least :math:`\rho = \sigma/\alpha` at ``t_max`` with :math:`\chi^2 \le 4\,tv^2`, by the U-statistic.
        low, high: its interval of 95 %, by the jackknife, which is too short for fewer than 20 rows. At ``high``,
            :math:`\chi^2` plus 1.96 standard errors is :math:`4\,tv^2`. The properties belong to ``high``, so that they
            err towards more noise. Where no two rows have a positive product, ``rho`` and ``high`` follow from the
            largest norm, :math:`\rho^2 = \max\|x\|^2/\ln(1+4\,tv^2)`, and ``low`` is 0.
        closed: the closed approximation, :math:`\max(\sqrt2\|m\|/\chi,\ (\mathrm{tr}\,M^2/\chi^2)^{1/4})`, which halves
            :math:`\chi^2` between its two terms and is therefore larger by up to a factor :math:`\sqrt2`.
        floor: :math:`\mathrm{tr}\,S/n\rho^2`, the :math:`\chi^2` that a mean of n rows leaves at ``rho``. With the mean
            of the data as the prior's it is a part of the :math:`\chi^2` above.

    Example:
        >>> end = HarmlessEnd(rho=100.0, low=90.0, high=110.0, closed=140.0, floor=0.0)
        >>> round(end.alpha, 6), round(end.beta_max, 3), round(end.gamma_max, 3)
        (0.009091, 18.702, 9.401)
        >>> round(float(scoresde.VPSDE(0.1, end.beta_max).alpha(1.0)), 6)
        0.009091
    """

    rho: float
    low: float
    high: float
    closed: float
    floor: float

    @property
    def alpha(self) -> float:
        r"""The largest :math:`\alpha(t_{max}) = 1/\sqrt{1+\rho^2}` of a variance preserving process."""
        return 1 / math.hypot(1.0, self.high)

    @property
    def beta_max(self) -> float:
        r"""Of `scoresde.VPSDE` with ``beta_min=0.1`` and ``t_max=1``:
        :math:`\ln(1+\rho^2) = \tfrac12(\beta_{min}+\beta_{max})`; not less than ``beta_min``."""
        return max(_BETA_MIN, -4 * math.log(self.alpha) - _BETA_MIN)

    @property
    def beta_d(self) -> float:
        r""":math:`\beta_{max}-\beta_{min}`, EDM's name for it."""
        return self.beta_max - _BETA_MIN

    @property
    def gamma_max(self) -> float:
        r"""Of `scoresde.LinearGamma`: :math:`2\ln\rho`, minus the least log-SNR."""
        return 2 * math.log(self.high)

    def _summary(self) -> dict[str, str]:
        return {
            "rho": f"{self.rho:.4g} ({self.low:.4g} to {self.high:.4g})",
            "closed": f"{self.closed:.4g}",
            "floor": f"{self.floor:.2g}",
        }


@dataclass(frozen=True, repr=False)
class ProcessEnds(_display.Displayed):
    r"""What the two ends of a process do to data.

    Attributes:
        rho_min, rho_max: :math:`\sigma/\alpha` at ``t_min`` and at ``t_max``.
        chi2: :math:`\chi^2` of the states at ``t_max`` against the prior of the process, with its mean and its scale;
            infinite where :math:`\sigma^2 \ge 2s^2`. The estimate may be negative where it is smaller than its error.
        error: its standard error (jackknife).
        tv: the bound :math:`\min(1, \tfrac12\sqrt{\chi^2})` of the total variation distance.
        w2: the bound of the 2-Wasserstein distance of the states at ``t_min`` to the data, per root of the dimension.
        t_min: the time at which :math:`\sigma/\alpha` is the advised ``sigma_min``; None where the process has more
            noise at all times.
        noise_harmless: whether ``tv`` is at most the one wanted.
        data_harmless: whether ``w2`` is at most the advised ``sigma_min``. Where it is not, a last step to the data
            (``denoise=True``) removes most of the noise.

    Example:
        >>> data = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
        >>> ends = advise(data, sde=scoresde.VPSDE()).ends
        >>> ends.noise_harmless, ends.data_harmless
        (True, False)
    """

    rho_min: float
    rho_max: float
    chi2: float
    error: float
    tv: float
    w2: float
    t_min: float | None
    noise_harmless: bool
    data_harmless: bool

    def _summary(self) -> dict[str, str]:
        return {
            "chi2": f"{self.chi2:.2g} ± {self.error:.1g}",
            "tv": f"{self.tv:.2g} ({_harm(self.noise_harmless)})",
            "w2": f"{self.w2:.2g} ({_harm(self.data_harmless)})",
            "t_min": "none" if self.t_min is None else f"{self.t_min:.4g}",
        }


@dataclass(frozen=True, eq=False, repr=False)
class Advice(_display.Displayed):
    r"""The result of `advise`; ``print`` shows it as a table with the rule and the source of each value.

    Attributes:
        n, event_shape: of the data.
        rows: how many rows the products of pairs were computed for.
        tv: the total variation distance at the noise end that is accepted.
        mean: of the data, float64 ``event_shape``.
        mean_matters: whether the noise end needs more noise for a prior at 0 than for one with the mean of the data,
            beyond the error of both.
        sigma_data: RMS per element about ``mean``, the argument of EDM's preconditioning.
        sigma_min: the least level of noise, by the resolution of the data.
        step: the distance of neighbouring values of the data, None if it is not known.
        origin: ``"given"``, ``"lattice"`` (detected), ``"data_range"`` or ``"none"``: where ``step`` comes from.
        sigma_max: the largest level of VE processes, the largest distance between two rows.
        ratio: NCSNv2's ratio of neighbouring levels; None for events of fewer than 5 elements, where it does not exist.
        centred, uncentred: the `HarmlessEnd` for a prior with the mean of the data, and for a prior at 0.
        repeated: the share of ``rows`` that are equal to another one. Such pairs are taken for independent data: if
            they are copies, remove them, for they make :math:`\chi^2` too large.
        ends: the `ProcessEnds` of the process that was given, or None.

    Example:
        >>> data = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
        >>> advice = advise(data)
        >>> sde = advice.sde("vp")
        >>> advise(data, sde=sde).ends.noise_harmless, len(advice.mean)
        (True, 8)
        >>> (
        ...     advice.table().splitlines()[0].split(),
        ...     max(map(len, str(advice).splitlines())) <= 100,
        ... )
        (['value', 'rule', 'source'], True)
    """

    n: int
    event_shape: tuple[int, ...]
    rows: int
    tv: float
    mean: Tensor
    mean_matters: bool
    sigma_data: float
    sigma_min: float
    step: float | None
    origin: str
    sigma_max: float
    ratio: float | None
    centred: HarmlessEnd
    uncentred: HarmlessEnd
    repeated: float
    ends: ProcessEnds | None = None

    @property
    def p_mean(self) -> float:
        r"""EDM's :math:`P_{mean} = -1.2 + \ln 2\sigma_{data}`, which is -1.2 at EDM's 0.5."""
        return -1.2 + math.log(2 * self.sigma_data)

    @property
    def p_std(self) -> float:
        r"""EDM's :math:`P_{std}`, 1.2."""
        return 1.2

    @property
    def noise_levels(self) -> NoiseLevels:
        """The distribution of noise levels with ``p_mean`` and ``p_std``, for ``levels=`` of `scoresde.losses.edm`."""
        return NoiseLevels(self.p_mean, self.p_std)

    @property
    def gamma_min(self) -> float:
        r"""Of `scoresde.LinearGamma`: :math:`2\ln\sigma_{min}`, minus the largest log-SNR."""
        return 2 * math.log(self.sigma_min)

    @property
    def levels(self) -> int | None:
        """How many levels of NCSNv2's ``ratio`` there are from ``sigma_min`` to ``sigma_max``, for
        `scoresde.discrete.NoiseScales.geometric`; None without a ratio."""
        if self.ratio is None:
            return None
        return 1 + max(1, round(math.log(self.sigma_max / self.sigma_min) / math.log(self.ratio)))

    def prior(self, sde: AffineSDE, *, centred: bool = True) -> NormalPrior:
        r"""The normal prior with the mean and the variance per element of the data's states at ``t_max``:

        .. math:: N(\alpha m,\ (\sigma^2 + \alpha^2\sigma_{data}^2)\,I), \qquad \alpha, \sigma \text{ at } t_{max}.

        Of all :math:`N(\cdot, s^2I)` it has the least Kullback-Leibler divergence from these states.

        Args:
            sde: the process.
            centred: False for a mean of 0; the variance is then about 0.

        Example:
            >>> data = 3 + 0.1 * torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
            >>> prior = advise(data).prior(scoresde.VPSDE())
            >>> round(float(prior.mean / scoresde.VPSDE().alpha(1.0)), 1), round(prior.std, 3)
            (3.0, 1.0)
        """
        check_sde(sde, affine=True)
        check_flag("centred", centred)
        node = sde.node(sde.t_max)
        return self._prior(node.alpha, node.sigma, centred)

    def _prior(self, alpha: float, sigma: float, centred: bool) -> NormalPrior:
        square = self.sigma_data**2 + (0.0 if centred else float(self.mean.square().mean()))
        return NormalPrior(math.hypot(sigma, alpha * math.sqrt(square)), alpha * self.mean if centred else 0.0)

    def sde(self, kind: str = "vp", *, centred: bool = True) -> AffineSDE:
        r"""A process with harmless ends, and with `prior`.

        Args:
            kind: ``"vp"``, ``"ve"``, ``"edm"`` or ``"vdm"``. The levels of ``"ve"`` and ``"edm"`` end at the larger one
                of ``sigma_max`` and the harmless end.
            centred: False for a prior at 0, which needs more noise where ``mean_matters``.

        Example:
            >>> data = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
            >>> [type(advise(data).sde(kind)).__name__ for kind in ("vp", "ve", "edm", "vdm")]
            ['VPSDE', 'VESDE', 'EDMSDE', 'VDMSDE']
        """
        check_choice("kind", kind, ("vp", "ve", "edm", "vdm"))
        check_flag("centred", centred)
        end = self.centred if centred else self.uncentred
        if kind in ("ve", "edm"):
            top = max(self.sigma_max, end.high)
            exploding = VESDE if kind == "ve" else EDMSDE
            return exploding(self.sigma_min, top, prior=self._prior(1.0, top, centred))
        if kind == "vdm":
            prior = self._prior(end.alpha, end.alpha * end.high, centred)
            return VDMSDE(LinearGamma(self.gamma_min, end.gamma_max), prior=prior)
        whole = VPSDE(_BETA_MIN, end.beta_max)
        t_min = float(whole.time(-self.gamma_min))
        return VPSDE(_BETA_MIN, end.beta_max, t_min=t_min, prior=self.prior(whole, centred=centred))

    def table(self) -> str:
        """The values, each with its rule and its source, as text of at most 100 columns."""
        lines = []
        for row in (_HEAD, *_rows_of(self)):
            cells = [textwrap.wrap(cell, width) for cell, width in zip(row, _WIDTHS, strict=True)]
            for texts in zip_longest(*cells, fillvalue=""):
                lines.append(" ".join(map(str.ljust, texts, _WIDTHS)).rstrip())
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return _display.table(type(self).__name__, _HEAD, _rows_of(self))

    def _summary(self) -> dict[str, str]:
        return {
            "n": f"{self.n}",
            **{name: f"{getattr(self, name):.4g}" for name in ("sigma_data", "sigma_min", "sigma_max")},
            "centred": f"{self.centred.rho:.4g}",
            "uncentred": f"{self.uncentred.rho:.4g}",
        }


def advise(
    data: Tensor | np.ndarray,
    *,
    sde: AffineSDE | None = None,
    data_range: tuple[float, float] | None = None,
    resolution: float | None = None,
    tv: float = 0.01,
    seed: int = 0,
) -> Advice:
    r"""Noise levels and processes that fit a data set, and whether a given process does; see the module for the theory.

    Means are those of all rows, which are read in blocks three times, in float64; a NumPy array may be a memory map.
    Products of pairs are those of at most 2,048 rows drawn without replacement (fewer where events have more than 4,096
    elements: 295 for 3 × 256 × 256), and the intervals account for it. The largest distance is exact for as many rows.
    Of more, it is that of the rows farthest from the mean and of those farthest from the first of them, half of each:
    a lower bound, nearly always the distance itself.

    Args:
        data: ``(n, *event)``, 4 rows or more of floating-point numbers as the network will receive them.
        sde: a process with a `scoresde.NormalPrior`, whose two ends are to be judged.
        data_range: (low, high), the values of black and white of data with 8 bits. It gives the step (high - low)/255
            of data that are not on a lattice, such as dequantised ones; values beyond it by more than a step are
            refused.
        resolution: the step of neighbouring values of the data. Without it, the step is detected if the values are on
            one lattice, of 16 to 65,536 places, with a step below ``sigma_data``; binary data and channels with
            scales of their own are not. Without any step, ``sigma_min`` is EDM's 0.002 for :math:`\sigma_{data} = 0.5`,
            in proportion.
        tv: the total variation distance between prior and states at ``t_max`` that is accepted, in (0, 1).
        seed: of the choice of rows.

    Returns:
        An `Advice`.

    Raises:
        InvalidTypeError: the data are not floating-point numbers, or another argument has a wrong type.
        InvalidArgumentError: there are fewer than 4 rows, all of them are equal, or another argument does not fit.
        NonFiniteError: a row has a value that is NaN or infinite.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> data = 2 + 0.5 * torch.randn(1000, 3, generator=generator, dtype=torch.float64)
        >>> advice = advise(data, sde=scoresde.VPSDE())
        >>> advice.mean_matters, round(advice.sigma_data, 1), round(advice.p_mean, 1)
        (True, 0.5, -1.2)
        >>> s = 1 / advice.centred.rho**2  # chi-square of this normal distribution
        >>> chi2 = (1 - (0.25 * s) ** 2) ** -1.5 - 1 + advice.centred.floor
        >>> abs(chi2 / 4e-4 - 1) < 0.2
        True
        >>> advice.ends.noise_harmless, advice.uncentred.rho > 10 * advice.centred.rho
        (False, True)

    References:
        Song, Ermon (2020), section 3.1. https://arxiv.org/abs/2006.09011
        Karras et al. (2022), table 1. https://arxiv.org/abs/2206.00364
    """
    rows = _Rows(data)
    if sde is not None:
        check_sde(sde, affine=True)
    limits = None if data_range is None else check_interval("data_range", data_range)
    step = None if resolution is None else check_positive("resolution", resolution, high=_LARGEST)
    tv = check_number("tv", tv, low=_LEAST_TV, high=1.0, strict=True)
    generator = torch.Generator().manual_seed(fold(check_seed("seed", seed), _STREAM))
    with torch.no_grad():
        mean = rows.mean(limits)
        squares = rows.squares(mean)
        sigma_data = math.sqrt(float(squares.mean()) / rows.size)
        if not sigma_data > 1e-12 * float(mean.abs().max()) + 1 / _LARGEST:
            raise InvalidArgumentError(f"`data` must have different rows, but all {rows.n} are the same.")
        count = min(rows.n, _ROWS, max(_FEWEST_ROWS, math.isqrt(_PRODUCTS // rows.size)))
        chosen = torch.randperm(rows.n, generator=generator)[:count].sort().values
        some = rows.take(chosen)

        origin = "given"
        if step is None:
            step, origin = _lattice(some, rows.eps), "lattice"
            if step is None or step >= sigma_data:
                step, origin = (None, "none") if limits is None else ((limits[1] - limits[0]) / 255, "data_range")
        sigma_min = 0.002 * sigma_data / 0.5 if step is None else step / math.sqrt(12)
        sigma_max = largest_distance(rows.take(rows.far(squares, count)))
        if not sigma_min < sigma_max:
            raise InvalidArgumentError(
                f"`{'resolution' if origin == 'given' else origin}` must give a step below "
                f"{math.sqrt(12) * sigma_max:.4g}, sqrt(12) times the largest distance between two rows, got {step}."
            )

        some = some - mean
        miss = PairMean(float(squares.mean()) / (rows.n - 1), float(squares.std()) / rows.n**1.5)
        pairs = _Pairs(some @ some.T, some, mean, math.sqrt(float(squares.max())), miss)
        centred, uncentred = (_harmless_end(pairs, own, 4 * tv**2) for own in (True, False))
        ends = None
        if sde is not None:
            ends = _process_ends(sde, pairs, rows.event_shape, sigma_data, sigma_min, tv)
    return Advice(
        n=rows.n,
        event_shape=rows.event_shape,
        rows=count,
        tv=tv,
        mean=mean.reshape(rows.event_shape),
        mean_matters=uncentred.low > centred.high,
        sigma_data=sigma_data,
        sigma_min=sigma_min,
        step=step,
        origin=origin,
        sigma_max=sigma_max,
        ratio=ratio(rows.size) if rows.size >= 5 else None,
        centred=centred,
        uncentred=uncentred,
        repeated=pairs.repeated(),
        ends=ends,
    )


@overload
def shifted(level: float, resolution: float, reference: float) -> float: ...


@overload
def shifted(level: Tensor, resolution: float, reference: float) -> Tensor: ...


@overload
def shifted(level: AffineSDE, resolution: float, reference: float) -> VDMSDE: ...


def shifted(level: float | Tensor | AffineSDE, resolution: float, reference: float) -> float | Tensor | VDMSDE:
    r"""The noise levels of images of one resolution, for another one: :math:`\lambda - \ln(r/r_0)`,
    :math:`\lambda = \ln(\alpha/\sigma)`.

    Where an image is enlarged, the mean of the :math:`(r/r_0)^2` elements in place of one has a noise that is smaller
    by :math:`r/r_0`, so that as much of it is hidden by noise that is larger by that factor. For flows
    (:math:`\alpha = 1-t`, :math:`\sigma = t`) this is :math:`t' = st/(1+(s-1)t)` with :math:`s = r/r_0`.

    Args:
        level: :math:`\lambda`, a number or a tensor; or a process, of which the variance preserving process with the
            shifted levels at all of its times is returned.
        resolution: r, pixels per side.
        reference: :math:`r_0`, those at which the levels are known to be good.

    Raises:
        InvalidArgumentError: a resolution is not positive, or the log-SNR of the process is infinite at an end.

    Example:
        >>> round(shifted(2.0, 256, 64), 6) == round(2.0 - math.log(4), 6)
        True
        >>> sde = scoresde.CosineVPSDE()
        >>> round(float(sde.log_snr(0.5) - shifted(sde, 128, 64).log_snr(0.5)), 6)
        1.386294

    References:
        Hoogeboom, Heek, Salimans (2023), Simple Diffusion, section 3.1. https://arxiv.org/abs/2301.11093
        Esser et al. (2024), Scaling Rectified Flow Transformers, eq. 23. https://arxiv.org/abs/2403.03206
    """
    sides = [check_positive(*pair, high=_LARGEST) for pair in (("resolution", resolution), ("reference", reference))]
    shift = math.log(sides[0]) - math.log(sides[1])
    if not isinstance(level, AffineSDE):
        if isinstance(level, Tensor):
            return check_tensor("level", level) - shift
        return check_number("level", level) - shift
    ends = level.log_snr(torch.tensor([level.t_min, level.t_max], dtype=torch.float64))
    if not bool(ends.isfinite().all()):
        raise InvalidArgumentError(
            f"`level`: the log-SNR of the process must be finite at both ends, got {ends.tolist()}; take t_min and "
            "t_max inside."
        )
    return VDMSDE(ShiftedGamma(level, 2 * shift), t_min=level.t_min, t_max=level.t_max)


class _Rows:
    """The rows of the data, given out as float64 ``(rows, D)``; nothing of the size of the data is made."""

    def __init__(self, data: object) -> None:
        if not isinstance(data, Tensor | np.ndarray):
            raise InvalidTypeError(f"`data` must be a tensor or an array (n, *event), got {named(data)}.")
        if isinstance(data, Tensor):
            floating = data.dtype.is_floating_point and data.dtype.itemsize > 1
        else:
            floating = data.dtype.kind == "f" and data.dtype.itemsize <= 8
        if not floating:
            raise InvalidTypeError(
                f"`data` must be floating-point numbers as the network will receive them, got {data.dtype}; for "
                "images of 8 bits write data / 127.5 - 1."
            )
        if data.ndim < 2 or 0 in data.shape:
            raise InvalidArgumentError(
                f"`data` must be (n, *event) with an event of one element or more, got shape {tuple(data.shape)}; "
                "scalars are events of shape (1,): try data.reshape(-1, 1)."
            )
        if len(data) < 4:
            raise InvalidArgumentError(f"`data` must have at least 4 rows, got {len(data)}.")
        self.data = data.detach() if isinstance(data, Tensor) else data
        self.n, self.event_shape = len(data), tuple(data.shape[1:])
        self.size = math.prod(self.event_shape)
        own = torch.finfo(data.dtype).eps if isinstance(data, Tensor) else float(np.finfo(data.dtype).eps)
        self.eps = max(own, torch.finfo(torch.float32).eps)  # float64 data were often computed in float32

    def take(self, which: Tensor | slice) -> Tensor:
        if isinstance(self.data, Tensor):
            piece = self.data[which.to(self.data.device) if isinstance(which, Tensor) else which]
        else:
            index = which.cpu().numpy() if isinstance(which, Tensor) else which
            piece = torch.from_numpy(np.array(self.data[index], np.float64))
        return piece.to(torch.float64).flatten(1)

    def blocks(self) -> Iterator[Tensor]:
        length = max(1, _BLOCK // self.size)
        return (self.take(slice(start, start + length)) for start in range(0, self.n, length))

    def mean(self, limits: tuple[float, float] | None) -> Tensor:
        """The mean ``(D,)``; refuses values that are not finite, too large, or beyond limits."""
        total: Tensor | float = 0.0
        bad, low, high = [], math.inf, -math.inf
        for block in self.blocks():
            bad.append(~row_finite(block))
            total = total + block.sum(0)
            low, high = min(low, float(block.min())), max(high, float(block.max()))
        refuse_rows(torch.cat(bad), "`data` has NaN or infinite values in", "; leave them out", "input", rows="rows")
        if max(-low, high) > _LARGEST:
            raise InvalidArgumentError(f"`data` must be within ±{_LARGEST:g}, got values from {low:.4g} to {high:.4g}.")
        if limits is not None:
            slack = (limits[1] - limits[0]) / 255
            if low < limits[0] - slack or high > limits[1] + slack:
                raise InvalidArgumentError(
                    f"`data_range` must hold all values, got {limits} and values from {low:.4g} to {high:.4g}."
                )
        return torch.as_tensor(total) / self.n

    def squares(self, centre: Tensor) -> Tensor:
        """The squared distances ``(n,)`` of all rows from a point."""
        return torch.cat([(block - centre).square().sum(1) for block in self.blocks()])

    def far(self, squares: Tensor, count: int) -> Tensor:
        """Some rows, the most distant pair most likely among them, from the squared distances to the mean."""
        if self.n <= count:
            return torch.arange(self.n)
        chosen = torch.zeros_like(squares, dtype=torch.bool)
        first = squares.topk(count // 2).indices
        chosen[first] = True
        chosen[self.squares(self.take(first[:1])[0]).topk(count // 2).indices] = True
        return chosen.nonzero()[:, 0]


def _rows_of(advice: Advice) -> list[tuple[str, str, str, str]]:
    """The rows of the table: a name, its value, the rule that gives it, and the source of the rule."""
    edm, ncsnv2, vdm, bound = (
        "Karras 2022, table 1",
        "Song 2020, technique",
        "Kingma 2021, sec. 3.2",
        "TV <= sqrt(chi2) / 2",
    )
    step, ends = advice.step, advice.ends
    found = "" if step is None else f" (step {step:.4g})"
    gain = f"{advice.uncentred.rho / advice.centred.rho:.3g} times the" if advice.mean_matters else "no more"
    pair = "two rows" if advice.rows == advice.n else f"{advice.rows} far rows"
    mean = float(advice.mean.square().mean().sqrt())
    table = [
        ("sigma_data", f"{advice.sigma_data:.4g}", "RMS per element about the mean", edm),
        ("mean", f"RMS {mean:.4g}", f"prior at 0: {gain} noise", "first term of chi2"),
        ("sigma_min", f"{advice.sigma_min:.3g}{found}", *_STEPS[advice.origin]),
        ("VE: sigma_max", f"{advice.sigma_max:.4g}", f"largest distance of {pair}", f"{ncsnv2} 1"),
        ("EDM: P_mean", f"{advice.p_mean:.4g}", "-1.2 + ln(2 sigma_data)", edm),
        ("EDM: P_std", f"{advice.p_std:.4g}", "1.2", edm),
        ("VDM: gamma_min", f"{advice.gamma_min:.4g}", "2 ln sigma_min, minus log-SNR", vdm),
    ]
    if advice.ratio is not None:
        levels = f"{advice.levels}, ratio {advice.ratio:.4f}"
        table.insert(4, ("NCSNv2: levels", levels, "overlap 0.5, to sigma_max", f"{ncsnv2} 2"))
    for name, end in (("Prior with mean", advice.centred), ("Prior at 0", advice.uncentred)):
        limits = f"{end.rho:.4g} ({end.low:.4g} to {end.high:.4g})"
        table += [
            (name, "", f"TV <= {advice.tv:.2g}, chi2 <= {4 * advice.tv**2:.2g}", bound),
            ("  rho at t_max", limits, f"chi2 of pairs of {advice.rows} rows", "Ingster, Suslina 2003"),
            ("  closed form", f"{end.closed:.4g}", "max(1.4 |m|/chi, (tr M^2/chi^2)^¼)", "second order of chi2"),
            ("  floor of chi2", f"{end.floor:.2g}", f"tr S / n rho^2, n = {advice.n}", "error of the mean"),
            ("  VP: alpha", f"{end.alpha:.4g}", "1 / sqrt(1 + rho^2), upper limit", "Song 2021, eq. 11"),
            ("  VP: beta_max", f"{end.beta_max:.4g}", f"with beta_min {_BETA_MIN:g}, t_max 1", "Song 2021, appendix C"),
            ("  VP: beta_d", f"{end.beta_d:.4g}", "beta_max - beta_min", edm),
            ("  VDM: gamma_max", f"{end.gamma_max:.4g}", "2 ln rho, minus log-SNR", vdm),
        ]
    if advice.repeated:
        table.append(("repeated rows", f"{advice.repeated:.1%}", "equal to others; remove copies", "pairs i != j"))
    if ends is not None:
        noise = f"{_harm(ends.noise_harmless)}, TV <= {ends.tv:.2g}"
        data = f"{_harm(ends.data_harmless)}, W2 <= {ends.w2:.2g}"
        t_min = "none" if ends.t_min is None else f"{ends.t_min:.4g}"
        chi2 = f"chi2 {ends.chi2:.2g} ± {ends.error:.1g}, rho {ends.rho_max:.4g}"
        table += [
            ("sde at t_max", noise, chi2, bound),
            ("sde at t_min", data, f"per root of D, rho {ends.rho_min:.3g}", "coupling, same noise"),
            ("sde: t_min", t_min, "sigma(t) / alpha(t) = sigma_min", "as sigma_min"),
        ]
    return table


def _lattice(values: Tensor, eps: float) -> float | None:
    """The step of the lattice on which values of a precision lie, None if there is none."""
    levels = values.flatten()[:_BLOCK].sort().values
    slack = 4 * eps * float(levels.abs().max())
    levels = levels[torch.cat([levels.new_ones(1), levels.diff()]) > slack]
    fewest, most = _LEVELS
    if not fewest <= len(levels) <= most:
        return None
    gaps = levels.diff()
    places = (gaps / gaps.min()).round().cumsum(0)
    step = float((levels[-1] - levels[0]) / places[-1])
    off = float((levels[0] + step * places - levels[1:]).abs().max())
    return step if places[-1] < most and off <= slack < step / 16 else None


class _Pairs(NamedTuple):
    """Inner products of rows about the mean, float64 ``(k, k)``, and what is needed to take them about other points."""

    products: Tensor
    rows: Tensor  # (k, D), about the mean
    mean: Tensor  # (D,)
    radius: float  # the largest distance of a row from the mean, of all rows
    miss: PairMean  # tr S / n, the mean square of the error of the mean, of all rows

    @property
    def factor(self) -> float:
        """Of a mean over pairs of what is quadratic in U-centred products, for an estimate without bias."""
        return (len(self.rows) - 1) / (len(self.rows) - 3)

    def centred(self) -> Tensor:
        """U-centred, with a diagonal of 0: they do not depend on the mean, and each row has the sum 0."""
        k = len(self.rows)
        a = self.products.clone().fill_diagonal_(0.0)
        sums = a.sum(1)
        a -= (sums[:, None] + sums) / (k - 2)
        a += sums.sum() / ((k - 1) * (k - 2))
        return a.fill_diagonal_(0.0)

    def about(self, shift: Tensor, alpha: float = 1.0) -> Tensor:
        """Those of alpha times the rows plus a shift; the diagonal has the squares."""
        across = alpha * self.rows @ shift
        return alpha**2 * self.products + (across[:, None] + across) + shift.square().sum()

    def repeated(self) -> float:
        """The share of rows that are equal to another one, to the last digit."""
        _, counts = self.rows.unique(dim=0, return_counts=True)
        return int(counts[counts > 1].sum()) / len(self.rows)


def _harmless_end(pairs: _Pairs, own: bool, chi2: float) -> HarmlessEnd:
    """For a prior with the mean of the data (own) or at 0."""
    from scipy.optimize import brentq  # takes long to import

    if own:
        a, factor, linear = pairs.centred(), pairs.factor, pairs.miss
    else:
        a, factor, linear = pairs.about(pairs.mean).fill_diagonal_(0.0), 1.0, PairMean(0.0, 0.0)
        if not float(a.max()) > 0:  # no two rows point in similar directions: only the largest norm bounds rho
            s = math.log1p(chi2) / (pairs.radius + float(pairs.mean.norm())) ** 2
            return HarmlessEnd(s**-0.5, 0.0, s**-0.5, s**-0.5, pairs.miss.value * s)

    def estimate(log: float) -> PairMean:
        """The chi-square at ln s, s = 1/rho^2. It is convex in s and 0 at s = 0, so that it has each value above once.
        U-centred products have the sum 0: their linear part does not count, in value or error."""
        s = math.exp(log)
        value, error = mean_of_pairs(lambda rows: torch.expm1(s * a[rows]) - own * s * a[rows], a)
        return PairMean(factor * value + s * linear.value, factor * error + s * linear.error)

    def root(errors: float, start: float) -> float:
        """Where the chi-square and some of its standard errors are the one wanted."""

        def excess(log: float) -> float:
            at = estimate(log)
            return at.value + errors * at.error - chi2

        low = high = start
        while excess(low) > 0:
            low -= 0.5
        while excess(high) <= 0:
            high += 0.5
        return float(brentq(excess, low, high, xtol=1e-7))

    count = len(a) * (len(a) - 1)
    square = linear.value if own else max(0.0, float(a.sum()) / count)
    closed = max(math.sqrt(2 * square / chi2), (factor * float(a.square().sum()) / count / chi2) ** 0.25)
    log = root(0.0, -2 * math.log(closed))
    s, rho = math.exp(log), math.exp(-0.5 * log)
    slope = 2 * s * (factor * float((a * torch.exp(s * a)).sum()) / count + linear.value)  # by -ln rho
    low = rho * math.exp(-_ERRORS * estimate(log).error / slope)
    return HarmlessEnd(rho, low, math.exp(-0.5 * root(_ERRORS, log)), closed, pairs.miss.value * s)


def _process_ends(
    sde: AffineSDE, pairs: _Pairs, event_shape: tuple[int, ...], sigma_data: float, sigma_min: float, tv: float
) -> ProcessEnds:
    if not isinstance(sde.prior, NormalPrior):
        raise InvalidArgumentError(
            f"`sde` must have a normal prior, scoresde.NormalPrior(std, mean), got {sde.prior!r}; leave `sde` out "
            "for advice from the data alone."
        )
    start, end = sde.node(sde.t_min), sde.node(sde.t_max)
    centre = sde.prior.from_normal(pairs.mean.new_zeros(1, *event_shape)).flatten()
    shift, r = end.alpha * pairs.mean - centre, (end.sigma / sde.prior.std) ** 2
    chi2, error = _chi2(pairs, end.alpha, end.sigma, shift, r)
    bound = min(1.0, 0.5 * math.sqrt(max(0.0, chi2)))
    square = sigma_data**2 + float(pairs.mean.square().mean())
    w2 = math.hypot((1 - start.alpha) * math.sqrt(square), start.sigma)
    return ProcessEnds(
        rho_min=start.sigma / start.alpha,
        rho_max=end.sigma / end.alpha if end.alpha else math.inf,
        chi2=chi2,
        error=error,
        tv=bound,
        w2=w2,
        t_min=_time_of(sde, sigma_min),
        noise_harmless=bound <= (1 + _SLACK) * tv,
        data_harmless=w2 <= 1.01 * sigma_min,
    )


def _chi2(pairs: _Pairs, alpha: float, sigma: float, shift: Tensor, r: float) -> PairMean:
    """That of the states alpha x + sigma e against a normal prior: shift is their mean less that of the prior, and r
    the variance of the noise over that of the prior."""
    if not 0 < r < 2:
        return PairMean(math.inf, 0.0)
    own = float(shift.square().sum()) <= 0.01 * alpha**2 * pairs.miss.value  # the prior has the mean of these rows
    products = alpha**2 * pairs.centred() if own else pairs.about(shift, alpha)
    squares = (alpha**2 * pairs.products if own else products).diagonal() * (1 - r) / (2 * sigma**2 * (2 - r))
    products /= sigma**2 * (2 - r)
    exponent = products - squares[:, None] - squares - 0.5 * len(shift) * (math.log(r) + math.log(2 - r))
    value, error = mean_of_pairs(lambda rows: torch.expm1(exponent[rows]) - own * products[rows], exponent)
    if not own or not math.isfinite(value):
        return PairMean(value, error)
    s = (alpha / sigma) ** 2
    return PairMean(pairs.factor * value + s * pairs.miss.value, pairs.factor * error + s * pairs.miss.error)


def _time_of(sde: AffineSDE, rho: float) -> float | None:
    """The time at which sigma/alpha has a value, None if it is larger at all times from 0, or of the interval where
    the process has no closed form."""
    try:
        t = float(sde.time(-2 * math.log(rho)))
    except InvalidArgumentError:
        return None
    return max(0.0, t) if -1e-9 < t < sde.t_max else None


def _harm(harmless: bool) -> str:
    return "harmless" if harmless else "harmful"
