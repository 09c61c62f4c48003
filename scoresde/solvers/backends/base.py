r"""What the solvers of other libraries share.

A library integrates :math:`dy/du = F(y, u)` on a `Coordinate`'s clock u. `Slope` is F as a library may call it, with
what the library leaves open put right: u is brought back into the step, evaluations are limited, and a score that is
not finite is an error, so that no library steps on with it or turns in circles.
"""

from __future__ import annotations

import abc
import importlib
import sys
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError, MaxStepsError, NonFiniteError, StepSizeUnderflowError
from ...core.processes import LOG_SNR, RHO, TIME, Coordinate, Process, node_list
from ...core.support.checks import MOST_STEPS, check_choice, check_flag, check_integer, check_number
from ...core.support.tensors import row_finite, where
from ..base import Node, Solver, StepFailed, StepResult
from ..registry.variants import described_facts
from .schemes import SCHEMES, title_of

CLOCKS = {clock.name: clock for clock in (TIME, LOG_SNR, RHO)}


class Backend(Solver):
    """A method of another library. The classes of one library are abstract; those of its methods have a ``scheme``."""

    package: ClassVar[str]
    source: ClassVar[str]  # where the library comes from
    kind: ClassVar[str] = "backend"

    @property
    @abc.abstractmethod
    def scheme(self) -> str:
        """The method's name in the library."""

    @property
    @abc.abstractmethod
    def native(self) -> str:
        """The method of this package that serves the same purpose, where the network cannot be called."""

    def load(self, module: str) -> Any:
        """Import the library, which is not done before it is used."""
        try:
            return importlib.import_module(module)
        except ImportError as error:
            raise InvalidArgumentError(
                f"method={self.name!r} needs the library {self.package}, which cannot be imported ({error}); pip "
                f"install {self.package}, or take a method of scoresde's own, such as 'rk45' or 'euler_maruyama'."
            ) from error


@dataclass(frozen=True)
class ODEBackend(Backend):
    """A library's method for ODEs, on the probability flow.

    Args:
        clock: what the library integrates over: ``"time"``, ``"log_snr"`` (half of it), or ``"rho"``, which is
            sigma/alpha and goes with y = x/alpha.
    """

    clock: str = "time"

    open_end: ClassVar[bool] = False  # nothing is evaluated at the end of a step

    def __post_init__(self) -> None:
        check_choice("clock", self.clock, CLOCKS)

    @property
    def affine(self) -> bool:
        """True on any clock but time."""
        return self.clock != TIME.name

    @property
    def coordinate(self) -> Coordinate:
        """The clock that is integrated over."""
        return CLOCKS[self.clock]

    @property
    def keeps_estimates(self) -> bool:
        """True where slopes are estimates."""
        return self.coordinate.is_estimate

    @property
    def noise_limit(self) -> bool:
        """In time the drift of the probability flow has the limit."""
        return self.clock == TIME.name

    @property
    def data_limit(self) -> bool:
        """In time, if nothing is evaluated at the end of a step."""
        return self.open_end and self.clock == TIME.name

    @property
    def native(self) -> str:
        """One of the same order."""
        return {1: "euler", 2: "heun"}.get(self.ode_order or 0, "rk4")

    def step(self, process: Process, x: Tensor, start: Node[float], stop: Node[float], state: object) -> StepResult:
        """See `Solver.step`. The library computes in float64, the score in the dtype of the state."""
        ends = [self.coordinate.clock(node) for node in (start, stop)]
        if any(isinstance(u, Tensor) for u in ends):
            raise InvalidArgumentError(
                f"{self.name!r} gives no gradient of its {self.clock}, which the grid or the schedule has; take a "
                f"method of scoresde's own."
            )
        slope = Slope(self, process, x, start, stop, self.budget(process, x))
        first = x.to(torch.float64) / self.coordinate.scale(start)
        last = self.integrate(slope, first, *ends) if ends[0] != ends[1] and first.numel() else first
        return StepResult(slope.marked((last * self.coordinate.scale(stop)).to(x.dtype)))

    def budget(self, process: Process, x: Tensor) -> int | None:
        """The most evaluations of the whole solve; None leaves them, and what is not finite, to the loop."""
        return None

    @abc.abstractmethod
    def integrate(self, slope: Slope, y: Tensor, u_start: float, u_stop: float) -> Tensor:
        """Hand over to the library: y at ``u_stop``, given that at ``u_start``."""


@dataclass(frozen=True)
class OwnSteps(ODEBackend):
    """A method that makes its own steps: `scoresde.solve` hands it the interval, cut only at the times to save.

    Args:
        max_steps: evaluations are limited to those of so many steps; ``max_steps`` of `scoresde.solve`.
        lenient: leave a sample whose score is not finite where it is and go on with the others, which is what
            ``throw=False`` of `scoresde.solve` allows; otherwise it is an error.
    """

    max_steps: int = 10_000
    lenient: bool = False

    own_steps: ClassVar[bool] = True
    native: ClassVar[str] = "rk45"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("max_steps", self.max_steps, low=1, high=MOST_STEPS)
        check_flag("lenient", self.lenient)
        for name in ("rtol", "atol", "tolerance"):
            check_number(name, getattr(self, name, 0.0), low=0.0)

    def budget(self, process: Process, x: Tensor) -> int:
        """Those of so many steps, and up to three before the first step of a stretch."""
        return self.max_steps * self.most(x) + 3 * process.nodes.steps

    def most(self, x: Tensor) -> int:
        """The most evaluations that a step may take."""
        return self.evaluations


class Slope:
    """dy/du as a library calls it.

    Args:
        solver: whose.
        process: what is stepped.
        x: the state at the start, for its shape, dtype and device.
        start, stop: the ends; beyond them it is evaluated at them.
        budget: see `ODEBackend.budget`.
    """

    def __init__(
        self, solver: Any, process: Process, x: Tensor, start: Node[float], stop: Node[float], budget: int | None = None
    ) -> None:
        self.solver, self.process, self.coordinate = solver, process, solver.coordinate
        self.dtype, self.batch = x.dtype, len(x)
        self.nodes = {float(self.coordinate.clock(node)): node for node in (start, stop)}
        self.low, self.high = sorted((start.t, stop.t))
        self.budget = budget
        self.t = start.t
        self.lost: Tensor | None = None  # samples whose score was not finite

    def __call__(self, u: float, y: Tensor) -> Tensor:
        """The derivative at the clock's u and the scaled state y ``(batch, *event)`` float64."""
        node = self._node(u)
        self.t = node.t
        if self.budget is not None and self.process.network.calls >= self.budget:
            self.fail(MaxStepsError, f"max_steps={self.solver.max_steps} is used up; raise it, loosen rtol and atol")
        x = (y * self.coordinate.scale(node)).to(self.dtype)
        out = self.process.answer(self.process.slope(self.coordinate, x, node)).to(y.dtype)
        return out if self.budget is None else self._finite(out, x)

    def fail(self, error: type[MaxStepsError] | type[StepSizeUnderflowError], why: str) -> NoReturn:
        """Give up with an error that says why."""
        calls = self.process.network.calls
        raise StepFailed(
            error(
                f"{self.solver.name} did not arrive with its {self.batch} samples: at t={self.t:.6g} after {calls} "
                f"evaluations: {why}, or take 'rk45', whose samples have steps of their own."
            ),
            torch.ones(self.batch, dtype=torch.bool),
        )

    def marked(self, x: Tensor) -> Tensor:
        """The result, NaN in the samples that were lost on the way."""
        return x if self.lost is None else where(self.lost, torch.full_like(x, torch.nan), x)

    def _node(self, u: float) -> Node[float]:
        """The node at u, or at the end that u is beyond."""
        if u not in self.nodes:
            t = self.process.nodes.times_at(torch.tensor([u], dtype=torch.float64), self.coordinate)
            return node_list(self.process.sde, t.clamp(self.low, self.high))[0]
        return self.nodes[u]

    def _finite(self, out: Tensor, x: Tensor) -> Tensor:
        """The slope, with 0 for samples that are lost."""
        bad = ~row_finite(out.detach())
        if bool(bad.any()):
            before = torch.zeros_like(bad) if self.lost is None else self.lost
            fresh, self.lost = bad & ~before, bad | before
            if not self.solver.lenient or bool(self.lost.all()):
                rows = fresh.nonzero()[:, 0].tolist()
                stage = "score" if bool(row_finite(x.detach())[bad].all()) else "state"
                what = "The score function returned NaN or infinity" if stage == "score" else "The state overflowed"
                raise StepFailed(
                    NonFiniteError(
                        f"{what} in {len(rows)} of {self.batch} samples (first: {rows[:5]}) in a step of "
                        f"{self.solver.name}, t={self.t:.6g}; check the network at this time (scoresde.check_score), "
                        f"or pass throw=False to let the other samples finish.",
                        stage=stage,
                        t=self.t,
                        indices=rows[:5],
                    ),
                    self.lost,
                )
        return out if self.lost is None else where(self.lost, torch.zeros_like(out), out)


_DOC = r"""{library}'s ``{scheme}``{title}

    {about}

    Facts:
        {facts}

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> score_fn, method = target.score(sde), "{library}:{scheme}"
        >>> solution = scoresde.solve(sde, score_fn, method=method, shape=(3, 2), seed=0)
        >>> solution.x.shape, bool(solution.success.all())
        (torch.Size([3, 2]), True)

    References:
        {reference}
    """


def family(*bases: type[Any]) -> None:
    """One class per method of `SCHEMES`, in the module of its base, where pickle finds it."""
    for base in bases:
        for scheme, facts in SCHEMES[f"{base.package}.{base.__name__}"].items():
            name = title_of(base.package, scheme)
            body = {"__module__": base.__module__, "__qualname__": name, "scheme": scheme, **facts}
            made: type[Backend] = dataclass(frozen=True)(type(name, (base,), body))
            made.__doc__ = _DOC.format(
                library=base.package,
                scheme=scheme,
                title=f": {facts['reference']}.",
                about=" ".join((base.__doc__ or "").partition("Args:")[0].split()),
                facts=described_facts(made()),
                reference=f"{facts['reference']}. {base.source}",
            )
            setattr(sys.modules[base.__module__], name, made)
