"""The network: its law, its denoising errors, its labels, its range, and copies of its training data."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import torch
from torch import Tensor

from ...sdes import NormalPrior
from ..law import Interval
from ..two_samples import Nearest, classifier_test, nearest
from .base import MATTERS, SHARE, Repair, Rung, mean_interval
from .denoising import Levels, Linear, States, errors_of, isotropic_errors, levels_of
from .subject import Rows, Subject, finite, rms
from .wrappers import Clipping

_TRAIN, _HELD, _SHUFFLED = 31, 32, 33  # purposes of seeds
_CLEAR = 3.0  # standard errors
_TV = 0.1  # of the classifier's bound
_SHIFT, _STRETCH = 1.0, 1.5  # of the data's standard deviation: what another range changes at least
_LEFT = 0.15  # of it: the distance that another range may leave


class Denoised:
    """The denoising errors of a network on training data and on held-out data, made once per diagnosis."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @functools.cached_property
    def levels(self) -> Levels:
        """The noise levels."""
        return levels_of(self.subject.task.sde, self.subject.t_end, self.subject.unit)

    @functools.cached_property
    def rows(self) -> Rows:
        """The held-out data that are used, or training data where there are none."""
        return self.subject.some(self.subject.held_out, self.subject.pilot, _HELD)

    @functools.cached_property
    def states(self) -> States:
        """Of these."""
        return States.of(self.subject, self.rows, self.levels, _HELD)

    @functools.cached_property
    def held(self) -> Tensor:
        """Their errors, ``(n, levels)``."""
        return errors_of(self.subject, self.states, self.subject.bare)

    @functools.cached_property
    def known(self) -> States:
        """Of training data."""
        rows = self.subject.some(self.subject.data, self.subject.pilot, _TRAIN)
        return States.of(self.subject, rows, self.levels, _TRAIN)

    @functools.cached_property
    def train(self) -> Tensor:
        """Their errors, ``(n, levels)``."""
        return errors_of(self.subject, self.known, self.subject.bare)

    def beyond(self, errors: Tensor, states: States) -> Interval:
        """The mean, in nats, of errors less those of an isotropic denoiser, which have the same chance."""
        x, sde = self.subject.data.x, self.subject.task.sde
        plain = isotropic_errors(sde, states, float(x.mean()), float(x.std()))
        return mean_interval(self.nats(errors - plain).tolist(), self.subject.confidence)

    @functools.cached_property
    def linear(self) -> Tensor:
        """The errors of the best linear denoiser on the held-out data."""
        return Linear(self.subject.data.x).errors(self.subject.task.sde, self.states)

    def nats(self, errors: Tensor) -> Tensor:
        """Per row, summed over the levels."""
        return errors @ self.levels.weights


class Network(Repair):
    """Exact integration of the network alone, from states with the right distribution, against data with the noise of
    the last time: what remains is the network's.

    With an exact score, the distance is the Kullback-Leibler divergence of the reverse SDE's law,
    :math:`KL \\le KL(p_T\\|\\pi) + \\int E\\|\\hat\\varepsilon_\\theta-\\hat\\varepsilon\\|^2d\\lambda`.
    """

    name = "network"
    remedy = "Train the network further, or take a larger one."

    def __init__(self, denoised: Denoised) -> None:
        self.denoised = denoised

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        of, far = self.denoised, subject.of_network
        x = finite(subject.samples("loose", score=subject.bare, start="data", denoise=False))
        y = subject.noised(subject.compared, subject.t_end, _HELD)
        found = classifier_test(x, y, level=subject.level, seed=subject.seed)
        half = subject.compared.split(len(subject.compared) // 2)[:2]
        floor = subject.far(*half).sliced
        gap = mean_interval(of.nats(of.held - of.linear).tolist(), subject.confidence)
        error = 0.5 * (gap.high - gap.low) / _errors(subject.confidence)
        linear = float(of.nats(of.linear).mean())
        worse = not math.isfinite(gap.value) or (gap.value > _CLEAR * error and gap.value > SHARE * linear)
        levels = int((of.held.mean(0) > of.linear.mean(0)).sum())
        details = {
            "total variation (lower bound, classifier)": found.total_variation,
            "energy distance": far.energy.value,
            "its p-value": far.energy.p_value,
            "distance of halves of the data": floor.value,
            "denoising error less that of the best linear denoiser, nats": gap.value,
            "levels at which it is larger": float(levels),
        }
        strays, beyond, chance = _strays(x, subject)
        details["samples farther out than all data"] = float(strays)
        details["by, RMS"] = beyond
        stray = chance <= 1 - subject.level and subject.large(beyond)
        matters = (far.seen and subject.large(far.value)) or found.total_variation > _TV or worse or stray
        text = f"With exact integration from the right states, samples are {far.value:.3g} from held-out data"
        distance, kind, unit = far.interval, "estimate", "data"
        if subject.exact is not None:
            distance, kind, unit = self._divergence(subject), "exact", "nats"
            details["prior, nats (upper bound)"] = _prior(subject)
            matters = matters or distance.low > SHARE * subject.data.x[0].numel()
            matters = matters and distance.high > 2 * MATTERS**2  # below it the total variation is no larger than 5 %
            text += f", and its divergence from the exact score is {distance.value:.3g} nats"
        if worse:
            text += (
                f"; it denoises worse than the best linear denoiser, at {levels} of {len(of.levels.lam)} noise levels"
            )
        if stray:
            text += f"; {strays} of {len(x)} are farther from the mean than all data, which adds {beyond:.3g} RMS"
        size = max(far.value, beyond * stray) if far.seen or matters else 0.0
        floors = far.sliced.floor if unit == "data" else 0.0
        return Rung(self.name, distance, floors, kind, unit, matters, size, f"{text}.", self.remedy, details)

    def _divergence(self, subject: Subject) -> Interval:
        of = self.denoised
        exact = subject.estimate(of.states.x, of.states.times, of.states.context, subject.exact)
        data, noise = subject.estimate(of.states.x, of.states.times, of.states.context, subject.bare)
        errors = of.states.errors(subject.task.sde, data, noise, exact)
        found = mean_interval(of.nats(errors).tolist(), subject.confidence)
        return replace(found, low=max(0.0, found.low))


def _errors(confidence: float) -> float:
    """How many standard errors an interval has on either side."""
    from scipy.special import ndtri  # takes long to import

    return float(ndtri(0.5 + confidence / 2))


def _strays(x: Tensor, subject: Subject) -> tuple[int, float, float]:
    """The number s of samples that are farther from the mean of the data than all N data, how much farther, RMS per
    element of all n samples, and the probability that the s largest of n + N distances belong to samples by chance,
    which is below :math:`(n/(n+N))^s`."""
    data = subject.noised(torch.cat([subject.data.x, subject.held_out.x]).to("cpu"), subject.t_end, _TRAIN)
    if not subject.held:
        data = data[: len(subject.data.x)]
    centre = data.mean(0)
    distances, limit = ((v - centre).flatten(1).norm(dim=1) for v in (x, data))
    beyond = (distances - limit.max()).clamp_min(0.0)
    strays = int((beyond > 0).sum())
    return strays, rms(beyond) / math.sqrt(x[0].numel()), (len(x) / (len(x) + len(data))) ** strays


def _prior(subject: Subject) -> float:
    """An upper bound of KL(p_T || prior)."""
    if not isinstance(subject.task.sde.prior, NormalPrior):
        return math.inf
    return math.log1p(max(0.0, subject.ends.chi2))


class Overfitting(Repair):
    """Denoising errors of held-out data against those of training data, over all noise levels."""

    name = "overfitting"
    remedy = "Train for fewer steps, or with more data, dropout or augmentation."

    def __init__(self, denoised: Denoised) -> None:
        self.denoised = denoised

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        if not subject.held:
            return self.missing("There are no held-out data; pass `held_out`.")
        of = self.denoised
        held, train = of.beyond(of.held, of.states), of.beyond(of.train, of.known)
        whole = float(of.nats(of.held).mean())
        value = held.value - train.value
        half = math.hypot(held.high - held.value, train.high - train.value)
        error = half / _errors(subject.confidence)
        matters = math.isfinite(value) and value > _CLEAR * error and value > SHARE * whole
        size = subject.of_network.value if subject.of_network.seen else 0.0
        return Rung(
            self.name,
            Interval(value, value - half, value + half, subject.confidence, "asymptotic"),
            _CLEAR * error,
            "estimate",
            "nats",
            matters,
            size,
            f"The denoising error of held-out data is {value:.3g} nats larger than that of training data, of "
            f"{whole:.3g}.",
            self.remedy,
            {"held-out": whole, "training": float(of.nats(of.train).mean())},
            ("network",),
        )


class Labels(Repair):
    """Denoising errors with the right labels against those with shuffled ones. What there is to gain is measured by
    linear denoisers, with the mean of each class and with the mean of all."""

    name = "labels"
    remedy = "Look whether the labels were trained with, in the same order, and are passed to the network."

    def __init__(self, denoised: Denoised) -> None:
        self.denoised = denoised

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        of = self.denoised
        count = len(of.rows.x)
        name = next((k for k, v in of.rows.context.items() if _labels(v, count)), None)
        known = None if name is None else subject.data.context.get(name)
        if name is None or not isinstance(known, Tensor):
            return self.missing("There is no context with a label for each row of the data.")
        right, known = of.rows.context[name].cpu().long(), known.cpu().long()
        if not bool(torch.isin(right, known).all()) or len(known.unique()) < 2:
            return self.missing("The labels of the held-out data are not those of the training data.")
        wrong = right[torch.randperm(count, generator=subject.generator(_SHUFFLED))]
        given = of.rows.context[name]
        k = len(of.levels.lam)
        shuffled = errors_of(subject, of.states, subject.bare, **{name: wrong.to(given).repeat(k)})
        gain = mean_interval(of.nats(shuffled - of.held).tolist(), subject.confidence)
        linear = Linear(subject.data.x, known)
        sde = subject.task.sde
        differences = linear.errors(sde, of.states, wrong) - linear.errors(sde, of.states, right)
        possible = mean_interval(of.nats(differences).tolist(), subject.confidence)
        informative = possible.low > 0
        matters = informative and gain.high < SHARE * possible.low
        means = linear.means[torch.searchsorted(linear.classes, known)]
        size = rms(means - means.mean(0))
        return Rung(
            self.name,
            gain,
            0.0,
            "estimate",
            "nats",
            matters,
            size if matters else 0.0,
            f"The right labels lower the denoising error by {gain.value:.3g} nats against shuffled ones, and that of a "
            f"linear denoiser by {possible.value:.3g}.",
            self.remedy,
            {"gain of a linear denoiser": possible.value, "distance of the classes' means": size},
        )


def _labels(value: object, count: int) -> bool:
    whole = isinstance(value, Tensor) and not value.is_floating_point() and value.dtype != torch.bool
    return whole and isinstance(value, Tensor) and value.shape == (count,)


class Memorisation(Repair):
    r"""Distances of samples to their nearest training data, against those of held-out data.

    Samples that are more alike than data are, such as those of few steps, are near to all data. Therefore they must
    also be nearer to the N training data than to the m held-out data: if nothing is copied, the nearest of all N + m
    rows is one of the training data with the probability N/(N + m), and with :math:`c_j` the number of samples whose
    nearest row is j, the number of these samples has the variance of random labels of the rows,
    :math:`Nm\sum_j(c_j-\bar c)^2/(N+m)(N+m-1)`.
    """

    name = "memorisation"
    remedy = "Train for fewer steps, or with more data, and remove copies from the data."

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        x = finite(subject.samples())
        data = subject.data.x.to("cpu", torch.float64)
        held = subject.held_out.x.to("cpu", torch.float64) if subject.held else None
        found = nearest(x, data, held, level=subject.level)
        nearer = found.value > 0.5 + SHARE or found.share > found.expected + SHARE
        pulled, excess = (True, math.nan) if held is None else _pull(x, data, held, found, subject)
        size = subject.of_network.value if subject.of_network.seen else 0.0
        closest = float(found.distances.median()) / math.sqrt(x[0].numel())
        return Rung(
            self.name,
            Interval(found.value, *found.interval, found.level, "asymptotic"),
            found.floor,
            "estimate",
            "probability",
            found.memorised and nearer and pulled,
            size,
            f"A sample is nearer to the training data than held-out data are with a probability of {found.value:.2g}, "
            f"and {found.share:.0%} are nearer than {found.expected:.0%} of held-out data.",
            self.remedy,
            {"share": found.share, "expected": found.expected, "median distance": closest, "pull": excess},
            ("network",),
        )


def _pull(x: Tensor, data: Tensor, held: Tensor, found: Nearest, subject: Subject) -> tuple[bool, float]:
    """Whether samples are nearer to the training data than to held-out data, and the share of those that are only
    because the data were used."""
    other = nearest(x, held, data, level=subject.level)
    to_data = found.distances < other.distances
    n, m = len(data), len(held)
    expected = n / (n + m)
    nearest_row = torch.where(to_data, found.indices, n + other.indices)
    counts = torch.bincount(nearest_row, minlength=n + m).to(torch.float64)
    variance = n * m / ((n + m) * (n + m - 1)) * float((counts - counts.mean()).square().sum())
    more = float(to_data.sum()) - expected * len(x)
    pulled = more > _errors(2 * subject.level - 1) * math.sqrt(variance)
    return pulled, more / len(x) / (1 - expected)


class Range(Repair):
    """Limits of the data estimate, and data in another range than those that the network was trained on: samples that
    are shifted and stretched by one number each have the distribution of the data."""

    name = "range"
    remedy = "Scale the data as for training; for images, look whether they are in [0, 1] or [-1, 1]."

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        clipped = Clipping().try_on(subject)
        if clipped.matters:
            return clipped
        scale = self._scale(subject)
        return scale if scale.matters or not clipped.applies else clipped

    def _scale(self, subject: Subject) -> Rung:
        x, y = finite(subject.samples("loose", score=subject.bare)), subject.compared
        low, high = float(subject.data.x.min()), float(subject.data.x.max())
        beyond = (x - x.clamp(low, high)).abs()
        shift, stretch = float(x.mean() - y.mean()), float(x.std() / y.std())
        details = {
            "elements outside the range of the data": float((beyond > 0).double().mean()),
            "by, RMS": rms(beyond),
            "mean": float(x.mean()),
            "standard deviation": float(x.std()),
            "mean of the data": float(y.mean()),
            "standard deviation of the data": float(y.std()),
        }
        far, size, matters = subject.remaining, 0.0, False
        if subject.bare is not None or subject.denoised:
            far = subject.far(x, y)
        apart = abs(shift) > _SHIFT * subject.unit or not 1 / _STRETCH < stretch < _STRETCH
        if apart and far.seen and subject.large(far.value):
            moved = (x - x.mean()) / stretch + y.mean()
            left = subject.far(moved, y)
            details["distance after shifting and stretching"] = left.value
            matters = left.value < _LEFT * subject.unit and left.value < 0.5 * far.value
            size = max(far.value, subject.of_network.value)
        return Rung(
            self.name,
            Interval(rms(beyond), rms(beyond), rms(beyond), subject.confidence, "exact"),
            0.0,
            "estimate",
            "data",
            matters,
            size,
            f"Samples have the mean {float(x.mean()):.3g} and the standard deviation {float(x.std()):.3g}, the data "
            f"{float(y.mean()):.3g} and {float(y.std()):.3g}; {details['elements outside the range of the data']:.1%} "
            f"of the samples' elements are outside the range of the data, by {rms(beyond):.3g} RMS.",
            self.remedy,
            details,
            ("network",),
        )
