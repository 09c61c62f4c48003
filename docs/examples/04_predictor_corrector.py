"""
A predictor with and without a corrector
========================================

A corrector moves samples at a fixed noise level towards the distribution at that
level, by Langevin steps. It repairs part of what a coarse predictor does wrong. It
also costs evaluations, with which the predictor could have taken more steps.
"""

# %%
import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import plot

sde = scoresde.VESDE(sigma_max=20.0)
angles = torch.arange(8) * torch.pi / 4
centres = torch.stack([angles.cos(), angles.sin()], 1)
target = scoresde.targets.GaussianMixture(torch.ones(8), centres, scales=0.1)
data = target.sample(3000, generator=torch.Generator().manual_seed(0))

# %%
# With few steps the modes come out too wide. Their width, a standard deviation, is
# .1 in the data (grey):

samplers = {
    "predictor": {"method": "reverse_diffusion", "steps": 10},
    "predictor and corrector": {"method": "pc", "steps": 10},
    "predictor, twice the steps": {"method": "reverse_diffusion", "steps": 20},
}


def width(x):
    return (
        float((x[:, None] - centres).norm(dim=2).amin(1).square().mean() / 2) ** 0.5
    )


fig, panels = plt.subplots(
    1, 3, figsize=(11, 4), sharex=True, sharey=True, layout="constrained"
)
for ax, (name, chosen) in zip(panels, samplers.items(), strict=True):
    solution = scoresde.solve(
        sde, target.score(sde), shape=(3000, 2), seed=1, **chosen
    )
    calls = int(solution.nfe[0])
    ax.plot(*solution.x.T, "o", color=plot.COLOURS[0], markersize=1)
    ax.plot(*data.T, "o", color="0.8", markersize=1)
    ax.set_title(f"{name}\n{calls} evaluations, width {width(solution.x):.3f}")
    ax.set_aspect("equal")
plt.show()

# %%
# The corrector helps, and twice as many steps of the predictor, which cost the same,
# help more. With a network the comparison may end otherwise: its errors are not only
# those of the steps, and a corrector lessens them too. :doc:`/measured` has the
# measurements.
