"""scoresde solves the SDEs and ODEs of score-based generative models.

Any forward process, any score network, any solver, through one loop:

>>> import torch, scoresde
>>> sde = scoresde.VPSDE()
>>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
>>> scoresde.solve(sde, target.score(sde), method="pc").x.shape
torch.Size([1, 2])
"""

from . import grids, solvers, targets
from .controllers import Adaptive, FixedGrid
from .correctors import Corrector, LangevinCorrector
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
    SolveFailedError,
    StepSizeUnderflowError,
    UnsafeCheckpointError,
)
from .grids import Grid
from .integrate import Info, Solution, Status
from .models import ScoreModel
from .noise import BatchNoise, CallableNoise, Noise, SampleNoise
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
    SubVPSDE,
)
from .simulate import simulate
from .solve import solve
from .solvers import Method, Solver, StepResult, methods
