"""``scoresde methods``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ._run import command

_COLUMNS = {
    "name": "method",
    "kind": "kind",
    "evaluations": "evaluations",
    "ode_order": "ODE",
    "weak_order": "weak",
    "strong_order": "strong",
    "adaptive": "adaptive",
    "reference": "reference",
}


@command
def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the options of each method.")] = False,
) -> None:
    """List the methods of solve.

    The columns are the score evaluations per step, the orders of convergence (as an ODE solver, weak and strong),
    whether the method chooses its own steps, and its reference.
    """
    from ..solvers import methods as registry

    records = [_record(method) for method in registry()]
    if as_json:
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    rows = [list(_COLUMNS.values()), *([_cell(record[key]) for key in _COLUMNS] for record in records)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _record(method: Any) -> dict[str, object]:
    """A method as plain values.

    Example:
        >>> _record(scoresde.methods()[0])["options"]["order"]
        'cp'
    """
    record = method._asdict()
    cls = record.pop("solver")
    plain = (bool, int, float, str, type(None))
    options = {key: value if isinstance(value, plain) else repr(value) for key, value in vars(cls()).items()}
    return {**record, "solver": cls.__name__, "options": options}


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
