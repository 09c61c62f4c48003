"""Variational bounds: in continuous time, on a grid of steps, and of the discrete chains of DDPM and NCSN.

All are the sum of a *prior*, a *diffusion* and a *reconstruction* term, and share one result, `Bound`:

============== ================================================ ================================================
term           what                                             where
============== ================================================ ================================================
prior          :math:`KL(q(z_T|x)\\,\\|\\,\\pi)`                     ``terms.py``
diffusion      steps or an integral of :math:`KL(q\\,\\|\\,p)`      ``levels.py`` (where), ``terms.py`` (how much)
reconstruction the entropy of z, or a decoder of the data       ``terms.py``
============== ================================================ ================================================
"""

from .chain import chain_bound
from .result import Bound, Term
from .variational import variational_bound

__all__ = ["Bound", "Term", "chain_bound", "variational_bound"]
