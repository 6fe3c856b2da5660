"""The container: what the Dockerfile and the compose file say, and the same gateway under a container's conditions.

No container engine is needed: the kernel gives the conditions that matter, a root file system that is read-only, a
user other than root and no capability.
"""

import fnmatch
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli import cli
from gateway.settings.loading import Settings, load
from tests.e2e.program import Program, clean_environment, run, script, started
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
UID = "10001"


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: name and what follows, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def environment() -> dict[str, str]:
    """What the image sets of the gateway's own settings."""
    (text,) = [rest for name, rest in instructions() if name == "ENV"]
    pairs = dict(each.split("=", 1) for each in shlex.split(text))
    return {name: value for name, value in pairs.items() if name.startswith("GATEWAY_")}


def service() -> dict[str, Any]:
    """The one service of the compose file."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    assert list(services) == ["gateway"]
    found: dict[str, Any] = services["gateway"]
    return found


def settings_of(**more: str) -> Settings:
    """The settings that the gateway reads in the container."""
    return load({}, {**environment(), **more}, None).settings


def test_copied_files_are_in_the_build_context() -> None:
    """Each file that the Dockerfile copies exists, and .dockerignore lets it through."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        each for name, rest in instructions() if name == "COPY" and "--from" not in rest for each in rest.split()[:-1]
    ]
    assert {"requirements.lock", "gateway", "docs"} <= set(copied)
    for each in copied:
        assert (ROOT / each).exists()
        assert any(fnmatch.fnmatch(each, pattern) for pattern in allowed), f".dockerignore keeps {each} out"


def test_the_image_listens_on_loopback_by_default() -> None:
    """It runs as its own user, and listens beyond itself only with a certificate or when told that it may."""
    said = dict(instructions())
    assert said["USER"] == "gateway"
    assert f"--uid {UID} " in DOCKERFILE
    for words in (said["ENTRYPOINT"], said["CMD"], said["HEALTHCHECK"].partition("CMD ")[2]):
        assert isinstance(yaml.safe_load(words), list)
    assert yaml.safe_load(said["HEALTHCHECK"].partition("CMD ")[2]) == ["gateway", "health"]
    assert "health" in cli.commands
    assert settings_of(GATEWAY_INSECURE_LISTEN="true").data_dir == Path("/data")
    with pytest.raises(Exception, match="loopback"):
        settings_of()


def test_the_compose_file_publishes_loopback_ports_only() -> None:
    """Ports on loopback, no capability, nothing shared with other containers or the host, and known settings."""
    compose = service()
    assert all(each.startswith("127.0.0.1:") for each in compose["ports"])
    assert (compose["cap_drop"], compose["read_only"]) == (["ALL"], True)
    assert not {"pid", "network_mode", "privileged", "ipc"} & set(compose)
    settings = settings_of(**compose["environment"])
    assert str(settings.mqtt_advertise) == "127.0.0.1:1883"
    assert settings.broker == "mosquitto"


READ_ONLY = f"""
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,ro,bind /
shift
exec unshare --user --map-user={UID} --map-group={UID} "$@"
"""


def contained(writable: Path, *command: str) -> tuple[str, ...]:
    """A command as a container runs it: not root, no capability, and `writable` as the only place to write."""
    outer = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
    return (*outer, "bash", "-euc", READ_ONLY, "contained", str(writable), *command)


async def test_the_container_runs_on_a_read_only_root(tmp_path: Path) -> None:
    """Serve with a managed Mosquitto, be healthy and ready, make a key, stop cleanly: nothing else is written."""
    refused = await run(*contained(tmp_path, "touch", str(ROOT / "written")))
    assert refused.code != 0, "the root can be written: the test would show nothing"
    assert "Read-only file system" in refused.err
    variables = clean_environment(
        **{
            **environment(),
            "GATEWAY_INSECURE_LISTEN": "true",
            "GATEWAY_DATA_DIR": str(tmp_path / "data"),
            "GATEWAY_HTTP": f"127.0.0.1:{free_port()}",
            "GATEWAY_MQTT": f"127.0.0.1:{free_port()}",
            "TMPDIR": str(tmp_path),
            "HOME": "/nonexistent",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
    )
    gateway = script("gateway")
    before = await run(*contained(tmp_path, gateway, "health"), environment=variables)
    assert (before.code, before.out) == (1, "")
    serving = Program(tmp_path, "contained", *contained(tmp_path, gateway, "serve"), environment=variables)
    async with started(serving):
        await serving.said("is ready")
        health = await run(*contained(tmp_path, gateway, "health"), environment=variables)
        assert (health.code, health.out) == (
            0,
            '{"status":"healthy","database":"connected","billing":"disabled"}\n',
        ), health.err
        ready = await run(*contained(tmp_path, gateway, "health", "--ready"), environment=variables)
        assert ready.code == 0, ready.out + ready.err
        made = await run(*contained(tmp_path, gateway, "keys", "create", "--name", "trial"), environment=variables)
        assert made.code == 0, made.err
        assert made.out.startswith("sk_")
        assert await serving.stop() == 0
    assert "Traceback" not in serving.err
