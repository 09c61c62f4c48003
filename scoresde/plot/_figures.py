"""What all figures share: colours, axes, checks, and files."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..core.errors import InvalidArgumentError, short
from ..core.support.checks import check_finite_rows, check_kind, check_tensor
from ..core.support.files.paths import check_path
from ..core.support.files.writing import check_target, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

# Okabe and Ito (2008), Color Universal Design. https://jfly.uni-koeln.de/color/
BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY)
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^vP"
DENSITY = "cividis"  # grows evenly in lightness, also for colour-blind people and in print
GREY = "0.6"
MISSING = "Figures need matplotlib: pip install 'scoresde[plot]'."
LARGEST = 1e100  # of which an axis has labels


def lines() -> Iterator[dict[str, Any]]:
    """How to draw one line after another."""
    styles = zip(itertools.cycle(COLOURS), itertools.cycle(DASHES), itertools.cycle(MARKERS), strict=False)
    for colour, dash, marker in styles:
        yield {"color": colour, "linestyle": dash, "marker": marker}


def plain_ticks(axis: Any) -> None:
    """Numbers such as 20 and 0.05 on a logarithmic axis, at 1, 2 and 5 times each power of ten."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def check_figure_target(path: str | os.PathLike[str] | None) -> os.PathLike[str] | None:
    """Return where to write a figure, or say why nothing can be written there."""
    return None if path is None else check_target(check_path("path", path))


def check_title(title: object) -> str:
    """Return a title, if it is one."""
    check_kind("title", title, str, "a string")
    return str(title)


def check_numbers(name: str, values: object, rank: int) -> Tensor:
    """Return finite numbers of a rank in float64 on the CPU, or say what is wrong with them."""
    values = check_tensor(name, values)
    if values.ndim != rank or not values.numel():
        raise InvalidArgumentError(f"`{name}` must have rank {rank} and entries, got shape {tuple(values.shape)}.")
    values = values.detach().to("cpu").double()
    check_finite_rows(f"`{name}`", values.reshape(len(values), -1), "leave failed samples out", rows="entries")
    return values


def new_figure(width: float = 6.4, height: float = 4.0, *, packed: bool = True, dpi: int = 150) -> Figure:
    """A figure with a canvas of its own; packed, it leaves no room beside its axes."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(MISSING) from error
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained" if packed else None)
    FigureCanvasAgg(figure)
    return figure


def axes_for(ax: Axes | None, *, width: float = 6.4, height: float = 4.0) -> Axes:
    """The axes that are given, or new ones."""
    if ax is None:
        return new_figure(width, height).subplots()
    try:
        from matplotlib.axes import Axes
    except ImportError as error:
        raise ImportError(MISSING) from error
    check_kind("ax", ax, Axes, "Matplotlib axes, such as those of matplotlib.pyplot.subplots()")
    return ax


def panels_for(ax: Sequence[Axes] | None, count: int, *, width: float = 3.2, height: float = 4.0) -> list[Axes]:
    """As many axes, side by side: those that are given, or new ones."""
    if ax is None:
        found = new_figure(width * count, height).subplots(1, count, squeeze=False)
        return list(found[0])
    check_kind("ax", ax, (Sequence, np.ndarray), f"{count} Matplotlib axes")
    given = list(np.asarray(ax, dtype=object).flat)
    if len(given) != count:
        raise InvalidArgumentError(f"`ax` must be {count} Matplotlib axes, got {len(given)}.")
    return [axes_for(one) for one in given]


def check_names(name: str, names: Sequence[str] | None, count: int, what: str) -> list[str] | None:
    """Return one string for each of what there is, or None, or say what is wrong with them."""
    if names is None:
        return None
    check_kind(name, names, Sequence, f"{count} strings")
    if isinstance(names, str) or len(names) != count or not all(isinstance(one, str) for one in names):
        raise InvalidArgumentError(f"`{name}` must be {count} strings, one per {what}, got {short(names)}.")
    return list(names)


def save(figure: Any, target: os.PathLike[str] | None) -> None:
    """Write a figure as PNG, completely or not at all."""
    if target is not None:
        write_bytes(target, as_png(figure))


def as_picture(figure: Any) -> Image:
    """A figure as a picture."""
    from PIL import Image

    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())


def as_png(figure: Any) -> bytes:
    """A figure as the bytes of a PNG file, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
