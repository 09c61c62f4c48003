"""Bad input of densities, bounds and latents: what is refused, in which words, and what it must not do to the rest."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import scoresde
from scoresde import (
    InvalidArgumentError,
    InvalidTypeError,
    MaxStepsError,
    NonFiniteError,
    ScoreFnError,
    ScoreSDEError,
    Status,
    bits_per_dim,
    decode,
    decoder_bound,
    dequantize,
    discrete_log_likelihood,
    encode,
    interpolate,
    log_likelihood,
    reconstruct,
    targets,
    variational_bound,
)

pytestmark = pytest.mark.timeout(20)  # a hang is a failure

F64 = torch.float64
NAN, INF = math.nan, math.inf
SDE = scoresde.VPSDE()
LAW = targets.Gaussian(torch.zeros(4, dtype=F64), 0.3)
SCORE = LAW.score(SDE)
X = LAW.sample(4, generator=torch.Generator().manual_seed(0)).to(F64)
V = torch.randint(0, 17, (3, 4), generator=torch.Generator().manual_seed(0))
QUIET = pytest.mark.filterwarnings("ignore::scoresde.errors.ScoreSDEWarning")


class Rowwise:
    """Numbers of a sample do not meet those of others, nor do numbers of one sample."""

    rowwise = True

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, x: Tensor, t: Tensor, **context: Any) -> Any:
        return self.function(x, t, **context)


def elementwise(x: Tensor, t: Tensor) -> Tensor:
    return -x / (0.3 + 0.7 * t[:, None]) + 0.1 * x / (1 + x * x)


def density(score_fn: Any = SCORE, x: Any = X, **options: Any) -> Any:
    return log_likelihood(SDE, score_fn, x, **{"divergence": "exact", "seed": 0, **options})


def discrete(v: Any = V, score_fn: Any = SCORE, **options: Any) -> Any:
    given = {"dequantizer": scoresde.UniformDequantizer(17), "divergence": "exact", "dtype": F64, "seed": 0}
    return discrete_log_likelihood(SDE, score_fn, v, **{**given, **options})


def decoder(x: Any = X, score_fn: Any = SCORE, **options: Any) -> Any:
    return decoder_bound(SDE, score_fn, x, **{"divergence": "exact", "seed": 0, **options})


def bound(x: Any = X, score_fn: Any = SCORE, **options: Any) -> Any:
    return variational_bound(SDE, score_fn, x, **{"draws": 2, "seed": 0, **options})


ENTRIES: dict[str, Callable[..., Any]] = {
    "log_likelihood": lambda x, score_fn=SCORE: density(score_fn, x),
    "decoder_bound": decoder,
    "variational_bound": bound,
    "encode": lambda x, score_fn=SCORE: encode(SDE, score_fn, x),
    "decode": lambda x, score_fn=SCORE: decode(SDE, score_fn, x),
    "reconstruct": lambda x, score_fn=SCORE: reconstruct(SDE, score_fn, x),
}
by_entry = pytest.mark.parametrize("entry", ENTRIES)


# --- states -----------------------------------------------------------------------------------------------------------


def with_value(value: float) -> Tensor:
    x = X.clone()
    x[1, 2] = value
    return x


STATES: dict[str, tuple[Any, type[ScoreSDEError], str]] = {
    "0-d": (torch.tensor(1.0), InvalidArgumentError, "rank 1 or more"),
    "without a batch": (torch.ones(4), InvalidArgumentError, "reshape"),
    "a list": ([[1.0, 2.0, 3.0, 4.0]], InvalidTypeError, "must be a tensor"),
    "None": (None, InvalidTypeError, "must be a tensor"),
    "integers": (torch.ones(2, 4, dtype=torch.long), InvalidTypeError, "floating-point"),
    "truth values": (torch.ones(2, 4) > 0, InvalidTypeError, "floating-point"),
    "complex": (torch.ones(2, 4) + 0j, InvalidTypeError, "floating-point"),
    "sparse": (torch.ones(2, 4).to_sparse(), InvalidTypeError, "dense"),
    "meta": (torch.ones(2, 4, device="meta"), InvalidTypeError, "dense"),
    "another event": (torch.ones(2, 5), InvalidArgumentError, "events of shape"),
    "NaN": (with_value(NAN), NonFiniteError, "NaN or infinite"),
    "infinite": (with_value(-INF), NonFiniteError, "NaN or infinite"),
}


@by_entry
@pytest.mark.parametrize("case", STATES)
def test_states_that_are_none(entry: str, case: str) -> None:
    x, kind, words = STATES[case]
    calls = []

    class Spy(type(SCORE)):  # type: ignore[misc]
        def estimate(self, x: Tensor, node: Any) -> Any:
            calls.append(len(x))
            return super().estimate(x, node)

    spy = Spy(SCORE.denoise, SDE, (4,))
    with pytest.raises(kind, match=words) as caught:
        ENTRIES[entry](x, score_fn=spy)
    assert calls == []  # refused before the first evaluation
    if kind is NonFiniteError and entry != "variational_bound":
        assert caught.value.indices == [1] and caught.value.stage == "input"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_densities_of_half_precision_are_refused(dtype: torch.dtype) -> None:
    for call in (density, decoder):
        with pytest.raises(InvalidTypeError, match=r"x\.float\(\)"):
            call(x=X.to(dtype))
    assert encode(SDE, SCORE, X.to(dtype)).x.dtype == dtype
    assert bound(X.to(dtype)).total.isfinite().all()


@by_entry
def test_an_empty_batch_is_an_empty_result(entry: str) -> None:
    got = ENTRIES[entry](X[:0])
    values = [getattr(got, name, None) for name in ("log_prob", "total", "x")]
    assert {len(value) for value in values if value is not None} == {0}


@pytest.mark.parametrize("divergence", ["exact", "hutchinson", "hutch++"])
def test_an_empty_batch_of_every_divergence(divergence: str) -> None:
    got = density(x=X[:0], divergence=divergence, probes=3)
    assert got.log_prob.shape == (0,) and got.interval()[0].shape == (0,) and got.latent.shape == (0, 4)


def test_empty_events_and_batches_of_bounds() -> None:
    for call in (
        lambda: density(elementwise, torch.zeros(2, 0)),
        lambda: discrete(torch.zeros(2, 0, dtype=torch.long)),
    ):
        with pytest.raises(InvalidArgumentError):
            call()
    assert discrete(V[:0]).log_prob.shape == (0,) and discrete(V[:0]).bits_per_dim.shape == (0,)
    assert decoder(V[:0], levels=17).log_prob.shape == (0,) and bound(V[:0], levels=17).total.shape == (0,)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.mT.contiguous().mT,
    "every second": lambda x: torch.stack([x, x * 0], 1).flatten(0, 1)[::2],
    "reversed": lambda x: x.flip(0).contiguous().flip(0),
    "a leaf with gradient": lambda x: x.clone().requires_grad_(True),
    "not a leaf": lambda x: x.clone().requires_grad_(True) * 1.0,
    "a parameter": lambda x: nn.Parameter(x.clone()),
}


@by_entry
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_change_nothing_and_inputs_are_left_alone(entry: str, layout: str) -> None:
    x = LAYOUTS[layout](X)
    before, needs, strides = x.detach().clone(), x.requires_grad, x.stride()
    got, want = (ENTRIES[entry](given, score_fn=Rowwise(elementwise)) for given in (x, X))
    for name in ("log_prob", "total", "x"):
        if getattr(got, name, None) is not None:
            assert torch.equal(getattr(got, name), getattr(want, name)) and not getattr(got, name).requires_grad
    assert torch.equal(x.detach(), before) and x.requires_grad == needs and x.stride() == strides
    assert not x.is_leaf or x.grad is None


@by_entry
def test_expanded_states(entry: str) -> None:
    x = X[:1].expand(3, 4)
    got = ENTRIES[entry](x, score_fn=Rowwise(elementwise))
    values = got.x if hasattr(got, "x") else got.latent if hasattr(got, "latent") else None
    if values is not None:
        assert torch.equal(values[0], values[1]) and torch.equal(values[1], values[2])
    assert x.stride() == (0, 1)


def test_expanded_grey_values() -> None:
    v = V[:1].expand(3, 4)
    assert discrete(v).log_prob.isfinite().all() and decoder(v, levels=17).log_prob.isfinite().all()
    assert bound(v, levels=17).total.isfinite().all() and v.stride()[0] == 0


@QUIET
@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e150])
def test_very_small_and_very_large_values(size: float) -> None:
    """The log-density of the Gaussian, whatever the size."""
    got = density(x=X * size)
    exact = LAW.log_prob(X * size, SDE, SDE.t_min)
    torch.testing.assert_close(got.log_prob, exact, rtol=1e-4, atol=1e-2)


@QUIET
def test_a_huge_sample_does_not_harm_the_others() -> None:
    x = torch.cat([X, 1e150 * X[:1]])
    got = density(Rowwise(elementwise), x, throw=False)
    alone = density(Rowwise(elementwise), X)
    assert torch.equal(got.log_prob[:4], alone.log_prob)
    assert bool(got.log_prob[4] < -1e290) or not bool(got.success[4])


# --- samples that fail ------------------------------------------------------------------------------------------------

DIVERGENCES: list[dict[str, Any]] = [
    {},
    {"divergence": "hutchinson", "probes": 2},
    {"divergence": "hutch++", "probes": 3},
    {"method": "rk45"},
]
by_divergence = pytest.mark.parametrize("options", DIVERGENCES, ids=str)


@by_divergence
@pytest.mark.parametrize("value", [NAN, INF])
def test_healthy_samples_are_the_same_to_the_last_bit(value: float, options: dict[str, Any]) -> None:
    x = torch.cat([X[:1], torch.full((1, 4), 0.1, dtype=F64), X[1:]])
    sick = x.clone()
    sick[1, 3] = value
    seeds = {"seed": None, "seeds": range(5)}
    healthy = [0, 2, 3, 4]
    got = density(Rowwise(elementwise), sick, throw=False, **options, **seeds)
    whole = density(Rowwise(elementwise), x, **options, **seeds)
    assert got.success.tolist() == [True, False, True, True, True] and got.status[1] == Status.NON_FINITE
    for name in ("log_prob", "std_error", "latent", "prior_log_prob", "paths"):
        assert bool(getattr(got, name)[1].isnan().all())
        values = (getattr(result, name)[healthy].nan_to_num(-7.0) for result in (got, whole))  # one path has no spread
        assert torch.equal(*values)
    assert torch.equal(got.nfe[healthy], whole.nfe[healthy])


@by_divergence
@pytest.mark.parametrize("rowwise", [True, False])
def test_a_score_that_is_nan_midway(rowwise: bool, options: dict[str, Any]) -> None:
    def sick(x: Tensor, t: Tensor) -> Tensor:
        out = elementwise(x, t)
        return torch.where((x[:, :1] > 1.5) & (t[:, None] > 0.4), torch.full_like(out, NAN), out)

    x = torch.cat([0.3 * X, torch.full((1, 4), 3.0, dtype=F64)])
    function = Rowwise(sick) if rowwise else sick
    seeds = {"seed": None, "seeds": range(5)}
    with pytest.raises(NonFiniteError, match="1 of 5") as caught:
        density(function, x, **options, **seeds)
    assert caught.value.stage == "score" and caught.value.indices == [4] and caught.value.partial is not None
    got = density(function, x, throw=False, **options, **seeds)
    good = density(Rowwise(elementwise) if rowwise else elementwise, x, **options, **seeds)
    assert got.success.tolist() == [True] * 4 + [False] and got.status[4] == Status.NON_FINITE
    assert torch.equal(got.log_prob[:4], good.log_prob[:4]) and bool(got.log_prob[4].isnan())


def test_all_samples_may_fail() -> None:
    for score_fn, x in ((lambda x, t: x * NAN, X), (SCORE, X * NAN)):
        got = density(score_fn, x, throw=False)
        assert got.log_prob.isnan().all() and got.latent.isnan().all() and not got.success.any()
    with pytest.raises(NonFiniteError, match="4 of 4"):
        density(lambda x, t: x * NAN)


def test_an_infinite_gradient_of_a_finite_score() -> None:
    def score(x: Tensor, t: Tensor) -> Tensor:
        kink = torch.sqrt(torch.relu(x) - torch.relu(x).detach())  # 0, with an infinite slope where x > 0
        return -x + kink

    got = density(score, torch.tensor([[-1.0], [1.0]], dtype=F64), throw=False)
    assert got.success.tolist() == [True, False] and got.log_prob.isnan().tolist() == [False, True]


class Prior:
    def __init__(self, value: float) -> None:
        self.value = value

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, x.new_tensor(self.value), x.new_tensor(0.0))


def test_a_prior_that_is_nan_is_told_and_one_that_is_zero_is_not() -> None:
    latent = density().latent[:, 0] > 0
    assert 0 < int(latent.sum()) < 4
    with pytest.raises(NonFiniteError, match="prior") as caught:
        density(prior=Prior(NAN))
    assert caught.value.stage == "logp" and caught.value.indices == latent.nonzero()[:, 0].tolist()
    got = density(prior=Prior(NAN), throw=False)
    assert torch.equal(got.log_prob.isnan(), latent) and torch.equal(got.success, ~latent)
    assert torch.equal(got.latent.isnan().all(1), latent)
    outside = density(prior=Prior(-INF))  # a distribution with an end
    assert torch.equal(outside.log_prob == -INF, latent) and bool(outside.success.all())


def test_the_steps_run_out() -> None:
    with pytest.raises(MaxStepsError, match="max_steps=2") as caught:
        density(max_steps=2)
    partial = caught.value.partial
    assert partial is not None and partial.x.isnan().all() and partial.status.tolist() == [Status.MAX_STEPS] * 4
    got = density(max_steps=2, throw=False)
    assert got.log_prob.isnan().all() and got.status.tolist() == [Status.MAX_STEPS] * 4
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


def test_a_stiff_score_ends() -> None:
    """Nothing hangs: steps run out or it arrives, in less than the time limit."""
    stiff = Rowwise(lambda x, t: -1e8 * x * torch.sin(1e6 * x) ** 2)
    got = log_likelihood(SDE, stiff, X, divergence="exact", throw=False, check=False, max_steps=200)
    assert bool((got.log_prob.isnan() == ~got.success).all())


# --- score functions --------------------------------------------------------------------------------------------------


def inplace(x: Tensor, t: Tensor) -> Tensor:
    return -x.mul_(1.0)


def raising(x: Tensor, t: Tensor) -> Tensor:
    raise KeyError("mine")


SCORES: dict[str, tuple[Any, type[Exception], str]] = {
    "None": (lambda x, t: None, ScoreFnError, "NoneType"),
    "a tuple": (lambda x, t: (x, x), ScoreFnError, "tuple"),
    "an array": (lambda x, t: x.detach().numpy(), ScoreFnError, "ndarray"),
    "a scalar": (lambda x, t: torch.tensor(0.0), ScoreFnError, r"got \(\)"),
    "one row": (lambda x, t: -x[:1], ScoreFnError, r"\(1, 4\)"),
    "one column": (lambda x, t: -x[:, :1], ScoreFnError, r"\(4, 1\)"),
    "complex": (lambda x, t: -x + 0j, ScoreFnError, "complex"),
    "integers": (lambda x, t: -x.long(), ScoreFnError, "int64"),
    "on meta": (lambda x, t: torch.empty(x.shape, device="meta"), ScoreFnError, "meta"),
    "in place": (inplace, ScoreFnError, "in place"),
    "raises": (raising, KeyError, "mine"),
    "no function": ("score", InvalidTypeError, "callable"),
    "of another process": (LAW.score(scoresde.VESDE()), InvalidArgumentError, "was made for"),
}


@by_entry
@pytest.mark.parametrize("case", SCORES)
def test_score_functions_that_are_none(entry: str, case: str) -> None:
    score_fn, kind, words = SCORES[case]
    before = X.clone()
    with pytest.raises(kind, match=words):
        ENTRIES[entry](X, score_fn=score_fn)
    assert torch.equal(X, before)


def test_a_wider_score_is_cast_with_one_warning() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        got = density(lambda x, t: -x.double(), X.float())
    assert [w.category for w in found] == [scoresde.ScoreSDEWarning] and got.latent.dtype == torch.float32
    torch.testing.assert_close(got.log_prob, density(lambda x, t: -x, X).log_prob, rtol=1e-4, atol=1e-4)


class Net(nn.Module):
    """A network with a part that knows training from evaluation, and a gradient that others wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.0), nn.SiLU(), nn.Linear(8, 4)).double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return -x + 0.01 * self.lines(x)


@by_entry
@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(entry: str, training: bool) -> None:
    net = Net().train(training)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    net.lines[0].requires_grad_(False)
    weights = [p.clone() for p in net.parameters()]
    ENTRIES[entry](X, score_fn=net)
    assert all(m.training == training for m in net.modules())
    assert [p.requires_grad for p in net.parameters()] == [False, False, True, True]
    assert all(torch.equal(a, b) and bool((b.grad == 1).all()) for a, b in zip(weights, net.parameters(), strict=True))


@pytest.mark.parametrize("call", [density, decoder])
def test_inference_mode(call: Any) -> None:
    with torch.inference_mode(), pytest.raises(InvalidArgumentError, match="inference_mode"):
        call()
    with torch.inference_mode():
        given = X.clone()
    assert torch.equal(call(x=given).log_prob, call().log_prob)  # of tensors from there


@by_entry
def test_gradient_modes_are_put_back(entry: str) -> None:
    for mode in (True, False):
        with torch.set_grad_enabled(mode):
            ENTRIES[entry](X)
            assert torch.is_grad_enabled() == mode
            with pytest.raises(KeyError):
                ENTRIES[entry](X, score_fn=raising)
            assert torch.is_grad_enabled() == mode


@by_entry
def test_the_global_generator_is_left_alone(entry: str) -> None:
    state = torch.get_rng_state()
    ENTRIES[entry](X)
    assert torch.equal(torch.get_rng_state(), state)


# --- arguments --------------------------------------------------------------------------------------------------------

LABELLED = Rowwise(lambda x, t, label=None: -x)
HUTCH: dict[str, Any] = {"divergence": "hutchinson"}
ARGUMENTS: dict[str, tuple[dict[str, Any], type[ScoreSDEError], str]] = {
    "a context it does not take": ({"context": {"label": torch.zeros(4)}}, InvalidArgumentError, "label"),
    "no mapping": ({"context": [1]}, InvalidTypeError, "mapping"),
    "a context of another batch": ({"context": {"label": torch.zeros(3)}}, InvalidArgumentError, r"\(4, …\)"),
    "a context that is no tensor": ({"context": {"label": 3}}, InvalidArgumentError, "int"),
    "no probes": ({**HUTCH, "probes": 0}, InvalidArgumentError, "at least 1"),
    "no probes of an exact trace": ({"probes": 0}, InvalidArgumentError, "at least 1"),
    "negative probes": ({**HUTCH, "probes": -1}, InvalidArgumentError, "at least 1"),
    "half a probe": ({**HUTCH, "probes": 1.5}, InvalidTypeError, "integer"),
    "true probes": ({**HUTCH, "probes": True}, InvalidTypeError, "integer"),
    "probes in words": ({**HUTCH, "probes": "two"}, InvalidTypeError, "integer"),
    "a negative seed": ({"seed": -1}, InvalidArgumentError, "at least 0"),
    "a seed of 65 bits": ({"seed": 2**64}, InvalidArgumentError, "2\\*\\*64"),
    "half a seed": ({"seed": 0.5}, InvalidTypeError, "integer"),
    "a true seed": ({"seed": True}, InvalidTypeError, "integer"),
    "a seed in words": ({"seed": "7"}, InvalidTypeError, "integer"),
    "few seeds": ({"seed": None, "seeds": [1, 2]}, InvalidArgumentError, "4 samples, 2 seeds"),
    "seeds below 0": ({"seed": None, "seeds": [1, 2, 3, -4]}, InvalidArgumentError, r"seeds\[3\]"),
    "seeds with a point": ({"seed": None, "seeds": torch.ones(4)}, InvalidTypeError, r"seeds\[0\]"),
    "two sources": ({"seeds": [1, 2, 3, 4]}, InvalidArgumentError, "at most one"),
    "no generator": ({"seed": None, "generator": 3}, InvalidTypeError, "Generator"),
    "tolerances below the resolution": ({"rtol": 1e-16, "atol": 1e-16}, InvalidArgumentError, "resolution"),
    "no tolerance": ({"rtol": 0.0, "atol": 0.0}, InvalidArgumentError, "resolution"),
    "a negative tolerance": ({"rtol": -1e-3}, InvalidArgumentError, "rtol"),
    "a tolerance that is NaN": ({"atol": NAN}, InvalidArgumentError, "atol"),
    "an infinite tolerance": ({"atol": INF}, InvalidArgumentError, "atol"),
    "a tolerance in words": ({"rtol": "1e-3"}, InvalidTypeError, "rtol"),
    "no steps": ({"max_steps": 0}, InvalidArgumentError, "max_steps"),
    "half a step": ({"max_steps": 2.5}, InvalidTypeError, "max_steps"),
    "ends that are swapped": ({"t_start": 0.9, "t_end": 0.1}, InvalidArgumentError, "t_start"),
    "an end that is NaN": ({"t_start": NAN}, InvalidArgumentError, "t_start"),
    "an end outside": ({"t_start": 0.0}, InvalidArgumentError, "t_start"),
    "an end a sample": ({"t_start": torch.tensor([0.1, 0.2])}, InvalidTypeError, "t_start"),
    "an option": ({"stepsize": 0.1}, InvalidArgumentError, "stepsize"),
    "a method": ({"method": "adms"}, InvalidArgumentError, "did you mean 'adams'"),
    "a method that is a number": ({"method": 3}, InvalidTypeError, "method"),
    "no divergence": ({"divergence": None}, InvalidArgumentError, "divergence"),
    "no probe": ({"probe": None}, InvalidArgumentError, "probe"),
    "a check in words": ({"check": "no"}, InvalidTypeError, "check"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_of_a_likelihood(case: str) -> None:
    options, kind, words = ARGUMENTS[case]
    calls = []

    class Spy(Rowwise):
        def __call__(self, x: Tensor, t: Tensor, **context: Any) -> Any:
            calls.append(len(x))
            return super().__call__(x, t, **context)

    function = (lambda x, t, label=None: -x) if "of another" in case or "no tensor" in case else (lambda x, t: -x)
    spy = Spy(function)
    spy.accepts = lambda name: name == "label" and "does not take" not in case  # type: ignore[attr-defined]
    with pytest.raises(kind, match=words):
        density(spy, **options)
    assert calls == []


@pytest.mark.parametrize("seed", [0, 2**64 - 1, 2**63])
def test_exotic_seeds(seed: int) -> None:
    first, again = (density(seed=seed, **HUTCH).log_prob for _ in range(2))
    assert torch.equal(first, again) and first.isfinite().all()
    many = density(seed=None, seeds=[seed] * 4, **HUTCH).log_prob
    assert many.isfinite().all()


DISCRETE: dict[str, tuple[Any, dict[str, Any], type[ScoreSDEError], str]] = {
    "no tensor": ([[1, 2, 3, 4]], {}, InvalidTypeError, "grey values"),
    "truth values": (V > 3, {}, InvalidTypeError, "grey values"),
    "no batch": (V[0], {}, InvalidArgumentError, "rank 1"),
    "between": (V + 0.5, {}, InvalidArgumentError, "whole numbers"),
    "below": (V - 17, {}, InvalidArgumentError, "whole numbers 0 … 16"),
    "above": (V + 17, {}, InvalidArgumentError, "whole numbers 0 … 16"),
    "NaN": (V * NAN, {}, InvalidArgumentError, "whole numbers"),
    "meta": (V.to("meta"), {}, InvalidTypeError, "dense"),
    "sparse": (V.to_sparse(), {}, InvalidTypeError, "dense"),
    "no draws": (V, {"draws": 0}, InvalidArgumentError, "draws"),
    "half a draw": (V, {"draws": 1.5}, InvalidTypeError, "draws"),
    "importance in words": (V, {"importance": "yes"}, InvalidTypeError, "importance"),
    "importance with noise": (V, {"importance": True, **HUTCH}, InvalidArgumentError, "divergence='exact'"),
    "two sources": (V, {"generator": torch.Generator()}, InvalidArgumentError, "both"),
    "no generator": (V, {"seed": None, "generator": 3}, InvalidTypeError, "Generator"),
    "a seed": (V, {"seed": -1}, InvalidArgumentError, "seed"),
    "seeds": (V, {"seeds": [1, 2, 3]}, InvalidArgumentError, "seeds"),
    "a graph": (V, {"differentiable": True}, InvalidArgumentError, "differentiable"),
    "an option": (V, {"drws": 3}, InvalidArgumentError, "drws"),
}


@pytest.mark.parametrize("case", DISCRETE)
def test_arguments_of_bounds_of_grey_values(case: str) -> None:
    v, options, kind, words = DISCRETE[case]
    for call in (discrete, lambda v, **o: decoder(v, levels=17, **o)):
        with pytest.raises(kind, match=words):
            call(v, **options)


def test_dequantisers_that_are_none() -> None:
    def sampler(result: Any) -> Any:
        return type("Q", (), {"levels": 17, "sample": lambda self, v, **options: result})()

    nan = V.double() / 17, torch.full((3,), NAN)
    for q, kind, words in (
        (3, InvalidTypeError, "UniformDequantizer"),
        (sampler(3), InvalidTypeError, "log_q"),
        (sampler((V.double(), torch.zeros(()))), InvalidTypeError, "log_q"),
        (sampler((V[:1].double(), torch.zeros(3))), InvalidTypeError, "log_q"),
        (sampler(nan), NonFiniteError, "log_q"),
    ):
        with pytest.raises(kind, match=words):
            discrete(dequantizer=q)
    make, learned = scoresde.TruncatedNormalDequantizer, scoresde.VariationalDequantizer
    broken = learned((4,), levels=17)
    with torch.no_grad():
        next(broken.parameters()).fill_(NAN)
    for call, kind, words in (
        (lambda: make(None), InvalidArgumentError, "sde"),
        (lambda: make(SDE, t=5.0), InvalidArgumentError, "`t`"),
        (lambda: make(SDE, t="a"), InvalidTypeError, "`t`"),
        (lambda: make(SDE, levels=1), InvalidArgumentError, "levels"),
        (lambda: make(scoresde.FlowSDE(t_max=1.0), t=1.0), InvalidArgumentError, "alpha"),
        (lambda: learned("ab"), InvalidTypeError, "event_shape"),
        (lambda: learned((0,)), InvalidArgumentError, "event_shape"),
        (lambda: learned((4,), net=3), InvalidTypeError, "net"),
        (lambda: learned((4,), hidden=0), InvalidArgumentError, "hidden"),
        (lambda: learned((5,), levels=17).sample(V), InvalidArgumentError, "events of shape"),
        (lambda: learned((4,), levels=17, net=nn.Linear(4, 8)).sample(V), ScoreFnError, "log-scale"),
        (lambda: broken.sample(V), NonFiniteError, "dequantiser"),
        (lambda: scoresde.UniformDequantizer(17).sample(V, generator="a"), InvalidTypeError, "generator"),
        (lambda: scoresde.UniformDequantizer(17).sample(V, dtype=torch.float16), InvalidTypeError, "dtype"),
        (lambda: scoresde.UniformDequantizer(17, (1.0, 1.0)), InvalidArgumentError, "data_range"),
    ):
        with pytest.raises(kind, match=words):
            call()


def test_bits_of_what_is_no_density() -> None:
    with pytest.raises(InvalidArgumentError, match="grey values"):
        _ = decoder().bits_per_dim
    for value, kind in (([1.0], InvalidTypeError), (None, InvalidTypeError), (torch.ones(1) + 0j, InvalidTypeError)):
        with pytest.raises(kind, match="log_prob"):
            bits_per_dim(value, (2,))  # type: ignore[arg-type]
    assert float(bits_per_dim(-3.5, (2,))) == pytest.approx(3.5 / (2 * math.log(2)) + 7)
    failed = torch.tensor([NAN, 0.0])
    with pytest.raises(NonFiniteError, match="`log_prob` has 1 NaN or infinite values of 2"):
        bits_per_dim(failed, (2,))
    assert bits_per_dim(failed, (2,), throw=False).isnan().tolist() == [True, False]


def test_grey_values_keep_their_owner() -> None:
    v = V.float().requires_grad_(True)
    assert not dequantize(v, levels=17).requires_grad and v.requires_grad
    assert dequantize(V.half(), levels=17, dtype=F64).dtype == F64 and dequantize(V[:0], levels=17).shape == (0, 4)
    for given in (V.to("meta"), V.to_sparse()):
        with pytest.raises(InvalidTypeError, match="dense"):
            dequantize(given, levels=17)


LATENTS: dict[str, tuple[Callable[[], Any], type[ScoreSDEError], str]] = {
    "encode: no process": (lambda: encode(None, SCORE, X), InvalidTypeError, "sde"),  # type: ignore[arg-type]
    "encode: a time in words": (lambda: encode(SDE, SCORE, X, t_start="a"), InvalidTypeError, "t_start"),
    "encode: a time that is NaN": (lambda: encode(SDE, SCORE, X, t_end=NAN), InvalidArgumentError, "t_end"),
    "encode: an option": (lambda: encode(SDE, SCORE, X, foo=1), InvalidArgumentError, "foo"),
    "encode: few steps": (lambda: encode(SDE, SCORE, X, max_steps=2), MaxStepsError, "max_steps"),
    "decode: no process": (lambda: decode(None, SCORE, X), InvalidTypeError, "sde"),  # type: ignore[arg-type]
    "decode: a time in words": (lambda: decode(SDE, SCORE, X, t_end="b"), InvalidTypeError, "t_end"),
    "decode: a method": (lambda: decode(SDE, SCORE, X, method="foo"), InvalidArgumentError, "method"),
    "decode: NaN": (lambda: decode(SDE, SCORE, X, temperature=NAN), InvalidArgumentError, "temperature"),
    "decode: words": (lambda: decode(SDE, SCORE, X, temperature="a"), InvalidTypeError, "temperature"),  # type: ignore[arg-type]
    "interpolate: NaN": (lambda: interpolate(X * NAN, X, [0.5]), NonFiniteError, "NaN"),  # type: ignore[arg-type]
    "interpolate: infinite": (lambda: interpolate(X, X * INF, [0.5]), NonFiniteError, "NaN"),  # type: ignore[arg-type]
    "interpolate: integers": (lambda: interpolate(V, V, torch.ones(1)), InvalidTypeError, "`a`"),
    "interpolate: a number": (lambda: interpolate(X, X, 0.5), InvalidArgumentError, "weights"),  # type: ignore[arg-type]
    "interpolate: words": (lambda: interpolate(X, X, "a"), InvalidTypeError, "weights"),  # type: ignore[arg-type]
    "interpolate: no mode": (lambda: interpolate(X, X, torch.ones(1), mode=None), InvalidArgumentError, "mode"),  # type: ignore[arg-type]
    "reconstruct: no process": (lambda: reconstruct(None, SCORE, X), InvalidTypeError, "sde"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", LATENTS)
def test_arguments_of_latents(case: str) -> None:
    call, kind, words = LATENTS[case]
    with pytest.raises(kind, match=words):
        call()


def test_times_of_latents_may_be_none_and_empty_batches_go_through() -> None:
    assert torch.equal(encode(SDE, SCORE, X, t_start=None, t_end=None).x, encode(SDE, SCORE, X).x)
    assert torch.equal(decode(SDE, SCORE, X, t_start=None).x, decode(SDE, SCORE, X).x)
    assert interpolate(X[:0], X[:0], torch.ones(2)).shape == (2, 0, 4)
    assert decode(SDE, SCORE, X[:0], temperature=0.5).x.shape == (0, 4)


# --- anything ---------------------------------------------------------------------------------------------------------

GARBAGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.floats(), max_size=3),
    st.sampled_from([X, X[:1], V, torch.tensor(0.5), torch.zeros(0), object(), dict, {"a": 1}, complex(1, 2), b"x"]),
)
NAMES = [
    "divergence", "probes", "probe", "control", "method", "rtol", "atol", "t_start", "t_end", "prior", "solver_error",
    "context", "seed", "seeds", "generator", "max_steps", "throw", "differentiable", "check", "max_order",
]  # fmt: skip


@QUIET
@pytest.mark.parametrize("name", NAMES)
@hypothesis.given(value=GARBAGE)
@hypothesis.settings(max_examples=15, suppress_health_check=[hypothesis.HealthCheck.too_slow])
def test_any_garbage_is_refused_in_words_or_works(name: str, value: Any) -> None:
    options: dict[str, Any] = {"seed": None} if name in ("seeds", "generator") else {}
    if name in ("probes", "max_steps") and isinstance(value, int) and value > 3:
        value = 3  # so many would be meant
    try:
        got = density(Rowwise(elementwise), X[:2], **{"rtol": 1e-2, "atol": 1e-2, **options, name: value})
    except ScoreSDEError:
        return
    assert bool((got.log_prob.isfinite() | ~got.success).all())
