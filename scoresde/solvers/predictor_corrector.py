"""Predictor-corrector sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.processes import result_of
from ..core.support.checks import check_choice, check_kind
from .base import THROUGH_NETWORK, Node, Process, SDESolver, Solver, Step
from .correctors import Corrector, LangevinCorrector
from .reverse_diffusion import ReverseDiffusion


class PredictedSolver(SDESolver):
    """A method that steps by a predictor, and moves by a corrector if it has one."""

    predictor: Solver
    corrector: Corrector | None

    @property
    def evaluations(self) -> int:
        """The evaluations of the predictor and of the corrector."""
        return self.predictor.evaluations + (self.corrector.evaluations if self.corrector else 0)

    @property
    def batch_coupled(self) -> bool:
        """The same as that of the corrector."""
        return bool(getattr(self.corrector, "batch_coupled", False))

    @property
    def default_stochasticity(self) -> float:
        """The same as that of the predictor: a deterministic one steps the probability flow."""
        return self.predictor.default_stochasticity


@dataclass(frozen=True)
class PredictorCorrector(PredictedSolver):
    r"""A predictor's step to the next level, and a corrector's moves within a level.

    Per level, in the published code's order (``order="cp"``): correct at t, then predict from t to the next level; in
    the paper's order (``order="pc"``): predict, then correct at the new level.

    Facts:
        It targets a distribution, not an order. The evaluations of a step are the predictor's plus the corrector's: 2
        by default.

    Differs from:
        score_sde: the predictor is written through the transition kernel and so serves every process; the corrector's
        step is :math:`2(r\sigma_t)^2`, of each sample alone.

    Args:
        predictor: a solver that steps from level to level: `ReverseDiffusion`, `Ancestral`, `EulerMaruyama`, `DDIM`, …;
            `scoresde.solve` also takes a name.
        corrector: a corrector.
        order: ``"cp"`` or ``"pc"``.

    Example:
        >>> import torch, scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VESDE()
        >>> scoresde.solve(
        ...     sde, target.score(sde), method="pc", steps=20, predictor="ancestral", snr=0.1
        ... ).evaluations
        40

    References:
        Song et al. (2021), algorithms 1-3. https://arxiv.org/abs/2011.13456
    """

    predictor: Solver = field(default_factory=ReverseDiffusion)
    corrector: Corrector = field(default_factory=LangevinCorrector)
    order: str = "cp"

    reference: ClassVar[str] = "Song et al. (2021), algorithms 1-3"
    default_steps: ClassVar[int] = 500

    def __post_init__(self) -> None:
        solver = "a solver such as scoresde.solvers.Ancestral() or its name"
        check_kind("predictor", self.predictor, Solver, solver)
        own = self.predictor.adaptive or self.predictor.own_steps
        alone = "step each sample by itself, since the corrector's moves would invalidate weights"
        for wrong, what in (
            (own or isinstance(self.predictor, PredictorCorrector), "make fixed steps of its own"),
            (self.predictor.kind in ("mcmc", "forward"), "step from level to level"),
            (self.predictor.batch_coupled, alone),
        ):
            if wrong:
                raise InvalidArgumentError(f"`predictor` must {what}, got {self.predictor.name!r}; try 'ancestral'.")
        if self.predictor.looks_ahead:
            raise InvalidArgumentError(
                f"`predictor` must not correct or repeat its own steps, as {self.predictor.name!r} does; try "
                f"'dpmpp_2m' or 'ancestral'."
            )
        corrector = "a corrector such as scoresde.LangevinCorrector() or its name"
        check_kind("corrector", self.corrector, Corrector, corrector)
        check_choice("order", self.order, ("cp", "pc"))

    @property
    def keeps_estimates(self) -> bool:
        """True if the predictor's or the corrector's is."""
        return self.predictor.keeps_estimates or self.corrector.keeps_estimates

    @property
    def gaussian_step(self) -> bool:
        """True if the corrector's moves are, and the predictor's steps, or these draw nothing and moves follow them."""
        moves = self.corrector is None or self.corrector.gaussian_step
        still = not self.predictor.stochastic and self.corrector is not None and self.order == "pc"
        return moves and (self.predictor.gaussian_step or still)

    @property
    def not_gaussian(self) -> str:  # type: ignore[override]
        """Of the part that is not."""
        if self.corrector is not None and not self.corrector.gaussian_step:
            return self.corrector.not_gaussian
        return self.predictor.not_gaussian if self.predictor.stochastic else THROUGH_NETWORK

    @property
    def takes_stochasticity(self) -> bool:
        """The same as that of the predictor."""
        return self.predictor.takes_stochasticity

    def follows(self, eta: float) -> float | None:
        """The same as the predictor."""
        return self.predictor.follows(eta)

    @property
    def data_limit(self) -> bool:
        """The same as that of the predictor, if nothing is corrected at the end."""
        return self.predictor.data_limit and self.order == "cp"

    @property
    def limit_evaluations(self) -> int:
        """Those of the predictor and of the corrector."""
        return self.evaluations - self.predictor.evaluations + self.predictor.limit_evaluations

    @property
    def extra_evaluations(self) -> int:
        """The same as that of the predictor."""
        return self.predictor.extra_evaluations

    def prepare(self, process: Process, nodes: Sequence[Node]) -> None:
        """Prepare the predictor and the corrector."""
        self.predictor.prepare(process, nodes)
        self.corrector.prepare(process, nodes[:-1] if self.order == "cp" else nodes[1:])

    def init(self, process: Process, x: Tensor, start: Node) -> object:
        """The predictor's state."""
        return self.predictor.init(process, x, start)

    def step(self, process: Process, x: Tensor, start: Node, stop: Node, state: object) -> Step:
        """See `Solver.step`."""
        if self.order == "cp":
            moved = yield from result_of(self.corrector.correct(process, x, start))
            return (yield from result_of(self.predictor.step(process, moved, start, stop, state)))
        result = yield from result_of(self.predictor.step(process, x, start, stop, state))
        return result._replace(x=(yield from result_of(self.corrector.correct(process, result.x, stop))))
