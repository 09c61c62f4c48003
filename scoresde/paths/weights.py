"""Weights of paths to a known target, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.noise import BatchNoise
from ..core.recorder.cells import log_normal
from ..core.sdes import SDE, AffineSDE
from ..core.support.checks import (
    MOST_DRAWS,
    check_callable,
    check_finite_rows,
    check_integer,
    check_kind,
    check_number,
    check_state,
    check_tensor,
    warn_caller,
)
from ..core.support.display import Displayed
from ..core.support.intervals import Interval, mean_interval
from .density import Replay, chosen_steps, kl, process_of
from .path import Path

_FEW = 0.5  # of the samples, that count


@dataclass(frozen=True, eq=False, repr=False)
class Weights(Displayed):
    r"""Samples and their weights to a target :math:`\gamma` that is known up to a constant.

    Attributes:
        log_weights: :math:`\ln w`, ``(n,)`` float64; minus infinity outside the target's support.
        x: the samples, ``(n, *event)``.

    Example:
        >>> weights = Weights(
        ...     torch.tensor([0.0, math.log(3.0)]), torch.tensor([[1.0], [2.0]])
        ... )
        >>> round(weights.ess, 4), round(weights.mean(lambda x: x[:, 0]).value, 4)
        (1.6, 1.75)
    """

    log_weights: Tensor
    x: Tensor

    def __post_init__(self) -> None:
        check_finite_rows("`x`", check_state("x", self.x).detach())
        weights = check_tensor("log_weights", self.log_weights, (len(self.x),))
        if bool((weights.isnan() | (weights == math.inf)).any()) or not bool(weights.isfinite().any()):
            raise InvalidArgumentError(
                "`log_weights` must be numbers or minus infinity, one for each of `x`, and not all minus infinity."
            )
        object.__setattr__(self, "log_weights", weights.to(torch.float64))

    @property
    def shares(self) -> Tensor:
        """The weights, normalised to a sum of 1, ``(n,)``."""
        return torch.softmax(self.log_weights, 0)

    @property
    def ess(self) -> float:
        r"""The effective sample size :math:`(\sum w)^2/\sum w^2`."""
        return 1 / float(self.shares.square().sum())

    def log_normaliser(self, confidence: float = 0.95) -> Interval:
        r"""The logarithm of :math:`Z = \int\gamma`, which is :math:`E w`, by the mean of the weights.

        Its interval is that of Student for the mean, on the scale of the logarithm. It holds for many samples whose
        weights are not too uneven: below an effective share of a half it is too short.
        """
        confidence = check_number("confidence", confidence, low=0.0, high=1.0, strict=True)
        top = float(self.log_weights.max())
        scaled = (self.log_weights - top).exp()
        found = mean_interval(scaled, confidence)
        value, off = top + math.log(found.value), (found.high - found.value) / found.value
        return Interval(value, value - off, value + off, confidence, "asymptotic")

    def mean(self, function: Callable[[Tensor], Tensor], confidence: float = 0.95) -> Interval:
        r"""The mean of a function under the target, :math:`\sum w f/\sum w`, with the interval of its linearisation.

        Args:
            function: ``function(x) -> (n,)``.
            confidence: of the interval.
        """
        check_callable("function", function, "function(x)")
        confidence = check_number("confidence", confidence, low=0.0, high=1.0, strict=True)
        values = check_tensor("function(x)", function(self.x), (len(self.x),), kind="real", finite=True)
        shares, values = self.shares, values.detach().to(self.log_weights)
        value = (shares * values).sum()
        found = mean_interval(len(shares) * shares * (values - value), confidence)
        return Interval(float(value), float(value) + found.low, float(value) + found.high, confidence, "asymptotic")

    def resampled(self, count: int | None = None, *, seed: int = 0) -> Tensor:
        """Samples with equal weights, by systematic resampling: each occurs as often as its share, rounded up or down.

        Args:
            count: how many; by default as many as there are.
            seed: of the draw.
        """
        count = check_integer("count", len(self.x) if count is None else count, low=1, high=MOST_DRAWS)
        generator = BatchNoise.seeded(seed, torch.device("cpu")).generator
        offset = torch.rand((), dtype=torch.float64, generator=generator)
        places = (torch.arange(count, dtype=torch.float64) + offset) / count
        chosen = torch.searchsorted(self.shares.cumsum(0).cpu(), places).clamp(max=len(self.x) - 1)
        return self.x[chosen.to(self.x.device)]

    def _summary(self) -> dict[str, str]:
        found = self.log_normaliser()
        return {
            "samples": str(len(self.x)),
            "ess": f"{self.ess:.4g}",
            "log_normaliser": f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})",
        }


def weights(
    path: Path,
    log_density: Callable[[Tensor], Tensor],
    score_fn: Callable[..., Tensor],
    *,
    sde: SDE | None = None,
    prior_log_prob: Tensor | None = None,
) -> Weights:
    r"""The weights of a path's last states to a target :math:`\gamma` that is known up to a constant.

    .. math::
        \ln w = \ln\gamma(V_K) + \sum_i \ln L(V_{i-1}|V_i) - \ln\pi(V_0) - \sum_i \ln p_\theta(V_i|V_{<i}),

    with the states :math:`V_i` of the path, its start :math:`V_0` and the prior :math:`\pi`. L leads back: from a level
    to a noisier one it is the transition of the forward process, :math:`N(\alpha_s x_t/\alpha_t, \sigma_s^2 -
    (\alpha_s/\alpha_t)^2\sigma_t^2)`, and for a Langevin move within a level the same move from where it led,
    :math:`N(x + \tfrac12 S^2 s(x), S^2)`. For any network :math:`E w = \int\gamma`, whatever the steps; the closer the
    path is to the reverse of the forward process, the more even the weights.

    Args:
        path: of ``solve(..., path_log_prob=True)``.
        log_density: ``log_density(x) -> (batch,)``, :math:`\ln\gamma` at the end of the solve, where x has the noise of
            ``t_end`` left in it.
        score_fn: the network that made the path. Its densities are taken from the path; it is called for Langevin
            moves alone.
        sde: the process, of a path that was loaded.
        prior_log_prob: the log-density of the start, ``(batch,)``, if ``x`` was given to the solve.

    Returns:
        `Weights`. A `ScoreSDEWarning` reports fewer effective samples than half of all. More steps help where the
        method follows the reverse SDE with :math:`\eta = 1`, whose reverse is the forward process; with other noise
        the distributions of the path and of the forward process are further apart the more steps there are.

    Raises:
        InvalidArgumentError: the last step draws nothing, so that the last state has no density; the sizes of moves
            depend on the state; or the density of the start is not known.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(1), torch.eye(1))
        >>> sde = scoresde.VPSDE()
        >>> options = {"method": "ancestral", "variance": "large", "steps": 20, "seed": 0}
        >>> path = scoresde.solve(
        ...     sde, target.score(sde), shape=(500, 1), path_log_prob=True, **options
        ... ).path
        >>> found = scoresde.paths.weights(
        ...     path, lambda x: -0.5 * (x[:, 0] - 0.2) ** 2, target.score(sde)
        ... )
        >>> exact = 0.5 * math.log(2 * math.pi)
        >>> interval = found.log_normaliser(0.999)
        >>> interval.low < exact < interval.high
        True

    References:
        Zhang, Chen (2022), Path Integral Sampler: a stochastic control approach for sampling.
        https://arxiv.org/abs/2111.15141
        Del Moral, Doucet, Jasra (2006), Sequential Monte Carlo samplers, section 2.3.
    """
    process = process_of(path, sde)
    if not len(path):
        raise InvalidArgumentError("`path` has no samples.")
    check_callable("log_density", log_density, "log_density(x)")
    prior = path.prior_log_prob if prior_log_prob is None else prior_log_prob
    if prior is None:
        raise InvalidArgumentError("`prior_log_prob` is missing: the path begins with an `x` that was given.")
    prior = check_tensor("prior_log_prob", prior, (len(path),), finite=True).to(path.log_probs)
    if not len(path.noisy) or not bool(path.noisy[-1]):
        raise InvalidArgumentError(
            "The last step of `path` draws nothing, so that its end has no density; end the solve above sigma = 0, by "
            "t_end, or take options that draw in the last step."
        )
    with torch.no_grad():
        replay = Replay(path, process, score_fn)
        last = path.states[-1]
        total = _target(log_density, last) - prior - path.log_prob
        before, t = path.start, float(path.times[0])
        for cell, state in zip(replay.plan.cells[: len(path.states)], path.states, strict=True):
            total = total + _backwards(replay, process, before, t, state, cell.t, cell.std)
            before, t = state, cell.t
    result = Weights(total, last)
    if result.ess < _FEW * len(last):
        remedy = "take more steps, method='ancestral' with variance='large', or a target that is closer to the samples"
        eta = path.solver.follows(path.stochasticity)
        if eta is not None and not math.isclose(eta, 1.0, rel_tol=1e-3):
            remedy = (
                f"the path has the noise of eta = {eta:g}, and only with that of 1 it goes back along the forward "
                "process: take method='ancestral' with variance='large'"
            )
        elif eta is None and path.solver.kind == "sde":
            remedy = (
                f"{path.solver.name!r} does not follow the reverse of the forward process, and more steps do not help: "
                "take method='ancestral' with variance='large'"
            )
        warn_caller(
            f"The weights are worth {result.ess:.3g} of {len(last)} samples, and intervals are too short below a half; "
            f"{remedy}."
        )
    return result


def _target(log_density: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    value = check_tensor("log_density(x)", log_density(x), (len(x),), kind="real")
    if bool((value.isnan() | (value == math.inf)).any()) or not bool(value.isfinite().any()):
        raise InvalidArgumentError("`log_density` must be finite, or minus infinity outside the support.")
    return value.to(torch.float64)


def _backwards(replay: Replay, sde: SDE, x: Tensor, s: float, y: Tensor, t: float, std: object) -> Tensor:
    """The log-density with which L leads from y at t back to x at s."""
    check_kind("sde", sde, AffineSDE, "a process with alpha and sigma")
    noisy, clean = sde.node(s), sde.node(t)
    if s == t:  # a move within a level
        if not isinstance(std, float):
            raise InvalidArgumentError(
                "The size of a move of `path` depends on the state, so that it does not lead back; take rule='sigma'."
            )
        score = replay.network.score_fn.score(y, clean, **replay.network.context)
        return log_normal(x - y - 0.5 * std * std * score, std)
    spread = noisy.sigma * math.sqrt(-math.expm1(2 * (noisy.lam - clean.lam)))
    return log_normal(x - noisy.alpha / clean.alpha * y, spread)


def divergence(
    path: Path,
    new: Callable[..., Tensor],
    old: Callable[..., Tensor],
    *,
    sde: SDE | None = None,
    steps: Sequence[int] | None = None,
    context: Mapping[str, object] | None = None,
) -> Interval:
    r"""The Kullback-Leibler divergence :math:`KL(P_{new}\|P_{old})` of the distributions of paths, from paths of
    ``new``.

    It is the mean over paths of `kl`, in nats, with Student's interval, cut off at 0. It bounds the divergence of what
    both sample, and by Pinsker's inequality their distance in total variation, :math:`TV \le \sqrt{KL/2}`. Over some of
    the steps it is their part, which bounds nothing.

    Args:
        path: drawn with ``new``, two samples or more.
        new, old: networks.
        sde: the process, of a path that was loaded.
        steps, context: see `log_prob`.

    Raises:
        InvalidArgumentError: there are fewer than two samples, or no steps; see `log_prob`.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
        >>> sde = scoresde.VPSDE()
        >>> score_fn = target.score(sde)
        >>> path = scoresde.solve(
        ...     sde, score_fn, method="ancestral", steps=5, shape=(8, 2), path_log_prob=True
        ... ).path
        >>> scoresde.paths.divergence(path, score_fn, score_fn).value
        0.0
    """
    if not chosen_steps(path, steps) or len(path) < 2:
        raise InvalidArgumentError("`path` must have two samples or more for an interval, and `steps` a step.")
    with torch.no_grad():
        found = mean_interval(kl(path, new, old, sde=sde, steps=steps, context=context))
    return replace(found, low=max(found.low, 0.0))
