"""PostgreSQL as the engine of a store: any number of gateways, each with its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway import __version__
from gateway.errors import StoreError
from gateway.store.errors import PostgresError, store_error
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.postgres.steps import STEP_TABLE, STEPS, names

if TYPE_CHECKING:
    from gateway.store.postgres.address import PostgresAddress

OLDEST_SERVER: Final = 150_000
"""PostgreSQL 15 (contract, section 6), as ``server_version_num`` has it."""


class PostgresEngine:
    """The registry in this database."""

    def __init__(self, address: PostgresAddress) -> None:
        self._address = address

    def open(self, *, to_serve: bool = False) -> PostgresConnection:  # noqa: ARG002 - every opening migrates
        """Open a connection that writes; make the tables of a new registry.

        Raises:
            StoreError: the server is away, too old or refuses the user, or the registry has the schema of another
                version.
        """
        return open_registry(self._address)

    def open_writer(self) -> PostgresConnection:
        """Open the store's connection that writes.

        Raises:
            StoreError: as above.
        """
        return self.open()

    def open_reader(self) -> PostgresConnection:
        """Return a connection that only reads. It connects when it is first used."""
        return PostgresConnection(self._address)

    def committed(self) -> None:
        """Do nothing: the server keeps its own log."""

    def stop(self) -> None:
        """Do nothing: nothing runs beside the writer."""


def open_registry(address: PostgresAddress) -> PostgresConnection:
    """Return a connection to the registry; its missing schema steps are applied first.

    Raises:
        StoreError: the server is away, too old or refuses the user, or a newer gateway has written the registry.
    """
    connection = PostgresConnection(address)
    try:
        _require_server(connection)
        _apply_missing(connection, address)
    except PostgresError as error:
        connection.close()
        raise store_error(error, "opened") from error
    except StoreError:
        connection.close()
        raise
    return connection


def _require_server(connection: PostgresConnection) -> None:
    number = connection.server_version()
    if number < OLDEST_SERVER:
        raise StoreError(
            f"The PostgreSQL server has the version {number // 10_000}, and the gateway needs "
            f"{OLDEST_SERVER // 10_000} or newer. Upgrade the server, or name another one in the setting 'database'."
        )


def _apply_missing(connection: PostgresConnection, address: PostgresAddress) -> None:
    newer = max(connection.applied_steps() - set(names()), default=None)
    if newer is not None:
        raise StoreError(
            f"The registry in {address} was written by a newer gateway (it has {newer}), and this version "
            f"{__version__} would not keep its rules. Nothing was changed. Install the newer version again."
        )
    for name, statements in STEPS.items():
        connection.begin()  # two gateways that start at once apply a step once
        try:
            if name not in connection.applied_steps():
                _apply(connection, name, statements)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _apply(connection: PostgresConnection, name: str, statements: tuple[str, ...]) -> None:
    connection.execute(
        f"""CREATE TABLE IF NOT EXISTS {STEP_TABLE}
            (name text COLLATE "C" PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"""
    )
    for statement in statements:
        connection.execute(statement)
    connection.execute(f"INSERT INTO {STEP_TABLE} (name) VALUES (?)", (name,))  # noqa: S608 - a constant
