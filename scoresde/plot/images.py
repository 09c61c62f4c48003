"""Pictures of images: grids, labelled tables, means and spreads, and animations."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.support.checks import (
    MOST_DRAWS,
    check_finite_rows,
    check_integer,
    check_interval,
    check_kind,
    check_positive,
    check_state,
)
from ..core.support.files.paths import check_path
from ..core.support.files.writing import check_target, write_bytes
from ._figures import DENSITY, axes_for, check_figure_target, check_names, check_title, panels_for, save
from ._film import check_film, write_film

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

_SIDE = 32  # pixels that an event's shorter side gets at least
_LARGEST_SCALE = 4096
_GAP = 2  # pixels between events
_GAP_GREY = 96
_INCHES = 0.55  # of an event in a table


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
    from PIL import Image  # takes long to import

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
    array = canvas.movedim(0, -1).contiguous().numpy()
    picture = Image.fromarray(array[..., 0] if channels == 1 else array)
    if target is not None:
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        write_bytes(target, buffer.getvalue())
    return picture


def image_animation(
    states: Sequence[Tensor],
    path: str | os.PathLike[str] | None = None,
    *,
    data_range: tuple[float, float] = (-1.0, 1.0),
    columns: int | None = None,
    scale: int | None = None,
    seconds: float = 4.0,
) -> list[Image]:
    """Show how a batch of images changes, each state as `image_grid` shows it.

    Args:
        states: batches of images of one shape, ``(batch, 1, h, w)`` or ``(batch, 3, h, w)``, one or more; such as
            ``info.x`` of a callback.
        path: where to write the animation, completely or not at all: as MP4 if the name ends in ``.mp4``, else as GIF.
        data_range, columns, scale: as those of `image_grid`.
        seconds: how long the states are shown in all, at most a minute per state; the last one then stands for half as
            long, and it begins again.

    Returns:
        The frames, PIL images.

    Raises:
        ImportError: imageio is missing, which writes MP4.
        NonFiniteError: an image has NaN or infinite values.
        InvalidArgumentError, InvalidTypeError: these are not images, or the other arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> frames = image_animation([torch.zeros(4, 1, 8, 8), torch.ones(4, 1, 8, 8)])
        >>> len(frames), frames[0].size
        (2, (66, 66))
    """
    check_kind("states", states, Sequence, "a list of tensors")
    if not states:
        raise InvalidArgumentError("`states` must have at least one batch of images.")
    shape = check_state("states[0]", states[0]).shape
    for i, state in enumerate(states):
        if check_state(f"states[{i}]", state).shape != shape:
            raise InvalidArgumentError(
                f"`states` must have one shape, got {tuple(shape)} and, at index {i}, {tuple(state.shape)}."
            )
    seconds = check_positive("seconds", seconds, high=60.0 * len(states))
    target = check_film(path)
    frames = [image_grid(state, data_range=data_range, columns=columns, scale=scale) for state in states]
    write_film(frames, target, seconds)
    return frames


def image_table(
    x: Tensor,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    title: str = "",
) -> Axes:
    """Images in rows and columns that have names.

    Args:
        x: ``(rows, columns, 1, h, w)`` grey or ``(rows, columns, 3, h, w)`` colour images.
        path: where to write the figure as PNG, completely or not at all.
        ax: the axes to draw in; by default new ones.
        rows, columns: the names, one for each.
        data_range: the values of black and white.
        title: above the figure.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: an image has NaN or infinite values.
        InvalidArgumentError, InvalidTypeError: these are not images, or the other arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> ax = image_table(torch.zeros(2, 3, 1, 8, 8), rows=["truth", "sample"])
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['truth', 'sample']
    """
    check_state("x", x)
    if x.ndim != 5 or x.shape[2] not in (1, 3) or 0 in x.shape:
        raise InvalidArgumentError(
            f"`x` must be images (rows, columns, 1, h, w) or (rows, columns, 3, h, w), got shape {tuple(x.shape)}."
        )
    down, across, _, height, width = x.shape
    left, above = check_names("rows", rows, down, "row"), check_names("columns", columns, across, "column")
    target, title = check_figure_target(path), check_title(title)
    scale = math.ceil(_SIDE / min(height, width))
    picture = image_grid(x.flatten(0, 1), data_range=data_range, columns=across, scale=scale)
    tall, wide = height * scale + _GAP, width * scale + _GAP
    ax = axes_for(ax, width=1.2 + _INCHES * across * width / height, height=0.5 + _INCHES * down)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set_yticks([tall * (i + 0.5) - 1.5 for i in range(down if left else 0)], left or [])
    ax.set_xticks([wide * (i + 0.5) - 1.5 for i in range(across if above else 0)], above or [])
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_title(title)
    save(ax.figure, target)
    return ax


def mean_and_spread(
    samples: Tensor,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Sequence[Axes] | None = None,
    truth: Tensor | None = None,
    measured: Tensor | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    title: str = "",
) -> list[Axes]:
    """What samples of one image have in common and where they differ: their mean and their standard deviation in each
    pixel, beside what was measured and the true image where they are given.

    Args:
        samples: ``(n, c, h, w)``, two or more, with c of 1 or 3.
        path: where to write the figure as PNG, completely or not at all.
        ax: the axes to draw in, one for each panel; by default new ones.
        truth, measured: images ``(c', h', w')`` with c' of 1 or 3, of any size.
        data_range: the values of black and white.
        title: beside the first of axes that are given, else above the figure.

    Returns:
        The axes of what was measured, truth, mean and standard deviation (of colours, their root mean square).

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: an image has NaN or infinite values.
        InvalidArgumentError, InvalidTypeError: these are not images, or the other arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> panels = mean_and_spread(torch.randn(10, 1, 8, 8, generator=generator))
        >>> [ax.get_title() for ax in panels]
        ['mean', 'standard deviation']
    """
    check_state("samples", samples)
    if samples.ndim != 4 or samples.shape[1] not in (1, 3) or 0 in samples.shape or len(samples) < 2:
        raise InvalidArgumentError(
            f"`samples` must be two images (n, 1, h, w) or (n, 3, h, w) or more, got shape {tuple(samples.shape)}."
        )
    check_finite_rows("`samples`", samples.detach(), "leave failed samples out")
    low, high = check_interval("data_range", data_range)
    shown: dict[str, Tensor] = {}
    for key, label, image in (("measured", "measured", measured), ("truth", "truth", truth)):
        if image is not None:
            shown[label] = check_state(key, image)
            if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
                raise InvalidArgumentError(f"`{key}` must be an image (1 or 3, h, w), got shape {tuple(image.shape)}.")
            check_finite_rows(f"`{key}`", image.detach()[None])
    values = samples.detach().to("cpu").double()
    shown["mean"] = values.mean(0)
    spread = values.var(0).mean(0).sqrt()
    target, title = check_figure_target(path), check_title(title)
    panels = panels_for(ax, len(shown) + 1, width=2.2, height=2.6)
    for (label, image), panel in zip(shown.items(), panels, strict=False):
        unit = ((image.detach().to("cpu").double() - low) / (high - low)).clamp(0.0, 1.0).movedim(0, -1)
        panel.imshow((unit[..., 0] if unit.shape[-1] == 1 else unit).numpy(), cmap="gray", vmin=0, vmax=1)
        panel.set_title(label)
    drawn = panels[-1].imshow(spread.numpy(), cmap=DENSITY, vmin=0)
    panels[-1].set_title("standard deviation")
    panels[-1].figure.colorbar(drawn, ax=panels[-1], fraction=0.05, pad=0.03)
    for panel in panels:
        panel.set(xticks=[], yticks=[])
    if title:
        name: Any = panels[0].set_ylabel if ax is not None else panels[0].figure.suptitle
        name(title)
    save(panels[0].figure, target)
    return panels
