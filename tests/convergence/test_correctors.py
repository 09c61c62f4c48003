r"""Fixed points of the correctors besides the plain Langevin one.

On Gaussian data a call is an affine map, which probing reads off; the adjusted corrector is no such map, and its
distribution is tested with seeded samples.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import scoresde
from scoresde import LangevinCorrector, MALACorrector, UnderdampedCorrector, testing
from scoresde.core.processes import Network, ReverseProcess

from .problems import GAUSSIAN, MIXTURE, PROCESSES

F64 = torch.float64
NAMES = ["vp", "ve", "flow"]


def at_unit_noise(name: str, target: scoresde.targets.Gaussian | scoresde.targets.GaussianMixture):
    """The process at sigma/alpha = 1, as a corrector sees it, and the node."""
    sde = PROCESSES[name]
    return ReverseProcess(sde, Network(target.score(sde)), eta=1.0), sde.node(float(sde.time(0.0)))


class Given(scoresde.Noise):
    def __init__(self, draw: testing.Draw) -> None:
        self.draw, self.k = draw, 0

    def normal(self, like: torch.Tensor) -> torch.Tensor:
        self.k += 1
        return self.draw(self.k, like)


def variance_after(corrector: scoresde.Corrector, name: str, start: float) -> tuple[float, float]:
    """The variance after a call on N(0, start v), relative to v, exactly; and the number of draws."""
    process, node = at_unit_noise(name, GAUSSIAN)
    v = node.alpha**2 * 0.3 + node.sigma**2
    draws = 0

    def run(shape: tuple[int, ...], draw: testing.Draw) -> torch.Tensor:
        nonlocal draws
        noise = Given(draw)
        x = math.sqrt(start * v) * draw(0, torch.empty(shape, dtype=F64))
        out = replace(process, noise=noise).run(corrector.correct(process, x, node))
        draws = noise.k
        return out

    return float(testing.probe(run, (1,)).covariance) / v, draws


@pytest.mark.parametrize("name", NAMES)
def test_underdamped_is_the_splitting(name: str) -> None:
    """Against the recursion of the covariance of (x, v), written as matrices."""
    snr, moves = 0.4, 3
    process, node = at_unit_noise(name, GAUSSIAN)
    var = node.alpha**2 * 0.3 + node.sigma**2
    h = snr * node.sigma
    kick = torch.tensor([[1.0, 0.0], [-0.5 * h / var, 1.0]], dtype=F64)
    drift = torch.tensor([[1.0, 0.5 * h], [0.0, 1.0]], dtype=F64)
    for friction in (0.0, 1.0, 50.0):
        corrector, kept = UnderdampedCorrector(snr, moves, friction), math.exp(-friction * snr)
        damp = torch.diag(torch.tensor([1.0, kept], dtype=F64))
        heat = torch.diag(torch.tensor([0.0, 1 - kept**2], dtype=F64))
        covariance = torch.diag(torch.tensor([1.7 * var, 1.0], dtype=F64))
        for _ in range(moves):
            for matrix, added in ((drift @ kick, 0 * heat), (damp, heat), (kick @ drift, 0 * heat)):
                covariance = matrix @ covariance @ matrix.mT + added
        got, draws = variance_after(corrector, name, 1.7)
        assert got == pytest.approx(float(covariance[0, 0]) / var, rel=1e-12), friction
        assert draws == moves + 1
        before = process.network.calls
        still = replace(process, noise=Given(lambda k, like: torch.zeros_like(like)))
        still.run(corrector.correct(process, torch.zeros(2, 1, dtype=F64), node))
        assert process.network.calls - before == moves + 1 == corrector.evaluations


def test_underdamped_forgets_a_wrong_variance_and_has_a_small_bias() -> None:
    errors = [
        abs(variance_after(UnderdampedCorrector(snr=0.2, moves=moves), "vp", 2.0)[0] - 1) for moves in (5, 20, 80)
    ]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.01
    # From the right distribution, after 8 evaluations with moves of the same length: Langevin's epsilon is h^2 / 2.
    plain, _ = variance_after(LangevinCorrector(snr=0.4 / 2, moves=8), "vp", 1.0)
    fine, _ = variance_after(UnderdampedCorrector(snr=0.4, moves=7), "vp", 1.0)
    assert abs(fine - 1) < 0.5 * abs(plain - 1)


by_rule = pytest.mark.parametrize("rule", ["batch", "sample", "dimension"])


@by_rule
def test_norm_rules_as_they_are_written(rule: str) -> None:
    process, node = at_unit_noise("vp", GAUSSIAN)
    generator = torch.Generator().manual_seed(1)
    x, z = torch.randn(2, 5, 1, generator=generator, dtype=F64)
    process = replace(process, noise=Given(lambda k, like: z))
    got = process.run(LangevinCorrector(snr=0.2, rule=rule, chain=50).correct(process, x, node))
    score = process.network.score(x, node)
    ratio = {
        "batch": (z.abs().mean() / score.abs().mean()).expand(5, 1),
        "sample": z.abs() / score.abs(),
        "dimension": 1 / score.abs(),
    }[rule]
    epsilon = 2 * (1 + 2 * node.f / 50) * (0.2 * ratio) ** 2
    torch.testing.assert_close(got, x + epsilon * score + (2 * epsilon).sqrt() * z, rtol=1e-12, atol=1e-13)
    assert 1 + 2 * node.f / 50 < 1  # 1 - beta/N on VP
    assert PROCESSES["ve"].node(0.5).f == 0.0  # and 1 on VE


@by_rule
def test_norm_rules_have_their_fixed_point_in_large_dimension(rule: str) -> None:
    """v(1 + r^2), to 2 % at D = 4000, where the norms have a relative spread of 1/sqrt(2D) = 1 %: four standard errors
    of the mean square of 80,000 numbers, one seed (false alarms: 1 in 16,000)."""
    target = scoresde.targets.Gaussian(torch.zeros(4000, dtype=F64), 0.3)
    process, node = at_unit_noise("ve", target)
    generator = torch.Generator().manual_seed(0)
    x = 1.3**0.5 * torch.randn(20, 4000, generator=generator, dtype=F64)
    noise = scoresde.BatchNoise(generator)
    r = 0.3
    for _ in range(40):
        x = replace(process, noise=noise).run(LangevinCorrector(snr=r, rule=rule).correct(process, x, node))
    assert float(x.square().mean()) / 1.3 == pytest.approx(1 + r * r, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_mala_leaves_the_law_alone_where_langevin_does_not(name: str) -> None:
    """20,000 exact samples of a mixture, ten large moves. Mean and second moment stay within 4.5 standard errors (false
    alarms: 1 in 70,000 per figure; 3 % of a standard deviation is seen); the unadjusted moves are off by far more."""
    sde = PROCESSES[name]
    process, node = at_unit_noise(name, MIXTURE)
    generator = torch.Generator().manual_seed(2)
    x = MIXTURE.sample(20_000, sde, node.t, generator=generator)
    noise = scoresde.BatchNoise(generator)

    powers = lambda v: np.stack([v**p for p in range(5)], axis=1)  # noqa: E731
    exact = testing.expectations_of_law(MIXTURE, sde, float(node.t), powers)

    def gaps(y: torch.Tensor) -> list[float]:
        return [
            (float((y**p).mean()) - float(exact[p])) / float((exact[2 * p] - exact[p] ** 2) / len(y)) ** 0.5
            for p in (1, 2)
        ]

    process, corrector = replace(process, noise=noise), MALACorrector(lambda x, t: MIXTURE.log_prob(x, sde, t), 0.7, 10)
    adjusted = process.run(corrector.correct(process, x, node))
    plain = process.run(LangevinCorrector(snr=0.7, moves=10).correct(process, x, node))
    assert max(map(abs, gaps(adjusted))) < 4.5, gaps(adjusted)
    assert abs(gaps(plain)[1]) > 14
    moved = (adjusted != x).any(1).double().mean()
    assert 0.5 < float(moved) <= 1.0


def test_mala_rejects_what_it_must() -> None:
    """A proposal into a region of no density is never taken."""
    process, node = at_unit_noise("vp", GAUSSIAN)
    wall = lambda x, t: torch.where(x[:, 0].abs() < 0.5, 0.0, -math.inf)  # noqa: E731
    x = torch.zeros(4000, 1, dtype=F64)
    noise = scoresde.BatchNoise(torch.Generator().manual_seed(0))
    process = replace(process, noise=noise)
    out = process.run(MALACorrector(wall, snr=0.5, moves=5).correct(process, x, node))
    assert float(out.abs().max()) < 0.5 and bool((out != 0).any())


@pytest.mark.cells(8)
@pytest.mark.parametrize("predictor", ["ancestral", "ddim", "dpmpp_2m", "heun_sde", "edm", "dpmpp_2s_ancestral"])
@pytest.mark.parametrize("corrector", ["langevin", "underdamped", "mala"])
def test_every_corrector_with_predictors_of_every_kind(corrector: str, predictor: str) -> None:
    """4,000 samples, whose mean has a standard error of 0.015 and the second moment one of 2 %."""
    sde = PROCESSES["flow"]
    options = {"log_prob": lambda x, t: MIXTURE.log_prob(x, sde, t)} if corrector == "mala" else {}
    options |= {"method": "pc", "corrector": corrector, "predictor": predictor, "steps": 100}
    got = scoresde.solve(sde, MIXTURE.score(sde), shape=(4000, 1), seed=0, dtype=F64, **options)
    mean, second = float(got.x.mean()), float(got.x.square().mean())
    exact = 0.3 * -1.2 + 0.5 * 0.4 + 0.2 * 1.5
    assert mean == pytest.approx(exact, abs=0.12)
    assert second == pytest.approx(0.3 * (1.44 + 0.09) + 0.5 * (0.16 + 0.04) + 0.2 * (2.25 + 0.16), rel=0.12)


def test_refusals() -> None:
    for make in (LangevinCorrector, scoresde.solvers.Langevin):
        with pytest.raises(scoresde.InvalidArgumentError, match="diverge"):
            make(snr=1.0)
    with pytest.raises(scoresde.InvalidArgumentError, match="rule"):
        LangevinCorrector(rule="norm")
    with pytest.raises(scoresde.InvalidArgumentError, match="log_prob"):
        scoresde.solvers.make_solver("pc", {"corrector": "mala"})
    for wrong in (lambda x, t: x, lambda x, t: torch.full((len(x),), math.nan), lambda x, t: torch.zeros(4) + math.inf):
        with pytest.raises(scoresde.ScoreFnError, match="log_prob"):
            scoresde.solve(
                scoresde.VPSDE(), lambda x, t: -x, method="pc", corrector=MALACorrector(wrong), steps=3, shape=(4, 1)
            )


def test_outside_the_support_every_proposal_is_rejected() -> None:
    corrector = MALACorrector(lambda x, t: torch.full((len(x),), -math.inf))
    got = scoresde.solve(
        scoresde.VPSDE(), lambda x, t: -x, method="pc", corrector=corrector, predictor="ddim", steps=3, shape=(4, 1)
    ).x
    assert bool(torch.isfinite(got).all())


def test_a_chain_too_short_for_the_process_is_refused_before_the_first_evaluation() -> None:
    def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    for rule in ("sigma", "batch", "sample", "dimension"):
        for sde, chain in ((scoresde.VPSDE(), 10), (scoresde.FlowSDE(), 1000)):
            with pytest.raises(scoresde.InvalidArgumentError, match="chain"):
                scoresde.solve(sde, score, torch.ones(2, 3), method="pc", steps=20, chain=chain, rule=rule)
