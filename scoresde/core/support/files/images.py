"""Files of 8-bit pictures, grey or colour; sizes are checked by their heads, before any pixel is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import InvalidArgumentError
from .paths import readable

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_CHANNELS = {"L": 1, "RGB": 3}  # of PIL's modes that are taken


def pictures(folder: Path, *, size: int | None = None, hint: str = "") -> tuple[list[Path], tuple[int, int, int]]:
    """The images of a folder and of those in it, in the order of their names, and the shape that all of them have.

    Files and folders whose names begin with a dot are left out.

    Args:
        folder: where they are.
        size: see `image`.
        hint: what to do about images of several shapes, for the message.

    Raises:
        InvalidArgumentError: there are none, or one cannot be read or used, or they differ in size or channels.
    """
    with readable(folder):
        inside = ((p, p.relative_to(folder).parts) for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
        found = sorted(p for p, parts in inside if not (p.is_dir() or any(part[0] == "." for part in parts)))
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


def classes_of(folder: Path, images: Sequence[Path]) -> list[int] | None:
    """The class of each image: the number of the folder that it is in, in the order of their names; None where all are
    in one."""
    places = [path.relative_to(folder).parts[:-1] for path in images]
    kinds = sorted(set(places))
    return [kinds.index(place) for place in places] if len(kinds) > 1 else None


def image(path: Path, size: int | None = None) -> Tensor:
    """An 8-bit picture, grey or colour, uint8 ``(channels, h, w)``.

    Args:
        path: of the file.
        size: the side of the square that it is cropped and resized to; None takes it as it is.
    """
    with _picture(path) as picture, readable(path):
        return pixels(picture, size)


def pixels(picture: Image, size: int | None = None) -> Tensor:
    """The pixels of a picture of a mode that is taken, uint8 ``(channels, h, w)``; see `image`."""
    import numpy as np
    from PIL import ImageOps

    array = torch.from_numpy(np.array(picture if size is None else ImageOps.fit(picture, (size, size))))
    return array.reshape(*array.shape[:2], -1).movedim(-1, 0).contiguous()


def check_mode(picture: Image, which: str) -> None:
    """Refuse a picture of a mode that is not taken; ``which`` picture it is, for the message."""
    if picture.mode not in _CHANNELS:
        raise InvalidArgumentError(
            f"`data` {which} must be an 8-bit grey or colour image (PIL's modes L, RGB), got the mode "
            f"{picture.mode}; convert such images, those with transparency or a palette by .convert('RGB')."
        )


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
        check_mode(picture, repr(str(path)))
        yield picture
