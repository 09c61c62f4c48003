r"""The size and the shape of the package, in numbers: ``python -m tools structure [--base COMMIT]``.

Counted are files, lines of code (what is neither blank, nor comment, nor docstring), classes, functions and how long
their bodies are, copies, mentions of ``Any``, circles of imports between subpackages and modules, what one solve runs
through, and the frames of the package between `scoresde.solve` and the user's callable. With ``--base`` an earlier
commit is counted beside it.
"""

from __future__ import annotations

import argparse
import ast
import io
import itertools
import json
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

LONG = 60  # lines of a body
SMALL = 25  # lines of a module
COPIED = 8  # lines of code that are the same in two places
ROOT = Path(__file__).resolve().parent.parent

# Frames between the call of `solve` and that of the network, in the package's files, the call of `solve` counted.
FRAMES = """
import json, sys, torch, scoresde
from pathlib import Path
home = str(Path(scoresde.__file__).parent)
depth = 0

def look(x):
    global depth
    frame, count = sys._getframe(2), 0
    while frame is not None:
        count += frame.f_code.co_filename.startswith(home)
        frame = frame.f_back
    depth = max(depth, count)
    return -x

def score(x, t):
    return look(x)

def net(x, t, label=None):
    return look(x)

sde, x = scoresde.VPSDE(), torch.ones(2, 2)
model = scoresde.ScoreModel(net, sde, "noise")
guided = scoresde.guidance.classifier_free(
    scoresde.guidance.conditional(model, label=1.0), scoresde.guidance.conditional(model, label=0.0), 2.0
)
found = {}
for name, score_fn, method, options in (
    ("a bare score, pc", score, "pc", {"steps": 2}),
    ("a ScoreModel, unipc", model, "unipc", {"steps": 3}),
    ("classifier-free guidance, adams", guided, "adams", {}),
):
    depth = 0
    scoresde.solve(sde, score_fn, x, method=method, seed=0, **options)
    found[name] = depth
print(json.dumps(found))
"""

# One solve by "ddim" with ten steps, after the modules are imported: which lines of the package run.
WALK = """
import json, sys, torch, scoresde
from pathlib import Path
home = str(Path(scoresde.__file__).parent)
sde, x = scoresde.VPSDE(), torch.ones(2, 2)
scoresde.solve(sde, lambda x, t: -x, x, method="euler", steps=2)
seen = {}

def look(frame, event, argument):
    code = frame.f_code
    if not code.co_filename.startswith(home):
        return None
    lines = seen.setdefault((code.co_filename, code.co_firstlineno, code.co_name), set())

    def line(frame, event, argument):
        lines.add(frame.f_lineno)
        return line

    return line

sys.settrace(look)
scoresde.solve(sde, lambda x, t: -x, x, method="ddim", steps=10)
sys.settrace(None)
print(json.dumps([[*key, sorted(lines)] for key, lines in seen.items()]))
"""


def walked(root: Path) -> dict[str, int]:
    """What a reader meets who follows one solve: modules, code lines of the functions that run (functions inside others
    belong to these), and those that are executed."""
    run = subprocess.run([sys.executable, "-c", WALK], cwd=root, capture_output=True, text=True, check=True)
    modules: dict[str, set[int]] = defaultdict(set)
    executed: dict[str, set[int]] = defaultdict(set)
    for name, first, _, lines in json.loads(run.stdout.splitlines()[-1]):
        modules[name].add(first)
        executed[name] |= set(lines)
    whole = ran = 0
    for name, firsts in modules.items():
        source = Path(name).read_text(encoding="utf-8")
        code, kept = code_lines(source), set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                head = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                if firsts & {head, node.lineno}:
                    kept |= set(range(head, (node.end_lineno or head) + 1))
        whole, ran = whole + len(code & kept), ran + len(code & kept & executed[name])
    return {"one solve: modules": len(modules), "one solve: code lines": whole, "one solve: executed": ran}


def code_lines(source: str) -> set[int]:
    """The lines that hold code: neither blank, nor comment, nor a part of a docstring."""
    tree = ast.parse(source)
    documented = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
        and isinstance(node.body[0].value.value, str)
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or node.body[0].lineno) + 1)
    }
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - documented


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each function with the number of lines of its body, its docstring left out."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        if body:
            yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1


def copies(sources: Mapping[str, str]) -> set[tuple[str, str]]:
    """The pairs of places with the same `COPIED` lines of code or more, imports and signatures left out."""
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, source in sources.items():
        left_out = {
            line
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef)
            for line in range(node.lineno, _head_end(node) + 1)
        }
        texts = source.splitlines()
        lines = [line for line in sorted(code_lines(source) - left_out) if texts[line - 1].strip()]
        for k in range(len(lines) - COPIED + 1):
            run = tuple(texts[line - 1].strip() for line in lines[k : k + COPIED])
            places[run].append((name, k))
    pairs = {pair for found in places.values() for pair in itertools.combinations(found, 2)}
    # runs that begin a line later in both places belong to one copy
    firsts = {(a, b) for a, b in pairs if ((a[0], a[1] - 1), (b[0], b[1] - 1)) not in pairs}
    return {(f"{a[0]}:{a[1]}", f"{b[0]}:{b[1]}") for a, b in firsts if a[0] != b[0] or b[1] - a[1] >= COPIED}


def _head_end(node: ast.Import | ast.ImportFrom | ast.FunctionDef) -> int:
    """The last line of an import, or of a function's signature."""
    return node.body[0].lineno - 1 if isinstance(node, ast.FunctionDef) else node.end_lineno or node.lineno


def checks(tree: ast.AST) -> set[int]:
    """The lines that only check or refuse: functions called ``check_…`` or ``refuse_…``, calls of these as statements,
    raises, and branches that do nothing but raise."""
    found: set[int] = set()

    def named(name: str) -> bool:
        return name.lstrip("_").startswith(("check_", "refuse_"))

    for node in ast.walk(tree):
        refuses = isinstance(node, ast.Raise) or (
            isinstance(node, ast.If) and not node.orelse and all(isinstance(part, ast.Raise) for part in node.body)
        )
        checked = isinstance(node, ast.FunctionDef) and named(node.name)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            checked = named(ast.unparse(node.value.func).rpartition(".")[2])
        if refuses or checked:
            found |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))  # type: ignore[attr-defined]
    return found


def once(sources: Mapping[str, str]) -> int:
    """How many private functions of modules are named once more than where they are defined."""
    names = [
        node.name
        for source in sources.values()
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("_") and not node.name.startswith("__")
    ]
    words: dict[str, int] = defaultdict(int)
    for source in sources.values():
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            words[token.string] += token.type == tokenize.NAME
    return sum(words[name] == 2 for name in names)


def imports(path: Path, package: Path) -> set[str]:
    """The modules of the package that a module imports, be it when it is imported itself or in a call."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    here = parts[:-1] if parts[-1] == "__init__" else parts
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.ImportFrom) and child.level:
                up = here if parts[-1] == "__init__" else here[:-1]
                base = up[: len(up) - child.level + 1] + tuple((child.module or "").split(".")) * bool(child.module)
                for alias in child.names:
                    inner = package.parent.joinpath(*base, alias.name)
                    single = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                    found.add(".".join((*base, alias.name) if single else base))
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in edges:
                continue
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == node:
                    break
            if len(group) > 1:
                found.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return found


def layers(root: Path) -> list[list[str]]:
    """The rooms of the package, and those of its core, in rows from the top: each imports only from rows below its own.
    Rooms that import each other share an entry."""
    package = root / "scoresde"
    edges: dict[str, set[str]] = defaultdict(set)

    def room(module: str) -> str:
        parts = module.split(".")[1:]
        return "/".join(parts[: 2 if parts[:1] == ["core"] else 1])

    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        edges[room(name)] |= {room(other) for other in imports(path, package)} - {room(name)}
    for left_out in ("", "core", "__main__"):  # the first hands out public names
        edges.pop(left_out)
    entry = {name: name for name in edges} | {name: " + ".join(group) for group in circles(edges) for name in group}
    rows: dict[str, int] = {}

    def row(name: str) -> int:
        below = {entry[other] for one in edges if entry[one] == name for other in edges[one] if other in entry}
        if name not in rows:
            rows[name] = 1 + max((row(other) for other in below - {name}), default=0)
        return rows[name]

    for name in entry.values():
        row(name)
    return [sorted(name for name in rows if rows[name] == at) for at in range(max(rows.values()), 0, -1)]


def picture(root: Path) -> str:
    """The rows of `layers` as text, one above the other."""
    rows = ["   ".join(row) for row in layers(root)]
    width = max(map(len, rows))
    return "\n".join(row.center(width).rstrip() for row in rows)


def counted(root: Path) -> dict[str, object]:
    """The numbers of a working tree."""
    package = root / "scoresde"
    files = sorted(package.rglob("*.py"))
    code = checked = small = 0
    classes: dict[str, int] = defaultdict(int)
    long: list[tuple[int, str]] = []
    mentions = 0
    edges: dict[str, set[str]] = {}
    sources: dict[str, str] = {}
    for path in files:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        lines = code_lines(source)
        code, checked, small = code + len(lines), checked + len(lines & checks(tree)), small + (0 < len(lines) <= SMALL)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name] += 1
        place = path.relative_to(package)
        long += [(length, f"{place}:{name}") for name, length in functions(tree)]
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        edges[name] = imports(path, package)
        sources[name] = source
        mentions += sum(map(_mentions_any, source.splitlines()))
    sizes = [len(path.read_text(encoding="utf-8").splitlines()) for path in files]
    longest = max(long)
    run = subprocess.run(
        [sys.executable, "-c", FRAMES],
        cwd=root,  # which comes first where modules are looked for
        capture_output=True,
        text=True,
        check=True,
    )
    groups = circles(edges)
    there = [path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return {
        "entries of the package": len(there),
        "files": len(files),
        "lines": sum(sizes),
        "code": code,
        "share of code that only checks": f"{checked / code:.1%}",
        f"modules of at most {SMALL} lines": small,
        "private functions used once": once(sources),
        "classes": sum(classes.values()),
        "names of several classes": sum(count > 1 for count in classes.values()),
        "functions": len(long),
        "longest body": f"{longest[0]} ({longest[1]})",
        f"bodies over {LONG} lines": sum(length > LONG for length, _ in long),
        f"copies of {COPIED} lines": len(copies(sources)),
        "lines with Any": mentions,
        "circles of imports": len(groups),
        "modules in circles": sum(map(len, groups)),
        **walked(root),
        **{f"frames: {name}": depth for name, depth in json.loads(run.stdout.splitlines()[-1]).items()},
    }


def _mentions_any(line: str) -> bool:
    """Whether a line uses the type, imports left out."""
    words = "".join(c if c.isalnum() or c == "_" else " " for c in line).split()
    return "Any" in words and not line.lstrip().startswith(("from typing", "import"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools structure", description=__doc__)
    parser.add_argument("--base", help="a commit to count as well")
    parser.add_argument("--layers", action="store_true", help="print the picture of the rooms in docs/design.md")
    options = parser.parse_args(arguments)
    if options.layers:
        print(picture(ROOT))
        return 0
    columns = {"now": counted(ROOT)}
    if options.base:
        with tempfile.TemporaryDirectory() as folder:
            archive = subprocess.run(
                ["git", "archive", "--format=tar", options.base, "scoresde"], cwd=ROOT, capture_output=True, check=True
            )
            with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as members:
                members.extractall(folder, filter="data")
            columns = {options.base: counted(Path(folder)), **columns}
    width = max(len(name) for name in columns["now"])
    print(f"{'':{width}}  " + "  ".join(f"{name:>14}" for name in columns))
    for name in columns["now"]:
        print(f"{name:{width}}  " + "  ".join(f"{column[name]!s:>14}" for column in columns.values()))
    return 0
