r"""Weak and strong orders of the stochastic methods, without Monte Carlo.

On Gaussian data :math:`N(0.7, 0.3)` a solve is an affine map of its draws, which probing reads off: the mean and the
variance are exact, and the distance from the exact solution on the same Brownian path is a quadrature. On a mixture the
backward Kolmogorov recursion gives expectations of observables. Solves start at the exact distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch

import scoresde
from scoresde import solvers, testing
from scoresde.solvers import Solver, StepResult
from scoresde.testing.kolmogorov import OBSERVABLES, expectations
from scoresde.testing.kolmogorov import expectations_of_law as exact
from tests.parameters import pairs

from .problems import MIXTURE, PROCESSES, SHIFTED, affine_from

F64 = torch.float64
STEPS = (16, 64, 128, 256)


def transition_weight(sde: scoresde.AffineSDE) -> testing.Weight:
    r"""A draw stands for the noise of the forward transition: :math:`g/\alpha`."""
    return lambda u: sde.nodes(u).g2.sqrt() / sde.nodes(u).alpha


def posterior_weight(sde: scoresde.AffineSDE) -> testing.Weight:
    r"""A draw stands for the noise of the posterior: :math:`g\alpha/\sigma^2`."""
    return lambda u: sde.nodes(u).g2.sqrt() * sde.nodes(u).alpha / sde.nodes(u).sigma ** 2


def plain_weight(sde: scoresde.AffineSDE) -> testing.Weight | None:
    return None


@dataclass(frozen=True)
class Case:
    """A method with options, the grid on VP where the windows of its orders are asserted, which increment a draw stands
    for, and the errors that an independent computation gave on VP, t: 1 -> 0.01, at 16 and 256 steps: weak
    :math:`|V/S-1|` and strong."""

    solver: solvers.Solver
    grid: str
    weight: Callable[[scoresde.AffineSDE], testing.Weight | Sequence[testing.Weight] | None] = posterior_weight
    weak: tuple[float, float] | None = None
    strong: tuple[float, float] | None = None
    cells: tuple[float, ...] = ()  # where a step is cut into parts with a draw each, in the log-SNR
    irregular: bool = False  # accidental cancellations: the weak order is a lower bound

    def __str__(self) -> str:
        shown = ("form", "variant", "eta", "predictor_order", "corrector_order", "tau", "s_churn")
        options = [f"{k}={getattr(self.solver, k)}" for k in shown if hasattr(self.solver, k)]
        return "-".join([self.solver.name, *options])


def area_weight(sde: scoresde.AffineSDE) -> Sequence[testing.Weight]:
    return testing.AREA_WEIGHTS


def stepped(method: type[Solver]) -> Solver:
    """An adaptive method on given steps, where a draw belongs to one; its nodes are those of samples."""

    def rows(node: scoresde.Node, x: torch.Tensor) -> scoresde.Node:
        return scoresde.Node(*(torch.full((len(x),), v, dtype=torch.float64) for v in node))

    class Stepped(method):  # type: ignore[misc, valid-type]
        adaptive = False

        def init(self, process: Any, x: torch.Tensor, start: Any) -> Any:
            return super().init(process, x, rows(start, x))

        def step(self, process: Any, x: torch.Tensor, start: Any, stop: Any, *rest: Any) -> StepResult:
            return super().step(process, x, rows(start, x), rows(stop, x), *rest)

    return Stepped()


CASES = [
    Case(solvers.EulerMaruyama(), "time", plain_weight, (1.4e-1, 6.5e-3), (1.3e-1, 7.9e-3)),
    # The known strong error of reverse diffusion is for beta(s) h in place of the transition's beta: none is compared.
    Case(solvers.ReverseDiffusion(), "time", transition_weight, (4.0e-1, 2.1e-2)),
    Case(solvers.Ancestral(), "log_snr", posterior_weight, (3.7e-1, 3.1e-2), (1.5e-1, 1.1e-2)),
    Case(solvers.DDIMEta(), "log_snr", posterior_weight, (3.7e-1, 3.1e-2), (1.5e-1, 1.1e-2)),
    Case(solvers.DDIMEta(eta=0.5), "log_snr", posterior_weight, (2.5e-1, 1.9e-2)),
    Case(solvers.HeunSDE(), "time", plain_weight, (1.8e-2, 5.9e-5), (4.6e-2, 3.0e-3)),
    Case(solvers.SRA1(), "time", area_weight, (3.3e-2, 1.3e-4), (1.8e-2, 8.6e-5)),
    Case(solvers.ShARK(), "time", area_weight),
    Case(solvers.SEEDS1(), "log_snr", transition_weight, (5.3e-2, 3.8e-4), (1.3e-1, 7.7e-3), irregular=True),
    Case(solvers.SEEDS2(), "log_snr", transition_weight, (1.0e-1, 1.4e-6), (2.3e-1, 6.0e-3), (0.5,), irregular=True),
    Case(solvers.SEEDS3(), "log_snr", transition_weight, (6.4e-2, 6.2e-5), (1.3e-1, 4.3e-3), (1 / 3, 2 / 3)),
    Case(solvers.DPMpp2MSDE(), "log_snr", posterior_weight, (5.3e-2, 3.2e-4), (1.0e-1, 5.8e-3)),
    Case(solvers.DPMpp2MSDE(form="taylor"), "log_snr", posterior_weight, (1.7e-1, 6.6e-4)),
    Case(solvers.DPMpp3MSDE(variant="published"), "log_snr", posterior_weight, (1.2e-1, 2.2e-4), (1.1e-1, 5.8e-3)),
    Case(solvers.DPMpp3MSDE(), "log_snr"),
    Case(solvers.DPMppSDE(), "log_snr", posterior_weight, (5.0e-2, 1.4e-4), (1.3e-1, 1.1e-2), (0.5,)),
    Case(solvers.DPMpp2SAncestral(), "log_snr", posterior_weight, (9.9e-2, 5.0e-4), (1.7e-1, 1.2e-2)),
    Case(solvers.SASolver(1, 0), "log_snr", posterior_weight, (3.7e-1, 3.1e-2), (1.5e-1, 1.1e-2)),
    Case(solvers.SASolver(2, 0), "log_snr", posterior_weight, (1.7e-1, 6.6e-4)),
    Case(solvers.SASolver(3, 0), "log_snr", posterior_weight, (1.0e-1, 1.1e-4)),
    Case(solvers.SASolver(1, 2, correct_last=True), "log_snr", posterior_weight, (2.3e-1, 1.3e-3)),
    Case(solvers.SASolver(2, 2, correct_last=True), "log_snr", posterior_weight, (1.3e-1, 4.3e-5), irregular=True),
    Case(solvers.SASolver(3, 4, correct_last=True), "log_snr", posterior_weight, (8.2e-2, 1.1e-4)),
    Case(solvers.SASolver(3, 0, tau=0.3), "log_snr", posterior_weight, (1.5e-2, 4.8e-6), irregular=True),
    Case(solvers.SASolver(3, 4, tau=0.3, correct_last=True), "log_snr", posterior_weight, (5.6e-3, 4.2e-6)),
    Case(solvers.EDM(s_churn=0.0), "log_snr", posterior_weight, (7.5e-2, 2.5e-4)),
    Case(solvers.EDM(s_churn=5.0), "log_snr", posterior_weight, (1.5e-1, 5.1e-4)),
    Case(solvers.EDM(s_churn=20.0), "log_snr", posterior_weight, (1.7e-1, 1.3e-3)),
    Case(solvers.EDM(s_churn=5.0, a=0.5), "log_snr", irregular=True),
    Case(solvers.ERSDE1(), "log_snr"),
    Case(solvers.ERSDE2(), "log_snr"),
    Case(solvers.ERSDE3(), "log_snr", irregular=True),
    Case(stepped(solvers.GGF), "time", plain_weight),
    Case(stepped(solvers.DPMppSDE12), "log_snr", posterior_weight, irregular=True),
]
# The orders of other libraries' methods are measured in tests/integration/test_backends.py.
METHODS = {m.name: m for m in scoresde.methods() if m.name == m.solver.name and m.kind != "backend"}
OF_METHOD = {case.solver.name: case for case in reversed(CASES) if case.solver == METHODS[case.solver.name].solver()}
OF_METHOD |= {case.solver.name: case for case in reversed(CASES) if case.solver.name in ("sa_solver", "edm")}
ON_PROCESSES = ["ve", "subvp", "vdm", "flow", "cosine", "edm"]

# The list of stochastic methods with their weak and strong orders, so that none is dropped or declared down.
ORDERS: dict[str, tuple[int | None, float | None]] = {
    **dict.fromkeys(["euler_maruyama", "reverse_diffusion", "ancestral", "ddim_eta", "seeds1", "er_sde1"], (1, 1.0)),
    **dict.fromkeys(["dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "dpmpp_2s_ancestral", "seeds2", "seeds3"], (2, 1.0)),
    **dict.fromkeys(["sa_solver", "er_sde2", "er_sde3", "heun_sde", "ggf", "dpmpp_sde12"], (2, 1.0)),
    **dict.fromkeys(["sra1", "shark"], (2, 1.5)),
    "edm": (2, None),
    **dict.fromkeys(["pc", "restart", "cas", "langevin", "annealed_langevin"], (None, None)),
}


def test_every_method_with_an_order_is_measured() -> None:
    declared = {m.name: (m.weak_order, m.strong_order) for m in METHODS.values() if m.stochastic}
    assert declared == ORDERS
    assert {case.solver.name for case in CASES} == {name for name, orders in ORDERS.items() if orders != (None, None)}


class Errors(NamedTuple):
    variance: float
    mean: float
    start: float  # of the factor on the start's deviation: the conditional distribution given the start
    strong: float


def cut(sde: scoresde.AffineSDE, times: torch.Tensor, cells: tuple[float, ...]) -> torch.Tensor:
    """A grid with the ends of the parts of its steps."""
    lam = sde.log_snr(times)
    parts = [sde.time(lam[:-1] + c * lam.diff()) for c in cells]
    return torch.cat([torch.stack([times[:-1], *parts], dim=1).flatten(), times[-1:]])


def errors(case: Case, name: str, grid: str, t_end: float, steps: int) -> Errors:
    sde = PROCESSES[name]
    times = scoresde.grids.GRIDS[grid](sde, sde.t_max, t_end, steps)
    affine = affine_from(SHIFTED, sde, times, case.solver)
    (alpha_s, s), (alpha_t, t) = (
        (float(sde.alpha(u)), float(sde.alpha(u)) ** 2 * 0.3 + float(sde.sigma(u)) ** 2) for u in (sde.t_max, t_end)
    )
    carried = t / math.sqrt(s) * alpha_s / alpha_t  # the reverse SDE's factor, times the start's standard deviation
    centred = affine._replace(constant=torch.tensor([0.7 * alpha_t], dtype=F64))  # of the deviation from the mean
    known = case.solver.strong_order is not None and case.weight is not None
    return Errors(
        variance=abs(float(affine.covariance) / t - 1),
        mean=abs(float(affine.mean) - 0.7 * alpha_t),
        start=abs(float(affine.response[0]) - carried) / math.sqrt(t),
        strong=testing.strong_error(
            centred,
            SHIFTED,
            sde,
            cut(sde, times, case.cells),
            weight=case.weight(sde),
            stochasticity=getattr(case.solver, "eta", 1.0),
        )
        if known and is_reverse_sde(case.solver)
        else math.nan,
    )


def is_reverse_sde(solver: solvers.Solver) -> bool:
    """Whether the method approximates the reverse SDE with eta = 1, whose solution on a path is known."""
    tau, eta = getattr(solver, "tau", 1.0), getattr(solver, "eta", 1.0)
    return tau == 1.0 and eta == 1.0 and not isinstance(solver, solvers.ERSDE | solvers.EDM)


def measure(case: Case, name: str, grid: str, t_end: float, steps: tuple[int, ...]) -> list:
    rows = [errors(case, name, grid, t_end, n) for n in steps]
    return [testing.Convergence(steps, tuple(column)) for column in zip(*rows, strict=True)]


def weak_window(case: Case) -> tuple[float, float]:
    """First order 0.85 to 1.25, second 1.8 to 2.3."""
    low, high = {1: (0.85, 1.25), 2: (1.8, 2.3)}[case.solver.weak_order]
    return low, math.inf if case.irregular else high


@pytest.mark.parametrize("method", dict.fromkeys(case.solver.name for case in CASES))
def test_orders_and_errors_on_vp(method: str) -> None:
    """Windows over the last two doublings; known errors to 10 %, of two digits. A mean that is exact has no order."""
    for case in CASES:
        if case.solver.name == method:
            assert_known(case)


def assert_known(case: Case) -> None:
    variance, mean, start, strong = measure(case, "vp", case.grid, 0.01, STEPS)
    low, high = weak_window(case)
    assert variance.errors[-1] > 1e-12 and low <= variance.order(2) <= high, (str(case), variance)
    if case.weak is not None:
        assert (variance.errors[0], variance.errors[-1]) == pytest.approx(case.weak, rel=0.1), str(case)
    if max(mean.errors) > 1e-13:
        # the means of the noise-estimate methods converge like the variance; a window is that of the variance
        assert mean.order(2) >= low - 0.15, (str(case), mean)
    if case.solver.name in ("euler_maruyama", "reverse_diffusion"):
        # The conditional distribution given the start is right to first order too, and with posteriors exact.
        assert start.decreasing and 0.85 <= start.order(2) <= 1.25, start
    assert case.solver.name != "ancestral" or max(start.errors) < 1e-14, start
    if is_reverse_sde(case.solver):
        window = (0.9, 1.15) if case.solver.strong_order == 1 else (1.4, 2.2)
        assert strong.decreasing and window[0] <= strong.order(2) <= window[1], (str(case), strong)
    if case.strong is not None:
        assert (strong.errors[0], strong.errors[-1]) == pytest.approx(case.strong, rel=0.1), str(case)


def test_ancestral_reaches_its_order_on_the_time_grid_too() -> None:
    """It is slower to get there: 0.91 and 0.92 at 256 steps."""
    variance, _, _, strong = measure(OF_METHOD["ancestral"], "vp", "time", 0.01, (16, 256, 512, 1024))
    assert (variance.errors[0], variance.errors[1]) == pytest.approx((4.2e-1, 4.6e-2), rel=0.1)
    assert (strong.errors[0], strong.errors[1]) == pytest.approx((2.3e-1, 2.5e-2), rel=0.1)
    assert 0.9 <= variance.order() <= 1.1 and 0.9 <= strong.order() <= 1.1, (variance, strong)


@pytest.mark.cells(8)
@pytest.mark.parametrize(("case", "name"), pairs(CASES, ON_PROCESSES))
def test_orders_on_processes(case: Case, name: str) -> None:
    grid = "karras" if name == "edm" and case.grid == "time" else case.grid
    steps = (128, 256) if getattr(case.solver, "tau", 1.0) < 1 else (64, 128)  # with little noise orders show late
    variance, mean, _, strong = measure(case, name, grid, PROCESSES[name].t_min, steps)
    assert variance.errors[-1] > 1e-12 and variance.order() >= case.solver.weak_order - 0.3, variance
    if is_reverse_sde(case.solver):
        assert strong.decreasing and strong.order() >= case.solver.strong_order - 0.3, strong
    if max(mean.errors) > 1e-13:
        assert mean.order() >= case.solver.weak_order - 0.3, mean


def test_strong_order_for_other_stochasticities() -> None:
    """And draws that stand for another path make no strong scheme: each fine step's draw is used for the next one."""
    sde = scoresde.VPSDE()

    def error(steps: int, eta: float, shift: bool = False) -> float:
        times = scoresde.grids.time(sde, 1.0, 0.01, steps)
        affine = affine_from(SHIFTED, sde, times, "euler_maruyama", stochasticity=eta)
        if shift:
            affine = affine._replace(response=torch.cat([affine.response[:1], affine.response[1:].roll(steps // 2, 0)]))
        return testing.strong_error(affine, SHIFTED, sde, times, stochasticity=eta)

    for eta in (0.5, 2.0):
        measured = testing.converge(lambda n, eta=eta: error(n, eta), (64, 128, 256))
        assert measured.decreasing and 0.9 <= measured.order(2) <= 1.15, (eta, measured)
    assert testing.converge(lambda n: error(n, 1.0, shift=True), (64, 128, 256)).order(2) < 0.2


# --- a non-linear problem ---------------------------------------------------------------------------------------------

# Methods without a memory, and their draws per step; DDIM(1) is ancestral to rounding.
ONE_STEP = {
    **dict.fromkeys(["euler_maruyama", "reverse_diffusion", "ancestral", "heun_sde", "er_sde1"], 1),
    **dict.fromkeys(["dpmpp_2s_ancestral", "edm"], 1),
    **dict.fromkeys(["dpmpp_sde", "sra1", "shark"], 2),
}
ON_MIXTURE = [
    *(pytest.param("vp", 0.02, m, marks=[pytest.mark.slow] * (m in ("sra1", "shark"))) for m in ONE_STEP),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (("ve", 0.2, "ancestral"), ("flow", 0.02, "ancestral"))),
]


@pytest.mark.parametrize(("name", "t_end", "method"), ON_MIXTURE, ids=lambda v: str(v))
def test_weak_order_on_a_mixture(name: str, t_end: float, method: str) -> None:
    """Expectations of x^2, cos 2x and sigmoid(4x), by the backward recursion; steps uniform in the log-SNR."""
    sde, draws = PROCESSES[name], ONE_STEP[method]
    truth = exact(MIXTURE, sde, t_end)
    order = METHODS[method].weak_order
    refined = (16, 32, 64) if order == 1 else (64, 128)
    nodes = 12 if draws == 1 else 6 if method == "dpmpp_sde" else 10
    off = []
    for steps in refined:
        times = scoresde.grids.log_snr(sde, sde.t_max, t_end, steps)
        # The recursion solves step by step, and EDM's churn per step is s_churn over the number of steps.
        solver = solvers.EDM(s_churn=5.0 / steps) if method == "edm" else METHODS[method].solver()
        got = expectations(MIXTURE, sde, times, solver, draws=draws, nodes=nodes, points=301 if nodes == 10 else 201)
        off.append(abs(got - truth))
    if order == 1:
        for j, observable in enumerate(OBSERVABLES):
            measured = testing.Convergence(refined, tuple(float(row[j]) for row in off))
            assert measured.decreasing and 0.85 <= measured.order() <= 1.15, (observable, measured)
    else:  # single observables cross zero at these steps
        measured = testing.Convergence(refined, tuple(float((row**2).sum() ** 0.5) for row in off))
        assert measured.decreasing and 1.6 <= measured.order() <= 2.4, measured


def test_expectations_are_resolved() -> None:
    sde = scoresde.VPSDE()
    times = scoresde.grids.log_snr(sde, 1.0, 0.02, 32)
    coarse, fine = (
        expectations(MIXTURE, sde, times, "ancestral", points=p, nodes=n) for p, n in ((201, 12), (401, 20))
    )
    assert abs(coarse - fine).max() < 1e-4


@pytest.mark.parametrize("method", ["euler_maruyama", "reverse_diffusion", "ancestral"])
def test_strong_order_on_a_mixture(method: str) -> None:
    """On 500 paths: coarse solves use the sums of the increments of a fine solve with 16 times as many steps. The mean
    distance has order 1; its root mean square is governed by the few paths that decide late between components, and
    shows 0.6 to 0.9 at these steps."""
    sde, steps, paths = scoresde.VPSDE(), (16, 32, 64), 500
    generator = torch.Generator().manual_seed(11)
    fine = scoresde.grids.GRIDS[OF_METHOD[method].grid](sde, 0.5, 0.01, 16 * steps[-1])
    z = torch.randn(len(fine) - 1, paths, 1, generator=generator, dtype=F64)
    x = MIXTURE.sample(paths, sde, 0.5, generator=generator)

    def ends(times: torch.Tensor, draw: testing.Draw) -> torch.Tensor:
        return scoresde.solve(sde, MIXTURE.score(sde), x, method=method, grid=times, noise=draw).x

    reference = ends(fine, lambda k, like: z[k])

    def error(n: int) -> float:
        each = (len(fine) - 1) // n
        draw = testing.coarsen(lambda k, like: z[k], fine, each, first=0, weight=OF_METHOD[method].weight(sde))
        return float((ends(fine[::each].clone(), draw) - reference).abs().mean())

    measured = testing.converge(error, steps)
    assert measured.decreasing and 0.8 <= measured.order(2) <= 1.2, measured


# --- exactness, and the family of stochasticities ---------------------------------------------------------------------


@pytest.mark.parametrize("name", PROCESSES)
def test_ancestral_is_exact_for_a_point_mass(name: str) -> None:
    """The distribution is that of the posteriors composed, N(alpha x_0, sigma^2), whatever the steps; one step is the
    posterior."""
    sde = PROCESSES[name]
    point = scoresde.targets.Gaussian(torch.tensor([0.8], dtype=F64), 0.0)
    alpha, sigma = float(sde.alpha(sde.t_min)), float(sde.sigma(sde.t_min))
    for steps in (1, 3, 12):
        affine = affine_from(point, sde, scoresde.grids.log_snr(sde, sde.t_max, sde.t_min, steps), "ancestral")
        assert float(affine.mean) == pytest.approx(alpha * 0.8, abs=1e-13)
        assert float(affine.covariance) == pytest.approx(sigma**2, rel=1e-11)
    s, t = (float(sde.time(v)) for v in (1.5, -1.0))
    x = torch.linspace(-2, 2, 5, dtype=F64)[:, None]
    mean, std = sde.posterior(x, torch.full_like(x, 0.8), s, t)
    times = torch.tensor([t, s], dtype=F64)
    for z in (0.0, 1.0):
        draw = lambda k, like, z=z: torch.full_like(like, z)  # noqa: E731
        got = scoresde.solve(sde, point.score(sde), x, method="ancestral", grid=times, noise=draw)
        torch.testing.assert_close(got.x, mean + z * std, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["ve", "vp", "subvp", "vdm", "flow"])
def test_all_stochasticities_have_the_same_law_in_the_limit(name: str) -> None:
    sde = PROCESSES[name]
    t_end = float(sde.time(6.0))  # sigma/alpha = 0.05
    alpha, sigma = float(sde.alpha(t_end)), float(sde.sigma(t_end))
    for eta in (0.0, 0.5, 1.0, 2.0):
        rows = {}
        for steps in (64, 128, 256):
            times = scoresde.grids.log_snr(sde, sde.t_max, t_end, steps)
            affine = affine_from(SHIFTED, sde, times, "euler_maruyama", stochasticity=eta)
            rows[steps] = float(affine.mean) - alpha * 0.7, float(affine.covariance) / (alpha**2 * 0.3 + sigma**2) - 1
        mean, variance = (testing.converge(lambda n, i=i: abs(rows[n][i]), tuple(rows)) for i in (0, 1))  # noqa: B023
        assert variance.decreasing and variance.order() >= 0.7 and variance.errors[-1] < 0.14, (eta, variance)
        if max(mean.errors) > 1e-13:
            assert mean.decreasing and mean.order() >= 0.7 and mean.errors[-1] < 0.04, (eta, mean)


def test_stochasticity_forgets_a_wrong_start() -> None:
    r"""With the variance V at the start instead of S, the relative error decays as :math:`\varrho^{2\eta^2}`: the flow
    keeps it, the SDE loses it."""
    sde = scoresde.VPSDE()
    times = scoresde.grids.log_snr(sde, 1.0, 0.5, 1000)
    (a_s, s), (a_t, t) = (
        (float(sde.alpha(u)), float(sde.alpha(u)) ** 2 * 0.3 + float(sde.sigma(u)) ** 2) for u in (1.0, 0.5)
    )
    contraction = math.sqrt(t / a_t**2 / (s / a_s**2))
    still, x = (lambda k, like: torch.zeros_like(like)), torch.tensor([[0.0], [math.sqrt(s)]], dtype=F64)
    for eta in (0.0, 0.5, 1.0):
        options = {"method": "euler_maruyama", "grid": times, "noise": still, "stochasticity": eta}
        ends = scoresde.solve(sde, SHIFTED.score(sde), x, **options).x
        gain = float(ends.diff(dim=0)) / math.sqrt(t)  # of the start's deviation, both in their own spread
        assert gain == pytest.approx(contraction ** (eta**2), rel=0.02)
