"""Where results go: one JSON file per benchmark, with what it ran on."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import scoresde

RESULTS = Path(__file__).parent / "results"


def check_same(where: str, got: Mapping[str, Any], known: Mapping[str, Any], rel_tol: float = 1e-3) -> None:
    """Raise an error where a number that was measured again is not that of the file."""
    for key, value in got.items():
        if isinstance(value, Mapping):
            check_same(f"{where}, {key}", value, known[key], rel_tol)
        elif isinstance(value, float) and not math.isclose(value, known[key], rel_tol=rel_tol):
            raise RuntimeError(f"{where}: {key} is {value:.6g}, and {known[key]:.6g} in the file")


def machine() -> dict[str, Any]:
    """What a reader needs to know of the machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "scoresde": scoresde.__version__,
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
        "device": device,
        "threads": torch.get_num_threads(),
    }


def write(name: str, results: Any, command: str, *, part: str | None = None) -> Path:
    """Write the results of a benchmark, rounded to six digits.

    Args:
        name: of the file.
        results: what JSON can hold.
        command: that measured them.
        part: the key of a record of its own inside the file's; the others stay as they are.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {"command": command, "machine": machine(), "results": _rounded(results)}
    known = json.loads(path.read_text()) if path.exists() else {}
    record = known | (record if part is None else {part: record})
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return path


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
