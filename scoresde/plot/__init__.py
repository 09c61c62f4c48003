"""Pictures of samples, and figures of what was measured."""

from .figures import bits_histogram, divergence_profile
from .images import image_grid

__all__ = ["bits_histogram", "divergence_profile", "image_grid"]
