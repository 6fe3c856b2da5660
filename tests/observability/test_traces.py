"""Traces: a reset as one, from the request to the last acknowledgement, at a collector that speaks OTLP over HTTP."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.e2e.program import clean_environment, run, script
from tests.e2e.support import AUDITOR, Site, running, running_site
from tests.support.receiver import Receiver, receiving
from tests.support.wait import eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
RESET = "POST /v1/devices/{device_id}/reset"
PUBLISH = "publish commands/factory_reset"
PROCESS = "process commands/factory_reset/ack"


class Collector:
    """What has come to a collector so far."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.endpoint = f"http://127.0.0.1:{receiver.port}"

    def _requests(self) -> list[ExportTraceServiceRequest]:
        found = []
        for each in self._receiver.received:
            assert each.line.startswith("POST /v1/traces ")
            body = gzip.decompress(each.body) if each.headers.get("content-encoding") == "gzip" else each.body
            found.append(ExportTraceServiceRequest.FromString(body))
        return found

    def spans(self, trace: str = TRACE) -> list[Any]:
        """The spans of this trace."""
        scopes = [
            scope for request in self._requests() for each in request.resource_spans for scope in each.scope_spans
        ]
        return [span for scope in scopes for span in scope.spans if span.trace_id.hex() == trace]

    def named(self, name: str) -> list[Any]:
        """Those of this name, in the order of their begin."""
        return sorted((span for span in self.spans() if span.name == name), key=lambda span: span.start_time_unix_nano)

    async def has(self, name: str, number: int = 1) -> list[Any]:
        """Wait until so many of this name have come."""
        await eventually(
            lambda: len(self.named(name)) >= number,
            f"{number} of {name!r} come ({[span.name for span in self.spans()]})",
        )
        return self.named(name)

    @property
    def services(self) -> set[str]:
        """Who sent them."""
        return {
            attribute.value.string_value
            for request in self._requests()
            for each in request.resource_spans
            for attribute in each.resource.attributes
            if attribute.key == "service.name"
        }


def facts(span: Any) -> dict[str, Any]:
    """Its attributes."""
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


async def reset_by(site: Site, device_id: str) -> None:
    """Ask for a reset, as a caller that traces."""
    answer = await site.http.post(f"/v1/devices/{device_id}/reset", headers={"traceparent": TRACEPARENT})
    assert answer.status_code == httpx.codes.OK


async def test_a_reset_is_one_trace(tmp_path: Path) -> None:
    """Request → transaction → publish, and both acknowledgements below the transaction that queued the command.

    Although this broker speaks MQTT 3.1.1: the command itself remembers where its trace goes on.
    """
    async with receiving() as receiver:
        collector = Collector(receiver)
        async with running_site(tmp_path, "embedded", "--otlp-endpoint", collector.endpoint) as site:
            device = site.device()
            device_id = (await device.provision(end_user_id="eu_1")).device_id
            async with running(device):
                await device.wait_for("online")
                await reset_by(site, device_id)
                await site.becomes(device_id, "executed")
            command = await site.newest(device_id)
            acknowledged = await collector.has(PROCESS, 2)
            (request,), (published,) = await collector.has(RESET), await collector.has(PUBLISH)
            (written,) = [
                each for each in collector.named("registry.write") if each.span_id == published.parent_span_id
            ]
        assert request.parent_span_id.hex() == CALLER
        assert written.parent_span_id == request.span_id
        assert [each.parent_span_id for each in acknowledged] == [written.span_id] * 2
        assert [facts(each)["gateway.status"] for each in acknowledged] == ["delivered", "executed"]
        assert {facts(each)["gateway.command_id"] for each in acknowledged} == {command["id"]}
        assert facts(request)["http.response.status_code"] == httpx.codes.OK
        assert facts(published)["messaging.destination.name"] == f"devices/{device_id}/commands/factory_reset"
        assert request.start_time_unix_nano <= written.start_time_unix_nano <= published.start_time_unix_nano
        assert collector.services == {"device-gateway"}


async def test_the_trace_context_travels_over_mqtt_and_back(tmp_path: Path) -> None:
    """MQTT 5: the command carries the trace context, and an answer's span is a child of the context that it carries.

    A device that sends the context of another trace has its answer accepted for the command alone.
    """
    async with receiving() as receiver:
        collector = Collector(receiver)
        async with running_site(tmp_path, "mosquitto", "--otlp-endpoint", collector.endpoint) as site:
            bound = await _bound(site)
            made = await site.http.post(
                f"/v1/devices/{bound['id']}/commands", json={"type": "reboot"}, headers={"traceparent": TRACEPARENT}
            )
            topic = f"devices/{bound['id']}/commands/reboot"
            async with _auditor(site) as client:
                await client.subscribe(topic)
                message = await anext(aiter(client.messages))
                assert message.properties is not None
                told = dict(message.properties.UserProperty)["traceparent"]  # type: ignore[attr-defined] # paho's
                (published,) = await collector.has("publish commands/reboot")
                assert told == f"00-{TRACE}-{published.span_id.hex()}-01"
                for status, place in (("delivered", f"00-{'a' * 32}-{'b' * 16}-01"), ("executed", told)):
                    body = f'{{"command_id": "{made.json()["id"]}", "status": "{status}"}}'
                    await client.publish(f"{topic}/ack", body, qos=1, properties=_traced(place))
            delivered, executed = await collector.has("process commands/reboot/ack", 2)
        assert delivered.parent_span_id == published.parent_span_id
        assert executed.parent_span_id == published.span_id


async def test_a_trace_continues_after_a_restart(tmp_path: Path) -> None:
    """The command waits, the gateway is killed, and what the device says afterwards belongs to the request of then."""
    async with receiving() as receiver:
        collector = Collector(receiver)
        async with running_site(tmp_path, "mosquitto", "--otlp-endpoint", collector.endpoint) as site:
            device = site.device()
            device_id = (await device.provision(end_user_id="eu_1")).device_id
            await reset_by(site, device_id)
            (request,) = await collector.has(RESET)
            await site.gateway.kill()
            await site.gateway.restart()
            await site.synced()
            async with running(device):
                await site.becomes(device_id, "executed")
            acknowledged = await collector.has(PROCESS, 2)
        assert {each.trace_id for each in acknowledged} == {request.trace_id}


async def test_an_unreachable_collector_delays_nothing(tmp_path: Path) -> None:
    """The reset is done, and the gateway stops in time."""
    async with running_site(tmp_path, "embedded", "--otlp-endpoint", "http://127.0.0.1:1") as site:
        device = site.device()
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        async with running(device):
            await site.reset(device_id)
            await site.becomes(device_id, "executed")
        assert await site.gateway.stop() == 0


def test_without_an_endpoint_the_library_is_not_even_loaded() -> None:
    """Off is free."""
    code = "import sys, gateway.app, gateway.cli; print([name for name in sys.modules if 'opentelemetry' in name])"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "[]"


async def test_a_missing_library_is_named(tmp_path: Path) -> None:
    """Without the packages of the extra the gateway does not start, and says what to install."""
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('no such package', name='opentelemetry')\n")
    outcome = await run(
        *(script("gateway"), "serve", "--otlp-endpoint", "http://127.0.0.1:4318", "--http", "127.0.0.1:0"),
        *("--mqtt", "127.0.0.1:0", "--data-dir", str(tmp_path / "data")),
        environment=clean_environment(PYTHONPATH=f"{tmp_path}:{clean_environment().get('PYTHONPATH', '')}"),
    )
    assert outcome.code == 1
    assert "pip install 'device-gateway[otel]'" in outcome.err


async def _bound(site: Site) -> dict[str, Any]:
    device = (await site.http.post("/v1/devices", json={"serial_number": "SN-1"})).json()
    return await site.post(f"{device['id']}/bind", {"end_user_id": "eu_1"})


def _auditor(site: Site) -> aiomqtt.Client:
    """An MQTT 5 client with every right, in the place of the device."""
    return aiomqtt.Client(
        site.broker.host,
        site.broker.port,
        username=AUDITOR,
        password="auditor-password",
        identifier=AUDITOR,
        protocol=aiomqtt.ProtocolVersion.V5,
    )


def _traced(place: str) -> Any:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho's
    properties.UserProperty = [("traceparent", place)]
    return properties
