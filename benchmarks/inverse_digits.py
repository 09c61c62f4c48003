r"""What the methods for inverse problems make of half a digit.

The upper half of held-out digits is seen, with noise of standard deviation 0.05; the network of the digits, without a
label, draws the lower half, some samples of each observation:

- observed: the root mean square misfit of what was seen, over the noise's standard deviation; 1 is what the data
  themselves have, and nearly what a posterior has where the noise is small;
- spread: the root mean square distance of two samples of an observation in the hidden half, over that of two digits;
- distance: that of a sample and the true digit, over that of two samples; 1 for the posterior, in which the truth is
  one more draw. Above 1 a method is too sure;
- right, sure: the share that a classifier of digits takes for the true class, and for any class with a probability
  above 0.9. *half* is what a classifier of noisy halves gives to the true class on average: the share that would be
  right in the posterior, if that classifier is;
- classes: how many classes the samples of an observation are taken for;
- evaluations of the network and vector-Jacobian products, per sample.

With few steps single samples leave the range of the data, in the half that is not measured: *few steps* has the share
of those with a value beyond 1.3 in size, and the largest, of `mmps` with and without its ``radius``.

``python -m benchmarks inverse_digits`` measures the network of the digits and writes ``results/inverse_digits.json``;
with ``--images FILE`` it measures that of MNIST, whose figures are a part of the file, in about ten minutes. ``--only``
measures some methods, ``--few`` *few steps*, and the rest is kept. ``--check`` is a small version that writes nothing;
``--sweep`` prints the figures of `dps_step` and `mcg` by the size of their steps instead.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._shipped import Shipped, add_images, shipped
from benchmarks._tables import load
from scoresde import inverse
from scoresde.inverse.rules import RULES

SDE = scoresde.VPSDE()
NOISE = 0.05
SAMPLER = "dpmpp_2m_sde"  # of the rules
# What runs are called, and the options beyond the defaults.
METHODS: dict[str, dict[str, Any]] = {
    "mmps": {},
    "tmpd": {},
    "pigdm": {},
    "dps": {},
    "ddnm": {},
    "diffpir": {},
    "ddrm": {"steps": 20},
    "ddnm_plus": {},
    "replacement": {},
    "replacement, 5 repeats": {"repeats": 5},
    "dps_step": {},
    "mcg": {},
}
QUICK = ("mmps", "ddrm", "dps_step")
ZETAS = (0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
FEW = (10, 15, 20)  # steps
RANGE = 1.3  # of the data it is 1
# By network: observations, samples of each, and steps.
COUNTS = {"digits": (40, 5, 50), "mnist": (24, 3, 30)}


def upper_half(size: int = 8) -> inverse.Mask:
    """What sees the upper half."""
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, : size // 2] = True
    return inverse.Mask(mask)


class Halves:
    """Held-out digits, half of which was seen, and what judges samples of them."""

    def __init__(self, digits: Shipped, observations: int, samples: int, part: int) -> None:
        generator = torch.Generator().manual_seed(1)
        held, labels = digits.held(generator), digits.held_labels
        self.model = digits.network()
        self.classifier = digits.classifier(part=part)
        self.operator = upper_half(held.shape[-1])
        self.truth, self.labels = held[:observations], labels[:observations]
        y = self.operator.forward(self.truth)
        self.y = y + NOISE * torch.randn(y.shape, generator=generator)
        self.samples = samples
        guess = digits.classifier(part=part, view=self._view)
        self.hidden = ~self.operator.mask
        self.usual = pairwise(held[:, self.hidden][None])
        with torch.no_grad():
            self.accuracy = float((self.classifier(held).argmax(1) == labels).float().mean())
            own = guess(self.operator.adjoint(self.y)).softmax(1).gather(1, self.labels[:, None])
            self.half = float(own.mean())

    def _view(self, x: Tensor) -> Tensor:
        """A noisy half in its place, 0 elsewhere."""
        y = self.operator.forward(x)
        return self.operator.adjoint(y + NOISE * torch.randn(y.shape))

    def run(self, method: str, **options: Any) -> inverse.PosteriorSamples:
        """Samples of each observation, one after the other."""
        return inverse.sample_posterior(
            SDE,
            self.model.score(SDE),
            self.operator,
            self.y.repeat_interleave(self.samples, 0),
            NOISE,
            method=method,
            **({"sampler": SAMPLER} if method in RULES else {}),
            **options,
            seeds=range(len(self.y) * self.samples),
            throw=False,
        )

    @torch.no_grad()
    def measure(self, got: inverse.PosteriorSamples) -> dict[str, float]:
        """The figures; see the module."""
        good = got.solution.success
        x = got.x.where(good[:, None, None, None], torch.zeros(()))
        sets = x.unflatten(0, (-1, self.samples))
        misfit = self.operator.forward(x) - self.y.repeat_interleave(self.samples, 0)
        lower = sets[:, :, self.hidden]
        away = (lower - self.truth[:, None, self.hidden]).square().sum(-1).mean().sqrt()
        spread = pairwise(lower)
        shares = self.classifier(x).softmax(1)
        taken = shares.argmax(1).unflatten(0, (-1, self.samples))
        return {
            "observed": float(misfit.square().mean().sqrt()) / NOISE,
            "spread": spread / self.usual,
            "distance": float(away) / spread,
            "right": float((taken == self.labels[:, None]).float().mean()),
            "sure": float((shares.amax(1) > 0.9).float().mean()),
            "classes": sum(len(row.unique()) for row in taken) / len(taken),
            "failed": float((~good).float().mean()),
            "evaluations": float(got.solution.evaluations),
            "products": float(got.products),
        }

    def few_steps(self) -> dict[str, dict[str, float]]:
        """What leaves the range of the data; see the module."""
        rows = {}
        for steps, (name, radius) in itertools.product(FEW, (("no radius", None), ("radius", inverse.MMPS().radius))):
            got = self.run("mmps", steps=steps, radius=radius)
            assert got.residual is not None
            sizes = got.x.abs().flatten(1).amax(1).nan_to_num(nan=math.inf)
            rows[f"{steps} steps, {name}"] = row = {
                "outside": float((sizes > RANGE).float().mean()),
                "largest": float(sizes.max()),
                "observed": float(got.residual.square().mean().sqrt()),
            }
            print(f"{steps} steps, {name:12}" + "".join(f"  {k} {v:.3g}" for k, v in row.items()), flush=True)
        return rows


def known(network: str) -> dict[str, Any]:
    """What the file has of a network."""
    found: dict[str, Any] = load("inverse_digits", None if network == "digits" else network)["results"]
    return found


def pairwise(sets: Tensor) -> float:
    """The root mean square distance of two of a set ``(sets, count, values)``."""
    return float((2 * sets.var(1).sum(-1)).mean().sqrt())


def main(arguments: Sequence[str]) -> None:
    """Sample, measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks inverse_digits", description=__doc__)
    add_images(parser)
    parser.add_argument("--observations", type=int)
    parser.add_argument("--samples", type=int, help="of each observation")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--only", nargs="*", choices=METHODS)
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)
    given = (options.observations, options.samples, options.steps)
    if (options.only or options.few) and any(given) and not options.no_write:
        parser.error("other counts than those of the file would stand in one table with them: add --no-write")
    torch.set_num_threads(1)
    digits = shipped(options.images)
    usual = (8, 4, 15) if options.check else COUNTS[digits.name]
    count, each, steps = (a or b for a, b in zip(given, usual, strict=True))
    names = options.only or (QUICK if options.check else METHODS)
    runs: dict[str, tuple[str, dict[str, Any]]] = {name: (name.split(",")[0], METHODS[name]) for name in names}
    if options.sweep:
        runs = {f"{name}, {zeta:g}": (name, {"zeta": zeta}) for name in ("dps_step", "mcg") for zeta in ZETAS}
    halves = Halves(digits, count, each, part=8 if options.check or options.few else 1)
    keep = not (options.check or options.sweep or options.no_write)
    if options.few:
        few = halves.few_steps()
        if keep:
            digits.write("inverse_digits", {**known(digits.name), "few steps": few})
        return
    results: dict[str, Any] = {
        "observations": count,
        "samples of each": each,
        "steps": steps,
        "noise": NOISE,
        "sampler of the rules": SAMPLER,
        "classifier accuracy on held-out digits": halves.accuracy,
        "half": halves.half,
        "methods": {},
    }
    print(f"right in the posterior, by a classifier of halves: {halves.half:.3f}")
    heads = ("observed", "spread", "distance", "right", "sure", "classes", "failed", "evaluations", "products")
    print(f"{'':23}" + "".join(f"{head:>12}" for head in heads) + f"{'seconds':>9}")
    for name, (method, fields) in runs.items():
        started = time.perf_counter()
        row = halves.measure(halves.run(method, **{"steps": steps, **fields}))
        results["methods"][name] = row
        numbers = "".join(f"{row[head]:>12.3g}" for head in heads)
        print(f"{name:23}{numbers}{time.perf_counter() - started:>9.1f}", flush=True)
    if keep:
        if options.only:
            results = {**known(digits.name), "methods": {**known(digits.name)["methods"], **results["methods"]}}
        else:
            results["few steps"] = halves.few_steps()
        digits.write("inverse_digits", results)
