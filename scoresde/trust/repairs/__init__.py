"""The repairs that a diagnosis tries, one after the other.

Each is a class with `Repair.try_on`, which returns a `Rung`; all share the samples of one `Subject`.
"""

from .base import MATTERS, SHARE, Repair, Rung
from .denoising import Linear, levels_of
from .network import Denoised, Labels, Memorisation, Network, Overfitting, Range
from .precision import Precision
from .process import End, Prior, Steps
from .subject import Rows, Subject
from .wrappers import Clipping, Guidance, without

__all__ = [
    "MATTERS",
    "SHARE",
    "Clipping",
    "Denoised",
    "End",
    "Guidance",
    "Labels",
    "Linear",
    "Memorisation",
    "Network",
    "Overfitting",
    "Precision",
    "Prior",
    "Range",
    "Repair",
    "Rows",
    "Rung",
    "Steps",
    "Subject",
    "levels_of",
    "without",
]
