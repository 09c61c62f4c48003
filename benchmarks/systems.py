r"""The published systems, each trained on the digits for the same time and sampled by its own sampler.

Every preset of `scoresde.presets` gets the same processor time on one thread, the steps of which follow from a pilot.
Then:

- recognised, energy: of 720 samples, as in `benchmarks.digits`; samples are first brought to the 17 grey levels and
  dequantised again, alike for systems that were trained on grey levels and on dequantised ones. Beside them stand those
  of the training digits;
- own bound: bits per dimension of the held-out digits by the preset's own bound, of grey values or of the density of
  dequantised ones as it was trained, with the standard error over digits;
- flow: bits per dimension of 120 of them by the probability flow, with uniform noise in the cells where the system was
  trained with it, else with the process's own noise cut at the cells.

``python -m benchmarks systems`` writes ``results/systems.json`` and a picture each to ``docs/assets/systems``, in about
an hour on two cores; ``--only`` renews these rows and pictures. ``--check`` checks with two presets that the loss falls
and that samples are finite.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import scoresde
from benchmarks._record import RESULTS, write
from benchmarks._tables import load
from benchmarks.digits import energy_distance, recognised, train_classifier
from scoresde import TruncatedNormalDequantizer, UniformDequantizer, discrete_log_likelihood
from scoresde.core.errors import ScoreSDEError
from scoresde.presets import PRESETS, OfChain
from scoresde.training import Every, digits_split, grey_to_x, read, train
from scoresde.zoo import Pretrained

LEVELS = 17
QUICK = ("ddpm", "edm")
PILOT = 40
PICTURES = Path("docs/assets/systems")


class Job(NamedTuple):
    """What to do with a preset; ``steps`` in place of seconds for a check."""

    name: str
    seconds: float
    steps: int | None
    num: int
    held: int
    flow: int


def pace(name: str) -> float:
    """Processor seconds per step, the median of a pilot."""
    preset, seen = PRESETS[name], []
    short = replace(preset, recipe=replace(preset.recipe, steps=PILOT))
    tick = Every(1, lambda progress: seen.append(time.process_time()))
    train(short, read("digits"), progress=False, callbacks=(tick,))
    return statistics.median(b - a for a, b in itertools.pairwise(seen[5:]))


def trained(job: Job) -> tuple[Pretrained, dict[str, Any]]:
    """The network, and what its training took."""
    preset = PRESETS[job.name]
    steps = job.steps or max(1, round(job.seconds / pace(job.name)))
    run = replace(preset, recipe=replace(preset.recipe, steps=steps))
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        options: dict[str, Any] = {"progress": False, "log_every": max(1, steps // 10), "checkpoint_every": 10**9}
        network = train(run, read("digits"), folder, **options)
        seconds = time.process_time() - began
        with (Path(folder) / "log.csv").open() as file:
            losses = [float(row["value"]) for row in csv.DictReader(file) if row["name"] == "loss"]
    return network, {"steps": steps, "seconds": seconds, "first loss": losses[0], "last loss": losses[-1]}


def grey(x: Tensor, data_range: tuple[float, float]) -> Tensor:
    """Samples in 17 grey levels."""
    low, high = data_range
    return ((x - low) / (high - low) * LEVELS).floor().clamp(0, LEVELS - 1).long()


def bits(network: Pretrained, v: Tensor, job: Job) -> dict[str, Any]:
    """By the own bound and by the flow."""
    preset, model = PRESETS[job.name], network.score()
    out: dict[str, Any] = {"own bound": None, "flow": None}
    if preset.bound is not None:
        many = isinstance(preset.bound, OfChain) and preset.bound.levels is None
        more = {"steps": "random", "draws": 64} if many else {"draws": 64}
        out["own bound"] = spread(preset.bits(model, v[: job.held], levels=LEVELS, **more))
    sde = model.sde
    even = preset.dequantise
    noise = UniformDequantizer if even else lambda *rest: TruncatedNormalDequantizer(sde, *rest)
    try:
        found = discrete_log_likelihood(
            sde,
            model,
            v[: job.flow],
            dequantizer=noise(LEVELS, preset.data_range),
            seed=0,
            rtol=1e-3,
            atol=1e-3,
            check=False,
            **({} if even else {"t_start": sde.t_min}),
        )
        out["flow"] = spread(found.bits_per_dim)
    except ScoreSDEError as error:
        out["flow failed"] = str(error)[:200]
    return out


def spread(values: Tensor) -> list[float]:
    """The mean, and its standard error over digits."""
    return [float(values.mean()), float(values.std() / len(values) ** 0.5)]


def measure(job: Job) -> tuple[str, Tensor, dict[str, Any]]:
    """Train, sample, score; the samples come back as grey levels."""
    network, row = trained(job)
    began = time.process_time()
    drawn = network.sample(job.num, seeds=range(job.num))
    row |= {"sampling seconds": time.process_time() - began, "evaluations": int(drawn.nfe[0])}
    span = network.config.data_range or (-1.0, 1.0)
    row |= {"finite": bool(drawn.x.isfinite().all())} | bits(network, digits_split().test_images, job)
    return job.name, grey(drawn.x, span), row


def keep(results: dict[str, Any], name: str, v: Tensor) -> None:
    """Renew the system's row and picture, so that an interrupted run is not lost."""
    before = load("systems")["results"]["systems"] if (RESULTS / "systems.json").exists() else {}
    rows = before | results["systems"]
    write("systems", results | {"systems": {k: rows[k] for k in PRESETS if k in rows}}, "python -m benchmarks systems")
    PICTURES.mkdir(parents=True, exist_ok=True)
    shown = v[:24].float() / (LEVELS - 1)
    scoresde.plot.image_grid(shown, PICTURES / f"{name}.png", columns=24, data_range=(0.0, 1.0))


def main(arguments: list[str]) -> None:
    """Train, sample, score, print, write JSON and a picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks systems", description=__doc__)
    parser.add_argument("--check", action="store_true", help="a check of two presets; nothing is written")
    parser.add_argument("--seconds", type=float, default=420.0, help="of training, processor time, for each")
    parser.add_argument("--only", nargs="*", choices=PRESETS, help="renew these")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    options = parser.parse_args(arguments)

    names = options.only or (QUICK if options.check else list(PRESETS))
    size = (60, 16, 8, 4) if options.check else (None, 720, 360, 120)
    jobs = [Job(name, options.seconds, *size) for name in names]
    split, generator = digits_split(), torch.Generator().manual_seed(1)
    held = grey_to_x(split.test_images, generator)
    classifier = train_classifier(split.train_images, split.train_labels, epochs=2 if options.check else 40)
    again = grey_to_x(split.train_images, generator)
    results: dict[str, Any] = {
        "training digits": {"recognised": recognised(classifier, again), "energy": energy_distance(again, held)},
        "systems": {},
    }
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        options.workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        for job, future in [(job, pool.submit(measure, job)) for job in jobs]:
            try:
                name, v, row = future.result()
            except ScoreSDEError as error:  # the others are still worth their time
                if options.check:
                    raise
                print(f"{job.name} failed and is left out: {error}", flush=True)
                continue
            x = grey_to_x(v, generator)
            row |= {"recognised": recognised(classifier, x), "energy": energy_distance(x, held)}
            results["systems"][name] = row
            print(name, {k: f"{n:.4g}" if isinstance(n, float) else n for k, n in row.items()}, flush=True)
            if options.check and not (row["finite"] and row["last loss"] < row["first loss"]):
                raise SystemExit(f"{name}: the loss did not fall, or samples are not finite.")
            if not options.check:
                keep(results, name, v)
