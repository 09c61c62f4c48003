"""Networks of diffusers, called as networks are called here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import InvalidArgumentError, ScoreFnError
from ...core.support.checks import check_callable, check_flag, check_number
from ...core.support.signatures import accepts, parameters

NAMES = {"label": "class_labels"}  # our names of arguments of the context


class DiffusersNetwork:
    r"""A U-Net or transformer of diffusers as ``net(x, time, **context)``.

    It is called by name, as ``net(sample=x, timestep=time, ...)`` or ``net(hidden_states=x, timestep=time, ...)``: its
    first argument is the state, and ``timestep`` may stand anywhere. Its output may be a tensor, a tuple whose first
    entry is one, or an object with the attribute ``sample``. The state is cast to the network's dtype; times that are
    no integers stay in float32 or wider, since in half precision timesteps would be rounded.

    Args:
        net: the network.
        time_scale: a factor of the time, :math:`10^{-3}` for Flux's transformers, which multiply it by 1000.
        gain: a factor of the output.
        halved: whether to take the first half of the output's channels, of a network that predicts a variance.

    Raises:
        InvalidArgumentError: the network has no argument ``timestep``.
        InvalidTypeError: an argument has the wrong type.
        ScoreFnError: in a call, the output is not one of the three.

    Example:
        >>> def transformer(
        ...     hidden_states, encoder_hidden_states=None, timestep=None, return_dict=True
        ... ):
        ...     return (hidden_states * timestep[:, None],)
        >>> DiffusersNetwork(transformer, time_scale=0.5)(
        ...     torch.ones(1, 2), torch.tensor([3.0])
        ... )
        tensor([[1.5000, 1.5000]])
    """

    def __init__(
        self, net: Callable[..., Any], *, time_scale: float = 1.0, gain: float = 1.0, halved: bool = False
    ) -> None:
        check_callable("net", net, "net(sample, timestep)")
        check_flag("halved", halved)
        known = parameters(net)
        names = [name for name in known or {} if name not in ("args", "kwargs")]
        if names and "timestep" not in names:
            raise InvalidArgumentError(
                f"`net` must have an argument `timestep`, as the networks of diffusers have, got {', '.join(names)}."
            )
        self.net = net
        self.state = names[0] if names else "sample"
        self.time_scale = check_number("time_scale", time_scale, low=0.0, strict=True)
        self.gain = check_number("gain", gain)
        self.halved = halved

    def accepts(self, name: str) -> bool:
        """Whether the network has an argument of this name, for the ``context`` of a solve."""
        return accepts(self.net, NAMES.get(name, name))

    def _dtype(self, x: Tensor) -> torch.dtype:
        weights = self.net.parameters() if isinstance(self.net, nn.Module) else ()
        return next((w.dtype for w in weights if w.is_floating_point()), x.dtype)

    def __call__(self, x: Tensor, time: Tensor, **context: object) -> Tensor:
        """The prediction at a state and a time, ``(batch,)``."""
        dtype = self._dtype(x)
        if time.is_floating_point() or self.time_scale != 1.0:
            time = self.time_scale * time.to(torch.promote_types(dtype, torch.float32))
        named = {NAMES.get(name, name): value for name, value in context.items()}
        out = self.net(**{self.state: x.to(dtype), "timestep": time, **named})
        out = getattr(out, "sample", out[0] if isinstance(out, tuple) and out else out)
        if not isinstance(out, Tensor):
            raise ScoreFnError(
                "The network must return a tensor, a tuple that begins with one, or an object whose attribute "
                f"'sample' is one, got {type(out).__name__}."
            )
        out = out.chunk(2, dim=1)[0] if self.halved else out
        return out if self.gain == 1.0 else self.gain * out


def channels_of(net: object) -> tuple[int | None, int | None]:
    """How many channels a network takes and predicts, as its config says; None where it does not.

    Example:
        >>> from types import SimpleNamespace
        >>> channels_of(SimpleNamespace(config={"in_channels": 4, "out_channels": 8}))
        (4, 8)
    """
    config = getattr(net, "config", None)
    read = config.get if isinstance(config, Mapping) else lambda name: None
    taken, predicted = read("in_channels"), read("out_channels")
    return (
        taken if isinstance(taken, int) else None,
        predicted if isinstance(predicted, int) else taken if isinstance(taken, int) else None,
    )


def event_shape_of(net: object) -> tuple[int, ...] | None:
    """The shape of the data, as the network's config says; None where it does not.

    Example:
        >>> from types import SimpleNamespace
        >>> event_shape_of(SimpleNamespace(config={"in_channels": 3, "sample_size": 32}))
        (3, 32, 32)
    """
    config, channels = getattr(net, "config", None), channels_of(net)[0]
    size = config.get("sample_size") if isinstance(config, Mapping) else None
    sizes = (size, size) if isinstance(size, int) else size
    if channels is None or not isinstance(sizes, tuple | list) or not all(isinstance(n, int) for n in sizes):
        return None
    return (channels, *sizes)
