"""What all chains share."""

from __future__ import annotations

import abc
import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError
from ..core.sdes import AffineSDE, NormalPrior
from ..core.sdes.records import as_time
from ..core.support.checks import check_choice, check_integer, check_integers, check_number, check_times
from .curve import MonotoneCurve, NearestLabel
from .spacings import SPACINGS

C = TypeVar("C", bound="Chain")

CHAINS: dict[str, type[Chain]] = {}  # by name, as `Chain.to_config` writes it; the package fills it
_MOST_LABEL = 1 << 31
_LEVELS = (
    " (`n` is a number of levels or the list of their places; one level alone is solve(..., t_start=t, t_end=t, "
    "denoise=True))"
)


class Chain(abc.ABC):
    r"""A list of noise levels, and the affine process through them; see the module for its conventions.

    Attributes:
        times: float64 ``(n,)``, rising: where the levels are on the process's clock.
        labels: int64 ``(n,)``: what a network receives at them.
        log_snrs: float64 ``(n,)``, falling: :math:`\ln(\alpha^2/\sigma^2)` of the levels.

    Example:
        >>> from scoresde.discrete import BetaChain
        >>> chain = BetaChain.linear(1000)
        >>> part = chain.respace(5)
        >>> part.times.tolist(), bool((part.log_snrs == chain.log_snrs[part.labels]).all())
        ([0.0, 250.0, 500.0, 749.0, 999.0], True)
    """

    def __init__(self, name: str, log_snrs: Tensor, labels: Tensor) -> None:
        flat = ~(log_snrs.diff() < 0)
        if bool(flat.any()):
            raise InvalidArgumentError(
                f"`{name}` must make every level noisier than the one before; levels {int(flat.int().argmax())} and "
                f"{int(flat.int().argmax()) + 1} do not differ in float64."
            )
        self.times = torch.arange(len(log_snrs), dtype=torch.float64, device=log_snrs.device)
        self.labels = labels
        self.log_snrs = log_snrs
        self._all = (log_snrs, labels)  # of the chain that this is a part of
        self._curve = MonotoneCurve(self.times, -log_snrs)
        self._nearest = NearestLabel(log_snrs, labels)

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} levels, times {self.times[0]:g} to {self.times[-1]:g})"

    @abc.abstractmethod
    def sde(
        self, *, t_min: float | None = None, t_max: float | None = None, prior: NormalPrior | None = None
    ) -> AffineSDE:
        r"""The affine process that the chain samples.

        At the chain's times :math:`\alpha` and :math:`\sigma` are the chain's (to rounding). The processes of a chain
        and of its parts have the same schedule.

        Args:
            t_min, t_max: the interval, by default from the cleanest to the noisiest level of this chain.
            prior: the distribution at ``t_max``; default that of the class that is returned.
        """

    @abc.abstractmethod
    def scale(self, log_snr: Tensor) -> Tensor:
        r""":math:`\alpha` at a log-SNR: how the chain's networks expect the data to be scaled."""

    def label(self, log_snr: Tensor) -> Tensor:
        """The label of the level nearest in log-SNR, int64; of two as near, that of the cleaner one.

        Args:
            log_snr: a float or a tensor, 0-d or ``(batch,)``, as `AffineSDE.log_snr` gives it; beyond the ends of the
                chain the end is the nearest.

        Example:
            >>> from scoresde.discrete import BetaChain
            >>> chain = BetaChain.linear(1000)
            >>> chain.label(chain.sde().log_snr(torch.tensor([0.0, 400.2, 998.8]))).tolist()
            [0, 400, 999]
        """
        return self._nearest(as_time("log_snr", log_snr, -math.inf))

    def grid(self, n: int | Sequence[int] | Tensor | None = None, spacing: str = "trailing") -> Tensor:
        r"""Times of n levels, from noisy to clean, for ``solve(..., grid=chain.grid(n), denoise=True)``.

        Args:
            n: how many levels, 2 or more; or the places of the levels; None for all.
            spacing: how n levels are chosen: ``"trailing"`` :math:`\mathrm{round}(kN/n) - 1` (k = 1 … n),
                ``"leading"`` :math:`k\lfloor N/n\rfloor` (k = 0 … n - 1), ``"linspace"``
                :math:`\mathrm{round}(k(N-1)/(n-1))`; halves are rounded to the even integer.

        Returns:
            float64 ``(n,)``, falling.

        Raises:
            InvalidArgumentError: n is below 2 or above the number of levels, a place is not in the chain or comes
                twice, or the spacing is unknown.
            InvalidTypeError: n is neither an integer nor a list of integers.

        Differs from:
            diffusers' ``DDIMScheduler``, whose steps go :math:`\lfloor N/n\rfloor` down from each label, whatever the
            next one is: with ``"linspace"`` it steps to other levels than it evaluates next. Published code, improved
            DDPM's too, breaks ties by the rounding errors of its quotients, so that at some n (21, 48, …; none of 10,
            20, 25, 50, 100, 200, 250) a few levels are one lower or higher there.

        Example:
            >>> from scoresde.discrete import BetaChain
            >>> chain = BetaChain.linear(1000)
            >>> chain.grid(4).tolist(), chain.grid(4, "leading").tolist()
            ([999.0, 749.0, 499.0, 249.0], [750.0, 500.0, 250.0, 0.0])

        References:
            Lin et al. (2023), Common Diffusion Noise Schedules and Sample Steps Are Flawed, table 2.
            https://arxiv.org/abs/2305.08891
        """
        return self.times[self._places(len(self) if n is None else n, spacing)].flip(0)

    def respace(self: C, n: int | Sequence[int] | Tensor, spacing: str = "linspace") -> C:
        r"""The chain of some of the levels, which keep their times, labels, :math:`\alpha` and :math:`\sigma`.

        Args:
            n: how many levels, 2 or more; or the places (0 … len - 1, cleanest first) of those to keep.
            spacing: as in `grid`; the default is improved DDPM's.

        Raises:
            InvalidArgumentError, InvalidTypeError: as in `grid`.

        Example:
            >>> from scoresde.discrete import BetaChain
            >>> BetaChain.linear(1000).respace(range(0, 1000, 20)).grid(2, "linspace").tolist()
            [980.0, 0.0]

        References:
            Nichol, Dhariwal (2021), Improved Denoising Diffusion Probabilistic Models, section 4.
            https://arxiv.org/abs/2102.09672
        """
        places = self._places(n, spacing)
        part = copy.copy(self)
        part.times, part.labels, part.log_snrs = self.times[places], self.labels[places], self.log_snrs[places]
        part._nearest = NearestLabel(part.log_snrs, part.labels)
        return part

    def to_config(self) -> dict[str, object]:
        """The chain as JSON values, of the levels that `respace` left out too; `from_config` reads them.

        Example:
            >>> from scoresde.discrete import NoiseScales
            >>> part = NoiseScales([1.0, 0.5, 0.1]).respace([0, 2])
            >>> again = Chain.from_config(part.to_config())
            >>> (
            ...     torch.equal(again.log_snrs, part.log_snrs),
            ...     again.labels.tolist(),
            ...     again.to_config()["places"],
            ... )
            (True, [2, 0], [0, 2])
        """
        log_snrs, labels = self._all
        places = self.times.to(torch.int64).tolist()
        return {
            "name": type(self).__name__,
            "log_snrs": log_snrs.tolist(),
            "labels": labels.tolist(),
            "places": None if len(places) == len(labels) else places,
        }

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Chain:
        """The chain that `to_config` described.

        Raises:
            InvalidArgumentError, InvalidTypeError: there is no such chain.
        """
        if not isinstance(config, Mapping) or set(config) != {"name", "log_snrs", "labels", "places"}:
            raise InvalidArgumentError("a chain must have the keys name, log_snrs, labels and places.")
        check_choice("name", config["name"], CHAINS)
        log_snrs = check_times("log_snrs", config["log_snrs"], "numbers")
        if len(log_snrs) < 2 or not bool(torch.isfinite(log_snrs).all()):
            raise InvalidArgumentError("`log_snrs` must be at least two finite numbers.")
        if not isinstance(config["labels"], Sequence) or len(config["labels"]) != len(log_snrs):
            raise InvalidArgumentError("`labels` must be a list with one label per level.")
        labels = [check_integer("labels", label, low=0, high=_MOST_LABEL) for label in config["labels"]]
        chain = object.__new__(CHAINS[config["name"]])
        Chain.__init__(chain, "log_snrs", log_snrs, torch.tensor(labels, device="cpu"))
        return chain if config["places"] is None else chain.respace(config["places"])

    def _places(self, n: object, spacing: str) -> Tensor:
        """The places of the requested levels, rising."""
        check_choice("spacing", spacing, SPACINGS)
        size = len(self)
        if (
            isinstance(n, Sequence | Tensor | np.ndarray)
            and not isinstance(n, str | bytes)
            and getattr(n, "ndim", True)
        ):
            places = sorted(check_integers("n", n, low=0, high=size - 1))
            twice = [a for a, b in itertools.pairwise(places) if a == b]
            if twice:
                raise InvalidArgumentError(f"`n` must name each level once, got {twice[0]} twice.")
            check_integer("len(n)", len(places), low=2, hint=_LEVELS)
            return torch.tensor(places, device="cpu")
        return SPACINGS[spacing](size, check_integer("n", n, low=2, high=size, hint=_LEVELS))

    def _ends(self, t_min: float | None, t_max: float | None) -> tuple[float, float]:
        low, high = float(self.times[0]), float(self.times[-1])
        hint = " (the chain's own times)"
        return (
            low if t_min is None else check_number("t_min", t_min, low=low, high=high, hint=hint),
            high if t_max is None else check_number("t_max", t_max, low=low, high=high, hint=hint),
        )


def numbers_of(name: str, values: Any, high: float) -> Tensor:
    """A list of two or more numbers in (0, high), float64 ``(n,)``."""
    numbers = check_times(name, values, "numbers")
    if len(numbers) < 2:
        raise InvalidArgumentError(f"`{name}` must have at least two entries, got {len(numbers)}.")
    bad = ~((numbers > 0) & (numbers < high))
    if bool(bad.any()):
        i = int(bad.int().argmax())
        raise InvalidArgumentError(f"`{name}` must be in (0, {high:g}); entry {i} is {float(numbers[i]):.6g}.")
    return numbers
