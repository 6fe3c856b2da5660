"""The API against its own OpenAPI document: thousands of requests that schemathesis makes up, single and in chains.

No 500, no answer that the document does not describe (status, schema, headers, content type), no way around the
credential, nothing of another project; what the document allows is taken, what it forbids is refused.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from structlog.testing import capture_logs

from gateway.app import running
from gateway.core.addresses import Address
from gateway.core.credentials import SCOPES
from gateway.domain import sessions
from gateway.domain.sessions import Grant, Person
from gateway.http.resources.operations import OPERATIONS
from gateway.http.spec.openapi import document
from gateway.running import Running
from gateway.settings.loading import Settings
from gateway.settings.role_rules import RoleRule
from gateway.store import Tx, command_sql, key_sql
from tests.support.wait import eventually

HERE = Path(__file__).parent
SEED = os.environ.get("CONTRACT_SEED", "20261123")
EXAMPLES = os.environ.get("CONTRACT_EXAMPLES", "40")
"""Per operation and phase."""
AT_LEAST = 2_000
GUARD_SECONDS = 900
STIR_SECONDS = 0.2
EVENT = "#/components/schemas/Event"
HOUR_MS = 3_600_000
SESSIONS = 500
"""A sign-out takes one."""
NO_TOKENS = '{"id_token": null, "access_token": null, "refresh_token": null}'
WITH_CELLS = {"move_devices", "move_from_cell", "drain_broker"}
"""They succeed where a registry has several brokers: tests/http/resources/test_cells.py."""
WORD = "foreign"
"""In every name of the other project."""


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Running]:
    """A whole gateway, with its broker, on ports that the kernel picks, and without a rate limit.

    It may send events to this machine, where no server listens: no test sends anything further.
    """
    anywhere = Address("127.0.0.1", 0)
    secret = folder.parent / "client-secret"
    secret.write_text("hush")
    settings = Settings(
        data_dir=folder,
        http=anywhere,
        mqtt=anywhere,
        rate_limit_per_minute=0,
        refused_credentials_per_minute=0,
        webhook_allow_private=True,
        webhook_allow_loopback=True,
        oidc_issuer="https://127.0.0.1:9",  # never asked: sessions are made without it
        oidc_client_id="gateway",
        oidc_client_secret_file=secret,
        oidc_roles=(RoleRule("staff", "default", "admin"),),
        oidc_check_seconds=86_400,
        public_url="https://fleet.example.com",  # so the cookie has the name that the document says
    )
    async with running(settings) as site:
        yield site


async def another_project(site: Running) -> str:
    """A key of a new project."""
    project_id = await site.store.write(lambda tx: key_sql.create_project(tx, WORD))
    return (await site.store.write(lambda tx: key_sql.create(tx, project_id, WORD)))[1]


async def credentials(site: Running) -> dict[str, Any]:
    """A key that opens everything, one without each of the scopes, secrets that open nothing (any more), sessions."""

    def make(tx: Tx) -> dict[str, Any]:
        def key(name: str, *scopes: str) -> tuple[str, str]:
            return key_sql.create(tx, site.registry.project_id, name, scopes=scopes)

        revoked, expired = key("revoked"), key("expired")
        key_sql.revoke(tx, revoked[0])
        key_sql.expire(tx, expired[0], tx.now - 1)
        unknown = "x" * 34
        closed = {"revoked": revoked[1], "expired": expired[1], "short": "x", "basic": f"Basic {unknown}"}
        closed |= {f"unknown {prefix}": prefix + unknown for prefix in ("sk_live_", "rk_test_", "dtok_")}
        without = {scope: key(f"without {scope}", *(set(SCOPES) - {scope}))[1] for scope in SCOPES}
        return {"key": key("all")[1], "without": without, "closed": closed, "sessions": sessions_of(tx)}

    def sessions_of(tx: Tx) -> list[str]:
        person, grant = Person("ann", "Ann Example"), Grant(site.registry.project_id, "admin")
        return [
            sessions.start(tx, person, grant, HOUR_MS, tokens=NO_TOKENS, state=f"{number}").secret
            for number in range(SESSIONS)
        ]

    return await site.store.write(make)


async def change_state(url: str, key: str) -> None:
    """Let something happen all the time, for those who follow the events."""
    async with httpx.AsyncClient(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {key}"}, timeout=60) as api:
        device = (await api.post("/devices", json={"serial_number": "stirred"})).raise_for_status().json()
        for number in count():
            await api.patch(f"/devices/{device['id']}", json={"name": f"stirred {number}"})
            await asyncio.sleep(STIR_SECONDS)


async def create_resources(url: str, key: str) -> list[str]:
    """Give a project a bit of everything; the ids of all that is there."""
    async with httpx.AsyncClient(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {key}"}, timeout=60) as api:

        async def call(path: str, **body: Any) -> Any:
            return (await api.post(path, json=body)).raise_for_status().json()

        hook = await call("/webhooks", url=f"https://127.0.0.1:9/{WORD}", description=WORD)
        device = await call("/devices", serial_number=f"{WORD} 1", name=f"{WORD} 2", metadata={WORD: WORD})
        path = f"/devices/{device['id']}"
        await call(f"{path}/bind", end_user_id=f"eu_{WORD}")
        await call(f"{path}/heartbeat", battery_percent=50, firmware_version=f"{WORD} 3")
        command = await call(f"{path}/commands", type="reboot", params={WORD: WORD}, ttl_seconds=86_400)
        events = (await api.get("/events")).raise_for_status().json()["data"]
    return [device["project_id"], device["id"], command["id"], hook["id"], *(event["id"] for event in events)]


def described() -> bytes:
    """Return the document, with the schema of one server-sent event.

    OpenAPI 3.1 has no place for it: its ``schema`` there is that of the whole stream, a string, and schemathesis would
    hold each event against it. ``itemSchema`` is OpenAPI 3.2.
    """
    api = json.loads(document())
    event = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"$ref": EVENT}}
    fields = {"id": {"type": "string"}, "event": {"type": "string"}, "data": event}
    content = api["paths"]["/v1/events/stream"]["get"]["responses"]["200"]["content"]
    content["text/event-stream"] = {"itemSchema": {"type": "object", "required": [*fields], "properties": fields}}
    return json.dumps(api).encode()


async def schemathesis(folder: Path, url: str, facts: dict[str, Any]) -> tuple[int, str]:
    """Run it; its exit code and what it printed."""
    (folder / "openapi.json").write_bytes(described())
    (folder / "facts.json").write_text(json.dumps({"url": url, "seed": SEED, **facts}), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        f"--config-file={HERE / 'contract.toml'}",
        "run",
        str(folder / "openapi.json"),  # by its URL it would take the document's own operation for no part of the API
        f"--url={url}",
        f"--seed={SEED}",
        f"--max-examples={EXAMPLES}",
        "--checks=all",
        "--continue-on-failure",
        "--no-color",
        cwd=folder,
        env={
            **os.environ,
            "CONTRACT_FACTS": str(folder / "facts.json"),
            "PYTHONPATH": str(HERE.parents[2]),
            "COLUMNS": "120",
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def rows_of(site: Running, project_id: str) -> list[str]:
    """All that the registry has of a project, but for when its key was used."""

    def devices(view: Any) -> list[str]:
        found = [str(tuple(row)) for row in view.all("SELECT * FROM devices WHERE project_id = ?", project_id)]
        pks = [row[0] for row in view.all("SELECT pk FROM devices WHERE project_id = ?", project_id)]
        return found + [
            str(tuple(row))
            for table in ("commands", "tokens", "heartbeats")
            for pk in pks
            for row in view.all(f"SELECT * FROM {table} WHERE device_pk = ?", pk)  # noqa: S608 - our own names
        ]

    return await site.store.read(devices)


async def published(site: Running, command_id: str) -> bool:
    """Whether the registry knows that the broker was given this command."""
    row = await site.store.read(lambda view: command_sql.by_id(view, command_id))
    return row is not None and row.sent_at is not None


async def test_the_api_matches_its_openapi_document(tmp_path: Path) -> None:
    """Every operation, at least 2,000 requests. ``CONTRACT_SEED`` repeats a run, ``CONTRACT_EXAMPLES`` lengthens it."""
    print(f"CONTRACT_SEED={SEED}")  # noqa: T201 - pytest shows it with a failure
    answered = tmp_path / "answered.json"
    with capture_logs() as logs:
        async with gateway(tmp_path / "data") as site:
            mine, others = await credentials(site), await another_project(site)
            ids = await create_resources(site.http.url, others)
            await eventually(lambda: published(site, ids[2]), "the command was published, which is written down")
            before = await rows_of(site, ids[0])
            facts = {**mine, "others": others, "ids": ids, "words": [WORD], "answered": str(answered)}
            stirring = asyncio.create_task(change_state(site.http.url, mine["key"]))
            code, said = await schemathesis(tmp_path, site.http.url, facts)
            stirring.cancel()
            assert await rows_of(site, ids[0]) == before
    print(said[said.rfind("= SUMMARY") :] if code == 0 else said)  # noqa: T201 - the same
    assert code == 0, "see what schemathesis printed"
    assert f"Tested: {len(OPERATIONS)}\n" in said
    generated = re.search(r"(\d+) generated", said)
    assert generated, said
    assert int(generated[1]) >= AT_LEAST
    assert _never_succeeded(json.loads(answered.read_text(encoding="utf-8"))) == []
    assert [line for line in logs if line["log_level"] in ("error", "critical")] == []


def _never_succeeded(answered: dict[str, int]) -> list[str]:
    """Operations that were only ever refused: whatever lies behind the refusals was not tried."""
    tried = (each.id for each in OPERATIONS if each.id not in WITH_CELLS)
    return [each for each in tried if not any(f"{each} {status}" in answered for status in (200, 201))]
