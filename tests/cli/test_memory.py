"""Too little memory: headers are checked before anything is read, and what fails then is a line, not a traceback."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import scoresde.zoo
from tests.cli.common import Files, Run, arrays, expect, fails

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
    monkeypatch.setattr("scoresde.core.support.files.images.image", refuse)


def test_events_of_another_model_are_not_read(run: Run, fake: Any, unread: None, tmp_path: Path) -> None:
    sparse(tmp_path / "big.npy", (3, 1, 1000, 1000))
    with zipfile.ZipFile(tmp_path / "big.npz", "w") as file:
        file.write(sparse(tmp_path / "x", (3, 1, 100, 100)), "x.npy")
    text = json.dumps({"x": {"dtype": "F32", "shape": [3, 1, 100, 100], "data_offsets": [0, 120_000]}}).encode()
    (tmp_path / "big.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(120_000))
    (tmp_path / "folder").mkdir()
    for name in ("big.png", "folder/a.png"):
        Image.new("L", (100, 100)).save(tmp_path / name)
    for name in ("big.npy", "big.npz", "big.safetensors", "big.png", "folder"):
        for command in (("likelihood",), ("encode",), ("check", "any", "--data")):
            said = f"`data` {name!r} must have samples of shape (1, 8, 8), as the model, got samples of shape (1, 100"
            expect(run(*command, name), 2, said)


def test_headers_that_claim_more_than_there_is(run: Run, fake: Any) -> None:
    for shape, dtype, said in (
        ((1 << 45, 1), "<f8", "281,474,976,710,656"),  # 256 TiB
        ((3, 2), "<f8", "an array of shape (3, 2), 48 bytes, but 5 follow"),
    ):
        content = header(shape, dtype) + b"01234"
        Path("a.npy").write_bytes(content)
        with zipfile.ZipFile("a.npz", "w") as file:
            file.writestr("x.npy", content)
        for name in ("a.npy", "a.npz"):
            for command in (("likelihood", name), ("train", "--data", name, "--out", "m")):
                expect(run(*command), 2, f"`data` {name!r} cannot be read: Its header", said)
    assert not Path("m").exists()


def test_nothing_of_another_size_is_read(run: Run, fake: Any, unread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse(Path("y.npy"), (500, 1, 8, 9))
    expect(run("sample", "--measurement", "y.npy", "--operator", "grey"), 2, "must be one of shape (1, 8, 8)")
    Image.new("L", (100, 100)).save("mask.png")
    Image.new("L", (8, 8)).save("image.png")
    load = Image.Image.load
    monkeypatch.setattr(
        Image.Image, "load", lambda self: pytest.fail("it was read") if self.size == (100, 100) else load(self)
    )
    expect(run("sample", "--inpaint", "mask.png", "image.png"), 2, "must be 8 x 8 pixels")


def test_a_batch_larger_than_the_data(run: Run, files: Files) -> None:
    for preset in ("edm-wide", "classifier"):
        command = ("train", "--out", "m", "--batch-size", 10**9, "--steps", 1, "--preset", preset)
        expect(run(*command), 2, "`batch_size` must be at most 1437", "--batch-size 1437")
    assert files() == []


@pytest.mark.parametrize("place", ["load", "score", "train", "data"])
def test_every_kind_is_a_line(run: Run, fake: Any, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Wherever it comes: when the model is loaded, in a batch of one, when data for training or for a command are
    read."""
    np.savez("data.npz", x=np.zeros((2, 1, 8, 8)))
    command = {"train": ("train", "--out", "m"), "data": ("likelihood", "data.npz")}.get(place, ("sample", "--num", 1))
    purpose = {"score": "for one sample", "data": "to read `data` 'data.npz'"}.get(place, "for this command")
    errors = ((TORCH, "512000000000 bytes"), (CUDA, "2.00 GiB"), (NUMPY, "233. TiB"), (MemoryError(), None))
    for error, amount in errors:

        def fail(*args: Any, error: Exception = error, **kwargs: Any) -> None:
            raise error

        if place == "score":
            fake.change = fails(error)
        else:
            module, name = {"load": (scoresde.zoo, "load"), "train": (scoresde.training, "train")}.get(
                place, (torch, "from_numpy")
            )
            monkeypatch.setattr(module, name, fail)
        result = run(*command, "--quiet")
        said = f"Error: There is too little memory {purpose}" + ("" if amount is None else f": {amount} were requested")
        assert "enforce fail" not in expect(result, 1, said) and isinstance(result.exception, SystemExit)


def test_memory_for_all_samples_is_taken_before_the_first(run: Run, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def fail(*shape: Any, **kwargs: Any) -> Tensor:
        if shape[0] == (10**9, 1, 8, 8):
            raise TORCH
        return empty(*shape, **kwargs)

    monkeypatch.setattr(torch, "empty", fail)
    said = "There is too little memory for 1000000000 samples: 512000000000 bytes were requested."
    expect(run("sample", "--num", 10**9, "--out", "samples.npz"), 1, said)
    assert fake.calls == 0 and not Path("samples.npz").exists()


def test_batches_are_halved_for_every_kind(ddim: Run, fake: Any) -> None:
    expect(ddim("--count", 7, "--out", "a.npz"), 0)
    whole = arrays("a.npz")
    for error in (TORCH, CUDA, NUMPY):
        fake.change = fails(error, lambda x: len(x) > 2)
        expect(ddim("--count", 7, "--out", "b.npz"), 0, "batches of 1.")
        found = arrays("b.npz")
        assert np.allclose(found["x"], whole["x"], atol=1e-5) and found["index"].tolist() == [*range(7)], error
