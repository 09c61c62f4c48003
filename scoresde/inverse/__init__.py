r"""Linear inverse problems: the data given a measurement :math:`y = Ax_0 + n`, :math:`n \sim N(0, \sigma_y^2I)`.

- **Operators** measure: `Mask`, `Grey`, `block_average`, `bicubic`, `Blur`, `gaussian_blur`, `random_projection`,
  `PartialFourier`, `Matrix`, and the physics of deepinv (`from_deepinv`); each has its adjoint, pseudo-inverse and
  singular values.
- **Rules** move the data estimate, :math:`\hat x \mapsto E[x_0|x_t, y]`, and so make a score function of the posterior
  from that of the data, for any solver: `condition`.
- **Solvers** need more than the estimate: what happens between steps (`Replacement`, `DPSStep`, `MCG`), the noise of
  each direction (`DDRM`, `DDNMPlus`), weights (`TwistedSMC`), or another path through the levels (`SplitGibbs`). They
  are ``method=`` of `scoresde.solve`.
- `sample_posterior` runs any of them by name. The exact posterior of a target, for comparison, is
  ``target.posterior(operator, y, noise_std)``.
"""

from ..solvers import ParticleInfo
from .conditioned import ConditionedScore
from .measurement import Measurement
from .operators import (
    SVD,
    Blur,
    Composed,
    Diagonal,
    Grey,
    LinearOperator,
    Mask,
    Matrix,
    Nonlinear,
    PartialFourier,
    Separable,
    bicubic,
    block_average,
    from_deepinv,
    gaussian_blur,
    gaussian_kernel,
    motion_kernel,
    random_projection,
)
from .registry import InverseMethod, condition, methods
from .rules import Known, Rule
from .rules.exact import Exact
from .rules.gaussian import DPS, MMPS, TMPD, PiGDM
from .rules.projections import DDNM, DiffPIR
from .sample import PosteriorSamples, sample_posterior
from .samplers import InverseSolver
from .samplers.ddnm_plus import DDNMPlus
from .samplers.ddrm import DDRM
from .samplers.gradient_step import MCG, DPSStep
from .samplers.replacement import Replacement
from .samplers.split_gibbs import SplitGibbs
from .samplers.twisted import TwistedSMC

__all__ = [
    "DDNM",
    "DDRM",
    "DPS",
    "MCG",
    "MMPS",
    "SVD",
    "TMPD",
    "Blur",
    "Composed",
    "ConditionedScore",
    "DDNMPlus",
    "DPSStep",
    "Diagonal",
    "DiffPIR",
    "Exact",
    "Grey",
    "InverseMethod",
    "InverseSolver",
    "Known",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Measurement",
    "Nonlinear",
    "PartialFourier",
    "ParticleInfo",
    "PiGDM",
    "PosteriorSamples",
    "Replacement",
    "Rule",
    "Separable",
    "SplitGibbs",
    "TwistedSMC",
    "bicubic",
    "block_average",
    "condition",
    "from_deepinv",
    "gaussian_blur",
    "gaussian_kernel",
    "methods",
    "motion_kernel",
    "random_projection",
    "sample_posterior",
]
