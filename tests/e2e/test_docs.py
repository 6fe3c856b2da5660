"""What our documents tell people to type, typed: in an empty folder, with free ports in the place of the usual ones."""

import hashlib
import hmac
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.settings.loading import load
from tests.e2e.program import Outcome, Program, clean_environment, run, script, started
from tests.support.ports import free_port
from tests.support.receiver import receiving
from tests.support.snippets import ROOT, SHOWN, Block, blocks, run_by

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = ("docs/cli.md", "docs/reference/http.md")
"""Its blocks are what the programs print."""


class Shell:
    """A person's shells on one machine: variables that one block sets are there for the next."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http, self.mqtt = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.environment = clean_environment(
            GATEWAY_DATA_DIR=str(folder / "gateway-data"),
            GATEWAY_HTTP=self.http,
            GATEWAY_MQTT=self.mqtt,
            PATH=f"{Path(script('gateway')).parent}:{clean_environment()['PATH']}",
        )

    async def run(self, block: Block, *, ended: int = 0) -> Outcome:
        """Run a block to its end, which has to be this one."""
        keep = f"{self._here(block.code)}\nended=$?; env -0 > {self.folder}/environment; exit $ended"
        outcome = await run("bash", "-c", f"set -a\n{keep}", environment=self.environment, folder=self.folder)
        assert outcome.code == ended, f"{block.place}\n{outcome.out}\n{outcome.err}"
        lines = (self.folder / "environment").read_text().split("\0")
        self.environment = dict(line.split("=", 1) for line in lines if line)
        return outcome

    def living(self, block: Block, name: str, **more: str) -> Program:
        """A block whose program goes on, with more in its environment."""
        code = f"cd {self.folder}; exec {self._here(block.code)}"
        return Program(self.folder, name, "bash", "-c", code, environment=self.environment | more)

    def _here(self, code: str) -> str:
        code = code.replace("127.0.0.1:8080", self.http).replace("127.0.0.1:1883", self.mqtt)
        return code.replace(".venv/bin/", "").replace("/backup/", f"{self.folder}/")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell in an empty folder."""
    return Shell(tmp_path)


def test_every_block_is_run_or_says_why_not() -> None:
    """By a test that asks for it by the name that its note gives; a reason is a sentence."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    bare = [
        block.place
        for page in DOCS
        if page.relative_to(ROOT).as_posix() not in GENERATED
        for block in blocks(page)
        if block.language not in SHOWN and not _accounted_for(block, sources)
    ]
    assert bare == [], "say above each of these blocks which test runs it, or why none does (tests/support/snippets.py)"


def _accounted_for(block: Block, sources: str) -> bool:
    if block.run_by is not None:
        return f'run_by("{block.run_by}"' in sources
    return len((block.reason or "").split()) > 3


@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
async def test_the_first_steps_run(shell: Shell, page: str) -> None:
    """Serve, a key, a device that lives, and its reset, until the device is wiped."""
    serve, prepare, simulate, reset, *rest = run_by("start", ROOT / page)
    async with started(shell.living(serve, "gateway")) as gateway:
        await gateway.said("  data ")
        await shell.run(prepare)
        async with started(shell.living(simulate, "device", GATEWAY_URL=f"http://{shell.http}")) as device:
            await device.said("heartbeat")
            outcome = await shell.run(reset)
            answered = json.loads(outcome.out[outcome.out.index("{") :])
            assert (answered["status"], answered["serial_number"]) == ("unbound", "BP-000124")
            await device.said("rebooting")
        for block in rest:
            assert "reset.requested" in (await shell.run(block)).out


async def test_the_idempotency_blocks_run(shell: Shell) -> None:
    """The call of docs/http.md binds, and leaves a device that is bound."""
    (call,) = run_by("idempotency", ROOT / "docs" / "http.md")
    async with started(
        Program(shell.folder, "gateway", script("gateway"), "serve", environment=shell.environment)
    ) as it:
        await it.said("  data ")
        made = await run("gateway", "keys", "create", "--name", "k", environment=shell.environment)
        device = await run("gateway", "devices", "register", "SN1", "--json", environment=shell.environment)
        shell.environment |= {"KEY": made.out.strip(), "DEVICE": json.loads(device.out)["id"]}
        assert json.loads((await shell.run(call)).out)["end_user_id"] == "eu_42"


async def test_the_backup_blocks_run(shell: Shell) -> None:
    """As docs/store.md has it, asked before it replaces anything."""
    (block,) = run_by("backup", ROOT / "docs" / "store.md")
    await run("gateway", "keys", "create", "--name", "k", environment=shell.environment, folder=shell.folder)
    outcome = await shell.run(block, ended=2)
    assert "There is no terminal to ask on" in outcome.err
    assert (shell.folder / "gateway.db").exists()


async def test_the_webhook_signature_blocks_run(shell: Shell) -> None:
    """The code of docs/http.md accepts a delivery of a real gateway, and refuses a changed one."""
    (block,) = run_by("signatures", ROOT / "docs" / "http.md")
    async with (
        receiving() as receiver,
        started(
            Program(
                shell.folder,
                "gateway",
                *(script("gateway"), "serve", "--webhook-allow-loopback"),
                environment=shell.environment,
            )
        ) as gateway,
    ):
        await gateway.said("  data ")
        key = (await run("gateway", "keys", "create", "--name", "k", environment=shell.environment)).out.strip()
        hook = await run(
            *("curl", "-sS", "-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"),
            *("-d", json.dumps({"url": receiver.url}), f"http://{shell.http}/v1/webhooks"),
        )
        await run("gateway", "devices", "register", "SN1", environment=shell.environment)
        await receiver.got(1)
    came = receiver.received[0]
    secret = json.loads(hook.out)["secret"]
    _judge(block, secret, came.body, came.headers)
    with pytest.raises(Exception, match=r"(?i)signature"):
        _judge(block, secret, came.body + b" ", came.headers)


def _judge(block: Block, secret: str, body: bytes, headers: dict[str, str]) -> None:
    # Header names are not case-sensitive; a web framework's mapping would know.
    both = headers | {"X-Bota-Timestamp": headers["x-bota-timestamp"], "X-Bota-Signature": headers["x-bota-signature"]}
    names: dict[str, Any] = {"secret": secret, "body": body, "headers": both, "hmac": hmac, "hashlib": hashlib}
    exec(compile(block.code, block.place, "exec"), names)  # noqa: S102 - our own document


@pytest.mark.parametrize("page", ["settings.md", "other-brokers.md"])
def test_the_settings_files_are_valid(tmp_path: Path, page: str) -> None:
    """Each is read without a complaint, and holds what it says."""
    for block in run_by("settings", ROOT / "docs" / page):
        file = tmp_path / "gateway.toml"
        file.write_text(block.code, encoding="utf-8")
        loaded = load({}, {}, file)
        assert loaded.warnings == ()
        assert set(tomllib.loads(block.code)) <= set(type(loaded.settings).model_fields)


def test_the_scrape_configuration_is_valid(tmp_path: Path) -> None:
    """Prometheus' own tool takes it."""
    (block,) = run_by("promtool", ROOT / "docs" / "metrics.md")
    file = tmp_path / "prometheus.yml"
    file.write_text(block.code, encoding="utf-8")
    checked = subprocess.run(["promtool", "check", "config", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
