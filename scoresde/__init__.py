"""scoresde solves the SDEs and ODEs of score-based generative models.

Any forward process, any score network, any solver, through one loop:

>>> import torch, scoresde
>>> sde = scoresde.VPSDE()
>>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
>>> scoresde.solve(sde, target.score(sde), method="pc").x.shape
torch.Size([1, 2])
"""

from . import discrete, grids, guidance, losses, models, ncsnv2, nets, plot, solvers, targets, testing, training, zoo
from .check import ScoreReport, check_score
from .controllers import Adaptive, FixedGrid
from .correctors import Corrector, LangevinCorrector, MALACorrector, UnderdampedCorrector
from .errors import (
    CheckpointError,
    CheckpointMismatchError,
    CorruptCheckpointError,
    InvalidArgumentError,
    InvalidTypeError,
    MaxStepsError,
    NonFiniteError,
    OutputError,
    ScoreFnError,
    ScoreSDEError,
    ScoreSDEWarning,
    SolveFailedError,
    StepSizeUnderflowError,
    UnsafeCheckpointError,
)
from .fit import FittedGrid, fit_grid, fit_start
from .grids import Grid
from .integrate import Info, Solution, Status
from .latents import Reconstruction, decode, encode, interpolate, reconstruct
from .likelihood import (
    Bound,
    DensityProfile,
    Dequantizer,
    Likelihood,
    LowerBound,
    TruncatedNormalDequantizer,
    UniformDequantizer,
    VariationalDequantizer,
    bits_per_dim,
    chain_bound,
    decoder_bound,
    density_profile,
    dequantize,
    discrete_log_likelihood,
    fit_control_scale,
    log_likelihood,
    variational_bound,
)
from .models import ScoreModel
from .noise import BatchNoise, BrownianPath, CallableNoise, Noise, SampleNoise
from .sdes import (
    EDMSDE,
    SDE,
    VDMSDE,
    VESDE,
    VPSDE,
    AffineSDE,
    CosineVPSDE,
    Estimate,
    FlowSDE,
    GaussianSDE,
    LinearGamma,
    Node,
    NormalPrior,
    ReverseSDE,
    ShiftedGamma,
    SigmoidVPSDE,
    SubVPSDE,
)
from .simulate import simulate
from .solve import solve
from .solvers import Method, Solver, StepResult, methods
from .targets import GaussianStart
from .zoo import Pretrained, load, save

__version__ = "0.1.0"

__all__ = [
    "EDMSDE",
    "SDE",
    "VDMSDE",
    "VESDE",
    "VPSDE",
    "Adaptive",
    "AffineSDE",
    "BatchNoise",
    "Bound",
    "BrownianPath",
    "CallableNoise",
    "CheckpointError",
    "CheckpointMismatchError",
    "Corrector",
    "CorruptCheckpointError",
    "CosineVPSDE",
    "DensityProfile",
    "Dequantizer",
    "Estimate",
    "FittedGrid",
    "FixedGrid",
    "FlowSDE",
    "GaussianSDE",
    "GaussianStart",
    "Grid",
    "Info",
    "InvalidArgumentError",
    "InvalidTypeError",
    "LangevinCorrector",
    "Likelihood",
    "LinearGamma",
    "LowerBound",
    "MALACorrector",
    "MaxStepsError",
    "Method",
    "Node",
    "Noise",
    "NonFiniteError",
    "NormalPrior",
    "OutputError",
    "Pretrained",
    "Reconstruction",
    "ReverseSDE",
    "SampleNoise",
    "ScoreFnError",
    "ScoreModel",
    "ScoreReport",
    "ScoreSDEError",
    "ScoreSDEWarning",
    "ShiftedGamma",
    "SigmoidVPSDE",
    "Solution",
    "SolveFailedError",
    "Solver",
    "Status",
    "StepResult",
    "StepSizeUnderflowError",
    "SubVPSDE",
    "TruncatedNormalDequantizer",
    "UnderdampedCorrector",
    "UniformDequantizer",
    "UnsafeCheckpointError",
    "VariationalDequantizer",
    "bits_per_dim",
    "chain_bound",
    "check_score",
    "decode",
    "decoder_bound",
    "density_profile",
    "dequantize",
    "discrete",
    "discrete_log_likelihood",
    "encode",
    "fit_control_scale",
    "fit_grid",
    "fit_start",
    "grids",
    "guidance",
    "interpolate",
    "load",
    "log_likelihood",
    "losses",
    "methods",
    "models",
    "ncsnv2",
    "nets",
    "plot",
    "reconstruct",
    "save",
    "simulate",
    "solve",
    "solvers",
    "targets",
    "testing",
    "training",
    "variational_bound",
    "zoo",
]
