"""The documentation site, as far as it can be judged without building it: its reference, its side bar, its checks."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from markdown_it import MarkdownIt

import scoresde

ROOT = Path(scoresde.__file__).parents[1]
DOCS = ROOT / "docs"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference, check_site, side_bar = load("_reference"), load("check_site"), load("_side_bar")
PAGES = sorted(path for path in DOCS.rglob("*.md") if not {"_build", "gallery"} & set(path.parts))


@functools.cache
def documented() -> Counter[str]:
    """The names that the pages describe, each with the number of times."""
    texts = (reference.page(module, *names) for module, names in reference.pages().items())
    mark = re.compile(r"^[.][.] (?:autoclass|autoexception|autofunction|py:data):: (\S+)$", re.MULTILINE)
    return Counter(name for text in texts for name in mark.findall(text))


def public() -> list[str]:
    values = {name: getattr(scoresde, name) for name in scoresde.__all__}
    modules = {name: value for name, value in values.items() if isinstance(value, ModuleType)}
    inner = [f"scoresde.{name}.{key}" for name, module in modules.items() for key in module.__all__]
    return [*(f"scoresde.{name}" for name in values if name not in modules), *inner]


def test_every_public_name_is_documented_once() -> None:
    found = documented()
    assert set(found.values()) == {1}
    others = {name: there for _, elsewhere in reference.pages().values() for name, there in elsewhere.items()}
    assert set(public()) <= set(found) | set(others) and not set(found) & set(others)
    for name, there in others.items():
        assert there in found and reference.value_of(name) is reference.value_of(there)
    kinds = [name for name in found if isinstance(reference.value_of(name), type)]
    assert max(Counter(map(reference.value_of, kinds)).values()) == 1  # no object under two names


def test_every_page_has_one_place_in_the_side_bar() -> None:
    groups = {caption: names.split() for caption, names in side_bar.SIDE_BAR["index"].items()}
    assert next(iter(groups)) == "Start" and list(groups)[-1] == "Reference" and len(groups) == 8
    children = [
        f"{part}/{name}"
        for part in ("coming_from", "theory")
        for name in side_bar.SIDE_BAR[f"{part}/index"][""].split()
    ]
    entries = Counter(["index", *children, *(name for names in groups.values() for name in names)])
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES}
    pages |= {"gallery/index"} if (DOCS / "examples" / "GALLERY_HEADER.rst").is_file() else set()
    assert set(entries) == pages
    assert set(entries.values()) == {1}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda path: path.stem)
def test_a_page_can_be_read_without_the_site(page: Path) -> None:
    """CommonMark with tables: no markup of another program, no empty table, no link to a file that is not there."""
    without_formulas = re.sub(r"\$\$.*?\$\$", "formula", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    tokens = MarkdownIt("commonmark").enable("table").parse(without_formulas)
    inline = [child for token in tokens for child in token.children or ()]
    texts = [child.content for child in inline if child.type == "text"]
    assert not [text for text in texts if re.search(r"\{[a-z:]+\}$|^:::", text)]
    assert not [token.info for token in tokens if token.type == "fence" and token.info.startswith("{")]
    marks = re.findall(r"<!-- table: (.*?) -->\n\n(.*?)\n<!-- end -->", page.read_text(encoding="utf-8"), re.DOTALL)
    assert not [name for name, text in marks if not text.strip()]
    rows = [token.type for token in tokens if token.type in ("table_open", "tbody_open")]
    assert rows.count("table_open") == rows.count("tbody_open")
    for child in inline:
        target = str(child.attrGet("href") or child.attrGet("src") or "")
        path = (page.parent / target.partition("#")[0]).resolve()
        assert re.match(r"https?:|#|$", target) or path.exists() or "gallery" in path.parts, target


def test_the_bibliography_has_every_paper_that_the_package_cites() -> None:
    arxiv = re.compile(r"arxiv[.]org/abs/(\d+[.]\d+)")
    listed = set(arxiv.findall((DOCS / "theory" / "references.md").read_text(encoding="utf-8")))
    citing = [*(ROOT / "scoresde").rglob("*.py"), *(DOCS / "theory").glob("*.md")]
    texts = [path.read_text(encoding="utf-8") for path in citing]
    numbers = {number for text in texts for number in arxiv.findall(text)}
    assert len(numbers) > 80 and not numbers - listed


GOOD = {
    "index.html": '<link rel="stylesheet" href="_static/a.css"><h1 id="top">1</h1><a href="a/b.html#there">b</a>'
    '<a href="#top">up</a><a href="https://example.org">out</a><img src="a/p.png"><img src="data:image/png;base64,">',
    "a/b.html": '<p id="there"><a href="../index.html">back</a></p>',
    "a/p.png": "",
    "_static/a.css": "",
}


def site(folder: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(check_site.broken(folder.resolve()))


def test_what_is_missing_in_a_site_is_reported(tmp_path: Path) -> None:
    assert site(tmp_path / "good", GOOD) == []
    for i, (name, text, problem) in enumerate(
        [
            ("a/b.html", "<p>the anchor is gone</p>", "index.html refers to a/b.html#there, an anchor that is missing"),
            ("index.html", '<a href="c.html">x</a>', "index.html refers to c.html, which is missing"),
            ("index.html", '<img src="q.png">', "index.html refers to q.png, which is missing"),
            ("index.html", '<script src="https://cdn.example/x.js"></script>', "index.html loads https://cdn.exa"),
            ("index.html", '<p id="a"></p><p id="a"></p>', "index.html: the id 'a' is used 2 times"),
        ]
    ):
        found = site(tmp_path / str(i), {**GOOD, name: text})
        assert len(found) == 1 and found[0].startswith(problem), problem
    generated = {f"reference/{module}" for module in reference.pages()}
    for page in check_site.WORDS.values():
        assert page in generated or (DOCS / f"{page}.md").is_file()
