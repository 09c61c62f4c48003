"""Proves that a refactoring moved no result: compares an earlier commit with the working tree, bit for bit.

Both versions are copied to a temporary folder and run the cases of ``tools/_same_cases.py`` side by side, in
processes of the same Python with the same environment, seeds and number of threads. Everything that a case returns is
compared: tensors by their bits (a NaN equals a NaN, 0.0 does not equal -0.0), texts, exceptions and warnings. A case
that only the working tree has is reported; one that only the base has is a difference, as is any other that
``--allow`` does not name.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
CASES = Path(__file__).with_name("_same_cases.py")
BASE, HERE, NEITHER = "base", "here", "neither"
LISTED = "list of cases"  # the case that stands for an error while a part lists its cases
SHOWN = 60  # differing cases that are printed
WIDTH = 100  # characters of a text that are printed

Values = Mapping[str, "Tensor | str"]


@dataclass(frozen=True)
class Case:
    """What one version made of a case; ``lacks`` says what it does not have for it."""

    values: Values = field(default_factory=dict)
    lacks: str | None = None


@dataclass(frozen=True)
class Difference:
    """How one value of a case differs."""

    value: str
    text: str
    size: float = float("inf")  # relative, to find the largest of a case


@dataclass
class Comparison:
    """All cases of both versions against each other."""

    differing: dict[str, list[Difference]] = field(default_factory=dict)
    only: dict[str, dict[str, str]] = field(default_factory=lambda: {BASE: {}, HERE: {}, NEITHER: {}})
    parts: dict[str, dict[str, int]] = field(default_factory=dict)

    def unexpected(self, allowed: Sequence[str]) -> list[str]:
        """Cases whose difference no pattern names."""
        found = [*self.differing, *self.only[BASE]]
        return [case for case in found if not any(fnmatch.fnmatchcase(case, pattern) for pattern in allowed)]

    def unused(self, allowed: Sequence[str]) -> list[str]:
        """Patterns that name nothing that differs."""
        found = [*self.differing, *self.only[BASE]]
        return [pattern for pattern in allowed if not fnmatch.filter(found, pattern)]


# ---- the comparison --------------------------------------------------------------------------------------------------

SIDES = {HERE: "only here", BASE: "only in base", NEITHER: "in neither"}
COLUMNS = ("cases", "values", "identical", "differing", *SIDES.values(), "errors")


def compare(base: Mapping[str, Case], here: Mapping[str, Case]) -> Comparison:
    """Compare the cases of two versions."""
    result = Comparison()
    none = Case(lacks="no such case")
    for name in dict.fromkeys([*base, *here]):
        counts = result.parts.setdefault(name.split("/")[0], dict.fromkeys(COLUMNS, 0))
        counts["cases"] += 1
        old, new = base.get(name, none), here.get(name, none)
        if old.lacks or new.lacks:
            side = NEITHER if old.lacks and new.lacks else HERE if old.lacks else BASE
            result.only[side][name] = old.lacks or new.lacks or ""
            counts[SIDES[side]] += 1
            continue
        counts["values"] += len(old.values.keys() | new.values.keys())
        counts["errors"] += "error" in new.values
        found = differences(old.values, new.values)
        if name.endswith(f"/{LISTED}"):
            found.append(Difference("error", f"the part ends here, {_shown(new.values['error.text'])}"))
        if found:
            result.differing[name] = found
        counts["differing" if found else "identical"] += 1
    return result


def differences(base: Values, here: Values) -> list[Difference]:
    """The values of a case that differ, the largest difference first. A value that is new is none."""
    found = [Difference(name, f"only in base, {_shown(value)}") for name, value in base.items() if name not in here] + [
        difference for name in base.keys() & here.keys() if (difference := differs(name, base[name], here[name]))
    ]
    return sorted(found, key=lambda d: (-d.size, d.value))


def differs(name: str, base: Tensor | str, here: Tensor | str) -> Difference | None:
    """How one value differs, or None."""
    if isinstance(base, str) or isinstance(here, str):
        same = isinstance(base, str) and isinstance(here, str) and base == here
        return None if same else Difference(name, f"{_shown(base)} -> {_shown(here)}")
    for what in ("dtype", "shape"):
        old, new = getattr(base, what), getattr(here, what)
        if old != new:
            return Difference(name, f"{what} {_plain(old)} -> {_plain(new)}")
    different = _bits(base) != _bits(here)
    if base.is_floating_point():
        different &= ~(base.isnan() & here.isnan())
    count = int(different.sum())
    return _sized(name, base[different], here[different], base, count) if count else None


def _sized(name: str, base: Tensor, here: Tensor, whole: Tensor, count: int) -> Difference:
    """How large a difference is, given the values that differ."""
    old, new = base.double(), here.double()
    of = f"{count} of {whole.numel()}"
    if not bool(torch.isfinite(old).all() and torch.isfinite(new).all()):
        return Difference(name, f"{of} values, infinite or NaN in one version")
    largest = float((old - new).abs().max())
    finite = whole.double()[torch.isfinite(whole.double())]
    scale = float(finite.abs().max())
    relative = largest / scale if scale else float("inf") if largest else 0.0
    text = f"{of} values, by {largest:.3g} at most, {relative:.3g} of the largest"
    if whole.is_floating_point():
        text += f", {ulps(base, here)} ulps" if largest else ", in the sign of zeros"
    return Difference(name, text, relative)


def ulps(base: Tensor, here: Tensor) -> int:
    """The largest number of floating-point numbers between two tensors of finite values."""
    top = 1 << (8 * base.element_size() - 1)

    def place(bits: int) -> int:  # with -0.0 at the place of 0.0
        return bits if bits >= 0 else -(bits + top)

    pairs = zip(_bits(base).tolist(), _bits(here).tolist(), strict=True)
    return max(abs(place(a) - place(b)) for a, b in pairs)


def _bits(value: Tensor) -> Tensor:
    """The bits of a tensor as integers."""
    if not value.is_floating_point():
        return value
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return value.contiguous().view(kinds[value.element_size()])


def _plain(value: Any) -> str:
    return str(tuple(value)) if isinstance(value, torch.Size) else str(value).removeprefix("torch.")


def _shown(value: Tensor | str) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= WIDTH else f"{value[: WIDTH - 1]}…")
    return f"a tensor of {_plain(value.dtype)}, shape {_plain(value.shape)}"


# ---- running the versions --------------------------------------------------------------------------------------------


def unpack(commit: str, folder: Path) -> str:
    """Put the package of a commit into a folder; returns what the commit is."""
    git = ["git", "-C", str(ROOT)]
    named = subprocess.run([*git, "rev-parse", "--verify", f"{commit}^{{commit}}"], capture_output=True, text=True)
    if named.returncode:
        raise SystemExit(f"--base {commit}: {named.stderr.strip() or 'no such commit'}")
    archive = subprocess.run(
        [*git, "archive", "--format=zip", named.stdout.strip(), "scoresde"], capture_output=True, check=True
    )
    zipfile.ZipFile(io.BytesIO(archive.stdout)).extractall(folder)
    line = subprocess.run(
        [*git, "log", "-1", "--format=%h %s", named.stdout.strip()], capture_output=True, text=True, check=True
    )
    return line.stdout.strip()


def start(folder: Path, options: Sequence[str]) -> subprocess.Popen[bytes]:
    """Run the cases that a version has not begun yet."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    with (folder / "errors.txt").open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, str(folder / "cases.py"), str(folder / "out"), *options],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )


def journal(folder: Path) -> list[dict[str, Any]]:
    """The notes of a version: one when a case begins, one when it ends."""
    path = folder / "out" / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(folders: Sequence[Path], options: Sequence[str]) -> None:
    """Run the versions at the same time. One that crashes goes on after the case that it crashed in."""
    running = {folder: start(folder, options) for folder in folders}
    crashes: dict[Path, int] = dict.fromkeys(folders, 0)
    try:
        while running:
            time.sleep(0.2)
            for folder, process in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[folder]
                if code == 0:
                    continue
                notes = journal(folder)
                if not notes or "texts" in notes[-1] or crashes[folder] == 20:
                    raise SystemExit(f"{folder.name} failed:\n{(folder / 'errors.txt').read_text()[-3000:]}")
                crashes[folder] += 1
                texts = {"error": "crash", "error.text": f"the process ended with code {code}"}
                with (folder / "out" / "journal.jsonl").open("a") as file:
                    file.write(
                        json.dumps({"case": notes[-1]["case"], "texts": texts, "absent": None, "file": None}) + "\n"
                    )
                running[folder] = start(folder, options)
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def results(folder: Path) -> dict[str, Case]:
    """What a version made of each case."""
    found = {}
    for note in journal(folder):
        if "texts" in note:
            tensors = safetensors.torch.load_file(folder / "out" / note["file"]) if note["file"] else {}
            found[note["case"]] = Case({**note["texts"], **tensors}, note["absent"])
    return found


def check_sources(folders: Sequence[Path]) -> list[str]:
    """Where the packages came from; the two versions of scoresde from different places, all else from the same."""
    versions = [json.loads((folder / "out" / "versions.json").read_text()) for folder in folders]
    files = [version.pop("files") for version in versions]
    for folder, found in zip(folders, files, strict=True):
        if not Path(found["scoresde"]).is_relative_to(folder):
            raise SystemExit(f"{folder.name}: scoresde came from {found['scoresde']}, not from {folder}.")
    others = [{name: path for name, path in found.items() if name != "scoresde"} for found in files]
    if files[0]["scoresde"] == files[1]["scoresde"] or others[0] != others[1] or versions[0] != versions[1]:
        raise SystemExit(f"The versions did not run side by side on the same packages: {files}, {versions}.")
    lines = [f"{folder.name:12} {found['scoresde']}" for folder, found in zip(folders, files, strict=True)]
    return lines + [f"{name:12} {path}" for name, path in others[0].items()] + [f"both: {versions[0]}"]


# ---- the report ------------------------------------------------------------------------------------------------------


def report(comparison: Comparison, allowed: Sequence[str]) -> list[str]:
    """The table of parts, and the differences."""
    lines = [f"{'part':12}" + "".join(f"{column:>14}" for column in COLUMNS)]
    total = dict.fromkeys(COLUMNS, 0)
    for part, counts in comparison.parts.items():
        lines.append(f"{part:12}" + "".join(f"{counts[column]:>14}" for column in COLUMNS))
        total = {column: total[column] + counts[column] for column in COLUMNS}
    lines.append(f"{'all':12}" + "".join(f"{total[column]:>14}" for column in COLUMNS))
    unexpected = set(comparison.unexpected(allowed))
    for side, where in SIDES.items():
        named = [f"  {case}: {why}" for case, why in comparison.only[side].items()]
        lines += [f"{where}:", *_first(named)] if named else []
    named = []
    for case in sorted(comparison.differing, key=lambda case: case not in unexpected):
        found = comparison.differing[case]
        more = f" (and {len(found) - 1} more values)" if len(found) > 1 else ""
        allowance = "" if case in unexpected else " [allowed]"
        named.append(f"  {case}{allowance}: {found[0].value}: {found[0].text}{more}")
    return lines + (["differing:", *_first(named)] if named else [])


def _first(lines: list[str]) -> list[str]:
    rest = len(lines) - SHOWN
    return lines if rest <= 0 else [*lines[:SHOWN], f"  … and {rest} more; --json has them all"]


def record(comparison: Comparison, unexpected: Sequence[str]) -> dict[str, Any]:
    """The comparison as JSON."""
    return {
        "parts": comparison.parts,
        "differing": {case: {d.value: d.text for d in found} for case, found in comparison.differing.items()},
        "only": comparison.only,
        "unexpected": list(unexpected),
    }


def main(arguments: list[str]) -> None:
    """Run both versions, compare, print; the exit code is 1 if anything differs that is not allowed to."""
    known = re.findall(r"^@part\ndef (\w+)", CASES.read_text(), re.MULTILINE)
    parser = argparse.ArgumentParser(prog="python -m tools same_results", description=__doc__)
    parser.add_argument("--base", required=True, metavar="COMMIT", help="the commit to compare the working tree with")
    parser.add_argument("--only", nargs="+", choices=known, metavar="PART", help=f"of {', '.join(known)}")
    parser.add_argument(
        "--match", default="*", metavar="PATTERN", help="only cases of this name, such as 'solve/heun/*'"
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases of each part")
    parser.add_argument("--allow", action="append", default=[], metavar="PATTERN", help="cases that may differ")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the comparison")
    options = parser.parse_args(arguments)

    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name).resolve() / side for side in (BASE, HERE)]
        for folder in folders:
            (folder / "out").mkdir(parents=True)
            shutil.copy(CASES, folder / "cases.py")
        commit = unpack(options.base, folders[0])
        shutil.copytree(ROOT / "scoresde", folders[1] / "scoresde", ignore=shutil.ignore_patterns("__pycache__"))
        print(f"base: {commit}\nhere: the working tree {ROOT}", flush=True)
        run(folders, [f"--match={options.match}", *["--quick"] * options.quick, "--only", *(options.only or known)])
        print("\n".join(check_sources(folders)), flush=True)
        found = [results(folder) for folder in folders]
        comparison = compare(*found)
    if not comparison.parts:
        raise SystemExit(f"No case matches {options.match!r}.")
    unexpected, unused = comparison.unexpected(options.allow), comparison.unused(options.allow)
    print("\n".join(report(comparison, options.allow)))
    if options.json:
        options.json.write_text(json.dumps(record(comparison, unexpected), indent=1) + "\n")
    print(f"{time.monotonic() - begin:.0f} s")
    if unused:
        sys.exit(f"--allow names nothing that differs: {', '.join(unused)}")
    if unexpected:
        sys.exit(f"{len(unexpected)} cases differ from {commit}")
    print(f"no result moved since {commit}" + (", but for those allowed" if options.allow else ""))
