"""The exact posteriors of targets."""

from __future__ import annotations

import math

import pytest
import torch

import scoresde
from scoresde import inverse
from scoresde.targets import Empirical, Gaussian, GaussianMixture, LowRank

F64 = torch.float64
SDE = scoresde.VPSDE()


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def mixture():
    roots = draw(3, 2, 2, seed=1) / 2
    covs = roots @ roots.mT + 0.05 * torch.eye(2, dtype=F64)
    return GaussianMixture(torch.tensor([0.2, 0.5, 0.3]), 2 * draw(3, 2), covs)


@pytest.mark.parametrize("noise", [0.5, torch.tensor([[0.3]], dtype=F64)])
def test_it_is_the_prior_times_the_likelihood(noise):
    target, matrix, y = mixture(), torch.tensor([[1.0, -0.5]], dtype=F64), torch.tensor([0.4], dtype=F64)
    axis = torch.linspace(-9, 9, 301, dtype=F64)
    x = torch.cartesian_prod(axis, axis)
    variance = float(noise) if isinstance(noise, torch.Tensor) else noise**2
    residual = y - x @ matrix.mT
    joint = target.log_prob(x) - 0.5 * (residual[:, 0] ** 2 / variance + math.log(2 * math.pi * variance))
    cell = float(axis[1] - axis[0]) ** 2
    evidence = (joint.logsumexp(0) + math.log(cell)).item()
    assert math.isclose(float(target.log_evidence(matrix, y, noise)), evidence, rel_tol=1e-9)
    posterior = target.posterior(matrix, y, noise)
    torch.testing.assert_close(posterior.log_prob(x), joint - evidence, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("t", [0.01, 0.3, 1.0])
def test_the_likelihood_of_a_noisy_state_follows(t):
    """p(y | x_t) by quadrature over x_0, and its gradient against the difference of the two scores."""
    target, matrix, y, std = mixture(), torch.tensor([[1.0, -0.5]], dtype=F64), torch.tensor([0.4], dtype=F64), 0.5
    x_t = draw(3, 2, seed=4)
    alpha, sigma = float(SDE.alpha(t)), float(SDE.sigma(t))
    axis = torch.linspace(-8, 8, 551 if t < 0.1 else 201, dtype=F64)  # as fine as the posterior is narrow
    x0 = torch.cartesian_prod(axis, axis)
    kernel = -0.5 * ((x_t[:, None] - alpha * x0) ** 2).sum(2) / sigma**2 + target.log_prob(x0)
    like = -0.5 * ((y - x0 @ matrix.mT)[:, 0] / std) ** 2 - 0.5 * math.log(2 * math.pi * std**2)
    exact = (kernel + like).logsumexp(1) - kernel.logsumexp(1)
    posterior = target.posterior(matrix, y, std)
    got = posterior.log_prob(x_t, SDE, t) - target.log_prob(x_t, SDE, t) + target.log_evidence(matrix, y, std)
    torch.testing.assert_close(got, exact, rtol=1e-6, atol=1e-6)


def test_shapes_and_kinds_of_covariances_agree():
    dense = draw(4, 4, seed=3)
    cov = dense @ dense.mT
    operator = inverse.Mask(torch.tensor([[True, False], [True, True]]))
    y = draw(3, seed=6)
    laws = [
        Gaussian(torch.zeros(2, 2, dtype=F64), cov),
        GaussianMixture(torch.ones(1), torch.zeros(1, 2, 2, dtype=F64), cov[None]),
        Gaussian(torch.zeros(2, 2, dtype=F64), LowRank(dense, 0.0)),
    ]
    x = draw(5, 2, 2)
    scores = [law.posterior(operator, y, 0.3).score(SDE)(x, 0.4) for law in laws]
    single = Gaussian(torch.zeros(2), 1.0).posterior(torch.eye(2), torch.zeros(2), 1.0)
    assert single.sample(2).dtype == torch.float32
    for score in scores[1:]:
        torch.testing.assert_close(score, scores[0], rtol=1e-9, atol=1e-9)
    diagonal = Gaussian(torch.zeros(2, 2, dtype=F64), cov.diagonal().reshape(2, 2))
    alone = Gaussian(torch.zeros(4, dtype=F64), torch.diag(cov.diagonal()))
    matrix = operator.matrix()
    torch.testing.assert_close(
        diagonal.posterior(matrix, y, 0.3).score(SDE)(x, 0.4).flatten(1),
        alone.posterior(matrix, y, 0.3).score(SDE)(x.flatten(1), 0.4),
        rtol=1e-10,
        atol=1e-10,
    )


def test_limits_of_the_noise():
    target, matrix = mixture(), torch.tensor([[1.0, 0.0]], dtype=F64)
    exact = target.posterior(matrix, torch.tensor([0.7], dtype=F64), 0.0)
    x = exact.sample(200, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(x[:, 0], torch.full((200,), 0.7, dtype=F64), rtol=0, atol=1e-7)
    blind = target.posterior(torch.zeros(1, 2, dtype=F64), torch.tensor([0.7], dtype=F64), 1.0)
    at = draw(9, 2)
    torch.testing.assert_close(blind.log_prob(at), target.log_prob(at), rtol=1e-10, atol=1e-10)
    none = target.posterior(torch.zeros(0, 2, dtype=F64), torch.zeros(0, dtype=F64), 0.0)
    torch.testing.assert_close(none.log_prob(at), target.log_prob(at), rtol=1e-10, atol=1e-10)


def test_points_keep_their_places_and_change_their_weights():
    data = draw(20, 3)
    y = torch.tensor([0.3], dtype=F64)
    law = Empirical(data).posterior(torch.tensor([[1.0, 0.0, 0.0]], dtype=F64), y, 0.2)
    wanted = (-0.5 * ((data[:, 0] - 0.3) / 0.2) ** 2).softmax(0)
    torch.testing.assert_close(law.log_weights.exp(), wanted[wanted > 0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(law.means, data[wanted > 0])
    far = Empirical(data).posterior(torch.eye(3, dtype=F64), 1.0001 * data[4], 1e-3)
    assert len(far.means) < 20 and bool((far.means == data[4]).all(1).any())


def test_invalid_measurements_are_refused():
    one, two = torch.ones(1, 2), torch.ones(2, 2)
    for matrix, y, noise, words in (
        (torch.ones(1, 3), torch.ones(1), 1.0, "flattened"),
        (one, torch.ones(2), 1.0, "1 finite"),
        (two, torch.ones(2), 0.0, "redundant"),
        (one, torch.ones(1), -1.0, "noise_std"),
        (two, torch.ones(2), torch.ones(3, 3), "covariance"),
        (two, torch.ones(2), -torch.eye(2), "semi-definite"),
    ):
        with pytest.raises(scoresde.ScoreSDEError, match=words):
            mixture().posterior(matrix, y, noise)
