"""docs/tls.md, followed to the letter in an empty directory; but for the ports, which are free ones."""

import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.program import Outcome, Program, clean_environment, run, started
from tests.support.ports import free_port
from tests.support.snippets import ROOT, run_by

BLOCKS = run_by("tls", ROOT / "docs" / "tls.md")


@pytest.fixture
def blocks() -> list[str]:
    """Its shell blocks, in order."""
    http, mqtt = free_port(), free_port()
    places = {"8443": str(http), "8883": str(mqtt)}
    return [_replaced(block.code, places) for block in BLOCKS]


def _replaced(code: str, places: dict[str, str]) -> str:
    for name, here in places.items():
        code = code.replace(name, here)
    return code


def _environment() -> dict[str, str]:
    return clean_environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


async def _shell(folder: Path, block: str) -> Outcome:
    outcome = await run("bash", "-euo", "pipefail", "-c", block, environment=_environment(), folder=folder)
    assert outcome.code == 0, f"{block}\n{outcome.out}\n{outcome.err}"
    return outcome


@pytest.fixture
async def served(tmp_path: Path, blocks: list[str]) -> AsyncIterator[Path]:
    """The first block done: a gateway serves from this folder."""
    first, serve = blocks[0].split("\n", 1)
    await _shell(tmp_path, first)
    line = f"cd {tmp_path}; exec {serve}"
    gateway = Program(tmp_path, "gateway", "bash", "-c", line, environment=_environment())
    async with started(gateway):
        await gateway.said("is ready")
        yield tmp_path


async def test_the_steps_with_a_private_authority_work(served: Path, blocks: list[str]) -> None:
    """Each command does what the page says, up to a simulated device that is reset."""
    client, device = blocks[1], blocks[3]
    commands, simulator = client.rstrip().rsplit("\n", 1)
    assert simulator.startswith("device-sim run")
    outcome = await _shell(served, commands)
    assert '"data"' in outcome.out
    key = json.loads((served / "key.json").read_text())["key"]
    line = f"cd {served}; exec {simulator}"
    living = Program(served, "simulator", "bash", "-c", line, environment=_environment() | {"GATEWAY_API_KEY": key})
    async with started(living):
        await living.said("heartbeat")
    outcome = await _shell(served, device)
    assert re.search(r"subject=CN ?= ?dev_", outcome.out)


async def test_the_steps_with_openssl_work(tmp_path: Path, blocks: list[str]) -> None:
    """The certificate that OpenSSL makes is one that OpenSSL, and the gateway, take."""
    outcome = await _shell(tmp_path, blocks[2])
    assert "my-server.pem: OK" in outcome.out
    options = "--http-cert-file my-server.pem --http-key-file my-server.key"
    gateway = Program(
        tmp_path,
        "gateway",
        "bash",
        "-c",
        f"cd {tmp_path}; exec gateway serve --data-dir data --http 127.0.0.1:0 --mqtt 127.0.0.1:0 {options}",
        environment=_environment(),
    )
    async with started(gateway):
        said = await gateway.said("is ready")
        await gateway.said("  data ")
        url = re.search(r"https://\S+", gateway.out)
        assert url, said
        outcome = await _shell(tmp_path, f"curl -sS --cacert my-ca.pem {url[0]}/health")
        assert "healthy" in outcome.out
