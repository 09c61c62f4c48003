"""Ratios of densities of paths in continuous time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import SDE
from ..core.support.checks import MOST_STOCHASTICITY, check_number
from ..core.support.display import Displayed, span
from ..solvers.sa_solver import SASolver
from .density import log_prob, process_of
from .path import Path


@dataclass(frozen=True, eq=False, repr=False)
class Girsanov(Displayed):
    """The logarithm of the ratio of two distributions of paths in continuous time.

    Attributes:
        log_ratio: of each path, ``(batch,)`` float64.
        coarse: the same from every other state of the path.
        error: the RMS distance of both. With small steps it is the distance of `log_ratio` to its limit; if it is not
            small beside the spread of `log_ratio`, the steps are too large to say.

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
    r"""The ratio of the distributions of two reverse SDEs along a path, in continuous time, with its discretisation
    error.

    By Girsanov's theorem, for scores s and s' that differ by :math:`\Delta s`,

    .. math:: \ln\frac{dP_{new}}{dP_{old}} = \int u\cdot dW - \frac12\int\|u\|^2\,dt,\qquad
        u = \frac{1+\eta^2}{2\eta}\,g\,\Delta s,

    where W drives the path under the old distribution. The integrals are taken over the states at the nodes, by the
    exact distribution of a step with the data estimate of its start, so that g may vary within a step. Halving the
    number of nodes shows the error: the difference of two nested sums is as large as the error of the finer one, to
    leading order.

    Args:
        path: of an SDE method with one random state per step, at its end, with as many steps as it takes.
        new, old: networks.
        sde: the process, of a path that was loaded.
        stochasticity: :math:`\eta` of the SDE that the path follows; it is known from the path.

    Returns:
        A `Girsanov`.

    Raises:
        InvalidArgumentError: the path has no states or others, fewer than two steps, or a step without noise; or its
            method does not follow a reverse SDE.

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
    check_one_each(path)
    eta = path.solver.follows(path.stochasticity)
    if eta is None:
        raise InvalidArgumentError(
            f"The steps of {path.solver.name!r} with these options do not follow the reverse SDE, whose distributions "
            "are compared here; take 'ancestral' or 'dpmpp_2m_sde'."
        )
    if stochasticity is not None:
        given = check_number("stochasticity", stochasticity, low=0.0, high=MOST_STOCHASTICITY, strict=True)
        if not math.isclose(given, eta, rel_tol=1e-6):
            raise InvalidArgumentError(
                f"`stochasticity` must be that of the path, {eta:g}, got {given:g}: distributions of paths with other "
                "noise have no ratio."
            )
    method = SASolver(predictor_order=1, corrector_order=0, tau=eta)
    fine, coarse = (
        log_prob(thinned, process, new, method=method) - log_prob(thinned, process, old, method=method)
        for thinned in (path, every_other(path))
    )
    return Girsanov(fine.detach(), coarse.detach())


def check_one_each(path: Path) -> None:
    """Refuse a path that has not one random state at the end of every step."""
    steps = len(path.times) - 1
    what = None
    if not len(path):
        what = "has no samples"
    elif not path.states:
        what = "holds no states; solve with path_log_prob=True"
    elif not bool(path.noisy.all()):
        what = f"draws nothing in step {int((~path.noisy).nonzero()[0])}; end the solve above sigma = 0, by t_end"
    elif len(path.noisy) < steps:
        what = "was stopped before its end"
    elif path.step_of != tuple(range(steps)) or path.levels != tuple(path.times[1:].tolist()):
        what = "has other random states than one at the end of each step; take 'ancestral' or 'dpmpp_2m_sde'"
    elif steps < 2:
        what = "has one step, and the error is seen by halving: take two or more"
    if what is not None:
        raise InvalidArgumentError(f"`path` {what}.")


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
