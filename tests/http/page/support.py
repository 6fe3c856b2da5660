"""Calls that several tests of the page make."""

from tests.http.support import Api, Json, body


async def send_heartbeat(api: Api, bound: Json, **health_fields: object) -> None:
    """A heartbeat of a device that is bound."""
    body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat", json=health_fields), 200)
