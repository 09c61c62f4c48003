"""Sets of other things than samples; what is kept beside samples; what a process says of its work."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.core.errors import CorruptCheckpointError, InvalidArgumentError, InvalidTypeError, SolveFailedError
from scoresde.sets import Batch, Samples, compute, computing, generate, verify
from scoresde.sets.transfers import Transfers
from tests.refusals import refuses

SDE = scoresde.VPSDE()
TARGET = scoresde.targets.Gaussian(torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 0.3], [0.3, 0.5]]))
SCORE = TARGET.score(SDE)
IMAGE = scoresde.targets.Gaussian(torch.zeros(1, 4, 4), 0.3).score(SDE)
DATA = TARGET.sample(11, generator=torch.Generator().manual_seed(0))
SIZES: dict[str, Any] = {"shard_size": 8, "batch_size": 4}
DDIM: dict[str, Any] = {"method": "ddim", "steps": 3}
OTHER = "its weights, or settings of its functions or process, are not the same"


def likelihoods(batch: Batch) -> Mapping[str, Tensor]:
    options = {"probes": 2, "probe": "orthogonal", "throw": False, "check": False}
    found = scoresde.log_likelihood(SDE, SCORE, batch.rows(DATA), noise=batch.noise, callback=batch.callback, **options)
    return {"log_prob": found.log_prob, "std_error": found.std_error, "nfe": found.nfe, "status": found.status}


class Late(Transfers):
    """Copies whose numbers are there only when they were waited for, as those from a GPU may be."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[tuple[np.ndarray, np.ndarray]] = []

    def start(self, value: Tensor) -> np.ndarray:
        array = super().start(value)
        self.late.append((np.zeros_like(array), array))
        return self.late[-1][0]

    def wait(self) -> None:
        super().wait()
        for place, array in self.late:
            place[...] = array
        self.late.clear()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_likelihoods_do_not_depend_on_how_they_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compute(tmp_path / "a", likelihoods, 11, identity="f", **SIZES)
    assert (made.count, made.shards, made.made, made.failures) == (11, 2, 2, ())
    compute(tmp_path / "b", likelihoods, 11, shard_size=3, batch_size=3)
    compute(tmp_path / "c", likelihoods, 4, first=5, shard_size=4, batch_size=2)
    whole, other, part = (Samples(tmp_path / name).all() for name in "abc")
    for name, values in whole.items():
        assert torch.allclose(values.double(), other[name].double(), rtol=1e-4, atol=1e-5), name
        assert torch.allclose(values[5:9].double(), part[name].double(), rtol=1e-4, atol=1e-5), name
    exact = TARGET.log_prob(DATA.double(), SDE, SDE.t_min)
    assert torch.allclose(whole["log_prob"], exact, atol=0.05)
    before = files(tmp_path / "a")
    (tmp_path / "a" / "shards" / "00000001.safetensors").unlink()
    monkeypatch.setattr(computing, "Transfers", Late)  # copies are complete before they are read
    assert compute(tmp_path / "a", likelihoods, 11, identity="f", **SIZES).made == 1 and files(tmp_path / "a") == before


def test_latents_and_many_posteriors(tmp_path: Path) -> None:
    def latents(batch: Batch) -> Mapping[str, Tensor]:
        found = scoresde.encode(SDE, SCORE, batch.rows(DATA), method="heun", steps=10, callback=batch.callback)
        return {"latent": found.x, "status": found.status}

    compute(tmp_path / "latents", latents, 11, **SIZES)
    alone = scoresde.encode(SDE, SCORE, DATA, method="heun", steps=10).x
    assert torch.allclose(Samples(tmp_path / "latents").all()["latent"], alone, atol=1e-4)

    operator = torch.tensor([[1.0, 1.0]])
    ys = torch.tensor([[-3.0], [3.0]])

    def posterior(batch: Batch) -> Mapping[str, Tensor]:
        score = scoresde.inverse.condition(SCORE, operator, batch.rows(ys), 0.1, method="mmps", sde=SDE)
        x = scoresde.solve(SDE, score, shape=(len(batch.indices), 2), noise=batch.noise, method="ddim", steps=30).x
        return {"x": x}

    compute(tmp_path / "posteriors", posterior, 40, **SIZES)
    found = Samples(tmp_path / "posteriors").all()
    sums = found["x"].sum(1)
    assert (sums[found["index"] % 2 == 0] < -1.5).all() and (sums[found["index"] % 2 == 1] > 1.5).all()


@pytest.mark.parametrize("told", [False, True])
def test_failures_are_told_by_status_or_by_what_is_not_finite(tmp_path: Path, told: bool) -> None:
    def function(batch: Batch) -> Mapping[str, Tensor]:
        bad = batch.indices % 10 == 7
        status = torch.where(bad, scoresde.Status.NON_FINITE, scoresde.Status.SUCCESS)
        value = torch.where(bad, torch.nan, batch.indices.double())
        return {"value": value, **({"status": status} if told else {})}

    with pytest.raises(SolveFailedError, match=r"1 of 30 samples failed, the last: sample 7: non_finite"):
        compute(tmp_path / "a", function, 30, **SIZES)
    made = compute(tmp_path / "a", function, 30, **SIZES, max_failures=0.1, identity="f")
    assert [(f["index"], f["t"]) for f in made.failures] == [(7, None), (17, None), (27, None)]
    assert int(Samples(tmp_path / "a").all()["value"].isnan().sum()) == 3


NAMES = "names like those of variables"
NO_ROWS: list[tuple[Any, Any, str]] = [
    (lambda n: [torch.zeros(n)], InvalidTypeError, "mapping"),
    (lambda n: {"a": torch.zeros(n + 1)}, InvalidTypeError, "'a' must be a tensor with a row for each of the 4"),
    (lambda n: {"a": torch.tensor(1.0)}, InvalidTypeError, "'a' must be a tensor with a row"),
    (lambda n: {"a": [1.0] * n}, InvalidTypeError, "'a' must be a tensor with a row"),
    (lambda n: {"index": torch.zeros(n)}, InvalidArgumentError, NAMES),
    (lambda n: {"__metadata__": torch.zeros(n)}, InvalidArgumentError, NAMES),
    (lambda n: {"file": torch.zeros(n)}, InvalidArgumentError, NAMES),
    (lambda n: {}, InvalidArgumentError, "returned no array"),
    (lambda n: {"a": torch.zeros(n, dtype=torch.complex64)}, InvalidTypeError, "real numbers"),
    (lambda n: {"a": torch.zeros(n), "status": torch.zeros(n, 1).int()}, InvalidArgumentError, "'status' must"),
    (lambda n: {"a": torch.zeros(n), "status": torch.full((n,), 77)}, InvalidArgumentError, "'status' must"),
    (lambda n: {"a": torch.zeros(n), "status": torch.zeros(n)}, InvalidArgumentError, "'status' must"),
]


def test_only_a_row_per_sample_is_taken(tmp_path: Path) -> None:
    def made(values: Any) -> None:
        compute(tmp_path / "a", lambda batch: values(len(batch.indices)), 8, identity="f", **SIZES)

    refuses((functools.partial(made, values), error, message) for values, error, message in NO_ROWS)
    for features in (lambda x: x[0], lambda x: 3.0, lambda x: x.flatten(1)[:1]):
        with pytest.raises(InvalidTypeError, match=r"`features` must return a tensor \(4, d\)"):
            generate(tmp_path / "a", SDE, IMAGE, 8, features=features, identity="f", **DDIM, **SIZES)
    assert not (tmp_path / "a").exists()


def test_all_batches_have_the_same_arrays(tmp_path: Path) -> None:
    """Also those of shards that another process has made."""
    others: list[Any] = [
        lambda n: {"b": torch.zeros(n)},
        lambda n: {"a": torch.zeros(n, 2)},
        lambda n: {"a": torch.zeros(n, dtype=torch.float64)},
        lambda n: {"a": torch.zeros(n), "b": torch.zeros(n)},
    ]
    for number, other in enumerate(others):

        def function(batch: Batch, other: Any = other) -> Mapping[str, Tensor]:
            n = len(batch.indices)
            return {"a": torch.zeros(n)} if int(batch.indices[0]) < 8 else dict(other(n))

        run = functools.partial(compute, tmp_path / str(number), function, 16, identity="f", **SIZES)
        with pytest.raises(InvalidArgumentError, match="All batches must have the same arrays: got"):
            run()
        run()
        with pytest.raises(CorruptCheckpointError, match=r"Shard 1 of .* has arrays of its own|has other arrays"):
            Samples(tmp_path / str(number)).all()


def test_settings_and_code_tell_sets_apart(tmp_path: Path) -> None:
    def function(batch: Batch) -> Mapping[str, Tensor]:
        return {"a": batch.indices.float()}

    def other(batch: Batch) -> Mapping[str, Tensor]:
        return {"a": 2 * batch.indices.float()}

    compute(tmp_path / "a", function, 8, settings={"data": "x"}, **SIZES)
    for given, named in (({"settings": {"data": "y"}}, "data"), ({"settings": {"data": "x"}, "seed": 1}, "seed")):
        with pytest.raises(InvalidArgumentError, match=f"its {named} is"):
            compute(tmp_path / "a", function, 8, **given, **SIZES)
    for changed in (function, other):
        with pytest.raises(InvalidArgumentError, match="`identity` is missing"):
            compute(tmp_path / "a", changed, 8, settings={"data": "x"}, **SIZES)
    with pytest.raises(InvalidArgumentError, match="must not have the name 'seed'"):
        compute(tmp_path / "b", function, 8, settings={"seed": 1}, **SIZES)
    for _ in range(2):  # NaN is no number that equals itself
        compute(tmp_path / "b", function, 8, identity="f", settings={"a": math.nan, "b": {"c": (1, math.inf)}}, **SIZES)


class Decorated(torch.nn.Module):
    """Dropout in a function that does not show it, and a part that is called net."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 2)

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.nn.functional.dropout(self.net(x), 0.5, self.training) - x


def test_networks_in_training_mode_are_refused(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout())
    with pytest.raises(InvalidArgumentError, match="network of `features` is in training mode"):
        generate(tmp_path / "a", SDE, IMAGE, 8, features=net, **DDIM, **SIZES)
    with pytest.raises(InvalidArgumentError, match="network of `function` is in training mode"):
        compute(tmp_path / "a", lambda batch: {"a": net(batch.rows(DATA))}, 8, **SIZES)
    hidden = Decorated()
    for score in (hidden, scoresde.ScoreModel(hidden, SDE, "noise")):
        with pytest.raises(InvalidArgumentError, match="training mode"):
            generate(tmp_path / "a", SDE, score, 4, shape=(2,), **DDIM)
    with pytest.raises(InvalidArgumentError, match="training mode"):
        compute(tmp_path / "a", lambda batch: {"a": hidden(torch.zeros(4, 2), torch.zeros(4))}, 4)
    assert not (tmp_path / "a").exists()


# What is kept beside samples


@pytest.mark.parametrize("container", ["safetensors", "tar"])
def test_features_are_those_of_the_samples(tmp_path: Path, container: str) -> None:
    def features(x: Tensor) -> Tensor:
        return torch.stack([x.flatten(1).mean(1), x.flatten(1).std(1)], dim=1)

    def some_fail(x: Tensor, t: Tensor) -> Tensor:
        return torch.where((torch.arange(len(x)) == 1).reshape(-1, 1, 1, 1), torch.nan, IMAGE(x, t))

    given: dict[str, Any] = {**DDIM, **SIZES, "container": container, "max_failures": 1.0, "shape": (1, 4, 4)}
    generate(tmp_path / "a", SDE, some_fail, 11, features=features, identity="f", **given)
    if container == "safetensors":
        found = Samples(tmp_path / "a").all()
        good = found["x"].isfinite().flatten(1).all(1)
        assert torch.allclose(found["features"][good], features(found["x"][good]))
    else:
        from safetensors.torch import load_file

        parts = [load_file(path) for path in sorted((tmp_path / "a" / "shards").glob("*.safetensors"))]
        found = {name: torch.cat([part[name] for part in parts]) for name in ("index", "features")}
        good = found["index"] % 4 != 1
    assert found["features"].shape == (11, 2) and found["index"].tolist() == list(range(11))
    assert found["features"][~good].isnan().all() and found["features"][good].isfinite().all()
    assert verify(tmp_path / "a").complete


def test_likelihoods_take_the_noise_of_samples_and_tell_each_step() -> None:
    """The probes of a sample are a function of its seed or index; a callback cannot stop the integral half-way."""
    steps: list[int] = []
    given: dict[str, Any] = {"probes": 2, "check": False}

    def stop(info: scoresde.Info) -> bool:
        steps.append(info.step)
        return True

    noise = scoresde.SampleNoise(5, indices=range(11))
    whole = scoresde.log_likelihood(SDE, SCORE, DATA, noise=noise, callback=stop, **given)
    part = scoresde.log_likelihood(SDE, SCORE, DATA[3:5], noise=scoresde.SampleNoise(5, indices=[3, 4]), **given)
    assert torch.allclose(whole.log_prob[3:5], part.log_prob, atol=1e-4) and len(steps) > 5
    assert (whole.status == scoresde.Status.SUCCESS).all()
    seeded = scoresde.log_likelihood(SDE, SCORE, DATA, seeds=range(11), **given)
    same = scoresde.log_likelihood(SDE, SCORE, DATA, noise=scoresde.SampleNoise(range(11)), **given)
    assert torch.equal(seeded.log_prob, same.log_prob) and not torch.equal(seeded.log_prob, whole.log_prob)
    with pytest.raises(InvalidTypeError, match="callback"):
        scoresde.log_likelihood(SDE, SCORE, DATA, callback=3, **given)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="at most one of seed"):
        scoresde.log_likelihood(SDE, SCORE, DATA, noise=noise, seed=0, **given)


# Wrapped networks


class Small(torch.nn.Module):
    """A score network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.1 * torch.tanh(self.layer(torch.cat([x, t[:, None]], dim=1))) - x


class Autocast(torch.nn.Module):
    """The same in half precision, as users wrap it."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(x, t).float()


@pytest.mark.parametrize(
    ("wrap", "tolerance"), [(lambda net: torch.compile(net, backend="eager"), 1e-6), (Autocast, 0.05)]
)
def test_networks_that_are_compiled_or_in_half_precision(tmp_path: Path, wrap: Any, tolerance: float) -> None:
    """They are continued and told from the plain network, whose samples they have."""
    given: dict[str, Any] = {"shape": (2,), "identity": "small", **DDIM, **SIZES}
    with torch.no_grad():
        generate(tmp_path / "plain", SDE, Small().eval(), 11, **given)
        made = generate(tmp_path / "a", SDE, wrap(Small().eval()), 11, **given)
        assert made.made == 2
        assert generate(tmp_path / "a", SDE, wrap(Small().eval()), 11, **given).made == 0
        with pytest.raises(InvalidArgumentError, match=OTHER):
            generate(tmp_path / "a", SDE, Small().eval(), 11, **given)
    found, plain = (Samples(tmp_path / name).all()["x"] for name in ("a", "plain"))
    assert torch.allclose(found, plain, atol=tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_from_a_gpu_are_complete_when_they_were_waited_for() -> None:
    transfers = Transfers()
    values = [torch.randn(1 << 22, device="cuda") for _ in range(8)]
    arrays = [transfers.start(value) for value in values]
    copies = [value.clone() for value in values]
    for value in values:
        value.zero_()  # after the copies, on the same stream
    transfers.wait()
    for array, copy in zip(arrays, copies, strict=True):
        assert torch.equal(torch.from_numpy(array), copy.cpu())


def test_what_a_function_encloses_may_be_anything(tmp_path: Path) -> None:
    class Config(dict):  # type: ignore[type-arg]
        __getattr__ = dict.get

    config = Config(a=2.0)
    compute(tmp_path / "a", lambda batch: {"a": config.a * batch.rows(DATA).flatten(1)}, 8, **SIZES)
    assert (tmp_path / "a").exists()
