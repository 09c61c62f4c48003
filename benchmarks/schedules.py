r"""Learned schedules and learned variances: what they gain, on held-out digits.

- *vdm*: the preset ``vdm`` with a learned :math:`\gamma`, `scoresde.nets.MonotoneGamma`, its ends trained by the bound
  and its interior by the variance. The network receives the noise level and not the time, so that one network serves
  both this schedule and a line between the same ends, and the variance of its diffusion term is compared exactly: of
  the mean over a batch of 128 digits with low-discrepancy times, and of a single value (with independent times that of
  a batch is as much over 128), redrawn each time; standard errors by bootstrap over batches. By quadrature over
  :math:`\gamma`, with :math:`\ell = \tfrac12\|\hat\varepsilon-\varepsilon\|^2` and the density :math:`q(\gamma) =
  1/\gamma'(t)` that a schedule gives the noise levels,

  .. math:: \mathrm{Var}_{single} = \int\frac{E\ell^2}{q}d\gamma - \Big(\int E\ell\,d\gamma\Big)^2, \qquad
            \mathrm{Var}_{even} = \int\frac{\mathrm{Var}\,\ell}{q}d\gamma,

  the second of a batch of evenly spread times, times its size, the first of a single value. Least are they with
  :math:`q\propto\sqrt{E\ell^2}` and :math:`\sqrt{\mathrm{Var}\,\ell}`: what any schedule can attain. Beside it the
  gradient of the ends with finite differences of the bound.
- *held*: the same variances where the ends are held at VDM's -13.3 and 5 instead.
- *steps* (in the part vdm): the diffusion term in T steps less that in continuous time, same digits and noise at all
  levels: the slope.
- *iddpm*: the preset ``iddpm``, and its bound with 25, 50 and 100 respaced levels with the learned variance and both
  fixed ones, on the same draws.
- *bound*: the held-out bound of VDM with a learned schedule, and of another network that was trained alike with a line
  between learned ends.

``python -m benchmarks schedules`` trains four networks and writes ``results/schedules.json``; ``--folder`` keeps them
for another run, ``--only iddpm`` measures a part and puts it in the file, ``--check`` checks what holds of any network.
"""

from __future__ import annotations

import argparse
import copy
import functools
import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import scoresde
from benchmarks._record import write
from benchmarks._tables import load as recorded
from scoresde import VDMSDE, ScoreModel
from scoresde.core.sdes import LinearGamma
from scoresde.likelihood.bits import cell
from scoresde.losses import LowDiscrepancy, Times, UniformTimes, diffusion_at, vdm
from scoresde.losses.core import denoising_at
from scoresde.nets import MonotoneGamma
from scoresde.presets import PRESETS
from scoresde.training import Preset, digits_split, read, train

LEVELS, RANGE = 17, (-1.0, 1.0)
BATCH = 128
RATE = 10.0  # of gamma's learning, over the network's; Adam moves a parameter by about the rate per step
VARIANCES = ("learned", "small", "large")


class Size(NamedTuple):
    """How much is done."""

    vdm: int  # steps of training
    iddpm: int
    hidden: int  # of gamma
    held: int  # digits
    batches: int  # of the variance
    nodes: int  # of the quadrature
    draws: int  # of noise
    steps: tuple[int, ...]
    respaced: tuple[int, ...]


FULL = Size(4000, 6000, 128, 360, 500, 64, 2, (32, 64, 128, 256, 512, 1024), (25, 50, 100))
QUICK = Size(3, 3, 16, 8, 8, 8, 2, (32, 64), (25,))


def learned(hidden: int, held: bool = False) -> VDMSDE:
    """VDM's process with a learned schedule, the ends of which may be held."""
    gamma = MonotoneGamma(-13.3, 5.0, hidden=hidden)
    for parameter in gamma.endpoints if held else ():
        parameter.requires_grad_(False)
    return VDMSDE(gamma)


def presets(size: Size) -> dict[str, Preset]:
    """What is trained: VDM with either schedule, and improved DDPM."""
    base, improved = PRESETS["vdm"], PRESETS["iddpm"]
    base = replace(base, time_input="edm", recipe=replace(base.recipe, steps=size.vdm, process_rate=RATE))
    bent = replace(base, loss=functools.partial(vdm, minimise_variance=True))
    return {
        "learned": replace(bent, process=functools.partial(learned, size.hidden)),
        "held": replace(bent, process=functools.partial(learned, size.hidden, held=True)),
        "line": base,
        "iddpm": replace(improved, recipe=replace(improved.recipe, steps=size.iddpm)),
    }


def network(name: str, size: Size, folder: Path) -> ScoreModel:
    """Trained, or read where it was."""
    every = max(1, presets(size)[name].recipe.steps // 2)
    trained = train(presets(size)[name], read("digits"), folder / name, progress=False, checkpoint_every=every)
    return trained.score()


def held_out(size: Size) -> tuple[Tensor, Tensor]:
    """Grey values, and the middles of their cells."""
    v = digits_split().test_images[: size.held]
    low, width = cell(LEVELS, RANGE)
    return v, (low + width * (v + 0.5)).float()


def on(model: ScoreModel, sde: VDMSDE) -> ScoreModel:
    """The same network on another schedule; it receives the noise level."""
    return ScoreModel(model.net, sde, model.prediction, model.time_input)


def ends(sde: VDMSDE) -> tuple[float, float]:
    """Of gamma."""
    return tuple(-2 * sde.node(t).lam for t in (sde.t_min, sde.t_max))


def mean(values: Tensor) -> list[float]:
    """And its standard error."""
    return [float(values.mean()), float(values.std() / len(values) ** 0.5)]


# The variance of the Monte Carlo loss


def draws_of(model: ScoreModel, x: Tensor, law: Times, count: int, seed: int) -> Tensor:
    """Diffusion terms of fresh batches, nats, float64 ``(count, BATCH)``."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        x0 = x[torch.randint(len(x), (BATCH,), generator=generator)]
        noise = torch.randn(x0.shape, generator=generator)
        rows.append(diffusion_at(model, x0, noise, law.uniforms(BATCH, generator)).double())
    return torch.stack(rows)


FIGURES: dict[str, Callable[[Tensor], Tensor]] = {
    "batch": lambda rows: BATCH * rows.mean(1).var(),
    "single": lambda rows: rows.var(),
}


def ratio(figure: Callable[[Tensor], Tensor], line: Tensor, bent: Tensor, again: int = 400) -> dict[str, Any]:
    """The variance of either, their ratio, and its standard error by bootstrap over batches."""
    generator = torch.Generator().manual_seed(0)

    def resampled(rows: Tensor) -> Tensor:
        return figure(rows[torch.randint(len(rows), (len(rows),), generator=generator)])

    spread = torch.stack([resampled(line) / resampled(bent) for _ in range(again)]).std()
    a, b = float(figure(line)), float(figure(bent))
    return {"line": a, "learned": b, "ratio": [a / b, float(spread)]}


def half_squares(model: ScoreModel, x: Tensor, t: Tensor, noise: Callable[[], Tensor]) -> Tensor:
    r""":math:`\tfrac12\|\hat\varepsilon-\varepsilon\|^2` at times, float64 ``(times, batch)``."""
    out = []
    for time in t:
        node = model.sde.nodes(time.expand(len(x)))
        out.append(0.5 * denoising_at(model, x, noise(), node, reduction="sum").double())
    return torch.stack(out)


def quadrature(line: ScoreModel, bent: ScoreModel, x: Tensor, size: Size) -> dict[str, Any]:
    """The variances of both schedules and the least ones, by the midpoint rule in gamma."""
    low, high = ends(line.sde)
    generator = torch.Generator().manual_seed(3)
    t = (torch.arange(size.nodes, dtype=torch.float64) + 0.5) / size.nodes  # gamma is even in t of the line
    many = x.repeat(size.draws, 1, 1, 1)
    half = half_squares(line, many, t, lambda: torch.randn(many.shape, generator=generator))
    first, second = half.mean(1), half.square().mean(1)
    spread, step = second - first.square(), (high - low) / size.nodes
    node = bent.sde.nodes(bent.sde.time(-(low + (high - low) * t)))
    slopes = {"line": torch.full_like(t, high - low), "learned": node.g2 / node.sigma.square()}
    total = float(first.sum() * step)
    out: dict[str, Any] = {
        "gamma": (low + (high - low) * t).tolist(),
        "mean": first.tolist(),
        "deviation": spread.sqrt().tolist(),
        "slope of gamma": slopes["learned"].tolist(),
        "single": {k: float((second * v).sum() * step) - total**2 for k, v in slopes.items()},
        "batch": {k: float((spread * v).sum() * step) for k, v in slopes.items()},
    }
    out["single"]["least"] = float(second.sqrt().sum() * step) ** 2 - total**2
    out["batch"]["least"] = float(spread.sqrt().sum() * step) ** 2
    by_single = float(second.sqrt().sum() * step) / second.sqrt()  # the schedule of the least second moment
    out["batch"]["of the least single"] = float((spread * by_single).sum() * step)
    for part in ("single", "batch"):
        values = out[part]
        values["ratio"], values["attainable"] = (values["line"] / values[k] for k in ("learned", "least"))
    return out


def variances(bent: ScoreModel, x: Tensor, size: Size) -> dict[str, Any]:
    """Of the learned schedule and of a line between its ends, one network."""
    line = on(bent, VDMSDE(LinearGamma(*ends(bent.sde))))
    out: dict[str, Any] = {}
    for name, law, parts, share in (
        ("low discrepancy", LowDiscrepancy(), FIGURES, 1),
        ("independent", UniformTimes(), ("single",), 4),
    ):
        rows = [draws_of(model, x, law, size.batches // share, seed) for seed, model in ((1, line), (2, bent))]
        out[name] = {part: ratio(FIGURES[part], *rows) for part in parts}
        out[name]["means"] = [mean(part.mean(1)) for part in rows]
    return out | {"quadrature": quadrature(line, bent, x, size)}


# The bound and its ends


def bits(model: ScoreModel, v: Tensor, size: Size) -> Tensor:
    """Of the grey values, a digit."""
    return scoresde.variational_bound(
        model.sde, model, v, levels=LEVELS, data_range=RANGE, draws=16 * size.draws, seed=0
    ).bits_per_dim


def slope_of_ends(model: ScoreModel, x: Tensor) -> dict[str, Any]:
    """The gradient that the ends get, and central differences of the bound on the same draws, in float64."""
    gamma = copy.deepcopy(model.sde.gamma).requires_grad_()
    exact = ScoreModel(copy.deepcopy(model.net).double(), VDMSDE(gamma), model.prediction, model.time_input)

    def bound() -> Tensor:
        generator = torch.Generator().manual_seed(4)
        return vdm(exact, x.double(), generator, levels=LEVELS, data_range=RANGE, minimise_variance=True).mean()

    with torch.enable_grad():
        given = torch.autograd.grad(bound(), gamma.endpoints)
    wanted = []
    for parameter in gamma.endpoints:
        sides = []
        for change in (1e-4, -1e-4):
            with torch.no_grad():
                parameter += change
                sides.append(float(bound()))
                parameter -= change
        wanted.append((sides[0] - sides[1]) / 2e-4)
    return {"gradient": [float(g) for g in given], "difference": wanted}


# Steps


def step_gaps(model: ScoreModel, x: Tensor, steps: tuple[int, ...]) -> dict[str, Any]:
    """The diffusion term in T steps less the integral, nats, with the same noise at all levels."""
    most = max(steps)
    t = torch.linspace(0, 1, most + 1, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    half = half_squares(model, x, t, lambda: noise)
    node = model.sde.nodes(t)
    weights = torch.full_like(t, 2 / 3)
    weights[1::2], weights[0], weights[-1] = 4 / 3, 1 / 3, 1 / 3
    limit = ((node.g2 / node.sigma.square() * weights / most)[:, None] * half).sum(0)  # Simpson's rule
    gaps = {}
    for count in steps:
        part = slice(None, None, most // count)
        weight = torch.expm1(-2 * node.lam[part].diff())
        gaps[count] = (weight[:, None] * half[part][1:]).sum(0) - limit
    slopes = [math.log2(float(gaps[a].mean() / gaps[2 * a].mean())) for a in steps[:-1]]
    return {"limit": mean(limit), "gaps": {str(k): mean(g) for k, g in gaps.items()}, "slopes": slopes}


# Improved DDPM


def respaced(model: ScoreModel, v: Tensor, size: Size) -> dict[str, Any]:
    """Bits per dimension by the variance, paired differences from the learned one, and how far alpha-bar is off: that
    of the levels, and the product of 1 - beta."""
    out: dict[str, Any] = {}
    whole = (1 - model.chain.betas).cumprod(0)
    for count in size.respaced:
        chain = model.chain.respace(count)
        options: dict[str, Any] = {"levels": LEVELS, "data_range": RANGE, "clip": True, "draws": 1, "seed": 6}
        score = model.on(chain.sde())
        found = {
            k: scoresde.likelihood.chain_bound(chain, score, v, variance=k, **options).bits_per_dim for k in VARIANCES
        }
        row: dict[str, Any] = {k: mean(value) for k, value in found.items()}
        for other in VARIANCES[1:]:
            gain = mean(found[other] - found["learned"])
            row[f"{other} less learned"] = [*gain, gain[0] / gain[1]]
        kept = whole[chain.labels]
        products = (1 - chain.betas).cumprod(0)
        row["alpha bar"] = [float((v - kept).abs().max()) for v in (chain.alphas_bar, products)]
        out[str(count)] = row
    return out


def shown(value: Any) -> Any:
    """For the screen."""
    if isinstance(value, dict):
        return {k: shown(v) for k, v in value.items() if not (isinstance(v, list) and len(v) > 12)}
    return [shown(v) for v in value] if isinstance(value, list | tuple) else f"{value:.4g}"


def measure_vdm(size: Size, folder: Path) -> dict[str, Any]:
    """The learned schedule: variances, the gradient of its ends, and the gap of steps."""
    model, (_, x) = network("learned", size, folder), held_out(size)
    with torch.no_grad():
        return {
            "ends": ends(model.sde),
            "ends' gradient": slope_of_ends(model, x[:BATCH]),
            "variance": variances(model, x, size),
            "steps": step_gaps(model, x[: size.held // 6 + 2], size.steps),
        }


def measure_held(size: Size, folder: Path) -> dict[str, Any]:
    """The variances of a schedule that is learned between VDM's ends."""
    model, (_, x) = network("held", size, folder), held_out(size)
    with torch.no_grad():
        return {"ends": ends(model.sde), "variance": variances(model, x, size)}


def measure_iddpm(size: Size, folder: Path) -> dict[str, Any]:
    """The variances of improved DDPM."""
    model = network("iddpm", size, folder)
    return respaced(model, held_out(size)[0], size)


def measure_bound(size: Size, folder: Path) -> dict[str, Any]:
    """The bounds of VDM with a learned schedule and with a line, each with its own network."""
    v, _ = held_out(size)
    models = {name: network(name, size, folder) for name in ("learned", "line")}
    found = {name: bits(model, v, size) for name, model in models.items()}
    gain = mean(found["line"] - found["learned"])
    out: dict[str, Any] = {name: mean(value) for name, value in found.items()}
    return out | {
        "line less learned": [*gain, gain[0] / gain[1]],
        "ends": {name: ends(model.sde) for name, model in models.items()},
    }


PARTS: dict[str, Callable[[Size, Path], dict[str, Any]]] = {
    "vdm": measure_vdm,
    "held": measure_held,
    "iddpm": measure_iddpm,
    "bound": measure_bound,
}


def check(results: dict[str, Any]) -> None:
    """What holds of any network."""
    slope = results["vdm"]["ends' gradient"]
    for a, b in zip(slope["gradient"], slope["difference"], strict=True):
        if not abs(a - b) < 1e-5 * (1 + abs(b)):
            raise SystemExit(f"The ends of gamma do not follow the bound: {a} and {b}.")
    if not all(max(row["alpha bar"]) < 1e-12 for row in results["iddpm"].values()):
        raise SystemExit("Respacing changes alpha bar.")
    if not all(abs(slope - 1) < 0.3 for slope in results["vdm"]["steps"]["slopes"]):
        raise SystemExit(f"The gap of T steps is not O(1/T): {results['vdm']['steps']['slopes']}.")


def main(arguments: list[str]) -> None:
    """Train, measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks schedules", description=__doc__)
    parser.add_argument("--check", action="store_true", help="check what holds of any network; nothing is written")
    parser.add_argument("--only", choices=PARTS, help="measure this part, keep the others of the file")
    parser.add_argument("--folder", type=Path, help="where networks are kept, and read from another time")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    size = QUICK if options.check else FULL
    results: dict[str, Any] = {"training steps": {"vdm": size.vdm, "iddpm": size.iddpm}}
    results |= recorded("schedules")["results"] if options.only else {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in [options.only] if options.only else PARTS:
            results[name] = PARTS[name](size, options.folder or Path(temporary))
            print(name, shown(results[name]), flush=True)
            if not options.check:
                write("schedules", results, "python -m benchmarks schedules")
    if not options.only:
        check(results)
