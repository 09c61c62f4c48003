"""
A learned noise schedule
========================

In a variational diffusion model the log-SNR is a monotone network of the time. The
bound depends on its ends alone, so that its interior is free to make the estimate of
the bound less noisy. Here the score is exact, so that only the schedule is learned.
"""

# %%
import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import losses, nets, plot

torch.manual_seed(0)
means = torch.tensor([[-1.5, 0.0], [0.5, 1.0], [1.0, -1.0]])
target = scoresde.targets.GaussianMixture(torch.ones(3), means, scales=0.1)
x0 = target.sample(4096, generator=torch.Generator().manual_seed(0))

gamma = nets.MonotoneGamma(-8.0, 8.0, hidden=64)
learned, straight = (
    scoresde.VDMSDE(gamma),
    scoresde.VDMSDE(scoresde.LinearGamma(-8.0, 8.0)),
)

# %%
# The diffusion term of the bound at random times; the variance of its values is what
# the schedule is trained for.


def values(sde, count, generator):
    model = target.score(sde)
    rows = torch.randint(len(x0), (count,), generator=generator)
    noise = torch.randn(count, 2, generator=generator)
    u = torch.rand(count, generator=generator, dtype=torch.float64)
    return losses.diffusion_at(model, x0[rows], noise, u, minimise_variance=True)


generator = torch.Generator().manual_seed(1)
optimiser = torch.optim.Adam(gamma.interior.parameters(), 2e-2)
for _ in range(250):
    loss = values(learned, 512, generator).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()

# %%
# Both schedules have the same ends and the same bound:

names, rows = ("straight", "learned"), []
for name, sde in zip(names, (straight, learned), strict=True):
    with torch.no_grad():
        found = values(sde, 20_000, torch.Generator().manual_seed(2))
    mean, spread = float(found.mean()), float(found.std())
    print(f"{name}: {mean:.2f} ± {spread / 141:.2f} nats, single ± {spread:.2f}")

t = torch.linspace(0, 1, 200)
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, sde, colour in zip(names, (straight, learned), plot.COLOURS, strict=False):
    ax.plot(t, sde.log_snr(t).detach(), color=colour, label=name)
ax.set(xlabel="time", ylabel="log-SNR")
ax.legend(frameon=False)
plt.show()
