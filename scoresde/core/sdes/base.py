r"""Forward processes: what noise does to data as time grows. They import from here what their signatures name.

Every process here is an SDE :math:`dx = f(x, t)\,dt + g(t)\,dw` with data at the small end of time and noise at the
large end. The affine ones have :math:`x_t = \alpha_t x_0 + \sigma_t \varepsilon`, and everything else follows from the
two functions:

.. math::
    \lambda = \ln\frac{\alpha}{\sigma}, \qquad f = \frac{d\ln\alpha}{dt}, \qquad g^2 = -2\sigma^2\frac{d\lambda}{dt}.

A schedule is written as the logarithms of :math:`\alpha` and :math:`\sigma`, in float64, so that neither end loses
digits.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import InvalidArgumentError
from ..support.checks import (
    check_device,
    check_output,
    check_state,
    check_tensor,
)
from ..support.context import check_unwritten, versions
from ..support.declared import (
    Device,
    NonNegative,
    Number,
    ScoreFunction,
    Shape,
    State,
    Stochasticity,
    check_as,
    checked,
    declares,
    instance,
)
from ..support.tensors import Scalar, compute_dtype
from .priors import NormalPrior
from .records import Node, as_time, like_time, times_of
from .spread import Spread

_CHECKED_TIMES = 257  # times at which a constructor checks its schedule
# The range of ln(alpha) and ln(sigma), in which squares of their ratios do not overflow in float64. Both may be 0 at
# their end of the interval.
SMALLEST, LARGEST = (math.log(v) for v in (torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max))


class SDE(abc.ABC):
    r"""A forward process :math:`dx = f(x, t)\,dt + g(t)\,dw` given by drift and diffusion only.

    Subclass it and give `drift` and `diffusion`. Processes with a Gaussian kernel are `AffineSDE`, which offers much
    more.

    Args:
        t_min: the data end of the interval.
        t_max: the noise end.
        prior: the distribution at ``t_max``: `NormalPrior` or an object with its two methods ``from_normal(z)`` and
            ``log_prob(x)``.

    Example:
        Here the prior is only close to the distribution at t_max, which has two modes.

        >>> class DoubleWell(SDE):
        ...     def drift(self, x, t):
        ...         return x - x**3
        ...
        ...     def diffusion(self, t):
        ...         return torch.as_tensor(1.0)
        >>> DoubleWell(t_min=0.0, t_max=4.0, prior=NormalPrior(1.0)).prior_sample(
        ...     (3, 2)
        ... ).shape
        torch.Size([3, 2])
    """

    affine = False

    @checked
    def __init__(self, *, t_min: NonNegative, t_max: Number, prior: NormalPrior) -> None:
        self.t_min, self.t_max = t_min, t_max
        if not self.t_min < self.t_max:
            raise InvalidArgumentError(f"The interval is empty: t_min={t_min} must be below t_max={t_max}.")
        self.prior = prior

    @abc.abstractmethod
    def drift(self, x: Tensor, t: Scalar) -> Tensor:
        """f(x, t), shaped like ``x``; a solver gives t as ``(batch,)`` in the state's dtype."""

    @abc.abstractmethod
    def diffusion(self, t: Scalar) -> Tensor:
        """g(t): a scalar; ``(batch,)`` for times ``(batch,)``; a value per dimension, shaped like the event or ``(1,
        *event)``; or a tensor of the state's rank that broadcasts against it.

        A solver gives t as a float64 tensor, 0-d when all samples share the time, else ``(batch,)``. Values per
        dimension that change with time are ``t[..., None] * g`` for events ``(D,)``.
        """

    @checked
    def prior_sample(
        self,
        shape: Shape,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: Device | None = None,
    ) -> Tensor:
        """Draw ``(batch, *event)`` from the prior."""
        where = check_device(device)
        source = where if generator is None else generator.device
        z = torch.randn(shape, generator=generator, dtype=dtype, device=source)
        return self.prior.from_normal(z.to(where))

    @checked
    def prior_log_prob(self, x: State) -> Tensor:
        """The prior's log-density in nats, ``(batch,)``."""
        return self.prior.log_prob(x)

    def reverse(self, score_fn: Callable[..., Tensor], stochasticity: float = 1.0) -> ReverseSDE:
        r"""The reverse-time form :math:`dx = [f - \tfrac12(1+\eta^2) g^2 s]\,dt + \eta g\,d\bar w`; see
        `scoresde.ReverseSDE`."""
        return ReverseSDE(self, score_fn, stochasticity)

    def probability_flow(self, score_fn: Callable[..., Tensor]) -> ReverseSDE:
        """The ODE with the same marginals: the reverse form without noise."""
        return self.reverse(score_fn, 0.0)

    def node(self, t: float) -> Node[float]:
        """The quantities that a solver needs at one time, as Python floats."""
        return Node(float(t), *([math.nan] * 7))

    def nodes(self, t: Tensor) -> Node[Tensor]:
        """The same for times ``(n,)``, as float64 tensors."""
        t = t.to(torch.float64)
        return Node(t, *([torch.full_like(t, math.nan)] * 7))

    def __repr__(self) -> str:
        shown = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


class ReverseSDE:
    r"""The family of reverse-time processes with the forward marginals.

    .. math:: dx = \Big[f(x, t) - \tfrac12 (1+\eta^2)\, g(t)^2\, s(x, t)\Big] dt + \eta\, g(t)\, d\bar w, \qquad dt < 0.

    :math:`\eta = 0` is the probability-flow ODE, :math:`\eta = 1` Anderson's reverse SDE.

    Args:
        sde: the forward process.
        score_fn: ``score_fn(x, t)`` with t as ``(batch,)``.
        stochasticity: :math:`\eta \ge 0`.

    Example:
        >>> from scoresde import VESDE
        >>> flow = VESDE().probability_flow(lambda x, t: -x)
        >>> flow.drift(torch.ones(1, 2), 0.0), float(flow.diffusion(0.0))
        (tensor([[0.0009, 0.0009]]), 0.0)

    References:
        Song et al. (2021), Score-Based Generative Modeling through SDEs, eqs. 6 and 13.
        https://arxiv.org/abs/2011.13456
    """

    @checked
    def __init__(self, sde: SDE, score_fn: ScoreFunction, stochasticity: Stochasticity = 1.0) -> None:
        self.sde = sde
        self.score_fn = score_fn
        self.stochasticity = stochasticity
        self._spread = Spread(sde)

    def drift(self, x: Tensor, t: Scalar) -> Tensor:
        """The drift, shaped like ``x``; multiply it by a negative dt."""
        check_state("x", x)
        times = times_of(x, t).to(compute_dtype(x.dtype))
        before = versions(x, {})
        score = check_output("The score function", self.score_fn(x, times), x)
        check_unwritten("The score function", before, x, {})
        g = self._spread(x, as_time("t", t))
        return (self.sde.drift(x, t) - 0.5 * (1 + self.stochasticity**2) * g**2 * score).to(x.dtype)

    def diffusion(self, t: Scalar) -> Tensor:
        r""":math:`\eta\, g(t)`."""
        return self.stochasticity * self.sde.diffusion(t)


class AffineSDE(SDE):
    r"""A process with the kernel :math:`x_t = \alpha_t x_0 + \sigma_t \varepsilon`.

    A subclass gives `_log_alpha`, `_log_sigma`, `_rates` (the time derivatives of both) and `_time` (the inverse of
    :math:`\lambda`), all as functions of float64 tensors, and calls ``super().__init__`` last, which checks the
    schedule.

    Shapes:
        x: ``(batch, *event)``; t: a float, a 0-d tensor or ``(batch,)``.

    Raises:
        InvalidArgumentError: the interval is empty, the SNR does not fall strictly, or :math:`\alpha` or
            :math:`\sigma` is negative, or outside the range of a float32 (0 at its end of the interval is a limit).
    """

    affine = True

    def __init__(self, *, t_min: float, t_max: float, prior: NormalPrior | None = None) -> None:
        super().__init__(t_min=t_min, t_max=t_max, prior=NormalPrior() if prior is None else prior)
        self.check_schedule()

    # The schedule, float64 tensors in and out.
    @abc.abstractmethod
    def _log_alpha(self, t: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def _log_sigma(self, t: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def _rates(self, t: Tensor) -> tuple[Tensor, Tensor]: ...

    @abc.abstractmethod
    def _time(self, lam: Tensor) -> Tensor: ...

    # Products of the above that have limits of their own where alpha or sigma vanish; subclasses give those.
    def _alpha_rate(self, t: Tensor) -> Tensor:
        return self._log_alpha(t).exp() * self._rates(t)[0]

    def _sigma_rate(self, t: Tensor) -> Tensor:
        return self._log_sigma(t).exp() * self._rates(t)[1]

    def _g2(self, t: Tensor) -> Tensor:
        f, rate = self._rates(t)
        return 2 * (2 * self._log_sigma(t)).exp() * (rate - f)

    def check_schedule(self) -> None:
        """Refuse a schedule that cannot be computed with, as the constructor does; a learned one may become that later.

        Raises:
            InvalidArgumentError: see the class.
        """
        t = torch.linspace(self.t_min, self.t_max, _CHECKED_TIMES, dtype=torch.float64)
        with torch.no_grad():
            log_alpha, log_sigma = self._log_alpha(t), self._log_sigma(t)
            lam = log_alpha - log_sigma
            lam = torch.where(torch.maximum(log_alpha, log_sigma) < LARGEST, lam, torch.nan)
        if bool(torch.isnan(lam).any()):
            bad = int(torch.isnan(lam).int().argmax())
            raise InvalidArgumentError(
                f"alpha and sigma must be positive and finite: at t={t[bad]:.6g} they are not, or are larger than a "
                f"float32 holds."
            )
        self._check_size("alpha", "t_max", self._log_alpha, t, log_alpha)
        self._check_size("sigma", "t_min", self._log_sigma, t.flip(0), log_sigma.flip(0))
        falls = lam[1:] < lam[:-1]
        if not bool(falls.all()):
            bad = int((~falls).int().argmax())
            raise InvalidArgumentError(
                f"The signal-to-noise ratio must fall strictly with time; log(alpha/sigma) is {lam[bad]:.6g} at "
                f"t={t[bad]:.6g} "
                f"and {lam[bad + 1]:.6g} at t={t[bad + 1]:.6g} (index {bad + 1} of {_CHECKED_TIMES} on "
                f"[{self.t_min}, {self.t_max}])."
            )

    def _check_size(self, name: str, end: str, log: Callable[[Tensor], Tensor], t: Tensor, values: Tensor) -> None:
        """Refuse an alpha or sigma that underflows on the way to the end where it may vanish, the last of the times; a
        value of 0 at that end is a limit if its neighbour is not 0."""
        small = values < SMALLEST
        if bool(torch.isinf(values[-1])):
            with torch.no_grad():
                small[-1] = not bool(torch.isfinite(log(t[-1:] + 1e-12 * (t[-2] - t[-1]))))
        if not bool(small.any()):
            return
        first = int(small.int().argmax())
        hint = ""
        if first:
            good, bad = t[first - 1], t[first]
            while good != (middle := good + 0.5 * (bad - good)) != bad:
                good, bad = (good, middle) if bool(log(middle) < SMALLEST) else (middle, bad)
            most, share = ("largest", 0.999) if end == "t_max" else ("smallest", 1.001)  # the figure is rounded
            hint = f" The {most} {end} that works is {share * float(good):.4g}."
        raise InvalidArgumentError(
            f"`{end}`={t[-1]:g}: {name} underflows before it, and with it the signal-to-noise ratio is lost. At "
            f"t={t[first]:.6g} it is exp({values[first]:.6g}); it must be at least {math.exp(SMALLEST):.3g}, or 0 at "
            f"{end} alone.{hint}"
        )

    # The public functions of time.
    def alpha(self, t: Scalar) -> Tensor:
        r""":math:`\alpha(t)`, the signal's scale: float64 for a float, else in the dtype of ``t`` (float32 or
        wider)."""
        return like_time(self._log_alpha(as_time("t", t)).exp(), t)

    def sigma(self, t: Scalar) -> Tensor:
        r""":math:`\sigma(t)`, the noise's standard deviation."""
        return like_time(self._log_sigma(as_time("t", t)).exp(), t)

    def log_snr(self, t: Scalar) -> Tensor:
        r""":math:`\ln(\alpha^2/\sigma^2)` as in the VDM paper; a solver's :math:`\lambda` is half of it."""
        time = as_time("t", t)
        return like_time(2 * (self._log_alpha(time) - self._log_sigma(time)), t)

    def time(self, log_snr: Scalar) -> Tensor:
        """The time at which the log-SNR has the given value: the inverse of `log_snr`, differentiable.

        Processes without a closed form (`VDMSDE`, `GaussianSDE`) search for it on [t_min, t_max] only.
        """
        return like_time(self._time(as_time("log_snr", log_snr, -math.inf) / 2), log_snr)

    def drift(self, x: Tensor, t: Scalar) -> Tensor:
        """f(t) x, shaped like ``x``."""
        check_state("x", x)
        return (self._on(x, self._rates(as_time("t", t))[0]) * x).to(x.dtype)

    def diffusion(self, t: Scalar) -> Tensor:
        """g(t) >= 0."""
        return like_time(self._g2(as_time("t", t)).sqrt(), t)

    # The kernels.
    def marginal(self, x0: Tensor, t: Scalar) -> tuple[Tensor, Tensor]:
        r"""Mean :math:`\alpha_t x_0` and standard deviation :math:`\sigma_t` of :math:`q(x_t|x_0)`; the latter
        broadcasts against ``x0``."""
        check_state("x0", x0)
        time = as_time("t", t)
        mean = self._on(x0, self._log_alpha(time).exp()) * x0
        return mean.to(x0.dtype), self._on(x0, self._log_sigma(time).exp()).to(x0.dtype)

    def perturb(self, x0: Tensor, t: Scalar, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Draw :math:`x_t = \alpha_t x_0 + \sigma_t\varepsilon`; returns :math:`(x_t, \varepsilon)`."""
        mean, std = self.marginal(x0, t)
        if noise is not None:
            check_tensor("noise", noise, x0.shape)
        z = torch.randn_like(x0) if noise is None else noise
        return mean + std * z, z

    def transition(self, x_s: Tensor, s: Scalar, t: Scalar) -> tuple[Tensor, Tensor]:
        r"""Mean and standard deviation of :math:`q(x_t|x_s)` for s < t (s is the cleaner time).

        .. math:: \frac{\alpha_t}{\alpha_s} x_s, \qquad \sigma_t\sqrt{1-e^{2(\lambda_t-\lambda_s)}}.
        """
        check_state("x_s", x_s)
        s, t, ratio, shrink = self._between(s, t)
        std = self._on(x_s, self._log_sigma(t).exp() * shrink.sqrt())
        return (self._on(x_s, ratio) * x_s).to(x_s.dtype), std.to(x_s.dtype)

    def posterior(self, x_t: Tensor, x0: Tensor, s: Scalar, t: Scalar) -> tuple[Tensor, Tensor]:
        r"""Mean and standard deviation of :math:`q(x_s|x_t,x_0)` for s < t (s is the cleaner time).

        .. math:: \frac{\sigma_s}{\sigma_t}e^{\lambda_t-\lambda_s} x_t + \alpha_s(1-e^{2(\lambda_t-\lambda_s)})x_0,
                  \qquad \sigma_s\sqrt{1-e^{2(\lambda_t-\lambda_s)}}.
        """
        check_state("x_t", x_t)
        check_state("x0", x0)
        if x0.shape != x_t.shape:
            raise InvalidArgumentError(f"`x0` must have the shape of `x_t`, {tuple(x_t.shape)}, got {tuple(x0.shape)}.")
        s, t, ratio, shrink = self._between(s, t)
        log_sigma_s = self._log_sigma(s)
        sigma_s = log_sigma_s.exp()
        narrowing = torch.where(s == t, torch.zeros_like(shrink), log_sigma_s - self._log_sigma(t))
        keep = ratio * (2 * narrowing).exp()
        mean = self._on(x_t, keep) * x_t + self._on(x_t, self._log_alpha(s).exp() * shrink) * x0
        return mean.to(x_t.dtype), self._on(x_t, sigma_s * shrink.sqrt()).to(x_t.dtype)

    def _between(self, s: Scalar, t: Scalar) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""Two times in order, and :math:`\alpha_t/\alpha_s` and :math:`1-e^{2(\lambda_t-\lambda_s)}`, without
        cancellation."""
        s, t = as_time("s", s), as_time("t", t)
        if not bool((s <= t).all()):
            raise InvalidArgumentError(
                f"s must be the cleaner time, s <= t; got s={s.tolist()} and t={t.tolist()}; swap them."
            )
        log_alpha_s, log_alpha_t = self._log_alpha(s), self._log_alpha(t)
        lam_s, lam_t = log_alpha_s - self._log_sigma(s), log_alpha_t - self._log_sigma(t)
        same = s == t  # keeps inf - inf out when both ends are the same infinite end
        shrink = torch.where(same, torch.zeros_like(lam_t - lam_s), -torch.expm1(2 * (lam_t - lam_s)))
        return s, t, torch.where(same, torch.ones_like(shrink), (log_alpha_t - log_alpha_s).exp()), shrink

    @staticmethod
    def _on(x: Tensor, value: Tensor) -> Tensor:
        """A schedule value, broadcast against a state, in the state's dtype (float32 or wider)."""
        if value.ndim and len(value) not in (1, len(x)):
            raise InvalidArgumentError(f"`t` must be a scalar or (batch,) = ({len(x)},), got {len(value)} times.")
        moved = value.to(device=x.device, dtype=compute_dtype(x.dtype))
        return moved.reshape(moved.shape + (1,) * (x.ndim - moved.ndim)) if moved.ndim else moved

    # What solvers read.
    def nodes(self, t: Tensor) -> Node[Tensor]:
        """The quantities that a solver needs at times ``(n,)``, as float64 tensors."""
        t = t.to(torch.float64)
        log_alpha, log_sigma = self._log_alpha(t), self._log_sigma(t)
        return Node(
            t,
            log_alpha.exp(),
            log_sigma.exp(),
            log_alpha - log_sigma,
            self._rates(t)[0],
            self._g2(t),
            self._alpha_rate(t),
            self._sigma_rate(t),
        )

    def node(self, t: float) -> Node[float]:
        """The quantities that a solver needs at one time, as Python floats."""
        with torch.no_grad():
            values = self.nodes(torch.tensor([t], dtype=torch.float64))
        return Node(*(v.item() for v in values))

    def same_schedule(self, other: SDE) -> bool:
        """Whether another process has the same :math:`\\alpha` and :math:`\\sigma` (the intervals may differ)."""
        if self is other:
            return True
        if not isinstance(other, AffineSDE):
            return False
        low, high = max(self.t_min, other.t_min), min(self.t_max, other.t_max)
        if not low < high:
            return False
        t = torch.linspace(low, high, 7, dtype=torch.float64)[1:-1]
        with torch.no_grad():
            pairs = [(a._log_alpha(t), a._log_sigma(t)) for a in (self, other)]
        return all(torch.allclose(p, q, rtol=1e-9, atol=1e-12) for p, q in zip(*pairs, strict=True))


declares(SDE, instance(SDE, "a process such as scoresde.VPSDE()"))
declares(AffineSDE, instance(AffineSDE, "an affine process such as scoresde.VPSDE()"))


def check_sde(sde: object, *, affine: bool = False) -> None:
    """Refuse what is not a process, or not an affine one."""
    check_as("sde", sde, AffineSDE if affine else SDE)


def check_affine(sde: object) -> AffineSDE:
    """Return an affine process, where any process could be given; others are refused as values, not as types."""
    if not isinstance(sde, AffineSDE):
        raise InvalidArgumentError(f"`sde` must be an affine process such as scoresde.VPSDE(), got {sde!r}.")
    return sde
