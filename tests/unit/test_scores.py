"""Score functions as objects: traits, the adapter for bare callables, wrappers, and a score function of one's own."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import Estimate, Node, guidance
from scoresde.scores import Clip, Score, Split, Traits, Wrapper, as_score
from scoresde.scores.base import estimate_of

VP = scoresde.VPSDE()
F64 = torch.float64


class Standard(Score):
    """Of data N(0, I), on a variance-preserving process; it takes a shift of the score."""

    traits = Traits(sde=VP, event_shape=(2,), rowwise=True, noise_limit=True)

    def estimate(self, x: Tensor, node: Node, **context: Any) -> Estimate:
        alpha, sigma = (v if isinstance(v, float) else v[:, None].to(x.dtype) for v in (node.alpha, node.sigma))
        shift = context.get("shift", torch.zeros(len(x), dtype=x.dtype, device=x.device))[:, None]
        return Estimate(data=alpha * x, noise=sigma * x + 0 * shift)

    def accepts(self, name: str) -> bool:
        return name == "shift"


class Duck:
    """The same by its attributes, without a base class."""

    sde, event_shape, rowwise, has_noise_limit = VP, (2,), True, True

    def estimate(self, x: Tensor, node: Node) -> Estimate:
        return Standard().estimate(x, node)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("a solver takes the estimate")


def states(n: int = 5) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=F64)


def test_everything_follows_from_the_estimate() -> None:
    """The score of N(0, I) is -x, whatever the time, and the other predictions are what their formulas say."""
    score, x, t = Standard(), states(), 0.3
    node = VP.node(t)
    assert torch.allclose(score(x, t), -x) and score(x.half(), t).dtype == torch.float16
    assert torch.allclose(score.noise(x, t), node.sigma * x) and torch.allclose(score.data(x, t), node.alpha * x)
    assert torch.allclose(score.v(x, t), torch.zeros_like(x), atol=1e-15)
    assert torch.allclose(score.flow(x, t), (node.dalpha * node.alpha + node.dsigma * node.sigma) * x)
    assert torch.equal(score.score(x, node), score(x, t))
    assert (score.sde, score.event_shape, score.rowwise) == (VP, (2,), True)
    assert score.has_noise_limit and not score.has_variance


def test_a_score_of_ones_own_is_solved_as_any_other() -> None:
    """By its estimates, without a shape, and with the context that it accepts; bitwise the duck's result."""
    for method in ("pc", "ddim", "unipc", "adams", "dpmpp_2m_sde"):
        given = {"method": method, "seeds": range(3), "dtype": F64, **({} if method == "adams" else {"steps": 6})}
        own, duck = (scoresde.solve(VP, score, **given).x for score in (Standard(), Duck()))
        assert own.shape == (3, 2) and torch.equal(own, duck), method
        shifted = scoresde.solve(VP, Standard(), context={"shift": torch.ones(3, dtype=F64)}, **given).x
        assert torch.equal(shifted, own), method
        with pytest.raises(scoresde.InvalidArgumentError, match="other"):
            scoresde.solve(VP, Standard(), context={"other": torch.ones(3)}, **given)


def test_a_bare_callable_is_read_once() -> None:
    def score_fn(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return -x

    score_fn.rowwise, score_fn.event_shape = True, [2]  # type: ignore[attr-defined]
    score = as_score(score_fn)
    assert score.traits == Traits(event_shape=(2,), rowwise=True) and score.only_scores
    assert score.accepts("label") and not score.accepts("other")
    assert as_score(score) is score
    again = as_score(score_fn)
    assert again is not score and again.same_network(score) and not again.same_network(Standard())
    score_fn.rowwise = False  # type: ignore[attr-defined]
    assert score.rowwise and not as_score(score_fn).same_network(as_score(score_fn))
    with pytest.raises(scoresde.InvalidArgumentError, match="does not declare its process"):
        score.data(states(), 0.5)
    with pytest.raises(scoresde.InvalidTypeError, match=r"`score_fn`.*\.score\(sde\)"):
        as_score(scoresde.targets.Gaussian(torch.zeros(2), 1.0))  # type: ignore[arg-type]


def test_the_estimate_of_a_score() -> None:
    x, node = states(), VP.node(0.4)
    estimate = estimate_of(-x, x, node)
    assert torch.allclose(node.alpha * estimate.data + node.sigma * estimate.noise, x)
    assert torch.allclose(estimate.noise, node.sigma * x)


def test_traits_are_merged() -> None:
    first = Traits(sde=VP, event_shape=(2,), rowwise=True, noise_limit=True, variance=True, shift=True, twist=False)
    assert Traits.merged([first, Traits()]) == Traits(sde=VP, event_shape=(2,), variance=True)
    both = Traits.merged([first, first])
    assert both.rowwise and both.noise_limit and not both.shift and both.twist
    assert not Traits.merged([Traits(variance=True)]).variance  # without a process there are scores only
    assert Traits.merged([Traits()], VP).sde is VP
    assert Traits.merged([Traits(data_std=2.0), Traits(data_std=3.0)]).data_std == 2.0
    with pytest.raises(scoresde.InvalidArgumentError, match="different shapes"):
        Traits.merged([first, Traits(event_shape=(3,))])
    with pytest.raises(scoresde.InvalidArgumentError, match="were made for"):
        Traits.merged([first, Traits(sde=scoresde.FlowSDE())])
    with pytest.raises(scoresde.InvalidArgumentError, match="leave `sde` out"):
        Traits.merged([first], scoresde.FlowSDE())


def test_a_wrapper_of_ones_own() -> None:
    """It inherits what it wraps; where no part knows the process, it gives scores."""

    class Halved(Wrapper):
        needs_process = False

        def estimate(self, x: Tensor, node: Node, **context: Any) -> Estimate:
            given = self.ask(self.score_fns[0], x, node, context)
            return given._replace(noise=0.5 * given.noise)

    x = states()
    known, bare = Halved([Standard()]), Halved([lambda x, t: -x])
    assert known.traits == Standard.traits and known.accepts("shift") and not known.only_scores
    assert bare.only_scores and bare.sde is None and not hasattr(bare, "event_shape")
    assert torch.allclose(known(x, 0.3), -0.5 * x) and torch.allclose(bare(x, 0.3), -0.5 * x)
    nested = Clip(Halved([lambda x, t: -x]), -100, 100, sde=VP)
    assert torch.allclose(nested(x, 0.3), -0.5 * x)
    with pytest.raises(scoresde.InvalidArgumentError, match="`sde` is missing"):
        Clip(lambda x, t: -x)
    with pytest.raises(scoresde.ScoreFnError, match="must return a tensor of shape"):
        Clip(lambda x, t: x[:1], sde=VP)(x, 0.3)


def test_labels_that_are_bound_are_known() -> None:
    net = lambda x, t, label: -x * label[:, None].to(x.dtype)  # noqa: E731
    model = scoresde.ScoreModel(net, VP, "score", context={"label": 2})
    assert model.bound_names == {"label"} and Clip(model).bound_names == {"label"}
    labelled = guidance.conditional(scoresde.ScoreModel(net, VP, "score"), label=3)
    root, context = labelled.unbound({"other": 1})
    assert isinstance(root, scoresde.ScoreModel) and context == {"other": 1, "label": 3}
    assert model.unbound({"label": 5})[1] == {"label": 5}  # what a call gives comes before what is bound


def test_what_guides_is_separable_in_guidance_only() -> None:
    log_prob = lambda x, t: -0.5 * x.square().sum(1)  # noqa: E731
    guided = guidance.classifier_guidance(Standard(), log_prob)
    assert guided.traits.shift and guided.traits.twist and not Clip(guided).traits.shift
    x, node = states(), VP.node(0.3)
    split = guided.twisted(x, node)
    assert isinstance(split, Split) and split.shift is not None and torch.allclose(split.shift, -x)
    assert Standard().twisted(x, node).shift is None
    limited = guidance.classifier_guidance(Standard(), log_prob, interval=(-2.0, 2.0))
    assert not limited.traits.twist
    assert not guidance.classifier_guidance(lambda x, t: -x, log_prob).traits.shift  # no process, no estimates


def test_who_knows_the_scale_of_the_data() -> None:
    class Declared:
        data_std: Any = 0.01

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            return -x

    declared = Declared()
    assert as_score(declared).traits.data_std == 0.01 and as_score(lambda x, t: -x).traits.data_std is None
    declared.data_std = -1.0
    assert as_score(declared).traits.data_std is None
    model = scoresde.ScoreModel(lambda x, t: x, VP, "edm", sigma_data=0.7)
    assert model.data_std == model.on(VP).data_std == Clip(model, -1.0, 1.0).traits.data_std == 0.7
    other = scoresde.ScoreModel(lambda x, t: x, VP, "noise")
    assert other.data_std is None
    other.data_std = 3.0
    assert other.data_std == other.traits.data_std == 3.0
    with pytest.raises(scoresde.InvalidArgumentError, match="`data_std`"):
        other.data_std = 0.0


@pytest.mark.parametrize(
    ("dtype", "rtol", "named"),
    [
        (torch.bfloat16, 1e-3, True),
        (torch.bfloat16, 1e-2, False),
        (torch.float32, 1e-8, True),
        (torch.float32, 1e-6, False),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_tolerances_below_the_resolution_of_a_network_are_named(
    dtype: torch.dtype, rtol: float, named: bool, wrapped: bool
) -> None:
    sde, net = scoresde.VPSDE(), torch.nn.Linear(2, 2).to(dtype)
    net.weight.data = torch.eye(2, dtype=dtype)
    net.forward = lambda x, t: torch.nn.functional.linear(x, net.weight, net.bias)  # type: ignore[method-assign]
    score = scoresde.ScoreModel(net, sde, "noise", event_shape=(2,))
    how = {"shape": (2, 2), "seed": 0, "method": "adams", "rtol": rtol, "atol": rtol, "dtype": torch.float64}
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        scoresde.solve(sde, Clip(score, -9.0, 9.0) if wrapped else score, throw=False, max_steps=3, **how)
    assert [f"network in {dtype}" in str(w.message) for w in found] == [True] * named
