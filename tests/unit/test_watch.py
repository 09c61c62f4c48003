"""Samples that are not finite are found in the right step, on the host and on a device that is not waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import _watch
from scoresde.models import ScoreModel

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


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("method", METHODS)
def test_an_error_names_the_first_bad_step_and_sample(method: str, value: float, monkeypatch: Any) -> None:
    errors = []
    for late in (False, True):
        for failing in ({5: [1]}, {40: [0], 41: [2, 3]}, {69: [4]}):
            with pytest.raises(scoresde.NonFiniteError) as caught:
                solved(late, monkeypatch, Breaking(failing, value), method)
            error = caught.value
            row = error.indices[0]
            partial = error.partial
            own = [v[row].item() for v in (partial.t, partial.nfe, partial.accepted, partial.rejected, partial.status)]
            errors.append((str(error), error.stage, error.indices, error.step, error.t, own))
            assert bool(partial.x[row].isnan().all())
    assert errors[:3] == errors[3:]
    assert errors[0][2] == [1] and errors[1][2] == [0]


@pytest.mark.parametrize("method", METHODS)
def test_the_others_finish(method: str, monkeypatch: Any) -> None:
    now, late = (solved(late, monkeypatch, Breaking(FAILING, torch.nan), method, throw=False) for late in (False, True))
    assert now.status.tolist() == [1, 1, 1, 1, 0]
    for name in ("t", "nfe", "accepted", "rejected", "status"):
        assert torch.equal(getattr(now, name), getattr(late, name)), name
    assert torch.equal(now.x[4], late.x[4])
    assert bool(late.x[:4].isnan().all())


def test_finished_samples_leave(monkeypatch: Any) -> None:
    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.where((x[:, :1] > 0) & (t[:, None] < 0.5), torch.nan, -0.1 * x)

    model = ScoreModel(network, SDE, "noise")
    now, late = (solved(late, monkeypatch, model, "dpmpp_2m", throw=False) for late in (False, True))
    assert now.status.tolist() == [0, 0, 0, 1, 1]
    for name in ("t", "nfe", "accepted", "rejected", "status"):
        assert torch.equal(getattr(now, name), getattr(late, name)), name
    assert torch.equal(now.x[:3], late.x[:3])


def test_a_callback_sees_a_failure_in_its_step(monkeypatch: Any) -> None:
    seen: dict[bool, list[Any]] = {False: [], True: []}
    for late in (False, True):

        def callback(info: scoresde.Info, late: bool = late) -> None:
            seen[late].append((info.step, info.t, info.x.isnan().any(1).tolist(), info.nfe.tolist()))

        network = Breaking(FAILING, torch.inf)
        solved(late, monkeypatch, network, "ddim", throw=False, callback=callback)
    assert seen[False] == seen[True] and seen[True][4][2][1]


def test_saved_states_end_where_a_sample_fails(monkeypatch: Any) -> None:
    now, late = (
        solved(late, monkeypatch, Breaking(FAILING, torch.inf), "ddim", throw=False, save_at="steps")
        for late in (False, True)
    )
    assert torch.equal(now.xs.isnan(), late.xs.isnan()) and bool(late.xs[5:, 1].isnan().all())


@pytest.mark.parametrize("late", [False, True])
def test_a_state_that_recovers_has_failed(late: bool, monkeypatch: Any) -> None:
    """The last step of a data prediction forgets the state."""
    monkeypatch.setattr(_watch, "waits", lambda x: late)
    flow = scoresde.FlowSDE(t_min=0.0)
    model = ScoreModel(Breaking({9: [2]}, torch.nan), flow, "data")
    with pytest.raises(scoresde.NonFiniteError) as caught:
        scoresde.solve(flow, model, start(), method="ddim", steps=10)
    assert caught.value.step == 9 and caught.value.indices == [2]
    assert bool(caught.value.partial.x[[0, 1, 3, 4]].isfinite().all())


@pytest.mark.parametrize("throw", [True, False])
def test_the_limit_of_steps_hides_no_failure(throw: bool, monkeypatch: Any) -> None:
    found = []
    for late in (False, True):
        network = Breaking({3: [1]}, torch.nan)
        try:
            solution = solved(late, monkeypatch, network, "ddim", max_steps=5, throw=throw)
        except scoresde.ScoreSDEError as error:
            found.append((type(error), str(error)))
        else:
            found.append((solution.status.tolist(), str(solution.t[1]), str(solution.nfe[1])))
    assert found[0] == found[1] and (not throw or found[0][0] is scoresde.NonFiniteError)


@pytest.mark.parametrize("call", [1, 2, 9])
def test_the_draws_of_those_who_stay_do_not_change(call: int, monkeypatch: Any) -> None:
    results = []
    for late, value in ((False, 0.0), (False, torch.nan), (True, torch.nan)):
        model = ScoreModel(Breaking({call: [1]}, value), SDE, "noise")  # whose samples may leave
        results.append(solved(late, monkeypatch, model, "restart", throw=False).x[[0, 2, 3, 4]])
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_a_step_without_an_evaluation_has_no_wrong_score(monkeypatch: Any) -> None:
    monkeypatch.setattr(_watch, "waits", lambda x: True)
    x, bad = torch.zeros(2, 3), torch.full((2, 3), torch.inf)
    watch = _watch.Watch(x)
    assert watch.look(bad, (bad,), 0.5, 1, now=True).wrong.all()  # type: ignore[union-attr]
    assert not watch.look(bad, (), 0.5, 0, now=True).wrong.any()  # type: ignore[union-attr]


def test_large_numbers_are_finite(monkeypatch: Any) -> None:
    for late in (False, True):
        monkeypatch.setattr(_watch, "waits", lambda x, late=late: late)
        watch = _watch.Watch(torch.zeros(4, 3))
        x = torch.full((4, 3), 3e38)  # whose sum is infinite
        assert all(watch.look(x, (x,), 0.5, 1, now=now) is None for now in (False, True))


def test_a_device_is_read_late(monkeypatch: Any) -> None:
    monkeypatch.setattr(_watch, "waits", lambda x: True)
    watch, x = _watch.Watch(torch.zeros(2, 3)), torch.zeros(2, 3)
    bad = torch.tensor([[0.0, torch.nan, 0.0], [1.0, 1.0, 1.0]])
    found = [watch.look(bad if k == 3 else x, (x,), float(k), 2, now=False) for k in range(_watch.EVERY)]
    assert all(f is None for f in found[:-1])
    last = found[-1]
    assert last is not None and last.ago.tolist() == [_watch.EVERY - 3, 0] and not last.wrong.any()
    assert last.window[-last.ago[0]] == (3.0, 2)
    assert watch.look(x, (x,), 0.0, 1, now=True) is None
    again = watch.look(bad, (bad,), 0.0, 1, now=True)
    assert again is not None and np.array_equal(again.ago, [1, 0]) and np.array_equal(again.wrong, [True, False])
