"""Signals, full disks, terminals; and the command in a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.common import COMMANDS, Files, Run, expect

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; from scoresde.cli import app; app(sys.argv[1:])"
# A score that says when it is first called, and takes its time.
SLOW = """
import sys, time, types, torch, scoresde.zoo
from scoresde.cli import app
target = scoresde.targets.Gaussian(torch.zeros(1, 8, 8), 1.0)
def score(sde):
    exact = target.score(sde)
    def slow(x, t):
        print("started", flush=True)
        time.sleep(0.02)
        return exact(x, t)
    return slow
model = types.SimpleNamespace(event_shape=(1, 8, 8), labels=None, score=score, net=torch.nn.Identity(), config="")
scoresde.zoo.load = lambda name, device=None: model
app(sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and devices of POSIX")


def start(folder: Path, *arguments: object, code: str = COMMAND) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


# In this process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_file_and_its_handler_is_put_back(
    run: Run, fake: Any, files: Files, number: signal.Signals
) -> None:
    before = signal.getsignal(number)

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if fake.calls == 5:
            os.kill(os.getpid(), number)
        return s

    fake.change = change
    expect(run("sample", "--count", 2, "--steps", 20), 75, "Interrupted")
    assert files() == [] and signal.getsignal(number) == before and fake.calls <= 6


def test_a_signal_does_not_leave_an_import_half_done(
    run: Run, fake: Any, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends after it, though."""
    (tmp_path / "imported_halfway.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\ndone = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[int] = []

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if not seen:
            seen.append(importlib.import_module("imported_halfway").done)
        time.sleep(0.01)
        return s

    fake.change = change
    expect(run("sample", "--count", 2, "--steps", 300), 75, "Interrupted")
    assert seen == [1] and "samples.png" not in files()


def test_a_file_that_grows_too_large(run: Run, fake: Any, files: Files) -> None:
    import resource

    Path("a.npz").write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        result = run("sample", "--method", "ddim", "--steps", 1, "--out", "a.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    expect(result, 4, "File too large")
    assert files() == ["a.npz"] and Path("a.npz").read_bytes() == b"old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_standard_output_that_is_full(capfd: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full), pytest.raises(SystemExit) as end:
        COMMANDS.main(["methods"], prog_name="scoresde")
    err = capfd.readouterr().err
    assert end.value.code == 4
    assert err.count("\n") == 1 and err.startswith("Error: The output cannot be written")


def test_progress_on_a_terminal(run: Run, fake: Any) -> None:
    import fcntl
    import struct
    import termios

    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = ["sample", "--num", "2", "--steps", "20", "--method", "ddim"]
    with open(writer, "w") as terminal, contextlib.redirect_stderr(terminal), pytest.raises(SystemExit) as end:
        COMMANDS.main(command, prog_name="scoresde")
    shown = b""
    with contextlib.suppress(OSError):  # the end
        while b"100%" not in shown:
            shown += os.read(reader, 1 << 16)
    os.close(reader)
    assert not end.value.code and b"ddim (vp)" in shown and b"100%" in shown


# In another one


def test_digits_from_the_command_to_the_picture(tmp_path: Path) -> None:
    process = start(tmp_path, "sample", "--model", "digits", "--num", 4, "--steps", 3)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err.decode()
    assert err == b""  # no terminal: no progress bar; and no warning
    assert b"4 samples of digits: vp, auto, 3 steps, 4 evaluations per sample" in out
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 75), (signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_from_outside_leaves_no_file(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = start(tmp_path, "sample", "--num", 2, "--steps", 5000, code=SLOW)
    assert process.stdout is not None and process.stdout.readline() == b"started\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err.decode()
    assert list(tmp_path.iterdir()) == []
    assert code < 0 or (b"Interrupted" in err and b"Traceback" not in err)


@pytest.mark.slow
def test_a_signal_keeps_the_batches_that_are_done(tmp_path: Path) -> None:
    """Ctrl-C in the second batch of two; the same command resumes."""
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 1, 8, 8)))
    arguments = ("likelihood", "data.npz", "--batch-size", 1, "--rtol", 1e-2, "--atol", 1e-2)
    partial = tmp_path / "likelihood.csv.partial"
    slow = start(tmp_path, *arguments, code=SLOW)
    assert slow.stdout is not None
    while not partial.exists() or b"\n0,0," not in partial.read_bytes():
        assert slow.stdout.readline() == b"started\n"
    slow.send_signal(signal.SIGINT)
    _, err = slow.communicate(timeout=60)
    assert slow.returncode == 75 and b"1 of 2 rows are kept, the same command resumes" in err, err.decode()
    process = start(tmp_path, *arguments, code=SLOW.replace("0.02", "0").replace("flush=True", "flush=False"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    assert b"2 rows, 1 of them were there" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "likelihood.csv", "likelihood.csv.json"]


@pytest.mark.slow
def test_64_digits_take_less_than_30_seconds(tmp_path: Path) -> None:
    began = time.perf_counter()
    process = start(tmp_path, "sample", "--seed", 1)
    _, err = process.communicate(timeout=110)
    assert process.returncode == 0, err.decode()
    assert time.perf_counter() - began < 30
