"""The Brownian path: its distribution, and that it answers every query consistently.

Seeded; z-tests at 4.9 standard errors (false alarms: 1e-6 each, about 40 of them).
"""

from __future__ import annotations

import itertools

import pytest
import torch

import scoresde
from scoresde import testing
from scoresde.core.noise import BrownianPath
from tests.parameters import own_methods

F64 = torch.float64
SIGMAS = 4.892
LIKE = torch.zeros(4000, 1, dtype=F64)
TIMES = [0.0, 0.1, 0.25, 0.2500001, 0.3, 0.62, 0.9, 1.0]


def covariance_of(values: torch.Tensor) -> torch.Tensor:
    return values.mT @ values / len(values)


@pytest.mark.parametrize("depth", [0, 10])
def test_the_law(depth: int) -> None:
    """Gaussian with the covariance min(s, t); orders of queries are compared exactly below."""
    path = BrownianPath(range(4000), 0.0, 1.0, depth=depth)
    values = {t: path.value(t, LIKE)[:, 0] for t in (TIMES[i] for i in (4, 1, 6, 2, 7, 0, 3, 5))}
    w = torch.stack([values[t] for t in TIMES[1:]], dim=1)
    exact = torch.tensor([[min(s, t) for s in TIMES[1:]] for t in TIMES[1:]], dtype=F64)
    scale = (exact.diag()[:, None] * exact.diag() + exact**2).sqrt() / len(w) ** 0.5  # of a product of Gaussians
    assert float(((covariance_of(w) - exact) / scale).abs().max()) < SIGMAS
    increments = torch.stack([values[b] - values[a] for a, b in itertools.pairwise(TIMES)], dim=1)
    unit = increments / torch.tensor([(b - a) ** 0.5 for a, b in itertools.pairwise(TIMES)], dtype=F64)
    fourth = (unit**4).mean(0)
    assert float(((fourth - 3) / (96 / len(unit)) ** 0.5).abs().max()) < SIGMAS


def test_queries_add_up_and_repeat() -> None:
    path = BrownianPath([1, 2, 3], 0.0, 1.0)
    like = torch.zeros(3, 2, dtype=F64)
    whole = path.between(0.2, 0.7, like)
    parts = path.between(0.2, 0.31, like) + path.between(0.31, 0.32, like) + path.between(0.32, 0.7, like)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-14)
    assert torch.equal(path.between(0.2, 0.7, like), whole)
    assert torch.equal(path.between(0.7, 0.2, like), -whole)


def test_dyadic_values_do_not_depend_on_what_else_is_asked_for() -> None:
    like = torch.zeros(2, 3, dtype=F64)
    a, b = (BrownianPath([5, 6], 0.0, 2.0, depth=7) for _ in range(2))
    times = [2.0 * i / 128 for i in range(129)]
    forwards = [a.value(t, like) for t in times]  # more than are kept at a time
    for t in (0.111, 1.9, 0.7):
        b.value(t, like)
    backwards = [b.value(t, like) for t in reversed(times)][::-1]
    for x, y in zip(forwards, backwards, strict=True):
        assert torch.equal(x, y)


def test_a_sample_depends_on_its_seed_alone() -> None:
    like = torch.zeros(3, 2, dtype=F64)
    whole = BrownianPath([7, 8, 9], 0.0, 1.0)
    alone = BrownianPath([8], 0.0, 1.0)
    assert torch.equal(whole.between(0.3, 0.8, like)[1], alone.between(0.3, 0.8, like[:1])[0])
    part = whole.take(torch.tensor([2, 1]))
    assert torch.equal(part.between(0.3, 0.8, like[:2]), whole.between(0.3, 0.8, like)[[2, 1]])
    assert torch.equal(part.between(0.4, 0.5, like[:2])[1], alone.between(0.4, 0.5, like[:1])[0])
    torch.testing.assert_close(
        BrownianPath([8], 0.0, 1.0).value(0.5, like[:1].float()),
        alone.value(0.5, like[:1]).float(),
        rtol=1e-6,
        atol=1e-6,
    )


def test_solves_see_the_same_path() -> None:
    """The same seeds give the same result, once more on the same path too; batch mates change it no more than they
    change the grid."""
    sde = scoresde.VPSDE()
    target = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), 0.3)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    for method in ("euler_maruyama", "ancestral", "dpmpp_sde", "seeds3", "sra1", "dpmpp_2m_sde", "pc"):

        def path_of(rows: list[int], areas: bool = method == "sra1") -> BrownianPath:
            return BrownianPath([10 + i for i in rows], sde.t_min, sde.t_max, areas=areas)

        def run(rows: list[int], path: BrownianPath, method: str = method) -> torch.Tensor:
            return scoresde.solve(sde, target.score(sde), x[rows], method=method, steps=12, noise=path).x

        path = path_of([0, 1, 2])
        whole = run([0, 1, 2], path)
        assert torch.equal(whole, run([0, 1, 2], path)) and torch.equal(whole, run([0, 1, 2], path_of([0, 1, 2])))
        assert torch.equal(whole[[2, 0]], run([2, 0], path_of([2, 0]))), method


@pytest.mark.parametrize(
    ("method", "order"), [("euler_maruyama", 1.0), ("heun_sde", 1.0), ("sra1", 1.5), ("shark", 1.5)]
)
def test_finer_grids_follow_the_same_path(method: str, order: float) -> None:
    """Strong convergence on a mixture, time after time halved: the errors on one path fall, as they would not with
    independent draws. The grids are dyadic, so the path is the same to the last digit."""
    sde = scoresde.VPSDE(t_min=0.0625, t_max=0.5625)
    target = scoresde.targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]], dtype=F64), scales=0.5)
    x = target.sample(100, sde, sde.t_max, generator=torch.Generator().manual_seed(3))

    def run(steps: int, areas: bool = order > 1) -> torch.Tensor:
        path = BrownianPath(range(100), sde.t_min, sde.t_max, depth=9, areas=areas)
        return scoresde.solve(sde, target.score(sde), x, method=method, steps=steps, grid="time", noise=path).x

    reference = run(512)
    measured = testing.converge(lambda n: float((run(n) - reference).square().mean().sqrt()), (8, 16, 32, 64))
    assert measured.decreasing and measured.order(3) == pytest.approx(order, abs=0.25), measured
    if order > 1:  # areas of their own would lower the order
        with pytest.raises(scoresde.InvalidArgumentError, match="areas=True"):
            run(4, areas=False)


def test_a_clock_is_read_for_all_samples_at_once() -> None:
    """The values are those of each sample alone."""
    calls = []

    def clock(times: torch.Tensor) -> torch.Tensor:
        calls.append(len(times))
        return times.exp()

    path = BrownianPath(range(50), 0.0, 1.0, depth=3, clock=clock)
    times, like = torch.linspace(0.013, 0.987, 50, dtype=F64), torch.zeros(50, 2, dtype=F64)
    values = path.value(times, like)
    assert sum(calls) == 50 + 9 and len(calls) == 1 + 9  # the times of the samples, and the dyadic points
    for i in (0, 17, 49):
        alone = BrownianPath([i], 0.0, 1.0, depth=3, clock=torch.exp)
        assert torch.equal(alone.value(float(times[i]), like[:1])[0], values[i])


def test_refusals() -> None:
    with pytest.raises(scoresde.InvalidArgumentError, match="t0"):
        BrownianPath(0, 1.0, 0.0)
    path = BrownianPath(0, 0.0, 1.0)
    with pytest.raises(scoresde.InvalidArgumentError, match="path is on"):
        path.value(1.5, LIKE)
    with pytest.raises(scoresde.InvalidArgumentError, match="cannot leave samples out"):
        path.take(torch.tensor([0]))
    with pytest.raises(scoresde.InvalidArgumentError, match="seeds"):
        BrownianPath([1, 2], 0.0, 1.0).value(0.5, LIKE)
    with pytest.raises(scoresde.InvalidArgumentError, match="times per sample"):
        path.increment(torch.zeros(2), torch.ones(2), LIKE)
    with pytest.raises(scoresde.InvalidArgumentError, match="clock"):
        BrownianPath([1], 0.0, 1.0, areas=True, clock=lambda t: t)
    with pytest.raises(scoresde.InvalidArgumentError, match="areas=False"):
        BrownianPath([1], 0.0, 1.0, areas=True).on(lambda t: t)
    for seeds in ([7], [7, 8]):  # also of draws that belong to no step
        for method in ("restart", "langevin", "annealed_langevin", "ncsn", "pc"):
            sde = scoresde.VPSDE()
            path = BrownianPath(seeds, sde.t_min, sde.t_max)
            with pytest.raises(scoresde.InvalidArgumentError, match="one entry per sample: 3 samples"):
                scoresde.solve(sde, lambda x, t: -x, torch.zeros(3, 2), method=method, noise=path, steps=3)


def test_the_joint_law_of_increments_and_means() -> None:
    """Of a fine partition, asked for in a mixed order: unit increments z, means N(z/2, 1/12), intervals independent."""
    ends = [0.0, 0.05, 0.25, 0.26, 0.7, 0.7001, 1.0]
    path = BrownianPath(range(4000), 0.0, 1.0, depth=4, areas=True)
    for i in (3, 0, 5):
        path.increment_and_mean(ends[i], ends[i + 1], LIKE)
    pairs = [path.increment_and_mean(a, b, LIKE) for a, b in itertools.pairwise(ends)]
    values = torch.cat([v for pair in pairs for v in pair], dim=1)
    exact = torch.block_diag(*[torch.tensor([[1.0, 0.5], [0.5, 1 / 3]], dtype=F64)] * len(pairs))
    scale = (exact.diag()[:, None] * exact.diag() + exact**2).sqrt() / len(values) ** 0.5
    assert float(((covariance_of(values) - exact) / scale).abs().max()) < SIGMAS


def test_means_add_up_in_both_directions() -> None:
    path = BrownianPath([1, 2, 3], 0.0, 1.0, areas=True)
    like = torch.zeros(3, 2, dtype=F64)

    def unscaled(a: float, b: float) -> tuple[torch.Tensor, torch.Tensor]:
        z, mean = path.increment_and_mean(a, b, like)
        return z * abs(b - a) ** 0.5, mean * abs(b - a) ** 0.5

    (w, mean), (w_1, mean_1), (w_2, mean_2) = unscaled(0.3, 0.62), unscaled(0.3, 0.41), unscaled(0.41, 0.62)
    torch.testing.assert_close(w_1 + w_2, w, rtol=0, atol=1e-14)
    torch.testing.assert_close(0.11 * mean_1 + 0.21 * (w_1 + mean_2), 0.32 * mean, rtol=0, atol=1e-14)
    back, mean_back = unscaled(0.62, 0.3)
    torch.testing.assert_close(back, -w, rtol=0, atol=0)
    torch.testing.assert_close(mean_back, mean - w, rtol=0, atol=1e-14)  # the same integral, from the other end
    torch.testing.assert_close(path.between(0.3, 0.62, like), w, rtol=0, atol=1e-14)


def test_a_clock_that_stands_still_between_two_times() -> None:
    path = BrownianPath([1], 0.0, 1.0, depth=2, clock=lambda t: torch.where(t < 0.5, t, 0.5))
    like = torch.zeros(1, 1, dtype=F64)
    assert float(path.between(0.6, 0.65, like).abs()) == 0.0


class Probe(BrownianPath):
    """Unit draws in place of random ones: each moves one sample, so that values are the weights of the draws."""

    def __init__(self, draws: int, ends: tuple[float, float] = (0.0, 1.0), **options: object) -> None:
        super().__init__(0, *ends, **options)  # type: ignore[arg-type]
        self.like = torch.zeros(draws, 1, dtype=F64)
        self.places: dict[int, int] = {}

    def _draw(self, counter: int, like: torch.Tensor) -> torch.Tensor:
        parts = 1 + self.areas
        first = self.places.setdefault(counter, parts * len(self.places))
        unit = torch.zeros(*like.shape, parts, dtype=F64)
        for i in range(parts):
            unit[first + i, 0, i] = 1.0
        return unit if self.areas else unit[..., 0]


@pytest.mark.parametrize("areas", [False, True])
def test_the_law_exactly(areas: bool) -> None:
    """The covariance of values (and integrals) at many times, asked for in several orders, to rounding:
    Cov(W_s, W_t) = s, Cov(W_s, I_t) = s t - s^2/2 for s <= t and t^2/2 else, Cov(I_s, I_t) = s^2 t/2 - s^3/6."""
    times = [0.03, 0.125, 0.126, 0.5, 0.61, 0.62, 0.9, 0.97, 1.0, 0.3, 0.75]  # 11, a prime
    t = torch.tensor(times, dtype=F64)
    low, high = torch.minimum(t[:, None], t), torch.maximum(t[:, None], t)
    cross = torch.where(t[:, None] <= t, t[:, None] * t - t[:, None] ** 2 / 2, t**2 / 2)
    for depth, order in itertools.product((0, 1, 3, 6), (1, -1, 5, 7)):
        path = Probe(400, depth=depth, areas=areas)
        found: dict[float, tuple[torch.Tensor, ...]] = {}
        for i in range(len(times)):
            time = times[i * order % len(times)]
            found[time] = path.increment_and_mean(0.0, time, path.like) if areas else (path.value(time, path.like),)
        w = torch.stack([found[time][0][:, 0] for time in times])
        if areas:
            w = w * t.sqrt()[:, None]
            integral = torch.stack([found[time][1][:, 0] for time in times]) * (t**1.5)[:, None]
            torch.testing.assert_close(w @ integral.mT, cross, rtol=0, atol=1e-13)
            torch.testing.assert_close(integral @ integral.mT, low**2 * high / 2 - low**3 / 6, rtol=0, atol=1e-13)
        torch.testing.assert_close(w @ w.mT, low, rtol=0, atol=1e-13)


def test_the_law_on_a_clock_exactly() -> None:
    path = Probe(100, depth=3, clock=lambda t: torch.exp(2 * t))
    times = [0.9, 0.11, 0.5, 0.0, 1.0, 0.35]
    w = torch.stack([path.value(t, path.like)[:, 0] for t in times])
    v = torch.exp(2 * torch.tensor(times, dtype=F64)) - 1
    torch.testing.assert_close(w @ w.mT, torch.minimum(v[:, None], v), rtol=0, atol=1e-12)


def test_what_methods_draw_along_one_path_is_that_path() -> None:
    """Correlations of their samples with those of `ancestral`; those that move back and forth in time have none."""
    sde = scoresde.VESDE()
    score = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)).score(sde)

    def ends(method: str) -> torch.Tensor:
        options = {"epsilon": 0.98} if method == "cas" else {}  # how much of the noise is new
        path = BrownianPath(range(100), sde.t_min, sde.t_max, areas=True)
        x = torch.ones(100, 2, dtype=F64)
        return scoresde.solve(sde, score, x, method=method, steps=20, noise=path, **options).x.flatten()

    exact = ends("ancestral")
    both_ways = ("restart", "langevin", "annealed_langevin", "ncsn")
    for method in own_methods():
        if method.stochastic and not method.adaptive and method.name not in both_ways:
            assert float(torch.corrcoef(torch.stack([exact, ends(method.name)]))[0, 1]) > 0.4, method.name


def test_increments_on_an_exponential_clock_are_standard_normal() -> None:
    """On the clock of dpmpp_sde12, which spans e^(2 eta^2 20), where the path is seen from its small end: the variance
    of each of eight pieces, by probing every draw."""
    sde = scoresde.VPSDE()
    times = scoresde.grids.log_snr(sde, sde.t_max, sde.t_min, 8).tolist()
    for eta, dtype in itertools.product((1.0, 2.0, 4.0), (torch.float32, F64)):
        clock = lambda t, eta=eta: torch.exp(2 * eta**2 * sde.nodes(t).lam)  # noqa: E731
        path = Probe(400, depth=5, clock=clock, ends=(sde.t_min, sde.t_max))
        for start, stop in itertools.pairwise(times):
            z = path.increment(start, stop, path.like.to(dtype))[:, 0].to(F64)
            assert float(z.square().sum()) == pytest.approx(1.0, abs=1e-5), (eta, start, stop)


@pytest.mark.parametrize("eta", [1.0, pytest.param(3.0, marks=pytest.mark.slow)])
def test_an_adaptive_sde_on_a_path_has_the_law_that_it_has_on_seeds(eta: float) -> None:
    """500 samples of N(0, 1); standard deviations within 4.9 standard errors and 2 % of the method's own error."""
    sde, n = scoresde.VPSDE(), 500
    target = scoresde.targets.Gaussian(torch.zeros(1, dtype=F64), 1.0)
    options = {"method": "dpmpp_sde12", "rtol": 0.3, "atol": 0.03, "eta": eta, "shape": (n, 1), "dtype": F64}
    for noise in (
        BrownianPath(range(n), sde.t_min, sde.t_max),
        scoresde.core.noise.FollowedPath(scoresde.SampleNoise(range(n))),
    ):
        spread = float(scoresde.solve(sde, target.score(sde), noise=noise, **options).x.std())
        assert spread == pytest.approx(1.0, abs=4.892 / (2 * n) ** 0.5 + 0.02)
