"""Networks, drifts and times that write to what they are given, and diffusions that reuse their memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import InvalidArgumentError, ScoreFnError, ScoreModel, guidance, losses, solve
from scoresde.core.processes import ForwardProcess, Network
from scoresde.scores import as_score

SDE = scoresde.VPSDE()
X = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).reshape(4, 3)


def writes(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    x.mul_(0.5)
    return x.clone()


def writes_label(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    label.mul_(2)
    return x * label[:, None]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def model(net: Callable[..., Tensor] = writes, **options: Any) -> ScoreModel:
    return ScoreModel(net, SDE, "noise", **options)


def guided(score_fn: Any) -> Any:
    """A solve whose guidance asks one network for two labels."""
    sides = (guidance.conditional(score_fn, label=value) for value in (1.0, 0.0))
    return solve(SDE, guidance.classifier_free(*sides, 2.0, sde=SDE), X, method="ddim", steps=2)


class InPlace(scoresde.SDE):
    """dx = -x dt + dw, whose drift writes to x."""

    def __init__(self) -> None:
        super().__init__(t_min=0.0, t_max=1.0, prior=scoresde.NormalPrior())

    def drift(self, x: Tensor, t: Any) -> Tensor:
        return x.neg_()

    def diffusion(self, t: Any) -> Tensor:
        return torch.ones_like(t)


class Bare:
    """A score function that treats samples one by one, so that guidance asks for two labels in one call."""

    rowwise = True

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return writes(x, t)


BARE = Bare()
FLOW = scoresde.within(scoresde.FlowSDE(), model().limits)
PLACES: dict[str, Callable[[], Any]] = {
    "solve": lambda: solve(SDE, model(), X, method="ddim", steps=2),
    "a bare score": lambda: solve(SDE, writes, X, method="ddim", steps=2),
    "another process": lambda: solve(FLOW, model().on(FLOW), X, method="ddim", steps=2),
    "guidance by one call": lambda: guided(model()),
    "guidance of a bare score by one call": lambda: guided(BARE),
    "score": lambda: model()(X.clone(), 0.5),
    "denoising": lambda: losses.denoising(model(), X.clone(), generator()),
    "reverse drift": lambda: scoresde.ReverseSDE(SDE, writes).drift(X.clone(), 0.5),
    "a bound label": lambda: solve(
        SDE, model(writes_label, context={"label": torch.ones(4, dtype=torch.float64)}), X, method="ddim", steps=2
    ),
    "a conditional label": lambda: solve(
        SDE,
        guidance.conditional(model(writes_label), label=torch.ones(4, dtype=torch.float64)),
        X,
        method="pc",
        steps=2,
    ),
}


def test_a_network_or_a_drift_that_writes_to_what_it_is_given_is_refused() -> None:
    for place in PLACES.values():
        with pytest.raises(ScoreFnError, match=r"modified (its input|`context\['label'\]`) in place.*; work on"):
            place()
    words = r"InPlace.drift modified its input in place; work on x.clone\(\)"
    with pytest.raises(InvalidArgumentError, match=words):
        scoresde.simulate(InPlace(), X.clone(), steps=3, seed=0)
    with pytest.raises(InvalidArgumentError, match=words):
        solve(InPlace(), lambda x, t: -x, X, method="euler_maruyama", steps=3, seed=0)


def test_a_network_and_a_time_input_may_write_to_their_times() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        return 0.1 * x * t[:, None]

    def run(method: str, score_fn: ScoreModel) -> Tensor:
        options: dict[str, Any] = {} if method in ("dpm23", "adams") else {"steps": 5, "seed": 0}
        return solve(SDE, score_fn, X, method=method, **options).x

    for method in ("dpm23", "adams", "ddim", "heun", "pc"):  # the last two evaluate twice at the same time
        as_input, in_the_network = (
            [run(method, make(function)) for function in (lambda t: t * 0.5, lambda t: t.mul_(0.5))]
            for make in (
                lambda function: ScoreModel(net, SDE, "noise", function),
                lambda function: ScoreModel(lambda x, t: net(x, function(t)), SDE, "noise"),
            )
        )
        assert torch.equal(*as_input) and torch.equal(*in_the_network), method


class Reused(InPlace):
    """A diffusion that writes all values to the same memory."""

    memory = torch.zeros((), dtype=torch.float64)

    def drift(self, x: Tensor, t: Any) -> Tensor:
        return -x

    def diffusion(self, t: Any) -> Tensor:
        return t + 0.5 if t.ndim else self.memory.copy_(t + 0.5)


class Fresh(Reused):
    def diffusion(self, t: Any) -> Tensor:
        return (t + 0.5).clone()


def test_a_diffusion_may_reuse_its_memory() -> None:
    for method in ("euler_maruyama", "heun_sde", "sra1", "shark"):
        fresh, reused = (scoresde.simulate(sde, X, method=method, steps=4, seed=0).x for sde in (Fresh(), Reused()))
        assert torch.equal(fresh, reused), method
    process = ForwardProcess(Reused(), Network(as_score(writes)))
    kept = process.diffusion(X, process.sde.node(0.25))
    process.diffusion(X, process.sde.node(0.5))
    assert float(kept) == 0.75


def test_draws_of_a_path_with_areas_are_shaped_like_the_state() -> None:
    for method in ("pc", "langevin", "restart"):
        path = scoresde.BrownianPath(range(4), SDE.t_min, SDE.t_max, areas=True)
        assert solve(SDE, lambda x, t: -x, X, method=method, steps=2, noise=path).x.shape == X.shape, method


def test_a_path_to_where_a_clock_is_infinite_is_refused() -> None:
    path = scoresde.BrownianPath(range(4), 0.0, SDE.t_max)
    with pytest.raises(InvalidArgumentError, match="`t0`=0: the clock of this method's noise is infinite there"):
        solve(SDE, lambda x, t: -x, X, method="dpmpp_sde12", noise=path)


def test_samples_that_are_not_finite_are_not_evaluated_for_a_density() -> None:
    got = scoresde.log_likelihood(SDE, lambda x, t: -x, torch.full_like(X, torch.nan), throw=False)
    assert got.nfe.tolist() == [0] * 4 and bool(got.log_prob.isnan().all())
    some = torch.cat([X[:2], torch.full_like(X[:1], torch.nan)])
    assert scoresde.log_likelihood(SDE, lambda x, t: -x, some, throw=False, check=False).nfe[2] == 0


def test_a_loss_is_the_same_for_other_layouts() -> None:
    x = torch.randn(33, 5, 7, generator=generator())
    across = x.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    node, net = SDE.nodes(torch.full((33,), 0.5)), ScoreModel(lambda x, t: 0.3 * x, SDE, "noise")
    for reduction in ("mean", "sum"):
        one, other = (losses.denoising_at(net, v, 0.5 * v, node, reduction=reduction) for v in (x, across))
        assert torch.equal(one, other)


@pytest.mark.slow
def test_a_threshold_of_large_events() -> None:
    size = 2**24 + 1  # torch.quantile refuses more than 2**24
    net = ScoreModel(lambda x, t: x, SDE, "data")
    x = torch.zeros(1, size)
    x[0, -1] = 8.0
    data = scoresde.scores.DynamicThreshold(net, quantile=1.0).estimate(x, SDE.node(0.5)).data
    assert float(data.max()) == 1.0
