"""The posterior of many observations: exact on Gaussians, and measured on a mixture."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import guidance, targets
from tests.unit.refusals import assert_refused

F64 = torch.float64
SDE = scoresde.VPSDE()
PROCESSES = {"vp": SDE, "ve": scoresde.VESDE(), "edm": scoresde.EDMSDE(), "flow": scoresde.FlowSDE()}

# A conjugate model: theta ~ N(m, S), y = A theta + n, n ~ N(0, 0.5 I)
SPREAD = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.2, -0.2], [0.0, -0.2, 0.8]], dtype=F64)
PRIOR = targets.Gaussian(torch.tensor([0.5, -0.3, 0.1], dtype=F64), SPREAD)
A = torch.tensor([[1.0, -0.4, 0.2], [0.3, 0.9, 0.0]], dtype=F64)
NOISE = 0.5**0.5
Y = torch.tensor([[0.4, 1.0], [-1.0, 0.2], [0.7, 0.3], [1.5, -0.2], [0.1, 0.9]], dtype=F64)
COVARIANCE = (SPREAD.inverse() + A.mT @ A / 0.5).inverse()
EXACT = PRIOR.posterior(A.repeat(len(Y), 1), Y.flatten(), NOISE)


class Single:
    """The exact score of theta given one y, a network in all but name."""

    rowwise = True

    def __init__(self, sde: scoresde.AffineSDE) -> None:
        self.process, self.rows = sde, []
        base, *units = (
            PRIOR.posterior(A, e, NOISE).means[0] for e in (torch.zeros(2, dtype=F64), *torch.eye(2).to(F64))
        )
        self.base, self.gain = base, torch.stack(units) - base

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        self.rows.append(len(x))
        mean = self.base + y @ self.gain
        alpha, sigma = self.process.alpha(t).to(x)[:, None], self.process.sigma(t).to(x)[:, None]
        spread = alpha[:, None] ** 2 * COVARIANCE.to(x) + sigma[:, None] ** 2 * torch.eye(3).to(x)
        return -torch.linalg.solve(spread, (x - alpha * mean)[..., None])[..., 0]


def posterior(sde: scoresde.AffineSDE = SDE, gauss: bool = True, **options: Any):
    covariances = COVARIANCE.expand(len(Y), 3, 3) if gauss else None
    return guidance.tall(Single(sde), PRIOR, {"y": Y}, covariances=covariances, sde=sde, **options)


def states(n: int = 4) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=F64)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("gauss", [True, False])
def test_it_is_the_diffused_posterior_of_a_conjugate_model(name: str, gauss: bool) -> None:
    """To 1e-10 of its size at every time, for one time and for one per sample; and its parts make up the state."""
    sde = PROCESSES[name]
    score_fn, exact = posterior(sde, gauss), EXACT.score(sde)
    for t in (sde.t_min, 0.3 * sde.t_max, 0.7 * sde.t_max, sde.t_max):
        x = states() * (float(sde.sigma(t)) + 0.5) if float(sde.prior.std) > 1 else states()
        truth = exact(x, t)
        scale = float(truth.abs().max())
        assert torch.allclose(score_fn(x, t), truth, rtol=1e-10, atol=1e-10 * scale)
        node = sde.node(t)
        data, noise = score_fn.estimate(x, node)
        assert torch.allclose(node.alpha * data + node.sigma * noise, x, rtol=1e-10, atol=1e-9)
        assert torch.allclose(data, exact.estimate(x, node).data, rtol=1e-9, atol=1e-8)
    times = torch.linspace(sde.t_min, sde.t_max, 4, dtype=F64)
    x = states()
    assert torch.allclose(score_fn(x, times), exact(x, times), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gauss", [True, False])
def test_one_call_for_all_observations_or_as_many_as_asked(gauss: bool) -> None:
    x = states()
    whole, parts = posterior(gauss=gauss), posterior(gauss=gauss, chunk=2)
    assert torch.allclose(whole(x, 0.4), parts(x, 0.4), rtol=1e-12)
    assert whole.score_fns[0].function.rows == [20] and parts.score_fns[0].function.rows == [8, 8, 4]
    assert x.grad is None and not whole(x, 0.4).requires_grad


def test_variances_stand_for_diagonal_covariances() -> None:
    diagonal = COVARIANCE.diagonal().expand(len(Y), 3)
    pairs = (diagonal, torch.full((3,), 2.0)), (torch.diag_embed(diagonal), 2.0 * torch.eye(3))
    a, b = (guidance.tall(Single(SDE), PRIOR.score(SDE), {"y": Y}, covariances=c, prior_covariance=p) for c, p in pairs)
    assert torch.equal(a(states(), 0.4), b(states(), 0.4))


@pytest.mark.parametrize(("covariances", "chunk"), [("shared", None), ("of each", 2), (None, 2)])
def test_every_sample_may_have_a_data_set_of_its_own(covariances: str | None, chunk: int | None) -> None:
    """As one solve for each data set, with labels that leave the batch with their samples."""
    data = torch.stack([Y, Y.flip(0) + 0.3, 2 * Y])
    single = Single(SDE)
    shared = COVARIANCE.expand(len(Y), 3, 3)
    scale = torch.tensor([0.5, 0.8, 1.0], dtype=F64) if covariances == "of each" else torch.ones(3, dtype=F64)
    spreads = scale[:, None, None, None] * shared
    given: Any = {"shared": shared, "of each": "spread", None: None}[covariances]
    context = {"y": data, **({"spread": spreads} if covariances == "of each" else {})}
    score_fn = guidance.tall(single, PRIOR, ["y"], covariances=given, sde=SDE, chunk=chunk)
    x = states(3)
    for method in ("unipc", "rk45"):
        options = {"method": method, **({"steps": 3} if method == "unipc" else {"rtol": 0.03, "atol": 0.03})}
        single.rows.clear()
        got = scoresde.solve(SDE, score_fn, x, context=context, **options)
        for i, y in enumerate(data):
            own = guidance.tall(
                Single(SDE), PRIOR, {"y": y}, covariances=None if given is None else spreads[i], sde=SDE
            )
            alone = scoresde.solve(SDE, own, x[i : i + 1], **options)
            torch.testing.assert_close(got.x[i], alone.x[0], rtol=1e-9, atol=1e-9)
            assert got.nfe[i] == alone.nfe[0]
    assert scoresde.solve(
        SDE, score_fn, x[:0], method="pc", context={k: v[:0] for k, v in context.items()}
    ).x.shape == (0, 3)


def test_a_batch_of_data_sets_that_does_not_fit_is_refused() -> None:
    single, x, shared = Single(SDE), states(3), COVARIANCE.expand(len(Y), 3, 3)
    data = torch.stack([Y, Y, Y])
    each = guidance.tall(single, PRIOR, ["y"], covariances="spread", sde=SDE)
    cases: list[tuple[str, Any]] = [
        ("y", lambda: guidance.tall(single, PRIOR, ["y"], sde=SDE)(x, 0.5)),
        ("y", lambda: guidance.tall(single, PRIOR, ["y"], sde=SDE)(x, 0.5, y=data[:2])),
        ("for 5 obs", lambda: guidance.tall(single, PRIOR, ["y"], covariances=shared, sde=SDE)(x, 0.5, y=data[:, :4])),
        ("spread", lambda: each(x, 0.5, y=data)),
        ("spread", lambda: each(x, 0.5, y=data, spread=shared.expand(3, 5, 3, 3)[:, :2])),
        ("wider", lambda: each(x, 0.5, y=data, spread=9 * shared.expand(3, 5, 3, 3))),
        ("covariances", lambda: guidance.tall(single, PRIOR, {"y": Y}, covariances="spread", sde=SDE)),
        ("covariances", lambda: guidance.tall(single, PRIOR, ["y"], covariances="y", sde=SDE)),
        ("observations", lambda: guidance.tall(single, PRIOR, "y", sde=SDE)),
    ]
    assert_refused((make, match) for match, make in cases)


def test_every_kind_of_solver_takes_it() -> None:
    """The same solve with the exact posterior's score."""
    for method in ("ddim", "unipc", "dpmpp_2m_sde", "euler_maruyama", "pc", "rk45", "ancestral"):
        run = {"method": method, "seeds": range(3), "shape": (3, 3), "dtype": F64}
        run |= {} if method == "rk45" else {"steps": 8}
        x, exact = (scoresde.solve(SDE, f, **run).x for f in (posterior(), EXACT.score(SDE)))
        assert torch.allclose(x, exact, rtol=1e-6, atol=1e-7), method


@pytest.mark.parametrize("gauss", [True, False])
def test_its_likelihood_is_the_log_posterior(gauss: bool) -> None:
    """Gradients go through the Jacobians too."""
    x = EXACT.sample(2, SDE, SDE.t_min, torch.Generator().manual_seed(0)).to(F64)
    options = {"divergence": "exact", "check": False, "rtol": 3e-4, "atol": 3e-4}
    got, exact = (
        scoresde.log_likelihood(SDE, f, x, **options).log_prob for f in (posterior(gauss=gauss), EXACT.score(SDE))
    )
    assert torch.allclose(got, exact, atol=5e-3)
    assert torch.allclose(got, EXACT.log_prob(x, SDE, SDE.t_min), atol=5e-3)  # of the tolerance, and of the prior


# --- a mixture prior, where it is an approximation --------------------------------------------------------------------

PAIR = targets.GaussianMixture(
    torch.tensor([0.4, 0.6], dtype=F64), torch.tensor([[-1.0], [1.0]], dtype=F64), scales=0.5
)


class SingleOfPair:
    """The exact score of theta given y = theta + n, n ~ N(0, 1), with `PAIR` as prior."""

    rowwise = True
    means, variance = torch.tensor([-1.0, 1.0], dtype=F64), 0.25

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        alpha, sigma = SDE.alpha(t).to(x)[:, None], SDE.sigma(t).to(x)[:, None]
        logits = torch.tensor([0.4, 0.6], dtype=F64).log() - 0.5 * (y - self.means) ** 2 / (1 + self.variance)
        means = self.means + self.variance / (1 + self.variance) * (y - self.means)
        spread = alpha**2 * self.variance / (1 + self.variance) + sigma**2
        away = (x - alpha * means) / spread
        shares = (logits - 0.5 * away**2 * spread).softmax(1)
        return -(shares * away).sum(1, keepdim=True)


def moments_of(law: targets.GaussianMixture) -> tuple[Tensor, Tensor]:
    """Mean and variance of a mixture of one dimension."""
    weights, means, values = law.log_weights.exp(), law.means[:, 0], law.spectrum.values.reshape(-1)
    mean = weights @ means
    return mean, weights @ (values + means**2) - mean**2


def of_pair(y: Tensor, gauss: bool = True):
    covariances = torch.stack([moments_of(PAIR.posterior(torch.eye(1, dtype=F64), v, 1.0))[1] for v in y])
    covariances = covariances[:, None, None] if gauss else None
    return guidance.tall(SingleOfPair(), PAIR, {"y": y}, covariances=covariances, sde=SDE)


def law_of_pair(y: Tensor) -> targets.GaussianMixture:
    return PAIR.posterior(torch.eye(1, dtype=F64), y.mean(0), 1 / math.sqrt(len(y)))


OBSERVATIONS = torch.tensor([0.9, -0.8, 0.3, 1.4, -0.6, 0.2, 1.1, -0.3], dtype=F64)[:, None]


def ends(score_fn: Any) -> Tensor:
    """The flow's end of 200 quantiles of the prior."""
    z = torch.special.ndtri((torch.arange(200, dtype=F64) + 0.5) / 200)[:, None]
    return scoresde.solve(SDE, score_fn, z, method="unipc", steps=60).x


@pytest.mark.parametrize("gauss", [True, False])
def test_one_observation_is_its_own_posterior(gauss: bool) -> None:
    y = OBSERVATIONS[:1]
    x = torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    for t in (SDE.t_min, 0.3, SDE.t_max):
        exact = law_of_pair(y).score(SDE)(x, t)
        assert torch.allclose(of_pair(y, gauss)(x, t), exact, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("gauss", [True, False])
def test_at_the_data_end_the_score_is_right_for_any_law(gauss: bool) -> None:
    """The error goes with the variance of the noise that is left."""
    x = torch.linspace(-1, 1, 9, dtype=F64)[:, None]
    exact, score_fn = law_of_pair(OBSERVATIONS).score(SDE), of_pair(OBSERVATIONS, gauss)
    times = (0.02, 0.01, 0.005)
    errors = [float((score_fn(x, t) - exact(x, t)).abs().max()) for t in times]
    variances = [float(SDE.sigma(t)) ** 2 for t in times]
    assert errors[1] < 1.3 * errors[0] * variances[1] / variances[0], errors
    assert errors[2] < 1.3 * errors[1] * variances[2] / variances[1], errors


def test_the_bias_on_a_mixture_stays_what_it_is() -> None:
    """Mean and standard deviation, exact and composed; Langevin moves have next to none (5 deviations, which see a
    bias of 18 % of the standard deviation; that of the flow is 29 %)."""
    mean, variance = map(float, moments_of(law_of_pair(OBSERVATIONS)))
    gauss, jac = (ends(of_pair(OBSERVATIONS, g)) for g in (True, False))
    figures = [mean, variance**0.5, *(float(f(v)) for v in (gauss, jac) for f in (torch.mean, torch.std))]
    assert figures == pytest.approx([0.428, 0.367, 0.534, 0.363, 0.513, 0.345], abs=0.006), figures
    run = {"shape": (800, 1), "seed": 0, "method": "langevin", "snr": 0.3, "steps": 150, "dtype": F64}
    x = scoresde.solve(SDE, of_pair(OBSERVATIONS), **run).x
    assert abs(float(x.mean()) - mean) < 5 * (variance / 800) ** 0.5
    assert abs(float(gauss.mean()) - mean) > 5 * (variance / 800) ** 0.5


def test_where_the_jacobians_leave_no_width_there_is_a_floor() -> None:
    """Between the modes of the single posteriors the product of their factors has a negative precision."""
    y = torch.full((12, 1), 2.0, dtype=F64)
    score_fn = of_pair(y, gauss=False)
    x = torch.linspace(-4, 4, 201, dtype=F64)[:, None]
    for t in (0.05, 0.2, 0.5):
        assert float(score_fn(x, t).abs().max()) < 100


def test_the_floor_turns_with_the_axes() -> None:
    """The same problem beside a coordinate of which nothing is observed, in turned coordinates."""

    def composed(turn: Tensor) -> Any:
        def single(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            z, spread = x @ turn, (0.25 * SDE.alpha(t) ** 2 + SDE.sigma(t) ** 2).to(x)[:, None]
            return torch.cat([SingleOfPair()(z[:, :1], t, y), -z[:, 1:] / spread], 1) @ turn.T

        means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=F64) @ turn.T
        prior = targets.GaussianMixture(PAIR.log_weights.exp(), means, scales=0.5)
        return guidance.tall(single, prior, {"y": torch.full((12, 1), 2.0, dtype=F64)}, sde=SDE)

    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=F64)
    x = torch.stack([torch.linspace(-2, 2, 41, dtype=F64), torch.linspace(-1, 1, 41, dtype=F64)], 1)
    for t in (0.05, 0.5):
        straight, turned = composed(torch.eye(2, dtype=F64))(x, t), composed(turn)(x @ turn.T, t)
        assert torch.allclose(turned, straight @ turn.T, rtol=1e-6, atol=1e-8)
        assert torch.allclose(
            straight[:, :1], of_pair(torch.full((12, 1), 2.0, dtype=F64), gauss=False)(x[:, :1], t), rtol=1e-6
        )


def test_a_uniform_prior_is_a_target_with_a_covariance() -> None:
    """In a box that is wide, single posteriors N(y, 0.5) have the product N(mean of y, 0.5 / n)."""

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        alpha, sigma = SDE.alpha(t).to(x)[:, None], SDE.sigma(t).to(x)[:, None]
        return -(x - alpha * y) / (0.5 * alpha**2 + sigma**2)

    box, y = targets.Uniform(torch.full((2,), -6.0, dtype=F64), 6.0), Y[:, :2]
    covariances = torch.full((len(Y), 2), 0.5, dtype=F64)
    score_fn = guidance.tall(network, box, {"y": y}, covariances=covariances, sde=SDE)
    same = guidance.tall(
        network, box.score(SDE), {"y": y}, covariances=covariances, prior_covariance=12.0 * torch.eye(2), sde=SDE
    )
    assert torch.equal(score_fn(states()[:, :2], 0.4), same(states()[:, :2], 0.4))
    for composed in (score_fn, guidance.tall(network, box, {"y": y}, sde=SDE)):
        x = scoresde.solve(SDE, composed, shape=(1000, 2), seed=0, method="unipc", steps=20, dtype=F64).x
        assert float((x.mean(0) - y.mean(0)).abs().max()) < 5 * (0.5 / len(Y) / 1000) ** 0.5 + 0.01
        assert float((x.std(0) / (0.5 / len(Y)) ** 0.5 - 1).abs().max()) < 0.15


def test_what_does_not_fit_is_refused() -> None:
    single, y, cov = Single(SDE), {"y": Y}, COVARIANCE.expand(len(Y), 3, 3)
    cases: list[tuple[str, Any]] = [
        ("sde", lambda: guidance.tall(single, PRIOR, y)),
        ("sde", lambda: guidance.tall(single, lambda x, t: -x, y)),
        ("observations", lambda: guidance.tall(single, PRIOR, {}, sde=SDE)),
        ("'z'", lambda: guidance.tall(single, PRIOR, {"z": Y}, sde=SDE)),
        ("one entry per observation", lambda: guidance.tall(single, PRIOR, {"y": Y[:0]}, sde=SDE)),
        ("covariances", lambda: guidance.tall(single, PRIOR, y, covariances=COVARIANCE, sde=SDE)),
        ("covariances", lambda: guidance.tall(single, PRIOR, y, covariances=cov[1:], sde=SDE)),
        ("positive definite", lambda: guidance.tall(single, PRIOR, y, covariances=-cov, sde=SDE)),
        ("symmetric", lambda: guidance.tall(single, PRIOR, y, covariances=cov + torch.ones(3, 3).tril(-1), sde=SDE)),
        ("wider", lambda: guidance.tall(single, PRIOR, y, covariances=9 * cov, sde=SDE)),
        (r"targets\.Uniform", lambda: guidance.tall(single, PRIOR.score(SDE), y, covariances=cov)),
        ("prior_covariance", lambda: guidance.tall(single, PRIOR, y, prior_covariance=COVARIANCE, sde=SDE)),
        ("covariances", lambda: guidance.tall(lambda x, t, y: -x.detach(), PRIOR, y, sde=SDE)(states(), 0.5)),
    ]
    assert_refused((make, match) for match, make in cases)


def test_a_context_of_the_solve_goes_to_the_network_beside_the_observations() -> None:
    def network(x: Tensor, t: Tensor, y: Tensor, gain: Tensor) -> Tensor:
        return -(x - gain[:, None] * y)

    score_fn = guidance.tall(network, PRIOR, {"y": Y[:1].repeat(1, 2)[:, :3]}, sde=SDE)
    gain = torch.tensor([1.0, 2.0], dtype=F64)
    x = states(2)
    assert torch.allclose(score_fn(x, 0.4, gain=gain), network(x, x, Y[:1].repeat(1, 2)[:, :3], gain), rtol=1e-9)
    options = {"steps": 3, "method": "ddim"}
    scoresde.solve(SDE, score_fn, x, context={"gain": gain}, **options)
    with pytest.raises(scoresde.InvalidArgumentError, match="y"):
        scoresde.solve(SDE, score_fn, x, context={"gain": gain, "y": Y[:2]}, **options)


def test_a_bound_table_is_not_repeated() -> None:
    """What all samples share is the same for every observation, also where it is as long as the batch."""

    def net(x: Tensor, t: Tensor, y: Tensor, table: Tensor) -> Tensor:
        return 0.5 * x + 0.1 * y.sum(1, keepdim=True) + table.sum(0)

    def joint(table: Tensor) -> Tensor:
        model = scoresde.ScoreModel(net, SDE, "noise", context={"table": table})
        return guidance.tall(model, PRIOR, {"y": Y}, covariances=COVARIANCE.expand(len(Y), 3, 3))(states(4), 0.5)

    for rows in (3, 4, 5):
        table = torch.ones(rows, 3, dtype=F64)
        assert (joint(table) - joint(table.sum(0, keepdim=True).expand(7, 3) / 7)).abs().max() < 1e-12
