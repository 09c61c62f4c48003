"""``method="auto"``: the rule, and that it is what the measured tables say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import scoresde
from scoresde import solve
from scoresde.grids import VPTime
from scoresde.solvers import choose

F64 = torch.float64
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SDE = scoresde.VPSDE()
TARGET = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([1.0, 0.1], dtype=F64))
X = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)


@pytest.mark.parametrize("budget", ["20", "50", "100"])
def test_the_rule_is_that_of_the_table(budget: str) -> None:
    """Within a quarter of the smallest geometric mean of the three errors of a deterministic method."""
    methods = json.loads((RESULTS / "work_precision.json").read_text())["results"]["methods"]
    means = {}
    for name, record in methods.items():
        errors = [record["errors"].get(problem, {}).get(budget) for problem in ("gaussian", "ring", "ring, median")]
        if all(errors):
            means[name] = math.exp(sum(map(math.log, errors)) / 3)
    solver, steps, grid = choose(True, int(budget), ())
    assert grid is None
    assert len(means) > 20 and steps is not None
    assert means[solver.name] < 1.25 * min(means.values()), sorted(means.items(), key=lambda pair: pair[1])[:4]


@pytest.mark.parametrize("steps", [3, 5, 7, 8, 10, 29, 30, 50])
def test_steps_are_evaluations(steps: int) -> None:
    solution = solve(SDE, TARGET.score(SDE), X, method="auto", steps=steps)
    assert solution.evaluations == steps
    exact = TARGET.flow_map(X, SDE, SDE.t_max, SDE.t_min)
    assert float((solution.x - exact).abs().max()) < (1.0 if steps < 5 else 0.5 if steps < 10 else 0.1)


@pytest.mark.parametrize("tolerances", [{}, {"rtol": 1e-5, "atol": 1e-6}])
def test_tolerances_take_adams(tolerances: dict[str, float]) -> None:
    auto, adams = (solve(SDE, TARGET.score(SDE), X, method=method, **tolerances) for method in ("auto", "adams"))
    assert torch.equal(auto.x, adams.x) and torch.equal(auto.nfe, adams.nfe)
    up = solve(SDE, TARGET.score(SDE), auto.x, method="auto", t_start=SDE.t_min, t_end=SDE.t_max, **tolerances)
    torch.testing.assert_close(up.x, X, rtol=0, atol=0.05)


def test_grids() -> None:
    times = [1.0, 0.7, 0.4, 0.2, 0.1, 0.01]
    by_grid = solve(SDE, TARGET.score(SDE), X, method="auto", grid=times)
    few = {"method": "unipc2", "lower_order_final": True}
    assert torch.equal(by_grid.x, solve(SDE, TARGET.score(SDE), X, grid=times, **few).x)
    by_name = solve(SDE, TARGET.score(SDE), X, method="auto", grid="karras", steps=6)
    assert torch.equal(by_name.x, solve(SDE, TARGET.score(SDE), X, grid="karras", steps=6, **few).x)
    edm = scoresde.EDMSDE()
    x = edm.prior_sample((3, 2), generator=torch.Generator().manual_seed(0), dtype=F64)
    for steps, scale in ((5, 1.0), (6, 1.0), (7, 0.3), (14, 0.3)):
        by_rule = solve(edm, TARGET.score(edm), x, method="auto", steps=steps)
        assert torch.equal(by_rule.x, solve(edm, TARGET.score(edm), x, grid=VPTime(scale, 0.25), steps=steps, **few).x)


class TestNoiseStart:
    """Few evaluations begin at sigma/alpha = 100 in units of the data, where the state is noise."""

    SDE = scoresde.VPSDE(beta_min=1e-6, beta_max=32.0, t_min=1e-3)

    def start(self, level: float = 100.0) -> tuple[float, Any]:
        """The time of a level, and the states there."""
        t = float(self.SDE.time(torch.tensor(-2 * math.log(level), dtype=F64)))
        here, there = self.SDE.node(self.SDE.t_max), self.SDE.node(t)
        return t, X * math.hypot(there.alpha, there.sigma) / math.hypot(here.alpha, here.sigma)

    def test_it_is_a_solve_from_there(self) -> None:
        t, x = self.start()
        score = TARGET.score(self.SDE)

        def bare(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:  # which does not declare the scale of its data
            return score(x, t)

        auto = solve(self.SDE, bare, X, method="auto", steps=7, save_at="steps")
        few = {"method": "unipc2", "lower_order_final": True, "grid": VPTime(0.3, 0.25)}
        torch.testing.assert_close(auto.x, solve(self.SDE, bare, x, t_start=t, steps=7, **few).x)
        assert auto.evaluations == 7 and float(auto.ts[0]) == pytest.approx(t)

    def test_the_scale_of_the_data_counts(self) -> None:
        large = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([100.0, 100.0], dtype=F64))
        t, _ = self.start(1000.0)
        auto = solve(self.SDE, large.score(self.SDE), X, method="auto", steps=7, save_at="steps")
        assert float(auto.ts[0]) == pytest.approx(t)

    @pytest.mark.parametrize(
        "arguments",
        [{"t_start": 0.99}, {"grid": "vp_time"}, {"t_start": 0.1, "t_end": 1.0}, {"steps": 20}, {"t_start": 1.0}],
    )
    def test_what_is_given_is_kept(self, arguments: dict[str, Any]) -> None:
        given = {"steps": 6} | arguments
        auto = solve(self.SDE, TARGET.score(self.SDE), X, method="auto", save_at="steps", **given)
        assert float(auto.ts[0]) == given.get("t_start", self.SDE.t_max)

    def test_one_outlier_of_the_network_does_no_harm(self) -> None:
        """A network of the noise that errs by 1 % at the start, which a long step would multiply by 3,000."""

        def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            noise = -self.SDE.sigma(t)[:, None] * TARGET.score(self.SDE)(x, t)
            return noise + 0.01 * (t[:, None] > 0.95)

        model = scoresde.ScoreModel(net, self.SDE, "noise")
        auto = solve(self.SDE, model, X, method="auto", steps=6).x
        exact = solve(self.SDE, TARGET.score(self.SDE), X, method="adams", rtol=1e-8, atol=1e-8).x
        whole = solve(self.SDE, model, X, method="unipc2", steps=6, grid=VPTime(1.0, 0.25)).x
        assert 5 * float((auto - exact).abs().max()) < float((whole - exact).abs().max())


def test_ends_without_noise_and_without_signal() -> None:
    sde = scoresde.FlowSDE(t_min=0.0)
    model = scoresde.ScoreModel(lambda x, t: 0.3 * x, sde, "data")
    for arguments in ({}, {"steps": 5}, {"steps": 20}, {"steps": 40}):
        solution = solve(sde, model, X, method="auto", **arguments)
        assert bool(torch.isfinite(solution.x).all()) and bool((solution.t == 0).all())


def test_a_process_with_a_drift_only() -> None:
    class Decay(scoresde.SDE):
        def drift(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return -x

        def diffusion(self, t: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(t)

    sde = Decay(t_min=0.1, t_max=1.0, prior=scoresde.NormalPrior(1.0))
    tight = solve(sde, lambda x, t: -x, X, method="auto", rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(solve(sde, lambda x, t: -x, X, method="auto", steps=400).x, tight.x, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 5, "rtol": 1e-3}, "rtol"),
        ({"snr": 0.1}, "auto.*snr"),
        ({"grid": "karras"}, "grid"),
        ({"stochasticity": 1.0}, "stochasticity"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(scoresde.InvalidArgumentError, match=message):
        solve(SDE, TARGET.score(SDE), X, method="auto", **arguments)


def test_a_fitted_grid_brings_its_method() -> None:
    method = scoresde.solvers.UniP(order=2, variant="full")
    grid = scoresde.fit_grid(SDE, TARGET.score(SDE), 4, method, pilot=4, iterations=0, starts="quadratic")
    auto = solve(SDE, TARGET.score(SDE), X, method="auto", grid=grid)
    assert torch.equal(auto.x, solve(SDE, TARGET.score(SDE), X, method=method, grid=grid).x)


@pytest.mark.parametrize(
    "text", ["unipc", "UniPC(2)", "UniPC(order=0)", "Solver()", "print()", "UniPC(order=print)", "("]
)
def test_text_that_is_no_solver(text: str) -> None:
    with pytest.raises(scoresde.InvalidArgumentError):
        scoresde.solvers.from_config(text)


def test_every_solver_comes_back_from_its_text() -> None:
    for solver in (scoresde.solvers.UniPC(order=3, start_up="published"), scoresde.solvers.IPNDM(order=2)):
        assert scoresde.solvers.from_config(repr(solver)) == solver


class TestFewEvaluations:
    """The committed figures of `benchmarks.few`, of networks that took no part in choosing the rule."""

    RATIOS = json.loads((RESULTS / "few.json").read_text())["results"]["ratios"]

    @pytest.mark.parametrize(("budget", "mean"), [("5", 1.5), ("8", 1.6), ("10", 1.8)])
    def test_auto_on_networks(self, budget: str, mean: float) -> None:
        figures = self.RATIOS[budget]["auto"]
        assert figures["report, networks"]["median"]["mean"] <= mean
        assert figures["exact"]["median"]["worst"] <= 7

    @pytest.mark.parametrize("budget", ["15", "20"])
    def test_auto_is_what_it_was(self, budget: str) -> None:
        assert self.RATIOS[budget]["auto"] == self.RATIOS[budget]["before"]

    @pytest.mark.parametrize(
        ("budget", "mean", "worst"), [("5", 1.1, 1.5), ("8", 1.1, 1.5), ("10", 1.1, 1.5), ("20", 1.2, 2.0)]
    )
    def test_tune_finds_nearly_the_best_candidate(self, budget: str, mean: float, worst: float) -> None:
        figures = self.RATIOS[budget]["tuned / best candidate"]["report, networks"]["median"]
        assert figures["mean"] <= mean and figures["worst"] <= worst


class TestLearnedSolvers:
    """The committed figures of `benchmarks.fitted_solvers`, with 32 pilots, of problems that took no part."""

    RESULTS = json.loads((RESULTS / "fitted_solvers.json").read_text())["results"]

    @pytest.mark.parametrize(("budget", "mean"), [("5", 0.5), ("8", 0.6), ("10", 0.6)])
    def test_half_the_error_of_the_best_fitted_grid(self, budget: str, mean: float) -> None:
        assert self.RESULTS["ratios"]["report"][budget]["median"]["mean"] <= mean

    def test_the_cost_is_at_most_three_times_that_of_a_grid(self) -> None:
        costs = [row["cost / grid"] for p in self.RESULTS["problems"].values() for row in p["budgets"].values()]
        assert max(costs) <= 3

    @pytest.mark.parametrize(("budget", "gaussian", "ring"), [("5", 1e-3, 2.5e-3), ("10", 2e-5, 3e-4)])
    def test_on_exact_scores(self, budget: str, gaussian: float, ring: float) -> None:
        rows = {name: self.RESULTS["problems"][name]["budgets"][budget] for name in ("gaussian", "ring")}
        assert rows["gaussian"]["learned"]["rms"] <= gaussian
        assert rows["ring"]["learned"]["median"] <= ring
        assert rows["ring"]["learned"]["rms"] <= rows["ring"]["best grid"]["rms"]
