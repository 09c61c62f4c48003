"""Files in the IDX format of MNIST: images with their labels in a file beside them.

References:
    LeCun, Cortes, Burges (1998), The MNIST database of handwritten digits: the file format.
"""

from __future__ import annotations

import gzip
import math
import re
from pathlib import Path
from typing import IO, cast

import numpy as np

_NAME = re.compile(r"idx(\d)-ubyte(\.gz)?$")
_UNSIGNED_BYTES = 8
_MOST_AXES = 8
_PIECE = 1 << 20  # bytes that are read at once: a header may promise more than there is


def is_idx(path: Path) -> bool:
    """Whether a file is named as those of MNIST are, ``train-images-idx3-ubyte.gz``.

    Example:
        >>> is_idx(Path("t10k-images-idx3-ubyte.gz")), is_idx(Path("images.npz"))
        (True, False)
    """
    return _NAME.search(path.name) is not None


def labels_beside(path: Path) -> Path | None:
    """The file with the labels of a file of images, None if there is none."""
    plain = _NAME.sub("idx1-ubyte", path.name.replace("images", "labels"))
    there = (path.with_name(plain + end) for end in (path.suffix if path.suffix == ".gz" else "", ".gz", ""))
    return next((file for file in there if file.name != path.name and file.is_file()), None)


def idx_shape(path: Path) -> tuple[int, ...]:
    """The shape of the array of a file, by its header; images have one channel, ``(n, 1, height, width)``."""
    with _opened(path) as file:
        return _with_channel(_header(file))


def read_idx(path: Path) -> np.ndarray:
    """The unsigned bytes of a file, in the shape of `idx_shape`."""
    with _opened(path) as file:
        shape = _header(file)
        size, raw = math.prod(shape), bytearray()
        while len(raw) <= size and (piece := file.read(_PIECE)):
            raw += piece
    if len(raw) != size:
        there = "more" if len(raw) > size else f"{len(raw):,}"
        raise ValueError(f"Its header declares an array of shape {shape}, {size:,} bytes, but {there} follow")
    return np.frombuffer(raw, np.uint8).reshape(_with_channel(shape))


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _header(file: IO[bytes]) -> tuple[int, ...]:
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] != _UNSIGNED_BYTES or not 1 <= start[3] <= _MOST_AXES:
        raise ValueError("It does not start as a file of unsigned bytes in the IDX format does")
    sizes = file.read(4 * start[3])
    if len(sizes) < 4 * start[3]:
        raise ValueError("It ends within its header")
    return tuple(int(n) for n in np.frombuffer(sizes, ">u4"))


def _with_channel(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape
