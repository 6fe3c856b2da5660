"""The page on the architecture names files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
NAMED = re.compile(r"`([a-z_0-9/]+\.py)`")


def test_every_file_that_the_page_names_exists() -> None:
    """The walks are read beside the code, so a moved file must move in the page as well."""
    named = NAMED.findall(PAGE.read_text(encoding="utf-8"))
    assert len(named) > 20
    bases = (ROOT, ROOT / "gateway")
    assert [each for each in named if not any((base / each).exists() for base in bases)] == []
