r"""Which timesteps and noise levels the schedulers of diffusers take for n steps.

The timesteps of a spacing depend on the scheduler's family: where a ``"multistep"`` scheduler makes n steps, it divides
the chain into n + 1 parts and leaves out the cleanest; a ``"posterior"`` or ``"sigma"`` scheduler takes both ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import InvalidArgumentError

Array = NDArray[np.float64]


def _linspace(size: int, n: int) -> Array:
    return np.linspace(0, size - 1, n)[::-1]


def _leading(size: int, n: int) -> Array:
    return np.arange(n, dtype=np.float64)[::-1] * (size // n)


# By family: the timesteps of n steps on a chain whose noisiest usable level is the size-th; "leading" is shifted by
# ``steps_offset`` afterwards. Halves are rounded to the even integer, as NumPy does.
SPACINGS: dict[str, dict[str, Callable[[int, int], Array]]] = {
    "posterior": {"linspace": lambda size, n: _linspace(size, n).round(), "leading": _leading},
    "sigma": {"linspace": _linspace, "leading": _leading},
    "multistep": {
        "linspace": lambda size, n: _linspace(size, n + 1).round()[:-1],
        "leading": lambda size, n: _leading(size, n + 1)[:-1],
    },
}


def timesteps(family: str, spacing: str, size: int, usable: int, n: int, offset: int) -> Array:
    """The timesteps of n steps, falling.

    Args:
        family: of `SPACINGS`.
        spacing: ``"leading"``, ``"trailing"`` or ``"linspace"``.
        size: the number of levels.
        usable: how many of them, from the cleanest on, are used (``lambda_min_clipped`` leaves out the noisiest).
        n: the number of steps.
        offset: ``steps_offset``.

    Raises:
        InvalidArgumentError: the spacing is unknown.

    Example:
        >>> [
        ...     timesteps(f, "linspace", 1000, 1000, 4, 0).tolist()
        ...     for f in ("posterior", "multistep")
        ... ]
        [[999.0, 666.0, 333.0, 0.0], [999.0, 749.0, 500.0, 250.0]]
        >>> timesteps("posterior", "leading", 1000, 1000, 4, 1).tolist()
        [751.0, 501.0, 251.0, 1.0]

    References:
        Lin et al. (2023), Common Diffusion Noise Schedules and Sample Steps Are Flawed, table 2.
        https://arxiv.org/abs/2305.08891
    """
    rules = SPACINGS[family]
    if spacing == "trailing":
        places = np.arange(usable, 0, -size / n).round()  # with the rounding errors that diffusers has
        return places[places > 0] - 1
    if spacing not in rules:
        raise InvalidArgumentError(f"`timestep_spacing` must be 'leading', 'trailing' or 'linspace', got {spacing!r}.")
    return rules[spacing](usable, n) + (offset if spacing == "leading" else 0)


# Noise levels between two, instead of those of the timesteps; by the field that selects them.


def _exponential(low: float, high: float, n: int) -> Array:
    return np.exp(np.linspace(np.log(high), np.log(low), n))


def _beta(low: float, high: float, n: int) -> Array:
    from scipy.stats import beta  # takes long to import

    return low + beta.ppf(1 - np.linspace(0, 1, n), 0.6, 0.6) * (high - low)


CURVES: dict[str, Callable[[float, float, int], Array]] = {
    "use_karras_sigmas": lambda low, high, n: np.linspace(high ** (1 / 7), low ** (1 / 7), n) ** 7,
    "use_exponential_sigmas": _exponential,
    "use_beta_sigmas": _beta,
    "use_lu_lambdas": _exponential,
}


def curve_of(config: Mapping[str, Any]) -> str | None:
    """The field that selects the noise levels; None for those of the timesteps.

    Raises:
        InvalidArgumentError: several are set.

    Example:
        >>> curve_of({"use_karras_sigmas": True, "use_beta_sigmas": False})
        'use_karras_sigmas'
    """
    chosen = [name for name in CURVES if config.get(name)]
    if len(chosen) > 1:
        raise InvalidArgumentError(f"`{chosen[0]}` and `{chosen[1]}` exclude each other; set one of them.")
    return chosen[0] if chosen else None


def shifted(sigma: Array, factor: float) -> Array:
    r"""Flow matching's shift towards the noise, :math:`s\sigma/(1+(s-1)\sigma)`.

    Example:
        >>> shifted(np.array([1.0, 0.5]), 3.0).tolist()
        [1.0, 0.75]

    References:
        Esser et al. (2024), Scaling Rectified Flow Transformers, eq. 23. https://arxiv.org/abs/2403.03206
    """
    return factor * sigma / (1 + (factor - 1) * sigma)


def stretched(sigma: Array, terminal: float | None) -> Array:
    r"""Levels of the flow stretched so that the last one is ``terminal``: :math:`1-(1-\sigma)(1-e)/(1-\sigma_n)`.

    Example:
        >>> stretched(np.array([1.0, 0.5]), 0.1).round(12).tolist()
        [1.0, 0.1]
    """
    return sigma if not terminal else 1 - (1 - sigma) * (1 - terminal) / (1 - sigma[-1])
