"""Key presses at the terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MOST_BYTES: Final = 64


def at_terminal() -> bool:
    """Return whether a person uses the terminal: output is seen at once, and keys come from there."""
    return sys.stdin.isatty() and sys.stdout.isatty()


@contextmanager
def keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Call ``pressed`` with each character, without echo and without Enter, as long as the block runs.

    Ctrl-C interrupts as ever. At the end the terminal is as it was.
    """
    where = sys.stdin.fileno()
    before = termios.tcgetattr(where)
    loop = asyncio.get_running_loop()

    def read() -> None:
        for character in os.read(where, _MOST_BYTES).decode(errors="ignore"):
            pressed(character)

    tty.setcbreak(where)
    loop.add_reader(where, read)
    try:
        yield
    finally:
        loop.remove_reader(where)
        termios.tcsetattr(where, termios.TCSADRAIN, before)
