r"""The divergence of a field, :math:`\mathrm{tr}\,J`, from vector-Jacobian products.

A `Divergence` belongs to one solve: its probes are drawn once, so that what is integrated is a smooth function. It
gives one value for each of its ``paths``, whose mean is the divergence, and whose spread measures how well it is known.

Products are made by reverse differentiation, several at once: forward they take ten times as long, and by copies of the
states in a larger batch they are no faster
(``python -m benchmarks likelihood --only products``).
"""

from .base import Backward, Divergence, Product, dot
from .estimates import ExactTrace, Hutchinson, HutchPlusPlus
from .probes import PROBES, Probe
from .xtrace import XTrace

DIVERGENCES: dict[str, type[Divergence]] = {
    "exact": ExactTrace,
    "hutchinson": Hutchinson,
    "hutch++": HutchPlusPlus,
    "xtrace": XTrace,
}

__all__ = [
    "DIVERGENCES",
    "PROBES",
    "Backward",
    "Divergence",
    "ExactTrace",
    "HutchPlusPlus",
    "Hutchinson",
    "Probe",
    "Product",
    "XTrace",
    "dot",
]
