"""The parts of a sampler that do not depend on the network: the prior, the steps, and the time at which they end."""

from __future__ import annotations

import math

import torch

from ...core.sdes import NormalPrior
from ...core.support.intervals import Interval
from ...core.support.tensors import row_finite
from ...tuning.energy import energy
from ...tuning.pilot import distances
from ..law import Law
from .base import MATTERS, Repair, Rung, certain, number
from .subject import Subject, finite, rms, rms_of_finite

_ERRORS = 1.96
_SIGNAL = 0.2  # over the noise at t_max: far more than any process leaves that is meant to end in noise
_TMIN = 21  # a purpose of seeds


class Prior(Repair):
    r"""States at ``t_max`` that are made of data, in place of the prior.

    The total variation distance of the samples is at most that at ``t_max``, which is at most
    :math:`\tfrac12\sqrt{\chi^2}`; only where this bound is large, samples from both starts are compared.
    """

    name = "prior"
    remedy = (
        "Take a process with a smaller alpha(t_max), or the prior of scoresde.trust.advise(data).prior(sde), which has "
        "the mean of the data."
    )

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        sde = subject.task.sde
        alpha, signal = float(sde.alpha(sde.t_max)), math.exp(0.5 * float(sde.log_snr(sde.t_max))) * subject.unit
        coupled = alpha * rms(subject.data.x)
        details = {
            "alpha(t_max)": alpha,
            "signal over noise at t_max": signal,
            "same-noise distance at t_max (upper bound)": coupled,
        }
        bound, low, high, floor = 1.0, 1.0, 1.0, 0.0  # of what is not known
        if isinstance(sde.prior, NormalPrior) and subject.begun is None:
            laws = subject.ends
            details["chi2"] = laws.chi2
            bound = laws.tv
            low, high = (_tv(laws.chi2 + sign * _ERRORS * laws.error) for sign in (-1, 1))
            floor = _tv(_ERRORS * laws.error)
        interval = Interval(bound, low, high, subject.confidence, "asymptotic")
        finding = (
            f"The prior is at most {number(bound)} from the states at t_max (total variation), and so are the samples."
        )
        if high <= MATTERS:
            return self.found(
                interval, floor, finding, kind="upper bound", unit="total variation", remedy="", details=details
            )
        what = "the prior" if subject.begun is None else "`x`"
        far = subject.far(subject.samples("loose", score=subject.bare), finite_start(subject))
        details["distance of samples from the prior and from noised data"] = far.value
        ends = signal > _SIGNAL and (low > MATTERS or bound == 1)  # in signal, and the prior is another distribution
        matters = (far.seen and subject.large(far.value)) or ends
        found = f"are {number(far.value)} from those that start from noised data"
        if ends:
            found += f"; at t_max the data are still {number(signal)} times as large as the noise"
        finding = (
            f"{what[0].upper()}{what[1:]} may be {number(bound)} from the states at t={sde.t_max:.4g} (total "
            f"variation), and samples that start from it {found}."
        )
        return self.found(
            interval, floor, finding, kind="upper bound", unit="total variation", matters=matters,
            size=max(far.value if far.seen else 0.0, MATTERS * subject.unit * ends), details=details,
            remedy=None if subject.begun is None else "Draw `x` from the distribution of the states at its time.",
        )  # fmt: skip


def finite_start(subject: Subject) -> torch.Tensor:
    """Exact samples of the network alone from noised data."""
    return finite(subject.samples("loose", score=subject.bare, start="data"))


def _tv(chi2: float) -> float:
    return min(1.0, 0.5 * math.sqrt(max(0.0, chi2)))


class Steps(Repair):
    """Exact integration in place of the method, of the same draws."""

    name = "steps"
    remedy = "Take more steps, a method of a higher order, or tuned ones (scoresde.tune)."

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        given = subject.samples("method")
        tight = subject.samples()
        finite(tight)
        good = row_finite(tight)
        both = good & row_finite(given)
        lost = int((good & ~both).sum())
        if not subject.coupled:
            return self._of_law(subject, given[both], tight[both])
        gap = rms_of_finite(tight, subject.samples("loose"))
        law = Law(distances(given[good], tight[good]), subject.unit, subject.confidence)
        distance = law.wasserstein()
        between = energy(given[both], tight[both])
        details = {
            "prokhorov (upper bound, in standard deviations)": law.prokhorov,
            "energy distance": between.value,
            "its error": between.error,
        }
        matters = max(0.0, distance.low - gap) > MATTERS * subject.unit and subject.large(distance.value)
        shift, laws = _shift(between.value, tight[both], subject.unit), ""
        explained = math.sqrt(max(0.0, subject.total.sliced.square - subject.remaining.sliced.square))
        size = min(distance.value, max(shift, explained))
        if subject.task.stochastic:  # the distributions may be close where the paths are not
            size = min(distance.value, shift)
            laws = f"; the energy distance of the two distributions is that of a shift by {number(shift)}"
            # what is beyond chance with the method, and is not without it, is due to the method
            due = subject.total.seen and not subject.remaining.seen and between.value > 0
            matters = matters and (due or between.value > 3 * between.error) and subject.large(size)
        if lost > MATTERS * len(given):
            matters, size = True, math.inf
        failed = f"; {lost} of {len(given)} draws failed" if lost else ""
        finding = (
            f"Samples of the method are {number(distance.value)} from those of exact integration, RMS over the same "
            f"draws{failed}{laws}."
        )
        return self.found(distance, gap, finding, kind="asymptotic", matters=matters, size=size, details=details)

    def _of_law(self, subject: Subject, given: torch.Tensor, tight: torch.Tensor) -> Rung:
        """Of a method without a strong order: only the distributions can be compared."""
        between = energy(given, tight)
        errors = {k: _shift(between.value + k * between.error, tight, subject.unit) for k in (-2, 0, 2)}
        finding = (
            f"The energy distance of the method's samples to the exact probability flow is that of a shift by "
            f"{number(errors[0])}."
        )
        return self.found(
            Interval(errors[0], errors[-2], errors[2], 0.95, "asymptotic"),
            _shift(3 * between.error, tight, subject.unit),
            finding,
            matters=between.value > 3 * between.error and subject.large(errors[0]),
            size=errors[0],
            details={"energy distance": between.value, "its error": between.error},
        )


def _shift(energy_distance: float, y: torch.Tensor, unit: float) -> float:
    r"""The shift per element that has an energy distance, :math:`D^2 \approx \|\delta\|^2E\|Y-Y'\|/2D\sigma^2`."""
    spread = float(torch.pdist(y[:512].to(torch.float64).flatten(1)).mean())
    return unit * math.sqrt(max(0.0, 2 * energy_distance / spread)) if spread > 0 else 0.0


class End(Repair):
    r"""A smaller ``t_min``, or a last step to the data.

    With :math:`x_0` coupled to :math:`\alpha x_0 + \sigma\varepsilon`, the 2-Wasserstein distance of the states at the
    end to the data is at most :math:`\sqrt{(1-\alpha)^2E\|x_0\|^2 + \sigma^2D}`; after a step to the data estimate it
    is at most :math:`(E\|\hat x-x_0\|^2)^{1/2}`, whatever the network. Both bounds are far from sharp for smooth data;
    without the last step, the RMS length of that step is an estimate of what it would change.
    """

    name = "t_min"
    remedy = "End at a smaller t_min (or t_end), or end with a step to the data (denoise=True)."

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        node = subject.task.sde.node(subject.t_end)
        rows = subject.some(subject.held_out, subject.pilot, _TMIN)
        x0 = rows.x.to("cpu", torch.float64)
        bound = math.hypot((1 - node.alpha) * rms(x0), node.sigma)
        details = {"alpha": node.alpha, "sigma": node.sigma, "noise left (upper bound)": bound}
        limit = MATTERS * subject.unit
        if bound <= limit:
            return self._rung(subject, bound, bound, "upper bound", False, details, "noise of the last time")
        state = subject.noised(x0, subject.t_end, _TMIN)
        times = torch.full((len(state),), subject.t_end, dtype=torch.float64)
        data, _ = subject.estimate(state, times, rows.context, subject.bare)
        details["error of the data estimate (upper bound with denoise=True)"] = rms(data - x0)
        if subject.denoised:
            far = subject.far(data, subject.compared)
            matters = far.seen and subject.large(far.value)
            size = far.value if far.seen else 0.0
            return self._rung(subject, rms(data - x0), size, "upper bound", matters, details, "last step to the data")
        effect = min(bound, rms(data - state))
        matters = subject.large(effect)
        return self._rung(subject, effect, effect, "estimate", matters, details, "noise of the last time")

    def _rung(
        self,
        subject: Subject,
        value: float,
        size: float,
        kind: str,
        matters: bool,
        details: dict[str, float],
        what: str,
    ) -> Rung:
        most = "at most " if kind == "upper bound" else "about "
        finding = f"The {what} leaves samples {most}{number(value)} from the data."
        if not value:
            finding = "No noise is left at the end."
        distance = certain(value, subject.confidence)
        return self.found(distance, 0.0, finding, kind=kind, matters=matters, size=size, details=details)
