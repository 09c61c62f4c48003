"""``scoresde certify``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoresde.cli import _sample
from scoresde.trust import Certificate

QUICK = ("--model", "digits", "--pilot", "20", "--confidence", "0.8", "--indicator", "constant")


def test_the_statement_and_the_file(run: Callable[..., Any]) -> None:
    found = run("certify", *QUICK, "--method", "ddim", "--steps", "5", "--label", "3", "--out", "c.json")
    assert found.exit_code == 0, found.output
    assert "ddim, steps=5: 5 evaluations per sample." in found.output
    assert "With a probability of 0.8095, the error of a new sample is at most its bound" in found.output
    certificate = Certificate.load("c.json")
    assert certificate.coverage.draws == 20 and certificate.identity.event == (1, 8, 8)
    before = Path("c.json").read_bytes()
    assert run("certify", *QUICK, "--method", "ddim", "--out", "c.json").exit_code == 4
    assert Path("c.json").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (("--method", "pc"), 2, "has no strong order"),
        (("--confidence", "1.5"), 2, "`confidence` must be between 0 and 1"),
        (("--pilot", "4", "--confidence", "0.95"), 2, "takes at least 19 draws"),
        (("--method", "ddim", "--steps", "5", "--target", "1e-9"), 3, "None of 1 candidates has a bound of 1e-09"),
        (("--norm", "l2"), 2, "norm"),
        (("--label", "10"), 2, "label"),
        (("--out", "c.txt"), 2, "c.txt"),
    ],
)
def test_what_cannot_be_certified(run: Callable[..., Any], given: tuple[str, ...], code: int, message: str) -> None:
    options = [option for option in QUICK if "--target" not in given or option not in ("--indicator", "constant")]
    found = run("certify", *options, *given)
    assert found.exit_code == code and message in found.output, found.output


def test_samples_with_bounds(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sample, "_PILOT", 32)
    given = ("--model", "digits", "--method", "ddim", "--steps", "5", "--count", "3", "--out", "s.npz")
    found = run("sample", *given, "--certify", "0.8")
    assert found.exit_code == 0 and "is at most its bound" in found.output, found.output
    with np.load("s.npz") as arrays:
        bounds, x = arrays["error_bound"], arrays["x"]
        metadata = json.loads(str(arrays["metadata"]))
    assert bounds.shape == (3,) and (bounds > 0).all() and metadata["certificate"]["pilot"] == 32
    assert run("sample", *given).exit_code == 0
    with np.load("s.npz") as arrays:
        assert (arrays["x"] == x).all() and "error_bound" not in arrays


@pytest.mark.parametrize(
    "other",
    [("--label", "all"), ("--shard-size", "4", "--out", "set"), ("--animate", "a.gif"), ("--measurement", "m.npz")],
)
def test_samples_that_cannot_have_bounds(run: Callable[..., Any], other: tuple[str, ...]) -> None:
    found = run("sample", "--model", "digits", "--certify", "0.9", *other)
    assert found.exit_code in (2, 5) and ("`certify` is not for" in found.output or "m.npz" in found.output), (
        found.output
    )
