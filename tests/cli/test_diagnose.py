"""``scoresde diagnose``."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cli.common import Run, expect, near


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
    np.savez("small.npz", x=np.zeros((40, 3), dtype=np.float32))
    np.savez("x.npz", x=near(fake, 40), half=np.arange(40) % 2)
    for given, said in (
        ((), "`data` is missing"),
        (("--data", "nothing.npz"), "nothing.npz"),
        (("--data", "small.npz"), "small.npz"),
        (("x.npz", "--held-out", "nothing.npz"), "nothing.npz"),
        (("x.npz", "--pilot", 3), "pilot"),
        (("digits", "--labels", "classes"), "under the name label"),
        (("x.npz", "--labels", "half", "--label", 1), "leave --label out"),
        (("x.npz", "--confidence", 2), "`confidence`"),
    ):
        expect(run("diagnose", "--model", "any", *given), 2, said)


def test_a_model_of_the_digits_has_data(run: Run, fake: Any) -> None:
    fake.config.data = "scikit-learn digits"
    expect(run("diagnose", "--labels", "classes"), 2, "under the name label")
