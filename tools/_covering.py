"""A plugin of pytest for `tools mutations`: which test runs which line, and tests in a given order.

``COVERING=FOLDER`` writes the lines of the package and the time of every test; ``CHOSEN=FILE`` runs the tests that a
file names, in its order.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
_FOLDER, _CHOSEN = os.environ.get("COVERING"), os.environ.get("CHOSEN")

_coverage: Any = None
if _FOLDER and (_WORKER != "main" or "COVERING_ALONE" in os.environ):
    import coverage

    _coverage = coverage.Coverage(
        data_file=f"{_FOLDER}/.coverage.{_WORKER}", source_pkgs=["scoresde"], config_file=False
    )
    _coverage.start()  # before the package is imported
_costs: dict[str, float] = {}
_forget: list[Any] = []


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _CHOSEN:
        place = {name: i for i, name in enumerate(json.loads(Path(_CHOSEN).read_text()))}
        items[:] = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])


def pytest_collection_finish() -> None:
    if _coverage:  # what one test computes and the package keeps, another must compute again
        from scoresde.core.support.memo import Memo

        gc.unfreeze()  # what the tests' own configuration froze is not listed
        for kept in gc.get_objects():
            if type(kept) is Memo:
                _forget.append(kept._values.clear)
            elif type(kept) is functools._lru_cache_wrapper and kept.__module__.startswith("scoresde"):
                _forget.append(kept.cache_clear)
        gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    if _coverage:
        for forget in _forget:
            forget()
        _coverage.switch_context(item.nodeid)
    begin = time.process_time()
    done = yield
    _costs[item.nodeid] = time.process_time() - begin
    return done


def pytest_unconfigure() -> None:
    if _coverage:
        _coverage.stop()
        _coverage.save()
        Path(f"{_FOLDER}/costs.{_WORKER}.json").write_text(json.dumps(_costs))
