"""Densities of paths: against the law of all random states together, and of recorded paths under other networks.

A solve is a map from its draws z to its random states V, which the tests take apart by giving it the draws. On Gaussian
data it is affine, :math:`V = m + A z`, so that :math:`V \\sim N(m, A A^T)`; on any data the density of V is that of z over
the determinant of the map's derivative. Neither knows anything of steps or stages.
"""

from __future__ import annotations

import math
from pathlib import Path as FilePath

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import paths
from scoresde.correctors import LangevinCorrector, MALACorrector, UnderdampedCorrector
from scoresde.errors import CorruptCheckpointError, InvalidArgumentError, InvalidTypeError
from scoresde.solvers import DDIMEta, SASolver, make_solver

F64 = torch.float64
SDES = {"vp": scoresde.VPSDE(), "ve": scoresde.VESDE(sigma_max=10.0), "flow": scoresde.FlowSDE()}
# every method whose steps have densities, with the options in which they differ
GAUSSIAN = {
    **{
        method.name: {"method": method.name}
        for method in scoresde.methods()
        if method.stochastic and method.name != "cas" and make_solver(method.name, {}, ()).gaussian_step
    },
    "annealed_langevin": {"method": "annealed_langevin", "moves": 2},
    "ncsn": {"method": "ncsn", "moves": 2},
    "cas": {"method": "cas", "epsilon": 0.98},
    "ancestral large": {"method": "ancestral", "variance": "large"},
    "ddim_eta half": {"method": "ddim_eta", "eta": 0.5},
    "dpmpp_2m_sde taylor": {"method": "dpmpp_2m_sde", "form": "taylor", "eta": 0.6},
    "dpmpp_sde third": {"method": "dpmpp_sde", "r": 0.3, "eta": 0.8},
    "sa_solver 3, 4": {"method": "sa_solver", "predictor_order": 3, "corrector_order": 4, "tau": 0.5},
    "sa_solver without a corrector": {"method": "sa_solver", "corrector_order": 0},
    "pc ancestral, twice": {"method": "pc", "predictor": "ancestral", "moves": 2},
    "pc, predicted first": {"method": "pc", "order": "pc"},
    "pc of the flow": {"method": "pc", "predictor": "ddim", "order": "pc"},
    "pc underdamped": {"method": "pc", "corrector": UnderdampedCorrector(moves=1)},
    "pc underdamped, three moves": {"method": "pc", "corrector": UnderdampedCorrector(moves=3)},
    "pc of stages": {"method": "pc", "predictor": "seeds2"},
}
BY_DIMENSION = {"method": "pc", "rule": "dimension"}


class Draws:
    """Draws that are given, in order; zero beyond them."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.count = values, 0

    def __call__(self, k: int, like: Tensor) -> Tensor:
        self.count = max(self.count, k + 1)
        return self.values[k].expand_as(like).clone() if k < len(self.values) else torch.zeros_like(like)


def recorded(sde, score_fn, x, draws, **options):
    source = Draws(draws)
    solution = scoresde.solve(sde, score_fn, x, noise=source, path_log_prob=True, dtype=F64, **options)
    return solution, source.count


def states_of(sde, score_fn, x, draws, **options) -> Tensor:
    """All random states as one vector."""
    solution, _ = recorded(sde, score_fn, x, draws, **options)
    return torch.stack(solution.path.states).flatten()


def times(sde) -> Tensor:
    """An uneven grid of three steps."""
    span = sde.t_max - sde.t_min
    return sde.t_min + span * torch.tensor([0.9, 0.55, 0.3, 0.05], dtype=F64)


def gaussian(dim: int = 2) -> scoresde.targets.Gaussian:
    return scoresde.targets.Gaussian(torch.linspace(0.5, 1.0, dim, dtype=F64), torch.linspace(1.0, 0.2, dim, dtype=F64))


def mixture() -> scoresde.targets.GaussianMixture:
    means = torch.tensor([[-1.0], [0.8]], dtype=F64)
    return scoresde.targets.GaussianMixture(torch.tensor([0.4, 0.6], dtype=F64), means, scales=0.4)


def labelled(sde):
    """A guided score function with labels, affine in x."""
    one, two = gaussian().score(sde), scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    null = two.score(sde)

    def by_label(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return torch.where((label == 1)[:, None], one(x, t), 2.0 * null(x, t))

    return scoresde.guidance.classifier_free(by_label, null, 1.5)


def law(sde, score_fn, x, shape, **options) -> float:
    """The log-density of the states of a solve with some draws, from the affine map of all draws; and theirs."""
    size = math.prod(shape)
    _, count = recorded(sde, score_fn, x, torch.zeros(0, *shape, dtype=F64), **options)
    draws = torch.randn(count, *shape, dtype=F64, generator=torch.Generator().manual_seed(1))
    solution, _ = recorded(sde, score_fn, x, draws, **options)
    there = torch.stack(solution.path.states).flatten()
    mean = states_of(sde, score_fn, x, torch.zeros_like(draws), **options)
    columns = []
    for i in range(count * size):
        unit = torch.zeros(count * size, dtype=F64)
        unit[i] = 1.0
        columns.append(states_of(sde, score_fn, x, unit.reshape(draws.shape), **options) - mean)
    a = torch.stack(columns, 1)
    if len(there) == draws.numel():
        expected = -0.5 * (draws.square().sum() + len(there) * math.log(2 * math.pi)) - torch.linalg.slogdet(a)[1]
    else:  # some draws are integrated out
        r = torch.linalg.qr(a.T).R
        off = torch.linalg.solve_triangular(r.T, (there - mean)[:, None], upper=False)
        size = len(there) * math.log(2 * math.pi)
        expected = -0.5 * (off.square().sum() + size) - r.diagonal().abs().log().sum()
    return float(solution.path_log_prob[0] - expected)


@pytest.mark.parametrize("name", GAUSSIAN)
@pytest.mark.parametrize("process", SDES)
def test_on_gaussians_it_is_the_density_of_all_states_together(process: str, name: str) -> None:
    sde = SDES[process]
    x = torch.full((1, 2), 0.7, dtype=F64)
    off = law(sde, gaussian().score(sde), x, (1, 2), grid=times(sde), **GAUSSIAN[name])
    assert abs(off) < 1e-10


@pytest.mark.parametrize("name", ["ancestral", "dpmpp_3m_sde", "sa_solver", "seeds3", "pc", "sra1"])
def test_with_labels_and_guidance(name: str) -> None:
    sde = SDES["vp"]
    x = torch.full((1, 2), 0.7, dtype=F64)
    options = {"grid": times(sde), "context": {"label": torch.ones(1)}, **GAUSSIAN[name]}
    assert abs(law(sde, labelled(sde), x, (1, 2), **options)) < 1e-10


@pytest.mark.parametrize("name", [*GAUSSIAN, "pc, dimension"])
def test_on_other_data_it_is_the_density_of_the_draws_over_the_determinant(name: str) -> None:
    options = {**(BY_DIMENSION if name == "pc, dimension" else GAUSSIAN[name])}
    sde = SDES["vp"]
    score_fn, x = mixture().score(sde), torch.full((1, 1), 0.3, dtype=F64)
    options["grid"] = times(sde)
    solution, count = recorded(sde, score_fn, x, torch.zeros(0, 1, 1, dtype=F64), **options)
    if count != len(solution.path.states):
        pytest.skip("more draws than states")
    draws = torch.randn(count, 1, 1, dtype=F64, generator=torch.Generator().manual_seed(2))
    solution, _ = recorded(sde, score_fn, x, draws, **options)
    step, columns = 1e-3, []
    for i in range(count):
        unit = torch.zeros_like(draws)
        unit[i] = step
        near, far = (
            states_of(sde, score_fn, x, draws + k * unit, **options)
            - states_of(sde, score_fn, x, draws - k * unit, **options)
            for k in (1, 2)
        )
        columns.append((8 * near - far) / (12 * step))
    expected = (
        -0.5 * (draws.square().sum() + count * math.log(2 * math.pi)) - torch.linalg.slogdet(torch.stack(columns, 1))[1]
    )
    assert abs(float(solution.path_log_prob[0] - expected)) < 1e-8


@pytest.mark.parametrize("moves", [1, 2])
def test_moves_with_more_draws_than_states_by_quadrature(moves: int) -> None:
    """The first velocity is integrated out."""
    sde = SDES["vp"]
    score_fn, x = mixture().score(sde), torch.full((1, 1), 0.3, dtype=F64)
    corrector = UnderdampedCorrector(moves=moves, snr=0.5)
    options = {"method": "pc", "predictor": "ddim", "order": "pc", "corrector": corrector, "grid": times(sde)[:2]}
    draws = torch.tensor([0.3, -0.8, 0.5], dtype=F64)[: moves + 1]
    solution, _ = recorded(sde, score_fn, x, draws[:, None, None], **options)
    there = torch.stack(solution.path.states).flatten()

    def draws_to(velocity: Tensor) -> tuple[Tensor, Tensor]:
        """The other draws that lead there from a velocity, one after the other, and the slopes of the states."""
        known, slopes = velocity[:, None], []
        rows = len(velocity)
        for i in range(moves):
            pair = []
            for value in (0.0, 1.0):
                given = torch.cat([known, torch.full((rows, 1), value, dtype=F64)], 1)
                source = given.T[:, :, None]
                solution = scoresde.solve(
                    sde, score_fn, x.expand(rows, 1), noise=Draws(source), path_log_prob=True, dtype=F64, **options
                )
                pair.append(solution.path.states[i][:, 0])
            slope = pair[1] - pair[0]
            known = torch.cat([known, ((there[i] - pair[0]) / slope)[:, None]], 1)
            slopes.append(slope)
        return known, torch.stack(slopes, 1)

    velocity = torch.linspace(-9, 9, 1801, dtype=F64)
    known, slopes = draws_to(velocity)
    inside = -0.5 * (known.square().sum(1) + (moves + 1) * math.log(2 * math.pi)) - slopes.log().sum(1)
    expected = inside.logsumexp(0) + math.log(0.01)
    assert abs(float(solution.path_log_prob[0] - expected)) < 1e-9


def test_a_learned_variance() -> None:
    """Each element has its own."""
    sde = SDES["vp"]
    model = scoresde.ScoreModel(
        lambda x, t: torch.cat([0.3 * x, torch.sin(3 * x)], 1), sde, "noise", variance="learned_range"
    )
    options = {"method": "ancestral", "variance": "learned", "grid": times(sde)}
    x = torch.full((1, 2), 0.4, dtype=F64)
    draws = torch.randn(3, 1, 2, dtype=F64, generator=torch.Generator().manual_seed(3))
    solution, _ = recorded(sde, model, x, draws, **options)
    state, expected = x, 0.0
    for t, s, after in zip(times(sde)[:-1], times(sde)[1:], solution.path.states, strict=True):
        start, stop = sde.node(float(t)), sde.node(float(s))
        shrink = -math.expm1(2 * (start.lam - stop.lam))
        v = 0.5 * (torch.sin(3 * state) + 1)
        std = start.sigma**v * stop.sigma ** (1 - v) * math.sqrt(shrink)
        data = (state - start.sigma * 0.3 * state) / start.alpha
        mean = stop.alpha * shrink * data + stop.sigma**2 * start.alpha / (start.sigma**2 * stop.alpha) * state
        expected += float(torch.distributions.Normal(mean, std).log_prob(after).sum())
        state = after
    assert abs(float(solution.path_log_prob[0]) - expected) < 1e-10
    again = paths.log_prob(solution.path, sde, model)
    assert bool((again == solution.path_log_prob).all())


CASES = [*GAUSSIAN, "pc, dimension"]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", CASES)
def test_samples_stay_the_same_and_a_replay_gives_the_same_bits(name: str, dtype: torch.dtype) -> None:
    options = BY_DIMENSION if name == "pc, dimension" else GAUSSIAN[name]
    sde = SDES["vp"]
    score_fn = gaussian().score(sde)
    given = {"steps": 5, "shape": (3, 2), "seeds": [4, 5, 6], "dtype": dtype, **options}
    plain = scoresde.solve(sde, score_fn, **given)
    solution = scoresde.solve(sde, score_fn, path_log_prob=True, **given)
    assert torch.equal(plain.x, solution.x)
    assert solution.path_log_prob.dtype == F64
    with torch.no_grad():
        again = paths.log_prob(solution.path, sde, score_fn, per_step=True)
    assert torch.equal(again, solution.path.log_probs)
    assert torch.equal(paths.log_prob(solution.path, sde, score_fn, per_step=True), again)  # with checkpoints
    one_by_one = [paths.log_prob(solution.path, sde, score_fn, steps=[i], per_step=True) for i in range(again.shape[1])]
    assert torch.equal(torch.cat(one_by_one, 1), again)
    sums = scoresde.solve(sde, score_fn, path_log_prob="sums", **given)
    assert torch.equal(sums.path_log_prob, solution.path_log_prob)
    assert not sums.path.states
    alone = scoresde.solve(sde, score_fn, path_log_prob=True, **{**given, "shape": (1, 2), "seeds": [5]})
    torch.testing.assert_close(
        alone.path_log_prob, solution.path_log_prob[1:2], rtol=1e-5 if dtype != F64 else 1e-12, atol=1e-5
    )


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor([0.4, -0.3], dtype=F64))
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.a[0] * torch.tanh(x + self.a[1]) + 0.5 * x * t[:, None]


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_differences(name: str) -> None:
    options = BY_DIMENSION if name == "pc, dimension" else GAUSSIAN[name]
    sde, net = SDES["vp"], Network()
    model = scoresde.ScoreModel(net, sde, "noise")
    path = scoresde.solve(sde, model, steps=4, shape=(2, 2), seed=0, dtype=F64, path_log_prob=True, **options).path
    value = paths.log_prob(path, sde, model)
    (gradient,) = torch.autograd.grad(value.sum(), net.a)
    for i in range(2):
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                net.a[i] += sign * 1e-5
                ends.append(float(paths.log_prob(path, sde, model).sum()))
                net.a[i] -= sign * 1e-5
        assert abs((ends[0] - ends[1]) / 2e-5 - float(gradient[i])) <= 1e-6 * max(1.0, abs(float(gradient[i])))
