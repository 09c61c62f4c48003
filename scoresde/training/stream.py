"""The input of a trainer: a batch, its context, and the randomness of its loss."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..core.support.declared import Device, checked, integer
from .data import DROPOUT, LOSS, Batches, generator_of, seed_of


class Piece(NamedTuple):
    """A micro-batch: data, what else the network receives, the source of the loss's noise, and a seed for dropout,
    which uses torch's global generator only (None leaves it as it is)."""

    x0: Tensor
    context: dict[str, object]
    generator: torch.Generator
    dropout: int | None


# Pieces `first` to `stop` - 1 of a run.
Stream = Callable[[int, int], Iterator[Piece]]


@checked
@dataclasses.dataclass(frozen=True)
class Stateless:
    """Pieces each of which is a function of seed, number and rank alone.

    Args:
        batches: the data.
        device: where the pieces go; a `Trainer` takes them to its network if it is None, others find them on the CPU.
        workers: processes that load them; 0 loads in this one. They only change the time.

    Example:
        >>> from scoresde.training import Batches, read
        >>> stream = Stateless(Batches(read("digits"), 2))
        >>> first, again = list(stream(0, 3))[2], next(stream(2, 3))
        >>> torch.equal(first.x0, again.x0), first.dropout == again.dropout
        (True, True)
    """

    batches: Batches
    device: Device | None = None
    workers: Annotated[int, integer(low=0, high=1024)] = 0

    def __call__(self, first: int, stop: int) -> Iterator[Piece]:
        seed, rank = self.batches.seed, self.batches.rank
        device = torch.device("cpu" if self.device is None else self.device)
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=range(first, stop),
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # of the seeds of workers, which use none
            worker_init_fn=_apart,
        )
        for number, (x0, context) in enumerate(loader, first):
            yield Piece(
                x0.to(device, non_blocking=True),
                {name: value.to(device, non_blocking=True) for name, value in context.items()},
                generator_of(seed, LOSS, number, rank, device=device),
                seed_of(seed, DROPOUT, number, rank),
            )

    def settings(self) -> dict[str, object]:
        """What determines the pieces, as JSON values."""
        return {"seed": self.batches.seed, "world": self.batches.world, "data": self.batches.settings()}


def _apart(worker: int) -> None:
    """Move a worker out of the process group, so that a signal to the group does not end it before the run stops."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def described(value: object) -> object:
    """A loss, or what it is made of, as JSON values that identify it.

    Example:
        >>> described(partial(scoresde.losses.edm, sigma_data=0.7))
        {'name': 'edm', 'options': {'sigma_data': 0.7}}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, partial):
        return {
            "name": described(value.func),
            "options": {"args": described(value.args)} if value.args else described(value.keywords),
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: described(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"name": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [described(item) for item in value]
    return getattr(value, "__qualname__", type(value).__qualname__)
