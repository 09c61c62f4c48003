r"""Accurate solutions of the same draws, and what they are worth.

A reference is solved at two levels of accuracy. If the tighter solution errs at most half as much as the looser one,
its error is at most their distance, which is added to the error of the sample (`widened`): a bound of the sum is a
bound on the error. The levels are refined until the distances are a tenth of the errors that they measure, or until
rounding ends it.

A deterministic method is measured against the probability flow, by `scoresde.solvers.Adams` with a tolerance for each
sample; a few draws are solved by a method of another family as well, so that an error of the reference's own would be
seen. A method that draws noise is measured against itself with many more steps on the same Brownian path.
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.arguments import resolution_of
from ..core.errors import InvalidArgumentError, SolveFailedError
from ..core.noise import Noise
from ..core.support.checks import MOST_STEPS, check_integer
from ..core.support.display import Displayed
from .coupling import Settings, Task

CHECKED = 8  # draws that another method solves as well
_STEPS = 2_000  # at most, of a reference
Draw = Callable[[], Noise]


@dataclass(frozen=True, repr=False)
class Worth(Displayed):
    """What a reference was worth.

    Attributes:
        method: how the draws were solved.
        tight, loose: its two levels: tolerances, or how many times as many steps.
        distance: between the two, the same quantile over draws as the bound on the errors; it is part of the bound.
        other: the method of another family that solved some draws, or "".
        checked: how many.
        disagreement: the median of their distances between the two methods, in the norm of the certificate; NaN where
            nothing was checked. It widens the bound, too.

    Example:
        >>> Worth("adams", 1e-6, 1e-5, 2e-6, "rk45", 8, 3e-6)
        Worth(method=adams, levels=1e-06 and 1e-05, distance=2e-06, other=rk45, disagreement=3e-06)
    """

    method: str
    tight: float
    loose: float
    distance: float
    other: str
    checked: int
    disagreement: float

    def _summary(self) -> dict[str, str]:
        found = {
            "method": self.method,
            "levels": f"{self.tight:g} and {self.loose:g}",
            "distance": f"{self.distance:.4g}",
        }
        return {**found, "other": self.other, "disagreement": f"{self.disagreement:.4g}"} if self.other else found


class Reference(abc.ABC):
    """Solutions at rising levels of accuracy.

    Args:
        task: what is solved.

    Attributes:
        name: of the method.
        levels: from the coarsest on.
        other: a method of another family, None where there is none.
    """

    name: str
    levels: tuple[float, ...]
    other: str | None = None

    def __init__(self, task: Task) -> None:
        self.task = task

    @abc.abstractmethod
    def settings(self, level: float, method: str | None = None) -> Settings:
        """What `solve` takes."""

    def ends(self, noise: Draw, count: int, context: Mapping[str, Any], level: float) -> Tensor:
        """The end states of some draws; NaN for those that fail."""
        return self.task.solve(noise, count, context, self.settings(level)).x

    def check(self, noise: Draw, count: int, context: Mapping[str, Any], level: float) -> Tensor | None:
        """The end states by another method."""
        if self.other is None:
            return None
        return self.task.solve(noise, count, context, self.settings(level, self.other)).x

    def finer(self, level: float) -> tuple[float, ...]:
        """The levels beyond one."""
        return self.levels[self.levels.index(level) + 1 :]

    def levels_for(
        self, solved: Callable[[float], Tensor], enough: Callable[[Tensor, Tensor], bool]
    ) -> tuple[float, float]:
        """The levels, tight and loose, that are enough, or the last.

        Args:
            solved: the end states of some draws, by level.
            enough: whether a tight and a looser solution are close enough to each other.
        """
        found = self.levels[1], self.levels[0]
        for loose, tight in itertools.pairwise(self.levels):
            if failed(solved(tight)) > failed(solved(loose)):
                break  # it requires too much
            found = tight, loose
            if enough(solved(tight), solved(loose)):
                break
        return found


def scale_of(x: Tensor) -> float:
    """The power of ten that is nearest to the standard deviation of states, of those that are finite; 1 for none.

    Example:
        >>> scale_of(torch.tensor([[-2e-4], [2e-4]])), scale_of(torch.zeros(2, 1))
        (0.0001, 1.0)
    """
    good = x[x.flatten(1).isfinite().all(1)].to(torch.float64)
    spread = float((good - good.mean(0)).square().mean().sqrt()) if len(good) else 0.0
    return float(10.0 ** round(math.log10(spread))) if spread > 0 else 1.0


class FlowReference(Reference):
    """Of the probability flow.

    Args:
        task: what is solved.
        scale: of the end states, in which the absolute tolerance is.
    """

    name, other = "adams", "rk45"

    def __init__(self, task: Task, scale: float = 1.0) -> None:
        super().__init__(task)
        self.scale = scale
        self.levels = (1e-3, 1e-4, 1e-5, 2e-6)
        if task.dtype == torch.float64:
            self.levels = tuple(10.0**-k for k in range(3, 11))
        network = task.score.network_dtype
        if network is not None:  # beyond the rounding of which no level is reached
            self.levels = self.levels[:2] + tuple(v for v in self.levels[2:] if v >= resolution_of(network))

    def settings(self, level: float, method: str | None = None) -> Settings:
        how = {"method": method or self.name, "rtol": level, "atol": level * self.scale, "max_steps": _STEPS}
        return {**self.task.shared, **how}


class StepsReference(Reference):
    """Of the probability flow, by two given numbers of steps of `scoresde.solvers.UniPC3`: for networks that are no
    smooth function of time, on which a tolerance takes very many.

    Args:
        task: what is solved.
        tight, loose: the numbers of steps.
    """

    name = "unipc3"

    def __init__(self, task: Task, tight: int, loose: int) -> None:
        super().__init__(task)
        if task.stochastic:
            raise InvalidArgumentError(
                f"`reference` cannot be numbers of steps for method={task.solver.name!r}, which draws noise, and is "
                "compared with itself on the same path; leave it out."
            )
        self.levels = (loose, tight)

    def settings(self, level: float, method: str | None = None) -> Settings:
        return {**self.task.shared, "method": self.name, "steps": int(level)}


def check_steps(given: Sequence[object]) -> tuple[int, int]:
    """The numbers of steps (tight, loose) of a reference, checked."""
    tight, loose = (check_integer(f"reference[{i}]", part, low=1, high=MOST_STEPS) for i, part in enumerate(given))
    if not tight >= 2 * loose:
        raise InvalidArgumentError(
            f"`reference` must be numbers of steps (tight, loose), the first at least twice the second, got {given!r}."
        )
    return tight, loose


def check_converges(task: Task) -> None:
    """Refuse a method whose samples depend on each other, or converge to nothing that is known, before a solve.

    Raises:
        InvalidArgumentError: samples depend on their batch, or it draws noise and has no strong order.
    """
    if task.solver.batch_coupled:
        raise InvalidArgumentError(
            f"method={task.solver.name!r} makes samples that depend on the others of their batch, so that further "
            "samples are not like those of the pilot. Take a method whose samples are independent, such as 'adams'."
        )
    if task.stochastic and task.solver.strong_order is None:
        raise InvalidArgumentError(
            f"method={task.solver.name!r} has no strong order: its samples do not converge on a Brownian path, so that "
            "there is no error of a sample. Take a deterministic method, or one with a `strong_order` of "
            "scoresde.methods()."
        )


class PathReference(Reference):
    """Of an SDE, on the same Brownian path, by the method itself."""

    levels = (4.0, 8.0, 16.0, 32.0, 64.0)

    def __init__(self, task: Task, steps: int) -> None:
        super().__init__(task)
        solver = task.solver
        check_converges(task)
        self.name, self._steps, self._adaptive = f"{solver.name} on the same path", steps, solver.adaptive
        if task.refined(2, steps) is None:
            raise InvalidArgumentError(f"method={solver.name!r} has one number of steps only, so that none is finer.")

    def settings(self, level: float, method: str | None = None) -> Settings:
        if not self._adaptive:
            return self.task.refined(int(level), self._steps)  # type: ignore[return-value]
        given = self.task.settings
        return {**given, **{name: given.get(name, 1e-3) / level for name in ("rtol", "atol")}}


def failed(ends: Tensor) -> int:
    """How many draws have no end state."""
    return int((~ends.flatten(1).isfinite().all(1)).sum())


def check_agreement(worth: float, size: float, what: str) -> None:
    """Refuse a reference that errs as much as what it is to measure."""
    if not worth <= size:
        raise SolveFailedError(
            f"The reference does not agree with itself: {what} are {worth:.3g} apart, and the errors to be measured "
            f"are {size:.3g}. Give a finer `reference`, if you gave one; examine the network with "
            "scoresde.check_score, end the solve at a larger `t_end`, or pass dtype=torch.float64."
        )
