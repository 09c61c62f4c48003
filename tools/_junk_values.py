"""Values of the junk sweep: what a function should refuse or bear, and what it takes.

`JUNK` replaces one argument. `VALID` is what the others are: an argument is looked up as ``"function.argument"``, then
as ``"argument: annotation"``, ``"argument"`` and ``": annotation"``; an argument with a default keeps it unless the
first is there. All are functions, since a value may be changed by what receives it.
"""

from __future__ import annotations

import fractions
import functools
import math
import tempfile
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import scoresde
from scoresde import discrete, guidance, inverse, losses, solvers, targets, training, zoo
from scoresde.losses.chains import Level, level_of

Make = Callable[[], Any]
SMALL: dict[str, Any] = {"channels": 8, "blocks": 1, "width": 8}


class Own(Exception):
    """What a caller's own function raises."""


class Elsewhere:
    """A class where an object is meant; whoever makes an object of it learns that."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise Own("raised by the caller's own class")


class Module(nn.Module):
    """A module of other arguments than those of a score function."""

    def forward(self, only: Tensor) -> Tensor:
        return only

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except TypeError as error:
            raise Own("raised by the caller's own module") from error


class Returns:
    """A function that returns junk, whatever it is given."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return JUNK[self.name]()


def quietly(make: Make) -> Any:
    """A value whose making warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def filled(dtype: torch.dtype) -> Make:
    return lambda: torch.zeros(4, 2).to(dtype)


def array(content: Any, dtype: Any) -> Make:
    return lambda: np.array(content, dtype=dtype)


def wrong_device() -> Any:
    """A generator of another device, where there is one."""
    for device in ("cuda", "xpu", "mps"):
        try:
            return torch.Generator(device=device)
        except RuntimeError:
            continue
    return Elsewhere


def read_only() -> Any:
    values = np.zeros((4, 2))
    values.flags.writeable = False
    return values


NUMBERS: dict[str, Make] = {
    "None": lambda: None,
    "True": lambda: True,
    "False": lambda: False,
    "NaN": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "-1": lambda: -1,
    "0": lambda: 0,
    "1": lambda: 1,
    "0.5": lambda: 0.5,
    "1e308": lambda: 1e308,
    "1e-320": lambda: 1e-320,
    "10**9": lambda: 10**9,
    "2**31": lambda: 2**31,
    "2**63": lambda: 2**63,
    "complex": lambda: 1 + 2j,
    "Fraction": lambda: fractions.Fraction(1, 3),
    "np.float64 NaN": lambda: np.float64("nan"),
    "np.int64": lambda: np.int64(3),
    "np.bool": lambda: np.True_,
}
TEXTS: dict[str, Make] = {
    "''": lambda: "",
    "'abc'": lambda: "abc",
    "'nan'": lambda: "nan",
    "'1'": lambda: "1",
    "long text": lambda: "x" * 5000,
    "Path": lambda: Path("abc"),
}
OBJECTS: dict[str, Make] = {
    "[]": list,
    "()": tuple,
    "{}": dict,
    "[1, 2]": lambda: [1, 2],
    "(0.2, 0.8)": lambda: (0.2, 0.8),
    "(1, -1)": lambda: (1, -1),
    "(NaN, 1)": lambda: (math.nan, 1),
    "['a']": lambda: ["a"],
    "[None]": lambda: [None],
    "ragged list": lambda: [[1.0], [2.0, 3.0]],
    "{'a': 1}": lambda: {"a": 1},
    "range": lambda: range(3),
    "generator": lambda: (i for i in range(3)),
    "object": object,
    "type": lambda: Own,
    "lambda": lambda: lambda: None,
    "module": lambda: math,
    "process": lambda: scoresde.VESDE(),
    "process class": lambda: scoresde.VPSDE,
    "target": lambda: gaussian(),
    "solver": lambda: solvers.DDIM(),
    "module of torch": Module,
    "dtype": lambda: torch.float32,
    "float16 dtype": lambda: torch.float16,
    "int dtype": lambda: torch.int64,
    "meta device": lambda: torch.device("meta"),
    "Size": lambda: torch.Size([4, 2]),
    "torch.Generator": torch.Generator,
    "wrong-device generator": wrong_device,
}
TENSORS: dict[str, Make] = {
    "0-d": lambda: torch.tensor(0.5),
    "0-d NaN": lambda: torch.tensor(math.nan),
    "0-d int": lambda: torch.tensor(3),
    "1-d": lambda: torch.linspace(0.1, 0.9, 4),
    "wrong shape": lambda: torch.zeros(3, 5, 7),
    "falling": lambda: torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64),
    "empty": lambda: torch.zeros(0),
    "empty batch": lambda: torch.zeros(0, 2),
    "empty event": lambda: torch.zeros(4, 0),
    "float16": filled(torch.float16),
    "bfloat16": filled(torch.bfloat16),
    "float64": filled(torch.float64),
    "int64": filled(torch.int64),
    "uint8": filled(torch.uint8),
    "bool": filled(torch.bool),
    "complex64": filled(torch.complex64),
    "requires grad": lambda: torch.zeros(4, 2, requires_grad=True),
    "parameter": lambda: nn.Parameter(torch.zeros(2)),
    "all NaN": lambda: torch.full((4, 2), math.nan),
    "one inf": lambda: torch.tensor([[math.inf, 0.0], [0.0, 0.0]]),
    "huge": lambda: torch.full((4, 2), 1e38),
    "non-contiguous": lambda: torch.zeros(2, 4).T,
    "expanded": lambda: torch.zeros(1, 2).expand(4, 2),
    "inference": torch.inference_mode()(lambda: torch.zeros(4, 2)),
}
ARRAYS: dict[str, Make] = {
    "np.float64": array([[0.0, 1.0]] * 4, np.float64),
    "np.object": array([None, "a"], object),
    "np.str": array(["a", "b"], str),
    "np.complex128": array([1j, 2.0], complex),
    "np negative stride": lambda: np.linspace(0.1, 0.9, 4)[::-1],
    "np read only": read_only,
    "np 0-d": array(0.5, float),
    "np empty": array([], float),
    "np NaN": array([math.nan], float),
}
JUNK: dict[str, Make] = NUMBERS | TEXTS | OBJECTS | TENSORS | ARRAYS

# What a function in place of a valid one returns.
RETURNED = ("None", "True", "0.5", "NaN", "'abc'", "[]", "{}", "object", "lambda", "np.float64", *TENSORS)

# What a command line can be given.
WORDS: tuple[str, ...] = (
    *("", "abc", "-1", "0", "1", "0.5", "nan", "inf", "1e308", "1e999", "1000000000", "None", "true"),
    *("1,2", "[]", "=", "a=b", "a=1e999", "../..", ".", "/dev/null", "/dev/full", "missing/file.npz", "data.npz"),
    *(
        "x.exe",
        "ä",
        "cpu:9",
        "cuda:99",
        "meta",
        "mask:",
        "mask:rows=1000000000",
        "torchdiffeq:rk4",
    ),
)


@functools.cache
def vp() -> scoresde.VPSDE:
    return scoresde.VPSDE()


def gaussian() -> targets.Gaussian:
    return targets.Gaussian(torch.zeros(2), torch.eye(2))


def mixture() -> targets.GaussianMixture:
    means = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    return targets.GaussianMixture(torch.tensor([0.25, 0.75]), means, scales=0.3)


def labelled_score() -> Any:
    score_fn = gaussian().score(vp())

    def labelled(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return score_fn(x, t)

    labelled.sde = vp()  # type: ignore[attr-defined]
    return labelled


def states() -> Tensor:
    return torch.linspace(-1.0, 1.0, 8).reshape(4, 2)


def score_fn() -> Any:
    return gaussian().score(vp())


def net(x: Tensor, t: Tensor) -> Tensor:
    return 0.5 * x


def model() -> scoresde.ScoreModel:
    return scoresde.ScoreModel(net, vp(), "noise")


@functools.cache
def betas() -> discrete.BetaChain:
    return discrete.BetaChain.linear(10)


def chain_model() -> scoresde.ScoreModel:
    return scoresde.ScoreModel(net, betas().sde(), "noise", time_input="index", chain=betas())


def network() -> nn.Module:
    return scoresde.nets.MLP((2,), **SMALL)


def learned() -> scoresde.ScoreModel:
    """Of a network that predicts a variance, too."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([0.5 * x, 0.1 * x], 1)

    chain = betas()
    return scoresde.ScoreModel(net, chain.sde(), "noise", "index", chain=chain, variance="learned_range")


def trained() -> scoresde.ScoreModel:
    return scoresde.ScoreModel(network(), vp(), "noise", event_shape=(2,))


@functools.cache
def pretrained() -> zoo.Pretrained:
    return zoo.load("digits")


def classifier() -> guidance.NoisyClassifier:
    net = scoresde.nets.Classifier((1, 8, 8), 3, channels=8, blocks=1, width=8, heads=1)
    return guidance.NoisyClassifier(net)


def stepper() -> scoresde.Stepper:
    made = scoresde.Stepper(vp(), "ddim", states(), steps=3)
    made.ask()
    return made


def stepper_state() -> dict[str, Any]:
    return stepper().state_dict()


def azula_denoiser() -> Any:
    def denoiser(x: Tensor, t: Tensor) -> Any:
        return types.SimpleNamespace(mean=0.5 * x)

    denoiser.schedule = lambda t: (1 - 0.9 * t, 0.1 + 0.9 * t)  # type: ignore[attr-defined]
    return denoiser


def sbi_estimator() -> Any:
    sde, ones = vp(), torch.ones(1, 2)
    return types.SimpleNamespace(
        input_shape=(2,),
        condition_shape=(2,),
        t_min=sde.t_min,
        t_max=sde.t_max,
        beta_min=sde.beta_min,
        beta_max=sde.beta_max,
        mean_base=0 * ones,
        std_base=ones,
        mean_t_fn=lambda t: sde.alpha(t)[:, None],
        std_fn=lambda t: sde.sigma(t)[:, None],
        score=lambda theta, x_o, t: x_o - theta,
    )


def box() -> torch.distributions.Distribution:
    uniform = torch.distributions.Uniform(torch.full((2,), -9.0), torch.full((2,), 9.0))
    return torch.distributions.Independent(uniform, 1)


def guided_model() -> scoresde.ScoreModel:
    return scoresde.interop.from_guided_diffusion(net, betas())


def measurement() -> inverse.Measurement:
    return inverse.Measurement(torch.eye(2), torch.zeros(2), 0.1)


def images() -> training.Arrays:
    values = (torch.arange(8 * 64).reshape(8, 1, 8, 8) % 17).to(torch.uint8)
    return training.Arrays(values, torch.arange(8) % 3, levels=17)


def vectors() -> training.Arrays:
    return training.Arrays(torch.linspace(-1.0, 1.0, 16).reshape(8, 2))


def batches() -> training.Batches:
    return training.Batches(vectors(), 4)


def recipe() -> training.Recipe:
    return training.Recipe(steps=1, batch_size=4, warmup=0)


def loss(model: Any, x0: Tensor, generator: Any = None, **context: Any) -> Tensor:
    return losses.denoising(model, x0, generator, **context)


def plain_loss(net: Any, x0: Tensor, generator: Any = None, **context: Any) -> Tensor:
    return net(x0, torch.zeros(len(x0))).square().mean(1)


class Distance:
    """A metric of images that is 0."""

    def reset(self) -> None: ...

    def update(self, images: Tensor, real: bool) -> None: ...

    def compute(self) -> float:
        return 0.0


def draw(step: int, generator: Any) -> tuple[Tensor, dict[str, Any]]:
    return states(), {}


def preset() -> training.Preset:
    bound = functools.partial(own_bound)
    return training.Preset(
        "small", loss, recipe(), vp, "noise", architecture="mlp", kwargs=SMALL, labelled=False, bound=bound
    )


def own_bound(model: Any, x: Tensor, seed: int = 0, **options: Any) -> scoresde.Bound:
    return scoresde.variational_bound(model.sde, model, x, seed=seed, draws=4)


def affine_run(shape: tuple[int, ...], draw: Any) -> Tensor:
    return 2.0 * draw(0, torch.zeros(shape, dtype=torch.float64)) + 1.0


def many_draws(shape: tuple[int, ...], draw: Any) -> Tensor:
    like = torch.zeros(shape, dtype=torch.float64)
    return draw(0, like) + 0.1 * draw(1, like) + 0.1 * draw(2, like)


def normal_draw(k: int, like: Tensor) -> Tensor:
    return torch.ones_like(like)


def noised() -> Any:
    index = torch.tensor([4] * 4)
    return losses.look(chain_model(), states(), states(), chain_model().sde.nodes(betas().times[index]))


def level() -> Level:
    return level_of(betas(), torch.tensor([4] * 4))


def saved() -> scoresde.Solution:
    """A solve that kept its states."""
    return scoresde.solve(vp(), score_fn(), method="ddim", steps=2, shape=(4, 2), seed=0, save_at="steps")


def solution() -> scoresde.Solution:
    return scoresde.solve(vp(), score_fn(), states(), method="ddim", steps=2)


def fitted() -> scoresde.FittedGrid:
    return scoresde.fit_grid(vp(), score_fn(), 3, "ddim", pilot=4, iterations=0)


def linear_gamma(t: Tensor) -> Tensor:
    return -5.0 + 10.0 * t


def half(x: Tensor) -> Tensor:
    return x[:, :1]


def log_prob(x: Tensor, t: Tensor) -> Tensor:
    return -x.flatten(1).square().sum(1)


def save_model(name: str, prediction: str = "data") -> str:
    """A saved model, whose prediction is 0, in the folder that a case runs in."""
    net = network()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    zoo.save(scoresde.ScoreModel(net, vp(), prediction, event_shape=(2,)), name, kwargs=SMALL)
    return name


def save_classifier(name: str) -> str:
    zoo.save_classifier(classifier(), name)
    return name


def new_folder() -> Path:
    """Where nothing is."""
    return Path(tempfile.mkdtemp(), "set")


def set_of_samples() -> Path:
    """The folder of a small set."""
    folder = new_folder()
    scoresde.generate(folder, vp(), score_fn(), 2, shape=(2,), identity="a score", method="ddim", steps=2)
    return folder


def posteriors() -> Tensor:
    """Nine samples for each of 24 observations."""
    return torch.randn(9, 24, 2, generator=torch.Generator().manual_seed(3))


@functools.cache
def diagnosis() -> Any:
    return scoresde.diagnose(vp(), score_fn(), cloud(0.0, 64)(), method="ddim", steps=3, pilot=32)


def cloud(shift: float, count: int = 24) -> Make:
    """Points of the plane."""
    return lambda: shift + torch.randn(count, 2, generator=torch.Generator().manual_seed(round(10 * shift)))


@functools.cache
def recorded_path() -> scoresde.paths.Path:
    """Of four samples."""
    options = {"method": "ancestral", "steps": 3, "seed": 0, "path_log_prob": True}
    path: scoresde.paths.Path = scoresde.solve(vp(), score_fn(), states(), **options).path
    return path


def path_file() -> Path:
    name = Path(tempfile.mkdtemp(), "path.safetensors")
    recorded_path().save(name)
    return name


def certificate() -> Any:
    return scoresde.certify(
        vp(), score_fn(), "ddim", pilot=24, confidence=0.5, indicator="constant", identity="a score"
    )


def certificate_file() -> Path:
    path = Path(tempfile.mkdtemp(), "certificate.json")
    certificate().save(path)
    return path


def rows_of(batch: Any) -> dict[str, Tensor]:
    """A row of numbers for each sample."""
    return {"a": batch.indices.double()}


def no_context(indices: Tensor) -> dict[str, Tensor]:
    """A context without anything in it."""
    return {}


def len_of(done: int) -> None:
    """Shows nothing."""


def save_grid(name: str) -> str:
    fitted().save(name)
    return name


def write_array(name: str) -> str:
    np.save(name, images().values.numpy())
    return name


def column(value: float) -> Make:
    return lambda: torch.full((4,), value)


def folder_of_images() -> str:
    Path("images").mkdir(exist_ok=True)
    scoresde.plot.image_grid(torch.zeros(1, 1, 8, 8), Path("images", "a.png"))
    return "images"


def write_floats(name: str) -> str:
    """Data N(0, I), which a model on VP denoises whose v is 0."""
    np.save(name, np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32))
    return name


IMAGES = ("Blur", "Grey", "PartialFourier", "Separable", "bicubic", "block_average", "gaussian_blur")

DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False}


def _even(steps: int) -> Tensor:
    """Times of a sampler."""
    return torch.linspace(0.9, 0.1, steps + 1)


def _unet(sample: Tensor, timestep: Tensor) -> Tensor:
    """Stands for a network of diffusers."""
    return sample


VALID: dict[str, Make] = {
    # processes, models and targets
    "sde": vp,
    "process": vp,
    "score_fn": score_fn,
    "model": model,
    "net": lambda: net,
    "net: nn.Module": network,
    "unet": lambda: nn.Linear(2, 2),
    "conditional": score_fn,
    "unconditional": score_fn,
    "weak": score_fn,
    "base": score_fn,
    "concept": score_fn,
    "score_fns": score_fn,
    "guidance.mixture.score_fns": lambda: [score_fn(), score_fn()],
    "score": gaussian,
    "target": gaussian,
    "target: GaussianMixture": mixture,
    "gaussian": gaussian,
    "control": gaussian,
    "prior": gaussian,
    "log_prob": lambda: log_prob,
    "log_probs": lambda: [log_prob, log_prob],
    "log_likelihood": lambda: lambda data: -data.flatten(1).square().sum(1),
    "chain": betas,
    "prediction": lambda: "noise",
    "gamma": lambda: linear_gamma,
    "alpha": lambda: lambda t: torch.exp(-t),
    "sigma": lambda: lambda t: t,
    "t_min": lambda: 0.1,
    "t_max": lambda: 1.0,
    # states and numbers
    "x": states,
    "x0": states,
    "x_t": states,
    "x_s": states,
    "z": states,
    "a": states,
    "b": lambda: 2.0 + states(),
    "noise": states,
    "v": lambda: torch.arange(8).reshape(4, 2),
    "data": states,
    "values": states,
    "y": lambda: torch.zeros(2),
    "mean": lambda: torch.zeros(2),
    "cov": lambda: torch.eye(2),
    "means": lambda: torch.tensor([[-1.0, 0.0], [1.0, 0.0]]),
    "weights": lambda: torch.tensor([0.25, 0.75]),
    "probes": lambda: torch.ones(4, 1, 2),
    "t": lambda: 0.5,
    "s": lambda: 0.2,
    "u": column(0.3),
    "t_start": lambda: 1.0,
    "t_end": lambda: 0.01,
    "t0": lambda: 0.0,
    "t1": lambda: 1.0,
    "times": lambda: torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64),
    "times: tuple[float, ...]": lambda: (1.0, 0.5, 0.1),
    "node": lambda: vp().nodes(torch.full((4,), 0.5, dtype=torch.float64)),
    "steps": lambda: 3,
    "shape": lambda: (4, 2),
    "event_shape": lambda: (2,),
    "measurement_shape": lambda: (1,),
    "n": lambda: 3,
    "size": lambda: 4,
    "width": lambda: 8,
    "length": lambda: 3,
    "level": level,
    "levels": lambda: 17,
    "limits": lambda: (-5.0, 5.0),
    "moves": lambda: 5,
    "step": lambda: 0.1,
    "step: int": lambda: 1,
    "components": lambda: 2,
    "columns": lambda: torch.ones(1, 8),
    "targets": lambda: (0.01,),
    "tally": inverse.samplers.base.Tally,
    "raw": lambda: pretrained().config.to_json({}),
    "device": lambda: torch.device("cpu"),
    "ratio": lambda: 0.9,
    "dimension": lambda: 10,
    "factor": lambda: 2,
    "rows": lambda: 1,
    "rho": lambda: (80.0, 1.0, 0.002),
    "std": lambda: 1.0,
    "shift": lambda: 0.5,
    "scale": lambda: 2.0,
    "value": lambda: 0.5,
    "betas": lambda: [0.1, 0.2, 0.3],
    "sigmas": lambda: [1.0, 0.1, 0.01],
    "seeds": lambda: [0, 1, 2, 3],
    "seed": lambda: 0,
    "index": lambda: torch.tensor([0, 3, 4, 5]),
    "indices": lambda: torch.tensor([0, 1]),
    "sigma_data": lambda: 0.5,
    "learning_rate": lambda: 1e-3,
    "num": lambda: 2,
    "label": lambda: torch.tensor([0, 1, 2, 0]),
    "low": lambda: 0.1,
    "high": lambda: 1.0,
    "data_range": lambda: (-1.0, 1.0),
    "bits": lambda: torch.linspace(1.0, 2.0, 8),
    "errors": lambda: [0.4, 0.1],
    "distance": states,
    "log_variance": states,
    "other_log_variance": states,
    "of_noise": column(0.5),
    "of_data": column(0.5),
    "seen": noised,
    "exponents": lambda: [1, 2],
    "log_snr": lambda: 0.5,
    "generator": torch.Generator,
    "other": vp,
    # functions, methods and options
    "method": lambda: "ddim",
    "grid": lambda: "time",
    "options": dict,
    "affine": lambda: True,
    "summary": lambda: "small",
    "text": lambda: "DDIM()",
    "name": lambda: "x",
    "function": lambda: half,
    "draw": lambda: normal_draw,
    "run": lambda: affine_run,
    "error": lambda: lambda n: 1.0 / n,
    "denoise": lambda: lambda x, alpha, sigma: x,
    "like": states,
    "spacing": lambda: "trailing",
    "architecture": lambda: "mlp",
    "kwargs": dict,
    "config": lambda: zoo.to_config(vp()),
    "content": lambda: zoo.Sampler("ddim").to_config(),
    "where": lambda: "it",
    # inverse problems
    "operator": lambda: torch.eye(2),
    "measurement": measurement,
    "rule": inverse.MMPS,
    "matrix": lambda: torch.eye(2),
    "mask": lambda: torch.tensor([True, False]),
    "kernel": lambda: torch.ones(3, 3) / 9,
    "noise_std": lambda: 0.1,
    "observations": lambda: {"label": torch.zeros(3, 4)},
    # files
    "path": lambda: "file",
    "folder": lambda: Path("folder"),
    "path_or_name": lambda: "digits",
    # training
    "source": vectors,
    "batches": batches,
    "stream": lambda: training.Stateless(batches()),
    "recipe": recipe,
    "loss": lambda: loss,
    "preset": preset,
    "parameters": lambda: list(network().parameters()),
    "module": network,
    "samples": lambda: 8,
    # objects whose methods are called
    "self: Bound": lambda: scoresde.variational_bound(vp(), gaussian().score(vp()), states(), seed=0, draws=4),
    "self: Grid": lambda: scoresde.Grid((1.0, 0.5, 0.1)),
    "self: grids.SamplerGrid": lambda: scoresde.grids.SamplerGrid(_even),
    "self: interop.Conventions": lambda: scoresde.interop.conventions(DDIM),
    "self: FittedGrid": fitted,
    "self: Likelihood": lambda: scoresde.log_likelihood(vp(), score_fn(), states(), probes=2, seed=0),
    "self: testing.Convergence": lambda: scoresde.testing.Convergence((10, 20), (0.4, 0.1)),
    "self: training.Preset": preset,
    "self: Pretrained": pretrained,
    "self: inverse.Measurement": measurement,
    "training.Metric.metric": Distance,
    "training.Metric.real": lambda: torch.zeros(4, 2),
    "training.Metric.samples": lambda: training.SampleCallback((2,), 4, sampler={"method": "ddim", "steps": 2}),
    "self: training.Folder": lambda: training.Folder(folder_of_images()),
    "self: inverse.Blur": lambda: inverse.Blur((1, 2, 2), torch.ones(1, 1)),
    "self: ScoreModel.variance": learned,
    "self: zoo.Config": lambda: zoo.Pretrained.of(trained(), SMALL).config,
    # of single functions
    "context: Mapping[str, object]": dict,
    "scores.Traits.merged.parts": lambda: [scoresde.scores.Traits()],
    "solvers.to_config.solver": solvers.DDIM,
    "solve.method": lambda: "ddim",
    "solve.steps": lambda: 3,
    "sample_tilted.steps": lambda: 3,
    "sample_tilted.particles": lambda: 2,
    "sample_tilted.x": states,
    "encode.steps": lambda: 3,
    "encode.method": lambda: "ddim",
    "decode.steps": lambda: 3,
    "decode.method": lambda: "ddim",
    "decode.context": dict,
    "reconstruct.steps": lambda: 3,
    "reconstruct.method": lambda: "ddim",
    "tune.evaluations": lambda: 3,
    "solvers.choose.evaluations": lambda: 8,
    "tune.pilot": lambda: 4,
    "tune.candidates": lambda: [("ddim", None)],
    "tune.reference": lambda: 6,
    "tune.objective": lambda: "log",
    "fit_solver.evaluations": lambda: 3,
    "fit_solver.pilot": lambda: 4,
    "fit_solver.iterations": lambda: 1,
    "fit_solver.reference": lambda: 6,
    "generate.folder": new_folder,
    "generate.count": lambda: 2,
    "generate.identity": lambda: "a score",
    "generate.shape": lambda: (2,),
    "generate.context": lambda: no_context,
    "generate.show": lambda: len_of,
    "generate.features": lambda: lambda x: x,
    "sets.compute.folder": new_folder,
    "sets.compute.function": lambda: rows_of,
    "sets.compute.count": lambda: 2,
    "sets.compute.identity": lambda: "a function",
    "sets.compute.show": lambda: len_of,
    "sets.Batch.indices": lambda: torch.arange(2),
    "sets.Batch.noise": lambda: scoresde.SampleNoise(0, indices=range(2)),
    "self: NormalPrior": scoresde.NormalPrior,
    "self: sets.Batch": lambda: scoresde.sets.Batch(torch.arange(2), scoresde.SampleNoise(0, indices=range(2))),
    "sets.Batch.rows.table": lambda: torch.zeros(3, 2),
    "sets.Samples.folder": set_of_samples,
    "sets.verify.folder": set_of_samples,
    "self: sets.Samples": lambda: scoresde.sets.Samples(set_of_samples()),
    "sets.Samples.arrays.shard": lambda: 0,
    "sets.Generated.folder": lambda: Path("folder"),
    "sets.Generated.failures": tuple,
    "sets.Verified.missing": tuple,
    "sets.Verified.failures": tuple,
    "certify.steps": lambda: 3,
    "certify.method": lambda: "ddim",
    "certify.pilot": lambda: 24,
    "certify.confidence": lambda: 0.5,
    "certify.indicator": lambda: "constant",
    "certify.norm": lambda: "rms",
    "certify.shape": lambda: (24, 2),
    "certify.identity": lambda: "a score",
    "solve.path_log_prob": lambda: False,
    "solve.log_prob": lambda: False,
    "self: paths.Path": recorded_path,
    "paths.Path.__getitem__.rows": lambda: [0, 2],
    "paths.Path.load.path": path_file,
    "paths.log_prob.path": recorded_path,
    "paths.Weights.log_weights": lambda: torch.zeros(4),
    "paths.log_prob.steps": lambda: [0, 2],
    "paths.log_prob.method": lambda: "ancestral",
    "paths.log_ratio.path": recorded_path,
    "paths.log_ratio.steps": lambda: [0, 2],
    "paths.log_ratio.new": score_fn,
    "paths.log_ratio.old": score_fn,
    "paths.kl.path": recorded_path,
    "paths.kl.steps": lambda: [0, 2],
    "paths.kl.new": score_fn,
    "paths.kl.old": score_fn,
    "paths.divergence.path": recorded_path,
    "paths.divergence.new": score_fn,
    "paths.divergence.old": score_fn,
    "paths.girsanov.path": recorded_path,
    "paths.girsanov.new": score_fn,
    "paths.girsanov.old": score_fn,
    "paths.weights.path": recorded_path,
    "paths.weights.log_density": lambda: lambda x: -0.5 * x.square().sum(1),
    "paths.weights.prior_log_prob": lambda: torch.zeros(4, dtype=torch.float64),
    "self: paths.Weights": lambda: scoresde.paths.Weights(torch.zeros(4, dtype=torch.float64), states()),
    "paths.Weights.mean.function": lambda: lambda x: x[:, 0],
    "paths.Weights.mean.confidence": lambda: 0.9,
    "paths.Weights.log_normaliser.confidence": lambda: 0.9,
    "paths.Weights.resampled.count": lambda: 3,
    "paths.Weights.resampled.seed": lambda: 0,
    "self: trust.Certificate": certificate,
    "trust.Certificate.solve.seeds": lambda: [1, 2],
    "trust.Certificate.solve.shape": lambda: (2, 2),
    "trust.Certificate.at.confidence": lambda: 0.5,
    "trust.Certificate.on.method": lambda: "ddim",
    "trust.Certificate.load.path": certificate_file,
    "self: trust.Coverage": lambda: scoresde.trust.Coverage(20, 18),
    "self: trust.Law": lambda: scoresde.trust.Law(torch.linspace(0.1, 0.2, 8), 1.0),
    "self: trust.Advice": lambda: scoresde.advise(torch.linspace(-1.0, 1.0, 64).reshape(32, 2)),
    "trust.Coverage.all_of.count": lambda: 3,
    "trust.Coverage.number_of.count": lambda: 3,
    "trust.Coverage.number_of.confidence": lambda: 0.9,
    "trust.Coverage.at_least.confidence": lambda: 0.9,
    "trust.Coverage.probability.share": lambda: 0.9,
    "scores.GaussianAbove.level": lambda: 5.0,
    "trust.shifted.level": lambda: 1.0,
    "trust.Law.unit": lambda: 1.0,
    "trust.energy_test.x": cloud(0.0),
    "trust.energy_test.y": cloud(0.1),
    "trust.energy_test.permutations": lambda: 19,
    "trust.energy_test.seed": lambda: 0,
    "trust.sliced_wasserstein.x": cloud(0.0),
    "trust.sliced_wasserstein.y": cloud(0.1),
    "trust.sliced_wasserstein.permutations": lambda: 19,
    "trust.sliced_wasserstein.projections": lambda: 8,
    "trust.sliced_wasserstein.seed": lambda: 0,
    "trust.classifier_test.x": cloud(0.0),
    "trust.classifier_test.y": cloud(0.1),
    "trust.classifier_test.seed": lambda: 0,
    "trust.nearest.x": cloud(0.0),
    "trust.nearest.data": cloud(0.1),
    "trust.simulation_based_calibration.theta": cloud(0.0),
    "trust.simulation_based_calibration.samples": posteriors,
    "trust.sbc_ranks.theta": cloud(0.0),
    "trust.sbc_ranks.samples": posteriors,
    "trust.tarp.theta": cloud(0.0),
    "trust.tarp.samples": posteriors,
    "trust.Law.exceeding.distance": lambda: 0.1,
    "trust.Law.wasserstein.bound": lambda: 1.0,
    "trust.shifted.resolution": lambda: 64.0,
    "trust.shifted.reference": lambda: 32.0,
    "trust.Certificate.on.identity": lambda: "a score",
    "trust.Coverage.draws": lambda: 20,
    "trust.Coverage.rank": lambda: 18,
    "trust.Coverage.of.draws": lambda: 40,
    "trust.Coverage.of.confidence": lambda: 0.9,
    "trust.Coverage.least.confidence": lambda: 0.9,
    "trust.Law.distances": lambda: torch.linspace(0.1, 0.2, 8),
    "diagnose.data": cloud(0.0, 64),
    "diagnose.steps": lambda: 3,
    "diagnose.method": lambda: "ddim",
    "diagnose.pilot": lambda: 32,
    "diagnose.posterior_draws": lambda: 4,
    "self: trust.Diagnosis": diagnosis,
    "trust.Diagnosis.total": lambda: scoresde.trust.Interval(0.1, 0.0, 0.2, 0.95, "asymptotic"),
    "trust.Diagnosis.remaining": lambda: scoresde.trust.Interval(0.1, 0.0, 0.2, 0.95, "asymptotic"),
    "trust.Diagnosis.rungs": tuple,
    "trust.Diagnosis.limits": tuple,
    "trust.Rung.distance": lambda: scoresde.trust.Interval(0.1, 0.0, 0.2, 0.95, "asymptotic"),
    "trust.Rung.details": dict,
    "advise.data": lambda: torch.linspace(-1.0, 1.0, 64).reshape(32, 2),
    "SampleNoise.seeds": lambda: [0, 1, 2, 3],
    "fit_grid.steps": lambda: 3,
    "fit_grid.pilot": lambda: 4,
    "fit_grid.iterations": lambda: 1,
    "fit_grid.reference": lambda: 6,
    "fit_start.pilot": lambda: 4,
    "fit_start.levels": lambda: 3,
    "fit_start.rtol": lambda: 0.1,
    "chain_bound.score_fn": chain_model,
    "check_score.data": lambda: torch.linspace(-1.0, 1.0, 128).reshape(64, 2),
    "interpolate.weights": lambda: torch.tensor([0.2, 0.8]),
    "bits_per_dim.log_prob": column(-3.0),
    "variational_bound.draws": lambda: 4,
    "density_profile.points": lambda: 5,
    "log_likelihood.rtol": lambda: 1e-3,
    "log_likelihood.atol": lambda: 1e-3,
    "save.model": trained,
    "save.path": lambda: "model",
    "zoo.save_classifier.model": classifier,
    "zoo.load_classifier.path": lambda: save_classifier("classifier"),
    "zoo.Config.architecture": lambda: "mlp",
    "zoo.Labels.count": lambda: 3,
    "zoo.Labels.null": lambda: 3,
    "losses.FromLevels.levels": lambda: torch.exp,
    "training.Preset.bits.model": trained,
    "zoo.Config.model.process": vp,
    "zoo.Config.model.chain": lambda: None,
    "zoo.Config.model.net": network,
    "training.hold_out.source": images,
    "training.hold_out.count": lambda: 3,
    "training.read.data": lambda: "digits",
    "training.fit.net": network,
    "training.fit.loss": lambda: plain_loss,
    "training.fit.draw": lambda: draw,
    "training.Trainer.model": trained,
    "training.train_digits.recipe": recipe,
    "training.train_classifier.source": images,
    "training.train_classifier.recipe": recipe,
    "losses.noisy_cross_entropy.model": classifier,
    "losses.noisy_cross_entropy.x0": lambda: torch.zeros(4, 1, 8, 8),
    "nets.fourier_features.x": lambda: torch.zeros(4, 1, 8, 8),
    "plot.image_animation.states": lambda: [torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)],
    "plot.image_grid.x": lambda: torch.zeros(2, 1, 8, 8),
    "plot.image_table.x": lambda: torch.zeros(2, 2, 1, 8, 8),
    "plot.mean_and_spread.samples": lambda: torch.zeros(2, 1, 8, 8),
    "plot.corner.samples": lambda: torch.randn(50, 2, generator=torch.Generator().manual_seed(0)),
    "plot.work_precision.curves": lambda: {"a": ([5, 10], [0.2, 0.1])},
    "plot.grid_nodes.grids": lambda: {"a": [1.0, 0.5, 0.1]},
    **{
        f"plot.{name}.solution": lambda: saved()
        for name in ("trajectories", "density_evolution", "step_sizes", "point_animation")
    },
    "plot.error_curves.errors": lambda: torch.linspace(0.1, 1.0, 5),
    "plot.error_curves.ratios": lambda: torch.linspace(0.1, 2.0, 5),
    "plot.cause_bars.names": lambda: ["a", "b"],
    "plot.cause_bars.sizes": lambda: torch.tensor([0.1, 0.2]),
    "plot.cause_bars.limits": lambda: ["a"],
    "plot.divergence_profile.levels": lambda: torch.linspace(-1.0, 1.0, 4),
    "inverse.Blur.adjoint.y": lambda: torch.zeros(4, 1, 2, 2),
    "inverse.Blur.pseudo_inverse.y": lambda: torch.zeros(4, 1, 2, 2),
    "training.Folder.rows.indices": lambda: torch.tensor([0]),
    "plot.divergence_profile.values": lambda: torch.zeros(3, 4),
    "training.Arrays.values": lambda: images().values,
    "Adaptive.rtol": lambda: 1e-3,
    "Adaptive.atol": lambda: 1e-3,
    "BrownianPath.seeds": lambda: [0, 1, 2, 3],
    "FittedGrid.load.path": lambda: save_grid("grid.json"),
    "FittedGrid.of.content": lambda: fitted().fields(),
    "GaussianSDE.t_max": lambda: 1.0,
    "Pretrained.net": lambda: pretrained().net,
    "Pretrained.config": lambda: pretrained().config,
    "Pretrained.label": lambda: 3,
    "Pretrained.grid.steps": lambda: 10,
    "Pretrained.grid.sde": scoresde.EDMSDE,
    "Pretrained.solver.steps": lambda: 5,
    "FittedGrid.on.sde": scoresde.VPSDE,
    "FittedSolver.on.sde": scoresde.VPSDE,
    "Tuned.on.sde": scoresde.VPSDE,
    "Pretrained.sample.label": lambda: 3,
    "Pretrained.sample.steps": lambda: 2,
    "Pretrained.sample.method": lambda: "ddim",
    "Pretrained.score.label": lambda: 3,
    "Pretrained.of.model": trained,
    "Pretrained.of.kwargs": lambda: SMALL,
    "ScoreModel.same_network.other": model,
    "chain_bound.draws": lambda: 1,
    "sample_tilted.score_fn": lambda: guidance.classifier_guidance(score_fn(), log_prob),
    "save.kwargs": lambda: SMALL,
    "discrete.BetaChain.from_config.config": lambda: betas().to_config(),
    "solvers.from_config.config": lambda: {"method": "pc", "options": {}},
    "discrete.NoiseScales.ncsnv2.data": lambda: torch.linspace(-1.0, 1.0, 80).reshape(4, 20),
    "grids.Shifted.grid": lambda: scoresde.grids.time,
    "grids.SamplerGrid.times": lambda: _even,
    "interop.Conventions.grid.n": lambda: 4,
    "interop.conventions.scheduler": lambda: dict(DDIM),
    "interop.from_diffusers.model": lambda: _unet,
    "interop.from_diffusers.scheduler": lambda: dict(DDIM),
    "guidance.conditional.label": lambda: 3,
    "guidance.conditional.score_fn": lambda: pretrained().score(vp()),
    "guidance.tall.score_fn": labelled_score,
    **{f"inverse.{name}.event_shape": lambda: (1, 8, 8) for name in IMAGES},
    "inverse.Composed.first": lambda: scoresde.inverse.Grey((3, 8, 8)),
    "inverse.Composed.second": lambda: scoresde.inverse.block_average((1, 8, 8), 2),
    "inverse.Diagonal.factors": lambda: torch.ones(8, 8),
    "inverse.from_deepinv.physics": lambda: types.SimpleNamespace(A=lambda x: x, A_adjoint=lambda y: y),
    "inverse.PartialFourier.mask": lambda: torch.ones(8, 8, dtype=torch.bool),
    "inverse.Separable.rows": lambda: torch.ones(1, 8),
    **{f"losses.{name}.model": chain_model for name in ("ddpm_simple", "ddpm_vlb")},
    **{f"losses.{name}.t": column(0.5) for name in ("implicit_at", "sliced_at")},
    "losses.iddpm_hybrid.model": learned,
    "losses.WeightedIndex.weights": lambda: [1.0] * 10,
    "losses.prior_kl.prior": scoresde.NormalPrior,
    "losses.prior_kl.alpha": lambda: 0.5,
    "losses.prior_kl.sigma": lambda: 0.5,
    "losses.reconstruction.node": lambda: vp().nodes(torch.tensor(0.001, dtype=torch.float64)),
    "losses.reconstruction.x0": lambda: torch.full((4, 2), -1 + 1 / 17),
    "ncsnv2.best_step.ratio": lambda: 1.5,
    "ncsnv2.overlap.ratio": lambda: 1.5,
    "ncsnv2.spread.ratio": lambda: 1.5,
    "presets.scaled.steps": lambda: 1000,
    "Stepper.x": states,
    "Stepper.method": lambda: "ddim",
    "Stepper.steps": lambda: 3,
    "Stepper.load_state_dict.state": stepper_state,
    "Stepper.tell.output": states,
    "self: Stepper.tell": stepper,
    "interop.from_azula.denoiser": azula_denoiser,
    "interop.from_flow_matching.velocity": lambda: net,
    "interop.from_guided_classifier.classifier": lambda: net,
    "interop.from_guided_classifier.model": guided_model,
    "interop.from_guided_diffusion.diffusion": betas,
    "interop.from_guided_diffusion.model": lambda: net,
    "interop.from_k_diffusion.model": lambda: net,
    "interop.from_k_diffusion.sigma_max": lambda: 10.0,
    "interop.from_k_diffusion.sigma_min": lambda: 0.1,
    "interop.from_sbi.estimator": sbi_estimator,
    "interop.from_sbi.prior": box,
    "interop.from_sbi.x_o": lambda: torch.zeros(3, 2),
    "interop.from_score_sde.model": lambda: net,
    "interop.within_support.prior": box,
    "interop.within_support.theta": states,
    "targets.Empirical.log_prob.sde": vp,
    "targets.GaussianMixture.means": lambda: torch.tensor([[-1.0, 0.0], [1.0, 0.0]]),
    "targets.GaussianMixture.scales": lambda: 0.5,
    "targets.Uniform.high": lambda: torch.ones(2),
    "targets.Uniform.low": lambda: torch.zeros(2),
    "testing.converge.steps": lambda: [10, 20],
    "testing.order.steps": lambda: [10, 20],
    "testing.slopes.steps": lambda: [10, 20],
    "testing.estimate_order.steps": lambda: [4, 8],
    "testing.weak_order.method": lambda: "euler_maruyama",
    "testing.weak_order.steps": lambda: [4, 8],
    "testing.strong_order.method": lambda: "euler_maruyama",
    "testing.strong_order.steps": lambda: [4, 8],
    "testing.strong_error.affine": lambda: scoresde.testing.probe(many_draws, (2,)),
    "training.Folder.path": folder_of_images,
    "zoo.Config.to_json.weights": lambda: {"bytes": 1, "sha256": "0" * 64},
    "zoo.Config.from_json.raw": lambda: pretrained().config.to_json({"bytes": 1, "sha256": "0" * 64}),
    # commands
    "cli.data": lambda: write_array("data.npy"),
    "cli.out": lambda: "out.npz",
    "cli.num": lambda: "2",
    "cli.levels": lambda: "17",
    "cli.certify.out": lambda: "out.json",
    "cli.certify.model": lambda: "digits",
    "cli.certify.method": lambda: "ddim",
    "cli.certify.steps": lambda: "2",
    "cli.certify.pilot": lambda: "24",
    "cli.certify.confidence": lambda: "0.5",
    "cli.certify.indicator": lambda: "constant",
    "cli.diagnose.pilot": lambda: "32",
    "cli.diagnose.method": lambda: "ddim",
    "cli.diagnose.steps": lambda: "2",
    "cli.verify.folder": lambda: str(set_of_samples()),
    "cli.sample.steps": lambda: "2",
    "cli.sample.method": lambda: "ddim",
    "cli.encode.steps": lambda: "2",
    "cli.encode.method": lambda: "ddim",
    "cli.likelihood.rtol": lambda: "0.1",
    "cli.likelihood.atol": lambda: "0.1",
    "cli.likelihood.out": lambda: "out.csv",
    "cli.measure.operator": lambda: "block_average:factor=2",
    "cli.train.out": lambda: "out",
    "cli.train.data": lambda: "digits",
    "cli.train.steps": lambda: "1",
    "cli.train.batch_size": lambda: "4",
    "cli.check.data": lambda: write_floats("data.npy"),
    "cli.check.model": lambda: save_model("model", "v"),
}
