"""The methods, one row each: the name that `scoresde.solve` takes, the class behind it, and the options that make it.

A method is registered here and nowhere else. The rows import neither torch nor NumPy, so that names can be listed, and
misspelt names be corrected, without them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from string import digits
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

from ..backends.schemes import SCHEMES, title_of

PACKAGE = __name__.removesuffix(".registry.rows")


class Row(NamedTuple):
    """A method.

    Fields:
        name: its name in `scoresde.solve`.
        path: the module and the class, within ``scoresde.solvers``.
        public: its name in ``scoresde.solvers``, where that is not the name of the class.
        options: the options that make it this method, where they are not the defaults of the class.
        about: the method in one line, where it shares its class with others.
        aliases: other names that `scoresde.solve` takes.
        states: the memory that a solve takes at most, in units of its state, which is counted, as is what the network
            returns, with the default options and whatever the network predicts; 0 where a library makes the steps.

    Example:
        >>> BY_NAME["unipc"].title, BY_NAME["unipc"].path, dict(BY_NAME["unipc"].options)
        ('UniPC2', 'unipc.UniPC', {'order': 2})
    """

    name: str
    path: str
    public: str = ""
    options: Mapping[str, object] = MappingProxyType({})
    about: str = ""
    aliases: tuple[str, ...] = ()
    states: int = 0

    @property
    def module(self) -> str:
        """The full name of the module."""
        return f"{PACKAGE}.{self.path.rpartition('.')[0]}"

    @property
    def cls(self) -> str:
        """The name of the class."""
        return self.path.rpartition(".")[2]

    @property
    def title(self) -> str:
        """The name in ``scoresde.solvers``."""
        return self.public or self.cls

    def load(self) -> Any:
        """The class of this name."""
        return getattr(importlib.import_module(self.module), self.title)


# The names of all rows, which editors complete; a test compares them.
MethodName: TypeAlias = Literal[
    "auto", "pc", "euler_maruyama", "reverse_diffusion", "ancestral", "ddim_eta", "euler_ancestral", "dpmpp_2m_sde",
    "dpmpp_3m_sde", "dpmpp_sde", "dpmpp_2s_ancestral", "seeds1", "dpm_sde_1", "seeds2", "seeds3", "sa_solver",
    "er_sde1", "er_sde2", "er_sde3", "heun_sde", "sra1", "shark", "ggf", "dpmpp_sde12", "edm", "restart", "cas",
    "langevin", "annealed_langevin", "ncsn", "euler", "heun", "midpoint", "rk4", "ddim", "dpm_2s", "dpm_3s", "dpm_2m",
    "dpm_3m", "dpmpp_2s", "dpmpp_3s", "dpmpp_2m", "dpmpp_3m", "unip2", "unip3", "unipc1", "unipc2", "unipc", "unipc3",
    "tab2", "tab3", "tab4", "rho_ab2", "rho_ab3", "rho_ab4", "lms", "ipndm", "plms", "rho_heun", "edm_heun",
    "rho_midpoint", "rho_ralston", "rho_kutta3", "rho_rk4", "res_2s", "res_3s", "rk45", "rk23", "tsit5", "dop853",
    "dpm12", "dpm23", "erk32", "erk43", "adams", "torchdiffeq:euler", "torchdiffeq:midpoint", "torchdiffeq:heun2",
    "torchdiffeq:heun3", "torchdiffeq:rk4", "torchdiffeq:dopri8", "torchdiffeq:dopri5", "torchdiffeq:bosh3",
    "torchdiffeq:fehlberg2", "torchdiffeq:adaptive_heun", "torchdiffeq:explicit_adams", "torchdiffeq:implicit_adams",
    "scipy:RK45", "scipy:RK23", "scipy:DOP853", "scipy:Radau", "scipy:BDF", "scipy:LSODA", "torchsde:euler",
    "torchsde:milstein", "torchsde:srk", "torchsde:heun", "torchsde:midpoint", "torchsde:euler_heun",
    "torchsde:log_ode", "torchsde:reversible_heun",
]  # fmt: skip


ROWS: tuple[Row, ...] = (
    Row("pc", "predictor_corrector.PredictorCorrector", states=4),
    Row("euler_maruyama", "euler_maruyama.EulerMaruyama", states=4),
    Row("reverse_diffusion", "reverse_diffusion.ReverseDiffusion", states=4),
    Row("ancestral", "ancestral.Ancestral", states=4),
    Row("ddim_eta", "ddim.DDIMEta", aliases=("euler_ancestral",), states=4),
    Row("dpmpp_2m_sde", "dpm_multistep_sde.DPMpp2MSDE", states=5),
    Row("dpmpp_3m_sde", "dpm_multistep_sde.DPMpp3MSDE", states=6),
    Row("dpmpp_sde", "dpmpp_sde.DPMppSDE", states=6),
    Row("dpmpp_2s_ancestral", "dpmpp_sde.DPMpp2SAncestral", states=5),
    Row("seeds1", "seeds.SEEDS1", aliases=("dpm_sde_1",), states=5),
    Row("seeds2", "seeds.SEEDS2", states=6),
    Row("seeds3", "seeds.SEEDS3", states=8),
    Row("sa_solver", "sa_solver.SASolver", states=6),
    Row("er_sde1", "er_sde.ERSDE", "ERSDE1", {"order": 1}, "ER-SDE of order 1.", states=5),
    Row("er_sde2", "er_sde.ERSDE", "ERSDE2", {"order": 2}, "ER-SDE of order 2.", states=5),
    Row("er_sde3", "er_sde.ERSDE", "ERSDE3", {"order": 3}, "ER-SDE of order 3.", states=6),
    Row("heun_sde", "euler_maruyama.HeunSDE", states=6),
    Row("sra1", "sra.SRA1", states=7),
    Row("shark", "sra.ShARK", states=7),
    Row("ggf", "ggf.GGF", states=31),
    Row("dpmpp_sde12", "dpmpp_sde12.DPMppSDE12", states=33),
    Row("edm", "edm.EDM", states=5),
    Row("restart", "restart.Restart", states=5),
    Row("cas", "langevin.CAS", states=3),
    Row("langevin", "langevin.Langevin", states=4),
    Row("annealed_langevin", "langevin.AnnealedLangevin", aliases=("ncsn",), states=4),
    Row("euler", "runge_kutta.Euler", states=3),
    Row("heun", "runge_kutta.Heun", states=5),
    Row("midpoint", "runge_kutta.Midpoint", states=4),
    Row("rk4", "runge_kutta.RK4", states=7),
    Row("ddim", "ddim.DDIM", states=3),
    Row("dpm_2s", "dpm_singlestep.DPM2S", states=5),
    Row("dpm_3s", "dpm_singlestep.DPM3S", states=6),
    Row("dpm_2m", "dpm_multistep.DPM2M", states=5),
    Row("dpm_3m", "dpm_multistep.DPM3M", states=6),
    Row("dpmpp_2s", "dpm_singlestep.DPM2S", "DPMpp2S", {"prediction": "data"}, "DPM-Solver++ (2S).", states=5),
    Row("dpmpp_3s", "dpm_singlestep.DPM3S", "DPMpp3S", {"prediction": "data"}, "DPM-Solver++ (3S).", states=6),
    Row("dpmpp_2m", "dpm_multistep.DPM2M", "DPMpp2M", {"prediction": "data"}, "DPM-Solver++ (2M).", states=5),
    Row("dpmpp_3m", "dpm_multistep.DPM3M", "DPMpp3M", {"prediction": "data"}, "DPM-Solver++ (3M).", states=6),
    Row("unip2", "unipc.UniP", "UniP2", {"order": 2}, "UniP-2: DPM-Solver++ (2M).", states=5),
    Row("unip3", "unipc.UniP", "UniP3", {"order": 3}, "UniP-3: close to DPM-Solver++ (3M).", states=6),
    Row("unipc1", "unipc.UniPC", "UniPC1", {"order": 1}, "UniPC-1: DDIM, corrected.", states=5),
    Row(
        "unipc2", "unipc.UniPC", "UniPC2", {"order": 2}, "UniPC-2: published for guided sampling.", ("unipc",), states=6
    ),
    Row("unipc3", "unipc.UniPC", "UniPC3", {"order": 3}, "UniPC-3: published for unconditional sampling.", states=7),
    Row("tab2", "deis.TAB", "TAB2", {"order": 2}, "tAB-DEIS of order 2 (r = 1).", states=5),
    Row("tab3", "deis.TAB", "TAB3", {"order": 3}, "tAB-DEIS of order 3 (r = 2).", states=6),
    Row("tab4", "deis.TAB", "TAB4", {"order": 4}, "tAB-DEIS of order 4 (r = 3).", states=8),
    Row("rho_ab2", "deis.RhoAB", "RhoAB2", {"order": 2}, "ρAB-DEIS of order 2 (r = 1).", states=5),
    Row("rho_ab3", "deis.RhoAB", "RhoAB3", {"order": 3}, "ρAB-DEIS of order 3 (r = 2).", states=6),
    Row(
        "rho_ab4",
        "deis.RhoAB",
        "RhoAB4",
        {"order": 4},
        "ρAB-DEIS of order 4 (r = 3): k-diffusion's LMS.",
        ("lms",),
        states=8,
    ),
    Row("ipndm", "ipndm.IPNDM", states=7),
    Row("plms", "ipndm.PLMS", states=7),
    Row("rho_heun", "rho_runge_kutta.RhoHeun", aliases=("edm_heun",), states=5),
    Row("rho_midpoint", "rho_runge_kutta.RhoMidpoint", states=4),
    Row("rho_ralston", "rho_runge_kutta.RhoRalston", states=5),
    Row("rho_kutta3", "rho_runge_kutta.RhoKutta3", states=6),
    Row("rho_rk4", "rho_runge_kutta.RhoRK4", states=7),
    Row("res_2s", "res.RES2S", states=5),
    Row("res_3s", "res.RES3S", states=6),
    Row("rk45", "rk45.RK45", states=19),
    Row("rk23", "pairs.RK23", states=13),
    Row("tsit5", "pairs.Tsit5", states=19),
    Row("dop853", "pairs.DOP853", states=31),
    Row("dpm12", "exponential_pairs.DPM12", states=9),
    Row("dpm23", "exponential_pairs.DPM23", states=10),
    Row("erk32", "exponential_pairs.ERK32", states=10),
    Row("erk43", "exponential_pairs.ERK43", states=12),
    Row("adams", "adams.Adams", states=32),
    *(
        Row(f"{package}:{scheme}", f"backends.{package}.{title_of(package, scheme)}")
        for package, scheme in ((path.partition(".")[0], scheme) for path, table in SCHEMES.items() for scheme in table)
    ),
)
BY_NAME: dict[str, Row] = {name: row for row in ROWS for name in (row.name, *row.aliases)}
MODULES: dict[str, str] = {name: row.module for row in ROWS for name in (row.title, row.cls)}  # of public names
MODULES["Learned"] = "scoresde.solvers.learned"  # which has no name, since it has no defaults
_TITLES = {f"{row.module}.{row.title}": row for row in ROWS}
_CLASSES: dict[str, list[Row]] = {}
for _row in ROWS:
    _CLASSES.setdefault(f"{_row.module}.{_row.cls}", []).append(_row)


def row_at(module: str, title: str) -> Row | None:
    """The row with a public name in a module.

    Example:
        >>> row_at("scoresde.solvers.unipc", "UniPC2").name
        'unipc2'
    """
    return _TITLES.get(f"{module}.{title}")


def rows_of(cls: type) -> list[Row]:
    """The rows of a class; a class that is derived from it has none."""
    return _CLASSES.get(_key(cls), [])


def row_of(solver: object, inherited: bool = True) -> Row | None:
    """The row of a solver, the one with the most options if several fit; None if none of its class fits.

    Args:
        solver: the solver.
        inherited: go by the next class above that has rows if its own has none.

    Example:
        >>> (
        ...     row_of(scoresde.solvers.UniPC(order=2)).name,
        ...     row_of(scoresde.solvers.UniPC(order=5)),
        ... )
        ('unipc2', None)
    """
    rows = _inherited(type(solver)) if inherited else rows_of(type(solver))
    fitting = [row for row in rows if all(getattr(solver, name) == value for name, value in row.options.items())]
    return max(fitting, key=lambda row: len(row.options), default=None)


def name_of(cls: type, solver: object = None) -> str:
    """The name of a solver, or of a class by its public name. If no row fits, it is that of the first row of the
    class without its number; ``"own"`` for other classes.

    Example:
        >>> (
        ...     [scoresde.solvers.UniPC(order=order).name for order in (2, 5)],
        ...     scoresde.solvers.UniPC2.name,
        ... )
        (['unipc2', 'unipc'], 'unipc2')
    """
    row = _declared(cls) if solver is None else row_of(solver)
    return row.name if row else next((row.name.rstrip(digits) for row in _inherited(cls)), "own")


def aliases_of(cls: type, solver: object = None) -> tuple[str, ...]:
    """Other names of a solver, or of a class by its public name."""
    row = _declared(cls) if solver is None else row_of(solver)
    return row.aliases if row else ()


def _declared(cls: type) -> Row | None:
    """The row with the public name of a class, or of the next class above it that has rows."""
    return next((_TITLES.get(_key(each)) for each in cls.__mro__ if _key(each) in _TITLES or rows_of(each)), None)


def _inherited(cls: type) -> list[Row]:
    return next(filter(None, map(rows_of, cls.__mro__)), [])


def _key(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
