"""Runs the ``--check`` of every program that has one, or of a part of them, and the tests of the programs."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.tiers import part

ROOT = Path(__file__).parent.parent
PACKAGES = ("benchmarks", "tools")
NEEDED = {"diffusers_parity": "diffusers"}  # packages that are not always installed
TIMED = ("overhead", "stepper")  # compare times, so that nothing runs beside them


def programs() -> dict[str, list[str]]:
    """Names and commands."""
    commands = {}
    for package in PACKAGES:
        for path in sorted(ROOT.joinpath(package).glob("[a-z]*.py")):
            if '"--check"' in path.read_text() and path.name != "check.py":
                commands[path.stem] = ["-W", "ignore", "-m", package, path.stem, "--check"]
    tests = [f"{package}/tests" for package in PACKAGES]
    return commands | {"tests": ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--full", *tests]}


def run(name: str, command: list[str]) -> bool:
    """Run one, print its output where it failed, and return whether it passed."""
    begin = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    verdict = f"failed ({done.returncode})" if done.returncode else "passed"
    said = "" if not done.returncode else done.stdout[-4000:] + done.stderr[-4000:]
    print(f"=== {name}: {verdict}, {time.monotonic() - begin:.0f} s\n{said}", end="", flush=True)
    return not done.returncode


def main(arguments: list[str]) -> None:
    """Check all programs, or every N-th."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks check", description=__doc__)
    parser.add_argument("--part", type=part, default="1/1", metavar="K/N", help="one of N parts: 1/N, ..., N/N")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="programs at once")
    options = parser.parse_args(arguments)
    k, n = options.part
    chosen = dict(list(programs().items())[k - 1 :: n])
    for name in [name for name in chosen if name in NEEDED and importlib.util.find_spec(NEEDED[name]) is None]:
        print(f"=== {name}: left out, {NEEDED[name]} is not installed", flush=True)
        del chosen[name]
    beside = {name: command for name, command in chosen.items() if name not in TIMED}
    with ThreadPoolExecutor(options.jobs) as pool:
        passed = dict(zip(beside, pool.map(run, beside, beside.values()), strict=True))
    passed |= {name: run(name, chosen[name]) for name in TIMED if name in chosen}
    if failed := [name for name, fine in passed.items() if not fine]:
        sys.exit(f"failed: {', '.join(failed)}")
    print(f"{len(passed)} programs passed")
