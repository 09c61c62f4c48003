"""The files that `scoresde sample` writes: a picture or arrays, by the extension."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import write_bytes
from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor

PICTURE = ".png"
EXTENSIONS = (PICTURE, ".npz", ".safetensors")


@dataclass(frozen=True)
class Samples:
    """Samples ``(num, *event)``, the seed and the evaluations of each ``(num,)``, and the command that made them."""

    x: Tensor
    seeds: list[int]
    nfe: Tensor
    metadata: dict[str, Any]


def check_extension(path: Path) -> str:
    """The format that a file name asks for.

    Example:
        >>> check_extension(Path("samples.npz"))
        '.npz'
        >>> check_extension(Path("samples.jpg"))
        Traceback (most recent call last):
        ...
        scoresde.errors.InvalidArgumentError: `out` must end in .png, .npz or .safetensors, got 'samples.jpg'.
    """
    extension = path.suffix.lower()
    if extension not in EXTENSIONS:
        known = ", ".join(EXTENSIONS[:-1])
        raise InvalidArgumentError(f"`out` must end in {known} or {EXTENSIONS[-1]}, got {str(path)!r}.")
    return extension


def write(path: Path, extension: str, samples: Samples) -> str:
    """Write the samples, completely or not at all.

    Returns:
        What was written, in words.
    """
    description = json.dumps(samples.metadata, ensure_ascii=False)
    buffer = io.BytesIO()
    shape = " x ".join(map(str, samples.x.shape))
    what = f"arrays, x is {shape}"
    if extension == PICTURE:
        from PIL.PngImagePlugin import PngInfo

        from ..plot import image_grid

        picture = image_grid(samples.x)
        info = PngInfo()
        info.add_itxt("scoresde", description)
        picture.save(buffer, format="PNG", pnginfo=info)
        what = f"picture, {picture.width} x {picture.height} pixels"
    else:
        import numpy as np

        arrays: dict[str, Any] = {
            "x": np.ascontiguousarray(samples.x.cpu().numpy()),
            "seeds": np.array(samples.seeds, dtype=np.uint64),
            "nfe": samples.nfe.cpu().numpy(),
        }
        if extension == ".npz":
            np.savez(buffer, metadata=np.array(description), **arrays)
        else:
            from safetensors.numpy import save

            buffer.write(save(arrays, metadata={"scoresde": description}))
    with buffer.getbuffer() as data:
        write_bytes(path, data)
    return what
