# `sample_tilted` under the name that its module has had; the code is in `scoresde.inverse.tilted`.
from .inverse.tilted import TiltedSamples, sample_tilted

__all__ = ["TiltedSamples", "sample_tilted"]
