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
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import scoresde
from scoresde.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from scoresde.training import Arrays, Batches, Recipe, Stateless, Trainer, read, train, train_classifier
from scoresde.training.loader import Loader

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
    "floats": (TensorDataset(REAL, LABELS), REAL),
    "arrays": (Rows(lambda i: (GREY[i].numpy(), int(LABELS[i]))), GREY),
    "pictures": (Rows(lambda i: (picture(GREY[i]), int(LABELS[i]))), GREY),
    "colour": (Rows(lambda i: [picture(COLOUR[i]), np.int64(LABELS[i])]), COLOUR),
    "columns": (Rows(lambda i: {"image": picture(GREY[i]), "label": int(LABELS[i])}), GREY),
    "one column beside": (Rows(lambda i: {"img": REAL[i], "y": LABELS[i]}), REAL),
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
    helped = Stateless(Batches(DATASETS["pictures"][0], 5, **options), workers=2)
    for a, b in zip(Stateless(Batches(Arrays(GREY, LABELS), 5, **options))(4, 7), helped(4, 7), strict=True):
        assert torch.equal(a.x0, b.x0) and torch.equal(a.context["label"], b.context["label"])


def test_items_without_labels_and_with_other_levels() -> None:
    for dataset in (Rows(lambda i: GREY[i]), TensorDataset(GREY), Rows(lambda i: {"anything": GREY[i]})):
        assert equal(Batches(dataset, 4)[2], Batches(Arrays(GREY), 4)[2])
    few = GREY.long() % 17
    assert equal(Batches(read(TensorDataset(few), levels=17), 4)[2], Batches(Arrays(few, levels=17), 4)[2])
    with pytest.raises(InvalidArgumentError, match="row 7 must be grey levels 0 to 16, got 17 to 17"):
        read(with_row(7, torch.full((1, 4, 4), 17), lambda i: few[i]), levels=17)
    with pytest.raises(InvalidArgumentError, match="`levels` applies to integers"):
        read(TensorDataset(REAL), levels=17)


def test_columns_are_named() -> None:
    dataset = Rows(lambda i: {"img": GREY[i], "fine": int(LABELS[i]), "coarse": 0})
    two = Rows(lambda i: {"image": GREY[i], "label": 0, "y": 0})
    assert_refused(
        [
            (lambda: read(dataset), V, r"samples is not clear.*img, fine, coarse; give.*values="),
            (lambda: read(two), V, r"labels is not clear.*image, label, y; .*labels="),
            (lambda: read(dataset, values="img", labels="fin"), V, r"`labels` must be a column.*'fin'.*img, fine"),
            (lambda: read(TensorDataset(GREY), values="x"), V, "name of a column, but row 0 has no columns"),
            (lambda: read(dataset, values=3), T, "`values` must be the name"),  # type: ignore[arg-type]
            (lambda: read("digits", values="x"), V, "`values` is for datasets"),
            (lambda: read("digits", labels="x"), V, "`labels` is for datasets"),
        ]
    )
    source = read(dataset, values="img", labels="fine")
    assert equal(Batches(source, 4)[1], Batches(Arrays(GREY, LABELS), 4)[1])
    assert read(dataset, values="img").classes is None


def test_the_number_of_classes_is_declared_given_or_counted() -> None:
    seen: list[int] = []

    def item(row: int) -> Any:
        seen.append(row)
        return REAL[row % 12], row % 3

    dataset = Rows(item, 5000)
    assert read(dataset).classes == 3 and len(set(seen)) == 5000
    seen.clear()
    assert read(dataset, classes=7).classes == 7 and len(set(seen)) < 50
    with pytest.raises(InvalidArgumentError, match=r"`classes` is for labels, but row 0 has samples without labels"):
        read(TensorDataset(REAL), classes=3)
    seen.clear()
    dataset.classes = ["a", "b", "c", "d"]  # type: ignore[attr-defined]
    assert read(dataset).classes == 4 and len(set(seen)) < 50
    with pytest.raises(InvalidArgumentError, match=r"label of row 2.*at most 1, got 2.*classes="):
        read(Rows(item), classes=2)


def with_row(row: int, item: Any, usual: Callable[[int], Any] = lambda i: (REAL[i], int(LABELS[i]))) -> Rows:
    return Rows(lambda i: item if i == row else usual(i))


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Tensor]:
        yield from REAL


NAN = REAL[0].clone()
NAN[0, 0, 0] = torch.nan
CMYK = picture(COLOUR[0]).convert("CMYK")
WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "shape": (with_row(7, (REAL[0][:, :2], 1)), V, r"\(1, 4, 4\) in row 0 and .*\(1, 2, 4\) in row 7"),
    "dtype": (with_row(7, (REAL[0].double(), 1)), V, r"float64 .* in row 7"),
    "NaN": (with_row(7, (NAN, 1)), NonFiniteError, "row 7 has NaN"),
    "no label": (with_row(7, (REAL[0],)), V, "without labels in row 7 and samples with labels in row 0"),
    "None": (with_row(7, (REAL[0], None)), V, "row 7 has no label"),
    "negative": (with_row(7, (REAL[0], -1)), V, "label of row 7.*got -1"),
    "one hot": (with_row(7, (REAL[0], torch.eye(3)[0])), T, "label of row 7.*integer"),
    "real label": (with_row(7, (REAL[0], 1.0)), T, "label of row 7.*integer"),
    "mode": (with_row(7, (CMYK, 1), lambda i: (picture(COLOUR[i]), 0)), V, "row 7 must be an 8-bit.*CMYK; convert"),
    "channels": (
        with_row(7, picture(GREY[0]), lambda i: picture(COLOUR[i])),
        V,
        r"\(3, 4, 4\) in row 0 and .*\(1, 4, 4\) in row 7; .*size=",
    ),
    "column": (
        with_row(7, {"image": GREY[0]}, lambda i: {"image": GREY[0], "label": 0}),
        V,
        "samples in 'image' without labels in row 7",
    ),
    "text": (with_row(7, ("text", 1)), T, "row 7 must be a tensor"),
    "three": (with_row(0, (REAL[0], 1, 2)), V, "row 0 .*tuple of 3 entries"),
    "scalar": (with_row(0, (torch.tensor(1.0), 1)), V, "row 0"),
    "channels last": (TensorDataset(torch.zeros(4, 8, 8, 3).byte()), V, r"\(8, 8, 3\).*front"),
    "NaN at once": (TensorDataset(NAN[None]), NonFiniteError, "row 0 has NaN"),
    "levels": (TensorDataset(GREY.long()), V, "`levels` is missing"),
    "empty": (Rows(lambda i: REAL[i], 0), V, "length 0"),
    "random": (Rows(lambda i: torch.rand(1, 2, 2)), V, "same item.*random transforms.*DataLoader"),
    "splits": ({"train": DATASETS["tensors"][0], "test": 0}, T, r"of train, test; .*dataset\['train'\]"),
    "loader": (DataLoader(TensorDataset(REAL)), T, "indexed by rows, got DataLoader.*Trainer"),
    "endless": (Endless(), T, r"indexed by rows, got Endless.*DataLoader"),
    "a tensor": (REAL, T, "`source` must be"),
}


def test_a_dataset_that_cannot_be_used() -> None:
    assert_refused({name: (lambda d=d: Batches(d, 12)[0], kind, words) for name, (d, kind, words) in WRONG.items()})
    recipe = Recipe(steps=1, batch_size=12)
    for name in ("NaN", "random"):
        dataset, error, words = WRONG[name]
        with pytest.raises(error, match=words):
            train_classifier(dataset, recipe=recipe, progress=False)
    with pytest.raises(InvalidTypeError, match="must be"):
        read(None)  # type: ignore[arg-type]


def test_pictures_are_resized() -> None:
    sizes = [(4, 6), (5, 4)]
    dataset = Rows(lambda i: Image.fromarray(np.full(sizes[i % 2], i, np.uint8)))
    assert read(dataset, size=4).rows(torch.arange(12))[0].shape == (12, 1, 4, 4)


def test_floating_point_values_are_within_their_range() -> None:
    """Those of rows that are read later, too."""
    dataset = with_row(7, (3 * torch.ones(1, 4, 4), 0))
    with pytest.raises(InvalidArgumentError, match=r"within -1 to 1, got values from .* to 3; .*value_range"):
        Batches(dataset, 12)[0]
    assert Batches(dataset, 12, value_range=(-3, 3))[0][0].max() == 1
    assert Batches(dataset, 12, data_range=None)[0][0].max() == 3


def test_the_fingerprint_is_of_content_length_and_labels() -> None:
    others = [(REAL + 1e-6, LABELS), (REAL, LABELS.flip(0)), (REAL[:11], LABELS[:11]), (REAL.double(), LABELS), (REAL,)]
    found = {read(TensorDataset(*arrays)).fingerprint() for arrays in [(REAL, LABELS), *others]}
    found |= {read(TensorDataset(torch.zeros(count, 2))).fingerprint() for count in (40, 50)}
    assert len(found) == 8 and read(TensorDataset(REAL, LABELS)).fingerprint() in found


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line, self.drop = torch.nn.Linear(16, 16), torch.nn.Dropout(0.2)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.line(self.drop(x).flatten(1)).reshape(x.shape)


def model() -> scoresde.ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return scoresde.ScoreModel(Line(), scoresde.VPSDE(), "noise", event_shape=(1, 4, 4))


RECIPE = Recipe(steps=8, batch_size=4, learning_rate=1e-2, warmup=1, ema=0.5)


def trained(data: Any, recipe: Recipe = RECIPE, **options: Any) -> dict[str, Tensor]:
    run = Trainer(model(), scoresde.losses.v_prediction, data, recipe, progress=False, **options)
    return {name: value.clone() for name, value in run.run().net.state_dict().items()}


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
    dataset = DATASETS["columns"][0]
    assert same(whole, trained(Batches(dataset, 4)))
    assert same(whole, interrupted(Batches(dataset, 4), tmp_path))
    with pytest.raises(InvalidArgumentError, match="fingerprint"):
        trained(Batches(Rows(lambda i: {"image": picture(GREY[11 - i]), "label": 0}), 4), folder=tmp_path)


def test_a_preset_is_trained_on_a_dataset() -> None:
    from dataclasses import replace

    small = replace(scoresde.presets.PRESETS["edm"], recipe=Recipe(steps=1, batch_size=4))
    small = replace(small, kwargs={"channels": 8, "width": 8})
    assert train(small, DATASETS["pictures"][0], progress=False).event_shape == (1, 4, 4)


def pieces(loader: Any, count: int, first: int = 0, recipe: Recipe = RECIPE) -> list[Any]:
    run = Trainer(model(), scoresde.losses.v_prediction, loader, recipe, progress=False)
    return list(run.stream(first, first + count))


def test_a_loader_gives_its_batches_in_its_order_and_starts_again() -> None:
    loader = DataLoader(TensorDataset(REAL, LABELS), batch_size=4)
    found = pieces(loader, 7)
    assert torch.equal(torch.cat([piece.x0 for piece in found[:3]]), REAL)
    assert torch.equal(torch.cat([piece.context["label"] for piece in found[:3]]), LABELS)
    assert all(torch.equal(found[i].x0, found[i + 3].x0) for i in range(4))
    short = pieces(DataLoader(TensorDataset(REAL), batch_size=5), 6, recipe=Recipe(batch_size=5))
    assert [len(piece.x0) for piece in short] == [5, 5, 2, 5, 5, 2] and short[0].context == {}
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

    state = torch.random.get_rng_state()
    first = trained(loader())
    torch.rand(3)
    assert same(first, trained(loader())) and same(first, trained(loader(num_workers=1)))
    fives = [trained(loader(5)) for _ in range(2)]
    assert same(*fives) and not same(fives[0], trained(loader(6)))
    torch.random.set_rng_state(state)


def test_the_noise_follows_the_seed_of_the_loader() -> None:
    def noise(generator: torch.Generator | None) -> float:
        loader = DataLoader(TensorDataset(REAL), batch_size=4, generator=generator)
        return torch.rand(1, generator=pieces(loader, 1)[0].generator).item()

    one, two, zero = (noise(torch.Generator().manual_seed(seed)) for seed in (1, 2, 0))
    assert len({one, two, zero}) == 3 and noise(None) == zero


def test_ranks_draw_for_themselves() -> None:
    dataset = TensorDataset(GREY)
    ranks = [Loader(DataLoader(dataset, batch_size=4, shuffle=True), 4, rank=rank) for rank in (0, 1, 0)]
    first, second, again = ([piece.x0 for piece in loader(0, 3)] for loader in ranks)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    levels = [((torch.cat(x) + 1) * 128).floor().flatten(1) for x in (first, second)]
    assert torch.equal(levels[0].sort(0)[0], levels[1].sort(0)[0]) and not torch.equal(*levels)


def test_a_loader_continues_with_a_new_pass(tmp_path: Path) -> None:
    """After 4 of 8 steps with 3 batches each: the batches 0, 1, 2, 0 and again 0, 1, 2, 0."""
    drawn: list[Tensor] = []

    class Recorded(DataLoader[Any]):
        def __iter__(self) -> Any:
            for batch in super().__iter__():
                drawn.append(batch[0])
                yield batch

    loader = Recorded(TensorDataset(REAL), batch_size=4)
    interrupted(loader, tmp_path)
    assert [next(i for i in range(3) if torch.equal(x, REAL[4 * i : 4 * i + 4])) for x in drawn] == [0, 1, 2, 0] * 2
    settings = Trainer(model(), scoresde.losses.v_prediction, loader, RECIPE).settings["data"]
    assert settings["after an interruption"] == "a new pass" and settings["samples"] == 12
    with pytest.raises(InvalidArgumentError, match=r"data\.samples: 12, now 8"):
        trained(Recorded(TensorDataset(REAL[:8]), batch_size=4), folder=tmp_path)


def test_a_sampler_and_a_dataset_learn_the_number_of_the_pass() -> None:
    class Sampler(torch.utils.data.SequentialSampler):
        epochs: list[int] = []

        def set_epoch(self, epoch: int) -> None:
            self.epochs.append(epoch)

    dataset = TensorDataset(REAL)
    loader = DataLoader(dataset, batch_size=4, sampler=Sampler(dataset))
    pieces(loader, 7)
    pieces(loader, 1, first=20)
    assert Sampler.epochs == [0, 1, 2, 6]


def test_a_loader_that_cannot_be_used() -> None:
    def fours(*arrays: Tensor, size: int = 4, **options: Any) -> Any:
        return DataLoader(TensorDataset(*arrays), batch_size=size, **options)

    columns = DataLoader(Rows(lambda i: {"a": REAL[i], "b": 0}), batch_size=4)
    refused = (
        (fours(REAL, size=5), V, "batch_size.* is 4.*gives 5"),
        (fours(REAL[:3]), V, "batches of 4 samples.*got 3"),
        (fours(REAL[:3], drop_last=True), V, "no batch in pass 0"),
        (fours(REAL, LABELS, LABELS), V, "batch 0 .*3 entries"),
        (fours(REAL, REAL), V, r"integer labels \(4,\).*batch 0"),
        (fours(GREY.long()), T, "int64 in batch 0.*levels"),
        (DataLoader(with_row(6, (NAN, 0)), batch_size=4), NonFiniteError, "batch 1.*NaN"),
        (columns, V, "batch 0 has the columns a, b; name"),
        (fours(REAL[:, 0, 0, 0]), V, r"got shape \(4,\)"),
        (iter([REAL[:4]]), T, "can be read once"),
        ([REAL[:4]], T, r"Batches\(dataset, size\)"),
    )
    assert_refused([(lambda loader=loader: trained(loader), *rest) for loader, *rest in refused])
