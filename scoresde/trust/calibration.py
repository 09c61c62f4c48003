r"""Whether the posteriors of a conditional network are calibrated.

Parameters :math:`\theta_i` are drawn from the prior, observations :math:`y_i` are simulated from them, and the network
draws m samples of its posterior for each :math:`y_i`. If these are samples of the true posterior, then :math:`\theta_i`
and the m samples are exchangeable, and the rank of :math:`\theta_i` among them, by any function of parameters and
observation, is uniform on 0, …, m, whatever the model is:

- `simulation_based_calibration` compares the parameters one by one, by `sbc_ranks`;
- `tarp` compares distances to a reference point, and is sensitive to the joint distribution of all parameters.

Both need samples that are independent of each other, as those of a diffusion model are and those of a Markov chain are
not. Draws are independent of those of ``torch.Generator().manual_seed(seed)``, so that parameters may have the same
seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.noise import Seed
from ..core.noise.philox import fold
from ..core.support.checks import check_finite_rows, check_tensor
from ..core.support.declared import checked
from ..core.support.display import Displayed
from .two_samples import Level

_STREAM = 0xCA11  # of the draws, which must not be those of parameters that have the same seed
_MOST_LEVELS = 100  # at which the coverage is compared
_LEAST_SIMULATIONS, _MOST_SIMULATIONS = 999, 1_000_000  # of uniform ranks
_BLOCK = 2**22  # numbers at a time
_VISIBLE = 2.0  # standard errors at which a shape has a name


@dataclass(frozen=True, eq=False, repr=False)
class Calibration(Displayed):
    r"""The result of `simulation_based_calibration`, with one column per parameter, or of `tarp`, with one column.

    Attributes:
        ranks: of the true parameters, ``(n, columns)`` integers from 0 to ``draws``.
        draws: the number of posterior samples, m.
        levels: the nominal levels :math:`k/(m+1)`, ``(levels,)`` float64.
        coverage: the share of ranks below k, ``(levels, columns)``: the coverage of one-sided credible intervals for
            `simulation_based_calibration`, the expected coverage of credible regions for `tarp`.
        band: the lower and the upper end, ``(levels,)`` each, within which all of the coverage is, for all columns at
            once, with probability ``level`` if the posteriors are calibrated.
        p_values: of each column, ``(columns,)`` float64.
        level: the probability of the band.
        distances: whether the ranks are those of distances, by `tarp`.

    Example:
        >>> from scoresde.trust.calibration import simulation_based_calibration
        >>> generator = torch.Generator().manual_seed(0)
        >>> theta, samples = (
        ...     torch.randn(*n, 500, 2, generator=generator) for n in ((), (99,))
        ... )
        >>> simulation_based_calibration(theta, samples).verdicts
        ('calibrated', 'calibrated')
        >>> scale = torch.tensor([0.5, 2.0])
        >>> simulation_based_calibration(theta, scale * samples).verdicts
        ('over-confident', 'under-confident')
    """

    ranks: Tensor
    draws: int
    levels: Tensor
    coverage: Tensor
    band: tuple[Tensor, Tensor]
    p_values: Tensor
    level: float
    distances: bool = False

    @property
    def value(self) -> float:
        """The largest difference of a coverage from its level."""
        return float((self.coverage - self.levels[:, None]).abs().max())

    @property
    def p_value(self) -> float:
        """The p-value of all columns together, by Bonferroni."""
        return min(1.0, round(len(self.p_values) * float(self.p_values.min()), 12))

    @property
    def false_alarm(self) -> float:
        """The probability of at most which the verdict on calibrated posteriors is another one."""
        return 1 - self.level

    @property
    def calibrated(self) -> bool:
        """Whether all of the coverage is within the band, that is, whether the p-value is above `false_alarm`."""
        return self.verdict == "calibrated"

    @property
    def verdicts(self) -> tuple[str, ...]:
        """One of these for each column:

        - ``"calibrated"``: the coverage is within the band. The posteriors may be wrong in a way that this does not
          show, or by too little for n ranks.
        - ``"over-confident"``: the posteriors are too narrow, as the variance of the ranks is too large.
        - ``"under-confident"``: the posteriors are too wide, as the variance of the ranks is too small.
        - ``"biased"``: the mean of the ranks is wrong, by more standard errors than the variance.
        - ``"not calibrated"``: the ranks are not uniform, though mean and variance are within 2 standard errors.

        The ranks of distances (`tarp`) are too high on average if posteriors are too narrow, and too low if they are
        too wide. Of these verdicts only ``"calibrated"`` has an error rate, `false_alarm`.
        """
        return tuple(self._name(j) for j in range(len(self.p_values)))

    @property
    def verdict(self) -> str:
        """``"calibrated"`` if all columns are, or the verdict on the column with the largest error."""
        wrong = [j for j in range(len(self.p_values)) if self._rejected(j)]
        return self._name(max(wrong, key=lambda j: max(map(abs, self._errors(j))))) if wrong else "calibrated"

    def _rejected(self, column: int) -> bool:
        return float(self.p_values[column]) * len(self.p_values) <= self.false_alarm + 1e-12

    def _name(self, column: int) -> str:
        if not self._rejected(column):
            return "calibrated"
        shift, spread = self._errors(column)
        if max(abs(shift), abs(spread)) < _VISIBLE:
            return "not calibrated"
        if abs(shift) >= abs(spread) and not self.distances:
            return "biased"
        larger = shift if abs(shift) >= abs(spread) else spread
        return "over-confident" if larger > 0 else "under-confident"

    def _errors(self, column: int) -> tuple[float, float]:
        """Of the mean and of the variance of the ranks, in standard errors for uniform ranks."""
        ranks, uniform = self.ranks[:, column].to(torch.float64), torch.arange(self.draws + 1, dtype=torch.float64)
        expected, squares = uniform.var(correction=0), (uniform - uniform.mean()).square()
        size = math.sqrt(len(ranks))
        shift = (ranks.mean() - uniform.mean()) / expected.sqrt()
        spread = (ranks.var() - expected) / squares.std(correction=0)
        return float(shift) * size, float(spread) * size

    def _summary(self) -> dict[str, str]:
        return {
            "verdict": self.verdict,
            "largest difference of coverage": f"{self.value:.4g}",
            "p_value": f"{self.p_value:.2g}",
            "level": f"{self.level:g}",
            "simulations": str(len(self.ranks)),
            "draws": str(self.draws),
        }


@checked
def sbc_ranks(theta: Tensor, samples: Tensor, *, seed: Seed = 0) -> Tensor:
    r"""The ranks of parameters among posterior samples, :math:`\#\{j: \theta^{(j)}_i < \theta_i\}` for each parameter.

    Of the samples that are equal to the parameter, a random number is counted, uniform from 0 to all of them, so that
    the ranks of discrete parameters are uniform, too.

    Args:
        theta: the parameters of n simulations, ``(n, d)``.
        samples: m samples of the posterior of each, ``(m, n, d)``.
        seed: of the ties; without ties it has no effect.

    Returns:
        Integers from 0 to m, ``(n, d)``.

    Raises:
        InvalidTypeError: an argument has a wrong type, such as a tensor of integers.
        InvalidArgumentError: shapes or devices do not fit, or n or m is below 2.
        NonFiniteError: parameters or samples have NaN or infinite values.

    Example:
        >>> from scoresde.trust.calibration import sbc_ranks
        >>> samples = torch.tensor([1.0, 2.0, 3.0])[:, None, None].expand(3, 2, 1)
        >>> sbc_ranks(torch.tensor([[0.5], [2.5]]), samples).tolist()
        [[0], [2]]

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman (2018), Validating Bayesian Inference Algorithms with
        Simulation-Based Calibration. https://arxiv.org/abs/1804.06788
    """
    theta, samples = _check(theta, samples)
    return _ranks(theta, samples, _generator(seed))


@checked
def simulation_based_calibration(theta: Tensor, samples: Tensor, *, level: Level = 0.95, seed: Seed = 0) -> Calibration:
    r"""Test whether posteriors are calibrated in every parameter, by the ranks of the true ones.

    The number of ranks below k is binomial with n trials and probability :math:`k/(m+1)` if the posteriors are
    calibrated. The statistic of a parameter is the smallest tail probability of these numbers, over all k or 100 of
    them. Its p-value is its place among the statistics of simulated uniform ranks, so many of them that it can be as
    small as ``(1 - level) / 10d``. The band is where the statistic is not significant. The probability of a verdict
    other than ``"calibrated"`` on calibrated posteriors is at most ``1 - level``, however the parameters depend on each
    other.

    Args:
        theta: the parameters of n simulations from the prior, ``(n, d)``.
        samples: m independent samples of the posterior of each, ``(m, n, d)``; powers of two less one, such as 127,
            divide the levels evenly.
        level: the probability of the band, in (0, 1).
        seed: of the simulated ranks, and of ties as in `sbc_ranks`.

    Raises:
        InvalidTypeError: an argument has a wrong type, such as a tensor of integers.
        InvalidArgumentError: shapes or devices do not fit, n or m is below 2, or ``level`` is too close to 1.
        NonFiniteError: parameters or samples have NaN or infinite values.

    Example:
        >>> from scoresde.trust.calibration import simulation_based_calibration
        >>> generator = torch.Generator().manual_seed(0)
        >>> theta = torch.randn(400, 3, generator=generator)
        >>> samples = torch.randn(127, 400, 3, generator=generator)
        >>> simulation_based_calibration(theta, samples).calibrated
        True
        >>> simulation_based_calibration(theta, samples + 0.5).verdict
        'biased'

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman (2018), Validating Bayesian Inference Algorithms with
        Simulation-Based Calibration. https://arxiv.org/abs/1804.06788
        Säilynoja, Bürkner, Vehtari (2022), Graphical test for discrete uniformity and its applications in
        goodness-of-fit evaluation and multiple sample comparison. https://doi.org/10.1007/s11222-022-10090-6
    """
    theta, samples = _check(theta, samples)
    generator = _generator(seed)
    return _calibration(_ranks(theta, samples, generator), len(samples), level, seed)


@checked
def tarp(
    theta: Tensor, samples: Tensor, *, references: Tensor | None = None, level: Level = 0.95, seed: Seed = 0
) -> Calibration:
    r"""Test whether posteriors are calibrated in all parameters together, by the coverage of random balls.

    The ball around a reference point :math:`\theta^r_i` with :math:`\theta_i` on its surface is a credible region of
    level :math:`f_i`, the share of the posterior samples that are inside. The expected coverage of such regions at the
    level c is the share of :math:`f_i < c`, and is c if the posteriors are calibrated. The test of uniform ranks and
    the band are those of `simulation_based_calibration`. Distances are in units of the standard deviation of each
    parameter over simulations and samples.

    Distances have no sign, so a bias changes them little if references are on all sides, and a large one appears as
    ``"over-confident"``: parameters are where the posteriors have too few samples. `simulation_based_calibration` finds
    small ones, and separates the two.

    Args:
        theta: the parameters of n simulations from the prior, ``(n, d)``.
        samples: m independent samples of the posterior of each, ``(m, n, d)``.
        references: the reference points, ``(n, d)``. They may depend on the observations, which makes the test
            sensitive to more errors, but not on ``theta``. None draws them uniformly from a box with the mean and
            standard deviation of all parameters and samples. With these, posteriors that ignore the observation and
            are the prior pass the test.
        level: the probability of the band, in (0, 1).
        seed: of the references, the simulated ranks, and ties.

    Raises:
        InvalidTypeError: an argument has a wrong type, such as a tensor of integers.
        InvalidArgumentError: shapes or devices do not fit, n or m is below 2, or ``level`` is too close to 1.
        NonFiniteError: an argument has NaN or infinite values.

    Example:
        >>> from scoresde.trust.calibration import simulation_based_calibration, tarp
        >>> generator = torch.Generator().manual_seed(0)
        >>> theta = torch.randn(500, 2, generator=generator)
        >>> samples = torch.randn(99, 500, 2, generator=generator)
        >>> tarp(theta, samples).verdict, tarp(theta, 0.5 * samples).verdict
        ('calibrated', 'over-confident')
        >>> samples[..., 1] = samples[..., 0]  # each parameter has the right distribution
        >>> (
        ...     simulation_based_calibration(theta, samples).calibrated,
        ...     tarp(theta, samples).calibrated,
        ... )
        (True, False)

    References:
        Lemos, Coogan, Hezaveh, Perreault-Levasseur (2023), Sampling-Based Accuracy Testing of Posterior Estimators for
        General Inference. https://arxiv.org/abs/2302.03026
    """
    theta, samples = _check(theta, samples)
    generator = _generator(seed)
    theta, samples = theta.to(torch.float64), samples.to(torch.float64)
    everything = torch.cat([theta[None], samples])  # in which theta is one of m + 1 that are exchangeable
    spread, centre = torch.std_mean(everything, (0, 1))
    spread = torch.where(spread > 1e-12 * everything.abs().amax((0, 1)), spread, 1.0)
    if references is None:
        uniform = torch.rand(theta.shape, generator=generator, dtype=torch.float64, device="cpu").to(theta.device)
        references = centre + spread * math.sqrt(3) * (2 * uniform - 1)
    else:
        check_tensor("references", references, tuple(theta.shape))
        check_finite_rows("`references`", references, rows="points")
        _check_device("references", references, theta)
        references = references.detach().to(torch.float64)
    distances = torch.stack([((draw - references) / spread).norm(dim=1) for draw in everything])
    ranks = _ranks(distances[0, :, None], distances[1:, :, None], generator)
    return replace(_calibration(ranks, len(samples), level, seed), distances=True)


def _check(theta: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """The parameters and the samples, if they fit."""
    check_tensor("theta", theta, (-1, -1))
    if isinstance(samples, Tensor) and samples.shape[::2] == theta.shape != samples.shape[1:]:
        raise InvalidArgumentError(
            f"`samples` must be (draws, {', '.join(map(str, theta.shape))}), draws first, got {tuple(samples.shape)}; "
            "try samples.movedim(1, 0)."
        )
    check_tensor("samples", samples, (-1, *theta.shape))
    _check_device("samples", samples, theta)
    if len(theta) < 2 or not theta.shape[1]:
        raise InvalidArgumentError(
            f"`theta` must have at least 2 simulations and 1 parameter, got shape {tuple(theta.shape)}."
        )
    if len(samples) < 2:
        raise InvalidArgumentError(f"`samples` must have at least 2 samples per simulation, got {len(samples)}.")
    check_finite_rows("`theta`", theta, rows="simulations")
    check_finite_rows("`samples`", samples.transpose(0, 1), "leave out these simulations", rows="simulations")
    return theta.detach(), samples.detach()


def _check_device(name: str, x: Tensor, theta: Tensor) -> None:
    if x.device != theta.device:
        raise InvalidArgumentError(
            f"`{name}` must be on {theta.device}, like `theta`, got {x.device}; write {name}.to(theta.device)."
        )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(fold(seed, _STREAM))


def _ranks(theta: Tensor, samples: Tensor, generator: torch.Generator) -> Tensor:
    """Ranks on the CPU, with ties broken at random."""
    below, equal = ((samples < theta).sum(0).cpu(), (samples == theta).sum(0).cpu())
    share = torch.rand(below.shape, generator=generator, dtype=torch.float64, device="cpu")
    return below + (share * (equal + 1)).long()


def _calibration(ranks: Tensor, draws: int, level: float, seed: int) -> Calibration:
    """Compare ranks ``(n, columns)`` with uniform ones on 0, …, draws."""
    from scipy.stats import binom  # takes long to import

    n, columns = ranks.shape
    rate = (1 - level) / columns
    count = max(_LEAST_SIMULATIONS, math.ceil(10 / rate) - 1)
    if count > _MOST_SIMULATIONS:
        raise InvalidArgumentError(
            f"`level` must be at most {1 - 10 * columns / _MOST_SIMULATIONS:g} for {columns} columns, got {level:g}."
        )
    ks = np.unique(np.linspace(1, draws, min(draws, _MOST_LEVELS)).round().astype(int))
    levels = ks / (draws + 1)
    mass = binom.pmf(np.arange(n + 1), n, levels[:, None])  # (levels, n + 1)
    tails = np.minimum(mass.cumsum(1), mass[:, ::-1].cumsum(1)[:, ::-1])
    each = np.arange(len(ks))

    def smallest(counts: np.ndarray) -> np.ndarray:
        """Of the tail probabilities of numbers of ranks below each k, ``(..., levels)``."""
        least: np.ndarray = tails[each, counts].min(-1)
        return least

    below = (ranks.numpy()[:, None] < ks[:, None]).sum(0)  # (levels, columns)
    found = smallest(below.T)
    generator, parts = np.random.default_rng(fold(seed, _STREAM)), np.diff(levels, prepend=0.0, append=1.0)
    sizes = np.diff(np.append(np.arange(0, count, 1 + _BLOCK // len(ks)), count))
    drawn = [smallest(generator.multinomial(n, parts, size)[:, :-1].cumsum(1)) for size in sizes]
    null = np.sort(np.concatenate(drawn))
    p_values = (1 + np.searchsorted(null, found, side="right")) / (count + 1)
    inside = tails >= null[math.floor((count + 1) * rate + 1e-9) - 1]
    low, high = inside.argmax(1), n - inside[:, ::-1].argmax(1)
    band = torch.from_numpy(low / n), torch.from_numpy(high / n)
    return Calibration(
        ranks, draws, torch.from_numpy(levels), torch.from_numpy(below / n), band, torch.from_numpy(p_values), level
    )
