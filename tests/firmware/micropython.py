"""Runs scripts on a real MicroPython, its Unix port, which the development dependencies install."""

import os
import subprocess
import sys
from pathlib import Path

FIRMWARE = Path(__file__).parents[2] / "firmware" / "micropython"
SCRIPTS = Path(__file__).parent / "scripts"
MICROPYTHON = Path(sys.executable).with_name("micropython")
HEAP = "128k"


def command(script: Path | str, *arguments: str | Path, heap: str = HEAP) -> list[str]:
    """Return the command line that runs a script with a heap of this size."""
    assert MICROPYTHON.exists(), f"{MICROPYTHON} is missing: install requirements-dev.lock"
    return [str(MICROPYTHON), "-X", f"heapsize={heap}", str(script), *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Return the environment in which `import` finds the firmware and what MicroPython has built in."""
    return {**os.environ, "MICROPYPATH": f"{FIRMWARE}:{FIRMWARE}/lib:{SCRIPTS}:.frozen", **more}


def run(
    script: Path | str, *arguments: str | Path, heap: str = HEAP, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, whatever its exit status is."""
    return subprocess.run(
        command(script, *arguments, heap=heap),
        input=stdin,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


def said(script: Path | str, *arguments: str | Path, heap: str = HEAP, stdin: str = "") -> list[str]:
    """Run a script that must succeed, and return the lines that it printed."""
    done = run(script, *arguments, heap=heap, stdin=stdin)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()
