"""NCSNv2's techniques: distances, overlaps and steps, against the published figures and written-out dynamics."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import scoresde
from scoresde import InvalidArgumentError, InvalidTypeError, NonFiniteError
from scoresde.discrete import NoiseScales, ncsnv2

from .refusals import assert_refused

F64 = torch.float64
V, T = InvalidArgumentError, InvalidTypeError

# dimension, sigma_1, levels, moves, epsilon, spread: the five published configurations, sigma_L = 0.01
PUBLISHED = {
    "cifar10": (3072, 50.0, 232, 5, 6.2e-6, 1.0555),
    "celeba": (12288, 90.0, 500, 5, 3.3e-6, 1.031),
    "church": (27648, 140.0, 788, 4, 4.9e-6, 1.025),
    "bedroom": (49152, 190.0, 1086, 3, 1.8e-6, 1.017),
    "ffhq": (196608, 348.0, 2311, 3, 0.9e-6, 1.009),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_largest_distance_is_that_of_all_pairs() -> None:
    for event, seed in itertools.product([(1,), (3,), (2, 4, 4)], range(3)):
        data = torch.randn(200, *event, generator=generator(seed)) ** 3 + 10.0  # far from the origin, long tails
        flat = data.flatten(1).double()
        exact = float((flat[:, None] - flat[None]).norm(dim=-1).max())
        for chunk in (1, 7, 64, 1000):
            assert ncsnv2.largest_distance(data, chunk=chunk) == pytest.approx(exact, rel=1e-12), (event, seed, chunk)
        part, again = (ncsnv2.largest_distance(data, sample=20, generator=generator(1)) for _ in range(2))
        assert part == again < exact and ncsnv2.largest_distance(data, sample=200) == pytest.approx(exact, rel=1e-12)
    for i, j in itertools.permutations(range(6), 2):  # two corners of a cube among its centre, in any two blocks
        data = torch.zeros(6, 3)
        data[i], data[j] = 1.0, -1.0
        assert ncsnv2.largest_distance(data, chunk=2) == pytest.approx(math.sqrt(12), rel=1e-14)


def normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def test_overlap_is_the_published_expression() -> None:
    for d in (2, 50, 3072):
        for gamma in (1.0, 1.01, 1.3):
            middle = math.sqrt(2 * d) * (gamma - 1)
            wanted = normal_cdf(middle + 3 * gamma) - normal_cdf(middle - 3 * gamma)
            assert ncsnv2.overlap(d, gamma) == pytest.approx(wanted, rel=1e-11, abs=1e-14)
    assert 0 < ncsnv2.overlap(3072, 1.3) < 1e-80  # a tail that a difference of numbers near 1 loses


def test_ratio_solves_for_the_overlap() -> None:
    for d, target in itertools.product((5, 6, 50, 3072, 196608), (1e-6, 0.1, 0.5, 0.9, 0.99)):
        gamma = ncsnv2.ratio(d, target)
        assert gamma > 1
        assert ncsnv2.overlap(d, gamma) == pytest.approx(target, rel=1e-9), (d, target)
    assert ncsnv2.ratio(10**6) == pytest.approx(1 + 3 / math.sqrt(2e6), abs=1e-5)  # the limit of large dimensions


def test_the_levels_of_cifar10() -> None:
    """219 levels at an overlap of one half; the published 232 and the other lists overlap by 0.5662 to 0.5670."""
    levels = 1 + math.log(50 / 0.01) / math.log(ncsnv2.ratio(3072))
    assert round(levels) == 219
    for d, largest, count, *_ in PUBLISHED.values():
        gamma = (largest / 0.01) ** (1 / (count - 1))
        assert 0.566 < ncsnv2.overlap(d, gamma) < 0.567
        assert 1 + math.log(largest / 0.01) / math.log(ncsnv2.ratio(d, 0.5665)) == pytest.approx(count, rel=2e-3)


def test_the_levels_of_a_data_set() -> None:
    data = torch.rand(50, 1, 28, 28, generator=generator())
    chain = NoiseScales.ncsnv2(data, sigma_min=0.02, overlap=0.4, chunk=16)
    assert float(chain.sigmas[0]) == pytest.approx(0.02, rel=1e-12)
    assert float(chain.sigmas[-1]) == pytest.approx(ncsnv2.largest_distance(data), rel=1e-12)
    ratios = chain.sigmas[1:] / chain.sigmas[:-1]
    assert float(ratios.max() / ratios.min()) == pytest.approx(1.0, rel=1e-12)
    assert ncsnv2.overlap(784, float(ratios[0])) == pytest.approx(0.4, abs=0.01)  # rounded to a number of levels
    assert chain.labels[-1] == 0  # the noisiest first, as in NCSN's list
    sampled = NoiseScales.ncsnv2(data, sample=10, generator=generator(2))
    assert sampled.sigmas[-1] < chain.sigmas[-1]


def test_the_published_spreads() -> None:
    for name, (_, largest, count, moves, epsilon, wanted) in PUBLISHED.items():
        gamma = (largest / 0.01) ** (1 / (count - 1))
        assert ncsnv2.spread(epsilon / 1e-4, moves, gamma) == pytest.approx(wanted, abs=5e-4), name
        # in the paper's own symbols
        s2, a = 1e-4, epsilon
        k = 2 * a / (s2 - s2 * (1 - a / s2) ** 2)
        exact = (1 - a / s2) ** (2 * moves) * (gamma**2 - k) + k
        assert ncsnv2.spread(a / s2, moves, gamma) == pytest.approx(exact, rel=1e-11), name


def test_the_best_step_is_the_published_one() -> None:
    """To the two digits that are published; of LSUN church 4.9e-6 is, where 2.3e-6 is best."""
    for name, (_, largest, count, moves, epsilon, _) in PUBLISHED.items():
        got = NoiseScales.geometric(count, 0.01, largest).langevin_step(moves)
        if name == "church":
            gamma = (largest / 0.01) ** (1 / (count - 1))
            best = ncsnv2.best_step(moves, gamma)
            assert got == pytest.approx(best * 1e-4) == pytest.approx(2.31e-6, rel=2e-3)
            assert ncsnv2.spread(best, moves, gamma) < ncsnv2.spread(epsilon / 1e-4, moves, gamma) - 0.002
        else:
            assert float(f"{got:.1e}" if name != "ffhq" else f"{got:.0e}") == pytest.approx(epsilon, rel=1e-12), name


def test_the_best_step_has_the_least_spread() -> None:
    places = torch.linspace(1e-3, 8, 400).tolist()
    for moves, gamma in itertools.product((1, 2, 5, 100), (1.0 + 1e-6, 1.0045, 1.04, 1.668, 5.0, 1000.0)):
        best = ncsnv2.best_step(moves, gamma)
        assert 0 < best < 1
        least = ncsnv2.spread(best, moves, gamma)
        everywhere = [ncsnv2.spread(10**-e, moves, gamma) for e in [*places, -math.log10(best) + 1e-3]]
        assert least <= min(everywhere) * (1 + 1e-13), (moves, gamma)
        assert least > 1  # no step keeps the level's own variance
    chain = NoiseScales([0.01, 0.011, 0.02, 0.021])  # the step of an uneven list is that of its widest ratio
    assert chain.langevin_step(3) == pytest.approx(ncsnv2.best_step(3, 2 / 1.1) * 1e-4, rel=1e-9)


def chain_variances(chain: NoiseScales, epsilon: float, moves: int, score) -> float:
    """The variance that the solver itself leaves at the last level, by probing it with one draw at a time.

    The samples are linear in the start and the draws; row k of the batch sees a 1 at draw k and 0 elsewhere.
    """
    sde = chain.sde()
    draws = len(chain) * moves
    x = torch.zeros(draws + 1, 1, dtype=F64)
    x[0] = float(chain.sigmas[-1])  # one deviation of the start
    seen: list[int] = []

    def unit(k: int, like: torch.Tensor) -> torch.Tensor:
        seen.append(k)
        out = torch.zeros_like(like)
        out[len(seen)] = 1.0
        return out

    solution = scoresde.solve(
        sde, score, x, method="annealed_langevin", epsilon=epsilon, moves=moves, grid=chain.grid(), noise=unit
    )
    assert len(seen) == draws
    return float(solution.x.square().sum()) / float(chain.sigmas[0]) ** 2


@pytest.mark.parametrize("count", [2, 5, 40])
def test_the_spread_is_that_of_the_solver(count: int) -> None:
    gamma, moves = 1.04, 3
    chain = NoiseScales.geometric(count, 0.01, 0.01 * gamma ** (count - 1))
    sde = chain.sde()
    epsilon = chain.langevin_step(moves)
    got = chain_variances(chain, epsilon, moves, lambda x, t: -x / sde.sigma(t.double())[:, None] ** 2)
    step = epsilon / 1e-4
    variance = ncsnv2.spread(step, moves, 1.0)  # the first level starts with its own variance
    for _ in range(count - 1):
        variance = ncsnv2.spread(step, moves, gamma, variance)
    assert got == pytest.approx(variance, rel=1e-10)


DATA = torch.randn(4, 6, generator=generator())
BAD = [
    (lambda: ncsnv2.largest_distance(torch.ones(3, 2, dtype=torch.long)), T, ("`data`", "int64")),
    (lambda: ncsnv2.largest_distance(torch.ones(5, 2)), V, ("`data`", "all are the same")),
    (lambda: ncsnv2.largest_distance(torch.tensor([[1.0], [math.inf]])), NonFiniteError, ("`data`", "NaN")),
    (lambda: ncsnv2.largest_distance(DATA, chunk=0), V, ("`chunk`", "0")),
    (lambda: ncsnv2.overlap(5, 0.9), V, ("`ratio`", "0.9")),
    (lambda: ncsnv2.ratio(4), V, ("`dimension`", "4", "NoiseScales.geometric")),
    (lambda: ncsnv2.ratio(3072, 1.0), V, ("`target`", "1.0")),
    (lambda: ncsnv2.spread(2.0, 5, 1.1), V, ("`step`", "2.0")),
    (lambda: ncsnv2.spread(0.1, 0, 1.1), V, ("`moves`", "0")),
    (lambda: ncsnv2.best_step(5, 1.0), V, ("`ratio`", "1.0")),
    (lambda: NoiseScales.ncsnv2(DATA, sigma_min=1e3), V, ("`sigma_min`", "largest distance", "1000")),
    (lambda: NoiseScales.ncsnv2(DATA[:, :3]), V, ("`dimension`", "3")),
]


def test_refuses_bad_input() -> None:
    assert_refused(BAD)
