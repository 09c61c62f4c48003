"""Files of samples: arrays (.npz, .npy, .safetensors) and images, read in one way wherever they are read.

Nothing is ever unpickled, and what cannot be read is told by the name of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ._files import readable
from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PICTURES", "Arrays", "image", "image_shape", "opened", "pictures"]

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_CHANNELS = {"L": 1, "RGB": 3}  # of PIL's modes that are taken


class Arrays(NamedTuple):
    """The arrays of a file, each read when it is taken.

    Attributes:
        path: of the file.
        names: of its arrays; the one of an .npy file is called x.
        get: an array by its name, of whatever it holds.
    """

    path: Path
    names: list[str]
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

    def numbers(self, name: str) -> Tensor:
        """An array as a tensor: bytes and floating-point numbers as they are, other integers as int64."""
        import numpy as np

        array = self.get(name)
        kind = array.dtype.kind if isinstance(array, np.ndarray) else None
        if kind in ("i", "u", "f"):
            dtype = array.dtype.newbyteorder("=") if kind == "f" or array.dtype == np.uint8 else "int64"
            array = torch.from_numpy(np.array(array, dtype=dtype, order="C"))
        if not isinstance(array, Tensor) or array.is_complex() or array.dtype == torch.bool:
            raise InvalidArgumentError(
                f"`data` {str(self.path)!r} must be integer grey levels or floating-point numbers, got {array.dtype}."
            )
        return array if array.is_floating_point() or array.dtype == torch.uint8 else array.to(torch.int64)

    def samples(self, name: str) -> Tensor:
        """The `numbers` of an array with one sample or more, ``(n, *event)``."""
        values = self.numbers(name)
        if values.ndim < 2:
            raise InvalidArgumentError(
                f"`data` {str(self.path)!r} must be (samples, *event), got an array of shape {tuple(values.shape)}."
            )
        if not values.numel():
            raise InvalidArgumentError(
                f"`data` {str(self.path)!r} holds no samples: its shape is {tuple(values.shape)}."
            )
        return values


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
    with readable(path), reader(path) as (names, get):
        yield Arrays(path, names, get)


_Table = tuple[list[str], Callable[[str], Any]]


@contextmanager
def _numpy(path: Path) -> Iterator[_Table]:
    import numpy as np

    with path.open("rb") as file:
        content = np.load(file, allow_pickle=False)
        yield (content.files, content.__getitem__) if hasattr(content, "files") else (["x"], lambda name: content)


@contextmanager
def _safetensors(path: Path) -> Iterator[_Table]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        yield list(file.keys()), file.get_tensor


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
