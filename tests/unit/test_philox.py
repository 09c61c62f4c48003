"""Random integers and normal numbers by counter: known answers, a small battery, and what they must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scoresde.core.noise.philox import ahead, fold, halves, normals, philox, table

WORD = st.integers(0, 2**32 - 1)
ONES = 2**32 - 1

# The published vectors of Random123 (kat_vectors, philox4x32 10): counter, key, output.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def test_known_answers() -> None:
    for counter, key, words in KNOWN:
        assert philox(counter, key) == words  # type: ignore[arg-type, comparison-overlap]
        of_tensors = philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))  # type: ignore[arg-type]
        assert tuple(int(word) for word in of_tensors) == words


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
@settings(max_examples=60)
def test_integers_that_wrap_around_are_those_that_do_not(
    counter: tuple[int, int, int, int], key: tuple[int, int]
) -> None:
    """Products in int64 overflow; Python's integers don't."""
    got = philox(tuple(torch.tensor([c]) for c in counter), tuple(torch.tensor([k]) for k in key))  # type: ignore[arg-type]
    assert tuple(int(word) for word in got) == philox(counter, key)


def test_normals_are_those_of_the_formula() -> None:
    """Draw 3 of sample 2**40 + 5 with the seed 2**50 + 9: words of the counter (block, draw, sample), by hand."""
    got = normals(table([2**50 + 9]), table([2**40 + 5]), torch.arange(3, 4), 6)[0, 0]
    wanted = []
    for block in (0, 1):
        words = philox((block, 3, 5, 2**8), (9, 2**18))
        u = [(word + 0.5) / 2**32 for word in words]
        for a, b in ((u[0], u[1]), (u[2], u[3])):
            radius = math.sqrt(-2 * math.log(a))
            wanted += [radius * math.cos(2 * math.pi * b), radius * math.sin(2 * math.pi * b)]
    assert got.tolist() == pytest.approx(wanted[:6], rel=1e-13, abs=1e-14)


def test_any_part_is_the_same_bits() -> None:
    """Whatever the batch, the place in it, the number of draws at once and the pieces and threads that make them: draws
    of 300 samples with 3,072 elements are made in many pieces, those of one sample in one."""
    for size in (1, 2, 3, 5, 64, 193, 3072):
        count = 60 if size == 3072 else 300
        keys, samples = table(list(range(count))), table(list(range(count, 0, -1)))
        whole = normals(keys, samples, torch.arange(3), size)
        for rows in (slice(0, 1), slice(7, 9), slice(count // 3, count), slice(13, 46)):
            assert torch.equal(normals(keys[rows], samples[rows], torch.arange(3), size), whole[rows]), size
            assert torch.equal(normals(keys[rows], samples[rows], torch.arange(2, 3), size), whole[rows, 2:]), size
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        assert torch.equal(normals(keys[order], samples[order], torch.arange(1, 2), size), whole[order, 1:2]), size
        assert torch.equal(normals(keys[:4], samples[:4], torch.arange(3), size + 7)[..., :size], whole[:4]), size
    long = normals(keys[:1], samples[:1], torch.arange(2), 150_001)  # each draw in several pieces
    assert torch.equal(normals(keys[:1], samples[:1], torch.arange(1, 2), 150_001), long[:, 1:])
    assert torch.equal(normals(keys[:1], samples[:1], torch.arange(2), 7), long[..., :7])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(normals(keys, samples, torch.arange(1), size), whole[:, :1])
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_integers_are_those_of_the_cpu_on_a_gpu() -> None:
    keys, samples = table(list(range(300))), table([0] * 300)
    counter = (torch.arange(64)[None], torch.full((1, 64), 3), samples[:, :1], samples[:, 1:])
    here = philox(counter, (keys[:, :1], keys[:, 1:]))
    there = philox(tuple(c.cuda() for c in counter), (keys[:, :1].cuda(), keys[:, 1:].cuda()))  # type: ignore[arg-type]
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a, b.cpu())
    gap = normals(keys, samples, torch.arange(2), 77) - normals(keys.cuda(), samples.cuda(), torch.arange(2), 77).cpu()
    assert float(gap.abs().max()) < 1e-12


def test_bits_and_normals_behave() -> None:
    """A battery, seeded: each statistic is standard normal if all is well, and |z| < 6.2 for 160 of them is a false
    alarm in 1e7; the law by DKW at 1e-7."""
    n, draws = 2000, 8  # streams of adjacent seeds, of adjacent indices
    for keys, samples in ((range(n), [0] * n), ([5] * n, range(n))):
        k, s = table(list(keys)), table(list(samples))
        blocks = torch.arange(16)[None]
        words = torch.stack(philox((blocks, torch.zeros_like(blocks), s[:, :1], s[:, 1:]), (k[:, :1], k[:, 1:])), -1)
        bits = words[..., None] >> torch.arange(32) & 1
        share = bits.double().flatten(0, 2).mean(0)
        assert float(((share - 0.5).abs() * 2 * math.sqrt(words.numel())).max()) < 6.2
        flips = (bits[1:] ^ bits[:-1]).double().mean()  # of neighbouring streams
        assert abs(float(flips) - 0.5) * 2 * math.sqrt(bits[1:].numel()) < 6.2
        z = normals(k, s, torch.arange(draws), 33)
        root = math.sqrt(z.numel())
        for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs(float(z.pow(power).mean()) - mean) * root < 6.2 * math.sqrt(variance)
        products = [z[1:] * z[:-1], z[:, 1:] * z[:, :-1], *(z[..., lag:] * z[..., :-lag] for lag in (1, 2, 3, 4))]
        squares = [(z[1:] ** 2 - 1) * (z[:-1] ** 2 - 1) / 2, (z[..., 1:] ** 2 - 1) * (z[..., :-1] ** 2 - 1) / 2]
        for product in products + squares:
            assert abs(float(product.mean())) * math.sqrt(product.numel()) < 6.2
        values = z.flatten().sort().values
        gap = (torch.special.ndtr(values) - torch.arange(1, len(values) + 1) / len(values)).abs().max()
        assert float(gap) < math.sqrt(math.log(2e7) / (2 * len(values))) + 1 / len(values)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_folded_keys_are_keys_and_differ(key: int, one: int, other: int) -> None:
    folded = fold(key, one)
    assert 0 <= folded < 2**64
    assert (fold(key, other) == folded) == (one == other)  # a collision would be one in 2**64
    low, high = halves(folded)
    assert high << 32 | low == folded and 0 <= low < 2**32 and 0 <= high < 2**32


def test_draws_at_once_fill_a_piece_at_most() -> None:
    assert [ahead(*given) for given in ((1, 2), (256, 64), (64, 3072), (10**6, 3072), (0, 5), (3, 0))] == [
        64, 2, 1, 1, 64, 64,
    ]  # fmt: skip
    assert normals(table([]), table([]), torch.arange(2), 3).shape == (0, 2, 3)
    assert normals(table([1]), table([0]), torch.arange(2), 0).shape == (1, 2, 0)
