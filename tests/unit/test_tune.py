"""`tune`: the choice of a method and a grid, its record, and ``method=`` of what was fitted."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import solve, tune
from scoresde.core.errors import CorruptCheckpointError
from scoresde.grids import VPTime
from scoresde.tuning import FittedGrid, Tuned
from scoresde.tuning.objectives import EndPoints
from tests.unit.refusals import assert_refused
from tests.unit.strategies import between

F64 = torch.float64
SDE, FAR = scoresde.VPSDE(), scoresde.VPSDE(beta_min=1e-6, beta_max=32.0)  # it goes beyond sigma/alpha = 300
TARGET = scoresde.targets.Gaussian(torch.zeros(3, dtype=F64), torch.tensor([1e-3, 0.1, 1.0], dtype=F64))
RING = scoresde.targets.GaussianMixture(
    torch.ones(4, dtype=F64), torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=F64), scales=0.1
)


def states(sde: Any, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return sde.prior_sample(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def exact_ends(target: Any, sde: Any, x: Tensor) -> Tensor:
    return solve(sde, target.score(sde), x, method="dop853", rtol=1e-9, atol=1e-10).x


def errors(target: Any, sde: Any, x: Tensor, exact: Tensor, **options: Any) -> Tensor:
    """The error of the end of each state."""
    return (solve(sde, target.score(sde), x, **options).x - exact).square().mean(1).sqrt()


@pytest.mark.cells(2)
@pytest.mark.parametrize("target", [TARGET, RING], ids=["gaussian", "ring"])
@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize("reference", [None, 40])
def test_the_choice_is_among_the_best_on_other_samples(target: Any, steps: int, reference: int | None) -> None:
    tuned = tune(SDE, target.score(SDE), steps, dtype=F64, reference=reference)
    candidates = [
        ("dpm_2m", {"grid": "vp_quadratic"}),
        ("dpm_2m", {"grid": "log_snr"}),
        ("dpmpp_2m", {"grid": "log_snr"}),
        ("unipc2", {"grid": "log_snr"}),
        ("ipndm", {"grid": VPTime(0.3, 0.25)}),
    ]
    x = states(SDE, (64, *target.score(SDE).event_shape), seed=9)
    exact = exact_ends(target, SDE, x)
    others = [errors(target, SDE, x, exact, method=m, steps=steps, **options).median() for m, options in candidates]
    assert errors(target, SDE, x, exact, method=tuned).median() < 1.5 * min(others)


def test_evaluations_are_those_that_were_asked_for() -> None:
    tuned = tune(SDE, RING.score(SDE), 7, dtype=F64)
    solution = solve(SDE, RING.score(SDE), method=tuned, shape=(4, 2), seed=1)
    assert solution.evaluations == tuned.evaluations == 7
    assert tuned.cost.pilots <= 50 * 7 and tuned.cost.calls == tuned.cost.pilots
    with pytest.raises(scoresde.InvalidArgumentError, match=r"`method` brings its options; leave 'order' out"):
        solve(SDE, RING.score(SDE), method=tuned, shape=(2, 2), order=2)
    assert (tuned.ranking[0].method, tuned.ranking[0].behind) == (tuned.method, 1.0)
    assert [row.behind for row in tuned.ranking] == sorted(row.behind for row in tuned.ranking)
    # none is measured twice: two of the same would tie with each other
    assert len({(row.method, row.rms, row.median) for row in tuned.ranking}) == len(tuned.ranking)
    tuned = tune(SDE, RING.score(SDE), 5, reference=40, dtype=F64)
    # 17 and what ``auto`` takes; two are tried from a lower start, too; the reference; and five levels
    assert tuned.cost.pilots <= (18 + 2) * 5 + 40 + 5
    assert tune(FAR, RING.score(FAR), 5, dtype=F64).cost.pilots <= 50 * 5


def test_candidates_of_the_caller() -> None:
    pairs = [("ddim", "karras"), (scoresde.solvers.UniPC(order=2), None), ("dpm_2m", VPTime(2.0, 0.5))]
    tuned = tune(SDE, RING.score(SDE), 6, candidates=pairs, dtype=F64)
    assert {row.grid for row in tuned.ranking} == {"karras", "default", "VPTime(scale=2.0, power=0.5)"}
    assert math.isnan(tuned.default.median)  # auto is not among them


def test_it_is_a_function_of_its_seed() -> None:
    one, again, other = (tune(SDE, RING.score(SDE), 5, seed=seed) for seed in (0, 0, 1))
    assert one == again and one.ranking != other.ranking


@pytest.mark.parametrize("sde", [scoresde.FlowSDE(t_min=0.0, t_max=1.0), scoresde.VPSDE(t_min=0.0)])
def test_ends_without_noise_and_without_signal(sde: Any) -> None:
    tuned = tune(sde, RING.score(sde), 8, dtype=F64)
    assert bool(torch.isfinite(solve(sde, RING.score(sde), states(sde, (20, 2)), method=tuned).x).all())


def test_samples_that_run_away_count_where_they_decide_the_rms() -> None:
    """A candidate with smaller logarithms and one sample that ends elsewhere comes after one without."""
    exact, even = torch.zeros(16, 2, dtype=F64), torch.full((16, 2), 0.02, dtype=F64)
    away = torch.full((16, 2), 0.01, dtype=F64)
    away[0] = 1.0
    compared = EndPoints([even, away], exact)
    assert compared.scores[0] < compared.scores[1]
    behind, _ = compared.behind(1, 0)
    rms = math.sqrt((15 * 0.01**2 + 1) / 16)
    assert behind == pytest.approx(0.5 ** (15 / 16) * 50 ** (1 / 16) * (rms / (1.5 * 0.02)) ** 3)
    behind = torch.full((16, 2), 0.05, dtype=F64)  # in the mean, by more than 1.5, which no single sample outweighs
    compared = EndPoints([behind, away], exact)
    assert compared.scores[1] < compared.scores[0] < math.inf and compared.behind(0, 1)[0] > 1
    away[0] = 0.05  # within 1.5 times the RMS of the other
    assert EndPoints([even, away], exact).behind(1, 0)[0] == pytest.approx(0.5 ** (15 / 16) * 2.5 ** (1 / 16))


def test_failing_candidates_come_last() -> None:
    """A score that overflows below a level that only some grids reach before the end."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        bad = ((t < 0.2) & (t > 0.1))[:, None]
        return torch.where(bad, torch.inf, RING.score(SDE)(x, t))

    functions = [("ddim", between(0.15)), ("ddim", between(0.5))]
    tuned = tune(SDE, score, 2, candidates=functions, shape=(4, 2), dtype=F64, reference=torch.zeros(4, 2, dtype=F64))
    assert [row.grid for row in tuned.ranking] == ["at 0.5", "at 0.15"]
    assert math.isinf(tuned.ranking[1].behind) and math.isinf(tuned.ranking[1].median)


def test_the_record_comes_back(tmp_path: Path) -> None:
    tuned = tune(SDE, RING.score(SDE), 5, dtype=F64)
    tuned.save(tmp_path / "tuned.json")
    again = FittedGrid.load(tmp_path / "tuned.json")
    assert isinstance(again, Tuned) and again == tuned
    (tmp_path / "rows.json").write_text((tmp_path / "tuned.json").read_text().replace('"behind"', '"before"'))
    with pytest.raises(CorruptCheckpointError):
        FittedGrid.load(tmp_path / "rows.json")
    with pytest.raises(CorruptCheckpointError, match="positive"):
        FittedGrid.of({**tuned.fields(), "evaluations": -3}, "x.json")


class TestBegunAsNoise:
    """A process that goes beyond sigma/alpha = 300."""

    SDE = FAR
    PAIRS = (("dpm_2m", "vp_quadratic"), ("ddim", None))

    def test_a_state_at_the_start_is_scaled(self) -> None:
        tuned = tune(self.SDE, RING.score(self.SDE), 6, dtype=F64, candidates=self.PAIRS)
        given = states(self.SDE, (3, 2))
        here, there = self.SDE.node(self.SDE.t_max), self.SDE.node(tuned.times[0])
        assert tuned.from_noise and there.sigma / there.alpha == pytest.approx(300)
        x = given * math.hypot(there.alpha, there.sigma) / math.hypot(here.alpha, here.sigma)
        solver = scoresde.solvers.from_config(tuned.method)
        wanted = solve(self.SDE, RING.score(self.SDE), x, method=solver, grid=torch.tensor(tuned.times, dtype=F64)).x
        torch.testing.assert_close(solve(self.SDE, RING.score(self.SDE), given, method=tuned).x, wanted)
        drawn = solve(self.SDE, RING.score(self.SDE), method=tuned, shape=(3, 2), seeds=range(3)).x
        assert drawn.shape == (3, 2) and bool(drawn.isfinite().all())
        for arguments in ({"t_start": 1.0}, {"t_end": 0.1}, {"steps": 6}):
            with pytest.raises(scoresde.InvalidArgumentError, match="follows from `method`"):
                solve(self.SDE, RING.score(self.SDE), given, method=tuned, **arguments)

    def test_many_evaluations_begin_at_the_start(self) -> None:
        assert not tune(self.SDE, RING.score(self.SDE), 30, dtype=F64, candidates=self.PAIRS[1:]).from_noise


def test_a_fitted_grid_as_the_method() -> None:
    """It is its method on it; what it sets is not given, and another process is refused."""
    record = scoresde.fit_grid(SDE, TARGET.score(SDE), 4, "dpm_2m", pilot=4, iterations=0, starts="quadratic")
    x = states(SDE, (3, 3))
    here = solve(SDE, TARGET.score(SDE), x, method=record)
    there = solve(SDE, TARGET.score(SDE), x, method="dpm_2m", grid=record)
    assert torch.equal(here.x, there.x) and here.evaluations == 4
    with pytest.raises(scoresde.InvalidArgumentError, match="`grid` follows from `method`"):
        solve(SDE, TARGET.score(SDE), x, method=record, grid="karras")
    with pytest.raises(scoresde.InvalidArgumentError, match="without a method"):
        solve(SDE, TARGET.score(SDE), x, method=scoresde.grids.Grid((1.0, 0.5, 0.1)))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"pilot": 1}, "pilot"),
    ({"candidates": []}, "candidates"),
    ({"candidates": ["ddim"]}, r"candidates\[0\]"),
    ({"candidates": [("pc", None)]}, "draws noise"),
    ({"candidates": [("rk45", None)]}, "chooses its own steps"),
    ({"candidates": [("rk4", None)], "evaluations": 3}, "No candidate"),
    ({"reference": torch.zeros(3, 2)}, "reference"),
    ({"reference": torch.full((16, 2), torch.nan), "evaluations": 2}, r"`reference` has NaN .* 16 of 16 samples"),
    ({"t_start": 0.5}, "`x` is missing"),
    ({"t_end": 1.0}, "nothing to fit"),
    ({"x": torch.zeros(1, 2)}, "at least 2"),
]


def test_refusals() -> None:
    calls = [(partial(tune, SDE, RING.score(SDE), **{"evaluations": 5} | given), message) for given, message in REFUSED]
    assert_refused(calls)
    with pytest.raises(scoresde.NonFiniteError, match=r"NaN or infinite .*check_score"):
        tune(SDE, lambda x, t: torch.full_like(x, torch.nan), 4, shape=(4, 2))


FLOW = scoresde.FlowSDE(t_max=1.0)


@pytest.fixture(scope="module")
def tuned() -> Tuned:
    return tune(FLOW, RING.score(FLOW), 6, dtype=F64)


@pytest.fixture(scope="module")
def grid() -> FittedGrid:
    options = {"pilot": 4, "iterations": 0, "t_start": None, "starts": "time"}
    return scoresde.fit_grid(FLOW, RING.score(FLOW), 4, "dpm_2m", **options)


class TestOtherEntrances:
    """What goes from noise to data takes a record; what goes the other way, or has a grid already, says so."""

    Z = states(FLOW, (3, 2))

    def test_decode(self, tuned: Tuned, grid: FittedGrid) -> None:
        score_fn = RING.score(FLOW)
        for record in (tuned, grid):
            wanted = solve(FLOW, score_fn, self.Z, method=record).x
            assert torch.equal(scoresde.decode(FLOW, score_fn, self.Z, method=record).x, wanted)
            cooler = scoresde.decode(FLOW, score_fn, self.Z, method=record, temperature=0.5).x
            assert torch.equal(cooler, solve(FLOW, score_fn, 0.5 * self.Z, method=record).x)
        with pytest.raises(scoresde.InvalidArgumentError, match="`steps` follows from `method`"):
            scoresde.decode(FLOW, score_fn, self.Z, method=grid, steps=3)
        with pytest.raises(scoresde.InvalidArgumentError, match="must be deterministic, but 'ancestral' draws noise"):
            scoresde.decode(FLOW, score_fn, self.Z, method=replace(grid, method="Ancestral()"))

    def test_all_others_need_another_method(self, tuned: Tuned) -> None:
        score_fn: Any = RING.score(FLOW)
        method: Any = tuned
        for function in (scoresde.encode, scoresde.reconstruct):
            with pytest.raises(scoresde.InvalidArgumentError, match=r"a Tuned, which goes from noise .* take 'adams'"):
                function(FLOW, score_fn, self.Z, method=method)
        for call in (
            lambda: scoresde.log_likelihood(FLOW, score_fn, self.Z, method=method),
            lambda: scoresde.simulate(FLOW, self.Z, method=method),
            lambda: scoresde.fit_grid(FLOW, score_fn, 4, method),
        ):
            with pytest.raises(scoresde.InvalidTypeError, match=r"got a Tuned, which .* solve, decode, Stepper"):
                call()

    def test_a_saved_model_carries_it_and_samples_with_it(self, tmp_path: Path) -> None:
        model = scoresde.load("digits")
        tuned = tune(model.sde, model.score(label=3), 3, pilot=2)
        drawn = model.sample(2, label=3, method=tuned, seed=1)
        wanted = solve(model.sde, model.score(label=3), method=tuned, shape=(2, 1, 8, 8), seed=1)
        assert torch.equal(drawn.x, wanted.x) and drawn.evaluations == 3
        scoresde.save(replace(model, config=replace(model.config, grids=(tuned,))), tmp_path / "model")
        assert scoresde.load(tmp_path / "model").config.grids == (tuned,)

    def test_another_process_is_told_how_to_make_another(self, tuned: Tuned, grid: FittedGrid) -> None:
        sde = scoresde.VPSDE(beta_max=10.0)
        for record, maker in (
            (tuned, r"`method` .* tune\(sde, score_fn, 6\)"),
            (grid, r"fit_grid\(sde, score_fn, 4\)"),
        ):
            with pytest.raises(scoresde.InvalidArgumentError, match=maker):
                solve(sde, RING.score(sde), self.Z, method=record)


@pytest.mark.parametrize("steps", [5, 12])
def test_the_baseline_is_what_auto_does(steps: int) -> None:
    """From the level where it begins: its error on the pilot is that of a solve by ``method="auto"``."""
    x = states(SDE, (16, 2))
    exact = exact_ends(RING, SDE, x)
    tuned = tune(SDE, RING.score(SDE), steps, x=x, reference=exact)
    of_auto = errors(RING, SDE, x, exact, method="auto", evaluations=steps)
    assert tuned.default.median == pytest.approx(float(of_auto.median()))
    assert tuned.default.rms == pytest.approx(float(of_auto.square().mean().sqrt()))


def test_a_record_from_a_given_start_is_used_on_another_process_from_there() -> None:
    """And on its own process it is itself: the states are not noise, and are not scaled."""
    edm, given = scoresde.EDMSDE(), 0.5 * torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    target = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([0.2, 1.0], dtype=F64))
    score, there = target.score(edm), scoresde.VESDE(sigma_max=80.0)
    makers: list[Callable[..., Any]] = [tune, partial(scoresde.fit_grid, iterations=0, starts="log_snr")]
    for make in makers:
        record = make(edm, score, 6, x=given, t_start=2.0, t_end=0.05)
        assert record.on(edm) is record and record.from_given and not record.from_noise
        moved = record.on(there)
        how = [{"method": r} if isinstance(r, Tuned) else {"method": "unipc2", "grid": r} for r in (record, moved)]
        mine = solve(edm, score, given, **how[0]).x
        theirs = solve(there, target.score(there), given, **how[1]).x
        torch.testing.assert_close(theirs, mine, rtol=1e-6, atol=1e-8)
        assert FittedGrid.of(record.fields(), "it") == record
        assert not make(edm, score, 6, dtype=F64).from_given


def test_a_candidate_that_stalls_is_not_chosen_of_a_short_list() -> None:
    """It changes little with twice as many evaluations, and is far from the exact ends."""
    sde, network = scoresde.EDMSDE(), scoresde.load("digits")
    tuned = tune(sde, network.score(sde, label=3), 8, candidates=[("ddim", "time"), ("ddim", "karras")], pilot=8)
    assert tuned.ranking[0].grid == "karras" and tuned.ranking[1].behind > 2


def test_a_scale_that_is_not_declared_is_measured() -> None:
    """The choice is that with the scale, and its errors; those of ``auto``, which does not measure, are larger."""
    exact = scoresde.targets.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([1e2, 1e4], dtype=F64)).score(FAR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known, measured = (tune(FAR, s, 8, shape=(16, 2), dtype=F64) for s in (exact, lambda x, t: exact(x, t)))
    assert measured.times == known.times and measured.fitted.median == pytest.approx(known.fitted.median)
    assert measured.data_scale == known.data_scale == 100 and measured.default.median > 5 * known.default.median
    x = states(FAR, (50, 2))
    ends = [solve(FAR, s, x, method=tuned).x for s, tuned in ((exact, known), (lambda x, t: exact(x, t), measured))]
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-9)


class TestLowerStarts:
    """From sigma/alpha = 100, where ``method="auto"`` begins, on a process that goes further."""

    SDE = FAR
    NAME = "from sigma/alpha = 100"

    def rough(self, above: float, error: float) -> Any:
        """A network of the noise that errs above a level, as badly trained ones do."""
        score = scoresde.scores.as_score(RING.score(self.SDE))

        def noise(x: Tensor, t: Tensor) -> Tensor:
            node = self.SDE.nodes(t.to(F64))
            found = -node.sigma[:, None] * score(x, t)
            wrong = ((node.sigma / node.alpha) > above)[:, None]
            return torch.where(wrong, found + error * torch.sin(3 * x), found)

        return scoresde.ScoreModel(noise, self.SDE, "noise", event_shape=(2,))

    @pytest.mark.filterwarnings("ignore:The network is unreliable at high noise")
    def test_one_that_is_clearly_better_is_taken_and_used_from_there(self) -> None:
        """Also where the network has no numbers above that level."""
        x = states(self.SDE, (16, 2), seed=1)
        exact = exact_ends(RING, self.SDE, x)
        tuned = tune(self.SDE, self.rough(150.0, 0.1), 5, x=x, reference=exact)
        assert self.NAME in tuned.ranking[0].grid and self.NAME in repr(tuned)
        node = self.SDE.node(tuned.times[0])
        assert tuned.from_noise and node.sigma / node.alpha == pytest.approx(100)
        assert [row.behind for row in tuned.ranking] == sorted(row.behind for row in tuned.ranking)
        pair = tuned.ranking[0].grid.removesuffix(f", {self.NAME}")
        assert pair in {row.grid for row in tuned.ranking[1:]}
        tuned = tune(self.SDE, self.rough(200.0, math.nan), 5, x=x, reference=exact)
        assert self.NAME in tuned.ranking[0].grid and math.isfinite(tuned.fitted.median)

    def test_one_is_ranked_only_where_it_is_clearly_better(self) -> None:
        for seed in range(2):
            ranking = tune(SDE, RING.score(SDE), 8, dtype=F64, seed=seed).ranking
            lower = [self.NAME in row.grid for row in ranking]
            assert lower == sorted(lower, reverse=True)  # they come first, or are not there
            for row in ranking[: sum(lower)]:
                assert ranking[sum(lower)].behind > row.behind

    def test_listed_candidates_more_evaluations_and_ends_above_have_none(self) -> None:
        score, t_end = self.rough(150.0, 0.03), float(self.SDE.time(-2 * math.log(150.0)))
        listed = [("dpm_2m", "vp_quadratic"), ("ddim", None), ("unipc2", None)]
        for tuned in (
            tune(self.SDE, score, 5, dtype=F64, candidates=listed),
            tune(self.SDE, score, 15, dtype=F64),
            tune(self.SDE, RING.score(self.SDE), 5, dtype=F64, t_end=t_end),
        ):
            assert not any("from sigma" in row.grid for row in tuned.ranking)


class TestScaleOfTheData:
    """Where it is declared and not near 1, levels are in its units, and a record begins as its pilot did."""

    SDE = scoresde.FlowSDE(t_max=0.9999)
    TARGET = scoresde.targets.GaussianMixture(
        torch.ones(4, dtype=F64), 0.01 * torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=F64), scales=0.001
    )

    def test_a_record_reproduces_its_errors(self) -> None:
        x, score = states(self.SDE, (16, 2)), self.TARGET.score(self.SDE)
        exact = exact_ends(self.TARGET, self.SDE, x)
        for make in (tune, partial(scoresde.fit_solver, iterations=3)):
            record: Any = make(self.SDE, score, 8, x=x, reference=exact)
            assert record.from_noise and record.data_scale == 0.01
            median = float(errors(self.TARGET, self.SDE, x, exact, method=record).median())
            if make is tune:
                assert median == pytest.approx(record.fitted.median, rel=1e-9)
            assert median < 4 * record.fitted.median
            assert FittedGrid.of(record.fields(), "it") == record
        with pytest.raises(CorruptCheckpointError):
            FittedGrid.of(record.fields() | {"data_scale": -1.0}, "it")

    def test_a_lower_start_is_named_in_its_units(self) -> None:
        rankings = [tune(self.SDE, self.TARGET.score(self.SDE), 6, dtype=F64, seed=seed).ranking for seed in range(2)]
        named = {row.grid.rpartition(" ")[2] for rows in rankings for row in rows if "from sigma" in row.grid}
        assert named == {"1"}


def test_numbers_too_large_to_be_meant_are_refused_at_once() -> None:
    target, sde = scoresde.targets.Gaussian(torch.zeros(2), 0.3), scoresde.VPSDE()
    with pytest.raises(scoresde.InvalidArgumentError, match="`evaluations` must be at most 1000"):
        scoresde.tune(sde, target.score(sde), 10**6)
