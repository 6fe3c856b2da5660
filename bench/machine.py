"""Machine of the benchmark: cores and versions, no names, and the processor time that other programs used."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import sqlite3
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, Self

from broker_config import local

_IDLE, _WAITING = 3, 4  # idle and iowait among the columns of /proc/stat, proc(5)
_LIBRARIES: Final = ("aiomqtt", "amqtt", "pydantic", "starlette", "uvicorn")
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Machine:
    """Properties of the machine that are needed to compare figures."""

    cores: int
    system: str
    filesystem: str
    """File system of the databases; on tmpfs nothing is written to a disk."""

    versions: dict[str, str]

    def __str__(self) -> str:
        """Return one line."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return f"{self.cores} cores, {self.system}, {self.filesystem}, {versions}"


async def this_machine(directory: Path) -> Machine:
    """Return this machine; the databases are in ``directory``."""
    versions = {
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "Mosquitto": await _mosquitto_version(),
        **{name: version(name) for name in _LIBRARIES},
    }
    return Machine(
        len(os.sched_getaffinity(0)), f"{platform.system()} {platform.machine()}", _filesystem(directory), versions
    )


@dataclass(frozen=True)
class Usage:
    """Busy processor seconds since the machine started, and those of the benchmark among them."""

    total: float
    busy: float
    ours: float

    @classmethod
    def now(cls) -> Self:
        """Return the usage now. Call it while no child of the benchmark runs: only ended children are counted."""
        columns = [int(column) for column in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        total, idle = sum(columns), columns[_IDLE] + columns[_WAITING]
        each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        ours = sum(usage.ru_utime + usage.ru_stime for usage in each)
        return cls(total / _TICKS_PER_SECOND, (total - idle) / _TICKS_PER_SECOND, ours)

    def others_since(self, earlier: Usage, also_ours: float = 0.0) -> float:
        """Return the share of all cores (0 to 1) that other programs have kept busy since then.

        ``also_ours``: processor seconds of programs of the benchmark that are not its children.
        """
        others = (self.busy - earlier.busy) - (self.ours - earlier.ours) - also_ours
        return max(0.0, others / (self.total - earlier.total))


def _filesystem(directory: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(len(point), kind) for point, kind in mounts if directory.is_relative_to(point)]
    return max(above, default=(0, "unknown file system"))[1]


async def _mosquitto_version() -> str:
    process = await asyncio.create_subprocess_exec(local.binary(), "-h", stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return said.decode().split()[2]
