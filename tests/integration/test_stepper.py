"""A stepper gives what `solve` gives, bit for bit, with as many calls, and goes on where it was saved."""

from __future__ import annotations

import copy
import io
import itertools
import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import ScoreModel, Stepper
from scoresde._snapshot import pack, unpack
from scoresde.discrete import BetaChain
from scoresde.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, ScoreFnError
from scoresde.integrate import Info, Solution, Status
from scoresde.stepping import Question

SDE = scoresde.VPSDE()
METHODS = [m for m in scoresde.methods() if m.kind != "forward"]
LOOSE = {"rtol": 0.5, "atol": 0.5}  # adaptive methods that take hundreds of steps otherwise


def net(x: Tensor, t: Tensor, **context: object) -> Tensor:
    return 0.5 * torch.tanh(x) + 0.1 * t.view(-1, *(1,) * (x.ndim - 1)).to(x.dtype)


def start(*shape: int) -> Tensor:
    return torch.randn(*(shape or (3, 2)), generator=torch.Generator().manual_seed(1))


def reopened(stepper: Stepper, make: Callable[[], Stepper]) -> Stepper:
    """A new stepper that has read what the other one wrote to a file."""
    file = io.BytesIO()
    torch.save(stepper.state_dict(), file)
    file.seek(0)
    again = make()
    again.load_state_dict(torch.load(file, weights_only=True))
    return again


SAVED = (1, 2, 3, 5, 8, 13, 40)  # after how many calls


def stepped(
    make: Callable[[], Stepper], model: Callable[..., Tensor] = net, saved: bool = True
) -> tuple[Solution, int]:
    """The solution, and the calls of the network; saved and opened again in between, in turns with an open question
    and without."""
    stepper, calls = make(), 0
    while not stepper.done:
        if saved and calls in SAVED:
            stepper = reopened(stepper, make)
        question = stepper.ask()
        if saved and calls in SAVED[1:]:
            stepper = reopened(stepper, make)
            question = stepper.ask()
        stepper.tell(model(*question))
        calls += 1
    return reopened(stepper, make).solution if saved else stepper.solution, calls


def differences(a: Solution, b: Solution) -> list[str]:
    """The fields in which two solutions differ."""

    def same(v: Any, w: Any) -> bool:
        return torch.equal(v, w) if isinstance(v, Tensor) else v == w

    return [f.name for f in fields(a) if not same(getattr(a, f.name), getattr(b, f.name))]


def options_of(method: Any) -> dict[str, Any]:
    if not method.adaptive:
        return {"steps": 5}
    if ":" in method.name:  # the library starts again for every answer
        return {**LOOSE, "t_end": 0.5}
    return LOOSE if method.stochastic else {"rtol": 1e-2, "atol": 1e-2}


@pytest.mark.parametrize("saved", [False, True], ids=["at once", "saved"])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_every_method_gives_what_solve_gives(method: Any, saved: bool) -> None:
    x, options = start(), {"seed": 0, "denoise": True, "save_at": "steps", **options_of(method)}
    calls = []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return net(x, t)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' own
        model = ScoreModel(counted, SDE, "noise", context={"whole": torch.zeros(3)})  # so that no sample leaves
        model.net, model.context = counted, {}
        wanted = scoresde.solve(SDE, model, x, method=method.name, **options)
        made, asked = stepped(lambda: Stepper(SDE, method.name, x, prediction="noise", **options), net, saved)
    assert differences(wanted, made) == []
    assert asked == len(calls) == made.evaluations


@pytest.mark.parametrize("method", ["ddim", "pc", "heun", "rk45", "adams", "dpm_3m"])
@pytest.mark.parametrize("prediction", ["score", "data", "v", "flow", "edm"])
def test_in_every_prediction(method: str, prediction: str) -> None:
    x, options = start(), options_of(next(m for m in METHODS if m.name == method))
    model = net if prediction == "score" else ScoreModel(net, SDE, prediction, context={"whole": torch.zeros(3)})
    if isinstance(model, ScoreModel):
        model.context = {}
    wanted = scoresde.solve(SDE, model, x, method=method, seed=0, **options)
    if isinstance(model, ScoreModel):
        made, _ = stepped(lambda: Stepper(SDE, method, x, prediction=model, seed=0, **options))
        assert differences(wanted, made) == []
        if prediction == "edm":
            return  # its network gets a scaled state
    made, _ = stepped(lambda: Stepper(SDE, method, x, prediction=prediction, seed=0, **options))
    assert differences(wanted, made) == []


def test_with_a_models_own_time_and_input_and_a_learned_variance() -> None:
    chain = BetaChain.linear(100)
    sde = chain.sde()

    def both(x: Tensor, t: Tensor) -> Tensor:
        assert t.dtype == torch.int64
        return torch.cat([0.5 * x, torch.sin(x)], 1)

    model = ScoreModel(both, sde, "noise", "index", chain=chain, variance="learned_range")
    x, grid = start(2, 3, 4), chain.grid(10)
    wanted = scoresde.solve(sde, model, x, method="ancestral", grid=grid, seed=0)
    made, calls = stepped(lambda: Stepper(sde, "ancestral", x, prediction=model, grid=grid, seed=0), model=both)
    assert differences(wanted, made) == [] and calls == wanted.evaluations
    scaled = ScoreModel(net, scoresde.VESDE(), "data", "rho", "x/alpha")
    question = Stepper(scoresde.VESDE(), "euler", x, prediction=scaled, steps=4).ask()
    assert torch.equal(question.t, torch.full((2,), scoresde.VESDE().sigma(1.0)))


SOURCES: dict[str, Callable[[], dict[str, Any]]] = {
    "seeds": lambda: {"seeds": [5, 6, 7]},
    "a generator": lambda: {"generator": torch.Generator().manual_seed(3)},
    "a function": lambda: {"noise": lambda k, like: torch.sin(torch.arange(like.numel()) + k).view_as(like).to(like)},
    "a path": lambda: {"noise": scoresde.BrownianPath([5, 6, 7], 0.01, 0.99)},
    "a path with areas": lambda: {"noise": scoresde.BrownianPath([5, 6, 7], 0.01, 0.99, areas=True)},
    "a path of the batch": lambda: {"noise": scoresde.BrownianPath(5, 0.01, 0.99)},
}
FIXED_SOURCES = ("seeds", "a generator", "a function", "a path", "a path of the batch")
DRAWS = [
    *((m, source) for m in ("pc", "dpmpp_2m_sde", "edm", "torchsde:euler") for source in FIXED_SOURCES),
    *(("sra1", source) for source in ("seeds", "a generator", "a function", "a path with areas")),
    *((m, source) for m in ("ggf", "dpmpp_sde12") for source in ("seeds", "a generator", "a path")),
]


@pytest.mark.parametrize(("method", "source"), DRAWS)
def test_any_source_of_noise_is_saved(method: str, source: str) -> None:
    options = options_of(next(m for m in METHODS if m.name == method))
    end = {"t_end": 0.01, "t_start": 0.99}  # where the clock of every method's noise is finite
    wanted = scoresde.solve(SDE, net, start(), method=method, **SOURCES[source](), **options, **end)
    made, _ = stepped(lambda: Stepper(SDE, method, start(), **SOURCES[source](), **options, **end))
    assert differences(wanted, made) == []


@pytest.mark.parametrize("method", ["ddim", "edm", "rk45", "restart"])
def test_the_state_is_that_after_each_step(method: str) -> None:
    options = options_of(next(m for m in METHODS if m.name == method))
    seen: list[Tensor] = [start()]
    scoresde.solve(SDE, net, start(), method=method, seed=0, callback=lambda info: seen.append(info.x), **options)
    stepper, states = Stepper(SDE, method, start(), seed=0, **options), [start()]
    while not stepper.done:
        stepper.tell(net(*stepper.ask()))
        if not torch.equal(stepper.x, states[-1]):
            states.append(stepper.x.clone())
    moved = [b for a, b in itertools.pairwise(seen) if not torch.equal(a, b)]
    assert all(torch.equal(a, b) for a, b in zip(states[1:], moved, strict=True))


def test_a_question_says_where_it_is() -> None:
    stepper = Stepper(SDE, "heun", start(), steps=4)
    question = stepper.ask()
    assert isinstance(question, Question) and stepper.ask() is question
    x, t = question
    assert torch.equal(x, start()) and t.tolist() == [1.0] * 3
    assert question.sigma == SDE.sigma(1.0) and question.log_snr == pytest.approx(SDE.log_snr(1.0))
    adaptive = Stepper(SDE, "rk45", start()).ask()
    assert adaptive.sigma.shape == adaptive.log_snr.shape == (3,)  # type: ignore[union-attr]


@pytest.mark.parametrize("method", ["ddim", "dpm_3m", "heun", "edm", "rk45"])
def test_the_state_can_be_set_between_steps(method: str) -> None:
    """As one who paints over a part of the picture after each step: what follows is a solve from there, but for what
    the method remembers, which the first step has not."""
    row = next(m for m in METHODS if m.name == method)
    other, options = start() * 0.5, options_of(row)
    stepper = Stepper(SDE, method, start(), seed=0, **options)
    stepper.x = other
    assert torch.equal(stepper.x, other)
    made = stepper
    while not made.done:
        made.tell(net(*made.ask()))
    assert torch.equal(made.x, scoresde.solve(SDE, net, other, method=method, seed=0, **options).x)
    with pytest.raises(InvalidArgumentError, match="can be set no more"):
        made.x = other


ADAPTIVE = [m for m in METHODS if m.adaptive and m.kind == "ode" and ":" not in m.name]


@pytest.mark.parametrize("row", ADAPTIVE, ids=lambda m: m.name)
def test_an_adaptive_method_goes_on_from_the_state_that_is_set(row: Any) -> None:
    """With its own derivative there, also where the question for the one before was asked already; a saved stepper
    likewise. The error is that of a solve from there."""
    method, tolerance = row.name, 1e-6 if row.ode_order > 3 else 1e-4
    options, other = {"rtol": tolerance, "atol": tolerance, "dtype": torch.float64}, 0.5 * start().double()
    ends = []
    for asked, saved in ((0, False), (1, False), (2, False), (0, True)):
        make = lambda: Stepper(SDE, method, start().double(), **options)  # noqa: E731
        stepper = make()
        for _ in range(3):
            stepper.tell(net(*stepper.ask()))
            while not stepper.between:
                stepper.tell(net(*stepper.ask()))
        for _ in range(asked):
            stepper.ask()
        stepper.x = other
        begun = stepper.t
        if saved:
            stepper = reopened(stepper, make)
        while not stepper.done:
            stepper.tell(net(*stepper.ask()))
        ends.append(stepper.x)
    assert all(torch.equal(ends[0], end) for end in ends)
    for i, t in enumerate(begun.expand(3).tolist()):
        wanted = scoresde.solve(SDE, net, other[i : i + 1], method="dop853", rtol=1e-10, atol=1e-10, t_start=t).x
        assert float((ends[0][i] - wanted).abs().max() / wanted.abs().max()) < 30 * tolerance


def test_a_state_set_later_is_where_the_next_step_begins() -> None:
    stepper = Stepper(SDE, "ddim", start(), prediction="noise", steps=4)
    for _ in range(2):
        stepper.tell(net(*stepper.ask()))
    stepper.x = torch.zeros(3, 2)
    assert torch.equal(stepper.ask().x, torch.zeros(3, 2))
    before = Stepper(SDE, "heun", start(), steps=4)
    before.tell(net(*before.ask()))
    with pytest.raises(InvalidArgumentError, match="A step has begun"):
        before.x = start()
    with pytest.raises(InvalidArgumentError, match="shape"):
        stepper.x = torch.zeros(4, 2)


def test_what_is_kept_is_not_written_to() -> None:
    stepper, kept, copies = Stepper(SDE, "dpm_3m", start(), prediction="noise", steps=8), [], []
    while not stepper.done:
        x, t = stepper.ask()
        kept += [x, stepper.x]
        copies += [x.clone(), stepper.x.clone()]
        stepper.tell(net(x, t))
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("method", ["unipc2", "rk45", "heun", "adams"])
def test_an_output_buffer_may_be_used_again(method: str, saved: bool) -> None:
    """As a CUDA graph does: every output is in the same memory; also where it is saved in the middle of a step."""
    buffer, options = torch.empty(3, 2), options_of(next(m for m in METHODS if m.name == method))
    wanted = scoresde.solve(SDE, net, start(), method=method, **options)
    made, _ = stepped(lambda: Stepper(SDE, method, start(), **options), lambda x, t: buffer.copy_(net(x, t)), saved)
    assert differences(wanted, made) == []


@pytest.mark.parametrize("method", ["ddim", "rk45"])
def test_wrong_answers_are_refused_and_can_be_given_again(method: str) -> None:
    options = options_of(next(m for m in METHODS if m.name == method))
    stepper = Stepper(SDE, method, start(), **options)
    stepper.ask()
    with pytest.raises(InvalidTypeError, match="`output` must be a tensor, got None"):
        stepper.tell(None)  # type: ignore[arg-type]
    with pytest.raises(ScoreFnError, match="shape"):
        stepper.tell(torch.zeros(3, 7))
    with pytest.raises(InvalidArgumentError, match="not done"):
        _ = stepper.solution
    made, calls = stepper, 0
    while not made.done:
        made.tell(net(*made.ask()))
        calls += 1
    wanted = scoresde.solve(SDE, net, start(), method=method, **options)
    assert torch.equal(made.x, wanted.x) and calls == wanted.evaluations
    with pytest.raises(InvalidArgumentError, match="The solve is done"):
        made.ask()


def test_an_input_that_was_written_to_is_noticed() -> None:
    stepper = Stepper(SDE, "ddim", start(), steps=4)
    x, t = stepper.ask()
    with pytest.raises(ScoreFnError, match="modified its input in place"):
        stepper.tell(net(x.mul_(2.0), t))


@pytest.mark.parametrize("method", ["ddim", "rk45"])
def test_what_is_not_finite_is_found_as_in_a_solve(method: str) -> None:
    options = options_of(next(m for m in METHODS if m.name == method))

    def late(x: Tensor, t: Tensor) -> Tensor:
        return torch.where((t < 0.5)[:, None] & (torch.arange(3) == 1)[:, None], torch.nan, net(x, t))

    with pytest.raises(NonFiniteError) as wanted:
        scoresde.solve(SDE, late, start(), method=method, **options)
    with pytest.raises(NonFiniteError) as found:
        stepped(lambda: Stepper(SDE, method, start(), **options), late)
    assert str(found.value) == str(wanted.value)
    lenient = {**options, "throw": False}
    wanted_solution = scoresde.solve(SDE, late, start(), method=method, **lenient)
    made, _ = stepped(lambda: Stepper(SDE, method, start(), **lenient), late)
    assert wanted_solution.status.tolist() == made.status.tolist() == [0, 1, 0]
    assert torch.equal(wanted_solution.x[[0, 2]], made.x[[0, 2]])


def test_a_state_of_an_earlier_version_can_be_read() -> None:
    options = {"rtol": 0.1, "atol": 0.1}
    one, other = (Stepper(SDE, "rk23", start(), **options) for _ in range(2))
    for _ in range(3):
        one.tell(net(*one.ask()))
    state = one.state_dict()
    del state["loop"]["replaced"]
    other.load_state_dict(state)
    while not other.done:
        other.tell(net(*other.ask()))
    assert torch.equal(other.x, scoresde.solve(SDE, net, start(), method="rk23", **options).x)


def tensors_of(state: Any) -> list[torch.Tensor]:
    """The tensors in a state."""
    if isinstance(state, torch.Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


@pytest.mark.parametrize("method", ["dpm_3m", "rk45", "pc", "adams"])
def test_a_saved_state_shares_no_memory(method: str) -> None:
    """What is written to it afterwards changes neither the stepper that it is of nor one that has read it."""
    options = options_of(next(m for m in METHODS if m.name == method))
    wanted = scoresde.solve(SDE, net, start(), method=method, seed=0, **options).x
    one, other = (Stepper(SDE, method, start(), seed=0, **options) for _ in range(2))
    for _ in range(3):
        one.tell(net(*one.ask()))
    state = one.state_dict()
    other.load_state_dict(state)
    assert sum(tensor.is_floating_point() for tensor in tensors_of(state)) > 0
    for tensor in tensors_of(state):
        tensor.zero_()
    for stepper in (one, other):
        while not stepper.done:
            stepper.tell(net(*stepper.ask()))
        assert torch.equal(stepper.x, wanted)


def test_a_state_of_other_arguments_is_refused() -> None:
    state = Stepper(SDE, "ddim", start(), steps=4).state_dict()
    for other in (
        Stepper(SDE, "ddim", start(), steps=5),
        Stepper(SDE, "heun", start(), steps=4),
        Stepper(SDE, "ddim", start().double(), steps=4),
        Stepper(scoresde.SubVPSDE(), "ddim", start(), steps=4),
    ):
        with pytest.raises(InvalidArgumentError, match="is that of a stepper made with"):
            other.load_state_dict(state)


@pytest.mark.parametrize(
    ("method", "name", "one", "other"),
    [
        ("ddim", "prediction", {"prediction": "noise"}, {"prediction": "data"}),
        ("ddim", "grid", {"grid": [1.0, 0.5, 0.1]}, {"grid": [0.9, 0.5, 0.1]}),
        ("ddim", "denoise", {}, {"denoise": True}),
        ("ddim", "save_at", {}, {"save_at": "steps"}),
        ("ddim", "max_steps", {}, {"max_steps": 9}),
        ("ddim", "throw", {}, {"throw": False}),
        ("ddim", "dtype of the result", {}, {"dtype": torch.float16}),
        ("rk45", "tolerance", {"rtol": 1e-2}, {"rtol": 1e-5}),
        ("euler_maruyama", "stochasticity", {}, {"stochasticity": 0.5}),
        ("euler_maruyama", "noise", {"seed": 1}, {"seeds": [1, 2, 3]}),
    ],
)
def test_the_argument_that_differs_is_named(method: str, name: str, one: Any, other: Any) -> None:
    state = Stepper(SDE, method, start(), **one).state_dict()
    with pytest.raises(InvalidArgumentError, match=f"made with another {name}: "):
        Stepper(SDE, method, start(), **other).load_state_dict(state)
    Stepper(SDE, method, start(), **one).load_state_dict(state)


def test_processes_of_functions_are_told_apart_by_their_numbers() -> None:
    def process(bend: float) -> scoresde.SDE:
        return scoresde.GaussianSDE(
            lambda t: torch.cos(t), lambda t: torch.sin(t) * (1 + bend * (1.5 - t)), t_min=0.01, t_max=1.5
        )

    state = Stepper(process(0.0), "ddim", start(), grid=[1.0, 0.5]).state_dict()
    Stepper(process(0.0), "ddim", start(), grid=[1.0, 0.5]).load_state_dict(state)
    with pytest.raises(InvalidArgumentError, match="another schedule"):
        Stepper(process(0.01), "ddim", start(), grid=[1.0, 0.5]).load_state_dict(state)


def test_what_is_no_state_is_refused() -> None:
    stepper = Stepper(SDE, "ddim", start(), steps=4)
    for state in ({}, {"made_with": stepper.state_dict()["made_with"]}, {"x": start()}):
        with pytest.raises(InvalidArgumentError, match="must be what `state_dict` returned"):
            stepper.load_state_dict(state)


def test_an_output_answers_one_question_that_was_asked() -> None:
    """A server that sends an answer twice does not make two steps with it."""
    stepper = Stepper(SDE, "ddim", start(), steps=4)
    with pytest.raises(InvalidArgumentError, match="call `ask` before each `tell`"):
        stepper.tell(torch.zeros(3, 2))
    output = net(*stepper.ask())
    stepper.tell(output)
    with pytest.raises(InvalidArgumentError, match="call `ask` before each `tell`"):
        stepper.tell(output)
    while not stepper.done:
        stepper.tell(net(*stepper.ask()))
    assert torch.equal(stepper.x, scoresde.solve(SDE, net, start(), method="ddim", steps=4).x)


MODES = [(True, True, True), (True, True, False), (False, True, False), (False, True, True), (False, False, True)]


@pytest.mark.parametrize("method", ["ddim", "heun", "edm", "rk45", "scipy:RK45"])
@pytest.mark.parametrize(("made", "asked", "told"), MODES)
def test_inference_mode_may_begin_and_end_anywhere(method: str, made: bool, asked: bool, told: bool) -> None:
    options = options_of(next(m for m in METHODS if m.name == method)) | {"seed": 0}
    with torch.inference_mode(made):
        stepper = Stepper(SDE, method, start(), **options)
    count = 0
    while not stepper.done:
        with torch.inference_mode(asked):
            output = net(*stepper.ask())
        with torch.inference_mode(told):
            stepper.tell(output)
            if count == 1:
                stepper.load_state_dict(stepper.state_dict())
        count += 1
    assert torch.equal(stepper.x, scoresde.solve(SDE, net, start(), method=method, **options).x)
    with torch.inference_mode():
        noticed = Stepper(SDE, "ddim", start(), steps=4)
        noticed.ask().x.zero_()
        with pytest.raises(ScoreFnError, match="modified its input in place"):
            noticed.tell(torch.zeros(3, 2))


@pytest.mark.parametrize("method", ["ddim", "dpm_3m", "edm", "rk45", "scipy:RK45"])
def test_an_exception_on_the_way_leaves_the_question_open(method: str) -> None:
    options = options_of(next(m for m in METHODS if m.name == method)) | {"seed": 0}
    evaluated = []

    def fragile(called: Callable[..., Tensor]) -> ScoreModel:
        def inner(x: Tensor, t: Tensor) -> Tensor:
            output = called(x, t)
            evaluated.append(1)
            if len(evaluated) in (1, 3, 4):
                raise KeyboardInterrupt
            return output

        return ScoreModel(inner, SDE, "noise")

    stepper, calls, stopped = Stepper(SDE, method, start(), prediction=fragile, **options), 0, 0
    while not stepper.done:
        try:
            stepper.tell(net(*stepper.ask()))
            calls += 1
        except KeyboardInterrupt:
            stopped += 1
    wanted = scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), start(), method=method, **options)
    assert torch.equal(stepper.x, wanted.x) and stopped == 3
    assert calls == stepper.solution.evaluations


@pytest.mark.parametrize("method", ["ddim", "heun", "dpm_3m", "rk45"])
def test_a_function_may_call_the_network_several_times(method: str) -> None:
    options = options_of(next(m for m in METHODS if m.name == method)) | {"seed": 0}

    def twice(called: Callable[..., Tensor]) -> ScoreModel:
        return ScoreModel(lambda x, t: called(x, t) + 0.1 * called(0.5 * x, t), SDE, "noise")

    wanted = scoresde.solve(SDE, twice(net), start(), method=method, **options)
    make = lambda: Stepper(SDE, method, start(), prediction=twice, **options)  # noqa: E731
    made, calls = stepped(make)
    assert torch.equal(made.x, wanted.x) and calls == 2 * wanted.evaluations == 2 * made.evaluations


@pytest.mark.parametrize("method", ["ddim", "heun", "edm", "scipy:RK45"])
def test_a_solve_that_has_failed_does_not_go_on(method: str) -> None:
    """The other samples were stopped, and the state is not what the last step gave."""
    options = options_of(next(m for m in METHODS if m.name == method)) | {"seed": 0}
    stepper = Stepper(SDE, method, start(), **options)
    state = stepper.state_dict()
    stepper.tell(net(*stepper.ask()))

    def fail() -> None:
        while not stepper.done:
            stepper.tell(torch.full_like(stepper.ask().x, torch.nan))

    with pytest.raises(NonFiniteError) as failure:
        fail()
    for act in (stepper.ask, lambda: stepper.tell(torch.zeros(3, 2)), stepper.state_dict):
        with pytest.raises(NonFiniteError) as again:
            act()
        assert again.value is failure.value
    assert not stepper.done
    stepper.load_state_dict(state)
    while not stepper.done:
        stepper.tell(net(*stepper.ask()))
    assert torch.equal(stepper.x, scoresde.solve(SDE, net, start(), method=method, **options).x)


@pytest.mark.parametrize("method", ["ddim", "dpm_3m", "rk45"])
def test_a_state_that_was_written_to_is_noticed(method: str) -> None:
    stepper = Stepper(SDE, method, start(), **options_of(next(m for m in METHODS if m.name == method)))
    for _ in range(8):
        stepper.tell(net(*stepper.ask()))
        if stepper.done:
            return
        if stepper.between:
            break
    stepper.x[0] = 0.0
    for act in (stepper.ask, stepper.state_dict):
        with pytest.raises(InvalidArgumentError, match="was written to in place; set it"):
            act()


def test_a_stepper_is_not_copied() -> None:
    """The functions within would still ask the first one."""
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(InvalidTypeError, match="cannot be copied or pickled"):
            copied(Stepper(SDE, "ddim", start(), steps=4))


def test_numbers_of_numpy_and_enums_are_saved_as_plain_ones() -> None:
    packed = pack([np.float64(0.5), np.int64(3), np.bool_(True), Status.STOPPED])
    assert [type(v) for v in packed] == [float, int, bool, int] and packed == [0.5, 3, True, 4]


def test_nothing_to_do_is_done_at_once() -> None:
    still = Stepper(SDE, "ddim", start(), t_start=0.5, t_end=0.5)
    assert still.done and torch.equal(still.x, start())
    assert Stepper(SDE, "ddim", torch.zeros(0, 2), steps=3).done
    one = Stepper(SDE, "ddim", start(), t_start=0.5, t_end=0.5, denoise=True)
    assert not one.done
    one.tell(net(*one.ask()))
    assert one.done and one.solution.evaluations == 1


@pytest.mark.parametrize("arguments", [{"stepz": 3}, {"steps": 0}, {"prediction": "epsilonn"}, {"prediction": 3}])
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises((InvalidArgumentError, InvalidTypeError)):
        Stepper(SDE, "ddim", start(), **arguments)


@pytest.mark.parametrize("kind", ["score", "noise"])
@pytest.mark.parametrize("method", ["ddim", "heun", "ancestral", "rk45"])
def test_callbacks_see_the_data_estimate_without_an_evaluation(method: str, kind: str) -> None:
    """Of Gaussian data, whose score function says the same as Tweedie's formula by hand."""
    target = scoresde.targets.Gaussian(torch.ones(2), 0.25 * torch.eye(2))
    score, asked = target.score(SDE), []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        asked.append((x.clone(), t.clone()))
        return score(x, t) if kind == "score" else score.estimate(x, SDE.nodes(t)).noise

    network = counted if kind == "score" else ScoreModel(counted, SDE, kind)
    seen: list[Tensor] = []
    options = options_of(next(m for m in METHODS if m.name == method))

    def callback(info: Info) -> None:
        x, t = asked[-1]
        alpha, sigma = SDE.alpha(t)[:, None], SDE.sigma(t)[:, None]
        wanted = (x + sigma**2 * score(x, t)) / alpha
        assert torch.allclose(info.denoised, wanted.to(x), atol=1e-4, rtol=1e-4)
        seen.append(info.denoised)

    solution = scoresde.solve(SDE, network, start(), method=method, seed=0, callback=callback, **options)
    assert len(asked) == solution.evaluations and seen
    with pytest.raises(InvalidArgumentError, match="while the callback runs"):
        _ = Info(1, 0.5, start(), torch.ones(3)).denoised


def test_a_sample_that_has_left_has_no_estimate() -> None:
    target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
    x = torch.tensor([[0.0, 0.0], [30.0, -30.0]])
    seen: list[Tensor] = []
    scoresde.solve(
        SDE, target.score(SDE), x, method="rk45", rtol=1e-5, atol=1e-3, callback=lambda i: seen.append(i.denoised)
    )
    assert all(v.shape == x.shape for v in seen) and seen[0].isfinite().all() and not seen[-1].isfinite().all()


def test_it_takes_at_most_twice_the_hosts_time() -> None:
    """As measured by `python -m benchmarks stepper`."""
    results = json.loads((Path(scoresde.__file__).parents[1] / "benchmarks/results/stepper.json").read_text())[
        "results"
    ]
    rows = results["rows"]
    assert {row["method"] for row in rows} == {m.name for m in METHODS if m.kind != "backend"}
    assert results["limit"] == 2.0 and max(row["ratio"] for row in rows) <= 2.0


def test_tensors_are_read_where_they_were() -> None:
    """Wherever `torch.load` has put them: those of a device are named with it, all others belong to the host."""
    assert torch.equal(unpack({"device": ["cpu", start()]}), start())
    source = scoresde.noise.BatchNoise(torch.Generator().manual_seed(1))
    state = pack([start(), np.arange(3.0), source])
    assert torch.equal(state[0], start())
    read = unpack(state, [None, None, source])
    assert torch.equal(read[0], start()) and (read[1] == np.arange(3.0)).all()


def test_a_limited_model_is_a_prediction() -> None:
    """Of a network that the caller evaluates, as `Clip` of a model; other score functions are refused."""
    sde = scoresde.VPSDE()

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 0.7 * x + 0.1 * t[:, None]

    x = 3 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    limited = scoresde.scores.Clip(scoresde.ScoreModel(net, sde, "noise"), -0.5, 0.5)
    options = {"method": "dpmpp_2m", "steps": 6}
    stepper = scoresde.Stepper(sde, x=x, prediction=limited, **options)
    while not stepper.done:
        stepper.tell(net(*stepper.ask()))
    assert torch.equal(stepper.x, scoresde.solve(sde, limited, x, **options).x)
    assert not torch.equal(stepper.x, scoresde.solve(sde, limited.score_fns[0], x, **options).x)
    target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
    with pytest.raises(InvalidArgumentError, match="a score function already"):
        scoresde.Stepper(sde, x=x, prediction=target.score(sde), **options)
