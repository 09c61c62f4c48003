"""Data that commands read: arrays, images, the held-out digits; and how the model takes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __version__
from ..core.errors import InvalidArgumentError
from ._options import ClassOptions, Opened, digest, label_of, sample_seeds
from ._run import argument, flag

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.support.files.arrays import ArrayFile, Check

DIGITS = "digits"
FOLDERS = "folders"
_LABEL = "label"  # the name of the digits' classes
_FAR = 0.5  # of the model's range: what floating-point data may lie outside of it


@dataclass(frozen=True)
class Data:
    """Samples as they were read.

    Attributes:
        values: integer grey levels or floating-point numbers, ``(n, *event)``.
        names: of files, or indices.
        levels: the grey levels that the data's format has, None where it does not say.
        labels: the class of each sample, where they were requested.
        folders: how many folders the classes are, where they are folders.
    """

    values: Tensor
    names: list[str]
    levels: int | None = None
    labels: Tensor | None = None
    folders: int | None = None

    @property
    def digest(self) -> str:
        """The digest of the values, the names and the labels."""
        labels: list[tuple[str, bytes | Tensor]] = [] if self.labels is None else [("labels", self.labels)]
        return digest([("names", "\n".join(self.names).encode()), ("values", self.values), *labels])


@dataclass(frozen=True)
class Inputs:
    """Samples as the model takes them: integers are dequantised with the seed of each sample, floating-point numbers
    are in the model's range already.
    """

    values: Tensor
    levels: int | None
    data_range: tuple[float, float]

    def rows(self, places: Tensor | slice, seeds: Sequence[int]) -> Tensor:
        """The samples at these places, one per seed, float32."""
        import torch

        from ..likelihood import dequantize

        rows = self.values[places]
        if self.levels is None or rows.is_floating_point():
            return rows.to(torch.float32)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        kwargs: dict[str, Any] = {"levels": self.levels, "data_range": self.data_range, "dtype": torch.float32}
        return torch.stack([dequantize(v, generator=g, **kwargs) for v, g in zip(rows, generators, strict=True)])


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Data, and what their numbers mean."""

    data: str | None = flag(
        None,
        "A .npz, .npy or .safetensors file, samples first; an image, or a folder of images in the order of their "
        "names; or digits, the held-out digits that the shipped model was not trained on. Integers are grey levels; "
        "floating-point numbers are used unchanged.",
    )
    key: str | None = flag(None, "Name of the array in the file; default x, or the only array.")
    levels: int | None = flag(
        None,
        "Grey levels of integer data, 0 to LEVELS - 1, which are dequantised; default 256 for images, 17 for "
        "digits. For floating-point data: the grey levels before dequantisation.",
        min=2,
    )
    data_range: tuple[float, float] | None = flag(
        None,
        "Range of the model's data, from the darkest cell to the brightest; default the model's own, or -1 1.",
        metavar="LOW HIGH",
    )


@dataclass(frozen=True, kw_only=True)
class NamedDataOptions(DataOptions):
    """Data that may be given without the name of their option, too."""

    data_argument: str | None = argument(None, "The same as --data.", metavar="DATA")

    @property
    def source(self) -> str:
        """Where the data are."""
        return named("data", self.data, self.data_argument)


@dataclass(frozen=True, kw_only=True)
class ModelDataOptions(DataOptions, ClassOptions):
    """A network and data for it, of one class or of a class each."""

    labels: str | None = flag(
        None,
        "Name of the array in the file with the class of each sample: label for digits and MNIST; folders for a "
        "folder with a folder of images for each class of the model, in the order of their names (10 before 2).",
        metavar="NAME",
    )

    def read(self, opened: Opened, source: str, *, within: bool = True) -> Rows:
        """The data of a source, for an opened network."""
        if self.label is not None and self.labels is not None:
            raise InvalidArgumentError("`labels` gives each sample its class; leave --label out.")
        network, found = opened.network, read(source, self.key, fits(opened.event, source), self.labels)
        inputs = prepare(found, self.levels, range_of(network, self.data_range), within=within)
        classes = label_of(network, found.labels)
        if found.labels is not None:
            _check_classes(found.labels, found, network.labels.count)
        score_fn = network.score(opened.process, **label_of(network, self.label))
        return Rows(found, inputs, score_fn, classes)

    def settings(self, rows: Rows, opened: Opened, **solve: Any) -> dict[str, Any]:
        """What an output records of the model and of the solve that made it."""
        return {
            "scoresde": __version__,
            "sde": repr(opened.process),
            "label": self.label,
            **({} if self.labels is None else {"labels": self.labels}),
            **solve,
            "data": rows.data.digest,
            "levels": rows.inputs.levels,
            "data_range": list(rows.inputs.data_range),
        }


class Rows(NamedTuple):
    """Data with the network's score for them.

    Attributes:
        data, inputs: as they were read, and as the network takes them.
        score_fn: the network's, for the class of all of them where they have one.
        classes: the class of each of them under the network's name for it, where they have one each.
    """

    data: Data
    inputs: Inputs
    score_fn: Callable[..., Tensor]
    classes: dict[str, Any]

    def context(self, rows: Tensor | slice = slice(None)) -> dict[str, Any]:
        """The classes of some of them."""
        return {name: value[rows] for name, value in self.classes.items()}

    def x(self, seed: int) -> Tensor:
        """All of them, as the network takes them."""
        return self.inputs.rows(slice(None), sample_seeds(seed, 0, len(self.data.names)))


def read(source: str, key: str | None = None, check: Check | None = None, labels: str | None = None) -> Data:
    """The data of a file, of a folder of images and the folders in it, or the held-out digits.

    Args:
        source: path, or ``"digits"``.
        key: the array of a file with several.
        check: refuses a shape ``(n, *event)`` by an error, before anything but the headers of files is read; see
            `fits`.
        labels: the array of the file with the class of each sample, or ``"folders"`` for images in folders, one for
            each class.

    Example:
        >>> read("missing.npz")
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `data` 'missing.npz' cannot be read: No such file or directory.
        >>> read("digits").values.shape
        torch.Size([360, 1, 8, 8])
        >>> read("digits", labels="label").labels[:3]
        tensor([2, 4, 8])
    """
    from ..core.support.files.images import PICTURES, image_shape, pictures

    path = Path(source)
    picture = path.suffix.lower() in PICTURES
    if key is not None and (picture or source == DIGITS or path.suffix.lower() == ".npy" or path.is_dir()):
        raise InvalidArgumentError(f"`key` names an array of a file with several, but `data` is {source!r}.")
    if labels is not None and (picture or path.suffix.lower() == ".npy" or (path.is_dir() and labels != FOLDERS)):
        raise InvalidArgumentError(
            f"`labels` names an array of a file with several, or is {FOLDERS!r} for a folder with a folder of images "
            f"for each class, but `data` is {source!r}, and `labels` is {labels!r}."
        )
    check = check or (lambda shape: None)
    if source == DIGITS:
        return _digits(check, labels)
    if path.is_dir():
        return _images(path, *pictures(path), check, labels is not None)
    if not path.exists():
        raise InvalidArgumentError(f"`data` {source!r} cannot be read: {os.strerror(errno.ENOENT)}.")
    return _images(path, [path], image_shape(path), check) if picture else _array(path, key, check, labels)


def named(name: str, option: str | None, argument: str | None) -> str:
    """The value of an option that may be given without its name, as the only argument, too.

    Example:
        >>> named("data", "a.npz", None), named("data", None, "b.npz")
        ('a.npz', 'b.npz')
        >>> named("data", None, None)
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `data` is missing; give --data DATA.
    """
    given = [value for value in (option, argument) if value is not None]
    if len(given) != 1:
        said = f"is given twice, {argument!r} and {option!r}" if given else f"is missing; give --{name} {name.upper()}"
        raise InvalidArgumentError(f"`{name}` {said}.")
    return given[0]


def fits(event: Sequence[int], source: str) -> Check:
    """A check of samples ``(n, *event)``: those that the model is not made for are refused; they are never resized.

    Example:
        >>> fits((1, 8, 8), "a.npz")((5, 1, 8, 9))
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `data` 'a.npz' must have samples of shape (1, 8, 8), ...
    """

    def check(shape: tuple[int, ...]) -> None:
        if shape[1:] != tuple(event):
            raise InvalidArgumentError(
                f"`data` {source!r} must have samples of shape {tuple(event)}, as the model, got samples of shape "
                f"{shape[1:]}, in all {shape}."
            )

    return check


def range_of(network: object, asked: tuple[float, float] | None = None) -> tuple[float, float]:
    """The range of a model's data: the requested one, the model's own, or -1 to 1.

    Example:
        >>> range_of(scoresde.load("digits")), range_of(None, (0.0, 1.0))
        ((-1.0, 1.0), (0.0, 1.0))
    """
    return asked or getattr(getattr(network, "config", None), "data_range", None) or (-1.0, 1.0)


def prepare(data: Data, levels: int | None, data_range: tuple[float, float], *, within: bool = True) -> Inputs:
    """The data as the model takes them, checked as a whole before the first evaluation.

    Floating-point data far outside of the range are refused, if they have to be ``within`` it.

    Example:
        >>> grey = Data(torch.arange(8).reshape(1, 2, 4), ["0"])
        >>> prepare(grey, 8, (-1.0, 1.0)).rows(slice(None), [5]).shape
        torch.Size([1, 2, 4])
        >>> prepare(grey, None, (-1.0, 1.0))
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `levels` is missing: `data` are integers, 0 to 7; ...
    """
    from ..core.support.checks import check_finite_rows
    from ..likelihood.bits import cell

    values = data.values
    levels = data.levels if levels is None else levels
    cell(2 if levels is None else levels, data_range)
    low, high = (float(bound) for bound in data_range)
    least, most = values.min().item(), values.max().item()
    if not values.is_floating_point():
        if levels is None:
            raise InvalidArgumentError(
                f"`levels` is missing: `data` are integers, {least} to {most}; give the number of grey levels, such as "
                f"--levels 256, or give floating-point data in the model's range."
            )
        if least < 0 or most >= levels:
            raise InvalidArgumentError(f"`data` must be grey levels 0 to {levels - 1}, got {least} to {most}.")
        return Inputs(values, levels, (low, high))
    check_finite_rows("`data`", values)
    if within and (least < low - _FAR * (high - low) or most > high + _FAR * (high - low)):
        raise InvalidArgumentError(
            f"`data` reach from {least:g} to {most:g}, far outside the model's range {low:g} to {high:g}. Grey levels "
            f"must be integers, with --levels; give another range of data by --data-range LOW HIGH."
        )
    return Inputs(values, levels, (low, high))


def _check_classes(labels: Tensor, data: Data, count: int) -> None:
    """Refuse labels that are no classes of a model, before anything is evaluated."""
    if data.folders not in (None, count):
        raise InvalidArgumentError(
            f"`labels`: the images are in {data.folders} folders, but the model has {count} classes; give a folder for "
            "each, in the order of its training."
        )
    wrong = ((labels < 0) | (labels >= count)).nonzero()[:5, 0].tolist()
    if wrong:
        shown = ", ".join(f"{int(labels[i])} for sample {data.names[i]}" for i in wrong)
        raise InvalidArgumentError(f"`labels` must be classes of the model, 0 to {count - 1}, got {shown}.")


def _digits(check: Check, labels: str | None) -> Data:
    from ..training import digits_split

    if labels not in (None, _LABEL):
        raise InvalidArgumentError(f"`labels`: the digits have them under the name {_LABEL}, got {labels!r}.")
    try:
        split = digits_split()
    except ImportError as error:
        raise InvalidArgumentError(f"`data`: {error} Or give a file.") from None
    images = split.test_images
    check(tuple(images.shape))
    return Data(images, [str(i) for i in range(len(images))], 17, None if labels is None else split.test_labels)


def _images(source: Path, files: list[Path], shape: tuple[int, ...], check: Check, labelled: bool = False) -> Data:
    import torch

    from ..core.support.files.images import classes_of, image
    from ..core.support.files.paths import readable

    names = [path.relative_to(source).as_posix() if path != source else path.name for path in files]
    for name in names:  # which stand in lines of a table
        if not name.isprintable():
            raise InvalidArgumentError(f"`data`: the file name {name!r} cannot be printed; give it another one.")
    check((len(files), *shape))
    classes = classes_of(source, files) if labelled else None
    if labelled and classes is None:
        raise InvalidArgumentError(f"`labels`: all images of {str(source)!r} are in one folder, so in one class.")
    with readable(source):
        values = torch.stack([image(path) for path in files])
    if classes is None:
        return Data(values, names, 256)
    return Data(values, names, 256, torch.tensor(classes), max(classes) + 1)


def _array(path: Path, key: str | None, check: Check, labels: str | None) -> Data:
    from ..core.support.files.arrays import opened
    from ..core.support.files.images import PICTURES

    with opened(path, f"an image ({', '.join(PICTURES)}), or a folder of images") as arrays:
        for option, name in (("key", key), ("labels", labels)):
            if name is not None and name not in arrays.names:
                has = ", ".join(arrays.names)
                raise InvalidArgumentError(f"`{option}`: {str(path)!r} has no array {name!r}, it has {has}.")
        if labels is not None and labels == (key or "x"):
            raise InvalidArgumentError(f"`labels`: the array {labels!r} has the samples; name that of their classes.")
        main = arrays.main([] if labels is None else [labels], ", or name it by --key") if key is None else key
        values = arrays.samples(main, check)
        classes = None if labels is None else _classes(arrays, labels, len(values))
        return Data(values, [str(i) for i in range(len(values))], labels=classes)


def _classes(arrays: ArrayFile, name: str, num: int) -> Tensor:
    """Labels as integers, one for each sample."""
    try:
        found = arrays.numbers(name)
    except InvalidArgumentError:
        found = None
    if found is None or found.is_floating_point():
        raise InvalidArgumentError(f"`labels` must be integers, but the array {name!r} of {str(arrays.path)!r} is not.")
    if found.shape != (num,):
        raise InvalidArgumentError(f"`labels` must be ({num},), one class per sample, got {tuple(found.shape)}.")
    return found.long()
