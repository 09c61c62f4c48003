"""Ratios of densities of paths in continuous time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from .._checks import MOST_STOCHASTICITY, check_number
from .._display import Displayed, span
from ..errors import InvalidArgumentError
from ..sdes import SDE
from ..solvers.sa_solver import SASolver
from .density import log_prob, process_of
from .path import Path


@dataclass(frozen=True, eq=False, repr=False)
class Girsanov(Displayed):
    """The logarithm of the ratio of two laws of paths in continuous time.

    Attributes:
        log_ratio: of each path, ``(batch,)`` float64.
        coarse: the same from every other state of the path.
        error: the RMS distance of both, which is that of `log_ratio` to its limit, to leading order.

    Example:
        >>> zero = torch.zeros(1)
        >>> Girsanov(zero, zero).error
        0.0
    """

    log_ratio: Tensor
    coarse: Tensor

    @property
    def error(self) -> float:
        """See the class."""
        return float((self.log_ratio - self.coarse).square().mean().sqrt())

    def _summary(self) -> dict[str, str]:
        return {"log_ratio": span(self.log_ratio), "error": f"{self.error:.3g}"}


def girsanov(
    path: Path,
    new: Callable[..., Tensor],
    old: Callable[..., Tensor],
    *,
    sde: SDE | None = None,
    stochasticity: float | None = None,
) -> Girsanov:
    r"""The ratio of the laws of two reverse SDEs along a path, in continuous time, with its discretisation error.

    By Girsanov's theorem, for scores s and s' that differ by :math:`\Delta s`,

    .. math:: \ln\frac{dP_{new}}{dP_{old}} = \int u\cdot dW - \frac12\int\|u\|^2\,dt,\qquad
        u = \frac{1+\eta^2}{2\eta}\,g\,\Delta s,

    where W drives the path under the old law. The integrals are taken over the states at the nodes, by the exact law of
    a step with the data estimate of its start, so that g may vary within a step. Halving the number of nodes shows the
    error: the difference of two nested sums is as large as the error of the finer one, to leading order.

    Args:
        path: of an SDE method with one random state per step, at its end, with as many steps as it takes.
        new, old: networks.
        sde: the process, of a path that was loaded.
        stochasticity: :math:`\eta` of the SDE that the path follows, 1 by default.

    Returns:
        A `Girsanov`.

    Raises:
        InvalidArgumentError: the path has other states, fewer than two steps, or a step without noise.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(1), torch.eye(1))
        >>> sde = scoresde.VPSDE()
        >>> old = target.score(sde)
        >>> path = scoresde.solve(
        ...     sde,
        ...     old,
        ...     method="ancestral",
        ...     steps=64,
        ...     shape=(100, 1),
        ...     seed=0,
        ...     path_log_prob=True,
        ... ).path
        >>> found = girsanov(path, lambda x, t: 1.02 * old(x, t), old)
        >>> found.error < found.log_ratio.std()
        tensor(True)

    References:
        Oksendal (2003), Stochastic Differential Equations, theorem 8.6.6.
    """
    process = process_of(path, sde)
    steps = len(path.times) - 1
    one_each = path.step_of == tuple(range(steps)) and path.levels == tuple(path.times[1:].tolist())
    if not one_each or steps < 2:
        raise InvalidArgumentError(
            "`path` must have two steps or more, with one random state each, at its end, as those of 'ancestral' or "
            "'dpmpp_2m_sde'."
        )
    eta = check_number(
        "stochasticity", 1.0 if stochasticity is None else stochasticity, low=0.0, high=MOST_STOCHASTICITY, strict=True
    )
    method = SASolver(predictor_order=1, corrector_order=0, tau=eta)
    fine, coarse = (
        log_prob(thinned, process, new, method=method) - log_prob(thinned, process, old, method=method)
        for thinned in (path, every_other(path))
    )
    return Girsanov(fine.detach(), coarse.detach())


def every_other(path: Path) -> Path:
    """The path seen at every other node, and at its end."""
    last = len(path.times) - 1
    kept = sorted({*range(0, last, 2), last})
    return replace(
        path,
        times=path.times[kept],
        states=tuple(path.states[i - 1] for i in kept[1:]),
        step_of=tuple(range(len(kept) - 1)),
        levels=tuple(path.levels[i - 1] for i in kept[1:]),
        log_probs=path.log_probs[:, : len(kept) - 1],
        noisy=path.noisy[[i - 1 for i in kept[1:]]],
        table=path.table[[*kept, *(last + i for i in kept[1:])]],
    )
