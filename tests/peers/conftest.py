"""Double precision for both sides, given noise, and the largest deviations at the end of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks._record import write
from benchmarks._wide import Wide
from tests.peers.common import MEASURED, Make


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.set_default_dtype(torch.float64)  # put back by the fixture of the root


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a scheduler of diffusers that computes in double precision and draws given noise, set to some steps."""

    def build(name: str, draws: Sequence[Tensor] = (), steps: int = 0, **options: Any) -> Any:
        cls = getattr(pytest.importorskip("diffusers"), name)
        module = sys.modules[cls.__module__]
        left = iter(draws)
        monkeypatch.setattr(module, "torch", Wide(torch))
        monkeypatch.setattr(module, "np", Wide(np), raising=False)
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: next(left), raising=False)
        scheduler = cls(**options)
        if steps:
            scheduler.set_timesteps(steps)
        return scheduler

    return build


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--write", action="store_true", help="write the largest deviations from the peers to a file")


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """List what was compared."""
    if MEASURED:
        terminalreporter.section("largest deviations from the peers")
        for name, gap in sorted(MEASURED.items()):
            terminalreporter.write_line(f"{gap:8.1e}  {name}")
        if config.getoption("--write"):
            write("peers", dict(sorted(MEASURED.items())), ".ci/peers --write")
