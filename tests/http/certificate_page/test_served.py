"""The page of a certificate over HTTP: of real resets, under its own policy, and only to callers that may read."""

import base64
import hashlib
import re

from gateway.http.certificate_page.qr_code import verification_text
from tests.http.support import Api, Json, body, error
from tests.support.receipts import receipt_of

HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
"""As a browser asks."""
REPORT = {
    "wiped": ["device_token", "pairing", "wifi_networks", "recordings"],
    "kept": ["serial_number"],
    "recordings": {"wiped": 12, "kept": 0},
    "technique": {"device_token": "overwritten", "recordings": "key_destroyed"},
}


async def reset(api: Api, **asked: str) -> tuple[Json, Json, str]:
    """A device whose reset was requested: the device, the command, and the path of the certificate."""
    bound = await api.bound("BP-7")
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/reset", json=asked), 200)
    command = body(await api.back_end.get(f"/v1/devices/{bound['id']}/commands"), 200)["data"][0]
    return bound, command, f"/v1/devices/{bound['id']}/resets/{command['id']}/certificate"


async def acknowledge(api: Api, bound: Json, command: Json, status: str, **more: Json) -> None:
    """What the device says of it."""
    ack = {"status": status, "receipt": receipt_of(bound["device_token"], command, status), **more}
    path = f"/v1/devices/me/commands/{command['id']}/ack"
    body(await api.as_(bound["device_token"]).post(path, json=ack), 200)


async def test_the_page_says_what_the_certificate_says(api: Api) -> None:
    """Who asked, for which device, what was wiped and how; and the data that names exactly this certificate."""
    bound, command, path = await reset(api, reason="Returned by ward 3", recordings="wipe")
    error(await api.back_end.get(path, headers=HTML), 409, "reset_pending")
    await acknowledge(api, bound, command, "delivered")
    await acknowledge(api, bound, command, "executed", result=REPORT)
    answer = await api.back_end.get(path, headers=HTML)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html")
    certificate = body(await api.back_end.get(path), 200)
    claims = certificate["claims"]
    for said in (
        "Reset executed", "BP-7", "bota_pin", "Returned by ward 3", "to be wiped", "Recordings: 12",
        "encryption key destroyed", "overwritten", "Serial number", "verified, HMAC-SHA256",
        api.key_id, command["id"], bound["id"], certificate["id"], certificate["sha256"], claims["iss"],
        claims["end_user"]["hash"], claims["request"]["request_id"], claims["grant"]["kid"],
    ):  # fmt: skip
        assert said in answer.text, said
    assert "eu_1" not in answer.text
    text = verification_text(
        certificate_id=certificate["id"],
        sha256=hashlib.sha256(certificate["jws"].encode()).hexdigest(),
        issuer=claims["iss"],
        kid=claims["grant"]["kid"],
    )
    assert text.splitlines()[1] == f"sha256 {certificate['sha256']}"
    assert answer.headers["content-disposition"] == f'inline; filename="{certificate["id"]}.html"'


async def test_the_page_may_run_nothing(api: Api) -> None:
    """Its policy allows the one style that is inside, by its hash, and no script at all."""
    bound, command, path = await reset(api)
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/commands/{command['id']}/cancel"), 200)
    answer = await api.back_end.get(path, headers=HTML)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "script" not in policy
    assert "unsafe" not in policy
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert f"'sha256-{digest}'" in answer.text.partition("<style>")[0]
    assert not re.findall(r"<script|style=|\son\w+=|https?://", answer.text)
    assert answer.headers["vary"] == "Accept"


async def test_a_late_report_has_a_page_of_its_own(api: Api) -> None:
    """The first page names the addendum; that one says what it adds to."""
    bound, command, path = await reset(api)
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/commands/{command['id']}/cancel"), 200)
    proof = receipt_of(bound["device_token"], command, "executed")
    beat = {"last_command": {"command_id": command["id"], "status": "executed", "receipt": proof}}
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/heartbeat", json=beat), 200)
    certificate = body(await api.back_end.get(path), 200)
    (addendum,) = certificate["addenda"]
    first = (await api.back_end.get(path, headers=HTML)).text
    assert "Reset cancelled" in first
    assert addendum["id"] in first
    later = (await api.back_end.get(path, params={"certificate": addendum["id"]}, headers=HTML)).text
    assert "Late report: executed" in later
    assert certificate["id"] in later
    (listed,) = body(await api.back_end.get("/v1/resets"), 200)["data"]
    assert (listed["certificate_id"], listed["addendum_id"]) == (certificate["id"], addendum["id"])


async def test_another_project_gets_no_page(api: Api) -> None:
    """404, in JSON, since an error is no page; 406 for a picture."""
    bound, command, path = await reset(api)
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/commands/{command['id']}/cancel"), 200)
    stranger = api.as_(await api.another_key(project="two"))
    error(await stranger.get(path, headers=HTML), 404, "not_found")
    refused = error(await api.back_end.get(path, headers={"Accept": "image/png"}), 406, "not_acceptable")
    assert "text/html" in refused["message"]
