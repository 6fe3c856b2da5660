"""The firmware as a folder that is copied to a board: it stands alone."""

import ast
from pathlib import Path

import pytest

from tests.firmware.micropython import FIRMWARE

FILES = sorted(FIRMWARE.glob("*.py"))
BUILT_IN = {"asyncio", "binascii", "errno", "gc", "hashlib", "json", "machine", "micropython", "network", "os"}
BUILT_IN |= {"random", "select", "socket", "ssl", "struct", "sys", "time", "tls"}
OPTIONAL = {"aioble", "bluetooth", "monocypher", "ntptime"}
"""What some boards have; each import of one is in a `try`, or in the file that is for such boards only."""
PURE = ("device", "records", "grant", "wire", "strict_json", "ed25519", "sha512", "product")


def imported(file: Path) -> set[str]:
    """The first part of every name that a file imports."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {
        name.split(".")[0] for name in plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_needs_micropython_and_this_folder_only(file: Path) -> None:
    """Nothing of the gateway, of the simulator or of a package index."""
    assert imported(file) <= BUILT_IN | OPTIONAL | {each.stem for each in FILES}


@pytest.mark.parametrize("name", PURE)
def test_the_state_machine_does_no_io(name: str) -> None:
    """Clock, network and files come from outside, so it runs in tests as on a board."""
    assert imported(FIRMWARE / f"{name}.py") <= {"binascii", "hashlib", "monocypher", *PURE}
