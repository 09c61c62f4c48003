"""Changes of saved models, as an attacker makes them: the digests are put right again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def rewrite(saved: Path, change: Callable[[dict], Any]) -> None:
    """Change the config and its digest."""
    content = json.loads((saved / "config.json").read_text())
    change(content)
    content.pop("sha256", None)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (saved / "config.json").write_text(json.dumps(content))


def put(*path: Any) -> Callable[[dict], None]:
    """A change of the config: the value at the end of a path of keys."""
    *keys, last, value = path

    def change(content: dict) -> None:
        for key in keys:
            content = content[key]
        content[last] = value

    return change


def changed(saved: Path, load: Callable[[Path], Any]) -> Callable[[Callable[[dict], Any]], Any]:
    """Loads what is saved there after a change, each of which begins with the config as it is now."""
    good = (saved / "config.json").read_bytes()

    def after(change: Callable[[dict], Any]) -> Any:
        (saved / "config.json").write_bytes(good)
        rewrite(saved, change)
        return load(saved)

    return after
