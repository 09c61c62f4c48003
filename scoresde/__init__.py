"""scoresde solves the SDEs and ODEs of score-based generative models.

Any forward process, any score network, any solver, through one loop:

>>> import torch, scoresde
>>> sde = scoresde.VPSDE()
>>> target = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2))
>>> scoresde.solve(sde, target.score(sde), method="pc").x.shape
torch.Size([1, 2])
"""

from typing import TYPE_CHECKING

from ._lazy import homes, lazy

if TYPE_CHECKING:  # for type checkers, which do not see what is imported later
    from . import discrete as discrete
    from . import generation as generation
    from . import grids as grids
    from . import guidance as guidance
    from . import interop as interop
    from . import inverse as inverse
    from . import losses as losses
    from . import ncsnv2 as ncsnv2
    from . import nets as nets
    from . import paths as paths
    from . import plot as plot
    from . import presets as presets
    from . import scores as scores
    from . import solvers as solvers
    from . import targets as targets
    from . import testing as testing
    from . import training as training
    from . import trust as trust
    from . import zoo as zoo
    from .controllers import Adaptive as Adaptive
    from .controllers import FixedGrid as FixedGrid
    from .correctors import Corrector as Corrector
    from .correctors import LangevinCorrector as LangevinCorrector
    from .correctors import MALACorrector as MALACorrector
    from .correctors import UnderdampedCorrector as UnderdampedCorrector
    from .errors import CheckpointError as CheckpointError
    from .errors import CheckpointMismatchError as CheckpointMismatchError
    from .errors import CorruptCheckpointError as CorruptCheckpointError
    from .errors import InvalidArgumentError as InvalidArgumentError
    from .errors import InvalidTypeError as InvalidTypeError
    from .errors import MaxStepsError as MaxStepsError
    from .errors import NonFiniteError as NonFiniteError
    from .errors import OutOfMemoryError as OutOfMemoryError
    from .errors import OutputError as OutputError
    from .errors import ScoreFnError as ScoreFnError
    from .errors import ScoreSDEError as ScoreSDEError
    from .errors import ScoreSDEWarning as ScoreSDEWarning
    from .errors import SolveFailedError as SolveFailedError
    from .errors import StepSizeUnderflowError as StepSizeUnderflowError
    from .errors import UnsafeCheckpointError as UnsafeCheckpointError
    from .fit import FittedGrid as FittedGrid
    from .fit import fit_grid as fit_grid
    from .fit import fit_solver as fit_solver
    from .fit import fit_start as fit_start
    from .fit import tune as tune
    from .generation import generate as generate
    from .grids import Grid as Grid
    from .integrate import Info as Info
    from .integrate import Solution as Solution
    from .integrate import Status as Status
    from .inverse.tilted import TiltedSamples as TiltedSamples
    from .inverse.tilted import sample_tilted as sample_tilted
    from .latents import Reconstruction as Reconstruction
    from .latents import decode as decode
    from .latents import encode as encode
    from .latents import interpolate as interpolate
    from .latents import reconstruct as reconstruct
    from .likelihood import Bound as Bound
    from .likelihood import DensityProfile as DensityProfile
    from .likelihood import Dequantizer as Dequantizer
    from .likelihood import Likelihood as Likelihood
    from .likelihood import LowerBound as LowerBound
    from .likelihood import TruncatedNormalDequantizer as TruncatedNormalDequantizer
    from .likelihood import UniformDequantizer as UniformDequantizer
    from .likelihood import VariationalDequantizer as VariationalDequantizer
    from .likelihood import bits_per_dim as bits_per_dim
    from .likelihood import chain_bound as chain_bound
    from .likelihood import decoder_bound as decoder_bound
    from .likelihood import density_profile as density_profile
    from .likelihood import dequantize as dequantize
    from .likelihood import discrete_log_likelihood as discrete_log_likelihood
    from .likelihood import fit_control_scale as fit_control_scale
    from .likelihood import log_likelihood as log_likelihood
    from .likelihood import variational_bound as variational_bound
    from .noise import BatchNoise as BatchNoise
    from .noise import BrownianPath as BrownianPath
    from .noise import CallableNoise as CallableNoise
    from .noise import Noise as Noise
    from .noise import SampleNoise as SampleNoise
    from .scores import Score as Score
    from .scores import ScoreModel as ScoreModel
    from .scores.conventions import ScoreReport as ScoreReport
    from .scores.conventions import check_score as check_score
    from .sdes import EDMSDE as EDMSDE
    from .sdes import SDE as SDE
    from .sdes import VDMSDE as VDMSDE
    from .sdes import VESDE as VESDE
    from .sdes import VPSDE as VPSDE
    from .sdes import AffineSDE as AffineSDE
    from .sdes import CosineVPSDE as CosineVPSDE
    from .sdes import Estimate as Estimate
    from .sdes import FlowSDE as FlowSDE
    from .sdes import GaussianSDE as GaussianSDE
    from .sdes import LinearGamma as LinearGamma
    from .sdes import Node as Node
    from .sdes import NormalPrior as NormalPrior
    from .sdes import ReverseSDE as ReverseSDE
    from .sdes import ShiftedGamma as ShiftedGamma
    from .sdes import SigmoidVPSDE as SigmoidVPSDE
    from .sdes import SubVPSDE as SubVPSDE
    from .simulation import simulate as simulate
    from .solvers import Method as Method
    from .solvers import Solver as Solver
    from .solvers import StepResult as StepResult
    from .solvers import methods as methods
    from .solving import solve as solve
    from .stepping import Stepper as Stepper
    from .targets import GaussianStart as GaussianStart
    from .trust import advise as advise
    from .trust import certify as certify
    from .trust import diagnose as diagnose
    from .zoo import Pretrained as Pretrained
    from .zoo import load as load
    from .zoo import save as save

__version__ = "0.1.0"

_MODULES = (
    "discrete generation grids guidance interop inverse losses ncsnv2 nets paths plot presets scores solvers "
    "targets testing training trust zoo"
)
# Where the other public names are. Each is imported when it is first used (PEP 562), so that the command line answers
# at once. Type checkers read the imports above; a test compares the lists.
_HOMES = homes(
    {
        "errors": "InvalidArgumentError NonFiniteError ScoreSDEError ScoreSDEWarning SolveFailedError",
        "fit": "fit_grid fit_solver tune",
        "integrate": "Solution",
        "generation": "generate",
        "latents": "decode encode",
        "likelihood": "Likelihood bits_per_dim dequantize log_likelihood variational_bound",
        "noise": "BrownianPath",
        "scores": "ScoreModel",
        "scores.conventions": "check_score",
        "sdes": "EDMSDE SDE VDMSDE VESDE VPSDE AffineSDE CosineVPSDE FlowSDE GaussianSDE LinearGamma SubVPSDE",
        "simulation": "simulate",
        "solvers": "methods",
        "solving": "solve",
        "stepping": "Stepper",
        "trust": "advise certify diagnose",
        "zoo": "load save",
    }
)
# Public in their modules, and found here as well, where they were at first.
_MOVED = homes(
    {
        "controllers": "Adaptive FixedGrid",
        "correctors": "Corrector LangevinCorrector MALACorrector UnderdampedCorrector",
        "errors": "CheckpointError CheckpointMismatchError CorruptCheckpointError InvalidTypeError MaxStepsError "
        "OutOfMemoryError OutputError ScoreFnError StepSizeUnderflowError UnsafeCheckpointError",
        "fit": "FittedGrid fit_start",
        "grids": "Grid",
        "integrate": "Info Status",
        "inverse.tilted": "TiltedSamples sample_tilted",
        "latents": "Reconstruction interpolate reconstruct",
        "likelihood": "Bound DensityProfile Dequantizer LowerBound TruncatedNormalDequantizer UniformDequantizer "
        "VariationalDequantizer chain_bound decoder_bound density_profile discrete_log_likelihood "
        "fit_control_scale",
        "noise": "BatchNoise CallableNoise Noise SampleNoise",
        "scores": "Score",
        "scores.conventions": "ScoreReport",
        "sdes": "Estimate Node NormalPrior ReverseSDE ShiftedGamma SigmoidVPSDE",
        "solvers": "Method Solver StepResult",
        "targets": "GaussianStart",
        "zoo": "Pretrained",
    }
)

__all__ = sorted({*_MODULES.split(), *_HOMES})

if not TYPE_CHECKING:  # or type checkers would take every name for one of the package
    _found = {name: f".{module}" for name, module in {**_HOMES, **_MOVED}.items()}
    __getattr__, __dir__ = lazy(__name__, _found, {*__all__, *(home.partition(".")[0] for home in _MOVED.values())})
