r"""How close samples of the digits network are to held-out digits, by method and process.

Three figures, each beside what the training digits themselves reach against the held-out ones:

- recognised: the share that a classifier trained on the training digits recognises with probability above 0.9;
- energy, sw2: energy distance and sliced Wasserstein-2 distance to the held-out digits;
- nearest: the median distance to the nearest training digit, over that of the held-out digits (a copy has 0).

``python -m benchmarks digits`` writes ``results/digits.json`` and the pictures ``docs/assets/digits.png``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import scoresde
from benchmarks._record import write
from benchmarks._tables import load
from scoresde.training import digits_split, grey_to_x

SDES = {
    "VE": scoresde.VESDE(),
    "VP": scoresde.VPSDE(),
    "sub-VP": scoresde.SubVPSDE(),
    "VDM": scoresde.VDMSDE(),
    "flow": scoresde.FlowSDE(),
}
# What runs are called, and the options of solve.
METHODS: dict[str, dict[str, Any]] = {
    "pc": {"method": "pc", "steps": 500},
    "pc, 200 steps": {"method": "pc", "steps": 200},
    "pc, 200 steps, snr 0.05": {"method": "pc", "steps": 200, "snr": 0.05},
    "ancestral": {"method": "ancestral", "steps": 250},
    "ancestral, 400 steps": {"method": "ancestral", "steps": 400},
    "er_sde3, 20 steps": {"method": "er_sde3", "steps": 20},
    "er_sde3, 50 steps": {"method": "er_sde3", "steps": 50},
    "edm, 25 steps": {"method": "edm", "steps": 25},
    "dpm_3m, 20 steps": {"method": "dpm_3m", "steps": 20},
    "ddim": {"method": "ddim", "steps": 100},
    "rk45": {"method": "rk45", "rtol": 1e-3, "atol": 1e-3},
    "adams": {"method": "adams", "rtol": 1e-3, "atol": 1e-3},
}


class Classifier(nn.Module):
    """A small convolutional network for 8×8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(64 * 16, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(128, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, 10)``."""
        return self.layers(x)


def train_classifier(
    images: Tensor,
    labels: Tensor,
    seed: int = 0,
    epochs: int = 40,
    view: Callable[[Tensor], Tensor] = lambda x: x,
) -> Classifier:
    """Train on freshly dequantised digits, or what is seen of them; everything is drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Classifier().train()
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(64):
                loss = nn.functional.cross_entropy(net(view(grey_to_x(images[rows]))), labels[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return net.eval()


@torch.no_grad()
def recognised(net: Classifier, x: Tensor) -> float:
    """The share recognised with probability above 0.9."""
    return float((net(x).softmax(1).amax(1) > 0.9).float().mean())


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|A - B| - E|A - A'| - E|B - B'| of the two empirical distributions (not negative; 0 for equal ones)."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 1000, seed: int = 0) -> float:
    """Root mean square over directions of the one-dimensional Wasserstein-2 distances."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    generator = torch.Generator().manual_seed(seed)
    v = nn.functional.normalize(torch.randn(a.shape[1], directions, generator=generator, dtype=torch.float64), dim=0)
    q = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    gaps = torch.quantile(a @ v, q, dim=0) - torch.quantile(b @ v, q, dim=0)
    return float(gaps.square().mean().sqrt())


def nearest(x: Tensor, train: Tensor) -> float:
    """The median distance to the nearest training digit."""
    return float(torch.cdist(x.flatten(1), train.flatten(1)).amin(1).median())


def draw(job: tuple[str, str, int, int]) -> tuple[Tensor, Tensor]:
    """Samples of the seeds first … last - 1, and their evaluations; how the seeds are dealt out does not matter."""
    method, process, first, last = job
    sde = SDES[process]
    score_fn = scoresde.load("digits").score(sde)
    solution = scoresde.solve(sde, score_fn, seeds=range(first, last), **METHODS[method])
    return solution.x, solution.nfe.double()


def main(arguments: list[str]) -> None:
    """Sample, measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks digits", description=__doc__)
    parser.add_argument("--num", type=int, default=1437)
    parser.add_argument("--batch", type=int, default=144)
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--only", nargs="*", choices=METHODS, help="some of them; the others stay in the file")
    parser.add_argument("--on", nargs="*", choices=SDES, default=list(SDES), help="some of the processes")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)

    split = digits_split(seed=0)
    generator = torch.Generator().manual_seed(1)
    train, held = grey_to_x(split.train_images, generator), grey_to_x(split.test_images, generator)
    classifier = train_classifier(split.train_images, split.train_labels)

    def measure(x: Tensor) -> dict[str, float]:
        return {
            "recognised": recognised(classifier, x),
            "energy": energy_distance(x, held),
            "sw2": sliced_wasserstein(x, held),
            "nearest": nearest(x, train),
        }

    with torch.no_grad():
        accuracy = float((classifier(held).argmax(1) == split.test_labels).float().mean())
    again = grey_to_x(split.train_images, generator)
    results: dict[str, Any] = {
        "classifier accuracy on held-out digits": accuracy,
        "held-out": {"recognised": recognised(classifier, held), "nearest": nearest(held, train)},
        "training": {k: v for k, v in measure(again).items() if k != "nearest"},
        "samples": {},
    }
    goal = results["held-out"] | results["training"]
    firsts = range(0, options.num, options.batch)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(options.workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,))
    print(f"{'':18}{'recognised':>11}{'energy':>9}{'sw2':>8}{'nearest':>9}{'evaluations':>13}{'seconds':>9}")
    print(f"{'held-out':18}{results['held-out']['recognised']:>11.3f}{'':17}{1.0:>9.2f}")
    print(f"{'training':18}{results['training']['recognised']:>11.3f}{goal['energy']:>9.4f}{goal['sw2']:>8.4f}")
    for method in options.only or METHODS:
        for name in options.on:
            started = time.perf_counter()
            jobs = [(method, name, first, min(first + options.batch, options.num)) for first in firsts]
            done = list(tqdm(pool.map(draw, jobs), total=len(jobs), desc=f"{method} {name}", leave=False))
            parts, evaluations = [x for x, _ in done], [nfe for _, nfe in done]
            row = measure(torch.cat(parts))
            row["nearest"] /= goal["nearest"]
            row["evaluations"] = float(torch.cat(evaluations).mean())
            row["energy / training's"] = row["energy"] / goal["energy"]
            row["sw2 / training's"] = row["sw2"] / goal["sw2"]
            results["samples"].setdefault(method, {})[name] = row
            print(
                f"{method + ' ' + name:18}{row['recognised']:>11.3f}{row['energy']:>9.4f}{row['sw2']:>8.4f}"
                f"{row['nearest']:>9.2f}{row['evaluations']:>13.1f}{time.perf_counter() - started:>9.1f}",
                flush=True,
            )
    if not options.no_write:
        if options.only:
            known = {**load("digits")["results"]["samples"], **results["samples"]}
            results["samples"] = {method: known[method] for method in METHODS if method in known}
        write("digits", results, "python -m benchmarks digits")
        sde = SDES["VP"]
        network = scoresde.load("digits")
        drawn = scoresde.solve(sde, network.score(sde), method="pc", seeds=list(range(64)), denoise=True)
        Path("docs/assets").mkdir(parents=True, exist_ok=True)
        scoresde.plot.image_grid(drawn.x, "docs/assets/digits.png")
