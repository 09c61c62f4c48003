"""The configs of diffusers' schedulers in our terms, with every convention derived by hand."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError
from scoresde.interop import Conventions, conventions
from scoresde.interop.diffusers.labels import LogSigma, NearestTimestep, ScaledTime, Timestep
from scoresde.interop.diffusers.levels import alphas_bar
from scoresde.interop.diffusers.process import TimestepSDE
from tests.refusals import refuses

LINEAR = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
SCALED = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def read(name: str, **config: Any) -> Conventions:
    """The conventions of a scheduler of this class."""
    return conventions({"_class_name": f"{name}Scheduler", **config})


def bars() -> Tensor:
    """Alpha-bar of linear betas, by the definition in single precision."""
    return (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0).double()


def rho(found: Conventions, times: Tensor) -> Tensor:
    """Sigma over alpha."""
    node = found.sde.nodes(times)
    return node.sigma / node.alpha


# Levels


def test_levels_are_products_in_single_precision() -> None:
    for config, betas in (
        (LINEAR, torch.linspace(1e-4, 0.02, 1000)),
        (SCALED, torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2),
        (LINEAR | {"beta_schedule": "sigmoid"}, torch.sigmoid(torch.linspace(-6, 6, 1000)) * 0.0199 + 1e-4),
        (LINEAR | {"trained_betas": [0.1, 0.2, 0.3, 0.4]}, torch.tensor([0.1, 0.2, 0.3, 0.4])),
    ):
        assert torch.allclose(alphas_bar(config).float(), (1 - betas).cumprod(0), rtol=1e-6), config
    # the cosine is cos^2 of an angle until the last step, whose beta would be 1
    found = alphas_bar(LINEAR | {"beta_schedule": "squaredcos_cap_v2"})
    angle = lambda k: math.cos((k / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    assert float(found[499]) == pytest.approx(angle(500) / angle(0), rel=1e-5)
    assert float(found[999] / found[998]) == pytest.approx(1e-3, rel=1e-3)


def test_a_rescaled_chain_ends_without_signal_and_keeps_its_first_level() -> None:
    plain, rescaled = alphas_bar(SCALED), alphas_bar(SCALED | {"rescale_betas_zero_snr": True})
    roots = plain.sqrt()
    wanted = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    assert float(rescaled[-1]) == 0.0
    assert torch.allclose(rescaled.sqrt(), wanted, atol=1e-5)
    assert float(rescaled[0]) == pytest.approx(float(plain[0]), rel=1e-6)


# The process


@pytest.fixture(params=[False, True], ids=["with a signal", "without a signal"])
def sde(request: pytest.FixtureRequest) -> TimestepSDE:
    levels = alphas_bar(SCALED | {"rescale_betas_zero_snr": request.param})
    return TimestepSDE(levels.log() - torch.log1p(-levels))


def test_the_process_goes_through_the_levels(sde: TimestepSDE) -> None:
    times = torch.arange(1.0, 1001.0, dtype=torch.float64)
    finite = times[:-1]
    assert torch.allclose(sde.log_snr(finite), sde.log_snrs[:-1], rtol=0, atol=1e-12)
    assert float(sde.log_snr(1000.0)) == pytest.approx(float(sde.log_snrs[-1]), abs=1e-12)
    assert torch.allclose(sde.alpha(times) ** 2 + sde.sigma(times) ** 2, torch.ones(1000, dtype=torch.float64))
    assert float(sde.sigma(0.0)) == 0.0 and float(sde.alpha(0.0)) == 1.0


def test_the_process_knows_the_time_of_a_log_snr(sde: TimestepSDE) -> None:
    times = torch.tensor([1e-6, 0.3, 1.0, 1.5, 500.25, 998.5, 999.0, 999.5, 999.99], dtype=torch.float64)
    assert torch.allclose(sde.time(sde.log_snr(times)), times, rtol=1e-9)
    ends = sde.time(sde.log_snr(torch.tensor([0.0, 1000.0], dtype=torch.float64)))
    assert torch.allclose(ends, torch.tensor([0.0, 1000.0], dtype=torch.float64))


def test_rates_are_derivatives(sde: TimestepSDE) -> None:
    """At every piece of the schedule, by differences; h is small against the distance of the next piece."""
    times, h = torch.tensor([0.4, 0.999, 1.001, 300.5, 998.9, 999.5], dtype=torch.float64), 1e-5
    f = (sde.alpha(times + h).log() - sde.alpha(times - h).log()) / (2 * h)
    growth = (sde.sigma(times + h).log() - sde.sigma(times - h).log()) / (2 * h)
    node = sde.nodes(times)
    assert torch.allclose(node.f, f, rtol=1e-5)
    assert torch.allclose(node.dsigma / node.sigma, growth, rtol=1e-5, atol=1e-9)
    assert torch.allclose(node.g2, -2 * f, rtol=1e-5)
    before, after = (sde.nodes(torch.tensor([t], dtype=torch.float64)).g2 for t in (1 - 1e-9, 1 + 1e-9))
    assert torch.allclose(before, after, rtol=1e-6)  # at the cleanest level


def test_levels_must_fall() -> None:
    for log_snrs in ([1.0, 0.0], [1.0, 2.0, 3.0], [3.0, 2.0, math.nan], [3.0, 2.0, -math.inf, -math.inf]):
        with pytest.raises(InvalidArgumentError, match="log_snrs"):
            TimestepSDE(torch.tensor(log_snrs))


# Grids of chains. The time of timestep k is k + 1.


SPACINGS = [
    ("DDIM", "linspace", [999, 666, 333, 0]),
    ("DDIM", "leading", [750, 500, 250, 0]),
    ("DDIM", "trailing", [999, 749, 499, 249]),
    ("DDPM", "linspace", [999, 666, 333, 0]),
    ("DPMSolverMultistep", "linspace", [999, 749, 500, 250]),  # 5 parts, without the last
    ("DPMSolverMultistep", "leading", [800, 600, 400, 200]),
    ("DPMSolverMultistep", "trailing", [999, 749, 499, 249]),
    ("UniPCMultistep", "linspace", [999, 749, 500, 250]),
    ("EulerDiscrete", "linspace", [999, 666, 333, 0]),
    ("EulerDiscrete", "trailing", [999, 749, 499, 249]),
    ("HeunDiscrete", "leading", [750, 500, 250, 0]),
]


def test_timesteps_of_spacings() -> None:
    for name, spacing, timesteps in SPACINGS:
        grid = read(name, **LINEAR, timestep_spacing=spacing).grid(4)
        assert grid.tolist() == [*(t + 1 for t in timesteps), 0], (name, spacing)
    for n in (61, 103, 121):  # NumPy's arange(1000, 0, -1000 / n) has an entry more, a rounding error above 0
        assert len(np.arange(1000, 0, -1000 / n)) == n + 1
        grid = read("DDIM", **LINEAR, timestep_spacing="trailing").grid(n)
        assert len(grid) == n + 1 and float(grid[-1]) == 0.0 and float(grid[0]) == 1000.0


def test_sigma_schedulers_go_between_levels() -> None:
    """At timestep 1/2 of two levels sigma/alpha is the mean, and the network receives the half."""
    found = read("EulerDiscrete", **LINEAR, timestep_spacing="linspace")
    grid = found.grid(3)  # 999, 499.5, 0
    levels = ((1 - bars()) / bars()).sqrt()
    assert float(rho(found, grid)[1]) == pytest.approx(float(levels[499] + levels[500]) / 2, rel=1e-9)
    assert torch.allclose(found.timestep(grid)[:3], torch.tensor([999.0, 499.5, 0.0], dtype=torch.float64))


def test_the_last_step() -> None:
    """Where it ends at the data, or above; one of no length is left out."""
    for offset, to_one, end in ((1, False, [2, 1]), (1, True, [2, 0]), (0, True, [1, 0])):
        found = read("DDIM", **SCALED, steps_offset=offset, set_alpha_to_one=to_one)
        assert found.grid(50)[-2:].tolist() == end and len(found.grid(50)) == 51, (offset, to_one)
    found = read("PNDM", **SCALED, steps_offset=0, set_alpha_to_one=False)
    assert found.grid(50)[-2:].tolist() == [21, 1] and len(found.grid(50)) == 50
    for name, last in (("DPMSolverMultistep", 0.0), ("DEISMultistep", 1.0), ("SASolver", 1.0)):
        assert float(read(name, **LINEAR).grid(10)[-1]) == last, name


def test_karras_levels_of_a_multistep_scheduler_have_the_range_of_the_chain() -> None:
    found = read("DPMSolverMultistep", **LINEAR, use_karras_sigmas=True)
    levels = ((1 - bars()) / bars()).sqrt()
    ends = [float(levels[i]) ** (1 / 7) for i in (-1, 0)]
    wanted = [(ends[0] + share * (ends[1] - ends[0])) ** 7 for share in (0, 1 / 3, 2 / 3, 1)]
    assert rho(found, found.grid(4)).tolist() == pytest.approx([*wanted, 0.0])
    # the nearest level in the logarithm
    nearest = [int((levels.log() - math.log(w)).abs().argmin()) for w in wanted]
    assert found.timestep(found.grid(4))[:4].tolist() == nearest


def test_karras_levels_of_a_sigma_scheduler_have_the_range_of_its_timesteps() -> None:
    found = read("EulerDiscrete", **LINEAR, use_karras_sigmas=True, timestep_spacing="leading")
    levels = ((1 - bars()) / bars()).sqrt().numpy()
    got = rho(found, found.grid(4))
    assert [float(got[0]), float(got[3])] == pytest.approx([levels[750], levels[0]])
    label = float(found.timestep(found.grid(4))[1])  # linear in the logarithm
    assert label == pytest.approx(float(np.interp(math.log(got[1]), np.log(levels), np.arange(1000))), abs=1e-9)


def test_exponential_and_beta_levels() -> None:
    """The former have equal ratios; the latter are quantiles of Beta(0.6, 0.6)."""
    from scipy.stats import beta

    for curve in ("use_exponential_sigmas", "use_lu_lambdas"):
        found = read("DPMSolverMultistep", **LINEAR, **{curve: True})
        ratios = rho(found, found.grid(5))[:5].log().diff()
        assert torch.allclose(ratios, ratios[:1].expand(4)), curve
    found = read("DPMSolverMultistep", **LINEAR, use_beta_sigmas=True)
    levels = rho(found, found.grid(5))
    share = (levels - levels[4]) / (levels[0] - levels[4])
    assert beta.cdf(share[:5].numpy(), 0.6, 0.6) == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-6)


def test_whole_timesteps_are_rounded_or_cut() -> None:
    for curve, kind in (("use_karras_sigmas", NearestTimestep), ("use_exponential_sigmas", Timestep)):
        found = read("UniPCMultistep", **LINEAR, **{curve: True})
        assert isinstance(found.timestep, kind) and not found.timestep(found.grid(7)).is_floating_point()
    cosine = {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}  # for which DPM-Solver's are cut
    found = read("DPMSolverMultistep", **cosine)
    assert isinstance(found.timestep, Timestep) and found.timestep.whole
    assert isinstance(read("UniPCMultistep", **cosine).timestep, NearestTimestep)


def test_lambda_min_clipped_leaves_out_the_noisiest_levels() -> None:
    found = read("DPMSolverMultistep", **LINEAR, lambda_min_clipped=-3.0)
    half_log_snr = 0.5 * (bars().log() - torch.log1p(-bars()))
    noisiest = int((half_log_snr >= -3.0).nonzero().max())
    assert float(found.grid(10)[0]) == noisiest + 1


def test_given_timesteps_and_levels() -> None:
    found = read("EulerDiscrete", **LINEAR)
    assert found.grid(timesteps=[900, 500, 10]).tolist() == [901.0, 501.0, 11.0, 0.0]
    assert rho(found, found.grid(sigmas=[50.0, 1.0, 0.0])).tolist() == pytest.approx([50.0, 1.0, 0.0])


# Flows


def test_flow_matching() -> None:
    """From 1 to 1/N, shifted once as the end of the grid and once as a level."""
    for name, shift in (("FlowMatchEulerDiscrete", 1.0), ("FlowMatchHeunDiscrete", 3.0)):
        found = read(name, shift=shift)
        move = lambda s, shift=shift: shift * s / (1 + (shift - 1) * s)  # noqa: E731
        wanted = [move(1 + k / 4 * (move(0.001) - 1)) for k in range(5)]
        assert found.grid(5).tolist() == pytest.approx([*wanted, 0.0])
        assert (found.prediction, found.timestep) == ("flow", ScaledTime(1000.0))
        assert found.timestep(found.grid(5)).tolist() == pytest.approx([1000 * s for s in (*wanted, 0.0)])


def test_shifts_of_flows() -> None:
    """mu/(mu + 1/s - 1), with e^mu if it is exponential; a terminal one stretches."""
    given = [1.0, 0.5, 0.1]
    for kind, factor in (("exponential", math.exp(0.8)), ("linear", 0.8)):
        found = read("FlowMatchEulerDiscrete", use_dynamic_shifting=True, time_shift_type=kind, shift=7.0)
        wanted = [factor / (factor + 1 / s - 1) for s in given]
        assert found.grid(sigmas=given, mu=0.8).tolist() == pytest.approx([*wanted, 0.0]), kind
    grid = read("FlowMatchEulerDiscrete", shift_terminal=0.2).grid(sigmas=[1.0, 0.6, 0.5])
    assert grid.tolist() == pytest.approx([1.0, 1 - 0.4 * 0.8 / 0.5, 0.2, 0.0])


def test_flow_levels_of_multistep_schedulers() -> None:
    """DPM-Solver's begin at 1 - 1/N and UniPC's at 1 - 1e-6; their timesteps are cut to integers."""
    options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    found = read("DPMSolverMultistep", **options, flow_shift=2.0)
    assert found.grid(2).tolist() == pytest.approx([2 * 0.999 / 1.999, 2 * 0.4995 / 1.4995, 0.0])
    assert found.timestep(found.grid(2)).tolist() == [999, 666, 0]
    found = read("UniPCMultistep", **options)
    assert found.grid(3).tolist() == pytest.approx([1 - 1e-6, 1 - 0.333, 1 - 0.666, 0.0])


# EDM


@pytest.mark.parametrize(("kind", "gain"), [("epsilon", 1.0), ("v_prediction", -1.0)])
def test_edm(kind: str, gain: float) -> None:
    found = read("EDMEuler", sigma_max=70.0, sigma_min=0.01, sigma_data=0.6, rho=5.0, prediction_type=kind)
    ends = 70.0**0.2, 0.01**0.2
    wanted = [(ends[0] + share * (ends[1] - ends[0])) ** 5 for share in (0, 0.5, 1)]
    assert found.grid(3).tolist() == pytest.approx([*wanted, 0.0])
    assert (found.prediction, found.gain, found.sigma_data, found.timestep) == ("edm", gain, 0.6, LogSigma())
    assert found.timestep(torch.tensor([4.0])).item() == pytest.approx(math.log(4) / 4)
    assert found.sde.prior.std == pytest.approx(math.hypot(70.0, 1.0))


def test_v_prediction_of_noise_levels_is_edm_with_data_of_unit_variance() -> None:
    """c_skip = 1/(s^2 + 1) and c_out = -s/(s^2 + 1)^(1/2): the data estimate is alpha x - sigma v, with x the state."""
    found = read(
        "EulerDiscrete",
        **SCALED,
        timestep_type="continuous",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_max=700.0,
        sigma_min=0.002,
    )
    assert (found.prediction, found.gain, found.sigma_data, found.sde.t_max) == ("edm", -1.0, 1.0, 700.0)
    assert found.grid(3)[[0, 2, 3]].tolist() == pytest.approx([700.0, 0.002, 0.0])
    x, v, s = torch.tensor([[2.0]]), torch.tensor([[0.7]]), 3.0
    model = scoresde.ScoreModel(lambda y, t: found.gain * v, found.sde, "edm", sigma_data=1.0)
    wanted = x / (s**2 + 1) - s / (s**2 + 1) ** 0.5 * v
    assert float(model.data(x, s)) == pytest.approx(float(wanted))


# Everything else that a config says


def test_predictions_variances_and_limits() -> None:
    names = {"epsilon": "noise", "sample": "data", "v_prediction": "v"}
    assert {kind: read("DDPM", prediction_type=kind).prediction for kind in names} == names
    for theirs, mine in {"fixed_small": "small", "fixed_large": "large", "learned_range": "learned"}.items():
        found = read("DDPM", variance_type=theirs)
        assert found.step_variance == mine
        assert found.variance == ("learned_range" if mine == "learned" else None)
    assert read("DPMSolverMultistep", variance_type="learned_range").variance == "learned_range"
    assert read("DDIM", clip_sample_range=2.0).clip == 2.0
    assert read("DDPM", clip_sample=False).clip is None
    found = read("DPMSolverMultistep", thresholding=True, sample_max_value=1.5)
    assert found.threshold == (0.995, 1.5)
    model = scoresde.ScoreModel(lambda x, t: x, found.sde, "noise")
    limited = found.limit(model)
    assert isinstance(limited, scoresde.scores.DynamicThreshold) and limited.bound == 1.5
    assert read("EulerDiscrete").limit(model) is model


def test_the_prior_is_the_noise_that_samplers_begin_with() -> None:
    for name, config, std in (
        ("DDIM", {}, 1.0),
        ("EulerDiscrete", {"timestep_spacing": "leading"}, 1.0),  # (rho^2 + 1)^(1/2) alpha
        ("EulerDiscrete", {"timestep_spacing": "linspace"}, float((1 - bars()[-1]).sqrt())),  # rho alpha
        ("FlowMatchEulerDiscrete", {}, 1.0),
    ):
        assert read(name, **config).sde.prior.std == pytest.approx(std, abs=1e-12), (name, config)


def test_fields_of_another_scheduler_mean_nothing() -> None:
    """A scheduler made from the config of another one keeps its fields."""
    left = {"set_alpha_to_one": False, "skip_prk_steps": True, "clip_sample": True, "final_sigmas_type": "sigma_min"}
    found = read("EulerAncestralDiscrete", **LINEAR, **left)
    assert float(found.grid(5)[-1]) == 0.0 and found.clip is None


def test_null_is_the_default() -> None:
    """Configs of earlier versions have it."""
    found = read("DPMSolverMultistep", **LINEAR, use_karras_sigmas=None, timestep_spacing=None, final_sigmas_type=None)
    assert found.grid(4).tolist() == read("DPMSolverMultistep", **LINEAR).grid(4).tolist()


def test_a_scheduler_is_found_by_its_classes() -> None:
    class DDIMScheduler:
        config = {**LINEAR, "steps_offset": 1}

    class Mine(DDIMScheduler):
        pass

    assert conventions(Mine()).grid(10).tolist() == read("DDIM", **LINEAR, steps_offset=1).grid(10).tolist()


def test_timesteps_and_times_are_inverse() -> None:
    for found in (
        read("DDIM", **LINEAR),
        read("DPMSolverMultistep", **SCALED, use_karras_sigmas=True),
        read("EulerDiscrete", **SCALED, use_beta_sigmas=True),
        read("FlowMatchEulerDiscrete", shift=3.0),
        read("EDMEuler"),
    ):
        for n in (1, 2, 50):
            label = found.timestep(found.grid(n)[:-1])
            again = found.timestep(found.timestep.time(label))
            assert torch.allclose(again.double(), label.double(), rtol=1e-9, atol=1e-9), (found.timestep, n)


def test_labels_are_equal_as_values() -> None:
    first, second = (read("EulerDiscrete", **LINEAR).timestep for _ in range(2))
    assert first == second and hash(first) == hash(second)
    assert first != read("EulerDiscrete", **SCALED).timestep and first != 1


def test_zero_terminal_snr() -> None:
    found = read(
        "DDIM", **SCALED, rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"
    )
    assert float(found.sde.alpha(1000.0)) == 0.0
    assert found.timestep(found.grid(4)).tolist() == [999, 749, 499, 249, 0]
    found = read("EulerDiscrete", **SCALED, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert float(found.sde.alpha(1000.0)) == pytest.approx(2.0**-12)


NO_COUNTERPART: list[tuple[str, dict[str, Any], str]] = [
    ("LCM", {}, "must be one of"),
    ("DDIM", {"rescale_betas_zero_snr": True}, "noise does not determine the data"),
    ("DPMSolverMultistep", {"rescale_betas_zero_snr": True}, "noise does not determine the data"),
    (
        "DPMSolverMultistep",
        {**LINEAR, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
        "more than the level before",
    ),
    ("DDPM", {"beta_schedule": "laplace"}, "beta_schedule"),
    ("DDPM", {"prediction_type": "score"}, "prediction_type"),
    ("DDPM", {"variance_type": "learned"}, "variance_type"),
    ("DDPM", {"trained_betas": [0.1, 1.5, 0.2]}, "trained_betas"),
    ("EulerDiscrete", {"interpolation_type": "log_linear"}, "interpolation_type"),
    ("DPMSolverMultistep", {"prediction_type": "flow_prediction"}, "use_flow_sigmas"),
    ("DPMSolverMultistep", {"use_flow_sigmas": True, "use_karras_sigmas": True}, "use_flow_sigmas"),
    ("DPMSolverMultistep", {"use_flow_sigmas": True, "prediction_type": "v_prediction"}, "v_prediction"),
    ("DPMSolverMultistep", {"use_karras_sigmas": True, "use_beta_sigmas": True}, "exclude each other"),
    ("FlowMatchEulerDiscrete", {"invert_sigmas": True}, "invert_sigmas"),
    ("EDMEuler", {"prediction_type": "sample"}, "prediction_type"),
    ("EDMEuler", {"sigma_min": -1.0}, "sigma_min"),
    *(
        ("DPMSolverMultistep", {field: value}, field)
        for field, value in (
            ("beta_schedule", ["linear"]), ("steps_offset", "one"), ("use_karras_sigmas", "yes"),
            ("lambda_min_clipped", "low"), ("trained_betas", "many"), ("variance_type", torch.zeros(2)),
        )
    ),
]  # fmt: skip
NO_GRID: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("DDIM", {}, {}, "must be given"),
    ("DDIM", {}, {"n": 5, "timesteps": [3, 2]}, "must be given"),
    ("DDIM", {}, {"n": 0}, "`n`"),
    ("DDIM", {}, {"n": 5, "mu": 1.0}, "`mu`"),
    ("DDIM", {"timestep_spacing": "evenly"}, {"n": 5}, "timestep_spacing"),
    ("DDIM", {"steps_offset": 60}, {"n": 20}, "steps_offset"),
    ("DDIM", {}, {"timesteps": [3, 5]}, "fall"),
    ("EulerDiscrete", {"use_karras_sigmas": True}, {"timesteps": [5, 3]}, "use_karras_sigmas"),
    ("EulerDiscrete", {"final_sigmas_type": "one"}, {"n": 5}, "final_sigmas_type"),
    ("FlowMatchEulerDiscrete", {"use_dynamic_shifting": True}, {"n": 5}, "`mu` must be given"),
    ("FlowMatchEulerDiscrete", {}, {"n": 5, "mu": 1.0}, "`mu` must be left out"),
    ("FlowMatchEulerDiscrete", {}, {"timesteps": [900.0, 10.0]}, "sigmas"),
    ("EDMEuler", {}, {"timesteps": [2.0, 1.0]}, "EDM"),
    ("EDMEuler", {"sigma_schedule": "linear"}, {"n": 5}, "sigma_schedule"),
]
ERRORS = (InvalidArgumentError, InvalidTypeError)


def test_what_has_no_counterpart_is_refused() -> None:
    refuses((functools.partial(read, name, **config), ERRORS, said) for name, config, said in NO_COUNTERPART)
    refuses(
        (functools.partial(read(name, **config).grid, **call), ERRORS, said) for name, config, call, said in NO_GRID
    )
    for scheduler in (3, "DDIMScheduler", dict):
        with pytest.raises(InvalidTypeError, match="scheduler"):
            conventions(scheduler)
    with pytest.raises(InvalidArgumentError, match="_class_name"):
        conventions(LINEAR)
