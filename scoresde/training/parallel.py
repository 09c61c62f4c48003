"""Several processes, as ``torchrun`` starts them: every rank draws its own rows, and the gradients are averaged.

The gradients are averaged here, in one message per step, and not by ``DistributedDataParallel``: that wraps the forward
call of one module, but a loss may call the network several times, differentiate through it, or train a schedule beside
it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from ..core.errors import OutputError
from ..core.support.files import locks


@contextmanager
def processes(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that ``torchrun`` started, if it did: gloo on the CPU, NCCL on CUDA with one device per
    rank."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def rank_and_world() -> tuple[int, int]:
    """This process's number, and how many there are.

    Example:
        >>> rank_and_world()
        (0, 1)
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def barrier() -> None:
    """Wait for all ranks."""
    if rank_and_world()[1] > 1:
        distributed.barrier()


def broadcast(module: nn.Module) -> None:
    """Give every rank the weights of rank 0."""
    if rank_and_world()[1] > 1:
        for tensor in module.state_dict().values():
            distributed.broadcast(tensor, 0)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their means over the ranks; one that is missing counts as 0."""
    world = rank_and_world()[1]
    if world < 2:
        return
    groups: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        groups.setdefault(parameter.dtype, []).append(parameter.grad)
    for gradients in groups.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= world
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def mean(value: float, device: torch.device) -> float:
    """The mean over the ranks."""
    world = rank_and_world()[1]
    if world < 2:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return float(total) / world


def gathered(value: float, device: torch.device) -> list[float]:
    """The values of all ranks, in their order."""
    rank, world = rank_and_world()
    if world < 2:
        return [value]
    values = torch.zeros(world, dtype=torch.float64, device=device)
    values[rank] = value
    distributed.all_reduce(values)
    return values.tolist()


def anywhere(flag: bool, device: torch.device) -> bool:
    """Whether it is true on some rank; all ranks get the same answer."""
    return mean(float(flag), device) > 0


@contextmanager
def owned(folder: Path, device: torch.device) -> Iterator[None]:
    """Hold a folder for all ranks of a run: rank 0 takes the lock.

    Raises:
        OutputError: another run holds it; on every rank.
    """
    refused: OutputError | None = None
    with ExitStack() as held:
        if rank_and_world()[0] == 0:
            try:
                held.enter_context(locks.owned(folder))
            except OutputError as error:
                refused = error
        if anywhere(refused is not None, device):
            raise refused or OutputError(errno.EBUSY, "Rank 0 could not take the folder", str(folder))
        yield
