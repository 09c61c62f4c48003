"""The particle method is consistent: its distribution tends to the one it names as the particles grow.

With Gaussian data the distribution of the ancestral chain is known exactly, and so is its posterior. A set's
averages, times its estimate of the evidence, are unbiased for any number of particles; sets are independent, so that
the ratio of their sums is normal with a known spread. The threshold is 5 such deviations for each of five numbers: a
false-alarm rate below 1e-5 per test.
"""

from __future__ import annotations

import math

import pytest
import torch

import scoresde
from scoresde import inverse
from scoresde.core.processes import Network, ReverseProcess
from scoresde.solvers.families.particles import Particles
from scoresde.targets import Gaussian, GaussianMixture
from scoresde.testing import affine_law
from tests.parameters import described

F64 = torch.float64
SDE = scoresde.VPSDE()
TARGET = Gaussian(torch.tensor([0.5, -0.3], dtype=F64), torch.tensor([[1.0, 0.8], [0.8, 1.2]], dtype=F64))
MATRIX, Y, STD = torch.tensor([[1.0, -0.4]], dtype=F64), torch.tensor([1.5], dtype=F64), 0.4
PROBLEM = (SDE, TARGET.score(SDE), MATRIX, Y, STD)


def chain(steps):
    """The distribution of the ancestral chain's end."""

    def run(shape, noise):
        return scoresde.solve(
            SDE, TARGET.score(SDE), method="ancestral", steps=steps, shape=shape, noise=noise, dtype=F64
        ).x

    return affine_law(run, (2,))


def exact(steps, twist):
    """Mean and covariance of the chain's end times the twist there, which is Gaussian in x."""
    mean, cov = chain(steps)
    node = SDE.node(SDE.t_min)
    points = torch.cat([torch.zeros(1, 2, dtype=F64), torch.eye(2, dtype=F64)])
    data = TARGET.score(SDE).estimate(points, node).data
    gain = (data[1:] - data[0]).mT  # x_hat = data[0] + gain x
    if isinstance(twist, inverse.PiGDM):
        variance = STD**2 * torch.eye(1, dtype=F64) + twist.variance(node) * MATRIX @ MATRIX.mT
    else:  # a scale is a measurement with more noise
        variance = STD**2 / twist.scale * torch.eye(1, dtype=F64)
    seen = MATRIX @ gain
    kalman = cov @ seen.mT @ torch.linalg.inv(seen @ cov @ seen.mT + variance)
    return mean + kalman @ (Y - MATRIX @ data[0] - seen @ mean), cov - kalman @ seen @ cov


def moments(twist, particles, sets, steps, seed=0, threshold=0.5):
    """The first and second moments of each set's particles ``(sets, 5)``, and its share of the evidence ``(sets,)``."""
    infos = []
    options = {"method": "twisted_smc", "twist": twist, "particles": particles, "threshold": threshold, "steps": steps}
    shape = (sets * particles, 2)
    got = inverse.sample_posterior(*PROBLEM, shape=shape, record=infos.append, seed=seed, dtype=F64, **options)
    x = got.x.reshape(sets, particles, 2)
    evidence = sum(info.log_mean for info in infos).softmax(0)
    return torch.cat([x, x**2, x[..., :1] * x[..., 1:]], dim=2).mean(1), evidence / evidence.mean(), got


def wanted(mean, cov):
    second = cov + mean[:, None] * mean
    return torch.stack([mean[0], mean[1], second[0, 0], second[1, 1], second[0, 1]])


def deviations(values, truth, weight=1.0):
    """Of the weighted mean from the truth, in standard deviations."""
    off = (values - truth) * (weight[:, None] if isinstance(weight, torch.Tensor) else weight)
    return off.mean(0) / (off.std(0) / math.sqrt(len(off)))


@pytest.mark.parametrize(
    ("twist", "threshold"),
    [(inverse.PiGDM(), 0.5), (inverse.PiGDM(data_std=0.3), 1.0), (inverse.DPS(scale=0.2), 0.5)],
    ids=described,
)
def test_particles_have_the_law_of_the_chains_posterior(twist, threshold):
    truth = wanted(*exact(10, twist))
    values, weight, got = moments(twist, 512, 60, 10, threshold=threshold)
    assert float(deviations(values, truth, weight).abs().max()) < 5
    if isinstance(twist, inverse.PiGDM):  # with a good twist sets of 512 have no bias to speak of
        assert float(deviations(values, truth).abs().max()) < 5
    assert got.ess.shape == (11, 60) and bool((got.ess >= 1).all()) and bool((got.ess <= 512.001).all())
    guided = inverse.sample_posterior(
        *PROBLEM, method=twist.name, sampler="ancestral", steps=10, shape=(30720, 2), seed=0, dtype=F64
    ).x.reshape(60, 512, 2)  # the proposal alone, without weights, is caught
    plain = torch.cat([guided, guided**2, guided[..., :1] * guided[..., 1:]], dim=2).mean(1)
    assert float(deviations(plain, truth).abs().max()) > 10


def test_few_particles_are_biased_and_the_bias_falls():
    """At a fixed number of particles the bias is of order one over their number."""
    twist = inverse.DPS(scale=0.3)
    truth = wanted(*exact(10, twist))
    errors = []
    for particles in (1, 4, 64):
        values, _, _ = moments(twist, particles, 12800 // particles, 10)
        errors.append(float((values.mean(0) - truth).abs().max()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.slow
def test_with_steps_and_particles_it_is_the_posterior_of_a_mixture():
    """Against the exact posterior: the probability of each of four cells, 5 deviations."""
    means = torch.tensor([[-1.0, 0.5], [0.8, -0.4]], dtype=F64)
    target = GaussianMixture(torch.tensor([0.3, 0.7]), means, scales=torch.tensor([0.4, 0.3]))
    reference = target.posterior(MATRIX, 0.1 * Y, STD).sample(400_000, generator=torch.Generator().manual_seed(1))
    sets, particles = 40, 1024
    options = {"method": "twisted_smc", "particles": particles, "steps": 400, "seed": 0, "dtype": F64}
    problem = (SDE, target.score(SDE), MATRIX, 0.1 * Y, STD)
    got = inverse.sample_posterior(*problem, shape=(sets * particles, 2), **options).x.reshape(sets, particles, 2)
    cell = lambda x: (2 * (x[..., 0] > 0) + (x[..., 1] > 0)).long()  # noqa: E731
    there = torch.nn.functional.one_hot(cell(got), 4).double().mean(1)
    truth = torch.nn.functional.one_hot(cell(reference), 4).double().mean(0)
    off = there.mean(0) - truth
    assert bool((off.abs() < 5 * there.std(0) / math.sqrt(sets) + 5 * (truth / 400_000).sqrt() + 0.004).all())


def test_systematic_resampling_keeps_the_weights():
    """Each particle is drawn as often as its weight says, up to one; the draws are those of a uniform number."""
    particles = Particles()
    process = ReverseProcess(SDE, Network(lambda x, t: x), noise=scoresde.BatchNoise.seeded(0, torch.device("cpu")))
    log_weight = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=F64)
    x, counts = torch.zeros(8, 2, dtype=F64), torch.zeros(8, dtype=F64)
    expected = 8 * log_weight.softmax(0)
    for _ in range(1000):
        rows, _ = process.run(particles.select(process, log_weight, SDE.node(0.5), x, True))
        count = torch.bincount(rows, minlength=8).double()
        assert bool(((count - expected).abs() < 1 + 1e-9).all())
        counts += count / 1000
    # each count has a variance of at most 1/4: five deviations
    assert float((counts - expected).abs().max()) < 5 * 0.5 / math.sqrt(1000)
