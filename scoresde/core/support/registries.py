"""What is chosen by name: processes, methods for inverse problems, losses, presets, and the networks that are shipped.

A row is a name and the place of an object, ``"module:attribute"``. The module is imported when the object is first
taken out, so that the command line lists, completes and refuses names without importing torch. The packages
export these tables with their types (`scoresde.zoo.PROCESSES`, `scoresde.presets.PRESETS`, …); a user adds objects to
them as to a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class Registry(MutableMapping[str, T]):
    """Objects by name, in the order of the rows; each is imported when it is taken out.

    Args:
        places: ``{name: "module:attribute"}``.

    Example:
        >>> numbers = Registry({"pi": "math:pi", "e": "math:e"})
        >>> numbers["pi"]
        3.141592653589793
        >>> numbers["one"] = 1.0
        >>> numbers
        Registry(pi, e, one)
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._rows: dict[str, Callable[[], T]] = {name: partial(_taken, place) for name, place in places.items()}

    def __getitem__(self, name: str) -> T:
        return self._rows[name]()

    def __setitem__(self, name: str, value: T) -> None:
        self._rows[name] = lambda: value

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Registry({', '.join(self._rows)})"


def _taken(place: str) -> Any:
    from pkgutil import resolve_name

    return resolve_name(place)


_PROCESSES = {
    "vp": "scoresde.core.sdes:VPSDE",
    "ve": "scoresde.core.sdes:VESDE",
    "subvp": "scoresde.core.sdes:SubVPSDE",
    "cosine": "scoresde.core.sdes:CosineVPSDE",
    "sigmoid": "scoresde.core.sdes:SigmoidVPSDE",
    "vdm": "scoresde.core.sdes:VDMSDE",
    "edm": "scoresde.core.sdes:EDMSDE",
    "flow": "scoresde.core.sdes:FlowSDE",
}
# Processes by the names of the command line, and by those of their classes, which saved models keep.
SDES: Registry[Any] = Registry(_PROCESSES)
PROCESSES: Registry[Any] = Registry({place.partition(":")[2]: place for place in _PROCESSES.values()})

# Where the steps of a fixed-step method are.
GRIDS: Registry[Any] = Registry(
    {
        "log_snr": "scoresde.grids:log_snr",
        "time": "scoresde.grids:time",
        "karras": "scoresde.grids:karras",
        "quadratic": "scoresde.grids:quadratic",
        "cosine": "scoresde.grids:angle",
        "tangent": "scoresde.grids:tangent",
        "vp_time": "scoresde.grids:VP_TIME",
        "vp_quadratic": "scoresde.grids:VP_QUADRATIC",
    }
)

# Methods for inverse problems: rules, which change the score, and solvers.
RULES: Registry[Any] = Registry(
    {
        "mmps": "scoresde.inverse:MMPS",
        "tmpd": "scoresde.inverse:TMPD",
        "pigdm": "scoresde.inverse:PiGDM",
        "dps": "scoresde.inverse:DPS",
        "ddnm": "scoresde.inverse:DDNM",
        "diffpir": "scoresde.inverse:DiffPIR",
        "exact": "scoresde.inverse:Exact",
    }
)
SAMPLERS: Registry[Any] = Registry(
    {
        "replacement": "scoresde.inverse:Replacement",
        "dps_step": "scoresde.inverse:DPSStep",
        "mcg": "scoresde.inverse:MCG",
        "ddrm": "scoresde.inverse:DDRM",
        "ddnm_plus": "scoresde.inverse:DDNMPlus",
        "twisted_smc": "scoresde.inverse:TwistedSMC",
        "split_gibbs": "scoresde.inverse:SplitGibbs",
    }
)

# Losses of score networks: the functions of `scoresde.losses` by their own names.
LOSSES: Registry[Any] = Registry(
    {
        name: f"scoresde.losses:{name}"
        for name in (
            "explicit_score_matching",
            "implicit_score_matching",
            "sliced_score_matching",
            "denoising_score_matching",
            "transition_score_matching",
            "denoising",
            "ddpm_simple",
            "ddpm_vlb",
            "iddpm_hybrid",
            "likelihood_weighted",
            "vdm",
            "edm",
            "v_prediction",
            "flow_matching",
            "min_snr",
            "p2",
        )
    }
)

# The published systems, for `scoresde train --preset`.
PRESETS: Registry[Any] = Registry(
    {
        "ncsn": "scoresde.presets.ncsn:NCSN",
        "ncsnv2": "scoresde.presets.ncsn:NCSNV2",
        "ddpm": "scoresde.presets.ddpm:DDPM",
        "iddpm": "scoresde.presets.ddpm:IDDPM",
        "score-sde-ve": "scoresde.presets.score_sde:SCORE_SDE_VE",
        "score-sde-vp": "scoresde.presets.score_sde:SCORE_SDE_VP",
        "score-sde-subvp": "scoresde.presets.score_sde:SCORE_SDE_SUBVP",
        "vdm": "scoresde.presets.vdm:VDM",
        "edm": "scoresde.presets.edm:EDM",
        "edm-wide": "scoresde.presets.edm:EDM_WIDE",
        "mnist": "scoresde.presets.edm:MNIST",
    }
)
DEFAULT_PRESET = "edm-wide"

# Kinds of files that a set of samples may come in, arrays and pictures.
ARRAY_CONTAINERS = ("safetensors", "npz")
PICTURE_CONTAINERS = ("png", "tar")
CONTAINERS: Registry[Any] = Registry(
    {name: f"scoresde.sets.containers:{name}" for name in (*ARRAY_CONTAINERS, *PICTURE_CONTAINERS)}
)

SHIPPED = Path(__file__).parents[2] / "zoo" / "weights"


def shipped() -> list[str]:
    """The names of the networks that come with the package.

    Example:
        >>> "digits" in shipped()
        True
    """
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))
