"""What `solve`, the processes and `ScoreModel` do with input that they cannot use: they say so in words, and at once.

Every case runs under a watchdog, so that a hang is a failure.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import scoresde
from scoresde import (
    EDMSDE,
    SDE,
    VDMSDE,
    VESDE,
    VPSDE,
    CosineVPSDE,
    Estimate,
    FlowSDE,
    GaussianSDE,
    Grid,
    InvalidArgumentError,
    InvalidTypeError,
    LangevinCorrector,
    LinearGamma,
    MaxStepsError,
    NonFiniteError,
    NormalPrior,
    ScoreFnError,
    ScoreModel,
    ScoreSDEError,
    Status,
    StepSizeUnderflowError,
    SubVPSDE,
    solve,
    solvers,
)
from scoresde.solvers import make_solver

pytestmark = pytest.mark.timeout(20)

NAN, INF = math.nan, math.inf
SDE_VP = VPSDE()
HUGE = 10**400  # an integer that no float holds


class Spy:
    """A score function that counts its calls; elementwise, so that no sample can see another."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any] | None = None, **attributes: Any) -> None:
        self.function = function or (lambda x, t: -x)
        self.calls = 0
        vars(self).update(attributes)

    def __call__(self, x: Tensor, t: Tensor, **context: Any) -> Any:
        self.calls += 1
        return self.function(x, t)


def states(rows: int = 3, *event: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, *(event or (2,)), generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(
        dtype
    )


def column(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (x.ndim - 1)).to(x)


def refused(call: Callable[[], Any], kind: type[ScoreSDEError], words: tuple[str, ...]) -> ScoreSDEError:
    """The error of a call that must be refused, with a message of more than a name and all of ``words``."""
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, ScoreSDEError)
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} is missing in: {message}"
    assert len(message) > 30
    return caught.value


class OrnsteinUhlenbeck(SDE):
    """A process that is not affine: only drift and diffusion are known."""

    def drift(self, x: Tensor, t: Any) -> Tensor:
        return -x

    def diffusion(self, t: Any) -> Tensor:
        return torch.as_tensor(2.0**0.5)


GENERAL = OrnsteinUhlenbeck(t_min=0.0, t_max=2.0, prior=NormalPrior(1.0))


# --- the state ------------------------------------------------------------------------------------------------------

BAD_STATES = [
    pytest.param(torch.tensor(1.0), InvalidArgumentError, ("`x`", "()", "reshape"), id="0-d"),
    pytest.param(torch.ones(3), InvalidArgumentError, ("`x`", "(3,)", "reshape(-1, 1)"), id="1-d"),
    pytest.param(torch.ones(3, 2, dtype=torch.int64), InvalidTypeError, ("`x`", "int64", "x.float()"), id="int"),
    pytest.param(torch.ones(3, 2, dtype=torch.uint8), InvalidTypeError, ("`x`", "uint8", "x.float()"), id="uint8"),
    pytest.param(torch.ones(3, 2, dtype=torch.complex64), InvalidTypeError, ("`x`", "complex64"), id="complex"),
    pytest.param(torch.ones(3, 2, dtype=torch.bool), InvalidTypeError, ("`x`", "bool", "x.float()"), id="bool"),
    pytest.param(np.ones((3, 2)), InvalidTypeError, ("`x`", "ndarray", "from_numpy"), id="numpy"),
    pytest.param([[1.0, 2.0]], InvalidTypeError, ("`x`", "list", "as_tensor"), id="list"),
    pytest.param("noise", InvalidTypeError, ("`x`", "str"), id="str"),
    pytest.param(torch.ones(3, 2).to_sparse(), InvalidTypeError, ("`x`", "sparse"), id="sparse"),
    pytest.param(torch.ones(3, 2, device="meta"), InvalidTypeError, ("`x`", "meta"), id="meta"),
    pytest.param(torch.ones(3, 2).to(torch.float8_e4m3fn), InvalidTypeError, ("`x`", "float8_e4m3fn"), id="float8"),
]


@pytest.mark.parametrize("method", ["ddim", "rk45"])
@pytest.mark.parametrize(("x", "kind", "words"), BAD_STATES)
def test_a_state_that_is_none(x: Any, kind: type[ScoreSDEError], words: tuple[str, ...], method: str) -> None:
    spy = Spy()
    refused(lambda: solve(SDE_VP, spy, x, method=method), kind, words)
    assert spy.calls == 0


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45", "adams"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_state_with_one_bad_element(value: float, method: str) -> None:
    x = states(7)
    x[4, 1] = value
    spy = Spy()
    error = refused(lambda: solve(SDE_VP, spy, x, method=method), NonFiniteError, ("`x`", "1 of 7 samples", "[4]"))
    assert isinstance(error, NonFiniteError) and error.stage == "input" and error.indices == [4]
    assert isinstance(error, ArithmeticError)
    assert spy.calls == 0


def test_a_state_that_overflows_the_dtype_asked_for() -> None:
    spy = Spy()
    x = torch.full((2, 2), 1e300, dtype=torch.float64)
    refused(lambda: solve(SDE_VP, spy, x, method="ddim", dtype=torch.float32), NonFiniteError, ("`x`",))
    assert spy.calls == 0


def test_only_the_first_five_bad_samples_are_listed() -> None:
    with pytest.raises(NonFiniteError, match="9 samples") as caught:
        solve(SDE_VP, Spy(), torch.full((9, 2), NAN), method="ddim")
    assert caught.value.indices == [0, 1, 2, 3, 4]


# --- single arguments -----------------------------------------------------------------------------------------------

V, T = InvalidArgumentError, InvalidTypeError
# name, value, class, words that the message must have
FIXED: list[tuple[str, Any, type[ScoreSDEError], tuple[str, ...]]] = [
    ("shape", 5, T, ("`shape`", "5", "tuple")),
    ("shape", (3,), V, ("`shape`", "(3,)")),
    ("shape", (3, 4), V, ("`shape`", "(3, 4)", "(3, 2)")),
    ("device", "gpu", V, ("`device`", "gpu")),
    ("device", 1.5, T, ("`device`", "1.5")),
    ("device", "meta", V, ("`device`", "meta")),
    ("dtype", torch.int32, T, ("`dtype`", "int32", "floating")),
    ("dtype", torch.complex64, T, ("`dtype`", "complex64", "floating")),
    ("dtype", "float32", T, ("`dtype`", "'float32'")),
    ("dtype", torch.float8_e5m2, T, ("`dtype`", "float8_e5m2")),
    ("context", [1], T, ("`context`", "list")),
    ("context", "label", T, ("`context`", "str")),
    ("context", {1: torch.ones(3)}, T, ("`context`", "1")),
    ("context", {"x": torch.ones(3)}, V, ("`context", "'x'")),
    ("context", {"t": torch.ones(3)}, V, ("`context", "'t'")),
    ("context", {"label": torch.ones(4)}, V, ("`context['label']`", "(4,)", "(3,")),
    ("context", {"label": torch.tensor(1)}, V, ("`context['label']`", "()")),
    ("context", {"label": 1}, V, ("`context['label']`", "int")),
    ("context", {"label": [1, 2, 3]}, V, ("`context['label']`", "list")),
    ("save_at", "step", V, ("`save_at`", "'step'", '"steps"')),
    ("save_at", ["a"], T, ("`save_at`", "'a'")),
    ("save_at", [None], T, ("`save_at`", "None")),
    ("save_at", [1j], T, ("`save_at`",)),
    ("save_at", object(), T, ("`save_at`", "object")),
    ("save_at", [0.5, 2.0], V, ("`save_at`", "2.0", "[0.001, 1]")),
    ("save_at", [0.0], V, ("`save_at`", "0.0")),
    ("save_at", [NAN], V, ("`save_at`", "nan")),
    ("callback", 5, T, ("`callback`", "5")),
    ("callback", "stop", T, ("`callback`", "'stop'")),
    ("steps", 0, V, ("`steps`", "0", "at least 1")),
    ("steps", -1, V, ("`steps`", "-1", "at least 1")),
    ("steps", 1.5, T, ("`steps`", "1.5", "integer")),
    ("steps", 2.0, T, ("`steps`", "2.0", "integer")),
    ("steps", True, T, ("`steps`", "True", "integer")),
    ("steps", "5", T, ("`steps`", "'5'", "integer")),
    ("steps", NAN, T, ("`steps`", "nan", "integer")),
    ("steps", 10**13, V, ("`steps`", "10000000000000")),
    ("steps", 10**30, V, ("`steps`",)),
    ("t_start", 2.0, V, ("`t_start`", "2.0", "[0.001, 1]")),
    ("t_start", 0.0, V, ("`t_start`", "0.0", "t_min")),
    ("t_start", NAN, V, ("`t_start`", "nan")),
    ("t_start", "1", T, ("`t_start`", "'1'")),
    ("t_start", True, T, ("`t_start`", "True")),
    ("t_start", 1j, T, ("`t_start`", "complex")),
    ("t_start", torch.ones(2), T, ("`t_start`", "Tensor")),
    ("t_start", HUGE, V, ("`t_start`",)),
    ("t_end", -1.0, V, ("`t_end`", "-1.0", "t_max")),
    ("t_end", 1e-4, V, ("`t_end`", "0.0001")),
    ("t_end", -INF, V, ("`t_end`", "-inf")),
    ("grid", "log", V, ("`grid`", "'log'", "'log_snr'")),
    ("grid", 5, T, ("`grid`", "int")),
    ("grid", {}, T, ("`grid`", "dict")),
    ("grid", ["a", "b"], T, ("`grid`", "'a'")),
    ("grid", [1.0, None], T, ("`grid`", "None")),
    ("grid", [], V, ("`grid`", "(0,)")),
    ("grid", [0.5], V, ("`grid`", "(1,)", "at least 2")),
    ("grid", torch.tensor(0.5), V, ("`grid`", "()")),
    ("grid", torch.ones(2, 2), V, ("`grid`", "(2, 2)")),
    ("grid", torch.ones(2, dtype=torch.complex64), T, ("`grid`", "complex64")),
    ("grid", [1.0, 0.5, 0.5, 0.1], V, ("`grid`", "entries 1 and 2", "0.5")),
    ("grid", [1.0, 0.4, 0.5, 0.1], V, ("`grid`", "entries 1 and 2", "0.4")),
    ("grid", [1.0, NAN, 0.1], V, ("`grid`", "entry 1", "nan")),
    ("grid", [1.0, 0.5, -0.1], V, ("`grid`", "entry 2", "-0.1", "0.001")),
    ("grid", [1.5, 0.5], V, ("`grid`", "entry 0", "1.5")),
    ("grid", [1.0, 1.0], V, ("`grid`", "entries 0 and 1")),
    ("grid", Grid(None), T, ("`grid`", "None")),  # type: ignore[arg-type]
    ("grid", Grid(("a", "b")), T, ("`grid`", "'a'")),  # type: ignore[arg-type]
    ("grid", Grid((1.0, 0.5, 0.7)), V, ("`grid`", "entries 1 and 2")),
    ("grid", lambda *_: None, T, ("`grid`", "None")),
    ("grid", lambda *_: "x", T, ("`grid`", "'x'")),
    ("grid", lambda sde, a, b, n: torch.ones(n + 1), V, ("`grid`", "entries 0 and 1")),
    ("grid", lambda sde, a, b, n: [a, b], V, ("`grid`", "steps + 1 = 4", "2")),
    ("grid", lambda sde, a, b, n: [b, 0.1, 0.2, a], V, ("`grid`", "from 1 to 0.001")),
    ("rtol", 1e-3, V, ("`rtol`", "'ddim'", "rk45")),
    ("atol", 1e-3, V, ("`atol`", "'ddim'", "rk45")),
    ("stochasticity", 1.0, V, ("stochasticity", "'ddim'", "euler_maruyama")),
    ("stochasticity", 0.0, V, ("stochasticity", "'ddim'", "euler_maruyama")),
    ("stochasticity", -1.0, V, ("`stochasticity`", "-1")),
    ("stochasticity", NAN, V, ("`stochasticity`", "nan")),
    ("max_steps", 0, V, ("`max_steps`", "0", "at least 1")),
    ("max_steps", 1.5, T, ("`max_steps`", "1.5")),
    ("max_steps", True, T, ("`max_steps`", "True")),
    ("seed", -1, V, ("`seed`", "-1")),
    ("seed", 2**64, V, ("`seed`", str(2**64))),
    ("seed", 1.5, T, ("`seed`", "1.5")),
    ("seed", True, T, ("`seed`", "True")),
    ("seed", "0", T, ("`seed`", "'0'")),
    ("seeds", 5, T, ("`seeds`", "5", "`seed=`")),
    ("seeds", torch.tensor(5), T, ("`seeds`", "`seed=`")),
    ("seeds", [1, 2], V, ("`seeds`", "3 samples", "2 seeds")),
    ("seeds", [1, 2, 3, 4], V, ("`seeds`", "3 samples", "4 seeds")),
    ("seeds", [1, 2, -3], V, ("`seeds[2]`", "-3")),
    ("seeds", [1, 2.0, 3], T, ("`seeds[1]`", "2.0")),
    ("seeds", torch.ones(3), T, ("`seeds[0]`", "1.0")),
    ("seeds", "abc", T, ("`seeds`", "'abc'")),
    ("seeds", [1, 2, 2**64], V, ("`seeds[2]`",)),
    ("generator", 5, T, ("`generator`", "int", "`seed=`")),
    ("noise", 5, T, ("`noise`", "int", "callable")),
    ("method", "eulr", V, ("`method`", "'eulr'", "did you mean 'euler'")),
    ("method", "ddimm", V, ("`method`", "'ddimm'", "did you mean 'ddim'")),
    ("method", 5, T, ("`method`", "5", "methods()")),
    ("method", None, T, ("`method`", "None", "methods()")),
    ("method", ["ddim"], T, ("`method`", "['ddim']")),
    ("method", solvers.DDIM, T, ("`method`", "DDIM")),
    ("eta", 1.0, V, ("'eta'", "'ddim'")),
    ("stepsize", 0.1, V, ("'stepsize'", "'ddim'")),
    ("stpes", 5, V, ("'stpes'", "did you mean 'steps'")),
    ("rtoll", 5, V, ("'rtoll'", "did you mean 'rtol'")),
]


@pytest.mark.parametrize(
    ("name", "value", "kind", "words"), [pytest.param(*case, id=f"{i}-{case[0]}") for i, case in enumerate(FIXED)]
)
def test_an_argument_of_a_fixed_step_method(
    name: str, value: Any, kind: type[ScoreSDEError], words: tuple[str, ...]
) -> None:
    spy = Spy()
    arguments = {"method": "ddim", "steps": 3} | {name: value}
    if name == "grid" and (isinstance(value, list | Tensor | Grid)):
        del arguments["steps"]
    refused(lambda: solve(SDE_VP, spy, states(), **arguments), kind, words)
    assert spy.calls == 0


ADAPTIVE: list[tuple[dict[str, Any], type[ScoreSDEError], tuple[str, ...]]] = [
    ({"rtol": -1.0}, V, ("`rtol`", "-1")),
    ({"rtol": NAN}, V, ("`rtol`", "nan")),
    ({"rtol": INF}, V, ("`rtol`", "inf")),
    ({"rtol": "tight"}, T, ("`rtol`", "'tight'")),
    ({"rtol": True}, T, ("`rtol`", "True")),
    ({"rtol": HUGE}, V, ("`rtol`",)),
    ({"atol": -1e-3}, V, ("`atol`", "-0.001")),
    ({"atol": NAN}, V, ("`atol`", "nan")),
    ({"rtol": 0.0, "atol": 0.0}, V, ("rtol=0", "atol=0")),
    ({"rtol": 1e-7}, V, ("rtol=1e-07", "float32", "dtype=torch.float64")),
    ({"rtol": 1e-7, "atol": 1e-7}, V, ("rtol=1e-07", "atol=1e-07", "float32")),
    ({"rtol": 0.0, "atol": 1e-8}, V, ("atol=1e-08", "float32")),
    ({"rtol": 1e-16, "dtype": torch.float64}, V, ("rtol=1e-16", "float64")),
    ({"steps": 5}, V, ("`steps`", "'rk45'", "rtol")),
    ({"grid": "time"}, V, ("`grid`", "'rk45'", "rtol")),
    ({"grid": [1.0, 0.5]}, V, ("`grid`", "'rk45'")),
    ({"stochasticity": 1.0}, V, ("stochasticity", "'rk45'")),
    ({"max_steps": 0}, V, ("`max_steps`", "0")),
    ({"t_end": 5.0}, V, ("`t_end`", "5.0")),
    ({"save_at": [5.0]}, V, ("`save_at`", "5.0")),
]


@pytest.mark.parametrize(
    ("arguments", "kind", "words"), [pytest.param(*c, id=f"{i}-{'-'.join(c[0])}") for i, c in enumerate(ADAPTIVE)]
)
def test_an_argument_of_an_adaptive_method(
    arguments: dict[str, Any], kind: type[ScoreSDEError], words: tuple[str, ...]
) -> None:
    spy = Spy()
    refused(lambda: solve(SDE_VP, spy, states(dtype=torch.float32), method="rk45", **arguments), kind, words)
    assert spy.calls == 0


OPTIONS: list[tuple[dict[str, Any], type[ScoreSDEError], tuple[str, ...]]] = [
    ({"snrr": 0.1}, V, ("'snrr'", "did you mean 'snr'")),
    ({"snr": -1.0}, V, ("`snr`", "-1")),
    ({"snr": 0.0}, V, ("`snr`", "0")),
    ({"snr": NAN}, V, ("`snr`", "nan")),
    ({"snr": "big"}, T, ("`snr`", "'big'")),
    ({"moves": 0}, V, ("`moves`", "0", "at least 1")),
    ({"moves": 1.5}, T, ("`moves`", "1.5")),
    ({"moves": True}, T, ("`moves`", "True")),
    ({"order": "x"}, V, ("`order`", "'x'", "cp, pc")),
    ({"predictor": "ancestrl"}, V, ("`predictor`", "'ancestrl'", "did you mean 'ancestral'")),
    ({"predictor": "rk45"}, V, ("`predictor`", "'rk45'", "ancestral")),
    ({"predictor": "pc"}, V, ("`predictor`", "'pc'", "ancestral")),
    ({"predictor": 5}, T, ("`predictor`", "5", "Ancestral()")),
    ({"predictor": solvers.Ancestral}, T, ("`predictor`", "Ancestral")),
    ({"corrector": "langvin"}, V, ("`corrector`", "'langvin'", "did you mean 'langevin'")),
    ({"corrector": None}, T, ("`corrector`", "None", "LangevinCorrector()")),
    ({"predictor": "annealed_langevin"}, V, ("`predictor`", "'annealed_langevin'", "ancestral")),
    ({"rule": ["batch"]}, V, ("`rule`", "batch")),
    ({"snr": 1.5}, V, ("`snr`", "(0, 1)", "diverge")),
    ({"stochasticity": 1.0}, V, ("stochasticity", "euler_maruyama")),
    ({"predictor": "ancestral", "stochasticity": 1.0}, V, ("stochasticity", "euler_maruyama")),
]


@pytest.mark.parametrize(
    ("options", "kind", "words"), [pytest.param(*c, id=f"{i}-{'-'.join(c[0])}") for i, c in enumerate(OPTIONS)]
)
def test_an_option_of_pc(options: dict[str, Any], kind: type[ScoreSDEError], words: tuple[str, ...]) -> None:
    spy = Spy()
    refused(lambda: solve(SDE_VP, spy, states(), method="pc", steps=3, seed=0, **options), kind, words)
    assert spy.calls == 0


def test_a_corrector_object_carries_its_own_options() -> None:
    spy = Spy()
    error = refused(
        lambda: solve(SDE_VP, spy, states(), method="pc", steps=3, corrector=LangevinCorrector(), snr=0.1),
        InvalidArgumentError,
        ("snr", "corrector"),
    )
    assert "did you mean 'snr'" not in str(error)  # it is no typing error
    assert spy.calls == 0


def test_a_solver_object_carries_its_own_options() -> None:
    spy = Spy()
    refused(
        lambda: solve(SDE_VP, spy, states(), method=solvers.Langevin(), steps=3, snr=0.1),
        InvalidArgumentError,
        ("snr", "Langevin(...)"),
    )
    assert spy.calls == 0


@pytest.mark.parametrize("predictor", ["euler", "heun", "midpoint", "rk4"])
def test_pc_with_a_predictor_of_an_ode_keeps_the_law(predictor: str) -> None:
    """A deterministic predictor steps the probability flow, not the reverse SDE without its noise; or it is refused."""
    target = scoresde.targets.Gaussian(torch.zeros(1), 0.25)
    arguments: dict[str, Any] = {"method": "pc", "predictor": predictor, "steps": 100, "shape": (4000, 1), "seed": 0}
    try:
        solution = solve(SDE_VP, target.score(SDE_VP), **arguments)
    except InvalidArgumentError:
        return
    # The predictor and the corrector each keep the distribution but for their bias, a few per cent; 6 standard errors
    # are 0.034.
    assert float(solution.x.var()) == pytest.approx(0.25, abs=0.05)


# --- combinations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [("seed", "seeds"), ("seed", "generator"), ("seeds", "noise"), ("generator", "noise"), ("seed", "seeds", "noise")],
)
def test_at_most_one_source_of_noise(names: tuple[str, ...]) -> None:
    values = {"seed": 0, "seeds": [1, 2, 3], "generator": torch.Generator(), "noise": lambda k, like: like}
    spy = Spy()
    refused(
        lambda: solve(SDE_VP, spy, states(), method="ancestral", **{n: values[n] for n in names}),
        InvalidArgumentError,
        ("at most one", *names),
    )
    assert spy.calls == 0


@pytest.mark.parametrize("name", ["steps", "t_start", "t_end"])
def test_a_given_grid_sets_steps_and_ends(name: str) -> None:
    spy = Spy()
    for grid in (torch.tensor([1.0, 0.5]), [1.0, 0.5], Grid((1.0, 0.5))):
        refused(
            lambda grid=grid: solve(SDE_VP, spy, states(), method="ddim", grid=grid, **{name: 1}),
            InvalidArgumentError,
            (f"`{name}`", "grid", "leave it out"),
        )
    assert spy.calls == 0


@pytest.mark.parametrize("method", [m.name for m in scoresde.methods() if m.stochastic])
def test_encoding_needs_a_deterministic_method(method: str) -> None:
    spy = Spy()
    refused(
        lambda: solve(SDE_VP, spy, states(), method=method, steps=3, t_start=0.1, t_end=0.9, seed=0),
        InvalidArgumentError,
        ("t_start=0.1", "t_end=0.9", repr(make_solver(method, {}).name), "rk45"),
    )
    assert spy.calls == 0


@pytest.mark.parametrize("method", [m.name for m in scoresde.methods() if not m.stochastic])
def test_deterministic_methods_encode(method: str) -> None:
    solution = solve(SDE_VP, Spy(), states(), method=method, t_start=0.1, t_end=0.9)
    assert solution.t.tolist() == [0.9] * 3 and bool(solution.success.all())


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45", "adams"])
def test_equal_times_return_the_state(method: str) -> None:
    spy, x = Spy(), states()
    solution = solve(SDE_VP, spy, x, method=method, t_start=0.4, t_end=0.4)
    assert spy.calls == 0 and solution.evaluations == 0 and solution.nfe.tolist() == [0, 0, 0]
    assert torch.equal(solution.x, x) and solution.t.tolist() == [0.4] * 3 and bool(solution.success.all())
    assert solution.x.data_ptr() != x.data_ptr()  # not the caller's memory


def test_a_missing_state_starts_at_the_prior_only() -> None:
    spy = Spy(event_shape=(2,))
    refused(
        lambda: solve(SDE_VP, spy, method="ddim", t_start=0.5), InvalidArgumentError, ("`x`", "t_start=0.5", "t_max=1")
    )
    refused(lambda: solve(SDE_VP, Spy(), method="ddim"), InvalidArgumentError, ("x", "shape=(batch, *event)"))
    for shape in (5, (3,), "ab", (3, -1), (3, 2.0), (True, 2)):
        with pytest.raises(ScoreSDEError, match="shape"):
            solve(SDE_VP, spy, method="ddim", shape=shape)
    assert spy.calls == 0


def test_the_event_shape_of_a_score_function_is_checked() -> None:
    spy = Spy(event_shape=(3,))
    refused(lambda: solve(SDE_VP, spy, states(), method="ddim"), InvalidArgumentError, ("(3,)", "(2,)"))
    refused(lambda: solve(SDE_VP, spy, shape=(4, 2), method="ddim"), InvalidArgumentError, ("(3,)", "(2,)"))
    assert spy.calls == 0


def test_arguments_that_are_no_process_or_score() -> None:
    target = scoresde.targets.Gaussian(torch.zeros(2), 1.0)
    refused(lambda: solve("vp", Spy(), states()), InvalidTypeError, ("`sde`", "'vp'", "VPSDE()"))
    refused(lambda: solve(VPSDE, Spy(), states()), InvalidTypeError, ("`sde`", "VPSDE"))
    refused(lambda: solve(SDE_VP, target, states()), InvalidTypeError, ("`score_fn`", "Gaussian", ".score(sde)"))
    refused(lambda: solve(SDE_VP, None, states()), InvalidTypeError, ("`score_fn`", "NoneType"))


def test_a_score_function_of_another_process() -> None:
    target = scoresde.targets.Gaussian(torch.zeros(2), 1.0)
    for other in (VESDE(), VPSDE(beta_max=10.0), SubVPSDE()):
        refused(
            lambda other=other: solve(SDE_VP, target.score(other), states(), method="ddim"),
            InvalidArgumentError,
            ("`score_fn`", "`sde`", ".score(sde)"),
        )
    # Another interval of the same schedule is the same score.
    solve(SDE_VP, target.score(VPSDE(t_min=0.1)), states(), method="ddim", steps=2)


@pytest.mark.parametrize("method", ["pc", "ancestral", "reverse_diffusion", "ddim", "langevin"])
def test_methods_that_need_alpha_and_sigma(method: str) -> None:
    spy = Spy()
    refused(
        lambda: solve(GENERAL, spy, states(), method=method, steps=3, seed=0),
        InvalidArgumentError,
        (repr(method), "OrnsteinUhlenbeck", "euler_maruyama"),
    )
    assert spy.calls == 0


def test_denoising_needs_alpha_and_sigma_and_says_so_first() -> None:
    spy = Spy()
    refused(
        lambda: solve(GENERAL, spy, states(), method="euler", steps=3, denoise=True),
        InvalidArgumentError,
        ("`denoise`", "OrnsteinUhlenbeck", "denoise=False"),
    )
    assert spy.calls == 0


@pytest.mark.parametrize("grid", ["log_snr", "karras"])
def test_grids_that_need_alpha_and_sigma(grid: str) -> None:
    spy = Spy()
    refused(lambda: solve(GENERAL, spy, states(), method="euler", grid=grid), InvalidArgumentError, ("grid", '"time"'))
    assert spy.calls == 0


def test_the_prior_gives_states_of_the_shape_asked_for() -> None:
    """A mean that broadcasts the state to another shape is refused, not followed."""
    spy = Spy()
    for mean, shape in ((torch.zeros(5), (4, 1)), (torch.zeros(3), (4, 2)), (torch.zeros(2, 4, 2), (4, 2))):
        with pytest.raises(InvalidArgumentError, match=r"prior|mean"):
            solve(VPSDE(prior=NormalPrior(1.0, mean)), spy, shape=shape, method="ddim", steps=2)
    assert spy.calls == 0


# --- ends of the interval -------------------------------------------------------------------------------------------

NOISE_END = FlowSDE(t_max=1.0)
DATA_END = FlowSDE(t_min=0.0)


def _shrunk(x: Tensor, t: Tensor) -> Tensor:
    return 0.1 * x


@pytest.mark.parametrize("method", ["ddim", "ancestral", "euler", "heun", "midpoint", "rk4", "rk45"])
@pytest.mark.parametrize("prediction", ["data", "v", "flow"])
@pytest.mark.parametrize("sde", [NOISE_END, CosineVPSDE(t_max=1.0)], ids=["flow", "cosine"])
def test_a_solve_may_start_where_alpha_is_0_if_the_limit_is_defined(sde: Any, prediction: str, method: str) -> None:
    solution = solve(sde, ScoreModel(_shrunk, sde, prediction), states(), method=method, seed=0)
    assert bool(solution.success.all()) and bool(torch.isfinite(solution.x).all())


@pytest.mark.parametrize("prediction", ["score", "noise", "edm"])
def test_predictions_without_the_limit_are_refused(prediction: str) -> None:
    spy = Spy()
    model = ScoreModel(spy, NOISE_END, prediction)
    refused(
        lambda: solve(NOISE_END, model, states(), method="ddim"),
        InvalidArgumentError,
        ("alpha is 0 at t=1", "data, v or flow", "t_max below"),
    )
    refused(lambda: solve(NOISE_END, spy, states(), method="ddim"), InvalidArgumentError, ("alpha is 0", "ScoreModel"))
    assert spy.calls == 0


@pytest.mark.parametrize("method", ["pc", "reverse_diffusion", "euler_maruyama", "langevin"])
def test_methods_without_the_limit_are_refused(method: str) -> None:
    spy = Spy()
    model = ScoreModel(spy, NOISE_END, "flow")
    refused(
        lambda: solve(NOISE_END, model, states(), method=method, seed=0),
        InvalidArgumentError,
        ("alpha is 0 at t=1", repr(method), "ddim"),
    )
    assert spy.calls == 0


@pytest.mark.parametrize("time_input", ["rho", "log_snr"])
def test_time_inputs_that_are_infinite_at_the_noise_end_are_refused(time_input: str) -> None:
    model = ScoreModel(_shrunk, NOISE_END, "v", time_input=time_input)
    refused(lambda: solve(NOISE_END, model, states(), method="ddim"), InvalidArgumentError, ("alpha is 0 at t=1",))


@pytest.mark.parametrize("grid", ["log_snr", "karras"])
def test_grids_without_an_end_are_refused(grid: str) -> None:
    model = ScoreModel(_shrunk, NOISE_END, "v")
    refused(
        lambda: solve(NOISE_END, model, states(), method="ddim", grid=grid),
        InvalidArgumentError,
        (grid, "t=1", 'grid="time"'),
    )


def finite_or_refused(call: Callable[[], Any], spy: Spy) -> None:
    message = None
    try:
        solution = call()
    except InvalidArgumentError as error:
        message = str(error)
    if message is None:
        assert bool(torch.isfinite(solution.x).all())
    else:
        assert "sigma is 0 at t=0" in message and spy.calls == 0


@pytest.mark.parametrize("method", [m.name for m in scoresde.methods()])
@pytest.mark.parametrize("prediction", ["data", "v", "flow", "noise"])
def test_a_solve_that_ends_where_sigma_is_0_is_finite_or_refused(prediction: str, method: str) -> None:
    spy = Spy(_shrunk)
    model = ScoreModel(spy, DATA_END, prediction)
    finite_or_refused(lambda: solve(DATA_END, model, states(), method=method, seed=0), spy)


@pytest.mark.parametrize("method", [m.name for m in scoresde.methods() if not m.stochastic])
@pytest.mark.parametrize("prediction", ["data", "v", "flow", "noise"])
def test_an_encoding_that_starts_where_sigma_is_0_is_finite_or_refused(prediction: str, method: str) -> None:
    """Euler would evaluate the drift at sigma = 0, where it divides 0 by 0; so would DDIM with a data prediction."""
    spy = Spy(_shrunk)
    model = ScoreModel(spy, DATA_END, prediction)
    finite_or_refused(lambda: solve(DATA_END, model, states(), method=method, t_start=0.0, t_end=0.9), spy)


# --- the score function ---------------------------------------------------------------------------------------------

BAD_SCORES: list[tuple[str, Callable[[Tensor, Tensor], Any], tuple[str, ...]]] = [
    ("broadcastable", lambda x, t: x[:1], ("(3, 2)", "(1, 2)")),
    ("event only", lambda x, t: x[0], ("(3, 2)", "(2,)")),
    ("summed", lambda x, t: x.sum(1, keepdim=True), ("(3, 2)", "(3, 1)")),
    ("transposed", lambda x, t: x.T, ("(3, 2)", "(2, 3)")),
    ("0-d", lambda x, t: torch.tensor(0.0), ("(3, 2)", "()")),
    ("number", lambda x, t: 0.0, ("float", "tensor")),
    ("tuple", lambda x, t: (x, x), ("tuple", "tensor")),
    ("list", lambda x, t: [x], ("list", "tensor")),
    ("None", lambda x, t: None, ("NoneType", "tensor")),
    ("numpy", lambda x, t: x.numpy(), ("ndarray", "tensor")),
    ("int", lambda x, t: x.int(), ("int32", "float")),
    ("bool", lambda x, t: x > 0, ("bool", "float")),
    ("complex", lambda x, t: torch.complex(x, x), ("complex", "float")),
    ("device", lambda x, t: x.to("meta"), ("meta", "cpu")),
    ("in place", lambda x, t: x.mul_(0.5), ("in place", "x.clone()")),
]


@pytest.mark.parametrize("method", ["pc", "ddim", "heun", "rk45", "adams"])
@pytest.mark.parametrize(("function", "words"), [pytest.param(f, w, id=name) for name, f, w in BAD_SCORES])
def test_a_score_that_is_none(function: Callable[[Tensor, Tensor], Any], words: tuple[str, ...], method: str) -> None:
    spy = Spy(function)
    refused(
        lambda: solve(SDE_VP, spy, states(dtype=torch.float32), method=method, seed=0),
        ScoreFnError,
        ("core function", "call 1", *words),
    )
    assert spy.calls == 1


@pytest.mark.parametrize(
    "name", ["broadcastable", "tuple", "None", "number", "int", "bool", "complex", "device", "in place"]
)
def test_a_network_of_a_score_model_that_returns_no_prediction(name: str) -> None:
    function = next(f for n, f, _ in BAD_SCORES if n == name)
    spy = Spy(function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns when it drops an imaginary part; the point is that it must not
        with pytest.raises(ScoreFnError):
            solve(SDE_VP, ScoreModel(spy, SDE_VP, "noise"), states(dtype=torch.float32), method="ddim", steps=2)
    assert spy.calls == 1


@pytest.mark.parametrize("name", ["tuple", "None", "int", "broadcastable"])
def test_an_estimate_that_is_none(name: str) -> None:
    """A score function may offer its own estimate; it is checked like a score."""
    bad: dict[str, Callable[[Tensor], Any]] = {
        "tuple": lambda x: (x,),
        "None": lambda x: None,
        "int": lambda x: Estimate(x.int(), x.int()),
        "broadcastable": lambda x: Estimate(x[:1], x[:1]),
    }
    spy = Spy(estimate=lambda x, node: bad[name](x))
    with pytest.raises(ScoreFnError):
        solve(SDE_VP, spy, states(dtype=torch.float32), method="ddim", steps=2)


def test_a_wider_score_is_cast_with_one_warning() -> None:
    x = states(dtype=torch.float32)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        solution = solve(SDE_VP, lambda x, t: -x.double(), x, method="heun", steps=5)
    assert len(seen) == 1 and "float64" in str(seen[0].message) and "dtype=torch.float64" in str(seen[0].message)
    assert seen[0].filename == __file__  # it points to the caller's line
    assert solution.x.dtype == torch.float32
    assert torch.equal(solution.x, solve(SDE_VP, lambda x, t: -x, x, method="heun", steps=5).x)


def test_a_narrower_score_is_cast_quietly() -> None:
    x = states(dtype=torch.float32)
    solution = solve(SDE_VP, lambda x, t: (-x).half(), x, method="ddim", steps=5)
    assert solution.x.dtype == torch.float32


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45", "adams"])
def test_an_input_changed_in_place_is_not_the_callers(method: str) -> None:
    x = states()
    before = x.clone()
    with pytest.raises(ScoreFnError, match="in place"):
        solve(SDE_VP, lambda x, t: x.mul_(2.0), x, method=method, seed=0)
    assert torch.equal(x, before)


def test_an_input_changed_in_place_in_inference_mode() -> None:
    """Inference tensors have no version counter; the change must still not go unseen, or not count."""
    with torch.inference_mode():
        x = states()
        before = x.clone()
        expected = solve(SDE_VP, lambda x, t: -2 * x, x, method="ddim", steps=3).x
        try:
            got = solve(SDE_VP, lambda x, t: -x.mul_(2.0), x, method="ddim", steps=3).x
        except ScoreFnError:
            return
        assert torch.equal(x, before) and torch.equal(got, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["ddim", "heun", "rk45", "adams"])
def test_a_time_changed_in_place_does_not_move_the_clock(method: str, dtype: torch.dtype) -> None:
    """Networks scale their times, some in place."""

    def scaled(x: Tensor, t: Tensor) -> Tensor:
        t *= 999
        return -x

    x = states(dtype=dtype)
    expected = solve(SDE_VP, Spy(), x, method=method).x
    assert torch.equal(solve(SDE_VP, scaled, x, method=method).x, expected)


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45", "adams"])
def test_what_a_score_function_raises_comes_through(method: str) -> None:
    class Broken(Exception):
        pass

    def broken(x: Tensor, t: Tensor) -> Tensor:
        if float(t.min()) < 0.5:
            raise Broken("the network is ill")
        return -x

    with pytest.raises(Broken, match="the network is ill"):
        solve(SDE_VP, broken, states(), method=method, seed=0, progress=True)
    assert torch.is_grad_enabled()
    with pytest.raises(KeyboardInterrupt):
        solve(SDE_VP, Spy(lambda x, t: (_ for _ in ()).throw(KeyboardInterrupt())), states(), method=method)


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45", "adams"])
def test_what_a_callback_raises_comes_through(method: str) -> None:
    def callback(info: Any) -> None:
        raise ZeroDivisionError(f"at step {info.step}")

    with pytest.raises(ZeroDivisionError, match="at step 1"):
        solve(SDE_VP, Spy(), states(), method=method, seed=0, callback=callback, progress=True)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("draw", [lambda k, like: None, lambda k, like: like[:1], lambda k, like: 0.0])
def test_a_noise_function_that_returns_none(draw: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="`noise` must return a tensor of shape"):
        solve(SDE_VP, Spy(), states(), method="ancestral", steps=3, noise=draw)
    spy = Spy(event_shape=(2,))
    with pytest.raises(InvalidArgumentError, match="`noise` must return a tensor of shape"):
        solve(SDE_VP, spy, method="ancestral", steps=3, noise=draw, shape=(4, 2))
    assert spy.calls == 0


# --- values that stop being finite ----------------------------------------------------------------------------------


def _sick(when: float, value: float, elements: int | None = None) -> Spy:
    """A score that is ``value`` below time ``when``, for samples whose first element is far out; these stand still."""

    def function(x: Tensor, t: Tensor) -> Tensor:
        marked = x.flatten(1)[:, :1].reshape(-1, *[1] * (x.ndim - 1)) > 500
        ill = marked & (column(t, x) < when)
        if elements is not None:
            only = torch.zeros_like(x, dtype=torch.bool)
            only.flatten(1)[:, :elements] = True
            ill = ill & only
        score = -x / (1 + column(VE.sigma(t), x) ** 2)  # of data N(0, 1)
        return torch.where(ill, torch.full_like(x, value), torch.where(marked, torch.zeros_like(x), score))

    return Spy(function)


def _with_sick(rows: int, sick: tuple[int, ...]) -> Tensor:
    x = states(rows).clone()
    x[list(sick), 0] = 1000.0
    return x


VE = VESDE(sigma_max=10.0)  # its drift is the score alone, so a sample whose score is 0 stands still
FAIL_METHODS = ["pc", "ancestral", "euler_maruyama", "ddim", "heun", "rk4", "rk45", "adams"]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("method", FAIL_METHODS)
def test_a_score_that_is_nowhere_finite(method: str, value: float) -> None:
    with pytest.raises(NonFiniteError) as caught:
        solve(VE, Spy(lambda x, t: torch.full_like(x, value)), states(), method=method, seed=0)
    error = caught.value
    assert error.stage == "score" and error.indices == [0, 1, 2]
    assert "score" in str(error) and "throw=False" in str(error)
    assert error.partial.status.tolist() == [Status.NON_FINITE] * 3
    assert bool(error.partial.x.isnan().all())


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("when", [2.0, 0.4, 0.03])
@pytest.mark.parametrize("method", FAIL_METHODS)
def test_one_bad_element_of_one_sample_is_found(method: str, when: float, value: float) -> None:
    x = _with_sick(6, (4,))
    spy = _sick(when, value, elements=1)
    with pytest.raises(NonFiniteError) as caught:
        solve(VE, spy, x, method=method, seed=0)
    error = caught.value
    assert error.stage == "score" and error.indices == [4]
    assert error.t is not None and VE.t_min <= error.t <= VE.t_max
    assert "1 of 6" in str(error) and "[4]" in str(error)
    # The others were under way, or had arrived (each with steps of its own).
    assert error.partial.status[4] == Status.NON_FINITE
    assert set(error.partial.status[[0, 1, 2, 3, 5]].tolist()) <= {Status.STOPPED, Status.SUCCESS}
    assert bool(error.partial.x[4].isnan().all()) and bool(error.partial.x[[0, 1, 2, 3, 5]].isfinite().all())


@pytest.mark.parametrize("rowwise", [False, True])
@pytest.mark.parametrize("when", [2.0, 0.4, 0.03])
@pytest.mark.parametrize("method", FAIL_METHODS)
def test_without_throw_the_others_finish_as_if_alone(method: str, when: float, rowwise: bool) -> None:
    sick, well = (0, 4), [1, 2, 3, 5]
    x = _with_sick(6, sick)
    spy = _sick(when, NAN, elements=1)
    spy.rowwise = rowwise
    given: dict[str, Any] = {"method": method, "save_at": [0.5, VE.t_min], **({"steps": 200} if method == "pc" else {})}
    solution = solve(VE, spy, x, seeds=range(6), throw=False, **given)
    alone = solve(VE, _sick(when, NAN), x[well], seeds=well, **given)
    assert solution.status.tolist() == [1, 0, 0, 0, 1, 0]
    assert bool(solution.x[list(sick)].isnan().all())
    assert torch.equal(solution.x[well], alone.x)
    assert torch.equal(solution.nfe[well], alone.nfe) and torch.equal(solution.accepted[well], alone.accepted)
    assert torch.equal(solution.t[well], alone.t)
    assert bool((solution.t[list(sick)] > VE.t_min).all())  # where it stopped
    assert solution.xs is not None and alone.xs is not None
    assert torch.equal(solution.xs[:, well], alone.xs)


@pytest.mark.parametrize("rowwise", [False, True])
@pytest.mark.parametrize("method", [*FAIL_METHODS, "dpm_2m", "dpmpp_sde12"])
def test_without_throw_a_state_that_is_not_finite_is_left_out(method: str, rowwise: bool) -> None:
    x, well = states(6), [1, 2, 4]
    x[0, 1], x[3, 0], x[5] = NAN, INF, -INF
    seen: list[Tensor] = []
    spy = Spy(lambda x, t: (seen.append(x.clone()), -x)[1], rowwise=rowwise)
    given: dict[str, Any] = {"method": method, "save_at": [0.5, SDE_VP.t_min]}
    if method == "dpmpp_sde12":  # takes thousands of steps otherwise
        given |= {"rtol": 0.5, "atol": 0.5}
    solution = solve(SDE_VP, spy, x, seeds=range(6), throw=False, **given)
    alone = solve(SDE_VP, lambda x, t: -x, x[well], seeds=well, **given)
    assert solution.status.tolist() == [1, 0, 0, 1, 0, 1]
    assert solution.x.isnan().all(1).tolist() == [True, False, False, True, False, True]
    assert torch.equal(solution.x[well], alone.x) and torch.equal(solution.nfe[well], alone.nfe)
    assert torch.equal(solution.t[well], alone.t) and torch.equal(solution.accepted[well], alone.accepted)
    lost = [0, 3, 5]
    assert not solution.nfe[lost].any() and bool((solution.t[lost] == SDE_VP.t_max).all())
    assert solution.xs is not None and alone.xs is not None
    assert torch.equal(solution.xs[:, well], alone.xs) and bool(solution.xs[:, lost].isnan().all())
    assert max(map(len, seen)) == (3 if rowwise else 6) and all(bool(x.isfinite().all()) for x in seen)


@pytest.mark.parametrize("method", ["ddim", "adams", "pc"])
def test_a_batch_without_a_finite_state_is_not_evaluated(method: str) -> None:
    spy = Spy()
    solution = solve(SDE_VP, spy, states() * NAN, method=method, throw=False, save_at="steps", denoise=True)
    assert spy.calls == 0 == solution.evaluations and solution.status.tolist() == [1, 1, 1]
    assert bool(solution.x.isnan().all()) and solution.xs is not None and solution.xs.shape == (1, 3, 2)


def test_one_that_is_not_finite_in_a_solve_without_a_step() -> None:
    x = states(2)
    x[1, 0] = INF
    solution = solve(SDE_VP, Spy(), x, method="ddim", t_start=0.5, t_end=0.5, throw=False, save_at=[0.5])
    assert solution.status.tolist() == [0, 1] and torch.equal(solution.x[0], x[0])
    assert bool(solution.x[1].isnan().all())
    drawn = solve(
        SDE_VP, Spy(), shape=(2, 2), method="ddim", steps=2, throw=False,
        noise=lambda k, like: torch.stack([torch.full_like(like[0], NAN), like[1] * 0]),
    )  # fmt: skip
    assert drawn.status.tolist() == [1, 0]


def test_codes_and_densities_leave_the_same_samples_out() -> None:
    x, well = 0.3 * states(3), [0, 2]
    x[1, 1] = NAN
    score = lambda x, t: -x  # noqa: E731
    for function in (scoresde.encode, scoresde.decode):
        with pytest.raises(NonFiniteError, match=r"1 of 3 samples \(first: \[1\]\)"):
            function(SDE_VP, score, x)
        got = function(SDE_VP, score, x, throw=False)
        assert got.status.tolist() == [0, 1, 0] and bool(got.x[1].isnan().all())
        assert torch.equal(got.x[well], function(SDE_VP, score, x[well]).x)
    with pytest.raises(NonFiniteError):
        scoresde.reconstruct(SDE_VP, score, x)
    back = scoresde.reconstruct(SDE_VP, score, x, throw=False)
    alone = scoresde.reconstruct(SDE_VP, score, x[well])
    assert torch.equal(back.error[well], alone.error) and bool(back.error[1].isnan()) and back.nfe[1] == 0
    assert torch.equal(back.x[well], alone.x) and bool(back.latent[1].isnan().all())
    density = scoresde.log_likelihood(SDE_VP, score, x, throw=False, seeds=range(3))
    assert density.status.tolist() == [0, 1, 0] and bool(density.log_prob[1].isnan())
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2).double(), 1.0), 1)
    for sick in (lambda x, t: torch.where(x[:, :1] > 0.5, NAN, -x), score):  # torch's distributions refuse NaN
        got = scoresde.log_likelihood(SDE_VP, sick, x + 0.3, throw=False, prior=prior, check=False)
        assert torch.equal(got.success, got.log_prob.isfinite()) and not got.success[1]


def test_samples_that_are_stepped_together_must_all_be_finite() -> None:
    x = states(4)
    x[2, 0] = NAN
    guided = scoresde.guidance.classifier_guidance(lambda x, t: -x, lambda x, t: -x.square().sum(1))
    for throw in (False, True):
        error = refused(
            lambda throw=throw: scoresde.sample_tilted(SDE_VP, guided, x, steps=3, throw=throw), NonFiniteError,
            ("`x`", "[2]", "leave them out"),
        )  # fmt: skip
        assert isinstance(error, NonFiniteError)
    coupled = scoresde.LangevinCorrector(rule="batch")
    refused(
        lambda: solve(SDE_VP, Spy(), x, method="pc", corrector=coupled, throw=False), NonFiniteError, ("`x`", "'pc'")
    )
    for method in ("torchdiffeq:dopri5", "scipy:RK45"):
        solution = solve(SDE_VP, lambda x, t: -x, x, method=method, throw=False)
        assert solution.status.tolist() == [0, 0, 1, 0] and bool(solution.x[2].isnan().all())
        assert bool(solution.x[[0, 1, 3]].isfinite().all())


def test_a_solve_cannot_be_vmapped() -> None:
    x, spy = states(4, 3, 2), Spy()
    for function in (
        lambda x: solve(SDE_VP, spy, x, method="ddim", steps=2).x,
        lambda x: solve(SDE_VP, spy, x, method="adams").x,
        lambda x: scoresde.encode(SDE_VP, spy, x).x,
        lambda x: scoresde.log_likelihood(SDE_VP, spy, x).log_prob,
    ):
        refused(lambda f=function: torch.func.vmap(f)(x), InvalidArgumentError, ("`x`", "vmap", "batch dimension"))

    def labelled(label: Any) -> Any:
        score = lambda x, t, label: -x + label[:, None]  # noqa: E731
        return solve(SDE_VP, score, x[0], method="ddim", steps=2, context={"label": label}).x

    refused(lambda: torch.func.vmap(labelled)(x[:, :, 0]), InvalidArgumentError, ("context['label']", "vmap"))
    assert spy.calls == 0
    flat = lambda x: solve(SDE_VP, lambda x, t: -x, x[None], method="ddim", steps=2, differentiable=True).x[0]  # noqa: E731
    assert torch.func.jacrev(flat)(x[0, 0]).shape == (2, 2)


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45", "adams"])
def test_a_time_that_a_sample_never_reached_has_no_state(method: str) -> None:
    """Its last finite state, under a later time, would be a wrong result that looks fine."""
    x = _with_sick(3, (1,))
    solution = solve(
        VE, _sick(0.4, NAN), x, method=method, seeds=range(3), throw=False, save_at=[0.8, 0.5, 0.2, VE.t_min]
    )
    assert solution.xs is not None
    assert bool(solution.xs[:2].isfinite().all()) and bool(solution.xs[:, [0, 2]].isfinite().all())
    assert bool(solution.xs[2:, 1].isnan().all())


def test_a_failing_sample_of_an_adaptive_method_does_not_creep() -> None:
    """The step shrinks towards the time at which the score fails; that must end soon, and as what it is."""
    x = _with_sick(2, (0,))
    solution = solve(VE, _sick(0.4, NAN), x, method="rk45", throw=False)
    assert solution.status.tolist() == [Status.NON_FINITE, Status.SUCCESS]
    assert int(solution.nfe[0]) < 200


def test_all_samples_may_fail_without_throw() -> None:
    solution = solve(VE, Spy(lambda x, t: x * NAN), states(), method="ddim", throw=False)
    assert solution.status.tolist() == [1, 1, 1] and bool(solution.x.isnan().all())
    assert solution.evaluations <= 2


def test_a_state_that_blows_up_is_told_from_a_score_that_does() -> None:
    with pytest.raises(NonFiniteError) as caught:
        solve(VE, Spy(lambda x, t: x * 1e200), states(), method="euler", steps=20)
    assert caught.value.stage in ("state", "score") and caught.value.step is not None


def test_noise_that_is_not_finite_is_found() -> None:
    draw = lambda k, like: torch.full_like(like, NAN)  # noqa: E731
    with pytest.raises(NonFiniteError):
        solve(VE, Spy(), states(), method="ancestral", steps=3, noise=draw)
    with pytest.raises(NonFiniteError):
        solve(VE, Spy(), shape=(3, 2), method="ddim", steps=3, noise=draw)


def test_a_result_that_overflows_when_cast_back_is_not_fine() -> None:
    sde = VESDE(sigma_max=1e6)
    zero = Spy(torch.zeros_like)
    zero.function = lambda x, t: torch.zeros_like(x)
    with pytest.raises(NonFiniteError):
        solve(sde, zero, shape=(3, 2), method="ddim", steps=2, dtype=torch.float16, seed=0)
    solution = solve(sde, zero, shape=(3, 2), method="ddim", steps=2, dtype=torch.float16, seed=0, throw=False)
    assert not bool(solution.success[~torch.isfinite(solution.x).all(1)].any())


@pytest.mark.parametrize("throw", [True, False])
def test_a_score_that_fails_only_in_the_denoising(throw: bool) -> None:
    x = states(4)

    def last(x: Tensor, t: Tensor) -> Tensor:
        ill = (column(t, x) <= SDE_VP.t_min * 1.0001) & (torch.arange(len(x)) == 1)[:, None]
        return torch.where(ill, torch.full_like(x, NAN), -x)

    arguments: dict[str, Any] = {"method": "ddim", "steps": 3, "denoise": True, "throw": throw}
    if throw:
        with pytest.raises(NonFiniteError) as caught:
            solve(SDE_VP, last, x, **arguments)
        assert caught.value.stage == "score" and caught.value.indices == [1]
    else:
        solution = solve(SDE_VP, last, x, **arguments)
        assert solution.status.tolist() == [0, 1, 0, 0] and bool(solution.x[1].isnan().all())
        assert bool(solution.x[[0, 2, 3]].isfinite().all())


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pc", "ddim", "heun"])
def test_max_steps_of_fixed_steps(method: str) -> None:
    with pytest.raises(MaxStepsError, match="max_steps=3") as caught:
        solve(SDE_VP, Spy(), states(), method=method, steps=10, max_steps=3, seed=0)
    assert "rtol" not in str(caught.value)  # a method of fixed steps has no tolerance to loosen
    assert isinstance(caught.value, RuntimeError)
    partial = caught.value.partial
    assert partial.steps == 3 and partial.status.tolist() == [Status.MAX_STEPS] * 3 and bool(partial.x.isnan().all())
    solution = solve(SDE_VP, Spy(), states(), method=method, steps=10, max_steps=10, seed=0)
    assert bool(solution.success.all())


@pytest.mark.parametrize("rowwise", [False, True])
def test_max_steps_of_adaptive_steps_fails_the_hard_samples_only(rowwise: bool) -> None:
    """The hard sample oscillates; the easy ones arrive, and are right."""

    def function(x: Tensor, t: Tensor) -> Tensor:
        hard = x.abs() > 100
        return torch.where(hard, 1e4 * torch.sin(1e4 * column(t, x)) * torch.ones_like(x), torch.zeros_like(x))

    x = states(3)
    x[1] = 500.0
    arguments: dict[str, Any] = {"method": "rk45", "max_steps": 40, "rtol": 1e-6, "atol": 1e-6}
    with pytest.raises(MaxStepsError, match=r"1 of 3 samples \(first: \[1\]\)") as caught:
        solve(VE, Spy(function, rowwise=rowwise), x, **arguments)
    partial = caught.value.partial
    assert partial.status.tolist() == [0, 3, 0]
    assert torch.equal(partial.x[[0, 2]], x[[0, 2]]) and bool(partial.x[1].isnan().all())
    assert VE.t_min < float(partial.t[1]) < VE.t_max and f"{float(partial.t[1]):.6g}" in str(caught.value)
    solution = solve(VE, Spy(function, rowwise=rowwise), x, throw=False, **arguments)
    assert solution.status.tolist() == [0, 3, 0] and torch.equal(solution.x[[0, 2]], x[[0, 2]])


@pytest.mark.parametrize("rowwise", [False, True])
def test_a_step_that_underflows(rowwise: bool) -> None:
    """A score with a pole cannot be stepped over."""

    def function(x: Tensor, t: Tensor) -> Tensor:
        hard = x.abs() > 100
        pole = 1e30 * torch.sin(1e30 * column(t, x))
        return torch.where(hard, pole * torch.ones_like(x), torch.zeros_like(x))

    x = states(3)
    x[1] = 500.0
    with pytest.raises(StepSizeUnderflowError, match=r"1 of 3 samples \(first: \[1\]\)") as caught:
        solve(VE, Spy(function, rowwise=rowwise), x, method="rk45")
    assert "loosen" in str(caught.value) and bool(caught.value.partial.x[1].isnan().all())
    solution = solve(VE, Spy(function, rowwise=rowwise), x, method="rk45", throw=False)
    assert solution.status.tolist() == [0, 2, 0] and torch.equal(solution.x[[0, 2]], x[[0, 2]])


def test_an_adaptive_method_ends_by_itself() -> None:
    """A right-hand side that jumps at random never satisfies a tolerance; the default limit ends the solve."""
    generator = torch.Generator().manual_seed(0)
    noisy = Spy(lambda x, t: 1e3 * torch.randn(x.shape, generator=generator, dtype=x.dtype))
    solution = solve(VE, noisy, states(1), method="rk45", rtol=1e-10, atol=1e-10, throw=False, max_steps=2000)
    assert solution.steps <= 2000


# --- what must work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save_at", [None, [0.5], "steps"])
@pytest.mark.parametrize("method", ["pc", "ddim", "rk45", "adams"])
def test_an_empty_batch(method: str, save_at: Any) -> None:
    spy = Spy()
    solution = solve(SDE_VP, spy, torch.zeros(0, 2, 3), method=method, save_at=save_at, denoise=True, seeds=[])
    assert spy.calls == 0 and solution.x.shape == (0, 2, 3) and solution.nfe.shape == (0,)
    assert solution.evaluations == 0 and solution.status.shape == (0,)
    if save_at is not None:
        assert solution.xs is not None and solution.xs.shape[1:] == (0, 2, 3)
    assert solve(SDE_VP, spy, shape=(0, 2), method=method).x.shape == (0, 2)


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45", "adams"])
def test_an_empty_event(method: str) -> None:
    solution = solve(SDE_VP, Spy(), torch.zeros(3, 0), method=method, seed=0)
    assert solution.x.shape == (3, 0) and bool(solution.success.all())


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45", "adams"])
def test_one_sample_one_element(method: str) -> None:
    assert solve(SDE_VP, Spy(), torch.zeros(1, 1), method=method, seed=0).x.shape == (1, 1)


def test_no_absolute_tolerance_at_the_origin() -> None:
    """rtol alone asks for an exact zero at x = 0; that is met there, or said in words: it is not a diverging score."""
    solution = None
    with contextlib.suppress(InvalidArgumentError):
        solution = solve(SDE_VP, Spy(), torch.zeros(2, 2), method="rk45", atol=0.0)
    assert solution is None or (torch.equal(solution.x, torch.zeros(2, 2)) and bool(solution.success.all()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["pc", "ddim", "heun", "rk45", "adams"])
def test_half_precision_is_computed_in_single(method: str, dtype: torch.dtype) -> None:
    x = states(dtype=dtype)
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    def score_fn(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x.dtype, t.dtype))
        return -0.9 * x

    solution = solve(SDE_VP, score_fn, x, method=method, seed=0, save_at="steps")
    assert set(seen) == {(torch.float32, torch.float32)}
    wide = solve(SDE_VP, score_fn, x.float(), method=method, seed=0)
    assert solution.x.dtype == dtype and solution.xs is not None and solution.xs.dtype == dtype
    assert torch.equal(solution.x, wide.x.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_network_gets_its_own_dtype(dtype: torch.dtype) -> None:
    net = torch.nn.Linear(2, 2).to(dtype)

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            assert x.dtype == t.dtype == dtype
            return self.net(x)

    model = ScoreModel(Wrapped(), SDE_VP, "noise")
    assert solve(SDE_VP, model, states(dtype=dtype), method="ddim", steps=3).x.dtype == dtype


def _layouts() -> dict[str, Tensor]:
    base = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    return {
        "transposed": base.transpose(2, 3),
        "strided": torch.randn(4, 3, 4, 8, generator=torch.Generator().manual_seed(3))[::2, :, :, ::2],
        "expanded": base[:1].expand(2, 3, 4, 4),
        "expanded channel": base[:, :1].expand(2, 3, 4, 4),
        "channels last": base.contiguous(memory_format=torch.channels_last),
    }


@pytest.mark.parametrize("method", ["pc", "ancestral", "ddim", "heun", "rk45"])
@pytest.mark.parametrize("layout", list(_layouts()))
def test_a_layout_changes_nothing(layout: str, method: str) -> None:
    x = _layouts()[layout]
    plain = x.contiguous(memory_format=torch.contiguous_format)
    before, stride, version = plain.clone(), x.stride(), x._version
    a = solve(SDE_VP, Spy(), x, method=method, seed=0)
    b = solve(SDE_VP, Spy(), plain, method=method, seed=0)
    torch.testing.assert_close(a.x, b.x, rtol=1e-6, atol=1e-6)
    assert torch.equal(a.nfe, b.nfe)
    assert torch.equal(x, before) and x.stride() == stride and x._version == version


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45", "adams"])
def test_inputs_that_require_grad_are_left_alone(method: str) -> None:
    leaf = states().requires_grad_()
    inner = leaf * 2
    for x in (leaf, inner, torch.nn.Parameter(states())):
        flag, is_leaf, version = x.requires_grad, x.is_leaf, x._version
        solution = solve(SDE_VP, Spy(), x, method=method, seed=0, save_at=[0.5], denoise=True)
        assert not solution.x.requires_grad and solution.x.grad_fn is None
        assert solution.xs is not None and not solution.xs.requires_grad
        assert (x.requires_grad, x.is_leaf, x._version) == (flag, is_leaf, version) and leaf.grad is None


def test_a_score_function_that_turns_gradients_on_does_not_reach_the_caller() -> None:
    """Guidance differentiates its input; the flag of the caller's tensor is not its to set."""

    def energy(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x.requires_grad_(True)
            return torch.autograd.grad(-0.5 * x.square().sum(), x)[0]

    for method in ("pc", "ddim", "rk45"):
        x = states()
        solution = solve(SDE_VP, energy, x, method=method, seed=0)
        assert not x.requires_grad and x.is_leaf and not solution.x.requires_grad


@pytest.mark.parametrize("method", ["pc", "ddim", "rk45", "adams"])
def test_inference_mode(method: str) -> None:
    expected = solve(SDE_VP, Spy(), states(), method=method, seed=0)
    with torch.inference_mode():
        x = states()
        assert torch.equal(solve(SDE_VP, Spy(), x, method=method, seed=0).x, expected.x)
    assert torch.equal(solve(SDE_VP, Spy(), x, method=method, seed=0).x, expected.x)  # an inference tensor outside


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), torch.tensor(0.5), 0.5])
def test_numbers_of_other_kinds(number: Any) -> None:
    solution = solve(SDE_VP, Spy(), states(), method="ddim", t_start=number, steps=np.int64(2))
    assert solution.steps == 2


@pytest.mark.parametrize("sde", [VESDE(), VPSDE(), CosineVPSDE(), FlowSDE(), EDMSDE()], ids=lambda s: type(s).__name__)
def test_times_that_were_rounded_to_single_precision(sde: Any) -> None:
    """torch.linspace(t_max, t_min, n) is float32: its ends may lie outside by one rounding, and mean the ends."""
    times = torch.linspace(sde.t_max, sde.t_min, 6)
    assert bool(solve(sde, Spy(), shape=(2, 2), method="ddim", grid=times).success.all())
    solution = solve(sde, Spy(), shape=(2, 2), method="ddim", steps=3, save_at=times[[0, -1]])
    assert solution.xs is not None and bool(solution.xs.isfinite().all())


# --- processes ------------------------------------------------------------------------------------------------------


def _gaussian(alpha: Any, sigma: Any = torch.sin, t_min: Any = 0.1, t_max: Any = 1.0) -> GaussianSDE:
    return GaussianSDE(alpha, sigma, t_min, t_max)


PROCESSES: list[tuple[str, Callable[[], Any], type[ScoreSDEError], tuple[str, ...]]] = [
    ("vp beta -1", lambda: VPSDE(beta_min=-1), V, ("`beta_min`", "-1")),
    ("vp beta 0", lambda: VPSDE(beta_min=0), V, ("`beta_min`", "0")),
    ("vp beta nan", lambda: VPSDE(beta_min=NAN), V, ("`beta_min`", "nan")),
    ("vp beta inf", lambda: VPSDE(beta_max=INF), V, ("`beta_max`", "inf")),
    ("vp beta str", lambda: VPSDE(beta_min="a"), T, ("`beta_min`", "'a'")),
    ("vp beta bool", lambda: VPSDE(beta_min=True), T, ("`beta_min`", "True")),
    ("vp beta None", lambda: VPSDE(beta_min=None), T, ("`beta_min`", "None")),
    ("vp beta tensor", lambda: VPSDE(beta_min=torch.ones(2)), T, ("`beta_min`", "Tensor")),
    ("vp beta complex", lambda: VPSDE(beta_min=1j), T, ("`beta_min`", "complex")),
    ("vp beta huge", lambda: VPSDE(beta_max=HUGE), V, ("`beta_max`",)),
    ("vp betas swapped", lambda: VPSDE(20.0, 0.1), V, ("`beta_min`", "`beta_max`", "20", "0.1")),
    ("vp t_min > t_max", lambda: VPSDE(t_min=0.9, t_max=0.1), V, ("empty", "0.9", "0.1")),
    ("vp t_min = t_max", lambda: VPSDE(t_min=1.0), V, ("empty", "t_min=1", "t_max=1")),
    ("vp t_min -1", lambda: VPSDE(t_min=-1), V, ("`t_min`", "-1")),
    ("vp t_min nan", lambda: VPSDE(t_min=NAN), V, ("`t_min`", "nan")),
    ("vp t_max inf", lambda: VPSDE(t_max=INF), V, ("`t_max`", "inf")),
    ("vp t_max huge", lambda: VPSDE(t_max=1e300), V, ("signal-to-noise",)),
    ("vp prior", lambda: VPSDE(prior=1.0), T, ("`prior`", "1.0", "NormalPrior")),
    ("subvp beta", lambda: SubVPSDE(beta_min=-1), V, ("`beta_min`", "-1")),
    ("subvp prior", lambda: SubVPSDE(prior="normal"), T, ("`prior`", "'normal'")),
    ("ve sigma 0", lambda: VESDE(sigma_min=0), V, ("`sigma_min`", "0")),
    ("ve sigma -1", lambda: VESDE(sigma_max=-1), V, ("`sigma_max`", "-1")),
    ("ve sigmas swapped", lambda: VESDE(50.0, 0.01), V, ("`sigma_min`", "`sigma_max`", "50")),
    ("ve t_max overflows", lambda: VESDE(t_max=1000), V, ("t_max", "1000")),
    ("ve t_max 0", lambda: VESDE(t_max=0.0), V, ("empty", "t_max=0")),
    ("ve sigma overflows", lambda: VESDE(1e-308, 1e308), V, ("sigma",)),
    ("ve prior 0", lambda: VESDE(prior=0), T, ("`prior`", "0")),
    ("edm sigma 0", lambda: EDMSDE(sigma_min=0), V, ("`sigma_min`", "0")),
    ("edm sigmas swapped", lambda: EDMSDE(80.0, 0.002), V, ("80", "0.002")),
    ("edm t_max str", lambda: EDMSDE(t_max="a"), T, ("`t_max`", "'a'")),
    ("edm t_min -1", lambda: EDMSDE(t_min=-1), V, ("`t_min`", "-1")),
    ("cosine s 0", lambda: CosineVPSDE(s=0), V, ("`s`", "0")),
    ("cosine s nan", lambda: CosineVPSDE(s=NAN), V, ("`s`", "nan")),
    ("cosine t_max", lambda: CosineVPSDE(t_max=1.5), V, ("`t_max`", "1.5")),
    ("flow t_max", lambda: FlowSDE(t_max=1.5), V, ("`t_max`", "1.5")),
    ("flow t_max 0", lambda: FlowSDE(t_max=0.0), V, ("empty", "t_max=0")),
    ("flow empty", lambda: FlowSDE(t_min=1.0, t_max=1.0), V, ("empty",)),
    ("vdm constant", lambda: VDMSDE(lambda t: t * 0), V, ("signal-to-noise", "t=0")),
    ("vdm rising", lambda: VDMSDE(lambda t: -t), V, ("signal-to-noise", "index 1")),
    ("vdm nan", lambda: VDMSDE(lambda t: t * NAN), V, ("finite", "t=")),
    ("vdm number", lambda: VDMSDE(5), T, ("`gamma`", "int")),
    ("vdm returns number", lambda: VDMSDE(lambda t: 1.0), T, ("`gamma`", "float")),
    ("vdm returns None", lambda: VDMSDE(lambda t: None), T, ("`gamma`", "NoneType")),
    ("vdm returns shape", lambda: VDMSDE(lambda t: torch.zeros(3)), V, ("`gamma`", "(3,)")),
    ("vdm math", lambda: VDMSDE(lambda t: math.exp(t)), T, ("`gamma`", "torch")),
    ("gamma swapped", lambda: LinearGamma(5.0, -5.0), V, ("`gamma_min`", "`gamma_max`", "5.0")),
    ("gamma nan", lambda: LinearGamma(gamma_min=NAN), V, ("`gamma_min`", "nan")),
    ("prior std 0", lambda: NormalPrior(0.0), V, ("`std`", "0")),
    ("prior std -1", lambda: NormalPrior(-1.0), V, ("`std`", "-1")),
    ("prior std nan", lambda: NormalPrior(NAN), V, ("`std`", "nan")),
    ("prior std str", lambda: NormalPrior("a"), T, ("`std`", "'a'")),
    ("prior mean nan", lambda: NormalPrior(1.0, NAN), V, ("`mean`", "nan")),
    ("prior mean None", lambda: NormalPrior(1.0, None), T, ("`mean`", "None")),
    ("prior mean str", lambda: NormalPrior(1.0, "a"), T, ("`mean`", "'a'")),
    ("prior mean tensor nan", lambda: NormalPrior(1.0, torch.tensor([NAN])), V, ("`mean`",)),
    ("gaussian numbers", lambda: _gaussian(1.0), T, ("`alpha`", "float")),
    ("gaussian alpha < 0", lambda: _gaussian(lambda t: -1 - t), V, ("positive", "t=0.1 ")),
    ("gaussian sigma < 0", lambda: _gaussian(torch.cos, lambda t: -t), V, ("sigma(t_max)", "-1")),
    ("gaussian sigma dips", lambda: _gaussian(torch.cos, lambda t: t - 0.5), V, ("positive",)),
    ("gaussian constant", lambda: _gaussian(lambda t: 1.0, lambda t: 1.0), V, ("signal-to-noise", "index 1")),
    ("gaussian not monotone", lambda: _gaussian(lambda t: 1.0, lambda t: (t - 0.5) ** 2 + 0.1), V, ("t=0.1 ",)),
    ("gaussian nan", lambda: _gaussian(lambda t: torch.where(t < 0.5, 1.0, NAN)), V, ("t=0.50",)),
    ("gaussian math", lambda: _gaussian(lambda t: math.exp(-t)), T, ("`alpha`", "torch")),
    ("gaussian str", lambda: _gaussian(lambda t: "a"), T, ("`alpha`", "str")),
    ("gaussian None", lambda: _gaussian(lambda t: None), T, ("`alpha`", "NoneType")),
    ("gaussian shape", lambda: _gaussian(lambda t: torch.ones(3)), V, ("`alpha`", "(3,)")),
    ("gaussian t_max str", lambda: _gaussian(torch.cos, t_max="a"), T, ("`t_max`", "'a'")),
    ("gaussian t_max None", lambda: _gaussian(torch.cos, t_max=None), T, ("`t_max`", "None")),
    ("gaussian t_max nan", lambda: _gaussian(torch.cos, t_max=NAN), V, ("t_max", "nan")),
    ("gaussian empty", lambda: _gaussian(torch.cos, t_min=1.0, t_max=0.5), V, ("empty",)),
    ("general interval", lambda: OrnsteinUhlenbeck(t_min=1.0, t_max=1.0, prior=NormalPrior()), V, ("empty",)),
    ("general prior", lambda: OrnsteinUhlenbeck(t_min=0.0, t_max=1.0, prior=None), T, ("`prior`", "None")),
]


@pytest.mark.parametrize(("make", "kind", "words"), [pytest.param(*c[1:], id=c[0]) for c in PROCESSES])
def test_a_process_that_is_none(make: Callable[[], Any], kind: type[ScoreSDEError], words: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused(make, kind, words)


BAD_TIMES: list[tuple[Any, type[ScoreSDEError]]] = [
    ("a", T),
    (None, T),
    (1j, T),
    (True, T),
    (NAN, V),
    (HUGE, V),
    (torch.tensor([1, 1, 1]), T),
    (torch.ones(3, 1), V),
]


@pytest.mark.parametrize(("t", "kind"), [pytest.param(t, k, id=f"{t!s:.20}") for t, k in BAD_TIMES])
@pytest.mark.parametrize("name", ["alpha", "sigma", "log_snr", "diffusion"])
def test_a_time_that_is_none(name: str, t: Any, kind: type[ScoreSDEError]) -> None:
    with pytest.raises(kind, match="`t`"):
        getattr(SDE_VP, name)(t)


@pytest.mark.parametrize("rows", [1, 3])
def test_times_of_another_batch(rows: int) -> None:
    """Five times for one or three samples are an error, not a broadcast."""
    x, t = states(rows), torch.full((5,), 0.5)
    for call in (SDE_VP.marginal, SDE_VP.perturb, SDE_VP.drift):
        with pytest.raises(InvalidArgumentError, match="`t`"):
            call(x, t)


# --- ScoreModel -----------------------------------------------------------------------------------------------------

MODELS: list[tuple[str, dict[str, Any], type[ScoreSDEError], tuple[str, ...]]] = [
    ("net", {"net": 5}, T, ("`net`", "int", "net(x, time)")),
    ("sde", {"sde": "vp"}, T, ("`sde`", "str", "VPSDE()")),
    ("general sde", {"sde": GENERAL}, T, ("`sde`", "OrnsteinUhlenbeck")),
    ("prediction typo", {"prediction": "nois"}, V, ("`prediction`", "'nois'", "did you mean 'noise'")),
    ("prediction list", {"prediction": ["noise"]}, T, ("`prediction`", "['noise']")),
    ("prediction None", {"prediction": None}, V, ("`prediction`", "None", "noise")),
    ("time typo", {"time_input": "logsnr"}, V, ("`time_input`", "'logsnr'", "did you mean 'log_snr'")),
    ("time list", {"time_input": ["t"]}, T, ("`time_input`", "['t']")),
    ("scale typo", {"input_scale": "x/alph"}, V, ("`input_scale`", "did you mean 'x/alpha'")),
    ("edm scale", {"prediction": "edm", "input_scale": "x/alpha"}, V, ("input_scale", "edm", "leave")),
    ("sigma_data -1", {"sigma_data": -1}, V, ("`sigma_data`", "-1")),
    ("sigma_data nan", {"sigma_data": NAN}, V, ("`sigma_data`", "nan")),
    ("context list", {"context": [1]}, T, ("`context`", "list")),
    ("context str", {"context": "ab"}, T, ("`context`", "str")),
    ("event int", {"event_shape": 3}, T, ("`event_shape`", "3")),
    ("event str", {"event_shape": "ab"}, T, ("`event_shape`", "a")),
    ("event negative", {"event_shape": (-1,)}, V, ("`event_shape", "-1")),
    ("event empty", {"event_shape": ()}, V, ("`event_shape`", "()")),
]


@pytest.mark.parametrize(("arguments", "kind", "words"), [pytest.param(*c[1:], id=c[0]) for c in MODELS])
def test_a_score_model_that_is_none(
    arguments: dict[str, Any], kind: type[ScoreSDEError], words: tuple[str, ...]
) -> None:
    full = {"net": _shrunk, "sde": SDE_VP, "prediction": "noise"} | arguments
    refused(lambda: ScoreModel(**full), kind, words)


@pytest.mark.parametrize(
    ("t", "kind"), [("a", T), (None, T), (1j, T), (NAN, V), pytest.param(HUGE, V, id="huge"), (torch.ones(5), V)]
)
@pytest.mark.parametrize("name", ["__call__", "data"])
def test_a_score_model_at_a_time_that_is_none(name: str, t: Any, kind: type[ScoreSDEError]) -> None:
    model = ScoreModel(_shrunk, SDE_VP, "noise")
    with pytest.raises(kind, match="`t`"):
        getattr(model, name)(states(), t)


@pytest.mark.parametrize(("x", "kind", "words"), BAD_STATES[:8])
def test_a_score_model_at_a_state_that_is_none(x: Any, kind: type[ScoreSDEError], words: tuple[str, ...]) -> None:
    refused(lambda: ScoreModel(_shrunk, SDE_VP, "noise")(x, 0.5), kind, words[:2])


# --- garbage --------------------------------------------------------------------------------------------------------

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 6),
    st.sampled_from([2**64, -(2**70), HUGE]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=4),
    st.binary(max_size=2),
    st.complex_numbers(max_magnitude=2),
    st.lists(st.floats(-1, 2), max_size=4),
    st.tuples(st.integers(-1, 3), st.integers(-1, 3)),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
    st.sampled_from(
        [
            object(),
            int,
            torch.zeros(3, 2),
            torch.tensor(0.5),
            torch.ones(3, dtype=torch.int64),
            np.ones(3),
            torch.float32,
            torch.int8,
            torch.device("cpu"),
            torch.Generator(),
            scoresde.VPSDE(),
        ]
    ),
)
NAMES = [
    "sde",
    "score_fn",
    "x",
    "method",
    "shape",
    "grid",
    "rtol",
    "atol",
    "t_start",
    "t_end",
    "stochasticity",
    "context",
    "seed",
    "seeds",
    "generator",
    "noise",
    "save_at",
    "callback",
    "max_steps",
    "dtype",
    "device",
    "steps",
    "snr",
    "predictor",
    "corrector",
    "order",
    "bogus",
]


@settings(max_examples=400)
@given(
    name=st.sampled_from(NAMES),
    value=JUNK,
    method=st.sampled_from(["pc", "ddim", "rk45", "adams"]),
    given_x=st.booleans(),
)
def test_any_garbage_is_refused_in_words_or_works(name: str, value: Any, method: str, given_x: bool) -> None:
    arguments: dict[str, Any] = {"sde": SDE_VP, "score_fn": Spy(), "method": method}
    if given_x:
        arguments["x"] = states(dtype=torch.float32)
    else:
        arguments["shape"] = (3, 2)
    if method not in ("rk45", "adams") and not (name == "grid" and not isinstance(value, str)):
        arguments["steps"] = 2
    arguments[name] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            solution = solve(**arguments)
        except ScoreSDEError:
            return
    # What the caller hands in as a function is the caller's, and anything else that came through is a finite result.
    assert bool(torch.isfinite(solution.x).all()) or name == "callback"
    assert bool(solution.success.all())


@settings(max_examples=150)
@given(
    name=st.sampled_from(["beta_min", "beta_max", "t_min", "t_max", "prior"]),
    value=JUNK,
    make=st.sampled_from([VPSDE, SubVPSDE]),
)
def test_any_garbage_for_a_process_is_refused_in_words(name: str, value: Any, make: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            sde = make(**{name: value})
        except ScoreSDEError:
            return
    assert math.isfinite(sde.t_min) and math.isfinite(sde.t_max)


@settings(max_examples=150)
@given(
    name=st.sampled_from(
        ["net", "sde", "prediction", "time_input", "input_scale", "sigma_data", "context", "event_shape"]
    ),
    value=JUNK,
)
def test_any_garbage_for_a_score_model_is_refused_in_words(name: str, value: Any) -> None:
    message = None
    try:
        ScoreModel(**({"net": _shrunk, "sde": SDE_VP, "prediction": "noise"} | {name: value}))
    except ScoreSDEError as error:
        message = str(error)
    assert message is None or (name in message and len(message) > 30)


def test_a_batch_that_does_not_fit_in_memory_says_what_to_write_instead() -> None:
    """torch's own error, with a note of the batch and what to do."""
    spy = Spy()
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        solve(SDE_VP, spy, shape=(10**13, 1), method="ddim", steps=2)
    told = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert ("10000000000000" in told and "batch" in told) or not hasattr(caught.value, "add_note")  # Python 3.10
    assert spy.calls == 0


@pytest.mark.parametrize("method", ["ddim", "rk45"])
def test_errors_survive_the_way_between_processes(method: str) -> None:
    """Workers of a pool send their errors home pickled."""
    with pytest.raises(NonFiniteError) as caught:
        solve(SDE_VP, Spy(lambda x, t: x * NAN), states(), method=method)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.stage == "score" and again.indices == [0, 1, 2]
    with pytest.raises(MaxStepsError) as late:
        solve(SDE_VP, lambda x, t: -x / (1 + column(t, x)), states(), method=method, max_steps=1)
    sent = pickle.loads(pickle.dumps(late.value))
    assert str(sent) == str(late.value) and sent.partial.status.tolist() == [3, 3, 3]


def test_a_solver_of_ones_own_that_forgets_a_part_is_told() -> None:
    class Solver(solvers.Solver):
        name = "own"
        kind = "ode"

        def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any, noise: Any) -> Any:
            return scoresde.StepResult(x[:1])

    class Adaptive(Solver):
        adaptive = True

        def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any, noise: Any) -> Any:
            return scoresde.StepResult(x)

    refused(
        lambda: solve(SDE_VP, Spy(), states(), method=Solver(), steps=2),
        ScoreSDEError,
        ("solver Solver", "(3, 2)", "(1, 2)"),
    )
    refused(lambda: solve(SDE_VP, Spy(), states(), method=Adaptive()), ScoreSDEError, ("own", "error"))


def test_a_module_may_have_a_method_of_its_own_called_estimate() -> None:
    """Only a score function that offers the protocol is asked for estimates."""

    class Net(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return -x

        def estimate(self, batch: Tensor) -> float:
            return float(batch.mean())

    x = states()
    assert torch.equal(solve(SDE_VP, Net(), x, method="ddim").x, solve(SDE_VP, Spy(), x, method="ddim").x)


METHOD_OPTIONS: list[tuple[str, dict[str, Any], type[ScoreSDEError], tuple[str, ...]]] = [
    ("cas", {"epsilon": 0.0}, V, ("`epsilon`", "(0, 1]")),
    ("edm", {"a": 0.0}, V, ("`a`", "(0, 1]")),
    ("edm", {"s_max": "a"}, T, ("`s_max`", "'a'")),
    ("edm", {"s_churn": math.inf}, V, ("`s_churn`", "[0, inf)")),
    ("res_2s", {"c2": 0.0}, V, ("`c2`", "(0, 1]")),
    ("res_2s", {"c2": 1.1}, V, ("`c2`", "(0, 1]")),
    ("unipc", {"lower_order_final": "no"}, T, ("`lower_order_final`", "'no'")),
    ("unipc", {"correct_last": 1}, T, ("`correct_last`", "1")),
    ("sa_solver", {"correct_last": None}, T, ("`correct_last`", "None")),
    ("sa_solver", {"tau": lambda t: None}, T, ("`tau(t)`", "None")),
    ("sa_solver", {"tau": lambda t: math.nan}, V, ("`tau(t)`", "nan")),
    ("restart", {"intervals": ((0.1, "a"),)}, T, ("`high`", "'a'")),
    ("euler_maruyama", {"stochasticity": 1e200}, V, ("`stochasticity`", "1e+200")),
]


@pytest.mark.parametrize(
    ("method", "options", "kind", "words"), [pytest.param(*c, id=f"{c[0]}-{'-'.join(c[1])}") for c in METHOD_OPTIONS]
)
def test_an_option_of_a_method(
    method: str, options: dict[str, Any], kind: type[ScoreSDEError], words: tuple[str, ...]
) -> None:
    refused(lambda: solve(SDE_VP, Spy(), states(), method=method, steps=3, seed=0, **options), kind, words)


def test_the_ends_of_ranges_are_allowed() -> None:
    x = states()
    for method, options in (("res_2s", {"c2": 1.0}), ("cas", {"epsilon": 1.0}), ("edm", {"a": torch.tensor(0.5)})):
        assert bool(solve(SDE_VP, Spy(), x, method=method, steps=3, seed=0, **options).success.all())


def test_the_forward_process_is_no_method() -> None:
    refused(lambda: solve(SDE_VP, Spy(), states(), method=solvers.Transition()), V, ("forwards", "simulate"))


def test_a_grid_with_times_that_are_one_to_the_schedule() -> None:
    before = torch.linspace(0.2, 0.4, 1000, dtype=torch.float64)
    after = torch.nextafter(before, torch.zeros_like(before))
    flat = SDE_VP.log_snr(before) == SDE_VP.log_snr(after)
    i = int(flat.int().argmax())
    times = [1.0, float(before[i]), float(after[i]), 0.1]
    refused(lambda: solve(SDE_VP, Spy(), states(), method="dpm_2m", grid=times), V, ("log-SNR", "entries 1 and 2"))


@pytest.mark.parametrize(
    "g", [torch.ones(5), torch.ones(3, 2, 1), torch.ones(1, 1, 1, 1), torch.ones((), dtype=torch.complex64)]
)
def test_a_diffusion_that_does_not_fit_the_state(g: Tensor) -> None:
    class Own(SDE):
        def drift(self, x: Tensor, t: Tensor) -> Tensor:
            return -x

        def diffusion(self, t: Tensor) -> Tensor:
            return g

    sde = Own(t_min=0.0, t_max=1.0, prior=NormalPrior(1.0))
    refused(lambda: solve(sde, lambda x, t: -x, torch.ones(4, 2), method="euler_maruyama", steps=2), V, ("diffusion",))


def _decay(t_max: float) -> GaussianSDE:
    return GaussianSDE(lambda t: torch.exp(-(t**2)), lambda t: (-torch.expm1(-2 * t**2)).sqrt(), 0.1, t_max)


# A process by an end of its interval (or what moves it), the end's name, and values at which a schedule underflows.
EXTREME: list[tuple[str, Callable[..., Any], str, tuple[float, ...]]] = [
    ("vp", lambda value, t=None: VPSDE(t_max=t or value), "t_max", (5.0, 200.0, 1e4, 1e10, 1e300)),
    ("vp from 0", lambda value, t=None: VPSDE(t_min=0.0, t_max=t or value), "t_max", (5.0, 200.0, 1e300)),
    ("sub-vp", lambda value, t=None: SubVPSDE(t_max=t or value), "t_max", (200.0, 1e4, 1e10, 1e300)),
    ("vdm", lambda value, t=None: VDMSDE(t_max=t or value), "t_max", (200.0, 1e4, 1e10, 1e300)),
    ("gaussian", lambda value, t=None: _decay(t or value), "t_max", (20.0, 200.0, 1e4)),
    ("ve", lambda value, t=None: VESDE(t_max=t or value), "t_max", (15.0, 200.0, 1e4, 1e10, 1e300)),
    ("vp, beta", lambda value, t=1.0: VPSDE(beta_max=value, t_max=t), "t_max", (400.0, 1e4)),
    ("vdm, gamma", lambda value, t=1.0: VDMSDE(LinearGamma(-5.0, value), t_max=t), "t_max", (200.0, 1e4, 1e10)),
    ("vp, t_min", lambda value, t=None: VPSDE(t_min=t or value), "t_min", (1e-100, 1e-300)),
    ("flow, t_min", lambda value, t=None: FlowSDE(t_min=t or value), "t_min", (1e-40, 1e-300)),
    ("edm, sigma_min", lambda value, t=None: EDMSDE(sigma_min=t or value), "t_min", (1e-40, 1e-300)),
]


@pytest.mark.parametrize(
    ("make", "end", "value"),
    [(make, end, value) for _, make, end, values in EXTREME for value in values],
    ids=[f"{name} {value:g}" for name, _, _, values in EXTREME for value in values],
)
def test_an_end_at_which_a_schedule_leaves_its_range_is_refused_with_one_that_works(
    make: Callable[..., Any], end: str, value: float
) -> None:
    error = refused(lambda: make(value), V, (f"`{end}`=", f"est {end} that works is "))
    nearest = float(str(error).rsplit(" ", 1)[1].rstrip("."))
    x = torch.zeros(2, 1, dtype=torch.float64)
    assert bool(scoresde.simulate(make(value, nearest), x, steps=3, seed=0).x.isfinite().all())
    refused(lambda: make(value, nearest * (1.01 if end == "t_max" else 0.99)), V, (f"{end} that works is ",))


class Adjustable:
    """A gamma whose range can be changed, as training does."""

    top = 5.0

    def __call__(self, t: Tensor) -> Tensor:
        return -10.0 + (self.top + 10.0) * t


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_learned_schedule_that_came_to_underflow_is_refused(dtype: torch.dtype) -> None:
    gamma = Adjustable()
    sde = VDMSDE(gamma)
    model = ScoreModel(lambda x, t: 0.5 * x, sde, "data")
    x = torch.ones(2, 3, dtype=dtype)
    assert bool(solve(sde, model, x, method="ddim", steps=3).x.isfinite().all())
    gamma.top = 2000.0
    refused(lambda: scoresde.simulate(sde, x, steps=3, seed=0), V, ("t_max", "largest", "0.0"))
    spy = Spy()
    for method in ("ddim", "seeds3", "dpmpp_sde"):
        refused(lambda: solve(sde, spy, x, method=method, steps=3), V, ("t_max", "largest"))  # noqa: B023
    assert spy.calls == 0


WIDE = {
    "vp": lambda: VPSDE(t_min=0.0, t_max=4.18),
    "ve": lambda: VESDE(sigma_min=1.2e-38, sigma_max=3e38),
    "flow": lambda: FlowSDE(t_min=1.2e-38, t_max=1.0),
    "vdm": lambda: VDMSDE(LinearGamma(-174.0, 174.0)),
    "cosine": lambda: CosineVPSDE(s=1e-100, t_min=0.0, t_max=1.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("process", WIDE)
def test_on_the_widest_schedules_a_result_is_finite_or_the_error_is_ours(process: str, dtype: torch.dtype) -> None:
    sde = WIDE[process]()
    score = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3).score(sde)
    for method in (m for m in scoresde.methods() if m.kind != "backend" and m.name not in ("annealed_langevin", "ggf")):
        options: dict[str, Any] = {"max_steps": 20} if method.adaptive else {"steps": 2}
        try:
            end = solve(sde, score, shape=(1, 2), method=method.name, seed=0, dtype=dtype, **options).x
        except ScoreSDEError:
            continue
        assert bool(end.isfinite().all()), method.name


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk45"])
def test_a_rate_that_is_not_known_where_alpha_is_0_is_refused(method: str) -> None:
    sde = VDMSDE(lambda t: 2 * torch.logit(t))
    spy = Spy(has_noise_limit=True)
    refused(lambda: solve(sde, spy, states(), method=method, t_end=0.1), V, ("alpha is 0 at t=1", "derivative", "ddim"))
    assert spy.calls == 0
