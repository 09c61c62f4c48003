"""Rules: how a measurement moves the data estimate, one published method a file."""

from .base import Known, Rule, Tally, look
from .ddnm import DDNM
from .diffpir import DiffPIR
from .dps import DPS
from .exact import Exact
from .mmps import MMPS
from .pigdm import PiGDM
from .tmpd import TMPD

RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (MMPS, TMPD, PiGDM, DPS, DDNM, DiffPIR, Exact)}

__all__ = ["DDNM", "DPS", "MMPS", "RULES", "TMPD", "DiffPIR", "Exact", "Known", "PiGDM", "Rule", "Tally", "look"]
