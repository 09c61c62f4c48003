r"""Weights of noise levels: functions of a `Node` that multiply the squared error of a loss, per sample.

`WEIGHTS` names them. Those of the literature are written here for the error of the noise,
:math:`\|\hat\varepsilon-\varepsilon\|^2`; since :math:`\hat\varepsilon-\varepsilon = -(\alpha/\sigma)(\hat x-x_0)`, the
same objective has the weight :math:`w\,\mathrm{SNR}` on the error of the data, and :math:`w\,\sigma^2` on that of the
score. Your own function may take the place of a name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..core.errors import InvalidArgumentError, InvalidTypeError, short
from ..core.sdes import Node
from ..core.support.checks import check_choice, check_number, check_tensor
from ..core.support.tensors import expand, sigmoid

Weight: TypeAlias = Callable[[Node[Tensor]], Tensor]


def constant(node: Node[Tensor]) -> Tensor:
    """1.

    Example:
        >>> constant(scoresde.VPSDE().nodes(torch.tensor([0.5])))
        tensor([1.], dtype=torch.float64)
    """
    return torch.ones_like(node.alpha)


def sigma2(node: Node[Tensor]) -> Tensor:
    r""":math:`\sigma^2`, NCSN's weight of the score's error: all levels then count alike.

    Example:
        >>> sigma2(scoresde.FlowSDE().nodes(torch.tensor([0.5])))
        tensor([0.2500], dtype=torch.float64)

    References:
        Song, Ermon (2019), section 4.2. https://arxiv.org/abs/1907.05600
    """
    return node.sigma * node.sigma


def likelihood(node: Node[Tensor]) -> Tensor:
    r""":math:`g^2/\sigma^2 = d\gamma/dt`, with :math:`\gamma = -\ln\mathrm{SNR}`: half of it makes the error of the
    noise a bound of the likelihood, in nats. Score flow's :math:`g^2` for the score and VDM's :math:`\gamma'` are it.

    Example:
        >>> sde = scoresde.VDMSDE(scoresde.LinearGamma(-3.0, 5.0))
        >>> likelihood(sde.nodes(torch.tensor([0.5]))).round(decimals=6)
        tensor([8.], dtype=torch.float64)

    References:
        Song, Durkan, Murray, Ermon (2021), eq. 7. https://arxiv.org/abs/2101.09258
        Kingma et al. (2021), eq. 17. https://arxiv.org/abs/2107.00630
    """
    return node.g2 / (node.sigma * node.sigma)


@dataclass(frozen=True)
class MinSNR:
    r""":math:`\min(\mathrm{SNR}, \gamma)/\mathrm{SNR}`, of the noise; :math:`\min(\mathrm{SNR}, \gamma)` of the data.

    Example:
        >>> MinSNR(5.0)(scoresde.FlowSDE().nodes(torch.tensor([0.1, 0.5])))
        tensor([0.0617, 1.0000], dtype=torch.float64)

    References:
        Hang et al. (2023), Efficient Diffusion Training via Min-SNR Weighting Strategy, section 3.4.
        https://arxiv.org/abs/2303.09556
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", check_number("gamma", self.gamma, low=0.0, strict=True))

    def __call__(self, node: Node[Tensor]) -> Tensor:
        return (self.gamma * torch.exp(-2 * node.lam)).clamp_max(1.0)


@dataclass(frozen=True)
class P2:
    r""":math:`(k + \mathrm{SNR})^{-\gamma}`, of the noise.

    Example:
        >>> P2(1.0, 1.0)(scoresde.FlowSDE().nodes(torch.tensor([0.5])))
        tensor([0.5000], dtype=torch.float64)

    References:
        Choi et al. (2022), Perception Prioritized Training of Diffusion Models, eq. 8.
        https://arxiv.org/abs/2204.00227
    """

    k: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_number("k", self.k, low=0.0, strict=True))
        object.__setattr__(self, "gamma", check_number("gamma", self.gamma, low=0.0))

    def __call__(self, node: Node[Tensor]) -> Tensor:
        return (self.k + torch.exp(2 * node.lam)) ** -self.gamma


@dataclass(frozen=True)
class EDMWeight:
    r""":math:`1 + \rho^2/\sigma_d^2` with :math:`\rho = \sigma/\alpha`, of the noise; of the data it is EDM's
    :math:`\lambda(\rho) = (\rho^2+\sigma_d^2)/(\rho\sigma_d)^2`.

    Example:
        >>> EDMWeight(0.5)(scoresde.FlowSDE().nodes(torch.tensor([0.5]))).round(decimals=6)
        tensor([5.], dtype=torch.float64)

    References:
        Karras et al. (2022), table 1. https://arxiv.org/abs/2206.00364
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        check_number("sigma_data", self.sigma_data, low=0.0, strict=True)

    def __call__(self, node: Node[Tensor]) -> Tensor:
        return 1 + torch.exp(-2 * node.lam) / self.sigma_data**2


@dataclass(frozen=True)
class Sigmoid:
    r""":math:`\mathrm{sigmoid}(b - \ln\mathrm{SNR})`, of the noise; Kingma and Gao's weighting with noise levels even
    in the log-SNR (``times=LogUniform(), importance=False``), and in `scoresde.losses.vdm`.

    Example:
        >>> Sigmoid(0.0)(scoresde.FlowSDE().nodes(torch.tensor([0.5])))
        tensor([0.5000], dtype=torch.float64)

    References:
        Kingma, Gao (2023), Understanding Diffusion Objectives as the ELBO, appendix D. https://arxiv.org/abs/2303.00848
    """

    bias: float = 2.0

    def __post_init__(self) -> None:
        check_number("bias", self.bias)

    def __call__(self, node: Node[Tensor]) -> Tensor:
        return sigmoid(self.bias - 2 * node.lam)


WEIGHTS: dict[str, Weight] = {
    "constant": constant,
    "sigma2": sigma2,
    "likelihood": likelihood,
    "vdm": likelihood,
    "min_snr": MinSNR(),
    "p2": P2(),
    "edm": EDMWeight(),
    "sigmoid": Sigmoid(),
}


def weight_of(weight: str | Weight) -> Weight:
    """The weight with a name; a function is returned as it is.

    Example:
        >>> weight_of("constant") is WEIGHTS["constant"]
        True
    """
    if isinstance(weight, str):
        return WEIGHTS[check_choice("weight", weight, WEIGHTS)]
    if not callable(weight):
        raise InvalidTypeError(f"`weight` must be a name or a function of a scoresde.Node, got {short(weight)}.")
    return weight


def weigh(weight: str | Weight, node: Node[Tensor]) -> Tensor:
    """The weights of samples, float64 ``(batch,)``, from a name or a function of a node.

    Raises:
        InvalidArgumentError: the name is unknown, or the function returns another shape.
        InvalidTypeError: neither a name nor a function.

    Example:
        >>> node = scoresde.FlowSDE().nodes(torch.tensor([0.25, 0.5]))
        >>> weigh("sigma2", node), weigh(lambda node: node.t, node)
        (tensor([0.0625, 0.2500], dtype=torch.float64), tensor([0.2500, 0.5000], dtype=torch.float64))
    """
    returned = weight_of(weight)(node)
    if isinstance(returned, Tensor):
        check_tensor("weight(node)", returned, kind="real")
    else:
        check_number("weight(node)", returned)
    value = torch.as_tensor(returned, dtype=torch.float64, device=node.alpha.device)
    if value.shape not in ((), node.alpha.shape):
        raise InvalidArgumentError(
            f"`weight` must return one value per sample {tuple(node.alpha.shape)}, got {tuple(value.shape)}."
        )
    return expand(value, node.alpha).expand_as(node.alpha)
