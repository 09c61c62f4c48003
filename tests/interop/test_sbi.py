"""Posteriors of sbi: its convention derived by hand, and its own estimators, samplers and densities."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, Uniform

import scoresde
from scoresde import InvalidArgumentError, InvalidTypeError
from scoresde.interop import from_sbi, within_support
from tests.interop.common import same
from tests.refusals import refuses

DIM = 2
V, T = InvalidArgumentError, InvalidTypeError


class Estimator(torch.nn.Module):
    r"""What is read of an estimator, with the exact score of :math:`\theta\,|\,x \sim N(x/2, \mathrm{diag}(v))`, the
    posterior of a standard normal prior after :math:`x = \theta + n` where v = 1/2."""

    input_shape, condition_shape, t_min, t_max = torch.Size([DIM]), torch.Size([DIM]), 1e-3, 1.0
    beta_min, beta_max = 0.01, 10.0
    compose_enabled = False

    def __init__(self, variance: tuple[float, ...] = (0.5, 0.5)) -> None:
        super().__init__()
        self.variance = torch.tensor(variance, dtype=torch.float64)
        ones = torch.ones(1, dtype=torch.float64)
        self.mean_base = torch.zeros(1, DIM, dtype=torch.float64)
        self.std_base = (self.mean_t_fn(ones) ** 2 * self.variance + self.std_fn(ones) ** 2).sqrt()

    def mean_t_fn(self, t: Tensor) -> Tensor:
        return torch.exp(-0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min)[..., None]

    def std_fn(self, t: Tensor) -> Tensor:
        return (1 - self.mean_t_fn(t) ** 2).sqrt()

    def score(self, input: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.mean_t_fn(t), self.std_fn(t)
        return (alpha * condition / 2 - input) / (alpha**2 * self.variance.to(input) + sigma**2)

    def solve_schedule(self, num_steps: int, t_min: float, t_max: float) -> Tensor:
        return torch.linspace(t_max, t_min, num_steps)


def box(low: float = -1.0, high: float = 2.0) -> Independent:
    return Independent(Uniform(torch.full((DIM,), low), torch.full((DIM,), high)), 1)


def test_one_observation() -> None:
    """Euler-Maruyama steps on the estimator's own grid, and the exact density."""
    estimator, x_o = Estimator((0.5, 0.2)), torch.tensor([1.0, -2.0])
    model = from_sbi(SimpleNamespace(vector_field_estimator=estimator, prior=box(), default_x=x_o[None]))
    assert isinstance(model.sde, scoresde.VPSDE) and model.event_shape == (DIM,) and model.sde.t_min == 1e-3
    theta = torch.tensor([[0.3, -0.5], [2.0, 1.0]], dtype=torch.float64)
    same(model(theta, 0.4), estimator.score(theta, x_o, torch.full((2,), 0.4, dtype=torch.float64)), 1e-12)
    data, base = (
        Independent(Normal(alpha * x_o.double() / 2, (alpha**2 * estimator.variance + sigma**2).sqrt()), 1)
        for alpha, sigma in ((float(model.sde.alpha(t)), float(model.sde.sigma(t))) for t in (1e-3, 1.0))
    )
    options: dict[str, Any] = {"divergence": "exact", "rtol": 1e-9, "atol": 1e-9}
    found = scoresde.log_likelihood(model.sde, model, theta, prior=base, **options)
    same(found.log_prob, data.log_prob(theta), 1e-7)
    around = Independent(Normal(torch.zeros(DIM), estimator.std_base[0]), 1)  # the mean of all parameters
    same(model.sde.prior.log_prob(theta), around.log_prob(theta), 1e-12)
    draws = [torch.randn(3, DIM, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in range(9)]
    options = {"steps": 8, "grid": model.grid, "shape": (3, DIM), "noise": lambda k, like: draws[k]}
    mine = scoresde.solve(model.sde, model, method="euler_maruyama", dtype=torch.float64, **options).x
    x, times = estimator.std_base * draws[0], torch.linspace(1.0, 1e-3, 9).double()
    times[-1] = 1e-3
    for k in range(8):
        t, dt = times[k].expand(3), float(times[k] - times[k + 1])
        beta = float(0.01 + 9.99 * times[k])
        x = x + (0.5 * beta * x + beta * estimator.score(x, x_o, t)) * dt + math.sqrt(beta * dt) * draws[k + 1]
    same(mine, x, 1e-11)


def test_an_observation_for_each_sample() -> None:
    model, observed = from_sbi(Estimator()), torch.tensor([[1.0, 0.0], [0.0, -3.0]], dtype=torch.float64)
    theta, t = torch.zeros(2, DIM, dtype=torch.float64), torch.tensor([0.2, 0.7], dtype=torch.float64)
    assert model.accepts("x_o") and not from_sbi(Estimator(), observed[0]).accepts("x_o")
    same(model(theta, t, x_o=observed), Estimator().score(theta, observed, t), 1e-12)
    for wrong in (None, observed[:, :1], observed.repeat(2, 1)):
        with pytest.raises(V, match=r"`context\['x_o'\]` must have one observation for each sample, \(2, 2\)"):
            model(theta, t, **({} if wrong is None else {"x_o": wrong}))


def test_several_observations() -> None:
    """Three observations of a standard normal prior have the posterior N(sum/4, 1/4), whose score is the result's."""
    observed = torch.tensor([[1.0, 0.0], [2.0, -3.0], [0.5, 1.0]])
    theta, t = torch.tensor([[0.3, -0.5], [2.0, 1.0]], dtype=torch.float64), torch.tensor([0.1, 0.8]).double()
    for prior in (
        MultivariateNormal(torch.zeros(DIM), torch.eye(DIM)),
        Independent(Normal(torch.zeros(DIM), torch.ones(DIM)), 1),
        scoresde.targets.Gaussian(torch.zeros(DIM), torch.eye(DIM)),
    ):
        for covariances in ("jacobians", torch.full((3, DIM), 0.5)):
            posterior = from_sbi(Estimator(), observed, prior=prior, covariances=covariances)  # type: ignore[arg-type]
            exact = scoresde.targets.Gaussian(observed.double().sum(0) / 4, torch.eye(DIM) / 4).score(posterior.sde)
            same(posterior(theta, t), exact(theta, t), 1e-6)


def test_a_box_is_a_uniform_target() -> None:
    posterior: Any = from_sbi(Estimator(), torch.zeros(2, DIM), prior=box(), covariances="jacobians")
    exact = scoresde.targets.Uniform(torch.full((DIM,), -1.0), 2.0).score(posterior.sde)
    theta, t = torch.tensor([[0.3, -0.5], [2.0, 7.0]], dtype=torch.float64), torch.tensor([0.1, 0.8]).double()
    assert torch.equal(posterior.score_fns[1](theta, t), exact(theta, t))


def test_several_observations_of_a_uniform_prior() -> None:
    """Where the box is wide and the posteriors are narrow and inside, the prior changes nothing: with flat ones the
    product of n posteriors N(x_i/2, 1/200) is N(mean, 1/(200 n))."""
    observed = torch.tensor([[1.0, 0.0], [0.8, 0.2]])
    posterior = from_sbi(Estimator((0.005, 0.005)), observed, prior=box(-5.0, 5.0), covariances="jacobians")
    exact = scoresde.targets.Gaussian(observed.double().mean(0) / 2, torch.eye(DIM) / 400).score(posterior.sde)
    t = torch.full((2,), 1e-2, dtype=torch.float64)
    theta = torch.tensor([[0.3, 0.1], [0.5, 0.0]], dtype=torch.float64)
    same(posterior(theta, t), exact(theta, t), 1e-6)
    x = scoresde.solve(posterior.sde, posterior, method="ddim", steps=20, shape=(4, DIM), seed=0).x
    assert bool(x.isfinite().all()) and bool(within_support(box(-5.0, 5.0), x).all())


@pytest.mark.parametrize("prior", [box(-5.0, 5.0), MultivariateNormal(torch.zeros(DIM), torch.eye(DIM))])
def test_covariances_of_samples(prior: Any) -> None:
    """Of Gaussian posteriors they are right but for sampling errors: of 500 samples a variance has the relative error
    0.063, and one of 4 misses by 0.3 with a probability below 1e-5; so does one of 2 correlations."""
    estimator = Estimator((0.1, 0.02))
    posterior: Any = from_sbi(estimator, torch.tensor([[1.0, 0.0], [0.8, 0.2]]), prior=prior)
    found = torch.linalg.inv(posterior.precisions.single[:, 0])
    assert float((found.diagonal(dim1=1, dim2=2) / estimator.variance - 1).abs().max()) < 0.3
    assert float(found[:, 0, 1].abs().max()) < 0.3 * (0.1 * 0.02) ** 0.5
    wide = 100 / 12 if isinstance(prior, Independent) else 1.0
    same(posterior.base, torch.eye(DIM, dtype=torch.float64) / wide, 1e-6)


def test_the_support() -> None:
    theta = torch.tensor([[0.0, 0.0], [2.5, 0.0], [0.0, -1.5]])
    assert within_support(box(), theta).tolist() == [True, False, False]
    plain = SimpleNamespace(log_prob=lambda x: torch.where(x[:, 0] > 1, -math.inf, 0.0))
    assert within_support(plain, theta).tolist() == [True, False, True]
    with pytest.raises(V, match="`prior` must be a distribution"):
        within_support(3, theta)


class Composed(Estimator):
    compose_enabled = True


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: from_sbi(torch.nn.Linear(2, 2)), V, "`estimator` must be an estimator of scores.*has no input_shape"),
    (lambda: from_sbi(Composed()), V, "compose_standardization=False"),
    (lambda: from_sbi(Estimator(), torch.zeros(3)), V, r"`x_o` must be an observation \(2,\)"),
    (lambda: from_sbi(Estimator(), "x"), T, "`x_o`"),  # type: ignore[arg-type]
    (lambda: from_sbi(Estimator(), torch.zeros(2), covariances="none"), V, "`covariances`: unknown name 'none'"),
    (lambda: from_sbi(Estimator(), torch.zeros(2, 2), prior=lambda x, t: -x), V, "covariance of a score function"),
    (lambda: from_sbi(Estimator(), torch.zeros(2, 2)), V, "`prior` must be uniform on a box"),
    (lambda: from_sbi(Estimator(), torch.zeros(2, 2), prior=5), V, "`prior` must be uniform .* got int"),
    (
        lambda: from_sbi(Estimator(), torch.zeros(2), covariances=torch.ones(1, 2)),
        V,
        "`covariances` are for several",
    ),
]


def test_what_fits_no_convention_is_refused() -> None:
    refuses(REFUSED)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """sbi, and its own estimators after a few epochs, of parameters in a box that are observed with noise."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sbi"))  # where sbi writes its logs
        warnings.simplefilter("ignore")
        inference = pytest.importorskip("sbi.inference", exc_type=ImportError)
        prior = pytest.importorskip("sbi.utils").BoxUniform(-torch.ones(DIM), 2 * torch.ones(DIM))
        posteriors = {}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            theta = prior.sample((500,))
            x = theta + 0.3 * torch.randn_like(theta)
            for kind in ("vp", "subvp", "ve", "flow"):
                made = inference.FMPE(prior) if kind == "flow" else inference.NPSE(prior, sde_type=kind)
                estimator = made.append_simulations(theta, x).train(max_num_epochs=5)
                posteriors[kind] = made.build_posterior(estimator, sample_with="ode" if kind == "flow" else "sde")
    return SimpleNamespace(prior=prior, posteriors=posteriors)


X_O = torch.tensor([[0.4, 1.2]])
OURS = {"vp": "VPSDE", "subvp": "SubVPSDE", "ve": "VESDE", "flow": "FlowSDE"}


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["vp", "subvp", "ve"])
def test_its_sde_sampler(package: Any, kind: str) -> None:
    """The same draws: one for the start, one for each step. Times are in single precision in sbi."""
    posterior, count, points = package.posteriors[kind], 5, 41
    model = from_sbi(posterior, X_O)
    assert type(model.sde).__name__ == OURS[kind]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that samples are outside
        torch.manual_seed(3)
        draws = [torch.randn(count, 1, DIM)[:, 0] for _ in range(points)]
        torch.manual_seed(3)
        other = posterior.sample((count,), x=X_O, steps=points, reject_outside_prior=False, show_progress_bars=False)
    options: dict[str, Any] = {"grid": model.grid, "shape": (count, DIM), "noise": lambda k, like: draws[k]}
    mine = scoresde.solve(model.sde, model, method="euler_maruyama", steps=points - 1, **options).x
    same(mine, other, 1e-5)


class Network(torch.nn.Module):
    """What sbi calls a vector field net, in double precision, which its own do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2 * DIM + 1, DIM, dtype=torch.float64)
        torch.nn.init.normal_(self.layer.weight, std=0.3, generator=torch.Generator().manual_seed(1))

    def forward(self, theta: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(self.layer(torch.cat([theta, condition, t.reshape(-1, 1)], dim=1)))


@pytest.mark.peers
@pytest.mark.parametrize("kind", OURS)
def test_its_flow_and_its_density(package: Any, kind: str) -> None:
    """With its estimators in double precision both integrate to tight tolerances. Outside the prior's box sbi has minus
    infinity. A flow to the data's end of straight lines ends here at 1e-9."""
    from sbi.inference.posteriors.vector_field_posterior import VectorFieldPosterior

    cls = type(package.posteriors[kind].vector_field_estimator)
    mean, std = torch.tensor([0.5, 0.2], dtype=torch.float64), torch.tensor([0.9, 0.6], dtype=torch.float64)
    estimator = cls(Network(), torch.Size([DIM]), torch.Size([DIM]), mean_0=mean, std_0=std).double()
    tight: dict[str, Any] = {"atol": 1e-10, "rtol": 1e-10}
    posterior = VectorFieldPosterior(estimator, package.prior, neural_ode_kwargs=tight)
    theta = torch.rand(6, DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2 - 0.5
    theta[0, 0] = 2.5  # outside
    model = from_sbi(posterior, X_O.double())
    inside = within_support(package.prior, theta)
    other = posterior.log_prob(theta, x=X_O.double())
    assert inside.tolist() == other.isfinite().tolist() == [False] + [True] * 5
    t_min = max(model.sde.t_min, 1e-9)
    options: dict[str, Any] = {"method": "rk45", **tight}
    more: dict[str, Any] = {"divergence": "exact", "t_start": t_min, "check": False}  # the network is untrained
    mine = scoresde.log_likelihood(model.sde, model, theta, **more, **options).log_prob
    same(mine[inside], other[inside].detach(), 1e-6)
    first = model.sde.prior.from_normal(theta)
    other = posterior.potential_fn.neural_ode(X_O.double()).transform.inv(first[:, None])[:, 0].detach()
    same(scoresde.solve(model.sde, model, first, t_end=t_min, **options).x, other, 1e-6)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["vp", "subvp", "ve"])
def test_its_drift_and_diffusion(package: Any, kind: str) -> None:
    estimator = package.posteriors[kind].vector_field_estimator
    sde, x, t = from_sbi(estimator).sde, torch.ones(1, DIM, dtype=torch.float64), torch.tensor([0.3]).double()
    same(sde.drift(x, t), estimator.drift_fn(x, t).expand(1, DIM).to(x), 1e-12)
    same(sde.diffusion(t), estimator.diffusion_fn(x, t)[:, 0], 1e-12)


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["vp", "subvp", "ve"])
def test_its_score_of_several_observations(package: Any, kind: str) -> None:
    """Its method "gauss" with the precisions of the posteriors, and a normal prior: the same formula, in single
    precision."""
    from sbi.inference.potentials.vector_field_adaptor import GaussCorrectedScoreFn

    estimator = package.posteriors[kind].vector_field_estimator
    prior, observed = MultivariateNormal(torch.zeros(DIM), torch.eye(DIM)), X_O + 0.2 * torch.eye(DIM)
    precision, theta = torch.tensor([12.0, 20.0]), X_O + torch.linspace(-0.3, 0.3, 6).reshape(3, DIM)
    posterior = from_sbi(estimator, observed, prior=prior, covariances=(1 / precision).expand(2, DIM))
    for t in (0.05, 0.4, 0.9):
        other = GaussCorrectedScoreFn(estimator, prior, posterior_precision=precision)(
            theta[:, None], observed, torch.tensor([t])
        )
        with torch.no_grad():
            same(posterior(theta, t), other[:, 0], 1e-5)


@pytest.mark.peers
@pytest.mark.parametrize("kind", OURS)
def test_its_uniform_prior(package: Any, kind: str) -> None:
    """The score of the prior with noise; and the joint posterior with the covariances of samples is finite, also where
    the prior's density is 0, of a network of five epochs."""
    from sbi.utils.vector_field_utils import marginalize

    posterior: Any = from_sbi(package.posteriors[kind], X_O + 0.2 * torch.eye(DIM))
    for t in (0.1, 0.4, 0.8):
        alpha, sigma = posterior.sde.alpha(t), posterior.sde.sigma(t)
        theta = (alpha * torch.linspace(-0.9, 1.9, 8, dtype=torch.float64).reshape(4, DIM)).requires_grad_()
        log_p = marginalize(package.prior, alpha, sigma).log_prob(theta)
        slope = torch.autograd.grad(log_p.sum(), theta)[0]
        same(posterior.score_fns[1](theta.detach(), t), slope, 1e-5)
    x = scoresde.solve(posterior.sde, posterior, method="ddim", steps=20, shape=(50, DIM), seed=0).x
    assert bool(x.isfinite().all()) and bool(within_support(package.prior, x).any())
