r"""From nothing to digits by the commands of the documentation: time, and how many are recognised.

``scoresde train --steps 2000`` and ``scoresde sample`` run as a user types them, on two threads. *Recognised* is the
share of 720 samples to whose class a classifier trained on the training digits gives a probability above 0.9; beside it
that of the shipped network's samples and of the held-out digits.

``python -m benchmarks training`` writes ``results/training.json``, in about five minutes; ``--check`` takes 20 steps
and 16 samples, and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._record import write
from benchmarks.digits import recognised, train_classifier
from scoresde.training import digits_split, grey_to_x

STEPS, NUM, THREADS = 2000, 720, 2
SAMPLE = ("--method", "unipc2", "--steps", "20", "--seed", "0")


def command(*arguments: str) -> dict[str, float]:
    """Run ``scoresde``, and say how long it took."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "scoresde", *arguments], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - began, "processor seconds": used}


def main(arguments: list[str]) -> None:
    """Train, sample, judge, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks training", description=__doc__)
    parser.add_argument("--check", action="store_true", help="a check; nothing is written")
    quick = parser.parse_args(arguments).check
    steps, num = ("20", "16") if quick else (str(STEPS), str(NUM))
    torch.set_num_threads(THREADS)
    split = digits_split()
    classifier = train_classifier(split.train_images, split.train_labels, epochs=1 if quick else 40)
    held = grey_to_x(split.test_images, torch.Generator().manual_seed(1))
    results: dict[str, Any] = {"steps": int(steps), "samples": int(num), "held-out": recognised(classifier, held)}
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "mydigits")
        results["training"] = command("train", "--steps", steps, "--out", model, "--quiet")
        for name in (model, "digits"):
            out = Path(folder) / "samples.npz"
            took = command("sample", "--model", name, "--num", num, "--out", str(out), "--quiet", *SAMPLE)
            share = recognised(classifier, torch.from_numpy(np.load(out)["x"]))
            results["shipped" if name == "digits" else "trained"] = {"recognised": share, "sampling": took}
            out.unlink()
    print(results)
    if not quick:
        write("training", results, "python -m benchmarks training")
