"""The datasets of others as data to train on: a map-style dataset, whose items are read by their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from ..core.support.checks import MOST_WIDTH, as_tensor, check_finite_rows, check_integer, check_tensor, named
from ..core.support.declared import checked, integer
from ..core.support.files.images import check_mode, pixels

LABELS = ("label", "labels", "y")  # columns that hold labels
Side = Annotated[int, integer(low=1, high=1 << 16)]  # pixels
_VALUES = ("x", "image")  # columns that hold samples, where there are others
_CHANNELS = (1, 3, 4)  # of images
_NAMED = "give their names, as in read(dataset, values='image', labels='label')"
_PROBES = 16  # rows by which a dataset is recognised
_READ = 1024  # rows that are read at once for their labels


def split(item: Any, values: str | None, labels: str | None, where: str, hint: str = _NAMED) -> tuple[Any, Any]:
    """The sample of an item and its label, which is None where there is none.

    Args:
        item: a mapping, a tuple (sample,) or (sample, label), or a sample.
        values, labels: the columns of a mapping, or None to find them by their names.
        where: the place of the item, for messages.
        hint: how columns are named, for messages.

    Example:
        >>> (
        ...     split({"image": 7, "label": 0}, None, None, "row 0"),
        ...     split((7,), None, None, "row 0"),
        ... )
        ((7, 0), (7, None))
    """
    if not isinstance(item, Mapping):
        if values is not None or labels is not None:
            raise InvalidArgumentError(f"`values` and `labels` name columns, but {where} is {named(item)}.")
        if not isinstance(item, tuple | list):
            return item, None
        if len(item) not in (1, 2):
            got = f"a {type(item).__name__} of {len(item)} entries"
            raise InvalidArgumentError(f"`data` {where} must be a sample, (sample,) or (sample, label), got {got}.")
        return item[0], item[1] if len(item) == 2 else None
    columns = ", ".join(map(str, item)) or "none"
    for argument, name in (("values", values), ("labels", labels)):
        if name is not None and name not in item:
            raise InvalidArgumentError(f"`{argument}` must be a column of {where}, which has {columns}; got {name!r}.")
    label = [labels] if labels is not None else [name for name in LABELS if name in item and name != values]
    others = [name for name in item if name not in label]
    value = [values] if values is not None else others if len(others) == 1 else [n for n in _VALUES if n in others]
    if len(value) != 1 or len(label) > 1:
        which = f"which column holds the {'labels' if len(value) == 1 else 'samples'} is not clear"
        raise InvalidArgumentError(f"`data`: {which}: {where} has the columns {columns}; {hint}.")
    return item[value[0]], item[label[0]] if label else None


def check_rows(indices: object, count: int) -> None:
    """Refuse what are no rows of ``count``."""
    indices = check_tensor("indices", indices, (-1,), kind="integer")
    if not bool(((indices >= 0) & (indices < count)).all()):
        raise InvalidArgumentError(f"`indices` must be 0 … {count - 1}, got {indices.tolist()[:5]}.")


def levels_of(values: Tensor, levels: int | None, what: str = "`data`") -> int | None:
    """The number of grey levels of integers, None for finite floating-point values.

    Args:
        values: the numbers.
        levels: as given, or None.
        what: what they are, for messages.
    """
    if values.is_floating_point():
        check_finite_rows(what, values)
        if levels is not None:
            raise InvalidArgumentError("`levels` applies to integers, but the data are floating point.")
        return None
    if levels is None and values.dtype != torch.uint8:
        raise InvalidArgumentError(f"`levels` is missing: the data are {values.dtype}; give the number of grey levels.")
    levels = 256 if levels is None else check_integer("levels", levels, low=2, high=1 << 16)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= levels:
        raise InvalidArgumentError(f"{what} must be grey levels 0 to {levels - 1}, got {low} to {high}.")
    return levels


def digest_of(header: str, *tensors: Tensor | None) -> str:
    """A digest of a text and of the bytes of tensors.

    Example:
        >>> digest_of("x", torch.zeros(2), None) == digest_of("x", torch.zeros(2))
        True
    """
    digest = hashlib.sha256(header.encode())
    for part in tensors:
        if part is not None:
            digest.update(part.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_dataset(data: object) -> bool:
    """Whether something is indexed by rows, or is a dataset of PyTorch."""
    if isinstance(data, type | str | bytes | Tensor | np.ndarray | Mapping):
        return False
    return isinstance(data, Dataset) or (hasattr(data, "__getitem__") and hasattr(data, "__len__"))


def check_dataset(dataset: Any) -> int:
    """Return the number of rows of a map-style dataset, or say what is wrong with it."""
    if isinstance(dataset, Mapping):
        names = ", ".join(map(str, dataset))
        raise InvalidTypeError(f"`data` must be one dataset, such as dataset['train'], got a mapping of {names}.")
    if isinstance(dataset, DataLoader | IterableDataset) or not is_dataset(dataset) or not hasattr(dataset, "__len__"):
        got = f"{type(dataset).__name__}; `Trainer` takes a DataLoader"
        raise InvalidTypeError(f"`data` must be a name, a path, or a dataset indexed by rows, got {got}.")
    if not len(dataset):
        raise InvalidArgumentError("`data` must hold one sample or more, got a dataset of length 0.")
    return len(dataset)


def _fetched(dataset: Any, rows: list[int]) -> list[Any]:
    """The items of some rows, at once where the dataset can do that."""
    several = getattr(dataset, "__getitems__", None)
    return [dataset[row] for row in rows] if several is None else list(several(rows))


class Items:
    """The rows of a map-style dataset, read when they are needed.

    A row may be a tensor, a NumPy array or a PIL image; a tuple of one of these and a label; or a mapping of columns,
    as those of ``datasets.Dataset``, in any of its formats, are. PIL images and uint8 values are grey levels; other
    arrays keep their dtype and shape, so that the channels of an image must come first.

    Each row is checked when it is read. Some rows, spread evenly, are read twice at once: their content identifies the
    data, and a dataset that does not give the same item for the same row is refused.

    Args:
        dataset: it has a length and is indexed by rows from 0.
        values, labels: the columns of the samples and of the labels. By default the samples are the column ``x`` or
            ``image``, or the only one beside the labels; the labels are ``label``, ``labels`` or ``y``.
        levels: of integers; 256 for uint8 and PIL images by default.
        classes: how many labels there are. By default the dataset's own number, if it declares one, or else that of the
            labels, all of which are read.
        size: the side of the square that PIL images are cropped and resized to; None takes them as they are.

    Raises:
        InvalidTypeError: the dataset cannot be indexed by rows, or an item is no sample.
        InvalidArgumentError: the dataset is empty, its columns are not clear, or items differ in shape or dtype, lack a
            label, or change from one reading to the next.
        NonFiniteError: an item has NaN or infinite values.

    Example:
        >>> source = Items([(torch.tensor([0.0, 1.0]), 1), (torch.tensor([2.0, 3.0]), 0)])
        >>> len(source), source.event_shape, source.levels, source.classes
        (2, (2,), None, 2)
        >>> source.rows(torch.tensor([1]))
        (tensor([[2., 3.]]), tensor([0]))
    """

    @checked
    def __init__(
        self,
        dataset: Any,
        *,
        values: str | None = None,
        labels: str | None = None,
        levels: int | None = None,
        classes: Annotated[int, integer(low=1, high=MOST_WIDTH)] | None = None,
        size: Side | None = None,
    ) -> None:
        self._count = check_dataset(dataset)
        self.dataset, self._names, self.size = dataset, (values, labels), size
        value, label = split(_fetched(dataset, [0])[0], *self._names, "row 0")
        event = self._event(value, "row 0")
        if not event.ndim or not event.numel():
            raise InvalidArgumentError(f"`data` must be arrays, not empty, got shape {tuple(event.shape)} in row 0.")
        self._dtype, self.event_shape, self._labelled = event.dtype, tuple(event.shape), label is not None
        last = event.ndim == 3 and self.event_shape[-1] in _CHANNELS and self.event_shape[0] not in _CHANNELS
        if self._dtype == torch.uint8 and last:  # the channels
            got = f"{self.event_shape} in row 0; move the channels to the front"
            raise InvalidArgumentError(f"`data` must be images (channels, height, width), got {got}.")
        self.levels = levels_of(event, levels, "`data` row 0")
        if classes is not None and not self._labelled:
            raise InvalidArgumentError("`classes` is for labels, but row 0 has none.")
        self.classes = classes
        if self._labelled and classes is None:
            self.classes = self._number_of_classes()
        self.extent = None if self.levels is None else (0.0, float(self.levels - 1))
        self.name = f"{self._count} rows of a {type(dataset).__name__}"
        self._digest = self._probed()

    def __len__(self) -> int:
        return self._count

    def rows(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        check_rows(indices, len(self))
        places = indices.tolist()
        items = zip(places, _fetched(self.dataset, places), strict=True)
        found = [self._sample(item, f"row {row}") for row, item in items]
        values = torch.stack([event for event, _ in found]) if found else torch.empty(0, *self.event_shape)
        labels = torch.tensor([label for _, label in found], dtype=torch.long) if self._labelled else None
        return values.to(self._dtype), labels

    def fingerprint(self) -> str:
        """A digest of some rows, spread evenly, and of the number of all."""
        return self._digest

    def _sample(self, item: Any, where: str) -> tuple[Tensor, int | None]:
        """The sample of an item and its label, checked."""
        value, label = split(item, *self._names, where)
        event = self._event(value, where)
        if tuple(event.shape) != self.event_shape or event.dtype != self._dtype:
            first, other = f"{self._dtype} {self.event_shape}", f"{event.dtype} {tuple(event.shape)}"
            hint = "; give size= to resize images" if self._dtype == torch.uint8 else ""
            raise InvalidArgumentError(f"`data` differ: {first} in row 0 and {other} in {where}{hint}.")
        if not bool(event.isfinite().all()):
            raise NonFiniteError(f"`data` {where} has NaN or infinite values; leave it out.", stage="input")
        if self.levels is not None:
            levels_of(event, self.levels, f"`data` {where}")
        return event, self._label(label, where) if self._labelled or label is not None else None

    def _event(self, value: Any, where: str) -> Tensor:
        from PIL.Image import Image

        if isinstance(value, Image):
            check_mode(value, where)
            return pixels(value, self.size)
        if not isinstance(value, Tensor | np.ndarray | list):
            raise InvalidTypeError(f"`data` {where} must be a tensor, an array or a PIL image, got {named(value)}.")
        return as_tensor(f"data, {where}", value).detach()

    def _label(self, label: Any, where: str) -> int:
        if label is None or not self._labelled:
            without, other = (where, "row 0") if self._labelled else ("row 0", where)
            raise InvalidArgumentError(f"`data`: {without} has no label, and {other} has one.")
        if isinstance(label, Tensor | np.ndarray | np.generic) and label.ndim == 0:
            label = label.item()
        most = None if self.classes is None else self.classes - 1
        hint = " Labels are integers from 0; their number is classes=."
        return check_integer(f"label of {where}", label, low=0, high=most, hint=hint)

    def _number_of_classes(self) -> int:
        features, own = getattr(self.dataset, "features", None), getattr(self.dataset, "classes", None)
        columns = features if isinstance(features, Mapping) else {}
        column = self._names[1] or next((name for name in LABELS if name in columns), "")
        declared = getattr(columns.get(column), "num_classes", None) or (len(own) if isinstance(own, Sequence) else 0)
        if declared:
            return int(declared)
        alone = getattr(self.dataset, "select_columns", None) if column else None  # without reading the images
        labelled, most = self.dataset if alone is None else alone([column]), 0
        for start in range(0, len(self), _READ):
            rows = list(range(start, min(start + _READ, len(self))))
            for row, item in zip(rows, _fetched(labelled, rows), strict=True):
                label = split(item, *self._names, f"row {row}")[1] if alone is None else item[column]
                most = max(most, self._label(label, f"row {row}"))
        return most + 1

    def _probed(self) -> str:
        rows = torch.linspace(0, len(self) - 1, min(_PROBES, len(self)), dtype=torch.float64).round().long()
        header = f"{len(self)} {self._dtype} {(len(rows), *self.event_shape)} {self.classes}"
        first, second = (digest_of(header, *self.rows(rows)) for _ in range(2))
        if first != second:
            hint = "leave out random transforms, or give `Trainer` a DataLoader"
            raise InvalidArgumentError(f"`data` must give the same item whenever a row is read; {hint}.")
        return first
