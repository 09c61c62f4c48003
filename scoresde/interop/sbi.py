"""Posteriors of sbi as score models."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import grids
from ..core.errors import InvalidArgumentError
from ..core.sdes import VESDE, VPSDE, AffineSDE, FlowSDE, NormalPrior, SubVPSDE
from ..core.solve import solve
from ..core.support.checks import (
    as_tensor,
    check_batch,
    check_callable,
    check_choice,
    check_not_empty,
    check_state,
    check_tensor,
    form,
)
from ..core.support.tensors import row_sums
from ..guidance import tall
from ..guidance.tall import Tall
from ..scores import Score, ScoreFn, ScoreModel
from ..targets import Gaussian, Target, Uniform
from ._models import described, number_of, process_of

_SAMPLES, _STEPS = 500, 50  # of a single posterior, whose covariance is estimated


def from_sbi(
    estimator: Any,
    x_o: Tensor | None = None,
    *,
    prior: Any = None,
    covariances: Tensor | str = "samples",
    seed: int = 0,
) -> ScoreModel | Tall:
    r"""A posterior that sbi has trained by scores (NPSE) or by flow matching (FMPE), as a score function of
    :math:`\theta`.

    An estimator of scores returns, from a network f of the standardised state,

    .. math:: s(\theta_t, t; x_o) = -\frac{\alpha_t}{\sigma_t} f - \frac{\theta_t - \alpha_t m_0}{\alpha_t^2 v_0 +
              \sigma_t^2},

    with the mean :math:`m_0` and the variance :math:`v_0` of the parameters that it was trained on; its process is VP,
    sub-VP or VE. One of flow matching returns the velocity on straight lines, with noise at t = 1 as here. sbi itself
    is not imported.

    Facts:
        ``posterior.sample`` by the SDE with n steps is ``solve(model.sde, model, method="euler_maruyama", steps=n - 1,
        grid=model.grid)``, and its log-probability is ``log_likelihood(model.sde, model, theta, divergence="exact")``.
        Both are of the network: **the support of the prior** is not in it. sbi rejects samples outside, and gives them
        the log-probability minus infinity, without renormalising the rest; `within_support` is its test. Dropout and
        batch normalisation are as the estimator has them; sbi calls ``estimator.eval()`` first.

    Args:
        estimator: an estimator, or the posterior with it, whose prior and default observation are then known.
        x_o: one observation, of the shape that the estimator was trained on or with a leading 1; or n independent
            observations ``(n, …)``, whose joint posterior is that of `scoresde.guidance.tall`. None: the default
            observation of a posterior; without one each sample has its own, the entry ``x_o`` of the ``context`` of a
            solve, ``(batch, …)``.
        prior: the distribution of the parameters, for several observations: uniform on a box (``BoxUniform``,
            ``Independent(Uniform(…), 1)``), normal (``MultivariateNormal``, ``Independent(Normal(…), 1)``), a target,
            or the score function of any other, on the same process.
        covariances: of the single posteriors, for several observations: ``(n, D, D)`` or variances ``(n, D)``;
            ``"samples"``, those of 500 samples of each, which are drawn here (sbi's default, ``auto_gauss``); or
            ``"jacobians"``, for those of the network at every state (``jac_gauss``), which takes a network whose
            Jacobians are positive definite. See `scoresde.guidance.tall`.
        seed: of the samples from which covariances are estimated.

    Returns:
        A `ScoreModel`, or for several observations the score function of `scoresde.guidance.tall`. The process has the
        times of the estimator and its base distribution as the prior of the process. The ``grid`` of the model is the
        estimator's ``solve_schedule``.

    Raises:
        InvalidArgumentError: the estimator composes a standardisation of the parameters (``compose_standardization``),
            whose noise has another size in each direction; its schedule is not one of a process; the observations have
            another shape; or the prior is missing or unknown.
        InvalidTypeError: an argument has the wrong type.

    Example:
        >>> class Estimator(
        ...     torch.nn.Module
        ... ):  # in place of a VPScoreEstimator, of theta ~ N(x_o, I)
        ...     input_shape, condition_shape, t_min, t_max = (2,), (2,), 1e-3, 1.0
        ...     beta_min, beta_max, mean_base, std_base = (
        ...         0.1,
        ...         20.0,
        ...         torch.zeros(1, 2),
        ...         torch.ones(1, 2),
        ...     )
        ...
        ...     def mean_t_fn(self, t):
        ...         return scoresde.VPSDE().alpha(t)[:, None]
        ...
        ...     def std_fn(self, t):
        ...         return scoresde.VPSDE().sigma(t)[:, None]
        ...
        ...     def score(self, input, condition, t):
        ...         return self.mean_t_fn(t) * condition - input
        >>> model = from_sbi(Estimator(), torch.tensor([1.0, 2.0]))
        >>> theta = torch.tensor([[1.0, 2.0]])
        >>> log_p = scoresde.log_likelihood(
        ...     model.sde, model, theta, divergence="exact"
        ... ).log_prob
        >>> bool((log_p + math.log(2 * math.pi)).abs() < 1e-2)
        True

    References:
        Sharrock et al. (2024), Sequential Neural Score Estimation. https://arxiv.org/abs/2210.04872
        Geffner, Papamakarios, Mnih (2023). https://arxiv.org/abs/2209.14249
        https://github.com/sbi-dev/sbi (``neural_nets/estimators``, ``samplers/score``, ``inference/posteriors``)
    """
    inner = getattr(estimator, "vector_field_estimator", estimator)
    if inner is not estimator:
        prior = getattr(estimator, "prior", None) if prior is None else prior
        x_o = getattr(estimator, "default_x", None) if x_o is None else x_o
    for name in ("input_shape", "condition_shape", "t_min", "t_max", "mean_base", "std_base", "score"):
        if not hasattr(inner, name):
            raise InvalidArgumentError(
                f"`estimator` must be an estimator of scores or of flow matching by sbi, or a posterior with one; this "
                f"{type(inner).__name__} has no {name}."
            )
    if getattr(inner, "compose_enabled", False):
        raise InvalidArgumentError(
            "`estimator` composes a standardisation of the parameters, whose noise has another size in each direction; "
            "train it with compose_standardization=False."
        )
    observed = None if x_o is None else _observations(x_o, tuple(inner.condition_shape))
    several = observed is not None and len(observed) > 1
    if isinstance(covariances, str):
        check_choice("covariances", covariances, ("samples", "jacobians"))
    elif not several:
        raise InvalidArgumentError("`covariances` are for several observations `x_o`; leave them out.")
    flow = not hasattr(inner, "beta_min") and not hasattr(inner, "sigma_min")
    sde = _process(inner, flow)
    net = _Posterior(inner, flow, None if several else observed)
    shape = tuple(inner.input_shape)
    model = ScoreModel(net, sde, "flow" if flow else "score", event_shape=shape)
    schedule = getattr(inner, "solve_schedule", None)
    model = described(model, grid=_SamplerTimes(schedule) if callable(schedule) else grids.time)
    if observed is None or not several:
        return model
    known = _prior(prior)
    if isinstance(covariances, str) and covariances == "jacobians":
        return tall(model, known, {"x_o": observed})
    if not isinstance(known, Target):
        raise InvalidArgumentError(
            "`prior`: the covariance of a score function is unknown; call scoresde.guidance.tall(from_sbi(estimator), "
            'prior, {"x_o": x_o}, covariances=…, prior_covariance=…).'
        )
    narrow = (
        _covariances(model, observed.to(inner.mean_base.device), seed) if isinstance(covariances, str) else covariances
    )
    return tall(model, known, {"x_o": observed}, covariances=narrow)


def within_support(prior: Any, theta: Tensor) -> Tensor:
    """Whether parameters are in the support of a prior, which sbi requires of the samples of a posterior.

    Args:
        prior: a ``torch.distributions.Distribution``, of single events.
        theta: parameters ``(batch, *event)``.

    Returns:
        ``(batch,)``, booleans: what ``prior.support`` says, or where it is not defined, whether ``prior.log_prob`` is
        finite.

    Raises:
        InvalidArgumentError: the prior has neither.
        InvalidTypeError: an argument has the wrong type.

    Example:
        >>> box = torch.distributions.Independent(
        ...     torch.distributions.Uniform(torch.zeros(2), torch.ones(2)), 1
        ... )
        >>> theta = torch.tensor([[0.5, 0.5], [0.5, 1.5]])
        >>> inside = within_support(box, theta)
        >>> inside.tolist(), theta[inside].tolist()
        ([True, False], [[0.5, 0.5]])
    """
    check_not_empty("theta", check_state("theta", theta))
    if not len(theta):
        return torch.ones(0, dtype=torch.bool, device=theta.device)
    shape = getattr(prior, "event_shape", None)
    if isinstance(shape, torch.Size):
        check_batch("theta", theta, tuple(shape))
    try:
        inside = prior.support.check(theta)
    except (AttributeError, NotImplementedError):
        if not callable(getattr(prior, "log_prob", None)):
            raise InvalidArgumentError(
                f"`prior` must be a distribution with a support or a log_prob, got {type(prior).__name__}."
            ) from None
        inside = prior.log_prob(theta).isfinite()
    return inside.flatten(1).all(dim=1) if inside.ndim > 1 else inside


class _Posterior(nn.Module):
    """An estimator as a network of the parameters, given an observation."""

    def __init__(self, estimator: Any, flow: bool, x_o: Tensor | None) -> None:
        super().__init__()
        self.estimator = estimator
        self.flow = flow
        self.register_buffer("x_o", x_o)

    def accepts(self, name: str) -> bool:
        return name == "x_o" and self.x_o is None

    def forward(self, theta: Tensor, t: Tensor, x_o: Tensor | None = None) -> Tensor:
        given, shape = self.x_o if x_o is None else x_o, tuple(self.estimator.condition_shape)
        if not isinstance(given, Tensor) or given.shape[1:] != shape or len(given) not in (1, len(theta)):
            sizes = ", ".join(map(str, (len(theta), *shape)))
            raise InvalidArgumentError(
                f"`context['x_o']` must have one observation for each sample, ({sizes}), got {form(given)}."
            )
        condition = given.to(theta)
        if self.flow:
            return self.estimator(theta, condition, t)
        return self.estimator.score(theta, condition, t)


class _SamplerTimes:
    """The grid of an estimator's own sampler."""

    def __init__(self, schedule: Callable[..., Tensor]) -> None:
        self.schedule = schedule

    def __call__(self, sde: Any, t_start: float, t_end: float, steps: int) -> Tensor:
        low, high = min(t_start, t_end), max(t_start, t_end)
        times = self.schedule(steps + 1, t_min=low, t_max=high).to("cpu", torch.float64)
        times[0], times[-1] = high, low
        return times if t_start > t_end else times.flip(0)


@dataclass(frozen=True)
class _Base:
    r"""The base distribution of an estimator, :math:`N(m, \mathrm{diag}\,s^2)`."""

    mean: Tensor
    std: Tensor

    def from_normal(self, z: Tensor) -> Tensor:
        check_tensor("z", z)
        return self.mean.to(z) + self.std.to(z) * z

    def log_prob(self, x: Tensor) -> Tensor:
        check_state("x", x)
        z = (x - self.mean.to(x)) / self.std.to(x)
        per_element = 0.5 * z.square() + self.std.to(x).log() + 0.5 * math.log(2 * math.pi)
        return -row_sums(per_element.flatten(1))


def _process(estimator: Any, flow: bool) -> AffineSDE:
    """The process of an estimator, on its own times."""
    ends = {name: number_of(name, estimator, "estimator", low=0.0) for name in ("t_min", "t_max")}
    mean, std = (getattr(estimator, name).detach()[0] for name in ("mean_base", "std_base"))
    first = std.flatten()[0]
    prior: Any = NormalPrior(float(first), mean) if bool((std == first).all()) else _Base(mean, std)
    if flow:
        return FlowSDE(**ends, prior=prior)
    names = ("sigma_min", "sigma_max") if hasattr(estimator, "sigma_min") else ("beta_min", "beta_max")
    numbers = [number_of(name, estimator, "estimator", low=0.0, strict=True) for name in names]
    for name in ("mean_t_fn", "std_fn"):
        check_callable(f"estimator.{name}", getattr(estimator, name, None), f"{name}(t)")
    kinds: tuple[Any, ...] = (VESDE,) if names[0] == "sigma_min" else (VPSDE, SubVPSDE)
    known = [kind(*numbers, **ends, prior=prior) for kind in kinds]
    return process_of(functools.partial(_marginal, estimator), ends["t_min"], ends["t_max"], *known, prior=prior)


def _marginal(estimator: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\alpha` and :math:`\sigma` of an estimator, which have the dimensions of its events."""
    flat = t.reshape(-1)
    return estimator.mean_t_fn(flat).reshape(t.shape), estimator.std_fn(flat).reshape(t.shape)


def _observations(x_o: Any, shape: tuple[int, ...]) -> Tensor:
    """Observations ``(n, …)``."""
    given = as_tensor("x_o", x_o)
    if given.shape == shape:
        given = given[None]
    if given.shape[1:] != shape or given.ndim != len(shape) + 1 or not len(given):
        raise InvalidArgumentError(f"`x_o` must be an observation {shape}, or several of them, got {form(x_o)}.")
    return given.detach()


def _covariances(model: ScoreModel, observed: Tensor, seed: int) -> Tensor:
    """The covariances of the single posteriors, ``(n, D, D)``, from samples of each."""
    x_o = observed.repeat_interleave(_SAMPLES, dim=0)
    shape = (len(x_o), *model.event_shape)
    options: dict[str, Any] = {"shape": shape, "context": {"x_o": x_o}, "seed": seed, "device": x_o.device}
    solution = solve(model.sde, model, method="ddim", steps=_STEPS, grid="tangent", **options)
    groups = solution.x.to(torch.float64).flatten(1).split(_SAMPLES)
    return torch.stack([torch.cov(x.mT).reshape(x.shape[1], -1) for x in groups])


def _prior(prior: Any) -> Target | ScoreFn:
    """A prior as a target or a score function."""
    if isinstance(prior, Target | Score):
        return prior
    base: Any = getattr(prior, "base_dist", None)
    if all(isinstance(getattr(base, name, None), Tensor) for name in ("low", "high")):
        return Uniform(base.low.detach(), base.high.detach())
    if isinstance(getattr(prior, "covariance_matrix", None), Tensor):
        return Gaussian(prior.loc.detach(), prior.covariance_matrix.detach())
    if all(isinstance(getattr(base, name, None), Tensor) for name in ("loc", "scale")):
        return Gaussian(base.loc.detach(), torch.diag(base.scale.detach().flatten() ** 2))
    if callable(prior) and not hasattr(prior, "log_prob"):
        return prior
    raise InvalidArgumentError(
        "`prior` must be uniform on a box, normal, a target, or a score function of the parameters, for several "
        f"observations, got {'None' if prior is None else type(prior).__name__}."
    )
