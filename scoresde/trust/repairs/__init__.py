"""The repairs that a diagnosis tries, one after the other.

Each is a class with `Repair.try_on`, which returns a `Rung`; all share the samples of one `Subject`.
"""

from .base import MATTERS, SHARE, Repair, Rung
from .denoising import Denoised, Linear, levels_of
from .high_noise import NoisyStart
from .network import LabelRepair, Memorisation, NetworkRepair, Overfitting
from .posterior import Posterior
from .precision import HALVES, Precision, in_float32
from .process import End, Prior, Steps
from .ranges import OtherRange, Range
from .subject import Rows, Subject
from .unwrapped import without
from .wrappers import Clipping, Guidance

__all__ = [
    "HALVES",
    "MATTERS",
    "SHARE",
    "Clipping",
    "Denoised",
    "End",
    "Guidance",
    "LabelRepair",
    "Linear",
    "Memorisation",
    "NetworkRepair",
    "NoisyStart",
    "OtherRange",
    "Overfitting",
    "Posterior",
    "Precision",
    "Prior",
    "Range",
    "Repair",
    "Rows",
    "Rung",
    "Steps",
    "Subject",
    "in_float32",
    "levels_of",
    "without",
]
