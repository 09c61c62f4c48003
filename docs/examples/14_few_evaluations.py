"""
Five evaluations, tuned to a network
====================================

With few evaluations, the choice of the method and of the grid matters more than
anything else. ``tune`` measures the choices on the network at hand, and the solvers
that ship with the package were learned for it.
"""

# %%
import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import plot

sde, network = scoresde.VPSDE(), scoresde.load("digits")
score_fn = network.score(sde)
noise = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
reference = scoresde.solve(
    sde, score_fn, noise, method="adams", rtol=1e-5, atol=1e-5
).x

# %%
# The ranking of the candidates on sixteen pilot draws, each against twice as many
# steps:

tuned = scoresde.tune(sde, score_fn, 5, pilot=16, seed=1)
tuned

# %%
# Five evaluations from the same noise by each of them. Without any choice, ``ddim``
# on the default grid.

methods = {
    "ddim": {"method": "ddim", "steps": 5},
    "auto": {"method": "auto", "evaluations": 5},
    "tuned": {"method": tuned},
}
shown, rows = [], []
for name, options in methods.items():
    solution = scoresde.solve(sde, score_fn, noise, **options)
    error = (solution.x - reference).flatten(1).square().mean(1).sqrt()
    shown.append(solution.x)
    rows.append(f"{name} ({float(error.median()):.3f})")
fig, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
plot.image_table(
    torch.stack([*shown, reference]),
    rows=[*rows, "exact"],
    ax=ax,
    title="median error of a digit in parentheses",
)
plt.show()

# %%
# The nodes of the grids:

grids = {
    "log_snr": scoresde.grids.log_snr(sde, sde.t_max, sde.t_min, 5),
    "karras": scoresde.grids.karras(sde, sde.t_max, sde.t_min, 5),
    "tuned": tuned.grid if hasattr(tuned, "grid") else tuned.times,
}
fig, ax = plt.subplots(figsize=(8, 1.8), layout="constrained")
plot.grid_nodes(grids, sde=sde, ax=ax)
plt.show()
