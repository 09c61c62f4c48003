"""Noisy data on which a network is read in many ways, for `check_score`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..core.errors import InvalidArgumentError
from ..core.sdes import Node
from ..core.sdes.span import log_snr_range
from ..core.support.checks import check_output
from ..core.support.context import cut
from .fixed import check_sizes
from .model import ScoreModel
from .readings import INDEX, SHARES, Reading, Time, Units

_BATCH = 256  # rows of a call, at most
LOWEST = 0.02  # relative errors below this are equally good
_ALIKE = 0.005  # scales and times that differ by less are the same
_MOST_LABEL = 100_000  # of networks without a table
_SLACK = 1e-6


class ProbedNetwork(Protocol):
    """A network without its conventions.

    Attributes:
        labels: the largest integer that it takes as its time, None for one that takes other numbers.
        table: whether larger ones may be beyond the end of a table.
        module: itself, if it is one.
    """

    labels: int | None
    table: bool
    module: nn.Module | None

    def __call__(self, x: Tensor, time: Tensor, context: dict[str, Any]) -> Tensor: ...


class OfModel:
    """The network of a score model."""

    def __init__(self, model: ScoreModel) -> None:
        self.model = model
        self.labels: int | None = None if model.chain is None else int(model.chain.labels.max())
        self.module: nn.Module | None = model.net if isinstance(model.net, nn.Module) else None
        layers = [] if self.module is None else self.module.modules()
        self.table = any(isinstance(layer, nn.Embedding) for layer in layers)

    def __call__(self, x: Tensor, time: Tensor, context: dict[str, Any]) -> Tensor:
        model, dtype = self.model, self.model._dtype(x)
        given = time.to(dtype) if time.is_floating_point() else time
        check_sizes(model._sizes, x)
        out = model.net(x.to(dtype), given, **model._extra(x, context))
        return model._checked(out, x)[:, : x.shape[1]]


class OfFunction:
    """A score function."""

    labels: int | None = None
    table = False

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.module: nn.Module | None = function if isinstance(function, nn.Module) else None

    def __call__(self, x: Tensor, time: Tensor, context: dict[str, Any]) -> Tensor:
        return check_output("The score function", self.function(x, time.to(x.dtype), **context), x)


class ReadingErrors:
    """The errors of a reading, ``(levels, rows)``, relative to those of a Gaussian denoiser.

    Attributes:
        valid: the levels that the reading has.
        finite: the levels at which all of them are finite.
    """

    def __init__(self, values: Tensor, valid: Tensor) -> None:
        self.finite = torch.isfinite(values).all(1)
        self.values = torch.where(torch.isfinite(values), values, 1e12).clamp(max=1e12)
        self.valid = valid

    @property
    def relative(self) -> float:
        """The error, geometric mean over the levels."""
        return float((self.values[self.valid].mean(1) + LOWEST).log().mean().exp()) - LOWEST

    @property
    def rank(self) -> float:
        """The same over all levels, with the Gaussian denoiser's error where the reading has none."""
        means = torch.where(self.valid, self.values.mean(1), 1.0)
        return float((means + LOWEST).log().mean().exp()) - LOWEST

    def joined(self, other: ReadingErrors) -> ReadingErrors:
        """These errors and those of other rows."""
        return ReadingErrors(torch.cat([self.values, other.values], 1), self.valid)

    def gain(self, other: ReadingErrors) -> tuple[float, float]:
        """The logarithm of the ratio of this error to that of another reading of the same rows, and its standard
        error."""
        both = self.valid & other.valid
        if not bool(both.any()):
            return -math.inf, 0.0
        mine, its = self.values[both], other.values[both]
        means = mine.mean(1) + LOWEST, its.mean(1) + LOWEST
        share = (mine / means[0][:, None] - its / means[1][:, None]).mean(0)
        return float((means[0] / means[1]).log().mean()), float(share.std()) / math.sqrt(len(share))


class Place(NamedTuple):
    """What a network is given at each level.

    Fields: what the data and the noise are multiplied by, what it gets as its time, whether the reading has the level,
    the units of the data, and whether the network is called in evaluation mode.
    """

    data: Tensor
    noise: Tensor
    time: Tensor
    valid: Tensor
    units: Units
    evaluated: bool

    def numbers(self) -> Tensor:
        """What two places that a network can't distinguish share, times as shares of their range."""
        time = self.time.double()
        used = time[self.valid]
        size = max(float(used.max() - used.min()), 1e-3 * float(used.abs().max()), 1e-300)
        seen = torch.stack([self.data.log(), self.noise.log(), time / size])
        size_of_times = torch.tensor([math.log(size)], dtype=torch.float64)
        return torch.cat([torch.where(self.valid, seen, 0.0).flatten(), self.valid.double(), size_of_times])


class Sample:
    """Some rows of the data, each with noise at every level, and what the network returns for them.

    Args:
        network: see `ProbedNetwork`.
        data: of all rows.
        rows: which ones, ``(n,)``.
        lams: half of the log-SNRs, ``(levels,)``.
        base: the error of the Gaussian denoiser at each.
        context: one entry per row of the data.
        generator: of the noise.
    """

    def __init__(
        self,
        network: ProbedNetwork,
        data: Tensor,
        rows: Tensor,
        lams: Tensor,
        base: Tensor,
        context: dict[str, Any],
        generator: torch.Generator,
    ) -> None:
        self.network, self.data, self.lams, self.base = network, data[rows], lams, base
        self.mean = data.mean(0)
        shape = (len(lams), len(rows), *data.shape[1:])
        self.z = torch.randn(shape, generator=generator, dtype=data.dtype).to(data.device)
        self.context = cut(context, rows.repeat(len(lams)))
        self.order = torch.randperm(len(lams) * len(rows), generator=generator)
        self.nodes: dict[Any, tuple[Node[Tensor], Tensor]] = {}
        self.places: list[Place] = []
        self.numbers = torch.empty(0)
        self.known: dict[Any, int | None] = {}
        self.seen: dict[int, tuple[Tensor, Tensor] | None] = {}
        self.calls = 0

    def _node(self, reading: Reading) -> tuple[Node[Tensor], Tensor]:
        """The nodes of the levels on a reading's process, and which it has."""
        process, size = reading.process, reading.units.size
        if (process.code, size) not in self.nodes:
            log_snrs, (low, high) = 2 * (self.lams - math.log(size)), log_snr_range(process.sde)
            valid = (log_snrs >= low - _SLACK) & (log_snrs <= high + _SLACK)
            self.nodes[process.code, size] = process.nodes(log_snrs.clamp(low, high)), valid
        return self.nodes[process.code, size]

    def place(self, reading: Reading) -> int | None:
        """The number of the place that a reading has; None if the network has no such times, or the process too few of
        the levels. Places that a network can't distinguish have one number."""
        r = reading
        std = r.sigma_data if r.scale == "c_in" else None
        key = (r.process.code, r.time.name, r.scale, r.units.formula, r.evaluated, std)
        if key not in self.known:
            self.known[key] = self._placed(reading)
        return self.known[key]

    def _placed(self, reading: Reading) -> int | None:
        node, valid = self._node(reading)
        if 2 * int(valid.sum()) < len(valid):
            return None
        scale, time = reading.input_scale(node), torch.as_tensor(reading.time.read(node))
        if not bool(torch.isfinite(time[valid]).all()):
            return None
        share = float(time[valid].max()) <= SHARES and reading.time.expression != INDEX
        if self.network.labels is not None and not share:
            time = time.round()
            bounded = self.network.table or self.data.is_cuda  # where an index beyond a table ends the process
            most = self.network.labels if bounded else _MOST_LABEL
            if bool((time[valid] < 0).any()) or bool((time[valid] > most).any()):
                return None
            time = time.clamp(0, most).to(torch.int64)
        place = Place(scale * node.alpha, scale * node.sigma, time, valid, reading.units, reading.evaluated)
        numbers = place.numbers()
        for number in (
            ((self.numbers - numbers).abs().amax(1) <= _ALIKE).nonzero().flatten().tolist() if self.places else []
        ):
            if self.places[number].units is place.units and self.places[number].evaluated == place.evaluated:
                return int(number)
        self.places.append(place)
        self.numbers = torch.cat([self.numbers.reshape(-1, len(numbers)), numbers[None]])
        return len(self.places) - 1

    def own(self, reading: Reading) -> ReadingErrors:
        """The errors of the reading that is declared; what the network raises leaves."""
        errors = self.errors(reading, strict=True)
        if errors is None:
            raise InvalidArgumentError(f"`time_input` of the score function is not finite on {reading.process.sde!r}.")
        return errors

    def errors(self, reading: Reading, *, strict: bool = False, silent: bool = False) -> ReadingErrors | None:
        """The errors of a reading; None if the network does not take its input.

        ``silent`` puts zeros in place of the outputs.
        """
        number = self.place(reading)
        if number is None:
            return None
        if number not in self.seen:
            self.seen[number] = self._called(self.places[number], strict)
        seen = self.seen[number]
        if seen is None:
            return None
        return self._errors(reading, *seen, silent=silent)

    def _errors(self, reading: Reading, given: Tensor, out: Tensor, *, silent: bool = False) -> ReadingErrors:
        a, b, c = (self._column(w) for w in self.weights(reading))
        guess = a * given if silent else a * given + b * out + c
        error = (guess - self.z).flatten(2).to(torch.float64).square().mean(2)
        return ReadingErrors(error.cpu() / self.base[:, None], self._node(reading)[1])

    def exchanged(self, reading: Reading) -> tuple[ReadingErrors, ReadingErrors] | None:
        """The errors of a reading where every sample has the context of another, and how far that moves its guesses of
        the noise, in the same units; None if there is no context, or the network does not take it."""
        number, (levels, rows) = self.place(reading), self.z.shape[:2]
        if not self.context or number is None or self.errors(reading) is None:
            return None
        others = torch.arange(levels * rows).reshape(levels, rows).roll(1, 1).flatten()
        seen, known = self._beside(number, cut(self.context, others.to(self.z.device))), self.seen[number]
        if seen is None or known is None:
            return None
        moved = (self._column(self.weights(reading)[1]) * (seen[1] - known[1])).flatten(2).to(torch.float64)
        valid = self._node(reading)[1]
        return self._errors(reading, *seen), ReadingErrors(moved.square().mean(2).cpu() / self.base[:, None], valid)

    def relabelled(self, reading: Reading, by: int) -> ReadingErrors | None:
        """The errors of a reading with other integers in the context, in their order, of which the last is followed by
        the first; None if there are none."""
        number, integers = self.place(reading), (torch.int64, torch.int32)
        labels = {k: v for k, v in self.context.items() if isinstance(v, Tensor) and v.dtype in integers}
        if not labels or number is None:
            return None
        changed = {k: v.min() + (v - v.min() + by) % (v.max() - v.min() + 1) for k, v in labels.items()}
        seen = self._beside(number, self.context | changed)
        return None if seen is None else self._errors(reading, *seen)

    def _beside(self, number: int, context: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
        """What the network is given at a place, and returns, with another context."""
        own, self.context = self.context, context
        seen, self.context = self._called(self.places[number], strict=False), own
        return seen

    def alone(self, reading: Reading, levels: Sequence[int]) -> ReadingErrors | None:
        """The errors of a reading at some levels, where every call has one time."""
        number, (_, valid) = self.place(reading), self._node(reading)
        if number is None:
            return None
        mixed, rows = self.order, torch.arange(len(self.order)).unflatten(0, self.z.shape[:2])
        self.order = torch.cat([rows[level] for level in levels])
        seen, self.order = self._called(self.places[number], strict=False, size=rows.shape[1]), mixed
        if seen is None:
            return None
        asked = torch.zeros_like(valid).index_fill(0, torch.tensor(levels), True)
        return ReadingErrors(self._errors(reading, *seen).values, valid & asked)

    def gaussian(self) -> ReadingErrors:
        """The errors of the Gaussian denoiser itself on these rows."""
        ratio = self._column(self.base / (1 - self.base))  # the variance of the data over that of the noise
        spread, rho = (self.data - self.mean)[None], self._column((-self.lams).exp())
        error = ((spread - ratio * rho * self.z) / (rho * (1 + ratio))).flatten(2).to(torch.float64).square().mean(2)
        return ReadingErrors(error.cpu() / self.base[:, None], torch.ones(len(self.lams), dtype=torch.bool))

    def fitted(self, reading: Reading) -> tuple[ReadingErrors, Tensor]:
        """The errors of the best combination of input and output at every level, fitted to the other half of the rows,
        and how many times larger the output's weight is than the reading's, ``(levels,)``."""
        given, out = (v.flatten(2).to(torch.float64).cpu() for v in self._seen(reading))
        z = self.z.flatten(2).to(torch.float64).cpu()
        half, errors, sizes = z.shape[1] // 2, [], []
        for mine, other in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
            g, o, e = (v[:, other].flatten(1) for v in (given, out, z))
            gg, go, oo, ge, oe = ((p * q).sum(1) for p, q in ((g, g), (g, o), (o, o), (g, e), (o, e)))
            size = gg * oo - go**2  # of the normal equations
            a, b = (w[:, None, None] for w in ((ge * oo - oe * go) / size, (oe * gg - ge * go) / size))
            errors.append((a * given[:, mine] + b * out[:, mine] - z[:, mine]).square().mean(2))
            sizes.append(b.flatten() / self.weights(reading)[1])
        return ReadingErrors(torch.cat(errors, 1) / self.base[:, None], self._node(reading)[1]), torch.stack(
            sizes
        ).mean(0)

    def scaled(self, reading: Reading) -> ReadingErrors:
        """The errors of a reading with the output multiplied by one number, the best for the other half of the rows."""
        given, out = self._seen(reading)
        a, b, c = (self._column(w) for w in self.weights(reading))
        rest, part = (v.flatten(2).to(torch.float64) for v in (a * given + c - self.z, b * out))
        weights = 1 / ((rest + part).square().mean((1, 2), keepdim=True) + LOWEST)
        half, errors = rest.shape[1] // 2, []
        for mine, other in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
            factor = -(weights * rest[:, other] * part[:, other]).sum() / (weights * part[:, other].square()).sum()
            errors.append((rest[:, mine] + factor * part[:, mine]).square().mean(2).cpu())
        return ReadingErrors(torch.cat(errors, 1) / self.base[:, None], self._node(reading)[1])

    def best_times(self, reading: Reading, times: Tensor) -> Tensor | None:
        """The times at which the reading fits best, ``(levels,)``, among some in order ``(n,)`` and between them."""
        losses = []
        for time in times.tolist():
            errors = self.errors(replace(reading, time=Time(f"time {time!r}", "", _constant(time))))
            if errors is None:
                return None
            losses.append((errors.values.mean(1) + LOWEST).log())
        loss = torch.stack(losses)
        middle = loss.argmin(0).clamp(1, len(times) - 2)
        below, here, above = (loss.gather(0, (middle + k)[None])[0] for k in (-1, 0, 1))
        bend = (below - 2 * here + above).clamp(min=1e-9)
        shift = (0.5 * (below - above) / bend).clamp(-1, 1)
        places = middle + shift
        low = places.floor().clamp(max=len(times) - 2).long()
        return times[low] + (times[low + 1] - times[low]) * (places - low)

    def _seen(self, reading: Reading) -> tuple[Tensor, Tensor]:
        """What the network was given for a reading, and returned."""
        seen = self.seen.get(-1 if (number := self.place(reading)) is None else number)
        if seen is None:
            raise InvalidArgumentError(f"The network does not take the times of {reading.process.sde!r}.")
        return seen

    def weights(self, reading: Reading) -> Tensor:
        """The noise as a combination of what the network is given, its output, and 1, ``(3, levels)``."""
        node, _ = self._node(reading)
        a, b, c = reading.noise_weights(node)
        return torch.stack([a / reading.input_scale(node), b, c])

    def _column(self, values: Tensor) -> Tensor:
        return values.to(self.z.device, self.z.dtype).reshape(-1, *[1] * (self.z.ndim - 1))

    def _called(self, place: Place, strict: bool, size: int = _BATCH) -> tuple[Tensor, Tensor] | None:
        """What the network is given at a place and what it returns."""
        clean = place.units.change(self.data)
        x = self._column(place.data) * clean + self._column(place.noise) * self.z
        time = place.time.to(x.device).repeat_interleave(x.shape[1])
        flat = x.flatten(0, 1)
        out = torch.zeros_like(flat)
        for rows in self.order.to(x.device).split(size):  # so that every call has times of all levels
            self.calls += 1
            try:
                with kept(self.network.module, place.evaluated):
                    out[rows] = self.network(flat[rows], time[rows], cut(self.context, rows)).to(x.dtype)
            except Exception:
                if strict:
                    raise
                return None  # a time or an input that the network does not take
        return x, out.unflatten(0, x.shape[:2])


def _constant(time: float) -> Callable[[Node[Tensor]], Tensor]:
    return lambda node: torch.full_like(node.t, time)


@contextlib.contextmanager
def kept(module: nn.Module | None, evaluated: bool) -> Iterator[None]:
    """A module that is afterwards as it was: its mode, which ``evaluated`` changes, and the running statistics that a
    call in training mode changes."""
    training = [] if module is None else [part for part in module.modules() if part.training]
    buffers = [(buffer, buffer.clone()) for part in training for buffer in part.buffers(recurse=False)]
    for part in training:
        part.training = not evaluated
    try:
        yield
    finally:
        for part in training:
            part.training = True
        for buffer, values in buffers:
            buffer.copy_(values)
