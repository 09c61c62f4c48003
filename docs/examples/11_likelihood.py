"""
Likelihoods, and out-of-distribution digits
===========================================

The probability flow gives the log-density of any image. Images of the network's own
kind have few bits per dimension; others have more, as long as they are not smoother
than the data.
"""

# %%
import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import plot
from scoresde.training import digits_split

sde, network = scoresde.VPSDE(), scoresde.load("digits")
digits = digits_split().test_images[:48]  # grey values that the network has not seen
generator = torch.Generator().manual_seed(0)
shuffled = digits.flatten(1)[:, torch.randperm(64, generator=generator)].reshape(
    digits.shape
)
sets = {
    "held-out digits": digits,
    "upside down": digits.flip(2),
    "pixels in another order": shuffled,
}

# %%
# The grey values are made continuous by uniform noise, as the network was trained.
# The log-densities have error bars, since the divergence is estimated with random
# probes. (Without ``check=False`` a warning says that the network does not denoise
# the images of the last set.)

found = {}
for name, grey in sets.items():
    x = scoresde.dequantize(grey, levels=17, generator=generator)
    found[name] = scoresde.log_likelihood(
        sde,
        network.score(sde),
        x,
        probes=4,
        seed=0,
        rtol=1e-2,
        atol=1e-2,
        check=False,
    )

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, likelihood), colour in zip(found.items(), plot.COLOURS, strict=False):
    per_dim = -likelihood.log_prob / 64
    ax.hist(
        per_dim.numpy(),
        bins=60,
        range=(-2, 4),
        alpha=0.6,
        color=colour,
        label=f"{name}: mean {float(per_dim.mean()):.2f}",
    )
ax.set(xlabel="negative log-density per dimension (nats)", ylabel="images of 48")
ax.legend(frameon=False)
plt.show()

# %%
# One by one, with the 95 % intervals of the estimate of the trace:

fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
for (name, likelihood), colour in zip(found.items(), plot.COLOURS, strict=False):
    low, high = likelihood.interval()
    middle = likelihood.log_prob[:16]
    ax.errorbar(
        range(16),
        middle,
        torch.stack([middle - low[:16], high[:16] - middle]).numpy(),
        fmt="o",
        markersize=3,
        color=colour,
        label=name,
    )
ax.set(xlabel="image", ylabel="log-density (nats)")
ax.legend(frameon=False, fontsize="small")
plt.show()
