"""Networks of other libraries as score models, and the methods of this one in their loops.

None of these libraries is imported before it is needed.
"""

from typing import TYPE_CHECKING

from .._lazy import homes, lazy

if TYPE_CHECKING:  # for type checkers, which do not see what is imported later
    from .diffusers.config import Conventions as Conventions
    from .diffusers.config import conventions as conventions
    from .diffusers.model import from_diffusers as from_diffusers
    from .diffusers.scheduler import DiffusersScheduler as DiffusersScheduler

# Where the public names are; a test compares this with the imports above.
_HOMES: dict[str, str] = homes(
    {
        ".diffusers.config": "Conventions conventions",
        ".diffusers.model": "from_diffusers",
        ".diffusers.scheduler": "DiffusersScheduler",
    }
)

__all__ = sorted(_HOMES)

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
