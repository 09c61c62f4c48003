"""Score networks: one exact denoiser in every convention, preconditioning, dtypes, context, limits, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scoresde import (
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    CosineVPSDE,
    FlowSDE,
    InvalidArgumentError,
    InvalidTypeError,
    NormalPrior,
    ScoreFnError,
    ScoreModel,
    ScoreSDEError,
)
from tests.unit.strategies import PROCESSES, named, times

F64 = torch.float64
PREDICTIONS = ["score", "noise", "data", "v", "flow", "edm"]
TIME_INPUTS = ["t", "sigma", "rho", "log_snr", "edm", "callable"]
SIGMA_DATA = 0.7


class Truth(NamedTuple):
    """The exact x0 and noise estimates of N(mean, spread^2) data, and the schedule, at (batch, 1) times."""

    data: Tensor
    noise: Tensor
    alpha: Tensor
    sigma: Tensor
    dalpha: Tensor
    dsigma: Tensor

    @property
    def outputs(self) -> dict[str, Tensor]:
        """What a network of each prediction type must return, from the definitions."""
        rho2 = (self.sigma / self.alpha) ** 2
        y = self.data + self.sigma / self.alpha * self.noise
        c_skip = SIGMA_DATA**2 / (rho2 + SIGMA_DATA**2)
        c_out = rho2.sqrt() * SIGMA_DATA / (rho2 + SIGMA_DATA**2).sqrt()
        return {
            "score": -self.noise / self.sigma,
            "noise": self.noise,
            "data": self.data,
            "v": self.alpha * self.noise - self.sigma * self.data,
            "flow": self.dalpha * self.data + self.dsigma * self.noise,
            "edm": (self.data - c_skip * y) / c_out,
        }


def truth(sde: Any, x: Tensor, t: Tensor) -> Truth:
    """In float64, from a state and times (batch,)."""
    mean = torch.linspace(-0.5, 0.8, x.shape[1], dtype=F64)
    spread = torch.linspace(0.2, 1.5, x.shape[1], dtype=F64)
    node = sde.nodes(t)
    alpha, sigma, dalpha, dsigma = (v.reshape(-1, 1) for v in (node.alpha, node.sigma, node.dalpha, node.dsigma))
    scaled = (x.to(F64) - alpha * mean) / (alpha**2 * spread**2 + sigma**2)
    return Truth(mean + alpha * spread**2 * scaled, sigma * scaled, alpha, sigma, dalpha, dsigma)


def told(time_input: str, sde: Any, t: Tensor) -> Tensor:
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    return {
        "t": lambda: t,
        "sigma": lambda: sigma,
        "rho": lambda: sigma / alpha,
        "log_snr": lambda: torch.log(alpha**2 / sigma**2),
        "edm": lambda: torch.log(sigma / alpha) / 4,
        "callable": lambda: 999 * t + 1,
    }[time_input]()


def model_of(sde: Any, t: Tensor, prediction: str, time_input: str, input_scale: str = "x") -> ScoreModel:
    """The exact denoiser behind a network of the given convention; the network checks what it is told."""

    def net(given: Tensor, time: Tensor) -> Tensor:
        single = given.dtype == torch.float32
        assert time.shape == (len(given),)
        assert time.dtype == given.dtype
        wanted = told(time_input, sde, t)
        torch.testing.assert_close(time.to(F64), wanted, rtol=2e-7 if single else 1e-12, atol=1e-7 if single else 1e-12)
        alpha, sigma = (v.reshape(-1, 1) for v in (sde.alpha(t), sde.sigma(t)))
        if prediction == "edm":  # c_in y
            x = given.to(F64) * ((sigma / alpha) ** 2 + SIGMA_DATA**2).sqrt() * alpha
        else:
            x = given.to(F64) * (alpha if input_scale == "x/alpha" else 1)
        return truth(sde, x, t).outputs[prediction].to(given.dtype)

    return ScoreModel(
        net,
        sde,
        prediction,
        (lambda u: 999 * u + 1) if time_input == "callable" else time_input,
        input_scale,
        sigma_data=SIGMA_DATA,
    )


def states(sde: Any, t: Tensor, seed: int = 0) -> Tensor:
    x0, z = torch.randn(2, len(t), 3, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return sde.perturb(x0, t, z)[0]


def agrees(model: ScoreModel, sde: Any, x: Tensor, t: Tensor, factor: float) -> None:
    """All outputs are the truth within a multiple of the rounding error that the change of convention allows."""
    exact = truth(sde, x, t)
    eps = torch.finfo(x.dtype).eps
    # x, alpha x0 and sigma noise are known to eps of the largest of them
    bound = (
        factor
        * eps
        * (x.to(F64).abs() + exact.alpha * exact.data.abs() + exact.sigma * exact.noise.abs()).amax(1, keepdim=True)
    )
    rate = exact.dalpha.abs() / exact.alpha + exact.dsigma.abs() / exact.sigma
    wanted = exact.outputs
    for name, got, allowed in (
        ("score", model(x, t), bound / exact.sigma**2),
        ("noise", model.noise(x, t), bound / exact.sigma),
        ("data", model.data(x, t), bound / exact.alpha),
        ("v", model.v(x, t), bound * (exact.alpha / exact.sigma + exact.sigma / exact.alpha)),
        ("flow", model.flow(x, t), bound * rate),
    ):
        assert got.dtype == x.dtype
        assert got.shape == x.shape
        excess = (got.to(F64) - wanted[name]).abs() / allowed
        assert float(excess.max()) <= 1, (name, float(excess.max()))


CONVENTIONS = [
    (p, t, s) for p in PREDICTIONS for t in TIME_INPUTS for s in ("x", "x/alpha") if (p, s) != ("edm", "x/alpha")
]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize(("prediction", "time_input", "input_scale"), CONVENTIONS)
def test_conventions_agree(process: str, prediction: str, time_input: str, input_scale: str) -> None:
    sde = PROCESSES[process]()
    t = times(sde, 9)
    x = states(sde, t)
    model = model_of(sde, t, prediction, time_input, input_scale)
    agrees(model, sde, x, t, factor=100)
    agrees(model, sde, x.float(), t, factor=100)
    # and plainly, in the middle of the interval
    exact = truth(sde, x, t)
    for got, want in ((model.noise(x, t), exact.noise), (model.data(x, t), exact.data)):
        assert float((got - want)[3:6].abs().max()) < 1e-10 * max(1.0, float(want[3:6].abs().max()))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        *[("epsilon", "noise"), ("eps", "noise"), ("sample", "data"), ("x0", "data"), ("x_start", "data")],
        *[("v_prediction", "v"), ("flow_prediction", "flow")],
    ],
)
def test_predictions_have_other_libraries_names(theirs: str, ours: str) -> None:
    x, sde = torch.ones(2, 3, dtype=F64), VPSDE()
    first, second = (ScoreModel(lambda x, t: x, sde, name) for name in (theirs, ours))
    assert first.prediction == ours and torch.equal(first(x, 0.3), second(x, 0.3))
    with pytest.raises(InvalidArgumentError, match="velocity"):
        ScoreModel(lambda x, t: x, sde, "velocity")


@given(
    sde=named,
    prediction=st.sampled_from(PREDICTIONS),
    time_input=st.sampled_from(TIME_INPUTS),
    place=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100)
def test_conventions_agree_on_random_processes(
    sde: Any, prediction: str, time_input: str, place: float, seed: int
) -> None:
    t = torch.tensor([sde.t_min + (sde.t_max - sde.t_min) * place], dtype=F64)
    agrees(model_of(sde, t, prediction, time_input), sde, states(sde, t, seed), t, factor=200)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_time_may_be_a_float_a_scalar_or_one_per_sample(prediction: str) -> None:
    sde = VPSDE()
    t = torch.full((4,), 0.3, dtype=F64)
    x = states(sde, t)
    model = model_of(sde, t, prediction, "log_snr")
    wanted = model(x, t)
    for other in (0.3, torch.tensor(0.3, dtype=F64), t[:1]):
        assert torch.equal(model(x, other), wanted)


@given(
    sde=named,
    sigma_data=st.floats(0.05, 5.0),
    place=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100)
def test_edm_preconditioning_is_the_published_one(sde: Any, sigma_data: float, place: float, seed: int) -> None:
    t = torch.tensor([sde.t_min + (sde.t_max - sde.t_min) * place], dtype=F64)
    x = states(sde, t, seed)
    rho = (sde.sigma(t) / sde.alpha(t)).reshape(-1, 1)
    y = x / sde.alpha(t).reshape(-1, 1)
    c_skip = sigma_data**2 / (rho**2 + sigma_data**2)
    c_out = rho * sigma_data / (rho**2 + sigma_data**2).sqrt()
    c_in = 1 / (rho**2 + sigma_data**2).sqrt()

    def raw(given: Tensor, c_noise: Tensor) -> Tensor:
        torch.testing.assert_close(given, c_in * y, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(c_noise, rho[:, 0].log() / 4, rtol=1e-11, atol=1e-13)
        return torch.sin(3 * given) + c_noise.reshape(-1, 1)

    model = ScoreModel(raw, sde, "edm", sigma_data=sigma_data)
    denoised = c_skip * y + c_out * raw(c_in * y, rho[:, 0].log() / 4)
    scale = float((c_skip * y.abs() + c_out * 3).max())
    torch.testing.assert_close(model.data(x, t), denoised, rtol=0, atol=1e-11 * scale)
    # the score is (D - y) / rho^2 in y, and that over alpha in x
    score = (denoised - y) / rho**2 / sde.alpha(t).reshape(-1, 1)
    magnitude = float((y.abs() + scale).max() / (rho**2 * sde.alpha(t).reshape(-1, 1)).min())
    torch.testing.assert_close(model(x, t), score, rtol=0, atol=1e-11 * magnitude)


def test_edm_defaults() -> None:
    model = ScoreModel(lambda x, t: x, EDMSDE(), "edm")
    assert (model.time_input, model.sigma_data) == ("edm", 0.5)
    assert ScoreModel(lambda x, t: x, EDMSDE(), "data").time_input == "t"


# The ends


def test_flow_has_its_noise_limit() -> None:
    for sde in (FlowSDE(t_max=1.0), CosineVPSDE(t_max=1.0)):
        x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
        out = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
        # at alpha = 0, sigma = 1: x is the noise, v = -x0, and dx/dt = alpha' x0 + sigma' noise
        node = sde.node(1.0)
        for prediction, data in (("data", out), ("v", -out), ("flow", (out - node.dsigma * x) / node.dalpha)):
            model = ScoreModel(lambda y, t, out=out: out, sde, prediction)
            assert model.has_noise_limit
            torch.testing.assert_close(model.data(x, 1.0), data, rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(model.noise(x, 1.0), x, rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(model(x, 1.0), -x, rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(model.v(x, 1.0), -data, rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(model.flow(x, 1.0), node.dalpha * data + node.dsigma * x, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("prediction", "options", "has"),
    [
        ("data", {}, True),
        ("v", {}, True),
        ("flow", {"time_input": "sigma"}, True),
        ("flow", {"time_input": lambda t: t}, True),
        ("score", {}, False),
        ("noise", {}, False),
        ("edm", {}, False),
        ("data", {"time_input": "rho"}, False),
        ("data", {"time_input": "log_snr"}, False),
        ("data", {"time_input": "edm"}, False),
        ("data", {"input_scale": "x/alpha"}, False),
    ],
)
def test_which_models_have_the_noise_limit(prediction: str, options: dict[str, Any], has: bool) -> None:
    assert ScoreModel(lambda x, t: x, FlowSDE(), prediction, **options).has_noise_limit is has


@pytest.mark.parametrize("prediction", ["score", "noise", "v", "flow", "edm"])
@pytest.mark.parametrize("time", [1e-6, 1e-10])
def test_data_is_exact_where_the_noise_is_tiny(prediction: str, time: float) -> None:
    sde = VPSDE(t_min=1e-12)
    t = torch.full((5,), time, dtype=F64)
    x = states(sde, t)
    model = model_of(sde, t, prediction, "log_snr")
    exact = truth(sde, x, t)
    torch.testing.assert_close(model.data(x, t), exact.data, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.noise(x, t), exact.noise, rtol=1e-10, atol=1e-10)


def test_noise_is_exact_where_the_data_is_drowned() -> None:
    sde = VESDE(sigma_max=1e6)
    t = torch.ones(5, dtype=F64)
    x = states(sde, t)
    for prediction in ("noise", "data", "v", "flow", "edm"):
        model = model_of(sde, t, prediction, "rho")
        torch.testing.assert_close(model.noise(x, t), truth(sde, x, t).noise, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("prediction", ["noise", "v", "flow"])
def test_models_reach_time_zero(prediction: str) -> None:
    sde = FlowSDE(t_min=0.0)
    x, eps = torch.randn(2, 4, 3, dtype=F64, generator=torch.Generator().manual_seed(3))
    output = {"noise": eps, "v": eps, "flow": eps - x}[prediction]  # v = alpha noise, dx/dt = noise - x0
    model = ScoreModel(lambda y, t: output, sde, prediction)
    torch.testing.assert_close(model.data(x, 0.0), x, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(model.noise(x, 0.0), eps, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(model.flow(x, 0.0), eps - x, rtol=1e-13, atol=1e-13)


# Dtypes and modules


class Net(nn.Module):
    """Remembers what it was called with."""

    def __init__(self, *, with_parameters: bool = True) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.scale = nn.Parameter(torch.tensor(0.5)) if with_parameters else None
        self.calls: list[tuple[Tensor, Tensor, dict[str, Any]]] = []

    def forward(self, x: Tensor, time: Tensor, **context: Any) -> Tensor:
        self.calls.append((x, time, context))
        return x if self.scale is None else self.scale * x


@pytest.mark.parametrize("net_dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("prediction", ["noise", "edm"])
def test_a_module_is_called_in_its_own_dtype(prediction: str, dtype: torch.dtype, net_dtype: torch.dtype) -> None:
    net = Net().to(net_dtype)
    model = ScoreModel(net, VPSDE(), prediction, "t")
    x = torch.ones(2, 3, dtype=dtype)
    for method in (model, model.noise, model.data, model.v, model.flow):
        assert method(x, 0.3).dtype == dtype
    assert {(a.dtype, b.dtype) for a, b, _ in net.calls} == {(net_dtype, net_dtype)}
    assert all(b.tolist() == [net.calls[0][1][0].item()] * 2 for _, b, _ in net.calls)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_anything_else_is_called_in_the_dtype_of_the_state(dtype: torch.dtype) -> None:
    net = Net(with_parameters=False)
    for callable_ in (net, net.forward):
        net.calls.clear()
        out = ScoreModel(callable_, VPSDE(), "noise")(torch.ones(2, 3, dtype=dtype), 0.3)
        assert out.dtype == dtype
        inner = torch.float32 if dtype == torch.bfloat16 else dtype
        assert [(a.dtype, b.dtype) for a, b, _ in net.calls] == [(inner, inner)]


def test_half_precision_states_are_computed_in_float32() -> None:
    x = torch.full((1, 2), 1.5, dtype=torch.bfloat16)
    model = ScoreModel(lambda y, t: torch.sin(y), VPSDE(), "noise")
    wide = ScoreModel(lambda y, t: torch.sin(y), VPSDE(), "noise").data(x.float(), 0.3)
    assert torch.equal(model.data(x, 0.3), wide.to(torch.bfloat16))


def test_gradients_flow_to_the_state_and_the_parameters() -> None:
    net = Net()
    x = torch.ones(2, 3, requires_grad=True)
    ScoreModel(net, VPSDE(), "noise")(x, 0.5).sum().backward()
    assert x.grad is not None
    assert net.scale.grad is not None
    sigma = float(VPSDE().sigma(0.5))
    torch.testing.assert_close(x.grad, torch.full_like(x, -0.5 / sigma))
    torch.testing.assert_close(net.scale.grad, torch.tensor(-6 / sigma))


def test_models_work_in_inference_mode_and_leave_their_input_alone() -> None:
    net = Net()
    for sde in (make() for make in PROCESSES.values()):
        for prediction in PREDICTIONS:
            model = ScoreModel(net, sde, prediction)
            t = times(sde, 3).float()
            x = torch.ones(3, 2)
            outside = [f(x, t) for f in (model, model.noise, model.data, model.v, model.flow)]
            with torch.inference_mode():
                y = torch.ones(3, 2)
                inside = [f(y, t) for f in (model, model.noise, model.data, model.v, model.flow)]
            assert all(torch.equal(a, b) for a, b in zip(outside, inside, strict=True))
            assert torch.equal(x, torch.ones(3, 2))
            assert torch.equal(y, x)


@pytest.mark.parametrize("event", [(2,), (2, 3), (1, 2, 2), (1, 2, 2, 2)])
def test_any_event_rank(event: tuple[int, ...]) -> None:
    sde = VPSDE()
    t = torch.tensor([0.2, 0.5, 0.8], dtype=F64)
    x = torch.randn(3, *event, dtype=F64, generator=torch.Generator().manual_seed(4))
    for prediction in PREDICTIONS:
        model = ScoreModel(lambda y, u: torch.sin(y), sde, prediction)
        rows = torch.cat([model(x[i : i + 1], float(t[i])) for i in range(3)])
        torch.testing.assert_close(model(x, t), rows, rtol=1e-13, atol=1e-13)


# Context


def test_context_numbers_become_one_per_sample_and_the_rest_is_passed_on() -> None:
    net = Net()
    table = torch.arange(6.0).reshape(3, 2)
    model = ScoreModel(net, VPSDE(), "noise", context={"label": 3, "scale": 0.5, "flag": True, "mode": "fast"})
    model(torch.ones(3, 2), 0.5, table=table, zero_d=torch.tensor(7), nothing=None)
    context = net.calls[0][2]
    assert context["label"].tolist() == [3, 3, 3]
    assert context["label"].dtype == torch.int64
    assert context["scale"].tolist() == [0.5, 0.5, 0.5]
    assert context["flag"].tolist() == [True, True, True]
    assert context["zero_d"].tolist() == [7, 7, 7]
    assert context["mode"] == "fast"
    assert context["nothing"] is None
    assert context["table"] is table


def test_context_of_the_call_goes_before_that_of_the_model() -> None:
    net = Net()
    given = {"label": 3}
    model = ScoreModel(net, VPSDE(), "noise", context=given)
    given["label"] = 5
    for method in (model, model.noise, model.data, model.v, model.flow):
        method(torch.ones(2, 2), 0.5)
        assert net.calls[-1][2]["label"].tolist() == [3, 3]
        method(torch.ones(2, 2), 0.5, label=torch.tensor([8, 9]))
        assert net.calls[-1][2]["label"].tolist() == [8, 9]


def test_attributes() -> None:
    model = ScoreModel(lambda x, t: x, VPSDE(), "noise", event_shape=[2, 3])
    assert model.event_shape == (2, 3)
    assert model.rowwise is True
    assert not hasattr(ScoreModel(lambda x, t: x, VPSDE(), "noise"), "event_shape")
    text = repr(ScoreModel(Net(), VPSDE(), "noise", lambda t: t))
    assert text.startswith("ScoreModel(Net, VPSDE(")
    assert "prediction='noise'" in text
    assert "a function of t" in text


# Refusals


class NotAffine(SDE):
    def drift(self, x: Tensor, t: Any) -> Tensor:
        return -x

    def diffusion(self, t: Any) -> Tensor:
        return torch.tensor(1.0)


IDENTITY = lambda x, t: x  # noqa: E731

REFUSED: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    ("net", lambda: ScoreModel(3, VPSDE(), "noise"), InvalidTypeError, "`net` must be callable .* got int"),
    (
        "sde",
        lambda: ScoreModel(IDENTITY, "vp", "noise"),
        InvalidTypeError,
        "`sde` must be an affine process .* got str",
    ),
    (
        "sde not affine",
        lambda: ScoreModel(IDENTITY, NotAffine(t_min=0.0, t_max=1.0, prior=NormalPrior()), "noise"),
        InvalidTypeError,
        "`sde` must be an affine process .* got NotAffine",
    ),
    (
        "prediction",
        lambda: ScoreModel(IDENTITY, VPSDE(), "nois"),
        InvalidArgumentError,
        "`prediction`: unknown name 'nois'; did you mean 'noise'",
    ),
    (
        "input_scale",
        lambda: ScoreModel(IDENTITY, VPSDE(), "noise", input_scale="x/alph"),
        InvalidArgumentError,
        "`input_scale`: unknown name 'x/alph'; did you mean 'x/alpha'",
    ),
    (
        "time_input",
        lambda: ScoreModel(IDENTITY, VPSDE(), "noise", "logsnr"),
        InvalidArgumentError,
        "`time_input`: unknown name 'logsnr'; did you mean 'log_snr'",
    ),
    (
        "edm scale",
        lambda: ScoreModel(IDENTITY, VPSDE(), "edm", input_scale="x/alpha"),
        InvalidArgumentError,
        "leave `input_scale` out",
    ),
    (
        "sigma_data",
        lambda: ScoreModel(IDENTITY, VPSDE(), "edm", sigma_data=0.0),
        InvalidArgumentError,
        "`sigma_data` must be in",
    ),
    (
        "sigma_data text",
        lambda: ScoreModel(IDENTITY, VPSDE(), "edm", sigma_data="a"),
        InvalidTypeError,
        "`sigma_data` must be a number",
    ),
    ("unhashable prediction", lambda: ScoreModel(IDENTITY, VPSDE(), ["noise"]), ScoreSDEError, "`prediction`"),
    ("no prediction", lambda: ScoreModel(IDENTITY, VPSDE(), None), InvalidArgumentError, "`prediction`: unknown name"),
]


@pytest.mark.parametrize(
    ("make", "error", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_constructor_refuses(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "output",
    [
        torch.zeros(1, 2),
        torch.zeros(3, 1),
        torch.zeros(3, 4),
        torch.zeros(3, 2, 1),
        torch.zeros(()),
        (torch.zeros(3, 2),),
        None,
        0.0,
        [0.0],
    ],
    ids=["one row", "one column", "channels doubled", "extra axis", "scalar", "tuple", "none", "float", "list"],
)
@pytest.mark.parametrize("method", ["__call__", "noise", "data", "v", "flow"])
def test_a_wrong_output_is_refused(method: str, output: Any) -> None:
    model = ScoreModel(lambda x, t: output, VPSDE(), "noise")
    got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    with pytest.raises(ScoreFnError) as caught:
        getattr(model, method)(torch.ones(3, 2), 0.5)
    assert "(3, 2)" in str(caught.value)
    assert f"got {got}" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_an_output_that_is_not_floating_point_is_refused(dtype: torch.dtype) -> None:
    model = ScoreModel(lambda x, t: torch.ones_like(x, dtype=dtype), VPSDE(), "noise")
    with pytest.raises(ScoreFnError, match=str(dtype)):
        model(torch.ones(3, 2), 0.5)


@pytest.mark.parametrize(
    ("x", "t", "error", "message"),
    [
        ([1.0], 0.5, InvalidTypeError, "`x` must be a tensor"),
        (torch.ones(2, 2, dtype=torch.int64), 0.5, InvalidTypeError, "`x` must have a floating-point dtype"),
        (torch.ones(2), 0.5, InvalidArgumentError, "`x` must be .batch, "),
        (
            torch.ones(3, 2),
            torch.ones(2),
            InvalidArgumentError,
            r"`t` must be a scalar or \(batch,\) = \(3,\), got .*2,",
        ),
        (torch.ones(3, 2), torch.ones(3, 1), InvalidArgumentError, r"`t` must be a scalar .* got shape \(3, 1\)"),
        (torch.ones(3, 2), None, InvalidTypeError, "`t` must be a number"),
        (torch.ones(3, 2), "half", InvalidTypeError, "`t` must be a number"),
        (torch.ones(3, 2), math.nan, InvalidArgumentError, "`t` must be .* nan"),
    ],
)
def test_bad_calls_are_refused(x: Any, t: Any, error: type[Exception], message: str) -> None:
    model = ScoreModel(IDENTITY, VPSDE(), "noise")
    for method in (model, model.noise, model.data, model.v, model.flow):
        with pytest.raises(error, match=message):
            method(x, t)
