"""How a network is sampled, as plain values that its config can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from torch import Tensor

from ..core.errors import CorruptCheckpointError, InvalidArgumentError, InvalidTypeError, check_choice
from ..core.support.checks import MOST_STEPS
from ..core.support.declared import Interval, Kind, NonNegative, ScoreFunction, Steps, checked, integer, one_of
from ..discrete import SPACINGS, Chain
from ..grids import GRIDS
from ..scores import Clip
from ..solvers import choose, make_solver
from .processes import check_keys

_PLAIN = (bool, int, float, str, type(None))


@checked
@dataclass(frozen=True)
class Sampler:
    """A method of `scoresde.solve` with its steps and options: `scoresde.load` returns it with the network.

    Args:
        method: a name of `scoresde.methods`, or ``"auto"``.
        steps: steps of a fixed-step method; None is the method's default.
        evaluations: in place of steps, the number of calls of the network per sample, as for ``"auto"``.
        grid: a name of a grid; None is the default of `scoresde.solve`.
        levels: step through that many levels of the network's chain, in place of steps and grid.
        spacing: how these are chosen, see `scoresde.discrete.Chain.grid`.
        t_end: where to end; None is the process's t_min.
        denoise: end with the expected data, for one more evaluation.
        options: of the method, plain values.
        clip: the range that the data estimate is clipped to, or None; see `model`.

    Raises:
        InvalidArgumentError, InvalidTypeError: there is no such method, grid or option, or two do not go together.

    Example:
        >>> from scoresde.discrete import BetaChain
        >>> sampler = Sampler(
        ...     "ancestral", levels=4, denoise=True, options={"variance": "large"}
        ... )
        >>> sampler.arguments(BetaChain.linear())["grid"].tolist()
        [999.0, 749.0, 499.0, 249.0]
        >>> Sampler("ancestral", options={"variant": 1})
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: Unknown option 'variant' of method 'ancestral'; did you mean ...
    """

    method: str
    steps: Steps | None = None
    evaluations: Steps | None = None
    grid: Annotated[str, Kind(lambda name, value: check_choice(name, value, GRIDS))] | None = None
    levels: Annotated[int, integer(low=2, high=MOST_STEPS)] | None = None
    spacing: Annotated[str, one_of(*SPACINGS)] = "trailing"
    t_end: NonNegative | None = None
    denoise: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    clip: Interval | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(k, str) and isinstance(v, _PLAIN) for k, v in self.options.items()):
            raise InvalidTypeError(f"`options` must map names to plain values, got {str(self.options)[:80]}.")
        if self.levels is not None and (self.steps, self.evaluations, self.grid, self.t_end) != (None,) * 4:
            raise InvalidArgumentError(
                "`levels` of a chain already determine steps, evaluations, grid and t_end; leave those out."
            )
        if self.method == "auto":
            choose(True, self.evaluations, dict(self.options))
        else:
            make_solver(self.method, self.options)

    @checked
    def arguments(self, chain: Chain | None = None) -> dict[str, object]:
        """The arguments of `scoresde.solve`.

        Raises:
            InvalidArgumentError: ``levels`` are given, and there is no chain with as many.
        """
        given: dict[str, object] = {"method": self.method, "denoise": self.denoise, **self.options}
        if self.levels is not None:
            if chain is None:
                raise InvalidArgumentError("`levels` of a sampler need a chain, and the network has none.")
            return given | {"grid": chain.grid(self.levels, self.spacing)}
        chosen = {name: getattr(self, name) for name in ("steps", "evaluations", "grid", "t_end")}
        return given | {name: value for name, value in chosen.items() if value is not None}

    @checked
    def model(self, score_fn: ScoreFunction) -> Callable[..., Tensor]:
        """The score function to solve with: in `scoresde.scores.Clip`, if the sampler clips.

        Example:
            >>> model = scoresde.ScoreModel(lambda x, t: x, scoresde.VPSDE(), "noise")
            >>> (
            ...     type(Sampler("ddim", clip=(-1, 1)).model(model)).__name__,
            ...     Sampler("ddim").model(model) is model,
            ... )
            ('Clip', True)
        """
        return score_fn if self.clip is None else Clip(score_fn, *self.clip)

    def to_config(self) -> dict[str, object]:
        """The sampler as JSON values.

        Example:
            >>> Sampler.of(Sampler("ddim", steps=10).to_config()) == Sampler("ddim", steps=10)
            True
        """
        content = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return content | {"options": dict(self.options), "clip": None if self.clip is None else list(self.clip)}

    @classmethod
    def of(cls, content: Any, where: str = "`sampler`") -> Sampler:
        """Read what `to_config` wrote.

        Raises:
            CorruptCheckpointError: it is not a sampler.
        """
        try:
            if isinstance(content, Mapping) and "evaluations" not in content:
                unit = "evaluations" if content.get("method") == "auto" else "steps"
                content = {**content, "evaluations": None, "steps": None, unit: content.get("steps")}
            check_keys("a sampler", content, {entry.name for entry in fields(cls)})
            return cls(**content)
        except (InvalidArgumentError, InvalidTypeError) as error:
            raise CorruptCheckpointError(f"{where} cannot be used: {str(error)[:300]}") from None
