"""
A diffusers pipeline with another sampler
=========================================

``DiffusersScheduler`` puts any method of this package into a pipeline of diffusers.
The pipeline does not change.
"""

# %%
# A pipeline would come from ``DDPMPipeline.from_pretrained(...)``. Here the digits
# network stands in for a downloaded one, with the call and the config that a
# pipeline needs:

from types import SimpleNamespace

import matplotlib.pyplot as plt
import scoresde
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DPMSolverMultistepScheduler
from scoresde import plot
from scoresde.interop import DiffusersScheduler, conventions

scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
sde = conventions(scheduler).sde
network = scoresde.load("digits")


class Unet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network.net
        self.score = network.score(sde)
        self.config = SimpleNamespace(sample_size=8, in_channels=1)
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def forward(self, x, timestep):
        time = torch.as_tensor(timestep, dtype=torch.float64) + 1
        return SimpleNamespace(
            sample=-self.score(x, time) * sde.node(float(time)).sigma
        )  # the noise


pipe = DDPMPipeline(Unet().eval(), scheduler)
pipe.set_progress_bar_config(disable=True)

# %%
# Ten steps from the same noise, by three schedulers of diffusers and by methods of
# this package in their place:

schedulers = {
    "DDIMScheduler": scheduler,
    "DPMSolverMultistepScheduler": DPMSolverMultistepScheduler(
        timestep_spacing="trailing"
    ),
    'DiffusersScheduler("unipc3")': DiffusersScheduler.from_config(
        scheduler.config, method="unipc3"
    ),
    'DiffusersScheduler("dpmpp_3m_sde")': DiffusersScheduler.from_config(
        scheduler.config, method="dpmpp_3m_sde"
    ),
}
rows = []
for pipe.scheduler in schedulers.values():
    images = pipe(
        batch_size=10,
        num_inference_steps=10,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    rows.append(2 * torch.from_numpy(images).movedim(-1, 1) - 1)
fig, ax = plt.subplots(figsize=(10, 3.6), layout="constrained")
plot.image_table(torch.stack(rows), rows=list(schedulers), ax=ax)
plt.show()
