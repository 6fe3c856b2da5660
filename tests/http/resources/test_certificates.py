"""Certificates of reset over HTTP: in both forms, of a deleted device too, and what refuses them."""

import asyncio
import hashlib

import jwt
import pytest

from gateway.cli.certificate_keys import keys_at
from gateway.domain.certificate_check import CertificateError, check
from gateway.errors import UnavailableError
from tests.http.support import Api, Json, body, error
from tests.support.receipts import receipt_of


async def ended(api: Api) -> tuple[Json, Json, str]:
    """A device whose reset was cancelled: the device, the command, and the path of the certificate."""
    bound = await api.bound()
    command = await api.reset(bound["id"])
    cancelled = await api.back_end.post(f"/v1/devices/{bound['id']}/commands/{command['id']}/cancel")
    return bound, body(cancelled, 200), f"/v1/devices/{bound['id']}/resets/{command['id']}/certificate"


async def test_a_certificate_in_both_forms(api: Api) -> None:
    """JSON with the claims and the JWS; the JWS alone, which verifies with the published key; of a deleted device."""
    bound, _, path = await ended(api)
    body(await api.back_end.delete(f"/v1/devices/{bound['id']}"), 200)
    answer = await api.back_end.get(path)
    certificate = body(answer, 200)
    assert answer.headers["Vary"] == "Accept"
    assert (certificate["claims"]["jti"], certificate["claims"]["outcome"]) == (certificate["id"], "cancelled")
    assert certificate["addenda"] == []
    compact = await api.back_end.get(path, headers={"Accept": "application/jose"})
    assert (compact.status_code, compact.headers["Content-Type"]) == (200, "application/jose")
    assert compact.text == certificate["jws"]
    assert certificate["sha256"] == hashlib.sha256(compact.content).hexdigest()
    keys = jwt.PyJWKSet.from_dict(body(await api.as_(None).get("/.well-known/jwks.json"), 200))
    key = keys[jwt.get_unverified_header(compact.text)["kid"]].key
    claims = jwt.decode(compact.text, key, algorithms=["EdDSA"], options={"verify_iat": False})
    assert claims == certificate["claims"]


async def test_a_late_word_is_shown_and_chosen(api: Api) -> None:
    """In ``addenda``, and by its id."""
    bound, command, path = await ended(api)
    proof = receipt_of(bound["device_token"], command, "executed")
    beat = {"last_command": {"command_id": command["id"], "status": "executed", "receipt": proof}}
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/heartbeat", json=beat), 200)
    first = body(await api.back_end.get(path), 200)
    (addendum,) = first["addenda"]
    chosen = body(await api.back_end.get(path, params={"certificate": addendum["id"]}), 200)
    assert (chosen["claims"]["addendum_to"], chosen["jws"]) == (first["id"], addendum["jws"])
    unknown = await api.back_end.get(path, params={"certificate": "cert_9"})
    assert "Leave 'certificate' out" in error(unknown, 404, "not_found")["message"]
    wrong = await api.back_end.get(path, params={"certificate": "all"})
    assert error(wrong, 400, "invalid_request")["details"]["field"] == "certificate"


async def test_what_gets_no_certificate(api: Api) -> None:
    """An open reset, an unknown one, another project's, a device, a form that there is not."""
    bound = await api.bound()
    command = await api.reset(bound["id"])
    path = f"/v1/devices/{bound['id']}/resets/{command['id']}/certificate"
    assert error(await api.back_end.get(path), 409, "reset_pending")["details"]["command_id"] == command["id"]
    assert (
        "not even a deleted one"
        in error(await api.back_end.get(path.replace("dev_", "dev_0")), 404, "not_found")["message"]
    )
    assert error(await api.back_end.get(path.replace("cmd_", "cmd_0")), 404, "not_found")
    foreign = await api.another_key(project="other")
    assert error(await api.as_(foreign).get(path), 404, "not_found")
    assert (await api.as_(bound["device_token"]).get(path)).status_code in (401, 403)
    refused = await api.back_end.get(path, headers={"Accept": "image/png"})
    assert error(refused, 406, "not_acceptable")["details"]["offered"][:2] == ["application/json", "application/jose"]


async def test_keys_are_read_from_the_gateway(api: Api) -> None:
    """``gateway certificates verify --jwks URL`` takes what the gateway publishes; another path is named as wrong."""
    _, _, path = await ended(api)
    jws = (await api.back_end.get(path, headers={"Accept": "application/jose"})).text
    keys = await asyncio.to_thread(keys_at, f"{api.url}/.well-known/jwks.json", None)
    (found,) = check([jws], keys)
    assert (found.project_id, found.certificates) == (api.project_id, 1)
    with pytest.raises(
        UnavailableError, match=r"answers 404\. The keys of a gateway are at its /\.well-known/jwks\.json"
    ):
        await asyncio.to_thread(keys_at, f"{api.url}/jwks.json", None)
    with pytest.raises(CertificateError, match="is no set of public keys"):
        await asyncio.to_thread(keys_at, f"{api.url}/health", None)
