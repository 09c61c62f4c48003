"""`scoresde train` that is interrupted or killed, and two runs in one folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from scoresde.core.support.files.locks import owned
from scoresde.presets import DEFAULT, PRESETS
from scoresde.training import Recipe
from scoresde.zoo import Sampler
from tests.cli.common import Run, expect

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"channels": 8, "blocks": 1, "width": 8}
STEPS = 8
COMMAND = ("train", "--out", "model", "--checkpoint-every", 4, "--sample-every", 3, "--quiet")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and locks of POSIX")


@dataclass
class Losses:
    """What happens while the loss is computed: ``at[n]`` is called in the n-th one from now."""

    at: dict[int, Callable[[], object]] = field(default_factory=dict)

    def next(self) -> None:
        now = self.at.pop(1, lambda: None)
        self.at = {n - 1: event for n, event in self.at.items()}
        now()

    def signal(self, step: int, *numbers: signal.Signals) -> None:
        """Signals come to the process, one after the other."""

        def kill() -> None:
            for number in numbers:
                os.kill(os.getpid(), number)
                time.sleep(0)  # here Python runs the handler

        self.at[step] = kill


@pytest.fixture(autouse=True)
def losses(monkeypatch: pytest.MonkeyPatch) -> Losses:
    """Those of the default preset, which has a small network now."""
    wide, found = PRESETS[DEFAULT], Losses()

    def loss(*args: Any, **kwargs: Any) -> Any:
        found.next()
        return wide.loss(*args, **kwargs)

    recipe = Recipe(steps=STEPS, batch_size=8)
    preset = replace(wide, loss=loss, recipe=recipe, kwargs=SMALL, sampler=Sampler("ddim", steps=2))
    monkeypatch.setitem(PRESETS, DEFAULT, preset)
    return found


def left(folder: str = "model") -> dict[str, bytes]:
    """All that a run leaves but the checkpoints on the way."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    return {name: content for name, content in files.items() if "checkpoints" not in name or str(STEPS) in name}


def checkpoints(folder: str = "model") -> list[int]:
    return sorted(int(path.stem[5:]) for path in Path(folder, "checkpoints").iterdir())


WHOLE: dict[str, bytes] = {}  # what a run without a signal leaves, once it has been made


@pytest.mark.parametrize(("number", "at"), [(signal.SIGTERM, 1), (signal.SIGINT, 4), (signal.SIGTERM, 5)])
def test_after_a_signal_the_same_command_goes_on(run: Run, losses: Losses, number: signal.Signals, at: int) -> None:
    """Where no checkpoint is due, too: model, log, pictures and last checkpoint are those of a run without a signal."""
    if not WHOLE:
        expect(run(*COMMAND), 0)
        WHOLE.update(left())
        Path("model").rename("whole")
    losses.signal(at, number)
    text = expect(run(*COMMAND), 75)
    assert text.endswith(f"Interrupted; a checkpoint is kept, and the same command resumes at step {at}.")
    assert checkpoints() == sorted({at, 4} if at > 4 else {at})
    assert sorted(os.listdir("model")) == sorted(["checkpoints", "log.csv", *(["samples"] if at > 2 else [])])
    expect(run(*COMMAND, "--resume"), 0)
    assert left() == WHOLE


def test_a_second_signal_stops_at_once(run: Run, losses: Losses) -> None:
    losses.signal(3, signal.SIGTERM, signal.SIGINT)
    expect(run(*COMMAND), 75, "starts again, for there is no checkpoint yet")
    losses.signal(6, signal.SIGTERM, signal.SIGTERM)
    expect(run(*COMMAND), 75, "resumes at step 4")
    assert checkpoints() == [4]


def test_handlers_are_put_back_and_ignored_signals_stay_ignored(run: Run, losses: Losses) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        losses.signal(2, signal.SIGINT)
        expect(run(*COMMAND), 0)
        assert signal.getsignal(signal.SIGTERM) == before[0]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before[1])


def test_a_folder_that_another_run_holds(run: Run) -> None:
    with owned("model"):
        said = f"Another run writes to this folder (process {os.getpid()} on {socket.gethostname()} since 2"
        expect(run(*COMMAND), 4, said)
        assert os.listdir("model") == [".lock"]
    assert not Path("model").exists()
    expect(run(*COMMAND), 0)
    assert ".lock" not in os.listdir("model")


def wait_for(process: subprocess.Popen[bytes], done: Callable[[], Any]) -> None:
    while not done():
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)  # of five starts of three processes
def test_a_signal_to_two_ranks(tmp_path: Path) -> None:
    """torchrun passes it on: they stop at one step, and the same command resumes to the same bits. Another job is
    refused meanwhile."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "scoresde"]
    command += ["train", "--batch-size", "4", "--steps", "120", "--sample-every", "0", "--checkpoint-every", "1000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(folder: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "--out", folder], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    process, log = start("part"), tmp_path / "part" / "log.csv"
    wait_for(process, lambda: log.exists() and log.read_text().count("loss"))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=200)
    stopped = [int(path.stem[5:]) for path in tmp_path.glob("part/checkpoints/step-*")]
    assert len(stopped) == 1 and 50 <= stopped[0] < 120, err.decode()
    assert f"resumes at step {stopped[0]}.".encode() in err and not (tmp_path / "part" / ".lock").exists()
    with owned(tmp_path / "part"):
        other = start("part")
        _, err = other.communicate(timeout=200)
    assert other.returncode == 1 and b"Another run writes to this folder" in err, err.decode()
    for folder in ("part", "whole", "whole"):  # the same command again is done
        process = start(folder)
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0 and out.count(b"parameters, 120 steps") == 1, err.decode()
    for name in ("model.safetensors", "log.csv", "checkpoints/step-0000000120.safetensors"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
