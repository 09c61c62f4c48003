"""Every code block of the README and of the documentation runs in some test."""

from __future__ import annotations

import re
from pathlib import Path

from tests.pages import ROOT, Block, blocks

# Programs that are no doctests, and the tests that run them, which name the page and the mark.
PROGRAMS = {
    ("README.md", "diffusers"): "tests/interop/test_pages.py",
    ("docs/calling_networks.md", "jax"): "tests/interop/test_pages.py",
    ("docs/calling_networks.md", "onnx"): "tests/interop/test_pages.py",
    ("docs/operators.md", "deepinv"): "tests/interop/test_pages.py",
    ("docs/many_samples.md", "own"): "tests/integration/test_teams.py",
    ("docs/many_samples.md", "teams"): "tests/integration/test_teams.py",
    ("docs/networks.md", "hub"): "tests/interop/test_hub.py",
    ("docs/trainer.md", "figures"): "tests/interop/test_training.py",
    ("docs/training.md", "beginning"): "benchmarks/training_loops.py",
    ("docs/training.md", "trainer"): "benchmarks/training_loops.py",
    ("docs/training.md", "accelerate"): "benchmarks/training_loops.py",
    ("docs/training.md", "lightning"): "benchmarks/training_loops.py",
}
COMMANDS = "tests/cli/test_pages.py"
INSTALLED = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/quickstart.md",
    "docs/index.md",
)  # by `.ci/run`, in a new environment
# A map, a file that a test reads, a command of which `tools.crash` runs the like, and one for a cluster.
SHOWN = {
    ("docs/design.md", "cli "),
    ("docs/command_line.md", "model = "),
    ("docs/many_samples.md", "torchrun "),
    ("docs/fifty_million.md", "sbatch "),
}


def run_by(block: Block) -> str | None:
    """What runs a block, None if nothing does."""
    if ">>> " in block.text:
        return "doctest"
    if block.language == "bash" and all(line.startswith("scoresde ") for line in block.text.splitlines()):
        return COMMANDS
    if block.language == "bash" and block.page in INSTALLED:
        return ".ci/run"
    if any(block.page == page and block.text.lstrip().startswith(text) for page, text in SHOWN):
        return "shown"
    return PROGRAMS.get((block.page, block.mark or ""))


def test_every_block_is_run() -> None:
    found = blocks()
    assert len(found) > 100
    left = [f"{block.page}: {block.text[:60]!r}" for block in found if run_by(block) is None]
    assert not left, left


def test_the_table_has_no_others_and_the_tests_name_what_they_run() -> None:
    marked = {(block.page, block.mark) for block in blocks() if block.mark and block.language == "python"}
    assert marked == set(PROGRAMS)
    for (page, mark), file in PROGRAMS.items():
        text = Path(ROOT, file).read_text(encoding="utf-8")
        assert Path(page).name in text or Path(page).stem in text, page
        assert re.search(rf'"(?:\w+: )?{mark}"', text), mark
    text = Path(ROOT, COMMANDS).read_text(encoding="utf-8")
    pages = {block.page for block in blocks() if run_by(block) == COMMANDS}
    assert pages and all(f'"{page}"' in text for page in pages), pages
