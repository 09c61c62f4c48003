"""What is no data for a command is refused before anything is evaluated or written."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import Result

from scoresde.cli._data import Data, digest, prepare, read
from scoresde.errors import InvalidArgumentError
from scoresde.training import Folder

Run = Callable[..., Result]
Files = Callable[[], list[str]]
GOOD = np.zeros((2, 1, 8, 8))


def npz(**arrays: Any) -> Callable[[], str]:
    def make() -> str:
        np.savez("data.npz", **arrays)
        return "data.npz"

    return make


def raw(name: str, content: bytes) -> Callable[[], str]:
    def make() -> str:
        Path(name).write_bytes(content)
        return name

    return make


def truncated() -> str:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.random.default_rng(0).normal(size=(2, 1, 8, 8)))
    return raw("data.npz", buffer.getvalue()[:-200])()


def altered() -> str:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.random.default_rng(0).normal(size=(2, 1, 8, 8)))
    content = bytearray(buffer.getvalue())
    content[200:210] = b"0123456789"
    return raw("data.npz", bytes(content))()


def pickled() -> str:
    np.savez("data.npz", x=np.array([{"a": 1}, None], dtype=object))
    return "data.npz"


def tensors(**arrays: torch.Tensor) -> Callable[[], str]:
    def make() -> str:
        save_file(arrays, "data.safetensors")
        return "data.safetensors"

    return make


def folder(*images: tuple[str, tuple[int, ...], str]) -> Callable[[], str]:
    def make() -> str:
        Path("folder").mkdir()
        for name, size, mode in images:
            Image.new(mode, size).save(f"folder/{name}")
        return "folder"

    return make


def image(size: tuple[int, int] = (8, 8), mode: str = "L", cut: int = 0) -> Callable[[], str]:
    def make() -> str:
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, "PNG")
        return raw("data.png", buffer.getvalue()[: -cut or None])()

    return make


BAD: dict[str, tuple[Callable[[], str], tuple[object, ...], str, int]] = {
    "missing": (lambda: "data.npz", (), "'data.npz' cannot be read: No such file", 2),
    "unknown extension": (raw("data.csv", b"1"), (), "must end in one of .npz, .npy", 2),
    "no extension": (raw("data", b"1"), (), "must end in one of .npz, .npy", 2),
    "empty file": (raw("data.npz", b""), (), "cannot be read", 2),
    "truncated npz": (truncated, (), "cannot be read", 2),
    "altered npz": (altered, (), "cannot be read", 2),
    "pickle": (raw("data.npy", b"\x80\x04N."), (), "cannot be read", 2),
    "pickled npz": (pickled, (), "cannot be read: Object arrays cannot be loaded", 2),
    "garbled safetensors": (raw("data.safetensors", b"\xff" * 20), (), "cannot be read", 2),
    "no array": (npz(), (), "it has none", 2),
    "several arrays": (npz(a=GOOD, b=GOOD), (), "by --key; it has a, b", 2),
    "missing key": (npz(x=GOOD), ("--key", "y"), "no array 'y', it has x", 2),
    "missing key, safetensors": (tensors(x=torch.zeros(1, 1, 8, 8)), ("--key", "y"), "no array 'y', it has x", 2),
    "key of an image": (image(), ("--key", "x"), "`key` names an array of a file", 2),
    "key of the digits": (lambda: "digits", ("--key", "x"), "`key` names an array of a file", 2),
    "no samples": (npz(x=GOOD[:0]), (), "holds no samples", 2),
    "wrong shape": (
        npz(x=np.zeros((2, 8, 8))),
        (),
        "samples of shape (1, 8, 8), as the model, got samples of shape (8, 8)",
        2,
    ),
    "one sample without a batch": (npz(x=GOOD[0]), (), "got samples of shape (8, 8), in all (1, 8, 8)", 2),
    "a vector": (npz(x=np.zeros(3)), (), "(samples, *event)", 2),
    "NaN": (
        npz(x=np.where(np.arange(2)[:, None, None, None] == 1, np.nan, GOOD)),
        (),
        "in 1 of 2 samples (first: [1])",
        3,
    ),
    "infinity": (
        npz(x=np.where(np.arange(2)[:, None, None, None] == 1, np.inf, GOOD)),
        (),
        "in 1 of 2 samples (first: [1])",
        3,
    ),
    "booleans": (npz(x=GOOD > 0), (), "got bool", 2),
    "complex": (npz(x=GOOD * 1j), (), "got complex", 2),
    "texts": (npz(x=np.array([["a"]])), (), "got <U1", 2),
    "booleans, safetensors": (tensors(x=torch.zeros(1, 1, 8, 8) > 0), (), "got torch.bool", 2),
    "integers without levels": (npz(x=GOOD.astype(int)), (), "`levels` is missing: `data` are integers, 0 to 0", 2),
    "levels too few": (npz(x=GOOD.astype(int) + 17), ("--levels", 17), "must be grey levels 0 to 16, got 17 to 17", 2),
    "negative levels": (npz(x=GOOD.astype(int) - 1), ("--levels", 17), "must be grey levels 0 to 16, got -1 to -1", 2),
    "floating grey levels": (npz(x=GOOD + 16), (), "reach from 16 to 16, far outside the model's range -1 to 1", 2),
    "another range": (npz(x=GOOD - 1.6), ("--data-range", 0, 1), "far outside the model's range 0 to 1", 2),
    "empty folder": (folder(), (), "'folder' holds no images", 2),
    "mixed sizes": (
        folder(("a.png", (8, 8), "L"), ("b.png", (8, 9), "L")),
        (),
        "got (1, 8, 8) in 'folder/a.png' and (1, 9, 8) in 'folder/b.png'",
        2,
    ),
    "mixed colours": (
        folder(("a.png", (8, 8), "L"), ("b.png", (8, 8), "RGB")),
        (),
        "and (3, 8, 8) in 'folder/b.png'",
        2,
    ),
    "image of another size": (image((9, 8)), (), "shape (1, 8, 8), as the model, got samples of shape (1, 8, 9)", 2),
    "colour for grey": (image(mode="RGB"), (), "got samples of shape (3, 8, 8)", 2),
    "alpha": (image(mode="RGBA"), (), "8-bit grey or colour image (PIL's modes L, RGB), got the mode RGBA", 2),
    "sixteen bits": (image(mode="I;16"), (), "got the mode I;16", 2),
    "truncated image": (image((8, 8), cut=30), (), "cannot be read", 2),
    "no image": (raw("data.png", b"hello"), (), "cannot be read", 2),
}


@pytest.mark.parametrize("command", ["likelihood", "encode"])
@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_refused(run: Run, fake: Any, files: Files, command: str, case: str) -> None:
    make, arguments, said, code = BAD[case]
    source = make()
    before = files()
    result = run(command, source, *arguments)
    assert result.exit_code == code, result.output
    assert said in result.output and result.output.startswith("Error: `")
    assert files() == before and fake.calls == 0


def test_images_in_folders_of_the_folder_have_their_path_as_a_name(tmp_path: Path) -> None:
    for i, name in enumerate(("b.png", "two/a.png", "one/c.png", "one/deep/a.png", ".thumbs/a.png", "one/._c.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), i).save(tmp_path / name)
    found = read(str(tmp_path))
    assert found.names == ["b.png", "one/c.png", "one/deep/a.png", "two/a.png"]
    assert found.values[:, 0, 0, 0].tolist() == [0, 2, 3, 1]
    assert read(str(tmp_path / "b.png")).names == ["b.png"]


def test_classes_of_images_are_their_folders_as_in_training(tmp_path: Path) -> None:
    for name in ("b/1.png", "a/2.png", "a/1.png", "c/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    found = read(str(tmp_path), labels="folders")
    assert found.names == ["a/1.png", "a/2.png", "b/1.png", "c/1.png"]
    assert found.labels is not None and found.labels.tolist() == [0, 0, 1, 2]
    trained = Folder(tmp_path).rows(torch.arange(4))[1]
    assert trained is not None and trained.equal(found.labels)
    assert read(str(tmp_path)).labels is None
    assert found.digest != read(str(tmp_path)).digest


@pytest.mark.parametrize(
    ("data", "labels", "said"),
    [
        ("folder", "folders", "in one folder, so in one class"),
        ("folder", "label", "for a folder with a folder of images"),
        ("folder/1.png", "folders", "names an array"),
        ("digits", "classes", "under the name label"),
    ],
)
def test_labels_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, labels: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Image.new("L", (8, 8)).save("folder/1.png")
    with pytest.raises(InvalidArgumentError, match=said):
        read(data, labels=labels)


def test_a_broken_link_in_a_folder_is_not_passed_over(run: Run, fake: Any) -> None:
    folder(("a.png", (8, 8), "L"))()
    Path("folder/b.png").symlink_to("nowhere")
    result = run("encode", "folder")
    assert result.exit_code == 2 and "'folder/b.png' cannot be read" in result.output


@pytest.mark.skipif(sys.platform == "win32", reason="file names of POSIX")
def test_names_that_would_break_a_table(run: Run, fake: Any) -> None:
    folder(("a\nb.png", (8, 8), "L"))()
    result = run("encode", "folder")
    assert result.exit_code == 2 and r"'a\nb.png' cannot be printed" in result.output


def test_digits_without_scikit_learn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    result = run("likelihood", "digits")
    assert result.exit_code == 2 and "pip install 'scoresde[train]'" in result.output


def test_the_digits_are_those_that_training_held_out() -> None:
    pytest.importorskip("sklearn")
    from scoresde.training import digits_split

    data = read("digits")
    assert torch.equal(data.values, digits_split().test_images) and data.levels == 17


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", ">i8", "uint64", ">f4", "float16", "float64"])
def test_every_type_of_numbers(tmp_path: Path, dtype: str) -> None:
    array = np.arange(6).reshape(3, 2).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    values = read(str(tmp_path / "a.npy")).values
    assert values.tolist() == array.tolist()
    assert values.is_floating_point() == ("f" in dtype and "u" not in dtype)


def test_values_near_the_range_are_taken() -> None:
    for x in (-1.9, 1.9):
        prepare(Data(torch.full((1, 2), x), ["0"]), (2,), None, (-1.0, 1.0))
    for x in (-2.1, 2.1):
        with pytest.raises(InvalidArgumentError, match="far outside"):
            prepare(Data(torch.full((1, 2), x), ["0"]), (2,), None, (-1.0, 1.0))


def test_the_digest_sees_values_types_shapes_and_names() -> None:
    x = torch.arange(4.0).reshape(2, 2)
    several = [Data(x, ["0", "1"]), Data(x + 1e-7, ["0", "1"]), Data(x.double(), ["0", "1"]), Data(x, ["1", "0"])]
    several.append(Data(x.reshape(2, 1, 2), ["0", "1"]))
    assert len({data.digest for data in several}) == 5
    assert Data(x.clone(), ["0", "1"]).digest == several[0].digest
    assert digest([("a", b"bc")]) != digest([("ab", b"c")])
