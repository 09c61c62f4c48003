"""Datasets, loops, metrics and writers of other libraries, in a training run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import scoresde
from benchmarks import training_loops
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError
from scoresde.training import Arrays, Batches, Every, Metric, Progress, Recipe, SampleCallback, Stateless, Trainer, read

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]  # their own

GREY = torch.randint(256, (20, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
LABELS = torch.arange(20) % 3


# ---- Hugging Face datasets -------------------------------------------------------------------------------------------


def images(labels: list[int | None] | None = None, **columns: Any) -> Any:
    datasets = pytest.importorskip("datasets")
    pictures = [Image.fromarray(x[0].numpy()) for x in GREY]
    kind = datasets.ClassLabel(names=["a", "b", "c"]) if labels is None else datasets.Value("int64")
    features = {"image": datasets.Image(), "label": kind} | {name: datasets.Value("string") for name in columns}
    content = {"image": pictures, "label": LABELS.tolist() if labels is None else labels, **columns}
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


@pytest.mark.parametrize("format", [None, "torch"])
def test_a_dataset_gives_the_batches_of_arrays(format: str | None) -> None:
    dataset = images().with_format(format)
    options: dict[str, Any] = {"seed": 2, "flip": True, "label_dropout": 0.5}
    ours, theirs = Batches(Arrays(GREY, LABELS), 6, **options), Batches(dataset, 6, **options)
    assert (theirs.source.levels, theirs.source.classes, theirs.source.event_shape) == (256, 3, (1, 4, 4))
    for a, b in zip(Stateless(ours)(2, 6), Stateless(theirs, workers=1)(2, 6), strict=True):
        assert torch.equal(a.x0, b.x0) and torch.equal(a.context["label"], b.context["label"])  # type: ignore[arg-type]
    assert read(dataset).fingerprint() == read(images()).fingerprint()


def test_a_dataset_of_arrays() -> None:
    datasets = pytest.importorskip("datasets")
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    dataset = datasets.Dataset.from_dict({"x": x.numpy(), "y": LABELS.numpy()})
    for format in (None, "torch", "numpy"):
        batches = Batches(dataset.with_format(format), 6)
        wanted = Batches(Arrays(x, LABELS), 6)[3]
        assert torch.equal(batches[3][0], wanted[0]) and torch.equal(batches[3][1]["label"], wanted[1]["label"])


def test_a_dataset_that_cannot_be_used() -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(InvalidArgumentError, match="row 4 has no label"):
        read(images([0, 1, 2, 0, None] + [1] * 15))
    with pytest.raises(InvalidArgumentError, match=r"label of row 4.*got -1"):
        read(images([0, 1, 2, 0, -1] + [1] * 15))
    two = images(note=["text"] * 20).rename_column("image", "img")
    with pytest.raises(InvalidArgumentError, match="columns img, label, note; give their names"):
        read(two)
    assert read(two, values="img").classes == 3
    with pytest.raises(InvalidTypeError, match=r"of train; .*dataset\['train'\]"):
        Batches(datasets.DatasetDict(train=images()), 4)
    with pytest.raises(InvalidTypeError, match=r"indexed by rows, got IterableDataset.*DataLoader"):
        Batches(images().to_iterable_dataset(), 4)


def test_loaders_of_a_dataset_and_of_its_stream() -> None:
    dataset = images().with_format("torch")
    stream = images().with_format("torch").to_iterable_dataset()
    recipe = Recipe(steps=2, batch_size=5)
    for loader in (DataLoader(dataset, batch_size=5), DataLoader(stream, batch_size=5), stream.batch(5)):
        run = Trainer(network(), scoresde.losses.v_prediction, loader, recipe, progress=False)
        found = list(run.stream(0, 5))
        levels = torch.cat([((piece.x0.double() + 1) * 128).floor() for piece in found])
        assert torch.equal(levels.byte(), GREY.repeat(2, 1, 1, 1)[:25])
        assert torch.equal(torch.cat([piece.context["label"] for piece in found]), LABELS.repeat(2)[:25])


# ---- loops -----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("loop", training_loops.LOOPS[1:])
def test_the_programs_of_the_page_train_as_the_trainer_does(loop: str) -> None:
    pytest.importorskip(loop)
    ours, theirs = (training_loops.run(name, steps=training_loops.SHORT) for name in ("trainer", loop))
    assert abs(theirs / ours - 1) < training_loops.NEAR


# ---- figures ---------------------------------------------------------------------------------------------------------


class Flat(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.line = nn.Linear(width, width)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.line(x.flatten(1)).reshape(x.shape)


def network() -> scoresde.ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return scoresde.ScoreModel(Flat(), scoresde.VPSDE(), "noise", event_shape=(1, 4, 4))


class Features(nn.Module):
    """Features of an image: the means of its rows."""

    num_features = 4

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return images.double().mean((1, 3))[:, :4] / 255


def frechet(a: Tensor, b: Tensor) -> float:
    """The Fréchet distance of two sets of features, written out."""
    first, second = a.T.cov(), b.T.cov()
    root = torch.linalg.eigvals(first @ second).real.clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + first.trace() + second.trace() - 2 * root)


SAMPLES = SampleCallback((1, 4, 4), 30, sampler={"method": "ddim", "steps": 4})
DATA = GREY.float() / 127.5 - 1


@pytest.mark.parametrize("keeps", [False, True])
def test_the_frechet_distance_of_torchmetrics(keeps: bool) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    metric = fid.FrechetInceptionDistance(feature=Features(), reset_real_features=not keeps)
    metric.set_dtype(torch.float64)
    if keeps:
        metric.update(GREY.expand(-1, 3, -1, -1), real=True)
    callback = Metric(metric, None if keeps else DATA, SAMPLES, "fid", batch=7)
    progress = Progress(1, network(), None)
    net, seeds = network(), range(SAMPLES.seed, SAMPLES.seed + 30)
    x = scoresde.solve(net.sde, net, shape=(30, 1, 4, 4), seeds=seeds, denoise=True, method="ddim", steps=4).x
    drawn = (127.5 * (x + 1)).round().clamp(0, 255).byte().expand(-1, 3, -1, -1)
    features = Features()
    wanted = frechet(features(GREY.expand(-1, 3, -1, -1)), features(drawn))
    for _ in range(2):
        assert callback(progress)["fid"] == pytest.approx(wanted, rel=1e-4)  # it keeps sums in single precision


def test_the_kernel_distance_of_torchmetrics(tmp_path: Path) -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    metric = kid.KernelInceptionDistance(feature=Features(), subset_size=10, subsets=5)
    callback = Metric(metric, DATA, SAMPLES, "kid")
    first = callback(Progress(1, network(), None))
    assert list(first) == ["kid", "kid_std"] and first == callback(Progress(1, network(), None))
    run = Trainer(
        network(),
        scoresde.losses.v_prediction,
        Batches(Arrays(GREY), 4),
        Recipe(steps=2, batch_size=4),
        folder=tmp_path,
        callbacks=[Every(1, callback)],
        progress=False,
    )
    run.run()
    assert sum(",kid_std," in line for line in (tmp_path / "log.csv").read_text().splitlines()) == 2


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Weights & Biases without a network, with its files in a temporary folder."""
    wandb = pytest.importorskip("wandb")
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("WANDB_DIR", str(tmp_path))):
        monkeypatch.setenv(name, value)
    yield wandb
    wandb.teardown()


def test_weights_and_biases_gets_the_figures(tmp_path: Path, offline: Any) -> None:
    recipe = Recipe(steps=4, batch_size=4)
    with offline.init(project="digits") as run:
        Trainer(
            network(),
            scoresde.losses.v_prediction,
            Batches(Arrays(GREY), 4),
            recipe,
            callbacks=[Every(2, lambda progress: {"mine": float(progress.step)})],
            log=run.log,
            log_every=1,
            progress=False,
        ).run()
        run.log({}, step=5)  # a step is complete when the next one begins
        assert run.summary["mine"] == 4.0 and run.summary["learning_rate"] > 0 and run.summary["_step"] == 4
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_the_program_of_the_page(tmp_path: Path, offline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is printed, with features that need no download."""
    fid = pytest.importorskip("torchmetrics.image.fid")
    monkeypatch.setattr(fid, "FrechetInceptionDistance", partial(fid.FrechetInceptionDistance, feature=Features()))
    split = scoresde.training.digits_split()
    network = scoresde.ScoreModel(Flat(64), scoresde.VPSDE(), "noise", event_shape=(1, 8, 8))
    given = {
        "model": network,
        "loss": scoresde.losses.v_prediction,
        "batches": Batches(Arrays(split.train_images, levels=17), 4),
        "recipe": Recipe(steps=2, batch_size=4),
        "held_out": scoresde.training.grey_to_x(split.test_images, torch.Generator().manual_seed(0)),
    }
    exec(training_loops.program("program: figures", training_loops.PAGE.with_name("trainer.md")), given)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_none_of_these_libraries_is_imported_by_the_package() -> None:
    names = ("datasets", "accelerate", "lightning", "torchmetrics", "wandb")
    code = f"import sys, scoresde.training; print(sorted({set(names)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
