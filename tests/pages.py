"""The code blocks of the README and of the documentation's pages, which tests run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Block(NamedTuple):
    """A code block.

    Attributes:
        page: its path from the root.
        mark: the name in a comment ``<!-- program: NAME -->``, or another kind, before it.
        language: of the code, empty if the page names none.
        text: the code.
    """

    page: str
    mark: str | None
    language: str
    text: str


def blocks() -> list[Block]:
    """All code blocks but what the pages are built from, such as figures and lists of pages."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = []
    for file in files:
        page = file.relative_to(ROOT).as_posix()
        if page.startswith("docs/_build/"):
            continue
        for match in re.finditer(
            r"(?:^<!-- \w+: ([^>]+) -->\n)?^```(\{?[\w-]*\}?)[^\n]*\n(.*?)^```",
            file.read_text(encoding="utf-8"),
            re.M | re.S,
        ):
            if not match[2].startswith("{"):
                found.append(Block(page, *match.groups()))
    return found


def program(page: str, mark: str) -> str:
    """The code after a mark of a page."""
    (text,) = [block.text for block in blocks() if (block.page, block.mark) == (page, mark)]
    return text


def commands(page: str) -> list[str]:
    """The command lines of a page, without comments."""
    lines = [
        line for block in blocks() if (block.page, block.language) == (page, "bash") for line in block.text.splitlines()
    ]
    return [line.split(" #")[0].strip() for line in lines if line.startswith("scoresde ")]
