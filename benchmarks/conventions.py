r"""Right wrappings and planted mistakes before `scoresde.check_score`: false alarms, and which mistakes are named.

Networks with any conventions are made of exact denoisers of eight targets, of the shipped network of the digits, with
``--images FILE`` of that of MNIST, and with ``--network FOLDER``, too, of a network that took no part in choosing a
constant here (``network.py`` with ``load()``: noise, `VPSDE`, data in [-1/2, 1/2]; the same images). The data are
digits that the shipped networks were not trained on. A wrapping is right if it declares them, and
wrong if one declaration, the sign, a factor or the units of the data differ. A wrong one *raises* the error by the
factor, less 1, between its error and that of the right one, a geometric mean over eight log-SNRs, on the same data and
the same noise, which `check_score` does not see. It is *named* where the wrapping that the report says to write has an
error within 2 % of the right one's.

The constants of `check_score` were chosen on the targets of seed 1; the published figures are those of seed 2.

``python -m benchmarks conventions`` writes ``results/conventions.json``, in about half an hour; what is left out stays
in the file. ``--check`` takes some of the cases, and writes nothing.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scoresde
from benchmarks import _shipped
from benchmarks._record import write
from benchmarks._tables import load
from scoresde import ScoreModel, targets
from scoresde.core.sdes import within
from scoresde.scores import PREDICTIONS, conventions, probe, readings
from scoresde.scores.model import TIME_INPUTS
from scoresde.scores.predictions import edm_size

SEED, RAISE, CLOSE = 2, 0.05, 0.02
# Of the wrappings of these networks, one in so many is made: (of the right ones, of the wrong ones).
EVERY = {"targets": (1, 29), "digits": (4, 89), "mnist": (5, 120), "another network": (4, 89)}
PROCESSES: dict[str, Any] = {
    "vp": scoresde.VPSDE(),
    "subvp": scoresde.SubVPSDE(),
    "flow": scoresde.FlowSDE(),
    "ve": scoresde.VESDE(),
    "edm": scoresde.EDMSDE(),
    "cosine": scoresde.CosineVPSDE(),
}
OTHERS: dict[str, Any] = {
    **PROCESSES,
    "sigmoid": scoresde.SigmoidVPSDE(),
    "scaled linear": scoresde.discrete.BetaChain(
        torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    ).sde(),
}
TIMES: dict[str, Callable[[Any], Callable[[Tensor], Tensor]]] = {
    "t": lambda sde: lambda t: t,
    "sigma": lambda sde: sde.sigma,
    "edm": lambda sde: lambda t: -sde.log_snr(t) / 8,
}
UNITS: dict[str, Callable[[Tensor], Tensor]] = {
    "to [0, 1]": lambda x: (x + 1) / 2,
    "to [0, 255]": lambda x: 127.5 * (x + 1),
    "from [0, 1]": lambda x: 2 * x - 1,
    "halved": lambda x: x / 2,
    "doubled": lambda x: 2 * x,
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Made:
    """A network with given conventions, made of a denoiser.

    Args:
        score: the denoiser, a score function with `estimate` on the process of ``right``.
        right: the arguments of a `ScoreModel`.
    """

    def __init__(self, score: Any, right: dict[str, Any]) -> None:
        self.score, self.right, sde = score, right, right["sde"]
        log_snr = torch.linspace(float(sde.log_snr(sde.t_max)), float(sde.log_snr(sde.t_min)), 20001).double()
        node = sde.nodes(sde.time(log_snr))
        label = TIME_INPUTS[right["time_input"]](node)
        order = label.argsort()
        self.label, self.t = label[order].numpy(), node.t[order].numpy()

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        t = torch.from_numpy(np.interp(time.double().numpy(), self.label, self.t))
        node = self.right["sde"].nodes(t)
        rows = type(node)(*(v.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) for v in node))
        prediction, std = PREDICTIONS[self.right["prediction"]], self.right.get("sigma_data", 0.5)
        state = x * edm_size(rows, std) ** 0.5 if self.right["prediction"] == "edm" else x
        found = self.score.estimate(state, node)
        if self.right["prediction"] in ("noise", "data"):
            return getattr(found, self.right["prediction"])
        by_data, by_noise = (
            (part - a * state) / b
            for part, (a, b) in zip(found, (prediction.data(rows, std), prediction.noise(rows, std)), strict=True)
        )
        return torch.where((rows.lam > 0).expand_as(state), by_noise, by_data)


@dataclass(frozen=True)
class Case:
    """A network, data, the right declaration and the one that is made."""

    name: str
    net: Callable[..., Tensor]
    data: Tensor
    right: dict[str, Any]
    declared: dict[str, Any]
    wrap: Callable[[Any], Any] = lambda net: net
    units: Callable[[Tensor], Tensor] = lambda x: x

    def wrapped(self) -> ScoreModel:
        """The network as it is wrapped."""
        return ScoreModel(self.wrap(self.net), **self.declared)


def laws(seed: int) -> dict[str, targets.Gaussian | targets.GaussianMixture]:
    """Eight targets."""
    g = generator(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    def mixture(weights: Tensor, means: Tensor, scales: float) -> targets.GaussianMixture:
        return targets.GaussianMixture(weights, means, scales=scales)

    root, places = randn(16, 16), torch.cartesian_prod(*[torch.arange(-2.0, 3.0)] * 2)
    return {
        "gaussian, 16-D": targets.Gaussian(0.3 * randn(16), root @ root.T / 30),
        "3 modes, 2-D": mixture(torch.ones(3), randn(3, 2), 0.2),
        "2 modes, 1-D": mixture(torch.ones(2), torch.tensor([[-0.5], [0.5]]) + 0.1 * randn(2, 1), 0.1),
        "grid, 2-D": mixture(torch.rand(25, generator=g) + 0.1, 0.5 * places, 0.05),
        "12 modes, 8-D": mixture(torch.rand(12, generator=g) + 0.1, 0.7 * randn(12, 8), 0.15),
        "in [0, 1], 4-D": mixture(torch.ones(5), torch.rand(5, 4, generator=g), 0.04),
        "40 points, 64-D": mixture(torch.ones(40), 0.3 * randn(40, 64), 0.03),
        "broad, 3-D": mixture(torch.ones(4), 0.6 * randn(4, 3), 0.5),
    }


def sources(seed: int, network: Path | None, images: Path | None) -> Iterator[tuple[str, Callable[[Any], Any], Tensor]]:
    """Denoisers: a name, the score function on a process, and data."""
    for name, law in laws(seed).items():
        yield name, law.score, law.sample(1024, generator=generator(seed + 1)).float()
    for digits in [_shipped.digits(), *([] if images is None else [_shipped.mnist(images)])]:
        yield digits.name, digits.network().score, digits.held(generator(3))
    if network is not None and images is not None:
        made = importlib.util.spec_from_file_location("network", network / "network.py")
        assert made is not None and made.loader is not None
        module = importlib.util.module_from_spec(made)
        made.loader.exec_module(module)
        with gzip.open(images) as file:
            grey = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:2000]
        own = ScoreModel(module.load(), scoresde.VPSDE(), "noise")
        yield "another network", own.on, torch.from_numpy(grey.copy()).float() / 255 - 0.5


def rights(seed: int, network: Path | None = None, images: Path | None = None) -> Iterator[Case]:
    """Right wrappings: sources, processes and predictions."""
    for name, score, data in sources(seed, network, images):
        learned = name in EVERY
        for (process, sde), prediction in itertools.product(PROCESSES.items(), PREDICTIONS):
            if prediction == "v" and process in ("ve", "edm"):
                continue  # no network predicts it there
            right = {"sde": sde, "prediction": prediction, "time_input": "sigma" if process == "edm" else "t"}
            if learned:  # between the log-SNRs that it was trained on
                right["sde"] = within(sde, (-9.0, 9.0))
            if prediction == "edm":
                right.update(time_input="edm", sigma_data=round(float(data.std()), 2))
            yield Case(f"{name}: {prediction} on {process}", Made(score(right["sde"]), right), data, right, right)


def mistakes(case: Case) -> Iterator[Case]:
    """Wrong wrappings of a network."""
    right = case.right
    sde, prediction, time = right["sde"], right["prediction"], right["time_input"]
    read = TIMES[time](sde)

    def made(name: str, declared: dict[str, Any] | None = None, **changes: Any) -> Case:
        return replace(case, name=f"{case.name}; {name}", declared={**right, **(declared or {})}, **changes)

    for other in ("score", "noise", "data", "v", "flow"):
        if prediction not in (other, "edm"):
            yield made(f"declared {other}", {"prediction": other})
    yield made("sign", wrap=lambda net: lambda x, t: -net(x, t))
    yield made("output doubled", wrap=lambda net: lambda x, t: 2 * net(x, t))
    yield made("time x 1000", {"time_input": lambda t: 1000 * read(t)})
    yield made("time / 1000", {"time_input": lambda t: read(t) / 1000})
    yield made("time reversed", {"time_input": lambda t: read(sde.t_max + sde.t_min - t)})
    for other in TIME_INPUTS:
        if other != time:
            yield made(f"time {other}", {"time_input": other})
    if prediction == "edm":
        yield made("sigma_data doubled", {"sigma_data": 2 * right["sigma_data"]})
        yield replace(made("declared data"), declared={"sde": sde, "prediction": "data", "time_input": time})
    else:
        for name, process in OTHERS.items():
            if not process.same_schedule(sde):
                clock = {"time_input": lambda t: t / 1000} if name == "scaled linear" and time == "t" else {}
                yield made(f"process {name}", {"sde": process, **clock})
    for name, change in UNITS.items():
        yield made(f"data {name}", units=change)


def outcome(case: Case, seed: int = 0) -> dict[str, Any]:
    """What `check_score` says of a case, and what is true."""
    model, data = case.wrapped(), case.units(case.data)
    g = generator(seed)
    with torch.no_grad():
        search = conventions._Search(model.sde, model, data, 8, {}, g)
        report = search.report()
        rows = torch.randint(len(data), (1024 if data[0].numel() < 100 else 256,), generator=g)

        def errors(reading: Any, network: Any, clean: Tensor, shift: float = 0.0) -> probe.ReadingErrors | None:
            lams, base = search.lams - shift, search.base
            return probe.Sample(network, clean, rows, lams, base, {}, generator(seed + 9)).errors(reading)

        right = ScoreModel(case.net, **case.right)
        clean = case.data.to(search.data.dtype)
        shift = math.log(float(case.data.std() / data.std()))
        own = errors(search.declared, search.network, search.data)
        best = errors(readings.declared_by(right), probe.OfModel(right), clean, shift)
        assert own is not None and best is not None
        named = None if search.best is None else errors(search.best, search.network, search.data)
    return {
        "name": case.name,
        "verdict": report.verdict,
        "convention": report.convention,
        "raise": math.expm1(min(own.gain(best)[0], 50.0)),
        "named": named is not None and named.gain(best)[0] < CLOSE,
        "calls": report.calls,
    }


def judged(case: Case) -> dict[str, Any]:
    """The outcome of a case, printed."""
    result = outcome(case)
    missed = result["raise"] >= RAISE and not result["named"]
    print(
        f"{case.name}: {result['verdict']} ({result['convention']}); error {result['raise']:+.1%}"
        f"{', not named' if missed else ''}",
        flush=True,
    )
    return result


def summary(right: list[dict[str, Any]], wrong: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures."""
    alarms = [r for r in right if r["verdict"] not in ("works", "not distinguishable")]
    large = [r for r in wrong if r["raise"] >= RAISE]
    small = [r for r in wrong if 1e-6 < r["raise"] < RAISE]  # others are no mistakes: the wrapping means the same
    named = [r for r in large if r["verdict"] == "another fits better" and r["named"]]
    return {
        "right": len(right),
        "false alarms": len(alarms),
        "mistakes that raise the error by 5 %": len(large),
        "named": len(named),
        "called works": sum(r["verdict"] == "works" for r in large),
        "smaller mistakes": len(small),
        "verdicts of smaller mistakes": dict(Counter(r["verdict"] for r in small)),
        "most calls": max(r["calls"] for r in right + wrong),
        "not named": [r for r in large if r not in named],
        "alarms": alarms,
    }


def main(arguments: list[str]) -> None:
    """Wrap, judge, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks conventions", description=__doc__)
    parser.add_argument("--check", action="store_true", help="some of the cases; nothing is written")
    parser.add_argument("--seed", type=int, default=SEED, help="of the targets")
    parser.add_argument("--network", type=Path, help="the folder of another network; needs --images")
    parser.add_argument("--images", type=Path, help="t10k-images-idx3-ubyte.gz, with its labels beside")
    parser.add_argument("--only", nargs="*", choices=EVERY, default=list(EVERY), help="some of the networks")
    given = parser.parse_args(arguments)
    if given.network is not None and given.images is None:
        parser.error("--network needs --images, the digits that the network denoises")
    torch.set_num_threads(1)
    groups: dict[str, list[Case]] = {}
    for case in rights(given.seed, given.network, given.images):
        source = case.name.split(":")[0]
        group = source if source in EVERY else "targets"
        if group in given.only:
            groups.setdefault(group, []).append(case)
    results = {}
    for name, cases in groups.items():
        wrong = [mistake for case in cases for mistake in mistakes(case)]
        steps = (61, 797) if given.check else EVERY[name]
        results[name] = summary(
            *(list(map(judged, kind[::step])) for kind, step in zip((cases, wrong), steps, strict=True))
        )
    for name, figures in results.items():
        print(name, {key: value for key, value in figures.items() if not isinstance(value, list)})
    if given.check:
        assert not any(figures["false alarms"] or figures["called works"] for figures in results.values()), results
    else:
        known = load("conventions")["results"] | results
        results = {name: known[name] for name in EVERY if name in known}
        write("conventions", {"seed": given.seed, **results}, "python -m benchmarks conventions --network … --images …")
