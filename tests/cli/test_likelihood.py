"""`scoresde likelihood`: its rows are those of `log_likelihood`, and it says what went wrong."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

import scoresde
from tests.cli.common import Files, Run, column, expect, grey, loses, near, rows

LOOSE = ("--rtol", 1e-2, "--atol", 1e-2)
GREY = ("likelihood", "data.npz", "--levels", 17, *LOOSE)
COLUMNS = {
    **{"index": int, "name": str, "log_prob": float, "std_error": float, "bits_per_dim": float},
    **{"prior_log_prob": float, "nfe": int, "status": str},
}
VP = scoresde.VPSDE()


@pytest.fixture
def asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `log_likelihood` was asked for, each time."""
    log_likelihood = scoresde.likelihood.log_likelihood
    calls: list[dict[str, Any]] = []

    def seen(sde: Any, score_fn: Any, x: torch.Tensor, **kwargs: Any) -> Any:
        calls.append({"x": x, **kwargs})
        return log_likelihood(sde, score_fn, x, **kwargs)

    monkeypatch.setattr(scoresde.likelihood, "log_likelihood", seen)
    return calls


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (("--probes", 3), {"probes": 3}),
        (("--divergence", "hutch++", "--probes", 3, "--sde", "ve"), {"probes": 3, "divergence": "hutch++"}),
        (
            ("--probe", "gaussian", "--method", "rk45", "--option", "form=angle", "--label", 1),
            {"probe": "gaussian", "method": "rk45", "form": "angle"},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::scoresde.ScoreSDEWarning")  # half of the data is not what a label knows
def test_rows_are_those_of_log_likelihood(
    run: Run, fake: Any, asked: list[Any], options: Any, arguments: dict[str, Any]
) -> None:
    v = grey(fake, 3)
    np.savez("data.npz", x=v)
    expect(run(*GREY, "--seed", 3, *options), 0)
    x, seeds = asked[0]["x"], asked[0]["seeds"]
    assert np.array_equal(((x + 1) * 8.5).floor(), v) and len({*seeds, *x.flatten().frac().tolist()}) > 100
    sde = scoresde.VESDE() if "ve" in options else VP
    score_fn = fake.score(sde, half=1) if "--label" in options else fake.score(sde)
    got = scoresde.log_likelihood(sde, score_fn, x, seeds=seeds, rtol=1e-2, atol=1e-2, **arguments)
    bits = scoresde.bits_per_dim(got.log_prob, (1, 8, 8), levels=17)
    assert list(rows()[0]) == list(COLUMNS)
    assert column("log_prob") == got.log_prob.tolist() and column("bits_per_dim") == bits.tolist()
    assert column("prior_log_prob") == got.prior_log_prob.tolist() and column("nfe") == got.nfe.tolist()
    one = arguments.get("probes", 1) == 1 or "hutch++" in options  # one estimate has no spread
    assert column("std_error") == ([None] * 3 if one else got.std_error.tolist())
    assert column("index") == [0, 1, 2] and column("name") == ["0", "1", "2"] and {*column("status")} == {"success"}


def test_seeds_differ_where_it_matters(run: Run, fake: Any, solved: list[Any]) -> None:
    def seeds(count: int, *options: object) -> list[int]:
        np.save("zeros.npy", np.zeros((count, 1), dtype=np.float32))
        expect(run("likelihood", "zeros.npy", "--force", *options), 0)
        found = [seed for call in solved for seed in call.seeds]
        solved.clear()
        return found

    fake.event_shape = (1,)
    few = seeds(1000, "--batch-size", 1000)
    assert seeds(1000, "--batch-size", 300) == few
    other = {seed & 0xFFFFFFFF for seed in seeds(1000, "--batch-size", 1000, "--seed", 1)}
    assert len(other & {seed & 0xFFFFFFFF for seed in few}) <= 2  # 1000^2 / 2^32 expected: P(3 or more) < 3e-12
    bits = np.array([[seed >> b & 1 for b in range(32)] for seed in few])
    z = (bits.mean(0) - 0.5) * 2 * np.sqrt(len(bits))
    assert np.abs(z).max() < 5  # 32 bits: P < 2e-5; a bit with a mean beyond 0.5 +- 0.1 is seen
    assert np.abs((bits[1:] != bits[:-1]).mean(0) - 0.5).max() < 0.08  # 5 standard deviations, too
    many = seeds(100_000, "--batch-size", 100_000)
    assert many[:1000] == few and all(0 <= seed < 2**64 for seed in many)
    assert len({seed & 0xFFFFFFFF for seed in many}) == 100_000  # torch's CPU generator uses the low 32 bits


def test_the_exact_trace_is_the_density_of_the_mixture(run: Run, fake: Any, files: Files) -> None:
    """At t_min."""
    fake.event_shape = (1, 2, 2)
    x = near(fake, 3)
    np.savez("data.npz", x=x)
    expect(run("likelihood", "data.npz", "--divergence", "exact"), 0)
    target = scoresde.targets.GaussianMixture(torch.ones(2), fake.means(), scales=0.05)
    exact = target.log_prob(torch.from_numpy(x), VP, VP.t_min)
    assert np.allclose(column("log_prob"), exact, atol=0.02)  # the prior is not quite the distribution at t_max
    assert column("std_error") == [0.0] * 3 and column("bits_per_dim") == [None] * 3
    assert files() == ["data.npz", "likelihood.csv", "likelihood.csv.json"]


def test_floating_data_are_taken_as_they_are(run: Run, fake: Any, solved: list[Any]) -> None:
    x = near(fake, 2)
    save_file({"a": x.astype(np.float64), "b": np.zeros(1)}, "data.safetensors")
    np.save("data.npy", x)
    expect(run("likelihood", "data.safetensors", "--key", "a"), 0)
    expect(run("likelihood", "data.npy", "--levels", 256, "--out", "b.csv"), 0)
    assert all(np.array_equal(call.x, x) for call in solved)
    assert column("bits_per_dim") == [None, None]
    # minus the log-density in nats, per dimension and in bits, of cells of width 2 / 256
    assert column("bits_per_dim", "b.csv") == [pytest.approx(-p / 64 / math.log(2) + 7) for p in column("log_prob")]


def test_the_data_range_scales_grey_levels(run: Run, fake: Any, solved: list[Any]) -> None:
    v = np.where(fake.means()[:1].numpy() > 0, 28, 11)
    np.savez("data.npz", x=v)
    expect(run("likelihood", "data.npz", "--levels", 30, "--data-range", -2, 1), 0)
    assert np.array_equal(((solved[0].x + 2) * 10).floor(), v)
    log_prob = torch.tensor(column("log_prob"), dtype=torch.float64)
    assert column("bits_per_dim") == scoresde.bits_per_dim(log_prob, (64,), levels=30, data_range=(-2, 1)).tolist()


def test_images(run: Run, fake: Any, solved: list[Any]) -> None:
    for channels in (1, 3):
        fake.event_shape = (channels, 4, 6)
        drawn = grey(fake, 3, levels=256).astype(np.uint8).transpose(0, 2, 3, 1)
        images = dict(zip(("b.png", "a.bmp", "c, d.PNG"), drawn if channels == 3 else drawn[..., 0], strict=True))
        Path("folder").mkdir(exist_ok=True)
        Path("folder/notes.txt").write_text("no image")
        for name, array in images.items():
            Image.fromarray(array).save(f"folder/{name}")
        expect(run("likelihood", "folder", "--force"), 0)
        assert column("name") == ["a.bmp", "b.png", "c, d.PNG"]
        ordered = np.stack([images[name].reshape(4, 6, -1).transpose(2, 0, 1) for name in column("name")])
        assert np.array_equal(((solved[-1].x + 1) * 128).floor(), ordered)
        expect(run("likelihood", "folder/a.bmp", "--out", "one.csv", "--force"), 0)
        assert column("name", "one.csv") == ["a.bmp"] and torch.equal(solved[-1].x[0], solved[-2].x[0])


def test_a_row_depends_on_seed_and_index_alone(run: Run, fake: Any) -> None:
    """Batches change the rounding only."""
    np.savez("data.npz", x=grey(fake, 4))
    for size in (4, 3, 1):
        expect(run(*GREY, "--batch-size", size, "--out", f"{size}.csv"), 0)
        assert np.allclose(column("log_prob", f"{size}.csv"), column("log_prob", "4.csv"), rtol=1e-4), size
    expect(run(*GREY, "--seed", 1, "--out", "other.csv"), 0)
    assert np.abs(np.subtract(column("log_prob", "other.csv"), column("log_prob", "4.csv"))).min() > 0.1


def test_the_table_as_parquet(run: Run, solved: list[Any]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    np.savez("data.npz", x=np.stack([np.full((1, 8, 8), value) for value in (0.1, 0.7, -0.2)]))
    for name in ("a.csv", "a.parquet"):
        expect(run("likelihood", "data.npz", "--probes", 2, "--out", name), 3)
    table = parquet.read_table("a.parquet")
    assert table.column_names == list(COLUMNS)
    for got, expected in zip(table.to_pylist(), rows("a.csv"), strict=True):
        for name, kind in COLUMNS.items():
            assert got[name] == (kind(expected[name]) if expected[name] else None), name
    assert json.loads(table.schema.metadata[b"scoresde"])["probes"] == 2
    solved.clear()
    expect(run("likelihood", "data.npz", "--probes", 2, "--out", "a.parquet"), 3, "3 of them were there")
    assert not solved


def test_the_summary(run: Run, solved: list[Any], fake: Any) -> None:
    np.savez("data.npz", x=grey(fake, 4))
    result = run(*GREY, "--probes", 4)
    _, nats, bits, counts, _ = result.output.splitlines()
    values, errors = np.array(column("log_prob")), np.array(column("std_error"))
    pattern = r"mean (\S+) .*; standard error (\S+) over the samples, (\S+) of the trace estimate"
    for line, name, scale in ((nats, "log-likelihood", 1.0), (bits, "bits", 64 * math.log(2))):
        found = re.match(f"{name}: {pattern}", line)
        assert found is not None, line
        mean, over, trace = map(float, found.groups())
        told = np.array(column("log_prob" if scale == 1.0 else "bits_per_dim"))
        assert mean == pytest.approx(told.mean(), rel=1e-4)
        assert over == pytest.approx(values.std(ddof=1) / 2 / scale, rel=0.05)  # two digits are shown
        assert trace == pytest.approx(np.sqrt((errors**2).sum()) / 4 / scale, rel=0.05)
    assert counts == "failures: 0; evaluations: 34"


def test_the_histogram(run: Run, fake: Any, solved: list[Any], files: Files) -> None:
    pytest.importorskip("matplotlib")
    np.savez("data.npz", x=grey(fake, 4))
    expect(run(*GREY, "--plot", "a.png"), 0)
    with Image.open("a.png") as picture:
        assert picture.format == "PNG"
    assert files() == ["a.png", "data.npz", "likelihood.csv", "likelihood.csv.json"]
    expect(run(*GREY, "--plot", "b.pdf", "--out", "b.csv"), 2, "`plot`")
    assert not Path("b.csv").exists()


def test_failed_samples_are_rows_without_values(run: Run, fake: Any) -> None:
    np.savez("data.npz", x=grey(fake, 5))
    command = (*GREY, "--batch-size", 3)
    expect(run(*command, "--out", "good.csv"), 0)
    fake.change = loses(1)
    said = ("2 of 5 samples failed: 1 (non_finite), 4 (non_finite)", "failures: 2; ", "mean")
    expect(run(*command), 3, *said)
    for i, (row, good) in enumerate(zip(rows(), rows("good.csv"), strict=True)):
        if i in (1, 4):
            assert row["status"] == "non_finite"
            assert {row[name] for name in ("log_prob", "std_error", "bits_per_dim", "prior_log_prob")} == {""}
        else:
            assert row == good
    expect(run(*command), 3, "5 of them were there")


def test_all_samples_fail(run: Run, fake: Any, files: Files) -> None:
    np.savez("data.npz", x=grey(fake, 7))
    command = ("likelihood", "data.npz", "--levels", 17)
    text = expect(run(*command, "--max-steps", 2, "--plot", "a.png"), 3, "7 of 7 samples failed", ", ...")
    assert {*column("status")} == {"max_steps"} and "mean" not in text and not Path("a.png").exists()
    fake.change = lambda s, x, t: s.detach()
    expect(run(*command, "--out", "b.csv"), 3, "blocks gradients")
    assert not Path("b.csv").exists()


def test_options_that_do_not_fit(run: Run, fake: Any, files: Files) -> None:
    np.savez("data.npz", x=grey(fake, 2))
    for arguments, said in (
        (("--method", "ddim"), "`method`"),
        (("--divergence", "hutch++", "--probes", 4), "multiple of 3"),
        (("--option", "snr=1"), "snr"),
        (("--data-range", 1, -1), "`data_range`"),
        (("--out", "a.txt"), "`out` must end in .csv or .parquet"),
    ):
        expect(run("likelihood", "data.npz", "--levels", 17, *arguments), 2, said)
    Path("folder.csv").mkdir()
    for out in ("missing/a.csv", "data.npz/a.csv", "folder.csv"):
        expect(run(*GREY, "--out", out), 4)
    fake.labels = None
    expect(run(*GREY, "--label", 1), 2, "no labels")
    assert files() == ["data.npz", "folder.csv"] and fake.calls == 0


def test_each_sample_is_of_its_own_class(run: Run, fake: Any) -> None:
    x, halves = near(fake, 4), np.array([0, 1, 0, 1])
    np.savez("both.npz", x=x, halves=halves)
    given = ("likelihood", "--divergence", "exact", *LOOSE, "--force", "--batch-size", 3, "--data")
    expect(run(*given, "both.npz", "--labels", "halves"), 0)
    found = np.array(column("log_prob"))
    for half in (0, 1):
        np.savez("one.npz", x=x[halves == half])
        expect(run(*given, "one.npz", "--label", half), 0)
        assert found[halves == half].tolist() == pytest.approx(column("log_prob"), rel=1e-4)


def test_labels_that_do_not_fit(run: Run, fake: Any) -> None:
    for more, labels, said in (
        ({}, "halves", "no array 'halves', it has x"),
        ({"halves": np.array([-1, 5])}, "halves", "got -1 for sample 0, 5 for sample 1"),
        ({"halves": np.zeros(3, dtype=int)}, "halves", "must be (2,), one class per sample, got (3,)"),
        ({"halves": np.zeros(2)}, "halves", "must be integers, but the array"),
    ):
        np.savez("data.npz", x=grey(fake, 2), **more)
        expect(run(*GREY, "--labels", labels), 2, said)
    np.savez("data.npz", x=grey(fake, 2), halves=np.array([0, 1]))
    expect(run(*GREY, "--labels", "halves", "--label", 1), 2, "leave --label out")
    fake.labels = None
    expect(run(*GREY, "--labels", "halves"), 2, "no labels")
    assert fake.calls == 0
