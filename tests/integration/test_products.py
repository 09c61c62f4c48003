"""Networks of all kinds under `log_likelihood`, gradients in bounded memory, and controls."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import scoresde
from scoresde import fit_control_scale, log_likelihood, targets

F64 = torch.float64
SDE = scoresde.VPSDE()
SHORT: dict[str, Any] = {"rtol": 0.1, "atol": 0.1, "t_start": 0.3, "check": False}  # of little work
LOOSE: dict[str, Any] = {"rtol": 1e-2, "atol": 1e-2, "check": False}  # networks that nobody trained do not denoise


class Net(nn.Module):
    """A noise prediction with a few kinks."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(4, 12), nn.Linear(12, 3)
        self.middle = middle or nn.Tanh()
        self.double()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.last(self.middle(self.first(torch.cat([x, t[:, None]], 1))))


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Tanh(), nn.Tanh())

    def forward(self, h: Tensor) -> Tensor:
        return checkpoint(self.layers, h, use_reentrant=False)


def data(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, generator=torch.Generator().manual_seed(0), dtype=F64)


def model(net: Any) -> scoresde.ScoreModel:
    return scoresde.ScoreModel(net, SDE, prediction="noise")


def functional() -> tuple[Any, Any]:
    net = Net()
    weights = {name: p.detach().clone() for name, p in net.named_parameters()}
    other = copy.deepcopy(net)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    return net, lambda x, t: torch.func.functional_call(other, weights, (x, t))


def transformed() -> tuple[Any, Any]:
    """A network that is the gradient of another, by torch.func, one sample at a time."""
    net = Net()

    def energy(x: Tensor, t: Tensor) -> Tensor:
        return net(x[None], t[None]).square().sum()

    def by_autograd(x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            given = x if x.requires_grad else x.detach().requires_grad_(True)
            return torch.autograd.grad(net(given, t).square().sum(), given, create_graph=True)[0]

    return by_autograd, torch.func.vmap(torch.func.grad(energy))


# A network, and the same function written in another way.
PAIRS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "in place": lambda: (Net(nn.ReLU()), Net(nn.ReLU(inplace=True))),
    "recomputed": lambda: (Net(nn.Sequential(nn.Tanh(), nn.Tanh())), Net(Recomputed())),
    "dropout": lambda: (Net(nn.Tanh()), Net(nn.Sequential(nn.Tanh(), nn.Dropout(0.5))).eval()),
    "functional": functional,
    "transformed": transformed,
}


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("options", [{"divergence": "exact"}, {"divergence": "xtrace", "probes": 4, "seed": 0}])
def test_networks_of_all_kinds(pair: str, options: dict[str, Any]) -> None:
    """The density is the same with any chunk and with gradients."""
    plain, special = PAIRS[pair]()
    exact = log_likelihood(SDE, model(plain), data(), chunk=1, **options, **SHORT)
    for chunk in (1, None):
        got = log_likelihood(SDE, model(special), data(), chunk=chunk, **options, **SHORT)
        torch.testing.assert_close(got.log_prob, exact.log_prob, rtol=1e-9, atol=1e-9)
    kinds = (True,) if pair == "transformed" else (True, "checkpoint")
    for kind in kinds:
        x = data().requires_grad_(True)
        got = log_likelihood(SDE, model(special), x, differentiable=kind, **options, **SHORT)
        (slope,) = torch.autograd.grad(got.log_prob.sum(), x)
        if kind is True:
            kept = slope
    torch.testing.assert_close(slope, kept, rtol=1e-9, atol=1e-9)


def test_what_checkpoints_cannot_do() -> None:
    """torch.func differentiates inside, and torch refuses to recompute that."""
    _, special = transformed()
    with pytest.raises(scoresde.ScoreFnError, match="differentiable=True"):
        log_likelihood(SDE, model(special), data().requires_grad_(True), differentiable="checkpoint", **LOOSE)


def mixture(size: int) -> targets.GaussianMixture:
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(3, size, generator=generator, dtype=F64)
    roots = torch.randn(3, size, 2, generator=generator, dtype=F64) / 2
    covs = roots @ roots.mT + 0.02 * torch.eye(size, dtype=F64)
    return targets.GaussianMixture(torch.tensor([0.3, 0.5, 0.2]), means, covs)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"divergence": "xtrace", "probes": 8}, 3.0),
        ({"divergence": "hutch++", "probes": 12}, 1.25),
        ({"probes": 6, "probe": "orthogonal"}, 1.25),
    ],
)
def test_estimates_and_their_errors(options: dict[str, Any], most: float) -> None:
    """400 solves: no bias at 4.892 standard errors (one false alarm in a million), standard errors of the size of the
    deviations within as many of theirs, 1/sqrt(800), or larger where they are safe, and 95 % intervals that hold what
    such a share of 400 does. A bias of a quarter of the spread is seen, and standard errors of less than 0.8."""
    target, n = mixture(8), 400
    x = target.sample(1, SDE, SDE.t_min, generator=torch.Generator().manual_seed(0))
    score, given = target.score(SDE), {"rtol": 1e-3, "atol": 1e-3, "t_start": 0.02}
    exact = log_likelihood(SDE, score, x, divergence="exact", **given).log_prob
    got = log_likelihood(SDE, score, x.expand(n, 8), seed=3, **options, **given)
    off = got.log_prob - exact
    assert float(off.mean().abs()) < 4.892 * float(off.std()) / n**0.5 + 2e-3
    size = float(got.std_error.square().mean().sqrt() / off.square().mean().sqrt())
    assert 0.82 < size < most
    low, high = got.interval()
    assert float(((low <= exact) & (exact <= high)).double().mean()) > 0.895


def test_whole_frames_are_the_exact_trace() -> None:
    target = mixture(6)
    x = target.sample(4, SDE, SDE.t_min, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
    exact = log_likelihood(SDE, target.score(SDE), x, divergence="exact", **options)
    got = log_likelihood(SDE, target.score(SDE), x, probes=6, probe="orthogonal", seed=0, **options)
    torch.testing.assert_close(got.log_prob, exact.log_prob, rtol=0, atol=1e-4)
    assert got.std_error.tolist() == [0.0] * 4


def test_a_mixture_as_control() -> None:
    """Of its own score it leaves nothing, with one probe; of another's it leaves no bias: the exact value is within
    4.892 standard errors of 1,500 single probes (one false alarm in a million)."""
    target = mixture(6)
    x = target.sample(4, SDE, SDE.t_min, generator=torch.Generator().manual_seed(0))
    score, options = target.score(SDE), {"rtol": 1e-4, "atol": 1e-4}
    exact = log_likelihood(SDE, score, x, divergence="exact", **options).log_prob
    own = log_likelihood(SDE, score, x, control=target, seed=0, **options)
    torch.testing.assert_close(own.log_prob, exact, rtol=0, atol=1e-3)
    slopes = []
    for given in ({"divergence": "exact"}, {"control": target, "seed": 0}):
        leaf = x.clone().requires_grad_(True)
        got = log_likelihood(SDE, score, leaf, differentiable=True, t_start=0.05, **given, **LOOSE)
        slopes += torch.autograd.grad(got.log_prob.sum(), leaf)
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-8, atol=1e-8)
    other = targets.GaussianMixture(torch.ones(3), target.means + 0.1, scales=0.4)
    got = log_likelihood(SDE, score, x[:1], control=other, control_scale=0.7, probes=1_500, seed=0, **options)
    assert float((got.log_prob - exact[:1]).abs()) < 4.892 * float(got.std_error) + 2e-3


def test_the_scale_of_a_control_is_the_best_on_the_pilot() -> None:
    """A distribution with half of the score's curvature wants a scale of its own: on the pilot no other does better,
    and on other samples and probes it still does better than 1."""
    target = mixture(6)
    x = target.sample(24, SDE, SDE.t_min, generator=torch.Generator().manual_seed(0))
    score = lambda x, t: target.score(SDE)(x, t) - 0.0 * x  # noqa: E731
    wide = targets.Gaussian.fit(x.double())
    options: dict[str, Any] = {"probes": 16, **LOOSE}
    scale = fit_control_scale(SDE, score, wide, x[:12], seed=1, **options)

    def spread(scale: float, rows: slice, seed: int) -> float:
        given = {"control": wide, "control_scale": scale, "seed": seed, **options}
        return float(log_likelihood(SDE, score, x[rows], **given).paths.var(1).mean())

    pilot = slice(0, 12)
    assert 0.0 < scale < 1.0
    assert spread(scale, pilot, 1) < min(spread(scale + d, pilot, 1) for d in (-0.1, 0.1))
    fresh = slice(12, 24)
    assert spread(scale, fresh, 2) < min(spread(1.0, fresh, 2), spread(0.0, fresh, 2))
    diagonal = targets.Gaussian(torch.zeros(6, dtype=F64), 0.5)  # signs see nothing of it
    assert fit_control_scale(SDE, score, diagonal, x[:4], **LOOSE) == 1.0


def test_a_mixture_is_fitted_to_data() -> None:
    pytest.importorskip("sklearn")
    target = mixture(3)
    x = target.sample(2_000, generator=torch.Generator().manual_seed(0))
    truth = float(target.log_prob(x).mean())
    for kind, worse in (("dense", 0.05), ("shared", 1.5), ("diagonal", 1.5)):
        fitted = targets.GaussianMixture.fit(x.reshape(-1, 1, 3), 3, kind)
        assert fitted.event_shape == (1, 3) and fitted.dtype == F64
        assert truth - worse < float(fitted.log_prob(x.reshape(-1, 1, 3)).mean()) < truth + 0.05
    ridge = targets.GaussianMixture.fit(x, 3, ridge=5.0)
    assert float(ridge.spectrum.values.min()) >= 5.0
    with pytest.raises(scoresde.InvalidArgumentError, match="fewer components"):
        targets.GaussianMixture.fit(torch.zeros(20, 4), 5, ridge=0.0)


def gradients(net: nn.Module, x: Tensor, differentiable: Any, **options: Any) -> tuple[Tensor, list[Tensor]]:
    x = x.clone().requires_grad_(True)
    options = {"differentiable": differentiable, **SHORT, **options}
    got = log_likelihood(SDE, model(net), x, **options).log_prob.sum()
    return got, list(torch.autograd.grad(got, [x, *net.parameters()]))


@pytest.mark.parametrize(
    "options",
    [
        {"probes": 2, "seed": 0},
        {"divergence": "exact"},
        {"divergence": "xtrace", "probes": 4, "seed": 0, "method": "rk45", "form": "angle", "t_start": 0.7},
        {"probes": 1, "seed": 0, "control": mixture(3)},
    ],
)
def test_gradients_with_little_memory(options: dict[str, Any]) -> None:
    """Those of the kept graph, in x and in all parameters."""
    net = Net()
    kept, slopes = gradients(net, data(), True, **options)
    value, again = gradients(net, data(), "checkpoint", **options)
    torch.testing.assert_close(value, kept, rtol=1e-12, atol=1e-12)
    for a, b in zip(again, slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    assert all(p.grad is None for p in net.parameters())


class Deep(nn.Module):
    """Ones to multiply with: any depth is the same function."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(3, dtype=F64)) for _ in range(depth)])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = torch.sin(x)
        for scale in self.scales:
            h = h * scale
        return h


def saved(depth: int, differentiable: Any, tolerance: float) -> tuple[int, int]:
    """Tensors that the graph holds, and evaluations."""
    count = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return tensor

    options: dict[str, Any] = {"seed": 0, "rtol": tolerance, "atol": tolerance, "differentiable": differentiable}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        got = log_likelihood(SDE, model(Deep(depth)), data(), **options)
    return count, int(got.nfe.max())


def test_memory_does_not_grow_with_the_depth_times_the_steps() -> None:
    """Counted in saved tensors."""
    (shallow, nfe), (deep, same) = saved(2, "checkpoint", 1e-2), saved(12, "checkpoint", 1e-2)
    assert nfe == same and deep - shallow <= 12 * 10  # the check of the gradients, which is not kept
    (kept, once), (more_kept, _) = saved(2, True, 1e-2), saved(12, True, 1e-2)
    assert more_kept - kept > 10 * nfe and once == nfe
    long, more = saved(12, "checkpoint", 1e-4)
    again, _ = saved(2, "checkpoint", 1e-4)
    assert more > 1.5 * nfe and long - again == deep - shallow


def test_the_evaluations_are_counted_once() -> None:
    for divergence in ("exact", "hutchinson"):
        given: dict[str, Any] = {"divergence": divergence, "seed": 0, **LOOSE}
        kinds = (False, True, "checkpoint")
        counts = [log_likelihood(SDE, model(Net()), data(), differentiable=kind, **given).nfe for kind in kinds]
        assert torch.equal(counts[0], counts[1]) and torch.equal(counts[0], counts[2])


def test_refusals() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"divergence": "xtrace", "probes": 3}, "even"),
        ({"divergence": "xtrace", "probes": 8}, "at most 6"),
        ({"chunk": 0}, "chunk"),
        ({"control_scale": math.nan}, "control_scale"),
        ({"control": 3.0}, "control"),
    ]
    for options, words in cases:
        with pytest.raises(scoresde.ScoreSDEError, match=words):
            log_likelihood(SDE, lambda x, t: -x, data(), **options)
    with pytest.raises(scoresde.InvalidArgumentError, match="control"):
        fit_control_scale(SDE, lambda x, t: -x, None, data())  # type: ignore[arg-type]
