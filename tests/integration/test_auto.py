"""``method="auto"``: the rule, and that it is what the measured tables say."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import scoresde
from benchmarks.few import BUDGETS
from scoresde import EDMSDE, VDMSDE, VESDE, VPSDE, CosineVPSDE, FlowSDE, ScoreSDEWarning, SubVPSDE, solve
from scoresde.grids import Angle, VPTime
from scoresde.presets import PRESETS
from scoresde.solvers import choose

F64 = torch.float64
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SDE = scoresde.VPSDE()
PROCESSES = {cls.__name__: cls for cls in (VPSDE, SubVPSDE, VESDE, VDMSDE, EDMSDE, CosineVPSDE, FlowSDE)}
TARGET = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([1.0, 0.1], dtype=F64))
X = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=F64)


def test_a_solve_that_ends_in_noise_begins_at_t_max() -> None:
    """And not where the rule would have it begin, which is below its end."""
    sde = scoresde.EDMSDE(sigma_max=8000.0)
    x = sde.prior_sample((3, 2), generator=torch.Generator().manual_seed(0), dtype=F64)
    for t_end in (200.0, 100.0, 4000.0):
        given: dict[str, Any] = {"method": "auto", "evaluations": 8, "t_end": t_end}
        whole = solve(sde, TARGET.score(sde), x, t_start=sde.t_max, **given)
        assert torch.equal(solve(sde, TARGET.score(sde), x, **given).x, whole.x)
        exact = TARGET.flow_map(x, sde, sde.t_max, t_end)
        assert float((whole.x / exact - 1).abs().max()) < 1e-3


def test_the_rule_is_that_of_the_table() -> None:
    """Within a quarter of the smallest geometric mean of the three errors of a deterministic method."""
    methods = json.loads((RESULTS / "work_precision.json").read_text())["results"]["methods"]
    for budget in ("50", "100"):
        means = {}
        for name, record in methods.items():
            errors = [record["errors"].get(problem, {}).get(budget) for problem in ("gaussian", "ring", "ring, median")]
            if all(errors):
                means[name] = math.exp(sum(map(math.log, errors)) / 3)
        solver, grid, _ = choose(True, int(budget), ())
        assert grid is None and len(means) > 20
        assert means[solver.name] < 1.25 * min(means.values()), sorted(means.items(), key=lambda pair: pair[1])[:4]


def test_steps_are_evaluations() -> None:
    exact = TARGET.flow_map(X, SDE, SDE.t_max, SDE.t_min)
    bounds = {3: 1.0, 5: 0.18, 7: 0.12, 8: 0.1, 10: 0.015, 29: 0.003, 30: 6e-4, 50: 2e-4}  # Euler: .4 to .01
    for steps, bound in bounds.items():
        solution = solve(SDE, TARGET.score(SDE), X, method="auto", evaluations=steps)
        assert solution.evaluations == steps
        assert float((solution.x - exact).abs().max()) < bound, steps


def test_tolerances_take_adams() -> None:
    tolerances = {"rtol": 1e-5, "atol": 1e-6}
    auto, adams = (solve(SDE, TARGET.score(SDE), X, method=method, **tolerances) for method in ("auto", "adams"))
    assert torch.equal(auto.x, adams.x) and torch.equal(auto.nfe, adams.nfe)
    up = solve(SDE, TARGET.score(SDE), auto.x, method="auto", t_start=SDE.t_min, t_end=SDE.t_max, **tolerances)
    torch.testing.assert_close(up.x, X, rtol=0, atol=0.05)


def test_grids() -> None:
    times = [1.0, 0.7, 0.4, 0.2, 0.1, 0.01]
    by_grid = solve(SDE, TARGET.score(SDE), X, method="auto", grid=times)
    few = {"method": "unipc2", "lower_order_final": True}
    more = {"method": "dpm_3m", "start_up": "published"}
    assert torch.equal(by_grid.x, solve(SDE, TARGET.score(SDE), X, grid=times, **few).x)
    by_name = solve(SDE, TARGET.score(SDE), X, method="auto", grid="karras", evaluations=6)
    assert torch.equal(by_name.x, solve(SDE, TARGET.score(SDE), X, grid="karras", steps=6, **few).x)
    edm = scoresde.EDMSDE()
    x = edm.prior_sample((3, 2), generator=torch.Generator().manual_seed(0), dtype=F64)
    second, grids = {"method": "dpm_2m"}, {5: VPTime(0.3, 0.25), 7: Angle(1.0, 0.35), 9: Angle(3.0, 0.25)}
    for steps, method, at in ((5, few, 5), (6, few, 5), (7, second, 7), (8, second, 7), (9, more, 9), (29, more, 9)):
        grid = grids[at]
        by_rule = solve(edm, TARGET.score(edm), x, method="auto", evaluations=steps)
        assert torch.equal(by_rule.x, solve(edm, TARGET.score(edm), x, grid=grid, steps=steps, **method).x)


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

        auto = solve(self.SDE, bare, X, method="auto", evaluations=7, save_at="steps")
        few = {"method": "dpm_2m", "grid": Angle(1.0, 0.35)}
        torch.testing.assert_close(auto.x, solve(self.SDE, bare, x, t_start=t, steps=7, **few).x)
        assert auto.evaluations == 7 and float(auto.ts[0]) == pytest.approx(t)

    def test_the_scale_of_the_data_counts(self) -> None:
        large = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([100.0, 100.0], dtype=F64))
        t, _ = self.start(1000.0)
        auto = solve(self.SDE, large.score(self.SDE), X, method="auto", evaluations=7, save_at="steps")
        assert float(auto.ts[0]) == pytest.approx(t)

    def test_what_is_given_is_kept(self) -> None:
        whole = {"evaluations": 6}
        for given in ({"t_start": 0.99}, {"grid": "vp_time"}, {"t_start": 0.1, "t_end": 1.0}, {"evaluations": 30}):
            auto = solve(self.SDE, TARGET.score(self.SDE), X, method="auto", save_at="steps", **(whole | given))
            assert float(auto.ts[0]) == given.get("t_start", self.SDE.t_max), given

    def test_one_outlier_of_the_network_does_no_harm(self) -> None:
        """A network of the noise that errs by 1 % at the start, which a long step would multiply by 3,000."""

        def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            noise = -self.SDE.sigma(t)[:, None] * TARGET.score(self.SDE)(x, t)
            return noise + 0.01 * (t[:, None] > 0.95)

        model = scoresde.ScoreModel(net, self.SDE, "noise")
        auto = solve(self.SDE, model, X, method="auto", evaluations=6).x
        exact = solve(self.SDE, TARGET.score(self.SDE), X, method="adams", rtol=1e-8, atol=1e-8).x
        whole = solve(self.SDE, model, X, method="unipc2", steps=6, grid=VPTime(1.0, 0.25)).x
        assert 5 * float((auto - exact).abs().max()) < float((whole - exact).abs().max())


def test_ends_without_noise_and_without_signal() -> None:
    sde = scoresde.FlowSDE(t_min=0.0)
    model = scoresde.ScoreModel(lambda x, t: 0.3 * x, sde, "data")
    for arguments in ({}, {"evaluations": 5}, {"evaluations": 20}, {"evaluations": 40}):
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
    torch.testing.assert_close(
        solve(sde, lambda x, t: -x, X, method="auto", evaluations=400).x, tight.x, rtol=1e-4, atol=0
    )


def test_refusals() -> None:
    for arguments, message in (
        ({"evaluations": 0}, "evaluations"),
        ({"evaluations": 5, "rtol": 1e-3}, "rtol"),
        ({"snr": 0.1}, "auto.*snr"),
        ({"stochasticity": 1.0}, "stochasticity"),
    ):
        with pytest.raises(scoresde.InvalidArgumentError, match=message):
            solve(SDE, TARGET.score(SDE), X, method="auto", **arguments)


def test_a_fitted_grid_brings_its_method() -> None:
    method = scoresde.solvers.UniP(order=2, variant="full")
    grid = scoresde.fit_grid(SDE, TARGET.score(SDE), 4, method, pilot=4, iterations=0, starts="quadratic")
    auto = solve(SDE, TARGET.score(SDE), X, method="auto", grid=grid)
    assert torch.equal(auto.x, solve(SDE, TARGET.score(SDE), X, method=method, grid=grid).x)


def test_a_solver_comes_back_from_its_text() -> None:
    for solver in (scoresde.solvers.UniPC(order=3, start_up="published"), scoresde.solvers.IPNDM(order=2)):
        assert scoresde.solvers.from_config(repr(solver)) == solver
    for text in ("unipc", "UniPC(2)", "UniPC(order=0)", "Solver()", "print()", "UniPC(order=print)", "("):
        with pytest.raises(scoresde.InvalidArgumentError):
            scoresde.solvers.from_config(text)


FEW = [2, 5, 8, 14]
CENTRES = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=F64)


def scaled(scale: float, sde: Any) -> Any:
    """A score function of data with about this standard deviation, which does not declare it."""
    exact = scoresde.targets.GaussianMixture(torch.ones(5, dtype=F64), scale * CENTRES, scales=0.2 * scale).score(sde)

    def score_fn(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return exact(x, t)

    return score_fn


def warned(sde: Any, score_fn: Any, **options: Any) -> list[str]:
    given: dict[str, Any] = {"method": "auto", "evaluations": 8, "shape": (16, 8), "dtype": F64, "seed": 0, **options}
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        solve(sde, score_fn, **given)
    return [str(one.message) for one in found if issubclass(one.category, ScoreSDEWarning)]


@pytest.mark.parametrize(("steps", "scale"), [(2, 100.0), (5, 0.01), (8, 100.0), (14, 0.01)])
def test_another_scale_is_told_once(steps: int, scale: float) -> None:
    """What is written in the warning helps."""
    sde = scoresde.EDMSDE(sigma_min=0.002 * scale, sigma_max=80.0 * scale)
    score_fn = scaled(scale, sde)
    (said,) = warned(sde, score_fn, evaluations=steps)
    assert f"method='auto' with {steps} evaluations" in said and f"scoresde.tune(sde, score_fn, {steps})" in said
    std = float(said.partition("score_fn.data_std = ")[2].partition(",")[0])
    assert 0.3 * scale < std < 3 * scale
    x = sde.prior_sample((64, 8), generator=torch.Generator().manual_seed(1), dtype=F64)
    tight = solve(sde, score_fn, x, method="adams", rtol=1e-5, atol=1e-5 * scale).x
    with pytest.warns(ScoreSDEWarning, match="standard deviation near 1") as found:
        before = solve(sde, score_fn, x, method="auto", evaluations=steps).x
    assert [one.filename for one in found] == [__file__]  # the line of the caller
    score_fn.data_std = std
    assert not warned(sde, score_fn, evaluations=steps)
    after = solve(sde, score_fn, x, method="auto", evaluations=steps).x
    errors = [float((end - tight).square().mean(1).sqrt().median()) for end in (before, after)]
    assert errors[1] < (1 if steps == 2 else 0.5) * errors[0]


def test_a_sample_far_from_all_others_is_no_scale() -> None:
    """One of 16, as a badly trained network throws off."""
    sde = scoresde.EDMSDE(sigma_max=1e5)
    x = sde.prior_sample((16, 8), generator=torch.Generator().manual_seed(1), dtype=F64)
    far = torch.ones(16, 1, dtype=F64)
    far[3] = 1e4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = solve(sde, scaled(1.0, sde), far * x, method="auto", evaluations=5).x
    assert 300 < float(got.std()) < 1e4


def test_a_stepper_tells_it_once() -> None:
    sde = scoresde.EDMSDE(sigma_min=0.2, sigma_max=8000.0)
    score_fn = scaled(100.0, sde)
    x = sde.prior_sample((16, 8), generator=torch.Generator().manual_seed(1), dtype=F64)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        stepper = scoresde.Stepper(sde, "auto", x, evaluations=5)
        while not stepper.done:
            stepper.tell(score_fn(*stepper.ask()))
        assert stepper.solution.nfe.tolist() == [5] * 16
    assert [one.category for one in found] == [ScoreSDEWarning]


LARGE = scoresde.EDMSDE(sigma_min=0.2, sigma_max=8000.0)


def test_what_is_not_of_the_rule_is_not_told() -> None:
    for options in (
        {"evaluations": 30},
        {"evaluations": None, "rtol": 1e-3},
        {"grid": "log_snr"},
        {"grid": [8000.0, 100.0, 0.2], "evaluations": None},
        {"t_end": 100.0},  # where the noise is as large as the data
        {"callback": lambda info: info.step == 5},  # likewise
        {"x": 100 * CENTRES, "shape": None, "t_start": 0.2, "t_end": 8000.0},  # latents have no scale
    ):
        assert not warned(LARGE, scaled(100.0, LARGE), **options), options


def test_samples_that_show_no_scale() -> None:
    """One number, equal numbers, and a batch of which a sample failed."""
    sde = scoresde.EDMSDE()
    one = scoresde.targets.Gaussian(torch.zeros(1, dtype=F64), 1e-4 * torch.eye(1, dtype=F64)).score(sde)
    assert not warned(sde, lambda x, t: one(x, t), shape=(1, 1))
    assert not warned(sde, lambda x, t: -x / t[:, None] ** 2, x=torch.zeros(4, 8, dtype=F64), shape=None)
    exact = scaled(100.0, LARGE)

    def failing(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.where((torch.arange(len(x)) == 2)[:, None], torch.nan, exact(x, t))

    assert not warned(LARGE, failing, throw=False)


def test_a_network_that_errs_is_no_other_scale() -> None:
    """One that predicts no noise at all leaves that of the prior."""
    for name in ("VPSDE", "EDMSDE", "CosineVPSDE"):
        sde = PROCESSES[name]()
        untrained = scoresde.ScoreModel(lambda x, t: torch.zeros_like(x), sde, "noise")
        drawn = solve(sde, untrained, method="auto", evaluations=8, shape=(16, 8), dtype=F64, seed=0).x
        assert float(drawn.std()) > 31.6
        assert not warned(sde, untrained), name


@pytest.mark.parametrize("name", PROCESSES)
def test_no_false_alarms_on_stock_processes(name: str) -> None:
    sde = PROCESSES[name]()
    for scale in (0.1, 0.3, 1.0, 3.0):
        for steps in FEW:
            assert not warned(sde, scaled(scale, sde), evaluations=steps), (scale, steps)


@pytest.mark.cells(4)
@pytest.mark.parametrize("name", PRESETS)
def test_no_false_alarms_on_the_published_systems(name: str) -> None:
    made = None if PRESETS[name].process is None else PRESETS[name].process()
    sde = scoresde.EDMSDE() if made is None else made if isinstance(made, scoresde.AffineSDE) else made.sde()
    for steps in FEW:
        assert not warned(sde, scaled(0.5, sde), evaluations=steps)


@pytest.mark.cells(6)
@pytest.mark.parametrize("name", scoresde.zoo.names())
@pytest.mark.parametrize("sde", [None, *PROCESSES])
def test_no_false_alarms_on_shipped_networks(name: str, sde: str | None) -> None:
    """Declared, and as a function that declares nothing."""
    model = scoresde.load(name)
    process = model.sde if sde is None else model.process(PROCESSES[sde]())
    score = model.score(process)
    options: dict[str, Any] = {"shape": (1, *model.event_shape), "dtype": torch.float32}
    for steps in (5, 8):
        assert not warned(process, score, evaluations=steps, **options)
        assert not warned(process, lambda x, t: score(x, t), evaluations=steps, **options)


def test_no_single_pair_is_much_better_on_the_measured_networks() -> None:
    rules = json.loads((RESULTS / "few_rules.json").read_text())["results"]
    for budget in map(str, BUDGETS):
        assert rules[budget]["auto"]["mean"] < 1.1 * rules[budget]["smallest mean"][0]["mean"]


@pytest.mark.parametrize(("steps", "rho"), [(5, 100.0), (14, 100.0), (15, 300.0), (29, 300.0)])
def test_where_few_evaluations_begin(steps: int, rho: float) -> None:
    """Where noise is so many times as large as the data."""
    sde, seen = scoresde.EDMSDE(sigma_max=3000.0), []

    def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(float(t[0]))
        return -x / (1 + t[:, None] ** 2)

    solve(sde, score, shape=(1, 2), seed=0, method="auto", evaluations=steps)
    assert seen[0] == pytest.approx(rho, rel=1e-6)
