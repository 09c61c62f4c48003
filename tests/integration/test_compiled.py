"""Networks that were compiled, exported or quantised are networks like others: the same results, their
own dtype, their own arguments, and a clear error where something is fixed in them that does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde.scores.fixed import fixed_sizes

# torch.compile looks at `.grad` of what it is given, and torch warns of that where it is no leaf.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
SDE = scoresde.VPSDE()
BATCH = 5


class Net(nn.Module):
    """The score of N(0, I), and a part that is not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.hidden, self.out = nn.Linear(3, 3, bias=False), nn.Linear(4, 8), nn.Linear(8, 3)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        self.main.weight.data = -torch.eye(3)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = torch.tanh(self.hidden(torch.cat([x, time[:, None]], 1)))
        return self.main(x) + 0.1 * self.out(hidden)


def net(dtype: torch.dtype = torch.float32) -> Net:
    return Net().to(dtype).eval()


def inputs(dtype: torch.dtype = torch.float32, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, generator=generator).to(dtype), torch.full((batch,), 0.5, dtype=dtype)


def static(module: nn.Module, **options: Any) -> nn.Module:
    dtype = next(module.parameters()).dtype
    return torch.export.export(module, inputs(dtype), **options).module()


def dynamic(module: nn.Module) -> nn.Module:
    sizes = {0: torch.export.Dim("batch")}
    return static(module, dynamic_shapes=(sizes, sizes))


FORMS: dict[str, Callable[[nn.Module], Any]] = {
    "compiled": lambda module: torch.compile(module, backend="eager"),
    "exported": dynamic,
    "exported, static": static,
    "compiled program": lambda module: torch.compile(dynamic(module), backend="eager"),
}


def made(make: Callable[[nn.Module], Any], module: nn.Module) -> Any:
    """A form of a network, without the notices of torch that some of them are old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(module)


def model(module: Any) -> scoresde.ScoreModel:
    return scoresde.ScoreModel(module, SDE, "score")


def stepped(module: Any, x: Tensor) -> Tensor:
    stepper = scoresde.Stepper(SDE, "dpm_3m", x, prediction=model(module), steps=6)
    while not stepper.done:
        question = stepper.ask()
        stepper.tell(module(question.x, question.t))
    return stepper.x


def fixed(module: Any, x: Tensor) -> Tensor:
    return scoresde.solve(SDE, model(module), x, method="dpm_3m", steps=6).x


USES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "fixed steps": fixed,
    "adaptive": lambda module, x: scoresde.solve(SDE, model(module), x, method="rk45").x,
    "noise": lambda module, x: scoresde.solve(SDE, model(module), x, method="pc", steps=5, seed=0).x,
    "stepper": stepped,
    "density": lambda module, x: scoresde.log_likelihood(SDE, model(module), x, method="rk45", seed=0).log_prob,
}


@pytest.mark.parametrize(
    "name", [pytest.param(f, marks=[pytest.mark.slow] if f == "compiled program" else []) for f in FORMS]
)
def test_a_network_in_another_form_gives_what_it_gives_itself(name: str) -> None:
    """Float32 rounding of a few operations, amplified by a solve of a few steps. Its dtype is found in either
    direction, and its arguments are seen."""
    form, double, x = made(FORMS[name], net()), made(FORMS[name], net(torch.float64)), inputs()[0]
    for use, function in USES.items():
        got, wanted = function(form, x), function(net(), x)
        assert got.dtype == wanted.dtype and torch.allclose(got, wanted, rtol=1e-4, atol=1e-4), use
    for own, module in ((torch.float32, form), (torch.float64, double)):
        for other in (torch.float32, torch.float64):
            got, wanted = fixed(module, inputs(other)[0]), fixed(net(own), inputs(other)[0])
            assert got.dtype == other and torch.allclose(got, wanted, rtol=1e-5, atol=1e-5), (own, other)
    with pytest.raises(scoresde.InvalidArgumentError, match="`context` must have names"):
        scoresde.solve(SDE, model(form), x, method="ddim", steps=3, context={"label": torch.zeros(BATCH)})


def test_a_program_for_one_size_keeps_its_batch_and_refuses_another() -> None:
    for make in (static, lambda module: torch.compile(static(module), backend="eager")):
        program = made(make, net())
        assert fixed_sizes(program) == (BATCH, 3) and not model(program).rowwise
        for method in ("adams", "dpm_3m", "pc"):
            with pytest.raises(scoresde.ScoreFnError, match=r"for x of shape \(5, 3\), got \(7, 3\); solve batch"):
                scoresde.solve(SDE, model(program), inputs(batch=7)[0], method=method)
        with pytest.raises(scoresde.ScoreFnError, match=r"exported for x of shape \(5, 3\), got \(5, 4\)"):
            scoresde.solve(SDE, model(program), torch.ones(5, 4), method="ddim", steps=3)
    program = made(dynamic, net())  # one for any batch is cut with it
    assert fixed_sizes(program) == (None, 3) and model(program).rowwise
    assert scoresde.solve(SDE, model(program), inputs(batch=7)[0], method="adams").x.shape == (7, 3)
    with pytest.raises(scoresde.ScoreFnError, match=r"shape \(any, 3\), got \(5, 4\)"):
        scoresde.solve(SDE, model(program), torch.ones(5, 4), method="ddim", steps=3)
    assert fixed_sizes(nn.ReLU()) == fixed_sizes(torch.fx.symbolic_trace(nn.ReLU())) == ()


@pytest.mark.filterwarnings("ignore:quantized..linear_dynamic")
def test_a_quantised_network_has_no_gradient() -> None:
    """Its weights and activations have 8 bits."""
    module = made(lambda m: torch.ao.quantization.quantize_dynamic(m, {nn.Linear}), net())
    x = inputs()[0]
    assert torch.allclose(fixed(module, x), fixed(net(), x), rtol=0.05, atol=0.05)
    with pytest.raises(scoresde.ScoreFnError, match=r"blocks gradients .*quantised layers"):
        scoresde.log_likelihood(SDE, model(module), x, divergence="exact")


@pytest.mark.slow
def test_a_network_compiled_for_one_backward_pass_says_what_to_do() -> None:
    compiled = torch.compile(net(), backend="aot_eager")
    with pytest.raises(scoresde.ScoreFnError, match=r"compiled for a single backward pass.*donated_buffer = False"):
        scoresde.log_likelihood(SDE, model(compiled), inputs()[0], divergence="exact")
