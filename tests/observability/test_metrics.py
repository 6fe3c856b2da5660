"""The gateway in figures: what they count, what they never name, and that dashboard, alerts and documents know them."""

import base64
import hashlib
import hmac
import json
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.observability.metrics import MEDIA_TYPE
from gateway.observability.metrics_endpoint import MOST_BROKERS
from gateway.store import Tx, measurements
from tests.http.support import Api, Json, body, error

DOCS = Path(__file__).parents[2] / "docs"
MONITORING = DOCS / "monitoring"
_SUFFIXES = ("_total", "_bucket", "_count", "_sum", "_created", "_info")
_OF_PROMETHEUS = ("process_", "python_")


async def _text(api: Api) -> str:
    answer = await api.as_(None).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == MEDIA_TYPE
    return answer.text


async def _figures(api: Api) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its label values."""
    families = text_string_to_metric_families(await _text(api))
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def _beat(api: Api, token: str, status: int = 200, **heartbeat: object) -> Json:
    return body(await api.as_(token).post("/v1/devices/me/heartbeat", json=heartbeat), status)


def _receipt(token: str, command: Json, status: str) -> str:
    key = hashlib.sha256(token.encode()).digest()
    message = f"{command['id']}|{status}|{command['binding_generation']}".encode()
    return base64.urlsafe_b64encode(hmac.digest(key, message, "sha256")).rstrip(b"=").decode()


async def _acknowledge(api: Api, token: str, command: Json, status: str) -> None:
    ack = {"command_id": command["id"], "status": status, "receipt": _receipt(token, command, status)}
    if status == "executed":
        ack["result"] = {"wiped": ["device_token", "pairing", "wifi_networks"], "kept": ["serial_number"]}
    body(await api.as_(token).post(f"/v1/devices/me/commands/{command['id']}/ack", json=ack), 200)


async def test_heartbeats_are_counted_by_what_was_done_with_them(api: Api) -> None:
    """Stored, replayed, taken for presence alone; a refused one by its code."""
    device = await api.bound()
    token = device["device_token"]
    await _beat(api, token, battery_percent=50, sent_at="2026-01-02T03:04:05Z")
    await _beat(api, token, battery_percent=50, sent_at="2026-01-02T03:04:05Z")
    await _beat(api, token, 400, battery_percent=101)
    await api.reset(device["id"])
    await _beat(api, token)
    figures = await _figures(api)
    assert {name[1]: figures[name] for name in figures if name[0] == "gateway_heartbeats_total"} == {
        "stored": 1,
        "replayed": 1,
        "reset_only": 1,
        "unbound": 0,
    }


async def test_a_reset_is_seen_in_its_stages(api: Api) -> None:
    """While it is open by number and age, and what each stage took once it is over."""
    device = await api.bound()
    command = await api.reset(device["id"])
    api.clock.ahead_ms += 60_000
    before = await _figures(api)
    assert before["gateway_open_commands", "pending", "factory_reset"] == 1
    assert before["gateway_open_command_oldest_seconds", "pending", "factory_reset"] >= 60
    assert before["gateway_reset_stage_seconds_count", "delivered"] == 0
    await _acknowledge(api, device["device_token"], command, "delivered")
    api.clock.ahead_ms += 5_000
    await _acknowledge(api, device["device_token"], command, "executed")
    after = await _figures(api)
    stages = {
        stage: after["gateway_reset_stage_seconds_sum", stage] for stage in ("delivered", "executed", "completed")
    }
    assert stages == pytest.approx({"delivered": 60, "executed": 5, "completed": 65}, abs=4)
    assert after["gateway_open_commands", "pending", "factory_reset"] == 0
    assert after["gateway_events_total", "reset.completed"] == 1


async def test_jobs_are_counted_by_status_and_targets_by_their_end(api: Api) -> None:
    """Waiting and queued targets have none yet."""
    await api.bound()
    asked = {"name": "recall", "action": "reboot", "targets": {"device_ids": ["dev_a", "dev_b"]}}
    body(await api.back_end.post("/v1/jobs", json=asked), 201)
    body(await api.back_end.post("/v1/jobs", json={**asked, "targets": {"filter": {}}}), 201)
    figures = await _figures(api)
    assert {key[1]: figures[key] for key in figures if key[0] == "gateway_jobs"} == {
        "scheduled": 0, "running": 1, "paused": 0, "completed": 1, "aborted": 0, "cancelled": 0
    }  # fmt: skip
    assert {key[1]: figures[key] for key in figures if key[0] == "gateway_job_targets_total"} == {
        "executed": 0, "failed": 0, "cancelled": 0, "skipped": 2
    }  # fmt: skip


async def test_rolled_back_writes_are_not_counted(api: Api) -> None:
    """A write that fails takes its figures along, and leaves those of the others in its group."""
    device = await api.registered()

    def undone(tx: Tx) -> None:
        tx.measure(measurements.EVENT, "device.online")
        raise LookupError(device["id"])

    with pytest.raises(LookupError):
        await api.store.write(undone)
    await api.store.write(lambda tx: tx.measure(measurements.EVENT, "device.offline"))
    figures = await _figures(api)
    assert figures["gateway_events_total", "device.online"] == 0
    assert figures["gateway_events_total", "device.offline"] == 1


async def test_requests_are_timed_by_template(api: Api) -> None:
    """Whatever paths and methods a caller makes up, the number of series stays what it is."""
    device = await api.registered()
    body(await api.back_end.get(f"/v1/devices/{device['id']}"), 200)
    stranger = api.as_(None)
    for method in ("LOCK", "PROPFIND", "MKCOL", "TRACE"):
        for number in range(5):
            error(await stranger.request(method, f"/v1/coffee/{number}"), 401, "unauthorized")
    figures = await _figures(api)
    counts = {name[1:]: value for name, value in figures.items() if name[0] == "gateway_http_request_seconds_count"}
    assert counts["GET", "/v1/devices/{device_id}", "200"] == 1
    assert counts["other", "-", "401"] == 20


async def test_metrics_contain_no_device_or_key(api: Api) -> None:
    """No id, no serial number and no secret is in it."""
    device = await api.bound("SERIAL-17")
    await api.reset(device["id"])
    await _beat(api, device["device_token"], 400, battery_percent="SERIAL-17")
    text = await _text(api)
    assert "SERIAL-17" not in text
    assert not re.search(r"\b(proj|dev|eu|cmd|evt|wh|key)_[A-Za-z0-9]|dtok_|[sr]k_(live|test)_", text)


async def test_promtool_accepts_the_metrics(api: Api) -> None:
    """``promtool check metrics``, which also knows what is good style."""
    await api.reset((await api.bound())["id"])
    checked = subprocess.run(  # noqa: ASYNC221 - nothing else is to be served meanwhile
        ["promtool", "check", "metrics"], input=await _text(api), text=True, capture_output=True, check=False
    )
    faults = [line for line in checked.stderr.splitlines() if not line.startswith(_OF_PROMETHEUS)]
    assert faults == []


def test_the_alert_rules_hold() -> None:
    """They are rules, and they fire when they should."""
    for what in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run(["promtool", *what], cwd=MONITORING, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


async def _names(api: Api) -> set[str]:
    await api.reset((await api.bound())["id"])
    await api.store.write(lambda tx: tx.measure(measurements.REFUSAL, "invalid_request"))
    return {_bare(sample[0]) for sample in await _figures(api) if sample[0].startswith("gateway_")}


def _bare(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)


def _named(text: str) -> set[str]:
    return {_bare(name) for name in re.findall(r"\bgateway_\w+", text)}


def _on_the_dashboard() -> set[str]:
    dashboard = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
    return _named(" ".join(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())))


async def test_dashboard_and_alerts_use_existing_metrics(api: Api) -> None:
    """A name that is not told would leave a panel empty, and an alert silent for ever."""
    alerts = _named(" ".join(re.findall(r"expr: (.*)", (MONITORING / "alerts.yml").read_text(encoding="utf-8"))))
    names = _on_the_dashboard() | alerts
    assert len(names) > 15
    assert names - await _names(api) == set()


async def test_the_dashboard_shows_the_cluster(api: Api) -> None:
    """Each metric of leases, brokers and the database has a panel; an epoch is only a number that grows."""
    of_cluster = re.compile("gateway_(lease|broker|database|write_conflicts)")
    told = {name for name in await _names(api) if of_cluster.match(name)} - {"gateway_lease_epoch"}
    assert told - _on_the_dashboard() == set()


async def test_each_gateway_tells_the_owner_of_every_broker(api: Api) -> None:
    """Of its own lease it knows more: one that it has lost counts as lost, whatever the registry says."""
    brokers, (own, _) = api.readiness["brokers"], api.readiness["leases"]
    brokers.append({"id": "two", "owner": None, "connected": False, "followed": True, "outbox": 3})
    own["owner"] = None
    figures = await _figures(api)
    assert {name[1:]: value for name, value in figures.items() if name[0] == "gateway_lease_owned"} == {
        ("default", "broker"): 0,
        ("two", "broker"): 0,
        ("", "fleet"): 1,
    }


async def test_with_many_brokers_a_gateway_tells_of_its_own(api: Api) -> None:
    """The number of series is bounded; the gateways of each broker still tell its owner."""
    brokers = api.readiness["brokers"]
    brokers += [{**brokers[0], "id": f"b{number}"} for number in range(MOST_BROKERS)]
    figures = await _figures(api)
    owned = [name[1:] for name in figures if name[0] == "gateway_lease_owned"]
    assert owned == [("default", "broker"), ("", "fleet")]


async def test_every_metric_is_documented(api: Api) -> None:
    """In docs/metrics.md, and nothing there is made up."""
    documented = set(re.findall(r"^\| `(gateway_\w+)", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert {_bare(name) for name in documented} == await _names(api)
