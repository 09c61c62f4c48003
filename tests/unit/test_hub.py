"""What needs no package of the Hugging Face Hub: addresses and arguments."""

from __future__ import annotations

import subprocess
import sys

import pytest

import scoresde
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (
        lambda: scoresde.load("hf:owner/name"),
        lambda: scoresde.save(scoresde.load("digits"), push_to="owner/name"),
    ):
        with pytest.raises(InvalidArgumentError, match=r"pip install 'scoresde\[hub\]'"):
            call()


@pytest.mark.slow
def test_scoresde_does_not_import_the_package():
    code = "import scoresde, sys; scoresde.load('digits'); sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_arguments_are_checked_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = scoresde.load("digits")
    for options, wrong in (
        ({"push_to": "name"}, "push_to"),
        ({"push_to": "owner/name", "license": "MIT License\n"}, "license"),
        ({"path": "folder", "license": "mit"}, "license"),
    ):
        with pytest.raises(InvalidArgumentError, match=f"`{wrong}`"):
            scoresde.save(network, **options)
    with pytest.raises(InvalidTypeError, match="`path`"):
        scoresde.save(network)
    assert not list(tmp_path.iterdir())
