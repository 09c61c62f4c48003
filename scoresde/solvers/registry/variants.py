"""Methods that are a class with options of their own: the classes that stand for their rows."""

from __future__ import annotations

import abc
import dataclasses
import inspect
import sys
from collections.abc import Callable
from typing import Any

from ..base import Solver
from .rows import Row, row_at, row_of

_DOC = """{about} See `{cls}`, of which it is the one with {options}.

    Facts:
        {facts}

    Example:
        >>> {title}().name
        '{name}'

    References:{references}"""


def variants(module: str) -> Callable[[str], type[Solver]]:
    """``__getattr__`` of a module, for the rows whose class it has and whose public name it has not.

    Example:
        >>> variants("scoresde.solvers.unipc")("UniPC2")()
        UniPC(order=2, prediction='data', variant='bh2', start_up='single', lower_order_final=False, correct_last=False)
    """

    def get(name: str) -> type[Solver]:
        row, space = row_at(module, name), vars(sys.modules[module])
        if row is None or not row.options:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return space.setdefault(name, _made(row, space[row.cls]))

    return get


class _Variant(abc.ABCMeta):
    """The type of these classes: any solver of the row is an instance, however it was made."""

    row: Row

    def __instancecheck__(cls, solver: object) -> bool:
        derived = "row" not in vars(cls)
        return super().__instancecheck__(solver) or (not derived and row_of(solver) is cls.row)


def _made(row: Row, base: type[Solver]) -> type[Solver]:
    """A subclass whose defaults are those of the row. Calling it makes a solver of the class itself, so that a method
    has one class however it is made; so does reading an old pickle of it. It can be subclassed."""

    def new(cls: type, *args: Any, **options: object) -> Any:
        if cls is not made:
            return object.__new__(cls)
        given = names[: len(args)]
        return base(*args, **({k: v for k, v in row.options.items() if k not in given} | options))

    fields = {field.name: field for field in dataclasses.fields(base)}  # type: ignore[arg-type]
    names = list(fields)
    body = {
        "__module__": base.__module__,
        "__qualname__": row.title,
        "__annotations__": {name: fields[name].type for name in row.options},
        "__new__": new,
        "row": row,
        **row.options,
    }
    made: Any = dataclasses.dataclass(frozen=True)(_Variant(row.title, (base,), body))
    new.__signature__ = inspect.signature(made.__init__)  # type: ignore[attr-defined]
    made.__doc__ = _DOC.format(
        about=row.about,
        cls=row.cls,
        options=", ".join(f"``{name}={value!r}``" for name, value in row.options.items()),
        facts=described_facts(made()),
        title=row.title,
        name=row.name,
        references=(base.__doc__ or "").partition("References:")[2],
    )
    return made


def described_facts(solver: Solver) -> str:
    """What a method declares, for its docstring.

    Example:
        >>> described_facts(scoresde.solvers.UniPC(order=3))
        'Order 4; 1 evaluation per step, 2 more at the start.'
    """
    orders = {"Order": solver.ode_order, "Weak order": solver.weak_order, "strong order": solver.strong_order}
    known = ", ".join(f"{name} {value:g}" for name, value in orders.items() if value is not None)
    count, more = solver.evaluations, solver.extra_evaluations
    work = f"{count} evaluation{'s' * (count != 1)} per step" + f", {more} more at the start" * bool(more)
    return f"{known or 'There is no order: it changes on the way'}; {work}."
