"""Where along the probability flow the log-density changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.arguments import check_finite_ends, check_limits, tolerances
from ..core.controllers import Adaptive
from ..core.errors import InvalidArgumentError, explained
from ..core.loop import Recorder, integrate
from ..core.noise import resolve
from ..core.sdes import SDE
from ..core.support.declared import checked
from ..solvers import Solver
from .bits import Draws, Several
from .checks import check_density, check_finite, check_gradients
from .flow import MAX_STEPS, DivergenceName, ProbeName, density_flow, make_divergence


@dataclass(frozen=True, eq=False)
class DensityProfile:
    r"""How the divergence of the flow accumulates from the data to the noise.

    Attributes:
        log_snr: levels, falling from that at ``t_min`` to that at ``t_max``, float64 ``(n,)``.
        log_det: :math:`\ln|\partial x_t/\partial x_0|`, the integral of the divergence up to each level, float64
            ``(batch, n)``. The last one, and the prior's log-density of the latent, make the log-likelihood.
        nfe: evaluations per sample, ``(batch,)``.

    Example:
        >>> DensityProfile(
        ...     torch.tensor([2.0, 0.0]), torch.tensor([[0.0, 3.0]]), torch.tensor([9])
        ... ).rate
        tensor([[1.5000]])
    """

    log_snr: Tensor
    log_det: Tensor
    nfe: Tensor

    @property
    def rate(self) -> Tensor:
        r"""The mean divergence between levels, in nats per unit of falling log-SNR, ``(batch, n - 1)``.

        In a variance exploding process a dimension in which the data vary less than the noise has ½, one in which they
        vary more has 0, so that twice the rate counts the dimensions that the noise fills.
        """
        return self.log_det.diff(dim=1) / -self.log_snr.diff()


@checked
def density_profile(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    x: Tensor,
    *,
    points: Several = 65,
    divergence: DivergenceName = "hutchinson",
    probes: Draws = 1,
    probe: ProbeName = "rademacher",
    method: str | Solver = "adams",
    rtol: float = 1e-4,
    atol: float = 1e-4,
    context: Mapping[str, object] | None = None,
    seed: int | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    **solver_options: object,
) -> DensityProfile:
    r"""Follow `scoresde.log_likelihood`, and keep the accumulated divergence at even levels of the log-SNR:

    .. math:: \ln\Big|\frac{\partial x_t}{\partial x_0}\Big| = \int_{t_{min}}^t \nabla\cdot\frac{dx}{d\tau}\,d\tau.

    Args:
        sde: an affine process with a finite log-SNR at both ends.
        score_fn, divergence, probes, probe, method, rtol, atol, context, seed, seeds: as for
            `scoresde.log_likelihood`; of several probes it is the mean.
        x: data, ``(batch, *event)``, float32 or float64.
        points: n, levels with both ends. The solver hits each exactly.
        **solver_options: fields of the method's class.

    Raises:
        InvalidArgumentError: an argument does not fit.
        ScoreFnError: gradients do not reach the input of the score function.
        NonFiniteError: NaN or infinity in the input, a score or a divergence.
        MaxStepsError, StepSizeUnderflowError: the method could not arrive.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 1e-9)
        >>> sde = scoresde.VESDE(sigma_min=1.0)
        >>> profile = density_profile(
        ...     sde,
        ...     target.score(sde),
        ...     torch.zeros(1, 2, dtype=torch.float64),
        ...     points=4,
        ...     seed=0,
        ... )
        >>> (2 * profile.rate).round(decimals=2)  # the noise fills both dimensions
        tensor([[2., 2., 2.]], dtype=torch.float64)

    References:
        Song et al. (2021), equation 39. https://arxiv.org/abs/2011.13456
    """
    sde, score, solver = check_density(sde, score_fn, x, method, solver_options)
    check_finite(x)
    if not len(x):
        raise InvalidArgumentError("`x` must hold at least one sample.")
    allowed = tolerances(rtol, atol, x.dtype, score.network_dtype)
    ends = torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)
    clean, noisy = sde.log_snr(ends).tolist()
    check_limits(sde, score, solver, (sde.t_min, sde.t_max))
    check_finite_ends(clean, noisy)
    log_snr = torch.linspace(clean, noisy, points, dtype=torch.float64)
    inner = sde.time(log_snr[1:-1]).detach().clamp(sde.t_min, sde.t_max)
    times = torch.cat([ends[:1], inner, ends[1:]])
    with torch.no_grad(), explained(x, None):
        source = resolve(seed=seed, seeds=seeds, generator=None, noise=None, device=x.device, batch=len(x))
        trace = make_divergence(divergence, probes, probe, None, source, x.detach())
        process = density_flow(sde, score, x, context, trace)
        check_gradients(process, x, sde.t_min, sde.t_max)
        recorder = Recorder(times.tolist())
        solution = integrate(
            process,
            solver,
            Adaptive(sde.t_min, tuple(times[1:].tolist()), *allowed),
            process.pack(x),
            source,
            compact=score.traits.rowwise,
            recorder=recorder,
            max_steps=MAX_STEPS,
        )
    states = recorder.result(solution.x)[1].cpu()  # (n, batch, D + paths)
    scale = torch.as_tensor(solver.coordinate.scale(sde.nodes(times))).expand(points)
    integrals = torch.stack([process.integrals(z, s).mean(1) for z, s in zip(states, scale, strict=True)], dim=1)
    return DensityProfile(log_snr, process.size * (scale / scale[0]).log() + integrals, solution.nfe)
