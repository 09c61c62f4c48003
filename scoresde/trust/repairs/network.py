"""The network: its distribution, its denoising errors, its labels, and copies of its training data."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ...core.sdes import NormalPrior
from ...core.support.intervals import Interval
from ...core.support.tensors import row_finite
from ..conformal import errors_to
from ..two_samples import Nearest, classifier_test, nearest
from .base import CLEAR, MATTERS, SHARE, Repair, Rung, mean_interval, number
from .denoising import HELD, TRAIN, Denoised, Gap, Linear, errors_of
from .ranges import OtherRange
from .subject import Far, Subject, finite, repeated, rms, varies

_SHUFFLED = 33  # a purpose of seeds
_TV = 0.1  # of the classifier's bound
_FOREIGN, _SURE = 0.5, 0.99  # of what the error must rise by, and the confidence that it rises by less


class NetworkRepair(Repair):
    """Exact integration of the network alone, from states with the right distribution, against data with the noise of
    the last time: what remains is the network's.

    With an exact score, the distance is the Kullback-Leibler divergence of the reverse SDE's distribution,
    :math:`KL \\le KL(p_T\\|\\pi) + \\int E\\|\\hat\\varepsilon_\\theta-\\hat\\varepsilon\\|^2d\\lambda`.
    """

    name = "network"
    remedy = "Train the network further, or take a larger one."

    def __init__(self, denoised: Denoised, other: OtherRange) -> None:
        self.denoised, self.other = denoised, other

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        of, far = self.denoised, subject.of_network
        x = finite(subject.samples("loose", score=subject.bare, start="data", denoise=False))
        y = subject.noised(subject.compared, subject.t_end, HELD)
        found = classifier_test(x, y, level=subject.level, seed=subject.seed)
        half = subject.compared.split(len(subject.compared) // 2)[:2]
        floor = subject.far(*half).sliced
        gap = Gap.of(of.levels, of.held, of.linear, subject.confidence)
        details = {
            "total variation (lower bound, classifier)": found.total_variation,
            "energy distance": far.energy.value,
            "its p-value": far.energy.p_value,
            "distance of halves of the data": floor.value,
            "denoising error less that of the best linear denoiser, nats": gap.nats.value,
            "levels at which it is larger": float(gap.levels),
        }
        strays, beyond, chance = _strays(x, subject)
        details["samples farther out than all data"] = float(strays)
        details["by, RMS"] = beyond
        stray = chance <= 1 - subject.level and subject.large(beyond)
        matters = (far.seen and subject.large(far.value)) or found.total_variation > _TV or gap.worse or stray
        text = f"With exact integration from the right states, {_away(far)}"
        distance, kind, unit = far.interval, "estimate", "data"
        if subject.exact is not None:
            distance, kind, unit = self._divergence(subject), "exact", "nats"
            details["prior, nats (upper bound)"] = _prior(subject)
            matters = matters or distance.low > SHARE * subject.data.x[0].numel()
            matters = matters and distance.high > 2 * MATTERS**2  # below it the total variation is no larger than 5 %
            text += f", and the divergence of the network is {number(distance.value)} nats"
        if gap.worse:
            where = f"{gap.levels} of {len(of.levels.lam)} noise levels"
            text += f"; the network denoises worse than the best linear denoiser, at {where}"
        if stray:
            text += (
                f"; {strays} of {len(x)} samples are farther from the mean than all data, by {number(beyond)} RMS over "
                "all samples"
            )
        broken, failed = ~of.held.isfinite().all(1), ~row_finite(subject.samples())
        if bool(broken.any()) or bool(failed.any()):
            text = (
                f"The network returns values that are not finite for {int(broken.sum())} of {len(broken)} noised data, "
                f"and {int(failed.sum())} of {len(failed)} draws fail. Of the others: {text[0].lower()}{text[1:]}"
            )
        better, remedy = self.other.sigma_data, self.remedy
        if better is not None:
            text += f"; with sigma_data={number(better)}, it denoises held-out data better than with its own"
            remedy = "Give ScoreModel the sigma_data that the network was trained with."
            matters = True
        size = max(far.value, beyond * stray) if far.seen or matters else 0.0
        if max(float(broken.double().mean()), float(failed.double().mean())) > MATTERS:
            matters, size = True, math.inf
            remedy = "Examine the network with scoresde.check_score; it may overflow, or divide by zero."
        floors = far.sliced.floor if unit == "data" else 0.0
        return self.found(
            distance, floors, f"{text}.", kind=kind, unit=unit, matters=matters, size=size, details=details,
            remedy=remedy,
        )  # fmt: skip

    def _divergence(self, subject: Subject) -> Interval:
        of = self.denoised
        exact = subject.estimate(of.states.x, of.states.times, of.states.context, subject.exact)
        data, noise = subject.estimate(of.states.x, of.states.times, of.states.context, subject.bare)
        errors = of.states.errors(subject.task.sde, data, noise, exact)
        found = mean_interval(of.nats(errors).tolist(), subject.confidence)
        return replace(found, low=max(0.0, found.low))


def _away(far: Far) -> str:
    """Where samples are, in the middle of a sentence."""
    value, chance = number(far.value), number(far.sliced.floor)
    if not far.seen:
        return f"samples cannot be distinguished from held-out data ({value}, where chance reaches {chance})"
    return f"samples are {value} from held-out data, where chance reaches {chance}"


def _strays(x: Tensor, subject: Subject) -> tuple[int, float, float]:
    """The number s of samples that are farther from the mean of the data than all N data, how much farther, RMS per
    element of all n samples, and the probability that the s largest of n + N distances belong to samples by chance,
    which is below :math:`(n/(n+N))^s`."""
    data = subject.noised(torch.cat([subject.data.x, subject.held_out.x]).to("cpu"), subject.t_end, TRAIN)
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
        error = half / errors_to(subject.confidence)
        matters = math.isfinite(value) and value > CLEAR * error and value > SHARE * whole
        size = subject.of_network.value if subject.of_network.seen else 0.0
        finding = (
            f"The denoising error of held-out data is {number(whole)} nats, {number(abs(value))} "
            f"{'more' if value > 0 else 'less'} than that of training data ({abs(value) / whole:.1%}). It counts from "
            f"{CLEAR:.0f} standard errors ({number(CLEAR * error)}) and {SHARE:.0%} on."
        )
        interval = Interval(value, value - half, value + half, subject.confidence, "asymptotic")
        details = {"held-out": whole, "training": float(of.nats(of.train).mean())}
        return self.found(
            interval, CLEAR * error, finding, unit="nats", matters=matters, size=size, details=details,
            explains=("network",),
        )  # fmt: skip


class LabelRepair(Repair):
    """Denoising errors with the right labels or observations against those with shuffled ones.

    What there is to gain by labels is measured by linear denoisers, with the mean of each class and with the mean of
    all. And where a network has learned the mean of the noise given the state and the context, the mean squared error
    rises by exactly the mean square of what another context moves its estimates by: where it rises by less than
    half of that, the contexts are not those of the data.
    """

    name = "labels"
    remedy = "Look whether each row has its own label or observation, those that the network was trained with."

    def __init__(self, denoised: Denoised) -> None:
        self.denoised = denoised

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        of = self.denoised
        count = len(of.rows.x)
        given = {k: v for k, v in of.rows.context.items() if varies(v, count)}
        if not given:
            return self.missing("There is no context with a row for each row of the data.")
        foreign = self._foreign(subject, given)
        if foreign.matters:
            return foreign
        name = next((k for k, v in given.items() if _labels(v, count)), None)
        known = None if name is None else subject.data.context.get(name)
        if name is None or not isinstance(known, Tensor):
            return foreign
        right, known = of.rows.context[name].cpu().long(), known.cpu().long()
        if not bool(torch.isin(right, known).all()) or len(known.unique()) < 2:
            return self.missing("The labels of the held-out data are not those of the training data.")
        wrong = right[torch.randperm(count, generator=subject.generator(_SHUFFLED))]
        k = len(of.levels.lam)
        shuffled = errors_of(subject, of.states, subject.bare, **{name: wrong.to(given[name]).repeat(k)})
        gain = mean_interval(of.nats(shuffled - of.held).tolist(), subject.confidence)
        linear = Linear(subject.data.x, known)
        sde = subject.task.sde
        differences = linear.errors(sde, of.states, wrong) - linear.errors(sde, of.states, right)
        possible = mean_interval(of.nats(differences).tolist(), subject.confidence)
        informative = possible.low > 0
        matters = informative and gain.high < SHARE * possible.low
        means = linear.means[torch.searchsorted(linear.classes, known)]
        apart = rms(means - means.mean(0))
        finding = (
            f"With the right labels in place of shuffled ones, the denoising error "
            f"{f'falls by {number(gain.value)} nats' if gain.low > 0 else 'does not fall beyond chance'}, and that of "
            f"a linear denoiser by {number(possible.value)}."
            + ("" if informative else " These labels say too little of these rows for a test.")
        )
        details = {"gain of a linear denoiser": possible.value, "distance of the classes' means": apart}
        size = apart if matters else 0.0
        return self.found(gain, 0.0, finding, unit="nats", matters=matters, size=size, details=details)

    def _foreign(self, subject: Subject, given: dict[str, Tensor]) -> Rung:
        """Whether the estimates depend on the context, and are as good with that of other rows."""
        of, sde = self.denoised, subject.task.sde
        k, order = len(of.levels.lam), torch.randperm(len(of.rows.x), generator=subject.generator(_SHUFFLED))
        other = repeated({n: v[order.to(v.device)] for n, v in given.items()}, k, len(order))
        right, shuffled = (
            subject.estimate(of.states.x, of.states.times, {**of.states.context, **context}, subject.bare)
            for context in ({}, other)
        )
        rises = of.nats(of.states.errors(sde, *shuffled) - of.held)
        moves = of.nats(of.states.errors(sde, *shuffled, like=right))
        rise, moved = (mean_interval(values, subject.confidence) for values in (rises, moves))
        missing = mean_interval(_FOREIGN * moves - rises, _SURE)
        matters = missing.low > 0 and moved.value > SHARE * float(of.nats(of.held).mean())
        finding = (
            f"With the context of other rows the denoising error rises by {number(rise.value)} nats, and would by "
            f"{number(moved.value)} where the contexts are those of the data."
        )
        size, explains = subject.of_network.value if matters else 0.0, ("network", "overfitting")
        return self.found(rise, 0.0, finding, unit="nats", matters=matters, size=size, explains=explains)


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
        finding = (
            f"A sample is nearer to the training data than held-out data are with a probability of {found.value:.2g}, "
            f"and {found.share:.0%} of samples are as near as the nearest {found.expected:.0%} of held-out data."
        )
        interval = Interval(found.value, *found.interval, found.level, "asymptotic")
        matters = found.memorised and nearer and pulled
        details = {"share": found.share, "expected": found.expected, "median distance": closest, "pull": excess}
        return self.found(
            interval, found.floor, finding, unit="probability", matters=matters, size=size, details=details,
            explains=("network",),
        )  # fmt: skip


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
    pulled = more > errors_to(2 * subject.level - 1) * math.sqrt(variance)
    return pulled, more / len(x) / (1 - expected)
