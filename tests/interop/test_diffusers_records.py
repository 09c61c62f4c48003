"""What was tuned, fitted or learned is a scheduler of diffusers, whose loop gives what `solve` gives."""

from __future__ import annotations

import copy
import functools
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from benchmarks import diffusers_parity
from scoresde import ScoreModel
from scoresde.core.errors import CorruptCheckpointError, InvalidArgumentError, InvalidTypeError
from scoresde.solvers.registry import to_text
from scoresde.tuning import FittedGrid
from tests.refusals import refuses

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from scoresde.interop import DiffusersScheduler, conventions, from_diffusers  # noqa: E402
from scoresde.interop.diffusers.labels import NearestTimestep  # noqa: E402

SHAPE = (16, 3, 4, 4)
STEPS = 5
SHIFTS = tuple(0.05 + 0.1 * i for i in range(STEPS))
FLOAT32 = 2e-6  # relative; a few roundings

# Schedulers, and where their solves end: where the log-SNR is finite, as a learned solver needs it.
BASES: dict[str, tuple[Any, float | None]] = {
    "ddim": (diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing"), None),
    "clipped": (diffusers.DDIMScheduler(timestep_spacing="trailing"), 1.0),
    "euler": (diffusers.EulerDiscreteScheduler(), 1.0),
    "edm": (diffusers.EDMEulerScheduler(sigma_max=700.0), 0.002),
    "flow": (diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True), 0.01),
}
NOISY = ("edm", "flow")  # those that begin below their noisiest level
KINDS = ("tuned", "grid", "learned", "shifted")
EXACT = [(name, kind) for name in BASES for kind in KINDS if name != "ddim" or kind in ("tuned", "grid")]


def net(x: Tensor, t: Any) -> Tensor:
    """A network whose output depends on the label."""
    label = torch.as_tensor(t).reshape(-1, *(1,) * (x.ndim - 1))
    return torch.tanh(x) * (0.3 + 0.1 * torch.sin(label.float() / 50))


def model_of(base: Any) -> tuple[Any, Any]:
    c = conventions(base)
    model = ScoreModel(net, c.sde, c.prediction, c.time_input, chain=c.chain, sigma_data=c.sigma_data)
    return c.sde, c.limit(model)


@functools.cache
def record(name: str, kind: str) -> FittedGrid:
    base, end = BASES[name]
    sde, model = model_of(base)
    options: dict[str, Any] = {"shape": SHAPE, "t_end": end}
    if kind == "tuned":
        return scoresde.tune(sde, model, STEPS, **options)
    if kind == "grid":
        return scoresde.fit_grid(sde, model, 3, "heun" if end else "unipc2", starts="time", iterations=0, **options)
    if kind == "shifted":
        return shifted(record(name, "learned"))
    return scoresde.fit_solver(sde, model, STEPS, iterations=6, reference=30, pilot=16, **options)


def shifted(found: FittedGrid) -> FittedGrid:
    """With large shifts."""
    method: Any = replace(scoresde.solvers.from_config(found.method), shifts=SHIFTS)  # type: ignore[call-arg]
    return replace(found, method=to_text(method))


def made(name: str, kind: str, **arguments: Any) -> Any:
    return DiffusersScheduler.from_config(BASES[name][0], method=record(name, kind), **arguments)


def noise(scheduler: Any, rows: int = 2) -> Tensor:
    x = torch.randn(rows, *SHAPE[1:], generator=torch.Generator().manual_seed(1))
    return x * scheduler.init_noise_sigma


def looped(scheduler: Any, x: Tensor, steps: int | None = None, scales: bool = True, copies: int = 1) -> Tensor:
    """A pipeline's loop, with the batch several times as for guidance."""
    if steps is not None:
        scheduler.set_timesteps(steps)
    for t in scheduler.timesteps[scheduler.begin_index or 0 :]:
        many = torch.cat([x] * copies)
        given = scheduler.scale_model_input(many, t) if scales else many
        x = scheduler.step(net(given, t).chunk(copies)[0], t, x).prev_sample
    return x


def differ(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def solved(name: str, kind: str, x: Tensor, **options: Any) -> Tensor:
    sde, model = model_of(BASES[name][0])
    return scoresde.solve(sde, model, x, **(options or {"method": record(name, kind)})).x


def by_grid(name: str, kind: str, x: Tensor, times: Any = None) -> Tensor:
    """A solve by the solver of a record on its own grid, or on another one."""
    found = record(name, kind)
    grid = torch.tensor(found.times, dtype=torch.float64) if times is None else times
    return solved(name, kind, x, method=scoresde.solvers.from_config(found.method), grid=grid)


# The loop


@pytest.mark.parametrize(("name", "kind", "copies"), [(*case, 1 + i % 2) for i, case in enumerate(EXACT)])
def test_a_loop_gives_what_solve_gives(name: str, kind: str, copies: int) -> None:
    scheduler = made(name, kind)
    x = noise(scheduler)
    assert record(name, kind).from_noise == (name in NOISY)
    assert differ(looped(scheduler, x, record(name, kind).steps, copies=copies), solved(name, kind, x)) <= FLOAT32


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("candidate", [("ddim_eta", None), ("er_sde2", "vp_quadratic"), ("edm", None)])
def test_a_method_that_draws_noise(name: str, candidate: tuple[str, str | None]) -> None:
    """A choice by a distance of distributions; its noise is that of the scheduler's generator."""
    base, end = BASES[name]
    options: dict[str, Any] = {"shape": SHAPE, "t_end": end, "pilot": 16, "objective": "law", "candidates": [candidate]}
    found = scoresde.tune(*model_of(base), 6, **options)
    scheduler = DiffusersScheduler.from_config(base, method=found)
    x = noise(scheduler)
    scheduler.generator = torch.Generator().manual_seed(7)
    after = looped(scheduler, x, found.steps)
    wanted, other = (solved(name, "", x, method=found, seed=seed) for seed in (7, 8))
    assert differ(after, wanted) <= FLOAT32 and scoresde.solvers.from_config(found.method).stochastic
    assert candidate[0] == "edm" or differ(wanted, other) > 0.01  # without churn it draws nothing


def pipeline() -> tuple[Any, Any]:
    """Of a small network that is trained on digits, and the network."""
    base = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    pipe = diffusers.DDPMPipeline(diffusers_parity.stored("epsilon"), base)
    pipe.set_progress_bar_config(disable=True)
    return pipe, from_diffusers(pipe)


@functools.cache
def record_of_digits(kind: str) -> FittedGrid:
    _, model = pipeline()
    options: dict[str, Any] = {"shape": (8, 1, 8, 8), "t_end": 1.0, "pilot": 8}
    if kind == "tuned":
        return scoresde.tune(model.sde, model, STEPS, **options)
    if kind == "grid":
        return scoresde.fit_grid(model.sde, model, STEPS, iterations=0, starts="time", **options)
    if kind == "shifted":
        return shifted(record_of_digits("learned"))
    return scoresde.fit_solver(model.sde, model, STEPS, iterations=3, reference=20, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline(kind: str) -> None:
    """Unmodified."""
    (pipe, model), found = pipeline(), record_of_digits(kind)
    pipe.scheduler = DiffusersScheduler.from_config(pipe.scheduler.config, method=found)
    source = torch.Generator().manual_seed(1)
    images = pipe(batch_size=2, num_inference_steps=STEPS, generator=source, output_type="pt").images
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    wanted = scoresde.solve(model.sde, model, x, method=found).x
    assert differ(images, (wanted / 2 + 0.5).clamp(0, 1)) <= FLOAT32


# Noise at the start


@pytest.mark.parametrize("kind", ["tuned", "learned", "shifted"])
def test_a_pipeline_that_does_not_scale(kind: str) -> None:
    """It begins with its noise as it is, or with one more call as `solve` does."""
    scheduler = made("flow", kind, lead_in=True)
    x = noise(scheduler)
    assert differ(looped(scheduler, x, STEPS, scales=False), solved("flow", kind, x)) <= FLOAT32
    assert len(scheduler.timesteps) == STEPS + 1
    scheduler = made("flow", kind)
    if kind != "tuned":  # evaluated elsewhere from the first step on
        with pytest.raises(InvalidArgumentError, match=r"method='learned' does not begin with .* lead_in=True"):
            looped(scheduler, x, STEPS, scales=False)
        return
    after = looped(scheduler, x, STEPS, scales=False)
    assert differ(after, by_grid("flow", kind, x)) <= FLOAT32
    assert 1e-4 < differ(after, solved("flow", kind, x)) < 0.01


def test_the_size_of_the_noise_matters() -> None:
    """EDM's process with sigma_max = 700 begins at 300 times the data: without its factor the result would differ."""
    x = noise(made("edm", "tuned"))
    assert differ(by_grid("edm", "tuned", x), solved("edm", "tuned", x)) > 0.1


@pytest.mark.parametrize("name", ["euler", "edm", "flow"])
def test_a_state_of_the_first_step_is_kept(name: str) -> None:
    """Image-to-image at full strength makes it with `add_noise`, at the level of the first step."""
    scheduler = made(name, "tuned")
    scheduler.set_timesteps(STEPS)
    scheduler.set_begin_index(0)
    image, draw = torch.zeros(2, *SHAPE[1:]), noise(scheduler) / scheduler.init_noise_sigma
    x = scheduler.add_noise(image, draw, scheduler.timesteps[:1])
    assert differ(looped(scheduler, x), by_grid(name, "tuned", x)) <= FLOAT32
    again = noise(scheduler)  # and the next loop is one of its own
    assert differ(looped(scheduler, again, STEPS), solved(name, "tuned", again)) <= FLOAT32


@pytest.mark.parametrize("name", ["ddim", "edm", "flow"])
def test_a_loop_that_begins_later(name: str) -> None:
    scheduler, found = made(name, "tuned"), record(name, "tuned")
    scheduler.set_timesteps(STEPS)
    scheduler.set_begin_index(2)
    x = scheduler.add_noise(torch.zeros(2, *SHAPE[1:]), noise(scheduler), scheduler.timesteps[2:3])
    assert set(scheduler.times.tolist()) <= set(found.times) and scheduler.times[-1] == found.times[-1]
    assert len(scheduler.timesteps) == STEPS
    assert differ(looped(scheduler, x), by_grid(name, "tuned", x, scheduler.times)) <= FLOAT32


def test_noise_that_is_added_between_the_steps() -> None:
    """As in inpainting: it is that of the step's state, wherever the network is evaluated."""
    scheduler, times = made("edm", "shifted"), record("edm", "shifted").times
    scheduler.set_timesteps(STEPS)
    x, draw = noise(scheduler), torch.ones(2, *SHAPE[1:])
    for i, t in enumerate(scheduler.timesteps[:-1]):
        x = scheduler.step(net(scheduler.scale_model_input(x, t), t), t, x).prev_sample
        added = scheduler.add_noise(torch.zeros_like(draw), draw, scheduler.timesteps[i + 1 : i + 2])
        assert torch.allclose(added, draw * times[i + 1], rtol=1e-6)  # sigma is the time


def test_a_learned_solver_makes_all_of_its_steps() -> None:
    scheduler = made("euler", "learned")
    scheduler.set_timesteps(STEPS)
    with pytest.raises(InvalidArgumentError, match=r"fit_solver makes all of its steps .* take what tune"):
        scheduler.set_begin_index(2)


# Levels


@pytest.mark.parametrize("name", ["euler", "edm", "flow"])
def test_the_network_gets_the_levels_that_were_learned(name: str) -> None:
    """They are the timesteps, in place of those of the grid."""
    told, plain = made(name, "shifted"), made(name, "learned")
    for scheduler in (told, plain):
        scheduler.set_timesteps(STEPS)
    sde = conventions(BASES[name][0]).sde
    times = torch.tensor(record(name, "shifted").times[:-1], dtype=torch.float64)
    shifts = torch.tensor(SHIFTS, dtype=torch.float64)
    moved = torch.exp(-0.5 * (sde.log_snr(times) + 2 * shifts))
    assert torch.allclose(told.sigmas[:-1].double(), moved, rtol=1e-5, atol=0)
    assert not torch.equal(told.timesteps, plain.timesteps)


def test_a_network_with_whole_timesteps_gets_the_nearest() -> None:
    scheduler = made("clipped", "shifted")
    assert isinstance(conventions(BASES["clipped"][0]).timestep, NearestTimestep)
    scheduler.set_timesteps(STEPS)
    assert scheduler.timesteps.dtype == torch.int64


@pytest.mark.parametrize(("kind", "fine"), [("tuned", (5,)), ("grid", (3, 6)), ("learned", (5,))])
def test_the_number_of_steps_or_of_evaluations(kind: str, fine: tuple[int, ...]) -> None:
    scheduler = made("edm", kind)
    for n in fine:
        scheduler.set_timesteps(n, device="cpu")
        assert scheduler.num_inference_steps == fine[0] and len(scheduler.timesteps) == fine[-1]
    for n in (1, 4, 7, 20):
        with pytest.raises(
            InvalidArgumentError, match=rf"`num_inference_steps` must be {fine[0]}, .*got {n}"
        ) as caught:
            scheduler.set_timesteps(n)
        assert (f"or {fine[-1]}, that of its evaluations" in str(caught.value)) == (len(fine) > 1)
    assert len(scheduler.timesteps) == fine[-1]  # a refusal leaves the loop


def test_what_pipelines_of_flows_always_pass() -> None:
    scheduler = made("flow", "tuned")
    scheduler.set_timesteps(STEPS)
    wanted = scheduler.timesteps
    for sigmas in (np.linspace(1.0, 1 / STEPS, STEPS), np.linspace(1.0, 1 / STEPS, STEPS, dtype=np.float32).tolist()):
        scheduler.set_timesteps(sigmas=sigmas, mu=1.1)
        assert torch.equal(scheduler.timesteps, wanted)
    for levels, named in (
        ({"sigmas": np.linspace(1.0, 0.1, STEPS)}, "`sigmas` follows from `method`"),
        ({"timesteps": [900, 500, 300, 200, 100]}, "`timesteps` follows from `method`"),
        ({"sigmas": np.linspace(1.0, 1 / 7, 7)}, "`num_inference_steps` must be 5"),
        ({"num_inference_steps": None}, "`num_inference_steps`"),
    ):
        with pytest.raises((InvalidArgumentError, InvalidTypeError), match=named):
            scheduler.set_timesteps(**levels)


# Configs


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_goes_there_and_back(kind: str, tmp_path: Path) -> None:
    scheduler = made("edm", kind)
    x, steps = noise(scheduler), record("edm", kind).steps
    wanted = looped(scheduler, x, steps)
    scheduler.save_pretrained(tmp_path)
    for other in (
        DiffusersScheduler.from_pretrained(tmp_path),
        DiffusersScheduler.from_config(scheduler.config),
        copy.deepcopy(scheduler),
        pickle.loads(pickle.dumps(scheduler)),
    ):
        assert FittedGrid.of(other.config.method, "the config") == record("edm", kind)
        assert torch.equal(looped(other, x, steps), wanted)
        assert DiffusersScheduler.from_config(other.config, method="ddim").config.method == "ddim"


def test_another_process_is_refused() -> None:
    found = record("ddim", "tuned")
    with pytest.raises(InvalidArgumentError, match=r"`method` was made for TimestepSDE.*from_diffusers\(pipe\)"):
        DiffusersScheduler.from_config(BASES["flow"][0], method=found)
    with pytest.raises(InvalidArgumentError, match="the noise levels of the config"):
        DiffusersScheduler.from_config(BASES["ddim"][0], method=found, beta_end=0.01)
    scheduler = made("ddim", "tuned")
    scheduler.register_to_config(beta_end=0.01)  # as a pipeline may
    with pytest.raises(InvalidArgumentError, match="the noise levels of the config"):
        scheduler.set_timesteps(STEPS)


def test_records_that_cannot_be_schedulers_are_refused() -> None:
    found, V, T = record("ddim", "tuned"), InvalidArgumentError, InvalidTypeError
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"method": found, "options": {"order": 2}}, V, "`options` follow from `method`"),
        ({"method": replace(found, method="")}, V, "`method` is a grid without a method"),
        ({"method": replace(found, method="RK45()")}, V, "cannot be a scheduler: it chooses its steps"),
        ({"method": {"times": [1.0, 0.5]}}, CorruptCheckpointError, "`method` is not a fitted grid"),
        ({"method": 3}, T, "`method` must be a name"),
    ]
    config = BASES["ddim"][0].config
    refuses((functools.partial(DiffusersScheduler.from_config, config, **given), error, s) for given, error, s in cases)


# The rule of solve


@pytest.mark.parametrize("evaluations", [1, 2, 3, 5, 8, 20, 50])
@pytest.mark.parametrize("name", BASES)
def test_auto_is_the_rule_of_solve(name: str, evaluations: int) -> None:
    """For any number of evaluations, from one scheduler."""
    scheduler = DiffusersScheduler.from_config(BASES[name][0], method="auto")
    scheduler = DiffusersScheduler.from_config(dict(scheduler.config))  # as from a file
    x = noise(scheduler)
    looped(scheduler, x, 7)
    wanted = scoresde.solve(*model_of(BASES[name][0]), x, method="auto", evaluations=evaluations)
    assert differ(looped(scheduler, x, evaluations), wanted.x) <= FLOAT32
    assert len(scheduler.timesteps) == wanted.evaluations


@pytest.mark.parametrize("method", ["ddim", "dpmpp_2m", "unipc3", "heun", "rk4", "dpm_solver3", "pc"])
@pytest.mark.parametrize("name", ["ddim", "euler", "flow"])
def test_a_budget_of_evaluations(name: str, method: str) -> None:
    """It is kept, and does not pay for one more step."""
    scheduler = DiffusersScheduler.from_config(BASES[name][0], method=method)
    mu = {"mu": 1.0} if name == "flow" else {}
    for evaluations in (3, 5, 8, 20, 50):
        scheduler.set_timesteps(evaluations=evaluations, **mu)
        assert len(scheduler.timesteps) <= evaluations
        scheduler.set_timesteps(scheduler.num_inference_steps + 1, **mu)
        assert len(scheduler.timesteps) > evaluations
    with pytest.raises(InvalidArgumentError, match="one of them"):
        scheduler.set_timesteps(5, evaluations=5)


def test_the_smallest_budget() -> None:
    with pytest.raises(InvalidArgumentError, match="`evaluations` must be at least 2 for 'pc' here, got 1"):
        DiffusersScheduler.from_config(BASES["ddim"][0], method="pc").set_timesteps(evaluations=1)


def test_a_pipeline_with_auto() -> None:
    """Unmodified, DDPM's and DDIM's, which passes eta; and it stays a pipeline from which a model is made."""
    pipe, model = pipeline()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    wanted = scoresde.solve(model.sde, model, x, evaluations=8).x
    scheduler = DiffusersScheduler.from_config(pipe.scheduler, method="auto")
    for kind in (diffusers.DDPMPipeline, diffusers.DDIMPipeline):
        pipe = kind(pipe.unet, BASES["ddim"][0])
        pipe.scheduler = scheduler  # DDIMPipeline would make a DDIMScheduler of it
        pipe.set_progress_bar_config(disable=True)
        source = torch.Generator().manual_seed(1)
        images = pipe(batch_size=2, num_inference_steps=8, generator=source, output_type="np").images
        shown = (wanted / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        assert differ(torch.from_numpy(images).float(), shown) <= FLOAT32, kind
    again = from_diffusers(pipe)
    assert again.sde.same_schedule(model.sde) and again.prediction == model.prediction


def test_the_eta_of_a_pipeline() -> None:
    scheduler = DiffusersScheduler.from_config(BASES["ddim"][0], method="ddim_eta", options={"eta": 0.5})
    scheduler.set_timesteps(4)
    x = noise(scheduler)
    for eta, works in ((None, True), (0.0, True), (0.5, True), (1.0, False)):
        copied = copy.deepcopy(scheduler)
        if works:
            copied.step(x, copied.timesteps[0], x, eta=eta, use_clipped_model_output=True)
        else:
            with pytest.raises(InvalidArgumentError, match="`eta`=1 is not that of method='ddim_eta'; make the sched"):
                copied.step(x, copied.timesteps[0], x, eta=eta)
