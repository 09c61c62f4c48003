"""Which tests run: the default tier, which rotates the cells of large functions, or the full one."""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

import pytest

# The default tier runs at most this many cells of a parametrised function, or a fourteenth of them, in each turn.
CELLS, TURNS = 30, 14


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tiers", "which tests run")
    group.addoption("--full", action="store_true", help="all tests, and all cells of each parametrised function")
    group.addoption("--turn", type=int, help="chooses the cells of large functions; by default the number of the day")
    group.addoption("--part", type=part, metavar="K/N", help="one of N parts of the tests: 1/N, ..., N/N")


def part(text: str) -> tuple[int, int]:
    """K and N of "K/N"."""
    k, n = map(int, text.split("/"))
    if not 1 <= k <= n:
        raise argparse.ArgumentTypeError(f"must be K/N with K from 1 to N, got {text}")
    return k, n


def _named(config: pytest.Config) -> bool:
    """Whether an argument names single tests, all of which run then."""
    return any("::" in argument for argument in config.args)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "cells(most): a parametrised function whose cells are expensive: at most so many"
    )
    options = config.option  # workers of a parallel run receive it as it is set here
    if options.turn is None:
        options.turn = int(time.time() // 86400)
    if not options.markexpr and not _named(config):
        options.markexpr = "not peers" if options.full else "not slow and not peers"


def pytest_report_header(config: pytest.Config) -> str:
    if config.option.full:
        return "tier: full"
    return f"tier: default, turn {config.option.turn} (--turn {config.option.turn} repeats it, --full runs everything)"


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector: pytest.Collector) -> Any:
    """Rotates the cells of large functions: all of them run within fourteen turns."""
    found = yield
    options = collector.config.option
    if not isinstance(found, list) or options.full or _named(collector.config):
        return found
    light = [item for item in found if not item.get_closest_marker("slow")]
    mark = light[0].get_closest_marker("cells") if light else None
    parts = min(TURNS, -(-len(light) // (mark.args[0] if mark else CELLS)))
    places = set(in_turn(len(light), parts, options.turn, light[0].name.partition("[")[0])) if light else set()
    collector.config.hook.pytest_deselected(items=[item for i, item in enumerate(light) if i not in places])
    return [light[i] for i in sorted(places)] + [item for item in found if item.get_closest_marker("slow")]


def in_turn(count: int, parts: int, turn: int, name: str) -> list[int]:
    """One cell of each ``parts`` neighbours, in an order that differs from neighbours to neighbours: ``parts`` turns
    have every cell once."""
    orders = random.Random(name)
    chosen = [start + orders.sample(range(parts), parts)[turn % parts] for start in range(0, count, parts)]
    return [i for i in chosen if i < count]


def pytest_itemcollected(item: pytest.Item) -> None:
    """The pages of the documentation belong to the full tier, but for the first one and those that are arguments."""
    given = [item.config.invocation_params.dir / argument for argument in item.config.args]
    if item.path.suffix == ".md" and item.path.name not in ("README.md", "quickstart.md") and item.path not in given:
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.part:
        k, n = config.option.part
        config.hook.pytest_deselected(items=[item for i, item in enumerate(items) if i % n != k - 1])
        items[:] = items[k - 1 :: n]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.option.full or _named(config):
        return
    if terminalreporter.stats.get("deselected"):
        terminalreporter.write_line("Slow tests and cells of other turns are deselected; --full runs them.")
    if {"failed", "error"} & set(terminalreporter.stats):
        terminalreporter.write_line(f"These are the cells of --turn {config.option.turn}.", red=True)
