"""The comparison of two versions' results: what is the same, what differs and by how much, and what may differ."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tools.same_results import (
    BASE,
    HERE,
    NEITHER,
    ROOT,
    Case,
    check_sources,
    compare,
    differences,
    differs,
    report,
    results,
    run,
    ulps,
    unpack,
)

F64 = torch.float64
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def tensor(*values: float, dtype: torch.dtype = F64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def one(**values: Any) -> dict[str, Case]:
    """A version with one case."""
    return {"part/case": Case(values)}


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_same_bits_are_the_same(dtype: torch.dtype) -> None:
    x = tensor(0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, dtype=dtype)
    assert differs("x", x, x.clone()) is None
    assert differs("x", x.reshape(2, 3).T, x.reshape(2, 3).T.contiguous()) is None  # whatever the layout
    assert differs("x", x[:0], x[:0]) is None


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integers_and_flags(dtype: torch.dtype) -> None:
    x = torch.tensor([0, 1, 1], dtype=dtype)
    assert differs("x", x, x.clone()) is None
    found = differs("x", x, torch.tensor([0, 1, 0], dtype=dtype))
    assert found is not None and found.text == "1 of 3 values, by 1 at most, 1 of the largest"


def test_a_nan_equals_any_nan_and_no_number() -> None:
    payload = torch.tensor([0x7FF8000000000001], dtype=torch.int64).view(F64)
    assert differs("x", tensor(math.nan), payload) is None
    assert differs("x", tensor(math.nan), -tensor(math.nan)) is None
    for other in (0.0, math.inf):
        found = differs("x", tensor(1.0, math.nan), tensor(1.0, other))
        assert found is not None and found.text == "1 of 2 values, infinite or NaN in one version"


@pytest.mark.parametrize("dtype", FLOATS)
def test_zeros_of_two_signs_differ(dtype: torch.dtype) -> None:
    found = differs("x", tensor(0.0, 2.0, dtype=dtype), tensor(-0.0, 2.0, dtype=dtype))
    assert found is not None
    assert found.text == "1 of 2 values, by 0 at most, 0 of the largest, in the sign of zeros"


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [1.0, -1.0, 0.0, 3e-5])
def test_neighbours_are_one_ulp_apart(value: float, dtype: torch.dtype) -> None:
    x = tensor(value, dtype=dtype)
    up = torch.nextafter(x, tensor(9.0, dtype=dtype))
    assert ulps(x, up) == ulps(up, x) == 1
    assert ulps(torch.nextafter(x, tensor(-9.0, dtype=dtype)), up) == 2
    found = differs("x", x, up)
    assert found is not None and found.text.endswith(", 1 ulps")


def test_ulps_across_zero_and_of_the_largest_range() -> None:
    tiny = torch.nextafter(tensor(0.0), tensor(1.0))
    assert ulps(tiny, -tiny) == 2
    assert ulps(tensor(-0.0), tiny) == 1
    limit = torch.finfo(F64).max
    assert ulps(tensor(-limit), tensor(limit)) == 2 * int(tensor(limit).view(torch.int64))


def test_the_size_of_a_difference_is_relative_to_the_largest_value() -> None:
    found = differs("x", tensor(1.0, -200.0), tensor(1.5, -200.0))
    assert found is not None and found.size == 0.5 / 200
    assert found.text.startswith("1 of 2 values, by 0.5 at most, 0.0025 of the largest, ")
    from_zero = differs("x", tensor(0.0), tensor(1.0))
    assert from_zero is not None and from_zero.size == math.inf


def test_dtypes_shapes_and_kinds_differ() -> None:
    x = tensor(1.0, 2.0)
    texts = {
        "dtype float64 -> float32": x.float(),
        "shape (2,) -> (1, 2)": x[None],
        "a tensor of float64, shape (2,) -> 'text'": "text",
    }
    for text, other in texts.items():
        found = differs("x", x, other)
        assert found is not None and found.text == text and found.size == math.inf


def test_texts() -> None:
    assert differs("error", "TypeError", "TypeError") is None
    found = differs("error", "TypeError", "ValueError")
    assert found is not None and found.text == "'TypeError' -> 'ValueError'"


def test_values_that_one_version_lacks() -> None:
    assert differences({"a": "same"}, {"a": "same", "b": "new"}) == []  # a new field moves no result
    (found,) = differences({"a": "same", "b": "old"}, {"a": "same"})
    assert (found.value, found.text) == ("b", "only in base, 'old'")


def test_the_largest_difference_of_a_case_is_first() -> None:
    base = {"a": tensor(1.0), "b": tensor(1.0), "c": tensor(1.0)}
    here = {"a": tensor(1.1), "b": tensor(2.0), "c": tensor(1.0)}
    assert [found.value for found in differences(base, here)] == ["b", "a"]


def test_cases_that_one_version_lacks() -> None:
    value = Case({"x": tensor(1.0)})
    base = {"a/both": value, "a/gone": value, "b/renamed": value, "b/new": Case(lacks="no scoresde.new")}
    here = {"a/both": value, "b/renamed": Case(lacks="no scoresde.old"), "b/new": value, "b/newer": value}
    found = compare(base, here)
    assert found.differing == {}
    assert found.only[BASE] == {"a/gone": "no such case", "b/renamed": "no scoresde.old"}
    assert found.only[HERE] == {"b/new": "no scoresde.new", "b/newer": "no such case"}
    assert found.unexpected([]) == ["a/gone", "b/renamed"]  # new ones are none
    assert found.parts["a"]["identical"] == 1 and found.parts["a"]["only in base"] == 1
    assert found.parts["b"]["only here"] == 2 and found.parts["b"]["cases"] == 3


def test_a_case_that_both_lack_is_named() -> None:
    lacking = {"a/case": Case(lacks="no scoresde.none")}
    found = compare(lacking, lacking)
    assert found.unexpected([]) == []
    assert found.only == {BASE: {}, HERE: {}, NEITHER: {"a/case": "no scoresde.none"}}


def test_a_part_that_ends_early_in_both_versions_is_a_difference() -> None:
    ended = {"part/list of cases": Case({"error": "TypeError", "error.text": "too many"})}
    found = compare(ended, ended)
    assert found.unexpected([]) == ["part/list of cases"]
    assert "too many" in found.differing["part/list of cases"][0].text


def test_what_is_allowed() -> None:
    found = compare(one(x=tensor(1.0)) | {"b/gone": Case()}, one(x=tensor(2.0)))
    assert found.unexpected([]) == ["part/case", "b/gone"]
    assert found.unexpected(["part/*"]) == ["b/gone"]
    assert found.unexpected(["part/*", "b/go?e"]) == []
    assert found.unused(["part/*", "b/go?e"]) == []
    assert found.unused(["part/*", "part", "Part/*", "c/*"]) == ["part", "Part/*", "c/*"]


def test_an_allowance_for_what_does_not_differ_is_unused() -> None:
    found = compare(one(x=tensor(1.0)), one(x=tensor(1.0)) | {"b/new": Case()})
    assert found.unused(["*"]) == ["*"]


def test_the_report_has_the_table_and_each_difference() -> None:
    base = one(x=tensor(1.0), y=tensor(1.0)) | {"b/gone": Case(), "c/same": Case({"error": "TypeError"})}
    here = one(x=tensor(2.0), y=tensor(1.5)) | {"c/same": Case({"error": "TypeError"})}
    lines = report(compare(base, here), ["b/*"])
    assert (
        " ".join(lines[0].split()) == "part cases values identical differing only here only in base in neither errors"
    )
    rows = {line.split()[0]: [int(n) for n in line.split()[1:]] for line in lines[1:5]}
    assert rows == {
        "part": [1, 2, 0, 1, 0, 0, 0, 0],
        "b": [1, 0, 0, 0, 0, 1, 0, 0],
        "c": [1, 1, 1, 0, 0, 0, 0, 1],
        "all": [3, 3, 1, 1, 0, 1, 0, 1],
    }
    assert lines[5:7] == ["only in base:", "  b/gone: no such case"]
    assert lines[7] == "differing:" and lines[8].startswith("  part/case: x: 1 of 1 values, by 1 at most, ")
    assert lines[8].endswith(" (and 1 more values)")


# ---- running the versions --------------------------------------------------------------------------------------------

PROGRAM = """
import json, os, sys
from pathlib import Path

path = Path(sys.argv[1]) / "journal.jsonl"
begun = path.read_text() if path.exists() else ""
for case in ("part/first", "part/crash", "part/last"):
    if case in begun:
        continue
    with path.open("a") as journal:
        journal.write(json.dumps({"case": case}) + "\\n")
        journal.flush()
        if case == "part/crash":
            os._exit(7)
        journal.write(json.dumps({"case": case, "texts": {"x": case}, "absent": None, "file": None}) + "\\n")
"""


def test_a_crash_is_the_result_of_its_case(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "cases.py").write_text(PROGRAM)
    run([tmp_path], [])
    found = results(tmp_path)
    assert list(found) == ["part/first", "part/crash", "part/last"]
    assert found["part/crash"].values == {"error": "crash", "error.text": "the process ended with code 7"}
    assert found["part/last"].values == {"x": "part/last"}


def test_a_program_that_fails_between_cases_ends_the_comparison(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "cases.py").write_text("raise ValueError('no case')")
    with pytest.raises(SystemExit, match="no case"):
        run([tmp_path], [])


@pytest.mark.parametrize(
    ("base", "here", "torch_of_here"),
    [
        ("base/scoresde", "base/scoresde", "torch"),  # one version twice
        ("base/scoresde", "elsewhere/scoresde", "torch"),  # an installed package before the copy
        ("base/scoresde", "here/scoresde", "other/torch"),
    ],
)
def test_versions_that_did_not_run_side_by_side_are_refused(
    tmp_path: Path, base: str, here: str, torch_of_here: str
) -> None:
    folders = [tmp_path / "base", tmp_path / "here"]
    for folder, path, other in zip(folders, (base, here), ("torch", torch_of_here), strict=True):
        (folder / "out").mkdir(parents=True)
        files = {"scoresde": str(tmp_path / path), "torch": other}
        (folder / "out" / "versions.json").write_text(json.dumps({"threads": 1, "files": files}))
    with pytest.raises(SystemExit, match=r"came from|side by side"):
        check_sources(folders)


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_base_must_be_a_commit(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--base no-such-commit"):
        unpack("no-such-commit", tmp_path)


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="needs the history")
def test_the_package_of_a_commit_is_unpacked(tmp_path: Path) -> None:
    assert unpack("HEAD", tmp_path)
    assert (tmp_path / "scoresde" / "__init__.py").is_file()
