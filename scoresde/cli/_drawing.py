"""How ``scoresde sample`` draws the samples of a batch, by their indices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import NonFiniteError, SolveFailedError
from ._options import follow
from ._sets import Show, both

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..core.sdes import AffineSDE
    from ..core.solution import Info, Solution
    from ..sets import Batch
    from ..trust import Certificate
    from ._animation import Frames
    from ._options import SolvePlan

_NAMED = 5  # samples that a message names


@dataclass
class CommandSamples:
    """The samples of a command, batch by batch.

    Args:
        process, event, seed, device: as of `scoresde.solve`.
        plan: of all samples, or of one for each range of indices, where there are several measurements.
        measured: how many measurements there are: sample i is of number i modulo it.
        score_of: the network's score for samples from an index on, so many.
        classes_of: their classes: a tensor, one class for all, or None.
        arguments: of `scoresde.solve`, for every plan.
        first, num: the samples that the command draws.
        frames: that an animation takes.
        certificate: which draws the samples with bounds on their errors; None without.

    Attributes:
        calls: of the network, until now.
    """

    process: AffineSDE
    event: tuple[int, ...]
    seed: int
    device: torch.device
    plan: SolvePlan
    plan_at: Callable[[range], SolvePlan]
    measured: int
    score_of: Callable[[int, int], Callable[..., Any]]
    classes_of: Callable[[int, int], Any]
    arguments: Mapping[str, Any]
    first: int
    num: int
    frames: Frames | None = None
    certificate: Certificate | None = None
    calls: int = 0

    def __post_init__(self) -> None:
        several = self.measured > 1 or hasattr(self.classes_of(self.first, 1), "shape")
        self._shared = None if several else self.plan.model(self.score_of(self.first, 1))

    def solve(self, start: int, count: int, callback: Callable[[Info], None], *, throw: bool = True) -> Solution:
        """Samples ``start`` … ``start + count - 1``."""
        from ..core.noise import SampleNoise
        from ..core.solve import solve

        indices = range(start, start + count)
        if self.certificate is not None:
            found = self.certificate.solve(
                shape=(count, *self.event), noise=SampleNoise(self.seed, indices=indices), throw=throw
            )
            self.calls += found.evaluations
            return found
        plan = self.plan if self.measured == 1 else self.plan_at(indices)
        solution = solve(
            self.process,
            plan.model(self.score_of(start, count)) if self._shared is None else self._shared,
            shape=(count, *self.event),
            noise=SampleNoise(self.seed, indices=indices),
            device=self.device,
            callback=callback,
            throw=throw,
            **plan.told,
            **self.arguments,
        )
        self.calls += solution.evaluations
        return solution

    def arrays(self, start: int, solution: Solution) -> dict[str, Tensor]:
        """What is kept of samples from ``start`` on."""
        import torch

        count = len(solution.x)
        classes = self.classes_of(start, count)
        return {
            "x": solution.x,
            "nfe": solution.nfe,
            **({} if solution.error_bound is None else {"error_bound": solution.error_bound}),
            **({"label": classes} if isinstance(classes, torch.Tensor) else {}),
            **({"measurement": torch.arange(start, start + count) % self.measured} if self.measured > 1 else {}),
        }

    def shown(self, show: Show | None) -> Callable[[Info], None] | None:
        """A callback that shows how far a batch is."""
        return follow(show, self.plan.solver, self.process, self.plan.steps)

    def whole(self, start: int, count: int, show: Show | None, beat: Callable[[Info], object] | None = None) -> Any:
        """The arrays of samples that must all succeed."""
        callback = both(beat or (lambda info: None), self.shown(show))
        if self.frames is not None:
            callback = self.frames.watch(start - self.first, callback)
        try:
            solution = self.solve(start, count, callback)
        except NonFiniteError as error:
            raise _located(error, start) from error
        except SolveFailedError as error:
            raise _named(error, start) from error
        if not bool(solution.x.isfinite().all()):
            raise NonFiniteError("A sample is not finite. Nothing was written.", stage="state")
        return self.arrays(start, solution)

    def marked(self, batch: Batch, show: Show) -> tuple[dict[str, Tensor], Tensor]:
        """The arrays of a batch of a set, of which some may have failed, and the times at which they ended."""
        start, count = int(batch.indices[0]), len(batch.indices)
        solution = self.solve(start, count, both(batch.callback, self.shown(show)), throw=False)
        return {**self.arrays(start, solution), "status": solution.status}, solution.t

    def part(self, batch: Batch, show: Show) -> tuple[dict[str, Tensor], None]:
        """The arrays of a batch of a file, whose indices count from the first sample of the command."""
        start, count = int(batch.indices[0]), len(batch.indices)
        wanted = min(count, self.num - start)
        found = self.whole(self.first + start, wanted, show, batch.callback)
        return {name: _filled(values, count) for name, values in found.items()}, None


def _filled(values: Tensor, count: int) -> Tensor:
    """With rows up to a number; those that are added are beyond the last sample, and not kept."""
    return values if len(values) == count else values[[*range(len(values)), *[-1] * (count - len(values))]]


def _named(error: SolveFailedError, first: int) -> SolveFailedError:
    """The error of an adaptive method, with the samples counted from the seed's first."""
    from ..core.solution import Status

    if error.partial is None:
        return error
    others = (Status.SUCCESS, Status.STOPPED)
    failed = [first + i for i, code in enumerate(error.partial.status.tolist()) if code not in others]
    if not failed:
        return error
    named = ", ".join(map(str, failed[:_NAMED]))
    return type(error)(
        f"{error}\nFailed: sample {named}{', ...' * (len(failed) > _NAMED)}; --first {failed[0]} --count 1 draws the "
        f"first of them alone. Nothing was written."
    )


def _located(error: NonFiniteError, first: int) -> NonFiniteError:
    """The error, with the samples counted from the seed's first."""
    indices = [first + i for i in error.indices]
    named = ", ".join(map(str, indices))
    return NonFiniteError(
        f"{error}\nFailed: sample {named}{', ...' if len(indices) == 5 else ''}; --first {indices[0]} --count 1 draws "
        f"the first of them alone. Nothing was written.",
        stage=error.stage,
        step=error.step,
        t=error.t,
        indices=indices,
    )
