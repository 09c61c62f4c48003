"""The methods of this package as a scheduler of diffusers, which this module imports where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ...core.errors import InvalidArgumentError, ScoreFnError
from ...core.noise import BatchNoise, Noise
from ...core.sdes import Node
from ...core.setup import DEFAULT_EVALUATIONS
from ...core.stepper import Stepper
from ...core.support.checks import MOST_STEPS, check_flag, check_integer, check_kind, check_times
from ...core.support.snapshot import digest
from ...core.support.tensors import compute_dtype, version_of
from ...grids import resolve
from ...nets import External
from ...paths.density import step_log_prob
from ...scores import Score, ScoreModel
from ...solvers import Solver, choose, from_config, make_solver
from ...solvers.learned import Learned
from ...solvers.registry import to_text
from ...solvers.registry.auto import NoiseStart, unit_of
from ...tuning import FittedGrid
from .._packages import package
from ..course import Course, Leg, legs_of
from .config import SCHEDULERS, Conventions, conventions

if TYPE_CHECKING:
    ConfigMixin: Any = object
    SchedulerMixin: Any = object
    BaseOutput: Any = object
else:
    try:
        from diffusers import ConfigMixin, SchedulerMixin
        from diffusers.utils import BaseOutput
    except ImportError:  # the class can be inspected, and its use raises an error that names what is missing
        ConfigMixin = BaseOutput = object

        class SchedulerMixin:
            """Stands for diffusers' class."""

            def __new__(cls, *arguments: object, **named: object) -> None:
                package("diffusers", "DiffusersScheduler", "scoresde[diffusers]")


_ROWS = 2  # of the small states by which the evaluations of a loop are counted
_ROUNDING = 1e-9  # of a state that is not moved, relative


@dataclass
class StepOutput(BaseOutput):
    """What `DiffusersScheduler.step` returns.

    Attributes:
        prev_sample: what the pipeline's loop goes on with.
        pred_original_sample: the data estimate of this evaluation.
        log_prob: the log-density of ``prev_sample`` given the sample, ``(batch,)`` float64, where it was requested; 0
            of a step that draws nothing.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None
    log_prob: Tensor | None = None


class _Call(NamedTuple):
    """One evaluation of a loop: the node, what the network gets as its time, the time where the step began, whether it
    is the step's first, and whether the state is moved before it (by noise, for example)."""

    node: Node[Any]
    label: float
    begin: float
    first: bool
    moved: bool


@dataclass
class _Loop:
    """Where a pipeline's loop is.

    Attributes:
        course: the solve, once it has begun.
        index: the place of the next evaluation among the timesteps.
        begin: where the pipeline has said that it begins.
        handed, version: the state that it was given to go on with, and how often that had been written to.
        scaled, given, lent: what it passed to `scale_model_input`, what it got for the network, and how often that had
            been written to.
        evaluated: where the network is evaluated within the step, if the solve does not know it.
        generator: what it passed last.
        scales: whether it calls `scale_model_input`.
        noised: whether it has made the state of the first step by `add_noise`.
        rows: the size of the batch; 0 until it is known.
    """

    course: Course | None = None
    index: int | None = None
    begin: int | None = None
    handed: Tensor | None = None
    version: int = 0
    scaled: Tensor | None = None
    given: Tensor | None = None
    lent: int = 0
    evaluated: Tensor | None = None
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    scales: bool = False
    noised: bool = False
    rows: int = 0

    def hand(self, x: Tensor) -> Tensor:
        """Keep a state that the pipeline has, and may write to."""
        self.handed, self.version = x, version_of(x)
        return x

    def has(self, x: Tensor) -> bool:
        """Whether it is the state that the pipeline was given."""
        known = self.handed
        if known is None or version_of(known) != self.version:
            return False
        return x is known or (x.shape == known.shape and x.dtype == known.dtype and torch.equal(x, known))

    def unscaled(self, x: Tensor) -> Tensor:
        """The state of which a pipeline passes back what it got for the network."""
        known = self.given
        if known is None or self.scaled is None:
            return x
        if known is self.scaled and version_of(known) != self.lent:
            raise ScoreFnError("The network modified its input in place, which is the state; work on x.clone() inside.")
        return self.scaled if x is known or (x.shape == known.shape and torch.equal(x, known)) else x


class _Draws(Noise):
    """Draws of a generator, or of one for each sample, that is found when it is needed."""

    def __init__(self, find: Callable[[], torch.Generator | Sequence[torch.Generator] | None]) -> None:
        self.find = find

    def normal(self, like: Tensor) -> Tensor:
        """See `Noise.normal`."""
        generator = self.find()
        if isinstance(generator, Sequence):
            if len(generator) == 1:  # diffusers takes it for all samples
                return BatchNoise(generator[0]).normal(like)
            if len(generator) != len(like):
                raise InvalidArgumentError(
                    f"`generator` must be one generator, or one for each of the {len(like)} samples, got "
                    f"{len(generator)}."
                )
            return torch.cat([BatchNoise(g).normal(like[i : i + 1]) for i, g in enumerate(generator)])
        return BatchNoise(generator).normal(like)


class DiffusersScheduler(SchedulerMixin, ConfigMixin):
    r"""A method of this package in the place of a scheduler of diffusers.

    .. code-block:: python

        pipe.scheduler = DiffusersScheduler.from_config(
            pipe.scheduler.config, method="dpm_3m"
        )
        images = pipe(prompt, num_inference_steps=20).images

    The process, what the network predicts, its timesteps and the sampler's grid are those of the scheduler that the
    config belongs to (see `scoresde.interop.conventions`); the steps are those of ``solve(sde, model, x, grid=grid,
    method=method)``; where the method has no limit at the first or last level (without signal, or without noise), DDIM
    makes the step there. A pipeline calls the network once for each of ``timesteps``. A method that evaluates several
    times in a step has several of them per step: their number is `order`, and with methods that evaluate more often in
    their first steps there are more. Methods that cannot predict how often they will evaluate are refused.

    ``step`` returns the state after the step, or, within a step, the state at which the method wants the next
    evaluation. Where noise is added to a state before it is evaluated, `scale_model_input` does so. A pipeline that
    does not call that gets such states from ``step``; if the first evaluation is of this kind (``"shark"``, or EDM's
    churn from the first step on) it needs ``lead_in=True``, which adds a call whose output is not used.

    What the config says of a sampler's steps, beyond its grid and its limits of the data estimate, is an option of the
    method here: ``variance_type="fixed_large"`` is ``options={"variance": "large"}`` of ``"ancestral"``.

    A state that the pipeline changes between two steps (as in inpainting) is what the next step begins with. img2img,
    which leaves the first timesteps out, begins with the step there; a method that evaluates more often in its first
    steps then makes as many fewer steps.

    What `scoresde.tune`, `scoresde.fit_grid` or `scoresde.fit_solver` made for ``from_diffusers(pipe)`` is a method
    with its grid:

    .. code-block:: python

        model = from_diffusers(pipe)
        tuned = scoresde.tune(model.sde, model, 8, context=..., shape=(16, 4, 64, 64))
        pipe.scheduler = DiffusersScheduler.from_config(
            pipe.scheduler.config, method=tuned
        )
        images = pipe(prompt, num_inference_steps=8).images

    ``num_inference_steps`` must then be its number of evaluations, or of steps. With ``method="auto"`` it is the number
    of evaluations, any number; the method and the grid are those of ``solve``. The pipeline's noise is the state at
    the noisiest level, as in ``solve(model.sde, model, x, method=tuned)``; where the steps begin below that,
    `scale_model_input` and the first step change its size. Pipelines of flows do not call `scale_model_input`, and
    begin with noise that is about 0.3 % too large, unless ``lead_in=True``.

    Args:
        method: a name from `scoresde.methods`, ``"auto"``, what one of the three functions made, or its fields, as
            ``config`` has them; or a solver, such as one of your own, which a saved config cannot make again.
        source: the name of the scheduler whose config this is.
        options: fields of the method's class, as ``{"s_churn": 40}``.
        lead_in: see above.
        **config: the fields of the scheduler's config; ``config`` has them all.

    Attributes:
        timesteps: what the network gets as its times, ``(evaluations,)``.
        sigmas: :math:`\sigma/\alpha` at them, and at the end.
        times: the grid of the whole loop, float64.
        legs: the solves that it consists of, one after another, each a method and its grid; most have one.
        generator: the source of noise, or one for each sample, where the pipeline passes none to ``step``, or has not
            yet; torch's global one by default.
        order: evaluations per step.
        init_noise_sigma: the standard deviation of the noise that a pipeline draws, at the noisiest level.

    Raises:
        ImportError: diffusers is missing.
        InvalidArgumentError: a field of the config has no counterpart here, the method is adaptive or another
            library's, or was made for another process, or an argument does not fit.

    References:
        The schedulers and pipelines of diffusers 0.42. https://github.com/huggingface/diffusers
    """

    config_name = "scheduler_config.json"
    _compatibles = sorted(SCHEDULERS)

    def __init__(
        self,
        method: str | Solver | FittedGrid | Mapping[str, Any] = "dpm_3m",
        source: str = "DDIMScheduler",
        options: Mapping[str, Any] | None = None,
        lead_in: bool = False,
        **config: Any,
    ) -> None:
        given = {k: v for k, v in config.items() if not k.startswith("_")}
        self._record = _record_of(method)
        options = {} if options is None else options
        self._auto = method == "auto"
        self._solver = (
            choose(True, DEFAULT_EVALUATIONS, options).solver
            if self._auto
            else _solver_of(method if self._record is None else self._record, options)
        )
        self._name = method if isinstance(method, str) else self._solver.name
        check_flag("lead_in", lead_in)
        kept = repr(method) if isinstance(method, Solver) else method
        kept = kept if self._record is None else self._record.fields()
        self.register_to_config(**given, method=kept, source=source, options=dict(options), lead_in=lead_in)
        self._conventions = self._read()
        self.generator: torch.Generator | Sequence[torch.Generator] | None = None
        self.timesteps = torch.zeros(0)
        self.times = torch.zeros(0, dtype=torch.float64)
        self.num_inference_steps: int | None = None
        self._calls: list[_Call] = []
        self.legs: list[Leg] = []
        self._loop = _Loop()

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **arguments: Any) -> Any:
        """A scheduler with the config of another one, or with its own.

        Args:
            config: a scheduler, its config, or what ``scheduler_config.json`` holds.
            return_unused_kwargs: return a tuple, as diffusers does; nothing is unused.
            **arguments: ``method``, ``options``, ``lead_in``, ``source`` (needed where a config names a scheduler that
                is unknown here, or none and those of two schedulers look the same), and fields of the config to be
                changed.
        """
        name = type(config).__name__ if hasattr(config, "config") else None
        values = dict(getattr(config, "config", config) or {})
        name = values.pop("_class_name", None) or name
        values = {k: v for k, v in values.items() if not k.startswith("_")}
        if name in SCHEDULERS or (name is not None and "source" not in values):  # a name that is unknown is refused
            values["source"] = name
        values |= arguments
        scheduler = cls(**{**values, "source": values.get("source") or _most_like(values)})
        return (scheduler, {}) if return_unused_kwargs else scheduler

    def __getstate__(self) -> dict[str, Any]:
        """A copy begins with a loop of its own."""
        return {**vars(self), "_loop": _Loop()}

    def __len__(self) -> int:
        return int(self.config.get("num_train_timesteps", 1000))

    @property
    def order(self) -> int:
        """Evaluations per step."""
        return self._solver.evaluations

    @property
    def init_noise_sigma(self) -> float:
        """The standard deviation of the noise that a pipeline draws."""
        prior: Any = self._conventions.sde.prior
        return float(prior.std)

    @property
    def sigmas(self) -> Tensor:
        r""":math:`\sigma/\alpha` at the timesteps, and at the end."""
        end = [] if not len(self.times) else [self._conventions.sde.node(float(self.times[-1]))]
        nodes = [*(call.node for call in self._calls), *end]
        return torch.tensor([n.sigma / n.alpha if n.alpha else float("inf") for n in nodes])

    @property
    def step_index(self) -> int | None:
        """The place of the next evaluation among the timesteps; None before the loop."""
        return self._loop.index

    @property
    def begin_index(self) -> int | None:
        """Where a pipeline has said that it begins."""
        return self._loop.begin

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin with a later timestep, as image-to-image pipelines do. Where the method evaluates elsewhere if it
        begins there, the timesteps that follow change, also in a slice of them that a pipeline has taken."""
        self._loop.begin = begin_index
        if self._calls and begin_index > 0:
            self.times, self.legs, calls = self._later(begin_index)
            self._calls[begin_index:] = calls
            self.timesteps[begin_index:] = self.timesteps.new_tensor([call.label for call in calls])

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
        *,
        evaluations: int | None = None,
    ) -> None:
        """Prepare a loop.

        Args:
            num_inference_steps: the number of steps; of evaluations, with ``method="auto"``.
            device: of the timesteps.
            timesteps, sigmas: instead of it, the levels of as many steps; see `Conventions.grid`. A method with a grid
                of its own takes none but the even ones from 1 to 1/n that pipelines of flows always pass.
            mu: the shift of ``use_dynamic_shifting``, which a method with a grid of its own does not need.
            evaluations: instead of ``num_inference_steps``, the most calls of the network; the loop makes as many steps
                as they pay for.
        """
        self._record = None if self._auto else self._record
        self._conventions = self._read()
        levels, count = sigmas if timesteps is None else timesteps, None
        if evaluations is not None:
            if (num_inference_steps, levels) != (None, None):
                raise InvalidArgumentError("Give `evaluations`, or the steps, or their levels; one of them.")
            check_integer("evaluations", evaluations, low=1, high=MOST_STEPS)
        elif levels is None:
            count = check_integer("num_inference_steps", num_inference_steps, low=1, high=MOST_STEPS)
        elif num_inference_steps not in (None, len(levels)):
            raise InvalidArgumentError(
                f"`num_inference_steps` must be that of the levels given, {len(levels)}, or be left out, got "
                f"{num_inference_steps}."
            )
        if self._auto:
            times, legs, calls = self._chosen(evaluations or count or _count_of(timesteps, sigmas))
        elif self._record is None and evaluations is not None:
            times, legs, calls = self._paid(evaluations, lambda steps: self._conventions.grid(steps, mu=mu))
        elif self._record is None:
            times = self._conventions.grid(count, timesteps=timesteps, sigmas=sigmas, mu=mu)
            legs, calls = legs_of(self._solver, times, self._calls_on)
        else:
            times = torch.tensor(self._record.times, dtype=torch.float64)
            legs, calls = legs_of(self._solver, times, self._calls_on, ends=(False, False))
            asked = evaluations or count or _count_of(timesteps, sigmas)
            if asked not in (len(times) - 1, len(calls)):
                other = "" if len(calls) == len(times) - 1 else f", or {len(calls)}, that of its evaluations"
                raise InvalidArgumentError(
                    f"`num_inference_steps` must be {len(times) - 1}, the number of steps of `method`{other}, got "
                    f"{asked}."
                )
        self.times, self.legs, self._calls = times, legs, calls
        self.num_inference_steps = len(times) - 1
        labels = [call.label for call in self._calls]
        kind = torch.int64 if all(isinstance(label, int) for label in labels) else torch.float32
        self.timesteps = torch.tensor(labels, dtype=kind, device=device)
        self._loop = _Loop()

    def _paid(self, evaluations: int, times_for: Callable[[int], Tensor]) -> tuple[Tensor, list[Leg], list[_Call]]:
        """The most steps that so many evaluations pay for: their times, legs and evaluations."""
        for steps in range(self._solver.steps_for(evaluations, limits=2) + 2, 0, -1):
            times = times_for(steps)
            legs, calls = legs_of(self._solver, times, self._calls_on)
            if len(calls) <= evaluations:
                return times, legs, calls
        raise InvalidArgumentError(
            f"`evaluations` must be at least {len(calls)} for {self._name!r} here, got {evaluations}."
        )

    def _chosen(self, evaluations: int) -> tuple[Tensor, list[Leg], list[_Call]]:
        """The loop for which the rule of ``solve`` chooses the method and the grid, which become the record."""
        sde, unit = self._conventions.sde, unit_of(self._model(None).traits.data_std)
        choice = choose(True, evaluations, ())
        start = NoiseStart.of(sde, unit, choice.level) if choice.grid else None
        ends = sde.t_max if start is None else start.t, sde.t_min
        self._solver = choice.solver
        times, legs, calls = self._paid(evaluations, lambda steps: resolve(choice.grid_for(unit), sde, *ends, steps))
        self._record = FittedGrid(
            tuple(times.tolist()),
            method=to_text(choice.solver),
            process=repr(sde),
            from_noise=start is not None,
            data_scale=unit,
            log_snr=tuple(sde.log_snr(times).tolist()),
        )
        return times, legs, calls

    def index_for_timestep(self, timestep: float | Tensor, schedule_timesteps: Tensor | None = None) -> int:
        """The place of a timestep among those of the loop: the first of a step, if several are the same."""
        label = float(timestep)
        here = [i for i, value in enumerate(self.timesteps.tolist()) if value == label]
        if not here:
            raise InvalidArgumentError(f"`timestep` {label:g} is not one of this loop's: {self.timesteps.tolist()}.")
        return next((i for i in here if self._calls[i].first), here[0])

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """What the network gets for a state. It may be several copies of the batch, one after another, as for
        guidance; what is added to a state is the same for all copies."""
        loop, index = self._loop, self._now(timestep)
        call, loop.scales, loop.scaled = self._calls[index], True, sample
        if call.moved and not self._leads(index):
            rows, once = loop.rows or _rows_of(sample), _rows_of(sample)
            block = loop.scaled = sample[:rows]
            if loop.course is None:
                # drawn before `step` has the generator, from which the state was drawn
                loop.generator = self.generator or torch.Generator().manual_seed(int(digest(block)[:15], 16))
                loop.course = self._begun(block, index, doubled=False)
            elif loop.course.between and not loop.has(block):
                loop.course.x = loop.hand(block)
            moved = loop.course.ask().state
            sample = moved[:once].repeat(len(sample) // once, *(1,) * (sample.ndim - 1)).to(sample.dtype)
            loop.evaluated = None if torch.equal(moved, sample[:rows]) else sample[:rows]
        elif loop.course is None:
            sample = self._entered(sample).to(sample.dtype)
        loop.given = self._model(None).input_at(sample, call.node)
        loop.lent = version_of(loop.given)
        return loop.given

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        return_dict: bool = True,
        *,
        eta: float | None = None,
        use_clipped_model_output: bool | None = None,
        log_prob: bool = False,
        prev_sample: Tensor | None = None,
    ) -> Any:
        """Go on with what the network returned.

        For fine-tuning by reinforcement learning, ``log_prob=True`` also returns the log-density of the step, and with
        a ``prev_sample`` that an earlier loop returned, this is the density of that one instead: no loop is begun or
        goes on, timesteps may come in any order, and the density is differentiable in ``model_output``. Both are for
        methods with one evaluation per step that keep nothing from earlier steps, such as ``"ancestral"`` and
        ``"ddim_eta"``. For the others take `scoresde.paths` with ``from_diffusers(pipe)``.

        Args:
            model_output: that.
            timestep: the timestep.
            sample: the state that it was given for: what the last ``step`` returned, unless the pipeline changed it.
            generator: the source of noise, or one for each sample; by default the attribute of this name.
            eta, use_clipped_model_output: what DDIM's pipelines pass. The stochasticity is the method's: an ``eta``
                that is neither 0 nor the method's is refused. The step uses the data estimate within its limits.
            return_dict: return a `StepOutput`, otherwise a tuple with the state, and the log-density if it is wanted.
            log_prob: return the log-density of the step.
            prev_sample: the state after the step, of which the log-density is wanted.

        Raises:
            InvalidArgumentError: the method has no log-density of single steps, or another ``eta``.
        """
        check_flag("log_prob", log_prob)
        if eta and eta != getattr(self._solver, "eta", None):
            raise InvalidArgumentError(
                f"`eta`={eta:g} is not that of method={self._name!r}; make the scheduler with method='ddim_eta' and "
                f"options={{'eta': {eta:g}}}."
            )
        if prev_sample is not None:
            value = self._density(self.index_for_timestep(timestep), model_output, sample, prev_sample)
            return StepOutput(prev_sample, None, value) if return_dict else (prev_sample, value)
        loop, index = self._loop, self._now(timestep)
        sample, leads, denoised = loop.unscaled(sample), self._leads(index), None
        loop.generator = generator
        if loop.course is None:
            if self._calls[index].moved and not loop.scales:
                raise InvalidArgumentError(
                    f"method={self._name!r} does not begin with an evaluation of the state that it is given, "
                    "and this pipeline does not call `scale_model_input`; make the scheduler with lead_in=True."
                )
            loop.course = self._begun(sample, index, doubled=_doubled(model_output, sample))
        course = loop.course
        if not leads:
            evaluated = self._followed(course, sample)
            if not course.done:
                course.tell(model_output, evaluated)
            estimate = course.denoised if return_dict else None
            denoised = None if estimate is None else estimate.to(sample.dtype)
        loop.index = index + 1
        wants_state = course.done or (loop.scales and course.between and not leads)
        after = course.x if wants_state else course.ask().state
        with torch.inference_mode(False), torch.no_grad():  # which has no count of what is written to it
            handed = loop.hand(after.to(sample.dtype, copy=True))
        told = self._density(index, model_output, sample, handed) if log_prob else None
        if return_dict:
            return StepOutput(handed, denoised, told)
        return (handed,) if told is None else (handed, told)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        r""":math:`\alpha x_0 + \sigma\varepsilon` at some timesteps, one for all samples or one for each."""
        alpha, sigma = (v.to(original_samples) for v in self._alpha_sigma(timesteps, original_samples))
        if self._calls and self._loop.course is None:
            self._loop.noised |= self.timesteps[0].item() in torch.as_tensor(timesteps).flatten().tolist()
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise`, as pipelines of flows call it."""
        return self.add_noise(sample, noise, timestep)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        r""":math:`\alpha\varepsilon - \sigma x_0`, what a network that predicts v is trained with."""
        alpha, sigma = (v.to(sample) for v in self._alpha_sigma(timesteps, sample))
        return alpha * noise - sigma * sample

    def _alpha_sigma(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        own = self._record is not None and self._loop.scales  # whose states are those between the steps
        calls = list(zip(self.timesteps.tolist(), self._calls, strict=True))
        known = {label: call.begin if own and call.first else call.node.t for label, call in reversed(calls)}
        if calls:  # the loop begins with the state of its first step, wherever that is evaluated
            label, first = calls[self._loop.begin or 0]
            known[label] = first.begin
        labels = torch.as_tensor(timesteps).flatten()
        times = self._conventions.timestep.time(labels.cpu())
        found = [known.get(k, t) for k, t in zip(labels.tolist(), times.tolist(), strict=True)]
        nodes = self._conventions.sde.nodes(torch.tensor(found, dtype=torch.float64))
        shape = (-1, *(1,) * (like.ndim - 1))
        return nodes.alpha.view(shape), nodes.sigma.view(shape)

    def _read(self) -> Conventions:
        """The config, which a pipeline may have changed."""
        found = conventions({**self.config, "_class_name": self.config.source})
        if self._record is not None and not self._record.fits(found.sde):
            raise InvalidArgumentError(
                f"`method` was made for {self._record.process}, and the noise levels of the config, {found.sde!r}, are "
                "others; make it for model = from_diffusers(pipe), on model.sde."
            )
        return found

    def _density(self, index: int, output: Tensor, sample: Tensor, after: Tensor) -> Tensor:
        """The log-density of the state after a step."""
        leg = next(leg for leg in self.legs if float(leg.times[-1]) < self._calls[index].begin)
        single = leg.solver.evaluations == 1 and type(leg.solver).init is Solver.init
        if self.config.lead_in or not (single and self._solver.evaluations == 1):
            raise InvalidArgumentError(
                f"method={self._name!r} has no log-density of single steps, since its steps evaluate several times, or "
                "use earlier outputs; take 'ancestral' or 'ddim_eta', or scoresde.paths with from_diffusers(pipe)."
            )
        if not leg.solver.stochastic:  # DDIM, where the method has no limit
            return torch.zeros(len(sample), dtype=torch.float64, device=sample.device)
        begin = self._calls[index].begin
        times = torch.stack([leg.times[leg.times == begin][0], leg.times[leg.times < begin][0]])
        model = self._conventions.limit(self._model(lambda x, t: output, _doubled(output, sample)))
        return step_log_prob(self._conventions.sde, leg.solver, model, times, sample, after)

    def _now(self, timestep: Any) -> int:
        """The place of the evaluation that is made."""
        if not self._calls:
            raise InvalidArgumentError("There are no timesteps yet; call `set_timesteps` first.")
        if self._loop.index is None:
            self._loop.index = self._loop.begin if self._loop.begin is not None else self.index_for_timestep(timestep)
        if self._loop.index >= len(self._calls):
            raise InvalidArgumentError("The loop is over; call `set_timesteps` for another one.")
        return self._loop.index

    def _leads(self, index: int) -> bool:
        """Whether an evaluation is the one that is not used."""
        return bool(self.config.lead_in) and index == (self._loop.begin or 0)

    def _model(self, net: Any, doubled: bool = False) -> ScoreModel:
        """The network's conventions."""
        c = self._conventions
        net = _nothing if net is None else net
        return ScoreModel(
            net if c.gain == 1.0 else External(net, gain=c.gain),
            c.sde,
            c.prediction,
            c.time_input,
            chain=c.chain,
            sigma_data=c.sigma_data,
            variance="learned_range" if doubled else None,
        )

    def _course(self, legs: Sequence[Leg], x: Tensor, noise: Noise, doubled: bool = False) -> Course:
        """The solve of a loop."""

        def score(net: Any) -> Score:
            return self._conventions.limit(self._model(net, doubled))

        def begin(leg: Leg, x: Tensor) -> Stepper:
            return Stepper(self._conventions.sde, leg.solver, x, prediction=score, grid=leg.times, noise=noise)

        return Course(begin, legs, x.to(compute_dtype(x.dtype)))

    def _calls_on(self, legs: Sequence[Leg]) -> list[_Call]:
        """The evaluations of a solve."""
        noise = BatchNoise.seeded(0, torch.device("cpu"))
        x = noise.normal(torch.zeros(_ROWS, 1, 1, 1, dtype=torch.float64))
        doubled = getattr(self._solver, "variance", None) == "learned"
        course, calls = self._course(legs, x, noise, doubled), []
        while not course.done:
            first, state, begin = course.between, course.x, course.t
            question = course.ask()
            moved = first and not torch.allclose(question.state, state, rtol=_ROUNDING, atol=0.0)
            calls.append(_Call(question.node, question.t[0].item(), begin, first, moved))
            course.tell(torch.cat([0.5 * question.x] * 2, 1) if doubled else 0.5 * question.x)
        lead = [calls[0]._replace(moved=False)] if self.config.lead_in else []
        return [*lead, *calls]

    def _begun(self, x: Tensor, index: int, doubled: bool) -> Course:
        """The solve of a loop that begins with an evaluation."""
        if doubled and self._conventions.variance is None:
            raise InvalidArgumentError(
                "`model_output` has twice the channels of `sample`, but the config's `variance_type` does not say that "
                "half of them are a variance; pass the first half."
            )
        if index != (self._loop.begin or 0):
            raise InvalidArgumentError(
                f"The loop must begin with the first timestep, or call `set_begin_index` before: it begins with number "
                f"{index}."
            )
        self._loop.rows = len(x)
        self._loop.hand(x)
        state = self._entered(x) if self._loop.scales or self._leads(index) else x  # where the network has seen x
        draws = _Draws(lambda: self.generator if self._loop.generator is None else self._loop.generator)
        return self._course(self.legs, state, draws, doubled)

    def _entered(self, x: Tensor) -> Tensor:
        """The state that the first step begins with, of the one that a pipeline has: where that is the noise of the
        noisiest level and the step begins below it, it is scaled."""
        record, loop = self._record, self._loop
        if record is None or not record.from_noise or loop.noised or loop.begin:
            return x
        start = NoiseStart.at(self._conventions.sde, float(self.times[0]), record.data_scale or 1.0)
        return start.state(x.to(compute_dtype(x.dtype)))

    def _later(self, index: int) -> tuple[Tensor, list[Leg], list[_Call]]:
        """The grid of a loop that begins later, with as many steps as there are evaluations left for; its legs; and
        its evaluations, the last of which comes again where some are left over."""
        if isinstance(self._solver, Learned):
            raise InvalidArgumentError(
                "A solver of fit_solver makes all of its steps and cannot begin with a later one; take what tune or "
                "fit_grid made, or the name of a method."
            )
        t, left = self._calls[index].begin, len(self._calls) - index
        times = torch.cat([torch.tensor([t], dtype=torch.float64), self.times[self.times < t]])
        for steps in range(len(times) - 1, 0, -1):
            at = torch.linspace(0, len(times) - 1, steps + 1, dtype=torch.float64).round().long()
            legs, calls = legs_of(self._solver, times[at], self._calls_on)
            if len(calls) <= left:
                return times[at], legs, calls + calls[-1:] * (left - len(calls))
        raise InvalidArgumentError(
            f"method={self._name!r} needs more than the {left} evaluations that are left; take more steps."
        )

    def _followed(self, course: Course, sample: Tensor) -> Tensor | None:
        """Take over a state that the pipeline has changed: as the next step's beginning, or where the network was
        evaluated within a step, which is returned."""
        evaluated, self._loop.evaluated = self._loop.evaluated, None
        if course.done or self._loop.has(sample):
            return evaluated
        if sample.shape != course.x.shape:
            raise InvalidArgumentError(
                f"`sample` must keep its shape {tuple(course.x.shape)} in a loop, got {tuple(sample.shape)}. (In the "
                "first call, copies of the batch are taken for those of guidance; with lead_in=True they are not.)"
            )
        if course.between:
            course.x = sample
            return None
        return sample


def _nothing(x: Tensor, time: Tensor) -> Tensor:
    """Stands for a network that is not called."""
    return x


def _record_of(method: object) -> FittedGrid | None:
    """What was tuned, fitted or learned, or read from a config; None for the name of a method."""
    if isinstance(method, Mapping):
        return FittedGrid.of(method, "`method`")
    return method if isinstance(method, FittedGrid) else None


def _count_of(timesteps: Any, sigmas: Any) -> int:
    """How many steps levels stand for that a pipeline passes always."""
    n = 0 if sigmas is None else len(sigmas)
    even = torch.linspace(1, 1 / max(n, 1), n, dtype=torch.float64)
    if timesteps is not None or not torch.allclose(check_times("sigmas", sigmas, "numbers"), even):
        name = "sigmas" if timesteps is None else "timesteps"
        raise InvalidArgumentError(f"`{name}` follows from `method`, which has a grid; pass num_inference_steps.")
    return n


def _solver_of(method: Any, options: Mapping[str, Any]) -> Solver:
    """The method, or why it cannot be a scheduler."""
    check_kind("options", options, Mapping, "a mapping of names to values")
    if isinstance(method, FittedGrid):
        if options:
            raise InvalidArgumentError("`options` follow from `method`, which was made with its own; leave them out.")
        if not method.method:
            raise InvalidArgumentError("`method` is a grid without a method; pass the name of a method.")
        solver = from_config(method.method)
        name = solver.name
    else:
        known = "a name from scoresde.methods(), a solver, or what tune, fit_grid or fit_solver made"
        check_kind("method", method, (str, Solver), known)
        solver = make_solver(method, dict(options), ("method", "source", "options", "lead_in"))
        name = method if isinstance(method, str) else solver.name
    reasons = {
        "it chooses its steps as it goes, and the number of its evaluations is not known": solver.adaptive,
        "another library makes its steps": solver.kind == "backend",
        "it runs the process forwards": solver.kind == "forward",
    }
    for reason, holds in reasons.items():
        if holds:
            raise InvalidArgumentError(f"method={name!r} cannot be a scheduler: {reason}; take 'dpm_3m'.")
    return solver


def _most_like(config: Mapping[str, Any]) -> str:
    """The scheduler whose fields are most like those of a config that does not name it.

    Raises:
        InvalidArgumentError: none is like it, or several are and read it differently.
    """

    def likeness(name: str) -> int:
        own = set(SCHEDULERS[name].fields)
        return len(own & set(config)) - len(own - set(config))

    best = max(map(likeness, SCHEDULERS))
    first, *others = (name for name in SCHEDULERS if likeness(name) == best)
    if best <= 0:
        raise InvalidArgumentError(
            "The config is like that of no scheduler here; pass source='DDIMScheduler' or the like."
        )
    meant = SCHEDULERS[first]
    for name in others:
        other = SCHEDULERS[name]
        if (other.family, other.read(config)) != (meant.family, meant.read(config)):
            raise InvalidArgumentError(
                f"The config does not name its scheduler, which may be {first} or {name}; pass source={first!r} or the "
                "like, or the scheduler itself."
            )
    return first


def _doubled(output: Tensor, sample: Tensor) -> bool:
    return output.ndim > 1 and sample.ndim > 1 and output.shape[1] == 2 * sample.shape[1]


def _rows_of(sample: Tensor) -> int:
    """The size of the batch of which a tensor is one or several equal copies, one after another."""
    count = len(sample)
    for copies in (3, 2):
        rows = count // copies
        if rows * copies == count and torch.equal(sample[:rows].repeat(copies, *(1,) * (sample.ndim - 1)), sample):
            return rows
    return count
