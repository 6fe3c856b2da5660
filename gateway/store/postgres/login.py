"""How the gateway connects to a PostgreSQL server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from gateway.core.postgres_address import CONNECT_SECONDS
from gateway.store.postgres.values import register_types, row_factory
from gateway.store.postgres.watchdog import ANSWER_SECONDS

if TYPE_CHECKING:
    from gateway.core.postgres_address import PostgresAddress


def connect(address: PostgresAddress) -> psycopg.Connection[Any]:
    """Connect to the first host that takes writes. A standby is used for nothing, since it may lack the last commits.

    Raises:
        psycopg.Error: no host can be reached, or it refuses the user.
    """
    password = None if address.password is None else address.password.get_secret_value()
    raw = psycopg.connect(
        address.url,
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=CONNECT_SECONDS,
        target_session_attrs="read-write",
        application_name="device-gateway",
        keepalives_idle=10,
        keepalives_interval=3,
        keepalives_count=3,
        tcp_user_timeout=round(ANSWER_SECONDS * 1000),
        cursor_factory=psycopg.ClientCursor,
        row_factory=row_factory,
        password=password,
    )
    register_types(raw)
    return raw
