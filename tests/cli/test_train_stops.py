"""`scoresde train` that is interrupted or killed, and two runs in one folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import scoresde.training
from scoresde.files.locks import owned
from scoresde.presets import DEFAULT, PRESETS
from scoresde.training import Recipe, Trainer

Run = Callable[..., Result]
ROOT = Path(__file__).resolve().parents[2]
SMALL = {"channels": 8, "blocks": 1, "width": 8}
STEPS = 8
COMMAND = ("train", "--out", "model", "--checkpoint-every", 4, "--sample-every", 3, "--quiet")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and locks of POSIX")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(steps=STEPS, batch_size=8)
    monkeypatch.setitem(PRESETS, DEFAULT, replace(PRESETS[DEFAULT], kwargs=SMALL, recipe=recipe))


def signalling(monkeypatch: pytest.MonkeyPatch, place: str, call: int, *numbers: signal.Signals) -> None:
    """In a call of a method of the trainer, from 1, signals come to the process."""
    original, calls = getattr(Trainer, place), iter(range(1, 10_000))

    def method(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            for number in numbers:
                os.kill(os.getpid(), number)
                time.sleep(0)  # here Python runs the handler
        return original(*args, **kwargs)

    monkeypatch.setattr(Trainer, place, method)


def left(folder: str = "model") -> dict[str, bytes]:
    """All that a run leaves but the checkpoints on the way."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    return {name: content for name, content in files.items() if "checkpoints" not in name or str(STEPS) in name}


def checkpoints(folder: str = "model") -> list[int]:
    return sorted(int(path.stem[5:]) for path in Path(folder, "checkpoints").iterdir())


# Signals

WHOLE: dict[str, bytes] = {}  # what a run without a signal leaves, once it has been made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [1, 4, 5])
def test_a_signal_stops_after_the_step_and_the_same_command_goes_on_exactly(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, at: int
) -> None:
    """Where no checkpoint is due, too: model, log, pictures and last checkpoint are those of a run without a signal."""
    if not WHOLE:
        assert run(*COMMAND).exit_code == 0
        WHOLE.update(left())
        Path("model").rename("whole")
    with monkeypatch.context() as patch:
        signalling(patch, "_step", at, number)
        result = run(*COMMAND)
    assert result.exit_code == 75, result.output
    assert result.output.endswith(f"Interrupted; a checkpoint is kept, and the same command resumes at step {at}.\n")
    assert checkpoints() == sorted({at, 4} if at > 4 else {at})
    assert sorted(os.listdir("model")) == sorted(["checkpoints", "log.csv", *(["samples"] if at > 2 else [])])
    assert run(*COMMAND, "--resume").exit_code == 0
    assert left() == WHOLE


def test_a_second_signal_stops_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        signalling(patch, "_step", 6, signal.SIGTERM, signal.SIGTERM)
        result = run(*COMMAND)
    assert result.exit_code == 75 and "resumes at step 4" in result.output, result.output
    assert checkpoints() == [4]


def test_before_the_first_checkpoint_the_same_command_starts_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        signalling(patch, "_step", 3, signal.SIGTERM, signal.SIGINT)
        result = run(*COMMAND)
    assert result.exit_code == 75 and "starts again, for there is no checkpoint yet" in result.output, result.output
    assert run(*COMMAND).exit_code == 0


def test_at_the_last_step_the_run_is_completed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    signalling(monkeypatch, "_step", STEPS, signal.SIGTERM)
    result = run(*COMMAND)
    assert result.exit_code == 0, result.output
    assert scoresde.load("model").event_shape == (1, 8, 8)


@pytest.mark.parametrize(("resume", "said"), [((), "command resumes"), (("--no-resume",), "without --no-resume")])
def test_what_is_said_of_an_interrupt_while_data_are_read(
    run: Run, monkeypatch: pytest.MonkeyPatch, resume: tuple[str, ...], said: str
) -> None:
    """It does not claim that nothing is there."""
    signalling(monkeypatch, "_step", 2, signal.SIGTERM)
    assert run(*COMMAND).exit_code == 75

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scoresde.training, "read", interrupted)
    result = run(*COMMAND, *resume)
    assert result.exit_code == 75 and said in result.output and "at step 2" in result.output, result.output


def test_handlers_are_put_back_and_ignored_signals_stay_ignored(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        signalling(monkeypatch, "_step", 2, signal.SIGINT)
        assert run(*COMMAND).exit_code == 0
        assert signal.getsignal(signal.SIGTERM) == before[0]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before[1])


def test_an_error_after_a_signal_that_ended_a_worker_is_an_interrupt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise RuntimeError("DataLoader worker is killed by signal: Terminated.")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_loss", dying)
        result = run(*COMMAND)
    assert result.exit_code == 75 and "Interrupted" in result.output, result.output


# Two runs in one folder


def test_a_folder_that_another_run_holds(run: Run) -> None:
    with owned("model"):
        result = run(*COMMAND)
        assert result.exit_code == 4, result.output
        assert f"Another run writes to this folder (process {os.getpid()} on {socket.gethostname()} since 2" in (
            result.output
        )
        assert os.listdir("model") == [".lock"]
    assert not Path("model").exists()
    assert run(*COMMAND).exit_code == 0
    assert ".lock" not in os.listdir("model")


def program(tmp_path: Path, *arguments: object) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from dataclasses import replace; from scoresde.presets import PRESETS\n"
        f"PRESETS['edm-wide'] = replace(PRESETS['edm-wide'], kwargs={SMALL})\n"
        "from scoresde.cli import app; app(sys.argv[1:])"
    )
    command = ["train", "--out", "model", "--batch-size", "4", "--sample-every", "0", "--steps", "1000000", "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *command, *map(str, arguments)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a process group
    )


def wait_for(process: subprocess.Popen[bytes], done: Callable[[], Any]) -> None:
    while not done():
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.05)


def test_the_second_run_is_refused_and_a_killed_one_holds_nothing(run: Run, tmp_path: Path) -> None:
    """With a worker that outlives it for some seconds. Both runs used to end with exit code 0, and one was lost."""
    first = program(tmp_path, "--checkpoint-every", 2, "--workers", 1)
    wait_for(first, lambda: list(tmp_path.glob("model/checkpoints/step-*")))
    refused = run("train", "--out", "model", "--seed", 1, "--steps", 2)
    assert refused.exit_code == 4 and f"(process {first.pid} on " in refused.output, refused.output
    assert first.poll() is None
    first.kill()
    first.communicate()
    assert Path("model/.lock").exists()
    result = run("train", "--out", "model", "--seed", 1, "--steps", 2)
    assert result.exit_code == 2 and "seed: 0, now 1" in result.output, result.output
    assert not Path("model/.lock").exists()


def test_a_signal_to_all_processes_of_a_run_with_workers(tmp_path: Path) -> None:
    """As torchrun sends it to a rank's group: the workers do not end before the step is done."""
    process = program(tmp_path, "--checkpoint-every", 1_000_000, "--workers", 2)
    log = tmp_path / "model" / "log.csv"
    wait_for(process, lambda: log.exists() and log.read_text().count("loss"))
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    reached = [int(path.stem[5:]) for path in tmp_path.glob("model/checkpoints/step-*")]
    assert process.returncode == 75 and len(reached) == 1 and reached[0] >= 50, err.decode()
    assert err.decode().endswith(f"the same command resumes at step {reached[0]}.\n") and b"Traceback" not in err


@pytest.mark.slow
@pytest.mark.timeout(600)  # of four starts of three processes
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
    for folder in ("part", "whole"):
        process = start(folder)
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err.decode()
    for name in ("model.safetensors", "log.csv", "checkpoints/step-0000000120.safetensors"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
