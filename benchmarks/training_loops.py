r"""The loops of the documentation, with accelerate and Lightning, beside the trainer: the loss on held-out digits.

The programs of ``docs/training.md`` run as they are printed, with another seed each time, from which the weights of
the network, the rows and the noise are drawn. The loss of the averaged network is EDM's on the 360 held-out digits,
with the same noise for all. *Spread* is the standard deviation over the seeds of the trainer; *off* is how far the mean
over the seeds of a loop is from that of the trainer, in standard errors of the difference.

``python -m benchmarks training_loops`` writes ``results/training_loops.json``; it needs both packages. ``--check``
checks the file, and that short runs of the loops whose packages are installed have the loss of the trainer's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import math
import os
import re
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import scoresde
from benchmarks._record import write
from benchmarks._tables import load
from scoresde.training import digits_split, grey_to_x

PAGE = Path(__file__).parent.parent / "docs" / "training.md"
LOOPS = ("trainer", "accelerate", "lightning")
SEEDS = 6
DRAWS = 16  # of the noise of each held-out digit
MOST = 3.0  # standard errors
SHORT, NEAR = 40, 0.04  # steps of --check, and the relative distance of their losses


def program(mark: str, page: Path = PAGE) -> str:
    """The program after a mark of a page."""
    found = re.findall(rf"<!-- {mark} -->\n```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (text,) = found
    return text


def replaced(text: str, old: str, new: str) -> str:
    """A text with one line changed."""
    if text.count(old) != 1:
        raise SystemExit(f"{PAGE.name} must have {old!r} once.")
    return text.replace(old, new)


def loss(model: Any, draws: int) -> float:
    """EDM's loss of a model on held-out digits, with the same noise for all models."""
    split, generator = digits_split(), torch.Generator().manual_seed(1)
    x0 = torch.cat([grey_to_x(split.test_images, generator) for _ in range(draws)])
    label = split.test_labels.repeat(draws)
    with torch.no_grad():
        return float(scoresde.losses.edm(model, x0, torch.Generator().manual_seed(2), label=label).mean())


def run(name: str, seed: int = 0, steps: int | None = None) -> float:
    """Run a program, perhaps for a few steps, and return the loss of what it trained."""
    text = replaced(program("loop: beginning"), "seed = 0\n", f"seed = {seed}\n")
    if steps is not None:
        text = replaced(replaced(text, "steps=800", f"steps={steps}"), "warmup=50", "warmup=5")
    variables: dict[str, Any] = {"__name__": "program"}
    with elsewhere(), torch.random.fork_rng(devices=[]):
        exec(compile(text + program(f"loop: {name}"), f"{PAGE.name}, {name}", "exec"), variables)
    return loss(variables["trained"], DRAWS if steps is None else 1)


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """In a temporary folder, with nothing shown: loops of others write logs, bars and advice."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                yield
        finally:
            os.chdir(here)


def installed(name: str) -> bool:
    return name == "trainer" or importlib.util.find_spec(name) is not None


def compared(losses: dict[str, list[float]]) -> dict[str, Any]:
    """The mean and the spread of the trainer, and how far the loops are off."""
    mean, spread = (f(losses["trainer"]) for f in (statistics.mean, statistics.stdev))
    out: dict[str, Any] = {"mean": mean, "spread": spread, "off": {}}
    for name in LOOPS[1:]:
        error = math.sqrt(sum(statistics.variance(losses[n]) / len(losses[n]) for n in ("trainer", name)))
        out["off"][name] = (statistics.mean(losses[name]) - mean) / error
    return out


def check(results: dict[str, Any]) -> None:
    """The loops reach the loss of the trainer within its spread."""
    losses = results["losses"]
    found = compared(losses)
    for name in LOOPS[1:]:
        if len(losses[name]) < 5 or not abs(found["off"][name]) < MOST:
            sys.exit(f"The loop of {name} has another loss than the trainer: {found}.")
        if not abs(statistics.mean(losses[name]) - found["mean"]) < found["spread"]:
            sys.exit(f"The mean loss of {name} is not within the spread of the trainer: {found}.")
    print("losses of the loops:", found)


def short() -> dict[str, float]:
    """Losses after a few steps of the loops that can run."""
    found = {name: run(name, steps=SHORT) for name in LOOPS if installed(name)}
    print(f"after {SHORT} steps:", found)
    for name, value in found.items():
        if not abs(value / found["trainer"] - 1) < NEAR:
            sys.exit(f"The loop of {name} is not that of the trainer: {found}.")
    return found


def main(arguments: list[str]) -> None:
    """Train, compare, write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks training_loops", description=__doc__)
    parser.add_argument("--check", action="store_true", help="check the result file and short runs; nothing is written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.check:
        check(load("training_loops")["results"])
        short()
        return
    losses: dict[str, list[float]] = {name: [] for name in LOOPS}
    for seed in range(SEEDS):
        for name in LOOPS:
            losses[name].append(run(name, seed))
            print(f"seed {seed} {name:10} {losses[name][-1]:.4f}", flush=True)
    results = {"losses": losses, **compared(losses)}
    check(results)
    write("training_loops", results, "python -m benchmarks training_loops")
