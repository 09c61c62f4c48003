"""Limits for the data estimate, under the names that they have had; the code is in `scoresde.scores`."""

from .scores import Clip, DynamicThreshold

__all__ = ["Clip", "DynamicThreshold"]
