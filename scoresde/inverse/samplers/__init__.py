"""Solvers whose steps use a measurement, one published method per file."""

from ... import _registries
from ..._registries import Registry
from .base import InverseSolver

SAMPLERS: Registry[type[InverseSolver]] = _registries.SAMPLERS

__all__ = ["SAMPLERS", "InverseSolver"]
