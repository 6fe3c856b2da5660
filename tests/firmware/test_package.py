"""The firmware as a folder that is copied to a board: it stands alone."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.firmware.micropython import FIRMWARE

DEVICE = sorted(FIRMWARE.glob("*.py"))
LIBRARIES = sorted((FIRMWARE / "lib").glob("*.py"))
FILES = DEVICE + LIBRARIES + sorted((FIRMWARE.parent / "examples").glob("*.py"))
MOST_LINES = 855
"""Lines of code of the device; the fewer, the easier to port."""
MOST_LINES_OF_LIBRARIES = 322
"""The same of JSON, signatures and MQTT, which a port takes from its platform."""
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
BUILT_IN = {"asyncio", "binascii", "errno", "gc", "hashlib", "json", "machine", "micropython", "network", "os"}
BUILT_IN |= {"random", "select", "socket", "ssl", "struct", "sys", "time", "tls"}
OPTIONAL = {"aioble", "bluetooth", "monocypher", "ntptime"}
"""What some boards have; each import of one is in a `try`, or in the file that is for such boards only."""
PURE = ("device", "grant", "wire", "strict_json", "ed25519", "sha512", "product")


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
    (file,) = (each for each in DEVICE + LIBRARIES if each.stem == name)
    assert imported(file) <= {"binascii", "hashlib", "monocypher", *PURE}


def lines_of_code(text: str) -> int:
    """Count the lines that hold code: no blank lines, no comments, no docstrings."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
    texts = [node for node in nodes if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)]
    docstrings = {line for node in texts for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    tokens = [each for each in tokenize.generate_tokens(io.StringIO(text).readline) if each.type not in NO_CODE]
    return len({line for each in tokens for line in range(each.start[0], each.end[0] + 1)} - docstrings)


def lines_of(files: list[Path]) -> dict[str, int]:
    """The lines of code of each file."""
    return {file.name: lines_of_code(file.read_text(encoding="utf-8")) for file in files}


def test_the_libraries_need_nothing_of_the_device() -> None:
    """So a port can replace them one by one."""
    needed = {name for file in LIBRARIES for name in imported(file)}
    assert needed <= BUILT_IN | OPTIONAL | {each.stem for each in LIBRARIES}


def test_lines_of_code_are_counted() -> None:
    """A statement over two lines counts as two; comments and docstrings do not count."""
    assert (
        lines_of_code('"""Doc."""\n\n# note\ndef f(\n):  # note\n    """Doc.\n\n    More."""\n    return """a\nb"""\n')
        == 4
    )


def test_the_device_is_small() -> None:
    """It stays below its bound, and so do its libraries; docs/micropython.md tells the lines of each file."""
    device, libraries = lines_of(DEVICE), lines_of(LIBRARIES)
    assert sum(device.values()) <= MOST_LINES, device
    assert sum(libraries.values()) <= MOST_LINES_OF_LIBRARIES, libraries
    page = (FIRMWARE.parents[1] / "docs" / "micropython.md").read_text(encoding="utf-8")
    told = {name: int(number) for name, number in re.findall(r"^\| `(\w+\.py)` \|.*\| (\d+) \|$", page, re.MULTILINE)}
    assert told == device | libraries
