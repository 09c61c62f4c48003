"""Methods as records, and solvers made by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, NoReturn

from ...core.errors import InvalidArgumentError, InvalidTypeError, closest
from ...core.support.checks import check_choice, check_kind
from ...core.support.declared import checked, instance
from ...core.support.display import table
from ...grids import Grid
from ..base import Solver
from ..correctors import Corrector, LangevinCorrector, MALACorrector, UnderdampedCorrector
from .rows import BY_NAME, ROWS, Row
from .spellings import ARGUMENTS, find

CORRECTORS: dict[str, type[Corrector]] = {
    cls.name: cls for cls in (LangevinCorrector, UnderdampedCorrector, MALACorrector)
}
BACKENDS: tuple[type[Solver], ...] = tuple(row.load() for row in ROWS if ":" in row.name)


class Method(NamedTuple):
    """The declarations of a method; one record per method, see `methods`.

    ``states`` is the memory that a solve takes at most, in units of its state: the state, what the network returns,
    history and stages, with the default options; 0 where a library makes the steps.

    Example:
        >>> {m.name: m.ode_order for m in methods()}["rk4"]
        4
    """

    name: str
    solver: type[Solver]
    kind: str
    stochastic: bool
    adaptive: bool
    evaluations: int
    ode_order: int | None
    weak_order: int | None
    strong_order: float | None
    batch_coupled: bool
    reference: str
    states: int

    @property
    def order(self) -> str:
        """The declared orders as a text, such as "weak 2, strong 1"."""
        known = {"": self.ode_order, "weak ": self.weak_order, "strong ": self.strong_order}
        return ", ".join(f"{name}{value:g}" for name, value in known.items() if value is not None) or "none"

    def __repr__(self) -> str:
        steps = "adaptive" if self.adaptive else f"{self.evaluations} per step"
        return f"Method({self.name}, {self.kind}, order {self.order}, evaluations {steps}; {self.reference})"


class Methods(tuple[Method, ...]):
    """The methods as `methods` returns them: a tuple, and a table in a notebook."""

    def __repr__(self) -> str:
        return f"Methods({', '.join(method.name for method in self)})"

    def _repr_html_(self) -> str:
        head = ["method", "kind", "evaluations per step", "order", "adaptive", "reference"]
        rows = ((m.name, m.kind, str(m.evaluations), m.order, "yes" if m.adaptive else "", m.reference) for m in self)
        return table("Methods", head, rows)


def methods() -> Methods:
    """All methods that `scoresde.solve` takes by name, with what they declare.

    Orders hold between finite log-SNRs, and on the default grid for an infinite one too (up to order 2 on flow
    matching). That of ``"edm"`` holds where its churn stays below the cap, from 96 steps on with the default options.

    Example:
        >>> [m.name for m in methods() if m.weak_order == 2 and m.evaluations == 1]
        ['dpmpp_2m_sde', 'dpmpp_3m_sde', 'sa_solver', 'er_sde2', 'er_sde3', 'dpmpp_sde12']
    """
    fields = [f for f in Method._fields if f not in ("name", "solver", "states")]
    made = [(name, row, row.load()) for name, row in BY_NAME.items()]
    return Methods(
        Method(name, cls, **{f: getattr(cls(), f) for f in fields}, states=row.states) for name, row, cls in made
    )


def drift_methods() -> list[str]:
    """The stochastic methods that step any drift and diffusion on given steps, forward too.

    Example:
        >>> drift_methods()[:4]
        ['euler_maruyama', 'heun_sde', 'sra1', 'shark']
    """
    made = {name: row.load()() for name, row in BY_NAME.items()}
    return [name for name, solver in made.items() if solver.takes_stochasticity and not solver.adaptive]


@checked
def make_solver(
    method: str | Solver,
    options: Mapping[str, object],
    others: Annotated[Collection[str], instance((list, tuple), "a list of names")] = (),
) -> Solver:
    """A solver from a name and its options; a solver object is taken as it is.

    ``predictor=`` and ``corrector=`` of ``pc`` may be names; the options of its corrector (``snr``, ``moves``) may be
    given beside them. ``others`` are further names to suggest for a misspelt option.

    Example:
        >>> make_solver("pc", {"predictor": "ancestral", "snr": 0.1}).corrector.snr
        0.1
    """
    if isinstance(method, Solver):
        if options:
            _refuse_options(method, options)
        return method
    row = BY_NAME.get(method) if isinstance(method, str) else None
    cls = (row or _row_of(method)).load()
    own = _names(cls)
    given = _parts(dict(options)) if "corrector" in own else dict(options)
    for name in given:
        if name not in own:
            _refuse_option(str(name), method, cls, others)
    return cls(**given)


def _row_of(method: object) -> Row:
    """The row of a method that is not given by its name, but spelt in another way."""
    if isinstance(method, type) and issubclass(method, Solver):
        raise InvalidTypeError(f"`method` is a class, {method.__name__}; give an object of it, {method.__name__}().")
    what = "a name from scoresde.methods() or a solver object"
    if isinstance(method, Grid):
        raise InvalidTypeError(
            f"`method` must be {what} here, got a {type(method).__name__}, which goes from noise to data on its own "
            "grid; solve, decode, Stepper and DiffusersScheduler take it."
        )
    check_kind("method", method, str, what)
    if method == "auto":
        raise InvalidArgumentError("method='auto' is a rule of solve; name a method here.")
    return BY_NAME[find(str(method), ("auto",))]


def _refuse_options(method: Solver, options: Mapping[str, object]) -> NoReturn:
    _refuse_foreign(options)
    raise InvalidArgumentError(
        f"`method` is a solver object, which carries its own options, and solve has no argument "
        f"{', '.join(sorted(map(str, options)))}; options of the solver go into {type(method).__name__}(...)."
    )


def _refuse_option(name: str, method: object, cls: type, others: Iterable[str]) -> NoReturn:
    _refuse_foreign([name])
    own = [*_names(cls), *(_names(LangevinCorrector) if "corrector" in _names(cls) else ())]
    close = " or ".join(map(repr, closest(name, [*own, *map(str, others)])))
    hint = f"; did you mean {close}?" if close else "."
    options_text = f"Its options are {', '.join(sorted(own))}." if own else "It has no options."
    raise InvalidArgumentError(f"Unknown option {name!r} of method {method!r}{hint} {options_text}")


def _refuse_foreign(options: Iterable[str]) -> None:
    """Say what an argument of other libraries is here."""
    for name in options:
        if name in ARGUMENTS:
            raise InvalidArgumentError(f"`{name}` is {ARGUMENTS[name]} here.")


def _names(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def _parts(options: dict[str, Any]) -> dict[str, Any]:
    """Turn the names of a predictor and a corrector into objects."""
    if isinstance(options.get("predictor"), str):
        check_choice("predictor", options["predictor"], BY_NAME)
        options["predictor"] = BY_NAME[options["predictor"]].load()()
    corrector = options.get("corrector", LangevinCorrector.name)
    if isinstance(corrector, str):
        check_choice("corrector", corrector, CORRECTORS)
        own = {k: options.pop(k) for k in _names(CORRECTORS[corrector]) if k in options}
        missing = [
            f.name
            for f in dataclasses.fields(CORRECTORS[corrector])  # type: ignore[arg-type]
            if f.default is dataclasses.MISSING and f.name not in own
        ]
        if missing:
            raise InvalidArgumentError(f"corrector={corrector!r} needs the option {missing[0]!r}.")
        options["corrector"] = CORRECTORS[corrector](**own)
    elif isinstance(corrector, Corrector):
        double = [k for k in _names(type(corrector)) if k in options]
        if double:
            raise InvalidArgumentError(
                f"A corrector object carries its own options; pass {', '.join(double)} to "
                f"{type(corrector).__name__}(...), or give `corrector` by its name."
            )
    return options
