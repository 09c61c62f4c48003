"""Rules: how a measurement moves the data estimate."""

from ...core.support.registries import RULES
from .base import Known, Rule, Tally, look

__all__ = ["RULES", "Known", "Rule", "Tally", "look"]
