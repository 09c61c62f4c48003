"""Densities of paths: against the law of all random states together, and of recorded paths under other networks.

A solve is a map from its draws z to its random states V, which the tests take apart by giving it the draws. On Gaussian
data it is affine, :math:`V = m + A z`, so that :math:`V \\sim N(m, A A^T)`. On any data the density of V is that of z
over the determinant of the map's derivative. Neither knows anything of steps or stages.
"""

from __future__ import annotations

import json
import math
import weakref
from dataclasses import replace
from pathlib import Path as FilePath

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import guidance, paths
from scoresde.correctors import LangevinCorrector, MALACorrector, UnderdampedCorrector
from scoresde.errors import CorruptCheckpointError, InvalidArgumentError, InvalidTypeError, NonFiniteError, ScoreFnError
from scoresde.solvers import DDIMEta, make_solver

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
CASES = [*GAUSSIAN, "pc, dimension"]


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


@pytest.mark.parametrize("process", SDES)
@pytest.mark.parametrize("name", [name for name in CASES if "underdamped" not in name])
def test_on_other_data_it_is_the_density_of_the_draws_over_the_determinant(name: str, process: str) -> None:
    options = {**(BY_DIMENSION if name == "pc, dimension" else GAUSSIAN[name])}
    sde = SDES[process]
    score_fn, x = mixture().score(sde), torch.full((1, 1), 0.3, dtype=F64)
    options["grid"] = times(sde)
    solution, count = recorded(sde, score_fn, x, torch.zeros(0, 1, 1, dtype=F64), **options)
    assert count == len(solution.path.states)
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


class Kept(torch.autograd.Function):
    """a tanh(x), which keeps a tensor for its gradient; counts how many of those are there at a time."""

    alive = most = 0

    @staticmethod
    def forward(ctx, a: Tensor, x: Tensor) -> Tensor:
        kept = torch.tanh(x)
        Kept.alive += 1
        Kept.most = max(Kept.most, Kept.alive)
        weakref.finalize(kept, Kept.gone)
        ctx.save_for_backward(kept)
        return a * kept

    @staticmethod
    def gone() -> None:
        Kept.alive -= 1

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, None]:
        return (slope * ctx.saved_tensors[0]).sum(), None


@pytest.mark.parametrize("name", ["ancestral", "dpmpp_3m_sde", "pc", "seeds3"])
def test_one_step_at_a_time_is_in_memory(name: str) -> None:
    sde, most = SDES["vp"], []
    a = torch.tensor(0.3, dtype=F64, requires_grad=True)
    for steps in (4, 24):
        path = scoresde.solve(
            sde,
            lambda x, t: -0.3 * x,
            method=name,
            steps=steps,
            shape=(2, 2),
            seed=0,
            dtype=F64,
            path_log_prob=True,
        ).path
        Kept.most = 0
        value = paths.log_prob(path, sde, lambda x, t: Kept.apply(a, x)).sum()
        assert Kept.alive == 0
        value.backward()
        most.append(Kept.most)
    assert most[0] == most[1] <= 3


@pytest.mark.parametrize("name", ["ancestral", "dpmpp_3m_sde", "pc", "seeds3"])
def test_without_checkpoints_the_network_is_called_once_and_the_gradient_is_the_same(name: str) -> None:
    sde, net = SDES["vp"], Network()
    model = scoresde.ScoreModel(net, sde, "noise")
    path = scoresde.solve(sde, model, method=name, steps=4, shape=(2, 2), seed=0, dtype=F64, path_log_prob=True).path
    ways = {
        "log_prob": lambda **given: paths.log_prob(path, sde, model, **given),
        "log_ratio": lambda **given: paths.log_ratio(path, model, steps=[1, 2], per_step=True, **given),
        "kl": lambda **given: paths.kl(path, model, lambda x, t: -x, steps=[3], **given),
    }
    for way in ways.values():
        found, calls = [], []
        for checkpoint in (True, False):
            net.calls = 0
            value = way(checkpoint=checkpoint)
            once = net.calls
            found.append([value, *torch.autograd.grad(value.sum(), net.a)])
            calls.append((once, net.calls))
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        once = calls[0][0]
        assert calls == [(once, 2 * once), (once, once)] and once
        with pytest.raises(InvalidTypeError, match="`checkpoint`"):
            way(checkpoint=1)


def tilted_pair(sde):
    """Two score functions whose paths have similar laws."""
    one = mixture().score(sde)
    return one, lambda x, t: one(x, t) + 0.3 * torch.tanh(x)


@pytest.mark.parametrize("name", CASES)
def test_the_mean_of_the_ratio_of_two_laws_is_one(name: str) -> None:
    """At 4.2 standard errors of each method, the family-wise false-alarm rate is below 1e-3 by the normal law."""
    options = BY_DIMENSION if name == "pc, dimension" else GAUSSIAN[name]
    sde = SDES["vp"]
    size = 16 if options is BY_DIMENSION else 1  # in which few scores are near zero
    old = gaussian(size).score(sde) if size > 1 else mixture().score(sde)
    path = scoresde.solve(
        sde, old, steps=6, t_end=0.05, shape=(4000, size), seed=1, dtype=F64, path_log_prob=True, **options
    ).path

    def ratios(share: float) -> Tensor:
        with torch.no_grad():
            return paths.log_ratio(path, lambda x, t: old(x, t) + share * torch.tanh(x))

    ratio = ratios(0.4 * 1e-4 / float(ratios(1e-4).std())).exp()  # laws that are near enough
    assert 0.3 < float(ratio.log().std()) < 0.5
    assert abs(float(ratio.mean()) - 1) < 4.2 * float(ratio.std()) / math.sqrt(len(ratio))


def test_chosen_steps_are_an_estimate_of_all() -> None:
    sde = SDES["vp"]
    old, new = tilted_pair(sde)
    path = scoresde.solve(sde, old, method="dpmpp_2m_sde", steps=8, shape=(5, 1), seed=1, path_log_prob=True).path
    whole = paths.log_ratio(path, new, old, per_step=True)
    part = paths.log_ratio(path, new, steps=[1, 5], per_step=True)
    assert torch.equal(part, whole[:, [1, 5]])
    torch.testing.assert_close(paths.log_ratio(path, new, steps=[5, 1]), part.sum(1))


def test_the_divergence_is_in_closed_form() -> None:
    """On a grid of one step it is the mean of the log-ratio over the other end, here by quadrature."""
    sde = SDES["vp"]
    old, new = tilted_pair(sde)
    x = torch.full((401, 1), 0.4, dtype=F64)
    grid = torch.tensor([0.8, 0.5], dtype=F64)
    z = torch.linspace(-10, 10, 401, dtype=F64)
    path = scoresde.solve(
        sde, new, x, method="ancestral", grid=grid, noise=lambda k, like: z[:, None].clone(), path_log_prob=True
    ).path
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    expected = (density * paths.log_ratio(path, new, old)).sum() * 0.05
    divergence = paths.kl(path, new, old)
    torch.testing.assert_close(divergence, expected.expand(401), rtol=1e-10, atol=1e-12)


def test_another_stochasticity_and_other_variances() -> None:
    """A path of one eta under another; the divergence of laws with two variances, against torch's."""
    sde = SDES["vp"]
    score_fn = mixture().score(sde)
    path = scoresde.solve(
        sde, score_fn, method="ddim_eta", steps=3, shape=(2, 1), seed=0, dtype=F64, path_log_prob=True
    ).path
    half = paths.log_prob(path, sde, score_fn, method=DDIMEta(eta=0.5), per_step=True)
    same = paths.log_prob(path, sde, score_fn, method="ancestral", per_step=True)
    torch.testing.assert_close(same, path.log_probs, rtol=1e-12, atol=1e-12)
    states = [path.start, *path.states]
    for i, (t, s) in enumerate(zip(path.times[:-1], path.times[1:], strict=True)):
        start, stop = sde.node(float(t)), sde.node(float(s))
        score = score_fn(states[i], t.expand(2))
        data = (states[i] + start.sigma**2 * score) / start.alpha
        std = 0.5 * stop.sigma * math.sqrt(-math.expm1(2 * (start.lam - stop.lam)))
        mean = stop.alpha * data - math.sqrt(stop.sigma**2 - std**2) * start.sigma * score
        expected = torch.distributions.Normal(mean, std).log_prob(states[i + 1])[:, 0]
        torch.testing.assert_close(half[:, i], expected, rtol=1e-11, atol=1e-11)
    em = scoresde.solve(
        sde, score_fn, method="euler_maruyama", steps=3, shape=(2, 1), seed=0, dtype=F64, path_log_prob=True
    ).path
    lower = paths.log_prob(em, sde, score_fn, stochasticity=0.8)
    assert not torch.allclose(lower, em.log_prob)


def test_the_last_step_onto_no_noise_is_left_out() -> None:
    sde = scoresde.FlowSDE(t_min=0.0)
    score_fn = gaussian().score(sde)
    solution = scoresde.solve(sde, score_fn, method="ancestral", steps=4, shape=(2, 2), seed=0, path_log_prob=True)
    assert solution.path.noisy.tolist() == [True, True, True, False]
    assert bool((solution.path.log_probs[:, -1] == 0).all())
    assert torch.equal(paths.log_prob(solution.path, sde, score_fn), solution.path_log_prob)


def test_the_prior_is_apart() -> None:
    sde = SDES["ve"]
    options = {"method": "ancestral", "steps": 3, "seed": 0, "path_log_prob": True}
    path = scoresde.solve(sde, gaussian().score(sde), shape=(2, 2), **options).path
    torch.testing.assert_close(path.prior_log_prob, sde.prior.log_prob(path.start.double()))
    assert scoresde.solve(sde, gaussian().score(sde), torch.ones(2, 2), **options).path.prior_log_prob is None


def test_rows_keep_their_labels_and_a_file_keeps_all(tmp_path: FilePath) -> None:
    sde = SDES["vp"]
    score_fn = labelled(sde)
    label = torch.tensor([0.0, 1.0, 1.0])
    path = scoresde.solve(
        sde,
        score_fn,
        method="dpmpp_2m_sde",
        steps=4,
        shape=(3, 2),
        seeds=[7, 8, 9],
        dtype=F64,
        context={"label": label},
        path_log_prob=True,
    ).path
    some = path[[2, 0]]
    assert torch.equal(some.context["label"], label[[2, 0]]) and some.seeds == [9, 7]
    torch.testing.assert_close(paths.log_prob(some, sde, score_fn), path.log_prob[[2, 0]], rtol=1e-13, atol=1e-13)
    assert len(path[1:]) == 2
    path.save(tmp_path / "path.safetensors")
    loaded = paths.Path.load(tmp_path / "path.safetensors")
    assert torch.equal(paths.log_prob(loaded, sde, score_fn), paths.log_prob(path, sde, score_fn))
    assert torch.equal(loaded.on(sde).log_probs, path.log_probs) and loaded.solver == path.solver
    with pytest.raises(InvalidArgumentError, match="does not hold the process"):
        paths.log_ratio(loaded, score_fn)
    other = paths.log_prob(path, sde, score_fn, context={"label": 1 - label})
    assert bool((other != path.log_prob).any())
    (tmp_path / "none.safetensors").write_bytes(b"nothing")
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        paths.Path.load(tmp_path / "none.safetensors")
    import safetensors.torch

    safetensors.torch.save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CorruptCheckpointError, match="no path"):
        paths.Path.load(tmp_path / "other.safetensors")


def test_network_by_estimates_and_a_mean_that_is_shifted() -> None:
    """Score functions that are not prepared for a grid are evaluated as the loop does it."""
    sde = SDES["vp"]

    class Own(scoresde.ScoreModel):
        """A class of a user's own."""

    own = Own(lambda x, t: 0.3 * torch.tanh(x), sde, "noise")
    guided = scoresde.guidance.likelihood_guidance(own, lambda data: -data.square().sum(1))
    cases = [(own, {"method": "dpmpp_2m_sde"}), (guided, {"method": "ancestral", "condition": "mean"})]
    for score_fn, options in cases:
        given = {"steps": 4, "shape": (2, 2), "seed": 0, **options}
        plain = scoresde.solve(sde, score_fn, **given)
        solution = scoresde.solve(sde, score_fn, path_log_prob=True, **given)
        assert torch.equal(plain.x, solution.x)
        assert torch.equal(paths.log_prob(solution.path, sde, score_fn), solution.path_log_prob)


def test_a_solve_that_is_stopped_has_the_path_so_far() -> None:
    sde = SDES["vp"]
    score_fn = gaussian().score(sde)
    solution = scoresde.solve(
        sde,
        score_fn,
        method="ancestral",
        steps=5,
        shape=(2, 2),
        seed=0,
        path_log_prob=True,
        callback=lambda info: info.step == 3,
    )
    assert len(solution.path.states) == 3 and solution.path.log_probs.shape == (2, 3)
    assert torch.equal(paths.log_prob(solution.path, sde, score_fn), solution.path_log_prob)


def test_a_stopped_solve_knows_the_steps_that_were_to_follow() -> None:
    """The last steps of the whole grid have lower orders, and those of the path do not."""
    sde = SDES["vp"]
    score_fn = mixture().score(sde)
    options = {"method": "dpmpp_3m_sde", "lower_order_final": True, "steps": 6, "shape": (2, 1), "seed": 0}
    path = scoresde.solve(
        sde, score_fn, path_log_prob=True, callback=lambda info: info.step == 4, dtype=F64, **options
    ).path
    assert torch.equal(paths.log_prob(path, sde, score_fn, per_step=True), path.log_probs)


REFUSED = {
    "unipc2": "draws no noise",
    "heun_sde": "Jacobian",
    "shark": "Jacobian",
    "edm": "Jacobian",
    "restart": "Jacobian",
    "ggf": "lengths of its steps",
    "dpmpp_sde12": "lengths of its steps",
    "torchsde:euler": "another library",
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_methods_are_refused_with_the_reason(name: str) -> None:
    sde = SDES["vp"]
    with pytest.raises(InvalidArgumentError, match=f"path_log_prob.*{REFUSED[name]}"):
        scoresde.solve(sde, gaussian().score(sde), method=name, shape=(2, 2), path_log_prob=True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"method": "pc", "rule": "batch"}, "size of a move depends on its draw"),
        ({"method": "pc", "corrector": LangevinCorrector(rule="sample")}, "size of a move depends on its draw"),
        ({"method": "pc", "corrector": MALACorrector(lambda x, t: -x.square().sum(1))}, "rejected"),
        ({"method": "pc", "predictor": "ddim"}, "Jacobian"),
        ({"method": "sa_solver", "correct_last": True}, "Jacobian"),
        ({"method": "ddim_eta", "eta": 0.0}, "draws nothing"),
        ({"method": "sa_solver", "tau": 0.0}, "draws nothing"),
        ({"method": "euler_maruyama", "stochasticity": 0.0}, "draws nothing"),
        ({"method": "ancestral", "throw": False}, "throw=True"),
        ({"method": "ancestral", "differentiable": True}, "scoresde.paths.log_prob"),
        ({"method": "ancestral", "dtype": torch.float16}, "dtype=torch.float32"),
        ({"method": "ancestral", "path_log_prob": "sum"}, "'sums'"),
        ({"method": "ancestral", "path_log_prob": 1}, "'sums'"),
    ],
)
def test_options_are_refused_with_the_reason(options: dict, reason: str) -> None:
    sde = SDES["vp"]
    with pytest.raises(InvalidArgumentError, match=reason):
        scoresde.solve(sde, gaussian().score(sde), steps=3, shape=(2, 2), **{"path_log_prob": True, **options})


def test_what_does_not_fit_a_path_is_refused() -> None:
    sde = SDES["vp"]
    score_fn = gaussian().score(sde)
    given = {"method": "ancestral", "steps": 3, "shape": (2, 2), "seed": 0}
    path = scoresde.solve(sde, score_fn, path_log_prob=True, **given).path
    with pytest.raises(InvalidArgumentError, match="by another process"):
        paths.log_prob(path, scoresde.VPSDE(beta_max=10.0), score_fn)
    with pytest.raises(InvalidArgumentError, match="by another process"):
        paths.log_prob(path, SDES["ve"], score_fn)
    with pytest.raises(InvalidArgumentError, match="other random states"):
        paths.log_prob(path, sde, score_fn, method="seeds2")
    with pytest.raises(InvalidArgumentError, match="draws no noise"):
        paths.log_prob(path, sde, score_fn, method="ddim")
    with pytest.raises(InvalidArgumentError, match="no `stochasticity`"):
        paths.log_prob(path, sde, score_fn, stochasticity=0.5)
    with pytest.raises(InvalidArgumentError, match="events of shape"):
        paths.log_prob(path, sde, gaussian(3).score(sde))
    sums = scoresde.solve(sde, score_fn, path_log_prob="sums", **given).path
    with pytest.raises(InvalidArgumentError, match="holds no states"):
        paths.log_prob(sums, sde, score_fn)
    for steps in ([3], [-1], [0, 0]):
        with pytest.raises(InvalidArgumentError, match="steps"):
            paths.log_prob(path, sde, score_fn, steps=steps)
    with pytest.raises(InvalidTypeError, match="a Path"):
        paths.log_prob(None, sde, score_fn)
    with pytest.raises(InvalidArgumentError, match="context"):
        paths.log_prob(path, sde, score_fn, context={"label": torch.ones(2)})


@pytest.mark.parametrize("method", ["ancestral", "seeds3", "sra1"])
def test_close_networks_are_compared_in_float64(method: str) -> None:
    """A ratio of float32 states is that of the same states in float64, though the noise of a step is 1e-3 of them."""
    sde = scoresde.VPSDE(t_min=1e-5)

    def score(factor: float) -> scoresde.ScoreModel:
        net = lambda x, t: factor * 0.9 * x / (x.square().mean(1, keepdim=True).sqrt() + 1)  # noqa: E731
        return scoresde.ScoreModel(net, sde, "noise")

    old, new = score(1.0), score(1.0003)
    path = scoresde.solve(
        sde, old, method=method, steps=300, shape=(4, 512), seed=0, dtype=torch.float32, path_log_prob=True
    ).path
    states = tuple(state.double() for state in path.states)
    exact = paths.log_ratio(replace(path, start=path.start.double(), states=states), new, old)
    torch.testing.assert_close(paths.log_ratio(path, new, old), exact, rtol=0, atol=2e-3)


def test_nothing_that_the_caller_changes_is_in_the_path() -> None:
    sde = SDES["vp"]
    score_fn, label, seeds = labelled(sde), torch.ones(2), [3, 4]
    solution = scoresde.solve(
        sde, score_fn, method="ancestral", steps=3, shape=(2, 2), seeds=seeds, context={"label": label},
        dtype=F64, path_log_prob=True,
    )  # fmt: skip
    solution.x.zero_()
    label.zero_()
    seeds[0] = 9
    assert torch.equal(paths.log_prob(solution.path, sde, score_fn), solution.path_log_prob)
    assert solution.path.seeds == [3, 4]


@pytest.mark.parametrize("seeds", [torch.tensor([1, 2, 3]), (1, 2, 3), range(1, 4), np.array([1, 2, 3])])
def test_rows_keep_their_seeds(seeds: object, tmp_path: FilePath) -> None:
    sde = SDES["vp"]
    path = scoresde.solve(
        sde, gaussian().score(sde), method="ancestral", steps=2, shape=(3, 2), seeds=seeds, path_log_prob=True
    ).path
    assert path[[2]].seeds == [3]
    path.save(tmp_path / "path.safetensors")
    assert paths.Path.load(tmp_path / "path.safetensors").seeds == [1, 2, 3]


def test_what_is_not_finite_is_an_error() -> None:
    sde = SDES["vp"]
    score_fn = gaussian().score(sde)
    path = scoresde.solve(sde, score_fn, method="ancestral", steps=3, shape=(2, 2), seed=0, path_log_prob=True).path
    for factor in (math.nan, math.inf):
        for function in (paths.log_prob, lambda path, sde, bad: paths.kl(path, bad, score_fn)):
            with pytest.raises(NonFiniteError, match="check the network"):
                function(path, sde, lambda x, t, factor=factor: x * factor)


def test_the_levels_and_the_kind_of_states_are_compared() -> None:
    sde = SDES["vp"]
    score_fn = gaussian().score(sde)
    given = {"steps": 3, "shape": (2, 2), "seed": 0, "path_log_prob": True}
    first = scoresde.solve(sde, score_fn, method="pc", **given).path
    predicted = scoresde.solve(sde, score_fn, method="sa_solver", **given).path
    cases = [(first, make_solver("pc", {"order": "pc"}, ())), (predicted, "ancestral")]
    for path, method in cases:
        with pytest.raises(InvalidArgumentError, match="other random states"):
            paths.log_prob(path, sde, score_fn, method=method)


def test_a_schedule_that_was_trained_is_another_process() -> None:
    net = torch.nn.Linear(1, 1, dtype=F64)
    with torch.no_grad():
        net.weight.fill_(10.0), net.bias.fill_(-5.0)
    sde = scoresde.VDMSDE(lambda t: net(t[:, None])[:, 0])
    score_fn = gaussian().score(sde)
    path = scoresde.solve(
        sde, score_fn, method="ancestral", steps=3, shape=(2, 2), seed=0, dtype=F64, path_log_prob=True
    ).path
    assert torch.equal(paths.log_prob(path, sde, score_fn), path.log_prob)
    with torch.no_grad():
        net.bias.add_(0.1)
    with pytest.raises(InvalidArgumentError, match="before its schedule changed"):
        paths.log_prob(path, sde, score_fn)


class Own(scoresde.Solver):
    """Euler-Maruyama as a user writes it."""

    kind = "sde"
    stochastic = True
    gaussian_step = True

    def step(self, process, x, start, stop, state, noise):
        h = stop.t - start.t
        spread = process.diffusion(x, start) * abs(h) ** 0.5
        moved = x + h * process.drift(x, start) - spread / 2 * noise.normal(x) * -2.0
        return scoresde.StepResult(moved)


def test_a_solver_of_your_own() -> None:
    sde = SDES["vp"]
    score_fn = mixture().score(sde)
    given = {"steps": 4, "shape": (3, 1), "seed": 0, "dtype": F64}
    solution = scoresde.solve(sde, score_fn, method=Own(), path_log_prob=True, **given)
    assert torch.equal(solution.x, scoresde.solve(sde, score_fn, method=Own(), **given).x)
    same = scoresde.solve(sde, score_fn, method="euler_maruyama", path_log_prob=True, **given)
    torch.testing.assert_close(solution.path_log_prob, same.path_log_prob, rtol=1e-9, atol=1e-9)

    class Branching(Own):
        def step(self, process, x, start, stop, state, noise):
            return scoresde.StepResult(x * (0.3 if x == 0 else 0.1) + noise.normal(x))

    class Bent(Own):
        def step(self, process, x, start, stop, state, noise):
            return scoresde.StepResult(x + noise.normal(x).tanh())

    class Foreign(Own):
        def step(self, process, x, start, stop, state, noise):
            return scoresde.StepResult(torch.ones(3, 1, dtype=F64))

    for other in (Branching, Bent, Foreign):
        with pytest.raises(InvalidArgumentError, match="cannot be recorded"):
            scoresde.solve(sde, score_fn, method=other(), path_log_prob=True, **given)


def test_under_modes_of_torch() -> None:
    sde = SDES["vp"]
    score_fn = gaussian().score(sde)
    given = {"method": "ancestral", "steps": 3, "shape": (2, 2), "seed": 0, "dtype": F64, "path_log_prob": True}
    with torch.inference_mode():
        path = scoresde.solve(sde, score_fn, **given).path
    assert torch.equal(paths.log_prob(path, sde, score_fn), path.log_prob)

    def value(scale: Tensor) -> Tensor:
        return paths.log_prob(path, sde, lambda x, t: scale * score_fn(x, t)).sum()

    one = torch.ones((), dtype=F64, requires_grad=True)
    (expected,) = torch.autograd.grad(value(one), one)
    torch.testing.assert_close(torch.func.grad(value)(one.detach()), expected)
    with pytest.raises(InvalidArgumentError, match="functional transform"):
        torch.func.grad(lambda x: scoresde.solve(sde, score_fn, x, **given).x.sum())(torch.ones(2, 2, dtype=F64))


def test_a_file_is_not_trusted(tmp_path: FilePath) -> None:
    import safetensors.torch

    sde = SDES["vp"]
    path = scoresde.solve(
        sde, gaussian().score(sde), method="ancestral", steps=2, shape=(3, 2), seeds=[1, 2, 3], path_log_prob=True
    ).path
    file = tmp_path / "path.safetensors"
    path.save(file)
    arrays = safetensors.torch.load_file(file)
    with safetensors.safe_open(file, "pt") as content:
        known = json.loads(content.metadata()["scoresde.path"])
    wrong_arrays = [
        {"times": arrays["times"][:, None]},
        {"start": arrays["start"].long()},
        {"start": arrays["start"].half()},
        {"prior_log_prob": torch.zeros(())},
        {"log_probs": arrays["log_probs"].long()},
        {"state.0": arrays["state.0"] * math.nan},
    ]
    wrong_values = [
        {"stochasticity": -1.0},
        {"stochasticity": math.nan},
        {"steps": "01"},
        {"steps": [0.5, 1.5]},
        {"noisy": [[1], [1]]},
        {"seeds": {"a": 1}},
        {"seeds": [1]},
        {"format": 0},
    ]
    cases = [(arrays | changed, known) for changed in wrong_arrays] + [(arrays, known | v) for v in wrong_values]
    for some, values in cases:
        safetensors.torch.save_file(some, file, {"scoresde.path": json.dumps(values)})
        with pytest.raises(CorruptCheckpointError, match="no path"):
            paths.Path.load(file)
    safetensors.torch.save_file(arrays, file, {"scoresde.path": "[" * 100_000})
    with pytest.raises(CorruptCheckpointError, match="no path"):
        paths.Path.load(file)


def test_columns_are_in_the_order_of_the_steps_that_are_asked_for() -> None:
    sde, score_fn = SDES["vp"], mixture().score(SDES["vp"])
    path = scoresde.solve(
        sde, score_fn, method="ancestral", steps=5, shape=(3, 1), seed=0, dtype=F64, path_log_prob=True
    ).path
    chosen = torch.tensor([3, 0, 4])
    found = paths.log_prob(path, sde, score_fn, per_step=True, steps=chosen)
    assert torch.equal(found, path.log_probs[:, chosen])
    assert not paths.log_ratio(path, score_fn, per_step=True, steps=[4, 1]).any()


@pytest.mark.parametrize("graph", [False, True])
def test_a_network_that_is_refused_leaves_the_path_as_it_was(graph: bool) -> None:
    sde, score_fn = SDES["vp"], mixture().score(SDES["vp"])
    path = scoresde.solve(
        sde, score_fn, method="ancestral", steps=5, shape=(3, 1), seed=0, dtype=F64, path_log_prob=True
    ).path

    def bad(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if float(t[0]) < 0.5:
            x.mul_(2)
        return -x

    with pytest.raises(ScoreFnError, match="in place"), torch.set_grad_enabled(graph):
        paths.log_prob(path, sde, bad)
    assert torch.equal(paths.log_prob(path, sde, score_fn), path.log_prob)


def test_a_vector_of_networks_without_gradients() -> None:
    sde = SDES["vp"]
    path = scoresde.solve(
        sde, lambda x, t: -x, method="ancestral", steps=4, shape=(3, 1), seed=0, dtype=F64, path_log_prob=True
    ).path
    factors = torch.tensor([0.5, 1.0], dtype=F64)
    with torch.no_grad():
        both = torch.func.vmap(lambda a: paths.log_prob(path, sde, lambda x, t: -a * x))(factors)
    each = torch.stack([paths.log_prob(path, sde, lambda x, t, a=a: -a * x) for a in factors])
    assert torch.allclose(both, each, rtol=1e-12)


def test_a_path_goes_to_a_device() -> None:
    sde, score_fn = SDES["vp"], mixture().score(SDES["vp"])
    path = scoresde.solve(sde, score_fn, method="ancestral", steps=4, shape=(3, 1), seed=0, path_log_prob=True).path
    moved = path.to("cpu")
    assert torch.equal(paths.log_prob(moved, sde, score_fn), path.log_prob)
    for where in ("nowhere", "meta"):
        with pytest.raises(InvalidArgumentError, match="device"):
            path.to(where)


def test_a_network_of_another_precision_is_named() -> None:
    sde, score_fn = scoresde.VPSDE(), mixture().score(scoresde.VPSDE())
    options = {"method": "ancestral", "steps": 4, "shape": (3, 1), "seed": 0, "dtype": torch.float32}
    path = scoresde.solve(sde, lambda x, t: score_fn(x.double(), t).float(), path_log_prob=True, **options).path
    with pytest.warns(UserWarning, match=r"rounding of torch\.bfloat16"):
        narrow = paths.log_ratio(path, lambda x, t: score_fn(x.double(), t).bfloat16())
    with pytest.warns(UserWarning, match=r"returns torch\.float64, but the state is torch\.float32"):
        wide = paths.log_ratio(path, lambda x, t: score_fn(x.double(), t))
    assert bool((narrow != 0).all()) and bool((wide == 0).all())
    with pytest.raises(ScoreFnError, match=r"must return torch\.float32, like x, got torch\.int64"):
        paths.log_prob(path, sde, lambda x, t: x.long())


def test_every_method_declares_whether_its_steps_are_gaussian() -> None:
    """Those that do are tested above; of the others none has a path."""
    declared = {m.name for m in scoresde.methods() if m.stochastic and make_solver(m.name, {}, ()).gaussian_step}
    assert declared == {name for name in GAUSSIAN if " " not in name}
    others = {m.name for m in scoresde.methods() if m.stochastic} - declared
    assert others - {n for n in others if n.startswith("torchsde:")} == set(REFUSED) - {"unipc2", "torchsde:euler"}


def test_a_shift_of_the_mean_may_end_at_a_level() -> None:
    """With an interval, or a scale by levels, some steps have no shift; the path is that of the solve without it."""
    sde, target = scoresde.VPSDE(), scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 1.0)

    def seen(x: Tensor, t: Tensor) -> Tensor:
        return -x.square().sum(1)

    score = target.score(sde)
    for guided in (
        guidance.classifier_guidance(score, seen, 2.0, (0.0, None)),
        guidance.classifier_guidance(score, seen, lambda log_snr: 2.0 * float(log_snr > 0)),
    ):
        options = {"method": "ancestral", "condition": "mean", "steps": 6, "shape": (3, 2), "seed": 0}
        got = scoresde.solve(sde, guided, path_log_prob=True, **options)
        assert torch.equal(got.x, scoresde.solve(sde, guided, **options).x)
        assert torch.equal(paths.log_prob(got.path, sde, guided), got.path_log_prob)
