"""scoresde solves the SDEs and ODEs of score-based generative models.

Any forward process, any score network, any solver, through one loop:

>>> import torch, scoresde
>>> sde = scoresde.VPSDE()
>>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
>>> scoresde.solve(sde, target.score(sde), method="pc").x.shape
torch.Size([1, 2])
"""

from .core.support.lazy import lazy, listed

__version__ = "0.1.0"

# The names are those of `__init__.pyi`. Each is imported when it is first used (PEP 562), so that the command line
# answers at once.
_HOMES, _MOVED = listed(__file__)

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy(__name__, _HOMES | _MOVED, {*__all__, *(home.split(".")[1] for home in _MOVED.values())})
