"""torchdiffeq's methods on the probability flow.

What is put right: its adaptive methods step past the end and interpolate back (here they step onto the end), its first
step is guessed by an evaluation that may lie beyond the end (here it is a hundredth of the way), and times are rounded
to the dtype of the state (here it computes in float64).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.errors import StepSizeUnderflowError
from ...core.support.checks import DEFAULT_TOLERANCE, MOST_STEPS, check_integer
from .base import ODEBackend, OwnSteps, Slope, family


class _TorchDiffEq(ODEBackend):
    """What its methods share."""

    package: ClassVar[str] = "torchdiffeq"
    source: ClassVar[str] = "Chen (2018), torchdiffeq. https://github.com/rtqichen/torchdiffeq"

    def odeint(self, slope: Slope, y: Tensor, times: Tensor, **arguments: Any) -> Tensor:
        """The state at the last of the times."""
        module = self.load("torchdiffeq")
        try:
            states = module.odeint(lambda u, y: slope(float(u), y), y, times, method=self.scheme, **arguments)
        except AssertionError as error:
            if not str(error).startswith("underflow in dt"):
                raise
            slope.fail(StepSizeUnderflowError, "the steps are too small for the clock; loosen rtol and atol")
        return states[-1]


@dataclass(frozen=True)
class TorchDiffEqFixed(_TorchDiffEq):
    """On the grid of `scoresde.solve`, one call of the library per step; samples do not affect each other.

    Args:
        clock: see `ODEBackend`.
    """

    def integrate(self, slope: Slope, y: Tensor, u_start: float, u_stop: float) -> Tensor:
        """See `ODEBackend.integrate`."""
        return self.odeint(slope, y, torch.tensor([u_start, u_stop], dtype=y.dtype, device=y.device))


@dataclass(frozen=True)
class TorchDiffEqAdaptive(OwnSteps, _TorchDiffEq):
    """Steps from the root mean square of the error over the whole batch: an easy sample loosens the tolerance of a
    hard one. `rk45` has steps for each sample.

    Args:
        clock: see `ODEBackend`.
        max_steps, lenient: see `OwnSteps`.
        rtol, atol: tolerances.
    """

    rtol: float = DEFAULT_TOLERANCE
    atol: float = DEFAULT_TOLERANCE

    adaptive: ClassVar[bool] = True
    batch_coupled: ClassVar[bool] = True

    def integrate(self, slope: Slope, y: Tensor, u_start: float, u_stop: float) -> Tensor:
        """See `ODEBackend.integrate`. A first step that depended on the state would take part in gradients."""
        times = torch.tensor([u_start, u_stop], dtype=y.dtype, device=y.device)
        first = max(0.01 * abs(u_stop - u_start), 64 * math.ulp(max(abs(u_start), abs(u_stop))))
        options = {"step_t": times[1:], "first_step": first}
        return self.odeint(slope, y, times, rtol=self.rtol, atol=self.atol, options=options)


@dataclass(frozen=True)
class TorchDiffEqAdams(OwnSteps, _TorchDiffEq):
    """Multistep, on equal steps of its clock, which its coefficients take for granted: there is no ``grid``. It starts
    with fourth-order Runge-Kutta steps.

    Args:
        clock: see `ODEBackend`.
        max_steps, lenient: see `OwnSteps`.
        steps: of the whole way; each stretch between times to save has its share, and one at least.
        max_order: the number of earlier steps that it uses, plus one; torchdiffeq's own 12 is unstable on most
            problems.
        tolerance: of the implicit method's iteration, over the whole batch.
    """

    steps: int = 50
    max_order: int = 5
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("steps", self.steps, low=1, high=MOST_STEPS)
        check_integer("max_order", self.max_order, low=4, high=12)

    def most(self, x: Tensor) -> int:
        """The first steps are Runge-Kutta's, and the implicit method iterates up to four times."""
        return 5

    def integrate(self, slope: Slope, y: Tensor, u_start: float, u_stop: float) -> Tensor:
        """See `ODEBackend.integrate`."""
        ends = [self.coordinate.clock(node) for node in (slope.process.nodes.begin, slope.process.nodes.end)]
        told_apart = abs(u_stop - u_start) // (8 * math.ulp(max(abs(u_start), abs(u_stop))))  # times of this clock
        count = max(1, min(round(self.steps * (u_stop - u_start) / (ends[1] - ends[0])), int(told_apart)))
        times = torch.linspace(u_start, u_stop, count + 1, dtype=y.dtype, device=y.device)
        times[-1] = u_stop
        options = {"max_order": self.max_order}
        return self.odeint(slope, y, times, rtol=self.tolerance, atol=self.tolerance, options=options)


family(TorchDiffEqFixed, TorchDiffEqAdaptive, TorchDiffEqAdams)
