r"""Networks where noise is far larger than the data, from which every solve begins.

There the best data estimate is nearly the mean of the data, and that of a network of the noise errs by
:math:`\rho = \sigma/\alpha` times its own error. By :math:`d(x/\alpha)/d\ln\rho = x/\alpha - \hat x` an error e moves
the states by the share :math:`e/\rho` of their noise wherever :math:`\rho` falls by a factor of 2.7. A network is
unreliable where its estimate is worse than that of a constant and this share is more than 4 %.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.sdes import AffineSDE
from ..core.support.checks import warn_caller
from ..core.support.context import cut
from ..discrete import Chain
from .base import Score
from .limits import Clip, GaussianAbove

LOWEST, _HIGHEST = 12.0, 1e4  # levels, in data deviations
_LEVELS = 6
_ROWS = 256  # of all levels together
_SHARE = 0.04
_CLEAR = 3.5  # standard errors
_DRAWS, _DATA, _STEPS = 64, 512, 20  # of the samples that show what a cure does
_STARTS = (32.0, 16.0, 8.0)  # in data deviations
_ROUNDING = 1e-6
_NEARLY, _CHANCE = 1.2, 0.005  # of energy distances that are alike
_APART = 3.0  # times the lowest level are the others, where there are no data


@dataclass(frozen=True)
class HighNoise:
    """The errors of data estimates at high noise, in data deviations, RMS.

    Attributes:
        levels: sigma/alpha, in units of the data.
        errors, linear: of the network, and of a Gaussian denoiser; that of a constant is 1.
        shares: by which share of their noise the errors move the states, 0 where chance may explain it.
        evaluations: of the score function, for all samples together.
    """

    levels: tuple[float, ...]
    errors: tuple[float, ...]
    linear: tuple[float, ...]
    shares: tuple[float, ...]
    evaluations: int

    @classmethod
    def of(
        cls, score: Score, sde: AffineSDE, data: Tensor, context: Mapping[str, Any], generator: torch.Generator
    ) -> HighNoise:
        """Of a score function, on data with their context."""
        unit = deviation(data)
        levels = levels_of(sde, unit, getattr(score, "chain", None))
        count = min(len(data), _ROWS // _LEVELS)
        rows = torch.randperm(len(data), generator=generator)[:count].to(data.device)
        x, given, mean, found = data[rows], cut(context, rows), data.mean(0), []
        for level in levels:
            node = sde.node(float(sde.time(-2 * math.log(level))))
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x)
            missed = score.estimate(node.alpha * x + node.sigma * noise, node, **given).data - x
            share = unit**2 / (unit**2 + level**2)  # of what a Gaussian denoiser takes from the state
            linear = share * (x + level * noise - mean) + mean - x
            found.append([v.to(torch.float64).flatten(1).square().mean(1).cpu() / unit**2 for v in (missed, linear)])
        shares = [_share(own, best, level / unit) for level, (own, best) in zip(levels, found, strict=True)]
        errors, linears = ([float(pair[i].mean().sqrt()) for pair in found] for i in (0, 1))
        return cls(tuple(levels), tuple(errors), tuple(linears), tuple(shares), len(levels) * count)

    @property
    def bad(self) -> list[int]:
        """The numbers of the levels where the network is unreliable."""
        return [i for i, share in enumerate(self.shares) if share > _SHARE and not self.errors[i] <= 1]

    def __str__(self) -> str:
        names = ("levels", "errors", "linear")
        levels, errors, linear = (", ".join(f"{getattr(self, name)[i]:.3g}" for i in self.bad) for name in names)
        return (
            f"at sigma/alpha = {levels} its data estimate errs by {errors} standard deviations of the data, where a "
            f"constant errs by 1 and a Gaussian denoiser by {linear}"
        )


def deviation(data: Tensor) -> float:
    """The standard deviation of data, RMS over entries."""
    return max(float(data.to(torch.float64).std(0, correction=0).square().mean().sqrt()), 1e-6)


def levels_of(sde: AffineSDE, unit: float, chain: Chain | None = None) -> list[float]:
    """Levels from far above the data to the highest of the process, of its chain where it has one; none where there are
    none."""
    least, most = (math.exp(-0.5 * float(sde.log_snr(t))) for t in (sde.t_min, sde.t_max))
    low, high = max(LOWEST * unit, least), min(most, _HIGHEST * unit)
    if not low < high:
        return []
    levels = [low * (high / low) ** (i / (_LEVELS - 1)) for i in range(_LEVELS)]
    if chain is None:
        return levels
    known = [rho for rho in (-0.5 * chain.log_snrs).exp().tolist() if low <= rho <= high * (1 + _ROUNDING)]
    return sorted({min(known, key=lambda rho: abs(math.log(rho / level))) for level in levels}) if known else []


def _share(own: Tensor, linear: Tensor, level: float) -> float:
    """The share of noise that the excess of squared errors stands for where it is no chance, by their means, or by
    their geometric means, which single samples do not decide."""
    if not bool(own.isfinite().all()):
        return math.inf
    logs = [v.clamp_min(1e-300).log() for v in (own, linear)]
    geometric = float(logs[0].mean().exp() - logs[1].mean().exp())
    sizes = [
        size
        for size, v in ((float((own - linear).mean()), own - linear), (geometric, logs[0] - logs[1]))
        if len(v) > 1 and float(v.mean()) * math.sqrt(len(v)) > _CLEAR * float(v.std())
    ]
    return math.sqrt(max(sizes, default=0.0)) / level


def cures(
    score: Score, sde: AffineSDE, data: Tensor, context: Mapping[str, Any], generator: torch.Generator
) -> dict[str, float]:
    """What would make the samples of a network better: lines of code, and the energy distance of the samples to data
    with each, in units of the mean distance of data from each other; with "" that of the network as it is."""
    unit = deviation(data)
    rows = torch.randint(len(data), (_DRAWS,), generator=generator).to(data.device)
    z = torch.randn((_DRAWS, *data.shape[1:]), generator=generator, dtype=data.dtype).to(data)
    low, high, std = (float(f"{float(v):.4g}") for v in (data.min(), data.max(), unit))
    clip = f"score_fn = Clip(score_fn, {low}, {high}, sde=sde)"
    tried = {"": score, clip: Clip(score, low, high, sde=sde)}
    for level in _STARTS:
        level = float(f"{level * unit:.3g}")
        line = f"GaussianAbove(score_fn, {level:g}, data.mean(0), {std:g}, sde=sde)"
        for name, of in reversed(list(tried.items())[:2]):
            tried[f"{name}; score_fn = {line}".removeprefix("; ")] = GaussianAbove(
                of, level, data.mean(0), std, sde=sde
            )
    given, known = cut(context, rows), data[:_DATA]
    return {name: relative_distance(_sampled(of, sde, z, unit, given), known) for name, of in tried.items()}


def best_of(helped: Mapping[str, float]) -> str:
    """The last of the lines that help as much as any, but for chance: it changes the network at the lowest noise."""
    lines = {line: far for line, far in helped.items() if line}
    limit = _NEARLY * max(min(lines.values()), 0.0) + _CHANCE
    return [line for line, far in lines.items() if far <= limit][-1]


def _sampled(score: Score, sde: AffineSDE, z: Tensor, unit: float, context: Mapping[str, Any]) -> Tensor:
    """Samples by steps of DDIM that are even in the log-SNR."""
    limit = 2 * math.log(_HIGHEST / unit)
    high, low = (min(max(float(sde.log_snr(t)), -limit), limit) for t in (sde.t_max, sde.t_min))
    times = sde.time(torch.linspace(high, low, _STEPS + 1, dtype=torch.float64)).tolist()
    nodes = [sde.node(min(max(t, sde.t_min), sde.t_max)) for t in times]
    x = z * math.hypot(float(nodes[0].alpha) * unit, float(nodes[0].sigma))
    for node, after in itertools.pairwise(nodes):
        estimate = score.estimate(x, node, **context)
        x = after.alpha * estimate.data + after.sigma * estimate.noise
    return x


def relative_distance(x: Tensor, data: Tensor) -> float:
    """The energy distance, without bias, in units of the mean distance of data."""
    x, data = (v.to(torch.float64).flatten(1) for v in (x, data))
    if not bool(x.isfinite().all()):
        return math.inf
    own = [float(torch.cdist(v, v).sum()) / max(1, len(v) * (len(v) - 1)) for v in (x, data)]
    return (2 * float(torch.cdist(x, data).mean()) - sum(own)) / max(own[1], 1e-300)


def warn_of_high_noise(
    score: Score, sde: AffineSDE, like: Tensor, context: Mapping[str, Any], unit: float, start: float
) -> None:
    """Warn where data estimates of noise alone, which are nearly the mean of the data, change with the level by more
    than they may.

    Args:
        score, sde, context: of a solve.
        like: states, whose number and shape are taken.
        unit: the standard deviation of the data, about.
        start: the time at which it begins.
    """
    all_levels, top = levels_of(sde, unit), math.exp(-0.5 * float(sde.log_snr(start)))
    high = [level for level in all_levels if _APART * all_levels[0] < level <= top * (1 + _ROUNDING)]
    levels = [*all_levels[:1], *high[::-2][:2]]
    z = torch.randn(like.shape, generator=torch.Generator().manual_seed(0), dtype=like.dtype).to(like)
    known, shares = None, {}
    for level in levels:
        node = sde.node(float(sde.time(-2 * math.log(level))))
        with torch.no_grad():
            found = score.estimate(math.hypot(float(node.alpha) * unit, float(node.sigma)) * z, node, **context).data
        known = found if known is None else known
        shares[level] = float((found - known).to(torch.float64).square().mean().sqrt()) / level
    bad = [level for level, share in shares.items() if share > _SHARE]
    if bad:
        warn_caller(
            f"The network is unreliable at high noise: from sigma/alpha = {bad[0]:.3g} on its data estimates of noise "
            f"change by up to {max(shares[level] for level in bad):.0%} of that noise, and should not change. "
            "scoresde.check_score measures what helps."
        )
