"""The command in a process of its own: signals, full disks, and what an import costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

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

posix = pytest.mark.skipif(os.name != "posix", reason="signals and devices of POSIX")


def start(folder: Path, *arguments: object, code: str = COMMAND, **kwargs: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs},  # type: ignore[call-overload]
    )


def test_digits_from_the_command_to_the_picture(tmp_path: Path) -> None:
    process = start(tmp_path, "sample", "--model", "digits", "--num", 4, "--steps", 3)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err.decode()
    assert err == b""  # no terminal: no progress bar; and no warning
    assert b"4 samples of digits: vp, auto, 3 steps, 4 evaluations per sample" in out
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]


@posix
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 75), (signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_signal_leaves_no_file(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = start(tmp_path, "sample", "--num", 2, "--steps", 5000, code=SLOW)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err.decode()
    assert list(tmp_path.iterdir()) == []
    assert code < 0 or (b"Interrupted" in err and b"Traceback" not in err)


@posix
def test_a_signal_keeps_the_batches_that_are_done(tmp_path: Path) -> None:
    """Ctrl-C in the second batch of two; the same command resumes."""
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 1, 8, 8)))
    arguments = ("likelihood", "data.npz", "--batch-size", 1, "--rtol", 1e-2, "--atol", 1e-2)
    slow = start(tmp_path, *arguments, code=SLOW)
    assert slow.stdout is not None
    while not (tmp_path / "likelihood.csv.partial").exists() or b"\n0,0," not in read(tmp_path):
        assert slow.stdout.readline() == b"started\n"
    slow.send_signal(signal.SIGINT)
    _, err = slow.communicate(timeout=60)
    assert slow.returncode == 75 and b"1 of 2 rows are kept, the same command resumes" in err, err.decode()
    process = start(tmp_path, *arguments, code=SLOW.replace("0.02", "0").replace("flush=True", "flush=False"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    assert b"2 rows, 1 of them were there" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npz", "likelihood.csv", "likelihood.csv.json"]


def read(folder: Path) -> bytes:
    return (folder / "likelihood.csv.partial").read_bytes()


@posix
def test_a_file_that_grows_too_large(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"old")
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    process = start(
        tmp_path, "sample", "--method", "ddim", "--steps", 1, "--out", "a.npz", "--force", code=limited + COMMAND
    )
    _, err = process.communicate(timeout=100)
    assert process.returncode == 4, err.decode()
    assert b"File too large" in err and b"Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == b"old"


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_standard_output_that_is_full(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        process = start(tmp_path, "methods", stdout=full)
        _, err = process.communicate(timeout=100)
    assert process.returncode == 4
    assert err.count(b"\n") == 1 and err.startswith(b"Error: The output cannot be written")


@posix
def test_progress_on_a_terminal(tmp_path: Path) -> None:
    import fcntl
    import struct
    import termios

    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        process = start(tmp_path, "sample", "--num", 2, "--steps", 20, "--method", "ddim", code=SLOW, stderr=writer)
        process.communicate(timeout=100)
        os.close(writer)
        shown = b""
        while b"100%" not in shown:
            shown += os.read(reader, 1 << 16)
    finally:
        os.close(reader)
    assert process.returncode == 0
    assert b"ddim (vp)" in shown


def test_help_does_not_import_torch(tmp_path: Path) -> None:
    code = """
import sys
from typer.testing import CliRunner
from scoresde.cli import app
for command in ([], *([registered.callback.__name__] for registered in app.registered_commands)):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, (command, result.output)
heavy = sorted({"torch", "numpy", "scipy", "PIL", "tqdm", "safetensors"} & set(sys.modules))
sys.exit(f"imported: {heavy}" if heavy else 0)
"""
    process = start(tmp_path, code=code)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()


@pytest.mark.slow
def test_64_digits_take_less_than_30_seconds(tmp_path: Path) -> None:
    began = time.perf_counter()
    process = start(tmp_path, "sample", "--seed", 1)
    _, err = process.communicate(timeout=110)
    assert process.returncode == 0, err.decode()
    assert time.perf_counter() - began < 30
