"""
The same noise by the ODE and by the SDE
========================================

The reverse SDE and the probability-flow ODE have the same distribution at every
time. Their paths differ: the flow is smooth and deterministic, while the SDE draws
noise all the way, so that where a sample ends is decided late.
"""

# %%
import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import plot

sde = scoresde.VPSDE()
target = scoresde.targets.GaussianMixture(
    torch.tensor([0.3, 0.4, 0.3]), torch.tensor([[-1.5], [0.0], [1.2]]), scales=0.15
)
score_fn = target.score(sde)
noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))

ways = {
    "probability-flow ODE (heun)": scoresde.solve(
        sde, score_fn, noise, method="heun", steps=200, save_at="steps"
    ),
    "reverse SDE (euler_maruyama)": scoresde.solve(
        sde,
        score_fn,
        noise,
        method="euler_maruyama",
        steps=400,
        seed=1,
        save_at="steps",
    ),
}

# %%
# Forty paths of each from the same noise, against the log-SNR, which grows from
# noise (left) to data (right):

fig, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for ax, (name, solution) in zip(panels, ways.items(), strict=True):
    plot.trajectories(solution, sde=sde, most=40, ax=ax, title=name)
plt.show()

# %%
# The ends have one distribution, that of the data:

fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
x = torch.linspace(-2.2, 2.0, 400)[:, None]
for colour, (name, solution) in zip(plot.COLOURS, ways.items(), strict=False):
    ax.hist(
        solution.x[:, 0].numpy(),
        bins=80,
        density=True,
        histtype="step",
        color=colour,
        label=name,
    )
ax.plot(
    x[:, 0],
    target.log_prob(x, sde, sde.t_min).exp(),
    color="black",
    linewidth=0.8,
    label="data",
)
ax.set(xlabel="$x_0$", ylabel="density")
ax.legend(frameon=False, fontsize="small")
plt.show()

# %%
# One noise, many ends: the SDE from a single state at t = 0.35, where the flow has
# only one end.

t = 0.35
one = torch.zeros(2000, 1) - 0.35
sde_ends = scoresde.solve(
    sde, score_fn, one, t_start=t, method="euler_maruyama", steps=300, seed=2
).x
ode_end = float(
    scoresde.solve(sde, score_fn, one[:1], t_start=t, method="heun", steps=200).x
)
shares = [
    float(((sde_ends - centre).abs() < 0.7).float().mean())
    for centre in (-1.5, 0.0, 1.2)
]
print(
    f"the flow ends at {ode_end:.2f}; the SDE near -1.5, 0 and 1.2 with shares",
    [round(s, 2) for s in shares],
)
