r"""How good the samples of the shipped network of MNIST are, by class, method and number of evaluations.

Every class is asked for equally often. Four figures, each beside what held-out or training digits reach:

- recognised: the share of the samples in which a classifier finds the class that was asked for;
- nearest: the median distance to the nearest training digit, over that of the held-out digits (a copy has 0);
- energy, sw2: energy distance and sliced Wasserstein-2 distance to the held-out digits.

The classifier sees the training digits only. ``python -m benchmarks mnist --images FILE`` takes the file of 10,000
images of which the network was trained on 9,000 (`scoresde.training.hold_out` keeps the others), writes
``results/mnist.json``, and draws ``docs/assets/mnist.png``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import scoresde
from benchmarks._record import write
from benchmarks.digits import energy_distance, nearest, sliced_wasserstein
from scoresde.likelihood import dequantize
from scoresde.training import hold_out, read

HELD_OUT = 1000
CLASSES = 10
SDES = {"VP": scoresde.VPSDE(), "flow": scoresde.FlowSDE()}
# What runs are called, and the options of solve; None is the sampler that the network came with.
METHODS: dict[str, dict[str, Any] | None] = {
    "as it comes": None,
    "auto, 10": {"method": "auto", "evaluations": 10},
    "auto, 20": {"method": "auto", "evaluations": 20},
}
PICTURE = Path("docs/assets/mnist.png")


class Classifier(nn.Module):
    """A small convolutional network for 28×28 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)),
            nn.Linear(64 * 49, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(batch, 10)``."""
        return self.layers(x)


def to_x(values: Tensor, generator: torch.Generator | None) -> Tensor:
    """Grey levels, dequantised to [-1, 1]."""
    return dequantize(values, levels=256, data_range=(-1.0, 1.0), generator=generator).float()


def split_images(images: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Grey levels and labels of the training and of the held-out images."""
    for source in hold_out(read(images), HELD_OUT):
        values, labels = source.rows(torch.arange(len(source)))
        assert labels is not None
        yield values, labels


def train_classifier(
    images: Tensor,
    labels: Tensor,
    seed: int = 0,
    epochs: int = 10,
    view: Callable[[Tensor], Tensor] = lambda x: x,
) -> Classifier:
    """Train on digits that are moved by up to two pixels, or what is seen of them; everything is drawn from the
    seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Classifier().train()
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
        batches = [rows for _ in range(epochs) for rows in torch.randperm(len(images)).split(64)]
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(batches))
        for rows in tqdm(batches, desc="classifier", leave=False):
            moved = torch.roll(images[rows], torch.randint(-2, 3, (2,)).tolist(), (2, 3))
            optimiser.zero_grad()
            F.cross_entropy(net(view(moved)), labels[rows]).backward()
            optimiser.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def accuracy(net: Classifier, x: Tensor, labels: Tensor) -> float:
    """The share of the images that get their label."""
    return float((torch.cat([net(part) for part in x.split(500)]).argmax(1) == labels).float().mean())


def draw(
    model: scoresde.zoo.Pretrained, sde: scoresde.AffineSDE, options: dict[str, Any] | None, labels: Tensor
) -> Any:
    """One sample per label."""
    if options is None:
        return model.sample(len(labels), label=labels, seed=0)
    score_fn = model.score(sde, label=labels)
    return scoresde.solve(sde, score_fn, shape=(len(labels), *model.event_shape), seed=0, **options)


def picture(model: scoresde.zoo.Pretrained, path: Path, rows: int = 5) -> None:
    """Samples of every class, in columns under its name."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = torch.arange(CLASSES).repeat(rows)
    x = model.sample(len(labels), label=labels, seed=3, denoise=True).x.clamp(-1, 1)
    figure, axes = plt.subplots(rows, CLASSES, figsize=(CLASSES, rows + 0.35), facecolor="white")
    for axis, image, label in zip(axes.flat, x, labels.tolist(), strict=True):
        axis.imshow(image[0], cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_axis_off()
        if axis in axes[0]:
            axis.set_title(f"label={label}", fontsize=9, family="monospace")
    figure.subplots_adjust(0, 0, 1, 0.93, 0.04, 0.04)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str]) -> None:
    """Sample, measure, print a table, write JSON and the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks mnist", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="t10k-images-idx3-ubyte.gz, with its labels beside")
    parser.add_argument("--model", default="mnist", help="name or directory of the network")
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args(arguments)

    model = scoresde.load(options.model)
    (train, train_labels), (held, held_labels) = (
        (to_x(values, torch.Generator().manual_seed(1)), labels) for values, labels in split_images(options.images)
    )
    classifier = train_classifier(train, train_labels)
    far = nearest(held, train)

    def measure(x: Tensor, labels: Tensor) -> dict[str, float]:
        return {
            "recognised": accuracy(classifier, x, labels),
            "nearest": nearest(x, train) / far,
            "energy": energy_distance(x, held),
            "sw2": sliced_wasserstein(x, held),
        }

    other = torch.randperm(len(train), generator=torch.Generator().manual_seed(2))[: len(held)]
    results: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.net.parameters()),
        "classifier accuracy on held-out digits": accuracy(classifier, held, held_labels),
        "training": {k: v for k, v in measure(train[other], train_labels[other]).items() if k in ("energy", "sw2")},
        "samples": {},
    }
    print({k: v for k, v in results.items() if k != "samples"})
    print(f"{'':24}{'recognised':>11}{'nearest':>9}{'energy':>9}{'sw2':>8}{'evaluations':>13}")
    labels = torch.arange(options.num) % CLASSES
    for name, told in METHODS.items():
        for process, sde in SDES.items():
            if told is None and sde is not SDES["VP"]:
                continue  # it has a process of its own
            parts = [draw(model, sde, told, part) for part in labels.split(250)]
            row = measure(torch.cat([part.x for part in parts]), labels)
            row["evaluations"] = float(torch.cat([part.nfe for part in parts]).double().mean())
            key = name if told is None else f"{name}, {process}"
            results["samples"][key] = row
            print(
                f"{key:24}{row['recognised']:>11.3f}{row['nearest']:>9.2f}{row['energy']:>9.4f}{row['sw2']:>8.4f}"
                f"{row['evaluations']:>13.1f}",
                flush=True,
            )
    if not options.no_write:
        write("mnist", results, "python -m benchmarks mnist --images …")
        picture(model, PICTURE)
