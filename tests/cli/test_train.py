"""`scoresde train`: what it leaves, how it goes on, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import scoresde
from scoresde.discrete import BetaChain
from scoresde.presets import DEFAULT, PRESETS
from scoresde.training import Preset, Recipe
from scoresde.zoo import Sampler
from tests.cli.common import Files, Result, Run, arrays, expect, metadata

SMALL = {"channels": 8, "blocks": 1, "width": 8}


def simple(model: Any, x0: Tensor, generator: torch.Generator | None = None, **context: Any) -> Tensor:
    """DDPM's simple loss on the levels of a chain."""
    t = model.chain.times[torch.randint(len(model.chain), (len(x0),), generator=generator)]
    x, noise = model.sde.perturb(x0, t, torch.randn(x0.shape, generator=generator))
    return (model.noise(x, t, **context) - noise).square().flatten(1).mean(1)


@pytest.fixture(autouse=True)
def presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets of small networks: one for all processes, one of a chain in the range [0, 1]."""
    recipe = Recipe(steps=4, batch_size=8)
    few = Sampler("ddim", steps=2)
    wide = replace(PRESETS[DEFAULT], recipe=recipe, kwargs=SMALL, label_dropout=0.5, sampler=few)
    monkeypatch.setitem(PRESETS, DEFAULT, wide)
    chain = Preset(
        "a chain",
        simple,
        replace(recipe, steps=3),
        process=BetaChain.linear,
        prediction="noise",
        time_input="index",
        kwargs=SMALL,
        data_range=(0.0, 1.0),
        sampler=replace(few, denoise=True),
    )
    monkeypatch.setitem(PRESETS, "chain", chain)


def train(run: Run, *arguments: object) -> Result:
    return run("train", "--data", "digits", "--out", "model", "--quiet", *arguments)


def contents(folder: str = "model") -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_what_it_leaves_is_a_model(run: Run, files: Files) -> None:
    said = ("4 steps on scikit-learn digits", "scoresde sample --model model")
    text = expect(run("train", "--out", "model", "--sample-every", 3), 0, *said)  # the digits are the default
    assert "step/s" not in text  # where standard error is no terminal
    assert files() == ["model"]
    assert sorted(contents()) == [
        "checkpoints/step-0000000004.safetensors",
        "config.json",
        "log.csv",
        "model.safetensors",
        "samples/step-0000000003.png",
        "samples/step-0000000004.png",
    ]
    network = scoresde.load("model")
    assert network.labels is not None and network.labels.count == 10 and network.event_shape == (1, 8, 8)
    assert network.config.levels == 17 and network.config.data_range == (-1.0, 1.0)
    for sde in ("vp", "ve", "flow"):  # trained for the noise levels of all processes
        expect(run("sample", "--model", "model", "--sde", sde, "--method", "ddim", "--steps", 2, "--num", 4), 0)


def test_a_network_of_a_chain_is_sampled_through_its_own_process_and_through_others(run: Run) -> None:
    expect(train(run, "--preset", "chain", "--sample-every", 0), 0)
    network = scoresde.load("model")
    assert network.chain is not None and len(network.chain) == 1000 and network.config.data_range == (0.0, 1.0)
    common = ("sample", "--model", "model", "--method", "ddim", "--steps", 2, "--num", 4, "--out", "a.npz")
    expect(run(*common), 0, "its own process, ddim")
    expect(run(*common, "--sde", "flow"), 0)
    assert metadata("a.npz")["sde"].startswith("FlowSDE(t_min=0.0099")  # as far as the network knows
    expect(run("sample", "--model", "model", "--num", 4, "--out", "a.npz"), 0, "its own process, ddim, 2 steps")
    assert arrays("a.npz")["nfe"].tolist() == [3] * 4  # with the data estimate at the end, as its sampler says


def test_pictures_have_black_and_white_where_the_data_have(run: Run, fake: Any) -> None:
    """The dark half of the pictures is at -0.9."""
    for span, black in (((0.0, 1.0), 0), ((-1.0, 1.0), 13)):
        fake.config.data_range = span
        expect(run("sample", "--method", "ddim", "--steps", 5, "--num", 1), 0)
        darkest = np.sort(np.asarray(Image.open("samples.png")).flatten())[:512]
        assert np.median(darkest) == pytest.approx(black, abs=8 * bool(black))


def test_the_same_command_goes_on_and_gives_the_same(run: Run) -> None:
    given = ("--checkpoint-every", 2, "--sample-every", 0)
    expect(train(run, *given), 0)
    whole = contents()
    expect(train(run, *given), 0)  # it is done
    for name in ("checkpoints/step-0000000004.safetensors", "config.json", "model.safetensors"):
        Path("model", name).unlink()
    expect(train(run, *given, "--resume"), 0)
    assert whole == contents()


def test_another_run_in_the_folder_is_refused(run: Run) -> None:
    expect(train(run, "--sample-every", 0), 0)
    before = contents()
    for arguments, line in (
        (("--steps", 5), "recipe.steps: 4, now 5"),
        (("--seed", 1), "seed: 0, now 1"),
        (("--batch-size", 4), "recipe.batch_size: 8, now 4"),
        (("--preset", "chain"), "preset"),
        (("--no-resume",), "already"),
    ):
        expect(train(run, "--sample-every", 0, *arguments), 2, line)
    assert contents() == before


def test_a_model_that_is_there_is_not_overwritten(run: Run) -> None:
    scoresde.save(scoresde.load("digits"), "model")
    expect(train(run), 2, "Nothing was overwritten")
    assert sorted(contents()) == ["config.json", "model.safetensors"]


def test_what_cannot_be_done_is_said_before_anything_is_made(run: Run, files: Files) -> None:
    Path("file").write_text("mine")
    np.savez("vectors.npz", x=np.zeros((12, 2), "float32"))
    for arguments, code, word in (
        (("--preset", "emd"), 2, "did you mean 'edm'"),
        (("--data", "none.npz"), 2, "must be a file, a folder"),
        (("--data", "vectors.npz"), 2, "data of shape (2,)"),
        (("--learning-rate", 0), 2, "learning_rate"),
        (("--precision", "float16", "--device", "cpu"), 2, "CUDA"),
        (("--out", "file"), 4, "file"),
        (("--resume",), 2, "no checkpoint"),
    ):
        expect(train(run, *arguments), code, word)
    assert files() == ["file", "vectors.npz"] and Path("file").read_text() == "mine"


def test_data_of_a_file(run: Run) -> None:
    common = ("train", "--quiet", "--steps", 1, "--sample-every", 0, "--data")
    x = np.random.default_rng(0).integers(0, 256, (12, 3, 4, 4)).astype("uint8")
    np.savez("x.npz", x=x)
    expect(run(*common, "x.npz", "--out", "a"), 0)
    network = scoresde.load("a")
    assert network.event_shape == (3, 4, 4) and network.labels is None and network.config.levels == 256
    np.savez("y.npz", x=x / 255.0)
    expect(run(*common, "y.npz", "--out", "b", "--value-range", 0, 0.5), 2, "value_range")
    assert not Path("b").exists()
    expect(run(*common, "y.npz", "--out", "b", "--value-range", 0, 1), 0)
    np.savez("z.npz", x=np.full((3, 1, 2, 2), np.nan))
    expect(run(*common, "z.npz", "--out", "c", "--batch-size", 2), 3)


@pytest.mark.parametrize("name", ["train", "train_classifier"])
def test_options_reach_the_training(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    seen: dict[str, Any] = {}

    def trained(*args: Any, **kwargs: Any) -> None:
        seen.update(kwargs, size=len(args[1] if name == "train" else args[0]))
        seen["recipe"] = args[0].recipe if name == "train" else args[2]
        raise KeyboardInterrupt

    monkeypatch.setattr(scoresde.training, name, trained)
    preset = () if name == "train" else ("--preset", "classifier")
    flags = ("--seed", 3, "--workers", 1, "--hold-out", 37, "--checkpoint-every", 7, "--data-range", 0, 2, "--flip")
    recipe = ("--steps", 9, "--batch-size", 5, "--learning-rate", 0.5, "--precision", "bfloat16", "--compile")
    expect(train(run, *preset, *flags, *recipe, "--logger", "tensorboard", "--no-resume", "--device", "cpu"), 75)
    expected = {"seed": 3, "workers": 1, "size": 1400, "checkpoint_every": 7, "value_range": (0.0, 2.0), "flip": True}
    expected |= {"tensorboard": True, "resume": False, "device": torch.device("cpu"), "progress": False}
    assert {key: seen[key] for key in expected} == expected and seen["stop"]() is False
    told = {"steps": 9, "batch_size": 5, "learning_rate": 0.5, "precision": "bfloat16", "compile": True}
    assert {key: getattr(seen["recipe"], key) for key in told} == told


def test_a_classifier(run: Run) -> None:
    """Beside the presets: it is loaded and guides the shipped network; data without labels are refused."""
    text = expect(run("train", "--preset", "classifier", "--out", "c", "--steps", 2, "--batch-size", 4), 0)
    assert "parameters, 2 steps" in text and "sample" not in text
    sde, classifier = scoresde.VPSDE(), scoresde.zoo.load_classifier("c")
    assert classifier.net.arguments["channels"] == 16
    assert sorted(path.name for path in Path("c").iterdir()) == ["checkpoints", "classifier.safetensors", "log.csv"]
    score = scoresde.load("digits").score(sde)
    guided = scoresde.guidance.classifier_guidance(score, classifier.log_prob(sde, 3))
    assert scoresde.solve(sde, guided, method="ddim", steps=2, seed=0).x.isfinite().all()
    np.savez("bare.npz", x=np.zeros((4, 1, 8, 8), np.uint8))
    result = run("train", "--preset", "classifier", "--out", "d", "--data", "bare.npz", "--batch-size", 4)
    expect(result, 2, "must have labels")
    assert not Path("d").exists()
