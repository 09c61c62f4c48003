"""Distributions of noise levels: the mean over a distribution with its weights is the mean over uniform times, by
quadrature."""

from __future__ import annotations

import copy
import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import losses
from scoresde.core.errors import CheckpointMismatchError, InvalidArgumentError, InvalidTypeError, NonFiniteError
from scoresde.discrete import BetaChain

from .refusals import assert_refused

F64 = torch.float64
V, T = InvalidArgumentError, InvalidTypeError
VP, SUB, VE = scoresde.VPSDE(t_min=1e-5), scoresde.SubVPSDE(t_min=1e-5), scoresde.VESDE()
PROCESSES = {"vp": VP, "sub_vp": SUB, "ve": VE, "flow": scoresde.FlowSDE(), "edm": scoresde.EDMSDE(0.05, 20.0)}
MIXED = losses.NoiseLevels(0.0, 1.5, uniform=0.3, rho_min=1e-9, rho_max=1e9)
LAWS = {
    "uniform": losses.UniformTimes(),
    "low_discrepancy": losses.LowDiscrepancy(losses.LogUniform()),
    "log_normal": losses.LogNormal(0.0, 2.0),
    "logit_normal": losses.LogitNormal(0.3, 1.2),
    "log_uniform": losses.LogUniform(),
    "levels": losses.NoiseLevels(0.0, 2.0),
    "importance": losses.Importance("likelihood"),
    "importance of a function": losses.Importance(lambda node: 1 + node.t**2, mesh=64),
}


def gauss(low: float, high: float, cells: int = 400, points: int = 8) -> tuple[Tensor, Tensor]:
    """Composite Gauss–Legendre nodes and weights in z, u = Phi(z): distributions with normal tails are smooth in it."""
    x, w = (torch.tensor(v, dtype=F64) for v in np.polynomial.legendre.leggauss(points))
    edges = torch.linspace(low, high, cells + 1, dtype=F64)
    half = 0.5 * edges.diff()
    z = (edges[:-1, None] + half[:, None] * (x + 1)).flatten()
    return torch.special.ndtr(z), (half[:, None] * w).flatten() * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def place(sde: scoresde.AffineSDE, t: Tensor) -> Tensor:
    return (t - sde.t_min) / (sde.t_max - sde.t_min)


@pytest.mark.parametrize("name", LAWS)
def test_the_weights_undo_the_law(name: str) -> None:
    """E[w f(t)] over u is the mean of f = cos over the times that these u reach: all but 1e-9 at either end of u, where
    a double near 1 no longer resolves the tails."""
    law = LAWS[name]
    u, w = gauss(-6.0, 6.0, cells=2000 if "importance" in name else 400)
    for process, sde in PROCESSES.items():
        draw = law.at(sde, u)
        assert bool((draw.t.diff() >= 0).all()) and sde.t_min <= draw.t[0] and draw.t[-1] <= sde.t_max, process
        ends = place(sde, law.at(sde, torch.special.ndtr(torch.tensor([-6.0, 6.0], dtype=F64))).t)
        got = float(w @ (draw.weight * torch.cos(2 * place(sde, draw.t))))
        exact = float(0.5 * (torch.sin(2 * ends[1]) - torch.sin(2 * ends[0])))
        assert got == pytest.approx(exact, rel=2e-6 if "importance" in name else 1e-8), process


def test_the_weights_undo_a_mixture_of_laws() -> None:
    """The uniform share comes first in u, then the normal one, each rising; both sum up to the mean."""
    u, w = gauss(-6.5, 6.5, 800)
    for process, sde in PROCESSES.items():
        low, high = (-0.5 * float(sde.log_snr(t)) for t in (sde.t_min, sde.t_max))
        below, above = (0.5 * (1 + math.erf((v - MIXED.mean) / MIXED.std / math.sqrt(2))) for v in (low, high))
        flat = MIXED.uniform * (high - low) / math.log(MIXED.rho_max / MIXED.rho_min)
        share = flat / (flat + (1 - MIXED.uniform) * (above - below))
        total = 0.0
        for start, length in ((0.0, share), (share, 1 - share)):
            draw = MIXED.at(sde, start + length * u)
            assert bool((draw.t.diff() >= 0).all()), process
            total += length * float(w @ (draw.weight * torch.cos(2 * place(sde, draw.t))))
        assert total == pytest.approx(0.5 * math.sin(2.0), rel=1e-6), process


def test_importance_inverts_the_closed_forms() -> None:
    """t in proportion to g^2/sigma^2: VP and sub-VP by their integrals, VE uniform; the whole integrals too."""
    u = torch.linspace(0.001, 0.999, 999, dtype=F64)
    law = losses.Importance("likelihood")
    e0, e1 = (torch.expm1(torch.tensor(0.1 * t + 9.95 * t * t, dtype=F64)) for t in (1e-5, 1.0))
    b = torch.log1p(e0 ** (1 - u) * e1**u)
    exact = (-0.1 + torch.sqrt(0.01 + 39.8 * b)) / 19.9
    assert float((law.at(VP, u).t / exact - 1).abs().max()) < 1e-6
    assert float((losses.LogUniform().at(VP, u).t / exact - 1).abs().max()) < 1e-9
    for sde, total in ((VP, 23.8645), (SUB, 37.6789)):
        t = law.at(sde, u).t
        integral = lambda v, two=sde is SUB: (  # noqa: E731
            (1 + two) * torch.log(torch.expm1(0.1 * v + 9.95 * v * v)) - two * (0.1 * v + 9.95 * v * v)
        )
        start, end = (integral(torch.tensor(v, dtype=F64)) for v in (1e-5, 1.0))
        assert float(end - start) == pytest.approx(total, abs=1e-4)
        assert float(((integral(t) - start) / (end - start) - u).abs().max()) < 1e-6
        constant = law.at(sde, u).weight * losses.WEIGHTS["likelihood"](sde.nodes(t)) * (sde.t_max - sde.t_min)
        assert float((constant / total - 1).abs().max()) < 1e-4
    assert float((place(VE, law.at(VE, u).t) - u).abs().max()) < 1e-9


def test_low_discrepancy_is_spread_and_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all shifts every number of the batch goes through the same values, those of the shifts."""
    law = losses.LowDiscrepancy()
    u = law.uniforms(7, torch.Generator().manual_seed(0))
    assert torch.allclose(u.sort().values.diff(), torch.full((6,), 1 / 7, dtype=F64))
    assert law.uniforms(0, None).shape == (0,)
    shifts = (torch.arange(700, dtype=F64) + 0.5) / 700
    rows = []
    for shift in shifts:
        monkeypatch.setattr(torch, "rand", lambda *args, shift=shift, **kwargs: shift)
        rows.append(law.uniforms(7, None))
    seen = torch.stack(rows).sort(0).values
    torch.testing.assert_close(seen, shifts[:, None].expand(-1, 7), rtol=0, atol=1e-12)


def test_the_laws_follow_their_names() -> None:
    """Medians, and a quantile of each, from closed forms."""
    u = torch.tensor([0.5, 0.8], dtype=F64)
    z = 0.8416212335729143
    wide = scoresde.EDMSDE(1e-9, 1e9)
    levels = torch.tensor([-1.2, -1.2 + 1.2 * z], dtype=F64).exp()
    torch.testing.assert_close(losses.LogNormal().at(wide, u).t, levels)
    torch.testing.assert_close(losses.NoiseLevels().at(wide, u).t, levels)
    flow = scoresde.FlowSDE(t_min=0.0, t_max=1.0)
    torch.testing.assert_close(losses.LogitNormal().at(flow, u).t, torch.sigmoid(torch.tensor([0.0, z], dtype=F64)))
    torch.testing.assert_close(losses.Fixed(0.3).at(flow, u).t, torch.full((2,), 0.3, dtype=F64))
    mixed = losses.NoiseLevels(mean=-0.5, std=1.5, uniform=0.3, rho_min=0.01, rho_max=100.0)
    log = mixed((torch.arange(20_000, dtype=F64) + 0.5) / 20_000).log()
    for point in (-4.0, -1.0, 0.0, 2.0, 4.0):
        normal = 0.5 * (1 + math.erf((point + 0.5) / 1.5 / math.sqrt(2)))
        flat = (point - math.log(0.01)) / math.log(1e4)
        assert float((log < point).to(F64).mean()) == pytest.approx(0.7 * normal + 0.3 * flat, abs=1e-4)
    given = losses.FromLevels(lambda v: 1 + v).at(wide, u)
    torch.testing.assert_close(given.t, 1 + u)
    assert bool(given.weight.isnan().all())
    slope = torch.nn.Parameter(torch.tensor(5.0, dtype=F64))
    draw = losses.LogUniform().draw(scoresde.VDMSDE(lambda t: -3 + slope * t), 4, torch.Generator().manual_seed(0))
    assert not draw.t.requires_grad and not draw.weight.requires_grad


CHAIN = BetaChain.linear(6)


def filled() -> losses.LossSecondMoment:
    law = losses.LossSecondMoment(CHAIN, history=2, uniform_prob=0.1)
    rising = torch.arange(1, 7)
    for values in (5 * rising.flip(0), rising, 3 * rising):  # the first is forgotten
        law.update(torch.arange(6), values)
    return law


@pytest.mark.parametrize(
    "law",
    [losses.UniformIndex(CHAIN), losses.WeightedIndex(CHAIN, [1, 2, 3, 4, 5, 6]), filled()],
    ids=lambda law: type(law).__name__,
)
def test_laws_of_levels_have_no_bias(law: losses.IndexLaw) -> None:
    """Every level has the measure of u that its probability says, and the weight 1/(T p); a u that rounds to 1 has the
    last."""
    p = law.probabilities()
    ends = torch.cat([torch.zeros(1, dtype=F64), p.cumsum(0)])
    assert float(ends[-1]) == pytest.approx(1.0)
    inner = torch.cat([ends[:-1] + 1e-9, ends[1:] - 1e-9, torch.ones(1, dtype=F64)])
    draw = law.at(CHAIN.sde(), inner)
    assert draw.index is not None and draw.index.tolist() == [*range(6), *range(6), 5]
    assert torch.equal(draw.t, CHAIN.times[draw.index])
    f = torch.arange(6, dtype=F64).cos()
    assert float((p * draw.weight[:6] * f).sum()) == pytest.approx(float(f.mean()), rel=1e-12)


LONG = BetaChain.linear(1000)
OF_LONG = scoresde.ScoreModel(lambda x, i: 0 * x, LONG.sde(), "noise", time_input="index", chain=LONG)


def test_levels_of_a_chain_are_refused_for_another_process() -> None:
    def plain(sde: scoresde.AffineSDE) -> scoresde.ScoreModel:
        return scoresde.ScoreModel(lambda x, t: 0 * x, sde, "noise")

    others = {
        "served on part": OF_LONG.on(scoresde.VPSDE(t_min=0.05)),
        "served on another": OF_LONG.on(scoresde.EDMSDE(0.02, 10.0)),
        "of no chain": plain(scoresde.VPSDE()),
        "of another chain": plain(BetaChain.cosine(1000).sde()),
        "of a part": plain(LONG.sde(t_max=500.0)),
    }
    x, law = torch.zeros(4, 2), losses.UniformIndex(LONG)
    assert_refused(
        {
            name: (lambda m=m: losses.denoising(m, x, times=law), V, "the process has other levels at these times")
            for name, m in others.items()
        }
        | {"by default": (lambda: losses.denoising(others["served on part"], x), V, "LowDiscrepancy")}
    )


def test_levels_of_a_part_of_a_chain() -> None:
    """They have the chain's times, so that they will do for denoising; but other places than in the bound's chain."""
    law = losses.UniformIndex(LONG.respace(10))
    assert losses.denoising(OF_LONG, torch.zeros(4, 2), times=law).shape == (4,)
    for loss in (losses.ddpm_vlb, functools.partial(losses.ddpm_vlb, form="weighted")):
        with pytest.raises(InvalidArgumentError, match="another chain"):
            loss(OF_LONG, torch.zeros(4, 2), torch.Generator().manual_seed(0), times=law)


def test_the_second_moment_is_of_the_last_losses() -> None:
    """Histories 1 and 3 of each level: the roots go as 1 … 6; a tenth is uniform."""
    root = torch.arange(1, 7, dtype=F64)
    torch.testing.assert_close(filled().probabilities(), 0.9 * root / root.sum() + 0.1 / 6)
    law = losses.LossSecondMoment(CHAIN, history=2)
    for _ in range(2):
        law.update(torch.arange(5), torch.ones(5))
    assert bool((law.probabilities() == 1 / 6).all())  # one level has no history yet


def test_the_second_moment_is_saved_and_read() -> None:
    law, other = filled(), losses.LossSecondMoment(CHAIN, history=2, uniform_prob=0.1)
    other.load_state_dict(copy.deepcopy(law.state_dict()))
    assert torch.equal(other.probabilities(), law.probabilities())
    law.update(torch.tensor([0]), torch.tensor([100.0]))
    assert not torch.equal(other.probabilities(), law.probabilities())
    with pytest.raises(CheckpointMismatchError, match="squares"):
        losses.LossSecondMoment(CHAIN).load_state_dict(law.state_dict())


def test_a_loss_reports_to_its_law() -> None:
    """And not under no_grad."""
    law = losses.LossSecondMoment(CHAIN, history=1, uniform_prob=0.0)
    model = scoresde.ScoreModel(lambda x, i: 0 * x, CHAIN.sde(), "noise", time_input="index", chain=CHAIN)
    for seed in range(30):
        with torch.no_grad():
            losses.ddpm_vlb(model, torch.ones(8, 2), torch.Generator().manual_seed(seed), times=law)
    assert int(law.state_dict()["counts"].sum()) == 0
    for seed in range(30):
        losses.ddpm_vlb(model, torch.ones(8, 2), torch.Generator().manual_seed(seed), times=losses.LowDiscrepancy(law))
    assert int(law.state_dict()["counts"].sum()) == 240
    assert not torch.allclose(law.probabilities(), torch.full((6,), 1 / 6, dtype=F64))


ZERO = torch.zeros(2, dtype=F64)
FLOW = scoresde.FlowSDE(t_max=1.0)
REFUSED = {
    "a law of levels of an infinite end": (lambda: losses.LogUniform().at(FLOW, ZERO), V, "finite log-SNR"),
    "no affine process": (lambda: losses.LogNormal().at(object(), ZERO), T, "affine"),  # type: ignore
    "an infinite weight": (
        lambda: losses.Importance("likelihood").at(scoresde.FlowSDE(t_min=0.0), ZERO),
        V,
        "positive and finite",
    ),
    "a law beyond the process": (lambda: losses.LogNormal(100.0, 0.1).at(VP, ZERO), V, "no mass"),
    "a time beyond the process": (lambda: losses.Fixed(2.0).at(VP, ZERO), V, "`t`"),
    "levels upside down": (lambda: losses.NoiseLevels(rho_min=2.0, rho_max=1.0), V, "distribution of noise levels"),
    "negative levels": (lambda: losses.FromLevels(lambda u: -u).at(VP, ZERO), V, "levels"),
    "too few weights": (lambda: losses.WeightedIndex(CHAIN, [1.0]), V, "weights"),
    "a place beyond the chain": (lambda: filled().update(torch.tensor([6]), torch.ones(1)), V, "index"),
    "a loss of NaN": (lambda: filled().update(torch.tensor([0]), torch.tensor([math.nan])), NonFiniteError, "losses"),
    "a share above 1": (lambda: losses.LossSecondMoment(CHAIN, uniform_prob=2), V, "uniform_prob"),
}


def test_refusals() -> None:
    assert_refused(REFUSED)
