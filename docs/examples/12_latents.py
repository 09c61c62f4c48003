"""
Between two digits
==================

The probability flow can be followed in both directions. Encoding two images, going
from one latent to the other, and decoding gives images in between. A straight line
between the images themselves gives a double exposure.
"""

# %%
import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import plot

sde, network = scoresde.VPSDE(), scoresde.load("digits")
score_fn = network.score(sde)
tight = {"rtol": 1e-3, "atol": 1e-3}
ends = scoresde.solve(
    sde,
    network.score(sde),
    method="dpmpp_2m",
    steps=30,
    seeds=[3, 7],
    context={"label": torch.tensor([0, 7])},
).x

latents = scoresde.encode(sde, score_fn, ends, **tight)
places = torch.linspace(0, 1, 9)
between = scoresde.interpolate(latents.x[:1], latents.x[1:], places)[:, 0]
decoded = scoresde.decode(sde, score_fn, between, **tight)
straight = torch.lerp(ends[:1], ends[1:], places[:, None, None, None])

fig, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
plot.image_table(
    torch.stack([decoded.x, straight]),
    rows=["between latents", "between images"],
    ax=ax,
)
plt.show()

# %%
# What a digit loses on the way up and down again:

again = scoresde.reconstruct(sde, score_fn, ends, **tight)
print(
    "RMS difference of the pixels, of a range of 2:",
    [round(float(e), 4) for e in again.error],
)
