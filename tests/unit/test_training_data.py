"""Data to train on: readers, and batches that are functions of seed, step and rank."""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from scoresde.core.errors import InvalidArgumentError, NonFiniteError
from scoresde.training import Arrays, Batches, Folder, Stateless, read

from .refusals import assert_refused

V = InvalidArgumentError


def grey(n: int = 10, levels: int = 17) -> Arrays:
    v = torch.arange(n * 4).remainder(levels).reshape(n, 1, 2, 2)
    return Arrays(v, torch.arange(n) % 3, levels=levels)


def test_every_epoch_sees_every_row_once_over_all_ranks() -> None:
    """Whatever the number of ranks."""
    one = Batches(grey(10), 6, 5)
    for world in (1, 2, 3):
        ranks = [Batches(grey(10), 6 // world, 5, rank=rank, world=world) for rank in range(world)]
        rows = torch.cat([batches.indices(step) for step in range(5) for batches in ranks])  # 30 rows are 3 epochs
        for epoch in rows.split(10):
            assert sorted(epoch.tolist()) == list(range(10)), world
        assert not torch.equal(rows[:10], rows[10:20])
        assert torch.equal(rows, torch.cat([one.indices(step) for step in range(5)])), world


def test_a_batch_larger_than_the_data() -> None:
    rows = Batches(grey(4), 10, 0).indices(3)
    assert len(rows) == 10 and torch.bincount(rows).tolist() == pytest.approx([2.5] * 4, abs=1)


def test_a_batch_is_a_function_of_seed_step_and_rank() -> None:
    def batch(seed: int, step: int, rank: int) -> torch.Tensor:
        return Batches(grey(), 4, seed, label_dropout=0.5, rank=rank, world=2)[step][0]

    state = torch.random.get_rng_state()
    places = [(seed, step, rank) for seed in (0, 1) for step in (0, 1) for rank in (0, 1)]
    found = [batch(*place) for place in places]
    assert all(torch.equal(x, batch(*place)) for x, place in zip(found, reversed(list(reversed(places))), strict=True))
    noise = {x.frac().sum().item() for x in found}
    assert len(noise) == len(places)
    assert torch.equal(state, torch.random.get_rng_state())


def test_workers_change_nothing() -> None:
    alone, helped = (Stateless(Batches(grey(), 4, 1, flip=True), workers=n) for n in (0, 2))
    for a, b in zip(alone(3, 8), helped(3, 8), strict=True):
        assert torch.equal(a.x0, b.x0) and torch.equal(a.context["label"], b.context["label"])
        assert torch.equal(torch.rand(3, generator=a.generator), torch.rand(3, generator=b.generator))
        assert a.dropout == b.dropout


def test_purposes_have_numbers_of_their_own() -> None:
    """The noise of the data is not that of the loss, nor that of another step or rank."""
    draws = []
    for rank in (0, 1):
        stream = Stateless(Batches(grey(), 4, 0, rank=rank, world=2))
        for piece in stream(0, 3):
            draws += [torch.rand(1, generator=piece.generator).item(), float(piece.dropout or 0)]
    assert len(set(draws)) == 12


@pytest.mark.parametrize("span", [(-1.0, 1.0), (0.0, 1.0)])
def test_grey_levels_are_dequantised_afresh(span: tuple[float, float]) -> None:
    source = grey(8)
    batches = Batches(source, 8, 0, span)
    noise = []
    for step in range(3):
        x, _ = batches[step]
        v = (x.double() - span[0]) / (span[1] - span[0]) * 17
        assert torch.equal(v.floor().long(), source.values[batches.indices(step)])
        assert x.dtype == torch.float32
        noise.append(v.frac())
    assert not any(torch.allclose(noise[0], other, atol=1e-3) for other in noise[1:])
    assert batches.std() == pytest.approx(float(x.std()), rel=0.1)


def test_floating_point_values_are_mapped_or_taken_as_they_are() -> None:
    x = torch.linspace(0, 1, 12).reshape(3, 1, 2, 2)
    source = Arrays(x)
    rows = Batches(source, 3).indices(0)
    assert torch.equal(Batches(source, 3)[0][0], x[rows])
    assert torch.allclose(Batches(source, 3, value_range=(0, 1))[0][0], 2 * x[rows] - 1)
    assert torch.equal(Batches(Arrays(100 * x), 3, data_range=None)[0][0], 100 * x[rows])
    assert Batches(source, 3)[0][1] == {}
    with pytest.raises(InvalidArgumentError, match=r"0 to 100.*value_range"):
        Batches(Arrays(100 * x), 3)


def test_half_of_the_images_are_mirrored_and_a_share_of_labels_hidden() -> None:
    """Of 4,000: 50 % and 30 %, within 5 standard errors (false alarm 6e-7 each)."""
    x = torch.tensor([0.0, 1.0]).expand(1000, 1, 1, 2).clone()
    source = Arrays(x, torch.arange(1000) % 10)
    batches = Batches(source, 4000, 0, flip=True, label_dropout=0.3)
    values, context = batches[0]
    assert set(values.flatten(1).sum(1).tolist()) == {1.0}
    flipped = (values[:, 0, 0, 0] == 1).double().mean()
    hidden = (context["label"] == 10).double().mean()
    assert abs(flipped - 0.5) < 5 * math.sqrt(0.25 / 4000)
    assert abs(hidden - 0.3) < 5 * math.sqrt(0.21 / 4000)
    shown = context["label"] != 10
    assert torch.equal(context["label"][shown], source.labels[batches.indices(0)][shown])  # type: ignore[index]


def test_batches_refuse() -> None:
    wrong = {"size": 0, "seed": -1, "data_range": (1.0, -1.0), "label_dropout": 1.5}
    cells = [*wrong.items(), ("data_range", None)]
    flipped = lambda: Batches(Arrays(torch.zeros(3, 2)), 2, flip=True)  # noqa: E731
    cases = [(lambda k=k, v=v: Batches(**{"source": grey(), "size": 2, k: v}), V, k) for k, v in cells]
    assert_refused([*cases, (flipped, V, "flip")])


def test_the_digits() -> None:
    source = read("digits")
    assert (len(source), source.event_shape, source.levels, source.classes) == (1437, (1, 8, 8), 17, 10)
    assert source.name.startswith("scikit-learn digits")


def test_arrays_of_files(tmp_path: Path) -> None:
    v, labels = np.arange(24, dtype=np.uint8).reshape(6, 1, 2, 2), np.arange(6)
    np.savez(tmp_path / "a.npz", x=v, label=labels, note=np.array("text is left alone"))
    np.save(tmp_path / "a.npy", v)
    tensors = {"x": torch.from_numpy(v), "label": torch.from_numpy(labels)}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    for suffix in (".npz", ".npy", ".safetensors"):
        path, labelled = str(tmp_path / f"a{suffix}"), suffix != ".npy"
        source = read(path)
        values, got = source.rows(torch.tensor([5, 0]))
        assert torch.equal(values, torch.from_numpy(v)[[5, 0]]) and source.levels == 256, suffix
        assert torch.equal(got, torch.tensor([5, 0])) if labelled else got is None, suffix
        assert source.classes == (6 if labelled else None), suffix
        again = read(path).fingerprint()
        assert source.fingerprint() == again and len(again) == 64, suffix
    for dtype in (">u2", "uint16", ">i8", ">f4", "float16"):
        np.savez(tmp_path / "a.npz", x=np.arange(6).reshape(3, 2).astype(dtype))
        source = read(str(tmp_path / "a.npz"), levels=None if "f" in dtype else 6)
        assert source.rows(torch.arange(3))[0].tolist() == [[0, 1], [2, 3], [4, 5]], dtype


def test_a_fingerprint_tells_data_apart() -> None:
    x = torch.zeros(4, 2)
    found = {Arrays(x).fingerprint(), Arrays(x.double()).fingerprint(), Arrays(x.reshape(2, 4)).fingerprint()}
    found |= {Arrays(x, torch.arange(4)).fingerprint(), Arrays(x + 1e-7).fingerprint()}
    assert len(found) == 5


def save_images(folder: Path, images: dict[str, np.ndarray]) -> Path:
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
    return folder


def test_a_folder_of_images_whose_folders_are_classes(tmp_path: Path) -> None:
    images = {f"{i}.png": np.full((4, 6, 3), i, np.uint8) for i in range(5)}
    images["2.png"][0, 1] = (7, 8, 9)
    source = read(str(save_images(tmp_path / "flat", images)))
    assert (len(source), source.event_shape, source.levels, source.classes) == (5, (3, 4, 6), 256, None)
    values, labels = source.rows(torch.tensor([4, 2]))
    assert values[0].unique().tolist() == [4] and values[1, :, 0, 1].tolist() == [7, 8, 9] and labels is None
    images = {f"{kind}/{i}.png": np.full((4 + i, 5), 10 * i, np.uint8) for kind in ("cat", "dog") for i in range(2)}
    folder = str(save_images(tmp_path / "classes", images))
    with pytest.raises(InvalidArgumentError, match=r"one shape.*\(1, 4, 5\).*\(1, 5, 5\).*size"):
        read(folder)
    source = read(folder, size=4)
    assert source.event_shape == (1, 4, 4) and source.classes == 2
    values, labels = source.rows(torch.tensor([3, 0, 1]))
    assert labels is not None and labels.tolist() == [1, 0, 0] and values.shape == (3, 1, 4, 4)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    black = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(InvalidArgumentError, match="no images"):
        Folder(tmp_path)
    save_images(tmp_path, {"a.png": black})
    with pytest.raises(InvalidArgumentError, match="RGBA"):
        Folder(tmp_path)
    save_images(tmp_path, {"a.png": black[..., :3], "b.png": black[..., :3]})
    source = Folder(tmp_path)
    raw = (tmp_path / "b.png").read_bytes()
    for content, read_them in ((raw[:-30], lambda: source.rows(torch.arange(2))), (b"text", lambda: Folder(tmp_path))):
        (tmp_path / "b.png").write_bytes(content)  # the header of the first is good
        with pytest.raises(InvalidArgumentError, match=r"b\.png.*cannot be read"):
            read_them()


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (sentinel,))

    np.savez(tmp_path / "a.npz", x=np.array([Bomb()], dtype=object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb()))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(InvalidArgumentError, match=r"cannot be read.*[Pp]ickle"):
            read(str(tmp_path / name))
    assert not sentinel.exists()


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    def npz(levels: int | None = None, **arrays: Any) -> Callable[[], Any]:
        def made() -> None:
            np.savez(tmp_path / "a.npz", **arrays)
            read(str(tmp_path / "a.npz"), levels=levels)

        return made

    good = np.zeros((3, 2), np.uint8)
    np.savez(tmp_path / "cut.npz", x=good)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:100])
    assert_refused(
        {
            "cut short": (lambda: read(str(tmp_path / "cut.npz")), V, "cannot be read"),
            "two arrays": (npz(a=good, b=good), V, "called x"),
            "booleans": (npz(x=good, label=np.zeros(3, bool)), V, "must be integer grey levels .* got bool"),
            "levels missing": (npz(x=np.zeros((3, 2), np.int64)), V, "levels"),
            "a negative label": (npz(x=good, label=np.array([0, -1, 1])), V, "labels"),
            "above": (npz(17, x=np.array([[0], [200]], np.uint8)), V, "0 to 16, got 0 to 200"),
            "NaN": (npz(x=np.array([[0.0], [np.nan]])), NonFiniteError, r"1 of 2 samples \(first: \[1\]\)"),
        }
    )


def test_torchvision_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def images(x: Any) -> type:
        told = {"data": x, "targets": [0, 1, 2]}
        return type("Images", (), {"__init__": lambda self, root, train, download: self.__dict__.update(told)})

    for package in ("torchvision", "torchvision.datasets"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidArgumentError, match="pip install torchvision"):
        read("torchvision:MNIST")
    mnist, cifar = images(torch.zeros(3, 4, 5, dtype=torch.uint8)), images(np.zeros((3, 4, 5, 3), np.uint8))
    sets = SimpleNamespace(MNIST=mnist, CIFAR10=cifar, __all__=["MNIST", "CIFAR10"])
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=sets))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", sets)
    assert read("torchvision:MNIST").event_shape == (1, 4, 5)
    assert read("torchvision:CIFAR10").event_shape == (3, 4, 5)
    with pytest.raises(InvalidArgumentError, match="did you mean 'MNIST'"):
        read("torchvision:MNITS")
