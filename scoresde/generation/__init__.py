"""Large sets of samples: made by any number of processes, continued after any interruption, checked in the end."""

from .reading import Samples, Verified, verify
from .sets import Generated, generate

__all__ = ["Generated", "Samples", "Verified", "generate", "verify"]
