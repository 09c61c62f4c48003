"""Data in another range than those that the network was trained on, and limits of the data estimate."""

from __future__ import annotations

import functools

from torch import Tensor

from ..conformal import errors_to
from .base import CLEAR, Repair, Rung, certain, mean_interval, number
from .denoising import Denoised, Gap, errors_of
from .subject import Far, Subject, finite, rms
from .unwrapped import with_sigma_data
from .wrappers import Clipping

_SHIFT, _STRETCH = 1.0, 1.5  # of the data's standard deviation: what another range changes at least
_LEFT = 0.15  # of it: the distance that another range may leave, unless chance reaches more
_IMAGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # ranges of images
_FILLED, _OUTSIDE = 0.9, 0.01  # of a range: what data of it fill at least, and what they leave it by at most
_BETTER = 0.5  # of the errors beyond those of the best linear denoiser: what the right range leaves at most


class OtherRange:
    """Whether samples that are shifted and stretched by one number each have the distribution of the data, because the
    network was trained on data in another range, or because the scale in its preconditioning is wrong.

    Args:
        subject: the sampler.
        denoised: its denoising errors.
    """

    def __init__(self, subject: Subject, denoised: Denoised) -> None:
        self.subject, self.denoised = subject, denoised

    @functools.cached_property
    def samples(self) -> Tensor:
        """Exact samples without guidance and limits."""
        return finite(self.subject.samples("loose", score=self.subject.bare))

    @property
    def mean(self) -> float:
        """Of the samples."""
        return float(self.samples.mean())

    @property
    def stretch(self) -> float:
        """Their standard deviation, in those of the data."""
        return float(self.samples.std() / self.subject.compared.std())

    @functools.cached_property
    def far(self) -> Far:
        """How far they are from the data."""
        subject = self.subject
        same = subject.bare is None and not subject.denoised
        return subject.remaining if same else subject.far(self.samples, subject.compared)

    @functools.cached_property
    def left(self) -> Far | None:
        """How far they are after shifting and stretching; None where their range is not another one."""
        subject, y = self.subject, self.subject.compared
        shifted = abs(self.mean - float(y.mean())) > _SHIFT * subject.unit
        apart = shifted or not 1 / _STRETCH < self.stretch < _STRETCH
        if not (apart and self.far.seen and subject.large(self.far.value)):
            return None
        return subject.far((self.samples - self.mean) / self.stretch + y.mean(), y)

    @functools.cached_property
    def fits(self) -> bool:
        """Whether the network denoises data in the range of the samples, whose distribution is that of the data: it is
        near it, or as near as chance lets it be, and much nearer than before, or the network denoises such data better
        than any linear denoiser."""
        of, left = self.denoised, self.left
        if left is None or not of.worse or self.moved[0].worse:
            return False
        nearer = left.value <= 0.5 * self.far.value
        by_chance = not left.seen and left.value <= left.sliced.floor
        if by_chance:
            return nearer or self.moved[0].nats.high < 0
        return nearer and left.value <= _LEFT * self.subject.unit

    @functools.cached_property
    def images(self) -> tuple[float, float] | None:
        """The range in which the network denoises images far better than in that of the data; None where there is none,
        or the data do not fill one of `_IMAGES`. It needs no samples, and is seen for a network of any quality."""
        of, x = self.denoised, self.subject.data.x
        low, high = float(x.min()), float(x.max())
        own = [
            (a, b)
            for a, b in _IMAGES
            if max(a - low, high - b) <= _OUTSIDE * (b - a) and high - low >= _FILLED * (b - a)
        ]
        if not own or not of.worse:
            return None
        (a, b), mean, now = own[0], float(self.subject.compared.mean()), of.nats(of.held - of.linear)
        found: dict[float, tuple[float, float]] = {}
        for low, high in _IMAGES:
            stretch = (high - low) / (b - a)
            rows = of.moved(low + (mean - a) * stretch, stretch)[1]
            gain = mean_interval(_BETTER * now - rows, self.subject.confidence)
            if (low, high) != (a, b) and gain.low > 0:
                found[float(rows.mean())] = low, high
        return found[min(found)] if found else None

    @functools.cached_property
    def sigma_data(self) -> float | None:
        r"""The ``sigma_data`` with which a network with EDM's preconditioning denoises the data no worse than the best
        linear denoiser, and better, beyond chance, than with its own. Where samples have the distribution of the data
        in another range, one of the two explains it, and it is this one if the network denoises better with it than it
        denoises data in that range. None where there is none.

        With :math:`c_{in}y` the same, a network whose ``sigma_data`` is too small by a factor is one of data that are
        smaller by it, but for its input for the noise level.
        """
        if self.left is None:
            return None
        subject, of = self.subject, self.denoised
        found = with_sigma_data(subject.bare or subject.score, 1 / self.stretch)
        if found is None:
            return None
        score, value = found
        errors = errors_of(subject, of.states, score)
        now = self.moved[1] if self.fits else of.nats(of.held - of.linear)
        gain = mean_interval(now - of.nats(errors - of.linear), subject.confidence)
        error = (gain.high - gain.value) / errors_to(subject.confidence)
        worse = Gap.of(of.levels, errors, of.linear, subject.confidence).worse
        return value if gain.value > (0.0 if self.fits else CLEAR * error) and not worse else None

    @functools.cached_property
    def moved(self) -> tuple[Gap, Tensor]:
        """How the network denoises data in the range of its samples; see `Denoised.moved`."""
        return self.denoised.moved(self.mean, self.stretch)


class Range(Repair):
    """Limits of the data estimate, and data in another range than those that the network was trained on: samples that
    are shifted and stretched by one number each have the distribution of the data, and the network denoises data that
    are brought into the range of the samples."""

    name = "range"
    remedy = "Scale the data as for training; for images, look whether they are in [0, 1] or [-1, 1]."

    def __init__(self, other: OtherRange) -> None:
        self.other = other

    def try_on(self, subject: Subject) -> Rung:
        """See `Repair.try_on`."""
        clipped = Clipping().try_on(subject)
        if clipped.matters:
            return clipped
        scale = self._scale(subject)
        return scale if scale.matters or not clipped.applies else clipped

    def _scale(self, subject: Subject) -> Rung:
        other, x, y = self.other, self.other.samples, subject.compared
        low, high = float(subject.data.x.min()), float(subject.data.x.max())
        beyond = (x - x.clamp(low, high)).abs()
        share = float((beyond > 0).double().mean())
        details = {
            "elements outside the range of the data": share,
            "by, RMS": rms(beyond),
            "mean": other.mean,
            "standard deviation": float(x.std()),
            "mean of the data": float(y.mean()),
            "standard deviation of the data": float(y.std()),
        }
        if other.left is not None:
            details["distance after shifting and stretching"] = other.left.value
        matters = (other.fits or other.images is not None) and other.sigma_data is None
        text = ""
        if other.images is not None:
            text = " The network denoises images in [{:g}, {:g}] far better than those in the range of the data."
            text = text.format(*other.images)
        finding = (
            f"Samples have the mean {number(other.mean)} and the standard deviation {number(float(x.std()))}, the data "
            f"{number(float(y.mean()))} and {number(float(y.std()))}; {share:.1%} of the samples' elements are outside "
            f"the range of the data, by {number(rms(beyond))} RMS over all of them.{text}"
        )
        size = max(other.far.value, subject.of_network.value) if matters else 0.0
        return self.found(
            certain(rms(beyond), subject.confidence), 0.0, finding, matters=matters, size=size, details=details,
            explains=("network", "high noise"),
        )  # fmt: skip
