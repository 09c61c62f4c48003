"""Copies to the host that go on while the next batch is made."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Transfers:
    """Copies arrays of a batch to the host.

    From a CUDA device a copy is only begun, into pinned memory, and in the order of the device's stream, so that its
    source may be freed or written over. From another device it is complete at once.

    Example:
        >>> transfers = Transfers()
        >>> array = transfers.start(torch.arange(3))
        >>> transfers.wait()
        >>> array
        array([0, 1, 2])
    """

    def __init__(self) -> None:
        self._begun: list[torch.cuda.Event] = []

    def start(self, value: Tensor) -> np.ndarray:
        """Begin a copy; the array must not be read before `wait` has returned."""
        if value.device.type != "cuda":
            return value.cpu().numpy()
        copy = value.to("cpu", non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(value.device))
        self._begun.append(event)
        return copy.numpy()

    def wait(self) -> None:
        """Return when all copies are complete."""
        for event in self._begun:
            event.synchronize()
        self._begun.clear()
