"""`scoresde likelihood`: its rows are those of `log_likelihood`, and it says what went wrong."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import Result

import scoresde
from scoresde.cli._likelihood import COLUMNS
from scoresde.cli._options import sample_seeds

Run = Callable[..., Result]
Files = Callable[[], list[str]]
LOOSE = ("--rtol", 1e-3, "--atol", 1e-3)


def rows(path: str = "likelihood.csv") -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(name: str, path: str = "likelihood.csv") -> list[float]:
    return [float(row[name]) for row in rows(path)]


def grey(fake: Any, count: int = 5, levels: int = 17) -> np.ndarray:
    """Grey levels near the fake model's pictures; far from them its flow is stiff."""
    v = ((near(fake, count) + 1) / 2 * levels).astype(int)
    return v.clip(0, levels - 1)


def near(fake: Any, count: int = 5) -> np.ndarray:
    """Data of the fake model."""
    generator = torch.Generator().manual_seed(0)
    picked = fake.means()[torch.arange(count) % 2]
    return (picked + 0.05 * torch.randn(picked.shape, generator=generator)).numpy()


# What is written


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (("--probes", 3), {"probes": 3}),
        (("--divergence", "hutch++", "--probes", 3, "--sde", "ve"), {"probes": 3, "divergence": "hutch++"}),
        (("--probe", "gaussian", "--method", "rk45", "--option", "form=angle", "--label", 1), {"probe": "gaussian"}),
    ],
)
@pytest.mark.filterwarnings("ignore::scoresde.errors.ScoreSDEWarning")  # half of the data is not what a label knows
def test_rows_are_those_of_log_likelihood(run: Run, fake: Any, options: Any, arguments: dict[str, Any]) -> None:
    v = grey(fake)
    np.savez("data.npz", x=v)
    result = run("likelihood", "data.npz", "--levels", 17, "--seed", 3, *LOOSE, *options)
    assert result.exit_code == 0, result.output
    sde = scoresde.VESDE() if "ve" in options else scoresde.VPSDE()
    score_fn = fake.score(sde, half=1) if "--label" in options else fake.score(sde)
    seeds = sample_seeds(3, 0, 5)
    cells = [
        scoresde.dequantize(torch.from_numpy(v[i]), levels=17, generator=torch.Generator().manual_seed(seeds[i]))
        for i in range(5)
    ]
    if "rk45" in options:
        arguments = {**arguments, "method": "rk45", "form": "angle"}
    x = torch.stack(cells)
    got = scoresde.log_likelihood(sde, score_fn, x, seeds=seeds, rtol=1e-3, atol=1e-3, **arguments)
    bits = scoresde.bits_per_dim(got.log_prob, (1, 8, 8), levels=17)
    assert list(rows()[0]) == list(COLUMNS)
    assert column("log_prob") == got.log_prob.tolist()
    assert column("bits_per_dim") == bits.tolist()
    assert column("prior_log_prob") == got.prior_log_prob.tolist()
    assert column("nfe") == got.nfe.tolist()
    if arguments.get("probes", 1) > 1 and "hutch++" not in options:
        assert column("std_error") == got.std_error.tolist()
    else:  # one estimate has no spread
        assert [row["std_error"] for row in rows()] == [""] * 5
    assert [(row["index"], row["name"], row["status"]) for row in rows()] == [
        (str(i), str(i), "success") for i in range(5)
    ]


def test_the_exact_trace_of_a_gaussian_is_its_density(run: Run, fake: Any, files: Files) -> None:
    """Against the mixture's own log-density at t_min."""
    fake.event_shape = (1, 2, 2)
    x = near(fake, 3)
    np.savez("data.npz", x=x)
    assert run("likelihood", "data.npz", "--divergence", "exact").exit_code == 0
    target = scoresde.targets.GaussianMixture(torch.ones(2), fake.means(), scales=0.05)
    sde = scoresde.VPSDE()
    exact = target.log_prob(torch.from_numpy(x), sde, sde.t_min)
    assert np.allclose(column("log_prob"), exact, atol=0.02)  # the prior is not quite the distribution at t_max
    assert column("std_error") == [0.0] * 3
    assert [row["bits_per_dim"] for row in rows()] == [""] * 3
    assert files() == ["data.npz", "likelihood.csv", "likelihood.csv.json"]


def test_floating_data_are_taken_as_they_are(run: Run, fake: Any) -> None:
    x = near(fake, 2)
    save_file({"a": x.astype(np.float64), "b": np.zeros(1)}, "data.safetensors")
    np.save("data.npy", x)
    assert run("likelihood", "data.safetensors", "--key", "a", *LOOSE).exit_code == 0
    assert run("likelihood", "data.npy", "--levels", 256, "--out", "b.csv", *LOOSE).exit_code == 0
    seeds = sample_seeds(0, 0, 2)
    sde = scoresde.VPSDE()
    got = scoresde.log_likelihood(sde, fake.score(sde), torch.from_numpy(x), seeds=seeds, rtol=1e-3, atol=1e-3)
    assert column("log_prob") == column("log_prob", "b.csv") == got.log_prob.tolist()
    assert rows()[0]["bits_per_dim"] == "" and column("bits_per_dim", "b.csv") == [
        pytest.approx(-p / 64 / math.log(2) + 7) for p in got.log_prob.tolist()
    ]


def test_the_data_range_scales_grey_levels(run: Run, fake: Any) -> None:
    v = np.where(fake.means()[:1].numpy() > 0, 28, 11)
    np.savez("data.npz", x=v)
    assert run("likelihood", "data.npz", "--levels", 30, "--data-range", -2, 1, *LOOSE).exit_code == 0
    u = torch.rand((1, 8, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(sample_seeds(0, 0, 1)[0]))
    x = (-2 + 3 / 30 * (torch.from_numpy(v) + u)).float()
    sde = scoresde.VPSDE()
    got = scoresde.log_likelihood(sde, fake.score(sde), x, seeds=sample_seeds(0, 0, 1), rtol=1e-3, atol=1e-3)
    assert column("log_prob") == got.log_prob.tolist()
    assert column("bits_per_dim") == scoresde.bits_per_dim(got.log_prob, (64,), levels=30, data_range=(-2, 1)).tolist()


@pytest.mark.parametrize("colour", [False, True])
def test_images(run: Run, fake: Any, colour: bool) -> None:
    fake.event_shape = (3, 4, 6) if colour else (1, 4, 6)
    drawn = grey(fake, 3, levels=256).astype(np.uint8).transpose(0, 2, 3, 1)
    pictures = dict(zip(("b.png", "a.bmp", "c, d.PNG"), drawn if colour else drawn[..., 0], strict=True))
    Path("folder").mkdir()
    Path("folder/notes.txt").write_text("no image")
    for name, array in pictures.items():
        Image.fromarray(array).save(f"folder/{name}")
    assert run("likelihood", "folder", *LOOSE).exit_code == 0
    assert [row["name"] for row in rows()] == ["a.bmp", "b.png", "c, d.PNG"]
    ordered = np.stack([pictures[row["name"]].reshape(4, 6, -1).transpose(2, 0, 1) for row in rows()])
    np.savez("same.npz", images=ordered)
    assert run("likelihood", "same.npz", "--levels", 256, "--out", "same.csv", *LOOSE).exit_code == 0
    for name in ("log_prob", "bits_per_dim"):
        assert column(name) == column(name, "same.csv")
    assert run("likelihood", "folder/a.bmp", "--out", "one.csv", *LOOSE).exit_code == 0
    assert rows("one.csv")[0]["name"] == "a.bmp"
    assert np.allclose(column("log_prob", "one.csv")[0], column("log_prob")[0], rtol=1e-6)


def test_a_row_depends_on_seed_and_index_alone(run: Run) -> None:
    """The shipped network and four of its held-out digits; batches change the rounding only."""
    pytest.importorskip("sklearn")
    from scoresde.training import digits_split

    np.savez("data.npz", x=digits_split().test_images[:4].numpy())
    for size in (4, 3, 1):
        command = ("likelihood", "data.npz", "--levels", 17, "--batch-size", size, "--out", f"{size}.csv", *LOOSE)
        assert run(*command).exit_code == 0
    for size in (3, 1):
        assert np.allclose(column("log_prob", f"{size}.csv"), column("log_prob", "4.csv"), atol=0.05)
    assert run("likelihood", "data.npz", "--levels", 17, "--seed", 1, "--out", "other.csv", *LOOSE).exit_code == 0
    assert np.abs(np.subtract(column("log_prob", "other.csv"), column("log_prob", "4.csv"))).min() > 0.1


def test_the_table_as_parquet(run: Run, fake: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    np.savez("data.npz", x=near(fake, 3))
    fake.change = lambda s, x, t: s.index_fill(0, torch.tensor([1]), torch.nan)
    for name in ("a.csv", "a.parquet"):
        assert run("likelihood", "data.npz", "--probes", 2, "--out", name, *LOOSE).exit_code == 3
    table = parquet.read_table("a.parquet")
    content = table.to_pylist()
    assert table.column_names == list(COLUMNS)
    for got, expected in zip(content, rows("a.csv"), strict=True):
        for name, kind in COLUMNS.items():
            assert got[name] == (kind(expected[name]) if expected[name] else None)
    assert json.loads(table.schema.metadata[b"scoresde"])["probes"] == 2
    fake.calls = 0
    again = run("likelihood", "data.npz", "--probes", 2, "--out", "a.parquet", *LOOSE)
    assert again.exit_code == 3 and "3 of them were there" in again.output and fake.calls == 0


@pytest.mark.parametrize("missing", ["pyarrow", "matplotlib"])
def test_a_missing_package_is_named(
    run: Run, fake: Any, files: Files, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    np.savez("data.npz", x=grey(fake, 2))
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setitem(sys.modules, f"{missing}.parquet", None)
    option = ("--out", "a.parquet") if missing == "pyarrow" else ("--plot", "a.png")
    result = run("likelihood", "data.npz", "--levels", 17, *option)
    assert result.exit_code == 2 and f"needs {missing}: pip install 'scoresde[" in result.output
    assert files() == ["data.npz"] and fake.calls == 0


# The summary


def test_the_summary(run: Run, fake: Any) -> None:
    np.savez("data.npz", x=grey(fake, 4))
    result = run("likelihood", "data.npz", "--levels", 17, "--probes", 4, *LOOSE)
    head, nats, bits, counts, files = result.output.splitlines()
    nfe = column("nfe")
    used = f"{min(nfe):.0f}" + (f" to {max(nfe):.0f}" if min(nfe) < max(nfe) else "")
    assert head == f"4 samples under digits: vp, adams, hutchinson (4 probes), {used} evaluations per sample"
    values, errors = np.array(column("log_prob")), np.array(column("std_error"))
    pattern = r"mean (\S+) .*; standard error (\S+) over the samples, (\S+) of the trace estimate"
    unit = 64 * math.log(2)
    for line, name, scale in ((nats, "log-likelihood", 1.0), (bits, "bits", unit)):
        found = re.match(f"{name}: {pattern}", line)
        assert found is not None, line
        mean, over, trace = map(float, found.groups())
        told = np.array(column("log_prob" if scale == 1.0 else "bits_per_dim"))
        assert mean == pytest.approx(told.mean(), rel=1e-4)
        assert over == pytest.approx(values.std(ddof=1) / 2 / scale, rel=0.05)
        assert trace == pytest.approx(np.sqrt((errors**2).sum()) / 4 / scale, rel=0.05)
    assert counts == f"failures: 0; evaluations: {sum(nfe):.0f}"
    assert files.startswith("likelihood.csv: 4 rows; ")


def test_what_is_not_known_is_said(run: Run, fake: Any) -> None:
    np.savez("data.npz", x=near(fake, 1))
    result = run("likelihood", "data.npz", *LOOSE)
    assert "standard error unknown over the samples, unknown of the trace estimate" in result.output
    assert "(1 probe)" in result.output and "bits" not in result.output
    assert run("likelihood", "data.npz", *LOOSE, "--quiet").output == ""


def test_the_histogram(run: Run, fake: Any, files: Files) -> None:
    pytest.importorskip("matplotlib")
    np.savez("data.npz", x=grey(fake, 4))
    assert run("likelihood", "data.npz", "--levels", 17, "--plot", "a.png", *LOOSE).exit_code == 0
    with Image.open("a.png") as picture:
        assert picture.format == "PNG"
    assert files() == ["a.png", "data.npz", "likelihood.csv", "likelihood.csv.json"]
    bars = ("--probes", 2, "--plot", "c.png", "--out", "c.csv")  # which has standard errors
    assert run("likelihood", "data.npz", "--levels", 17, *bars, *LOOSE).exit_code == 0 and Path("c.png").is_file()
    np.savez("float.npz", x=near(fake, 2))
    for option in (("float.npz", "--plot", "b.png"), ("data.npz", "--levels", 17, "--plot", "b.pdf")):
        fake.calls = 0
        result = run("likelihood", *option, "--out", "b.csv")
        assert result.exit_code == 2 and "`plot`" in result.output and fake.calls == 0
    assert not Path("b.csv").exists()


# Failures


def test_failed_samples_are_rows_without_values(run: Run, fake: Any, files: Files) -> None:
    np.savez("data.npz", x=grey(fake, 5))
    command = ("likelihood", "data.npz", "--levels", 17, "--batch-size", 3, *LOOSE)
    assert run(*command, "--out", "good.csv").exit_code == 0
    fake.change = lambda s, x, t: s.index_fill(0, torch.tensor([1]), torch.nan)
    result = run(*command)
    assert result.exit_code == 3, result.output
    assert "2 of 5 samples failed: 1 (non_finite), 4 (non_finite)" in result.output
    assert "failures: 2; " in result.output
    for i, (row, good) in enumerate(zip(rows(), rows("good.csv"), strict=True)):
        if i in (1, 4):
            assert row["status"] == "non_finite"
            assert {row[name] for name in ("log_prob", "std_error", "bits_per_dim", "prior_log_prob")} == {""}
        else:
            assert row == good
    assert "mean" in result.output
    again = run(*command)
    assert again.exit_code == 3 and "5 of them were there" in again.output


def test_all_samples_fail(run: Run, fake: Any) -> None:
    np.savez("data.npz", x=grey(fake, 7))
    result = run("likelihood", "data.npz", "--levels", 17, "--max-steps", 2, "--plot", "a.png")
    assert result.exit_code == 3 and "7 of 7 samples failed" in result.output and ", ..." in result.output
    assert {row["status"] for row in rows()} == {"max_steps"}
    assert "mean" not in result.output and not Path("a.png").exists()


def test_a_score_that_blocks_gradients(run: Run, fake: Any, files: Files) -> None:
    np.savez("data.npz", x=grey(fake, 2))
    fake.change = lambda s, x, t: s.detach()
    result = run("likelihood", "data.npz", "--levels", 17)
    assert result.exit_code == 3 and "blocks gradients" in result.output
    assert files() == ["data.npz"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method", "ddim"), "`method`"),
        (("--method", "euler_maruyama"), "`method`"),
        (("--divergence", "exakt"), "did you mean 'exact'"),
        (("--probe", "rademaker"), "did you mean 'rademacher'"),
        (("--divergence", "hutch++", "--probes", 4), "multiple of 3"),
        (("--probes", 0), "probes"),
        (("--rtol", -1), "`rtol`"),
        (("--sde", "vpp"), "did you mean 'vp'"),
        (("--option", "snr"), "key=value"),
        (("--option", "snr=1"), "snr"),
        (("--batch-size", 0), "batch-size"),
        (("--seed", -1), "seed"),
        (("--data-range", 1, -1), "`data_range`"),
        (("--levels", 1), "levels"),
        (("--out", "a.txt"), "`out` must end in .csv or .parquet"),
        (("--key", "y"), "no array 'y', it has x"),
    ],
)
def test_options_that_do_not_fit(run: Run, fake: Any, files: Files, arguments: Any, said: str) -> None:
    np.savez("data.npz", x=grey(fake, 2))
    given = () if "--levels" in arguments else ("--levels", 17)
    result = run("likelihood", "data.npz", *given, *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert files() == ["data.npz"] and fake.calls == 0


def test_labels_and_models(run: Run, fake: Any, files: Files) -> None:
    np.savez("data.npz", x=grey(fake, 2))
    fake.labels = None
    result = run("likelihood", "data.npz", "--levels", 17, "--label", 1)
    assert result.exit_code == 2 and "no labels" in result.output
    assert files() == ["data.npz"]


def test_each_sample_is_of_its_own_class(run: Run, fake: Any, files: Files) -> None:
    x, halves = near(fake, 4), np.array([0, 1, 0, 1])
    np.savez("both.npz", x=x, halves=halves)
    given = ("likelihood", "--divergence", "exact", "--force", "--batch-size", 3, "--data")
    assert run(*given, "both.npz", "--labels", "halves").exit_code == 0
    found = np.array(column("log_prob"))
    for half in (0, 1):
        np.savez("one.npz", x=x[halves == half])
        assert run(*given, "one.npz", "--label", half).exit_code == 0
        assert found[halves == half].tolist() == pytest.approx(column("log_prob"), rel=1e-4)


@pytest.mark.parametrize(
    ("more", "labels", "said"),
    [
        ({}, "halves", "no array 'halves', it has x"),
        ({}, "x", "has the samples; name that of their classes"),
        ({"halves": np.array(["a", "b"])}, "halves", "must be integers"),
        ({"halves": np.array([0, 2])}, "halves", "classes of the model, 0 to 1, got 2 for sample 1"),
        ({"halves": np.array([-1, 5])}, "halves", "got -1 for sample 0, 5 for sample 1"),
        ({"halves": np.zeros(3, dtype=int)}, "halves", "must be (2,), one class per sample, got (3,)"),
        ({"halves": np.zeros(2)}, "halves", "must be integers, but the array"),
    ],
)
def test_labels_that_do_not_fit(run: Run, fake: Any, more: Any, labels: str, said: str) -> None:
    np.savez("data.npz", x=grey(fake, 2), **more)
    result = run("likelihood", "data.npz", "--levels", 17, "--labels", labels)
    assert result.exit_code == 2 and said in " ".join(result.output.split()), result.output
    assert fake.calls == 0


def test_folders_must_be_all_classes_of_the_model(run: Run, fake: Any) -> None:
    for name in ("3", "5", "7"):
        Path("all", name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(f"all/{name}/1.png")
    result = run("likelihood", "all", "--labels", "folders")
    assert result.exit_code == 2 and "in 3 folders, but the model has 2 classes" in " ".join(result.output.split())
    assert fake.calls == 0


def test_a_class_beside_labels_and_labels_of_a_model_without(run: Run, fake: Any) -> None:
    np.savez("data.npz", x=grey(fake, 2), halves=np.array([0, 1]))
    result = run("likelihood", "data.npz", "--levels", 17, "--labels", "halves", "--label", 1)
    assert result.exit_code == 2 and "leave --label out" in result.output
    fake.labels = None
    result = run("likelihood", "data.npz", "--levels", 17, "--labels", "halves")
    assert result.exit_code == 2 and "no labels" in result.output


def test_an_unknown_model(run: Run) -> None:
    np.savez("data.npz", x=np.zeros((2, 1, 8, 8), dtype=int))
    assert run("likelihood", "data.npz", "--levels", 17, "--model", "digit").exit_code == 5


@pytest.mark.parametrize("out", ["missing/a.csv", "data.npz/a.csv", "folder.csv"])
def test_targets_that_cannot_be_written(run: Run, fake: Any, files: Files, out: str) -> None:
    np.savez("data.npz", x=grey(fake, 2))
    Path("folder.csv").mkdir()
    result = run("likelihood", "data.npz", "--levels", 17, "--out", out)
    assert result.exit_code == 4 and fake.calls == 0
    assert files() == ["data.npz", "folder.csv"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_batches_are_halved_if_memory_is_short(run: Run, fake: Any, error: RuntimeError) -> None:
    np.savez("data.npz", x=grey(fake, 5))
    command = ("likelihood", "data.npz", "--levels", 17, *LOOSE)
    assert run(*command, "--out", "a.csv").exit_code == 0

    def change(s: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise error
        return s

    fake.change = change
    result = run(*command, "--out", "b.csv")
    assert result.exit_code == 0 and "batches of 2." in result.output
    assert np.allclose(column("log_prob", "a.csv"), column("log_prob", "b.csv"), rtol=1e-4)
