r"""A classifier of noisy data that serves every process."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..core.errors import InvalidArgumentError, InvalidTypeError
from ..core.sdes import AffineSDE
from ..core.sdes.base import check_sde
from ..core.support.checks import check_below, check_integer, check_kind, check_number, check_per_sample
from ..core.support.tensors import expand


class NoisyClassifier(nn.Module):
    r"""The logits of :math:`p(y|x_t)` for every affine process, by a network with the inputs of EDM's networks:

    .. math:: \mathrm{logits} = F\Big(\frac{x_t}{\sqrt{\sigma^2 + \sigma_d^2\alpha^2}}, \tfrac14\ln\rho\Big),\qquad
        \rho = \sigma/\alpha.

    `scoresde.training.train_classifier` trains one, and `scoresde.guidance.classifier_guidance` takes its `log_prob`.

    Args:
        net: F, ``net(x, t) -> (batch, classes)``, such as `scoresde.nets.Classifier`.
        sigma_data: the standard deviation of the data, :math:`\sigma_d`.
        rho_min, rho_max: the noise levels that F was trained on; beyond them it receives the nearest.

    Example:
        >>> classifier = NoisyClassifier(scoresde.nets.Classifier((1, 8, 8), classes=10))
        >>> vp = scoresde.VPSDE()
        >>> network = scoresde.load("digits")
        >>> guided = scoresde.guidance.classifier_guidance(
        ...     network.score(vp), classifier.log_prob(vp, 3)
        ... )
        >>> scoresde.solve(vp, guided, method="ddim", steps=2, shape=(1, 1, 8, 8)).x.shape
        torch.Size([1, 1, 8, 8])

    References:
        Dhariwal, Nichol (2021), Diffusion Models Beat GANs on Image Synthesis, section 4.
        https://arxiv.org/abs/2105.05233
    """

    def __init__(self, net: nn.Module, sigma_data: float = 0.5, rho_min: float = 1e-3, rho_max: float = 80.0) -> None:
        super().__init__()
        check_kind("net", net, nn.Module, "a module such as scoresde.nets.Classifier")
        self.sigma_data = check_number("sigma_data", sigma_data, low=0.0, strict=True)
        self.rho_min = check_number("rho_min", rho_min, low=0.0, strict=True)
        self.rho_max = check_number("rho_max", rho_max)
        check_below("rho_min", self.rho_min, "rho_max", self.rho_max)
        self.net = net

    def forward(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        r"""The logits ``(batch, classes)`` of states :math:`x_t`, with :math:`\alpha` and :math:`\sigma` of each."""
        scale = (sigma.square() + (self.sigma_data * alpha).square()).sqrt()
        rho = (sigma / alpha).clamp(self.rho_min, self.rho_max)
        dtype = next((p.dtype for p in self.net.parameters()), x.dtype)
        return self.net((x / expand(scale, x)).to(dtype), (0.25 * rho.log()).to(dtype)).to(x.dtype)

    def log_prob(self, sde: AffineSDE, label: int | None = None) -> Callable[..., Tensor]:
        r""":math:`\ln p(y|x_t)` as a function ``(x, t) -> (batch,)``; without a label, as one ``(x, t, label)``, which
        takes integers ``(batch,)`` from the ``context`` of a solve.

        Raises:
            InvalidTypeError: the process is not affine, or in a call, a label is not an integer or is missing.
            InvalidArgumentError: in a call, a label is not a class.
        """
        check_sde(sde, affine=True)

        def given(x: Tensor, t: Tensor, label: Tensor | int | None = None) -> Tensor:
            node = sde.nodes(t)
            log_probs = self(x, node.alpha, node.sigma).log_softmax(1)
            index = check_labels(label, x, log_probs.shape[1])
            return log_probs.gather(1, index[:, None])[:, 0]

        if label is None:
            return given
        chosen = check_integer("label", label, low=0)
        return lambda x, t: given(x, t, chosen)


def check_labels(label: object, x: Tensor, classes: int) -> Tensor:
    """One class per sample, ``(batch,)``."""
    if label is None:
        raise InvalidTypeError(
            "`label` is missing: give classifier.log_prob(sde, label), or context={'label': labels} to the solve."
        )
    if not isinstance(label, Tensor):
        check_integer("label", label, low=0, high=classes - 1)
    index = torch.as_tensor(label, device=x.device)
    each = check_per_sample("label", index, x)
    # on a GPU nothing is read back for it
    if not index.is_cuda and bool(((each < 0) | (each >= classes)).any()):
        raise InvalidArgumentError(f"`label` must be 0 … {classes - 1}, got {index.tolist()}.")
    return each
