r"""Data to train on: the source of samples, and the batch of each step.

A `Source` has rows of integer grey levels or of floating-point numbers, with or without a label each; `read` opens one
by name. `Batches` makes the batch of a step: rows of a permutation of the epoch, dequantised, mirrored and with some
labels hidden, all as a pure function of seed, step and rank. So an interrupted run continues without any state of
a loader, and worker processes change nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..core.errors import InvalidArgumentError, InvalidTypeError, unknown
from ..core.noise import check_seed
from ..core.support.checks import MOST_DRAWS, check_integer, check_tensor, shown
from ..core.support.declared import Index, Interval, Kind, Probability, checked, integer, tensor
from ..core.support.files.arrays import opened
from ..core.support.files.images import classes_of, image, pictures
from ..core.support.files.paths import check_path
from ..likelihood import dequantize
from ..likelihood.bits import cell
from .digits_data import DIGITS_NAME, digits_split
from .items import LABELS, Items, Side, check_rows, digest_of, is_dataset, levels_of

ROWS, DATA, LOSS, DROPOUT, STATISTICS, WEIGHTS = range(6)  # purposes of randomness, each with numbers of its own
Many = Annotated[int, integer(low=1, high=MOST_DRAWS)]
Seed = Annotated[int, Kind(check_seed)]


def seed_of(seed: int, purpose: int, step: int = 0, rank: int = 0) -> int:
    """A seed of 63 bits; different places have unrelated numbers.

    Example:
        >>> (
        ...     seed_of(0, DATA, 5) == seed_of(0, DATA, 5),
        ...     seed_of(0, DATA, 5) == seed_of(0, LOSS, 5),
        ... )
        (True, False)
    """
    low, high = np.random.SeedSequence([int(seed), purpose, step, rank]).generate_state(2)
    return int(high) << 31 ^ int(low)


def generator_of(
    seed: int, purpose: int, step: int = 0, rank: int = 0, *, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator for a place.

    Example:
        >>> one, two = (torch.rand(2, generator=generator_of(1, DATA, 7)) for _ in range(2))
        >>> torch.equal(one, two)
        True
    """
    return torch.Generator(device).manual_seed(seed_of(seed, purpose, step, rank))


class Source(Protocol):
    """Samples by their row.

    Attributes:
        name: a description of the samples.
        event_shape: the shape of one sample.
        levels: the number of grey levels of integer samples, None for floating-point ones.
        classes: how many labels there are, 0 … classes - 1, or None.
        extent: the smallest and the largest value, None if it is not known before they are read.
    """

    @property
    def name(self) -> str: ...

    @property
    def event_shape(self) -> tuple[int, ...]: ...

    @property
    def levels(self) -> int | None: ...

    @property
    def classes(self) -> int | None: ...

    @property
    def extent(self) -> tuple[float, float] | None: ...

    def __len__(self) -> int: ...

    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """The samples of the rows ``(n,)`` and their labels."""

    def fingerprint(self) -> str:
        """A digest of the content, by which a resumed run recognises its data."""


class Arrays:
    """Samples in memory.

    Args:
        values: ``(n, *event)``, integer grey levels or floating-point numbers.
        labels: integers ``(n,)`` from 0, or None.
        levels: of integers; 256 for uint8 by default.
        name: a description of the samples.

    Raises:
        InvalidArgumentError: the values or the labels cannot be used.
        NonFiniteError: values are NaN or infinite.

    Example:
        >>> source = Arrays(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.arange(5))
        >>> len(source), source.event_shape, source.levels, source.classes
        (5, (1, 2, 2), 256, 5)
    """

    @checked
    def __init__(
        self,
        values: Annotated[Tensor, tensor(kind="real")],
        labels: Tensor | None = None,
        *,
        levels: int | None = None,
        name: str = "arrays",
    ) -> None:
        if values.ndim < 2 or not values.numel():
            raise InvalidArgumentError(f"`data` must be (samples, *event), not empty, got shape {tuple(values.shape)}.")
        self.levels = levels_of(values, levels)
        if labels is not None:
            labels = check_tensor("labels", labels, (len(values),), kind="integer").long()
            if int(labels.min()) < 0:
                raise InvalidArgumentError(f"`labels` must be 0 or more, got {int(labels.min())}.")
        values = values.detach()
        self.values, self.labels, self.name = values, labels, name
        self.event_shape = tuple(values.shape[1:])
        self.classes = None if labels is None else int(labels.max()) + 1
        self.extent = float(values.min()), float(values.max())

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        check_rows(indices, len(self))
        return self.values[indices], None if self.labels is None else self.labels[indices]

    def fingerprint(self) -> str:
        return digest_of(f"{self.values.dtype} {tuple(self.values.shape)}", self.values, self.labels)


def is_source(source: object) -> bool:
    """Whether something has what a `Source` has."""
    needed = ("name", "event_shape", "levels", "classes", "extent", "rows", "fingerprint", "__len__")
    return not isinstance(source, type) and all(hasattr(source, name) for name in needed)


def as_source(source: Any) -> Source:
    """A source as it is, or the rows of a dataset as one."""
    if not is_source(source) and (isinstance(source, DataLoader | Mapping) or is_dataset(source)):
        return Items(source)
    check_source("source", source)
    return source


def check_source(name: str, source: object) -> None:
    """Refuse what is no `Source`."""
    if not is_source(source):
        raise InvalidTypeError(f"`{name}` must be a training.Source, such as read('digits'), got {shown(source)}.")


Rows = Annotated[Source, Kind(check_source)]


class Unlabelled:
    """A source without its labels.

    Example:
        >>> source = Unlabelled(
        ...     Arrays(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.arange(5))
        ... )
        >>> source.classes, source.levels, source.rows(torch.tensor([0]))[1]
        (None, 256, None)
    """

    classes = None

    def __init__(self, source: Source) -> None:
        self.source, self.name, self.event_shape = source, source.name, source.event_shape
        self.levels, self.extent, self.fingerprint = source.levels, source.extent, source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, indices: Tensor) -> tuple[Tensor, None]:
        """The samples of the rows."""
        return self.source.rows(indices)[0], None


class Part:
    """Some rows of a source.

    Args:
        source: the samples: a `Source`, or a map-style dataset as `read` takes it.
        indices: which rows, ``(n,)``, in this order.

    Example:
        >>> source = Part(Arrays(torch.arange(5.0)[:, None]), torch.tensor([4, 1]))
        >>> len(source), source.name, source.rows(torch.tensor([0]))[0]
        (2, '2 of arrays', tensor([[4.]]))
    """

    def __init__(self, source: Any, indices: Tensor) -> None:
        self.source = source = as_source(source)
        check_rows(indices, len(source))
        self.indices = indices
        self.name = f"{len(indices)} of {source.name}"
        self.event_shape, self.levels, self.classes = source.event_shape, source.levels, source.classes
        self.extent = source.extent

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        check_rows(indices, len(self))
        return self.source.rows(self.indices[indices])

    def fingerprint(self) -> str:
        listed = f"{self.source.fingerprint()} {self.indices.tolist()}"
        return hashlib.sha256(listed.encode()).hexdigest()


@checked
def hold_out(source: Any, count: int, *, seed: Seed = 0) -> tuple[Part, Part]:
    """Split data at random into a part to train on and a part that training never sees.

    Args:
        source: the samples: a `Source`, or a map-style dataset as `read` takes it.
        count: the samples of the second part.
        seed: of the choice.

    Example:
        >>> train, held_out = hold_out(read("digits"), 437)
        >>> len(train), len(held_out), held_out.name[:10]
        (1000, 437, '437 of sci')
    """
    source = as_source(source)
    check_integer("count", count, low=1, high=len(source) - 1, hint=f" The data have {len(source)} samples.")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    return Part(source, order[count:].sort().values), Part(source, order[:count].sort().values)


class Folder:
    """Images in a folder, read when they are needed. Images in folders of the folder are labelled by these, in the
    order of their names.

    Args:
        path: the folder.
        size: the side of the square that images are cropped and resized to; None takes them as they are.

    Raises:
        InvalidArgumentError: there are no images, or one cannot be read, or they differ in size or channels.
    """

    levels = 256
    extent = (0.0, 255.0)

    @checked
    def __init__(self, path: str | Path, *, size: Side | None = None) -> None:
        folder = check_path("path", path)
        self.size = size
        hint = "; give size= to resize them"
        self.paths, self.event_shape = pictures(folder, size=self.size, hint=hint)
        labels = classes_of(folder, self.paths)
        self._labels = None if labels is None else torch.tensor(labels)
        self.classes = None if labels is None else max(labels) + 1
        self.name = f"{len(self.paths)} images of {folder.name}"

    def __len__(self) -> int:
        return len(self.paths)

    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        check_rows(indices, len(self))
        values = torch.stack([image(self.paths[i], self.size) for i in indices.tolist()])
        return values, None if self._labels is None else self._labels[indices]

    def fingerprint(self) -> str:
        listed = "\n".join(f"{p} {p.stat().st_size}" for p in self.paths)
        return hashlib.sha256(listed.encode()).hexdigest()


def _file(path: Path, levels: int | None) -> Arrays:
    if not path.exists():
        raise InvalidArgumentError(f"`data` must be a file, a folder or one of {', '.join(READERS)}, got '{path}'.")
    with opened(path, "a folder of images") as arrays:
        values = arrays.samples(arrays.main(without=LABELS, hint=" beside the labels"))
        label = next((name for name in LABELS if name in arrays.names), None)
        labels = None if label is None else arrays.numbers(label)
    return Arrays(values, labels, levels=levels, name=f"{len(values)} samples of {path.name}")


def _digits(rest: str, levels: int | None, root: str) -> Arrays:
    try:
        split = digits_split()
    except ImportError as error:
        raise InvalidArgumentError(f"`data`: {error}") from None
    return Arrays(split.train_images, split.train_labels, levels=17, name=DIGITS_NAME)


def _torchvision(rest: str, levels: int | None, root: str) -> Arrays:
    try:
        import torchvision.datasets as sets
    except ImportError:
        raise InvalidArgumentError("`data`: torchvision is not installed: pip install torchvision.") from None
    kind = getattr(sets, rest, None)
    if not isinstance(kind, type):
        raise unknown("data", rest, [name for name in sets.__all__ if isinstance(getattr(sets, name, None), type)])
    try:
        content = kind(root, train=True, download=True)
        values, labels = torch.as_tensor(content.data), torch.as_tensor(content.targets)
    except (OSError, RuntimeError) as error:  # no network, no room, a broken download
        reason = str(error).splitlines()[0]
        raise InvalidArgumentError(f"`data`: {rest} is not in {root!r} and could not be downloaded: {reason}") from None
    except (TypeError, AttributeError):
        raise InvalidArgumentError(
            f"`data`: {rest} is not a set of images in memory, as MNIST and CIFAR10 are; save its images in a folder."
        ) from None
    values = values[:, None] if values.ndim == 3 else values.movedim(-1, 1).contiguous()
    return Arrays(values, labels, levels=levels, name=f"torchvision {rest}, {len(values)} images")


# Data by name; what follows a colon is given to the reader, with `levels` and `root`.
READERS: dict[str, Callable[[str, int | None, str], Arrays]] = {"digits": _digits, "torchvision": _torchvision}


def read(
    data: Any,
    *,
    levels: int | None = None,
    size: int | None = None,
    root: str = "data",
    values: str | None = None,
    labels: str | None = None,
    classes: int | None = None,
) -> Source:
    """Open data by name or path, or take the rows of a dataset.

    The rows of a dataset are tensors, NumPy arrays or PIL images; tuples of one of these and a label; or mappings of
    columns, as those of ``datasets.Dataset`` in any of its formats. PIL images and uint8 values are grey levels; arrays
    keep their dtype and shape, so that the channels of an image come first. A row is checked when it is read. A dataset
    that does not give the same item whenever a row is read, as with random transforms, is refused.

    Args:
        data: ``"digits"`` (scikit-learn's, the training part); ``"torchvision:MNIST"``; a folder of images; a
            ``.npz``, ``.npy`` or ``.safetensors`` file with an array ``x``, and ``label`` if there are labels; a file
            of images in MNIST's format, ``train-images-idx3-ubyte.gz``, with that of the labels beside it; or a
            map-style dataset, such as a ``torch.utils.data.Dataset`` or a ``datasets.Dataset``.
        levels: grey levels of integers; 256 for uint8.
        size: of images of a folder, see `Folder`; also of the PIL images of a dataset.
        root: where torchvision keeps its data.
        values, labels: the columns of a dataset's samples and labels. By default the samples are ``x`` or ``image``, or
            the only column beside the labels, and the labels are ``label``, ``labels`` or ``y``.
        classes: how many labels a dataset has. By default it is the number that the dataset declares; where there is
            none, all labels are read.

    Raises:
        InvalidArgumentError: the data cannot be read or used. The message names the row, the columns, or the file.
        InvalidTypeError: the data are no name, path or dataset, or a row is no sample.
        NonFiniteError: they are NaN or infinite.

    Example:
        >>> source = read("digits")
        >>> len(source), source.event_shape, source.levels, source.classes
        (1437, (1, 8, 8), 17, 10)
        >>> images = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)
        >>> dataset = torch.utils.data.TensorDataset(images, torch.arange(6) % 2)
        >>> source = read(dataset)
        >>> len(source), source.event_shape, source.levels, source.classes
        (6, (3, 4, 4), 256, 2)
        >>> read("missing.npz")
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `data` must be a file, a folder or one of digits, ...
    """
    if not isinstance(data, str | os.PathLike):
        return Items(data, values=values, labels=labels, levels=levels, classes=classes, size=size)
    for argument, given in (("values", values), ("labels", labels), ("classes", classes)):
        if given is not None:
            raise InvalidArgumentError(f"`{argument}` is for datasets indexed by rows, not for names and paths.")
    path = check_path("data", data)
    name, _, rest = str(data).partition(":")
    root = str(check_path("root", root))
    if name in READERS:
        return READERS[name](rest, levels, root)
    if path.is_dir():
        return Folder(path, size=size)
    return _file(path, levels)


@checked
@dataclass(frozen=True)
class Batches(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    r"""The batches of a run: item k is that of step k, a pure function of seed, step and rank.

    Rows follow permutations: in each epoch every row is seen once, over all ranks. Integers are dequantised with fresh
    noise, :math:`x = lo + (v + u)(hi - lo)/L`; floating-point values are mapped from ``value_range`` to ``data_range``.

    Args:
        source: the samples: a `Source`, or a map-style dataset as `read` takes it.
        size: samples per batch, on this rank.
        seed: the seed of the run.
        data_range: lo and hi; None, for floating-point values only, takes them as they are.
        value_range: the range of floating-point values in the source; that of ``data_range`` by default.
        flip: mirror every second image, at random.
        label_dropout: the share of labels that are replaced by the null class, ``classes``.
        rank, world: of the processes.
        dequantise: whether grey levels get noise; False puts them in the middle of their cells, u = 1/2.

    Raises:
        InvalidArgumentError: data are out of range, or an argument is.

    Example:
        >>> batches = Batches(read("digits"), 4, seed=0)
        >>> x, context = batches[7]
        >>> (
        ...     x.shape,
        ...     context["label"].shape,
        ...     torch.equal(x, batches[7][0]),
        ...     torch.equal(x, batches[8][0]),
        ... )
        (torch.Size([4, 1, 8, 8]), torch.Size([4]), True, False)
    """

    source: Any
    size: Many
    seed: Index = 0
    data_range: Interval | None = (-1.0, 1.0)
    value_range: Interval | None = None
    flip: bool = False
    label_dropout: Probability = 0.0
    rank: Index = 0
    world: Many = 1
    dequantise: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", as_source(self.source))
        check_integer("rank", self.rank, low=0, high=self.world - 1)
        if self.data_range is None and (self.source.levels is not None or self.value_range is not None):
            raise InvalidArgumentError("`data_range` must be given for grey levels, such as (-1.0, 1.0).")
        if self.source.levels is None and self.source.extent is not None:
            self._check_range(*self.source.extent)
        if self.flip and len(self.source.event_shape) != 3:
            raise InvalidArgumentError(f"`flip` is for images, but the events have shape {self.source.event_shape}.")

    def _check_range(self, least: float, most: float) -> None:
        """Refuse floating-point values beyond the range that they are mapped from."""
        span = self.value_range or self.data_range
        if span is not None:
            slack = 1e-6 * (span[1] - span[0])
            if least < span[0] - slack or most > span[1] + slack:
                got = f"{least:g} to {most:g}; give that as value_range="
                raise InvalidArgumentError(f"`data` must be within {span[0]:g} to {span[1]:g}, got {got}.")

    def indices(self, step: int) -> Tensor:
        """The rows of a step."""
        check_integer("step", step, low=0)
        count = len(self.source)
        first = (step * self.world + self.rank) * self.size
        last = first + self.size
        epochs = range(first // count, (last - 1) // count + 1)
        skipped = epochs.start * count
        return torch.cat([_permutation(self.seed, epoch, count) for epoch in epochs])[first - skipped : last - skipped]

    def __getitem__(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        values, labels = self.source.rows(self.indices(step))
        generator = generator_of(self.seed, DATA, step, self.rank)
        x = self._scaled(values, generator)
        if self.flip:
            mirrored = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        if labels is None or self.source.classes is None:
            return x, {}
        hidden = torch.rand(len(x), generator=generator) < self.label_dropout
        return x, {"label": torch.where(hidden, self.source.classes, labels)}

    def _scaled(self, values: Tensor, generator: torch.Generator) -> Tensor:
        if self.source.levels is not None and self.data_range is not None:
            if not self.dequantise:
                low, width = cell(self.source.levels, self.data_range)
                return low + width * (values.float() + 0.5)
            return dequantize(
                values, levels=self.source.levels, data_range=self.data_range, generator=generator, dtype=torch.float32
            )
        x = values.float()
        if self.source.extent is None:
            self._check_range(float(x.min()), float(x.max()))
        if self.data_range is None:
            return x
        (low, high), (start, stop) = self.data_range, self.value_range or self.data_range
        return x if (low, high) == (start, stop) else low + (x - start) * ((high - low) / (stop - start))

    def std(self, samples: int = 4096) -> float:
        """The standard deviation of the data in the network's units, of the first rows."""
        rows = torch.arange(min(check_integer("samples", samples, low=2), len(self.source)))
        return float(self._scaled(self.source.rows(rows)[0], generator_of(self.seed, STATISTICS)).std())

    def settings(self) -> dict[str, object]:
        """What determines the batches, as JSON values."""
        return {
            "name": self.source.name,
            "samples": len(self.source),
            "fingerprint": self.source.fingerprint(),
            "levels": self.source.levels,
            "data_range": self.data_range and list(self.data_range),
            "value_range": self.value_range and list(self.value_range),
            "flip": self.flip,
            "label_dropout": self.label_dropout,
        } | ({} if self.dequantise else {"dequantise": False})


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=generator_of(seed, ROWS, epoch))
