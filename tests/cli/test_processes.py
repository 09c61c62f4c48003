"""Signals, full disks, terminals; and the command in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.common import COMMANDS, Files, Run, expect

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and devices of POSIX")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_file(run: Run, fake: Any, files: Files, number: signal.Signals) -> None:
    Path("samples.png").write_bytes(b"old")
    before = signal.getsignal(number)

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if fake.calls == 5:
            os.kill(os.getpid(), number)
        return s

    fake.change = change
    expect(run("sample", "--count", 2, "--steps", 20), 75, "Interrupted")
    assert files() == ["samples.png"] and Path("samples.png").read_bytes() == b"old"
    assert signal.getsignal(number) == before and fake.calls <= 6


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


@pytest.mark.slow
def test_digits_from_a_new_interpreter_to_the_picture(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scoresde", "sample", "--model", "digits", "--num", "4", "--evaluations", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=100)
    assert done.returncode == 0 and done.stderr == b"", done.stderr.decode()  # no terminal, no bar; and no warning
    assert b"4 samples of digits: vp, auto, 3 of 3 evaluations per sample" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]
