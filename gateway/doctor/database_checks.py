"""Checks of a registry on PostgreSQL: the server, settings of it that lose data, rights, schema, and what is in it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from gateway.core.text import count
from gateway.doctor import registry_checks
from gateway.doctor.findings import Area, Finding, Level
from gateway.doctor.host_checks import REGISTRY, size_text
from gateway.errors import UnavailableError
from gateway.store import View, open_reader, replication_sql
from gateway.store.errors import DATABASE_ERRORS, OPENED, store_error
from gateway.store.postgres.steps import STEP_TABLE
from gateway.store.readers import READERS
from gateway.store.replication_sql import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.settings.loading import Settings
    from gateway.store.replication_sql import DatabaseState

DATABASE: Final = Area("database")
OLDEST: Final = 150_000
_GATEWAY_CONNECTIONS: Final = READERS + 2
_COMMIT: Final = "synchronous_commit"
_LOSES: Final = {"fsync": "off", "full_page_writes": "off", _COMMIT: "off"}
"""Settings of the server, each with the value that loses what was accepted when the machine fails."""
_SET_BY: Final = {
    "user": 'ALTER ROLE "{user}" RESET {name}',
    "database": 'ALTER DATABASE "{database}" RESET {name}',
    "database user": 'ALTER ROLE "{user}" IN DATABASE "{database}" RESET {name}',
    "global": "ALTER ROLE ALL RESET {name}",
}
"""What undoes a setting that sessions begin with, by its source in ``pg_settings``."""
_CLOSED_TABLES: Final = f"""SELECT relname FROM pg_catalog.pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
    AND relname <> '{STEP_TABLE}' AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
        AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE')) ORDER BY relname"""  # noqa: S608 - a constant
_BEHIND_BYTES: Final = 64 * 2**20
"""A standby that has more of the log to apply would take over late."""


def database(settings: Settings) -> Iterator[Finding]:
    """Check the database of this setting; one that cannot be reached is the only finding."""
    try:
        with closing(open_reader(settings.registry)) as connection:
            yield from _inside(View(connection), settings)
    except DATABASE_ERRORS as error:
        yield _unreachable(settings, store_error(error, OPENED, again=False))
    except UnavailableError as error:
        yield _unreachable(settings, error)


def _unreachable(settings: Settings, error: UnavailableError) -> Finding:
    return DATABASE.error("reachable", f"{settings.database}: {error.message}", "See 'gateway docs scaling'.")


def _inside(view: View, settings: Settings) -> Iterator[Finding]:
    number = int(view.value("SHOW server_version_num"))
    yield _version(view, number)
    yield from _durability(view)
    yield from _autovacuum(view)
    yield from _standbys(replication_sql.state(view))
    yield _rights(view)
    yield _connections(view)
    if not view.connection.applied_steps():
        yield REGISTRY.error(
            "schema", f"there is no registry in {settings.database}", "'gateway serve' makes a new one."
        )
        return
    yield _tables(view)
    schema = registry_checks.schema_version(view)
    yield schema
    if schema.level is Level.OK:
        size = int(view.value("SELECT pg_database_size(current_database())"))
        yield from registry_checks.contents(view, size, settings.encryption_key_file)


def _version(view: View, number: int) -> Finding:
    told = f"PostgreSQL {view.value('SHOW server_version')}"
    if number < OLDEST:
        return DATABASE.error("version", told, "The gateway needs PostgreSQL 15 or newer: upgrade the server.")
    return DATABASE.ok("version", told)


def _durability(view: View) -> Iterator[Finding]:
    """Check that what the server has confirmed outlives a crash, and a fail-over to a synchronous standby."""
    commit, standbys = view.value(f"SHOW {_COMMIT}"), view.value("SHOW synchronous_standby_names")
    wrong = [name for name, value in _LOSES.items() if view.value(f"SHOW {name}") == value]
    if wrong:
        yield DATABASE.error(
            "durability",
            f"{', '.join(wrong)} is off, so a crash can lose resets that were accepted",
            " ".join(_switch_on(view, name) for name in wrong),
        )
    else:
        waits = standbys and commit != "local"
        says = f"a commit waits for {standbys}" if waits else "a commit is on the disk of this server, and on no other"
        yield DATABASE.ok("durability", says)
    if standbys and commit == "local":
        yield DATABASE.error(
            "fail-over",
            f"{_COMMIT} is local, so no commit waits for {standbys}, and a standby that is promoted can lack resets "
            "that were accepted",
            _switch_on(view, _COMMIT),
        )
    elif standbys and commit == "remote_write":
        yield DATABASE.warning(
            "fail-over",
            f"{_COMMIT} is remote_write, so a commit does not wait for the disk of {standbys}. If that machine fails "
            "together with this one, resets that were accepted can be lost",
            _switch_on(view, _COMMIT),
        )


def _switch_on(view: View, name: str) -> str:
    """Return how to switch this setting on, at the place where it was set for the sessions of this user."""
    undo = _SET_BY.get(view.value("SELECT source FROM pg_settings WHERE name = ?", name))
    if undo is None:
        return f"Set {name} = on in the server's postgresql.conf, and reload it."
    statement = undo.format(
        user=view.value("SELECT session_user"), database=view.value("SELECT current_database()"), name=name
    )
    return f"It is set for the sessions of this user: {statement}. Then restart the gateways."


def _autovacuum(view: View) -> Iterator[Finding]:
    if view.value("SHOW autovacuum") == "off":
        yield DATABASE.warning(
            "autovacuum", "it is off, so tables grow with each change", "Set autovacuum = on in postgresql.conf."
        )


def _standbys(database: DatabaseState) -> Iterator[Finding]:
    """Check the standbys of the server."""
    if database.is_stuck:
        yield DATABASE.error(
            "standby",
            f"each commit waits for a standby ('{database.waits_for}'), and none is there to confirm it",
            "Start the standby, or make another one; to go on without it, empty synchronous_standby_names and reload.",
        )
    for each in database.standbys:
        says = f"{each.name} is {each.sync_state} and has {size_text(each.behind_bytes or 0)} to apply"
        if each.sync_state == UNKNOWN:
            remedy = "To see whether it keeps up: GRANT pg_monitor TO the user of the setting 'database'."
            yield DATABASE.warning("standby", f"{each.name} follows; this user may not see how far", remedy)
        elif (each.behind_bytes or 0) > _BEHIND_BYTES:
            yield DATABASE.warning("standby", says, "Look at the standby's log, its disk and the network to it.")
        else:
            yield DATABASE.ok("standby", says)


def _rights(view: View) -> Finding:
    """Check that this user can apply the schema steps of a later version."""
    allowed = view.value(
        """SELECT CASE WHEN has_database_privilege(current_database(), 'CREATE')
            AND has_schema_privilege(current_schema(), 'CREATE') THEN 1 ELSE 0 END"""
    )
    if allowed:
        return DATABASE.ok("rights", "this user may make tables")
    return DATABASE.warning(
        "rights",
        "this user may not make tables, so an upgrade cannot migrate the registry",
        "Make it the owner of the database: ALTER DATABASE … OWNER TO … ('gateway docs scaling').",
    )


def _tables(view: View) -> Finding:
    """Check that this user may read and write every table of the registry. Those of the schema steps it only reads."""
    closed = [row[0] for row in view.all(_CLOSED_TABLES)]
    if not closed:
        return DATABASE.ok("tables", "this user may read and write all of them")
    return DATABASE.error(
        "tables",
        f"this user may not read and write {count(len(closed), 'table')}, the first {closed[0]}: a gateway answers 503",
        "Make it the owner of the tables: REASSIGN OWNED BY … TO … ('gateway docs scaling').",
    )


def _connections(view: View) -> Finding:
    """Check that the server has room for one more gateway."""
    most = int(view.value("SHOW max_connections"))
    taken = int(view.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"))
    says = f"{taken} of {most} are in use; a gateway takes up to {_GATEWAY_CONNECTIONS}"
    if most - taken < _GATEWAY_CONNECTIONS:
        return DATABASE.warning("connections", says, "Raise max_connections, or put PgBouncer before the server.")
    return DATABASE.ok("connections", says)
