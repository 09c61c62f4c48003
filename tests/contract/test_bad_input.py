"""What `solve`, the processes and `ScoreModel` do with input that they cannot use: they say so in words, and at once.

Every case runs under a watchdog, so that a hang is a failure.
"""

# ruff: noqa: B023, E731 (functions that are made in a loop are called at once)
from __future__ import annotations

import contextlib
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import VESDE, VPSDE, FlowSDE, NonFiniteError, ScoreModel, ScoreSDEError, Status, solve, solvers
from tests.parameters import own_methods

pytestmark = pytest.mark.timeout(20)

NAN, INF = math.nan, math.inf
V, T = scoresde.InvalidArgumentError, scoresde.InvalidTypeError
SDE_VP = VPSDE()
VE = VESDE(sigma_max=10.0)  # its drift is the score alone, so a sample whose score is 0 stands still
KINDS = ("pc", "ddim", "rk45", "adams")
ADAPTIVE = {m.name for m in scoresde.methods() if m.adaptive}


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
    x = torch.randn(rows, *(event or (2,)), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x.to(dtype)


def column(t: Tensor, x: Tensor) -> Tensor:
    return t.reshape(-1, *[1] * (x.ndim - 1)).to(x)


def few(method: str) -> dict[str, Any]:
    """A method with few evaluations."""
    return {"method": method} | ({"rtol": 0.1, "atol": 0.1} if method in ADAPTIVE else {"steps": 3})


def refused(call: Callable[[], Any], kind: type[ScoreSDEError], *words: str, spy: Spy | None = None) -> ScoreSDEError:
    """The error of a call that must be refused, before the score function of ``spy`` is asked, in a message with all
    of ``words``."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert isinstance(caught.value, ScoreSDEError) and len(message) > 30
    for word in words:
        assert word in message, f"{word!r} is missing in: {message}"
    assert spy is None or spy.calls == 0, message
    return caught.value


class OrnsteinUhlenbeck(scoresde.SDE):
    """A process that is not affine: only drift and diffusion are known."""

    def drift(self, x: Tensor, t: Any) -> Tensor:
        return -x

    def diffusion(self, t: Any) -> Tensor:
        return torch.as_tensor(2.0**0.5)


GENERAL = OrnsteinUhlenbeck(t_min=0.0, t_max=2.0, prior=scoresde.NormalPrior(1.0))


BAD_STATES: list[tuple[Any, type[ScoreSDEError], tuple[str, ...]]] = [
    (torch.tensor(1.0), V, ("`x`", "()", "reshape")),
    (torch.ones(3), V, ("`x`", "(3,)", "reshape(-1, 1)")),
    (torch.ones(3, 2, dtype=torch.int64), T, ("`x`", "int64", "x.float()")),
    (torch.ones(3, 2, dtype=torch.bool), T, ("`x`", "bool", "x.float()")),
    (torch.ones(3, 2, dtype=torch.complex64), T, ("`x`", "complex64")),
    (np.ones((3, 2)), T, ("`x`", "ndarray", "from_numpy")),
    ([[1.0, 2.0]], T, ("`x`", "list", "as_tensor")),
]


def test_an_invalid_state_is_refused() -> None:
    for x, kind, words in BAD_STATES:
        for method in ("ddim", "rk45"):
            spy = Spy()
            refused(lambda: solve(SDE_VP, spy, x, method=method), kind, *words, spy=spy)
        if words[1] != "meta":
            refused(lambda: ScoreModel(_shrunk, SDE_VP, "noise")(x, 0.5), kind, *words[:2])


def test_a_state_with_one_bad_element_is_named() -> None:
    for value in (NAN, INF, -INF):
        for method in KINDS:
            x, spy = states(7), Spy()
            x[4, 1] = value
            call = lambda: solve(SDE_VP, spy, x, method=method)
            error = refused(call, NonFiniteError, "`x`", "1 of 7 samples", "[4]", spy=spy)
            assert isinstance(error, NonFiniteError) and error.stage == "input" and error.indices == [4]
            assert isinstance(error, ArithmeticError)
    x = torch.full((2, 2), 1e300, dtype=torch.float64)  # overflows the dtype that is asked for
    refused(lambda: solve(SDE_VP, Spy(), x, method="ddim", dtype=torch.float32), NonFiniteError, "`x`")
    with pytest.raises(NonFiniteError, match="9 samples") as caught:
        solve(SDE_VP, Spy(), torch.full((9, 2), NAN), method="ddim")
    assert caught.value.indices == [0, 1, 2, 3, 4]  # the first five


# By method: name, class, a phrase of the message, and values of which each is refused so.
ARGUMENTS: dict[str, list[tuple[str, type[ScoreSDEError], str, list[Any]]]] = {
    "ddim": [
        ("shape", V, "shape", [(3,)]),
        ("shape", V, "(3, 2)", [(3, 4)]),
        ("dtype", T, "`dtype`", ["float32"]),
        ("context", T, "`context`", [[1], "label", {1: torch.ones(3)}]),
        ("context", V, "`context['label']`", [{"label": v} for v in (torch.ones(4), torch.tensor(1), 1, [1, 2, 3])]),
        ("save_at", V, '"steps"', ["step"]),
        ("save_at", V, "[0.001, 1]", [[0.5, 2.0], [0.0]]),
        ("callback", T, "`callback`", [5, "stop"]),
        ("steps", V, "at least 1", [0, -1]),
        ("steps", T, "integer", [1.5, 2.0, True, "5", NAN]),
        ("t_start", V, "[0.001, 1]", [2.0]),
        ("t_start", V, "t_min", [0.0]),
        ("t_start", T, "`t_start`", ["1", True, torch.ones(2)]),
        ("t_end", V, "`t_end`", [1e-4, -INF]),
        ("grid", V, "'log_snr'", ["log"]),
        ("grid", T, "`grid`", [5, {}, ["a", "b"]]),
        ("grid", V, "entries 1 and 2", [[1.0, 0.5, 0.5, 0.1], [1.0, 0.4, 0.5, 0.1], scoresde.Grid((1.0, 0.5, 0.7))]),
        ("grid", V, "entry 2", [[1.0, 0.5, -0.1]]),
        ("grid", V, "entries 0 and 1", [[1.0, 1.0], lambda sde, a, b, n: torch.ones(n + 1)]),
        ("grid", V, "from 1 to 0.001", [lambda sde, a, b, n: [b, 0.1, 0.2, a]]),
        ("rtol", V, "rk45", [1e-3]),
        ("stochasticity", V, "euler_maruyama", [1.0, 0.0]),
        ("stochasticity", V, "`stochasticity`", [-1.0, NAN]),
        ("max_steps", V, "at least 1", [0]),
        ("seed", V, "`seed`", [-1, 2**64]),
        ("seeds", T, "`seed=`", [5, torch.tensor(5)]),
        ("seeds", V, "2 seeds", [[1, 2]]),
        ("seeds", V, "`seeds[2]`", [[1, 2, -3], [1, 2, 2**64]]),
        ("noise", T, "callable", [5]),
        ("method", V, "did you mean 'euler'", ["eulr"]),
        ("method", T, "methods()", [5, None]),
        ("eta", V, "'ddim'", [1.0]),
        ("stpes", V, "did you mean 'steps'", [5]),
    ],
    "rk45": [
        ("rtol", V, "`rtol`", [-1.0, NAN, INF]),
        ("rtol", V, "dtype=torch.float64", [1e-7]),
        ("steps", V, "rtol", [5]),
        ("grid", V, "'rk45'", ["time", [1.0, 0.5]]),
        ("stochasticity", V, "'rk45'", [1.0]),
    ],
    "pc": [
        ("snrr", V, "did you mean 'snr'", [0.1]),
        ("snr", V, "`snr`", [-1.0, 0.0, NAN]),
        ("snr", V, "diverge", [1.5]),
        ("predictor", V, "did you mean 'ancestral'", ["ancestrl"]),
        ("predictor", V, "ancestral", ["rk45", "pc", "annealed_langevin"]),
        ("corrector", T, "LangevinCorrector()", [None]),
        ("rule", V, "batch", [["batch"]]),
    ],
    "edm": [("a", V, "(0, 1]", [0.0]), ("s_max", T, "`s_max`", ["a"]), ("s_churn", V, "[0, inf)", [INF])],
    "res_2s": [("c2", V, "(0, 1]", [0.0, 1.1])],
    "unipc": [("lower_order_final", T, "`lower_order_final`", ["no"]), ("correct_last", T, "`correct_last`", [1])],
    "sa_solver": [("tau", T, "`tau(t)`", [lambda t: None])],
    "euler_maruyama": [("stochasticity", V, "`stochasticity`", [1e200])],
}


@pytest.mark.parametrize("method", ARGUMENTS)
def test_an_invalid_argument_is_refused_by_name(method: str) -> None:
    for name, kind, phrase, values in ARGUMENTS[method]:
        for value in values:
            spy = Spy()
            arguments = {"method": method, **({} if method == "rk45" else {"steps": 3}), name: value}
            if name == "grid" and isinstance(value, list | Tensor | scoresde.Grid):
                arguments.pop("steps", None)
            x = states(dtype=torch.float32)
            refused(lambda: solve(SDE_VP, spy, x, **arguments), kind, name, phrase, spy=spy)


def test_an_object_carries_its_own_options() -> None:
    spy, x = Spy(), states()
    corrector: dict[str, Any] = {"method": "pc", "corrector": scoresde.LangevinCorrector(), "snr": 0.1}
    refused(lambda: solve(SDE_VP, spy, x, steps=3, **corrector), V, "snr", "corrector", spy=spy)
    langevin = solvers.Langevin()
    refused(lambda: solve(SDE_VP, spy, x, method=langevin, steps=3, snr=0.1), V, "snr", "Langevin(...)", spy=spy)


def test_the_ends_of_ranges_are_allowed() -> None:
    for method, options in (("res_2s", {"c2": 1.0}), ("cas", {"epsilon": 1.0}), ("edm", {"a": torch.tensor(0.5)})):
        assert bool(solve(SDE_VP, Spy(), states(), method=method, steps=3, seed=0, **options).success.all()), method


def test_pc_with_a_predictor_of_an_ode_keeps_the_law() -> None:
    """A deterministic predictor steps the probability flow, not the reverse SDE without its noise; or it is refused."""
    target = scoresde.targets.Gaussian(torch.zeros(1), 0.25)
    arguments: dict[str, Any] = {"method": "pc", "steps": 100, "shape": (4000, 1), "seed": 0}
    for predictor in ("euler", "heun", "midpoint", "rk4"):
        with contextlib.suppress(V):
            solution = solve(SDE_VP, target.score(SDE_VP), predictor=predictor, **arguments)
            # The predictor and the corrector each keep the distribution but for their bias, a few per cent; 6 standard
            # errors are 0.034.
            assert float(solution.x.var()) == pytest.approx(0.25, abs=0.05), predictor


def test_there_is_at_most_one_source_of_noise() -> None:
    values = {"seed": 0, "seeds": [1, 2, 3], "generator": torch.Generator(), "noise": lambda k, like: like}
    for names in (("seed", "seeds"), ("seed", "generator"), ("seeds", "noise"), ("generator", "noise")):
        spy, chosen = Spy(), {n: values[n] for n in names}
        refused(lambda: solve(SDE_VP, spy, states(), method="ancestral", **chosen), V, "at most one", *names, spy=spy)


def test_a_given_grid_sets_steps_and_ends() -> None:
    for name in ("steps", "t_start", "t_end"):
        for grid in (torch.tensor([1.0, 0.5]), [1.0, 0.5], scoresde.Grid((1.0, 0.5))):
            spy, given = Spy(), {"method": "ddim", "grid": grid, name: 1}
            refused(lambda: solve(SDE_VP, spy, states(), **given), V, f"`{name}`", "grid", "leave it out", spy=spy)


def test_deterministic_methods_encode_and_others_are_refused() -> None:
    for m in own_methods():
        spy, ends = Spy(), {"t_start": 0.1, "t_end": 0.9, **few(m.name)}
        if m.stochastic:
            call = lambda: solve(SDE_VP, spy, states(), seed=0, **ends)
            refused(call, V, "t_start=0.1", "t_end=0.9", repr(m.name), "rk45", spy=spy)
        else:
            solution = solve(SDE_VP, spy, states(), **ends)
            assert solution.t.tolist() == [0.9] * 3 and bool(solution.success.all()), m.name


def test_equal_times_return_the_state() -> None:
    for method in KINDS:
        spy, x = Spy(), states()
        solution = solve(SDE_VP, spy, x, method=method, t_start=0.4, t_end=0.4)
        assert spy.calls == 0 and solution.evaluations == 0 and solution.nfe.tolist() == [0, 0, 0]
        assert torch.equal(solution.x, x) and solution.t.tolist() == [0.4] * 3 and bool(solution.success.all())
        assert solution.x.data_ptr() != x.data_ptr()  # not the caller's memory


def test_shapes_come_from_the_state_the_argument_or_the_score_function() -> None:
    spy, other = Spy(event_shape=(2,)), Spy(event_shape=(3,))
    refused(lambda: solve(SDE_VP, spy, method="ddim", t_start=0.5), V, "`x`", "t_start=0.5", "t_max=1", spy=spy)
    refused(lambda: solve(SDE_VP, Spy(), method="ddim"), V, "x", "shape=(batch, *event)")
    for shape in (5, (3, -1), (3, 2.0)):
        with pytest.raises(ScoreSDEError, match="shape"):
            solve(SDE_VP, spy, method="ddim", shape=shape)
    refused(lambda: solve(SDE_VP, other, shape=(4, 2), method="ddim"), V, "(3,)", "(2,)", spy=other)
    # A mean that broadcasts the state to another shape is refused, not followed.
    for mean, shape in ((torch.zeros(5), (4, 1)), (torch.zeros(3), (4, 2)), (torch.zeros(2, 4, 2), (4, 2))):
        with pytest.raises(V, match=r"prior|mean"):
            solve(VPSDE(prior=scoresde.NormalPrior(1.0, mean)), Spy(), shape=shape, method="ddim", steps=2)


def test_an_argument_that_is_no_process_or_score_is_refused() -> None:
    target = scoresde.targets.Gaussian(torch.zeros(2), 1.0)
    refused(lambda: solve("vp", Spy(), states(), method="pc"), T, "`sde`", "'vp'", "VPSDE()")
    refused(lambda: solve(SDE_VP, target, states(), method="pc"), T, "`score_fn`", "Gaussian", ".score(sde)")
    refused(lambda: solve(SDE_VP, None, states(), method="pc"), T, "`score_fn`", "NoneType")
    for other in (VESDE(), VPSDE(beta_max=10.0), scoresde.SubVPSDE()):
        score = target.score(other)
        refused(lambda: solve(SDE_VP, score, states(), method="ddim"), V, "`score_fn`", "`sde`", ".score(sde)")
    # Another interval of the same schedule is the same score.
    solve(SDE_VP, target.score(VPSDE(t_min=0.1)), states(), method="ddim", steps=2)
    refused(lambda: solve(SDE_VP, Spy(), states(), method=solvers.Transition()), V, "forwards", "simulate")


def test_what_needs_alpha_and_sigma_is_refused_where_there_are_none() -> None:
    cases: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        *(({"method": m, "steps": 3}, (repr(m), "euler_maruyama")) for m in ("pc", "ancestral", "ddim", "langevin")),
        ({"method": "euler", "steps": 3, "denoise": True}, ("`denoise`", "OrnsteinUhlenbeck", "denoise=False")),
        *(({"method": "euler", "grid": grid}, ("grid", '"time"')) for grid in ("log_snr", "karras")),
    ]
    for given, words in cases:
        spy = Spy()
        refused(lambda: solve(GENERAL, spy, states(), seed=0, **given), V, *words, spy=spy)


NOISE_END = FlowSDE(t_max=1.0)
DATA_END = FlowSDE(t_min=0.0)


def _shrunk(x: Tensor, t: Tensor) -> Tensor:
    return 0.1 * x


@pytest.mark.parametrize("sde", [NOISE_END, scoresde.CosineVPSDE(t_max=1.0)], ids=["flow", "cosine"])
def test_a_solve_may_start_where_alpha_is_0_if_the_limit_is_defined(sde: Any) -> None:
    for prediction in ("data", "v", "flow"):
        for method in ("ddim", "ancestral", "euler", "heun", "midpoint", "rk4", "rk45"):
            solution = solve(sde, ScoreModel(_shrunk, sde, prediction), states(), seed=0, **few(method))
            cell = prediction, method
            assert bool(solution.success.all()) and bool(torch.isfinite(solution.x).all()), cell


def test_what_has_no_limit_where_alpha_is_0_is_refused() -> None:
    spy, x, zero = Spy(), states(), "alpha is 0 at t=1"
    for prediction in ("score", "noise", "edm"):
        model = ScoreModel(spy, NOISE_END, prediction)
        refused(lambda: solve(NOISE_END, model, x, method="ddim"), V, zero, "data, v or flow", "t_max below")
    refused(lambda: solve(NOISE_END, spy, x, method="ddim"), V, "alpha is 0", "ScoreModel")
    flow = ScoreModel(spy, NOISE_END, "flow")
    for method in ("pc", "reverse_diffusion", "euler_maruyama", "langevin"):
        refused(lambda: solve(NOISE_END, flow, x, method=method, seed=0), V, zero, repr(method), "ddim")
    for time_input in ("rho", "log_snr"):
        model = ScoreModel(spy, NOISE_END, "v", time_input=time_input)
        refused(lambda: solve(NOISE_END, model, x, method="ddim"), V, zero)
    for grid in ("log_snr", "karras"):
        refused(lambda: solve(NOISE_END, flow, x, method="ddim", grid=grid), V, grid, "t=1", 'grid="time"')
    logit, limit = scoresde.VDMSDE(lambda t: 2 * torch.logit(t)), Spy(has_noise_limit=True)
    for method in ("euler", "midpoint", "rk45"):  # whose rate is not known there
        call = lambda: solve(logit, limit, x, method=method, t_end=0.1)
        refused(call, V, zero, "derivative", "ddim", spy=limit)
    assert spy.calls == 0


@pytest.mark.parametrize("prediction", ["data", "v", "flow", "noise"])
def test_a_solve_that_touches_sigma_0_is_finite_or_refused(prediction: str) -> None:
    """At its end, and at its start: Euler would evaluate the drift at sigma = 0, where it divides 0 by 0; so would DDIM
    with a data prediction."""
    for m in own_methods():
        for ends in ({}, {"t_start": 0.0, "t_end": 0.9}) if not m.stochastic else ({},):
            spy = Spy(_shrunk)
            model, given, message = ScoreModel(spy, DATA_END, prediction), {**few(m.name), **ends}, None
            try:
                solution = solve(DATA_END, model, states(), seed=0, **given)
            except V as error:
                message = str(error)
            if message is None:
                assert bool(torch.isfinite(solution.x).all()), (m.name, ends)
            else:
                assert "sigma is 0 at t=0" in message and spy.calls == 0, m.name


BAD_SCORES: dict[str, tuple[Callable[[Tensor, Tensor], Any], tuple[str, ...]]] = {
    "broadcastable": (lambda x, t: x[:1], ("(3, 2)", "(1, 2)")),
    "summed": (lambda x, t: x.sum(1, keepdim=True), ("(3, 2)", "(3, 1)")),
    "transposed": (lambda x, t: x.T, ("(3, 2)", "(2, 3)")),
    "number": (lambda x, t: 0.0, ("float", "tensor")),
    "None": (lambda x, t: None, ("NoneType", "tensor")),
    "int": (lambda x, t: x.int(), ("int32", "float")),
    "complex": (lambda x, t: torch.complex(x, x), ("complex", "float")),
    "device": (lambda x, t: x.to("meta"), ("meta", "cpu")),
    "in place": (lambda x, t: x.mul_(0.5), ("in place", "x.clone()")),
}


@pytest.mark.filterwarnings("ignore")  # torch warns when it drops an imaginary part; the point is that it must not
@pytest.mark.parametrize("method", ["pc", "ddim", "heun", "rk45", "adams"])
def test_an_invalid_score_is_refused_at_the_first_call(method: str) -> None:
    for name, (function, words) in BAD_SCORES.items():
        spy, x = Spy(function), states(dtype=torch.float32)
        before = x.clone()
        refused(lambda: solve(SDE_VP, spy, x, method=method, seed=0), scoresde.ScoreFnError, "call 1", *words)
        with pytest.raises(scoresde.ScoreFnError):
            solve(SDE_VP, ScoreModel(Spy(function), SDE_VP, "noise"), x, method=method, seed=0)
        assert spy.calls == 1 and torch.equal(x, before), name


def test_an_invalid_estimate_is_refused() -> None:
    """A score function may offer its own estimate; it is checked like a score."""
    x = states(dtype=torch.float32)
    for bad in (lambda x: None, *(lambda x, e=e: scoresde.Estimate(e(x), e(x)) for e in (Tensor.int, lambda x: x[:1]))):
        with pytest.raises(scoresde.ScoreFnError):
            solve(SDE_VP, Spy(estimate=lambda x, node, bad=bad: bad(x)), x, method="ddim", steps=2)


def test_a_score_of_another_dtype_is_cast() -> None:
    """With one warning, which points to the caller's line, where it is wider."""
    x = states(dtype=torch.float32)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        solution = solve(SDE_VP, lambda x, t: -x.double(), x, method="heun", steps=5)
        narrow = solve(SDE_VP, lambda x, t: (-x).half(), x, method="ddim", steps=5)
    assert len(seen) == 1 and "float64" in str(seen[0].message) and "dtype=torch.float64" in str(seen[0].message)
    assert seen[0].filename == __file__
    assert solution.x.dtype == narrow.x.dtype == torch.float32
    assert torch.equal(solution.x, solve(SDE_VP, lambda x, t: -x, x, method="heun", steps=5).x)


def test_what_the_callers_functions_raise_comes_through() -> None:
    class Broken(Exception):
        pass

    def broken(x: Tensor, t: Tensor) -> Tensor:
        if float(t.min()) < 0.5:
            raise Broken("the network is ill")
        return -x

    def callback(info: Any) -> None:
        raise ZeroDivisionError(f"at step {info.step}")

    interrupted = Spy(lambda x, t: (_ for _ in ()).throw(KeyboardInterrupt()))
    for method in KINDS:
        with pytest.raises(Broken, match="the network is ill"):
            solve(SDE_VP, broken, states(), method=method, seed=0, progress=True)
        with pytest.raises(KeyboardInterrupt):
            solve(SDE_VP, interrupted, states(), method=method)
        with pytest.raises(ZeroDivisionError, match="at step 1"):
            solve(SDE_VP, Spy(), states(), method=method, seed=0, callback=callback, progress=True)
        assert torch.is_grad_enabled()


def test_an_invalid_noise_function_is_refused() -> None:
    for draw in (lambda k, like: None, lambda k, like: like[:1], lambda k, like: 0.0):
        with pytest.raises(V, match="`noise` must return a tensor of shape"):
            solve(SDE_VP, Spy(), states(), method="ancestral", steps=3, noise=draw)
    draw = lambda k, like: torch.full_like(like, NAN)
    for given in ({"x": states(), "method": "ancestral"}, {"shape": (3, 2), "method": "ddim"}):
        with pytest.raises(NonFiniteError):
            solve(VE, Spy(), steps=3, noise=draw, **given)


def _sick(when: float, value: float, elements: int | None = None, **attributes: Any) -> Spy:
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

    return Spy(function, **attributes)


def _with_sick(rows: int, sick: tuple[int, ...]) -> Tensor:
    x = states(rows).clone()
    x[list(sick), 0] = 1000.0
    return x


FAIL_METHODS = ["pc", "ancestral", "euler_maruyama", "ddim", "heun", "rk4", "rk45", "adams"]


@pytest.mark.parametrize("method", FAIL_METHODS)
def test_a_score_that_is_not_finite_is_found(method: str) -> None:
    """Everywhere, or in one element of one sample, from the start or later."""
    for value in (NAN, INF, -INF):
        with pytest.raises(NonFiniteError) as caught:
            solve(VE, Spy(lambda x, t, value=value: torch.full_like(x, value)), states(), method=method, seed=0)
        error = caught.value
        assert error.stage == "score" and error.indices == [0, 1, 2]
        assert "score" in str(error) and "throw=False" in str(error)
        assert error.partial.status.tolist() == [Status.NON_FINITE] * 3 and bool(error.partial.x.isnan().all())
    others = [0, 1, 2, 3, 5]
    for when, value in ((2.0, NAN), (0.4, INF), (0.03, NAN)):
        with pytest.raises(NonFiniteError) as caught:
            solve(VE, _sick(when, value, elements=1), _with_sick(6, (4,)), method=method, seed=0)
        error = caught.value
        assert error.stage == "score" and error.indices == [4] and "1 of 6" in str(error) and "[4]" in str(error)
        assert error.t is not None and VE.t_min <= error.t <= VE.t_max
        # The others were under way, or had arrived (each with steps of its own).
        assert error.partial.status[4] == Status.NON_FINITE and bool(error.partial.x[4].isnan().all())
        assert set(error.partial.status[others].tolist()) <= {Status.STOPPED, Status.SUCCESS}
        assert bool(error.partial.x[others].isfinite().all())


@pytest.mark.parametrize("method", FAIL_METHODS)
def test_without_throw_the_others_finish_as_if_alone(method: str) -> None:
    sick, well = [0, 4], [1, 2, 3, 5]
    x = _with_sick(6, (0, 4))
    times = [0.8, 0.5, 0.2, VE.t_min]
    given: dict[str, Any] = {"method": method, "save_at": times, **({"steps": 100} if method == "pc" else {})}
    alone = solve(VE, _sick(2.0, NAN), x[well], seeds=well, **given)
    for when, rowwise in ((2.0, True), (0.4, False), (0.4, True), (0.03, True)):
        solution = solve(VE, _sick(when, NAN, elements=1, rowwise=rowwise), x, seeds=range(6), throw=False, **given)
        assert solution.status.tolist() == [1, 0, 0, 0, 1, 0] and bool(solution.x[sick].isnan().all())
        for name in ("x", "nfe", "accepted", "t"):
            assert torch.equal(getattr(solution, name)[well], getattr(alone, name)), (when, rowwise, name)
        assert bool((solution.t[sick] > VE.t_min).all())  # where it stopped
        assert torch.equal(solution.xs[:, well], alone.xs)
        # Its last finite state, under a later time, would be a wrong result that looks fine.
        assert solution.xs[:, sick].isnan().all(2).any(1).tolist() == [time < when for time in times], when
        if method == "rk45":  # the step shrinks towards the failing time; that must end soon
            assert int(solution.nfe[sick].max()) < 200


@pytest.mark.parametrize("method", [*FAIL_METHODS, "dpm_2m", "dpmpp_sde12"])
def test_without_throw_a_state_that_is_not_finite_is_left_out(method: str) -> None:
    x, well, lost = states(6), [1, 2, 4], [0, 3, 5]
    x[0, 1], x[3, 0], x[5] = NAN, INF, -INF
    given: dict[str, Any] = {"save_at": [0.5, SDE_VP.t_min], **few(method)}
    alone = solve(SDE_VP, lambda x, t: -x, x[well], seeds=well, **given)
    for rowwise in (False, True):
        seen: list[Tensor] = []
        spy = Spy(lambda x, t, seen=seen: (seen.append(x.clone()), -x)[1], rowwise=rowwise)
        solution = solve(SDE_VP, spy, x, seeds=range(6), throw=False, **given)
        assert solution.status.tolist() == [1, 0, 0, 1, 0, 1] and bool(solution.x[lost].isnan().all())
        for name in ("x", "nfe", "accepted", "t"):
            assert torch.equal(getattr(solution, name)[well], getattr(alone, name)), name
        assert not solution.nfe[lost].any() and bool((solution.t[lost] == SDE_VP.t_max).all())
        assert torch.equal(solution.xs[:, well], alone.xs) and bool(solution.xs[:, lost].isnan().all())
        assert max(map(len, seen)) == (3 if rowwise else 6) and all(bool(x.isfinite().all()) for x in seen)


def test_a_batch_may_fail_altogether() -> None:
    for method in ("ddim", "adams", "pc"):
        spy = Spy()
        solution = solve(SDE_VP, spy, states() * NAN, method=method, throw=False, save_at="steps", denoise=True)
        assert spy.calls == 0 == solution.evaluations and solution.status.tolist() == [1, 1, 1]
        assert bool(solution.x.isnan().all()) and solution.xs is not None and solution.xs.shape == (1, 3, 2)
    solution = solve(VE, Spy(lambda x, t: x * NAN), states(), method="ddim", throw=False)
    assert solution.status.tolist() == [1, 1, 1] and bool(solution.x.isnan().all()) and solution.evaluations <= 2
    x = states(2)
    x[1, 0] = INF  # in a solve without a step
    solution = solve(SDE_VP, Spy(), x, method="ddim", t_start=0.5, t_end=0.5, throw=False, save_at=[0.5])
    assert torch.equal(solution.x[0], x[0]) and solution.status.tolist() == [0, 1] and bool(solution.x[1].isnan().all())
    draw = lambda k, like: torch.stack([torch.full_like(like[0], NAN), like[1] * 0])
    drawn = solve(SDE_VP, Spy(), shape=(2, 2), method="ddim", steps=2, throw=False, noise=draw)
    assert drawn.status.tolist() == [1, 0]


def test_codes_and_densities_leave_the_same_samples_out() -> None:
    x, well = 0.3 * states(3), [0, 2]
    x[1, 1] = NAN
    score = lambda x, t: -x
    loose: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3}
    for function in (scoresde.encode, scoresde.decode):
        with pytest.raises(NonFiniteError, match=r"1 of 3 samples \(first: \[1\]\)"):
            function(SDE_VP, score, x, **loose)
        got = function(SDE_VP, score, x, throw=False, **loose)
        assert got.status.tolist() == [0, 1, 0] and bool(got.x[1].isnan().all())
        assert torch.equal(got.x[well], function(SDE_VP, score, x[well], **loose).x)
    with pytest.raises(NonFiniteError):
        scoresde.reconstruct(SDE_VP, score, x)
    back = scoresde.reconstruct(SDE_VP, score, x, throw=False, **loose)
    alone = scoresde.reconstruct(SDE_VP, score, x[well], **loose)
    assert torch.equal(back.error[well], alone.error) and bool(back.error[1].isnan()) and back.nfe[1] == 0
    assert torch.equal(back.x[well], alone.x) and bool(back.latent[1].isnan().all())
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2).double(), 1.0), 1)
    got = scoresde.log_likelihood(SDE_VP, score, x, throw=False, prior=prior, check=False, **loose)
    assert got.success.tolist() == [True, False, True] and not got.log_prob[1].isfinite()  # torch's refuse NaN


def test_samples_that_are_stepped_together_must_all_be_finite() -> None:
    x = states(4)
    x[2, 0] = NAN
    guided = scoresde.guidance.classifier_guidance(lambda x, t: -x, lambda x, t: -x.square().sum(1))
    for throw in (False, True):
        tilt = lambda throw=throw: scoresde.sample_tilted(SDE_VP, guided, x, steps=3, throw=throw)
        refused(tilt, NonFiniteError, "`x`", "[2]", "leave them out")
    coupled = scoresde.LangevinCorrector(rule="batch")
    pc = lambda: solve(SDE_VP, Spy(), x, method="pc", corrector=coupled, throw=False)
    refused(pc, NonFiniteError, "`x`", "'pc'")
    for method in ("torchdiffeq:dopri5", "scipy:RK45"):
        solution = solve(SDE_VP, lambda x, t: -x, x, method=method, throw=False)
        assert solution.status.tolist() == [0, 0, 1, 0] and bool(solution.x[2].isnan().all())
        assert bool(solution.x[[0, 1, 3]].isfinite().all())


def test_a_state_that_blows_up_or_overflows_is_found() -> None:
    with pytest.raises(NonFiniteError) as caught:
        solve(VE, Spy(lambda x, t: x * 1e200), states(), method="euler", steps=20)
    assert caught.value.stage in ("state", "score") and caught.value.step is not None
    # When it is cast back.
    given: dict[str, Any] = {"shape": (3, 2), "method": "ddim", "steps": 2, "dtype": torch.float16, "seed": 0}
    wide, zero = VESDE(sigma_max=1e6), Spy(lambda x, t: torch.zeros_like(x))
    with pytest.raises(NonFiniteError):
        solve(wide, zero, **given)
    solution = solve(wide, zero, throw=False, **given)
    assert not bool(solution.success[~torch.isfinite(solution.x).all(1)].any())


def test_a_score_that_fails_only_in_the_denoising() -> None:
    x = states(4)

    def last(x: Tensor, t: Tensor) -> Tensor:
        ill = (column(t, x) <= SDE_VP.t_min * 1.0001) & (torch.arange(len(x)) == 1)[:, None]
        return torch.where(ill, torch.full_like(x, NAN), -x)

    arguments: dict[str, Any] = {"method": "ddim", "steps": 3, "denoise": True}
    with pytest.raises(NonFiniteError) as caught:
        solve(SDE_VP, last, x, **arguments)
    assert caught.value.stage == "score" and caught.value.indices == [1]
    solution = solve(SDE_VP, last, x, throw=False, **arguments)
    assert solution.status.tolist() == [0, 1, 0, 0] and bool(solution.x[1].isnan().all())
    assert bool(solution.x[[0, 2, 3]].isfinite().all())


@pytest.mark.parametrize("rowwise", [False, True])
def test_only_the_hard_samples_fail(rowwise: bool) -> None:
    """The score of one oscillates until the steps run out, or has a pole that no step passes; the others arrive, and
    are right."""
    x = states(3)
    x[1] = 500.0
    limits: dict[str, Any] = {"max_steps": 40, "rtol": 1e-6, "atol": 1e-6}
    cases: list[tuple[float, dict[str, Any], Any, Status, str]] = [
        (1e4, limits, scoresde.MaxStepsError, Status.MAX_STEPS, "max_steps"),
        (1e30, {}, scoresde.StepSizeUnderflowError, Status.STEP_UNDERFLOW, "loosen"),
    ]
    for size, given, kind, status, word in cases:

        def function(x: Tensor, t: Tensor, size: float = size) -> Tensor:
            rough = size * torch.sin(size * column(t, x))
            return torch.where(x.abs() > 100, rough * torch.ones_like(x), torch.zeros_like(x))

        with pytest.raises(kind, match=r"1 of 3 samples \(first: \[1\]\)") as caught:
            solve(VE, Spy(function, rowwise=rowwise), x, method="rk45", **given)
        partial = caught.value.partial
        assert partial.status.tolist() == [0, status, 0] and bool(partial.x[1].isnan().all())
        assert torch.equal(partial.x[[0, 2]], x[[0, 2]]) and word in str(caught.value)
        assert VE.t_min < float(partial.t[1]) <= VE.t_max and f"{float(partial.t[1]):.6g}" in str(caught.value)
        solution = solve(VE, Spy(function, rowwise=rowwise), x, method="rk45", throw=False, **given)
        assert solution.status.tolist() == [0, status, 0] and torch.equal(solution.x[[0, 2]], x[[0, 2]])


def test_empty_and_tiny_batches() -> None:
    for method in KINDS:
        spy = Spy()
        solution = solve(SDE_VP, spy, torch.zeros(0, 2, 3), method=method, save_at=[0.5], denoise=True, seeds=[])
        assert spy.calls == 0 == solution.evaluations and solution.nfe.shape == solution.status.shape == (0,)
        assert solution.x.shape == (0, 2, 3) and solution.xs is not None and solution.xs.shape == (1, 0, 2, 3)
        for shape in ((3, 0), (1, 1)):
            solution = solve(SDE_VP, Spy(), torch.zeros(shape), seed=0, **few(method))
            assert solution.x.shape == shape and bool(solution.success.all())


def test_gradients_inside_a_score_and_inference_mode_do_not_leak() -> None:
    def energy(x: Tensor, t: Tensor) -> Tensor:
        """Guidance differentiates its input; the flag of the caller's tensor is not its to set."""
        with torch.enable_grad():
            x.requires_grad_(True)
            return torch.autograd.grad(-0.5 * x.square().sum(), x)[0]

    for method in KINDS:
        x = states()
        solution = solve(SDE_VP, energy, x, seed=0, **few(method))
        assert not x.requires_grad and x.is_leaf and not solution.x.requires_grad
        expected = solve(SDE_VP, Spy(), states(), seed=0, **few(method))
        with torch.inference_mode():
            x = states()
            assert torch.equal(solve(SDE_VP, Spy(), x, seed=0, **few(method)).x, expected.x)
        assert torch.equal(solve(SDE_VP, Spy(), x, seed=0, **few(method)).x, expected.x)  # outside


def test_times_that_were_rounded_to_single_precision_are_the_ends() -> None:
    """torch.linspace(t_max, t_min, n) is float32: its ends may lie outside by one rounding, and mean the ends."""
    for sde in (VESDE(), VPSDE(), scoresde.CosineVPSDE(), FlowSDE(), scoresde.EDMSDE()):
        times = torch.linspace(sde.t_max, sde.t_min, 6)
        assert bool(solve(sde, Spy(), shape=(2, 2), method="ddim", grid=times).success.all())
        solution = solve(sde, Spy(), shape=(2, 2), method="ddim", steps=3, save_at=times[[0, -1]])
        assert solution.xs is not None and bool(solution.xs.isfinite().all())


def _gaussian(
    alpha: Any = torch.cos, sigma: Any = torch.sin, t_min: Any = 0.1, t_max: Any = 1.0
) -> scoresde.GaussianSDE:
    return scoresde.GaussianSDE(alpha, sigma, t_min, t_max)


# Class, argument, error, a phrase of the message, and values of which each is refused so.
PROCESSES: list[tuple[Callable[..., Any], str, type[ScoreSDEError], str, list[Any]]] = [
    (VPSDE, "beta_min", V, "`beta_min`", [-1, 0, NAN]),
    (VPSDE, "beta_min", T, "`beta_min`", ["a", True, None, torch.ones(2)]),
    (VPSDE, "beta_max", V, "`beta_max`", [INF, 0.05]),
    (VPSDE, "t_min", V, "empty", [1.0, 2.0]),
    (VPSDE, "t_min", V, "`t_min`", [-1, NAN]),
    (VPSDE, "t_max", V, "signal-to-noise", [1e300]),
    (VPSDE, "prior", T, "NormalPrior", [1.0]),
    (VESDE, "sigma_min", V, "`sigma_min`", [0, 60.0]),
    (VESDE, "t_max", V, "empty", [0.0]),
    (scoresde.EDMSDE, "sigma_min", V, "`sigma_min`", [0]),
    (scoresde.CosineVPSDE, "s", V, "`s`", [0, NAN]),
    (FlowSDE, "t_max", V, "empty", [0.0]),
    (scoresde.VDMSDE, "gamma", V, "signal-to-noise", [lambda t: t * 0, lambda t: -t]),
    (scoresde.VDMSDE, "gamma", V, "finite", [lambda t: t * NAN]),
    (scoresde.VDMSDE, "gamma", V, "(3,)", [lambda t: torch.zeros(3)]),
    (scoresde.VDMSDE, "gamma", T, "`gamma`", [5, lambda t: 1.0, lambda t: None, math.exp]),
    (scoresde.NormalPrior, "std", V, "`std`", [0.0, -1.0, NAN]),
    (scoresde.NormalPrior, "mean", V, "`mean`", [NAN, torch.tensor([NAN])]),
    (_gaussian, "alpha", T, "`alpha`", [1.0, lambda t: math.exp(-t), lambda t: "a", lambda t: None]),
    (_gaussian, "alpha", V, "positive", [lambda t: -1 - t]),
    (_gaussian, "alpha", V, "(3,)", [lambda t: torch.ones(3)]),
    (_gaussian, "alpha", V, "t=0.50", [lambda t: torch.where(t < 0.5, 1.0, NAN)]),
    (_gaussian, "sigma", V, "sigma(t_max)", [lambda t: -t]),
    (_gaussian, "sigma", V, "positive", [lambda t: t - 0.5]),
    (_gaussian, "sigma", V, "t=0.1 ", [lambda t: 3 * (t - 0.5) ** 2 + 0.1]),
    (_gaussian, "t_max", V, "t_max", [NAN, 0.05]),
    (
        lambda t_max=1.0: OrnsteinUhlenbeck(t_min=1.0, t_max=t_max, prior=scoresde.NormalPrior()),
        "t_max",
        V,
        "empty",
        [1.0],
    ),
]


@pytest.mark.filterwarnings("ignore")
def test_an_invalid_process_is_refused() -> None:
    for make, name, kind, phrase, values in PROCESSES:
        for value in values:
            refused(lambda: make(**{name: value}), kind, phrase)
    refused(lambda: _gaussian(lambda t: 1.0, lambda t: 1.0), V, "signal-to-noise", "index 1")
    refused(lambda: VESDE(1e-308, 1e308), V, "sigma")


def test_an_invalid_time_is_refused() -> None:
    for t, kind in (("a", T), (None, T), (NAN, V), (torch.tensor([1, 1, 1]), T), (torch.ones(3, 1), V)):
        for name in ("alpha", "sigma", "log_snr", "diffusion"):
            with pytest.raises(kind, match="`t`"):
                getattr(SDE_VP, name)(t)
    # Five times for one or three samples are an error, not a broadcast.
    for rows in (1, 3):
        for call in (SDE_VP.marginal, SDE_VP.perturb, SDE_VP.drift, ScoreModel(_shrunk, SDE_VP, "noise")):
            with pytest.raises(V, match="`t`"):
                call(states(rows), torch.full((5,), 0.5))


MODELS: list[tuple[str, type[ScoreSDEError], str, list[Any]]] = [
    ("sde", T, "VPSDE()", ["vp"]),
    ("prediction", V, "noise", [None]),
    ("time_input", V, "did you mean 'log_snr'", ["logsnr"]),
    ("input_scale", V, "did you mean 'x/alpha'", ["x/alph"]),
    ("context", T, "`context`", [[1], "ab"]),
    ("event_shape", T, "`event_shape`", [3, "ab"]),
    ("event_shape", V, "`event_shape", [(-1,), ()]),
]


def test_an_invalid_score_model_is_refused() -> None:
    """What the table of tests/unit does not have."""
    full: dict[str, Any] = {"net": _shrunk, "sde": SDE_VP, "prediction": "noise"}
    for name, kind, phrase, values in MODELS:
        for value in values:
            refused(lambda: ScoreModel(**(full | {name: value})), kind, name, phrase)


def test_errors_survive_the_way_between_processes() -> None:
    """Workers of a pool send their errors home pickled."""
    with pytest.raises(NonFiniteError) as caught:
        solve(SDE_VP, Spy(lambda x, t: x * NAN), states(), method="ddim")
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value) and again.stage == "score" and again.indices == [0, 1, 2]
    assert again.partial.status.tolist() == [Status.NON_FINITE] * 3


def test_a_solver_of_ones_own_that_forgets_a_part_is_told() -> None:
    class Solver(solvers.Solver):
        name = "own"
        kind = "ode"

        def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: Any) -> Any:
            return scoresde.StepResult(x[:1])

    call = lambda: solve(SDE_VP, Spy(), states(), method=Solver(), steps=2)
    refused(call, ScoreSDEError, "solver Solver", "(3, 2)", "(1, 2)")


def test_a_grid_with_times_that_are_one_to_the_schedule() -> None:
    before = torch.linspace(0.2, 0.4, 1000, dtype=torch.float64)
    after = torch.nextafter(before, torch.zeros_like(before))
    i = int((SDE_VP.log_snr(before) == SDE_VP.log_snr(after)).int().argmax())
    times = [1.0, float(before[i]), float(after[i]), 0.1]
    refused(lambda: solve(SDE_VP, Spy(), states(), method="dpm_2m", grid=times), V, "log-SNR", "entries 1 and 2")


# A process by an end of its interval (or what moves it), the end's name, and values at which a schedule underflows.
EXTREME: list[tuple[Callable[..., Any], str, tuple[float, ...]]] = [
    (lambda value, t=None: VPSDE(t_max=t or value), "t_max", (5.0, 200.0, 1e300)),
    (lambda value, t=None: scoresde.SubVPSDE(t_max=t or value), "t_max", (200.0, 1e10)),
    (lambda value, t=None: scoresde.VDMSDE(t_max=t or value), "t_max", (200.0, 1e10)),
    (lambda value, t=None: VESDE(t_max=t or value), "t_max", (15.0, 1e300)),
    (lambda value, t=1.0: VPSDE(beta_max=value, t_max=t), "t_max", (400.0, 1e4)),
    (lambda value, t=1.0: scoresde.VDMSDE(scoresde.LinearGamma(-5.0, value), t_max=t), "t_max", (200.0, 1e10)),
    (lambda value, t=None: VPSDE(t_min=t or value), "t_min", (1e-100, 1e-300)),
    (lambda value, t=None: scoresde.EDMSDE(sigma_min=t or value), "t_min", (1e-40, 1e-300)),
]


def test_an_end_at_which_a_schedule_leaves_its_range_is_refused_with_one_that_works() -> None:
    x = torch.zeros(2, 1, dtype=torch.float64)
    for make, end, values in EXTREME:
        for value in values:
            error = refused(lambda: make(value), V, f"`{end}`=", f"est {end} that works is ")
            nearest = float(str(error).rsplit(" ", 1)[1].rstrip("."))
            assert bool(scoresde.simulate(make(value, nearest), x, steps=3, seed=0).x.isfinite().all())
            beyond = nearest * (1.01 if end == "t_max" else 0.99)
            refused(lambda: make(value, beyond), V, f"{end} that works is ")


def test_a_learned_schedule_that_came_to_underflow_is_refused() -> None:
    class Adjustable:
        """A gamma whose range can be changed, as training does."""

        top = 5.0

        def __call__(self, t: Tensor) -> Tensor:
            return -10.0 + (self.top + 10.0) * t

    gamma, spy = Adjustable(), Spy()
    sde, x = scoresde.VDMSDE(gamma), torch.ones(2, 3)
    model = ScoreModel(lambda x, t: 0.5 * x, sde, "data")
    assert bool(solve(sde, model, x, method="ddim", steps=3).x.isfinite().all())
    gamma.top = 2000.0
    refused(lambda: scoresde.simulate(sde, x, steps=3, seed=0), V, "t_max", "largest", "0.0")
    for method in ("ddim", "seeds3", "dpmpp_sde"):
        refused(lambda: solve(sde, spy, x, method=method, steps=3), V, "t_max", "largest", spy=spy)
