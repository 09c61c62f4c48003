"""Solvers whose steps use a measurement, one published method per file."""

from ...core.support.registries import SAMPLERS
from .base import InverseSolver

__all__ = ["SAMPLERS", "InverseSolver"]
