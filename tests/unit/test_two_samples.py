"""Comparisons of two sets of samples: against formulas by hand, and their false-alarm rates and power."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from scoresde.trust import two_samples
from scoresde.trust.two_samples import classifier_test, energy_test, nearest, sliced_wasserstein

F64 = torch.float64
SEEDED = {"energy_test": energy_test, "sliced_wasserstein": sliced_wasserstein, "classifier_test": classifier_test}


def normals(seed: int, *shapes: tuple[int, ...]) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return iter([torch.randn(shape, generator=generator, dtype=F64) for shape in shapes])


def most(trials: int, rate: float) -> int:
    """The number of alarms that is exceeded with probability 1e-4, at a rate."""
    return int(stats.binom.isf(1e-4, trials, rate))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that is trained little."""
    monkeypatch.setattr(two_samples, "_LEAST_STEPS", 10)
    monkeypatch.setattr(two_samples, "_LEAST_EPOCHS", 5)


def by_hand(x: Tensor, y: Tensor) -> float:
    """The U-statistic."""
    distance: Callable[..., Tensor] = lambda a, b: torch.cdist(  # noqa: E731
        a.flatten(1), b.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
    )
    within = [float(distance(v, v).sum()) / (len(v) * (len(v) - 1)) for v in (x, y)]
    return 2 * float(distance(x, y).mean()) - sum(within)


def test_the_energy_distance_is_the_u_statistic() -> None:
    """Up to the rounding of distances by products, 1e-8 of the largest; of many samples it is made in blocks."""
    for n, m in ((2, 2), (3, 2), (9, 14), (1200, 1000)):
        x, y = normals(0, (n, 2, 3), (m, 2, 3))
        got = energy_test(1e6 + x, 1e6 + 1.5 * y, permutations=19, seed=0)
        assert got.value == pytest.approx(by_hand(x, 1.5 * y), abs=1e-6), (n, m)
        assert got.interval[0] <= got.value <= got.interval[1], (n, m)


def test_the_interval_of_the_energy_distance_is_made_of_jackknife_and_permutations() -> None:
    """The jackknife leaves out one sample after the other; the ends are the roots of a quadratic equation."""
    x, y = normals(3, (12, 2), (15, 2))
    got, y = energy_test(x, y + 1, permutations=999, seed=0), y + 1
    left_out = [
        torch.tensor([by_hand(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(12)]),
        torch.tensor([by_hand(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(15)]),
    ]
    jackknife = sum(float(v.var()) * (len(v) - 1) ** 2 / len(v) for v in left_out)
    z = stats.norm.ppf(0.975)
    noise = [(t - got.value) ** 2 / z**2 - t * jackknife / got.value for t in got.interval]
    assert noise[0] == pytest.approx(noise[1], rel=1e-4)
    everything, generator = torch.cat([x, y]), torch.Generator().manual_seed(5)
    orders = [torch.randperm(27, generator=generator) for _ in range(300)]
    null = torch.tensor([by_hand(everything[order[:12]], everything[order[12:]]) for order in orders])
    assert noise[0] == pytest.approx(float(null.var()), rel=0.3)


def test_the_energy_p_value_is_exact() -> None:
    """Of 2 and 2 samples there are three splits, here of one value each; a permutation gives that of the largest in a
    third of the cases: 333 ± 15 of 999 (five standard deviations)."""
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[10.0], [12.0]])
    got = energy_test(x, y, permutations=999, seed=0)
    assert got.value == pytest.approx(2 * (10 + 12 + 9 + 11) / 4 - 1 - 2, abs=1e-6)
    assert abs(got.p_value * 1000 - 1 - 333) < 75
    assert got.floor == pytest.approx(got.value)


def test_false_alarms_and_power_of_the_energy_test() -> None:
    """False alarms at 5 %, with p-values that are uniform, in 400 repetitions (each limit fails one time in 10,000)."""
    p_values = []
    for k in range(400):
        x, y = normals(k, (20, 2), (30, 2))
        p_values.append(energy_test(x, y, permutations=19, seed=k).p_value)
    assert sum(p <= 0.05 for p in p_values) <= most(400, 0.05)
    assert sum(p <= 0.5 for p in p_values) <= most(400, 0.5)
    assert sum(p > 0.5 for p in p_values) <= most(400, 0.5)
    x, y = normals(1, (100, 2), (80, 2))
    assert energy_test(x, y + 0.7, seed=0).p_value == 1 / 200
    assert energy_test(x, 2 * y, seed=0).p_value == 1 / 200


def test_it_is_that_of_points_on_a_line_by_hand() -> None:
    x, y = torch.tensor([[0.0], [3.0]]), torch.tensor([[5.0], [1.0]])
    assert sliced_wasserstein(x, y, seed=0).plain == pytest.approx(math.sqrt((1 + 4) / 2))
    third = torch.tensor([[1.0], [5.0], [6.0]])  # the quantiles of thirds and halves
    expected = (1**2 * 2 + 5**2 + 2**2 + 3**2 * 2) / 6
    assert sliced_wasserstein(x, third, seed=0).plain == pytest.approx(math.sqrt(expected))
    assert sliced_wasserstein(third, x, seed=0).plain == pytest.approx(math.sqrt(expected))


def test_false_alarms_power_and_coverage_of_the_sliced_distance() -> None:
    """False alarms at 5 % in 80 repetitions, and coverage of at least 86 % at a shift, where the distance is known."""
    alarms = covered = 0
    for k in range(80):
        x, y = normals(k, (30, 2), (40, 2))
        alarms += sliced_wasserstein(x, y, projections=8, permutations=19, seed=k).significant
        low, high = sliced_wasserstein(x, y + 1, projections=16, permutations=39, seed=k).interval
        covered += low <= 1 <= high
    assert alarms <= most(80, 0.05)
    assert covered >= 69
    x, y = normals(1, (200, 5), (150, 5))
    found = sliced_wasserstein(x, 1.5 * y, seed=0)
    assert found.significant and found.interval[0] > 0 and found.value > found.floor


def test_its_limits_are_those_of_scipy(quick: None) -> None:
    x, y = normals(6, (50, 2), (70, 2))
    for shift in (0.0, 2.0, 100.0):
        got = classifier_test(x, y + shift, level=0.9, seed=0)
        assert got.tested == 50
        result = stats.binomtest(round(got.value * 50), 50, 0.5, alternative="two-sided")
        assert got.interval == pytest.approx(tuple(result.proportion_ci(0.9, "exact")))
        one_sided = stats.binomtest(round(got.value * 50), 50, 0.5, alternative="greater")
        assert got.p_value == pytest.approx(one_sided.pvalue)
        lower = one_sided.proportion_ci(0.9, "exact").low
        assert got.total_variation == pytest.approx(max(0.0, 2 * lower - 1))
        assert got.significant == (got.value > got.floor) == (got.total_variation > 0)
        assert shift < 100 or got.value == 1


@pytest.mark.parametrize("change", ["shift", pytest.param("modes", marks=pytest.mark.slow)])
def test_it_finds_differences(change: str) -> None:
    """A shift of the mean and a missing mode; never more than the distance, which is known or bounded."""
    generator = torch.Generator().manual_seed(7)
    x, y = (torch.randn(600, 2, generator=generator) for _ in range(2))
    exact = math.erf(0.7 / 2) if change == "shift" else 1 / 6
    if change == "modes":
        angles = torch.randint(6, (2, 600), generator=generator).float()
        angles[1][angles[1] == 5] = 0
        x, y = (0.1 * v + 2 * torch.stack([a.cos(), a.sin()], 1) for v, a in zip((x, y), angles, strict=True))
    got = classifier_test(x, y + 0.7 if change == "shift" else y, seed=0)
    assert got.significant
    assert 0.4 * exact < got.total_variation < exact


def test_the_nearest_rows_are_found() -> None:
    """In blocks, far from the origin, with distances of copies that are exactly 0."""
    x, data, held_out = normals(10, (300, 1, 2), (15_001, 1, 2), (20, 1, 2))
    x[:9] = data[70:79]
    x, data, held_out = x + 1e4, data + 1e4, held_out + 1e4
    got = nearest(x, data, held_out)
    exact = torch.cdist(x.flatten(1), data.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(got.indices, exact.min(1)[1])
    assert not got.distances[:9].any() and got.indices[:9].tolist() == list(range(70, 79))
    torch.testing.assert_close(got.distances, exact.min(1)[0], rtol=1e-10, atol=0)


def test_copies_are_found_and_false_alarms_are_rare() -> None:
    """False alarms at 5 % in 300 repetitions, of each of the two tests and of both together."""
    alarms = torch.zeros(3)
    for k in range(300):
        x, data, held_out = normals(k, (40, 2), (60, 2), (30, 2))
        got = nearest(x, data, held_out)
        alarms += torch.tensor([got.significant, got.share_p_value <= 0.05, got.memorised])
    assert float(alarms.max()) <= most(300, 0.05)

    x, data, held_out = normals(13, (200, 3), (500, 3), (200, 3))
    few = torch.cat([data[:30] + 1e-3, x[30:]])
    got = nearest(few, data, held_out)
    assert got.memorised and got.share_p_value < 1e-3
    assert bool((got.indices[:30] == torch.arange(30)).all())
    whole = nearest(data[:200], data, held_out)
    assert whole.value == whole.interval[1] == 1 and 0.95 < whole.interval[0] < 1
    assert not nearest(x + 5, data, held_out).memorised


@pytest.mark.parametrize("name", SEEDED)
def test_a_seed_determines_the_result_whatever_the_dtype(name: str, quick: None) -> None:
    x, y = (v.float() for v in normals(14, (40, 2, 2), (30, 2, 2)))
    state = torch.get_rng_state()
    first, again, other = (SEEDED[name](x, y, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert vars(first) == vars(again) != vars(other)
    assert vars(first) == vars(SEEDED[name](x.double(), y.double(), seed=1))


def test_refusals() -> None:
    x, y = (v.float() for v in normals(17, (20, 2), (20, 2)))
    calls: list[Callable[[Any, Any], Any]] = [
        *(lambda a, b, test=test: test(a, b, seed=0) for test in SEEDED.values()),
        lambda a, b: sliced_wasserstein(x, a, b, seed=0),
        nearest,
    ]
    bad = y.clone()
    bad[3, 1] = torch.nan
    for call in calls:
        for error, wrong in ((InvalidArgumentError, y[:, :1]), (NonFiniteError, bad), (InvalidTypeError, y.long())):
            for pair in ((x, wrong), (wrong, x)):
                with pytest.raises(error):
                    call(*pair)
    for test in SEEDED.values():
        with pytest.raises(InvalidArgumentError, match="level"):
            test(x, y, level=95, seed=0)
    for permutations in (0, 18, 10_000):
        for test in (energy_test, sliced_wasserstein):
            with pytest.raises(InvalidArgumentError, match="permutations"):
                test(x, y, permutations=permutations, seed=0)
