"""The protocol of a solver: an immutable object that knows how to make one step."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from ..noise import Noise
from ..processes import TIME, Coordinate, Process
from ..sdes import SDE, Node


class StepResult(NamedTuple):
    """The state after a step, the solver's memory for the next one, and an error estimate (adaptive methods).

    Example:
        >>> import torch
        >>> StepResult(torch.zeros(1, 2)).error is None
        True
    """

    x: Tensor
    state: Any = None
    error: Tensor | None = None


class Solver(abc.ABC):
    """One method. Subclasses are frozen dataclasses whose fields are the method's options.

    A class declares what it is, by class variables or, where it depends on the options, by properties;
    `scoresde.methods` shows it, `scoresde.solve` refuses what does not fit, and the convergence tests measure the
    orders.

    Attributes:
        name: what `solve` calls it; ``aliases``: other names of it.
        kind: ``"ode"``, ``"sde"``, ``"mcmc"`` or ``"backend"``.
        stochastic: whether it draws noise.
        adaptive: whether it chooses its own steps (its steps then carry an error estimate).
        evaluations: score evaluations a step; ``extra_evaluations``: those of the first steps beyond that.
        ode_order, weak_order, strong_order: orders of convergence, None where there is none.
        batch_coupled: whether samples depend on their batch mates.
        reference: where it comes from.
        affine: whether it needs a process with alpha and sigma.
        takes_stochasticity: whether it steps a general drift and diffusion, so that eta is free.
        noise_limit: whether it can start where alpha = 0; ``data_limit``: whether it can end where sigma = 0.
        looks_ahead: whether a step leaves something about the state at its end for the next, so that nothing else may
            move the state in between; such a method cannot be a predictor.
        default_steps: the number of steps that `solve` takes if none is given.
        stages: the fractions of a step at which it looks inside, on the clock of its ``coordinate``.
    """

    name: ClassVar[str] = "own"
    aliases: ClassVar[tuple[str, ...]] = ()

    @property
    def kind(self) -> str:
        return "ode"

    @property
    def stochastic(self) -> bool:
        return False

    @property
    def adaptive(self) -> bool:
        return False

    @property
    def evaluations(self) -> int:
        return 1

    @property
    def extra_evaluations(self) -> int:
        return 0

    @property
    def ode_order(self) -> int | None:
        return None

    @property
    def weak_order(self) -> int | None:
        return None

    @property
    def strong_order(self) -> float | None:
        return None

    @property
    def batch_coupled(self) -> bool:
        return False

    @property
    def reference(self) -> str:
        return ""

    @property
    def affine(self) -> bool:
        return True

    @property
    def takes_stochasticity(self) -> bool:
        return False

    @property
    def noise_limit(self) -> bool:
        return False

    @property
    def data_limit(self) -> bool:
        return False

    @property
    def looks_ahead(self) -> bool:
        return False

    @property
    def default_steps(self) -> int:
        return 50

    @property
    def stages(self) -> tuple[float, ...]:
        return ()

    @property
    def coordinate(self) -> Coordinate:
        return TIME

    @property
    def default_stochasticity(self) -> float:
        """The eta of the process that the method steps unless told otherwise: 0 for the probability flow, else 1."""
        return 1.0 if self.stochastic else 0.0

    def prepare(self, process: Process, nodes: Sequence[Node]) -> None:
        """Called once before the first step on a fixed grid: look up the nodes that steps will ask for."""
        if self.stages:
            process.look_inside(nodes, self.stages, self.coordinate)

    def visit(self, sde: SDE, times: Tensor) -> Tensor:
        """The times that the method goes through, given those of the grid; most go straight."""
        return times

    def init(self, process: Process, x: Tensor, start: Node) -> Any:
        """The memory before the first step: None, a tensor ``(batch, ...)`` or a NamedTuple of those."""
        return None

    @abc.abstractmethod
    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: Any, noise: Noise) -> StepResult:
        """One step from ``start`` to ``stop``. Inputs are not changed; randomness comes from ``noise`` only."""
