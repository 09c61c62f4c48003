"""The one list of methods, and solvers made from it by name."""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .._tensors import check_choice, check_kind
from ..correctors import Corrector, LangevinCorrector, MALACorrector, UnderdampedCorrector
from ..errors import InvalidArgumentError, InvalidTypeError, unknown
from .adams import Adams
from .ancestral import Ancestral
from .annealed_langevin import AnnealedLangevin
from .backends import BACKENDS
from .base import Solver
from .cas import CAS
from .ddim import DDIM
from .ddim_eta import DDIMEta
from .deis import TAB2, TAB3, TAB4, RhoAB2, RhoAB3, RhoAB4
from .dpm_multistep import DPM2M, DPM3M, DPMpp2M, DPMpp3M
from .dpm_multistep_sde import DPMpp2MSDE, DPMpp3MSDE
from .dpm_singlestep import DPM2S, DPM3S, DPMpp2S, DPMpp3S
from .dpmpp_sde import DPMpp2SAncestral, DPMppSDE
from .dpmpp_sde12 import DPMppSDE12
from .edm import EDM
from .er_sde import ERSDE1, ERSDE2, ERSDE3
from .euler import Euler
from .euler_maruyama import EulerMaruyama
from .exponential_pairs import DPM12, DPM23, ERK32, ERK43
from .ggf import GGF
from .heun import Heun
from .heun_sde import HeunSDE
from .ipndm import IPNDM, PLMS
from .langevin import Langevin
from .midpoint import Midpoint
from .pairs import DOP853, RK23, Tsit5
from .predictor_corrector import PredictorCorrector
from .res import RES2S, RES3S
from .restart import Restart
from .reverse_diffusion import ReverseDiffusion
from .rho_runge_kutta import RhoHeun, RhoKutta3, RhoMidpoint, RhoRalston, RhoRK4
from .rk4 import RK4
from .rk45 import RK45
from .sa_solver import SASolver
from .seeds import SEEDS1, SEEDS2, SEEDS3
from .sra import SRA1, ShARK
from .unipc import UniP2, UniP3, UniPC1, UniPC2, UniPC3

_LONGEST = 1000
SOLVERS: tuple[type[Solver], ...] = (
    PredictorCorrector,
    EulerMaruyama,
    ReverseDiffusion,
    Ancestral,
    DDIMEta,
    DPMpp2MSDE,
    DPMpp3MSDE,
    DPMppSDE,
    DPMpp2SAncestral,
    SEEDS1,
    SEEDS2,
    SEEDS3,
    SASolver,
    ERSDE1,
    ERSDE2,
    ERSDE3,
    HeunSDE,
    SRA1,
    ShARK,
    GGF,
    DPMppSDE12,
    EDM,
    Restart,
    CAS,
    Langevin,
    AnnealedLangevin,
    Euler,
    Heun,
    Midpoint,
    RK4,
    DDIM,
    DPM2S,
    DPM3S,
    DPM2M,
    DPM3M,
    DPMpp2S,
    DPMpp3S,
    DPMpp2M,
    DPMpp3M,
    UniP2,
    UniP3,
    UniPC1,
    UniPC2,
    UniPC3,
    TAB2,
    TAB3,
    TAB4,
    RhoAB2,
    RhoAB3,
    RhoAB4,
    IPNDM,
    PLMS,
    RhoHeun,
    RhoMidpoint,
    RhoRalston,
    RhoKutta3,
    RhoRK4,
    RES2S,
    RES3S,
    RK45,
    RK23,
    Tsit5,
    DOP853,
    DPM12,
    DPM23,
    ERK32,
    ERK43,
    Adams,
    *BACKENDS,
)
CORRECTORS: dict[str, type[Corrector]] = {
    cls.name: cls for cls in (LangevinCorrector, UnderdampedCorrector, MALACorrector)
}
BY_NAME: dict[str, type[Solver]] = {name: cls for cls in SOLVERS for name in (cls.name, *cls.aliases)}


class Method(NamedTuple):
    """What a method is; one record a method, see `methods`.

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


def methods() -> tuple[Method, ...]:
    """All methods that `scoresde.solve` takes by name, with what they declare.

    Example:
        >>> [m.name for m in methods() if m.weak_order == 2 and m.evaluations == 1]
        ['dpmpp_2m_sde', 'dpmpp_3m_sde', 'sa_solver', 'er_sde2', 'er_sde3', 'dpmpp_sde12']
    """
    fields = [f for f in Method._fields if f not in ("name", "solver")]
    return tuple(Method(name, cls, **{f: getattr(cls(), f) for f in fields}) for name, cls in BY_NAME.items())


def drift_methods() -> list[str]:
    """The stochastic methods that step any drift and diffusion on given steps, forward too.

    Example:
        >>> drift_methods()[:4]
        ['euler_maruyama', 'heun_sde', 'sra1', 'shark']
    """
    return [name for name, cls in BY_NAME.items() if cls().takes_stochasticity and not cls().adaptive]


def make_solver(method: str | Solver, options: Mapping[str, Any], others: Iterable[str] = ()) -> Solver:
    """A solver from a name and its options; a solver object is taken as it is.

    ``predictor=`` and ``corrector=`` of ``pc`` may be names; the options of its corrector (``snr``, ``moves``) may be
    given beside them. ``others`` are names that a misspelt option may have meant as well.

    Example:
        >>> make_solver("pc", {"predictor": "ancestral", "snr": 0.1}).corrector.snr
        0.1
    """
    check_kind("options", options, Mapping, "a mapping of options by their names")
    if isinstance(method, Solver):
        if options:
            raise InvalidArgumentError(
                f"A solver object carries its own options; pass {', '.join(sorted(options))} to "
                f"{type(method).__name__}(...), or give its name."
            )
        return method
    if not isinstance(method, str):
        raise InvalidTypeError(f"`method` must be a name from scoresde.methods() or a solver object, got {method!r}.")
    if method == "auto":
        raise InvalidArgumentError("method='auto' is a rule of solve; name a method here.")
    if method not in BY_NAME:
        raise unknown("method", method, [*BY_NAME, "auto"])
    cls = BY_NAME[method]
    given = dict(options)
    if "corrector" in _names(cls):
        given = _parts(given)
    for name in map(str, given):
        if name not in _names(cls):
            own = [*_names(cls), *(_names(LangevinCorrector) if "corrector" in _names(cls) else ())]
            close = difflib.get_close_matches(name, [*own, *others], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            options_text = f"Its options are {', '.join(sorted(own))}." if own else "It has no options."
            raise InvalidArgumentError(f"Unknown option {name!r} of method {method!r}{hint} {options_text}")
    return cls(**given)


def _names(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def _parts(options: dict[str, Any]) -> dict[str, Any]:
    """Turn the names of a predictor and a corrector into objects."""
    if isinstance(options.get("predictor"), str):
        check_choice("predictor", options["predictor"], BY_NAME)
        options["predictor"] = BY_NAME[options["predictor"]]()
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


def described(text: str) -> Solver:
    """A solver from its class and options as Python writes them.

    Raises:
        InvalidArgumentError: the text is none of a solver with plain options.

    Example:
        >>> described("IPNDM(order=3)").name
        'ipndm'
    """
    check_kind("text", text, str, "a solver as text")
    if len(text) > _LONGEST:
        raise InvalidArgumentError(f"A solver with its options has fewer than {_LONGEST} characters, got {len(text)}.")
    classes = {cls.__name__: cls for solver in SOLVERS for cls in solver.__mro__ if issubclass(cls, Solver)}
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("it is no call with options by name")
        return classes[call.func.id](**{str(k.arg): ast.literal_eval(k.value) for k in call.keywords})
    except (SyntaxError, KeyError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InvalidArgumentError(f"{text!r} is no solver of this package with its options: {error}.") from error
