"""The loop: one optimiser step after the other, in PyTorch's own parts."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..core.errors import InvalidArgumentError, InvalidTypeError, NonFiniteError
from ..core.support.checks import check_callable, check_integer, check_kind, check_tensor, shown
from ..core.support.declared import Count, Kind, called, checked
from ..core.support.files.paths import check_path
from ..scores import ScoreModel
from ..zoo.processes import modules_of
from ..zoo.store import under
from . import checkpoint, parallel
from .loader import as_stream
from .log import Log
from .recipe import PRECISIONS, Recipe
from .settings import check_size, conventions, remembering
from .stream import Piece, described

_PART = "process_"  # before the names of learned parts of the process


class Progress(NamedTuple):
    """What a callback sees: the steps done, the averaged model in evaluation mode, and the run's folder."""

    step: int
    model: Any
    folder: Path | None


class Every(NamedTuple):
    """A callback at an interval and at the end: ``call(progress)`` returns figures for the log, or None."""

    steps: int
    call: Callable[[Progress], Mapping[str, float] | None]


def _check_callbacks(name: str, callbacks: Any) -> None:
    check_kind(name, callbacks, Sequence, "a sequence of scoresde.training.Every(steps, call)")
    for i, every in enumerate(callbacks):
        check_kind(f"{name}[{i}]", every, Every, "a scoresde.training.Every")
        check_integer(f"{name}[{i}].steps", every.steps, low=1)
        check_callable(f"{name}[{i}].call", every.call, "call(progress)")


def _check_loss(name: str, loss: Any) -> None:
    if isinstance(loss, type):
        raise InvalidTypeError(f"`{name}` must be a function loss(model, x0, generator), got the class {shown(loss)}.")
    check_callable(name, loss, "loss(model, x0, generator, **context)")


Callbacks = Annotated[Sequence[Every], Kind(_check_callbacks)]
Loss = Annotated[Callable[..., Tensor], Kind(_check_loss)]
Writer = Annotated[Callable[..., object], called("log(figures, step=step), such as wandb.init().log")]


class Trainer:
    r"""Trains a network, and continues where a run was interrupted.

    Args:
        model: a `scoresde.ScoreModel`, whose network and learned schedule are trained; or a module.
        loss: ``loss(model, x0, generator, **context) -> (batch,)``.
        stream: the data: `Batches`, or `Stateless` for its options; or a ``torch.utils.data.DataLoader``, or another
            iterable of batches that can be iterated again.
        recipe: the hyperparameters.
        folder: the folder of checkpoints and the log; None keeps nothing.
        settings: what else identifies this run, JSON values.
        callbacks: see `Every`; they run on rank 0.
        checkpoint_every, log_every: steps between checkpoints, and between lines of the log.
        keep: how many checkpoints are kept.
        tensorboard: write TensorBoard's events too.
        log: another writer of the log's figures, called on rank 0 as ``log(figures, step=step)``, as the ``log`` of a
            run of Weights & Biases is; or None. After an interruption it gets the steps since the checkpoint again.
        resume: True demands a checkpoint in the folder, False that there is none; None continues if there is one.
        progress: show a progress bar.
        stop: called after each step but the last one, on every rank. When it returns True on one of them, all ranks
            stop after this step: they write a checkpoint, if there is a folder, and raise KeyboardInterrupt. Without
            ``stop`` an interrupt ends the run at once, and it continues from the checkpoint before.

    A batch of a DataLoader is a tensor, ``(x,)``, ``(x, labels)``, or a mapping with columns named as `read` finds
    them. Its uint8 values are dequantised and mapped to [-1, 1]; floating-point values are taken as they are. An
    exhausted loader starts again. A loader cannot start anywhere but at its beginning: a run that was interrupted
    continues with a new pass over it, in another order if it shuffles, and so does not repeat the uninterrupted run bit
    for bit, as it does with `Batches`. Noise and dropout follow the seed of the loader's ``generator``, 0 without one.

    Attributes:
        modules: the trained modules.
        averaged: their averaged copy.

    Raises:
        InvalidArgumentError: the folder has a run with other settings, or ``resume`` does not fit.
        OutputError: the folder cannot be written to, or another run holds it.
        CheckpointError: the checkpoint was altered, or is of another network.
        NonFiniteError: the loss or its gradient became NaN or infinite; the message names step and, if the loss has
            it, noise level.

    Example:
        >>> from scoresde.training import Batches, Recipe, Stateless, Trainer, read
        >>> net = scoresde.nets.build("unet", {"channels": 8, "width": 8})
        >>> model = scoresde.ScoreModel(net, scoresde.EDMSDE(), "edm")
        >>> loss = lambda model, x0, generator, **context: scoresde.losses.edm(
        ...     model.net, x0, generator, **context
        ... )
        >>> stream = Stateless(Batches(read("digits"), 4))
        >>> trained = Trainer(
        ...     model, loss, stream, Recipe(steps=2, batch_size=4), progress=False
        ... ).run()
        >>> trained.net.training, trained.prediction
        (False, 'edm')
    """

    @checked
    def __init__(
        self,
        model: Any,
        loss: Loss,
        stream: Any,
        recipe: Recipe,
        *,
        folder: str | Path | None = None,
        settings: Mapping[str, object] | None = None,
        callbacks: Callbacks = (),
        checkpoint_every: Count = 500,
        log_every: Count = 50,
        keep: Count = 3,
        tensorboard: bool = False,
        log: Writer | None = None,
        resume: bool | None = None,
        progress: bool = True,
        stop: Annotated[Callable[[], bool], called("stop()")] | None = None,
    ) -> None:
        self.model, self.loss, self.recipe = model, loss, recipe
        self.folder = None if folder is None else check_path("folder", folder)
        self._checkpoints = (self.folder or Path()) / "checkpoints"
        self.callbacks, self.checkpoint_every, self.log_every, self.keep = callbacks, checkpoint_every, log_every, keep
        self.tensorboard, self.log, self.resume, self.progress, self.stop = tensorboard, log, resume, progress, stop
        self.rank, self.world = parallel.rank_and_world()
        self.modules = nn.ModuleDict(parts_of(model))
        named = [(name, p) for name, p in self.modules.named_parameters() if p.requires_grad]
        if not named:
            raise InvalidArgumentError(f"`model` has no parameters to train: {model!r}.")
        self.parameters = [p for _, p in named]
        rates = {name: recipe.process_rate if name.startswith(_PART) else 1.0 for name, _ in named}
        groups = [{"params": [p for n, p in named if rates[n] == r], "rate": r} for r in dict.fromkeys(rates.values())]
        self.device = self.parameters[0].device
        self.stream = as_stream(stream, recipe, self.device)
        check_size(self.stream, recipe, self.world)
        parallel.broadcast(self.modules)
        self.averaged = recipe.average_of(self.modules)
        self.optimizer = recipe.optimizer_of(groups)
        if recipe.precision == "float16" and self.device.type != "cuda":
            raise InvalidArgumentError("`precision` float16 needs CUDA, where the loss is scaled; take bfloat16.")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")
        self._called = _rebuilt(model, self.modules, torch.compile(self.modules["net"]) if recipe.compile else None)
        self.settings = {
            "recipe": described(asdict(recipe)),
            "loss": described(loss),
            "model": conventions(model),
            **(self.stream.settings() if hasattr(self.stream, "settings") else {}),
            **(settings or {}),
        }
        self._window = [0.0, 0]  # sum and number of the losses since the last line of the log

    def run(self, save: Callable[[Any, Path], object] | None = None, names: Sequence[str] = ()) -> Any:
        """Train to the end, while no other run can use the folder.

        Args:
            save: ``save(averaged, folder)`` writes the result into the folder, if there is one, on rank 0.
            names: the files that it writes. If one of them exists without a checkpoint, this run did not write it, and
                the run is refused.

        Returns:
            The averaged model, of the kind that was given, in evaluation mode.
        """
        if self.folder is None:
            return self._run()
        with parallel.owned(self.folder, self.device):
            there = [name for name in names if (self.folder / name).exists()]
            if there and checkpoint.latest(self._checkpoints) is None:
                raise InvalidArgumentError(
                    f"{self.folder} has a {there[0]} that this run did not write; use another folder. Nothing was "
                    "overwritten."
                )
            averaged = self._run()
            if save is not None and self.rank == 0:
                save(averaged, self.folder)
            parallel.barrier()
        return averaged

    def _run(self) -> Any:
        recipe, pieces = self.recipe, self.recipe.accumulate
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            start = self._start()
            folder, also = (self.folder, self.log) if self.rank == 0 else (None, None)
            log = Log(folder, start, tensorboard=self.tensorboard, also=also)
            stream = self.stream(start * pieces, recipe.steps * pieces)
            self.modules.train()
            hidden = not self.progress or self.rank > 0
            with tqdm(total=recipe.steps, initial=start, disable=hidden, unit="step", file=sys.stderr) as bar:
                shown = float("nan")
                for step in range(start, recipe.steps):
                    value, norm = self._step(step, stream)
                    shown = value if shown != shown else 0.99 * shown + 0.01 * value
                    bar.update()
                    if step % 20 == 0:
                        bar.set_postfix(loss=f"{shown:.4f}", refresh=False)
                    self._after(step + 1, value, norm, log)
        return self.average()

    def average(self) -> Any:
        """The averaged model as it is now, in evaluation mode."""
        return _rebuilt(self.model, self.averaged.module.eval())

    def _step(self, step: int, stream: Iterator[Piece]) -> tuple[float, float]:
        """One step of the optimiser: its loss, and the norm of the gradient."""
        recipe, total = self.recipe, 0.0
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * recipe.learning_rate_at(step)
        self.optimizer.zero_grad()
        for _ in range(recipe.accumulate):
            piece = next(stream)
            if piece.dropout is not None:
                torch.manual_seed(piece.dropout)
            value = self._loss(step, piece) / recipe.accumulate
            self.scaler.scale(value).backward()
            total += value.item()
        parallel.average_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.clip).item()
        if not self.scaler.is_enabled() and not norm < float("inf"):
            why = f"the norm of the gradient is {norm}; lower the learning rate."
            raise NonFiniteError(f"Training stopped at step {step}: {why}", stage="score", step=step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.averaged.update_parameters(self.modules)
        return total, norm

    def _loss(self, step: int, piece: Piece) -> Tensor:
        dtype = PRECISIONS[self.recipe.precision]
        try:
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                each = self.loss(self._called, piece.x0, piece.generator, **piece.context)
                check_tensor("loss(model, x0, generator)", each)
                if not each.requires_grad:
                    raise InvalidArgumentError("`loss(model, x0, generator)` carries no gradient of the model.")
                value = each.mean()
            if not torch.isfinite(value):
                why = f"the loss is {value.item()}; lower the learning rate, or check the data."
                raise NonFiniteError(why, stage="score")
        except NonFiniteError as error:
            known: dict[str, Any] = {"stage": error.stage, "t": error.t, "indices": error.indices}
            raise NonFiniteError(f"Training stopped at step {step}: {error}", step=step, **known) from error
        return value

    def _after(self, done: int, value: float, norm: float, log: Log) -> None:
        """The log, the callbacks and the checkpoint of a step, in this order: whatever is in a checkpoint is in the
        log."""
        last = done == self.recipe.steps
        self._window = [self._window[0] + value, self._window[1] + 1]
        if done % self.log_every == 0 or last:
            average = parallel.mean(self._window[0] / self._window[1], self.device)
            log.write(done, {"loss": average, "gradient": norm, "learning_rate": self.optimizer.param_groups[0]["lr"]})
            self._window = [0.0, 0]
        for every in self.callbacks if self.rank == 0 else ():
            if done % every.steps == 0 or last:
                log.write(done, every.call(Progress(done, self.average(), self.folder)) or {})
        stopped = self.stop is not None and not last and parallel.anywhere(self.stop(), self.device)
        if self.folder is not None and (done % self.checkpoint_every == 0 or last or stopped):
            total, number = self._window
            window = [*parallel.gathered(total, self.device), number]
            if self.rank == 0:
                state = {"scaler": self.scaler.state_dict(), "window": window}
                checkpoint.write(self._checkpoints, done, self._tensors(), state, self.settings, self.keep)
            parallel.barrier()
        if stopped:
            raise KeyboardInterrupt(f"Stopped after {done} of {self.recipe.steps} steps.")

    def _tensors(self) -> dict[str, Tensor]:
        """All that the next step depends on."""
        tensors = {f"model.{key}": value for key, value in self.modules.state_dict().items()}
        tensors |= {f"averaged.{key}": value for key, value in self.averaged.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items()}
        for name, part in remembering(self.loss).items():
            tensors |= {f"loss.{name}.{key}": value for key, value in part.state_dict().items()}
        return tensors

    def _start(self) -> int:
        """The step to start from: 0, or where the last checkpoint left off."""
        if self.folder is not None and self.rank == 0:
            checkpoint.clean(self._checkpoints)
        path = None if self.folder is None else checkpoint.latest(self._checkpoints)
        parallel.barrier()
        if self.resume is not None and self.resume != (path is not None):
            there = "no checkpoint to continue from" if self.resume else "the checkpoints of a run already"
            raise InvalidArgumentError(f"`resume` is {self.resume}, but {self.folder} has {there}.")
        if path is None:
            return 0
        tensors, content = checkpoint.read(path)
        checkpoint.check_settings(path, content["settings"], self.settings)
        optimizer = {key: value for key, value in tensors.items() if key.startswith("optimizer.")}
        checkpoint.check_tensors(path, self._tensors() | optimizer, tensors)
        self.modules.load_state_dict(under("model.", tensors))
        self.averaged.load_state_dict(under("averaged.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in optimizer.items():
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        for name, part in remembering(self.loss).items():
            part.load_state_dict(under(f"loss.{name}.", tensors))
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(content["state"]["scaler"])
        *totals, number = content["state"]["window"]
        self._window = [totals[self.rank % len(totals)], number]
        if self.rank == 0:
            checkpoint.prune(self._checkpoints, self.keep)
        return content["step"]


def parts_of(model: Any) -> dict[str, nn.Module]:
    """The trained parts of a model: its network, and the learned parts of its process."""
    if isinstance(model, nn.Module):
        return {"net": model}
    if not isinstance(model, ScoreModel) or not isinstance(model.net, nn.Module):
        raise InvalidArgumentError(f"`model` must be a module, or a ScoreModel of one, got {model!r}.")
    if model.sde is not model.native:
        raise InvalidArgumentError(f"`model` serves another process, {model.sde!r}; train the network on its own.")
    return {"net": model.net} | {f"{_PART}{name}": part for name, part in modules_of(model.native).items()}


def _rebuilt(model: Any, modules: Any, net: Any = None) -> Any:
    """The model with other modules, and perhaps another call of its network."""
    net = modules["net"] if net is None else net
    if isinstance(model, nn.Module):
        return net
    made = copy.copy(model)
    made.net, parts = net, modules_of(model.native)
    if parts:
        made.native = copy.copy(model.native)
        made.traits = replace(model.traits, sde=made.native)
        for name in parts:
            setattr(made.native, name, modules[_PART + name])
    return made
