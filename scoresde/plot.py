"""Pictures of samples, and figures of likelihoods, drawn by matplotlib without its global state."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ._checks import (
    MOST_DRAWS,
    check_finite_rows,
    check_integer,
    check_interval,
    check_kind,
    check_number,
    check_positive,
    check_state,
    check_tensor,
)
from .errors import InvalidArgumentError, short
from .files.paths import check_path
from .files.writing import check_target, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = [
    "bits_histogram",
    "cause_bars",
    "divergence_profile",
    "error_curves",
    "image_animation",
    "image_grid",
]

_SIDE = 32  # pixels that an event's shorter side gets at least
_LARGEST_SCALE = 4096
_GAP = 2  # pixels between events
_GAP_GREY = 96
_MOST_BINS = 100_000
_LARGEST = 1e100  # of which an axis has labels


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
        path: where to write the animation as GIF, completely or not at all.
        data_range, columns, scale: as those of `image_grid`.
        seconds: how long the states are shown in all, at most a minute per state; the last one then stands for half as
            long, and it begins again.

    Returns:
        The frames, PIL images.

    Raises:
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
    target = None if path is None else check_target(check_path("path", path))
    frames = [image_grid(state, data_range=data_range, columns=columns, scale=scale) for state in states]
    if target is not None:
        each = max(20, round(1000 * seconds / len(frames)))  # milliseconds; viewers slow down what is shorter
        buffer = io.BytesIO()
        times = [each] * (len(frames) - 1) + [each + round(500 * seconds)]
        frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
        write_bytes(target, buffer.getvalue())
    return frames


def bits_histogram(
    bits: Tensor, path: str | os.PathLike[str] | None = None, *, bins: int | None = None, title: str = ""
) -> Figure:
    r"""A histogram of bits per dimension, with their mean and its standard error :math:`s/\sqrt n`.

    Args:
        bits: ``(n,)``, one per sample, finite.
        path: where to write the figure as PNG, completely or not at all.
        bins: the number of bins; by default :math:`\sqrt n`, from 5 to 50.
        title: above the figure.

    Returns:
        The figure, a `matplotlib.figure.Figure` not registered with pyplot.

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: a value is NaN or infinite.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> figure = bits_histogram(torch.tensor([3.0, 3.2, 3.4]))
        >>> figure.axes[0].get_legend().get_texts()[0].get_text()
        'mean 3.2000 ± 0.1155'
    """
    values = _numbers("bits", bits, 1)
    check_kind("title", title, str, "a string")
    count = len(values)
    bins = min(max(math.ceil(math.sqrt(count)), 5), 50) if bins is None else bins
    bins = check_integer("bins", bins, low=1, high=_MOST_BINS)
    target = None if path is None else check_target(check_path("path", path))
    mean = float(values.mean())
    error = float(values.std()) / math.sqrt(count) if count > 1 else math.nan
    figure, axes = _new_figure()
    axes.hist(values.numpy(), bins=bins, color="0.75", edgecolor="0.5", linewidth=0.5)
    label = f"mean {mean:.4f}" + (f" ± {error:.4f}" if count > 1 else "")
    axes.axvline(mean, color="tab:blue", label=label)
    if count > 1:
        axes.axvspan(mean - error, mean + error, color="tab:blue", alpha=0.25, linewidth=0)
    axes.set(xlabel="bits per dimension", ylabel=f"samples of {count}", title=title)
    axes.legend(frameon=False)
    return _save(figure, target)


def divergence_profile(
    levels: Tensor,
    values: Tensor,
    path: str | os.PathLike[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    r"""Curves of how the divergence of the flow accumulates from the data (left) to the noise (right).

    Args:
        levels: log-SNR, ``(n,)``, strictly falling or rising: ``DensityProfile.log_snr``.
        values: :math:`\ln|\partial x_t/\partial x_0|` at each level, ``(samples, n)``: ``DensityProfile.log_det``.
        path: where to write the figure as PNG, completely or not at all.
        names: one per sample, for the legend; by default there is none.
        title: above the figure.

    Returns:
        The figure, a `matplotlib.figure.Figure` not registered with pyplot.

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: a value is NaN or infinite.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> figure = divergence_profile(
        ...     torch.tensor([8.0, 0.0, -8.0]), torch.tensor([[0.0, 4.0, 9.0]])
        ... )
        >>> len(figure.axes[0].lines), figure.axes[0].get_xlabel()
        (1, 'log-SNR, from data to noise')
    """
    x, y = _numbers("levels", levels, 1), _numbers("values", values, 2)
    check_kind("title", title, str, "a string")
    if y.shape[1] != len(x):
        raise InvalidArgumentError(
            f"`values` must be (samples, {len(x)}), one column per level, got shape {tuple(y.shape)}."
        )
    steps = x.diff()
    if len(x) < 2 or not (bool((steps > 0).all()) or bool((steps < 0).all())):
        raise InvalidArgumentError("`levels` must be at least two, strictly falling or rising.")
    if names is not None:
        check_kind("names", names, Sequence, f"{len(y)} strings")
    if names is not None and (isinstance(names, str) or len(names) != len(y)):
        raise InvalidArgumentError(f"`names` must be {len(y)} strings, one per sample, got {short(names)}.")
    target = None if path is None else check_target(check_path("path", path))
    figure, axes = _new_figure()
    for i, curve in enumerate(y):
        axes.plot(x.numpy(), curve.numpy(), linewidth=1.2, label=None if names is None else str(names[i]))
    axes.set(xlabel="log-SNR, from data to noise", ylabel="accumulated divergence (nats)", title=title)
    axes.invert_xaxis()
    if names is not None:
        axes.legend(frameon=False)
    return _save(figure, target)


def error_curves(
    errors: Tensor,
    ratios: Tensor,
    path: str | os.PathLike[str] | None = None,
    *,
    distance: float | None = None,
    probability: float | None = None,
    unit: str = "",
    title: str = "",
) -> Figure:
    """The errors of samples (left: the share of them that is larger), and how near they come to their bounds (right).

    Args:
        errors: of some samples, ``(n,)``.
        ratios: errors over bounds, of these or other samples, ``(m,)``.
        path: where to write the figure as PNG, completely or not at all.
        distance: the Prokhorov bound, in the unit of the errors; a point with that error and that share is drawn.
        probability: with which a new sample is within its bound, for the legend.
        unit: of the errors, for the label.
        title: above the figure.

    Returns:
        The figure, a `matplotlib.figure.Figure` not registered with pyplot.

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: a value is NaN or infinite.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> figure = error_curves(torch.tensor([0.1, 0.2, 0.4]), torch.tensor([0.2, 0.9]))
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['error', 'error / bound']
    """
    sizes, shares = _numbers("errors", errors, 1).sort().values, _numbers("ratios", ratios, 1).sort().values
    check_kind("title", title, str, "a string")
    check_kind("unit", unit, str, "a string")
    known = None if distance is None else check_number("distance", distance, low=0.0, high=_LARGEST)
    sure = None if probability is None else check_number("probability", probability, low=0.0, high=1.0)
    target = None if path is None else check_target(check_path("path", path))
    figure, (left, right) = _new_figure(2)
    count = len(sizes)
    left.step(sizes.numpy(), 1 - torch.arange(count).numpy() / count, where="post", color="tab:blue")
    if bool((sizes > 0).all()):
        left.set_xscale("log")
    if known is not None:
        left.plot([known], [known], "o", color="tab:red", label=f"Prokhorov bound {known:.3g}")
        left.legend(frameon=False)
    left.set(xlabel=f"error ({unit})" if unit else "error", ylim=(0, 1.02))
    left.set_ylabel(f"share of {count} samples with a larger error")
    right.step(shares.numpy(), (1 + torch.arange(len(shares)).numpy()) / len(shares), where="post", color="tab:blue")
    within = "bound" if sure is None else f"bound, holds with probability {sure:.3g}"
    right.axvline(1.0, color="tab:red", label=within)
    right.legend(frameon=False, loc="lower right")
    right.set(xlabel="error / bound", ylabel=f"share of {len(shares)} samples with a smaller ratio", ylim=(0, 1.02))
    figure.suptitle(title)
    return _save(figure, target)


def cause_bars(
    names: Sequence[str],
    sizes: Tensor,
    limits: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    *,
    total: float | None = None,
    floor: float | None = None,
    title: str = "",
) -> Figure:
    """How much of the distance of samples to data each of several causes explains, as horizontal bars.

    Args:
        names: of the causes, from top to bottom.
        sizes: their distances, ``(n,)``; infinite ones fill the figure.
        limits: the names of those that limit the samples, which are coloured.
        path: where to write the figure as PNG, completely or not at all.
        total: the distance of the samples to the data, as a line.
        floor: what chance alone reaches, as a grey area.
        title: above the figure.

    Returns:
        The figure, a `matplotlib.figure.Figure` not registered with pyplot.

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: a value is NaN.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> figure = cause_bars(["steps", "network"], torch.tensor([0.5, 0.1]), ["steps"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['steps', 'network']
    """
    widths = check_tensor("sizes", sizes).detach().to("cpu", torch.float64)
    check_kind("names", names, Sequence, "strings")
    check_kind("limits", limits, Sequence, "names")
    check_kind("title", title, str, "a string")
    if isinstance(names, str) or not names or widths.shape != (len(names),):
        raise InvalidArgumentError(f"`sizes` must have one entry for each of `names`, got {tuple(widths.shape)}.")
    total, floor = (
        None if v is None else check_number(key, v, low=0.0, high=_LARGEST)
        for key, v in (("total", total), ("floor", floor))
    )
    known = [v for v in (*widths.tolist(), total, floor) if v is not None and math.isfinite(v)]
    widths = widths.nan_to_num(nan=math.nan, posinf=1.2 * max([*known, 1e-12]))
    _numbers("sizes", widths, 1)
    target = None if path is None else check_target(check_path("path", path))
    figure, axes = _new_figure()
    limiting = list(limits)
    colours = ["tab:red" if name in limiting else "0.7" for name in names]
    axes.barh(range(len(names)), widths.numpy(), color=colours)
    axes.set_yticks(range(len(names)), [str(name) for name in names])
    axes.invert_yaxis()
    if floor is not None:
        axes.axvspan(0, floor, color="0.5", alpha=0.2, linewidth=0, label=f"chance alone: up to {floor:.3g}")
    if total is not None:
        axes.axvline(total, color="black", linewidth=1.0, label=f"samples to data: {total:.3g}")
    if total is not None or floor is not None:
        axes.legend(frameon=False, loc="lower right")
    axes.set(xlabel="distance explained (units of the data, per element)", title=title)
    return _save(figure, target)


def _numbers(name: str, values: object, rank: int) -> Tensor:
    values = check_tensor(name, values)
    if values.ndim != rank or not values.numel():
        raise InvalidArgumentError(f"`{name}` must have rank {rank} and entries, got shape {tuple(values.shape)}.")
    values = values.detach().to("cpu", torch.float64)
    check_finite_rows(f"`{name}`", values.reshape(len(values), -1), "leave failed samples out", rows="entries")
    return values


def _new_figure(panels: int = 1) -> tuple[Figure, Any]:
    """A figure with a canvas of its own, and its axes, side by side."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Figures need matplotlib: pip install 'scoresde[plot]'.") from error
    figure = Figure(figsize=(6.4 + 3.2 * (panels - 1), 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels)


def _save(figure: Figure, target: os.PathLike[str] | None) -> Figure:
    if target is not None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        write_bytes(target, buffer.getvalue())
    return figure
