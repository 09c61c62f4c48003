"""Solvers as plain values, and solvers from these."""

from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from ...core.errors import InvalidArgumentError
from ...core.support.checks import check_choice
from ..base import Solver
from ..correctors import Corrector
from .lookup import CORRECTORS, make_solver
from .rows import MODULES, row_of, rows_of

_LONGEST = 50_000  # room for the coefficients of a learned solver
_PLAIN = (bool, int, float, str, type(None))


def to_config(solver: Solver) -> dict[str, object]:
    """A method with its options as JSON values: those that differ from the method's own defaults.

    Args:
        solver: a solver of one of the classes behind `scoresde.methods`.

    Returns:
        ``{"method": name, "options": {...}}``; a solver among the options is written likewise, and a corrector as
        ``{"corrector": name, "options": {...}}``.

    Raises:
        InvalidArgumentError: the solver is of another class, or an option is a function.

    Example:
        >>> to_config(scoresde.solvers.UniPC(order=2, variant="bh1"))
        {'method': 'unipc2', 'options': {'variant': 'bh1'}}
        >>> from_config(to_config(scoresde.solvers.TAB(order=1)))
        TAB(order=1, start_up='single', lower_order_final=False, clock='time')
    """
    rows = rows_of(type(solver))
    if not rows:
        raise InvalidArgumentError(
            f"`solver` must be of a class behind scoresde.methods(), got {solver!r}, which no name refers to."
        )
    changes = {row.name: _changed(solver, row.options) for row in rows}
    name = min(changes, key=lambda name: len(changes[name]))
    return {"method": name, "options": _plain(changes[name])}


def from_config(config: Mapping[str, object] | str) -> Solver:
    """A solver from what `to_config` wrote, or from its class and options as Python writes them.

    Args:
        config: ``{"method": name, "options": {...}}``, or text such as ``"UniPC2(variant='bh1')"``, as fitted grids
            have it.

    Raises:
        InvalidArgumentError: no solver of this package has this description, or an option does not fit.

    Example:
        >>> corrector = {"corrector": "langevin", "options": {"snr": 0.1}}
        >>> from_config({"method": "pc", "options": {"corrector": corrector}}).corrector.snr
        0.1
        >>> from_config("IPNDM(order=3)").name
        'ipndm'
    """
    made = _from_text(config) if isinstance(config, str) else _part(config)
    if not isinstance(made, Solver):
        raise InvalidArgumentError(
            f"A solver is written {{'method': name, 'options': {{...}}}}, such as to_config gives, got {config!r:.200}."
        )
    return made


def to_text(solver: Solver) -> str:
    """A solver with the options that are not its defaults, as Python writes it; `from_config` reads it.

    Example:
        >>> (
        ...     to_text(scoresde.solvers.UniPC(order=2, variant="bh1")),
        ...     to_text(scoresde.solvers.UniPC(order=5)),
        ... )
        ("UniPC2(variant='bh1')", 'UniPC(order=5)')
    """
    row = row_of(solver, inherited=False)
    changed = _changed(solver, row.options if row else {})
    values = {name: to_text(value) if isinstance(value, Solver) else repr(value) for name, value in changed.items()}
    title = row.title if row else type(solver).__name__
    return f"{title}({', '.join(f'{name}={value}' for name, value in values.items())})"


def _changed(part: Any, options: Mapping[str, object]) -> dict[str, object]:
    """The fields that differ from the given options, and from the defaults of the class."""
    fields = dataclasses.fields(part) if dataclasses.is_dataclass(part) else ()
    defaults = {f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory() for f in fields}
    return {name: value for name in defaults if (value := getattr(part, name)) != {**defaults, **options}[name]}


def _plain(value: object) -> object:
    """JSON values."""
    if isinstance(value, Solver):
        return to_config(value)
    if isinstance(value, Corrector) and type(value) in CORRECTORS.values():
        return {"corrector": value.name, "options": _plain(_changed(value, {}))}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, _PLAIN):
        raise InvalidArgumentError(f"An option must be a plain value to be written down, got {value!r}.")
    return value


def _part(value: object) -> Any:
    """A solver, a corrector or a plain value from JSON values."""
    if isinstance(value, list | tuple):
        return tuple(_part(item) for item in value)
    if not isinstance(value, Mapping):
        return value
    kind = "corrector" if "corrector" in value else "method"
    options = value.get("options", {})
    if not set(value) <= {kind, "options"} or not isinstance(options, Mapping):
        raise InvalidArgumentError(f"A part is written {{{kind!r}: name, 'options': {{...}}}}, got {value!r:.200}.")
    made = {str(name): _part(item) for name, item in options.items()}
    if kind == "method":
        return make_solver(value.get("method"), made)  # type: ignore[arg-type]
    return _called(CORRECTORS[check_choice("corrector", value["corrector"], CORRECTORS)], made)


def _called(cls: type[Solver] | type[Corrector], options: Mapping[str, object]) -> Any:
    try:
        return cls(**options)
    except TypeError as error:  # an option that it does not have, or one that is missing
        raise InvalidArgumentError(f"{cls.__name__} cannot be made with {dict(options)!r}: {error}.") from error


def _from_text(text: str) -> Any:
    if len(text) > _LONGEST:
        raise InvalidArgumentError(f"A solver with its options has fewer than {_LONGEST} characters, got {len(text)}.")
    try:
        return _read(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InvalidArgumentError(f"No solver of this package has the description {text!r}: {error}.") from error


def _read(node: ast.expr) -> Any:
    """A call with options by name, or a plain value."""
    if not isinstance(node, ast.Call):
        return ast.literal_eval(node)
    correctors = {cls.__name__: cls for cls in CORRECTORS.values()}
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if node.args or not (name in MODULES or name in correctors):
        raise ValueError("it must name a class of scoresde.solvers, and its options by name")
    cls = correctors.get(name) or getattr(importlib.import_module(MODULES[name]), name)
    return cls(**{str(keyword.arg): _read(keyword.value) for keyword in node.keywords})
