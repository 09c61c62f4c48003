"""What a network given to a solve means, and the mistakes in it that a solve warns of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde import ScoreModel, ScoreSDEWarning, inverse, solve

from .refusals import assert_refused

DIGITS = scoresde.load("digits")
SDE = scoresde.VPSDE(beta_max=15, t_min=0.01)
SHAPE, DATA = (2, 1, 8, 8), torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SHORT: dict[str, Any] = {"method": "ddim", "steps": 2, "seed": 0}
PILOT: dict[str, Any] = {"shape": (24, 1, 8, 8), "seed": 0}


def _generated(score: Any, path: Path) -> Tensor:
    scoresde.generate(path, SDE, score, 2, shape=SHAPE[1:], identity="n", **SHORT)
    return torch.stack([torch.as_tensor(x["x"]) for x in scoresde.sets.Samples(path)])


CALLS: dict[str, Callable[[Any, Path], Any]] = {
    "solve": lambda score, _: solve(SDE, score, shape=SHAPE, **SHORT).x,
    "encode": lambda score, _: scoresde.encode(SDE, score, DATA[:2], method="ddim", steps=2).x,
    "log_likelihood": lambda score, _: scoresde.log_likelihood(SDE, score, DATA[:2], seed=0, check=False).log_prob,
    "generate": _generated,
    "sample_posterior": lambda score, _: (
        inverse.sample_posterior(
            SDE, score, inverse.Mask(torch.ones(1, 8, 8) > 0), torch.zeros(2, 64), 0.5, shape=SHAPE, seed=0, steps=3
        ).x
    ),
    "tune": lambda score, _: scoresde.tune(SDE, score, evaluations=2, **PILOT).ranking[0].rms,
    "diagnose": lambda score, _: scoresde.diagnose(SDE, score, DATA, evaluations=2, seed=0, pilot=32).total.value,
    "certify": lambda score, _: (
        scoresde.certify(SDE, score, "ddim", evaluations=2, pilot=24, confidence=0.8, **PILOT).pooled.quantile
    ),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "diagnose" else n for n in CALLS])
def test_a_network_is_used_on_the_process_of_the_call(name: str, tmp_path: Path) -> None:
    """A loaded network, and a `ScoreModel` of another process, mean their score on the one that is given."""
    expected, *others = [
        torch.as_tensor(CALLS[name](given, tmp_path / str(number)))
        for number, given in enumerate((DIGITS.score(SDE), DIGITS, DIGITS.score(scoresde.VPSDE())))
    ]
    assert all(torch.allclose(other, expected, rtol=1e-3) for other in others)


def test_what_cannot_be_meant_is_refused() -> None:
    named = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(scoresde.VESDE())
    assert_refused(
        {
            "a target's score of another process": (lambda: solve(SDE, named, shape=(2, 2), **SHORT), "was made for"),
            "noise that the network has not seen": (
                lambda: solve(scoresde.FlowSDE(), DIGITS.score(SDE), shape=SHAPE, **SHORT),
                "its log-SNR runs from",
            ),
            "check_score names another process": (
                lambda: scoresde.check_score(SDE, DIGITS.score(scoresde.VPSDE()), DATA),
                "was made for",
            ),
            "labels": (lambda: solve(SDE, DIGITS, shape=SHAPE, y=torch.zeros(2), **SHORT), "`y` is `context`"),
            "noise of DDIM": (lambda: solve(SDE, DIGITS, shape=SHAPE, eta=0.5, **SHORT), "method='ddim_eta'"),
            "a method of no name": (
                lambda: solve(SDE, DIGITS, shape=SHAPE, method="foo"),
                r"The nearest of \d+: \w+(, \w+){4}\. scoresde\.methods\(\)",
            ),
            "a network of diffusers": (lambda: scoresde.load("owner/name"), ("'hf:owner/name@", "from_diffusers")),
        }
    )


class Ideal(nn.Module):
    """A network for data with mean 0 and variance 0.25."""

    def __init__(self, sde: scoresde.AffineSDE, predicts: str) -> None:
        super().__init__()
        self.sde, self.predicts, self.calls = sde, predicts, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        alpha, sigma = (f(t).reshape(-1, 1).to(x) for f in (self.sde.alpha, self.sde.sigma))
        score = -x / (0.25 * alpha**2 + sigma**2)
        noise = -sigma * score
        return {"score": score, "noise": noise, "data": (x - sigma * noise) / alpha, "zero": 0 * x}[self.predicts]


PROCESSES = [scoresde.VPSDE(), scoresde.SubVPSDE(), scoresde.VESDE(), scoresde.EDMSDE(), scoresde.FlowSDE()]


@pytest.mark.parametrize("sde", PROCESSES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("predicts", ["score", "noise", "data", "zero"])
def test_a_bare_network_that_returns_no_score_is_warned_of(sde: scoresde.AffineSDE, predicts: str) -> None:
    """Once, without a further evaluation, and only where the network is a module as it is."""
    net = Ideal(sde, predicts)
    given: dict[str, Any] = {"shape": (16, 2), "method": "ddim", "steps": 3, "seed": 0}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        solve(sde, net, throw=False, **given)
        first = [str(w.message) for w in said if "seems to return no score" in str(w.message)]
        assert len(first) == (predicts != "score") and net.calls == 3 and not net._forward_hooks
        solve(sde, lambda x, t: net(x, t), throw=False, **given)
        assert len([w for w in said if "seems to return no score" in str(w.message)]) == len(first)
    if first and predicts == "noise":
        assert "ScoreModel(net, sde, prediction='noise')" in first[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")
def test_networks_that_take_no_hooks_are_solved() -> None:
    class Scripted(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return -x / (1 + t.reshape(-1, 1))

    drawn = [solve(PROCESSES[0], net, shape=(8, 2), **SHORT).x for net in (Scripted(), torch.jit.script(Scripted()))]
    torch.testing.assert_close(*drawn)


class Dropped(Ideal):
    """The same with dropout and batch norm that it does not use."""

    def __init__(self, p: float = 0.1) -> None:
        super().__init__(PROCESSES[0], "score")
        self.layers = nn.ModuleList([nn.Dropout(p)])


def test_a_network_in_training_mode_is_warned_of() -> None:
    def run(net: nn.Module, *wrap: Any) -> None:
        solve(PROCESSES[0], ScoreModel(net, PROCESSES[0], *wrap) if wrap else net, shape=(2, 2), **SHORT)

    with pytest.warns(ScoreSDEWarning, match=r"its Dropout computes something else.*net\.eval\(\)"):
        run(Dropped())
    with pytest.warns(ScoreSDEWarning, match="training mode"):
        run(Dropped(), "score")
    part = Dropped().eval()
    part.layers.train()
    with pytest.warns(ScoreSDEWarning, match="training mode"):
        run(part)
    for quiet in (Dropped().eval(), Dropped(0.0), Ideal(PROCESSES[0], "score").train()):
        run(quiet)
