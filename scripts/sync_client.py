"""Generator of the blocking client from the client for asyncio: python scripts/sync_client.py."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "gateway" / "client"
NAMES = ("transport", "resets", "events", "jobs", "cells", "client")
WORDS = {
    r"async def ": "def ",
    r"async for ": "for ",
    r"async with ": "with ",
    r"await ": "",
    r"__aenter__": "__enter__",
    r"__aexit__": "__exit__",
    r"\baclose\b": "close",
    r"\baread\b": "read",
    r"\baiter_lines\b": "iter_lines",
    r"\bAsyncIterator\b": "Iterator",
    r"\bAsyncClient\b": "Client",
    r"\bAsyncResetCalls\b": "ResetCalls",
    r"\bAsyncEventCalls\b": "EventCalls",
    r"\bAsyncJobCalls\b": "JobCalls",
    r"\bAsyncCellCalls\b": "CellCalls",
    r"\bAsyncTransport\b": "Transport",
    r"\basync_jobs\b": "sync_jobs",
    r"\basync_cells\b": "sync_cells",
    r"\basync_resets\b": "sync_resets",
    r"\basync_events\b": "sync_events",
    r"\basync_transport\b": "sync_transport",
    r"client for asyncio\. [^\"]*": "client that blocks, made by ``scripts/sync_client.py``.",
}


def made(name: str) -> str:
    """Return the text of the blocking module of this name."""
    text = (FOLDER / f"async_{name}.py").read_text(encoding="utf-8")
    for word, replacement in WORDS.items():
        text = re.sub(word, replacement, text)
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(FOLDER / f"sync_{name}.py"), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout  # noqa: S603 - ruff


if __name__ == "__main__":
    for each in NAMES:
        (FOLDER / f"sync_{each}.py").write_text(made(each), encoding="utf-8")
