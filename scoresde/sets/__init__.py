"""Large sets of samples: made by any number of processes, continued after any interruption, checked in the end."""

from .computing import Batch, Generated, compute
from .reading import Samples, Verified, verify
from .sets import generate

__all__ = ["Batch", "Generated", "Samples", "Verified", "compute", "generate", "verify"]
