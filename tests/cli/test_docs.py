"""``gateway docs``: the pages of this version, in a checkout and from the wheel, and the messages that name them."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.cli.docs import pages

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"'gateway docs ([a-z/-]+)'")
FILE = re.compile(r"\bdocs/[\w/-]+\.md")


def test_the_list_names_every_page(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each file below docs/, with its title."""
    assert main(["docs"]) == 0
    out = capsys.readouterr().out
    names = {file.relative_to(ROOT / "docs").with_suffix("").as_posix() for file in (ROOT / "docs").rglob("*.md")}
    assert {line.split("  ")[0] for line in out.splitlines()[1:]} == names
    assert re.search(r"^tls +TLS$", out, re.MULTILINE)


@pytest.mark.parametrize("name", ["tls", "tls.md", "docs/tls.md"])
def test_a_page_is_markdown_through_a_pipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By its name, or as a person copies it from elsewhere; the notes for the tests are left out."""
    assert main(["docs", name]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# TLS\n")
    assert "<!--" not in out


def test_an_unknown_page_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """It says what was meant, or how to list them."""
    assert main(["docs", "mosqito"]) == 2
    assert "Did you mean 'mosquitto'?" in capsys.readouterr().err
    assert main(["docs", "../pyproject"]) == 2
    assert "'gateway docs' lists them" in capsys.readouterr().err


def _strings(path: Path) -> Iterator[str]:
    """The string constants of a module, docstrings left out except in the command line, where they are help texts."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            is_help = path.parent.name == "cli" and not isinstance(node, ast.Module)
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and not is_help:
                docstrings.add(id(first.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def _shown() -> Iterator[tuple[str, str]]:
    """What a person without a checkout can see: messages, help, and the files that are written for brokers."""
    for package in ("gateway", "device_sim", "broker_config"):
        for path in sorted((ROOT / package).rglob("*")):
            if path.suffix == ".py":
                yield from ((str(path.relative_to(ROOT)), text) for text in _strings(path))
            elif path.suffix in {".conf", ".toml", ".yaml", ".service"}:
                yield str(path.relative_to(ROOT)), path.read_text("utf-8")


def test_messages_name_pages_of_the_wheel() -> None:
    """Each ``gateway docs PAGE`` in a message is a page, and no message sends a person to a file of the checkout."""
    named = {(where, name) for where, text in _shown() for name in NAMED.findall(text)}
    assert len(named) > 10
    assert [(where, name) for where, name in sorted(named) if name not in pages()] == []
    files = [(where, FILE.findall(text)) for where, text in _shown() if FILE.search(text)]
    assert [each for each in files if each[0] not in WRITERS] == []


WRITERS = {"gateway/http/spec/reference.py", "gateway/cli/docs_commands.py", "gateway/cli/docs_settings.py"}
"""Modules that write files of the checkout's docs."""


def test_the_wheel_carries_the_pages(tmp_path: Path) -> None:
    """Built from the checkout and unpacked elsewhere, ``gateway docs`` reads what the wheel brought."""
    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    _python(*build, "--wheel-dir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    listed = _python("-m", "gateway", "docs", path=installed)
    assert {line.split("  ")[0] for line in listed.splitlines()[1:]} == set(pages())
    place = _python("-c", "import gateway.cli.docs as d; print(next(iter(d.pages().values())))", path=installed)
    assert place.startswith(str(installed))
    # The wheel also names the commit that it was built from, far from the checkout.
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    told = _python("-m", "gateway", "--version", path=installed)
    assert f"commit {head.stdout.strip()[:12] or 'unknown'}" in told


def _python(*arguments: str, path: Path | None = None) -> str:
    environment = {**os.environ, "COLUMNS": "120"} | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
