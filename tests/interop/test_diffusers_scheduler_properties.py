"""What diffusers expects of its schedulers holds for ours: configs, timesteps, loops, noise, and what pipelines do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, ScoreFnError, ScoreSDEError

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from scoresde.interop import DiffusersScheduler, conventions  # noqa: E402
from scoresde.interop.diffusers.config import SCHEDULERS  # noqa: E402

METHODS = ("ddim", "dpm_3m", "heun", "ancestral", "edm", "pc")
SAMPLED = ("ancestral", "edm", "pc")  # those of them that draw noise
CHAIN = {"clip_sample": False, "timestep_spacing": "trailing"}
FLOAT32 = 2e-6  # relative; a few roundings
UNNAMED = ("LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler")


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*(shape or (2, 3, 4, 4)), generator=generator(seed))


def net(x: Tensor, t: Any = None) -> Tensor:
    return 0.3 * torch.tanh(x)


def ddim(**fields: Any) -> Any:
    return diffusers.DDIMScheduler(**{**CHAIN, **fields})


def ours(base: Any, method: str = "dpm_3m", **arguments: Any) -> Any:
    return DiffusersScheduler.from_config(base, method=method, **arguments)


def looped(
    scheduler: Any,
    x: Tensor,
    steps: int | None = 5,
    network: Callable[..., Tensor] = net,
    edit: Callable[[int, Tensor], Tensor] | None = None,
    scales: bool = True,
    source: Any = None,
    **levels: Any,
) -> Tensor:
    """A pipeline's loop; ``edit`` stands for its callback."""
    scheduler.set_timesteps(steps, **levels)
    x = x * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        given = scheduler.scale_model_input(x, t) if scales else x
        x = scheduler.step(network(given, t), t, x, generator=source).prev_sample
        x = x if edit is None else edit(i, x)
    return x


def differ(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max())


# Configs


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_source_is_found(name: str, tmp_path: Path) -> None:
    """From a scheduler, from its file, and from its config alone where that differs from those of others."""
    base = getattr(diffusers, name)()
    assert ours(base).config.source == name
    base.save_pretrained(tmp_path)
    assert DiffusersScheduler.from_pretrained(tmp_path, method="ddim").config.source == name
    fields = {k: v for k, v in base.config.items() if not k.startswith("_")}
    if name in UNNAMED:
        with pytest.raises(InvalidArgumentError, match=r"does not name its scheduler, which may be LMS.* or KDPM2"):
            ours(fields)
        assert ours(fields, source=name).config.source == name
        return
    found = ours(fields).config.source  # the parallel ones have the fields of those that they are named after
    assert SCHEDULERS[found].read(fields) == SCHEDULERS[name].read(fields)
    assert found == name.replace("Parallel", "")


@pytest.mark.parametrize("config", [{}, None, {"num_train_timesteps": 1000}, {"shift": 3.0}])
def test_a_config_of_nothing_is_refused(config: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="source="):
        ours(config)


@pytest.mark.parametrize("name", ["LCMScheduler", "IPNDMScheduler", "CMStochasticIterativeScheduler"])
def test_a_scheduler_that_is_unknown_is_not_taken_for_another(name: str) -> None:
    base = getattr(diffusers, name)()
    with pytest.raises(InvalidArgumentError, match=f"must be one of .*got {name}"):
        ours(base)
    with pytest.raises(InvalidArgumentError, match=f"must be one of .*got {name}"):
        ours({**base.config, "_class_name": name})


def test_who_knows_better_says_so() -> None:
    assert ours(diffusers.LCMScheduler(), source="DDIMScheduler").config.source == "DDIMScheduler"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_config_goes_there_and_back(name: str, tmp_path: Path) -> None:
    base = getattr(diffusers, name)()
    scheduler = ours(base, "edm", options={"s_churn": 3.0})
    back = getattr(diffusers, name).from_config(scheduler.config)
    assert all(back.config[k] == v for k, v in base.config.items() if not k.startswith("_"))
    again = DiffusersScheduler.from_config(scheduler.config)
    scheduler.save_pretrained(tmp_path)
    read = DiffusersScheduler.from_pretrained(tmp_path)
    for other in (again, read, DiffusersScheduler.from_config(scheduler)):
        assert {k: v for k, v in other.config.items() if not k.startswith("_")} == {
            k: v for k, v in scheduler.config.items() if not k.startswith("_")
        }
    assert len(read) == base.config.get("num_train_timesteps", 1000)


def test_fields_and_methods_can_be_changed_on_the_way() -> None:
    scheduler = ours(ddim(), "heun", beta_end=0.01, timestep_spacing="linspace")
    assert (scheduler.config.beta_end, scheduler.config.timestep_spacing) == (0.01, "linspace")
    assert ours(scheduler.config, "ddim").config.method == "ddim"
    found, unused = DiffusersScheduler.from_config(ddim().config, return_unused_kwargs=True, method="ddim")
    assert found.config.source == "DDIMScheduler" and unused == {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["saved", "copied", "pickled"])
def test_a_copy_makes_the_same_loop(method: str, way: str, tmp_path: Path) -> None:
    scheduler, x = ours(ddim(), method), batch()
    wanted = looped(scheduler, x, source=generator())
    if way == "saved":
        scheduler.save_pretrained(tmp_path)
        other = DiffusersScheduler.from_pretrained(tmp_path)
    else:
        other = copy.deepcopy(scheduler) if way == "copied" else pickle.loads(pickle.dumps(scheduler))
        assert torch.equal(other.timesteps, scheduler.timesteps)
    assert torch.equal(looped(other, x, source=generator()), wanted)


def test_a_copy_does_not_share_a_loop() -> None:
    scheduler, x = ours(ddim()), batch()
    scheduler.set_timesteps(5)
    first, second = scheduler.timesteps[:2]
    x = scheduler.step(net(x), first, x).prev_sample
    other = copy.deepcopy(scheduler)
    with pytest.raises(InvalidArgumentError, match="must begin with the first timestep"):
        other.step(net(x), second, x)
    assert scheduler.step(net(x), second, x).prev_sample.isfinite().all()


# Timesteps


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("levels", [10, 100, 1000])
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_timesteps_fall(method: str, levels: int, spacing: str) -> None:
    scheduler = ours(ddim(num_train_timesteps=levels, timestep_spacing=spacing), method)
    scheduler.set_timesteps(5, device="cpu")
    steps = scheduler.timesteps
    assert steps.device.type == "cpu" and steps.dtype == torch.int64 and scheduler.num_inference_steps == 5
    assert (steps.diff() <= 0).all() or method == "edm"  # which adds noise, and goes back with it
    assert int(steps.min()) >= 0 and int(steps.max()) < levels == len(scheduler)
    assert len(scheduler.sigmas) == len(steps) + 1 and scheduler.sigmas[-1] == 0
    assert looped(scheduler, batch(), source=generator()).isfinite().all()


@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_one_evaluation_per_step_has_the_schedulers_own_timesteps(name: str) -> None:
    base = getattr(diffusers, name)(timestep_spacing="trailing")
    scheduler = ours(base, "ddim")
    base.set_timesteps(10)
    scheduler.set_timesteps(10)
    assert torch.equal(scheduler.timesteps, base.timesteps)
    assert scheduler.order == 1 and scheduler.index_for_timestep(base.timesteps[3]) == 3
    with pytest.raises(InvalidArgumentError, match="`timestep` 3 is none of this loop's"):
        scheduler.index_for_timestep(3)


def test_timesteps_and_levels_of_ones_own() -> None:
    scheduler = ours(ddim(), "ddim")
    scheduler.set_timesteps(timesteps=[900, 500, 100])
    assert scheduler.timesteps.tolist() == [900, 500, 100] and scheduler.num_inference_steps == 3
    scheduler.set_timesteps(3, timesteps=[900, 500, 100])
    assert scheduler.timesteps.tolist() == [900, 500, 100]
    assert looped(scheduler, batch(), None, timesteps=torch.tensor([900, 500, 100])).isfinite().all()
    levels = scheduler.sigmas[:-1].tolist()
    scheduler.set_timesteps(sigmas=[*levels, 0.0])
    assert scheduler.timesteps.tolist() == [900, 500, 100]


@pytest.mark.parametrize(
    ("levels", "named"),
    [
        ({}, "`num_inference_steps`"),
        ({"num_inference_steps": 0}, "`num_inference_steps`"),
        ({"num_inference_steps": 2.5}, "`num_inference_steps`"),
        ({"num_inference_steps": 5, "timesteps": [900, 100]}, "`num_inference_steps` must be that of the levels"),
        ({"timesteps": [100, 900]}, "`timesteps`"),
        ({"timesteps": [1000, 100]}, "`timesteps`"),
        ({"timesteps": [900, 100], "sigmas": [5.0, 1.0]}, "`timesteps` and `sigmas`"),
        ({"num_inference_steps": 5, "mu": 1.0}, "`mu`"),
    ],
)  # fmt: skip
def test_levels_that_cannot_be_are_refused(levels: dict[str, Any], named: str) -> None:
    with pytest.raises(ScoreSDEError, match=named):
        ours(ddim(), "ddim").set_timesteps(**levels)


# Steps


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (3, 1, 5), (2, 4, 3, 4, 4)])
def test_a_step_keeps_the_shape(method: str, shape: tuple[int, ...]) -> None:
    scheduler, x = ours(ddim(), method), batch(*shape)
    scheduler.set_timesteps(4)
    t = scheduler.timesteps[0]
    given = scheduler.scale_model_input(x, t)
    out = scheduler.step(net(given), t, x, generator=generator())
    assert given.shape == out.prev_sample.shape == out.pred_original_sample.shape == x.shape
    assert scheduler.step_index == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_tuple_is_the_same_as_an_output(method: str) -> None:
    x, results = batch(), []
    for as_output in (True, False):
        scheduler = ours(ddim(), method)
        scheduler.set_timesteps(4)
        t, source = scheduler.timesteps[0], generator()
        given = net(scheduler.scale_model_input(x, t))
        out = scheduler.step(given, t, x, generator=source, return_dict=as_output)
        assert isinstance(out, tuple) is not as_output
        results.append(out.prev_sample if as_output else out[0])
    assert torch.equal(*results)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_the_data_estimate_is_tweedies(method: str, prediction: str) -> None:
    scheduler, x = ours(ddim(prediction_type=prediction), method), batch()
    scheduler.set_timesteps(5)
    sde = conventions(ddim()).sde
    for t, rho in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        given = scheduler.scale_model_input(x, t)
        output = net(given)
        out = scheduler.step(output, t, x, generator=generator())
        alpha = (1 + rho**2) ** -0.5  # of a process that keeps the variance
        sigma = rho * alpha
        formulas = {
            "epsilon": (given - sigma * output) / alpha,
            "sample": output,
            "v_prediction": alpha * given - sigma * output,
        }
        assert differ(out.pred_original_sample, formulas[prediction]) <= 1e-4  # the levels are float32 here
        x = out.prev_sample
    assert sde.t_max == 1000


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_samples_of_other_precisions(method: str, dtype: torch.dtype) -> None:
    """What a pipeline gets has the dtype of its states; the solve is in single precision or better."""
    scheduler, x = ours(ddim(beta_end=0.002), method), batch().to(dtype)
    scheduler.set_timesteps(5)
    t = scheduler.timesteps[0]
    out = scheduler.step(net(scheduler.scale_model_input(x, t)), t, x, generator=generator())
    assert out.prev_sample.dtype == out.pred_original_sample.dtype == dtype
    result = looped(scheduler, x, source=generator())
    assert result.dtype == dtype and result.isfinite().all()
    if dtype != torch.float64 and method not in SAMPLED:
        wanted = looped(scheduler, x.float(), source=generator())
        assert differ(result.float(), wanted) <= 100 * torch.finfo(dtype).eps  # the network rounds at each evaluation


@pytest.mark.parametrize("method", METHODS)
def test_two_loops_with_a_seed_are_equal(method: str) -> None:
    scheduler, x = ours(ddim(), method), batch()
    one, two = (looped(scheduler, x, source=generator()) for _ in range(2))
    other = looped(scheduler, x, source=generator(2))
    assert torch.equal(one, two)
    assert torch.equal(one, other) is (method not in SAMPLED)
    scheduler.generator = generator()  # where a pipeline passes none
    assert torch.equal(looped(scheduler, x), one)
    assert looped(scheduler, batch(5, 3, 4, 4), source=generator()).shape == (5, 3, 4, 4)  # another batch


@pytest.mark.parametrize("method", SAMPLED)
def test_a_generator_for_each_sample(method: str) -> None:
    """A sample is the same in another batch; one generator in a list is that of all samples, as in diffusers."""
    scheduler, x = ours(ddim(), method), batch()
    both = looped(scheduler, x, source=[generator(3), generator(4)])
    alone = looped(scheduler, x[1:], source=[generator(4)])
    assert differ(both[1:], alone) <= FLOAT32
    assert torch.equal(looped(scheduler, x, source=[generator()]), looped(scheduler, x, source=generator()))
    with pytest.raises(InvalidArgumentError, match="or one for each of the 2 samples, got 3"):
        looped(scheduler, x, source=[generator(i) for i in range(3)])


@pytest.mark.parametrize("method", METHODS)
def test_inference_mode_changes_nothing(method: str) -> None:
    scheduler, x = ours(ddim(), method), batch()
    wanted = looped(scheduler, x, source=generator())
    with torch.inference_mode():
        assert torch.equal(looped(scheduler, x, source=generator()), wanted)


# What a pipeline does to the state


@pytest.mark.parametrize("scales", [False, True], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("method", METHODS)
def test_a_state_that_is_edited_between_steps_is_gone_on_from(method: str, scales: bool) -> None:
    """As in inpainting. Of the edited state of a one-step method, the rest is a loop that begins there."""
    scheduler, x = ours(ddim(), method), batch()
    scheduler.set_timesteps(5)
    inside = [not call.first for call in scheduler._calls[1:]] + [False]  # whether the step goes on
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True

    def replaced(i: int, x: Tensor) -> Tensor:
        return torch.where(mask, torch.full_like(x, 0.5), x) if not inside[i] else x

    def written(i: int, x: Tensor) -> Tensor:
        if not inside[i]:
            x[..., :2, :] = 0.5
        return x

    made = looped(scheduler, x, edit=replaced, scales=scales, source=generator())
    assert torch.equal(made, looped(scheduler, x, edit=written, scales=scales, source=generator()))
    assert not torch.equal(made[..., 2:, :], x[..., 2:, :]) and (made[..., :2, :] == 0.5).all()
    with torch.inference_mode():
        assert torch.equal(made, looped(scheduler, x, edit=written, scales=scales, source=generator()))


@pytest.mark.parametrize("scales", [False, True], ids=["unscaled", "scaled"])
def test_an_edit_is_that_of_a_loop_by_hand(scales: bool) -> None:
    scheduler, x = ours(ddim(), "ddim"), batch()

    def edit(i: int, x: Tensor) -> Tensor:
        return torch.ones_like(x) if i == 2 else x

    made = looped(scheduler, x, edit=edit, scales=scales)
    sde = conventions(ddim()).sde
    model = scoresde.ScoreModel(net, sde, "noise")
    wanted = scoresde.solve(sde, model, torch.ones_like(x), method="ddim", grid=scheduler.times[3:]).x
    assert differ(made, wanted) <= FLOAT32


def test_an_edit_in_half_precision_is_seen() -> None:
    scheduler, x = ours(ddim(), "ddim"), batch().half()
    made = looped(scheduler, x, edit=lambda i, x: torch.zeros_like(x) if i == 3 else x)
    assert (made == 0).all()  # the network gives 0 at 0


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_writes_to_the_state_is_noticed(method: str) -> None:
    scheduler = ours(ddim(), method)
    with pytest.raises(ScoreFnError, match="modified its input in place"):
        looped(scheduler, batch(), network=lambda x, t: x.mul_(0.5))


def test_a_batch_that_changes_on_the_way_is_refused() -> None:
    scheduler = ours(ddim(), "dpm_3m")
    with pytest.raises(InvalidArgumentError, match="`sample` must keep its shape"):
        looped(scheduler, batch(), edit=lambda i, x: x[:1])


def test_what_is_not_finite_is_an_error() -> None:
    with pytest.raises(NonFiniteError, match="NaN or infinity in 2 of 2 samples"):
        looped(ours(ddim()), batch(), network=lambda x, t: x * torch.nan)


def test_calls_at_the_wrong_time_are_refused() -> None:
    scheduler, x = ours(ddim(), "ddim"), batch()
    with pytest.raises(InvalidArgumentError, match="call `set_timesteps` first"):
        scheduler.step(x, 999, x)
    scheduler.set_timesteps(4)
    with pytest.raises(InvalidArgumentError, match="must begin with the first timestep"):
        scheduler.step(net(x), scheduler.timesteps[2], x)
    looped(scheduler, x, 4)
    with pytest.raises(InvalidArgumentError, match="The loop is over"):
        scheduler.step(net(x), scheduler.timesteps[0], x)


# Noise that is added


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler"])
def test_noise_is_added_by_the_formula(name: str) -> None:
    base = getattr(diffusers, name)()
    scheduler, x, noise = ours(base), batch(), batch(seed=2)
    t = torch.tensor([10, 700])
    alpha, sigma = base.alphas_cumprod[t].sqrt()[:, None, None, None], (1 - base.alphas_cumprod[t]).sqrt()
    sigma = sigma[:, None, None, None]
    assert differ(scheduler.add_noise(x, noise, t), alpha * x + sigma * noise) <= FLOAT32
    assert differ(scheduler.scale_noise(x, t, noise), alpha * x + sigma * noise) <= FLOAT32
    assert differ(scheduler.get_velocity(x, noise, t), alpha * noise - sigma * x) <= FLOAT32
    one = scheduler.add_noise(x, noise, t[:1])  # one for all
    assert differ(one, alpha[:1] * x + sigma[:1] * noise) <= FLOAT32
    assert scheduler.add_noise(x.half(), noise.half(), t).dtype == torch.float16


def test_noise_of_flows_and_of_edm() -> None:
    x, noise = batch(), batch(seed=2)
    flow = ours(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), "ddim")
    flow.set_timesteps(4)
    t = flow.timesteps[1:2]
    sigma = t / 1000
    assert differ(flow.scale_noise(x, t, noise), (1 - sigma) * x + sigma * noise) <= FLOAT32
    edm = ours(diffusers.EDMEulerScheduler(), "ddim")
    edm.set_timesteps(4)
    assert differ(edm.add_noise(x, noise, edm.timesteps[1:2]), x + edm.sigmas[1] * noise) <= 1e-5  # of an exponential


# Kinds of configs


@pytest.mark.parametrize(
    "fields",
    [
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "scaled_linear"},
        {"trained_betas": [0.01 * (i + 1) for i in range(50)], "num_train_timesteps": 50},
        {"steps_offset": 1, "timestep_spacing": "leading"},
        {"set_alpha_to_one": False},
        {"prediction_type": "sample"},
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", METHODS)
def test_every_kind_of_chain(method: str, fields: dict[str, Any]) -> None:
    result = looped(ours(ddim(**fields), method), batch(), source=generator())
    assert result.shape == (2, 3, 4, 4) and result.isfinite().all()


def test_without_a_terminal_signal_the_noise_is_no_prediction() -> None:
    with pytest.raises(InvalidArgumentError, match="`rescale_betas_zero_snr` with `prediction_type`='epsilon'"):
        ours(ddim(rescale_betas_zero_snr=True))


@pytest.mark.parametrize(
    ("fields", "most"),
    [({"clip_sample": True, "clip_sample_range": 0.7}, 0.7), ({"thresholding": True, "sample_max_value": 1.5}, 1.5)],
)
@pytest.mark.parametrize("method", METHODS)
def test_the_data_estimate_is_limited(method: str, fields: dict[str, Any], most: float) -> None:
    scheduler, x = ours(ddim(**fields), method), 3 * batch()
    scheduler.set_timesteps(5)
    for t in scheduler.timesteps:
        out = scheduler.step(-net(scheduler.scale_model_input(x, t)), t, x, generator=generator())
        assert float(out.pred_original_sample.abs().max()) <= most * (1 + FLOAT32)
        x = out.prev_sample


@pytest.mark.parametrize("method", ["euler", "ddim"])  # on this process they are the same
def test_edms_euler_is_ours(method: str) -> None:
    base, x = diffusers.EDMEulerScheduler(), batch()
    scheduler = ours(base, method)
    base.set_timesteps(8)
    scheduler.set_timesteps(8)
    assert scheduler.init_noise_sigma == pytest.approx(float(base.init_noise_sigma))
    assert differ(scheduler.sigmas, base.sigmas) <= FLOAT32
    y = x * base.init_noise_sigma
    for t in base.timesteps:
        y = base.step(net(base.scale_model_input(y, t)), t, y).prev_sample
    assert differ(looped(scheduler, x, 8), y) <= 1e-5


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matchings_euler_is_ours(shift: float) -> None:
    base, x = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift), batch()
    y = x
    base.set_timesteps(8)
    for t in base.timesteps:
        y = base.step(net(y), t, y).prev_sample
    assert differ(looped(ours(base, "euler"), x, 8, scales=False), y) <= 1e-5


def test_a_dynamic_shift_needs_its_number() -> None:
    base = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler = ours(base, "euler")
    with pytest.raises(InvalidArgumentError, match="`mu` must be given"):
        scheduler.set_timesteps(4)
    scheduler.set_timesteps(4, mu=1.2)
    base.set_timesteps(4, mu=1.2)
    assert differ(scheduler.timesteps, base.timesteps) <= FLOAT32


def test_a_learned_variance_is_read_or_refused() -> None:
    def both(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([net(x), torch.tanh(x)], 1)

    learned = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    for method in ("ddim", "ancestral"):
        result = looped(ours(learned, method), batch(), network=both, source=generator())
        assert result.shape == (2, 3, 4, 4) and result.isfinite().all()
    with pytest.raises(InvalidArgumentError, match="`variance_type` does not say"):
        looped(ours(ddim()), batch(), network=both)


# Refusals


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"method": "rk45"}, InvalidArgumentError, "method='rk45' cannot be a scheduler: it chooses its steps"),
        ({"method": "scipy:RK45"}, InvalidArgumentError, "method='scipy:RK45' cannot be a scheduler"),
        ({"method": "torchsde:euler"}, InvalidArgumentError, "another library makes its steps"),
        ({"method": "auto"}, InvalidArgumentError, "method='auto'"),
        ({"method": "nonsense"}, InvalidArgumentError, "`method`: unknown name 'nonsense'"),
        ({"method": 3}, InvalidTypeError, "`method` must be a name"),
        ({"method": "edm", "options": {"bogus": 1}}, InvalidArgumentError, "Unknown option 'bogus'"),
        ({"options": [1]}, InvalidTypeError, "`options` must be a mapping"),
        ({"lead_in": "yes"}, InvalidTypeError, "`lead_in`"),
        ({"source": "Nope"}, InvalidArgumentError, "must be one of .*got Nope"),
        ({"num_train_timesteps": "many"}, InvalidTypeError, "`num_train_timesteps`"),
        ({"prediction_type": "bogus"}, InvalidArgumentError, "`prediction_type`"),
        ({"beta_schedule": "bogus"}, InvalidArgumentError, "`beta_schedule`"),
        ({"trained_betas": [2.0] * 5}, InvalidArgumentError, "`trained_betas`"),
        ({"variance_type": "learned", "source": "DDPMScheduler"}, InvalidArgumentError, "`variance_type`='learned'"),
    ],
    ids=str,
)
def test_refusals_name_what_is_wrong(arguments: dict[str, Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        ours(ddim().config, **{"method": "ddim", "source": "DDIMScheduler", **arguments})


@pytest.mark.parametrize("method", [m.name for m in scoresde.methods() if m.adaptive or m.kind != "solver"])
def test_methods_that_cannot_be_a_scheduler_say_why(method: str) -> None:
    row = next(m for m in scoresde.methods() if m.name == method)
    if not row.adaptive and row.kind not in ("backend", "forward"):
        assert DiffusersScheduler(method=method).config.method == method
        return
    with pytest.raises(InvalidArgumentError, match=r"cannot be a scheduler: .*; take 'dpm_3m'"):
        DiffusersScheduler(method=method)


# Whole pipelines


def unet(channels: int, cross: bool) -> Any:
    torch.manual_seed(0)
    sizes = {"sample_size": 8, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4}
    if not cross:
        blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        return diffusers.UNet2DModel(in_channels=channels, out_channels=channels, **sizes, **blocks).eval()
    return diffusers.UNet2DConditionModel(
        in_channels=channels, out_channels=channels, cross_attention_dim=8, attention_head_dim=4, **sizes,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


def latent_pipeline(cls: Any, scheduler: Any) -> Any:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(4,), norm_num_groups=2, latent_channels=4, down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
    ).eval()  # fmt: skip
    pipe = cls(
        vae=vae, text_encoder=None, tokenizer=None, unet=unet(4, cross=True), scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


PROMPTS = {
    "prompt_embeds": torch.randn(1, 3, 8, generator=generator(5)),
    "negative_prompt_embeds": torch.randn(1, 3, 8, generator=generator(6)),
    "guidance_scale": 3.0,
    "output_type": "latent",
}


def test_a_pipeline_is_saved_and_loaded_with_it(tmp_path: Path) -> None:
    pipe = diffusers.DDPMPipeline(unet(1, cross=False), ours(ddim(), "dpm_3m"))
    pipe.set_progress_bar_config(disable=True)
    options = {"batch_size": 2, "num_inference_steps": 4, "output_type": "np"}
    wanted = pipe(**options, generator=generator()).images
    assert (pipe(**options, generator=generator()).images == wanted).all()  # the same pipeline again
    assert pipe(**{**options, "batch_size": 3}, generator=generator()).images.shape[0] == 3
    pipe.save_pretrained(tmp_path)
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again.scheduler) is DiffusersScheduler and again.scheduler.config.method == "dpm_3m"
    assert (again(**options, generator=generator()).images == wanted).all()


def test_a_pipeline_gets_its_scheduler_back() -> None:
    base = ddim(beta_schedule="scaled_linear", steps_offset=1)
    pipe = diffusers.DDPMPipeline(unet(1, cross=False), base)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = ours(pipe.scheduler, "dpm_3m")
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    assert all(pipe.scheduler.config[k] == v for k, v in base.config.items() if not k.startswith("_"))
    pipe.scheduler = ours(pipe.scheduler, "heun")
    assert pipe.scheduler.config.source == "DDIMScheduler"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("written", [False, True], ids=["returned", "written to"])
def test_a_callback_edits_the_latents(method: str, written: bool) -> None:
    """One that keeps a part of the picture, as diffusers documents it."""
    pipe = latent_pipeline(diffusers.StableDiffusionPipeline, ours(ddim(), method))
    pipe.vae_scale_factor = 1

    def keep(pipe: Any, i: int, t: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        latents = values["latents"] if written else values["latents"].clone()
        latents[..., :4] = 0.25
        return {"latents": latents}

    latents = pipe(
        **PROMPTS, height=8, width=8, num_inference_steps=4, generator=generator(), callback_on_step_end=keep
    ).images
    assert (latents[..., :4] == 0.25).all() and latents.isfinite().all()
    free = pipe(**PROMPTS, height=8, width=8, num_inference_steps=4, generator=generator()).images
    assert not torch.allclose(latents[..., 4:], free[..., 4:])  # the network saw what was kept


@pytest.mark.parametrize("method", METHODS)
def test_inpainting_keeps_what_is_masked(method: str) -> None:
    """With a network of four channels the pipeline itself writes the known part, with noise, into each state."""
    pipe = latent_pipeline(diffusers.StableDiffusionInpaintPipeline, ours(ddim(), method))
    pipe.vae_scale_factor = 1
    image = torch.randn(1, 4, 8, 8, generator=generator(7))  # four channels are taken for latents
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1.0
    pipe.scheduler.generator = given = generator()
    seen: list[Tensor] = []
    original = pipe.unet.forward

    def forward(x: Tensor, *arguments: Any, **named: Any) -> Any:
        seen.append(x.clone())
        return original(x, *arguments, **named)

    pipe.unet.forward = forward
    options = {"image": image, "mask_image": mask, "num_inference_steps": 4, "generator": given}
    latents = pipe(**PROMPTS, **options, height=8, width=8, strength=1.0).images
    assert torch.allclose(latents[..., :4], image[..., :4]) and latents.isfinite().all()
    # before the last step the known part is the picture with the noise of that step
    if method == "ddim":
        t = pipe.scheduler.timesteps[-1:]
        noise = torch.randn(1, 4, 8, 8, generator=generator())
        wanted = pipe.scheduler.add_noise(image, noise, t)
        assert torch.allclose(seen[-1][:1, :, :, :4], wanted[..., :4], atol=1e-5)
