"""How ``scoresde sample`` draws the samples of a batch, by their indices, and keeps the states on the way to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidArgumentError, NonFiniteError, SolveFailedError
from ._options import follow, label_of
from ._sets import Show, both

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.sdes import AffineSDE
    from ..core.solution import Info, Solution
    from ..sets import Batch
    from ..trust import Certificate
    from ._options import Opened, SolvePlan

ALL = "all"
ANIMATIONS = (".gif", ".mp4")
_NAMED = 5  # samples that a message names


@dataclass(frozen=True)
class Scores:
    """The network's scores for samples ``first`` … ``first + count - 1``, as a function of these two numbers: for their
    classes, guided away from its score without one.

    Args:
        opened: the network and the process.
        label, guidance: as the command line has them.
    """

    opened: Opened
    label: str | None
    guidance: float | None

    def __post_init__(self) -> None:
        if self.guidance is not None and self.label is None:
            raise InvalidArgumentError(
                "`guidance` needs a class to guide towards; give one, such as --label 7 --guidance 2."
            )

    def __call__(self, first: int, count: int) -> Callable[..., Any]:
        network, process = self.opened.network, self.opened.process
        score_fn = network.score(process, **label_of(network, self.classes(first, count)))
        if self.guidance is None:
            return score_fn
        from ..guidance import classifier_free

        return classifier_free(score_fn, network.score(process), self.guidance)

    def classes(self, first: int, count: int) -> Any:
        """The class of all samples, None for none, or one for each of them."""
        network, label = self.opened.network, self.label
        if label is None:
            return None
        if label == ALL and network.labels is not None:
            import torch

            return torch.arange(first, first + count) % network.labels.count
        if label == ALL:
            return 0  # which a model without labels refuses
        try:
            return int(label)
        except ValueError:
            raise InvalidArgumentError(f"`label` must be the number of a class, or {ALL}, got {label!r}.") from None


@dataclass
class CommandSamples:
    """The samples of a command, batch by batch.

    Args:
        opened: the network and the process.
        scores: of the network.
        seed, first, num: as the command line has them.
        plan: of all samples.
        plan_at: the plan of each range of indices, where there are several measurements.
        measured: how many there are: sample i is of number i modulo it.
        arguments: of `scoresde.solve`, for every plan.
        frames: that an animation takes.
        certificate: which draws the samples with bounds on their errors; None without.

    Attributes:
        calls: of the network, until now.
    """

    opened: Opened
    scores: Scores
    seed: int
    first: int
    num: int
    plan: SolvePlan
    plan_at: Callable[[range], SolvePlan] | None
    measured: int
    arguments: Mapping[str, Any]
    frames: Frames | None = None
    certificate: Certificate | None = None
    calls: int = 0

    def __post_init__(self) -> None:
        several = self.plan_at is not None or hasattr(self.scores.classes(self.first, 1), "shape")
        self._shared = None if several else self.plan.model(self.scores(self.first, 1))

    def solve(self, start: int, count: int, callback: Callable[[Info], None], *, throw: bool = True) -> Solution:
        """Samples ``start`` … ``start + count - 1``."""
        from ..core.noise import SampleNoise
        from ..core.solve import solve

        indices = range(start, start + count)
        if self.certificate is not None:
            found = self.certificate.solve(
                shape=(count, *self.opened.event), noise=SampleNoise(self.seed, indices=indices), throw=throw
            )
            self.calls += found.evaluations
            return found
        plan = self.plan if self.plan_at is None else self.plan_at(indices)
        solution = solve(
            self.opened.process,
            plan.model(self.scores(start, count)) if self._shared is None else self._shared,
            shape=(count, *self.opened.event),
            noise=SampleNoise(self.seed, indices=indices),
            device=self.opened.device,
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
        classes = self.scores.classes(start, count)
        return {
            "x": solution.x,
            "nfe": solution.nfe,
            **({} if solution.error_bound is None else {"error_bound": solution.error_bound}),
            **({"label": classes} if isinstance(classes, torch.Tensor) else {}),
            **({"measurement": torch.arange(start, start + count) % self.measured} if self.measured > 1 else {}),
        }

    def shown(self, show: Show | None) -> Callable[[Info], None] | None:
        """A callback that shows how far a batch is."""
        return follow(show, self.plan.solver, self.opened.process, self.plan.steps)

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


class Frames:
    r"""What a callback sees of the batches that are solved one after the other.

    A state is kept as :math:`x_t/\sqrt{\alpha_t^2+\sigma_t^2}`, which has the size of data at all times. Of a batch
    every step is kept at first, and every second one of them is dropped each time that there are more than twice as
    many as will be shown.

    Args:
        process: what is solved.
        most: how many states to show.

    Example:
        >>> from scoresde.core.solution import Info
        >>> frames = Frames(scoresde.VPSDE(), most=2)
        >>> see = frames.watch(0, None)
        >>> for step in range(9):
        ...     see(Info(step=step, t=0.5, x=torch.zeros(3, 1, 8, 8), nfe=torch.ones(3)))
        >>> [state.shape for state in frames.states(torch.ones(3, 1, 8, 8))]
        [torch.Size([3, 1, 8, 8]), torch.Size([3, 1, 8, 8]), torch.Size([3, 1, 8, 8])]
    """

    def __init__(self, process: AffineSDE, most: int = 48) -> None:
        self._process = process
        self._most = most
        self._batches: dict[int, list[Tensor]] = {}

    def watch(self, first: int, also: Callable[[Info], None] | None) -> Callable[[Info], None]:
        """A callback that keeps the states of the batch whose first sample is ``first``, and then calls ``also``."""
        kept = self._batches[first] = []
        stride = 1

        def seen(info: Info) -> None:
            nonlocal stride
            if info.step % stride == 0:
                kept.append(self._shown(info))
            if len(kept) > 2 * self._most:
                del kept[1::2]
                stride *= 2
            if also is not None:
                also(info)

        return seen

    def _shown(self, info: Info) -> Tensor:
        import torch

        x = info.x.detach()
        t = torch.as_tensor(info.t, dtype=torch.float64)
        alpha, sigma = self._process.alpha(t), self._process.sigma(t)
        size = torch.as_tensor(alpha**2 + sigma**2).sqrt().to(x)
        return (x / size.reshape(-1, *[1] * (x.ndim - 1))).to("cpu", torch.float16)

    def states(self, x: Tensor) -> list[Tensor]:
        """The states of all samples on the way, and the samples ``x`` themselves."""
        import torch

        runs = [self._batches[first] for first in sorted(self._batches)]
        count = min(self._most, *map(len, runs)) if len(runs) > 1 else min(self._most, len(runs[0]))
        shares = [i / max(1, count - 1) for i in range(count)]
        on_the_way = [torch.cat([run[math.floor(share * (len(run) - 1))] for run in runs]) for share in shares]
        return [*(state.to(x.dtype) for state in on_the_way), x]
