"""Random mutants of the package: small changes of a number or of a decision, at places that a seed draws."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

KERNEL = ("solvers", "correctors", "processes", "sdes", "noise")
ROOMS = (*KERNEL, "chains", "grids.py", "likelihood", "losses", "guidance", "inverse", "paths", "trust")

_SWAPPED: dict[type[ast.AST], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "/",
    ast.Mod: "//",
    ast.Pow: "*",
    ast.MatMult: "*",
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.And: "or",
    ast.Or: "and",
}
# Neither numbers nor decisions: texts, types, and what only decides whether arguments are refused.
_PASSED_OVER = (ast.Raise, ast.JoinedStr, ast.Assert, ast.Import, ast.ImportFrom)
_WORDS = ("check", "refuse", "warn", "describe", "__repr__", "__str__", "_repr")


class Mutant(NamedTuple):
    """A change of one line or expression of a source file.

    Attributes:
        path: of the file, from the package.
        line: on which the changed piece begins.
        end: the line on which it ends.
        kind: of the change.
        old: the line before.
        new: the line after.
        source: the whole file with the change.
    """

    path: str
    line: int
    end: int
    kind: str
    old: str
    new: str
    source: str

    @property
    def name(self) -> str:
        """A name that stays while other lines of the file move."""
        return f"{self.path}: {self.old} -> {self.new}"


def mutants(package: Path, count: int, seed: int = 0) -> list[Mutant]:
    """``count`` random mutants, at most one per place, sorted by file and line."""
    places = [
        (path.relative_to(package).as_posix(), piece)
        for room in ROOMS
        for path in sorted([package / room] if room.endswith(".py") else (package / room).rglob("*.py"))
        for piece in _pieces(path.read_text())
    ]
    chosen = random.Random(seed).sample(places, min(count, len(places)))
    return [_applied(package, path, piece) for path, piece in sorted(chosen)]


class _Piece(NamedTuple):
    begin: int  # in bytes of the file
    end: int
    kind: str
    text: str


def _applied(package: Path, path: str, piece: _Piece) -> Mutant:
    source = (package / path).read_text().encode()
    changed = source[: piece.begin] + piece.text.encode() + source[piece.end :]
    start = source.rfind(b"\n", 0, piece.begin) + 1
    stop = source.find(b"\n", piece.end)
    compile(changed, path, "exec")
    return Mutant(
        path,
        line=source.count(b"\n", 0, piece.begin) + 1,
        end=source.count(b"\n", 0, piece.end) + 1,
        kind=piece.kind,
        old=" ".join(source[start:stop].decode().split()),
        new=" ".join(changed[start : stop + len(changed) - len(source)].decode().split()),
        source=changed.decode(),
    )


def _pieces(source: str) -> Iterator[_Piece]:
    """All places of a file that may change, with what they become, the first kind of change that applies to each."""
    offsets = [0]
    for line in source.encode().splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))

    def span(node: Any) -> tuple[int, int]:
        return offsets[node.lineno - 1] + node.col_offset, offsets[node.end_lineno - 1] + node.end_col_offset

    def text(node: ast.AST) -> str:
        begin, end = span(node)
        return source.encode()[begin:end].decode()

    def visit(node: ast.AST) -> Iterator[_Piece]:
        if isinstance(node, _PASSED_OVER) or _is_about_words(node):
            return
        yield from (_Piece(*span(part), kind, new) for part, kind, new in _changes(node, text))
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns", "decorator_list", "bases", "type_params"):
                for part in value if isinstance(value, list) else [value]:
                    if isinstance(part, ast.AST):
                        yield from visit(part)

    yield from visit(ast.parse(source))


def _is_about_words(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name.strip("_").startswith(_WORDS) or node.name in _WORDS
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        return name.strip("_").startswith((*_WORDS, "homes", "lazy", "TypeVar", "isinstance", "cast"))
    if isinstance(node, ast.If):  # refusals, and what only type checkers read
        test = getattr(node.test, "id", "")
        return test == "TYPE_CHECKING" or all(isinstance(part, ast.Raise) for part in node.body)
    if isinstance(node, ast.Subscript):  # types that stand in code
        return isinstance(node.value, ast.Name) and node.value.id in ("Callable", "list", "dict", "tuple", "Mapping")
    return False


def _changes(node: ast.AST, read: Callable[[ast.AST], str]) -> Iterator[tuple[ast.AST, str, str]]:
    """Parts of the node, each with the kind of a change and what it becomes."""
    if isinstance(node, ast.BinOp) and type(node.op) in _SWAPPED:
        left, right = read(node.left), read(node.right)
        if _is_text(node.left) or _is_text(node.right) or _is_type(node):
            return
        yield node, "operator", f"(({left}) {_SWAPPED[type(node.op)]} ({right}))"
        if isinstance(node.op, ast.Add | ast.Sub):
            yield node, "dropped term", f"({left})"
            if isinstance(node.op, ast.Add):
                yield node, "dropped term", f"({right})"
        elif isinstance(node.op, ast.Mult):
            yield node, "dropped factor", f"({left})"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and not _is_text(node.comparators[0]):
        left, right = read(node.left), read(node.comparators[0])
        yield node, "comparison", f"(({left}) {_SWAPPED[type(node.ops[0])]} ({right}))"
    elif isinstance(node, ast.BoolOp):
        other = f" {_SWAPPED[type(node.op)]} "
        yield node, "decision", f"({other.join(f'({read(v)})' for v in node.values)})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield node, "sign" if isinstance(node.op, ast.USub) else "decision", f"({read(node.operand)})"
    elif isinstance(node, ast.IfExp) and not _is_text(node.body):
        yield node, "decision", f"({read(node.orelse)} if {read(node.test)} else {read(node.body)})"
    elif isinstance(node, ast.If):
        yield node.test, "decision", f"(not ({read(node.test)}))"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield node, "constant", str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield node, "constant", str(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield node, "constant", repr(1.1 * node.value if node.value else 0.1)
    elif isinstance(node, ast.Call) and len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        first, second = (read(a) for a in node.args[:2])
        if first != second and name not in ("getattr", "hasattr", "setattr", "max", "min", "maximum", "minimum", "zip"):
            parts = [second, first, *(read(a) for a in node.args[2:])]
            parts += [f"{k.arg}={read(k.value)}" if k.arg else f"**{read(k.value)}" for k in node.keywords]
            yield node, "swapped arguments", f"{read(node.func)}({', '.join(parts)})"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_type(node: ast.BinOp) -> bool:  # such as "float | None"
    return isinstance(node.op, ast.BitOr)


# Mutants that change no result, by name, with the reason.
EQUIVALENT = {
    "chains/ncsnv2.py: far = (root + 10) / (root - 3) # where the lower end of the interval is at ten deviations -> "
    "far = (root + 11) / (root - 3) # where the lower end of the interval is at ten deviations": "the same root lies "
    "between wider limits",
    "guidance/tall.py: for precision, estimate in zip(known.single[rows].to(x.device), estimates, strict=True): -> "
    "for precision, estimate in zip(known.single[rows].to(x.device), estimates, strict=False):": "both have one entry "
    "per observation",
    "inverse/measurement.py: data = event in (tuple(y.shape), tuple(y.shape[1:])) -> "
    "data = event in (tuple(y.shape), tuple(y.shape[2:]))": "it decides on a hint in a message only",
    "likelihood/flow.py: return Solution(process.pack(x), time, zeros, 0, zeros, zeros, 0, zeros + Status.SUCCESS) -> "
    "return Solution(process.pack(x), time, zeros, 0, zeros, zeros, 1, zeros + Status.SUCCESS)": "nothing reads how "
    "often this record's network was called",
    "losses/core.py: clean = sigma <= alpha -> clean = ((sigma) < (alpha))": "where both are equal, so are the errors",
    "solvers/families/particles.py: drawn = torch.full_like(ess, always, dtype=torch.bool) | "
    "(ess < float(self.threshold) * count) -> drawn = torch.full_like(ess, always, dtype=torch.bool) | "
    "(((ess) <= (float(self.threshold) * count)))": "equality has the probability 0, but for equal weights, of which "
    "each is chosen once",
    "solvers/families/runge_kutta.py: yield (1.0,), (sums[0],) -> yield (1.0,), (sums[1],)": "only pairs have steps "
    "per sample, and their last row is that of their last stage, so that it is never requested",
    "trust/running.py: column.errors.append(self.norm.between(solution.x, tight) + gap) -> "
    "column.errors.append(self.norm.between(tight, solution.x) + gap)": "distances are symmetric",
}
