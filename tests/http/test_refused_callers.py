"""Who is not let in: each a clear error of the contract, and never a changed row."""

import pytest

from gateway.http.resources.operations import OPERATIONS
from tests.http.support import GUARDED, JSON, NOWHERE, REQUIRED, Api, Caller, body, error, trying

NO_CREDENTIALS = (
    b"",
    b"Bearer",
    b"Basic dXNlcjpwdw==",
    b"Bearer sk_live_0000000000000000000000000000000000",
    b"Bearer rk_test_0000000000000000000000000000000000",
    b"Bearer dtok_0000000000000000000000000000000000",
    b"Bearer whsec_0000000000000000000000000000000000",
    b"Bearer a b",
    b"Bearer sk_live_' OR 1=1 --",
    b"Bearer " + b"x" * 20_000,
    b"Bearer \xff\xfe",
)


async def test_a_missing_credential_is_refused(caller: Caller) -> None:
    """401 that says how to authenticate, before the body is looked at."""
    nobody = caller.api.as_(None)
    for operation in GUARDED:
        for content in (None, b"{"):
            with trying(operation.id, content):
                answer = await nobody.request(operation.method, caller.url(operation), content=content, headers=JSON)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "Authorization: Bearer" in error(answer, 401, "unauthorized")["message"]


async def test_a_malformed_credential_is_refused(caller: Caller) -> None:
    """401, whatever stands in the header."""
    nobody = caller.api.as_(None)
    for operation in GUARDED:
        for header in NO_CREDENTIALS:
            with trying(operation.id, header):
                headers = {b"Authorization": header}
                answer = await nobody.request(operation.method, caller.url(operation), headers=headers)
                error(answer, 401, "unauthorized")


async def test_two_credentials_are_refused(caller: Caller) -> None:
    """Two ``Authorization`` headers are 401, also when both are good."""
    good = ("Authorization", f"Bearer {caller.api.key}")
    error(await caller.api.as_(None).get("/v1/devices", headers=[good, good]), 401, "unauthorized")


async def test_the_scheme_is_matched_without_case(api: Api) -> None:
    """As RFC 9110 has it."""
    body(await api.as_(None).get("/v1/devices", headers={"Authorization": f"bEARER {api.key}"}), 200)


@pytest.mark.parametrize("how", ["revoked_at = 1", "expires_at = 1"])
async def test_an_expired_or_revoked_key_is_refused(api: Api, how: str) -> None:
    """A revoked or expired key is 401."""
    client = api.as_(await api.another_key())
    body(await client.get("/v1/devices"), 200)
    await api.store.write(lambda tx: tx.run(f"UPDATE api_keys SET {how} WHERE name = 'another'"))  # noqa: S608
    error(await client.get("/v1/devices"), 401, "unauthorized")


async def test_a_key_without_the_scope_is_refused(api: Api) -> None:
    """403 that names the scope; for the device's own calls, that it takes a device token."""
    device = await api.registered()
    for operation in GUARDED:
        scopes = {"devices:read", "devices:write", "webhooks:read", "webhooks:write"} - {operation.access.scope or ""}
        client = api.as_(await api.another_key(*scopes))
        before = api.dump()
        url = operation.path.format(device_id=device["id"], command_id="cmd_1", **NOWHERE)
        with trying(operation.id, scopes):
            answer = error(await client.request(operation.method, url), 403, "insufficient_scope")
            assert (operation.access.scope or "device token") in answer["message"]
            assert api.dump() == before


@pytest.mark.parametrize("scope", ["devices:read", "devices:write"])
async def test_a_restricted_key_does_what_its_scope_says(api: Api, scope: str) -> None:
    """And nothing else."""
    bound = await api.bound()
    client = api.as_(await api.another_key(scope))
    reads = (await client.get(f"/v1/devices/{bound['id']}")).status_code
    writes = (await client.post(f"/v1/devices/{bound['id']}/unbind")).status_code
    assert (reads, writes) == ((200, 403) if scope == "devices:read" else (403, 200))


async def test_a_project_sees_its_own_devices_only(caller: Caller) -> None:
    """Another project's device is 404 on every operation, just like one that does not exist; lists leave it out."""
    stranger = caller.api.as_(await caller.api.another_key(project="two"))
    before = caller.api.dump()
    for operation in GUARDED:
        if "{device_id}" not in operation.path or operation.access.scope is None:
            continue
        method, content = operation.method, REQUIRED.get(operation.id)
        with trying(operation.id):
            theirs = await stranger.request(method, caller.url(operation), json=content)
            nobodys = await stranger.request(method, caller.url(operation, device_id="dev_x"), json=content)
            shown = error(theirs, 404, "not_found")["message"].replace(caller.path["device_id"], "dev_x")
            assert shown == error(nobodys, 404, "not_found")["message"]
    assert body(await stranger.get("/v1/devices"), 200)["data"] == []
    assert caller.api.dump() == before
    await caller.api.store.write(
        lambda tx: [
            tx.run("DELETE FROM api_keys WHERE name = 'another'"),
            tx.run("DELETE FROM device_counts WHERE project_id = (SELECT id FROM projects WHERE name = 'two')"),
            tx.run("DELETE FROM projects WHERE name = 'two'"),
        ]
    )


async def test_the_same_serial_number_in_two_projects_is_two_devices(api: Api) -> None:
    """Serial numbers are known within a project."""
    one = await api.registered("BP-1")
    other = api.as_(await api.another_key(project="two"))
    two = body(await other.post("/v1/devices", json={"serial_number": "BP-1"}), 201)
    assert one["id"] != two["id"]
    assert one["project_id"] != two["project_id"]


async def test_an_error_never_repeats_a_secret(caller: Caller) -> None:
    """Not even one that came in the wrong place: the path, a field's name or value, a query."""
    back_end = caller.api.back_end
    for secret in (caller.api.key, caller.token):
        for answer in (
            await back_end.get(f"/v1/devices/{secret}"),
            await back_end.get(f"/v1/devices/{caller.path['device_id']}/commands/{secret}"),
            await back_end.post("/v1/devices", json={secret: 1}),
            await back_end.get("/v1/devices", params={secret: "1"}),
            await back_end.post("/v1/devices", json={"serial_number": "n", "model": secret}),
        ):
            assert answer.status_code in (400, 404)
            assert secret[:13] not in answer.text


def test_every_operation_has_its_scope_in_the_table() -> None:
    """No operation is closed to every caller, or open to device tokens without a device in its path."""
    for operation in OPERATIONS:
        assert operation.access.public == (not operation.path.startswith("/v1/"))
        assert operation.access.device or not operation.access.reset_only
        assert "{device_id}" in operation.path or not operation.access.device
