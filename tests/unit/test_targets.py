"""Targets: exact scores, densities, samples and flow maps, against autodiff, torch.distributions and quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scoresde import EDMSDE, VESDE, VPSDE, InvalidArgumentError, InvalidTypeError
from scoresde.targets import Empirical, Gaussian, GaussianMixture, LowRank, Uniform
from tests.unit.refusals import assert_refused
from tests.unit.strategies import PROCESSES, schedules, times

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def covariance(size: int, seed: int = 0) -> Tensor:
    root = draw(size, size, seed=seed)
    return root @ root.mT / size + 0.05 * torch.eye(size, dtype=F64)


def covariances(count: int, size: int) -> Tensor:
    return torch.stack([covariance(size, seed=10 + k) for k in range(count)])


WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=F64)
TARGETS: dict[str, Callable[[], Any]] = {
    "gaussian full": lambda: Gaussian(draw(3, seed=1), covariance(3)),
    "gaussian diagonal": lambda: Gaussian(draw(3, seed=1), draw(3, seed=2).square() + 0.1),
    "gaussian scalar": lambda: Gaussian(draw(3, seed=1), 0.4),
    "gaussian full, rank 2": lambda: Gaussian(draw(2, 3, seed=1), covariance(6)),
    "gaussian diagonal, rank 2": lambda: Gaussian(draw(2, 2, seed=1), draw(2, 2, seed=2).square() + 0.1),
    "gaussian full, rank 3": lambda: Gaussian(draw(1, 2, 2, seed=1), covariance(4)),
    "gaussian scalar, rank 3": lambda: Gaussian(draw(2, 1, 2, seed=1), 2.0),
    "mixture full": lambda: GaussianMixture(WEIGHTS, draw(3, 2, seed=3), covariances(3, 2)),
    "mixture variances": lambda: GaussianMixture(WEIGHTS, draw(3, 2, seed=3), draw(3, 2, seed=4).square() + 0.1),
    "mixture variance each": lambda: GaussianMixture(WEIGHTS, draw(3, 2, seed=3), draw(3, seed=4).square() + 0.1),
    "mixture scale": lambda: GaussianMixture(WEIGHTS, draw(3, 2, seed=3), scales=0.3),
    "mixture scale each": lambda: GaussianMixture(WEIGHTS, draw(3, 2, seed=3), scales=draw(3, seed=5).abs() + 0.2),
    "mixture scales": lambda: GaussianMixture(WEIGHTS, draw(3, 2, seed=3), scales=draw(3, 2, seed=5).abs() + 0.2),
    "mixture full, rank 2": lambda: GaussianMixture(WEIGHTS, draw(3, 2, 2, seed=3), covariances(3, 4)),
    "mixture scales, rank 3": lambda: GaussianMixture(
        WEIGHTS, draw(3, 1, 2, 2, seed=3), scales=draw(3, 1, 2, 2, seed=5).abs() + 0.2
    ),
    "empirical": lambda: Empirical(draw(5, 2, seed=6)),
    "empirical, bandwidth": lambda: Empirical(draw(5, 2, seed=6), bandwidth=0.2),
    "empirical, rank 3": lambda: Empirical(draw(4, 1, 2, 2, seed=6), bandwidth=0.1),
    "uniform": lambda: Uniform(draw(3, seed=1), draw(3, seed=1) + draw(3, seed=2).abs() + 0.3),
    "uniform, rank 3": lambda: Uniform(draw(2, 1, 2, seed=1), 4.0),
}


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Any:
    return TARGETS[request.param]()


def matrices(target: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (K,), flat means (K, D) and covariances (K, D, D), from the arguments kept by the target."""
    size = math.prod(target.event_shape)
    if isinstance(target, Uniform):
        low, high = target.low.reshape(1, size), target.high.reshape(1, size)
        return torch.ones(1, dtype=F64), (low + high) / 2, torch.diag_embed((high - low) ** 2 / 12)
    single = isinstance(target, Gaussian)
    means = (target.mean[None] if single else target.means).reshape(-1, size)
    values, basis = target.spectrum
    values = values.reshape(-1, size)
    basis = torch.eye(size, dtype=F64).expand(len(values), size, size) if basis is None else basis
    basis = basis.reshape(-1, size, size)
    weights = torch.ones(1, dtype=F64) if single else target.log_weights.exp()
    return weights, means, basis @ torch.diag_embed(values) @ basis.mT


def law(target: Any, alpha: float, sigma: float) -> torch.distributions.Distribution:
    """The diffused distribution, by torch.distributions over the flat event."""
    weights, means, covs = matrices(target)
    parts = torch.distributions.MultivariateNormal(
        alpha * means, alpha**2 * covs + sigma**2 * torch.eye(means.shape[1], dtype=F64)
    )
    return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), parts)


def test_covariances_are_those_given() -> None:
    full, diagonal = covariance(3), draw(3, seed=2).square() + 0.1
    for cov, matrix in ((full, full), (diagonal, diagonal.diag()), (0.4, 0.4 * torch.eye(3, dtype=F64))):
        torch.testing.assert_close(matrices(Gaussian(draw(3), cov))[2][0], matrix, rtol=1e-13, atol=1e-14)
    each = covariances(3, 2)
    eye = torch.eye(2, dtype=F64)
    v = torch.tensor([0.3, 0.5, 0.7], dtype=F64)
    grid = v[:, None] * torch.tensor([1.0, 2.0], dtype=F64)
    for options, matrix in (
        ({"covs": each}, each),
        ({"covs": grid}, torch.diag_embed(grid)),
        ({"covs": v}, v[:, None, None] * eye),
        ({"scales": 0.5}, (0.25 * eye).expand(3, 2, 2)),
        ({"scales": v}, (v**2)[:, None, None] * eye),
        ({"scales": grid}, torch.diag_embed(grid**2)),
    ):
        made = GaussianMixture(WEIGHTS, draw(3, 2), **options)
        torch.testing.assert_close(matrices(made)[2], matrix, rtol=1e-13, atol=1e-14)


def test_one_dimensional_events_take_a_matrix_or_a_variance() -> None:
    x = draw(4, 1)
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=F64), math.sqrt(0.3))
    for cov in (0.3, torch.tensor([0.3], dtype=F64), torch.tensor([[0.3]], dtype=F64)):
        found = Gaussian(torch.zeros(1, dtype=F64), cov).log_prob(x)
        torch.testing.assert_close(found, normal.log_prob(x)[:, 0], rtol=1e-13, atol=0)


def test_weights_are_normalised() -> None:
    a = GaussianMixture(torch.tensor([2, 5, 3]), draw(3, 2, seed=3), scales=0.3)
    b = GaussianMixture(WEIGHTS, draw(3, 2, seed=3), scales=0.3)
    torch.testing.assert_close(a.log_prob(draw(4, 2)), b.log_prob(draw(4, 2)), rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", [name for name in TARGETS if not name.startswith("uniform")])
def test_density_is_that_of_torch(name: str) -> None:
    target = TARGETS[name]()
    x = draw(6, *target.event_shape, seed=7)
    if getattr(target, "bandwidth", 1.0) > 0:
        torch.testing.assert_close(target.log_prob(x), law(target, 1.0, 0.0).log_prob(x.flatten(1)), rtol=1e-11, atol=0)
    for make in PROCESSES.values():
        sde = make()
        for t in times(sde, 3, margin=0.1).tolist():
            exact = law(target, float(sde.alpha(t)), float(sde.sigma(t)))
            torch.testing.assert_close(target.log_prob(x, sde, t), exact.log_prob(x.flatten(1)), rtol=1e-11, atol=1e-11)


def test_score_is_the_gradient_of_the_density(target: Any) -> None:
    for make in PROCESSES.values():
        sde = make()
        t = times(sde, 6, margin=0.05)
        x = sde.perturb(draw(6, *target.event_shape, seed=7), t, draw(6, *target.event_shape, seed=8))[0]
        y = x.clone().requires_grad_()
        (wanted,) = torch.autograd.grad(target.log_prob(y, sde, t).sum(), y)
        score = target.score(sde)
        scale = float(wanted.abs().max())
        torch.testing.assert_close(score(x, t), wanted, rtol=1e-10, atol=1e-11 * scale)
        alone = torch.cat([score(x[i : i + 1], float(t[i])) for i in range(6)])
        torch.testing.assert_close(alone, wanted, rtol=1e-10, atol=1e-11 * scale)


@given(schedules, st.integers(0, 2**32), st.floats(0.01, 0.99))
@settings(max_examples=60)
def test_score_is_the_gradient_of_the_density_on_random_processes(schedule: Any, seed: int, place: float) -> None:
    sde = schedule.sde
    t = sde.t_min + (sde.t_max - sde.t_min) * place
    target = TARGETS["mixture full"]()
    x = sde.perturb(draw(4, 2, seed=seed), t, draw(4, 2, seed=seed + 1))[0].requires_grad_()
    (wanted,) = torch.autograd.grad(target.log_prob(x, sde, t).sum(), x)
    torch.testing.assert_close(
        target.score(sde)(x.detach(), t), wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max())
    )


def test_estimate_adds_up_to_the_state(target: Any) -> None:
    for make in PROCESSES.values():
        sde = make()
        t = times(sde, 6)
        x = sde.perturb(draw(6, *target.event_shape, seed=7), t, draw(6, *target.event_shape, seed=8))[0]
        nodes = sde.nodes(t)
        estimate = target.score(sde).estimate(x, nodes)
        alpha, sigma = (v.reshape(-1, *[1] * (x.ndim - 1)) for v in (nodes.alpha, nodes.sigma))
        scale = float((x.abs() + alpha * estimate.data.abs()).max())
        torch.testing.assert_close(alpha * estimate.data + sigma * estimate.noise, x, rtol=1e-12, atol=1e-13 * scale)
        torch.testing.assert_close(target.score(sde)(x, t), -estimate.noise / sigma, rtol=1e-14, atol=0)
        # a node of Python floats gives the same
        alone = target.score(sde).estimate(x[:1], sde.node(float(t[0])))
        torch.testing.assert_close(alone.data, estimate.data[:1], rtol=1e-12, atol=1e-13)


def test_singular_covariances_are_points_along_some_directions() -> None:
    cov = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=F64)
    target = Gaussian(torch.zeros(2, dtype=F64), cov)
    x = draw(4, 2)
    sde = VPSDE()
    exact = law(target, float(sde.alpha(0.3)), float(sde.sigma(0.3)))
    torch.testing.assert_close(target.log_prob(x, sde, 0.3), exact.log_prob(x), rtol=1e-11, atol=0)
    samples = target.sample(100)
    torch.testing.assert_close(samples[:, 0], samples[:, 1], rtol=0, atol=1e-7)
    point = Gaussian(torch.ones(2, dtype=F64), 0.0)
    assert torch.equal(point.sample(3), torch.ones(3, 2, dtype=F64))
    estimate = point.score(sde).estimate(x, sde.node(0.3))
    torch.testing.assert_close(estimate.data, torch.ones(4, 2, dtype=F64), rtol=1e-14, atol=0)
    data = draw(5, 2, seed=6)  # nearly clean: the nearest point
    near = Empirical(data).score(EDMSDE()).estimate(x, EDMSDE().node(0.002)).data
    torch.testing.assert_close(near, data[torch.cdist(x, data).argmin(1)])


@pytest.mark.parametrize("at", [None, 0.3])
def test_moments_of_samples(target: Any, at: float | None) -> None:
    """They see a mean that is off by 5 % of the standard deviation, and a variance that is 7 % off."""
    n = 10_000
    sde = None if at is None else VPSDE()
    alpha, sigma = (1.0, 0.0) if sde is None else (float(sde.alpha(at)), float(sde.sigma(at)))
    x = target.sample(n, sde, at, generator=torch.Generator().manual_seed(11)).flatten(1)
    assert x.shape == (n, math.prod(target.event_shape))
    weights, means, covs = matrices(target)
    mean, centred = weights @ means, means - weights @ means
    cov = (weights[:, None, None] * (covs + centred[:, :, None] * centred[:, None, :])).sum(0)
    cov = alpha**2 * cov + sigma**2 * torch.eye(len(mean), dtype=F64)
    assert ((x.mean(0) - alpha * mean).abs() < 4.9 * (cov.diagonal() / n).sqrt()).all()
    products = (x - alpha * mean)[:, :, None] * (x - alpha * mean)[:, None, :]
    spread = products.std(0) / math.sqrt(n)
    assert ((products.mean(0) - cov).abs() < 4.9 * spread).all()


@pytest.mark.parametrize("at", [None, 0.1])
def test_samples_follow_the_density(at: float | None) -> None:
    n = 10_000
    target = GaussianMixture(
        torch.tensor([0.3, 0.5, 0.2]),
        torch.tensor([[-1.2], [0.4], [1.5]], dtype=F64),
        scales=torch.tensor([0.3, 0.2, 0.4], dtype=F64),
    )
    sde = None if at is None else VPSDE()
    x = target.sample(n, sde, at, generator=torch.Generator().manual_seed(12))[:, 0].sort().values
    grid = torch.linspace(-8, 8, 8001, dtype=F64)
    cdf = torch.cumulative_trapezoid(target.log_prob(grid[:, None], sde, at).exp(), grid)
    place = torch.searchsorted(grid[1:], x).clamp(max=len(cdf) - 1)
    gap = (cdf[place] - torch.arange(1, n + 1) / n).abs().max()
    assert float(gap) < math.sqrt(math.log(2e6) / (2 * n)) + 0.003  # DKW, and the width of a cell of the grid


def test_samples_with_a_time_each() -> None:
    sde = VESDE()
    t = torch.tensor([1e-5, 1.0], dtype=F64).repeat(2000)
    x = Gaussian(torch.zeros(2, dtype=F64), 1.0).sample(4000, sde, t, generator=torch.Generator().manual_seed(13))
    assert float(x[0::2].std()) == pytest.approx(1.0, rel=0.1)
    assert float(x[1::2].std()) == pytest.approx(50.0, rel=0.1)


def test_samples_follow_the_generator_and_the_dtype(target: Any) -> None:
    first, second = (target.sample(5, VPSDE(), 0.3, torch.Generator().manual_seed(14)) for _ in range(2))
    assert torch.equal(first, second)
    assert (first.dtype, first.shape) == (F64, (5, *target.event_shape))
    assert target.sample(0).shape == (0, *target.event_shape)


# The exact probability-flow map of a Gaussian

GAUSSIANS = [name for name in TARGETS if name.startswith("gaussian")]


@pytest.mark.parametrize("name", GAUSSIANS)
def test_flow_map_composes_inverts_and_is_identity(name: str) -> None:
    target = TARGETS[name]()
    x = draw(4, *target.event_shape, seed=16)
    for make in PROCESSES.values():
        sde = make()
        r, s, t = times(sde, 3).tolist()
        direct = target.flow_map(x, sde, r, t)
        composed = target.flow_map(target.flow_map(x, sde, r, s), sde, s, t)
        torch.testing.assert_close(composed, direct, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(target.flow_map(direct, sde, t, r), x, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(target.flow_map(x, sde, s, s), x, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", GAUSSIANS)
def test_flow_map_solves_the_probability_flow(name: str) -> None:
    target = TARGETS[name]()
    x = draw(4, *target.event_shape, seed=16)
    for make in PROCESSES.values():
        sde = make()
        s, t = times(sde, 2, margin=0.2).tolist()
        flow = sde.probability_flow(target.score(sde))
        at = torch.tensor(t, dtype=F64)
        velocity = torch.autograd.functional.jacobian(lambda u, sde=sde, s=s: target.flow_map(x, sde, s, u), at)
        wanted = flow.drift(target.flow_map(x, sde, s, t), t)
        torch.testing.assert_close(velocity, wanted, rtol=1e-9, atol=1e-10 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", GAUSSIANS)
def test_flow_map_changes_volume_as_the_spectrum_says(name: str) -> None:
    target = TARGETS[name]()
    size = math.prod(target.event_shape)
    _, _, covs = matrices(target)
    eigenvalues = torch.linalg.eigvalsh(covs[0])
    x = draw(1, *target.event_shape, seed=16)
    for make in PROCESSES.values():
        sde = make()
        s, t = times(sde, 2).tolist()
        move = lambda y, sde=sde, s=s, t=t: target.flow_map(y, sde, s, t)  # noqa: E731
        jacobian = torch.autograd.functional.jacobian(move, x).reshape(size, size)
        spread = [float(sde.alpha(u)) ** 2 * eigenvalues + float(sde.sigma(u)) ** 2 for u in (s, t)]
        volume = 0.5 * (spread[1] / spread[0]).log().sum()
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, volume, rtol=1e-10, atol=1e-11)
        # and so the density is carried along
        carried = target.log_prob(target.flow_map(x, sde, s, t), sde, t) + volume
        torch.testing.assert_close(carried, target.log_prob(x, sde, s), rtol=1e-9, atol=1e-9)


def test_flow_map_takes_a_time_per_sample() -> None:
    target = TARGETS["gaussian full, rank 2"]()
    sde = VPSDE()
    x, t = draw(3, 2, 3), torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    together = target.flow_map(x, sde, 1.0, t)
    alone = torch.cat([target.flow_map(x[i : i + 1], sde, 1.0, float(t[i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=1e-13)
    assert target.flow_map(x.float(), sde, 1.0, 0.5).dtype == torch.float32


def test_handling_a_large_batch_in_parts_changes_nothing() -> None:
    """A batch of 17 with a data set of 2^20 numbers, of which 2^24 differences are kept at a time."""
    sde, target = VPSDE(), Empirical(draw(256, 2, 32, 64, seed=6).float(), bandwidth=0.2)
    x, t, score = draw(17, 2, 32, 64, seed=17).float(), times(sde, 17), target.score(sde)
    rows = torch.tensor([0, 15, 16])
    whole, part = score.estimate(x, sde.nodes(t)), score.estimate(x[rows], sde.nodes(t[rows]))
    torch.testing.assert_close(whole.data[rows], part.data, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole.noise[rows], part.noise, rtol=1e-5, atol=1e-5)
    assert score.estimate(x[:0], sde.node(0.5)).data.shape == (0, 2, 32, 64)


def test_scores_have_the_dtype_of_the_state(target: Any) -> None:
    sde = VPSDE()
    x, t = draw(4, *target.event_shape, seed=19), times(sde, 4)
    exact = target.score(sde)(x, t)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.1)):
        got = target.score(sde)(x.to(dtype), t.to(dtype) if dtype == torch.float32 else t)
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), exact, rtol=tolerance, atol=tolerance * float(exact.abs().max()))
    wide = torch.ones(1, 3072)  # whose density is summed in float32
    for law in (Gaussian(torch.zeros(3072), 1.0), Empirical(torch.zeros(1, 3072), 1.0)):
        assert law.dtype == law.sample(2).dtype == law.sample(2, sde, 0.5).dtype == torch.float32
        assert float(law.log_prob(wide.bfloat16())) == pytest.approx(float(law.log_prob(wide.double())), rel=1e-4)


def test_everything_works_in_inference_mode_and_alone(target: Any) -> None:
    sde, score, order = VPSDE(), target.score(VPSDE()), torch.tensor([3, 0, 1])

    def everything() -> tuple[Tensor, Tensor]:
        x, t = draw(4, *target.event_shape), times(sde, 4)
        torch.testing.assert_close(score(x, t)[order], score(x[order], t[order]), rtol=1e-12, atol=1e-12)
        return score(x, t), target.log_prob(x, sde, t)

    with torch.inference_mode():
        inside = everything()
        target.sample(3, sde, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(everything(), inside, strict=True))
    assert score.rowwise is True
    assert score.event_shape == target.event_shape


# Refusals

Z2, E2 = torch.zeros(2), torch.eye(2)
INDEFINITE = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
PAIR = torch.ones(2)
REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: Gaussian(torch.zeros(2, dtype=torch.int64), 1.0), "`mean` must be a floating-point tensor"),
    (lambda: Gaussian(Z2, torch.eye(3)), r"`cov` must have shape .*got \(3, 3\)"),
    (lambda: Gaussian(Z2, torch.tensor([1.0, -1.0])), "`cov` must not be negative"),
    (lambda: Gaussian(Z2, torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "`cov` must be symmetric"),
    (lambda: Gaussian(Z2, INDEFINITE), "`cov` must be positive semi-definite; its smallest eigenvalue is -1"),
    (lambda: GaussianMixture(torch.ones(3), E2, scales=1.0), "`weights` must be 2 positive numbers"),
    (lambda: GaussianMixture(PAIR, Z2, scales=1.0), r"`means` must be .*\(K, \*event\)"),
    (lambda: GaussianMixture(E2, E2.expand(2, 2, 2)), r"`weights` .*; write GaussianMixture\(weights, means"),
    (lambda: GaussianMixture(Z2, E2), r"`weights` must .* or Gaussian\(mean, cov\) for a single Gaussian"),
    (lambda: GaussianMixture(PAIR, E2, 0.1), "`covs` .* is scales="),
    (lambda: Gaussian(E2, E2.expand(2, 2, 2)), r"2 matrices; .* is GaussianMixture\(weights, means"),
    (lambda: GaussianMixture(PAIR, E2, PAIR, scales=1.0), "exactly one of `covs` and"),
    (lambda: GaussianMixture(PAIR, E2, scales=-1.0), "`scales` are standard deviations"),
    (lambda: GaussianMixture(PAIR, E2, torch.ones(2, 3)), r"`covs` must have shape .*\(2, 3\)"),
    (lambda: GaussianMixture(PAIR, E2, torch.stack([E2, INDEFINITE])), "`covs` must be positive semi-definite"),
    (lambda: Empirical(E2, -0.1), "`bandwidth` must be in"),
    (lambda: Uniform(E2, PAIR), r"`high` must be a number or .* \(2, 2\), got \(2,\)"),
    (lambda: Uniform(Z2, torch.tensor([1.0, -1.0])), "`high` must be above `low` .* difference of -1"),
    (lambda: Gaussian(torch.zeros(3), LowRank(torch.ones(3, 4), 0.1)), "r <= D"),
    (lambda: Gaussian(torch.zeros(3), LowRank(torch.ones(3, 1), -0.1)), "variance"),
    (lambda: Gaussian.fit(torch.ones(1, 3)), "2 samples"),
    (lambda: Gaussian.fit(torch.ones(4, 3), "denes"), "did you mean 'dense'"),
]


def test_constructors_refuse() -> None:
    assert_refused((make, InvalidArgumentError, message) for make, message in REFUSED)
    with pytest.raises(InvalidTypeError, match=r"`means` is missing; write GaussianMixture\(weights, means, covs\)"):
        GaussianMixture(E2, scales=0.1)
    with pytest.raises(InvalidTypeError, match="cov"):
        Gaussian(torch.zeros(2), None)
    with pytest.raises(InvalidTypeError, match="`sde`"):
        Gaussian(torch.zeros(2), 1.0).score("vp")


def test_bad_states_and_times_are_refused() -> None:
    sde, cases = VPSDE(), []
    for target in (make() for make in TARGETS.values()):
        for shape in ((2, 7), (2, *[1] * len(target.event_shape)), target.event_shape):
            x = torch.zeros(shape)
            cases.append((lambda x=x, law=target: law.log_prob(x, sde, 0.5), InvalidArgumentError, "`x` must be"))
            cases.append((lambda x=x, law=target: law.score(sde)(x, 0.5), InvalidArgumentError, "`x` must be"))
    law, x = Gaussian(torch.zeros(2), 1.0), torch.ones(3, 2)
    cases += [
        (lambda: law.flow_map(x[0], sde, 0.2, 0.5), InvalidArgumentError, "`x` must be"),
        (lambda: law.log_prob(x.long(), sde, 0.5), InvalidTypeError, "`x` must have a floating-point dtype"),
        (lambda: law.score(sde)(x, torch.ones(2)), InvalidArgumentError, "`t`"),
        (lambda: law.log_prob(x, sde), InvalidArgumentError, "both `sde` and `t`, or neither"),
        (lambda: law.sample(3, t=0.5), InvalidArgumentError, "both `sde` and `t`, or neither"),
        (lambda: law.sample(-1), InvalidArgumentError, "`n` must be"),
        (lambda: law.sample(2, generator=3), InvalidTypeError, r"`generator` must be a torch.Generator, got int"),
    ]
    assert_refused(cases)


def low_rank(event: tuple[int, ...] = (3, 4), rank: int = 2, variance: float = 0.3) -> tuple[Gaussian, Gaussian]:
    """The same Gaussian by its factor and in full."""
    generator = torch.Generator().manual_seed(3)
    factor = torch.randn(math.prod(event), rank, generator=generator, dtype=F64)
    mean = torch.randn(event, generator=generator, dtype=F64)
    full = factor @ factor.mT + variance * torch.eye(len(factor), dtype=F64)
    return Gaussian(mean, LowRank(factor, variance)), Gaussian(mean, full)


@pytest.mark.parametrize("event", [(1,), (7,), (3, 4), (2, 2, 3)])
def test_a_low_rank_covariance_is_the_same_one_in_full(event: tuple[int, ...]) -> None:
    size, sde = math.prod(event), VPSDE()
    x = torch.randn(5, *event, generator=torch.Generator().manual_seed(0), dtype=F64)
    eye = torch.eye(size, dtype=F64).reshape(size, *event)
    for rank in {0, 1, min(2, size), size}:
        short, full = low_rank(event, rank)
        for t in (0.3, torch.tensor([0.01, 0.2, 0.5, 0.9, 1.0], dtype=F64)):
            torch.testing.assert_close(short.score(sde)(x, t), full.score(sde)(x, t), rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(short.log_prob(x, sde, t), full.log_prob(x, sde, t), rtol=1e-10, atol=1e-10)
            ends = [law.flow_map(x, sde, 1.0, t) for law in (short, full)]
            torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(short.log_prob(x), full.log_prob(x), rtol=1e-9, atol=1e-9)
        assert short.spectrum.mean == pytest.approx(full.spectrum.mean)
        largest = [float(law.spectrum.eigenvalues()[0].max()) for law in (short, full)]
        assert largest[0] == pytest.approx(largest[1])
        draws = short.spectrum.draw(eye).flatten(1)
        torch.testing.assert_close(draws.mT @ draws, full.spectrum.map(eye, lambda v: v).flatten(1))


@pytest.mark.parametrize("shape", [(50, 6), (5, 20), (40, 2, 3)])
def test_fitted_moments(shape: tuple[int, ...]) -> None:
    data = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64) @ torch.diag(
        torch.linspace(0.5, 2, shape[-1], dtype=F64)
    )
    flat = data.flatten(1)
    cov = torch.cov(flat.mT, correction=0)
    dense, diagonal = Gaussian.fit(data), Gaussian.fit(data, "diagonal")
    values, basis = dense.spectrum
    torch.testing.assert_close((basis * values.reshape(-1)) @ basis.mT, cov, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(dense.mean, data.mean(0))
    torch.testing.assert_close(diagonal.spectrum.values.reshape(-1), cov.diagonal())
    for rank in (0, 1, 3):
        found = Gaussian.fit(data, rank).spectrum
        exact = torch.linalg.eigvalsh(cov).flip(0)
        torch.testing.assert_close(found.values.sort(descending=True).values, exact[:rank], rtol=1e-9, atol=1e-9)
        assert float(found.rest) == pytest.approx(float(exact[rank:].mean()))
        torch.testing.assert_close(found.basis.mT @ found.basis, torch.eye(rank, dtype=F64), rtol=0, atol=1e-9)
        torch.testing.assert_close(cov @ found.basis, found.basis * found.values, rtol=1e-8, atol=1e-9)


def test_the_fit_of_a_rank_is_the_most_likely_one() -> None:
    """Moving the variance or the factor lowers the likelihood of the data."""
    data = torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=F64) * torch.tensor(
        [3.0, 1, 1, 0.5, 0.2]
    )
    best = Gaussian.fit(data, 2)
    spectrum = best.spectrum
    factor = spectrum.basis * (spectrum.values - spectrum.rest).sqrt()
    for scale, variance in ((1.02, 1.0), (0.98, 1.0), (1.0, 1.02), (1.0, 0.98)):
        other = Gaussian(best.mean, LowRank(scale * factor, variance * float(spectrum.rest)))
        assert float(other.log_prob(data).sum()) < float(best.log_prob(data).sum())


@pytest.mark.parametrize("rank", [4, 10, "all"])
def test_a_low_rank_covariance_in_float32(rank: Any) -> None:
    """As good as one in full where little noise is left: what lies outside the known directions is small there."""
    size, sde = 60, EDMSDE()
    for variance in (0.0, 1e-4):
        short, full = low_rank((size,), size if rank == "all" else rank, variance)
        x = full.sample(4, sde, sde.t_min, generator=torch.Generator().manual_seed(0)).float()
        exact = short.score(sde)(x.double(), sde.t_min)
        got = short.score(sde)(x, sde.t_min).double()
        assert float((got - exact).norm() / exact.norm()) < 1e-3
        nats = short.log_prob(x, sde, sde.t_min).double() - short.log_prob(x.double(), sde, sde.t_min)
        assert float(nats.abs().max()) < 0.05


def test_a_law_without_a_density_has_a_score() -> None:
    short, full = low_rank(variance=0.0)
    for law in (Gaussian(torch.zeros(2), torch.tensor([1.0, 0.0])), short, Empirical(draw(5, 2, seed=6))):
        with pytest.raises(InvalidArgumentError, match="no density"):
            law.log_prob(torch.zeros(1, *law.event_shape))
        assert bool(law.log_prob(torch.zeros(1, *law.event_shape), VPSDE(), 0.1).isfinite().all())
    x = torch.ones(2, 3, 4, dtype=F64)
    torch.testing.assert_close(short.score(VPSDE())(x, 0.1), full.score(VPSDE())(x, 0.1), rtol=1e-7, atol=1e-7)


def test_a_singular_covariance_in_float32_is_semi_definite_to_its_rounding() -> None:
    data = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    assert float(Gaussian(torch.zeros(20), torch.cov(data.mT)).spectrum.values.min()) == 0.0


def test_the_standard_deviation_of_the_data() -> None:
    generator = torch.Generator().manual_seed(0)
    data = 3.0 * torch.randn(40, 2, 5, generator=generator, dtype=F64) + 7.0
    wanted = float(data.var(0, correction=0).mean().sqrt())
    assert Empirical(data).data_std == pytest.approx(wanted, rel=1e-12)
    assert Empirical(data, bandwidth=2.0).data_std == pytest.approx(math.hypot(wanted, 2.0), rel=1e-12)
    factor = torch.randn(5, 2, generator=generator, dtype=F64)
    cov = factor @ factor.T + 0.1 * torch.eye(5, dtype=F64)
    for known in (cov, LowRank(factor, 0.1)):
        assert Gaussian(torch.ones(5, dtype=F64), known).data_std == pytest.approx(float(cov.trace() / 5) ** 0.5)
    pair = GaussianMixture(torch.tensor([3.0, 1.0]), torch.tensor([[0.0], [4.0]]), scales=torch.tensor([1.0, 2.0]))
    assert pair.data_std == pytest.approx(math.sqrt(0.75 * 1 + 0.25 * 4 + 0.75 * 0.25 * 16))
    assert pair.score(VPSDE()).traits.data_std == pair.data_std
    assert Gaussian(torch.zeros(2), 0.0).data_std == 0.0
