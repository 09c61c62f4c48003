"""Networks of other libraries as score models, and the methods of this one in their loops.

None of these libraries is imported before it is needed.
"""

from typing import TYPE_CHECKING

from .._lazy import homes, lazy

if TYPE_CHECKING:  # for type checkers, which do not see what is imported later
    from .arrays import from_arrays as from_arrays
    from .azula import from_azula as from_azula
    from .diffusers.config import Conventions as Conventions
    from .diffusers.config import conventions as conventions
    from .diffusers.model import from_diffusers as from_diffusers
    from .diffusers.scheduler import DiffusersScheduler as DiffusersScheduler
    from .edm import from_edm as from_edm
    from .flow_matching import from_flow_matching as from_flow_matching
    from .guided_diffusion import from_guided_classifier as from_guided_classifier
    from .guided_diffusion import from_guided_diffusion as from_guided_diffusion
    from .k_diffusion import from_k_diffusion as from_k_diffusion
    from .k_samplers import K_SAMPLERS as K_SAMPLERS
    from .k_samplers import sample_k_diffusion as sample_k_diffusion
    from .sbi import from_sbi as from_sbi
    from .sbi import within_support as within_support
    from .score_sde import from_score_sde as from_score_sde

# Where the public names are; a test compares this with the imports above.
_HOMES: dict[str, str] = homes(
    {
        ".diffusers.config": "Conventions conventions",
        ".diffusers.model": "from_diffusers",
        ".diffusers.scheduler": "DiffusersScheduler",
        ".arrays": "from_arrays",
        ".azula": "from_azula",
        ".edm": "from_edm",
        ".flow_matching": "from_flow_matching",
        ".guided_diffusion": "from_guided_classifier from_guided_diffusion",
        ".k_diffusion": "from_k_diffusion",
        ".k_samplers": "K_SAMPLERS sample_k_diffusion",
        ".sbi": "from_sbi within_support",
        ".score_sde": "from_score_sde",
    }
)

__all__ = sorted(_HOMES)

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
