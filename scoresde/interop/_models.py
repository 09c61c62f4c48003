"""What the functions that make a score model of another library's network share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .. import grids
from ..core.errors import InvalidArgumentError
from ..core.sdes import AffineSDE, GaussianSDE, NormalPrior
from ..core.support.checks import check_interval, check_number
from ..grids import GridFunction
from ..scores import ScoreModel
from ..scores.conventions import check_score

Schedule = Callable[[Tensor], tuple[Tensor, Tensor]]


Data = Tensor | tuple[Tensor, Mapping[str, object]]


def described(
    model: ScoreModel,
    *,
    data_range: tuple[float, float] | None = None,
    grid: GridFunction | None = None,
    data: Data | None = None,
) -> ScoreModel:
    """A score model with the range of its data and the grid of its library's sampler, checked on data if there are any.

    Args:
        model: the model, which is changed.
        data_range, grid: its attributes.
        data: clean samples, or a pair of them and of their context.

    Raises:
        InvalidArgumentError: another convention fits the data better, or none does; see `scoresde.check_score`.

    Example:
        >>> model = scoresde.ScoreModel(lambda x, t: x, scoresde.VPSDE(), "noise")
        >>> described(model, data_range=(-1, 1), grid=scoresde.grids.time).data_range
        (-1.0, 1.0)
    """
    model.data_range = None if data_range is None else check_interval("data_range", data_range)
    model.grid = grid
    if data is not None:
        clean, context = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
        report = check_score(model.sde, model, clean, context=context)
        if not report.ok:
            raise InvalidArgumentError(f"`data`: {report.message}")
    return model


def number_of(name: str, source: Any, what: str, **limits: Any) -> float:
    """A number that is an attribute of another library's object.

    Args:
        name: of the attribute.
        source: the object.
        what: the name of the argument that it is.
        limits: of `scoresde.core.support.checks.check_number`.

    Example:
        >>> from types import SimpleNamespace
        >>> number_of("beta_0", SimpleNamespace(beta_0=0.1), "sde")
        0.1
    """
    if not hasattr(source, name):
        raise InvalidArgumentError(
            f"`{what}` must have the attribute {name}, and this {type(source).__name__} lacks it."
        )
    return check_number(f"{what}.{name}", getattr(source, name), **limits)


def process_of(
    schedule: Schedule, t_min: float, t_max: float, *known: AffineSDE, prior: NormalPrior | None = None
) -> AffineSDE:
    r"""The process of a schedule: the first of the known ones that has it, or else a `GaussianSDE`.

    Args:
        schedule: :math:`\alpha` and :math:`\sigma` as a function of a tensor of times.
        t_min, t_max: the interval.
        known: processes on the same interval.
        prior: of a `GaussianSDE`.

    Example:
        >>> flow = scoresde.FlowSDE(t_min=0.0, t_max=1.0)
        >>> process_of(lambda t: (1 - t, t), 0.0, 1.0, scoresde.VPSDE(), flow) is flow
        True
    """
    sde = GaussianSDE(_Part(schedule, 0), _Part(schedule, 1), t_min, t_max, prior=prior)
    return next((process for process in known if process.same_schedule(sde)), sde)


class _Part:
    """One of the two values of a schedule."""

    def __init__(self, schedule: Schedule, place: int) -> None:
        self.schedule = schedule
        self.place = place

    def __call__(self, t: Tensor) -> Tensor:
        return self.schedule(t)[self.place]


def whole_levels(sde: Any, t_start: float, t_end: float, steps: int) -> Tensor:
    """The grid of a chain's own sampler: levels evenly spaced in their position, rounded to whole ones.

    Example:
        >>> whole_levels(scoresde.discrete.BetaChain.linear().sde(), 999.0, 0.0, 4).tolist()
        [999.0, 749.0, 500.0, 250.0, 0.0]
    """
    times = grids.time(sde, t_start, t_end, steps)
    times[1:-1] = times[1:-1].round()
    return times
