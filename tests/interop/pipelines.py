"""Small networks and pipelines of diffusers, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SIZES = {"sample_size": 8, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4}
CHAIN = {"clip_sample": False, "timestep_spacing": "trailing"}


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def unet(**options: Any) -> Any:
    """Of one channel."""
    import diffusers

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return diffusers.UNet2DModel(in_channels=1, out_channels=1, **SIZES, **blocks, **options).eval()


def conditional_unet(**options: Any) -> Any:
    """Of four channels, with a prompt."""
    import diffusers

    torch.manual_seed(0)
    down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    blocks = {"down_block_types": down, "up_block_types": up, "cross_attention_dim": 8, "attention_head_dim": 4}
    return diffusers.UNet2DConditionModel(in_channels=4, out_channels=4, **SIZES, **blocks, **options).eval()


def autoencoder() -> Any:
    import diffusers

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    return diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4, **blocks).eval()


def stable_diffusion(cls: Any, net: Any, scheduler: Any) -> Any:
    """A pipeline that gets embedded prompts, with latents of the size of its pictures."""
    absent = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipe = cls(vae=autoencoder(), unet=net, scheduler=scheduler, requires_safety_checker=False, **absent)
    pipe.vae_scale_factor = 1
    return quiet(pipe)


def prompts(rows: int = 2, pooled: bool = False) -> dict[str, Tensor]:
    """Embedded ones, with and without what is asked for."""
    found = {"prompt_embeds": drawn(rows, 3, 8, seed=5), "negative_prompt_embeds": drawn(rows, 3, 8, seed=6)}
    if not pooled:
        return found
    more = {"pooled_prompt_embeds": drawn(rows, 8, seed=8), "negative_pooled_prompt_embeds": drawn(rows, 8, seed=9)}
    return {**found, **more}
