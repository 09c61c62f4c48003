"""Networks of every kind: served on other processes, saved, and loaded again."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde import zoo
from scoresde.core.errors import CheckpointError, CheckpointMismatchError, CorruptCheckpointError, InvalidArgumentError
from scoresde.core.sdes.span import log_snr_range, within
from scoresde.discrete import BetaChain, Chain, NoiseScales
from scoresde.nets import ARCHITECTURES, MonotoneGamma
from scoresde.scores import PREDICTIONS, TIME_INPUTS, ScoreModel
from scoresde.zoo import FUNCTIONS, Labels, Pretrained, from_config, load, save, to_config
from scoresde.zoo.processes import modules_of

from .refusals import assert_refused
from .saved_files import changed, put, rewrite

V = InvalidArgumentError


class Tiny(nn.Module):
    """A smooth network of events of any shape, that reads its input and its time."""

    def __init__(self, channels: int = 1, outputs: int = 1) -> None:
        super().__init__()
        self.arguments = {"channels": channels, "outputs": outputs}
        self.mix = nn.Conv2d(channels, outputs, 1)
        self.clock = nn.Linear(2, outputs)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        t = t.to(x.dtype)
        features = torch.stack([torch.tanh(0.1 * t), torch.cos(0.3 * t)], 1)
        return torch.tanh(self.mix(x) + self.clock(features)[:, :, None, None])


class Rising(nn.Module):
    """A learned gamma: a line with a bump, rising for every value of its parameters."""

    def __init__(self, low: float = -8.0, high: float = 6.0) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.bend = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, t: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * (t + 0.3 * torch.tanh(self.bend) * t * (1 - t))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "tiny", Tiny)
    monkeypatch.setitem(FUNCTIONS, "Rising", Rising)


def tiny(outputs: int = 1) -> Tiny:
    torch.manual_seed(0)
    return Tiny(outputs=outputs)


def rising() -> Rising:
    gamma = Rising()
    gamma.bend.data.fill_(0.7)
    return gamma


PROCESSES: dict[str, Callable[[], scoresde.AffineSDE]] = {
    **zoo.PROCESSES,  # with their defaults
    "vp": lambda: scoresde.VPSDE(0.2, 15.0, t_min=0.01, t_max=0.9),
    "ve": lambda: scoresde.VESDE(0.02, 40.0),
    "cosine": lambda: scoresde.CosineVPSDE(0.01, t_max=0.99),
    "edm": lambda: scoresde.EDMSDE(0.01, 50.0, t_max=20.0),
    "flow": lambda: scoresde.FlowSDE(t_max=1.0),
    "vdm": lambda: scoresde.VDMSDE(scoresde.LinearGamma(-7.0, 4.0)),
    "learned": lambda: scoresde.VDMSDE(rising(), t_max=0.95),
    "sigmoid": lambda: scoresde.SigmoidVPSDE(-2.0, 3.5, 0.9, t_max=0.999),
    "monotone": lambda: scoresde.VDMSDE(MonotoneGamma(-6.0, 4.0, 8)),
    "shifted": lambda: scoresde.VDMSDE(scoresde.ShiftedGamma(scoresde.CosineVPSDE(0.01), 1.4), t_min=0.01, t_max=0.98),
    "prior": lambda: scoresde.VPSDE(prior=scoresde.NormalPrior(1.5, torch.tensor([[[0.1, -0.3]]]))),
}
CHAINS: dict[str, Callable[[], Chain]] = {
    "ddpm": BetaChain.linear,
    "cosine": lambda: BetaChain.cosine(100),
    "respaced": lambda: BetaChain.linear().respace(50),
    "ncsn": lambda: NoiseScales.geometric(10, 0.01, 20.0),
    "ncsn part": lambda: NoiseScales.geometric(10, 0.01, 20.0).respace([1, 4, 9]),
}


def test_a_process_comes_back_from_its_config() -> None:
    x = torch.full((2, 1, 1, 2), 0.3, dtype=torch.float64)
    for name, make in PROCESSES.items():
        sde = make()
        config = json.loads(json.dumps(to_config(sde), allow_nan=False))
        again = from_config(config)
        for key, module in modules_of(again).items():
            module.load_state_dict(getattr(sde, key).state_dict())
        t = torch.linspace(sde.t_min, sde.t_max, 7, dtype=torch.float64)
        assert type(again) is type(sde) and (again.t_min, again.t_max) == (sde.t_min, sde.t_max), name
        assert torch.equal(again.alpha(t), sde.alpha(t)) and torch.equal(again.sigma(t), sde.sigma(t)), name
        assert torch.equal(again.prior_log_prob(x), sde.prior_log_prob(x)), name
        assert to_config(again) == config, name


def public(*modules: Any) -> set[type]:
    """The classes that the modules offer."""
    return {v for m in modules for n in m.__all__ if inspect.isclass(v := getattr(m, n)) and not inspect.isabstract(v)}


def test_every_public_process_and_gamma_can_be_saved() -> None:
    """All are registered, and all are among `PROCESSES`, which are saved and loaded below."""
    kept = [make() for make in PROCESSES.values()]
    processes = {c for c in public(scoresde.core.sdes) if issubclass(c, scoresde.AffineSDE)} - {scoresde.GaussianSDE}
    assert processes == {type(sde) for sde in kept} == set(zoo.PROCESSES.values())
    gammas = {c for c in public(scoresde.core.sdes, scoresde.nets) if c.__name__.endswith("Gamma")}
    assert len(gammas) >= 3 and gammas | {Rising} == {type(sde.gamma) for sde in kept if hasattr(sde, "gamma")}
    assert gammas | {Rising} == set(FUNCTIONS.values())


def test_a_chain_comes_back_from_its_config() -> None:
    off = torch.linspace(-12, 12, 50, dtype=torch.float64)
    for name, make in CHAINS.items():
        chain = make()
        again = Chain.from_config(json.loads(json.dumps(chain.to_config(), allow_nan=False)))
        assert type(again) is type(chain), name
        for key in ("times", "labels", "log_snrs"):
            assert torch.equal(getattr(again, key), getattr(chain, key)), name
        assert again.sde().same_schedule(chain.sde()), name
        assert torch.equal(again.label(off), chain.label(off)), name
        sde = chain.sde(t_min=float(chain.times[1]))
        config = to_config(sde, chain)
        back = from_config(config, again)
        assert config["name"] == "chain" and back.t_min == sde.t_min and back.same_schedule(sde), name


def test_what_cannot_be_saved_says_what_to_do() -> None:
    with pytest.raises(InvalidArgumentError, match=r'zoo.PROCESSES\["GaussianSDE"\]'):
        to_config(scoresde.GaussianSDE(torch.cos, torch.sin, 0.1, 1.5))
    with pytest.raises(InvalidArgumentError, match=r"zoo.FUNCTIONS"):
        to_config(scoresde.VDMSDE(lambda t: 10 * t - 5))

    with pytest.raises(InvalidArgumentError, match=r"gamma is learned.*model\.on"):
        to_config(scoresde.VDMSDE(scoresde.ShiftedGamma(scoresde.VDMSDE(rising()), 1.5)))

    class Other(scoresde.NormalPrior):
        pass

    with pytest.raises(InvalidArgumentError, match="NormalPrior"):
        to_config(scoresde.VPSDE(prior=Other()))


def conventions() -> Iterator[tuple[str, str, str]]:
    """Every prediction in every scale, with one form of the time; the labels of a chain in both scales."""
    cells = [(p, s) for p in PREDICTIONS for s in ("x", "x/alpha") if (p, s) != ("edm", "x/alpha")]
    forms = [t for t in TIME_INPUTS if t != "index"]
    for i, (prediction, scale) in enumerate(cells):
        yield prediction, forms[i % len(forms)], scale
    yield "noise", "index", "x"
    yield "v", "index", "x/alpha"


KINDS = (scoresde.VESDE, scoresde.FlowSDE, scoresde.SubVPSDE, scoresde.VPSDE, scoresde.CosineVPSDE, scoresde.EDMSDE)
OTHERS = (*(kind() for kind in KINDS), scoresde.VDMSDE(scoresde.LinearGamma(-13.3, 13.3)))


def native_model(prediction: str, time_input: str, scale: str) -> ScoreModel:
    chain: Any = None
    if time_input == "index":
        chain = BetaChain.linear(200, 1e-3, 0.06) if scale == "x" else NoiseScales.geometric(200, 0.03, 20.0)
    sde = scoresde.VPSDE(t_min=0.01, t_max=0.9) if chain is None else chain.sde()
    return ScoreModel(tiny().double(), sde, prediction, time_input, scale, chain=chain, sigma_data=0.6)


@pytest.mark.parametrize(("prediction", "time_input", "scale"), list(conventions()))
def test_a_network_gives_the_same_samples_through_every_process(prediction: str, time_input: str, scale: str) -> None:
    """From corresponding states, at the same log-SNRs, DDIM's y = x/alpha are the same numbers to 1e-10."""
    model = native_model(prediction, time_input, scale)
    low, high = log_snr_range(model.native)
    levels = torch.linspace(0.95 * low, 0.9 * high, 5, dtype=torch.float64)
    y = 3 * torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = []
    for sde in (model.native, *OTHERS):
        served = model.on(within(sde, model.limits))
        grid = served.sde.time(levels)
        start = y * served.sde.alpha(grid[0])
        ends.append(scoresde.solve(served.sde, served, start, method="ddim", grid=grid, denoise=True).x)
    assert ends[0].isfinite().all() and not torch.allclose(ends[0], y, atol=0.1)
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-10, atol=1e-10)


def test_a_served_network_knows_score_v_and_flow_of_the_process_that_it_serves() -> None:
    model = native_model("noise", "log_snr", "x")
    sde = within(scoresde.FlowSDE(), model.limits)
    served, t = model.on(sde), torch.tensor([0.3, 0.7], dtype=torch.float64)
    x = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data, noise = served.data(x, t), served.noise(x, t)
    a, s = sde.alpha(t)[:, None, None, None], sde.sigma(t)[:, None, None, None]
    torch.testing.assert_close(a * data + s * noise, x)
    torch.testing.assert_close(served(x, t), -noise / s)
    torch.testing.assert_close(served.v(x, t), a * noise - s * data)
    torch.testing.assert_close(served.flow(x, t), noise - data)
    for i in range(2):  # a batch of times and one time alike
        torch.testing.assert_close(served.data(x[i : i + 1], float(t[i])), data[i : i + 1])
    assert torch.equal(served.on(model.native).data(x, t), model.data(x, t))
    assert torch.autograd.gradcheck(lambda x: served(x, t), x.requires_grad_())


def test_beyond_what_the_network_knows_is_refused_and_can_be_trimmed() -> None:
    model = native_model("noise", "t", "x")
    with pytest.raises(InvalidArgumentError, match=r"13\.81 to -13\.81.*within"):
        model.on(scoresde.FlowSDE())
    flow = within(scoresde.FlowSDE(), model.limits)
    assert log_snr_range(flow) == pytest.approx(model.limits)
    assert flow.prior.std == pytest.approx(float(flow.sigma(flow.t_max)))
    assert model.on(flow).sde is flow and within(flow, model.limits) is flow
    whole = scoresde.FlowSDE()  # an end that differs by rounding stays
    assert within(whole, (0.0, log_snr_range(whole)[1] * (1 - 1e-12))).t_min == whole.t_min
    assert within(whole, (log_snr_range(whole)[0] * (1 - 1e-12), 0.0)).t_max == whole.t_max
    half = scoresde.FlowSDE(t_min=0.5 - 1e-8)
    assert within(half, (-5.0, 0.0)).t_min == half.t_min
    assert within(scoresde.VPSDE(), model.limits).prior.std == 1.0
    with pytest.raises(InvalidArgumentError, match="nothing is between"):
        within(scoresde.FlowSDE(t_min=0.999, t_max=0.9999), model.limits)


def test_the_limit_without_signal_is_kept() -> None:
    """A flow network starts a cosine process where alpha is 0."""
    model = ScoreModel(tiny().double(), scoresde.FlowSDE(t_max=1.0), "flow")
    sde = scoresde.CosineVPSDE(t_max=1.0, t_min=0.05)
    x = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    through = scoresde.solve(sde, model.on(sde), x, method="ddim", grid="time", steps=8, denoise=True).x
    grid = model.native.time(sde.log_snr(torch.linspace(1.0, 0.05, 9, dtype=torch.float64)))
    native = scoresde.solve(model.native, model, x, method="ddim", grid=grid, denoise=True).x
    torch.testing.assert_close(through, native, rtol=1e-9, atol=1e-9)


def test_a_learned_variance_belongs_to_its_own_process() -> None:
    chain = BetaChain.linear()
    options: dict[str, Any] = {"chain": chain, "variance": "learned_range", "event_shape": (1, 2, 2)}
    model = ScoreModel(tiny(2).double(), chain.sde(), "noise", "index", **options)
    served = model.on(within(scoresde.VESDE(), model.limits))
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    assert served.data(x, 0.5).shape == x.shape and not served.has_variance and model.has_variance
    with pytest.raises(InvalidArgumentError, match="own process"):
        served.variance(x, 0.5)
    assert served.on(chain.sde()).variance(x, 5.0).shape == x.shape


def models() -> dict[str, Callable[[], ScoreModel]]:
    vp, ddpm, found = PROCESSES["vp"], BetaChain.linear, {}
    for (name, make), prediction in zip(PROCESSES.items(), itertools.cycle(PREDICTIONS)):
        found[name] = lambda m=make, p=prediction: ScoreModel(tiny(), m(), p)
    for prediction in PREDICTIONS:
        found[f"prediction-{prediction}"] = lambda p=prediction: ScoreModel(tiny(), vp(), p)
    for form in TIME_INPUTS:
        found[f"time-{form}"] = lambda t=form: ScoreModel(tiny(), vp(), "data", t, "x/alpha")
    for name, chain in CHAINS.items():
        found[f"chain-{name}"] = lambda c=chain: ScoreModel(tiny(), c().sde(), "noise", "index", chain=c())
    options: dict[str, Any] = {"time_input": "index", "variance": "learned_range"}
    return found | {"learned": lambda: ScoreModel(tiny(2), ddpm().sde(), "noise", chain=ddpm(), **options)}


@pytest.mark.parametrize("name", models())
def test_what_is_saved_is_what_is_loaded(name: str, tmp_path: Path) -> None:
    model = models()[name]()
    save(model, tmp_path / "m", event_shape=(1, 1, 2), levels=17, data_range=(0, 1), labels=Labels("label", 3, 3))
    back = load(tmp_path / "m")
    assert back.config.levels == 17 and back.config.data_range == (0.0, 1.0) and back.event_shape == (1, 1, 2)
    assert (back.chain is None) == (model.chain is None)
    loaded = back.score()
    x = torch.randn(3, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(model.sde.t_min, model.sde.t_max, 5, dtype=torch.float64)[1:4]
    with torch.no_grad():
        assert torch.equal(loaded.data(x, t), model.data(x, t)) and torch.equal(loaded(x, t), model(x, t))
        if model.has_variance:
            assert torch.equal(loaded.variance(x, t), model.variance(x, t))
    assert loaded.has_noise_limit == model.has_noise_limit
    save(back, tmp_path / "again")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "m" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_a_learned_gamma_is_in_the_file_of_the_weights(tmp_path: Path) -> None:
    model = ScoreModel(tiny(), scoresde.VDMSDE(rising()), "noise", "log_snr", event_shape=(1, 2, 2))
    save(model, tmp_path)
    back = load(tmp_path)
    assert float(back.native.gamma.bend) == pytest.approx(0.7)  # type: ignore[union-attr]
    assert not back.native.gamma.bend.requires_grad  # type: ignore[union-attr]
    assert back.sde.log_snr(0.4) == model.sde.log_snr(0.4) != scoresde.VDMSDE(Rising()).log_snr(0.4)
    with pytest.raises(InvalidArgumentError, match="learned"):
        Pretrained(back.net, back.config)
    straight = to_config(scoresde.VDMSDE())["arguments"]["gamma"]
    rewrite(tmp_path, lambda c: c["process"]["arguments"].update(gamma=straight))
    with pytest.raises(CheckpointMismatchError, match=r"unexpected @process.gamma.bend"):
        load(tmp_path)


def test_a_loaded_network_serves_other_processes(tmp_path: Path) -> None:
    chain = BetaChain.linear()
    save(ScoreModel(tiny(), chain.sde(), "noise", "index", chain=chain, event_shape=(1, 2, 2)), tmp_path)
    network = load(tmp_path)
    assert network.limits == pytest.approx((-10.117, 9.210), abs=1e-3)
    with pytest.raises(InvalidArgumentError, match=r"network\.process\(sde\)"):
        network.score(scoresde.FlowSDE())
    flow = network.process(scoresde.FlowSDE())
    assert scoresde.solve(flow, network.score(flow), method="ddim", steps=3).x.isfinite().all()
    assert network.process(scoresde.VPSDE()).t_min == 1e-3  # all of it is known
    with pytest.raises(TypeError, match="sde"):
        network.score(3)  # type: ignore[arg-type]


def test_what_a_user_forgets_is_named(tmp_path: Path) -> None:
    sde, out, shape = scoresde.VPSDE(), tmp_path / "n", (1, 2, 2)
    bare = tiny()
    del bare.arguments
    given = ScoreModel(bare, sde, "noise", event_shape=shape)
    save(given, tmp_path / "m", kwargs={"channels": 1, "outputs": 1})
    assert load(tmp_path / "m").config.kwargs == {"channels": 1, "outputs": 1}
    wrong = {"channels": 1, "outputs": 2}
    assert_refused(
        [
            (lambda: save(given, out), V, "kwargs"),
            (lambda: save(given, out, kwargs=wrong), CheckpointMismatchError, "shape"),
            (lambda: save(ScoreModel(tiny(), sde, "noise"), out), V, "event_shape"),
            (lambda: save(ScoreModel(nn.Linear(2, 2), sde, "noise"), out), V, "ARCHITECTURES"),
            (lambda: save(ScoreModel(tiny(), sde, "noise", lambda t: t, event_shape=shape), out), V, "time_input"),
            (lambda: save(load(tmp_path / "m"), out, levels=3), V, "levels"),
        ]
    )
    assert not out.exists()


def chain_of(**kept: Any) -> Callable[[dict], None]:
    return put("chain", {"name": "BetaChain", "log_snrs": [1.0, 0.0], "labels": [0, 1], "places": None, **kept})


HOSTILE = [
    put("process", None),
    *[put("process", "name", name) for name in ("GaussianSDE", "os.system")],
    put("process", "arguments", {}),
    put("process", "arguments", "s", "0.008"),
    put("process", "arguments", "s", {"name": "LinearGamma", "arguments": {"gamma_min": -1.0, "gamma_max": 1.0}}),
    put("process", "arguments", "t_min", 0.1),
    put("process", "t_min", 2.0),
    put("process", "prior", {"std": 0.0, "mean": 0.0}),
    put("process", "prior", {"std": 1.0, "mean": [[1.0], [1.0, 2.0]]}),
    put("process", "extra", 1),
    *[chain_of(name=name) for name in ("Chain", ["BetaChain"])],
    *[chain_of(log_snrs=values) for values in ([0.0, 1.0], [1.0, "a"])],
    *[chain_of(labels=values) for values in ([0], [0, 1.5], [0, 10**30])],
    chain_of(places=[0, 7]),
    chain_of(log_snrs=[1.0], labels=[0]),
    *[put(key, "none") for key in ("prediction", "time_input", "input_scale", "variance", "format")],
    *[put("levels", value) for value in (1, 10**9, 2.0)],
    *[put("data_range", value) for value in ([1.0, -1.0], [-1, "1"], [0.0], None)],
    *[put("format", value) for value in (1, 3, None)],
    lambda c: c.pop("chain"),
]


def test_a_hostile_config_is_refused(tmp_path: Path) -> None:
    save(ScoreModel(tiny(), scoresde.CosineVPSDE(), "v"), tmp_path, event_shape=(1, 2, 2), levels=4, data_range=(-1, 1))
    load(tmp_path)
    loaded = changed(tmp_path, load)
    assert_refused([(lambda c=c: loaded(c), CorruptCheckpointError, r"config\.json") for c in HOSTILE])


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(8.0))

    def forward(self, t: Tensor) -> Tensor:
        return self.slope * (t - 0.5)


def test_a_learned_gamma_that_does_not_rise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUNCTIONS, "Line", Line)
    gamma = Line()
    model = ScoreModel(tiny(), scoresde.VDMSDE(gamma), "noise", event_shape=(1, 2, 2))
    gamma.slope.data.neg_()
    save(model, tmp_path)
    with pytest.raises(CheckpointError, match="learned part"):
        load(tmp_path)
