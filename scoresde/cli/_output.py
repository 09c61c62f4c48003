"""Files that commands write: a picture or arrays, by the extension."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError
from ..files.writing import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

PICTURE = ".png"
ARRAYS = (".npz", ".safetensors")
EXTENSIONS = (PICTURE, *ARRAYS)


@dataclass(frozen=True)
class Samples:
    """Samples ``(num, *event)``, the seed and the evaluations of each ``(num,)``, the command that made them, and the
    values of black and white."""

    x: Tensor
    seeds: list[int]
    nfe: Tensor
    metadata: dict[str, object]
    data_range: tuple[float, float] = (-1.0, 1.0)


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


def write(path: Path, extension: str, samples: Samples) -> str:
    """Write the samples, completely or not at all.

    Returns:
        What was written, in words.
    """
    if extension != PICTURE:
        import numpy as np

        arrays = {"x": samples.x, "seeds": np.array(samples.seeds, dtype=np.uint64), "nfe": samples.nfe}
        return write_arrays(path, extension, arrays, samples.metadata)
    from PIL.PngImagePlugin import PngInfo

    from ..plot import image_grid

    picture = image_grid(samples.x, data_range=samples.data_range)
    info = PngInfo()
    info.add_itxt("scoresde", _described(samples.metadata))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    _write(path, buffer)
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
    buffer = io.BytesIO()
    if extension == ".npz":
        np.savez(buffer, metadata=np.array(_described(metadata)), **contents)
    else:
        from safetensors.numpy import save

        buffer.write(save(contents, metadata={"scoresde": _described(metadata)}))
    _write(path, buffer)
    name, first = next(iter(contents.items()))
    return f"arrays, {name} is {' x '.join(map(str, first.shape))}"


def _described(metadata: dict[str, object]) -> str:
    return json.dumps(metadata, ensure_ascii=False)


def _write(path: Path, buffer: io.BytesIO) -> None:
    with buffer.getbuffer() as data:
        write_bytes(path, data)
