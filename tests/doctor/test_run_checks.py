"""`gateway doctor`, on installations that are well and on those that are not."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.broker.mosquitto.session_locks import EXPOSED
from tests.e2e.program import Outcome, clean_environment, run, script
from tests.e2e.support import BROKERS, BrokerKind, Site, running_site, topic
from tests.support.wait import eventually

Json = dict[str, Any]

_BY_THE_MACHINE = ("clock", "data directory")
"""Areas whose warnings are this machine's: NTP, free space. Their errors count."""


async def _examined(site: Site, *options: str) -> tuple[int, dict[str, Json]]:
    """Exit code, and findings by area and name."""
    given, environment = _without_passwords(_broker(site))
    outcome = await run(*_line(site.gateway.data, *given, *options), environment=environment)
    return outcome.code, _findings(outcome)


def _without_passwords(options: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """The options without URLs that hold a password, and the environment that has these."""
    left, environment = list(options), clean_environment()
    for name in ("--broker", "--broker-api-url"):
        if name in left and "@" in left[left.index(name) + 1]:
            at = left.index(name)
            environment[f"GATEWAY_{name.lstrip('-').replace('-', '_').upper()}"] = left[at + 1]
            del left[at : at + 2]
    return left, environment


def _line(data: Path, *options: str) -> tuple[str, ...]:
    return (script("gateway"), "doctor", "--json", "--data-dir", str(data), *options)


def _broker(site: Site) -> tuple[str, ...]:
    """The options that its gateway was started with."""
    return site.gateway.options


def _findings(outcome: Outcome) -> dict[str, Json]:
    document = json.loads(outcome.out)
    return {f"{each['area']}: {each['name']}": each for each in document["findings"]}


def _bad(findings: dict[str, Json]) -> set[str]:
    return {
        name
        for name, each in findings.items()
        if each["level"] == "error" or (each["level"] == "warning" and each["area"] not in _BY_THE_MACHINE)
    }


@pytest.mark.parametrize("kind", BROKERS)
async def test_a_healthy_installation_has_no_problems(tmp_path: Path, kind: BrokerKind) -> None:
    """Everything is looked at, from the settings to what is retained, nothing is found, and nothing is changed."""
    async with running_site(tmp_path, kind) as site:
        device_id = await _registered(site, "SN1")
        await site.post(f"{device_id}/bind", {"end_user_id": "eu_1"})
        await site.post(f"{device_id}/reset")
        await site.synced()
        before = site.fingerprint()
        code, findings = await _examined(site)
        assert _bad(findings) == set()
        assert code < 2
        assert {each["area"] for each in findings.values()} == {
            "settings",
            "data directory",
            "registry",
            "clock",
            "limits",
            "gateway",
            "broker",
            "what devices are told",
            "retained commands",
        }
        assert findings["retained commands: comparison"]["says"] == "1 open commands, and just these are retained"
        assert "MQTT" in findings["gateway: ready"]["says"]
        assert site.fingerprint() == before
        assert not site.count("SELECT count(*) FROM refusals")


async def test_retained_differences_are_reported_and_repaired(tmp_path: Path) -> None:
    """A reset that is missing, one that differs, one that is not open; the first look changes nothing, --fix all."""
    async with running_site(tmp_path, "mosquitto") as site:
        ids = [await _registered(site, f"SN{n}") for n in range(3)]
        for device_id in ids[:2]:
            await site.post(f"{device_id}/bind", {"end_user_id": "eu_1"})
            await site.post(f"{device_id}/reset")
        await site.synced()
        right = await site.retained()
        wrong = [topic(ids[0]), topic(ids[1]), topic(ids[2], "reboot")]
        for where, payload in zip(wrong, (b"", b'{"id":"cmd_other"}', b'{"id":"cmd_stray"}'), strict=True):
            await site.publish(where, payload, retain=True)
        meddled = await site.retained()
        code, findings = await _examined(site)
        told = findings["retained commands: comparison"]
        assert (code, told["level"]) == (7, "error")
        assert [detail.split(" ")[0] for detail in told["details"]] == ["missing:", "differs:", "not"]
        assert all(where in " ".join(told["details"]) for where in wrong)
        assert await site.retained() == meddled
        code, findings = await _examined(site, "--fix")
        assert (code < 2, _bad(findings)) == (True, set())
        assert findings["retained commands: comparison"]["says"].startswith("put right")
        assert await site.retained() == right


async def test_a_broker_with_too_many_rights_is_reported(tmp_path: Path) -> None:
    """The topics that a made-up device reaches are named, and nothing that it tried stays on the broker."""
    async with running_site(tmp_path, "mosquitto") as site:
        acl = site.broker.files.acl
        acl.write_text(f"{acl.read_text()}\npattern readwrite devices/+/commands/+\npattern read devices/#\n")
        await _reloaded(site, await _registered(site, "SN1"))
        code, findings = await _examined(site)
        assert code == 7
        published, read = (findings[f"broker: made-up device: {what}"] for what in ("publish", "read"))
        assert topic("dev_doctor0probe") in published["details"]
        assert "devices/dev_doctor0probe/marker" in read["details"]
        assert await site.retained() == {}


async def _registered(site: Site, serial: str) -> str:
    answer = await site.http.post("/v1/devices", json={"serial_number": serial})
    return str(answer.json()["id"])


async def _reloaded(site: Site, device_id: str) -> None:
    """The gateway renders the password file for a new binding, and Mosquitto reads the ACL again with it."""
    bound = await site.post(f"{device_id}/bind", {"end_user_id": "eu_1"})
    await site.synced()

    async def in_force() -> bool:
        return await site.connect_answer(device_id, bound["device_token"]) == 0

    await eventually(in_force, "Mosquitto read its files again")


async def test_a_vulnerable_mosquitto_is_reported(tmp_path: Path) -> None:
    """One before 2.1 without the plugin by which the gateway ends sessions: an error with both remedies."""
    async with running_site(tmp_path, "mosquitto") as site:
        config = site.broker.files.config
        lines = [line for line in config.read_text().splitlines() if not line.startswith("plugin")]
        config.write_text("\n".join(lines))
        await site.broker.restart()

        async def said() -> bool:
            report = (await site.http.get("/ready")).json()
            return report["ready"] and EXPOSED in (report["access"]["error"] or "")

        await eventually(said, "the gateway says so")
        code, findings = await _examined(site)
        ready = findings["gateway: ready"]
        assert (code, ready["level"]) == (7, "error")
        assert "gateway broker init" in ready["remedy"]
        assert "Mosquitto 2.1" in ready["remedy"]


async def test_an_unreachable_broker_is_reported(tmp_path: Path) -> None:
    """It is said once, with what to do, and the rest is looked at all the same."""
    async with running_site(tmp_path, "mosquitto") as site:
        await site.broker.stop()
        code, findings = await _examined(site)
        assert code == 7
        assert "cannot be reached" in findings["broker: reachable"]["says"]
        assert findings["registry: integrity"]["level"] == "ok"
        await site.broker.start()


async def test_without_a_gateway_the_checks_run(tmp_path: Path) -> None:
    """What can be seen of the data directory is seen."""
    async with running_site(tmp_path, "embedded") as site:
        await site.gateway.stop()
        code, findings = await _examined(site)
        assert code == 1
        assert findings["gateway: running"]["level"] == "warning"
        data = site.gateway.data
        data.chmod(0o755)
        code, findings = await _examined(site)
        assert (code, findings["data directory: permissions"]["level"]) == (7, "error")
        assert findings["data directory: permissions"]["remedy"].startswith(f"chmod go-rwx {data}")


async def test_a_damaged_registry_is_reported(tmp_path: Path) -> None:
    """A page of garbage is found; so are a file that is no database, and a missing one."""
    async with running_site(tmp_path, "embedded") as site:
        await site.gateway.stop()
    file = site.gateway.data / "gateway.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'devices_live'").fetchone()[0]
        size = database.execute("PRAGMA page_size").fetchone()[0]
    with file.open("r+b") as raw:
        raw.seek((page - 1) * size)
        raw.write(b"\xff" * size)
    code, findings = await _examined(site)
    assert code == 7
    assert "registry: integrity" in _bad(findings) or "registry: readable" in _bad(findings)
    file.write_bytes(b"no database" * 100)
    assert "registry: readable" in _bad((await _examined(site))[1])
    file.unlink()
    assert "registry: file" in _bad((await _examined(site))[1])


async def test_the_text_output_has_a_line_per_check(tmp_path: Path) -> None:
    """The same as text: an area per paragraph, a remedy below what is wrong, the count at the end."""
    nowhere = tmp_path / "nowhere"
    outcome = await run(script("gateway"), "doctor", "--data-dir", str(nowhere))
    assert outcome.code == 7
    assert f"ERROR    directory: {nowhere} is not there" in outcome.out
    assert "→ Name the right one with --data-dir" in outcome.out
    assert outcome.out.rstrip().endswith("errors")
    assert not nowhere.exists()
