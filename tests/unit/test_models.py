"""Score networks: one exact denoiser in every convention, preconditioning, dtypes, context, limits, refusals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from scoresde import (
    VESDE,
    VPSDE,
    CosineVPSDE,
    FlowSDE,
    InvalidArgumentError,
    InvalidTypeError,
    ScoreFnError,
    ScoreModel,
)
from tests.unit.refusals import assert_refused
from tests.unit.strategies import PROCESSES, times

F64 = torch.float64
V, T = InvalidArgumentError, InvalidTypeError
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
    largest = x.to(F64).abs() + exact.alpha * exact.data.abs() + exact.sigma * exact.noise.abs()
    bound = factor * eps * largest.amax(1, keepdim=True)
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
        assert float(excess.max()) <= 1, (model, name, float(excess.max()))


CONVENTIONS = [(p, s) for p in PREDICTIONS for s in ("x", "x/alpha") if (p, s) != ("edm", "x/alpha")]


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("process", PROCESSES)
def test_conventions_agree(process: str, every: bool) -> None:
    """By default each prediction on each process with one form of the time, and with all over the processes."""
    sde = PROCESSES[process]()
    t = times(sde, 9)
    x = states(sde, t)
    exact = truth(sde, x, t)
    first = list(PROCESSES).index(process)
    for i, (prediction, input_scale) in enumerate(CONVENTIONS):
        for time_input in TIME_INPUTS if every else [TIME_INPUTS[(first + i) % len(TIME_INPUTS)]]:
            model = model_of(sde, t, prediction, time_input, input_scale)
            agrees(model, sde, x, t, factor=100)
            agrees(model, sde, x.float(), t, factor=100)
            # and plainly, in the middle of the interval
            for got, want in ((model.noise(x, t), exact.noise), (model.data(x, t), exact.data)):
                allowed = 1e-10 * max(1.0, float(want[3:6].abs().max()))
                assert float((got - want)[3:6].abs().max()) < allowed, (prediction, input_scale, time_input)


def test_predictions_have_other_libraries_names() -> None:
    x, sde = torch.ones(2, 3, dtype=F64), VPSDE()
    names = {"epsilon": "noise", "eps": "noise", "sample": "data", "x0": "data", "x_start": "data"}
    for theirs, ours in (names | {"v_prediction": "v", "flow_prediction": "flow"}).items():
        first, second = (ScoreModel(lambda x, t: x, sde, name) for name in (theirs, ours))
        assert first.prediction == ours and torch.equal(first(x, 0.3), second(x, 0.3)), theirs
    with pytest.raises(InvalidArgumentError, match="velocity"):
        ScoreModel(lambda x, t: x, sde, "velocity")


def test_time_may_be_a_float_a_scalar_or_one_per_sample() -> None:
    sde = VPSDE()
    t = torch.full((4,), 0.3, dtype=F64)
    x = states(sde, t)
    for prediction in PREDICTIONS:
        model = model_of(sde, t, prediction, "log_snr")
        for other in (0.3, torch.tensor(0.3, dtype=F64), t[:1]):
            assert torch.equal(model(x, other), model(x, t)), prediction


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


def test_which_models_have_the_noise_limit() -> None:
    for prediction, options, has in (
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
    ):
        model = ScoreModel(lambda x, t: x, FlowSDE(), prediction, **options)
        assert model.has_noise_limit is has, (prediction, options)


def test_data_is_exact_where_the_noise_is_tiny() -> None:
    sde = VPSDE(t_min=1e-12)
    for time, prediction in itertools.product((1e-6, 1e-10), ("score", "noise", "v", "flow", "edm")):
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


def test_models_reach_time_zero() -> None:
    sde = FlowSDE(t_min=0.0)
    x, eps = torch.randn(2, 4, 3, dtype=F64, generator=torch.Generator().manual_seed(3))
    for prediction in ("noise", "v", "flow"):
        output = {"noise": eps, "v": eps, "flow": eps - x}[prediction]  # v = alpha noise, dx/dt = noise - x0
        model = ScoreModel(lambda y, t, output=output: output, sde, prediction)
        for got, want in ((model.data, x), (model.noise, eps), (model.flow, eps - x)):
            torch.testing.assert_close(got(x, 0.0), want, rtol=1e-13, atol=1e-13)


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


def test_a_module_is_called_in_its_own_dtype() -> None:
    """Anything else in the dtype of the state, but half precision in float32."""
    own, half = (torch.float32, F64, torch.bfloat16), torch.float16
    for prediction, dtype, net_dtype in itertools.product(("noise", "edm"), (*own, half), own):
        net = Net().to(net_dtype)
        model = ScoreModel(net, VPSDE(), prediction, "t")
        x = torch.ones(2, 3, dtype=dtype)
        for method in (model, model.noise, model.data, model.v, model.flow):
            assert method(x, 0.3).dtype == dtype, (prediction, net_dtype)
        assert {(a.dtype, b.dtype) for a, b, _ in net.calls} == {(net_dtype, net_dtype)}, (prediction, dtype)
    bare = Net(with_parameters=False)
    for dtype, callable_ in itertools.product(own, (bare, bare.forward)):
        bare.calls.clear()
        assert ScoreModel(callable_, VPSDE(), "noise")(torch.ones(2, 3, dtype=dtype), 0.3).dtype == dtype
        inner = torch.float32 if dtype == torch.bfloat16 else dtype
        assert [(a.dtype, b.dtype) for a, b, _ in bare.calls] == [(inner, inner)]


def test_gradients_flow_to_the_state_and_the_parameters() -> None:
    net = Net()
    x = torch.ones(2, 3, requires_grad=True)
    ScoreModel(net, VPSDE(), "noise")(x, 0.5).sum().backward()
    sigma = float(VPSDE().sigma(0.5))
    torch.testing.assert_close(x.grad, torch.full_like(x, -0.5 / sigma))
    torch.testing.assert_close(net.scale.grad, torch.tensor(-6 / sigma))


def test_models_work_in_inference_mode_and_leave_their_input_alone() -> None:
    net = Net()
    for i, make in enumerate(PROCESSES.values()):
        sde, prediction = make(), PREDICTIONS[i % len(PREDICTIONS)]
        model = ScoreModel(net, sde, prediction)
        t = times(sde, 3).float()
        x = torch.ones(3, 2)
        outside = [f(x, t) for f in (model, model.noise, model.data, model.v, model.flow)]
        with torch.inference_mode():
            y = torch.ones(3, 2)
            inside = [f(y, t) for f in (model, model.noise, model.data, model.v, model.flow)]
        assert all(torch.equal(a, b) for a, b in zip(outside, inside, strict=True)), model
        assert torch.equal(x, torch.ones(3, 2)) and torch.equal(y, x), model


def test_context_numbers_become_one_per_sample_and_that_of_the_call_goes_first() -> None:
    net, table = Net(), torch.arange(6.0).reshape(3, 2)
    given: dict[str, Any] = {"label": 3, "scale": 0.5, "flag": True, "mode": "fast"}
    model = ScoreModel(net, VPSDE(), "noise", context=given)
    given["label"] = 5
    for method in (model, model.noise, model.data, model.v, model.flow):
        method(torch.ones(3, 2), 0.5, table=table, zero_d=torch.tensor(7), nothing=None)
        context = net.calls[-1][2]
        for name, value in (("label", 3), ("scale", 0.5), ("flag", True), ("zero_d", 7)):
            assert context[name].tolist() == [value] * 3, name
        assert context["label"].dtype == torch.int64 and context["table"] is table
        assert context["mode"] == "fast" and context["nothing"] is None
        method(torch.ones(2, 2), 0.5, label=torch.tensor([8, 9]))
        assert net.calls[-1][2]["label"].tolist() == [8, 9]


IDENTITY = lambda x, t: x  # noqa: E731

REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "net": (lambda: ScoreModel(3, VPSDE(), "noise"), T, "`net` must be callable .* got int"),
    "process": (lambda: ScoreModel(IDENTITY, "vp", "noise"), T, "`sde` must be an affine process"),
    "prediction": (lambda: ScoreModel(IDENTITY, VPSDE(), "nois"), V, "`prediction`: .*did you mean 'noise'"),
    "edm scale": (lambda: ScoreModel(IDENTITY, VPSDE(), "edm", input_scale="x/alpha"), V, "leave `input_scale` out"),
}


METHODS = ("__call__", "noise", "data", "v", "flow")


def test_constructor_refuses() -> None:
    assert_refused(REFUSED)


def test_a_wrong_output_is_refused() -> None:
    shapes = [(1, 2), (3, 1), (3, 4), (3, 2, 1), ()]
    outputs: list[tuple[Any, str]] = [(torch.zeros(shape), f"got {shape}") for shape in shapes]
    outputs += [((torch.zeros(3, 2),), "got tuple"), (None, "got NoneType")]
    x = torch.ones(3, 2)

    def asked(output: Any, method: str) -> Callable[[], Any]:
        model = ScoreModel(lambda x, t: output, VPSDE(), "noise")
        return lambda: getattr(model, method)(x, 0.5)

    cells = itertools.product(outputs, METHODS)
    assert_refused({f"{m}, {got}": (asked(out, m), ScoreFnError, ("(3, 2)", got)) for (out, got), m in cells})
    kinds = (torch.int64, torch.bool, torch.complex64)
    assert_refused([(asked(x.to(kind), "__call__"), ScoreFnError, str(kind)) for kind in kinds])


def test_bad_calls_are_refused() -> None:
    model, x = ScoreModel(IDENTITY, VPSDE(), "noise"), torch.ones(3, 2)
    calls: list[tuple[Any, Any, type[Exception], str]] = [
        ([1.0], 0.5, T, "`x` must be a tensor"),
        (x.long(), 0.5, T, "`x` must have a floating-point dtype"),
        (x[:, 0], 0.5, V, "`x` must be .batch, "),
        (x, torch.ones(2), V, r"`t` must be a scalar or \(batch,\) = \(3,\), got .*2,"),
        (x, torch.ones(3, 1), V, r"`t` must be a scalar .* got shape \(3, 1\)"),
        (x, None, T, "`t` must be a number"),
        (x, math.nan, V, "`t` must be .* nan"),
    ]
    assert_refused(
        {
            f"{method}, {words}": (lambda m=method, x=x, t=t: getattr(model, m)(x, t), error, words)
            for (x, t, error, words), method in itertools.product(calls, METHODS)
        }
    )


@pytest.mark.parametrize("name", ["prediction", "time_input", "input_scale", "variance_name"])
def test_what_was_made_of_a_convention_is_not_changed_afterwards(name: str) -> None:
    model = ScoreModel(lambda x, t: x, VPSDE(), "noise")
    with pytest.raises(AttributeError, match=f"`{name}` belongs to a ScoreModel"):
        setattr(model, name, "data")
