"""The core of the losses, and score matching: exact minima, exact gradients, refusals."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import ScoreModel, losses
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, ScoreFnError
from scoresde.discrete import BetaChain, NoiseScales

from .quadrature import MIXTURE, NORMAL, Given, Line, Off, hermite
from .refusals import assert_refused

F64 = torch.float64
V, T = InvalidArgumentError, InvalidTypeError
PROCESSES: dict[str, Any] = {
    "vp": scoresde.VPSDE(),
    "sub_vp": scoresde.SubVPSDE(),
    "ve": scoresde.VESDE(),
    "cosine": scoresde.CosineVPSDE(),
    "vdm": scoresde.VDMSDE(scoresde.LinearGamma(-6.0, 4.0)),
    "edm": scoresde.EDMSDE(),
    "flow": scoresde.FlowSDE(),
    "gaussian": scoresde.GaussianSDE(torch.cos, torch.sin, t_min=0.01, t_max=1.5),
}


def draws(shape: tuple[int, ...] = (5, 3), seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=F64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def at(sde: Any, share: float, n: int = 5) -> scoresde.Node:
    """The node of n samples at a share of the interval."""
    return sde.nodes(torch.full((n,), sde.t_min + share * (sde.t_max - sde.t_min), dtype=F64))


def named(cell: str, **tolerances: float) -> Callable[[Tensor, Tensor], None]:
    """A comparison whose message names the cell."""
    return functools.partial(torch.testing.assert_close, msg=lambda text: f"{cell}: {text}", **tolerances)


def wanted(target: str, x: Tensor, x0: Tensor, noise: Tensor, n: scoresde.Node, model: ScoreModel) -> Tensor:
    """The error of a target by its definition, with what the model says of it."""
    a, s, da, ds = (v[:, None] for v in (n.alpha, n.sigma, n.dalpha, n.dsigma))
    rho, sd = s / a, model.sigma_data
    skip, out = sd**2 / (rho**2 + sd**2), rho * sd / (rho**2 + sd**2).sqrt()
    return {
        "noise": lambda: model.noise(x, n.t) - noise,
        "data": lambda: model.data(x, n.t) - x0,
        "score": lambda: model(x, n.t) + noise / s,
        "v": lambda: model.v(x, n.t) - (a * noise - s * x0),
        "flow": lambda: model.flow(x, n.t) - (da * x0 + ds * noise),
        "edm": lambda: (model.data(x, n.t) - skip * x / a) / out - (x0 - skip * x / a) / out,
    }[target]()


@pytest.mark.parametrize("target", losses.TARGETS)
def test_any_target_of_any_prediction(target: str) -> None:
    x0, noise = draws(), draws(seed=1)
    for process, prediction in itertools.product(PROCESSES, scoresde.scores.PREDICTIONS):
        sde = PROCESSES[process]
        model = ScoreModel(lambda x, t: torch.tanh(x), sde, prediction, sigma_data=0.7)
        close = named(f"{prediction} on {process}", rtol=1e-8, atol=1e-12)
        for share in (0.02, 0.9):
            node = at(sde, share)
            x = node.alpha[:, None] * x0 + node.sigma[:, None] * noise
            exact = wanted(target, x, x0, noise, node, model).square()
            close(losses.denoising_at(model, x0, noise, node, target=target), exact.mean(1))
            total = losses.denoising_at(model, x0, noise, node, target=target, weight="sigma2", reduction="sum")
            close(total, node.sigma**2 * exact.sum(1))


KINDS = ("noise", "data", "v", "flow")
ALONE = {("data", 0.0), ("noise", 1.0)}  # prediction and end: only the target of the same name has a limit there


@pytest.mark.parametrize("end", [0.0, 1.0])
@pytest.mark.parametrize("prediction", KINDS)
def test_the_ends_have_their_limits(prediction: str, end: float) -> None:
    """Where sigma or alpha is 0: value and gradient are finite and those of the limit; other targets are refused."""
    sde = scoresde.FlowSDE(t_min=0.0, t_max=1.0)
    for dtype, target in itertools.product((torch.float32, F64), KINDS):
        scale = torch.nn.Parameter(torch.tensor(0.8, dtype=dtype))
        model = ScoreModel(lambda x, t, scale=scale: scale * torch.tanh(x) + 0.3, sde, prediction)
        x0, noise = draws().to(dtype), draws(seed=1).to(dtype)
        if (prediction, end) in ALONE and target != prediction:
            with pytest.raises(NonFiniteError, match=f"t = {end:g}"):
                losses.denoising(model, x0, target=target, times=losses.Fixed(end))
            continue
        found = []
        for t in (end, abs(end - 1e-7)):
            value = losses.denoising_at(model, x0, noise, sde.nodes(torch.full((5,), t, dtype=F64)), target=target)
            found.append((value.detach(), torch.autograd.grad(value.sum(), scale)[0]))
        for limit, near in zip(*found, strict=True):
            named(f"{target}, {dtype}", rtol=1e-4, atol=1e-5)(limit, near)


def test_weights_are_their_formulas() -> None:
    node = at(PROCESSES["flow"], 0.3)
    snr, sigma = ((1 - node.t) / node.t) ** 2, node.t
    formulas: dict[str, Tensor] = {
        "constant": torch.ones(5, dtype=F64),
        "sigma2": sigma**2,
        "likelihood": 2 / (node.t * (1 - node.t)),  # minus the derivative of ln SNR
        "vdm": 2 / (node.t * (1 - node.t)),
        "min_snr": snr.clamp_max(5) / snr,
        "p2": 1 / (1 + snr),
        "edm": (1 / snr + 0.25) / (1 / snr * 0.25) / snr,
        "sigmoid": 1 / (1 + torch.exp(snr.log() - 2)),
    }
    assert set(formulas) == set(losses.WEIGHTS)
    for name, formula in formulas.items():
        torch.testing.assert_close(losses.WEIGHTS[name](node), formula)
    low = at(PROCESSES["flow"], 0.9)
    torch.testing.assert_close(losses.WEIGHTS["min_snr"](low), torch.ones(5, dtype=F64))
    ends = scoresde.FlowSDE(t_min=0.0, t_max=1.0).nodes(torch.tensor([0.0, 1.0]))
    assert all(bool(weight(ends).isfinite().all()) for weight in (losses.MinSNR(), losses.P2()))


def test_the_published_forms() -> None:
    """min-SNR, P2, EDM and v as their papers write them, in terms of the data's or the noise's error."""
    x0, noise = draws(), draws(seed=1)
    for (process, sde), share in itertools.product(PROCESSES.items(), (0.05, 0.4, 0.8)):
        model = ScoreModel(lambda x, t: torch.tanh(x), sde, "v", sigma_data=0.6)
        node = at(sde, share)
        snr, rho = (node.alpha / node.sigma) ** 2, node.sigma / node.alpha
        loss = functools.partial(losses.denoising_at, model, x0, noise, node)
        data, eps = loss(target="data"), loss(target="noise")
        close = named(process, rtol=1e-9, atol=1e-12)
        close(loss(weight=losses.MinSNR(2.0)), snr.clamp_max(2.0) * data)
        close(loss(weight=losses.P2(0.5, 2.0)), (0.5 + snr) ** -2 * eps)
        close(loss(target="edm"), (rho**2 + 0.36) / (rho * 0.6) ** 2 * data)
        close(loss(weight=losses.EDMWeight(0.6)), loss(target="edm"))
        if process in ("vp", "cosine", "vdm"):
            close(loss(target="v"), (snr + 1) * data)


def test_a_target_and_a_weight_of_ones_own() -> None:
    model = ScoreModel(lambda x, t: torch.tanh(x), scoresde.VPSDE(), "noise")
    x0, noise, node = draws(), draws(seed=1), at(model.sde, 0.5)
    got = losses.denoising_at(
        model, x0, noise, node, target=lambda n, sigma_data: (2 * n.alpha, 0 * n.alpha), weight=lambda n: n.t
    )
    exact = 4 * node.alpha**2 * node.t * losses.denoising_at(model, x0, noise, node)
    torch.testing.assert_close(got, exact)


# Data at 0 and a network that is off by one in every entry: what a loss is, is known for every draw.
VP = scoresde.VPSDE()
SHIFTED: dict[str, tuple[Callable[..., Tensor], Callable[[scoresde.Node], Tensor]]] = {
    "denoising": (losses.denoising, lambda n: torch.ones_like(n.t)),
    "ddpm": (functools.partial(losses.denoising, weight="constant"), lambda n: torch.ones_like(n.t)),
    "dsm": (losses.denoising_score_matching, lambda n: 1.5 * torch.ones_like(n.t)),
    "dsm, plain": (functools.partial(losses.denoising_score_matching, weight="constant"), lambda n: 1.5 / n.sigma**2),
    "esm": (
        functools.partial(losses.explicit_score_matching, score=lambda x, t: -x / VP.sigma(t)[:, None] ** 2),
        lambda n: 1.5 / n.sigma**2,
    ),
    "v": (losses.v_prediction, lambda n: 1 / n.alpha**2),
    "flow": (losses.flow_matching, lambda n: ((n.alpha * n.dsigma - n.sigma * n.dalpha) / n.alpha) ** 2),
    "min_snr": (functools.partial(losses.min_snr, gamma=2.0), losses.MinSNR(2.0)),
    "p2": (functools.partial(losses.p2, k=2.0, gamma=0.5), losses.P2(2.0, 0.5)),
    "edm": (
        functools.partial(losses.edm, sigma_data=0.8, levels=losses.LogUniform()),
        lambda n: (n.sigma / n.alpha) ** 2 / 0.64 + 1,
    ),
    "likelihood": (losses.likelihood_weighted, lambda n: 1.5 * 0.999 * n.g2 / n.sigma**2),
}


def shifted(x: Tensor, t: Tensor) -> Tensor:
    return x / VP.sigma(t)[:, None] + 1


def test_losses_of_a_known_error() -> None:
    """Times given, the loss is known; its importance weight multiplies it where the distribution is no part of the
    objective."""
    model, zero = ScoreModel(shifted, VP, "noise"), torch.zeros(4, 3, dtype=F64)
    t = torch.tensor([0.01, 0.2, 0.6, 0.95], dtype=F64)
    law = Given(t, torch.tensor([2.0, 3.0, 4.0, 5.0], dtype=F64))
    for name, (loss, formula) in SHIFTED.items():
        close, exact = named(name, rtol=1e-7, atol=1e-9), formula(VP.nodes(t))
        if name == "edm":
            close(loss(model, zero, levels=law), exact)
            continue
        counts = 1.0 if name in ("v", "flow") else law.made.weight
        close(loss(model, zero, times=law), counts * exact)
        for importance, counts in ((True, law.made.weight), (False, 1.0)):
            close(loss(model, zero, times=law, importance=importance), counts * exact)


def test_ncsn_weighs_its_levels_alike() -> None:
    """On a chain of noise scales the default distribution is that of its levels, and the weight sigma^2."""
    chain = NoiseScales.geometric(4, 0.01, 1.0)
    seen: list[Tensor] = []

    def net(x: Tensor, label: Tensor) -> Tensor:
        seen.append(label)
        return -x / chain.sigmas.flip(0)[label][:, None] ** 2

    model = ScoreModel(net, chain.sde(), "score", time_input="index", chain=chain)
    loss = losses.denoising_score_matching(model, torch.zeros(8, 2, dtype=F64), seeded())
    assert float(loss.abs().max()) < 1e-20  # at a point mass this score is the kernel's own
    assert sorted(seen[0].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    away = ScoreModel(lambda x, i: net(x, i) + 1, chain.sde(), "score", time_input="index", chain=chain)
    loss = losses.denoising_score_matching(away, torch.zeros(8, 2, dtype=F64), seeded())
    torch.testing.assert_close(loss.sort().values, chain.sigmas.repeat_interleave(2) ** 2)


def bump(x: Tensor) -> Tensor:
    return torch.sin(1.3 * x) + 0.4 * x


def score_matching(name: str, model: Any, line: Line, t: float, points: int = 40) -> Tensor:
    """The expectation of a score matching loss with sigma^2 as weight, by quadrature over data and noise."""
    x0, noise, weight = line.pairs(points)
    node = model.sde.nodes(torch.full((len(x0),), t, dtype=F64))
    state = node.alpha[:, None] * x0 + node.sigma[:, None] * noise
    signs = torch.ones(len(x0), 1, 1, dtype=F64)  # on the line both signs give the same
    value = {
        "explicit": lambda: losses.explicit_at(model, x0, noise, node, score=line.target, weight="sigma2"),
        "implicit": lambda: node.sigma**2 * losses.implicit_at(model, state, node),
        "sliced": lambda: node.sigma**2 * losses.sliced_at(model, state, node, signs),
        "sliced, plain": lambda: node.sigma**2 * losses.sliced_at(model, state, node, signs, variance_reduction=False),
        "denoising": lambda: (
            0.5 * losses.denoising_at(model, x0, noise, node, target="score", weight="sigma2", reduction="sum")
        ),
    }[name]()
    return weight @ value


MATCHING = ("explicit", "implicit", "sliced", "sliced, plain", "denoising")
CASES = [("vp", 0.3), ("sub_vp", 0.4), ("ve", 0.75), ("flow", 0.5), ("edm", 0.7)]


@pytest.mark.parametrize("law", ["normal", "mixture"])
@pytest.mark.parametrize("name", MATCHING)
def test_the_exact_score_is_the_minimum(name: str, law: str) -> None:
    r"""With the Fisher information J of the diffused distribution, the minima are 0, :math:`-\tfrac12\sigma^2 J`
    (twice) and
    :math:`\tfrac12(1 - \sigma^2 J) = \tfrac12 E\,Cov(\varepsilon|x_t)`, and a noise estimate off by a h costs
    :math:`\tfrac12 a^2 E h^2` more, exactly: J and :math:`E h^2` by a grid over the density."""
    line = NORMAL if law == "normal" else MIXTURE
    for process, t in CASES:
        sde = PROCESSES[process]
        exact, sigma = line.target.score(sde), float(sde.sigma(t))

        def fisher(x: Tensor, exact: Any = exact, t: float = t) -> Tensor:
            return exact(x, t).square()

        information = sigma**2 * line.mean(sde, t, fisher)
        low = {"explicit": 0.0, "denoising": 0.5 * (1 - information)}.get(name, -0.5 * information)
        if law == "normal":
            variance = float(sde.alpha(t)) ** 2 * 0.3
            assert 1 - information == pytest.approx(variance / (variance + sigma**2), rel=1e-9)
        scale = (float(sde.alpha(t)) ** 2 + sigma**2) ** 0.5
        costs = line.mean(sde, t, lambda x, scale=scale: bump(x / scale).square())
        for a in (0.0, -0.7):
            model = Off(exact, lambda x, a=a, scale=scale: a * bump(x / scale))
            got = float(score_matching(name, model, line, t).detach())
            assert got == pytest.approx(low + 0.5 * a**2 * costs, abs=3e-8 * (1 + costs))


@pytest.mark.parametrize("prediction", ["noise", "data", "v"])
def test_all_have_the_gradient_of_the_explicit_objective(prediction: str) -> None:
    """A small network in float64: every parameter's expected gradient, by quadrature."""
    sde = PROCESSES["vp"]
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)).to(F64)
    model = ScoreModel(lambda x, t: net(torch.cat([x, t[:, None]], 1)), sde, prediction)

    def gradients(name: str) -> tuple[Tensor, ...]:
        return torch.autograd.grad(score_matching(name, model, MIXTURE, 0.4), list(net.parameters()), allow_unused=True)

    for name in MATCHING[1:]:
        for index, (got, exact) in enumerate(zip(gradients(name), gradients("explicit"), strict=True)):
            if got is None:  # the divergence does not know the last bias; its other term does
                continue
            scale = float(exact.abs().max()) + 1e-3
            assert float((got - exact).abs().max()) < 1e-6 * scale, (name, index)


def test_all_signs_together_are_the_exact_trace() -> None:
    """In three dimensions the mean of the sliced losses over all signs is the implicit one, both forms."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).to(F64)
    x, t = draws((4, 3)), torch.zeros(4, dtype=F64)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=F64)] * 3)
    field = lambda x, t: net(x)  # noqa: E731
    exact = losses.implicit_at(field, x, t)
    jacobian = torch.func.vmap(torch.func.jacrev(net))(x)
    by_hand = jacobian.diagonal(dim1=1, dim2=2).sum(1) + 0.5 * net(x).square().sum(1)
    torch.testing.assert_close(exact, by_hand)
    for reduction in (True, False):
        got = losses.sliced_at(field, x, t, signs.expand(4, 8, 3), variance_reduction=reduction)
        torch.testing.assert_close(got, exact)
    torch.testing.assert_close(losses.implicit_at(field, x, t, signs.expand(4, 8, 3)), exact)
    one = losses.sliced_at(field, x, t, signs[:1].expand(4, 1, 3), variance_reduction=False)
    v = signs[0]
    torch.testing.assert_close(one, torch.einsum("i,bij,j->b", v, jacobian, v) + 0.5 * (net(x) @ v) ** 2)


def test_the_public_losses_of_states() -> None:
    """With the exact trace the value of given states is known; with probes it is reproducible and of the same mean."""
    x = draws((6, 2))
    a = torch.tensor([[0.5, 0.2], [-0.3, 1.0]], dtype=F64)
    field = lambda x, t: -x @ a * (1 + t[:, None])  # noqa: E731
    t = torch.linspace(0, 1, 6, dtype=F64)
    exact = -1.5 * (1 + t) + 0.5 * field(x, t).square().sum(1)
    torch.testing.assert_close(losses.implicit_score_matching(field, x, t=t), exact)
    for loss in (
        functools.partial(losses.sliced_score_matching, probes=3),
        functools.partial(losses.sliced_score_matching, probe="gaussian"),
        functools.partial(losses.implicit_score_matching, divergence="hutchinson", probes=2),
    ):
        first, again = (loss(field, x, seeded(), t=t) for _ in range(2))
        assert torch.equal(first, again) and not torch.allclose(first, exact)
    diagonal = losses.sliced_score_matching(lambda x, t: -2 * x, x, t=0.5)  # signs are exact on a diagonal
    torch.testing.assert_close(diagonal, -4 + 2 * x.square().sum(1))
    with torch.no_grad():
        assert not losses.implicit_score_matching(field, x, t=t).requires_grad


def test_weights_of_the_implicit_losses() -> None:
    model, zero = ScoreModel(shifted, scoresde.VPSDE(), "noise"), torch.zeros(2, 3, dtype=F64)
    t = torch.tensor([0.2, 0.7], dtype=F64)
    node, law = model.sde.nodes(t), Given(t, torch.tensor([2.0, 3.0], dtype=F64))
    generator = seeded()
    torch.rand(2, generator=generator, dtype=F64)
    noise = torch.randn((2, 3), generator=generator, dtype=F64)  # after the uniform numbers, one per sample
    by_hand = -3 / node.sigma**2 + 0.5 * ((noise + 1) / node.sigma[:, None]).square().sum(1)
    for loss in (losses.implicit_score_matching, losses.sliced_score_matching):
        plain, weighed = (loss(model, zero, seeded(), times=law, weight=w) for w in ("constant", "sigma2"))
        torch.testing.assert_close(weighed, node.sigma**2 * plain)
        torch.testing.assert_close(plain, law.made.weight * by_hand)


class DoubleWell(scoresde.SDE):
    def drift(self, x: Tensor, t: Any) -> Tensor:
        return x - x**3

    def diffusion(self, t: Any) -> Tensor:
        return 1.0 + 0.5 * torch.as_tensor(t)


WELL = DoubleWell(t_min=0.0, t_max=2.0, prior=scoresde.NormalPrior(1.0))


def test_the_minimum_of_the_transition_loss_is_the_score_after_the_step() -> None:
    """States N(0, 0.3) and one Euler step of the double well: the distribution after it by quadrature, its score by
    automatic differentiation. The gradient of the loss in any direction is 0 there, and is not at the score before the
    step.
    """
    t, step = 0.4, 0.2
    z, w = hermite(80)
    start = math.sqrt(0.3) * z
    spread = (1 + 0.5 * t) * math.sqrt(step)
    middle = start + step * (start - start**3)

    def after(x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            density = (w * torch.exp(-0.5 * ((y - middle) / spread) ** 2)).sum(1)
            return torch.autograd.grad(density.log().sum(), y)[0]

    x, noise = (v.reshape(-1, 1) for v in torch.broadcast_tensors(start[:, None], z))
    weight = (w[:, None] * w).flatten()

    def slope(score: Callable[[Tensor], Tensor], direction: Callable[[Tensor], Tensor]) -> float:
        size = torch.zeros((), dtype=F64, requires_grad=True)
        field = lambda y, t: score(y) + size * direction(y)  # noqa: E731
        value = weight @ losses.transition_at(field, x, noise, sde=WELL, t=t, step=step)
        return torch.autograd.grad(value, size)[0].item()

    for direction in (lambda y: y, bump, torch.cos):
        assert abs(slope(after, direction)) < 1e-8
    assert abs(slope(lambda y: -y / 0.3, bump)) > 0.01


CHAIN = BetaChain.linear(20)


def net(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    return torch.tanh(x) if label is None else torch.tanh(x) + label.to(x)[:, None]


def plain(function: Callable[..., Tensor] = net) -> ScoreModel:
    return ScoreModel(function, scoresde.VPSDE(), "noise")


def chained(function: Callable[..., Tensor] = net) -> ScoreModel:
    return ScoreModel(function, CHAIN.sde(), "noise", time_input="index", chain=CHAIN)


def learned(function: Callable[..., Tensor] = net) -> ScoreModel:
    def doubled(x: Tensor, t: Tensor, **context: Any) -> Tensor:
        out = function(x, t, **context)
        return torch.cat([out, 0.5 * out], 1)

    doubled.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return ScoreModel(doubled, CHAIN.sde(), "noise", time_input="index", chain=CHAIN, variance="learned_range")


TARGET = scoresde.targets.Gaussian(torch.zeros(3), 0.5)
ALL: dict[str, tuple[Callable[..., Tensor], Callable[..., ScoreModel]]] = {
    "explicit": (functools.partial(losses.explicit_score_matching, score=TARGET), plain),
    "implicit": (losses.implicit_score_matching, plain),
    "hutchinson": (functools.partial(losses.implicit_score_matching, divergence="hutchinson"), plain),
    "sliced": (losses.sliced_score_matching, plain),
    "denoising sm": (losses.denoising_score_matching, plain),
    "denoising": (losses.denoising, plain),
    "edm": (losses.edm, plain),
    "v": (losses.v_prediction, plain),
    "flow": (losses.flow_matching, plain),
    "min_snr": (losses.min_snr, plain),
    "p2": (losses.p2, plain),
    "likelihood": (losses.likelihood_weighted, plain),
    "vdm": (losses.vdm, plain),
    "vdm, discrete": (functools.partial(losses.vdm, steps=10), plain),
    "simple": (losses.ddpm_simple, chained),
    "vlb": (losses.ddpm_vlb, chained),
    "vlb, learned": (losses.ddpm_vlb, learned),
    "hybrid": (losses.iddpm_hybrid, learned),
}


@pytest.mark.parametrize("name", ALL)
def test_a_loss_is_a_function_of_model_data_and_generator(name: str) -> None:
    """With gradients by the network, in the shape and the precision of the data."""
    loss, make = ALL[name]
    x0 = torch.randn(6, 3, generator=seeded())
    before, state = x0.clone(), torch.random.get_rng_state()
    first = loss(make(), x0, seeded(1))
    assert first.shape == (6,) and first.dtype == torch.float32 and bool(torch.isfinite(first).all())
    assert torch.equal(loss(make(), x0, seeded(1)), first)
    assert not torch.equal(loss(make(), x0, seeded(2)), first)
    assert torch.equal(torch.random.get_rng_state(), state) and torch.equal(x0, before)
    scale = torch.ones((), requires_grad=True)
    scaled = make(lambda x, t: scale * torch.tanh(x))
    (gradient,) = torch.autograd.grad(loss(scaled, x0, seeded()).mean(), scale)
    assert math.isfinite(gradient.item()) and gradient.item() != 0
    with torch.no_grad():
        assert not loss(scaled, torch.zeros(2, 3), seeded()).requires_grad

    for shape in [(6, 3)] if name == "explicit" else [(6, 3), (6, 3, 2, 2), (1, 1)]:
        for dtype, out in ((torch.float16, torch.float32), (F64, F64)):
            value = loss(make(), torch.zeros(shape, dtype=dtype), seeded())
            assert value.shape == shape[:1] and value.dtype == out
    assert loss(make(), torch.zeros(0, 3), seeded()).shape == (0,)


@pytest.mark.parametrize("name", ALL)
def test_context_reaches_the_network(name: str) -> None:
    loss, make = ALL[name]
    x0, seen = torch.randn(4, 3, generator=seeded()), []

    def told(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.append(label)
        return net(x, t, label)

    label = torch.arange(4)
    first = loss(make(told), x0, seeded(), label=label)
    assert seen and all(torch.equal(s, label) for s in seen)
    assert not torch.allclose(first, loss(make(told), x0, seeded(), label=label + 1))
    with pytest.raises(InvalidArgumentError, match="'lable' is neither"):
        loss(make(told), x0, seeded(), lable=label)


@pytest.mark.parametrize("name", ALL)
def test_bad_data_and_networks_are_refused(name: str) -> None:
    """Values that are not finite with their time and their samples."""
    loss, make = ALL[name]
    x0 = torch.zeros(5, 3)
    x0[3] = math.nan
    with pytest.raises(NonFiniteError, match=r"`x0` has NaN or infinite values in samples \[3\]") as caught:
        loss(make(), x0, seeded())
    assert caught.value.indices == [3] and caught.value.stage == "input" and caught.value.t is not None

    def broken(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x))[:, None] == 2, math.nan, 1.0) * x

    with pytest.raises(NonFiniteError, match=r"t = .*first \[2\]") as caught:
        loss(make(broken), torch.ones(5, 3), seeded())
    assert caught.value.stage == "score" and caught.value.indices == [2]
    x0 = torch.zeros(2, 3)
    cases = {
        "integers": (lambda: loss(make(), x0.long()), T, "`x0`.*float"),
        "no event": (lambda: loss(make(), x0[0]), V, "batch"),
        "no model": (lambda: loss(3.0, x0), T, "ScoreModel|callable"),
        "another shape": (lambda: loss(make(lambda x, t: x[:, :1]), x0), ScoreFnError, "shape"),
    }
    assert_refused(cases)


ONE = torch.zeros(1, 2)
WELL_OF = functools.partial(losses.transition_score_matching, net, ONE, sde=WELL)
CALLS: dict[str, Any] = {
    "target": (lambda: losses.denoising(plain(), ONE, target="nois"), V, "'noise'"),
    "weight": (lambda: losses.p2(plain(), ONE, k=0.0), V, "`k`"),
    "weight name": (lambda: losses.denoising(plain(), ONE, weight="min_snrr"), V, "'min_snr'"),
    "weight shape": (lambda: losses.denoising(plain(), ONE, weight=lambda n: torch.ones(3)), V, "one value per sample"),
    "divergence": (lambda: losses.implicit_score_matching(plain(), ONE, divergence="exct"), V, "'exact'"),
    "blocked": (lambda: losses.sliced_score_matching(plain(lambda x, t: x.detach()), ONE), ScoreFnError, "Gradients"),
    "inference mode": (lambda: inference(), V, "inference_mode"),
    "times of states": (lambda: losses.sliced_score_matching(net, torch.zeros(3, 2), t=torch.zeros(2)), V, "`t`"),
    "NaN states": (lambda: losses.sliced_score_matching(net, ONE * math.nan, t=0.5), NonFiniteError, "t = 0.5"),
    "a step beyond": (lambda: WELL_OF(t=1.95, step=0.1), V, "step"),
}


@torch.inference_mode()
def inference() -> Tensor:
    return losses.implicit_score_matching(plain(), ONE)


def test_refusals() -> None:
    assert_refused(CALLS)


def test_edm_takes_models_and_networks() -> None:
    """A raw network, and a ScoreModel that predicts F, or the noise, of the same denoiser: the same loss."""
    x0 = draws((8, 3))
    sde = scoresde.EDMSDE(1e-6, 1e6)
    raw = lambda x, c: torch.tanh(x) + c[:, None]  # noqa: E731
    model = ScoreModel(raw, sde, "edm", sigma_data=0.7)
    as_noise = ScoreModel(lambda x, t: model.noise(x, t), sde, "noise", sigma_data=0.7)
    first = losses.edm(raw, x0, seeded(), sigma_data=0.7)
    for other in (model, as_noise):
        torch.testing.assert_close(losses.edm(other, x0, seeded()), first, rtol=1e-8, atol=1e-10)
    for levels in (losses.LogNormal(), losses.LowDiscrepancy(losses.NoiseLevels())):
        torch.testing.assert_close(losses.edm(model, x0, seeded(), levels=levels), first, rtol=1e-8, atol=1e-10)
