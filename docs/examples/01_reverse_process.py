"""
The reverse process
===================

A score-based model begins with noise and follows a differential equation back to the
data. Here the data are a Swiss roll, represented by a mixture of narrow Gaussians on
it, whose score is known exactly, so that everything that can be seen is the process
itself.
"""

# %%
# The data, as a target whose score is exact at every noise level:

import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import plot

turns = torch.linspace(1.5, 4.5, 60) * torch.pi
roll = torch.stack([turns * turns.cos(), turns * turns.sin()], 1) / 8
target = scoresde.targets.GaussianMixture(turns, roll, scales=0.05)
data = target.sample(1000, generator=torch.Generator().manual_seed(0))

# %%
# Draw samples, and keep the state of every step:

sde = scoresde.VPSDE()
solution = scoresde.solve(
    sde,
    target.score(sde),
    method="dpmpp_2m",
    steps=60,
    shape=(800, 2),
    seed=0,
    save_at="steps",
)
solution

# %%
# The animation shows noise that becomes data (the grey points):

frames = plot.point_animation(solution, "reverse_process.gif", behind=data)

# %%
# Most of the way is at high noise, where little can be seen. The same states at five
# times, of which the last one is the end:

fig, panels = plt.subplots(
    1, 5, figsize=(12, 2.8), sharex=True, sharey=True, layout="constrained"
)
for ax, step in zip(panels, (0, 25, 35, 45, 60), strict=True):
    ax.plot(*solution.xs[step].T, "o", color=plot.COLOURS[0], markersize=1)
    ax.set(title=f"t = {float(solution.ts[step]):.3f}", aspect="equal")
plt.show()

# %%
# With a network of images, the same is ``scoresde sample --animate film.gif``. The
# states are ``solution.xs``. A callback keeps the data estimates, too, at no cost:
# with one evaluation per step, the i-th is what the network makes of the i-th state.

estimates = []
network = scoresde.load("mnist")
solution = scoresde.solve(
    sde,
    network.score(sde),
    method="dpmpp_2m",
    steps=20,
    seeds=range(5),
    context={"label": torch.arange(5)},
    save_at="steps",
    callback=lambda info: estimates.append(info.denoised),
)
chosen = [0, 8, 12, 16, 19]
shown = solution.xs[chosen]
levels = sde.nodes(solution.ts[chosen])
size = (
    (levels.alpha**2 + levels.sigma**2).sqrt().float()[:, None, None, None, None]
)  # of a state, for data of size 1
rows = [f"t = {t:.3f}" for t in levels.t.tolist()]
fig, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
plot.image_table(shown / size, rows=rows, ax=panels[0])
plot.image_table(
    torch.stack([estimates[i] for i in chosen]), rows=rows, ax=panels[1]
)
panels[0].set_title("states")
panels[1].set_title("data estimates")
plt.show()
