"""Values of options: processes and methods by name, plans of a solve, solver options, devices, seeds; and what a solve
took.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.errors import InvalidArgumentError, check_choice
from ..core.support.registries import SDES
from ._tuned import check_left_out, is_record, read_record

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..core.sdes import AffineSDE
    from ..core.solution import Info
    from ..solvers import Solver
    from ..tuning import FittedGrid
    from ..zoo import Pretrained
    from ._batches import Show
    from ._data import Data

_WORDS = {"true": True, "false": False, "none": None}
_MASK = 0xFFFFFFFF
_SMALL = 65_536  # values per batch below which more than one thread costs more than it gains


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
    return SDES[check_choice("sde", name, SDES)]()


class Chosen(NamedTuple):
    """A method, as it is shown and as it is passed on.

    Attributes:
        solver, steps: the method, and how many steps it takes, None for its default.
        told: method, steps and grid, as arguments of `scoresde.solve`.
    """

    solver: Solver
    steps: int | None
    told: dict[str, Any]


def choose_method(name: str, steps: int | None, grid: str | None, options: dict[str, object]) -> Chosen:
    """The method of a name with its options; ``auto`` chooses it, and the name of a file reads it.

    Example:
        >>> (
        ...     choose_method("ddim", 10, None, {}).solver,
        ...     choose_method("auto", 20, None, {}).steps,
        ... )
        (DDIM(), 20)
    """
    from ..solvers import choose, make_solver

    if name == "auto":
        choice = choose(True, steps, options)  # the processes of a model are affine
        return Chosen(choice.solver, choice.steps, {"method": name, "steps": steps, "grid": grid})
    if is_record(name):
        check_left_out(f"it follows from --method {name}", steps=steps, grid=grid, option=options or None)
        return chosen_by(read_record(name))
    solver = make_solver(name, options)
    return Chosen(solver, steps, {"method": solver, "steps": steps, "grid": grid})


def chosen_by(record: FittedGrid) -> Chosen:
    """The method of what was tuned, fitted or learned.

    Example:
        >>> chosen_by(scoresde.load("digits").grid(scoresde.VPSDE(), 10)).steps
        10
    """
    from ..solvers import from_config

    return Chosen(from_config(record.method), record.steps, {"method": record})


class SolvePlan(NamedTuple):
    """A solver with the other arguments of `scoresde.solve`.

    Attributes:
        name: the method's.
        steps: how many it takes, None for the method's default.
        told: method, steps, grid and end, as arguments of `scoresde.solve`.
        denoise: how it ends if nobody says; None leaves it to the output.
        shown: for the metadata, plain values.
        model: the score function to solve with, made from the network's.
    """

    name: str
    solver: Solver
    steps: int | None
    told: Mapping[str, Any]
    denoise: bool | None
    shown: Mapping[str, object]
    model: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = lambda score_fn: score_fn


def plan_of(name: str, steps: int | None, grid: str | None, options: dict[str, object]) -> SolvePlan:
    """The plan of a command line.

    Example:
        >>> plan_of("ddim", 10, None, {}).told
        {'method': DDIM(), 'steps': 10, 'grid': None}
    """
    chosen = choose_method(name, steps, grid, options)
    if is_record(name):
        return record_plan(name, chosen.told["method"])
    shown = {"method": name, "options": options, "steps": chosen.steps, "grid": grid}
    return SolvePlan(name, *chosen, None, shown)


def record_plan(name: str, record: FittedGrid) -> SolvePlan:
    """The plan of what was tuned, fitted or learned, which the output then has.

    Example:
        >>> grid = scoresde.load("digits").grid(scoresde.VPSDE(), 10)
        >>> plan = record_plan("grid.json", grid)
        >>> scoresde.FittedGrid.of(plan.shown["record"], "the output") == grid
        True
    """
    chosen = chosen_by(record)
    return SolvePlan(name, *chosen, None, {"method": name, "steps": chosen.steps, "record": record.fields()})


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
    chosen = choose_method(sampler.method, sampler.steps, sampler.grid, dict(sampler.options))
    if sampler.levels is None:
        told |= chosen.told
        steps = chosen.steps
    else:
        told["method"] = chosen.told["method"]
        steps = sampler.levels - 1
    return SolvePlan(sampler.method, chosen.solver, steps, told, sampler.denoise, sampler.to_config(), sampler.model)


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


def labelled(
    network: Any, process: AffineSDE, label: int | None, data: Data
) -> tuple[Callable[..., Tensor], Callable[[Tensor | slice], dict[str, Any]]]:
    """The score function for one class, and the context of some rows of data with a class each.

    Example:
        >>> from scoresde.cli._data import Data
        >>> data = Data(
        ...     torch.zeros(3, 1, 8, 8), ["a", "b", "c"], labels=torch.tensor([4, 1, 7])
        ... )
        >>> score_fn, context_of = labelled(
        ...     scoresde.load("digits"), scoresde.VPSDE(), None, data
        ... )
        >>> context_of(slice(1, 3))
        {'label': tensor([1, 7])}
    """
    if label is not None and data.labels is not None:
        raise InvalidArgumentError("`labels` gives each sample its class; leave --label out.")
    known: dict[str, Any] = label_of(network, data.labels)
    if data.labels is not None:
        _check_classes(data.labels, data, network.labels.count)
    score_fn = network.score(process, **label_of(network, label))
    return score_fn, lambda rows: {name: value[rows] for name, value in known.items()}


def _check_classes(labels: Tensor, data: Data, count: int) -> None:
    """Refuse labels that are no classes of a model, before anything is evaluated."""
    if data.folders not in (None, count):
        raise InvalidArgumentError(
            f"`labels`: the images are in {data.folders} folders, but the model has {count} classes; give a folder for "
            "each, in the order of its training."
        )
    wrong = ((labels < 0) | (labels >= count)).nonzero()[:5, 0].tolist()
    if wrong:
        shown = ", ".join(f"{int(labels[i])} for sample {data.names[i]}" for i in wrong)
        raise InvalidArgumentError(f"`labels` must be classes of the model, 0 to {count - 1}, got {shown}.")


def source_of(network: Pretrained, model: str) -> str:
    """What an output says that it was made with: the model as the command line names it, of a repository its commit.

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
    from ._data import digest

    tensors = sorted(network.net.state_dict().items())
    return digest([("config", repr(network.config).encode()), *tensors])


def open_model(model: str, device: str, sde: str | None) -> tuple[Any, torch.device, AffineSDE, str, tuple[int, ...]]:
    """A model as a command line names it, and the process to solve for it: the requested one, as far as the model
    covers it; else that of the model, or vp for one that serves every process.

    Args:
        model, device, sde: their names.

    Returns:
        The network, its device, the process, what to call the process, and the shape of a sample.

    Example:
        >>> _, where, process, title, event = open_model("digits", "cpu", None)
        >>> where, type(process).__name__, title, event
        (device(type='cpu'), 'VPSDE', 'vp', (1, 8, 8))
    """
    asked = None if sde is None else make_sde(sde)
    where = make_device(device)
    from ..zoo import load

    network = load(model, device=where)
    own = getattr(network, "native", None)
    if asked is None:
        process = make_sde("vp") if own is None else own
    else:
        process = asked if own is None else network.process(asked)
    title = sde or ("vp" if own is None else "its own process")
    return network, where, process, title, tuple(network.event_shape)


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
    """One thread for small batches on the CPU, unless the environment says how many.

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
    show: Show | None, solver: Solver, process: AffineSDE, steps: int | None, *, encodes: bool = False
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


def effort(solver: Solver, steps: int | None, nfe: Sequence[int]) -> str:
    """What a solve took, in words.

    Example:
        >>> from scoresde.solvers import make_solver
        >>> effort(make_solver("heun", {}), 10, [20, 20])
        '10 steps, 20 evaluations per sample'
    """
    taken = "adaptive steps" if solver.adaptive else f"{steps or solver.default_steps} steps"
    return f"{taken}, {span(nfe)} evaluations per sample"


def span(values: Sequence[int]) -> str:
    """From the least to the most.

    Example:
        >>> span([3, 3]), span([5, 3])
        ('3', '3 to 5')
    """
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
