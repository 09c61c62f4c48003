"""Solvers: one method, one small file. `families` has what several of them share; `registry` lists them, and makes
solvers by name for `scoresde.solve`.

Names are imported when they are first used: `scoresde.solvers.UniPC2` and the like are found by the rows.
"""

from ..core.support.lazy import lazy, listed
from .registry.rows import MODULES, ROWS

_OTHERS, _ = listed(__file__)
_METHODS = {name for row in ROWS if ":" not in row.name for name in (row.title, row.cls)}

__all__ = sorted(_METHODS | set(_OTHERS))
__getattr__, __dir__ = lazy(__name__, MODULES | _OTHERS)
