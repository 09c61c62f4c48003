"""The distribution that generation starts from."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, uint8

from ..errors import InvalidArgumentError, InvalidTypeError
from ..support.checks import check_number, check_state, check_tensor
from ..support.declared import Kind, Positive, checked, declares
from ..support.tensors import Scalar, compute_dtype, row_sums

_SHOWN = 8  # numbers of a mean


def _digest(x: Tensor) -> str:
    """A short text that differs where the numbers do: what is printed decides whether processes are the same."""
    found = hashlib.sha256(x.detach().cpu().contiguous().flatten().view(uint8).numpy().data).hexdigest()
    return f"<{tuple(x.shape)}, {x.dtype}, sha256 {found[:12]}>"


def _check_mean(name: str, mean: object) -> object:
    return check_tensor(name, mean, finite=True) if isinstance(mean, Tensor) else check_number(name, mean)


@checked
@dataclass(frozen=True)
class NormalPrior:
    r"""The prior :math:`N(m, s^2 I)`.

    Args:
        std: s, a positive number.
        mean: m, a number or a tensor of the event's shape (a process whose :math:`\alpha(t_{max})` is not 0 has a prior
            closer to the data's distribution with :math:`m = \alpha(t_{max}) E[x_0]`).

    Example:
        >>> NormalPrior(2.0).log_prob(torch.zeros(1, 2))
        tensor([-3.2242])
        >>> NormalPrior(mean=torch.zeros(1, 28, 28))
        NormalPrior(std=1.0, mean=<(1, 28, 28), torch.float32, sha256 b00cd820a573>)
    """

    std: Positive = 1.0
    mean: Annotated[float | Tensor, Kind(_check_mean)] = 0.0

    def __repr__(self) -> str:
        mean = _digest(self.mean) if isinstance(self.mean, Tensor) and self.mean.numel() > _SHOWN else repr(self.mean)
        return f"NormalPrior(std={self.std!r}, mean={mean})"

    def from_normal(self, z: Tensor) -> Tensor:
        """Map a standard normal draw ``(batch, *event)`` to a draw of the prior."""
        check_tensor("z", z)
        return self._mean(z) + self.std * z

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density in nats, ``(batch,)``, summed in float32 or wider."""
        check_state("x", x)
        x = x.to(compute_dtype(x.dtype))
        z = ((x - self._mean(x)) / self.std).flatten(1)
        return -0.5 * row_sums(z.square()) - z.shape[1] * (math.log(self.std) + 0.5 * math.log(2 * math.pi))

    def _mean(self, x: Tensor) -> Scalar:
        if not isinstance(self.mean, Tensor):
            return self.mean
        if self.mean.ndim and self.mean.shape not in (x.shape[1:], (1, *x.shape[1:])):
            raise InvalidArgumentError(
                f"The prior's `mean` has shape {tuple(self.mean.shape)}, but the events have {tuple(x.shape[1:])}; "
                "give a number or a tensor of the event's shape."
            )
        return self.mean.to(x)


def _check_prior(name: str, prior: object) -> None:
    if not (callable(getattr(prior, "from_normal", None)) and callable(getattr(prior, "log_prob", None))):
        raise InvalidTypeError(
            f"`{name}` must have the methods from_normal and log_prob, as sdes.NormalPrior has; got {prior!r}."
        )


declares(NormalPrior, Kind(_check_prior))  # other distributions have the same two methods
