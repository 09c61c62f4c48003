"""Checks the built site in a browser: ``python docs/check_site.py`` after a build, or with another folder as argument.

It serves the folder on the loopback and opens every page in a headless Chromium, at three widths. It writes nothing,
prints a summary, and ends with 1 when something fails:

- links, anchors and images within the site lead somewhere, and ids are unique;
- no page asks another host for anything, reports an error, or is wider than the window;
- every formula is typeset;
- the copy buttons of the first guide give the code of its examples, without prompts and outputs;
- the search finds the page for each of 20 words.

The browser is an installed ``chromium`` or ``google-chrome``, or that of ``playwright install chromium``. ``--wide``
lists the pages with code that scrolls sideways in its box in a window of 1280 pixels.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from doctest import DocTestParser
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

WIDTHS = (375, 768, 1280)
# Words that a reader types, and a page that the search must offer for each.
WORDS = {
    "solve": "reference/core.solve",
    "ScoreModel": "reference/scores",
    "VPSDE": "reference/core.sdes",
    "dpmpp_2m": "which_solver",
    "tolerance": "adaptive",
    "diffusers": "coming_from/diffusers",
    "karras": "reference/grids",
    "inpainting": "inverse",
    "guidance": "guidance",
    "classifier": "guidance",
    "posterior": "inference",
    "likelihood": "likelihood",
    "dequantize": "reference/likelihood",
    "bits": "likelihood",
    "trainer": "trainer",
    "preset": "systems",
    "schedule": "training",
    "Stepper": "reference/core.stepper",
    "seeds": "quickstart",
    "MaxStepsError": "reference/core.errors",
}
TYPESET = """() => [document.querySelectorAll('.math').length, document.querySelectorAll('.math mjx-container').length,
    document.querySelectorAll('mjx-merror, .math merror').length]"""
# How far the page, or its column, which a narrow window lets scroll as a whole, can be moved sideways.
BEYOND = """() => Math.max(...[document.documentElement, ...document.querySelectorAll('.content')].map(e => {
    const before = e.scrollLeft;
    e.scrollLeft = 1e6;
    const moved = e.scrollLeft;
    e.scrollLeft = before;
    return moved; }))"""
WIDER = """() => [...document.querySelectorAll('.content *')].filter(e => {
    if (e.getBoundingClientRect().right <= innerWidth + 1) return false;
    for (let up = e.parentElement; !up.matches('.content'); up = up.parentElement)
        if (getComputedStyle(up).overflowX !== 'visible') return false;
    return true; }).slice(-2).map(e => `${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`)"""
SCROLLING = (
    """() => [...document.querySelectorAll('.highlight pre')].filter(e => e.scrollWidth > e.clientWidth + 1).length"""
)


class Page(HTMLParser):
    """What a page of the site refers to, and the ids that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if "id" in values:
            self.ids[values["id"]] += 1
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.loads.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(values["href"])


def broken(site: Path) -> Iterator[str]:
    """What the files of the site refer to and do not have."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        yield from (f"{name}: the id {key!r} is used {n} times" for key, n in page.ids.items() if n > 1)
        for kind, found in (("link", page.links), ("load", page.loads)):
            for url in dict.fromkeys(found):
                parts = urlsplit(url)
                if parts.scheme == "data" or (kind == "link" and parts.scheme):
                    continue
                if parts.scheme or parts.netloc:
                    yield f"{name} loads {url} from another host"
                    continue
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                if not target.is_file():
                    yield f"{name} refers to {url}, which is missing"
                elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                    yield f"{name} refers to {url}, an anchor that is missing"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


class _Visit:
    """One browser window: what it reports, by page."""

    def __init__(self, browser: Any, root: str) -> None:
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
        self.root, self.window, self.problems = root, context.new_page(), list[str]()
        self.window.route("**/*", self._route)
        self.window.on("console", self._console)
        self.window.on("pageerror", lambda error: self._add(f"error: {error}"))
        self.window.on("response", lambda r: self._add(f"{r.status} for {r.url}") if r.status >= 400 else None)
        self.name = ""

    def _add(self, text: str) -> None:
        self.problems.append(f"{self.name}: {text}")

    def _route(self, route: Any) -> None:
        if route.request.url.startswith((self.root, "data:", "blob:")):
            route.continue_()
        else:
            self._add(f"asks for {route.request.url}")
            route.abort()

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self._add(f"console: {message.text}")

    def open(self, name: str) -> None:
        self.name = urldefrag(name).url
        self.window.goto(self.root + name, wait_until="load")

    def typeset(self) -> int:
        """The number of formulas, after all of them are typeset."""
        window = self.window
        if not window.locator(".math").count():
            return 0
        window.wait_for_function("() => window.MathJax && MathJax.startup && MathJax.startup.promise")
        window.evaluate("() => MathJax.startup.promise.then(() => true)")
        formulas, done, errors = window.evaluate(TYPESET)
        if done < formulas or errors:
            self._add(f"{formulas - done} of {formulas} formulas are not typeset, {errors} have errors")
        return int(formulas)

    def widths(self) -> dict[int, int]:
        """The number of code blocks that scroll in their boxes, by the width of the window."""
        scrolling = {}
        for width in WIDTHS:
            self.window.set_viewport_size({"width": width, "height": 900})
            if (beyond := self.window.evaluate(BEYOND)) > 0:
                self._add(f"is {beyond} pixels too wide for a window of {width}: {self.window.evaluate(WIDER)}")
            scrolling[width] = self.window.evaluate(SCROLLING)
        return scrolling

    def copied(self) -> None:
        """Whether the copy buttons of a page give the code of its examples, without prompts and outputs."""
        blocks = self.window.locator("div.highlight-python")
        if not blocks.count():
            self._add("has no examples")
        for block in map(blocks.nth, range(blocks.count())):
            block.hover()
            block.locator("button.copybtn").click()
            given = self.window.evaluate("() => navigator.clipboard.readText()")
            shown = block.locator("pre").inner_text()
            try:
                code = "".join(example.source for example in DocTestParser().get_examples(shown))
            except ValueError as error:
                self._add(f"an example is malformed: {error}")
                continue
            told = "\n".join(line for line in given.splitlines() if not line.startswith("#"))  # as the parser has it
            if told.split() != code.split():
                self._add(f"its copy button gives {given!r} of {shown!r}")

    def search(self, word: str, page: str) -> None:
        self.open(f"search.html?q={word}")
        window = self.window
        window.wait_for_function(
            "() => /Search finished|did not match/.test(document.querySelector('#search-results').innerText)"
        )
        found = window.eval_on_selector_all(
            "#search-results ul.search a", "all => all.map(a => a.getAttribute('href'))"
        )
        if not any(urlsplit(url).path.removesuffix(".html").endswith(page) for url in found):
            self._add(f"does not find {page} ({len(found)} pages)")


def check(site: Path, wide: bool = False) -> list[str]:
    """Everything that is wrong with a site; prints what was looked at."""
    from playwright.sync_api import sync_playwright

    problems = list(broken(site))
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    flags = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    formulas, scrolling = 0, dict[str, dict[int, int]]()
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=installed, args=flags)
            visit = _Visit(browser, f"http://127.0.0.1:{server.server_port}/")
            for name in names:
                visit.open(name)
                formulas += visit.typeset()
                scrolling[name] = visit.widths()
            visit.open("quickstart.html")
            visit.copied()
            for word, page in WORDS.items():
                visit.search(word, page)
            browser.close()
    finally:
        server.shutdown()
    guides = {name: row for name, row in scrolling.items() if not name.startswith("_modules/")}
    counts = ", ".join(f"{sum(row[w] for row in guides.values())} at {w}" for w in WIDTHS)
    print(f"{len(names)} pages at {', '.join(map(str, WIDTHS))} pixels, {formulas} formulas, {len(WORDS)} words")
    print(f"code blocks that scroll in their boxes, without the pages of source code: {counts}")
    if wide:
        print(*(f"  {row[1280]:3d}  {name}" for name, row in guides.items() if row[1280]), sep="\n")
    return list(dict.fromkeys(problems + visit.problems))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("site", nargs="?", type=Path, default=Path(__file__).parent / "_build" / "html")
    parser.add_argument("--wide", action="store_true", help="list the pages with code that scrolls sideways in its box")
    chosen = parser.parse_args()
    if not (chosen.site / "index.html").is_file():
        print(f"{chosen.site} has no index.html: build the site first", file=sys.stderr)
        return 1
    problems = check(chosen.site.resolve(), chosen.wide)
    print(*problems, sep="\n")
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
