"""Real runs of a few ranks, with deaths at given times, for comparison with the model of `benchmarks._ranks`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import scoresde
from benchmarks._faults import BATCH_SIZE, SDE, SHARD_SIZE, Score, draw, started
from benchmarks._rank_costs import operations, seconds
from benchmarks._ranks import Cost, Costs, Death, Outcome, Policy, Run, deaths
from scoresde.sets import verify

WORLD = 4
PAUSE = 0.12  # seconds of an evaluation, which a rank sleeps
LONGEST = 100.0  # seconds until a run counts as hung


@dataclass(frozen=True)
class Case:
    """A run.

    Attributes:
        shards: how many there are.
        mean: seconds between the deaths of a rank, on average; None: no deaths.
        back: seconds until it is started again; None: never.
        apart: whether each rank is on a host of its own.
        same: whether it is started again on the same host.
        patience: seconds.
    """

    shards: int
    mean: float | None = None
    back: float | None = None
    apart: bool = False
    same: bool = True
    patience: float = 2.0

    def deaths(self, seed: int) -> list[Death]:
        """What happens; where no rank comes back, at least one lives."""
        if self.mean is None:
            return []
        chance = np.random.default_rng(seed)
        horizon = self.shards / WORLD * 4 * PAUSE * 2
        found = deaths(chance, self.mean, horizon, WORLD, 1, self.back, self.same)
        return found if self.back is not None else found[: WORLD - 1]

    def text(self) -> str:
        """In words."""
        if self.mean is None:
            return "no deaths"
        again = "none comes back" if self.back is None else f"back after {self.back:g} s"
        host = "one host" if not self.apart else "other hosts" if self.back is None or self.same else "new hosts"
        return f"{host}, {again}"


CASES = [
    Case(40),
    Case(57),
    Case(40, mean=6.0),
    Case(40, mean=6.0),
    Case(40, mean=4.0, back=1.0),
    Case(40, mean=4.0, back=1.0),
    Case(40, mean=6.0, apart=True),
    Case(40, mean=6.0, apart=True),
    Case(40, mean=5.0, back=1.0, apart=True),
    Case(40, mean=5.0, back=1.0, apart=True, same=False),
    Case(40, mean=5.0, back=1.0, apart=True, same=False),
    Case(80, mean=8.0, back=3.0, apart=True, same=False),
]
QUICK = Case(8, mean=2.0, back=0.3)


def local_costs(base: Path, trials: int) -> Costs:
    """What actions cost here, each measured by itself."""
    found, counts = seconds(base / "actions", 4 * trials), operations(base / "operations")
    cost = {name: Cost(found[name], counts[name]) for name in found}
    score = Score(PAUSE, 99)
    compute, start = [], []
    draw(base / "one", base / "log of one", 1)
    for _ in range(trials):
        begin = time.perf_counter()
        for _ in range(SHARD_SIZE // BATCH_SIZE):
            scoresde.solve(SDE, score, shape=(BATCH_SIZE, 1, 4, 4), seed=0, method="ddim", steps=2)
        middle = time.perf_counter()
        os.waitpid(started(lambda: draw(base / "one", base / "log of one", 1)), 0)
        compute.append(middle - begin)
        start.append(time.perf_counter() - middle)
    return Costs(
        statistics.median(start), statistics.median(compute), cost["complete"], cost["busy"], cost["take"],
        cost["write"], cost["beat"], cost["check"],
    )  # fmt: skip


def modelled(case: Case, seed: int, costs: Costs) -> Outcome:
    """What the model says of a run."""
    policy = Policy(patience=case.patience)
    costs = replace(costs, every=min(costs.every, case.patience / 4))
    group = 1 if case.apart else WORLD
    return Run(WORLD, case.shards, costs, policy, deaths=case.deaths(seed), group=group).run()


def real(case: Case, seed: int, base: Path) -> dict[str, Any]:
    """A run: its seconds, the deaths, and whether the set is complete."""
    folder, log = base / f"set {seed}", base / f"log {seed}"
    hosts = [f"host {rank if case.apart else 0}" for rank in range(WORLD)]
    running: dict[int, int] = {}  # rank: process
    planned = [(death.time, rank, death) for death in case.deaths(seed) for rank in death.ranks]
    returns: list[tuple[float, int]] = []
    died = 0

    def launch(rank: int) -> None:
        def run() -> None:
            with mock.patch("platform.node", return_value=hosts[rank]):
                draw(folder, log, case.shards, PAUSE, patience=case.patience)

        running[rank] = started(run, rank, WORLD)

    begin = time.monotonic()
    for rank in range(WORLD):
        launch(rank)
    while (now := time.monotonic() - begin) < LONGEST and (running or returns):
        for rank in [rank for rank, process in running.items() if os.waitpid(process, os.WNOHANG)[0]]:
            del running[rank]
        while planned and planned[0][0] <= now:
            _, rank, death = planned.pop(0)
            if rank in running:
                os.kill(running[rank], signal.SIGKILL)
                os.waitpid(running.pop(rank), 0)
                died += 1
                hosts[rank] = hosts[rank] if death.same else f"new host {died}"
                returns += [] if death.back is None else [(death.time + death.back, rank)]
        for each in [each for each in returns if each[0] <= now]:
            returns.remove(each)
            launch(each[1])
        time.sleep(0.002)
    for process in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    computed = log.read_bytes().count(b"\n")
    complete = verify(folder).complete
    shutil.rmtree(folder)
    return {"seconds": now, "deaths": died, "complete": complete, "written twice": computed - case.shards}


def compared(base: Path, cases: list[Case], trials: int) -> dict[str, Any]:
    """Runs, beside what the model says of them."""
    costs = local_costs(base, trials)
    rows = []
    for seed, case in enumerate(cases):
        model, found = modelled(case, seed, costs), real(case, seed, base)
        rows.append(
            {
                "case": case.text(),
                "shards": case.shards,
                **found,
                "modelled deaths": model.deaths,
                "modelled": model.ended,
                "ratio": found["seconds"] / model.ended,
            }
        )
        print(f"{case.text():32}", "  ".join(f"{k} {v:.4g}" for k, v in list(rows[-1].items())[1:]))
    ratios = [row["ratio"] for row in rows]
    return {
        "start": costs.start,
        "compute": costs.compute,
        "runs": rows,
        "smallest ratio": min(ratios),
        "largest ratio": max(ratios),
        "median ratio": statistics.median(ratios),
    }
