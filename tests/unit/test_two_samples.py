"""Comparisons of two sets of samples: against formulas by hand, and their false-alarm rates and power."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from scoresde.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from scoresde.trust import two_samples
from scoresde.trust.two_samples import EnergyTest, classifier_test, energy_test, nearest, sliced_wasserstein

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


# The energy distance


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


def test_its_interval_is_made_of_jackknife_and_permutations() -> None:
    """The jackknife by leaving out one sample after the other; the ends are roots of the quadratic equation."""
    x, y = normals(3, (12, 2), (15, 2))
    got = energy_test(x, y + 1, permutations=999, seed=0)
    without: Callable[[Tensor, int], Tensor] = lambda v, i: torch.cat([v[:i], v[i + 1 :]])  # noqa: E731
    left_out = [
        torch.tensor([by_hand(without(x, i), y + 1) for i in range(12)]),
        torch.tensor([by_hand(x, without(y + 1, i)) for i in range(15)]),
    ]
    jackknife = sum(float(v.var()) * (len(v) - 1) ** 2 / len(v) for v in left_out)
    z, (low, high) = stats.norm.ppf(0.975), got.interval
    noise = [(t - got.value) ** 2 / z**2 - t * jackknife / got.value for t in (low, high)]
    assert noise[0] == pytest.approx(noise[1], rel=1e-4)

    everything, generator = torch.cat([x, y + 1]), torch.Generator().manual_seed(5)
    null = []
    for _ in range(300):
        order = torch.randperm(27, generator=generator)
        null.append(by_hand(everything[order[:12]], everything[order[12:]]))
    assert noise[0] == pytest.approx(float(torch.tensor(null).var()), rel=0.3)


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


def test_the_energy_interval_covers() -> None:
    """Of normal distributions with a shift, whose distance is known; 95 % up to the approximation: at least 87 % of
    120 repetitions, for small, middling and large distances: fewer have a probability of 5e-5 at 95 %."""
    for shift in (0.0, 0.5, 2.0):
        distance = 2 * (2 / math.sqrt(math.pi) * (math.exp(-(shift**2) / 4) - 1) + shift * math.erf(shift / 2))
        covered = 0
        for k in range(120):
            x, y = normals(k, (50, 1), (60, 1))
            low, high = energy_test(x, y + shift, permutations=49, seed=k).interval
            covered += low <= distance <= high
        assert covered >= 104, shift


# The sliced Wasserstein distance


def test_it_is_that_of_points_on_a_line_by_hand() -> None:
    x, y = torch.tensor([[0.0], [3.0]]), torch.tensor([[5.0], [1.0]])
    assert sliced_wasserstein(x, y, seed=0).plain == pytest.approx(math.sqrt((1 + 4) / 2))
    third = torch.tensor([[1.0], [5.0], [6.0]])  # the quantiles of thirds and halves
    expected = (1**2 * 2 + 5**2 + 2**2 + 3**2 * 2) / 6
    assert sliced_wasserstein(x, third, seed=0).plain == pytest.approx(math.sqrt(expected))
    assert sliced_wasserstein(third, x, seed=0).plain == pytest.approx(math.sqrt(expected))


def test_unequal_numbers_are_repeated_to_equal_ones() -> None:
    """Samples that are repeated have the same distribution."""
    for n, m in ((7, 7), (5, 8), (8, 4), (2, 9)):
        x, y = normals(4, (n, 1), (m, 1))
        a, b = x.repeat(m, 1)[:, 0].sort()[0], y.repeat(n, 1)[:, 0].sort()[0]
        got = sliced_wasserstein(x, y, seed=0)
        assert got.plain == pytest.approx(float((a - b).square().mean().sqrt())), (n, m)


def test_directions_are_uniform() -> None:
    """A shift c of equal points gives the mean square of its projections, |c|²/D, with the standard error of 2,000
    directions (four of them)."""
    shift = torch.tensor([3.0, 0.0, -4.0])
    got = sliced_wasserstein(torch.zeros(2, 3), shift.expand(3, 3), projections=2000, seed=0)
    assert got.plain**2 == pytest.approx(25 / 3, abs=4 * 25 * math.sqrt(4 / 45 / 2000))


def test_the_subtracted_floor_is_that_of_equal_distributions() -> None:
    """And subtracts in squares: normal samples of which one is shifted (each within four standard errors)."""
    squares, subtracted, shifted = [], [], []
    for k in range(40):
        x, y = normals(k, (150, 1), (200, 1))
        got, other = (sliced_wasserstein(x, y + c, permutations=29, seed=k) for c in (0.0, 0.3))
        squares.append(got.plain**2)
        subtracted.append(got.subtracted**2)
        shifted.append(other.square)
        assert got.square == pytest.approx(got.plain**2 - got.subtracted**2)
    a, b, c = (torch.tensor(v) for v in (squares, subtracted, shifted))
    assert abs(float((a - b).mean())) < 4 * float((a - b).std()) / math.sqrt(40)
    assert abs(float(c.mean()) - 0.3**2) < 4 * float(c.std()) / math.sqrt(40)


@pytest.mark.parametrize("size", [10, 400])
def test_the_floor_by_held_out_data(size: int) -> None:
    """It is that of the data, though the samples are far from them and wider; of few rows it is scaled (20 %)."""
    x, y, held_out, other = normals(5, (100, 2), (80, 2), (size, 2), (100, 2))
    wanted = sliced_wasserstein(other, y, seed=0).subtracted
    got = sliced_wasserstein(3 * x + 9, y, held_out, seed=0)
    assert got.subtracted == pytest.approx(wanted, rel=0.2)
    assert got.subtracted < 0.5 * sliced_wasserstein(3 * x + 9, y, seed=0).subtracted


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


# The classifier


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


@pytest.mark.parametrize("change", ["shift", pytest.param("scale", marks=pytest.mark.slow), "modes"])
def test_it_finds_differences(change: str) -> None:
    """A shift of the mean, a scale, and a missing mode; never more than the distance, which is known or bounded."""
    generator = torch.Generator().manual_seed(7)
    x, y = (torch.randn(600, 2, generator=generator) for _ in range(2))
    if change == "modes":
        angles = torch.randint(6, (2, 600), generator=generator).float()
        angles[1][angles[1] == 5] = 0
        x, y = (0.1 * v + 2 * torch.stack([a.cos(), a.sin()], 1) for v, a in zip((x, y), angles, strict=True))
    y = {"shift": y + 0.7, "scale": 2 * y, "modes": y}[change]
    exact = {"shift": math.erf(0.7 / 2), "scale": 0.4725, "modes": 1 / 6}[change]
    got = classifier_test(x, y, seed=0)
    assert got.significant
    assert 0.4 * exact < got.total_variation < exact


@pytest.mark.slow
def test_false_alarms_of_the_classifier(quick: None) -> None:
    """A bound above 0 for equal distributions, at 5 %, in 100 repetitions."""
    alarms = 0
    for k in range(100):
        x, y = normals(k, (40, 3), (40, 3))
        alarms += classifier_test(x, y, seed=k).total_variation > 0
    assert alarms <= most(100, 0.05)


def test_features_are_what_it_uses(quick: None) -> None:
    x, y = normals(8, (1500, 1, 3), (1500, 1, 3))
    y[:, :, 2] += 10
    sizes: list[int] = []

    def first(v: Tensor) -> Tensor:
        sizes.append(len(v))
        return v[:, 0, 0]

    assert not classifier_test(x, y, features=first, seed=0).significant
    assert max(sizes) <= 1000 and sum(sizes) == 3000
    assert classifier_test(x, y, features=lambda v: v[:, 0, 1:], seed=0).value == 1
    for wrong in (lambda v: v[:1], lambda v: v.sum(), lambda v: v[:, :, :0]):
        with pytest.raises(InvalidArgumentError, match="features"):
            classifier_test(x[:1101], y[:1101], features=wrong, seed=0)
    with pytest.raises(InvalidTypeError, match="features"):
        classifier_test(x, y, features=lambda v: v.long(), seed=0)
    with pytest.raises(NonFiniteError, match="features"):
        classifier_test(x, y, features=lambda v: v[:, 0] / 0, seed=0)
    with pytest.raises(InvalidTypeError, match="callable"):
        classifier_test(x, y, features=3, seed=0)  # type: ignore[arg-type]


def test_it_trains_where_gradients_are_off(quick: None) -> None:
    x, y = normals(9, (60, 2), (60, 2))
    y = y + 3
    expected = classifier_test(x, y, seed=0)
    with torch.no_grad():
        assert classifier_test(x, y, seed=0).value == expected.value
    with torch.inference_mode():
        assert classifier_test(x.clone(), y.clone(), seed=0).value == expected.value
    torch.set_default_dtype(F64)
    assert classifier_test(x.requires_grad_(), y, seed=0).value == expected.value > 0.8


# Copies of the data


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

    data = data[:101]
    alone = nearest(x[:30], data)  # each row of every third, without itself
    others = (data.flatten(1)[::3, None] - data.flatten(1)).norm(dim=2)
    others[torch.arange(34), torch.arange(0, 101, 3)] = torch.inf
    torch.testing.assert_close(alone.held_out_distances, others.min(1)[0], rtol=1e-10, atol=0)


def test_its_statistics_are_those_of_scipy() -> None:
    """With ties, on lattices, and without."""
    for seed, round_to in ((11, 0), (12, 3)):
        x, data, held_out = normals(seed, (40, 1), (30, 1), (50, 1))
        if round_to:
            x, data, held_out = ((round_to * v).round() for v in (x, data, held_out))
        got = nearest(x, data, held_out, quantile=0.2)
        d, h = got.distances.numpy(), got.held_out_distances.numpy()
        result = stats.mannwhitneyu(d, h, alternative="less", method="asymptotic", use_continuity=False)
        assert got.p_value == pytest.approx(result.pvalue)
        assert got.value == pytest.approx(1 - result.statistic / 2000)
        assert got.significant == (got.value > got.floor) and got.z == pytest.approx(stats.norm.ppf(got.p_value))
        assert got.radius == sorted(h)[9] and got.expected == 10 / 51
        assert got.share == pytest.approx((d < got.radius).mean())
        assert got.share_p_value == pytest.approx(stats.betabinom(40, 10, 41).sf(40 * got.share - 1))


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


def test_both_tests_share_the_false_alarm_rate() -> None:
    x, data, held_out = normals(14, (20, 1), (20, 1), (20, 1))
    got = nearest(x, data, held_out)
    for p_value, share_p_value, found in ((0.03, 0.03, False), (0.025, 1.0, True), (1.0, 0.025, True)):
        assert replace(got, p_value=p_value, share_p_value=share_p_value).memorised == found


def test_its_interval_covers() -> None:
    """Where half of the samples are copies, the probability is 3/4: at least 92 % of 200 repetitions."""
    covered = 0
    for k in range(200):
        x, data, held_out = normals(k, (50, 2), (80, 2), (60, 2))
        low, high = nearest(torch.cat([data[:25], x[25:]]), data, held_out).interval
        covered += low <= 0.75 <= high
    assert covered >= 184


# All of them


@pytest.mark.parametrize("name", SEEDED)
def test_a_seed_determines_the_result_whatever_the_dtype(name: str, quick: None) -> None:
    x, y = (v.float() for v in normals(14, (40, 2, 2), (30, 2, 2)))
    state = torch.get_rng_state()
    first, again, other = (SEEDED[name](x, y, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert vars(first) == vars(again) != vars(other)
    assert str(first).startswith(type(first).__name__) and first.level == 0.95
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        x, y = (v.to(dtype) for v in (x, y))
        assert vars(SEEDED[name](x, y, seed=0)) == vars(SEEDED[name](x.double(), y.double(), seed=0)), dtype


def test_a_p_value_at_the_limit_is_significant() -> None:
    """1 - 0.9 is less than 0.1."""
    assert EnergyTest(1.0, (0.0, 2.0), 0.9, 0.5, 0.1).significant
    assert not EnergyTest(1.0, (0.0, 2.0), 0.9, 0.5, 0.101).significant


@pytest.mark.parametrize("name", SEEDED)
def test_the_level_and_the_unit(name: str, quick: None) -> None:
    """A higher level has a wider interval, and the result is that of the scaled samples."""
    x, y = normals(15, (40, 2), (30, 2))
    y = y + 0.5
    low, high = (SEEDED[name](x, y, level=level, seed=0) for level in (0.5, 0.99))
    assert high.interval[0] <= low.interval[0] <= low.interval[1] <= high.interval[1]
    assert high.interval != low.interval and low.floor <= high.floor
    for unit in (1e-100, 2.0**-20, 1e100):
        scaled = SEEDED[name](unit * x, unit * y, seed=0)
        factor = 1.0 if name == "classifier_test" else unit
        assert scaled.value == pytest.approx(factor * SEEDED[name](x, y, seed=0).value, rel=1e-5)


@pytest.mark.parametrize("name", SEEDED)
def test_samples_that_are_all_equal(name: str, quick: None) -> None:
    """No difference between equal constants; a certain one between different ones."""
    x = torch.full((30, 2), 0.1, dtype=F64)
    same, apart = (SEEDED[name](x, y, seed=0) for y in (x.clone(), x + 1))
    assert same.value == (0.5 if name == "classifier_test" else 0) and not same.significant
    assert same.p_value > 0.5 or name == "classifier_test"
    assert apart.significant and all(math.isfinite(v) for v in (apart.value, *apart.interval, apart.floor))
    duplicates = torch.arange(30.0)[:, None].remainder(3)
    assert not SEEDED[name](duplicates, duplicates.clone(), seed=0).significant


def test_rows_that_are_all_equal_are_as_near_as_each_other() -> None:
    x = torch.full((30, 2), 0.1)
    got = nearest(x, x, x)
    assert (got.value, got.z, got.share, got.p_value) == (0.5, 0.0, 0.0, 0.5) and not got.memorised


def test_refusals() -> None:
    x, y = (v.float() for v in normals(17, (20, 2), (20, 2)))
    calls: list[Callable[[Any, Any], Any]] = [
        lambda a, b: energy_test(a, b, seed=0),
        lambda a, b: sliced_wasserstein(a, b, seed=0),
        lambda a, b: sliced_wasserstein(x, a, b, seed=0),
        lambda a, b: classifier_test(a, b, seed=0),
        lambda a, b: nearest(a, b),
        lambda a, b: nearest(x, a, b),
    ]
    bad = y.clone()
    bad[3, 1] = torch.nan
    wrongs: list[tuple[type[Exception], list[Any]]] = [
        (InvalidArgumentError, [y[:, :1], y[:1], y[:0], y[:, 0], y[:, :0], y[:, :, None], y.double() * 1e200]),
        (NonFiniteError, [bad, y * 1e30 * 1e30]),
        (InvalidTypeError, [y.long(), y + 0j, y.numpy()]),
    ]
    for call in calls:
        for error, values in wrongs:
            for wrong in values:
                for pair in ((x, wrong), (wrong, x)):
                    with pytest.raises(error):
                        call(*pair)
    with pytest.raises(InvalidArgumentError, match=r"`x` must have at least 4 samples, got 3"):
        classifier_test(x[:3], y, seed=0)
    for test in SEEDED.values():
        for level in (0, 1, math.nan, 95):
            with pytest.raises(InvalidArgumentError, match="level"):
                test(x, y, level=level, seed=0)
        for seed, wrong_type in ((-1, InvalidArgumentError), (None, InvalidTypeError)):
            with pytest.raises(wrong_type, match="seed"):
                test(x, y, seed=seed)  # type: ignore[arg-type]
    for permutations in (0, 18, 10_000):
        for test in (energy_test, sliced_wasserstein):
            with pytest.raises(InvalidArgumentError, match="permutations"):
                test(x, y, permutations=permutations, seed=0)
    assert energy_test(x, y, permutations=19, seed=0).p_value >= 0.05
    with pytest.raises(InvalidArgumentError, match="projections"):
        sliced_wasserstein(x, y, projections=0, seed=0)
    with pytest.raises(InvalidArgumentError, match="quantile"):
        nearest(x, y, quantile=1.0)
