"""What the shell is told when a command line is to be completed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scoresde._registries import PRESETS, RULES, SAMPLERS, SDES, shipped
from scoresde.cli._operators import OPERATORS
from scoresde.cli._train import LOGS

ROOT = Path(__file__).resolve().parents[2]
# Completes each command line in one new interpreter, as bash does in one each, and tells what was imported for it.
CODE = """
import json, os, sys
from typer.testing import CliRunner
from scoresde.cli import app
answers = []
for line in json.loads(sys.argv[1]):
    words = ["scoresde", *line]
    asked = {"_SCORESDE_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    answers.append(CliRunner().invoke(app, [], env=asked, prog_name="scoresde").output.split())
heavy = sorted({"torch", "numpy", "scipy", "PIL", "tqdm", "safetensors"} & set(sys.modules))
print(json.dumps([answers, heavy]))
"""
CASES: dict[tuple[str, ...], list[str]] = {
    ("sample", "--sde", "v"): [name for name in SDES if name.startswith("v")],
    ("encode", "data.npz", "--sde", "fl"): ["flow"],
    ("sample", "--inverse", "d"): [name for name in (*RULES, *SAMPLERS) if name.startswith("d")],
    ("sample", "--inverse", "exa"): [],
    ("sample", "--operator", "bi"): ["bicubic"],
    ("measure", "digits", "--operator", ""): list(OPERATORS),
    ("train", "--preset", ""): [*PRESETS, "classifier"],
    ("train", "--log", ""): list(LOGS),
    ("presets", "score"): [name for name in PRESETS if name.startswith("score")],
    ("sample", "--model", ""): shipped(),
    ("check", ""): shipped(),
    ("sample", "--max"): ["--max-failures", "--max-steps"],
    ("pres",): ["presets"],
    ("methods", "--"): ["--json", "--config", "--help"],
}


def test_names_and_options_are_completed_without_torch(tmp_path: Path) -> None:
    lines = json.dumps(list(CASES))
    done = subprocess.run(
        [sys.executable, "-c", CODE, lines],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    answers, heavy = json.loads(done.stdout)
    assert dict(zip(CASES, answers, strict=True)) == CASES
    assert heavy == []


@pytest.mark.parametrize("flag", ["--install-completion", "--show-completion"])
def test_help_offers_completion(tmp_path: Path, flag: str) -> None:
    from typer.testing import CliRunner

    from scoresde.cli import app

    assert flag in CliRunner().invoke(app, ["--help"]).output
