"""A model of the ranks that make a set of samples: discrete events, and the policy of `scoresde.sets`.

Each rank begins at a place of its own and walks through the shards that it does not know to be complete. At each shard
it looks for the record; where that is missing, it tries to take the lease. It computes the shard, or goes on; it writes
one while it computes the next. Where a walk has found nothing new, it waits. It ends when it knows all shards to be
complete, and rank 0 reads all files again before. A rank may die at any moment, and may come back. A lease of a rank
that died is taken over at once by a rank on the same host, and by others when they have seen it unchanged for the
patience.

Operations go to one file server, which serves them in their order at a limited rate.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

FREE, HELD, LEFT, DONE = range(4)  # of a shard; LEFT: its holder has died


class Cost(NamedTuple):
    """What something costs.

    Args:
        seconds: of the rank, if it need not wait for the file server.
        operations: at the file server.
    """

    seconds: float = 0.0
    operations: float = 0.0


@dataclass(frozen=True)
class Costs:
    """What a rank's actions cost.

    Args:
        start: seconds from its launch to its first look.
        compute: seconds of the batches of a shard.
        complete: a look at a shard that is complete.
        busy: a look at a shard that another rank makes.
        take: a look at a shard that nobody makes, with its lease.
        write: of a shard's files and record; with it the lease is given back.
        beat: a change of a lease.
        every: seconds between two of them.
        check: of reading a shard again.
        pack: seconds of those of `write` after which the lease is changed once more, if it is time.
        name: seconds for each name of a folder that is listed.
        rate: operations per second of the file server.
    """

    start: float
    compute: float
    complete: Cost
    busy: Cost
    take: Cost
    write: Cost
    beat: Cost
    check: Cost
    every: float = 5.0
    pack: float = 0.0
    name: float = 0.0
    rate: float = math.inf


@dataclass(frozen=True)
class Policy:
    """What ranks do; the defaults are what the package does.

    Args:
        patience: seconds until an unchanged lease is taken over.
        pause: seconds between two walks of which the first has found nothing new.
        listing: where a rank finds a complete shard that it has not made, it reads the names of all records once, in
            place of a look at each.
        divided: each rank reads its own part of the files again, in place of rank 0 all of them.
        overlap: whether a shard is written while the next one is computed.
        listed: seconds, at least, between two times at which a rank lists the records to show how far the set is; it
            does so after a batch, or where it finds a complete shard. None: never.
        batches: of a shard.
    """

    patience: float = 120.0
    pause: float = 0.2
    listing: bool = False
    divided: bool = False
    overlap: bool = True
    listed: float | None = None
    batches: int = 1


NAMES = 500  # of records, that an operation of a listing returns


class Death(NamedTuple):
    """What happens to ranks.

    Args:
        time: seconds from the launch.
        ranks: which of them die.
        back: seconds until they are started again; None: never.
        same: whether that is on the same host.
    """

    time: float
    ranks: tuple[int, ...]
    back: float | None = None
    same: bool = True


def deaths(
    chance: np.random.Generator, mean: float, horizon: float, ranks: int, group: int, back: float | None, same: bool
) -> list[Death]:
    """Deaths of groups of ranks, each at exponential times.

    Args:
        chance: which decides.
        mean: the mean time between the deaths of one group, in seconds.
        horizon: the end of the times.
        ranks: how many there are.
        group: how many of them die together.
        back, same: as of `Death`.
    """
    found = []
    for first in range(0, ranks, group):
        time = chance.exponential(mean)
        while time < horizon:
            found.append(Death(time, tuple(range(first, min(first + group, ranks))), back, same))
            if back is None:
                break
            time += back + chance.exponential(mean)
    return sorted(found)


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        made: seconds until the last shard was there; infinite if that did not happen.
        ended: seconds until the last rank has ended.
        checked: whether the files were read again.
        lost: seconds of ranks that worked on shards which were not written.
        deaths: of ranks.
        operations: at the file server, by kind.
        minutes: the operations of each minute.
    """

    made: float = math.inf
    ended: float = 0.0
    checked: bool = False
    lost: float = 0.0
    deaths: int = 0
    operations: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    minutes: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))


class Work(NamedTuple):
    """A shard, and since when a rank is at it."""

    shard: int
    began: float


@dataclass
class Rank:
    """A rank between two events."""

    number: int
    host: int
    life: int = 0
    alive: bool = False
    left: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int32))  # of this walk
    at: int = 0  # its place in it
    kept: list[np.ndarray] = field(default_factory=list)  # shards of it that are not complete
    news: bool = False  # whether this walk has found anything new
    seen: dict[tuple[int, int], float] = field(default_factory=dict)  # leases of ranks that died, and since when
    work: Work | None = None  # what it computes
    writing: Work | None = None
    until: float = 0.0  # when that is written
    listed: float = -math.inf  # when it listed the records last


class Run:
    """A run.

    Args:
        ranks, shards: how many there are.
        costs, policy: see there.
        deaths: what happens.
        group: ranks on a host.
        spread: standard deviation of the speed of ranks, relative.
        seed: of these speeds.
        most: looks that are made at once, with what is known at the first of them.
    """

    def __init__(
        self,
        ranks: int,
        shards: int,
        costs: Costs,
        policy: Policy | None = None,
        *,
        deaths: Iterable[Death] = (),
        group: int = 8,
        spread: float = 0.0,
        seed: int = 0,
        most: int = 1,
    ) -> None:
        self.costs, self.policy = costs, policy or Policy()
        self.shards, self.most = shards, most
        self.state = np.full(shards, FREE, dtype=np.int8)
        self.left_by: dict[int, tuple[int, int]] = {}  # shard: host and number of the death
        self.ranks = [Rank(number, number // group) for number in range(ranks)]
        self.slow = np.exp(spread * np.random.default_rng(seed).standard_normal(ranks))
        self.new_host = itertools.count(ranks)
        self.free = 0.0  # when the file server has served what it was sent
        self.missing = shards
        self.outcome = Outcome()
        self.events: list[tuple[float, int, int, int, Callable[[float, Rank], None]]] = []
        self.order = itertools.count()
        for rank in self.ranks:
            self.begin(0.0, rank)
        for death in deaths:
            for number in death.ranks:
                self.at(death.time, self.ranks[number], self.dying(death), life=-1)

    def run(self) -> Outcome:
        """From the launch to the end of the last rank."""
        while self.events:
            time, _, number, life, action = heapq.heappop(self.events)
            rank = self.ranks[number]
            if life in (-1, rank.life):
                action(time, rank)
        return self.outcome

    def at(self, time: float, rank: Rank, action: Callable[[float, Rank], None], life: int | None = None) -> None:
        """Plan an event, which does not happen if the rank dies before."""
        heapq.heappush(self.events, (time, next(self.order), rank.number, rank.life if life is None else life, action))

    def pay(self, now: float, *bills: tuple[str, Cost, float]) -> float:
        """When something is done that begins now: of each kind so many times. The server gets all of it now, since what
        comes later must not keep it from serving others before."""
        seconds = operations = 0.0
        for name, cost, times in bills:
            self.outcome.operations[name] += cost.operations * times
            operations += cost.operations * times
            seconds += cost.seconds * times
        self.free = max(self.free, now) + operations / self.costs.rate
        self.outcome.minutes[int(self.free // 60)] += operations
        return max(now + seconds, self.free)

    # Lives

    def begin(self, now: float, rank: Rank) -> None:
        first = rank.number * self.shards // len(self.ranks)
        rank.left = np.roll(np.arange(self.shards, dtype=np.int32), -first)
        rank.at, rank.kept, rank.seen, rank.work, rank.writing = 0, [], {}, None, None
        rank.alive, rank.news, rank.until, rank.listed = True, False, 0.0, -math.inf
        self.at(now + self.costs.start, rank, self.look)

    def dying(self, death: Death) -> Callable[[float, Rank], None]:
        def die(now: float, rank: Rank) -> None:
            if not rank.alive:
                return
            rank.alive, rank.life = False, rank.life + 1
            self.outcome.deaths += 1
            self.outcome.ended = max(self.outcome.ended, now)
            for work in filter(None, (rank.work, rank.writing)):
                self.state[work.shard] = LEFT
                self.left_by[work.shard] = rank.host, self.outcome.deaths
                self.outcome.lost += min(now - work.began, self.costs.compute)
            if death.back is not None:
                rank.host = rank.host if death.same else next(self.new_host)
                self.at(now + death.back, rank, self.begin)

        return die

    # Walks

    def look(self, now: float, rank: Rank) -> None:
        """Pass what cannot be taken, or take the shard at this place."""
        part = rank.left[rank.at : rank.at + self.most]
        if not len(part):
            self.walked(now, rank)
            return
        state = self.state[part]
        stop = self.takeable(now, rank, part, state)
        if stop == 0:
            self.take(now, rank, int(part[0]))
            return
        done = state[:stop] == DONE
        rank.news |= bool(done.any())
        rank.kept.append(part[:stop][~done])
        rank.at += stop
        found, held = int(done.sum()), int((~done).sum())
        listed = self.shown(rank, now) if found else 0
        if self.policy.listing and found:
            rest = rank.left[rank.at :]
            rank.left, rank.at = rest[self.state[rest] != DONE], 0
            found, listed = 1, 1
        bills = [("complete", self.costs.complete, found), ("busy", self.costs.busy, held)]
        self.at(self.pay(now, *bills, ("listing", self.listing(), listed)), rank, self.look)

    def takeable(self, now: float, rank: Rank, part: np.ndarray, state: np.ndarray) -> int:
        """The place of the first shard that the rank can take."""
        found = np.flatnonzero(state == FREE)
        stop = int(found[0]) if len(found) else len(part)
        for place in np.flatnonzero(state[:stop] == LEFT).tolist():
            host, death = self.left_by[int(part[place])]
            since = rank.seen.setdefault((int(part[place]), death), now)
            if host == rank.host or now - since >= self.policy.patience:
                return place
        return stop

    def shown(self, rank: Rank, *times: float) -> int:
        """How many times a rank lists the records to show how far the set is, if it has reason to at these times."""
        count = 0
        for time in times:
            if self.policy.listed is not None and time - rank.listed >= self.policy.listed:
                rank.listed, count = time, count + 1
        return count

    def listing(self) -> Cost:
        """Of the names of all records."""
        each, names = self.costs.complete, self.shards - self.missing
        operations = 1 + names / NAMES
        seconds = operations * each.seconds / each.operations if each.operations else 0.0
        return Cost(seconds + names * self.costs.name, operations)

    def walked(self, now: float, rank: Rank) -> None:
        """The next walk, or the end, when all is written."""
        if rank.until > now:
            self.at(rank.until, rank, self.walked)
            return
        kept = np.concatenate(rank.kept) if rank.kept else rank.left[:0]
        if not len(kept):
            self.finish(now, rank)
            return
        wait = 0.0 if rank.news else self.policy.pause
        rank.left, rank.at, rank.kept, rank.news = kept, 0, [], False
        self.at(now + wait, rank, self.look)

    # Work

    def take(self, now: float, rank: Rank, shard: int) -> None:
        self.state[shard] = HELD
        rank.work = Work(shard, now)
        seconds = self.costs.compute * self.slow[rank.number]
        batches = self.policy.batches
        listed = self.shown(rank, *(now + seconds * batch / batches for batch in range(1, batches + 1)))
        begin = self.pay(now, ("take", self.costs.take, 1), ("listing", self.listing(), listed))
        self.at(begin + seconds, rank, self.computed)

    def computed(self, now: float, rank: Rank) -> None:
        """Write what was computed, when what was computed before is written."""
        if rank.until > now:
            self.at(rank.until, rank, self.computed)
            return
        if rank.work is not None:
            beats = int((now + self.costs.pack - rank.work.began) / self.costs.every)
            self.pay(now, ("beat", self.costs.beat, beats))
        rank.writing, rank.work = rank.work, None
        rank.until = self.pay(now, ("write", self.costs.write, 1))
        self.at(rank.until, rank, self.written)
        rank.at += 1
        self.at(now if self.policy.overlap else rank.until, rank, self.look)

    def written(self, now: float, rank: Rank) -> None:
        if rank.writing is not None:
            self.state[rank.writing.shard] = DONE
            self.missing -= 1
        if not self.missing:
            self.outcome.made = now
        rank.writing, rank.news = None, True

    # The end

    def finish(self, now: float, rank: Rank) -> None:
        """Read files again, or end."""
        if self.policy.divided:
            self.check(now, rank, self.shards // len(self.ranks))
        elif rank.number == 0:
            self.check(now, rank, self.shards)
        else:
            self.end(now, rank)

    def check(self, now: float, rank: Rank, left: int) -> None:
        """Read so many shards again, in parts, so that others get their turn at the file server."""
        if not left:
            self.outcome.checked = True
            self.end(now, rank)
            return
        count = min(left, self.most)
        after = self.pay(now, ("check", self.costs.check, count))
        self.at(after, rank, lambda now, rank: self.check(now, rank, left - count))

    def end(self, now: float, rank: Rank) -> None:
        rank.alive = False
        self.outcome.ended = max(self.outcome.ended, now)
