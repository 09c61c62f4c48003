"""The log-likelihood of the probability flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import torch
from scipy import special
from torch import Tensor

from .. import grids
from ..core.arguments import check_limits, context_of, tolerances
from ..core.controllers import Adaptive
from ..core.errors import InvalidArgumentError, InvalidTypeError, explained
from ..core.loop import integrate, progress_bar
from ..core.noise import Noise, resolve
from ..core.processes import Network, ReverseProcess, node_list
from ..core.processes.density import LogDensityFlow
from ..core.processes.divergence import DIVERGENCES, PROBES, Divergence
from ..core.processes.divergence.control import Control
from ..core.sdes import SDE, AffineSDE
from ..core.solution import Info, Solution, Status
from ..core.support.checks import check_choice, check_flag, check_number, check_state, form, refuse_rows
from ..core.support.declared import Kind, Number, Steps, called, checked, one_of
from ..core.support.display import Displayed, span, tally
from ..core.support.tensors import row_finite, where
from ..scores import Score
from ..solvers import Solver
from ..solvers.registry.rows import MethodName
from ..targets import Gaussian, GaussianMixture
from .adjoint import Adjoint
from .bits import Draws, Several
from .checks import check_density, check_finite, check_plausible

MAX_STEPS = 10_000
GRADIENTS = ("checkpoint", "adjoint")
DEFAULT = 1e-5  # tolerances
SHARE = 0.4  # of the tolerance, for each of the latent, whose error moves the prior, and the integral
_LEAST = 1e-6  # of the variance of the estimates, what a control must have to be of any use

DivergenceName = Annotated[str, one_of(*DIVERGENCES)]
ProbeName = Annotated[str, one_of(*PROBES)]


@dataclass(frozen=True, eq=False, repr=False)
class Likelihood(Displayed):
    """Log-likelihoods with estimates of their errors; all fields have one entry per sample.

    Attributes:
        log_prob: nats, float64, ``(batch,)``.
        std_error: the standard error of ``log_prob`` from the trace estimate: 0 for an exact trace, NaN for a single
            estimate, which has no spread. It is that of independent estimates, less for orthogonal probes, and for
            ``"xtrace"`` the jackknife's, which errs on the safe side.
        paths: the estimates whose mean ``log_prob`` is, ``(batch, paths)``.
        solver_error: the distance to a solve with ten times the tolerance and the same probes, NaN unless requested.
            For a smooth network the error of the result is about a tenth of it.
        latent: the states at the noise end, shaped like ``x``.
        prior_log_prob: of the latents, nats.
        nfe: score evaluations, ``(batch,)``; each comes with ``products`` vector-Jacobian products. Those of
            ``check`` are not counted.
        products: see nfe.
        status: one `Status` per sample.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> likelihood = log_likelihood(
        ...     sde, target.score(sde), torch.zeros(1, 2), probes=4, seed=0
        ... )
        >>> low, high = likelihood.interval()
        >>> bool(low <= likelihood.log_prob <= high)
        True
        >>> likelihood
        Likelihood(log_prob=-0.63..., std_error=..., samples=1, status=1 × SUCCESS, evaluations per sample=...)
    """

    log_prob: Tensor
    std_error: Tensor
    paths: Tensor
    solver_error: Tensor
    latent: Tensor
    prior_log_prob: Tensor
    nfe: Tensor
    products: int
    status: Tensor

    @property
    def success(self) -> Tensor:
        """Which samples arrived."""
        return self.status == Status.SUCCESS

    def _summary(self) -> dict[str, str]:
        solver = {} if self.solver_error.isnan().all() else {"solver_error": span(self.solver_error, ".2g")}
        return {
            "log_prob": span(self.log_prob, ".6g"),
            "std_error": span(self.std_error, ".2g"),
            **solver,
            "samples": str(len(self.log_prob)),
            "status": tally(Status(code).name for code in self.status.tolist()),
            "evaluations per sample": span(self.nfe),
        }

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Bounds of ``log_prob`` that hold with about this probability, by Student's t; NaN where ``std_error`` is.

        They give the error of the trace estimate, not that of the solver, and take paths for normally distributed: in
        few dimensions they are not (Rademacher probes have :math:`2^{D-1}` different values), and the exact trace, of D
        products, is the better choice there.
        """
        level = check_number("level", level, low=0.0, high=1.0, strict=True)
        count = self.paths.shape[1]
        quantile = float(special.stdtrit(count - 1, 0.5 * (1 + level))) if count > 1 else 0.0
        return self.log_prob - quantile * self.std_error, self.log_prob + quantile * self.std_error


def _check_graph(name: str, value: object) -> None:
    if isinstance(value, str):
        check_choice(name, value, GRADIENTS)
    else:
        check_flag(name, value)


@checked
def log_likelihood(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    x: Tensor,
    *,
    divergence: DivergenceName = "hutchinson",
    probes: Draws = 1,
    probe: ProbeName = "rademacher",
    control: Gaussian | GaussianMixture | None = None,
    control_scale: Number = 1.0,
    chunk: Draws | None = None,
    method: MethodName | str | Solver = "adams",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    t_start: float | None = None,
    t_end: float | None = None,
    prior: Gaussian | GaussianMixture | None = None,
    solver_error: bool = False,
    context: Mapping[str, object] | None = None,
    seed: int | None = None,
    seeds: Sequence[int] | Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: Noise | Callable[[int, Tensor], Tensor] | None = None,
    callback: Annotated[Callable[[Info], object], called("callback(info)")] | None = None,
    max_steps: Steps | None = None,
    dtype: torch.dtype | None = None,
    throw: bool = True,
    differentiable: Annotated[bool | str, Kind(_check_graph)] = False,
    check: bool = True,
    progress: bool = False,
    **solver_options: object,
) -> Likelihood:
    r"""The log-likelihood of the probability flow, by the change of variables along it:

    .. math:: \ln p_{t_0}(x) = \ln\pi(x_T) + \ln\Big|\frac{\partial x_T}{\partial x}\Big|,\qquad
        \ln\Big|\frac{\partial x_T}{\partial x}\Big| = D\ln\frac{S_T}{S_0} + \int S\,\nabla_x\cdot G\,du,

    with :math:`x = Sy`, :math:`dy/du = G` the flow in the solver's coordinate: the stretching by S is exact, and little
    of the divergence is left (nothing for a Gaussian of the spread of ``"adams"``). The integral is solved beside the
    state, in float64, with steps of each sample.

    Args:
        sde: an affine process.
        score_fn: as for `scoresde.solve`.
        x: data, ``(batch, *event)``, float32 or float64, or made so by ``dtype``.
        divergence: ``"hutchinson"``, ``"exact"`` (D vector-Jacobian products), ``"hutch++"`` (a third of the
            probes for the range of the Jacobian), or ``"xtrace"`` (each probe for both).
        probes: the number of vector-Jacobian products per evaluation: a multiple of 3 for ``"hutch++"``, an even number
            for ``"xtrace"``.
        probe: ``"rademacher"``, ``"gaussian"``, or ``"orthogonal"`` (D orthogonal probes give the exact trace); the
            sketch of ``"hutch++"`` and all of ``"xtrace"`` are Gaussian.
        control: a distribution near the data's, a Gaussian or a mixture: the Jacobian of its flow is known, and only
            the difference from it is estimated.
        control_scale: the factor of the control, see `scoresde.likelihood.fit_control_scale`.
        chunk: the number of products that are computed at once, which take the memory of that many backward passes; the
            values do not depend on it. By default several for small batches of small events, and one for large batches
            or events.
        method: ``"adams"`` or a pair, such as ``"rk45"``.
        rtol, atol: tolerances of x; those of the log-density are D times as large.
        t_start: the data end, ``sde.t_min`` by default, where the density is evaluated.
        t_end: the noise end, ``sde.t_max`` by default.
        prior: the distribution at ``t_end``, with ``log_prob(x) -> (batch,)`` for latents in float64; by default that
            of the process, which is the distribution at ``sde.t_max`` only.
        solver_error: solve again with ten times the tolerance, and report the distance.
        context, seed, seeds, generator, noise, max_steps, dtype, throw: as for `scoresde.solve`; the random numbers are
            the probes, which are drawn once, independently for each sample.
        callback: ``callback(info)`` after each step, with ``step``, ``t`` and ``nfe`` as for `scoresde.solve`; ``x`` is
            the state with what is integrated beside it. It does not stop the solve.
        differentiable: keep the graph, so that the result can be differentiated in ``x`` and in parameters;
            ``"checkpoint"`` keeps only the states and evaluates the network again in the backward pass, so that memory
            does not grow with the network's depth times the steps; ``"adjoint"`` keeps only the ends and solves the
            adjoint equation, which gives the gradient of the flow, up to the tolerance.
        check: examine the data and the score function first, at the cost of fifteen evaluations of up to eight samples
            or seven of up to 24 (fifteen of all, unless the score function declares ``rowwise``): a score function that
            blocks gradients, is random or couples samples is refused; a `ScoreSDEWarning` reports data that are not
            dequantised, which have no density, and a score function that does not denoise the data, such as an
            untrained one.
        progress: show a progress bar.
        **solver_options: fields of the method's class.

    Returns:
        A `Likelihood`.

    Raises:
        InvalidArgumentError: an argument does not fit.
        ScoreFnError: gradients do not reach the input of the score function.
        NonFiniteError: NaN or infinity in the input, a score or a divergence.
        MaxStepsError, StepSizeUnderflowError: the method could not arrive.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> x = torch.tensor([[0.1, -0.2]], dtype=torch.float64)
        >>> got = log_likelihood(sde, target.score(sde), x, divergence="exact")
        >>> exact = target.log_prob(x, sde, sde.t_min)
        >>> bool((got.log_prob - exact).abs() < 1e-3)
        True

    References:
        Song et al. (2021), appendix D.2. https://arxiv.org/abs/2011.13456
        Grathwohl et al. (2019), FFJORD. https://arxiv.org/abs/1810.01367
    """
    if dtype is not None:
        x = check_state("x", x).to(dtype)
    sde, score, solver = check_density(sde, score_fn, x, method, solver_options)
    start, end = grids.time_of("t_start", t_start, sde, sde.t_min), grids.time_of("t_end", t_end, sde, sde.t_max)
    if start > end:
        raise InvalidArgumentError(f"`t_start`, the data end, must be below t_end={end:g}, got {start:g}.")
    law, known = _law(prior, sde, end), _control(control, control_scale, x)
    allowed = tolerances(
        DEFAULT if rtol is None else rtol, DEFAULT if atol is None else atol, x.dtype, score.network_dtype
    )
    check_limits(sde, score, solver, (start, end))
    if throw:
        check_finite(x)
    finite, keep = row_finite(x.detach()).cpu(), differentiable is not False
    with torch.set_grad_enabled(keep), explained(x, None):
        source = resolve(seed=seed, seeds=seeds, generator=generator, noise=noise, device=x.device, batch=len(x))
        state = where(finite.to(x.device), x, torch.zeros_like(x))
        trace = make_divergence(divergence, probes, probe, chunk, source, state.detach())
        graph = {"differentiable": keep, "checkpoint": differentiable == "checkpoint"}
        process = density_flow(sde, score, state, context, trace, control=known, **graph)
        read = partial(_read, process, solver, state, (start, end), law, finite, throw)
        if start == end or not bool(finite.any()):
            return read(_still(process, state, start))
        if check:
            check_plausible(process, state, finite, start, end, whole=prior is None)
        # what is stepped: with the adjoint equation, without a gradient
        stepped, beginning, adjoint = process, process.pack(state), None
        if differentiable == "adjoint":
            first, last = node_list(sde, torch.tensor([start, end], dtype=torch.float64))
            adjoint = Adjoint(process, solver, first, last, *allowed)
            stepped, beginning = replace(process, differentiable=False), beginning.detach()

        options = {"compact": score.traits.rowwise, "max_steps": max_steps or MAX_STEPS, "throw": throw}
        told = None if callback is None else partial(_tell, callback)

        def run(factor: float) -> Likelihood:
            controller = Adaptive(start, (end,), SHARE * factor * allowed[0], SHARE * factor * allowed[1])
            with progress_bar("log_likelihood" if progress else None) as bar:
                solution = integrate(
                    stepped, solver, controller, beginning, source, callback=told, progress=bar, **options
                )
            if adjoint is not None:
                solution = adjoint(process.pack(state), solution)
            return read(solution)

        result = run(1.0)
        if not solver_error:
            return result
        return replace(result, solver_error=(run(10.0).log_prob - result.log_prob).abs())


def _tell(callback: Callable[[Info], object], info: Info) -> None:
    """Call it without its answer: half of an integral is no likelihood."""
    callback(info)


@checked
def fit_control_scale(
    sde: SDE,
    score_fn: Callable[..., Tensor],
    control: Gaussian | GaussianMixture,
    x: Tensor,
    *,
    probes: Several = 16,
    seed: int = 0,
    **options: Any,
) -> float:
    r"""The ``control_scale`` of `log_likelihood` that leaves the smallest variance on a pilot.

    With A the paths of a sample without the control, and B what the control alone contributes to them,

    .. math:: c^* = \frac{\sum\mathrm{Cov}(A, B)}{\sum\mathrm{Var}(B)},

    summed over samples. A scale that depends on the probes makes a bias: fit it with another seed than the solve that
    it is for, and preferably on other samples too.

    Args:
        sde, score_fn, control: as for `log_likelihood`.
        x: the pilot's data, ``(batch, *event)``, ten samples or so.
        probes, seed: for the pilot's two solves, which share their probes.
        **options: of `log_likelihood`.

    Returns:
        c; 1 where the control does not change the estimates.

    Raises:
        InvalidArgumentError: an argument does not fit.

    Example:
        >>> sde, mean = scoresde.VPSDE(), torch.zeros(2, dtype=torch.float64)
        >>> target = scoresde.targets.Gaussian(mean, torch.tensor([[1.0, 0.4], [0.4, 0.5]]))
        >>> x = target.sample(4, generator=torch.Generator().manual_seed(0)).double()
        >>> round(fit_control_scale(sde, target.score(sde), target, x), 3)
        1.0
    """
    if control is None:
        raise InvalidArgumentError("`control` must be a targets.Gaussian or targets.GaussianMixture, got None.")
    paths = [
        log_likelihood(sde, score_fn, x, probes=probes, seed=seed, control=law, **options).paths.detach()
        for law in (None, control)
    ]
    plain, known = (p - p.mean(1, keepdim=True) for p in paths)
    away = plain - known
    if not bool(away.square().sum() > _LEAST * plain.square().sum()):
        return 1.0
    return float((plain * away).sum() / away.square().sum())


def _law(prior: Gaussian | GaussianMixture | None, sde: AffineSDE, end: float) -> Any:
    """The distribution at the noise end."""
    if prior is None:
        if end != sde.t_max:
            raise InvalidArgumentError(f"`prior` is missing: that of the process is at t_max, not at t_end={end:g}.")
        return sde.prior
    if isinstance(prior, type) or not callable(getattr(prior, "log_prob", None)):
        raise InvalidTypeError(f"`prior` must have the method log_prob(x) -> (batch,), got {prior!r}.")
    return prior


def density_flow(
    sde: AffineSDE, score: Score, x: Tensor, context: Mapping[str, object] | None, trace: Divergence, **options: Any
) -> LogDensityFlow:
    """The flow of states with their log-density."""
    network = Network(score, context_of(context, score, x))
    flow = ReverseProcess(sde, network)
    event = tuple(x.shape[1:])
    return LogDensityFlow(sde, network, flow=flow, divergence=trace, event_shape=event, dtype=x.dtype, **options)


@checked
def make_divergence(
    divergence: DivergenceName, probes: Draws, probe: ProbeName, chunk: Draws | None, source: Noise, x: Tensor
) -> Divergence:
    return DIVERGENCES[divergence].draw(x, probes, PROBES[probe], source.normal, chunk)


def _control(law: Any, scale: float, x: Tensor) -> Control | None:
    if law is None:
        return None
    if not isinstance(law, Gaussian | GaussianMixture) or law.event_shape != tuple(x.shape[1:]):
        raise InvalidArgumentError(
            f"`control` must be a targets.Gaussian or GaussianMixture for events {tuple(x.shape[1:])}, got {law!r}."
        )
    return Control(law, scale)


def _still(process: LogDensityFlow, x: Tensor, t: float) -> Solution:
    """Where there is nothing to solve."""
    zeros = torch.zeros(len(x), dtype=torch.long)
    time = torch.full((len(x),), t, dtype=torch.float64)
    return Solution(process.pack(x), time, zeros, 0, zeros, zeros, 0, zeros + Status.SUCCESS)


def _read(
    process: LogDensityFlow,
    solver: Any,
    x: Tensor,
    ends: tuple[float, float],
    prior: Any,
    finite: Tensor,
    throw: bool,
    solution: Solution,
) -> Likelihood:
    """The likelihood of a solve."""
    nodes = [process.sde.nodes(torch.tensor([t], dtype=torch.float64, device=x.device)) for t in ends]
    first, last = (torch.as_tensor(solver.coordinate.scale(node), dtype=torch.float64).to(x.device) for node in nodes)
    latent = process.unpack(solution.x)
    arrived = solution.success.to(x.device)
    prior_log_prob = prior.log_prob(where(arrived, latent, torch.zeros_like(latent)))  # torch's refuse NaN
    if not isinstance(prior_log_prob, Tensor) or prior_log_prob.shape != (len(x),):
        raise InvalidArgumentError(
            f"`prior.log_prob` must return ({len(x)},), one value per sample, got {form(prior_log_prob)}; "
            "torch.distributions.Independent makes distributions of events."
        )
    prior_log_prob = prior_log_prob.to(torch.float64)
    linear = process.size * torch.log(last / first)
    paths = prior_log_prob[:, None] + linear + process.integrals(solution.x, last)
    good = (finite & solution.success).to(x.device)
    lost = good & paths.isnan().any(1)
    if throw:
        why = ", though their latents are finite: `prior.log_prob` gives NaN there, or the numbers overflow"
        refuse_rows(lost, "The log-density is NaN for", why, "logp")
    good = good & ~lost
    status = torch.where(finite & ~lost.cpu(), solution.status, torch.full_like(solution.status, Status.NON_FINITE))
    paths = torch.where(good[:, None], paths, torch.nan)
    spread = process.divergence.std_error(paths)
    return Likelihood(
        log_prob=paths.mean(1),
        std_error=torch.where(good, spread, torch.nan),
        paths=paths,
        solver_error=torch.full_like(spread, torch.nan),
        latent=where(good, latent.to(x.dtype), torch.full_like(x, torch.nan)),
        prior_log_prob=torch.where(good, prior_log_prob, torch.nan),
        nfe=torch.where(finite, solution.nfe, 0),
        products=process.divergence.products,
        status=status,
    )
