"""Pictures of samples."""

from __future__ import annotations

import io
import math
import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._checks import MOST_DRAWS, check_finite_rows, check_integer, check_interval, check_state
from ..errors import InvalidArgumentError
from ..files.paths import check_path
from ..files.writing import check_target, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image


_SIDE = 32  # pixels that an event's shorter side gets at least
_LARGEST_SCALE = 4096
_GAP = 2  # pixels between events
_GAP_GREY = 96


def image_grid(
    x: Tensor,
    path: str | os.PathLike[str] | None = None,
    *,
    data_range: tuple[float, float] = (-1.0, 1.0),
    columns: int | None = None,
    scale: int | None = None,
) -> Image:
    """Show a batch of images as one picture, row by row.

    Values are clipped to ``data_range``, the lower end is black. NaN and infinity are refused before anything is cast:
    a cast would turn them into black.

    Args:
        x: ``(batch, 1, h, w)`` grey or ``(batch, 3, h, w)`` colour images, one or more.
        path: where to write the picture as PNG, completely or not at all.
        data_range: the values of black and white.
        columns: images per row; by default the grid is as square as it gets.
        scale: pixels per value's side; by default just enough for images of 32 pixels or more.

    Returns:
        The picture, a PIL image.

    Raises:
        NonFiniteError: an image has NaN or infinite values.
        InvalidArgumentError, InvalidTypeError: these are not images, or the other arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> picture = image_grid(torch.zeros(64, 1, 8, 8))
        >>> picture.mode, picture.size
        ('L', (270, 270))
    """
    check_state("x", x)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or 0 in x.shape:
        raise InvalidArgumentError(
            f"`x` must be images (batch, 1, h, w) or (batch, 3, h, w), at least one, got shape {tuple(x.shape)}."
        )
    low, high = check_interval("data_range", data_range)
    count, channels, height, width = x.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    columns = min(check_integer("columns", columns, low=1, high=MOST_DRAWS), count)
    scale = math.ceil(_SIDE / min(height, width)) if scale is None else scale
    scale = check_integer("scale", scale, low=1, high=_LARGEST_SCALE)
    target = None if path is None else check_target(check_path("path", path))
    x = x.detach()
    check_finite_rows("`x`", x, "leave them out with x[x.isfinite().flatten(1).all(1)]")
    unit = ((x.to("cpu", torch.float64) - low) / (high - low)).clamp(0.0, 1.0)
    grey = (255 * unit).round().to(torch.uint8)
    grey = grey.repeat_interleave(scale, 2).repeat_interleave(scale, 3)  # (count, channels, scale h, scale w)
    rows_, tall, wide = math.ceil(count / columns), height * scale + _GAP, width * scale + _GAP
    canvas = torch.full((channels, rows_ * tall - _GAP, columns * wide - _GAP), _GAP_GREY, dtype=torch.uint8)
    for i in range(count):
        top, left = i // columns * tall, i % columns * wide
        canvas[:, top : top + tall - _GAP, left : left + wide - _GAP] = grey[i]
    return _save(_picture(canvas), target)


def _picture(canvas: Tensor) -> Image:
    from PIL import Image

    array = canvas.movedim(0, -1).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def _save(picture: Image, target: os.PathLike[str] | None) -> Image:
    if target is not None:
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        write_bytes(target, buffer.getvalue())
    return picture
