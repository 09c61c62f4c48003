"""
Class guidance at three scales, and what it really samples
==========================================================

Classifier-free guidance exaggerates a condition: the larger the scale, the more
typical and the less varied the samples are.
"""

# %%
# Digits of every class at three scales. A column has the same noise.

import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import guidance, plot

sde, network = scoresde.VPSDE(), scoresde.load("digits")
rows = []
for scale in (1.0, 3.0, 8.0):
    guided = guidance.classifier_free(network.score(sde), network.score(sde), scale)
    rows.append(
        scoresde.solve(
            sde,
            guided,
            method="dpmpp_2m",
            steps=20,
            seeds=range(10),
            context={"label": torch.arange(10)},
        ).x
    )
fig, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
plot.image_table(
    torch.stack(rows),
    rows=["scale 1", "scale 3", "scale 8"],
    columns=[str(i) for i in range(10)],
    ax=ax,
)
plt.show()

# %%
# Guided samples are often said to come from the distribution :math:`p(x)\,p(y|x)^w`,
# renormalised. That would be so if the guided score were the score of that
# distribution at every noise level. It is not: noise and power do not commute. On
# two classes in one dimension everything is known exactly.

means, scales = torch.tensor([[-0.6], [0.6]]), torch.tensor([[0.5], [0.5]])
joint = scoresde.targets.GaussianMixture(torch.ones(2), means, scales=0.5)
wanted = scoresde.targets.Gaussian(means[1], 0.25)
x = torch.linspace(-2, 4, 600)[:, None]
fig, panels = plt.subplots(
    1, 3, figsize=(11, 3.2), sharey=True, layout="constrained"
)
for ax, scale in zip(panels, (1.0, 3.0, 8.0), strict=True):
    guided = guidance.classifier_free(wanted.score(sde), joint.score(sde), scale)
    drawn = scoresde.solve(
        sde, guided, method="heun", steps=60, shape=(20_000, 1), seed=0
    ).x
    log_tilted = scale * wanted.log_prob(x, sde, sde.t_min) + (
        1 - scale
    ) * joint.log_prob(x, sde, sde.t_min)
    tilted = (log_tilted - log_tilted.max()).exp()
    tilted = tilted / torch.trapezoid(tilted, x[:, 0])
    ax.hist(
        drawn[:, 0].numpy(),
        bins=80,
        range=(-2, 4),
        density=True,
        color="0.8",
        label="samples",
    )
    ax.plot(
        x,
        wanted.log_prob(x, sde, sde.t_min).exp(),
        color=plot.COLOURS[0],
        label="the class",
    )
    ax.plot(x, tilted, "--", color=plot.COLOURS[1], label="$p(x)\\,p(y|x)^w$")
    ax.set(title=f"scale {scale:g}", xlabel="x")
panels[0].legend(frameon=False, fontsize="small")
plt.show()

# %%
# At scale 1 the samples are the class. At larger scales they leave both curves:
# guidance samples a distribution of its own. The tempered one can be sampled by
# reweighting along the path, see :doc:`/guidance`.
