"""Fifty million samples on 512 GPUs: how long it takes, what the file server has to do, and what breaks first.

A model of the ranks (`benchmarks._ranks`) follows the policy of `scoresde.generate`. The operations of each action are
counted in the package, what an action costs on this machine is measured, and the model is compared with real runs of
four ranks on this machine, in which ranks are killed and started again. What a cluster costs is assumed (`Cluster`).

``python -m benchmarks cluster`` writes ``results/cluster.json``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._rank_costs import containers, measured, operations
from benchmarks._rank_runs import CASES, QUICK, compared
from benchmarks._ranks import Cost, Costs, Outcome, Policy, Run, deaths
from benchmarks._record import write
from scoresde.core.support.files.shards import _READERS
from scoresde.sets.making import _LISTED

LOW, HIGH = 0.8, 1.2  # of the seconds of a real run, divided by those of the model
HOUR = 3600.0


@dataclass(frozen=True)
class Cluster:
    """What is assumed of a cluster, and of the set.

    Attributes:
        samples: of the set.
        gpus, per_node: how many there are.
        evaluations: of the network, per sample.
        evaluation: seconds of one GPU for an evaluation of one sample, in large batches.
        start: seconds until a process makes its first look: imports, weights, warm-up.
        latency: seconds of an operation at the file server.
        rate: operations per second of the file server.
        bandwidth: bytes per second of a process that writes or reads.
        spread: standard deviation of the speed of GPUs, relative.
        back: seconds until a node that died is back.
    """

    samples: int = 50_000_000
    gpus: int = 512
    per_node: int = 8
    evaluations: int = 25
    evaluation: float = 0.001
    start: float = 60.0
    latency: float = 0.0005
    rate: float = 50_000.0
    bandwidth: float = 1e9
    spread: float = 0.02
    back: float = 300.0


MEAN_TIMES = {"none": None, "6,335 h": 6335.0, "24 h": 24.0, "4 h": 4.0}  # hours between the deaths of a node
SHARD_SIZES = (256, 1024, 4096, 16384)
FOLDERS = (1, 4, 16, 64)
RATES = (5_000.0, 50_000.0, 500_000.0)
SHARD_SIZE, BATCH_SIZE, MANY = 1024, 256, 64  # MANY folders: one per node


@dataclass(frozen=True)
class Facts:
    """What was measured or counted: operations of each action, what a sample has in a container, seconds per byte that
    is hashed, and seconds per name that is listed."""

    operations: dict[str, int]
    container: dict[str, float]
    digest: float
    name: float = 0.0


def costs_of(cluster: Cluster, facts: Facts, shard_size: int, folders: int = 1) -> Costs:
    """What actions cost on a cluster; a folder has its share of the file server. Of the shards that are read again
    several are hashed at the same time, while their bytes share the bandwidth of the process."""
    size = facts.container["bytes"] * shard_size
    cost = {name: Cost(count * cluster.latency, count) for name, count in facts.operations.items()}
    moved, digest, pack = size / cluster.bandwidth, size * facts.digest, facts.container["seconds"] * shard_size
    checked = moved + (cost["check"].seconds + digest) / _READERS
    return Costs(
        start=cluster.start,
        compute=shard_size * cluster.evaluations * cluster.evaluation,
        complete=cost["complete"],
        busy=cost["busy"],
        take=cost["take"],
        write=cost["write"]._replace(seconds=cost["write"].seconds + pack + moved + digest),
        beat=cost["beat"],
        check=cost["check"]._replace(seconds=checked),
        pack=pack,
        name=facts.name,
        rate=cluster.rate / folders,
    )


def planned(
    cluster: Cluster,
    facts: Facts,
    *,
    shard_size: int = SHARD_SIZE,
    folders: int = 1,
    mean: float | None = None,
    policy: Policy | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What a set takes.

    Args:
        cluster, facts: see there.
        shard_size: samples in a shard.
        folders: among which the samples and the nodes are divided.
        mean: hours between the deaths of a node; None: there are none.
        policy: of the ranks.
        seed: of speeds and deaths.
    """
    ranks, shards = cluster.gpus // folders, -(-cluster.samples // shard_size // folders)
    costs = costs_of(cluster, facts, shard_size, folders)
    outcomes: list[Outcome] = []
    for folder in range(folders):
        chance = np.random.default_rng((seed, folder))
        horizon = 4 * (cluster.start + shards * costs.compute / ranks)
        found = deaths(chance, mean * HOUR, horizon, ranks, cluster.per_node, cluster.back, False) if mean else []
        run = Run(
            ranks, shards, costs, policy, deaths=found, group=cluster.per_node, spread=cluster.spread,
            seed=seed + folder, most=64,
        )  # fmt: skip
        outcomes.append(run.run())
    counts = {
        name: sum(outcome.operations[name] for outcome in outcomes)
        for name in sorted({name for outcome in outcomes for name in outcome.operations})
    }
    minutes: Counter[int] = Counter()
    for outcome in outcomes:
        minutes.update({minute: round(count) for minute, count in outcome.minutes.items()})
    made, ended = max(o.made for o in outcomes), max(o.ended for o in outcomes)
    useful = cluster.samples * cluster.evaluations * cluster.evaluation / cluster.gpus
    return {
        "shard size": shard_size,
        "folders": folders,
        "hours between deaths": mean,
        "shards": shards * folders,
        "files": 2 * shards * folders,
        "bytes": cluster.samples * facts.container["bytes"],
        "seconds of a shard": costs.compute,
        "made": made,
        "ended": ended,
        "checked": all(outcome.checked for outcome in outcomes),
        "useful": useful,
        "share while made": useful / made,
        "share in all": useful / ended,
        "ranks that died": sum(outcome.deaths for outcome in outcomes),
        "lost": sum(outcome.lost for outcome in outcomes) / (useful * cluster.gpus),
        "operations": counts,
        "all operations": sum(counts.values()),
        "operations per second": sum(counts.values()) / ended,
        "busiest minute": max(minutes.values()) / 60,
    }


def shown(name: str, row: dict[str, Any]) -> None:
    """Print a row."""
    keys = ("shards", "made", "ended", "share in all", "ranks that died", "lost", "all operations", "busiest minute")
    print(f"{name:34}", "  ".join(f"{key} {row[key]:.4g}" for key in keys), flush=True)


def tables(cluster: Cluster, facts: Facts, pictures: Facts) -> dict[str, Any]:
    """The tables of the page."""
    found: dict[str, dict[str, Any]] = {}

    def note(table: str, name: str, row: dict[str, Any]) -> None:
        found.setdefault(table, {})[name] = row
        shown(f"{table}: {name}", row)

    for size in SHARD_SIZES:
        note("shard size", str(size), planned(cluster, facts, shard_size=size))
    for size in SHARD_SIZES:
        note("shard size, 64 folders", str(size), planned(cluster, facts, shard_size=size, folders=MANY))
    for folders in FOLDERS:
        note("folders", str(folders), planned(cluster, facts, folders=folders))
    for rate in RATES:
        slower = replace(cluster, rate=rate)
        for folders in (1, MANY):
            name = f"{rate:,.0f} per second, {folders} folder{'s' if folders > 1 else ''}"
            note("file server", name, planned(slower, facts, folders=folders))
    for name, mean in MEAN_TIMES.items():
        note("deaths", name, planned(cluster, facts, folders=MANY, mean=mean))
    note("deaths", "4 h; 16 folders", planned(cluster, facts, folders=16, mean=4.0))
    for evaluation in (0.001, 0.01):
        slower = replace(cluster, evaluation=evaluation)
        note("evaluation", f"{evaluation:g}", planned(slower, facts, folders=MANY))
    note("container", "tar", planned(cluster, pictures, folders=MANY))
    return found


def other_policies(cluster: Cluster, facts: Facts) -> dict[str, Any]:
    """What other policies would bring, or cost, in one folder."""
    policies = {
        "as it is": Policy(),
        "records are listed": Policy(listing=True),
        "each rank reads its part again": Policy(divided=True),
        "both": Policy(listing=True, divided=True),
        "progress is shown": Policy(listed=_LISTED, batches=SHARD_SIZE // BATCH_SIZE),
    }
    found = {}
    for name, policy in policies.items():
        found[name] = planned(cluster, facts, policy=policy)
        shown(name, found[name])
    return found


def main(arguments: list[str]) -> None:
    """Count, measure, compare with real runs, calculate the plan; fail where the model is off."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cluster", description=__doc__)
    parser.add_argument("--check", action="store_true", help="one real run, and a small plan; nothing is written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        counts = operations(base / "counts")
        local = measured(base, 5 if options.check else 40)
        packed = containers(1 if options.check else 5)
        print("operations", counts)
        print("here", local)
        runs = compared(base, [QUICK] if options.check else CASES, 2 if options.check else 10)
    digest = local["per MB"]["check"] / 1e6
    arrays, pictures = (Facts(counts, packed[name], digest, local["per name"]) for name in ("safetensors", "tar"))
    cluster = Cluster()
    if options.check:
        shown("a small plan", planned(replace(cluster, samples=200_000, gpus=32), arrays, mean=4.0))
    else:
        results = {
            "operations": counts,
            "here": local,
            "containers": packed,
            "real runs": runs,
            "assumed": asdict(cluster),
            "plan": tables(cluster, arrays, pictures),
            "other policies": other_policies(cluster, arrays),
        }
        write("cluster", results, "python -m benchmarks cluster")
    if not LOW <= runs["smallest ratio"] <= runs["largest ratio"] <= HIGH:
        sys.exit("the model is more than 20 % off")
