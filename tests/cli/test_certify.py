"""``scoresde certify``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scoresde.trust import Certificate

QUICK = ("--model", "digits", "--pilot", "20", "--confidence", "0.8", "--indicator", "constant")


def test_the_statement_and_the_file(run: Callable[..., Any]) -> None:
    found = run("certify", *QUICK, "--method", "ddim", "--steps", "5", "--label", "3", "--out", "c.json")
    assert found.exit_code == 0, found.output
    assert "DDIM(), steps=5: 5 evaluations per sample." in found.output
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
