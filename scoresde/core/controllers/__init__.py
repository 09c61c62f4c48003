"""Controllers: a fixed grid, or steps from an error estimate."""

from .adaptive import Adaptive
from .base import Controller, Decision
from .fixed import FixedGrid

__all__ = ["Adaptive", "Controller", "Decision", "FixedGrid"]
