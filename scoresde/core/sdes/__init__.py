"""Forward processes."""

from .base import SDE, AffineSDE, ReverseSDE
from .flow import FlowSDE
from .gaussian import GaussianSDE
from .priors import NormalPrior
from .records import Estimate, Node
from .sigmoid import SigmoidVPSDE
from .span import within
from .vdm import VDMSDE, LinearGamma, ShiftedGamma
from .ve import EDMSDE, VESDE
from .vp import VPSDE, CosineVPSDE, SubVPSDE

__all__ = [
    "EDMSDE",
    "SDE",
    "VDMSDE",
    "VESDE",
    "VPSDE",
    "AffineSDE",
    "CosineVPSDE",
    "Estimate",
    "FlowSDE",
    "GaussianSDE",
    "LinearGamma",
    "Node",
    "NormalPrior",
    "ReverseSDE",
    "ShiftedGamma",
    "SigmoidVPSDE",
    "SubVPSDE",
    "within",
]
