"""What diffusers expects of its schedulers holds for ours: configs, timesteps, loops, noise, and what pipelines do."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde.core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError, ScoreFnError, ScoreSDEError
from tests.interop.pipelines import CHAIN, conditional_unet, drawn, generator, prompts, quiet, stable_diffusion, unet
from tests.refusals import refuses

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from scoresde.interop import DiffusersScheduler, conventions  # noqa: E402
from scoresde.interop.diffusers.config import SCHEDULERS  # noqa: E402

METHODS = ("ddim", "dpm_3m", "heun", "ancestral", "edm", "pc")
SAMPLED = ("ancestral", "edm", "pc")  # those of them that draw noise
# After which evaluations a step goes on with another one.
INSIDE = {"dpm_3m": range(1), "heun": range(0, 8, 2), "edm": range(0, 8, 2), "pc": range(0, 9, 2)}
FLOAT32 = 2e-6  # relative; a few roundings
UNNAMED = ("LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler")
every_method = pytest.mark.parametrize("method", METHODS)


def batch(*shape: int, seed: int = 1) -> Tensor:
    return drawn(*(shape or (2, 3, 4, 4)), seed=seed)


def net(x: Tensor, t: Any = None) -> Tensor:
    return 0.3 * torch.tanh(x)


def ddim(**fields: Any) -> Any:
    return diffusers.DDIMScheduler(**{**CHAIN, **fields})


def ours(base: Any, method: str = "dpm_3m", **arguments: Any) -> Any:
    return DiffusersScheduler.from_config(base, method=method, **arguments)


def fields_of(config: Any) -> dict[str, Any]:
    return {k: v for k, v in config.items() if not k.startswith("_")}


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
def test_a_config_names_its_source_and_goes_there_and_back(name: str, tmp_path: Path) -> None:
    """From a scheduler, from its file, and from its config alone where that differs from those of others."""
    base = getattr(diffusers, name)()
    base.save_pretrained(tmp_path / "base")
    assert DiffusersScheduler.from_pretrained(tmp_path / "base", method="ddim").config.source == name
    fields = fields_of(base.config)
    if name in UNNAMED:
        with pytest.raises(InvalidArgumentError, match=r"does not name its scheduler, which may be LMS.* or KDPM2"):
            ours(fields)
        assert ours(fields, source=name).config.source == name
    else:
        found = ours(fields).config.source  # the parallel ones have the fields of those that they are named after
        assert SCHEDULERS[found].read(fields) == SCHEDULERS[name].read(fields)
        assert found == name.replace("Parallel", "")
    scheduler = ours(base, "edm", options={"s_churn": 3.0})
    assert scheduler.config.source == name and len(scheduler) == base.config.get("num_train_timesteps", 1000)
    back = getattr(diffusers, name).from_config(scheduler.config)
    assert all(back.config[k] == v for k, v in fields.items())
    scheduler.save_pretrained(tmp_path / "ours")
    for other in (scheduler, scheduler.config):
        assert fields_of(DiffusersScheduler.from_config(other).config) == fields_of(scheduler.config)
    assert fields_of(DiffusersScheduler.from_pretrained(tmp_path / "ours").config) == fields_of(scheduler.config)


def test_a_scheduler_that_is_unknown_is_not_taken_for_another() -> None:
    for config in ({}, None, {"num_train_timesteps": 1000}, {"shift": 3.0}):
        with pytest.raises(InvalidArgumentError, match="source="):
            ours(config)
    for name in ("LCMScheduler", "IPNDMScheduler", "CMStochasticIterativeScheduler"):
        base = getattr(diffusers, name)()
        for given in (base, {**base.config, "_class_name": name}):
            with pytest.raises(InvalidArgumentError, match=f"must be one of .*got {name}"):
                ours(given)
    assert ours(diffusers.LCMScheduler(), source="DDIMScheduler").config.source == "DDIMScheduler"


def test_fields_and_methods_can_be_changed_on_the_way() -> None:
    scheduler = ours(ddim(), "heun", beta_end=0.01, timestep_spacing="linspace")
    assert (scheduler.config.beta_end, scheduler.config.timestep_spacing) == (0.01, "linspace")
    assert ours(scheduler.config, "ddim").config.method == "ddim"
    found, unused = DiffusersScheduler.from_config(ddim().config, return_unused_kwargs=True, method="ddim")
    assert found.config.source == "DDIMScheduler" and unused == {}


@every_method
def test_a_copy_makes_the_same_loop(method: str, tmp_path: Path) -> None:
    scheduler, x = ours(ddim(), method), batch()
    wanted = looped(scheduler, x, source=generator())
    scheduler.save_pretrained(tmp_path)
    copies = [copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))]
    assert all(torch.equal(other.timesteps, scheduler.timesteps) for other in copies)
    for other in (*copies, DiffusersScheduler.from_pretrained(tmp_path)):
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


@every_method
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_timesteps_fall(method: str, spacing: str) -> None:
    for levels in (10, 1000):
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
    with pytest.raises(InvalidArgumentError, match="`timestep` 3 is not one of this loop's"):
        scheduler.index_for_timestep(3)


def test_timesteps_and_levels_of_ones_own() -> None:
    scheduler, given = ours(ddim(), "ddim"), [900, 500, 100]
    scheduler.set_timesteps(timesteps=given)
    assert scheduler.timesteps.tolist() == given and scheduler.num_inference_steps == 3
    scheduler.set_timesteps(3, timesteps=given)
    assert scheduler.timesteps.tolist() == given
    assert looped(scheduler, batch(), None, timesteps=torch.tensor(given)).isfinite().all()
    levels = scheduler.sigmas[:-1].tolist()
    scheduler.set_timesteps(sigmas=[*levels, 0.0])
    assert scheduler.timesteps.tolist() == given
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "`num_inference_steps`"),
        ({"num_inference_steps": 0}, "`num_inference_steps`"),
        ({"num_inference_steps": 5, "timesteps": [900, 100]}, "`num_inference_steps` must be that of the levels"),
        ({"timesteps": [100, 900]}, "`timesteps`"),
        ({"timesteps": [1000, 100]}, "`timesteps`"),
        ({"timesteps": [900, 100], "sigmas": [5.0, 1.0]}, "`timesteps` and `sigmas`"),
        ({"num_inference_steps": 5, "mu": 1.0}, "`mu`"),
    ]
    refuses((functools.partial(ours(ddim(), "ddim").set_timesteps, **w), ScoreSDEError, said) for w, said in wrong)


# Steps


@every_method
def test_a_step_keeps_the_shape_and_a_tuple_is_the_same(method: str) -> None:
    for shape in ((1, 3, 4, 4), (3, 1, 5), (2, 4, 3, 4, 4)):
        x, results = batch(*shape), []
        for as_output in (True, False):
            scheduler = ours(ddim(), method)
            scheduler.set_timesteps(4)
            t = scheduler.timesteps[0]
            given = scheduler.scale_model_input(x, t)
            out = scheduler.step(net(given), t, x, generator=generator(), return_dict=as_output)
            assert isinstance(out, tuple) is not as_output and scheduler.step_index == 1
            results.append(out.prev_sample if as_output else out[0])
            assert given.shape == results[-1].shape == x.shape
            assert not as_output or out.pred_original_sample.shape == x.shape
        assert torch.equal(*results)


@every_method
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_the_data_estimate_is_tweedies(method: str, prediction: str) -> None:
    scheduler, x = ours(ddim(prediction_type=prediction), method), batch()
    scheduler.set_timesteps(5)
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


@every_method
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
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


@every_method
def test_two_loops_with_a_seed_are_equal(method: str) -> None:
    scheduler, x = ours(ddim(), method), batch()
    one, two = (looped(scheduler, x, source=generator()) for _ in range(2))
    other = looped(scheduler, x, source=generator(2))
    assert torch.equal(one, two)
    assert torch.equal(one, other) is (method not in SAMPLED)
    scheduler.generator = generator()  # where a pipeline passes none
    assert torch.equal(looped(scheduler, x), one)
    assert looped(scheduler, batch(5, 3, 4, 4), source=generator()).shape == (5, 3, 4, 4)  # another batch
    with torch.inference_mode():
        assert torch.equal(looped(scheduler, x, source=generator()), one)


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


# What a pipeline does to the state


@every_method
@pytest.mark.parametrize("scales", [False, True], ids=["unscaled", "scaled"])
def test_a_state_that_is_edited_between_steps_is_gone_on_from(method: str, scales: bool) -> None:
    """As in inpainting: returned anew or written to, also in inference mode."""
    scheduler, x, inside = ours(ddim(), method), batch(), INSIDE.get(method, ())
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True

    def replaced(i: int, x: Tensor) -> Tensor:
        return torch.where(mask, torch.full_like(x, 0.5), x) if i not in inside else x

    def written(i: int, x: Tensor) -> Tensor:
        if i not in inside:
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
    made = looped(scheduler, x, edit=lambda i, x: torch.ones_like(x) if i == 2 else x, scales=scales)
    sde = conventions(ddim()).sde
    model = scoresde.ScoreModel(net, sde, "noise")
    wanted = scoresde.solve(sde, model, torch.ones_like(x), method="ddim", grid=scheduler.times[3:]).x
    assert differ(made, wanted) <= FLOAT32
    half = looped(scheduler, x.half(), edit=lambda i, x: torch.zeros_like(x) if i == 3 else x)
    assert (half == 0).all()  # the network gives 0 at 0


def test_a_loop_that_goes_wrong_says_so() -> None:
    x, timesteps = batch(), ours(ddim(), "ddim")
    timesteps.set_timesteps(4)
    over = ours(ddim(), "ddim")
    looped(over, x, 4)

    def loop(method: str, **options: Any) -> Callable[[], Tensor]:
        return functools.partial(looped, ours(ddim(), method), x, **options)

    E = InvalidArgumentError
    refuses(
        (loop(method, network=lambda x, t: x.mul_(0.5)), ScoreFnError, "modified its input in place")
        for method in METHODS
    )
    refuses(
        [
            (loop("dpm_3m", edit=lambda i, x: x[:1]), E, "`sample` must keep its shape"),
            (loop("dpm_3m", network=lambda x, t: x * torch.nan), NonFiniteError, "NaN or infinity in 2 of 2 samples"),
            (lambda: ours(ddim(), "ddim").step(x, 999, x), E, "call `set_timesteps` first"),
            (lambda: timesteps.step(net(x), timesteps.timesteps[2], x), E, "must begin with the first timestep"),
            (lambda: over.step(net(x), over.timesteps[0], x), E, "The loop is over"),
        ]
    )


# Noise that is added


@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_noise_is_added_by_the_formula(name: str) -> None:
    base = getattr(diffusers, name)()
    scheduler, x, noise = ours(base), batch(), batch(seed=2)
    t = torch.tensor([10, 700])
    bars = base.alphas_cumprod[t][:, None, None, None]
    alpha, sigma = bars.sqrt(), (1 - bars).sqrt()
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


@every_method
@pytest.mark.parametrize(
    ("fields", "most"),
    [({"clip_sample": True, "clip_sample_range": 0.7}, 0.7), ({"thresholding": True, "sample_max_value": 1.5}, 1.5)],
)
def test_the_data_estimate_is_limited(method: str, fields: dict[str, Any], most: float) -> None:
    scheduler, x = ours(ddim(**fields), method), 3 * batch()
    scheduler.set_timesteps(5)
    for t in scheduler.timesteps:
        out = scheduler.step(-net(scheduler.scale_model_input(x, t)), t, x, generator=generator())
        assert float(out.pred_original_sample.abs().max()) <= most * (1 + FLOAT32)
        x = out.prev_sample


def theirs(base: Any, x: Tensor, scales: bool) -> Tensor:
    """The loop of a scheduler of diffusers, 8 steps long."""
    base.set_timesteps(8)
    for t in base.timesteps:
        x = base.step(net(base.scale_model_input(x, t) if scales else x), t, x).prev_sample
    return x


def test_eulers_steps_are_ours() -> None:
    """Of EDM, where they are those of DDIM, and of flows."""
    x = batch()
    for method in ("euler", "ddim"):
        base = diffusers.EDMEulerScheduler()
        scheduler = ours(base, method)
        scheduler.set_timesteps(8)
        y = theirs(base, x * base.init_noise_sigma, scales=True)
        assert scheduler.init_noise_sigma == pytest.approx(float(base.init_noise_sigma))
        assert differ(scheduler.sigmas, base.sigmas) <= FLOAT32
        assert differ(looped(scheduler, x, 8), y) <= 1e-5
    for shift in (1.0, 3.0):
        base = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        assert differ(looped(ours(base, "euler"), x, 8, scales=False), theirs(base, x, scales=False)) <= 1e-5
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


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"method": "rk45"}, "method='rk45' cannot be a scheduler: it chooses its steps.*; take 'dpm_3m'"),
    ({"method": "scipy:RK45"}, "method='scipy:RK45' cannot be a scheduler"),
    ({"method": "torchsde:euler"}, "another library makes its steps"),
    ({"method": "auto", "options": {"order": 2}}, "method='auto' has no options"),
    ({"method": "nonsense"}, "`method`: unknown name 'nonsense'"),
    ({"method": 3}, "`method` must be a name"),
    ({"method": "edm", "options": {"bogus": 1}}, "Unknown option 'bogus'"),
    ({"options": [1]}, "`options` must be a mapping"),
    ({"lead_in": "yes"}, "`lead_in`"),
    ({"source": "Nope"}, "must be one of .*got Nope"),
    ({"num_train_timesteps": "many"}, "`num_train_timesteps`"),
    ({"prediction_type": "bogus"}, "`prediction_type`"),
    ({"beta_schedule": "bogus"}, "`beta_schedule`"),
    ({"trained_betas": [2.0] * 5}, "`trained_betas`"),
    ({"variance_type": "learned", "source": "DDPMScheduler"}, "`variance_type`='learned'"),
    ({"rescale_betas_zero_snr": True}, "`rescale_betas_zero_snr` with `prediction_type`='epsilon'"),
]


def test_refusals_name_what_is_wrong() -> None:
    usual = {"method": "ddim", "source": "DDIMScheduler"}
    errors = (InvalidArgumentError, InvalidTypeError)
    refuses((functools.partial(ours, ddim().config, **{**usual, **more}), errors, said) for more, said in REFUSED)


# Whole pipelines


def test_a_pipeline_is_saved_and_loaded_with_it(tmp_path: Path) -> None:
    pipe = quiet(diffusers.DDPMPipeline(unet(), ours(ddim(), "dpm_3m")))
    options = {"batch_size": 2, "num_inference_steps": 4, "output_type": "np"}
    wanted = pipe(**options, generator=generator()).images
    assert (pipe(**options, generator=generator()).images == wanted).all()  # the same pipeline again
    assert pipe(**{**options, "batch_size": 3}, generator=generator()).images.shape[0] == 3
    pipe.save_pretrained(tmp_path)
    again = quiet(diffusers.DiffusionPipeline.from_pretrained(tmp_path))
    assert type(again.scheduler) is DiffusersScheduler and again.scheduler.config.method == "dpm_3m"
    assert (again(**options, generator=generator()).images == wanted).all()


def test_a_pipeline_gets_its_scheduler_back() -> None:
    base = ddim(beta_schedule="scaled_linear", steps_offset=1)
    pipe = diffusers.DDPMPipeline(unet(), base)
    pipe.scheduler = ours(pipe.scheduler, "dpm_3m")
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    assert all(pipe.scheduler.config[k] == v for k, v in fields_of(base.config).items())
    pipe.scheduler = ours(pipe.scheduler, "heun")
    assert pipe.scheduler.config.source == "DDIMScheduler"


OPTIONS = {"guidance_scale": 3.0, "output_type": "latent", "height": 8, "width": 8, "num_inference_steps": 4}


@every_method
@pytest.mark.parametrize("written", [False, True], ids=["returned", "written to"])
def test_a_callback_edits_the_latents(method: str, written: bool) -> None:
    """One that keeps a part of the picture, as diffusers documents it."""
    pipe = stable_diffusion(diffusers.StableDiffusionPipeline, conditional_unet(), ours(ddim(), method))

    def keep(pipe: Any, i: int, t: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        latents = values["latents"] if written else values["latents"].clone()
        latents[..., :4] = 0.25
        return {"latents": latents}

    latents = pipe(**prompts(1), **OPTIONS, generator=generator(), callback_on_step_end=keep).images
    assert (latents[..., :4] == 0.25).all() and latents.isfinite().all()
    free = pipe(**prompts(1), **OPTIONS, generator=generator()).images
    assert not torch.allclose(latents[..., 4:], free[..., 4:])  # the network saw what was kept


@every_method
def test_inpainting_keeps_what_is_masked(method: str) -> None:
    """With a network of four channels the pipeline itself writes the known part, with noise, into each state."""
    pipe = stable_diffusion(diffusers.StableDiffusionInpaintPipeline, conditional_unet(), ours(ddim(), method))
    image = batch(1, 4, 8, 8, seed=7)  # four channels are taken for latents
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1.0
    pipe.scheduler.generator = given = generator()
    seen: list[Tensor] = []
    original = pipe.unet.forward

    def forward(x: Tensor, *arguments: Any, **named: Any) -> Any:
        seen.append(x.clone())
        return original(x, *arguments, **named)

    pipe.unet.forward = forward
    latents = pipe(**prompts(1), **OPTIONS, image=image, mask_image=mask, generator=given, strength=1.0).images
    assert torch.allclose(latents[..., :4], image[..., :4]) and latents.isfinite().all()
    if method == "ddim":  # before the last step the known part is the picture with the noise of that step
        wanted = pipe.scheduler.add_noise(image, batch(1, 4, 8, 8), pipe.scheduler.timesteps[-1:])
        assert torch.allclose(seen[-1][:1, :, :, :4], wanted[..., :4], atol=1e-5)


@pytest.mark.parametrize(("method", "options"), [("shark", {}), ("edm", {"s_churn": 5.0})])
def test_what_is_drawn_before_the_first_step_follows_from_the_state(method: str, options: dict[str, float]) -> None:
    """Methods that move the state before they ask for the network draw before a pipeline gives its generator."""
    ends = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        scheduler = ours(ddim(), method, options=options)
        ends.append(looped(scheduler, batch(), source=generator(3)))
    assert torch.equal(*ends)
