"""The guides for integrators: each of their programs as it stands there, on real brokers."""

import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.program import Program, clean_environment, run, script, started
from tests.e2e.support import BrokerKind, Site, running_site
from tests.support import node
from tests.support.snippets import ROOT, SHOWN, Block, blocks, run_by
from tests.support.wait import eventually

GUIDES = [ROOT / "docs" / name for name in ("integrators.md", "device-sim.md", "home-assistant.md")]
SNIPPETS = run_by("integrators", GUIDES[0])
SH, PYTHON, JS = "sh", "python", "js"
REACHED: Sequence[tuple[str, BrokerKind]] = (
    (SH, "mosquitto"),
    (PYTHON, "embedded"),
    (PYTHON, "mosquitto"),
    (JS, "embedded"),
)
"""Every language, every broker."""


def snippet(language: str, part: str) -> Block:
    """The program in this language that has this in it."""
    (found,) = [block for block in SNIPPETS if block.language == language and part in block.code]
    return found


def test_every_block_is_run() -> None:
    """Nothing in the guides is there to be believed."""
    left = [
        block.place
        for guide in GUIDES
        for block in blocks(guide)
        if block.language not in SHOWN and not block.run_by and not block.reason
    ]
    assert left == []


@dataclass
class Integrator:
    """An integrator with the guide, an account and the broker's address."""

    site: Site
    folder: Path
    password: str

    @property
    def environment(self) -> Mapping[str, str]:
        """What the guide says has to be there."""
        where = self.site.mosquitto or self.site.gateway
        return clean_environment(MQTT_HOST=where.host, MQTT_PORT=str(where.port), MQTT_PASSWORD=self.password)

    def _command(self, language: str) -> Sequence[str]:
        code = snippet(language, {SH: "mosquitto_sub", PYTHON: "aiomqtt", JS: "mqtt"}[language]).code
        if language == SH:
            return ("bash", "-c", f"cd {self.folder}\n{code}".replace("\nmosquitto_sub", "\nexec mosquitto_sub"))
        folder = self.folder if language == PYTHON else node.folder()
        file = folder / f"integrator.{'py' if language == PYTHON else 'js'}"
        file.write_text(code)
        return (sys.executable if language == PYTHON else node.node(), str(file))

    @contextlib.asynccontextmanager
    async def running(self, language: str) -> AsyncIterator[Program]:
        """The program of this language, running."""
        name = f"integrator-{language}"
        program = Program(self.folder, name, *self._command(language), environment=self.environment)
        async with started(program):
            yield program


@contextlib.asynccontextmanager
async def integrating(folder: Path, kind: BrokerKind) -> AsyncIterator[Integrator]:
    """A site, and the account that the guide has the operator make."""
    async with running_site(folder, kind) as site:
        path = f"{Path(script('gateway')).parent}:{clean_environment()['PATH']}"
        environment = clean_environment(GATEWAY_DATA_DIR=str(site.gateway.data), PATH=path)
        made = await run("bash", "-c", snippet(SH, "gateway accounts").code, environment=environment)
        assert made.code == 0, made.err
        yield Integrator(site, folder, made.out.strip())


async def reading(integrator: Integrator, stack: contextlib.AsyncExitStack, language: str, device_id: str) -> Program:
    """Start the program of a language again until the broker admits its new account and it shows the device."""

    async def reads() -> Program | None:
        program = await stack.enter_async_context(integrator.running(language))
        await eventually(lambda: device_id in program.out or not program.runs, "it reads, or was refused")
        return program if device_id in program.out else None

    program = await eventually(reads, "the broker lets it in and it shows the device")
    assert program
    return program


@pytest.mark.parametrize(("language", "kind"), REACHED)
async def test_the_guides_programs_receive_the_events(language: str, kind: BrokerKind, tmp_path: Path) -> None:
    """Each shows the device that is there, what changes, what happens, and that the device is deleted."""
    async with integrating(tmp_path, kind) as integrator, contextlib.AsyncExitStack() as stack:
        site = integrator.site
        device_id = (await site.http.post("/v1/devices", json={"serial_number": "SN-1"})).json()["id"]
        program = await reading(integrator, stack, language, device_id)
        await site.post(f"{device_id}/bind", {"end_user_id": "eu_7"})
        await program.said("device.bound")
        await site.http.delete(f"/v1/devices/{device_id}")
        await program.said("device.deleted")
        await program.said(f"devices/{device_id}/state \n" if language == SH else f"gone devices/{device_id}/state\n")
        if language != SH:
            assert f"device {device_id} unbound offline" in program.out
            assert program.out.count("event device.bound") == 1


@pytest.mark.parametrize("kind", ["embedded", "mosquitto"])
async def test_the_programs_run_in_sequence(kind: BrokerKind, tmp_path: Path) -> None:
    """In the order of the guide, with its one account: each gets what the session before it subscribed to."""
    async with integrating(tmp_path, kind) as integrator:
        site = integrator.site
        device_id = (await site.http.post("/v1/devices", json={"serial_number": "SN-1"})).json()["id"]
        for number, language in enumerate((SH, PYTHON, JS, PYTHON)):
            # Each stays until it has read an event, which comes after all that was retained for it.
            async with contextlib.AsyncExitStack() as stack:
                program = await reading(integrator, stack, language, device_id)
                await program.said("online" if language == SH else "gateway online")
                name = f"Watch {number}"
                await site.http.patch(f"/v1/devices/{device_id}", json={"name": name})
                await program.said("device.updated")
                assert program.runs, program.err


async def test_the_pytest_example_passes(tmp_path: Path) -> None:
    """It passes as part of another project, in a separate folder."""
    (block,) = run_by("device-sim", GUIDES[1])
    (tmp_path / "test_returned.py").write_text(block.code)
    path = f"{Path(script('gateway')).parent}:{clean_environment()['PATH']}"
    outcome = await run(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", "test_returned.py"),
        environment=clean_environment(PATH=path),
        folder=tmp_path,
    )
    assert outcome.code == 0, outcome.out
    assert "1 passed" in outcome.out
