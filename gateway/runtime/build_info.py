"""Version and commit of this program, for reports and for the upgrade page.

The commit comes from the file that the wheel's build writes, from pip's note on a checkout that it installed (PEP 610),
or from the checkout that holds the package.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from gateway import __version__

_PACKAGE: Final = Path(__file__).parent.parent
COMMIT_FILE: Final = "COMMIT"
_SHOWN: Final = 12
_SECONDS: Final = 5


@cache
def commit() -> str | None:
    """Return the shortened commit that this program was built from, or None when it is unknown."""
    found = _of_wheel() or _of_checkout() or _of_installation()
    return found[:_SHOWN] if found else None


def described() -> str:
    """Return version and commit together: ``0.2.0 (0b47c2428cb1)``."""
    return f"{__version__} ({found})" if (found := commit()) else __version__


def _of_wheel() -> str | None:
    with suppress(OSError):
        return (_PACKAGE / COMMIT_FILE).read_text("ascii").strip()
    return None


def _of_checkout() -> str | None:
    root = _PACKAGE.parent
    if not (root / ".git").exists():
        return None
    with suppress(OSError, subprocess.SubprocessError):
        line = ["git", "-C", str(root), "rev-parse", "HEAD"]
        told = subprocess.run(line, capture_output=True, text=True, timeout=_SECONDS, check=True)  # noqa: S603 - a constant command
        return told.stdout.strip()
    return None


def _of_installation() -> str | None:
    with suppress(PackageNotFoundError, ValueError, AttributeError):
        told = json.loads(distribution("device-gateway").read_text("direct_url.json") or "{}")
        found = told.get("vcs_info", {}).get("commit_id")
        return found if isinstance(found, str) else None
    return None
