r"""Log-likelihoods: error and evaluations on exact targets, and the digits network in bits per dimension.

- *targets*: ring and gaussian of `benchmarks.work_precision`, digits of `benchmarks.fitted_grids`, on VP, in float64,
  with the exact trace; RMS error in nats over 16 samples, with the exact distribution at the noise end in place of the
  prior. Beside `log_likelihood` the plain augmented flow, :math:`dx/dt` and the divergence of the drift, by
  torchdiffeq's dopri5, whose steps are those of the batch. Evaluations at equal error are interpolated in the
  logarithms.
- *exact*: a correlated Gaussian and a mixture of three, in 2 to 256 dimensions, on every process, in float64 with the
  exact trace and the exact distribution at the noise end: the largest error of 4 samples, and apart from it the largest
  difference that the prior makes in place of that distribution.
- *network*: 64 held-out digits, one Rademacher probe. The published procedure is SciPy's RK45 with rtol = atol = 1e-5
  on the plain augmented flow of the batch, from t = 1e-5 (Score-SDE's end for likelihoods) and from 1e-3. Errors are
  distances from a solve by dop853 with a tolerance of 1e-7, a state in float64 and the same probe. Times, at the
  largest tolerance whose error is below the published procedure's, are medians of interleaved runs, on the wall and
  of the processor, which other work on the machine lengthens less.
- *control*: the variance of the one-probe estimate (Rademacher, 16 probes of 48 held-out digits) without a control and
  with distributions fitted to the training digits, as they are and scaled by `fit_control_scale` on 16 other held-out
  digits (the ridge of the mixtures was chosen on 16 more); and the median time of three solves of one probe over that
  without a control.
- *estimators*: 24 vector-Jacobian products, 8 held-out digits 24 times: the deviation from the exact trace, in nats,
  the reported standard error, and how often the 95 % interval holds the value.
- *products*: seconds for 64 vector-Jacobian products, four states, medians of five interleaved rounds.
- *coverage*: a mixture of three Gaussians in 64 dimensions, 20 states, 100 solves of each with other Rademacher probes:
  how often the 95 % interval holds the value with the exact trace, and the width of the interval over that which the
  spread of the 100 solves implies.
- *bounds*: the variational bounds of the same digits in bits per dimension: dequantised ones for the bounds of
  densities, and the grey values themselves; standard errors over digits, and of the mean over digits from its draws.
- *bits*: bits per dimension of held-out and training digits, 17 levels on [-1, 1]: the flow's, dequantised once per
  digit, 8 probes; and the variational bound of the reverse SDE's density at t_min for the same digits, 128 draws. The
  standard errors are over digits.

``python -m benchmarks likelihood`` writes ``results/likelihood.json``; ``--check`` checks a part, and ``--only
bounds`` measures one part and puts it in the file. With ``--images FILE`` *network* and *bits* are measured with the
network of MNIST, on fewer digits, whose figures are a part of the file.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scoresde
from benchmarks._record import write
from benchmarks._shipped import Shipped, add_images, digits, shipped
from benchmarks._tables import load as recorded
from benchmarks.fitted_grids import Points
from benchmarks.work_precision import gaussian, ring
from scoresde import (
    Bound,
    bits_per_dim,
    chain_bound,
    dequantize,
    fit_control_scale,
    log_likelihood,
    variational_bound,
)
from scoresde.core.processes import Network, ReverseProcess, angle
from scoresde.core.processes.divergence import DIVERGENCES, PROBES, Backward, HutchPlusPlus
from scoresde.discrete import BetaChain
from scoresde.training import digits_split

F64 = torch.float64
SDE = scoresde.VPSDE()
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
ERRORS = ("1e-1", "1e-2", "1e-3", "1e-4")  # nats
# By network and t_min, a tolerance whose error is below that of the published procedure.
EQUAL = {"digits": {1e-5: 1.4e-4, 1e-3: 7e-5}, "mnist": {1e-5: 2e-5, 1e-3: 4e-5}}
PROCESSES: dict[str, scoresde.AffineSDE] = {
    "VE": scoresde.VESDE(),
    "VP": SDE,
    "sub-VP": scoresde.SubVPSDE(),
    "cosine": scoresde.CosineVPSDE(),
    "VDM": scoresde.VDMSDE(),
    "EDM": scoresde.EDMSDE(),
    "flow": scoresde.FlowSDE(t_max=1.0),
}


class Law:
    """The exact distribution at the noise end."""

    def __init__(self, target: Any, sde: scoresde.AffineSDE = SDE) -> None:
        self.target, self.sde = target, sde

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats."""
        return self.target.log_prob(x, self.sde, self.sde.t_max)


def laws(size: int) -> dict[str, Any]:
    """A correlated Gaussian, whose variances span two decades and more, and three Gaussians."""
    generator = torch.Generator().manual_seed(5)
    root, mean = (torch.randn(*shape, generator=generator, dtype=F64) for shape in ((size, size), (size,)))
    covariance = root @ root.mT / size + 0.01 * torch.eye(size, dtype=F64)
    means = torch.randn(3, size, generator=generator, dtype=F64)
    return {
        "gaussian": scoresde.targets.Gaussian(mean, covariance),
        "mixture": mixture(means),
    }


def mixture(means: Tensor) -> scoresde.targets.GaussianMixture:
    """Three Gaussians of different widths."""
    return scoresde.targets.GaussianMixture(torch.tensor([0.3, 0.5, 0.2]), means, scales=torch.tensor([0.3, 0.2, 0.4]))


def problems() -> dict[str, tuple[Any, Any]]:
    """Targets and their scores."""
    from sklearn.datasets import load_digits

    data = torch.as_tensor(load_digits().data, dtype=F64) / 8 - 1
    empirical = scoresde.targets.Empirical(data, bandwidth=0.05)
    targets: dict[str, Any] = {"ring": ring(), "gaussian": gaussian()}
    return {name: (t, t.score(SDE)) for name, t in targets.items()} | {"digits": (empirical, Points(data, 0.05, SDE))}


class Augmented:
    """The plain augmented flow in time, as the published procedures step it; evaluations are counted."""

    def __init__(self, score: Any, x: Tensor, probe: Tensor | None, sde: scoresde.AffineSDE = SDE) -> None:
        self.sde, self.flow, self.x, self.probe, self.calls = sde, sde.probability_flow(score), x, probe, 0

    def __call__(self, t: float, x: Tensor) -> tuple[Tensor, Tensor]:
        """The drift and its divergence."""
        self.calls += 1
        with torch.enable_grad():
            state = x.detach().requires_grad_(True)
            drift = self.flow.drift(state, torch.full((len(x),), t, dtype=x.dtype))
            if self.probe is not None:
                (out,) = torch.autograd.grad(drift, state, self.probe)
                return drift.detach(), (out * self.probe).flatten(1).sum(1)
            total = torch.zeros(len(x), dtype=x.dtype)
            for i in range(x[0].numel()):
                (out,) = torch.autograd.grad(drift.flatten(1)[:, i].sum(), state, retain_graph=True)
                total = total + out.flatten(1)[:, i]
        return drift.detach(), total


def dopri5(score: Any, x: Tensor, prior: Any, tolerance: float) -> tuple[Tensor, float]:
    """By torchdiffeq."""
    from torchdiffeq import odeint

    field = Augmented(score, x, None)
    times = torch.tensor([SDE.t_min, SDE.t_max], dtype=F64)
    start = (x, torch.zeros(len(x), dtype=F64))
    ends = odeint(
        lambda t, y: field(min(float(t), SDE.t_max), y[0]),
        start,
        times,
        rtol=tolerance,
        atol=tolerance,
        method="dopri5",
    )
    return prior.log_prob(ends[0][-1]) + ends[1][-1], float(field.calls)


def ours(score: Any, x: Tensor, prior: Any, tolerance: float) -> tuple[Tensor, float]:
    """By the package."""
    got = log_likelihood(SDE, score, x, divergence="exact", rtol=tolerance, atol=tolerance, prior=prior)
    return got.log_prob, float(got.nfe.to(F64).mean())


def crossing(curve: list[tuple[float, float]], error: float) -> float | None:
    """Evaluations at an error, along lines in the logarithms."""
    for (n0, e0), (n1, e1) in itertools.pairwise(curve):
        if e1 <= error <= e0:
            share = math.log(e0 / error) / math.log(e0 / e1)
            return math.exp((1 - share) * math.log(n0) + share * math.log(n1))
    return None


def measure_exact(sizes: tuple[int, ...] = (2, 16, 64, 256), count: int = 4) -> dict[str, Any]:
    """The largest error per dimension, and how far the prior is from the distribution that it stands for, in nats."""
    out: dict[str, Any] = {}
    for (name, sde), size in itertools.product(PROCESSES.items(), sizes):
        for label, target in laws(size).items():
            x = target.sample(count, sde, sde.t_min, generator=torch.Generator().manual_seed(0)).to(F64)
            exact, law, row = target.log_prob(x, sde, sde.t_min), Law(target, sde), {}
            for tolerance in ("1e-5", "1e-7"):
                options = {"divergence": "exact", "rtol": float(tolerance), "atol": float(tolerance)}
                got = log_likelihood(sde, target.score(sde), x, prior=law, **options)
                mismatch = float((sde.prior.log_prob(got.latent) - got.prior_log_prob).abs().max())
                row[tolerance] = {
                    "error a dimension": float((got.log_prob - exact).abs().max()) / size,
                    "evaluations": float(got.nfe.to(F64).mean()),
                }
            out.setdefault(name, {})[f"{label}, {size}"] = row | {"mismatch of the prior": mismatch}
            print(name, label, size, row, f"{mismatch:.1e}", flush=True)
    return out


def measure_targets(quick: bool) -> dict[str, Any]:
    """Curves and ratios."""
    out: dict[str, Any] = {}
    for name, (target, score) in problems().items():
        if quick and name == "digits":
            continue
        x = target.sample(16, SDE, SDE.t_min, generator=torch.Generator().manual_seed(0)).to(F64)
        exact, prior = target.log_prob(x, SDE, SDE.t_min), Law(target)
        curves: dict[str, list[tuple[float, float]]] = {}
        for label, run in (("log_likelihood", ours), ("dopri5", dopri5)):
            for tolerance in TOLERANCES[:4] if quick else TOLERANCES:
                log_prob, calls = run(score, x, prior, tolerance)
                curves.setdefault(label, []).append((calls, float((log_prob - exact).square().mean().sqrt())))
        ratios = {}
        for error in ERRORS:
            counts = [crossing(curve, float(error)) for curve in curves.values()]
            ratios[error] = counts[0] / counts[1] if counts[0] and counts[1] else None
        out[name] = {"dimensions": x[0].numel(), "curves": curves, "ratios": ratios}
        print(name, {k: [f"{n:.0f}: {e:.1e}" for n, e in v] for k, v in curves.items()}, ratios, flush=True)
    return out


def published(field: Augmented) -> tuple[Tensor, float]:
    """SciPy's RK45 on the whole batch, rtol = atol = 1e-5."""
    from scipy.integrate import solve_ivp

    x, field.calls = field.x, 0

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(y[: x.numel()]).reshape(x.shape).to(x.dtype)
        drift, trace = field(t, state)
        return np.concatenate([drift.numpy().ravel(), trace.numpy()]).astype(np.float64)

    start = np.concatenate([x.numpy().ravel(), np.zeros(len(x))])
    end = solve_ivp(rate, (field.sde.t_min, field.sde.t_max), start, rtol=1e-5, atol=1e-5, method="RK45").y[:, -1]
    latent = torch.from_numpy(end[: x.numel()]).reshape(x.shape)
    return field.sde.prior.log_prob(latent) + torch.from_numpy(end[x.numel() :]), float(field.calls)


LEVELS = {"digits": 17, "mnist": 256}  # of grey


def held_out(count: int, train: bool = False, of: Shipped | None = None) -> Tensor:
    """Dequantised digits of a network, of scikit-learn's by default."""
    of = of or digits()
    v = (of.train_grey if train else of.held_grey)[:count]
    return dequantize(v, levels=LEVELS[of.name], generator=torch.Generator().manual_seed(0))


def measure_network(rounds: int, count: int, of: Shipped) -> dict[str, Any]:
    """Wall time and error beside the published procedure."""
    x = held_out(count, of=of)
    z = scoresde.SampleNoise(range(count)).normal(x.new_empty(count, 1, *x.shape[1:]))[:, 0]
    probe = torch.where(z < 0, -1.0, 1.0)
    out: dict[str, Any] = {}
    for end, equal in EQUAL[of.name].items():
        sde = scoresde.VPSDE(t_min=end)
        score = of.network().score(sde)
        field = Augmented(score, x, probe, sde)

        def here(tolerance: float, sde: Any = sde, score: Any = score, **more: Any) -> tuple[Tensor, float]:
            got = log_likelihood(sde, score, x, seeds=range(count), rtol=tolerance, atol=tolerance, **more)
            return got.log_prob, float(got.nfe.to(F64).mean())

        tight: dict[str, Any] = {"rtol": 1e-7, "atol": 1e-7, "method": "dop853", "form": "angle"}
        reference = log_likelihood(sde, score, x.to(F64), seeds=range(count), **tight).log_prob
        runs: dict[str, Callable[[], tuple[Tensor, float]]] = {"published": lambda field=field: published(field)}  # type: ignore[misc]
        runs |= {f"log_likelihood, {equal:g}": lambda equal=equal: here(equal)}  # type: ignore[misc]
        runs |= {"the same, check=False": lambda equal=equal: here(equal, check=False)}  # type: ignore[misc]
        timed = list(runs)
        runs |= {f"log_likelihood, {t:g}": lambda t=t: here(t) for t in (1e-3, 1e-4, 1e-5)}  # type: ignore[misc]
        rows: dict[str, dict[str, float]] = {}
        for name, run in runs.items():
            log_prob, evaluations = run()
            rows[name] = {"evaluations": evaluations, "error": float((log_prob - reference).square().mean().sqrt())}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
        for _, name in itertools.product(range(rounds), timed):
            began, used = time.perf_counter(), time.process_time()
            runs[name]()
            times[name].append((time.perf_counter() - began, time.process_time() - used))
        for name, pairs in times.items():
            rows[name]["seconds"], rows[name]["processor seconds"] = map(statistics.median, zip(*pairs, strict=True))
        out[f"t_min = {end:g}"] = rows
        print(end, rows, flush=True)
    return out


def measure_control(probes: int = 16) -> dict[str, Any]:
    """The spread of single-probe estimates with each control, as it is and scaled, and what the control takes."""
    score, digits = scoresde.load("digits").score(SDE), held_out(128)
    x, pilot = digits[64:112], digits[112:]  # the ridge was chosen on the first 16
    train = held_out(1437, train=True)
    fit, mix = scoresde.targets.Gaussian.fit, scoresde.targets.GaussianMixture.fit
    controls: dict[str, Any] = {"none": None, "Gaussian": fit(train), "Gaussian, rank 16": fit(train, 16)}
    for components, ridge in ((30, 0.01), (10, 0.1), (30, 0.1), (100, 0.1)):
        controls[f"mixture of {components}, ridge {ridge}"] = mix(train, components, ridge=ridge)
    options: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}
    out: dict[str, Any] = {}
    plain = torch.ones(len(x), dtype=F64)
    for name, law in controls.items():
        scale = 0.0 if law is None else fit_control_scale(SDE, score, law, pilot, seed=1, **options)
        row: dict[str, Any] = {"scale": scale}
        for key, factor in (("variance", 1.0), ("variance, scaled", scale)):
            given = {"control": law, "control_scale": factor, "probes": probes, "seed": 0, **options}
            left = log_likelihood(SDE, score, x, **given).paths.var(1)
            plain = left if law is None else plain
            gain = plain.mean() / left.mean()
            row[key], row[f"{key}: gain"] = float(left.mean()), float(gain)
            error = (plain - gain * left).std() / (len(x) ** 0.5 * left.mean())
            row[f"{key}: standard error of the gain over digits"] = float(error)
        out[name] = row
    seconds: dict[str, list[float]] = {name: [] for name in controls}
    for _ in range(3):
        for name, law in controls.items():
            began = time.perf_counter()
            log_likelihood(SDE, score, x, control=law, seed=0, **options)
            seconds[name].append(time.perf_counter() - began)
    for name, row in out.items():
        row["time over none"] = statistics.median(seconds[name]) / statistics.median(seconds["none"])
        print("control", name, row, flush=True)
    return out


@dataclass(frozen=True)
class Published(HutchPlusPlus):
    """Hutch++ of the Jacobian itself."""

    shift: bool = field(default=False, kw_only=True)


def measure_products(rounds: int = 5) -> dict[str, Any]:
    """Seconds for 64 vector-Jacobian products, batch 4, in several ways."""
    import torch.autograd.forward_ad as forward

    flow, coordinate = ReverseProcess(SDE, Network(scoresde.load("digits").score(SDE))), angle(0.2)
    x, node = held_out(4), SDE.nodes(torch.full((4,), 0.4, dtype=F64))
    vectors = torch.randn(4, 64, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def slope(state: Tensor, node: Any) -> Tensor:
        return flow.answer(flow.slope(coordinate, state, node))

    def reverse(chunk: int) -> None:
        state, backward = x.clone().requires_grad_(True), Backward()
        out = slope(state, node)
        for v in vectors.split(chunk, dim=1):
            backward(out, state, v, False)

    def copies(chunk: int) -> None:
        many = type(node)(*(value.repeat(chunk) for value in node))
        for v in vectors.split(chunk, dim=1):
            state = x.repeat(chunk, 1, 1, 1).requires_grad_(True)
            torch.autograd.grad(slope(state, many), state, v.transpose(0, 1).reshape(state.shape))

    def tangents() -> None:
        with torch.no_grad(), forward.dual_level():
            for v in vectors.unbind(1):
                forward.unpack_dual(slope(forward.make_dual(x, v), node))

    ways: dict[str, Callable[[], None]] = {f"backward, {c} at once": lambda c=c: reverse(c) for c in (1, 16, 64)}  # type: ignore[misc]
    ways |= {"backward, 16 copies of the batch": lambda: copies(16), "forward": tangents}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _, (name, way) in itertools.product(range(rounds), ways.items()):
        began = time.perf_counter()
        way()
        times[name].append(time.perf_counter() - began)
    out = {name: statistics.median(values) for name, values in times.items()}
    print("64 products", out, flush=True)
    return out


def measure_estimators(products: int = 24, digits: int = 8, repeats: int = 24) -> dict[str, Any]:
    """Deviations from the exact trace at equal numbers of products, and the reported standard errors."""
    score, x = scoresde.load("digits").score(SDE), held_out(digits)
    options: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
    exact = log_likelihood(SDE, score, x, divergence="exact", **options).log_prob.repeat(repeats)
    kinds: dict[str, dict[str, Any]] = {f"hutchinson, {p}": {"probe": p} for p in PROBES}
    kinds |= {f"hutch++, {p}": {"divergence": "hutch++", "probe": p} for p in ("rademacher", "gaussian")}
    DIVERGENCES["hutch++ without the shift"] = Published
    kinds["hutch++ without the shift, rademacher"] = {"divergence": "hutch++ without the shift"}
    kinds["xtrace"] = {"divergence": "xtrace"}
    out = {}
    for name, kind in kinds.items():
        got = log_likelihood(SDE, score, x.repeat(repeats, 1, 1, 1), probes=products, seed=0, **kind, **options)
        low, high = got.interval()
        out[name] = {
            "deviation": float((got.log_prob - exact).square().mean().sqrt()),
            "standard error": float(got.std_error.square().mean().sqrt()),
            "coverage": float(((low <= exact) & (exact <= high)).to(F64).mean()),
            "products": products,
            "trials": len(exact),
        }
        print("estimator", name, out[name], flush=True)
    del DIVERGENCES["hutch++ without the shift"]
    return out


def measure_coverage(probes: tuple[int, ...] = (8, 16, 64)) -> dict[str, Any]:
    """Of the intervals."""
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(3, 64, generator=generator, dtype=F64)
    target = mixture(means)
    score, x = target.score(SDE), target.sample(20, SDE, SDE.t_min, generator=generator).to(F64)
    options: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
    exact = log_likelihood(SDE, score, x, divergence="exact", **options).log_prob.repeat(100)
    out = {}
    for count in probes:
        got = log_likelihood(SDE, score, x.repeat(100, 1), probes=count, seed=count, **options)
        low, high = got.interval()
        inside = float(((low <= exact) & (exact <= high)).to(F64).mean())
        spread = float((got.log_prob - exact).square().mean().sqrt())
        quantile = float(((high - low) / (2 * got.std_error)).mean())
        implied = float((high - low).square().mean().sqrt()) / (2 * quantile * spread)
        out[str(count)] = {"coverage": inside, "width over implied": implied, "trials": len(exact)}
    print(out, flush=True)
    return out


def measure_bits(count: int, of: Shipped) -> dict[str, Any]:
    """Held-out and training digits."""
    score, levels, out = of.network().score(SDE), LEVELS[of.name], {}
    for name, train in (("held out", False), ("training", True)):
        x = held_out(count, train, of)
        size = x[0].numel()
        got = log_likelihood(SDE, score, x, probes=8, seed=0, rtol=1e-4, atol=1e-4)
        bits = bits_per_dim(got.log_prob, (size,), levels=levels)
        probes = float(got.std_error.square().mean().sqrt()) / (size * math.log(2))
        bound = bits_per_dim(-variational_bound(SDE, score, x, draws=128, seed=0).total, (size,), levels=levels)
        out[name] = {
            "variational bound": float(bound.mean()),
            "standard error of the bound over digits": float(bound.std()) / count**0.5,
            "bits": float(bits.mean()),
            "standard error over digits": float(bits.std()) / count**0.5,
            "standard error of a digit from its probes": probes,
            "digits": count,
        }
    print(out, flush=True)
    return out


def bounds_of(x: Tensor, v: Tensor) -> dict[str, tuple[str, Callable[[], Bound]]]:
    """What each bound is one of, and how it is found."""
    model = scoresde.load("digits")
    score, chain = model.score(SDE), BetaChain.linear()
    exact, rows = "density of the reverse SDE", {}

    def continuous(**options: Any) -> Callable[[], Bound]:
        return lambda: variational_bound(SDE, score, x, seed=0, **options)

    def discrete(part: BetaChain, data: Tensor, **options: Any) -> Callable[[], Bound]:
        return lambda: chain_bound(part, model.score(part.sde()), data, seed=0, **options)

    rows["continuous"] = (f"{exact} at t_min", continuous(draws=128))
    rows["continuous, independent times"] = (f"{exact} at t_min", continuous(draws=128, times="independent"))
    rows["continuous, with decoder"] = (f"{exact} and its last step", continuous(draws=128, decoder=True))
    for n in (10, 100, 1000):
        of = f"density at t_min of {n} ancestral steps, even in time"
        rows[f"{n} steps"] = (of, continuous(draws=128, steps=n))
    even = SDE.time(torch.linspace(float(SDE.log_snr(SDE.t_min)), float(SDE.log_snr(SDE.t_max)), 101, dtype=F64))
    of = "density at t_min of 100 ancestral steps, even in the log-SNR"
    rows["100 steps in the log-SNR"] = (of, continuous(draws=128, steps=even.clamp(SDE.t_min, SDE.t_max)))
    for n, draws in ((25, 8), (100, 2)):
        for variance in ("small", "large"):
            of = f"density of {n} ancestral steps, {variance} variance"
            rows[f"chain, {n} of 1000, {variance}"] = (
                of,
                discrete(chain.respace(n), x, variance=variance, draws=draws),
            )
    options: dict[str, Any] = {"levels": 17, "draws": 2}
    for variance in ("small", "large"):
        of = f"probability of the grey values, 100 ancestral steps, {variance} variance"
        run = discrete(chain.respace(100), v, variance=variance, **options)
        rows[f"chain, 100 of 1000, {variance}, grey values"] = (of, run)
    return rows


def measure_bounds(count: int) -> dict[str, Any]:
    """Held-out and training digits."""
    out: dict[str, Any] = {}
    for name, train in (("held out", False), ("training", True)):
        split = digits_split()
        v = (split.train_images if train else split.test_images)[:count]
        unit = 64 * math.log(2)
        for label, (of, run) in bounds_of(held_out(count, train), v.to(torch.int64)).items():
            began, bound = time.perf_counter(), run()
            bits = bits_per_dim(-bound.total, (64,), levels=17) if bound.levels is None else bound.bits_per_dim
            row = out.setdefault(label, {"of": of, "evaluations": bound.nfe})
            row[name] = {
                "digits": count,
                "bits": float(bits.mean()),
                "standard error over digits": float(bits.std()) / count**0.5,
                "standard error of the mean from its draws": float(bound.std_error.square().sum().sqrt())
                / count
                / unit,
            }
            print(name, label, bound.nfe, f"{time.perf_counter() - began:.1f} s", row[name], flush=True)
    return out


STAGES: dict[str, Callable[[], dict[str, Any]]] = {
    "exact": measure_exact,
    "targets": lambda: measure_targets(False),
    "network": lambda: measure_network(3, 64, digits()),
    "control": measure_control,
    "estimators": measure_estimators,
    "products": measure_products,
    "coverage": measure_coverage,
    "bits": lambda: measure_bits(360, digits()),
    "bounds": lambda: measure_bounds(360),
}


def main(arguments: list[str]) -> None:
    """Measure, print, write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks likelihood", description=__doc__)
    parser.add_argument("--check", action="store_true", help="two targets, checked for the gain")
    parser.add_argument("--only", choices=STAGES, help="measure this part, keep the others of the file")
    parser.add_argument("--no-write", action="store_true")
    add_images(parser)
    options = parser.parse_args(arguments)
    if options.images and options.only not in (None, "network", "bits"):
        parser.error("--only takes network or bits with --images")
    torch.set_num_threads(1)
    if options.images:
        large = shipped(options.images)
        parts = {"network": lambda: measure_network(3, 16, large), "bits": lambda: measure_bits(100, large)}
        known = recorded("likelihood")["mnist"]["results"] if options.only else {}
        chosen = {options.only: parts[options.only]} if options.only else parts
        large.write("likelihood", known | {name: measure() for name, measure in chosen.items()})
        return
    if options.check:
        worst = max(r for row in measure_targets(True).values() for r in row["ratios"].values() if r)
        sys.exit(f"{worst:.2f} of dopri5's evaluations" if worst > 0.7 else 0)
    results = {name: STAGES[name]() for name in ([options.only] if options.only else STAGES)}
    if not options.no_write:
        others = recorded("likelihood")["results"] if options.only else {}
        write("likelihood", others | results, "python -m benchmarks likelihood")
