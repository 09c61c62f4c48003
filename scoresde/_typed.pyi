"""What `method` may be, and the options of each method, for editors and type checkers.

`python -m benchmarks signatures` writes this file, and nothing imports it at run time. The last overload of a function
is for names that are not known before, and for solvers; it has no options, which come with `**` beside such a name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, overload

import torch
from torch import Tensor
from typing_extensions import Unpack

from . import grids
from ._setup import GridChoice
from ._tensors import Scalar
from .correctors import Corrector
from .fit import FittedGrid
from .fit.search import Objective
from .grids import Grid
from .integrate import Info, Solution
from .inverse.conditioned import Conditioned
from .inverse.rules import Rule
from .inverse.sample import PosteriorSamples
from .latents import Reconstruction
from .likelihood import Likelihood
from .noise import Noise
from .scores import Score, ScoreModel
from .sdes import SDE, AffineSDE
from .solvers import Solver
from .stepping import Stepper
from .targets import Gaussian, GaussianMixture, GaussianStart
from .zoo.pretrained import Pretrained

MethodName: TypeAlias = Literal["pc", "euler_maruyama", "reverse_diffusion", "ancestral", "ddim_eta", "euler_ancestral", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde", "dpmpp_2s_ancestral", "seeds1", "dpm_sde_1", "seeds2", "seeds3", "sa_solver", "er_sde1", "er_sde2", "er_sde3", "heun_sde", "sra1", "shark", "ggf", "dpmpp_sde12", "edm", "restart", "cas", "langevin", "annealed_langevin", "ncsn", "euler", "heun", "midpoint", "rk4", "ddim", "dpm_2s", "dpm_3s", "dpm_2m", "dpm_3m", "dpmpp_2s", "dpmpp_3s", "dpmpp_2m", "dpmpp_3m", "unip2", "unip3", "unipc1", "unipc2", "unipc", "unipc3", "tab2", "tab3", "tab4", "rho_ab2", "rho_ab3", "rho_ab4", "lms", "ipndm", "plms", "rho_heun", "edm_heun", "rho_midpoint", "rho_ralston", "rho_kutta3", "rho_rk4", "res_2s", "res_3s", "rk45", "rk23", "tsit5", "dop853", "dpm12", "dpm23", "erk32", "erk43", "adams", "torchdiffeq:euler", "torchdiffeq:midpoint", "torchdiffeq:heun2", "torchdiffeq:heun3", "torchdiffeq:rk4", "torchdiffeq:dopri8", "torchdiffeq:dopri5", "torchdiffeq:bosh3", "torchdiffeq:fehlberg2", "torchdiffeq:adaptive_heun", "torchdiffeq:explicit_adams", "torchdiffeq:implicit_adams", "scipy:RK45", "scipy:RK23", "scipy:DOP853", "scipy:Radau", "scipy:BDF", "scipy:LSODA", "torchsde:euler", "torchsde:milstein", "torchsde:srk", "torchsde:heun", "torchsde:midpoint", "torchsde:euler_heun", "torchsde:log_ode", "torchsde:reversible_heun"]
ForwardName: TypeAlias = Literal["euler_maruyama", "heun_sde", "sra1", "shark", "torchsde:euler", "torchsde:milstein", "torchsde:srk", "torchsde:heun", "torchsde:midpoint", "torchsde:euler_heun", "torchsde:log_ode", "torchsde:reversible_heun"]
RuleName: TypeAlias = Literal["mmps", "tmpd", "pigdm", "dps", "ddnm", "diffpir", "exact"]
InverseName: TypeAlias = Literal["mmps", "tmpd", "pigdm", "dps", "ddnm", "diffpir", "exact", "replacement", "dps_step", "mcg", "ddrm", "ddnm_plus", "twisted_smc", "split_gibbs"]

class SolveArguments(TypedDict, total=False):
    shape: Sequence[int] | None
    steps: int | None
    grid: str | Grid | Tensor | grids.GridFunction | None
    rtol: float | None
    atol: float | None
    t_start: float | None
    t_end: float | None
    start: GaussianStart | None
    stochasticity: float | None
    context: Mapping[str, object] | None
    seed: int | None
    seeds: Sequence[int] | Tensor | None
    generator: torch.Generator | None
    noise: Noise | Callable[[int, Tensor], Tensor] | None
    denoise: bool
    save_at: Sequence[float] | Tensor | str | None
    callback: Callable[[Info], object] | None
    progress: bool
    max_steps: int | None
    throw: bool
    differentiable: bool
    log_prob: bool | Mapping[str, object] | Callable[[Tensor, Tensor], Tensor]
    path_log_prob: bool | str
    dtype: torch.dtype | None
    device: torch.device | str | None

class SolvePredictorCorrector(SolveArguments, total=False):
    predictor: Solver | MethodName | str
    corrector: Corrector | Literal["langevin", "underdamped", "mala"] | str
    order: str
    snr: float
    moves: int
    rule: str
    chain: int | None
    friction: float

class SolveAncestral(SolveArguments, total=False):
    variance: str
    condition: str

class SolveDDIMEta(SolveArguments, total=False):
    eta: float

class SolveDPMpp2MSDE(SolveArguments, total=False):
    prediction: str
    form: str
    start_up: str
    lower_order_final: bool
    eta: float

class SolveDPMpp3MSDE(SolveArguments, total=False):
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool
    eta: float

class SolveDPMppSDE(SolveArguments, total=False):
    eta: float
    r: float

class SolveSASolver(SolveArguments, total=False):
    predictor_order: int
    corrector_order: int
    tau: float | Callable[[float], float]
    lower_order_final: bool
    correct_last: bool

class SolveERSDE(SolveArguments, total=False):
    order: int
    scale: Callable[[Scalar], Scalar]
    lower_order_final: bool

class SolveEDM(SolveArguments, total=False):
    s_churn: float
    s_min: float
    s_max: float
    s_noise: float
    a: float

class SolveRestart(SolveArguments, total=False):
    intervals: tuple[Any, ...]

class SolveCAS(SolveArguments, total=False):
    epsilon: float

class SolveLangevin(SolveArguments, total=False):
    snr: float
    moves: int

class SolveAnnealedLangevin(SolveArguments, total=False):
    epsilon: float | None
    moves: int
    convention: str

class SolveDPM2S(SolveArguments, total=False):
    prediction: str
    form: str
    r: float

class SolveDPM3S(SolveArguments, total=False):
    prediction: str
    form: str
    r1: float

class SolveDPM2M(SolveArguments, total=False):
    prediction: str
    form: str
    start_up: str
    lower_order_final: bool

class SolveDPM3M(SolveArguments, total=False):
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool

class SolveUniP(SolveArguments, total=False):
    order: int
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool

class SolveUniPC(SolveArguments, total=False):
    order: int
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool
    correct_last: bool

class SolveTAB(SolveArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool
    clock: str

class SolveRhoAB(SolveArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool

class SolveRES2S(SolveArguments, total=False):
    prediction: str
    c2: float

class SolveRES3S(SolveArguments, total=False):
    prediction: str
    c2: float
    c3: float

class SolveRK45(SolveArguments, total=False):
    form: str

class SolveDPM12(SolveArguments, total=False):
    prediction: str

class SolveAdams(SolveArguments, total=False):
    max_order: int
    spread: float | None

class SolveTorchDiffEqEuler(SolveArguments, total=False):
    clock: str

class SolveTorchDiffEqDopri8(SolveArguments, total=False):
    clock: str
    lenient: bool

class SolveTorchDiffEqExplicitAdams(SolveArguments, total=False):
    clock: str
    lenient: bool
    max_order: int
    tolerance: float

class StepperArguments(TypedDict, total=False):
    prediction: str | ScoreModel | Callable[..., Score]
    shape: Sequence[int] | None
    steps: int | None
    grid: GridChoice
    rtol: float | None
    atol: float | None
    t_start: float | None
    t_end: float | None
    start: GaussianStart | None
    stochasticity: float | None
    seed: int | None
    seeds: Sequence[int] | Tensor | None
    generator: torch.Generator | None
    noise: Noise | Callable[[int, Tensor], Tensor] | None
    denoise: bool
    save_at: Sequence[float] | Tensor | str | None
    max_steps: int | None
    throw: bool
    dtype: torch.dtype | None
    device: torch.device | str | None

class StepperPredictorCorrector(StepperArguments, total=False):
    predictor: Solver | MethodName | str
    corrector: Corrector | Literal["langevin", "underdamped", "mala"] | str
    order: str
    snr: float
    moves: int
    rule: str
    chain: int | None
    friction: float
    log_prob: Callable[[Tensor, Tensor], Tensor]

class StepperAncestral(StepperArguments, total=False):
    variance: str
    condition: str

class StepperDDIMEta(StepperArguments, total=False):
    eta: float

class StepperDPMpp2MSDE(StepperArguments, total=False):
    form: str
    start_up: str
    lower_order_final: bool
    eta: float

class StepperDPMpp3MSDE(StepperArguments, total=False):
    variant: str
    start_up: str
    lower_order_final: bool
    eta: float

class StepperDPMppSDE(StepperArguments, total=False):
    eta: float
    r: float

class StepperSASolver(StepperArguments, total=False):
    predictor_order: int
    corrector_order: int
    tau: float | Callable[[float], float]
    lower_order_final: bool
    correct_last: bool

class StepperERSDE(StepperArguments, total=False):
    order: int
    scale: Callable[[Scalar], Scalar]
    lower_order_final: bool

class StepperEDM(StepperArguments, total=False):
    s_churn: float
    s_min: float
    s_max: float
    s_noise: float
    a: float

class StepperRestart(StepperArguments, total=False):
    intervals: tuple[Any, ...]

class StepperCAS(StepperArguments, total=False):
    epsilon: float

class StepperLangevin(StepperArguments, total=False):
    snr: float
    moves: int

class StepperAnnealedLangevin(StepperArguments, total=False):
    epsilon: float | None
    moves: int
    convention: str

class StepperDPM2S(StepperArguments, total=False):
    form: str
    r: float

class StepperDPM3S(StepperArguments, total=False):
    form: str
    r1: float

class StepperDPM2M(StepperArguments, total=False):
    form: str
    start_up: str
    lower_order_final: bool

class StepperDPM3M(StepperArguments, total=False):
    variant: str
    start_up: str
    lower_order_final: bool

class StepperUniP(StepperArguments, total=False):
    order: int
    variant: str
    start_up: str
    lower_order_final: bool

class StepperUniPC(StepperArguments, total=False):
    order: int
    variant: str
    start_up: str
    lower_order_final: bool
    correct_last: bool

class StepperTAB(StepperArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool
    clock: str

class StepperRhoAB(StepperArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool

class StepperRES2S(StepperArguments, total=False):
    c2: float

class StepperRES3S(StepperArguments, total=False):
    c2: float
    c3: float

class StepperRK45(StepperArguments, total=False):
    form: str

class StepperAdams(StepperArguments, total=False):
    max_order: int
    spread: float | None

class StepperTorchDiffEqEuler(StepperArguments, total=False):
    clock: str

class StepperTorchDiffEqDopri8(StepperArguments, total=False):
    clock: str
    lenient: bool

class StepperTorchDiffEqExplicitAdams(StepperArguments, total=False):
    clock: str
    lenient: bool
    max_order: int
    tolerance: float

class DecodeArguments(TypedDict, total=False):
    temperature: float
    shape: Sequence[int] | None
    steps: int | None
    grid: str | Grid | Tensor | grids.GridFunction | None
    rtol: float | None
    atol: float | None
    t_start: float | None
    t_end: float | None
    start: GaussianStart | None
    stochasticity: float | None
    context: Mapping[str, object] | None
    seed: int | None
    seeds: Sequence[int] | Tensor | None
    generator: torch.Generator | None
    noise: Noise | Callable[[int, Tensor], Tensor] | None
    denoise: bool
    save_at: Sequence[float] | Tensor | str | None
    callback: Callable[[Info], object] | None
    progress: bool
    max_steps: int | None
    throw: bool
    differentiable: bool
    log_prob: bool | Mapping[str, object] | Callable[[Tensor, Tensor], Tensor]
    path_log_prob: bool | str
    dtype: torch.dtype | None
    device: torch.device | str | None

class DecodeDPM2S(DecodeArguments, total=False):
    prediction: str
    form: str
    r: float

class DecodeDPM3S(DecodeArguments, total=False):
    prediction: str
    form: str
    r1: float

class DecodeDPM2M(DecodeArguments, total=False):
    prediction: str
    form: str
    start_up: str
    lower_order_final: bool

class DecodeDPM3M(DecodeArguments, total=False):
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool

class DecodeUniP(DecodeArguments, total=False):
    order: int
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool

class DecodeUniPC(DecodeArguments, total=False):
    order: int
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool
    correct_last: bool

class DecodeTAB(DecodeArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool
    clock: str

class DecodeRhoAB(DecodeArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool

class DecodeRES2S(DecodeArguments, total=False):
    prediction: str
    c2: float

class DecodeRES3S(DecodeArguments, total=False):
    prediction: str
    c2: float
    c3: float

class DecodeRK45(DecodeArguments, total=False):
    form: str

class DecodeDPM12(DecodeArguments, total=False):
    prediction: str

class DecodeAdams(DecodeArguments, total=False):
    max_order: int
    spread: float | None

class DecodeTorchDiffEqEuler(DecodeArguments, total=False):
    clock: str

class DecodeTorchDiffEqDopri8(DecodeArguments, total=False):
    clock: str
    lenient: bool

class DecodeTorchDiffEqExplicitAdams(DecodeArguments, total=False):
    clock: str
    lenient: bool
    max_order: int
    tolerance: float

class ReconstructArguments(TypedDict, total=False):
    shape: Sequence[int] | None
    steps: int | None
    grid: str | Grid | Tensor | grids.GridFunction | None
    rtol: float | None
    atol: float | None
    start: GaussianStart | None
    stochasticity: float | None
    context: Mapping[str, object] | None
    seed: int | None
    seeds: Sequence[int] | Tensor | None
    generator: torch.Generator | None
    noise: Noise | Callable[[int, Tensor], Tensor] | None
    denoise: bool
    save_at: Sequence[float] | Tensor | str | None
    callback: Callable[[Info], object] | None
    progress: bool
    max_steps: int | None
    throw: bool
    differentiable: bool
    log_prob: bool | Mapping[str, object] | Callable[[Tensor, Tensor], Tensor]
    path_log_prob: bool | str
    dtype: torch.dtype | None
    device: torch.device | str | None

class ReconstructDPM2S(ReconstructArguments, total=False):
    prediction: str
    form: str
    r: float

class ReconstructDPM3S(ReconstructArguments, total=False):
    prediction: str
    form: str
    r1: float

class ReconstructDPM2M(ReconstructArguments, total=False):
    prediction: str
    form: str
    start_up: str
    lower_order_final: bool

class ReconstructDPM3M(ReconstructArguments, total=False):
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool

class ReconstructUniP(ReconstructArguments, total=False):
    order: int
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool

class ReconstructUniPC(ReconstructArguments, total=False):
    order: int
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool
    correct_last: bool

class ReconstructTAB(ReconstructArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool
    clock: str

class ReconstructRhoAB(ReconstructArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool

class ReconstructRES2S(ReconstructArguments, total=False):
    prediction: str
    c2: float

class ReconstructRES3S(ReconstructArguments, total=False):
    prediction: str
    c2: float
    c3: float

class ReconstructRK45(ReconstructArguments, total=False):
    form: str

class ReconstructDPM12(ReconstructArguments, total=False):
    prediction: str

class ReconstructAdams(ReconstructArguments, total=False):
    max_order: int
    spread: float | None

class ReconstructTorchDiffEqEuler(ReconstructArguments, total=False):
    clock: str

class ReconstructTorchDiffEqDopri8(ReconstructArguments, total=False):
    clock: str
    lenient: bool

class ReconstructTorchDiffEqExplicitAdams(ReconstructArguments, total=False):
    clock: str
    lenient: bool
    max_order: int
    tolerance: float

class SampleArguments(TypedDict, total=False):
    label: int | Tensor | None
    steps: int | None
    grid: str | Grid | Tensor | grids.GridFunction | None
    rtol: float | None
    atol: float | None
    t_start: float | None
    t_end: float | None
    start: GaussianStart | None
    stochasticity: float | None
    context: Mapping[str, object] | None
    seed: int | None
    seeds: Sequence[int] | Tensor | None
    generator: torch.Generator | None
    noise: Noise | Callable[[int, Tensor], Tensor] | None
    denoise: bool
    save_at: Sequence[float] | Tensor | str | None
    callback: Callable[[Info], object] | None
    progress: bool
    max_steps: int | None
    throw: bool
    differentiable: bool
    log_prob: bool | Mapping[str, object] | Callable[[Tensor, Tensor], Tensor]
    path_log_prob: bool | str
    dtype: torch.dtype | None
    device: torch.device | str | None

class SamplePredictorCorrector(SampleArguments, total=False):
    predictor: Solver | MethodName | str
    corrector: Corrector | Literal["langevin", "underdamped", "mala"] | str
    order: str
    snr: float
    moves: int
    rule: str
    chain: int | None
    friction: float

class SampleAncestral(SampleArguments, total=False):
    variance: str
    condition: str

class SampleDDIMEta(SampleArguments, total=False):
    eta: float

class SampleDPMpp2MSDE(SampleArguments, total=False):
    prediction: str
    form: str
    start_up: str
    lower_order_final: bool
    eta: float

class SampleDPMpp3MSDE(SampleArguments, total=False):
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool
    eta: float

class SampleDPMppSDE(SampleArguments, total=False):
    eta: float
    r: float

class SampleSASolver(SampleArguments, total=False):
    predictor_order: int
    corrector_order: int
    tau: float | Callable[[float], float]
    lower_order_final: bool
    correct_last: bool

class SampleERSDE(SampleArguments, total=False):
    order: int
    scale: Callable[[Scalar], Scalar]
    lower_order_final: bool

class SampleEDM(SampleArguments, total=False):
    s_churn: float
    s_min: float
    s_max: float
    s_noise: float
    a: float

class SampleRestart(SampleArguments, total=False):
    intervals: tuple[Any, ...]

class SampleCAS(SampleArguments, total=False):
    epsilon: float

class SampleLangevin(SampleArguments, total=False):
    snr: float
    moves: int

class SampleAnnealedLangevin(SampleArguments, total=False):
    epsilon: float | None
    moves: int
    convention: str

class SampleDPM2S(SampleArguments, total=False):
    prediction: str
    form: str
    r: float

class SampleDPM3S(SampleArguments, total=False):
    prediction: str
    form: str
    r1: float

class SampleDPM2M(SampleArguments, total=False):
    prediction: str
    form: str
    start_up: str
    lower_order_final: bool

class SampleDPM3M(SampleArguments, total=False):
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool

class SampleUniP(SampleArguments, total=False):
    order: int
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool

class SampleUniPC(SampleArguments, total=False):
    order: int
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool
    correct_last: bool

class SampleTAB(SampleArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool
    clock: str

class SampleRhoAB(SampleArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool

class SampleRES2S(SampleArguments, total=False):
    prediction: str
    c2: float

class SampleRES3S(SampleArguments, total=False):
    prediction: str
    c2: float
    c3: float

class SampleRK45(SampleArguments, total=False):
    form: str

class SampleDPM12(SampleArguments, total=False):
    prediction: str

class SampleAdams(SampleArguments, total=False):
    max_order: int
    spread: float | None

class SampleTorchDiffEqEuler(SampleArguments, total=False):
    clock: str

class SampleTorchDiffEqDopri8(SampleArguments, total=False):
    clock: str
    lenient: bool

class SampleTorchDiffEqExplicitAdams(SampleArguments, total=False):
    clock: str
    lenient: bool
    max_order: int
    tolerance: float

class SampleOptions(SampleArguments, total=False):
    predictor: Any
    corrector: Any
    order: Any
    snr: Any
    moves: Any
    rule: Any
    chain: Any
    friction: Any
    variance: Any
    condition: Any
    eta: Any
    prediction: Any
    form: Any
    start_up: Any
    lower_order_final: Any
    variant: Any
    r: Any
    predictor_order: Any
    corrector_order: Any
    tau: Any
    correct_last: Any
    scale: Any
    s_churn: Any
    s_min: Any
    s_max: Any
    s_noise: Any
    a: Any
    intervals: Any
    epsilon: Any
    convention: Any
    r1: Any
    clock: Any
    c2: Any
    c3: Any
    max_order: Any
    spread: Any
    lenient: Any
    tolerance: Any

class SampleKDiffusionArguments(TypedDict, total=False):
    noise_sampler: Callable[[Tensor, Tensor], Tensor] | None
    generator: torch.Generator | None
    rtol: float | None
    atol: float | None

class SampleKDiffusionPredictorCorrector(SampleKDiffusionArguments, total=False):
    predictor: Solver | MethodName | str
    corrector: Corrector | Literal["langevin", "underdamped", "mala"] | str
    order: str
    snr: float
    moves: int
    rule: str
    chain: int | None
    friction: float
    log_prob: Callable[[Tensor, Tensor], Tensor]

class SampleKDiffusionAncestral(SampleKDiffusionArguments, total=False):
    variance: str
    condition: str

class SampleKDiffusionDDIMEta(SampleKDiffusionArguments, total=False):
    eta: float

class SampleKDiffusionDPMpp2MSDE(SampleKDiffusionArguments, total=False):
    prediction: str
    form: str
    start_up: str
    lower_order_final: bool
    eta: float

class SampleKDiffusionDPMpp3MSDE(SampleKDiffusionArguments, total=False):
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool
    eta: float

class SampleKDiffusionDPMppSDE(SampleKDiffusionArguments, total=False):
    eta: float
    r: float

class SampleKDiffusionSASolver(SampleKDiffusionArguments, total=False):
    predictor_order: int
    corrector_order: int
    tau: float | Callable[[float], float]
    lower_order_final: bool
    correct_last: bool

class SampleKDiffusionERSDE(SampleKDiffusionArguments, total=False):
    order: int
    scale: Callable[[Scalar], Scalar]
    lower_order_final: bool

class SampleKDiffusionEDM(SampleKDiffusionArguments, total=False):
    s_churn: float
    s_min: float
    s_max: float
    s_noise: float
    a: float

class SampleKDiffusionRestart(SampleKDiffusionArguments, total=False):
    intervals: tuple[Any, ...]

class SampleKDiffusionCAS(SampleKDiffusionArguments, total=False):
    epsilon: float

class SampleKDiffusionLangevin(SampleKDiffusionArguments, total=False):
    snr: float
    moves: int

class SampleKDiffusionAnnealedLangevin(SampleKDiffusionArguments, total=False):
    epsilon: float | None
    moves: int
    convention: str

class SampleKDiffusionDPM2S(SampleKDiffusionArguments, total=False):
    prediction: str
    form: str
    r: float

class SampleKDiffusionDPM3S(SampleKDiffusionArguments, total=False):
    prediction: str
    form: str
    r1: float

class SampleKDiffusionDPM2M(SampleKDiffusionArguments, total=False):
    prediction: str
    form: str
    start_up: str
    lower_order_final: bool

class SampleKDiffusionDPM3M(SampleKDiffusionArguments, total=False):
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool

class SampleKDiffusionUniP(SampleKDiffusionArguments, total=False):
    order: int
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool

class SampleKDiffusionUniPC(SampleKDiffusionArguments, total=False):
    order: int
    prediction: str
    variant: str
    start_up: str
    lower_order_final: bool
    correct_last: bool

class SampleKDiffusionTAB(SampleKDiffusionArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool
    clock: str

class SampleKDiffusionRhoAB(SampleKDiffusionArguments, total=False):
    order: int
    start_up: str
    lower_order_final: bool

class SampleKDiffusionRES2S(SampleKDiffusionArguments, total=False):
    prediction: str
    c2: float

class SampleKDiffusionRES3S(SampleKDiffusionArguments, total=False):
    prediction: str
    c2: float
    c3: float

class SampleKDiffusionRK45(SampleKDiffusionArguments, total=False):
    form: str

class SampleKDiffusionDPM12(SampleKDiffusionArguments, total=False):
    prediction: str

class SampleKDiffusionAdams(SampleKDiffusionArguments, total=False):
    max_order: int
    spread: float | None

class SampleKDiffusionTorchDiffEqEuler(SampleKDiffusionArguments, total=False):
    clock: str

class SampleKDiffusionTorchDiffEqDopri8(SampleKDiffusionArguments, total=False):
    clock: str
    max_steps: int
    lenient: bool

class SampleKDiffusionTorchDiffEqExplicitAdams(SampleKDiffusionArguments, total=False):
    clock: str
    max_steps: int
    lenient: bool
    steps: int
    max_order: int
    tolerance: float

class LogLikelihoodArguments(TypedDict, total=False):
    divergence: str
    probes: int
    probe: str
    control: Gaussian | GaussianMixture | None
    control_scale: float
    chunk: int | None
    rtol: float
    atol: float
    t_start: float | None
    t_end: float | None
    prior: Gaussian | GaussianMixture | None
    solver_error: bool
    context: Mapping[str, object] | None
    seed: int | None
    seeds: Sequence[int] | Tensor | None
    generator: torch.Generator | None
    noise: Noise | Callable[[int, Tensor], Tensor] | None
    callback: Callable[[Info], object] | None
    max_steps: int | None
    dtype: torch.dtype | None
    throw: bool
    differentiable: bool | str
    check: bool
    progress: bool

class LogLikelihoodRK45(LogLikelihoodArguments, total=False):
    form: str

class LogLikelihoodAdams(LogLikelihoodArguments, total=False):
    max_order: int
    spread: float | None

@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["pc"] = "pc", **options: Unpack[SolvePredictorCorrector]) -> Solution:
    r"""Solve the reverse-time SDE or the probability-flow ODE of a forward process.

    .. math:: dx = [f(x, t) - \tfrac12(1+\eta^2) g(t)^2 s(x, t)]\,dt + \eta\, g(t)\,d\bar w.

    From ``t_start`` to ``t_end``: downwards generates (by default from the prior at ``sde.t_max`` to ``sde.t_min``),
    upwards encodes (deterministic methods only); equal times return ``x``.

    Args:
        sde: the forward process.
        score_fn: ``score_fn(x, t, **context)``, the score :math:`\nabla\log p_t(x)` shaped like x, with t as
            ``(batch,)``; a `ScoreModel`, a target's score, or any callable.
        x: the state at ``t_start``, ``(batch, *event)``; if it is missing, it is drawn from the prior.
        method: a name from `methods`, a solver object, what `tune`, `fit_solver` or `fit_grid` made, which is a method
            on its grid, or ``"auto"``. With ``steps`` as the number of evaluations, ``"auto"`` is the method with the
            smallest measured errors: up to 6 ``"unipc2"`` with ``lower_order_final=True`` on the grid ``VPTime(0.3,
            0.25)``, up to 29 ``"dpm_3m"`` with ``start_up="published"`` on ``Angle(3.0, 0.25)``, begun at
            :math:`\sigma/\alpha` = 100 (up to 14) or 300 (all in units of the data, where the score function declares
            them, else of 1), beyond that ``"unipc3"``; with a fitted grid it is the method that the grid was fitted
            for; otherwise ``"adams"``.
        shape: ``(batch, *event)`` when ``x`` is missing; not needed if ``score_fn`` has an ``event_shape`` (then one
            sample, or one per seed).
        steps: the number of steps of a fixed-step method (default 500 for ``"pc"``, 50 for others); evaluations follow
            from the method.
        grid: the nodes of a fixed-step method: ``"log_snr"`` (default for affine processes with a finite log-SNR),
            ``"tangent"`` or ``"time"`` (default for others, depending on the schedule), ``"karras"``, ``"cosine"``,
            ``"quadratic"``, a function ``(sde, t_start, t_end, steps) -> (steps + 1,)``, a `SamplerGrid`, which has
            ends of its own, or a `Grid` or tensor of times, which replace steps, t_start and t_end. With
            ``differentiable=True`` a tensor that requires a gradient gets one.
        rtol, atol: tolerances of an adaptive method, 1e-3 by default.
        t_start, t_end: the interval, inside [t_min, t_max].
        start: a warm start, such as `fit_start` finds: ``x``, or the draw from the prior, is the state at ``t_max``,
            the flow of a Gaussian takes it to ``start.t``, and the method continues from there. It sets ``t_start``.
        stochasticity: :math:`\eta \ge 0`, for methods that step a general drift and diffusion; None is the method's
            own.
        context: the inputs of the score function besides x and t, by name: tensors ``(batch, …)`` with one entry per
            sample, or ``(1, …)`` with one for all; dicts, lists and tuples of such tensors, nested as the network takes
            them, in which numbers, flags, names and None are the same for all samples; or None. Each entry stays with
            its sample when samples leave the batch or the batch is repeated.
        seed: one seed for the batch.
        seeds: one seed per sample: the noise of sample i then depends on seed i alone, not on the batch.
        generator: a torch generator.
        noise: a `Noise`, or a callable ``(k, like) -> tensor`` giving the k-th standard normal draw (k = 0 is the
            prior's when x is missing). Without any of the four, torch's global generator.
        denoise: return :math:`E[x_0|x_{t_{end}}]` instead of the state, at the cost of one evaluation.
        save_at: times to keep the state at, each hit exactly (a fixed grid gets them as additional nodes), or
            ``"steps"``.
        callback: ``callback(info)`` after each step, with ``step, t, x, nfe``; returning True stops the solve.
        progress: show a progress bar.
        max_steps: the largest number of steps of the loop (default 10,000 for adaptive methods).
        throw: raise at a failure; False lets the other samples finish and marks failed ones by NaN and ``status``.
            Samples of ``x`` with NaN or infinity are failures too, and never evaluated; methods that step samples
            together (``batch_coupled``) refuse them in any case, except methods of other libraries.
        differentiable: keep the graph, so that the result can be differentiated; by default no gradient is recorded.
            The steps that were taken are differentiated. Those of adaptive methods follow the error of the result, not
            that of the gradient: where a result is exact by chance, gradients in parameters may be far off.
        log_prob: also the log-density of each sample under the probability flow, integrated beside it by ``"adams"`` or
            an adaptive pair, with tolerances of 1e-5 by default. A mapping sets how the divergence is estimated:
            ``divergence``, ``probes``, ``probe``, ``chunk`` and ``check`` as of `scoresde.log_likelihood`, which has
            the density of given data. One probe, the default, has no error bar. (A function is the option of this name
            of the corrector ``"mala"``.)
        path_log_prob: of a stochastic method whose steps are Gaussian given the past, keep the random states and their
            log-density, for `scoresde.paths`; the samples do not change. ``"sums"`` keeps the densities alone.
        dtype: of the state; default that of ``x``, else torch's default. Half precision is computed in float32.
        device: of the state; default that of ``x``, else that of the network's parameters, else torch's default.
        **solver_options: fields of the method's class, such as ``snr=0.16`` for ``"pc"``.

    Returns:
        A `Solution`: ``x``, and the cost of each sample.

    Raises:
        InvalidArgumentError: an argument does not fit, before the first evaluation.
        ScoreFnError: the score function returned something that is not a score.
        NonFiniteError: NaN or infinity in the input, a score or a state.
        MaxStepsError, StepSizeUnderflowError: an adaptive method could not arrive.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.GaussianMixture(
        ...     torch.ones(2), torch.tensor([[-1.0], [1.0]]), scales=0.1
        ... )
        >>> sde = scoresde.VPSDE()
        >>> score_fn = target.score(sde)
        >>> solution = solve(sde, score_fn, method="pc", shape=(64, 1), seed=0)
        >>> bool((solution.x.abs() < 2).all()), solution.evaluations
        (True, 1000)

    References:
        Song et al. (2021), Score-Based Generative Modeling through Stochastic Differential Equations.
        https://arxiv.org/abs/2011.13456
    """
    ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["auto", "euler_maruyama", "reverse_diffusion", "seeds1", "dpm_sde_1", "seeds2", "seeds3", "heun_sde", "sra1", "shark", "ggf", "euler", "heun", "midpoint", "rk4", "ddim", "rho_heun", "edm_heun", "rho_midpoint", "rho_ralston", "rho_kutta3", "rho_rk4", "torchsde:euler", "torchsde:milstein", "torchsde:srk", "torchsde:heun", "torchsde:midpoint", "torchsde:euler_heun", "torchsde:log_ode", "torchsde:reversible_heun"], **options: Unpack[SolveArguments]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["ancestral"], **options: Unpack[SolveAncestral]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["ddim_eta", "euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde12"], **options: Unpack[SolveDDIMEta]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["dpmpp_2m_sde"], **options: Unpack[SolveDPMpp2MSDE]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["dpmpp_3m_sde"], **options: Unpack[SolveDPMpp3MSDE]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["dpmpp_sde"], **options: Unpack[SolveDPMppSDE]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["sa_solver"], **options: Unpack[SolveSASolver]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["er_sde1", "er_sde2", "er_sde3"], **options: Unpack[SolveERSDE]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["edm"], **options: Unpack[SolveEDM]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["restart"], **options: Unpack[SolveRestart]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["cas"], **options: Unpack[SolveCAS]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["langevin"], **options: Unpack[SolveLangevin]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["annealed_langevin", "ncsn"], **options: Unpack[SolveAnnealedLangevin]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["dpm_2s", "dpmpp_2s"], **options: Unpack[SolveDPM2S]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["dpm_3s", "dpmpp_3s"], **options: Unpack[SolveDPM3S]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["dpm_2m", "dpmpp_2m"], **options: Unpack[SolveDPM2M]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["dpm_3m", "dpmpp_3m"], **options: Unpack[SolveDPM3M]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["unip2", "unip3"], **options: Unpack[SolveUniP]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["unipc1", "unipc2", "unipc", "unipc3"], **options: Unpack[SolveUniPC]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["tab2", "tab3", "tab4"], **options: Unpack[SolveTAB]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["rho_ab2", "rho_ab3", "rho_ab4", "lms", "ipndm", "plms"], **options: Unpack[SolveRhoAB]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["res_2s"], **options: Unpack[SolveRES2S]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["res_3s"], **options: Unpack[SolveRES3S]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["rk45", "rk23", "tsit5", "dop853"], **options: Unpack[SolveRK45]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["dpm12", "dpm23", "erk32", "erk43"], **options: Unpack[SolveDPM12]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["adams"], **options: Unpack[SolveAdams]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["torchdiffeq:euler", "torchdiffeq:midpoint", "torchdiffeq:heun2", "torchdiffeq:heun3", "torchdiffeq:rk4"], **options: Unpack[SolveTorchDiffEqEuler]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["torchdiffeq:dopri8", "torchdiffeq:dopri5", "torchdiffeq:bosh3", "torchdiffeq:fehlberg2", "torchdiffeq:adaptive_heun", "scipy:RK45", "scipy:RK23", "scipy:DOP853", "scipy:Radau", "scipy:BDF", "scipy:LSODA"], **options: Unpack[SolveTorchDiffEqDopri8]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: Literal["torchdiffeq:explicit_adams", "torchdiffeq:implicit_adams"], **options: Unpack[SolveTorchDiffEqExplicitAdams]) -> Solution: ...
@overload
def solve(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor | None = ..., *, method: str | Solver | Grid, **options: Unpack[SolveArguments]) -> Solution: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["pc"], x: Tensor | None = ..., **options: Unpack[StepperPredictorCorrector]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["auto", "euler_maruyama", "reverse_diffusion", "seeds1", "dpm_sde_1", "seeds2", "seeds3", "heun_sde", "sra1", "shark", "ggf", "euler", "heun", "midpoint", "rk4", "ddim", "rho_heun", "edm_heun", "rho_midpoint", "rho_ralston", "rho_kutta3", "rho_rk4", "dpm12", "dpm23", "erk32", "erk43", "torchsde:euler", "torchsde:milstein", "torchsde:srk", "torchsde:heun", "torchsde:midpoint", "torchsde:euler_heun", "torchsde:log_ode", "torchsde:reversible_heun"], x: Tensor | None = ..., **options: Unpack[StepperArguments]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["ancestral"], x: Tensor | None = ..., **options: Unpack[StepperAncestral]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["ddim_eta", "euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde12"], x: Tensor | None = ..., **options: Unpack[StepperDDIMEta]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["dpmpp_2m_sde"], x: Tensor | None = ..., **options: Unpack[StepperDPMpp2MSDE]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["dpmpp_3m_sde"], x: Tensor | None = ..., **options: Unpack[StepperDPMpp3MSDE]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["dpmpp_sde"], x: Tensor | None = ..., **options: Unpack[StepperDPMppSDE]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["sa_solver"], x: Tensor | None = ..., **options: Unpack[StepperSASolver]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["er_sde1", "er_sde2", "er_sde3"], x: Tensor | None = ..., **options: Unpack[StepperERSDE]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["edm"], x: Tensor | None = ..., **options: Unpack[StepperEDM]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["restart"], x: Tensor | None = ..., **options: Unpack[StepperRestart]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["cas"], x: Tensor | None = ..., **options: Unpack[StepperCAS]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["langevin"], x: Tensor | None = ..., **options: Unpack[StepperLangevin]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["annealed_langevin", "ncsn"], x: Tensor | None = ..., **options: Unpack[StepperAnnealedLangevin]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["dpm_2s", "dpmpp_2s"], x: Tensor | None = ..., **options: Unpack[StepperDPM2S]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["dpm_3s", "dpmpp_3s"], x: Tensor | None = ..., **options: Unpack[StepperDPM3S]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["dpm_2m", "dpmpp_2m"], x: Tensor | None = ..., **options: Unpack[StepperDPM2M]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["dpm_3m", "dpmpp_3m"], x: Tensor | None = ..., **options: Unpack[StepperDPM3M]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["unip2", "unip3"], x: Tensor | None = ..., **options: Unpack[StepperUniP]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["unipc1", "unipc2", "unipc", "unipc3"], x: Tensor | None = ..., **options: Unpack[StepperUniPC]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["tab2", "tab3", "tab4"], x: Tensor | None = ..., **options: Unpack[StepperTAB]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["rho_ab2", "rho_ab3", "rho_ab4", "lms", "ipndm", "plms"], x: Tensor | None = ..., **options: Unpack[StepperRhoAB]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["res_2s"], x: Tensor | None = ..., **options: Unpack[StepperRES2S]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["res_3s"], x: Tensor | None = ..., **options: Unpack[StepperRES3S]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["rk45", "rk23", "tsit5", "dop853"], x: Tensor | None = ..., **options: Unpack[StepperRK45]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["adams"], x: Tensor | None = ..., **options: Unpack[StepperAdams]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["torchdiffeq:euler", "torchdiffeq:midpoint", "torchdiffeq:heun2", "torchdiffeq:heun3", "torchdiffeq:rk4"], x: Tensor | None = ..., **options: Unpack[StepperTorchDiffEqEuler]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["torchdiffeq:dopri8", "torchdiffeq:dopri5", "torchdiffeq:bosh3", "torchdiffeq:fehlberg2", "torchdiffeq:adaptive_heun", "scipy:RK45", "scipy:RK23", "scipy:DOP853", "scipy:Radau", "scipy:BDF", "scipy:LSODA"], x: Tensor | None = ..., **options: Unpack[StepperTorchDiffEqDopri8]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: Literal["torchdiffeq:explicit_adams", "torchdiffeq:implicit_adams"], x: Tensor | None = ..., **options: Unpack[StepperTorchDiffEqExplicitAdams]) -> None: ...
@overload
def stepper(self: Stepper, sde: SDE, method: str | Solver | Grid, x: Tensor | None = ..., **options: Unpack[StepperArguments]) -> None: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["auto", "euler", "heun", "midpoint", "rk4", "ddim", "rho_heun", "edm_heun", "rho_midpoint", "rho_ralston", "rho_kutta3", "rho_rk4"], **options: Unpack[SolveArguments]) -> Solution:
    r"""Compute the latents of data, by the probability flow from ``t_min`` up to ``t_max``.

    With a perfect score the latent of an image depends on the distribution of the data and on the process only, and is
    the same for every network that was trained on them.

    Args:
        sde, score_fn: as for `scoresde.solve`.
        x: data, ``(batch, *event)``.
        method: a deterministic method.
        **options: of `scoresde.solve`, such as ``rtol``, ``t_start`` or ``context``.

    Returns:
        A `Solution`, whose ``x`` are the latents.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> z = encode(sde, target.score(sde), torch.ones(1, 2, dtype=torch.float64)).x
        >>> bool((decode(sde, target.score(sde), z).x - 1).abs().max() < 0.01)
        True

    References:
        Song et al. (2021), section 4.3 and appendix D.5. https://arxiv.org/abs/2011.13456
    """
    ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["dpm_2s", "dpmpp_2s"], **options: Unpack[SolveDPM2S]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["dpm_3s", "dpmpp_3s"], **options: Unpack[SolveDPM3S]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["dpm_2m", "dpmpp_2m"], **options: Unpack[SolveDPM2M]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["dpm_3m", "dpmpp_3m"], **options: Unpack[SolveDPM3M]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["unip2", "unip3"], **options: Unpack[SolveUniP]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["unipc1", "unipc2", "unipc", "unipc3"], **options: Unpack[SolveUniPC]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["tab2", "tab3", "tab4"], **options: Unpack[SolveTAB]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["rho_ab2", "rho_ab3", "rho_ab4", "lms", "ipndm", "plms"], **options: Unpack[SolveRhoAB]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["res_2s"], **options: Unpack[SolveRES2S]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["res_3s"], **options: Unpack[SolveRES3S]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["rk45", "rk23", "tsit5", "dop853"], **options: Unpack[SolveRK45]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["dpm12", "dpm23", "erk32", "erk43"], **options: Unpack[SolveDPM12]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["adams"] = "adams", **options: Unpack[SolveAdams]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["torchdiffeq:euler", "torchdiffeq:midpoint", "torchdiffeq:heun2", "torchdiffeq:heun3", "torchdiffeq:rk4"], **options: Unpack[SolveTorchDiffEqEuler]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["torchdiffeq:dopri8", "torchdiffeq:dopri5", "torchdiffeq:bosh3", "torchdiffeq:fehlberg2", "torchdiffeq:adaptive_heun", "scipy:RK45", "scipy:RK23", "scipy:DOP853", "scipy:Radau", "scipy:BDF", "scipy:LSODA"], **options: Unpack[SolveTorchDiffEqDopri8]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["torchdiffeq:explicit_adams", "torchdiffeq:implicit_adams"], **options: Unpack[SolveTorchDiffEqExplicitAdams]) -> Solution: ...
@overload
def encode(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: str | Solver, **options: Unpack[SolveArguments]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["auto", "euler", "heun", "midpoint", "rk4", "ddim", "rho_heun", "edm_heun", "rho_midpoint", "rho_ralston", "rho_kutta3", "rho_rk4"], **options: Unpack[DecodeArguments]) -> Solution:
    r"""Compute the data of latents, by the probability flow from ``t_max`` down to ``t_min``.

    Args:
        sde, score_fn: as for `scoresde.solve`.
        z: latents, ``(batch, *event)``.
        method: a deterministic method; or what `tune`, `fit_solver` or `fit_grid` made, as for `scoresde.solve`.
        temperature: a factor on the latents' distance from the prior's mean, below 1 for data nearer to the modes. The
            distribution of the result is the tempered :math:`p^{1/T^2}` for Gaussian data only.
        **options: of `scoresde.solve`.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2), 4.0)
        >>> sde = scoresde.VPSDE()
        >>> decode(sde, target.score(sde), torch.ones(1, 2), temperature=0.5).x.round()
        tensor([[1., 1.]])

    References:
        Song et al. (2021), appendix D.5. https://arxiv.org/abs/2011.13456
    """
    ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["dpm_2s", "dpmpp_2s"], **options: Unpack[DecodeDPM2S]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["dpm_3s", "dpmpp_3s"], **options: Unpack[DecodeDPM3S]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["dpm_2m", "dpmpp_2m"], **options: Unpack[DecodeDPM2M]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["dpm_3m", "dpmpp_3m"], **options: Unpack[DecodeDPM3M]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["unip2", "unip3"], **options: Unpack[DecodeUniP]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["unipc1", "unipc2", "unipc", "unipc3"], **options: Unpack[DecodeUniPC]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["tab2", "tab3", "tab4"], **options: Unpack[DecodeTAB]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["rho_ab2", "rho_ab3", "rho_ab4", "lms", "ipndm", "plms"], **options: Unpack[DecodeRhoAB]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["res_2s"], **options: Unpack[DecodeRES2S]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["res_3s"], **options: Unpack[DecodeRES3S]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["rk45", "rk23", "tsit5", "dop853"], **options: Unpack[DecodeRK45]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["dpm12", "dpm23", "erk32", "erk43"], **options: Unpack[DecodeDPM12]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["adams"] = "adams", **options: Unpack[DecodeAdams]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["torchdiffeq:euler", "torchdiffeq:midpoint", "torchdiffeq:heun2", "torchdiffeq:heun3", "torchdiffeq:rk4"], **options: Unpack[DecodeTorchDiffEqEuler]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["torchdiffeq:dopri8", "torchdiffeq:dopri5", "torchdiffeq:bosh3", "torchdiffeq:fehlberg2", "torchdiffeq:adaptive_heun", "scipy:RK45", "scipy:RK23", "scipy:DOP853", "scipy:Radau", "scipy:BDF", "scipy:LSODA"], **options: Unpack[DecodeTorchDiffEqDopri8]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: Literal["torchdiffeq:explicit_adams", "torchdiffeq:implicit_adams"], **options: Unpack[DecodeTorchDiffEqExplicitAdams]) -> Solution: ...
@overload
def decode(sde: SDE, score_fn: Callable[..., Tensor], z: Tensor, *, method: str | Solver | Grid, **options: Unpack[DecodeArguments]) -> Solution: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["auto", "euler", "heun", "midpoint", "rk4", "ddim", "rho_heun", "edm_heun", "rho_midpoint", "rho_ralston", "rho_kutta3", "rho_rk4"], **options: Unpack[ReconstructArguments]) -> Reconstruction:
    r"""Encode and decode again; the round trip's error is that of the solver, whatever the network.

    Args:
        sde, score_fn, x, method: as for `encode`.
        **options: of `scoresde.solve`, for both ways, but for ``t_start`` and ``t_end``: for a part of the path call
            `encode` and `decode`.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> x = torch.ones(1, 2, dtype=torch.float64)
        >>> bool(reconstruct(sde, target.score(sde), x, rtol=1e-6, atol=1e-6).error < 1e-4)
        True
    """
    ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["dpm_2s", "dpmpp_2s"], **options: Unpack[ReconstructDPM2S]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["dpm_3s", "dpmpp_3s"], **options: Unpack[ReconstructDPM3S]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["dpm_2m", "dpmpp_2m"], **options: Unpack[ReconstructDPM2M]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["dpm_3m", "dpmpp_3m"], **options: Unpack[ReconstructDPM3M]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["unip2", "unip3"], **options: Unpack[ReconstructUniP]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["unipc1", "unipc2", "unipc", "unipc3"], **options: Unpack[ReconstructUniPC]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["tab2", "tab3", "tab4"], **options: Unpack[ReconstructTAB]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["rho_ab2", "rho_ab3", "rho_ab4", "lms", "ipndm", "plms"], **options: Unpack[ReconstructRhoAB]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["res_2s"], **options: Unpack[ReconstructRES2S]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["res_3s"], **options: Unpack[ReconstructRES3S]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["rk45", "rk23", "tsit5", "dop853"], **options: Unpack[ReconstructRK45]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["dpm12", "dpm23", "erk32", "erk43"], **options: Unpack[ReconstructDPM12]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["adams"] = "adams", **options: Unpack[ReconstructAdams]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["torchdiffeq:euler", "torchdiffeq:midpoint", "torchdiffeq:heun2", "torchdiffeq:heun3", "torchdiffeq:rk4"], **options: Unpack[ReconstructTorchDiffEqEuler]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["torchdiffeq:dopri8", "torchdiffeq:dopri5", "torchdiffeq:bosh3", "torchdiffeq:fehlberg2", "torchdiffeq:adaptive_heun", "scipy:RK45", "scipy:RK23", "scipy:DOP853", "scipy:Radau", "scipy:BDF", "scipy:LSODA"], **options: Unpack[ReconstructTorchDiffEqDopri8]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["torchdiffeq:explicit_adams", "torchdiffeq:implicit_adams"], **options: Unpack[ReconstructTorchDiffEqExplicitAdams]) -> Reconstruction: ...
@overload
def reconstruct(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: str | Solver, **options: Unpack[ReconstructArguments]) -> Reconstruction: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["pc"], **options: Unpack[SamplePredictorCorrector]) -> Solution:
    r"""Draw samples by the network's own sampler, on its own process; by `scoresde.solve`'s default if it has none.

    Args:
        num: the number of samples.
        label: of its class labels, see `score`; None for the null class.
        options: other arguments of `scoresde.solve`, such as ``seed``; with a ``method`` it replaces the sampler.

    Example:
        >>> from scoresde.zoo import load
        >>> load("digits").sample(2, seed=0, method="ddim", steps=2).x.shape
        torch.Size([2, 1, 8, 8])
    """
    ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["auto", "euler_maruyama", "reverse_diffusion", "seeds1", "dpm_sde_1", "seeds2", "seeds3", "heun_sde", "sra1", "shark", "ggf", "euler", "heun", "midpoint", "rk4", "ddim", "rho_heun", "edm_heun", "rho_midpoint", "rho_ralston", "rho_kutta3", "rho_rk4", "torchsde:euler", "torchsde:milstein", "torchsde:srk", "torchsde:heun", "torchsde:midpoint", "torchsde:euler_heun", "torchsde:log_ode", "torchsde:reversible_heun"], **options: Unpack[SampleArguments]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["ancestral"], **options: Unpack[SampleAncestral]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["ddim_eta", "euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde12"], **options: Unpack[SampleDDIMEta]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["dpmpp_2m_sde"], **options: Unpack[SampleDPMpp2MSDE]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["dpmpp_3m_sde"], **options: Unpack[SampleDPMpp3MSDE]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["dpmpp_sde"], **options: Unpack[SampleDPMppSDE]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["sa_solver"], **options: Unpack[SampleSASolver]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["er_sde1", "er_sde2", "er_sde3"], **options: Unpack[SampleERSDE]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["edm"], **options: Unpack[SampleEDM]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["restart"], **options: Unpack[SampleRestart]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["cas"], **options: Unpack[SampleCAS]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["langevin"], **options: Unpack[SampleLangevin]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["annealed_langevin", "ncsn"], **options: Unpack[SampleAnnealedLangevin]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["dpm_2s", "dpmpp_2s"], **options: Unpack[SampleDPM2S]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["dpm_3s", "dpmpp_3s"], **options: Unpack[SampleDPM3S]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["dpm_2m", "dpmpp_2m"], **options: Unpack[SampleDPM2M]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["dpm_3m", "dpmpp_3m"], **options: Unpack[SampleDPM3M]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["unip2", "unip3"], **options: Unpack[SampleUniP]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["unipc1", "unipc2", "unipc", "unipc3"], **options: Unpack[SampleUniPC]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["tab2", "tab3", "tab4"], **options: Unpack[SampleTAB]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["rho_ab2", "rho_ab3", "rho_ab4", "lms", "ipndm", "plms"], **options: Unpack[SampleRhoAB]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["res_2s"], **options: Unpack[SampleRES2S]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["res_3s"], **options: Unpack[SampleRES3S]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["rk45", "rk23", "tsit5", "dop853"], **options: Unpack[SampleRK45]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["dpm12", "dpm23", "erk32", "erk43"], **options: Unpack[SampleDPM12]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["adams"], **options: Unpack[SampleAdams]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["torchdiffeq:euler", "torchdiffeq:midpoint", "torchdiffeq:heun2", "torchdiffeq:heun3", "torchdiffeq:rk4"], **options: Unpack[SampleTorchDiffEqEuler]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["torchdiffeq:dopri8", "torchdiffeq:dopri5", "torchdiffeq:bosh3", "torchdiffeq:fehlberg2", "torchdiffeq:adaptive_heun", "scipy:RK45", "scipy:RK23", "scipy:DOP853", "scipy:Radau", "scipy:BDF", "scipy:LSODA"], **options: Unpack[SampleTorchDiffEqDopri8]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: Literal["torchdiffeq:explicit_adams", "torchdiffeq:implicit_adams"], **options: Unpack[SampleTorchDiffEqExplicitAdams]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., **options: Unpack[SampleOptions]) -> Solution: ...
@overload
def sample(self: Pretrained, num: int = ..., *, method: str | Solver, **options: Unpack[SampleArguments]) -> Solution: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["pc"], **options: Unpack[SampleKDiffusionPredictorCorrector]) -> Tensor:
    r"""A sampler of k-diffusion that makes the steps of a method of this package.

    .. math:: x_\sigma = x_0 + \sigma\varepsilon, \qquad D(x, \sigma) = E[x_0|x_\sigma = x].

    The process is `scoresde.EDMSDE`, whose time is :math:`\sigma`; the result is that of ``solve(sde, ScoreModel(model,
    sde, "data", "sigma"), x, grid=sigmas, method=method)``. Where the method has no limit at :math:`\sigma = 0`, DDIM
    makes the last step: it returns the denoiser's output. Adaptive methods go from the first level to the last one and
    choose the levels between them.

    Args:
        model: called as ``model(x, sigma, **extra_args)`` with ``sigma`` of shape ``(batch,)``; it returns D.
        x: the state at the first level, ``(batch, *event)``: noise times ``sigmas[0]``.
        sigmas: the noise levels, falling; the last one may be 0.
        extra_args: what the model gets besides.
        callback: called after the first evaluation of each step with ``{"x", "i", "sigma", "sigma_hat", "denoised"}``:
            the state that was evaluated, the step's number, the level where the step began, the level of the
            evaluation, and D.
        disable: whether to show no progress bar; None shows one in a terminal.
        method: a name from `scoresde.methods`, or a solver object.
        noise_sampler: ``noise_sampler(sigma, sigma_next)``, standard normal noise for a step between two levels, such
            as k-diffusion's ``BrownianTreeNoiseSampler``; by default independent noise.
        generator: of that independent noise; by default torch's global one.
        rtol, atol: tolerances of an adaptive method.
        **options: fields of the method's class, as ``eta`` of ``"ddim_eta"``.

    Returns:
        The state at the last level, in the dtype of ``x``.

    Raises:
        InvalidArgumentError: the levels do not fall, or an argument does not fit.
        InvalidTypeError: an argument has the wrong type.
        ScoreFnError: the model returned something that is not shaped like ``x``, or wrote to its input.
        NonFiniteError: NaN or infinity in the input, in what the model returned, or in a state.

    Example:
        >>> def model(x, sigma):  # of data N(0, I)
        ...     return x / (1 + sigma[:, None] ** 2)
        >>> sigmas = torch.tensor([10.0, 3.0, 1.0, 0.3, 0.0])
        >>> x = 10 * torch.ones(2, 3)
        >>> bool(
        ...     (sample_k_diffusion(model, x, sigmas, method="dpm_3m") - x / 101**0.5)
        ...     .abs()
        ...     .max()
        ...     < 0.1
        ... )
        True

    References:
        Karras et al. (2022). https://arxiv.org/abs/2206.00364
        https://github.com/crowsonkb/k-diffusion (``sampling.py``)
    """
    ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["euler_maruyama", "reverse_diffusion", "seeds1", "dpm_sde_1", "seeds2", "seeds3", "heun_sde", "sra1", "shark", "ggf", "euler", "heun", "midpoint", "rk4", "ddim", "rho_heun", "edm_heun", "rho_midpoint", "rho_ralston", "rho_kutta3", "rho_rk4", "torchsde:euler", "torchsde:milstein", "torchsde:srk", "torchsde:heun", "torchsde:midpoint", "torchsde:euler_heun", "torchsde:log_ode", "torchsde:reversible_heun"], **options: Unpack[SampleKDiffusionArguments]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["ancestral"], **options: Unpack[SampleKDiffusionAncestral]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["ddim_eta", "euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde12"], **options: Unpack[SampleKDiffusionDDIMEta]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["dpmpp_2m_sde"], **options: Unpack[SampleKDiffusionDPMpp2MSDE]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["dpmpp_3m_sde"], **options: Unpack[SampleKDiffusionDPMpp3MSDE]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["dpmpp_sde"], **options: Unpack[SampleKDiffusionDPMppSDE]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["sa_solver"], **options: Unpack[SampleKDiffusionSASolver]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["er_sde1", "er_sde2", "er_sde3"], **options: Unpack[SampleKDiffusionERSDE]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["edm"], **options: Unpack[SampleKDiffusionEDM]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["restart"], **options: Unpack[SampleKDiffusionRestart]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["cas"], **options: Unpack[SampleKDiffusionCAS]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["langevin"], **options: Unpack[SampleKDiffusionLangevin]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["annealed_langevin", "ncsn"], **options: Unpack[SampleKDiffusionAnnealedLangevin]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["dpm_2s", "dpmpp_2s"], **options: Unpack[SampleKDiffusionDPM2S]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["dpm_3s", "dpmpp_3s"], **options: Unpack[SampleKDiffusionDPM3S]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["dpm_2m", "dpmpp_2m"], **options: Unpack[SampleKDiffusionDPM2M]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["dpm_3m", "dpmpp_3m"] = "dpm_3m", **options: Unpack[SampleKDiffusionDPM3M]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["unip2", "unip3"], **options: Unpack[SampleKDiffusionUniP]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["unipc1", "unipc2", "unipc", "unipc3"], **options: Unpack[SampleKDiffusionUniPC]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["tab2", "tab3", "tab4"], **options: Unpack[SampleKDiffusionTAB]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["rho_ab2", "rho_ab3", "rho_ab4", "lms", "ipndm", "plms"], **options: Unpack[SampleKDiffusionRhoAB]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["res_2s"], **options: Unpack[SampleKDiffusionRES2S]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["res_3s"], **options: Unpack[SampleKDiffusionRES3S]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["rk45", "rk23", "tsit5", "dop853"], **options: Unpack[SampleKDiffusionRK45]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["dpm12", "dpm23", "erk32", "erk43"], **options: Unpack[SampleKDiffusionDPM12]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["adams"], **options: Unpack[SampleKDiffusionAdams]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["torchdiffeq:euler", "torchdiffeq:midpoint", "torchdiffeq:heun2", "torchdiffeq:heun3", "torchdiffeq:rk4"], **options: Unpack[SampleKDiffusionTorchDiffEqEuler]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["torchdiffeq:dopri8", "torchdiffeq:dopri5", "torchdiffeq:bosh3", "torchdiffeq:fehlberg2", "torchdiffeq:adaptive_heun", "scipy:RK45", "scipy:RK23", "scipy:DOP853", "scipy:Radau", "scipy:BDF", "scipy:LSODA"], **options: Unpack[SampleKDiffusionTorchDiffEqDopri8]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: Literal["torchdiffeq:explicit_adams", "torchdiffeq:implicit_adams"], **options: Unpack[SampleKDiffusionTorchDiffEqExplicitAdams]) -> Tensor: ...
@overload
def sample_k_diffusion(model: Callable[..., Tensor], x: Tensor, sigmas: Tensor | Sequence[float], extra_args: Mapping[str, Any] | None = ..., callback: Callable[[dict[str, Any]], object] | None = ..., disable: bool | None = ..., *, method: str | Solver, **options: Unpack[SampleKDiffusionArguments]) -> Tensor: ...
@overload
def log_likelihood(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["rk45", "rk23", "tsit5", "dop853"], **options: Unpack[LogLikelihoodRK45]) -> Likelihood:
    r"""The log-likelihood of the probability flow, by the change of variables along it:

    .. math:: \ln p_{t_0}(x) = \ln\pi(x_T) + \ln\Big|\frac{\partial x_T}{\partial x}\Big|,\qquad
        \ln\Big|\frac{\partial x_T}{\partial x}\Big| = D\ln\frac{S_T}{S_0} + \int S\,\nabla_x\cdot G\,du,

    with :math:`x = Sy`, :math:`dy/du = G` the flow in the solver's coordinate: the stretching by S is exact, and little
    of the divergence is left (nothing for a Gaussian of the spread of ``"adams"``). The integral is solved beside the
    state, in float64, with steps of each sample.

    Args:
        sde: an affine process.
        score_fn: as for `scoresde.solve`.
        x: data, ``(batch, *event)``, float32 or float64, or made so by ``dtype``.
        divergence: ``"hutchinson"``, ``"exact"`` (D vector-Jacobian products), ``"hutch++"`` (a third of the
            probes for the range of the Jacobian), or ``"xtrace"`` (each probe for both).
        probes: the number of vector-Jacobian products per evaluation: a multiple of 3 for ``"hutch++"``, an even number
            for ``"xtrace"``.
        probe: ``"rademacher"``, ``"gaussian"``, or ``"orthogonal"`` (D orthogonal probes give the exact trace); the
            sketch of ``"hutch++"`` and all of ``"xtrace"`` are Gaussian.
        control: a distribution near the data's, a Gaussian or a mixture: the Jacobian of its flow is known, and only
            the difference from it is estimated.
        control_scale: the factor of the control, see `scoresde.likelihood.fit_control_scale`.
        chunk: the number of products that are computed at once, which take the memory of that many backward passes; the
            values do not depend on it. By default several for small batches of small events, and one for large batches
            or events.
        method: ``"adams"`` or a pair, such as ``"rk45"``.
        rtol, atol: tolerances of x; those of the log-density are D times as large.
        t_start: the data end, ``sde.t_min`` by default, where the density is evaluated.
        t_end: the noise end, ``sde.t_max`` by default.
        prior: the distribution at ``t_end``, with ``log_prob(x) -> (batch,)`` for latents in float64; by default that
            of the process, which is the distribution at ``sde.t_max`` only.
        solver_error: solve again with ten times the tolerance, and report the distance.
        context, seed, seeds, generator, noise, max_steps, dtype, throw: as for `scoresde.solve`; the random numbers are
            the probes, which are drawn once, independently for each sample.
        callback: ``callback(info)`` after each step, with ``step``, ``t`` and ``nfe`` as for `scoresde.solve`; ``x`` is
            the state with what is integrated beside it. It does not stop the solve.
        differentiable: keep the graph, so that the result can be differentiated in ``x`` and in parameters;
            ``"checkpoint"`` keeps only the states and evaluates the network again in the backward pass, so that memory
            does not grow with the network's depth times the steps; ``"adjoint"`` keeps only the ends and solves the
            adjoint equation, which gives the gradient of the flow, up to the tolerance.
        check: examine the data and the score function first, at the cost of fifteen evaluations of up to eight samples
            or seven of up to 24 (fifteen of all, unless the score function declares ``rowwise``): a score function that
            blocks gradients, is random or couples samples is refused; a `ScoreSDEWarning` reports data that are not
            dequantised, which have no density, and a score function that does not denoise the data, such as an
            untrained one.
        progress: show a progress bar.
        **solver_options: fields of the method's class.

    Returns:
        A `Likelihood`.

    Raises:
        InvalidArgumentError: an argument does not fit.
        ScoreFnError: gradients do not reach the input of the score function.
        NonFiniteError: NaN or infinity in the input, a score or a divergence.
        MaxStepsError, StepSizeUnderflowError: the method could not arrive.

    Example:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian(torch.zeros(2, dtype=torch.float64), 0.3)
        >>> sde = scoresde.VPSDE()
        >>> x = torch.tensor([[0.1, -0.2]], dtype=torch.float64)
        >>> got = log_likelihood(sde, target.score(sde), x, divergence="exact")
        >>> exact = target.log_prob(x, sde, sde.t_min)
        >>> bool((got.log_prob - exact).abs() < 1e-3)
        True

    References:
        Song et al. (2021), appendix D.2. https://arxiv.org/abs/2011.13456
        Grathwohl et al. (2019), FFJORD. https://arxiv.org/abs/1810.01367
    """
    ...
@overload
def log_likelihood(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: Literal["adams"] = "adams", **options: Unpack[LogLikelihoodAdams]) -> Likelihood: ...
@overload
def log_likelihood(sde: SDE, score_fn: Callable[..., Tensor], x: Tensor, *, method: str | Solver, **options: Unpack[LogLikelihoodArguments]) -> Likelihood: ...
def simulate(sde: SDE, x0: Tensor, *, t_start: float | None = ..., t_end: float | None = ..., steps: int = ..., grid: str | grids.GridFunction | None = ..., method: ForwardName | str | Solver | None = ..., seed: int | None = ..., seeds: Sequence[int] | Tensor | None = ..., generator: torch.Generator | None = ..., noise: Noise | Callable[[int, Tensor], Tensor] | None = ..., save_at: Sequence[float] | str | None = ...) -> Solution: ...
def fit_grid(sde: SDE, score_fn: Callable[..., Tensor], steps: int, method: MethodName | str | Solver = ..., *, pilot: int | None = ..., objective: str | Objective = ..., x: Tensor | None = ..., shape: Sequence[int] | None = ..., seed: int = ..., starts: str | Sequence[str | Grid | Tensor] | None = ..., iterations: int | None = ..., gradient: bool = ..., checkpoint: bool = ..., reference: int | Tensor | None = ..., t_start: float | None = ..., t_end: float | None = ..., context: Mapping[str, object] | None = ..., dtype: torch.dtype | None = ..., device: torch.device | str | None = ..., **solver_options: object) -> FittedGrid: ...
def fit_start(sde: SDE, score_fn: Callable[..., Tensor], gaussian: Gaussian, *, rtol: float = ..., method: MethodName | str | Solver = ..., steps: int | None = ..., pilot: int | None = ..., x: Tensor | None = ..., seed: int = ..., levels: int = ..., context: Mapping[str, object] | None = ..., dtype: torch.dtype | None = ..., device: torch.device | str | None = ..., **solver_options: Any) -> GaussianStart: ...
def sample_posterior(sde: AffineSDE, score_fn: Callable[..., Tensor], operator: object, y: Tensor, noise_std: Tensor | float | None = ..., *, method: InverseName | str = ..., sampler: MethodName | str | Solver | None = ..., **options: Any) -> PosteriorSamples: ...
def condition(score_fn: Callable[..., Tensor], operator: object, y: Tensor, noise_std: Tensor | float | None = ..., *, method: RuleName | str | Rule = ..., sde: AffineSDE | None = ..., **options: object) -> Conditioned: ...
