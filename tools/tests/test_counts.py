"""What a step asks of torch: the committed counts meet the limits, and methods are counted again."""

from __future__ import annotations

import json
from typing import Any

import pytest

import scoresde
from benchmarks import memory
from benchmarks._tables import load
from scoresde.solvers import make_solver
from tools import counts

COMMITTED: dict[str, Any] = load("counts")["results"]
# passes per step for a network of the method's own prediction; a conversion may take two more
PASSES = {
    "euler": (2, "noise"),
    "ddim": (2, "noise"),
    "dpmpp_2m": (4, "data"),
    "dpm_3m": (5, "noise"),
    "unipc2": (7, "data"),
    "heun": (6, "noise"),
    "euler_maruyama": (3, "noise"),
    "pc": (8, "score"),
}
FIXED = [m.name for m in scoresde.methods() if m.kind not in ("backend", "forward") and not m.adaptive]
DRAWN = {"sra1", "shark"}  # make the mean of the path of a draw of their own
STATE = 4 * 2 * 192  # bytes


def test_all_methods_are_counted() -> None:
    listed = {m.name for m in scoresde.methods() if m.kind not in ("backend", "forward")}
    assert set(COMMITTED["steps"]) == listed and set(COMMITTED["device"]) == set(FIXED)
    assert all(set(row) == set(counts.PREDICTIONS) for row in COMMITTED["steps"].values())


@pytest.mark.parametrize("method", PASSES)
def test_passes_over_the_state(method: str) -> None:
    most, own = PASSES[method]
    for prediction, count in COMMITTED["steps"][method].items():
        assert count["passes"] <= most + 2 * (prediction != own), prediction
        assert count["reductions"] <= 1 and count["reads"] <= 1


@pytest.mark.parametrize("method", FIXED)
def test_new_memory_is_that_of_draws_states_and_estimates(method: str) -> None:
    """A tensor for each draw, a state and an estimate for each evaluation, and the state where a step ends."""
    evaluations = {m.name: m.evaluations for m in scoresde.methods()}[method]
    for prediction, count in COMMITTED["steps"][method].items():
        if method not in DRAWN:
            most = count.get("draws", 0) + 2 * evaluations + 1
            assert count.get("bytes", 0) <= STATE * most, prediction


@pytest.mark.parametrize("method", FIXED)
def test_a_device_is_hardly_waited_for(method: str) -> None:
    use = COMMITTED["device"][method]
    assert use["reads"] <= 2 + counts.DEVICE_STEPS / 32 and use["float64"] == 0 and use["sent"] <= 1


def test_a_step_of_an_adaptive_method_waits_once() -> None:
    """A method that needs a number of its own waits for that too."""
    own = ("adams", "dpmpp_sde12")  # the order of the next step; whether the last step needs an evaluation
    rows = COMMITTED["adaptive on a device, per step"]
    assert set(rows) == {m.name for m in scoresde.methods() if m.adaptive and m.kind != "backend"}
    for method, use in rows.items():
        drawing = method in ("ggf", "dpmpp_sde12")  # the noise of samples is made on the device, in float64
        assert use["reads"] <= 1 + (method in own) and use["float64"] <= 80 * drawing, method
    assert dict(counts.adaptive_on_device()) == rows


@pytest.mark.parametrize("method", PASSES)
def test_they_are_counted_again(method: str) -> None:
    for prediction in ("noise", "bare"):
        assert counts.per_step(method, prediction) == COMMITTED["steps"][method][prediction]


@pytest.mark.parametrize("method", [m.name for m in scoresde.methods() if m.kind not in ("backend", "forward")])
def test_the_most_memory_is_the_declared_one(method: str) -> None:
    """Of adaptive methods, whose steps follow the state, it is not exceeded."""
    row = memory.METHODS[method]
    most = max(memory.peak(method, prediction) for prediction in memory.PREDICTIONS)
    assert most <= row.states if row.adaptive else most == row.states


def test_no_library_takes_less_memory() -> None:
    results = load("memory")["results"]
    own = {method: prediction for method, (_, prediction) in PASSES.items()}
    for method, loops in results["peers"].items():
        assert loops and results["ours"][method][own[method]] <= min(loops.values()), method


def test_what_densities_of_paths_cost() -> None:
    """Two passes, for the state before the step and for all that is added to it, where a step has one random state; one
    more for each that shares a draw with it. Nothing is read by the host."""
    rows = COMMITTED["paths"]
    stochastic = {m.name for m in scoresde.methods() if m.stochastic}
    assert set(rows) == {name for name in stochastic if make_solver(name, {}, ()).gaussian_step}
    several = {"seeds2": 2.5, "dpmpp_sde": 2.5, "seeds3": 3, "sra1": 3.5}
    for name, row in rows.items():
        assert row["passes"] == several.get(name, 2), name
        assert row["reductions"] == 1 and row["reads"] == 0 and row["kept"] == 0, name
    again = dict(counts.of_paths(("ancestral", "seeds2")))
    assert json.loads(json.dumps(again)) == {name: rows[name] for name in again} and len(again) == 2
