"""The loaders of others as the input of a trainer: batches in the order in which they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.support.checks import as_tensor, check_finite_rows, named
from ..likelihood import dequantize
from . import parallel
from .data import DATA, DROPOUT, LOSS, ROWS, Batches, generator_of, seed_of
from .items import is_dataset, split
from .recipe import Recipe
from .settings import samples_per_batch
from .stream import Piece, Stateless, Stream

_NAMED = "name them x and label in the loader's collate_fn"
_LEVELS, _RANGE = 256, (-1.0, 1.0)  # of uint8


@dataclasses.dataclass(frozen=True)
class Loader:
    """Pieces of a ``torch.utils.data.DataLoader``, or of anything that gives batches whenever it is iterated.

    A batch is a tensor, ``(x,)``, ``(x, labels)``, or a mapping with these columns, named as `read` finds them. Values
    of uint8 are dequantised and mapped to [-1, 1], as `Batches` does it; floating-point values are taken as they are.

    When the loader is exhausted it is iterated again: a new pass. A pass cannot start at a batch other than its first,
    so a run that was interrupted continues with a new pass, of another order where the loader shuffles. The seed is
    that of the loader's ``generator``, 0 where there is none. Noise and dropout are functions of it and of the step,
    and so is the order of a loader that shuffles by torch's global generator. A sampler with ``set_epoch`` is given the
    number of the pass.

    Args:
        loader: the batches. On several ranks, each one has its own part of the data.
        size: samples per batch; the last batch of a pass may be smaller.
        device: where the pieces go.
        rank: of the process.

    Example:
        >>> loader = torch.utils.data.DataLoader(
        ...     torch.zeros(5, 1, 2, 2, dtype=torch.uint8), batch_size=2
        ... )
        >>> # the loader ends after three batches
        >>> [len(piece.x0) for piece in Loader(loader, 2)(0, 4)]
        [2, 2, 1, 2]
    """

    loader: Iterable[Any]
    size: int
    device: torch.device | str = "cpu"
    rank: int = 0

    @property
    def seed(self) -> int:
        """The seed of the loader's generator, or 0."""
        generator = getattr(self.loader, "generator", None)
        return generator.initial_seed() if isinstance(generator, torch.Generator) else 0

    def __call__(self, first: int, stop: int) -> Iterator[Piece]:
        number, length = first, _length(self.loader)
        epoch = first // length if length else 0
        while number < stop:
            before = number
            for batch in self._pass(epoch):
                piece = self._piece(batch, number)
                if number == before and len(piece.x0) != self.size:
                    got = f"{len(piece.x0)} in the first batch of pass {epoch}"
                    raise InvalidArgumentError(f"`stream` must give batches of {self.size} samples, got {got}.")
                yield piece
                number += 1
                if number == stop:
                    return
            if number == before:
                raise InvalidArgumentError(f"`stream` gave no batch in pass {epoch}; does drop_last leave nothing?")
            epoch += 1

    def _pass(self, epoch: int) -> Iterator[Any]:
        """The batches of a pass; what is drawn at its beginning from torch's global generator is a function of seed,
        epoch and rank."""
        for part in (getattr(self.loader, "sampler", None), getattr(self.loader, "dataset", None), self.loader):
            set_epoch = getattr(part, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, ROWS, epoch, self.rank))
            batches = iter(self.loader)
            first = next(batches, self)  # where there is no batch, the stream itself
        if first is not self:
            yield first
            yield from batches

    def _piece(self, batch: Any, number: int) -> Piece:
        where = f"batch {number}"
        values, label = split(batch, None, None, where, _NAMED)
        x = as_tensor(f"stream, {where}", values).detach()
        if x.ndim < 2 or not x.numel():
            raise InvalidArgumentError(f"`stream` must give (samples, *event), got shape {tuple(x.shape)} in {where}.")
        if not x.is_floating_point():
            if x.dtype != torch.uint8:
                got = f"{x.dtype} in {where}; see `Batches` for other levels"
                raise InvalidTypeError(f"`stream` must give uint8 or floating-point numbers, got {got}.")
            noise = generator_of(self.seed, DATA, number, self.rank)
            x = dequantize(x.cpu(), levels=_LEVELS, data_range=_RANGE, generator=noise, dtype=torch.float32)
        check_finite_rows(f"`stream`, {where},", x)
        return Piece(
            x.to(self.device, torch.float32, non_blocking=True),
            {} if label is None else {"label": self._labels(label, len(x), where)},
            generator_of(self.seed, LOSS, number, self.rank, device=self.device),
            seed_of(self.seed, DROPOUT, number, self.rank),
        )

    def _labels(self, label: Any, count: int, where: str) -> Tensor:
        labels = as_tensor(f"labels of {where}", label)
        if labels.shape != (count,) or labels.is_floating_point():
            got = f"{labels.dtype} {tuple(labels.shape)} in {where}"
            raise InvalidArgumentError(f"`stream` must give integer labels ({count},), one per sample, got {got}.")
        return labels.to(self.device, torch.long, non_blocking=True)

    def settings(self) -> dict[str, object]:
        """What is known of the pieces, as JSON values."""
        dataset = getattr(self.loader, "dataset", self.loader)
        data = {"loader": type(self.loader).__name__, "dataset": type(dataset).__name__, "samples": _length(dataset)}
        return {"seed": self.seed, "data": {**data, "after an interruption": "a new pass"}}


def _length(values: object) -> int | None:
    try:
        return len(values)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # no length, as that of an iterable dataset
        return None


def as_stream(stream: Any, recipe: Recipe, device: torch.device) -> Stream:
    """A stream as it is, and that of batches, of a loader, or of another iterable of batches."""
    if isinstance(stream, Stateless) and stream.device is None:
        return dataclasses.replace(stream, device=device)
    if callable(stream):
        return stream
    if isinstance(stream, Batches):
        return Stateless(stream, device)
    if is_dataset(stream) and not isinstance(stream, IterableDataset):
        raise InvalidTypeError(f"`stream` must give batches; write Batches(dataset, size) of {named(stream)}.")
    if not isinstance(stream, Iterable) or isinstance(stream, str | Tensor | type | set | frozenset | Mapping):
        known = "a scoresde.training.Batches, a DataLoader, or callable as stream(first, stop)"
        raise InvalidTypeError(f"`stream` must be {known}, got {named(stream)}.")
    if isinstance(stream, Iterator):
        raise InvalidTypeError(f"`stream` must be iterable again and again, {named(stream)} can be read once.")
    rank, world = parallel.rank_and_world()
    size = getattr(stream, "batch_size", None) or samples_per_batch(recipe, world)
    return Loader(stream, size, device, rank)
