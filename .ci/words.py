"""Lists the lines of prose with words that the glossary in CONTRIBUTING.md replaces, and fails if there are any.

Prose is docstrings, comments and texts of errors in the package, and the pages of the documentation. Names in
backquotes, blocks of code and the marks of tables are not prose. It needs nothing but Python.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTEAD = {
    r"\b(tells?|told|telling)\b": "a function returns, an object declares, a caller gives",
    r"\b(asks?|asked|asking)\b": "a solver evaluates, a caller requests or wants",
    r"(?<!power-)\b(law|laws)\b(?! of (large|total))": "distribution",
    r"\blook(s|ed|ing)? (at|like|for|into)\b": "measure, examine, compare, search",
    r"\b(is|are|was|were) none of\b": "is not one of",
    r"\bsays (what|which|how|whether|where|that|so)\b": "declares, describes, states",
    r"\bknows? (what|which|how|whether|where|that|of)\b": "has, stores",
    r"\bbatch mates?\b": "the other samples of the batch",
}
PATTERN = re.compile("|".join(INSTEAD), re.IGNORECASE)
CODE = re.compile(
    r"``[^`]*``|`[^`]*`|https?://\S+|\$[^$]*\$"
    r"|<!-- [a-z0-9 :,]+ -->"  # marks of tables
    r"|^\s+\w+(, \w+)*: "  # names of arguments
)


def of_module(source: str) -> Iterator[tuple[int, str]]:
    """The lines of prose in a module."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    example, literal = False, None  # the indentation of a line after which a block of code follows
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for place, line in enumerate(node.value.splitlines()):
                example = line.strip().startswith((">>>", "...")) or (example and bool(line.strip()))
                indent = len(line) - len(line.lstrip())
                if literal is not None and line.strip() and indent <= literal:
                    literal = None
                if not example and literal is None:
                    yield node.lineno + place, line
                if literal is None and re.search(r"::( python)?$", line.rstrip()):
                    literal = indent
            example, literal = False, None


def of_page(text: str) -> Iterator[tuple[int, str]]:
    """The lines of prose of a Markdown page."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        if not fenced and not line.lstrip().startswith("```"):
            yield number, line


def main(arguments: list[str]) -> int:
    found = 0
    for path in sorted([*ROOT.glob("scoresde/**/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]):
        text = path.read_text(encoding="utf-8")
        for number, line in of_module(text) if path.suffix == ".py" else of_page(text):
            words = [match.group() for match in PATTERN.finditer(CODE.sub("", line))]
            if words:
                found += 1
                print(f"{path.relative_to(ROOT)}:{number}: {', '.join(words)}: {line.strip()[:90]}")
    print(f"words that the glossary replaces: {found} lines")
    return found > int(arguments[0] if arguments else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
