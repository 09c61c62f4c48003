"""Measurement operators: linear ones with adjoint, pseudo-inverse and singular values, and any function."""

from .base import SVD, Composed, LinearOperator, Matrix, random_projection
from .deepinv import from_deepinv
from .diagonal import Diagonal
from .fourier import Blur, PartialFourier, gaussian_kernel, motion_kernel
from .grey import Grey
from .mask import Mask
from .nonlinear import Nonlinear
from .separable import Separable, bicubic, block_average, gaussian_blur

__all__ = [
    "SVD",
    "Blur",
    "Composed",
    "Diagonal",
    "Grey",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Nonlinear",
    "PartialFourier",
    "Separable",
    "bicubic",
    "block_average",
    "from_deepinv",
    "gaussian_blur",
    "gaussian_kernel",
    "motion_kernel",
    "random_projection",
]
