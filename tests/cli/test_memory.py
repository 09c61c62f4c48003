"""Too little memory: headers are checked before anything is read, and what fails then is a line, not a traceback."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import Result

import scoresde.zoo
from scoresde.cli._batches import batches
from scoresde.errors import InvalidArgumentError, OutOfMemoryError, out_of_memory
from scoresde.training import read

Run = Callable[..., Result]
Files = Callable[[], list[str]]
ROOT = Path(__file__).resolve().parents[2]
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: you tried to allocate "
TORCH = RuntimeError(ALLOCATOR + "512000000000 bytes. Error code 12 (Cannot allocate memory)")
CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB.")
NUMPY = MemoryError("Unable to allocate 233. TiB for an array with shape (1,) and data type float64")


def header(shape: tuple[int, ...], dtype: str) -> bytes:
    """The beginning of a .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def sparse(path: Path, shape: tuple[int, ...], dtype: str = "<f4") -> Path:
    """An array of zeros that takes no room on the disk."""
    content = header(shape, dtype)
    with path.open("wb") as file:
        file.write(content)
        file.truncate(len(content) + int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return path


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but headers can be read: arrays and pictures fail."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(np.lib.format, "read_array", refuse)
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", refuse)
    monkeypatch.setattr("scoresde.files.images.image", refuse)


# Headers


@pytest.mark.parametrize("command", ["likelihood", "encode", "check"])
@pytest.mark.parametrize("name", ["big.npy", "big.npz", "big.safetensors", "big.png", "folder"])
def test_events_of_another_model_are_not_read(
    run: Run, fake: Any, unread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    path = tmp_path / name
    if name == "big.npy":
        sparse(path, (3, 1, 1000, 1000))
    elif name == "big.npz":
        with zipfile.ZipFile(path, "w") as file:
            file.write(sparse(tmp_path / "x", (3, 1, 100, 100)), "x.npy")
    elif name == "big.safetensors":
        text = json.dumps({"x": {"dtype": "F32", "shape": [3, 1, 100, 100], "data_offsets": [0, 120_000]}}).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(120_000))
    else:
        (tmp_path / "folder").mkdir()
        for file in (tmp_path / "big.png", tmp_path / "folder" / "a.png"):
            Image.new("L", (100, 100)).save(file)
    result = run(command, *(("any", "--data") if command == "check" else ()), name)
    assert result.exit_code == 2, result.output
    said = f"`data` {name!r} must have samples of shape (1, 8, 8), as the model, got samples of shape (1, 100"
    assert said in result.output


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((1 << 45, 1), "<f8", "281,474,976,710,656"),  # 256 TiB
        ((1 << 62, 1 << 62), "<f8", "bytes, but 5 follow"),  # more than any integer of the machine
        ((3, 2), "<f8", "an array of shape (3, 2), 48 bytes, but 5 follow"),
        ((-3, -2), "<f8", "shape (-3, -2)"),
    ],
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_headers_that_claim_more_than_there_is(
    run: Run, fake: Any, tmp_path: Path, shape: Any, dtype: str, said: str, name: str
) -> None:
    content = header(shape, dtype) + b"01234"
    if name == "a.npy":
        Path(name).write_bytes(content)
    else:
        with zipfile.ZipFile(name, "w") as file:
            file.writestr("x.npy", content)
    for result in (run("likelihood", name), run("train", "--data", name, "--out", "m")):
        assert result.exit_code == 2, result.output
        assert f"`data` {name!r} cannot be read: Its header" in result.output and said in result.output
    assert not Path("m").exists()


def test_no_numbers_are_refused_by_the_header(tmp_path: Path, unread: None) -> None:
    for dtype in ("<U9", "|b1", "<c8", np.dtype("longdouble").str):
        sparse(tmp_path / "a.npy", (2, 2), dtype)
        with pytest.raises(InvalidArgumentError, match="must be integer grey levels"):
            read(str(tmp_path / "a.npy"))


def test_a_member_that_is_no_array(run: Run) -> None:
    with zipfile.ZipFile("a.npz", "w") as file:
        file.writestr("x", b"text")
    result = run("encode", "a.npz")
    assert result.exit_code == 2 and "'a.npz' cannot be read" in result.output, result.output


def test_bytes_stay_bytes(run: Run) -> None:
    """They were made eight times as large."""
    from scoresde.cli._data import read

    np.savez("a.npz", x=np.zeros((2, 1, 8, 8), np.uint8))
    assert read("a.npz").values.dtype == torch.uint8


def test_a_measurement_of_another_shape_is_not_read(run: Run, fake: Any, unread: None) -> None:
    sparse(Path("y.npy"), (1, 500))
    result = run("sample", "--measurement", "y.npy", "--operator", "grey")
    assert result.exit_code == 2 and "must be one of shape (1, 8, 8)" in result.output, result.output
    sparse(Path("y.npy"), (500, 1, 8, 9))
    result = run("sample", "--measurement", "y.npy", "--operator", "grey")
    assert result.exit_code == 2 and "must be one of shape (1, 8, 8)" in result.output, result.output


def test_a_mask_of_another_size_is_not_read(run: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100)).save("mask.png")
    Image.new("L", (8, 8)).save("image.png")
    load = Image.Image.load
    monkeypatch.setattr(
        Image.Image, "load", lambda self: pytest.fail("it was read") if self.size == (100, 100) else load(self)
    )
    result = run("sample", "--inpaint", "mask.png", "image.png")
    assert result.exit_code == 2 and "must be 8 x 8 pixels" in result.output, result.output


@pytest.mark.parametrize("rows", [65, 10**9, 10**30])
def test_more_rows_than_dimensions(run: Run, files: Files, rows: int) -> None:
    np.savez("data.npz", x=np.zeros((1, 1, 8, 8)))
    result = run("measure", "data.npz", "--operator", f"random_projection:rows={rows}")
    assert result.exit_code == 2 and "`rows` must be at most 64" in result.output, result.output
    assert files() == ["data.npz"]
    assert run("measure", "data.npz", "--operator", "random_projection:rows=64").exit_code == 0


@pytest.mark.parametrize("preset", ["edm-wide", "classifier"])
def test_a_batch_larger_than_the_data(run: Run, files: Files, preset: str) -> None:
    result = run("train", "--out", "m", "--batch-size", 10**9, "--steps", 1, "--preset", preset)
    assert result.exit_code == 2, result.output
    assert "`batch_size` must be at most 1437" in result.output and "--batch-size 1437" in result.output
    assert files() == []


# Allocations


@pytest.mark.parametrize(
    ("error", "amount"), [(TORCH, "512000000000 bytes"), (CUDA, "2.00 GiB"), (NUMPY, "233. TiB"), (MemoryError(), None)]
)
@pytest.mark.parametrize("place", ["load", "score", "train", "data"])
def test_every_kind_is_a_line(
    run: Run, fake: Any, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception, amount: str | None
) -> None:
    """Wherever it comes: when the model is loaded, in a batch of one, in a step of training, when a file is read."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    np.savez("data.npz", x=np.zeros((2, 1, 8, 8)))
    command: tuple[object, ...] = ("sample", "--num", 1)
    if place == "load":
        monkeypatch.setattr(scoresde.zoo, "load", fail)
    elif place == "score":
        fake.change = fail
    elif place == "train":
        command = ("train", "--out", "m", "--quiet")
        monkeypatch.setattr(scoresde.training.Trainer, "_loss", fail)
    else:
        command = ("likelihood", "data.npz")
        monkeypatch.setattr(torch, "from_numpy", fail)
    result = run(*command)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    purpose = {"score": "for one sample", "data": "to read `data` 'data.npz'"}.get(place, "for this command")
    assert f"Error: There is too little memory {purpose}" in result.output
    assert amount is None or f": {amount} were requested." in result.output
    assert "enforce fail" not in result.output


def test_memory_for_all_samples_is_taken_before_the_first(run: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def fail(*shape: Any, **kwargs: Any) -> Tensor:
        if shape[0] == (10**9, 1, 8, 8):
            raise TORCH
        return empty(*shape, **kwargs)

    monkeypatch.setattr(torch, "empty", fail)
    result = run("sample", "--num", 10**9, "--out", "samples.npz")
    assert result.exit_code == 1 and fake.calls == 0 and not Path("samples.npz").exists()
    assert "There is too little memory for 1000000000 samples: 512000000000 bytes were requested." in result.output


def test_batches_are_halved_for_every_kind() -> None:
    for error in (TORCH, CUDA, NUMPY):

        def work(first: int, count: int, show: Any, error: Exception = error) -> tuple[int, int]:
            if count > 1:
                raise error
            return first, count

        assert list(batches(work, 2, 2, "", True)) == [(0, 1), (1, 1)]


def test_other_errors_are_not_of_memory() -> None:
    assert all(map(out_of_memory, (TORCH, CUDA, NUMPY, OutOfMemoryError("no"))))
    assert not any(map(out_of_memory, (RuntimeError("a bug"), ValueError("memory"), InvalidArgumentError("no"))))


LIMITED = """
import resource, sys
import torch, scoresde.likelihood, scoresde.zoo, scoresde.training
from scoresde.cli import app
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (500 << 20),) * 2)
app(sys.argv[1:])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process in /proc")
@pytest.mark.parametrize(
    ("command", "said", "code"),
    [
        (("likelihood", "fits.npy", "--levels", "256"), "too little memory to read `data` 'fits.npy': ", 1),
        (("likelihood", "other.npy"), "got samples of shape (1, 32768, 32768)", 2),
        (("train", "--data", "fits.npy", "--out", "m"), "too little memory to read `data` 'fits.npy': ", 1),
        (("measure", "fits.npy", "--operator", "grey", "--levels", "17"), "too little memory to read `data` ", 1),
    ],
)
def test_a_process_with_a_limit(tmp_path: Path, command: tuple[str, ...], said: str, code: int) -> None:
    """Half a GiB is left, for data of one GiB."""
    sparse(tmp_path / "fits.npy", (1 << 24, 1, 8, 8), "|u1")
    sparse(tmp_path / "other.npy", (1, 1, 1 << 15, 1 << 15), "|u1")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *command],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=100,
    )
    err = done.stderr.decode()
    assert done.returncode == code, err
    assert said in err and "Traceback" not in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fits.npy", "other.npy"]
