r"""torchsde's methods on the reverse family.

The diffusion depends on time alone, so that Ito's and Stratonovich's reading agree and every method serves. torchsde
makes equal steps only, forward only; here it is called once per step of the grid, on the clock :math:`\pm t`. Each
number of the state is handed over as a sample with one channel, so that additive noise needs no matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.noise import Noise
from ...core.processes import Process, node_list
from ..base import DriftSolver, Node, StepResult
from .base import Backend, family


@dataclass(frozen=True)
class TorchSDE(Backend, DriftSolver):
    """On the grid of `scoresde.solve`, with its ``stochasticity``, one call of the library per step, and the increments
    of the solve's own noise; samples do not affect each other.
    """

    package: ClassVar[str] = "torchsde"
    source: ClassVar[str] = "Li et al. (2020), torchsde. https://arxiv.org/abs/2001.01328"
    keeps_estimates: ClassVar[bool] = False
    # of most methods
    reading: ClassVar[str] = "stratonovich"  # or "ito"
    weak_order: ClassVar[int] = 1
    strong_order: ClassVar[float] = 1.0
    data_limit: ClassVar[bool] = True

    @property
    def native(self) -> str:
        """One of the same order along a path."""
        return "sra1" if self.strong_order == 1.5 else "euler_maruyama"

    def step(
        self,
        process: Process,
        x: Tensor,
        start: Node[float],
        stop: Node[float],
        state: tuple[Tensor, ...] | None,
    ) -> StepResult:
        """See `Solver.step`. The state is what the library wants to see again."""
        if isinstance(start.t, Tensor) or isinstance(stop.t, Tensor):
            raise InvalidArgumentError(f"{self.name!r} gives no gradient of the grid; take a method of scoresde's own.")
        module = self.load("torchsde")
        problem = _Problem(process, x, start, stop, self.reading)
        if state is not None:
            state = tuple(part.flatten()[(...,) + (None,) * tail] for part, tail in zip(state, (1, 2, 1), strict=True))
            problem.seen = (start.t, problem.y, state[0])  # needed before the first step, for its shape alone
        ends = torch.tensor([problem.sign * start.t, problem.sign * stop.t], dtype=torch.float64, device=x.device)
        states, extra = module.sdeint(
            problem,
            problem.y,
            ends,
            bm=_Path(problem, process.noise),
            method=self.scheme,
            dt=2 * abs(stop.t - start.t),
            extra=True,
            extra_solver_state=state,
        )
        kept = tuple(part.reshape(x.shape) for part in extra) if extra else None
        return StepResult(states[-1].reshape(x.shape), kept)


class _Problem:
    """Drift and diffusion as torchsde calls them, forward on its clock."""

    noise_type = "additive"

    def __init__(self, process: Process, x: Tensor, start: Node[float], stop: Node[float], reading: str) -> None:
        self.process, self.sde_type, self.like = process, reading, x
        self.y = x.reshape(-1, 1)
        self.sign = 1.0 if stop.t > start.t else -1.0
        self.nodes = {start.t: start, stop.t: stop}
        self.low, self.high = sorted((start.t, stop.t))
        self.seen: tuple[float, Tensor, Tensor] | None = None  # torchsde evaluates twice at the same place

    def f(self, s: Tensor, y: Tensor) -> Tensor:
        """The drift."""
        node = self._node(s)
        if self.seen is None or self.seen[0] != node.t or self.seen[1] is not y:
            drift = self.process.answer(self.process.drift(y.reshape(self.like.shape), node))
            self.seen = (node.t, y, self.sign * drift.reshape(-1, 1))
        return self.seen[2]

    def g(self, s: Tensor, y: Tensor) -> Tensor:
        """The diffusion, a 1 x 1 matrix for each number."""
        spread = self.process.diffusion(self.like, self._node(s))
        return (torch.ones_like(self.like) * spread).reshape(-1, 1, 1)

    def _node(self, s: Tensor) -> Node[float]:
        t = min(max(self.sign * float(s), self.low), self.high)
        if t not in self.nodes:
            self.nodes[t] = node_list(self.process.sde, torch.tensor([t], dtype=torch.float64))[0]
        return self.nodes[t]


class _Path:
    """A `Noise` as torchsde's Brownian motion: the increment, and its integral over the step where it is requested."""

    levy_area_approximation = "foster"  # nothing is missing: with additive noise the area has no effect

    def __init__(self, problem: _Problem, noise: Noise) -> None:
        self.problem, self.noise = problem, noise
        self.shape = problem.y.shape

    def __call__(self, s0: Tensor, s1: Tensor, return_U: bool = False, return_A: bool = False) -> Any:
        like, sign = self.problem.like, self.problem.sign
        start, stop = sign * float(s0), sign * float(s1)
        h = abs(stop - start)
        if return_U:  # the integral of W - W(s0)
            w, mean = self.noise.increment_and_mean(start, stop, like)
            out = [(h**0.5 * w).reshape(self.shape), (h * (h**0.5 * mean)).reshape(self.shape)]
        else:
            out = [(h**0.5 * self.noise.increment(start, stop, like)).reshape(self.shape)]
        if return_A:
            out.append(torch.zeros_like(out[0]))
        return out if len(out) > 1 else out[0]


family(TorchSDE)
