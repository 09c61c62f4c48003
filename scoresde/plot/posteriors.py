"""Figures of posteriors."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.support.checks import check_tensor
from ._figures import COLOURS, check_figure_target, check_names, check_numbers, check_title, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PANELS = 20


def corner(
    samples: Tensor | Mapping[str, Tensor],
    path: str | os.PathLike[str] | None = None,
    *,
    truth: Tensor | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
    **options: object,
) -> list[list[Axes]]:
    """The marginals of samples in one and two dimensions, by the library corner.

    Args:
        samples: ``(n, d)`` with n > d, or several of them by name, which are drawn over each other.
        path: where to write the figure as PNG, completely or not at all.
        truth: the parameters that made the observation, ``(d,)``, as lines.
        names: one per parameter.
        title: above the figure.
        **options: of ``corner.corner``, but for its ``fig``.

    Returns:
        The axes, d rows of d.

    Raises:
        ImportError: matplotlib or corner is missing.
        NonFiniteError: a value is NaN or infinite.
        InvalidArgumentError, InvalidTypeError: the arguments do not fit.
        OutputError: the file cannot be written.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> rows = corner(torch.randn(500, 2, generator=generator), names=["mass", "age"])
        >>> [ax.get_xlabel() for ax in rows[-1]]
        ['mass', 'age']

    References:
        Foreman-Mackey (2016), corner.py: Scatterplot matrices in Python. https://doi.org/10.21105/joss.00024
    """
    several = samples if isinstance(samples, Mapping) else {"": samples}
    if not several:
        raise InvalidArgumentError("`samples` must have at least one set.")
    sets = {
        str(key): check_numbers(f"samples[{key!r}]" if key else "samples", value, 2) for key, value in several.items()
    }
    size = next(iter(sets.values())).shape[1]
    for key, value in sets.items():
        if value.shape[1] != size or len(value) <= size:
            raise InvalidArgumentError(
                f"`samples`{f' of {key!r}' if key else ''} must be (n, {size}) with n > {size}, got "
                f"{tuple(value.shape)}."
            )
    if size > _MOST_PANELS:
        raise InvalidArgumentError(f"`samples` has {size} columns; choose at most {_MOST_PANELS}, as samples[:, :5].")
    true = None if truth is None else check_numbers("truth", check_tensor("truth", truth), 1)
    if true is not None and len(true) != size:
        raise InvalidArgumentError(f"`truth` must be ({size},), got shape {tuple(true.shape)}.")
    labels = check_names("names", names, size, "parameter")
    target, title = check_figure_target(path), check_title(title)
    figure = new_figure(1.0 + 1.8 * size, 1.0 + 1.8 * size, packed=False)
    try:
        from corner import corner as draw
    except ImportError as error:
        raise ImportError("This figure needs corner: pip install 'scoresde[plot]'.") from error
    low, high = np.quantile(torch.cat(list(sets.values())).numpy(), (0.001, 0.999), axis=0)
    room = np.maximum(0.05 * (high - low), 1e-6 * np.maximum(abs(low), abs(high))) + 1e-9
    given: dict[str, Any] = {
        "range": list(zip((low - room).tolist(), (high + room).tolist(), strict=True)),
        "labels": labels,
        "truths": None if true is None else true.numpy(),
        "truth_color": "black",
        "plot_datapoints": len(sets) == 1,
        **options,
    }
    for (key, value), colour in zip(sets.items(), itertools.cycle(COLOURS), strict=False):
        own = {"color": colour, **given, "fig": figure}
        bars: Any = given.get("hist_kwargs", {})
        draw(value.numpy(), **{**own, "hist_kwargs": {"density": True, "color": own["color"], **bars}})
        if key:
            figure.axes[0].plot([], [], color=colour, label=key)
    if len(sets) > 1:
        figure.legend(frameon=False, loc="upper right")
    figure.suptitle(title)
    save(figure, target)
    panels = figure.axes
    return [list(panels[row * size : (row + 1) * size]) for row in range(size)]
