"""Plants defects one at a time in a copy of the package, and shows which test catches each.

There are two kinds: the defects of `_defects`, which people could make, and random mutants of `_mutants`. Each meets
the tests that run its lines, the quickest first, until one fails: those of the default tier, then all others. A first
run finds which test runs which line. Everything is kept in a folder, from which an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._record import write
from scoresde.solvers.registry import ROWS
from tests.tiers import TURNS
from tools._defects import DEFECTS, Defect
from tools._mutants import EQUIVALENT, KERNEL, mutants

ROOT = Path(__file__).resolve().parent.parent
SURVIVED = "survived"
FULL, ALL_TURNS, ONE_TURN = "full tier", "default tier, all turns", "default tier, one turn"
BARS = (("planted", FULL, 1.0), ("planted", ALL_TURNS, 1.0), ("planted", ONE_TURN, 0.95), ("random, kernel", FULL, 0.9))
_STARTS = re.compile(r"^import (?:subprocess|multiprocessing)|^from tools._faults import", re.MULTILINE)
_SLACK = 600.0, 10.0  # seconds, and times what the tests cost, after which a change makes them not end


class Change(NamedTuple):
    """A file of the package with a defect, and the lines where it is."""

    kind: str
    name: str
    path: str
    lines: tuple[int, ...]
    source: str


def planted(defect: Defect, tree: Path = ROOT) -> Change:
    """The source file with the defect."""
    source = (tree / "scoresde" / defect.path).read_text()
    if defect.old not in source:
        raise SystemExit(f"{defect.name}: {defect.path} does not have {defect.old!r}")
    lines: list[int] = []
    for match in re.finditer(re.escape(defect.old), source):
        text = match[0]
        first = match.start() + len(text) - len(text.lstrip())
        last = match.end() - (len(text) - len(text.rstrip()))
        lines += range(source.count("\n", 0, first) + 1, source.count("\n", 0, last) + 2)
    changed = source.replace(defect.old, defect.new)
    compile(changed, defect.path, "exec")
    return Change("planted", defect.name, defect.path, tuple(lines), changed)


class Tests:
    """The tests of a tree: which lines each runs, its cost, and whether it is in the default tier of a turn."""

    def __init__(self, tree: Path, folder: Path, jobs: int) -> None:
        import coverage

        self.tree, self.folder = tree, folder
        if not (folder / "costs.json").exists():
            _make_map(tree, folder, jobs)
        digest, kept = _digest(tree), folder / "digest"
        if kept.exists() and kept.read_text() != digest:
            sys.exit(f"{folder} is of other files; remove it, or give another --folder")
        kept.write_text(digest)
        self.costs: dict[str, float] = json.loads((folder / "costs.json").read_text())
        self.data = coverage.CoverageData(str(folder / ".coverage"))
        self.data.read()
        names = {test.split("::")[0] for test in self.costs}
        starting = {name for name in names if _STARTS.search((tree / name).read_text())}
        self.starting = {test for test in self.costs if test.split("::")[0] in starting}
        self._measured = {Path(file).relative_to(tree).as_posix(): file for file in self.data.measured_files()}

    def default(self, turn: int) -> set[str]:
        """Those of the default tier."""
        file = self.folder / f"turn_{turn}.json"
        if not file.exists():
            command = [sys.executable, "-W", "ignore", "-m", "pytest", "--co", "-q", f"--turn={turn}"]
            listed = subprocess.run(
                command, cwd=self.tree, capture_output=True, text=True, env=_environment(self.tree), check=True
            )
            file.write_text(json.dumps([line for line in listed.stdout.splitlines() if "::" in line]))
        return set(json.loads(file.read_text()))

    def running(self, change: Change) -> list[list[str]]:
        """The tests that run the changed lines, the cheapest first. Lines that run at import have those that use the
        file or, if it only declares, those with the name of the file, or of a class or a method in it. Then follow all
        others or, where it is known which run the lines, those that start processes, in which nobody looks."""
        file = f"scoresde/{change.path}"
        by_line = self.data.contexts_by_lineno(self._measured[file])
        found = {test for line in change.lines for test in by_line.get(line, ())} - {""}
        others = self.starting if found else set(self.costs)
        if not found:
            found = {test for tests in by_line.values() for test in tests} - {""}
        if not found:
            stem = Path(file).stem
            names = {stem, *re.findall(r"^class (\w+)", change.source, re.MULTILINE)}
            names |= {row.name for row in ROWS if row.path.partition(".")[0] == stem}
            words = re.compile(rf"(?<![a-z\d])({'|'.join(sorted(names))})(?![a-z\d])")
            found = {test for test in self.costs if words.search(test)}
        return [sorted(some, key=lambda test: self.costs.get(test, 0.0)) for some in (found, others - found)]


def _environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "CI": "true"}


def _digest(tree: Path) -> str:
    """Of all that outcomes depend on."""
    folders = ("scoresde", "tests", "docs")
    files = sorted(file for name in folders for kind in ("py", "md") for file in (tree / name).rglob(f"*.{kind}"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in [*files, tree / "conftest.py"])).hexdigest()


def _make_map(tree: Path, folder: Path, jobs: int) -> None:
    import coverage

    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--full", "-p", "tools._covering", "-p", "no:cacheprovider"]
    command += ["-o", "timeout=1800", "-n", str(jobs)]
    done = subprocess.run(command, cwd=tree, env={**_environment(tree), "COVERING": str(folder)})
    if done.returncode:
        sys.exit("the tests must pass before any defect")
    parts = [str(path) for path in folder.glob(".coverage.gw*")]
    whole = coverage.Coverage(data_file=str(folder / ".coverage"), config_file=False)
    whole.combine(parts)
    whole.save()
    costs = [json.loads(path.read_text()) for path in folder.glob("costs.gw*.json")]
    (folder / "costs.json").write_text(json.dumps({test: cost for part in costs for test, cost in part.items()}))


def first_failure(of: Tests, change: Change | None, tests: list[str]) -> str | None:
    """The first of the tests that fails in a copy of the tree, with a change or as it is."""
    if not tests:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", "_build", ".pytest_cache", ".mypy_cache")
        shutil.copytree(of.tree, folder, ignore=ignored, copy_function=_link)
        if change:
            file = folder / "scoresde" / change.path
            file.unlink()
            file.write_text(change.source)
        chosen = Path(name) / "chosen.json"
        chosen.write_text(json.dumps(tests))
        files = dict.fromkeys(test.split("::")[0] for test in tests)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--full", "-p", "tools._covering", "--tb=no"]
        command += ["-p", "no:cacheprovider", "--no-header", *files]
        environment = _environment(folder) | {"CHOSEN": str(chosen)}
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=_SLACK[0] + _SLACK[1] * sum(of.costs[test] for test in tests),
            )
        except subprocess.TimeoutExpired:
            return "no end"
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    at_import = done.returncode in (1, 2) or "while loading conftest" in done.stdout + done.stderr
    if not found and not at_import:
        raise SystemExit(f"the tests cannot run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found[1] if found else "the package cannot be imported"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def catch(tests: Tests, change: Change, tiers: dict[str, set[str]]) -> dict[str, object]:
    """The test that catches a change, and the first tier that has it."""
    begin = time.monotonic()
    left = tests.running(change)
    for tier, its in tiers.items():
        for some in left:
            for part in _narrow_first([test for test in some if test in its], tests):
                if test := first_failure(tests, change, part):
                    return {"test": test, "tier": tier, "seconds": time.monotonic() - begin}
        left = [[test for test in some if test not in its] for some in left]
    return {"test": SURVIVED, "tier": None, "seconds": time.monotonic() - begin}


def _narrow_first(chosen: list[str], tests: Tests) -> list[list[str]]:
    """The tests in two parts: first those of the four files of which the largest share is chosen."""
    wholes = Counter(test.split("::")[0] for test in tests.costs)
    shares = Counter(test.split("::")[0] for test in chosen)
    near = sorted(shares, key=lambda file: -shares[file] / wholes[file])[:4]
    first = [test for test in chosen if test.split("::")[0] in near]
    rest = [test for test in chosen if test.split("::")[0] not in near]
    return [part for part in (first, rest) if part]


def main(arguments: list[str]) -> None:
    """Plant every defect and the random mutants, or those whose name contains a text."""
    parser = argparse.ArgumentParser(prog="python -m tools mutations", description=__doc__)
    parser.add_argument("--only", default="", help="changes whose name contains this text; nothing is written")
    parser.add_argument("--kind", choices=("planted", "random"), help="one kind; nothing is written")
    parser.add_argument("--new", action="store_true", help="planted ones that have no outcome; the others' stay")
    parser.add_argument("--random", type=int, default=200, help="the number of random mutants")
    parser.add_argument("--turn", type=int, default=0, help="of the default tier, the first of fourteen")
    parser.add_argument(
        "--turns", type=int, default=1, help="turns of the default tier before the full one: 0, 1 or more"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutations", help="where everything is kept")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the tree with the package and the tests")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--check", action="store_true", help="only the places of the defects and the committed figures")
    chosen = parser.parse_args(arguments)
    tree = chosen.tree.resolve()
    changes = [planted(defect, tree) for defect in DEFECTS]
    if chosen.check:
        _check_committed([change.name for change in changes])
        return
    tests = Tests(tree, chosen.folder.resolve(), chosen.jobs)
    for mutant in mutants(tree / "scoresde", chosen.random):
        lines = tuple(range(mutant.line, mutant.end + 1))
        changes.append(Change("random", mutant.name, mutant.path, lines, mutant.source))
    file = tests.folder / f"outcomes_{chosen.turn}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    before = _committed() if chosen.new else {}
    wanted = [
        c
        for c in changes
        if chosen.only in c.name
        and c.kind in ({"planted"} if chosen.new else {chosen.kind or c.kind})
        and c.name not in EQUIVALENT
        and c.name not in before.get("caught_by", {}).get("planted", {})
    ]
    now, *later = (tests.default(turn) for turn in range(chosen.turn, chosen.turn + TURNS))
    tiers = {ONE_TURN: now, ALL_TURNS: set().union(*later), FULL: set(tests.costs)}
    lock = threading.Lock()

    def attempt(change: Change) -> None:
        outcome = known.get(change.name) or {"kind": change.kind} | catch(tests, change, tiers)
        with lock:
            known[change.name] = outcome
            file.with_suffix(".new").write_text(json.dumps(known, indent=1))
            file.with_suffix(".new").replace(file)
            print(f"{outcome['seconds']:6.1f} s  {change.name}: {outcome['test']}", flush=True)

    with ThreadPoolExecutor(chosen.jobs) as pool:
        list(pool.map(attempt, wanted))
    outcomes = {c.name: known[c.name] for c in wanted}
    catching = sorted({o["test"] for o in outcomes.values()} & set(tests.costs))
    if test := first_failure(tests, None, catching):
        sys.exit(f"{test} fails without any change, too")
    figures = _figures(wanted, outcomes)
    print(json.dumps(figures, indent=1))
    for name, outcome in outcomes.items():
        if outcome["test"] == SURVIVED:
            print(f"survived: {name}")
    if chosen.new:
        found = {**before["caught_by"]["planted"], **{name: [o["test"], o["tier"]] for name, o in outcomes.items()}}
        caught_by = {**before["caught_by"], "planted": {c.name: found[c.name] for c in changes if c.kind == "planted"}}
        kept = {name: {"test": test, "tier": tier} for name, (test, tier) in caught_by["planted"].items()}
        figures = _figures([c for c in changes if c.kind == "planted"], kept)["planted"]
        write("mutations", before | {"planted": figures, "caught_by": caught_by}, "python -m tools mutations")
    elif not chosen.only and not chosen.kind:
        caught: dict[str, dict[str, object]] = defaultdict(dict)
        for name, o in outcomes.items():
            caught[str(o["kind"])][name] = [o["test"], o["tier"]]
        write("mutations", figures | {"caught_by": caught}, "python -m tools mutations")


def _committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "mutations.json").read_text())["results"]
    return found


def _check_committed(names: list[str]) -> None:
    """Whether what is committed is of these defects, and the tests are as good as they were."""
    found = _committed()
    if sorted(found["caught_by"]["planted"]) != sorted(names):
        sys.exit("benchmarks/results/mutations.json is of other defects; run python -m tools mutations --new")
    for group, tier, least in BARS:
        if found[group][tier] < least * found[group]["count"]:
            sys.exit(f"{group}: of {found[group]['count']} the {tier} catches {found[group][tier]}")


def _figures(changes: list[Change], outcomes: dict[str, dict[str, object]]) -> dict[str, object]:
    """How many are caught, by kind, and of the random ones in the kernel."""
    groups = {
        "planted": [c.name for c in changes if c.kind == "planted"],
        "random": [c.name for c in changes if c.kind == "random"],
        "random, kernel": [c.name for c in changes if c.kind == "random" and c.path.startswith(KERNEL)],
    }
    return {
        group: {
            "count": len(names),
            FULL: sum(outcomes[name]["test"] != SURVIVED for name in names),
            ALL_TURNS: sum(outcomes[name]["tier"] in (ONE_TURN, ALL_TURNS) for name in names),
            ONE_TURN: sum(outcomes[name]["tier"] == ONE_TURN for name in names),
        }
        for group, names in groups.items()
    }
