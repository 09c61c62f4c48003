"""Files that commands write: a picture, a folder of pictures, or arrays, by the extension."""

from __future__ import annotations

import errno
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidArgumentError, OutputError
from ..core.support.files.writing import check_target, make_folder, write_bytes, write_together

if TYPE_CHECKING:
    from torch import Tensor

PICTURE = ".png"
ARRAYS = (".npz", ".safetensors")
FOLDER = "/"
EXTENSIONS = (PICTURE, *ARRAYS)
_RECORD = "samples.json"  # in a folder of pictures


def extension_of(path: str, allowed: Sequence[str], name: str = "out") -> str:
    """The format that a file name implies; a name that ends in a slash, or of a folder that is there, is a folder's.

    Example:
        >>> extension_of("samples.npz", ARRAYS), extension_of("pictures/", (PICTURE, FOLDER))
        ('.npz', '/')
        >>> extension_of("samples.jpg", EXTENSIONS)
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `out` must end in .png, .npz or .safetensors, got 'samples.jpg'.
    """
    folder = path.endswith(("/", os.sep)) or (path and not Path(path).suffix and Path(path).is_dir())
    extension = FOLDER if folder and FOLDER in allowed else Path(path).suffix.lower()
    if extension not in allowed:
        known = " or ".join(filter(None, (", ".join(allowed[:-1]), allowed[-1])))
        raise InvalidArgumentError(f"`{name}` must end in {known}, got {path!r}.")
    return extension


def check_output(path: str | Path, allowed: Sequence[str], *, force: bool, name: str = "out") -> tuple[Path, str]:
    """Where an output will be and its format, checked before the work.

    Args:
        path: as the user wrote it.
        allowed: the formats that the command has.
        force: whether what is there may be replaced.
        name: of the option.

    Raises:
        InvalidArgumentError: it has another format.
        OutputError: it cannot be written, or it is there.

    Example:
        >>> check_output("pictures/", [PICTURE, FOLDER], force=False)[1]
        '/'
    """
    extension = extension_of(str(path), allowed, name)
    inside = extension == FOLDER and Path(path).is_dir()
    target = check_target(Path(path, _RECORD) if inside else path)
    if not force and (any(target.parent.iterdir()) if inside else target.exists()):
        what = "folder is not empty" if inside else "file is there"
        raise OutputError(errno.EEXIST, f"The {what}; replace it by --force, or give another --{name}", str(path))
    return (target.parent if inside else target), extension


def check_animation(path: Path | None, allowed: Sequence[str], *, force: bool) -> Path | None:
    """Where an animation will be, checked before the work; None where none is wanted.

    Raises:
        InvalidArgumentError: it has another format, or what writes it is missing.
        OutputError: it cannot be written, or it is there.

    Example:
        >>> check_animation(None, [".gif"], force=False) is None
        True
    """
    if path is None:
        return None
    from ..plot._film import check_film

    target, _ = check_output(path, allowed, force=force, name="animate")
    try:
        return check_film(target)
    except ImportError as error:
        raise InvalidArgumentError(f"`animate`: {error}") from None


def check_plot(plot: Path | None) -> Path | None:
    """Where a figure will be, checked before the work; None where none is wanted.

    Raises:
        InvalidArgumentError: it has another format, or matplotlib is missing.
        OutputError: it cannot be written.

    Example:
        >>> check_plot(None) is None
        True
    """
    if plot is None:
        return None
    target, _ = check_output(plot, (PICTURE,), force=True, name="plot")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InvalidArgumentError("`plot` needs matplotlib: pip install 'scoresde[plot]'.") from None
    return target


def write(
    path: Path,
    extension: str,
    x: Tensor,
    arrays: dict[str, Any],
    metadata: dict[str, object],
    data_range: tuple[float, float],
    scale: int | None,
) -> str:
    """Write samples, completely or not at all: as one picture, as a picture each, or with other arrays.

    Args:
        path: of the file.
        extension: its format.
        x: the samples, ``(num, *event)``.
        arrays: what arrays have beside them.
        metadata: the command that made them.
        data_range: the values of black and white.
        scale: pixels per value's side, of pictures.

    Returns:
        What was written, in words.
    """
    if extension in ARRAYS:
        return write_arrays(path, extension, {"x": x, **arrays}, metadata)
    from ..plot import image_grid

    def picture(rows: Tensor, size: int | None, **more: object) -> tuple[bytes, str]:
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("scoresde", _described({**metadata, **more}))
        drawn = image_grid(rows, data_range=data_range, scale=size)
        buffer = io.BytesIO()
        drawn.save(buffer, format="PNG", pnginfo=info)
        return buffer.getvalue(), f"{drawn.width} x {drawn.height} pixels"

    if extension == FOLDER:
        return _write_folder(path, x, metadata, lambda i: picture(x[i : i + 1], scale or 1, index=i))
    content, size = picture(x, scale)
    write_bytes(path, content)
    return f"picture, {size}"


def _write_folder(
    folder: Path, x: Tensor, metadata: dict[str, object], picture: Callable[[int], tuple[bytes, str]]
) -> str:
    """Write a picture of each sample, and last a record of their names; pictures of an earlier record are removed."""
    width = max(5, len(str(len(x) - 1)))
    contents: dict[str | os.PathLike[str], bytes] = {}
    size = ""
    for i in range(len(x)):
        contents[folder / f"{i:0{width}d}{PICTURE}"], size = picture(i)
    record = folder / _RECORD
    names = [Path(path).name for path in contents]
    contents[record] = _described({"files": names, **metadata}).encode()
    earlier = _pictures_of(record)
    make_folder(folder)
    write_together(contents)
    for name in earlier - {*names}:
        (folder / name).unlink(missing_ok=True)
    return f"{len(x)} pictures, {size} each"


def _pictures_of(record: Path) -> set[str]:
    """The numbered pictures that an earlier command wrote; none if the file is not its record."""
    try:
        files = json.loads(record.read_bytes())["files"]
        return {name for name in files if re.fullmatch(rf"[0-9]{{5,}}\{PICTURE}", name)}
    except (OSError, ValueError, TypeError, LookupError):
        return set()


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
