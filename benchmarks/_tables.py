"""Tables for the documentation and the README, made from result files."""

from __future__ import annotations

import json
from typing import Any

from benchmarks._record import RESULTS


def load(name: str, part: str | None = None) -> dict[str, Any]:
    """A result file, or the record inside it that has the key ``part``."""
    record: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return record if part is None else record[part]


def markdown(head: list[str], rows: list[list[str]], record: dict[str, Any]) -> str:
    """A table, and what it was measured on."""
    lines = [head, ["---"] * len(head), *rows]
    where = record["machine"]
    threads = f" {where['threads']} thread" + ("s," if where["threads"] > 1 else ",") if "threads" in where else ""
    program = f"`{record['command']}`" + (f" at commit {record['commit']}" if "commit" in record else "")
    note = f"({program}; {where['device']},{threads} torch {where['torch']})"
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}\n"


def _numbers(errors: dict[str, float], budgets: tuple[str, ...]) -> str:
    return " / ".join(
        f"{errors[b]:.1e}".replace("e-0", "e-").replace("e+0", "e+") if b in errors else "–" for b in budgets
    )


def _orders(row: dict[str, Any]) -> list[str]:
    declared = row["declared"]
    text = str(declared["ode"]) if declared["ode"] else ""
    if declared["weak"]:
        text = f"weak {declared['weak']}" + (f", strong {declared['strong']:g}" if declared["strong"] else "")
    return [text or "none", "" if row["measured"] is None else f"{row['measured']:.2f}"]


def methods(kind: str) -> str:
    """The table of deterministic (``"ode"``) or of stochastic methods (``"sde"``), with the best peers at the end."""
    record = load("work_precision")
    rows, results = [], record["results"]
    deterministic = kind == "ode"
    columns = {"ring, median": ("10", "20", "50"), "ring": ("10", "20", "50"), "gaussian": ("10", "20", "50")}
    if not deterministic:
        columns = {"gaussian, variance": ("10", "20", "50", "100")}
    for name, row in results["methods"].items():
        if (row["kind"] == "ode") != deterministic:
            continue
        errors = [_numbers(row["errors"][problem], budgets) for problem, budgets in columns.items()]
        rows.append([f"`{name}`", row["processes"], str(row["evaluations"]), *_orders(row), *errors])
    best = [_numbers(results["peers"][problem], budgets) for problem, budgets in columns.items()]
    rows.append(["best of the peers", "", "", "", "", *best])
    titles = [f"{problem}: {' / '.join(budgets)}" for problem, budgets in columns.items()]
    return markdown(["method", "processes", "evaluations per step", "order", "measured", *titles], rows, record)


# Methods for the README: what each is good for.
FEW = {
    "ddim": "the usual baseline, with any number of steps",
    "dpm_3m": "7 to 30 evaluations, with or without guidance; `auto` takes it on a grid of its own",
    "unipc3": "30 evaluations and more, high accuracy; a corrector raises order 3 to 4",
    "adams": "a tolerance in place of a number of steps; every sample takes its own steps",
    "dpmpp_2m_sde": "stochastic, 30 to 100 evaluations",
    "pc": "the predictor and corrector of Score-SDE, with 500 steps",
}


def few_methods() -> str:
    """Six of the methods."""
    from scoresde import methods as all_methods

    known = {method.name: method for method in all_methods()}
    rows = [
        [
            f"`{name}`",
            str(known[name].evaluations) + (", adaptive" if known[name].adaptive else ""),
            known[name].order,
            use,
        ]
        for name, use in FEW.items()
    ]
    lines = [["method", "evaluations per step", "order", "for"], ["---"] * 4, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def compared() -> str:
    """What other libraries are better and worse at."""
    shape, times, memory = "(64, 3, 32, 32)", load("overhead"), load("memory")["results"]
    measured = times["results"]

    def step(method: str, peer: str) -> str:
        return f"{measured['peers'][method][shape][peer]:.0f}"

    def ours(method: str) -> str:
        return f"{measured['1 threads'][method][shape]['solve']:.0f}"

    def states(method: str, peer: str) -> str:
        return f"{memory['peers'][method][peer]:.0f}"

    def own(method: str) -> str:
        return f"{memory['ours'][method]['noise']:.0f}"

    orders = sum(1 for row in load("work_precision")["results"]["methods"].values() if row["measured"] is not None)
    rows = [
        [
            "made for",
            "any score network, any process",
            "pipelines of published models",
            "research code",
            "differential equations in general",
        ],
        ["framework", "PyTorch", "PyTorch", "PyTorch", "JAX"],
        ["published models by name", "no; it loads those of other libraries", "**thousands**", "some", "no"],
        [
            "methods with fixed steps and a measured order",
            f"**{orders}**",
            "not measured",
            "not measured",
            "has its own methods",
        ],
        [
            f"a step of DDIM on {shape} without the network, 1 thread",
            f"**{ours('ddim')} µs**",
            f"{step('ddim', 'diffusers DDIM')} µs",
            f"{step('ddim', 'azula DDIM')} µs",
            "–",
        ],
        [
            "memory of DDIM, in copies of the batch",
            f"**{own('ddim')}**",
            states("ddim", "diffusers DDIM"),
            states("ddim", "azula DDIM"),
            "–",
        ],
        ["adaptive steps, chosen for each sample", "**yes**", "no", "no", "**yes**"],
        ["log-likelihoods with error bars", "**yes**", "no", "no", "no"],
        ["posteriors of a measurement", "**14 methods, their coverage measured**", "inpainting", "several", "no"],
        ["gradients through a solve", "by autograd; also of likelihoods", "no", "by autograd", "**several adjoints**"],
    ]
    where = {name: value for name, value in times["machine"].items() if name != "threads"}  # a row says it
    return markdown(["", "scoresde", "diffusers", "azula", "diffrax"], rows, {**times, "machine": where})
