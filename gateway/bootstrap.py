"""Bootstrap of a gateway: its id, a signing key, a project, and the rules from its settings."""

from __future__ import annotations

import math
import os
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

import structlog

from gateway.core import ids
from gateway.core.clock import SECOND_MS
from gateway.domain import epoch, grants
from gateway.domain.commands import renew_grants
from gateway.errors import StoreError
from gateway.runtime.sealing import Vault, vault_of
from gateway.settings.loading import Settings
from gateway.settings.types import HOME
from gateway.store import (
    DATABASE_NAME,
    Context,
    Rules,
    Tx,
    View,
    backup,
    epoch_sql,
    key_sql,
    open_database,
    open_existing,
    open_reader,
    open_to_serve,
    outbox_sql,
    secret_sql,
    transact,
)
from gateway.store.errors import DATABASE_ERRORS
from gateway.store.position_file import note_position, read_position
from gateway.store.sqlite.lock import holder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.store.epoch_sql import Position

log = structlog.get_logger()

_PER_INTERVAL: Final = 10
"""Messages of each kind that a device may always send between two heartbeats."""


def first_start(settings: Settings, *, to_serve: bool = False) -> tuple[str, str]:
    """Make what is missing; return the ids of the gateway and of its first project.

    A registry that was put back by hand begins a new epoch, unless another process serves it now. ``to_serve``: the
    caller holds the data directory, so an older registry may be migrated.

    Raises:
        StoreError: the registry cannot be opened, or is not the one that this data directory belongs to.
    """
    data_dir, context = settings.data_dir, Context(vault=vault_of(settings.encryption_key_file))
    _require_own(settings)
    with closing((open_to_serve if to_serve else open_database)(settings.registry)) as connection:
        if holder(data_dir) not in (None, os.getpid()):
            return transact(connection, context, lambda tx: _own_facts(tx, settings))
        noted = read_position(data_dir)
        secret_sql.leave_no_traces(connection)
        sealed = transact(connection, context, secret_sql.settle)
        facts = transact(connection, context, lambda tx: _settled(tx, settings, noted))
        if sealed:
            secret_sql.empty_log(connection)
            log.info("secrets.encrypted", secrets=sealed, key=context.vault.key_id, in_the_clear=_copies(settings))
        if to_serve or settings.database is None:
            note_position(data_dir, View(connection))
    return facts


def _require_own(settings: Settings) -> None:
    """Refuse a database that is not the one that this data directory was used with, before anything is made there.

    On SQLite both are in one place: another registry there is a copy that was put back (:mod:`gateway.domain.epoch`).
    """
    if settings.database is None:
        return
    try:
        with closing(open_reader(settings.registry)) as connection:
            found = epoch_sql.registry_id(View(connection)) if connection.applied_steps() else ""
    except DATABASE_ERRORS:
        return  # the opening says what is wrong
    noted, where = read_position(settings.data_dir), f"the data directory {settings.data_dir}"
    if found == "" and (settings.data_dir / DATABASE_NAME).exists():
        raise StoreError(
            f"The database {settings.database} is empty, and {where} holds a registry of SQLite ({DATABASE_NAME}). "
            "Nothing was changed. Move that one ('gateway migrate --to URL'), or begin with another data directory "
            "(--data-dir)."
        )
    if noted is not None and found not in (None, noted.registry_id):
        raise StoreError(
            f"The database {settings.database} holds {f'the registry {found}' if found else 'no registry'}, and "
            f"{where} was used with the registry {noted.registry_id}. Nothing was changed. Name the right database in "
            "the setting 'database', or use another data directory with --data-dir."
        )


def _copies(settings: Settings) -> list[str]:
    """Return the names of older copies beside the registry, which still hold secrets in the clear."""
    return [each.name for each in backup.copies_beside(settings.data_dir)] if settings.database is None else []


@contextmanager
def settled(settings: Settings, vault: Vault) -> Iterator[None]:
    """Check the registry as :func:`first_start` does, run the block, then note the registry's position.

    This is for a process that writes to the registry of a stopped gateway. A running gateway does both itself, and so
    do the gateways of a database.
    """
    data_dir = settings.data_dir
    if settings.database is not None or holder(data_dir) is not None:
        yield
        return
    with closing(open_database(data_dir)) as connection:
        noted = read_position(data_dir)
        if epoch.put_back(View(connection), noted):
            transact(connection, Context(vault=vault), lambda tx: epoch.settle(tx, noted))
        note_position(data_dir, View(connection))
    try:
        yield
    finally:
        if holder(data_dir) is None:
            with closing(open_existing(data_dir)) as connection:
                note_position(data_dir, View(connection))


def _settled(tx: Tx, settings: Settings, noted: Position | None) -> tuple[str, str]:
    epoch.settle(tx, noted, shared=settings.database is not None)
    renewed = renew_grants(tx)
    if renewed:
        log.info("commands.signed_again", commands=renewed, reason="an older version signed neither params nor seq")
    return _own_facts(tx, settings)


def _own_facts(tx: Tx, settings: Settings) -> tuple[str, str]:
    gateway_id = _name(tx, settings)
    key_sql.set_meta(tx, "gateway_id", gateway_id)
    grants.ensure_key(tx)
    projects = key_sql.projects(tx)
    return gateway_id, projects[0].id if projects else key_sql.create_project(tx, "default")


def _name(tx: Tx, settings: Settings) -> str:
    """Return the name under which this registry is known at brokers and to devices.

    Several gateways share it. So on PostgreSQL it stays as it is, whatever a gateway calls itself.
    """
    kept, given = key_sql.meta(tx, "gateway_id"), settings.gateway_id
    return (kept or given if settings.is_shared else given or kept) or tx.new_id(ids.GATEWAY)


def _mirrored(settings: Settings) -> dict[str, bool]:
    return {outbox_sql.STATE: settings.publish_state, outbox_sql.DISCOVERY: settings.home_assistant}


def _messages_per_second(settings: Settings) -> int:
    """Return the budget of messages a second: the setting, or more for devices with short heartbeat intervals."""
    most = settings.device_messages_per_second
    return max(most, math.ceil(_PER_INTERVAL / settings.heartbeat_interval_seconds)) if most else 0


def rules_of(settings: Settings, gateway_id: str) -> Rules:
    """Return the rules for devices that these settings give."""
    silence_seconds = settings.heartbeat_interval_seconds * settings.offline_after_intervals
    return Rules(
        gateway_id=gateway_id,
        models=tuple(settings.models),
        silence_ms=round(silence_seconds * SECOND_MS),
        offline_grace_ms=round(settings.offline_grace_seconds * SECOND_MS),
        heartbeat_raw_days=settings.heartbeat_raw_days,
        heartbeat_history_days=settings.heartbeat_history_days,
        event_history_days=settings.event_history_days,
        refusals_kept=settings.refusals_kept,
        bulk_reset_per_second=settings.bulk_reset_per_second,
        device_messages_per_second=_messages_per_second(settings),
        device_events_per_hour=settings.device_events_per_hour,
        delivery_history_days=settings.delivery_history_days,
        webhook_allow_private=settings.webhook_allow_private,
        webhook_allow_loopback=settings.webhook_allow_loopback,
        mirrored=tuple(detail for detail, on in _mirrored(settings).items() if on),
        assigns_homes=settings.cells == HOME,
        state_refresh_ms=round(settings.state_refresh_seconds * SECOND_MS),
    )
