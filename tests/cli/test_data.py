"""Data of commands: what is read, and what is refused before anything is evaluated or written."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from scoresde.training import Folder, digits_split
from tests.cli.common import Files, Run, column, expect, settings

GOOD = np.zeros((2, 1, 8, 8))
Make = Callable[[], str]


def npz(**arrays: Any) -> Make:
    def make() -> str:
        np.savez("data.npz", **arrays)
        return "data.npz"

    return make


def raw(name: str, content: bytes) -> Make:
    def make() -> str:
        Path(name).write_bytes(content)
        return name

    return make


def compressed(change: Callable[[bytes], bytes]) -> Make:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.random.default_rng(0).normal(size=(2, 1, 8, 8)))
    return raw("data.npz", change(buffer.getvalue()))


def tensors(**arrays: torch.Tensor) -> Make:
    def make() -> str:
        save_file(arrays, "data.safetensors")
        return "data.safetensors"

    return make


def picture(name: str, size: tuple[int, int] = (8, 8), mode: str = "L", grey: int = 0) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, grey if mode == "L" else None).save(name)


def folder(*images: tuple[str, tuple[int, int], str]) -> Make:
    def make() -> str:
        Path("folder").mkdir()
        for name, size, mode in images:
            picture(f"folder/{name}", size, mode)
        return "folder"

    return make


def image(size: tuple[int, int] = (8, 8), mode: str = "L", cut: int = 0) -> Make:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return raw("data.png", buffer.getvalue()[: -cut or None])


def broken_link() -> str:
    picture("folder/a.png")
    Path("folder/b.png").symlink_to("nowhere")
    return "folder"


BAD: dict[str, tuple[Make, tuple[object, ...], str]] = {
    "missing": (lambda: "data.npz", (), "'data.npz' cannot be read: No such file"),
    "unknown extension": (raw("data.csv", b"1"), (), "must end in one of .npz, .npy"),
    "empty file": (raw("data.npz", b""), (), "cannot be read"),
    "truncated npz": (compressed(lambda b: b[:-200]), (), "cannot be read"),
    "altered npz": (compressed(lambda b: b[:200] + b"0123456789" + b[210:]), (), "cannot be read"),
    "header": (raw("data.npy", b"\x93NUMPY\x01\x00v\x00" + b"(" * 117 + b"\n"), (), "cannot be read"),
    "pickle": (raw("data.npy", b"\x80\x04N."), (), "cannot be read"),
    "garbled safetensors": (raw("data.safetensors", b"\xff" * 20), (), "cannot be read"),
    "no array": (npz(), (), "it has none"),
    "several arrays": (npz(a=GOOD, b=GOOD), (), "by --key; it has a, b"),
    "missing key": (npz(x=GOOD), ("--key", "y"), "no array 'y', it has x"),
    "missing key, safetensors": (tensors(x=torch.zeros(1, 1, 8, 8)), ("--key", "y"), "no array 'y', it has x"),
    "key of an image": (image(), ("--key", "x"), "`key` names an array of a file"),
    "no samples": (npz(x=GOOD[:0]), (), "holds no samples"),
    "wrong shape": (npz(x=np.zeros((2, 8, 8))), (), "shape (1, 8, 8), as the model, got samples of shape (8, 8)"),
    "one sample without a batch": (npz(x=GOOD[0]), (), "got samples of shape (8, 8), in all (1, 8, 8)"),
    "booleans": (npz(x=GOOD > 0), (), "got bool"),
    "integers without levels": (npz(x=GOOD.astype(int)), (), "`levels` is missing: `data` are integers, 0 to 0"),
    "levels too few": (npz(x=GOOD.astype(int) + 17), ("--levels", 17), "must be grey levels 0 to 16, got 17 to 17"),
    "just below the range": (npz(x=GOOD - 2.1), (), "reach from -2.1 to -2.1, far outside the model's range -1 to 1"),
    "just above the range": (npz(x=GOOD + 2.1), (), "reach from 2.1 to 2.1, far outside the model's range -1 to 1"),
    "another range": (npz(x=GOOD - 1.6), ("--data-range", 0, 1), "far outside the model's range 0 to 1"),
    "empty folder": (folder(), (), "'folder' holds no images"),
    "mixed sizes": (
        folder(("a.png", (8, 8), "L"), ("b.png", (8, 9), "L")),
        (),
        "got (1, 8, 8) in 'folder/a.png' and (1, 9, 8) in 'folder/b.png'",
    ),
    "mixed colours": (folder(("a.png", (8, 8), "L"), ("b.png", (8, 8), "RGB")), (), "and (3, 8, 8) in 'folder/b.png'"),
    "image of another size": (image((9, 8)), (), "shape (1, 8, 8), as the model, got samples of shape (1, 8, 9)"),
    "alpha": (image(mode="RGBA"), (), "8-bit grey or colour image (PIL's modes L, RGB), got the mode RGBA"),
    "truncated image": (image(cut=30), (), "cannot be read"),
    "broken link": (broken_link, (), "'folder/b.png' cannot be read"),
    "labels of one folder": (folder(("a.png", (8, 8), "L")), ("--labels", "folders"), "so in one class"),
    "an array of a folder": (folder(("a.png", (8, 8), "L")), ("--labels", "label"), "for a folder with a folder of"),
    "folders of an image": (image(), ("--labels", "folders"), "names an array"),
    "other labels of the digits": (lambda: "digits", ("--labels", "classes"), "under the name label"),
}


def test_bad_data_are_refused(run: Run, fake: Any, files: Files, tmp_path: Path) -> None:
    for number, (case, (make, arguments, said)) in enumerate(BAD.items()):
        here = tmp_path / str(number)
        here.mkdir()
        os.chdir(here)
        source = make()
        before = os.listdir()
        for command in ("likelihood", "encode"):
            result = run(command, source, *arguments)
            text = " ".join(result.output.split())
            assert result.exit_code == 2 and said in text and text.startswith("Error: `"), (case, command, text)
            assert os.listdir() == before and fake.calls == 0, case


def test_images_in_folders_of_the_folder_have_their_path_as_a_name(run: Run, solved: list[Any]) -> None:
    for i, name in enumerate(("b.png", "two/a.png", "one/c.png", "one/deep/a.png", ".thumbs/a.png", "one/._c.png")):
        picture(f"images/{name}", grey=i)
    expect(run("likelihood", "images"), 0)
    assert column("name") == ["b.png", "one/c.png", "one/deep/a.png", "two/a.png"]
    assert ((solved[0].x[:, 0, 0, 0] + 1) * 128).floor().tolist() == [0, 2, 3, 1]
    expect(run("likelihood", "images/b.png", "--force"), 0)
    assert column("name") == ["b.png"]


def test_classes_of_images_are_their_folders_as_in_training(run: Run, fake: Any, solved: list[Any]) -> None:
    fake.labels.count = 3
    for name in ("b/1.png", "a/2.png", "a/1.png", "c/1.png"):
        picture(f"images/{name}")
    expect(run("likelihood", "images", "--labels", "folders"), 0)
    assert column("name") == ["a/1.png", "a/2.png", "b/1.png", "c/1.png"]
    labels = solved[0].options["context"]["half"]
    assert labels.tolist() == [0, 0, 1, 2]
    trained = Folder("images").rows(torch.arange(4))[1]
    assert trained is not None and trained.equal(labels)
    with_labels = settings()["data"]
    expect(run("likelihood", "images", "--force"), 0)
    assert settings()["data"] != with_labels


def test_digits_are_those_that_training_held_out(run: Run, solved: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    expect(run("likelihood", "digits", "--labels", "label", "--model", "digits", "--batch-size", 360), 2, "classes")
    expect(run("likelihood", "digits", "--batch-size", 360), 0)
    assert torch.equal(((solved[0].x + 1) * 8.5).floor(), digits_split().test_images.float())
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    expect(run("likelihood", "digits"), 2, "pip install 'scoresde[train]'")


def test_every_type_of_numbers(run: Run, fake: Any, solved: list[Any]) -> None:
    fake.event_shape = (2,)
    for dtype in ("uint8", "uint16", "int32", ">i8", "uint64", ">f4", "float16", "float64"):
        array = np.arange(6).reshape(3, 2).astype(dtype)
        integers = array.dtype.kind in "iu"
        np.save("a.npy", array if integers else (array / 4 - 1).astype(dtype))
        expect(run("likelihood", "a.npy", "--levels", 8, "--force"), 0)
        cells = (solved[-1].x + 1) * 4
        assert cells.dtype == torch.float32 and (cells.floor() if integers else cells).tolist() == array.tolist(), dtype


def test_the_digest_sees_values_types_shapes_and_names(run: Run, fake: Any, solved: list[Any]) -> None:
    def digest(event: tuple[int, ...], x: Any, *names: str) -> str:
        fake.event_shape = event
        Path("a.npy").unlink(missing_ok=True)
        np.save("a.npy", x)
        for name in names:
            picture(f"images/{name}")
        expect(run("likelihood", "images" if names else "a.npy", "--force", "--levels", 256), 0)
        return str(settings()["data"])

    x = np.arange(4.0, dtype=np.float32).reshape(2, 2) / 8
    found = [digest((2,), x), digest((2,), x + 1e-7), digest((2,), x.astype(float)), digest((2, 1), x[:, :, None])]
    found += [digest((1, 8, 8), x, "a.png"), digest((1, 8, 8), x, "a.png", "b.png")]
    Path("images/b.png").rename("images/c.png")
    found.append(digest((1, 8, 8), x, "a.png"))
    assert len(set(found)) == 7 and digest((2,), x.copy()) == found[0]
