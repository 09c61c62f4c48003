"""Orders of the deterministic methods, on a non-linear problem with an exact answer.

The problem is a one-dimensional mixture, whose probability flow is the quantile map. On the VP process the errors
themselves are compared with an independent computation; on the others the orders are, from the noise and from half-way,
where the errors of a multistep method's first steps show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

import scoresde
from scoresde import solvers, testing
from scoresde.solvers import Multistep, RungeKutta, Solver
from tests.parameters import pairs

from .problems import GAUSSIAN, MIXTURE, PROCESSES, STARTS, started
from .trees import matrix, residuals, trees

F64 = torch.float64
STEPS = (20, 40, 80, 160, 320)


@dataclass(frozen=True)
class Case:
    """A method with options, a grid that its order holds on, and its errors on the VP process, t: 1 -> 0.01, at 20, 80
    and 320 steps, from an independent computation (None: none was made) with exact starting values."""

    solver: Solver
    grid: str
    errors: tuple[float, float, float] | None = None
    erratic: bool = False  # no regular slope at these steps: a lower bound is all that is asserted

    def __str__(self) -> str:
        options = [str(v) for v in (getattr(self.solver, k, None) for k in ("form", "variant", "order", "clock")) if v]
        return "-".join([self.solver.name, *options])


CASES = [
    Case(solvers.Euler(), "time", (4.5e-2, 9.2e-3, 2.1e-3)),
    Case(solvers.Heun(), "time", (1.3e-2, 7.4e-4, 4.5e-5)),
    Case(solvers.Midpoint(), "time"),
    Case(solvers.RK4(), "time"),
    Case(solvers.DDIM(), "log_snr", (1.2e-1, 3.0e-2, 7.6e-3)),
    Case(solvers.RhoHeun(), "karras", (4.0e-2, 2.2e-3, 1.4e-4)),
    Case(solvers.RhoMidpoint(), "karras", (3.0e-3, 2.1e-4, 1.4e-5)),
    Case(solvers.RhoRalston(), "karras"),
    Case(solvers.RhoKutta3(), "karras", (1.9e-3, 2.7e-5, 4.1e-7)),
    Case(solvers.RhoRK4(), "karras", (4.4e-4, 1.4e-6, 5.5e-9)),
    Case(solvers.DPM2S(form="dpmsolver"), "log_snr", (1.4e-2, 8.3e-4, 5.1e-5)),
    Case(solvers.DPM2S(), "log_snr", (5.0e-3, 3.1e-4, 1.9e-5)),
    Case(solvers.DPMpp2S(form="dpmsolver"), "log_snr", (1.1e-2, 7.1e-4, 4.5e-5)),
    Case(solvers.DPMpp2S(), "log_snr", (3.4e-3, 2.2e-4, 1.4e-5)),
    Case(solvers.DPM3S(form="dpmsolver"), "log_snr", (1.8e-4, 3.3e-6, 5.2e-8)),
    Case(solvers.DPM3S(), "log_snr", (6.4e-5, 1.1e-6, 1.7e-8)),
    Case(solvers.DPMpp3S(form="dpmsolver"), "log_snr", (2.7e-4, 4.0e-6, 6.2e-8)),
    Case(solvers.DPMpp3S(), "log_snr", (1.3e-4, 1.6e-6, 2.6e-8)),
    Case(solvers.RES2S(), "log_snr", (3.4e-3, 2.2e-4, 1.4e-5)),
    Case(solvers.RES3S(), "log_snr"),
    Case(solvers.DPM2M(), "log_snr", (1.0e-2, 6.5e-4, 4.1e-5)),
    Case(solvers.DPM2M(form="taylor"), "log_snr"),
    Case(solvers.DPMpp2M(), "log_snr", (1.5e-2, 8.9e-4, 5.5e-5)),
    Case(solvers.DPMpp2M(form="taylor"), "log_snr"),
    Case(solvers.DPM3M(variant="published"), "log_snr", (5.0e-3, 2.4e-4, 1.5e-5)),
    Case(solvers.DPMpp3M(variant="published"), "log_snr", (4.7e-3, 2.7e-4, 1.7e-5)),
    Case(solvers.DPM3M(), "log_snr", (2.8e-3, 4.8e-5, 6.3e-7)),
    Case(solvers.DPMpp3M(), "log_snr", (3.9e-3, 4.7e-5, 7.0e-7)),
    Case(solvers.UniP2(), "log_snr", (1.5e-2, 8.9e-4, 5.5e-5)),
    Case(solvers.UniP3(), "log_snr", (3.9e-3, 4.7e-5, 7.0e-7)),
    Case(solvers.UniP(order=4), "log_snr"),
    Case(solvers.UniPC1(variant="bh1"), "log_snr", (1.3e-2, 6.9e-4, 4.2e-5)),
    Case(solvers.UniPC1(), "log_snr", (3.4e-2, 2.2e-3, 1.4e-4)),
    Case(solvers.UniPC2(variant="bh1"), "log_snr", (1.2e-2, 1.7e-4, 2.6e-6)),
    Case(solvers.UniPC2(), "log_snr", (5.7e-3, 9.0e-5, 1.5e-6)),
    Case(solvers.UniPC3(correct_last=True), "log_snr", (2.2e-3, 1.3e-5, 4.6e-8)),
    Case(solvers.TAB2(), "time", (2.2e-2, 3.4e-3, 2.5e-4)),
    Case(solvers.TAB3(), "time", (2.5e-2, 1.3e-3, 2.1e-5)),
    Case(solvers.TAB4(), "time", (2.8e-2, 1.9e-4, 4.2e-7), erratic=True),
    Case(solvers.TAB2(clock="vp_time"), "vp_time"),
    Case(solvers.TAB3(clock="vp_time"), "vp_time"),
    Case(solvers.TAB4(clock="vp_time"), "vp_time", erratic=True),
    Case(solvers.RhoAB2(), "karras", (6.0e-2, 4.5e-3, 3.0e-4)),
    Case(solvers.RhoAB3(), "karras", (3.5e-2, 8.6e-4, 1.5e-5)),
    Case(solvers.RhoAB4(), "karras", (2.4e-2, 2.2e-4, 1.0e-6)),
    Case(solvers.IPNDM(order=2), "time", (2.1e-2, 3.3e-3, 2.5e-4), erratic=True),
    Case(solvers.IPNDM(order=3), "time", (2.3e-2, 1.2e-3, 1.7e-5), erratic=True),
    Case(solvers.IPNDM(), "time", (2.7e-2, 1.6e-4, 9.5e-6), erratic=True),
    Case(solvers.PLMS(), "time", erratic=True),
]
# The orders of other libraries' methods are measured in tests/integration/test_backends.py.
METHODS = {m.name: m for m in scoresde.methods() if m.kind != "backend"}
FIXED = [m.name for m in METHODS.values() if m.ode_order is not None and m.name == m.solver.name and not m.adaptive]

# The list of deterministic methods, so that none is dropped or declared down.
ORDERS = {
    **dict.fromkeys(["euler", "ddim"], 1),
    **dict.fromkeys(["heun", "midpoint", "rho_heun", "rho_midpoint", "rho_ralston"], 2),
    **dict.fromkeys(["dpm_2s", "dpmpp_2s", "res_2s", "dpm_2m", "dpmpp_2m", "unip2", "unipc1", "tab2", "rho_ab2"], 2),
    **dict.fromkeys(["ipndm", "plms"], 2),
    **dict.fromkeys(["rho_kutta3", "dpm_3s", "dpmpp_3s", "res_3s", "dpm_3m", "dpmpp_3m", "unip3", "unipc2"], 3),
    **dict.fromkeys(["tab3", "rho_ab3"], 3),
    **dict.fromkeys(["rk4", "rho_rk4", "unipc3", "tab4", "rho_ab4"], 4),
    # Adaptive methods, whose orders are measured in test_pairs.py and test_adams.py.
    **{"dpm12": 2, "rk23": 3, "dpm23": 3, "erk32": 3, "erk43": 4, "rk45": 5, "tsit5": 5, "dop853": 8, "adams": 7},
}


def test_every_method_with_an_order_is_measured() -> None:
    declared = {m.name: m.ode_order for m in scoresde.methods() if m.kind == "ode" and m.name == m.solver.name}
    assert declared == ORDERS
    assert {m.name for m in METHODS.values() if m.ode_order is not None and m.kind != "ode"} == set()
    assert {case.solver.name for case in CASES} >= {name for name in ORDERS if not METHODS[name].adaptive}


def exact_flow(x: torch.Tensor, sde: scoresde.AffineSDE, times: torch.Tensor) -> list[torch.Tensor]:
    return [testing.mixture_flow_map(MIXTURE, x, sde, float(times[0]), float(t)) for t in times]


def error_on_vp(case: Case, steps: int) -> float:
    """The largest error over `STARTS`; multistep methods begin with exact values at their first nodes."""
    sde = PROCESSES["vp"]
    score = MIXTURE.score(sde)
    grid = scoresde.grids.GRIDS[case.grid](sde, 1.0, 0.01, steps)
    known = case.solver.memory if isinstance(case.solver, Multistep) else 1
    first = exact_flow(STARTS, sde, grid[:known])
    solver = case.solver
    if known > 1:
        nodes = [sde.node(float(t)) for t in grid[: known - 1]]
        solver = started(solver, nodes, [score.estimate(x, n) for x, n in zip(first[:-1], nodes, strict=True)])
    got = scoresde.solve(sde, score, first[-1], method=solver, grid=grid[known - 1 :])
    return float((got.x - testing.mixture_flow_map(MIXTURE, STARTS, sde, 1.0, 0.01)).abs().max())


@pytest.mark.parametrize("family", dict.fromkeys(type(case.solver).__module__ for case in CASES))
def test_errors_on_vp(family: str) -> None:
    for case in CASES:
        if type(case.solver).__module__ != family:
            continue
        measured = testing.converge(lambda n, case=case: error_on_vp(case, n), STEPS)
        order = case.solver.ode_order
        assert order is not None and measured.decreasing and measured.errors[-1] > 1e-12, (str(case), measured)
        if case.erratic:
            assert measured.order(last=3) >= order - 0.3, (str(case), measured)
        else:
            assert measured.order() == pytest.approx(order, abs=0.15), (str(case), measured)
        if case.errors is not None:
            # The expected figures have two digits.
            assert measured.errors[::2] == pytest.approx(case.errors, rel=0.1), str(case)


def flow_error(method: str, name: str, steps: int, half: bool) -> float:
    """The largest error of a solve as a user makes it, to t_min, from t_max or from half-way."""
    sde = PROCESSES[name]
    grid = "time" if isinstance(METHODS[method].solver(), RungeKutta) and "rho" not in method else "log_snr"
    grid = "karras" if name == "edm" and grid == "time" else grid
    x, start = sde.prior.std * STARTS, sde.t_max
    if half:
        start = 1.0 if name == "edm" else 0.5
        x = testing.mixture_flow_map(MIXTURE, x, sde, sde.t_max, start)
    exact = testing.mixture_flow_map(MIXTURE, x, sde, start, sde.t_min)
    got = scoresde.solve(sde, MIXTURE.score(sde), x, method=method, steps=steps, grid=grid, t_start=start)
    return float((got.x - exact).abs().max())


# From half-way the first steps of a multistep method show.
STARTED = [f"{m} from noise" for m in FIXED]
STARTED += [f"{m} from half-way" for m in FIXED if issubclass(METHODS[m].solver, Multistep)]


@pytest.mark.cells(8)
@pytest.mark.parametrize(("start", "name"), pairs(STARTED, PROCESSES))
def test_order_on_processes(start: str, name: str) -> None:
    method, _, place = start.partition(" from ")
    half = place == "half-way"
    steps = (640, 1280) if method == "tab4" else (160, 320)  # the slope of tAB of order 4 settles late
    measured = testing.converge(lambda n: flow_error(method, name, n, half), steps)
    assert measured.decreasing and measured.errors[-1] > 1e-13, measured
    assert measured.order() >= ORDERS[method] - 0.3, measured


@pytest.mark.parametrize("method", FIXED)
def test_order_of_encoding(method: str) -> None:
    """The same upwards in time, from data to noise."""
    sde, grid = scoresde.VPSDE(), "time" if isinstance(METHODS[method].solver(), RungeKutta) else "log_snr"
    grid = "log_snr" if method.startswith("rho") else grid
    x = testing.mixture_flow_map(MIXTURE, STARTS, sde, 1.0, 0.01)

    def error(steps: int) -> float:
        got = scoresde.solve(sde, MIXTURE.score(sde), x, method=method, steps=steps, grid=grid, t_start=0.01, t_end=1.0)
        return float((got.x - STARTS).abs().max())

    measured = testing.converge(error, (80, 160))
    assert measured.decreasing and measured.order() >= ORDERS[method] - 0.3, measured


@pytest.mark.parametrize("name", ["unip3", "dpmpp_3m", "rho_ab3", "unipc3"])
def test_the_published_start_up_limits_the_order(name: str) -> None:
    """One first step of order 1 leaves an error of order 2, in UniPC of order 3 (the reason for single steps)."""
    sde = PROCESSES["vp"]
    x, exact = (testing.mixture_flow_map(MIXTURE, STARTS, sde, 1.0, t) for t in (0.35, 0.01))

    def error(steps: int, start_up: str) -> float:
        options: dict[str, Any] = {"method": name, "t_start": 0.35, "t_end": 0.01, "start_up": start_up}
        return float((scoresde.solve(sde, MIXTURE.score(sde), x, steps=steps, **options).x - exact).abs().max())

    published, single = (testing.converge(lambda n, s=s: error(n, s), (160, 320)) for s in ("published", "single"))
    assert published.order() == pytest.approx(3 if name == "unipc3" else 2, abs=0.25), published
    assert single.order() == pytest.approx(ORDERS[name], abs=0.25), single
    assert single.errors[-1] < published.errors[-1] / 3


def test_any_order_of_unipc() -> None:
    """Order p + 1 for p = 4 and 5 too, on a smooth problem."""
    sde = PROCESSES["flow"]
    exact = GAUSSIAN.flow_map(STARTS, sde, 0.8, 0.3)

    def error(solver: Solver, steps: int) -> float:
        got = scoresde.solve(sde, GAUSSIAN.score(sde), STARTS, method=solver, steps=steps, t_start=0.8, t_end=0.3)
        return float((got.x - exact).abs().max())

    for solver in (solvers.UniP(order=5), solvers.UniPC(order=4), solvers.UniP(order=6), solvers.UniPC(order=5)):
        measured = testing.converge(lambda n, s=solver: error(s, n), (20, 40, 80))
        assert measured.order() >= solver.ode_order - 0.5, (solver, measured)


# --- tableaux ---------------------------------------------------------------------------------------------------------

RUNGE_KUTTA = [METHODS[name].solver() for name in ORDERS if issubclass(METHODS[name].solver, RungeKutta)]


def test_tableaux_have_the_declared_order_and_no_more() -> None:
    assert [len(trees(n)) for n in range(1, 7)] == [1, 1, 2, 4, 9, 20]
    for solver in RUNGE_KUTTA:
        tableau, a, b = solver.tableau, matrix(solver), torch.tensor(solver.tableau.b, dtype=F64)
        assert [len(row) for row in tableau.a] == list(range(len(tableau.c))), solver.name
        torch.testing.assert_close(a.sum(1), torch.tensor(tableau.c, dtype=F64), rtol=0, atol=1e-14)
        assert solver.ode_order is not None and float(b.sum()) == pytest.approx(1.0, abs=1e-14), solver.name
        for order in range(1, solver.ode_order + 1):
            # The rounding of the coefficients, which are as large as 13 in tsit5 and 52 in dop853.
            limit = 1e-14 if float(a.abs().max()) < 12 else 1e-13
            assert max(residuals(a, b, order)) < limit, (solver.name, order)
        assert max(residuals(a, b, solver.ode_order + 1)) > 1e-5, solver.name


# --- closed maps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROCESSES)
def test_ddim_is_exact_for_a_point_mass(name: str) -> None:
    sde, point = PROCESSES[name], scoresde.targets.Empirical(torch.tensor([[0.8]], dtype=F64))
    x = sde.prior.std * STARTS
    noise = (x - float(sde.alpha(sde.t_max)) * 0.8) / float(sde.sigma(sde.t_max))
    exact = float(sde.alpha(sde.t_min)) * 0.8 + float(sde.sigma(sde.t_min)) * noise
    for steps in (1, 2, 7):
        got = scoresde.solve(sde, point.score(sde), x, method="ddim", steps=steps)
        torch.testing.assert_close(got.x, exact, rtol=0, atol=1e-13)
