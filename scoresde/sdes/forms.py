# `ReverseSDE` under the name that its module has had; it is in `scoresde.sdes.base`.
from .base import ReverseSDE

__all__ = ["ReverseSDE"]
