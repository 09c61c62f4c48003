"""Check the convention of a score function.

`check_score` denoises real data with it, and names the convention that is likely wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._checks import check_integer, check_not_empty, check_output, check_state, check_tensor
from .._context import cut, per_row
from .._tensors import compute_dtype
from ..errors import InvalidArgumentError
from ..noise import check_seed
from ..sdes import AffineSDE, Node
from ..sdes.base import check_sde
from .bare import as_score, check_context
from .model import PREDICTIONS

_VALUES = 8192  # values per noise level, at least, over which errors are averaged
_MAX_SAMPLES = 2048
_MOST_LEVELS = 1000
_CHUNK = 1024
_CLEAR = 6.0  # standard errors by which another reading must be better
_GAIN = 0.02  # and by this share of the error
_INFORMATIVE = 0.1  # the share of the error by which the outputs must help a reading, against zeros in their place
_FLOOR = 0.02  # errors below this are equally good
_SETTLED = 0.9  # below this multiple the time labels and the data are right: a wrong one does not denoise
_LIMIT = 1.3  # a score function must not be worse than this multiple of the Gaussian denoiser's error


@dataclass(frozen=True)
class ScoreReport:
    r"""The result of `check_score`.

    Attributes:
        ok: whether the score function denoises the data as a score should.
        convention: ``"score"`` if it does, the name of the convention that it seems to follow instead, or
            ``"unknown"``.
        message: the same in a sentence, with what to do.
        t: the times of the noise levels.
        error: the normalised denoising error :math:`E\|\sigma s(x_t, t) + \varepsilon\|^2 / D` at each.
        baseline: that of a Gaussian denoiser with the data's mean and variance.
        alternatives: for each other reading, its error relative to the baseline (geometric mean over the levels).

    Example:
        >>> report = ScoreReport(True, "score", "fine", [0.5], [0.2], [0.3], {})
        >>> print(report)
        fine
               t   error  baseline
             0.5   0.200     0.300
    """

    ok: bool
    convention: str
    message: str
    t: list[float]
    error: list[float]
    baseline: list[float]
    alternatives: dict[str, float]

    def __str__(self) -> str:
        rows = zip(self.t, self.error, self.baseline, strict=True)
        table = [f"{t:>8.4g}{e:>8.3f}{b:>10.3f}" for t, e, b in rows]
        return "\n".join([self.message, f"{'t':>8}{'error':>8}{'baseline':>10}", *table])


@dataclass(frozen=True)
class _Reading:
    """One reading of a score function: its inputs, and the noise that its output then means."""

    name: str
    meaning: str
    noise: Callable[[Tensor, Tensor, Node], Tensor] = lambda out, x, n: -n.sigma * out
    time: Callable[[Tensor, AffineSDE], Tensor] | None = None
    data: Callable[[Tensor], Tensor] | None = None


def _prediction(name: str, what: str) -> _Reading:
    """The reading as one of the predictions of `ScoreModel`."""
    estimate, sigma_data = PREDICTIONS[name], math.nan  # which only EDM's prediction uses
    return _Reading(
        name,
        f"it returns {what}; wrap the network in ScoreModel(net, sde, prediction={name!r})",
        noise=lambda out, x, n: estimate(x, out, n, sigma_data).noise,
    )


_SCORE = _Reading("score", "it is a score")
_READINGS = (
    _prediction("noise", "the predicted noise, not the score"),
    _Reading(
        "missing sigma",
        "it returns minus the predicted noise, without the division by sigma: score = output / sigma(t)",
        noise=lambda out, x, n: -out,
    ),
    _Reading("sign", "it returns minus the score; change the sign", noise=lambda out, x, n: n.sigma * out),
    _prediction("data", "the denoised data"),
    _prediction("v", "v"),
    _prediction("flow", "the velocity of the flow"),
    _Reading(
        "minus flow",
        "it returns minus the velocity of the flow (data minus noise); change the sign and wrap the network in "
        "ScoreModel(net, sde, prediction='flow')",
        noise=lambda out, x, n: (-n.alpha * out - n.dalpha * x) / (n.alpha * n.dsigma - n.dalpha * n.sigma),
    ),
    _Reading(
        "time x 1000",
        "the time label is scaled: it works when it is called with t / 1000, so somewhere t is multiplied by 1000 "
        "once too often",
        time=lambda t, sde: t / 1000,
    ),
    _Reading(
        "time / 1000",
        "the time label is scaled: it works when it is called with 1000 t, so the network expects labels up to 1000",
        time=lambda t, sde: t * 1000,
    ),
    _Reading(
        "reversed time",
        "time runs the other way: it works when it is called with t_max + t_min - t; data is at t_min here",
        time=lambda t, sde: sde.t_max + sde.t_min - t,
    ),
    *(
        _Reading(
            "data range",
            f"the data are not in the network's range: it works on {formula} (x0 being the data given)",
            data=change,
        )
        for formula, change in (
            ("(x0 + 1) / 2", lambda x: (x + 1) / 2),
            ("2 x0 - 1", lambda x: 2 * x - 1),
            ("x0 / 255", lambda x: x / 255),
            ("x0 / 127.5 - 1", lambda x: x / 127.5 - 1),
            ("255 x0", lambda x: 255 * x),
            ("127.5 (x0 + 1)", lambda x: 127.5 * (x + 1)),
        )
    ),
)


def check_score(
    sde: AffineSDE,
    score_fn: Callable[..., Tensor],
    data: Tensor,
    *,
    levels: int = 8,
    context: Mapping[str, object] | None = None,
    seed: int = 0,
) -> ScoreReport:
    r"""Measure a score function by the noise it finds, and say which convention is likely wrong.

    At a range of noise levels real data is perturbed, :math:`x_t = \alpha x_0 + \sigma\varepsilon`, and the error of
    :math:`\hat\varepsilon = -\sigma s(x_t, t)` is compared with that of a Gaussian denoiser from the data's
    mean and variance: a trained network is better. The same outputs are then read in other ways: as noise, as data,
    with another sign, with other time labels, on rescaled data. If one reading is clearly better (by 6 standard errors
    of the paired difference and 2 % of the error), and its outputs help (by 10 % of the error, against zeros in their
    place), it is named. Where two readings mean the same for the given data, as all time labels do for a score that
    does not change with time, nothing is wrong.

    Args:
        sde: the affine process that the score function is meant for.
        score_fn: ``score_fn(x, t, **context)``.
        data: clean data ``(n, *event)``, a few hundred samples or more.
        levels: the number of noise levels.
        context: as for `scoresde.solve`, with one entry per sample of the data.
        seed: of the noise and of the choice of samples.

    Returns:
        A `ScoreReport`; ``print`` it.

    Raises:
        InvalidTypeError, InvalidArgumentError: the arguments do not fit.
        ScoreFnError: the score function's output is not shaped like its input.

    Example:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(torch.zeros(4), torch.eye(4))
        >>> data = target.sample(500, generator=torch.Generator().manual_seed(0))
        >>> score_fn = target.score(sde)
        >>> check_score(sde, score_fn, data).ok
        True
        >>> check_score(sde, lambda x, t: -score_fn(x, t) * sde.sigma(t)[:, None], data).convention
        'noise'
    """
    check_sde(sde, affine=True)
    score = as_score(score_fn)
    check_not_empty("data", check_state("data", data))
    check_integer("levels", levels, low=1, high=_MOST_LEVELS)
    if len(data) < 2:
        raise InvalidArgumentError(f"`data` must have at least 2 samples, got {len(data)}.")
    check_tensor("data", data, finite=True)
    given = per_row(check_context(context, score, len(data)), data)
    generator = torch.Generator().manual_seed(check_seed("seed", seed))
    probe = _Probe(sde, score_fn, data.detach(), levels, given, generator)
    with torch.no_grad():
        own, own_base = probe.errors(_SCORE, strict=True)
        found = {}
        settled = _relative(own, own_base) <= _SETTLED
        for reading in _READINGS:
            if settled and (reading.data is not None or reading.time is not None):
                continue
            found[reading] = probe.errors(reading, strict=False)
    return _judge(probe, own, own_base, found)


class _Probe:
    """The perturbed data, the same for every reading."""

    def __init__(
        self,
        sde: AffineSDE,
        score_fn: Callable[..., Tensor],
        data: Tensor,
        levels: int,
        context: dict[str, Any],
        generator: torch.Generator,
    ) -> None:
        self.sde, self.score_fn = sde, score_fn
        count = min(_MAX_SAMPLES, max(256, math.ceil(_VALUES / data[0].numel())))
        rows = torch.randint(len(data), (count,), generator=generator)
        self.data = data.to(compute_dtype(data.dtype))
        self.rows = rows.to(data.device)
        self.outputs: dict[Any, Tensor] = {}
        self.context = cut(context, self.rows)
        z = torch.randn((levels, count, *data.shape[1:]), generator=generator, dtype=self.data.dtype)
        self.z = z.to(data.device)
        spread = 2 * math.log(max(float(self.data.std(0, correction=0).square().mean().sqrt()), 1e-6))
        ends = [float(sde.log_snr(t)) for t in (sde.t_min, sde.t_max)]
        high, low = min(ends[0], 5 - spread), max(ends[1], -5 - spread)
        if not low < high:
            low, high = max(ends[1], -30.0), min(ends[0], 30.0)
        self.t = sde.time(torch.linspace(high, low, levels + 2, dtype=torch.float64)[1:-1]).tolist()

    def errors(self, reading: _Reading, *, strict: bool, silent: bool = False) -> tuple[Tensor, Tensor]:
        """Per-sample errors ``(levels, n)`` and the Gaussian denoiser's expected error ``(levels,)``.

        ``silent`` puts zeros in place of the outputs: the error of the reading alone.
        """
        data = self.data if reading.data is None else reading.data(self.data)
        variance = float(data.var(0, correction=0).mean())
        errors, base = [], []
        for level, (t, z) in enumerate(zip(self.t, self.z, strict=True)):
            node = self.sde.node(t)
            x = node.alpha * data[self.rows] + node.sigma * z
            key = (level, reading.time, reading.data)
            if key not in self.outputs:  # readings of the same output share it
                label = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
                given = label if reading.time is None else reading.time(label, self.sde)
                self.outputs[key] = self._call(x, given, strict)
            out = self.outputs[key]
            noise = reading.noise(torch.zeros_like(out) if silent else out, x, node)
            errors.append((noise - z).flatten(1).to(torch.float64).square().mean(1))
            base.append(node.alpha**2 * variance / (node.alpha**2 * variance + node.sigma**2))
        stacked = torch.stack(errors).cpu()
        return torch.where(torch.isfinite(stacked), stacked, torch.inf), torch.tensor(base, dtype=torch.float64)

    def _call(self, x: Tensor, t: Tensor, strict: bool) -> Tensor:
        parts = []
        for i in range(0, len(x), _CHUNK):
            rows = slice(i, i + _CHUNK)
            extra, part = cut(self.context, rows), x[rows]
            try:
                out = self.score_fn(part, t[rows], **extra)
            except Exception:
                if strict:
                    raise
                return torch.full_like(x, torch.nan)  # a label that the network does not take
            parts.append(check_output("The score function", out, part).clone())  # the next call may overwrite it
        return torch.cat(parts).to(x.dtype)


def _relative(errors: Tensor, base: Tensor) -> float:
    """The error relative to the Gaussian denoiser's, geometric mean over the levels."""
    return float(((errors.mean(1) + _FLOOR) / (base + _FLOOR)).log().mean().exp())


def _clearly_better(other: Tensor, other_base: Tensor, own: Tensor, own_base: Tensor, share: float = _GAIN) -> bool:
    """Whether the other reading's relative error is lower by far more than chance."""
    scale = (own_base + _FLOOR)[:, None], (other_base + _FLOOR)[:, None]
    gain = (own.clamp_max(1e6) / scale[0] - other / scale[1]).mean(0)
    if not bool(torch.isfinite(gain).all()):
        return False
    level = (own.clamp_max(1e6) / scale[0]).mean()
    error = gain.std() / math.sqrt(len(gain))
    return bool(gain.mean() > _CLEAR * error) and bool(gain.mean() > share * level)


def _judge(probe: _Probe, own: Tensor, own_base: Tensor, found: dict[_Reading, tuple[Tensor, Tensor]]) -> ScoreReport:
    relative = _relative(own, own_base)
    scores = {reading: _relative(*result) for reading, result in found.items()}
    lowest = min(scores.values())
    best = next(reading for reading in scores if scores[reading] <= 1.01 * lowest)  # the plainest of equally good ones
    alternatives: dict[str, float] = {}
    for reading, value in scores.items():
        alternatives[reading.name] = min(value, alternatives.get(reading.name, math.inf))
    ok, convention = relative <= _LIMIT, "score"
    message = f"The score function denoises the data as a score should (error {relative:.2f} x a Gaussian denoiser's)."
    helps = scores[best] <= min(_LIMIT, relative) and _clearly_better(*found[best], own, own_base)
    if helps and _clearly_better(*found[best], *probe.errors(best, strict=False, silent=True), _INFORMATIVE):
        ok, convention = False, best.name
        message = (
            f"Likely wrong convention ({best.name}): {best.meaning}. The error falls from {relative:.3g} to "
            f"{scores[best]:.3g} x a Gaussian denoiser's."
        )
    elif not ok:
        convention = "unknown"
        message = (
            f"The score function does not denoise this data: its error is {relative:.3g} x a Gaussian denoiser's, "
            f"and no other reading helps "
            f"(best: {best.name}, {scores[best]:.3g} x). Check that the data is what the network was trained on, and "
            f"its time input."
        )
    return ScoreReport(ok, convention, message, probe.t, own.mean(1).tolist(), own_base.tolist(), alternatives)
