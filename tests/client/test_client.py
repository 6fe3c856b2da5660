"""The Python client: both of its kinds live a device's life over a socket, and it has a method for every operation."""

import ast
import asyncio
import base64
import hashlib
import hmac
import sys
from pathlib import Path

import httpx
import pytest

from gateway.client import ApiError, AsyncClient, Client
from gateway.client.arguments import DeviceChanges, DeviceFilters, JobOptions, ResetFilters, WebhookChanges
from gateway.http.resources.operations import OPERATIONS
from gateway.models import webhooks
from gateway.models.devices import ListDevices, UpdateDevice
from gateway.models.job_requests import CreateJob
from gateway.models.reset_list import ListResets
from tests.http.support import Api
from tests.support import generated
from tests.support.snippets import run_by

ROOT = Path(__file__).parents[2]
SIGN_IN = {"get_sign_in_options", "get_session", "end_session"}
BY_OTHER_MEANS = {"get_metrics", "get_openapi", "get_asyncapi", "delete_command"} | SIGN_IN
"""Text, the documents, the second way to cancel, and what only a browser with a session can do."""


def receipt(token: str, command_id: str, status: str, generation: int) -> str:
    """What only the holder of the token can make (contract, section 3)."""
    key = hashlib.sha256(token.encode()).digest()
    made = hmac.digest(key, f"{command_id}|{status}|{generation}".encode(), "sha256")
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def test_every_operation_has_a_method() -> None:
    """By its name; and the two clients have the same ones."""
    ours = {name for name in dir(Client) if not name.startswith("_")}
    assert {each.id for each in OPERATIONS} - BY_OTHER_MEANS - ours == set()
    theirs = {name for name in dir(AsyncClient) if not name.startswith("_")}
    assert {"close"} == ours - theirs
    assert {"aclose"} == theirs - ours


def test_method_parameters_match_the_operation() -> None:
    """Filters and changes, field by field."""
    paging = {"limit", "cursor", "offset", "total"}
    assert set(DeviceFilters.__annotations__) == set(ListDevices.model_fields) - paging
    assert set(ResetFilters.__annotations__) == set(ListResets.model_fields) - paging
    assert set(DeviceChanges.__annotations__) == set(UpdateDevice.model_fields)
    named = {"name", "action", "targets", "dry_run"}
    assert set(JobOptions.__annotations__) == set(CreateJob.model_fields) - named
    assert set(WebhookChanges.__annotations__) == set(webhooks.UpdateWebhook.model_fields)


@pytest.mark.parametrize("name", ["jobs", "cells", "client", "resets", "transport"])
async def test_the_blocking_client_is_generated_from_the_async_one(name: str) -> None:
    """As ``scripts/sync_client.py`` writes it."""
    program = (
        f"import sys; sys.path.insert(0, 'scripts'); import sync_client; print(sync_client.made('{name}'), end='')"
    )
    made = await generated.run(sys.executable, "-c", program, folder=ROOT)
    assert (ROOT / "gateway" / "client" / f"sync_{name}.py").read_text(encoding="utf-8") == made


async def test_the_blocking_client_makes_calls(api: Api) -> None:
    """All of a device's life, a page at a time, and what is refused."""
    await asyncio.to_thread(live, api.url, api.key)


def live(url: str, key: str) -> None:
    """In a thread, as a program without asyncio would."""
    with Client(url, key) as gateway:
        device = gateway.register_device("BP-1", name="Ward 3", metadata={"a": 1}, once="first")
        assert gateway.register_device("BP-1", name="Ward 3", metadata={"a": 1}, once="first").id == device.id
        changed = gateway.update_device(device.id, name=None, settings={"audio": {"bitrate_kbps": 64}})
        assert (changed.name, changed.metadata, changed.settings["audio"]["bitrate_kbps"]) == (None, {"a": 1}, 64)
        bound = gateway.bind_device(device.id, "eu_42")
        command = gateway.create_command(device.id, "reboot", ttl_seconds=60)
        assert gateway.cancel_command(device.id, command.id).status == "cancelled"
        assert gateway.list_commands(device.id, kind="reboot", status="cancelled").data[0].id == command.id
        job = gateway.create_job("recall", "reboot", {"device_ids": [device.id]}, abort=None, once="job")
        assert gateway.pause_job(job.id).status == "paused"
        assert gateway.resume_job(job.id).abort is None
        (target,) = gateway.iterate_job_devices(job.id, outcome=["waiting", "failed"])
        assert (target.device_id, gateway.list_jobs(status="running").data[0].id) == (device.id, job.id)
        assert gateway.cancel_job(job.id).status == gateway.get_job(job.id).status == "cancelled"
        assert gateway.preview_job("recall", "reboot", {"filter": {}}).counts == {"would_queue": 1}
        gateway.reset_device(device.id)
        with Client(url, bound.device_token) as own:
            (reset,) = own.send_heartbeat({"battery_percent": 50, "flags": 8}).commands or []
            for status in ("delivered", "executed"):
                signed = receipt(bound.device_token, reset.id, status, reset.binding_generation)
                assert own.acknowledge_command(reset.id, status, receipt=signed).status == status
        assert gateway.get_command(device.id, reset.id).executed_at
        (done,) = gateway.list_resets(status="executed", time="finished_at", device_id=device.id).data
        assert gateway.list_device_resets(device.id, limit=1).data == [done] == list(gateway.iterate_resets())
        certificate = gateway.get_certificate(device.id, reset.id)
        assert (certificate.id, certificate.claims.outcome) == (done.certificate_id, "executed")
        assert (done.command_id, gateway.summarize_resets().finished.executed) == (reset.id, 1)
        assert gateway.get_state(device.id).connection == "online"
        assert gateway.list_device_events(device.id, limit=1).has_more
        hook = gateway.create_webhook("https://example.com/hook", events=["device.bound"])
        assert gateway.update_webhook(hook.id, enabled=False).enabled is False
        assert [each.id for each in gateway.list_webhooks().data] == [gateway.delete_webhook(hook.id).id]
        assert gateway.get_device_stats().total_count == 1
        assert gateway.get_readiness().broker.kind
        assert gateway.get_health().status == "healthy"
        gateway.delete_device(device.id)
        with pytest.raises(ApiError, match="register the device") as refused:
            gateway.get_device(device.id)
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (404, "not_found", None)
        assert refused.value.request_id
        assert gateway.restore_device(device.id).status == "unbound"


async def test_the_async_client_makes_calls(api: Api) -> None:
    """It reads all pages, follows the events, and sends a query as the API takes it."""
    async with AsyncClient(api.url, api.key) as gateway:
        ids = [(await gateway.register_device(f"BP-{number}", name=f"bed {number}")).id for number in range(3)]
        page = await gateway.list_devices(limit=2, total=True, sort="name", order="desc")
        assert ([each.id for each in page.data], page.total) == (ids[:0:-1], 3)
        assert [each.id async for each in gateway.iterate_devices(sort="serial_number")] == ids
        assert [each.id async for each in gateway.iterate_devices(search="bed 1")] == ids[1:2]
        for device_id in ids[1:]:
            assert (await gateway.update_device(device_id, add_tags=["pilot", "a"])).tags == ["a", "pilot"]
        assert [each.id async for each in gateway.iterate_devices(tag=["a", "pilot"])] == ids[:0:-1]
        assert (await gateway.get_device_stats(tag=["pilot"])).total_count == 2
        newest = (await gateway.list_events(limit=1)).data[0]
        events = gateway.stream_events(last_event_id=newest.id, kind="device.bound")
        following = asyncio.ensure_future(anext(aiter(events)))
        await gateway.bind_device(ids[0], "eu_1")
        event = await following
        assert (event.type, event.data["device_id"]) == ("device.bound", ids[0])
        outcomes = (await gateway.bulk_reset(ids, dry_run=True)).data
        assert {each.outcome for each in outcomes} == {"would_reset"}
        with pytest.raises(ApiError) as refused:
            await gateway.bind_device(ids[0], "eu_2")
        assert refused.value.code == "device_already_bound"
        lines = [each["kind"] async for each in gateway.export_end_user("eu_1")]
        assert (lines[0], lines[-1]) == ("end_user", "end")
        await gateway.unbind_device(ids[0])
        assert (await gateway.erase_end_user("eu_1")).counts.bindings == 1
        assert refused.value.details["end_user_id"] == "eu_1"


async def test_a_server_that_is_not_a_gateway_is_an_error(api: Api) -> None:
    """An answer that is not the gateway's has a separate code; no answer is an error of httpx."""

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncClient(f"http://127.0.0.1:{port}", api.key) as gateway:
            with pytest.raises(ApiError, match="is no gateway") as refused:
                await gateway.get_key()
            assert (refused.value.code, refused.value.status) == ("unexpected_answer", 502)
    async with AsyncClient("http://127.0.0.1:9", api.key) as gateway:
        with pytest.raises(httpx.ConnectError):
            await gateway.get_key()


async def test_the_documentation_example_runs(api: Api, tmp_path: Path) -> None:
    """Five of them, as they stand there but for address and key."""
    (block,) = run_by("client", ROOT / "docs" / "client.md")
    snippet = block.code
    assert len([node for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.stmt)]) == 5
    program = snippet.replace("http://127.0.0.1:8080", api.url).replace("sk_live_…", api.key)
    await generated.run(sys.executable, "-c", program, folder=tmp_path)
    (device,) = (await AsyncClient.over(api.back_end).list_devices(search="BP-000123")).data
    assert (device.status, device.binding_generation) == ("unbound", 2)
