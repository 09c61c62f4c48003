"""The path that follows a solve: its exact distribution under any queries, what it remembers, and what it refuses.

A path is linear in its draws. With draw k equal to one in sample k and zero in the others, sample k shows what draw k
does to every answer, and the covariance of the answers is a matrix product, without a random number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import scoresde
from scoresde.core.noise import BatchNoise, BrownianPath, CallableNoise, FollowedPath, Noise, SampleNoise, path_on

F64 = torch.float64
Interval = tuple[float, float]
CLOCKS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "time": None,
    "falling": lambda t: torch.exp(-5 * t),
    "rising": lambda t: t**3 + t,
}


class Impulses(Noise):
    """Draw k is one in sample k."""

    def __init__(self) -> None:
        self.count = 0

    def normal(self, like: Tensor) -> Tensor:
        z = torch.zeros_like(like)
        z[self.count] = 1.0
        self.count += 1
        return z


def covariance(make: Callable[[Noise], Noise], asked: Sequence[Interval]) -> Tensor:
    """Of the answers to queries, all samples asking the same."""
    path, like = make(Impulses()), torch.zeros(len(asked), 1, dtype=F64)
    answers = []
    for start, stop in asked:
        ends = (torch.full((len(asked),), t, dtype=F64) for t in (start, stop))
        answers.append(path.increment(*ends, like)[:, 0])
    response = torch.stack(answers)  # (answers, draws)
    return response @ response.mT


def exact(asked: Sequence[Interval], clock: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Unit increments of a Brownian motion: their intervals' common part over the roots of both lengths."""
    times = torch.tensor(asked, dtype=F64)
    v = (times if clock is None else clock(times)).sort(1).values
    common = torch.minimum(v[:, None, 1], v[None, :, 1]) - torch.maximum(v[:, None, 0], v[None, :, 0])
    length = (v[:, 1] - v[:, 0]).sqrt()
    return common.clamp_min(0) / (length[:, None] * length)


def journey(moves: Sequence[tuple[float, bool]], up: bool) -> list[Interval]:
    """The queries of a solve from 1 to 0 (``up``: from 0 to 1) whose trials go a share of what is left."""
    now, asked = 1.0, []
    for share, taken in moves:
        end = now * (1 - share)
        asked.append((1 - now, 1 - end) if up else (now, end))
        now = end if taken else now
    return asked


MOVES = st.lists(st.tuples(st.floats(0.02, 0.9), st.booleans()), min_size=1, max_size=14)


@settings(max_examples=40)
@given(moves=MOVES, up=st.booleans(), clock=st.sampled_from(sorted(CLOCKS)))
def test_every_journey_sees_a_brownian_motion(moves: list[tuple[float, bool]], up: bool, clock: str) -> None:
    """Rejected steps, shorter and longer ones after them, and steps beyond what was seen before."""
    asked = journey(moves, up)
    got = covariance(lambda source: FollowedPath(source, CLOCKS[clock]), asked)
    torch.testing.assert_close(got, exact(asked, CLOCKS[clock]), rtol=0, atol=1e-9)


REJECTIONS = [(1.0, 0.2), (1.0, 0.5), (1.0, 0.7), (0.7, 0.1), (0.7, 0.3), (0.3, 0.15), (0.3, 0.2), (0.2, 0.0)]


def test_the_path_is_a_brownian_motion_after_rejections_and_fresh_draws_are_not() -> None:
    class Redrawn(FollowedPath):
        """A defect: every trial has a new draw."""

        def increment(self, start: object, stop: object, like: Tensor) -> Tensor:
            return self.source.normal(like)

    right = exact(REJECTIONS, None)
    torch.testing.assert_close(covariance(FollowedPath, REJECTIONS), right, rtol=0, atol=1e-12)
    assert float((covariance(Redrawn, REJECTIONS) - right).abs().max()) > 0.1


def test_parts_add_up_to_the_step_that_was_rejected() -> None:
    path = FollowedPath(SampleNoise([1, 2, 3]), lambda t: torch.exp(-2 * t))
    like, one = torch.zeros(3, 2, dtype=F64), torch.ones(3, dtype=F64)
    nodes = [one, torch.tensor([0.9, 0.7, 0.5], dtype=F64), torch.tensor([0.6, 0.65, 0.2], dtype=F64), 0.1 * one]
    lengths = lambda a, b: (torch.exp(-2 * b) - torch.exp(-2 * a)).sqrt()[:, None]  # noqa: E731
    whole = path.increment(nodes[0], nodes[-1], like) * lengths(nodes[0], nodes[-1])
    parts = [path.increment(a, b, like) * lengths(a, b) for a, b in itertools.pairwise(nodes)]
    torch.testing.assert_close(sum(parts), whole, rtol=0, atol=1e-14)
    path, times = FollowedPath(SampleNoise([4])), [torch.tensor([t], dtype=F64) for t in (1.0, 0.4, 0.7)]
    first, _, again = (path.increment(times[0], times[k], like[:1]) for k in (1, 2, 1))
    assert torch.equal(first, again)  # as before


def test_a_sample_depends_on_its_own_seed_and_times_alone() -> None:
    """Bitwise, with mates that reject and accept otherwise, and after mates have left."""
    like = torch.zeros(3, 2, dtype=F64)
    starts = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.5, 1.0], [1.0, 0.5, 0.8]], dtype=F64)
    stops = torch.tensor([[0.5, 0.5, 0.2], [0.7, 0.3, 0.8], [0.6, 0.4, 0.1]], dtype=F64)
    whole = FollowedPath(SampleNoise([7, 8, 9]))
    together = [whole.increment(a, b, like) for a, b in zip(starts, stops, strict=True)]
    for i in range(3):
        alone = FollowedPath(SampleNoise([7 + i]))
        for k in range(3):
            got = alone.increment(starts[k, i : i + 1], stops[k, i : i + 1], like[:1])
            assert torch.equal(got[0], together[k][i])
    some = torch.tensor([2, 0])
    path = FollowedPath(SampleNoise([7, 8, 9]))
    path.increment(starts[0], stops[0], like)
    part = path.take(some)
    for k in (1, 2):
        assert torch.equal(part.increment(starts[k, some], stops[k, some], like[:2]), together[k][some])


def test_memory_holds_what_lies_ahead_only() -> None:
    path, like = FollowedPath(SampleNoise([0])), torch.zeros(1, 1, dtype=F64)
    now = torch.ones(1, dtype=F64)
    for k in range(300):
        if k % 3 == 0:
            path.increment(now, now - 0.003, like)
        path.increment(now, now - 0.002, like)
        now = now - 0.002
    assert max(v.numel() for v in vars(path).values() if isinstance(v, Tensor)) < 8


def test_a_step_from_nowhere_is_refused() -> None:
    path, like = FollowedPath(SampleNoise([1])), torch.zeros(1, 1, dtype=F64)
    path.increment(1.0, 0.5, like)
    with pytest.raises(scoresde.InvalidArgumentError, match="must begin where"):
        path.increment(0.7, 0.2, like)


def test_the_source_of_a_method() -> None:
    """A path for those that need one, with the same draws; a function has no k-th draw to give."""
    clock: Callable[[Tensor], Tensor] = lambda t: t * t  # noqa: E731
    plain, own = SampleNoise([1]), FollowedPath(SampleNoise([1]))
    assert path_on(None, plain, "x") is plain
    rebuilt = path_on(clock, own, "x")  # on the method's clock, not its own
    assert isinstance(rebuilt, FollowedPath) and rebuilt.source is own.source and rebuilt.clock is clock
    for source in (plain, BatchNoise()):
        made = path_on(clock, source, "x")
        assert isinstance(made, FollowedPath) and made.source is source and made.clock is clock
    tree = path_on(clock, BrownianPath([1], 0.0, 1.0), "x")
    assert isinstance(tree, BrownianPath) and tree.clock is clock
    with pytest.raises(scoresde.InvalidArgumentError, match=r"'x'.*BrownianPath"):
        path_on(clock, CallableNoise(lambda k, like: like), "x")
