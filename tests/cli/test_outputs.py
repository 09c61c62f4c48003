"""What `scoresde sample` writes beside one file: folders of pictures and animations; and what it does not replace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

from scoresde.cli._animation import Frames
from scoresde.plot import image_grid

Run = Callable[..., Result]


def pixels(path: str, frame: int = 0) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        picture.seek(frame)
        return np.asarray(picture.convert("L"), dtype=float)


def frames_of(path: str) -> int:
    with Image.open(path) as film:
        assert film.info["loop"] == 0
        return int(film.n_frames)


SAMPLE = ("sample", "--method", "ddim", "--steps", 10)


@pytest.mark.parametrize("out", ["a.png", "a.npz", "a.safetensors", "pictures/"])
def test_what_is_there_is_kept_unless_forced(typed: Run, fake: Any, out: str) -> None:
    assert typed(*SAMPLE, "--out", out, "--count", 2).exit_code == 0
    before = {path: path.read_bytes() for path in Path().rglob("*.*") if path.is_file()}
    calls = fake.calls
    result = typed(*SAMPLE, "--out", out, "--count", 2, "--seed", 1)
    assert result.exit_code == 4 and "--force" in result.output and "another --out" in result.output
    assert fake.calls == calls and all(path.read_bytes() == content for path, content in before.items())
    assert typed(*SAMPLE, "--out", out, "--count", 2, "--seed", 1, "--force").exit_code == 0
    assert any(path.read_bytes() != content for path, content in before.items())


@pytest.mark.parametrize("command", [("encode", "digits", "--steps", 2), ("measure", "digits", "--operator", "grey")])
def test_other_commands_keep_what_is_there_too(typed: Run, fake: Any, command: tuple[str, ...]) -> None:
    Path("a.npz").write_bytes(b"old")
    result = typed(*command, "--out", "a.npz")
    assert result.exit_code == 4 and "--force" in result.output and fake.calls == 0
    assert Path("a.npz").read_bytes() == b"old"


def test_a_folder_has_a_picture_of_each_sample(typed: Run, fake: Any) -> None:
    assert typed(*SAMPLE, "--out", "arrays.npz", "--count", 3, "--denoise").exit_code == 0
    result = typed(*SAMPLE, "--out", "pictures/", "--count", 3, "--batch-size", 2)
    assert result.exit_code == 0 and "3 pictures, 8 x 8 pixels each" in result.output
    names = ["00000.png", "00001.png", "00002.png"]
    assert sorted(path.name for path in Path("pictures").iterdir()) == [*names, "samples.json"]
    record = json.loads(Path("pictures/samples.json").read_text())
    assert record["files"] == names and record["seed"] == 0 and record["method"] == "ddim"
    x = torch.from_numpy(np.load("arrays.npz")["x"])
    for i, name in enumerate(names):
        with Image.open(Path("pictures", name)) as picture:
            assert np.array_equal(picture, image_grid(x[i : i + 1], scale=1))
            assert json.loads(picture.text["scoresde"])["index"] == i


def test_a_folder_that_is_replaced_has_only_the_new_pictures(typed: Run, fake: Any) -> None:
    assert typed(*SAMPLE, "--out", "pictures/", "--count", 4).exit_code == 0
    Path("pictures/mine.png").write_bytes(b"mine")
    assert typed(*SAMPLE, "--out", "pictures", "--count", 2, "--force", "--scale", 3).exit_code == 0
    assert sorted(path.name for path in Path("pictures").iterdir()) == [
        *("00000.png", "00001.png", "mine.png", "samples.json")
    ]
    assert pixels("pictures/00001.png").shape == (24, 24)


@pytest.mark.parametrize(
    "record", ["no JSON", "[1]", "null", '{"files": 3}', '{"files": [null, "mine.png", "../a.png"]}']
)
def test_a_file_that_is_no_record_removes_nothing(typed: Run, fake: Any, record: str) -> None:
    Path("pictures").mkdir()
    kept = [Path("a.png"), Path("pictures/mine.png"), Path("pictures/00009.png")]
    for path in kept:
        path.write_bytes(b"mine")
    Path("pictures/samples.json").write_text(record)
    result = typed(*SAMPLE, "--out", "pictures/", "--count", 2, "--force")
    assert result.exit_code == 0, result.output
    assert all(path.read_bytes() == b"mine" for path in kept)
    assert json.loads(Path("pictures/samples.json").read_text())["files"] == ["00000.png", "00001.png"]


def test_a_folder_needs_pictures(typed: Run, fake: Any) -> None:
    fake.event_shape = (5,)
    for more in ((), ("--animate", "a.gif", "--out", "a.npz")):
        result = typed(*SAMPLE, "--out", "pictures/", *more)
        assert result.exit_code == 2 and "no pictures" in result.output and fake.calls == 0
    assert not Path("pictures").exists()


@pytest.mark.parametrize(
    ("arguments", "frames"),
    [
        (SAMPLE[1:], {11}),
        (("--method", "rk45"), set(range(6, 50))),
        ((*SAMPLE[1:4], 500), {48, 49}),  # two frames that are the same picture become one
    ],
)
def test_an_animation_ends_with_the_samples(typed: Run, fake: Any, arguments: Any, frames: set[int]) -> None:
    result = typed("sample", *arguments, "--count", 5, "--batch-size", 2, "--out", "a.png", "--animate", "a.gif")
    assert result.exit_code == 0, result.output
    count = frames_of("a.gif")
    assert count in frames
    first, last = pixels("a.gif"), pixels("a.gif", count - 1)
    assert np.abs(last - pixels("a.png")).max() <= 1
    assert np.abs(last - first).mean() > 30


def test_an_animation_beside_arrays(typed: Run, fake: Any) -> None:
    assert typed(*SAMPLE, "--count", 2, "--out", "a.npz", "--animate", "a.gif", "--scale", 2).exit_code == 0
    assert pixels("a.gif").shape == (16, 34)
    assert typed(*SAMPLE, "--count", 2, "--out", "b.npz", "--animate", "a.gif").exit_code == 4
    assert typed(*SAMPLE, "--count", 2, "--out", "c.npz", "--animate", "a.mp4").exit_code == 0
    assert Path("a.mp4").read_bytes()[4:8] == b"ftyp"


def test_a_scale_needs_a_picture(typed: Run, fake: Any) -> None:
    result = typed(*SAMPLE, "--out", "a.npz", "--scale", 2)
    assert result.exit_code == 2 and "`scale`" in result.output and fake.calls == 0
    assert typed(*SAMPLE, "--out", "a.gif").exit_code == 2
    assert typed(*SAMPLE, "--animate", "a.png").exit_code == 2


def test_frames_have_the_size_of_data() -> None:
    from scoresde import EDMSDE
    from scoresde.integrate import Info

    process = EDMSDE()
    frames = Frames(process)
    see = frames.watch(0, None)
    for step, t in enumerate((process.t_max, 1.0)):
        x = process.sigma(torch.tensor(t, dtype=torch.float64)) * torch.ones(2, 1, 4, 4)
        see(Info(step=step, t=t, x=x, nfe=torch.ones(2)))
    first, second, end = frames.states(torch.zeros(2, 1, 4, 4))
    assert 0.99 < first.max() < 1.01 and 0.6 < second.max() < 0.8 and end.max() == 0


def test_a_batch_that_is_tried_again_is_shown_once(monkeypatch: pytest.MonkeyPatch, typed: Run, fake: Any) -> None:
    failed: list[int] = []

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if len(x) > 2 and fake.calls > 3:
            failed.append(len(x))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return s

    fake.change = change
    result = typed(*SAMPLE, "--count", 4, "--out", "a.png", "--animate", "a.gif")
    assert result.exit_code == 0 and failed == [4]
    assert frames_of("a.gif") == 11 and pixels("a.gif").shape == pixels("a.png").shape
