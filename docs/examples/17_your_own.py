"""
A solver, a process and a rule of your own
==========================================

A solver is a class with one method, a process is two functions, and a rule for
inverse problems is one method again. They take part in everything: per-sample seeds,
guidance, certificates, sets, and the measurement of their order.
"""

# %%
# A two-step method in the log-SNR: the data estimate is the straight line through
# its last two values.

from dataclasses import dataclass
from typing import ClassVar

import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import inverse, plot, testing
from scoresde.solvers import Solver, StepResult


@dataclass(frozen=True)
class TwoStep(Solver):
    ode_order: ClassVar[int] = 2

    def step(self, process, x, start, stop, state):
        data = (yield process.estimate(x, start)).data
        h = stop.lam - start.lam
        shrunk = stop.sigma / start.sigma
        held = 1 - shrunk * start.alpha / stop.alpha
        y = shrunk * x + stop.alpha * held * data
        if state is not None:
            before, lam = state
            y = y + stop.alpha * (h - held) * (data - before) / (start.lam - lam)
        return StepResult(y, (data, start.lam))


# %%
# Is its order 2, as it declares?

testing.check_solver(TwoStep())
measured = testing.estimate_order(TwoStep())
print(f"measured order {measured.order():.2f}")

# %%
# Beside built-in methods, on a problem with an exact solution:

sde = scoresde.VPSDE()
target = scoresde.targets.Gaussian(
    torch.tensor([1.0, -1.0]).double(), torch.tensor([1.0, 0.1]).double()
)
budgets = (8, 16, 32, 64)
curves = {}
for name, method in {
    "mine": TwoStep(),
    "ddim": "ddim",
    "dpmpp_2m": "dpmpp_2m",
}.items():
    found = testing.work_precision(method, target, sde, budgets=budgets)
    curves[name] = (list(found), list(found.values()))
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
plot.work_precision(curves, ax=ax, orders=(1, 2))
plt.show()

# %%
# A process of two functions, with the digits network, which was trained on another
# one:

mine = scoresde.GaussianSDE(
    alpha=lambda t: torch.cos(0.5 * torch.pi * t),
    sigma=lambda t: torch.sin(0.5 * torch.pi * t),
    t_min=1e-3,
    t_max=0.995,
)
network = scoresde.load("digits")
x = scoresde.solve(
    mine, network.score(mine), method=TwoStep(), steps=25, seeds=range(10)
).x
fig, ax = plt.subplots(figsize=(7, 1.2), layout="constrained")
plot.image_table(x[None], ax=ax)
plt.show()

# %%
# A rule that moves the measured part of the data estimate towards the measurement,
# by the share that is right for data of variance 1. It needs no gradient:


class Share(inverse.Rule):
    def apply(self, known, measurement, y):
        node, operator = known.node, measurement.linear("share")
        rho2 = (node.sigma / node.alpha) ** 2
        variance = rho2 / (1 + rho2)  # of the data, given the state
        share = variance / (variance + measurement.std**2)
        return known.data + share * operator.pseudo_inverse(
            y - operator.forward(known.data)
        )


sde, digit = scoresde.VPSDE(), x[3:4]
upper = torch.zeros(1, 8, 8, dtype=torch.bool)
upper[:, :4] = True
half = inverse.Mask(upper)
y = half.forward(digit)[0]
posterior = inverse.condition(network.score(sde), half, y, 0.1, method=Share())
drawn = scoresde.solve(
    sde, posterior, method="ancestral", steps=50, shape=(8, 1, 8, 8), seed=0
).x
seen = half.adjoint(y[None]) - (~upper).float()  # black where nothing is measured
names = ["truth", "seen", *(8 * ["drawn"])]
fig, ax = plt.subplots(figsize=(7, 1.2), layout="constrained")
plot.image_table(torch.cat([digit, seen, drawn])[None], columns=names, ax=ax)
plt.show()
