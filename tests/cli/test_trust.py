"""``scoresde certify`` and ``scoresde diagnose``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scoresde.trust
from scoresde.trust import Certificate
from tests.cli.common import Run, arrays, expect, metadata, near

# certify, and samples with bounds on their errors


pytestmark = pytest.mark.usefixtures("unchanged")
QUICK = ("--model", "any", "--pilot", 20, "--confidence", 0.8, "--indicator", "constant", "--method", "ddim")


@pytest.fixture
def unchanged(fake: Any) -> None:
    """The score has no state."""
    fake.counted = False


@pytest.mark.filterwarnings("ignore:The reference is uncertain")  # beside the errors of 25 evaluations
def test_the_statement_and_the_file(run: Run) -> None:
    text = expect(run("certify", *QUICK, "--steps", 5, "--label", 1, "--out", "c.json"), 0)
    assert "ddim, steps=5: 5 evaluations per sample." in text
    # of 21 exchangeable errors, 17 are at most the 17th smallest of 20: 17/21
    assert "With a probability of 0.8095, the error of a new sample is at most its bound" in text
    certificate = Certificate.load("c.json")
    assert certificate.coverage.draws == 20 and certificate.identity.event == (1, 8, 8)
    expect(run("certify", *QUICK[:-2]), 0, "25 evaluations per sample.")
    before = Path("c.json").read_bytes()
    expect(run("certify", *QUICK, "--out", "c.json"), 4)
    assert Path("c.json").read_bytes() == before


def test_what_cannot_be_certified(run: Run) -> None:
    for given, code, said in (
        (("--method", "pc"), 2, "has no strong order"),
        (("--confidence", 1.5), 2, "`confidence` must be between 0 and 1"),
        (("--pilot", 4, "--confidence", 0.95), 2, "takes at least 19 draws"),
        (("--steps", 5, "--target", 1e-9, "--indicator", "auto"), 3, "None of 1 candidates has a bound of 1e-09"),
        (("--norm", "l2"), 2, "norm"),
        (("--out", "c.txt"), 2, "c.txt"),
    ):
        expect(run("certify", *QUICK, *given), code, said)


def test_samples_with_bounds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    certify = scoresde.trust.certify
    pilots: list[int] = []

    def quick(*args: Any, pilot: int, shape: tuple[int, ...], **kwargs: Any) -> Certificate:
        pilots.append(pilot)
        return certify(*args, pilot=16, shape=(16, *shape[1:]), **kwargs)

    monkeypatch.setattr(scoresde.trust, "certify", quick)
    given = ("--method", "ddim", "--steps", 5, "--count", 3, "--out", "s.npz")
    expect(run("sample", *given, "--certify", 0.8), 0, "is at most its bound")
    found, certificate = arrays("s.npz"), metadata("s.npz")["certificate"]
    assert found["error_bound"].shape == (3,) and (found["error_bound"] > 0).all()
    assert certificate["pilot"] == 16 and pilots == [256]
    expect(run("sample", *given), 0)
    plain = arrays("s.npz")
    assert (plain["x"] == found["x"]).all() and "error_bound" not in plain


def test_samples_that_cannot_have_bounds(run: Run) -> None:
    for other in (
        ("--label", "all"),
        ("--shard-size", 4, "--out", "set"),
        ("--animate", "a.gif"),
        ("--inpaint", "mask.png", "image.png"),
    ):
        expect(run("sample", "--certify", 0.9, *other), 2, "`certify` is not for")


@pytest.mark.parametrize("command", ["certify", "diagnose"])
def test_options_reach_the_measurement(run: Run, fake: Any, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    seen: dict[str, Any] = {}

    def measured(process: Any, score_fn: Any, *data: Any, **kwargs: Any) -> None:
        seen.update(kwargs, process=repr(process), data=data)
        raise KeyboardInterrupt

    monkeypatch.setattr(scoresde.trust, command, measured)
    np.savez("x.npz", x=near(fake, 3))
    np.savez("y.npz", x=near(fake, 2))
    flags = ("--rtol", 0.1, "--atol", 0.2, "--seed", 3, "--batch-size", 5, "--confidence", 0.8, "--pilot", 40)
    expected: dict[str, Any] = {"rtol": 0.1, "atol": 0.2, "seed": 3, "batch_size": 5, "confidence": 0.8, "pilot": 40}
    expected |= {"device": torch.device("cpu"), "process": repr(scoresde.VESDE())}
    more: tuple[object, ...] = ("x.npz", "--held-out", "y.npz", "--half")
    if command == "certify":
        more = ("--target", 0.5, "--confidence-in-pilot", 0.7, "--indicator", "half", "--norm", "max")
        expected |= {"target": 0.5, "confidence_in_pilot": 0.7, "indicator": "half", "norm": "max"}
        expected |= {"shape": (40, 1, 8, 8)}
    expect(run(command, "--model", "any", "--sde", "ve", "--method", "rk45", "--device", "cpu", *flags, *more), 75)
    assert {key: seen[key] for key in expected} == expected
    if command == "diagnose":
        assert seen["half_precision"] == torch.bfloat16 and np.array_equal(seen["data"][0], near(fake, 3))
        assert np.array_equal(seen["held_out"][0], near(fake, 2))


def rows(text: str) -> dict[str, list[str]]:
    """The words of each line of the table, by the first of them."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line and line[0] != " "}


def test_too_few_steps_are_named(run: Run, fake: Any) -> None:
    np.savez("x.npz", x=near(fake, 80)[1::2])
    found = run("diagnose", "x.npz", "--model", "any", "--label", 1, "--pilot", 32, "--method", "ddim", "--steps", 2)
    expect(found, 0, "Take more steps")
    table = rows(found.output)
    assert table["steps"][-1] == "yes" and table["prior"][-1] == table["t_min"][-1] == "no"


def test_swapped_labels_are_found(run: Run, fake: Any) -> None:
    labels = np.arange(40) % 2
    gains = {}
    for name, given in (("right", labels), ("wrong", 1 - labels)):
        np.savez(f"{name}.npz", x=near(fake, 40), half=given)
        command = ("diagnose", f"{name}.npz", "--model", "any", "--labels", "half", "--pilot", 32)
        found = run(*command, "--method", "ddim", "--steps", 10, "--quiet")
        expect(found, 0)
        gains[name] = float(rows(found.output)["labels"][0].replace(",", ""))
    assert gains["right"] > 3 > gains["wrong"]


def test_what_cannot_be_diagnosed(run: Run, fake: Any) -> None:
    np.savez("x.npz", x=near(fake, 40), half=np.arange(40) % 2)
    for given, said in (
        ((), "`data` is missing"),
        (("--data", "nothing.npz"), "nothing.npz"),
        (("x.npz", "--pilot", 3), "pilot"),
        (("digits", "--labels", "classes"), "under the name label"),
        (("x.npz", "--labels", "half", "--label", 1), "leave --label out"),
    ):
        expect(run("diagnose", "--model", "any", *given), 2, said)
