"""Where states are drawn: on the device of the network, if nothing else is said.

There is no second device on most machines. The probe is a network that says it is on the device ``"meta"``, which holds
no data and is refused: a refusal shows that the function has asked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import scoresde
from scoresde import InvalidArgumentError, guidance
from scoresde.scores import Clip, as_score
from scoresde.scores.base import device_of
from scoresde.training import read, train, train_classifier

SDE = scoresde.VPSDE()
META = torch.device("meta")


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.gain * x


class Elsewhere(scoresde.ScoreModel):
    @property
    def network_device(self) -> torch.device | None:
        return META


def elsewhere() -> scoresde.ScoreModel:
    return Elsewhere(Net().eval(), SDE, "noise", event_shape=(2,))


def test_the_device_is_that_of_the_parameters_or_buffers() -> None:
    cpu = torch.device("cpu")
    model = scoresde.ScoreModel(Net(), SDE, "noise")
    assert model.network_device == cpu
    assert as_score(Net()).network_device == cpu
    assert as_score(lambda x, t: -x).network_device is None
    assert scoresde.ScoreModel(lambda x, t: -x, SDE, "noise").network_device is None
    held = torch.nn.Module()
    held.register_buffer("mean", torch.zeros(2))
    assert device_of(held) == cpu
    assert device_of(Net().to("meta")) is None  # weights that are moved to a device for each call


def test_a_wrapper_is_where_its_network_is() -> None:
    model = elsewhere()
    for wrapped in (
        Clip(model),
        guidance.temperature(model, 2.0),
        guidance.classifier_free(scoresde.ScoreModel(lambda x, t: x, SDE, "noise"), model, 2.0),
        guidance.classifier_guidance(model, lambda x, t: -x.square().sum(1)),
    ):
        assert wrapped.network_device == META, wrapped


def test_states_are_drawn_there(tmp_path: Path) -> None:
    model = elsewhere()
    fixed = {"method": "ddim", "steps": 2}
    gaussian = scoresde.targets.Gaussian(torch.zeros(2), 1.0)
    calls: list[Callable[..., object]] = [
        lambda **o: scoresde.solve(SDE, model, shape=(3, 2), seed=0, **fixed, **o),
        lambda **o: scoresde.Stepper(SDE, "ddim", steps=2, shape=(3, 2), prediction=model, seed=0, **o),
        lambda **o: scoresde.tune(SDE, model, 5, pilot=4, **o),
        lambda **o: scoresde.fit_grid(SDE, model, 3, "ddim", pilot=4, iterations=2, **o),
        lambda **o: scoresde.fit_start(SDE, model, gaussian, rtol=0.5, pilot=4, levels=4, **o),
        lambda **o: scoresde.certify(SDE, model, "ddim", steps=2, pilot=64, identity="net", **o),
        lambda **o: scoresde.generate(tmp_path / "set", SDE, model, 2, identity="net", **fixed, **o),
    ]
    for call in calls:
        with pytest.raises(scoresde.InvalidArgumentError, match="must hold data, got 'meta'"):
            call()
        call(device="cpu")


def test_a_state_that_is_given_stays_where_it_is() -> None:
    x = torch.ones(3, 2)
    assert scoresde.solve(SDE, elsewhere(), x, method="ddim", steps=2).x.device == x.device


def test_training_takes_the_best_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU if there is one, that of this process's rank among several."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda *args, **given: fail(**given))

    def fail(device: torch.device, **given: Any) -> None:
        raise RuntimeError(f"on {device}")

    for rank, device in (("", "cuda"), ("1", "cuda:1"), ("2", "cuda")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        for call, first in ((train, [scoresde.presets.PRESETS["edm"]]), (train_classifier, [])):
            with pytest.raises(InvalidArgumentError, match=f"on {device}$"):
                call(*first, read("digits"), progress=False)
