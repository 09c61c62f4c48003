"""Figures of solves: the ways of samples, their density, the steps that they take, and the nodes of grids."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import AffineSDE
from ..core.solution import Solution
from ..core.support.checks import as_tensor, check_integer, check_integers, check_kind, check_positive
from ..grids import Grid
from ._figures import (
    BLUE,
    COLOURS,
    DENSITY,
    GREY,
    as_picture,
    axes_for,
    check_figure_target,
    check_numbers,
    check_title,
    lines,
    new_figure,
    plain_ticks,
    save,
)
from ._film import check_film, write_film

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

_MOST_LINES, _MOST_BINS = 10_000, 10_000


def trajectories(
    solution: Solution,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    sde: AffineSDE | None = None,
    dims: Sequence[int] | None = None,
    most: int = 50,
    title: str = "",
) -> Axes:
    """The ways of samples from noise to data: one element against the time, or two elements in their plane.

    Args:
        solution: of ``solve(..., save_at="steps")``, or at given times.
        path: where to write the figure as PNG, completely or not at all.
        ax: the axes to draw in; by default new ones.
        sde: the process; one element is then drawn against its log-SNR in place of the time.
        dims: one or two places in the flattened event; by default the first two, or the only one.
        most: the number of samples that are shown, the first ones of the batch.
        title: above the figure.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: a state is not finite.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> solution = scoresde.solve(
        ...     sde, target.score(sde), method="ddim", steps=5, shape=(3, 2), save_at="steps"
        ... )
        >>> len(trajectories(solution).lines)  # three ways, and their ends
        4
    """
    times, states = _saved(solution)
    shown = _dims(dims, states.shape[2])
    count = min(check_integer("most", most, low=1, high=_MOST_LINES), states.shape[1])
    clock, label = _clock(times[:, :count], sde)
    target, title = check_figure_target(path), check_title(title)
    ax = axes_for(ax)
    for i in range(count):
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linewidth": 0.9, "alpha": 0.7}
        ways = states[:, i, shown]
        if len(shown) == 1:
            ax.plot(clock[:, i].numpy(), ways[:, 0].numpy(), **style)
        else:
            ax.plot(ways[:, 0].numpy(), ways[:, 1].numpy(), **style)
    if len(shown) == 1:
        ax.set(xlabel=label, ylabel=_element(shown[0]), title=title)
        _noise_left(ax, clock)
    else:
        ends = states[-1, :count]
        ax.plot(*ends[:, shown].T.numpy(), "o", color="black", markersize=3, zorder=3)
        ax.set(xlabel=_element(shown[0]), ylabel=_element(shown[1]), title=title, aspect="equal")
    save(ax.figure, target)
    return ax


def density_evolution(
    solution: Solution,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    sde: AffineSDE | None = None,
    dim: int = 0,
    bins: int = 80,
    title: str = "",
) -> Axes:
    """How the density of one element changes from noise to data: a histogram at each saved time, as a map.

    Each time has its own scale, from none (dark) to the largest share in a bin (light), so that narrow and wide
    densities can be seen in one figure.

    Args:
        solution: of a solve with many samples, with ``save_at``; of an adaptive method at given times.
        path: where to write the figure as PNG, completely or not at all.
        ax: the axes to draw in; by default new ones.
        sde: the process; the states are then shown against its log-SNR in place of the time.
        dim: the place in the flattened event.
        bins: of each histogram.
        title: above the figure.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        NonFiniteError: a state is not finite.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(1), torch.eye(1))
        >>> sde = scoresde.VPSDE()
        >>> solution = scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method="ddim",
        ...     steps=5,
        ...     shape=(100, 1),
        ...     save_at="steps",
        ... )
        >>> density_evolution(solution).get_xlabel()
        'time, from noise to data'
    """
    times, states = _saved(solution)
    if not _together(times):
        raise InvalidArgumentError("`solution` must have the same times for all samples; pass save_at=times to solve.")
    (place,) = _dims([dim], states.shape[2])
    bins = check_integer("bins", bins, low=2, high=_MOST_BINS)
    clock, label = _clock(times[:, :1], sde)
    if len(clock) < 2:
        raise InvalidArgumentError("`solution` must have two saved times or more.")
    target, title = check_figure_target(path), check_title(title)
    values = states[:, :, place]
    low, high = float(values.min()), float(values.max())
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    counts = torch.stack([torch.histc(row, bins, low, high) for row in values])
    middles = clock[:, 0]
    between = 0.5 * (middles[1:] + middles[:-1])
    edges = torch.cat([middles[:1], between, middles[-1:]])
    ax = axes_for(ax)
    shares = counts / counts.amax(1, keepdim=True)
    heights = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    ax.pcolormesh(edges.numpy(), heights.numpy(), shares.T.numpy(), cmap=DENSITY, rasterized=True)
    ax.set(xlabel=label, ylabel=_element(place), title=title)
    _noise_left(ax, clock)
    save(ax.figure, target)
    return ax


def step_sizes(
    solution: Solution,
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    sde: AffineSDE | None = None,
    most: int = 6,
    title: str = "",
) -> Axes:
    r"""The steps that samples take, against where they take them: a point for each accepted step.

    Args:
        solution: of ``solve(..., save_at="steps")``; with an adaptive method each sample has steps of its own.
        path: where to write the figure as PNG, completely or not at all.
        ax: the axes to draw in; by default new ones.
        sde: the process; time and step are then those of its log-SNR.
        most: the number of samples that are shown, the first ones of the batch.
        title: above the figure.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> target = scoresde.targets.GaussianMixture(
        ...     torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=0.1
        ... )
        >>> sde = scoresde.VPSDE()
        >>> solution = scoresde.solve(
        ...     sde, target.score(sde), method="tsit5", shape=(3, 1), save_at="steps", seed=0
        ... )
        >>> ax = step_sizes(solution, sde=sde)
        >>> len(ax.lines), ax.get_ylabel()
        (3, 'step of the log-SNR')
    """
    times, states = _saved(solution)
    count = min(check_integer("most", most, low=1, high=_MOST_LINES), states.shape[1])
    clock, label = _clock(times[:, :count], sde)
    target, title = check_figure_target(path), check_title(title)
    ax = axes_for(ax)
    alone = _together(times)
    for i, style in zip(range(1 if alone else count), lines(), strict=False):
        sizes = clock[:, i].diff().abs()
        moved = sizes > 0  # not the steps of others
        name = "all samples" if alone and states.shape[1] > 1 else f"sample {i}"
        ax.plot(clock[:-1, i][moved].numpy(), sizes[moved].numpy(), label=name, markersize=3, linewidth=0.9, **style)
    ax.set(xlabel=label, yscale="log", title=title)
    plain_ticks(ax.yaxis)
    ax.set_ylabel("step of the time" if sde is None else "step of the log-SNR")
    _noise_left(ax, clock)
    ax.legend(frameon=False)
    save(ax.figure, target)
    return ax


def grid_nodes(
    grids: Mapping[str, Grid | Tensor | Sequence[float]],
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    sde: AffineSDE | None = None,
    title: str = "",
) -> Axes:
    """Where grids have their nodes: a row of points for each grid.

    Args:
        grids: the times of each grid, by its name: a `Grid`, or times ``(n,)``.
        path: where to write the figure as PNG, completely or not at all.
        ax: the axes to draw in; by default new ones.
        sde: the process; the nodes are then shown at its log-SNR in place of the time.
        title: above the figure.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is missing.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> ax = grid_nodes({"even": torch.linspace(1.0, 0.0, 6), "given": [1.0, 0.3, 0.0]})
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['even', 'given']
    """
    check_kind("grids", grids, Mapping, "a mapping of names to times")
    if not grids:
        raise InvalidArgumentError("`grids` must have at least one grid.")
    rows: dict[str, Tensor] = {}
    label = ""
    for key, given in grids.items():
        name, times = str(key), given.times if isinstance(given, Grid) else given
        whole = check_numbers(f"grids[{name!r}]", as_tensor(f"grids[{name!r}]", times, torch.float64), 1)
        clock, label = _clock(whole[:, None], sde)
        rows[name] = clock[:, 0]
    target, title = check_figure_target(path), check_title(title)
    ax = axes_for(ax, height=max(1.6, 0.8 + 0.35 * len(rows)))
    for i, (clock, style) in enumerate(zip(rows.values(), lines(), strict=False)):
        ax.axhline(i, color="0.9", linewidth=0.8, zorder=0)
        ax.plot(clock.numpy(), torch.full_like(clock, i).numpy(), markersize=4, **{**style, "linestyle": "none"})
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5), title=title)
    _noise_left(ax, torch.cat(list(rows.values()))[:, None], down=all(v[0] > v[-1] for v in rows.values()))
    save(ax.figure, target)
    return ax


def point_animation(
    solution: Solution,
    path: str | os.PathLike[str] | None = None,
    *,
    dims: Sequence[int] | None = None,
    behind: Tensor | None = None,
    seconds: float = 4.0,
    frames: int = 60,
) -> list[Image]:
    """How samples move from noise to data in the plane of two elements.

    Args:
        solution: of ``solve(..., save_at="steps")``, or at given times.
        path: where to write the animation, completely or not at all: as MP4 if the name ends in ``.mp4``, else as GIF.
        dims: two places in the flattened event; by default the first two.
        behind: points that stay, ``(n, 2)``, such as data, in grey.
        seconds: how long it takes; the last frame then stands for half as long, and it begins again.
        frames: the largest number of frames; of more saved states some are left out, evenly.

    Returns:
        The frames, PIL images.

    Raises:
        ImportError: matplotlib is missing, or imageio, which writes MP4.
        NonFiniteError: a state is not finite.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> solution = scoresde.solve(
        ...     sde, target.score(sde), method="ddim", steps=2, shape=(9, 2), save_at="steps"
        ... )
        >>> len(point_animation(solution))
        3
    """
    times, states = _saved(solution)
    shown = _dims(dims, states.shape[2], least=2)
    still = None if behind is None else check_numbers("behind", behind, 2)
    if still is not None and still.shape[1] != 2:
        raise InvalidArgumentError(f"`behind` must be points (n, 2), got shape {tuple(still.shape)}.")
    seconds = check_positive("seconds", seconds, high=60.0 * len(states))
    most = check_integer("frames", frames, low=2, high=_MOST_LINES)
    target = check_film(path)
    chosen = torch.linspace(0, len(states) - 1, min(most, len(states))).round().long().tolist()
    points = states[:, :, shown]
    seen = points if still is None else torch.cat([points.flatten(0, 1), still])[None]
    low, high = seen.amin((0, 1)), seen.amax((0, 1))
    room = 0.05 * (high - low) + 1e-6
    figure = new_figure(4.0, 4.0, packed=False, dpi=100)
    ax = figure.subplots()
    (left, bottom), (right, top) = (low - room).tolist(), (high + room).tolist()
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    if still is not None:
        ax.plot(*still.T.numpy(), "o", color=GREY, alpha=0.5, markersize=1.5)
    (moving,) = ax.plot([], [], "o", color=BLUE, markersize=2)
    pictures = []
    for i in chosen:
        moving.set_data(*points[i].T.numpy())
        ax.set_title(f"t = {float(times[i].min()):.3f}")
        pictures.append(as_picture(figure))
    write_film(pictures, target, seconds)
    return pictures


def _saved(solution: object) -> tuple[Tensor, Tensor]:
    """The saved times, ``(n, batch)``, and states, ``(n, batch, elements)``, of a solve."""
    check_kind("solution", solution, Solution, "what scoresde.solve returns")
    if not isinstance(solution, Solution) or solution.xs is None or solution.ts is None or not len(solution.xs):
        raise InvalidArgumentError('`solution` has no saved states; pass save_at="steps" or times to solve.')
    states = check_numbers("solution.xs", solution.xs.flatten(2), 3)
    times = solution.ts.double()
    return (times if times.ndim == 2 else times[:, None].expand(states.shape[:2])), states


def _together(times: Tensor) -> bool:
    """Whether all samples have the same times."""
    return bool((times == times[:, :1]).all())


def _dims(dims: Sequence[int] | None, size: int, least: int = 1) -> list[int]:
    """The elements that are shown."""
    chosen = tuple(range(min(2, size))) if dims is None else check_integers("dims", dims, low=0, high=size - 1)
    if not least <= len(chosen) <= 2:
        wanted = "two places" if least == 2 else "one or two places"
        raise InvalidArgumentError(f"`dims` must be {wanted} in an event of {size} elements, got {list(chosen)}.")
    return list(chosen)


def _clock(times: Tensor, sde: AffineSDE | None) -> tuple[Tensor, str]:
    """What stands for the time, and its label."""
    if sde is None:
        return times, "time, from noise to data"
    check_kind("sde", sde, AffineSDE, "a process that has a log-SNR")
    levels = sde.log_snr(times.flatten()).reshape(times.shape)
    if not bool(levels.isfinite().all()):
        raise InvalidArgumentError("`sde` has an infinite log-SNR at a time of the solve; leave `sde` out.")
    return levels, "log-SNR, from noise to data"


def _noise_left(ax: Axes, clock: Tensor, down: bool | None = None) -> None:
    """Turn the axis of the time so that noise is on the left."""
    falls = float(clock[0].max()) > float(clock[-1].min()) if down is None else down
    ax.xaxis.set_inverted(falls)


def _element(place: int) -> str:
    return f"$x_{{{place}}}$"
