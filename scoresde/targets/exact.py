"""The score function of a target whose score is known exactly."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..core.sdes import AffineSDE, Estimate, Node
from ..core.support.checks import check_batch
from ..core.support.tensors import Scalar, expand
from ..scores import Score, Traits

# (x, alpha, sigma) -> Estimate, with alpha and sigma floats or already broadcast against x
Denoiser = Callable[[Tensor, Scalar, Scalar], Estimate]


class ExactScore(Score):
    r"""A score function made of a target's exact denoiser and a process.

    It is a ``score_fn(x, t)``, and also gives solvers :math:`\hat x` and :math:`\hat\varepsilon` directly.

    Example:
        >>> import scoresde
        >>> score_fn = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(
        ...     scoresde.VPSDE()
        ... )
        >>> score_fn(torch.ones(1, 2), torch.tensor([0.5]))
        tensor([[-1., -1.]])
    """

    def __init__(
        self, denoise: Denoiser, sde: AffineSDE, event_shape: tuple[int, ...], data_std: float | None = None
    ) -> None:
        self.denoise = denoise
        self.traits = Traits(
            sde=sde,
            event_shape=event_shape,
            rowwise=True,
            noise_limit=True,
            network_parts=(),  # they are new tensors
            data_std=data_std,
        )

    def estimate(self, x: Tensor, node: Node) -> Estimate:  # type: ignore[override]  # data take no context
        """The exact `Estimate` at a node of the process."""
        return self.denoise(x, expand(node.alpha, x), expand(node.sigma, x))

    def check(self, x: Tensor) -> None:
        """Refuse states of other events."""
        super().check(x)
        check_batch("x", x, self.event_shape)
