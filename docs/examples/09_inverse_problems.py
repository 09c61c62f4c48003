"""
Inpainting, super-resolution and deblurring
===========================================

One network that was trained for none of these tasks restores digits that were cut in
half, shrunk or blurred. Each restoration is a set of samples, whose spread says what
the measurement leaves open.
"""

# %%
import matplotlib.pyplot as plt
import scoresde
import torch
from scoresde import inverse, plot
from scoresde.training import digits_split

sde, network = scoresde.VPSDE(), scoresde.load("digits")
score_fn = network.score(sde)
grey = digits_split().test_images[3:4]  # a digit that the network has not seen
truth = (grey + 0.5) * 2 / 17 - 1
noise = 0.05

upper = torch.zeros(1, 8, 8, dtype=torch.bool)
upper[:, :4] = True
operators = {
    "inpainting": inverse.Mask(upper),
    "super-resolution": inverse.block_average((1, 8, 8), 2),
    "deblurring": inverse.gaussian_blur((1, 8, 8), 1.0),
}

# %%
# For each task: what was measured (as an image), the truth, the mean of 24 samples,
# and their standard deviation in each pixel.

generator = torch.Generator().manual_seed(0)
fig, rows = plt.subplots(3, 4, figsize=(9, 7), layout="constrained")
for (name, operator), panels in zip(operators.items(), rows, strict=True):
    y = operator.forward(truth)
    y = y + noise * torch.randn(y.shape, generator=generator)
    found = inverse.sample_posterior(
        sde,
        score_fn,
        operator,
        y[0],
        noise,
        method="mmps",
        iterations=3,
        steps=40,
        shape=(24, 1, 8, 8),
        seed=1,
        denoise=True,
    )
    seen = operator.adjoint(y) if name == "inpainting" else y
    plot.mean_and_spread(
        found.x, truth=truth[0], measured=seen[0], ax=panels, title=name
    )
    kept = float((operator.forward(found.x) - y).square().mean().sqrt())
    print(
        f"{name}: samples and measurement differ by {kept:.3f} (the noise: {noise})"
    )
plt.show()
