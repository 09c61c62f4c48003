"""The measuring tools themselves, against references that do not use them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from scipy.integrate import solve_ivp

import scoresde
from scoresde import testing
from scoresde.solvers import SDESolver, StepResult

from .problems import GAUSSIAN, MIXTURE, PROCESSES, SHIFTED, STARTS, affine_from

F64 = torch.float64


@pytest.mark.parametrize("name", ["ve", "vp"])
def test_flow_map_agrees_with_an_independent_ode_solver(name: str) -> None:
    sde = PROCESSES[name]
    s, t = (sde.t_max, sde.t_min) if name == "vp" else (1.0, 0.1)
    flow = sde.probability_flow(MIXTURE.score(sde))
    starts = sde.prior.std * STARTS
    got = testing.mixture_flow_map(MIXTURE, starts, sde, s, t)
    drift = lambda u, y: flow.drift(torch.as_tensor(y)[:, None], float(u))[:, 0].numpy()  # noqa: E731
    reference = solve_ivp(drift, (s, t), starts[:, 0].numpy(), method="DOP853", rtol=1e-12, atol=1e-13)
    assert reference.success
    assert float((got[:, 0] - torch.as_tensor(reference.y[:, -1])).abs().max()) < 1e-9


def test_flow_map_of_one_component_is_the_gaussian_one_in_both_tails() -> None:
    sde = scoresde.VPSDE()
    mixture = scoresde.targets.GaussianMixture(torch.ones(1), torch.tensor([[0.7]], dtype=F64), scales=math.sqrt(0.3))
    x = torch.tensor([-30.0, -8.0, -1e-3, 0.0, 3.0, 8.0, 30.0], dtype=F64)[:, None]
    exact = SHIFTED.flow_map(x, sde, 1.0, 1e-3)
    got = testing.mixture_flow_map(mixture, x, sde, 1.0, 1e-3)
    assert float((got / exact - 1).abs().max()) < 1e-12


def test_flow_map_there_and_back() -> None:
    for name, sde in PROCESSES.items():
        x = torch.linspace(-9, 9, 37, dtype=F64)[:, None] * sde.prior.std
        there = testing.mixture_flow_map(MIXTURE, x, sde, sde.t_max, sde.t_min)
        assert bool((there.diff(dim=0) > 0).all()), name
        back = testing.mixture_flow_map(MIXTURE, there, sde, sde.t_min, sde.t_max)
        # A gap of low density near the data stretches the map, and rounding with it.
        assert float((back - x).abs().max()) < 1e-11 * sde.prior.std, name


def test_flow_map_keeps_dtype_and_shape_and_refuses_events_of_more_elements() -> None:
    sde = scoresde.VPSDE()
    x = torch.zeros(3, 1)
    got = testing.mixture_flow_map(MIXTURE, x, sde, 1.0, 0.5)
    assert got.shape == x.shape and got.dtype == x.dtype
    ring = scoresde.targets.GaussianMixture(torch.ones(2), torch.eye(2), scales=0.1)
    with pytest.raises(scoresde.InvalidArgumentError, match="one element"):
        testing.mixture_flow_map(ring, torch.zeros(1, 2), sde, 1.0, 0.5)


def test_probing_finds_a_map_that_is_known() -> None:
    generator = torch.Generator().manual_seed(0)
    c = torch.randn(4, generator=generator, dtype=F64)
    maps = torch.randn(3, 4, 4, generator=generator, dtype=F64)

    def run(shape: tuple[int, ...], draw: testing.Draw) -> torch.Tensor:
        like = torch.empty(shape, dtype=F64)
        return (c + sum(draw(k, like).flatten(1) @ maps[k].mT for k in range(3))).reshape(shape)

    affine = testing.probe(run, (2, 2))
    torch.testing.assert_close(affine.constant, c)
    torch.testing.assert_close(affine.response, maps)
    mean, covariance = testing.affine_law(run, (2, 2), draws=3)
    torch.testing.assert_close(mean, c)
    torch.testing.assert_close(covariance, sum(m @ m.mT for m in maps))
    with pytest.raises(scoresde.InvalidArgumentError, match="more than draws=2"):
        testing.probe(run, (2, 2), draws=2)


def test_probing_in_a_basis_equals_probing_in_full() -> None:
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(3, 3, generator=generator, dtype=F64)
    target = scoresde.targets.Gaussian(torch.randn(3, generator=generator, dtype=F64), root @ root.mT)
    sde = scoresde.VPSDE()

    def run(shape: tuple[int, ...], draw: testing.Draw) -> torch.Tensor:
        return scoresde.solve(sde, target.score(sde), method="pc", steps=7, shape=shape, noise=draw, dtype=F64).x

    full, quick = testing.probe(run, (3,)), testing.probe(run, (3,), basis=target.spectrum.basis)
    assert len(full.response) == 15  # the prior's draw, and two per step
    torch.testing.assert_close(full.constant, quick.constant, rtol=0, atol=1e-12)
    torch.testing.assert_close(full.response, quick.response, rtol=0, atol=1e-12)


def test_strong_error_of_nothing_is_the_exact_solution_s_spread() -> None:
    """A scheme that returns the mean is off by the standard deviation, whatever the path: an integral is checked."""
    for sde in PROCESSES.values():
        times = scoresde.grids.log_snr(sde, sde.t_max, sde.t_min, 64)
        alpha, sigma = float(sde.alpha(sde.t_min)), float(sde.sigma(sde.t_min))
        still = testing.AffineMap(torch.full((1,), alpha * 0.7, dtype=F64), torch.zeros(65, 1, 1, dtype=F64))
        spread = math.sqrt(alpha**2 * 0.3 + sigma**2)
        for eta in (0.0, 0.5, 1.0):
            got = testing.strong_error(still, SHIFTED, sde, times, stochasticity=eta)
            assert got == pytest.approx(spread, rel=1e-9)


def test_strong_error_equals_that_of_a_fine_path() -> None:
    """The quadrature against the plain definition: a coarse solve on the sums of a fine solve's increments."""
    sde, factor = scoresde.VPSDE(), 64
    fine = scoresde.grids.time(sde, 1.0, 0.05, 16 * factor)
    coarse = fine[::factor].clone()
    reference = affine_from(GAUSSIAN, sde, fine, "euler_maruyama")

    def run(shape: tuple[int, ...], draw: testing.Draw) -> torch.Tensor:
        coarser = testing.coarsen(draw, fine, factor)
        x = testing.gaussian_state(GAUSSIAN, sde, 1.0, coarser(0, torch.empty(shape, dtype=F64)))
        options = {"method": "euler_maruyama", "grid": coarse, "noise": lambda k, like: coarser(k + 1, like)}
        return scoresde.solve(sde, GAUSSIAN.score(sde), x, **options).x

    on_fine_draws = testing.probe(run, (1,), draws=len(fine))
    by_definition = float(((on_fine_draws.response - reference.response) ** 2).sum().sqrt())
    by_quadrature = testing.strong_error(affine_from(GAUSSIAN, sde, coarse, "euler_maruyama"), GAUSSIAN, sde, coarse)
    assert by_definition == pytest.approx(by_quadrature, rel=0.03)  # the fine solve is no exact one


@pytest.mark.parametrize("weighted", [False, True])
def test_coarse_draws_are_standard_and_compose(weighted: bool) -> None:
    sde = scoresde.VPSDE()
    times = scoresde.grids.log_snr(sde, 1.0, 0.01, 24)
    weight = (lambda u: sde.nodes(u).g2.sqrt() / sde.nodes(u).alpha) if weighted else None

    def unit(k: int, like: torch.Tensor) -> torch.Tensor:
        return torch.eye(25, dtype=F64)[k][:, None].expand(like.shape)

    like = torch.empty(25, 1, dtype=F64)
    twice = testing.coarsen(testing.coarsen(unit, times, 2, weight=weight), times[::2].clone(), 3, weight=weight)
    once = testing.coarsen(unit, times, 6, weight=weight)
    for k in range(5):
        torch.testing.assert_close(once(k, like), twice(k, like))
        assert float((once(k, like) ** 2).sum()) == pytest.approx(1.0)
    if not weighted:  # the sum of the fine steps' increments
        h = (times[:-1] - times[1:]).sqrt()
        torch.testing.assert_close(once(2, like)[7:13, 0] * h[6:12].square().sum().sqrt(), h[6:12])


def test_slopes_and_orders() -> None:
    measured = testing.converge(lambda n: 3.0 * n**-1.5, [5, 10, 40])
    assert measured.slopes == pytest.approx([1.5, 1.5]) and measured.order() == pytest.approx(1.5)
    assert measured.decreasing and not testing.Convergence((1, 2, 3), (1.0, 0.5, 0.5)).decreasing
    assert testing.slopes([1.0, 0.0], [1, 2]) == [math.inf] and math.isnan(testing.slopes([0.0, 0.0], [1, 2])[0])
    for bad in (lambda: testing.slopes([1.0], [1]), lambda: testing.order([1.0, 2.0], [1, 2], last=2)):
        with pytest.raises(scoresde.InvalidArgumentError):
            bad()


def test_the_strong_order_of_a_method_with_a_stochasticity_of_its_own() -> None:
    for options in ({"eta": 0.5}, {"eta": 1.0}):
        assert testing.strong_order("dpmpp_2m_sde", steps=(128, 256), **options).order() == pytest.approx(1, abs=0.1)
    assert testing.strong_order("sa_solver", tau=0.7, steps=(128, 256)).order() == pytest.approx(1, abs=0.15)
    with pytest.raises(scoresde.InvalidArgumentError, match="stochasticity"):
        testing.strong_order("dpmpp_2m_sde", stochasticity=0.5)


REFUSED = {
    "an order of an end point, of a stochastic method": lambda: testing.estimate_order("euler_maruyama"),
    "an order of an adaptive method": lambda: testing.estimate_order("adams"),
    "the contract of an adaptive method": lambda: testing.check_solver("adams"),
    "a budget of a stochastic method": lambda: testing.work_precision("ancestral", GAUSSIAN, PROCESSES["vp"]),
    "a recursion with memory": lambda: testing.weak_order("dpmpp_2m_sde", problem="mixture", steps=(8, 16)),
    "too few draws": lambda: testing.weak_order("sra1", problem="mixture", steps=(4, 8)),
    "one number of steps": lambda: testing.estimate_order("ddim", steps=(40,)),
    "steps that do not grow": lambda: testing.estimate_order("ddim", steps=(40, 40)),
    "steps that fall": lambda: testing.estimate_order("ddim", steps=(80, 40)),
}


def test_what_cannot_be_measured_is_refused() -> None:
    for case, measure in REFUSED.items():
        with pytest.raises(scoresde.InvalidArgumentError):
            pytest.fail(f"{case}: {measure()}")
    for measure in (testing.weak_order, testing.strong_order):
        with pytest.raises(scoresde.InvalidArgumentError, match="draws no noise; see estimate_order"):
            measure("heun")


def test_times_are_a_grid() -> None:
    sde = scoresde.VPSDE()
    x, score = torch.ones(1, 1), lambda x, t: -x
    for times in ([1.0, 0.5, 0.5], [1.0, 0.2, 0.4], [3.0, 0.5], [1.0], [1.0, math.nan], 0.5):
        with pytest.raises(scoresde.ScoreSDEError):
            testing.end_of("ddim", sde, score, x, times)  # type: ignore[arg-type]
    got = testing.end_of("ddim", sde, score, x, [1.0, 0.5, 0.1])  # type: ignore[arg-type]
    assert torch.equal(got, testing.end_of("ddim", sde, score, x, torch.tensor([1.0, 0.5, 0.1])))


def test_steps_that_are_not_linear_in_their_draws_are_refused() -> None:
    """Unit draws would show order 1 along the path where signs have none, and order 0 where three points have 1."""

    @dataclass(frozen=True)
    class Other(SDESolver):
        weak_order: ClassVar[int] = 1
        strong_order: ClassVar[float] = 1.0
        of: Callable[[torch.Tensor], torch.Tensor] = torch.sign

        def step(self, process: Any, x: Any, start: Any, stop: Any, state: Any) -> StepResult[Any]:
            h, z = stop.t - start.t, self.of((yield process.increment(start.t, stop.t, x)))
            return StepResult(
                x + h * (yield process.drift(x, start)) + process.diffusion(x, start) * abs(h) ** 0.5 * z, None
            )

    three_points = lambda z: 3**0.5 * z.sign() * (z.abs() > 1.3829941271)  # noqa: E731
    for of in (torch.sign, lambda z: z * z.abs(), three_points):
        for measure in (testing.weak_order, testing.strong_order):
            with pytest.raises(scoresde.InvalidArgumentError, match="not an affine map of its draws"):
                measure(Other(of=of))
    with pytest.raises(scoresde.InvalidArgumentError, match="not an affine map of its draws"):
        testing.weak_order(Other(), problem="mixture")


def test_a_solve_of_a_score_that_is_not_linear_is_no_affine_map() -> None:
    sde = scoresde.VPSDE()

    def run(shape: tuple[int, ...], draw: Any) -> torch.Tensor:
        return scoresde.solve(
            sde, MIXTURE.score(sde), method="ancestral", steps=4, shape=shape, noise=draw, dtype=F64
        ).x

    with pytest.raises(scoresde.InvalidArgumentError, match="score is not linear"):
        testing.probe(run, (1,))
