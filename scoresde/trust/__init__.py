"""How far samples can be trusted: bounds of their errors, distances of laws, and advice before training."""

from .advice import Advice, HarmlessEnd, ProcessEnds, advise, shifted
from .certificate import Certificate, Group, Identity
from .certifying import certify
from .conformal import Coverage
from .indicators import Indicator
from .law import Interval, Law
from .reference import Worth

__all__ = [
    "Advice",
    "Certificate",
    "Coverage",
    "Group",
    "HarmlessEnd",
    "Identity",
    "Indicator",
    "Interval",
    "Law",
    "ProcessEnds",
    "Worth",
    "advise",
    "certify",
    "shifted",
]
