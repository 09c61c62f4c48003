r"""What a network may expect and return: the readings among which `check_score` finds the one that fits.

A reading is how a noisy state becomes the network's input, which number the network gets as its time, what its output
means, and in which units the data are. Two readings are compared at the same log-SNR of the same data, where denoising
is the same task, so their errors are comparable whatever the processes.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.sdes import EDMSDE, VDMSDE, VESDE, VPSDE, AffineSDE, CosineVPSDE, FlowSDE, Node, SigmoidVPSDE, SubVPSDE
from ..discrete import BetaChain
from .model import TIME_INPUTS, ScoreModel
from .predictions import PREDICTIONS, edm_size

_VP = VPSDE()
Read = Callable[[Node[Tensor]], Tensor]


class KnownProcess(NamedTuple):
    """A process, the code that makes it, and that of the chain of 1000 levels which it belongs to; of a variance
    preserving one whose own is slow, its time as a function of the log-SNR."""

    code: str
    sde: AffineSDE
    inverse: Callable[[Tensor], Tensor] | None = None
    chain: str = ""

    def nodes(self, log_snr: Tensor) -> Node[Tensor]:
        """The nodes of log-SNRs."""
        if self.inverse is None:
            return self.sde.nodes(self.sde.time(log_snr))
        node, unknown = _VP.nodes(_VP.time(log_snr)), torch.full_like(log_snr, math.nan)
        return node._replace(t=self.inverse(log_snr), dalpha=unknown, dsigma=unknown)


class Time(NamedTuple):
    """What the network gets as its time at a node, under a name, as an expression in t."""

    name: str
    expression: str
    read: Read

    @property
    def code(self) -> str:
        """The argument ``time_input``."""
        if self.expression in _DECLARED:
            return _DECLARED[self.expression]
        known = next((repr(name) for name, read in TIME_INPUTS.items() if read is self.read), None)
        return f"lambda t: {self.expression}" if known is None else known


class Units(NamedTuple):
    """Data in other units: the formula, the map, the size of its linear part, and what it changes."""

    formula: str
    change: Callable[[Tensor], Tensor]
    size: float = 1.0
    kind: str = "data range"


class Factor(NamedTuple):
    """What the output is multiplied by before it is read, the code of it, and what is added then."""

    code: str
    of: Callable[[Node[Tensor]], Any]
    shift: float = 0.0


_COMMON = ((-1, 2), (0, 1), (0, 255))  # ranges of images: the least value, and the width
INDEX = "chain.label(sde.log_snr(t))"
_DECLARED = {INDEX: "'index', chain=chain", "declared(t)": "declared"}  # times of a model, and the arguments for them
_MOST_BETA, _MOST_SIGMA = 150.0, 1e4  # of a process whose alpha single precision has, and of one without
_LEAST = 14.0  # minus the logarithm of the least of either
SHARES = 2.0  # times up to this are no labels of a chain, but shares of an interval
_CHANGED = 0.05  # of the data's spread: by how much other units must move the data
AS_GIVEN = Units("x0", lambda x: x, 1.0)
ONCE = Factor("", lambda n: 1.0)
_SIGN = Factor("-", lambda n: -1.0)
# Factors that a wrapping can have once too often or too little.
_PLAIN_FACTORS = (
    Factor("sigma * ", lambda n: n.sigma),
    Factor("1 / sigma * ", lambda n: 1 / n.sigma),
    Factor("alpha * ", lambda n: n.alpha),
    Factor("1 / alpha * ", lambda n: 1 / n.alpha),
    Factor("sigma**2 * ", lambda n: n.sigma**2),
    Factor("1 / sigma**2 * ", lambda n: n.sigma**-2),
    Factor("alpha / sigma * ", lambda n: n.alpha / n.sigma),
    Factor("sigma / alpha * ", lambda n: n.sigma / n.alpha),
    Factor("2 * ", lambda n: 2.0),
    Factor("1 / 2 * ", lambda n: 0.5),
)


def _minus(factor: Factor) -> Factor:
    return Factor(f"-{factor.code}", lambda n: -factor.of(n))


_FACTORS = (*_PLAIN_FACTORS, *map(_minus, _PLAIN_FACTORS))
# Ranges that a network may return data in.
_RANGES = (Factor("2 * ", lambda n: 2.0, -1.0), Factor("1 / 2 * ", lambda n: 0.5, 0.5))


@dataclass(frozen=True)
class Reading:
    """One reading of a network.

    Attributes:
        process: which :math:`\\alpha` and :math:`\\sigma` belong to.
        prediction: what the output is, a name of `PREDICTIONS`.
        time: what the network gets as its time.
        scale: what the network gets as its state: ``"x"``, ``"x/alpha"``, or ``"c_in"`` for EDM's.
        units: those of the data.
        factor: of the output.
        sigma_data: of EDM's preconditioning.
        evaluated: whether the network is called in evaluation mode.
        variance: what the second half of its channels is for, as it is declared.
    """

    process: KnownProcess
    prediction: str
    time: Time
    scale: str = "x"
    units: Units = AS_GIVEN
    factor: Factor = ONCE
    sigma_data: float = 0.5
    evaluated: bool = False
    variance: str | None = None

    def input_scale(self, node: Node[Tensor]) -> Tensor:
        """What the state is multiplied by."""
        if self.scale == "c_in":
            return torch.as_tensor(edm_size(node, self.sigma_data)) ** -0.5
        return 1 / node.alpha if self.scale == "x/alpha" else torch.ones_like(node.alpha)

    @functools.cached_property
    def last_time(self) -> float:
        """What the network gets as its time at t_max."""
        sde = self.process.sde
        return float(self.time.read(sde.nodes(torch.tensor([sde.t_max], dtype=torch.float64))))

    def noise_weights(self, node: Node[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """a, b and c of the noise a x + b output + c, at nodes ``(n,)``."""
        a, b = PREDICTIONS[self.prediction].noise(node, self.sigma_data)
        ones = torch.ones_like(node.alpha)
        return a * ones, b * self.factor.of(node) * ones, b * self.factor.shift * ones

    def changes(self, other: Reading) -> list[str]:
        """The names of what another reading changes; see `ScoreReport.convention`."""
        differ = []
        if other.process is not self.process:
            differ.append(f"process {other.process.code}")
        if (other.prediction, other.factor) != (self.prediction, self.factor):
            differ.append(other._output(self))
        clocks = ("time t", "time in [0, 1]", *(["time in [0, 1000]"] if self.time.expression == INDEX else []))
        own_clock = other.process is not self.process and (
            other.time.name in clocks or math.isclose(other.last_time, self.last_time, rel_tol=0.01)
        )
        if other.time.name != self.time.name and not own_clock:
            differ.append(other.time.name)
        if (other.scale == "c_in") != (other.prediction == "edm"):
            differ.append("input x c_in" if other.scale == "c_in" else "c_in twice")
        elif other.scale != self.scale and "c_in" not in (other.scale, self.scale):
            differ.append(f"input {other.scale}")
        if other.prediction == self.prediction == "edm" and other.sigma_data != self.sigma_data:
            differ.append("sigma_data")
        if other.units is not self.units:
            differ.append(other.units.kind)
        if other.evaluated != self.evaluated:
            differ.append("evaluation mode")
        return differ

    def size(self, other: Reading) -> int:
        """How much another reading changes: the number of its changes, twice where the output differs in two ways."""
        changes = self.changes(other)
        flow = other.prediction == "flow" and {"sign", "reversed time"} <= set(
            changes
        )  # one that runs from noise to data
        return len(changes) - flow + sum(name.startswith("minus ") or " from " in name for name in changes)

    def _output(self, declared: Reading) -> str:
        """The name of what the output is."""
        if self.factor is ONCE:
            return self.prediction
        if self.factor in _RANGES:
            return f"{self.prediction} in another range"
        if self.factor is not _SIGN:
            meaning = "" if self.prediction == declared.prediction else f"{self.prediction} from "
            return f"{meaning}output x {self.factor.code.removesuffix(' * ')}".replace("output x -", "minus output x ")
        if self.prediction == declared.prediction:
            return "sign"
        return (
            "missing sigma"
            if (self.prediction, declared.prediction) == ("noise", "score")
            else (f"minus {self.prediction}")
        )

    def change(self, declared: Reading) -> str:
        """What to write instead of the declared reading."""
        sentences = []
        if self._wraps_otherwise(declared):
            sentences.append(f"Write {self._line(declared)}.")
            if self.scale != "c_in" and self.prediction == "edm":
                sentences.append("The network multiplies its input by c_in, as ScoreModel does: leave that out of it.")
        if self.units is not declared.units:
            sentences.append(
                f"The data are not as the network takes them: for the data given, x0, it takes {self.units.formula}."
            )
        if self.evaluated != declared.evaluated:
            sentences.append("The network is in training mode: call net.eval() first.")
        return " ".join(sentences)

    def other(self, declared: Reading) -> str:
        """What differs, for a reading that is as good as the declared one; it follows "with"."""
        parts = []
        if self._wraps_otherwise(declared):
            parts.append(self._line(declared))
        if self.units is not declared.units:
            parts.append(f"{self.units.formula} in place of the data x0")
        if self.evaluated != declared.evaluated:
            parts.append("the network in evaluation mode")
        return " and ".join(parts)

    def _wraps_otherwise(self, declared: Reading) -> bool:
        return replace(self, units=declared.units, evaluated=declared.evaluated) != declared

    def _line(self, declared: Reading) -> str:
        """The line that wraps the network so, and what its names mean."""
        code, where = self.code(declared), []
        if "lambda x" in code:
            where.append("net is what is wrapped now")
        if "declared" in code:
            where.append("declared is the time_input that it has now")
        if "chain=chain" in code and self.process is not declared.process:
            where.append(f"chain is {self.process.chain}")
        if "scaled" in code:
            inner = self._wrapped()
            levels = ", alpha and sigma those of each sample's time" * bool(re.search("alpha|sigma", inner))
            where.append(f"scaled(x, t) is {inner}, net what is wrapped now{levels}")
        return f"{code}{', where ' if where else ''}{' and '.join(where)}"

    def _wrapped(self) -> str:
        """The network's call, with what no argument of `ScoreModel` says."""
        scaled = self.scale == "c_in" and self.prediction != "edm"
        spread = "alpha**2" if self.sigma_data == 1 else f"alpha**2 * {self.sigma_data:.4g}**2"
        state = f"x * ({spread} + sigma**2)**-0.5" if scaled else "x"
        return f"{self.factor.code}net({state}, t){_added(self.factor.shift)}"

    def code(self, declared: Reading) -> str:
        """The line that wraps the network so, which is wrapped as declared now."""
        short = {"net(x, t)": "net", "-net(x, t)": "lambda x, t, **context: -net(x, t, **context)"}
        parts = [short.get(self._wrapped(), "scaled"), self.process.code, f"prediction={self.prediction!r}"]
        if declared.time.expression == INDEX and self.process.chain and self.time.name == "time in [0, 1000]":
            parts[1:] = ["chain.sde()", *parts[2:], f"time_input={_DECLARED[INDEX]}"]
        elif self.time.code != repr("edm" if self.prediction == "edm" else "t"):
            parts.append(f"time_input={self._time_code(declared)}")
        if self.scale == "x/alpha" and self.prediction != "edm":
            parts.append('input_scale="x/alpha"')
        if self.prediction == "edm":
            parts.append(f"sigma_data={self.sigma_data:.4g}")
        if self.variance is not None:
            parts.append(f"variance={self.variance!r}")
        return f"ScoreModel({', '.join(parts)})"

    def _time_code(self, declared: Reading) -> str:
        """The argument ``time_input``; a network of a chain gets the integers that it gets now."""
        code = self.time.code
        integers = declared.time.expression == INDEX and not code.startswith("'")
        if not integers or self.last_time <= SHARES:
            return code
        label = f"{self.time.expression} - 1" if self.time.expression.endswith(" * t") else self.time.expression
        return f"lambda t: ({label}).round().clamp(min=0).long()"


def _added(number: float) -> str:
    """The addition of a number, in code."""
    return f" {'-' if number < 0 else '+'} {abs(number):.4g}" if number else ""


def _reversed(read: Read, sde: AffineSDE) -> Read:
    return lambda n: read(sde.nodes(sde.t_max + sde.t_min - n.t))


def _times(read: Read, factor: float) -> Read:
    return lambda n: factor * read(n)


def _shifted(read: Read, by: int) -> Read:
    return lambda n: (read(n) + by).clamp(min=0)  # the cleanest level has no earlier one


_EXPRESSIONS = {
    "t": "t",
    "sigma": "sde.sigma(t)",
    "rho": "(-0.5 * sde.log_snr(t)).exp()",
    "log_snr": "sde.log_snr(t)",
    "edm": "-0.125 * sde.log_snr(t)",
}
_NAMED = {
    **{name: Time(f"time {name}", _EXPRESSIONS[name], read) for name, read in TIME_INPUTS.items()},
    "gamma": Time("time -log_snr", "-sde.log_snr(t)", lambda n: -2 * n.lam),
    "variance": Time("time sigma**2", "sde.sigma(t) ** 2", lambda n: n.sigma**2),
    "log_rho": Time("time ln rho", "-0.5 * sde.log_snr(t)", lambda n: -n.lam),
    "log10_rho": Time("time log10 rho", "-0.5 * sde.log_snr(t) / math.log(10)", lambda n: -n.lam / math.log(10)),
}


def _scaled_linear() -> KnownProcess:
    """The process of latent diffusion."""
    chain = BetaChain(torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2)
    known, places = -chain.log_snrs.numpy(), chain.times.numpy()
    code = "scoresde.discrete.BetaChain(torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)"
    return KnownProcess(
        f"{code}.sde()",
        chain.sde(),
        lambda log_snr: torch.from_numpy(np.interp(-log_snr.numpy(), known, places)),
        code,
    )


@functools.cache
def _processes() -> tuple[tuple[KnownProcess, float], ...]:
    """Processes that networks are trained on, and the length of their clocks."""
    return (
        (KnownProcess("scoresde.VPSDE()", _VP, chain="scoresde.discrete.BetaChain.linear()"), 1.0),
        (
            KnownProcess("scoresde.VPSDE(1e-6, 32.0)", VPSDE(1e-6, 32.0)),
            1.0,
        ),  # of networks of posteriors, as is the next
        (KnownProcess("scoresde.VPSDE(0.01, 10.0)", VPSDE(0.01, 10.0)), 1.0),
        (KnownProcess("scoresde.CosineVPSDE()", CosineVPSDE(), chain="scoresde.discrete.BetaChain.cosine()"), 1.0),
        (_scaled_linear(), 1000.0),
        (KnownProcess("scoresde.SigmoidVPSDE()", SigmoidVPSDE()), 1.0),
        (KnownProcess("scoresde.SubVPSDE()", SubVPSDE()), 1.0),
        (KnownProcess("scoresde.FlowSDE()", FlowSDE()), 1.0),
        (KnownProcess("scoresde.VESDE()", VESDE()), 1.0),
        (KnownProcess("scoresde.VDMSDE()", VDMSDE(), lambda log_snr: (13.3 - log_snr) / 18.3), 1.0),
    )


_EDM = KnownProcess("scoresde.EDMSDE()", EDMSDE())


def _clock(name: str, factor: float) -> Time:
    """The time of a process, multiplied."""
    if factor == 1.0:
        return Time(name, "t", TIME_INPUTS["t"])
    return Time(name, f"{factor:.4g} * t" if factor > 1 else f"t / {1 / factor:.4g}", lambda n: factor * n.t)


def _own_times(declared: Reading) -> Iterator[Time]:
    """Other numbers that the network may expect as its time, on the declared process."""
    time, sde = declared.time, declared.process.sde
    back = Time(
        "reversed time",
        re.sub(r"\(t\)|\bt\b", "(sde.t_max + sde.t_min - t)", time.expression),
        _reversed(time.read, sde),
    )
    if time.expression == INDEX:
        for by in (1, -1):
            yield Time(f"label {by:+d}", f"{INDEX} {'+-'[by < 0]} 1", _shifted(time.read, by))
    for factor in (1000, 10, 4, 2):
        yield Time(f"time / {factor}", f"{time.expression} / {factor}", _times(time.read, 1 / factor))
        yield Time(f"time x {factor}", f"{factor} * {time.expression}", _times(time.read, factor))
    yield back
    yield Time("reversed time x 1000", f"1000 * {back.expression}", _times(back.read, 1000))
    yield from _NAMED.values()


def _other_processes(declared: Reading) -> Iterator[Reading]:
    """Readings on other processes, with the time that is declared or a position in [0, 1] or [0, 1000]."""
    for process, length in _processes():
        unit, thousand = _clock("time in [0, 1]", 1 / length), _clock("time in [0, 1000]", 1000 / length)
        clocks = [unit, thousand]
        if isinstance(process.sde, FlowSDE):
            clocks += [
                Time(f"reversed {clock.name}", expression, _reversed(clock.read, process.sde))
                for clock, expression in ((unit, "1 - t"), (thousand, "1000 * (1 - t)"))
            ]
        for time in (*clocks, declared.time) if declared.time in _NAMED.values() else clocks:
            yield replace(declared, process=process, time=time, scale="x")
    for time in _NAMED.values():
        yield replace(declared, process=_EDM, time=time, scale="x")


class Family(NamedTuple):
    """Processes with two parameters, whose clock has a length.

    Fields: the code and the class of each, the parameters, by their logarithms, that fit measured times best, and the
    length of the clock.
    """

    code: str
    make: Callable[[float, float], AffineSDE]
    numbers: tuple[float, float]
    length: float

    @classmethod
    def of(cls, declared: Reading, log_snrs: Tensor, times: Tensor, length: float) -> Family:
        """Of `VESDE` if the declared process has no alpha, else of `VPSDE`, near measured times.

        Args:
            declared: the reading but for the times.
            log_snrs: falling, ``(n,)``.
            times: what the network gets at them.
            length: of the clock.
        """
        sde, place = declared.process.sde, times.numpy() / length
        exploding = float(sde.log_snr(sde.t_max)) == -2 * math.log(float(sde.sigma(sde.t_max)))
        if exploding:  # ln sigma is linear in time
            powers, size = np.stack([np.ones_like(place), place], 1), -0.5 * log_snrs.numpy()
            (low, slope), *_ = np.linalg.lstsq(powers, size, rcond=None)
            found, first = (low, low + slope), (math.log(0.01), math.log(50.0))
        else:  # -ln alpha^2 is the integral of beta
            size = np.logaddexp(0.0, -log_snrs.numpy())
            powers = np.stack([place, 0.5 * place**2], 1) / size[:, None]
            (low, slope), *_ = np.linalg.lstsq(powers, np.ones_like(size), rcond=None)
            high = max(low + slope, 0.1)
            found, first = (math.log(min(max(low, 0.03), 0.9 * high)), math.log(high)), (math.log(0.1), math.log(20.0))
        numbers = (float(found[0]), float(found[1])) if all(map(math.isfinite, found)) and slope > 0 else first
        name, make = ("VESDE", VESDE) if exploding else ("VPSDE", VPSDE)
        return cls(f"scoresde.{name}", make, numbers, length)

    def reading(self, declared: Reading) -> Reading | None:
        """The declared reading on the process, None where there is none with these parameters."""
        most = math.log(_MOST_BETA if self.make is VPSDE else _MOST_SIGMA)
        if not -_LEAST < min(self.numbers) <= max(self.numbers) < most:
            return None
        low, high = (float(f"{math.exp(number):.3g}") for number in self.numbers)
        if not 0 < low < high:
            return None
        process = KnownProcess(f"{self.code}({low:g}, {high:g})", self.make(low, high))
        name = "time in [0, 1]" if self.length == 1 else "time in [0, 1000]"
        return replace(declared, process=process, time=_clock(name, self.length), scale="x")

    def around(self, step: float) -> list[Family]:
        """Those whose parameters differ by a step or none (the smaller beta by two), and the middle."""
        (low, high), far = self.numbers, 2 if self.make is VPSDE else 1
        return [self._replace(numbers=(low + i * step, high + j * step)) for i in (0, -far, far) for j in (0, -1, 1)]


def with_times(declared: Reading, log_snrs: Tensor, times: Tensor) -> Reading:
    """The reading with measured times, as a curve through them.

    Args:
        declared: the reading but for the times.
        log_snrs: falling, ``(n,)``.
        times: what the network gets at them.
    """
    known, values = -log_snrs.numpy(), times.numpy()
    rounded = [f"{v:.4g}" for v in values]
    name = f"time {', '.join(rounded)} at the log-SNRs {', '.join(f'{v:.3g}' for v in log_snrs.tolist())}"

    def read(node: Node[Tensor]) -> Tensor:
        return torch.from_numpy(np.interp(-2 * node.lam.numpy(), known, values))

    places = ", ".join(f"{v:.4g}" for v in reversed(log_snrs.tolist()))
    code = f"torch.from_numpy(numpy.interp(sde.log_snr(t), [{places}], [{', '.join(reversed(rounded))}])).to(t)"
    return replace(declared, time=Time(name, code, read))


def units(data: Tensor) -> list[Units]:
    """Units that the data may have to be in.

    Example:
        >>> [change.formula for change in units(torch.rand(4, 2))][:2]
        ['(x0 + 1) / 2', '2 x0 - 1']
    """
    wide = data.to(torch.float64)
    mean, std = float(wide.mean()), max(float(wide.std(correction=0)), 1e-6)
    means, stds = data.mean(0), data.std(0, correction=0)
    stds = torch.where(stds > 1e-5 * data.abs().amax(0), stds, std)  # but of entries that are constant
    least, width = float(wide.min()), max(float(wide.max() - wide.min()), 1e-6)
    centred = f"x0{_added(-mean)}"
    found = [
        Units("(x0 + 1) / 2", lambda x: (x + 1) / 2, 0.5),
        Units("2 x0 - 1", lambda x: 2 * x - 1, 2.0),
        Units("x0 / 255", lambda x: x / 255, 1 / 255),
        Units("x0 / 127.5 - 1", lambda x: x / 127.5 - 1, 1 / 127.5),
        Units("255 x0", lambda x: 255 * x, 255.0),
        Units("127.5 (x0 + 1)", lambda x: 127.5 * (x + 1), 127.5),
        Units("x0 / 2", lambda x: x / 2, 0.5),
        Units("2 x0", lambda x: 2 * x, 2.0),
        Units("x0 - 0.5", lambda x: x - 0.5, 1.0),
        Units("x0 + 0.5", lambda x: x + 0.5, 1.0),
        Units("x0 / 255 - 0.5", lambda x: x / 255 - 0.5, 1 / 255),
        Units(f"x0 / {std:.4g}, the data's standard deviation", lambda x: x / std, 1 / std),
        Units(f"({centred}) / {std:.4g}, standardised", lambda x: (x - mean) / std, 1 / std),
        Units("0.18215 x0", lambda x: 0.18215 * x, 0.18215),
        Units("-x0", lambda x: -x, kind="sign of the data"),
        Units("1 - x0", lambda x: 1 - x, kind="sign of the data"),
        Units(f"{centred}, centred", lambda x: x - mean),
    ]
    if not any(abs(least - low) + abs(width - size) < 0.05 * size for low, size in _COMMON):
        for scale, shift in ((2, -1.0), (1, 0.0), (1, -0.5)):
            formula = f"{'2 ' * (scale == 2)}(x0{_added(-least)}) / {width:.4g}{_added(shift)}"
            ends = f"which takes the data's extremes to {shift:g} and {scale + shift:g}"
            found.append(Units(f"{formula}, {ends}", _scaled(least, width / scale, shift), scale / width))
    if data.ndim == 2:
        formula, size = "(x0 - mean) / std of every dimension", 1 / float(stds.square().mean().sqrt())
        found.append(Units(formula, lambda x: (x - means) / stds, size))
        found.append(Units("x0 with its entries reversed", lambda x: x.flip(1), kind="order of the entries"))
    if data.ndim == 4:
        found.append(Units("x0 upside down", lambda x: x.flip(2), kind="orientation"))
        found.append(Units("x0 mirrored", lambda x: x.flip(3), kind="orientation"))
    if data.ndim == 4 and data.shape[2] == data.shape[3]:
        found.append(Units("x0 with rows and columns exchanged", lambda x: x.transpose(2, 3), kind="orientation"))
    if data.ndim == 4 and data.shape[1] == 3:
        found.append(Units("x0 with its channels reversed", lambda x: x.flip(1), kind="channel order"))
    some = data[:64]
    return [u for u in found if u.kind != "data range" or _moved(some, u) > _CHANGED * std]


def _moved(data: Tensor, unit: Units) -> float:
    return float((unit.change(data) - data).abs().max())


def _scaled(least: float, width: float, shift: float) -> Callable[[Tensor], Tensor]:
    return lambda x: (x - least) / width + shift


def places(declared: Reading, data: Tensor) -> list[Reading]:
    """Other readings of what goes in, the plainest first: what the network is given differs, not what it returns."""
    scaled = [replace(declared, scale=scale) for scale in ("x", "x/alpha")]
    if declared.scale == "c_in":
        scaled = [declared, *(replace(place, prediction="data") for place in scaled)]
    found = [replace(place, time=time) for place in scaled for time in (declared.time, *_own_times(declared))]
    own, measured = declared.sigma_data, float(data.to(torch.float64).std(correction=0))
    stds = [own, *(std for std in (0.5, 1.0, measured) if abs(std - own) > _CHANGED * own)]
    edm_times = (declared.time, _NAMED["edm"], _NAMED["rho"])
    found += [
        replace(declared, prediction="edm", scale="c_in", sigma_data=std, time=time)
        for std in stds
        for time in edm_times
    ]
    return [*found, *_other_processes(declared)]


def outputs(place: Reading, declared: Reading) -> Iterator[Reading]:
    """What the network may return at a place."""
    names = [declared.prediction, *(name for name in PREDICTIONS if name != declared.prediction)]
    if place.scale != "c_in" and (declared.prediction != "edm" or place.scale == "x"):
        names.remove("edm")
    if place is declared:
        yield declared
    elsewhere = (ONCE,) if place.scale == "c_in" else (ONCE, _SIGN)
    for factor in (ONCE, _SIGN, *_FACTORS) if place is declared else elsewhere:
        for name in names:
            yield replace(place, prediction=name, factor=factor)
    if place is declared:
        yield from (replace(place, prediction="data", factor=factor) for factor in _RANGES if "data" in names)


def declared_by(model: ScoreModel) -> Reading:
    """The reading that a score model declares."""
    time = model.time_input
    if isinstance(time, str) and time in TIME_INPUTS:
        label = _NAMED[time]
    else:
        expression = INDEX if isinstance(time, str) else "declared(t)"
        label = Time("the declared time", expression, model._read_time)
    scale = "c_in" if model.prediction == "edm" else model.input_scale
    process, variance = KnownProcess("sde", model.native), model.variance_name
    return Reading(process, model.prediction, label, scale, sigma_data=model.sigma_data, variance=variance)


def declared_bare(sde: AffineSDE) -> Reading:
    """The reading of a score function of a process."""
    return Reading(KnownProcess("sde", sde), "score", _NAMED["t"])
