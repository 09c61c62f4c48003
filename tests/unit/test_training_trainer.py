"""The trainer: its steps, its checkpoints, and runs that are killed."""

from __future__ import annotations

import itertools
import math
import os
import pathlib
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import scoresde
from scoresde.core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    CorruptCheckpointError,
    InvalidArgumentError,
    InvalidTypeError,
    NonFiniteError,
    OutputError,
)
from scoresde.core.support.files.locks import owned
from scoresde.discrete import BetaChain
from scoresde.losses import LossSecondMoment, LowDiscrepancy
from scoresde.scores import ScoreModel
from scoresde.training import (
    Arrays,
    Batches,
    BoundCallback,
    Every,
    Metric,
    Piece,
    Progress,
    Recipe,
    SampleCallback,
    Stateless,
    Trainer,
    checkpoint,
    parallel,
)

from .refusals import assert_refused

V = InvalidArgumentError


class Tiny(nn.Module):
    """A line and dropout, which makes a run depend on torch's global generator."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(3, width), nn.Dropout(0.3), nn.Linear(width, 2)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        t = t + 0.0 if label is None else t + label
        return self.last(self.drop(torch.tanh(self.first(torch.cat([x, t[:, None].to(x)], 1)))))


def tiny(width: int = 4, seed: int = 0) -> ScoreModel:
    torch.manual_seed(seed)
    return ScoreModel(Tiny(width).eval(), scoresde.VPSDE(), "noise", event_shape=(2,))


def loss(model: ScoreModel, x0: Tensor, generator: torch.Generator | None = None, **context: Any) -> Tensor:
    """The simple loss, whatever the model."""
    t = 0.1 + 0.8 * torch.rand(len(x0), generator=generator, dtype=torch.float64)
    x, noise = model.sde.perturb(x0, t, torch.randn(x0.shape, generator=generator))
    return (model.noise(x, t, **context) - noise).square().mean(1)


def at_call(number: int | None, act: Callable[[], Any]) -> Any:
    """The simple loss, which acts first in one of its calls, counted from 0; settings take it for the same."""
    calls = itertools.count()

    def counted(model: Any, x0: Tensor, generator: torch.Generator | None = None, **context: Any) -> Tensor:
        if next(calls) == number:
            act()
        return loss(model, x0, generator, **context)

    counted.__qualname__ = loss.__qualname__
    return counted


def interrupt() -> None:
    raise KeyboardInterrupt


def source() -> Arrays:
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(9))
    return Arrays(x, torch.arange(20) % 2)


RECIPE = Recipe(steps=12, batch_size=4, learning_rate=1e-2, warmup=3, ema=0.9)


def trainer(
    folder: Path | None = None, recipe: Recipe = RECIPE, model: ScoreModel | None = None, **more: Any
) -> Trainer:
    batches = Batches(source(), recipe.batch_size // recipe.accumulate, more.pop("seed", 0), data_range=None)
    options = {"checkpoint_every": 3, "log_every": 2, "keep": 2, "progress": False, **more}
    return Trainer(
        model or tiny(recipe.batch_size),
        options.pop("loss", loss),
        Stateless(batches),
        recipe,
        folder=folder,
        **options,
    )


def weights(model: Any) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.net.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_step_is_adam_on_clipped_gradients_with_averaged_weights() -> None:
    """Against a loop written out."""
    recipe = Recipe(steps=6, batch_size=4, learning_rate=1e-2, warmup=2, clip=0.5, ema=0.8, weight_decay=0.1)
    run = trainer(recipe=recipe)
    got = run.run()
    model = tiny(4)
    model.net.train()
    optimizer = torch.optim.AdamW(model.net.parameters(), lr=1.0, betas=(0.9, 0.99), weight_decay=0.1)
    average: dict[str, Tensor] = {}
    stream = run.stream(0, 6)
    for step in range(6):
        piece = next(stream)
        optimizer.param_groups[0]["lr"] = 1e-2 * min(1.0, (step + 1) / 2) * 0.5 * (1 + math.cos(math.pi * step / 6))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(piece.dropout)  # type: ignore[arg-type]
            value = loss(model, piece.x0, piece.generator, **piece.context).mean()
        optimizer.zero_grad()
        value.backward()
        norm = torch.stack([p.grad.norm() for p in model.net.parameters()]).norm()  # type: ignore[union-attr]
        for p in model.net.parameters():
            p.grad *= min(1.0, 0.5 / (norm + 1e-6))
        optimizer.step()
        now = weights(model)
        average = now if not step else {k: 0.8 * v + 0.2 * now[k] for k, v in average.items()}
    for key, value in weights(got).items():
        torch.testing.assert_close(value, average[key], rtol=1e-5, atol=1e-7)
    assert not got.net.training and got.prediction == "noise"


def test_micro_batches_are_one_batch() -> None:
    """The gradients of the pieces are averaged; with the pieces' own randomness, this is one larger loss."""
    recipe = Recipe(steps=1, batch_size=4, accumulate=2, learning_rate=1e-2, warmup=0, clip=math.inf)
    run = trainer(recipe=recipe)
    net = run.modules["net"]
    net.drop.p = 0.0
    pieces = list(run.stream(0, 2))
    value = torch.cat([loss(run.model, p.x0, p.generator, **p.context) for p in pieces]).mean()
    expected = torch.autograd.grad(value, list(net.parameters()))
    seen: list[Tensor] = []
    run.optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad.clone() for p in net.parameters()))
    run.run()
    for got, wanted in zip(seen, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)


def test_a_run_leaves_the_global_generator_and_is_its_seed() -> None:
    torch.manual_seed(5)
    model, state = tiny(), torch.random.get_rng_state()
    first = weights(trainer(model=model).run())
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(123)
    assert same(first, weights(trainer().run()))
    assert not same(first, weights(trainer(seed=1).run()))


def test_the_power_law_average() -> None:
    """gamma = 0 is the mean of all weights, a large ema the limit."""
    module = nn.Linear(1, 1, bias=False)
    average = Recipe(steps=5, ema=1.0, ema_power=0.0).average_of(module)
    for value in (1.0, 2.0, 6.0, 7.0):
        module.weight.data.fill_(value)
        average.update_parameters(module)  # type: ignore[union-attr]
    assert average.module.weight.item() == pytest.approx(4.0)  # type: ignore[union-attr]
    assert Recipe(ema=0.5, ema_power=0.0).ema_at(100) == Recipe(ema=0.5).ema_at(1) == 0.5


class Gamma(nn.Module):
    """A line of a learned slope."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(8.0, dtype=torch.float64))

    def forward(self, t: Tensor) -> Tensor:
        return self.slope * (2 * t - 1)


def test_a_learned_schedule_is_trained_averaged_and_returned_and_has_its_learning_rate() -> None:
    """The first step of Adam is the learning rate: the schedule's is a multiple of the network's, which stays."""
    trained, averaged, nets = {}, {}, []
    for rate in (0.0, 1.0, 3.0):
        torch.manual_seed(0)
        model = ScoreModel(Tiny(), scoresde.VDMSDE(Gamma()), "noise", "log_snr", event_shape=(2,))
        options: dict[str, Any] = {"steps": 1 if rate < 3 else 4, "optimizer": "adam", "process_rate": rate, "ema": 0.5}
        got = trainer(recipe=Recipe(batch_size=4, learning_rate=0.1, warmup=0, **options), model=model).run()
        nets.append(weights(got))
        trained[rate], averaged[rate] = model.sde.gamma.slope.item(), got.sde.gamma.slope.item()  # type: ignore
        assert got.native is got.sde and got.sde.log_snr(1.0).item() == pytest.approx(-averaged[rate])
    assert trained[0.0] == 8.0 and abs(trained[1.0] - 8) == pytest.approx(0.1, rel=1e-5)
    assert abs(trained[3.0] - 8) > 0.3 and averaged[3.0] not in (8.0, trained[3.0])
    assert same(nets[0], nets[1])


def test_bfloat16_learns_and_goes_on_exactly(tmp_path: Path) -> None:
    """Under autocast and of micro-batches: the loss falls, and a run that was killed between two checkpoints gives the
    same bits."""
    recipe = replace(RECIPE, steps=40, batch_size=20, accumulate=2, precision="bfloat16")
    options: dict[str, Any] = {"checkpoint_every": 16, "log_every": 10}

    def fatal() -> None:
        assert torch.is_autocast_enabled("cpu")
        raise KeyboardInterrupt

    whole = weights(trainer(tmp_path / "whole", recipe, **options).run())
    assert all(value.dtype == torch.float32 for value in whole.values())
    rows = [line.split(",") for line in (tmp_path / "whole" / "log.csv").read_text().splitlines()]
    losses = [float(value) for _, name, value in rows if name == "loss"]
    assert len(losses) == 4 and losses[-1] < 0.9 * losses[0]
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "part", recipe, loss=at_call(41, fatal), **options).run()
    assert same(weights(trainer(tmp_path / "part", recipe, resume=True, **options).run()), whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the compiler
def test_a_compiled_network_trains_as_the_plain_one_does(tmp_path: Path) -> None:
    """By the real compiler, where there is one for C++; without dropout, whose random numbers it draws another way."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("inductor needs a C++ compiler")
    recipe = Recipe(steps=6, batch_size=4, learning_rate=1e-3, warmup=0, clip=math.inf)
    found = []
    for on in (False, True, True):  # the last one is done already
        model = tiny()
        model.net.drop = nn.Identity()
        run = trainer(tmp_path / str(on), replace(recipe, compile=on), model, checkpoint_every=3)
        found.append(weights(run.run()))
    assert found[0].keys() == found[1].keys()  # the names of the module itself, so that checkpoints know no compiler
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-4, atol=1e-5)
    assert same(found[1], found[2])


def test_recipes() -> None:
    assert Recipe(steps=10, warmup=0, decay="none").learning_rate_at(9) == 4e-3
    assert Recipe(steps=10, warmup=0, decay="linear").learning_rate_at(5) == pytest.approx(2e-3)
    whole = {"steps": 0, "batch_size": 0, "warmup": -1, "accumulate": 0, "decay": "cosin", "optimizer": "sgd"}
    real = {"learning_rate": 0.0, "weight_decay": -1.0, "process_rate": -1.0, "ema": 1.5, "ema_power": -1.0}
    others = {"clip": 0.0, "betas": (0.9, 1.0), "precision": "float8"}
    wrong = [*(whole | real | others).items(), ("learning_rate", math.nan), ("clip", "1"), ("betas", 0.9)]
    assert_refused([(lambda k=k, v=v: Recipe(**{k: v}), V, k) for k, v in wrong])


def test_a_nan_is_told_with_its_step_and_time(tmp_path: Path) -> None:
    def bad() -> None:
        raise NonFiniteError("the loss is nan at t = 0.25", t=0.25, indices=[2])

    with pytest.raises(NonFiniteError, match=r"step 4: the loss is nan at t = 0\.25") as caught:
        trainer(tmp_path, loss=at_call(4, bad)).run()
    assert caught.value.step == 4 and caught.value.t == 0.25 and caught.value.indices == [2]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000000003.safetensors"]


def test_a_gradient_that_is_not_finite_is_told_before_it_is_applied() -> None:
    def steep(model: Any, x0: Tensor, generator: torch.Generator | None = None, **context: Any) -> Tensor:
        return loss(model, x0, generator, **context) + (model.net.last.bias[0] - model.net.last.bias[0].detach()).sqrt()

    run = trainer(loss=steep)
    before = weights(run.model)
    with pytest.raises(NonFiniteError, match="step 0: the norm of the gradient"):
        run.run()
    assert same(before, weights(run.model))


def test_what_is_wrong_is_told_before_a_step_is_done() -> None:
    vp, stream = scoresde.VPSDE(), Stateless(Batches(source(), 2, 0, data_range=None))
    assert_refused(
        {
            "checkpoint_every": (lambda: trainer(checkpoint_every=0), V, "checkpoint_every"),
            "stop": (lambda: trainer(stop=True), InvalidTypeError, "`stop` must be callable as stop()"),
            "callback": (lambda: trainer(callbacks=[Every(0, lambda p: None)]), V, r"callbacks\[0\]\.steps"),
            "a function": (lambda: trainer(model=ScoreModel(lambda x, t: x, vp, "noise")), V, "module"),
            "served": (lambda: trainer(model=tiny().on(scoresde.VPSDE(t_max=0.9))), V, "another process"),
            "batch": (lambda: Trainer(tiny(), loss, stream, Recipe()), V, r"recipe\.batch_size"),
            "float16": (lambda: trainer(recipe=Recipe(precision="float16")), V, "float16 needs CUDA"),
        }
    )
    Trainer(tiny(), loss, stream, Recipe(batch_size=4, accumulate=2))


def test_files_of_others_are_not_overwritten(tmp_path: Path) -> None:
    for name, folder, error in (("file", tmp_path / "file", OutputError), ("log.csv", tmp_path, InvalidArgumentError)):
        (tmp_path / name).write_text("a,b\n1,2\n")
        with pytest.raises(error):
            trainer(folder).run()
        assert (tmp_path / name).read_text() == "a,b\n1,2\n"


def test_the_log_the_callbacks_and_another_writer(tmp_path: Path) -> None:
    """The loss of the log is the mean since the last line; ``log`` is called as that of Weights & Biases is, with a
    dictionary, and the step by name."""
    seen: list[Progress] = []
    values = iter([1.0, 3.0, 2.0, 6.0, 5.0])

    def look(progress: Progress) -> dict[str, Any]:
        seen.append(progress)
        assert not progress.model.net.training
        return {"seen": torch.tensor(len(seen) / 2)}

    def known(model: Any, x0: Tensor, generator: torch.Generator | None = None, **context: Any) -> Tensor:
        return 0 * loss(model, x0, generator, **context) + next(values)

    log, callbacks = Mock(), [Every(3, look), Every(3, lambda progress: None)]
    trainer(tmp_path, Recipe(steps=5, batch_size=4), callbacks=callbacks, log=log, loss=known).run()
    assert [progress.step for progress in seen] == [3, 5] and seen[0].folder == tmp_path
    lines = [(call.args[0], call.kwargs["step"]) for call in log.call_args_list]
    usual = ["loss", "gradient", "learning_rate"]
    wanted = [(usual, 2), (["seen"], 3), (usual, 4), (usual, 5), (["seen"], 5)]
    assert [(list(line), step) for line, step in lines] == wanted
    assert [line["loss"] for line, _ in lines if "loss" in line] == [2.0, 4.0, 5.0]
    assert [line["seen"] for line, _ in lines if "seen" in line] == [0.5, 1.0]
    listed = [f"{step},{name},{value}" for line, step in lines for name, value in line.items()]
    assert (tmp_path / "log.csv").read_text().splitlines() == ["step,name,value", *listed]


def test_tensorboard_gets_the_figures_and_is_named_when_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = partial(trainer, tmp_path, Recipe(steps=2, batch_size=4), tensorboard=True, resume=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InvalidArgumentError, match="pip install tensorboard"):
        run().run()
    writer = Mock()
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", Mock(SummaryWriter=writer))
    run().run()
    written = [(call.args[0], call.args[2]) for call in writer.return_value.add_scalar.call_args_list]
    assert written == [("loss", 2), ("gradient", 2), ("learning_rate", 2)]


def test_the_bound_of_held_out_data() -> None:
    """It is `variational_bound` of the averaged model: nats of a density, bits of grey levels."""
    sde = scoresde.VPSDE()
    model = scoresde.targets.Gaussian(torch.zeros(2), torch.eye(2)).score(sde)
    x, v = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.arange(12).reshape(6, 2)
    nats = BoundCallback(x, options={"draws": 4}, seed=2)(Progress(1, model, None))
    wanted = scoresde.variational_bound(sde, model, x, draws=4, seed=2)
    assert nats == {"bound_nats": float(wanted.total.mean())}
    bits = BoundCallback(v, levels=12, data_range=(-2.0, 2.0))(Progress(1, model, None))
    wanted = scoresde.variational_bound(sde, model, v, levels=12, data_range=(-2.0, 2.0), seed=0)
    assert bits == {"bound_bits": float(wanted.bits_per_dim.mean())}


class Seen:
    """A metric that keeps what it gets."""

    reset_real_features = True

    def __init__(self, result: Any = 1.0) -> None:
        self.result, self.got, self.resets = result, {True: [], False: []}, 0  # type: ignore[var-annotated]

    def reset(self) -> None:
        self.got, self.resets = {True: [], False: []}, self.resets + 1

    def update(self, images: Tensor, real: bool) -> None:
        self.got[real].append(images)

    def compute(self) -> Any:
        return self.result


IMAGES = (1, 2, 2)
FEW = SampleCallback(IMAGES, 5, sampler={"method": "ddim", "steps": 3}, data_range=(-2.0, 2.0), seed=4)


def test_a_metric_gets_the_images_of_data_and_of_samples() -> None:
    real = torch.linspace(-2, 2, 28).reshape(7, *IMAGES)
    metric = Seen(torch.tensor(0.5))
    model = tiny_of(IMAGES)
    figures = Metric(metric, real, FEW, batch=3)(Progress(1, model, None))
    assert figures == {"Seen": 0.5}
    sampler: dict[str, Any] = {"method": "ddim", "steps": 3, "denoise": True}
    x = scoresde.solve(model.sde, model, shape=(5, *IMAGES), seeds=range(4, 9), **sampler).x
    for images, batches in ((real, metric.got[True]), (x, metric.got[False])):
        assert [len(batch) for batch in batches] == ([3, 3, 1] if images is real else [3, 2])
        got = torch.cat(batches)
        assert got.dtype == torch.uint8 and got.shape == (len(images), 3, 2, 2)
        assert torch.equal(got, (255 * (images + 2) / 4).round().clamp(0, 255).byte().expand(-1, 3, -1, -1))
    again = Metric(metric, real, FEW, batch=3)
    again(Progress(2, model, None))
    assert metric.resets == 2 and len(metric.got[True]) == 3  # the data once, however often it is called


def tiny_of(event: tuple[int, ...]) -> ScoreModel:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(math.prod(event), math.prod(event))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.line(x.flatten(1)).reshape(x.shape)

    torch.manual_seed(1)
    return ScoreModel(Flat(), scoresde.VPSDE(), "noise", event_shape=event)


def test_a_metric_changes_nothing_of_a_run(tmp_path: Path) -> None:
    class Drawn(Seen):
        def compute(self) -> float:
            return float(torch.rand(()))  # as a metric that draws subsets

    vectors, recipe = SampleCallback((2,), 2, sampler={"method": "ddim", "steps": 2}), Recipe(steps=4, batch_size=4)
    run = trainer(tmp_path, recipe, callbacks=[Every(1, Metric(Drawn(), torch.zeros(3, 2), vectors, "drawn"))])
    assert same(weights(run.run()), weights(trainer(recipe=recipe).run()))
    drawn = [line.split(",")[2] for line in (tmp_path / "log.csv").read_text().splitlines() if ",drawn," in line]
    assert len(drawn) == 4 and len(set(drawn)) == 1  # by the same seed


def test_what_a_metric_returns_and_what_it_needs() -> None:
    vectors = SampleCallback((2,), 2, sampler={"method": "ddim", "steps": 2})

    def figures(result: Any, name: str = "") -> dict[str, float]:
        return Metric(Seen(result), torch.ones(3, 2), vectors, name)(Progress(7, tiny(), None))

    assert figures((torch.tensor(2.0), torch.tensor(0.25)), "kid") == {"kid": 2.0, "kid_std": 0.25}
    assert figures({"a": 1, "b": torch.tensor(2)}) == {"a": 1.0, "b": 2.0}
    metric = Seen()
    metric.reset_real_features = False  # it keeps its data
    Metric(metric, None, vectors)(Progress(1, tiny(), None))
    assert not metric.got[True] and len(metric.got[False]) == 1
    assert_refused(
        [
            (lambda: figures((1.0, math.inf)), NonFiniteError, r"Seen.* at step 7"),
            (lambda: Metric(Seen, torch.zeros(3, 2), vectors), InvalidTypeError, "`metric` must have update"),
            (lambda: Metric(metric, torch.zeros(3, 2), vectors), V, "`real` must be None for a metric that keeps"),
            (lambda: Metric(Seen(), torch.zeros(3, 3), vectors), V, "`real` must be"),
        ]
    )


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], str, bytes]:
    """Weights, log and last checkpoint of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("golden")
    found, last = weights(trainer(folder).run()), folder / "checkpoints" / "step-0000000012.safetensors"
    return found, (folder / "log.csv").read_text(), last.read_bytes()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def forked(*actions: Callable[[], Any]) -> list[int]:
    """Run each in a child process, all at once; their wait statuses."""
    children = []
    for action in actions:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                action()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitpid(child, 0)[1] for child in children]


def killing(name: str, call: int) -> Callable[[], None]:
    """Patches a function of ``os`` so that the process dies in a call of it, before or after it is done."""

    def patch() -> None:
        before, _, function = name.rpartition(" ")
        original, calls = getattr(os, function), iter(range(1, 10_000))

        def fatal(*arguments: Any, **named: Any) -> Any:
            now = next(calls) == call
            if now and before == "before":
                die()
            result = original(*arguments, **named)
            if now:
                die()
            return result

        for place in {os, getattr(pathlib, "_normal_accessor", os)}:  # where the paths of Python 3.10 look
            setattr(place, function, fatal)

    return patch


CALLS = {  # the first of each by default
    "before fsync": (3, 1, 6),  # the temporary file is written, not yet on the disk
    "before replace": (2, 4),  # it is on the disk, under its temporary name
    "after replace": (3, 2, 5),  # it is there
    "before unlink": (1, 2),
    "step": (5, 0, 2, 8, 11),  # between two checkpoints
}
POINTS = [
    pytest.param(point, call, marks=[pytest.mark.slow] if call != calls[0] else [])
    for point, calls in CALLS.items()
    for call in calls
]


@pytest.mark.skipif(os.name != "posix", reason="fork and SIGKILL")
@pytest.mark.parametrize(("point", "call"), POINTS)
def test_a_run_that_was_killed_goes_on_exactly(point: str, call: int, tmp_path: Path, golden: Any) -> None:
    """The same command again: bitwise the same weights, the same log, and no debris."""

    def run() -> None:
        if point != "step":
            killing(point, call)()
        trainer(tmp_path, loss=at_call(call, die) if point == "step" else loss).run()

    (status,) = forked(run)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL  # the point was reached
    found = weights(trainer(tmp_path).run())
    expected, log, last = golden
    assert same(found, expected)
    assert (tmp_path / "log.csv").read_text() == log
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "log.csv"]
    folder = tmp_path / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["step-0000000009.safetensors", "step-0000000012.safetensors"]
    assert (folder / "step-0000000012.safetensors").read_bytes() == last


def test_without_a_folder_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Any) -> None:
    monkeypatch.chdir(tmp_path)
    mine = Path(".step-mine.tmp")  # of the name of what a killed run leaves in its folder
    mine.touch()
    assert same(weights(trainer().run()), golden[0])
    assert list(Path().iterdir()) == [mine]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Any) -> None:
    replace, calls = os.replace, iter(range(100))

    def full(*arguments: Any) -> None:
        if next(calls) == 2:
            raise OSError(28, "No space left on device")
        replace(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match="No space left"):
            trainer(tmp_path).run()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000000003.safetensors"]
    assert same(weights(trainer(tmp_path).run()), golden[0])


def test_stop_writes_a_checkpoint_from_which_the_run_goes_on_exactly(tmp_path: Path, golden: Any) -> None:
    """After a step for which neither a checkpoint nor a line of the log is due."""
    asked: list[int] = []

    def stop() -> bool:
        asked.append(len(asked) + 1)
        return len(asked) == 5

    with pytest.raises(KeyboardInterrupt, match="after 5 of 12 steps"):
        trainer(tmp_path, stop=stop).run()
    assert asked == [1, 2, 3, 4, 5]
    assert checkpoint.step_of(checkpoint.latest(tmp_path / "checkpoints")) == 5  # type: ignore[arg-type]
    assert same(weights(trainer(tmp_path, resume=True, stop=stop).run()), golden[0])
    assert asked == list(range(1, 12))  # not after the last one
    assert (tmp_path / "log.csv").read_text() == golden[1]
    assert (tmp_path / "checkpoints" / "step-0000000012.safetensors").read_bytes() == golden[2]
    with pytest.raises(KeyboardInterrupt):
        trainer(stop=lambda: True).run()


def test_two_trainers_in_one_folder(tmp_path: Path, golden: Any) -> None:
    """The second one is refused while the first runs, whatever `resume` is, and touches nothing."""
    pytest.importorskip("fcntl")

    def other(progress: Progress) -> None:
        debris = tmp_path / "checkpoints" / ".step-0000000009.safetensors.0.tmp"
        debris.touch()  # as the first one writes it
        before = sorted(tmp_path.rglob("*"))
        for resume in (None, True, False):
            with pytest.raises(OutputError, match=rf"Another run .*\(process {os.getpid()} on "):
                trainer(tmp_path, seed=1, resume=resume).run()
        assert sorted(tmp_path.rglob("*")) == before
        debris.unlink()

    assert same(weights(trainer(tmp_path, callbacks=[Every(6, other)]).run()), golden[0])
    assert (tmp_path / "log.csv").read_text() == golden[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "log.csv"]


def test_the_result_is_saved_while_the_folder_is_held(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    saved: list[Any] = []

    def save(model: Any, folder: Path) -> None:
        with pytest.raises(OutputError, match="Another run"):
            trainer(folder).run()
        saved.append(model)
        (folder / "result").touch()

    assert trainer(tmp_path / "a").run(save, ["result"]) is saved[0]
    assert trainer(tmp_path / "a").run(save, ["result"]) is saved[1]  # the run's own
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "result").write_text("mine")
    with pytest.raises(InvalidArgumentError, match="has a result that this run did not write"):
        trainer(tmp_path / "b").run(save, ["result"])
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["result"] and len(saved) == 2


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    trainer(tmp_path).run()
    return tmp_path


def test_other_settings_are_refused_with_key_old_and_new(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**change: Any) -> Callable[[], Any]:
        return lambda: trainer(begun, **change).run()

    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    of_v, of_other = (
        ScoreModel(Tiny(), scoresde.VPSDE(beta), kind, event_shape=(2,)) for beta, kind in ((0.1, "v"), (0.2, "noise"))
    )
    assert_refused(
        [
            (run(recipe=replace(RECIPE, learning_rate=2e-2)), V, r"recipe\.learning_rate: 0\.01, now 0\.02"),
            (run(recipe=replace(RECIPE, steps=24)), V, r"recipe\.steps: 12, now 24"),
            (run(seed=1), V, "seed: 0, now 1"),
            (run(loss=partial(loss, scale=2)), V, "loss"),
            (run(settings={"preset": "ddpm"}), V, 'preset: null, now "ddpm"'),
            (run(model=of_v), V, 'model.prediction: "noise", now "v"'),
            (run(model=of_other), V, r"beta_min=0\.1.*beta_min=0\.2"),
            (run(model=tiny(5)), CheckpointMismatchError, r"net\.first\.weight has shape \(4, 3\), expected"),
        ]
    )
    monkeypatch.setattr(f"{__name__}.source", lambda: Arrays(torch.zeros(20, 2), torch.arange(20) % 2))
    assert_refused([(run(), V, r"data\.fingerprint")])
    assert before == {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}


def test_a_refused_run_removes_no_checkpoint(begun: Path) -> None:
    """A run that is done is done: nothing is written again."""
    folder = begun / "checkpoints"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    for change in ({}, {"seed": 1, "keep": 1}):
        with pytest.raises(InvalidArgumentError) if change else nullcontext():
            trainer(begun, **change).run()
        assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    path = checkpoint.latest(folder)
    assert path is not None
    path.write_bytes(before[path][0][:-1])
    with pytest.raises(CorruptCheckpointError):
        trainer(begun, keep=1).run()
    assert before.keys() == set(folder.iterdir())  # that before the broken one is there still
    path.unlink()
    trainer(begun, keep=1).run()
    assert path.read_bytes() == before[path][0] and list(folder.iterdir()) == [path]


def of_process(sde: Any, chain: Any = None) -> ScoreModel:
    torch.manual_seed(0)
    time_input = "t" if chain is None else "index"
    return ScoreModel(Tiny(), sde, "noise", time_input=time_input, chain=chain, event_shape=(2,))


def test_processes_of_functions_and_chains_are_told_apart_by_what_they_do(tmp_path: Path) -> None:
    """Not by the address of a function, which is another in every process."""

    def gaussian(rate: float) -> ScoreModel:
        return of_process(scoresde.GaussianSDE(lambda t: 1 - t, lambda t: rate * t, 0.01, 0.99))

    def learned(rate: float) -> ScoreModel:
        return of_process(scoresde.VDMSDE(lambda t: -5 + 10 * rate * t))

    def chained(rate: float) -> ScoreModel:
        chain = BetaChain.linear(100) if rate == 1 else BetaChain.cosine(100)
        return of_process(chain.sde(), chain)

    for make, value in ((gaussian, loss), (learned, loss), (chained, scoresde.losses.ddpm_simple)):
        for _ in range(2):
            trainer(tmp_path / make.__name__, model=make(1), loss=value).run()
        with pytest.raises(InvalidArgumentError, match=r"model\.schedule"):
            trainer(tmp_path / make.__name__, model=make(2), loss=value).run()


def test_a_law_that_learns_from_losses_goes_on_where_it_was(tmp_path: Path) -> None:
    """A run that is cut off between two checkpoints, and the distribution with a history that is full by then."""
    chain = BetaChain.linear(2)

    def run(folder: str, *callbacks: Every) -> Any:
        law = partial(scoresde.losses.ddpm_vlb, times=LowDiscrepancy(LossSecondMoment(chain, history=2)))
        model = of_process(chain.sde(), chain)
        return weights(trainer(tmp_path / folder, model=model, loss=law, callbacks=callbacks).run())

    with pytest.raises(KeyboardInterrupt):
        run("cut", Every(8, lambda progress: interrupt()))
    assert same(run("cut"), run("whole"))


def test_resume_can_be_demanded_or_refused(begun: Path, tmp_path: Path) -> None:
    refused, demanded = trainer(begun, resume=False), trainer(tmp_path / "new", resume=True)
    assert_refused([(refused.run, V, "already"), (demanded.run, V, "no checkpoint")])
    trainer(begun, resume=True).run()


def test_a_checkpoint_that_was_altered_is_refused(begun: Path) -> None:
    path = checkpoint.latest(begun / "checkpoints")
    assert path is not None
    raw = bytearray(path.read_bytes())
    for position in (0, 9, 200, len(raw) // 2, len(raw) - 1):
        raw[position] ^= 1
        path.write_bytes(raw)
        with pytest.raises(CheckpointError):
            trainer(begun).run()
        raw[position] ^= 1
    for length in (0, 7, 100, len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(CorruptCheckpointError, match="go on from the one before"):
            trainer(begun).run()
    path.unlink()
    trainer(begun).run()


def two_ranks(action: Callable[[int], None], folder: Path) -> list[int]:
    """Run in two processes of one gloo group; their wait statuses."""

    def member(rank: int) -> None:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
        action(rank)
        torch.distributed.destroy_process_group()

    return forked(*(partial(member, rank) for rank in range(2)))


needs_gloo = pytest.mark.skipif(os.name != "posix" or not torch.distributed.is_gloo_available(), reason="fork and gloo")


@needs_gloo
def test_two_ranks_average_the_gradients_of_their_own_rows(tmp_path: Path) -> None:
    """Against a loop that takes the pieces of both ranks in turn; killed and resumed on the way."""
    recipe = Recipe(steps=6, batch_size=4, learning_rate=1e-2, warmup=0, clip=math.inf, ema=0.5)

    def run(rank: int, until: int | None = None) -> None:
        batches = Batches(source(), 2, 0, data_range=None, rank=rank, world=2)
        model = tiny(4, seed=rank)  # rank 0's weights are taken
        options: dict[str, Any] = {"folder": tmp_path, "checkpoint_every": 2, "log_every": 1, "progress": False}
        made = Trainer(model, at_call(until, die), Stateless(batches), recipe, **options).run()
        safetensors.torch.save_file(weights(made), tmp_path / f"rank{rank}")

    assert all(os.WIFSIGNALED(status) for status in two_ranks(lambda rank: run(rank, until=3), tmp_path))
    (tmp_path / "store").unlink()
    assert two_ranks(run, tmp_path) == [0, 0]
    found = [safetensors.torch.load_file(tmp_path / f"rank{rank}") for rank in range(2)]
    assert same(found[0], found[1])

    streams = [Stateless(Batches(source(), 2, 0, data_range=None, rank=r, world=2))(0, 6) for r in range(2)]

    def both(first: int, stop: int) -> Iterator[Piece]:
        for _ in range(6):
            for stream in streams:
                yield next(stream)

    alone = Recipe(**{**vars(recipe), "accumulate": 2})
    folder = tmp_path / "alone"
    expected = weights(Trainer(tiny(4), loss, both, alone, folder=folder, log_every=1, progress=False).run())
    figures = []
    for log in (tmp_path / "log.csv", folder / "log.csv"):
        rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
        figures.append({(row[0], row[1]): float(row[2]) for row in rows})
    assert len(figures[0]) == 18 and figures[0] == pytest.approx(figures[1], rel=1e-5)  # loss, gradient, learning rate
    for key, value in expected.items():
        torch.testing.assert_close(found[0][key], value, rtol=1e-5, atol=1e-6)
    assert parallel.rank_and_world() == (0, 1)


@needs_gloo
def test_two_ranks_have_one_lock_and_stop_at_the_same_step(tmp_path: Path) -> None:
    """One rank alone stops, after 5 steps; log and last checkpoint are those of a run that nothing stopped."""
    recipe = Recipe(steps=8, batch_size=4, learning_rate=1e-2, warmup=0)

    def run(rank: int, folder: str, stop_at: int = 0) -> None:
        calls = iter(range(1, 100))
        stop = (lambda: next(calls) == stop_at and rank == 1) if stop_at else None
        batches = Batches(source(), 2, 0, data_range=None, rank=rank, world=2)
        options: dict[str, Any] = {"checkpoint_every": 100, "log_every": 4, "progress": False, "stop": stop}
        Trainer(tiny(4), loss, Stateless(batches), recipe, folder=tmp_path / folder, **options).run()

    def ranks(action: Callable[[int], None]) -> list[int]:
        (tmp_path / "store").unlink(missing_ok=True)
        return two_ranks(action, tmp_path)

    def stopped(rank: int) -> None:
        with pytest.raises(KeyboardInterrupt, match="after 5 of 8 steps"):
            run(rank, "part", 5)

    def refused(rank: int) -> None:
        with pytest.raises(OutputError, match="Another run" if rank == 0 else "Rank 0 could not take the folder"):
            run(rank, "part")

    assert ranks(stopped) == [0, 0]
    with owned(tmp_path / "part"):
        assert ranks(refused) == [0, 0]
    assert ranks(lambda rank: run(rank, "part")) == ranks(lambda rank: run(rank, "whole")) == [0, 0]
    for name in ("log.csv", "checkpoints/step-0000000008.safetensors"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
