"""Figures of errors, bounds and causes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.support.checks import check_kind, check_number, check_tensor
from ._figures import (
    BLUE,
    LARGEST,
    ORANGE,
    axes_for,
    check_figure_target,
    check_numbers,
    check_title,
    panels_for,
    plain_ticks,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def error_curves(
    errors: Tensor,
    ratios: Tensor,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Sequence[Axes] | None = None,
    distance: float | None = None,
    probability: float | None = None,
    unit: str = "",
    title: str = "",
) -> list[Axes]:
    """The errors of samples (left: the share of them that is larger), and how near they come to their bounds (right).

    Args:
        errors: of some samples, ``(n,)``.
        ratios: errors over bounds, of these or other samples, ``(m,)``.
        path: where to write the figure as PNG, completely or not at all.
        ax: the two axes to draw in; by default new ones.
        distance: the Prokhorov bound, in the unit of the errors; a point with that error and that share is drawn.
        probability: with which a new sample is within its bound, for the legend.
        unit: of the errors, for the label.
        title: above the left one of axes that are given, else above the figure.

    Returns:
        The two axes.

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: a value is NaN or infinite.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> both = error_curves(torch.tensor([0.1, 0.2, 0.4]), torch.tensor([0.2, 0.9]))
        >>> [ax.get_xlabel() for ax in both]
        ['error', 'error / bound']
    """
    sizes, shares = (check_numbers(key, v, 1).sort().values for key, v in (("errors", errors), ("ratios", ratios)))
    check_kind("unit", unit, str, "a string")
    known = None if distance is None else check_number("distance", distance, low=0.0, high=LARGEST)
    sure = None if probability is None else check_number("probability", probability, low=0.0, high=1.0)
    target, title = check_figure_target(path), check_title(title)
    left, right = panels_for(ax, 2, width=4.8)
    count = len(sizes)
    left.step(sizes.numpy(), 1 - torch.arange(count).numpy() / count, where="post", color=BLUE)
    if bool((sizes > 0).all()):
        left.set_xscale("log")
        plain_ticks(left.xaxis)
    if known is not None:
        left.plot([known], [known], "o", color=ORANGE, label=f"Prokhorov bound {known:.3g}")
        left.legend(frameon=False)
    left.set(xlabel=f"error ({unit})" if unit else "error", ylim=(0, 1.02))
    left.set_ylabel(f"share of {count} samples with a larger error")
    right.step(shares.numpy(), (1 + torch.arange(len(shares)).numpy()) / len(shares), where="post", color=BLUE)
    within = "bound" if sure is None else f"bound, holds with probability {sure:.3g}"
    right.axvline(1.0, color=ORANGE, label=within)
    right.legend(frameon=False, loc="lower right")
    right.set(xlabel="error / bound", ylabel=f"share of {len(shares)} samples with a smaller ratio", ylim=(0, 1.02))
    (left.set_title if ax is not None else left.figure.suptitle)(title)
    save(left.figure, target)
    return [left, right]


def cause_bars(
    names: Sequence[str],
    sizes: Tensor,
    limits: Sequence[str],
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    total: float | None = None,
    floor: float | None = None,
    title: str = "",
) -> Axes:
    """How much of the distance of samples to data each of several causes explains, as horizontal bars.

    Args:
        names: of the causes, from top to bottom.
        sizes: their distances, ``(n,)``; infinite ones fill the figure.
        limits: the names of those that limit the samples, which are coloured.
        path: where to write the figure as PNG, completely or not at all.
        ax: the axes to draw in; by default new ones.
        total: the distance of the samples to the data, as a line.
        floor: what chance alone reaches, as a grey area.
        title: above the figure.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: a value is NaN.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> ax = cause_bars(["steps", "network"], torch.tensor([0.5, 0.1]), ["steps"])
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['steps', 'network']
    """
    widths = check_tensor("sizes", sizes).detach().to("cpu").double()
    check_kind("names", names, Sequence, "strings")
    check_kind("limits", limits, Sequence, "names")
    if isinstance(names, str) or not names or widths.shape != (len(names),):
        raise InvalidArgumentError(f"`sizes` must have one entry for each of `names`, got {tuple(widths.shape)}.")
    total, floor = (
        None if v is None else check_number(key, v, low=0.0, high=LARGEST)
        for key, v in (("total", total), ("floor", floor))
    )
    known = [v for v in (*widths.tolist(), total, floor) if v is not None and math.isfinite(v)]
    widths = widths.nan_to_num(nan=math.nan, posinf=1.2 * max([*known, 1e-12]))
    check_numbers("sizes", widths, 1)
    target, title = check_figure_target(path), check_title(title)
    ax = axes_for(ax)
    limiting = list(limits)
    colours = [ORANGE if name in limiting else "0.7" for name in names]
    ax.barh(range(len(names)), widths.numpy(), color=colours)
    ax.set_yticks(range(len(names)), [str(name) for name in names])
    ax.yaxis.set_inverted(True)
    if floor is not None:
        ax.axvspan(0, floor, color="0.5", alpha=0.2, linewidth=0, label=f"chance alone: up to {floor:.3g}")
    if total is not None:
        ax.axvline(total, color="black", linewidth=1.0, label=f"samples to data: {total:.3g}")
    if total is not None or floor is not None:
        ax.legend(frameon=False, loc="lower right")
    ax.set(xlabel="distance explained (units of the data, per element)", title=title)
    save(ax.figure, target)
    return ax
