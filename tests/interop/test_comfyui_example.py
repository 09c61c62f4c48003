"""The example of a node, with a stand-in for the part of ComfyUI that it uses."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde

FILE = Path(scoresde.__file__).parents[1] / "examples" / "comfyui" / "__init__.py"


class KSAMPLER:
    """Calls a sampler function as ComfyUI's class of this name does."""

    def __init__(self, sampler_function: Any, extra_options: Any = None) -> None:
        self.sampler_function, self.extra_options = sampler_function, extra_options or {}

    def sample(self, model: Any, sigmas: Tensor, noise: Tensor, callback: Any) -> Tensor:
        seen = {"callback": lambda info: callback(info["i"], info["denoised"], info["x"], len(sigmas) - 1)}
        extra = {"model_options": {}, "seed": 3}
        return self.sampler_function(
            model, noise * sigmas[0], sigmas, extra_args=extra, disable=True, **seen, **self.extra_options
        )


@pytest.mark.skipif(not FILE.exists(), reason="the examples are not here")
def test_the_node_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    comfy, samplers = ModuleType("comfy"), ModuleType("comfy.samplers")
    comfy.samplers, samplers.KSAMPLER = samplers, KSAMPLER  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    monkeypatch.setitem(sys.modules, "comfy.samplers", samplers)
    spec: Any = importlib.util.spec_from_file_location("comfyui_example", FILE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    node = example.NODE_CLASS_MAPPINGS["ScoresdeSampler"]
    (names, more) = node.INPUT_TYPES()["required"]["method"]
    assert {"dpm_3m", "euler_ancestral", "dpmpp_2m", "adams"} < set(names) and more["default"] in names
    steps: list[tuple[int, int]] = []
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))

    def model(x: Tensor, sigma: Tensor, model_options: object, seed: int) -> Tensor:
        return x / (1 + sigma[:, None] ** 2)  # of data N(0, I)

    (sampler,) = node().sampler("dpm_3m")
    sigmas = torch.cat([torch.logspace(1, -2, 20), torch.zeros(1)])
    made = sampler.sample(model, sigmas, x, lambda i, denoised, x, total: steps.append((i, total)))
    assert steps == [(i, 20) for i in range(20)]
    assert (made - x * 10 / 101**0.5).abs().max() < 0.02
