"""Reading and writing the files of saved models; `config` has their format.

Nothing in a saved model is trusted before it is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..core.errors import (
    CheckpointMismatchError,
    CorruptCheckpointError,
    InvalidArgumentError,
    ScoreSDEError,
    check_choice,
    short,
)
from ..core.sdes import AffineSDE
from ..core.support.checks import check_device, check_kind, warn_caller
from ..core.support.declared import Kind, checked
from ..core.support.files.paths import check_path
from ..core.support.files.writing import make_folder, write_together
from ..core.support.registries import shipped
from ..nets import ARCHITECTURES, build
from ..scores import ScoreModel
from . import hub
from .card import card
from .config import MAX_BYTES, Config
from .layout import CONFIG, WEIGHTS, find, read, refuse_pickle
from .pretrained import Pretrained
from .processes import modules_of

PART = "@process."  # before the names of tensors that are the process's; no module has a name with @


def names() -> list[str]:
    """The names of the networks that come with the package.

    Example:
        >>> names()
        ['digits', 'mnist']
    """
    return shipped()


@checked
def load(
    path_or_name: str | os.PathLike[str],
    *,
    verify: bool = True,
    allow_nonfinite: bool = False,
    device: torch.device | str | None = None,
) -> Pretrained:
    """Load a network that comes with the package, or one that `save` wrote.

    Args:
        path_or_name: a name in `names`; a directory; or ``"hf:owner/name@revision"``, a repository of the Hugging Face
            Hub, where the revision is a branch, a tag or a commit. Without a revision the newest commit is taken, and a
            warning gives its hash. A name takes precedence: write ``"./digits"`` for a directory of this name.
        verify: check the digests of config and weights before they are used.
        allow_nonfinite: accept weights that are NaN or infinite.
        device: where to put the network.

    Returns:
        The network, in evaluation mode and without gradients of its weights, with its `Config`. The ``source`` of one
        from a repository is the address of its commit.

    Raises:
        CheckpointError: there is no such model, or its repository cannot be reached; or one of its subclasses:
            `CorruptCheckpointError` for what is altered, truncated or incomplete, `CheckpointMismatchError` for weights
            of another network, `UnsafeCheckpointError` for a pickle.

    Example:
        >>> load("digit")
        Traceback (most recent call last):
        ...
        scoresde.core.errors.CheckpointError: No directory and no shipped network is called 'digit'; did you mean
        'digits'? Shipped: digits, mnist.
    """
    device = check_device(device)
    with _files(path_or_name) as (where, file):
        config, raw = _contents(where, file, verify)
    try:
        state = safetensors.torch.load(raw)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise CorruptCheckpointError(f"{where}: {WEIGHTS} is not a safetensors file: {error}") from None
    _check_state(config, state, where, allow_nonfinite=allow_nonfinite)
    with torch.random.fork_rng(devices=[]):  # the initial values, drawn and replaced, leave no trace
        net = build(config.architecture, config.kwargs).float()
    native, _ = config.natives()
    parts = {} if native is None else modules_of(native)
    net.load_state_dict({key: value for key, value in state.items() if not key.startswith(PART)})
    for name, module in parts.items():
        module.load_state_dict(under(f"{PART}{name}.", state))
        module.to(device).eval().requires_grad_(False)
    if native is not None and parts and not allow_nonfinite:
        try:
            native.check_schedule()
        except InvalidArgumentError as error:
            raise CorruptCheckpointError(f"{where}: the learned part of the process cannot be used: {error}") from None
    source = where if _in_repository(path_or_name) else None
    if source is not None and "@" not in str(path_or_name):
        warn_caller(f"The newest commit of {path_or_name} was loaded; load({source!r}) loads the same one later.")
    return Pretrained(net.to(device).eval().requires_grad_(False), config, native, source=source)


def _check_license(name: str, value: object) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", value):
        raise InvalidArgumentError(f"`{name}` must be a name of the Hugging Face Hub, 'mit', got {short(value)}.")


@checked
def save(
    model: Pretrained | ScoreModel,
    path: str | os.PathLike[str] | None = None,
    *,
    push_to: Annotated[str, Kind(hub.check_repository)] | None = None,
    license: Annotated[str, Kind(_check_license)] | None = None,
    **known: Any,
) -> str | None:
    """Write a network to a directory, or to a repository of the Hugging Face Hub, so that `load` reads it back.

    Both files are first written completely under temporary names in that directory, then renamed, the config last: a
    failure leaves what was there before. A crash between the two renames leaves a mismatch that `load` detects. A
    repository gets both in one commit, after the directory, and a README.md if it has none.

    Args:
        model: the network with its config; or a `scoresde.ScoreModel`.
        path: the directory, which is created if it is missing; may be omitted with ``push_to``.
        push_to: the repository, ``owner/name``; a missing repository is created, and is private.
        license: of the network, for the README.md: a name of the Hub, such as ``"mit"``.
        known: with a `scoresde.ScoreModel`, the other arguments of `Pretrained.of`: ``kwargs``, the arguments that the
            network was made with, ``labels``, ``levels``, ``data_range``, ...

    Returns:
        The address of the commit in the repository, which `load` takes; None without ``push_to``.

    Raises:
        OutputError: the directory or the repository cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save(load("digits"), directory)
        ...     load(directory).config.data[:19]
        'scikit-learn digits'
    """
    directory = None if path is None and push_to is not None else check_path("path", path)
    if license is not None and push_to is None:
        raise InvalidArgumentError("`license` belongs to a repository; give its name as `push_to`, or leave it out.")
    if isinstance(model, ScoreModel):
        for name in known:
            check_choice("save", name, inspect.signature(Pretrained.of).parameters.keys() - {"model"})
        model = Pretrained.of(model, **known)
    elif known:
        raise InvalidArgumentError(f"{sorted(known)} belong to a ScoreModel; a Pretrained has them in its config.")
    wanted = "a scoresde.ScoreModel, such as ScoreModel(net, sde, prediction), or a scoresde.zoo.Pretrained"
    check_kind("model", model, Pretrained, wanted)
    config = model.config
    if ARCHITECTURES.get(config.architecture) is not type(model.net):
        found = f"a {type(model.net).__name__}, not {config.architecture!r} of scoresde.nets.ARCHITECTURES"
        raise InvalidArgumentError(f"`model`: its network is {found}; add yours there.")
    tensors = _tensors_of(model.net, model.native)
    state = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    _check_state(config, state, "The network to save")
    raw = safetensors.torch.save(state)
    description = config.to_json({"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)})
    Config.from_json(description)  # what cannot be read is not written
    if directory is not None:
        make_folder(directory)
        write_together({directory / WEIGHTS: raw, directory / CONFIG: description})
    if push_to is None:
        return None
    return hub.push(push_to, {WEIGHTS: raw, CONFIG: description}, card(model, push_to, license), license)


def mismatches(expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> list[str]:
    """Where tensors differ in name, shape or dtype from those of a network, one line each.

    Example:
        >>> mismatches({"a": torch.zeros(1), "b": torch.zeros(2)}, {"b": torch.zeros(3)})
        ['  b has shape (3,), expected (2,)', '  missing a (1,)']
    """
    lines = [f"  missing {key} {tuple(expected[key].shape)}" for key in expected if key not in got]
    lines += [f"  unexpected {key} {tuple(got[key].shape)}" for key in got if key not in expected]
    for key in expected.keys() & got.keys():
        wanted, there = expected[key], got[key]
        if wanted.shape != there.shape:
            lines.append(f"  {key} has shape {tuple(there.shape)}, expected {tuple(wanted.shape)}")
        if wanted.dtype != there.dtype:
            lines.append(f"  {key} has dtype {there.dtype}, expected {wanted.dtype}")
    return sorted(lines)


def _in_repository(path_or_name: object) -> bool:
    return isinstance(path_or_name, str) and path_or_name.startswith(hub.PREFIX)


@contextlib.contextmanager
def _files(path_or_name: str | os.PathLike[str]) -> Iterator[tuple[str, Callable[[str], Path]]]:
    """The place of a saved model, for messages, and the paths of its files."""
    if _in_repository(path_or_name):
        with hub.snapshot(str(path_or_name)) as snapshot:
            yield str(snapshot), snapshot.file
    else:
        directory = find(path_or_name)
        yield str(directory), directory.joinpath


def _contents(where: str, file: Callable[[str], Path], verify: bool) -> tuple[Config, bytes]:
    """The config of a saved model, and the bytes of its weights."""
    try:
        config, weights = Config.from_json(read(file(CONFIG), MAX_BYTES), verify=verify)
    except CorruptCheckpointError as error:
        raise CorruptCheckpointError(f"{where}: {error}") from None
    path, shown = file(WEIGHTS), Path(where, WEIGHTS)
    raw = read(path, weights["bytes"])
    refuse_pickle(raw, shown)
    if not verify:
        return config, raw
    if len(raw) != weights["bytes"]:
        raise CorruptCheckpointError(f"{shown} must have {weights['bytes']:,} bytes, got {len(raw):,}; get it again.")
    found = hashlib.sha256(raw).hexdigest()
    for origin, wanted in (("its config", weights["sha256"]), ("its server", hub.recorded_digest(path) or found)):
        if found != wanted:
            digests = f"its sha256 is {found}, {origin} says {wanted}"
            raise CorruptCheckpointError(f"{shown} was altered: {digests}; get it again, or pass verify=False.")
    return config, raw


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, by the rest of their names.

    Example:
        >>> list(under("model.", {"model.weight": torch.zeros(1), "step": torch.zeros(1)}))
        ['weight']
    """
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _tensors_of(net: nn.Module, native: AffineSDE | None) -> dict[str, Tensor]:
    """The tensors of a network, and those of the learned parts of its process."""
    tensors = dict(net.state_dict())
    for name, module in ({} if native is None else modules_of(native)).items():
        tensors |= {f"{PART}{name}.{key}": value for key, value in module.state_dict().items()}
    return tensors


def _check_state(config: Config, state: Mapping[str, Tensor], where: str, *, allow_nonfinite: bool = False) -> None:
    """Compare tensors with what the config's network has, without allocating it."""
    try:
        with torch.device("meta"):
            net = build(config.architecture, config.kwargs).float()
    except (ScoreSDEError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        refused = f"{config.architecture!r} does not take the arguments of the config"
        raise CorruptCheckpointError(f"{where}: {refused}: {error}") from None
    if lines := mismatches(_tensors_of(net, config.natives()[0]), state):
        listing = "\n".join(lines)
        raise CheckpointMismatchError(f"{where}: the weights do not fit {config.architecture!r}:\n{listing}")
    bad = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad and not allow_nonfinite:
        names = ", ".join(bad)
        raise CorruptCheckpointError(f"{where}: NaN or infinite are {names} (allow_nonfinite=True loads them).")
