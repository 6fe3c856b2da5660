"""A registry of a gateway that had devices show the broker their token: the schema of then, and a bound device."""

import base64
import hashlib
from contextlib import closing
from pathlib import Path

from gateway.store import DATABASE_NAME
from gateway.store.schema import apply
from gateway.store.sqlite.connection import connect, create_private
from tests.support.registry import Bound

THEN = "m021_webhook_rotation"
"""The first step that the gateway of then did not know."""
_SALT = b"twelve bytes"


def former_registry(data_dir: Path, serial: str = "SN-OLD") -> Bound:
    """Make it; its device holds a token that only the registry of then knew how to store."""
    device = Bound("dev_01KAG0000000000000000000LD", 1, "dtok_0123456789ABCDEFGHIJKLMNOPQRSTUVab")
    digest = hashlib.sha512(device.token.encode() + _SALT).digest()
    entry = f"$6${base64.b64encode(_SALT).decode()}${base64.b64encode(digest).decode()}"
    data_dir.mkdir(mode=0o700, parents=True)
    create_private(data_dir / DATABASE_NAME)
    with closing(connect(data_dir / DATABASE_NAME)) as registry:
        apply(registry, stop_before=THEN)
        registry.execute("INSERT INTO projects VALUES ('proj_1', 'default', 1)")
        registry.execute("INSERT INTO signing_keys (kid, private_key, created_at) VALUES ('k1', ?, 1)", (bytes(32),))
        registry.execute(
            """INSERT INTO devices (pk, id, project_id, serial_number, model, end_user_id, binding_generation, bound_at,
                created_at, updated_at) VALUES (?, ?, 'proj_1', ?, 'bota_pin', 'eu_1', 1, 1, 1, 1)""",
            (device.pk, device.id, serial),
        )
        registry.execute(
            """INSERT INTO tokens (device_pk, generation, hash, broker_entry, state, grant_kid, created_at)
                VALUES (?, 1, ?, ?, 'active', 'k1', 1)""",
            (device.pk, hashlib.sha256(device.token.encode()).digest(), entry),
        )
    return device
