"""Unmodified pipelines of diffusers run every method that can be a scheduler, and give what `solve` gives."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import scoresde
from benchmarks import diffusers_parity
from scoresde import ScoreModel
from scoresde.core.errors import InvalidArgumentError
from tests.interop.pipelines import (
    CHAIN,
    autoencoder,
    conditional_unet,
    drawn,
    generator,
    prompts,
    quiet,
    stable_diffusion,
)
from tests.parameters import own_methods, ways
from tests.refusals import refuses

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from scoresde.interop import DiffusersScheduler, conventions, from_diffusers  # noqa: E402
from scoresde.nets import External  # noqa: E402

# Nobody can tell before the loop how often these evaluate.
REFUSED = {
    **{m.name: "another library makes its steps" for m in scoresde.methods() if m.kind == "backend"},
    **{m.name: "chooses its steps" for m in scoresde.methods() if m.adaptive},
    **{m.name: "runs the process forwards" for m in own_methods() if m.kind == "forward"},
}
METHODS = [m.name for m in own_methods() if m.name not in REFUSED]
WAYS = [name for name in ways() if name not in REFUSED]
MANY = {"annealed_langevin": {"moves": 4}, "ncsn": {"moves": 4}}  # their default is 100
STARTS_ELSEWHERE = ("shark",)
STEPS = 5
TOLERANCE = 1e-6  # of values of order 1; the network computes in float32, with other batches


def options_of(method: str) -> dict[str, Any]:
    return MANY.get(method, {})


def made(config: Any, method: str, **arguments: Any) -> Any:
    return DiffusersScheduler.from_config(
        config, method=method, options=options_of(method), lead_in=method in STARTS_ELSEWHERE, **arguments
    )


def solved(scheduler: Any, net: Callable[..., Tensor], x: Tensor, generator: torch.Generator | None) -> Tensor:
    """What `solve` gives on the grid of a scheduler's loop."""
    c = conventions({**scheduler.config, "_class_name": scheduler.config.source})
    called = net if c.gain == 1 else External(net, gain=c.gain)
    chain: dict[str, Any] = {"chain": c.chain, "sigma_data": c.sigma_data}
    model = c.limit(ScoreModel(called, c.sde, c.prediction, c.time_input, **chain))
    for leg in scheduler.legs:
        x = scoresde.solve(c.sde, model, x, method=leg.solver, grid=leg.times, generator=generator).x
    return x


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, in units of the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1.0))


def guided(net: Callable[..., Tensor], scale: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A network that gets the batch twice, without and with the prompt, as pipelines do."""

    def both(x: Tensor, t: Tensor) -> Tensor:
        without, with_prompt = net(torch.cat([x] * 2), t[0]).chunk(2)
        return without + scale * (with_prompt - without)

    return both


LATENT = {**CHAIN, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
SDXL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
SDXL |= {"projection_class_embeddings_input_dim": 6 * 4 + 8}
LATENTS = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "height": 8, "width": 8, "output_type": "latent"}


@pytest.mark.parametrize("method", METHODS)
def test_ddpm_pipeline(method: str) -> None:
    """Of a small network that is trained on digits."""
    net, base = diffusers_parity.stored("epsilon"), diffusers.DDIMScheduler(**CHAIN)
    pipe = quiet(diffusers.DDPMPipeline(net, made(base.config, method)))
    images = pipe(batch_size=2, num_inference_steps=STEPS, generator=generator(), output_type="pt").images
    source = generator()
    x = torch.randn(2, 1, 8, 8, generator=source)
    with torch.no_grad():
        wanted = solved(pipe.scheduler, lambda x, t: net(x, t).sample, x, source)
    assert gap(images, (wanted / 2 + 0.5).clamp(0, 1)) <= TOLERANCE


class TwoStages(scoresde.Solver):
    """Somebody's own: the midpoint method in λ, with a draw."""

    kind, stochastic, evaluations = "sde", True, 2
    noise_limit: ClassVar[bool] = True

    def step(self, process: Any, x: Tensor, start: Any, stop: Any, state: object) -> Any:
        half = process.sde.node(0.5 * (start.t + stop.t))
        first = (yield process.estimate(x, start)).data
        inner = half.alpha * first + half.sigma / start.sigma * (x - start.alpha * first)
        second = yield process.estimate(inner, half)
        z = yield process.increment(start.t, stop.t, x)
        return scoresde.StepResult(stop.alpha * second.data + stop.sigma * (0.8 * second.noise + 0.6 * z), None)


def test_a_solver_of_ones_own_in_a_pipeline() -> None:
    net, base = diffusers_parity.stored("epsilon"), diffusers.DDIMScheduler(**CHAIN)
    pipe = quiet(diffusers.DDPMPipeline(net, DiffusersScheduler.from_config(base.config, method=TwoStages())))
    images = pipe(batch_size=2, num_inference_steps=STEPS, generator=generator(), output_type="pt").images
    source = generator()
    x = torch.randn(2, 1, 8, 8, generator=source)
    with torch.no_grad():
        wanted = solved(pipe.scheduler, lambda x, t: net(x, t).sample, x, source)
    assert gap(images, (wanted / 2 + 0.5).clamp(0, 1)) <= TOLERANCE
    with pytest.raises(InvalidArgumentError, match="TwoStages"):  # its config cannot make it again
        DiffusersScheduler.from_config(pipe.scheduler.config)


class Latents:
    """Stands for an autoencoder, and keeps what it is to decode."""

    def __init__(self, vae: Any) -> None:
        self.vae, self.seen = vae, []
        vae.decode = self.decode

    def decode(self, z: Tensor) -> SimpleNamespace:
        self.seen.append(z * self.vae.config.scaling_factor)
        return SimpleNamespace(sample=z[:, :3])


@pytest.mark.parametrize("method", WAYS)
def test_dit_pipeline(method: str) -> None:
    """It passes the scaled state back, and writes the first half of the batch over the second before each step."""
    torch.manual_seed(0)
    net = diffusers.DiTTransformer2DModel(
        sample_size=4, num_layers=1, patch_size=2, attention_head_dim=4, num_attention_heads=2, in_channels=4,
        out_channels=4, num_embeds_ada_norm=1000, norm_elementwise_affine=False,
    ).eval()  # fmt: skip
    vae, base = autoencoder(), diffusers.DDIMScheduler(**CHAIN)
    latents = Latents(vae)
    pipe = quiet(diffusers.DiTPipeline(net, vae, made(base.config, method)))
    torch.manual_seed(3)  # the pipeline does not pass its generator on
    pipe(class_labels=[1, 2], num_inference_steps=STEPS, guidance_scale=2.0, generator=generator(), output_type="np")
    source = generator()
    x = torch.randn(2, 4, 4, 4, generator=source)

    def both(x: Tensor, t: Tensor) -> Tensor:
        labels = torch.tensor([1, 2, 1000, 1000])
        given, without = net(torch.cat([x[:2]] * 2), timestep=t, class_labels=labels).sample.chunk(2)
        return torch.cat([without + 2.0 * (given - without)] * 2)

    with torch.no_grad():
        torch.manual_seed(3)
        wanted = solved(pipe.scheduler, both, torch.cat([x, x]), None)[:2]
    assert gap(latents.seen[0], wanted) <= TOLERANCE


def with_prompts(net: Any) -> Callable[[Tensor, Tensor], Tensor]:
    embeds = prompts()
    given = torch.cat([embeds["negative_prompt_embeds"], embeds["prompt_embeds"]])
    return guided(lambda x, t: net(x, t, encoder_hidden_states=given).sample, 3.0)


@pytest.mark.parametrize("method", WAYS)
def test_stable_diffusion_pipeline(method: str) -> None:
    net, base = conditional_unet(), diffusers.DDIMScheduler(**LATENT)
    pipe = stable_diffusion(diffusers.StableDiffusionPipeline, net, made(base.config, method))
    latents = pipe(**prompts(), **LATENTS, generator=generator()).images
    source = generator()
    x = torch.randn(2, 4, 8, 8, generator=source)
    with torch.no_grad():
        assert gap(latents, solved(pipe.scheduler, with_prompts(net), x, source)) <= TOLERANCE


@pytest.mark.parametrize("method", WAYS)
def test_stable_diffusion_image_to_image_pipeline(method: str) -> None:
    net, base = conditional_unet(), diffusers.DDIMScheduler(**LATENT)
    pipe = stable_diffusion(diffusers.StableDiffusionImg2ImgPipeline, net, made(base.config, method))
    image = drawn(2, 4, 8, 8, seed=7)  # four channels are taken for latents
    options = {"num_inference_steps": 8, "strength": 0.6, "guidance_scale": 3.0, "output_type": "latent"}
    pipe.scheduler.generator = given = generator()  # where noise is added before the first evaluation
    latents = pipe(image=image, **prompts(), **options, generator=given).images
    source = generator()
    noise = torch.randn(2, 4, 8, 8, generator=source)
    c = conventions(base)
    start = c.sde.node(float(pipe.scheduler.legs[0].times[0]))
    x = start.alpha * image + start.sigma * noise
    with torch.no_grad():
        assert gap(latents, solved(pipe.scheduler, with_prompts(net), x, source)) <= TOLERANCE


@pytest.mark.parametrize("method", WAYS)
def test_stable_diffusion_xl_pipeline(method: str) -> None:
    net = conditional_unet(**SDXL)
    base = diffusers.EulerDiscreteScheduler(**{k: v for k, v in LATENT.items() if k != "clip_sample"})
    pipe = quiet(
        diffusers.StableDiffusionXLPipeline(
            vae=autoencoder(), text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=net,
            scheduler=made(base.config, method), add_watermarker=False,
        )
    )  # fmt: skip
    pipe.vae_scale_factor = 1
    given: list[dict[str, Any]] = []
    original = net.forward

    def forward(*arguments: Any, **named: Any) -> Any:
        given.append(named)
        return original(*arguments, **named)

    net.forward = forward
    latents = pipe(**prompts(pooled=True), **LATENTS, generator=generator()).images
    source = generator()
    x = torch.randn(2, 4, 8, 8, generator=source) * pipe.scheduler.init_noise_sigma
    named = {k: given[0][k] for k in ("encoder_hidden_states", "added_cond_kwargs")}
    net.forward = original
    with torch.no_grad():
        assert (
            gap(latents, solved(pipe.scheduler, guided(lambda x, t: net(x, t, **named).sample, 3.0), x, source))
            <= TOLERANCE
        )


@pytest.mark.parametrize(("method", "dynamic"), [*((name, False) for name in WAYS), ("euler", True), ("heun", True)])
def test_flow_matching_pipeline(method: str, dynamic: bool) -> None:
    torch.manual_seed(0)
    net = diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=8, caption_projection_dim=8, pooled_projection_dim=8, out_channels=4,
        pos_embed_max_size=8,
    ).eval()  # fmt: skip
    base = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=dynamic)
    pipe = quiet(
        diffusers.StableDiffusion3Pipeline(
            transformer=net, scheduler=made(base.config, method), vae=autoencoder(), text_encoder=None, tokenizer=None,
            text_encoder_2=None, tokenizer_2=None, text_encoder_3=None, tokenizer_3=None,
        )
    )  # fmt: skip
    pipe.vae_scale_factor = 1
    torch.manual_seed(3)  # the pipeline does not pass its generator on
    latents = pipe(**prompts(pooled=True), **LATENTS, generator=generator()).images
    source, embeds = generator(), prompts(pooled=True)
    x = torch.randn(2, 4, 8, 8, generator=source)
    hidden = torch.cat([embeds["negative_prompt_embeds"], embeds["prompt_embeds"]])
    projections = torch.cat([embeds["negative_pooled_prompt_embeds"], embeds["pooled_prompt_embeds"]])

    def one(x: Tensor, t: Tensor) -> Tensor:
        time = t.expand(len(x))
        return net(x, timestep=time, encoder_hidden_states=hidden, pooled_projections=projections).sample

    torch.manual_seed(3)
    with torch.no_grad():
        assert gap(latents, solved(pipe.scheduler, guided(one, 3.0), x, None)) <= TOLERANCE


@torch.no_grad()
def test_a_network_with_nested_arguments_comes_in() -> None:
    """The U-Net of SDXL gets a dict of two tensors: rows of the batch follow, one row serves all."""
    net = conditional_unet(**SDXL)
    model = from_diffusers(net, diffusers.EulerDiscreteScheduler())
    text, pooled = drawn(2, 3, 8, seed=5), drawn(2, 8, seed=6)
    ids = torch.tensor([[8.0, 8.0, 0.0, 0.0, 8.0, 8.0]])
    context = {"encoder_hidden_states": text, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}
    flat = {**context, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids.expand(2, 6)}}

    def called(x: Tensor, t: Tensor) -> Tensor:
        return net(x, t, **flat).sample

    c = conventions(diffusers.EulerDiscreteScheduler())
    wanted = ScoreModel(called, c.sde, c.prediction, c.time_input, chain=c.chain)
    options: dict[str, Any] = {"grid": model.grid, "steps": 4, "method": "dpmpp_2m"}
    x = 3 * torch.randn(2, 4, 8, 8, generator=generator())
    made = scoresde.solve(model.sde, model, x, context=context, **options).x
    assert torch.equal(made, scoresde.solve(c.sde, wanted, x, **options).x)
    wrong = {**context, "added_cond_kwargs": {"text_embeds": pooled[:1].repeat(5, 1), "time_ids": ids}}
    with pytest.raises(InvalidArgumentError, match=r"context\['added_cond_kwargs'\]\['text_embeds'\]` has 5 rows"):
        scoresde.solve(model.sde, model, x, context=wrong, **options)


def test_what_cannot_be_told_beforehand_is_refused() -> None:
    base = {"_class_name": "DDIMScheduler"}
    refuses(
        (functools.partial(DiffusersScheduler.from_config, base, method=method), InvalidArgumentError, said)
        for method, said in REFUSED.items()
    )
