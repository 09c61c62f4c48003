r"""Particles reach the tilted distribution.

Three links, each with its own reference. The weights: the expectation of one step's, over all its noise by quadrature,
is the integral of the twisted distribution, to rounding. The chain: the distribution of its end times the last twist,
by the backward recursion, tends to the tilted distribution at first order. The sampler: independent sets of particles
agree with the former within five standard deviations of their means (below 1e-6 per number, Bonferroni below 1e-4 for
this file).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import guidance, targets
from scoresde.solvers import SMC, ParticleLog
from scoresde.solvers.families.particles import Particles, posterior_step
from scoresde.testing.kolmogorov import expectations

F64 = torch.float64
SDE = scoresde.VPSDE()
PAIR = targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]], dtype=F64), scales=0.8)


def right(x: Tensor, t: Tensor) -> Tensor:
    return PAIR.log_responsibilities(x, SDE, t)[:, 1]


def guided(scale: float = 3.0):
    return guidance.classifier_guidance(PAIR.score(SDE), right, scale)


# --- the weights, without Monte Carlo ---------------------------------------------------------------------------------


def hermite(nodes: int) -> tuple[Tensor, Tensor]:
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    return torch.as_tensor(z), torch.as_tensor(w / w.sum())


def evidence(score_fn, x: Tensor, grid: Tensor, draws: list[Tensor], sde=SDE, **options) -> Tensor:
    """The estimate of each set, with given draws."""
    log = ParticleLog()
    method = SMC(record=log, **options)
    scoresde.solve(sde, score_fn, x, method=method, grid=grid, noise=lambda k, like: draws[k].to(like))
    return log.log_evidence.exp()


def rough(x: Tensor, t: Tensor) -> Tensor:
    """No classifier of anything: any positive function will do."""
    return 0.3 * torch.cos(2 * x[:, 0] + t) - 0.1 * x[:, 0] ** 2


@pytest.mark.parametrize(("log_prob", "data_std"), [(right, 0.0), (rough, 1.0)], ids=["right", "rough"])
def test_one_particle_has_the_right_weight_in_expectation(log_prob, data_std: float) -> None:
    r"""Two steps, E of the product of weights :math:`= \int p(x_1) p(x_2|x_1) p(x_3|x_2) \psi(x_3)`, over all three
    draws. On the left the guided chain with its weights, on the right the chain itself."""
    z, w = hermite(48)
    grid = torch.tensor([0.6, 0.45, 0.3], dtype=F64)
    a, b, c = (v.reshape(-1, 1) for v in torch.meshgrid(z, z, z, indexing="ij"))
    share = torch.einsum("i,j,k->ijk", w, w, w).flatten()
    place = torch.zeros_like(a)
    score_fn = guidance.classifier_guidance(PAIR.score(SDE), log_prob, 1.7)
    got = evidence(score_fn, a, grid, [place, b, place, c, place], particles=1, data_std=data_std)
    steps = Particles(data_std=data_std)
    x = a
    for s, t, draw in ((0.6, 0.45, b), (0.45, 0.3, c)):
        start, stop = SDE.node(s), SDE.node(t)
        data = PAIR.score(SDE).estimate(x, start).data
        mean, _ = posterior_step(x, data, start, stop)
        x = mean + steps.std(start, stop) * draw
    exact = share @ (1.7 * log_prob(x, torch.full((len(x),), 0.3, dtype=F64))).exp()
    assert float(share @ got) == pytest.approx(float(exact), rel=1e-10)
    assert float((got / exact - 1).abs().max()) > 0.05  # single weights differ


def test_the_evidence_is_unbiased_through_resampling() -> None:
    r"""Two particles at given places, always drawn anew: over the place of the systematic marks and both draws the
    estimate is :math:`\frac12\sum_i \int p(x'|x_i)\psi(x')dx'`, to rounding."""
    z, w = hermite(60)
    x = torch.tensor([[-0.4], [0.9]], dtype=F64)
    grid = torch.tensor([0.6, 0.3], dtype=F64)
    score_fn = guided(3.0)
    weights = (3 * right(x, torch.full((2,), 0.6, dtype=F64))).softmax(0)
    # the marks (i + u)/2 against the first weight w: of the first both, one or none, with a jump where u crosses
    jump = float((2 * weights[0]) % 1)
    places, shares = [jump / 2, (1 + jump) / 2], [jump, 1 - jump]
    mean = 0.0
    for u, p in zip(places, shares, strict=True):
        n = len(z)
        states = x.repeat(n, 1)
        place = torch.full((2 * n, 1), float(torch.special.ndtri(torch.tensor(u, dtype=F64))), dtype=F64)
        # the mean over two particles is additive, so one draw may serve both
        draw = z.repeat_interleave(2)[:, None]
        got = evidence(score_fn, states, grid, [place, draw, torch.zeros_like(place)], particles=2, threshold=1.0)
        mean += p * float(w @ got)
    start, stop = SDE.node(0.6), SDE.node(0.3)
    data = PAIR.score(SDE).estimate(x, start).data
    centre, _ = posterior_step(x, data, start, stop)
    ends = (centre + Particles(data_std=SMC().data_std).std(start, stop) * z).reshape(-1, 1)
    psi = (3 * right(ends, torch.full((len(ends),), 0.3, dtype=F64))).exp().reshape(2, -1)
    assert mean == pytest.approx(float((psi @ w).mean()), rel=1e-10)


@pytest.mark.parametrize("through", [True, False])
def test_a_likelihood_guided_weight_is_right_too(through: bool) -> None:
    """Its twist is the likelihood of the data estimate, whether or not its gradient is the proposal's."""
    z, w = hermite(80)
    grid = torch.tensor([0.5, 0.3], dtype=F64)
    a, b = (v.reshape(-1, 1) for v in torch.meshgrid(z, z, indexing="ij"))
    share = torch.outer(w, w).flatten()
    value = lambda data: -((data[:, 0] - 0.5) ** 2)  # noqa: E731
    score_fn = guidance.likelihood_guidance(PAIR.score(SDE), value, 0.2, through=through)
    place = torch.zeros_like(a)
    got = evidence(score_fn, a, grid, [place, b, place], particles=1)
    start, stop = SDE.node(0.5), SDE.node(0.3)
    centre, _ = posterior_step(a, PAIR.score(SDE).estimate(a, start).data, start, stop)
    x = centre + Particles(data_std=SMC().data_std).std(start, stop) * b
    exact = share @ (0.2 * value(PAIR.score(SDE).estimate(x, stop).data)).exp()
    assert float(share @ got) == pytest.approx(float(exact), rel=1e-10)


# --- the chain, without Monte Carlo -----------------------------------------------------------------------------------


def features(x: Tensor) -> Tensor:
    """What is compared: moments, and the distribution below five points."""
    below = [(x < q).to(x) for q in (-0.1, 0.2, 0.6, 1.27, 2.0)]
    return torch.stack([x, x**2, *below], dim=-1)


def chain(steps: int, scale: float = 3.0, variance: str = "large") -> Tensor:
    """Features of the distribution of the chain's end times the last twist, and the log of its integral."""

    def weighted(x: np.ndarray) -> np.ndarray:
        y = torch.as_tensor(x)
        psi = (scale * right(y[:, None], torch.full((len(y),), SDE.t_min, dtype=F64))).exp()
        return torch.cat([psi[:, None], psi[:, None] * features(y)], dim=1).numpy()

    times = scoresde.grids.log_snr(SDE, SDE.t_max, SDE.t_min, steps)
    got = torch.as_tensor(expectations(PAIR, SDE, times, "ancestral", variance=variance, function=weighted))
    return torch.cat([got[1:] / got[0], got[:1].log()])


def tilted(scale: float = 3.0) -> Tensor:
    """The same of p(x) p(y|x)^scale, by quadrature."""
    x = torch.linspace(-9, 9, 40001, dtype=F64)
    log_p = PAIR.log_prob(x[:, None]) + scale * PAIR.log_responsibilities(x[:, None])[:, 1]
    return torch.cat([log_p.softmax(0) @ features(x), (log_p.logsumexp(0) + math.log(18 / 40000))[None]])


def test_the_steps_have_the_variances_of_the_ancestral_sampler() -> None:
    """On a variance preserving process; so `chain` is the chain of the particles."""
    x = torch.zeros(1, 1, dtype=F64)
    grid = torch.tensor([0.5, 0.4], dtype=F64)
    for variance, z in itertools.product(("small", "large"), (0.0, 1.0)):
        ends = [
            scoresde.solve(SDE, f, x, method=m, grid=grid, noise=lambda k, like, z=z: torch.full_like(like, z)).x
            for f, m in (
                (PAIR.score(SDE), scoresde.solvers.Ancestral(variance)),
                (guided(0.0), SMC(data_std=float(variance == "large"))),
            )
        ]
        assert torch.allclose(*ends, rtol=1e-12, atol=1e-13), (variance, z)


def test_steps_of_the_right_width_are_exact_for_gaussian_data() -> None:
    """One long step takes the variance at its start to that at its end."""
    variance, x = 0.49, torch.ones(1, 1, dtype=F64)
    for sde in (SDE, scoresde.EDMSDE(), scoresde.FlowSDE()):
        score_fn = targets.Gaussian(torch.zeros(1, dtype=F64), variance).score(sde)
        start, stop = (sde.node(u * sde.t_max) for u in (0.8, 0.3))
        mean, _ = posterior_step(x, score_fn.estimate(x, start).data, start, stop)
        before, after = (n.alpha**2 * variance + n.sigma**2 for n in (start, stop))
        std = Particles(data_std=variance**0.5).std(start, stop)
        assert float(mean) ** 2 * before + std**2 == pytest.approx(after, rel=1e-12), sde


def test_the_chain_with_its_last_twist_tends_to_the_tilted_law() -> None:
    truth = tilted()
    errors = [(chain(n) - truth).abs()[[0, 1, 7]] for n in (20, 40, 80)]
    for coarse, fine in ((errors[0], errors[1]), (errors[1], errors[2])):
        assert bool(((coarse / fine).log2() > 0.7).all()), errors  # first order
    assert [float(e[0]) for e in errors] == pytest.approx([0.039, 0.020, 0.010], abs=1e-3)  # of the documentation
    assert 4 < float((chain(40, variance="small") - truth)[0].abs() / errors[1][0]) < 7


# --- the sampler ------------------------------------------------------------------------------------------------------


def deviations(values: Tensor, truth: Tensor) -> Tensor:
    """Of a mean over sets, in standard deviations."""
    return (values.mean(0) - truth) / (values.std(0) / math.sqrt(len(values)))


def test_samples_have_the_tilted_law_in_one_dimension() -> None:
    """100 sets of 128 particles and 60 steps; plain guidance is far outside. (Sets weigh equally here, whose bias is of
    order one over the particles; with their evidence as weight there is none.)"""
    sets, particles, steps = 100, 128, 60
    got = scoresde.sample_tilted(
        SDE, guided(), steps=steps, shape=(sets * particles, 1), particles=particles, seed=0, dtype=F64
    )
    exact, truth = chain(steps), tilted()
    values = features(got.x.reshape(sets, particles)).mean(1)
    share = got.log_evidence.softmax(0)[:, None] * sets
    off = (values - exact[:-1]) * share
    assert float(deviations(off, torch.zeros(7, dtype=F64)).abs().max()) < 5
    estimate = got.log_evidence.exp()[:, None]
    assert float(deviations(estimate, exact[-1:].exp()).abs().max()) < 5
    # off the tilted distribution by the chain's error, five standard errors, and a bias of the order of 1/128
    allowed = (exact - truth)[:-1].abs() + 5 * values.std(0) / math.sqrt(sets) + 0.01
    assert bool(((values.mean(0) - truth[:-1]).abs() < allowed).all())
    assert got.ess.shape == got.resampled.shape == (steps + 1, sets) and bool(got.resampled[-1].all())
    assert 1 <= float(got.ess.min()) <= float(got.ess.max()) < particles + 1e-9
    plain = scoresde.solve(
        SDE, guided(), method="ancestral", variance="large", steps=steps, shape=(sets * particles, 1), seed=0, dtype=F64
    ).x
    missed = deviations(features(plain.reshape(sets, particles)).mean(1), exact[:-1])
    assert float(missed[[0, 1]].abs().min()) > 14


def test_sets_do_not_know_each_other() -> None:
    """With one seed per sample, a set's particles are the same in any batch."""
    options = {"steps": 12, "particles": 4, "dtype": F64}
    whole = scoresde.sample_tilted(SDE, guided(), seeds=range(8), **options)
    part = scoresde.sample_tilted(SDE, guided(), seeds=range(4, 8), **options)
    assert torch.allclose(whole.x[4:], part.x, rtol=1e-12)
    assert torch.allclose(whole.log_evidence[1:], part.log_evidence, rtol=1e-12)


def test_guidance_of_guidance_multiplies_the_twists() -> None:
    """Scales 1 and 2 of one classifier are scale 3."""
    twice = guidance.classifier_guidance(guided(1.0), right, 2.0)
    a, b = (scoresde.sample_tilted(SDE, f, steps=10, shape=(64, 1), seed=0, dtype=F64) for f in (twice, guided(3.0)))
    assert torch.allclose(a.x, b.x, rtol=1e-9) and torch.allclose(a.log_evidence, b.log_evidence, rtol=1e-9)


def test_products_and_negations_with_densities_are_tilts() -> None:
    r"""With the ratio of two diffused densities as ``log_prob``, a product :math:`p_b (p/p_b)^w` at w > 0, its opposite
    below."""
    base, concept = targets.Gaussian(torch.zeros(1, dtype=F64), 1.0), targets.Gaussian(torch.ones(1, dtype=F64), 1.5)
    ratio = lambda x, t: concept.log_prob(x, SDE, t) - base.log_prob(x, SDE, t)  # noqa: E731
    x = torch.randn(5, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    for scale, composed in (
        (1.0, guidance.product(concept.score(SDE), base=base.score(SDE))),
        (-0.5, guidance.negation(base.score(SDE), concept.score(SDE), 0.5)),
    ):
        score_fn = guidance.classifier_guidance(base.score(SDE), ratio, scale)
        assert torch.allclose(score_fn(x, 0.4), composed(x, 0.4), rtol=1e-9), scale


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_has_no_density_to_weigh_with_is_refused() -> None:
    scores = [
        PAIR.score(SDE),
        lambda x, t: -x,
        guidance.classifier_free(guided(1.0), PAIR.score(SDE), 3.0),
        scoresde.scores.Clip(guided(), -9, 9),
        guidance.classifier_guidance(PAIR.score(SDE), right, 3.0, interval=(None, 2.0)),
        guidance.classifier_guidance(
            guidance.classifier_guidance(PAIR.score(SDE), right, 3.0, interval=(None, 2.0)), right
        ),
    ]
    for score_fn in scores:
        with pytest.raises(scoresde.InvalidArgumentError, match="guided"):
            scoresde.sample_tilted(SDE, score_fn, shape=(4, 1), steps=3)


def test_invalid_options_are_refused() -> None:
    options = {"particles": 0, "threshold": 1.5, "data_std": -1.0, "record": 3, "method": "ddim"}
    for name, value, match in (
        *((k, v, k) for k, v in options.items()),
        ("particles", 3, "sets"),
        ("t_end", 1.0, "weigh"),
    ):
        with pytest.raises(scoresde.ScoreSDEError, match=match):
            scoresde.sample_tilted(SDE, guided(), shape=(4, 1), steps=3, **{name: value})


def test_a_context_is_one_for_a_set() -> None:
    class Labelled:
        """A classifier told which component."""

        def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return PAIR.log_responsibilities(x, SDE, t).gather(1, label[:, None])[:, 0]

    score_fn = guidance.classifier_guidance(PAIR.score(SDE), Labelled(), 3.0)
    labels = torch.tensor([0, 1]).repeat_interleave(200)
    options = {"shape": (400, 1), "steps": 30, "seed": 0, "context": {"label": labels}}
    got = scoresde.sample_tilted(SDE, score_fn, particles=200, **options)
    left, right_half = got.x[:200].mean(), got.x[200:].mean()
    assert float(left) == pytest.approx(-1.27, abs=0.3) and float(right_half) == pytest.approx(1.27, abs=0.3)
    with pytest.raises(scoresde.InvalidArgumentError, match="the same for all 400"):
        scoresde.sample_tilted(SDE, score_fn, **options)


def test_it_declares_what_it_is() -> None:
    solver = SMC()
    assert solver.batch_coupled and solver.stochastic and solver.extra_evaluations == 1
    got = scoresde.sample_tilted(SDE, guided(), shape=(4, 1), steps=5, seed=0)
    assert got.solution.evaluations == 6 and got.solution.nfe.tolist() == [6] * 4
    broken = lambda x, t: torch.where(t < 0.5, x[:, 0] * torch.nan, x[:, 0])  # noqa: E731
    score_fn = guidance.classifier_guidance(PAIR.score(SDE), broken)
    with pytest.raises(scoresde.NonFiniteError):
        scoresde.sample_tilted(SDE, score_fn, shape=(4, 1), steps=5, seed=0)
