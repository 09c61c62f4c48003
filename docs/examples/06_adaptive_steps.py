"""
Every sample takes its own steps
================================

An adaptive method chooses the steps of each sample by itself: a sample that is near
one mode early needs few of them, one that is between modes for long needs more. A
batch is no reason to take the smallest step for all.
"""

# %%
import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import plot

sde = scoresde.VPSDE()
target = scoresde.targets.GaussianMixture(
    torch.ones(3), torch.tensor([[-1.5], [0.0], [1.2]]), scales=0.05
)
solution = scoresde.solve(
    sde,
    target.score(sde),
    method="tsit5",
    rtol=1e-4,
    atol=1e-4,
    shape=(200, 1),
    seed=0,
    save_at="steps",
)
print(
    "evaluations per sample:", int(solution.nfe.min()), "to", int(solution.nfe.max())
)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
plot.trajectories(
    solution, sde=sde, most=6, ax=left, title="the ways of six samples"
)
plot.step_sizes(solution, sde=sde, most=6, ax=right, title="and their steps")
plt.show()

# %%
# The number of evaluations against the place where the sample ends: most are needed
# by those that pass close to the border between two modes.

fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.plot(solution.xs[0, :, 0], solution.nfe, "o", color=plot.COLOURS[0], markersize=3)
ax.set(xlabel="state at the start", ylabel="evaluations")
plt.show()
