"""What noise per sample costs, beside torch's generator for the batch, and beside a step of a network.

The draws are those of a solve of 50 steps: `scoresde.SampleNoise` against ``torch.randn`` into new memory, on one
thread, in turns in one process, medians of processor time. The step is one of `ddim` with the digits network and 256
samples.

``python -m benchmarks streams`` writes ``results/streams.json``.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

import scoresde
from benchmarks._record import write
from benchmarks.speed import interleaved

SHAPES = {"256 x 64": (256, 64), "64 x 3072": (64, 3072)}
DRAWS = 50
BATCH = 256


def draws_of(shape: tuple[int, int], per_sample: bool) -> None:
    """All draws of a solve."""
    like = torch.empty(shape)
    source = scoresde.SampleNoise(0, indices=range(shape[0]))
    for _ in range(DRAWS):
        if per_sample:
            source.normal(like)
        else:
            torch.randn(shape)


def main(arguments: list[str]) -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks streams", description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"draws": {}}
    for name, shape in SHAPES.items():
        programs = {each: (lambda shape=shape, each=each: draws_of(shape, each)) for each in (False, True)}
        found = interleaved(programs, options.rounds, time.process_time)
        results["draws"][name] = {
            "microseconds of torch.randn": 1e6 * found[False] / DRAWS,
            "ratio": found[True] / found[False],
        }
        print(name, results["draws"][name])
    network = scoresde.load("digits")
    sde, score = network.sde, network.score()
    shape = (BATCH, *network.event_shape)
    x = torch.randn(shape)

    def step() -> None:
        scoresde.solve(sde, score, x, method="ddim", steps=4)

    def draw() -> None:
        draws_of((BATCH, x[0].numel()), True)

    with torch.no_grad():
        found_step = interleaved({"step": step, "draw": draw}, max(3, options.rounds // 4), time.process_time)
    results["share of a step"] = (found_step["draw"] / DRAWS) / (found_step["step"] / 4)
    print(f"a draw takes {100 * results['share of a step']:.2f} % of a step of the digits network, {BATCH} samples")
    write("streams", results, "python -m benchmarks streams")
