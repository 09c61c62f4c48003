# The chains; the code is in `scoresde.chains`.
from .chains import CHAINS, SPACINGS, BetaChain, Chain, NoiseScales

__all__ = ["CHAINS", "SPACINGS", "BetaChain", "Chain", "NoiseScales"]
