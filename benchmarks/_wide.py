"""Double precision for a library that asks for single precision."""

from __future__ import annotations

from types import ModuleType
from typing import Any


class Wide:
    """A module of numbers, seen by a peer, in which single precision is double precision."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self.float32 = module.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
