"""Models in repositories of the Hugging Face Hub, on a server of the tests."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import scoresde
from scoresde.cli import app
from scoresde.core.errors import (
    CheckpointError,
    CorruptCheckpointError,
    InvalidArgumentError,
    OutputError,
    ScoreSDEWarning,
    UnsafeCheckpointError,
)
from scoresde.nets import MLP
from scoresde.zoo import Pretrained
from tests.interop.hub_server import TOKEN, Hub, serving
from tests.pages import program

pytest.importorskip("huggingface_hub", exc_type=ImportError)
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")]

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SMALL = {"event_shape": [2], "channels": 8, "blocks": 1, "width": 8}


def model(seed: int = 0) -> Pretrained:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MLP(**SMALL)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter)
    return Pretrained.of(scoresde.ScoreModel(net, scoresde.VPSDE(), "noise", event_shape=(2,)), SMALL)


def saved(folder: Path, seed: int = 0) -> dict[str, bytes]:
    """The files of a saved model."""
    scoresde.save(model(seed), folder)
    return {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def same(loaded: Any, seed: int = 0) -> bool:
    expected = model(seed).net.state_dict()
    return all(torch.equal(value, expected[key]) for key, value in loaded.net.state_dict().items())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Path]]:
    """A server and a cache, both of which the package finds by its environment variables when it is imported."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "huggingface_hub"}
    for name in before:
        del sys.modules[name]
    home = tmp_path_factory.mktemp("home")
    with serving() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(home))
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"):
            patch.delenv(name, raising=False)
        yield hub, home / "hub"
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def hub(environment: tuple[Hub, Path]) -> Hub:
    hub = environment[0]
    hub.requests.clear()
    hub.refuse, hub.resumes = "", True
    return hub


@pytest.fixture
def cache(environment: tuple[Hub, Path]) -> Path:
    return environment[1]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return f"owner/model-{zlib.crc32(request.node.name.encode())}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package does not wait before it tries again."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def left(cache: Path, name: str) -> list[str]:
    """Files of the cache that are not whole."""
    folder = cache / f"models--{name.replace('/', '--')}"
    return [
        path.name
        for path in folder.rglob("*")
        if "incomplete" in path.name or (path.is_symlink() and not path.exists())
    ]


def test_the_newest_commit_is_found_once_and_named(hub, name, tmp_path):
    sha = hub.add(name, {**saved(tmp_path), "extra.txt": b"not needed", "pytorch_model.bin": b"nor this"}).refs["main"]
    with pytest.warns(ScoreSDEWarning, match=f"hf:{name}@{sha}"):
        loaded = scoresde.load(f"hf:{name}")
    assert same(loaded) and loaded.source == f"hf:{name}@{sha}"
    assert not any("extra" in request or ".bin" in request for request in hub.requests)
    assert sum("/resolve/main/" in request for request in hub.requests if request.startswith("HEAD")) == 1
    assert not any(WEIGHTS in request and sha not in request for request in hub.requests)

    hub.requests.clear()
    assert same(scoresde.load(loaded.source)) and not hub.requests  # a commit is in the cache, for good


def test_revisions_have_their_own_weights(hub, name, tmp_path):
    repository = hub.add(name, saved(tmp_path / "a", 0), "v1", "branch/of-mine")
    repository.commit(saved(tmp_path / "b", 1))
    first, second = repository.commits
    for revision, seed in (("v1", 0), ("branch/of-mine", 0), (first, 0), ("main", 1), (second, 1)):
        loaded = scoresde.load(f"hf:{name}@{revision}")
        assert same(loaded, seed) and loaded.source == f"hf:{name}@{(first, second)[seed]}"


def test_a_commit_that_comes_between_the_two_files_does_not_mix(hub, name, tmp_path, monkeypatch):
    repository = hub.add(name, saved(tmp_path / "a", 0))
    from huggingface_hub import HfApi

    download = HfApi.hf_hub_download

    def slow(self, *args, **options):
        path = download(self, *args, **options)
        if len(repository.commits) == 1:
            repository.commit(saved(tmp_path / "b", 1))
        return path

    monkeypatch.setattr(HfApi, "hf_hub_download", slow)
    assert same(scoresde.load(f"hf:{name}@main"), 0)
    assert same(scoresde.load(f"hf:{name}@main"), 1)


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_changed_file_is_refused_and_downloaded_again(hub, cache, name, tmp_path, file):
    repository = hub.add(name, saved(tmp_path))
    repository.faults[file] = "changed"
    with pytest.raises(CorruptCheckpointError, match=name):
        scoresde.load(f"hf:{name}@main")
    assert not left(cache, name)
    repository.faults.clear()
    assert same(scoresde.load(f"hf:{name}@main"))


def test_weights_that_differ_from_what_the_server_says_are_refused(hub, cache, name, tmp_path):
    """The config is changed to fit the weights that came; the server's digest is of other ones."""
    good, other = saved(tmp_path / "a", 0), saved(tmp_path / "b", 1)
    repository = hub.add(name, good)
    loaded = scoresde.load(f"hf:{name}@main")
    folder = cache / f"models--{name.replace('/', '--')}" / "snapshots" / repository.refs["main"]
    for file, content in other.items():
        Path(os.path.realpath(folder / file)).write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match="its server says"):
        scoresde.load(loaded.source)
    assert same(scoresde.load(loaded.source), 0)


@pytest.mark.parametrize(("file", "fault"), [(CONFIG, "short"), (WEIGHTS, "short"), (WEIGHTS, "cut")])
@pytest.mark.parametrize("resumes", [True, False])
def test_half_a_download_leaves_nothing(hub, cache, name, tmp_path, quick, file, fault, resumes):
    repository = hub.add(name, saved(tmp_path))
    repository.faults[file], hub.resumes = fault, resumes
    error = None
    try:
        assert same(scoresde.load(f"hf:{name}@main"))  # the package goes on by itself where it can
    except CheckpointError as failure:
        error = failure
    assert fault == "cut" if error is None else name in str(error) and error.__cause__ is not None
    assert not left(cache, name)
    repository.faults.clear()
    assert same(scoresde.load(f"hf:{name}@main"))


def test_a_pickle_is_refused_and_not_downloaded(hub, name, tmp_path):
    config = {CONFIG: saved(tmp_path)[CONFIG]}
    for pickle, others in (("pytorch_model.bin", config), ("model.pt", {}), ("weights.pkl", config)):
        hub.add(name, {pickle: b"\x80\x04", **others})
        with pytest.raises(UnsafeCheckpointError, match=f"{name}.*{pickle} is a pickle"):
            scoresde.load(f"hf:{name}@main")
        assert not any(pickle in request for request in hub.requests)
    hub.add(name, {**saved(tmp_path), WEIGHTS: b"\x80\x04\x95" + bytes(100)})
    with pytest.raises(UnsafeCheckpointError, match="pickle"):  # under the name of the weights
        scoresde.load(f"hf:{name}@main")


def test_a_repository_of_something_else(hub, name, tmp_path):
    hub.add(name, {"README.md": b""})
    with pytest.raises(CorruptCheckpointError, match=f"{name}.*has no config.json"):
        scoresde.load(f"hf:{name}@main")
    hub.add(name, {CONFIG: b"{}", WEIGHTS: bytes(99)})
    with pytest.raises(CorruptCheckpointError, match=f"{name}.*config.json"):
        scoresde.load(f"hf:{name}@main")
    assert not any(WEIGHTS in request for request in hub.requests)  # large weights of others stay where they are


def test_what_does_not_exist_or_is_private(hub, name, tmp_path, monkeypatch, quick):
    def refused(said, revision="@main"):
        with pytest.raises(CheckpointError, match=said):
            scoresde.load(f"hf:{name}{revision}")

    refused(f"{name}@main: there is no such repository, or it is private; .*HF_TOKEN", "")
    repository = hub.add(name, saved(tmp_path))
    refused(f"{name}@nowhere: the repository has no such revision", "@nowhere")
    refused("the repository has no such revision", f"@{'1' * 40}")
    repository.gated = True
    refused("access is refused")
    repository.gated, repository.private = False, True
    refused("private")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert same(scoresde.load(f"hf:{name}@main"))


def test_a_server_in_trouble(hub, name, tmp_path, quick):
    hub.add(name, saved(tmp_path))
    hub.refuse = "/owner"
    with pytest.raises(CheckpointError, match="the server answered 503; try again later"):
        scoresde.load(f"hf:{name}@main")
    hub.refuse = ""
    loaded = scoresde.load(f"hf:{name}@main")
    hub.refuse = "/owner"
    assert scoresde.load(f"hf:{name}@main").source == loaded.source  # from the cache


def test_addresses_without_an_owner_or_a_name(hub):
    for address in ("hf:", "hf:name", "hf:a/b/c", "hf:owner/name@", "hf:../x", "hf:a/b c@main"):
        with pytest.raises(InvalidArgumentError, match="hf:owner/name"):
            scoresde.load(address)
    assert not hub.requests


def test_commands_take_an_address_and_record_the_commit(hub, name, tmp_path):
    import numpy as np

    sha = hub.add(name, saved(tmp_path / "model")).refs["main"]
    out = str(tmp_path / "samples.npz")
    with pytest.warns(ScoreSDEWarning, match=sha):
        done = CliRunner().invoke(app, ["sample", "--model", f"hf:{name}", "--num", "2", "--steps", "2", "--out", out])
    assert done.exit_code == 0, done.output
    with np.load(out) as arrays:
        assert arrays["x"].shape == (2, 2) and f"hf:{name}@{sha}" in str(arrays["metadata"])

    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    lost = "Error: hf:owner/other@main: the server cannot be reached"
    for address, code, line in ((f"hf:{name}@main", 0, ""), ("hf:owner/other", 5, lost)):
        call = [sys.executable, "-m", "scoresde", "sample", "--model", address, "--steps", "2", "--out", out, "--force"]
        done = subprocess.run(call, capture_output=True, text=True, env=offline)
        assert done.returncode == code and done.stderr.startswith(line), done.stderr


def test_nobody_listens(hub, name, tmp_path, quick, monkeypatch):
    import huggingface_hub

    hub.add(name, saved(tmp_path))
    source = scoresde.load(f"hf:{name}@main").source
    nowhere = functools.partialmethod(huggingface_hub.HfApi.__init__, endpoint="http://127.0.0.1:1")
    monkeypatch.setattr(huggingface_hub.HfApi, "__init__", nowhere)
    hub.requests.clear()
    assert scoresde.load(f"hf:{name}@main").source == source  # from the cache
    with pytest.raises(CheckpointError, match="hf:owner/other@main: the server cannot be reached"):
        scoresde.load("hf:owner/other")
    with pytest.raises(OutputError, match="nothing was written"):
        scoresde.save(model(), push_to=name)
    assert not hub.requests


def test_pushing_is_one_commit_that_load_takes(hub, cache, name, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    address = scoresde.save(model(), push_to=name, license="mit")
    repository = hub.repositories[name]
    assert repository.private and len(repository.commits) == 2 and address == f"hf:{name}@{repository.refs['main']}"
    files = repository.commits[repository.refs["main"]]
    assert sorted(files) == ["README.md", CONFIG, WEIGHTS]
    card = files["README.md"].decode()
    for part in ("license: mit", "VPSDE(beta_min=0.1", "| prediction | `noise` |", f'scoresde.load("hf:{name}")'):
        assert part in card
    loaded = scoresde.load(address)
    assert same(loaded)

    written = card.replace("A score network", "My score network").encode()
    repository.commit({**files, "README.md": written})
    second = scoresde.save(model(1), tmp_path / "folder", push_to=name)
    assert (
        same(scoresde.load(second), 1) and same(scoresde.load(tmp_path / "folder"), 1) and same(scoresde.load(address))
    )
    assert repository.commits[repository.refs["main"]]["README.md"] == written  # the user's is kept
    with pytest.raises(InvalidArgumentError, match=r"README\.md, which is kept"):
        scoresde.save(model(2), push_to=name, license="mit")
    assert len(repository.commits) == 4


def test_the_programs_of_a_card_and_of_the_page_run(hub, name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    scoresde.save(model(), push_to=name)
    repository = hub.repositories[name]
    code = repository.commits[repository.refs["main"]]["README.md"].decode().split("```")[1].removeprefix("python\n")
    namespace: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScoreSDEWarning)
        exec(code, namespace)
    assert namespace["samples"].shape == (4, 2)
    first = hub.add("owner/name", saved(tmp_path), "v1").refs["main"]
    names: dict[str, Any] = {"scoresde": scoresde}
    exec(program("docs/networks.md", "hub"), names)
    assert names["model"].source == f"hf:owner/name@{first}"
    assert names["address"].startswith("hf:owner/name@")


def test_a_push_that_fails_writes_nothing(hub, name, monkeypatch, quick):
    with pytest.raises(OutputError, match=f"{name}: nothing was written: .*HF_TOKEN"):
        scoresde.save(model(), push_to=name)
    assert name not in hub.repositories
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.refuse = f"/api/models/{name}/commit"
    with pytest.raises(OutputError, match="nothing was written: the server answered 503"):
        scoresde.save(model(), push_to=name)
    assert len(hub.repositories[name].commits) == 1  # the empty one
    hub.refuse = ""
    assert same(scoresde.load(scoresde.save(model(), push_to=name)))
