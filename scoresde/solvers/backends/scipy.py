"""SciPy's methods for initial value problems, on the probability flow: on the CPU, in float64, without gradients."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError, StepSizeUnderflowError
from ...core.support.checks import DEFAULT_TOLERANCE
from .base import OwnSteps, Slope, family


@dataclass(frozen=True)
class SciPy(OwnSteps):
    """The state goes to SciPy as one vector of float64 on the CPU and comes back; steps follow the root mean square of
    the error over the whole batch. It gives no gradients.

    Args:
        clock: see `ODEBackend`.
        max_steps, lenient: see `OwnSteps`.
        rtol, atol: tolerances.
    """

    rtol: float = DEFAULT_TOLERANCE
    atol: float = DEFAULT_TOLERANCE

    package: ClassVar[str] = "scipy"
    source: ClassVar[str] = (
        "Virtanen et al. (2020), SciPy 1.0. https://docs.scipy.org/doc/scipy/reference/integrate.html"
    )
    adaptive: ClassVar[bool] = True
    batch_coupled: ClassVar[bool] = True

    def arguments(self, y: Tensor) -> dict[str, object]:
        """More arguments of SciPy's class."""
        return {}

    def integrate(self, slope: Slope, y: Tensor, u_start: float, u_stop: float) -> Tensor:
        """See `ODEBackend.integrate`."""
        if torch.is_grad_enabled():
            raise InvalidArgumentError(
                f"{self.name!r} gives no gradients; with differentiable=True take 'rk45' or 'torchdiffeq:dopri5'."
            )
        module = self.load("scipy.integrate")

        def fun(u: float, flat: Any) -> Any:
            state = torch.tensor(flat, dtype=y.dtype).reshape(y.shape).to(y.device)
            return slope(float(u), state).cpu().numpy().ravel()

        run = getattr(module, self.scheme)(
            fun,
            u_start,
            y.cpu().numpy().ravel(),
            u_stop,
            rtol=max(self.rtol, 100 * sys.float_info.epsilon),  # SciPy warns below, and takes this
            atol=self.atol,
            **self.arguments(y),
        )
        message = None
        while run.status == "running":
            message = run.step()
        if run.status == "failed":
            slope.fail(StepSizeUnderflowError, f"SciPy says {message!r}; loosen rtol and atol")
        return torch.from_numpy(run.y).reshape(y.shape).to(y.device)


@dataclass(frozen=True)
class SciPyImplicit(SciPy):
    """Implicit, for stiff problems: the Jacobian is measured by differences, sample by sample in parallel, at one
    evaluation for each element of an event. Like all of SciPy's methods it steps the batch as one.

    Args:
        clock: see `ODEBackend`.
        max_steps, lenient: see `OwnSteps`.
        rtol, atol: tolerances.
    """

    iterations: ClassVar[int]  # evaluations of all its iterations of a step

    def most(self, x: Tensor) -> int:
        """The evaluations of the iterations, and of a Jacobian."""
        return self.iterations + 2 * x[0].numel()

    def arguments(self, y: Tensor) -> dict[str, object]:
        """Samples do not depend on each other: the Jacobian has blocks."""
        sparse = self.load("scipy.sparse")
        event = y[0].numel()
        return {"jac_sparsity": sparse.kron(sparse.eye(len(y)), np.ones((event, event)))}


@dataclass(frozen=True)
class SciPyBanded(SciPyImplicit):
    """Adams's methods, or the implicit ones of Gear where the problem is stiff; the batch is stepped as one.

    Args:
        clock: see `ODEBackend`.
        max_steps, lenient: see `OwnSteps`.
        rtol, atol: tolerances.
    """

    def arguments(self, y: Tensor) -> dict[str, object]:
        """Blocks are inside a band."""
        band = y[0].numel() - 1
        return {"lband": band, "uband": band} if len(y) > 1 else {}

    def integrate(self, slope: Slope, y: Tensor, u_start: float, u_stop: float) -> Tensor:
        """Hand over to SciPy; intervals of a few units in the last place, which LSODA refuses, are one Euler step."""
        if abs(u_stop - u_start) < 64 * math.ulp(max(abs(u_start), abs(u_stop))) and not torch.is_grad_enabled():
            return y + (u_stop - u_start) * slope(u_start, y)
        return super().integrate(slope, y, u_start, u_stop)


family(SciPy, SciPyImplicit, SciPyBanded)
