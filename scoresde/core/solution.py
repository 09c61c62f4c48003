"""What a solve returns, and what its callback sees."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from .errors import InvalidArgumentError
from .support.display import Displayed, kind, span, tally


class Status(enum.IntEnum):
    """The outcome for a sample; a `Solution` has one per sample.

    Example:
        >>> Status(0).name
        'SUCCESS'
    """

    SUCCESS = 0
    NON_FINITE = 1
    STEP_UNDERFLOW = 2
    MAX_STEPS = 3
    STOPPED = 4


class _Info(NamedTuple):
    step: int
    t: float | Tensor
    x: Tensor
    nfe: Tensor


class Info(_Info):
    r"""What a callback sees after each step: the step's number, the time (per sample for adaptive methods), the whole
    batch's state, and the evaluations so far per sample.

    Example:
        >>> Info(step=1, t=0.5, x=torch.zeros(1, 2), nfe=torch.ones(1)).step
        1
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> sizes = []
        >>> solution = scoresde.solve(
        ...     sde,
        ...     target.score(sde),
        ...     method="ddim",
        ...     steps=3,
        ...     callback=lambda info: sizes.append(info.denoised.shape),
        ... )
        >>> sizes[0]
        torch.Size([1, 2])
    """

    _estimate: Callable[[], Tensor] | None = None  # while the callback runs

    @property
    def denoised(self) -> Tensor:
        r"""Tweedie's estimate :math:`E[x_0|x_t]` of the last evaluation in the step, ``(batch, *event)``, which costs
        none; NaN for samples that have left before. It is computed when it is read, inside the callback.

        Raises:
            InvalidArgumentError: the callback has returned, or alpha and sigma are not known.
        """
        if self._estimate is None:
            raise InvalidArgumentError("`denoised` is known while the callback runs; keep the tensor that it gives.")
        return self._estimate()


@dataclass(frozen=True, eq=False, repr=False)
class Solution(Displayed):
    """The result of a solve.

    Attributes:
        x: the final state ``(batch, *event)``; samples that failed are NaN.
        t: the time that each sample reached, ``(batch,)`` float64.
        nfe: score evaluations per sample, ``(batch,)``.
        steps: steps of the loop; a last step that needs no evaluation is made in that of the step before.
        accepted, rejected: steps per sample, ``(batch,)``.
        evaluations: calls of the score function.
        budget: how many evaluations per sample were wanted (``evaluations=``); the largest number of steps that they
            pay for was made.
        status: one `Status` per sample, ``(batch,)`` integers.
        ts, xs: the saved times and states, ``(n,)`` (``(n, batch)`` for every step of an adaptive method) and ``(n,
            batch, *event)``; None without ``save_at``.
        denoised: whether samples that arrived are the data estimate at t in place of the state (``denoise=True``).
        error_bound: of each sample, ``(batch,)``, if it was drawn by a certificate of `scoresde.certify`.
        log_prob: the log-density of each sample under the probability flow, ``(batch,)`` float64, with
            ``log_prob=True``; and ``log_prob_error``, its standard error by the probes of the divergence: NaN with one
            probe, the default, and 0 with ``"exact"``.
        path_log_prob: the log-density of the random states that each sample went through, given the one at the start,
            ``(batch,)`` float64, with ``path_log_prob=True``; and ``path``, the states, a `scoresde.paths.Path`.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> solution = scoresde.solve(
        ...     sde, target.score(sde), method="ddim", steps=5, save_at="steps"
        ... )
        >>> solution.xs.shape, bool(solution.success.all())
        (torch.Size([6, 1, 2]), True)
        >>> solution
        Solution(x=(1, 2) float32, t=0.001, status=1 × SUCCESS, evaluations per sample=5, steps=5, saved=6 states)
    """

    x: Tensor
    t: Tensor
    nfe: Tensor
    steps: int
    accepted: Tensor
    rejected: Tensor
    evaluations: int
    status: Tensor
    ts: Tensor | None = None
    xs: Tensor | None = None
    denoised: bool = False
    error_bound: Tensor | None = None
    log_prob: Tensor | None = None
    log_prob_error: Tensor | None = None
    path_log_prob: Tensor | None = None
    path: Any = None
    budget: int | None = None

    @property
    def success(self) -> Tensor:
        """Which samples arrived, ``(batch,)`` bool."""
        return self.status == Status.SUCCESS

    def _summary(self) -> dict[str, str]:
        return {
            "x": kind(self.x),
            "denoised at t" if self.denoised else "t": span(self.t),
            "status": tally(Status(code).name for code in self.status.tolist()),
            "evaluations per sample": span(self.nfe) + (f" of {self.budget}" if self.budget else ""),
            "steps": str(self.steps),
            **({} if self.xs is None else {"saved": f"{len(self.xs)} states"}),
            **({} if self.error_bound is None else {"error bound": span(self.error_bound)}),
            **({} if self.log_prob is None else {"log-density": span(self.log_prob)}),
            **({} if self.path_log_prob is None else {"path log-density": span(self.path_log_prob)}),
        }


__all__ = ["Info", "Solution", "Status"]
