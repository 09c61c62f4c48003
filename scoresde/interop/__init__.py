"""Networks of other libraries as score models, and the methods of this one in their loops.

None of these libraries is imported before it is needed.
"""

from ..core.support.lazy import lazy, listed

_HOMES, _ = listed(__file__)

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES)
