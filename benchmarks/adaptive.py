r"""Adaptive methods of the probability flow beside those of torchdiffeq, SciPy, torchode and k-diffusion.

Problems, with exact scores in float64: *ring*, the eight Gaussians of `benchmarks.work_precision` with standard
deviations 0.1, 0.05 and 0.02; *gaussian*, its 32 dimensions; *digits*, the empirical distribution of
`benchmarks.fitted_grids`; and *network*, the shipped network of handwritten digits, in float32. ``--mnist`` measures
*mnist* alone, the network of MNIST, on VP and at two errors. Each goes from the prior at t_max to t_min. The truth is
the exact flow (gaussian), or ``dop853`` in the data's form at a tolerance of 1e-11 (ring, digits); for a network, the
same network in float64 at 1e-8. Errors are distances of end points (RMS over dimensions), RMS and median over samples.
A few samples of the ring and the digits begin near the border between two modes and rule the RMS, so that there the
median counts.

Every method is run with tolerances (relative and absolute alike) that fall by the root of 10 until both errors are
small. An evaluation is counted for each row that the score is called with, and divided by the number of samples: a
method that steps a batch as one pays for each sample what the batch takes. The evaluations at a given error are
interpolated in the logarithms; None where no run is within it.

Peers get dx/dt, as a user would write it, with the time clamped to the interval, since they evaluate beyond its end.
dopri5 of torchdiffeq also gets dx/dlambda, with the log-SNR as the clock, and the better of the two is compared with;
k-diffusion gets its denoiser. SciPy steps the batch as one vector, as score_sde does. A peer that is not installed is
left out.

``python -m benchmarks adaptive`` writes ``results/adaptive.json``; ``--check`` measures a part and checks the gain, and
``--renew adams`` measures these of the package's methods again, whose counts do not depend on the machine, and the
loops; what the file has of others stays, as it does with ``--mnist``, whose figures are a part of the file.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import importlib.util
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scoresde
from benchmarks._record import write
from benchmarks._tables import load
from benchmarks.fitted_grids import Points, summary
from benchmarks.work_precision import distances, gaussian, ring
from scoresde import AffineSDE, Estimate, Node
from scoresde.core.processes import LOG_SNR, TIME, Coordinate, Network, ReverseProcess

F64 = torch.float64
Run = Callable[["Case", float], Tensor]  # (case, tolerance) -> end points

PROCESSES: dict[str, AffineSDE] = {
    "VP": scoresde.VPSDE(),
    "VE": scoresde.VESDE(),
    "EDM": scoresde.EDMSDE(),
    "sub-VP": scoresde.SubVPSDE(),
    "cosine": scoresde.CosineVPSDE(),
    "flow": scoresde.FlowSDE(),
}
# Problem: (samples, the error that counts, the errors to reach).
PROBLEMS: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "ring 0.1": (64, "median", ("1e-2", "1e-3", "1e-4", "1e-5")),
    "ring 0.05": (64, "median", ("1e-2", "1e-3", "1e-4", "1e-5")),
    "ring 0.02": (64, "median", ("1e-2", "1e-3", "1e-4", "1e-5")),
    "gaussian": (64, "rms", ("1e-2", "1e-3", "1e-4", "1e-5")),
    "digits": (24, "median", ("1e-2", "1e-3", "1e-4", "1e-5")),
    "network": (8, "median", ("1e-2", "1e-3", "1e-4")),
    "mnist": (4, "median", ("1e-2", "1e-3")),
}
NETWORKS = {"network": "digits", "mnist": "mnist"}
USUAL = [problem for problem in PROBLEMS if problem != "mnist"]
STEP = 10**-0.5
MOST = 1000  # evaluations per sample, after which a solve is given up


class GivenUp(Exception):
    """A solve that takes too long."""


class Counted:
    """A score that counts the rows that it is called with, and the seconds that it takes."""

    rowwise = True

    def __init__(self, score: Any, samples: int) -> None:
        self.score, self.event_shape, self.most = score, score.event_shape, MOST * samples
        self.rows, self.calls, self.seconds = 0, 0, 0.0

    def estimate(self, x: Tensor, node: Node) -> Estimate:
        """That of the score."""
        self.rows += len(x)
        self.calls += 1
        if self.rows > self.most:
            raise GivenUp
        began = time.perf_counter()
        out: Estimate = self.score.estimate(x, node)
        self.seconds += time.perf_counter() - began
        return out

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Refused: estimates are what is counted."""
        raise TypeError("this score counts estimates only")


def target_of(problem: str) -> scoresde.targets.Gaussian | scoresde.targets.GaussianMixture:
    """The distribution of the data."""
    if problem == "gaussian":
        return gaussian()
    known = ring()
    return scoresde.targets.GaussianMixture(known.log_weights.exp(), known.means, scales=float(problem.split()[1]))


class Case:
    """A problem on a process: a score, states at t_max and their ends."""

    def __init__(self, problem: str, process: str, samples: int) -> None:
        sde = self.sde = PROCESSES[process]
        self.problem, self.process = problem, process
        score: Any
        exact: Any = None
        if problem in NETWORKS:
            model = scoresde.load(NETWORKS[problem])
            score = model.score(sde)
            exact = type(model)(copy.deepcopy(model.net).double(), model.config).score(sde)
        elif problem == "digits":
            from sklearn.datasets import load_digits

            score = Points(torch.as_tensor(load_digits().data, dtype=F64) / 8 - 1, 0.05, sde)
        else:
            score = target_of(problem).score(sde)
        self.score = Counted(score, samples)
        generator = torch.Generator().manual_seed(4)
        x = sde.prior_sample((samples, *score.event_shape), generator=generator, dtype=F64)
        if problem == "gaussian":
            self.ends = gaussian().flow_map(x, sde, sde.t_max, sde.t_min)
        else:
            tolerance = 1e-11 if exact is None else 1e-8
            options: dict[str, Any] = {"method": "dop853", "form": "data", "rtol": tolerance, "atol": tolerance}
            self.ends = scoresde.solve(sde, score if exact is None else exact, x, **options).x
        self.x = x if exact is None else x.float()

    def measure(self, run: Run, tolerance: float) -> tuple[float, dict[str, float]] | None:
        """Evaluations per sample and errors; None if it was given up."""
        self.score.rows = 0
        try:
            with torch.no_grad():
                got = run(self, tolerance)
        except (GivenUp, AssertionError, scoresde.ScoreSDEError):  # torchdiffeq asserts that its steps do not vanish
            return None
        errors = summary(distances(got.to(F64), self.ends))
        return self.score.rows / len(self.x), errors


def own(method: str | scoresde.solvers.Solver) -> Run:
    """A method of scoresde."""

    def run(case: Case, tolerance: float) -> Tensor:
        return scoresde.solve(case.sde, case.score, case.x, method=method, rtol=tolerance, atol=tolerance).x

    return run


class Slope:
    """The derivative of a case's state on a clock, for a batch of times or one time; it keeps its seconds."""

    def __init__(self, case: Case, clock: Coordinate = TIME) -> None:
        self.sde, self.process = case.sde, ReverseProcess(case.sde, Network(case.score))
        self.clock, self.batch, self.seconds, self.accepted = clock, len(case.x), 0.0, 0

    def __call__(self, u: Tensor, x: Tensor) -> Tensor:
        """dx/du."""
        began = time.perf_counter()
        sde, u = self.sde, u.to(F64)
        t = (u if self.clock.lam is None else sde.time(2 * u)).clamp(sde.t_min, sde.t_max)
        out = self.process.answer(self.process.slope(self.clock, x, sde.nodes(t.expand(self.batch)))).to(x.dtype)
        self.seconds += time.perf_counter() - began
        return out

    def ends(self) -> list[float]:
        """The clock's values at t_max and t_min."""
        return [float(self.clock.clock(self.sde.node(t))) for t in (self.sde.t_max, self.sde.t_min)]

    def callback_accept_step(self, *_: Any) -> None:
        """torchdiffeq calls it."""
        self.accepted += 1


def torchdiffeq(method: str, clock: Coordinate = TIME) -> Run:
    """The library."""

    def run(case: Case, tolerance: float, slope: Slope | None = None) -> Tensor:
        from torchdiffeq import odeint

        slope = Slope(case, clock) if slope is None else slope
        span = torch.tensor(slope.ends(), dtype=F64)
        out: Tensor = odeint(slope, case.x, span, rtol=tolerance, atol=tolerance, method=method)[-1]
        return out

    return run


def scipy(method: str) -> Run:
    """The library, with the batch as one vector."""

    def run(case: Case, tolerance: float, slope: Slope | None = None) -> Tensor:
        from scipy.integrate import solve_ivp

        slope = Slope(case) if slope is None else slope

        def drift(t: float, y: Any) -> Any:
            return slope(torch.tensor(t, dtype=F64), torch.from_numpy(y).reshape(case.x.shape)).flatten().numpy()

        start = case.x.to(F64).flatten().numpy()
        found = solve_ivp(drift, slope.ends(), start, method=method, rtol=tolerance, atol=tolerance)
        slope.accepted = len(found.t) - 1
        return torch.from_numpy(np.ascontiguousarray(found.y[:, -1])).reshape(case.x.shape)

    return run


def torchode(method: str) -> Run:
    """The library."""

    def run(case: Case, tolerance: float, slope: Slope | None = None) -> Tensor:
        import torchode as to

        slope = Slope(case) if slope is None else slope
        shape, dtype = case.x.shape, case.x.dtype
        term = to.ODETerm(lambda t, y: slope(t, y.reshape(shape)).flatten(1))
        controller = to.IntegralController(atol=tolerance, rtol=tolerance, term=term)
        solver = to.AutoDiffAdjoint(getattr(to, method)(term=term), controller)
        start, end = (torch.full((len(case.x),), t, dtype=dtype) for t in slope.ends())
        found = solver.solve(to.InitialValueProblem(y0=case.x.flatten(1), t_start=start, t_end=end))
        slope.accepted = int(found.stats["n_accepted"].sum())
        out: Tensor = found.ys[:, -1].reshape(shape)
        return out

    return run


def dpm_adaptive(case: Case, tolerance: float) -> Tensor:
    """k-diffusion's, of order 3, in y = x/alpha and rho = sigma/alpha."""
    from k_diffusion.sampling import sample_dpm_adaptive

    sde = case.sde
    noisy, clean = sde.node(sde.t_max), sde.node(sde.t_min)

    def denoiser(y: Tensor, rho: Tensor) -> Tensor:
        t = sde.time(-2 * rho.to(F64).log()).clamp(sde.t_min, sde.t_max)
        node = sde.nodes(t.expand(len(y)))
        alpha = node.alpha.to(y.dtype).reshape(-1, *(1,) * (y.ndim - 1))
        return case.score.estimate(y * alpha, node).data.to(y.dtype)

    ends = [n.sigma / n.alpha for n in (clean, noisy)]
    out: Tensor = sample_dpm_adaptive(
        denoiser, case.x / noisy.alpha, *ends, rtol=tolerance, atol=tolerance, order=3, disable=True
    )
    return out * clean.alpha


OWN: dict[str, Run] = {
    name: own(name) for name in ("adams", "rk23", "rk45", "tsit5", "dop853", "dpm12", "dpm23", "erk32", "erk43")
}
PEERS: dict[str, Run] = {
    "torchdiffeq dopri5": torchdiffeq("dopri5"),
    "torchdiffeq dopri5, log-SNR": torchdiffeq("dopri5", LOG_SNR),
    "torchdiffeq dopri8": torchdiffeq("dopri8"),
    "torchdiffeq bosh3": torchdiffeq("bosh3"),
    "SciPy RK45": scipy("RK45"),
    "SciPy DOP853": scipy("DOP853"),
    "SciPy LSODA": scipy("LSODA"),
    "torchode Dopri5": torchode("Dopri5"),
    "torchode Tsit5": torchode("Tsit5"),
    "k-diffusion dpm_adaptive": dpm_adaptive,
}
MODULES = {"torchdiffeq": "torchdiffeq", "SciPy": "scipy", "torchode": "torchode", "k-diffusion": "k_diffusion"}
DOPRI5 = ("torchdiffeq dopri5", "torchdiffeq dopri5, log-SNR")


def present() -> tuple[dict[str, str], dict[str, Run]]:
    """The versions of the peers that are installed (None for the others), and their methods."""
    versions = {
        name: importlib.metadata.version(module) if importlib.util.find_spec(module) else None
        for name, module in MODULES.items()
    }
    for name, version in versions.items():
        if version is None:
            print(f"{name} is not installed; its methods are left out")
    runs = {name: run for name, run in PEERS.items() if versions[name.split()[0]] is not None}
    return {name: version or "none" for name, version in versions.items()}, runs


Point = tuple[float, float, dict[str, float]]  # tolerance, evaluations, errors


def sweep(case: Case, run: Run, least: float, *, to: float = 0.0) -> list[Point]:
    """From a tolerance of 1 down, until both errors are below ``least`` and the tolerance is below ``to``."""
    out: list[Point] = []
    tolerance = 1.0
    floor = 1e-6 if case.problem in NETWORKS else 1e-11
    while tolerance > 2 * floor:
        found = case.measure(run, tolerance)
        if found is None:
            break
        out.append((tolerance, *found))
        if max(found[1].values()) < least and (to == 0.0 or tolerance < to * 1.1):
            break
        tolerance *= STEP
    return out


def crossing(curve: list[Point], kind: str, error: float) -> float | None:
    """The evaluations at an error, along lines in the logarithms between the best points; those of the loosest run if
    that is within it, None if none is."""
    best: list[tuple[float, float]] = []
    for n, e in sorted((n, errors[kind]) for _, n, errors in curve):
        if math.isfinite(e) and (not best or e < best[-1][1]):
            best.append((n, e))
    if best and best[0][1] <= error:
        return best[0][0]
    for (n, e), (more, less) in itertools.pairwise(best):
        if e > error >= less:
            share = math.log(e / error) / math.log(e / less)
            return math.exp((1 - share) * math.log(n) + share * math.log(more))
    return None


def meaning(curve: list[Point], kind: str, last: float) -> dict[str, Any]:
    """The error divided by the tolerance at 1e-2, …, and the slope of their logarithms."""
    chosen = {
        f"1e-{k}": errors[kind]
        for tolerance, _, errors in curve
        for k in range(2, 9)
        if abs(math.log10(tolerance) + k) < 0.01 and 10**-k > last * 0.9
    }
    ks = [float(name[3:]) for name in chosen]
    logs = [-math.log10(error) for error in chosen.values()]
    slope = statistics.linear_regression(ks, logs).slope if len(ks) > 1 else None
    return {"error / tolerance": {name: error / float(name) for name, error in chosen.items()}, "slope": slope}


def measure(case: Case, runs: dict[str, Run], errors: tuple[str, ...], verbose: bool) -> dict[str, Any]:
    """One problem on one process: evaluations at errors for all methods, and what a tolerance means."""
    out: dict[str, Any] = {"counts": {}, "tolerance": {}}
    measured = PROBLEMS[case.problem][1]
    last = 1e-5 if case.problem in NETWORKS else 1e-8
    for name, run in runs.items():
        began = time.perf_counter()
        curve = sweep(case, run, float(errors[-1]), to=last if name == "adams" else 0.0)
        out["counts"][name] = {
            kind: {error: crossing(curve, kind, float(error)) for error in errors} for kind in ("rms", "median")
        }
        if name in OWN or name in DOPRI5:
            out["tolerance"][name] = meaning(curve, measured, last)
        if verbose:
            shown = {k: v and round(v, 1) for k, v in out["counts"][name][measured].items()}
            print(f"    {name:28} {shown} {time.perf_counter() - began:.1f} s", flush=True)
    return out


def ratios(cases: dict[str, dict[str, Any]], name: str = "adams") -> dict[str, Any]:
    """Evaluations of a method over those of dopri5 and of the best peer, at equal errors, by case and over all."""
    out: dict[str, Any] = {}
    for over, rivals in (("dopri5", DOPRI5), ("best peer", tuple(PEERS))):
        by_case: dict[str, float] = {}
        logs: list[float] = []
        for label, case in cases.items():
            counts = case["counts"]
            here = []
            for error, own_count in counts[name][case["kind"]].items():
                known = [counts[r][case["kind"]][error] for r in rivals if r in counts]
                reached = [n for n in known if n is not None]
                if own_count is not None and reached:
                    here.append(math.log(own_count / min(reached)))
            if here:
                by_case[label] = math.exp(statistics.fmean(here))
                logs += here
        if logs:
            worst = max(by_case, key=lambda label: by_case[label])
            out[over] = {"mean": math.exp(statistics.fmean(logs)), "worst": worst, "cases": by_case}
    return out


def loop_cost(rounds: int, names: tuple[str, ...], batches: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Median microseconds for each accepted step of a sample, in turns: outside the score, and outside dx/dt, which a
    peer is given, so that the schedule and the way from the score to the drift are not its own."""
    out: dict[str, dict[str, float]] = {}
    for batch in batches:
        case = Case("ring 0.1", "VP", batch)
        costs: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for turn in range(rounds + 1):
            for name in names:
                *seconds, accepted = timed(case, name)
                if turn:
                    costs[name].append((1e6 * seconds[0] / accepted, 1e6 * seconds[1] / accepted))
        for name in names:
            row = out.setdefault(name, {})
            for what, values in zip(("score", "dx/dt"), zip(*costs[name], strict=True), strict=True):
                row[f"outside the {what}, batch {batch}"] = statistics.median(values)
    return out


def timed(case: Case, name: str, tolerance: float = 1e-4) -> tuple[float, float, int]:
    """Seconds outside the score, outside the derivative (for methods of the package the same, since the derivative is
    theirs), and accepted steps of all samples."""
    score = case.score
    score.rows, score.calls, score.seconds = 0, 0, 0.0
    slope = Slope(case)
    with torch.no_grad():
        began = time.perf_counter()
        if name in OWN:
            options: dict[str, Any] = {"method": name, "rtol": tolerance, "atol": tolerance}
            accepted = int(scoresde.solve(case.sde, score, case.x, **options).accepted.sum())
        else:
            PEERS[name](case, tolerance, slope)  # type: ignore[call-arg]
            accepted = slope.accepted * (1 if name.startswith("torchode") else len(case.x))
        took = time.perf_counter() - began
    return took - score.seconds, took - max(slope.seconds, score.seconds), accepted


def plan(processes: list[str], problems: list[str]) -> list[tuple[str, str]]:
    """The cases: narrow rings and the network of MNIST on VP only, the other network not on EDM, whose path is that of
    VE."""
    few = dict.fromkeys(("ring 0.05", "ring 0.02", "mnist"), ("VP",))
    few["network"] = tuple(process for process in PROCESSES if process != "EDM")
    return [(a, b) for b in processes for a in problems if b in few.get(a, PROCESSES)]


LOOPS = ("adams", "rk45", "tsit5", "torchdiffeq dopri5", "torchode Dopri5", "torchode Tsit5", "SciPy RK45")


def main(arguments: list[str]) -> None:
    """Measure, print, write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks adaptive", description=__doc__)
    parser.add_argument("--check", action="store_true", help="adams and dopri5 on VP, checked for the gain")
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("-v", action="store_true", help="print every method")
    parser.add_argument("--processes", default=",".join(PROCESSES), help="a part is printed only")
    parser.add_argument("--problems", default=",".join(USUAL), help="a part is printed only")
    parser.add_argument("--mnist", action="store_true", help="the network of MNIST only; the other figures are kept")
    parser.add_argument("--methods", default="", help="these of scoresde's methods; a part is printed only")
    parser.add_argument("--renew", default="", help="measure these of scoresde's methods again, keep the rest")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    versions, peers = present()
    key = "mnist" if options.mnist else None
    before = load("adaptive", key)["results"] if options.renew else {"cases": {}, "ratios": {}}
    options.methods = options.renew or options.methods
    chosen = options.methods.split(",") if options.methods else list(OWN)
    processes, problems = options.processes.split(","), options.problems.split(",")
    every = USUAL
    if options.mnist:
        every = problems = ["mnist"]
    if options.check:
        chosen, processes = ["adams"], ["VP"]
        peers = {name: run for name, run in peers.items() if name in DOPRI5}
    runs = {name: OWN[name] for name in chosen} | ({} if options.renew else peers)
    cases: dict[str, dict[str, Any]] = {}
    for problem, process in plan(processes, problems):
        samples, kind, errors = PROBLEMS[problem]
        began = time.perf_counter()
        row = measure(Case(problem, process, samples), runs, errors, options.v)
        known = before["cases"].get(f"{problem}, {process}", {})
        row = {part: known.get(part, {}) | row[part] for part in row}
        cases[f"{problem}, {process}"] = {"kind": kind, "samples": samples, **row}
        counts = row["counts"]["adams"][kind]
        shown = {error: n and round(n, 1) for error, n in counts.items()}
        print(f"{problem:10} {process:8} adams, {kind}: {shown}  {time.perf_counter() - began:.0f} s", flush=True)
    found = {name: ratios(cases, name) for name in chosen}
    for name, by in found.items():
        for over, row in by.items():
            print(f"{name} / {over}: {row['mean']:.2f}, worst {row['cases'][row['worst']]:.2f} ({row['worst']})")
    results: dict[str, Any] = {"peers": versions, "cases": cases, "ratios": before["ratios"] | found}
    if not options.mnist:
        names = tuple(name for name in LOOPS if name in OWN or name in peers)
        results["loop"] = loop_cost(3 if options.check else 15, names, (1,) if options.check else (1, 64))
        for name, row in results["loop"].items():
            print(f"{name:28}", {k: round(v) for k, v in row.items()})
    if options.check:
        if found["adams"]["dopri5"]["mean"] > 0.6:
            sys.exit("adams takes more than 0.6 of dopri5's evaluations")
    elif not (
        options.no_write or (options.methods and not options.renew) or len(cases) < len(plan(list(PROCESSES), every))
    ):
        command = "python -m benchmarks adaptive" + (" --mnist" if key else "")
        write("adaptive", results, command, part=key)
