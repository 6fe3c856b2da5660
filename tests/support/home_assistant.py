"""A real Home Assistant for the tests, in a virtual environment of its own inside ours: it wants its own versions.

It is installed by the first test that asks (a minute or two), from hash-pinned `tests/home_assistant/requirements.txt`.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "home_assistant"
WATCH = SOURCE / "watch.py"
_REQUIREMENTS = SOURCE / "requirements.txt"
_PYTHONS = ("python3.12", "python3.13")
_INSTALL_SECONDS = 900.0


class HomeAssistantMissingError(AssertionError):
    """It cannot be installed here; the message says what is missing."""


def python() -> str:
    """The Python that has Home Assistant."""
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]
    made = Path(sys.prefix) / f"home-assistant-{digest}"
    with (Path(sys.prefix) / ".home-assistant.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pytest's workers come at once
        if not (made / ".done").exists():
            shutil.rmtree(made, ignore_errors=True)
            _install(made)
            (made / ".done").touch()
    return str(made / "bin" / "python")


def _install(made: Path) -> None:
    """Without a pip in it, and without compiling the thousands of files that the tests never import."""
    _run(_base(), "-m", "venv", "--without-pip", str(made))
    pip = (sys.executable, "-m", "pip", "--python", str(made / "bin" / "python"), "--disable-pip-version-check")
    _run(*pip, "install", "--quiet", "--no-compile", "--no-deps", "--require-hashes", "-r", str(_REQUIREMENTS))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    if done.returncode:
        raise HomeAssistantMissingError(f"Home Assistant could not be installed:\n{done.stdout}{done.stderr}")


def _base() -> str:
    """A Python 3.12 or 3.13: this one, one on the PATH, or one of pyenv's."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [
        sys.executable,
        *filter(None, map(shutil.which, _PYTHONS)),
        *map(str, sorted(kept.glob("3.1[23]*/bin/python"))),
    ]
    for each in found:
        if _version(each) in ("3.12", "3.13"):
            return each
    raise HomeAssistantMissingError(
        "Home Assistant needs a Python 3.12 or 3.13, and none was found: install one with its venv module, so that "
        "python3.12 or python3.13 is on the PATH ('uv python install --default 3.12' and pyenv do that too)"
    )


def _version(program: str) -> str:
    """As `3.12`; empty when it does not run (pyenv leaves stand-ins on the PATH)."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        shown = subprocess.run(
            [program, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return shown.stdout.strip()
    return ""
