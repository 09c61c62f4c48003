"""Grids with a method, made for one process and a number of steps: what is kept of a fit, and its file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from .. import grids
from ..core.errors import CorruptCheckpointError, InvalidArgumentError
from ..core.sdes import AffineSDE
from ..core.sdes.base import check_affine
from ..core.support.files.paths import check_path
from ..core.support.files.writing import write_bytes
from ..grids import Grid
from ..solvers import from_config
from ..solvers.learned import Learned
from ..solvers.registry.config import to_text

FORMAT = 1
Record = TypeVar("Record", bound="FittedGrid")
_SAME_LEVEL = 1e-6  # relative, of log-SNRs


@dataclass(frozen=True)
class PilotErrors:
    """The error of a pilot, or of its held-out half: RMS over dimensions per sample, then RMS and median over samples.

    Args:
        rms, median: of the distances between the end points and the exact ones. The end points of a method that draws
            noise are not those of the exact paths, however good its samples are; compare its ``distance``.
        distance, distance_error: the energy distance of the samples to the exact ones and its standard error, where
            `tune` compared distributions. It is an estimate without bias, so that it may be negative.

    Example:
        >>> PilotErrors(rms=0.2, median=0.1).median
        0.1
    """

    rms: float
    median: float
    distance: float | None = None
    distance_error: float | None = None


@dataclass(frozen=True)
class Cost:
    """The cost of a fit.

    Args:
        calls: calls of the score function, those repeated to save memory included.
        gradients: how many of them were differentiated.
        pilots: the same work in calls on the whole pilot batch, a gradient counted as two.

    Example:
        >>> Cost(calls=10, gradients=0, pilots=5.0).pilots
        5.0
    """

    calls: int
    gradients: int
    pilots: float


@dataclass(frozen=True)
class FittedGrid(Grid):
    """A grid that `fit_grid` made, for ``grid=`` of `solve`; it refuses processes other than its own.

    Args:
        times: from the start to the end of the solve.
        name: a name for it.
        method: the method that it was fitted for, as text, which ``method="auto"`` takes; other methods run on it
            too, usually with less gain.
        process: the process, as text.
        context: the names of what the score function of the fit received besides x and t, passed or bound; None where
            they are not known. A solve with other names gives a warning.
        prediction: what the network of the fit predicts, as `scoresde.ScoreModel.prediction`, or "" where it is not
            known. A solve with another one gives a warning.
        from_noise: whether the states at ``t_max`` are scaled to the first time, as noise is, before the first step.
        data_scale: the scale of the data, by which such states are scaled: their standard deviation to the nearest
            power of ten, if the score function of the fit declared one; None for 1.
        from_given: whether it begins at a ``t_start`` that was given, with states that are not noise from ``t_max``.
        log_snr: the log-SNR of the process at the times, which identifies it.
        fitted, default: the held-out `PilotErrors` on this grid and on the default one.
        cost: what the fit took.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
        >>> sde = scoresde.VPSDE()
        >>> grid = scoresde.fit_grid(sde, target.score(sde), 4, pilot=8, iterations=20)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     grid.save(Path(folder, "grid.json"))
        ...     FittedGrid.load(Path(folder, "grid.json")) == grid
        True
    """

    name: str = "fitted"
    method: str = field(default="", kw_only=True)
    process: str = field(default="", kw_only=True)
    from_noise: bool = field(default=False, kw_only=True)
    from_given: bool = field(default=False, kw_only=True)
    data_scale: float | None = field(default=None, kw_only=True)
    log_snr: tuple[float, ...] = field(default=(), kw_only=True)
    context: tuple[str, ...] | None = field(default=None, kw_only=True)
    prediction: str = field(default="", kw_only=True)
    fitted: PilotErrors = field(default=PilotErrors(math.nan, math.nan), kw_only=True)
    default: PilotErrors = field(default=PilotErrors(math.nan, math.nan), kw_only=True)
    cost: Cost = field(default=Cost(0, 0, 0.0), kw_only=True)
    _argument, _maker = "grid", "fit_grid"  # of solve; of this package

    def times_for(self, sde: object) -> tuple[float, ...]:
        """The times, if the process is the one that the grid was fitted for."""
        if self.fits(sde):
            return self.times
        raise InvalidArgumentError(
            f"`{self._argument}` was fitted for {self.process}, but `sde` is {sde!r}; make one with {self._maker}(sde, "
            f"score_fn, {getattr(self, 'evaluations', self.steps)}), or take the same levels with `on(sde)`."
        )

    def fits(self, sde: object) -> bool:
        """Whether a process is the one that the grid was fitted for: it has the grid's log-SNRs at its times."""
        if not isinstance(sde, AffineSDE) or not self.times or len(self.log_snr) != len(self.times):
            return False
        if not (sde.t_min <= min(self.times) and max(self.times) <= sde.t_max):
            return False
        with torch.no_grad():
            here = sde.log_snr(torch.tensor(self.times, dtype=torch.float64))
        return torch.allclose(here, torch.tensor(self.log_snr, dtype=torch.float64), rtol=1e-6, atol=1e-6)

    def on(self: Record, sde: AffineSDE) -> Record:
        r"""The same levels of noise on another process, for a network that is used there as well.

        The times are those of the same :math:`\ln(\alpha^2/\sigma^2)`, so that a method whose coefficients follow from
        these makes the same steps, apart from the scale of the state. A process that goes on to more noise is begun
        where the record begins, with the state scaled as noise is, unless the record was made with a ``t_start``; a
        first or last level beyond the process becomes its end. On the process of the record nothing changes.

        Raises:
            InvalidArgumentError: a level between these two is beyond the process.

        Example:
            >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
            >>> sde, flow = scoresde.VPSDE(), scoresde.FlowSDE()
            >>> tuned = scoresde.tune(sde, target.score(sde), 5)
            >>> solution = scoresde.solve(
            ...     flow, target.score(flow), method=tuned.on(flow), shape=(3, 2)
            ... )
            >>> solution.evaluations
            5
        """
        sde = check_affine(sde)
        if self.fits(sde):
            return self
        with torch.no_grad():
            low, high = (float(sde.log_snr(t)) for t in (sde.t_max, sde.t_min))
            for level in self.log_snr[1:-1]:
                if not low < level < high:
                    raise InvalidArgumentError(
                        f"The record makes a step at a log-SNR of {level:g}, but {sde!r} goes from {low:g} to "
                        f"{high:g}; make a record for it."
                    )
            inner = sde.time(torch.tensor(self.log_snr, dtype=torch.float64).clamp(low, high)).tolist()
            begins = self.log_snr[0] < low or math.isclose(self.log_snr[0], low, rel_tol=_SAME_LEVEL)
            start, end = sde.t_max if begins else inner[0], sde.t_min if self.log_snr[-1] >= high else inner[-1]
            times = (start, *inner[1:-1], end)
            there = tuple(sde.log_snr(torch.tensor(times, dtype=torch.float64)).tolist())
        return replace(self, times=times, log_snr=there, process=repr(sde), from_noise=not (begins or self.from_given))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the grid as JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        path = check_path("path", path)
        content = {"format": FORMAT, **self.fields()}
        write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    def fields(self) -> dict[str, object]:
        """The fields as JSON values, which `of` reads; numbers that are not finite are text."""
        fields: dict[str, object] = _plain(asdict(self))
        return fields if type(self) is FittedGrid else {**fields, "kind": type(self).__name__}

    @classmethod
    def _read(cls, content: dict[str, Any]) -> dict[str, Any]:
        """The values of the fields that only this class has."""
        return {}

    @classmethod
    def of(cls, content: Mapping[str, Any], where: str) -> FittedGrid:
        """A grid from its fields, as `dataclasses.asdict` and JSON give them.

        Raises:
            CorruptCheckpointError: the fields are not those of a grid; ``where`` names their source.
        """
        try:
            given = dict(content)
            kind = given.pop("kind", FittedGrid.__name__)
            if kind not in _KINDS:
                raise ValueError(f"{str(kind)[:40]!r} is not one of {', '.join(_KINDS)}")
            made = _KINDS[kind]
            given |= made._read(given)
            grid = made(
                times=_numbers(given.pop("times")),
                log_snr=_numbers(given.pop("log_snr")),
                fitted=PilotErrors(**_named(given.pop("fitted"))),
                default=PilotErrors(**_named(given.pop("default"))),
                cost=Cost(**_named(given.pop("cost"))),
                context=_names(given.pop("context", None)),
                **given,
            )
            if not all(isinstance(v, str) for v in (grid.name, grid.method, grid.process, grid.prediction)):
                raise ValueError("its name, method, process and prediction must be text")
            if not (isinstance(grid.from_noise, bool) and isinstance(grid.from_given, bool)):
                raise ValueError("its from_noise and from_given must be true or false")
            if grid.data_scale is not None and not 0 < _number(grid.data_scale) < math.inf:
                raise ValueError("its data_scale must be a positive number")
            if any(map(math.isnan, grid.log_snr)):
                raise ValueError("its log-SNRs must be numbers")
            if len(grid.log_snr) != len(grid.times):
                raise ValueError(f"it has {len(grid.times)} times and {len(grid.log_snr)} log-SNRs")
            grids.check_times(torch.tensor(grid.times, dtype=torch.float64), -math.inf, math.inf, "times")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise CorruptCheckpointError(f"{where} is not a fitted grid: {error}") from None
        return grid

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FittedGrid:
        """Read what `save` wrote.

        Raises:
            CorruptCheckpointError: the file is not a fitted grid.
        """
        where = os.fspath(check_path("path", path))
        try:
            content = json.loads(Path(where).read_bytes())
            found = content.pop("format")
            if found != FORMAT:
                raise ValueError(f"its format is {found!r}, but this version of scoresde reads {FORMAT}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise CorruptCheckpointError(f"{where} is not a fitted grid: {error}") from None
        return cls.of(content, where)

    def __repr__(self) -> str:
        gain = f"{self.fitted.median:.2g} (default grid {self.default.median:.2g})"
        process = self.process.partition("(")[0]
        return f"FittedGrid({self.steps} steps of {self.method} for {process}, held-out median error {gain})"


@dataclass(frozen=True)
class Ranked:
    """A candidate of `tune`, and its error.

    Args:
        method: the method, as text.
        grid: the grid, as text.
        rms, median, distance, distance_error: its error over the pilot, as of `PilotErrors`.
        behind: how many times as large its error is as that of the best candidate. Of end points it is the geometric
            mean over the pilot; of distributions it is the ratio of the larger of ``distance`` and ``distance_error``.
        uncertainty: the standard error of the logarithm of ``behind``, near 1. A candidate with ``behind`` up to
            ``exp(2 * uncertainty)`` cannot be distinguished from the best one; of distributions this is where the two
            distances differ by less than two standard errors of their difference.

    Example:
        >>> Ranked("DDIM()", "log_snr", 0.2, 0.1, 1.5, 0.1).behind
        1.5
    """

    method: str
    grid: str
    rms: float
    median: float
    behind: float
    uncertainty: float
    distance: float | None = None
    distance_error: float | None = None


@dataclass(frozen=True)
class Tuned(FittedGrid):
    """A method and a grid that `tune` chose, for ``method=`` of `solve`; it refuses processes other than its own.

    ``fitted`` holds the errors of the pilot, of this choice, and ``default`` those of ``method="auto"`` on its own
    grid, where that is among the candidates. The method may draw noise, where distributions were compared; a solve then
    takes a seed as with the method itself.

    Args:
        evaluations: per sample, for which it was chosen.
        ranking: all candidates, the best first.
        times, name, method, process, log_snr, context, prediction, fitted, default, cost: as of `FittedGrid`.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
        >>> sde = scoresde.VPSDE()
        >>> tuned = scoresde.tune(sde, target.score(sde), 5)
        >>> tuned.evaluations, tuned.ranking[0].behind
        (5, 1.0)
    """

    name: str = "tuned"
    evaluations: int = field(default=0, kw_only=True)
    ranking: tuple[Ranked, ...] = field(default=(), kw_only=True)
    _argument, _maker = "method", "tune"

    @classmethod
    def _read(cls, content: dict[str, Any]) -> dict[str, Any]:
        text = ("method", "grid")
        rows = [
            Ranked(str(row["method"]), str(row["grid"]), **_named({k: v for k, v in row.items() if k not in text}))
            for row in content["ranking"]
        ]
        if type(content["evaluations"]) is not int or content["evaluations"] < 1:
            raise ValueError("its evaluations must be a positive integer")
        return {"ranking": tuple(rows)}

    def __repr__(self) -> str:
        process, best = self.process.partition("(")[0], self.ranking[0] if self.ranking else None
        tied = sum(row.behind <= math.exp(2 * row.uncertainty) for row in self.ranking[1:])
        name = f"{best.method} on {best.grid}" if best else self.method
        others = f", {tied} of {len(self.ranking) - 1} others not distinguishable" if tied else ""
        fitted, auto = self.fitted, self.default
        error = f"pilot median error {fitted.median:.2g} (auto {auto.median:.2g})"
        if fitted.distance is not None:
            other = math.nan if auto.distance is None else auto.distance
            error = f"energy distance {fitted.distance:.2g} ± {fitted.distance_error:.1g} (auto {other:.2g})"
        return f"Tuned({self.evaluations} evaluations: {name} for {process}, {error}{others})"


@dataclass(frozen=True)
class FittedSolver(FittedGrid):
    """A solver that `fit_solver` learned, for ``method=`` of `solve`; it refuses processes other than its own.

    ``fitted`` and ``default`` hold the errors of the half of the pilot that was held out, of the solver and of its
    start.

    Args:
        start: the method and the grid that it began with, as text.
        order: the conditions that its coefficients keep; 1 for a start that nothing was better than.
        times, name, method, process, log_snr, context, prediction, fitted, default, cost: as of `FittedGrid`.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
        >>> sde = scoresde.VPSDE()
        >>> fitted = scoresde.fit_solver(sde, target.score(sde), 3, pilot=8, iterations=20)
        >>> fitted.steps, fitted.order
        (3, 1)
    """

    name: str = "learned"
    start: str = field(default="", kw_only=True)
    order: int = field(default=1, kw_only=True)
    _argument, _maker = "method", "fit_solver"

    def on(self, sde: AffineSDE) -> FittedSolver:
        """See `FittedGrid.on`; where the process ends at another level, so does the last step, see
        `scoresde.solvers.learned.Learned.ending`."""
        there, solver = super().on(sde), from_config(self.method)
        ratio = math.exp(0.5 * (there.log_snr[-1] - self.log_snr[-1]))
        if abs(ratio - 1) <= _SAME_LEVEL or not isinstance(solver, Learned):
            return there
        return replace(there, method=to_text(solver.ending(ratio)))

    @classmethod
    def _read(cls, content: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(content["start"], str) or type(content["order"]) is not int or not 1 <= content["order"] <= 3:
            raise ValueError("its start must be text, and its order 1, 2 or 3")
        solver, steps = from_config(content["method"]), len(content["times"]) - 1
        if not isinstance(solver, Learned) or solver.steps != steps:
            raise ValueError(f"its method must be a learned one with {steps} steps")
        return {}

    def __repr__(self) -> str:
        errors = f"held-out median error {self.fitted.median:.2g} ({self.start}: {self.default.median:.2g})"
        return f"FittedSolver({self.steps} evaluations for {self.process.partition('(')[0]}, {errors})"


_KINDS: dict[str, type[FittedGrid]] = {kind.__name__: kind for kind in (FittedGrid, Tuned, FittedSolver)}


def _plain(value: object) -> Any:
    """A tree for JSON, which has no infinity and no NaN; what is None is left out."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: object) -> float:
    if isinstance(value, bool) or not (isinstance(value, int | float) or value in ("inf", "-inf", "nan")):
        raise ValueError(f"{str(value)[:40]!r} is not a number")
    return float(value)


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{str(values)[:40]!r} is not a list of numbers")
    return tuple(_number(v) for v in values)


def _names(values: object) -> tuple[str, ...] | None:
    """Those of a context; None in files from before they were kept."""
    if values is None:
        return None
    if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
        raise ValueError("its context must be a list of names, or null")
    return tuple(values)


def _named(values: Any) -> dict[str, Any]:
    """Numbers by name; whole ones stay whole."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{str(values)[:40]!r} is not an object of numbers")
    return {name: v if type(v) is int else _number(v) for name, v in values.items()}
