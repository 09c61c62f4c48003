"""A model with an exact score instead of a network, and a runner of commands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import scoresde.likelihood
import scoresde.zoo
from tests.cli.common import Change, Files, Run, invoke


@dataclass
class FakeModel:
    """Draws one of two pictures, all dark but for a bright half: the upper (0) or the lower (1).

    ``change(score, x, t)`` alters the score; ``calls`` counts the evaluations, unless not ``counted``: a certificate
    is for a score that does not change.
    """

    event_shape: tuple[int, ...] = (1, 8, 8)
    labels: Any = field(default_factory=lambda: SimpleNamespace(name="half", count=2, null=2))
    change: Change = lambda s, x, t: s
    calls: int = 0
    counted: bool = True
    config: Any = field(default_factory=lambda: SimpleNamespace(data="two pictures"))
    net: torch.nn.Module = field(default_factory=torch.nn.Identity)

    def means(self) -> torch.Tensor:
        flat = torch.full((2, *self.event_shape), -0.9).flatten(1)
        half = flat.shape[1] // 2
        flat[0, :half], flat[1, half:] = 0.9, 0.9
        return flat.reshape(2, *self.event_shape)

    def score(self, sde: Any, half: int | torch.Tensor | None = None) -> Callable[..., torch.Tensor]:
        means = self.means()
        one, other, both = (
            scoresde.targets.GaussianMixture(torch.ones(len(chosen)), chosen, scales=0.05).score(sde)
            for chosen in (means[:1], means[1:], means)
        )

        def score_fn(x: torch.Tensor, t: torch.Tensor, half: int | torch.Tensor | None = half) -> torch.Tensor:
            self.calls += self.counted
            if half is None:
                score = both(x, t)
            elif isinstance(half, int):
                score = (other if half else one)(x, t)
            else:
                chosen = half.reshape(-1, *(1 for _ in self.event_shape)) > 0
                score = torch.where(chosen, other(x, t), one(x, t))
            return self.change(score, x, t)

        return score_fn


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """The model that every name loads."""
    model = FakeModel()
    monkeypatch.setattr(scoresde.zoo, "load", lambda name, device=None: model)
    return model


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return invoke


@pytest.fixture
def run(typed: Run) -> Run:
    """Runs a command in an empty folder; what an earlier one left is replaced."""
    replaces = {"sample", "encode", "measure"}
    return lambda *arguments: typed(
        *arguments[:1], *(["--force"] if set(arguments[:1]) & replaces else []), *arguments[1:]
    )


@pytest.fixture
def ddim(run: Run) -> Run:
    """Runs `scoresde sample` with 10 steps of ddim; what an earlier one left is replaced."""
    return lambda *arguments: run("sample", "--method", "ddim", "--steps", 10, *arguments)


@pytest.fixture
def draw(typed: Run) -> Run:
    """Runs `scoresde sample` with 5 steps of ddim; what an earlier one left is kept."""
    return lambda *arguments: typed("sample", "--method", "ddim", "--steps", 5, *arguments)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Names of all that is in the folder."""
    return lambda: sorted(path.name for path in tmp_path.iterdir())


@dataclass
class Call:
    """What a command asked `log_likelihood` for."""

    x: torch.Tensor
    seeds: list[int]
    options: dict[str, Any]


@pytest.fixture
def solved(fake: FakeModel, typed: Run, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Likelihoods that cost nothing and are functions of the data and the seeds; pictures that are bright on average
    fail. Returns the calls."""
    calls: list[Call] = []

    def log_likelihood(sde: Any, score_fn: Any, x: torch.Tensor, *, seeds: list[int], **options: Any) -> Any:
        calls.append(Call(x, seeds, options))
        noise = torch.tensor([seed % 1000 / 7 for seed in seeds], dtype=torch.float64)
        log_prob = x.flatten(1).double().sum(1) * 1e-3 + noise
        bad = x.flatten(1).mean(1) > 0.5
        log_prob = torch.where(bad, torch.nan, log_prob)
        return scoresde.Likelihood(
            log_prob=log_prob,
            std_error=log_prob.abs() / 3,
            paths=log_prob[:, None],
            solver_error=log_prob,
            latent=x,
            prior_log_prob=-log_prob,
            nfe=torch.arange(len(x)) + 7,
            products=1,
            status=torch.where(bad, 3, 0),
        )

    monkeypatch.setattr(scoresde.likelihood, "log_likelihood", log_likelihood)
    return calls


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a progress bar shows, one number each time that it is drawn."""
    drawn: list[float] = []

    class Bar(contextlib.AbstractContextManager["Bar"]):
        def __init__(self, total: int, **kwargs: Any) -> None:
            self.total, self.n, self.disable = total, 0.0, False

        def __exit__(self, *exc: object) -> None:
            pass

        def refresh(self) -> None:
            drawn.append(self.n)

    monkeypatch.setattr("tqdm.tqdm", Bar)
    return drawn
