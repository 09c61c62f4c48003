"""What a network receives besides its input: the time and the class; and finer features of the input."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import InvalidArgumentError, check_choice
from ..core.support.checks import as_tensor, check_integer, check_integers, check_per_sample, check_tensor


class Waves(NamedTuple):
    """The waves that encode a time: angular frequencies, of the time or of its logarithm.

    Example:
        >>> EMBEDDINGS["sinusoidal"].frequencies().shape
        torch.Size([64])
    """

    frequencies: Callable[[], Tensor]
    logarithm: bool = False
    drawn: bool = False  # at random, and so saved with the weights


def _gaussian() -> Tensor:
    return 2 * math.pi * 16.0 * torch.randn(64)


# By the name that a network's ``time`` gives.
EMBEDDINGS: dict[str, Waves] = {
    "fourier": Waves(lambda: 2 * math.pi * torch.logspace(-1, math.log10(4.0), 16)),
    "sinusoidal": Waves(lambda: torch.exp(-math.log(10_000) / 64 * torch.arange(64))),
    "gaussian": Waves(_gaussian, drawn=True),
    "log_gaussian": Waves(_gaussian, logarithm=True, drawn=True),
    "constant": Waves(lambda: torch.zeros(1)),
}


class NoiseEmbedding(nn.Module):
    r"""Features of a time c: :math:`\sin \omega_k c, \cos \omega_k c`, then two linear layers.

    ================== ==================================================================================
    time               :math:`\omega_k`
    ================== ==================================================================================
    ``"fourier"``      16, geometric from :math:`2\pi\cdot 0.1` to :math:`2\pi\cdot 4`: for times of size 1,
                       such as t or EDM's :math:`\tfrac14\ln\rho`; the network stays smooth between levels
    ``"sinusoidal"``   64, geometric from 1 to 1e-4: for the labels 0 … 1000 of DDPM
    ``"gaussian"``     64, drawn from :math:`N(0, (2\pi\cdot 16)^2)` and kept: Score-SDE's, rough in time
    ``"log_gaussian"`` the same of :math:`\ln c`: for c a noise level :math:`\sigma`
    ``"constant"``     0: the network does not receive the time, as NCSNv2's
    ================== ==================================================================================

    Args:
        width: size of the result.
        time: a name in `EMBEDDINGS`.

    Shapes:
        c_noise: ``(batch,)``, integers too; result ``(batch, width)``.

    Example:
        >>> NoiseEmbedding(32)(torch.zeros(5)).shape
        torch.Size([5, 32])

    References:
        Vaswani et al. (2017), section 3.5. https://arxiv.org/abs/1706.03762
        Tancik et al. (2020), Fourier Features Let Networks Learn High Frequency Functions.
        https://arxiv.org/abs/2006.10739
    """

    frequencies: Tensor

    def __init__(self, width: int, time: str = "fourier") -> None:
        super().__init__()
        check_sizes(width=(width, 1, 4096))
        check_choice("time", time, EMBEDDINGS)
        waves = EMBEDDINGS[time]
        frequencies = waves.frequencies()
        self.logarithm = waves.logarithm
        self.register_buffer("frequencies", frequencies, persistent=waves.drawn)
        self.layers = nn.Sequential(nn.Linear(2 * len(frequencies), width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, c_noise: Tensor) -> Tensor:
        c = c_noise.to(self.frequencies.dtype)
        phase = (c.log() if self.logarithm else c)[:, None] * self.frequencies  # (batch, waves)
        phase = phase.masked_fill(self.frequencies == 0, 0.0)  # of an infinite time too
        return self.layers(torch.cat([phase.sin(), phase.cos()], dim=1))


Args = ParamSpec("Args")
Net = TypeVar("Net", bound="Conditioned")


def _plain(value: object) -> object:
    """A JSON value of a number, a name, or a sequence of them."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return value.item() if isinstance(value, np.generic) else value
    return [_plain(entry) for entry in value]


def keeps_arguments(init: Callable[Concatenate[Net, Args], None]) -> Callable[Concatenate[Net, Args], None]:
    """An ``__init__`` whose arguments are the network's ``arguments``, as JSON values, for `scoresde.save`.

    Example:
        >>> scoresde.nets.MLP((2,), channels=16).arguments["event_shape"]
        [2]
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def keeping(self: Net, *args: Args.args, **kwargs: Args.kwargs) -> None:
        init(self, *args, **kwargs)
        if type(self).__init__ is not keeping:  # a subclass with arguments of its own
            return
        given = signature.bind(self, *args, **kwargs)
        given.apply_defaults()
        _, *values = given.arguments.items()
        self.arguments = {name: _plain(value) for name, value in values}

    return keeping


class Conditioned(nn.Module):
    """What networks that receive a time and a class have in common; the networks here are its subclasses.

    Args:
        width: size of the embedding of both.
        labels: number of classes; the label ``labels`` is the null class, "no class given". 0: no classes.
        time: the encoding of the time, a name in `EMBEDDINGS`.
        event_shape: of a sample, checked.
        fourier: exponents of `fourier_features`.
    """

    arguments: dict[str, object]

    def __init__(
        self, width: int, labels: int, time: str, event_shape: tuple[int, ...], fourier: Sequence[int] = ()
    ) -> None:
        super().__init__()
        check_sizes(width=(width, 1, 4096), labels=(labels, 0, 100_000))
        self.labels, self.event_shape = labels, event_shape
        self.fourier = check_integers("fourier", fourier, low=-8, high=16)
        self.noise = NoiseEmbedding(width, time)
        self.label = nn.Embedding(labels + 1, width) if labels else None

    def finish(self, head: nn.Module) -> None:
        """Start with a head of zeros and similar classes."""
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.3)

    def embed(self, x: Tensor, c_noise: Tensor, label: Tensor | int | None) -> Tensor:
        """The embedding of time and class, ``(batch, width)``, of samples of the network's shape."""
        if x.shape[1:] != self.event_shape:
            raise InvalidArgumentError(f"`x` must be (batch, *{self.event_shape}), got {tuple(x.shape)}.")
        if c_noise.ndim > 1 or (c_noise.ndim and len(c_noise) != len(x)):
            raise InvalidArgumentError(f"The time must be a number or ({len(x)},), got shape {tuple(c_noise.shape)}.")
        embedding = self.noise(c_noise.expand(len(x)))
        if self.label is not None:
            embedding = embedding + self._embed_label(self.label, label, x)
        elif label is not None:
            raise InvalidArgumentError("`label`: this network has no classes; make it with labels=.")
        return F.silu(embedding)

    def _embed_label(self, table: nn.Embedding, label: Tensor | int | None, x: Tensor) -> Tensor:
        index = as_tensor("label", self.labels if label is None else label).to(x.device)
        each = check_per_sample("label", index, x)
        try:
            return table(each)
        except IndexError:  # the embedding's own check: on a GPU nothing is read back for it
            raise InvalidArgumentError(
                f"`label` must be 0 … {self.labels - 1}, or {self.labels} for no class, got {index.tolist()}."
            ) from None


def fourier_features(x: Tensor, exponents: Sequence[int]) -> Tensor:
    r"""The input, then :math:`\sin 2^n\pi x` for each n, then :math:`\cos 2^n\pi x`, along axis 1.

    They make fine scales visible, on which likelihoods depend: VDM takes n = 7, 8 for 256 grey levels in [-1, 1]; the
    first has a period of two levels.

    Shapes:
        x: ``(batch, channels, …)``; result ``(batch, channels * (1 + 2 len(exponents)), …)``.

    Example:
        >>> fourier_features(torch.zeros(2, 3, 4, 4), (7, 8)).shape
        torch.Size([2, 15, 4, 4])

    References:
        Kingma et al. (2021), Variational Diffusion Models, section 5.2 and appendix C.
        https://arxiv.org/abs/2107.00630
    """
    check_tensor("x", x)
    check_integers("exponents", exponents, low=-8, high=16)
    if x.ndim < 2:
        raise InvalidArgumentError(f"`x` must be (batch, channels, ...), got shape {tuple(x.shape)}.")
    phases = [2.0**n * math.pi * x for n in exponents]
    return torch.cat([x, *(p.sin() for p in phases), *(p.cos() for p in phases)], dim=1)


def check_sizes(**sizes: tuple[int, int, int]) -> None:
    """Refuse numbers that are not integers from the second to the third."""
    for name, (value, low, high) in sizes.items():
        check_integer(name, value, low=low, high=high, hint=" These are small networks.")
