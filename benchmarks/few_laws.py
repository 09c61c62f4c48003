r"""How good the samples of the digits network are after few evaluations: by default, tuned, learned, after 100 steps.

The classes are asked for in turn, 1,000 samples of the same noise for each row. Three figures:

- recognised: the share in which a classifier, which saw the training digits only, finds the class that was asked for;
- energy, sw2: energy distance and sliced Wasserstein-2 distance to the held-out digits, over those of the training
  digits.

``python -m benchmarks few_laws`` writes ``results/few_laws.json`` and the picture ``docs/assets/few.png``: the digits 0
to 9 of the network of MNIST from the same noise, for 4, 5, 8 and 20 evaluations by default, tuned and learned, and at
the end of the path; ``--picture`` draws only.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._record import write
from benchmarks.digits import energy_distance, sliced_wasserstein, train_classifier
from scoresde.plot import image_grid
from scoresde.solvers import UniPC
from scoresde.training import digits_split, grey_to_x

SAMPLES = 1000
BUDGETS = (5, 8, 10)
SHOWN = (4, 5, 8, 20)
REFERENCE: dict[str, Any] = {"method": UniPC(order=3), "steps": 100}
PICTURE = Path("docs/assets/few.png")


def kinds(model: Any, budget: int) -> dict[str, dict[str, Any]]:
    """What is compared, as options of `solve`."""
    context = {"label": torch.arange(16) % 10}
    tuned = scoresde.tune(model.sde, model.score(), budget, context=context, seed=1)
    return {
        "auto": {"method": "auto", "steps": budget},
        "tuned": {"method": tuned},
        "learned": {"method": model.solver(budget)},
    }


def samples(model: Any, count: int, **options: Any) -> Tensor:
    """Samples of the classes in turn; sample i has the noise of seed i."""
    context = {"label": torch.arange(count) % 10}
    return scoresde.solve(model.sde, model.score(), seeds=range(count), context=context, **options).x


def measure(model: Any) -> dict[str, Any]:
    """All figures."""
    split = digits_split(seed=0)
    generator = torch.Generator().manual_seed(1)
    train, held = grey_to_x(split.train_images, generator), grey_to_x(split.test_images, generator)
    classifier = train_classifier(split.train_images, split.train_labels)
    goal = energy_distance(train, held), sliced_wasserstein(train, held)

    def figures(x: Tensor) -> dict[str, float]:
        with torch.no_grad():
            right = classifier(x).argmax(1) == torch.arange(len(x)) % 10
        energy, sw2 = energy_distance(x, held) / goal[0], sliced_wasserstein(x, held) / goal[1]
        return {"recognised": float(right.float().mean()), "energy": energy, "sw2": sw2}

    rows: dict[str, Any] = {"100 steps": figures(samples(model, SAMPLES, **REFERENCE))}
    print("100 steps", rows["100 steps"], flush=True)
    for budget in BUDGETS:
        rows[str(budget)] = {kind: figures(samples(model, SAMPLES, **o)) for kind, o in kinds(model, budget).items()}
        print(budget, rows[str(budget)], flush=True)
    return rows


def picture(model: Any) -> None:
    """Digits by each, and the ends of the paths."""
    rows = [samples(model, 10, **o) for budget in SHOWN for o in kinds(model, budget).values()]
    image_grid(torch.cat([*rows, samples(model, 10, **REFERENCE)]), PICTURE, columns=10, scale=2)


def main(arguments: list[str]) -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks few_laws", description=__doc__)
    parser.add_argument("--picture", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not options.picture:
        write("few_laws", measure(scoresde.load("digits")), "python -m benchmarks few_laws")
    picture(scoresde.load("mnist"))
