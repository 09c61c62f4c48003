r"""What solvers step: a process in one direction, with a score network behind it.

`ReverseProcess` is the reverse family of an affine process, :math:`\eta = 0` being the probability flow;
`GeneralReverse` the same when only drift and diffusion are known; `ForwardProcess` the forward SDE. A step evaluates
``drift(x, node)``, and of the first also ``estimate(x, node)`` and ``score(x, node)``, by a `Request` that it yields.
A `Coordinate` is another clock and scale for the same path.
"""

from .base import Process, ReverseProcess
from .coordinates import LOG_SNR, RHO, SNR, TIME, Coordinate, angle
from .general import ForwardProcess, GeneralReverse
from .network import Network
from .nodes import Nodes, node_list
from .requests import Asking, Computation, Drawing, Evaluation, Request, drive, result_of

__all__ = [
    "LOG_SNR",
    "RHO",
    "SNR",
    "TIME",
    "Asking",
    "Computation",
    "Coordinate",
    "Drawing",
    "Evaluation",
    "ForwardProcess",
    "GeneralReverse",
    "Network",
    "Nodes",
    "Process",
    "Request",
    "ReverseProcess",
    "angle",
    "drive",
    "node_list",
    "result_of",
]
