r"""Expectations of a scheme on one-dimensional mixtures, without Monte Carlo error.

With :math:`\Psi_k(x, z)` one step of the scheme, :math:`u_k(x) = E\,u_{k+1}(\Psi_k(x, z))` starting from the observable
itself (the backward Kolmogorov recursion): Gauss-Hermite nodes for z, a cubic spline in x.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from ..core.errors import InvalidArgumentError, InvalidTypeError, short
from ..core.sdes import AffineSDE
from ..core.sdes.base import check_sde
from ..core.support.checks import check_callable, check_integer, check_kind, check_number
from ..solvers import Multistep, Solver, make_solver
from ..targets import GaussianMixture
from .run import end_of, grid_of

OBSERVABLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "square": lambda x: x**2,
    "cosine": lambda x: np.cos(2 * x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-4 * x)),
}
MOST_DRAWS_A_STEP = 8
_MOST_KNOTS, _MOST_NODES, _MOST_STATES = 100_000, 300, 10_000_000
REACH = 9.0  # standard deviations of the marginal distribution that the spline covers; beyond it lies 1e-18


def observe(x: np.ndarray) -> np.ndarray:
    """All observables, ``(n, observables)``."""
    return np.stack([f(x) for f in OBSERVABLES.values()], axis=1)


def components(target: GaussianMixture, sde: AffineSDE, t: float) -> tuple[np.ndarray, ...]:
    """Weights, means and standard deviations of the distribution at time t."""
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    means = alpha * target.means.reshape(-1).numpy()
    stds = np.sqrt(alpha**2 * target.spectrum.values.reshape(-1).numpy() + sigma**2)
    return target.log_weights.exp().numpy(), means, stds


def expectations_of_law(
    target: GaussianMixture,
    sde: AffineSDE,
    t: float,
    function: Callable[[np.ndarray], np.ndarray] = observe,
) -> np.ndarray:
    """The expectations of ``function``, by default of the three observables, under the distribution at time t.

    Example:
        >>> import scoresde
        >>> target = GaussianMixture(torch.ones(1), torch.zeros(1, 1), scales=1.0)
        >>> round(float(expectations_of_law(target, scoresde.VPSDE(), 0.5)[0]), 6)  # E x^2
        1.0
    """
    check_scalar(target, sde)
    check_callable("function", function, "function(x)")
    t = check_number("t", t, low=sde.t_min, high=sde.t_max)
    z, w = np.polynomial.hermite_e.hermegauss(100)
    weights, means, stds = components(target, sde, t)
    return sum(p * (w / w.sum()) @ _observed(function, m + s * z) for p, m, s in zip(weights, means, stds, strict=True))


def check_scalar(target: GaussianMixture, sde: AffineSDE) -> None:
    """Refuse what is not a mixture on the line with an affine process."""
    check_kind("target", target, GaussianMixture, "a scoresde.targets.GaussianMixture")
    check_sde(sde, affine=True)
    if math.prod(target.event_shape) != 1:
        raise InvalidArgumentError(
            f"`target` must have events of one element, along which its mass is known, got events "
            f"{target.event_shape}; in more dimensions take scoresde.targets.Gaussian: its flow_map, or weak_order."
        )


def _observed(function: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    """The observables at some places, checked."""
    values = function(x)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or values.shape[:1] != x.shape:
        raise InvalidTypeError(f"`function` must return an array ({len(x)}, observables), got {short(values)}.")
    return values


def expectations(
    target: GaussianMixture,
    sde: AffineSDE,
    times: torch.Tensor,
    method: Solver | str,
    *,
    draws: int = 1,
    points: int = 401,
    nodes: int = 20,
    score_fn: Callable[..., torch.Tensor] | None = None,
    function: Callable[[np.ndarray], np.ndarray] = observe,
    **options: object,
) -> np.ndarray:
    """The expectations of the observables after a solve that starts at the exact distribution at ``times[0]``.

    Args:
        target, sde, times: the exact distribution, the process, and the times of the steps.
        method: one that keeps nothing from step to step, such as ``"ancestral"``.
        score_fn: another score than the target's, as a guided one; its states must stay where the spline is.
        function: other observables, ``(n,) -> (n, observables)``.
        draws: standard normal draws per step.
        points: knots of the spline.
        nodes: Gauss-Hermite nodes per draw.

    Example:
        >>> import scoresde
        >>> sde, target = (
        ...     scoresde.VPSDE(),
        ...     GaussianMixture(torch.ones(1), torch.zeros(1, 1), scales=1.0),
        ... )
        >>> times = torch.linspace(1.0, 0.01, 161, dtype=torch.float64)
        >>> # E x^2, exactly 1
        >>> round(float(expectations(target, sde, times, "ancestral", points=101)[0]), 2)
        0.95
    """
    check_scalar(target, sde)
    check_callable("function", function, "function(x)")
    draws = check_integer("draws", draws, low=1, high=MOST_DRAWS_A_STEP)
    points = check_integer("points", points, low=4, high=_MOST_KNOTS)
    nodes = check_integer("nodes", nodes, low=1, high=_MOST_NODES)
    if nodes**draws * points > _MOST_STATES:
        raise InvalidArgumentError(f"`points` * `nodes` ** `draws` must be at most {_MOST_STATES} states; take fewer.")
    times = grid_of(times, sde.t_min, sde.t_max)
    score, solver = target.score(sde) if score_fn is None else score_fn, make_solver(method, options)
    if isinstance(solver, Multistep) and solver.memory > 1:
        raise InvalidArgumentError(
            f"method={solver.name!r} uses earlier steps, which the recursion does not keep; see weak_order on a "
            f"Gaussian."
        )
    z1, w1 = np.polynomial.hermite_e.hermegauss(nodes)
    zs = np.stack([g.ravel() for g in np.meshgrid(*[z1] * draws, indexing="ij")])  # (draws, nodes^draws)
    w = np.prod(np.stack([g.ravel() for g in np.meshgrid(*[w1 / w1.sum()] * draws, indexing="ij")]), axis=0)
    tiled = torch.as_tensor(np.tile(zs, (1, points)))[..., None]  # (draws, points * nodes^draws, 1)

    def knots(t: float) -> np.ndarray:
        weights, means, stds = components(target, sde, t)
        spread = np.sqrt((weights * (stds**2 + (means - weights @ means) ** 2)).sum())
        return weights @ means + spread * REACH * np.linspace(-1, 1, points)

    def draw(k: int, like: torch.Tensor) -> torch.Tensor:
        if k >= draws:
            raise InvalidArgumentError(f"The method makes more than {draws} draws per step; pass draws={k + 1}.")
        return tiled[k]

    ends = times.tolist()
    x = knots(ends[-1])
    later = CubicSpline(x, _observed(function, x))
    for start, stop in zip(ends[-2::-1], ends[:0:-1], strict=True):
        low, high = x[0], x[-1]
        x = knots(start)
        states = torch.as_tensor(np.repeat(x, len(w)))[:, None]
        grid = torch.tensor([start, stop], dtype=torch.float64)
        moved = end_of(solver, sde, score, states, grid, draw)
        values = later(moved[:, 0].numpy().clip(low, high)).reshape(points, len(w), -1)
        later = CubicSpline(x, np.einsum("pqo,q->po", values, w))
    return expectations_of_law(target, sde, ends[0], later)
