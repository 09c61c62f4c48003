"""Rules and solvers of inverse problems, against posteriors that are known."""

from __future__ import annotations

import gc
import math
from typing import Any

import pytest
import torch

import scoresde
from scoresde import inverse
from scoresde.inverse.rules import RULES, Tally, look
from scoresde.inverse.samplers import SAMPLERS
from scoresde.targets import Gaussian, GaussianMixture
from scoresde.testing import affine_law
from scoresde.training import digits_split, grey_to_x
from tests.unit.refusals import assert_refused

# Most tests here take few steps of a network that is no denoiser, whose samples are far from the measurement.
pytestmark = pytest.mark.filterwarnings("ignore:.* do not fit the measurement")

F64 = torch.float64
SDES = {
    "VP": scoresde.VPSDE(),
    "VE": scoresde.VESDE(sigma_max=10.0),
    "flow": scoresde.FlowSDE(),
    "EDM": scoresde.EDMSDE(),
}
VP = SDES["VP"]
SCORE = Gaussian(torch.zeros(4, dtype=F64), torch.tensor([0.2, 0.5, 1.0, 2.0], dtype=F64)).score(VP)
FULL = {"steps": 3, "shape": (2, 4), "seed": 0, "dtype": F64}


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def spread_of(size=5, seed=0):
    root = draw(size, size, seed=seed)
    return root @ root.mT / size + 0.1 * torch.eye(size, dtype=F64)


def gaussian(size=5, seed=0):
    return Gaussian(draw(size, seed=seed + 1), spread_of(size, seed))


def conditioned(spread, matrix, noise):
    """The covariance of a Gaussian posterior."""
    return (spread.inverse() + matrix.mT @ noise.inverse() @ matrix).inverse()


def mixture(size=4):
    root = draw(3, size, size, seed=7) / 2
    covs = root @ root.mT + 0.05 * torch.eye(size, dtype=F64)
    return GaussianMixture(torch.tensor([0.2, 0.5, 0.3]), 2 * draw(3, size), covs)


def spread(target, sde, t):
    """How far states at time t are from zero."""
    return target.sample(6, sde, t, generator=torch.Generator().manual_seed(3)).to(F64)


def measured(rows=3, size=4, std=0.3):
    """An operator, a measurement and its noise."""
    return draw(rows, size, seed=11), draw(rows, seed=12), std


def options_for(name, target):
    """Options that a method cannot go without, or that make its test short."""
    given = {"exact": {"target": target}, "split_gibbs": {"sweeps": 4, "hold": 2, "descent": 3}}
    return given.get(name, {})


def law(target, operator, y, std, method, sde=VP, steps=40, **options):
    """The exact mean and covariance of a method's samples, for Gaussian data."""
    options |= {"method": method, "steps": steps, "dtype": F64}

    def run(shape, noise):
        given = {"shape": shape, "noise": noise, **options}
        return inverse.sample_posterior(sde, target.score(sde), operator, y, std, **given).x

    return affine_law(run, target.event_shape)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_moment_matching_is_exact_for_gaussian_data(sde):
    target, (matrix, y, std) = gaussian(), measured(size=5)
    score_fn, posterior = target.score(sde), target.posterior(matrix, y, std).score(sde)
    for share in (0.0, 0.3, 0.7, 1.0):
        t = sde.t_min + share * (sde.t_max - sde.t_min)
        x = spread(target, sde, t)
        exact = posterior(x, t)
        got, early = (
            inverse.condition(score_fn, matrix, y, std, method="mmps", iterations=n, radius=None)(x, t) for n in (3, 1)
        )
        torch.testing.assert_close(got, exact, rtol=1e-10, atol=1e-10 * float(exact.abs().max()))
        if 0.0 < share < 1.0:
            assert not torch.allclose(early, exact, rtol=1e-4)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_the_region_of_trust_has_the_states_of_a_posterior_inside(sde):
    """Of 500 at each time none is moved by less than the formula."""
    target, (matrix, y, std) = gaussian(), measured(size=5)
    posterior, given = target.posterior(matrix, y, std), {"sde": sde, "method": "mmps", "iterations": 3}
    for share in (0.0, 0.1, 0.3, 0.7, 1.0):
        t = sde.t_min + share * (sde.t_max - sde.t_min)
        node, generator = sde.node(t), torch.Generator().manual_seed(3)
        x0 = posterior.sample(500, generator=generator)
        x = node.alpha * x0 + node.sigma * torch.randn(x0.shape, generator=generator, dtype=F64)
        near, formula = (
            inverse.condition(target.score(sde), matrix, y, std, radius=radius, **given).estimate(x, node).data
            for radius in (4.0, None)
        )
        torch.testing.assert_close(near, formula, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_what_a_measurement_adds_is_shortened_to_the_radius_or_twice_what_it_needs(sde):
    """The second value is ten times the first, which is measured: the formula moves a state by ten times what y needs,
    however far off it is."""
    target = Gaussian(torch.zeros(2, dtype=F64), torch.tensor([[1.0, 9.9], [9.9, 100.0]], dtype=F64))
    matrix, y, x = torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([[0.3], [60.0]], dtype=F64), torch.zeros(2, 2)
    t = next(t for t in torch.linspace(sde.t_min, sde.t_max, 999).tolist() if sde.node(t).sigma > 5 * sde.node(t).alpha)
    node, given = sde.node(t), {"sde": sde, "method": "mmps"}
    score_fn = target.score(sde)
    data = score_fn.estimate(x.to(F64), node).data
    for radius in (0.5, 4.0):
        formula, got = (
            inverse.condition(score_fn, matrix, y, 0.1, radius=r, **given).estimate(x.to(F64), node).data - data
            for r in (None, radius)
        )
        longest = (2 * y[:, 0]).clamp_min((2**0.5 + radius) * node.sigma / node.alpha)
        share = (longest / formula.square().sum(1).sqrt()).clamp_max(1.0)
        assert share[1] < 0.5
        torch.testing.assert_close(got, share[:, None] * formula, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", ["pigdm", "tmpd", "mmps", "exact"])
def test_what_is_exact_for_independent_pixels(method):
    v = 0.6**2
    target = Gaussian(draw(4), v)
    operator, y = inverse.Mask(torch.tensor([True, False, True, True])), draw(3, seed=5)
    options = {"pigdm": {"data_std": v**0.5}, "exact": {"target": target}}.get(method, {})
    for sde in SDES.values():
        for share in (0.001, 0.5, 1.0):
            t = sde.t_min + share * (sde.t_max - sde.t_min)
            x = spread(target, sde, t)
            exact = target.posterior(operator, y, 0.2).score(sde)(x, t)
            got = inverse.condition(target.score(sde), operator, y, 0.2, method=method, **options)(x, t)
            torch.testing.assert_close(got, exact, rtol=1e-10, atol=1e-10 * float(exact.abs().max()))


@pytest.mark.parametrize("t", [0.001, 0.2, 0.7])
def test_moment_matching_is_its_formula_on_a_mixture(t):
    target, (matrix, y, std) = mixture(), measured()
    x, node = spread(target, VP, t), VP.node(t)
    score_fn = target.score(VP)
    one = lambda v: score_fn.estimate(v[None], node).data[0]  # noqa: E731
    jacobian = torch.stack([torch.autograd.functional.jacobian(one, row, vectorize=True) for row in x])
    cov, data = node.sigma**2 / node.alpha * jacobian, score_fn.estimate(x, node).data
    system = matrix @ cov @ matrix.mT + std**2 * torch.eye(3, dtype=F64)
    weights = torch.linalg.solve(system, (y - data @ matrix.mT)[..., None])
    wanted = data + (cov @ matrix.mT @ weights)[..., 0]
    options = {"method": "mmps", "iterations": 3, "radius": None}
    got = inverse.condition(score_fn, matrix, y, std, **options).estimate(x, node)
    torch.testing.assert_close(got.data, wanted, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(node.alpha * got.data + node.sigma * got.noise, x, rtol=1e-10, atol=1e-10)
    sums = (matrix @ cov @ matrix.mT).sum(2).clamp_min(0) + std**2
    diagonal = data + (cov @ matrix.mT @ ((y - data @ matrix.mT) / sums)[..., None])[..., 0]
    got = inverse.condition(score_fn, matrix, y, std, method="tmpd").estimate(x, node)
    torch.testing.assert_close(got.data, diagonal, rtol=1e-9, atol=1e-9)


def test_a_jacobian_that_is_no_covariance_is_not_followed():
    """With C = -c I next to the noise in size, the system is all but singular; the estimate is left as it is. So it is
    where C is a small multiple of I and a rotation, along which a step would make the residual ten times larger."""
    node, x, y = VP.node(0.3), draw(3, 4), draw(4, seed=1)
    width = 0.3 * node.sigma**2 / node.alpha
    std = 1.001 * width**0.5
    eye = torch.eye(4, dtype=F64)
    turn = 0.1 * eye + torch.kron(torch.eye(2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])).to(F64)
    for slope, noise, step in ((-0.3 * eye, std, 0.0), (0.3 * eye, std, width / (width + std**2)), (turn, 0.0, 0.0)):
        model = scoresde.ScoreModel(lambda x, t, slope=slope: x @ slope, VP, prediction="data")
        got = inverse.condition(model, eye, y, noise).estimate(x, node).data
        torch.testing.assert_close(got, x @ slope + step * (y - x @ slope), rtol=1e-10, atol=1e-10)


@pytest.mark.cells(4)
@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("method", ["mmps", "tmpd"])
def test_the_default_solver_of_a_rule_has_the_width_of_the_posterior(method, sde):
    """The chain's own steps, of first order, are too narrow by 5 % and more where nothing is measured."""
    target = Gaussian(torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64))
    problem = target, inverse.Mask(torch.tensor([True, False])), torch.ones(1, dtype=F64), 0.1, method
    wide = law(*problem, sde=sde, steps=50)[1].diagonal().sqrt()
    wanted = torch.tensor([(1 / (1 + 1 / 0.1**2)) ** 0.5, 1.0], dtype=F64)
    torch.testing.assert_close(wide, wanted, rtol=0.025, atol=0.0)
    narrow = law(*problem, sde=sde, steps=50, sampler="ancestral")[1].diagonal().sqrt()
    assert abs(float(narrow[1]) - 1) > 1.5 * abs(float(wide[1]) - 1)


def test_every_rule_says_which_solver_is_its_default():
    assert {name: rule.sampler for name, rule in RULES.items() if rule.sampler != inverse.Rule.sampler} == {
        "dps": "ancestral"
    }
    for rule in (inverse.DPS, inverse.MMPS):
        problem = {**FULL, "method": rule.name}
        default, told = (
            inverse.sample_posterior(VP, SCORE, *measured(), **problem, **options).x
            for options in ({}, {"sampler": rule.sampler})
        )
        assert torch.equal(default, told), rule.name


@pytest.mark.parametrize("method", ["dps", "pigdm"])
def test_the_guidance_is_the_gradient_of_the_density(method):
    target, (matrix, y, std) = mixture(), measured()
    score_fn, node, t = target.score(VP), VP.node(0.4), 0.4
    x = spread(target, VP, t)
    posterior = inverse.condition(score_fn, matrix, y, std, method=method)
    seen = posterior.measurement
    given = x.clone().requires_grad_()
    known = look(score_fn.estimate, given, node, Tally(), True)
    density = posterior.rule.log_likelihood(known, seen, seen.of(x))
    (slope,) = torch.autograd.grad(density.sum(), given)
    torch.testing.assert_close(posterior(x, t) - score_fn(x, t), slope, rtol=1e-9, atol=1e-9)


def test_the_exact_rule_is_bayes_rule():
    target, (matrix, y, std) = mixture(), measured()
    posterior = inverse.condition(target.score(VP), matrix, y, std, method="exact", target=target)
    wanted = target.posterior(matrix, y, std)
    for t in (0.001, 0.3, 1.0):
        x = spread(target, VP, t)
        torch.testing.assert_close(posterior(x, t), wanted.score(VP)(x, t), rtol=1e-9, atol=1e-9)


def test_a_covariance_is_divided_out():
    """Of a matrix, and of a linear map given as a function, which is that map."""
    target, (matrix, y, _) = gaussian(), measured(size=5)
    root = draw(3, 3, seed=20)
    cov = root @ root.mT + 0.1 * torch.eye(3, dtype=F64)
    x = spread(target, VP, 0.4)
    exact = target.posterior(matrix, y, cov).score(VP)(x, 0.4)
    got = inverse.condition(target.score(VP), matrix, y, cov, iterations=3)(x, 0.4)
    torch.testing.assert_close(got, exact, rtol=1e-9, atol=1e-9)
    function = inverse.Nonlinear(lambda x: x @ matrix.mT, (3,))
    for seen in (y, draw(len(x), 3, seed=22)):
        got, exact = (inverse.condition(target.score(VP), a, seen, cov, method="dps") for a in (function, matrix))
        torch.testing.assert_close(got(x, 0.4), exact(x, 0.4))
        assert inverse.Measurement(function, seen.float(), cov).y.dtype == torch.float32


def test_exact_rules_sample_the_posterior():
    """Without Monte Carlo: the distribution of the samples, at two step counts; the error is that of the solver."""
    target, (matrix, y, std) = gaussian(3), measured(rows=2, size=3)
    mean = target.posterior(matrix, y, std).means[0]
    cov = conditioned(spread_of(3), matrix, std**2 * torch.eye(2, dtype=F64))
    errors = []
    for steps in (50, 100):
        found, got = law(target, matrix, y, std, "mmps", steps=steps, iterations=2, radius=None)
        errors.append(max(float((got - cov).abs().max()), float((found - mean).abs().max())))
    assert errors[1] < 0.6 * errors[0] < 0.1


@pytest.mark.parametrize("std", [0.0, 0.3])
def test_split_gibbs_samples_what_it_says(std):
    """The distribution of z is the posterior with the noise sigma_y^2 + rho^2 A A^T, exactly in the limit of fine
    descents."""
    target, (matrix, y, _), rho = gaussian(2), measured(rows=1, size=2), 0.4
    noise = std**2 * torch.eye(1, dtype=F64) + rho**2 * matrix @ matrix.mT
    exact, cov = target.posterior(matrix, y, noise).means[0], conditioned(spread_of(2), matrix, noise)
    errors, means = [], []
    for descent in (8, 16):
        options = {"rho_min": rho, "rho_max": rho, "sweeps": 30, "hold": 30, "descent": descent}
        options["solver"] = scoresde.solvers.DPMpp2MSDE()
        mean, got = law(target, matrix, y, std, "split_gibbs", steps=3, **options)
        errors.append(float((got - cov).abs().max()))
        means.append(mean)
    assert errors[1] < 0.35 * errors[0] and errors[1] < 0.01  # of second order
    # an SDE solver started afresh in each descent is right in the mean, but for the noise that is left at the end
    torch.testing.assert_close(means[0], means[1], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(means[1], exact, rtol=0, atol=1e-3)


NOTHING = [
    (torch.zeros(1, 4, dtype=F64), torch.ones(1, dtype=F64)),
    (inverse.Mask(torch.zeros(4) > 0), torch.zeros(0).to(F64)),
]


@pytest.mark.parametrize("method", RULES)
def test_nothing_measured_leaves_the_prior(method):
    target = mixture()
    score_fn = target.score(VP)
    for operator, y in NOTHING[:1] if method == "dps_step" else NOTHING:
        posterior = inverse.condition(score_fn, operator, y, 1.0, method=method, **options_for(method, target))
        for t in (0.01, 0.5):
            x = spread(target, VP, t)
            torch.testing.assert_close(posterior(x, t), score_fn(x, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", SAMPLERS)
def test_nothing_measured_leaves_the_distribution_of_samples(method):
    prior = gaussian(2)
    nothing = [(torch.zeros(1, 2, dtype=F64), torch.ones(1, dtype=F64))]
    if method not in ("dps_step", "mcg"):
        nothing.append((inverse.Mask(torch.zeros(2) > 0), torch.zeros(0, dtype=F64)))
    for operator, y in nothing:
        if method == "twisted_smc":
            run = {"method": method, "steps": 5, "shape": (64, 2), "seed": 0, "dtype": F64}
            got = inverse.sample_posterior(VP, prior.score(VP), operator, y, 1.0, **run)
            assert float(got.ess.min()) > 63.999
            continue
        options = {"split_gibbs": {"sweeps": 3, "hold": 1, "descent": 60}, "ddrm": {"eta": 0.0}}.get(method, {})
        mean, cov = law(prior, operator, y, 1.0, method, steps=100, **options)
        torch.testing.assert_close(mean, prior.mean, rtol=0, atol=0.05)
        torch.testing.assert_close(cov, spread_of(2), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("method", ["mmps", "pigdm", "ddnm", "diffpir", "replacement", "mcg", "ddrm", "ddnm_plus"])
def test_without_noise_the_observed_pixels_are_kept(method):
    """At the end they are alpha y + sigma z: within six of the standard deviation that is left, of 64 draws."""
    target = Gaussian(torch.zeros(2, 3, 3), 0.5)
    mask = torch.rand((2, 3, 3), generator=torch.Generator().manual_seed(2)) < 0.5
    operator, sde = inverse.Mask(mask), VP
    y = operator.forward(target.sample(1, generator=torch.Generator().manual_seed(5)))[0]
    options = {"mcg": {"zeta": 0.01}, "ddrm": {"eta": 0.0}}.get(method, {})
    got = inverse.sample_posterior(
        sde, target.score(sde), operator, y, 0.0, method=method, steps=100, shape=(64, 2, 3, 3), seed=0, **options
    )
    left = float(sde.sigma(sde.t_min))
    assert float((operator.forward(got.x) - y).abs().max()) < 6 * left
    assert 0.4 < float(got.x[:, ~mask].var()) < 0.6  # the others are the prior's


def test_what_is_known_is_perturbed_to_its_level():
    """Imputation and colourisation: at the end the known part is alpha y with the variance sigma^2, exactly, and not
    the mean of the last step without noise."""
    target = Gaussian(torch.zeros(3, 1, 2, dtype=F64), 0.7 * torch.ones(3, 1, 2, dtype=F64))
    mask = inverse.Mask(torch.tensor([True, False, True]).reshape(3, 1, 1), (3, 1, 2))
    for operator in (inverse.Grey((3, 1, 2)), mask):
        y = draw(*operator.measurement_shape, seed=3)
        for corrector in (None, scoresde.LangevinCorrector()):
            mean, cov = law(target, operator, y, 0.0, "replacement", steps=10, corrector=corrector)
            a = operator.matrix()
            alpha, sigma = float(VP.alpha(VP.t_min)), float(VP.sigma(VP.t_min))
            torch.testing.assert_close(a @ mean, alpha * y.flatten(), rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(a @ cov @ a.mT, sigma**2 * a @ a.mT, rtol=1e-10, atol=1e-12)


def test_every_evaluation_sees_the_known_part_at_its_own_level():
    """Without noise the known part is alpha y at the time of each evaluation but the first."""
    seen = []

    def score_fn(x, t):
        seen.append((float(t[0]), x[0, 0].item()))
        return -x

    problem = inverse.Mask(torch.tensor([True, False])), torch.tensor([3.0], dtype=F64)
    run = {"method": "replacement", "steps": 4, "shape": (1, 2), "dtype": F64}
    for corrector, count in ((None, 4), (scoresde.LangevinCorrector(), 8)):
        seen.clear()
        noise = lambda k, like: torch.zeros_like(like)  # noqa: E731
        inverse.sample_posterior(VP, score_fn, *problem, corrector=corrector, noise=noise, **run)
        assert len(seen) == count
        for t, value in seen[1:]:
            assert math.isclose(value, 3.0 * float(VP.alpha(t)), rel_tol=1e-9)
    for rule, coupled in (("batch", True), ("sample", False)):
        assert inverse.Replacement(SEEN, corrector=scoresde.LangevinCorrector(rule=rule)).batch_coupled == coupled


def test_imputation_leaves_independent_pixels_to_the_sampler():
    target = Gaussian(torch.zeros(3, dtype=F64), torch.tensor([0.3, 0.7, 1.4], dtype=F64))
    operator, y = inverse.Mask(torch.tensor([True, False, False])), torch.ones(1, dtype=F64)

    def plain(shape, noise):
        return scoresde.solve(VP, target.score(VP), method="ancestral", steps=12, shape=shape, noise=noise, dtype=F64).x

    wanted = affine_law(plain, (3,))[1][1:, 1:]
    ancestral = scoresde.solvers.Ancestral()
    for method, options in (
        ("replacement", {"predictor": ancestral}),
        ("ddnm_plus", {}),
        ("ddnm", {"sampler": ancestral}),
    ):
        _, cov = law(target, operator, y, 0.0, method, steps=12, **options)
        torch.testing.assert_close(cov[1:, 1:], wanted, rtol=1e-10, atol=1e-12)


def test_going_back_up_brings_the_parts_together():
    """RePaint: the distribution of the rest comes closer to the posterior with more repeats."""
    target = Gaussian(torch.zeros(2, dtype=F64), torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64))
    operator, y = inverse.Mask(torch.tensor([True, False])), torch.tensor([2.0], dtype=F64)
    errors = {}
    for repeats in (1, 4, 12):
        mean, _ = law(target, operator, y, 0.0, "replacement", steps=20, jump=2, repeats=repeats)
        errors[repeats] = abs(float(mean[1]) - 1.8)
    assert errors[12] < 0.6 * errors[4] and errors[4] < 0.5 * errors[1]
    assert errors[1] > 0.1


def test_methods_that_coincide_do():
    target, operator = mixture(), inverse.Matrix(draw(2, 4, seed=11))
    y, x, node = draw(2, seed=12), spread(mixture(), VP, 0.4), VP.node(0.4)
    of = lambda method, std, **o: inverse.condition(  # noqa: E731
        target.score(VP), operator, y, std, method=method, **o
    ).estimate(x, node)
    torch.testing.assert_close(of("ddnm", 0.0).data, of("diffpir", 0.0).data, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(operator.forward(of("ddnm", 0.0).data), y.expand(6, 2), rtol=1e-10, atol=1e-10)
    rule = inverse.sample_posterior(VP, target.score(VP), operator, y, 0.0, method="ddnm", sampler="ancestral", **FULL)
    solver = inverse.sample_posterior(VP, target.score(VP), operator, y, 0.0, method="ddnm_plus", **FULL)
    torch.testing.assert_close(rule.x, solver.x, rtol=1e-9, atol=1e-9)
    prior = scoresde.solve(VP, target.score(VP), method="ancestral", **FULL)
    still = inverse.sample_posterior(VP, target.score(VP), operator, y, 1.0, method="dps_step", zeta=0.0, **FULL)
    torch.testing.assert_close(still.x, prior.x, rtol=1e-10, atol=1e-10)


def test_ddrm_is_its_formula():
    """One step, in the coordinates of V, against the three cases written out."""
    target, sde = gaussian(4), scoresde.VESDE(sigma_max=10.0)
    matrix = torch.diag(torch.tensor([2.0, 0.5, 0.01], dtype=F64)) @ torch.eye(3, 4, dtype=F64)
    y, std, eta, eta_b = draw(3, seed=2), 0.4, 0.7, 0.9
    x, z = 3 * draw(2, 4, seed=3), draw(2, 4, seed=4)
    start, stop = sde.node(0.6), sde.node(0.5)
    times = torch.tensor([0.6, 0.5], dtype=F64)
    method = inverse.DDRM(inverse.Measurement(matrix, y, std), eta, eta_b)
    got = scoresde.testing.end_of(method, sde, target.score(sde), x, times, lambda k, like: z)
    data, noise = target.score(sde).estimate(x, start)
    seen = torch.cat([y / matrix.diagonal(), torch.zeros(1, dtype=F64)])
    for i, s in enumerate([2.0, 0.5, 0.01, 0.0]):
        keep = math.sqrt(1 - eta**2)
        if s == 0.0:
            wanted = data[:, i] + stop.sigma * (keep * noise[:, i] + eta * z[:, i])
        elif stop.sigma < std / s:
            wanted = data[:, i] + stop.sigma * (keep * (seen[i] - data[:, i]) / (std / s) + eta * z[:, i])
        else:
            left = math.sqrt(stop.sigma**2 - (eta_b * std / s) ** 2)
            wanted = (1 - eta_b) * data[:, i] + eta_b * seen[i] + left * z[:, i]
        torch.testing.assert_close(got[:, i], wanted, rtol=1e-10, atol=1e-10)


def test_ddnm_plus_is_its_formula():
    target = gaussian(4)
    matrix = torch.diag(torch.tensor([2.0, 0.5, 0.01], dtype=F64)) @ torch.eye(3, 4, dtype=F64)
    y, std, x, z = draw(3, seed=2), 0.1, draw(2, 4, seed=3), draw(2, 4, seed=4)
    times = torch.tensor([0.3, 0.2], dtype=F64)
    method = inverse.DDNMPlus(inverse.Measurement(matrix, y, std))
    got = scoresde.testing.end_of(method, VP, target.score(VP), x, times, lambda k, like: z)
    data = target.score(VP).estimate(x, VP.node(0.3)).data
    ones = torch.ones_like(x)
    a = float(VP.posterior(0 * x, ones, 0.2, 0.3)[0][0, 0])
    b = float(VP.posterior(0 * x, ones, 0.2, 0.3)[1])
    limits = []
    for i, s in enumerate([2.0, 0.5, 0.01]):
        share = min(1.0, b * s / (a * std))
        limits.append(share < 1.0)
        moved = data[:, i] + share * (y[i] / s - data[:, i])
        spread_ = math.sqrt(max(0.0, b**2 - (a * share * std / s) ** 2))
        mean = VP.posterior(x[:, i : i + 1], moved[:, None], 0.2, 0.3)[0][:, 0]
        torch.testing.assert_close(got[:, i], mean + spread_ * z[:, i], rtol=1e-10, atol=1e-7)
    assert limits == [False, True, True] or limits == [False, False, True]


TWICE = torch.cat([torch.eye(4, dtype=F64)[:2]] * 2)  # rows that repeat each other
V = scoresde.InvalidArgumentError
ROW, ONE = torch.ones(1, 4), torch.ones(1)
SEEN = inverse.Measurement(torch.eye(4), torch.ones(4))
REFUSED = [
    (lambda: inverse.condition(SCORE, torch.ones(2, 3), torch.ones(2), 1.0), V, "4"),
    (lambda: inverse.condition(SCORE, torch.ones(2, 4), torch.ones(3), 1.0), V, "y"),
    (lambda: inverse.condition(SCORE, ROW, torch.full((1,), math.nan), 1.0), scoresde.NonFiniteError, "y"),
    (lambda: inverse.condition(SCORE, ROW, ONE, -1.0), V, "std"),
    (lambda: inverse.condition(SCORE, torch.eye(4)[:2], torch.ones(2), torch.zeros(2, 2)), V, "singular"),
    (lambda: inverse.condition(SCORE, ROW, ONE, 1.0, method="ddrm"), V, "sample_posterior"),
    (lambda: inverse.condition(SCORE, ROW, ONE, 1.0, method="exact"), V, "target"),
    (lambda: inverse.condition(lambda x, t: x, ROW, ONE, 1.0), V, "sde"),
    (lambda: inverse.condition(SCORE, ROW, ONE, 1.0, sde=scoresde.VESDE()), V, "was made for"),
    (lambda: inverse.condition(SCORE, lambda x: x[:, :1], ONE, 1.0), V, "linear"),
    (lambda: inverse.Replacement(SEEN, scoresde.solvers.RK45()), V, "fixed steps"),
    (lambda: inverse.Replacement(SEEN, scoresde.solvers.SMC()), V, "weights"),
    (lambda: inverse.SplitGibbs(SEEN, solver=scoresde.solvers.SMC()), V, "by itself"),
    (lambda: inverse.SplitGibbs(SEEN, solver=scoresde.solvers.DDIM()), V, "draw noise"),
    (lambda: inverse.TwistedSMC(SEEN, twist=inverse.MMPS()), V, "density"),
    (lambda: scoresde.solvers.PredictorCorrector(scoresde.solvers.SMC()), V, "weights"),
    (lambda: posterior(torch.eye(4), SEEN.y, sampler="ddim"), V, "'ddrm' is a solver itself"),
    (lambda: posterior(torch.eye(4), SEEN.y, method="mmps", sampler="zz"), V, "`sampler`: .*unknown name 'zz'"),
    (lambda: posterior(ROW, ONE, score_fn=blocked, method="mmps"), scoresde.ScoreFnError, "blocks gradients"),
    (lambda: posterior(ROW, ONE, score_fn=blocked, method="dps_step"), scoresde.ScoreFnError, "blocks gradients"),
    (lambda: posterior(ROW, draw(5, 1)), V, "batch of 2"),
    (lambda: posterior(ROW, ONE, method="twisted_smc", particles=3), V, "whole sets"),
    (lambda: inverse.condition(SCORE, ROW, draw(5, 1), 1.0, method="exact", target=gaussian(4)), V, "one `y`"),
    (lambda: inverse.Measurement(torch.eye(4), torch.ones(4), torch.ones(7)), V, "noise_std"),
    (lambda: inverse.Measurement(torch.eye(4), torch.ones(4), torch.zeros(4)), V, "above 0"),
    (lambda: inverse.Measurement(torch.eye(2), torch.ones(2), torch.ones(5, 2)), V, "one for each measured value"),
    (lambda: inverse.Measurement(torch.eye(2), torch.ones(2, 2), 0.1 * torch.eye(2) + 0.1), V, "may be a covariance"),
    (lambda: posterior(torch.eye(4), torch.ones(2, 4), torch.full((2, 4), 0.5)), V, ""),
    (lambda: posterior(torch.eye(4), torch.ones(2, 4), torch.full((2, 4), 0.5), method="twisted_smc"), V, ""),
]


def posterior(operator, y, std=1.0, method="ddrm", score_fn=SCORE, **options):
    return inverse.sample_posterior(VP, score_fn, operator, y, std, method=method, **FULL, **options)


def blocked(x, t):
    return -x.detach()


def test_nonsense_is_refused():
    assert_refused(REFUSED)
    assert bool(posterior(ROW, ONE, score_fn=blocked).x.isfinite().all())  # DDRM needs no gradient


def test_an_inverse_that_does_not_exist_is_refused_or_replaced_by_the_pseudo_inverse():
    y = torch.ones(4, dtype=F64)
    for method in ("mmps", "tmpd", "dps", "twisted_smc"):
        with pytest.raises(scoresde.InvalidArgumentError, match="noise_std"):
            inverse.sample_posterior(VP, SCORE, TWICE, y, 0.0, method=method, **FULL)
    with pytest.raises(scoresde.InvalidArgumentError, match="noise_std"):
        gaussian(4).posterior(TWICE, y, 0.0)
    for method in ("pigdm", "ddnm", "diffpir", "ddrm", "ddnm_plus", "replacement", "split_gibbs"):
        options = FULL | options_for(method, None)
        got = inverse.sample_posterior(VP, SCORE, TWICE, y, 0.0, method=method, **options)
        assert bool(got.x.isfinite().all()), method


def test_a_score_that_is_not_finite_is_an_error():
    target, (matrix, y, std) = gaussian(4), measured()
    score_fn = lambda x, t: target.score(VP)(x, t).where((t > 0.5)[:, None], math.nan)  # noqa: E731
    for method in (*RULES, *SAMPLERS):
        with pytest.raises(scoresde.NonFiniteError):
            inverse.sample_posterior(VP, score_fn, matrix, y, std, method=method, **FULL, **options_for(method, target))


def test_particles_of_a_set_share_what_they_are_told():
    """Weights compare particles: a set cannot have two measurements, nor two labels; two sets can."""
    (matrix, _, std), two = measured(), draw(2, 3).repeat_interleave(3, 0)
    run = {"method": "twisted_smc", "shape": (6, 4), "steps": 3, "seed": 0, "dtype": F64}
    inverse.sample_posterior(VP, SCORE, matrix, two, std, particles=3, **run)
    with pytest.raises(V, match="`y` must be the same for all 6 particles"):
        inverse.sample_posterior(VP, SCORE, matrix, two, std, **run)
    labelled, run["context"] = lambda x, t, label: SCORE(x, t) + label[:, None], {"label": torch.arange(6.0)}
    with pytest.raises(V, match="label"):
        inverse.sample_posterior(VP, labelled, matrix, two[0], std, **run)


def test_conditioned_scores_keep_their_labels():
    """Guidance of two conditioned scores is the conditioned guidance, where the rule is affine in the estimate."""
    net = lambda x, t, label: -x + label[:, None]  # noqa: E731
    null = scoresde.ScoreModel(net, VP, "score", context={"label": -1.0})
    matrix, y, std = measured()
    condition = lambda score_fn: inverse.condition(score_fn, matrix, y, std, method="ddnm")  # noqa: E731
    run = {"method": "ddim", "steps": 3, "dtype": F64, "context": {"label": torch.tensor([2.0, 3.0], dtype=F64)}}
    free = lambda a, b: scoresde.guidance.classifier_free(a, b, 3.0)  # noqa: E731
    x = draw(2, 4)
    inner = scoresde.solve(VP, condition(free(scoresde.ScoreModel(net, VP, "score"), null)), x, **run).x
    outer = scoresde.solve(VP, free(condition(scoresde.ScoreModel(net, VP, "score")), condition(null)), x, **run).x
    torch.testing.assert_close(inner, outer)


class Counted(torch.autograd.Function):
    """The identity; counts how often a gradient passes."""

    passes = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        Counted.passes += 1
        return slope


@pytest.mark.parametrize("method", [*RULES, *SAMPLERS])
def test_evaluations_and_products_are_counted(method):
    target, (matrix, y, std) = mixture(), measured()
    calls = []

    def score_fn(x, t):
        calls.append(len(x))
        return target.score(VP)(Counted.apply(x) if torch.is_grad_enabled() else x, t)

    Counted.passes = 0
    options = options_for(method, target)
    got = inverse.sample_posterior(VP, score_fn, matrix, y, std, method=method, **FULL, **options)
    assert got.solution.evaluations == len(calls) and got.products == Counted.passes
    assert bool((got.solution.nfe == len(calls)).all())
    steps = {"twisted_smc": 4, "split_gibbs": 3 + 4 * 3}.get(method, 3)
    known = {"mmps": 5, "tmpd": 2, "pigdm": 1, "dps": 1, "dps_step": 1, "mcg": 1, "twisted_smc": 1}
    declared = (RULES[method](**options) if method in RULES else SAMPLERS[method]).products
    each = known.get(method, declared if isinstance(declared, int) else 0)
    assert len(calls) == steps and got.products == each * (3 if method == "twisted_smc" else steps)
    assert any(m.gradients == (each > 0) for m in inverse.methods() if m.name == method)


@pytest.mark.parametrize("method", ["mmps", "dps_step", "twisted_smc", "split_gibbs", "replacement"])
def test_memory_does_not_grow_with_the_steps(method):
    target, alive = mixture(), []

    def callback(info):
        if info.step in (3, 11):
            gc.collect()
            alive.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))

    seen, score_fn = inverse.Measurement(*measured()), target.score(VP)
    solvers = {"dps_step": inverse.DPSStep(seen), "split_gibbs": inverse.SplitGibbs(seen), "mmps": "ancestral"}
    solvers |= {"replacement": inverse.Replacement(seen)}
    solvers |= {"twisted_smc": inverse.TwistedSMC(seen, record=lambda info: None)}
    score_fn = inverse.condition(score_fn, *measured()) if method == "mmps" else score_fn
    run = {"steps": 15, "shape": (8, 4), "seed": 0, "dtype": F64, "max_steps": 15, "throw": False}
    scoresde.solve(VP, score_fn, method=solvers[method], callback=callback, **run)
    assert alive[1] <= alive[0]


@pytest.mark.parametrize("method", [m for m in [*RULES, *SAMPLERS] if m != "twisted_smc"])
def test_samples_do_not_know_their_batch_mates(method):
    target, (matrix, _, std) = mixture(), measured()
    own = method != "exact"
    ys = draw(3, 3, seed=30) if own else draw(3, seed=30)
    run = {"method": method, "steps": 4, "dtype": F64, **options_for(method, target)}
    every = inverse.sample_posterior(VP, target.score(VP), matrix, ys, std, seeds=[4, 5, 6], **run)
    for i in range(3):
        y = ys[i] if own else ys
        alone = inverse.sample_posterior(VP, target.score(VP), matrix, y, std, seeds=[4 + i], **run)
        torch.testing.assert_close(alone.x[0], every.x[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["mmps", "ddrm", "replacement", "dps_step", "split_gibbs"])
def test_the_measurement_leaves_the_batch_with_its_sample(method):
    """A sample that fails leaves a batch with a measurement for each, and the others do not notice."""
    target, (matrix, _, std) = mixture(), measured()
    ys = draw(3, 3, seed=30)
    std = draw(3, 3, seed=31).abs() + 0.2 if method in ("mmps", "dps_step") else std
    inner = target.score(VP)

    class Broken:
        rowwise, event_shape, sde = True, (4,), VP

        def __call__(self, x, t):
            bad = (x[:, :1] > 1e3) | ((t < 0.6)[:, None] & (x[:, :1] == x[0, :1]) & (len(x) == 3))
            return torch.where(bad, math.nan, inner(x, t))

    run = {"method": method, "steps": 6, "dtype": F64, **options_for(method, target)}
    operator = inverse.Nonlinear(lambda x: x @ matrix.mT, (3,)) if method == "dps_step" else matrix
    whole = inverse.sample_posterior(VP, inner, operator, ys, std, seeds=[4, 5, 6], **run)
    got = inverse.sample_posterior(VP, Broken(), operator, ys, std, seeds=[4, 5, 6], throw=False, **run)
    assert bool(got.x[0].isnan().all()) and got.solution.success.tolist() == [False, True, True]
    torch.testing.assert_close(got.x[1:], whole.x[1:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["mmps", "ddrm", "mcg", "twisted_smc"])
def test_nothing_leaks(method):
    target, (matrix, y, std) = mixture(), measured()
    y.requires_grad_()
    state, x = torch.get_rng_state(), draw(4, 4)

    def run():
        options = {"method": method, "x": x, "steps": 3, "generator": torch.Generator().manual_seed(0)}
        return inverse.sample_posterior(VP, target.score(VP), matrix, y, std, **options).x

    got = run()
    assert not got.requires_grad and torch.equal(torch.get_rng_state(), state) and torch.equal(x, draw(4, 4))
    with torch.inference_mode():
        torch.testing.assert_close(run().clone(), got)


@pytest.mark.parametrize("method", ["mmps", "pigdm", "dps_step"])
def test_a_solve_can_be_differentiated(method):
    target, (matrix, y, std) = mixture(), measured()
    weight = torch.tensor(1.1, dtype=F64, requires_grad=True)
    options = {"method": method, "steps": 3, "noise": lambda k, like: draw(*like.shape, seed=k)}
    options |= {"zeta": 0.05} if method == "dps_step" else {}

    def run(w, x, **more):
        score_fn = lambda v, t: w * target.score(VP)(v, t)  # noqa: E731
        return inverse.sample_posterior(VP, score_fn, matrix, y, std, x=x, **options, **more).x.sum()

    x = draw(2, 4)
    (slope,) = torch.autograd.grad(run(weight, x, differentiable=True), weight)
    step = 1e-5
    w = weight.detach()
    numeric = (run(w + step, x) - run(w - step, x)) / (2 * step)
    torch.testing.assert_close(slope, numeric, rtol=1e-5, atol=1e-5)
    given = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(run(w, given, differentiable=True), given)
    bump = torch.zeros_like(x)
    bump[0, 1] = step
    torch.testing.assert_close(slope[0, 1], (run(w, x + bump) - run(w, x - bump)) / (2 * step), rtol=1e-5, atol=1e-5)


def test_adaptive_methods_take_a_rule():
    target, (matrix, y, std) = gaussian(4), measured()
    exact, posterior = target.posterior(matrix, y, std), inverse.condition(target.score(VP), matrix, y, std)
    x = spread(exact, VP, 1.0)
    got = scoresde.solve(VP, posterior, x, method="rk45", rtol=1e-4, atol=1e-4).x
    wanted = scoresde.solve(VP, exact.score(VP), x, method="rk45", rtol=1e-6, atol=1e-6).x
    torch.testing.assert_close(got, wanted, rtol=3e-3, atol=3e-3)  # of the tolerance


def test_unlikely_measurements_are_met() -> None:
    """What a measurement needs is not shortened, however many values are how far off."""
    target = Gaussian(torch.zeros(64, dtype=F64), torch.ones(64, dtype=F64))
    run = {"steps": 15, "seed": 0, "dtype": F64}
    for count, away, std in ((64, 6.0, 0.3), (64, 8.0, 0.1), (32, 10.0, 0.3), (1, 20.0, 0.1)):
        operator, y = inverse.Mask(torch.arange(64) < count), torch.full((count,), away, dtype=F64)
        x, free = (
            inverse.sample_posterior(VP, target.score(VP), operator, y, std, shape=(50, 64), radius=radius, **run).x
            for radius in (4.0, None)
        )
        torch.testing.assert_close(x, free, rtol=1e-9, atol=1e-9)
        assert float(x[:, :count].mean()) == pytest.approx(away / (1 + std**2), rel=0.01)


@pytest.mark.parametrize(
    ("count", "steps"), [(6, 8), *[pytest.param(100, n, marks=pytest.mark.slow) for n in (10, 15, 20)]]
)
def test_few_steps_of_mmps_stay_in_the_range_of_the_data(count: int, steps: int) -> None:
    """The part that is not measured, too. Without the `radius` the largest value of six after eight steps is 21."""
    upper = torch.zeros(1, 8, 8, dtype=torch.bool)
    upper[:, :4] = True
    digits, half = scoresde.load("digits"), inverse.Mask(upper)
    images = grey_to_x(digits_split(seed=0).test_images[:count], torch.Generator().manual_seed(1))
    y = half.forward(images) + 0.05 * torch.randn(count, 32, generator=torch.Generator().manual_seed(0))
    run = {"steps": steps, "shape": images.shape, "seed": 1}
    got = inverse.sample_posterior(VP, digits.score(VP), half, y, 0.05, **run)
    assert float(got.x.abs().max()) < 1.5 and got.residual is not None and float(got.residual.max()) < 4


def test_samples_that_do_not_fit_the_measurement_are_named() -> None:
    target = GaussianMixture(torch.ones(2), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), scales=0.1)
    seen = torch.tensor([[1.0, 0.0]]), torch.tensor([0.9])
    run = {"shape": (8, 2), "seed": 0, "steps": 20}
    words = r"^8 of 8 samples do not fit .* up to .*e\+\d+, in standard deviations"
    with pytest.warns(scoresde.ScoreSDEWarning, match=words) as caught:
        far = inverse.sample_posterior(VP, target.score(VP), *seen, 0.01, method="dps", **run)
    assert caught[0].filename == __file__
    assert far.residual is not None and bool((far.residual > 10).all())
    near = inverse.sample_posterior(VP, target.score(VP), *seen, 0.1, **run)
    torch.testing.assert_close(near.residual, (near.x[:, 0] - 0.9).abs() / 0.1)
    assert inverse.sample_posterior(VP, target.score(VP), *seen, 0.0, method="ddnm", **run).residual is None


def test_noise_of_each_value_is_a_diagonal_covariance() -> None:
    stds, a, values, x = draw(4, seed=1).abs() + 0.1, draw(4, 3, seed=2), draw(4, seed=3), draw(5, 3, seed=4)
    target = Gaussian(torch.zeros(3, dtype=F64), torch.eye(3, dtype=F64))
    for shape in ((4,), (1, 2, 2)):
        operator, y = inverse.Matrix(a, (3,), shape), values.reshape(shape)
        each = inverse.Measurement(operator, y, stds.reshape(shape))
        whole = inverse.Measurement(operator, y, stds.square().diag())
        torch.testing.assert_close(each.y, whole.y)
        torch.testing.assert_close(each.operator.forward(x), whole.operator.forward(x))
        torch.testing.assert_close(each.residual(x), whole.residual(x))
        assert each.log_normaliser == pytest.approx(whole.log_normaliser, rel=1e-12)
        normal = torch.distributions.Normal(x @ a.mT, stds)
        log_density = each.log_normaliser - 0.5 * 4 * each.residual(x) ** 2
        torch.testing.assert_close(log_density, normal.log_prob(y.flatten()).sum(1))
        one, other = (target.posterior(operator, y, noise) for noise in (stds.reshape(shape), stds.square().diag()))
        torch.testing.assert_close(one.means, other.means)


@pytest.mark.parametrize(("method", "linear"), [("mmps", True), ("tmpd", True), ("dps", True), ("dps", False)])
def test_noise_of_each_sample_is_that_of_the_sample_alone(method: str, linear: bool) -> None:
    """In the estimate, in samples (the same draws), and in their residuals."""
    matrix, y, stds = draw(3, 4, seed=1), draw(4, 3, seed=2), draw(4, 3, seed=3).abs() + 0.2
    operator: object = matrix if linear else inverse.Nonlinear(lambda x: (x @ matrix.mT).tanh(), (3,))
    score_fn, x = mixture().score(VP), draw(4, 4, seed=4)
    options = {"method": method, "steps": 10, "dtype": F64}
    together = inverse.condition(score_fn, operator, y, stds, method=method)(x, 0.4)
    samples = inverse.sample_posterior(VP, score_fn, operator, y, stds, seeds=range(4), **options)
    for i in range(4):
        alone = inverse.condition(score_fn, operator, y[i], stds[i], method=method)(x[i : i + 1], 0.4)
        torch.testing.assert_close(together[i : i + 1], alone)
        single = inverse.sample_posterior(VP, score_fn, operator, y[i], stds[i], seeds=[i], **options)
        torch.testing.assert_close(samples.x[i], single.x[0], rtol=1e-6, atol=1e-6)
        assert samples.residual is not None and single.residual is not None
        torch.testing.assert_close(samples.residual[i], single.residual[0], rtol=1e-6, atol=1e-6)


def test_a_square_of_deviations_is_one_only_where_it_is_no_covariance() -> None:
    square = torch.tensor([[0.9, 0.5], [0.5, 0.9]])
    several = inverse.Measurement(torch.eye(2), torch.ones(2, 2), square[None])
    torch.testing.assert_close(several.y[0], inverse.Measurement(torch.eye(2), torch.ones(2), square).y)
    skew = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    torch.testing.assert_close(inverse.Measurement(torch.eye(2), torch.ones(2, 2), skew).y, 1 / skew)
    assert math.isnan(inverse.Measurement(torch.eye(2), torch.zeros(5, 2), torch.ones(5, 2)).log_normaliser)


def test_a_function_is_measured_with_the_noise_of_each_value() -> None:
    y, stds = torch.tensor([0.5, 1.0]), torch.tensor([0.1, 0.4])
    measurement = inverse.Measurement(lambda x: x.square(), y, stds)
    x = torch.tensor([[1.0, 2.0]])
    expected = (((y - x.square()) / stds).square().mean(1)).sqrt()
    torch.testing.assert_close(measurement.residual(x), expected)


ROWS = [[1.0, 0.5, 0.0], [0.0, 1.0, 1.0]]


NOISES = [0.5, [0.4, 0.7], [[0.3, 0.1], [0.1, 0.4]]]


# In the last case y is not in the range of A.
@pytest.mark.parametrize(("rows", "noise"), [*((ROWS, noise) for noise in NOISES), ([*ROWS, ROWS[0]], 0.5)])
def test_particles_estimate_the_evidence(rows: list[list[float]], noise: Any) -> None:
    a = torch.tensor(rows)
    means = torch.tensor([[1.0, 0.0, 0.5], [-1.0, 0.3, 0.0]])
    target = GaussianMixture(torch.ones(2), means, scales=0.4)
    seen = a, torch.tensor([0.6, 0.4, 0.9])[: len(a)], noise if isinstance(noise, float) else torch.tensor(noise)
    run = {"method": "twisted_smc", "particles": 250, "shape": (1000, 3), "steps": 120, "seed": 0}
    got = inverse.sample_posterior(VP, target.score(VP), *seen, **run)
    assert got.log_evidence is not None and got.log_evidence.shape == (4,)
    exact = target.log_evidence(inverse.Matrix(a), *seen[1:])
    # The bias of 120 steps is .03 here, the spread of the four sets .02.
    assert bool((got.log_evidence - exact).abs().max() < 0.12), (got.log_evidence, exact)


def test_each_set_of_particles_has_the_evidence_of_its_measurement() -> None:
    a = torch.tensor([[1.0, 0.5]])
    target = Gaussian(torch.zeros(2), torch.eye(2) / 4)
    y = torch.tensor([[0.2], [1.5]]).repeat_interleave(500, 0)
    run = {"method": "twisted_smc", "particles": 500, "shape": (1000, 2), "steps": 120, "seed": 0}
    got = inverse.sample_posterior(VP, target.score(VP), a, y, 0.5, **run).log_evidence
    exact = torch.stack([target.log_evidence(inverse.Matrix(a), value, 0.5) for value in (y[0], y[-1])])
    torch.testing.assert_close(got, exact.to(got), rtol=0.0, atol=0.1)


@pytest.mark.parametrize("noise", [1e-3, pytest.param(1e-2, marks=pytest.mark.slow)])
def test_the_evidence_is_right_where_the_measurement_has_less_noise_than_t_min_leaves(noise: float) -> None:
    target = Gaussian(torch.zeros(2), torch.eye(2))
    seen = torch.tensor([[1.0, 0.0]]), torch.tensor([0.9]), noise
    run = {"method": "twisted_smc", "particles": 200, "shape": (800, 2), "steps": 200, "seed": 0}
    got = inverse.sample_posterior(VP, target.score(VP), *seen, **run).log_evidence
    exact = target.log_evidence(inverse.Matrix(seen[0]), *seen[1:])
    torch.testing.assert_close(got, exact.to(got).expand(4), rtol=0.0, atol=0.15)


def test_sets_that_do_not_arrive_have_no_evidence() -> None:
    score_fn = Gaussian(torch.zeros(2), torch.eye(2)).score(VP)
    seen = torch.tensor([[1.0, 0.0]]), torch.tensor([0.9]), 0.5
    run = {"method": "twisted_smc", "particles": 4, "shape": (8, 2), "steps": 5, "seed": 0}

    breaks = lambda x, t: score_fn(x, t).where((t > 0.5)[:, None], math.nan)  # noqa: E731
    got = inverse.sample_posterior(VP, breaks, *seen, throw=False, **run)
    assert not got.solution.success.any() and (got.log_evidence is None or bool(got.log_evidence.isnan().all()))
    early = inverse.sample_posterior(VP, score_fn, *seen, t_end=0.5, **run)
    assert early.log_evidence is not None and bool(early.log_evidence.isnan().all())


@pytest.mark.filterwarnings("error:.* do not fit the measurement")
def test_the_noise_that_samples_have_left_is_no_misfit() -> None:
    score_fn = Gaussian(torch.zeros(2), torch.eye(2)).score(VP)
    seen = torch.tensor([[1.0, 0.0]]), torch.tensor([0.9]), 1e-3
    for options in ({}, {"t_end": 0.5}, {"denoise": True}):
        got = inverse.sample_posterior(VP, score_fn, *seen, shape=(200, 2), steps=25, seed=0, **options)
        assert bool(got.residual.max() < 2) == ("denoise" in options) and got.residual.shape == (200,)


@pytest.mark.filterwarnings("error:.* do not fit the measurement")
def test_a_measurement_without_noise_that_samples_miss() -> None:
    score, mask = Gaussian(torch.zeros(2), torch.ones(2)).score(VP), inverse.Mask(torch.tensor([True, False]))
    run = {"shape": (50, 2), "seed": 0, "steps": 20}
    with pytest.warns(scoresde.ScoreSDEWarning, match=r"\d+ of 50 samples do not fit .* though it has no noise"):
        got = inverse.sample_posterior(VP, score, mask, torch.tensor([0.5]), 0.0, method="dps_step", zeta=0.0, **run)
    assert got.residual is None
    for y in (0.5, 0.0):  # also where nothing but the noise of the last level is left
        for options in ({}, {"denoise": True}, {"t_end": 0.3}):
            inverse.sample_posterior(VP, score, mask, torch.tensor([y]), 0.0, method="mmps", **run, **options)
