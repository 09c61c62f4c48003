"""Rules: how a measurement moves the data estimate, one published method per file."""

from ..._registries import RULES
from .base import Known, Rule, Tally, look

__all__ = ["RULES", "Known", "Rule", "Tally", "look"]
