"""Names of parametrised tests."""

from __future__ import annotations

import re


def described(value: object) -> str:
    """The representation without addresses in memory, since all processes of a parallel run name a test alike."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
