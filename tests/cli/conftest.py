"""The fixtures of the command line's tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.cli.support import Cli


@pytest.fixture
def empty(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    """The command line on a directory without a registry; its logging leaves that of the tests alone."""
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("gateway.runtime.log.configure", lambda *_, **__: None)
    with structlog.testing.capture_logs():
        yield Cli(tmp_path / "data", capsys)


@pytest.fixture
def cli(empty: Cli) -> Cli:
    """The command line on a registry with one project and one key, ``backend``."""
    empty("keys", "create", "--name", "backend")
    return empty


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program runs at a terminal; questions are asked by ``click``'s own prompt."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
