"""A model with an exact score instead of a network, and a runner of commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import scoresde
import scoresde.zoo
from scoresde.cli import app


@dataclass
class FakeModel:
    """Draws one of two pictures, all dark but for a bright half: the upper (0) or the lower (1).

    ``change(score, x, t)`` alters the score; ``calls`` counts the evaluations.
    """

    event_shape: tuple[int, ...] = (1, 8, 8)
    labels: Any = field(default_factory=lambda: SimpleNamespace(name="half", count=2, null=2))
    change: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] = lambda s, x, t: s
    calls: int = 0
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
            self.calls += 1
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
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def run(typed: Callable[..., Result]) -> Callable[..., Result]:
    """Runs a command in an empty folder; what an earlier one left is replaced."""
    replaces = {"sample", "encode", "measure"}
    return lambda *arguments: typed(
        *arguments[:1], *(["--force"] if set(arguments[:1]) & replaces else []), *arguments[1:]
    )


@pytest.fixture
def ddim(run: Callable[..., Result]) -> Callable[..., Result]:
    """Runs `scoresde sample` with 10 steps of ddim."""
    return lambda *arguments: run("sample", "--method", "ddim", "--steps", 10, *arguments)


@pytest.fixture
def files(tmp_path: Path) -> Callable[[], list[str]]:
    """Names of all that is in the folder."""
    return lambda: sorted(path.name for path in tmp_path.iterdir())
