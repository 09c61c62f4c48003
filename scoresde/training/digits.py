r"""The reference network: ``python -m scoresde.training digits --out DIR --seed 0``.

The data are scikit-learn's 1,797 handwritten digits, 8×8 pixels of integer grey v = 0 … 16. A continuous model needs a
density: :math:`x = -1 + 2 (v + u)/17` with fresh :math:`u \sim U[0, 1)` each time a digit is seen (uniform
dequantisation). `digits_split` holds a fifth out; the recipe never looks at it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._tensors import check_callable, check_flag, check_generator, check_kind, check_tensor
from ..errors import InvalidArgumentError
from ..losses import NoiseLevels, edm
from ..nets import build
from ..noise import check_seed
from ..zoo import Config, Labels, Pretrained, save
from .recipe import Recipe
from .stream import Piece
from .trainer import Trainer

__all__ = [
    "DIGITS",
    "DIGITS_DATA",
    "DIGITS_LEVELS",
    "DigitsSplit",
    "digits_split",
    "fit",
    "grey_to_x",
    "main",
    "train_digits",
]

Batch = tuple[Tensor, dict[str, object]]  # data (batch, *event), and what the network is told about it


class DigitsSplit(NamedTuple):
    """Integer images ``(n, 1, 8, 8)``, values 0 … 16, and labels ``(n,)``, of the training and the held-out part."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def digits_split(seed: int = 0) -> DigitsSplit:
    """Split the 1,797 digits at random into 1,437 to train on and 360 held out.

    Example:
        >>> split = digits_split()
        >>> split.train_images.shape, split.test_labels.shape, int(split.train_images.max())
        (torch.Size([1437, 1, 8, 8]), torch.Size([360]), 16)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("The digits come with scikit-learn: pip install 'scoresde[train]'.") from error
    check_seed("seed", seed)
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    v = torch.from_numpy(images).long().reshape(-1, 1, 8, 8)[order]
    label = torch.from_numpy(labels).long()[order]
    train = len(v) * 4 // 5
    return DigitsSplit(v[:train], label[:train], v[train:], label[train:])


def grey_to_x(v: Tensor, generator: torch.Generator | None = None) -> Tensor:
    r"""Dequantise integer grey levels 0 … 16: :math:`x = -1 + 2 (v + u)/17`, :math:`u \sim U[0, 1)`.

    Example:
        >>> x = grey_to_x(torch.tensor([0, 16]), torch.Generator().manual_seed(0))
        >>> ((x + 1) / 2 * 17).floor()
        tensor([ 0., 16.])
    """
    check_tensor("v", v, kind="real")
    check_generator(generator, device=v.device)
    return -1 + 2 * (v + torch.rand(v.shape, generator=generator, device=v.device)) / 17


def fit(
    net: nn.Module,
    loss: Callable[..., Tensor],
    draw: Callable[[int, torch.Generator], tuple[Tensor, dict[str, object]]],
    recipe: Recipe,
    generator: torch.Generator,
    *,
    progress: bool = True,
) -> nn.Module:
    """Train a network in place, and return its averaged copy in evaluation mode.

    Args:
        net: the network, changed in place.
        loss: ``loss(net, x0, generator, **context) -> (batch,)``, such as `scoresde.losses.edm`.
        draw: ``draw(batch_size, generator) -> (x0, context)``, a fresh batch.
        recipe: the numbers.
        generator: the source of all randomness; dropout, which only knows torch's global generator, is seeded from it,
            and the global generator is put back afterwards.
        progress: show a progress bar.

    Raises:
        NonFiniteError: the loss became NaN or infinite; the message names step and, if the loss knows, noise level.

    Example:
        >>> from scoresde.training import Recipe, fit
        >>> net = scoresde.nets.build("unet", {"event_shape": (1, 2, 2), "channels": 8, "width": 8})
        >>> draw = lambda n, generator: (torch.randn(n, 1, 2, 2, generator=generator), {})
        >>> generator = torch.Generator().manual_seed(0)
        >>> fit(net, scoresde.losses.edm, draw, Recipe(steps=2), generator, progress=False).training
        False
    """

    check_kind("net", net, nn.Module, "a torch.nn.Module")
    check_callable("draw", draw, "draw(batch_size, generator)")
    check_kind("recipe", recipe, Recipe, "a scoresde.training.Recipe")
    check_kind("generator", generator, torch.Generator, "a torch.Generator")

    def stream(first: int, stop: int) -> Iterator[Piece]:
        dropout: int | None = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        for _ in range(first, stop):
            batch = draw(recipe.batch_size // recipe.accumulate, generator)
            check_kind("draw(batch_size, generator)", batch, tuple, "a pair (x0, context)")
            x0, context = batch
            yield Piece(x0, context, generator, dropout)
            dropout = None

    return Trainer(net, loss, stream, recipe, progress=progress).run()


# The recipe of the shipped network. The law of its noise levels is dense where digits take shape, and its uniform share
# covers what processes ask for at their ends: rho = 1.1e-4 (sub-VP) to 1e3 (the flow).
DIGITS = Recipe(steps=9000)
DIGITS_LEVELS = NoiseLevels(mean=0.0, std=1.2, uniform=0.25, rho_min=1e-4, rho_max=1e3)
DIGITS_NET: dict[str, Any] = {"event_shape": [1, 8, 8], "channels": 32, "blocks": 3, "width": 64, "labels": 10}
DIGITS_DROPOUT = 0.1  # with 1,437 digits, what keeps the network from learning them by heart
DIGITS_NAME = "scikit-learn digits, 1437 of 1797 (scoresde.training.digits_split())"
DIGITS_DATA = f"{DIGITS_NAME}; grey v = 0 ... 16 mapped by x = -1 + 2 (v + u) / 17, u ~ U[0, 1)"
DIGITS_LABEL_DROPOUT = 0.6  # share of digits shown without their label: they train the null class, the default


def train_digits(seed: int = 0, recipe: Recipe = DIGITS, *, command: str = "", progress: bool = True) -> Pretrained:
    """Train the digits network on the training part of `digits_split`.

    Example:
        >>> from scoresde.training import Recipe, train_digits
        >>> train_digits(recipe=Recipe(steps=1, batch_size=4), progress=False).event_shape
        (1, 8, 8)
    """
    check_flag("progress", progress)
    generator = torch.Generator().manual_seed(check_seed("seed", seed))
    check_kind("recipe", recipe, Recipe, "a scoresde.training.Recipe")
    check_kind("command", command, str, "a string")
    split = digits_split()
    null = DIGITS_NET["labels"]

    def draw(batch_size: int, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(split.train_images), (batch_size,), generator=generator)
        hidden = torch.rand(batch_size, generator=generator) < DIGITS_LABEL_DROPOUT
        label = torch.where(hidden, null, split.train_labels[rows])
        return grey_to_x(split.train_images[rows], generator), {"label": label}

    sigma_data = round(grey_to_x(split.train_images, generator).std().item(), 4)

    def loss(net: nn.Module, x0: Tensor, generator: torch.Generator, **context: Any) -> Tensor:
        return edm(net, x0, generator, sigma_data=sigma_data, levels=DIGITS_LEVELS, **context)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build("unet", {**DIGITS_NET, "dropout": DIGITS_DROPOUT})
    net = fit(net, loss, draw, recipe, generator, progress=progress)
    config = Config(
        architecture="unet",
        kwargs=DIGITS_NET,
        prediction="edm",
        sigma_data=sigma_data,
        event_shape=tuple(DIGITS_NET["event_shape"]),
        labels=Labels(name="label", count=null, null=null),
        data=DIGITS_DATA,
        levels=17,
        data_range=(-1.0, 1.0),
        command=command,
    )
    return Pretrained(net, config)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of ``python -m scoresde.training``."""
    if arguments is not None:
        check_kind("arguments", arguments, (list, tuple), "a list of words")
        for i, word in enumerate(arguments):
            check_kind(f"arguments[{i}]", word, str, "a string")
    parser = argparse.ArgumentParser(prog="python -m scoresde.training", description="Train the reference network.")
    parser.add_argument("data", choices=["digits"], help="what to train on")
    parser.add_argument("--out", type=Path, required=True, help="directory to write the model to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    parser.add_argument("--steps", type=int, default=DIGITS.steps, help=f"optimiser steps (default {DIGITS.steps})")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args(arguments)
    if args.out.is_file():
        raise InvalidArgumentError(f"`--out` must be a directory, {args.out} is a file.")
    command = f"python -m scoresde.training {args.data} --out {args.out.name} --seed {args.seed} --steps {args.steps}"
    model = train_digits(args.seed, replace(DIGITS, steps=args.steps), command=command, progress=not args.quiet)
    save(model, args.out)
    print(f"Wrote {args.out}: {sum(p.numel() for p in model.net.parameters()):,} parameters.")
