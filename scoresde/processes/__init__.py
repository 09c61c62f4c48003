r"""What solvers step: a process in one direction, with a score network behind it.

`ReverseProcess` is the reverse family of an affine process, :math:`\eta = 0` being the probability flow;
`GeneralReverse` the same when only drift and diffusion are known; `ForwardProcess` the forward SDE. All offer
``drift(x, node)`` and ``diffusion(x, node)``; the first also ``estimate(x, node)`` and ``score(x, node)``.
A `Coordinate` is another clock and scale for the same path.
"""

from .base import Process
from .coordinates import LOG_SNR, RHO, SNR, TIME, Coordinate, angle
from .general import ForwardProcess, GeneralReverse
from .network import Network
from .nodes import Nodes, node_list
from .reverse import ReverseProcess

__all__ = [
    "LOG_SNR",
    "RHO",
    "SNR",
    "TIME",
    "Coordinate",
    "ForwardProcess",
    "GeneralReverse",
    "Network",
    "Nodes",
    "Process",
    "ReverseProcess",
    "angle",
    "node_list",
]
