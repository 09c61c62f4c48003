"""``scoresde diagnose``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scoresde.training import digits_split


def test_too_few_steps_are_named(run: Callable[..., Any]) -> None:
    found = run("diagnose", "--pilot", "48", "--method", "ddim", "--steps", "4")
    assert found.exit_code == 0, found.output
    rows = {line.split()[0]: line.split()[-1] for line in found.output.splitlines() if line and line[0] != " "}
    assert rows["steps"] == "yes" and rows["prior"] == rows["t_min"] == "no"
    assert "Take more steps" in found.output


def test_swapped_labels_are_found(run: Callable[..., Any]) -> None:
    run("methods")  # in an empty folder
    split = digits_split()
    for name, labels in (("right", split.test_labels), ("wrong", (split.test_labels + 5) % 10)):
        np.savez(f"{name}.npz", x=split.test_images.numpy(), label=labels.numpy())
    given = ("--levels", "17", "--pilot", "32", "--method", "ddim", "--steps", "10", "--quiet")
    gains = {}
    for name in ("right", "wrong"):
        found = run("diagnose", f"{name}.npz", "--labels", "label", *given)
        assert found.exit_code == 0, found.output
        line = next(line for line in found.output.splitlines() if line.startswith("labels"))
        gains[name] = float(line.split()[1])
    assert gains["right"] > 3 > gains["wrong"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--model", "mnist"), "`data` is missing"),
        (("--data", "nothing.npz"), "nothing.npz"),
        (("--data", "small.npz"), "small.npz"),
        (("--held-out", "nothing.npz"), "nothing.npz"),
        (("--pilot", "3"), "pilot"),
        (("--labels", "classes"), "under the name label"),
        (("--labels", "label", "--label", "1"), "leave --label out"),
        (("--confidence", "2"), "`confidence`"),
    ],
)
def test_what_cannot_be_diagnosed(run: Callable[..., Any], given: tuple[str, ...], message: str) -> None:
    run("methods")  # in an empty folder
    np.savez("small.npz", x=np.zeros((40, 3), dtype=np.float32))
    found = run("diagnose", *given)
    assert found.exit_code == 2 and message in found.output, found.output
