"""`gateway doctor` on what devices receive, the settings file, files that are gone, and a read-only disk."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.program import GUARD_SECONDS, run, script
from tests.e2e.support import Site, running_site
from tests.support.certificates import make_authority
from tests.support.mosquitto import GATEWAY_PASSWORD
from tests.support.ports import closed_port, free_port
from tests.support.small_disk import may_mount, small_disk
from tests.support.wait import eventually

Json = dict[str, Any]


async def _examined(data: Path, *options: str) -> dict[str, Json]:
    outcome = await run(script("gateway"), "doctor", "--json", "--data-dir", str(data), *options)
    return {f"{each['area']}: {each['name']}": each for each in json.loads(outcome.out)["findings"]}


async def _in_step(site: Site) -> None:
    async def ready() -> bool:
        return (await site.http.get("/ready")).status_code == 200

    await eventually(ready, "the gateway is ready", guard_seconds=GUARD_SECONDS)


@pytest.mark.parametrize(
    ("advertised", "says"),
    [
        ("broker.invalid:1883", "the name broker.invalid cannot be resolved"),
        ("127.0.0.1:{free}", "nothing listens at 127.0.0.1"),
        ("127.0.0.1:{http}", "does not answer as a broker"),
    ],
)
async def test_an_unreachable_advertised_address_is_reported(tmp_path: Path, advertised: str, says: str) -> None:
    """A bind tells it, so the doctor goes there, and names the setting."""
    http = free_port()
    with closed_port() as closed:
        told = advertised.format(free=closed, http=http)
        async with running_site(tmp_path, "embedded", "--mqtt-advertise", told, "--http", f"127.0.0.1:{http}") as site:
            await _in_step(site)
            findings = await _examined(site.gateway.data, *site.gateway.options)
    (bad,) = [each for each in findings.values() if each["area"] == "what devices are told"]
    assert bad["level"] == "error"
    assert says in bad["says"]
    assert "mqtt_advertise" in bad["remedy"]


@pytest.mark.parametrize("names", [("127.0.0.1",), ("localhost", "127.0.0.1")])
async def test_a_certificate_without_the_advertised_name_is_reported(tmp_path: Path, names: tuple[str, ...]) -> None:
    """The doctor verifies it as a device does; where the name is in it, a made-up device gets in there."""
    pair = make_authority(tmp_path / "authority").server("server", names)
    port = free_port()
    options = ("--mqtt-cert-file", str(pair.certificate), "--mqtt-key-file", str(pair.key))
    where = ("--mqtt", f"127.0.0.1:{port}", "--mqtt-advertise", f"localhost:{port}")
    async with running_site(tmp_path, "embedded", *options, *where) as site:
        await _in_step(site)
        findings = await _examined(site.gateway.data, *site.gateway.options)
        certificate = findings["what devices are told: certificate"]
        if "localhost" in names:
            assert certificate["level"] == "ok"
            assert findings["what devices are told: connect"]["level"] == "ok"
        else:
            assert certificate["level"] == "error"
            assert "is no certificate for localhost" in certificate["says"]
            assert "mqtt_advertise" in certificate["remedy"]


async def test_the_settings_file_is_checked(tmp_path: Path) -> None:
    """One that everybody may read, and one that says another password than the gateway was started with."""
    async with running_site(tmp_path, "mosquitto") as site:
        await site.gateway.stop()
        file = site.gateway.write_settings()
        file.chmod(0o644)
        await site.gateway.restart()
        await _in_step(site)
        findings = await _examined(site.gateway.data)
        mode = findings["settings: file's mode"]
        assert (mode["level"], mode["remedy"].startswith(f"chmod o-rwx {file}")) == ("error", True)
        assert "(broker)" in mode["says"]
        file.chmod(0o640)
        findings = await _examined(site.gateway.data)
        for name in ("file's mode", "running gateway"):
            assert findings[f"settings: {name}"]["level"] == "ok", name
        assert findings["what devices are told: connect"]["level"] == "ok"
        password = GATEWAY_PASSWORD
        file.write_text(file.read_text().replace(password, "another"))
        findings = await _examined(site.gateway.data)
        differs = findings["settings: running gateway"]
        assert (differs["level"], differs["says"].endswith("started with: broker")) == ("warning", True)
        assert password not in json.dumps(findings)
        assert "another" not in json.dumps(differs)
        assert (await site.http.get("/ready")).json()["ready"], "the doctor has not ended the gateway's own session"


async def test_removed_files_are_reported(tmp_path: Path) -> None:
    """The process file, and where the gateway is; that a gateway runs is seen all the same."""
    async with running_site(tmp_path, "embedded") as site:
        await _in_step(site)
        (site.gateway.data / "gateway.lock").unlink()
        findings = await _examined(site.gateway.data)
        assert findings["gateway: process file"]["level"] == "warning"
        assert f"process {site.gateway.pid}" in findings["gateway: ready"]["says"]
        (site.gateway.data / "gateway.url").unlink()
        findings = await _examined(site.gateway.data)
        assert findings["gateway: running"]["level"] == "error"
        assert "gateway.url is missing" in findings["gateway: running"]["says"]


@pytest.mark.skipif(not may_mount(), reason="needs root: it mounts a file system")
async def test_a_read_only_disk_is_reported_without_backup_advice(tmp_path: Path) -> None:
    """It is said that the disk is read-only; a restore would not help, and nothing is lost."""
    async with running_site(tmp_path, "embedded") as site:
        await site.gateway.stop()
    with small_disk(tmp_path / "disk", 16_384) as disk:
        shutil.copytree(site.gateway.data, disk / "data")
        assert (await run("mount", "-o", "remount,ro", str(disk))).code == 0
        findings = await _examined(disk / "data")
        assert findings["data directory: writable"]["level"] == "error"
        assert "read-only" in findings["data directory: writable"]["says"]
        for finding in findings.values():
            assert "restore" not in (finding["remedy"] or ""), finding
        assert "read-only" in findings["registry: readable"]["remedy"]


async def test_a_gateway_reports_when_it_is_ready(tmp_path: Path) -> None:
    """While its broker is away it says why it is not, and where it listens."""
    async with running_site(tmp_path, "mosquitto") as site:
        await site.gateway.stop()
        await site.broker.stop()
        await site.gateway.restart()
        await site.gateway.said("is not ready yet: ")
        assert "is ready" not in site.gateway.out
        assert "  HTTP  http://" in site.gateway.out
        await site.broker.start()
        await site.gateway.said("is ready")
        await _in_step(site)
