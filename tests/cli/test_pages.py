"""The command lines of the pages run as they are written, with small files in the place of the user's."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scoresde
from scoresde import zoo
from tests.cli.common import COMMANDS, Run, expect
from tests.pages import blocks, commands

# What stands in for long work: the last of two values of a flag counts.
SHORT = {
    "sample": ("--count", "2", "--batch-size", "2"),
    "train": ("--steps", "2", "--batch-size", "8", "--sample-every", "0"),
    "likelihood": ("--rtol", "0.1", "--atol", "0.1", "--probes", "1"),
    "encode": ("--rtol", "0.1", "--atol", "0.1"),
    "certify": ("--pilot", "20", "--confidence", "0.8"),
    "diagnose": ("--pilot", "32"),
}
# The full tier runs the pages whose commands take longest; of these the default tier only reads the command lines.
PAGES = {
    "docs/command_line.md": pytest.mark.slow,
    "docs/inverse.md": pytest.mark.slow,
    "docs/likelihood.md": pytest.mark.slow,
    "docs/many_samples.md": (),
    "docs/systems.md": pytest.mark.slow,
    "docs/trainer.md": (),
    "docs/trust.md": pytest.mark.slow,
}


def prepare() -> None:
    """The files that the pages speak of."""
    digits = scoresde.training.digits_split().test_images[:3].numpy().astype(np.uint8)
    grey = digits[0, 0] * 15
    mask = np.zeros_like(grey)
    mask[4:] = 255
    large = np.kron(mask, np.ones((4, 4), dtype=np.uint8))[:28, :28]
    shutil.copytree(Path(zoo.__file__).parent / "weights" / "digits", "my_model")
    Path("images").mkdir()
    for path, content in {"mask.png": large, "digit.png": large, "images/a.png": grey, "images/b.png": mask}.items():
        Image.fromarray(content).save(path)
    np.savez("data.npz", images=digits)
    (config,) = [block.text for block in blocks() if block.language == "toml"]
    Path("run.toml").write_text(config)


def test_the_options_of_all_pages_are_those_of_the_commands(typed: Run) -> None:
    prepare()
    for page in PAGES:
        assert commands(page), page
        for line in commands(page):
            _, name, *words = shlex.split(line)
            with COMMANDS.make_context("scoresde", [name, *words]) as group:
                COMMANDS.commands[name].make_context(name, words, parent=group)  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", [pytest.param(page, marks=marks) for page, marks in PAGES.items()])
def test_the_commands_of_a_page_run(typed: Run, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    prepare()
    split = scoresde.training.digits_split()
    few = split._replace(test_images=split.test_images[:8], test_labels=split.test_labels[:8])
    for line in commands(page):
        _, name, *words = shlex.split(line)
        shown = split if name in ("check", "diagnose") else few
        monkeypatch.setattr(scoresde.training, "digits_split", lambda shown=shown: shown)
        expect(typed(name, *words, *SHORT.get(name, ())), 0)
