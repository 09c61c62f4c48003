"""Imputation by replacement: Song's predictor-corrector samplers, and RePaint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ...core.errors import InvalidArgumentError
from ...core.processes import result_of
from ...core.support.declared import Steps, checked
from ...solvers.base import SDE, Asking, Node, Process, Solver, Step, StepResult
from ...solvers.families.transition import leap
from ...solvers.predictor_corrector import Corrector, PredictedSolver, ReverseDiffusion
from .base import Repeats, SpectralSolver, detours, impute


@checked
@dataclass(frozen=True, eq=False)
class Replacement(SpectralSolver, PredictedSolver):
    r"""Replacement: after each move the measured part is put in place, perturbed to the current level.

    .. math:: V^Hx \leftarrow \alpha_t V^HA^+y + \sigma_t V^Hz \quad\text{where } s > 0.

    With a `scoresde.inverse.Mask` this is imputation, with `scoresde.inverse.Grey` colourisation in the orthogonal
    transform of the channels; with a corrector, the predictor-corrector samplers of Song et al. With ``repeats`` above
    1 it is RePaint: every stretch of ``jump`` steps is repeated that many times, with the forward process's noise in
    between, so that the two parts can agree.

    Facts:
        The evaluations of the predictor and the corrector per step; no vector-Jacobian product. The rest of the state
        depends on y only through the noisy known part, so that the distribution is not the posterior; ``repeats``
        brings it closer. The noise of y is treated as signal.

    Differs from:
        score_sde's inpainting and colourisation, which return the known part's mean, not a draw, to the mean that the
        last step gives; here every replaced value is a draw at the level where the state is. RePaint's code draws its
        jumps one step at a time; the leap is the same in distribution.

    Args:
        measurement: of a linear operator with singular values.
        predictor: a solver that makes one step per step of the grid.
        corrector: moves within a level, before the predictor's step; None for none.
        jump, repeats: of RePaint.

    Example:
        >>> from scoresde.inverse import Mask, Measurement, Replacement
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> seen = Measurement(Mask(torch.tensor([True, False])), torch.tensor([3.0]))
        >>> x = scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method=Replacement(seen),
        ...     steps=20,
        ...     shape=(9, 2),
        ...     seed=0,
        ... ).x
        >>> bool((x[:, 0] - 3).abs().max() < 0.1)
        True

    References:
        Song et al. (2021), appendix I.2-I.3, algorithms 4-5. https://arxiv.org/abs/2011.13456
        Lugmayr et al. (2022), RePaint, algorithm 1. https://arxiv.org/abs/2201.09865
    """

    predictor: Solver = field(default_factory=ReverseDiffusion)
    corrector: Corrector | None = None
    jump: Steps = 10
    repeats: Repeats = 1

    name: ClassVar[str] = "replacement"
    reference: ClassVar[str] = "Song et al. (2021), appendix I.2-I.3; Lugmayr et al. (2022)"

    def __post_init__(self) -> None:
        super().__post_init__()
        own = self.predictor.adaptive or self.predictor.own_steps or self.predictor.looks_ahead
        if own or self.predictor.batch_coupled or self.predictor.kind in ("mcmc", "forward"):
            name = self.predictor.name
            raise InvalidArgumentError(f"`predictor` must make fixed steps down, without weights, got {name!r}.")

    @property
    def keeps_estimates(self) -> bool:
        """True if the predictor's or the corrector's is."""
        return self.predictor.keeps_estimates or (self.corrector is not None and self.corrector.keeps_estimates)

    def visit(self, sde: SDE, times: Tensor) -> Tensor:
        """The grid with its repeats."""
        return detours(times, self.jump, self.repeats)

    def prepare(self, process: Process, nodes: Sequence[Node]) -> None:
        """Prepare the predictor and the corrector."""
        self.predictor.prepare(process, nodes)
        if self.corrector is not None:
            self.corrector.prepare(process, nodes[:-1])

    def init(self, process: Process, x: Tensor, start: Node) -> Asking[tuple[object, object]]:
        """The predictor's state, and the known part."""
        memory = yield from result_of(self.predictor.init(process, x, start))
        return memory, super().init(process, x, start)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: tuple[object, Tensor]) -> Step:
        """See `Solver.step`."""
        memory, known = state
        if stop.lam < start.lam:
            x = leap(x, start, stop, (yield process.normal(x)))
            return StepResult(x, ((yield from result_of(self.predictor.init(process, x, stop))), known))
        if self.corrector is not None:
            moved = yield from result_of(self.corrector.correct(process, x, start))
            x = yield from impute(process, self.operator, moved, known, start)
        result = yield from result_of(self.predictor.step(process, x, start, stop, memory))
        moved = yield from impute(process, self.operator, result.x, known, stop)
        return StepResult(moved, (result.state, known))
