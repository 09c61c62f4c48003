"""Samples of a posterior, by any method."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, ScoreSDEWarning
from ..core.noise import BatchNoise
from ..core.sdes import AffineSDE
from ..core.solution import Solution
from ..core.solve import solve
from ..core.support.checks import check_choice
from ..core.support.display import Displayed, kind, span
from ..core.support.tensors import row_sums
from ..scores import as_score
from ..solvers import ParticleLog, Solver
from ..solvers.registry.rows import MethodName
from ..solvers.registry.spellings import find
from .conditioned import event_of
from .measurement import Measurement
from .registry import RuleName, SamplerName, condition, make, measured, options_of
from .rules import RULES
from .rules.gaussian import PiGDM
from .samplers import SAMPLERS
from .samplers.twisted import TwistedSMC

_FAR = 10.0  # standard deviations of the noise


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorSamples(Displayed):
    r"""The result of `sample_posterior`.

    Attributes:
        x: the samples, ``(batch, *event)``.
        solution: the `Solution` of the solve, with the network's evaluations.
        products: vector-Jacobian products, of the whole batch at once.
        ess: the effective sample size of ``"twisted_smc"`` at each level, ``(levels, sets)``; None for other methods.
        log_evidence: :math:`\ln p(y)` as each set of ``"twisted_smc"`` with the twist `PiGDM` estimates it,
            ``(sets,)``, float64; None for other methods. Its exponential is unbiased for the chain of these steps.
            Trust it where several sets (``particles=``) agree; where they differ by one or more, most are too low. It
            is NaN for a set of which a sample did not arrive.
        residual: how far each sample is from the measurement, `Measurement.residual`, ``(batch,)``: about 1 for draws
            of the posterior, and more where the noise that is left at t_min is not small beside that of the measurement
            (``denoise=True`` removes it). None where the noise is 0.

    Example:
        >>> PosteriorSamples(torch.zeros(1, 2), None, 0).ess is None
        True
    """

    x: Tensor
    solution: Solution
    products: int
    ess: Tensor | None = None
    residual: Tensor | None = None
    log_evidence: Tensor | None = None

    def _summary(self) -> dict[str, str]:
        shown = {"x": kind(self.x), "products": str(self.products), "solution": repr(self.solution)}
        return shown if self.ess is None else {**shown, "ess": span(self.ess)}


def sample_posterior(
    sde: AffineSDE,
    score_fn: Callable[..., Tensor],
    operator: object,
    y: Tensor,
    noise_std: Tensor | float | None = None,
    *,
    method: RuleName | SamplerName | str = "mmps",
    sampler: MethodName | str | Solver | None = None,
    **options: Any,
) -> PosteriorSamples:
    r"""Sample the data given a measurement :math:`y = Ax_0 + n`, by any method of `scoresde.inverse.methods`.

    A `ScoreSDEWarning` gives the number of samples that do not fit the measurement: the root mean square of
    :math:`y - Ax` is more than ten standard deviations of the noise, where it is about one for draws of the posterior.

    Args:
        sde, score_fn: as in `scoresde.solve`.
        operator, y, noise_std: as in `condition`.
        method: a rule or a solver, by name.
        sampler: the solver of a rule; by default its `Rule.sampler`, which is ``"dpmpp_2m_sde"`` for all but ``"dps"``.
            Methods that are solvers step by themselves, and refuse it.
        **options: of the method, and of `scoresde.solve` (``shape``, ``steps``, ``seed``, …).

    Raises:
        InvalidArgumentError: an argument does not fit, before the first evaluation.

    Example:
        >>> from scoresde import inverse
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.GaussianMixture(
        ...     torch.ones(2), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), scales=0.1
        ... )
        >>> seen = torch.tensor([[1.0, 0.0]]), torch.tensor([0.9]), 0.1
        >>> got = inverse.sample_posterior(
        ...     sde, target.score(sde), *seen, method="ddrm", shape=(9, 2), seed=0
        ... )
        >>> bool((got.x[:, 0] > 0).all()), got.solution.evaluations, got.products
        (True, 50, 0)
    """
    if not isinstance(method, str):
        raise InvalidTypeError(f"`method` must be a name, got {method!r}; condition takes rules, and solve solvers.")
    check_choice("method", method, (*RULES, *SAMPLERS))
    known = score_fn = as_score(score_fn, sde)
    cls = RULES[method] if method in RULES else SAMPLERS[method]
    if sampler is not None and method in SAMPLERS:
        raise InvalidArgumentError(f"`sampler` is the solver of a rule, but {method!r} is a solver itself.")
    if isinstance(sampler, str):
        find(sampler, ("auto",), "sampler")
    own = {name: options.pop(name) for name in options_of(cls) if name in options}
    if method in RULES:
        score = condition(score_fn, operator, y, noise_std, method=method, sde=sde, **own)
        solution = solve(sde, score, method=RULES[method].sampler if sampler is None else sampler, **options)
        return PosteriorSamples(
            solution.x, solution, score.tally.products, residual=_residual(score.measurement, sde, solution)
        )
    measurement = measured(score_fn, operator, y, noise_std)
    event_of(known, measurement)
    log = ParticleLog(own.get("record"))
    if cls is TwistedSMC:
        own["record"] = log
    solver = make(cls, own, measurement)
    solution = solve(sde, score_fn, method=solver, **options)
    ess = log.ess if log.infos else None
    known_weights = cls is TwistedSMC and isinstance(solver.twist, PiGDM)
    return PosteriorSamples(
        solution.x,
        solution,
        solver.tally.products,
        ess,
        _residual(measurement, sde, solution),
        _log_evidence(measurement, solver.twist, log, sde, solution) if known_weights else None,
    )


def _log_evidence(
    measurement: Measurement, twist: PiGDM, log: ParticleLog, sde: AffineSDE, got: Solution
) -> Tensor | None:
    r"""The particles' weights, with what the last :math:`N(y; A\hat x, \sigma_y^2 I + r_t^2 AA^T)` has besides them:
    its normaliser, and the part of y that no data reach.
    """
    if measurement.std == 0.0 or not log.infos:
        return None
    operator, ratios = measurement.linear(TwistedSMC.name), log.log_evidence
    y = measurement.of(got.x)[:: len(got.x) // len(ratios)].double()  # of each set
    away = (y - operator.forward(operator.pseudo_inverse(y))).flatten(1) / measurement.std
    wide = twist.variance(sde.node(float(got.t.max()))) * (operator.svd.values / measurement.std) ** 2
    evidence = ratios + measurement.log_normaliser - 0.5 * away.square().sum(1).cpu() - 0.5 * wide.log1p().sum()
    arrived = got.success & (got.t <= sde.t_min * (1 + 1e-9))
    return torch.where(arrived.cpu().reshape(len(ratios), -1).all(1), evidence, torch.nan)


def _residual(measurement: Measurement, sde: AffineSDE, got: Solution) -> Tensor | None:
    r"""How far the samples are from the measurement, and a warning about those that do not fit it.

    A state at t has noise of its own, of standard deviation :math:`\sigma_t/\alpha_t` in the data: what such noise
    changes in the measurement is no misfit. A measurement without noise has no residual; samples that are as far from
    it as 0 is do not fit it.
    """
    with torch.no_grad():
        if measurement.std == 0.0:
            y = measurement.of(got.x)
            misfit, size = _size(y - measurement.operator.forward(got.x)), _size(y)
            if bool((got.success & (misfit > size)).any()):
                size = torch.maximum(size, _FAR * _blur(measurement, sde, got))
                _warn(
                    got, misfit, size, "though it has no noise", "leave `Clip` out of a network that is differentiated"
                )
            return None
        residual = measurement.residual(got.x)
        if bool((got.success & (residual > _FAR)).any()):
            blur = torch.zeros_like(residual) if got.denoised else _blur(measurement, sde, got) / measurement.std
            limit, unit = _FAR * (1 + blur.square()).sqrt(), "in standard deviations of the noise, where 1 is right"
            _warn(got, residual, limit, unit, "check the operator and `noise_std`")
    return residual


def _warn(got: Solution, misfit: Tensor, limit: Tensor, unit: str, hint: str) -> None:
    """Say how many samples are further from the measurement than a limit."""
    far = misfit[got.success & (misfit > limit)]
    if len(far):
        warnings.warn(
            f"{len(far)} of {len(misfit)} samples do not fit the measurement: their distance from it (root mean "
            f"square) is up to {float(far.max()):.3g}, {unit}. Take more steps or another method, and {hint}.",
            ScoreSDEWarning,
            stacklevel=4,
        )


def _size(v: Tensor) -> Tensor:
    """The root mean square of each sample, ``(batch,)``."""
    return (row_sums(v.double().square()) / max(1, v[:1].numel())).sqrt()


def _blur(measurement: Measurement, sde: AffineSDE, got: Solution) -> Tensor:
    """What the noise of the last level changes in the measurement, ``(batch,)``."""
    node = sde.node(float(got.t[got.success].max()))
    noise = node.sigma / node.alpha * BatchNoise.seeded(0, got.x.device).normal(got.x[:1])
    return _size(measurement.operator.forward(got.x + noise) - measurement.operator.forward(got.x))
