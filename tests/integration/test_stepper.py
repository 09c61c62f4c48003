"""A stepper gives what `solve` gives, bit for bit, with as many calls, and goes on where it was saved."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import ScoreModel, Stepper
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, ScoreFnError
from scoresde.core.solution import Info, Solution
from scoresde.core.stepper import Question
from scoresde.discrete import BetaChain
from tests.parameters import own_methods, ways

SDE = scoresde.VPSDE()
METHODS = {m.name: m for m in own_methods()}
LOOSE = {"rtol": 0.5, "atol": 0.5}  # adaptive methods that take hundreds of steps otherwise
SOME = ways()


def net(x: Tensor, t: Tensor, **context: object) -> Tensor:
    return 0.5 * torch.tanh(x) + 0.1 * t.view(-1, *(1,) * (x.ndim - 1)).to(x.dtype)


def start(*shape: int) -> Tensor:
    return torch.randn(*(shape or (3, 2)), generator=torch.Generator().manual_seed(1))


def options_of(name: str) -> dict[str, Any]:
    method = METHODS[name]
    if not method.adaptive:
        return {"steps": 5}
    return LOOSE if method.stochastic else {"rtol": 1e-2, "atol": 1e-2}


def told(stepper: Stepper, model: Callable[..., Tensor] = net, calls: int = 1000) -> Stepper:
    """A stepper after some calls of the network, by default at its end."""
    while not stepper.done and calls:
        stepper.tell(model(*stepper.ask()))
        calls -= 1
    return stepper


def reopened(stepper: Stepper, make: Callable[[], Stepper]) -> Stepper:
    """A new stepper that has read what the other one wrote to a file."""
    file = io.BytesIO()
    torch.save(stepper.state_dict(), file)
    file.seek(0)
    again = make()
    again.load_state_dict(torch.load(file, weights_only=True))
    return again


SAVED = (1, 2, 3, 5, 8, 13)  # after how many calls


def stepped(make: Callable[[], Stepper], model: Any = net, saved: bool = True) -> tuple[Solution, int]:
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


def whole(network: Callable[..., Tensor], kind: Any) -> ScoreModel:
    """A model from whose batch no sample leaves."""
    model = ScoreModel(network, SDE, kind, context={"whole": torch.zeros(3)})
    model.context = {}
    return model


@pytest.mark.parametrize(
    "method", [*SOME, *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS if name not in SOME)]
)
def test_every_method_gives_what_solve_gives(method: str) -> None:
    x, options = start(), {"seed": 0, "denoise": True, "save_at": "steps", **options_of(method)}
    calls = []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return net(x, t)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries' own
        wanted = scoresde.solve(SDE, whole(counted, "noise"), x, method=method, **options)
        for saved in (False, True):
            made, asked = stepped(lambda: Stepper(SDE, method, x, prediction="noise", **options), net, saved)
            assert differences(wanted, made) == [], saved
            assert asked == len(calls) == made.evaluations, saved


@pytest.mark.parametrize("prediction", ["score", "data", "v", "flow", "edm"])
def test_in_every_prediction(prediction: str) -> None:
    x = start()
    for method in ("ddim", "pc", "adams"):
        model = net if prediction == "score" else whole(net, prediction)
        options = {"seed": 0, **options_of(method)}
        wanted = scoresde.solve(SDE, model, x, method=method, **options)
        given = [model] if prediction != "score" else []
        given += [prediction] if prediction != "edm" else []  # whose network gets a scaled state
        for each in given:
            made = told(Stepper(SDE, method, x, prediction=each, **options)).solution
            assert differences(wanted, made) == [], (method, each)


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
ANY_SOURCE = ("seeds", "a generator", "a function", "a path", "a path of the batch")
DRAWS = {
    "pc": ANY_SOURCE,
    "dpmpp_2m_sde": ANY_SOURCE,
    "sra1": ("seeds", "a generator", "a function", "a path with areas"),
    "ggf": ("seeds", "a generator", "a path"),
    "dpmpp_sde12": ("seeds", "a generator", "a path"),
}


@pytest.mark.parametrize("method", DRAWS)
def test_any_source_of_noise_is_saved(method: str) -> None:
    options = options_of(method) | {"t_end": 0.01, "t_start": 0.99}  # the clock of every method's noise is finite there
    for source in DRAWS[method]:
        wanted = scoresde.solve(SDE, net, start(), method=method, **SOURCES[source](), **options)
        make = lambda source=source: Stepper(SDE, method, start(), **SOURCES[source](), **options)  # noqa: E731
        assert differences(wanted, stepped(make)[0]) == [], source


@pytest.mark.parametrize("method", ["ddim", "edm", "rk45", "restart"])
def test_the_state_is_that_after_each_step(method: str) -> None:
    options = options_of(method)
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


def test_the_state_can_be_set_between_steps() -> None:
    """As one who paints over a part of the picture after each step: what follows is a solve from there, but for what
    the method remembers, which the first step has not."""
    for method in ("ddim", "dpm_3m", "edm", "rk45"):
        other, options = start() * 0.5, options_of(method)
        stepper = Stepper(SDE, method, start(), seed=0, **options)
        stepper.x = other
        assert torch.equal(stepper.x, other)
        assert torch.equal(told(stepper).x, scoresde.solve(SDE, net, other, method=method, seed=0, **options).x), method
        with pytest.raises(InvalidArgumentError, match="can be set no more"):
            stepper.x = other
    stepper = told(Stepper(SDE, "ddim", start(), prediction="noise", steps=4), calls=2)
    stepper.x = torch.zeros(3, 2)
    assert torch.equal(stepper.ask().x, torch.zeros(3, 2))
    with pytest.raises(InvalidArgumentError, match="shape"):
        stepper.x = torch.zeros(4, 2)
    with pytest.raises(InvalidArgumentError, match="A step has begun"):
        told(Stepper(SDE, "heun", start(), steps=4), calls=1).x = start()


@pytest.mark.parametrize(("method", "tolerance"), [("rk23", 1e-3), ("dop853", 1e-5), ("erk43", 1e-5), ("adams", 1e-5)])
def test_an_adaptive_method_goes_on_from_the_state_that_is_set(method: str, tolerance: float) -> None:
    """With its own derivative there, also where the question for the one before was asked already; a saved stepper
    likewise. The error is that of a solve from there."""
    options, other = {"rtol": tolerance, "atol": tolerance, "dtype": torch.float64}, 0.5 * start().double()
    ends = []
    for asked, saved in ((0, False), (2, False), (0, True)):
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
        ends.append(told(reopened(stepper, make) if saved else stepper).x)
    assert all(torch.equal(ends[0], end) for end in ends)
    for i, t in enumerate(begun.expand(3).tolist()):
        wanted = scoresde.solve(SDE, net, other[i : i + 1], method="dop853", rtol=1e-9, atol=1e-9, t_start=t).x
        assert float((ends[0][i] - wanted).abs().max() / wanted.abs().max()) < 30 * tolerance


def test_what_is_kept_is_not_written_to_and_an_output_buffer_may_be_used_again() -> None:
    """As a CUDA graph does: every output is in the same memory; also where it is saved in the middle of a step."""
    buffer = torch.empty(3, 2)
    for method in ("unipc2", "rk45", "heun", "adams"):
        options = options_of(method)
        wanted = scoresde.solve(SDE, net, start(), method=method, **options)
        kept, copies = [], []

        def model(x: Tensor, t: Tensor, kept: list[Tensor] = kept, copies: list[Tensor] = copies) -> Tensor:
            kept.append(x)
            copies.append(x.clone())
            return buffer.copy_(net(x, t))

        for saved in (False, True):
            make = lambda m=method, o=options: Stepper(SDE, m, start(), **o)  # noqa: E731
            assert differences(wanted, stepped(make, model, saved)[0]) == [], (method, saved)
        assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True)), method


def test_wrong_answers_are_refused_and_can_be_given_again() -> None:
    """An output answers one question that was asked: a server that sends an answer twice makes no two steps with it."""
    for method in ("ddim", "rk45"):
        options = options_of(method)
        stepper = Stepper(SDE, method, start(), **options)
        with pytest.raises(InvalidArgumentError, match="call `ask` before each `tell`"):
            stepper.tell(torch.zeros(3, 2))
        question = stepper.ask()
        with pytest.raises(InvalidTypeError, match="`output` must be a tensor, got None"):
            stepper.tell(None)  # type: ignore[arg-type]
        with pytest.raises(ScoreFnError, match="shape"):
            stepper.tell(torch.zeros(3, 7))
        with pytest.raises(InvalidArgumentError, match="not done"):
            _ = stepper.solution
        output = net(*question)
        stepper.tell(output)
        with pytest.raises(InvalidArgumentError, match="call `ask` before each `tell`"):
            stepper.tell(output)
        wanted = scoresde.solve(SDE, net, start(), method=method, **options)
        assert differences(wanted, told(stepper).solution) == [], method
        with pytest.raises(InvalidArgumentError, match="The solve is done"):
            stepper.ask()


def test_inputs_and_states_that_were_written_to_are_noticed() -> None:
    stepper = Stepper(SDE, "ddim", start(), steps=4)
    x, t = stepper.ask()
    with pytest.raises(ScoreFnError, match="modified its input in place"):
        stepper.tell(net(x.mul_(2.0), t))
    for method in ("ddim", "dpm_3m", "rk45"):
        stepper = told(Stepper(SDE, method, start(), **options_of(method)), calls=1)
        while not stepper.between:
            told(stepper, calls=1)
        stepper.x[0] = 0.0
        for act in (stepper.ask, stepper.state_dict):
            with pytest.raises(InvalidArgumentError, match="was written to in place; set it"):
                act()


def test_what_is_not_finite_is_found_as_in_a_solve() -> None:
    def late(x: Tensor, t: Tensor) -> Tensor:
        return torch.where((t < 0.5)[:, None] & (torch.arange(3) == 1)[:, None], torch.nan, net(x, t))

    for method in ("ddim", "rk45"):
        options = options_of(method)
        with pytest.raises(NonFiniteError) as wanted:
            scoresde.solve(SDE, late, start(), method=method, **options)
        with pytest.raises(NonFiniteError) as found:
            stepped(lambda m=method, o=options: Stepper(SDE, m, start(), **o), late)
        assert str(found.value) == str(wanted.value)
        lenient = {**options, "throw": False}
        solved = scoresde.solve(SDE, late, start(), method=method, **lenient)
        made, _ = stepped(lambda m=method, o=lenient: Stepper(SDE, m, start(), **o), late)
        assert solved.status.tolist() == made.status.tolist() == [0, 1, 0]
        assert torch.equal(solved.x[[0, 2]], made.x[[0, 2]])


def tensors_of(state: Any) -> list[torch.Tensor]:
    """The tensors in a state."""
    if isinstance(state, torch.Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


def test_a_saved_state_shares_no_memory() -> None:
    """What is written to it afterwards changes neither the stepper that it is of nor one that has read it."""
    for method in ("dpm_3m", "rk45", "pc", "adams"):
        options = {"seed": 0, **options_of(method)}
        wanted = scoresde.solve(SDE, net, start(), method=method, **options).x
        one, other = told(Stepper(SDE, method, start(), **options), calls=3), Stepper(SDE, method, start(), **options)
        state = one.state_dict()
        other.load_state_dict(state)
        assert any(tensor.is_floating_point() for tensor in tensors_of(state))
        for tensor in tensors_of(state):
            tensor.zero_()
        assert torch.equal(told(one).x, wanted) and torch.equal(told(other).x, wanted), method


def test_a_state_of_other_arguments_is_refused_and_the_argument_named() -> None:
    def process(bend: float) -> scoresde.SDE:
        """They are told apart by their numbers."""
        return scoresde.GaussianSDE(torch.cos, lambda t: torch.sin(t) * (1 + bend * (1.5 - t)), t_min=0.01, t_max=1.5)

    default: dict[str, Any] = {"sde": SDE, "x": start()}
    cases: list[tuple[str, str, Any, Any]] = [
        ("ddim", "another grid", {"steps": 4}, {"steps": 5}),
        ("ddim", "", {"steps": 4}, {"x": start().double(), "sde": scoresde.SubVPSDE(), "steps": 4}),
        ("ddim", "another schedule", *({"sde": process(bend), "grid": [1.0, 0.5]} for bend in (0.0, 0.01))),
        ("ddim", "another prediction: ", {"prediction": "noise"}, {"prediction": "data"}),
        ("ddim", "another denoise: ", {}, {"denoise": True}),
        ("rk45", "another tolerance: ", {"rtol": 1e-2}, {"rtol": 1e-5}),
        ("euler_maruyama", "another noise: ", {"seed": 1}, {"seeds": [1, 2, 3]}),
    ]
    for method, words, one, other in cases:
        state = Stepper(method=method, **default | one).state_dict()
        with pytest.raises(InvalidArgumentError, match=f"is that of a stepper made with {words}"):
            Stepper(method=method, **default | other).load_state_dict(state)
        Stepper(method=method, **default | one).load_state_dict(state)
    stepper = Stepper(SDE, "ddim", start(), steps=4)
    with pytest.raises(InvalidArgumentError, match="is that of a stepper made with"):
        Stepper(SDE, "heun", start(), steps=4).load_state_dict(stepper.state_dict())
    with pytest.raises(InvalidArgumentError, match="must be what `state_dict` returned"):
        stepper.load_state_dict({"x": start()})


MODES = [(True, True, True), (True, True, False), (False, True, False), (False, True, True), (False, False, True)]


@pytest.mark.parametrize("method", ["ddim", "heun", "edm", "rk45"])
def test_inference_mode_may_begin_and_end_anywhere(method: str) -> None:
    options = options_of(method) | {"seed": 0}
    wanted = scoresde.solve(SDE, net, start(), method=method, **options).x
    for in_making, in_asking, in_telling in MODES:
        with torch.inference_mode(in_making):
            stepper = Stepper(SDE, method, start(), **options)
        count = 0
        while not stepper.done:
            with torch.inference_mode(in_asking):
                output = net(*stepper.ask())
            with torch.inference_mode(in_telling):
                stepper.tell(output)
                if count == 1:
                    stepper.load_state_dict(stepper.state_dict())
            count += 1
        assert torch.equal(stepper.x, wanted), (in_making, in_asking, in_telling)
    with torch.inference_mode():
        noticed = Stepper(SDE, "ddim", start(), steps=4)
        noticed.ask().x.zero_()
        with pytest.raises(ScoreFnError, match="modified its input in place"):
            noticed.tell(torch.zeros(3, 2))


def test_an_exception_on_the_way_leaves_the_question_open() -> None:
    for method in ("ddim", "dpm_3m", "edm", "rk45"):
        options = options_of(method) | {"seed": 0}
        evaluated: list[int] = []

        def fragile(called: Callable[..., Tensor], evaluated: list[int] = evaluated) -> ScoreModel:
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
        assert torch.equal(stepper.x, wanted.x) and stopped == 3, method
        assert calls == stepper.solution.evaluations, method


def test_a_function_may_call_the_network_several_times() -> None:
    def twice(called: Callable[..., Tensor]) -> ScoreModel:
        return ScoreModel(lambda x, t: called(x, t) + 0.1 * called(0.5 * x, t), SDE, "noise")

    for method in ("ddim", "heun", "dpm_3m", "rk45"):
        options = options_of(method) | {"seed": 0}
        wanted = scoresde.solve(SDE, twice(net), start(), method=method, **options)
        make = lambda m=method, o=options: Stepper(SDE, m, start(), prediction=twice, **o)  # noqa: E731
        made, calls = stepped(make)
        assert torch.equal(made.x, wanted.x) and calls == 2 * wanted.evaluations == 2 * made.evaluations, method


def test_a_solve_that_has_failed_does_not_go_on() -> None:
    """The other samples were stopped, and the state is not what the last step gave."""
    for method in ("ddim", "heun", "edm", "rk45"):
        options = options_of(method) | {"seed": 0}
        stepper = Stepper(SDE, method, start(), **options)
        state = stepper.state_dict()
        told(stepper, calls=1)
        with pytest.raises(NonFiniteError) as failure:
            told(stepper, lambda x, t: torch.full_like(x, torch.nan))
        for act in (stepper.ask, lambda s=stepper: s.tell(torch.zeros(3, 2)), stepper.state_dict):
            with pytest.raises(NonFiniteError) as again:
                act()
            assert again.value is failure.value
        assert not stepper.done
        stepper.load_state_dict(state)
        wanted = scoresde.solve(SDE, net, start(), method=method, **options).x
        assert torch.equal(told(stepper).x, wanted), method


def test_nothing_to_do_is_done_at_once() -> None:
    still = Stepper(SDE, "ddim", start(), t_start=0.5, t_end=0.5)
    assert still.done and torch.equal(still.x, start())
    assert Stepper(SDE, "ddim", torch.zeros(0, 2), steps=3).done
    one = Stepper(SDE, "ddim", start(), t_start=0.5, t_end=0.5, denoise=True)
    assert not one.done
    assert told(one, calls=1).done and one.solution.evaluations == 1
    with pytest.raises(InvalidArgumentError, match="epsilonn"):  # refused at once, too
        Stepper(SDE, "ddim", start(), prediction="epsilonn")


def test_callbacks_see_the_data_estimate_without_an_evaluation() -> None:
    """Of Gaussian data, whose score function says the same as Tweedie's formula by hand."""
    score = scoresde.targets.Gaussian(torch.ones(2), 0.25 * torch.eye(2)).score(SDE)
    for method, kind in itertools.product(("ddim", "heun", "ancestral", "rk45"), ("score", "noise")):
        asked: list[Any] = []
        seen: list[Tensor] = []

        def counted(x: Tensor, t: Tensor, kind: str = kind, asked: list[Any] = asked) -> Tensor:
            asked.append((x.clone(), t.clone()))
            return score(x, t) if kind == "score" else score.estimate(x, SDE.nodes(t)).noise

        def callback(info: Info, asked: list[Any] = asked, seen: list[Tensor] = seen) -> None:
            x, t = asked[-1]
            alpha, sigma = SDE.alpha(t)[:, None], SDE.sigma(t)[:, None]
            wanted = (x + sigma**2 * score(x, t)) / alpha
            assert torch.allclose(info.denoised, wanted.to(x), atol=1e-4, rtol=1e-4)
            seen.append(info.denoised)

        network = counted if kind == "score" else ScoreModel(counted, SDE, kind)
        options = {"seed": 0, "callback": callback, **options_of(method)}
        solution = scoresde.solve(SDE, network, start(), method=method, **options)
        assert len(asked) == solution.evaluations and seen, (method, kind)
    with pytest.raises(InvalidArgumentError, match="while the callback runs"):
        _ = Info(1, 0.5, start(), torch.ones(3)).denoised


def test_a_sample_that_has_left_has_no_estimate() -> None:
    target = scoresde.targets.Gaussian(torch.zeros(2), 0.04 * torch.eye(2))
    x = torch.tensor([[0.0, 0.0], [30.0, -30.0]])
    seen: list[Tensor] = []
    options = {"rtol": 1e-5, "atol": 1e-3, "callback": lambda i: seen.append(i.denoised)}
    scoresde.solve(SDE, target.score(SDE), x, method="rk45", **options)
    assert all(v.shape == x.shape for v in seen) and seen[0].isfinite().all() and not seen[-1].isfinite().all()


def test_a_limited_model_is_a_prediction() -> None:
    """Of a network that the caller evaluates, as `Clip` of a model; other score functions are refused."""
    x = 3 * start(6, 2)
    limited = scoresde.scores.Clip(ScoreModel(net, SDE, "noise"), -0.5, 0.5)
    options = {"method": "dpmpp_2m", "steps": 6}
    stepper = told(Stepper(SDE, x=x, prediction=limited, **options))
    assert torch.equal(stepper.x, scoresde.solve(SDE, limited, x, **options).x)
    assert not torch.equal(stepper.x, scoresde.solve(SDE, limited.score_fns[0], x, **options).x)
    target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
    with pytest.raises(InvalidArgumentError, match="a score function already"):
        Stepper(SDE, x=x, prediction=target.score(SDE), **options)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of the numbers, tensors and texts in a state."""
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, part in rows for place in places_in(part, (*path, key))] or [path]


def test_a_damaged_state_is_refused_and_changes_nothing() -> None:
    for method in ("dpm_3m", "rk45", "pc"):
        options = {"seed": 0, **options_of(method)}
        stepper = Stepper(SDE, method, start(), **options)
        state = told(Stepper(SDE, method, start(), **options), calls=3).state_dict()
        for place in places_in(state):
            damaged = copy.deepcopy(state)
            *folders, last = place
            part = functools.reduce(lambda part, key: part[key], folders, damaged)
            if part[last] is not None:
                part[last] = None
                with pytest.raises(InvalidArgumentError, match="`state`"):
                    stepper.load_state_dict(damaged)
        assert torch.equal(told(stepper).x, scoresde.solve(SDE, net, start(), method=method, **options).x), method


@pytest.mark.parametrize(
    ("method", "native"),
    [("scipy:RK45", "rk45"), ("torchdiffeq:euler", "euler"), ("torchdiffeq:rk4", "rk4"), ("torchsde:srk", "sra1")],
)
def test_methods_that_call_the_network_themselves_are_refused(method: str, native: str) -> None:
    own = {} if method == "scipy:RK45" else {"steps": 3}
    with pytest.raises(InvalidArgumentError, match=f"{method}' calls the network itself.* take '{native}'"):
        Stepper(SDE, method, start(), seed=0, **own)
    Stepper(SDE, native, start(), seed=0, **own)


def test_a_step_that_yields_no_request_is_refused() -> None:
    @dataclass(frozen=True)
    class Wrong(scoresde.solvers.Solver):
        def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any) -> Any:
            given = yield self.part(process, x, start)  # in place of `yield from`
            return scoresde.StepResult(given)

        def part(self, process: Any, x: Tensor, start: Any) -> Any:
            return (yield process.drift(x, start))

    for run in (lambda m: scoresde.solve(SDE, net, start(), method=m, steps=2), lambda m: Stepper(SDE, m, start())):
        with pytest.raises(scoresde.InvalidTypeError, match="yield from"):
            run(Wrong())


def test_a_forgotten_yield_says_so() -> None:
    @dataclass(frozen=True)
    class Forgetful(scoresde.solvers.Solver):
        def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any) -> Any:
            return scoresde.StepResult(x + process.estimate(x, start).data)

    with pytest.raises(AttributeError, match=r"\(yield process.estimate\(x, start\)\).data"):
        scoresde.solve(SDE, net, start(), method=Forgetful(), steps=2)


def test_a_step_may_be_a_plain_function_of_the_state() -> None:
    @dataclass(frozen=True)
    class Shrinking(scoresde.solvers.Solver):
        evaluations: ClassVar[int] = 0

        def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any) -> scoresde.StepResult:
            return scoresde.StepResult(stop.sigma / start.sigma * x)

    wanted = scoresde.solve(SDE, net, start(), method=Shrinking(), steps=3).x
    stepper = Stepper(SDE, Shrinking(), start(), steps=3)
    assert stepper.done and torch.equal(stepper.x, wanted)


def test_a_score_function_that_catches_exceptions_still_asks() -> None:
    def careful(called: Callable[..., Tensor]) -> ScoreModel:
        def inner(x: Tensor, t: Tensor) -> Tensor:
            try:
                return called(x, t)
            except Exception:
                return torch.zeros_like(x)

        return ScoreModel(inner, SDE, "noise")

    for method in ("ddim", "rk45"):
        options = options_of(method) | {"seed": 0}
        wanted = scoresde.solve(SDE, ScoreModel(net, SDE, "noise"), start(), method=method, **options).x
        assert torch.equal(told(Stepper(SDE, method, start(), prediction=careful, **options)).x, wanted)


@pytest.mark.parametrize("method", ["pc", "dpmpp_2m_sde", "edm"])
@pytest.mark.parametrize("context", [contextlib.nullcontext, scoresde.step_by_step])
def test_an_exception_before_a_question_ends_nothing(method: str, context: Callable[[], Any]) -> None:
    """A draw fails, in a step by a plan and in one without: the stepper goes on where it was, with the same draws."""
    times = itertools.count()

    class Fragile(scoresde.SampleNoise):
        def normal(self, like: Tensor) -> Tensor:
            if next(times) in (2, 3, 6):
                raise KeyboardInterrupt
            return super().normal(like)

    options, failed = options_of(method), 0
    with context():
        wanted = scoresde.solve(SDE, net, start(), method=method, seeds=range(3), **options)
        stepper = Stepper(SDE, method, start(), noise=scoresde.SampleNoise(range(3)), **options)
        stepper._setup.loop.process.noise.__class__ = Fragile
        while not stepper.done:
            try:
                stepper.tell(net(*stepper.ask()))
            except KeyboardInterrupt:
                failed += 1
            except InvalidArgumentError:  # the last draw failed after the last question, and `ask` has made it
                assert stepper.done
    assert failed >= 2 and torch.equal(stepper.x, wanted.x) and stepper.solution.evaluations == wanted.evaluations
