"""NCSN's sampler, against its published loop written out and its known fixed points."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import targets, testing
from scoresde.discrete import NoiseScales

F64 = torch.float64
CHAIN = NoiseScales.geometric(5, 0.1, 1.0)
TARGET = targets.GaussianMixture(
    torch.tensor([0.3, 0.7]), torch.tensor([[-0.5, 0.2], [0.4, 0.6]], dtype=F64), scales=0.2
)


def one_point(sde: scoresde.AffineSDE) -> Any:
    """The score of data that are zero: every level's distribution is N(0, sigma^2)."""
    return targets.Empirical(torch.zeros(1, 1, dtype=F64)).score(sde)


def published(x: Tensor, draws: Tensor, epsilon: float, moves: int, halved: bool) -> Tensor:
    """Algorithm 1 for sigma_1 > ... > sigma_L; ``halved`` as in the paper, otherwise as in its code."""
    sde = CHAIN.sde()
    score = TARGET.score(sde)
    sigmas = CHAIN.sigmas.flip(0)
    k = 0
    for sigma in sigmas:
        size = epsilon * sigma**2 / sigmas[-1] ** 2
        size = size / 2 if halved else size
        for _ in range(moves):
            t = float(sde.time(-2 * sigma.log()))
            x = x + size * score(x, t) + torch.sqrt(2 * size) * draws[k]
            k += 1
    return x


@pytest.mark.parametrize("convention", ["code", "paper"])
def test_it_is_the_published_loop(convention: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 2, dtype=F64, generator=generator)
    draws = torch.randn(5 * 3, 6, 2, dtype=F64, generator=generator)
    options: dict[str, Any] = {"method": "annealed_langevin", "epsilon": 2e-3, "moves": 3, "convention": convention}
    options |= {"grid": CHAIN.grid(), "noise": lambda k, like: draws[k]}
    got = scoresde.solve(CHAIN.sde(), TARGET.score(CHAIN.sde()), x, **options)
    torch.testing.assert_close(got.x, published(x, draws, 2e-3, 3, convention == "paper"), rtol=1e-11, atol=1e-12)
    assert got.evaluations == 15
    assert got.t.tolist() == [0.0] * 6


@pytest.mark.parametrize(("convention", "inflation"), [("code", 1 / 0.9), ("paper", 1 / 0.95)])
def test_its_stationary_variance(convention: str, inflation: float) -> None:
    """The published step makes the distribution of data at one point 11 % (5 %) too wide."""
    chain = NoiseScales.geometric(3, 0.01, 0.02)
    sde = chain.sde()

    def run(shape: tuple[int, ...], draw: testing.Draw) -> Tensor:
        start = draw(0, torch.empty(shape, dtype=F64))
        options = {"epsilon": 2e-5, "moves": 60, "convention": convention, "grid": chain.grid()}
        noise = {"noise": lambda k, like: draw(k + 1, like)}
        return scoresde.solve(sde, one_point(sde), start, method="ncsn", **noise, **options).x

    assert float(testing.probe(run, (1,)).covariance) / 1e-4 == pytest.approx(inflation, rel=1e-4)


def test_every_process_and_every_level() -> None:
    """The move of a level is the same share of its noise on every process, and no level is passed over."""
    for process in (scoresde.VESDE(), scoresde.VPSDE(), scoresde.FlowSDE()):
        times = process.time(torch.tensor([-2.0, 0.0, 2.0], dtype=F64))
        options: dict[str, Any] = {"method": "annealed_langevin", "moves": 1, "grid": times}
        options |= {"epsilon": 0.2 * float(process.sigma(times[-1])) ** 2}
        options |= {"noise": lambda k, like: torch.full_like(like, float(k == 0))}
        solution = scoresde.solve(process, one_point(process), torch.zeros(1, 1, dtype=F64), **options)
        assert solution.evaluations == 3
        # a move of the first level draws sqrt(2 a) z with a = 0.2 sigma^2; the others draw 0 and keep 0.8 each
        first = math.sqrt(0.4) * float(process.sigma(times[0]))
        assert float(solution.x) == pytest.approx(first * 0.8**2, rel=1e-12), process


def test_moves_that_diverge_are_refused() -> None:
    chain = NoiseScales.geometric(5, 0.002, 1.0)
    sde = chain.sde()
    options = {"method": "ncsn", "grid": chain.grid(), "moves": 1, "epsilon": 2e-5}
    with pytest.raises(scoresde.InvalidArgumentError, match=r"diverge.*below 8e-06.*published one is 8e-07"):
        scoresde.solve(sde, lambda x, t: -x, torch.zeros(1, 2), **options)
    with pytest.raises(scoresde.InvalidArgumentError, match=r"below 1\.6e-05"):
        scoresde.solve(sde, lambda x, t: -x, torch.zeros(1, 2), convention="paper", **options)
    x = torch.ones(2, 2)
    given, left = (
        scoresde.solve(sde, lambda x, t: -x, x, **{**options, "epsilon": value}, seed=0).x for value in (8e-7, None)
    )
    torch.testing.assert_close(given, left)
    for options in ({"epsilon": 0.0}, {"moves": 0}, {"convention": "Code"}, {"epsilon": math.nan}):
        with pytest.raises(scoresde.InvalidArgumentError):
            scoresde.solvers.AnnealedLangevin(**options)
