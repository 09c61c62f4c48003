r"""Distributions of the noise levels that a loss uses.

A distribution maps uniform numbers u in [0, 1) to times, and has a density q, so that a mean over one distribution
becomes a mean over another: with the weight :math:`w = 1/((t_{max}-t_{min})\,q(t))`

.. math:: E_{t\sim q}[w(t) f(t)] = \frac1{t_{max}-t_{min}}\int_{t_{min}}^{t_{max}} f(t)\,dt .

A loss multiplies by w where its objective is a mean over uniform times and the distribution is a matter of variance
(``importance=True``: `scoresde.losses.denoising_score_matching`, `scoresde.losses.likelihood_weighted`,
`scoresde.losses.vdm`), and leaves it out where the distribution is a part of the objective (`scoresde.losses.edm`,
`scoresde.losses.flow_matching`). Distributions of the levels of a chain are in `scoresde.losses.indices`.

All distributions live on the [t_min, t_max] of the process they are used with; those with tails are cut off there.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.sdes import SDE, AffineSDE
from ..core.sdes.base import check_sde
from ..core.support.checks import (
    MOST_LEVELS,
    MOST_NUMBERS,
    check_callable,
    check_generator,
    check_integer,
    check_kind,
    check_number,
)
from ..core.support.tensors import sigmoid
from .weights import Weight, weigh, weight_of

_GAUSS = torch.tensor([[0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5], [5 / 18, 8 / 18, 5 / 18]], dtype=torch.float64)
_SQRT_2PI = math.sqrt(2 * math.pi)
_WIDEST = 40.0  # of ln(alpha/sigma), in the mesh of `Importance`


@dataclass(frozen=True)
class Draw:
    """Times float64 ``(batch,)``, their importance weights float64 ``(batch,)``, and, of a chain, the places of the
    levels int64 ``(batch,)``.

    Example:
        >>> UniformTimes().at(
        ...     scoresde.VESDE(t_min=0.0), torch.tensor([0.25], dtype=torch.float64)
        ... ).weight
        tensor([1.], dtype=torch.float64)
    """

    t: Tensor
    weight: Tensor
    index: Tensor | None = None


class Times(abc.ABC):
    """A distribution of noise levels.

    A subclass gives `at`.

    Example:
        >>> draw = LogUniform().draw(scoresde.VPSDE(), 5, torch.Generator().manual_seed(0))
        >>> draw.t.shape, bool((draw.weight > 0).all())
        (torch.Size([5]), True)
    """

    @abc.abstractmethod
    def at(self, sde: SDE, u: Tensor) -> Draw:
        """Times and weights of uniform numbers in [0, 1), float64 ``(n,)``."""

    def uniforms(self, n: int, generator: torch.Generator | None, device: torch.device | str | None = None) -> Tensor:
        """The uniform numbers of a batch, float64 ``(n,)``: independent ones."""
        return torch.rand(n, generator=generator, dtype=torch.float64, device=device)

    def draw(
        self,
        sde: SDE,
        n: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Draw:
        """Draw for n samples. Times have no gradient."""
        check_sde(sde)
        check_integer("n", n, low=0, high=MOST_NUMBERS)
        check_generator(generator)
        with torch.no_grad():
            return self.at(sde, self.uniforms(n, generator, device))

    def observe(self, draw: Draw, losses: Tensor) -> None:  # noqa: B027
        """Receive the losses ``(batch,)`` of a draw before importance weights. Most distributions ignore them."""

    def state_dict(self) -> dict[str, Tensor]:
        """What the distribution keeps of past losses, for a checkpoint. Most distributions keep nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Restore what `state_dict` returned."""


@dataclass(frozen=True)
class UniformTimes(Times):
    """Uniform in time on [t_min, t_max]; every weight is 1.

    Example:
        >>> UniformTimes().at(
        ...     scoresde.FlowSDE(t_min=0.0, t_max=0.5),
        ...     torch.tensor([0.5], dtype=torch.float64),
        ... ).t
        tensor([0.2500], dtype=torch.float64)
    """

    def at(self, sde: SDE, u: Tensor) -> Draw:
        """See `Times`."""
        return Draw(sde.t_min + (sde.t_max - sde.t_min) * u, torch.ones_like(u))


@dataclass(frozen=True)
class Fixed(Times):
    """One time for all samples. The mean is over that time alone, and every weight is 1.

    Example:
        >>> Fixed(0.3).at(scoresde.VPSDE(), torch.zeros(2, dtype=torch.float64)).t
        tensor([0.3000, 0.3000], dtype=torch.float64)
    """

    t: float

    def __post_init__(self) -> None:
        check_number("t", self.t, low=0.0)

    def at(self, sde: SDE, u: Tensor) -> Draw:
        """See `Times`."""
        time = check_number("t", self.t, low=sde.t_min, high=sde.t_max, hint=" (the process's [t_min, t_max])")
        return Draw(torch.full_like(u, time), torch.ones_like(u))


@dataclass(frozen=True)
class LowDiscrepancy(Times):
    r"""Another distribution, with the uniform numbers of a batch spread evenly: :math:`u_i = u_0 + i/n \bmod 1` with
    one
    :math:`u_0 \sim U[0, 1)`.

    Each :math:`u_i` is uniform, so that no expectation changes; the mean over a batch has less variance.

    Args:
        law: the distribution that the numbers are put into.

    Example:
        >>> u = LowDiscrepancy().uniforms(4, torch.Generator().manual_seed(0))
        >>> torch.allclose(
        ...     u.sort().values.diff(), torch.full((3,), 0.25, dtype=torch.float64)
        ... )
        True

    References:
        Kingma et al. (2021), Variational Diffusion Models, appendix I.1. https://arxiv.org/abs/2107.00630
    """

    law: Times = UniformTimes()

    def __post_init__(self) -> None:
        check_kind("law", self.law, Times, "a distribution such as scoresde.losses.UniformTimes()")

    def uniforms(self, n: int, generator: torch.Generator | None, device: torch.device | str | None = None) -> Tensor:
        """The evenly spread numbers, ``(n,)``."""
        shift = torch.rand((), generator=generator, dtype=torch.float64, device=device)
        return (shift + torch.arange(n, device=device, dtype=torch.float64) / max(1, n)) % 1.0

    def at(self, sde: SDE, u: Tensor) -> Draw:
        """See `Times`."""
        return self.law.at(sde, u)

    def observe(self, draw: Draw, losses: Tensor) -> None:
        """See `Times`."""
        self.law.observe(draw, losses)

    def state_dict(self) -> dict[str, Tensor]:
        """See `Times`."""
        return self.law.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `Times`."""
        self.law.load_state_dict(state)


@dataclass(frozen=True)
class LogitNormal(Times):
    r"""The place in the interval is logit-normal: :math:`t = t_{min} + (t_{max}-t_{min})\,\mathrm{sigmoid}(m + s z)`.

    Stable Diffusion 3 trains its flow so, with m = 0 and s = 1 (``importance=False``).

    Args:
        mean: m.
        std: s.

    Example:
        >>> LogitNormal().at(scoresde.FlowSDE(), torch.tensor([0.5], dtype=torch.float64)).t
        tensor([0.5000], dtype=torch.float64)

    References:
        Esser et al. (2024), Scaling Rectified Flow Transformers, section 3.1. https://arxiv.org/abs/2403.03206
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_number("mean", self.mean)
        check_number("std", self.std, low=0.0, strict=True)

    def at(self, sde: SDE, u: Tensor) -> Draw:
        """See `Times`."""
        z = _quantile(u)
        place = sigmoid(self.mean + self.std * z)
        rest = sigmoid(-self.mean - self.std * z)
        return Draw(sde.t_min + (sde.t_max - sde.t_min) * place, self.std * place * rest / _bell(z))


class _Levels(Times):
    r"""A distribution of :math:`\ln\rho`, :math:`\rho = \sigma/\alpha`, between the ends of a process."""

    @abc.abstractmethod
    def of_levels(self, u: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        """ln ρ in [low, high], and its density there."""

    def at(self, sde: SDE, u: Tensor) -> Draw:
        """See `Times`."""
        sde = _affine(sde, "A distribution of noise levels needs")
        low, high = -sde.node(sde.t_min).lam, -sde.node(sde.t_max).lam
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InvalidArgumentError(
                f"A distribution of sigma/alpha needs a finite log-SNR at both ends of the process, got "
                f"{-2 * low:g} at t_min={sde.t_min:g} and {-2 * high:g} at t_max={sde.t_max:g}; take t_min "
                "and t_max inside, or a distribution of t."
            )
        level, density = self.of_levels(u, low, high)
        t = sde.time(-2 * level.clamp(low, high)).clamp(sde.t_min, sde.t_max)
        node = sde.nodes(t)
        rate = 0.5 * node.g2 / (node.sigma * node.sigma)  # d ln(rho) / dt
        return Draw(t, 1 / ((sde.t_max - sde.t_min) * density * rate))


@dataclass(frozen=True)
class LogNormal(_Levels):
    r"""EDM's distribution: :math:`\ln\rho \sim N(m, s^2)`, :math:`\rho = \sigma/\alpha`, between the ends of the
    process.

    Args:
        mean: m.
        std: s.

    Example:
        >>> median = LogNormal(0.0, 1.0).at(
        ...     scoresde.EDMSDE(0.01, 100.0), torch.tensor([0.5], dtype=torch.float64)
        ... )
        >>> round(float(median.t), 6)
        1.0

    References:
        Karras et al. (2022), table 1. https://arxiv.org/abs/2206.00364
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        check_number("mean", self.mean)
        check_number("std", self.std, low=0.0, strict=True)

    def of_levels(self, u: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        """See `LogNormal`."""
        below, mass = _normal_mass(self.mean, self.std, low, high)
        if not mass > 0:
            raise InvalidArgumentError(f"{self} has no mass between the process's ln(rho) {low:g} and {high:g}.")
        z = _quantile(below + mass * u)
        return self.mean + self.std * z, _bell(z) / (self.std * mass)


@dataclass(frozen=True)
class LogUniform(_Levels):
    r"""Uniform in the log-SNR between the ends of the process: :math:`q \propto g^2/\sigma^2`, the distribution that
    makes the weights of the likelihood constant.

    Example:
        >>> median = LogUniform().at(
        ...     scoresde.EDMSDE(0.01, 100.0), torch.tensor([0.5], dtype=torch.float64)
        ... )
        >>> round(float(median.t), 6)
        1.0

    References:
        Song, Durkan, Murray, Ermon (2021), section 5.1. https://arxiv.org/abs/2101.09258
    """

    def of_levels(self, u: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        """See `LogUniform`."""
        return low + (high - low) * u, torch.full_like(u, 1 / (high - low))


@dataclass(frozen=True)
class NoiseLevels(_Levels):
    r"""A distribution of noise levels ρ = σ/α: log-normal, with a share of log-uniform.

    .. math:: \ln \rho \sim (1 - w)\, N(\mu, s^2) + w\, U[\ln \rho_{min}, \ln \rho_{max}]

    EDM's distribution is ``uniform=0``; its tails are thin: one draw in 2000 is above ρ = 16, although VE starts at 50.
    The uniform share trains the whole range that some process will need. Called with uniform numbers it gives levels
    without a process; as a distribution of times both parts are cut off at the ends of the process.

    Args:
        mean: μ, the mean of ln ρ of the log-normal part.
        std: s, its standard deviation.
        uniform: w, the share of the log-uniform part, in [0, 1].
        rho_min: smallest level of the log-uniform part.
        rho_max: largest level of the log-uniform part.

    Example:
        >>> middle = torch.tensor([0.5], dtype=torch.float64)
        >>> round(float(NoiseLevels(uniform=0.0)(middle).log()), 6)
        -1.2
        >>> round(float(NoiseLevels(uniform=1.0, rho_min=0.01, rho_max=100.0)(middle)), 6)
        1.0

    References:
        Karras, Aittala, Aila, Laine (2022), section 5. https://arxiv.org/abs/2206.00364
    """

    mean: float = -1.2
    std: float = 1.2
    uniform: float = 0.0
    rho_min: float = 1e-3
    rho_max: float = 80.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            check_number(entry.name, getattr(self, entry.name), hint=" It belongs to a distribution of noise levels.")
        if not (0 <= self.uniform <= 1 and self.std > 0 and 0 < self.rho_min < self.rho_max < math.inf):
            raise InvalidArgumentError(
                f"A distribution of noise levels must have 0 <= uniform <= 1, std > 0 and 0 < rho_min < rho_max, got "
                f"{self}; write NoiseLevels(mean=-1.2, std=1.2), for example."
            )

    def __call__(self, u: Tensor) -> Tensor:
        """Map uniform numbers in [0, 1) to noise levels, ``(batch,)`` to ``(batch,)``."""
        return self.of_levels(u, -math.inf, math.inf)[0].exp()

    def of_levels(self, u: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        """See `NoiseLevels`."""
        first, last = math.log(self.rho_min), math.log(self.rho_max)
        left, right = max(first, low), min(last, high)
        below, normal = _normal_mass(self.mean, self.std, low, high)
        flat = max(0.0, right - left) / (last - first)
        share, rest = self.uniform * flat, (1 - self.uniform) * normal
        if not share + rest > 0:
            raise InvalidArgumentError(
                f"{self} has no level between the ends {math.exp(low):g} and {math.exp(high):g}."
            )
        share, rest = share / (share + rest), rest / (share + rest)
        even = left + (right - left) * u / (share or 1.0)
        z = _quantile(below + normal * (u - share) / (rest or 1.0))
        level = torch.where(u < share, even, self.mean + self.std * z)
        height = rest * _bell((level - self.mean) / self.std) / (self.std * normal) if rest else torch.zeros_like(u)
        inside = (level >= left) & (level <= right)
        return level, height + inside * (share / (right - left) if share else 0.0)


@dataclass(frozen=True)
class FromLevels(Times):
    r"""Any function from uniform numbers to noise levels :math:`\rho = \sigma/\alpha`. Its density is not known, so its
    importance weights are NaN.

    Example:
        >>> law = FromLevels(lambda u: torch.full_like(u, 2.0))
        >>> round(float(law.at(scoresde.EDMSDE(), torch.zeros(1, dtype=torch.float64)).t), 6)
        2.0
    """

    levels: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        check_callable("levels", self.levels, "levels(u)")

    def at(self, sde: SDE, u: Tensor) -> Draw:
        """See `Times`."""
        sde = _affine(sde, "Noise levels need")
        rho = self.levels(u)
        if not isinstance(rho, Tensor) or rho.shape != u.shape or not bool((rho > 0).all()):
            raise InvalidArgumentError(f"`levels` must map uniform numbers ({len(u)},) to as many positive levels.")
        return Draw(sde.time(-2 * rho.to(u).log()), torch.full_like(u, math.nan))


@dataclass(frozen=True)
class Importance(Times):
    r"""Times in proportion to a weight: :math:`q(t) \propto w(t)` on [t_min, t_max], for any weight that is positive
    and finite there.

    Each cell of a mesh that is even in time and in the log-SNR gets its share by quadrature, and inside it the density
    is linear, so that the inverse is closed. What is drawn has exactly the density that the importance weight divides
    by: a mean has no bias, however coarse the mesh.

    Args:
        weight: a name of `scoresde.losses.WEIGHTS` or a function of a `Node`.
        mesh: points of either kind.

    Example:
        >>> u = torch.tensor([0.25, 0.75], dtype=torch.float64)
        >>> sde = scoresde.VPSDE()
        >>> a, b = Importance("likelihood").at(sde, u), LogUniform().at(sde, u)
        >>> bool(
        ...     torch.allclose(a.t, b.t, rtol=1e-6)
        ...     and torch.allclose(a.weight, b.weight, rtol=1e-4)
        ... )
        True

    References:
        Song, Durkan, Murray, Ermon (2021), section 5.1. https://arxiv.org/abs/2101.09258
    """

    weight: str | Weight = "likelihood"
    mesh: int = 2048

    def __post_init__(self) -> None:
        check_integer("mesh", self.mesh, low=2, high=MOST_LEVELS)
        weight_of(self.weight)

    def at(self, sde: SDE, u: Tensor) -> Draw:
        """See `Times`."""
        sde = _affine(sde, "A weight of nodes needs")
        t = _mesh(sde, self.mesh)
        h = t.diff()
        inner = (t[:-1, None] + h[:, None] * _GAUSS[0]).flatten()
        w = weigh(self.weight, sde.nodes(torch.cat([t, inner])))
        bad = ~(torch.isfinite(w) & (w > 0))
        if bool(bad.any()):
            i = int(bad.int().argmax())
            raise InvalidArgumentError(
                f"`weight` must be positive and finite on [{sde.t_min:g}, {sde.t_max:g}], got {w[i].item():g} at "
                f"t={torch.cat([t, inner])[i].item():.6g}; take t_min, t_max inside."
            )
        w, inner = w[: len(t)], w[len(t) :].reshape(-1, 3)
        mass = h * (inner @ _GAUSS[1])
        scale = mass / (0.5 * h * (w[1:] + w[:-1]))
        t, h, w, mass, scale = (v.to(u.device) for v in (t, h, w, mass, scale))
        ends = mass.cumsum(0)
        wanted = u * ends[-1]
        k = torch.searchsorted(ends, wanted, right=True).clamp_max(len(h) - 1)
        left = (wanted - (ends[k] - mass[k])).clamp_min(0) / scale[k]
        # the root of w0 s + (w1 - w0) s^2 / 2h = left, without cancellation
        slope = (w[k + 1] - w[k]) / h[k]
        root = (w[k] ** 2 + 2 * slope * left).clamp_min(0).sqrt()
        step = torch.minimum(2 * left / (w[k] + root), h[k])
        density = scale[k] * (w[k] + slope * step) / ends[-1]
        return Draw((t[k] + step).clamp(sde.t_min, sde.t_max), 1 / ((sde.t_max - sde.t_min) * density))


def _affine(sde: SDE, who: str) -> AffineSDE:
    """The process, if it is affine, as what is drawn needs it."""
    if not isinstance(sde, AffineSDE):
        raise InvalidTypeError(f"{who} an affine process such as scoresde.VPSDE(), got {sde!r}.")
    return sde


def _mesh(sde: AffineSDE, n: int) -> Tensor:
    """Times from t_min to t_max, even in time and in the log-SNR together."""
    even = torch.linspace(sde.t_min, sde.t_max, n, dtype=torch.float64)
    low, high = (min(max(sde.node(t).lam, -_WIDEST), _WIDEST) for t in (sde.t_max, sde.t_min))
    levels = sde.time(2 * torch.linspace(low, high, n, dtype=torch.float64)[1:-1]).clamp(sde.t_min, sde.t_max)
    return torch.cat([even, levels]).unique()


def _normal_mass(mean: float, std: float, low: float, high: float) -> tuple[float, float]:
    """The mass of a normal distribution below ``low``, and between both."""
    ends = torch.tensor([(low - mean) / std, (high - mean) / std], dtype=torch.float64)
    below, above = torch.special.ndtr(ends).tolist()
    return below, above - below


def _quantile(u: Tensor) -> Tensor:
    """The quantile of the standard normal distribution, kept finite in the tails."""
    edge = torch.finfo(u.dtype).eps
    return torch.special.ndtri(u.clamp(edge, 1 - edge))


def _bell(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z * z) / _SQRT_2PI
