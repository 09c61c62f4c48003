"""Files that commands write: a picture or arrays, by the extension."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError
from ..files.writing import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

PICTURE = ".png"
ARRAYS = (".npz", ".safetensors")
EXTENSIONS = (PICTURE, *ARRAYS)


def check_extension(path: Path, allowed: Sequence[str] = EXTENSIONS, name: str = "out") -> str:
    """The format that a file name implies.

    Example:
        >>> check_extension(Path("samples.npz"))
        '.npz'
        >>> check_extension(Path("samples.jpg"))
        Traceback (most recent call last):
        ...
        scoresde.errors.InvalidArgumentError: `out` must end in .png, .npz or .safetensors, got 'samples.jpg'.
    """
    extension = path.suffix.lower()
    if extension not in allowed:
        known = " or ".join(filter(None, (", ".join(allowed[:-1]), allowed[-1])))
        raise InvalidArgumentError(f"`{name}` must end in {known}, got {str(path)!r}.")
    return extension


def write(
    path: Path,
    extension: str,
    x: Tensor,
    arrays: dict[str, Any],
    metadata: dict[str, object],
    data_range: tuple[float, float],
) -> str:
    """Write samples, completely or not at all: as a picture, or with other arrays.

    Args:
        path: of the file.
        extension: its format.
        x: the samples, ``(num, *event)``.
        arrays: what arrays have beside them.
        metadata: the command that made them.
        data_range: the values of black and white.

    Returns:
        What was written, in words.
    """
    if extension != PICTURE:
        return write_arrays(path, extension, {"x": x, **arrays}, metadata)
    from PIL.PngImagePlugin import PngInfo

    from ..plot import image_grid

    picture = image_grid(x, data_range=data_range)
    info = PngInfo()
    info.add_itxt("scoresde", _described(metadata))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    write_bytes(path, buffer.getvalue())
    return f"picture, {picture.width} x {picture.height} pixels"


def write_arrays(path: Path, extension: str, arrays: dict[str, Any], metadata: dict[str, Any]) -> str:
    """Write tensors and NumPy arrays, completely or not at all; the first is what the file is about.

    Returns:
        What was written, in words.
    """
    import numpy as np

    contents: dict[str, Any] = {
        name: np.ascontiguousarray(value.cpu().numpy() if hasattr(value, "cpu") else value)
        for name, value in arrays.items()
    }
    if extension == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, metadata=np.array(_described(metadata)), **contents)
        written = buffer.getvalue()
    else:
        from safetensors.numpy import save

        written = save(contents, metadata={"scoresde": _described(metadata)})
    write_bytes(path, written)
    name, first = next(iter(contents.items()))
    return f"arrays, {name} is {' x '.join(map(str, first.shape))}"


def _described(metadata: dict[str, object]) -> str:
    return json.dumps(metadata, ensure_ascii=False)
