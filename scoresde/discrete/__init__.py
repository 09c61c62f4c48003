r"""Discrete chains: the lists of noise levels that NCSN and DDPM networks were trained on.

A chain converts to the affine process that it samples, :math:`x_t = \alpha_t x_0 + \sigma_t\varepsilon`, so that every
solver serves its networks. The conventions, for all chains:

- **Order.** The arrays of a chain run from the cleanest level to the noisiest, as time does.
- **Time.** Level i, i = 0 … N - 1, is at the time i. At these times :math:`\alpha` and :math:`\sigma` of `Chain.sde`
  are the chain's own; between them :math:`\ln(\alpha^2/\sigma^2)` is a monotone cubic of time.
- **Label.** What a network receives is an integer: its level's place in the list that the network was trained with. Off
  the chain it is that of the level nearest in log-SNR (`Chain.label`).
- **The last step**, from the cleanest level to the data, gives :math:`E[x_0|x]` in these samplers:
  ``solve(..., denoise=True)``. So a grid of n levels takes n evaluations: n - 1 steps and one to denoise.
- **Respacing.** A part of a chain keeps the times, labels, :math:`\alpha` and :math:`\sigma` of its levels.
"""

from .base import CHAINS, Chain
from .beta import BetaChain
from .noise_scales import NoiseScales
from .spacings import SPACINGS

__all__ = ["CHAINS", "SPACINGS", "BetaChain", "Chain", "NoiseScales"]

CHAINS |= {cls.__name__: cls for cls in (BetaChain, NoiseScales)}
