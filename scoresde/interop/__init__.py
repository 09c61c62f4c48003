"""Networks of other libraries as score models, and the methods of this one in their loops.

None of these libraries is imported before it is needed.
"""

from typing import TYPE_CHECKING

from .._lazy import homes, lazy

if TYPE_CHECKING:  # for type checkers, which do not see what is imported later
    pass

# Where the public names are; a test compares this with the imports above.
_HOMES: dict[str, str] = homes({})

__all__ = sorted(_HOMES)

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
