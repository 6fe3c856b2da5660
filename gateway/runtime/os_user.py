"""The operating system's user behind the command line, for the audit trail."""

from __future__ import annotations

import os
import pwd
from typing import Final

_LONGEST: Final = 64


def os_user() -> str:
    """Return the user of this process, and the one who became it by sudo, if sudo says so.

    A user without an entry in the password database is named by number: ``uid 10001``.
    """
    user = _name(os.getuid())
    behind = os.environ.get("SUDO_USER", "") if os.getuid() == 0 else ""
    return f"{user} (sudo by {behind[:_LONGEST]})" if behind else user


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name[:_LONGEST]
    except KeyError:
        return f"uid {uid}"
