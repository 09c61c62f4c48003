r"""Our methods on networks of diffusers, beside the loops of diffusers' own schedulers.

Small U-Nets are trained on the digits, one for each prediction and betas. Each is then sampled twice from the same
noise with the same draws in single precision: by a scheduler, in the loop of its documentation, and by
`scoresde.solve` with the model and the grid that `scoresde.interop.from_diffusers` makes of the network and the
scheduler's config. The figure is the largest difference of two samples' elements, over the largest element.

``cases`` should agree to 1e-5. ``explained`` are the differences by design: the figure of the two loops as they are,
and that with the reason undone.

``python -m benchmarks diffusers_parity`` writes ``results/diffusers_parity.json``; with ``--check`` it runs a part,
with the networks of the tests, and writes nothing; ``--store`` makes these. It needs diffusers.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import scoresde
from benchmarks._diffusers_networks import trained, unet
from benchmarks._record import write
from benchmarks._wide import Wide
from scoresde.discrete import BetaChain
from scoresde.interop import conventions, from_diffusers
from scoresde.interop.diffusers.process import TimestepSDE

TOLERANCE = 1e-5
SHAPE = (4, 1, 8, 8)
SHORT, LONG = 10, 20  # steps; below 15 some schedulers lower their order at the end
BETAS: dict[str, dict[str, Any]] = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "squaredcos_cap_v2": {"beta_schedule": "squaredcos_cap_v2"},
    "trained_betas": {"trained_betas": [1e-4 + 0.02 * (k / 999) ** 1.5 for k in range(1000)]},
}
SIGMOID = {"beta_schedule": "sigmoid", "beta_start": 1e-4, "beta_end": 0.02}
PREDICTIONS = ("epsilon", "sample", "v_prediction")
SPACINGS = ("leading", "trailing", "linspace")
PLAIN = {"clip_sample": False}


class Pair(NamedTuple):
    """A scheduler of diffusers and our method.

    Attributes:
        scheduler: its class.
        method: ours.
        fixed: options of the scheduler.
        options: of our method, with the number of steps.
        varied: whether predictions, spacings and betas are those of a chain; else there is one case.
        left_out: predictions that the scheduler does not have.
    """

    scheduler: str
    method: str
    fixed: Mapping[str, Any] = MappingProxyType({})
    options: Callable[[int], dict[str, Any]] = lambda steps: {}
    varied: bool = True
    left_out: tuple[str, ...] = ()


def _published(steps: int) -> dict[str, Any]:
    """A multistep method as published."""
    return {"start_up": "published", "lower_order_final": steps < 15}


KARRAS = {"use_karras_sigmas": True}
PAIRS: dict[str, Pair] = {
    "DDIM = ddim": Pair("DDIMScheduler", "ddim", PLAIN),
    "DDIM(steps_offset=1, set_alpha_to_one=False) = ddim": Pair(
        "DDIMScheduler", "ddim", {**PLAIN, "steps_offset": 1, "set_alpha_to_one": False}
    ),
    "DDPM(fixed_small) = ancestral": Pair("DDPMScheduler", "ancestral", PLAIN),
    "DDPM(fixed_large) = ancestral(large)": Pair(
        "DDPMScheduler", "ancestral", {**PLAIN, "variance_type": "fixed_large"}, lambda steps: {"variance": "large"}
    ),
    "DDPM(clip_sample) = ancestral of a clipped model": Pair("DDPMScheduler", "ancestral", {"clip_sample": True}),
    "DPMSolverMultistep = dpmpp_2m": Pair(
        "DPMSolverMultistepScheduler", "dpmpp_2m", {}, lambda steps: {**_published(steps), "form": "dpmsolver"}
    ),
    "DPMSolverMultistep(Karras) = dpmpp_2m": Pair(
        "DPMSolverMultistepScheduler", "dpmpp_2m", KARRAS, lambda steps: {**_published(steps), "form": "dpmsolver"}
    ),
    "UniPCMultistep = unipc": Pair(
        "UniPCMultistepScheduler",
        "unipc2",
        {},
        lambda steps: {"start_up": "published", "lower_order_final": True, "variant": "bh2"},
    ),
    "EulerDiscrete = ddim": Pair("EulerDiscreteScheduler", "ddim"),
    "EulerDiscrete(Karras) = ddim": Pair("EulerDiscreteScheduler", "ddim", KARRAS),
    "EulerAncestralDiscrete = ancestral": Pair("EulerAncestralDiscreteScheduler", "ancestral", left_out=("sample",)),
    "HeunDiscrete = edm_heun": Pair("HeunDiscreteScheduler", "edm_heun"),
    "HeunDiscrete(Karras) = edm_heun": Pair("HeunDiscreteScheduler", "edm_heun", KARRAS),
    "DEISMultistep = dpm_2m": Pair(
        "DEISMultistepScheduler",
        "dpm_2m",
        {},
        lambda steps: {**_published(steps), "form": "taylor"},
    ),
    "DDIM(rescale_betas_zero_snr) = ddim": Pair(
        "DDIMScheduler", "ddim", {**PLAIN, "rescale_betas_zero_snr": True}, left_out=("epsilon",)
    ),
    "DDPM(rescale_betas_zero_snr) = ancestral": Pair(
        "DDPMScheduler", "ancestral", {**PLAIN, "rescale_betas_zero_snr": True}, left_out=("epsilon",)
    ),
    "DPMSolverMultistep(use_flow_sigmas) = dpmpp_2m": Pair(
        "DPMSolverMultistepScheduler",
        "dpmpp_2m",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
        lambda steps: {**_published(steps), "form": "dpmsolver"},
        varied=False,
    ),
    "UniPCMultistep(use_flow_sigmas) = unipc": Pair(
        "UniPCMultistepScheduler",
        "unipc2",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
        lambda steps: {"start_up": "published", "lower_order_final": True, "variant": "bh2"},
        varied=False,
    ),
    "FlowMatchEuler = euler": Pair("FlowMatchEulerDiscreteScheduler", "euler", varied=False),
    "FlowMatchEuler(shift=3) = euler": Pair("FlowMatchEulerDiscreteScheduler", "euler", {"shift": 3.0}, varied=False),
    "EDMEuler = ddim": Pair("EDMEulerScheduler", "ddim", varied=False),
    "EDMDPMSolverMultistep = dpmpp_2m": Pair(
        "EDMDPMSolverMultistepScheduler",
        "dpmpp_2m",
        {},
        lambda steps: {**_published(steps), "form": "dpmsolver"},
        varied=False,
    ),
}


class Case(NamedTuple):
    """One comparison: a pair, the options of its scheduler, and the number of steps."""

    pair: str
    options: dict[str, Any]
    steps: int

    @property
    def label(self) -> str:
        """What is varied."""
        given = (self.options.get(name) for name in ("prediction_type", "timestep_spacing"))
        betas = next((name for name, betas in BETAS.items() if betas.items() <= self.options.items()), None)
        return ", ".join(str(part) for part in (*given, betas, f"{self.steps} steps") if part is not None)


def cases(quick: bool = False) -> Iterator[Case]:
    """The cases that should agree."""
    for name, pair in PAIRS.items():
        if not pair.varied:
            yield from (Case(name, dict(pair.fixed), steps) for steps in (SHORT, LONG))
            continue
        every = itertools.product(PREDICTIONS, SPACINGS, BETAS)
        for prediction, spacing, betas in _turns() if quick else every:
            case = Case(
                name,
                {**BETAS[betas], **pair.fixed, "prediction_type": prediction, "timestep_spacing": spacing},
                LONG if betas == "linear" else SHORT,
            )
            if prediction not in pair.left_out and not _explained(case):
                yield case


def _turns() -> Iterator[tuple[str, str, str]]:
    """Every prediction with one spacing and one schedule of betas."""
    return zip(PREDICTIONS, SPACINGS, BETAS, strict=False)


def _explained(case: Case) -> bool:
    """Whether a case is one of `explained`."""
    ends_elsewhere = case.pair.startswith("DDIM") and case.options["timestep_spacing"] == "linspace"
    last_draw = case.pair.startswith("DDPM(fixed_large)") and case.options["timestep_spacing"] == "trailing"
    large = (
        PAIRS[case.pair].scheduler in LARGE
        and case.options.get("beta_schedule") == "squaredcos_cap_v2"
        and case.options["timestep_spacing"] != "leading"
        and "use_karras_sigmas" not in case.options
    )
    return ends_elsewhere or last_draw or large


# Schedulers that compute with x/alpha, which the cosine's noisiest level makes as large as 20,000.
LARGE = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DEISMultistepScheduler",
)


def make(name: str, **options: Any) -> Any:
    """A scheduler of diffusers."""
    return getattr(importlib.import_module("diffusers"), name)(**options)


def noise(steps: int, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """The noise at the start, and the draws of the steps."""
    start = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed + 1))
    generator = torch.Generator().manual_seed(seed)
    return start, [torch.randn(SHAPE, generator=generator) for _ in range(steps + 1)]


@torch.no_grad()
def theirs(scheduler: Any, net: nn.Module, steps: int, **options: Any) -> Tensor:
    """The loop of diffusers' documentation, in the network's dtype."""
    scheduler.set_timesteps(steps)
    start, draws = noise(steps)
    dtype, left = next(net.parameters()).dtype, iter(draws)
    x = start.to(dtype) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    module = sys.modules[type(scheduler).__module__]
    with contextlib.ExitStack() as stack:
        if hasattr(module, "randn_tensor"):
            draw = mock.patch.object(module, "randn_tensor", side_effect=lambda *_, **__: next(left).to(dtype))
            stack.enter_context(draw)
        if dtype is torch.float64:
            stack.enter_context(mock.patch.object(module, "torch", Wide(torch)))
            scheduler.sigmas = scheduler.sigmas.double()
        for t in scheduler.timesteps:
            given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(net(given, t).sample, t, x, **options).prev_sample
    return x


def ours(
    scheduler: Any,
    net: nn.Module,
    steps: int,
    method: str,
    *,
    grid: Tensor | None = None,
    sde: scoresde.AffineSDE | None = None,
    **options: Any,
) -> Tensor:
    """The same by `scoresde.solve`, from the state that the scheduler starts from; returned as it returns it."""
    found, model = conventions(scheduler), from_diffusers(net, scheduler)
    process = model.sde if sde is None else sde
    times = found.grid(steps) if grid is None else grid
    first, last = (float(process.alpha(t)) if found.state == "x/alpha" else 1.0 for t in (times[0], times[-1]))
    start, draws = noise(steps)
    scheduler.set_timesteps(steps)
    x = start.to(next(net.parameters()).dtype) * float(getattr(scheduler, "init_noise_sigma", 1.0)) * first
    score = found.limit(model if sde is None else model.on(sde))
    source = {"noise": lambda k, like: draws[k].to(like)} if scoresde.solvers.make_solver(method, {}).stochastic else {}
    return scoresde.solve(process, score, x, method=method, grid=times, **source, **options).x / last


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference over the largest element."""
    return float((a - b).abs().max() / b.abs().max())


def compare(case: Case, net: nn.Module) -> float:
    """The figure of a case."""
    pair = PAIRS[case.pair]
    other = theirs(make(pair.scheduler, **case.options), net, case.steps)
    mine = ours(make(pair.scheduler, **case.options), net, case.steps, pair.method, **pair.options(case.steps))
    return gap(mine, other)


# The differences by design.


class Difference(NamedTuple):
    """Two figures of one difference: as the two loops are, and with its reason undone."""

    reason: str
    as_they_are: float
    undone: float


Nets = Callable[[str, Mapping[str, Any]], nn.Module]


def explained(nets: Nets) -> dict[str, Difference]:
    """All of them, by their names."""
    return {name: measure(nets) for name, measure in EXPLAINED.items()}


def _linear(nets: Nets, prediction: str = "epsilon") -> nn.Module:
    return nets(prediction, BETAS["linear"])


def _ddim_linspace(nets: Nets) -> Difference:
    options = {**PLAIN, "timestep_spacing": "linspace", **BETAS["linear"]}
    net, steps = _linear(nets), SHORT
    other = theirs(make("DDIMScheduler", **options), net, steps)
    mine = ours(make("DDIMScheduler", **options), net, steps, "ddim")
    model = from_diffusers(net, make("DDIMScheduler", **options))
    x = noise(steps)[0]
    for t in conventions(make("DDIMScheduler", **options)).grid(steps)[:-1].tolist():
        x = scoresde.solve(model.sde, model, x, method="ddim", grid=[t, max(t - 1000 // steps, 0.0)]).x
    reason = "a step ends N // n below its timestep, and the next begins elsewhere; undone: steps from there to there"
    return Difference(reason, gap(mine, other), gap(x, other))


def _last_draw(nets: Nets) -> Difference:
    options = {**PLAIN, "variance_type": "fixed_large", "timestep_spacing": "trailing", **BETAS["linear"]}
    net, steps = _linear(nets), SHORT
    other = theirs(make("DDPMScheduler", **options), net, steps)
    mine = ours(make("DDPMScheduler", **options), net, steps, "ancestral", variance="large")
    found = conventions(make("DDPMScheduler", **options))
    drawn = float(found.sde.sigma(found.grid(steps)[-2])) * noise(steps)[1][steps - 1]
    reason = "a last step from a timestep above 0 adds noise of variance beta to the data; undone: without it"
    return Difference(reason, gap(mine, other), gap(mine, other - drawn))


def _clipped(nets: Nets) -> Difference:
    options = {"clip_sample": True, **BETAS["linear"]}
    net = _linear(nets)
    mine = ours(make("DDIMScheduler", **options), net, SHORT, "ddim")
    kept = theirs(make("DDIMScheduler", **options), net, SHORT)
    rederived = theirs(make("DDIMScheduler", **options), net, SHORT, use_clipped_model_output=True)
    reason = "it clips the data estimate and keeps the noise estimate; undone: its use_clipped_model_output"
    return Difference(reason, gap(mine, kept), gap(mine, rederived))


def _rounded_levels(nets: Nets) -> Difference:
    options = {**PLAIN, **BETAS["linear"]}
    net = _linear(nets)
    other = theirs(make("DDIMScheduler", **options), net, SHORT)
    exact = TimestepSDE(BetaChain.linear().log_snrs)
    mine = ours(make("DDIMScheduler", **options), net, SHORT, "ddim", sde=exact)
    reason = "alpha-bar is a product in single precision; as they are: exact levels; undone: its levels"
    return Difference(reason, gap(mine, other), gap(ours(make("DDIMScheduler", **options), net, SHORT, "ddim"), other))


def _end_at_level_0(nets: Nets) -> Difference:
    options = {**PLAIN, "set_alpha_to_one": False, "steps_offset": 1, **BETAS["linear"]}
    net = _linear(nets)
    other = theirs(make("DDIMScheduler", **options), net, SHORT)
    found = conventions(make("DDIMScheduler", **options))
    grid = found.grid(SHORT)
    data = torch.cat([grid[:-1], grid.new_zeros(1)])
    mine = ours(make("DDIMScheduler", **options), net, SHORT, "ddim", grid=data)
    reason = "set_alpha_to_one=False ends at level 0; as they are: a grid that ends at the data; undone: at level 0"
    return Difference(reason, gap(mine, other), gap(ours(make("DDIMScheduler", **options), net, SHORT, "ddim"), other))


def _large_states(pair: str) -> Callable[[Nets], Difference]:
    """Of one scheduler of `LARGE`."""
    scheduler, method, more = PAIRS[pair].scheduler, PAIRS[pair].method, PAIRS[pair].options(SHORT)

    def measure(nets: Nets) -> Difference:
        options = {**BETAS["squaredcos_cap_v2"], "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
        net = nets("v_prediction", options)
        gaps = [
            gap(
                ours(make(scheduler, **options), n, SHORT, method, **more), theirs(make(scheduler, **options), n, SHORT)
            )
            for n in (net, copy.deepcopy(net).double())
        ]
        reason = (
            "it computes with x/alpha, as large as 20,000 here, in single precision; undone: both sides in double "
            "precision"
        )
        return Difference(reason, *gaps)

    return measure


def _custom_sigmas(nets: Nets) -> Difference:
    net, levels = _linear(nets), [80.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.0]
    scheduler = make("EulerDiscreteScheduler", **BETAS["linear"])
    scheduler.set_timesteps(sigmas=levels)
    x = noise(1)[0] * levels[0]
    start = x.clone()
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(net(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
    results = []
    for more in ({}, KARRAS):  # the config of Karras's levels has the timesteps of given ones
        config = make("EulerDiscreteScheduler", **BETAS["linear"], **more)
        model, grid = from_diffusers(net, config), conventions(config).grid(sigmas=levels)
        results.append(
            scoresde.solve(model.sde, model, start * float(model.sde.alpha(grid[0])), method="ddim", grid=grid).x
        )
    reason = (
        "timesteps of given noise levels are linear in ln(sigma/alpha), those of its own in sigma/alpha; undone: the "
        "same, by the config of Karras's levels"
    )
    return Difference(reason, gap(results[0], x), gap(results[1], x))


def _flow_heun(nets: Nets) -> Difference:
    net = nets("flow_prediction", {})
    other = theirs(make("FlowMatchHeunDiscreteScheduler"), net, SHORT)
    model = from_diffusers(net, make("FlowMatchHeunDiscreteScheduler"))
    grid, x = conventions(make("FlowMatchHeunDiscreteScheduler")).grid(SHORT), noise(SHORT)[0]
    euler = scoresde.solve(model.sde, model, x, method="euler", grid=grid).x
    x = scoresde.solve(model.sde, model, x, method="heun", grid=grid[:-1]).x
    x = scoresde.solve(model.sde, model, x, method="euler", grid=grid[-2:]).x
    reason = (
        "heun evaluates at the end of a step and does not go to sigma = 0, where the scheduler makes a step of Euler; "
        "as they are: euler; undone: heun, and euler for the last step"
    )
    return Difference(reason, gap(euler, other), gap(x, other))


EXPLAINED: dict[str, Callable[[Nets], Difference]] = {
    'DDIM(timestep_spacing="linspace")': _ddim_linspace,
    'DDPM(variance_type="fixed_large", timestep_spacing="trailing")': _last_draw,
    "DDIM(clip_sample=True)": _clipped,
    "levels in single precision": _rounded_levels,
    "DDIM(set_alpha_to_one=False)": _end_at_level_0,
    "EulerDiscrete(squaredcos_cap_v2)": _large_states("EulerDiscrete = ddim"),
    "EulerAncestralDiscrete(squaredcos_cap_v2)": _large_states("EulerAncestralDiscrete = ancestral"),
    "HeunDiscrete(squaredcos_cap_v2)": _large_states("HeunDiscrete = edm_heun"),
    "DEISMultistep(squaredcos_cap_v2)": _large_states("DEISMultistep = dpm_2m"),
    "EulerDiscrete.set_timesteps(sigmas=…)": _custom_sigmas,
    "FlowMatchHeun": _flow_heun,
}


class Networks:
    """Networks by prediction and betas, each made once.

    Args:
        stored: whether to take those of the tests, which were trained with linear betas, for all betas.
    """

    def __init__(self, stored: bool) -> None:
        self.stored = stored
        self._made: dict[tuple[str, str], nn.Module] = {}

    def __call__(self, prediction: str, options: Mapping[str, Any]) -> nn.Module:
        betas = next((name for name, betas in BETAS.items() if betas.items() <= options.items()), "linear")
        key = prediction, "linear" if self.stored else betas
        if key not in self._made:
            self._made[key] = stored(prediction) if self.stored else trained(_trainer(*key))
        return self._made[key]

    def of(self, case: Case) -> nn.Module:
        """The network of a case."""
        own = {"flow": "flow_prediction", "edm": "edm"}
        found = conventions(make(PAIRS[case.pair].scheduler, **case.options))
        return self(own.get(found.prediction, case.options.get("prediction_type", "epsilon")), case.options)


def _trainer(prediction: str, betas: str) -> Any:
    """A scheduler whose conventions the network is trained with."""
    others = {"flow_prediction": "FlowMatchEulerDiscreteScheduler", "edm": "EDMEulerScheduler"}
    if prediction in others:
        return make(others[prediction])
    return make("DDPMScheduler", prediction_type=prediction, **BETAS[betas])


STORED = Path(__file__).parents[1] / "tests" / "interop" / "diffusers_networks.safetensors"
SMALL = (8, 8)  # channels of those


def stored(prediction: str) -> nn.Module:
    """A small network of the tests; for EDM's output, that of the noise."""
    name = "epsilon" if prediction == "edm" else prediction
    weights = {
        key.removeprefix(f"{name}."): value for key, value in load_file(STORED).items() if key.startswith(f"{name}.")
    }
    net = unet(SMALL)
    net.load_state_dict({key: value.float() for key, value in weights.items()})
    return net


def store() -> None:
    """Train the networks of the tests."""
    nets = {name: trained(_trainer(name, "linear"), SMALL, steps=300) for name in (*PREDICTIONS, "flow_prediction")}
    weights = {f"{name}.{key}": value.half() for name, net in nets.items() for key, value in net.state_dict().items()}
    save_file(weights, STORED)
    print(f"written to {STORED}")


def main(argv: Sequence[str] = ()) -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(prog="diffusers_parity", description=__doc__)
    parser.add_argument("--check", action="store_true", help="a part, with the networks of the tests")
    parser.add_argument("--store", action="store_true", help="train the networks of the tests, and nothing else")
    options = parser.parse_args(argv)
    quick = options.check
    importlib.import_module("diffusers").utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    if options.store:
        store()
        return
    nets = Networks(quick)
    worst: dict[str, dict[str, Any]] = {}
    for case in cases(quick):
        figure = compare(case, nets.of(case))
        row = worst.setdefault(case.pair, {"cases": 0, "largest": -1.0, "where": ""})
        row["cases"] += 1
        if not figure <= row["largest"]:
            row.update(largest=figure, where=case.label)
    for name, row in worst.items():
        print(f"{row['largest']:8.1e}  {name} ({row['cases']} cases; largest at {row['where']})")
    differences = explained(nets)
    for name, found in differences.items():
        print(f"{found.as_they_are:8.1e} -> {found.undone:8.1e}  {name}: {found.reason}")
    bad = [name for name, row in worst.items() if not row["largest"] <= TOLERANCE]
    bad += [name for name, found in differences.items() if not found.undone <= TOLERANCE]
    if bad:
        sys.exit(f"beyond {TOLERANCE:g}: {', '.join(bad)}")
    if not quick:
        results = {
            "tolerance": TOLERANCE,
            "diffusers": importlib.import_module("diffusers").__version__,
            "cases": worst,
            "explained": {name: found._asdict() for name, found in differences.items()},
        }
        write("diffusers_parity", results, "python -m benchmarks diffusers_parity")
