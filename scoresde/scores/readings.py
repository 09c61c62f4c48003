r"""What a network may expect and return: the readings among which `check_score` looks for the one that fits.

A reading says how a noisy state becomes the network's input, which number the network gets as its time, what its output
means, and in which units the data are. Two readings are compared at the same log-SNR of the same data, where denoising
is the same task, so their errors are comparable whatever the processes.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..chains import BetaChain
from ..sdes import EDMSDE, VDMSDE, VESDE, VPSDE, AffineSDE, CosineVPSDE, FlowSDE, Node, SigmoidVPSDE, SubVPSDE
from .model import TIME_INPUTS, ScoreModel
from .predictions import PREDICTIONS, edm_size

_VP = VPSDE()
Read = Callable[[Node[Tensor]], Tensor]


class Process(NamedTuple):
    """A process, the code that makes it, and, of a variance preserving one whose own is slow, its time as a function of
    the log-SNR."""

    code: str
    sde: AffineSDE
    inverse: Callable[[Tensor], Tensor] | None = None

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
        known = next((repr(name) for name, read in TIME_INPUTS.items() if read is self.read), None)
        return f"lambda t: {self.expression}" if known is None else known


class Units(NamedTuple):
    """Data in other units: the formula, the map, and the size of its linear part."""

    formula: str
    change: Callable[[Tensor], Tensor]
    size: float


class Factor(NamedTuple):
    """What the output is multiplied by before it is read, and the code of it."""

    code: str
    of: Callable[[Node[Tensor]], Any]


_MOST_BETA = 150.0  # of a process whose alpha single precision has
AS_GIVEN = Units("x0", lambda x: x, 1.0)
ONCE = Factor("", lambda n: 1.0)
_SIGN = Factor("-", lambda n: -1.0)
# Factors that a wrapping can have once too often or too little.
_FACTORS = (
    Factor("sigma * ", lambda n: n.sigma),
    Factor("1 / sigma * ", lambda n: 1 / n.sigma),
    Factor("alpha * ", lambda n: n.alpha),
    Factor("1 / alpha * ", lambda n: 1 / n.alpha),
    Factor("2 * ", lambda n: 2.0),
    Factor("1 / 2 * ", lambda n: 0.5),
)


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

    process: Process
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

    def noise_weights(self, node: Node[Tensor]) -> tuple[Tensor, Tensor]:
        """a and b of the noise a x + b output, at nodes ``(n,)``."""
        a, b = PREDICTIONS[self.prediction].noise(node, self.sigma_data)
        ones = torch.ones_like(node.alpha)
        return a * ones, b * self.factor.of(node) * ones

    def changes(self, other: Reading) -> list[str]:
        """The names of what another reading changes; see `ScoreReport.convention`."""
        differ = []
        if other.process is not self.process:
            differ.append(f"process {other.process.code}")
        if (other.prediction, other.factor) != (self.prediction, self.factor):
            differ.append(other._output(self))
        own_clock = other.process is not self.process and other.time.read is TIME_INPUTS["t"]
        if other.time.name != self.time.name and not own_clock:
            differ.append(other.time.name)
        if other.scale != self.scale and other.scale != "c_in" and self.scale != "c_in":
            differ.append(f"input {other.scale}")
        if other.prediction == self.prediction == "edm" and other.sigma_data != self.sigma_data:
            differ.append("sigma_data")
        if other.units is not self.units:
            differ.append("data range")
        if other.evaluated != self.evaluated:
            differ.append("training mode")
        return differ

    def _output(self, declared: Reading) -> str:
        """The name of what the output is."""
        if self.factor is ONCE:
            return self.prediction
        if self.factor is not _SIGN:
            meaning = "" if self.prediction == declared.prediction else f"{self.prediction} from "
            return f"{meaning}output x {self.factor.code.removesuffix(' * ')}"
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
        if replace(self, units=declared.units, evaluated=declared.evaluated) != declared:
            code = self.code()
            where = []
            if "declared(" in code:
                where.append("declared is the time_input that is declared now")
            if "scaled" in code:
                where.append(f"scaled(x, t) is {self.factor.code}net(x, t), with a factor per sample")
            sentences.append(f"Write {code}{', where ' if where else ''}{' and '.join(where)}.")
        if self.units is not declared.units:
            sentences.append(
                f"The data are not in the network's range: it works on {self.units.formula} (x0 being the data given)."
            )
        if self.evaluated != declared.evaluated:
            sentences.append("The network is in training mode: call net.eval() first.")
        return " ".join(sentences)

    def code(self) -> str:
        """The line that wraps the network so."""
        net = {ONCE: "net", _SIGN: "lambda x, t, **context: -net(x, t, **context)"}.get(self.factor, "scaled")
        parts = [net, self.process.code, f"prediction={self.prediction!r}"]
        if self.time.code != repr("edm" if self.prediction == "edm" else "t"):
            parts.append(f"time_input={self.time.code}")
        if self.scale == "x/alpha":
            parts.append('input_scale="x/alpha"')
        if self.prediction == "edm":
            parts.append(f"sigma_data={self.sigma_data:.4g}")
        if self.variance is not None:
            parts.append(f"variance={self.variance!r}")
        return f"ScoreModel({', '.join(parts)})"


def _reversed(read: Read, sde: AffineSDE) -> Read:
    return lambda n: read(sde.nodes(sde.t_max + sde.t_min - n.t))


def _times(read: Read, factor: float) -> Read:
    return lambda n: factor * read(n)


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
    "log_rho": Time("time ln rho", "-0.5 * sde.log_snr(t)", lambda n: -n.lam),
}


def _scaled_linear() -> Process:
    """The process of latent diffusion."""
    chain = BetaChain(torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2)
    known, places = -chain.log_snrs.numpy(), chain.times.numpy()
    return Process(
        "scoresde.discrete.BetaChain(torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).sde()",
        chain.sde(),
        lambda log_snr: torch.from_numpy(np.interp(-log_snr.numpy(), known, places)),
    )


@functools.cache
def _processes() -> tuple[tuple[Process, float], ...]:
    """Processes that networks are trained on, and the length of their clocks."""
    return (
        (Process("scoresde.VPSDE()", _VP), 1.0),
        (Process("scoresde.CosineVPSDE()", CosineVPSDE()), 1.0),
        (_scaled_linear(), 1000.0),
        (Process("scoresde.SigmoidVPSDE()", SigmoidVPSDE()), 1.0),
        (Process("scoresde.SubVPSDE()", SubVPSDE()), 1.0),
        (Process("scoresde.FlowSDE()", FlowSDE()), 1.0),
        (Process("scoresde.VESDE()", VESDE()), 1.0),
        (Process("scoresde.VDMSDE()", VDMSDE(), lambda log_snr: (13.3 - log_snr) / 18.3), 1.0),
    )


_EDM = Process("scoresde.EDMSDE()", EDMSDE())


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
    yield Time("time x 1000", f"{time.expression} / 1000", _times(time.read, 1 / 1000))
    yield Time("time / 1000", f"1000 * {time.expression}", _times(time.read, 1000))
    yield back
    yield Time("reversed time / 1000", f"1000 * {back.expression}", _times(back.read, 1000))
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


def with_times(declared: Reading, log_snrs: Tensor, times: Tensor) -> list[Reading]:
    """Readings with measured times: those of a `VPSDE` that are closest, if one is close, and a curve through them.

    Args:
        declared: the reading but for the times.
        log_snrs: falling, ``(n,)``.
        times: what the network gets at them.
    """
    known, values = -log_snrs.numpy(), times.numpy()
    found = []
    length = 1000.0 if values.max() > 2 else 1.0
    place = values / length
    powers = np.stack([place, 0.5 * place**2], 1)
    size = np.logaddexp(0.0, known)  # -ln alpha^2
    (low, slope), *_ = np.linalg.lstsq(powers / size[:, None], np.ones_like(size), rcond=None)
    low, high = float(f"{low:.3g}"), float(f"{low + slope:.3g}")
    if 0 < low < high < _MOST_BETA:
        process = Process(f"scoresde.VPSDE({low:g}, {high:g})", VPSDE(low, high))
        found.append(replace(declared, process=process, time=_clock("its time", length), scale="x"))
    rounded = [f"{v:.4g}" for v in values]
    name = f"time {', '.join(rounded)} at the log-SNRs {', '.join(f'{v:.3g}' for v in log_snrs.tolist())}"

    def read(node: Node[Tensor]) -> Tensor:
        return torch.from_numpy(np.interp(-2 * node.lam.numpy(), known, values))

    found.append(replace(declared, time=Time(name, "your_schedule(t)", read)))
    return found


def units(data: Tensor) -> list[Units]:
    """Units that the data may have to be in.

    Example:
        >>> [change.formula for change in units(torch.rand(4, 2))][:2]
        ['(x0 + 1) / 2', '2 x0 - 1']
    """
    wide = data.to(torch.float64)
    mean, std = float(wide.mean()), max(float(wide.std(correction=0)), 1e-6)
    centred = f"x0 - {mean:.4g}" if mean >= 0 else f"x0 + {-mean:.4g}"
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
        Units("-x0", lambda x: -x, 1.0),
        Units("1 - x0", lambda x: 1 - x, 1.0),
    ]
    if data.ndim == 4 and data.shape[1] == 3:
        found.append(Units("x0 with its channels reversed", lambda x: x.flip(1), 1.0))
    if data.ndim == 4 and data.shape[2] == data.shape[3]:
        found.append(Units("x0 with rows and columns exchanged", lambda x: x.transpose(2, 3), 1.0))
    return found


def places(declared: Reading, data: Tensor) -> list[Reading]:
    """Other readings of what goes in, the plainest first: what the network is given differs, not what it returns."""
    own = [declared] if declared.scale == "c_in" else [replace(declared, scale=scale) for scale in ("x", "x/alpha")]
    if declared.scale == "c_in":
        own += [replace(declared, scale=scale, prediction="data") for scale in ("x", "x/alpha")]
    found = [replace(place, time=time) for place in own for time in (declared.time, *_own_times(declared))]
    stds = [*dict.fromkeys((declared.sigma_data, 0.5, 1.0, float(data.to(torch.float64).std(correction=0))))]
    edm_times = (declared.time, _NAMED["edm"], _NAMED["rho"])
    found += [
        replace(declared, prediction="edm", scale="c_in", sigma_data=std, time=time)
        for std in stds
        for time in edm_times
    ]
    return [*found, *_other_processes(declared)]


def outputs(place: Reading, declared: Reading) -> Iterator[Reading]:
    """What the network may return at a place."""
    if place.scale == "c_in":
        names: Sequence[str] = ("edm",)
    else:
        names = (declared.prediction, *(p for p in PREDICTIONS if p not in ("edm", declared.prediction)))
    names = [name for name in names if name != "edm" or place.scale == "c_in"]
    if place is declared:
        yield declared
    for factor in (ONCE, _SIGN, *_FACTORS) if place is declared else (ONCE, _SIGN):
        for name in names:
            yield replace(place, prediction=name, factor=factor)


def declared_by(model: ScoreModel) -> Reading:
    """The reading that a score model declares."""
    time = model.time_input
    if isinstance(time, str) and time in TIME_INPUTS:
        label = _NAMED[time]
    else:
        expression = "chain.label(sde.log_snr(t))" if isinstance(time, str) else "declared(t)"
        label = Time("the declared time", expression, model._read_time)
    scale = "c_in" if model.prediction == "edm" else model.input_scale
    process, variance = Process("sde", model.native), model.variance_name
    return Reading(process, model.prediction, label, scale, sigma_data=model.sigma_data, variance=variance)


def declared_bare(sde: AffineSDE) -> Reading:
    """The reading of a score function of a process."""
    return Reading(Process("sde", sde), "score", _NAMED["t"])
