"""
The posterior of a simulator, and its calibration
=================================================

A network is trained on pairs of parameters and simulated data. It then samples the
posterior of the parameters for any observation, and the calibration tells whether
these posteriors can be believed.
"""

# %%
# A simulator with two parameters, and 20,000 simulations:

import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import plot

torch.manual_seed(0)


def simulator(theta):
    a, b = theta.T
    return torch.stack([a + b**2 / 2, b], 1) + 0.3 * torch.randn(len(theta), 2)


theta = 4 * torch.rand(20_000, 2) - 2
y = simulator(theta)

# %%
# A small network, trained with EDM's loss for a few seconds:


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        linear, act = torch.nn.Linear, torch.nn.SiLU()
        self.body = torch.nn.Sequential(
            linear(5, 64),
            act,
            linear(64, 64),
            act,
            linear(64, 64),
            act,
            linear(64, 2),
        )

    def forward(self, x, time, y):
        return self.body(torch.cat([x, time[:, None], y / 2], 1))


sde = scoresde.EDMSDE(sigma_min=0.01, sigma_max=20.0)
model = scoresde.ScoreModel(
    Net(), sde, "edm", sigma_data=float(theta.std()), event_shape=(2,)
)
optimiser = torch.optim.Adam(model.net.parameters(), 5e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1200)
for _ in range(1200):
    rows = torch.randint(19_000, (512,))
    loss = scoresde.losses.edm(model, theta[rows], y=y[rows]).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
_ = model.net.eval()

# %%
# The posterior for one observation, beside the exact one, which a grid of
# likelihoods gives in two dimensions:

observed = torch.tensor([[0.8, -0.5]])
posterior = scoresde.solve(
    sde,
    model,
    context={"y": observed},
    method="unipc",
    steps=20,
    shape=(3000, 2),
    seed=0,
).x

axis = torch.linspace(-2, 2, 401)
points = torch.cartesian_prod(axis, axis)
mean = torch.stack([points[:, 0] + points[:, 1] ** 2 / 2, points[:, 1]], 1)
weights = (-(observed - mean).square().sum(1) / (2 * 0.3**2)).softmax(0)
exact = points[weights.multinomial(3000, replacement=True)] + 0.01 * (
    torch.rand(3000, 2) - 0.5
)
panels = plot.corner({"network": posterior, "exact": exact}, names=["a", "b"])
corner = panels[0][0].figure

# %%
# Is it right for all observations? Over many pairs, the rank of the true parameter
# among its posterior draws is uniform if the posteriors are right.

seen, truth = y[-500:], theta[-500:]
draws = scoresde.solve(
    sde,
    model,
    context={"y": seen.repeat_interleave(100, 0)},
    method="unipc",
    steps=20,
    shape=(50_000, 2),
    seed=0,
).x.reshape(500, 100, 2)
# The verdict, and for each parameter the probability of ranks at least as uneven as
# these if the posteriors are right:
found = scoresde.trust.simulation_based_calibration(truth, draws.movedim(1, 0))
print(found.verdict, [round(float(p), 2) for p in found.p_values])

fig, panels = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
for k, (ax, name) in enumerate(zip(panels, "ab", strict=True)):
    ranks = (draws[:, :, k] < truth[:, None, k]).float().mean(1)
    ax.hist(ranks.numpy(), bins=10, range=(0, 1), color="0.75", edgecolor="0.5")
    ax.axhspan(
        50 - 2 * 45**0.5,
        50 + 2 * 45**0.5,
        color=plot.COLOURS[0],
        alpha=0.2,
        linewidth=0,
    )
    ax.set(xlabel=f"rank of the true {name} among 100 draws", ylabel="pairs of 500")
plt.show()
