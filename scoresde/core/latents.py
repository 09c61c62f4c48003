"""Latents: the states at the noise end of the probability flow, which encode data one to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..grids import Grid
from ..solvers import Solver, from_config, make_solver
from ..solvers.registry.rows import MethodName
from .errors import InvalidArgumentError, NonFiniteError
from .sdes import SDE, NormalPrior
from .solution import Solution
from .solve import solve
from .support.checks import check_finite_rows, check_number
from .support.declared import NonNegative, State, Times, checked
from .support.tensors import compute_dtype, row_norms, row_sums

__all__ = ["Reconstruction", "decode", "encode", "interpolate", "reconstruct"]


@checked
def encode(
    sde: SDE, score_fn: Callable[..., Tensor], x: State, *, method: MethodName | str | Solver = "adams", **options: Any
) -> Solution:
    """Compute the latents of data, by the probability flow from ``t_min`` up to ``t_max``.

    With a perfect score the latent of an image depends on the distribution of the data and on the process only, and is
    the same for every network that was trained on them.

    Args:
        sde, score_fn: as for `scoresde.solve`.
        x: data, ``(batch, *event)``.
        method: a deterministic method.
        **options: of `scoresde.solve`, such as ``rtol``, ``t_start`` or ``context``.

    Returns:
        A `Solution`, whose ``x`` are the latents.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> z = encode(sde, target.score(sde), torch.ones(1, 2, dtype=torch.float64)).x
        >>> bool((decode(sde, target.score(sde), z).x - 1).abs().max() < 0.01)
        True

    References:
        Song et al. (2021), section 4.3 and appendix D.5. https://arxiv.org/abs/2011.13456
    """
    if isinstance(method, Grid):
        raise InvalidArgumentError(
            f"`method` is a {type(method).__name__}, which goes from noise to data on its own grid, and cannot encode; "
            "take 'adams', or another deterministic method."
        )
    start, end = _ends(sde, options, "t_min", "t_max")
    if start > end:
        raise InvalidArgumentError("`t_start` must be below t_end, to encode; see decode.")
    return solve(sde, score_fn, x, method=method, **{**options, "t_start": start, "t_end": end})


def _ends(sde: Any, options: Mapping[str, object], start: str, end: str) -> tuple[float, float]:
    """Where the flow starts and ends."""
    given = {"t_start": options.get("t_start"), "t_end": options.get("t_end")}
    times = zip(given.items(), (start, end), strict=True)
    first, last = (getattr(sde, other) if t is None else check_number(name, t) for (name, t), other in times)
    return first, last


@checked
def decode(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    z: State,
    *,
    method: MethodName | str | Solver | Grid = "adams",
    temperature: NonNegative = 1.0,
    **options: Any,
) -> Solution:
    r"""Compute the data of latents, by the probability flow from ``t_max`` down to ``t_min``.

    Args:
        sde, score_fn: as for `scoresde.solve`.
        z: latents, ``(batch, *event)``.
        method: a deterministic method; or what `tune`, `fit_solver` or `fit_grid` made, as for `scoresde.solve`.
        temperature: a factor on the latents' distance from the prior's mean, below 1 for data nearer to the modes. The
            distribution of the result is the tempered :math:`p^{1/T^2}` for Gaussian data only.
        **options: of `scoresde.solve`.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), 4.0)
        >>> sde = scoresde.VPSDE()
        >>> decode(sde, target.score(sde), torch.ones(1, 2), temperature=0.5).x.round()
        tensor([[1., 1.]])

    References:
        Song et al. (2021), appendix D.5. https://arxiv.org/abs/2011.13456
    """
    solver = _solver_of(method)
    if solver is not None and solver.stochastic:
        raise InvalidArgumentError(f"`method` must be deterministic, but {solver.name!r} draws noise; try 'adams'.")
    start, end = _ends(sde, options, "t_max", "t_min")
    if start < end:
        raise InvalidArgumentError("`t_start` must be above t_end, to decode; see encode.")
    if temperature != 1.0:
        mean = sde.prior.mean if isinstance(sde.prior, NormalPrior) else 0.0
        mean = mean.to(z) if isinstance(mean, Tensor) else mean
        z = mean + temperature * (z - mean)
    return solve(sde, score_fn, z, method=method, **options)


def _solver_of(method: str | Solver | Grid) -> Solver | None:
    """The solver of a method; None where only `solve` can choose it."""
    if isinstance(method, Grid):
        return from_config(method.method) if method.method else None
    return None if isinstance(method, str) and method == "auto" else make_solver(method, {})


@checked
def interpolate(a: State, b: State, weights: Times, *, mode: Literal["slerp", "linear"] = "slerp") -> Tensor:
    r"""States between latents a and b, sample by sample: on the great circle,

    .. math:: \frac{\sin((1-w)\theta)}{\sin\theta}\,a + \frac{\sin(w\theta)}{\sin\theta}\,b,\qquad
        \cos\theta = \frac{\langle a, b\rangle}{|a||b|},

    which keeps the length that draws of a high-dimensional prior have, or on the line, :math:`(1-w)a + wb`.

    Args:
        a, b: latents, ``(batch, *event)``.
        weights: w, ``(n,)``.
        mode: ``"slerp"`` or ``"linear"``.

    Returns:
        ``(n, batch, *event)``.

    Example:
        >>> interpolate(
        ...     torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([0.5])
        ... )
        tensor([[[0.7071, 0.7071]]])

    References:
        Shoemake (1985), Animating rotation with quaternion curves.
    """
    if a.shape != b.shape:
        raise InvalidArgumentError(f"`b` must have the shape of `a`, {tuple(a.shape)}, got {tuple(b.shape)}.")
    if not bool(a.isfinite().all() & b.isfinite().all()):
        raise NonFiniteError("`a` or `b` has NaN or infinite values.", stage="input")
    w = weights.to(a.device)
    if not bool(w.isfinite().all()):
        raise InvalidArgumentError(f"`weights` must be finite numbers (n,), got shape {tuple(w.shape)}.")
    first, second = 1 - w[:, None].expand(-1, len(a)), w[:, None].expand(-1, len(a))
    if mode == "slerp":
        wide = [v.to(torch.float64) for v in (a, b)]
        lengths = [row_norms(v) for v in wide]
        cos = row_sums(wide[0] * wide[1]) / (lengths[0] * lengths[1]).clamp_min(1e-300)
        angle = torch.arccos(cos.clamp(-1, 1))
        if bool((angle > torch.pi - 1e-6).any()):
            raise InvalidArgumentError(
                "`a` and `b` have opposite samples, between which the great circle is not unique."
            )
        sin = torch.where(angle > 1e-6, torch.sin(angle), 1.0)
        first, second = (torch.where(angle > 1e-6, torch.sin(v * angle) / sin, v) for v in (first, second))
    shape = (*first.shape, *(1,) * (a.ndim - 1))
    mixed = (first.reshape(shape) * a + second.reshape(shape) * b).to(compute_dtype(a.dtype)).to(a.dtype)
    check_finite_rows(f"A result in {a.dtype}", mixed, "take smaller `weights`")
    return mixed


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Data, their latents, and their reconstruction.

    Attributes:
        latent, x: the latents and the reconstruction, shaped like the data.
        error: RMS of the difference over dimensions, ``(batch,)``.
        nfe: evaluations of both ways, ``(batch,)``.

    Example:
        >>> zeros = torch.zeros(1, 2)
        >>> Reconstruction(zeros, zeros, torch.zeros(1), torch.ones(1)).error.tolist()
        [0.0]
    """

    latent: Tensor
    x: Tensor
    error: Tensor
    nfe: Tensor


def reconstruct(
    sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: MethodName | str | Solver = "adams", **options: Any
) -> Reconstruction:
    """Encode and decode again; the round trip's error is that of the solver, whatever the network.

    Args:
        sde, score_fn, x, method: as for `encode`.
        **options: of `scoresde.solve`, for both ways, but for ``t_start`` and ``t_end``: for a part of the path call
            `encode` and `decode`.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> x = torch.ones(1, 2, dtype=torch.float64)
        >>> bool(reconstruct(sde, target.score(sde), x, rtol=1e-6, atol=1e-6).error < 1e-4)
        True
    """
    for name in ("t_start", "t_end"):
        if name in options:
            raise InvalidArgumentError(
                f"`{name}` cannot be given here: the round trip is from t_min to t_max and back."
            )
    up = encode(sde, score_fn, x, method=method, **options)
    down = decode(sde, score_fn, up.x, method=method, **options)
    squares = (down.x - x).to(torch.float64).square()
    error = (row_sums(squares) / max(1, x[:1].numel())).sqrt()
    return Reconstruction(up.x, down.x, error, up.nfe + down.nfe)
