"""The command lines of the pages run as they are written, with small files in the place of the user's."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import scoresde
from scoresde import zoo
from scoresde.cli import _data
from tests.pages import blocks, commands

Run = Callable[..., Result]
# What stands in for long work: the last of two values of a flag counts.
SHORT = {
    "sample": ("--count", "2", "--batch-size", "2"),
    "train": ("--steps", "2", "--batch-size", "8", "--sample-every", "0"),
    "likelihood": ("--rtol", "0.1", "--atol", "0.1", "--probes", "1"),
    "encode": ("--rtol", "0.1", "--atol", "0.1"),
    "certify": ("--pilot", "20", "--confidence", "0.8"),
    "diagnose": ("--pilot", "32"),
}
PAGES = [
    "docs/command_line.md",
    "docs/inverse.md",
    "docs/likelihood.md",
    "docs/many_samples.md",
    "docs/systems.md",
    "docs/trainer.md",
    "docs/trust.md",
]


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


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(typed: Run, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    prepare()
    lines = commands(page)
    assert lines
    everything = _data._digits

    def few(check: Any, labels: str | None) -> Any:
        whole = everything(check, labels)
        classes = None if whole.labels is None else whole.labels[:8]
        return replace(whole, values=whole.values[:8], names=whole.names[:8], labels=classes)

    for line in lines:
        _, name, *words = shlex.split(line)
        monkeypatch.setattr(_data, "_digits", everything if name in ("check", "diagnose") else few)
        result = typed(name, *words, *SHORT.get(name, ()))
        assert result.exit_code == 0, f"{line}\n{result.output}"
