r"""Tools to measure solvers: exact flow maps, exact distributions of a scheme, orders of convergence.

Three facts make most measurements free of Monte Carlo error.

- The probability flow of one-dimensional data keeps every sample's rank, so :math:`x_t = F_t^{-1}(F_s(x_s))` with the
  marginal distribution functions F (`mixture_flow_map`). This is a non-linear problem with an exact answer.
- For Gaussian data the score is affine in x, so a solver on a fixed grid is an affine map
  :math:`x = c + \sum_k J_k z_k` of its standard normal draws, the prior's included. Feeding it unit draws reads off c
  and all :math:`J_k` (`probe`), hence the exact mean and covariance of what it returns (`affine_law`).
- The solution of the linear reverse SDE is an explicit integral over the Brownian path, and so is a scheme's, so their
  mean square distance on the same path is a quadrature (`strong_error`).

Nothing here calls `scoresde.solve`: a measurement takes a function that does, so it serves any solver.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.sdes import AffineSDE
from ..core.sdes.base import check_sde
from ..core.support.checks import (
    MOST_DRAWS,
    MOST_STEPS,
    MOST_STOCHASTICITY,
    as_tensor,
    check_callable,
    check_integer,
    check_integers,
    check_kind,
    check_number,
    check_shape,
    check_state,
    check_tensor,
    check_times,
)
from ..targets import Gaussian, GaussianMixture
from ..targets.spectrum import Spectrum
from .kolmogorov import check_scalar, components
from .run import grid_of

Draw = Callable[[int, Tensor], Tensor]  # (k, like) -> the k-th standard normal draw of a solve
Run = Callable[[tuple[int, ...], Draw], Tensor]  # (shape, draw) -> the final state, of that shape
Weight = Callable[[Tensor], Tensor]  # times (n,) float64 -> amplitudes (n,)

_MOST_POINTS = 1000  # of a quadrature
_NEWTON_STEPS = 200  # a bracketed search; about ten are used


# --- the flow map of one-dimensional mixtures ------------------------------------------------------------------------


def mixture_flow_map(target: GaussianMixture, x: Tensor, sde: AffineSDE, s: float, t: float) -> Tensor:
    r"""The exact probability-flow map of a one-dimensional mixture from time s to time t, in either direction.

    .. math:: x_t = F_t^{-1}\big(F_s(x_s)\big), \qquad
              F_t(x) = \sum_k w_k\,\Phi\Big(\frac{x - \alpha_t m_k}{\sqrt{\alpha_t^2 v_k + \sigma_t^2}}\Big).

    The logarithm of the smaller tail is matched, by Newton's method inside a bracket (the quantile of a mixture lies
    between those of its components), so both tails keep their digits.

    Args:
        target: a mixture whose events have one element.
        x: ``(batch, *event)`` at time s, any floating dtype; the map is computed in float64.
        sde: the process.
        s, t: from and to.

    Returns:
        The states at time t, shaped like ``x``.

    Example:
        >>> target = scoresde.targets.GaussianMixture(
        ...     torch.tensor([0.4, 0.6]), torch.tensor([[-1.0], [2.0]]), scales=0.3
        ... )
        >>> sde, x = (
        ...     scoresde.VPSDE(),
        ...     torch.tensor([[-7.0], [0.1], [7.0]], dtype=torch.float64),
        ... )
        >>> there = mixture_flow_map(target, x, sde, 1.0, 0.1)
        >>> bool((mixture_flow_map(target, there, sde, 0.1, 1.0) - x).abs().max() < 1e-12)
        True

    References:
        Song et al. (2021), section 4.3 (the flow has the marginals of the SDE). https://arxiv.org/abs/2011.13456
    """
    check_scalar(target, sde)
    check_tensor("x", check_state("x", x), finite=True)
    s, t = (check_number(name, time, low=sde.t_min, high=sde.t_max) for name, time in (("s", s), ("t", t)))
    weights = target.log_weights.numpy()
    (_, mean_s, std_s), (_, mean_t, std_t) = (components(target, sde, time) for time in (s, t))
    flat = x.detach().reshape(-1).to("cpu", torch.float64).numpy()
    z = (flat[:, None] - mean_s) / std_s
    lower, upper = (special.logsumexp(weights + special.log_ndtr(sign * z), axis=1) for sign in (1, -1))
    side = np.where(lower <= upper, 1.0, -1.0)  # the tail that is matched: below x, or above
    goal = np.minimum(lower, upper)
    ends = mean_t + side[:, None] * std_t * special.ndtri_exp(goal)[:, None]  # each component's quantile
    y = _quantile(goal, side, weights, mean_t, std_t, ends.min(1), ends.max(1))
    return torch.as_tensor(y, dtype=torch.float64).to(x).reshape(x.shape)


def _quantile(goal: Any, side: Any, weights: Any, mean: Any, std: Any, low: Any, high: Any) -> Any:
    """The y with log P(tail) = goal, the tail being below y where side is 1 and above it where side is -1."""
    y = 0.5 * (low + high)
    for _ in range(_NEWTON_STEPS):
        z = (y[:, None] - mean) / std
        tail = special.logsumexp(weights + special.log_ndtr(side[:, None] * z), axis=1)
        log_density = special.logsumexp(weights - 0.5 * z * z - np.log(std) - 0.5 * math.log(2 * math.pi), axis=1)
        gap = tail - goal
        above = side * gap > 0
        high, low = np.where(above, y, high), np.where(above, low, y)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = y - side * gap * np.exp(tail - log_density)
        inside = (moved > low) & (moved < high)
        after = np.where(gap == 0, y, np.where(inside, moved, 0.5 * (low + high)))
        settled = np.abs(after - y) <= 2e-16 * np.abs(y)
        y = after
        if settled.all():
            break
    return y


# --- orders of convergence --------------------------------------------------------------------------------------------


class Convergence(NamedTuple):
    """Errors at growing numbers of steps (or evaluations).

    Example:
        >>> measured = Convergence((10, 20, 40), (0.1, 0.05, 0.0125))
        >>> [round(s, 6) for s in measured.slopes], round(measured.order(2), 6)
        ([1.0, 2.0], 1.5)
        >>> measured.decreasing
        True
    """

    steps: tuple[int, ...]
    errors: tuple[float, ...]

    @property
    def slopes(self) -> list[float]:
        """See `slopes`."""
        return slopes(self.errors, self.steps)

    @property
    def decreasing(self) -> bool:
        """Whether every error is below the one before."""
        return all(b < a for a, b in zip(self.errors, self.errors[1:], strict=False))

    def order(self, last: int = 1) -> float:
        """See `order`."""
        return order(self.errors, self.steps, last)


def converge(error: Callable[[int], float], steps: Sequence[int]) -> Convergence:
    """Measure ``error(n)`` for each n of ``steps``.

    Example:
        >>> [round(slope, 6) for slope in converge(lambda n: n**-2.0, [8, 16, 32]).slopes]
        [2.0, 2.0]
    """
    check_callable("error", error, "error(n)")
    counts = check_integers("steps", steps, low=1, high=MOST_STEPS)
    if len(counts) < 2 or any(a >= b for a, b in itertools.pairwise(counts)):
        raise InvalidArgumentError(f"`steps` must be at least two growing numbers of steps, got {list(steps)}.")
    return Convergence(counts, tuple(_real("error(n)", error(n)) for n in counts))


def _real(name: str, value: object) -> float:
    """A number, which may be infinite or NaN."""
    given = as_tensor(name, value, torch.float64)
    if given.numel() != 1:
        raise InvalidTypeError(f"`{name}` must be a number, got shape {tuple(given.shape)}.")
    return given.item()


def slopes(errors: Sequence[float], steps: Sequence[int]) -> list[float]:
    r"""The observed order between neighbours, :math:`\ln(e_i/e_{i+1}) / \ln(n_{i+1}/n_i)`: of doublings, the base-2
    logarithm of the ratio of errors. An error of 0 makes it infinite or NaN.

    Example:
        >>> [round(slope, 6) for slope in slopes([1.0, 0.25, 0.125], [10, 20, 40])]
        [2.0, 1.0]
    """
    _check_lengths(errors, steps)
    return [_slope(a, b, m, n) for a, b, m, n in zip(errors[:-1], errors[1:], steps[:-1], steps[1:], strict=True)]


def order(errors: Sequence[float], steps: Sequence[int], last: int = 1) -> float:
    """The observed order over the last ``last`` refinements together; an error of 0 makes it infinite or NaN.

    Example:
        >>> round(order([1.0, 0.25, 0.0625], [10, 20, 40], last=2), 6)
        2.0
    """
    _check_lengths(errors, steps)
    if not check_integer("last", last, low=1) < len(errors):
        raise InvalidArgumentError(f"`last` must be below the number of errors, {len(errors)}, got {last}.")
    return _slope(errors[-1 - last], errors[-1], steps[-1 - last], steps[-1])


def _check_lengths(errors: Sequence[float], steps: Sequence[int]) -> None:
    distances, counts = check_times("errors", errors, "errors"), check_times("steps", steps, "numbers of steps")
    if not bool((counts > 0).all()) or not bool((counts.diff() != 0).all()) or bool((distances < 0).any()):
        raise InvalidArgumentError("`steps` must be different positive numbers, and `errors` must not be negative.")
    if len(errors) != len(steps) or len(errors) < 2:
        raise InvalidArgumentError(
            f"Give one error for each entry of `steps`, and at least two; got {len(errors)} and {len(steps)}."
        )


def _slope(a: float, b: float, m: float, n: float) -> float:
    if a == 0 or b == 0:
        return math.nan if a == b else math.inf if b == 0 else -math.inf
    return math.log2(a / b) / math.log2(n / m)


# --- the exact distribution of an affine scheme
# --------------------------------------------------------------------------------


_IRREGULAR = 32  # rows of irregular draws, which show whether a map is affine
_AFFINE = 1e-4  # of its size: what the result of an affine map may be off by; more than rounding in float32


class AffineMap(NamedTuple):
    r"""A solve as an affine map of its draws, :math:`x = c + \sum_k J_k z_k`, on flattened events of D elements.

    Fields: ``constant`` c, ``(D,)``; ``response`` J, ``(draws, D, D)``.

    Example:
        >>> affine = AffineMap(torch.zeros(1), torch.tensor([[[3.0]], [[4.0]]]))
        >>> affine.covariance
        tensor([[25.]])
    """

    constant: Tensor
    response: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean of x, ``(D,)``."""
        return self.constant

    @property
    def covariance(self) -> Tensor:
        r"""The covariance of x, :math:`\sum_k J_k J_k^T`, ``(D, D)``."""
        return torch.einsum("kij,klj->il", self.response, self.response)


def probe(
    run: Run, event_shape: tuple[int, ...], *, draws: int | None = None, basis: Tensor | None = None
) -> AffineMap:
    r"""Read off the affine map that a fixed-grid solve of a Gaussian problem is, by unit draws.

    One solve with a batch of probes: a row without any noise gives c, and a row in which only entry j of draw k is 1
    gives column j of :math:`J_k` on top of it. Nothing is estimated, and every defect in the scale or the use of a draw
    shows. Adaptive solvers, non-linear scores, and steps that are not linear in their draws are no affine maps;
    further rows, of irregular draws, show that.

    Args:
        run: ``run(shape, draw)`` solves for a batch of the given shape, with ``draw`` as its ``noise`` (the prior's
            draw is number 0 if ``x`` is left out; a start of your own may call ``draw(0, like)`` and count the
            solve's draws from 1), and returns the final state. It must compute in float64 to be exact.
        event_shape: the shape of one sample.
        draws: how many draws a solve takes; None counts them by one more solve.
        basis: orthonormal columns, ``(D, D)``, in which the map is diagonal, as the eigenvectors of the data's
            covariance when the noise is isotropic. All entries of a draw are then probed at once, with D times fewer
            rows.

    Raises:
        InvalidArgumentError: the solve is no affine map of its draws.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(1, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> def run(shape, draw):
        ...     return scoresde.solve(
        ...         sde,
        ...         target.score(sde),
        ...         method="ancestral",
        ...         steps=4,
        ...         shape=shape,
        ...         noise=draw,
        ...         dtype=torch.float64,
        ...     ).x
        >>> probe(run, (1,)).response.shape  # the prior's draw and four more
        torch.Size([5, 1, 1])
    """
    check_callable("run", run, "run(shape, draw)")
    event_shape = check_shape("event_shape", event_shape, rank=1)
    size = math.prod(event_shape)
    count = _count(run, event_shape) if draws is None else check_integer("draws", draws, low=0, high=MOST_DRAWS)
    full = basis is None
    given = torch.eye(size, dtype=torch.float64) if basis is None else check_tensor("basis", basis, (size, size))
    columns = given.to(torch.float64)
    units = columns.mT if full else columns.sum(1, keepdim=True).mT  # one row per probe of one draw
    per_draw = len(units)
    rows = 1 + count * per_draw + _IRREGULAR
    generator = torch.Generator().manual_seed(0)
    irregular = torch.randn((_IRREGULAR, count, size), generator=generator, dtype=torch.float64)

    def draw(k: int, like: Tensor) -> Tensor:
        z = torch.zeros((rows, size), dtype=torch.float64)
        if k >= count:
            raise InvalidArgumentError(f"The solve takes more than draws={count} draws.")
        z[1 + k * per_draw : 1 + (k + 1) * per_draw] = units
        z[-_IRREGULAR:] = irregular[:, k]
        return z.reshape(like.shape).to(like)

    end = run((rows, *event_shape), draw)
    check_tensor("run(shape, draw)", end, (rows, *event_shape))
    out = end.detach().reshape(rows, size).to(torch.float64)
    constant, moved = out[0], (out[1:-_IRREGULAR] - out[0]).reshape(count, per_draw, size)
    if full:
        affine = AffineMap(constant, moved.mT.contiguous())
    else:
        gains = moved[:, 0] @ columns  # (draws, D), one per basis vector
        affine = AffineMap(constant, torch.einsum("ij,kj,lj->kil", columns, gains, columns))
    _check_affine(affine, irregular, out[-_IRREGULAR:], max(_AFFINE, 64 * torch.finfo(end.dtype).eps))
    return affine


def _check_affine(affine: AffineMap, draws: Tensor, ends: Tensor, most: float) -> None:
    """Refuse a map that takes draws to other ends than its responses to unit draws say, by more than rounding."""
    said = affine.constant + torch.einsum("kij,nkj->ni", affine.response, draws)
    size = affine.covariance.diagonal().sum().sqrt() + affine.constant.norm()
    off = float((ends - said).norm(dim=1).max() / size.clamp_min(1e-300))
    if off > most:
        raise InvalidArgumentError(
            f"The solve is not an affine map of its draws: for irregular draws its result is off by {off:.2g} of its "
            "size. Either its score is not linear, or its steps are not linear in their draws, as if they took their "
            "signs. Such a method is measured by samples, or along a scoresde.BrownianPath with more steps."
        )


def _count(run: Run, event_shape: tuple[int, ...]) -> int:
    seen = [0]

    def draw(k: int, like: Tensor) -> Tensor:
        seen[0] = max(seen[0], k + 1)
        return torch.zeros_like(like)

    run((1, *event_shape), draw)
    return seen[0]


def affine_law(
    run: Run, event_shape: tuple[int, ...], *, draws: int | None = None, basis: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The exact mean ``(D,)`` and covariance ``(D, D)`` of what a fixed-grid solve of a Gaussian problem returns; see
    `probe` for the arguments.

    Example:
        >>> target = scoresde.targets.Gaussian(
        ...     torch.ones(2, dtype=torch.float64), torch.tensor([0.5, 2.0])
        ... )
        >>> sde = scoresde.FlowSDE()
        >>> def run(shape, draw):
        ...     return scoresde.solve(
        ...         sde,
        ...         target.score(sde),
        ...         method="ancestral",
        ...         steps=1000,
        ...         shape=shape,
        ...         noise=draw,
        ...         dtype=torch.float64,
        ...     ).x
        >>> mean, cov = affine_law(run, (2,), basis=torch.eye(2))
        >>> (
        ...     bool((mean - 1).abs().max() < 0.01),
        ...     bool((cov.diag() - torch.tensor([0.5, 2.0])).abs().max() < 0.05),
        ... )
        (True, True)
    """
    affine = probe(run, event_shape, draws=draws, basis=basis)
    return affine.mean, affine.covariance


def gaussian_state(target: Gaussian, sde: AffineSDE, t: float, z: Tensor) -> Tensor:
    r"""A draw of the distribution at time t made of a standard normal one: :math:`\alpha_t m + S_t^{1/2} z`.

    Starting a solve there, instead of at the prior, leaves only the solver's own error.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(1), 4.0)
        >>> gaussian_state(
        ...     target, scoresde.VESDE(sigma_min=1.0, sigma_max=9.0), 0.5, torch.ones(1, 1)
        ... )
        tensor([[3.6056]])
    """
    check_kind("target", target, Gaussian, "a scoresde.targets.Gaussian")
    check_sde(sde, affine=True)
    check_tensor("z", z, (-1, *target.event_shape))
    t = check_number("t", t, low=sde.t_min, high=sde.t_max)
    alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
    return alpha * target.mean.to(z) + target.spectrum.to(z).map(z, lambda v: (alpha**2 * v + sigma**2).sqrt())


# --- strong errors ----------------------------------------------------------------------------------------------------


# An increment of the path and sqrt(3) times its mean over the step less half of it, for methods with both: the second
# draw of the mean is what runs ahead, so its weight falls along the step.
AREA_WEIGHTS: tuple[Weight, Weight] = (torch.ones_like, lambda u: 1 - 2 * u)


def strong_error(
    affine: AffineMap,
    target: Gaussian,
    sde: AffineSDE,
    times: Tensor,
    *,
    weight: Weight | Sequence[Weight] | None = None,
    stochasticity: float = 1.0,
    points: int = 16,
) -> float:
    r"""The root mean square distance of a scheme from the exact solution on the same Brownian path.

    For data :math:`N(m, \Sigma)` the reverse SDE from x at :math:`t_0` ends, per eigenvalue, in

    .. math::
        \alpha_t m + \Phi(t, t_0)(x - \alpha_{t_0} m) + \int \Phi(t, u)\,\eta g(u)\,d\bar w_u, \qquad
        \Phi(t, u) = \Big(\frac{S_t}{S_u}\Big)^{1/2}\Big(\frac{S_t/\alpha_t^2}{S_u/\alpha_u^2}\Big)^{\eta^2/2},

    and a scheme whose step k uses the draw :math:`z_k = \int_k w\,d\bar w / \|w\|` in
    :math:`c + J_0 z_0 + \sum_k J_k z_k`. The distance of the two integrands is integrated by Gauss-Legendre quadrature:
    no path is drawn.

    Args:
        affine: the scheme's map (`probe`), started at `gaussian_state` of draw 0, with its draws step by step after it.
        target: the data distribution.
        sde: the process.
        times: the grid, ``(steps + 1,)``; of a method that draws for parts of a step, the ends of those parts.
        weight: w(u), which increment of the path a step's draw stands for. None is the plain increment (w = 1) of
            Euler-Maruyama. Schemes built on a transition kernel weight the path as the kernel does: the forward
            transition by :math:`g/\alpha`, the posterior by :math:`g\alpha/\sigma^2`. Of a method with several draws
            for the whole of a step, one weight each, as functions of the fraction of the step; they must be orthogonal
            on [0, 1] (`AREA_WEIGHTS` for an increment and the path's mean).
        stochasticity: :math:`\eta`.
        points: quadrature nodes per step.

    Returns:
        The root of the mean square over coordinates.

    Example:
        >>> sde, target = (
        ...     scoresde.VPSDE(),
        ...     scoresde.targets.Gaussian(torch.zeros(1, dtype=torch.float64), 0.3),
        ... )
        >>> def error(steps):
        ...     times = scoresde.grids.time(sde, 1.0, 0.1, steps)
        ...
        ...     def run(shape, draw):
        ...         x = gaussian_state(
        ...             target, sde, 1.0, draw(0, torch.empty(shape, dtype=torch.float64))
        ...         )
        ...         later = lambda k, like: draw(k + 1, like)
        ...         return scoresde.solve(
        ...             sde,
        ...             target.score(sde),
        ...             x,
        ...             method="euler_maruyama",
        ...             grid=times,
        ...             noise=later,
        ...         ).x
        ...
        ...     return strong_error(probe(run, (1,)), target, sde, times)
        >>> # additive noise: order 1, not 1/2
        >>> 0.9 < converge(error, [64, 128]).order() < 1.1
        True

    References:
        Kloeden, Platen (1992), Numerical Solution of Stochastic Differential Equations, section 10.2.
    """
    check_kind("affine", affine, AffineMap, "what `probe` returns")
    check_kind("target", target, Gaussian, "a scoresde.targets.Gaussian")
    check_sde(sde, affine=True)
    times = grid_of(times, sde.t_min, sde.t_max)
    stochasticity = check_number("stochasticity", stochasticity, low=0.0, high=MOST_STOCHASTICITY)
    single = weight is None or callable(weight)
    if not single:
        check_kind("weight", weight, Sequence, "a function weight(u), or a sequence of those")
    weights: Any = [torch.ones_like if weight is None else weight] if single else weight
    for each_weight in weights:
        check_callable("weight", each_weight, "weight(u)")
    each = len(weights)
    if len(affine.response) != 1 + each * (len(times) - 1):
        raise InvalidArgumentError(
            f"`affine` must have a draw for the start and {each} for each of the {len(times) - 1} steps, got "
            f"{len(affine.response)} draws."
        )
    check_tensor("affine.response", affine.response, (-1, math.prod(target.event_shape), math.prod(target.event_shape)))
    if not isinstance(target.spectrum, Spectrum):
        raise InvalidArgumentError("`target` must have a full covariance, not a LowRank one.")
    values = target.spectrum.values.reshape(-1)
    basis = target.spectrum.basis
    turned = affine.response if basis is None else basis.mT @ affine.response @ basis
    end = _levels(sde, times[-1:], values)
    begin = _levels(sde, times[:1], values)
    eta2 = stochasticity**2

    def carried(level: _Level) -> Tensor:
        return (end.s / level.s).sqrt() * (end.r / level.r) ** (0.5 * eta2)

    mean = target.mean.reshape(-1)
    offset = affine.constant - end.alpha * mean  # the start is centred, so its mean moves along the exact one
    first = turned[0] - torch.diag_embed((carried(begin) * begin.s.sqrt())[0])
    nodes, lengths = _quadrature(times, points)
    level = _levels(sde, nodes.reshape(-1), values)
    exact = (carried(level) * stochasticity * level.g).reshape(*nodes.shape, -1)  # (steps, points, D)
    places = nodes if single else (nodes - times[:-1, None]) / times.diff()[:, None]
    gains = turned[1:].diagonal(dim1=1, dim2=2)
    used = torch.zeros_like(exact)
    for j, each_weight in enumerate(weights):
        shape = _weighed(each_weight, places)
        unit = shape / (lengths * shape**2).sum(1, keepdim=True).sqrt()
        used = used + gains[j::each, None] * unit[..., None]
    along = ((used - exact) ** 2 * lengths[..., None]).sum()
    across = (turned[1:] ** 2).sum() - (gains**2).sum()
    total = (offset**2).sum() + (first**2).sum() + along + across
    return math.sqrt(max(float(total), 0.0) / len(mean))


class _Level(NamedTuple):
    alpha: Tensor  # (n, 1)
    g: Tensor  # (n, 1)
    s: Tensor  # (n, D), S_t
    r: Tensor  # (n, D), S_t / alpha_t^2


def _levels(sde: AffineSDE, times: Tensor, values: Tensor) -> _Level:
    with torch.no_grad():
        node = sde.nodes(times)
    alpha, sigma = node.alpha[:, None], node.sigma[:, None]
    s = alpha**2 * values + sigma**2
    return _Level(alpha, node.g2.sqrt()[:, None], s, s / alpha**2)


def _quadrature(times: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights of every step, ``(steps, points)``; weights are positive."""
    unit, weights = np.polynomial.legendre.leggauss(check_integer("points", points, low=1, high=_MOST_POINTS))
    half = 0.5 * times.diff()
    middle = 0.5 * (times[1:] + times[:-1])
    nodes = middle[:, None] + half[:, None] * torch.as_tensor(unit, dtype=torch.float64)
    return nodes, half.abs()[:, None] * torch.as_tensor(weights, dtype=torch.float64)


def _weighed(weight: Weight, u: Tensor) -> Tensor:
    """The values of a weight."""
    value = weight(u.reshape(-1))
    check_tensor("weight(u)", value, (u.numel(),))
    return value.to(torch.float64).reshape(u.shape)


def coarsen(draw: Draw, times: Tensor, factor: int, *, weight: Weight | None = None, first: int = 1) -> Draw:
    r"""The draws of a coarse solve on the Brownian path of a fine one: coarse increments are sums of fine increments.

    A fine step's draw is :math:`z_i = \int_i w\,dW / \|w\|_i`, so the coarse one is
    :math:`\sum_i \|w\|_i z_i / (\sum_i \|w\|_i^2)^{1/2}` over its fine steps.

    Args:
        draw: the fine solve's draws.
        times: the fine grid; the coarse one is ``times[::factor]``.
        factor: fine steps in a coarse one.
        weight: as in `strong_error`.
        first: how many draws come before the first step's, and are passed on (the prior's).

    Example:
        >>> fine = lambda k, like: torch.full_like(like, float(k))
        >>> coarse = coarsen(fine, torch.linspace(1.0, 0.0, 5), 4)
        >>> coarse(0, torch.zeros(1, 1)), coarse(1, torch.zeros(1, 1))  # (1 + 2 + 3 + 4) / 2
        (tensor([[0.]]), tensor([[5.]]))
    """
    check_callable("draw", draw, "draw(k, like)")
    check_integer("first", first, low=0, high=MOST_DRAWS)
    times = grid_of(times, -math.inf, math.inf)
    weight = torch.ones_like if weight is None else weight
    check_callable("weight", weight, "weight(u)")
    if (len(times) - 1) % check_integer("factor", factor, low=1):
        raise InvalidArgumentError(f"`factor` must divide the {len(times) - 1} steps of the fine grid, got {factor}.")
    nodes, lengths = _quadrature(times, 16)
    shape = _weighed(weight, nodes)
    energy = (lengths * shape**2).sum(1).reshape(-1, factor)
    mix = (energy / energy.sum(1, keepdim=True)).sqrt().tolist()

    def coarse(k: int, like: Tensor) -> Tensor:
        if k < first:
            return draw(k, like)
        begin = first + (k - first) * factor
        total = torch.zeros_like(like)
        for i, share in enumerate(mix[k - first]):
            total = total + share * draw(begin + i, like)
        return total

    return coarse
