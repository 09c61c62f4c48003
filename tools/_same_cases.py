"""The cases of `tools.same_results`: computes them with the scoresde that is importable, and saves the results.

The program runs a copy of this file as a script, once for each version of the package, so it imports nothing of
scoresde but its public names, and nothing else of the project. A part is a function that yields the names of its cases
and what computes each; most read the registries of the package, so that a new method, loss or rule is a case by itself.
A name that a version lacks makes a case absent there; any other exception is the case's result, and so are warnings.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import enum
import fnmatch
import functools
import importlib
import importlib.util
import inspect
import itertools
import json
import math
import os
import pkgutil
import re
import signal
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

import scoresde

Case = tuple[str, Callable[[], Any]]
PACKAGES = ("scoresde", "torch", "numpy", "scipy", "safetensors", "torchdiffeq", "torchsde", "sklearn")
F32, F64 = torch.float32, torch.float64
DTYPES = {"float32": F32, "float64": F64}
LIMIT = 60  # seconds of the processor that a case may take; then the process ends, which is the case's result
PARTS: dict[str, Callable[[bool], Iterator[Case]]] = {}


def part(generate: Callable[[bool], Iterator[Case]]) -> Callable[[bool], Iterator[Case]]:
    """Register a function ``quick -> cases`` under its own name."""
    PARTS[generate.__name__] = generate
    return generate


# ---- what the cases compute with -------------------------------------------------------------------------------------


class Bend(scoresde.SDE):
    """A process that is not affine."""

    def __init__(self) -> None:
        super().__init__(t_min=1e-3, t_max=1.0, prior=scoresde.NormalPrior())

    def drift(self, x: Tensor, t: Any) -> Tensor:
        return -2.0 * x - 0.5 * torch.tanh(x)

    def diffusion(self, t: Any) -> Tensor:
        return torch.as_tensor(2.0 + 0.5 * t, dtype=F64) if isinstance(t, float) else 2.0 + 0.5 * t


PROCESSES: dict[str, Callable[[], Any]] = {
    "vp": lambda: scoresde.VPSDE(),
    "ve": lambda: scoresde.VESDE(sigma_max=10.0),
    "vdm": lambda: scoresde.VDMSDE(scoresde.LinearGamma(-6.0, 4.0)),
    "flow": lambda: scoresde.FlowSDE(),
}
# Every class of a process, with arguments where it has no defaults.
ARGUMENTS: dict[str, Callable[[], Any]] = {
    "GaussianSDE": lambda: scoresde.GaussianSDE(torch.cos, torch.sin, t_min=0.01, t_max=1.5),
}
CHAINS: dict[str, Callable[[], Any]] = {
    "chain-linear": lambda: scoresde.discrete.BetaChain.linear(8, 1e-3, 0.5),
    "chain-cosine": lambda: scoresde.discrete.BetaChain.cosine(8),
    "chain-sigmoid": lambda: scoresde.discrete.BetaChain.sigmoid(8),
    "chain-respaced": lambda: scoresde.discrete.BetaChain.linear(100).respace(8),
    "chain-scales": lambda: scoresde.discrete.NoiseScales.geometric(8, 0.05, 3.0),
}
DATA_STD = 0.5


def random(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def over(value: Tensor, x: Tensor) -> Tensor:
    """One number per sample, shaped to multiply x."""
    return value.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def closed_form(sde: Any, prediction: str, bend: Any = 0.2) -> Callable[[Tensor, Tensor], Tensor]:
    """A network in closed form: a Gaussian's data estimate, bent by a sine, in any of the predictions."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        if prediction == "edm":
            return bend * torch.sin(x + over(t, x))
        t = t if t.is_floating_point() else t.to(x.dtype)  # the index of a chain is its time
        a, s = over(sde.alpha(t), x), over(sde.sigma(t), x)
        data = a * DATA_STD**2 / (a**2 * DATA_STD**2 + s**2) * x + bend * s / (a + s) * torch.sin(x / (a + s))
        noise = (x - a * data) / s
        score = -noise / s
        if prediction == "flow":
            return sde.drift(x, t) - 0.5 * over(sde.diffusion(t) ** 2, x) * score
        return {"score": score, "noise": noise, "data": data, "v": a * noise - s * data}[prediction]

    return network


def model(sde: Any, prediction: str, **options: Any) -> Any:
    """A bare score function, or a `ScoreModel` of a network in closed form."""
    if prediction == "bare":
        return closed_form(sde, "score")
    return scoresde.ScoreModel(closed_form(sde, prediction), sde, prediction, **options)


def gaussian(size: int = 3) -> Any:
    """A Gaussian with a full covariance."""
    root = random(size, size, seed=1)
    return scoresde.targets.Gaussian(random(size, seed=2), root @ root.mT / size + 0.1 * torch.eye(size, dtype=F64))


def mixture(size: int = 3) -> Any:
    """A mixture of three Gaussians."""
    scales = torch.tensor([0.3, 0.2, 0.5], dtype=F64)
    return scoresde.targets.GaussianMixture(torch.tensor([0.2, 0.5, 0.3]), random(3, size, seed=3), scales=scales)


TARGETS: dict[str, Callable[[], Any]] = {
    "Gaussian": gaussian,
    "Gaussian-isotropic": lambda: scoresde.targets.Gaussian(torch.zeros(3), 0.3),
    "Gaussian-diagonal": lambda: scoresde.targets.Gaussian(random(3, dtype=F32), torch.tensor([0.1, 1.0, 2.0])),
    "Gaussian-fit": lambda: scoresde.targets.Gaussian.fit(random(40, 3)),
    "Gaussian-low-rank": lambda: scoresde.targets.Gaussian.fit(random(40, 3), 1),
    "GaussianMixture": mixture,
    "GaussianMixture-covs": lambda: scoresde.targets.GaussianMixture(
        torch.ones(2), random(2, 3), torch.stack([torch.eye(3, dtype=F64), 0.2 * torch.eye(3, dtype=F64) + 0.1])
    ),
    "Empirical": lambda: scoresde.targets.Empirical(random(7, 3, seed=4)),
    "Empirical-bandwidth": lambda: scoresde.targets.Empirical(random(7, 3, seed=4, dtype=F32), 0.1),
}


def seeded(make: Callable[[], Any]) -> Any:
    """What a function makes with torch's global generator, which is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def seeding(name: str, batch: int) -> dict[str, Any]:
    """A seed for the batch, or one per sample."""
    return {"seed": 7} if name == "seed" else {"seeds": range(11, 11 + batch)}


def accepted(make: Callable[[str], Any]) -> list[str]:
    """The names that an argument takes, found in the text that refuses another."""
    try:
        make("?")
    except scoresde.ScoreSDEError as error:
        words = re.findall(r"[\w+\-]+", str(error))
    else:
        return []
    return accepted_by(make, sorted(set(words)))


def accepted_by(make: Callable[[str], Any], words: Sequence[str]) -> list[str]:
    """The words with which a function is no error."""
    found = []
    for word in words:
        with contextlib.suppress(scoresde.ScoreSDEError):
            make(word)
            found.append(word)
    return found


def submodule(name: str) -> Any:
    """A module of the package, wherever it is in the version at hand."""
    places = {
        "sdes": "core.sdes", "correctors": "solvers.correctors", "ncsnv2": "discrete.ncsnv2", "models": "scores.model",
        "thresholds": "scores",
    }  # fmt: skip
    there = importlib.util.find_spec(f"scoresde.{name}") is not None
    return importlib.import_module(f"scoresde.{name if there else places.get(name, name)}")


def public(module: Any) -> dict[str, Any]:
    """The public classes and functions of a module."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    found = {name: getattr(module, name) for name in sorted(names)}
    return {name: value for name, value in found.items() if getattr(value, "__module__", "").startswith("scoresde")}


# ---- the public names ------------------------------------------------------------------------------------------------


@part
def names(quick: bool) -> Iterator[Case]:
    """The parameters of all that is public, and the records of the methods."""
    found = sorted(info.name for info in pkgutil.iter_modules(scoresde.__path__) if not info.name.startswith("_"))
    modules = {"": scoresde} | {f"{name}.": module for name in found if hasattr(module := submodule(name), "__all__")}
    for prefix, module in modules.items():
        for name, value in public(module).items():
            yield f"{prefix}{name}", functools.partial(_parameters, value)
    for method in scoresde.methods():
        yield f"methods/{method.name}", functools.partial(method._replace, solver=method.solver.__name__)


def _parameters(value: Any) -> Any:
    """Names, kinds and defaults of the parameters of a function, or of a class and its methods."""
    members = {"": value} if callable(value) else {}
    if isinstance(value, type):
        members |= {name: member for name, member in vars(value).items() if not name.startswith("_")}
    return {name: _signature(member) for name, member in members.items()}


def _signature(value: Any) -> Any:
    value = getattr(value, "__func__", value)
    if not callable(value):
        return type(value).__name__
    try:
        parameters = inspect.signature(value).parameters
    except (TypeError, ValueError):
        return "callable"
    return {
        name: (
            i if p.kind is p.POSITIONAL_OR_KEYWORD else p.kind.name,
            "needed" if p.default is p.empty else repr(p.default),
        )
        for i, (name, p) in enumerate(parameters.items())
    }


# ---- solve -----------------------------------------------------------------------------------------------------------

FORMS = ("bare", "noise", "data", "v")
LONG = {"moves": 3}  # options of methods that would be slow with their own


def _options(method: Any) -> dict[str, Any]:
    """Six steps, or moderate tolerances."""
    fields = {f.name for f in dataclasses.fields(method.solver)}
    tolerance = 0.1 if method.stochastic else 0.01
    steps = {"rtol": tolerance, "atol": tolerance} if method.adaptive else {"steps": 6}
    return steps | {name: value for name, value in LONG.items() if name in fields and method.evaluations > 10}


def _solve(process: str, form: str, /, *, event: tuple[int, ...] = (3,), **options: Any) -> Any:
    sde = (PROCESSES | {"bend": Bend})[process]()
    score = (lambda x, t: -x) if process == "bend" else model(sde, form)
    return scoresde.solve(sde, score, **{"shape": (4, *event)} | options)


def _solves(methods: list[Any], forms: int, quick: bool) -> Iterator[Case]:
    """Each method on each process, in both precisions, with both seeds; the forms of the score and the other options
    take turns: every second form, or every fourth, for each of these."""
    for method in methods:
        for (i, process), (j, dtype), (k, seeds), (l, form) in itertools.product(
            enumerate(PROCESSES), enumerate(DTYPES), enumerate(("seed", "seeds")), enumerate(FORMS)
        ):
            turn = i + 2 * j + k + l
            if turn % forms or (quick and (i + j + k) % 4):
                continue
            more: dict[str, Any] = {"denoise": (turn // forms) % 2 == 1}
            if (i + j + l) % 3 == 2:
                more["save_at"] = "steps"
            elif (i + j + l) % 3 == 1:
                sde = PROCESSES[process]()
                more["save_at"] = [sde.t_min + share * (sde.t_max - sde.t_min) for share in (0.7, 0.3)]
            given = {"method": method.name, "dtype": DTYPES[dtype], **_options(method), **seeding(seeds, 4), **more}
            yield f"{method.name}/{process}/{dtype}/{form}/{seeds}", functools.partial(_solve, process, form, **given)


@part
def solve(quick: bool) -> Iterator[Case]:
    yield from _solves([m for m in scoresde.methods() if m.kind != "backend"], 4 if quick else 2, quick)


@part
def backends(quick: bool) -> Iterator[Case]:
    yield from _solves([m for m in scoresde.methods() if m.kind == "backend"], 4, quick)


@part
def options(quick: bool) -> Iterator[Case]:
    """Each method with one option changed, and each argument of `solve` that methods differ in."""
    for method in scoresde.methods():
        given = {"dtype": F64, "seed": 0, "method": method.name, **_options(method)}
        for field in dataclasses.fields(method.solver):
            for text, value in _others(method.solver, field):
                yield (
                    f"{method.name}/{field.name}={text}",
                    functools.partial(_solve, "vp", "noise", **given | {field.name: value}),
                )
        for name, process, more in (
            ("stochasticity", "vp", {"stochasticity": 0.5}),
            ("not-affine", "bend", {}),
            ("not-affine-stochasticity", "bend", {"stochasticity": 0.5}),
            ("grid", "vp", {"grid": "time"}),
            ("image", "flow", {"event": (1, 3, 3)}),
            ("encode", "vp", {"t_start": 0.01, "t_end": 0.9, "x": random(2, 3), "event": (3,)}),
            ("times", "ve", {"t_start": 0.8, "t_end": 0.1, "x": random(2, 3, seed=5)}),
            ("exact", "flow", {"exact": True}),
            ("noise", "vp", {"noise": lambda k, like: torch.full_like(like, math.cos(k)), "seed": None}),
            ("generator", "ve", {"generator": torch.Generator().manual_seed(3), "seed": None}),
            ("failing", "vp", {"throw": False, "failing": True}),
            ("half", "vp", {"dtype": torch.bfloat16}),
            ("stopped", "vp", {"stop": 3}),
            ("max_steps", "flow", {"max_steps": 2, "throw": False}),
        ):
            if quick and name not in ("stochasticity", "not-affine"):
                continue
            yield f"{method.name}/{name}", functools.partial(_one_option, process, **given | more)
        if not quick:
            yield f"{method.name}/gradient", functools.partial(_solve_gradient, **given)


def _others(solver: Any, field: Any) -> Iterator[tuple[str, Any]]:
    """Other values of an option than its own, and how to name them."""
    if field.default is dataclasses.MISSING:
        return
    value = field.default
    if isinstance(value, bool):
        yield str(not value), not value
    elif isinstance(value, int):
        yield str(value - 1), value - 1
        yield str(value + 1), value + 1
    elif isinstance(value, float) and math.isfinite(value):
        other = 0.75 * value or 0.5
        yield f"{other:g}", other
    elif isinstance(value, str):
        for name in [*accepted(lambda name: solver(**{field.name: name})), "?"]:
            if name != value:
                yield name, name


def _one_option(
    process: str,
    *,
    x: Tensor | None = None,
    event: tuple[int, ...] = (3,),
    exact: bool = False,
    failing: bool = False,
    stop: int | None = None,
    **given: Any,
) -> Any:
    sde = (PROCESSES | {"bend": Bend})[process]()
    score: Any = mixture().score(sde) if exact else model(sde, "noise")
    if process == "bend":
        score = lambda x, t: -x  # noqa: E731
    if failing:
        plain = score
        score = lambda x, t: torch.where(torch.arange(3)[:, None] == 1, math.nan, plain(x, t))  # noqa: E731
    seen: list[Any] = []
    if stop is not None:
        given["callback"] = lambda info: (
            seen.append((info.step, info.t, info.x.clone(), info.nfe)),
            info.step >= stop,
        )[1]
    return scoresde.solve(sde, score, x, shape=None if x is not None else (3, *event), **given), seen


def _solve_gradient(**given: Any) -> Any:
    sde, x = scoresde.VPSDE(), random(3, 3).requires_grad_()
    net = Bent(sde, "noise")
    score = scoresde.ScoreModel(net, sde, "noise")
    found = scoresde.solve(sde, score, x, differentiable=True, **given).x
    return found, torch.autograd.grad(found.square().sum(), [x, *net.parameters()])


@part
def correctors(quick: bool) -> Iterator[Case]:
    for process in PROCESSES:
        for predictor in (m.name for m in scoresde.methods() if m.stochastic and m.kind == "sde" and not m.adaptive):
            more = {"method": "pc", "predictor": predictor, "steps": 4, "seed": 0, "dtype": F64}
            if not quick or process == "vp":
                yield f"predictor/{predictor}/{process}", functools.partial(_solve, process, "noise", **more)
        for name, cls in public(submodule("correctors")).items():
            if inspect.isabstract(cls):
                continue
            for field in [None, *(dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ())]:
                for text, value in [("own", None)] if field is None else _others(cls, field):
                    case = f"{name}/{text if field is None else f'{field.name}={text}'}/{process}"
                    yield case, functools.partial(_corrected, cls, field and field.name, value, process)


def _corrected(cls: Any, field: str | None, value: Any, process: str) -> Any:
    sde, target = PROCESSES[process](), mixture()
    given = {} if field is None else {field: value}
    if "log_prob" in inspect.signature(cls).parameters:
        given["log_prob"] = lambda x, t: target.log_prob(x, sde, t)
    return scoresde.solve(
        sde, target.score(sde), method="pc", corrector=cls(**given), steps=4, shape=(4, 3), seed=0, dtype=F64
    )


# ---- grids, noise, forward simulation, processes ---------------------------------------------------------------------


def _every_process() -> dict[str, Callable[[], Any]]:
    """All processes, by the names of their classes, and those of chains."""
    classes = {
        name: value
        for name, value in sorted(vars(scoresde).items())
        if isinstance(value, type) and issubclass(value, scoresde.SDE) and not inspect.isabstract(value)
    }
    chains: dict[str, Callable[[], Any]] = {name: functools.partial(_of_chain, make) for name, make in CHAINS.items()}
    chains |= {
        "vdm-shifted": lambda: scoresde.VDMSDE(scoresde.ShiftedGamma(scoresde.CosineVPSDE(), 1.5)),
        "bend": Bend,
    }
    return {name: ARGUMENTS.get(name, value) for name, value in classes.items()} | chains


def _of_chain(make: Callable[[], Any]) -> Any:
    return make().sde()


@part
def grids(quick: bool) -> Iterator[Case]:
    module = submodule("grids")
    functions: dict[str, Any] = dict(module.GRIDS)
    functions |= {"Beta": module.Beta(), "Beta-other": module.Beta(0.8, 1.2), "Shifted": module.Shifted(3.0)}
    functions["Levels"] = module.Levels((5.0, 1.0, 0.3, 0.05))
    for grid, (process, make), steps in itertools.product(sorted(functions), _every_process().items(), (1, 7)):
        yield f"times/{grid}/{process}/{steps}", functools.partial(_times, functions[grid], make, steps)
    for grid, process in itertools.product(sorted(functions), PROCESSES):
        for method in ("dpmpp_2m", "heun", "ancestral"):
            by_name = grid if grid in module.GRIDS else functions[grid]
            given = {"method": method, "grid": by_name, "steps": 5, "seed": 0, "dtype": F64}
            yield f"solve/{grid}/{process}/{method}", functools.partial(_solve, process, "data", **given)
    for method in ("dpmpp_2m", "heun", "ancestral", "rk45"):
        for text, grid in (("tensor", torch.tensor([0.9, 0.5, 0.2, 0.01], dtype=F64)), ("Grid", (0.8, 0.3, 0.1))):
            yield f"given/{text}/{method}", functools.partial(_given_grid, method, grid)


def _times(grid: Any, make: Any, steps: int) -> Any:
    sde = make()
    return grid(sde, sde.t_max, sde.t_min, steps)


def _given_grid(method: str, grid: Any) -> Any:
    grid = scoresde.Grid(grid) if isinstance(grid, tuple) else grid
    return scoresde.solve(
        scoresde.VPSDE(),
        gaussian().score(scoresde.VPSDE()),
        random(4, 3),
        method=method,
        grid=grid,
        t_start=float((grid.times if isinstance(grid, scoresde.Grid) else grid)[0]),
        seed=0,
    )


@part
def noise(quick: bool) -> Iterator[Case]:
    for dtype, (text, seeds) in itertools.product(DTYPES, (("seed", 5), ("seeds", [3, 4, 9]))):
        for areas, clock in itertools.product((False, True), (False, True)):
            name = f"BrownianPath/{text}/{dtype}/areas={areas}/clock={clock}"
            yield name, functools.partial(_path, seeds, DTYPES[dtype], areas, clock)
    for dtype in DTYPES:
        like = torch.zeros(3, 5, dtype=DTYPES[dtype])
        sources: dict[str, Callable[[], Any]] = {
            "BatchNoise": lambda: scoresde.BatchNoise(torch.Generator().manual_seed(1)),
            "SampleNoise": lambda: scoresde.SampleNoise([4, 5, 2**63]),
            "CallableNoise": lambda: scoresde.CallableNoise(lambda k, x: torch.full_like(x, k)),
        }
        for name, make in sources.items():
            yield f"{name}/{dtype}", functools.partial(_draws, make, like)
    for method in ("euler_maruyama", "ddim_eta", "sra1", "shark", "ggf", "dpmpp_sde12", "ancestral"):
        for text, seeds in (("seed", 5), ("seeds", range(4))):
            yield f"solve/{method}/{text}", functools.partial(_on_path, method, seeds)


def _path(seeds: Any, dtype: torch.dtype, areas: bool, clock: bool) -> Any:
    path = scoresde.BrownianPath(
        seeds, 0.1, 2.0, areas=areas, **({"clock": lambda t: t.square()} if clock else {"depth": 3})
    )
    like = torch.zeros(3, 4, dtype=dtype)
    found = [path.between(a, b, like) for a, b in ((0.1, 2.0), (0.5, 0.7), (0.31, 0.32), (0.7, 1.9))]
    if areas:
        found += list(path.increment_and_mean(0.4, 0.9, like))
    return [
        *found,
        path.increment(1.5, 0.2, like),
        path.value(1.234, like),
        path.take(torch.tensor([2])).value(0.4, like[:1]) if not isinstance(seeds, int) else None,
    ]


def _draws(make: Any, like: Tensor) -> Any:
    source = make()
    rows = torch.tensor([0, 2])
    drawn = [source.normal(like), source.normal(like), source.increment(0.5, 0.2, like)]
    return [*drawn, source.take(rows).normal(like[rows])]


def _on_path(method: str, seeds: Any) -> Any:
    path = scoresde.BrownianPath(seeds, 1e-3, 1.0, areas=method in ("sra1", "shark"))
    steps = {"rtol": 0.05, "atol": 0.05} if method in ("ggf", "dpmpp_sde12") else {"steps": 5}
    sde = scoresde.VPSDE()
    return scoresde.solve(sde, model(sde, "noise"), random(4, 3), method=method, noise=path, **steps)


@part
def steppers(quick: bool) -> Iterator[Case]:
    for method in (m for m in scoresde.methods() if m.kind not in ("backend", "forward")):
        for process, form in (("VPSDE", "noise"), ("FlowSDE", "flow")):
            yield f"{method.name}/{process}", functools.partial(_stepped, method, process, form)


def _stepped(method: Any, process: str, form: str) -> Any:
    """Every question, and the solution, of a stepper that is saved and opened again on the way."""
    sde = getattr(scoresde, process)()
    net, given = closed_form(sde, form), {"seeds": range(4), "save_at": "steps", "denoise": True, **_options(method)}
    make = functools.partial(scoresde.Stepper, sde, method.name, random(4, 3), prediction=form, **given)
    stepper, asked = make(), []
    while not stepper.done:
        if len(asked) % 7 == 5:
            saved, stepper = stepper.state_dict(), make()
            stepper.load_state_dict(saved)
        x, t = stepper.ask()
        asked += [x.clone(), t.clone()] if len(asked) < 60 else []
        stepper.tell(net(x, t))
    return asked, stepper.solution


@part
def paths(quick: bool) -> Iterator[Case]:
    for name in (m.name for m in scoresde.methods() if m.stochastic):
        for process in ("VPSDE", "EDMSDE"):
            yield f"{name}/{process}", functools.partial(_recorded_path, name, process)


def _recorded_path(method: str, process: str) -> Any:
    sde = getattr(scoresde, process)()
    found = scoresde.solve(
        sde, model(sde, "noise"), shape=(3, 2), method=method, steps=4, seed=1, path_log_prob=True, dtype=F64
    )
    other = scoresde.paths.log_prob(found.path, sde, model(sde, "noise", sigma_data=0.4), per_step=True)
    return found.x, found.path_log_prob, found.path.log_probs, list(found.path.states), other


@part
def simulate(quick: bool) -> Iterator[Case]:
    x0 = random(3, 4)
    for (process, make), dtype, seeds in itertools.product(_every_process().items(), DTYPES, ("seed", "seeds")):
        for text, more in (("own", {}), ("steps", {"steps": 5, "save_at": "steps"}), ("grid", {"grid": "log_snr"})):
            given = {"steps": 9, **seeding(seeds, 3), **more}
            name = f"{process}/{dtype}/{seeds}/{text}"
            yield (
                name,
                lambda make=make, dtype=dtype, given=given: scoresde.simulate(make(), x0.to(DTYPES[dtype]), **given),
            )
    for method in ("euler_maruyama", "heun_sde", "sra1", "shark", "ddim"):
        yield f"method/{method}", lambda method=method: scoresde.simulate(Bend(), x0, method=method, steps=5, seed=1)


@part
def sdes(quick: bool) -> Iterator[Case]:
    for process, make in _every_process().items():
        yield f"{process}/repr", lambda make=make: repr(make())
        for dtype in DTYPES:
            yield f"{process}/{dtype}", functools.partial(_process, make, DTYPES[dtype])
            yield f"{process}/{dtype}/ends", functools.partial(_process, make, DTYPES[dtype], (0.0, 1.0, 1e-6))
        yield f"{process}/gradient", functools.partial(_schedule_gradient, make)
    for name, cls in public(submodule("sdes")).items():
        if isinstance(cls, type) and issubclass(cls, scoresde.SDE) and not inspect.isabstract(cls):
            yield f"refused/{name}", lambda cls=cls: cls(t_min=1.0, t_max=0.5)


METHODS_OF_TIME = ("alpha", "sigma", "log_snr", "diffusion")


def _process(make: Any, dtype: torch.dtype, shares: tuple[float, ...] = (0.02, 0.3, 0.5, 0.9)) -> Any:
    sde = make()
    t = torch.tensor([sde.t_min + share * (sde.t_max - sde.t_min) for share in shares], dtype=dtype)
    n = len(shares)
    x, x0 = random(n, 3, dtype=dtype), random(n, 3, seed=1, dtype=dtype)
    earlier = 0.5 * (t + sde.t_min)
    found: dict[str, Any] = {"t_min": sde.t_min, "t_max": sde.t_max}
    calls: dict[str, Callable[[], Any]] = {
        "drift": lambda: sde.drift(x, t),
        "marginal": lambda: sde.marginal(x0, t),
        "perturb": lambda: sde.perturb(x0, t, x),
        "transition": lambda: sde.transition(x, earlier, t),
        "posterior": lambda: sde.posterior(x, x0, earlier, t),
        "prior_sample": lambda: sde.prior_sample((2, 3), generator=torch.Generator().manual_seed(0), dtype=dtype),
        "prior_log_prob": lambda: sde.prior_log_prob(x),
        "time": lambda: sde.time(sde.log_snr(t)),
        "time-of-float": lambda: sde.time(float(sde.log_snr(float(t[1])))),
        "reverse": lambda: sde.reverse(lambda x, t: -x, 0.7).drift(x, t),
        "reverse-diffusion": lambda: sde.reverse(lambda x, t: -x, 0.7).diffusion(t),
        "flow": lambda: sde.probability_flow(lambda x, t: -x).drift(x, t),
        "nodes": lambda: sde.nodes(t),
        "node": lambda: sde.node(float(t[0])),
    }
    for name in METHODS_OF_TIME:
        calls[name] = lambda name=name: getattr(sde, name)(t)
        calls[f"{name}-of-float"] = lambda name=name: [getattr(sde, name)(float(value)) for value in t]
    for name, call in calls.items():
        found[name] = attempt(call)
    return found


def attempt(call: Callable[[], Any]) -> Any:
    """What a call returns, or its error."""
    try:
        return call()
    except Exception as error:
        if missing(error):
            raise
        return {"error": type(error).__name__, "text": str(error)}


def _schedule_gradient(make: Any) -> Any:
    sde = make()
    t = torch.linspace(sde.t_min, sde.t_max, 7, dtype=F64)[1:-1].requires_grad_()
    found = {}
    for name in METHODS_OF_TIME:
        found[name] = attempt(lambda name=name: torch.autograd.grad(getattr(sde, name)(t).sum(), t)[0])
    return found


# ---- targets, models -------------------------------------------------------------------------------------------------


@part
def targets(quick: bool) -> Iterator[Case]:
    for target, process, dtype in itertools.product(TARGETS, PROCESSES, DTYPES):
        yield f"{target}/{process}/{dtype}", functools.partial(_target, target, process, DTYPES[dtype])


def _target(name: str, process: str, dtype: torch.dtype) -> Any:
    target, sde = TARGETS[name](), PROCESSES[process]()
    x, times = random(5, 3, dtype=dtype), [sde.t_min + share * (sde.t_max - sde.t_min) for share in (0.05, 0.5, 0.95)]
    t = torch.tensor([*times, times[0], times[1]], dtype=dtype)
    score = target.score(sde)
    y, matrix = random(2, seed=8), random(2, 3, seed=9)
    calls: dict[str, Callable[[], Any]] = {
        "score": lambda: [score(x, value) for value in (*times, t)],
        "estimate": lambda: score.estimate(x, sde.node(times[1])),
        "log_prob": lambda: [target.log_prob(x), *(target.log_prob(x, sde, value) for value in (*times, t))],
        "sample": lambda: [
            target.sample(4, generator=torch.Generator().manual_seed(2)),
            target.sample(4, sde, times[1], generator=torch.Generator().manual_seed(2)),
        ],
        "posterior": lambda: target.posterior(matrix, y, 0.3).score(sde)(x, t),
        "evidence": lambda: target.log_evidence(matrix, y, 0.3),
    }
    if hasattr(target, "flow_map"):
        calls["flow_map"] = lambda: [target.flow_map(x, sde, a, b) for a, b in itertools.permutations(times, 2)]
    if hasattr(target, "log_responsibilities"):
        calls["responsibilities"] = lambda: target.log_responsibilities(x, sde, t)
    return {key: attempt(call) for key, call in calls.items()}


@part
def models(quick: bool) -> Iterator[Case]:
    module = submodule("models")
    for process, prediction, dtype in itertools.product(PROCESSES, module.PREDICTIONS, DTYPES):
        yield f"predictions/{prediction}/{process}/{dtype}", functools.partial(_views, process, prediction, dtype)
        if not quick:
            given = {"method": "dpmpp_2m", "steps": 5, "seed": 0, "dtype": DTYPES[dtype], "denoise": True}
            name = f"solve/{prediction}/{process}/{dtype}"
            yield name, functools.partial(_solve, process, prediction, **given)
    for time_input, process in itertools.product([*module.TIME_INPUTS, "index", "call"], PROCESSES):
        for scale in ("x", "x/alpha"):
            yield f"inputs/{time_input}/{scale}/{process}", functools.partial(_inputs, process, time_input, scale)
    for name, process in itertools.product(("Clip", "DynamicThreshold"), PROCESSES):
        for method in ("dpmpp_2m", "ancestral", "heun"):
            yield f"{name}/{process}/{method}", functools.partial(_limited, name, process, method)
    for method, variance in itertools.product(("ancestral", "pc", "dpmpp_2m"), ("learned", "small", "large")):
        yield f"variance/{method}/{variance}", functools.partial(_learned_variance, method, variance)
    for method in ("ancestral", "adams", "heun"):
        yield f"context/{method}", functools.partial(_with_context, method)
    for process, other in itertools.permutations(PROCESSES, 2):
        yield f"on/{process}/{other}", functools.partial(_moved, process, other)


def _views(process: str, prediction: str, dtype: str) -> Any:
    sde = PROCESSES[process]()
    score = model(sde, prediction)
    x = random(4, 3, dtype=DTYPES[dtype])
    t = torch.linspace(sde.t_min, sde.t_max, 6, dtype=DTYPES[dtype])[1:-1]
    views = {"score": score} | {name: getattr(score, name) for name in ("noise", "data", "v", "flow")}
    return {name: [view(x, t), view(x, float(t[1]))] for name, view in views.items()} | {"repr": _name_of(score)}


def _name_of(score: Any) -> str:
    return re.sub(r"net=.*?, ", "", repr(score))


def _inputs(process: str, time_input: str, scale: str) -> Any:
    given: dict[str, Any] = {"time_input": (lambda t: 3 * t) if time_input == "call" else time_input}
    sde = PROCESSES[process]()
    if time_input == "index":
        given["chain"] = scoresde.discrete.BetaChain.linear(50)
        sde = given["chain"].sde()
    seen: list[Any] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x.clone(), t.clone()))
        return torch.tanh(x)

    score = scoresde.ScoreModel(network, sde, "data", input_scale=scale, **given)
    x, t = random(3, 3), torch.linspace(sde.t_min, sde.t_max, 5, dtype=F64)[1:-1]
    return score(x, t), seen


def _limited(name: str, process: str, method: str) -> Any:
    sde = PROCESSES[process]()
    score = getattr(submodule("models"), name, None) or getattr(submodule("thresholds"), name)
    return scoresde.solve(
        sde, score(model(sde, "noise"), **{"bound": 0.3} if name != "Clip" else {"low": -0.3, "high": 0.2}),
        method=method, steps=5, shape=(3, 3), seed=0, dtype=F64,
    )  # fmt: skip


def _learned_variance(method: str, variance: str) -> Any:
    chain = CHAINS["chain-linear"]()
    sde = chain.sde()
    net = Bent(sde, "noise", channels=2).requires_grad_(False)
    score = scoresde.ScoreModel(net, sde, "noise", "index", chain=chain, variance="learned_range", event_shape=(1, 3))
    given = {"variance": variance} if method == "ancestral" else {}
    grid = chain.grid(5)
    solution = scoresde.solve(
        sde, score, random(3, 1, 3), t_start=float(grid[0]), grid=grid, method=method, seed=0, **given
    )
    return solution, score.variance(random(3, 1, 3), float(chain.times[4]))


def _with_context(method: str) -> Any:
    sde = scoresde.VPSDE()
    net = lambda x, t, shift: closed_form(sde, "noise")(x, t) + over(shift, x)  # noqa: E731
    steps = {"rtol": 1e-2, "atol": 1e-2} if method == "adams" else {"steps": 5}
    given = {"context": {"shift": random(4, seed=3)}, "seeds": range(4), "shape": (4, 3), "dtype": F64}
    return scoresde.solve(sde, scoresde.ScoreModel(net, sde, "noise"), method=method, **given, **steps)


def _moved(process: str, other: str) -> Any:
    score = model(PROCESSES[process](), "noise").on(PROCESSES[other]())
    x = random(3, 3)
    return score(x, 0.4), score.data(x, torch.tensor([0.2, 0.4, 0.8], dtype=F64))


# ---- latents and likelihoods -----------------------------------------------------------------------------------------


@part
def latents(quick: bool) -> Iterator[Case]:
    for process, dtype, form in itertools.product(PROCESSES, DTYPES, FORMS):
        for method, more in (("adams", {"rtol": 1e-3, "atol": 1e-3}), ("heun", {"steps": 5}), ("ddim", {"steps": 5})):
            for name in ("encode", "decode", "reconstruct"):
                if quick and (dtype, form) != ("float64", "noise"):
                    continue
                given = {"method": method, **more}
                yield (
                    f"{name}/{process}/{dtype}/{form}/{method}",
                    functools.partial(_latent, name, process, DTYPES[dtype], form, given),
                )
        yield (
            f"decode/{process}/{dtype}/{form}/cold",
            functools.partial(
                _latent, "decode", process, DTYPES[dtype], form, {"temperature": 0.7, "rtol": 1e-2, "atol": 1e-2}
            ),
        )
    for mode in (*accepted(lambda mode: _interpolated(mode)), "?"):
        yield f"interpolate/{mode}", functools.partial(_interpolated, mode)


def _latent(name: str, process: str, dtype: torch.dtype, form: str, given: Mapping[str, Any]) -> Any:
    sde = PROCESSES[process]()
    x = random(3, 3, seed=6, dtype=dtype)
    x = x * float(sde.sigma(sde.t_max)) if name == "decode" else DATA_STD * x
    return getattr(scoresde, name)(sde, model(sde, form), x, **given)


def _interpolated(mode: str) -> Any:
    return scoresde.interpolate(random(2, 3), random(2, 3, seed=1), torch.linspace(0, 1, 5, dtype=F64), mode=mode)


def _likelihood(process: str, form: str, dtype: str = "float64", **given: Any) -> Any:
    sde = PROCESSES[process]()
    x = DATA_STD * random(3, 3, seed=6, dtype=DTYPES[dtype])
    found = scoresde.log_likelihood(sde, model(sde, form), x, **{"rtol": 1e-3, "atol": 1e-3} | given)
    return found, found.interval()


@part
def likelihood(quick: bool) -> Iterator[Case]:
    def take(argument: str) -> list[str]:
        return accepted(
            lambda name: _likelihood("vp", "noise", rtol=0.1, atol=0.1, seed=0, probes=3, **{argument: name})
        )

    divergences, probes = take("divergence"), take("probe")
    for process, divergence, probe in itertools.product(PROCESSES, divergences, probes):
        for dtype, (k, form), (l, seeds) in itertools.product(DTYPES, enumerate(FORMS), enumerate(("seed", "seeds"))):
            if (k + l) % 2 == 0 or ((quick or dtype == "float32") and form != "noise"):
                continue
            given = {"divergence": divergence, "probe": probe, **seeding(seeds, 3)}
            if divergence != "exact":
                given["probes"] = 3 if seeds == "seed" else 6
            yield (
                f"{divergence}/{probe}/{process}/{dtype}/{form}/{seeds}",
                functools.partial(_likelihood, process, form, dtype, **given),
            )
    for text, given in {
        "chunk": {"divergence": "exact", "chunk": 2},
        "solver-error": {"solver_error": True, "divergence": "exact"},
        "one-probe": {"probes": 1},
        "times": {"t_start": 0.01, "t_end": 0.7},
        "control": {"control": gaussian(), "probes": 3},
        "control-scale": {"control": mixture(), "control_scale": 0.8, "probes": 3},
        "generator": {"generator": torch.Generator().manual_seed(1), "probes": 2, "seed": None},
        "prior": {"prior": scoresde.NormalPrior(1.5), "divergence": "exact"},
        "refused": {"divergence": "?"},
        "tolerance": {"rtol": 1e-20},
    }.items():
        yield f"options/{text}", functools.partial(_likelihood, "vp", "v", **{"seed": 0} | given)
    for method in scoresde.methods():
        if not quick and (method.adaptive or method.name in ("pc", "heun")):
            given = {"method": method.name, "divergence": "exact", "rtol": 1e-2, "atol": 1e-2}
            yield f"method/{method.name}", functools.partial(_likelihood, "vp", "noise", **given)
    for differentiable in (True, "adjoint"):
        yield f"gradient/{differentiable}", functools.partial(_likelihood_gradient, differentiable)
    for process in PROCESSES:
        yield f"density_profile/{process}", functools.partial(_profile, process)
    yield (
        "fit_control_scale",
        lambda: scoresde.fit_control_scale(
            scoresde.VPSDE(),
            mixture().score(scoresde.VPSDE()),
            gaussian(),
            random(4, 3),
            probes=4,
            rtol=1e-2,
            atol=1e-2,
        ),
    )
    yield (
        "dequantize",
        lambda: scoresde.dequantize(
            torch.arange(12).reshape(3, 4), levels=12, generator=torch.Generator().manual_seed(0)
        ),
    )
    yield "bits_per_dim", lambda: scoresde.bits_per_dim(random(5), (1, 3, 3), levels=17, data_range=(0.0, 1.0))


def _likelihood_gradient(differentiable: Any) -> Any:
    sde, weight = scoresde.VPSDE(), torch.tensor(0.2, dtype=F64, requires_grad=True)
    x = (DATA_STD * random(3, 3)).requires_grad_()
    score = scoresde.ScoreModel(Bent(sde, "noise", weight), sde, "noise")
    found = scoresde.log_likelihood(
        sde, score, x, divergence="exact", differentiable=differentiable, rtol=1e-3, atol=1e-3
    )
    return found.log_prob, torch.autograd.grad(found.log_prob.sum(), [x, *score.net.parameters()])


class Bent(nn.Module):
    """The network in closed form, with its bend as a parameter."""

    def __init__(self, sde: Any, prediction: str, bend: Any = 0.2, dtype: torch.dtype = F64, channels: int = 1) -> None:
        super().__init__()
        self.bend = nn.Parameter(torch.as_tensor(bend, dtype=dtype).detach().clone())
        self.shift = nn.Parameter(torch.zeros((), dtype=dtype))
        self.sde, self.prediction, self.channels = sde, prediction, channels

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out = closed_form(self.sde, self.prediction, self.bend)(x, t) + self.shift
        return out if self.channels == 1 else torch.cat([out, torch.tanh(self.bend * x)], 1)


def _profile(process: str) -> Any:
    sde = PROCESSES[process]()
    profile = scoresde.density_profile(sde, model(sde, "noise"), 0.5 * random(2, 3), points=5, seed=0, probes=2)
    return profile, profile.rate


@part
def bounds(quick: bool) -> Iterator[Case]:
    def bound(process: str, **given: Any) -> Any:
        sde = PROCESSES[process]()
        x = (0.5 * random(3, 4, seed=6)).clamp(-0.99, 0.99)
        if "levels" in given:
            x = torch.randint(0, given["levels"], (3, 4), generator=torch.Generator().manual_seed(0))
        found = scoresde.variational_bound(sde, model(sde, "noise"), x, **{"seed": 0, "draws": 4} | given)
        return found, found.total

    clocks = accepted(lambda clock: bound("vp", clock=clock))
    times = accepted(lambda name: bound("vp", times=name))
    for process in PROCESSES:
        for clock, draw in itertools.product(clocks, times):
            yield f"variational/{process}/{clock}/{draw}", functools.partial(bound, process, clock=clock, times=draw)
        for text, given in {
            "levels": {"levels": 17},
            "decoder": {"decoder": True},
            "steps": {"steps": 7},
            "steps-levels": {"steps": 7, "levels": 17},
            "noise": {"noise": lambda k, like: torch.full_like(like, math.sin(k + 1)), "seed": None},
        }.items():
            yield f"variational/{process}/{text}", functools.partial(bound, process, **given)
        yield f"decoder/{process}", functools.partial(_decoder_bound, process)
        yield f"decoder/{process}/levels", functools.partial(_decoder_bound, process, levels=17, importance=True)
        for name, cls in public(scoresde).items():
            if isinstance(cls, type) and name.endswith("Dequantizer") and not getattr(cls, "_is_protocol", False):
                for importance in (False, True):
                    yield (
                        f"discrete/{process}/{name}/{importance}",
                        functools.partial(_discrete, cls, process, importance),
                    )

    def chain(**given: Any) -> Any:
        chain = CHAINS[given.pop("chain", "chain-linear")]()
        learned = {"variance": "learned_range"} if given.pop("learned", False) else {}
        sde = chain.sde()
        score = scoresde.ScoreModel(
            Bent(sde, "noise", channels=2 if learned else 1),
            sde,
            "noise",
            "index",
            chain=chain,
            event_shape=(1, 3),
            **learned,
        )
        v = torch.randint(0, 17, (3, 1, 3), generator=torch.Generator().manual_seed(0))
        found = scoresde.chain_bound(chain, score, v, **{"levels": 17, "draws": 2, "seed": 0} | given)
        return found, found.bits_per_dim

    for name in CHAINS:
        for variance in [*accepted(lambda word: chain(variance=word)), "learned"]:
            for steps in ("all", "random"):
                for clip in (False, True):
                    yield (
                        f"{name}/{variance}/{steps}/{clip}",
                        functools.partial(
                            chain, chain=name, variance=variance, steps=steps, clip=clip, learned=variance == "learned"
                        ),
                    )


def _decoder_bound(process: str, **given: Any) -> Any:
    sde = PROCESSES[process]()
    x = 0.5 * random(3, 3)
    if "levels" in given:
        x = torch.randint(0, 17, (3, 3), generator=torch.Generator().manual_seed(0))
    more = {"draws": 2, "seed": 0, "divergence": "exact", "rtol": 1e-3, "atol": 1e-3, "dtype": F64}
    found = scoresde.decoder_bound(sde, model(sde, "noise"), x, **more | given)
    return found, found.log_prob


def _discrete(cls: Any, process: str, importance: bool) -> Any:
    sde = PROCESSES[process]()
    parameters = inspect.signature(cls).parameters
    given: dict[str, Any] = {"sde": sde} if "sde" in parameters else {}
    given |= {"event_shape": (3,), "hidden": 4} if "event_shape" in parameters else {}
    dequantizer = cls(levels=17, **given)
    if isinstance(dequantizer, nn.Module):
        dequantizer = dequantizer.double()
    v = torch.randint(0, 17, (3, 3), generator=torch.Generator().manual_seed(0))
    found = scoresde.discrete_log_likelihood(
        sde, model(sde, "noise"), v, dequantizer=dequantizer, draws=2, importance=importance, seed=0,
        divergence="exact", rtol=1e-3, atol=1e-3, dtype=F64,
    )  # fmt: skip
    return found, found.log_prob


@part
def discrete(quick: bool) -> Iterator[Case]:
    for name, make in CHAINS.items():
        yield f"{name}", functools.partial(_chain, make)
        for spacing in [*scoresde.discrete.SPACINGS, "?"]:
            yield (
                f"{name}/{spacing}",
                lambda make=make, spacing=spacing: [
                    make().grid(5, spacing),
                    make().respace(3, spacing).log_snrs,
                ],
            )
    module = submodule("ncsnv2")
    for name, given in {
        "best_step": (5, 1.2),
        "largest_distance": (random(20, 3),),
        "overlap": (50, 1.1),
        "ratio": (50,),
        "spread": (0.1, 5, 1.2),
    }.items():
        yield f"ncsnv2/{name}", lambda name=name, given=given: getattr(module, name)(*given)


def _chain(make: Any) -> Any:
    chain = make()
    own = {name: getattr(chain, name) for name in ("betas", "alphas_bar", "posterior_variances", "sigmas", "times")
           if hasattr(chain, name)}  # fmt: skip
    back = type(chain).from_config(chain.to_config())
    return own, chain.log_snrs, chain.labels, chain.label(chain.log_snrs), back.log_snrs, json.dumps(chain.to_config())


# ---- losses ----------------------------------------------------------------------------------------------------------

REQUIRED: dict[str, Callable[[Any], Any]] = {  # arguments without a default, given the process
    "score": lambda sde: lambda x, t: -x,
    "label": lambda sde: torch.tensor([0, 2, 1, 0]),
    "sde": lambda sde: sde,
    "t": lambda sde: 0.3,
    "step": lambda sde: 0.01,
}


LEARNED = ("chain", "chain-variance", "gamma")  # a chain, also with a learned variance, and a learned schedule


def _losses() -> dict[str, Any]:
    """Functions of ``(model, x0, generator, ...)``."""
    found = {}
    for name, loss in public(scoresde.losses).items():
        if inspect.isfunction(loss) and "generator" in inspect.signature(loss).parameters:
            found[name] = loss
    return found


@part
def losses(quick: bool) -> Iterator[Case]:
    for name, loss in _losses().items():
        for process, form, dtype in itertools.product((*PROCESSES, *LEARNED), FORMS[1:], DTYPES):
            if quick and (form, dtype) != ("noise", "float64"):
                continue
            yield f"{name}/{process}/{form}/{dtype}", functools.partial(_loss, loss, process, form, DTYPES[dtype])
        if "label" in inspect.signature(loss).parameters:  # a classifier's, which has no process
            continue
        fitting = accepted_by(functools.partial(_plain_loss, loss), ("vp", "flow", *LEARNED))
        for parameter in inspect.signature(loss).parameters.values():
            for process in fitting:
                for text, value in _loss_options(loss, parameter, process):
                    yield (
                        f"{name}/{parameter.name}={text}/{process}",
                        functools.partial(_loss, loss, process, "noise", F64, **{parameter.name: value}),
                    )
    for name in scoresde.losses.TARGETS:
        for form, process in itertools.product(FORMS[1:], PROCESSES):
            yield (
                f"denoising/target={name}/{form}/{process}",
                functools.partial(_loss, scoresde.losses.denoising, process, form, F64, target=name),
            )


def _loss_options(loss: Any, parameter: inspect.Parameter, process: str) -> Iterator[tuple[str, Any]]:
    """Other values of an option of a loss."""
    if parameter.kind is not parameter.KEYWORD_ONLY:
        return
    names = {"weight": scoresde.losses.WEIGHTS, "target": scoresde.losses.TARGETS}
    if parameter.name in names:
        yield from ((name, name) for name in names[parameter.name])
    elif parameter.name == "times":
        of_chain = process.startswith("chain")
        samplers = {name: make() for name, make in _samplers_of_times().items()}
        yield from (
            (name, sampler) for name, sampler in samplers.items() if hasattr(sampler, "probabilities") == of_chain
        )
    elif parameter.name in ("levels", "steps"):
        yield "17", 17
    elif isinstance(parameter.default, bool):
        yield str(not parameter.default), not parameter.default
    elif isinstance(parameter.default, float):
        yield f"{0.75 * parameter.default:g}", 0.75 * parameter.default
    elif isinstance(parameter.default, int):
        yield str(parameter.default + 1), parameter.default + 1
    elif isinstance(parameter.default, str) or parameter.name == "variance":
        for name in accepted(lambda name: _loss(loss, process, "noise", F64, **{parameter.name: name})):
            yield name, name


def _loss(loss: Any, process: str, form: str, dtype: torch.dtype, /, **options: Any) -> Any:
    parameters = inspect.signature(loss).parameters
    x0 = random(4, 2, 3, seed=6, dtype=dtype)
    if "label" in parameters:
        sde, score, x0 = PROCESSES["vp"](), _classifier(), random(4, 1, 8, 8, dtype=F32)
        learned = list(score.net.parameters())
    else:
        sde, score, learned = _learner(process, form, dtype)
    wanted = [p.name for p in parameters.values() if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    extra = {name: REQUIRED[name](sde) for name in wanted} | options
    if extra.get("levels") == 17:
        x0 = (torch.randint(0, 17, x0.shape, generator=torch.Generator().manual_seed(0)).to(dtype) + 0.5) / 8.5 - 1
    x0.requires_grad_()
    value = loss(score, x0, torch.Generator().manual_seed(5), **extra)
    return value, torch.autograd.grad(value.sum(), [*learned, x0], allow_unused=True)


def _learner(process: str, form: str, dtype: torch.dtype) -> tuple[Any, Any, list[nn.Parameter]]:
    """A process, a model of it, and what the two learn."""
    given: dict[str, Any] = {}
    gamma = None
    if process == "gamma":
        gamma = seeded(lambda: scoresde.nets.MonotoneGamma(-6.0, 4.0, 8)).to(dtype)
        sde = scoresde.VDMSDE(gamma)
    elif process in PROCESSES:
        sde = PROCESSES[process]()
    else:
        given = {"chain": scoresde.discrete.BetaChain.linear(20), "time_input": "index"}
        sde = given["chain"].sde()
    if process == "chain-variance":
        given["variance"] = "learned_range"
    net = Bent(sde, form, dtype=dtype, channels=2 if process == "chain-variance" else 1)
    score = scoresde.ScoreModel(net, sde, form, event_shape=(2, 3), **given)
    return sde, score, [*net.parameters(), *(gamma.parameters() if gamma is not None else ())]


def _plain_loss(loss: Any, process: str) -> Any:
    return _loss(loss, process, "noise", F64)


def _classifier() -> Any:
    net = seeded(lambda: scoresde.nets.Classifier((1, 8, 8), classes=3, channels=8, blocks=1, width=8))
    return scoresde.guidance.NoisyClassifier(net, 0.6)


def _samplers_of_times() -> dict[str, Callable[[], Any]]:
    """Every sampler of times, with arguments where it needs some."""
    chain = scoresde.discrete.BetaChain.linear(20)
    arguments: dict[str, Any] = {"t": 0.4, "levels": lambda u: 0.1 + u, "chain": chain, "weights": range(1, 21)}
    found: dict[str, Callable[[], Any]] = {}
    for name, cls in public(scoresde.losses).items():
        if isinstance(cls, type) and issubclass(cls, scoresde.losses.Times) and not inspect.isabstract(cls):
            needed = [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
            found[name] = functools.partial(cls, **{n: arguments[n] for n in needed if n in arguments})
    return found


@part
def times(quick: bool) -> Iterator[Case]:
    chain = scoresde.discrete.BetaChain.linear(20)
    processes = PROCESSES | {"chain": chain.sde}
    for (name, make), (process, sde) in itertools.product(_samplers_of_times().items(), processes.items()):
        yield f"{name}/{process}", functools.partial(_drawn, make, sde)
    for (name, weight), (process, sde) in itertools.product(scoresde.losses.WEIGHTS.items(), processes.items()):
        for dtype in DTYPES:
            yield f"weight/{name}/{process}/{dtype}", functools.partial(_weight, weight, sde, DTYPES[dtype])


def _drawn(make: Any, sde: Any) -> Any:
    sampler, process = make(), sde()
    draw = sampler.draw(process, 9, torch.Generator().manual_seed(0))
    sampler.observe(draw, torch.linspace(0.1, 1.0, 9))
    again = sampler.draw(process, 9, torch.Generator().manual_seed(1))
    at = sampler.at(process, torch.linspace(0.01, 0.99, 5, dtype=F64))
    return draw, again, at, sampler.state_dict(), repr(sampler)


def _weight(weight: Any, sde: Any, dtype: torch.dtype) -> Any:
    process = sde()
    return weight(process.nodes(torch.linspace(process.t_min, process.t_max, 9, dtype=dtype)[1:-1]))


# ---- guidance, inverse problems --------------------------------------------------------------------------------------


def _guided(sde: Any) -> dict[str, Callable[[], Any]]:
    """A guided score function of every kind, for a process with mixtures as data."""
    guidance, target, other = scoresde.guidance, mixture(), gaussian()
    score, second = target.score(sde), other.score(sde)
    rho = [0.1, 5.0]

    def right(x: Tensor, t: Any) -> Tensor:
        return target.log_responsibilities(x, sde, t)[:, 1]

    def seen(data: Tensor) -> Tensor:
        return -((data[:, 0] - 0.3) ** 2) / 0.02

    def log(data: Any) -> Callable[..., Tensor]:
        return lambda x, t: data.log_prob(x, sde, t)

    def labelled(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        a, s = over(sde.alpha(t), x), over(sde.sigma(t), x)
        return -(x - a * y / 2) / (a**2 / 2 + s**2)

    unit, y = scoresde.targets.Gaussian(torch.zeros(3, dtype=F64), 1.0), {"y": random(4, 3)}
    half = torch.full((4, 3), 0.5, dtype=F64)
    return {
        "classifier_guidance": lambda: guidance.classifier_guidance(score, right, 2.0),
        "classifier_guidance-interval": lambda: guidance.classifier_guidance(score, right, 2.0, rho),
        "classifier_free": lambda: guidance.classifier_free(score, second, 2.5),
        "classifier_free-interval": lambda: guidance.classifier_free(score, second, 2.5, [None, 2.0]),
        "classifier_free-rescale": lambda: guidance.classifier_free(score, second, 2.5, rescale=0.7),
        "classifier_free-models": lambda: guidance.classifier_free(model(sde, "noise"), model(sde, "v"), 1.5),
        "autoguidance": lambda: guidance.autoguidance(score, second, 1.5),
        "autoguidance-interval": lambda: guidance.autoguidance(score, second, 1.5, rho),
        "conditional": lambda: guidance.conditional(labelled, y=random(1, 3)[0], sde=sde),
        "likelihood_guidance": lambda: guidance.likelihood_guidance(score, seen),
        "likelihood_guidance-not-through": lambda: guidance.likelihood_guidance(score, seen, 0.5, rho, through=False),
        "mixture": lambda: guidance.mixture([score, second], [log(target), log(other)], [1.0, 3.0]),
        "negation": lambda: guidance.negation(score, second, 0.3),
        "product": lambda: guidance.product(score, second, weights=[0.6, 0.4]),
        "product-base": lambda: guidance.product(score, second, base=unit.score(sde)),
        "tall": lambda: guidance.tall(labelled, unit, y, covariances=half, sde=sde),
        "tall-chunk": lambda: guidance.tall(labelled, unit, y, covariances=half, chunk=2, sde=sde),
        "tall-none": lambda: guidance.tall(labelled, unit, y, sde=sde),
        "temperature": lambda: guidance.temperature(score, 0.6),
        "temperature-variance": lambda: guidance.temperature(score, 0.6, 0.3),
        "NoisyClassifier": lambda: guidance.classifier_guidance(
            lambda x, t: -x, _classifier().log_prob(sde, 1), 1.5, sde=sde
        ),
        "nested": lambda: guidance.classifier_free(
            guidance.classifier_guidance(score, right), guidance.temperature(second, 0.9), 1.5
        ),
    }


@part
def guidance(quick: bool) -> Iterator[Case]:
    methods = [m.name for m in scoresde.methods() if m.name in ("dpmpp_2m", "ancestral", "heun", "rk45", "pc")]
    names = list(_guided(scoresde.VPSDE()))
    for name, process, method in itertools.product(names, PROCESSES, methods):
        if not quick or method == "dpmpp_2m":
            yield f"{name}/{process}/{method}", functools.partial(_guide, name, process, method)


def _guide(name: str, process: str, method: str) -> Any:
    sde = PROCESSES[process]()
    score = _guided(sde)[name]()
    image = name == "NoisyClassifier"
    steps = {"rtol": 1e-2, "atol": 1e-2} if method == "rk45" else {"steps": 4}
    shape = (2, 1, 8, 8) if image else (3, 3)
    x = random(*shape, dtype=F32 if image else F64)
    solution = scoresde.solve(
        sde, score, shape=shape, method=method, seed=0, dtype=x.dtype, denoise=method == "heun", **steps
    )
    return solution, score(x, 0.5), repr(score) if " at 0x" not in repr(score) else None


def _operators() -> dict[str, Callable[[], Any]]:
    """Every operator, on small images or vectors."""
    inverse, image = scoresde.inverse, (1, 6, 6)
    mask = (random(*image, seed=3) > 0).to(F64)
    return {
        "Blur": lambda: inverse.Blur(image, random(3, 3).abs()),
        "Grey": lambda: inverse.Grey((3, 4, 4)),
        "Mask": lambda: inverse.Mask(mask > 0.5),
        "Matrix": lambda: inverse.Matrix(random(4, 9), (1, 3, 3)),
        "Nonlinear": lambda: inverse.Nonlinear(lambda x: x.abs().flatten(1)[:, :5], (5,)),
        "PartialFourier": lambda: inverse.PartialFourier(image, random(6, 6, seed=4) > 0),
        "Separable": lambda: inverse.Separable(image, random(3, 6), random(4, 6, seed=1)),
        "bicubic": lambda: inverse.bicubic(image, 2),
        "block_average": lambda: inverse.block_average(image, 3),
        "gaussian_blur": lambda: inverse.gaussian_blur(image, 1.2),
        "random_projection": lambda: inverse.random_projection(image, 7, seed=2),
        "Blur-motion": lambda: inverse.Blur(image, inverse.motion_kernel(3, 30.0)),
        "Blur-gaussian": lambda: inverse.Blur(image, inverse.gaussian_kernel(0.8, radius=1)),
    }


@part
def operators(quick: bool) -> Iterator[Case]:
    known = _operators()
    for name, dtype in itertools.product(known, DTYPES):
        yield f"{name}/{dtype}", functools.partial(_operator, name, DTYPES[dtype])
    for border in accepted(lambda border: scoresde.inverse.Blur((1, 6, 6), random(3, 3).abs(), border=border)):
        yield (
            f"Blur/border={border}",
            lambda border=border: scoresde.inverse.Blur((1, 6, 6), random(3, 3).abs(), border=border).matrix(),
        )


def _operator(name: str, dtype: torch.dtype) -> Any:
    operator = _operators()[name]()
    shape = getattr(operator, "event_shape", (6,))
    x, y = random(2, *shape, dtype=dtype), random(2, *operator.measurement_shape, seed=5, dtype=dtype)
    calls = {
        "forward": lambda: operator.forward(x) if hasattr(operator, "forward") else operator(x),
        "adjoint": lambda: operator.adjoint(y),
        "pseudo_inverse": lambda: operator.pseudo_inverse(y),
        "values": lambda: operator.svd.values,
        "filter": lambda: operator.filter(x, lambda s: s / (1 + s**2)),
        "matrix": lambda: operator.matrix(),
        "rank": lambda: operator.rank,
        "repr": lambda: re.sub(r"<.*?>", "<function>", repr(operator)),
    }
    return {key: _own(call) for key, call in calls.items()}


def _own(call: Callable[[], Any]) -> Any:
    """What an operator returns; one of its errors, or that it has no such attribute."""
    try:
        return call()
    except (scoresde.ScoreSDEError, AttributeError) as error:
        return type(error).__name__


def _measured(kind: str) -> tuple[Any, Any, Tensor, Any]:
    """A target, an operator, a measurement, and its noise."""
    target = mixture(4)
    matrix = random(2, 4, seed=11)
    if kind == "covariance":
        return target, matrix, random(2, seed=12), torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=F64)
    if kind == "mask":
        operator = scoresde.inverse.Mask(torch.tensor([True, False, True, True]))
        return target, operator, random(*operator.measurement_shape, seed=12), 0.0
    if kind == "nonlinear":
        return target, scoresde.inverse.Nonlinear(lambda x: x[:, :2].abs(), (2,)), random(2, seed=12).abs(), 0.2
    if kind == "exact":
        return target, matrix, random(2, seed=12), 0.0
    return target, matrix, random(3, 2, seed=12) if kind == "batch" else random(2, seed=12), 0.3


MEASUREMENTS = ("plain", "batch", "covariance", "exact", "mask", "nonlinear")


@part
def inverse(quick: bool) -> Iterator[Case]:
    for method in scoresde.inverse.methods():
        for kind, process in itertools.product(MEASUREMENTS, PROCESSES):
            if quick and (kind, process) not in (("plain", "vp"), ("mask", "ve")):
                continue
            yield f"{method.name}/{kind}/{process}", functools.partial(_posterior, method, kind, process)
        for sampler in ("ddim", "dpmpp_2m", "heun", "pc"):
            if method.kind == "rule":
                yield (
                    f"{method.name}/sampler={sampler}",
                    functools.partial(_posterior, method, "plain", "vp", sampler=sampler),
                )
        for option in method.options:
            default = inspect.signature(method.cls).parameters[option].default
            if isinstance(default, int | float) and not isinstance(default, bool):
                other = default + 1 if isinstance(default, int) else 0.75 * default
                yield (
                    f"{method.name}/{option}={other:g}",
                    functools.partial(_posterior, method, "plain", "vp", **{option: other}),
                )
        for kind in MEASUREMENTS:
            if method.kind == "rule":
                yield f"{method.name}/{kind}/score", functools.partial(_conditioned, method, kind)
    yield "refused", lambda: scoresde.inverse.condition(mixture(4).score(scoresde.VPSDE()), random(2, 4), random(3))


SHORT = {"sweeps": 3, "hold": 1, "descent": 3, "jump": 2}


def _settings(method: Any, target: Any) -> dict[str, Any]:
    given = {name: value for name, value in SHORT.items() if name in method.options}
    return given | ({"target": target} if "target" in method.options else {})


def _posterior(method: Any, kind: str, process: str, **more: Any) -> Any:
    sde = PROCESSES[process]()
    target, operator, y, std = _measured(kind)
    given = _settings(method, target) | {"steps": 4, "shape": (3, 4), "seed": 0, "dtype": F64} | more
    return scoresde.inverse.sample_posterior(sde, target.score(sde), operator, y, std, method=method.name, **given)


def _conditioned(method: Any, kind: str) -> Any:
    target, operator, y, std = _measured(kind)
    found = {}
    for process, make in PROCESSES.items():
        sde = make()
        given = _settings(method, target)
        score = scoresde.inverse.condition(target.score(sde), operator, y, std, method=method.name, **given)
        found[process] = attempt(lambda score=score: [score(random(3, 4), t) for t in (0.1, 0.5, 0.9)])
    return found


@part
def tilted(quick: bool) -> Iterator[Case]:
    kinds = ("classifier_guidance", "likelihood_guidance", "temperature")
    for process, name in itertools.product(PROCESSES, list(_guided(scoresde.VPSDE()))):
        if name.startswith(kinds):
            yield f"{name}/{process}", functools.partial(_tilted, process, name)
    for text, given in {
        "threshold": {"threshold": 0.9},
        "data_std": {"data_std": 0.5},
        "particles": {"particles": 4},
    }.items():
        yield f"options/{text}", functools.partial(_tilted, "vp", "classifier_guidance", **given)


def _tilted(process: str, name: str, **given: Any) -> Any:
    sde = PROCESSES[process]()
    more = {"steps": 5, "shape": (8, 3), "seed": 0, "dtype": F64} | given
    return scoresde.sample_tilted(sde, _guided(sde)[name](), **more)


# ---- fits, networks, files, training ---------------------------------------------------------------------------------


@part
def fit(quick: bool) -> Iterator[Case]:
    for process, method in itertools.product(PROCESSES, ("unipc2", "heun", "ddim")):
        for text, given in {"gradient": {"iterations": 3}, "search": {"iterations": 3, "gradient": False}}.items():
            if not quick or (process, method) == ("vp", "unipc2"):
                yield f"grid/{process}/{method}/{text}", functools.partial(_fit_grid, process, method, **given)
    for objective in ("log", "rms"):
        yield f"grid/objective/{objective}", functools.partial(_fit_grid, "vp", "ddim", objective=objective)
    for process in PROCESSES:
        for method, given in (("adams", {}), ("unipc2", {"steps": 5})):
            yield f"start/{process}/{method}", functools.partial(_fit_start, process, method, **given)


def _fit_grid(process: str, method: str, **given: Any) -> Any:
    sde = PROCESSES[process]()
    more = {"pilot": 8, "iterations": 2, "reference": 40, "shape": (8, 3), "dtype": F64, "seed": 0}
    grid = scoresde.fit_grid(sde, mixture().score(sde), 4, method, **more | given)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.json"
        saved = attempt(lambda: (grid.save(path), path.read_bytes())[1])
    return grid, saved, _solve(process, "noise", method=method, grid=grid, seed=0, dtype=F64).x


def _fit_start(process: str, method: str, **given: Any) -> Any:
    sde, target = PROCESSES[process](), mixture()
    near = scoresde.targets.Gaussian.fit(target.sample(200, generator=torch.Generator().manual_seed(0)))
    start = scoresde.fit_start(sde, target.score(sde), near, method=method, rtol=0.05, pilot=8, levels=8, **given)
    solved = scoresde.solve(
        sde, target.score(sde), shape=(3, 3), start=start, method="dpmpp_2m", steps=3, seed=0, dtype=F64
    )
    return start.t, start.bound, start.full, start.warm, solved


@part
def networks(quick: bool) -> Iterator[Case]:
    small = {"channels": 8, "blocks": 1, "width": 16}
    for name, cls in scoresde.nets.ARCHITECTURES.items():
        shape = (1, 8, 8) if "heads" in inspect.signature(cls).parameters else (3,)
        for embedding in scoresde.nets.EMBEDDINGS:
            yield f"{name}/time={embedding}", functools.partial(_network, cls, shape, **small, time=embedding)
        for text, given in {
            "fourier": {"fourier": (2, 3)},
            "variance": {"learned_variance": True},
            "labels": {"labels": 3},
            "dropout": {"dropout": 0.2},
        }.items():
            yield f"{name}/{text}", functools.partial(_network, cls, shape, **small, **given)
    yield (
        "Classifier",
        functools.partial(_network, scoresde.nets.Classifier, (1, 8, 8), channels=8, blocks=1, width=8, classes=3),
    )
    yield "MonotoneGamma", lambda: _gamma()
    for process, prediction in itertools.product(PROCESSES, ("noise", "data", "v")):
        for method in ("dpmpp_2m", "heun", "ancestral", "adams"):
            yield (
                f"solve/{process}/{prediction}/{method}",
                functools.partial(_network_solve, process, prediction, method),
            )


def _network(cls: Any, shape: tuple[int, ...], **given: Any) -> Any:
    net = seeded(lambda: cls(shape, **given))
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):  # last layers start at zero
            parameter.add_(0.05 * random(*parameter.shape, seed=i, dtype=parameter.dtype))
    x, t = random(2, *shape, dtype=F32), torch.tensor([0.1, 0.7])
    more = {"label": torch.tensor([0, 2])} if given.get("labels") else {}
    out = net.eval()(x, t, **more)
    gradients = torch.autograd.grad(out.square().sum(), list(net.parameters()), allow_unused=True)
    return out, gradients, dict(net.state_dict()), seeded(lambda: net.train()(x, t, **more))


def _gamma() -> Any:
    gamma = seeded(lambda: scoresde.nets.MonotoneGamma(-6.0, 4.0, 8))
    t = torch.linspace(0, 1, 5)
    sde = scoresde.VDMSDE(gamma)
    return gamma(t), sde.alpha(t), sde.diffusion(t), dict(gamma.state_dict())


MLP = {"channels": 16, "blocks": 1, "width": 8}


def _mlp(labels: int = 0) -> Any:
    net = seeded(lambda: scoresde.nets.MLP((3,), **MLP, labels=labels))
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.add_(0.1 * random(*parameter.shape, seed=i, dtype=parameter.dtype))
    return net.requires_grad_(False)


def _network_solve(process: str, prediction: str, method: str) -> Any:
    sde = PROCESSES[process]()
    score = scoresde.ScoreModel(_mlp(), sde, prediction, event_shape=(3,))
    steps = {"rtol": 1e-2, "atol": 1e-2} if method == "adams" else {"steps": 5}
    return scoresde.solve(sde, score, shape=(3, 3), method=method, seed=0, **steps)


@part
def digits(quick: bool) -> Iterator[Case]:
    for process in (*PROCESSES, "EDMSDE"):
        for method, given in {
            "auto": {"steps": 6},
            "dpmpp_2m": {"steps": 4, "denoise": True},
            "adams": {"rtol": 5e-2, "atol": 5e-2},
            "pc": {"steps": 4},
            "ancestral": {"steps": 4},
        }.items():
            if not quick or process == "vp":
                yield f"solve/{process}/{method}", functools.partial(_digits, process, method, **given)
        yield f"likelihood/{process}", functools.partial(_digits_likelihood, process)
    yield "sample", lambda: scoresde.load("digits").sample(2, label=3, seed=0, method="auto", evaluations=10)
    yield "config", lambda: scoresde.load("digits").config
    steps = {grid.steps for grid in scoresde.load("digits").config.grids}
    for process, n in itertools.product(("vp", "EDMSDE"), sorted(steps)):
        yield f"grid/{process}/{n}", functools.partial(_digits_grid, process, n)
    yield "grid/refused", lambda: _digits_grid("vp", 7)
    yield "weights", lambda: dict(scoresde.load("digits").net.state_dict())
    yield "call", lambda: scoresde.load("digits").score(scoresde.VPSDE(), label=4)(random(2, 1, 8, 8, dtype=F32), 0.3)
    yield "split", lambda: submodule("training").digits_split()
    yield "free", _digits_guided


def _digits_process(process: str) -> Any:
    sde = scoresde.EDMSDE() if process == "EDMSDE" else PROCESSES[process]()
    network = scoresde.load("digits")
    return network, network.process(sde)


def _digits(process: str, method: str, **given: Any) -> Any:
    network, sde = _digits_process(process)
    return scoresde.solve(sde, network.score(sde, label=2), shape=(2, 1, 8, 8), method=method, seed=0, **given)


def _digits_grid(process: str, steps: int) -> Any:
    network, sde = _digits_process(process)
    return network.grid(sde, steps)


def _digits_likelihood(process: str) -> Any:
    network, sde = _digits_process(process)
    x = 0.5 * random(1, 1, 8, 8, dtype=F32)
    given = {"rtol": 0.1, "atol": 0.1, "seed": 0, "probes": 2, "check": False}
    return scoresde.log_likelihood(sde, network.score(sde), x, **given)


def _digits_guided() -> Any:
    network, sde = _digits_process("vp")
    guided = scoresde.guidance.classifier_free(network.score(sde, label=3), network.score(sde), 2.0)
    return scoresde.solve(sde, guided, method="unipc", steps=4, seeds=range(2), shape=(2, 1, 8, 8))


@part
def check(quick: bool) -> Iterator[Case]:
    for process, form, wrong in itertools.product(PROCESSES, FORMS, (*FORMS, "zero", "flow")):
        yield f"{process}/{form}-as-{wrong}", functools.partial(_check, process, form, wrong)
    yield (
        "digits",
        lambda: scoresde.check_score(
            scoresde.VPSDE(),
            scoresde.load("digits").score(scoresde.VPSDE()),
            0.5 * random(4, 1, 8, 8, dtype=F32),
            levels=3,
        ),
    )


def _check(process: str, form: str, declared: str) -> Any:
    sde = PROCESSES[process]()
    net = (lambda x, t: 0 * x) if declared == "zero" else closed_form(sde, "score" if form == "bare" else form)
    score = net if declared in ("bare", "zero") else scoresde.ScoreModel(
        net, sde, "score" if declared == "bare" else declared
    )  # fmt: skip
    report = scoresde.check_score(sde, score, DATA_STD * random(16, 3, seed=6), levels=4)
    return report, report.ok, str(report)


@part
def presets(quick: bool) -> Iterator[Case]:
    for name in scoresde.presets.PRESETS:
        yield f"{name}/description", functools.partial(_preset, name)
        yield f"{name}/train", functools.partial(_train_preset, name, 3 if quick else 6)


def _tiny(name: str, steps: int) -> Any:
    preset = scoresde.presets.PRESETS[name]
    kwargs = {**preset.kwargs, "channels": 8, "blocks": 1, "width": 8}
    return dataclasses.replace(
        preset, kwargs=kwargs, recipe=dataclasses.replace(preset.recipe, steps=steps, batch_size=4)
    )


def _preset(name: str) -> Any:
    preset = scoresde.presets.PRESETS[name]
    process = None if preset.process is None else preset.process()
    return preset, repr(process), getattr(process, "log_snrs", None)


def _train_preset(name: str, steps: int) -> Any:
    training = submodule("training")
    with tempfile.TemporaryDirectory() as folder:
        network = training.train(_tiny(name, steps), training.read("digits"), folder, progress=False)
        files = _files(Path(folder))
    sde = network.sde
    out = network.score()(random(1, 1, 8, 8, dtype=F32), 0.5 * (sde.t_min + sde.t_max))
    chain = network.chain
    bits = None if chain is not None and len(chain) > 100 else attempt(lambda: _tiny(name, steps).bits(
        network.score(), submodule("training").digits_split().test_images[:1], levels=17, draws=2
    ))  # fmt: skip
    return dict(network.net.state_dict()), out, bits, files


def _files(folder: Path) -> dict[str, Any]:
    """The files of a saved model, byte by byte."""
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors")
    }


@part
def training(quick: bool) -> Iterator[Case]:
    module = submodule("training")
    for text, given in {
        "plain": {},
        "accumulate": {"accumulate": 2},
        "adam": {"optimizer": "adam", "decay": "none"},
        "clip": {"clip": 0.1, "weight_decay": 0.1},
        "ema": {"ema_power": 9.0},
    }.items():
        yield f"digits/{text}", functools.partial(_train, {"steps": 20, "batch_size": 8, "warmup": 4, **given})
    yield "resumed", _resumed
    yield (
        "classifier",
        lambda: dict(
            module.train_classifier(
                module.read("digits"), recipe=module.Recipe(steps=5, batch_size=8), progress=False
            ).state_dict()
        ),
    )
    for text, given in {
        "flip": {"flip": True},
        "labels": {"label_dropout": 0.5},
        "centred": {"dequantise": False},
    }.items():
        yield f"batches/{text}", lambda given=given: _batches(**given)


def _batches(**given: Any) -> Any:
    module = submodule("training")
    batches = module.Batches(module.read("digits"), 5, 3, **given)
    return batches.std(), [(piece.x0, piece.context, piece.dropout) for piece in module.Stateless(batches)(0, 3)]


def _train(recipe: Mapping[str, Any], folder: Path | None = None) -> Any:
    module = submodule("training")
    preset = dataclasses.replace(_tiny("edm-wide", 1), recipe=module.Recipe(**recipe))
    network = module.train(preset, module.read("digits"), folder, progress=False, checkpoint_every=10)
    return dict(network.net.state_dict()), network.config


def _resumed() -> Any:
    module = submodule("training")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        seen: list[Any] = []
        preset = dataclasses.replace(_tiny("edm-wide", 1), recipe=module.Recipe(steps=20, batch_size=8, warmup=2))

        class Stop(Exception):
            pass

        def stop(progress: Any) -> None:
            seen.append(progress.step)
            raise Stop

        every = module.Every(13, stop)
        with contextlib.suppress(Stop):
            module.train(preset, module.read("digits"), folder, progress=False, checkpoint_every=5, callbacks=[every])
        network = module.train(preset, module.read("digits"), folder, progress=False, checkpoint_every=5)
        return seen, dict(network.net.state_dict()), _files(folder)


@part
def files(quick: bool) -> Iterator[Case]:
    for process, prediction in itertools.product(_every_process(), ("noise", "edm", "v")):
        yield f"{process}/{prediction}", functools.partial(_saved, process, prediction)
    yield "labels", lambda: _saved("VPSDE", "noise", labels=3)
    yield "digits", _saved_digits
    yield "missing", lambda: scoresde.load("no/such/folder")


def _saved(process: str, prediction: str, labels: int = 0) -> Any:
    chain = CHAINS[process]() if process in CHAINS else None
    sde = chain.sde() if chain else _every_process()[process]()
    given = {"chain": chain, "time_input": "index"} if chain else {}
    score = scoresde.ScoreModel(_mlp(labels), sde, prediction, event_shape=(3,), **given)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        scoresde.save(score, path, kwargs={"event_shape": [3], **MLP, "labels": labels})
        again = scoresde.load(path)
        return _files(path), again.config, again.score()(random(2, 3, dtype=F32), 0.5)


def _saved_digits() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        scoresde.save(scoresde.load("digits"), path)
        return _files(path)


# ---- saving the results ----------------------------------------------------------------------------------------------


def missing(error: BaseException) -> str | None:
    """The name of scoresde that a case needs and this version lacks, or None if the error is another."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    here = last is not None and last.tb_frame.f_code.co_filename == __file__
    if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("scoresde."):
        return f"no {error.name}"
    if not here or not isinstance(error, AttributeError):
        return None
    owner = error.obj if isinstance(error.obj, types.ModuleType | type) else type(error.obj)
    name = owner.__name__ if isinstance(owner, types.ModuleType) else f"{owner.__module__}.{owner.__qualname__}"
    return f"no {name}.{error.name}" if name.split(".")[0] == "scoresde" else None


def flatten(value: Any, name: str = "", seen: tuple[int, ...] = ()) -> Iterator[tuple[str, Tensor | str]]:
    """Everything that a value holds, by where it is: tensors, and texts for what is none."""
    inside = f"{name}." if name else ""
    if id(value) in seen:
        yield name, "<itself>"
    elif isinstance(value, Tensor):
        plain = value.detach().cpu()
        yield name, (torch.view_as_real(plain) if plain.is_complex() else plain).clone().contiguous()
    elif isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        yield name, torch.from_numpy(np.array(value))
    elif isinstance(value, enum.Enum | str | torch.dtype | torch.device | type(None) | Path):
        yield name, str(value)
    elif isinstance(value, bytes):
        yield (
            name,
            torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else torch.zeros(0, dtype=torch.uint8),
        )
    elif isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63):
        kind = torch.bool if isinstance(value, bool) else F64 if isinstance(value, float) else torch.int64
        yield name, torch.tensor(value, dtype=kind)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, f"{inside}{key}", (*seen, id(value)))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from flatten(value._asdict(), name, seen)
    elif isinstance(value, list | tuple | range):
        yield f"{inside}len", torch.tensor(len(value))
        for i, item in enumerate(value):
            yield from flatten(item, f"{inside}{i}", (*seen, id(value)))
    elif isinstance(value, Set):
        yield name, str(sorted(map(str, value)))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if not f.name.startswith("_")]
        for field in fields:
            yield from flatten(getattr(value, field), f"{inside}{field}", (*seen, id(value)))
    elif isinstance(value, functools.partial):
        yield from flatten([value.func, *value.args, dict(value.keywords)], name, seen)
    else:
        yield name, getattr(value, "__qualname__", None) or f"<{type(value).__qualname__}>"


def scrub(text: str) -> str:
    """A text without the paths and addresses of this run."""
    root = str(Path(scoresde.__file__).parent.parent)
    text = text.replace(root, "<root>").replace(str(Path(__file__).parent), "<cases>")
    text = re.sub(re.escape(tempfile.gettempdir()) + r"/tmp\w+", "<folder>", text)
    return re.sub(r"0x[0-9a-f]{6,}", "0x…", text)


def run(compute: Callable[[], Any]) -> tuple[dict[str, Tensor], dict[str, str], str | None]:
    """The tensors and texts of a case, or the name that it lacks."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = dict(flatten({"result": compute()}))
        except Exception as error:
            absent = missing(error)
            if absent:
                return {}, {}, absent
            found = {"error": type(error).__name__, "error.text": str(error)}
        found |= {f"warning.{i}": f"{w.category.__name__}: {w.message}" for i, w in enumerate(caught)}
    found["global generator used"] = str(not torch.equal(before, torch.get_rng_state()))
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    return tensors, {name: scrub(value) for name, value in found.items() if isinstance(value, str)}, None


def main() -> None:
    """Compute the cases that the journal does not have yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", default=list(PARTS))
    parser.add_argument("--match", default="*")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if not Path(scoresde.__file__).is_relative_to(Path(__file__).parent):
        raise SystemExit(f"scoresde came from {scoresde.__file__}, not from {Path(__file__).parent}.")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    versions = {"python": sys.version.split()[0], "threads": torch.get_num_threads(), "files": {}}
    for name in PACKAGES:
        try:
            versions["files"][name] = importlib.import_module(name).__file__
        except ImportError:
            versions["files"][name] = None
    (arguments.out / "versions.json").write_text(json.dumps(versions))
    path = arguments.out / "journal.jsonl"
    done = {json.loads(line)["case"] for line in path.read_text().splitlines()} if path.exists() else set()
    known: set[str] = set()
    with path.open("a") as journal:

        def note(**record: Any) -> None:
            journal.write(json.dumps(record) + "\n")
            journal.flush()

        for name in arguments.only:
            cases = PARTS[name](arguments.quick)
            while True:
                signal.setitimer(signal.ITIMER_PROF, LIMIT)
                try:
                    label, compute = next(cases)
                except StopIteration:
                    break
                except Exception as error:  # the list itself ends here
                    label, compute = "list of cases", functools.partial(_raise, error)
                case = f"{name}/{label}"
                if case in known:
                    raise SystemExit(f"Two cases are called {case}.")
                known.add(case)
                if case in done or not fnmatch.fnmatchcase(case, arguments.match):
                    continue
                note(case=case)
                begin = time.process_time()
                tensors, texts, absent = run(compute)
                seconds = round(time.process_time() - begin, 4)
                file = f"{len(known):06}.safetensors"
                if tensors:
                    safetensors.torch.save_file(tensors, arguments.out / file)
                note(case=case, texts=texts, absent=absent, file=file if tensors else None, seconds=seconds)


def _raise(error: BaseException) -> None:
    raise error


if __name__ == "__main__":
    main()
