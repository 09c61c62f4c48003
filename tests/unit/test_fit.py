"""Fitted grids: gradients in the nodes, what a fit promises, its two modes, its file, and what it refuses."""

from __future__ import annotations

import functools
import math

import pytest
import torch

import scoresde
from scoresde import FittedGrid, fit_grid
from scoresde.core.errors import CorruptCheckpointError, InvalidArgumentError, InvalidTypeError, OutputError
from scoresde.solvers import UniPC
from tests.unit.refusals import assert_refused

F64 = torch.float64
SDE = scoresde.VPSDE()
TARGET = scoresde.targets.GaussianMixture(
    torch.ones(2), torch.tensor([[-1.0, 0.3], [1.0, 0.0]], dtype=F64), scales=torch.tensor([0.2, 0.3], dtype=F64)
)
SCORE = TARGET.score(SDE)
X = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
EXACT = scoresde.solve(SDE, SCORE, X, method="unipc3", steps=200).x
GRID = scoresde.grids.log_snr(SDE, 1.0, 1e-3, 6)
FIXED = sorted({m.solver.name for m in scoresde.methods() if m.kind == "ode" and not m.adaptive and not m.stochastic})
OTHERS = {
    "ve": scoresde.VESDE(),
    "cosine": scoresde.CosineVPSDE(),
    "flow": scoresde.FlowSDE(t_min=1e-3, t_max=0.999),
}


def score_only(x, t):
    """The same score without `estimate`, so that the time reaches it as a tensor."""
    return SCORE(x, t)


def end(grid, method, score=SCORE, sde=SDE, x=X, differentiable=False, **options):
    return scoresde.solve(sde, score, x, method=method, grid=grid, differentiable=differentiable, **options).x


def slope(grid, *args, **options):
    grid = grid.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(end(grid, *args, differentiable=True, **options).square().sum(), grid)
    return gradient


def difference(i, step, grid, *args, **options):
    value = lambda g: float(end(g, *args, **options).square().sum())  # noqa: E731
    up, down = grid.clone(), grid.clone()
    up[i] += step
    down[i] -= step
    return (value(up) - value(down)) / (2 * step)


class TestGradient:
    @pytest.mark.parametrize("method", FIXED)
    def test_equals_the_difference_for_every_method(self, method):
        moving = GRID.clone().requires_grad_(True)
        reached = end(moving, method, differentiable=True)
        assert torch.allclose(reached.detach(), end(GRID, method), rtol=1e-10, atol=1e-12)
        (got,) = torch.autograd.grad(reached.square().sum(), moving)
        assert float(got[3]) == pytest.approx(difference(3, 1e-6, GRID, method), rel=1e-4, abs=1e-5)

    def test_of_a_score_that_is_told_the_time(self):
        for method in ("euler", "ddim", "unipc3", "tab2", "dpm_2s"):
            assert torch.allclose(slope(GRID, method, score_only), slope(GRID, method), rtol=1e-8), method

    @pytest.mark.parametrize("process", OTHERS)
    def test_on_other_processes(self, process):
        sde = OTHERS[process]
        grid = scoresde.grids.time(sde, 0.9, 0.1, 5)
        score = TARGET.score(sde)
        for method in ("unipc2", "tab3"):
            got = slope(grid, method, score, sde=sde)
            assert float(got[2]) == pytest.approx(difference(2, 1e-6, grid, method, score, sde=sde), rel=1e-4, abs=1e-4)

    def test_of_the_last_node_and_of_other_grids(self):
        grid = scoresde.grids.log_snr(SDE, 1.0, 0.05, 6)
        assert float(slope(grid, "unipc2")[-1]) == pytest.approx(difference(6, 1e-6, grid, "unipc2"), rel=1e-4)
        assert not end(GRID.clone().requires_grad_(True), "unipc2").requires_grad
        assert slope(GRID.float(), "ddim").dtype == torch.float32
        close = torch.tensor([1.0, 0.6, 0.6 - 1e-7, 0.3, 0.001], dtype=F64)
        moving = end(close.clone().requires_grad_(True), "unipc2", differentiable=True)
        assert torch.allclose(moving.detach(), end(close, "unipc2"), atol=1e-10)

    def test_start_at_alpha_zero_is_the_ddim_step(self):
        sde = scoresde.FlowSDE(t_min=0.0, t_max=1.0)
        grid = torch.tensor([1.0, 0.7, 0.4, 0.1], dtype=F64)
        score = TARGET.score(sde)
        assert torch.isfinite(slope(grid, "unipc2", score, sde=sde)[1:]).all()
        moving = end(grid.clone().requires_grad_(True), "unipc2", score, sde=sde, differentiable=True)
        assert torch.allclose(moving.detach(), end(grid, "unipc2", score, sde=sde), atol=1e-12)

    def test_saved_states_callback_and_failure(self):
        grid = GRID.clone().requires_grad_(True)
        seen = []
        given = {"method": "unipc2", "grid": grid, "differentiable": True}
        solution = scoresde.solve(SDE, SCORE, X, save_at=[0.5], callback=seen.append, **given)
        assert [type(info.t) for info in seen] == [float] * 7
        assert solution.xs.shape == (1, *X.shape) and solution.t.tolist() == [1e-3] * len(X)
        broken = lambda x, t: torch.where((t < 0.5)[:, None] & (x[:, :1] > 0), math.nan, SCORE(x, t))  # noqa: E731
        with pytest.raises(scoresde.NonFiniteError, match="t=0"):
            scoresde.solve(SDE, broken, X, **given)
        left = scoresde.solve(SDE, broken, X, throw=False, **given)
        assert 0 < int(left.success.sum()) < len(X)


class TestFit:
    def test_gains_on_the_held_out_half_and_on_other_noise(self):
        target = scoresde.targets.Gaussian(torch.zeros(4, dtype=F64), torch.logspace(-3, 0, 4, dtype=F64))
        score = target.score(SDE)
        x = torch.randn(48, 4, generator=torch.Generator().manual_seed(1), dtype=F64)
        exact = target.flow_map(x, SDE, 1.0, 1e-3)
        grid = fit_grid(SDE, score, 6, x=x[:16], reference=exact[:16], iterations=24, starts="quadratic")
        assert grid.times[0] == 1.0 and grid.times[-1] == 1e-3 and grid.steps == 6
        error = lambda g, rows: (end(g, "unipc2", score, x=x[rows]) - exact[rows]).square().mean(1).sqrt()  # noqa: E731
        held, other = slice(8, 16), slice(16, None)
        assert grid.fitted.median == pytest.approx(float(error(grid, held).median()))
        assert grid.default.rms == pytest.approx(float(error(GRID, held).square().mean().sqrt()))
        for rows in (held, other):
            assert error(grid, rows).median() < 0.2 * error(GRID, rows).median()

    @pytest.mark.parametrize("start", ["karras", "quick", "perturbed", GRID, scoresde.Grid(tuple(GRID.tolist()))])
    def test_is_no_worse_than_its_start(self, start):
        objective = lambda x, exact: (x - exact).square().mean(1).log()  # noqa: E731
        before, after = (
            fit_grid(SDE, SCORE, 6, x=X, reference=EXACT, starts=[start], iterations=n, objective=objective)
            for n in (0, 3)
        )
        loss = lambda g: float(objective(end(g, "unipc2", x=X[8:]), EXACT[8:]).mean())  # noqa: E731
        assert loss(after) <= loss(before)

    def test_quick_needs_noise_at_the_end(self):
        sde = scoresde.FlowSDE(t_min=0.0, t_max=0.95)
        model = scoresde.ScoreModel(lambda x, t: 0.5 * x, sde, "data")
        given = {"shape": (8, 2), "iterations": 0}
        with pytest.raises(scoresde.InvalidArgumentError, match=r"starts='quick'.*no noise is left"):
            fit_grid(sde, model, 4, "ddim", starts="quick", **given)
        assert fit_grid(sde, model, 4, "ddim", **given).times[-1] == 0

    def test_quick_grid_spends_steps_where_the_adaptive_method_does(self):
        narrow = scoresde.targets.Gaussian(torch.zeros(1, dtype=F64), 1e-2).score(SDE)
        wide = scoresde.targets.Gaussian(torch.zeros(1, dtype=F64), 1.0 + 1e-9).score(SDE)
        options = {"shape": (8, 1), "starts": "quick", "iterations": 0, "dtype": F64}
        first, second = (fit_grid(SDE, score, 8, **options) for score in (narrow, wide))
        gaps = torch.tensor(first.log_snr).diff()
        turn = math.log(float(SDE.alpha(0.2)) ** 2 / 1e-2)  # near the log-SNR where the data's scale is
        middle = int((torch.tensor(first.log_snr) < turn).sum()) - 1
        assert gaps[min(middle, 7)] < gaps.max()
        assert first.times != second.times

    def test_is_the_same_for_a_seed(self):
        options = {"pilot": 8, "starts": "cosine", "iterations": 3, "reference": 20, "dtype": F64}
        first, again, other = (fit_grid(SDE, SCORE, 4, seed=s, **options) for s in (1, 1, 2))
        assert first == again != other

    def test_leaves_the_global_generator_and_the_parameters_alone(self):
        net = torch.nn.Linear(2, 2).double()
        before = torch.get_rng_state()
        fit_grid(SDE, lambda x, t: -x + 0.1 * net(x), 4, "ddim", x=X, reference=EXACT, iterations=3)
        assert torch.equal(torch.get_rng_state(), before) and net.weight.grad is None

    def test_without_gradient_it_gains_too(self):
        blind = lambda x, t: SCORE(x.detach(), t.detach()).detach()  # noqa: E731
        given = {"x": X, "reference": EXACT, "iterations": 9, "starts": "cosine"}
        with pytest.raises(InvalidArgumentError, match="gradient=False"):
            fit_grid(SDE, blind, 4, **given)
        grid = fit_grid(SDE, blind, 4, gradient=False, **given)
        same = fit_grid(SDE, SCORE, 4, **given)
        assert grid.cost.gradients == 0
        assert grid.fitted.median < 0.5 * grid.default.median
        assert grid.fitted.median < 1.5 * same.fitted.median

    @pytest.mark.parametrize("method", ["ddim", "ipndm", "dpm_2s", UniPC(order=3, start_up="published")])
    def test_other_methods_and_objectives(self, method):
        for name, objective in (("median", "log"), ("rms", "rms")):
            given = {"x": X, "reference": EXACT, "iterations": 6, "starts": "cosine", "objective": objective}
            grid = fit_grid(SDE, SCORE, 5, method, **given)
            assert getattr(grid.fitted, name) < getattr(grid.default, name), objective

    @pytest.mark.parametrize("process", OTHERS)
    def test_other_processes(self, process):
        sde = OTHERS[process]
        grid = fit_grid(sde, TARGET.score(sde), 5, pilot=8, iterations=3, starts="time", dtype=F64)
        assert grid.fitted.median <= grid.default.median or grid.fitted.rms <= grid.default.rms
        level = float((-0.5 * sde.log_snr(grid.times[0])).exp())
        assert level == pytest.approx(300) if grid.from_noise else grid.times[0] == sde.t_max
        assert grid.from_noise == (process == "flow") and grid.times[-1] == sde.t_min

    def test_infinite_log_snr_is_fitted_in_time(self):
        sde = scoresde.FlowSDE(t_min=0.0, t_max=1.0)
        x = sde.prior_sample((16, 2), generator=torch.Generator().manual_seed(0), dtype=F64)
        grid = fit_grid(sde, TARGET.score(sde), 5, x=x, t_start=1.0, iterations=9, starts="time")
        assert (grid.times[0], grid.times[-1]) == (1.0, 0.0) and grid.fitted.median < grid.default.median

    def test_encoding(self):
        data = TARGET.sample(16, SDE, 1e-3, torch.Generator().manual_seed(0))
        grid = fit_grid(SDE, SCORE, 5, x=data, t_start=1e-3, t_end=1.0, iterations=6)
        assert grid.times[0] == 1e-3 and grid.times[-1] == 1.0 and grid.fitted.median < grid.default.median


class TestCost:
    def test_every_call_is_counted_and_checkpoints_change_nothing(self):
        times = []
        for options in ({"checkpoint": True}, {"checkpoint": False}, {"gradient": False}):
            calls = []
            score = lambda x, t: calls.append(t) or SCORE(x, t)  # noqa: B023, E731
            grid = fit_grid(SDE, score, 4, x=X, reference=EXACT, iterations=3, starts="quick", **options)
            assert grid.cost.calls == len(calls) and grid.cost.pilots <= 3 * len(calls)
            times.append(grid.times)
        assert times[0] == pytest.approx(times[1], rel=1e-6)

    def test_checkpointing_calls_again_instead_of_keeping(self):
        kept = {}
        for again in (True, False):
            stored = calls = 0
            net = torch.nn.Sequential(torch.nn.Linear(2, 256), torch.nn.Tanh(), torch.nn.Linear(256, 2)).double()
            net.requires_grad_(False)

            def pack(tensor):
                nonlocal stored
                stored += tensor.numel()
                return tensor

            def deep(x, t, net=net):
                nonlocal calls
                calls += 1
                return -x + 0.1 * net(x)

            given = {"x": X, "reference": EXACT, "iterations": 3, "starts": "log_snr", "checkpoint": again}
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                grid = fit_grid(SDE, deep, 4, "ddim", **given)
            kept[again] = stored, grid.cost
            assert calls == grid.cost.calls
        assert kept[True][1].gradients == kept[False][1].gradients > 0
        assert kept[True][0] < 0.25 * kept[False][0]  # not the network's 256 hidden values per sample
        assert kept[True][1].calls == kept[False][1].calls + kept[True][1].gradients


@pytest.fixture(scope="module")
def grid():
    return fit_grid(SDE, SCORE, 4, x=X, reference=EXACT, iterations=3)


class TestFile:
    def test_round_trip(self, grid, tmp_path):
        grid.save(tmp_path / "grid.json")
        again = scoresde.FittedGrid.load(tmp_path / "grid.json")
        assert again == grid
        assert torch.equal(end(again, "unipc2"), end(grid, "unipc2"))
        assert grid.process == repr(SDE)
        with pytest.raises(OutputError):
            grid.save(tmp_path / "no" / "grid.json")

    def test_refuses_what_is_no_grid(self, grid, tmp_path):
        path = tmp_path / "grid.json"
        for content in (b"", b"[]", b"\x80\x02", b"{"):
            path.write_bytes(content)
            with pytest.raises(CorruptCheckpointError, match="not a fitted grid"):
                scoresde.FittedGrid.load(path)
        good = grid.fields()
        for change in (
            {"times": "54321", "log_snr": "12345"},
            {"times": [True, 0.5], "log_snr": [0.0, 1.0]},
            {"times": [1.0]},
            {"log_snr": [0.0]},
            {"method": 5},
            {"fitted": {"rms": "a", "median": 0.1}},
            {"other": 1},
        ):
            with pytest.raises(CorruptCheckpointError, match="not a fitted grid"):
                FittedGrid.of({**good, **change}, "it")

    def test_a_grid_of_a_process_without_an_end(self, tmp_path):
        flow = scoresde.FlowSDE(t_max=1.0)
        x = flow.prior_sample((4, 2), generator=torch.Generator().manual_seed(0))
        grid = fit_grid(flow, TARGET.score(flow), 3, "ddim", x=x, t_start=1.0, iterations=0)
        assert math.isinf(grid.log_snr[0])
        grid.save(tmp_path / "g.json")
        assert "Infinity" not in (tmp_path / "g.json").read_text()
        assert FittedGrid.load(tmp_path / "g.json") == grid and grid.fits(flow)

    def test_a_grid_made_by_hand_without_its_process(self):
        assert not FittedGrid(()).fits(SDE)
        with pytest.raises(scoresde.InvalidArgumentError, match="fitted"):
            scoresde.solve(SDE, SCORE, X, method="ddim", grid=FittedGrid((1.0, 0.5, 0.001)))


class TestRefusals:
    def test_bad_arguments(self, grid):
        given = {"steps": 4, "x": X, "reference": EXACT, "iterations": 3, "starts": "time"}
        cases = [
            (functools.partial(fit_grid, SDE, SCORE, **given | changes), match)
            for changes, match in (
                ({"steps": 1}, "steps"),
                ({"method": "rk45"}, "chooses its own steps"),
                ({"method": "ancestral"}, "draws noise"),
                ({"method": "auto"}, "rule"),
                ({"objective": "best"}, "best"),
                ({"pilot": 1, "x": None, "shape": None}, "pilot"),
                ({"x": X[:1]}, "at least 2"),
                ({"starts": [torch.tensor([1.0, 0.5, 0.001])]}, "5 times"),
                ({"reference": X[:3]}, "shape of the pilot"),
                ({"t_end": 1.0}, "nothing to fit"),
                ({"x": None, "t_start": 0.5}, "`x` is missing"),
                ({"objective": lambda x, e: x.mean()}, "one loss per sample"),
            )
        ]
        cases.append((lambda: fit_grid(SDE, score_only, 4), "shape"))
        for sde in (scoresde.VESDE(), scoresde.VPSDE(beta_max=10.0), scoresde.VPSDE(t_min=0.01)):
            use = functools.partial(scoresde.solve, sde, TARGET.score(sde), X, method="unipc2", grid=grid)
            cases.append((use, "was fitted for VPSDE"))
        assert_refused(cases)


DROPPING = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout()).train()
SOUND = torch.nn.Linear(2, 2).train()  # whose mode does not matter


def through_a_name(x, t):
    """A network that is a variable of this module."""
    return DROPPING(x)


class Holder:
    """An object with a method, and with another attribute."""

    def __init__(self, net, other=None):
        self.net, self.other = net, other

    def score(self, x, t):
        return self.net(x)


def test_the_noise_of_a_network_in_training_is_refused():
    """A fit would take it for errors; a layer that does not ask for the mode, or is not called, is let through."""
    model = scoresde.ScoreModel(lambda x, t: DROPPING(x), SDE, "noise", event_shape=(2,))
    parts = {
        "inside a model": model,
        "by name": through_a_name,
        "combined": scoresde.guidance.classifier_free(SCORE, model, scale=2.0),
        "clipped": scoresde.scores.Clip(through_a_name, -1.0, 1.0, sde=SDE),
        "method": Holder(DROPPING).score,
    }
    gaussian = scoresde.targets.Gaussian(torch.zeros(2), torch.ones(2))
    for name, part in parts.items():
        for make in (scoresde.tune, fit_grid, scoresde.fit_solver, scoresde.fit_start):
            given = (gaussian,) if make is scoresde.fit_start else (4,)
            with pytest.raises(InvalidArgumentError) as caught:
                make(SDE, part, *given, x=X.float())
            assert "`score_fn` draws random numbers" in str(caught.value), name
    for score in (lambda x, t: SOUND(x), Holder(SOUND, other=DROPPING).score):
        model = scoresde.ScoreModel(score, SDE, "noise", event_shape=(2,))
        assert scoresde.tune(SDE, model, 2, pilot=2, reference=4, candidates=[("ddim", None)]).evaluations == 2


class TestWhatAFitIsGiven:
    def test_pilots_gradients_and_ends(self):
        for make in (fit_grid, scoresde.fit_solver):
            with pytest.raises(InvalidArgumentError, match=r"`pilot` is 4, but there are 16 samples; leave it out"):
                make(SDE, SCORE, 4, pilot=4, x=X)
            with torch.inference_mode(), pytest.raises(InvalidArgumentError, match=r"inference_mode\(\) forbids"):
                make(SDE, SCORE, 4, x=X)
        flow = scoresde.FlowSDE(t_min=0.0)
        with pytest.raises(InvalidArgumentError, match=r"it is not at t_end=0; pass another end"):
            scoresde.fit_solver(flow, TARGET.score(flow), 4)

    def test_a_record_follows_its_own_steps_and_has_no_density_beside_it(self):
        tuned = scoresde.tune(SDE, SCORE, 2, x=X, reference=4)
        with pytest.raises(InvalidArgumentError, match="`rtol` follows from `method`"):
            scoresde.solve(SDE, SCORE, X, method=tuned, rtol=1e-3)
        with pytest.raises(InvalidTypeError, match=r"'adams' or an adaptive pair .* a Tuned, which has fixed steps"):
            scoresde.solve(SDE, SCORE, X, method=tuned, log_prob=True)
