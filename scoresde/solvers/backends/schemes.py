"""The methods of other libraries, under the class that runs them: their names there, and what they declare that the
class does not."""

from __future__ import annotations

PREFIXES = {"torchdiffeq": "TorchDiffEq", "scipy": "SciPy", "torchsde": "TorchSDE"}

SCHEMES: dict[str, dict[str, dict[str, object]]] = {
    "torchdiffeq.TorchDiffEqFixed": {
        "euler": {"ode_order": 1, "evaluations": 1, "open_end": True, "reference": "Euler (1768)"},
        "midpoint": {"ode_order": 2, "evaluations": 2, "open_end": True, "reference": "Runge (1895)"},
        "heun2": {"ode_order": 2, "evaluations": 2, "reference": "Heun (1900)"},
        "heun3": {"ode_order": 3, "evaluations": 3, "open_end": True, "reference": "Heun (1900)"},
        "rk4": {"ode_order": 4, "evaluations": 4, "reference": "Kutta (1901), the 3/8 rule"},
    },
    "torchdiffeq.TorchDiffEqAdaptive": {
        "dopri8": {"ode_order": 8, "evaluations": 13, "reference": "Prince, Dormand (1981)"},
        "dopri5": {"ode_order": 5, "evaluations": 6, "reference": "Dormand, Prince (1980)"},
        "bosh3": {"ode_order": 3, "evaluations": 3, "reference": "Bogacki, Shampine (1989)"},
        "fehlberg2": {"ode_order": 2, "evaluations": 2, "reference": "Fehlberg (1969), the pair 1(2)"},
        "adaptive_heun": {"ode_order": 2, "evaluations": 1, "reference": "Heun (1900) with Euler's method"},
    },
    "torchdiffeq.TorchDiffEqAdams": {
        "explicit_adams": {"ode_order": 4, "evaluations": 1, "reference": "Bashforth, Adams (1883)"},
        "implicit_adams": {
            "ode_order": 4,
            "evaluations": 2,
            "batch_coupled": True,
            "reference": "Moulton (1926), iterated from Bashforth, Adams (1883)",
        },
    },
    "scipy.SciPy": {
        "RK45": {"ode_order": 5, "evaluations": 6, "reference": "Dormand, Prince (1980)"},
        "RK23": {"ode_order": 3, "evaluations": 3, "reference": "Bogacki, Shampine (1989)"},
        "DOP853": {"ode_order": 8, "evaluations": 12, "reference": "Hairer, Norsett, Wanner (1993), DOP853"},
    },
    "scipy.SciPyImplicit": {
        "Radau": {"ode_order": 5, "evaluations": 3, "iterations": 18, "reference": "Hairer, Wanner (1996), Radau IIA"},
        "BDF": {"evaluations": 1, "iterations": 4, "reference": "Shampine, Reichelt (1997), quasi-constant steps"},
    },
    "scipy.SciPyBanded": {
        "LSODA": {"evaluations": 1, "iterations": 4, "reference": "Petzold (1983), Hindmarsh (1983)"},
    },
    "torchsde.TorchSDE": {
        "euler": {"reading": "ito", "reference": "Maruyama (1955)"},
        "milstein": {"reading": "ito", "reference": "Milstein (1974)"},
        "srk": {
            "reading": "ito",
            "weak_order": 2,
            "strong_order": 1.5,
            "evaluations": 2,
            "reference": "Roessler (2010), SRA1",
        },
        "heun": {"weak_order": 2, "evaluations": 2, "data_limit": False, "reference": "Burrage, Burrage, Tian (2004)"},
        "midpoint": {"evaluations": 2, "reference": "Kloeden, Platen (1992)"},
        "euler_heun": {"reference": "Roberts (2012)"},
        "log_ode": {"evaluations": 2, "reference": "Kidger et al. (2021), torchsde's log_ode"},
        "reversible_heun": {
            "extra_evaluations": 1,
            "looks_ahead": True,
            "data_limit": False,
            "reference": "Kidger et al. (2021), arXiv 2105.13493",
        },
    },
}


def title_of(package: str, scheme: str) -> str:
    """The name of the class of a method.

    Example:
        >>> title_of("torchsde", "euler_heun")
        'TorchSDEEulerHeun'
    """
    return PREFIXES[package] + "".join(part[:1].upper() + part[1:] for part in scheme.split("_"))
