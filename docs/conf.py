"""Sphinx configuration. Builds offline: no other project's inventory is fetched."""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from docutils.nodes import Element, document
from sphinx.addnodes import desc_signature, pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.fileutil import copy_asset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import _reference
from _side_bar import SIDE_BAR

project = "scoresde"
author = "The scoresde authors"
copyright = "2026, The scoresde authors"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples"]
default_role = "py:obj"

html_theme = "furo"
html_title = "scoresde"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["search.js"]
html_copy_source = False
pygments_dark_style = "github-dark"

# MathJax and its fonts come with the site (`_copy_mathjax`), so that no page asks another host for anything. Its menu
# would load parts that are left out.
MATHJAX = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}, "chtml": {"scale": 0.93}}

# The copy button takes the code of an example, and neither its prompts nor its output.
copybutton_prompt_text = r">>> |\.\.\.(?: |$)|\$ "
copybutton_prompt_is_regexp = True

# Every example is run when the site is built; one that fails is an error. What an example draws is kept for the next
# build, until its text changes.
sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "backreferences_dir": "gallery/backreferences",  # for the pictures on the pages of the reference
    "doc_module": ("scoresde",),
    "filename_pattern": r"\.py",
    "ignore_pattern": r"__init__\.py" if find_spec("diffusers") else r"_diffusers_",  # tested by .ci/peers as well
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("_gallery", "matplotlib"),
    "capture_repr": ("__repr__",),
    "remove_config_comments": True,
    "write_computation_times": False,
    "show_signature": False,
}

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autosummary_generate = False
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Facts", "References", "Differs from", ("Shapes", "params_style")]


def _as_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """A Markdown page as the site shows it: with its part of the side bar, and without the empty line that ends an
    output for doctest."""
    trees = {"": " ".join(f"reference/{module}" for module in _reference.pages())} if docname == "reference" else {}
    for caption, names in (SIDE_BAR.get(docname) or trees).items():
        pages = "\n".join(names.split())
        heading = f":caption: {caption}\n" if caption else ""
        source[0] += f"\n```{{toctree}}\n:hidden:\n{heading}\n{pages}\n```\n"
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def _link_names(app: Sphinx, doctree: document) -> None:
    """The full names of the package in the text of Markdown pages become links."""
    page = app.env.docname
    if Path(app.env.doc2path(page)).suffix == ".md":
        for literal in list(doctree.findall(lambda node: isinstance(node, nodes.literal))):
            name = literal.astext().removesuffix("()")
            if re.fullmatch(r"scoresde(\.\w+)+", name) and not isinstance(literal.parent, nodes.reference):
                link = pending_xref("", refdomain="py", reftype="obj", reftarget=name, refdoc=page)
                literal.replace_self(link)
                link += literal


def _one_signature(app: Sphinx) -> None:
    """Show a function that has overloads by the signature of its own; they would all have one id."""
    for function in filter(inspect.isfunction, map(_reference.value_of, itertools.chain(*_reference.homes().values()))):
        analyzer = ModuleAnalyzer.for_module(function.__module__)
        analyzer.analyze()
        analyzer.overloads.pop(function.__name__, None)


def _name_for_source(app: Sphinx, doctree: document) -> None:
    """The pages of source code link to all objects of a file as names of one module: the package, if it has one."""
    public = {full for names, _ in _reference.pages().values() for full in names}
    for signature in doctree.findall(desc_signature):
        name = f"scoresde.{signature.get('fullname')}"
        if name not in signature["ids"] and public.isdisjoint({name, name.rpartition(".")[0]}):
            signature["ids"].append(name)


def _resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:
    """A reference to a name of the package, or of the module of the page, that was written without it."""
    domain, page = env.get_domain("py"), node["refdoc"]
    for name in _reference.spellings(node["reftarget"], Path(page).name):
        if name in domain.objects:
            return domain.resolve_xref(env, page, app.builder, "obj", name, node, text)
    return None


def _copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copies what the pages load: the package has every variant of MathJax, 24 MB."""
    if error is None and app.builder.format == "html":
        target = Path(app.outdir, "_static", "mathjax")
        fonts = "output/chtml/fonts/woff-v2"
        copy_asset(MATHJAX / "tex-chtml.js", target)
        copy_asset(MATHJAX / fonts, target / fonts)


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", lambda app: _reference.write(Path(app.srcdir, "reference")))
    app.connect("source-read", _as_page)
    app.connect("builder-inited", _one_signature)
    app.connect("doctree-read", _name_for_source)
    app.connect("doctree-read", _link_names)
    app.connect("missing-reference", _resolve)
    app.connect("build-finished", _copy_mathjax)
