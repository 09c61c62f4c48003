"""The folder of a set: what is believed, what is made again, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoresde.core.errors import CorruptCheckpointError, InvalidArgumentError, OutputError
from scoresde.core.support.files.shards import SetPlan, Store, file_digest, opened, sealed

PLAN = SetPlan({"seed": 3, "method": "ddim"}, first=2, count=9, shard_size=4, batch_size=2)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def content(shard: int, size: int = 2) -> dict[str, bytes]:
    return {f"{shard:08d}.txt": f"shard {shard} of {PLAN.span(shard)} in batches of {size}".encode()}


def failure(shard: int) -> dict[str, Any]:
    return {"index": PLAN.span(shard).start, "seed": 3, "t": 0.5, "reason": "non_finite"}


def complete(folder: Path) -> Store:
    """A complete set."""
    made = Store.begin(folder, PLAN)
    for shard in PLAN.shards:
        made.write(shard, content(shard), batch_size=2, failures=(failure(shard),))
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return complete(tmp_path / "set")


def remaining(store: Store) -> list[int]:
    return [shard for shard, record in store.read() if record is None]


@given(st.dictionaries(st.text().map(lambda name: f"a{name}"), JSON, max_size=4))
@settings(max_examples=50)
def test_what_is_sealed_can_be_opened(found: dict[str, Any]) -> None:
    assert opened(sealed(found)) == found
    assert list(opened(sealed(found))) == list(found)


def test_every_byte_of_a_file_counts(store: Store) -> None:
    """Any byte changed in any bit, dropped or doubled, and any end: nothing is believed."""
    store.halve(2, 1)
    for place in ("set.json", "records/00000001.json", "records/00000002.batch.json"):
        whole = (store.folder / place).read_bytes()
        opened(whole)
        damaged = [whole[:end] for end in range(len(whole))]
        for i, byte in enumerate(whole):
            others = [bytes([byte ^ (1 << bit)]) for bit in range(8)] + [b" ", b"\n", b"", whole[i : i + 1] * 2]
            damaged += [whole[:i] + other + whole[i + 1 :] for other in others]
        for found in damaged:
            if found != whole:
                with pytest.raises(ValueError, match="check"):
                    opened(found)
    for found in (b"", b"[]", b"{}", b"\xff\xfe"):
        with pytest.raises(ValueError, match="it is no JSON with a check"):
            opened(found)


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 13), st.integers(1, 13), st.data())
def test_a_plan_divides_its_indices(first: int, count: int, shard_size: int, size: int, data: Any) -> None:
    plan = SetPlan({}, first=first, count=count, shard_size=shard_size, batch_size=min(size, shard_size))
    spans = [plan.span(shard) for shard in plan.shards]
    assert [i for span in spans for i in span] == list(range(first, first + count))
    assert all(len(span) > 0 and span.start // shard_size == (span.stop - 1) // shard_size for span in spans)
    part = SetPlan(
        {}, first=first + count // 2, count=-(-count // 2), shard_size=shard_size, batch_size=plan.batch_size
    )
    for shard in plan.shards:
        batches = plan.batches(shard, plan.batch_size)
        assert all(len(batch) == plan.batch_size for batch in batches)
        assert {*plan.span(shard)} <= {i for batch in batches for i in batch}
        assert all(set(batch) & set(plan.span(shard)) for batch in batches)
        if shard in part.shards:  # of another part of the same set
            assert set(part.batches(shard, plan.batch_size)) <= set(batches)
    assert part.digest == plan.digest


def test_a_record_says_what_is_there(store: Store) -> None:
    assert remaining(store) == []
    for shard in PLAN.shards:
        record = store.record(shard, content=True)
        assert record is not None and record.batch_size == 2 and record.failures == (failure(shard),)
        ((name, (size, digest)),) = record.files.items()
        assert (store.file(name).read_bytes(),) == tuple(content(shard).values())
        assert size == store.file(name).stat().st_size and digest == file_digest(store.file(name))
    found = opened((store.folder / "records" / "00000002.json").read_bytes())
    assert json.loads((store.folder / "set.json").read_text())["settings"] == PLAN.settings
    assert (found["format"], found["set"], found["first"], found["count"]) == (2, PLAN.digest, 8, 3)


def test_what_is_damaged_is_to_be_made_again(tmp_path: Path) -> None:
    damages: dict[str, Callable[[bytes], bytes]] = {
        "flip": lambda whole: whole[:5] + bytes([whole[5] ^ 4]) + whole[6:],
        "cut": lambda whole: whole[:-1],
    }
    for place in ("shards/00000001.txt", "records/00000001.json"):
        for damage in (*damages, "gone", "folder"):
            store = complete(tmp_path / damage / place[:3])
            path = store.folder / place
            whole = path.read_bytes()
            path.unlink()
            if damage in damages:
                path.write_bytes(damages[damage](whole))
            elif damage == "folder":
                path.mkdir()
            assert remaining(store) == [1], (place, damage)
            left = [shard for shard in store.plan.shards if store.record(shard) is None]
            assert left == ([] if damage == "flip" and place.startswith("shards") else [1]), (place, damage)


def test_a_record_of_something_else(store: Store) -> None:
    path = store.folder / "records" / "00000001.json"
    whole = opened(path.read_bytes())
    changes: list[dict[str, Any]] = [
        *({"format": 1}, {"set": "0" * 64}, {"first": 5}, {"count": 3}, {"batch_size": 1}),
        *({"files": files} for files in ([], {"00000001.txt": 7}, {"a\0b": [1, "0"]}, None)),
    ]
    for change in changes:
        path.write_bytes(sealed({**whole, **change}))
        assert remaining(store) == [1], change


def test_a_halved_batch_is_for_every_later_writer(store: Store) -> None:
    store.halve(1, 1)
    again = Store.of(store.folder)
    assert [again.batch_size(shard) for shard in PLAN.shards] == [2, 1, 2]
    assert remaining(again) == [1]  # which was made in larger batches
    again.write(1, content(1, 1), batch_size=1)
    assert remaining(store) == []
    record = store.record(1)
    assert record is not None and record.batch_size == 1


def test_a_batch_never_becomes_larger(tmp_path: Path) -> None:
    """A process that had more memory, and says so later, does not undo what one with less has made."""
    plan = SetPlan({}, first=0, count=64, shard_size=64, batch_size=64)
    store = Store.begin(tmp_path, plan)
    store.halve(0, 8)
    store.halve(0, 32)
    assert store.batch_size(0) == 8


def test_a_batch_of_something_else(store: Store) -> None:
    for found in ({"set": "0", "batch_size": 1}, {"set": PLAN.digest}, {"set": PLAN.digest, "batch_size": 0}):
        (store.folder / "records" / "00000001.batch.json").write_bytes(sealed(found))
        assert store.batch_size(1) == 2 and remaining(store) == [], found


def test_another_set_is_refused(store: Store) -> None:
    before = (store.folder / "set.json").read_bytes()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"settings": {"seed": 4, "method": "ddim"}}, "its seed is 3, not 4"),
        ({"shard_size": 5}, "its shard_size is 4, not 5"),
        ({"batch_size": 1}, "its batch_size is 2, not 1"),
    ]
    for change, said in cases:
        for extend in (False, True):
            with pytest.raises(InvalidArgumentError, match=said):
                Store.begin(store.folder, replace(PLAN, **change), extend=extend)
        assert (store.folder / "set.json").read_bytes() == before and remaining(store) == []


def test_a_set_becomes_larger_at_both_ends(store: Store) -> None:
    larger = SetPlan(PLAN.settings, first=0, count=14, shard_size=4, batch_size=2)
    with pytest.raises(InvalidArgumentError, match=r"9 samples from 2 on, not 14 from 0 on; `extend`"):
        Store.begin(store.folder, larger)
    extended = Store.begin(store.folder, larger, extend=True)
    assert Store.of(store.folder).plan == larger
    assert remaining(extended) == [0, 2, 3]  # the first and the last had a part of their samples
    for smaller in ({"first": 1, "count": 13}, {"first": 0, "count": 13}, {"first": 3, "count": 50}):
        with pytest.raises(InvalidArgumentError, match="can only become larger"):
            Store.begin(store.folder, replace(larger, **smaller), extend=True)
    assert Store.of(store.folder).plan == larger


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    for name in ("photo.png", "shards/a", "records/a.json", "set/b", "records/00000000.json"):
        folder = tmp_path / name.replace("/", "_")
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"mine")
        with pytest.raises(OutputError, match="has files that are no set"):
            Store.begin(folder, PLAN)
        assert path.read_bytes() == b"mine" and [p for p in folder.rglob("*") if p.is_file()] == [path]
    with pytest.raises(OutputError, match="cannot be written"):
        Store.begin(tmp_path / "photo.png" / "photo.png", PLAN)
    for i, found in enumerate(((), (".notes",), (".set.json.0123456789abcdef.tmp",), ("shards", "records"))):
        folder = tmp_path / str(i)  # what a killed beginning leaves is no hindrance
        folder.mkdir()
        for name in found:
            (folder / name).write_bytes(b"") if name.startswith(".") else (folder / name).mkdir()
        assert Store.begin(folder, PLAN).plan == PLAN


def test_a_damaged_set_json_is_written_again_where_the_records_agree(tmp_path: Path) -> None:
    """A set of which nothing is left but results is refused."""
    damages: list[Callable[[Path], object]] = [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-3])]
    for i, damage in enumerate(damages):
        store = complete(tmp_path / str(i))
        path = store.folder / "set.json"
        whole = path.read_bytes()
        damage(path)
        with pytest.raises(CorruptCheckpointError, match="does not say what the set is"):
            Store.of(store.folder)
        (store.folder / "records" / "00000000.json").write_bytes(b"damaged, too")
        other = replace(PLAN, settings={"seed": 4})
        with pytest.raises((CorruptCheckpointError, OutputError), match=r"no set|does not say"):
            Store.begin(store.folder, other)
        assert remaining(Store.begin(store.folder, PLAN)) == [0]
        assert path.read_bytes() == whole
        damage(path)
        shutil.rmtree(store.folder / "records")
        with pytest.raises((CorruptCheckpointError, OutputError), match=r"no set|does not say"):
            Store.begin(store.folder, PLAN)


def test_many_begin_at_once(tmp_path: Path) -> None:
    """Eight threads at the same folder, over and over: each of them has the set."""
    for i in range(8):
        gate = threading.Barrier(8)

        def begin(_: int, folder: Path = tmp_path / str(i), gate: Any = gate) -> SetPlan:
            gate.wait()
            return Store.begin(folder, PLAN).plan

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(begin, range(8))) == [PLAN] * 8
        assert (tmp_path / str(i) / "set.json").read_bytes() == sealed(PLAN.fields())


def test_the_record_comes_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    replace, fsync = os.replace, os.fsync

    def synced(descriptor: int) -> None:
        done.append("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file")
        fsync(descriptor)

    def renamed(source: Any, target: Any) -> None:
        done.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    store.write(0, {"a": b"one", "b": b"two"}, batch_size=2)
    wanted = ["file", "file", "a", "folder", "b", "folder", "file", "00000000.json", "folder"]
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system has no list of open files")
    assert done == wanted


def test_only_what_killed_processes_left_is_removed(store: Store) -> None:
    store.leases.mkdir()
    before = sorted(path for path in store.folder.rglob("*") if path != store.leases)
    for folder in (store.folder, store.folder / "shards", store.folder / "records", store.leases):
        (folder / ".00000001.txt.0123456789abcdef.tmp").write_bytes(b"half")
    (store.leases / "00000001.json").write_bytes(b"{}")
    store.clean()
    assert sorted(store.folder.rglob("*")) == before
    store.clean()


def test_a_writer_whose_temporary_file_was_removed_writes_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process completes and cleans the set while this one, slower, is about to rename what it has made."""
    replace, times = os.replace, 0

    def late(source: Any, target: Any) -> None:
        nonlocal times
        times += 1
        if times in (1, 3):
            store.clean()
        replace(source, target)

    monkeypatch.setattr(os, "replace", late)
    store.write(1, content(1), batch_size=2)
    assert times == 4 and remaining(store) == []
    assert not list(store.folder.rglob("*.tmp"))
