"""Samples of diffusers' loops and of ours, on small networks that were trained on the digits."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde.interop import conventions, from_diffusers

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
    pytest.mark.filterwarnings(
        "ignore:.*samples leave the range of the data"
    ),  # of networks that are trained too little
]

diffusers = pytest.importorskip("diffusers", exc_type=ImportError)

from benchmarks import diffusers_parity as parity  # noqa: E402

CASES = list(parity.cases(quick=True))


@pytest.fixture(scope="module")
def nets() -> parity.Networks:
    diffusers.utils.logging.set_verbosity_error()
    return parity.Networks(stored=True)


@pytest.mark.parametrize("pair", sorted({case.pair for case in CASES}))
def test_the_same_samples(nets: parity.Networks, pair: str) -> None:
    """Relative to the largest element, in single precision, with 10 or 20 steps."""
    gaps = {case.label: parity.compare(case, nets.of(case)) for case in CASES if case.pair == pair}
    assert max(gaps.values()) < parity.TOLERANCE, gaps


@pytest.mark.parametrize("name", parity.EXPLAINED)
def test_differences_have_their_reasons(nets: parity.Networks, name: str) -> None:
    """With the reason undone the two agree. A difference as it is that comes to be small is none any more; that of
    rounded levels is below the rounding errors of a solve."""
    found = parity.EXPLAINED[name](nets)
    assert found.undone < parity.TOLERANCE, found
    assert name == "levels in single precision" or found.as_they_are > parity.TOLERANCE, found


# The grids and timesteps of all schedulers

BETAS = list(parity.BETAS.values())
CURVES: list[dict[str, Any]] = [{}, *({f"use_{name}": True} for name in ("karras_sigmas", "exponential_sigmas"))]
CURVES += [{"use_beta_sigmas": True}, {"use_lu_lambdas": True}]
ENDS: list[dict[str, Any]] = [{}, {"final_sigmas_type": "sigma_min"}, {"set_alpha_to_one": False}]
SPACINGS = [{"timestep_spacing": name} for name in ("trailing", "linspace")]
SPACINGS += [{"timestep_spacing": "leading", "steps_offset": offset} for offset in (0, 1)]
TWICE = {"HeunDiscrete": (1, 1), "FlowMatchHeunDiscrete": (1, 1), "DPMSolverSDE": (2, 2)}
TWICE |= {"KDPM2Discrete": (2, 1), "KDPM2AncestralDiscrete": (2, 1)}  # where timesteps and levels come twice
SLOW = ("KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverSDE")  # in loops over all levels
CHAINS = ["DDPM", "DDIM", "PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep"]
CHAINS += ["SASolver", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2Discrete"]
CHAINS += ["KDPM2AncestralDiscrete", "DPMSolverSDE"]


def same_grid(name: str, options: dict[str, Any], n: int = 12, **call: Any) -> None:
    """Timesteps and levels of a scheduler are ours, but for rounding in single precision."""
    scheduler = getattr(diffusers, f"{name}Scheduler")(**options)
    given = dict(call) if "sigmas" in call else {"num_inference_steps": n, **call}
    scheduler.set_timesteps(**given)
    found = conventions(scheduler)
    times = found.grid(**({"n": n, **call} if "sigmas" not in call else call))
    labels = scheduler.timesteps.double()
    levels = scheduler.sigmas.double() if hasattr(scheduler, "sigmas") else None
    if name in TWICE:
        first, second = TWICE[name]
        labels = torch.cat([labels[:1], labels[first::2]])
        levels = torch.cat([levels[:1], levels[second:-1:2], levels[-1:]])
    if name == "PNDM":  # evaluates twice where it begins
        labels = torch.tensor(sorted(set(scheduler._timesteps.tolist()), reverse=True), dtype=torch.float64)
    mine = found.timestep(times)[: len(labels)].double()
    assert len(times) in (len(labels), len(labels) + 1), (options, len(times))
    assert float((mine - labels[: len(mine)]).abs().max()) < 1e-3, options
    if levels is not None:
        node = found.sde.nodes(times)
        ours = node.sigma if isinstance(found.sde, scoresde.FlowSDE) else node.sigma / node.alpha
        assert torch.allclose(ours, levels[: len(ours)], rtol=2e-6, atol=1e-9), options


@pytest.mark.parametrize("name", CHAINS)
def test_grids_of_chains(name: str) -> None:
    """Every spacing with every curve, and betas and ends in turn."""
    known = set(getattr(diffusers, f"{name}Scheduler")().config)
    own = [options for options in CURVES if set(options) <= known]
    spacings = SPACINGS if "timestep_spacing" in known else [{}]
    cases = list(zip(itertools.product(spacings, own), itertools.cycle(BETAS), itertools.cycle(ENDS), strict=False))
    for (spacing, curve), betas, end in cases[:: 5 if name in SLOW else 1]:
        kept = end if set(end) <= known else {}
        same_grid(name, {**spacing, **curve, **betas, **kept})


@pytest.mark.parametrize("name", ["DDPM", "DDIM", "DPMSolverMultistep", "UniPCMultistep", "EulerDiscrete"])
def test_grids_without_a_signal_at_the_end(name: str) -> None:
    options = {**parity.BETAS["scaled_linear"], "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    same_grid(name, {**options, "timestep_spacing": "trailing"})


@pytest.mark.parametrize("options", [{}, {"shift": 3.0}, {"shift": 3.0, "shift_terminal": 0.1}, *CURVES[1:4]])
def test_grids_of_flows(options: dict[str, Any]) -> None:
    same_grid("FlowMatchEulerDiscrete", options)
    if set(options) <= {"shift"}:
        same_grid("FlowMatchHeunDiscrete", options)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_grids_of_dynamic_shifts(kind: str) -> None:
    options = {"use_dynamic_shifting": True, "time_shift_type": kind}
    same_grid("FlowMatchEulerDiscrete", options, mu=0.8)
    same_grid("FlowMatchEulerDiscrete", options, mu=0.8, sigmas=torch.linspace(1, 1 / 28, 28).tolist())


@pytest.mark.parametrize("name", ["DPMSolverMultistep", "UniPCMultistep", "DEISMultistep", "SASolver"])
def test_grids_of_flows_of_multistep_schedulers(name: str) -> None:
    same_grid(name, {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0})


@pytest.mark.parametrize("name", ["EDMEuler", "EDMDPMSolverMultistep"])
@pytest.mark.parametrize("options", [{}, {"sigma_schedule": "exponential"}, {"final_sigmas_type": "sigma_min"}])
def test_grids_of_edm(name: str, options: dict[str, Any]) -> None:
    same_grid(name, options)


# Networks of other classes


def transformer(name: str, **config: Any) -> nn.Module:
    """A small network without training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(diffusers, name)(**config).eval()


def solved(model: scoresde.ScoreModel, method: str = "ddim", **options: Any) -> Tensor:
    return scoresde.solve(model.sde, model, grid=model.grid, steps=3, method=method, seed=0, **options).x


@torch.no_grad()
def test_a_transformer_that_predicts_a_variance() -> None:
    net = transformer(
        "DiTTransformer2DModel",
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=8,
        num_embeds_ada_norm=10,
    )
    x, label = torch.ones(2, 4, 8, 8), torch.tensor([1, 2])
    wanted = net(x, torch.tensor([499, 499]), class_labels=label).sample
    for name, learned in (("DDIM", False), ("DDPM", True)):
        options = {"variance_type": "learned_range"} if learned else {}
        model = from_diffusers(net, getattr(diffusers, f"{name}Scheduler")(**options))
        assert model.has_variance is learned
        assert torch.allclose(model.noise(x, 500.0, label=label), wanted[:, :4], atol=1e-6)
        assert solved(model, shape=(2, 4, 8, 8), context={"label": label}).shape == (2, 4, 8, 8)


@torch.no_grad()
def test_flux() -> None:
    """Its tokens are (batch, length, channels), its places have no batch, and its timestep is sigma."""
    net = transformer(
        "FluxTransformer2DModel",
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=6,
        pooled_projection_dim=5,
        axes_dims_rope=(4, 4, 8),
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    places = {"img_ids": torch.zeros(9, 3), "txt_ids": torch.zeros(2, 3)}
    model = from_diffusers(net, scheduler, context=places, time_scale=1e-3, mu=0.7)
    context = {"encoder_hidden_states": torch.ones(2, 2, 6), "pooled_projections": torch.ones(2, 5)}
    scheduler.set_timesteps(3, mu=0.7)
    x = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(0))
    other = x
    for t in scheduler.timesteps:
        velocity = net(hidden_states=other, timestep=t.expand(2) / 1000, **places, **context, return_dict=False)[0]
        other = scheduler.step(velocity, t, other).prev_sample
    mine = scoresde.solve(model.sde, model, x, grid=model.grid, steps=3, method="euler", context=context).x
    assert parity.gap(mine, other) < parity.TOLERANCE


def test_a_pipeline() -> None:
    """DDPMPipeline holds a U-Net and a scheduler."""
    net = parity.unet(parity.SMALL)
    model = from_diffusers(diffusers.DDPMPipeline(net, diffusers.DDPMScheduler()))
    assert model.data_range == (-1.0, 1.0) and model.event_shape == (1, 8, 8)
    assert model.net.net is net
