"""Log-likelihoods against exact ones, their error bars, and what is refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde import EDMSDE, VDMSDE, VESDE, VPSDE, CosineVPSDE, FlowSDE, SubVPSDE, log_likelihood, targets

F64 = torch.float64
SDES = (VESDE(), VPSDE(), SubVPSDE(), CosineVPSDE(), VDMSDE(), EDMSDE(), FlowSDE(t_max=1.0))
PROCESSES: dict[str, scoresde.AffineSDE] = {type(sde).__name__: sde for sde in SDES}


def correlated(size: int, seed: int = 5) -> targets.Gaussian:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=F64) / size**0.5
    return targets.Gaussian(torch.randn(size, generator=generator, dtype=F64), root @ root.mT + 0.01 * torch.eye(size))


def mixture(size: int = 2) -> targets.GaussianMixture:
    means = torch.randn(3, size, generator=torch.Generator().manual_seed(1), dtype=F64)
    return targets.GaussianMixture(torch.tensor([0.3, 0.5, 0.2]), means, scales=torch.tensor([0.3, 0.2, 0.4]))


class Diffused:
    """The exact distribution at the noise end, in place of the prior."""

    def __init__(self, target: Any, sde: Any) -> None:
        self.target, self.sde = target, sde

    def log_prob(self, x: Tensor) -> Tensor:
        return self.target.log_prob(x, self.sde, self.sde.t_max)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(("tolerance", "least"), [(1e-5, 1e-4), pytest.param(1e-7, 1e-6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("law", ["gaussian", "mixture"])
def test_the_density_is_exact_to_the_tolerance(name: str, tolerance: float, least: float, law: str) -> None:
    """With the exact trace and the exact distribution at the end: 1e-4 nats per dimension at 1e-5, 1e-6 at 1e-7."""
    target = correlated(6) if law == "gaussian" else mixture()
    hold_to_the_exact_density(name, target, tolerance, least, samples=4)


@pytest.mark.parametrize("law", ["gaussian", "mixture"])
@pytest.mark.parametrize(
    "name", ["VPSDE", *(pytest.param(n, marks=pytest.mark.slow) for n in PROCESSES if n != "VPSDE")]
)
def test_so_it_is_in_256_dimensions(name: str, law: str) -> None:
    target = correlated(256) if law == "gaussian" else mixture(256)
    hold_to_the_exact_density(name, target, 1e-5, 1e-4, samples=2)


def hold_to_the_exact_density(name: str, target: Any, tolerance: float, least: float, samples: int) -> None:
    sde = PROCESSES[name]
    x = target.sample(samples, sde, sde.t_min, generator=torch.Generator().manual_seed(0))
    options = {"divergence": "exact", "rtol": tolerance, "atol": tolerance, "prior": Diffused(target, sde)}
    got = log_likelihood(sde, target.score(sde), x, **options)
    exact = target.log_prob(x, sde, sde.t_min)
    assert float((got.log_prob - exact).abs().max()) <= least * x.shape[1]
    assert got.std_error.tolist() == [0.0] * samples and bool(got.success.all())


def test_a_large_event_of_a_rank_of_its_own() -> None:
    """256 dimensions as (4, 8, 8); float64 probes of a diagonal Jacobian have no variance."""
    sde = scoresde.VPSDE()
    values = torch.logspace(-3, 0, 256, dtype=F64).reshape(4, 8, 8)
    target = targets.Gaussian(torch.zeros(4, 8, 8, dtype=F64), values)
    x = target.sample(3, sde, sde.t_min, generator=torch.Generator().manual_seed(0))
    got = log_likelihood(sde, target.score(sde), x, probes=2, prior=Diffused(target, sde), seed=0)
    assert float((got.log_prob - target.log_prob(x, sde, sde.t_min)).abs().max()) < 1e-4 * 256
    assert float(got.std_error.max()) < 1e-9


FORMS = [(m, {"form": f}) for m, f in (("rk45", "x"), ("dop853", "noise"), ("tsit5", "data"), ("rk45", "angle"))]


@pytest.mark.parametrize(("method", "options"), FORMS)
def test_every_method_and_form(method: str, options: dict[str, Any]) -> None:
    sde, target = scoresde.VPSDE(), mixture()
    x = target.sample(2, sde, sde.t_min, generator=torch.Generator().manual_seed(0))
    options = {**options, "divergence": "exact", "rtol": 1e-7, "atol": 1e-7, "prior": Diffused(target, sde)}
    got = log_likelihood(sde, target.score(sde), x, method=method, **options)
    assert float((got.log_prob - target.log_prob(x, sde, sde.t_min)).abs().max()) < 2e-5


@pytest.mark.parametrize("size", [1, 2])
def test_the_density_integrates_to_one(size: int) -> None:
    sde, target = scoresde.VPSDE(), mixture(size)
    line = torch.linspace(-4, 4, 400 if size == 1 else 50, dtype=F64)
    x = torch.cartesian_prod(*[line] * size).reshape(-1, size)
    got = log_likelihood(sde, target.score(sde), x, divergence="exact", t_start=0.02, rtol=1e-4, atol=1e-4)
    total = float(got.log_prob.exp().sum()) * float(line[1] - line[0]) ** size
    assert total == pytest.approx(1.0, abs=3e-3)


@pytest.mark.parametrize(
    ("repeats", "low", "high", "slack"),
    [(20, 0.895, 1.0, 0.35), pytest.param(100, 0.92, 0.98, 0.15, marks=pytest.mark.slow)],
)
def test_intervals_cover_the_exact_value(repeats: int, low: float, high: float, slack: float) -> None:
    """64 probes of 20 samples of a mixture in 16 dimensions: 95 % intervals hold the exact value as often as they say,
    and no more is claimed than the known variance: the mean squared error is that of the standard errors. The limits
    are about 4.9 standard deviations of a share of 95 % and of a mean square of n trials, sqrt(2/n) (one false alarm
    in a million). 400 trials see standard errors that are 15 % too small or 25 % too large, 2,000 see 8 %."""
    sde, target = scoresde.VPSDE(), mixture(16)
    x = target.sample(20, sde, sde.t_min, generator=torch.Generator().manual_seed(0))
    given: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3} if repeats == 20 else {"rtol": 1e-4, "atol": 1e-4}
    exact = log_likelihood(sde, target.score(sde), x, divergence="exact", **given).log_prob.repeat(repeats)
    got = log_likelihood(sde, target.score(sde), x.repeat(repeats, 1), probes=64, seed=7, **given)
    ends = got.interval()
    assert low <= float(((ends[0] <= exact) & (exact <= ends[1])).double().mean()) <= high
    squares = float((got.log_prob - exact).square().mean() / got.std_error.square().mean())
    assert squares == pytest.approx(1.0, abs=slack)
    one = log_likelihood(sde, target.score(sde), x[:2], seed=0, **given)  # has no error bar
    assert bool(one.std_error.isnan().all()) and bool(one.interval()[0].isnan().all())


def test_a_gaussian_control_removes_what_it_knows() -> None:
    """On Gaussian data nothing is left to estimate; on a mixture the spread falls."""
    sde = scoresde.VPSDE()
    gaussian = correlated(6)
    x = gaussian.sample(8, sde, sde.t_min, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"probes": 8, "seed": 0, "prior": Diffused(gaussian, sde)}
    plain = log_likelihood(sde, gaussian.score(sde), x, **options)
    known = log_likelihood(sde, gaussian.score(sde), x, control=gaussian, **options)
    assert float(known.std_error.max()) < 1e-9 < 0.01 < float(plain.std_error.min())
    assert float((known.log_prob - gaussian.log_prob(x, sde, sde.t_min)).abs().max()) < 6e-4
    low_rank = targets.Gaussian(gaussian.mean, targets.LowRank(torch.zeros(6, 1), 0.5))
    other = log_likelihood(sde, gaussian.score(sde), x, control=low_rank, **options)
    assert torch.allclose(other.log_prob, plain.log_prob, rtol=0, atol=1e-9)  # its products with signs are all equal


def test_a_progress_bar_comes_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    sde, target = scoresde.VPSDE(), correlated(2)
    x = target.sample(3, generator=torch.Generator().manual_seed(0))
    shown, plain = (log_likelihood(sde, target.score(sde), x, seed=0, progress=p) for p in (True, False))
    said = capsys.readouterr().err
    assert "log_likelihood" in said and "100%" in said and torch.equal(shown.log_prob, plain.log_prob)


def test_the_solver_error_is_told() -> None:
    sde, target = scoresde.VPSDE(), correlated(6)
    x = target.sample(8, sde, sde.t_min, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"divergence": "exact", "prior": Diffused(target, sde), "rtol": 1e-4, "atol": 1e-4}
    got = log_likelihood(sde, target.score(sde), x, solver_error=True, **options)
    off = (got.log_prob - target.log_prob(x, sde, sde.t_min)).abs()
    assert float(off.mean()) < float(got.solver_error.mean()) < 1e3 * float(off.mean())
    assert bool(log_likelihood(sde, target.score(sde), x, **options).solver_error.isnan().all())


def test_gradients_of_the_density() -> None:
    """In x they are the score of the density, and in a parameter they match differences."""
    sde, target = scoresde.VPSDE(), mixture()
    x = target.sample(2, sde, 0.1, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    options: dict[str, Any] = {"divergence": "exact", "t_start": 0.1, "rtol": 1e-6, "atol": 1e-6}
    options["prior"] = Diffused(target, sde)
    got = log_likelihood(sde, target.score(sde), x, differentiable=True, **options)
    (slope,) = torch.autograd.grad(got.log_prob.sum(), x)
    torch.testing.assert_close(slope, target.score(sde)(x.detach(), 0.1), rtol=1e-4, atol=1e-4)

    def total(scale: Tensor) -> Tensor:
        score = lambda x, t: -scale * x / (0.3 + t[:, None]) - 0.1 * torch.sin(x)  # noqa: E731
        return log_likelihood(sde, score, x.detach(), differentiable=True, rtol=1e-7, atol=1e-7, seed=0).log_prob.sum()

    scale = torch.tensor(0.7, dtype=F64, requires_grad=True)
    (at,) = torch.autograd.grad(total(scale), scale)
    with torch.no_grad():
        difference = (total(torch.tensor(0.701, dtype=F64)) - total(torch.tensor(0.699, dtype=F64))) / 0.002
    assert float(at) == pytest.approx(float(difference), rel=1e-3)


def test_a_constant_score_has_the_density_of_the_linear_part() -> None:
    sde = scoresde.VPSDE()
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    got = log_likelihood(sde, lambda x, t: torch.zeros_like(x), x, divergence="exact", check=False)
    scale = float(sde.alpha(sde.t_max) / sde.alpha(sde.t_min))  # the flow is the linear part alone
    exact = sde.prior.log_prob(x * scale) + 2 * math.log(scale)
    torch.testing.assert_close(got.log_prob, exact, rtol=0, atol=1e-3)


def test_nothing_to_do() -> None:
    sde, target = scoresde.VPSDE(), mixture()
    x = torch.ones(2, 2, dtype=F64)
    same = log_likelihood(sde, target.score(sde), x, t_start=1.0)
    torch.testing.assert_close(same.log_prob, sde.prior.log_prob(x))
    assert same.nfe.tolist() == [0, 0]


def test_a_uniform_density_has_eight_bits() -> None:
    for size, data_range in ((64, (-1.0, 1.0)), (3, (0.0, 1.0)), (5, (2.0, 7.0))):
        log_prob = torch.tensor([-size * math.log(data_range[1] - data_range[0])], dtype=F64)
        assert float(scoresde.bits_per_dim(log_prob, (size,), data_range=data_range)) == pytest.approx(8.0, abs=1e-12)
        assert float(scoresde.bits_per_dim(log_prob, (size,), levels=17, data_range=data_range)) == pytest.approx(
            math.log2(17)
        )


def test_blocked_gradients_are_seen_beside_a_bad_row_and_in_a_part() -> None:
    sde = scoresde.VPSDE()
    gaussian = targets.Gaussian(torch.zeros(2, dtype=F64), 0.3)
    score, wide = gaussian.score(sde), targets.Gaussian(torch.zeros(2, dtype=F64), 1.0).score(sde)
    x = torch.tensor([[0.1, -0.2], [0.5, 0.3], [1e3, 0.0]], dtype=F64)

    def blocked(x: Tensor, t: Tensor) -> Tensor:
        out = score(x, t).detach().clone()
        out[x[:, 0] > 100] = math.nan
        return out

    def guided(x: Tensor, t: Tensor) -> Tensor:
        other = wide(x, t).detach()
        return other + 1.5 * (score(x, t) - other)

    def early(x: Tensor, t: Tensor) -> Tensor:
        return score(x, t).detach() if float(t[0]) < 0.1 else score(x, t)

    for function, states in ((blocked, x), (guided, x[:2]), (early, x[:2])):
        with pytest.raises(scoresde.ScoreFnError, match="blocks gradients"):
            log_likelihood(sde, function, states, divergence="exact", throw=False)


def test_random_and_coupled_networks_are_refused() -> None:
    sde, x = scoresde.VPSDE(), torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    drop = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double().train()
    with pytest.raises(scoresde.ScoreFnError, match="not deterministic"):
        log_likelihood(sde, lambda x, t: drop(x), x)
    many = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    for coupled in (
        lambda x: 0.3 * x.mean(0, keepdim=True),
        *(lambda x, k=k: 0.01 * x.roll(k, 0) for k in range(1, 5)),
    ):
        with pytest.raises(scoresde.ScoreFnError, match="the rest of its batch"):
            log_likelihood(sde, lambda x, t, coupled=coupled: -x - coupled(x), many)
    got = log_likelihood(sde, lambda x, t: drop.eval()(x), x, seed=0, check=False)
    assert bool(got.log_prob.isfinite().all())


def test_large_batches_are_checked_at_all_levels_at_once() -> None:
    """A score function that declares its rows independent, and 24 of them: what is wrong at one level of noise, on
    every other side of it right, is seen."""
    sde = scoresde.VPSDE()
    exact = targets.Gaussian(torch.zeros(3, dtype=F64), 0.3).score(sde)
    x = 0.3 * torch.randn(24, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    levels = [float(sde.time(2 * lam)) for lam in (-1.0, 0.0, 2.0)]
    generator = torch.Generator().manual_seed(1)

    def at(level: float, wrong: Callable[[Tensor], Tensor]) -> Any:
        def score(x: Tensor, t: Tensor) -> Tensor:
            out = exact(x, t)
            near = ((t - level).abs() < 0.01)[:, None]
            return torch.where(near, wrong(out), out)

        score.rowwise = True  # type: ignore[attr-defined]
        return score

    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "blocks gradients": lambda out: out.detach(),
        "not deterministic": lambda out: out * (1 + torch.rand(out.shape, generator=generator, dtype=F64)),
        "the rest of its batch": lambda out: out + 0.3 * out.mean(0, keepdim=True),
    }
    log_likelihood(sde, at(levels[0], lambda out: out), x, seed=0)
    for level, (words, wrong) in itertools.product(levels, kinds.items()):
        with pytest.raises(scoresde.ScoreFnError, match=words):
            log_likelihood(sde, at(level, wrong), x, seed=0)


def test_far_and_narrow_mixtures_pass_the_check() -> None:
    sde = scoresde.VESDE()
    means = 1e4 + 4 * torch.arange(4, dtype=F64)[:, None].expand(4, 2)
    target = targets.GaussianMixture(torch.ones(4), means, scales=0.1)
    x = target.sample(4, generator=torch.Generator().manual_seed(0)).to(F64)
    options: dict[str, Any] = {"divergence": "exact", "prior": Diffused(target, sde)}
    got = log_likelihood(sde, target.score(sde), x, **options)
    assert float((got.log_prob - target.log_prob(x, sde, sde.t_min)).abs().max()) < 0.05


class Line(nn.Module):
    """A linear gamma with parameters."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.tensor(-6.0, dtype=F64))
        self.width = nn.Parameter(torch.tensor(width, dtype=F64))

    def forward(self, t: Tensor) -> Tensor:
        return self.low + self.width * t

    def inverse(self, gamma: Tensor) -> Tensor:
        return (gamma - self.low) / self.width


@pytest.mark.parametrize("options", [{}, *({"method": "rk45", "form": f} for f in ("x", "noise", "angle"))])
def test_gradients_of_a_learned_schedule(options: dict[str, Any]) -> None:
    x = mixture().sample(1, generator=torch.Generator().manual_seed(0)).to(F64)
    score = lambda x, t: -0.8 * x + 0.2 * torch.sin(x)  # noqa: E731

    def total(width: float, differentiable: bool = False) -> tuple[Tensor, Line]:
        line = Line(width)
        given: dict[str, Any] = {"divergence": "exact", "rtol": 1e-6, "atol": 1e-6, "t_start": 0.2, **options}
        given["differentiable"] = differentiable
        return log_likelihood(scoresde.VDMSDE(line), score, x, **given).log_prob.sum(), line

    value, line = total(12.0, differentiable=True)
    (slope,) = torch.autograd.grad(value, line.width)
    difference = float(total(12.01)[0] - total(11.99)[0]) / 0.02
    assert float(slope) == pytest.approx(difference, rel=2e-3)


def test_priors() -> None:
    sde, x = scoresde.VPSDE(), torch.zeros(2, 2, dtype=F64)
    score = targets.Gaussian(torch.zeros(2, dtype=F64), 0.3).score(sde)
    options: dict[str, Any] = {"divergence": "exact"}
    normal = torch.distributions.Normal(torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64))
    got = log_likelihood(sde, score, x, prior=torch.distributions.Independent(normal, 1), **options)
    torch.testing.assert_close(got.log_prob, log_likelihood(sde, score, x, **options).log_prob)
    with pytest.raises(scoresde.InvalidArgumentError, match="Independent"):
        log_likelihood(sde, score, x, prior=normal, **options)


@pytest.mark.parametrize(
    ("dtype", "levels"), [(torch.uint8, 256), (torch.uint8, 1000), (torch.int8, 128), (torch.int16, 256)]
)
def test_grey_values_of_narrow_types(dtype: torch.dtype, levels: int) -> None:
    v = torch.tensor([[0, 1], [100, 127]], dtype=dtype)
    options: dict[str, Any] = {"levels": levels, "generator": torch.Generator().manual_seed(0)}
    x = scoresde.dequantize(v, dtype=F64, **options)
    assert torch.equal(((x + 1) * levels / 2).floor().to(dtype), v)
    sde, score = scoresde.VPSDE(), lambda x, t: -x
    totals = [scoresde.variational_bound(sde, score, w, levels=levels, draws=2, seed=0).total for w in (v, v.long())]
    assert torch.equal(*totals)


def test_data_of_another_dtype_are_converted() -> None:
    sde = VPSDE()
    target = targets.Gaussian(torch.zeros(2), 0.3)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).half()
    found = log_likelihood(sde, target.score(sde), x, dtype=F64, divergence="exact").log_prob
    torch.testing.assert_close(found, target.log_prob(x.double(), sde, sde.t_min), atol=1e-3, rtol=0.0)
