"""What the shell is told when a command line is to be completed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from scoresde.presets import PRESETS
from tests.cli.common import Run, expect

ROOT = Path(__file__).resolve().parents[2]
# Completes each command line, as bash does, and shows the help of each command, all in one new interpreter; and tells
# what was imported for it.
CODE = """
import json, os, sys
from typer.testing import CliRunner
from scoresde.cli import app
answers = []
for line in json.loads(sys.argv[1]):
    words = ["scoresde", *line]
    asked = {"_SCORESDE_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    answers.append(CliRunner().invoke(app, [], env=asked, prog_name="scoresde").output.split())
for command in ([], *([registered.callback.__name__] for registered in app.registered_commands)):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, (command, result.output)
heavy = sorted({"torch", "numpy", "scipy", "PIL", "tqdm", "safetensors"} & set(sys.modules))
print(json.dumps([answers, heavy]))
"""
CASES: dict[tuple[str, ...], list[str]] = {
    ("sample", "--sde", "v"): ["vp", "ve", "vdm"],
    ("encode", "data.npz", "--sde", "fl"): ["flow"],
    ("sample", "--inverse", "dd"): ["ddnm", "ddrm", "ddnm_plus"],
    ("sample", "--inverse", "exa"): [],
    ("sample", "--operator", "bi"): ["bicubic"],
    ("measure", "digits", "--operator", "g"): ["grey", "gaussian_blur"],
    ("train", "--preset", ""): [*PRESETS, "classifier"],
    ("train", "--log", ""): ["csv", "tensorboard"],
    ("presets", "score"): [name for name in PRESETS if name.startswith("score")],
    ("sample", "--model", "dig"): ["digits"],
    ("check", "dig"): ["digits"],
    ("sample", "--max"): ["--max-failures", "--max-steps"],
    ("pres",): ["presets"],
    ("methods", "--"): ["--json", "--config", "--help"],
}


def test_names_options_and_help_come_without_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, json.dumps(list(CASES))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    answers, heavy = json.loads(done.stdout)
    assert dict(zip(CASES, answers, strict=True)) == CASES
    assert heavy == []


def test_help_offers_completion(run: Run) -> None:
    expect(run("--help"), 0, "--install-completion", "--show-completion")
