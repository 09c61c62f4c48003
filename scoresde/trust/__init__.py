"""How far samples can be trusted: bounds on their errors, distances of distributions, what limits them, and advice
before training.
"""

from ..core.support.intervals import Interval
from .advice import Advice, HarmlessEnd, ProcessEnds, advise, shifted
from .calibration import Calibration, sbc_ranks, simulation_based_calibration, tarp
from .certificate import CalibratedDraws, Certificate
from .certifying import certify
from .conformal import Coverage
from .diagnosis import Diagnosis, diagnose
from .law import Law
from .reference import Worth
from .repairs.base import Rung
from .two_samples import (
    ClassifierTest,
    Nearest,
    SlicedWasserstein,
    classifier_test,
    energy_test,
    nearest,
    sliced_wasserstein,
)

__all__ = [
    "Advice",
    "CalibratedDraws",
    "Calibration",
    "Certificate",
    "ClassifierTest",
    "Coverage",
    "Diagnosis",
    "HarmlessEnd",
    "Interval",
    "Law",
    "Nearest",
    "ProcessEnds",
    "Rung",
    "SlicedWasserstein",
    "Worth",
    "advise",
    "certify",
    "classifier_test",
    "diagnose",
    "energy_test",
    "nearest",
    "sbc_ranks",
    "shifted",
    "simulation_based_calibration",
    "sliced_wasserstein",
    "tarp",
]
