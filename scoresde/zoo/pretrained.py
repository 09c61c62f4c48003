"""A network with what is needed to use it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any

from torch import Tensor, nn

from ..core.errors import InvalidArgumentError, unknown
from ..core.sdes import EDMSDE, AffineSDE
from ..core.sdes.span import log_snr_range, within
from ..core.solution import Solution
from ..core.solve import solve
from ..core.support.checks import check_integer, check_tensor, shown
from ..core.support.declared import Count, checked, instance
from ..core.support.display import Displayed
from ..discrete import Chain
from ..nets import ARCHITECTURES
from ..scores import ScoreModel
from ..tuning import FittedGrid, FittedSolver
from .config import Config, Labels
from .processes import modules_of, to_config
from .sampler import Sampler


@checked
@dataclass(frozen=True, repr=False)
class Pretrained(Displayed):
    """A network and its `Config`, as `load` returns and `save` takes it.

    Args:
        net: the raw network, called as ``net(input, time, **context)``.
        config: its description.
        native: the process that it is meant for, with its learned part if it has one; made from ``config`` if left out.
            None for an EDM network that serves all processes.
        source: where `load` found it if that is a commit of a repository, ``"hf:owner/name@commit"``.

    Example:
        >>> from scoresde.zoo import load
        >>> model = load("digits")
        >>> model
        Pretrained(net=UNet, 345,121 parameters, event_shape=(1, 8, 8), label=0 to 9, or None, prediction=edm, ...)
        >>> sde = scoresde.VPSDE()
        >>> scoresde.solve(
        ...     sde, model.score(sde, label=3), method="ddim", steps=2, shape=(5, 1, 8, 8)
        ... ).x.shape
        torch.Size([5, 1, 8, 8])
    """

    net: Annotated[nn.Module, instance(nn.Module, "a torch.nn.Module")]
    config: Config
    native: AffineSDE | None = field(default=None, compare=False)
    source: str | None = field(default=None, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.native is None and self.config.process is not None:
            native = self.config.natives()[0]
            if native is not None and modules_of(native):
                raise InvalidArgumentError("`native` must be given, since a part of the process is learned.")
            object.__setattr__(self, "native", native)

    def _summary(self) -> dict[str, str]:
        config, count = self.config, sum(parameter.numel() for parameter in self.net.parameters())
        labels = {} if self.labels is None else {self.labels.name: f"0 to {self.labels.count - 1}, or None"}
        return {
            "net": f"{type(self.net).__name__}, {count:,} parameters",
            "event_shape": str(self.event_shape),
            **labels,
            "prediction": config.prediction,
            "process": "any affine process" if self.native is None else repr(self.native),
            "sampler": "none" if config.sampler is None else config.sampler.method,
            **({} if self.source is None else {"source": self.source}),
        }

    @classmethod
    @checked
    def of(
        cls,
        model: ScoreModel,
        kwargs: Mapping[str, object] | None = None,
        *,
        event_shape: tuple[int, ...] | None = None,
        labels: Labels | None = None,
        levels: int | None = None,
        data_range: tuple[float, float] | None = None,
        data: str = "",
        command: str = "",
        every_process: bool = False,
        sampler: Sampler | None = None,
    ) -> Pretrained:
        """A network after training, with everything that `scoresde.save` needs.

        Args:
            model: the network with its conventions; its class must be in `scoresde.nets.ARCHITECTURES`.
            kwargs: the arguments that the network was made with; those in its attribute ``arguments`` if left out.
            event_shape: of a sample; the model's own if left out.
            labels, levels, data_range, data, command, sampler: see `Config`.
            every_process: an EDM network that was trained for the noise levels of all processes.

        Raises:
            InvalidArgumentError: something is missing, or cannot be saved, such as a process of functions.

        Example:
            >>> net = scoresde.nets.build("unet", {"event_shape": [1, 8, 8], "channels": 8})
            >>> model = scoresde.ScoreModel(
            ...     net, scoresde.FlowSDE(), "flow", event_shape=(1, 8, 8)
            ... )
            >>> Pretrained.of(model, {"event_shape": [1, 8, 8], "channels": 8}).config.prediction
            'flow'
        """
        name = next((name for name, kind in ARCHITECTURES.items() if kind is type(model.net)), None)
        if name is None or not isinstance(model.net, nn.Module):
            kind = type(model.net).__name__
            raise InvalidArgumentError(f"`model`: its network is a {kind}; add yours to scoresde.nets.ARCHITECTURES.")
        known = getattr(model.net, "arguments", None) if kwargs is None else kwargs
        if not isinstance(known, Mapping):
            raise InvalidArgumentError(f"`kwargs` must be a mapping of the network's arguments, got {shown(known)}.")
        if not isinstance(model.time_input, str):
            raise InvalidArgumentError("`model`: a function as `time_input` cannot be saved, only a name.")
        if model.context:
            raise InvalidArgumentError(f"`model`: its context {sorted(model.context)} cannot be saved; leave it out.")
        shape = model.traits.event_shape if event_shape is None else event_shape
        if shape is None:
            raise InvalidArgumentError("`event_shape` must be given, as ScoreModel(..., event_shape=(1, 8, 8)).")
        config = Config(
            architecture=name,
            kwargs=dict(known),
            sigma_data=model.sigma_data,
            event_shape=shape,
            labels=labels,
            data=data,
            command=command,
            prediction=model.prediction,
            time_input=model.time_input,
            input_scale=model.input_scale,
            variance=model.variance_name,
            process=None if every_process else to_config(model.native, model.chain),
            chain=None if model.chain is None else model.chain.to_config(),
            levels=levels,
            data_range=data_range,
            sampler=sampler,
            data_std=None if model.prediction == "edm" and model.data_std == model.sigma_data else model.data_std,
        )
        return cls(model.net, config, None if every_process else model.native)

    @property
    def sde(self) -> AffineSDE:
        """The process that the network is meant for; EDM's for one that serves all."""
        return EDMSDE() if self.native is None else self.native

    @cached_property
    def chain(self) -> Chain | None:
        """The discrete chain that the network was trained on, or None."""
        return None if self.config.chain is None else Chain.from_config(self.config.chain)

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest log-SNR that the network was trained on."""
        return (-math.inf, math.inf) if self.native is None else log_snr_range(self.native)

    def process(self, sde: AffineSDE) -> AffineSDE:
        """A process on the part of its interval that the network was trained for; itself if that is all of it.

        Example:
            >>> from scoresde.zoo import load
            >>> sde = scoresde.FlowSDE()
            >>> load("digits").process(sde) is sde
            True
        """
        return within(sde, self.limits)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.config.event_shape

    @property
    def labels(self) -> Labels | None:
        """The class labels that the network takes, or None."""
        return self.config.labels

    def sample(self, num: int = 1, *, label: int | Tensor | None = None, **options: Any) -> Solution:
        """Draw samples by the network's own sampler, on its own process; by `scoresde.solve`'s default if it has none.

        Args:
            num: the number of samples.
            label: of its class labels, see `score`; None for the null class.
            options: other arguments of `scoresde.solve`, such as ``seed``; with a ``method`` it replaces the sampler.

        Example:
            >>> from scoresde.zoo import load
            >>> load("digits").sample(2, seed=0, method="ddim", steps=2).x.shape
            torch.Size([2, 1, 8, 8])
        """
        context = {} if label is None or self.labels is None else {self.labels.name: label}
        if label is not None and self.labels is None:
            raise InvalidArgumentError("`label`: this network has no labels; leave it out.")
        sde, own = self.sde, None if "method" in options else self.config.sampler
        model = self.score(sde, **context)
        chosen = {} if own is None else own.arguments(self.chain)
        score_fn = model if own is None else own.model(model)
        device = next((parameter.device for parameter in self.net.parameters()), None)
        return solve(sde, score_fn, shape=(num, *self.event_shape), **{"device": device, **chosen, **options})

    @checked
    def grid(self, sde: AffineSDE, steps: Count) -> FittedGrid:
        """The grid that was fitted to the network for a process and a number of steps, for ``grid=`` of a solve by
        its ``method``.

        Raises:
            InvalidArgumentError: the grid is missing; `scoresde.fit_grid` makes one.

        Example:
            >>> from scoresde.zoo import load
            >>> model = load("digits")
            >>> grid = model.grid(scoresde.VPSDE(), 10)
            >>> grid.steps, grid.fitted.median < grid.default.median
            (10, True)
        """
        fitted = [grid for grid in self.config.grids if not isinstance(grid, FittedSolver)]
        for grid in fitted:
            if grid.steps == steps and grid.fits(sde):
                return grid
        there = sorted({f"{grid.steps} steps of {grid.process}" for grid in fitted})
        raise InvalidArgumentError(
            f"No grid was fitted for {steps} steps of {sde!r}, see fit_grid; there are {'; '.join(there) or 'none'}."
        )

    @checked
    def solver(self, steps: Count, sde: AffineSDE | None = None) -> FittedSolver:
        """The solver that was learned for the network and a number of evaluations, for ``method=`` of a solve.

        Args:
            steps: the number of evaluations.
            sde: the process; the network's own by default. A solver that was learned on another one is given on this
                one by `FittedSolver.on`.

        Raises:
            InvalidArgumentError: the solver is missing; `scoresde.fit_solver` makes one.

        Example:
            >>> from scoresde.zoo import load
            >>> model = load("digits")
            >>> solver = model.solver(5)
            >>> solver.steps, solver.fitted.median < solver.default.median
            (5, True)
            >>> model.sample(2, seed=0, method=solver).evaluations
            5
        """
        wanted = self.sde if sde is None else sde
        learned = [record for record in self.config.grids if isinstance(record, FittedSolver)]
        found = [record for record in learned if record.steps == steps]
        for record in found:
            if record.fits(wanted):
                return record
        if found:
            return found[0].on(wanted)
        there = sorted({record.steps for record in learned})
        only = f", only for {', '.join(map(str, there))}" if there else ""
        raise InvalidArgumentError(f"No solver was learned for {steps} evaluations{only}; see fit_solver.")

    def for_process(self, sde: AffineSDE) -> ScoreModel:
        """`score` without labels: what ``solve(sde, model)`` evaluates."""
        return self.score(sde)

    def score(self, sde: AffineSDE | None = None, **context: object) -> ScoreModel:
        """The score function of the network for an affine process.

        Args:
            sde: any affine process; the network is evaluated through the process's signal-to-noise ratio, see
                `ScoreModel.on`, and must cover its interval; `process` trims one. The network's own by default.
            context: the class label, if the network has one (``label=`` for the digits): an integer 0 … count − 1 for
                all samples; None, the default, for the null class; or integers ``(batch,)``, one per sample, where the
                null class is written as its number. With one per sample, the score function is no longer marked
                ``rowwise``; labels in the ``context`` of a solve keep that.
        """
        labels = self.config.labels
        for name in context:
            if labels is None:
                raise InvalidArgumentError(f"This network takes no context, got `{name}`.")
            if name != labels.name:
                raise unknown("context", name, [labels.name])
        value = context.get(labels.name) if labels else None
        per_sample = isinstance(value, Tensor) and value.ndim > 0
        checked = {} if labels is None else {labels.name: labels.null if value is None else _check_label(labels, value)}
        wanted = self.sde if sde is None else sde
        own = wanted if self.native is None else self.native
        model = self.config.model(self.net, own, self.chain, context=checked).on(wanted)
        if per_sample:
            model.traits = replace(model.traits, rowwise=False)  # the labels belong to a batch, which must stay whole
        return model


def _check_label(labels: Labels, value: object) -> int | Tensor:
    hint = f" Write {labels.name}=0 … {labels.count - 1}, or None for the null class."
    if not isinstance(value, Tensor) or value.ndim == 0:
        return check_integer(labels.name, value, low=0, high=labels.count - 1, hint=hint)
    check_tensor(labels.name, value, (-1,), kind="integer")
    bad = (value < 0) | ((value >= labels.count) & (value != labels.null))
    if bool(bad.any()):
        known, got = f"0 … {labels.count - 1}, or {labels.null} for the null class", value[bad][:5].tolist()
        raise InvalidArgumentError(f"`{labels.name}` must be {known}, got {got}.")
    return value
