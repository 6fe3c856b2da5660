"""Calls under an ``Idempotency-Key``: their header, their answers, and what the registry holds of them."""

import httpx

from tests.http.support import Api, body


def keyed(key: str) -> dict[str, str]:
    """The header."""
    return {"Idempotency-Key": key}


def same(first: httpx.Response, again: httpx.Response) -> None:
    """The second is the answer of the first, and says so."""
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert "Idempotent-Replay" not in first.headers
    assert again.headers["Idempotent-Replay"] == "true"


async def count(api: Api, sql: str) -> int:
    """A number out of the registry."""
    found: int = await api.store.read(lambda view: view.value(sql))
    return found


async def rebooting(api: Api, device_id: str) -> str:
    """Queue a reboot; its id."""
    command: str = body(await api.back_end.post(f"/v1/devices/{device_id}/commands", json={"type": "reboot"}), 201)[
        "id"
    ]
    return command
