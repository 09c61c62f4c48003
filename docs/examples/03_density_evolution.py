"""
How the density changes from noise to data
==========================================

The histogram of many samples at each time, beside the exact density of the forward
process at the same times. If the solver and the score are right, the two figures are
the same up to chance.
"""

# %%
import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import plot

target = scoresde.targets.GaussianMixture(
    torch.tensor([0.2, 0.5, 0.3]), torch.tensor([[-1.8], [0.3], [1.5]]), scales=0.12
)
processes = {
    "variance preserving": scoresde.VPSDE(),
    "rectified flow": scoresde.FlowSDE(),
}

fig, rows = plt.subplots(2, 2, figsize=(10, 6.5), sharey=True, layout="constrained")
for (name, sde), (left, right) in zip(processes.items(), rows, strict=True):
    score_fn = target.score(sde)
    solution = scoresde.solve(
        sde,
        score_fn,
        method="dpmpp_2m",
        steps=80,
        shape=(20_000, 1),
        seed=0,
        save_at="steps",
    )
    plot.density_evolution(solution, ax=left, bins=60, title=f"{name}: samples")

    times = solution.ts
    x = torch.linspace(-4, 4, 241, dtype=torch.float64)[:, None]
    exact = torch.stack([target.log_prob(x, sde, float(t)).exp() for t in times], 1)
    right.pcolormesh(
        times.numpy(),
        x[:, 0].numpy(),
        (exact / exact.amax(0)).numpy(),
        cmap=plot.DENSITY,
        shading="nearest",
        rasterized=True,
    )
    right.set(
        xlabel="time, from noise to data",
        title=f"{name}: exact",
        xlim=left.get_xlim(),
        ylim=(-4, 4),
    )
plt.show()
