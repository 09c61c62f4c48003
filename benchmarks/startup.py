"""What a start costs: processor time and modules of `import scoresde`, of every help text, of a completion, and of the
first command of the README, which draws thirty digits."""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._record import write

HEAVY = ("torch", "scipy", "numpy", "PIL", "tqdm", "rich")
# Run in place of a program's end: what it imported.
MODULES = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
"""
COMMAND = "import sys; sys.argv[0] = 'scoresde'; from scoresde.cli import app; app(prog_name='scoresde')"
COMMANDS = ("", "sample", "measure", "likelihood", "encode", "train", "methods", "presets", "check")

FIRST = "scoresde sample --label all --out samples.png"


class Start(NamedTuple):
    """A program: Python code, its arguments, and what it finds in the environment."""

    code: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None


PROGRAMS = {
    "python": Start("pass"),
    "import torch": Start("import torch"),
    "import typer": Start("import typer"),
    "import scoresde": Start("import scoresde"),
    "scoresde.solve": Start("import scoresde; scoresde.solve"),
    **{f"scoresde {name} --help".replace("  ", " "): Start(COMMAND, (*name.split(), "--help")) for name in COMMANDS},
    FIRST: Start(COMMAND, (*FIRST.split()[1:-1], str(Path(tempfile.gettempdir(), "scoresde-startup.png")), "--force")),
    "scoresde sample --sde v, completed": Start(
        COMMAND,
        environment={"_SCORESDE_COMPLETE": "complete_bash", "COMP_WORDS": "scoresde sample --sde v", "COMP_CWORD": "3"},
    ),
}


def run(start: Start, before: str = "") -> str:
    """Run a program, and return what it says on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", before + start.code, *start.arguments],
        env={**os.environ, **(start.environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{start}: {done.stderr}")
    return done.stderr


def modules(start: Start) -> dict[str, Any]:
    """How many modules a program imports, and which of the heavy ones."""
    names = json.loads(run(start, MODULES).splitlines()[-1])
    return {"modules": len(names), "heavy": [name for name in HEAVY if name in names]}


def seconds(start: Start) -> float:
    """The processor time of a program, user's and system's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(start)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main(argv: list[str]) -> None:
    """Measure every program, in turns, and write the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks startup", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each program; the median is taken")
    options = parser.parse_args(argv)
    results = {name: modules(start) for name, start in PROGRAMS.items()}
    times = {name: [] for name in PROGRAMS}
    for _ in range(options.runs):
        for name, start in PROGRAMS.items():
            times[name].append(seconds(start))
    for name, row in results.items():
        row["processor seconds"] = statistics.median(times[name])
        print(f"{name:36} {row['processor seconds']:6.2f} s {row['modules']:5} modules  {', '.join(row['heavy'])}")
    write("startup", {"runs": options.runs, "programs": results}, "python -m benchmarks startup")
