"""Pages whose examples use another package are tests of it: marked ``peers``, and skipped where it is missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGES = {
    "azula.md": "azula",
    "diffusers.md": "diffusers",
    "flow_matching.md": "flow_matching",
    "k_diffusion.md": "k_diffusion",
    "sbi.md": "sbi",
}
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        package = PACKAGES.get(item.path.name) if item.path.parent == HERE else None
        if package is not None:
            item.add_marker("peers")
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # the package's own
            if find_spec(package) is None:
                item.add_marker(pytest.mark.skip(reason=f"{package} is not installed"))


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Packages that write logs to the current folder, as sbi does, write them to a temporary one."""
    monkeypatch.chdir(tmp_path)
