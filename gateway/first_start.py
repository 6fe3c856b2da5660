"""What a gateway needs before it can do anything: its id, a signing key, a project."""

from __future__ import annotations

from contextlib import closing

from gateway import grants, ids
from gateway.settings import Settings
from gateway.store import Context, Tx, keys, open_database, transact


def first_start(settings: Settings) -> tuple[str, str]:
    """Make what is missing; the ids of the gateway and of its first project."""
    with closing(open_database(settings.data_dir)) as connection:
        return transact(connection, Context(), lambda tx: _own_facts(tx, settings))


def _own_facts(tx: Tx, settings: Settings) -> tuple[str, str]:
    gateway_id = settings.gateway_id or keys.meta(tx, "gateway_id") or tx.new_id(ids.GATEWAY)
    keys.set_meta(tx, "gateway_id", gateway_id)
    grants.ensure_key(tx)
    projects = keys.projects(tx)
    return gateway_id, projects[0]["id"] if projects else keys.create_project(tx, "default")
