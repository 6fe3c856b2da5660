"""Checks that the users of the units can reach their directory and run their program."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.setup.file_templates import mosquitto_program, own_program

if TYPE_CHECKING:
    from gateway.setup.options import DeploymentPlan, SystemAccount

_SECONDS: Final = 30
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_ELSEWHERE: Final = (
    "Install the gateway where every user can run it, and run this again with that one: python3 -m venv "
    "/opt/device-gateway && /opt/device-gateway/bin/pip install device-gateway"
)


def problems(site: DeploymentPlan) -> list[str]:
    """Return what of the units would fail, a sentence or two for each; empty when all is well."""
    found = []
    for account in dict.fromkeys((site.gateway, site.broker)):
        closed = closed_to(account, site.directory)
        if closed is not None:
            found.append(
                f"The user {account.name} cannot enter {closed}, and so cannot reach {site.directory}. Put the set "
                f"where that user can (/srv/device-gateway), or: chmod o+x {closed}"
            )
    program = own_program()
    reason = cannot_run(site.gateway, shlex.split(program), privileged=site.privileged)
    if reason is not None:
        found.append(
            f"device-gateway.service starts {program}, and the user {site.gateway.name} cannot run that: {reason}. "
            f"{_ELSEWHERE}"
        )
    mosquitto = Path(mosquitto_program())
    if not mosquitto.exists():
        found.append(
            f"device-gateway-mosquitto.service starts {mosquitto}, which is not there. Install it: apt-get install "
            "mosquitto"
        )
    elif (closed := closed_to(site.broker, mosquitto)) is not None:
        found.append(
            f"device-gateway-mosquitto.service starts {mosquitto}, and the user {site.broker.name} cannot run that: "
            f"{closed} is closed to it."
        )
    return found


def cannot_run(account: SystemAccount, program: list[str], *, privileged: bool) -> str | None:
    """Return why this user cannot run the program, or None. Only root can try it; otherwise its path is checked."""
    closed = closed_to(account, Path(program[0]))
    if closed is not None:
        return f"{closed} is closed to it"
    return _try(account, [*program, "--version"]) if privileged else None


def _try(account: SystemAccount, line: list[str]) -> str | None:
    try:
        tried = subprocess.run(  # noqa: S603 - this program itself
            line,
            user=account.uid,
            group=account.gid,
            extra_groups=os.getgrouplist(account.name, account.gid),
            env=_ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except OSError as error:
        return f"{error.strerror}; the interpreter that its first line names may be closed to it"
    except subprocess.TimeoutExpired:
        return f"'{shlex.join(line)}' did not end within {_SECONDS} s"
    if tried.returncode == 0:
        return None
    said = tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"]
    return f"'{shlex.join(line)}' said: {said[-1]}"


def closed_to(account: SystemAccount, path: Path) -> Path | None:
    """Return the first part of this path that the user may not enter, or may not run where it is the file."""
    if account.uid == 0:
        return None
    groups = set(os.getgrouplist(account.name, account.gid))
    for each in (*reversed(path.parents), path):
        with suppress(FileNotFoundError):
            status = each.stat()
            if status.st_uid == account.uid:
                needed = stat.S_IXUSR
            else:
                needed = stat.S_IXGRP if status.st_gid in groups else stat.S_IXOTH
            if not status.st_mode & needed:
                return each
    return None
