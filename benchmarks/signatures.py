"""The types of ``method`` and its options, written for editors and type checkers: ``python -m benchmarks signatures``.

``scoresde/_typed.pyi`` has overloads of `solve` and of the other functions that take a method by name: one for every
set of options, with the names of the methods that have it. They follow from the list of methods and from the signatures
of these functions. ``--check`` writes nothing and fails if the file is not what would be written.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import scoresde
from scoresde.interop import sample_k_diffusion
from scoresde.inverse import condition, sample_posterior
from scoresde.inverse import methods as inverse_methods
from scoresde.latents import reconstruct
from scoresde.solvers import Adams, drift_methods
from scoresde.solvers.pairs import Pair
from scoresde.solvers.registry import CORRECTORS
from scoresde.solvers.registry.rows import ROWS, Row
from scoresde.zoo.pretrained import Pretrained

PATH = Path(scoresde.__file__).parent / "_typed.pyi"

HEAD = '''"""What `method` may be, and the options of each method, for editors and type checkers.

`python -m benchmarks signatures` writes this file, and nothing imports it at run time. The last overload of a function
is for names that are not known before, and for solvers; it has no options, which come with `**` beside such a name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, overload

import torch
from torch import Tensor
from typing_extensions import Unpack

from . import grids
from ._setup import GridChoice
from ._tensors import Scalar
from .correctors import Corrector
from .fit import FittedGrid
from .fit.search import Objective
from .grids import Grid
from .integrate import Info, Solution
from .inverse.conditioned import Conditioned
from .inverse.rules import Rule
from .inverse.sample import PosteriorSamples
from .latents import Reconstruction
from .likelihood import Likelihood
from .noise import Noise
from .scores import Score, ScoreModel
from .sdes import SDE, AffineSDE
from .solvers import Solver
from .stepping import Stepper
from .targets import Gaussian, GaussianMixture, GaussianStart
from .zoo.pretrained import Pretrained
'''


def both_ways(solver: Any) -> bool:
    """Whether a method takes data to noise too."""
    return not solver.stochastic


@dataclass(frozen=True)
class Call:
    """A function that takes a method by name, and its options.

    Attributes:
        name: in the stub.
        function: the function.
        takes: whether it takes a method.
        passes: whether its other arguments are those of `solve`, and which of these it has not.
        owner: the class of which it is a method.
        auto: whether it takes ``"auto"``.
    """

    name: str
    function: Callable[..., Any]
    takes: Callable[[Any], bool] = lambda solver: True
    passes: tuple[str, ...] | None = None
    owner: str = ""
    auto: bool = True


# Functions whose parameters of these names take a name of a list, and which have options of more than one object.
NAMED: tuple[tuple[Callable[..., Any], dict[str, str]], ...] = (
    (scoresde.simulate, {"method": "ForwardName"}),
    (scoresde.fit_grid, {"method": "MethodName"}),
    (scoresde.fit.fit_start, {"method": "MethodName"}),
    (sample_posterior, {"method": "InverseName", "sampler": "MethodName"}),
    (condition, {"method": "RuleName"}),
)
CALLS = (
    Call("solve", scoresde.solve),
    Call("stepper", scoresde.Stepper.__init__, owner="Stepper"),
    Call("encode", scoresde.encode, both_ways, passes=()),
    Call("decode", scoresde.decode, both_ways, passes=()),
    Call("reconstruct", reconstruct, both_ways, passes=("t_start", "t_end")),
    Call("sample", Pretrained.sample, passes=("shape",), owner="Pretrained"),
    Call("sample_k_diffusion", sample_k_diffusion, auto=False),
    Call("log_likelihood", scoresde.log_likelihood, lambda solver: isinstance(solver, Adams | Pair), auto=False),
)


@dataclass
class Records:
    """The typed dictionaries of the stub, by their contents."""

    lines: list[str] = field(default_factory=list)
    names: dict[object, str] = field(default_factory=dict)

    def name(self, wanted: str, base: str, items: Mapping[str, str]) -> str:
        """The name of a record of these items beside those of another one."""
        key = base, tuple(items.items())
        if key not in self.names:
            self.names[key] = wanted
            self.lines += ["", f"class {wanted}({base}, total=False):", *(f"    {k}: {v}" for k, v in items.items())]
        return self.names[key]


def options_of(row: Row) -> dict[str, str]:
    """The options of a method and their types, as `make_solver` takes them."""
    fields = {f.name: str(f.type) for f in dataclasses.fields(row.load()) if f.init}
    if "corrector" in fields:  # by name, with its own options beside it
        fields |= {"predictor": "Solver | MethodName | str", "corrector": f"Corrector | {literal(CORRECTORS)} | str"}
        own = [f for cls in CORRECTORS.values() for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        fields |= {f.name: str(f.type) for f in own}
    return fields


def literal(names: Iterable[str]) -> str:
    """A type of texts, on one line."""
    return f"Literal[{', '.join(map(quoted, names))}]"


def quoted(text: str) -> str:
    """A text as ruff writes it."""
    return f'"{text}"'


def shown(parameter: inspect.Parameter) -> str:
    """A parameter as it is written."""
    default = "" if parameter.default is parameter.empty else " = ..."
    return f"{parameter.name}: {parameter.annotation}{default}"


def overloads(call: Call, records: Records) -> list[str]:
    """The overloads of a function."""
    given = inspect.signature(call.function)
    own = {name: p for name, p in given.parameters.items() if p.kind is not p.VAR_KEYWORD}
    placed = [p for p in own.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    method = own.pop("method", None)
    rest = {p.name: str(p.annotation) for p in own.values() if p.kind is p.KEYWORD_ONLY}
    if call.passes is not None:
        wider = inspect.signature(scoresde.solve).parameters.values()
        rest |= {
            p.name: str(p.annotation)
            for p in wider
            if p.kind is p.KEYWORD_ONLY and p.name not in (*own, *call.passes, "method")
        }
    title = call.name.title().replace("_", "")
    base = records.name(f"{title}Arguments", "TypedDict", rest)
    default = None if method is None else method.default
    groups: dict[str, list[str]] = {}
    for row in ROWS:
        if call.takes(row.load()()):
            mine = {name: kind for name, kind in options_of(row).items() if name not in {*own, *rest}}
            wanted = f"{title}{row.cls}"
            groups.setdefault(records.name(wanted, base, mine) if mine else base, []).extend((row.name, *row.aliases))
    if call.auto:
        groups.setdefault(base, []).insert(0, "auto")
    lines = []
    for record, names in groups.items():
        ending = f" = {quoted(default)}" if default in names else ""
        lines += one(call, placed, [f"method: {literal(names)}{ending}"], record, given)
    if method is None:  # options are those of a method that is not named
        every = {name: "Any" for row in ROWS for name in options_of(row) if name not in {*own, *rest}}
        lines += one(call, placed, [], records.name(f"{title}Options", base, every), given)
    kind = "str | Solver" if method is None else str(method.annotation).strip("'\"")
    return documented(call, lines + one(call, placed, [f"method: {kind}"], base, given))


def one(
    call: Call, placed: list[inspect.Parameter], method: list[str], record: str, given: inspect.Signature
) -> list[str]:
    """An overload."""
    where = [p.name for p in placed]
    parameters = [f"self: {call.owner}" if p.name == "self" else shown(p) for p in placed]
    if "method" in where:
        parameters[where.index("method")] = method[0]
    elif method:
        parameters += ["*", *method]
    inside = ", ".join([*parameters, f"**options: Unpack[{record}]"])
    return ["@overload", f"def {call.name}({inside}) -> {given.return_annotation}: ..."]


def named(function: Callable[..., Any], lists: Mapping[str, str]) -> str:
    """A function whose parameters take names of lists."""
    given = inspect.signature(function)
    parameters = []
    for p in given.parameters.values():
        if p.kind is p.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        kind = f"{lists[p.name]} | {p.annotation}" if p.name in lists else p.annotation
        parameters.append(f"**{p.name}: {kind}" if p.kind is p.VAR_KEYWORD else shown(p.replace(annotation=kind)))
    return f"def {function.__name__}({', '.join(parameters)}) -> {given.return_annotation}: ..."


def documented(call: Call, lines: list[str]) -> list[str]:
    """The overloads with the docstring of the function in the first, where editors find it; they find a class's."""
    described = textwrap.indent(inspect.cleandoc(call.function.__doc__ or ""), "    ").strip()
    first = f'    r"""{described}\n    """'
    return lines if call.name == "stepper" else [lines[0], lines[1].removesuffix(" ..."), first, "    ...", *lines[2:]]


def text() -> str:
    """The stub."""
    records, functions = Records(), []
    for call in CALLS:
        functions += overloads(call, records)
    functions += [named(function, lists) for function, lists in NAMED]
    names = {
        "MethodName": [name for row in ROWS for name in (row.name, *row.aliases)],
        "ForwardName": drift_methods(),
        "RuleName": [m.name for m in inverse_methods() if m.kind == "rule"],
        "InverseName": [m.name for m in inverse_methods()],
    }
    lines = [f"{name}: TypeAlias = {literal(values)}" for name, values in names.items()]
    return "\n".join([HEAD, *lines, *records.lines, "", *functions]) + "\n"


def main(arguments: list[str]) -> None:
    """Write the stub, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    if not parser.parse_args(arguments).check:
        PATH.write_text(text(), encoding="utf-8")
        print(f"{PATH.name}: {len(text().splitlines())} lines")
    elif PATH.read_text(encoding="utf-8") != text():
        sys.exit(f"{PATH.name} is not up to date; run python -m benchmarks signatures.")
