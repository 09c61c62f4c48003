"""The score function of a target whose score is known exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .._tensors import check_state, compute_dtype, expand
from ..errors import InvalidArgumentError
from ..sdes import AffineSDE, Estimate, Node
from ..sdes.base import times_of

# (x, alpha, sigma) -> Estimate, with alpha and sigma floats or already broadcast against x
Denoiser = Callable[[Tensor, Any, Any], Estimate]


class ExactScore:
    r"""A score function made of a target's exact denoiser and a process.

    It is a ``score_fn(x, t)``, and also gives solvers :math:`\hat x` and :math:`\hat\varepsilon` directly.

    Attributes:
        event_shape: the shape of one sample.
        rowwise: True, samples do not depend on each other.
        sde: the process.

    Example:
        >>> import scoresde
        >>> score_fn = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(scoresde.VPSDE())
        >>> score_fn(torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[-1., -1.]])
    """

    rowwise = True
    has_noise_limit = True
    network_parts = ()  # estimates are new tensors

    def __init__(self, denoise: Denoiser, sde: AffineSDE, event_shape: tuple[int, ...]) -> None:
        self.denoise = denoise
        self.sde = sde
        self.event_shape = event_shape

    def accepts(self, name: str) -> bool:
        """False: a law of data takes no context."""
        return False

    def estimate(self, x: Tensor, node: Node) -> Estimate:
        """The exact `Estimate` at a node of the process."""
        return self.denoise(x, expand(node.alpha, x), expand(node.sigma, x))

    def __call__(self, x: Tensor, t: Any) -> Tensor:
        """The exact score, shaped like ``x``; ``t`` is a float, 0-d or ``(batch,)``."""
        check_state("x", x)
        if tuple(x.shape[1:]) != self.event_shape:
            raise InvalidArgumentError(
                f"`x` must be (batch, {', '.join(map(str, self.event_shape))}), got shape {tuple(x.shape)}."
            )
        state = x.to(compute_dtype(x.dtype))
        node = self.sde.nodes(times_of(x, t))
        return (-self.estimate(state, node).noise / expand(node.sigma, state)).to(x.dtype)
