"""What `scoresde sample` writes beside one file: folders of pictures and animations; and what it does not replace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde.plot import image_grid
from tests.cli.common import Run, arrays, expect, fails


def pixels(path: str, frame: int = 0) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        picture.seek(frame)
        return np.asarray(picture.convert("L"), dtype=float)


def frames_of(path: str) -> int:
    with Image.open(path) as film:
        assert film.info["loop"] == 0
        return int(film.n_frames)


@pytest.mark.parametrize("out", ["a.png", "a.npz", "a.safetensors", "pictures/"])
def test_what_is_there_is_kept_unless_forced(draw: Run, fake: Any, out: str) -> None:
    expect(draw("--out", out, "--count", 2), 0)
    before = {path: path.read_bytes() for path in Path().rglob("*.*") if path.is_file()}
    calls = fake.calls
    expect(draw("--out", out, "--count", 2, "--seed", 1), 4, "--force", "another --out")
    assert fake.calls == calls and all(path.read_bytes() == content for path, content in before.items())
    expect(draw("--out", out, "--count", 2, "--seed", 1, "--force"), 0)
    assert any(path.read_bytes() != content for path, content in before.items())


def test_other_commands_keep_what_is_there_too(typed: Run, fake: Any) -> None:
    Path("a.npz").write_bytes(b"old")
    for command in (("encode", "digits", "--steps", 2), ("measure", "digits", "--operator", "grey")):
        expect(typed(*command, "--out", "a.npz"), 4, "--force")
    assert Path("a.npz").read_bytes() == b"old" and fake.calls == 0


def test_a_folder_has_a_picture_of_each_sample(draw: Run, fake: Any) -> None:
    expect(draw("--out", "arrays.npz", "--count", 3, "--denoise"), 0)
    expect(draw("--out", "pictures/", "--count", 3, "--batch-size", 2), 0, "3 pictures, 8 x 8 pixels each")
    names = ["00000.png", "00001.png", "00002.png"]
    assert sorted(path.name for path in Path("pictures").iterdir()) == [*names, "samples.json"]
    record = json.loads(Path("pictures/samples.json").read_text())
    assert record["files"] == names and record["seed"] == 0 and record["method"] == "ddim"
    x = torch.from_numpy(arrays("arrays.npz")["x"])
    for i, name in enumerate(names):
        with Image.open(Path("pictures", name)) as picture:
            assert np.array_equal(picture, image_grid(x[i : i + 1], scale=1))
            assert json.loads(picture.text["scoresde"])["index"] == i  # type: ignore[attr-defined]


def test_a_folder_that_is_replaced_has_only_the_new_pictures(draw: Run, fake: Any) -> None:
    expect(draw("--out", "pictures/", "--count", 4), 0)
    Path("pictures/mine.png").write_bytes(b"mine")
    expect(draw("--out", "pictures", "--count", 2, "--force", "--scale", 3), 0)
    names = sorted(path.name for path in Path("pictures").iterdir())
    assert names == ["00000.png", "00001.png", "mine.png", "samples.json"]
    assert pixels("pictures/00001.png").shape == (24, 24)
    kept = [Path("a.png"), Path("pictures/mine.png"), Path("pictures/00009.png")]
    for path in kept:
        path.write_bytes(b"mine")
    Path("pictures/samples.json").write_text('{"files": [null, "mine.png", "../a.png"]}')
    expect(draw("--out", "pictures/", "--count", 2, "--force"), 0)
    assert all(path.read_bytes() == b"mine" for path in kept)


@pytest.mark.parametrize(
    ("arguments", "frames"),
    [
        (("--method", "ddim", "--steps", 10), {11}),
        (("--method", "rk45", "--rtol", 1e-3, "--atol", 1e-3), set(range(6, 50))),
        # 49, less those that are the same picture
        (("--method", "ddim", "--steps", 300), set(range(45, 50))),
    ],
)
def test_an_animation_ends_with_the_samples(typed: Run, fake: Any, arguments: Any, frames: set[int]) -> None:
    size = ("--count", 3, "--batch-size", 2)
    expect(typed("sample", *arguments, *size, "--out", "a.png", "--animate", "a.gif"), 0)
    count = frames_of("a.gif")
    assert count in frames
    first, last = pixels("a.gif"), pixels("a.gif", count - 1)
    assert np.abs(last - pixels("a.png")).max() <= 1
    assert np.abs(last - first).mean() > 30


def test_an_animation_beside_arrays(draw: Run, fake: Any) -> None:
    expect(draw("--count", 2, "--out", "a.npz", "--animate", "a.gif", "--scale", 2), 0)
    assert pixels("a.gif").shape == (16, 34)
    expect(draw("--count", 2, "--out", "b.npz", "--animate", "a.gif"), 4)
    expect(draw("--count", 2, "--out", "c.npz", "--animate", "a.mp4"), 0)
    assert Path("a.mp4").read_bytes()[4:8] == b"ftyp"
    fake.calls = 0  # a batch that is tried again is shown once
    fake.change = fails(torch.OutOfMemoryError("CUDA out of memory"), lambda x: len(x) > 2 and fake.calls > 3)
    expect(draw("--count", 4, "--out", "b.png", "--animate", "b.gif"), 0, "batches of 2")
    assert frames_of("b.gif") == 6 and pixels("b.gif").shape == pixels("b.png").shape


def test_what_needs_pictures(draw: Run, fake: Any) -> None:
    expect(draw("--out", "a.npz", "--scale", 2), 2, "`scale`")
    expect(draw("--out", "a.jpg"), 2)
    expect(draw("--animate", "a.png"), 2)
    fake.event_shape = (5,)
    for more in ((), ("--animate", "a.gif", "--out", "a.npz")):
        expect(draw("--out", "pictures/", *more), 2, "no pictures")
    assert not Path("pictures").exists() and fake.calls == 0


def test_frames_have_the_size_of_data(draw: Run, fake: Any) -> None:
    """Where the states begin with the standard deviation 80: a third of a normal distribution is beyond +-1, and almost
    all of one that is not scaled."""
    expect(draw("--sde", "edm", "--count", 4, "--out", "a.npz", "--animate", "a.gif", "--scale", 4), 0)
    for frame in (0, 1):
        shown = pixels("a.gif", frame)
        saturated = ((shown < 4) | (shown > 251)).mean()
        assert 0.15 < saturated < 0.5, frame  # 256 elements beside lines between the pictures
