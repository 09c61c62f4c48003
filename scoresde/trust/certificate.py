"""`Certificate`: a bound on the error of every sample, and what it guarantees."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.errors import CorruptCheckpointError, InvalidArgumentError, short
from ..core.noise import Noise
from ..core.noise.sources import CallableNoise, check_seeds
from ..core.solution import Solution, Status
from ..core.support.checks import FLOATS, check_kind, check_shape
from ..core.support.context import mapped, named
from ..core.support.display import Displayed
from ..core.support.files.fields import read_as
from ..core.support.files.paths import check_path
from ..core.support.files.writing import write_bytes
from ..core.support.tensors import expand
from ..plot import error_curves
from ..scores.bare import check_context
from ..scores.networks import check_evaluating
from ..sets.computing import precision, told
from ..sets.identity import Made
from .conformal import Coverage
from .coupling import Task, seeds_of
from .indicators import INDICATORS, Indicator, PathWatch
from .law import Law
from .norms import NORMS, Norm
from .reference import Worth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMAT = 3
FRESH = 2  # the purpose of seeds
_SURE = 0.95  # the confidence of what a pilot covers, where it is stated
Context = Mapping[str, Any]


@dataclass(frozen=True, repr=False)
class CalibratedDraws(Displayed):
    """The calibration of some draws.

    Attributes:
        quantile: by which the indicator is multiplied.
        coverage: of the bound.
        own: whether it is calibrated by draws of its own class; a class with too few of them takes those of all.

    Example:
        >>> CalibratedDraws(2.0, Coverage(128, 123), True)
        CalibratedDraws(quantile=2, draws=128, rank=123)
    """

    quantile: float
    coverage: Coverage
    own: bool = True

    def _summary(self) -> dict[str, str]:
        return {
            "quantile": f"{self.quantile:.4g}", "draws": str(self.coverage.draws), "rank": str(self.coverage.rank),
        }  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """What a certificate is for.

    Args:
        process, network: SHA-256 of their weights, buffers and settings, see `scoresde.sets.identity.Made`.
        stated: a text that names the code of them, if one was given.
        settings: the method and its arguments, as JSON values.
        event: the shape of an event.
        dtype, device: of the states.
        precision: how numbers are computed: torch's default dtype, TF32, ``torch.autocast``.
        context: of each tensor its dtype and shape, or the SHA-256 of what is the same for all draws.
    """

    process: str
    network: str
    stated: str | None
    settings: Mapping[str, Any]
    event: tuple[int, ...]
    dtype: str
    device: str
    precision: Mapping[str, str]
    context: Mapping[str, str]

    @classmethod
    def of(
        cls, task: Task, context: Context, count: int, stated: str | None, known: Mapping[str, str] | None = None
    ) -> Identity:
        """Of a task and the context of so many draws."""
        check_kind("identity", stated, (str, type(None)), "a text")
        return cls(
            Made.of(task.sde).digest,
            Made.of(task.score_fn).digest,
            stated,
            {name: told(name, value) for name, value in sorted(task.settings.items())},
            task.event,
            str(task.dtype),
            task.device.type,
            precision(task.device),
            kind_of(context, count, known),
        )

    def check(self, other: Identity) -> None:
        """Refuse to be used for another one.

        Raises:
            InvalidArgumentError: something differs.
        """
        for name, value in vars(self).items():
            found = getattr(other, name)
            if found != value:
                what = _WORDS.get(name, f"{name} {short(value or 'off')}, not {short(found or 'off')}")
                if name == "context":
                    given, now = _shown(value), _shown(found)
                    what = f"{given}, not {now}" if given != now else f"{given}, and that has another value now"
                raise InvalidArgumentError(f"The certificate was made for {what}; make one for this.")


def _shown(context: Mapping[str, str]) -> str:
    """Describe a kind of context, without its hashes."""
    named = {name: kind for name, kind in context.items() if name.startswith("context")}
    rows = [f"{name} with a row for each draw" for name, kind in named.items() if kind.startswith(_ROWS)]
    same = [f"{name} with one value for all" for name, kind in named.items() if not kind.startswith(_ROWS)]
    return " and ".join([*rows, *same]) or "no context"


_WORDS = {
    "process": "another process",
    "network": "another score function, or with other weights",
}
_ROWS = "rows"


def kind_of(context: Context, count: int, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a context is, apart from the values of each draw.

    Args:
        context: of ``count`` draws.
        known: what it is to be, which decides where there is one draw.

    Example:
        >>> kind_of({"y": torch.zeros(3, dtype=torch.long)}, 3)["context['y']"]
        'rows () torch.int64'
    """
    found = {}
    for name, value in named(context).items():
        whole = known is not None and not known.get(name, _ROWS).startswith(_ROWS)
        if value.ndim and len(value) == count and not whole and (count > 1 or known is not None):
            found[name] = f"{_ROWS} {tuple(value.shape[1:])} {value.dtype}"
        else:
            found[name] = f"the same for all, {Made.of(value).digest}"
    rest = mapped(lambda value: torch.zeros(0), context)
    return {**found, "without tensors": hashlib.sha256(repr(rest).encode()).hexdigest()} if rest else found


@dataclass(frozen=True, eq=False, repr=False)
class Certificate(Displayed):
    r"""A bound on the error of each sample of a method, made by `scoresde.certify`.

    The error is the distance of a sample from the exact solution of the network's own flow (or from the fine solution
    of its SDE on the same Brownian path). It says nothing of the network's error, that is, of the distance to the data.

    A new draw, as `solve` makes it, has an error of at most ``quantile * indicator`` with a probability of at least
    ``coverage.mean``, over pilots and draws together; what this pilot guarantees is `Coverage.at_least`. It is no
    statement on one draw, or on a class, unless the certificate is calibrated by class.

    Attributes:
        method: as text.
        confidence, confidence_in_pilot: as they were wanted.
        norm: of the error; ``norm_identity`` distinguishes functions.
        indicator: what the bound of a sample is made of.
        scores: the errors of the n draws that calibrate, in units of the indicator.
        labels: their classes, () where they are not distinguished; ``by`` is the entry of the context with the classes.
        law: the distance of the distribution of the samples to that of the reference.
        reference: what the reference was worth.
        target: the bound that was wanted, None where none was; ``met`` is whether it is certified.
        evaluations: of the score function, per sample, and those that the indicator takes in addition.
        pilot: the number of draws; ``seed`` theirs.
        scale: the standard deviation of the reference's samples, which the indicator uses.
        level: the median of the indicator.
        identity: what it is for.

    Example:
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.tensor([0.01, 1.0]))
        >>> sde = scoresde.VPSDE()
        >>> certificate = scoresde.certify(
        ...     sde, target.score(sde), "dpmpp_2m", steps=10, seed=0
        ... )
        >>> solution = certificate.solve(shape=(5, 2), seed=1)
        >>> solution.error_bound.shape, round(certificate.coverage.mean, 4)
        (torch.Size([5]), 0.9535)
    """

    method: str
    confidence: float
    confidence_in_pilot: float | None
    norm: str
    norm_identity: str
    indicator: Indicator
    scores: tuple[float, ...]
    labels: tuple[int, ...]
    by: str | None
    law: Law
    reference: Worth
    target: float | None
    evaluations: float
    extra_evaluations: float
    pilot: int
    seed: int
    scale: float
    level: float
    identity: Identity
    _task: Task | None = field(default=None)
    _norm: Norm | None = field(default=None)

    @functools.cached_property
    def pooled(self) -> CalibratedDraws:
        """The calibration of all draws."""
        return self._calibrated(self.scores)

    @functools.cached_property
    def groups(self) -> dict[int, CalibratedDraws]:
        """The calibration of each class, by its number; that of all draws for a class that has too few."""
        least, found = Coverage.least(self.confidence, self.confidence_in_pilot), {}
        for label in sorted(set(self.labels)):
            own = [score for score, of in zip(self.scores, self.labels, strict=True) if of == label]
            found[label] = replace(self.pooled, own=False) if len(own) < least else self._calibrated(own)
        return found

    def at(self, confidence: float, confidence_in_pilot: float | None = None) -> Certificate:
        """The certificate for another confidence, from the same pilot.

        Raises:
            InvalidArgumentError: the pilot has too few draws for it.
        """
        found = replace(self, confidence=confidence, confidence_in_pilot=confidence_in_pilot)
        Coverage.of(len(self.scores), confidence, confidence_in_pilot)  # or an error
        return found

    @property
    def coverage(self) -> Coverage:
        """The guarantee of a calibration by all draws. With ``by``, samples take the bounds of their classes, whose
        guarantees are in `groups`."""
        return self.pooled.coverage

    @property
    def typical(self) -> float:
        """The median of the bounds."""
        return self.pooled.quantile * self.level

    @property
    def met(self) -> bool:
        """Whether the bound is at most the `target`; also where there is none."""
        return self.target is None or self.pooled.quantile <= self.target  # the indicator is constant then

    def solve(
        self,
        *,
        shape: Sequence[int] | None = None,
        seed: int | None = None,
        seeds: Sequence[int] | Tensor | None = None,
        noise: Noise | Callable[[int, Tensor], Tensor] | None = None,
        context: Context | None = None,
        throw: bool = True,
        **others: Any,
    ) -> Solution:
        """Draw samples, each with a bound on its error.

        Args:
            shape: ``(batch, *event)``; by default one sample, or one per seed.
            seed: of the batch: sample i is a function of it and of i. Without any seed one is drawn by torch's global
                generator.
            seeds: one per sample.
            noise: a source of noise with one stream per sample, or a function ``draw(k, like)``; of a method that draws
                noise a `scoresde.BrownianPath`.
            context: of the kind that the pilot had.
            throw: as of `scoresde.solve`; samples that fail have an infinite bound.
            others: nothing else: the method and its arguments, and the dtype, belong to the certificate.

        Returns:
            A `Solution` with ``error_bound``, ``(batch,)``, or ``(batch, *event)`` for ``norm="pixel"``.

        Raises:
            InvalidArgumentError: the certificate is not for what is requested.
        """
        task, norm = self._bound_to()
        if others:
            raise InvalidArgumentError(f"`{min(others)}` belongs to the certificate, or has no place; leave it out.")
        count = self._full(task, shape, seeds, noise)[0]
        given: Context = check_context(context, task.score, count)
        draw = _draws(task, count, seed, seeds, noise)
        self._check(task, norm, given, count)
        watch = None
        if self.indicator.parts[0]:
            watch = PathWatch(task.sde, self.scale, task.sde.t_max, task.start(draw, count))
        solution = task.solve(draw, count, given, callback=watch, throw=throw)
        sizes = [] if watch is None else [norm.between(solution.x, solution.x + part) for part in watch.fields()]
        nfe = solution.nfe
        if self.indicator.parts[1]:
            half = task.solve(draw, count, given, task.halved(solution.steps))
            sizes.append(norm.between(solution.x, half.x))
            solution = replace(solution, nfe=nfe + half.nfe, evaluations=solution.evaluations + half.evaluations)
        like = norm.between(solution.x, solution.x)
        quantile = torch.full((count,), self.pooled.quantile, dtype=torch.float64)
        if self.by is not None:
            classes = given[self.by].reshape(-1).expand(count).tolist()
            quantile = torch.tensor([self._group(int(c)).quantile for c in classes], dtype=torch.float64)
        bound = expand(quantile.to(like.device), like) * self.indicator(sizes, like)
        failed = expand((solution.status != Status.SUCCESS).to(like.device), like).bool() | bound.isnan()
        return replace(solution, error_bound=torch.where(failed, torch.full_like(bound, math.inf), bound))

    def on(self, sde: object, score_fn: Callable[..., Tensor], method: Any = "auto", *, norm: Any = None,
           identity: str | None = None, dtype: torch.dtype | None = None, device: Any = None, **settings: Any
    ) -> Certificate:  # fmt: skip
        """The certificate, after it was loaded, with what it was made for: the process, the score function, and the
        arguments of `scoresde.certify` that say how to solve. Weights, buffers and settings are compared; code that is
        not of this package takes an ``identity``, which is compared with that of the certificate, if it has one.

        Raises:
            InvalidArgumentError: something differs from what it was made for, or ``identity`` is missing.
        """
        dtype = getattr(torch, self.identity.dtype.removeprefix("torch.")) if dtype is None else dtype
        settings = {"method": method, **settings}
        shape = (1, *self.identity.event)
        task = Task.of(sde, score_fn, settings, shape, 1, dtype, device)
        task.check()
        given = Norm(self.norm if norm is None else norm)
        self._check_norm(given)
        made = Made.of([sde, score_fn, given.function, settings])
        made.check_stated(identity, "the certificate was made before")
        theirs = Identity.of(task, {}, 1, identity)
        own = self.identity if self.identity.stated is not None else replace(self.identity, stated=identity)
        own.check(replace(theirs, context=own.context))
        return replace(self, identity=own, _task=task, _norm=given)

    def bound_for(self, label: int | None = None) -> CalibratedDraws:
        """The calibration of a class, or of all draws.

        Raises:
            InvalidArgumentError: the certificate is not calibrated by class.
        """
        if label is None:
            return self.pooled
        if self.by is None:
            raise InvalidArgumentError("The certificate is not calibrated by class; pass by= to certify.")
        return self._group(int(label))

    def statement(self) -> str:
        """What is certified, in words."""
        coverage, law = self.coverage, self.law
        norm = self.norm if self.norm in NORMS else "of a function of the sample"
        extra = f", and {self.extra_evaluations:.4g} for the bound" if self.extra_evaluations else ""
        what = f"the error of a new sample is at most its bound ({norm}, against the exact solution for this network)"
        if self.labels:
            own = [group.coverage for group in self.groups.values() if group.own]
            sure = []
            if own:
                least = min(coverage.mean for coverage in own)
                sure = [f"With a probability of {least:.4g} in each class calibrated by its own draws, {what}."]
            if len(own) < len(self.groups):
                sure.append("Of the classes that have too few draws nothing is stated.")
        else:
            sure = [
                f"With a probability of {coverage.mean:.4g}, {what}. The probability is over pilots and samples.",
                f"This pilot, of which {coverage.draws} draws calibrate, covers at least "
                f"{100 * coverage.at_least(_SURE):.1f} % of new samples, with a confidence of {100 * _SURE:g} %.",
            ]
        lines = [
            f"{self.method}: {self.evaluations:.4g} evaluations per sample{extra}.",
            *sure,
            f"The median of the bounds is {self.typical:.3g}. They are made of the indicator {self.indicator.name!r}.",
            f"The distribution of the samples is at most {law.prokhorov:.3g} from the exact one (Prokhorov "
            f"distance, in units of {law.unit:.3g} per dimension; confidence {100 * law.confidence:g} %).",
            f"The reference ({self.reference.method}) is uncertain by {self.reference.distance:.2g}, which the bounds "
            "include.",
            "All this is about the solver. It says nothing of the network's distance to the data.",
        ]
        if self.labels:
            bounds = [
                f"{label}: {self.level * group.quantile:.3g}{'' if group.own else ' (that of all)'}"
                for label, group in self.groups.items()
            ]
            lines.insert(1 + len(sure), f"By class, the bounds of a typical sample are {', '.join(bounds)}.")
        if self.target is not None:
            lines.insert(1, f"A bound of {self.target:g} is {'certified' if self.met else 'NOT certified'}.")
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str] | None = None, *, title: str | None = None) -> list[Axes]:
        """The errors of the pilot, and the ratios of errors to bounds of the draws that calibrate, by
        `scoresde.plot.error_curves`.

        Args:
            path: where to write the figure as PNG.
            title: above it; by default the method and its evaluations.

        Raises:
            ImportError: matplotlib is missing.
            OutputError: the file cannot be written.
        """
        told = f"{self.method}, {self.evaluations:g} evaluations" if title is None else title
        scores = torch.tensor(self.scores, dtype=torch.float64)
        if self.labels:
            own = {label: group.quantile for label, group in self.groups.items()}
            bounds = torch.tensor([own[label] for label in self.labels], dtype=torch.float64)
        else:
            bounds = torch.full_like(scores, self.pooled.quantile)
        ratios, law = (scores / bounds).nan_to_num(nan=1.0), self.law
        known = ratios[ratios.isfinite()], law.distances[law.distances.isfinite()]
        return error_curves(known[1] / law.unit, known[0], path, distance=law.prokhorov, title=told,
                            probability=self.coverage.mean, unit="standard deviations of the samples")  # fmt: skip

    def _summary(self) -> dict[str, str]:
        coverage = self.coverage
        return {
            "method": self.method,
            "bound": f"{self.typical:.3g} (median)" if self.indicator.slopes else f"{self.typical:.3g}",
            "norm": self.norm,
            "indicator": self.indicator.name,
            "probability": f"{coverage.mean:.4g} (k={coverage.rank} of n={coverage.draws})",
            "this pilot": f"at least {coverage.at_least(_SURE):.3f} with confidence {_SURE:g}",
            "prokhorov<": f"{self.law.prokhorov:.3g}",
            **({} if self.target is None else {"target": f"{self.target:g} {'met' if self.met else 'NOT met'}"}),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the certificate as JSON; `load` and `on` read it.

        Raises:
            OutputError: the file cannot be written.
        """
        write_bytes(check_path("path", path), (json.dumps(self.content(), indent=1) + "\n").encode())

    def content(self) -> dict[str, Any]:
        """All that is kept, as JSON values; infinity is text."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if not item.name.startswith("_")}
        plain["law"] = {**vars(self.law), "distances": self.law.distances.tolist()}
        for name in ("indicator", "reference", "identity"):
            plain[name] = asdict(plain[name])
        found: dict[str, Any] = _as_json({"format": FORMAT, **plain})
        return found

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Certificate:
        """Read a certificate; before it can `solve`, `on` gives it what to solve.

        Raises:
            CorruptCheckpointError: the file is not a certificate.
        """
        path = check_path("path", path)
        try:
            with open(path, encoding="utf-8") as file:
                return cls._of(json.load(file))
        except FileNotFoundError:
            raise InvalidArgumentError(f"There is no file {str(path)!r}.") from None
        except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise CorruptCheckpointError(f"{str(path)!r} is not a certificate: {error}") from None

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> Certificate:
        """A certificate from its `content`."""
        given = _from_json(dict(content))
        if given.pop("format") != FORMAT:
            raise ValueError("it is of another version of scoresde")
        law = given["law"]
        law["distances"] = torch.tensor(law["distances"], dtype=torch.float64)
        made: Certificate = read_as(cls, given, "content")
        scores, labels, found = made.scores, made.labels, made.indicator
        if not all(score >= 0 for score in scores) or not found.least >= 0 or not math.isfinite(found.offset):
            raise ValueError("an error, or its indicator, is no number that it can be")
        if len(labels) != len(scores) * (made.by is not None):
            raise ValueError("it has another number of labels than of errors")
        if made.identity.dtype not in map(str, FLOATS):
            raise ValueError("its dtype is none that states have")
        if len(found.slopes) != len(found.floors) or found.name not in INDICATORS:
            raise ValueError("its indicator is none that is known")
        return made.at(made.confidence, made.confidence_in_pilot)  # or an error

    def _calibrated(self, scores: Sequence[float]) -> CalibratedDraws:
        coverage = Coverage.of(len(scores), self.confidence, self.confidence_in_pilot)
        return CalibratedDraws(sorted(scores)[coverage.rank - 1], coverage)

    def _group(self, label: int) -> CalibratedDraws:
        if label not in self.groups:
            raise InvalidArgumentError(f"The pilot had no draws of the class {label}, so that nothing is known of it.")
        return self.groups[label]

    def _bound_to(self) -> tuple[Task, Norm]:
        if self._task is None or self._norm is None:
            raise InvalidArgumentError(
                "A certificate that was loaded does not have the network; give it by certificate.on(sde, score_fn, "
                "method, …)."
            )
        return self._task, self._norm

    def _full(self, task: Task, shape: Any, seeds: Any, noise: Any) -> tuple[int, ...]:
        count = len(check_seeds(seeds)) if seeds is not None else len(noise) if hasattr(noise, "__len__") else 1
        full = (count, *task.event) if shape is None else check_shape("shape", shape, rank=2)
        if full[1:] != task.event:
            raise InvalidArgumentError(f"The certificate was made for events of shape {task.event}, not {full[1:]}.")
        return full

    def _check_norm(self, norm: Norm) -> None:
        if norm.identity != self.norm_identity:
            what = "another function" if norm.name == self.norm else f"norm={self.norm!r}, not {norm.name!r}"
            raise InvalidArgumentError(f"The certificate was made for {what}.")

    def _check(self, task: Task, norm: Norm, context: Context, count: int) -> None:
        """Refuse a network or a norm that has changed, and another kind of context."""
        check_evaluating("score_fn", task.score_fn)
        self._check_norm(norm)
        self.identity.check(Identity.of(task, context, count, self.identity.stated, self.identity.context))


def _draws(task: Task, count: int, seed: int | None, seeds: Any, noise: Any) -> Callable[[], Noise]:
    """Makes sources that all have the requested draws."""
    given = [name for name, value in (("seed", seed), ("seeds", seeds), ("noise", noise)) if value is not None]
    if len(given) > 1:
        raise InvalidArgumentError(f"Give one of {' and '.join(f'`{name}`' for name in given)}.")
    if noise is not None:
        if not isinstance(noise, Noise) and callable(noise) and not task.stochastic:
            return lambda: CallableNoise(noise)
        check_kind("noise", noise, Noise, "a Noise, such as scoresde.BrownianPath")
        return lambda: noise if task.stochastic else copy.deepcopy(noise)
    if seeds is None:
        seed = int(torch.randint(2**62, (1,))) if seed is None else seed
        seeds = seeds_of(seed, count, FRESH)
    found = check_seeds(seeds)
    if len(found) != count:
        raise InvalidArgumentError(f"`seeds` must have one seed for each of the {count} samples, got {len(found)}.")
    return task.noise(found)


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"number"}:
            return float(value["number"])
        return {name: _from_json(part) for name, part in value.items()}
    return [_from_json(part) for part in value] if isinstance(value, list) else value
