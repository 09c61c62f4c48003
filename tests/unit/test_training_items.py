"""Datasets and loaders of others: the same batches as of arrays, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import scoresde
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from scoresde.training import Arrays, Batches, Recipe, Stateless, Trainer, read

from .refusals import assert_refused

V, T = InvalidArgumentError, InvalidTypeError
GREY = torch.randint(256, (12, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
COLOUR = GREY.expand(-1, 3, -1, -1).contiguous()
REAL = GREY.float() / 127.5 - 1
LABELS = torch.arange(12) % 3


class Rows(Dataset[Any]):
    """A map-style dataset of what a function gives for a row."""

    def __init__(self, item: Callable[[int], Any], count: int = 12) -> None:
        self.item, self.count = item, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Any:
        return self.item(row)


class Listed(Rows):
    """A dataset that gives several items at once."""

    def __getitems__(self, rows: list[int]) -> list[Any]:
        return [self.item(row) for row in rows]

    def __getitem__(self, row: int) -> Any:
        raise AssertionError("read one by one")


def picture(x: Tensor) -> Image.Image:
    array = x.movedim(0, -1).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


DATASETS: dict[str, tuple[Any, Tensor]] = {
    "tensors": (TensorDataset(GREY, LABELS), GREY),
    "arrays": (Rows(lambda i: (GREY[i].numpy(), int(LABELS[i]))), GREY),
    "pictures": (Rows(lambda i: (picture(GREY[i]), int(LABELS[i]))), GREY),
    "colour": (Rows(lambda i: [picture(COLOUR[i]), np.int64(LABELS[i])]), COLOUR),
    "columns": (Rows(lambda i: {"image": picture(GREY[i]), "label": int(LABELS[i])}), GREY),
    "lists of numbers": (Rows(lambda i: {"x": REAL[i].tolist(), "labels": int(LABELS[i]), "note": "text"}), REAL),
    "several at once": (Listed(lambda i: (REAL[i], LABELS[i])), REAL),
    "a list": ([(REAL[i], LABELS[i]) for i in range(12)], REAL),
    "a part": (Subset(TensorDataset(GREY, LABELS), range(12)), GREY),
}


def equal(a: tuple[Tensor, dict[str, Any]], b: tuple[Tensor, dict[str, Any]]) -> bool:
    return torch.equal(a[0], b[0]) and a[1].keys() == b[1].keys() and all(torch.equal(a[1][k], b[1][k]) for k in a[1])


def test_a_dataset_gives_the_batches_of_arrays() -> None:
    options: dict[str, Any] = {"seed": 3, "flip": True, "label_dropout": 0.4}
    for name, (dataset, values) in DATASETS.items():
        ours, theirs = Batches(Arrays(values, LABELS), 5, **options), Batches(dataset, 5, **options)
        assert all(equal(ours[step], theirs[step]) for step in (0, 1, 7)), name
        assert (theirs.source.levels, theirs.source.classes) == (None if values.is_floating_point() else 256, 3), name
        assert theirs.std() == ours.std(), name
    for dataset in (Rows(lambda i: GREY[i]), TensorDataset(GREY), Rows(lambda i: {"anything": GREY[i]})):
        assert equal(Batches(dataset, 4)[2], Batches(Arrays(GREY), 4)[2])
    few = GREY.long() % 17
    assert equal(Batches(read(TensorDataset(few), levels=17), 4)[2], Batches(Arrays(few, levels=17), 4)[2])


def test_columns_are_named_and_classes_declared_given_or_counted() -> None:
    dataset: Any = Rows(lambda i: {"img": GREY[i], "fine": int(LABELS[i]), "coarse": 0})
    source = read(dataset, values="img", labels="fine")
    assert equal(Batches(source, 4)[1], Batches(Arrays(GREY, LABELS), 4)[1])
    assert read(dataset, values="img").classes is None
    assert source.classes == 3 and read(dataset, values="img", labels="fine", classes=7).classes == 7
    dataset.classes = ["a", "b", "c", "d"]
    assert read(dataset, values="img", labels="fine").classes == 4


def with_row(row: int, item: Any, usual: Callable[[int], Any] = lambda i: (REAL[i], int(LABELS[i]))) -> Rows:
    return Rows(lambda i: item if i == row else usual(i))


NAN = REAL[0].clone()
NAN[0, 0, 0] = torch.nan
COLUMNS = Rows(lambda i: {"a": REAL[i], "b": 0})
WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "shape": (with_row(7, (REAL[0][:, :2], 1)), V, r"\(1, 4, 4\) in row 0 and .*\(1, 2, 4\) in row 7"),
    "NaN": (with_row(7, (NAN, 1)), NonFiniteError, "row 7 has NaN"),
    "no label": (with_row(7, (REAL[0],)), V, "row 7 has no label"),
    "one hot": (with_row(7, (REAL[0], torch.eye(3)[0])), T, "label of row 7.*integer"),
    "three": (with_row(0, (REAL[0], 1, 2)), V, "row 0 .*tuple of 3 entries"),
    "columns": (COLUMNS, V, "samples is not clear"),
    "channels last": (TensorDataset(torch.zeros(4, 8, 8, 3).byte()), V, "front"),
    "levels": (TensorDataset(GREY.long()), V, "`levels` is missing"),
    "out of range": (with_row(7, (3 * torch.ones(1, 4, 4), 0)), V, "value_range"),
    "random": (Rows(lambda i: torch.rand(1, 2, 2)), V, "random transforms"),
    "splits": ({"train": DATASETS["tensors"][0], "test": 0}, T, r"dataset\['train'\]"),
    "loader": (DataLoader(TensorDataset(REAL)), T, "indexed by rows, got DataLoader.*Trainer"),
}


def test_a_dataset_that_cannot_be_used() -> None:
    assert_refused({name: (lambda d=d: Batches(d, 12)[0], kind, words) for name, (d, kind, words) in WRONG.items()})


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line, self.drop = torch.nn.Linear(16, 16), torch.nn.Dropout(0.2)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.line(self.drop(x).flatten(1)).reshape(x.shape)


RECIPE = Recipe(steps=8, batch_size=4, learning_rate=1e-2, warmup=1, ema=0.5)


def run_on(data: Any, **options: Any) -> Trainer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = scoresde.ScoreModel(Line(), scoresde.VPSDE(), "noise", event_shape=(1, 4, 4))
    return Trainer(model, scoresde.losses.v_prediction, data, RECIPE, progress=False, **options)


def trained(data: Any, **options: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run_on(data, **options).run().net.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def interrupted(data: Any, folder: Path) -> dict[str, Tensor]:
    """A run that stops after 4 of 8 steps, and continues."""
    calls = iter(range(100))
    with pytest.raises(KeyboardInterrupt):
        trained(data, folder=folder, stop=lambda: next(calls) == 3)
    return trained(data, folder=folder, resume=True)


def test_a_run_on_a_dataset_is_the_run_on_arrays_and_continues_exactly(tmp_path: Path) -> None:
    whole = trained(Batches(Arrays(GREY, LABELS), 4))
    assert same(whole, interrupted(Batches(DATASETS["columns"][0], 4), tmp_path))
    with pytest.raises(InvalidArgumentError, match="fingerprint"):
        trained(Batches(Rows(lambda i: {"image": picture(GREY[11 - i]), "label": 0}), 4), folder=tmp_path)


def pieces(loader: Any, count: int) -> list[Any]:
    return list(run_on(loader).stream(0, count))


def test_a_loader_gives_its_batches_in_its_order_and_starts_again() -> None:
    found = pieces(DataLoader(TensorDataset(REAL, LABELS), batch_size=4), 7)
    assert torch.equal(torch.cat([piece.x0 for piece in found[:3]]), REAL)
    assert torch.equal(torch.cat([piece.context["label"] for piece in found[:3]]), LABELS)
    assert all(torch.equal(found[i].x0, found[i + 3].x0) for i in range(4))
    shuffled = pieces(DataLoader(TensorDataset(REAL), batch_size=4, shuffle=True), 6)
    orders = [torch.cat([piece.x0 for piece in shuffled[i : i + 3]]) for i in (0, 3)]
    for order in orders:
        assert torch.equal(order.flatten(1).sort(0)[0], REAL.flatten(1).sort(0)[0])
    assert not torch.equal(*orders)


def test_grey_levels_of_a_loader_are_those_of_batches() -> None:
    """With the noise of the same step; a batch holds all rows, in another order."""

    class Ordered:
        """A loader of the rows in the order of `Batches`."""

        def __iter__(self) -> Iterator[Any]:
            yield from ({"image": GREY[rows], "label": LABELS[rows]} for rows in map(batches.indices, range(8)))

    batches = Batches(Arrays(GREY, LABELS), 4)
    for piece, expected in zip(pieces(Ordered(), 8), Stateless(batches)(0, 8), strict=True):
        assert torch.equal(piece.x0, expected.x0) and torch.equal(piece.context["label"], expected.context["label"])
        assert piece.dropout == expected.dropout
        assert torch.equal(torch.rand(3, generator=piece.generator), torch.rand(3, generator=expected.generator))
    assert same(trained(Ordered()), trained(batches))


def test_a_run_on_a_loader_is_a_function_of_its_seed() -> None:
    def loader(seed: int | None = None, **options: Any) -> Any:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return DataLoader(TensorDataset(GREY, LABELS), batch_size=4, shuffle=True, generator=generator, **options)

    first = trained(loader())
    torch.rand(3)
    assert same(first, trained(loader())) and same(first, trained(loader(num_workers=1)))
    fives = [trained(loader(5)) for _ in range(2)]
    assert same(*fives) and not same(fives[0], trained(loader(6)))


def test_a_loader_continues_with_a_new_pass(tmp_path: Path) -> None:
    """After 4 of 8 steps with 3 batches each: the batches 0, 1, 2, 0 and again 0, 1, 2, 0."""
    drawn: list[Tensor] = []

    class Recorded(DataLoader[Any]):
        def __iter__(self) -> Any:
            for batch in super().__iter__():
                drawn.append(batch[0])
                yield batch

    interrupted(Recorded(TensorDataset(REAL), batch_size=4), tmp_path)
    assert [next(i for i in range(3) if torch.equal(x, REAL[4 * i : 4 * i + 4])) for x in drawn] == [0, 1, 2, 0] * 2
    with pytest.raises(InvalidArgumentError, match=r"data\.samples: 12, now 8"):
        trained(Recorded(TensorDataset(REAL[:8]), batch_size=4), folder=tmp_path)


def test_a_loader_that_cannot_be_used() -> None:
    refused: tuple[tuple[Any, type[Exception], str], ...] = (
        (DataLoader(TensorDataset(REAL), batch_size=5), V, "batch_size.* is 4.*gives 5"),
        (DataLoader(TensorDataset(REAL, REAL), batch_size=4), V, "integer labels"),
        (DataLoader(with_row(6, (NAN, 0)), batch_size=4), NonFiniteError, "batch 1.*NaN"),
        (DataLoader(COLUMNS, batch_size=4), V, "batch 0 has the columns a, b; name"),
        (iter([REAL[:4]]), T, "can be read once"),
    )
    assert_refused([(lambda loader=loader: trained(loader), *rest) for loader, *rest in refused])
