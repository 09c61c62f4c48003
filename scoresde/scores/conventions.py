"""Check the convention of a network.

`check_score` denoises real data with it, reads its outputs in every way that wrappings get wrong (`readings`), and
names the convention that fits.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, explained
from ..core.noise import check_seed
from ..core.sdes import AffineSDE
from ..core.sdes.base import check_sde
from ..core.sdes.span import log_snr_range
from ..core.support.checks import check_integer, check_not_empty, check_state, check_tensor
from ..core.support.context import per_row
from ..core.support.tensors import compute_dtype
from ..discrete import Chain
from .bare import as_score, check_context, of_process
from .base import Score, changed
from .high_noise import HighNoise, best_of, cures
from .model import ScoreModel
from .probe import LOWEST, OfFunction, OfModel, ProbedNetwork, ReadingErrors, Sample, kept
from .readings import (
    AS_GIVEN,
    SHARES,
    Family,
    Reading,
    Units,
    declared_bare,
    declared_by,
    outputs,
    places,
    units,
    with_times,
)

_ROWS = 256  # of the first measurement of a reading, over all levels, at most
_FEWEST = 8  # of them per level, at least
_VALUES = 1024  # values per level from which fewer rows do
_MORE = 12  # times as many rows for the readings that fit best
_FINALISTS = 5
_MOST_LEVELS = 1000
_CLEAR = 3.5  # standard errors by which another reading must be better
_FAMILY = 4.2  # of a reading with a name: one of so many finalists exceeds it by chance in 1 of 10,000 checks
_RAISE, _BETAS = 1.045, 1.01  # and the factor of the errors, of any reading and of those on another process
_EQUAL = 1.02  # the factor within which two readings are equally good
_PROCESS = 1.005  # the same for readings on two processes that are not the declared one
_TIED = 2.5  # standard errors within which two readings may be that
_PLAIN = 0.02  # the share of the error by which one more change must help in a first look
_CALLS = 112  # for first looks, at most
_TIMES = 16  # that are tried at every level
_INFORMATIVE = 0.1  # how much the outputs must help a reading, against zeros in their place, in the error's logarithm
_BETTER, _SETTLED = 0.95, 0.9  # whether the search goes on to a second change
_UNNAMED = 1.1  # and where times or factors were measured, which differ a little for a network that was fitted badly
_FITTED = 2  # times as many rows, on which a process is fitted
_STEPS = (0.3, 0.15, 0.1, 0.05, 0.03)  # of its parameters, by their logarithms
_MOST_CALLS = 350
_NEAR = 0.1  # the variance of the data as a share of that of the state, where noise is three times as large as the data
_RESERVED = 4  # of them, for questions about the context and the batch
_DEPENDS = 0.05  # of the error: by how much another context must move the guesses to say anything
_FOREIGN = 0.25  # of that: what the error must rise by where the context is that of the samples, at least
_SURE = 0.9  # the error from which a reading that changes more than one thing is no evidence
_SCALE = "times that of a Gaussian denoiser"  # so that a reader can judge an error
_LIMIT = 1.3  # a score function must not be worse than this multiple of the Gaussian denoiser's error


@dataclass(frozen=True)
class ScoreReport:
    r"""The result of `check_score`.

    Attributes:
        ok: whether the network denoises the data as it is wrapped, and no other reading of it fits better.
        convention: ``"score"`` if so, the name of what it seems to follow instead, ``"context"`` or ``"unknown"``.
        message: the same in a sentence, with what to do.
        t: the times of the noise levels.
        error: the normalised denoising error :math:`E\|\sigma s(x_t, t) + \varepsilon\|^2 / D` at each.
        baseline: that of a Gaussian denoiser with the data's mean and variance.
        alternatives: for each other reading, its error relative to the baseline (geometric mean over the levels).
        verdict: ``"works"``, ``"another fits better"``, ``"not distinguishable"`` (another one fits these data as
            well), ``"unreliable at high noise"`` or ``"unknown"``.
        suggestion: where another one fits better, what to write instead.
        calls: how often the network was called to read it, with 256 samples at most; at high noise it is called 6 times
            more, and up to 160 times with 64 samples where it is unreliable there.
        cures: for a network that is unreliable at high noise, lines that may help, and the energy distance of samples
            to the data with each (with "", as it is), in units of the mean distance of data from each other.

    Example:
        >>> report = ScoreReport(True, "score", "fine", [0.5], [0.2], [0.3], {})
        >>> print(report)
        fine
        A Gaussian denoiser uses nothing but the mean and the variance of the data.
        The mean squared error of the noise estimate, and that of a Gaussian denoiser, at each time:
               t   error  Gaussian
             0.5   0.200     0.300
    """

    ok: bool
    convention: str
    message: str
    t: list[float]
    error: list[float]
    baseline: list[float]
    alternatives: dict[str, float]
    verdict: str = ""
    suggestion: str = ""
    calls: int = 0
    cures: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = zip(self.t, self.error, self.baseline, strict=True)
        table = [f"{t:>8.4g}{e:>8{'.3f' if e < 1000 else '.1e'}}{b:>10.3f}" for t, e, b in rows]
        meaning = "A Gaussian denoiser uses nothing but the mean and the variance of the data."
        units = "The mean squared error of the noise estimate, and that of a Gaussian denoiser, at each time:"
        return "\n".join([self.message, meaning, units, f"{'t':>8}{'error':>8}{'Gaussian':>10}", *table])


def check_score(
    sde: AffineSDE,
    score_fn: Callable[..., Tensor],
    data: Tensor,
    *,
    levels: int = 8,
    context: Mapping[str, object] | None = None,
    seed: int = 0,
) -> ScoreReport:
    r"""Measure how well a network predicts noise, and report whether another convention fits better.

    At a range of noise levels real data is perturbed, :math:`x_t = \alpha x_0 + \sigma\varepsilon`, and the network is
    read as it is wrapped, and then in every other way that wrappings get wrong: as another prediction, with another
    sign or a factor of :math:`\sigma`, :math:`\alpha` or 2, with other times (reversed, times 1000, divided by 1000,
    :math:`\sigma`, :math:`\sigma/\alpha`, log-SNR, an index), on other processes (VP with the linear, scaled-linear,
    cosine and sigmoid schedules, sub-VP, VE, VDM, flow, EDM with its preconditioning), on data in other units, mirrored
    or in another order, and in evaluation mode. Denoising at one log-SNR is the same task whatever the convention, so
    the errors are comparable. The best few readings are compared on other noise and other rows, in pairs; where two are
    equally good, the one that changes less is named:

    - ``"works"``: no other reading comes within 4.5 % of the error;
    - ``"another fits better"``: one has an error lower by 4.5 % and 3.5 standard errors, or, on another process, by
      1 % and 4.2 standard errors (1 in 10,000 checks by chance), and the report has what to write; where some rows
      leave this open, more are drawn;
    - ``"not distinguishable"``: another one fits these data as well, which is no fault, as all time labels do for a
      score that does not change with time;
    - ``"unreliable at high noise"``: the convention fits, but above 12 standard deviations of the data the network is
      worse than a constant, and moves states by more than 4 % of their noise; what helps is measured on samples;
    - ``"unknown"``: the network is worse than 1.3 times a Gaussian denoiser, or its output would fit better, by 10 %,
      with other factors, and no reading explains it; or the network depends on its context and does as well with that
      of other samples, then its convention is ``"context"``.

    Whatever the wrapping may do, a network trained by denoising can't be improved by a factor or by other times, which
    is measured too; one that has overfitted, or was fitted badly at some level, can be, and is then ``"unknown"``. Two
    or three samples are too few for a verdict. The cost is at most 350 calls with 256 samples for up to 256 levels,
    fewer samples for large data, and what high noise takes, see `ScoreReport.calls`.

    Args:
        sde: the affine process that the score function is meant for.
        score_fn: a `scoresde.ScoreModel`, whose network is also tested with other conventions, or
            ``score_fn(x, t, **context)``, which is taken for a score function.
        data: clean data that the network was not trained on, ``(n, *event)``, a few hundred samples or more.
        levels: the number of noise levels.
        context: as for `scoresde.solve`, with one entry per sample of the data.
        seed: of the noise and of the choice of samples.

    Returns:
        A `ScoreReport`; ``print`` it.

    Raises:
        InvalidTypeError, InvalidArgumentError: the arguments do not fit, or all samples of the data are equal.
        ScoreFnError: the network's output is not shaped like its input.

    Example:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> target = scoresde.targets.Gaussian(torch.zeros(4), torch.eye(4))
        >>> data = target.sample(500, generator=torch.Generator().manual_seed(0))
        >>> score_fn = target.score(sde)
        >>> check_score(sde, score_fn, data).ok
        True
        >>> def noise(x, t):
        ...     return -score_fn(x, t) * sde.sigma(t)[:, None]
        >>> check_score(sde, noise, data).convention
        'noise'
        >>> check_score(sde, scoresde.ScoreModel(noise, sde, "v"), data).suggestion
        "Write ScoreModel(net, sde, prediction='noise')."
    """
    check_sde(sde, affine=True)
    score_fn = of_process(score_fn, sde)
    score = Score.for_process(as_score(score_fn), sde)  # another process is a mistake to name here
    check_not_empty("data", check_state("data", data))
    check_integer("levels", levels, low=1, high=_MOST_LEVELS)
    if len(data) < 2:
        raise InvalidArgumentError(f"`data` must have at least 2 samples, got {len(data)}.")
    check_tensor("data", data, finite=True)
    given = per_row(check_context(context, score, len(data)), data)
    generator = torch.Generator().manual_seed(check_seed("seed", seed))
    if not bool((data != data[:1]).any()):
        raise InvalidArgumentError("`data` must have samples that differ from each other; all of them are equal.")
    alone = torch.random.fork_rng(devices=[data.device] if data.is_cuda else [])
    with torch.no_grad(), alone, explained(data, None):
        search = _Search(sde, score_fn, data.detach(), levels, given, generator)
        report = search.rescaled() or search.report()
        if not (report.ok or report.convention == "unknown" or search.another_process_is_near):
            return report
        with kept(search.network.module, evaluated=False):
            return _at_high_noise(report, score, sde, search)


def _at_high_noise(report: ScoreReport, score: Score, sde: AffineSDE, search: _Search) -> ScoreReport:
    """The report, or that the network is unreliable where noise is far larger than the data, with what helps most."""
    given = score, sde, search.data, search.context, search.generator
    found = HighNoise.of(*given)
    if not found.bad:
        return report
    helped = cures(*given)
    best = best_of(helped)
    if not (report.ok or search.fits_below):
        message = f"{report.message} What helps its samples most of what is tried for high noise: {best}."
        return replace(report, message=message, cures=helped)
    cure = "what helps most" if helped[best] < helped[""] else "the mildest cure, from which few evaluations may gain"
    message = (
        f"The network is unreliable at high noise: {found}. At lower noise it fits as it is wrapped. Its samples are "
        f"{helped['']:.3g} from the data (energy distance, in units of the mean distance of data from each other), and "
        f"{helped[best]:.3g} with {cure}. Write {best}."
    )
    verdict, change = "unreliable at high noise", f"Write {best}."
    return replace(
        report, ok=False, convention=verdict, message=message, verdict=verdict, suggestion=change, cures=helped
    )


class _Search:
    """The search for the reading that fits: every one on a few rows, the best ones on others."""

    def __init__(
        self,
        sde: AffineSDE,
        score_fn: Callable[..., Tensor],
        data: Tensor,
        levels: int,
        context: dict[str, Any],
        generator: torch.Generator,
    ) -> None:
        self.network: ProbedNetwork = OfFunction(score_fn)
        self.declared = declared_bare(sde)
        if isinstance(score_fn, ScoreModel) and not changed(score_fn, ScoreModel):
            self.network, self.declared = OfModel(score_fn), declared_by(score_fn)
        self.data = data.to(compute_dtype(data.dtype))
        chain = score_fn.chain if isinstance(score_fn, ScoreModel) else None
        self.lams, ratio, self.within_reach = _levels(sde, self.data, levels, chain)
        self.t = sde.time(2 * self.lams).tolist()
        self.base = ratio / (1 + ratio)
        self.few_rows = max(1, min(_ROWS // levels, max(_FEWEST, math.ceil(_VALUES / data[0].numel()))))
        self.context, self.generator = context, generator
        self.samples: list[Sample] = []
        self.best: Reading | None = None
        self.few, self.many = self._sample(1), self._sample(_MORE)

    def _sample(self, size: int) -> Sample:
        """Rows of the data with noise, so many times as in a first look."""
        count = size * self.few_rows
        rows = torch.randint(len(self.data), (count,), generator=self.generator).to(self.data.device)
        self.samples.append(Sample(self.network, self.data, rows, self.lams, self.base, self.context, self.generator))
        return self.samples[-1]

    @property
    def calls(self) -> int:
        """How often the network was called."""
        return sum(sample.calls for sample in self.samples)

    @property
    def fits_below(self) -> bool:
        """Whether the network denoises as it is wrapped where noise is at most three times as large as the data."""
        levels = self.base >= _NEAR
        return int(levels.sum()) > 1 and bool((self.own.values.mean(1)[levels] < _UNNAMED).all())

    @property
    def another_process_is_near(self) -> bool:
        """Whether what fits better is another process, by less than training too short at high noise may explain."""
        if self.best is None or self.best.process is self.declared.process:
            return False
        return self.own.gain(self.found[self.best])[0] < math.log(_RAISE)

    def report(self) -> ScoreReport:
        """Read the network in every way, and judge."""
        self.own = self.many.own(self.declared)
        self.seen: dict[Reading, float] = {}
        self.family: Family | None = None
        self.fitted: Reading | None = None
        self.units = units(self.data)
        self.places = places(self.declared, self.data)
        self._look(self._changed_once() + self.places)
        best = min(self.seen, key=self.seen.__getitem__, default=None)
        if best is not None and (self.seen[best] < _BETTER * self.own.rank or self.own.rank > _SETTLED):
            self._look(self._changed_more(best))
        known = set(self.seen)
        if bool(self.own.finite.all()):
            self._look(self._timed(), _CALLS + _TIMES + 2)
        self.measured = self.seen.keys() - known
        self.fitted = self._fitted()
        finalists = [*self._best(), *([] if self.fitted is None else [self.fitted])]
        self.found = {r: errors for r in finalists if (errors := self.many.errors(r)) is not None}
        return self._judged()

    def rescaled(self) -> ScoreReport | None:
        """The report for data in other units, if they are those that the network takes, where the process has no noise
        of the size of the data."""
        if self.within_reach:
            return None
        tried: dict[Units, Sample] = {}
        for unit in units(self.data):
            changed = unit.change(self.data)
            lams, ratio, within_reach = _levels(self.declared.process.sde, changed, len(self.lams))
            if within_reach and bool(torch.isfinite(changed).all()):
                rows = torch.randint(len(changed), (self.few_rows,), generator=self.generator).to(changed.device)
                base = ratio / (1 + ratio)
                tried[unit] = Sample(self.network, changed, rows, lams, base, self.context, self.generator)
        self.samples += tried.values()
        found = {unit: errors for unit, sample in tried.items() if (errors := sample.errors(self.declared)) is not None}
        own = self.few.own(self.declared)
        good = {unit: e for unit, e in found.items() if e.relative < min(_SURE, own.relative / _RAISE)}
        if not good:
            return None
        unit = min(good, key=lambda unit: good[unit].relative)
        lead = replace(self.declared, units=unit)
        change = lead.change(self.declared)
        message = (
            "The data are far larger or far smaller than the noise of the process. As they are, the mean squared error "
            f"is {own.relative:.3g} {_SCALE}, and in other units {found[unit].relative:.3g} times. {change}"
        )
        others = {f"{u.kind}: {u.formula}": errors.relative for u, errors in found.items()}
        return self._reported(own, others, ("another fits better", unit.kind, message), change, self.calls)

    def _better(self) -> list[Reading]:
        """The readings that are better than the declared one, the best first; more rows decide where these do not."""
        order = sorted(self.found, key=lambda reading: self.found[reading].relative)
        better = [r for r in order if self._beats(r, self.own, self.found[r])]
        if better or not order:
            return better
        size, best = (_MOST_CALLS - _RESERVED - self.calls) // 2, self._plainest(order)
        gain, error = self.own.gain(self.found[best])
        if size < _MORE // 2 or not gain > error:
            return []
        more = self._sample(size)
        again, own = more.errors(best), more.own(self.declared)
        if again is None or not self._beats(best, self.own.joined(own), self.found[best].joined(again)):
            return []
        return [best]

    def _plainest(self, order: list[Reading]) -> Reading:
        """Of readings, the best first, the one that changes least among those that are as good, or nearly so."""

        def near(reading: Reading) -> bool:
            factor = _RAISE if self._size(reading) < self._size(order[0]) else _EQUAL
            if order[0].process is not self.declared.process is not reading.process:  # two others
                factor = _PROCESS
            return _tied(self.found[reading], self.found[order[0]], factor)

        return min(filter(near, order), key=lambda reading: (self._size(reading), reading == self.fitted))

    def _size(self, reading: Reading) -> int:
        """How much a reading changes; measured times are worth two changes."""
        return self.declared.size(reading) + 2 * (reading in self.measured)

    def _beats(self, reading: Reading, own: ReadingErrors, errors: ReadingErrors) -> bool:
        """Whether a reading is better than the declared one, with the help of the network."""
        better = _better(own, errors, _UNNAMED if reading in self.measured else _RAISE)
        named = reading.process is not self.declared.process or reading.time.name.startswith("label")
        if not better and reading not in self.measured and named:
            better = _better(own, errors, _BETAS, _FAMILY) and self._explains(reading, _EQUAL)
        if better and reading == self.fitted:  # other betas do what factors of the output do, and leave levels out
            better = _better(self.many.scaled(self.declared), self.found[reading], _BETAS)
            better = better and self._explains(reading, _RAISE)
            better = better and bool(errors.valid.all())
        if reading == replace(self.declared, evaluated=True) and self._training:
            # a solve is in evaluation mode
            better = not (_better(errors, own, 1.0) or torch.allclose(errors.values, own.values))
        return better and self._helps(reading)

    @functools.cached_property
    def _training(self) -> bool:
        """Whether layers of the network do something else in training mode, in which they are."""
        layers = [] if self.network.module is None else self.network.module.modules()
        return any(
            layer.training and (getattr(layer, "p", 0.0) > 0 or getattr(layer, "track_running_stats", False))
            for layer in layers
        )

    def _changed_once(self) -> list[Reading]:
        """The declared reading of other data, or of the network in evaluation mode."""
        module, changed = self.network.module, []
        if module is not None and any(part.training for part in module.modules()):
            changed.append(replace(self.declared, evaluated=True))
        return changed + [replace(self.declared, units=unit) for unit in self.units]

    def _changed_more(self, best: Reading) -> list[Reading]:
        """Readings that differ from the best one so far in one more way."""
        if best.units is AS_GIVEN:
            return [replace(best, units=unit) for unit in self.units]
        return [replace(place, units=best.units) for place in self.places]

    def _timed(self) -> list[Reading]:
        """The declared reading with the times at which it fits best."""
        sde = self.declared.process.sde
        low, high = log_snr_range(sde)
        log_snrs = torch.linspace(min(high, 30.0), max(low, -30.0), _TIMES, dtype=torch.float64)
        times = torch.as_tensor(self.declared.time.read(sde.nodes(sde.time(log_snrs)))).to(torch.float64)
        if len(self.lams) < 2 or not bool(torch.isfinite(times).all()):
            return []
        best = self.few.best_times(self.declared, times)
        if best is None:
            return []
        labels = 999 if self.network.labels is None else self.network.labels
        length = 1.0 if float(best.max()) <= SHARES else labels + 1.0
        self.family = Family.of(self.declared, 2 * self.lams, best, length)
        return [with_times(self.declared, 2 * self.lams, best)]

    def _fitted(self) -> Reading | None:
        """The declared reading on the process of a family that fits best, on rows of its own."""
        if self.family is None:
            return None
        sample, best = self._sample(_FITTED), self.family
        for step in _STEPS:
            ranks = {}
            for family in best.around(step):
                reading = family.reading(self.declared)
                errors = None if reading is None else sample.errors(reading)
                if errors is not None and bool(errors.valid.all()):
                    ranks[family] = errors.rank
            best = min(ranks, key=ranks.__getitem__, default=best)
        return best.reading(self.declared)

    def _look(self, candidates: list[Reading], most: int = _CALLS) -> None:
        """Note the errors of readings on a few rows; those that mean the same as an earlier one are left out, and
        those that come after so many calls."""
        meant: dict[int, Tensor] = {}
        for place in (self.declared, *self.seen, *candidates):
            where = self.few.place(place)
            if where is None or (place not in self.seen and self.few.calls >= most):
                continue
            for reading in (place,) if place in self.seen else outputs(place, self.declared):
                means = self.few.weights(reading)
                known = meant.get(where, means.new_empty(0, *means.shape))
                close = (means == known) | ((means - known).abs() <= 1e-6 + 1e-3 * known.abs())
                if bool(close.flatten(1).all(1).any()):
                    continue
                meant[where] = torch.cat([known, means[None]])
                if reading is self.declared or reading in self.seen:
                    continue
                errors = self.few.errors(reading)
                if errors is None:
                    break
                self.seen[reading] = errors.rank

    def _best(self) -> list[Reading]:
        """The readings with the smallest errors on a few rows, two of a place at most."""
        kept: dict[Reading, None] = {}
        taken: Counter[int | None] = Counter()
        own = self.few.errors(self.declared)

        def cost(reading: Reading) -> float:
            return (1 + _PLAIN * len(self.declared.changes(reading))) * self.seen[reading]

        for reading in sorted(self.seen, key=cost):
            if reading in self.measured and own is not None and self.seen[reading] > _BETTER * own.rank:
                continue  # times that were fitted to a few rows are as good as the right ones
            as_given = replace(reading, units=AS_GIVEN)  # which symmetric data may not need to change
            for candidate in (as_given, reading) if as_given in self.seen else (reading,):
                where = self.few.place(candidate)
                if candidate not in kept and taken[where] < 2:
                    kept[candidate] = None
                    taken[where] += 1
        return list(kept)[:_FINALISTS]

    def _judged(self) -> ScoreReport:
        own, found = self.own, self.found
        names = {reading: " and ".join(self.declared.changes(reading)) for reading in (*self.seen, *found)}
        order = sorted(found, key=lambda reading: found[reading].relative)
        better = self._better()
        fits = self._explaining([r for r in better if self._fits(r)])
        alternatives: dict[str, float] = {}
        for reading, error in {**self.seen, **{r: e.relative for r, e in found.items()}}.items():
            alternatives[names[reading]] = min(error, alternatives.get(names[reading], math.inf))
        lead = self._plainest(fits) if fits else None
        if by := self._numbered():
            change = f"Write (label {'+-'[by < 0]} 1) % classes for label."
            message = (
                "The labels of the context are numbered otherwise than in training: the mean squared error is "
                f"{own.relative:.3g} {_SCALE}, and smaller with other numbers. {change}"
            )
            return self._reported(own, alternatives, ("another fits better", "context", message), change, self.calls)
        if lead is not None and (self._size(lead) < 2 or not self._foreign_context(lead)):
            self.best = lead
            verdict, convention = "another fits better", names[self.best]
            change = self.best.change(self.declared)
            message = (
                f"Another convention fits better: with it the mean squared error is {found[self.best].relative:.3g} "
                f"{_SCALE}, and {own.relative:.3g} times as the network is wrapped now. What differs: {convention}. "
                f"{change}"
            )
        else:
            others = {names[r]: r for r in reversed(order) if r not in self.measured and r != self.fitted}
            verdict, convention, message, change = *self._kept(own, others, bool(better)), ""
        return self._reported(own, alternatives, (verdict, convention, message), change, self.calls)

    def _reported(
        self, own: ReadingErrors, alternatives: dict[str, float], told: tuple[str, str, str], change: str, calls: int
    ) -> ScoreReport:
        verdict, convention, message = told
        return ScoreReport(
            verdict in ("works", "not distinguishable"),
            convention,
            message,
            self.t,
            (own.values * self.base[:, None]).mean(1).tolist(),
            self.base.tolist(),
            alternatives,
            verdict,
            change,
            calls,
        )

    def _kept(self, own: ReadingErrors, others: dict[str, Reading], beaten: bool) -> tuple[str, str, str]:
        """The verdict, the convention and the message where no other reading fits."""
        return self._misfit(own, others, beaten) or self._fit(own, others)

    def _misfit(self, own: ReadingErrors, others: dict[str, Reading], beaten: bool) -> tuple[str, str, str] | None:
        """The same where the network does not do what it declares; None where it does."""
        broken = [f"{t:.4g}" for t, finite in zip(self.t, own.finite.tolist(), strict=True) if not finite]
        if broken:
            message = (
                f"The network's output is not finite at t = {', '.join(broken)}, and no other reading fits. Check the "
                "time that it receives there, and its dtype."
            )
            return "unknown", "unknown", message
        error = f"mean squared error is {own.relative:.3g} {_SCALE}"
        fitted, sizes = self.many.fitted(self.declared)
        unexplained = own.relative > _LIMIT or beaten
        if self._foreign_context(self.declared):
            message = (
                f"The context is not that of the data: the {error}, and no larger if every sample gets the "
                "context of another one. Check that each has its own, and that labels are numbered as in training."
            )
            return "unknown", "context", message
        if unexplained and self._one_time():
            message = (
                f"The network uses one time for the whole batch: its {error}, and smaller where all samples "
                "of a call have the same time. Search for t[0] or t.mean(); every sample has its own time."
            )
            return "unknown", "one time per batch", message
        says = unexplained or fitted.relative < _SURE  # with these weights more than a Gaussian denoiser says
        if says and _better(own, fitted, _UNNAMED) and self._sound(fitted) and bool((sizes > 0).all()):
            factors = ", ".join(f"{size:.3g} at t = {t:.3g}" for t, size in zip(self.t, sizes.tolist(), strict=True))
            message = (
                f"The network does not fit the data as it is wrapped, nor in any other way that is tried: its {error}, "
                "and the best weights of the output and of the noisy state at each time would make that "
                f"{fitted.relative:.3g}. The weight of the output is then {factors}, times what it is now. Search for "
                "a factor that is missing or that is there twice, for an output that is clipped, for other times, and "
                f"for data{' or a context' * bool(self.context)} in other units or in another order of the entries; "
                "or the network is not trained yet."
            )
            return "unknown", "unknown", message
        if unexplained:
            best = min(others, key=lambda name: self.found[others[name]].relative, default=None)
            closest = (
                "" if best is None else f"; the best other way has {self.found[others[best]].relative:.3g} ({best})"
            )
            message = (
                f"The network does not fit the data as it is wrapped, nor in any other way that is tried: its {error}"
                f"{closest}. Check that the data are what the network was trained on, in its units and its "
                f"order of the entries, what it receives as its time{' and its context' * bool(self.context)}, and "
                "whether it is trained."
            )
            return "unknown", "unknown", message
        return None

    def _fit(self, own: ReadingErrors, others: dict[str, Reading]) -> tuple[str, str, str]:
        """The same where the network fits as it is declared."""
        near = [r for r in reversed(others.values()) if own.gain(self.found[r])[0] > -math.log(_RAISE)]
        fine = f"The network denoises the data as a score should: its mean squared error is {own.relative:.3g} {_SCALE}"
        if own.relative > 1:
            fine = (
                "The network denoises the data no better than a Gaussian denoiser: its mean squared error is "
                f"{own.relative:.3g} times as large"
            )
        if near and (same := self._symmetries()):
            message = (
                f"{fine}. Nothing needs to change. The data, x0, look the same as {' and as '.join(same)}, so that the "
                "check cannot show which of these the network was trained on."
            )
        elif near:
            message = (
                f"{fine}. Nothing needs to change. The error on these data is nearly the same with "
                f"{near[0].other(self.declared)}, so that the check cannot show which is right."
            )
        if near:
            return "not distinguishable", "score", message
        return "works", "score", f"{fine}. No other convention that is tried fits as well."

    def _symmetries(self) -> list[str]:
        """Formulas of data with another sign or another order, which the network denoises as well."""
        own, found = self.few.own(self.declared), []
        for unit in self.units:
            errors = None if unit.kind == AS_GIVEN.kind else self.few.errors(replace(self.declared, units=unit))
            if errors is not None and _tied(errors, own, _RAISE):
                found.append(unit.formula)
        return found

    def _foreign_context(self, reading: Reading) -> bool:
        """Whether the network depends on its context, and a reading does as well with that of other samples.

        Where a network has learned E[noise | state, context], the mean squared error rises by exactly the mean square
        of what another context moves its guesses by.
        """
        sample = self.many if self.calls + _MORE <= _MOST_CALLS else self.few
        errors, exchanged = sample.errors(reading), sample.exchanged(reading)
        if errors is None or exchanged is None or not bool(exchanged[0].finite.all()):
            return False
        scale = 1 / (errors.values.mean(1, keepdim=True) + LOWEST)
        rise, moved = ((v * scale).mean(0) for v in (exchanged[0].values - errors.values, exchanged[1].values))
        missing = _FOREIGN * moved - rise
        chance = _TIED * float(missing.std()) / math.sqrt(len(missing))
        return float(moved.mean()) > _DEPENDS and float(missing.mean()) > chance

    def _numbered(self) -> int:
        """By how much labels of the context must be changed for the error to become smaller; 0 for not at all."""
        own, tried = self.few.errors(self.declared), {by: self.few.relabelled(self.declared, by) for by in (1, -1)}
        return next((by for by, e in tried.items() if own and e and _better(own, e, _UNNAMED)), 0)

    def _one_time(self) -> bool:
        """Whether the network does better where all samples of a call have one time, at two of the levels."""
        levels = len(self.lams)
        mixed, alone = self.few.errors(self.declared), self.few.alone(self.declared, [levels // 4, 3 * levels // 4])
        return mixed is not None and alone is not None and _better(mixed, alone, _UNNAMED)

    def _fits(self, reading: Reading) -> bool:
        """Whether a reading is a denoiser, and surely one if it changes much."""
        errors = self.found[reading]
        return self._sound(errors) and (self.declared.size(reading) < 2 or errors.relative < _SURE)

    def _explaining(self, better: list[Reading]) -> list[Reading]:
        """The readings after which nothing is left to explain. A network that denoises badly could do better in its own
        convention, too: one that changes a single thing may be that, or has a name where only measured times fit."""
        fits = [r for r in better if self._explains(r, _RAISE)]
        named = [r for r in better if r not in self.measured and self._explains(r, _UNNAMED)]
        if not fits:
            return [r for r in named if self._size(r) < 2]
        if self.measured.issuperset(fits):
            return fits + [r for r in named if _tied(self.found[r], self.found[fits[0]], _EQUAL)]
        least = min(map(self._size, fits))
        plainer = [r for r in named if self._size(r) < least and _tied(self.found[r], self.found[fits[0]], _RAISE)]
        return fits + plainer

    def _explains(self, reading: Reading, factor: float) -> bool:
        """Whether no weights of the state and the output, fitted at every level, are better by a factor."""
        return not _better(self.found[reading], self.many.fitted(reading)[0], factor)

    def _sound(self, errors: ReadingErrors) -> bool:
        """Whether the errors are below those of the Gaussian denoiser, or equal but for chance and its fit."""
        gain, error = self.many.gaussian().gain(errors)
        return gain > -max(_TIED * error, math.log(_EQUAL))

    def _helps(self, reading: Reading) -> bool:
        """Whether the network's outputs help a reading, against zeros in their place."""
        errors = self.found[reading]
        silent = self.many.errors(reading, silent=True)
        if silent is None:
            return False
        gain, error = silent.gain(errors)
        return gain > max(_INFORMATIVE if errors.relative > 1 else _INFORMATIVE / 3, _CLEAR * error)


def _levels(sde: AffineSDE, data: Tensor, levels: int, chain: Chain | None = None) -> tuple[Tensor, Tensor, bool]:
    """Half of the log-SNRs of the levels, the variance of the data over that of the noise at each, and whether the
    process has noise of the size of the data; levels of a chain, if there is one."""
    spread = 2 * math.log(max(float(data.to(torch.float64).std(0, correction=0).square().mean().sqrt()), 1e-6))
    ends = [float(sde.log_snr(t)) for t in (sde.t_min, sde.t_max)]
    high, low = min(ends[0], 5 - spread), max(ends[1], -5 - spread)
    within_reach = low < high
    if not within_reach:
        low, high = max(ends[1], -30.0), min(ends[0], 30.0)
    log_snrs = torch.linspace(high, low, levels + 2, dtype=torch.float64)[1:-1]
    if chain is not None:
        near = chain.log_snrs[(log_snrs[:, None] - chain.log_snrs).abs().argmin(1)]
        log_snrs = near.unique().flip(0)
    return log_snrs / 2, (log_snrs + spread).exp(), within_reach


def _better(own: ReadingErrors, other: ReadingErrors, factor: float, errors: float = _CLEAR) -> bool:
    """Whether another reading's error is lower by a factor, and by so many standard errors."""
    gain, error = own.gain(other)
    return gain > max(math.log(factor), errors * error)


def _tied(errors: ReadingErrors, best: ReadingErrors, factor: float) -> bool:
    """Whether a reading may be as good as the best one, or worse by less than a factor."""
    gain, error = errors.gain(best)
    return gain < max(math.log(factor), _TIED * error)
