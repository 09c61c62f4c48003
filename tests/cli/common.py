"""Functions and types that the tests of commands share."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import typer

from scoresde.cli import app

COMMANDS = typer.main.get_command(app)  # made once: typer's own runner makes it for every call, in 20 ms


@dataclass
class Result:
    """How a command ended, and what it printed: standard output and standard error."""

    exit_code: int
    output: str
    exception: BaseException | None


def invoke(*arguments: object) -> Result:
    """Run a command in this process."""
    output, code, exception = io.StringIO(), 0, None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            COMMANDS.main([str(argument) for argument in arguments], prog_name="scoresde")
        except SystemExit as end:
            code, exception = int(end.code or 0), end
        except Exception as error:
            code, exception = 1, error
    return Result(code, output.getvalue(), exception)


Run = Callable[..., Result]
Files = Callable[[], list[str]]
Change = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def expect(result: Result, code: int, *said: str) -> str:
    """The output of a command, in one line, after its exit code and its words were checked."""
    text = " ".join(result.output.split())
    assert result.exit_code == code, f"{result.exit_code}: {text}"
    for words in said:
        assert words in text, f"{words!r} is not in {text!r}"
    return text


def arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def metadata(path: str) -> dict[str, Any]:
    return dict(json.loads(str(arrays(path)["metadata"])))


def rows(path: str = "likelihood.csv") -> list[dict[str, str]]:
    """A table of likelihoods."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(name: str, path: str = "likelihood.csv") -> list[Any]:
    """Its numbers, or what else there is."""
    texts = [row[name] for row in rows(path)]
    return texts if name in ("name", "status") else [float(text) if text else None for text in texts]


def settings(path: str = "likelihood.csv") -> dict[str, Any]:
    """What is beside it."""
    with open(f"{path}.json", encoding="utf-8") as file:
        return dict(json.load(file)["settings"])


def near(fake: Any, count: int = 5) -> np.ndarray:
    """Data of the fake model."""
    generator = torch.Generator().manual_seed(0)
    picked = fake.means()[torch.arange(count) % len(fake.means())]
    return (picked + 0.05 * torch.randn(picked.shape, generator=generator)).numpy()


def grey(fake: Any, count: int = 5, levels: int = 17) -> np.ndarray:
    """Grey levels near the fake model's pictures; far from them its flow is stiff."""
    v = ((near(fake, count) + 1) / 2 * levels).astype(int)
    return v.clip(0, levels - 1)


def fails(error: BaseException, when: Callable[[torch.Tensor], bool] = lambda x: True) -> Change:
    """A score that raises an error for some batches."""

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if when(x):
            raise error
        return s

    return change


def loses(row: int) -> Change:
    """A score that is NaN for one row of each batch."""
    return lambda s, x, t: s.clone().index_fill(0, torch.tensor([row]), torch.nan) if len(s) > row else s
