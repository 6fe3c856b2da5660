"""What bind does when the broker does not answer in time."""

from pathlib import Path

from tests.http.support import body, error, serving


async def test_a_bind_is_answered_although_the_broker_is_down(tmp_path: Path) -> None:
    """200 with the token after the wait of the settings, and ``X-Broker-Synced: false`` says what is missing."""
    async with serving(tmp_path, bind_broker_wait_seconds=0.05) as api:
        device = await api.registered()
        api.broker.switch(up=False)
        answer = await api.back_end.post(f"/v1/devices/{device['id']}/bind", json={"end_user_id": "eu_1"})
        assert answer.headers["x-broker-synced"] == "false"
        body(await api.as_(body(answer, 200)["device_token"]).post("/v1/devices/me/heartbeat"), 200)


async def test_a_bind_is_refused_while_an_old_reset_is_retained(tmp_path: Path) -> None:
    """503 with ``Retry-After``; once the broker is back the same request succeeds."""
    async with serving(tmp_path, bind_broker_wait_seconds=0.05) as api:
        bound = await api.bound()
        await api.reset(bound["id"])
        api.broker.switch(up=False)
        request = {"end_user_id": "eu_2", "supersede_reset": True}
        path = f"/v1/devices/{bound['id']}"
        answer = await api.back_end.post(f"{path}/bind", json=request)
        error(answer, 503, "service_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert body(await api.back_end.get(path), 200)["status"] == "unbound"

    async with serving(tmp_path / "again") as api:
        bound = await api.bound()
        await api.reset(bound["id"])
        api.broker.switch(up=False)
        path = f"/v1/devices/{bound['id']}"
        body(await api.back_end.post(f"{path}/commands/{(await api.reset(bound['id']))['id']}/cancel"), 200)
        api.broker.switch(up=True)
        assert body(await api.back_end.post(f"{path}/bind", json={"end_user_id": "eu_2"}), 200)["status"] == "bound"
