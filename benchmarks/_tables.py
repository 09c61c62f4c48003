"""Tables for the documentation and the README, made from result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks._record import RESULTS

README = Path(__file__).parent.parent / "README.md"
MARKS = ("<!-- table of methods -->", "<!-- end of table -->")


def load(name: str) -> dict[str, Any]:
    """A result file."""
    record: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return record


def markdown(head: list[str], rows: list[list[str]], record: dict[str, Any]) -> str:
    """A table, and what it was measured on."""
    lines = [head, ["---"] * len(head), *rows]
    where = record["machine"]
    threads = f"{where['threads']} thread" + ("s" if where["threads"] > 1 else "")
    note = f"(`{record['command']}`; {where['device']}, {threads}, torch {where['torch']})"
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


def fill_readme() -> None:
    """Put the two tables between the marks in the README."""
    text = README.read_text()
    head, rest = text.split(MARKS[0])
    tail = rest.split(MARKS[1])[1]
    README.write_text(f"{head}{MARKS[0]}\n\n{readme_tables()}\n{MARKS[1]}{tail}")


def readme_tables() -> str:
    """Both tables."""
    return f"{methods('ode')}\n{methods('sde')}"
