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

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import guidance, paths
from scoresde.core.errors import CorruptCheckpointError, InvalidArgumentError, NonFiniteError, ScoreFnError
from scoresde.solvers import DDIMEta, make_solver
from scoresde.solvers.correctors import LangevinCorrector, MALACorrector, UnderdampedCorrector

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
CASES = {**GAUSSIAN, "pc, dimension": {"method": "pc", "rule": "dimension"}}


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


def ends_of(sde, score_fn, x, rows, **options) -> tuple[Tensor, Tensor]:
    """All random states of a solve as one vector for each row of draws, and the densities of the paths."""
    size = x.numel()
    draws = rows.reshape(len(rows), -1, size).movedim(0, 1)  # (draws, rows, event)
    if "context" in options:
        options["context"] = {name: v.expand(len(rows)) for name, v in options["context"].items()}
    solution, _ = recorded(sde, score_fn, x.expand(len(rows), size), draws, **options)
    return torch.cat(solution.path.states, 1), solution.path_log_prob


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


def law(sde, score_fn, x, **options) -> float:
    """How far a density is from that of the affine map of all draws, at the states of some draws."""
    size = x.numel()
    _, count = recorded(sde, score_fn, x, torch.zeros(0, *x.shape, dtype=F64), **options)
    total = count * size
    draws = torch.randn(total, dtype=F64, generator=torch.Generator().manual_seed(1))
    rows = torch.cat([draws[None], torch.zeros(1, total, dtype=F64), torch.eye(total, dtype=F64)])
    (there, mean, *columns), found = ends_of(sde, score_fn, x, rows, **options)
    a = torch.stack(columns, 1) - mean[:, None]
    if len(there) == total:
        expected = -0.5 * (draws.square().sum() + total * math.log(2 * math.pi)) - torch.linalg.slogdet(a)[1]
    else:  # some draws are integrated out
        r = torch.linalg.qr(a.T).R
        off = torch.linalg.solve_triangular(r.T, (there - mean)[:, None], upper=False)
        size = len(there) * math.log(2 * math.pi)
        expected = -0.5 * (off.square().sum() + size) - r.diagonal().abs().log().sum()
    return float(found[0] - expected)


@pytest.mark.parametrize("name", GAUSSIAN)
def test_on_gaussians_it_is_the_density_of_all_states_together(name: str) -> None:
    x = torch.full((1, 2), 0.7, dtype=F64)
    for process, sde in SDES.items():
        assert abs(law(sde, gaussian().score(sde), x, grid=times(sde), **GAUSSIAN[name])) < 1e-10, process


def test_with_labels_and_guidance() -> None:
    sde, x = SDES["vp"], torch.full((1, 2), 0.7, dtype=F64)
    for name in ("ancestral", "dpmpp_3m_sde", "sa_solver", "seeds3", "pc", "sra1"):
        options = {"grid": times(sde), "context": {"label": torch.ones(1)}, **GAUSSIAN[name]}
        assert abs(law(sde, labelled(sde), x, **options)) < 1e-10, name


@pytest.mark.parametrize("name", [name for name in CASES if "underdamped" not in name])
def test_on_other_data_it_is_the_density_of_the_draws_over_the_determinant(name: str) -> None:
    """The derivatives of the states are differences of fourth order."""
    for process, sde in SDES.items():
        options = {**CASES[name], "grid": times(sde)}
        score_fn, x = mixture().score(sde), torch.full((1, 1), 0.3, dtype=F64)
        _, count = recorded(sde, score_fn, x, torch.zeros(0, 1, 1, dtype=F64), **options)
        draws = torch.randn(count, dtype=F64, generator=torch.Generator().manual_seed(2))
        shifts = 1e-3 * torch.tensor([0.0, 1.0, -1.0, 2.0, -2.0], dtype=F64)
        rows = draws + shifts[:, None, None] * torch.eye(count, dtype=F64)
        states, found = ends_of(sde, score_fn, x, rows.reshape(-1, count), **options)
        assert states.shape[1] == count
        _, up, down, far_up, far_down = states.reshape(5, count, count)
        slopes = (8 * (up - down) - (far_up - far_down)) / 12e-3
        expected = -0.5 * (draws.square().sum() + count * math.log(2 * math.pi)) - torch.linalg.slogdet(slopes)[1]
        assert abs(float(found[0] - expected)) < 1e-8, process


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
    """Each element has its own: densities, and the divergence of laws with two means and two variances."""
    sde = SDES["vp"]
    one, other = (
        scoresde.ScoreModel(
            lambda x, t, a=a, b=b: torch.cat([a * x, b * torch.sin(3 * x)], 1), sde, "noise", variance="learned_range"
        )
        for a, b in ((0.3, 1.0), (0.2, 0.0))
    )

    def normal(state: Tensor, start, stop, factor: float, share: float) -> torch.distributions.Normal:
        shrink = -math.expm1(2 * (start.lam - stop.lam))
        v = 0.5 * (share * torch.sin(3 * state) + 1)
        data = (state - start.sigma * factor * state) / start.alpha
        mean = stop.alpha * shrink * data + stop.sigma**2 * start.alpha / (start.sigma**2 * stop.alpha) * state
        return torch.distributions.Normal(mean, start.sigma**v * stop.sigma ** (1 - v) * math.sqrt(shrink))

    options = {"method": "ancestral", "variance": "learned", "grid": times(sde)}
    x = torch.full((1, 2), 0.4, dtype=F64)
    draws = torch.randn(3, 1, 2, dtype=F64, generator=torch.Generator().manual_seed(3))
    solution, _ = recorded(sde, one, x, draws, **options)
    state, expected, divergence = x, 0.0, 0.0
    for t, s, after in zip(times(sde)[:-1], times(sde)[1:], solution.path.states, strict=True):
        start, stop = sde.node(float(t)), sde.node(float(s))
        own, wider = normal(state, start, stop, 0.3, 1.0), normal(state, start, stop, 0.2, 0.0)
        expected += float(own.log_prob(after).sum())
        divergence += float(torch.distributions.kl_divergence(own, wider).sum())
        state = after
    assert abs(float(solution.path_log_prob[0]) - expected) < 1e-10
    assert torch.equal(paths.log_prob(solution.path, sde, one), solution.path_log_prob)
    assert float(paths.kl(solution.path, one, other)) == pytest.approx(divergence, rel=1e-10)


def path_of(sde, score_fn, **options) -> paths.Path:
    given = {"method": "ancestral", "steps": 3, "shape": (2, 2), "seed": 0, "dtype": F64, **options}
    return scoresde.solve(sde, score_fn, path_log_prob=True, **given).path


@pytest.mark.parametrize("name", CASES)
def test_samples_stay_the_same_and_a_replay_gives_the_same_bits(name: str) -> None:
    sde = SDES["vp"]
    score_fn = gaussian().score(sde)
    for dtype in (torch.float32, F64):
        given = {"steps": 5, "shape": (3, 2), "seeds": [4, 5, 6], "dtype": dtype, **CASES[name]}
        plain = scoresde.solve(sde, score_fn, **given)
        solution = scoresde.solve(sde, score_fn, path_log_prob=True, **given)
        assert torch.equal(plain.x, solution.x)
        assert solution.path_log_prob.dtype == F64
        with torch.no_grad():
            again = paths.log_prob(solution.path, sde, score_fn, per_step=True)
        assert torch.equal(again, solution.path.log_probs)
        assert torch.equal(paths.log_prob(solution.path, sde, score_fn, per_step=True), again)  # with checkpoints
        assert not paths.kl(solution.path, score_fn, score_fn).any()
        steps = range(again.shape[1])
        one_by_one = [paths.log_prob(solution.path, sde, score_fn, steps=[i], per_step=True) for i in steps]
        assert torch.equal(torch.cat(one_by_one, 1), again)
        sums = scoresde.solve(sde, score_fn, path_log_prob="sums", **given)
        assert torch.equal(sums.path_log_prob, solution.path_log_prob)
        assert not sums.path.states
        alone = scoresde.solve(sde, score_fn, path_log_prob=True, **{**given, "shape": (1, 2), "seeds": [5]})
        rtol = 1e-5 if dtype != F64 else 1e-12
        torch.testing.assert_close(alone.path_log_prob, solution.path_log_prob[1:2], rtol=rtol, atol=1e-5)


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
    sde, net = SDES["vp"], Network()
    model = scoresde.ScoreModel(net, sde, "noise")
    path = path_of(sde, model, **{"steps": 4, **CASES[name]})
    (gradient,) = torch.autograd.grad(paths.log_prob(path, sde, model).sum(), net.a)
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


def test_one_step_at_a_time_is_in_memory() -> None:
    sde = SDES["vp"]
    a = torch.tensor(0.3, dtype=F64, requires_grad=True)
    for name in ("ancestral", "dpmpp_3m_sde", "pc", "seeds3"):
        most = []
        for steps in (4, 16):
            path = path_of(sde, lambda x, t: -0.3 * x, method=name, steps=steps)
            Kept.most = 0
            value = paths.log_prob(path, sde, lambda x, t: Kept.apply(a, x)).sum()
            assert Kept.alive == 0, name
            value.backward()
            most.append(Kept.most)
        assert most[0] == most[1] <= 3, name


def test_without_checkpoints_the_network_is_called_once_and_the_gradient_is_the_same() -> None:
    sde, net = SDES["vp"], Network()
    model = scoresde.ScoreModel(net, sde, "noise")
    for name in ("ancestral", "dpmpp_3m_sde", "pc", "seeds3"):
        path = path_of(sde, model, method=name, steps=4)
        for way in (
            lambda path=path, **given: paths.log_prob(path, sde, model, **given),
            lambda path=path, **given: paths.log_ratio(path, model, steps=[1, 2], per_step=True, **given),
            lambda path=path, **given: paths.kl(path, model, lambda x, t: -x, steps=[3], **given),
        ):
            found, calls = [], []
            for checkpoint in (True, False):
                net.calls = 0
                value = way(checkpoint=checkpoint)
                once = net.calls
                found.append([value, *torch.autograd.grad(value.sum(), net.a)])
                calls.append((once, net.calls))
            assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)), name
            once = calls[0][0]
            assert calls == [(once, 2 * once), (once, once)] and once, name


def tilted_pair(sde):
    """Two score functions whose paths have similar laws."""
    one = mixture().score(sde)
    return one, lambda x, t: one(x, t) + 0.3 * torch.tanh(x)


@pytest.mark.parametrize("name", CASES)
def test_the_mean_of_the_ratio_of_two_laws_is_one(name: str) -> None:
    """At 4.2 standard errors of each method, the family-wise false-alarm rate is below 1e-3 by the normal law. With a
    spread of 0.4 an error of 3 % of the mean is seen."""
    sde = SDES["vp"]
    size = 16 if name == "pc, dimension" else 1  # in which few scores are near zero
    old = gaussian(size).score(sde) if size > 1 else mixture().score(sde)
    path = path_of(sde, old, **{"steps": 6, "t_end": 0.05, "shape": (4000, size), "seed": 1, **CASES[name]})

    def ratios(share: float) -> Tensor:
        with torch.no_grad():
            return paths.log_ratio(path, lambda x, t: old(x, t) + share * torch.tanh(x))

    ratio = ratios(0.4 * 1e-4 / float(ratios(1e-4).std())).exp()  # laws that are near enough
    assert 0.3 < float(ratio.log().std()) < 0.5
    assert abs(float(ratio.mean()) - 1) < 4.2 * float(ratio.std()) / math.sqrt(len(ratio))


def test_chosen_steps_are_an_estimate_of_all_and_in_the_order_that_is_asked_for() -> None:
    sde = SDES["vp"]
    old, new = tilted_pair(sde)
    path = path_of(sde, old, method="dpmpp_2m_sde", steps=8, shape=(5, 1), seed=1)
    whole = paths.log_ratio(path, new, old, per_step=True)
    assert torch.equal(paths.log_ratio(path, new, steps=[1, 5], per_step=True), whole[:, [1, 5]])
    torch.testing.assert_close(paths.log_ratio(path, new, steps=[5, 1]), whole[:, [1, 5]].sum(1))
    chosen = torch.tensor([3, 0, 4])
    assert torch.equal(paths.log_prob(path, sde, old, per_step=True, steps=chosen), path.log_probs[:, chosen])
    assert not paths.log_ratio(path, old, per_step=True, steps=[4, 1]).any()


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
    torch.testing.assert_close(paths.kl(path, new, old), expected.expand(401), rtol=1e-10, atol=1e-12)


def test_another_stochasticity_and_other_variances() -> None:
    """A path of one eta under another, against torch's densities."""
    sde = SDES["vp"]
    score_fn = mixture().score(sde)
    path = path_of(sde, score_fn, method="ddim_eta", shape=(2, 1))
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
    em = path_of(sde, score_fn, method="euler_maruyama", shape=(2, 1))
    assert not torch.allclose(paths.log_prob(em, sde, score_fn, stochasticity=0.8), em.log_prob)


def test_the_last_step_onto_no_noise_is_left_out() -> None:
    sde = scoresde.FlowSDE(t_min=0.0)
    score_fn = gaussian().score(sde)
    path = path_of(sde, score_fn, steps=4)
    assert path.noisy.tolist() == [True, True, True, False]
    assert bool((path.log_probs[:, -1] == 0).all())
    assert torch.equal(paths.log_prob(path, sde, score_fn), path.log_prob)


def test_the_prior_is_apart() -> None:
    sde = SDES["ve"]
    path = path_of(sde, gaussian().score(sde))
    torch.testing.assert_close(path.prior_log_prob, sde.prior.log_prob(path.start))
    given = scoresde.solve(
        sde, gaussian().score(sde), torch.ones(2, 2), method="ancestral", steps=3, path_log_prob=True
    )
    assert given.path.prior_log_prob is None


def test_rows_keep_their_labels_and_seeds_and_a_file_keeps_all(tmp_path: FilePath) -> None:
    sde, file = SDES["vp"], tmp_path / "path.safetensors"
    score_fn, label, seeds = labelled(sde), torch.tensor([0.0, 1.0, 1.0]), [7, 8, 9]
    options = {"method": "dpmpp_2m_sde", "steps": 4, "shape": (3, 2), "dtype": F64, "path_log_prob": True}
    solution = scoresde.solve(sde, score_fn, seeds=seeds, seed=None, context={"label": label}, **options)
    path, kept = solution.path, label.clone()
    solution.x.zero_()  # nothing that the caller changes is in the path
    label.zero_()
    seeds[0] = 1
    some = path[[2, 0]]
    assert torch.equal(some.context["label"], kept[[2, 0]]) and some.seeds == [9, 7]
    torch.testing.assert_close(paths.log_prob(some, sde, score_fn), path.log_prob[[2, 0]], rtol=1e-13, atol=1e-13)
    assert len(path[1:]) == 2 and torch.equal(paths.log_prob(path, sde, score_fn), path.log_prob)
    path.save(file)
    loaded = paths.Path.load(file)
    assert torch.equal(paths.log_prob(loaded, sde, score_fn), path.log_prob)
    assert torch.equal(loaded.on(sde).log_probs, path.log_probs) and loaded.solver == path.solver
    with pytest.raises(InvalidArgumentError, match="does not hold the process"):
        paths.log_ratio(loaded, score_fn)
    other = paths.log_prob(path, sde, score_fn, context={"label": 1 - kept})
    assert bool((other != path.log_prob).any())


def test_networks_that_are_not_prepared_for_a_grid_and_shifts_of_the_mean() -> None:
    """With an interval, or a scale by levels, some steps have no shift."""
    sde = SDES["vp"]

    class Own(scoresde.ScoreModel):
        """A class of a user's own."""

    def seen(x: Tensor, t: Tensor) -> Tensor:
        return -x.square().sum(1)

    own, exact = Own(lambda x, t: 0.3 * torch.tanh(x), sde, "noise"), gaussian().score(sde)
    mean = {"method": "ancestral", "condition": "mean"}
    for score_fn, options in (
        (own, {"method": "dpmpp_2m_sde"}),
        (guidance.likelihood_guidance(own, lambda data: -data.square().sum(1)), mean),
        (guidance.classifier_guidance(exact, seen, 2.0, (0.0, None)), mean),
        (guidance.classifier_guidance(exact, seen, lambda log_snr: 2.0 * float(log_snr > 0)), mean),
    ):
        given = {"steps": 6, "shape": (3, 2), "seed": 0, **options}
        solution = scoresde.solve(sde, score_fn, path_log_prob=True, **given)
        assert torch.equal(scoresde.solve(sde, score_fn, **given).x, solution.x), score_fn
        assert torch.equal(paths.log_prob(solution.path, sde, score_fn), solution.path_log_prob), score_fn


def test_a_solve_that_is_stopped_has_the_path_so_far() -> None:
    """The last steps of the whole grid have lower orders, and those of the path do not."""
    sde = SDES["vp"]
    score_fn = mixture().score(sde)
    for options in ({}, {"method": "dpmpp_3m_sde", "lower_order_final": True, "steps": 6}):
        path = path_of(sde, score_fn, shape=(2, 1), callback=lambda info: info.step == 2, **{"steps": 5, **options})
        assert len(path.states) == 2 and path.log_probs.shape == (2, 2)
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


def test_what_cannot_be_recorded_is_refused_with_the_reason() -> None:
    sde = SDES["vp"]
    for name, reason in REFUSED.items():
        with pytest.raises(InvalidArgumentError, match=f"path_log_prob.*{reason}"):
            scoresde.solve(sde, gaussian().score(sde), method=name, shape=(2, 2), path_log_prob=True)
    cases = [
        ({"method": "pc", "corrector": LangevinCorrector(rule="sample")}, "size of a move depends on its draw"),
        ({"method": "pc", "corrector": MALACorrector(lambda x, t: -x.square().sum(1))}, "rejected"),
        ({"method": "pc", "predictor": "ddim"}, "Jacobian"),
        ({"method": "sa_solver", "correct_last": True}, "Jacobian"),
        ({"method": "euler_maruyama", "stochasticity": 0.0}, "draws nothing"),
        ({"throw": False}, "throw=True"),
        ({"differentiable": True}, "scoresde.paths.log_prob"),
        ({"dtype": torch.float16}, "dtype=torch.float32"),
        ({"path_log_prob": "sum"}, "'sums'"),
    ]
    for options, reason in cases:
        given = {"method": "ancestral", "path_log_prob": True, **options}
        with pytest.raises(InvalidArgumentError, match=reason):
            scoresde.solve(sde, gaussian().score(sde), steps=3, shape=(2, 2), **given)


def test_what_does_not_fit_a_path_is_refused() -> None:
    sde = SDES["vp"]
    score_fn = gaussian().score(sde)
    path = path_of(sde, score_fn)
    sums = scoresde.solve(sde, score_fn, method="ancestral", steps=3, shape=(2, 2), path_log_prob="sums").path
    cases = [
        ("by another process", lambda: paths.log_prob(path, scoresde.VPSDE(beta_max=10.0), score_fn)),
        ("other random states", lambda: paths.log_prob(path, sde, score_fn, method="seeds2")),
        ("draws no noise", lambda: paths.log_prob(path, sde, score_fn, method="ddim")),
        ("no `stochasticity`", lambda: paths.log_prob(path, sde, score_fn, stochasticity=0.5)),
        ("events of shape", lambda: paths.log_prob(path, sde, gaussian(3).score(sde))),
        ("holds no states", lambda: paths.log_prob(sums, sde, score_fn)),
        *(("steps", lambda s=s: paths.log_prob(path, sde, score_fn, steps=s)) for s in ([3], [-1], [0, 0])),
        ("context", lambda: paths.log_prob(path, sde, score_fn, context={"label": torch.ones(2)})),
    ]
    for reason, call in cases:
        with pytest.raises(InvalidArgumentError, match=reason):
            call()
    for function in (paths.log_prob, lambda path, sde, bad: paths.kl(path, bad, score_fn)):
        with pytest.raises(NonFiniteError, match="check the network"):
            function(path, sde, lambda x, t: x * math.nan)


def test_close_networks_are_compared_in_float64() -> None:
    """A ratio of float32 states is that of the same states in float64, though the noise of a step is 1e-3 of them.
    Ratios in float32 would be off by 0.02 at least."""
    sde = scoresde.VPSDE(t_min=1e-5)

    def score(factor: float) -> scoresde.ScoreModel:
        net = lambda x, t: factor * 0.9 * x / (x.square().mean(1, keepdim=True).sqrt() + 1)  # noqa: E731
        return scoresde.ScoreModel(net, sde, "noise")

    old, new = score(1.0), score(1.0003)
    for method in ("ancestral", "seeds3", "sra1"):
        path = path_of(sde, old, method=method, steps=100, shape=(4, 512), dtype=torch.float32)
        states = tuple(state.double() for state in path.states)
        exact = paths.log_ratio(replace(path, start=path.start.double(), states=states), new, old)
        torch.testing.assert_close(paths.log_ratio(path, new, old), exact, rtol=0, atol=2e-3)


def test_a_schedule_that_was_trained_is_another_process() -> None:
    net = torch.nn.Linear(1, 1, dtype=F64)
    with torch.no_grad():
        net.weight.fill_(10.0), net.bias.fill_(-5.0)
    sde = scoresde.VDMSDE(lambda t: net(t[:, None])[:, 0])
    score_fn = gaussian().score(sde)
    path = path_of(sde, score_fn)
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

    def step(self, process, x, start, stop, state):
        h = stop.t - start.t
        spread = process.diffusion(x, start) * abs(h) ** 0.5
        moved = x + h * (yield process.drift(x, start)) - spread / 2 * (yield process.normal(x)) * -2.0
        return scoresde.StepResult(moved)


def test_a_solver_of_your_own() -> None:
    sde = SDES["vp"]
    score_fn = mixture().score(sde)
    given = {"steps": 4, "shape": (3, 1), "seed": 0, "dtype": F64}
    solution = scoresde.solve(sde, score_fn, method=Own(), path_log_prob=True, **given)
    assert torch.equal(solution.x, scoresde.solve(sde, score_fn, method=Own(), **given).x)
    same = scoresde.solve(sde, score_fn, method="euler_maruyama", path_log_prob=True, **given)
    torch.testing.assert_close(solution.path_log_prob, same.path_log_prob, rtol=1e-9, atol=1e-9)

    class Other(Own):
        def step(self, process, x, start, stop, state):
            return scoresde.StepResult(x + (yield process.normal(x)).tanh())

    with pytest.raises(InvalidArgumentError, match="cannot be recorded"):
        scoresde.solve(sde, score_fn, method=Other(), path_log_prob=True, **given)


def test_under_modes_of_torch() -> None:
    sde = SDES["vp"]
    score_fn = gaussian().score(sde)
    with torch.inference_mode():
        path = path_of(sde, score_fn)
    assert torch.equal(paths.log_prob(path, sde, score_fn), path.log_prob)
    options = {"method": "ancestral", "steps": 3, "seed": 0, "path_log_prob": True}
    with pytest.raises(InvalidArgumentError, match="functional transform"):
        torch.func.grad(lambda x: scoresde.solve(sde, score_fn, x, **options).x.sum())(torch.ones(2, 2, dtype=F64))


def test_a_file_is_not_trusted(tmp_path: FilePath) -> None:
    import safetensors.torch

    sde = SDES["vp"]
    path = path_of(sde, gaussian().score(sde), steps=2, shape=(3, 2), seed=None, seeds=[1, 2, 3], dtype=torch.float32)
    file = tmp_path / "path.safetensors"
    path.save(file)
    arrays = safetensors.torch.load_file(file)
    with safetensors.safe_open(file, "pt") as content:
        known = json.loads(content.metadata()["scoresde.path"])
    for changed, values in (
        ({"times": arrays["times"][:, None]}, {}),
        ({"start": arrays["start"].long()}, {}),
        ({"log_probs": arrays["log_probs"].long()}, {}),
        ({"prior_log_prob": torch.zeros(())}, {}),
        ({"state.0": arrays["state.0"] * math.nan}, {}),
        ({}, {"stochasticity": math.nan}),
        ({}, {"steps": [0.5, 1.5]}),
        ({}, {"seeds": [1]}),
        ({}, {"format": 0}),
    ):
        safetensors.torch.save_file(arrays | changed, file, {"scoresde.path": json.dumps(known | values)})
        with pytest.raises(CorruptCheckpointError, match="no path"):
            paths.Path.load(file)


def test_a_network_that_is_refused_leaves_the_path_as_it_was() -> None:
    sde, score_fn = SDES["vp"], mixture().score(SDES["vp"])
    path = path_of(sde, score_fn, steps=5, shape=(3, 1))

    def bad(x: Tensor, t: Tensor) -> Tensor:
        if float(t[0]) < 0.5:
            x.mul_(2)
        return -x

    for graph in (False, True):
        with pytest.raises(ScoreFnError, match="in place"), torch.set_grad_enabled(graph):
            paths.log_prob(path, sde, bad)
        assert torch.equal(paths.log_prob(path, sde, score_fn), path.log_prob)


def test_every_method_declares_whether_its_steps_are_gaussian() -> None:
    """Those that do are tested above; of the others none has a path."""
    declared = {m.name for m in scoresde.methods() if m.stochastic and make_solver(m.name, {}, ()).gaussian_step}
    assert declared == {name for name in GAUSSIAN if " " not in name}
    others = {m.name for m in scoresde.methods() if m.stochastic} - declared
    assert others - {n for n in others if n.startswith("torchsde:")} == set(REFUSED) - {"unipc2", "torchsde:euler"}
