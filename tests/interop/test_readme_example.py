"""The README's example for diffusers, with a small pipeline in the place of the one that it downloads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.peers

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    unet = diffusers.UNet2DModel(
        sample_size=32,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    pipe = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler())
    monkeypatch.setattr(diffusers.DDPMPipeline, "from_pretrained", classmethod(lambda cls, name: pipe))
    found = re.search(r"<!-- example: diffusers -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    exec(found[1], {})
    shown = capsys.readouterr().out
    assert shown.startswith("Solution(x=(4, 3, 32, 32) float32") and "4 SUCCESS" in shown
