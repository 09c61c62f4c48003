"""Large sets of samples: made by any number of processes, continued after any interruption, checked in the end."""

from .computing import Batch, Generated, compute
from .monitor import Effort
from .reading import Samples, Verified, verify
from .sets import generate

__all__ = ["Batch", "Effort", "Generated", "Samples", "Verified", "compute", "generate", "verify"]
