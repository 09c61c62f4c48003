"""Samples that are not finite are found in the right step, on the host and on a device that is not waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.core import loop as _watch
from scoresde.scores import ScoreModel

SDE = scoresde.VPSDE()
METHODS = ["ddim", "heun", "dpmpp_2m", "unipc2", "euler_maruyama", "pc"]
STEPS = 70
FAILING = {5: [1], 40: [0], 41: [2, 3]}  # samples by the evaluation that fails


class Breaking:
    """A network some of whose outputs are not finite.

    Args:
        failing: the samples by the number of the call.
        value: NaN or infinity.
    """

    def __init__(self, failing: dict[int, list[int]], value: float) -> None:
        self.failing, self.value, self.calls = failing, value, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        out = torch.nan_to_num(-0.1 * x, 0.0, 0.0, 0.0)
        for call, rows in self.failing.items():
            if call == self.calls:
                out[rows] = self.value
        return out


def start() -> Tensor:
    return torch.linspace(-1, 1, 15).reshape(5, 3)


def solved(late: bool, monkeypatch: Any, network: Callable[..., Tensor], method: str, **options: Any) -> Any:
    monkeypatch.setattr(_watch, "waits", lambda x: late)
    return scoresde.solve(SDE, network, start(), method=method, steps=STEPS, seed=0, **options)


@pytest.mark.parametrize("method", METHODS)
def test_an_error_names_the_first_bad_step_and_sample_and_the_others_finish(method: str, monkeypatch: Any) -> None:
    for value in (torch.nan, torch.inf):
        errors = []
        for late in (False, True):
            for failing in ({5: [1]}, {40: [0], 41: [2, 3]}, {69: [4]}):
                with pytest.raises(scoresde.NonFiniteError) as caught:
                    solved(late, monkeypatch, Breaking(failing, value), method)
                error, partial = caught.value, caught.value.partial
                row = error.indices[0]
                counts = (partial.t, partial.nfe, partial.accepted, partial.rejected, partial.status)
                own = [v[row].item() for v in counts]
                errors.append((str(error), error.stage, error.indices, error.step, error.t, own))
                assert bool(partial.x[row].isnan().all())
        assert errors[:3] == errors[3:]
        assert errors[0][2] == [1] and errors[1][2] == [0]
    now, late = (solved(late, monkeypatch, Breaking(FAILING, torch.nan), method, throw=False) for late in (False, True))
    assert now.status.tolist() == [1, 1, 1, 1, 0]
    alike(now, late)
    assert torch.equal(now.x[4], late.x[4])
    assert bool(late.x[:4].isnan().all())


def alike(one: scoresde.Solution, other: scoresde.Solution) -> None:
    for name in ("t", "nfe", "accepted", "rejected", "status"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_a_callback_and_saved_states_see_a_failure_in_its_step(monkeypatch: Any) -> None:
    seen: dict[bool, list[Any]] = {False: [], True: []}
    saved = []
    for late in (False, True):

        def callback(info: scoresde.Info, late: bool = late) -> None:
            seen[late].append((info.step, info.t, info.x.isnan().any(1).tolist(), info.nfe.tolist()))

        options = {"throw": False, "save_at": "steps"}
        solved(late, monkeypatch, Breaking(FAILING, torch.inf), "ddim", throw=False, callback=callback)
        saved.append(solved(late, monkeypatch, Breaking(FAILING, torch.inf), "ddim", **options).xs.isnan())
    assert seen[False] == seen[True] and seen[True][4][2][1]
    assert torch.equal(*saved) and bool(saved[1][5:, 1].all())


def test_a_state_that_recovers_has_failed(monkeypatch: Any) -> None:
    """The last step of a data prediction forgets the state."""
    flow = scoresde.FlowSDE(t_min=0.0)
    for late in (False, True):
        monkeypatch.setattr(_watch, "waits", lambda x, late=late: late)
        model = ScoreModel(Breaking({9: [2]}, torch.nan), flow, "data")
        with pytest.raises(scoresde.NonFiniteError) as caught:
            scoresde.solve(flow, model, start(), method="ddim", steps=10)
        assert caught.value.step == 9 and caught.value.indices == [2]
        assert bool(caught.value.partial.x[[0, 1, 3, 4]].isfinite().all())
