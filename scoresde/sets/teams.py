"""Processes that make each shard together, because one network is spread over them."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Mapping
from typing import Any

_WAIT, _END = "wait", "end"


class Team(abc.ABC):
    """The first process of a team chooses the shards and writes them; all make them, with the same network calls.

    Attributes:
        leads: whether this process is the first.
        alone: whether there is no other.
        size: how many there are.
        failures: what the first one said in the end.
    """

    leads: bool
    alone: bool
    size: int
    failures: tuple[Mapping[str, Any], ...] = ()

    @abc.abstractmethod
    def agreed(self, digest: str) -> str:
        """One digest of all, of a network each of them has a part of."""

    @abc.abstractmethod
    def tell(self, shard: int, batch_size: int) -> None:
        """Say which shard is next, in batches of which size."""

    @abc.abstractmethod
    def wait(self) -> None:
        """Say that there is none at present, so that nobody waits in vain for a message."""

    @abc.abstractmethod
    def end(self, failures: tuple[Mapping[str, Any], ...]) -> None:
        """Say that the set is complete, and which samples failed."""

    @abc.abstractmethod
    def hear(self) -> tuple[int, int] | None:
        """The next shard and the size of its batches, None at the end."""


class Alone(Team):
    """A process that makes shards by itself.

    Example:
        >>> Alone().leads
        True
    """

    leads, alone, size = True, True, 1

    def agreed(self, digest: str) -> str:
        """See `Team.agreed`."""
        return digest

    def tell(self, shard: int, batch_size: int) -> None:
        """See `Team.tell`."""

    def wait(self) -> None:
        """See `Team.wait`."""

    def end(self, failures: tuple[Mapping[str, Any], ...]) -> None:
        """See `Team.end`."""

    def hear(self) -> tuple[int, int] | None:
        """See `Team.hear`; nobody says anything."""
        return None


class ProcessTeam(Team):
    """The processes of a group of `torch.distributed`.

    Args:
        group: the process group.
    """

    alone = False

    def __init__(self, group: Any) -> None:
        import torch.distributed as dist

        self.group, self._first = group, dist.get_global_rank(group, 0)
        self.leads, self.size = dist.get_rank(group) == 0, dist.get_world_size(group)

    def agreed(self, digest: str) -> str:
        """See `Team.agreed`."""
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, digest, group=self.group)
        return hashlib.sha256(" ".join(found).encode()).hexdigest()

    def tell(self, shard: int, batch_size: int) -> None:
        """See `Team.tell`."""
        self._share((shard, batch_size))

    def wait(self) -> None:
        """See `Team.wait`."""
        self._share(_WAIT)

    def end(self, failures: tuple[Mapping[str, Any], ...]) -> None:
        """See `Team.end`."""
        self._share(_END, failures)

    def hear(self) -> tuple[int, int] | None:
        """See `Team.hear`."""
        while (message := self._share(None)) == _WAIT:
            pass
        return None if message == _END else message

    def _share(self, message: Any, failures: tuple[Mapping[str, Any], ...] = ()) -> Any:
        import torch.distributed as dist

        shared: list[Any] = [message, failures]
        dist.broadcast_object_list(shared, src=self._first, group=self.group)
        self.failures = shared[1]
        return shared[0]
