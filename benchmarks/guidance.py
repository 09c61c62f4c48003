r"""What classifier-free guidance of the networks of digits does, by scale.

Samples of every class, beside the held-out digits of that class:

- right: the share that a classifier trained on the training digits takes for their class;
- sure: the share to whose class it gives a probability above 0.9;
- energy: the energy distance to the held-out digits of the class, mean over classes, in units of what the training
  digits of the class reach;
- diversity: the root mean square distance of two samples of a class, over that of two held-out digits of it.

``python -m benchmarks guidance`` measures the digits network and writes ``results/guidance.json``; with ``--images
FILE`` it measures the network of MNIST, whose figures are a part of the file, in about ten minutes. The energy distance
of fewer digits is larger, so that the training digits of MNIST are as many as the samples. ``--check`` draws 20 of each
class and writes nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import scoresde
from benchmarks._shipped import Shipped, add_images, shipped
from benchmarks.digits import energy_distance
from scoresde import guidance

SDE = scoresde.VPSDE()
INTERVAL = (-4.0, 4.0)  # of the log-SNR
# What runs are called, and the options of classifier_free.
RUNS: dict[str, dict[str, Any]] = {
    "0": {"scale": 0.0},
    "1": {"scale": 1.0},
    "1.5": {"scale": 1.5},
    "2": {"scale": 2.0},
    "3": {"scale": 3.0},
    "5": {"scale": 5.0},
    "8": {"scale": 8.0},
    "3, interval": {"scale": 3.0, "interval": INTERVAL},
    "5, interval": {"scale": 5.0, "interval": INTERVAL},
    "5, rescale 0.7": {"scale": 5.0, "rescale": 0.7},
}
QUICK = ("1", "2", "5")
# By network: samples of each class, steps, and training digits of each class to compare with (None: all).
COUNTS: dict[str, tuple[int, int, int | None]] = {"digits": (140, 30, None), "mnist": (30, 20, 30)}


def draw(
    network: scoresde.zoo.Pretrained, options: dict[str, Any], labels: Tensor, steps: int
) -> tuple[Tensor, scoresde.Solution]:
    """A sample for each label, and the solve; sample i has the seed i in every run."""
    guided = guidance.classifier_free(network.score(SDE), network.score(SDE), **options)
    solution = scoresde.solve(
        SDE,
        guided,
        method="unipc3",
        steps=steps,
        seeds=range(len(labels)),
        context={"label": labels},
        denoise=True,
    )
    return solution.x, solution


def spread(x: Tensor) -> float:
    """The root mean square distance of two of them."""
    return float((2 * x.flatten(1).var(0).sum()).sqrt())


@torch.no_grad()
def measure(net: nn.Module, x: Tensor, labels: Tensor, held: Tensor, held_labels: Tensor) -> dict[str, float]:
    """The figures; see the module."""
    own = net(x).softmax(1).gather(1, labels[:, None])[:, 0]
    right = net(x).argmax(1) == labels
    pairs = [(x[labels == k], held[held_labels == k]) for k in range(10)]
    return {
        "right": float(right.float().mean()),
        "sure": float((own > 0.9).float().mean()),
        "energy": sum(energy_distance(a, b) for a, b in pairs) / 10,
        "diversity": sum(spread(a) / spread(b) for a, b in pairs) / 10,
    }


def figures(digits: Shipped, names: Sequence[str], num: int, steps: int, most: int | None, part: int) -> dict[str, Any]:
    """Sample, measure, print a table."""
    generator = torch.Generator().manual_seed(1)
    train, held = digits.train(generator), digits.held(generator)
    net = digits.classifier(part=part)
    rows = torch.cat([(digits.train_labels == k).nonzero()[:most, 0] for k in range(10)])
    goal = measure(net, train[rows], digits.train_labels[rows], held, digits.held_labels)
    real = measure(net, held, digits.held_labels, held, digits.held_labels)
    results: dict[str, Any] = {
        "each class": num,
        "training digits of each class": most or "all",
        "steps": steps,
        "interval": list(INTERVAL),
        "held-out": {k: real[k] for k in ("right", "sure", "diversity")},
        "training": goal | {"energy": 1.0},
        "energy of the training digits": goal["energy"],
        "scales": {},
    }
    network, labels = digits.network(), torch.arange(10).repeat_interleave(num)
    print(f"{digits.name:18}{'right':>8}{'sure':>8}{'energy':>9}{'diversity':>11}{'seconds':>9}")
    print(f"{'held-out':18}{real['right']:>8.3f}{real['sure']:>8.3f}{'':9}{1.0:>11.2f}")
    print(f"{'training':18}{goal['right']:>8.3f}{goal['sure']:>8.3f}{1.0:>9.2f}{goal['diversity']:>11.2f}")
    for name in names:
        started = time.perf_counter()
        x, solution = draw(network, RUNS[name], labels, steps)
        row = measure(net, x, labels, held, digits.held_labels)
        row["energy"] /= goal["energy"]
        row["evaluations"] = float(solution.nfe.double().mean())
        results["scales"][name] = row
        print(
            f"{name:18}{row['right']:>8.3f}{row['sure']:>8.3f}{row['energy']:>9.2f}{row['diversity']:>11.2f}"
            f"{time.perf_counter() - started:>9.1f}",
            flush=True,
        )
    return results


def main(arguments: Sequence[str]) -> None:
    """Measure a network, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks guidance", description=__doc__)
    add_images(parser)
    parser.add_argument("--num", type=int, help="samples of each class")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--check", action="store_true", help="20 of each class, a few scales, 15 steps")
    parser.add_argument("--only", nargs="*", choices=RUNS)
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)
    digits = shipped(options.images)
    num, steps, most = COUNTS[digits.name]
    num, steps = (20, 15) if options.check else (options.num or num, options.steps or steps)
    names = options.only or (QUICK if options.check else tuple(RUNS))
    results = figures(digits, names, num, steps, most, part=4 if options.check else 1)
    if not (options.check or options.no_write):
        digits.write("guidance", results)
