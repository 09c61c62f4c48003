"""Forward processes: schedules, rates, kernels, forms, priors, and what their constructors refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scoresde import (
    EDMSDE,
    SDE,
    VDMSDE,
    VESDE,
    VPSDE,
    CosineVPSDE,
    FlowSDE,
    GaussianSDE,
    InvalidArgumentError,
    InvalidTypeError,
    LinearGamma,
    NormalPrior,
    ShiftedGamma,
    SigmoidVPSDE,
    SubVPSDE,
)
from scoresde.discrete import BetaChain
from tests.unit import high_precision
from tests.unit.refusals import assert_refused
from tests.unit.strategies import PROCESSES, Schedule, monotone, named, schedules, three_times, times

F64 = torch.float64


@pytest.fixture(params=PROCESSES)
def sde(request: pytest.FixtureRequest) -> Any:
    return PROCESSES[request.param]()


def close(actual: Tensor, expected: Tensor, rtol: float, atol: float = 0.0) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def rates(sde: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """f and g^2 through the public methods."""
    return sde.drift(torch.ones(len(t), 1, dtype=F64), t)[:, 0], sde.diffusion(t) ** 2


def gradient(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    u = t.clone().requires_grad_()
    out = function(u).sum()
    if not out.requires_grad:  # a constant
        return torch.zeros_like(t)
    return torch.autograd.grad(out, u)[0]


def autodiff_agrees(sde: Any, t: Tensor) -> None:
    f, g2 = rates(sde, t)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    close(f, gradient(sde.alpha, t) / alpha, rtol=1e-10, atol=1e-14)
    close(g2, gradient(lambda u: sde.sigma(u) ** 2, t) - 2 * f * sigma**2, rtol=1e-10, atol=1e-14)
    close(g2, -(sigma**2) * gradient(sde.log_snr, t), rtol=1e-10)
    nodes = sde.nodes(t)
    close(nodes.dalpha, gradient(sde.alpha, t), rtol=1e-10, atol=1e-14)
    close(nodes.dsigma, gradient(sde.sigma, t), rtol=1e-10, atol=1e-14)


def test_rates_agree_with_autodiff(sde: Any) -> None:
    near_ends = torch.tensor([1e-6, 1e-4, 0.01, 0.99, 1 - 1e-4], dtype=F64)
    t = torch.cat([times(sde, 33), sde.t_min + (sde.t_max - sde.t_min) * near_ends])
    autodiff_agrees(sde, t)


@given(named)
@settings(max_examples=60)
def test_rates_of_random_named_processes_agree_with_autodiff(sde: Any) -> None:
    autodiff_agrees(sde, times(sde, 9))


@given(monotone)
@settings(max_examples=60)
def test_rates_of_random_functions_agree_with_their_written_derivatives(schedule: Schedule) -> None:
    t = times(schedule.sde, 9)
    sde = schedule.sde
    log_alpha_rate, log_sigma_rate = schedule.rates(t)
    f, g2 = rates(sde, t)
    sigma = sde.sigma(t)
    close(f, log_alpha_rate, rtol=1e-10, atol=1e-12)
    close(g2, 2 * sigma**2 * (log_sigma_rate - log_alpha_rate), rtol=1e-10)
    nodes = sde.nodes(t)
    close(nodes.dalpha, sde.alpha(t) * log_alpha_rate, rtol=1e-10, atol=1e-12)
    close(nodes.dsigma, sigma * log_sigma_rate, rtol=1e-10, atol=1e-12)


def test_node_has_the_values_of_the_public_methods_as_floats(sde: Any) -> None:
    t = float(times(sde, 3)[1])
    node = sde.node(t)
    assert all(type(value) is float for value in node)
    assert node.t == t
    assert node.alpha == float(sde.alpha(t))
    assert node.sigma == float(sde.sigma(t))
    assert node.lam == pytest.approx(float(sde.log_snr(t)) / 2, rel=1e-15, abs=1e-15)
    assert node.g2 == pytest.approx(float(sde.diffusion(t)) ** 2, rel=1e-14)
    many = sde.nodes(torch.tensor([t, t], dtype=F64))
    assert all(value.tolist() == [one, one] for value, one in zip(many, node, strict=True))


def test_log_snr_is_that_of_alpha_and_sigma(sde: Any) -> None:
    t = times(sde, 33)
    close(sde.log_snr(t), torch.log(sde.alpha(t) ** 2 / sde.sigma(t) ** 2), rtol=1e-12, atol=1e-12)


def test_cosine_constants() -> None:
    sde = CosineVPSDE(t_max=1.0)

    def alpha_bar(i: int, steps: int) -> float:
        return float(sde.alpha(i / steps)) ** 2

    # FORMULAS of improved DDPM: first beta and, with beta clipped at 0.999, the last alpha-bar
    assert 1 - alpha_bar(1, 1000) == pytest.approx(4.13e-5, rel=2e-3)
    assert 1 - alpha_bar(1, 4000) == pytest.approx(9.9e-6, rel=5e-3)
    assert 1e-3 * alpha_bar(999, 1000) == pytest.approx(2.43e-9, rel=2e-3)
    assert 1e-3 * alpha_bar(3999, 4000) == pytest.approx(1.5e-10, rel=2e-2)
    clipped = [1 - alpha_bar(i, 1000) / alpha_bar(i - 1, 1000) > 0.999 for i in range(1, 1001)]
    assert clipped == [False] * 999 + [True]
    assert float(sde.log_snr(CosineVPSDE().t_max)) / 2 == pytest.approx(-4.8, abs=0.05)


@pytest.mark.parametrize(
    ("start", "end", "tau"), [(-3.0, 3.0, 1.0), (0.0, 3.0, 0.7), (-3.0, 3.0, 0.3), (1.0, 9.0, 2.0)]
)
def test_sigmoid_is_the_published_schedule(start: float, end: float, tau: float) -> None:
    sde = SigmoidVPSDE(start, end, tau)

    def published(t: float) -> float:  # algorithm 1 of Chen (2023), without its clipping
        v = [1 / (1 + math.exp(-u / tau)) for u in (start, start + t * (end - start), end)]
        return (v[2] - v[1]) / (v[2] - v[0])

    for t in (0.01, 0.3, 0.5, 0.9):
        assert float(sde.alpha(t)) ** 2 == pytest.approx(published(t), rel=1e-11)
        assert float(sde.alpha(t)) ** 2 + float(sde.sigma(t)) ** 2 == pytest.approx(1.0, rel=1e-14)
    t = times(sde, 17)
    autodiff_agrees(sde, t)
    close(sde.time(sde.log_snr(t)), t, rtol=1e-11)
    chain = BetaChain.sigmoid(100, start, end, tau)
    wanted = [min(1 - published((i + 1) / 100) / published(i / 100), 0.999) for i in range(100)]
    close(chain.betas, torch.tensor(wanted, dtype=F64), rtol=1e-9)
    assert float(chain.betas[-1]) == pytest.approx(0.999, rel=1e-12)


def test_shifted_gamma_shifts_the_log_snr() -> None:
    """With the shift of simple diffusion the noise over the signal is as many times larger as the image."""
    base = CosineVPSDE()
    sde = VDMSDE(ShiftedGamma(base, 2 * math.log(256 / 64)), t_min=base.t_min, t_max=base.t_max)
    t = times(base, 9)
    close(sde.sigma(t) / sde.alpha(t), 4 * base.sigma(t) / base.alpha(t), rtol=1e-13)
    close(sde.time(sde.log_snr(t)), t, rtol=1e-12)
    autodiff_agrees(sde, t)
    bisected = VDMSDE(lambda u: ShiftedGamma(base, 1.0)(u), t_min=base.t_min, t_max=base.t_max)
    close(bisected.time(bisected.log_snr(t)), t, rtol=1e-12)


def test_default_interval_and_prior() -> None:
    defaults: dict[str, tuple[tuple[float, float], float]] = {
        "ve": ((1e-5, 1.0), 50.0),
        "vp": ((1e-3, 1.0), 1.0),
        "subvp": ((1e-3, 1.0), 1.0),
        "cosine": ((1e-3, 0.9946), 1.0),
        "sigmoid": ((1e-3, 0.9999), 1.0),
        "vdm": ((0.0, 1.0), 1.0),
        "edm": ((0.002, 80.0), 80.0),
        "flow": ((1e-3, 1 - 1e-3), 1 - 1e-3),
        "gaussian": ((1e-3, 1.5), math.sin(1.5)),
    }
    assert set(defaults) == set(PROCESSES)
    for name, (interval, std) in defaults.items():
        sde = PROCESSES[name]()
        assert (sde.t_min, sde.t_max) == interval, name
        assert sde.prior.std == pytest.approx(std, rel=1e-13), name
        assert sde.prior.mean == 0.0, name


def test_prior_follows_t_max() -> None:
    mine = NormalPrior(3.0, 1.0)
    for make in (VESDE, EDMSDE, FlowSDE):
        sde: Any = make(t_max=0.5)
        assert sde.prior.std == pytest.approx(float(sde.sigma(0.5)), rel=1e-13), make
        assert make(t_max=0.5, prior=mine).prior is mine, make


def test_priors_of_images_print_in_a_line_and_differ_where_their_means_do() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        mean = torch.linspace(0, 1, 2352).reshape(3, 28, 28).to(dtype)
        other = mean.clone()
        other[1, 3, 3] += 0.1
        texts = [repr(VPSDE(prior=NormalPrior(mean=m))) for m in (mean, other, mean.clone(), mean[None])]
        assert texts[0] == texts[2] and len(set(texts)) == 3 and max(map(len, texts)) < 200


# Precision

CHECKED = {
    "ve": (VESDE, high_precision.ve, (0.01, 50.0)),
    "vp": (VPSDE, high_precision.vp, (0.1, 20.0)),
    "sub_vp": (SubVPSDE, high_precision.sub_vp, (0.1, 20.0)),
    "cosine": (lambda s: CosineVPSDE(s, t_max=1.0), high_precision.cosine, (0.008,)),
    "sigmoid": (SigmoidVPSDE, high_precision.sigmoid, (-3.0, 3.0, 1.0)),
    "vdm": (lambda low, high: VDMSDE(LinearGamma(low, high)), high_precision.vdm, (-13.3, 5.0)),
    "edm": (lambda: EDMSDE(1e-7, 80.0), high_precision.edm, ()),
    "flow": (lambda: FlowSDE(t_min=1e-7, t_max=1.0), high_precision.flow, ()),
}


def digits(make: Any, exact: Any, t: float, *parameters: float) -> tuple[float, float]:
    """The relative errors of alpha and sigma."""
    sde = make(*parameters)
    return high_precision.relative_errors(float(sde.alpha(t)), float(sde.sigma(t)), exact, t, *parameters)


@pytest.mark.parametrize("name", CHECKED)
def test_twelve_digits(name: str) -> None:
    make, exact, parameters = CHECKED[name]
    for t in (1e-6, 1e-5, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6):
        assert max(digits(make, exact, t, *parameters)) < 1e-12, t


@given(st.sampled_from(["vp", "sub_vp"]), st.floats(1e-3, 2.0), st.floats(2.0, 40.0), st.floats(-8.0, 0.0))
@settings(max_examples=60)
def test_twelve_digits_for_any_beta(name: str, low: float, high: float, exponent: float) -> None:
    assert max(digits(*CHECKED[name][:2], 10.0**exponent, low, high)) < 1e-12


@given(s=st.floats(1e-4, 0.3), exponent=st.floats(-8.0, -1e-6))
@settings(max_examples=60)
def test_twelve_digits_for_any_cosine(s: float, exponent: float) -> None:
    t = 10.0**exponent
    errors = digits(CosineVPSDE, high_precision.cosine, t, s)
    # alpha is cos of an angle near pi/2 at the noise end, where half an ulp of t is 1e-16 / (1 - t) of alpha
    assert errors[1] < 1e-12
    assert errors[0] < 1e-12 + 1e-15 / (1 - t)


@given(
    start=st.floats(-30.0, 30.0), width=st.floats(0.1, 30.0), tau=st.floats(0.2, 5.0), exponent=st.floats(-8.0, -1e-4)
)
@settings(max_examples=60)
def test_twelve_digits_for_any_sigmoid(start: float, width: float, tau: float, exponent: float) -> None:
    t, end = 10.0**exponent, start + width
    errors = digits(SigmoidVPSDE, high_precision.sigmoid, t, start, end, tau)
    # logarithms of size u have an error of u eps, and half an ulp of t is 1e-16 / (1 - t) of alpha
    assert max(errors) < 1e-13 * (10 + abs(start / tau) + abs(end / tau)) + 1e-15 / (1 - t)


def test_time_inverts_log_snr(sde: Any) -> None:
    t = torch.cat([torch.tensor([sde.t_min], dtype=F64), times(sde, 65), torch.tensor([sde.t_max], dtype=F64)])
    close(sde.time(sde.log_snr(t)), t, rtol=1e-11, atol=1e-13)
    middle = float(times(sde, 3)[1])
    assert float(sde.time(float(sde.log_snr(middle)))) == pytest.approx(middle, rel=1e-13)


@given(schedules)
@settings(max_examples=60)
def test_time_inverts_log_snr_of_random_schedules(schedule: Schedule) -> None:
    sde = schedule.sde
    t = torch.cat([torch.tensor([sde.t_min], dtype=F64), times(sde, 9), torch.tensor([sde.t_max], dtype=F64)])
    close(sde.time(sde.log_snr(t)), t, rtol=1e-10, atol=1e-12)


def test_functions_of_time_are_differentiable(sde: Any) -> None:
    t = times(sde, 7, margin=0.1)
    value = sde.log_snr(t).requires_grad_()
    assert torch.autograd.gradcheck(sde.time, (value,), eps=1e-6 * float(value.detach().abs().max()))
    close(gradient(sde.time, value.detach()), 1 / gradient(sde.log_snr, t), rtol=1e-10)
    t = times(sde, 5, margin=0.2).requires_grad_()
    for name in ("alpha", "sigma", "log_snr", "diffusion"):
        assert torch.autograd.gradcheck(getattr(sde, name), (t,), eps=1e-6 * sde.t_max), name


class LineGamma(nn.Module):
    """An increasing line with float32 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(-9.0))
        self.weight = nn.Parameter(torch.tensor(13.0))
        self.seen: list[tuple[torch.dtype, int]] = []

    def forward(self, t: Tensor) -> Tensor:
        self.seen.append((t.dtype, t.ndim))
        return self.bias + self.weight * t


def _exact(name: str, value: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
    gamma = bias + weight * value
    return {
        "alpha": lambda: torch.sigmoid(-gamma) ** 0.5,
        "sigma": lambda: torch.sigmoid(gamma) ** 0.5,
        "log_snr": lambda: -gamma,
        "diffusion": lambda: (torch.sigmoid(gamma) * weight) ** 0.5,
        "time": lambda: (-value - bias) / weight,
    }[name]()


@pytest.mark.parametrize("name", ["alpha", "sigma", "log_snr", "diffusion", "time"])
def test_gradients_flow_to_a_module(name: str) -> None:
    for value in (0.4, torch.tensor(0.4, dtype=F64), torch.tensor([0.2, 0.7], dtype=F64)):
        gamma = LineGamma()
        sde = VDMSDE(gamma)
        assert not any(p.grad is not None for p in gamma.parameters())
        out = getattr(sde, name)(value)
        assert out.dtype == F64
        assert out.shape == torch.as_tensor(value).shape
        out.sum().backward()
        twin = [torch.tensor(p.item(), dtype=F64, requires_grad=True) for p in (gamma.bias, gamma.weight)]
        _exact(name, torch.as_tensor(value, dtype=F64), *twin).sum().backward()
        for got, want in zip((gamma.bias, gamma.weight), twin, strict=True):
            assert got.dtype == torch.float32
            assert got.grad is not None
            assert float(got.grad) == pytest.approx(float(want.grad), rel=2e-5, abs=1e-12)


def test_module_is_called_in_its_own_dtype_with_a_flat_batch() -> None:
    gamma = LineGamma()
    VDMSDE(gamma).sigma(0.5)
    assert set(gamma.seen) == {(torch.float32, 1)}
    gamma.double().seen.clear()
    assert VDMSDE(gamma).sigma(torch.tensor(0.5, dtype=F64)).shape == ()
    assert {dtype for dtype, _ in gamma.seen} == {F64}


def test_gradients_flow_to_the_functions_of_a_gaussian_process() -> None:
    rate = torch.tensor(2.0, dtype=F64, requires_grad=True)
    alpha, sigma = lambda t: torch.exp(-rate * t), lambda t: torch.sqrt(-torch.expm1(-2 * rate * t))
    sde = GaussianSDE(alpha, sigma, 1e-3, 1.0, prior=NormalPrior())
    t = 0.3
    # an Ornstein-Uhlenbeck process: f = -rate, g^2 = 2 rate, log-SNR = -ln(e^{2 rate t} - 1)
    sde.diffusion(t).backward()
    assert float(rate.grad) == pytest.approx(1 / math.sqrt(2 * 2.0), rel=1e-10)
    rate.grad = None
    sde.time(sde.log_snr(t).item()).backward()
    assert float(rate.grad) == pytest.approx(-t / 2.0, rel=1e-9)


def test_a_gaussian_process_with_parameters_finds_its_prior() -> None:
    width = torch.tensor(2.0, dtype=F64, requires_grad=True)
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # or the warning would come once per process only
    try:
        sde = GaussianSDE(lambda t: 1.0, lambda t: width * t, 1e-3, 1.0)
    finally:
        torch.set_warn_always(before)
    assert sde.prior == NormalPrior(2.0)


def test_vdm_with_the_gamma_of_vp_is_vp() -> None:
    beta = VPSDE()
    sde = VDMSDE(lambda t: torch.log(torch.expm1(0.1 * t + 9.95 * t * t)), t_min=1e-3)
    t = times(beta, 17)
    for name in ("alpha", "sigma", "log_snr", "diffusion"):
        close(getattr(sde, name)(t), getattr(beta, name)(t), rtol=1e-11)
    assert sde.same_schedule(beta)
    assert beta.same_schedule(sde)
    assert not beta.same_schedule(SubVPSDE())
    assert not beta.same_schedule(VPSDE(beta_max=20.1))
    assert beta.same_schedule(VPSDE(t_max=0.5))
    assert not EDMSDE(0.1, 0.2).same_schedule(EDMSDE(1.0, 2.0))


def one(value: float = 1.0) -> Tensor:
    return torch.full((1, 1), value, dtype=F64)


def kernels_compose(sde: Any, r: float, s: float, t: float) -> None:
    alpha, sigma = {u: float(sde.alpha(u)) for u in (r, s, t)}, {u: float(sde.sigma(u)) for u in (r, s, t)}

    def step(a: float, b: float) -> tuple[float, float]:
        mean, std = sde.transition(one(), a, b)
        return float(mean), float(std) ** 2

    (m_rs, v_rs), (m_st, v_st), (m_rt, v_rt) = step(r, s), step(s, t), step(r, t)
    # Chapman-Kolmogorov: q(x_t|x_r) is q(x_t|x_s) after q(x_s|x_r), and the same from clean data
    assert m_st * m_rs == pytest.approx(m_rt, rel=1e-12)
    assert m_st**2 * v_rs + v_st == pytest.approx(v_rt, rel=1e-12)
    assert m_st * alpha[s] == pytest.approx(alpha[t], rel=1e-12)
    assert m_st**2 * sigma[s] ** 2 + v_st == pytest.approx(sigma[t] ** 2, rel=1e-12)
    # Bayes: precisions and precision-weighted means add
    of_x, std = sde.posterior(one(), one(0.0), s, t)
    of_data, _ = sde.posterior(one(0.0), one(), s, t)
    variance = 1 / (1 / sigma[s] ** 2 + m_st**2 / v_st)
    assert float(std) ** 2 == pytest.approx(variance, rel=1e-12)
    assert float(of_x) == pytest.approx(variance * m_st / v_st, rel=1e-12)
    assert float(of_data) == pytest.approx(variance * alpha[s] / sigma[s] ** 2, rel=1e-12)


def test_kernels_compose(sde: Any) -> None:
    t = times(sde, 5).tolist()
    for r, s, u in zip(t, t[1:], t[2:], strict=False):
        kernels_compose(sde, r, s, u)
    kernels_compose(sde, sde.t_min, t[2], sde.t_max)


@given(st.data())
@settings(max_examples=80)
def test_kernels_of_random_schedules_compose(data: st.DataObject) -> None:
    sde = data.draw(schedules).sde
    kernels_compose(sde, *data.draw(three_times(sde)))


def test_kernels_take_a_time_per_sample_and_any_event_rank(sde: Any) -> None:
    t = times(sde, 3)
    s = 0.5 * (t + sde.t_min)
    for event in ((2,), (2, 3), (1, 2, 2), (1, 2, 1, 2)):
        x = torch.randn(3, *event, dtype=F64, generator=torch.Generator().manual_seed(0))
        x0 = x.flip(0).clone()
        for i in range(3):
            row = slice(i, i + 1)
            at = (float(s[i]), float(t[i]))
            for whole, single in (
                (sde.marginal(x, t), sde.marginal(x[row], at[1])),
                (sde.transition(x, s, t), sde.transition(x[row], *at)),
                (sde.posterior(x, x0, s, t), sde.posterior(x[row], x0[row], *at)),
            ):
                close(whole[0][row], single[0], rtol=1e-14)
                assert whole[1].shape == (3, *[1] * len(event))
                assert float(whole[1][i].squeeze()) == float(single[1])
            assert torch.equal(sde.drift(x, t)[row], sde.drift(x[row], at[1]))
        got, noise = sde.perturb(x, t, x0)
        assert noise is x0
        mean, std = sde.marginal(x, t)
        assert torch.equal(got, mean + std * x0)


def test_marginal_is_alpha_x_and_sigma_and_equal_times_do_nothing(sde: Any) -> None:
    x, x0 = torch.randn(2, 4, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    t = float(times(sde, 3)[1])
    mean, std = sde.marginal(x, t)
    assert torch.equal(mean, sde.alpha(t) * x)
    assert float(std) == float(sde.sigma(t))
    for mean, std in (sde.transition(x, t, t), sde.posterior(x, x0, t, t)):
        assert torch.equal(mean, x)
        assert float(std) == 0.0


def test_perturb_draws_a_fresh_standard_normal(sde: Any) -> None:
    torch.manual_seed(3)
    x, t = torch.zeros(2000, 8, dtype=F64), float(times(sde, 3)[1])
    x_t, noise = sde.perturb(x, t)
    close(x_t, sde.sigma(t) * noise, rtol=1e-14)
    # |z| < 5: a false alarm in 1e6; seeded. They see a mean of 0.04 and a variance that is 6 % off.
    assert abs(float(noise.mean())) < 5 / math.sqrt(noise.numel())
    assert abs(float(noise.var()) - 1) < 5 * math.sqrt(2 / noise.numel())


@pytest.mark.parametrize("make", [lambda: FlowSDE(t_min=0.0, t_max=1.0), lambda: CosineVPSDE(t_min=0.0, t_max=1.0)])
def test_kernels_have_limits_where_signal_or_noise_is_gone(make: Callable[[], Any]) -> None:
    sde = make()
    x, x0 = one(2.0), one(3.0)
    # t = 1: the state is noise alone and says nothing of x_s
    mean, std = sde.transition(x, 0.5, 1.0)
    assert (float(mean), float(std)) == (0.0, pytest.approx(1.0, rel=1e-15))
    mean, std = sde.posterior(x, x0, 0.5, 1.0)
    assert float(mean) == pytest.approx(3.0 * float(sde.alpha(0.5)), rel=1e-15)
    assert float(std) == pytest.approx(float(sde.sigma(0.5)), rel=1e-15)
    # s = 0: x_s is the data
    mean, std = sde.transition(x, 0.0, 0.5)
    assert float(mean) == pytest.approx(2.0 * float(sde.alpha(0.5)), rel=1e-15)
    assert float(std) == pytest.approx(float(sde.sigma(0.5)), rel=1e-15)
    mean, std = sde.posterior(x, x0, 0.0, 0.5)
    assert (float(mean), float(std)) == (3.0, 0.0)
    mean, std = sde.transition(x, 0.0, 1.0)
    assert (float(mean), float(std)) == (0.0, pytest.approx(1.0, rel=1e-15))
    for end in (0.0, 1.0):  # equal times do nothing
        for mean, std in (sde.transition(x, end, end), sde.posterior(x, x, end, end)):
            assert (float(mean), float(std)) == (2.0, 0.0)


def test_rates_have_their_limits_at_time_zero() -> None:
    cosine = math.pi / 1.008 * math.tan(0.008 / 1.008 * math.pi / 2)
    for make, g2 in ((VPSDE, 0.1), (SubVPSDE, 0.0), (EDMSDE, 0.0), (FlowSDE, 0.0), (CosineVPSDE, cosine)):
        assert float(make(t_min=0.0).diffusion(0.0)) ** 2 == pytest.approx(g2, abs=1e-12), make
    for make, dsigma in ((FlowSDE, 1.0), (EDMSDE, 1.0), (SubVPSDE, 0.1)):  # of sub-VP, sigma = 1 - e^{-B} ~ beta_min t
        assert make(t_min=0.0).node(0.0).dsigma == pytest.approx(dsigma, rel=1e-12), make


# Dtypes

FUNCTIONS = ["alpha", "sigma", "log_snr", "diffusion", "time"]


def test_times_decide_the_dtype(sde: Any) -> None:
    """A float gives a float64 scalar, and a tensor its dtype, or float32 of half precision."""
    wider = {F64: F64, **dict.fromkeys((torch.float32, torch.bfloat16, torch.float16), torch.float32)}
    for name in FUNCTIONS:
        function = getattr(sde, name)
        value = float(sde.log_snr(0.5)) if name == "time" else 0.5
        for default in (torch.float32, F64):
            torch.set_default_dtype(default)
            assert (function(value).dtype, function(value).shape) == (F64, ()), name
        for dtype, expected in wider.items():
            for shape in ((), (3,)):
                given = torch.full(shape, 0.5, dtype=dtype)
                # computed in float64 from the value as it is, and rounded once
                wanted = function(given.to(F64)).to(expected)
                torch.testing.assert_close(function(given), wanted, rtol=0, atol=0, msg=f"{name}, {dtype}")


def test_kernels_keep_the_dtype_of_the_state(sde: Any) -> None:
    each = torch.full((3,), 0.2, dtype=F64), torch.full((3,), 0.5, dtype=F64)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        x, found = torch.ones(3, 2, dtype=dtype), []
        for s, t in ((0.2, 0.5), each):
            outputs = (*sde.marginal(x, t), *sde.perturb(x, t), *sde.transition(x, s, t), *sde.posterior(x, x, s, t))
            found.append([out.dtype for out in (*outputs, sde.drift(x, t))][::2])
        assert found[0] == found[1] and (dtype == torch.bfloat16 or set(found[0]) == {dtype})


def test_everything_works_in_inference_mode(sde: Any) -> None:
    def everything() -> list[Tensor]:
        t, x = times(sde, 4), torch.ones(4, 2, dtype=F64)
        s = 0.5 * (t + sde.t_min)
        found = [getattr(sde, name)(t) for name in FUNCTIONS[:-1]] + [sde.time(sde.log_snr(t)), sde.drift(x, t)]
        found += [*sde.marginal(x, t), *sde.transition(x, s, t), *sde.posterior(x, x, s, t)]
        return [*found, sde.reverse(lambda y, u: -y).drift(x, t), sde.prior_log_prob(x), *sde.nodes(t)]

    with torch.inference_mode():
        inside, t = everything(), times(sde, 4)
        sde.perturb(torch.ones(4, 2, dtype=F64), t), sde.prior_sample((2, 3)), sde.node(float(t[0]))
        assert VDMSDE(LineGamma()).diffusion(t / sde.t_max).shape == (4,)
    assert all(torch.equal(a, b) for a, b in zip(inside, everything(), strict=True))


def test_reverse_form_is_the_formula(sde: Any) -> None:
    t = times(sde, 3)
    x = torch.randn(3, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(4))
    seen: list[Tensor] = []

    def score(y: Tensor, u: Tensor) -> Tensor:
        seen.append(u)
        return torch.sin(y) * (1 + u.reshape(-1, 1, 1))

    f, g2 = rates(sde, t)
    s = torch.sin(x) * (1 + t.reshape(-1, 1, 1))
    forms = {eta: sde.reverse(score, eta) for eta in (0.0, 0.3, 2.0)} | {1.0: sde.reverse(score)}
    for eta, form in (*forms.items(), (0.0, sde.probability_flow(score))):
        seen.clear()
        wanted = f.reshape(-1, 1, 1) * x - 0.5 * (1 + eta**2) * g2.reshape(-1, 1, 1) * s
        close(form.drift(x, t), wanted, rtol=1e-12)
        close(form.diffusion(t), eta * sde.diffusion(t), rtol=1e-15)
        for i in range(3):
            close(form.drift(x[i : i + 1], float(t[i])), wanted[i : i + 1], rtol=1e-12)
        assert [u.shape for u in seen] == [(3,), (1,), (1,), (1,)]
        assert {u.dtype for u in seen} == {F64}


def test_score_function_of_a_form_sees_the_time_in_float32_or_wider() -> None:
    seen: list[Tensor] = []
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        VPSDE().reverse(lambda y, u: seen.append(u) or -y).drift(torch.ones(2, 2, dtype=dtype), 0.3)
        assert seen[-1].dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
        assert seen[-1].tolist() == pytest.approx([0.3, 0.3], rel=1e-6)


@pytest.mark.parametrize("mean", [0.0, 1.5, torch.tensor([1.0, -2.0], dtype=F64)])
def test_a_prior_is_the_normal_of_torch(mean: Any) -> None:
    prior = NormalPrior(0.7, mean)
    sde = VPSDE(prior=prior)
    x = torch.randn(5, 2, dtype=F64, generator=torch.Generator().manual_seed(6))
    normal = torch.distributions.Normal(torch.as_tensor(mean, dtype=F64).expand(2), torch.full((2,), 0.7, dtype=F64))
    close(sde.prior_log_prob(x), normal.log_prob(x).sum(1), rtol=1e-13)
    draws = sde.prior_sample((3, 2), generator=torch.Generator().manual_seed(7), dtype=F64)
    z = torch.randn((3, 2), generator=torch.Generator().manual_seed(7), dtype=F64)
    close(draws, torch.as_tensor(mean) + 0.7 * z, rtol=1e-13)
    wide = torch.ones(1, 3072)  # whose density is summed in float32
    close(VPSDE().prior_log_prob(wide.bfloat16()), VPSDE().prior_log_prob(wide), rtol=1e-4)


def test_prior_samples_follow_the_generator(sde: Any) -> None:
    def draw(**options: Any) -> Tensor:
        return sde.prior_sample((3, 2), generator=torch.Generator().manual_seed(8), **options)

    z = torch.randn((3, 2), generator=torch.Generator().manual_seed(8), dtype=F64)
    close(draw(dtype=F64), sde.prior.std * z, rtol=1e-15)
    assert draw(dtype=torch.bfloat16).dtype == torch.bfloat16
    for default in (torch.float32, F64):
        torch.set_default_dtype(default)
        assert draw().dtype == default


# Refusals


def test_constructors_refuse() -> None:
    """What the table of tests/contract does not have."""
    waves, off = GaussianSDE(torch.cos, torch.sin, t_min=0.1, t_max=1.5), torch.tensor([0.0, -20.0], dtype=F64)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: VESDE(5.0, 1.0), InvalidArgumentError, r"`sigma_min` must be below `sigma_max`, got 5.0 and 1"),
        (lambda: EDMSDE(80.0, 0.002, t_min=0.0), InvalidArgumentError, r"`sigma_min` .* 80.0 and 0.002"),
        (lambda: VDMSDE(lambda t: -t), InvalidArgumentError, r"\(index 1 of 257 on \[0.0, 1.0\]\)"),
        (lambda: VDMSDE(lambda t: -((t - 0.5) ** 2)), InvalidArgumentError, r"at t=0.5 and .* \(index 129 of 257"),
        (lambda: VDMSDE(lambda t: torch.clamp(t, max=0.5)), InvalidArgumentError, r"-0.25 at t=0.5 and -0.25 at t=0"),
        (lambda: SigmoidVPSDE(3.0, -3.0), InvalidArgumentError, r"`start` must be below `end`, got 3.0"),
        (lambda: SigmoidVPSDE(tau=0.0), InvalidArgumentError, r"`tau` must be in \(0, inf\), got 0.0"),
        (lambda: SigmoidVPSDE(tau=1e-3), InvalidArgumentError, r"`tau` must be at least 0.01 .* got 0.001"),
        (lambda: SigmoidVPSDE(t_max=1.0), InvalidArgumentError, r"`t_max` must be in \(0, 1\), got 1.0"),
        (lambda: BetaChain.sigmoid(10, max_beta=1.0), InvalidArgumentError, r"`max_beta`"),
        (lambda: ShiftedGamma(lambda t: t, 1.0), InvalidTypeError, "`sde` must be an affine process"),
        (lambda: ShiftedGamma(VPSDE(), math.nan), InvalidArgumentError, "`shift`"),
        (lambda: waves.time(20.0), InvalidArgumentError, r"log\(alpha/sigma\) = 10 is not reached on \[0.1, 1.5\]"),
        (lambda: VDMSDE().time(off), InvalidArgumentError, r"= -10 is not reached on \[0, 1\]"),
        (lambda: VPSDE().time(torch.ones(2, 2)), InvalidArgumentError, r"`log_snr`.*got shape \(2, 2\)"),
        (lambda: VPSDE().time(None), InvalidTypeError, "`log_snr` must be a number, got None"),
    ]
    assert_refused(cases)


def test_states_are_checked() -> None:
    sde, x = VPSDE(), torch.ones(3, 2)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: sde.perturb(x, 0.5, torch.ones(1, 2)), InvalidArgumentError, "`noise`"),
        (lambda: sde.posterior(x, torch.ones(1, 2), 0.2, 0.5), InvalidArgumentError, "`x0`"),
        (lambda: sde.prior_sample((3, -1)), InvalidArgumentError, "`shape"),
        (lambda: sde.reverse(lambda y, u: -y, -1.0), InvalidArgumentError, "`stochasticity` must be in"),
    ]
    for call in (lambda v: sde.marginal(v, 0.5), lambda v: sde.drift(v, 0.5), sde.prior_log_prob):
        cases += [
            (partial(call, x.long()), InvalidTypeError, "`x0?` must have a floating-point dtype, got torch.int64"),
            (partial(call, x[0]), InvalidArgumentError, r"`x0?` .*event of rank 1 or more, got shape \(2,\)"),
        ]
    for kernel in (sde.transition, lambda v, s, t: sde.posterior(v, v, s, t)):
        for s, t in ((0.5, 0.2), (torch.tensor([0.1, 0.5, 0.1]), torch.tensor([0.2, 0.2, 0.2]))):
            cases.append((partial(kernel, x, s, t), InvalidArgumentError, "s must be the cleaner time"))
        cases.append((partial(kernel, x, 0.1, math.nan), InvalidArgumentError, ""))
    assert_refused(cases)


class Cubic(SDE):
    """A drift that is not linear, and a diffusion with a value for each coordinate."""

    def drift(self, x: Tensor, t: Any) -> Tensor:
        return -(x**3)

    def diffusion(self, t: Any) -> Tensor:
        return torch.tensor([[1.0, 2.0]], dtype=F64)


def test_a_process_known_by_drift_and_diffusion_only() -> None:
    sde = Cubic(t_min=0.0, t_max=2.0, prior=NormalPrior(1.5))
    x = torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(10))
    form = sde.reverse(lambda y, t: -y, 0.5)
    g = torch.tensor([[1.0, 2.0]], dtype=F64)
    close(form.drift(x, 0.5), -(x**3) + 0.5 * 1.25 * g**2 * x, rtol=1e-14)
    close(form.diffusion(0.5), 0.5 * g, rtol=1e-15)
    assert sde.affine is False
    assert sde.node(0.5).t == 0.5 and all(math.isnan(value) for value in sde.node(0.5)[1:])
    assert sde.prior_log_prob(x).shape == (3,)


def test_a_row_does_not_depend_on_its_place(sde: Any) -> None:
    """Bitwise: nodes, and times of log-SNRs, in parts of any size."""
    t = torch.linspace(sde.t_min, sde.t_max, 103, dtype=F64)[1:-1]
    nodes = sde.nodes(t)
    back = sde.time(2 * nodes.lam)
    for size in (1, 3, 17):
        parts = [sde.nodes(part) for part in t.split(size)]
        for whole, column in zip(nodes, zip(*parts, strict=True), strict=True):
            assert torch.equal(torch.cat(column), whole)
        assert torch.equal(torch.cat([sde.time(2 * part.lam) for part in parts]), back)
