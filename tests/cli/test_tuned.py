"""`scoresde sample --tune`, and files of what was tuned, fitted or learned in the place of a method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scoresde
from scoresde.guidance import classifier_free
from scoresde.tuning import FittedGrid, FittedSolver, Tuned
from scoresde.tuning.tuning import most_calls
from scoresde.zoo.sampler import Sampler
from tests.cli.common import Files, Run, arrays, expect, metadata

SDE = scoresde.VPSDE()
SHAPE = (16, 1, 8, 8)


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
    calls = fake.calls
    chosen = scoresde.tune(SDE, fake.score(SDE), 4, shape=SHAPE, seed=5)
    assert calls == chosen.cost.calls + 4
    assert np.array_equal(arrays("a.npz")["x"], solved(fake.score(SDE), chosen, 3, seed=5))
    best = chosen.ranking[0]
    said = (
        f"tuned for 4 evaluations: {best.method} on {best.grid}, pilot median error {chosen.fitted.median:.2g}",
        f"(auto {chosen.default.median:.2g})",
        f"{chosen.cost.calls} network calls with 16 samples",
        f"by about {most_calls(4)} network calls with 16 samples ...",
    )
    expect(result, 0, *said)
    assert files() == ["a.npz"]


def test_the_default_number_of_evaluations_is_that_of_auto(run: Run, fake: Any) -> None:
    """Which also takes the place of the model's own sampler, as any --method does."""
    expect(run("sample", "--count", 2, "--out", "b.npz"), 0)
    assert arrays("b.npz")["nfe"].max() <= 25
    fake.config.sampler, fake.chain, fake.sde = Sampler("ddim", steps=3), None, scoresde.EDMSDE()
    for arguments, steps, process in (((), 3, "EDMSDE("), (("--tune",), 25, "VPSDE(")):
        expect(run("sample", "--count", 2, "--out", "a.npz", *arguments), 0)
        assert steps - 2 < arrays("a.npz")["nfe"].max() <= steps
        assert metadata("a.npz")["sde"].startswith(process)
    assert metadata("a.npz")["record"]["evaluations"] == 25


@pytest.mark.parametrize("guidance", [None, 3.0])
def test_the_choice_is_for_the_label_and_the_guidance(run: Run, fake: Any, guidance: float | None) -> None:
    scale = () if guidance is None else ("--guidance", guidance)
    command = ("--tune", "--steps", 3, "--label", 1, *scale, "--count", 2, "--out", "a.npz", "--save-tuned", "t.json")
    expect(run("sample", *command), 0)
    conditional, without = fake.score(SDE, half=1), fake.score(SDE)
    score_fn = conditional if guidance is None else classifier_free(conditional, without, guidance)
    chosen = FittedGrid.load("t.json")
    assert chosen == scoresde.tune(SDE, score_fn, 3, shape=SHAPE)
    assert isinstance(chosen, Tuned) and chosen.fitted != scoresde.tune(SDE, without, 3, shape=SHAPE).fitted
    assert np.array_equal(arrays("a.npz")["x"], solved(score_fn, chosen, 2))


def test_what_was_tuned_is_saved_and_used_again(typed: Run, fake: Any, files: Files) -> None:
    Path("t.json").write_text("old")
    command = ("sample", "--count", 3, "--denoise")
    tune = (*command, "--tune", "--steps", 4, "--save-tuned", "t.json", "--out", "a.npz", "--quiet")
    expect(typed(*tune), 4, "another --save-tuned")
    assert Path("t.json").read_text() == "old" and fake.calls == 0
    assert expect(typed(*tune, "--force"), 0) == ""
    tuned = FittedGrid.load("t.json")
    assert isinstance(tuned, Tuned) and tuned.evaluations == 4
    fake.calls = 0
    said = f"t.json, {tuned.steps} steps, 5 evaluations per sample"
    expect(typed(*command, "--method", "t.json", "--out", "b.npz"), 0, said)
    assert fake.calls == 5  # and no pilot
    assert np.array_equal(arrays("a.npz")["x"], arrays("b.npz")["x"]) and files() == ["a.npz", "b.npz", "t.json"]
    told = [metadata("a.npz"), metadata("b.npz")]
    assert all(FittedGrid.of(content["record"], "the output") == tuned for content in told)
    assert [content["method"] for content in told] == [tuned.method, "t.json"]
    Path("again.toml").write_text('[sample]\nmethod = "t.json"\nout = "c.npz"\ncount = 3\ndenoise = true\n')
    expect(typed("sample", "--config", "again.toml"), 0)
    assert np.array_equal(arrays("a.npz")["x"], arrays("c.npz")["x"])


def test_a_failure_writes_neither_samples_nor_what_was_tuned(run: Run, fake: Any, files: Files) -> None:
    command = ("sample", "--tune", "--steps", 2, "--count", 3, "--save-tuned", "t.json", "--out", "a.npz")
    for in_pilot, said in ((False, "Nothing was written"), (True, "accurate solve of the pilot")):
        fake.change = lambda s, x, t, in_pilot=in_pilot: s * torch.nan if in_pilot or len(x) == 3 else s
        expect(run(*command), 3, said)
    assert files() == []


@pytest.mark.parametrize("kind", ["grid", "solver"])
def test_fitted_grids_and_learned_solvers_are_methods(run: Run, fake: Any, kind: str) -> None:
    fit = scoresde.fit_grid if kind == "grid" else scoresde.fit_solver
    made = fit(SDE, fake.score(SDE), 3, shape=(8, *SHAPE[1:]), pilot=8, iterations=2)
    assert type(made) is (FittedGrid if kind == "grid" else FittedSolver)
    made.save("made.JSON")
    expect(run("sample", "--method", "made.JSON", "--count", 2, "--out", "a.npz"), 0)
    assert np.array_equal(arrays("a.npz")["x"], solved(fake.score(SDE), made, 2))


def test_a_method_that_draws_noise(run: Run, fake: Any) -> None:
    """A choice by distributions: each sample has the noise of its own seed."""
    candidates = [("ddim_eta", "karras")]
    made = scoresde.tune(SDE, fake.score(SDE), 3, shape=SHAPE, pilot=16, objective="law", candidates=candidates)
    made.save("made.json")
    for seed in (0, 1):
        command = ("sample", "--method", "made.json", "--count", 3, "--seed", seed, "--batch-size", 2, "--out")
        expect(run(*command, f"{seed}.npz"), 0)
        np.testing.assert_allclose(arrays(f"{seed}.npz")["x"], solved(fake.score(SDE), made, 3, seed), atol=1e-5)
    assert not np.allclose(arrays("0.npz")["x"], arrays("1.npz")["x"], atol=0.1)


def test_a_choice_that_begins_as_noise(run: Run, fake: Any) -> None:
    """The states at t_max are scaled to where it begins; the animation begins there, too."""
    flow = scoresde.FlowSDE()
    made = scoresde.tune(flow, fake.score(flow), 2, shape=SHAPE)
    assert made.from_noise
    made.save("flow.json")
    command = ("sample", "--method", "flow.json", "--sde", "flow", "--count", 2, "--out", "a.npz")
    expect(run(*command, "--animate", "a.gif"), 0)
    assert Path("a.gif").exists()
    noise = scoresde.SampleNoise(0, indices=range(2))
    wanted = scoresde.solve(flow, fake.score(flow), method=made, shape=(2, *SHAPE[1:]), noise=noise).x.numpy()
    assert np.array_equal(arrays("a.npz")["x"], wanted)


def test_a_rule_for_a_measurement_runs_with_a_file(run: Run, fake: Any, record: Tuned) -> None:
    np.savez("y.npz", y=np.zeros((1, 1, 4, 4), dtype=np.float32))
    given = ("--measurement", "y.npz", "--operator", "block_average:factor=2", "--noise", 0.5, "--inverse", "dps")
    expect(run("sample", *given, "--method", "tuned.json", "--count", 2, "--out", "a.npz"), 0, "dps by tuned.json")
    assert arrays("a.npz")["nfe"].tolist() == [4, 4]


def test_what_makes_no_sense_is_refused(run: Run, fake: Any, record: Tuned, files: Files) -> None:
    np.savez("y.npz", y=np.zeros((1, 1, 4, 4), dtype=np.float32))
    FittedGrid(record.times, log_snr=record.log_snr).save("plain.json")
    before = files()
    no_steps = ((f"--{name}", 1) for name in ("stochasticity", "rtol", "atol", "max-steps"))
    for arguments, said in (
        (("--tune", "--method", "ddim"), "`method`: --tune chooses the method and its grid; leave --method out"),
        (("--tune", "--option", "order=2"), "leave --option out"),
        *((("--tune", *option), f"leave {option[0]} out") for option in no_steps),
        (("--tune", "--measurement", "y.npz", "--operator", "block_average:factor=2"), "leave --tune out"),
        (("--tune", "--guidance", 2), "--label 7"),
        (("--save-tuned", "t.json"), "`save-tuned` needs --tune"),
        (("--method", "tuned.json", "--steps", 4), "`steps`: it follows from --method tuned.json; leave --steps out"),
        (("--method", "tuned.json", "--rtol", 1e-3), "the steps are those of --method tuned.json; leave --rtol out"),
        (("--method", "tuned.json", "--sde", "edm"), "pass --sde vp, or make a file"),
        (("--method", "plain.json"), "'plain.json' has a grid and no method"),
    ):
        expect(run("sample", *arguments), 2, said)
    for command in ("encode", "likelihood"):
        text = "goes from noise to data; give a name"
        expect(run(command, "--data", "digits", "--method", "tuned.json"), 2, text)
    assert files() == before and fake.calls == 0
