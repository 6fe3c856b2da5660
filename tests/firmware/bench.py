"""One MicroPython process with a device in it, driven over standard input and output by `scripts/bench.py`."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.firmware.micropython import HEAP, SCRIPTS, command, environment

Action = list[Any]


class Board:
    """A device on MicroPython: `start` it with a flash, `give` it events, look at what it did."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._started = 0
        self.state = ""
        self.sent: list[Action] = []

    def start(self, wiped: Mapping[str, Any], kept: Mapping[str, Any]) -> list[Action]:
        """Power a new device on whose flash holds these values."""
        self._started += 1
        self.sent = []
        return self._done("start", str(self._folder / f"flash-{self._started}"), wiped, kept)[0]

    def give(self, event: Any, now: int | None, cut: int | None = None) -> list[Action]:
        """Give one event; with `cut`, the power goes before the action of this number and comes back at once."""
        actions, is_cut = self._done("event", now, event, cut)
        return actions + (self._done("power_on", None)[0] if is_cut else [])

    def try_to(self, event: Any, now: int, power_for: int) -> tuple[int, bool]:
        """Give one event, or `["power_on"]`, with power for so many actions; return how many, and if the power went."""
        order = ("power_on", power_for) if event == ["power_on"] else ("event", now, event, power_for)
        actions, is_cut = self._done(*order)
        return len(actions), is_cut

    def flash(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the values of both areas: what a reset wipes, and what it keeps."""
        wiped, kept = self._ask("flash")
        return wiped, kept

    def heap(self) -> int:
        """Return the bytes of the heap that are in use after a collection."""
        return int(self._ask("heap"))

    def _done(self, *order: Any) -> tuple[list[Action], bool]:
        actions, is_cut = self._ask(*order)
        self.sent += [action for action in actions if action[0] == "publish"]
        return actions, is_cut

    def _ask(self, *order: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order, ensure_ascii=False) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line.startswith("["), f"MicroPython ended: {line}{self._process.stdout.read()}{self._errors()}"
        answer, self.state = json.loads(line)
        return answer

    def _errors(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.read()


@contextmanager
def board(folder: Path, *, heap: str = HEAP) -> Iterator[Board]:
    """Run a board until the block ends. Its flashes are in `folder`."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command(SCRIPTS / "bench.py", heap=heap), stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment()
    )
    with process:
        yield Board(process, folder)
        assert process.stdin is not None
        process.stdin.close()
        errors = process.stderr.read() if process.stderr is not None else ""
        assert process.wait() == 0, errors


def acknowledged(actions: list[Action]) -> list[tuple[str, str | None]]:
    """Return status and error code of each acknowledgement among the actions."""
    said = [json.loads(action[2]) for action in actions if action[:2] == ["publish", "ack"]]
    return [(each["status"], each.get("error", {}).get("code")) for each in said]


def written(actions: list[Action]) -> set[str]:
    """Return the names of the values that the actions write to the flash."""
    return {action[2] for action in actions if action[0] == "write"}
