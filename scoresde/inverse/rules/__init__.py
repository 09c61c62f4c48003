"""Rules: how a measurement moves the data estimate, one published method per file."""

from ... import _registries
from ..._registries import Registry
from .base import Known, Rule, Tally, look

RULES: Registry[type[Rule]] = _registries.RULES

__all__ = ["RULES", "Known", "Rule", "Tally", "look"]
