"""The documentation site, as far as it can be judged without building it: its reference, its side bar, its checks."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import scoresde

ROOT = Path(scoresde.__file__).parents[1]
DOCS = ROOT / "docs"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference, check_site = load("_reference"), load("check_site")


def setting(name: str) -> Any:
    """A literal of docs/conf.py, which imports Sphinx and is not imported here."""
    for node in ast.parse((DOCS / "conf.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"docs/conf.py does not set {name}")


# ---- the reference ---------------------------------------------------------------------------------------------------


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


def test_the_reference_begins_with_solve_and_has_an_overview_of_the_modules() -> None:
    first = [names for names, _ in reference.pages().values()][:3]
    assert first[0] == ["scoresde.solve"] and "scoresde.ScoreModel" in first[1] and "scoresde.VPSDE" in first[2]
    text = reference.overview()
    for module in reference.pages():
        assert len(reference.sentence(module).split()) > 1
        assert f"| [{module}](reference/{module}.rst) | " in text and f"\nreference/{module}\n" in text


def test_pages_are_written_when_they_change_and_removed_with_their_module(tmp_path: Path) -> None:
    (tmp_path / "gone.rst").write_text("a module of another time")
    reference.write(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(reference.pages())
    solving, scores = tmp_path / "solving.rst", tmp_path / "scores.rst"
    solving.write_text("an old page")
    before = scores.stat().st_mtime_ns
    reference.write(tmp_path)
    assert "autofunction:: scoresde.solve" in solving.read_text() and scores.stat().st_mtime_ns == before


def test_names_in_docstrings_stand_for_the_package_then_the_module_then_any_module() -> None:
    def first(target: str, module: str) -> str:
        return str(next(name for name in reference.spellings(target, module) if name in documented()))

    assert first("solve", "solving") == "scoresde.solve"
    assert first("EDM", "losses") == "scoresde.losses.EDM" and first("EDM", "solvers") == "scoresde.solvers.EDM"
    assert first("scoresde.models.Clip", "likelihood") == "scoresde.scores.Clip"
    assert first("GaussianMixture", "solving") == "scoresde.targets.GaussianMixture"
    assert not set(reference.spellings("order", "solvers")) & set(documented())  # an attribute of solvers


# ---- the side bar and the landing page -------------------------------------------------------------------------------


def toctrees(page: Path) -> dict[str, list[str]]:
    """The entries of a page's tables of contents, by caption."""
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    found = {}
    for block in blocks:
        caption = re.search(r"^:caption: (.+)$", block, re.MULTILINE)
        found[caption[1] if caption else ""] = [line for line in block.split("\n") if line and line[0] != ":"]
    return found


def test_every_page_has_one_place_in_the_side_bar() -> None:
    groups = toctrees(DOCS / "index.md")
    assert next(iter(groups)) == "Start" and list(groups)[-1] == "Reference" and len(groups) == 8
    children = [
        f"{part}/{name}" for part in ("coming_from", "theory") for name in toctrees(DOCS / part / "index.md")[""]
    ]
    entries = Counter(["index", *children, *(name for names in groups.values() for name in names)])
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    pages |= {"gallery/index"} if (DOCS / "examples" / "GALLERY_HEADER.rst").is_file() else set()
    assert set(entries) == {page for page in pages if not page.startswith("_build/")}
    assert set(entries.values()) == {1}
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^```\{figure\} (\S+)$", text, re.MULTILINE)) == 1
    cards = re.findall(r"^:link: (\S+)$", text, re.MULTILINE)
    assert len(cards) == 12 and all((DOCS / f"{name}.md").is_file() for name in cards)


# ---- the settings ----------------------------------------------------------------------------------------------------


def test_the_docs_extra_has_what_the_settings_name() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    packages = {re.split(r"[<>=\[]", line)[0] for line in extras["docs"]}
    others = [name for name in setting("extensions") if not name.startswith("sphinx.")]
    wanted = {
        re.sub(r"^(sphinxcontrib[.]\w+|\w+).*", r"\1", name).replace("_", "-").replace(".", "-") for name in others
    }
    assert wanted <= packages | {"myst-parser"} and {"myst-parser", "furo", "sphinx-mathjax-offline"} <= packages
    assert [re.split(r"[<>=]", line)[0] for line in extras["site"]] == ["playwright"]


def test_the_bibliography_has_every_paper_that_the_package_cites_and_no_two_are_cited_alike() -> None:
    """A citation is the first author, or two, and the year, which has a letter where it must."""
    text = (DOCS / "references.bib").read_text(encoding="utf-8")
    listed = set(re.findall(r"eprint += \{([0-9.]+)\}", text))
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "scoresde").rglob("*.py")]
    numbers = {number for text in texts for number in re.findall(r"arxiv[.]org/abs/(\d+[.]\d+)", text)}
    assert len(numbers) > 80 and not numbers - listed
    entries = re.findall(r"author += \{(.+)\},\n(?:.*\n)*?  year += \{(\w+)\}", text)
    assert len(entries) == text.count("\n@") + text.startswith("@")
    cited = []
    for authors, year in entries:
        names = [name.split(",")[0] for name in authors.split(" and ")]
        cited.append((*(names if len(names) < 3 else [names[0], "et al."]), year))
    assert len(set(cited)) == len(cited)


def test_formulas_and_copy_buttons() -> None:
    assert "//" not in setting("mathjax_path")  # a file of the site
    for line, copied in (
        (">>> x = 1", "x = 1"),
        ("...     y", "    y"),
        ("...", ""),
        ("$ pip install .", "pip install ."),
        ("torch.Size([2])", None),
        ("...and so on", None),
    ):
        match = re.match(f"^({setting('copybutton_prompt_text')})(.*)", line)
        assert (match[2] if match else None) == copied, line


# ---- the check of the built site -------------------------------------------------------------------------------------

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
            ("index.html", '<a href="#nowhere">x</a>', "index.html refers to #nowhere, an anchor that is missing"),
            ("index.html", '<a href="c.html">x</a>', "index.html refers to c.html, which is missing"),
            ("index.html", '<img src="q.png">', "index.html refers to q.png, which is missing"),
            ("index.html", '<script src="https://cdn.example/x.js"></script>', "index.html loads https://cdn.exa"),
            ("index.html", '<link rel="stylesheet" href="//cdn.example/x.css">', "index.html loads //cdn.example"),
            ("index.html", '<p id="a"></p><p id="a"></p>', "index.html: the id 'a' is used 2 times"),
        ]
    ):
        found = site(tmp_path / str(i), {**GOOD, name: text})
        assert len(found) == 1 and found[0].startswith(problem), problem
    assert len(check_site.WORDS) == 20
    generated = {f"reference/{module}" for module in reference.pages()}
    for page in check_site.WORDS.values():
        assert page in generated or (DOCS / f"{page}.md").is_file()
