"""`scoresde train`: what it leaves, how it goes on, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import Result

import scoresde
from scoresde.discrete import BetaChain
from scoresde.presets import DEFAULT, PRESETS
from scoresde.training import Preset, Recipe
from scoresde.zoo import Sampler

Run = Callable[..., Result]
ROOT = Path(__file__).resolve().parents[2]
SMALL = {"channels": 8, "blocks": 1, "width": 8}


def simple(model: Any, x0: Tensor, generator: torch.Generator | None = None, **context: Any) -> Tensor:
    """DDPM's simple loss on the levels of a chain."""
    t = model.chain.times[torch.randint(len(model.chain), (len(x0),), generator=generator)]
    x, noise = model.sde.perturb(x0, t, torch.randn(x0.shape, generator=generator))
    return (model.noise(x, t, **context) - noise).square().flatten(1).mean(1)


@pytest.fixture(autouse=True)
def presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets of small networks: one for all processes, one of a chain in the range [0, 1]."""
    wide = PRESETS[DEFAULT]
    monkeypatch.setitem(
        PRESETS,
        DEFAULT,
        Preset(wide.summary, wide.loss, Recipe(steps=4, batch_size=8), kwargs=SMALL, label_dropout=0.5),
    )
    monkeypatch.setitem(
        PRESETS,
        "chain",
        Preset(
            "a chain",
            simple,
            Recipe(steps=3, batch_size=8),
            process=BetaChain.linear,
            prediction="noise",
            time_input="index",
            kwargs=SMALL,
            data_range=(0.0, 1.0),
            sampler=Sampler("ddim", steps=2),
        ),
    )


def train(run: Run, *arguments: object) -> Result:
    return run("train", "--data", "digits", "--out", "model", "--quiet", *arguments)


def test_what_it_leaves_is_a_model(run: Run, files: Callable[[], list[str]], tmp_path: Path) -> None:
    result = run("train", "--out", "model", "--sample-every", 3)  # the digits are the default
    assert result.exit_code == 0, result.output
    assert "4 steps on scikit-learn digits" in result.output and "scoresde sample --model model" in result.output
    assert files() == ["model"]
    left = sorted(str(path.relative_to("model")) for path in Path("model").rglob("*") if path.is_file())
    assert left == [
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
    assert network.config.command == "scoresde train --data digits --preset edm-wide --steps 4 --batch-size 8 --seed 0"
    for sde in ("vp", "ve", "flow"):  # trained for the noise levels of all processes
        sampled = run("sample", "--model", "model", "--sde", sde, "--method", "ddim", "--steps", 2, "--num", 4)
        assert sampled.exit_code == 0, sampled.output


def test_a_network_of_a_chain_is_sampled_through_its_own_process_and_through_others(run: Run) -> None:
    assert train(run, "--preset", "chain").exit_code == 0
    network = scoresde.load("model")
    assert network.chain is not None and len(network.chain) == 1000 and network.config.data_range == (0.0, 1.0)
    own = run("sample", "--model", "model", "--method", "ddim", "--steps", 2, "--num", 4)
    assert own.exit_code == 0 and "its own process, ddim" in own.output
    flow = run("sample", "--model", "model", "--sde", "flow", "--method", "ddim", "--steps", 2, "--out", "a.npz")
    assert flow.exit_code == 0, flow.output
    metadata = str(np.load("a.npz")["metadata"])
    assert "FlowSDE(t_min=0.0099" in metadata  # as far as the network knows


@pytest.mark.parametrize(("span", "black"), [((0.0, 1.0), 0), ((-1.0, 1.0), 13)])
def test_pictures_have_black_and_white_where_the_data_have(run: Run, fake: Any, span: Any, black: int) -> None:
    """The dark half of the pictures is at -0.9."""
    fake.config.data_range = span
    assert run("sample", "--method", "ddim", "--steps", 5, "--num", 1).exit_code == 0
    darkest = np.sort(np.asarray(Image.open("samples.png")).flatten())[:512]
    assert np.median(darkest) == pytest.approx(black, abs=8 * bool(black))


def test_the_same_command_goes_on_and_gives_the_same(run: Run) -> None:
    assert train(run, "--checkpoint-every", 2).exit_code == 0
    whole = {path.name: path.read_bytes() for path in Path("model").iterdir() if path.is_file()}
    assert train(run, "--checkpoint-every", 2).exit_code == 0  # it is done
    Path("model/checkpoints/step-0000000004.safetensors").unlink()
    for name in ("config.json", "model.safetensors"):
        Path("model", name).unlink()
    assert train(run, "--checkpoint-every", 2, "--resume").exit_code == 0
    assert whole == {path.name: path.read_bytes() for path in Path("model").iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--steps", 5), "recipe.steps: 4, now 5"),
        (("--seed", 1), "seed: 0, now 1"),
        (("--batch-size", 4), "recipe.batch_size: 8, now 4"),
        (("--preset", "chain"), "preset"),
        (("--no-resume",), "already"),
    ],
)
def test_another_run_in_the_folder_is_refused(run: Run, arguments: tuple[object, ...], line: str) -> None:
    assert train(run).exit_code == 0
    before = {path: path.read_bytes() for path in Path("model").rglob("*") if path.is_file()}
    result = train(run, *arguments)
    assert result.exit_code == 2 and line in result.output
    assert before == {path: path.read_bytes() for path in Path("model").rglob("*") if path.is_file()}


def test_a_model_that_is_there_is_not_overwritten(run: Run) -> None:
    scoresde.save(scoresde.load("digits"), "model")
    result = train(run)
    assert result.exit_code == 2 and "Nothing was overwritten" in result.output
    assert sorted(path.name for path in Path("model").iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_a_models_name_is_not_overwritten(name: str, run: Run) -> None:
    Path("model", "checkpoints").mkdir(parents=True)  # with nothing in it
    Path("model", name).write_text("mine")
    result = train(run)
    assert result.exit_code == 2 and "Nothing was overwritten" in result.output
    assert Path("model", name).read_text() == "mine"


def test_vectors_are_told_which_network_they_need(run: Run) -> None:
    np.savez("x.npz", x=np.zeros((12, 2), "float32"))
    result = run("train", "--data", "x.npz", "--out", "a", "--quiet")
    assert result.exit_code == 2 and "data of shape (2,)" in result.output and "architecture='mlp'" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--preset", "emd"), 2, "did you mean 'edm'"),
        (("--log", "tensorbord"), 2, "did you mean 'tensorboard'"),
        (("--data", "none.npz"), 2, "must be a file, a folder"),
        (("--device", "gpu"), 2, "device"),
        (("--steps", 0), 2, "steps"),
        (("--precision", "float16", "--device", "cpu"), 2, "CUDA"),
        (("--out", "file"), 4, "file"),
        (("--resume",), 2, "no checkpoint"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_made(
    run: Run, files: Callable[[], list[str]], arguments: tuple[object, ...], code: int, word: str
) -> None:
    Path("file").write_text("mine")
    result = train(run, *arguments)
    assert result.exit_code == code and word in result.output, result.output
    assert files() == ["file"] and Path("file").read_text() == "mine"


def test_data_of_a_file(run: Run) -> None:
    x = np.random.default_rng(0).integers(0, 256, (12, 3, 4, 4)).astype("uint8")
    np.savez("x.npz", x=x)
    assert run("train", "--data", "x.npz", "--out", "a", "--quiet").exit_code == 0
    network = scoresde.load("a")
    assert network.event_shape == (3, 4, 4) and network.labels is None and network.config.levels == 256
    np.savez("y.npz", x=x / 255.0)
    result = run("train", "--data", "y.npz", "--out", "b", "--quiet", "--value-range", 0, 0.5)
    assert result.exit_code == 2 and "value_range" in result.output and not Path("b").exists()
    assert run("train", "--data", "y.npz", "--out", "b", "--quiet", "--value-range", 0, 1).exit_code == 0
    np.savez("z.npz", x=np.full((3, 1, 2, 2), np.nan))
    assert run("train", "--data", "z.npz", "--out", "c", "--quiet").exit_code == 3


def test_width_and_learning_rate(run: Run) -> None:
    assert train(run, "--channels", 16, "--learning-rate", 0.001).exit_code == 0
    network = scoresde.load("model")
    assert network.config.kwargs == {"event_shape": [1, 8, 8], "labels": 10, **SMALL, "channels": 16}
    assert network.config.command.endswith("--seed 0 --learning-rate 0.001 --channels 16")
    last = Recipe(steps=4, batch_size=8, learning_rate=0.001).learning_rate_at(3)
    assert f"learning_rate,{last}" in Path("model/log.csv").read_text()
    again = train(run, "--channels", 8, "--learning-rate", 0.001, "--steps", 6)
    assert again.exit_code == 2
    assert train(run, "--channels", 12).exit_code == 2
    assert train(run, "--learning-rate", 0).exit_code == 2


def test_large_images_are_told_which_preset_suits_them(run: Run) -> None:
    np.savez("x.npz", x=np.zeros((12, 1, 20, 20), np.uint8))
    result = run("train", "--data", "x.npz", "--out", "a")
    assert result.exit_code == 0 and "--preset mnist is the better start" in result.output
    assert "better start" not in run("train", "--data", "x.npz", "--out", "b", "--preset", "chain").output


def test_a_classifier(run: Run) -> None:
    """Beside the presets: it is loaded and guides the shipped network; data without labels are refused."""
    result = run("train", "--preset", "classifier", "--out", "c", "--steps", 2, "--batch-size", 4)
    assert result.exit_code == 0 and "parameters, 2 steps" in result.output and "sample" not in result.output
    assert scoresde.zoo.load_classifier("c").net.arguments["channels"] == 16
    assert sorted(path.name for path in Path("c").iterdir()) == ["checkpoints", "classifier.safetensors", "log.csv"]
    sde, classifier = scoresde.VPSDE(), scoresde.zoo.load_classifier("c")
    score = scoresde.load("digits").score(sde)
    guided = scoresde.guidance.classifier_guidance(score, classifier.log_prob(sde, 3))
    assert scoresde.solve(sde, guided, method="ddim", steps=2, seed=0).x.isfinite().all()
    np.savez("bare.npz", x=np.zeros((4, 1, 8, 8), np.uint8))
    result = run("train", "--preset", "classifier", "--out", "d", "--data", "bare.npz", "--batch-size", 4)
    assert result.exit_code == 2 and "must have labels" in result.output and not Path("d").exists()


def test_the_presets_are_listed(run: Run) -> None:
    head, *lines, last = run("presets").output.splitlines()
    assert head.split() == ["preset", "process", "predicts", "loss", "sampler", "paper"]
    assert [line.split()[0] for line in lines] == list(PRESETS)
    assert last.startswith("classifier: ")
    assert run("presets", "classifier").output.startswith("steps: ")
    assert "did you mean 'classifier'" in run("presets", "clasifier").output


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """Ctrl-C in the middle: exit code 75; the same command resumes from the last checkpoint."""
    code = (
        "import sys; from dataclasses import replace; from scoresde.presets import PRESETS\n"
        f"PRESETS['edm-wide'] = replace(PRESETS['edm-wide'], kwargs={SMALL})\n"
        "from scoresde.cli import app; app(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "train", "--data", "digits", "--out", "m", "--batch-size", "4"]
    command += ["--checkpoint-every", "2", "--sample-every", "0", "--quiet"]

    def start(steps: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "--steps", str(steps)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
        )

    process = start(1_000_000)
    checkpoints = tmp_path / "m" / "checkpoints"
    while not list(checkpoints.glob("step-*")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and b"Traceback" not in err, err.decode()
    reached = max(int(path.stem[5:]) for path in checkpoints.glob("step-*"))
    other = start(reached + 100)
    _, err = other.communicate(timeout=60)
    assert other.returncode == 2 and b"recipe.steps" in err
    assert not list(checkpoints.glob(".*"))


def test_no_progress_bar_without_a_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scoresde", "train", "--out", "m", "--steps", "2", "--batch-size", "4"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--sample-every", "0"], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0 and b"step/s" not in done.stderr, done.stderr.decode()


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    """Under torchrun: one model, that of the run's rank 0; the same command again is done."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "scoresde", "train"]
    command += ["--data", "digits", "--out", "m", "--steps", "2", "--batch-size", "4", "--sample-every", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=100)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.count(b"parameters, 2 steps") == 1
        found.append((tmp_path / "m" / "model.safetensors").read_bytes())
    assert found[0] == found[1] and scoresde.load(tmp_path / "m").event_shape == (1, 8, 8)
