"""Guidance: what it computes, whom it asks, what it refuses."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import guidance, targets
from scoresde.scores import Clip, ScoreModel
from tests.unit.refusals import assert_refused

F64 = torch.float64
SDE = scoresde.VPSDE()
PAIR = targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=F64), scales=0.5)
LEFT, RIGHT = (targets.Gaussian(PAIR.means[k], 0.25) for k in (0, 1))


def right(x: Tensor, t: Tensor) -> Tensor:
    return PAIR.log_responsibilities(x, SDE, t)[:, 1]


def states(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape or (5, 2), generator=torch.Generator().manual_seed(seed), dtype=F64)


class Net(torch.nn.Module):
    """Counts its calls and rows; its noise estimate is affine in x and knows a label."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.7, dtype=F64))
        self.rows: list[int] = []
        self.labels: list[Any] = []

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        self.rows.append(len(x))
        self.labels.append(None if label is None else label.tolist())
        index = torch.full((len(x),), 9) if label is None else label
        return self.gain * x + 0.1 * index.to(x)[:, None] * (1 + t[:, None])


def model(net: Net, **options: Any) -> ScoreModel:
    return ScoreModel(net, SDE, "noise", **options)


@pytest.mark.parametrize("t", [SDE.t_min, 0.3, SDE.t_max])
def test_every_guidance_is_its_formula_and_keeps_the_state(t: float) -> None:
    s, c, u = PAIR.score(SDE), RIGHT.score(SDE), LEFT.score(SDE)
    x = states()
    y = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(right(y, torch.full((5,), t, dtype=F64)).sum(), y)
    of_s, of_c, of_u, node = s(x, t), c(x, t), u(x, t), SDE.node(t)
    for scale in (-1.0, 0.5, 3.0):
        cases = {
            guidance.classifier_guidance(s, right, scale): of_s + scale * slope,
            guidance.classifier_free(c, u, scale): of_u + scale * (of_c - of_u),
            guidance.autoguidance(c, u, scale): of_u + scale * (of_c - of_u),
            guidance.negation(s, c, scale): of_s + scale * (of_s - of_c),
            guidance.product(c, u, base=s, weights=(scale, 2.0)): of_s + scale * (of_c - of_s) + 2 * (of_u - of_s),
            guidance.product(c, u): of_c + of_u,
            guidance.product(c, u, weights=(0.5, scale)): 0.5 * of_c + scale * of_u,
        }
        for guided, expected in cases.items():
            size = float(expected.abs().max())
            assert torch.allclose(guided(x, t), expected, rtol=1e-7, atol=1e-9 * size)
            data, noise = guided.estimate(x, node)
            assert torch.allclose(node.alpha * data + node.sigma * noise, x, rtol=1e-9, atol=1e-9 * size)
            assert torch.allclose(-noise / node.sigma, expected, rtol=1e-7, atol=1e-9 * size)
            assert guided.event_shape == (2,) and guided.rowwise and guided.sde is not None


def test_bare_score_functions_need_no_process() -> None:
    """Nor does a process that is not affine."""
    a, b = (lambda x, t: -x), (lambda x, t: -2 * x + t[:, None])
    x = states()
    log_prob = lambda x, t: -0.5 * (x**2).sum(1)  # noqa: E731
    for guided, expected in (
        (guidance.classifier_free(a, b, 3.0), b(x, torch.full((5,), 0.5)) * -2 + 3 * a(x, None)),
        (guidance.classifier_guidance(a, log_prob, 2.0), -3 * x),
        (guidance.product(a, a), -2 * x),
        (guidance.conditional(lambda x, t, k: k[:, None] * x, k=2.0), 2 * x),
    ):
        assert torch.allclose(guided(x, 0.5), expected) and guided.only_scores and not guided.rowwise
        with pytest.raises(scoresde.InvalidArgumentError, match="sde"):
            guidance.classifier_free(a, guided, 2.0, interval=(-1.0, 1.0))

    class Well(scoresde.SDE):
        def drift(self, x: Tensor, t: Any) -> Tensor:
            return -x

        def diffusion(self, t: Any) -> Tensor:
            return torch.as_tensor(1.0)

    well = Well(t_min=0.0, t_max=1.0, prior=scoresde.NormalPrior(1.0))
    got = scoresde.solve(well, guidance.classifier_free(a, b, 2.0), x, method="heun", steps=5).x
    same = scoresde.solve(well, lambda x, t: 2 * a(x, t) - b(x, t), x, method="heun", steps=5).x
    assert torch.allclose(got, same)
    known = guidance.classifier_free(a, b, 2.0, sde=SDE)
    assert torch.allclose(known(x, 0.5), guidance.classifier_free(a, b, 2.0)(x, 0.5)) and known.estimate is not None


def test_scale_one_and_zero_are_one_branch_bitwise() -> None:
    nets = Net(), Net()
    c, u = model(nets[0], context={"label": 3}), model(nets[1], context={"label": 5})
    x = states()
    for scale, which, other in ((1.0, 0, 1), (0.0, 1, 0)):
        for net in nets:
            net.rows.clear()
        got = guidance.classifier_free(c, u, scale).estimate(x, SDE.node(0.4))
        assert nets[which].rows == [5] and nets[other].rows == []
        plain = (c, u)[which].estimate(x, SDE.node(0.4))
        assert all(torch.equal(a, b) for a, b in zip(got, plain, strict=True))


@pytest.mark.parametrize("method", ["ddim", "unipc", "rk45"])
def test_guidance_composes_and_limits_see_estimates(method: str) -> None:
    inner = guidance.classifier_free(RIGHT.score(SDE), PAIR.score(SDE), 4.0)
    outer = Clip(guidance.classifier_guidance(inner, right, 2.0), -1.2, 1.2)
    options = {} if method == "rk45" else {"steps": 10}
    x = scoresde.solve(SDE, outer, method=method, seeds=range(8), denoise=True, **options).x
    assert float(x.abs().max()) <= 1.2 + 1e-6
    t = 0.3
    twice = guidance.classifier_guidance(guidance.classifier_guidance(PAIR.score(SDE), right, 1.0), right, 2.0)
    once = guidance.classifier_guidance(PAIR.score(SDE), right, 3.0)
    assert torch.allclose(twice(states(), t), once(states(), t), rtol=1e-9)
    estimate, shift, _ = twice.twisted(states(), SDE.node(t))
    assert torch.equal(estimate.data, PAIR.score(SDE).estimate(states(), SDE.node(t)).data)
    assert torch.allclose(shift, once.twisted(states(), SDE.node(t))[1], rtol=1e-9)


def test_rescale_gives_the_conditional_spread() -> None:
    x, node = states(4, 2, seed=3), SDE.node(0.5)
    c, u = RIGHT.score(SDE), PAIR.score(SDE)
    plain = guidance.classifier_free(c, u, 5.0).estimate(x, node).data
    wanted = c.estimate(x, node).data
    for share in (0.3, 1.0):
        data, noise = guidance.classifier_free(c, u, 5.0, rescale=share).estimate(x, node)
        ratio = wanted.std(1, correction=0) / plain.std(1, correction=0)
        assert torch.allclose(data, plain * (share * ratio + 1 - share)[:, None], rtol=1e-9)
        assert torch.allclose(node.alpha * data + node.sigma * noise, x, rtol=1e-9, atol=1e-12)
    assert torch.allclose(data.std(1, correction=0), wanted.std(1, correction=0), rtol=1e-9)
    one = targets.Gaussian(torch.zeros(1, dtype=F64), 1.0), targets.Gaussian(torch.ones(1, dtype=F64), 1.0)
    flat = guidance.classifier_free(*(t.score(SDE) for t in one), 2.0, rescale=0.5)
    with pytest.raises(scoresde.InvalidArgumentError, match="rescale"):
        flat(states(3, 1), 0.5)


@pytest.mark.parametrize("kind", ["classifier_free", "classifier_guidance"])
def test_the_interval_is_in_log_snr(kind: str) -> None:
    """Outside it the conditional alone, or the plain score, is asked; with one time for all and with one each."""
    low, high = (float(SDE.log_snr(t)) for t in (0.6, 0.2))
    calls = []

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return right(x, t)

    make = {
        "classifier_free": partial(guidance.classifier_free, RIGHT.score(SDE), PAIR.score(SDE), 3.0),
        "classifier_guidance": partial(guidance.classifier_guidance, PAIR.score(SDE), log_prob, 3.0),
    }[kind]
    plain, x = (RIGHT if kind == "classifier_free" else PAIR).score(SDE), states(6, 2)
    some, whole = make(interval=(low, high)), make()
    for t in (0.1, 0.19, 0.61, 0.9):
        assert torch.equal(some(x, t), plain(x, t)) and not calls
    for t in (0.2, 0.21, 0.4, 0.59):
        assert torch.equal(some(x, t), whole(x, t))
    times = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.21, 0.9], dtype=F64)
    inside = (times >= 0.2) & (times <= 0.6)
    assert torch.allclose(some(x, times)[inside], whole(x, times)[inside], rtol=1e-12)
    assert torch.allclose(some(x, times)[~inside], plain(x, times)[~inside], rtol=1e-12)
    assert torch.equal(make(interval=(None, math.inf))(x, 0.9), whole(x, 0.9))
    mixed = scoresde.solve(SDE, some, method="rk45", rtol=1e-6, atol=1e-6, seeds=range(4), dtype=F64).x  # times of each
    fixed = scoresde.solve(SDE, some, method="heun", steps=400, grid="time", seeds=range(4), dtype=F64).x
    assert torch.allclose(mixed, fixed, atol=5e-3)
    assert not guidance.classifier_guidance(PAIR.score(SDE), log_prob).has_noise_limit
    assert some.has_noise_limit  # where alpha = 0 it does nothing


SCALED: dict[str, Any] = {
    "classifier_free": partial(guidance.classifier_free, RIGHT.score(SDE), PAIR.score(SDE)),
    "autoguidance": partial(guidance.autoguidance, PAIR.score(SDE), LEFT.score(SDE)),
    "negation": partial(guidance.negation, PAIR.score(SDE), LEFT.score(SDE)),
    "classifier_guidance": partial(guidance.classifier_guidance, PAIR.score(SDE), right),
    "likelihood_guidance": partial(guidance.likelihood_guidance, PAIR.score(SDE), lambda d: -d.square().sum(1)),
}
by_scaled = pytest.mark.parametrize("kind", SCALED)


@by_scaled
def test_a_scale_for_each_sample(kind: str) -> None:
    """Each sample is guided by its own number, also where the others have finished, and nobody else gets it."""
    make, scales = SCALED[kind], torch.tensor([0.0, 1.0, -0.5, 2.0, 4.0], dtype=F64)
    each, x, t = make("guidance"), states(), 0.4
    assert each.accepts("guidance") and not make(2.0).accepts("guidance")
    got = each(x, t, guidance=scales)
    for i, scale in enumerate(scales.tolist()):
        assert torch.allclose(got[i], make(scale)(x, t)[i], rtol=1e-12, atol=1e-13)
        assert torch.equal(got[i], each(x[i : i + 1], t, guidance=scales[i : i + 1])[0])
    assert torch.equal(each(x, t, guidance=scales[3:4]), each(x, t, guidance=scales[3:4].expand(5)))
    whole = scoresde.solve(SDE, each, x, method="rk45", context={"guidance": scales})
    assert len(set(whole.nfe.tolist())) > 1
    for i, scale in enumerate(scales.tolist()):
        alone = scoresde.solve(SDE, make(scale), x[i : i + 1], method="rk45")
        assert torch.allclose(whole.x[i], alone.x[0], rtol=1e-7, atol=1e-7)
    with pytest.raises(scoresde.InvalidArgumentError, match=r"context\['guidance'\].*missing"):
        scoresde.solve(SDE, each, x, method="ddim", steps=2)
    with pytest.raises(scoresde.InvalidArgumentError, match="one number per sample"):
        each(x, t, guidance=torch.ones(5, 1))


@by_scaled
def test_a_scale_for_each_level(kind: str) -> None:
    """With one time for all, with one for each, and as a step function the same as an interval."""
    make, x, times = SCALED[kind], states(), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=F64)
    guided = make(lambda log_snr: 3 * SDE.time(log_snr))
    for t in times.tolist():
        assert torch.allclose(guided(x, t), make(3 * t)(x, t), rtol=1e-9, atol=1e-12)
    for i, t in enumerate(times.tolist()):
        assert torch.allclose(guided(x, times)[i], make(3 * t)(x, t)[i], rtol=1e-9, atol=1e-12)
    for constant in (2.0, torch.tensor(2.0)):
        assert torch.equal(make(lambda log_snr, w=constant: w)(x, times), make(2.0)(x, times))
    low, high = (float(SDE.log_snr(t)) for t in (0.6, 0.2))
    if kind == "negation":
        return  # which takes no interval
    plain = 0.0 if "_guidance" in kind else 1.0
    steps = make(lambda log_snr: 3.0 if low <= log_snr <= high else plain)
    a, b = (scoresde.solve(SDE, f, x, method="dpmpp_2m", steps=12).x for f in (steps, make(3.0, interval=(low, high))))
    assert torch.equal(a, b)


def test_other_options_act_with_scales_that_differ() -> None:
    """As with the number, with one time for all and with one for each."""
    make, x, scales = SCALED["classifier_free"], states(), torch.tensor([0.0, 1.0, -0.5, 2.0, 4.0], dtype=F64)
    every: list[dict[str, Any]] = [{"rescale": 0.7}, {"interval": (-2.0, 2.0)}]
    for options in every:
        for t in (0.1, 0.5, torch.linspace(0.1, 0.9, 5, dtype=F64)):
            named = make("w", **options)(x, t, w=scales)
            levels = make(lambda log_snr: 2.0 + 0 * log_snr, **options)(x, t)
            assert torch.allclose(levels, make(2.0, **options)(x, t), rtol=1e-12)
            for i, scale in enumerate(scales.tolist()):
                assert torch.allclose(named[i], make(scale, **options)(x, t)[i], rtol=1e-12, atol=1e-13)


def test_what_guides_is_weighed_by_the_scale_of_its_sample() -> None:
    guided, scales = SCALED["classifier_guidance"]("w"), torch.tensor([0.0, 1.0, -0.5, 2.0, 4.0], dtype=F64)
    x, node = states(), SDE.node(0.4)
    once = SCALED["classifier_guidance"](1.0).twisted(x, node)
    got = guided.twisted(x, node, w=scales)
    assert torch.allclose(got.log_twist, scales * once.log_twist)
    assert torch.allclose(got.shift, scales[:, None] * once.shift)


def test_the_scale_of_samples_is_for_the_guidance_alone() -> None:
    """A callable that takes any context does not get it, inside an interval and outside; other names go on."""
    seen: list[set[str]] = []

    def score(x: Tensor, t: Tensor, **context: Tensor) -> Tensor:
        seen.append(set(context))
        return -x

    ends = float(SDE.log_snr(0.6)), float(SDE.log_snr(0.2))
    free = guidance.classifier_free(score, lambda x, t: -2 * x, "w", interval=ends, sde=SDE)
    guided = guidance.classifier_guidance(free, right, "v")
    context = {"w": torch.ones(5), "v": torch.zeros(5), "label": torch.zeros(5)}
    scoresde.solve(SDE, guided, states(), method="ddim", steps=6, context=context)
    assert seen and set().union(*seen) == {"label"} and all(names == {"label"} for names in seen)
    bound = guidance.conditional(guided, v=0.5)
    assert torch.allclose(
        bound(states(), 0.4, w=torch.ones(1)), guided(states(), 0.4, w=torch.ones(1), v=torch.full((5,), 0.5))
    )


def test_scales_have_gradients() -> None:
    """That of samples; that of levels, of a grid and of parameters of the function."""
    slope = torch.tensor(1.5, dtype=F64, requires_grad=True)
    grid, x = torch.tensor([0.99, 0.6, 0.3, 0.01], dtype=F64, requires_grad=True), states(3, 2)
    scales = torch.tensor([0.5, 2.0, 3.0], dtype=F64, requires_grad=True)

    def end(guided: Any, **options: Any) -> Tensor:
        return scoresde.solve(SDE, guided, x, method="ddim", differentiable=True, **options).x.sum()

    for kind in ("classifier_free", "classifier_guidance"):

        def of_levels(times: Tensor, w: Tensor, kind: str = kind) -> Tensor:
            return end(SCALED[kind](lambda log_snr: 1 + w * torch.sigmoid(log_snr)), grid=times)

        assert torch.autograd.gradcheck(of_levels, (grid, slope), atol=1e-4, rtol=1e-3)
    named = SCALED["classifier_free"]("w")
    assert torch.autograd.gradcheck(lambda w: end(named, steps=4, context={"w": w}), scales)


def test_two_labels_of_one_network_are_one_call() -> None:
    net = Net()
    c, u = model(net, context={"label": 3}), model(net, context={"label": 9})
    x = states()
    solution = scoresde.solve(SDE, guidance.classifier_free(c, u, 2.0), x, method="ddim", steps=4)
    assert net.rows == [10] * 4 and solution.evaluations == 4 and solution.nfe.tolist() == [4] * 5
    assert net.labels[0] == [3] * 5 + [9] * 5
    apart = ScoreModel(Net(), SDE, "noise", context={"label": 9})
    same = scoresde.solve(SDE, guidance.classifier_free(c, apart, 2.0), x, method="ddim", steps=4).x
    assert torch.allclose(solution.x, same, rtol=1e-12, atol=1e-12)
    net.rows.clear()
    many = guidance.product(c, model(net, context={"label": 4}), base=u)
    many(x, 0.3)
    assert net.rows == [15]


def test_one_call_with_a_time_of_each_sample_and_labels_of_each() -> None:
    net = Net()
    labels = torch.tensor([0, 1, 2, 3, 4])
    c, u = model(net, context={"label": labels}), model(net, context={"label": 9})
    guided = guidance.classifier_free(c, u, 3.0)
    assert not guided.rowwise
    x, t = states(), torch.linspace(0.1, 0.9, 5, dtype=F64)
    assert torch.allclose(guided(x, t), u(x, t) + 3 * (c(x, t) - u(x, t)), rtol=1e-12)
    assert net.rows == [10, 5, 5, 5]


def test_other_networks_and_other_readings_are_asked_apart() -> None:
    net = Net()
    c = model(net, context={"label": 3})
    for other in (
        model(Net(), context={"label": 3}),
        ScoreModel(net, SDE, "data", context={"label": 3}),
        ScoreModel(net, SDE, "noise", time_input="log_snr", context={"label": 3}),
        model(net),
        model(net, context={"label": 3.0}),
    ):
        x = states()
        for counted in (net, other.net):
            counted.rows.clear()
        expected = 2 * c(x, 0.4) - other(x, 0.4)
        net.rows.clear()
        assert torch.allclose(guidance.classifier_free(c, other, 2.0)(x, 0.4), expected, rtol=1e-12)
        assert set(net.rows) == {5}


@pytest.mark.parametrize("declared", [True, False])
def test_a_callable_with_bound_labels_is_one_call_only_if_samples_are_independent(declared: bool) -> None:
    """A bare callable may hold what belongs to its batch, so it never sees another one."""

    class Own:
        rowwise, sde, rows = declared, SDE, []

        def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            self.rows.append(len(x))
            return -x + label[:, None].to(x)

    own = Own()
    own.rows = []
    c, u = (guidance.conditional(own, label=k) for k in (2, 7))
    guided = guidance.classifier_free(c, u, 2.0)
    x = states()
    assert torch.allclose(guided(x, 0.3), -x + 2 * 2.0 - 7)
    assert own.rows == ([10] if declared else [5, 5])
    assert not guided.accepts("label") and guided.rowwise is declared


def test_context_of_a_solve_goes_to_the_conditional() -> None:
    net = Net()
    c, u = model(net, context={"label": 3}), model(net, context={"label": 9})
    guided = guidance.classifier_free(c, u, 2.0)
    labels = torch.tensor([0, 1, 2, 3, 4])
    scoresde.solve(SDE, guided, states(), method="ddim", steps=1, context={"label": labels})
    assert net.labels[-1] == [0, 1, 2, 3, 4] + [9] * 5
    limited = guidance.classifier_free(c, Clip(u, -9, 9), 2.0)  # also through a wrapper
    limited(states(), 0.4, label=labels)
    assert net.labels[-2:] == [[0, 1, 2, 3, 4], [9] * 5]
    weak = model(Net(), context={"label": 9})
    guidance.autoguidance(c, weak, 2.0)(states(), 0.4, label=labels)
    assert net.labels[-1] == weak.net.labels[-1] == [0, 1, 2, 3, 4]
    both = guidance.product(c, model(net, context={"label": 4}), base=u)
    for kept in (both, guidance.conditional(c, label=1)):
        with pytest.raises(scoresde.InvalidArgumentError, match="label"):
            scoresde.solve(SDE, kept, states(), method="ddim", steps=1, context={"label": labels})


def test_context_reaches_the_classifier() -> None:
    seen = []

    def log_prob(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.append(label.tolist())
        return PAIR.log_responsibilities(x, SDE, t).gather(1, label[:, None])[:, 0]

    guided = guidance.classifier_guidance(PAIR.score(SDE), log_prob)
    labels = torch.tensor([0, 1, 1, 0])
    x = scoresde.solve(SDE, guided, method="rk45", shape=(4, 2), seed=0, dtype=F64, context={"label": labels}).x
    for k, law in ((0, LEFT), (1, RIGHT)):
        rows = labels == k
        start = scoresde.solve(SDE, law.score(SDE), method="rk45", shape=(4, 2), seed=0, dtype=F64).x
        assert torch.allclose(x[rows], start[rows], atol=1e-6)
    assert any(len(row) < 4 for row in seen) or len(seen[-1]) == 4  # cut with the batch


def test_a_classifier_is_called_once_an_evaluation_and_not_at_scale_zero() -> None:
    net, calls = Net(), []

    def log_prob(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return right(x, t)

    guided = guidance.classifier_guidance(model(net), log_prob, 2.0)
    assert scoresde.solve(SDE, guided, states(), method="ancestral", steps=6, seed=0).evaluations == 6
    assert net.rows == calls == [5] * 6
    scoresde.solve(SDE, guided, states(), method="ancestral", condition="mean", steps=3, seed=0)
    assert net.rows == calls == [5] * 9
    plain = guidance.classifier_guidance(model(net), log_prob, 0.0)
    assert torch.equal(plain(states(), 0.4), model(net)(states(), 0.4)) and len(calls) == 9
    for through in (True, False):
        net.rows.clear()
        likelihood = guidance.likelihood_guidance(model(net), lambda data: -(data**2).sum(1), through=through)
        scoresde.solve(SDE, likelihood, states(), method="ddim", steps=7)
        assert net.rows == [5] * 7


def test_learned_variances_are_passed_on() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([0.5 * x, 0.1 * x], dim=1)

    learned = ScoreModel(net, SDE, "noise", variance="learned_range")
    x = states(3, 1, 2)
    for guided in (
        guidance.classifier_guidance(learned, lambda x, t: -(x**2).flatten(1).sum(1)),
        guidance.likelihood_guidance(learned, lambda x: -(x**2).flatten(1).sum(1), scale=1e-6),
        guidance.classifier_free(learned, ScoreModel(lambda x, t: 0.4 * x, SDE, "noise"), 2.0),
        guidance.temperature(learned, 0.5),
        Clip(learned),
    ):
        options = {"method": "ancestral", "variance": "learned", "steps": 3, "seed": 0}
        assert bool(torch.isfinite(scoresde.solve(SDE, guided, x, **options).x).all()) and guided.has_variance
        got = guided.estimate(x, SDE.node(0.4)).variance
        assert torch.equal(got, learned.estimate(x, SDE.node(0.4)).variance)


def test_memory_does_not_grow_with_the_steps() -> None:
    """What autograd keeps for a backward pass is given back after every evaluation."""
    peaks = []
    for steps in (5, 50):
        alive, peak = [0], [0]

        class Kept:
            def __init__(self, tensor: Tensor, alive: list[int] = alive, peak: list[int] = peak) -> None:
                self.tensor, self.alive = tensor, alive
                alive[0] += 1
                peak[0] = max(peak[0], alive[0])

            def __del__(self) -> None:
                self.alive[0] -= 1

        guided = guidance.likelihood_guidance(
            guidance.classifier_guidance(model(Net()), right, 2.0), lambda data: -(data**2).sum(1)
        )
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            x = scoresde.solve(SDE, guided, states(), method="dpmpp_2m", steps=steps).x
        assert not x.requires_grad and alive == [0]
        peaks.append(peak[0])
    assert peaks[0] == peaks[1] > 0


@pytest.mark.parametrize("make", ["classifier", "likelihood", "two likelihoods"])
def test_no_graph_leaks_and_inference_mode_works(make: str) -> None:
    net, x = Net(), states()

    def likelihood(score_fn: Any) -> Any:
        return guidance.likelihood_guidance(score_fn, lambda data: -(data**2).sum(1))

    wrap = {
        "classifier": lambda f: guidance.classifier_guidance(f, right),
        "likelihood": likelihood,
        "two likelihoods": lambda f: likelihood(likelihood(f)),
    }[make]
    guided, trained = wrap(PAIR.score(SDE)), wrap(model(net))
    assert not guided(x, 0.4).requires_grad and not x.requires_grad
    with torch.inference_mode():
        inside = scoresde.solve(SDE, guided, states(), method="rk45").x
    assert torch.allclose(inside.clone(), scoresde.solve(SDE, guided, states(), method="rk45").x)
    assert torch.autograd.gradcheck(lambda y: guided(y, 0.4), (states().requires_grad_(),))
    (slope,) = torch.autograd.grad((trained(x, 0.4) ** 2).sum(), net.gain)  # of a network that is being trained
    values = []
    for gain in (0.7 + 1e-5, 0.7 - 1e-5):
        net.gain.data.fill_(gain)
        values.append(float((trained(x, 0.4).detach() ** 2).sum()))
    assert float(slope) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)
    assert not scoresde.solve(SDE, trained, x, method="ddim", steps=2).x.requires_grad


def test_a_blocked_gradient_is_told_from_none_and_from_zero() -> None:
    score_fn, x = PAIR.score(SDE), states()

    def bad(f):
        return guidance.classifier_guidance(score_fn, f)(x, 0.4)

    for blocked in (lambda x, t: right(x.detach(), t), lambda x, t: torch.as_tensor(right(x, t).detach().numpy())):
        with pytest.raises(scoresde.ScoreFnError, match="blocked"):
            bad(blocked)
    weight = torch.nn.Parameter(torch.ones((), dtype=F64))
    for constant in (lambda x, t: torch.zeros(len(x)), lambda x, t: weight * torch.ones(len(x), dtype=F64)):
        with pytest.raises(scoresde.ScoreFnError, match="does not depend on x"):
            bad(constant)
    assert torch.equal(bad(lambda x, t: 0.0 * x.sum(1)), score_fn(x, 0.4))  # a zero gradient is one

    @torch.no_grad()
    def frozen(x: Tensor, t: Tensor) -> Tensor:
        return -x

    goal = lambda data: -(data**2).sum(1)  # noqa: E731
    for score in (ScoreModel(frozen, SDE, "noise"), frozen):
        with pytest.raises(scoresde.ScoreFnError, match="blocks gradients"):
            guidance.likelihood_guidance(score, goal, sde=SDE)(x, 0.4)
    still = guidance.likelihood_guidance(lambda x, t: torch.ones_like(x), goal, sde=SDE)
    node = SDE.node(0.4)
    data = (x + node.sigma**2) / node.alpha
    assert torch.allclose(still(x, 0.4), 1 - 2 * data / node.alpha)  # a score that is the same everywhere


def test_a_wrong_log_prob_is_named() -> None:
    results: tuple[Any, ...] = lambda x, t: (x**2).sum(1, keepdim=True), lambda x, t: None, lambda x, t: x.sum(1).long()
    for wrong in results:
        guided = guidance.classifier_guidance(PAIR.score(SDE), wrong)
        with pytest.raises(scoresde.ScoreFnError, match="`log_prob` must return"):
            scoresde.solve(SDE, guided, states(), method="ddim", steps=2)
        likelihood = guidance.likelihood_guidance(PAIR.score(SDE), lambda data, wrong=wrong: wrong(data, None))
        with pytest.raises(scoresde.ScoreFnError, match="`log_likelihood` must return"):
            likelihood(states(), 0.3)
        mixed = guidance.mixture([LEFT.score(SDE), RIGHT.score(SDE)], [right, wrong])
        with pytest.raises(scoresde.ScoreFnError, match="`log_probs` must return"):
            mixed(states(), 0.3)


def test_what_is_not_finite_is_an_error_of_the_solve() -> None:
    """A gradient, and a value whatever autograd says of its gradient; samples beside it go on."""
    for value in (lambda x, t: x.sum(1) * torch.nan, lambda x, t: x.sum(1) + torch.nan):
        lost = guidance.classifier_guidance(PAIR.score(SDE), value)
        with pytest.raises(scoresde.NonFiniteError):
            scoresde.solve(SDE, lost, states(), method="ddim", steps=2)
    seen = guidance.likelihood_guidance(
        PAIR.score(SDE), lambda d: torch.where(d[:, 0] > 0, d[:, 0], d[:, 0] * 0 + torch.nan)
    )
    x = torch.tensor([[3.0, 0.0], [-3.0, 0.0]], dtype=F64)
    got = scoresde.solve(SDE, seen, x, method="ddim", steps=1, throw=False)
    assert got.x.isfinite().all(1).tolist() == [True, False]


def test_what_guides_may_write_to_what_it_gets() -> None:
    x, score_fn, likelihood = states(), PAIR.score(SDE), guidance.likelihood_guidance
    plain, inplace = lambda x, *t: (2 * x).square().sum(1), lambda x, *t: x.mul_(2).square().sum(1)
    for make in (
        partial(guidance.classifier_guidance, score_fn),
        *(partial(likelihood, score_fn, through=through) for through in (True, False)),
    ):
        assert torch.equal(make(plain)(x, 0.3), make(inplace)(x, 0.3)) and torch.equal(x, states())


def labelled(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    return -x + label[:, None]


C, U = RIGHT.score(SDE), PAIR.score(SDE)
LEVELS = SCALED["classifier_guidance"](lambda log_snr: 1.0 + 0 * log_snr)
REFUSED: list[tuple[Any, str]] = [
    (lambda: guidance.temperature(U, 0.0), "value"),
    (lambda: guidance.temperature(U, 0.5, variance=-1.0), "variance"),
    (lambda: guidance.temperature(lambda x, t: -x, 0.5), "sde"),
    (lambda: guidance.classifier_free(C, U, 2.0, rescale=1.5), "rescale"),
    (lambda: guidance.classifier_free(C, U, 2.0, interval=(2.0, 1.0)), "interval"),
    (lambda: guidance.classifier_free(C, C, 2.0), "same score function"),
    (lambda: guidance.classifier_free(C, U, torch.ones(3)), "context"),
    (lambda: guidance.autoguidance(C, U, "two words"), "scale"),
    (lambda: guidance.classifier_free(C, 3, 2.0), "score_fn"),
    (lambda: guidance.classifier_free(C, PAIR.score(scoresde.VESDE()), 2.0), "made for"),
    (lambda: guidance.classifier_free(C, targets.Gaussian(torch.zeros(3), 1.0).score(SDE), 2.0), "shapes"),
    (lambda: guidance.classifier_guidance(U, 3), "log_prob"),
    (lambda: guidance.likelihood_guidance(U, right, through="yes"), "through"),
    (lambda: guidance.product(), "score_fns"),
    (lambda: guidance.product(C, U, weights=(1.0,)), "weights"),
    (lambda: guidance.mixture([C, U], [right]), "log_probs"),
    (lambda: guidance.mixture([C, U], [right, 3]), "log_probs"),
    (lambda: guidance.mixture([C, U], [right, right], [1.0, 0.0]), "weights"),
    (lambda: guidance.conditional(C, label=3), "label"),
    (lambda: guidance.conditional(lambda x, t, label: x, label=math.nan), "label"),
    (lambda: guidance.classifier_free(lambda x, t: -x, lambda x, t: x, 2.0, rescale=0.5), "sde"),
    (lambda: guidance.classifier_free(lambda x, t: -x, lambda x, t: x, torch.sigmoid), "sde"),
    (lambda: guidance.classifier_guidance(lambda x, t: -x, right, torch.sigmoid), "sde"),
    (lambda: guidance.classifier_free(C, U, "node"), "scale"),
    (lambda: guidance.classifier_free(labelled, U, "label"), "another name"),
    (lambda: guidance.autoguidance(SCALED["classifier_guidance"]("w"), U, "w"), "another name"),
    (lambda: guidance.classifier_guidance(U, labelled, "label"), "another name"),
    (lambda: guidance.conditional(labelled, label=torch.zeros(3, dtype=F64))(states(), 0.3), "label"),
    (lambda: scoresde.sample_tilted(SDE, LEVELS, steps=4, shape=(8, 2), seed=0), "scale by levels"),
    *((lambda make=make: make(math.nan), "scale") for make in SCALED.values()),
    *(
        (lambda f=f, t=t: guidance.classifier_free(C, U, f)(states(), t), r"scale\(log_snr\)")
        for f in (lambda log_snr: math.nan, lambda log_snr: torch.ones(2))
        for t in (0.5, torch.full((5,), 0.5, dtype=F64))
    ),
]


def test_nonsense_is_refused() -> None:
    assert_refused(REFUSED)


def test_where_there_is_no_signal_classifier_guidance_is_refused() -> None:
    flow = scoresde.FlowSDE(t_max=1.0)
    law = targets.GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=0.5)
    log_prob = lambda x, t: law.log_responsibilities(x, flow, t)[:, 1]  # noqa: E731
    with pytest.raises(scoresde.InvalidArgumentError, match="alpha is 0"):
        scoresde.solve(flow, guidance.classifier_guidance(law.score(flow), log_prob), method="ddim", steps=4)
    late = guidance.classifier_guidance(law.score(flow), log_prob, interval=(-8.0, None))
    free = guidance.classifier_free(law.score(flow), targets.Gaussian(torch.zeros(1), 1.0).score(flow), 2.0)
    for guided in (late, free):
        assert bool(torch.isfinite(scoresde.solve(flow, guided, method="ddim", steps=4).x).all())


def test_a_bound_table_is_not_doubled() -> None:
    """Two estimates of a network are one call, but a table that all samples share stays one, however long it is."""

    def net(x: Tensor, t: Tensor, label: Tensor, table: Tensor) -> Tensor:
        return 0.5 * x + label[:, None] + table.sum(0)

    x, label = states(), torch.arange(5.0, dtype=F64)
    for rows in (4, 5, 10):
        model = ScoreModel(net, SDE, "noise", context={"table": torch.ones(rows, 2, dtype=F64)})
        guided = guidance.classifier_free(model, guidance.conditional(model, label=torch.zeros(1, dtype=F64)), 3.0)
        wanted = 3 * model(x, 0.5, label=label) - 2 * model(x, 0.5, label=torch.zeros(5, dtype=F64))
        assert (guided(x, 0.5, label=label) - wanted).abs().max() < 1e-12


def test_a_jacobian_that_is_not_positive_definite_is_named() -> None:
    """A data estimate that does not depend on the state, one that falls with it, and none."""
    prior, x, t = scoresde.targets.Gaussian(torch.zeros(2), 1.0), torch.ones(2, 2), torch.full((2,), 0.5)
    for gain, found in ((0.0, "eigenvalue 0"), (-0.25, "eigenvalue -0.25"), (torch.nan, "finite")):
        wrong = ScoreModel(lambda x, t, y, gain=gain: x * torch.tensor([1.0, gain]) + y, SDE, "data")
        composed = guidance.tall(wrong, prior, {"y": torch.zeros(3, 2)}, sde=SDE)
        with pytest.raises(scoresde.ScoreFnError, match=rf"at t=0.5 .*{found}.*Give `covariances`"):
            composed(x, t)
        given = guidance.tall(wrong, prior, {"y": torch.zeros(3, 2)}, covariances=torch.full((3, 2), 0.5), sde=SDE)
        assert bool(given(x, t).isfinite().all()) == (gain == gain)
