"""What a process does for a set: how long it takes, and a log of it in lines of JSON."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .._display import Displayed

_EVERY = 10.0  # seconds between two lines that say how far a shard is


@dataclass(frozen=True, repr=False)
class Effort(Displayed):
    """What a process has done for a set.

    Attributes:
        samples: how many it made.
        evaluations: of the score, over its samples.
        seconds: from beginning to end, of which the others are parts.
        network: seconds in the network; NaN where they were not measured.
        solver: the other seconds of making samples.
        writing: seconds of making and writing files, which may go on beside the network's.
        waiting: seconds of waiting for other processes.
        peak_memory: the largest memory of the process in bytes, or on a GPU the largest allocated there; NaN where
            that is unknown.
    """

    samples: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    network: float = 0.0
    solver: float = 0.0
    writing: float = 0.0
    waiting: float = 0.0
    peak_memory: float = 0.0

    def _summary(self) -> dict[str, str]:
        return {name: f"{value:.6g}" for name, value in asdict(self).items()}


class Monitor:
    """What a process is doing for a set.

    Args:
        log: a file that gets a line of JSON for each event; several processes may write to it. Without one the network
            is not timed.
        rank, world: of the process.
        device: of the states; on a GPU timing the network waits for each evaluation to end.
        networks: to be timed.

    Example:
        >>> monitor = Monitor(None, 0, 1, torch.device("cpu"), ())
        >>> with monitor.time("waiting"):
        ...     pass
        >>> monitor.effort().waiting < 1
        True
    """

    def __init__(
        self,
        log: Path | None,
        rank: int,
        world: int,
        device: torch.device,
        networks: Iterable[torch.nn.Module],
    ) -> None:
        self.log, self.device = log, device
        self.samples = self.evaluations = 0
        self._who = {"rank": rank, "world": world}
        self._begin = self._said = time.perf_counter()
        self._seconds = dict.fromkeys(("making", "network", "writing", "waiting"), 0.0)
        self._networks = () if log is None else tuple(networks)

    @contextlib.contextmanager
    def time(self, what: str) -> Iterator[None]:
        """Count the seconds of a block as ``"making"`` samples, ``"writing"`` or ``"waiting"``."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[what] += time.perf_counter() - begin

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count the seconds in the networks."""
        begun: list[float] = []

        def now() -> float:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return time.perf_counter()

        def before(*call: object) -> None:
            begun.append(now())

        def after(*call: object) -> None:
            if begun:
                since = begun.pop()
                self._seconds["network"] += 0.0 if begun else now() - since  # a network inside another one

        hooks = [hook for net in self._networks for hook in _hooks(net, before, after)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def tell(self, event: str, **values: object) -> None:
        """Write a line; a log that can no longer be written does not stop the work."""
        if self.log is not None:
            line = {"event": event, "time": round(time.time(), 3), **self._who, **values}
            with contextlib.suppress(OSError), self.log.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")

    def progress(self, shard: int, of_shard: int, done: int, count: int) -> None:
        """Say how far the shard and the set are, unless that was said some seconds ago."""
        now = time.perf_counter()
        if now - self._said >= _EVERY:
            self._said = now
            self.tell("progress", shard=shard, samples_of_shard=of_shard, **self.rates(done, count))

    def rates(self, done: int, count: int) -> dict[str, float]:
        """How far the set is, at which rate this process makes samples, and the seconds that remain if all processes go
        on as they did."""
        rate = self.samples / max(time.perf_counter() - self._begin, 1e-9)
        others = rate * self._who["world"]
        remaining = {"seconds_remaining": round((count - done) / others, 1)} if others else {}
        return {"samples_done": done, "samples_of_set": count, "samples_per_second": round(rate, 4), **remaining}

    def end(self, effort: Effort, shards: int, failures: int) -> None:
        """Say what this process did, as the last of its lines."""
        numbers = {name: None if value != value else value for name, value in asdict(effort).items()}
        rate = effort.samples / max(effort.seconds, 1e-9)
        self.tell("end", shards_made=shards, failures_of_set=failures, samples_per_second=rate, **numbers)

    def effort(self) -> Effort:
        """What was done until now."""
        spent = self._seconds
        timed = bool(self._networks)
        return Effort(
            self.samples,
            self.evaluations,
            time.perf_counter() - self._begin,
            spent["network"] if timed else float("nan"),
            spent["making"] - spent["network"],
            spent["writing"],
            spent["waiting"],
            peak_memory(self.device),
        )


def _hooks(
    net: torch.nn.Module, before: Callable[..., None], after: Callable[..., None]
) -> list[torch.utils.hooks.RemovableHandle]:
    return [net.register_forward_pre_hook(before), net.register_forward_hook(after, always_call=True)]


def peak_memory(device: torch.device) -> float:
    """The most memory that this process had, in bytes: on a GPU what was allocated there; NaN where that is unknown.

    Example:
        >>> peak_memory(torch.device("cpu")) > 0
        True
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) if sys.platform == "darwin" else 1024.0 * most
