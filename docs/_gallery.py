"""What the gallery shows beside figures of pyplot: those of `scoresde.plot` in axes of their own, and animations."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

_shown: WeakSet[Figure] = WeakSet()


def pictures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """The variables of an example that are figures, and the animations that it wrote, each once, as reST.

    It runs before the scraper of pyplot's figures, which shows those that have a manager and takes it from them.
    """
    made: list[str] = []
    paths = block_vars["image_path_iterator"]
    for figure in list(block_vars["example_globals"].values()):
        if isinstance(figure, Figure) and figure not in _shown:
            _shown.add(figure)
            if figure.canvas.manager is None:
                made.append(next(paths))
                figure.savefig(made[-1])
    for film in sorted(Path(block_vars["src_file"]).parent.glob("*.gif")):
        made.append(str(Path(next(paths)).with_suffix(film.suffix)))
        shutil.move(film, made[-1])
    return figure_rst(made, gallery_conf["src_dir"]) if made else ""


def _get_sg_image_scraper() -> Callable[..., str]:
    return pictures
