"""Files in MNIST's format, and samples that are held out of the training."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import scoresde
from scoresde.training import Batches, hold_out, read

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 5), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2], dtype=np.uint8)


def raw(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def written(folder: Path, end: str = "") -> Path:
    opener = gzip.open if end else open
    for name, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
        with opener(folder / f"t10k-{name}-ubyte{end}", "wb") as file:
            file.write(raw(array))
    return folder / f"t10k-images-idx3-ubyte{end}"


def test_images_and_their_labels(tmp_path):
    for end in ("", ".gz"):
        source = read(written(tmp_path, end))
        assert (len(source), source.event_shape, source.levels, source.classes) == (7, (1, 4, 5), 256, 10)
        values, labels = source.rows(torch.arange(7))
        assert np.array_equal(values[:, 0].numpy(), IMAGES) and labels.tolist() == LABELS.tolist()
    path = written(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert read(path).classes == 10  # labels that are compressed beside images that are not
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert read(path).classes is None


def test_broken_files(tmp_path):
    path = tmp_path / "t10k-images-idx3-ubyte"
    for content, said in (
        (b"", "does not start as a file of unsigned bytes"),
        (raw(IMAGES)[:10], "ends within its header"),
        (raw(IMAGES)[:-1], "140 bytes, but 139 follow"),
        (raw(IMAGES) + b"0", "140 bytes, but more follow"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 2**31, 4) + b"1234", "but 4 follow"),
    ):
        path.write_bytes(content)
        with pytest.raises(scoresde.InvalidArgumentError, match=said):
            read(path)


def test_held_out_samples_are_never_seen():
    source = read("digits")
    train, held_out = hold_out(source, 400, seed=3)
    rows = [set(part.indices.tolist()) for part in (train, held_out)]
    assert not rows[0] & rows[1] and rows[0] | rows[1] == set(range(len(source)))
    assert (len(train), len(held_out)) == (len(source) - 400, 400)
    assert hold_out(source, 400, seed=3)[1].indices.equal(held_out.indices)
    assert not hold_out(source, 400, seed=4)[1].indices.equal(held_out.indices)
    assert train.fingerprint() != held_out.fingerprint() != source.fingerprint()
    batches = Batches(train, 100, seed=0)
    assert max(int(batches.indices(step).max()) for step in range(11)) < len(train)
    for count in (0, len(source), -1, 1.5):
        with pytest.raises(scoresde.ScoreSDEError, match="count"):
            hold_out(source, count)
