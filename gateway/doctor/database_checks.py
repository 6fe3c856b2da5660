"""Checks of a registry on PostgreSQL: the server, settings of it that lose data, rights, schema, and what is in it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from gateway.doctor import registry_checks
from gateway.doctor.findings import Area, Finding, Level
from gateway.doctor.host_checks import REGISTRY, size_text
from gateway.errors import UnavailableError
from gateway.store import View, open_reader, replication_sql
from gateway.store.errors import DATABASE_ERRORS, OPENED, store_error
from gateway.store.readers import READERS
from gateway.store.replication_sql import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.settings.loading import Settings
    from gateway.store.replication_sql import DatabaseState

DATABASE: Final = Area("database")
OLDEST: Final = 150_000
_GATEWAY_CONNECTIONS: Final = READERS + 2
_LOSES: Final = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""Settings of the server, each with the value that loses what was accepted when the machine fails."""
_BEHIND_BYTES: Final = 64 * 2**20
"""A standby that has more of the log to apply would take over late."""


def database(settings: Settings) -> Iterator[Finding]:
    """Check the database of this setting; one that cannot be reached is the only finding."""
    try:
        with closing(open_reader(settings.registry)) as connection:
            yield from _inside(View(connection), settings)
    except DATABASE_ERRORS as error:
        yield _unreachable(settings, store_error(error, OPENED))
    except UnavailableError as error:
        yield _unreachable(settings, error)


def _unreachable(settings: Settings, error: UnavailableError) -> Finding:
    return DATABASE.error("reachable", f"{settings.database}: {error.message}", "See 'gateway docs scaling'.")


def _inside(view: View, settings: Settings) -> Iterator[Finding]:
    number = int(view.value("SHOW server_version_num"))
    yield _version(view, number)
    yield from _durability(view)
    yield from _standbys(replication_sql.state(view))
    yield _rights(view)
    yield _connections(view)
    if not view.connection.applied_steps():
        yield REGISTRY.error(
            "schema", f"there is no registry in {settings.database}", "'gateway serve' makes a new one."
        )
        return
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
    """Check that the server writes what it has confirmed."""
    wrong = [name for name, value in _LOSES.items() if view.value(f"SHOW {name}") == value]
    if wrong:
        yield DATABASE.error(
            "durability",
            f"{', '.join(wrong)} is off, so a crash can lose resets that were accepted",
            f"Set {', '.join(f'{name} = on' for name in wrong)} in the server's postgresql.conf, and reload it.",
        )
    else:
        standbys = view.value("SHOW synchronous_standby_names")
        yield DATABASE.ok(
            "durability",
            f"a commit waits for {standbys}" if standbys else "a commit is on the disk of this server, and on no other",
        )
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


def _connections(view: View) -> Finding:
    """Check that the server has room for one more gateway."""
    most = int(view.value("SHOW max_connections"))
    taken = int(view.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"))
    says = f"{taken} of {most} are in use; a gateway takes up to {_GATEWAY_CONNECTIONS}"
    if most - taken < _GATEWAY_CONNECTIONS:
        return DATABASE.warning("connections", says, "Raise max_connections, or put PgBouncer before the server.")
    return DATABASE.ok("connections", says)
