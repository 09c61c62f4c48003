r"""Philox4x32-10: random numbers as a function of a key and a counter, without a state.

A round takes the words :math:`c_0,\dots,c_3` of the counter and :math:`k_0, k_1` of the key, all of 32 bits, to

.. math:: \mathrm{hi}(M_1c_2)\oplus c_1\oplus k_0,\quad \mathrm{lo}(M_1c_2),\quad
    \mathrm{hi}(M_0c_0)\oplus c_3\oplus k_1,\quad \mathrm{lo}(M_0c_0),

and the key to :math:`k_i + W_i`. There are ten rounds. The integers are the same on every device; products wrap around
in int64, which leaves their bits as they are. `normals` makes normal numbers of them by Box and Muller's formula,

.. math:: \sqrt{-2\ln u_0}\,(\cos 2\pi u_1, \sin 2\pi u_1), \qquad u_i = (w_i + \tfrac12)\,2^{-32},

in float64, so that the largest is 6.76. They are the same for any number and order of the samples on one kind of
device; logarithm, sine and cosine differ in the last digit between kinds.

References:
    Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3. https://doi.org/10.1145/2063384.2063405
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

Word = TypeVar("Word", int, Tensor)  # 32 bits; a tensor of them is int64
Words = tuple[Word, Word, Word, Word]

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF
_ROUNDS = 10
_CHUNK = 2**13  # counters at a time, which fit into a processor's cache
_AHEAD = 64  # draws at once, at most
_NO_SAMPLE = (_LOW, _LOW)  # the last two words of the counters that make keys


def philox(counter: Words[Word], key: tuple[Word, Word]) -> Words[Word]:
    """The four words of a counter and a key; tensors are broadcast.

    Example:
        >>> [f"{word:08x}" for word in philox((0, 0, 0, 0), (0, 0))]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _M0, c2 * _M1
        c0 = ((p1 >> 32) ^ (c1 ^ k0)) & _LOW
        c2 = ((p0 >> 32) ^ (c3 ^ k1)) & _LOW
        c1, c3 = p1, p0  # their low halves, after the next mask
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1 & _LOW, c2, c3 & _LOW


def halves(number: int) -> tuple[int, int]:
    """The low and the high 32 bits.

    Example:
        >>> halves(2**32 + 7)
        (7, 1)
    """
    return number & _LOW, number >> 32


def fold(key: int, number: int) -> int:
    """Another key of 64 bits, for draws that have nothing to do with those of ``key``.

    Example:
        >>> fold(7, 0) != fold(7, 1)
        True
    """
    low, high, *_ = philox((*halves(number), *_NO_SAMPLE), halves(key))
    return high << 32 | low


def table(numbers: Sequence[int]) -> Tensor:
    """Numbers of 64 bits as words, ``(len(numbers), 2)``.

    Example:
        >>> table([1, 2**33])
        tensor([[1, 0],
                [0, 2]])
    """
    return torch.tensor([halves(n) for n in numbers], dtype=torch.int64).reshape(-1, 2)


def ahead(batch: int, size: int) -> int:
    """How many draws to make at once, so that the many small operations cost little.

    Example:
        >>> ahead(1, 2), ahead(256, 64), ahead(64, 3072)
        (64, 2, 1)
    """
    return min(max(_CHUNK // max(batch * -(-size // 4), 1), 1), _AHEAD)


def normals(keys: Tensor, samples: Tensor, draws: Tensor, size: int) -> Tensor:
    """Standard normal numbers: of draw d of a sample, the numbers 4b … 4b + 3 come from the counter (b, d, sample).

    Args:
        keys, samples: ``(batch, 2)`` words.
        draws: the numbers of the draws, ``(count,)`` or ``(batch, count)``.
        size: how many numbers a draw has.

    Returns:
        ``(batch, count, size)`` float64, on the device of the keys.

    Example:
        >>> keys, samples = table([7, 8]), table([0, 0])
        >>> both = normals(keys, samples, torch.arange(3), 5)
        >>> bool(
        ...     (normals(keys[1:], samples[1:], torch.tensor([2]), 5) == both[1:, 2:]).all()
        ... )
        True
    """
    blocks, count = -(-size // 4), draws.shape[-1]
    draw = draws.to(keys.device).reshape(-1, count).repeat_interleave(blocks, -1)
    block = torch.arange(blocks, device=keys.device).repeat(count)[None]
    out = torch.empty(len(keys), count * blocks, 4, dtype=torch.float64, device=keys.device)
    columns = min(max(count * blocks, 1), _CHUNK)
    rows = _CHUNK // columns
    for i in range(0, len(keys), rows):
        (k0, k1), (c2, c3) = (words[i : i + rows].T[..., None] for words in (keys, samples))
        here = draw if len(draw) == 1 else draw[i : i + rows]
        for j in range(0, count * blocks, columns):
            part = slice(j, j + columns)
            _box_muller(philox((block[:, part], here[:, part], c2, c3), (k0, k1)), out[i : i + rows, part])
    return out.reshape(len(keys), count, blocks * 4)[..., :size]


def _box_muller(words: Words[Tensor], out: Tensor) -> None:
    """Four normal numbers of four words, in the last dimension of ``out``."""
    u0, u1, u2, u3 = (word.to(torch.float64).add_(0.5).mul_(2.0**-32) for word in words)
    for i, (u, v) in enumerate(((u0, u1), (u2, u3))):
        radius, angle = u.log_().mul_(-2).sqrt_(), v.mul_(2 * math.pi)
        torch.mul(radius, angle.cos(), out=out[..., 2 * i])
        torch.mul(radius, angle.sin_(), out=out[..., 2 * i + 1])
