"""The handwritten digits of scikit-learn, split and dequantised."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from ..core.noise import check_seed
from ..core.support.checks import check_generator
from ..core.support.declared import checked, tensor

DIGITS_NAME = "scikit-learn digits, 1437 of 1797 (scoresde.training.digits_split())"
DIGITS_DATA = f"{DIGITS_NAME}; grey v = 0 ... 16 mapped by x = -1 + 2 (v + u) / 17, u ~ U[0, 1)"


class DigitsSplit(NamedTuple):
    """Integer images ``(n, 1, 8, 8)``, values 0 … 16, and labels ``(n,)``, of the training and the held-out part."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def digits_split(seed: int = 0) -> DigitsSplit:
    """Split the 1,797 digits at random into 1,437 to train on and 360 held out.

    Example:
        >>> split = digits_split()
        >>> split.train_images.shape, split.test_labels.shape, int(split.train_images.max())
        (torch.Size([1437, 1, 8, 8]), torch.Size([360]), 16)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("The digits come with scikit-learn: pip install 'scoresde[train]'.") from error
    seed = check_seed("seed", seed)
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    v = torch.from_numpy(images).long().reshape(-1, 1, 8, 8)[order]
    label = torch.from_numpy(labels).long()[order]
    train = len(v) * 4 // 5
    return DigitsSplit(v[:train], label[:train], v[train:], label[train:])


@checked
def grey_to_x(v: Annotated[Tensor, tensor(kind="real")], generator: torch.Generator | None = None) -> Tensor:
    r"""Dequantise integer grey levels 0 … 16: :math:`x = -1 + 2 (v + u)/17`, :math:`u \sim U[0, 1)`.

    Example:
        >>> x = grey_to_x(torch.tensor([0, 16]), torch.Generator().manual_seed(0))
        >>> ((x + 1) / 2 * 17).floor()
        tensor([ 0., 16.])
    """
    check_generator(generator, device=v.device)
    return -1 + 2 * (v + torch.rand(v.shape, generator=generator, device=v.device)) / 17
