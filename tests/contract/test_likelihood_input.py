"""Bad input of densities, bounds and latents: what is refused, in which words, and what it must not do to the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde import Status, bits_per_dim, decode, dequantize, encode, interpolate, log_likelihood, reconstruct, targets
from scoresde.core.errors import NonFiniteError, ScoreFnError, ScoreSDEError

pytestmark = pytest.mark.timeout(20)  # a hang is a failure

F64 = torch.float64
NAN, INF = math.nan, math.inf
V, T = scoresde.InvalidArgumentError, scoresde.InvalidTypeError
SDE = scoresde.VPSDE()
LAW = targets.Gaussian(torch.zeros(4, dtype=F64), 0.3)
SCORE = LAW.score(SDE)
X = LAW.sample(4, generator=torch.Generator().manual_seed(0)).to(F64)
GREY = torch.randint(0, 17, (3, 4), generator=torch.Generator().manual_seed(0))
LOOSE: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2}


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


def discrete(v: Any = GREY, score_fn: Any = SCORE, **options: Any) -> Any:
    given = {"dequantizer": scoresde.UniformDequantizer(17), "divergence": "exact", "dtype": F64, "seed": 0}
    return scoresde.discrete_log_likelihood(SDE, score_fn, v, **{**given, **options})


def decoder(x: Any = X, score_fn: Any = SCORE, **options: Any) -> Any:
    return scoresde.decoder_bound(SDE, score_fn, x, **{"divergence": "exact", "seed": 0, **options})


def bound(x: Any = X, score_fn: Any = SCORE, **options: Any) -> Any:
    return scoresde.variational_bound(SDE, score_fn, x, **{"draws": 2, "seed": 0, **options})


ENTRIES: dict[str, Callable[..., Any]] = {
    "log_likelihood": lambda x, score_fn=SCORE: density(score_fn, x, **LOOSE),
    "decoder_bound": lambda x, score_fn=SCORE: decoder(x, score_fn, **LOOSE),
    "variational_bound": bound,
    "encode": lambda x, score_fn=SCORE: encode(SDE, score_fn, x, **LOOSE),
    "decode": lambda x, score_fn=SCORE: decode(SDE, score_fn, x, **LOOSE),
    "reconstruct": lambda x, score_fn=SCORE: reconstruct(SDE, score_fn, x, **LOOSE),
}
by_entry = pytest.mark.parametrize("entry", ENTRIES)


def with_value(value: float) -> Tensor:
    x = X.clone()
    x[1, 2] = value
    return x


STATES: list[tuple[Any, type[ScoreSDEError], str]] = [
    (torch.tensor(1.0), V, "rank 1 or more"),
    (torch.ones(4), V, "reshape"),
    (torch.ones(2, 4, dtype=torch.long), T, "floating-point"),
    (torch.ones(2, 5), V, "events of shape"),
    (with_value(NAN), NonFiniteError, "NaN or infinite"),
]


def raising(x: Tensor, t: Tensor) -> Tensor:
    raise KeyError("mine")


SCORES: list[tuple[Any, type[Exception], str]] = [
    (lambda x, t: None, ScoreFnError, "NoneType"),
    (lambda x, t: -x[:1], ScoreFnError, r"\(1, 4\)"),
    (lambda x, t: -x + 0j, ScoreFnError, "complex"),
    (lambda x, t: -x.mul_(1.0), ScoreFnError, "in place"),
    (raising, KeyError, "mine"),
    ("score", T, "callable"),
    (LAW.score(scoresde.VESDE()), V, "was made for"),
]


@by_entry
def test_invalid_states_and_score_functions_are_refused(entry: str) -> None:
    """States before the first evaluation."""
    calls = []

    class Spy(type(SCORE)):  # type: ignore[misc]
        def estimate(self, x: Tensor, node: Any) -> Any:
            calls.append(len(x))
            return super().estimate(x, node)

    for x, kind, words in STATES:
        with pytest.raises(kind, match=words) as caught:
            ENTRIES[entry](x, score_fn=Spy(SCORE.denoise, SDE, (4,)))
        assert calls == []
        if kind is NonFiniteError and entry != "variational_bound":
            assert caught.value.indices == [1] and caught.value.stage == "input"
    before = X.clone()
    for score_fn, kind, words in SCORES:
        with pytest.raises(kind, match=words):
            ENTRIES[entry](X, score_fn=score_fn)
        assert torch.equal(X, before)


def test_densities_of_half_precision_are_refused() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        for call in (density, decoder):
            with pytest.raises(T, match=r"x\.float\(\)"):
                call(x=X.to(dtype))
        assert encode(SDE, SCORE, X.to(dtype), **LOOSE).x.dtype == dtype
        assert bound(X.to(dtype)).total.isfinite().all()


def test_an_empty_batch_is_an_empty_result() -> None:
    for call in ENTRIES.values():
        got = call(X[:0])
        values = [getattr(got, name, None) for name in ("log_prob", "total", "x")]
        assert {len(value) for value in values if value is not None} == {0}
    for divergence in ("exact", "hutchinson", "hutch++"):
        got = density(x=X[:0], divergence=divergence, probes=3)
        assert got.log_prob.shape == (0,) and got.interval()[0].shape == (0,) and got.latent.shape == (0, 4)
    assert discrete(GREY[:0]).log_prob.shape == (0,) and discrete(GREY[:0]).bits_per_dim.shape == (0,)
    assert decoder(GREY[:0], levels=17).log_prob.shape == (0,) and bound(GREY[:0], levels=17).total.shape == (0,)
    assert interpolate(X[:0], X[:0], torch.ones(2)).shape == (2, 0, 4)
    with pytest.raises(V):  # an empty event has no density
        density(elementwise, torch.zeros(2, 0))


class Net(nn.Module):
    """A network with a part that knows training from evaluation, and a gradient that others wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.0), nn.SiLU(), nn.Linear(8, 4)).double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return -x + 0.01 * self.lines(x)


LAYOUTS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.mT.contiguous().mT,
    lambda x: torch.stack([x, x * 0], 1).flatten(0, 1)[::2],
    lambda x: x.clone().requires_grad_(True),
    lambda x: x.clone().requires_grad_(True) * 1.0,
]


@by_entry
def test_layouts_change_nothing_and_everything_is_left_alone(entry: str) -> None:
    """The inputs, the network, the gradient mode and the global generator."""
    run, state = ENTRIES[entry], torch.get_rng_state()
    want = run(X, score_fn=Rowwise(elementwise))
    for layout in LAYOUTS:
        x = layout(X)
        before, needs, strides = x.detach().clone(), x.requires_grad, x.stride()
        got = run(x, score_fn=Rowwise(elementwise))
        for name in ("log_prob", "total", "x"):
            if getattr(got, name, None) is not None:
                assert torch.equal(getattr(got, name), getattr(want, name)) and not getattr(got, name).requires_grad
        assert torch.equal(x.detach(), before) and x.requires_grad == needs and x.stride() == strides
        assert not x.is_leaf or x.grad is None
    for training in (True, False):
        net = Net().train(training)
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        net.lines[0].requires_grad_(False)
        weights = [p.clone() for p in net.parameters()]
        state = torch.get_rng_state()
        run(X, score_fn=net)
        assert all(m.training == training for m in net.modules())
        assert [p.requires_grad for p in net.parameters()] == [False, False, True, True]
        pairs = zip(weights, net.parameters(), strict=True)
        assert all(torch.equal(a, b) and bool((b.grad == 1).all()) for a, b in pairs)
        with torch.set_grad_enabled(training):
            run(X)
            assert torch.is_grad_enabled() == training
            with pytest.raises(KeyError):
                run(X, score_fn=raising)
            assert torch.is_grad_enabled() == training
        assert torch.equal(torch.get_rng_state(), state)


def test_inference_mode() -> None:
    for call in (density, decoder):
        with torch.inference_mode(), pytest.raises(V, match="inference_mode"):
            call()
        with torch.inference_mode():
            given = X.clone()
        assert torch.equal(call(x=given, **LOOSE).log_prob, call(**LOOSE).log_prob)  # of tensors from there


@pytest.mark.filterwarnings("ignore::scoresde.ScoreSDEWarning")
def test_very_small_and_very_large_values() -> None:
    """The log-density of the Gaussian, whatever the size; and a huge sample does not harm the others."""
    for size in (1e-300, 1e-30, 1e30, 1e150):
        exact = LAW.log_prob(X * size, SDE, SDE.t_min)
        torch.testing.assert_close(density(x=X * size).log_prob, exact, rtol=1e-4, atol=1e-2)
    got = density(Rowwise(elementwise), torch.cat([X, 1e150 * X[:1]]), throw=False, **LOOSE)
    assert torch.equal(got.log_prob[:4], density(Rowwise(elementwise), X, **LOOSE).log_prob)
    assert bool(got.log_prob[4] < -1e290) or not bool(got.success[4])


DIVERGENCES = [("exact", 1), ("hutchinson", 2), ("hutch++", 3)]


@pytest.mark.parametrize(
    "options", [*({"divergence": d, "probes": n} for d, n in DIVERGENCES), {"method": "rk45"}], ids=str
)
def test_healthy_samples_are_the_same_to_the_last_bit(options: dict[str, Any]) -> None:
    """Whether a state is not finite, or the score is NaN midway."""
    x = torch.cat([X[:1], torch.full((1, 4), 0.1, dtype=F64), X[1:]])
    given: dict[str, Any] = {"seed": None, "seeds": range(5), **LOOSE, **options}
    healthy, whole = [0, 2, 3, 4], density(Rowwise(elementwise), x, **given)
    for value in (NAN, INF):
        sick = x.clone()
        sick[1, 3] = value
        got = density(Rowwise(elementwise), sick, throw=False, **given)
        assert got.success.tolist() == [True, False, True, True, True] and got.status[1] == Status.NON_FINITE
        for name in ("log_prob", "std_error", "latent", "prior_log_prob", "paths"):
            assert bool(getattr(got, name)[1].isnan().all())
            values = (getattr(result, name)[healthy].nan_to_num(-7.0) for result in (got, whole))
            assert torch.equal(*values), name  # one path has no spread
        assert torch.equal(got.nfe[healthy], whole.nfe[healthy])

    def midway(x: Tensor, t: Tensor) -> Tensor:
        out = elementwise(x, t)
        return torch.where((x[:, :1] > 1.5) & (t[:, None] > 0.4), torch.full_like(out, NAN), out)

    x = torch.cat([0.3 * X, torch.full((1, 4), 3.0, dtype=F64)])
    for wrap in (Rowwise, lambda function: function):
        with pytest.raises(NonFiniteError, match="1 of 5") as caught:
            density(wrap(midway), x, **given)
        assert caught.value.stage == "score" and caught.value.indices == [4] and caught.value.partial is not None
        got = density(wrap(midway), x, throw=False, **given)
        good = density(wrap(elementwise), x, **given)
        assert got.success.tolist() == [True] * 4 + [False] and got.status[4] == Status.NON_FINITE
        assert torch.equal(got.log_prob[:4], good.log_prob[:4]) and bool(got.log_prob[4].isnan())


def test_an_infinite_gradient_of_a_finite_score() -> None:
    def score(x: Tensor, t: Tensor) -> Tensor:
        kink = torch.sqrt(torch.relu(x) - torch.relu(x).detach())  # 0, with an infinite slope where x > 0
        return -x + kink

    got = density(score, torch.tensor([[-1.0], [1.0]], dtype=F64), throw=False, **LOOSE)
    assert got.success.tolist() == [True, False] and got.log_prob.isnan().tolist() == [False, True]


class Prior:
    def __init__(self, value: float) -> None:
        self.value = value

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, x.new_tensor(self.value), x.new_tensor(0.0))


def test_a_prior_that_is_nan_is_told_and_one_that_is_zero_is_not() -> None:
    latent = density(**LOOSE).latent[:, 0] > 0
    assert 0 < int(latent.sum()) < 4
    with pytest.raises(NonFiniteError, match="prior") as caught:
        density(prior=Prior(NAN), **LOOSE)
    assert caught.value.stage == "logp" and caught.value.indices == latent.nonzero()[:, 0].tolist()
    got = density(prior=Prior(NAN), throw=False, **LOOSE)
    assert torch.equal(got.log_prob.isnan(), latent) and torch.equal(got.success, ~latent)
    assert torch.equal(got.latent.isnan().all(1), latent)
    outside = density(prior=Prior(-INF), **LOOSE)  # a distribution with an end
    assert torch.equal(outside.log_prob == -INF, latent) and bool(outside.success.all())


def test_the_steps_run_out() -> None:
    with pytest.raises(scoresde.MaxStepsError, match="max_steps=2") as caught:
        density(max_steps=2)
    partial = caught.value.partial
    assert partial is not None and partial.x.isnan().all() and partial.status.tolist() == [Status.MAX_STEPS] * 4
    got = density(max_steps=2, throw=False)
    assert got.log_prob.isnan().all() and got.status.tolist() == [Status.MAX_STEPS] * 4


HUTCH: dict[str, Any] = {"divergence": "hutchinson"}
# Error, what the message matches, and options of which each is refused so.
ARGUMENTS: list[tuple[type[ScoreSDEError], str, list[dict[str, Any]]]] = [
    (T, "mapping", [{"context": [1]}]),
    (V, r"\(4, …\)", [{"context": {"label": torch.zeros(3)}}]),
    (V, "at least 1", [{**HUTCH, "probes": 0}, {"probes": 0}]),
    (T, "integer", [{**HUTCH, "probes": 1.5}]),
    (V, "multiple of 3", [{"divergence": "hutch++", "probes": 4}]),
    (V, "resolution", [{"rtol": 1e-16, "atol": 1e-16}, {"rtol": 0.0, "atol": 0.0}]),
    (V, "atol", [{"atol": NAN}, {"atol": INF}]),
    (V, "t_start", [{"t_start": 0.9, "t_end": 0.1}, {"t_start": NAN}, {"t_start": 0.0}]),
    (V, "stepsize", [{"stepsize": 0.1}]),
    (V, "max_order", [{"max_order": 99}]),
    (V, "did you mean 'adams'", [{"method": "adms"}]),
    (V, "adams", [{"method": "pc"}, {"method": "ddim"}]),
    (V, "divergence", [{"divergence": None}, {"divergence": "hutch"}]),
    (V, "control", [{"control": targets.Gaussian(torch.zeros(3), 1.0)}]),
    (V, "adjoint", [{"differentiable": "no"}]),
    (V, "`prior` is missing", [{"t_end": 0.5}]),
    (T, "log_prob", [{"prior": 3}, {"prior": "normal"}]),
    *((T, flag, [{flag: 3}, {flag: X}]) for flag in ("throw", "solver_error", "differentiable", "check")),
]


def test_invalid_arguments_of_a_likelihood_are_refused_before_the_first_evaluation() -> None:
    calls = []

    def score(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        calls.append(len(x))
        return -x

    for kind, words, several in ARGUMENTS:
        for options in several:
            with pytest.raises(kind, match=words):
                density(score, **options)
    with pytest.raises(V, match="lable"):  # a context that it does not take
        density(lambda x, t: score(x, t), context={"lable": torch.zeros(4)})
    assert calls == []


DISCRETE: list[tuple[Any, dict[str, Any], type[ScoreSDEError], str]] = [
    (GREY > 3, {}, T, "grey values"),
    (GREY + 0.5, {}, V, "whole numbers"),
    (GREY + 17, {}, V, "whole numbers 0 … 16"),
    (GREY, {"draws": 0}, V, "draws"),
    (GREY, {"importance": True, **HUTCH}, V, "divergence='exact'"),
    (GREY, {"differentiable": True}, V, "differentiable"),
]


def test_invalid_arguments_of_bounds_of_grey_values_are_refused() -> None:
    for v, options, kind, words in DISCRETE:
        for call in (discrete, lambda v, **o: decoder(v, levels=17, **o)):
            with pytest.raises(kind, match=words):
                call(v, **options)


def test_invalid_dequantisers_are_refused() -> None:
    def sampler(result: Any) -> Any:
        return type("Q", (), {"levels": 17, "sample": lambda self, v, **options: result})()

    nan = GREY.double() / 17, torch.full((3,), NAN)
    make, learned = scoresde.TruncatedNormalDequantizer, scoresde.VariationalDequantizer
    broken = learned((4,), levels=17)
    with torch.no_grad():
        next(broken.parameters()).fill_(NAN)
    cases: list[tuple[Callable[[], Any], type[ScoreSDEError], str]] = [
        (lambda: discrete(dequantizer=3), T, "UniformDequantizer"),
        (lambda: discrete(dequantizer=sampler((GREY.double(), torch.zeros(())))), T, "log_q"),
        (lambda: discrete(dequantizer=sampler(nan)), NonFiniteError, "log_q"),
        (lambda: make(SDE, t=5.0), V, "`t`"),
        (lambda: make(scoresde.FlowSDE(t_max=1.0), t=1.0), V, "alpha"),
        (lambda: learned((5,), levels=17).sample(GREY), V, "events of shape"),
        (lambda: learned((4,), levels=17, net=nn.Linear(4, 8)).sample(GREY), ScoreFnError, "log-scale"),
        (lambda: broken.sample(GREY), NonFiniteError, "dequantiser"),
        (lambda: decoder(**LOOSE).bits_per_dim, V, "grey values"),
        (lambda: bits_per_dim(torch.tensor([NAN, 0.0]), (2,)), NonFiniteError, "`log_prob` has 1 NaN or infinite"),
        (lambda: bits_per_dim(torch.zeros(1), (2,), data_range=(1.0, -1.0)), V, "data_range"),
        *((lambda v=v: dequantize(torch.tensor([v])), V, "whole numbers") for v in (-1.0, 256.0, 0.5, NAN)),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words):
            call()
    assert bits_per_dim(torch.tensor([NAN, 0.0]), (2,), throw=False).isnan().tolist() == [True, False]
    assert float(bits_per_dim(-3.5, (2,))) == pytest.approx(3.5 / (2 * math.log(2)) + 7)


LATENTS: list[tuple[Callable[[], Any], type[ScoreSDEError], str]] = [
    *((lambda f=f: f(None, SCORE, X), T, "sde") for f in (encode, decode, reconstruct)),
    (lambda: encode(SDE, SCORE, X, foo=1), V, "foo"),
    (lambda: encode(SDE, SCORE, X, max_steps=2), scoresde.MaxStepsError, "max_steps"),
    (lambda: interpolate(X * NAN, X, [0.5]), NonFiniteError, "NaN"),  # type: ignore[arg-type]
    (lambda: interpolate(GREY, GREY, torch.ones(1)), T, "`a`"),
]


def test_invalid_arguments_of_latents_are_refused() -> None:
    for call, kind, words in LATENTS:
        with pytest.raises(kind, match=words):
            call()
