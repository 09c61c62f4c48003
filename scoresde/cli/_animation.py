"""The states on the way from noise to samples, for ``scoresde sample --animate``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.sdes import AffineSDE
    from ..core.solution import Info

ANIMATIONS = (".gif", ".mp4")


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
