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

if TYPE_CHECKING:
    from . import (
        discrete,
        grids,
        guidance,
        inverse,
        losses,
        models,
        ncsnv2,
        nets,
        plot,
        presets,
        scores,
        solvers,
        targets,
        testing,
        training,
        zoo,
    )
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
        OutOfMemoryError,
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
    from .inverse.tilted import TiltedSamples, sample_tilted
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
    from .noise import BatchNoise, BrownianPath, CallableNoise, Noise, SampleNoise
    from .scores import Score, ScoreModel
    from .scores.conventions import ScoreReport, check_score
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
    from .simulation import simulate
    from .solvers import Method, Solver, StepResult, methods
    from .solving import solve
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
    "OutOfMemoryError",
    "OutputError",
    "Pretrained",
    "Reconstruction",
    "ReverseSDE",
    "SampleNoise",
    "Score",
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
    "TiltedSamples",
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
    "inverse",
    "load",
    "log_likelihood",
    "losses",
    "methods",
    "models",
    "ncsnv2",
    "nets",
    "plot",
    "presets",
    "reconstruct",
    "sample_tilted",
    "save",
    "scores",
    "simulate",
    "solve",
    "solvers",
    "targets",
    "testing",
    "training",
    "variational_bound",
    "zoo",
]

# Where the names of `__all__` are that are not modules. Each is imported when it is first used (PEP 562), so that the
# command line answers at once. Type checkers read the imports above; a test compares the lists.
_HOMES = homes(
    {
        "controllers": "Adaptive FixedGrid",
        "correctors": "Corrector LangevinCorrector MALACorrector UnderdampedCorrector",
        "errors": "CheckpointError CheckpointMismatchError CorruptCheckpointError InvalidArgumentError "
        "InvalidTypeError MaxStepsError NonFiniteError OutOfMemoryError OutputError ScoreFnError ScoreSDEError "
        "ScoreSDEWarning SolveFailedError StepSizeUnderflowError UnsafeCheckpointError",
        "fit": "FittedGrid fit_grid fit_start",
        "grids": "Grid",
        "integrate": "Info Solution Status",
        "inverse.tilted": "TiltedSamples sample_tilted",
        "latents": "Reconstruction decode encode interpolate reconstruct",
        "likelihood": "Bound DensityProfile Dequantizer Likelihood LowerBound TruncatedNormalDequantizer "
        "UniformDequantizer VariationalDequantizer bits_per_dim chain_bound decoder_bound density_profile dequantize "
        "discrete_log_likelihood fit_control_scale log_likelihood variational_bound",
        "noise": "BatchNoise BrownianPath CallableNoise Noise SampleNoise",
        "scores": "Score ScoreModel",
        "scores.conventions": "ScoreReport check_score",
        "sdes": "EDMSDE SDE VDMSDE VESDE VPSDE AffineSDE CosineVPSDE Estimate FlowSDE GaussianSDE LinearGamma Node "
        "NormalPrior ReverseSDE ShiftedGamma SigmoidVPSDE SubVPSDE",
        "simulation": "simulate",
        "solvers": "Method Solver StepResult methods",
        "solving": "solve",
        "targets": "GaussianStart",
        "zoo": "Pretrained load save",
    }
)

if not TYPE_CHECKING:  # or type checkers would take every name for one of the package
    __getattr__, __dir__ = lazy(__name__, {name: f".{module}" for name, module in _HOMES.items()})
