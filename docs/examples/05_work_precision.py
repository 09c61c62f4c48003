"""
Work and precision
==================

How large the error of a method is at a given number of evaluations, on a problem
whose exact solution is known. The slopes are the orders of the methods.
"""

# %%
import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import plot, testing

sde = scoresde.VPSDE()
target = scoresde.targets.Gaussian(
    torch.tensor([1.0, -1.0]).double(), torch.tensor([1.0, 0.1]).double()
)
budgets = (8, 16, 32, 64, 128)
curves = {}
for method in ("ddim", "heun", "dpmpp_2m", "dpm_3m", "unipc3"):
    found = testing.work_precision(method, target, sde, budgets=budgets)
    curves[method] = (list(found), list(found.values()))

fig, ax = plt.subplots(figsize=(7, 5), layout="constrained")
plot.work_precision(
    curves,
    ax=ax,
    orders=(1, 2, 3),
    ylabel="RMS error of the end point",
    title="A Gaussian in two dimensions",
)
plt.show()

# %%
# On a network there is no exact solution, but a tight adaptive solve from the same
# noise takes its place:

network = scoresde.load("digits")
score_fn = network.score(sde)
noise = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
reference = scoresde.solve(
    sde, score_fn, noise, method="adams", rtol=1e-4, atol=1e-4
).x
curves = {}
for method in ("ddim", "heun", "dpmpp_2m", "dpm_3m", "unipc3"):
    work, errors = [], []
    for steps in (5, 10, 20, 40):
        solution = scoresde.solve(sde, score_fn, noise, method=method, steps=steps)
        work.append(float(solution.nfe.float().mean()))
        errors.append(
            float(
                (solution.x - reference).flatten(1).square().mean(1).sqrt().median()
            )
        )
    curves[method] = (work, errors)

fig, ax = plt.subplots(figsize=(7, 5), layout="constrained")
plot.work_precision(
    curves,
    ax=ax,
    ylabel="median error of a digit (RMS)",
    title="The network of digits",
)
plt.show()
