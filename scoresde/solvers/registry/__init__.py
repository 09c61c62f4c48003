"""The methods by name: their rows, solvers made of names, texts or configs, and the rule of ``method="auto"``.

Names are imported when they are first used, so that the rows can be read without torch.
"""

from ..._lazy import homes, lazy

_MODULES = homes(
    {
        ".auto": "BUDGETS choose",
        ".config": "from_config to_config to_text",
        ".lookup": "BACKENDS CORRECTORS Method drift_methods make_solver methods",
        ".rows": "BY_NAME MODULES ROWS Row",
    }
)

__all__ = sorted(_MODULES)
__getattr__, __dir__ = lazy(__name__, _MODULES)
