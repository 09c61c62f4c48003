"""``scoresde diagnose``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


def test_too_few_steps_are_named(run: Callable[..., Any]) -> None:
    found = run("diagnose", "--pilot", "48", "--method", "ddim", "--steps", "4")
    assert found.exit_code == 0, found.output
    rows = {line.split()[0]: line.split()[-1] for line in found.output.splitlines() if line and line[0] != " "}
    assert rows["steps"] == "yes" and rows["prior"] == rows["t_min"] == "no"
    assert "Take more steps" in found.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--model", "mnist"), "`data` is missing"),
        (("--data", "nothing.npz"), "nothing.npz"),
        (("--data", "small.npz"), "small.npz"),
        (("--held-out", "nothing.npz"), "nothing.npz"),
        (("--pilot", "3"), "pilot"),
        (("--confidence", "2"), "`confidence`"),
    ],
)
def test_what_cannot_be_diagnosed(run: Callable[..., Any], given: tuple[str, ...], message: str) -> None:
    run("methods")  # in an empty folder
    np.savez("small.npz", x=np.zeros((40, 3), dtype=np.float32))
    found = run("diagnose", *given)
    assert found.exit_code == 2 and message in found.output, found.output
