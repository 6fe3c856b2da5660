"""Settings files and errors of the settings tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings.loading import (
    SettingsError,
    load,
)


def toml(text: str, name: str = "gateway.toml") -> Path:
    """A TOML file in the current folder."""
    file = Path(name).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def problems(
    options: dict[str, object], environ: dict[str, str] | None = None, config: Path | None = None
) -> list[str]:
    """What is wrong with these settings, a sentence each."""
    with pytest.raises(SettingsError) as caught:
        load(options, environ or {}, config)
    assert caught.value.message == "\n".join(caught.value.problems)
    return list(caught.value.problems)
