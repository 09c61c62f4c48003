"""Sphinx configuration. Builds offline: no other project's inventory is fetched."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import scoresde

project = "scoresde"
author = "The scoresde authors"
copyright = "2026, The scoresde authors"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "scoresde"
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Facts", "References", "Differs from", ("Shapes", "params_style")]


def _directive(kind: str, name: str, *options: str) -> str:
    return "\n".join([f".. {kind}:: {name}", *(f"   :{option}:" for option in options), ""])


def api_reference() -> str:
    """The reference of every public name, as MyST text: what ``scoresde.__all__`` lists, in groups."""
    groups: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": [], "Modules": [], "Values": []}
    for name in getattr(scoresde, "__all__", ()):
        value = getattr(scoresde, name)
        full = f"scoresde.{name}"
        if isinstance(value, ModuleType):
            groups["Modules"].append(f"### {full}\n\n" + _eval(_directive("automodule", full, "members")))
        elif inspect.isclass(value) and issubclass(value, BaseException):
            groups["Errors"].append(_eval(_directive("autoexception", full, "show-inheritance")))
        elif inspect.isclass(value):
            groups["Classes"].append(_eval(_directive("autoclass", full, "members", "show-inheritance")))
        elif callable(value):
            groups["Functions"].append(_eval(_directive("autofunction", full)))
        elif not name.startswith("__"):
            groups["Values"].append(f"`{full}`: `{value!r}`\n")
    return "\n".join(f"## {title}\n\n" + "\n".join(parts) for title, parts in groups.items() if parts)


def _eval(text: str) -> str:
    return f"```{{eval-rst}}\n{text}```\n"


def _fill_api_page(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == "api":
        source[0] = source[0].replace("<!-- api -->", api_reference())


def setup(app: Sphinx) -> None:
    app.connect("source-read", _fill_api_page)
