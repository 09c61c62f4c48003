"""Saved models: what `save` writes `load` reads, and nothing else is read."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import scoresde
from scoresde.core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    CorruptCheckpointError,
    InvalidArgumentError,
    InvalidTypeError,
    OutputError,
    UnsafeCheckpointError,
)
from scoresde.nets import UNet
from scoresde.training import digits_split, grey_to_x
from scoresde.zoo import Config, Labels, Pretrained, load, names, save

from .refusals import assert_refused
from .saved_files import changed, put, rewrite

KWARGS = {"event_shape": [1, 2, 2], "channels": 8, "blocks": 1, "width": 1, "labels": 2}


@pytest.fixture
def model() -> Pretrained:
    """A network of 9,000 parameters, none of whose branches is zero, as they are at the start."""
    torch.manual_seed(0)
    net = UNet(**KWARGS).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    told = {"labels": Labels("label", 2, 2), "data": "none", "command": "none"}
    return Pretrained(net, Config(architecture="unet", kwargs=KWARGS, sigma_data=0.7, event_shape=(1, 2, 2), **told))


@pytest.fixture
def saved(model: Pretrained, tmp_path: Path) -> Path:
    save(model, tmp_path / "model")
    return tmp_path / "model"


def rewrite_weights(saved: Path, raw: bytes) -> None:
    (saved / "model.safetensors").write_bytes(raw)
    rewrite(saved, put("weights", {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}))


def test_round_trip(model: Pretrained, saved: Path) -> None:
    random = torch.random.get_rng_state()
    torch.set_default_dtype(torch.float64)
    back = load(saved)
    assert next(back.net.parameters()).dtype == torch.float32 and torch.equal(random, torch.random.get_rng_state())
    assert back.config == model.config
    assert back.event_shape == (1, 2, 2) and back.labels == Labels("label", 2, 2)
    state, expected = back.net.state_dict(), model.net.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in state)
    assert not back.net.training and not any(p.requires_grad for p in back.net.parameters())
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_noncontiguous_weights_are_saved(model: Pretrained, tmp_path: Path) -> None:
    weight = model.net.noise.layers[0].weight
    weight.data = weight.data.t().contiguous().t()
    save(model, tmp_path / "model")
    assert torch.equal(load(tmp_path / "model").net.noise.layers[0].weight, weight)


@pytest.mark.parametrize(("name", "size"), [("digits", 8), ("mnist", 28)])
def test_the_networks_that_come_with_the_package(name: str, size: int) -> None:
    """Their solvers beat the default ones; a nought of MNIST takes more ink than a one."""
    assert names() == ["digits", "mnist"]
    network = load(name)
    assert network.event_shape == (1, size, size) and network.labels == Labels("label", 10, 10)
    assert (Path(scoresde.__file__).parent / f"zoo/weights/{name}/model.safetensors").stat().st_size <= 4_000_000
    if name == "mnist":
        drawn = network.sample(4, label=torch.tensor([0, 1, 1, 0]), seed=0)
        ink = (drawn.x > 0).flatten(1).float().mean(1)
        assert int(drawn.nfe.max()) <= 30 and float(ink[[0, 3]].min()) > float(ink[[1, 2]].max())
    for steps in (4, 5, 8, 10, 20):
        solver = network.solver(steps)
        assert solver.steps == steps and solver.fitted.median < solver.default.median, steps
    assert bool(network.sample(1, label=3, method=network.solver(4), seed=0).x.isfinite().all())


def test_the_shipped_network_denoises() -> None:
    """It removes a good part of the noise of held-out digits."""
    generator, sde = torch.Generator().manual_seed(0), scoresde.EDMSDE()
    x0 = grey_to_x(digits_split().test_images[:40], generator)
    score = load("digits").score(sde)
    for rho, bound in ((0.2, 0.5), (0.5, 0.25)):  # the share of the noise's variance that may be left
        xt, _ = sde.perturb(x0, rho, torch.randn(x0.shape, generator=generator))
        with torch.no_grad():
            assert (score.data(xt, rho) - x0).square().mean() < bound * rho**2


def test_labels_reach_the_network(model: Pretrained) -> None:
    sde, x = scoresde.VPSDE(), torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert model.score(sde, label=1).rowwise and not model.score(sde, label=torch.tensor([0, 1])).rowwise
    null, one = model.score(sde)(x, 0.5), model.score(sde, label=1)(x, 0.5)
    assert torch.equal(null, model.score(sde, label=None)(x, 0.5))
    assert not torch.equal(null, one)
    assert torch.equal(one, model.score(sde, label=torch.tensor(1))(x, 0.5))
    each = model.score(sde, label=torch.tensor([1, 2, 1]))(x, 0.5)
    torch.testing.assert_close(each[[0, 2]], one[[0, 2]])
    torch.testing.assert_close(each[1], null[1])
    torch.testing.assert_close(each, model.score(sde)(x, 0.5, label=torch.tensor([1, 2, 1])))


def test_labels_that_are_refused(model: Pretrained) -> None:
    sde, plain = scoresde.VPSDE(), Pretrained(model.net, Config("unet", KWARGS, 0.7, (1, 2, 2)))
    wrong = [(x, InvalidArgumentError) for x in (2, -1, torch.tensor([0, 3]), torch.tensor([[0]]))]
    wrong += [(x, InvalidTypeError) for x in (1.0, torch.tensor([1.0]))]
    assert_refused(
        [
            *[(lambda x=x: model.score(sde, label=x), error, "label") for x, error in wrong],
            (lambda: model.score(sde, labels=1), InvalidArgumentError, "did you mean 'label'"),
            (lambda: plain.score(sde, label=1), InvalidArgumentError, "no context"),
        ]
    )


def test_an_unknown_name_is_answered_with_the_names() -> None:
    with pytest.raises(CheckpointError, match=r"did you mean 'digits'\? Shipped: digits"):
        load("digit")
    for name in ("", "\0", "x" * 5000, "no/such/place"):
        with pytest.raises(CheckpointError, match="Shipped: digits"):
            load(name)
    with pytest.raises(InvalidTypeError, match="path_or_name"):
        load(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_or_irregular_files(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CorruptCheckpointError, match=f"no {name}"):
        load(saved)
    (saved / name).mkdir()
    with pytest.raises(CheckpointError, match="not a regular file"):
        load(saved)
    (saved / name).rmdir()
    os.mkfifo(saved / name)
    with pytest.raises(CheckpointError, match="not a regular file"):
        load(saved)


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return (Path.touch, (self.sentinel,))


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_pickles_are_refused_unread(saved: Path, tmp_path: Path, protocol: int) -> None:
    sentinel = tmp_path / "sentinel"
    raw = pickle.dumps(Bomb(sentinel), protocol=protocol)
    for name in ("model.pt", "model.pkl", "model.safetensors"):
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(CheckpointError) as caught:
            load(tmp_path / name)
        assert isinstance(caught.value, UnsafeCheckpointError) or (protocol < 2 and name == "model.safetensors")
    rewrite_weights(saved, raw)  # inside a directory, with digests that fit
    for verify in (True, False):
        with pytest.raises(CheckpointError) as caught:
            load(saved, verify=verify)
        assert isinstance(caught.value, UnsafeCheckpointError) or protocol < 2
    assert not sentinel.exists()


def test_torch_save_is_refused(saved: Path, tmp_path: Path) -> None:
    for name, words in (("renamed.safetensors", "pickle"), ("folder/pytorch_model.bin", r"pytorch_model\.bin")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save({"weight": torch.zeros(2)}, tmp_path / name)
        with pytest.raises(UnsafeCheckpointError, match=words):
            load(tmp_path / name.partition("/")[0])
    with pytest.raises(CheckpointError, match="give that"):
        load(saved / "model.safetensors")


@pytest.mark.parametrize("step", [397, pytest.param(1, marks=pytest.mark.slow)])
def test_every_truncation_and_every_flipped_bit_of_the_weights_is_rejected(saved: Path, step: int) -> None:
    def refused(name: str, raw: bytes, error: type[CheckpointError] = CorruptCheckpointError) -> None:
        (saved / name).write_bytes(raw)
        with pytest.raises(error):
            load(saved)

    for name, stride in (("config.json", min(step, 9)), ("model.safetensors", step)):
        raw = (saved / name).read_bytes()
        for length in (*range(0, len(raw), stride), 7, 8, 9, len(raw) - 2, len(raw) - 1):
            if name != "config.json" or raw[length:] != b"\n":  # the last newline means nothing
                refused(name, raw[:length])
        refused(name, raw + b"x")
        (saved / name).write_bytes(raw)
    for position in (*range(16), *range(16, len(raw), step), len(raw) - 1):
        for bit in range(8) if position < 16 else [position % 8]:
            changed_one = raw[:position] + bytes([raw[position] ^ 1 << bit]) + raw[position + 1 :]
            refused("model.safetensors", changed_one, CheckpointError)
    (saved / "model.safetensors").write_bytes(raw)
    load(saved)


@pytest.mark.parametrize("exhaustive", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_flipped_bit_of_the_config_is_rejected_or_harmless(
    model: Pretrained, saved: Path, exhaustive: bool
) -> None:
    raw = bytearray((saved / "config.json").read_bytes())
    places = [(position, bit) for position in range(len(raw)) for bit in range(8)]
    places = places if exhaustive else places[::17]
    harmless = 0
    for position, bit in places:
        raw[position] ^= 1 << bit
        (saved / "config.json").write_bytes(raw)
        try:
            assert load(saved).config == model.config  # white space, or the case of an exponent or an escape
            harmless += 1
        except CheckpointError:
            pass
        raw[position] ^= 1 << bit
    assert harmless < len(places) / 32


def test_without_verification_only_the_digest_is_not_checked(saved: Path) -> None:
    raw = bytearray((saved / "model.safetensors").read_bytes())
    raw[-1] ^= 1  # a mantissa bit
    (saved / "model.safetensors").write_bytes(raw)
    with pytest.raises(CorruptCheckpointError, match="was altered"):
        load(saved)
    load(saved, verify=False)
    (saved / "model.safetensors").write_bytes(raw[:-1])
    with pytest.raises(CorruptCheckpointError, match="not a safetensors file"):
        load(saved, verify=False)


def test_a_mismatch_lists_every_key(model: Pretrained, saved: Path) -> None:
    state = model.net.state_dict()
    del state["head.bias"], state["stem.bias"]
    state["extra"] = torch.zeros(3)
    state["head.weight"] = torch.zeros(1, 8, 5, 5)
    state["norm.bias"] = state["norm.bias"].double()
    rewrite_weights(saved, safetensors.torch.save(state))
    with pytest.raises(CheckpointMismatchError) as caught:
        load(saved)
    for words in ("missing head.bias (1,)", "missing stem.bias", "unexpected extra", "(1, 8, 5, 5)", "torch.float64"):
        assert words in str(caught.value)


def test_weights_that_are_not_finite(model: Pretrained, saved: Path, tmp_path: Path) -> None:
    state = model.net.state_dict()
    state["head.bias"] = torch.tensor([float("inf")])
    rewrite_weights(saved, safetensors.torch.save(state))
    with pytest.raises(CorruptCheckpointError, match=r"head\.bias"):
        load(saved)
    back = load(saved, allow_nonfinite=True)
    assert not torch.isfinite(back.net.head.bias).any()
    with pytest.raises(CorruptCheckpointError, match=r"head\.bias"):
        save(back, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_hostile_weights(saved: Path) -> None:
    huge = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}1234'
    headers = ((0, b""), (2**64 - 1, b""), (1 << 63, b"{}"), (2, b"{}"), (10**8, b"{}"), (66, huge))
    for raw in (b"", *(length.to_bytes(8, "little") + rest for length, rest in headers)):
        rewrite_weights(saved, raw)
        with pytest.raises(CheckpointError):
            load(saved)


def test_hostile_json(saved: Path) -> None:
    """Refused with and without verification."""
    good = (saved / "config.json").read_text()

    def one_wrong(old: str, new: str) -> str:
        assert good.count(old) == 1
        return good.replace(old, new)

    texts = [
        *[(text, "config.json") for text in ("", "[]", "null", "{", '{"format": Infinity}', '{"a": {"b": 1, "b": 2}}')],
        *[(text * 100_000, "config.json") for text in ("[", '{"a":')],
        ("[" * 100_000 + "]" * 100_000, "config.json"),
        ('{"a": "' + "x" * (2 << 20) + '"}', "config.json"),
        ("\udcff", "not valid"),  # bytes that are not text
        (one_wrong('"data": "none"', '"data": "none", "data": "none"'), "twice"),
        (one_wrong('"sigma_data": 0.7', '"sigma_data": NaN'), "NaN"),
        (one_wrong('"sigma_data": 0.7', '"sigma_data": 1e999'), "too large"),
    ]
    for text, word in texts:
        (saved / "config.json").write_bytes(text.encode(errors="surrogateescape"))
        for verify in (True, False):
            with pytest.raises(CorruptCheckpointError, match=word):
                load(saved, verify=verify)


OTHER_CONFIGS = [
    (put("format", 3), "format"),
    (put("extra", 1), "unknown keys"),
    (lambda c: c.pop("data"), "missing keys"),
    (put("weights", "path", "../../secret"), "unknown keys"),
    (put("architecture", "name", "../unet"), "unet"),
    (put("architecture", "kwargs", "channels", 10**30), "channels"),
    (put("architecture", "kwargs", "event_shape", None), "event_shape"),
    (put("prediction", "score"), "prediction"),
    (put("sigma_data", 0.0), "sigma_data"),
    (put("event_shape", [1, -2, 2]), "event_shape"),
    (put("event_shape", [1, 4, 4]), "event_shape"),
    (put("labels", "count", 5), "labels"),
    (put("labels", "name", "not a name"), "labels"),
]


def test_a_config_that_says_something_else(saved: Path) -> None:
    loaded = changed(saved, load)
    wide, fits = put("architecture", "kwargs", "channels", 1024), r"\(1, 8, 3, 3\), expected \(1, 1024, 3, 3\)"
    assert_refused(
        [
            *[(lambda c=c: loaded(c), CorruptCheckpointError, word) for c, word in OTHER_CONFIGS],
            (lambda: loaded(wide), CheckpointMismatchError, rf"head\.weight has shape {fits}"),
        ]
    )


def test_save_refuses_what_load_could_not_read(model: Pretrained, tmp_path: Path) -> None:
    out, config = tmp_path / "out", model.config
    wide, double = UNet(**{**KWARGS, "channels": 16}), UNet(**KWARGS).double()
    assert_refused(
        [
            (lambda: save(model.net, out), InvalidTypeError, "Pretrained"),  # type: ignore[arg-type]
            (lambda: save(Pretrained(torch.nn.Linear(2, 2), config), out), InvalidArgumentError, "Linear"),
            (lambda: save(Pretrained(wide, config), out), CheckpointMismatchError, "shape"),
            (lambda: save(Pretrained(double, config), out), CheckpointMismatchError, "float64"),
        ]
    )
    assert not out.exists()


def test_save_to_a_file_or_a_full_disk(model: Pretrained, saved: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError) as caught:
        save(model, tmp_path / "file")
    assert caught.value.errno is not None and (tmp_path / "file").read_text() == "mine"
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    torch.nn.init.normal_(model.net.head.weight)
    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:

            def fail(*arguments) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(os, call, fail)
            with pytest.raises(OutputError, match="No space left"):
                save(model, saved)
        assert {path.name: path.read_bytes() for path in saved.iterdir()} == before  # and no temporary file


def test_a_crash_between_the_two_files_is_noticed(model: Pretrained, saved: Path, monkeypatch) -> None:
    torch.nn.init.normal_(model.net.head.weight)
    replace, calls = os.replace, []

    def crash(source, target) -> None:
        calls.append(Path(target).name)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OutputError):
        save(model, saved)
    assert calls == ["model.safetensors", "config.json"]
    with pytest.raises(CorruptCheckpointError, match="was altered"):
        load(saved)


def test_fitted_grids_travel_with_the_network(model: Pretrained, tmp_path: Path) -> None:
    grids = tuple(
        scoresde.fit_grid(sde, model.score(sde), 2, "ddim", pilot=2, iterations=0, starts="quadratic", reference=3)
        for sde in (scoresde.VPSDE(), scoresde.EDMSDE())
    )
    with_grids = replace(model, config=replace(model.config, grids=grids))
    save(with_grids, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert loaded.config.grids == grids
    assert loaded.grid(scoresde.EDMSDE(), 2) == grids[1] != loaded.grid(scoresde.VPSDE(), 2)
    for sde, steps in ((scoresde.VPSDE(), 3), (scoresde.VESDE(), 2)):
        with pytest.raises(InvalidArgumentError, match="2 steps of VPSDE"):
            loaded.grid(sde, steps)
    with pytest.raises(InvalidArgumentError, match="none"):
        model.grid(scoresde.VPSDE(), 2)
    config = json.loads((tmp_path / "m" / "config.json").read_bytes())
    for broken in ([{"times": [1.0, 0.5]}], [3], [{**config["grids"][0], "times": [1.0, 1.0, 0.5]}]):
        (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "grids": broken}))
        with pytest.raises(CorruptCheckpointError, match=r"grids\[0\]"):
            load(tmp_path / "m", verify=False)


@pytest.mark.parametrize("sde", [scoresde.VPSDE(), scoresde.EDMSDE()], ids=["vp", "edm"])
def test_the_grids_of_the_shipped_network_are_better_than_the_default(sde: Any) -> None:
    model = load("digits")
    score, x = model.score(sde), sde.prior_sample((8, 1, 8, 8), generator=torch.Generator().manual_seed(77))
    exact = scoresde.solve(sde, score, x, method="unipc2", steps=40).x

    def median(**options: Any) -> float:
        end = scoresde.solve(sde, score, x, **options).x
        return float((end - exact).flatten(1).square().mean(1).sqrt().median())

    for steps in (5, 10, 20):
        grid = model.grid(sde, steps)
        method = scoresde.solvers.from_config(grid.method)
        assert median(method=method, grid=grid) < 0.7 * median(method=method, steps=steps), steps
    assert median(method="auto", grid=grid) == median(method=method, grid=grid)


def test_learned_solvers_travel_apart_from_grids(model: Pretrained) -> None:
    """`solver` returns what was learned, on any process; `grid` does not."""
    sde, options = scoresde.EDMSDE(), {"shape": (4, 1, 2, 2), "pilot": 4, "iterations": 0, "reference": 4}
    learned = scoresde.fit_solver(sde, model.score(sde), 3, **options)
    grid = scoresde.fit_grid(sde, model.score(sde), 3, "ddim", **options)
    both = replace(model, config=replace(model.config, grids=(learned, grid)))
    assert both.grid(sde, 3) is grid
    assert both.solver(3) is learned is both.solver(3, sde)
    vp = scoresde.VPSDE()
    assert both.solver(3, vp).fits(vp) and both.solver(3, vp) == learned.on(vp)
    with pytest.raises(InvalidArgumentError, match="only for 3"):
        both.solver(4)
    with pytest.raises(InvalidArgumentError, match="for 3 evaluations"):
        model.solver(3)
