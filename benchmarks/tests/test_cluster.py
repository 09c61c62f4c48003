"""The model of the ranks that make a set: closed forms, what is conserved, what deaths cost, and the committed plan."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import _rank_costs, _rank_runs, _ranks, cluster
from benchmarks._faults import draw
from benchmarks._ranks import Cost, Costs, Death, Policy, Run, deaths
from benchmarks._tables import load

NOTHING = Cost()
FREE = Costs(0.0, 1.0, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
ONE = Cost(0.0, 1.0)  # an operation that takes no time
COUNTING = replace(FREE, complete=ONE, busy=ONE, take=ONE, write=ONE, check=ONE)


@pytest.mark.parametrize(("ranks", "shards"), [(1, 1), (1, 7), (4, 8), (4, 9), (5, 3), (16, 100)])
def test_the_time_of_a_run_without_costs_is_that_of_the_rounds(ranks: int, shards: int) -> None:
    found = Run(ranks, shards, FREE).run()
    assert found.made == math.ceil(shards / ranks)
    assert found.made <= found.ended <= found.made + 0.2 + 1e-9  # the others see it at the end of a pause
    assert found.checked and found.lost == found.deaths == 0


def test_each_rank_pays_for_its_start_and_the_first_for_the_check() -> None:
    costs = replace(FREE, start=5.0, check=Cost(2.0, 0.0))
    assert Run(2, 4, costs).run().ended == pytest.approx(5 + 2 + 4 * 2)
    assert Run(2, 4, costs, Policy(divided=True)).run().ended == pytest.approx(5 + 2 + 2 * 2)


def test_writing_goes_on_beside_the_next_shard() -> None:
    costs = replace(FREE, write=Cost(0.5, 0.0))
    assert Run(1, 4, costs).run().made == pytest.approx(4 * 1.0 + 0.5)
    assert Run(1, 4, costs, Policy(overlap=False)).run().made == pytest.approx(4 * 1.5)
    slow = replace(FREE, write=Cost(3.0, 0.0))
    assert Run(1, 4, slow).run().made == pytest.approx(1.0 + 4 * 3.0)  # one at a time


@pytest.mark.parametrize(("ranks", "shards", "most"), [(1, 10, 1), (4, 40, 1), (8, 100, 16)])
def test_operations_are_counted(ranks: int, shards: int, most: int) -> None:
    """Each shard is made once, and each rank finds the others' shards complete once."""
    counts = Run(ranks, shards, COUNTING, most=most).run().operations
    assert counts["take"] == counts["write"] == counts["check"] == shards
    assert counts["complete"] == (ranks - 1) * shards
    assert counts["listing"] == 0


def test_the_lease_is_changed_while_a_shard_is_computed_and_after_it_is_packed() -> None:
    costs = replace(COUNTING, compute=12.0, beat=ONE)
    assert Run(1, 3, costs).run().operations["beat"] == 3 * 2  # at 5 s and at 10 s
    assert Run(1, 3, replace(costs, pack=3.5)).run().operations["beat"] == 3 * 3


def test_a_slow_file_server_sets_the_time() -> None:
    slow = replace(COUNTING, rate=10.0)
    found = Run(8, 100, slow, most=16).run()
    total = sum(found.operations.values())
    assert found.ended >= total / 10.0
    assert sum(found.minutes.values()) == total and max(found.minutes.values()) <= 10.0 * 60 + 16


def test_listing_saves_looks() -> None:
    each = Run(16, 400, COUNTING, most=16).run().operations
    listed = Run(16, 400, COUNTING, Policy(listing=True), most=16).run().operations
    assert listed["complete"] + listed["listing"] < 0.1 * each["complete"]
    assert listed["take"] == 400


def test_progress_lists_the_records_now_and_then() -> None:
    """A rank makes shards of 1 s in four batches. It lists at 0.25 s, and every 10 s from then on."""
    each = replace(COUNTING, complete=Cost(0.0, _ranks.NAMES))  # so that a listing is one operation, and its names few
    alone = Run(1, 40, each, Policy(listed=10.0, batches=4)).run().operations["listing"]
    assert alone == pytest.approx(4, abs=4 * 40 / _ranks.NAMES)
    two = Run(2, 40, each, Policy(listed=10.0, batches=4)).run().operations["listing"]
    assert two == pytest.approx(2 * 2, abs=4 * 40 / _ranks.NAMES)
    every = Run(2, 40, each, Policy(listed=0.0, batches=4)).run().operations["listing"]
    assert every > 40 * 4


# Deaths: two ranks, four shards, of which the second one is lost at 1.5 s.
BUSY = Policy(patience=10.0)


def test_a_lease_is_taken_over_at_once_on_the_same_host() -> None:
    found = Run(2, 4, FREE, BUSY, deaths=[Death(1.5, (1,))], group=2).run()
    assert (found.deaths, found.lost) == (1, 0.5)
    assert found.made == pytest.approx(3.0, abs=0.3)  # shards 0, 1, and 3, which was lost


def test_a_lease_of_another_host_is_taken_over_after_the_patience() -> None:
    found = Run(2, 4, FREE, BUSY, deaths=[Death(1.5, (1,))], group=1).run()
    assert found.made == pytest.approx(2.0 + 10.0 + 1.0, abs=0.3)


def test_a_rank_that_comes_back_takes_its_own_lease() -> None:
    back = Run(2, 4, FREE, BUSY, deaths=[Death(1.5, (1,), 0.1)], group=1).run()
    assert back.made == pytest.approx(1.6 + 1.0)
    new_host = Run(2, 4, FREE, BUSY, deaths=[Death(1.5, (1,), 0.1, same=False)], group=1).run()
    assert new_host.made == pytest.approx(1.6 + 10.0 + 1.0, abs=0.3)


def test_what_is_being_written_is_lost_too() -> None:
    costs = replace(FREE, write=Cost(0.9, 0.0))
    found = Run(1, 3, costs, deaths=[Death(1.5, (0,), 0.0)], group=1).run()
    assert found.lost == 1.0 + 0.5
    assert found.made == pytest.approx(1.5 + 3 * 1.0 + 0.9)


def test_a_set_without_ranks_is_not_made() -> None:
    found = Run(2, 4, FREE, deaths=[Death(0.5, (0, 1))], group=2).run()
    assert found.made == math.inf and found.ended == 0.5 and not found.checked


def test_without_rank_0_nobody_reads_again() -> None:
    found = Run(2, 4, FREE, deaths=[Death(0.5, (0,))], group=2).run()
    assert found.made < math.inf and not found.checked


def test_deaths_are_exponential_and_seeded() -> None:
    """Of 8,000 nodes, at a mean of 10 in a time of 1: a share of 1 - exp(-0.1), within five standard errors."""

    def draw() -> list[Death]:
        return deaths(np.random.default_rng(7), 10.0, 1.0, 16_000, 2, None, True)

    found = draw()
    share = -math.expm1(-0.1)
    assert abs(len(found) / 8000 - share) < 5 * math.sqrt(share * (1 - share) / 8000)
    assert found == draw() == sorted(found) and all(len(death.ranks) == 2 for death in found)


def test_a_run_is_a_function_of_its_seed() -> None:
    found = [Run(8, 100, COUNTING, spread=0.1, seed=seed).run() for seed in (0, 0, 1)]
    assert found[0] == found[1] and found[0].made != found[2].made


# What it is filled with


@pytest.mark.skipif(sys.version_info < (3, 11), reason="where pathlib has its own names of the calls that are counted")
@pytest.mark.skipif(os.name != "posix", reason="folders are not synced")
def test_the_operations_are_those_of_the_package(tmp_path: Path) -> None:
    """After a change of the files of a set: ``python -m benchmarks cluster``."""
    assert _rank_costs.operations(tmp_path) == load("cluster")["results"]["operations"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="where pathlib has its own names of the calls that are counted")
@pytest.mark.skipif(os.name != "posix", reason="folders are not synced")
@pytest.mark.parametrize("complete", [False, True])
def test_the_operations_of_a_process_are_those_of_the_model(complete: bool, tmp_path: Path) -> None:
    """Of ten shards more, which a process makes or finds complete, and reads again."""
    found = []
    for shards in (10, 20):
        folder, log = tmp_path / f"set {shards}", tmp_path / "log"
        if complete:
            draw(folder, log, shards)
        with _rank_costs.counted() as calls:
            draw(folder, log, shards, patience=60.0)
        found.append(sum(calls.values()))
    counts = load("cluster")["results"]["operations"]
    made = ("complete",) if complete else ("take", "write")
    of_the_log = 0 if complete else 1
    assert found[1] - found[0] == 10 * (sum(counts[name] for name in (*made, "check")) + of_the_log)


def test_the_final_reading_takes_several_threads() -> None:
    counts = dict.fromkeys(_rank_costs.NAMES, 4)
    small = cluster.Cluster(latency=0.01, bandwidth=1e6)
    facts = cluster.Facts(counts, {"bytes": 1000.0, "seconds": 1e-3}, 1e-6)
    costs = cluster.costs_of(small, facts, 1000)
    assert costs.check.seconds == pytest.approx((4 * 0.01 + 1.0) / 8 + 1.0)
    assert costs.write.seconds == pytest.approx(4 * 0.01 + 1.0 + 1.0 + 1.0) and costs.pack == pytest.approx(1.0)


def test_actions_are_measured(tmp_path: Path) -> None:
    found = _rank_costs.seconds(tmp_path, 1)
    assert tuple(found) == _rank_costs.NAMES and min(found.values()) > 0


def test_the_bytes_of_containers() -> None:
    found = _rank_costs.containers(1, 8)
    recorded = load("cluster")["results"]["containers"]
    assert set(found) == set(recorded)
    for name, row in recorded.items():
        least = 3 * 64 * 64 * (4 if name in ("safetensors", "npz") else 1)
        assert least <= row["bytes"] < 1.2 * least, name


def test_a_plan_is_a_run() -> None:
    facts = cluster.Facts(dict.fromkeys(_rank_costs.NAMES, 1), {"bytes": 100.0, "seconds": 0.0}, 0.0)
    small = cluster.Cluster(samples=64_000, gpus=16, spread=0.0, latency=0.0, rate=math.inf, bandwidth=math.inf)
    row = cluster.planned(small, facts, shard_size=1000, folders=2)
    assert row["shards"] == 64 and row["checked"]
    assert row["made"] == pytest.approx(60 + 4 * 25) and row["useful"] == pytest.approx(100)
    dying = cluster.planned(small, facts, shard_size=1000, folders=2, mean=0.02)
    assert dying["ranks that died"] > 0 and dying["made"] > row["made"] and dying["lost"] > 0


@pytest.mark.parametrize("case", _rank_runs.CASES, ids=str)
def test_the_cases_of_real_runs_end(case: _rank_runs.Case) -> None:
    """By the model; a case in which all ranks die, and none comes back, would end without a set."""
    costs = replace(FREE, start=0.02, compute=4 * _rank_runs.PAUSE)
    for seed in range(3):
        found = _rank_runs.modelled(case, seed, costs)
        assert found.made < math.inf and (found.deaths > 0) == (case.mean is not None)


def results() -> dict[str, Any]:
    found: dict[str, Any] = load("cluster")["results"]
    return found


def test_the_model_agreed_with_real_runs() -> None:
    runs = results()["real runs"]["runs"]
    assert len(runs) == len(_rank_runs.CASES) and all(row["complete"] for row in runs)
    assert all(cluster.LOW <= row["ratio"] <= cluster.HIGH for row in runs)
    assert sum(row["deaths"] for row in runs) >= 20


def test_what_the_page_says_of_the_plan() -> None:
    found = results()
    plan, counts = found["plan"], found["plan"]["folders"]["1"]["operations"]
    one, many = plan["folders"]["1"], plan["folders"]["64"]
    assert one["ended"] > 2 * one["made"]  # looks at records and the final reading take longer than the network
    assert many["share in all"] > 0.9 and one["share in all"] < 0.5
    assert many["shards"] == 64 * 763 and found["assumed"]["samples"] <= 64 * 763 * 1024
    assert counts["complete"] > 0.9 * one["all operations"]
    assert counts["busy"] < 0.05 * one["all operations"]
    shown = found["other policies"]["progress is shown"]
    assert shown["operations"]["listing"] < 0.2 * one["all operations"]
    assert abs(shown["ended"] - one["ended"]) < 0.1 * one["ended"]
    assert plan["shard size"]["16384"]["made"] > plan["shard size"]["4096"]["made"]
    sizes = plan["shard size, 64 folders"]
    assert min(sizes, key=lambda size: sizes[size]["ended"]) == "1024"
    assert max(row["ended"] for row in sizes.values()) < 1.05 * sizes["1024"]["ended"]
    assert plan["shard size"]["256"]["ended"] > 2 * plan["shard size"]["16384"]["ended"]
    assert plan["deaths"]["6,335 h"]["ranks that died"] == 0
    assert 300 < plan["deaths"]["4 h"]["ended"] - plan["deaths"]["none"]["ended"] < 1000
    assert plan["deaths"]["4 h; 16 folders"]["ended"] < plan["deaths"]["4 h"]["ended"]
    assert plan["evaluation"]["0.01"]["share in all"] > 0.95
