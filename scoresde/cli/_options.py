"""Options that commands share: the network and its process, the solver and its steps; and what becomes of them: plans
of a solve, seeds, what a solve took.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.errors import InvalidArgumentError, check_choice
from ..core.support.registries import GRIDS, SDES, shipped
from ._run import QuietOptions, flag

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..core.sdes import AffineSDE
    from ..core.solution import Info
    from ..solvers import Solver
    from ..tuning import FittedGrid
    from ..zoo import Pretrained

AUTO, BUDGET = "auto", 25  # the method that chooses one, and its evaluations
RECORD = ".json"  # of what was tuned, fitted or learned
_WORDS = {"true": True, "false": False, "none": None}
_MASK = 0xFFFFFFFF
_SMALL = 65_536  # values per batch below which more than one thread costs more than it gains


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """A network, and the process to solve for it."""

    model: str = flag(
        "digits",
        "Name of a shipped model, directory of a saved model, or hf:owner/name@revision.",
        "--model",
        names=shipped(),
    )
    sde: str | None = flag(
        None,
        f"Forward process: {', '.join(SDES)}. Default: the process that the model was trained on. A model that "
        "serves every process, such as mnist, is on vp, but its own sampler, the default of `sample`, is on edm.",
        names=SDES,
    )
    device: str = flag("auto", "Device: auto, cpu, cuda, cuda:1, ...", names=("auto", "cpu", "cuda"))

    def opened(self) -> Opened:
        """The network, and the process to solve: the requested one, as far as the network covers it; else its own, or
        vp for one that serves every process.

        Example:
            >>> opened = NetworkOptions(device="cpu").opened()
            >>> opened.device, type(opened.process).__name__, opened.title, opened.event
            (device(type='cpu'), 'VPSDE', 'vp', (1, 8, 8))
        """
        asked = None if self.sde is None else make_sde(self.sde)
        where = make_device(self.device)
        from ..zoo import load

        network = load(self.model, device=where)
        own = getattr(network, "native", None)
        if asked is None:
            process = make_sde("vp") if own is None else own
        else:
            process = asked if own is None else network.process(asked)
        title = (self.sde or ("vp" if own is None else "its own process")).lower()
        return Opened(network, where, process, title, tuple(network.event_shape))


@dataclass(frozen=True, kw_only=True)
class ClassOptions(NetworkOptions):
    """A network for one class."""

    label: int | None = flag(None, "Class of all samples; default: no class.")


class Opened(NamedTuple):
    """A network with what is solved for it.

    Attributes:
        network, device: as they were loaded.
        process: to be solved.
        title: what to call it.
        event: the shape of a sample.
    """

    network: Any
    device: torch.device
    process: AffineSDE
    title: str
    event: tuple[int, ...]

    @property
    def of_digits(self) -> bool:
        """Whether the network was trained on the digits, which come with data to check it with."""
        return str(self.network.config.data).startswith("scikit-learn digits")

    def threads(self, batch: int) -> contextlib.AbstractContextManager[None]:
        """As many threads as batches of a size need."""
        return threads(self.device, batch * math.prod(self.event))


@dataclass(frozen=True, kw_only=True)
class MethodOptions(QuietOptions):
    """The options and the accuracy of a method, and how many samples it solves together."""

    option: list[str] | None = flag(
        None, "Option of the method, such as snr=0.16; repeatable.", "--option", metavar="KEY=VALUE"
    )
    rtol: float | None = flag(None, "Relative tolerance of an adaptive method.")
    atol: float | None = flag(None, "Absolute tolerance of an adaptive method.")
    seed: int = flag(0, "Seed; sample i depends on the seed and on i alone, not on the batch.", min=0)
    batch_size: int = flag(64, "Number of samples that are solved together; halved if memory is short.", min=1)

    @property
    def method_options(self) -> dict[str, Any]:
        """The options of the method."""
        return parse_options(self.option or [])


@dataclass(frozen=True, kw_only=True)
class SolveOptions(MethodOptions):
    """A method that may take fixed steps, too."""

    evaluations: int | None = flag(None, "Calls of the network per sample; the method makes as many steps as they pay.")
    steps: int | None = flag(None, "Steps of a fixed-step method; default 500 for pc, 50 for others.")
    grid: str | None = flag(None, f"Grid of a fixed-step method: {', '.join(GRIDS)}.", names=GRIDS)

    def plan(self, method: str, *, budget: bool = False) -> SolvePlan:
        """How to solve by a method, which decides on its evaluations if nothing else does and it has a ``budget``."""
        evaluations = self.evaluations
        if method == AUTO and self.steps is not None:
            self.say(f"With auto, --steps is --evaluations; pass --evaluations {self.steps}.", err=True)
            evaluations = self.steps if evaluations is None else evaluations
        elif budget and (self.evaluations, self.steps, self.rtol, self.atol) == (None,) * 4:
            evaluations = BUDGET
        steps = None if method == AUTO else self.steps
        return plan_of(method, steps, self.grid, self.method_options, evaluations)


def make_sde(name: str) -> AffineSDE:
    """A forward process with its defaults, by its short name.

    Example:
        >>> make_sde("ve").t_max
        1.0
        >>> make_sde("vpp")
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `sde`: unknown name 'vpp'; did you mean 'vp'? Known: cosine, ...
    """
    return SDES[check_choice("sde", name.lower(), SDES)]()


class SolvePlan(NamedTuple):
    """A solver with the other arguments of `scoresde.solve`.

    Attributes:
        name: the method's.
        steps: how many it takes, as far as that is known; None for the method's default.
        told: method, steps, grid and end, as arguments of `scoresde.solve`.
        shown: for the metadata, plain values.
        denoise: how it ends if nobody says; None leaves it to the output.
        model: the score function to solve with, made from the network's.
    """

    name: str
    solver: Solver
    steps: int | None
    told: Mapping[str, Any]
    shown: Mapping[str, object]
    denoise: bool | None = None
    model: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = lambda score_fn: score_fn


def plan_of(
    name: str, steps: int | None, grid: str | None, options: dict[str, object], evaluations: int | None = None
) -> SolvePlan:
    """The plan of a method with its options; ``auto`` chooses it, and the name of a file reads it.

    Example:
        >>> plan_of("ddim", 10, None, {}).told
        {'method': DDIM(), 'evaluations': None, 'steps': 10, 'grid': None}
        >>> plan_of("auto", None, None, {}, 20).steps
        20
    """
    from ..solvers import choose, make_solver

    if is_record(name):
        check_left_out(
            f"it follows from --method {name}", evaluations=evaluations, steps=steps, grid=grid, option=options or None
        )
        return record_plan(name, read_record(name))
    if name == AUTO:
        solver: Solver = choose(True, evaluations, options).solver  # the processes of a model are affine
    else:
        solver = make_solver(name, options)
    fixed = {"evaluations": evaluations, "steps": steps, "grid": grid}
    taken = steps if evaluations is None or solver.adaptive else solver.steps_for(evaluations)
    told = {"method": name if name == AUTO else solver, **fixed}
    return SolvePlan(name, solver, taken, told, {"method": name, "options": options, **fixed})


def record_plan(name: str, record: FittedGrid) -> SolvePlan:
    """The plan of what was tuned, fitted or learned, which the output then has.

    Example:
        >>> grid = scoresde.load("digits").grid(scoresde.VPSDE(), 10)
        >>> plan = record_plan("grid.json", grid)
        >>> scoresde.FittedGrid.of(plan.shown["record"], "the output") == grid
        True
    """
    from ..solvers import from_config

    shown = {"method": name, "steps": record.steps, "record": record.fields()}
    return SolvePlan(name, from_config(record.method), record.steps, {"method": record}, shown)


def saved_plan(network: Pretrained) -> SolvePlan | None:
    """The plan that a model came with, if it has one.

    Example:
        >>> saved_plan(scoresde.load("digits")) is None
        True
    """
    sampler = getattr(network.config, "sampler", None)
    if sampler is None:
        return None
    told = sampler.arguments(network.chain)
    for key in ("method", "denoise", *sampler.options):
        told.pop(key)
    plan = plan_of(sampler.method, sampler.steps, sampler.grid, dict(sampler.options), sampler.evaluations)
    if sampler.levels is None:
        told |= plan.told
    else:
        told["method"] = plan.told["method"]
        plan = plan._replace(steps=sampler.levels - 1)
    return plan._replace(told=told, shown=sampler.to_config(), denoise=sampler.denoise, model=sampler.model)


def is_record(method: str | None) -> bool:
    """Whether a method is a file of what was tuned, fitted or learned.

    Example:
        >>> is_record("tuned.json"), is_record("ddim")
        (True, False)
    """
    return method is not None and method.lower().endswith(RECORD)


def check_left_out(reason: str, hint: str = "", **given: Any) -> None:
    """Refuse options that another one leaves no room for.

    Example:
        >>> check_left_out("--tune chooses the grid", grid="karras")
        Traceback (most recent call last):
        ...
        scoresde.core.errors.InvalidArgumentError: `grid`: --tune chooses the grid; leave --grid out.
    """
    for name, value in given.items():
        if value is not None:
            raise InvalidArgumentError(f"`{name}`: {reason}; leave --{name.replace('_', '-')} out.{hint}")


def read_record(path: str) -> FittedGrid:
    """What `tune`, `fit_grid` or `fit_solver` made, from its file."""
    from ..tuning import FittedGrid

    if not Path(path).is_file():
        raise InvalidArgumentError(f"`method`: there is no file {path!r}; --tune --save-tuned {path} makes one.")
    record = FittedGrid.load(path)
    if not record.method:
        raise InvalidArgumentError(f"`method`: {path!r} has a grid and no method; use it from Python, as grid=.")
    return record


def check_named(method: str) -> None:
    """Refuse a file for what goes from data to noise."""
    if is_record(method):
        raise InvalidArgumentError(
            f"`method`: what is in {method!r} goes from noise to data; give a name of `scoresde methods`, such as "
            "adams."
        )


def check_process(path: str, record: FittedGrid, process: AffineSDE) -> None:
    """Refuse a record that was made for another process than the one to be solved."""
    if record.fits(process):
        return
    name = next((name for name, cls in SDES.items() if record.fits(cls())), None)
    first = "" if name is None else f"pass --sde {name}, or "
    raise InvalidArgumentError(
        f"`method`: {path!r} was made for {record.process}, but the process here is {process!r}; {first}make a file "
        f"for this one, with --tune --save-tuned {path}."
    )


def label_of(network: Pretrained, label: int | Tensor | None) -> dict[str, int | Tensor]:
    """The class label under the name that the network has for it.

    Example:
        >>> label_of(scoresde.load("digits"), 3)
        {'label': 3}
    """
    if label is None:
        return {}
    if network.labels is None:
        raise InvalidArgumentError("`label`: this model has no labels; leave the option out.")
    return {network.labels.name: label}


def source_of(network: Pretrained, model: str) -> str:
    """What an output records of what made it: the model as the command line names it, of a repository its commit.

    Example:
        >>> source_of(scoresde.load("digits"), "digits")
        'digits'
    """
    return getattr(network, "source", None) or model


def weights_of(network: Pretrained) -> str:
    """A digest of what a network is.

    Example:
        >>> len(weights_of(scoresde.load("digits")))
        64
    """
    tensors = sorted(network.net.state_dict().items())
    return digest([("config", repr(network.config).encode()), *tensors])


def digest(parts: Sequence[tuple[str, bytes | Tensor]]) -> str:
    """SHA-256 of names, texts and tensors with their types and shapes.

    Example:
        >>> one, two = (
        ...     digest([("a", torch.zeros(2, dtype=kind))])
        ...     for kind in (torch.int32, torch.int64)
        ... )
        >>> one != two
        True
    """
    import torch

    total = hashlib.sha256()
    content: bytes | memoryview
    for name, value in parts:
        if isinstance(value, bytes):
            kind, content = "bytes", value
        else:
            kind = f"{value.dtype} {tuple(value.shape)}"
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        total.update(f"{name} {kind} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` options; a value is a number, true, false, none, or else a word.

    Example:
        >>> parse_options(["snr=0.1", "moves=2", "predictor=ancestral"])
        {'snr': 0.1, 'moves': 2, 'predictor': 'ancestral'}
    """
    options: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key.isidentifier() and value):
            raise InvalidArgumentError(f"`option` must be key=value such as snr=0.1, got {text!r}.")
        if key in options:
            raise InvalidArgumentError(f"`option` {key!r} is given twice.")
        options[key] = _value(value)
    return options


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def make_device(name: str) -> torch.device:
    """A device that is there; ``auto`` is the best one.

    Example:
        >>> make_device("cpu")
        device(type='cpu')
    """
    from ..core.support.checks import best_device, check_device

    return best_device() if name == "auto" else check_device(name)


def sample_seeds(seed: int, start: int, count: int) -> list[int]:
    r"""Seeds of samples ``start`` to ``start + count - 1``: each a function of ``seed`` and the sample's index alone.

    The low 32 bits are :math:`m(m(i + k_0) \oplus k_1) + k_2 \bmod 2^{32}`, with keys k that numpy's ``SeedSequence``
    derives from ``seed``, and m the finaliser of MurmurHash3. All of these are one to one, so no two samples of a run
    share a seed, not even in the low 32 bits that torch's CPU generator uses. The high 32 bits are :math:`k_3`.

    Example:
        >>> sample_seeds(0, 0, 8)[5:] == sample_seeds(0, 5, 3)
        True
    """
    import numpy as np

    keys = [int(k) for k in np.random.SeedSequence(seed).generate_state(4)]
    return [
        keys[3] << 32 | (_mix(_mix(i + keys[0] & _MASK) ^ keys[1]) + keys[2]) & _MASK
        for i in range(start, start + count)
    ]


def _mix(h: int) -> int:
    h = (h ^ h >> 16) * 0x85EBCA6B & _MASK
    h = (h ^ h >> 13) * 0xC2B2AE35 & _MASK
    return h ^ h >> 16


@contextlib.contextmanager
def threads(device: torch.device, values: int) -> Iterator[None]:
    """One thread for small batches on the CPU, unless the environment sets their number.

    Threads that meet after every small operation gain little, and lose much where the cores are shared.
    """
    import torch

    before = torch.get_num_threads()
    if device.type == "cpu" and values <= _SMALL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def follow(
    show: Callable[[float], None] | None,
    solver: Solver,
    process: AffineSDE,
    steps: int | None,
    *,
    encodes: bool = False,
) -> Callable[[Info], None] | None:
    """A callback that shows how far a solve from one end of the interval to the other is."""
    if show is None:
        return None

    def seen(info: Info) -> None:
        if not solver.adaptive:
            return show(info.step / (steps or solver.default_steps))
        t = float(info.t.mean() if hasattr(info.t, "mean") else info.t)
        gone = (t - process.t_min) / (process.t_max - process.t_min)
        return show(gone if encodes else 1 - gone)

    return seen


def effort(plan: SolvePlan, nfe: Sequence[int]) -> str:
    """What a solve took, in words.

    Example:
        >>> effort(plan_of("heun", 10, None, {}), [20, 20])
        '10 steps, 20 evaluations per sample'
        >>> effort(plan_of("heun", None, None, {}, 21), [20, 20])
        '20 of 21 evaluations per sample'
    """
    wanted = plan.told.get("evaluations")
    if wanted is not None:
        return f"{span(nfe)} of {wanted} evaluations per sample"
    taken = "adaptive steps" if plan.solver.adaptive else f"{plan.steps or plan.solver.default_steps} steps"
    return f"{taken}, {span(nfe)} evaluations per sample"


def span(values: Sequence[int]) -> str:
    """From the least to the most.

    Example:
        >>> span([3, 3]), span([5, 3])
        ('3', '3 to 5')
    """
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
