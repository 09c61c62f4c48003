"""Writes the tables and sentences that come from result files into the README and the pages of the documentation."""

from __future__ import annotations

import argparse
import collections
import inspect
import itertools
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks._tables import compared, few_methods, load, markdown, methods
from docs import _reference
from scoresde.core.support.files.shards import _READERS
from scoresde.core.support.registries import SDES

ROOT = Path(__file__).resolve().parent.parent


def processes_table() -> str:
    """The processes of the command line, with the first paragraph of their docstrings."""
    rows = []
    for name, kind in SDES.items():
        what = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
        what = re.sub(":math:`([^`]+)`", r"$\1$", what)
        rows.append(f"| `{name}` | `{kind.__name__}` | {what} |\n")
    return "| `--sde` | class | |\n|---|---|---|\n" + "".join(rows)


def startup_table() -> str:
    """The figures of ``benchmarks/results/startup.json``."""
    record = load("startup")
    rows = [
        [f"`{name}`", f"{row['processor seconds']:.2f}", str(row["modules"]), ", ".join(row["heavy"])]
        for name, row in record["results"]["programs"].items()
    ]
    return markdown(["program", "processor seconds", "modules", "among them"], rows, record)


def conventions_table() -> str:
    """The figures of ``benchmarks/results/conventions.json``."""
    record = load("conventions")
    rows = []
    for name in ("targets", "digits", "mnist", "another network"):
        found = record["results"][name]
        large = found["mistakes that raise the error by 5 %"]
        rows.append([name, *(str(v) for v in (found["right"], found["false alarms"], large, found["named"]))])
        rows[-1] += [str(found["called works"]), str(found["most calls"])]
    columns = ["networks", "right", "false alarms", "mistakes", "named", "called `works`", "most calls"]
    return markdown(columns, rows, record)


def mnist_table() -> str:
    """The figures of ``benchmarks/results/mnist.json``."""
    record = load("mnist")
    results = record["results"]
    real = results["training"]
    rows = [
        [
            name,
            f"{row['evaluations']:.0f}",
            f"{row['recognised']:.3f}",
            f"{row['nearest']:.2f}",
            f"{row['energy'] / real['energy']:.1f}",
            f"{row['sw2'] / real['sw2']:.1f}",
        ]
        for name, row in results["samples"].items()
    ]
    accuracy = results["classifier accuracy on held-out digits"]
    table = markdown(["sampler", "evaluations", "recognised", "nearest", "energy", "SW2"], rows, record)
    return f"{table}\nThe classifier is right for {accuracy:.1%} of the held-out digits.\n"


def digits_table() -> str:
    """The figures of ``benchmarks/results/digits.json``."""
    record = load("digits")
    results = record["results"]
    rows = [["held-out digits", "", f"{results['held-out']['recognised']:.3f}", "", "", "1", ""]]
    rows.append(["training digits", "", f"{results['training']['recognised']:.3f}", "1", "1", "", ""])
    for method, by_process in results["samples"].items():
        rows += [[f"`{method}`", process, *_digits_figures(row)] for process, row in by_process.items()]
    return markdown(["method", "process", "recognised", "energy", "SW2", "nearest", "evaluations"], rows, record)


def _digits_figures(row: Mapping[str, float]) -> list[str]:
    numbers = [row["energy / training's"], row["sw2 / training's"], row["nearest"]]
    return [f"{row['recognised']:.3f}", *(f"{v:.2f}" for v in numbers), f"{row['evaluations']:.0f}"]


def vp_table(beginning: tuple[str, ...] = ("",)) -> str:
    """The methods of the same file on VP, whose names begin in one of some ways."""
    record = load("digits")
    names = [name for name in record["results"]["samples"] if name.startswith(beginning)]
    rows = [[f"`{name}`", *_digits_figures(record["results"]["samples"][name]["VP"])] for name in names]
    return markdown(["method", "recognised", "energy", "SW2", "nearest", "evaluations"], rows, record)


def densities_table() -> str:
    """The methods whose paths have densities, and what these cost."""
    record = load("counts")
    rows = [
        [f"`{name}`", *(f"{row[key]:g}" for key in ("states", "passes", "reductions"))]
        for name, row in record["results"]["paths"].items()
    ]
    return markdown(["method", "random states per step", "passes per state", "reductions per state"], rows, record)


def path_cost() -> str:
    """What recording costs with the digits network."""
    added = 100 * (load("path_densities")["results"]["cost"]["True"] - 1)
    return f"With the digits network at batch 256 that is {added:.1f} % of the time of a solve."


def path_weights_sentence() -> str:
    """The coverage of normalising constants."""
    parts = [
        f"in {100 * row['share']:.1f} % of {row['runs']:,} runs in {name} (with {row['samples']} samples in "
        f"{row['steps']} steps, of which a share of {row['ess share']:.2f} count)"
        for name, row in load("path_densities")["results"]["coverage"].items()
    ]
    return (
        "For tilted mixtures of four Gaussians, whose constants are known, the 95 % interval holds the exact value "
        f"{' and '.join(parts)} (`python -m benchmarks path_densities`)."
    )


def reinforcement_table() -> str:
    """The figures of ``benchmarks/results/reinforcement.json``."""
    record = load("reinforcement")
    rows = []
    for name, row in record["results"]["digits"].items():
        cost = row["evaluations per sample"]
        rewards = [f"{row[key]:.3g}" for key in ("original", "fine-tuned", "tilted")]
        share = f"{row['gain over the largest']:.2f} ± {row['standard error'] / (row['tilted'] - row['original']):.2f}"
        others = [f"{row['gain of best of n over the largest']:.2f}"]
        calls = [f"{cost[key]:.0f}" for key in ("fine-tuned", "best of n", "rejection")]
        rows.append([name, *rewards, f"{row['kl']:.2f}", share, *others, *calls])
    head = ["reward", "original", "fine-tuned", "optimum", "divergence", "share of the gain", "of best-of-n"]
    return markdown([*head, "evaluations", "by best-of-n", "by rejection"], rows, record)


def reinforcement_first_order() -> str:
    """The share of the gain within reach of Gaussian steps, for a small divergence."""
    found = load("reinforcement")["results"]["first order"].items()
    shares = [f"{row['share']:.2f} ± {row['standard error']:.2f} for {name}" for name, row in found]
    return f"{', '.join(shares[:-1])} and {shares[-1]}"


def reinforcement_cost() -> str:
    """What the training took."""
    results = load("reinforcement")["results"]
    cost, digits = results["training"], results["digits"]
    taken = ", ".join(f"{row['training samples']:,} paths for {name}" for name, row in digits.items())
    return (
        f"The training takes {taken}. The first {cost['paths of the original network']:,} of each are drawn by the "
        f"original network, for the critic; each of the others takes {cost['evaluations']:.0f} evaluations of the "
        f"network, {cost['backward']:.0f} of them differentiated, and {cost['rewards']:.0f} of the reward. So it pays "
        "off where many samples are drawn and the reward costs little."
    )


def speed_table() -> str:
    """The figures of ``benchmarks/results/speed.json``."""
    record = load("speed")
    digits = record["results"]["digits"]
    first = (
        f"The digits network takes {digits['ms a call on 64']:.1f} ms for 64 digits with {digits['threads']} threads; "
        f"64 digits by `pc` with 500 steps take {digits['seconds for 64 digits by pc, 500 steps']:.1f} s.\n\n"
    )
    noise = record["results"]["microseconds a draw, 1 thread"]
    plain = noise["seed"]
    draws = [[name, *(f"{row[s]:.0f} ({row[s] / plain[s]:.1f})" for s in plain)] for name, row in noise.items()]
    return first + markdown(["µs per draw (over a plain one), 50 steps", *plain], draws, record)


def overhead_table() -> str:
    """The figures of ``benchmarks/results/overhead.json`` and of ``benchmarks/results/memory.json``."""
    record, memory = load("overhead"), load("memory")["results"]
    results = record["results"]
    rows = []
    for method, by_shape in results["1 threads"].items():
        row = [f"`{method}`"]
        for shape, ours in by_shape.items():
            peers = results["peers"][method][shape]
            best = min(peers, key=lambda name: peers[name])
            row.append(f"{ours['solve']:.0f} / {ours['by hand']:.0f} / {peers[best]:.0f}")
        loops = memory["peers"][method]
        row.append(f"{min(memory['ours'][method].values()):.0f} / {min(loops.values()):.0f}")
        rows.append([*row, best])
    shapes = list(next(iter(results["1 threads"].values())))
    return markdown(["µs per step, 1 thread", *shapes, "memory", "best library"], rows, record)


def overhead_ratios() -> str:
    """How many times as long as the loop by hand a solve takes, of ``benchmarks/results/overhead.json``."""
    record = load("overhead")
    results, kinds = record["results"], ("ratio", "ratio of steps alone", "ratio of the check alone")
    rows = []
    for method, by_shape in results["1 threads"].items():
        others = results["2 threads"][method]
        cells = [
            " / ".join(f"{row[kind]:.2f}" for kind in kinds)
            for shape in list(by_shape)[:2]
            for row in (by_shape[shape], others[shape])
        ]
        rows.append([f"`{method}`", *cells])
    shapes = list(next(iter(results["1 threads"].values())))[:2]
    head = [f"{shape}, {threads}" for shape in shapes for threads in ("1 thread", "2 threads")]
    return markdown(["over the loop by hand", *head], rows, record)


def around_table() -> str:
    """What a solve costs around its steps, and beside small networks, of ``benchmarks/results/overhead.json``."""
    record = load("overhead")
    results = record["results"]
    shares = results["shares"]
    rows = []
    for method, row in results["around"].items():
        parts = [f"{100 * share[method]:.2g} %" for share in shares.values()]
        rows.append([f"`{method}`", f"{row['first'] / 1e3:.1f}", f"{row['later'] / 1e3:.2f}", *parts])
    return markdown(["method", "first solve, ms", "later ones, ms", *shares], rows, record)


def orders_table() -> str:
    """The figures of ``benchmarks/results/orders.json``."""
    record = load("orders")
    rows = []
    for method, by_grid in record["results"].items():
        for grid, row in by_grid.items():
            errors = [f"{e:.1e}" for e in row["errors"].values()]
            rows.append([f"`{method}`", f"`{grid}`", *errors, f"{row['slope']:.2f}", str(row["order"])])
    steps = [f"N = {n}" for n in next(iter(next(iter(record["results"].values())).values()))["errors"]]
    return markdown(["method", "grid", *steps, "slope", "declared"], rows, record)


def fitted_table() -> str:
    """The figures of ``benchmarks/results/fitted_grids.json``."""
    record = load("fitted_grids")
    results = record["results"]
    rows = []
    for problem, budgets in results["problems"].items():
        for budget, row in budgets.items():
            errors = [f"{row[k]['rms']:.1e} / {row[k]['median']:.1e}" for k in ("peers", "default", "fitted")]
            took = [f"{row['calls on the pilot']:.0f}", f"{row['seconds']:.0f}"]
            rows.append([problem, budget, f"`{row['method']}`", *errors, *took])
    for budget, row in results["ratios"].items():
        ratios = [f"{row[f'rms / {over}']:.2f} / {row[f'median / {over}']:.2f}" for over in ("peers", "default")]
        rows.append(["fitted over it, geometric mean", budget, "", *ratios, "", "", ""])
    head = ["problem", "evaluations", "method", "peers", "default", "fitted", "calls on the pilot", "seconds"]
    return markdown(head, rows, record)


FEW = {
    "auto": "`auto`",
    "before": "default grid",
    "tuned": "`tune`",
}
NINE = {"auto / best of nine": "`auto`, nine methods", "tuned / best of nine": "`tune`, nine methods"}


def few_table() -> str:
    """The ratios of ``benchmarks/results/few.json``."""
    record = load("few")
    rows = []
    for budget, kinds in record["results"]["ratios"].items():
        for kind, title in (FEW | NINE).items():
            cells = [
                f"{figures['mean']:.2f} / {figures['worst']:.1f}"
                for group in ("report", "report, flows")
                for figures in kinds[kind][group].values()
            ]
            rows.append([budget, title, *cells])
    groups = [f"{group}, {figure}" for group in ("all of *report*", "its flows") for figure in ("median", "RMS")]
    return markdown(["evaluations", "geometric mean / largest ratio of", *groups], rows, record)


def noisy_adams() -> str:
    """The evaluations of ``adams`` where there is most noise, of the same file."""
    record = load("few")
    rows = []
    for name, row in record["results"]["adaptive"].items():
        shares = row["of dopri5's"]
        rows.append([name, f"{row['evaluations']:.1f}", *(f"{shares[kind]:.2f}" for kind in ("median", "rms"))])
    head = ["problem", "evaluations of `adams`", "of dopri5's, equal median", "of dopri5's, equal RMS"]
    return markdown(head, rows, record)


def high_noise_table() -> str:
    """The bad networks of ``benchmarks/results/high_noise.json``."""
    record = load("high_noise")
    rows = []
    for name, row in record["results"]["bad"].items():
        cells = [f"{row[key]:.2g}" if key in row else "–" for key in ("as it is", "by hand", "cured", "auto")]
        rows.append([name, row["half"], *(f"{error:.1f}" for error in row["errors"].values()), row["verdict"], *cells])
    errors = [f"error at {level}" for level in ("12", "33", "90")]
    head = [
        "network",
        "half",
        *errors,
        "verdict",
        "distance",
        "by hand",
        "with the line proposed",
        "`auto` at 10 / best",
    ]
    return markdown(head, rows, record)


def rules_table() -> str:
    """The pairs of ``benchmarks/results/few_rules.json``."""
    record = load("few_rules")
    rows = []
    for budget in ("5", "8", "10", "15", "20"):
        found = record["results"][budget]
        pairs = {"`auto`": found["auto"]} | {k: found[k][0] for k in ("smallest mean", "smallest maximum")}
        for kind, rule in pairs.items():
            method, _, grid = rule["pair"].partition(" on ")
            figures = [f"{rule['mean']:.2f}", f"{rule['worst']:.1f}"]
            rows.append([budget, kind, method, f"`{grid}`", *figures, rule["problem"]])
    head = ["evaluations", "pair", "method", "grid", "geometric mean", "largest ratio", "on"]
    return markdown(head, rows, record)


def labels_table() -> str:
    """The errors of ``benchmarks/results/integer_labels.json``."""
    record = load("integer_labels")
    rows = []
    for name, problem in record["results"]["problems"].items():
        for budget, found in problem.items():
            errors = [f"{error:.1e}" for method, error in found.items() if method != "tuned"]
            rows.append([name, budget, *errors, f"`{found['tuned'].split('(')[0]}`"])
    for budget, means in record["results"]["ratios"].items():
        rows.append(
            [
                "**error over that of `tune`, geometric mean**",
                budget,
                *(f"{mean:.1f}" for mean in means.values()),
                "1",
                "",
            ]
        )
    methods = [name.replace("chain.grid", "`chain.grid`") for name in found if name != "tuned"]
    return markdown(["score, chain", "evaluations", *methods, "chosen"], rows, record)


def label_ratios() -> str:
    """The geometric means of the same file, over the errors of `tune`."""
    record = load("integer_labels")
    ratios = record["results"]["ratios"]
    names = list(next(iter(ratios.values())))
    rows = [["all eight", budget, *(f"{mean:.1f}" for mean in means.values())] for budget, means in ratios.items()]
    for name, problem in record["results"]["problems"].items():
        if name.startswith("mnist"):
            rows += [
                [name, budget, *(f"{found[method] / found['tune']:.1f}" for method in names)]
                for budget, found in problem.items()
            ]
    methods = [name.replace("chain.grid", "`chain.grid`") for name in names]
    return markdown(["networks, chain", "evaluations", *methods], rows, record)


def velocities_table() -> str:
    """The ratios of ``benchmarks/results/velocities.json``."""
    record = load("velocities")
    ratios = record["results"]["ratios"]
    rows = [
        [f"`{name}`", *(f"{row[name]['mean']:.2f} ({row[name]['worst']:.2f})" for row in ratios.values())]
        for name in next(iter(ratios.values()))
        if name != "euler"
    ]
    return markdown(["evaluations", *ratios], rows, record)


def guided_solvers() -> str:
    """The errors of ``benchmarks/results/guided_solvers.json``."""
    record = load("guided_solvers")
    methods = record["results"]["digits"]["1"]["10"]
    rows = [
        [name, scale, budget, *(f"{row[method]:.1e}" if method in row else "–" for method in methods)]
        for name, scales in record["results"].items()
        for scale, budgets in scales.items()
        for budget, row in budgets.items()
    ]
    return markdown(["network", "scale", "evaluations", *(f"`{method}`" for method in methods)], rows, record)


def velocities_adaptive() -> str:
    """Evaluations and errors at each tolerance, of the same file: geometric means over problems."""
    record = load("velocities")
    problems = [problem["adaptive"] for problem in record["results"]["problems"].values()]
    rows = []
    for name, tolerances in problems[0].items():
        cells = []
        for tolerance in tolerances:
            found = [problem[name][tolerance] for problem in problems]
            calls, error = (math.exp(sum(math.log(f[k]) for f in found) / len(found)) for k in ("evaluations", "error"))
            cells.append(f"{calls:.0f}, {error:.1e}")
        rows.append([f"`{name}`", *cells])
    return markdown(["`rtol` and `atol`", *problems[0]["adams"]], rows, record)


def few_problems() -> str:
    """The problems of the same file."""
    record = load("few")
    rows = []
    for name, row in record["results"]["problems"].items():
        for budget in ("5", "10"):
            figures = row["budgets"][budget]
            best = figures["best"]["median"]
            ratios = [f"{figures[kind]['median'] / best:.2f}" for kind in ("auto", "before", "tuned")]
            rows.append([name, row["half"], budget, f"{best:.1e}", f"`{figures['best']['pair']}`", *ratios])
    kinds = [FEW[kind] for kind in ("auto", "before", "tuned")]
    head = ["problem", "half", "evaluations", "best pair", "which", *kinds]
    return markdown(head, rows, record)


def learned_table() -> str:
    """Errors of learned solvers over those on fitted grids, of ``benchmarks/results/fitted_solvers.json``."""
    record = load("fitted_solvers")
    rows = []
    for name, problem in record["results"]["problems"].items():
        for budget, row in problem["budgets"].items():
            best, got = row["best grid"], row["learned"]
            cells = [f"{got[k] / best[k]:.2f} ({got[k]:.1e})" for k in ("median", "rms")]
            cost, far = f"{row['cost / grid']:.1f}", f"{problem['farthest']:.3g}"
            rows.append([name, problem["half"], budget, *cells, cost, far])
    for group, budgets in record["results"]["ratios"].items():
        for budget, row in budgets.items() if group.startswith(("choose", "report")) else ():
            cells = [f"{row[k]['mean']:.2f}, at most {row[k]['worst']:.2f}" for k in ("median", "rms")]
            rows.append(["**geometric mean**", group, budget, *cells, "", ""])
    ratios = ["median over best grid", "RMS over best grid", "cost over a grid's", "farthest end over median"]
    return markdown(["problem", "half", "evaluations", *ratios], rows, record)


def published_table() -> str:
    """Published learned solvers over ours, from the same file."""
    record = load("fitted_solvers")
    rows = []
    for name, problem in record["results"]["problems"].items():
        for budget, row in problem["budgets"].items():
            if "published" in row:
                found = row["published"].values()
                rows.append([name, budget, *(f"{v['median'] / row['learned']['median']:.2f}" for v in found)])
    ratios = record["results"]["ratios"].get("published over learned", {})
    for budget, means in ratios.items():
        rows.append(["**geometric mean**", budget, *(f"{v['median']['mean']:.2f}" for v in means.values())])
    names = [name.upper() for name in next(iter(ratios.values()), {})]
    return markdown(["problem", "evaluations", *(f"median of {name}" for name in names)], rows, record)


def shipped_table() -> str:
    """The figures of ``benchmarks/results/shipped_solvers.json``."""
    record = load("shipped_solvers")
    rows = []
    for network, budgets in record["results"].items():
        for budget, row in budgets.items():
            kinds = [row[k] for k in ("EDM", "VP", "guidance 3")]
            found = [f"{v['learned']['median']:.1e}" if "learned" in v else "–" for v in kinds]
            cells = [f"{text} / {v['auto']['median']:.1e}" for text, v in zip(found, kinds, strict=True)]
            rows.append([network, budget, *cells])
    kinds = [f"{name}: learned / `auto`" for name in ("EDM", "VP", "guidance 3")]
    return markdown(["network", "evaluations", *kinds], rows, record)


def transfer_table() -> str:
    """The ratios of ``benchmarks/results/transfer.json``."""
    record = load("transfer")
    rows = []
    for group, kinds in record["results"]["ratios"].items():
        cells = []
        for kind, budget in itertools.product(("tuned", "learned"), ("5", "8", "10")):
            row = kinds.get(kind, {}).get(budget, {})
            means = [f"{row[k]['median']['mean']:.2f}" for k in ("transferred", "made") if k in row]
            cells.append((" / ".join(means) or "–") + (f", {row['refused']} refused" if row.get("refused") else ""))
        pairs = max(row["pairs"] + row["refused"] for budgets in kinds.values() for row in budgets.values())
        rows.append([group, str(pairs), *cells])
    head = [f"{kind}, {budget}" for kind, budget in itertools.product(("tuned", "learned"), (5, 8, 10))]
    return markdown(["", "pairs", *head], rows, record)


def laws_table() -> str:
    """The figures of ``benchmarks/results/few_laws.json``."""
    record = load("few_laws")
    results = dict(record["results"])
    whole = results.pop("100 steps")
    found = [(budget, kind, row) for budget, kinds in results.items() for kind, row in kinds.items()]
    rows = [
        [budget, kind, f"{row['recognised']:.3f}", f"{row['energy']:.2f}", f"{row['sw2']:.2f}"]
        for budget, kind, row in [*found, ("100", "`unipc3`", whole)]
    ]
    return markdown(["evaluations", "", "recognised", "energy", "sliced W2"], rows, record)


def distributions_table() -> str:
    """Choices by energy distances, of ``benchmarks/results/few_distributions.json``."""
    record = load("few_distributions")
    kinds = {"law": '`objective="law"`', "log": "`tune`", "best": "best", "best deterministic": "best deterministic"}
    rows = []
    for problem, budgets in record["results"].items():
        for budget, found in budgets.items():
            cells = (f"{found[kind]['distance']:.1e} ± {found[kind]['error']:.0e}" for kind in kinds)
            rows.append([problem, budget, f"`{found['law']['method']}`", *cells])
    return markdown(["problem", "evaluations", "choice", *(f"D²: {name}" for name in kinds.values())], rows, record)


def network_table() -> str:
    """The figures of ``benchmarks/results/fitted_network.json``."""
    record = load("fitted_network")
    rows = []
    for process, budgets in record["results"].items():
        for budget, row in budgets.items():
            best, whose = row["peers"]["median"]
            errors = [f"{row[k]['rms']:.1e} / {row[k]['median']:.1e}" for k in ("default", "fitted")]
            ratio, took = f"{row['fitted']['median'] / best:.2f}", f"{row['calls on the pilot']:.0f}"
            rows.append([f"{process}, {budget}", f"`{row['method']}`", *errors, f"{best:.1e}, {whose}", ratio, took])
    head = ["network, process, evaluations", "method", "default", "fitted", "best peer", "fitted over it", "calls"]
    return markdown(head, rows, record)


def warm_table() -> str:
    """The figures of ``benchmarks/results/warm_start.json``."""
    record = load("warm_start")
    rows = []
    for problem, by_tolerance in (record["results"] | record["mnist"]["results"]).items():
        for rtol, row in by_tolerance.items():
            counts = [f"{row['adams'][k]['evaluations']:.1f}" for k in ("full", "warm")]
            errors = [f"{row['unipc2'][k]['median']:.1e}" for k in ("full", "warm")]
            rows.append([problem, rtol, f"{row['sigma / alpha']:.2g}", *counts, *errors])
    head = ["problem", "rtol", "ends at sigma / alpha", "`adams` without", "with", "`unipc2`, 8, without", "with"]
    return markdown(head, rows, record)


def likelihood_targets() -> str:
    """Evaluations and errors on exact targets, from ``benchmarks/results/likelihood.json``."""
    record = load("likelihood")
    rows = []
    for name, row in record["results"]["targets"].items():
        curves = [", ".join(f"{n:.0f}: {e:.0e}" for n, e in curve) for curve in row["curves"].values()]
        ratios = " / ".join("–" if r is None else f"{r:.2f}" for r in row["ratios"].values())
        rows.append([f"{name}, {row['dimensions']}", *curves, ratios])
    head = [
        "problem, dimensions",
        "`log_likelihood`, evaluations: error",
        "dopri5",
        "ratio at 1e-1 / 1e-2 / 1e-3 / 1e-4",
    ]
    return markdown(head, rows, record)


def likelihood_exact() -> str:
    """The largest errors on exact targets, by process, from the same file."""
    record = load("likelihood")
    rows = []
    for name, cases in record["results"]["exact"].items():
        worst = [max(case[t]["error a dimension"] for case in cases.values()) for t in ("1e-5", "1e-7")]
        mismatch = max(case["mismatch of the prior"] for case in cases.values())
        rows.append([name, *(f"{error:.1e}" for error in worst), f"{mismatch:.1g}"])
    head = ["process", "error / D at a tolerance of 1e-5", "at 1e-7", "of the prior, nats"]
    return markdown(head, rows, record)


def likelihood_network() -> str:
    """Wall time, from the same file."""
    record = load("likelihood")
    rows = []
    keys = ("processor seconds", "seconds")
    for network, results in (("digits", record["results"]), ("mnist", record["mnist"]["results"])):
        for end, runs in results["network"].items():
            first = runs["published"]
            for name, run in runs.items():
                times = [f"{run[key] / first[key]:.2f}" if key in run else "" for key in keys]
                used = f"{run[keys[0]]:.2f}" if keys[0] in run else ""
                rows.append([network, end, name, f"{run['evaluations']:.0f}", f"{run['error']:.1e}", used, *times])
    head = ["network", "", "", "evaluations", "error, nats", "processor, s", "over published", "wall over published"]
    return markdown(head, rows, record)


def likelihood_coverage() -> str:
    """The intervals, from the same file."""
    record = load("likelihood")
    rows = [
        [n, f"{row['coverage']:.3f}", f"{row['width over implied']:.2f}", str(row["trials"])]
        for n, row in record["results"]["coverage"].items()
    ]
    return markdown(["probes", "coverage of 95 % intervals", "width / implied", "trials"], rows, record)


def likelihood_control() -> str:
    """The variance that controls leave, from the same file."""
    record = load("likelihood")
    control = record["results"]["control"]
    rows = []
    for name, row in control.items():
        errors = {
            key: row[f"{key}: standard error of the gain over digits"] for key in ("variance", "variance, scaled")
        }
        pairs = [f"{row[key]:.1f} ({row[f'{key}: gain']:.2f} ± {error:.2f})" for key, error in errors.items()]
        rows.append([name, *pairs, f"{row['scale']:.2f}", f"{row['time over none']:.1f}"])
    head = ["control", "variance of one probe (gain)", "scaled", "scale", "time / none"]
    return markdown(head, rows, record)


def likelihood_estimators() -> str:
    """Estimates of the trace at equal cost, from the same file."""
    record = load("likelihood")
    rows = [
        [name, f"{row['deviation']:.2f}", f"{row['standard error']:.2f}", f"{row['coverage']:.3f}"]
        for name, row in record["results"]["estimators"].items()
    ]
    return markdown(["24 products", "deviation, nats", "stated standard error", "95 % intervals hold"], rows, record)


def likelihood_products() -> str:
    """Ways to multiply with a Jacobian, from the same file."""
    record = load("likelihood")
    rows = [[name, f"{1e3 * seconds:.0f}"] for name, seconds in record["results"]["products"].items()]
    return markdown(["", "ms"], rows, record)


def likelihood_bits() -> str:
    """The bits, from the same file."""
    record = load("likelihood")
    rows = []
    for network, results in (("digits", record["results"]), ("mnist", record["mnist"]["results"])):
        for name, row in results["bits"].items():
            flow = f"{row['bits']:.3f} ± {row['standard error over digits']:.3f}"
            bound = f"{row['variational bound']:.3f} ± {row['standard error of the bound over digits']:.3f}"
            rows.append([network, f"{row['digits']} {name}", flow, bound])
    return markdown(["network", "digits", "flow", "variational bound of the reverse SDE"], rows, record)


def likelihood_bounds() -> str:
    """The variational bounds, from the same file."""
    record = load("likelihood")
    rows = []
    for name, row in record["results"]["bounds"].items():
        texts = [
            f"{row[part]['bits']:.3f} ± {row[part]['standard error over digits']:.3f} "
            f"({row[part]['standard error of the mean from its draws']:.3f}), {row[part]['digits']}"
            for part in ("held out", "training")
        ]
        rows.append([name, row["of"], str(row["evaluations"]), *texts])
    head = ["bound", "on the negative logarithm of the", "evaluations", "held-out digits (number)", "training digits"]
    return markdown(head, rows, record)


def guidance_table(part: str | None = None) -> str:
    """The figures of ``benchmarks/results/guidance.json``, or those of its part."""
    record = load("guidance", part)
    results = record["results"]
    rows = []
    for name in ("held-out", "training"):
        row = results[name]
        energy = f"{row['energy']:.2f}" if "energy" in row else ""
        rows.append([f"{name} digits", f"{row['right']:.3f}", f"{row['sure']:.3f}", energy, f"{row['diversity']:.2f}"])
    for name, row in results["scales"].items():
        numbers = [f"{row['right']:.3f}", f"{row['sure']:.3f}", f"{row['energy']:.2f}", f"{row['diversity']:.2f}"]
        rows.append([f"scale {name}", *numbers])
    low, high = results["interval"]
    head = [f"{results['each class']} of each class", "right", "sure", "energy", "diversity"]
    note = f"`unipc3` with {results['steps']} steps on `VPSDE`; interval: log-SNRs from {low:g} to {high:g}.\n"
    return markdown(head, rows, record) + "\n" + note


def tilt_table() -> str:
    """The figures of ``benchmarks/results/tilt.json``."""
    record = load("tilt")
    results = record["results"]
    laws = {
        "$p(x)\\,p(y\\mid x)^3$, the tilted distribution": results["tilted"],
        "the guided probability flow": results["flow"],
        "the guided reverse SDE": results["reverse SDE"],
    }
    for name, key in (
        ('`method="langevin"` on the guided score, `snr=0.5`, {} levels', "langevin"),
        ("`sample_tilted`, {} steps, many particles", "particles"),
        ("the same with `data_std=0`, {} steps", "particles, data_std=0"),
    ):
        laws |= {name.format(count): law for count, law in results[key].items()}
    rows = [[name, f"{mean:.3f}", f"{variance:.3f}"] for name, (mean, variance) in laws.items()]
    return markdown(["distribution of", "mean", "variance"], rows, record)


def peers_table() -> str:
    """The figures of ``benchmarks/results/peers.json``."""
    record = load("peers")
    rows = [[name, f"{gap:.0e}"] for name, gap in record["results"].items()]
    return markdown(["comparison", "largest difference"], rows, record)


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def adaptive_counts(part: str | None = None) -> str:
    """Evaluations at equal errors by case, from ``benchmarks/results/adaptive.json`` or its part."""
    record = load("adaptive", part)
    results = record["results"]
    over, rows = results["ratios"]["adams"], []
    for label, case in results["cases"].items():
        kind, counts = case["kind"], case["counts"]
        errors = list(counts["adams"][kind])
        peers = {name: row[kind] for name, row in counts.items() if name not in results["ratios"]}
        dopri5 = {name: row for name, row in peers.items() if "torchdiffeq dopri5" in name}
        ours = " / ".join(_count(counts["adams"][kind][e]) for e in errors)
        best = [
            " / ".join(_count(min((row[e] for row in rivals.values() if row[e]), default=None)) for e in errors)
            for rivals in (dopri5, peers)
        ]
        ratios = [f"{over[rival]['cases'][label]:.2f}" for rival in ("dopri5", "best peer")]
        rows.append([f"{label}, {kind}", ours, *best, *ratios])
    if len(rows) > 1:
        means = [f"{over[rival]['mean']:.2f}" for rival in ("dopri5", "best peer")]
        rows.append(["geometric mean", "", "", "", *means])
    longest = max((case["counts"]["adams"][case["kind"]] for case in results["cases"].values()), key=len)
    title = f"evaluations at {' / '.join(longest)}"
    head = [title, "`adams`", "torchdiffeq dopri5", "best peer", "`adams` / dopri5", "`adams` / best peer"]
    return markdown(head, rows, record)


def adaptive_tables() -> str:
    """The figures of ``benchmarks/results/adaptive.json``."""
    record = load("adaptive")
    results = record["results"]
    cases = results["cases"]

    here = {label: case for label, case in cases.items() if label.endswith(", VP")}
    head = ["VP: evaluations at an error of 1e-3 / 1e-5", *(f"{k[:-4]}, {v['kind']}" for k, v in here.items())]
    rows = []
    for name in next(iter(cases.values()))["counts"]:
        counts = [case["counts"][name][case["kind"]] for case in here.values()]
        at = [" / ".join(_count(c[e]) for e in ("1e-3", "1e-5") if e in c) for c in counts]
        rows.append([f"`{name}`" if name in results["ratios"] else name, *at])
    first = markdown(head, rows, record)
    second = adaptive_counts()

    rows = []
    for name in next(iter(cases.values()))["tolerance"]:
        row = [f"`{name}`" if name in results["ratios"] else name]
        for network in (False, True):
            found = [c["tolerance"][name] for label, c in cases.items() if label.startswith("network") == network]
            shares = [share for by in found for share in by["error / tolerance"].values()]
            slopes = [by["slope"] for by in found if by["slope"] is not None]
            row += [f"{min(shares):.2g} … {max(shares):.2g}", f"{min(slopes):.2f} … {max(slopes):.2f}"]
        rows.append(row)
    head = ["method", "exact scores: error / tolerance", "slope", "network: error / tolerance", "slope"]
    third = markdown(head, rows, record)

    columns = list(next(iter(results["loop"].values())))
    rows = [
        [f"`{name}`" if name in results["ratios"] else name, *(f"{row[c]:.0f}" for c in columns)]
        for name, row in results["loop"].items()
    ]
    fourth = markdown(["µs per step and sample", *columns], rows, record)
    return "\n".join([first, second, third, fourth])


def adaptive_sde_table() -> str:
    """The figures of ``benchmarks/results/adaptive_sde.json``."""
    record = load("adaptive_sde")
    names = ["euler_maruyama", "dpmpp_2m_sde", "ggf", "dpmpp_sde12"]
    rows, logs = [], {name: [] for name in names[:2]}
    for problem, by_process in record["results"].items():
        for process, result in by_process.items():
            for error, row in result["at"].items():
                counts = [row[name] and row[name]["evaluations"] for name in names]
                rows.append([f"{problem}, {process}", error, *("–" if c is None else f"{c:.0f}" for c in counts)])
                for name, count in zip(names[:2], counts[:2], strict=True):
                    if count and counts[-1]:
                        logs[name].append(math.log(counts[-1] / count))
    means = [f"{math.exp(sum(v) / len(v)):.2f}" for v in logs.values()]
    rows.append(["ratio of `dpmpp_sde12` to it, geometric mean", "", *means, "", ""])
    return markdown(["problem", "error of the distribution", *(f"`{name}`" for name in names)], rows, record)


def inverse_table() -> str:
    """Distance and coverage of each method by dimension and distribution, from ``benchmarks/results/inverse.json``."""
    record = load("inverse")
    columns = [(size, law) for size in ("2", "16", "64") for law in ("gaussian", "mixture")]
    rows = []
    for method, cases in record["results"]["methods"].items():
        cells = []
        for size, law in columns:
            found = [row for name, row in cases.items() if name.startswith(f"{size}, {law},")]
            distance = sum(row["distance / floor"] for row in found) / len(found)
            shown = f"{distance:.1f}" if distance < 1000 else "diverges"
            cells.append(f"{shown} / {sum(row['coverage'] for row in found) / len(found):.2f}")
        each = next(iter(cases.values()))
        rows.append([f"`{method}`", *cells, f"{each['evaluations']:.0f} + {each['products']:.0f}"])
    titles = [f"{size}, {law}" for size, law in columns]
    return markdown(["distance / inside", *titles, "evaluations + products"], rows, record)


def particles_table() -> str:
    """The particle method by steps and particles."""
    record = load("inverse")
    rows = [
        [name, f"{row['distance']:.4f}", f"{row['ess']:.2f}" if "ess" in row else ""]
        for name, row in record["results"]["particles"].items()
    ]
    return markdown(["", "distance", "mean effective share of the particles"], rows, record)


def compositions_table() -> str:
    """Mean and standard deviation of composed posteriors."""
    record = load("compositions")
    results = record["results"]
    names = list(next(iter(results.values())))
    rows = [[count, *("{:.2f}, {:.2f}".format(*row[name]) for name in names)] for count, row in results.items()]
    return markdown(["observations", *names], rows, record)


def power_table() -> str:
    """The smallest errors that simulation-based calibration finds."""
    record = load("simulation_based")
    found = record["results"]["power"]["smallest"]
    names = list(next(iter(found.values())))
    rows = [[f"{int(pairs):,}", *(f"{row[name]:.2f}" for name in names)] for pairs, row in found.items()]
    return markdown(["pairs", *names], rows, record)


def sets_table() -> str:
    """The errors of compositions and of networks of sets, with the least and the largest of three networks."""
    record = load("simulation_based")
    found = record["results"]["sets"]
    names = list(next(iter(found.values())))
    rows = []
    for trials, row in found.items():
        errors = [sorted(row[name]["error"]) for name in names]
        rows.append([trials, *(f"{middle:.2f} ({low:.2f}–{high:.2f})" for low, middle, high in errors)])
    return markdown(["trials", *names], rows, record)


def modes_table() -> str:
    """The width of the modes of composed posteriors, for each data set."""
    record = load("simulation_based")
    found = record["results"]["modes"]
    names = list(next(iter(found.values())))
    rows = [[trials, *(" / ".join(f"{v:.2f}" for v in row[name]) for name in names)] for trials, row in found.items()]
    titles = ["`{}`, {} steps".format(*name.split(", ")) for name in names]
    return markdown(["trials", *titles], rows, record)


def langevin_table() -> str:
    """Bias and width of composed samples by steps and size of the moves."""
    record = load("simulation_based")
    rows: dict[tuple[float, int, float], list[str]] = {}
    for row in record["results"]["langevin"]:
        cells = rows.setdefault((row["product"], row["steps"], row["snr"]), [])
        cells += [f"{round(row['bias'], 2) + 0.0:+.2f}", f"{row['width']:.2f}"]
    lines = [[f"{product:g}", str(steps), f"{snr:g}", *cells] for (product, steps, snr), cells in sorted(rows.items())]
    titles = [f"{count} observations: {what}" for count in (8, 32) for what in ("bias", "width")]
    return markdown(["`steps` × `snr`²", "`steps`", "`snr`", *titles], lines, record)


def bounds_table() -> str:
    """Bias and width of composed posteriors in the box and after the logit."""
    record = load("simulation_based")
    rows = [
        [f"{row['truth']:g}", str(row["trials"])]
        + [f"{row[name][key]:{sign}.2f}" for name in ("box", "logit") for key, sign in (("bias", "+"), ("width", ""))]
        for row in record["results"]["bounds"]["composed"].values()
    ]
    head = ["true θ", "trials", "box: bias", "box: width", "logit: bias", "logit: width"]
    return markdown(head, rows, record)


def half_digits_table(part: str | None = None) -> str:
    """The figures of ``benchmarks/results/inverse_digits.json``, or those of its part."""
    record = load("inverse_digits", part)
    results = record["results"]
    keys = ("observed", "spread", "distance", "right", "classes")
    rows = []
    for name, row in results["methods"].items():
        lost = row["failed"] > 0 or row["observed"] > 100
        cells = ["diverges", *[""] * (len(keys) - 1)] if lost else [f"{row[key]:.2f}" for key in keys]
        rows.append([f"`{name}`", *cells, f"{row['evaluations']:.0f} + {row['products']:.0f}"])
    note = (
        f"{results['observations']} held-out digits, {results['samples of each']} samples of each, {results['steps']} "
        f"steps (`ddrm` 20), rules by `{results['sampler of the rules']}`. A classifier trained on noisy upper halves "
        f"gives {results['half']:.2f} to the true class on average, the share that would be right in the posterior.\n"
    )
    return markdown(["", *keys, "evaluations + products"], rows, record) + "\n" + note


def few_steps_table() -> str:
    """What `mmps` makes of few steps, with and without its radius."""
    record = load("inverse_digits")
    rows = []
    for name, network in (("digits", record["results"]), ("mnist", record["mnist"]["results"])):
        found = network["few steps"]
        for steps in sorted({int(key.split()[0]) for key in found}):
            pair = [found[f"{steps} steps, {kind}"] for kind in ("no radius", "radius")]
            cells = [[f"{row['outside']:.1%}", f"{row['largest']:.1f}", f"{row['observed']:.2f}"] for row in pair]
            rows.append([name, str(steps), *cells[0], *cells[1]])
    head = ["network", "steps", "outside", "largest", "observed", "with radius: outside", "largest", "observed"]
    return markdown(head, rows, record)


def training_sentence() -> str:
    """The time that the first digits take, and how many of them are recognised."""
    results = load("training")["results"]
    shares = [results["trained"]["recognised"], results["shipped"]["recognised"], results["held-out"]]
    return (
        "These {} steps take {:.0f} seconds on two threads; a classifier then recognises {:.2f} of the samples with "
        "probability above 0.9 ({:.2f} of the shipped network's by the same method, {:.2f} of held-out digits; `python "
        "-m benchmarks training`).\n"
    ).format(results["steps"], results["training"]["seconds"], *shares)


def loops_sentence() -> str:
    """The losses of the loops of the page."""
    results = load("training_loops")["results"]
    losses = results["losses"]
    others = {name: (sum(losses[name]) / len(losses[name]), off) for name, off in results["off"].items()}
    return (
        "Over {} seeds, the loss of the averaged network on held-out digits has the mean {:.4f} and the standard "
        "deviation {:.4f} with the trainer. Its mean is {:.4f} with accelerate and {:.4f} with Lightning, {:+.1f} and "
        "{:+.1f} standard errors away (`python -m benchmarks training_loops`).\n"
    ).format(
        len(losses["trainer"]),
        results["mean"],
        results["spread"],
        *(others[name][0] for name in ("accelerate", "lightning")),
        *(others[name][1] for name in ("accelerate", "lightning")),
    )


def systems_table() -> str:
    """The figures of ``benchmarks/results/systems.json``, and the picture."""
    try:
        record = load("systems")
    except FileNotFoundError:
        return "Not measured yet: `python -m benchmarks systems`.\n"
    results = record["results"]
    goal = results["training digits"]
    rows = [["training digits", "", "", "", f"{goal['recognised']:.3f}", "1", "", ""]]
    for name, row in results["systems"].items():
        bits = [f"{row[k][0]:.2f} ± {row[k][1]:.2f}" if row[k] else "–" for k in ("own bound", "flow")]
        took = [str(row["steps"]), f"{row['seconds']:.0f}", str(row["evaluations"])]
        rows.append([f"`{name}`", *took, f"{row['recognised']:.3f}", f"{row['energy'] / goal['energy']:.2f}", *bits])
    head = ["", "steps", "seconds", "evaluations", "recognised", "energy", "own bound, bits", "flow, bits"]
    shown = [[f"`{name}`", f"![Samples of {name}](assets/systems/{name}.png)"] for name in results["systems"]]
    return markdown(head, rows, record) + "\n" + markdown(["", "samples"], shown, record)


def schedules_variance() -> str:
    """The variance under either schedule, from ``benchmarks/results/schedules.json``."""
    record = load("schedules")
    rows = []
    names = {"single": "a single value", "batch": "a batch's mean, times 128"}
    for (kind, of), figure in itertools.product((("vdm", "learned"), ("held", "held")), names):
        part = record["results"][kind]
        row, ideal = part["variance"]["low discrepancy"][figure], part["variance"]["quadrature"][figure]
        between = "{}: {:.2f} to {:.2f}".format(of, *part["ends"])
        times = f"{row['ratio'][0]:.2f} ± {row['ratio'][1]:.2f}"
        exact = [f"{ideal[k]:.2f}" for k in ("ratio", "attainable")]
        rows.append([between, names[figure], f"{row['line']:.0f}", f"{row['learned']:.0f}", times, *exact])
    head = ["ends of γ", "variance of", "line", "learned", "ratio", "by quadrature", "attainable"]
    return markdown(head, rows, record)


def schedules_bound() -> str:
    """The bounds of two networks, from the same file."""
    record = load("schedules")
    part = record["results"]["bound"]
    rows = []
    for name in ("learned", "line"):
        between = " to ".join(f"{end:.2f}" for end in part["ends"][name])
        rows.append([name, between, f"{part[name][0]:.3f} ± {part[name][1]:.3f}"])
    gain, error, t = part["line less learned"]
    rows.append(["line − learned", "", f"{gain:.3f} ± {error:.3f} (t = {t:.1f})"])
    return markdown(["interior", "ends of γ", "bits per dimension"], rows, record)


def schedules_steps() -> str:
    """The gap of T steps, from the same file."""
    record = load("schedules")
    part = record["results"]["vdm"]["steps"]
    slopes = ["", *(f"{slope:.3f}" for slope in part["slopes"])]
    rows = [
        [steps, f"{gap:.3f} ± {error:.3f}", slope]
        for (steps, (gap, error)), slope in zip(part["gaps"].items(), slopes, strict=True)
    ]
    return markdown(["T", "gap, nats", "slope"], rows, record)


def schedules_iddpm() -> str:
    """Bits per dimension by the variance of the steps, from the same file."""
    record = load("schedules")
    rows = []
    for levels, row in record["results"]["iddpm"].items():
        bits = [f"{row[k][0]:.3f} ± {row[k][1]:.3f}" for k in ("learned", "small", "large")]
        pairs = [row[f"{k} less learned"] for k in ("small", "large")]
        rows.append([levels, *bits, *(f"{d:.3f} ± {e:.3f} (t = {t:.1f})" for d, e, t in pairs)])
    head = ["levels", "learned", "small", "large", "small − learned", "large − learned"]
    return markdown(head, rows, record)


def streams_text() -> str:
    """What noise per sample costs, in a sentence."""
    found = load("streams")["results"]
    ratios = " and ".join(
        f"{row['ratio']:.1f} times as long for {shape} numbers" for shape, row in found["draws"].items()
    )
    return (
        f"Compared with `torch.randn`, a draw takes {ratios} (one thread). It is "
        f"{100 * found['share of a step']:.1f} % of a step of the digits network with 256 samples "
        "(`benchmarks/streams.py` at commit 8e5d5e87)."
    )


def throughput_text() -> str:
    """What several processes bring, and what a sample costs in large sets."""
    results = load("throughput")["results"]
    ratio = results["two processes over one"]
    costs = [row["processor milliseconds per sample"] for row in results["one process"]]
    peaks = [row["peak memory in MiB"] for row in results["one process"]]
    return (
        f"Two processes of one thread each make {ratio['median']:.2f} times as many samples of the digits network per "
        f"second as one does, on two cores (median of {len(ratio['all'])} runs, {min(ratio['all']):.2f} to "
        f"{max(ratio['all']):.2f}). From {results['one process'][0]['samples']:,} to "
        f"{results['one process'][-1]['samples']:,} samples, one takes {min(costs):.1f} to {max(costs):.1f} ms of "
        f"processor time per sample, and its memory stays at {min(peaks):.0f} to {max(peaks):.0f} MiB "
        "(`benchmarks/throughput.py` at commit 8e5d5e87)."
    )


def crash_table() -> str:
    """What became of injected faults, of ``benchmarks/results/crash.json``."""
    record = load("crash")
    faults = record["results"]["faults"]
    found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for name, row in faults.items():
        if "injected" in row:
            found[f"**{name}**" if name == "all" else name.partition(",")[0]].update(row)
    rows = [
        [
            name,
            *(str(row[key]) for key in ("injected", "recovered", "lost")),
            f"{row['duplicated']} of {row['computed']}",
        ]
        for name, row in found.items()
    ]
    resumed, memory = faults["resume"], faults["memory in MiB"]
    text = (
        f"A finished set of {resumed['shards']:,} shards is resumed in {resumed['seconds']:.1f} s, and a process that "
        f"makes as many uses {memory['quarter']:.0f} MiB at a quarter of them and {memory['end']:.0f} MiB at the end."
    )
    return f"{markdown(['fault', 'injected', 'recovered', 'lost', 'shards made twice'], rows, record)}\n{text}"


def _cluster_rows(table: str, head: str) -> str:
    """A table of the plan, of ``benchmarks/results/cluster.json``."""
    record = load("cluster")
    rows = [
        [
            name,
            f"{row['shards']:,}",
            f"{row['made'] / 60:.0f} min",
            f"{row['ended'] / 60:.0f} min",
            f"{100 * row['share in all']:.0f} %",
            f"{row['all operations'] / 1e6:.0f}",
            f"{row['busiest minute']:,.0f}",
        ]
        for name, row in record["results"]["plan"][table].items()
    ]
    columns = ["shards", "all made", "end", "GPUs at work", "million operations", "per second, busiest minute"]
    return markdown([head, *columns], rows, record)


def cluster_assumed() -> str:
    """What the plan assumes."""
    record = load("cluster")
    values = record["results"]["assumed"]
    rows = [
        ["samples", f"{values['samples']:,} of 3 × 64 × 64"],
        ["GPUs", f"{values['gpus']}, {values['per_node']} in a node"],
        ["evaluations per sample", str(values["evaluations"])],
        ["an evaluation of a sample, in large batches", f"{1000 * values['evaluation']:g} ms of a GPU"],
        ["GPUs differ in speed by (standard deviation)", f"{100 * values['spread']:g} %"],
        ["a process starts (imports, weights, warm-up) in", f"{values['start']:g} s"],
        ["an operation at the file server takes", f"{1000 * values['latency']:g} ms"],
        ["the file server serves", f"{values['rate']:,.0f} operations per second"],
        ["a process reads and writes", f"{values['bandwidth'] / 1e9:g} GB/s"],
    ]
    return markdown(["", ""], rows, record)


def cluster_storage() -> str:
    """What the set needs in each container."""
    record = load("cluster")
    results = record["results"]
    count, shards = results["assumed"]["samples"], results["plan"]["folders"]["64"]["shards"]
    rows = []
    for name, row in results["containers"].items():
        files = shards + (count + shards if name == "png" else shards)
        packing = f"{1e6 * row['seconds']:.0f} µs"
        rows.append(
            [f"`{name}`", f"{row['bytes']:,.0f}", f"{count * row['bytes'] / 1e12:.2f} TB", f"{files:,}", packing]
        )
    return markdown(["container", "bytes per sample", "set", "files", "packing per sample, on a CPU"], rows, record)


def cluster_deaths() -> str:
    """What deaths cost."""
    record = load("cluster")
    nodes = record["results"]["assumed"]["gpus"] / record["results"]["assumed"]["per_node"]
    rows = []
    for name, row in record["results"]["plan"]["deaths"].items():
        hours = row["hours between deaths"]
        expected = f"{nodes * row['ended'] / 3600 / hours:.2g}" if hours else "0"
        times = [f"{row[key] / 60:.0f} min" for key in ("made", "ended")]
        lost = [
            f"{row['ranks that died'] / record['results']['assumed']['per_node']:.0f}",
            f"{100 * row['lost']:.2f} %",
        ]
        rows.append([name, expected, *lost, *times, f"{100 * row['share in all']:.0f} %"])
    head = ["a node dies every", "expected", "in the model", "work that was lost", "all made", "end", "GPUs at work"]
    return markdown(head, rows, record)


def cluster_breaks() -> str:
    """What limits a larger set, in the order in which it does."""
    results = load("cluster")["results"]
    assumed, one = results["assumed"], results["plan"]["folders"]["1"]
    shown = results["other policies"]["progress is shown"]
    counts = {name: count / 1e6 for name, count in one["operations"].items()}
    per_byte = 1 / assumed["bandwidth"] + results["here"]["per MB"]["check"] / 1e6 / _READERS
    gpus, shards = assumed["gpus"], one["shards"]
    reading, checking = one["bytes"] * per_byte / 60, 1e6 * counts["complete"] / assumed["rate"] / 60
    first = f"""**The final reading.** Rank 0 alone reads {one["bytes"] / 1e12:.2f} TB and computes their SHA-256, in
   {reading:.0f} minutes; the network needs {one["useful"] / 60:.0f}. The others have ended before, but a job often
   holds its GPUs until the last process has. More folders divide it."""
    second = f"""**Checks of records.** Each of {gpus} processes checks {shards:,} records as it walks through the set:
   {counts["complete"]:.0f} million of {one["all operations"] / 1e6:.0f} million operations, at least {checking:.0f}
   minutes of the file server. With f folders there are f times fewer. Nearly all of them come after a process has made
   its part."""
    if checking > reading:
        first, second = second, first
    pictures = counts["complete"] * 1e6 / 3 * (one["shard size"] + 2)  # 3: two files and one check, of the shard's file
    return f"""In one folder of {shards:,} shards, in this order:

1. {first}
2. {second}
3. **Waiting.** A process that finds nothing to do checks, every 0.2 seconds, each shard that others work on:
   {1000 * counts["busy"]:,.0f} thousand operations here, and more where the last shards take long.
4. **The number of files in a folder.** `shards` and `records` have {shards:,} names each, which every file system can
   hold. With `png`, `shards` would have 50 million, which some cannot, and each check of a complete shard would be one
   of {one["shard size"]:,} pictures: {pictures / 1e9:.0f} billion operations.
5. **Not** the leases ({1e6 * (counts["take"] + counts["beat"]) / one["made"]:,.0f} operations per second while shards
   are made), not writing ({one["bytes"] / one["made"] / 1e9:.1f} GB/s together, while the next shard is computed), not
   deaths, and not progress: with `log` or `show`, a process lists the names of all records every 10 seconds at most.
   If all processes do, there are {100 * (shown["all operations"] / one["all operations"] - 1):.0f} % more operations,
   and the end is {(shown["ended"] - one["ended"]) / 60:.0f} minutes later.
"""


def cluster_actions() -> str:
    """What the actions of a process cost."""
    record = load("cluster")
    results = record["results"]
    names = {
        "complete": "check a complete shard",
        "busy": "check a shard that another process makes",
        "take": "take a lease",
        "beat": "change it, every 5 s",
        "write": "write a shard of 4 kB and its record",
        "check": "read a shard of 4 kB again",
    }
    rows = [
        [text, str(results["operations"][name]), f"{1000 * results['here']['seconds'][name]:.2f} ms"]
        for name, text in names.items()
    ]
    rows += [
        [f"each MB more, to {text}", "0", f"{1000 * results['here']['per MB'][name]:.2f} ms"]
        for name, text in (("write", "write"), ("check", "read"))
    ]
    return markdown(["action", "operations", "here"], rows, record)


def cluster_runs() -> str:
    """Real runs beside the model."""
    record = load("cluster")
    runs = record["results"]["real runs"]
    rows = [
        [
            row["case"],
            str(row["shards"]),
            str(row["deaths"]),
            str(row["modelled deaths"]),
            f"{row['seconds']:.1f} s",
            f"{row['modelled']:.1f} s",
            f"{row['ratio']:.2f}",
        ]
        for row in runs["runs"]
    ]
    whole = sum(row["complete"] for row in runs["runs"])
    text = (
        f"The ratios are between {runs['smallest ratio']:.2f} and {runs['largest ratio']:.2f}; the program fails where "
        f"one is below 0.8 or above 1.2. {whole} of {len(runs['runs'])} sets were complete."
    )
    return f"{markdown(['', 'shards', 'deaths', 'in the model', 'real', 'model', 'ratio'], rows, record)}\n{text}\n"


def certificates_table() -> str:
    """The coverage of ``benchmarks/results/certificates.json``."""
    record = load("certificates")
    rows, without = [], []
    for name, problem in record["results"]["problems"].items():
        for setting, row in problem["settings"].items():
            covered = [f"{c['mean']:.3f} / {c['centre']:.3f}, z {c['z']:+.1f}" for c in row["coverage"].values()]
            ratio = f"{row['bound / error']:.1f} ({row['over hindsight']:.2f})"
            rows.append([name, setting, *covered, f"{row['error']:.1e}", ratio, f"{100 * row['extra']:.0f} %"])
            if "alone" in row:
                shares = " and ".join(f"{share:.3f}" for share in row["alone"].values())
                without.append(f"{shares} of the samples of `{setting}` on *{name}*")
    head = ["", "method, evaluations", "covered / 0.9", "covered / 0.95", "error", "bound over error (over the best)"]
    table = markdown([*head, "extra"], rows, record)
    if without:
        table += f"\n\nWithout the uncertainty of the reference, the bounds cover {'; '.join(without)}."
    return table


def laws_bounds_table() -> str:
    """The bounds of laws of ``benchmarks/results/certified_laws.json``."""
    record = load("certified_laws")
    rows = []
    for name, row in record["results"].items():
        exact = row["exact"]
        distances = [f"{exact[kind]:.3f}" if kind in exact else "–" for kind in ("ky fan", "prokhorov")]
        below = f"{row['below']} of {row['pilots']}" if "below" in row else "–"
        over = f"{row['over prokhorov']:.1f}" if "over prokhorov" in row else "–"
        rows.append([name, f"{row['bound']:.3f}", *distances, below, over, f"{row['wasserstein over exact']:.2f}"])
    head = ["", "bound", "Ky Fan", "Prokhorov", "bounds below the Ky Fan distance", "bound over Prokhorov"]
    return markdown([*head, "RMS over Wasserstein"], rows, record)


def diagnoses_table() -> str:
    """The planted faults of ``benchmarks/results/diagnoses.json``."""
    record = load("diagnoses")
    rows = []
    for name, row in record["results"]["cases"].items():
        found = ", ".join(row["limits"]) or "nothing"
        planted = " or ".join(row["accepted"]) or "nothing"
        rows.append([name, planted, found if row["right"] else f"**{found}**", f"{row['evaluations']:.0f}"])
    return markdown(["case", "planted", "found", "evaluations per sample"], rows, record)


Case = tuple[str, float]  # its name, and our figure over the best of the others: above 1 the other is better


def step_times() -> list[Case]:
    """Time per step with a network that costs nothing, over the fastest loop of another library."""
    results = load("overhead")["results"]
    found = []
    for method, by_shape in results["peers"].items():
        for shape, peers in by_shape.items():
            name = min(peers, key=lambda peer: peers[peer])
            ratio = results["1 threads"][method][shape]["solve"] / peers[name]
            found.append((f"`{method}` on {shape}: {name}", ratio))
    return found


def peak_memory() -> list[Case]:
    """Peak memory in states, over the library that needs least."""
    results = load("memory")["results"]
    found = []
    for method, peers in results["peers"].items():
        name = min(peers, key=lambda peer: peers[peer])
        found.append((f"`{method}`: {name}", min(results["ours"][method].values()) / peers[name]))
    return found


def adaptive_evaluations(method: str) -> list[Case]:
    """Evaluations of an adaptive method that reach an error, over the best method of another library."""
    results = load("adaptive")["results"]
    return list(results["ratios"][method]["best peer"]["cases"].items())


def adaptive_times() -> list[Case]:
    """Time per adaptive step of 64 samples, where the slope dx/dt is given, over other loops of the same pair."""
    results = load("adaptive")["results"]["loop"]
    key = "outside the dx/dt, batch 64"
    pairs = {"rk45": ("torchdiffeq dopri5", "torchode Dopri5", "SciPy RK45"), "tsit5": ("torchode Tsit5",)}
    return [
        (f"`{ours}`: {peer}", results[ours][key] / results[peer][key])
        for ours, peers in pairs.items()
        for peer in peers
    ]


def grid_errors(kind: str) -> list[Case]:
    """Errors at a number of evaluations, over the best method and grid of other libraries."""
    problems = load("fitted_grids")["results"]["problems"]
    return [
        (f"{problem}, {budget} evaluations, {figure}", row[kind][figure] / row["peers"][figure])
        for problem, budgets in problems.items()
        for budget, row in budgets.items()
        for figure in ("median", "rms")
    ]


def learned_errors() -> list[Case]:
    """Errors of learned solvers, over the best of four published ones that were written anew from their papers."""
    found = []
    for problem, budgets in load("fitted_solvers")["results"]["problems"].items():
        for budget, row in budgets["budgets"].items():
            for figure in ("median", "rms") if "published" in row else ():
                errors = {name: other[figure] for name, other in row["published"].items()}
                name = min(errors, key=lambda peer: errors[peer])
                ratio = row["learned"][figure] / errors[name]
                found.append((f"{problem}, {budget} evaluations, {figure}: {name.upper()}", ratio))
    return found


def likelihood_evaluations() -> list[Case]:
    """Evaluations of `log_likelihood` that reach an error, over those of dopri5 of torchdiffeq."""
    targets = load("likelihood")["results"]["targets"]
    return [
        (f"{name}, error {error}", ratio)
        for name, row in targets.items()
        for error, ratio in row["ratios"].items()
        if ratio is not None
    ]


COMPARED: dict[str, Callable[[], list[Case]]] = {
    "time per step, fixed steps": step_times,
    "peak memory": peak_memory,
    "evaluations for an error, `adams`": lambda: adaptive_evaluations("adams"),
    "evaluations for an error, `rk45`": lambda: adaptive_evaluations("rk45"),
    "time per adaptive step, same pair": adaptive_times,
    "error, grid by default": lambda: grid_errors("default"),
    "error, fitted grid": lambda: grid_errors("fitted"),
    "error, learned solver against published ones": learned_errors,
    "evaluations for a log-likelihood": likelihood_evaluations,
}


def compared_table() -> str:
    """Every comparison that was measured: how often another library is better, and where by most."""
    rows = []
    for what, find in COMPARED.items():
        found = find()
        mean = math.exp(math.fsum(math.log(ratio) for _, ratio in found) / len(found))
        worst, most = max(found, key=lambda case: case[1])
        behind = sum(ratio > 1 for _, ratio in found)
        rows.append([what, str(len(found)), str(behind), f"{mean:.2f}", f"{most:.2f} ({worst})" if behind else ""])
    head = ["", "cases", "another is better in", "ours over the best other", "furthest behind"]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def behind_table() -> str:
    """All cases in which another library is better."""
    found = [(ratio, what, case) for what, find in COMPARED.items() for case, ratio in find() if ratio > 1]
    rows = [f"| {what} | {case} | {ratio:.2f} |" for ratio, what, case in sorted(found, reverse=True)]
    return "| | case | ours over it |\n|---|---|---|\n" + "\n".join(rows) + "\n"


# Pages that are filled when they are read: {page: {mark: what to put there}}.
FILLED: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"methods": few_methods, "compared": compared},
    "docs/reference.md": {"modules": _reference.overview},
    "docs/adaptive.md": {
        "adaptive": adaptive_tables,
        "adaptive: mnist": lambda: adaptive_counts("mnist"),
        "adaptive sde": adaptive_sde_table,
        "adaptive: noisy": noisy_adams,
    },
    "docs/compared.md": {"compared": compared_table, "behind": behind_table},
    "docs/few_evaluations.md": {
        "few evaluations": few_table,
        "few evaluations: rules": rules_table,
        "few evaluations: learned": learned_table,
        "few evaluations: published": published_table,
        "few evaluations: shipped": shipped_table,
        "few evaluations: transfer": transfer_table,
        "few evaluations: laws": laws_table,
        "few evaluations: labels": labels_table,
        "few evaluations: distributions": distributions_table,
        "few evaluations: problems": few_problems,
    },
    "docs/fitted_grids.md": {"fitted grids": fitted_table, "network": network_table},
    "docs/guidance.md": {
        "guided solvers": guided_solvers,
        "guidance": guidance_table,
        "guidance: mnist": lambda: guidance_table("mnist"),
        "tilt": tilt_table,
    },
    "docs/inference.md": {
        "inference: power": power_table,
        "inference: bounds": bounds_table,
    },
    "docs/inverse.md": {
        "inverse": inverse_table,
        "particles": particles_table,
        "half digits": half_digits_table,
        "half digits: mnist": lambda: half_digits_table("mnist"),
        "few steps of mmps": few_steps_table,
    },
    "docs/fifty_million.md": {
        "cluster: assumed": cluster_assumed,
        "cluster: storage": cluster_storage,
        "cluster: shard size": lambda: _cluster_rows("shard size", "samples in a shard, one folder"),
        "cluster: shard size, 64 folders": lambda: _cluster_rows(
            "shard size, 64 folders", "samples in a shard, 64 folders"
        ),
        "cluster: folders": lambda: _cluster_rows("folders", "folders"),
        "cluster: server": lambda: _cluster_rows("file server", "file server, operations"),
        "cluster: deaths": cluster_deaths,
        "cluster: evaluation": lambda: _cluster_rows("evaluation", "seconds of an evaluation"),
        "cluster: breaks": cluster_breaks,
        "cluster: actions": cluster_actions,
        "cluster: runs": cluster_runs,
    },
    "docs/many_samples.md": {
        "streams": streams_text,
        "throughput": throughput_text,
        "crashes": crash_table,
    },
    "docs/many_observations.md": {
        "compositions": compositions_table,
        "inference: sets": sets_table,
        "inference: modes": modes_table,
        "inference: langevin": langevin_table,
    },
    "docs/measured.md": {
        "digits": digits_table,
        "mnist": mnist_table,
        "speed": speed_table,
        "overhead": overhead_table,
        "overhead ratios": overhead_ratios,
        "around": around_table,
        "startup": startup_table,
        "orders": orders_table,
        "deterministic methods": lambda: methods("ode"),
        "stochastic methods": lambda: methods("sde"),
    },
    "docs/likelihood.md": {
        "likelihood: targets": likelihood_targets,
        "likelihood: exact": likelihood_exact,
        "likelihood: network": likelihood_network,
        "likelihood: control": likelihood_control,
        "likelihood: estimators": likelihood_estimators,
        "likelihood: products": likelihood_products,
        "likelihood: coverage": likelihood_coverage,
    },
    "docs/bits_per_dimension.md": {
        "likelihood: bits": likelihood_bits,
        "likelihood: bounds": likelihood_bounds,
    },
    "docs/bring_your_own_network.md": {"conventions": conventions_table, "high noise": high_noise_table},
    "docs/coming_from/diffusers.md": {"integer labels: ratios": label_ratios},
    "docs/coming_from/flow_matching.md": {
        "velocities": velocities_table,
        "velocities: tolerances": velocities_adaptive,
    },
    "docs/coming_from/score_sde.md": {"digits: corrector": lambda: vp_table(("pc", "ancestral"))},
    "docs/trainer.md": {"training": training_sentence},
    "docs/paths.md": {
        "path cost": path_cost,
        "path densities": densities_table,
        "reinforcement": reinforcement_table,
        "reinforcement cost": reinforcement_cost,
        "reinforcement first order": reinforcement_first_order,
        "path weights": path_weights_sentence,
    },
    "docs/peers.md": {"peers": peers_table},
    "docs/quickstart.md": {"processes": processes_table},
    "docs/systems.md": {"systems": systems_table},
    "docs/training.md": {
        "schedules: variance": schedules_variance,
        "schedules: bound": schedules_bound,
        "schedules: steps": schedules_steps,
        "schedules: iddpm": schedules_iddpm,
        "training loops": loops_sentence,
    },
    "docs/trust.md": {
        "certificates": certificates_table,
        "certified laws": laws_bounds_table,
        "diagnoses": diagnoses_table,
    },
    "docs/warm_start.md": {"warm starts": warm_table},
    "docs/which_solver.md": {"integer labels: ratios": label_ratios, "digits: VP": vp_table},
}


def filled(page: str, text: str) -> str:
    """A page with the tables between their marks, ``<!-- table: NAME -->`` and ``<!-- end -->``."""
    for name, table in FILLED[page].items():
        head, mark, rest = text.partition(f"<!-- table: {name} -->\n")
        if not mark or "<!-- end -->" not in rest:
            raise ValueError(f"{page} has no place for the table {name!r}")
        text = f"{head}{mark}\n{table().strip()}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return text


def main(arguments: list[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m tools tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a page would change")
    check, old = parser.parse_args(arguments).check, []
    for page in FILLED:
        before = (ROOT / page).read_text(encoding="utf-8")
        after = filled(page, before)
        old += [page] if before != after else []
        if not check:
            (ROOT / page).write_text(after, encoding="utf-8")
    print(*(f"{page}: {'its figures have moved on' if check else 'written'}" for page in old), sep="\n")
    if check and old:
        sys.exit(1)
