"""The pages of the reference, made from ``scoresde.__all__`` and the ``__all__`` of its modules when the site is built.

One page belongs to one module. A name of ``scoresde`` itself stands on the page of the module that defines it, under
the name by which it is imported. A name that several modules offer is documented once, on the first of these pages.
"""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import scoresde

# The order of the pages; a module that the list lacks follows in the order of the alphabet.
ORDER = (
    "core.solve core.solution scores core.sdes core.loop core.stepper solvers grids core.controllers core.noise "
    "guidance inverse likelihood core.latents core.simulate tuning sets trust paths interop targets losses training "
    "presets nets discrete zoo plot testing core.errors"
)


def homes() -> dict[str, list[str]]:
    """The modules in the order of their pages, each with the full names that it offers."""
    found: dict[str, list[str]] = {name: [] for name in ORDER.split()}
    for name in scoresde.__all__:
        value = getattr(scoresde, name)
        if isinstance(value, ModuleType):
            found.setdefault(name, []).extend(f"scoresde.{name}.{key}" for key in value.__all__)
        else:
            found.setdefault(page_of(value.__module__), []).insert(0, f"scoresde.{name}")
    for name, home in scoresde._MOVED.items():
        found.setdefault(page_of(f"scoresde{home}"), []).append(f"scoresde{home}.{name}")
    return {name: sorted(set(names), key=lambda n: (n.count("."), n)) for name, names in found.items() if names}


def page_of(module: str) -> str:
    """The page of what a module defines: that of its room, or of the part of the core."""
    return re.sub(r"^scoresde\.((?:core\.)?\w+).*", r"\1", module)


def value_of(full: str) -> Any:
    """The object with a full name."""
    module, _, name = full.rpartition(".")
    return getattr(importlib.import_module(module), name)


@cache
def pages() -> dict[str, tuple[list[str], dict[str, str]]]:
    """The modules, each with the names that its page documents, and those that another page does (name: there)."""
    everything = homes()
    documented: dict[object, str] = {}
    # An object is documented as a name of the package itself, or else by the name that it gives itself.
    for full in sorted((full for names in everything.values() for full in names), key=_rank):
        documented.setdefault(_key(full), full)
    return {
        module: (
            [full for full in names if documented[_key(full)] == full],
            {full: documented[_key(full)] for full in names if documented[_key(full)] != full},
        )
        for module, names in everything.items()
    }


def _rank(full: str) -> tuple[int, bool]:
    return full.count("."), full.rpartition(".")[2] != getattr(value_of(full), "__name__", None)


def _key(full: str) -> object:
    """What tells objects apart; equal texts and numbers are not one object."""
    value = value_of(full)
    return full if isinstance(value, str | int | float) else id(value)


def spellings(target: str, module: str) -> list[str]:
    """The full names that a name on the page of a module may stand for: the package's, the module's, another's."""
    documented = {name: there for _, elsewhere in pages().values() for name, there in elsewhere.items()}
    others = pages() if target[:1].isupper() else ()
    names = [target, *(f"scoresde.{place}{target}" for place in ("", f"{module}.", *(f"{m}." for m in others)))]
    return [documented.get(name, name) for name in names]


def sentence(module: str) -> str:
    """The first sentence of a module's docstring; of the code that it names otherwise, if it has none."""
    found = importlib.import_module(f"scoresde.{module}")
    if found.__doc__:
        return _first(found.__doc__)
    places = {getattr(getattr(found, name), "__module__", None) for name in found.__all__} - {None}
    place = places.pop() if len(places) == 1 else min(places).rpartition(".")[0]
    return f"Other names of what is in ``{place}``: {_first(importlib.import_module(place).__doc__)}"


def _first(text: str | None) -> str:
    paragraph = " ".join((text or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[.])\s+(?=[A-Z`])", paragraph)[0]


def overview() -> str:
    """The table of the modules."""
    rows = []
    for module, (names, _) in pages().items():
        of_package = ", ".join(f"`{name}`" for name in names if name.count(".") == 1)
        what = re.sub(r":math:`([^`]+)`", r"$\1$", sentence(module)).replace("``", "`").replace("|", "\\|")
        rows.append(f"| `scoresde.{module}` | {what} | {of_package} |\n")
    return "| module | what it is for | names of `scoresde` itself |\n|---|---|---|\n" + "".join(rows)


def page(module: str, names: list[str], elsewhere: dict[str, str]) -> str:
    """A page, as reStructuredText: the module, a table of its names, and each name."""
    title = f"scoresde.{module}"
    parts = [title, "=" * len(title), "", _directive("automodule", title, "no-members")]
    listed = [full for full in names if _kind(full) != "data"]
    parts += [".. py:currentmodule:: None", "", ".. autosummary::", "   :nosignatures:", ""]
    parts += [*(f"   {full}" for full in listed), ""]
    if values := ", ".join(f"`{full}`" for full in names if full not in listed):
        parts += [f"Values: {values}.", ""]
    if others := ", ".join(f"``{name}`` is `{there}`" for name, there in elsewhere.items()):
        parts += [f"Other names: {others}.", ""]
    return "\n".join([*parts, *map(_documented, names), *_gallery(names)])


@cache
def _examples() -> list[str]:
    """The texts of the gallery's programs."""
    return [path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parent / "examples").glob("*.py"))]


def _gallery(names: list[str]) -> list[str]:
    """Pictures that lead to the examples with these names, but not with those that nearly every example has."""
    uses = {
        full: sum(re.search(rf"\b{'[.]'.join(full.split('.')[-2:])}\b", text) is not None for text in _examples())
        for full in names
    }
    if chosen := [full for full, number in uses.items() if 0 < number <= len(_examples()) / 3]:
        return ["In the gallery", "--------------", "", f".. minigallery:: {' '.join(chosen)}", ""]
    return []


def _kind(full: str) -> str:
    value = value_of(full)
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isroutine(value) else "data"


def _documented(full: str) -> str:
    options = {"exception": ["show-inheritance"], "class": ["members", "show-inheritance"], "function": []}
    if (kind := _kind(full)) == "data":
        return f".. py:data:: {full}\n\n   {_shown(value_of(full))}\n"
    return _directive(f"auto{kind}", full, *options[kind])


def _shown(value: Any) -> str:
    """A constant in a sentence."""
    if hasattr(value, "keys"):
        return "A dictionary with the keys " + ", ".join(f"``{key!r}``" for key in value) + "."
    if isinstance(value, tuple):
        if all(map(callable, value)):
            return f"A tuple of {len(value)} functions."
        return "A tuple of " + ", ".join(f"``{getattr(part, 'name', repr(part))}``" for part in value) + "."
    return f"``{re.sub(r'(typing|collections[.]abc)[.]', '', repr(value))}``"


def _directive(kind: str, name: str, *options: str) -> str:
    return "\n".join([f".. {kind}:: {name}", *(f"   :{option}:" for option in options), ""])


def write(folder: Path) -> None:
    """Write the pages that changed, and remove those of modules that are gone."""
    folder.mkdir(exist_ok=True)
    texts = {f"{module}.rst": page(module, *names) for module, names in pages().items()}
    for old in set(folder.glob("*.rst")) - {folder / name for name in texts}:
        old.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
