# The chains under the name that they have had; the code is in `scoresde.chains`. Names with an underscore are in
# pickles of earlier versions.
from .chains import CHAINS, SPACINGS, BetaChain, Chain, NoiseScales
from .chains.curve import MonotoneCurve as _MonotoneCurve  # noqa: F401
from .chains.curve import Nearest as _Nearest  # noqa: F401
from .chains.curve import Tables as _Tables  # noqa: F401
from .chains.noise_scales import _sigma  # noqa: F401
from .chains.spacings import _leading, _linspace, _trailing  # noqa: F401

__all__ = ["CHAINS", "SPACINGS", "BetaChain", "Chain", "NoiseScales"]
