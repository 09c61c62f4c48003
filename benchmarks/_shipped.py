"""The networks that the package comes with, each with its digits and their classifier."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import scoresde
from benchmarks import digits as small
from benchmarks import mnist as large
from benchmarks._record import write
from scoresde.training import digits_split, grey_to_x


@dataclass(frozen=True)
class Shipped:
    """A network, and digits that it was trained on and that it was not.

    Args:
        name: of the network.
        train_grey, train_labels: grey levels and classes of the training digits.
        held_grey, held_labels: those of the held-out digits.
        to_x: dequantises grey levels, with the draws of a generator.
        learn: trains a classifier: ``learn(epochs, view)``, where ``view`` is what it sees of a batch of images.
        epochs: of a classifier.
    """

    name: str
    train_grey: Tensor
    train_labels: Tensor
    held_grey: Tensor
    held_labels: Tensor
    to_x: Callable[[Tensor, torch.Generator | None], Tensor]
    learn: Callable[[int, Callable[[Tensor], Tensor]], nn.Module]
    epochs: int

    def network(self) -> scoresde.zoo.Pretrained:
        """The network."""
        return scoresde.load(self.name)

    def train(self, generator: torch.Generator) -> Tensor:
        """The training digits."""
        return self.to_x(self.train_grey, generator)

    def held(self, generator: torch.Generator) -> Tensor:
        """The held-out digits."""
        return self.to_x(self.held_grey, generator)

    def write(self, benchmark: str, results: Any) -> None:
        """Write the results of a benchmark; those of MNIST's network are a part of the file."""
        command = f"python -m benchmarks {benchmark}"
        if self.name == "digits":
            write(benchmark, results, command)
        else:
            write(benchmark, results, f"{command} --images …", part=self.name)

    def classifier(self, *, part: int = 1, view: Callable[[Tensor], Tensor] = lambda x: x) -> nn.Module:
        """One that is trained on the training digits, for one in ``part`` of its epochs."""
        return self.learn(self.epochs // part, view)


def digits() -> Shipped:
    """The network of scikit-learn's digits."""
    split = digits_split(seed=0)

    def learn(epochs: int, view: Callable[[Tensor], Tensor]) -> nn.Module:
        return small.train_classifier(split.train_images, split.train_labels, epochs=epochs, view=view)

    return Shipped("digits", *split, to_x=grey_to_x, learn=learn, epochs=40)


def mnist(images: Path) -> Shipped:
    """The network of MNIST. Its digits are shuffled, since those at the beginning of the file are easier to read.

    Args:
        images: the file of the 10,000 images of which it was trained on 9,000, with its labels beside it.
    """
    generator = torch.Generator().manual_seed(0)
    train, held = (
        (values[order], labels[order])
        for values, labels in large.split_images(images)
        for order in [torch.randperm(len(values), generator=generator)]
    )

    def learn(epochs: int, view: Callable[[Tensor], Tensor]) -> nn.Module:
        shown = large.to_x(train[0], torch.Generator().manual_seed(1))
        return large.train_classifier(shown, train[1], epochs=epochs, view=view)

    return Shipped("mnist", *train, *held, to_x=large.to_x, learn=learn, epochs=10)


def shipped(images: Path | None) -> Shipped:
    """The network of MNIST if its images are given, and that of the digits otherwise."""
    return digits() if images is None else mnist(images)


def add_images(parser: argparse.ArgumentParser) -> None:
    """The option that chooses the network of MNIST."""
    parser.add_argument(
        "--images",
        type=Path,
        help="t10k-images-idx3-ubyte.gz, with its labels beside: measure the network of MNIST, keep the other figures",
    )
