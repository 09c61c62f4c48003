"""What order statistics guarantee, and what coupled distances say of laws: against exact laws and brute force."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from scoresde.core.errors import InvalidArgumentError
from scoresde.trust import Coverage, Interval, Law
from scoresde.trust.law import lower_limit, upper_limit

F64 = torch.float64


def test_ranks_at_95_per_cent() -> None:
    for draws, rank, mean, std, low, in_pilot in (
        (64, 62, 0.9538, 0.0258, 0.905, 64),
        (256, 245, 0.9533, 0.0131, 0.930, 250),
        (1000, 951, 0.9500, 0.0069, 0.938, 962),
    ):
        coverage = Coverage.of(draws, 0.95)
        assert coverage.rank == rank and Coverage.of(draws, 0.95, 0.95).rank == in_pilot
        assert (coverage.mean, coverage.std) == (pytest.approx(mean, abs=5e-5), pytest.approx(std, abs=5e-5))
        assert coverage.at_least(0.95) == pytest.approx(low, abs=5e-4)


def test_the_least_number_of_draws_is_the_least() -> None:
    for confidence in (0.5, 0.8, 0.9, 0.95, 0.99):
        for in_pilot in (None, 0.9, 0.95):
            least = Coverage.least(confidence, in_pilot)
            coverage = Coverage.of(least, confidence, in_pilot)
            assert coverage.rank <= least
            enough = coverage.probability(confidence) >= (in_pilot or 0)
            assert coverage.mean >= confidence - 1e-12 if in_pilot is None else enough, (confidence, in_pilot)
            if least > 1:
                with pytest.raises(InvalidArgumentError, match=f"at least {least} draws"):
                    Coverage.of(least - 1, confidence, in_pilot)


def test_a_smaller_rank_would_not_do() -> None:
    for draws, confidence in ((30, 0.9), (99, 0.95), (128, 0.95)):
        rank, sure = Coverage.of(draws, confidence).rank, Coverage.of(draws, confidence, 0.9).rank
        assert (rank - 1) / (draws + 1) < confidence <= rank / (draws + 1) + 1e-12
        beta = stats.beta
        assert beta.sf(confidence, sure, draws + 1 - sure) >= 0.9 > beta.sf(confidence, sure - 1, draws + 2 - sure)


def test_several_draws_together() -> None:
    coverage = Coverage(20, 18)
    share = torch.linspace(0, 1, 200_001, dtype=F64)
    density = torch.from_numpy(stats.beta.pdf(share.numpy(), 18, 3))
    assert coverage.all_of(5) == pytest.approx(float(torch.trapezoid(density * share**5, share)), abs=1e-9)
    covered = coverage.number_of(50, 0.9)
    law = stats.betabinom(50, 18, 3)
    assert law.sf(covered - 1) >= 0.9 > law.sf(covered)
    assert Coverage(10, 10).number_of(1, 0.999) == 0


def test_invalid_confidences_and_distances() -> None:
    for confidence in (0.0, 1.0, -0.1, 1.5, float("nan")):
        for call in (
            lambda c=confidence: Coverage.of(100, c),
            lambda c=confidence: Coverage.of(100, 0.9, c),
            lambda c=confidence: Law(torch.ones(10), 1.0, c),
        ):
            with pytest.raises(InvalidArgumentError):
                call()
    for distances in ([1.0], [1.0, math.nan], [1.0, -1.0]):
        with pytest.raises(InvalidArgumentError, match="`distances`"):
            Law(torch.tensor(distances), 1.0)
    with pytest.raises(InvalidArgumentError, match="`unit`"):
        Law(torch.ones(3), 0.0)


def test_limits_are_those_of_clopper_and_pearson() -> None:
    for count, draws in ((0, 5), (1, 5), (5, 5), (3, 256)):
        exact = stats.binomtest(count, draws).proportion_ci(0.9, method="exact")  # two-sided: 95 % on each side
        assert upper_limit(count, draws, 0.95) == pytest.approx(exact.high, abs=1e-9)
        assert lower_limit(count, draws, 0.95) == pytest.approx(exact.low, abs=1e-9)


LAWS = {  # distances, and their Ky Fan distance
    "uniform": (torch.distributions.Uniform(torch.tensor(0.0, dtype=F64), torch.tensor(1.0, dtype=F64)), 0.5),
    "exponential": (torch.distributions.Exponential(torch.tensor(20.0, dtype=F64)), None),
    "heavy": (torch.distributions.Pareto(torch.tensor(1e-3, dtype=F64), torch.tensor(1.0, dtype=F64)), math.sqrt(1e-3)),
}


@pytest.mark.parametrize("name", LAWS)
def test_the_ky_fan_distance_is_rarely_below_the_exact_one(name: str) -> None:
    """In at most 42 of 400 repetitions at a level of .05: more has a probability below 1e-5 (binomial)."""
    law, exact = LAWS[name]
    if exact is None:  # K = exp(-20 K)
        exact = 0.1
        for _ in range(200):
            exact = 0.5 * (exact + math.exp(-20 * exact))
    torch.manual_seed(0)
    found = torch.tensor([Law(law.sample((128,)), 1.0).prokhorov for _ in range(400)], dtype=F64)
    assert int((found < exact).sum()) <= 42
    assert exact < float(found.median()) <= 1.5 * exact + 3 / 128


def test_the_ky_fan_distance_has_a_unit_and_a_floor() -> None:
    equal = Law(torch.zeros(256), 1.0)
    assert equal.prokhorov == pytest.approx(1 - 0.05 ** (1 / 256)) and equal.exceeding(0.0) == equal.prokhorov
    far = torch.full((100,), 5.0)
    assert Law(far, 1.0).prokhorov == 1.0 and Law(far, 100.0).prokhorov == pytest.approx(0.05)
    assert Law(torch.cat([far, torch.full((3,), math.inf)]), 100.0).prokhorov == upper_limit(3, 103, 0.95)


def test_the_ky_fan_distance_by_brute_force() -> None:
    torch.manual_seed(1)
    distances = torch.rand(37, dtype=F64) ** 3
    ordered = [0.0, *distances.sort().values.tolist()]
    brute = min(max(ordered[j], upper_limit(37 - j, 37, 0.95)) for j in range(38))
    assert Law(distances, 1.0).prokhorov == pytest.approx(min(1.0, brute))


def test_the_rms_distance() -> None:
    law = Law(torch.tensor([0.3, 0.4]), 1.0)
    assert law.wasserstein().value == pytest.approx(math.sqrt(0.125)) and law.wasserstein().kind == "asymptotic"
    bounded = law.wasserstein(bound=1.0)
    assert bounded.kind == "exact" and bounded.low == 0.0 and bounded.high > 1.0
    with pytest.raises(InvalidArgumentError, match="`bound`"):
        law.wasserstein(bound=0.35)
    assert Law(torch.tensor([0.1, math.inf]), 1.0).wasserstein() == Interval(
        math.inf, 0.0, math.inf, 0.95, "asymptotic"
    )


def test_the_limit_of_the_rms_distance_holds_with_a_bound() -> None:
    """One in a hundred distances is 1, the others .01: the asymptotic limit fails often, the other never in 300."""
    exact = math.sqrt(0.01 + 0.99e-4)
    torch.manual_seed(0)
    draws = torch.where(torch.rand(300, 64) < 0.01, 1.0, 0.01)
    laws = [Law(row, 1.0) for row in draws]
    assert all(law.wasserstein(bound=1.0).high >= exact for law in laws)
    assert sum(law.wasserstein().high < exact for law in laws) > 100


def test_samples_in_another_mode_are_counted() -> None:
    law = Law(torch.cat([torch.full((98,), 0.01), torch.tensor([2.0, 2.5])]), 1.0)
    assert law.switched == 2 and law.switching.value == 0.02 and law.switching.low < 0.02 < law.switching.high
    assert Law(torch.linspace(0, 3, 100), 1.0).switched == 0
