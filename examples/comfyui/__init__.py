"""A sampler node for ComfyUI with the methods of scoresde: copy this folder to ``ComfyUI/custom_nodes/scoresde``.

The node "scoresde sampler" goes into ``sampler`` of ``SamplerCustom``; the noise levels come from any scheduler node.
"""

import comfy.samplers

from scoresde.interop import K_SAMPLERS


class ScoresdeSampler:
    """A method by its name."""

    RETURN_TYPES = ("SAMPLER",)
    FUNCTION = "sampler"
    CATEGORY = "sampling/custom_sampling/samplers"

    @classmethod
    def INPUT_TYPES(cls):  # the name that ComfyUI looks for
        names = sorted(name.removeprefix("sample_") for name in K_SAMPLERS)
        return {"required": {"method": (names, {"default": "dpm_3m"})}}

    def sampler(self, method):
        return (comfy.samplers.KSAMPLER(K_SAMPLERS[f"sample_{method}"]),)


NODE_CLASS_MAPPINGS = {"ScoresdeSampler": ScoresdeSampler}
NODE_DISPLAY_NAME_MAPPINGS = {"ScoresdeSampler": "scoresde sampler"}
