"""Data that commands read: arrays, images, the held-out digits; and how the model takes them."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import readable
from ..errors import InvalidArgumentError, NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = "digits"
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_FAR = 0.5  # of the model's range: what floating-point data may lie outside of it


@dataclass(frozen=True)
class Data:
    """Samples as they were read.

    Attributes:
        values: integer grey levels or floating-point numbers, ``(n, *event)``.
        names: of files, or indices.
        levels: the grey levels that the data's format has, None where it does not tell.
    """

    values: Tensor
    names: list[str]
    levels: int | None = None

    @property
    def digest(self) -> str:
        """Of the values and the names."""
        return digest([("names", "\n".join(self.names).encode()), ("values", self.values)])


@dataclass(frozen=True)
class Inputs:
    """Samples as the model takes them: integers are dequantised with the seed of each sample, floating-point numbers
    are in the model's range already.
    """

    values: Tensor
    levels: int | None
    data_range: tuple[float, float]

    def x(self, first: int, seeds: Sequence[int]) -> Tensor:
        """The samples from ``first`` on, one a seed, float32."""
        import torch

        from ..likelihood import dequantize

        rows = self.values[first : first + len(seeds)]
        if self.levels is None or rows.is_floating_point():
            return rows.to(torch.float32)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        kwargs: dict[str, Any] = {"levels": self.levels, "data_range": self.data_range, "dtype": torch.float32}
        return torch.stack([dequantize(v, generator=g, **kwargs) for v, g in zip(rows, generators, strict=True)])


def read(source: str, key: str | None = None) -> Data:
    """The data of a file, of a folder of images, or the held-out digits.

    Example:
        >>> read("missing.npz")
        Traceback (most recent call last):
        ...
        scoresde.errors.InvalidArgumentError: `data` 'missing.npz' cannot be read: No such file or directory.
        >>> read("digits").values.shape
        torch.Size([360, 1, 8, 8])
    """
    path = Path(source)
    reader = _ARRAYS.get(path.suffix.lower())
    if key is not None and (reader is None or source == DIGITS or path.is_dir()):
        raise InvalidArgumentError(f"`key` names an array of a file with several, but `data` is {source!r}.")
    if source == DIGITS:
        return _digits()
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise InvalidArgumentError(f"`data` {source!r} cannot be read: {os.strerror(errno.ENOENT)}.")
    if path.suffix.lower() in PICTURES:
        return Data(_image(path)[None], [_printable(path)], levels=256)
    if reader is None:
        known = ", ".join([*_ARRAYS, *PICTURES])
        raise InvalidArgumentError(f"`data` must end in one of {known}, or be a folder of images, got {source!r}.")
    with readable(path):
        values = _numbers(reader(path, key), path)
    if not len(values):
        raise InvalidArgumentError(f"`data` {source!r} holds no samples: its shape is {tuple(values.shape)}.")
    return Data(values, [str(i) for i in range(len(values))])


def check_events(data: Tensor, event: Sequence[int]) -> None:
    """Refuse samples that the model is not made for; they are never resized."""
    if tuple(data.shape[1:]) != tuple(event):
        raise InvalidArgumentError(
            f"`data` must have samples of shape {tuple(event)}, as the model, got samples of shape "
            f"{tuple(data.shape[1:])}, in all {tuple(data.shape)}."
        )


def prepare(data: Data, event: Sequence[int], levels: int | None, data_range: tuple[float, float]) -> Inputs:
    """The data as the model takes them, checked as a whole before the first evaluation.

    Example:
        >>> grey = Data(torch.arange(8).reshape(1, 2, 4), ["0"])
        >>> prepare(grey, (2, 4), 8, (-1.0, 1.0)).x(0, [5]).shape
        torch.Size([1, 2, 4])
        >>> prepare(grey, (2, 4), None, (-1.0, 1.0))
        Traceback (most recent call last):
        ...
        scoresde.errors.InvalidArgumentError: `levels` is missing: `data` are integers, 0 to 7; tell the number of ...
    """
    from ..likelihood.bits import cell

    values = data.values
    check_events(values, event)
    if data.levels is not None and levels is None:
        levels = data.levels
    cell(2 if levels is None else levels, data_range)
    low, high = (float(bound) for bound in data_range)
    least, most = values.min().item(), values.max().item()
    if not values.is_floating_point():
        if levels is None:
            raise InvalidArgumentError(
                f"`levels` is missing: `data` are integers, {least} to {most}; tell the number of grey levels, such as "
                f"--levels 256, or give floating-point data in the model's range."
            )
        if least < 0 or most >= levels:
            raise InvalidArgumentError(f"`data` must be grey levels 0 to {levels - 1}, got {least} to {most}.")
        return Inputs(values, levels, (low, high))
    bad = ~values.isfinite().flatten(1).all(1)
    if bool(bad.any()):
        rows = bad.nonzero()[:, 0].tolist()
        named = ", ".join(data.names[i] for i in rows[:5])
        raise NonFiniteError(
            f"`data` has NaN or infinite values in {len(rows)} of {len(values)} samples: {named}"
            f"{', ...' if len(rows) > 5 else ''}. Leave them out.",
            stage="input",
            indices=rows[:5],
        )
    if least < low - _FAR * (high - low) or most > high + _FAR * (high - low):
        raise InvalidArgumentError(
            f"`data` reach from {least:g} to {most:g}, far outside the model's range {low:g} to {high:g}. Grey levels "
            f"must be integers, with --levels; data of another range are told by --data-range LOW HIGH."
        )
    return Inputs(values, levels, (low, high))


def digest(parts: Sequence[tuple[str, bytes | Tensor]]) -> str:
    """SHA-256 of names, texts and tensors with their types and shapes.

    Example:
        >>> one, two = (digest([("a", torch.zeros(2, dtype=kind))]) for kind in (torch.int32, torch.int64))
        >>> one != two
        True
    """
    import torch

    total = hashlib.sha256()
    for name, value in parts:
        if isinstance(value, bytes):
            kind, content = "bytes", value
        else:
            kind = f"{value.dtype} {tuple(value.shape)}"
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        total.update(f"{name} {kind} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def _digits() -> Data:
    from ..training import digits_split

    try:
        images = digits_split().test_images
    except ImportError as error:
        raise InvalidArgumentError(f"`data`: {error} Or give a file.") from None
    return Data(images, [str(i) for i in range(len(images))], levels=17)


def _folder(folder: Path) -> Data:
    import torch

    with readable(folder):
        files = sorted((p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.is_dir()), key=_printable)
    if not files:
        raise InvalidArgumentError(f"`data`: the folder {str(folder)!r} holds no images ({', '.join(PICTURES)}).")
    images = [_image(path) for path in files]
    for path, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise InvalidArgumentError(
                f"`data` must be images of one shape, got {tuple(images[0].shape)} in {str(files[0])!r} and "
                f"{tuple(image.shape)} in {str(path)!r}."
            )
    return Data(torch.stack(images), [path.name for path in files], levels=256)


def _printable(path: Path) -> str:
    """The name of a file, if it can stand in a line of a table."""
    if not path.name.isprintable():
        raise InvalidArgumentError(f"`data`: the file name {path.name!r} cannot be printed; give it another one.")
    return path.name


def _image(path: Path) -> Tensor:
    """An 8-bit picture, grey or colour, as ``(channels, h, w)``."""
    import numpy as np
    import torch
    from PIL import Image

    with readable(path), Image.open(path) as picture:
        mode = picture.mode
        array = np.asarray(picture) if mode in ("L", "RGB") else None
    if array is None:
        raise InvalidArgumentError(
            f"`data` {str(path)!r} must be an 8-bit grey or colour image (PIL's modes L, RGB), got the mode {mode}."
        )
    return torch.from_numpy(array.copy()).reshape(*array.shape[:2], -1).movedim(-1, 0).contiguous()


def _npz(path: Path, key: str | None) -> Any:
    import numpy as np

    with path.open("rb") as file:
        content = np.load(file, allow_pickle=False)
        return content[_chosen(content.files, key, path)] if hasattr(content, "files") else _only(content, key, path)


def _safetensors(path: Path, key: str | None) -> Any:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.get_tensor(_chosen(list(file.keys()), key, path))


def _only(array: Any, key: str | None, path: Path) -> Any:
    if key is not None:
        raise InvalidArgumentError(f"`key` names an array of a file with several, but {str(path)!r} is a single one.")
    return array


def _chosen(names: list[str], key: str | None, path: Path) -> str:
    if key is not None:
        if key not in names:
            raise InvalidArgumentError(f"`key`: {str(path)!r} has no array {key!r}, it has {', '.join(names)}.")
        return key
    if "x" in names or len(names) == 1:
        return "x" if "x" in names else names[0]
    raise InvalidArgumentError(
        f"`data` {str(path)!r} must hold an array called x or one alone, or name it by --key; it has "
        f"{', '.join(names) or 'none'}."
    )


def _numbers(array: Any, path: Path) -> Tensor:
    """Integers in int64, floating-point numbers as they are; bytes in the order of this machine."""
    import numpy as np
    import torch

    kind = array.dtype.kind if isinstance(array, np.ndarray) else None
    if kind in ("i", "u", "f"):
        dtype = array.dtype.newbyteorder("=") if kind == "f" else "int64"
        array = torch.from_numpy(np.array(array, dtype=dtype, order="C"))
    if not isinstance(array, torch.Tensor) or array.is_complex() or array.dtype == torch.bool:
        raise InvalidArgumentError(
            f"`data` {str(path)!r} must be integer grey levels or floating-point numbers, got {array.dtype}."
        )
    if array.ndim < 2:
        raise InvalidArgumentError(
            f"`data` {str(path)!r} must be (samples, *event), got an array of shape {tuple(array.shape)}."
        )
    return array if array.is_floating_point() else array.to(torch.int64)


_ARRAYS: dict[str, Callable[[Path, str | None], Any]] = {".npz": _npz, ".npy": _npz, ".safetensors": _safetensors}
