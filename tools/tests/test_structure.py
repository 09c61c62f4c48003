"""The picture of the rooms in the documentation."""

from tools.structure import ROOT, picture


def test_design_has_the_picture_of_the_imports():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert f"```text\n{picture(ROOT)}\n```" in page, "write the text of: python -m tools structure --layers"
