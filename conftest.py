"""What every test and every documentation example shares."""

from __future__ import annotations

import gc
import math
import os
import signal
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

pytest_plugins = ["tests.tiers"]

# "ci" is the default everywhere, so that a failure in CI is a failure at home: the same examples each time, no time
# limit per example, nothing stored. Search for new counterexamples with `pytest --hypothesis-profile=explore`.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, database=None, print_blob=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile("ci")


def pytest_collection_finish() -> None:
    """The tests themselves, a million objects, stay: no collection of garbage has to look at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_beginning() -> Iterator[None]:
    """Puts torch's default dtype back; and no test depends on what others drew from the global generator."""
    dtype = torch.get_default_dtype()
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, Any]) -> None:
    """The names that an example may use without an import."""
    doctest_namespace.update(torch=torch, scoresde=scoresde, math=math)
