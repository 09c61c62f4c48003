"""Independent draws: for the batch, for each sample, or given by a function."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidArgumentError, InvalidTypeError
from ..support.checks import (
    check_device,
    check_generator,
    check_integer,
    check_integers,
    check_kind,
    form,
    shown,
)
from ..support.declared import Kind, called, checked
from ..support.snapshot import pack, unpack
from ..support.tensors import Scalar
from .philox import ahead, normals, table

LARGEST_SEED = 2**64 - 1
LARGEST_INDEX = 2**63 - 1
NO_FLOAT64 = ("mps",)  # kinds of devices


class Noise(abc.ABC):
    """A source of standard normal draws.

    Example:
        >>> BatchNoise.seeded(0, torch.device("cpu")).normal(torch.zeros(2, 3)).shape
        torch.Size([2, 3])
    """

    whole_batch = False  # True: the source cannot draw for a part of the batch, so no sample may leave it

    @abc.abstractmethod
    def normal(self, like: Tensor) -> Tensor:
        """The next draw, a standard normal tensor of the shape, dtype and device of ``like``."""

    def increment(self, start: Scalar, stop: Scalar, like: Tensor) -> Tensor:
        """The Brownian increment over an interval of time, divided by the root of its length: standard normal.

        A step requests intervals that do not overlap, in order, so independent draws suffice; a source that keeps a
        path, such as `BrownianPath`, takes them from it.
        """
        return self.normal(like)

    def increment_and_mean(self, start: Scalar, stop: Scalar, like: Tensor) -> tuple[Tensor, Tensor]:
        r"""`increment`, and the mean over the interval of the path since its start, divided likewise:
        :math:`\frac1{|h|}\int(W_u-W_s)\,du/\sqrt{|h|} \sim N(\frac12 z, \frac1{12})` given the increment z."""
        z = self.increment(start, stop, like)
        return z, 0.5 * z + 12**-0.5 * self.normal(like)

    def begin(self) -> Noise:
        """The source as a solve begins with it; a stream continues where it stopped."""
        return self

    def take(self, rows: Tensor) -> Noise:
        """The same source for the given samples of the batch only."""
        return self

    def finish(self, done: Tensor) -> None:  # noqa: B027 - only streams of samples have something to note
        """The samples in ``done`` stay in the batch, but what is drawn for them in this solve is not used any more."""

    def state_dict(self) -> dict[str, Any]:
        """Where its draws have come to, in tensors, numbers and lists. Torch's global generator is not part of it."""
        state: dict[str, Any] = pack(self)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a source made from the same arguments was; a generator that was given is set back."""
        check_kind("state", state, Mapping, "what `state_dict` returned")
        unpack(state, self)


class BatchNoise(Noise):
    """One generator for the whole batch; None is torch's global generator.

    Example:
        >>> a = BatchNoise.seeded(7, torch.device("cpu")).normal(torch.zeros(2, 1))
        >>> b = BatchNoise.seeded(7, torch.device("cpu")).normal(torch.zeros(2, 1))
        >>> bool((a == b).all())
        True
    """

    @checked
    def __init__(self, generator: torch.Generator | None = None, *, batch: int = 0) -> None:
        self.generator = generator
        self._batch = batch  # of which samples are left out; 0 until it is known
        self._rows: Tensor | None = None  # the samples of the batch that are still drawn for, None for all

    @classmethod
    def seeded(cls, seed: int, device: torch.device) -> BatchNoise:
        """A generator of its own on ``device``."""
        seed = check_seed("seed", seed)
        device = check_device(device)
        if seed >= 2**32 and device.type == "cpu":  # torch's generator on the CPU takes 32 bits; keep the others
            seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        return cls(torch.Generator(device=device).manual_seed(seed))

    def normal(self, like: Tensor) -> Tensor:
        """See `Noise.normal`. A generator on the CPU serves states on any device."""
        generator = self.generator
        if self._rows is None and (generator is None or generator.device == like.device):
            self._batch = like.shape[0]
            return torch.empty_like(like, memory_format=torch.contiguous_format).normal_(generator=generator)
        device = like.device if generator is None else generator.device
        shape = like.shape if self._rows is None else (self._batch, *like.shape[1:])
        z = torch.randn(shape, generator=generator, dtype=like.dtype, device=device).to(like.device)
        self._batch = len(z)
        return z if self._rows is None else z[self._rows]

    def take(self, rows: Tensor) -> Noise:
        """See `Noise.take`. The whole batch is still drawn, so that the draws of those who stay do not change."""
        if not self._batch:  # nothing was drawn for the whole batch
            return self
        part = BatchNoise(self.generator)
        part._batch = self._batch
        part._rows = rows if self._rows is None else self._rows[rows]
        return part


class SampleNoise(Noise):
    r"""One stream per sample: a draw is a function of the sample's seed, of its index, and of the draw's number.

    The streams are those of `philox`, with the seed as key and the counter (block, draw, index): draws are made without
    a loop over samples, on the device of the state, in float64, and then cast. Neither the batch nor the sample's
    place in it changes them, nor does the dtype. On another kind of device they are made of the same integers, and
    differ in the last digits of float64.

    A solve begins with the first draw of each stream that was not used, so that one object serves several solves in
    turn. A sample that an adaptive method finishes early has used fewer draws than others, and its stream goes on from
    the last of its own. To draw by hand after such a solve, call `begin` first.

    Args:
        seeds: one seed per sample; with ``indices``, the seed of all of them.
        indices: one per sample, in a set that has one seed: sample i of the set is the same in whatever part of it is
            drawn. Without them the index is 0.

    Example:
        >>> both = SampleNoise([3, 4]).normal(torch.zeros(2, 5))
        >>> alone = SampleNoise([4]).normal(torch.zeros(1, 5))
        >>> bool((both[1] == alone[0]).all())
        True
        >>> part = SampleNoise(3, indices=range(100, 102)).normal(torch.zeros(2, 5))
        >>> bool((SampleNoise(3, indices=[101]).normal(torch.zeros(1, 5)) == part[1]).all())
        True
    """

    def __init__(self, seeds: int | Sequence[int] | Tensor, *, indices: Sequence[int] | Tensor | None = None) -> None:
        if indices is None:
            keys = check_seeds(seeds)
            samples = (0,) * len(keys)
        else:
            samples = check_integers("indices", indices, low=0, high=LARGEST_INDEX)
            keys = (check_seed("seeds", seeds),) * len(samples)
        self._keys, self._samples = table(keys), table(samples)
        self._next: int | np.ndarray = 0  # the first draw that is not in the block; (batch, 1) if they differ
        self._block = torch.zeros((len(self), 0))  # (batch, draws, *event): what is drawn and not yet used
        self._used = 0
        self._ends: np.ndarray | None = None  # once samples have left: where all streams of the whole have come to
        self._rows = np.arange(len(self))  # in the whole
        self._done: np.ndarray | None = None  # samples whose draws are not used any more

    def __len__(self) -> int:
        return len(self._keys)

    def normal(self, like: Tensor) -> Tensor:
        """See `Noise.normal`."""
        check_count(len(self), len(like))
        event, where = like.shape[1:], torch.device("cpu") if like.device.type in NO_FLOAT64 else like.device
        if self._block.shape[2:] != event:  # what was made for events of another shape
            self._go_to(self._place(), event)
        if self._used == self._block.shape[1]:
            size = event.numel()
            draws = torch.arange(ahead(len(self), size)) + torch.as_tensor(self._next)
            made = normals(self._keys.to(where), self._samples.to(where), draws, size)
            self._block, self._used = made.reshape(len(self), draws.shape[-1], *event), 0
            self._next = self._next + draws.shape[-1]
        self._used += 1
        self._note()
        return self._block[:, self._used - 1].to(like)

    def begin(self) -> Noise:
        """The streams, each from the first draw that was not used, by this source or by a part of it."""
        self._done = None
        if self._ends is not None:
            ends = self._ends[self._rows, None]
            self._go_to(ends if (ends != ends[:1]).any() else int(ends[:1].sum()), torch.Size())
        return self

    def take(self, rows: Tensor) -> Noise:
        """See `Noise.take`; the streams go on where they were."""
        self._share()
        part = SampleNoise([])
        keep = rows.cpu()
        part._keys, part._samples, part._rows = self._keys[keep], self._samples[keep], self._rows[keep.numpy()]
        part._block, part._used, part._ends = self._block[rows.to(self._block.device)], self._used, self._ends
        part._next = self._next if isinstance(self._next, int) else self._next[keep.numpy()]
        part._done = None if self._done is None else self._done[keep.numpy()]
        return part

    def finish(self, done: Tensor) -> None:
        """See `Noise.finish`; their streams go on from here in the next solve."""
        self._share()
        self._done = done.cpu().numpy()

    def _place(self) -> int | np.ndarray:
        """The number of the first draw that was not handed out."""
        return self._next - (self._block.shape[1] - self._used)

    def _go_to(self, place: int | np.ndarray, event: torch.Size) -> None:
        """Go on from other draws, of a shape."""
        self._next, self._block, self._used = place, torch.zeros((len(self), 0, *event)), 0

    def _share(self) -> None:
        """From now on, note where each stream has come to."""
        if self._ends is None:
            self._ends = np.zeros(len(self), dtype=np.int64)
        self._note()

    def _note(self) -> None:
        if self._ends is not None:
            known = self._ends[self._rows]
            place = np.maximum(np.ravel(self._place()), known)
            self._ends[self._rows] = place if self._done is None else np.where(self._done, known, place)


class CallableNoise(Noise):
    """Draws given by a function ``draw(k, like)``, k counting from 0 in order of use.

    Example:
        >>> CallableNoise(lambda k, like: torch.full_like(like, k)).normal(torch.zeros(1, 2))
        tensor([[0., 0.]])
    """

    whole_batch = True

    @checked
    def __init__(self, draw: Annotated[Callable[[int, Tensor], Tensor], called("draw(k, like)")]) -> None:
        self.draw = draw
        self.count = 0

    def normal(self, like: Tensor) -> Tensor:
        """See `Noise.normal`."""
        z = self.draw(self.count, like)
        if not isinstance(z, Tensor) or z.dtype.is_complex or z.shape != like.shape:
            raise InvalidArgumentError(f"`noise` must return a tensor of shape {tuple(like.shape)}, got {form(z)}.")
        self.count += 1
        return z.to(like).view_as(z)  # a tensor of its own, even if the function returns the same one twice


def check_seed(name: str, seed: object) -> int:
    """Return a seed that torch takes: an integer in [0, 2^64).

    Example:
        >>> check_seed("seed", 7)
        7
    """
    return check_integer(name, seed, low=0, high=LARGEST_SEED)


Seed = Annotated[int, Kind(check_seed)]


def check_seeds(seeds: object) -> tuple[int, ...]:
    """Return one seed or more that torch takes, or say what is wrong with them."""
    return tuple(check_seed(f"seeds[{i}]", seed) for i, seed in enumerate(check_integers("seeds", seeds, low=0)))


def check_count(seeds: int, batch: int) -> None:
    """Refuse a number of seeds that is not that of the samples."""
    if seeds != batch:
        raise InvalidArgumentError(f"`seeds` must have one entry per sample: {batch} samples, {seeds} seeds.")


def resolve(
    *,
    seed: int | None,
    seeds: Sequence[int] | Tensor | None,
    generator: torch.Generator | None,
    noise: Noise | Callable[[int, Tensor], Tensor] | None,
    device: torch.device,
    batch: int,
) -> Noise:
    """Turn the arguments of `scoresde.solve` into one source; more than one of them is an error.

    Example:
        >>> options = {
        ...     "seeds": None,
        ...     "generator": None,
        ...     "noise": None,
        ...     "device": torch.device("cpu"),
        ...     "batch": 2,
        ... }
        >>> type(resolve(seed=0, **options)).__name__
        'BatchNoise'
    """
    given = {"seed": seed, "seeds": seeds, "generator": generator, "noise": noise}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise InvalidArgumentError(f"Give at most one of seed, seeds, generator, noise; got {', '.join(named)}.")
    if seed is not None:
        return BatchNoise(BatchNoise.seeded(check_seed("seed", seed), device).generator, batch=batch)
    if seeds is not None:
        several = isinstance(seeds, Sequence | np.ndarray | Tensor) and not isinstance(seeds, str | bytes)
        if not several or getattr(seeds, "ndim", 1) != 1:
            raise InvalidTypeError(
                f"`seeds` must be a sequence of integers, one per sample, got {shown(seeds)}; one seed for all is "
                f"`seed=`."
            )
        source = SampleNoise(seeds)
        check_count(len(source), batch)
        return source
    if noise is not None:
        if isinstance(noise, Noise):
            return noise.begin()
        if not callable(noise):
            raise InvalidTypeError(
                f"`noise` must be a Noise or a callable (k, like) -> tensor, got {type(noise).__name__}."
            )
        return CallableNoise(noise)
    check_generator(generator, "pass an integer as `seed=`")
    if generator is not None and generator.device.type not in ("cpu", device.type):
        raise InvalidArgumentError(
            f"`generator` is on {generator.device}, the state on {device}; make one on {device} or on the CPU."
        )
    return BatchNoise(generator, batch=batch)
