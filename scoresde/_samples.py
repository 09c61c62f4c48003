"""Files of samples: arrays (.npz, .npy, .safetensors) and images, read in one way wherever they are read.

Nothing is ever unpickled, and an error names the file that cannot be read. Types, shapes and sizes are checked by the
headers, before any number is read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ._files import readable
from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PICTURES", "Arrays", "Check", "image", "image_shape", "opened", "pictures"]

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_CHANNELS = {"L": 1, "RGB": 3}  # of PIL's modes that are taken
Check = Callable[[tuple[int, ...]], None]  # refuses a shape by an error


class Arrays(NamedTuple):
    """The arrays of a file, each read when it is taken.

    Attributes:
        path: of the file.
        names: of its arrays; the one of an .npy file is called x.
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
            f"`data` {str(self.path)!r} must hold an array called x or one alone{hint}; it has "
            f"{', '.join(names) or 'none'}."
        )

    def numbers(self, name: str, check: Check | None = None) -> Tensor:
        """An array as a tensor: bytes and floating-point numbers as they are, other integers as int64.

        Args:
            name: of the array.
            check: of its shape, before it is read.
        """
        import numpy as np

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
def opened(path: Path, also: str) -> Iterator[Arrays]:
    """The arrays of a file, while it is open.

    Args:
        path: of the file.
        also: what else the data may be, for the message.

    Example:
        >>> with opened(Path("data.csv"), "a folder of images"):
        ...     pass
        Traceback (most recent call last):
        ...
        scoresde.errors.InvalidArgumentError: `data` must end in one of .npz, .npy, .safetensors, or be a folder of
        images, got 'data.csv'.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidArgumentError(f"`data` must end in one of {', '.join(_READERS)}, or be {also}, got {str(path)!r}.")
    with readable(path), reader(path) as arrays:
        yield arrays


@contextmanager
def _numpy(path: Path) -> Iterator[Arrays]:
    import numpy as np

    with path.open("rb") as file:
        prefix = file.read(len(np.lib.format.MAGIC_PREFIX))
        file.seek(0)
        if prefix == np.lib.format.MAGIC_PREFIX:
            shape = _shape(path, file, os.fstat(file.fileno()).st_size)
            file.seek(0)
            yield Arrays(path, ["x"], lambda name: shape, lambda name: np.load(file, allow_pickle=False))
            return
        with np.load(file, allow_pickle=False) as content:
            members = {info.filename.removesuffix(".npy"): info for info in content.zip.infolist()}

            def shape_of(name: str) -> tuple[int, ...]:
                with content.zip.open(members[name]) as member:
                    return _shape(path, member, members[name].file_size)

            yield Arrays(path, content.files, shape_of, content.__getitem__)


def _shape(path: Path, file: IO[bytes], size: int) -> tuple[int, ...]:
    """The shape of an array of NumPy's format, of numbers that are all there as far as the size of the file tells."""
    from numpy.lib import format

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
def _safetensors(path: Path) -> Iterator[Arrays]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        yield Arrays(path, list(file.keys()), lambda name: tuple(file.get_slice(name).get_shape()), file.get_tensor)


_READERS = {".npz": _numpy, ".npy": _numpy, ".safetensors": _safetensors}


def pictures(
    folder: Path, *, deep: bool = False, size: int | None = None, hint: str = ""
) -> tuple[list[Path], tuple[int, int, int]]:
    """The images of a folder in the order of their names, and the shape that all of them have.

    Args:
        folder: where they are.
        deep: in its folders too.
        size: see `image`.
        hint: what to do about images of several shapes, for the message.

    Raises:
        InvalidArgumentError: there are none, or one cannot be read or used, or they differ in size or channels.
    """
    with readable(folder):
        found = sorted(
            path
            for path in (folder.rglob("*") if deep else folder.iterdir())
            if path.suffix.lower() in PICTURES and not path.is_dir()
        )
    if not found:
        raise InvalidArgumentError(f"`data`: the folder {str(folder)!r} holds no images ({', '.join(PICTURES)}).")
    shape = image_shape(found[0], size)
    for other in found[1:]:
        if (got := image_shape(other, size)) != shape:
            raise InvalidArgumentError(
                f"`data` must be images of one shape, got {shape} in {str(found[0])!r} and {got} in {str(other)!r}"
                f"{hint}."
            )
    return found, shape


def image(path: Path, size: int | None = None) -> Tensor:
    """An 8-bit picture, grey or colour, uint8 ``(channels, h, w)``.

    Args:
        path: of the file.
        size: the side of the square that it is cropped and resized to; None takes it as it is.
    """
    import numpy as np
    from PIL import ImageOps

    with _picture(path) as picture, readable(path):
        array = torch.from_numpy(np.array(picture if size is None else ImageOps.fit(picture, (size, size))))
    return array.reshape(*array.shape[:2], -1).movedim(-1, 0).contiguous()


def image_shape(path: Path, size: int | None = None) -> tuple[int, int, int]:
    """The shape of `image`, by the head of the file."""
    with _picture(path) as picture:
        width, height = picture.size if size is None else (size, size)
        return _CHANNELS[picture.mode], height, width


@contextmanager
def _picture(path: Path) -> Iterator[Image]:
    from PIL import Image as pil

    with readable(path):
        picture = pil.open(path)
    with picture:
        if picture.mode not in _CHANNELS:
            raise InvalidArgumentError(
                f"`data` {str(path)!r} must be an 8-bit grey or colour image (PIL's modes L, RGB), got the mode "
                f"{picture.mode}."
            )
        yield picture
