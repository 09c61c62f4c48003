"""Figures of what was measured: work against precision, bits per dimension, the profile of a divergence."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.support.checks import as_tensor, check_integer, check_integers, check_kind
from ._figures import (
    BLUE,
    GREY,
    axes_for,
    check_figure_target,
    check_names,
    check_numbers,
    check_title,
    lines,
    plain_ticks,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BINS = 100_000


def work_precision(
    curves: Mapping[str, tuple[Tensor | Sequence[float], Tensor | Sequence[float]]],
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    orders: Sequence[int] = (),
    xlabel: str = "evaluations per sample",
    ylabel: str = "error",
    title: str = "",
) -> Axes:
    r"""Errors against the work that they cost, one curve per method, both axes logarithmic.

    Args:
        curves: the work and the errors of each method, by its name: two lists or tensors ``(n,)`` of positive numbers.
        path: where to write the figure as PNG, completely or not at all.
        ax: the axes to draw in; by default new ones.
        orders: orders of convergence whose slopes are drawn, such as ``(1, 2)``: grey lines :math:`\propto N^{-p}` from
            the point with the least work.
        xlabel, ylabel: what the work and the errors are.
        title: above the figure.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> ax = work_precision(
        ...     {"ddim": ([5, 10, 20], [0.2, 0.1, 0.05]), "heun": ([5, 10], [0.1, 0.02])}
        ... )
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['ddim', 'heun']
    """
    check_kind("curves", curves, Mapping, "a mapping of names to (work, errors)")
    known = {str(name): _curve(str(name), pair) for name, pair in curves.items()}
    if not known:
        raise InvalidArgumentError("`curves` must have at least one method.")
    slopes = check_integers("orders", orders, low=1, high=20)
    for name, text in (("xlabel", xlabel), ("ylabel", ylabel)):
        check_kind(name, text, str, "a string")
    target, title = check_figure_target(path), check_title(title)
    ax = axes_for(ax)
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel, title=title)
    plain_ticks(ax.xaxis)
    first = min(float(work[0]) for work, _ in known.values())
    last = max(float(work[-1]) for work, _ in known.values())
    worst = max(float(errors.max()) for _, errors in known.values())
    for order in slopes:
        least = worst * math.pow(first / last, order)
        ax.plot([first, last], [worst, least], color=GREY, linewidth=0.8, zorder=0)
        ax.annotate(f"order {order}", (last, least), color="0.4", fontsize="small")
    for (name, (work, errors)), style in zip(known.items(), lines(), strict=False):
        ax.plot(work.numpy(), errors.numpy(), label=name, markersize=4, linewidth=1.4, **style)
    ax.legend(frameon=False)
    save(ax.figure, target)
    return ax


def _curve(name: str, pair: object) -> tuple[Tensor, Tensor]:
    """The work and the errors of a method, in the order of the work."""
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise InvalidArgumentError(f"`curves[{name!r}]` must be two lists, the work and the errors.")
    parts = [
        check_numbers(f"curves[{name!r}][{i}]", as_tensor(f"curves[{name!r}][{i}]", part, torch.float64), 1)
        for i, part in enumerate(pair)
    ]
    if len(parts[0]) != len(parts[1]) or not all(bool((part > 0).all()) for part in parts):
        raise InvalidArgumentError(f"`curves[{name!r}]` must be two lists of one length, of positive numbers.")
    order = parts[0].argsort()
    return parts[0][order], parts[1][order]


def bits_histogram(
    bits: Tensor,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    errors: Tensor | None = None,
    bins: int | None = None,
    title: str = "",
) -> Axes:
    r"""A histogram of bits per dimension, with their mean and its standard error :math:`s/\sqrt n`.

    With ``errors``, every bin has an error bar: the mean and the standard deviation of the number of exact values in
    it, :math:`\sum_i p_i \pm (\sum_i p_i (1 - p_i))^{1/2}`, where :math:`p_i` is the probability that a normal
    distribution around value :math:`i` with its error as standard deviation gives to the bin.

    Args:
        bits: ``(n,)``, one per sample, finite.
        errors: ``(n,)``, the standard error of each value in the same units, such as
            ``likelihood.std_error / (dimensions * math.log(2))``; by default no error bars are drawn.
        path: where to write the figure as PNG, completely or not at all.
        ax: the axes to draw in; by default new ones.
        bins: the number of bins; by default :math:`\sqrt n`, from 5 to 50.
        title: above the figure.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: a value is NaN or infinite.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> ax = bits_histogram(torch.tensor([3.0, 3.2, 3.4]))
        >>> ax.get_legend().get_texts()[0].get_text()
        'mean 3.2000 ± 0.1155'
    """
    values = check_numbers("bits", bits, 1)
    count = len(values)
    spreads = None if errors is None else check_numbers("errors", errors, 1)
    if spreads is not None and (len(spreads) != count or bool((spreads < 0).any())):
        raise InvalidArgumentError(f"`errors` must be {count} numbers of at least 0, one for each of `bits`.")
    bins = min(max(math.ceil(math.sqrt(count)), 5), 50) if bins is None else bins
    bins = check_integer("bins", bins, low=1, high=_MOST_BINS)
    target, title = check_figure_target(path), check_title(title)
    mean = float(values.mean())
    error = float(values.std()) / math.sqrt(count) if count > 1 else math.nan
    ax = axes_for(ax)
    _, edges, _ = ax.hist(values.numpy(), bins=bins, color="0.75", edgecolor="0.5", linewidth=0.5)
    if spreads is not None:
        numbers, deviations = _bin_counts(values, spreads, torch.as_tensor(edges, dtype=torch.float64))
        middles = (edges[1:] + edges[:-1]) / 2
        ax.errorbar(middles, numbers.numpy(), deviations.numpy(), fmt=".", color="0.2", capsize=2, linewidth=1)
    label = f"mean {mean:.4f}" + (f" ± {error:.4f}" if count > 1 else "")
    ax.axvline(mean, color=BLUE, label=label)
    if count > 1:
        ax.axvspan(mean - error, mean + error, color=BLUE, alpha=0.25, linewidth=0)
    ax.set(xlabel="bits per dimension", ylabel=f"samples of {count}", title=title)
    ax.legend(frameon=False)
    save(ax.figure, target)
    return ax


def _bin_counts(values: Tensor, spreads: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the number of exact values in each bin."""
    means, variances = torch.zeros(2, len(edges) - 1, dtype=torch.float64)
    # Below each edge; a value without an error on an edge belongs to the bin that begins there, as in the histogram.
    below = torch.zeros_like(values)
    for i, edge in enumerate(edges):
        last = below
        exact = (values <= edge) if i == len(edges) - 1 else (values < edge)
        below = torch.where(spreads > 0, torch.special.ndtr((edge - values) / spreads), exact.double())
        if i:
            share = below - last
            means[i - 1], variances[i - 1] = share.sum(), (share * (1 - share)).sum()
    return means, variances.sqrt()


def divergence_profile(
    levels: Tensor,
    values: Tensor,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
) -> Axes:
    r"""Curves of how the divergence of the flow accumulates from the data (left) to the noise (right).

    Args:
        levels: log-SNR, ``(n,)``, strictly falling or rising: ``DensityProfile.log_snr``.
        values: :math:`\ln|\partial x_t/\partial x_0|` at each level, ``(samples, n)``: ``DensityProfile.log_det``.
        path: where to write the figure as PNG, completely or not at all.
        ax: the axes to draw in; by default new ones.
        names: one per sample, for the legend; by default there is none.
        title: above the figure.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: a value is NaN or infinite.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> ax = divergence_profile(
        ...     torch.tensor([8.0, 0.0, -8.0]), torch.tensor([[0.0, 4.0, 9.0]])
        ... )
        >>> len(ax.lines), ax.get_xlabel()
        (1, 'log-SNR, from data to noise')
    """
    x, y = check_numbers("levels", levels, 1), check_numbers("values", values, 2)
    if y.shape[1] != len(x):
        raise InvalidArgumentError(
            f"`values` must be (samples, {len(x)}), one column per level, got shape {tuple(y.shape)}."
        )
    rises = x.diff()
    if len(x) < 2 or not (bool((rises > 0).all()) or bool((rises < 0).all())):
        raise InvalidArgumentError("`levels` must be at least two, strictly falling or rising.")
    legend = check_names("names", names, len(y), "sample")
    target, title = check_figure_target(path), check_title(title)
    ax = axes_for(ax)
    for i, (curve, style) in enumerate(zip(y, lines(), strict=False)):
        label = None if legend is None else legend[i]
        ax.plot(x.numpy(), curve.numpy(), linewidth=1.2, label=label, **{**style, "marker": None})
    ax.set(xlabel="log-SNR, from data to noise", ylabel="accumulated divergence (nats)", title=title)
    ax.xaxis.set_inverted(True)
    if legend is not None:
        ax.legend(frameon=False)
    save(ax.figure, target)
    return ax
