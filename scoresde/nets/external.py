"""Networks of other libraries, called as networks are called here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from torch import Tensor, nn

from ..core.errors import ScoreFnError
from ..core.support.declared import Number, called, checked
from ..core.support.signatures import accepts


class External(nn.Module):
    r"""A network with another call, as ``net(x, time, **context)``.

    Args:
        net: called as ``net(x, time, **context)``, or as ``net(x, **context)``.
        output: the attribute of what ``net`` returns that is the tensor; None if it returns the tensor.
        names: the name in ``net`` of an argument of the context, ``{"label": "class_labels"}``.
        takes_time: whether ``net`` takes the time.
        gain: a factor of the output. NCSNv2's network f, with the score :math:`f(x)/\sigma`, is the noise
            prediction of ``External(f, takes_time=False, gain=-1.0)``.
        time: a function of the time ``(batch,)`` whose result ``net`` receives: integers as they are, other numbers in
            the dtype of ``x``.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        ScoreFnError: in a call, the output has no such attribute, or it is not a tensor.

    Example:
        >>> net = External(torch.tanh, takes_time=False, gain=-1.0)
        >>> net(torch.zeros(2, 3), torch.ones(2)).shape
        torch.Size([2, 3])
        >>> net = External(lambda x, t: x + t[:, None], time=lambda t: 999 * t)
        >>> net(torch.zeros(2, 1), torch.ones(2)).tolist()
        [[999.0], [999.0]]
    """

    @checked
    def __init__(
        self,
        net: Annotated[Callable[..., Any], called("net(x, time)")],
        *,
        output: str | None = None,
        names: Mapping[str, str] | None = None,
        takes_time: bool = True,
        gain: Number = 1.0,
        time: Annotated[Callable[[Tensor], Tensor], called("time(t)")] | None = None,
    ) -> None:
        super().__init__()
        self.net, self.output, self.names = net, output, dict(names or {})
        self.takes_time, self.gain, self.time = takes_time, gain, time

    def accepts(self, name: str) -> bool:
        """Whether the network has an argument of this name, for the ``context`` of a solve."""
        return accepts(self.net, self.names.get(name, name))

    def forward(self, x: Tensor, time: Tensor, **context: object) -> Tensor:
        if self.time is not None:
            time = self.time(time)
            time = time.to(x.dtype) if time.is_floating_point() else time
        given = (x, time) if self.takes_time else (x,)
        out = self.net(*given, **{self.names.get(name, name): value for name, value in context.items()})
        if self.output is not None:
            out = getattr(out, self.output, out)
        if not isinstance(out, Tensor):
            wanted = "a tensor" if self.output is None else f"an object whose attribute {self.output!r} is a tensor"
            raise ScoreFnError(f"The network must return {wanted}, got {type(out).__name__}.")
        return out if self.gain == 1.0 else self.gain * out


def from_diffusers(unet: Callable[..., Any]) -> External:
    """A U-Net of diffusers as a network: ``unet(sample, timestep, class_labels=…).sample``.

    It is called with the argument ``label`` for its ``class_labels``; other arguments, such as
    ``encoder_hidden_states``, keep their names. Its time is the label of a level, so the model is
    ``ScoreModel(from_diffusers(unet), chain.sde(), "noise", time_input="index", chain=chain)`` with the chain of its
    scheduler's betas. diffusers itself is not imported.

    Example:
        >>> from types import SimpleNamespace
        >>> def unet(sample, timestep, class_labels=None):  # stands for a UNet2DModel
        ...     return SimpleNamespace(sample=0.5 * sample)
        >>> from_diffusers(unet)(
        ...     torch.ones(1, 2), torch.tensor([7]), label=torch.tensor([3])
        ... )
        tensor([[0.5000, 0.5000]])
    """
    return External(unet, output="sample", names={"label": "class_labels"})
