"""Fixtures of the settings tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default data directory, and with it its gateway.toml, is looked for in the current folder."""
    monkeypatch.chdir(tmp_path)
