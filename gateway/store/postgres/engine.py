"""PostgreSQL as the engine of a store: any number of gateways, each with its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway import __version__
from gateway.errors import ConflictError, NotFoundError, StoreError
from gateway.store.errors import OPENED, PostgresError, store_error
from gateway.store.postgres.connection import PostgresConnection
from gateway.store.postgres.steps import STEP_TABLE, STEPS, names
from gateway.store.postgres.watchdog import ANSWER_SECONDS, Watchdog
from gateway.store.transaction import rollback

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.postgres_address import PostgresAddress

OLDEST_SERVER: Final = 150_000
"""PostgreSQL 15 (contract, section 6), as ``server_version_num`` has it."""


_COUNTED: Final = ("devices", "health", "commands")
"""Tables whose triggers keep the counts of devices. A move copies without them: each row would update one row."""
MOVING: Final = "zz_moving_"
"""Begins the name of a step that no gateway knows: it keeps them from a registry that is not complete."""


class PostgresEngine:
    """The registry in this database."""

    is_local = False

    def __init__(self, address: PostgresAddress) -> None:
        self._address = address
        self._watchdog = Watchdog()

    def open(self, *, to_serve: bool = False) -> PostgresConnection:
        """Open a connection that writes; make the tables of a new registry. An older one is migrated ``to_serve``.

        Raises:
            StoreError: the server is away, too old or refuses the user, or the registry has the schema of another
                version.
        """
        return self._opened(lambda connection: _bring_up(connection, self._address, to_serve=to_serve))

    def open_existing(self) -> PostgresConnection:
        """Open a connection that writes to a registry that is there.

        Raises:
            NotFoundError: the database is empty.
            StoreError: as above.
        """

        def prepare(connection: PostgresConnection) -> None:
            if not connection.applied_steps():
                raise NotFoundError(
                    f"There is no registry in {self._address}. Name the gateway's database with --database (or "
                    "GATEWAY_DATABASE); 'gateway serve' makes a new registry."
                )
            _bring_up(connection, self._address, to_serve=False)

        return self._opened(prepare)

    def migrate(self) -> tuple[str, str]:
        """Apply the missing steps to a registry that is there; return its newest step before and after.

        Raises:
            NotFoundError: the database is empty.
            StoreError: as above.
        """
        found: list[str] = []

        def prepare(connection: PostgresConnection) -> None:
            found.extend(sorted(connection.applied_steps())[-1:])
            if found:
                _bring_up(connection, self._address, to_serve=True)

        self._opened(prepare).close()
        if not found:
            raise NotFoundError(f"There is no registry in {self._address}: 'gateway serve' makes a new one.")
        return found[0], names()[-1]

    def open_for_move(self, state: str | None) -> PostgresConnection:
        """Open an empty database, or one with an unfinished move, as the target of a move.

        ``state`` is that of the source; None: nothing is made.

        Raises:
            ConflictError: the database holds a registry, or a move of another source or state.
            StoreError: as above.
        """
        connection = self._opened(lambda each: _require_target(each, self._address, state))
        connection.patience = None
        return connection

    def finish_move(self, connection: PostgresConnection) -> None:
        """Open the target of a move to gateways, in the transaction that is open. Its devices are counted by now."""
        _let_triggers(connection, "ENABLE")
        connection.execute(f"DELETE FROM {STEP_TABLE} WHERE name LIKE ?", (f"{MOVING}%",))  # noqa: S608 - a constant

    def open_writer(self) -> PostgresConnection:
        """Open the store's connection that writes.

        Raises:
            StoreError: as above.
        """
        return self.open()

    def open_reader(self) -> PostgresConnection:
        """Return a connection that only reads. It connects when it is first used."""
        return PostgresConnection(self._address, self._watchdog)

    def open_renewer(self) -> PostgresConnection:
        """Return a connection that writes beside the store's. It connects when it is first used."""
        return PostgresConnection(self._address, self._watchdog)

    def committed(self) -> None:
        """Do nothing: the server keeps its own log."""

    def stop(self) -> None:
        """End the watchdog."""
        self._watchdog.stop()

    def _opened(self, prepare: Callable[[PostgresConnection], object]) -> PostgresConnection:
        connection = PostgresConnection(self._address, self._watchdog)
        connection.patience = None
        try:
            _require_server(connection)
            prepare(connection)
        except PostgresError as error:
            connection.close()
            raise store_error(error, OPENED, again=False) from error
        except BaseException:
            connection.close()
            raise
        connection.patience = ANSWER_SECONDS
        return connection


def open_registry(address: PostgresAddress) -> PostgresConnection:
    """Return a connection to the registry; its missing schema steps are applied first.

    Raises:
        StoreError: the server is away, too old or refuses the user, or a newer gateway has written the registry.
    """
    return PostgresEngine(address).open(to_serve=True)


def _require_server(connection: PostgresConnection) -> None:
    number = connection.server_version()
    if number < OLDEST_SERVER:
        raise StoreError(
            f"The PostgreSQL server has the version {number // 10_000}, and the gateway needs "
            f"{OLDEST_SERVER // 10_000} or newer. Upgrade the server, or name another one in the setting 'database'."
        )


def _bring_up(connection: PostgresConnection, address: PostgresAddress, *, to_serve: bool) -> None:
    applied = connection.applied_steps()
    newer = max(applied - set(names()), default=None)
    if newer is not None and newer.startswith(MOVING):
        raise StoreError(
            f"The registry in {address} is moved there and not yet complete. Run 'gateway migrate' again, which goes "
            "on, or drop that database."
        )
    if newer is not None:
        raise StoreError(
            f"The registry in {address} was written by a newer gateway (it has {newer}), and this version "
            f"{__version__} would not keep its rules. Nothing was changed. Install the newer version again."
        )
    if not applied:
        _require_empty(connection, address)
    elif len(applied) < len(STEPS) and not to_serve:
        raise StoreError(
            f"The registry in {address} has the schema {max(applied)}, older than the {names()[-1]} of this gateway "
            f"{__version__}. Nothing was changed. Restart a gateway with this version: it migrates the registry when "
            "it starts. 'gateway migrate-schema' does the same ('gateway docs scaling')."
        )
    if len(applied) < len(STEPS):
        _apply_missing(connection)


def _require_target(connection: PostgresConnection, address: PostgresAddress, state: str | None) -> None:
    applied = connection.applied_steps()
    mark = next((name for name in applied if name.startswith(MOVING)), None)
    if applied and mark is None:
        raise ConflictError(
            "registry_exists", f"The database {address} holds a registry. Nothing was changed. Name an empty database."
        )
    if mark is None:
        _require_empty(connection, address)
    if state is None:
        return
    if mark is not None and mark != MOVING + state:
        raise ConflictError(
            "move_of_another_state",
            f"The database {address} holds an unfinished move of another registry, or of this one before it changed. "
            "Nothing was changed. Drop that database, create it again, and start over.",
        )
    if mark is None:
        connection.begin()
        _make_step_table(connection)
        connection.execute(f"INSERT INTO {STEP_TABLE} (name) VALUES (?)", (MOVING + state,))  # noqa: S608 - a constant
        connection.execute("COMMIT")
    _apply_missing(connection)
    _let_triggers(connection, "DISABLE")


def _let_triggers(connection: PostgresConnection, verb: str) -> None:
    for table in _COUNTED:
        connection.execute(f"ALTER TABLE {table} {verb} TRIGGER USER")


def _require_empty(connection: PostgresConnection, address: PostgresAddress) -> None:
    """Refuse a database with the tables of another program: a registry has its database for itself."""
    found = [
        row[0]
        for row in connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename LIMIT 3"
        )
    ]
    if found and STEP_TABLE not in found:  # another gateway makes it at this moment
        raise StoreError(
            f"The database {address} holds tables that are not a registry's ({', '.join(found)}). Nothing was changed. "
            "Create an empty database for the registry, and name it in the setting 'database'."
        )


def _apply_missing(connection: PostgresConnection) -> None:
    for name, statements in STEPS.items():
        connection.begin()  # two gateways that start at once apply a step once
        try:
            if name not in connection.applied_steps():
                _apply(connection, name, statements)
            connection.execute("COMMIT")
        except BaseException:
            rollback(connection)
            raise


def _make_step_table(connection: PostgresConnection) -> None:
    connection.execute(
        f"""CREATE TABLE IF NOT EXISTS {STEP_TABLE}
            (name text COLLATE "C" PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"""
    )


def _apply(connection: PostgresConnection, name: str, statements: tuple[str, ...]) -> None:
    _make_step_table(connection)
    for statement in statements:
        connection.execute(statement)
    connection.execute(f"INSERT INTO {STEP_TABLE} (name) VALUES (?)", (name,))  # noqa: S608 - a constant
