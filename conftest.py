"""What every test and every documentation example shares."""

from __future__ import annotations

import gc
import math
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

# The tensors of the tests are small: one thread is fastest, and child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Figures are drawn without a display.
os.environ.setdefault("MPLBACKEND", "Agg")
# A shell's background job ignores interrupts, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis
import pytest
import torch

import scoresde

torch.set_num_threads(1)

# "ci" is the default everywhere, so that a failure in CI is a failure at home: the same examples each time, no time
# limit per example, nothing stored. Search for new counterexamples with `pytest --hypothesis-profile=explore`.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile("ci")


# The default tier runs at most this many cells of a parametrised function, or a fourteenth of them, in each turn.
_CELLS, _TURNS = 30, 14


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tiers", "which tests run")
    group.addoption("--full", action="store_true", help="all tests, and all cells of each parametrised function")
    group.addoption("--turn", type=int, help="chooses the cells of large functions; by default the number of the day")
    group.addoption("--part", metavar="K/N", help="one of N parts of the tests: 1/N, ..., N/N")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "cells(most): a parametrised function whose cells are expensive: at most so many"
    )
    options = config.option  # workers of a parallel run receive it as it is set here
    if options.turn is None:
        options.turn = int(time.time() // 86400)
    if not options.markexpr:
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
    if (
        isinstance(found, list)
        and found
        and not options.full
        and not any("[" in part for part in collector.config.args)
    ):
        mark = found[0].get_closest_marker("cells")
        most = mark.args[0] if mark else _CELLS
        parts = min(_TURNS, -(-len(found) // most))
        found = [found[i] for i in _in_turn(len(found), parts, options.turn, found[0].nodeid.partition("[")[0])]
    return found


def _in_turn(count: int, parts: int, turn: int, name: str) -> list[int]:
    """One cell of each ``parts`` neighbours, in an order that differs from neighbours to neighbours; ``parts``
    turns have every cell once together."""
    orders = random.Random(name)
    chosen = [start + orders.sample(range(parts), parts)[turn % parts] for start in range(0, count, parts)]
    return [i for i in chosen if i < count]


def pytest_itemcollected(item: pytest.Item) -> None:
    """The pages of the documentation belong to the full tier, but for the first one."""
    if item.path.suffix == ".md" and item.path.name not in ("README.md", "quickstart.md"):
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.part:
        part, parts = map(int, config.option.part.split("/"))
        config.hook.pytest_deselected(items=[item for i, item in enumerate(items) if i % parts != part - 1])
        items[:] = items[part - 1 :: parts]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.option.full and {"failed", "error"} & set(terminalreporter.stats):
        terminalreporter.write_line(f"These are the cells of --turn {config.option.turn}.", red=True)


def pytest_collection_finish() -> None:
    """The tests themselves, a million objects, stay: no collection of garbage has to look at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _default_dtype() -> Iterator[None]:
    """Puts torch's default dtype back; a test seeds what it draws itself."""
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, Any]) -> None:
    """The names that an example may use without an import."""
    doctest_namespace.update(torch=torch, scoresde=scoresde, math=math)
