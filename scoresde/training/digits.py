r"""The reference network: ``python -m scoresde.training digits --out DIR --seed 0``.

The data are scikit-learn's 1,797 handwritten digits, 8×8 pixels of integer grey v = 0 … 16. A continuous model needs a
density: :math:`x = -1 + 2 (v + u)/17` with fresh :math:`u \sim U[0, 1)` each time a digit is seen (uniform
dequantisation). `digits_split` holds a fifth out; the recipe never uses it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ..core.errors import InvalidArgumentError
from ..core.support.checks import check_kind
from ..core.support.declared import called, checked, instance
from ..losses import NoiseLevels, edm
from ..nets import build
from ..zoo import Config, Labels, Pretrained, save
from .data import Seed
from .digits_data import DIGITS_DATA, digits_split, grey_to_x
from .recipe import Recipe
from .stream import Piece
from .trainer import Loss, Trainer

Batch = tuple[Tensor, dict[str, object]]  # data (batch, *event), and what else the network receives


@checked
def fit(
    net: Annotated[nn.Module, instance(nn.Module, "a torch.nn.Module")],
    loss: Loss,
    draw: Annotated[Callable[[int, torch.Generator], Batch], called("draw(batch_size, generator)")],
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
        recipe: the hyperparameters.
        generator: the source of all randomness; dropout, which uses torch's global generator only, is seeded from it,
            and the state of the global generator is restored afterwards.
        progress: show a progress bar.

    Raises:
        NonFiniteError: the loss became NaN or infinite; the message names step and, if the loss has it, noise level.

    Example:
        >>> from scoresde.training import Recipe, fit
        >>> net = scoresde.nets.build(
        ...     "unet", {"event_shape": (1, 2, 2), "channels": 8, "width": 8}
        ... )
        >>> draw = lambda n, generator: (torch.randn(n, 1, 2, 2, generator=generator), {})
        >>> generator = torch.Generator().manual_seed(0)
        >>> fit(
        ...     net, scoresde.losses.edm, draw, Recipe(steps=2), generator, progress=False
        ... ).training
        False
    """

    def stream(first: int, stop: int) -> Iterator[Piece]:
        dropout: int | None = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        for _ in range(first, stop):
            batch = draw(recipe.batch_size // recipe.accumulate, generator)
            check_kind("draw(batch_size, generator)", batch, tuple, "a pair (x0, context)")
            x0, context = batch
            yield Piece(x0, context, generator, dropout)
            dropout = None

    return Trainer(net, loss, stream, recipe, progress=progress).run()


# The recipe of the shipped network. The distribution of its noise levels is dense where digits take shape, and its
# uniform share covers what processes need at their ends: rho = 1.1e-4 (sub-VP) to 1e3 (the flow).
DIGITS = Recipe(steps=9000)
DIGITS_LEVELS = NoiseLevels(mean=0.0, std=1.2, uniform=0.25, rho_min=1e-4, rho_max=1e3)
DIGITS_NET: dict[str, Any] = {"event_shape": [1, 8, 8], "channels": 32, "blocks": 3, "width": 64, "labels": 10}
DIGITS_DROPOUT = 0.1  # with 1,437 digits, what keeps the network from learning them by heart
DIGITS_LABEL_DROPOUT = 0.6  # share of digits shown without their label: they train the null class, the default


@checked
def train_digits(seed: Seed = 0, recipe: Recipe = DIGITS, *, command: str = "", progress: bool = True) -> Pretrained:
    """Train the digits network on the training part of `digits_split`.

    Example:
        >>> from scoresde.training import Recipe, train_digits
        >>> train_digits(recipe=Recipe(steps=1, batch_size=4), progress=False).event_shape
        (1, 8, 8)
    """
    generator = torch.Generator().manual_seed(seed)
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
