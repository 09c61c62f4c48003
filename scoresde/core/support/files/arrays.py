"""Files of arrays (.npz, .npy, .safetensors, and MNIST's), read in one way wherever they are read.

Nothing is ever unpickled, and an error names the file that cannot be read. Types, shapes and sizes are checked by the
headers, before any number is read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import InvalidArgumentError
from .idx import idx_shape, is_idx, labels_beside, read_idx
from .paths import readable

Check = Callable[[tuple[int, ...]], None]  # refuses a shape by an error


class ArrayFile(NamedTuple):
    """The arrays of a file, each read when it is taken.

    Attributes:
        path: of the file.
        names: of its arrays; the one of an .npy file is called x, as are images of an IDX file beside their labels.
        shape: of an array by its name, as the header says.
        get: an array by its name.
    """

    path: Path
    names: list[str]
    shape: Callable[[str], tuple[int, ...]]
    get: Callable[[str], Any]

    def main(self, without: Sequence[str] = (), hint: str = "") -> str:
        """The name of the samples: x, or that of the only array.

        Args:
            without: names of arrays that are none.
            hint: what else can be done, for the message.
        """
        names = [name for name in self.names if name not in without]
        if "x" in names or len(names) == 1:
            return "x" if "x" in names else names[0]
        raise InvalidArgumentError(
            f"`data` {str(self.path)!r} must hold an array called x, or a single array{hint}; it has "
            f"{', '.join(names) or 'none'}."
        )

    def numbers(self, name: str, check: Check | None = None) -> Tensor:
        """An array as a tensor: bytes and floating-point numbers as they are, other integers as int64.

        Args:
            name: of the array.
            check: of its shape, before it is read.
        """
        shape = self.shape(name)
        if check is not None:
            check(shape)
        array = self.get(name)
        if isinstance(array, np.ndarray):
            kept = array.dtype.kind == "f" or array.dtype == np.uint8
            dtype = array.dtype.newbyteorder("=") if kept else np.dtype("int64")
            array = torch.from_numpy(np.require(array, dtype, ["C", "W"]))
        if array.is_complex() or array.dtype == torch.bool:
            raise _no_numbers(self.path, array.dtype)
        return array if array.is_floating_point() or array.dtype == torch.uint8 else array.to(torch.int64)

    def samples(self, name: str, check: Check | None = None) -> Tensor:
        """The `numbers` of an array with one sample or more, ``(n, *event)``.

        Args:
            name: of the array.
            check: of its shape, before it is read.
        """

        def whole(shape: tuple[int, ...]) -> None:
            if len(shape) < 2:
                raise InvalidArgumentError(
                    f"`data` {str(self.path)!r} must be (samples, *event), got an array of shape {shape}."
                )
            if not math.prod(shape):
                raise InvalidArgumentError(f"`data` {str(self.path)!r} holds no samples: its shape is {shape}.")
            if check is not None:
                check(shape)

        return self.numbers(name, whole)


def _no_numbers(path: Path, dtype: object) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"`data` {str(path)!r} must be integer grey levels or floating-point numbers, got {dtype}."
    )


@contextmanager
def opened(path: Path, also: str) -> Iterator[ArrayFile]:
    """The arrays of a file, while it is open.

    Args:
        path: of the file.
        also: what else the data may be, for the message.

    Example:
        >>> with opened(Path("data.csv"), "a folder of images"):
        ...     pass
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `data` must end in one of .npz, .npy, .safetensors, or be a folder of
        images, got 'data.csv'.
    """
    reader = _idx if is_idx(path) else _READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidArgumentError(f"`data` must end in one of {', '.join(_READERS)}, or be {also}, got {str(path)!r}.")
    with readable(path), reader(path) as arrays:
        yield arrays


@contextmanager
def _numpy(path: Path) -> Iterator[ArrayFile]:
    with path.open("rb") as file:
        prefix = file.read(len(np.lib.format.MAGIC_PREFIX))
        file.seek(0)
        if prefix == np.lib.format.MAGIC_PREFIX:
            shape = _shape(path, file, os.fstat(file.fileno()).st_size)
            file.seek(0)
            yield ArrayFile(path, ["x"], lambda name: shape, lambda name: np.load(file, allow_pickle=False))
            return
        with np.load(file, allow_pickle=False) as content:
            members = {info.filename.removesuffix(".npy"): info for info in content.zip.infolist()}

            def shape_of(name: str) -> tuple[int, ...]:
                with content.zip.open(members[name]) as member:
                    return _shape(path, member, members[name].file_size)

            yield ArrayFile(path, content.files, shape_of, content.__getitem__)


def _shape(path: Path, file: IO[bytes], size: int) -> tuple[int, ...]:
    """The shape of an array in NumPy's format; the size of the file must allow for all of its values."""
    format = np.lib.format
    header = format.read_array_header_1_0 if format.read_magic(file) == (1, 0) else format.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise _no_numbers(path, dtype)
    wanted, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if wanted > there or min(shape, default=0) < 0:
        raise ValueError(f"Its header declares an array of shape {shape}, {wanted:,} bytes, but {there:,} follow")
    return shape


@contextmanager
def _safetensors(path: Path) -> Iterator[ArrayFile]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        yield ArrayFile(path, list(file.keys()), lambda name: tuple(file.get_slice(name).get_shape()), file.get_tensor)


@contextmanager
def _idx(path: Path) -> Iterator[ArrayFile]:
    labels = labels_beside(path)
    files = {"x": path} | ({} if labels is None else {"label": labels})
    yield ArrayFile(path, list(files), lambda name: idx_shape(files[name]), lambda name: read_idx(files[name]))


_READERS = {".npz": _numpy, ".npy": _numpy, ".safetensors": _safetensors}
