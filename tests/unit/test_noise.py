"""Noise sources: what a seed fixes, the order of draws, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scoresde import BatchNoise, CallableNoise, InvalidArgumentError, InvalidTypeError, SampleNoise, ScoreSDEError
from scoresde.core.noise import FollowedPath, Noise, check_seed, resolve
from scoresde.core.noise.philox import normals, table

F64 = torch.float64
CPU = torch.device("cpu")
SEEDS = st.integers(0, 2**64 - 1)
EVENTS = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


def sequence(source: Noise, shape: tuple[int, ...], count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.stack([source.normal(torch.zeros(shape, dtype=dtype)) for _ in range(count)])


def test_batch_noise_is_the_stream_of_its_generator() -> None:
    got = sequence(BatchNoise.seeded(3, CPU), (2, 3), 4)
    generator = torch.Generator().manual_seed(3)
    wanted = torch.stack([torch.randn(2, 3, dtype=torch.float64, generator=generator) for _ in range(4)])
    assert torch.equal(got, wanted)
    assert not torch.equal(got, sequence(BatchNoise.seeded(4, CPU), (2, 3), 4))


def test_a_seed_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    sequence(BatchNoise.seeded(3, CPU), (2, 3), 3)
    sequence(SampleNoise([1, 2]), (2, 3), 3)
    assert torch.equal(torch.random.get_rng_state(), before)


@given(seeds=st.lists(SEEDS, min_size=1, max_size=6), event=EVENTS, count=st.integers(1, 4), data=st.data())
@settings(max_examples=30)
def test_a_sample_depends_on_its_seed_alone(
    seeds: list[int], event: tuple[int, ...], count: int, data: st.DataObject
) -> None:
    together = sequence(SampleNoise(seeds), (len(seeds), *event), count)
    order = data.draw(st.lists(st.integers(0, len(seeds) - 1), min_size=1, max_size=6))  # permuted, repeated, left out
    picked = sequence(SampleNoise([seeds[i] for i in order]), (len(order), *event), count)
    assert torch.equal(picked, together[:, order])
    for dtype in (torch.float32, torch.bfloat16):
        narrow = sequence(SampleNoise(seeds), (len(seeds), *event), count, dtype)
        assert torch.equal(narrow, together.to(dtype))


def test_draws_do_not_depend_on_how_many_are_made_at_once() -> None:
    for size in (1, 1500, 5000, 50_000):
        one, two = (sequence(SampleNoise(seeds), (len(seeds), size), 5) for seeds in ([7], [6, 7]))
        assert torch.equal(one[:, 0], two[:, 1])
        assert len(set(one[:, 0, 0].tolist())) == 5


def test_draws_are_the_streams_by_counter() -> None:
    z = sequence(SampleNoise([9, 2**64 - 1]), (2, 3), 100)
    assert torch.equal(z, normals(table([9, 2**64 - 1]), table([0, 0]), torch.arange(100), 3).transpose(0, 1))
    z = sequence(SampleNoise(9, indices=[4, 2**63 - 1]), (2, 3), 3)
    assert torch.equal(z, normals(table([9, 9]), table([4, 2**63 - 1]), torch.arange(3), 3).transpose(0, 1))


def test_a_draw_is_a_function_of_its_number_whatever_came_before() -> None:
    """Draws that were made for events of another shape are not used, and not skipped."""
    source = SampleNoise([1, 2])
    like = torch.zeros(2, 5, dtype=torch.float64)
    assert SampleNoise([]).begin().normal(torch.zeros(0, 3)).shape == (0, 3) and len(source) == 2
    drawn = [source.normal(like[:, :width]) for width in (5, 3, 5, 5, 2)]
    whole = sequence(SampleNoise([1, 2]), (2, 5), 5)
    for k, z in enumerate(drawn):
        assert torch.equal(z, whole[k, :, : z.shape[1]])


def test_a_part_of_a_set_is_that_part() -> None:
    whole = sequence(SampleNoise(7, indices=range(100)), (100, 2, 3), 3)
    assert len({tuple(row) for row in whole.flatten(2).flatten(0, 1).tolist()}) == 300
    for part in (range(40, 60), [99], torch.tensor([5, 3, 5])):
        got = sequence(SampleNoise(7, indices=part), (len(part), 2, 3), 3)
        assert torch.equal(got, whole[:, [int(i) for i in part]])
    assert torch.equal(sequence(SampleNoise(7, indices=[0]), (1, 3), 2), sequence(SampleNoise([7]), (1, 3), 2))


def test_samples_may_leave_the_batch() -> None:
    whole = sequence(SampleNoise([1, 2, 3]), (3, 2), 4)
    source = SampleNoise([1, 2, 3])
    first = sequence(source, (3, 2), 2)
    rest = sequence(source.take(torch.tensor([2, 0])), (2, 2), 2)
    assert torch.equal(first, whole[:2])
    assert torch.equal(rest, whole[2:][:, [2, 0]])
    whole = sequence(BatchNoise.seeded(0, CPU), (3, 2), 4)
    batch = BatchNoise.seeded(0, CPU)
    first = sequence(batch, (3, 2), 2)
    rest = sequence(batch.take(torch.tensor([2, 1])).take(torch.tensor([0])), (1, 2), 2)
    assert torch.equal(first, whole[:2])
    assert torch.equal(rest, whole[2:][:, [2]])
    assert [s.whole_batch for s in (source, batch, CallableNoise(lambda k, like: like))] == [False, False, True]


def test_a_solve_begins_where_each_stream_has_come_to() -> None:
    """Whoever has drawn from it: the source, or parts of it. No draw is made twice, and none is skipped."""
    whole = sequence(SampleNoise([1, 2, 3]), (3, 2), 12)
    source = SampleNoise([1, 2, 3])
    sequence(source, (3, 2), 2)
    part = source.take(torch.tensor([2, 0]))
    sequence(part, (2, 2), 3)
    sequence(part.take(torch.tensor([1])), (1, 2), 2)
    counts = [7, 2, 5]
    assert source.begin() is source
    for extra in (0, 1, 2):
        z = source.normal(torch.zeros(3, 2, dtype=F64))
        assert torch.equal(z, torch.stack([whole[n + extra, i] for i, n in enumerate(counts)]))
    rest = source.take(torch.tensor([1])).normal(torch.zeros(1, 2, dtype=F64))
    assert torch.equal(rest, whole[5, [1]])
    narrow = source.begin().normal(torch.zeros(3, 1, dtype=F64))
    assert torch.equal(narrow, torch.stack([whole[n, i, :1] for i, n in enumerate((10, 6, 8))]))
    path = FollowedPath(SampleNoise([1, 2, 3]))  # a path begins where its source does
    path.take(torch.tensor([2])).normal(torch.zeros(1, 2))
    wanted = torch.stack([whole[n, i] for i, n in enumerate((0, 0, 1))])
    assert torch.equal(path.begin().normal(torch.zeros(3, 2, dtype=F64)), wanted)
    again = SampleNoise([1, 2, 3])
    again.load_state_dict(source.state_dict())
    assert torch.equal(again.normal(torch.zeros(3, 2, dtype=F64)), source.normal(torch.zeros(3, 2, dtype=F64)))


def test_streams_that_were_shared_in_inference_mode_go_on_outside() -> None:
    source = SampleNoise([1, 2, 3])
    with torch.inference_mode():
        source.normal(torch.zeros(3, 2))
        source.finish(torch.tensor([True, False, False]))
        sequence(source.take(torch.tensor([0, 1])), (2, 2), 3)
        source.begin()
    whole = sequence(SampleNoise([1, 2, 3]), (3, 2), 5)
    got = source.normal(torch.zeros(3, 2, dtype=F64))
    assert torch.equal(got, torch.stack([whole[n, i] for i, n in enumerate((1, 4, 1))]))


def test_draws_are_standard_normal() -> None:
    """Seeded; |z| < 4.9 for mean and variance, DKW at 1e-6 for the law: each a false alarm in 1e6. A mean of 0.018 and
    a variance that is 2.5 % off are seen."""
    n = 75_000
    each, batch = sequence(SampleNoise(range(50)), (50, 15), 100), sequence(BatchNoise.seeded(0, CPU), (50, 15), 100)
    for z in (each, batch):
        values = z.flatten().sort().values
        assert len(values) == n
        assert abs(float(values.mean())) < 4.9 / math.sqrt(n)
        assert abs(float(values.var()) - 1) < 4.9 * math.sqrt(2 / n)
        gap = (torch.special.ndtr(values) - torch.arange(1, n + 1) / n).abs().max()
        assert float(gap) < math.sqrt(math.log(2e6) / (2 * n)) + 1 / n
        # successive draws, coordinates of a draw, and samples are not correlated
        for product in (z[1:] * z[:-1], z[..., 1:] * z[..., :-1], z[:, 1:] * z[:, :-1]):
            assert abs(float(product.mean())) < 4.9 / math.sqrt(product.numel())


def test_given_draws_are_asked_for_in_order() -> None:
    source = CallableNoise(lambda k, like: torch.full_like(like, float(k)))
    for k, shape in enumerate(((1, 2), (1, 2), (3, 2))):
        assert torch.equal(source.normal(torch.zeros(shape)), torch.full(shape, float(k)))
    assert source.take(torch.tensor([0])) is source


def test_given_draws_of_another_shape_are_refused() -> None:
    for value, got in ((torch.zeros(1, 2), r"\(1, 2\)"), (torch.zeros(()), r"\(\)"), (None, "NoneType")):
        with pytest.raises(InvalidArgumentError, match=rf"`noise` must return a tensor of shape \(3, 2\), got {got}"):
            CallableNoise(lambda k, like, value=value: value).normal(torch.zeros(3, 2))


def choose(**given: Any) -> Noise:
    return resolve(
        **{"seed": None, "seeds": None, "generator": None, "noise": None, "device": CPU, "batch": 3, **given}
    )


def test_arguments_give_their_source() -> None:
    assert isinstance(choose(), BatchNoise)
    assert choose().generator is None
    like = torch.zeros(3, 2)
    assert torch.equal(choose(seed=4).normal(like), BatchNoise.seeded(4, CPU).normal(like))
    for seeds in ([1, 2, 3], (1, 2, 3), range(1, 4), torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3]).numpy()):
        assert torch.equal(choose(seeds=seeds).normal(like), SampleNoise([1, 2, 3]).normal(like))
    generator = torch.Generator().manual_seed(4)
    assert choose(generator=generator).generator is generator
    mine = SampleNoise([1, 2, 3])
    assert choose(noise=mine) is mine
    assert isinstance(choose(noise=lambda k, like: like), CallableNoise)
    assert isinstance(choose(seed=0), BatchNoise)


def test_bad_arguments_are_refused() -> None:
    indexed: list[tuple[Any, Any, str]] = [
        (7, [-1], r"`indices\[0\]` must be at least 0"),
        (7, [2**63], r"must be at most 9223372036854775807"),
        (7, [0.5], r"`indices\[0\]` must be an integer"),
        ([7], [3], r"`seeds` must be an integer"),
        (2**64, [0], r"`seeds` must be at most 18446744073709551615"),
    ]
    for seeds, indices, message in indexed:
        with pytest.raises(ScoreSDEError, match=message):
            SampleNoise(seeds, indices=indices)
    with pytest.raises(InvalidArgumentError, match="2 samples, 3 seeds"):
        SampleNoise([1, 2, 3]).normal(torch.zeros(2, 2))
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"seed": 1, "seeds": [1, 2, 3]}, InvalidArgumentError, "at most one of .* got seed, seeds"),
        ({"seed": -1}, InvalidArgumentError, "`seed` must be at least 0, got -1"),
        ({"seed": 2**64}, InvalidArgumentError, "`seed` must be at most 18446744073709551615"),
        ({"seed": 1.0}, InvalidTypeError, "`seed` must be an integer"),
        ({"seeds": 5}, InvalidTypeError, "`seeds` must be a sequence of integers, one per sample"),
        ({"seeds": [1, 2]}, InvalidArgumentError, "3 samples, 2 seeds"),
        ({"seeds": [1, 2, 2**64]}, InvalidArgumentError, r"`seeds\[2\]` must be at most"),
        ({"seeds": [1, 2.5, 3]}, InvalidTypeError, r"`seeds\[1\]` must be an integer"),
        ({"generator": 5}, InvalidTypeError, "`generator` must be a torch.Generator, got int"),
        ({"noise": torch.zeros(3, 2)}, InvalidTypeError, "`noise` must be a Noise or a callable .* got Tensor"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            choose(**arguments)
    for seed in (0, 2**32, 2**63, 2**64 - 1):
        assert check_seed("seed", seed) == seed
        assert BatchNoise.seeded(seed, CPU).normal(torch.zeros(1, 1)).shape == (1, 1)


def test_seeds_differ_in_all_their_bits() -> None:
    """torch's generator on the CPU reads 32 bits of a seed only."""
    like = torch.zeros(2, 3)
    both = SampleNoise([1, 2**32 + 1]).normal(like)
    assert not torch.equal(both[0], both[1])
    one, other = (BatchNoise.seeded(seed, torch.device("cpu")).normal(like) for seed in (1, 2**32 + 1))
    assert not torch.equal(one, other)
