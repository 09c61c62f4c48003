"""The methods by name: their rows, solvers made of names, texts or configs, and the rule of ``method="auto"``.

Names are imported when they are first used, so that the rows can be read without torch.
"""

from ...core.support.lazy import lazy, listed

_MODULES, _ = listed(__file__)

__all__ = sorted(_MODULES)
__getattr__, __dir__ = lazy(__name__, _MODULES)
