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

from ..._tensors import MOST_STEPS, check_integer
from ...errors import StepSizeUnderflowError
from .base import ODEBackend, OwnSteps, Slope, family

_SOURCE = "Chen (2018), torchdiffeq. https://github.com/rtqichen/torchdiffeq"


class _TorchDiffEq(ODEBackend):
    """What its methods share."""

    package: ClassVar[str] = "torchdiffeq"
    prefix: ClassVar[str] = "TorchDiffEq"
    source: ClassVar[str] = _SOURCE

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
    """On the grid of `scoresde.solve`, one call of the library a step; samples do not feel each other.

    Args:
        clock: see `ODEBackend`.
    """

    def integrate(self, slope: Slope, y: Tensor, u_start: float, u_stop: float) -> Tensor:
        """See `ODEBackend.integrate`."""
        return self.odeint(slope, y, torch.tensor([u_start, u_stop], dtype=y.dtype, device=y.device))


@dataclass(frozen=True)
class TorchDiffEqAdaptive(OwnSteps, _TorchDiffEq):
    """Steps from the root mean square of the error over the whole batch: an easy batch mate loosens the tolerance of a
    hard one. `rk45` has steps for each sample.

    Args:
        clock: see `ODEBackend`.
        max_steps, lenient: see `OwnSteps`.
        rtol, atol: tolerances.
    """

    rtol: float = 1e-3
    atol: float = 1e-3

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
        max_order: steps that it looks back, and one; torchdiffeq's own 12 is unstable on most problems.
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
        ends = [self.coordinate.clock(node) for node in (slope.process.begin, slope.process.end)]
        told_apart = abs(u_stop - u_start) // (8 * math.ulp(max(abs(u_start), abs(u_stop))))  # times of this clock
        count = max(1, min(round(self.steps * (u_stop - u_start) / (ends[1] - ends[0])), int(told_apart)))
        times = torch.linspace(u_start, u_stop, count + 1, dtype=y.dtype, device=y.device)
        times[-1] = u_stop
        options = {"max_order": self.max_order}
        return self.odeint(slope, y, times, rtol=self.tolerance, atol=self.tolerance, options=options)


FIXED = {
    "euler": {"ode_order": 1, "evaluations": 1, "open_end": True, "reference": "Euler (1768)"},
    "midpoint": {"ode_order": 2, "evaluations": 2, "open_end": True, "reference": "Runge (1895)"},
    "heun2": {"ode_order": 2, "evaluations": 2, "reference": "Heun (1900)"},
    "heun3": {"ode_order": 3, "evaluations": 3, "open_end": True, "reference": "Heun (1900)"},
    "rk4": {"ode_order": 4, "evaluations": 4, "reference": "Kutta (1901), the 3/8 rule"},
}
ADAPTIVE = {
    "dopri8": {"ode_order": 8, "evaluations": 13, "reference": "Prince, Dormand (1981)"},
    "dopri5": {"ode_order": 5, "evaluations": 6, "reference": "Dormand, Prince (1980)"},
    "bosh3": {"ode_order": 3, "evaluations": 3, "reference": "Bogacki, Shampine (1989)"},
    "fehlberg2": {"ode_order": 2, "evaluations": 2, "reference": "Fehlberg (1969), the pair 1(2)"},
    "adaptive_heun": {"ode_order": 2, "evaluations": 1, "reference": "Heun (1900) with Euler's method"},
}
ADAMS = {
    "explicit_adams": {"ode_order": 4, "evaluations": 1, "reference": "Bashforth, Adams (1883)"},
    "implicit_adams": {
        "ode_order": 4,
        "evaluations": 2,
        "batch_coupled": True,
        "reference": "Moulton (1926), iterated from Bashforth, Adams (1883)",
    },
}
METHODS = (
    *family(TorchDiffEqFixed, FIXED),
    *family(TorchDiffEqAdaptive, ADAPTIVE),
    *family(TorchDiffEqAdams, ADAMS),
)
