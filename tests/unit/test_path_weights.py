"""Weights of paths to a known target, divergences, and ratios in continuous time."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from benchmarks import path_densities
from benchmarks._tables import load
from scoresde import paths
from scoresde.core.errors import InvalidArgumentError, ScoreSDEWarning
from scoresde.paths.continuous import every_other

F64 = torch.float64
VP = scoresde.VPSDE()
NORMAL = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
LARGE = {"method": "ancestral", "variance": "large"}


def density(x: Tensor) -> Tensor:
    return NORMAL.log_prob(x, VP, VP.t_min)


def path_of(count: int = 2000, sde: scoresde.AffineSDE = VP, **options: object) -> paths.Path:
    given = {"steps": 20, "shape": (count, 2), "seed": 3, "dtype": F64, **options}
    return scoresde.solve(sde, NORMAL.score(sde), path_log_prob=True, **given).path


def test_all_weights_are_one_where_the_path_is_the_reverse_of_the_forward_process() -> None:
    """On N(0, I) under VP, steps with the large variance are exact, as is the prior."""
    found = paths.weights(path_of(50, **LARGE), density, NORMAL.score(VP))
    assert float(found.log_weights.abs().max()) < 1e-10
    assert abs(found.ess - 50) < 1e-8


CASES = {
    "moves": {"method": "pc", "predictor": "ancestral", "snr": 0.1},
    "underdamped moves": {
        "method": "pc",
        "corrector": scoresde.UnderdampedCorrector(moves=1, snr=0.2),
    },
    "stages": {"method": "seeds2"},
    "history": {"method": "dpmpp_2m_sde"},
    "predicted states": {"method": "sa_solver"},
    "small": {"method": "ancestral"},
    "two draws": {"method": "sra1"},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::scoresde.ScoreSDEWarning")
def test_the_mean_of_the_weights_is_the_normaliser(name: str) -> None:
    """For any method and any network. At 4 standard errors each, the family-wise false-alarm rate is below 1e-3 by the
    normal law; the noise at the end is large, which keeps the weights even."""
    wrong = scoresde.targets.Gaussian(torch.full((2,), 0.05, dtype=F64), torch.eye(2, dtype=F64)).score(VP)
    path = scoresde.solve(
        VP, wrong, steps=30, t_end=0.2, shape=(20_000, 2), seed=3, dtype=F64, path_log_prob=True, **CASES[name]
    ).path
    found = paths.weights(path, lambda x: NORMAL.log_prob(x, VP, 0.2) + math.log(3.0), wrong)
    w = found.log_weights.exp()
    assert found.ess > 0.02 * len(w)
    assert abs(float(w.mean()) - 3) < 4 * float(w.std()) / math.sqrt(len(w))


def test_a_tilt_is_found_and_resampled() -> None:
    tilt = torch.tensor([0.3, -0.2], dtype=F64)
    found = paths.weights(path_of(4000, **LARGE), lambda x: density(x) + x @ tilt, NORMAL.score(VP))
    interval = found.log_normaliser(0.999)
    assert interval.low < 0.5 * float(tilt.square().sum()) < interval.high
    mean = found.mean(lambda x: x[:, 0], 0.999)
    assert mean.low < 0.3 < mean.high
    again = found.resampled(seed=1)
    assert abs(float(again[:, 0].mean()) - 0.3) < 0.08 and len(found.resampled(7)) == 7
    counts = torch.stack([(again == row).all(1).sum() for row in found.x[:50]])
    expected = found.shares[:50] * len(again)
    assert bool(((counts - expected).abs() < 1).all())


def test_what_has_no_weights_is_refused() -> None:
    score_fn = NORMAL.score(VP)
    given = scoresde.solve(VP, score_fn, torch.ones(3, 2, dtype=F64), steps=5, path_log_prob=True, **LARGE).path
    flow = scoresde.FlowSDE(t_min=0.0)
    path = path_of(4, steps=4, **LARGE)
    for words, call in (
        ("prior_log_prob", lambda: paths.weights(given, density, score_fn)),
        ("last step", lambda: paths.weights(path_of(3, flow, method="ancestral"), density, NORMAL.score(flow))),
        (
            "depends on the state",
            lambda: paths.weights(path_of(3, method="pc", rule="dimension"), density, score_fn),
        ),
        (r"shape \(4,\)", lambda: paths.weights(path, lambda x: x, score_fn)),
        ("finite", lambda: paths.weights(path, lambda x: x[:, 0] * math.nan, score_fn)),
        ("no samples", lambda: paths.girsanov(path[[]], score_fn, score_fn)),
        *(
            ("two samples", lambda p=p, steps=steps: paths.divergence(p, score_fn, score_fn, steps=steps))
            for p, steps in ((path[[]], None), (path[[0]], None), (path, []))
        ),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            call()
    assert paths.divergence(path[[0, 1]], lambda x, t: 1.3 * score_fn(x, t), score_fn).low >= 0
    for weights in ([math.nan, 0.0], [-math.inf, -math.inf], [0.0] * 3):
        with pytest.raises(InvalidArgumentError):
            paths.Weights(torch.tensor(weights), torch.zeros(2, 1))


def test_outside_the_support_weights_are_zero() -> None:
    with pytest.warns(ScoreSDEWarning, match="are worth"):
        found = paths.weights(
            path_of(2000, **LARGE), lambda x: density(x).masked_fill(x[:, 0] < 0.5, -math.inf), NORMAL.score(VP)
        )
    interval = found.log_normaliser(0.999)
    exact = math.log(0.5 * math.erfc(0.5 / math.sqrt(2)))
    assert interval.low < exact < interval.high


def test_the_divergence_bounds_that_of_the_samples() -> None:
    """A shift of the mean by 0.3: samples are 0.045 nats apart, the paths at least as far."""
    shifted = scoresde.targets.Gaussian(torch.tensor([0.3, 0.0], dtype=F64), torch.eye(2, dtype=F64)).score(VP)
    path = scoresde.solve(VP, shifted, steps=100, shape=(500, 2), seed=0, dtype=F64, path_log_prob=True, **LARGE).path
    found = paths.divergence(path, shifted, NORMAL.score(VP))
    assert 0.0449 < found.low <= found.high < 0.1


def test_the_error_of_a_ratio_in_continuous_time_is_told() -> None:
    """Against the same paths on a grid that is eight times as fine, whose error is about the root of that smaller."""
    old = NORMAL.score(VP)

    def new(x: Tensor, t: Tensor) -> Tensor:
        return old(x, t) + 0.15 * torch.sin(2 * x)

    path = path_of(1000, steps=256, **LARGE)
    coarse = every_other(every_other(every_other(path)))
    exact, found = paths.girsanov(path, new, old), paths.girsanov(coarse, new, old)
    error = float((found.log_ratio - exact.log_ratio).square().mean().sqrt())
    assert 0.7 < found.error / error < 1.4
    assert 0.25 < exact.error / found.error < 0.45
    ratio = exact.log_ratio.exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(len(ratio))


def test_a_ratio_in_continuous_time_needs_states_at_the_nodes() -> None:
    for options in ({"method": "seeds2"}, {"method": "pc"}, {"method": "ancestral", "steps": 1}):
        with pytest.raises(InvalidArgumentError, match=r"one at the end of each step|has one step"):
            paths.girsanov(path_of(2, **options), NORMAL.score(VP), NORMAL.score(VP))
    with pytest.raises(InvalidArgumentError, match="stochasticity"):
        paths.girsanov(path_of(2, **LARGE), NORMAL.score(VP), NORMAL.score(VP), stochasticity=0.0)
    flow = scoresde.FlowSDE(t_min=0.0)
    last = scoresde.solve(flow, NORMAL.score(flow), shape=(2, 2), method="ancestral", steps=4, path_log_prob=True).path
    with pytest.raises(InvalidArgumentError, match="draws nothing in step 3"):
        paths.girsanov(last, NORMAL.score(flow), NORMAL.score(flow))


def test_the_noise_of_a_ratio_in_continuous_time_is_that_of_the_path() -> None:
    """The mean ratio is 1; three tests at |z| < 4.2, by 0.04 to 0.05."""
    old = NORMAL.score(VP)
    for options in (
        {"method": "euler_maruyama", "stochasticity": 0.5},
        {"method": "ddim_eta", "eta": 0.5},
        {"method": "sa_solver", "tau": 0.7, "corrector_order": 0},
    ):
        found = paths.girsanov(path_of(2000, steps=150, **options), lambda x, t: 1.1 * old(x, t), old)
        ratio = found.log_ratio.exp()
        assert abs(float(ratio.mean()) - 1) < 4.2 * float(ratio.std()) / math.sqrt(len(ratio)) + found.error**2, options
    for method in ("langevin", "er_sde1", "er_sde3"):
        with pytest.raises(InvalidArgumentError, match="do not follow the reverse SDE"):
            paths.girsanov(path_of(2, method=method, steps=4), old, old)


def test_uneven_weights_say_what_helps() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "euler_maruyama", "stochasticity": 0.5}, "noise of eta = 0.5"),
        ({"method": "er_sde1"}, "more steps do not help"),
        ({"method": "ancestral"}, "take more steps"),
        ({"method": "pc", "predictor": "ancestral", "snr": 0.1}, "take more steps"),
    ]
    for options, said in cases:
        with pytest.warns(ScoreSDEWarning, match=said):
            found = paths.weights(path_of(400, steps=12, **options), density, NORMAL.score(VP))
        assert found.ess < 200, options
    with pytest.warns(ScoreSDEWarning, match="are worth"):
        found = paths.weights(path_of(200, **LARGE), lambda x: density(x) + 4 * x[:, 0], NORMAL.score(VP))
    assert found.ess < 100


def test_the_committed_coverage_meets_the_bars_and_is_found_again() -> None:
    """The family-wise false-alarm rate of the full measurement is 1e-3; of 60 runs here, |z| below 4 (0.84)."""
    results = load("path_densities")["results"]
    assert set(results["coverage"]) == set(path_densities.PROBLEMS) and not path_densities.check(results)
    assert all(row["runs"] == path_densities.RUNS for row in results["coverage"].values())
    row = path_densities.coverage(2, 300, 60, runs=60)
    assert abs(row["z"]) < 4 and row["ess share"] > 0.7


@pytest.mark.slow
def test_the_gradient_from_paths_is_that_of_the_mean_reward() -> None:
    """Of E x^2 in the factor a of the score -a x. Two seeded tests at |z| < 3.5; a baseline lessens the spread.

    The chain is linear, x' = k(a) x + S z, so that the variance of its end is a function of a, which autograd
    differentiates.
    """
    count, chunks = 4000, 40
    a, variance = torch.ones((), dtype=F64, requires_grad=True), torch.ones((), dtype=F64)
    times = torch.linspace(1.0, 0.05, 9, dtype=F64)
    for t, s in itertools.pairwise(times.tolist()):
        here, there = VP.node(t), VP.node(s)
        mean, std = VP.posterior(torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64), s, t)
        data = (1 - here.sigma**2 * a) / here.alpha
        factor = mean.squeeze() + there.alpha * -math.expm1(2 * (here.lam - there.lam)) * data
        variance = factor**2 * variance + std.squeeze() ** 2
    (exact,) = torch.autograd.grad(variance, a)
    drawn = {"method": "ancestral", "grid": times, "shape": (count, 1), "seed": 0, "dtype": F64, "path_log_prob": True}
    path = scoresde.solve(VP, lambda x, t: -x, **drawn).path
    rewards = path.states[-1][:, 0].square()
    spread = []
    for baseline in (rewards.mean(), 0.0):
        gradients = []
        for rows in torch.arange(count).split(count // chunks):
            density = paths.log_prob(path[rows], VP, lambda x, t: -a * x)
            gradients.append(torch.autograd.grad(((rewards[rows] - baseline) * density).mean(), a)[0])
        each = torch.stack(gradients)
        assert abs((each.mean() - exact) / (each.std() / math.sqrt(chunks))) < 3.5
        spread.append(float(each.std()))
    assert spread[0] < spread[1]
