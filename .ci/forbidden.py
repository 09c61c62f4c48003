"""Refuses constructs that the package must not contain; needs nothing but Python.

Pickles run code when they are read; ``assert`` vanishes under ``python -O``; a bare ``except`` hides an interrupt; a
state dict that is loaded loosely leaves weights at random.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve"}


def keyword(call: ast.Call, name: str) -> object:
    """The constant given for a keyword, or None."""
    for item in call.keywords:
        if item.arg == name and isinstance(item.value, ast.Constant):
            return item.value.value
    return None


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def problems(tree: ast.AST, asserts: bool) -> Iterator[tuple[int, str]]:
    """Line and reason of everything forbidden in one file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and not asserts:
            yield node.lineno, "assert in package code: raise an error of scoresde.core.errors"
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except: name the exception"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            if any(module.split(".")[0] in PICKLES for module in modules):
                yield node.lineno, "import of a pickle module"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if keyword(node, "allow_pickle") is True:
                yield node.lineno, "allow_pickle=True"
            if keyword(node, "weights_only") is False:
                yield node.lineno, "weights_only=False"
            if called == "torch.load" and keyword(node, "weights_only") is not True:
                yield node.lineno, "torch.load without weights_only=True"
            loads = called.endswith(("load_state_dict", "load_model"))
            if loads and (keyword(node, "strict") is False or any(is_false(a) for a in node.args[1:])):
                yield node.lineno, "a state dict loaded with strict=False"


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    failures = 0
    for folder in ("scoresde", "benchmarks", "tools"):
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            tree = ast.parse(path.read_text(encoding="utf-8"), name)
            for line, reason in problems(tree, asserts=folder != "scoresde"):
                print(f"{name}:{line}: {reason}")
                failures += 1
    print(f"forbidden constructs: {failures}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
