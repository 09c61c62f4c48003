"""What sets and certificates belong to: weights, settings and precision are compared, code is asked for."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import shutil
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

import scoresde
from scoresde.core.errors import CorruptCheckpointError, InvalidArgumentError
from scoresde.core.support.files.shards import opened, sealed
from scoresde.discrete import BetaChain, NoiseScales
from scoresde.sets import Samples, generate, verify
from scoresde.sets.identity import Made
from scoresde.trust import Certificate

SDE = scoresde.VPSDE()
TARGET = scoresde.targets.Gaussian(torch.zeros(2), 0.3)
DDIM: dict[str, Any] = {"shape": (2,), "method": "ddim", "steps": 2, "shard_size": 4, "batch_size": 4}
SMALL: dict[str, Any] = {"shape": (24, 2), "steps": 2, "pilot": 24, "confidence": 0.5, "indicator": "constant"}
ASKED, OTHER = "`identity` is missing", "its weights, or settings of its functions or process, are not the same"

# Networks and functions as a user's file has them; each factor may be edited without a trace in the weights.
NET = "class N(nn.Module):\n    def forward(self, x, t):"
FILES = {
    "a number of the module": "SCALE = 0.5\ndef it(x, t): return -SCALE * x",
    "a function of the module": "def f(x): return -0.5 * x\ndef it(x, t): return f(x)",
    "a default argument": "def it(x, t, scale=0.5): return -scale * x",
    "an ellipsis": "def it(x, t): return -0.5 * x[..., :]",
    "a closure": "def make(scale):\n    return lambda x, t: -scale * x\nit = make(0.5)",
    "a decorator": (
        "def times(scale):\n    def wrap(f):\n        @functools.wraps(f)\n"
        "        def call(x, t): return scale * f(x, t)\n        return call\n    return wrap\n"
        "@times(0.5)\ndef it(x, t): return -x"
    ),
    "a cached function": "@functools.lru_cache\ndef f(): return 0.5\ndef it(x, t): return -f() * x",
    "a partial": "def f(x, t, scale): return -scale * x\nit = functools.partial(f, scale=0.5)",
    "a callable object": "class F:\n    scale = 0.5\n    def __call__(self, x, t): return -self.scale * x\nit = F()",
    "a method": "class F:\n    def f(self, x, t): return -0.5 * x\nit = F().f",
    "a function in a network": f"def f(x): return -0.5 * x\n{NET} return f(x)\nit = N().eval()",
    "a number of a class": f"{NET} return -self.scale[0] * x\n    scale = [0.5]\nit = N().eval()",
    "a model": f"{NET} return 0.5 * x\nit = scoresde.ScoreModel(N().eval(), SDE, 'noise')",
    "guidance": "def f(x, t): return -0.5 * x\nit = scoresde.guidance.product(f, f, sde=SDE)",
    "a clipped function": "def f(x, t): return -0.5 * x\nit = scoresde.scores.Clip(f, -1.0, 1.0, sde=SDE)",
    "a hook": (
        "it = scoresde.ScoreModel(scoresde.nets.MLP((2,), channels=8, blocks=1, width=8).eval(), SDE, 'noise')\n"
        "it.net.register_forward_hook(lambda net, given, out: 0.5 * out)"
    ),
    "a name of the package": ("@functools.wraps(scoresde.solve)\ndef it(x, t): return -0.5 * x"),
    "a wrapper of torch": "@torch.no_grad()\ndef it(x, t): return -0.5 * x",
    "a callable tuple": "class F(tuple):\n    def __call__(self, x, t): return -0.5 * x\nit = F()",
    "a traced layer": (
        "it = scoresde.ScoreModel(scoresde.nets.MLP((2,), channels=8, blocks=1, width=8).eval(), SDE, 'noise')\n"
        "it.net.blocks[0] = torch.fx.symbolic_trace(it.net.blocks[0])\n"
        "it.net.blocks[0].graph.eliminate_dead_code()  # 0.5\nit.net.blocks[0].recompile()"
    ),
    "a replaced private function": (
        "it = scoresde.ScoreModel(scoresde.nets.MLP((2,), channels=8, blocks=1, width=8).eval(), SDE, 'noise')\n"
        "it._read_time = lambda node: 0.5 * node.t"
    ),
    "a replaced method": (
        "it = scoresde.ScoreModel(scoresde.nets.MLP((2,), channels=8, blocks=1, width=8).eval(), SDE, 'noise')\n"
        "it.net.forward = lambda x, t: 0.5 * x"
    ),
}


def made(text: str) -> Any:
    """What a script defines as ``it``."""
    found: dict[str, Any] = {"__name__": "script", **{f.__name__: f for f in (torch, nn, functools, scoresde)}}
    found |= {"nn": nn, "SDE": SDE}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(text, found)
    return found["it"]


@pytest.mark.filterwarnings("ignore:The reference is uncertain")  # of a few steps on steep functions
@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_code_is_asked_for_where_a_set_or_a_certificate_is_used_again(text: str, tmp_path: Path) -> None:
    score, other = made(text), made(text.replace("0.5", "0.25"))
    draw = functools.partial(generate, tmp_path / "set", SDE, **DDIM)
    draw(score, 4)
    for again, options in ((score, {}), (other, {"extend": True})):
        with pytest.raises(InvalidArgumentError, match=f"{ASKED}|{OTHER}"):
            draw(again, 4 + 4 * len(options), **options)
    assert draw(score, 8, extend=True, identity="first").made == 1  # it is the first one stated
    for stated in ("second", None):
        with pytest.raises(InvalidArgumentError, match=f"its identity is 'first', not {stated!r}"):
            draw(score, 12, extend=True, identity=stated)
    assert draw(score, 8, identity="first").made == 0 and verify(tmp_path / "set").complete
    scoresde.certify(SDE, score, "ddim", identity="first", **SMALL).save(tmp_path / "c.json")
    loaded = Certificate.load(tmp_path / "c.json")
    with pytest.raises(InvalidArgumentError, match=f"{ASKED}|another score function"):
        loaded.on(SDE, other, "ddim", steps=2)
    with pytest.raises(InvalidArgumentError, match="made for stated 'first', not 'second'"):
        loaded.on(SDE, score, "ddim", steps=2, identity="second")
    assert loaded.on(SDE, score, "ddim", steps=2, identity="first").solve(seed=0).success.all()


def test_several_processes_name_their_code_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidArgumentError, match=f"{ASKED}: several processes make the set"):
        generate(tmp_path / "set", SDE, made(FILES["a closure"]), 4, **DDIM)
    assert not (tmp_path / "set").exists()


class Net(nn.Module):
    """A network with a buffer that is not saved, and with what changes in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return 1e-3 * self.scale * self.linear(x) - x


def buffer(net: Net) -> None:
    net.scale.mul_(2)


def weights(net: Net) -> None:
    net.linear.weight.data.view(-1)[0] += 1e-6


@pytest.mark.parametrize("change", [buffer, weights])
def test_weights_and_buffers_are_compared_whatever_is_stated(change: Callable[[Net], None], tmp_path: Path) -> None:
    """Of a network, and of one that a function encloses or an object holds."""
    torch.manual_seed(0)
    for number, held in enumerate((lambda net: net, lambda net: lambda x, t: net(x, t), lambda net: net.forward)):
        net = Net().eval()
        score: Any = held(net)
        draw = functools.partial(generate, tmp_path / str(number), SDE, score, identity="net", **DDIM)
        draw(4)
        assert draw(8, extend=True).made == 1
        certificate = scoresde.certify(SDE, score, "ddim", identity="net", **SMALL)
        assert certificate.solve(seed=0).success.all()
        change(net)
        with pytest.raises(InvalidArgumentError, match=OTHER):
            draw(12, extend=True)
        for use in (
            lambda c=certificate: c.solve(seed=0),
            lambda c=certificate, s=score: c.on(SDE, s, "ddim", steps=2, identity="net"),
        ):
            with pytest.raises(InvalidArgumentError, match="other weights"):
                use()


class Slots:
    __slots__ = ("net",)

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class OneSlot:
    __slots__ = "__net"

    def __init__(self, net: nn.Module) -> None:
        self.__net = net

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.__net(x)
        return out


class Table(dict[str, Any]):
    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def table(net: nn.Module) -> Table:
    found = Table()
    found.net = net
    return found


class Part(functools.partial):  # type: ignore[type-arg]
    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def part(net: nn.Module) -> Part:
    found = Part(torch.mul)
    found.net = net
    return found


def recurrent(net: nn.Module) -> nn.Module:
    layer = nn.LSTM(2, 2)
    for value in layer.parameters():
        nn.init.constant_(value, float(net.weight.detach()[0, 0]))  # type: ignore[index,arg-type]
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.LSTM})  # type: ignore[no-any-return]


class Job:
    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class Lists(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.nets = [net]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.nets[0](x)
        return out


def hooked(net: nn.Module) -> nn.Module:
    layer = nn.Identity()
    layer.register_forward_hook(lambda layer, given, out: net(out))
    return layer


def two_of(net: nn.Module) -> dict[str, nn.Module]:
    names = ("a", "b") if float(net.weight.detach()[0, 0]) == 1 else ("b", "a")  # type: ignore[index,arg-type]
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    for layer, value in ((one, 1.0), (other, 2.0)):
        nn.init.constant_(layer.weight, value)
        nn.init.zeros_(layer.bias)
    return dict(zip(names, (one, other), strict=True))


def enclosing(nets: dict[str, nn.Module]) -> Callable[..., Any]:
    return lambda x, t: nets["a"](x) + 2 * nets["b"](x)


# What holds a network, given it.
HOLDERS: dict[str, Callable[[nn.Module], object]] = {
    "slots": Slots,
    "one private slot": OneSlot,
    "a callable table": table,
    "a kind of partial": part,
    "packed layers": recurrent,
    "a method of an object": lambda net: Job(net).score,
    "a list of a module": Lists,
    "what a hook encloses": hooked,
    "names of two": lambda net: enclosing(two_of(net)),
    "packed weights": lambda net: torch.ao.quantization.quantize_dynamic(nn.Sequential(net), {nn.Linear}),
    "a frozen script": lambda net: torch.jit.freeze(torch.jit.script(nn.Sequential(net).eval())),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("holder", HOLDERS)
def test_weights_are_found_in_what_holds_a_network(holder: str) -> None:
    nets = [nn.Linear(2, 2) for _ in range(3)]
    for net, value in zip(nets, (1.0, 1.0, 3.0), strict=True):
        nn.init.constant_(net.weight, value)
        nn.init.zeros_(net.bias)
    one, same, other = (Made.of(HOLDERS[holder](net)) for net in nets)
    assert one == same and one.digest != other.digest and one.foreign


def test_processes_belong_to_their_functions_and_tables() -> None:
    def process(power: int) -> scoresde.AffineSDE:
        return scoresde.GaussianSDE(lambda t: torch.cos(t) ** power, torch.sin, t_min=0.01, t_max=1.5)

    assert Made.of(process(1)).foreign == "<lambda>"
    chains = [BetaChain(torch.linspace(1e-4, end, 100, dtype=torch.float64)) for end in (0.02, 0.02, 0.01)]
    scales = [NoiseScales([1.0, middle, 0.1]) for middle in (0.5, 0.5, 0.4)]
    for one, same, other in ([chain.sde() for chain in chains], [chain.sde() for chain in scales]):
        assert Made.of(one) == Made.of(same) and Made.of(one).digest != Made.of(other).digest
        scoresde.solve(one, TARGET.score(one), shape=(2, 2), method="ddim", steps=2, seed=0)
        assert Made.of(one) == Made.of(same) and Made.of(one).foreign is None


def test_layers_belong_to_their_order_and_tensors_to_their_kind() -> None:
    net = scoresde.nets.MLP((2,), channels=8, blocks=1, width=8)
    layers = {"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)}
    digests = set()
    for names in ("ab", "ba"):
        net.extra = nn.Sequential(OrderedDict((name, layers[name]) for name in names))
        digests.add(Made.of(net).digest)
    assert len(digests) == 2
    layer = net.blocks[0].norm1
    tied = {Made.of(net).digest}
    for bias in (None, layer.weight):
        layer.bias = bias
        tied.add(Made.of(net).digest)
    net.register_full_backward_hook(lambda layer, inner, outer: None)
    assert len(tied) == 3 and Made.of(net).foreign == "<lambda>"
    view = torch.zeros(2, dtype=torch.complex64).conj()
    assert Made.of(view) == Made.of(view.resolve_conj()) != Made.of(view + 1j)


def test_a_grid_by_name_is_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scoresde.grids.GRIDS, "mine", lambda *args: scoresde.grids.GRIDS["log_snr"](*args))
    draw = functools.partial(generate, tmp_path / "set", SDE, TARGET.score(SDE), **DDIM, grid="mine")
    draw(4)
    with pytest.raises(InvalidArgumentError, match=ASKED):
        draw(8, extend=True)


def test_a_file_named_like_a_module_of_python_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("profile")
    exec("def it(x, t): return -x", module.__dict__)
    monkeypatch.setitem(sys.modules, "profile", module)
    assert Made.of(module.it).foreign == "it" and Made.of(torch.ones_like).foreign is None


def test_what_is_of_this_package_counts_by_its_settings() -> None:
    torch.manual_seed(0)
    net = scoresde.nets.MLP((2,), channels=8, blocks=1, width=8).eval()
    changed = copy.deepcopy(net)
    changed.blocks[0].norm1.eps = 1e-3
    model = functools.partial(scoresde.ScoreModel, sde=SDE)
    pairs: list[tuple[object, object]] = [
        (model(net, prediction="noise"), model(net, prediction="data")),
        (model(net, prediction="noise"), model(changed, prediction="noise")),
        (
            scoresde.scores.Clip(model(net, prediction="noise"), -1, 1),
            scoresde.scores.Clip(model(net, prediction="noise"), -1, 2),
        ),
        (SDE, scoresde.VPSDE(beta_max=19.0)),
        (TARGET.score(SDE), scoresde.targets.Gaussian(torch.zeros(2), 0.31).score(SDE)),
    ]
    for one, other in pairs:
        found = [Made.of(value) for value in (one, copy.deepcopy(one), other)]
        assert found[0] == found[1] and found[0].digest != found[2].digest and found[2].foreign is None, other
    circle: list[object] = [1]
    circle.append(circle)
    assert len(Made.of(circle).digest) == 64


def bfloat16() -> None:
    torch.set_float32_matmul_precision("medium")


PRECISIONS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "dtype": (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
    "float32": (bfloat16, lambda: torch.set_float32_matmul_precision("highest")),
    "deterministic": (
        lambda: torch.use_deterministic_algorithms(True),
        lambda: torch.use_deterministic_algorithms(False),
    ),
}


@pytest.mark.parametrize("name", PRECISIONS)
def test_precision_is_compared(name: str, tmp_path: Path) -> None:
    score = TARGET.score(SDE)
    draw = functools.partial(generate, tmp_path / "set", SDE, score, **DDIM)
    draw(4)
    certificate = scoresde.certify(SDE, score, "ddim", dtype=torch.float32, **SMALL)
    use, end = PRECISIONS[name]
    use()
    try:
        with pytest.raises(InvalidArgumentError, match=f"its precision is .*'{name}'"):
            draw(8, extend=True)
        with pytest.raises(InvalidArgumentError, match=f"made for precision .*'{name}'"):
            certificate.solve(seed=0)
    finally:
        end()
    assert draw(8, extend=True).made == 1 and certificate.solve(seed=0).success.all()


def test_records_that_name_other_files_are_none(tmp_path: Path) -> None:
    """Paths that lead out of the folder, no file at all, a failure of another shard, wrong types."""
    folder = tmp_path / "set"
    generate(folder, SDE, TARGET.score(SDE), 4, **DDIM)
    path = folder / "records" / "00000000.json"
    whole = opened(path.read_bytes())
    ((name, kept),) = whole["files"].items()
    shutil.copy(folder / "shards" / name, tmp_path / "secret")
    secret = kept
    changes: list[dict[str, Any]] = [{"files": {str(where): secret}} for where in (tmp_path / "secret", "../../secret")]
    changes += [{"files": {}}, {"files": {name: [str(kept[0]), kept[1]]}}, {"files": {name: kept[:1]}}]
    changes += [{"failures": [{"index": 7}]}, {"failures": 3}, {"failures": [{}]}, {"batch_size": 4.0}]
    changes += [{"failures": [{"index": 0, "seed": 0, "t": "x", "reason": "nan"}]}]
    for change in changes:
        path.write_bytes(sealed({**whole, **change}))
        assert not verify(folder).complete, change
        with pytest.raises(CorruptCheckpointError, match="missing or damaged"):
            next(iter(Samples(folder)))


@pytest.mark.parametrize("content", [b"", b"{}" * 40, save({"x": torch.zeros(3, 2)})], ids=["empty", "text", "rows"])
def test_a_shard_whose_record_fits_may_hold_anything(content: bytes, tmp_path: Path) -> None:
    generate(tmp_path, SDE, TARGET.score(SDE), 4, **DDIM)
    path = tmp_path / "records" / "00000000.json"
    whole = opened(path.read_bytes())
    (tmp_path / "shards" / "00000000.safetensors").write_bytes(content)
    files = {"00000000.safetensors": [len(content), hashlib.sha256(content).hexdigest()]}
    path.write_bytes(sealed({**whole, "files": files}))
    for read in (lambda: Samples(tmp_path).all(), lambda: list(Samples(tmp_path))):
        with pytest.raises(CorruptCheckpointError, match=r"Shard 0 of .* cannot be read"):
            read()


@pytest.mark.parametrize("size", [10**30, math.inf, "2", 0, 8])
def test_a_batch_size_that_cannot_be_is_not_taken(size: object, tmp_path: Path) -> None:
    draw = functools.partial(generate, tmp_path, SDE, TARGET.score(SDE), 4, **DDIM)
    draw()
    digest = opened((tmp_path / "records" / "00000000.json").read_bytes())["set"]
    (tmp_path / "records" / "00000000.batch.json").write_bytes(sealed({"set": digest, "batch_size": size}))
    assert verify(tmp_path).complete and draw().made == 0


def test_a_sealed_plan_with_wrong_types_is_no_set(tmp_path: Path) -> None:
    generate(tmp_path / "set", SDE, TARGET.score(SDE), 4, **DDIM)
    path = tmp_path / "set" / "set.json"
    whole = opened(path.read_bytes())
    changes = [{"count": "4"}, {"count": 0}, {"first": -1}, {"shard_size": 2}, {"settings": []}, {"more": 1}]
    changes += [{"count": 2**70}, {"count": 10**12}, {"first": 2**63 - 2}]
    for change in changes:
        path.write_bytes(sealed({**whole, **change}))
        with pytest.raises(CorruptCheckpointError, match="does not say what the set is"):
            verify(tmp_path / "set")


def test_a_certificate_with_wrong_types_is_none(tmp_path: Path) -> None:
    certificate = scoresde.certify(SDE, TARGET.score(SDE), "ddim", **SMALL)
    content, path = certificate.content(), tmp_path / "c.json"
    changes: list[dict[str, Any]] = [{name: value} for name in content for value in ([[]], {"a": 1}) if name != "law"]
    changes += [{"law": {**content["law"], "unit": "1"}}, {"identity": {**content["identity"], "event": 2}}]
    changes += [
        {"by": "x"},
        {"identity": {**content["identity"], "dtype": "x"}},
        {"confidence": 7.0},
        {"scores": []},
        {"pilot": True},
        {"target": "x"},
        {"law": None},
    ]
    for change in changes:
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(CorruptCheckpointError, match="is not a certificate"):
            Certificate.load(path)
    path.write_text(json.dumps(content))
    assert Certificate.load(path).content() == content
