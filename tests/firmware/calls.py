"""Calls functions of the firmware on MicroPython, many in one process: `scripts/calls.py`."""

import json
from collections.abc import Iterable
from typing import Any

from tests.firmware.micropython import SCRIPTS, said

REFUSED = "ValueError"


def call(name: str, *arguments: Any) -> Any:
    """Return the result of one call, or `REFUSED`."""
    (answer,) = calls((name, *arguments))
    return answer


def calls(*wanted: tuple[Any, ...], heap: str = "128k") -> list[Any]:
    """Return the results of these calls, each a name and its arguments, in order."""
    return [_result(line) for line in said(SCRIPTS / "calls.py", stdin="".join(_lines(wanted)), heap=heap)]


def _lines(wanted: Iterable[tuple[Any, ...]]) -> Iterable[str]:
    for name, *arguments in wanted:
        yield json.dumps([name, [_shown(each) for each in arguments]]) + "\n"


def _shown(value: Any) -> Any:
    return f"hex:{value.hex()}" if isinstance(value, bytes) else value


def _result(line: str) -> Any:
    answer = json.loads(line)
    if isinstance(answer, dict):
        return REFUSED
    (value,) = answer
    return bytes.fromhex(value[4:]) if isinstance(value, str) and value.startswith("hex:") else value
