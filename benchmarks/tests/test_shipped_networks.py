"""The shipped networks in the benchmarks: their digits, and how their figures share a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import _record, _shipped, _tables
from benchmarks.mnist import HELD_OUT


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of result files."""
    for module in (_record, _tables):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    return tmp_path


def images(folder: Path, training: int) -> Path:
    """Files of MNIST, in which an image's number is in its first pixels, and modulo 10 its label."""
    count = HELD_OUT + training
    grey, labels = np.zeros((count, 28, 28), np.uint8), np.arange(count) % 10
    grey[:, 0, 0], grey[:, 0, 1] = np.arange(count) // 256, np.arange(count) % 256
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(bytes([0, 0, 8, 3]) + np.array(grey.shape, ">u4").tobytes() + grey.tobytes())
    labels_path = folder / "t10k-labels-idx1-ubyte"
    labels_path.write_bytes(
        bytes([0, 0, 8, 1]) + np.array([count], ">u4").tobytes() + labels.astype(np.uint8).tobytes()
    )
    return path


def test_digits_of_mnist_are_shuffled_with_their_labels_and_held_out_once(tmp_path: Path) -> None:
    digits = _shipped.mnist(images(tmp_path, training=40))
    assert (digits.name, len(digits.train_labels), len(digits.held_labels)) == ("mnist", 40, HELD_OUT)
    numbers = []
    for grey, labels in ((digits.train_grey, digits.train_labels), (digits.held_grey, digits.held_labels)):
        number = grey[:, 0, 0, 0].long() * 256 + grey[:, 0, 0, 1].long()
        assert torch.equal(number % 10, labels.long()) and not torch.equal(number, number.sort().values)
        numbers += number.tolist()
    assert sorted(numbers) == list(range(HELD_OUT + 40))
    inside = (digits.held(torch.Generator().manual_seed(0)).double() + 1) * 128 - digits.held_grey
    assert inside.min() >= -1e-4 and inside.max() <= 1 + 1e-4  # float32 has 1e-5 of a grey level


def test_without_images_the_network_is_that_of_the_digits() -> None:
    assert _shipped.shipped(None).name == "digits"


def test_a_classifier_is_trained_for_a_part_of_its_epochs() -> None:
    asked: list[int] = []
    nothing = torch.zeros(0)

    def learn(epochs: int, view: Any) -> torch.nn.Module:
        asked.append(epochs)
        return torch.nn.Identity()

    shipped = _shipped.Shipped("digits", nothing, nothing, nothing, nothing, lambda v, generator: v, learn, epochs=40)
    shipped.classifier()
    shipped.classifier(part=8)
    assert asked == [40, 5]


def test_the_figures_of_mnist_are_a_part_of_the_file_that_the_others_keep(results: Path, tmp_path: Path) -> None:
    digits, mnist = _shipped.digits(), _shipped.mnist(images(tmp_path, training=2))
    digits.write("some", {"a": 1 / 3})
    before = _tables.load("some")
    mnist.write("some", {"a": 2.0})
    assert {key: value for key, value in _tables.load("some").items() if key != "mnist"} == before
    part = _tables.load("some", "mnist")
    assert part["results"] == {"a": 2.0} and part["command"] == "python -m benchmarks some --images …"
    digits.write("some", {"a": 3.0})
    assert _tables.load("some", "mnist") == part and _tables.load("some")["results"] == {"a": 3.0}
    assert list(json.loads((results / "some.json").read_text())) == ["command", "machine", "results", "mnist"]


def test_half_digits_of_mnist_as_the_page_describes_them() -> None:
    results = _tables.load("inverse_digits", "mnist")["results"]
    methods = {name: row for name, row in results["methods"].items() if name != "dps"}
    near = {name: row for name, row in methods.items() if abs(row["right"] - results["half"]) < 0.04}
    assert set(near) == {"mmps", "mcg", "pigdm"}
    assert {name for name, row in near.items() if 0.9 < row["observed"] < 1.1} == {"mmps"}
    assert results["methods"]["dps"]["observed"] > 100 and (0.25 / results["observations"]) ** 0.5 <= 0.11


@pytest.mark.parametrize("part", [None, "mnist"])
def test_few_steps_as_the_page_describes_them(part: str | None) -> None:
    rows = _tables.load("inverse_digits", part)["results"]["few steps"]
    for steps in (10, 15, 20):
        free, limited = (rows[f"{steps} steps, {kind}"] for kind in ("no radius", "radius"))
        assert limited["outside"] <= (0.25 * free["outside"] if steps == 10 else 0)
        assert limited["observed"] <= 1.05 * free["observed"]
    assert rows["10 steps, no radius"]["largest"] > 5 > 2 > rows["10 steps, radius"]["largest"]


def test_scales_of_mnist_as_the_page_describes_them() -> None:
    scales = _tables.load("guidance", "mnist")["results"]["scales"]
    assert min(scales, key=lambda name: scales[name]["energy"]) == "1"
    assert scales["1"]["right"] < 0.97 and scales["1.5"]["right"] >= 0.99
    diversity = [scales[name]["diversity"] for name in ("1", "1.5", "2", "3", "5", "8")]
    assert diversity == sorted(diversity, reverse=True)
    for name in ("3", "5"):
        inside = scales[f"{name}, interval"]
        assert inside["energy"] < scales[name]["energy"] and inside["diversity"] > scales[name]["diversity"]


def test_warm_starts_of_mnist_as_the_page_describes_them() -> None:
    results = _tables.load("warm_start", "mnist")["results"]
    assert set(results) == {"mnist, VP", "mnist, EDM"}
    for by in results.values():
        change = {rtol: row["unipc2"]["warm"]["median"] / row["unipc2"]["full"]["median"] for rtol, row in by.items()}
        assert change["0.1"] > 1 and change["0.03"] <= 0.8 and change["0.01"] == change["0.001"] == 1


def test_adaptive_methods_on_mnist_as_the_page_describes_them() -> None:
    results = _tables.load("adaptive", "mnist")["results"]
    (case,) = results["cases"].values()
    assert case["samples"] == 4 and results["ratios"]["adams"]["best peer"]["mean"] < 0.5
