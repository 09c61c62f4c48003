"""
How good are these samples, and what limits them?
=================================================

A certificate bounds the error of every sample that the solver makes, whatever the
network. A diagnosis says whether the steps, the network or something else limits the
samples.
"""

# %%
import scoresde
import torch

sde = scoresde.VPSDE()
angles = torch.arange(4) * torch.pi / 2
target = scoresde.targets.GaussianMixture(
    torch.ones(4), torch.stack([angles.cos(), angles.sin()], 1), scales=0.3
)
score_fn = target.score(sde)

# %%
# Ten steps of a second-order method, certified on a pilot of 256 draws:

certificate = scoresde.certify(sde, score_fn, "dpmpp_2m", steps=10, seed=0)
print(certificate.statement())

# %%
figure = certificate.plot()[0].figure

# %%
# Five steps are too few here, and the diagnosis says so:

data = target.sample(1500, generator=torch.Generator().manual_seed(0))
diagnosis = scoresde.diagnose(
    sde,
    score_fn,
    data[:1000],
    held_out=data[1000:],
    method="dpmpp_2m",
    steps=5,
    pilot=128,
    seed=0,
)
print(diagnosis.verdict)

# %%
causes = diagnosis.plot().figure
