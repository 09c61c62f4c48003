r"""Grids fitted to a score, on noise that the fit has not seen, beside the default grid and the best of the peers.

Problems, all on the VP process from t = 1 to 1e-3, in float64, with exact scores: *ring* and *gaussian* of
`benchmarks.work_precision`, and *digits*, scikit-learn's 1,797 digits scaled to [-1, 1], each a Gaussian of standard
deviation 0.05. The errors are distances of end points (RMS over dimensions) from a solve with 800 steps (ring, digits)
or the exact flow (gaussian), RMS and median over 512 test samples. For each budget of evaluations the methods below are
fitted, and the one that ends nearest on the held-out half of the pilot is taken; the test samples are others.

The peers were measured at 5, 10, 20 and 50 evaluations, each with its best method and grid; what lies between is
interpolated in the logarithms.

``network`` fits grids for the shipped networks of handwritten digits, in float32, against their own reference; the
peers there are their published methods, run here, on the grids that they offer.

``python -m benchmarks fitted_grids`` writes ``results/fitted_grids.json``; ``--check`` fits a part and checks that the
gains are there; ``--network`` measures the networks only and writes ``results/fitted_network.json``, and with names, as
``--network mnist``, keeps the others as they are in the file.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scoresde
from benchmarks._record import RESULTS, write
from benchmarks._tables import load
from benchmarks.work_precision import distances, gaussian, ring
from scoresde import Estimate, Solver
from scoresde.solvers import IPNDM, DPMpp2M, RhoAB, UniP, UniPC

F64 = torch.float64
BUDGETS = (5, 8, 10, 15, 20, 30)
SDE = scoresde.VPSDE()
# The best of all peers at 5, 10, 20 and 50 evaluations, each by its own code on its best grid.
PEERS = {
    "ring": {"rms": (0.12, 0.058, 0.019, 6.5e-4), "median": (0.07, 0.015, 1.1e-3, 2.7e-5)},
    "gaussian": {"rms": (2.9e-2, 1.3e-2, 3.2e-4, 2.8e-5), "median": (2.9e-2, 1.3e-2, 3.2e-4, 2.8e-5)},
    "digits": {"rms": (0.18, 0.063, 0.027, 2.5e-4), "median": (0.098, 3.8e-3, 9.4e-4, 7.3e-5)},
}
METHODS: tuple[Solver, ...] = (
    UniPC(order=2),
    UniPC(order=3, start_up="published"),
    IPNDM(),
)
PILOT = {"ring": 256, "gaussian": 64, "digits": 96}
ITERATIONS: int | None = None  # as many as `fit_grid` takes by itself
NETWORK_BUDGETS = (5, 8, 10, 20)
# The networks: their processes, and how many samples are fitted on and tested with.
NETWORKS: dict[str, tuple[dict[str, scoresde.AffineSDE], int, int]] = {
    "digits": ({"VP": scoresde.VPSDE(), "EDM": scoresde.EDMSDE()}, 128, 256),
    "mnist": ({"VP": scoresde.VPSDE()}, 32, 32),
}
NETWORK_METHODS: tuple[Solver, ...] = (UniPC(order=2), IPNDM(order=3), IPNDM())


class Points:
    """Data points with a bandwidth, as `scoresde.targets.Empirical`, by matrix products: a few times faster."""

    rowwise = True

    def __init__(self, points: Tensor, bandwidth: float, sde: scoresde.AffineSDE) -> None:
        self.points, self.variance, self.sde = points, bandwidth**2, sde
        self.squares = points.square().sum(1)
        self.event_shape = tuple(points.shape[1:])

    def estimate(self, x: Tensor, node: scoresde.Node) -> Estimate:
        """The exact estimate."""
        alpha, sigma = node.alpha, node.sigma
        if isinstance(alpha, Tensor) and alpha.ndim:
            alpha, sigma = alpha[:, None], sigma[:, None]
        width = alpha * alpha * self.variance + sigma * sigma
        logits = (alpha * (x @ self.points.mT) - 0.5 * alpha * alpha * self.squares) / width
        mean = logits.softmax(1) @ self.points
        away = x - alpha * mean
        return Estimate(mean + alpha * self.variance / width * away, sigma / width * away)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The score."""
        node = scoresde.Node(*(v[:, None] if v.ndim else v for v in self.sde.nodes(t)))
        return -self.estimate(x, node._replace(alpha=node.alpha[:, 0], sigma=node.sigma[:, 0])).noise / node.sigma


def points() -> Points:
    """The empirical distribution of the digits."""
    from sklearn.datasets import load_digits

    return Points(torch.as_tensor(load_digits().data, dtype=F64) / 8 - 1, 0.05, SDE)


class Problem:
    """A score with pilot and test states and their ends."""

    def __init__(self, name: str, tests: int = 512) -> None:
        target = {"ring": ring, "gaussian": gaussian}.get(name)
        self.name = name
        self.score: Any = points() if target is None else target().score(SDE)
        generator = torch.Generator().manual_seed(2)
        pilot = PILOT[name]
        x = torch.randn(pilot + tests, *self.score.event_shape, generator=generator, dtype=F64)
        if name == "gaussian":
            ends = gaussian().flow_map(x, SDE, SDE.t_max, SDE.t_min)
        else:
            ends = scoresde.solve(SDE, self.score, x, method=UniPC(order=3), steps=800).x
        self.pilot, self.pilot_ends, self.x, self.ends = x[:pilot], ends[:pilot], x[pilot:], ends[pilot:]

    def errors(self, method: Solver, grid: Any) -> dict[str, float]:
        """On the test states."""
        options = {"steps": grid, "grid": None} if isinstance(grid, int) else {"grid": grid}
        got = scoresde.solve(SDE, self.score, self.x, method=method, **options).x
        return summary(distances(got, self.ends))


def summary(each: Tensor) -> dict[str, float]:
    """RMS and median over samples."""
    return {"rms": float(each.square().mean().sqrt()), "median": float(each.median())}


def peer(problem: str, kind: str, budget: int) -> float:
    """The peers' error, between the measured budgets along lines in the logarithms."""
    known = dict(zip((5, 10, 20, 50), PEERS[problem][kind], strict=True))
    low, high = max(n for n in known if n <= budget), min(n for n in known if n >= budget)
    share = 0.0 if low == high else math.log(budget / low) / math.log(high / low)
    return math.exp((1 - share) * math.log(known[low]) + share * math.log(known[high]))


def steps_of(method: Solver, budget: int) -> int:
    """The steps with so many evaluations."""
    return (budget - method.extra_evaluations) // method.evaluations


def measure(problem: Problem, budget: int, methods: tuple[Solver, ...], iterations: int) -> dict[str, Any]:
    """The best fit for a budget."""
    best, row = math.inf, {}
    for method in methods:
        began = time.perf_counter()
        grid = scoresde.fit_grid(
            SDE,
            problem.score,
            steps_of(method, budget),
            method,
            x=problem.pilot,
            reference=problem.pilot_ends,
            iterations=iterations,
            checkpoint=False,
        )
        seconds = time.perf_counter() - began
        value = grid.fitted.median * grid.fitted.rms
        if value < best:
            best = value
            row = {
                "method": grid.method,
                "default": problem.errors(method, steps_of(method, budget)),
                "fitted": problem.errors(method, grid),
                "peers": {kind: peer(problem.name, kind, budget) for kind in ("rms", "median")},
                "calls on the pilot": grid.cost.pilots,
                "seconds": seconds,
                "times": grid.times,
            }
        if "-v" in sys.argv:
            print("   ", grid.method, grid.fitted, f"{grid.cost.pilots:.0f} {seconds:.0f} s", flush=True)
    return row


def ratio(rows: list[dict[str, Any]], kind: str, over: str) -> float:
    """The geometric mean of the fitted errors, divided by others."""
    logs = [math.log(row["fitted"][kind] / row[over][kind]) for row in rows]
    return math.exp(sum(logs) / len(logs))


# The published methods as the peers run them, on the grids that they offer.
PUBLISHED: tuple[Solver, ...] = (
    DPMpp2M(),
    DPMpp2M(lower_order_final=True),
    UniPC(order=2, start_up="published", lower_order_final=True),
    UniPC(order=3, start_up="published", lower_order_final=True),
    UniP(order=3, start_up="published"),
    RhoAB(order=3, start_up="published"),
    IPNDM(order=3),
    IPNDM(order=4),
)


# The grids that the peers offer; Align Your Steps and the like are lists for networks of their own.
OFFERED = ("log_snr", "karras", "time", "quadratic", "cosine", scoresde.grids.Beta(0.6, 0.6))


def rivals_of(
    sde: scoresde.AffineSDE, score: Any, x: Tensor, ends: Tensor, budget: int
) -> dict[str, tuple[float, str]]:
    """The least error of the peers' methods on their grids, and whose it is."""
    rows = {}
    for method in PUBLISHED:
        for grid in OFFERED:
            got = scoresde.solve(sde, score, x, method=method, steps=budget, grid=grid).x
            name = grid if isinstance(grid, str) else "beta"
            rows[f"{method.name} {getattr(method, 'order', '')} on {name}".replace("  ", " ")] = summary(
                distances(got, ends)
            )
    return {kind: min((row[kind], name) for name, row in rows.items()) for kind in ("rms", "median")}


def network(
    model: Any, sde: scoresde.AffineSDE, budgets: tuple[int, ...], pilot: int, tests: int
) -> dict[str, tuple[scoresde.FittedGrid, dict[str, Any]]]:
    """Fitted grids of a network for some budgets, with their errors on other noise beside those of the peers' methods.

    The network runs in its float32; the state is float64, so that what is measured is the network's own path.
    """
    score = model.score(sde)
    generator = torch.Generator().manual_seed(3)
    x = sde.prior_sample((pilot + tests, *model.event_shape), generator=generator, dtype=F64)
    ends = scoresde.solve(sde, score, x, method=UniPC(order=2), steps=300).x
    test, test_ends = x[pilot:], ends[pilot:]
    out = {}
    for budget in budgets:
        peers, best = rivals_of(sde, score, test, test_ends, budget), math.inf
        for method in NETWORK_METHODS:
            began = time.perf_counter()
            grid = scoresde.fit_grid(sde, score, steps_of(method, budget), method, x=x[:pilot], reference=ends[:pilot])
            seconds = time.perf_counter() - began
            if grid.fitted.median < best:
                best = grid.fitted.median
                solved = {
                    key: summary(distances(scoresde.solve(sde, score, test, method=method, **options).x, test_ends))
                    for key, options in (("fitted", {"grid": grid}), ("default", {"steps": grid.steps}))
                }
                took = {"calls on the pilot": grid.cost.pilots, "seconds": seconds}
                out[str(budget)] = (grid, {"method": grid.method, **solved, "peers": peers, **took})
        print(f"{budget} evaluations: {out[str(budget)][1]}", flush=True)
    return out


def measure_networks(names: Sequence[str], ship: bool) -> None:
    """Some of the shipped networks: results, and with ``ship`` the grids in their configs."""
    rows = load("fitted_network")["results"] if (RESULTS / "fitted_network.json").exists() else {}
    for name in names:
        model, (processes, pilot, tests), fitted = scoresde.load(name), NETWORKS[name], []
        for process, sde in processes.items():
            found = network(model, sde, NETWORK_BUDGETS, pilot, tests)
            rows[f"{name}, {process}"] = {budget: row for budget, (_, row) in found.items()}
            fitted += [grid for grid, _ in found.values()]
        write("fitted_network", rows, "python -m benchmarks fitted_grids --network")
        if ship:
            directory = Path(scoresde.__file__).parent / "zoo" / "weights" / name
            scoresde.save(replace(model, config=replace(model.config, grids=tuple(fitted))), directory)


def main(arguments: list[str]) -> None:
    """Fit, print, write or check."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fitted_grids", description=__doc__)
    parser.add_argument("--check", action="store_true", help="10 evaluations with one method, checked for the gain")
    parser.add_argument("--network", nargs="*", choices=NETWORKS, help="shipped networks, to a file of their own")
    parser.add_argument("--ship", action="store_true", help="with --network: put the grids into the networks' configs")
    parser.add_argument("--no-write", action="store_true")
    parser.add_argument("-v", action="store_true", help="print every fit")
    parser.add_argument("--problems", default=",".join(PILOT), help="the others are kept as in the file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.network is not None:
        measure_networks(options.network or list(NETWORKS), options.ship)
        return
    budgets = (10,) if options.check else BUDGETS
    results: dict[str, Any] = {}
    names = options.problems.split(",")
    for name in names:
        problem = Problem(name, tests=128 if options.check else 512)
        for budget in budgets:
            methods, iterations = (METHODS[:1], 60) if options.check else (METHODS, ITERATIONS)
            row = measure(problem, budget, methods, iterations)
            results.setdefault(name, {})[str(budget)] = row
            print(
                f"{name:9}{budget:3}  "
                + "  ".join(
                    f"{k}: {row[k]['rms']:.1e} / {row[k]['median']:.1e}" for k in ("peers", "default", "fitted")
                )
                + f"  {row['method']}, {row['calls on the pilot']:.0f} calls, {row['seconds']:.0f} s",
                flush=True,
            )
    if not options.check and set(names) != set(PILOT) and (RESULTS / "fitted_grids.json").exists():
        results = {**load("fitted_grids")["results"]["problems"], **results}
    summary_rows = {
        str(budget): {
            f"{kind} / {over}": ratio([by[str(budget)] for by in results.values()], kind, over)
            for kind in ("rms", "median")
            for over in ("peers", "default")
        }
        for budget in budgets
    }
    print(summary_rows)
    if options.check:
        if summary_rows["10"]["median / peers"] > 0.3:
            sys.exit("the median is not below 0.3 of the peers'")
    elif not options.no_write:
        write("fitted_grids", {"problems": results, "ratios": summary_rows}, "python -m benchmarks fitted_grids")
