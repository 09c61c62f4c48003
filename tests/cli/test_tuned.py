"""`scoresde sample --tune`, and files of what was tuned, fitted or learned in the place of a method."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import Result

import scoresde
from scoresde.fit import FittedGrid, FittedSolver, Tuned
from scoresde.guidance import classifier_free
from scoresde.zoo.sampler import Sampler

Run = Callable[..., Result]
Files = Callable[[], list[str]]
SDE = scoresde.VPSDE()
SHAPE = (16, 1, 8, 8)


def arrays(path: str) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def solved(score_fn: Any, record: FittedGrid, num: int, seed: int = 0, **options: Any) -> np.ndarray:
    """What `solve` gives for the samples of a command."""
    noise = scoresde.SampleNoise(seed, indices=range(num))
    shape = (num, *SHAPE[1:])
    return scoresde.solve(SDE, score_fn, method=record, shape=shape, noise=noise, **options).x.numpy()


@pytest.fixture
def record(run: Run, fake: Any) -> Tuned:
    """What was tuned for the model, and its file."""
    tuned = scoresde.tune(SDE, fake.score(SDE), 4, shape=SHAPE)
    tuned.save("tuned.json")
    fake.calls = 0
    return tuned


def test_tune_chooses_as_tune_does_and_samples_with_it(run: Run, fake: Any, files: Files) -> None:
    result = run("sample", "--tune", "--steps", 4, "--count", 3, "--seed", 5, "--out", "a.npz")
    assert result.exit_code == 0, result.output
    calls = fake.calls
    chosen = scoresde.tune(SDE, fake.score(SDE), 4, shape=SHAPE, seed=5)
    assert calls == chosen.cost.calls + 4
    assert np.array_equal(arrays("a.npz")["x"], solved(fake.score(SDE), chosen, 3, seed=5))
    best = chosen.ranking[0]
    said = f"tuned for 4 evaluations: {best.method} on {best.grid}, pilot median error {chosen.fitted.median:.2g}"
    assert said in result.output and f"(auto {chosen.default.median:.2g})" in result.output
    assert f"{chosen.cost.calls} network calls with 16 samples" in result.output
    assert f"by about {3 * 16 * 4} network calls with 16 samples ..." in result.output
    assert files() == ["a.npz"]


def test_the_default_number_of_evaluations_is_that_of_auto(run: Run, fake: Any) -> None:
    assert run("sample", "--tune", "--count", 2, "--out", "a.npz").exit_code == 0
    assert run("sample", "--count", 2, "--out", "b.npz").exit_code == 0
    assert arrays("a.npz")["nfe"].max() <= 25 and arrays("b.npz")["nfe"].max() <= 25
    assert json.loads(str(arrays("a.npz")["metadata"]))["record"]["evaluations"] == 25


@pytest.mark.parametrize("guidance", [None, 3.0])
def test_the_choice_is_for_the_label_and_the_guidance(run: Run, fake: Any, guidance: float | None) -> None:
    scale = () if guidance is None else ("--guidance", guidance)
    command = ("--tune", "--steps", 5, "--label", 1, *scale, "--count", 2, "--out", "a.npz", "--save-tuned", "t.json")
    assert run("sample", *command).exit_code == 0
    conditional, without = fake.score(SDE, half=1), fake.score(SDE)
    score_fn = conditional if guidance is None else classifier_free(conditional, without, guidance)
    chosen = scoresde.tune(SDE, score_fn, 5, shape=SHAPE)
    assert FittedGrid.load("t.json") == chosen
    assert chosen.fitted != scoresde.tune(SDE, without, 5, shape=SHAPE).fitted
    assert np.array_equal(arrays("a.npz")["x"], solved(score_fn, chosen, 2))


def test_all_classes_of_a_shipped_network(run: Run) -> None:
    command = ("sample", "--model", "digits", "--label", "all", "--tune", "--steps", 2, "--count", 12)
    result = run(*command, "--batch-size", 5, "--out", "a.npz", "--save-tuned", "t.json")
    assert result.exit_code == 0, result.output
    model, labels = scoresde.load("digits"), torch.arange(16) % 10
    assert FittedGrid.load("t.json") == scoresde.tune(SDE, model.score(SDE, label=labels), 2)


def test_what_was_tuned_is_saved_and_used_again(run: Run, fake: Any, files: Files) -> None:
    command = ("sample", "--count", 3, "--denoise")
    result = run(*command, "--tune", "--steps", 4, "--save-tuned", "t.json", "--out", "a.npz", "--quiet")
    assert result.exit_code == 0 and not result.output
    tuned = FittedGrid.load("t.json")
    assert isinstance(tuned, Tuned) and tuned.evaluations == 4
    fake.calls = 0
    result = run(*command, "--method", "t.json", "--out", "b.npz")
    assert result.exit_code == 0 and fake.calls == 5  # and no pilot
    assert f"t.json, {tuned.steps} steps, 5 evaluations per sample" in result.output
    a, b = arrays("a.npz"), arrays("b.npz")
    assert np.array_equal(a["x"], b["x"]) and files() == ["a.npz", "b.npz", "t.json"]
    told = [json.loads(str(content["metadata"])) for content in (a, b)]
    assert all(FittedGrid.of(content["record"], "the output") == tuned for content in told)
    assert [content["method"] for content in told] == [tuned.method, "t.json"]


def test_it_takes_the_place_of_the_models_own_sampler(run: Run, fake: Any) -> None:
    fake.config.sampler, fake.chain, fake.sde = Sampler("ddim", steps=3), None, scoresde.EDMSDE()
    for arguments, steps, process in (((), 3, "EDMSDE("), (("--tune",), 25, "VPSDE(")):
        assert run("sample", "--count", 2, "--out", "a.npz", *arguments).exit_code == 0
        content = arrays("a.npz")
        assert steps - 2 < content["nfe"].max() <= steps
        assert json.loads(str(content["metadata"]))["sde"].startswith(process)  # as with any --method


def test_a_file_is_kept_unless_it_may_be_replaced(typed: Run, fake: Any) -> None:
    Path("t.json").write_text("old")
    command = ("sample", "--tune", "--steps", 4, "--count", 1, "--save-tuned", "t.json", "--out", "a.npz")
    result = typed(*command)
    assert result.exit_code == 4 and "another --save-tuned" in result.output and fake.calls == 0
    assert Path("t.json").read_text() == "old"
    assert typed(*command, "--force").exit_code == 0 and isinstance(FittedGrid.load("t.json"), Tuned)


def test_a_failure_writes_neither_samples_nor_what_was_tuned(run: Run, fake: Any, files: Files) -> None:
    fake.change = lambda s, x, t: s * torch.nan if len(x) == 3 else s
    result = run("sample", "--tune", "--steps", 4, "--count", 3, "--save-tuned", "t.json", "--out", "a.npz")
    assert result.exit_code == 3 and "Nothing was written" in result.output and files() == []


def test_a_pilot_that_fails_is_exit_3(run: Run, fake: Any, files: Files) -> None:
    fake.change = lambda s, x, t: s * torch.nan
    result = run("sample", "--tune", "--steps", 2, "--count", 3)
    assert result.exit_code == 3 and "take more steps" in result.output and files() == []


@pytest.mark.parametrize("kind", ["grid", "solver"])
def test_fitted_grids_and_learned_solvers_are_methods(run: Run, fake: Any, kind: str) -> None:
    options = {"shape": (8, *SHAPE[1:]), "pilot": 8, "iterations": 10}
    fit = scoresde.fit_grid if kind == "grid" else scoresde.fit_solver
    made = fit(SDE, fake.score(SDE), 3, **options)
    assert type(made) is (FittedGrid if kind == "grid" else FittedSolver)
    made.save("made.JSON")
    result = run("sample", "--method", "made.JSON", "--count", 2, "--out", "a.npz")
    assert result.exit_code == 0, result.output
    assert np.array_equal(arrays("a.npz")["x"], solved(fake.score(SDE), made, 2))


def test_a_method_that_draws_noise(run: Run, fake: Any) -> None:
    """A choice by distributions: each sample has the noise of its own seed."""
    candidates = [("ddim_eta", "karras")]
    made = scoresde.tune(SDE, fake.score(SDE), 3, shape=SHAPE, pilot=16, objective="law", candidates=candidates)
    made.save("made.json")
    for seed in (0, 1):
        command = ("sample", "--method", "made.json", "--count", 3, "--seed", seed, "--batch-size", 2, "--out")
        result = run(*command, f"{seed}.npz")
        assert result.exit_code == 0, result.output
        np.testing.assert_allclose(arrays(f"{seed}.npz")["x"], solved(fake.score(SDE), made, 3, seed), atol=1e-5)
    assert not np.allclose(arrays("0.npz")["x"], arrays("1.npz")["x"], atol=0.1)


def test_a_choice_that_begins_as_noise(run: Run, fake: Any) -> None:
    """The states at t_max are scaled to where it begins; the animation begins there, too."""
    ve = scoresde.VESDE(sigma_max=1000.0)
    flow = scoresde.FlowSDE()
    for process, name in ((ve, None), (flow, "flow")):
        made = scoresde.tune(process, fake.score(process), 4, shape=SHAPE)
        assert made.from_noise
        made.save(f"{name}.json")
    command = ("sample", "--method", "flow.json", "--sde", "flow", "--count", 2, "--out", "a.npz")
    result = run(*command, "--animate", "a.gif")
    assert result.exit_code == 0 and Path("a.gif").exists(), result.output
    noise = scoresde.SampleNoise(0, indices=range(2))
    wanted = scoresde.solve(flow, fake.score(flow), method=made, shape=(2, *SHAPE[1:]), noise=noise).x.numpy()
    assert np.array_equal(arrays("a.npz")["x"], wanted)
    result = run("sample", "--method", "None.json")  # a process that has no name here
    assert result.exit_code == 2 and "--sde" not in result.output and "VESDE(" in result.output


def test_values_of_a_file(run: Run, fake: Any) -> None:
    Path("run.toml").write_text('[sample]\ntune = true\nsteps = 3\nsave-tuned = "t.json"\nout = "a.npz"\ncount = 2\n')
    assert run("sample", "--config", "run.toml").exit_code == 0
    Path("again.toml").write_text('[sample]\nmethod = "t.json"\nout = "b.npz"\ncount = 2\n')
    assert run("sample", "--config", "again.toml").exit_code == 0
    assert np.array_equal(arrays("a.npz")["x"], arrays("b.npz")["x"])


def test_a_rule_for_a_measurement_runs_with_a_file(run: Run, fake: Any, record: Tuned) -> None:
    np.savez("y.npz", y=np.zeros((1, 1, 4, 4), dtype=np.float32))
    given = ("--measurement", "y.npz", "--operator", "block_average:factor=2", "--noise", 0.5, "--inverse", "dps")
    result = run("sample", *given, "--method", "tuned.json", "--count", 2, "--out", "a.npz")
    assert result.exit_code == 0, result.output
    assert arrays("a.npz")["nfe"].tolist() == [4, 4] and "dps by tuned.json" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tune", "--method", "ddim"], "`method`: --tune chooses the method and its grid; leave --method out"),
        (["--tune", "--method", "tuned.json"], "leave --method out"),
        (["--tune", "--grid", "karras"], "leave --grid out"),
        (["--tune", "--option", "order=2"], "leave --option out"),
        (["--tune", "--stochasticity", 0], "leave --stochasticity out"),
        (["--tune", "--rtol", 1e-3], "leave --rtol out"),
        (["--tune", "--atol", 1e-3], "leave --atol out"),
        (["--tune", "--max-steps", 5], "leave --max-steps out"),
        (["--tune", "--steps", 0], "`steps` must be at least 1"),
        (["--tune", "--measurement", "y.npz", "--operator", "block_average:factor=2"], "leave --tune out"),
        (["--tune", "--guidance", 2], "--label 7"),
        (["--tune", "--save-tuned", "t.txt"], "`save-tuned` must end in .json"),
        (["--save-tuned", "t.json"], "`save-tuned` needs --tune"),
        (["--method", "tuned.json", "--save-tuned", "t.json"], "`save-tuned` needs --tune"),
        (["--method", "none.json"], "there is no file 'none.json'"),
        (["--method", "tuned.json", "--steps", 4], "`steps`: it follows from --method tuned.json; leave --steps out"),
        (["--method", "tuned.json", "--grid", "karras"], "leave --grid out"),
        (["--method", "tuned.json", "--option", "order=2"], "leave --option out"),
        (["--method", "tuned.json", "--stochasticity", 0], "leave --stochasticity out"),
        (["--method", "tuned.json", "--rtol", 1e-3], "the steps are those of --method tuned.json; leave --rtol out"),
        (["--method", "tuned.json", "--sde", "edm"], "'tuned.json' was made for VPSDE("),
        (["--method", "tuned.json", "--sde", "edm"], "pass --sde vp, or make a file"),
        (["--method", "plain.json"], "'plain.json' has a grid and no method"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Run, fake: Any, record: Tuned, files: Files, arguments: list[Any], said: str
) -> None:
    np.savez("y.npz", y=np.zeros((1, 1, 4, 4), dtype=np.float32))
    FittedGrid(record.times, log_snr=record.log_snr).save("plain.json")
    before = files()
    result = run("sample", *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert files() == before and fake.calls == 0


@pytest.mark.parametrize("name", ["encode", "likelihood"])
def test_what_goes_from_data_to_noise_needs_a_name(run: Run, fake: Any, record: Tuned, files: Files, name: str) -> None:
    result = run(name, "--data", "digits", "--method", "tuned.json")
    assert result.exit_code == 2 and "goes from noise to data; give a name" in result.output, result.output
    assert files() == ["tuned.json"] and fake.calls == 0


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 1}', '{"format": 2}', "\x00"])
def test_a_file_of_something_else_is_exit_5(run: Run, fake: Any, content: str) -> None:
    Path("a.json").write_text(content)
    result = run("sample", "--method", "a.json")
    assert result.exit_code == 5 and "a.json is not a fitted grid" in result.output and fake.calls == 0
