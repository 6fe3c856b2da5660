"""What firmware authors are given: vectors and samples that fit together, and every error code that there is.

The vectors are recomputed with the standard library and PyJWT alone.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import jwt
import pytest
import rfc8785

import gateway
from device_sim import grant, wire
from device_sim.actions import CommandReceived
from device_sim.binding import Binding
from device_sim.canonical import canonical
from gateway.core import credentials
from gateway.core.command_types import CommandType
from gateway.core.topics import Topics
from gateway.http import idempotency
from gateway.http.errors import STATUS
from gateway.http.resources.operations import OPERATIONS
from gateway.models.bindings import BoundDevice, Jwk
from gateway.models.commands import Ack, CommandPayload
from gateway.models.device_settings import with_defaults
from tests.device_sim.firmware_bench import online_bench
from tests.device_sim.support import Signer
from tests.support.vectors import COMMANDS, VECTORS

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"


@pytest.fixture(name="vectors")
def vectors_fixture() -> dict[str, Any]:
    """The vectors of the page."""
    assert "(vectors.json)" in DOCUMENT.read_text()
    return VECTORS


def document(name: str) -> dict[str, Any]:
    """The JSON document of this name on the page."""
    found = re.search(rf"```json {name}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    read: dict[str, Any] = json.loads(found[1])
    return read


def codes(heading: str) -> set[str]:
    """The codes in the table beneath the paragraph that begins with these words."""
    section = DOCUMENT.read_text().partition(f"**{heading}**")[2]
    rows = [line for line in section.partition("\n\n")[2].split("\n\n")[0].splitlines() if line.startswith("| ")]
    column = rows[0].strip("| ").split(" | ").index("code")
    return {code for row in rows[1:] for code in re.findall(r"`(\w+)`", row.strip("|").split("|")[column])}


def test_the_receipt_vectors_match(vectors: dict[str, Any]) -> None:
    """Each receipt is the HMAC that the document describes."""
    key = hashlib.sha256(vectors["device_token"].encode()).digest()
    assert key.hex() == vectors["receipt_key_hex"]
    for status, receipt in vectors["receipts"].items():
        message = f"{vectors['command_id']}|{status}|{vectors['binding_generation']}"
        mac = hmac.new(key, message.encode(), hashlib.sha256).digest()
        assert base64.urlsafe_b64encode(mac).decode().rstrip("=") == receipt


def test_the_mqtt_password_vector_matches(vectors: dict[str, Any]) -> None:
    """It is the HMAC that the document describes, and what the gateway and the simulator make of this token."""
    token = vectors["device_token"]
    mac = hmac.new(token.encode("ascii"), b"mqtt", hashlib.sha256).digest()
    made = base64.urlsafe_b64encode(mac).decode().rstrip("=")
    assert vectors["mqtt_password"] == made == document("sample-bind")["mqtt"]["password"]
    assert (credentials.mqtt_password(token), wire.mqtt_password(token)) == (made, made)


def test_the_grant_vectors_verify(vectors: dict[str, Any]) -> None:
    """The grant verifies with the public key that stands beside it, and says what the document says."""
    key = jwt.PyJWK(vectors["grant_key"])
    claims = jwt.decode(vectors["grant_token"], key, algorithms=["EdDSA"], audience=vectors["device_id"])
    assert claims["jti"] == vectors["command_id"]
    assert claims["cmd"] == "factory_reset"
    assert claims["gen"] == vectors["binding_generation"]
    assert "exp" not in claims
    assert (claims["par"], claims["seq"]) == (vectors["params"][0]["par"], 7)


def test_the_grant_key_change_vectors_verify(vectors: dict[str, Any]) -> None:
    """The old key signs the announcement, the new one the confirmation; both bind the new key by its digest."""
    given = vectors["set_grant_key"]
    assert rfc8785.dumps(given["params"]).decode() == given["canonical"] == canonical(given["params"])
    digest = hashlib.sha256(given["canonical"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == given["par"]
    assert Jwk.model_validate(given["params"]).model_dump() == given["params"]
    sent = (given["announcement"], vectors["grant_key"]), (given["confirmation"], given["params"])
    for number, (command, key) in enumerate(sent, start=1):
        assert jwt.get_unverified_header(command["grant_token"])["kid"] == key["kid"]
        claims = jwt.decode(command["grant_token"], jwt.PyJWK(key), algorithms=["EdDSA"], audience=vectors["device_id"])
        assert (claims["jti"], claims["cmd"], claims["par"]) == (command["command_id"], "set_grant_key", given["par"])
        assert (claims["gen"], claims["seq"], "exp" in claims) == (vectors["binding_generation"], number, False)
        word = wire.receipt(vectors["device_token"], command["command_id"], "executed", claims["gen"])
        assert word == command["receipt_executed"]


def test_a_device_follows_the_vectors_of_a_new_key(vectors: dict[str, Any]) -> None:
    """The firmware of the simulator takes the announcement, and drops the old key with the confirmation."""
    answer = {**document("sample-bind"), "grant_key": vectors["grant_key"]}
    bench = online_bench(Signer(), binding=Binding.from_answer(answer))
    kids = [vectors["set_grant_key"]["params"]["kid"], vectors["grant_key"]["kid"]]
    for name, left in (("announcement", kids), ("confirmation", kids[:1])):
        command = vectors["set_grant_key"][name]
        payload = {
            **document("sample-command"),
            "id": command["command_id"],
            "type": "set_grant_key",
            "params": vectors["set_grant_key"]["params"],
            "grant_token": command["grant_token"],
        }
        bench.feed(CommandReceived("set_grant_key", json.dumps(payload).encode()))
        said = json.loads(bench.payloads("ack")[-1])
        assert (said["status"], said["receipt"]) == ("executed", command["receipt_executed"])
        held = Binding.from_flash(bench.flash.wiped_area)
        assert held is not None
        assert [key["kid"] for key in held.grant_keys] == left


def test_the_params_vectors_match(vectors: dict[str, Any]) -> None:
    """Each canonical form is that of a library of others, and its digest stands beside it."""
    assert len(vectors["params"]) >= 5
    for each in vectors["params"]:
        assert rfc8785.dumps(each["params"]).decode() == each["canonical"]
        digest = hashlib.sha256(each["canonical"].encode()).digest()
        assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == each["par"]
        assert canonical(each["params"]) == each["canonical"]


def test_each_vector_of_a_command_is_described() -> None:
    """The page names every member, and the vectors have every code of a device and every kind of answer."""
    members = {member for each in COMMANDS for member in each}
    section = DOCUMENT.read_text().partition("## Test vectors")[2]
    assert {*VECTORS, *members} <= set(re.findall(r"`(\w+)`", section))
    assert {each["answer"] for each in COMMANDS} == {None, "delivered", *codes("What a device says")}


def test_the_valid_vectors_verify_with_another_library() -> None:
    """Each command that a device obeys is signed by the key, for this device, as PyJWT reads it."""
    good = [json.loads(each["payload"]) for each in COMMANDS if each["answer"] == "delivered"]
    assert len(good) >= 5
    for each in good:
        claims = jwt.decode(
            each["grant_token"],
            jwt.PyJWK(VECTORS["grant_key"]),
            algorithms=["EdDSA"],
            audience=VECTORS["device_id"],
            options={"verify_iat": False, "verify_exp": False},
        )
        assert (claims["jti"], claims["cmd"], claims["gen"]) == (each["id"], each["type"], each["binding_generation"])
        digest = hashlib.sha256(rfc8785.dumps(each["params"])).digest()
        assert claims["par"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")


def test_the_sample_bind_answer_is_valid(vectors: dict[str, Any]) -> None:
    """It has every field of the answer and no other, and topics and keys as a gateway makes them."""
    sample = document("sample-bind")
    assert BoundDevice.model_validate(sample).model_dump(mode="json") == sample
    assert sample["settings"] == with_defaults({})
    assert (sample["device_token"], sample["grant_key"]) == (vectors["device_token"], vectors["grant_key"])
    device_id, topics, names = sample["id"], sample["mqtt"]["topics"], Topics()
    assert (sample["mqtt"]["username"], sample["mqtt"]["client_id"]) == (device_id, device_id)
    assert topics["commands"] == {each: names.command(device_id, each) for each in CommandType}
    assert (topics["heartbeat"], topics["status"]) == (names.heartbeat(device_id), names.status(device_id))
    assert topics["errors"] == names.errors(device_id)


def test_the_sample_command_is_valid(vectors: dict[str, Any]) -> None:
    """It is what the gateway publishes, field by field; the key in the sample of the bind proves it."""
    sample, bound = document("sample-command"), document("sample-bind")
    assert list(CommandPayload.model_validate(sample).model_dump(mode="json").items()) == list(sample.items())
    claims = jwt.decode(
        sample["grant_token"], jwt.PyJWK(bound["grant_key"]), algorithms=["EdDSA"], audience=bound["id"]
    )
    assert claims["par"] == vectors["params"][0]["par"]
    said = (claims["jti"], claims["cmd"], claims["gen"])
    assert said == (sample["id"], sample["type"], sample["binding_generation"])
    assert sample["binding_generation"] == bound["binding_generation"]
    assert sample["id"] == vectors["command_id"]


def test_the_sample_acknowledgement_is_valid(vectors: dict[str, Any]) -> None:
    """It is one that the gateway takes, for that command, with the receipt of the vectors."""
    sample = document("sample-acknowledgement")
    ack = Ack.model_validate_json(json.dumps(sample))
    assert (ack.command_id, ack.receipt) == (document("sample-command")["id"], vectors["receipts"]["executed"])


def test_every_code_of_a_device_is_listed() -> None:
    """Those that a simulated device answers with are those that the page gives a meaning."""
    said = {value for name, value in vars(grant).items() if name.isupper() and isinstance(value, str)}
    assert codes("What a device says") == said


def test_every_code_of_a_refused_message_is_listed() -> None:
    """Each code with which the gateway's code refuses a message is on the page, and no other."""
    sources = [ast.parse(path.read_text(encoding="utf-8")) for path in Path(gateway.__file__).parent.rglob("*.py")]
    said = {code for source in sources for code in refused_with(source)}
    assert codes("What the gateway says") == said


def refused_with(source: ast.Module) -> list[str]:
    """The code of each refusal that this module makes: written there, or a constant of the module."""
    constants = {
        node.target.id: node.value
        for node in source.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    found = []
    for node in ast.walk(source):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refusal":
            code = node.args[0]
            written = constants[code.id] if isinstance(code, ast.Name) else code
            assert isinstance(written, ast.Constant), f"line {node.lineno}: not a plain code"
            found.append(str(written.value))
    return found


def test_every_code_over_http_is_listed() -> None:
    """Each status with its codes: those of the table of statuses, and the conflicts that the operations tell of."""
    conflicts = {code for operation in OPERATIONS for code in operation.conflicts}
    assert codes("What HTTP says") == {*STATUS, *conflicts, idempotency.MISMATCH}
    page = DOCUMENT.read_text()
    assert not [code for code, status in STATUS.items() if f"| {status} | `{code}`" not in page]
