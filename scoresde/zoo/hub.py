"""Saved models in repositories of the Hugging Face Hub, through the package ``huggingface_hub``.

It is imported when it is needed, keeps what it downloads in its own cache, and is configured by its own environment
variables: ``HF_TOKEN``, ``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT``.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import (
    CheckpointError,
    CorruptCheckpointError,
    InvalidArgumentError,
    OutputError,
    ScoreSDEError,
    UnsafeCheckpointError,
    short,
)
from .layout import CONFIG, incomplete_error

PREFIX = "hf:"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_DIGEST = re.compile("[0-9a-f]{64}")
_LOG_IN = "and log in with `hf auth login` or set HF_TOKEN"


@dataclass(frozen=True)
class Snapshot:
    """The files of a repository at one commit, which are downloaded when they are needed.

    Args:
        repository: ``owner/name``.
        commit: the hash of the commit; or a branch or a tag, before the first file.
    """

    repository: str
    commit: str
    files: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}@{self.commit}"

    def file(self, name: str) -> Path:
        """Download a file to the cache, unless it is there; its place in the cache.

        Raises:
            CheckpointError: it is missing, or cannot be downloaded.
        """
        hub = _package()
        with _explained(str(self), CheckpointError):
            try:
                path = Path(_api().hf_hub_download(self.repository, name, revision=self.commit))
            except hub.errors.LocalEntryNotFoundError:
                raise
            except hub.errors.EntryNotFoundError:
                there = _api().list_repo_files(self.repository, revision=self.commit)
                raise incomplete_error(str(self), [name], there) from None
            except BaseException:
                self._drop_parts()
                raise
        self.files.append(path)
        return path

    def drop(self) -> None:
        """Remove its files from the cache, so that they are downloaded again."""
        for path in self.files:
            for place in {path, Path(os.path.realpath(path))}:
                place.unlink(missing_ok=True)

    def _drop_parts(self) -> None:
        """Remove what earlier versions of the package leave of a download that failed: they would append to it. Later
        ones name it after the process and remove it themselves.
        """
        hub = _package()
        folder = hub.file_download.repo_folder_name(repo_id=self.repository, repo_type="model")
        for part in Path(hub.constants.HF_HUB_CACHE, folder, "blobs").glob("*.incomplete"):
            if part.name.count(".") == 1:
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def snapshot(address: str) -> Iterator[Snapshot]:
    """A repository at one commit: that which its revision, or its main branch, has now. If its files turn out to be no
    saved model, they are removed from the cache.

    Args:
        address: ``hf:owner/name`` or ``hf:owner/name@revision``.

    Raises:
        CheckpointError: there is no such repository or revision, or it cannot be reached.
    """
    repository, at, revision = address.removeprefix(PREFIX).partition("@")
    if not _REPOSITORY.fullmatch(repository) or bool(at) is not bool(revision):
        known = "'hf:owner/name', or 'hf:owner/name@revision' of a branch, tag or commit"
        raise InvalidArgumentError(f"`path_or_name` must be like {known}, got {short(address)}.")
    newest = Snapshot(repository, revision or "main")
    first = newest.file(CONFIG)
    pinned = Snapshot(repository, first.parent.name, newest.files)
    try:
        yield pinned
    except (CorruptCheckpointError, UnsafeCheckpointError):
        pinned.drop()
        raise


def recorded_digest(path: Path) -> str | None:
    """The sha256 that the server gave for a file of the cache, which has it as its name there; None if it has not.

    Example:
        >>> recorded_digest(Path("model.safetensors")) is None
        True
    """
    name = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
    return name if _DIGEST.fullmatch(name) else None


def push(repository: str, files: Mapping[str, bytes], card: str, license: str | None) -> str:
    """Write files to a repository in one commit, with a card if it has none; a repository that is missing is made, and
    is private.

    Returns:
        The address of the commit, ``hf:owner/name@commit``.

    Raises:
        OutputError: nothing was written.
    """
    hub, api = _package(), _api()
    with _explained(f"{PREFIX}{repository}: nothing was written", OutputError):
        api.create_repo(repository, private=True, exist_ok=True)
        has_card = api.file_exists(repository, "README.md")
        if has_card and license is not None:
            raise InvalidArgumentError(f"`license`: {PREFIX}{repository} has a README.md, which is kept.")
        contents = {**files, **({} if has_card else {"README.md": card.encode()})}
        additions = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
        commit = api.create_commit(repository, additions, commit_message="Save a model of scoresde")
    return f"{PREFIX}{repository}@{commit.oid}"


def check_repository(name: str, value: object) -> str:
    """Return the name of a repository, or say what it must be.

    Example:
        >>> check_repository("push_to", "owner/name")
        'owner/name'
    """
    if not isinstance(value, str) or not _REPOSITORY.fullmatch(value):
        raise InvalidArgumentError(f"`{name}` must be like 'owner/name', got {short(value)}.")
    return value


def _package() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.file_download
    except ImportError as error:
        raise InvalidArgumentError("The Hugging Face Hub needs its package: pip install 'scoresde[hub]'.") from error
    return huggingface_hub


def _api() -> Any:
    from .. import __version__

    return _package().HfApi(library_name="scoresde", library_version=__version__)


@contextlib.contextmanager
def _explained(what: str, kind: type[ScoreSDEError]) -> Iterator[None]:
    """Say in one sentence why the Hub, or the way to it, refuses; the package's own error is the cause."""
    try:
        yield
    except ScoreSDEError:
        raise
    except Exception as error:
        raise kind(f"{what}: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    errors = _package().errors
    status = next(
        (r.status_code for e in (error, error.__cause__) if (r := getattr(e, "response", None)) is not None), None
    )
    reasons = (
        (
            isinstance(error, errors.GatedRepoError) or status == 403,
            f"access is refused; request it on the page of the repository, {_LOG_IN}",
        ),
        (
            isinstance(error, errors.RepositoryNotFoundError) or status == 401,
            f"there is no such repository, or it is private; check the name, {_LOG_IN}",
        ),
        (
            isinstance(error, errors.RevisionNotFoundError),
            "the repository has no such revision; take one of its branches, tags or commits",
        ),
        (status is not None, f"the server answered {status}; try again later"),
        (
            isinstance(error, errors.LocalEntryNotFoundError),
            "the server cannot be reached, and the cache has no copy; check the network, HF_ENDPOINT and "
            "HF_HUB_OFFLINE, and try again",
        ),
    )
    first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return next((text for holds, text in reasons if holds), f"{first}; try again")
