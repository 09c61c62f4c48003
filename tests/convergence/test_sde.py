r"""Weak and strong orders of the stochastic methods, without Monte Carlo.

On Gaussian data :math:`N(0.7, 0.3)` a solve is an affine map of its draws, which probing reads off: the mean and the
variance are exact, and the distance from the exact solution on the same Brownian path is a quadrature. On a mixture the
backward Kolmogorov recursion gives expectations of observables. Solves start at the exact law.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch

import scoresde
from scoresde import testing
from scoresde.solvers import EulerMaruyama, StepResult

from .kolmogorov import OBSERVABLES, exact, expectations
from .problems import MIXTURE, PROCESSES, SHIFTED, affine_from

F64 = torch.float64
STEPS = (16, 32, 64, 128, 256)


def transition_weight(sde: scoresde.AffineSDE) -> testing.Weight:
    r"""A draw stands for the noise of the forward transition: :math:`g/\alpha`."""
    return lambda u: sde.nodes(u).g2.sqrt() / sde.nodes(u).alpha


def posterior_weight(sde: scoresde.AffineSDE) -> testing.Weight:
    r"""A draw stands for the noise of the posterior: :math:`g\alpha/\sigma^2`."""
    return lambda u: sde.nodes(u).g2.sqrt() * sde.nodes(u).alpha / sde.nodes(u).sigma ** 2


def plain_weight(sde: scoresde.AffineSDE) -> testing.Weight | None:
    return None


class Case(NamedTuple):
    """The grid on VP where the orders' windows are asserted, which increment a draw stands for, and the errors that an
    independent computation gave on VP, t: 1 -> 0.01, at 16 and 256 steps: weak :math:`|V/S-1|` and strong, per grid."""

    grid: str
    weight: Callable[[scoresde.AffineSDE], testing.Weight | None]
    weak: dict[str, tuple[float, float]]
    strong: dict[str, tuple[float, float]]


CASES = {
    "euler_maruyama": Case("time", plain_weight, {"time": (1.4e-1, 6.5e-3)}, {"time": (1.3e-1, 7.9e-3)}),
    # The known strong error of reverse diffusion is for beta(s) h in place of the transition's beta: none is compared.
    "reverse_diffusion": Case("time", transition_weight, {"time": (4.0e-1, 2.1e-2)}, {}),
    "ancestral": Case(
        "log_snr",
        posterior_weight,
        {"time": (4.2e-1, 4.6e-2), "log_snr": (3.7e-1, 3.1e-2)},
        {"time": (2.3e-1, 2.5e-2), "log_snr": (1.5e-1, 1.1e-2)},
    ),
}
METHODS = {m.name: m for m in scoresde.methods()}
ON_PROCESSES = [("ve", "time"), ("subvp", "log_snr"), ("vdm", "time"), ("flow", "time"), ("flow", "log_snr")]
ON_PROCESSES += [("vp", "time"), ("vp", "log_snr"), ("subvp", "time"), ("cosine", "time"), ("edm", "karras")]


def test_every_method_with_an_order_is_measured() -> None:
    declared = {m.name for m in scoresde.methods() if m.weak_order is not None or m.strong_order is not None}
    assert declared == set(CASES)


class Errors(NamedTuple):
    variance: float
    mean: float
    start: float  # of the factor on the start's deviation: the conditional law given the start
    strong: float


def errors(method: str | scoresde.Solver, name: str, grid: str, t_end: float, steps: int) -> Errors:
    sde = PROCESSES[name]
    times = scoresde.grids.GRIDS[grid](sde, sde.t_max, t_end, steps)
    affine = affine_from(SHIFTED, sde, times, method)
    case = CASES[method if isinstance(method, str) else method.name]
    (alpha_s, s), (alpha_t, t) = (
        (float(sde.alpha(u)), float(sde.alpha(u)) ** 2 * 0.3 + float(sde.sigma(u)) ** 2) for u in (sde.t_max, t_end)
    )
    carried = t / math.sqrt(s) * alpha_s / alpha_t  # the reverse SDE's factor, times the start's standard deviation
    return Errors(
        variance=abs(float(affine.covariance) / t - 1),
        mean=abs(float(affine.mean) - 0.7 * alpha_t),
        start=abs(float(affine.response[0]) - carried) / math.sqrt(t),
        strong=testing.strong_error(
            affine._replace(constant=torch.tensor([0.7 * alpha_t], dtype=F64)),  # of the deviation from the mean
            SHIFTED,
            sde,
            times,
            weight=case.weight(sde),
        ),
    )


def measure(method: str | scoresde.Solver, name: str, grid: str, t_end: float, steps: tuple[int, ...]) -> list:
    rows = [errors(method, name, grid, t_end, n) for n in steps]
    return [testing.Convergence(steps, tuple(column)) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("method", CASES)
def test_orders_on_vp(method: str) -> None:
    """Windows over the last two doublings. A mean that is exact has no order."""
    case = CASES[method]
    variance, mean, start, strong = measure(method, "vp", case.grid, 0.01, STEPS)
    for measured in (variance, strong):
        assert measured.decreasing and measured.errors[-1] > 1e-12, measured
    assert 0.85 <= variance.order(2) <= 1.25 and min(variance.slopes[-2:]) >= 0.85, variance
    assert 0.9 <= strong.order(2) <= 1.15 and min(strong.slopes[-2:]) >= 0.9, strong
    for measured in (mean, start):
        if method == "ancestral":  # the posterior mean of a Gaussian, composed exactly
            assert max(measured.errors) < 1e-14, measured
        else:
            assert measured.decreasing and 0.85 <= measured.order(2) <= 1.25, measured


def test_ancestral_reaches_its_order_on_the_time_grid_too() -> None:
    """It is slower to get there: 0.91 and 0.92 at 256 steps."""
    variance, _, _, strong = measure("ancestral", "vp", "time", 0.01, (256, 512, 1024))
    assert 0.9 <= variance.order() <= 1.1 and 0.9 <= strong.order() <= 1.1, (variance, strong)


@pytest.mark.parametrize(("method", "grid"), [(m, g) for m, case in CASES.items() for g in case.weak], ids=lambda v: v)
def test_errors_on_vp_are_the_known_ones(method: str, grid: str) -> None:
    """To 10 %; the known figures have two digits."""
    variance, _, _, strong = measure(method, "vp", grid, 0.01, (16, 256))
    assert variance.errors == pytest.approx(CASES[method].weak[grid], rel=0.1)
    if grid in CASES[method].strong:
        assert strong.errors == pytest.approx(CASES[method].strong[grid], rel=0.1)


@pytest.mark.parametrize(("name", "grid"), ON_PROCESSES, ids=lambda v: v)
@pytest.mark.parametrize("method", CASES)
def test_orders_on_every_process(method: str, name: str, grid: str) -> None:
    declared = METHODS[method]
    assert declared.weak_order is not None and declared.strong_order is not None
    variance, mean, _, strong = measure(method, name, grid, PROCESSES[name].t_min, STEPS)
    for measured, order in ((variance, declared.weak_order), (strong, declared.strong_order)):
        assert measured.decreasing and measured.errors[-1] > 1e-12, measured
        assert measured.order() >= order - 0.3, measured
    if max(mean.errors) > 1e-13:
        assert mean.decreasing and mean.order() >= declared.weak_order - 0.3, mean


@pytest.mark.parametrize("eta", [0.5, 2.0])
def test_strong_order_for_other_stochasticities(eta: float) -> None:
    sde = scoresde.VPSDE()

    def error(steps: int) -> float:
        times = scoresde.grids.time(sde, 1.0, 0.01, steps)
        affine = affine_from(SHIFTED, sde, times, "euler_maruyama", stochasticity=eta)
        return testing.strong_error(affine, SHIFTED, sde, times, stochasticity=eta)

    measured = testing.converge(error, (64, 128, 256))
    assert measured.decreasing and 0.9 <= measured.order(2) <= 1.15, measured


def test_strong_error_tells_the_right_increment_from_a_wrong_one() -> None:
    """Draws that stand for another path make no strong scheme: each fine step's draw is used for the next one."""
    sde = scoresde.VPSDE()

    def error(steps: int) -> float:
        times = scoresde.grids.time(sde, 1.0, 0.01, steps)
        affine = affine_from(SHIFTED, sde, times, "euler_maruyama")
        shifted = torch.cat([affine.response[:1], affine.response[1:].roll(steps // 2, 0)])
        return testing.strong_error(affine._replace(response=shifted), SHIFTED, sde, times)

    assert testing.converge(error, (64, 128, 256)).order(2) < 0.2


# --- a non-linear problem ---------------------------------------------------------------------------------------------

WEAK_STEPS = (16, 32, 64, 128)


@pytest.mark.parametrize(
    ("name", "t_end", "method"),
    [("vp", 0.02, m) for m in CASES] + [("ve", 0.2, "ancestral"), ("flow", 0.02, "ancestral")],
    ids=lambda v: str(v),
)
def test_weak_order_on_a_mixture(name: str, t_end: float, method: str) -> None:
    """Expectations of x^2, cos 2x and sigmoid(4x), by the backward recursion; steps uniform in the log-SNR."""
    sde = PROCESSES[name]
    truth = exact(MIXTURE, sde, t_end)
    off = []
    for steps in WEAK_STEPS:
        times = scoresde.grids.log_snr(sde, sde.t_max, t_end, steps)
        off.append(abs(expectations(MIXTURE, sde, times, method) - truth))
    for j, observable in enumerate(OBSERVABLES):
        measured = testing.Convergence(WEAK_STEPS, tuple(float(row[j]) for row in off))
        assert measured.decreasing and 0.85 <= measured.order() <= 1.15, (observable, measured)


def test_expectations_are_resolved() -> None:
    sde = scoresde.VPSDE()
    times = scoresde.grids.log_snr(sde, 1.0, 0.02, 32)
    coarse, fine = (
        expectations(MIXTURE, sde, times, "ancestral", points=p, nodes=n) for p, n in ((401, 20), (901, 40))
    )
    assert abs(coarse - fine).max() < 1e-5


@pytest.mark.parametrize("method", CASES)
def test_strong_order_on_a_mixture(method: str) -> None:
    """On 1000 paths: coarse solves use the sums of the increments of a fine solve with 16 times as many steps. The mean
    distance has order 1; its root mean square is governed by the few paths that decide late between components, and
    shows 0.6 to 0.9 at these steps."""
    sde, steps, paths = scoresde.VPSDE(), (32, 64, 128), 1000
    generator = torch.Generator().manual_seed(11)
    fine = scoresde.grids.GRIDS[CASES[method].grid](sde, 0.5, 0.01, 16 * steps[-1])
    z = torch.randn(len(fine) - 1, paths, 1, generator=generator, dtype=F64)
    x = MIXTURE.sample(paths, sde, 0.5, generator=generator)

    def ends(times: torch.Tensor, draw: testing.Draw) -> torch.Tensor:
        return scoresde.solve(sde, MIXTURE.score(sde), x, method=method, grid=times, noise=draw).x

    reference = ends(fine, lambda k, like: z[k])

    def error(n: int) -> float:
        each = (len(fine) - 1) // n
        draw = testing.coarsen(lambda k, like: z[k], fine, each, first=0, weight=CASES[method].weight(sde))
        return float((ends(fine[::each].clone(), draw) - reference).abs().mean())

    measured = testing.converge(error, steps)
    assert measured.decreasing and 0.8 <= measured.order(2) <= 1.2, measured


# --- exactness, and the family of stochasticities ---------------------------------------------------------------------


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("steps", [1, 3, 12])
def test_ancestral_is_exact_for_a_point_mass(name: str, steps: int) -> None:
    """The law is that of the posteriors composed, N(alpha x_0, sigma^2), whatever the steps."""
    sde = PROCESSES[name]
    point = scoresde.targets.Gaussian(torch.tensor([0.8], dtype=F64), 0.0)
    affine = affine_from(point, sde, scoresde.grids.log_snr(sde, sde.t_max, sde.t_min, steps), "ancestral")
    alpha, sigma = float(sde.alpha(sde.t_min)), float(sde.sigma(sde.t_min))
    assert float(affine.mean) == pytest.approx(alpha * 0.8, abs=1e-13)
    assert float(affine.covariance) == pytest.approx(sigma**2, rel=1e-11)


@pytest.mark.parametrize("name", PROCESSES)
def test_one_ancestral_step_is_the_posterior(name: str) -> None:
    sde = PROCESSES[name]
    point = scoresde.targets.Gaussian(torch.tensor([0.8], dtype=F64), 0.0)
    s, t = (float(sde.time(v)) for v in (1.5, -1.0))
    x = torch.linspace(-2, 2, 5, dtype=F64)[:, None]
    mean, std = sde.posterior(x, torch.full_like(x, 0.8), s, t)
    times = torch.tensor([t, s], dtype=F64)
    for z in (0.0, 1.0):
        draw = lambda k, like, z=z: torch.full_like(like, z)  # noqa: E731
        got = scoresde.solve(sde, point.score(sde), x, method="ancestral", grid=times, noise=draw)
        torch.testing.assert_close(got.x, mean + z * std, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", PROCESSES)
def test_euler_maruyama_without_noise_is_euler(name: str) -> None:
    sde = PROCESSES[name]
    x = sde.prior.std * torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    options = {"steps": 30, "grid": "log_snr"}
    ode = scoresde.solve(sde, MIXTURE.score(sde), x, method="euler", **options)
    sde_solution = scoresde.solve(
        sde, MIXTURE.score(sde), x, method="euler_maruyama", stochasticity=0.0, seed=0, **options
    )
    assert torch.equal(sde_solution.x, ode.x)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", ["ve", "vp", "subvp", "vdm", "flow"])
def test_all_stochasticities_have_the_same_law_in_the_limit(name: str, eta: float) -> None:
    sde = PROCESSES[name]
    t_end = float(sde.time(6.0))  # sigma/alpha = 0.05

    def law(steps: int) -> tuple[float, float]:
        times = scoresde.grids.log_snr(sde, sde.t_max, t_end, steps)
        affine = affine_from(SHIFTED, sde, times, "euler_maruyama", stochasticity=eta)
        return float(affine.mean), float(affine.covariance)

    alpha, sigma = float(sde.alpha(t_end)), float(sde.sigma(t_end))
    rows = {n: law(n) for n in (128, 256, 512)}
    variance = testing.converge(lambda n: abs(rows[n][1] / (alpha**2 * 0.3 + sigma**2) - 1), tuple(rows))
    mean = testing.converge(lambda n: abs(rows[n][0] - alpha * 0.7), tuple(rows))
    assert variance.decreasing and variance.order() >= 0.7 and variance.errors[-1] < 0.07, variance
    assert max(mean.errors) < 1e-13 or (mean.decreasing and mean.order() >= 0.7 and mean.errors[-1] < 0.02), mean


def test_stochasticity_forgets_a_wrong_start() -> None:
    r"""With the variance V at the start instead of S, the relative error decays as :math:`\varrho^{2\eta^2}`: the flow
    keeps it, the SDE loses it."""
    sde, steps = scoresde.VPSDE(), 4000
    times = scoresde.grids.log_snr(sde, 1.0, 0.5, steps)
    (a_s, s), (a_t, t) = (
        (float(sde.alpha(u)), float(sde.alpha(u)) ** 2 * 0.3 + float(sde.sigma(u)) ** 2) for u in (1.0, 0.5)
    )
    contraction = math.sqrt(t / a_t**2 / (s / a_s**2))
    for eta in (0.0, 0.5, 1.0):
        affine = affine_from(SHIFTED, sde, times, "euler_maruyama", stochasticity=eta)
        gain = float(affine.response[0]) / math.sqrt(t)  # of the start's deviation, both in their own spread
        assert gain == pytest.approx(contraction ** (eta**2), rel=0.02)


# --- the measurements see defects -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wrong(EulerMaruyama):
    """Euler-Maruyama with one mistake."""

    mistake: str = ""

    def step(self, process, x, start, stop, state, noise) -> StepResult:  # type: ignore[no-untyped-def]
        h = stop.t - start.t
        drift = process.drift(x, stop if self.mistake == "score at the next time" else start)
        if self.mistake == "half the score":
            drift = drift + 0.5 * start.g2 * process.score(x, start)
        root = abs(h) if self.mistake == "h for its root" else abs(h) ** 0.5
        scale = 1.02 if self.mistake == "noise times 1.02" else 1.0
        return StepResult(x + h * drift + scale * process.diffusion(x, start) * root * noise.normal(x))


MISTAKES = ["score at the next time", "half the score", "h for its root", "noise times 1.02"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_defects_break_the_known_errors(mistake: str) -> None:
    right = measure(_Wrong(), "vp", "time", 0.01, STEPS)
    assert right == measure("euler_maruyama", "vp", "time", 0.01, STEPS)
    variance, _, _, strong = measure(_Wrong(mistake), "vp", "time", 0.01, STEPS)
    known = CASES["euler_maruyama"]
    close = variance.errors[::4] == pytest.approx(known.weak["time"], rel=0.1) and strong.errors[::4] == pytest.approx(
        known.strong["time"], rel=0.1
    )
    assert not close
    if mistake != "score at the next time":  # a consistent scheme, of another error
        assert not variance.decreasing or variance.order(2) < 0.7, variance
