"""Loaded by schemathesis (see ``contract.toml``): credentials, things that exist, and what must never be seen.

What a run is told, and what it makes itself, is in ``contract_resources.py``.
"""

import atexit
import base64
import hashlib
import hmac
import json
import random
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import schemathesis
from schemathesis import AuthContext, Case, CheckContext, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import EnsureResourceAvailability, RejectedPositiveData, UseAfterFree

from gateway.core.credentials import SESSION_SECRET, csrf_token
from gateway.http.idempotency import HEADER, PATTERN
from gateway.http.operation import AnyOperation
from gateway.http.resources.operations import OPERATIONS
from tests.http.spec.contract_callers import accepted_credentials
from tests.http.spec.contract_resources import FACTS, NOWHERE, known, numbers, own, tokens

BY_LABEL: Final = {f"{each.method} {each.path}": each for each in OPERATIONS}
PREFIXES: Final = {
    "device_id": "dev_",
    "command_id": "cmd_",
    "webhook_id": "wh_",
    "delivery_id": "dlv_",
    "job_id": "job_",
    "broker_id": "brk_",
}
# What a schema cannot say: an id in the body is the path's, a cursor one of that list, models are configured, a receipt
# is the device's, a URL leads somewhere, a time zone is in the database of them, integers in params have 53 bits, and a
# period ends after it begins. Tags are replaced or changed. A job starts later, its ramp rises, its devices are there
# (by name or by filter), and a factory reset does not expire.
SAID_IN_WORDS: Final = frozenset(
    {
        "Last-Event-ID", "command_id", "cursor", "last_event_id", "model", "params", "receipt", "until", "url",
        "settings.upload.off_peak_hours.timezone", "tags", "start_at", "pace.ramp.from_per_minute", "targets",
        "targets.filter", "action", "remove_tags",
    }
)  # fmt: skip

chance = random.Random(FACTS["seed"])  # noqa: S311 - schemathesis's own seed, so that a run can be repeated
deleted: set[str] = set()
restored: set[str] = set()
cancelled: set[str] = set()
"""Commands that a DELETE cancelled, which are kept."""
spent: set[str] = set()
"""Tokens that were good once."""
tried: set[str] = set()
"""Operations that strangers have asked for."""
cursors: dict[str, str] = {}
"""Where the next page of a list begins, by operation."""
answered: Counter[str] = Counter()
"""How often each operation answered each status."""


def operation_of(case: Case[Any]) -> AnyOperation | None:
    """The row of the table."""
    return BY_LABEL.get(f"{case.operation.method.upper()} {case.operation.path}")


@schemathesis.auth(cache_by_key=None, refresh_interval=None)
class Credentials:
    """The key of the project; for what only devices may call the token of the device that the path names.

    What is about the session of a person gets a session: one that lasts for a GET, a new one for each sign-out.
    """

    def get(self, case: Case[Any], _context: AuthContext) -> str | None:
        """The secret that opens this operation."""
        operation = operation_of(case)
        if operation is None or operation.access.public:
            return None
        if operation.access.person:
            return str(FACTS["sessions"][0] if operation.method == "GET" else FACTS["sessions"].pop())
        takes_both = operation.access.device and operation.access.scope is not None
        if not operation.access.device or (takes_both and chance.random() < 0.5):
            return str(FACTS["key"])
        return own_token(case)

    def set(self, case: Case[Any], secret: str | None, _context: AuthContext) -> None:
        """Send it."""
        if secret is not None and secret.startswith(SESSION_SECRET):
            case.cookies["__Host-gateway_session"] = secret
            case.headers["X-CSRF-Token"] = csrf_token(secret)
        elif secret is not None:
            case.headers["Authorization"] = f"Bearer {secret}"


def own_token(case: Case[Any]) -> str:
    """The token of the device that the path names; of our own for a path that is made up, and mostly made good."""
    path = case.path_parameters
    if path.get("device_id") in tokens:
        return tokens[path["device_id"]]
    device = own.fresh()
    if path.get("device_id") == "me" or chance.random() < 0.75:
        path["device_id"] = "me"
        if "command_id" in path:
            path["command_id"] = device.command_id
    return tokens[device.device_id]


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _kwargs: dict[str, Any]) -> None:
    """Let most of what was made up be what exists, here or in the other project; let nothing be sent to strangers."""
    operation = operation_of(case)
    if operation is None:
        return
    if operation.access.scope is not None:
        _lead_to_something(operation, case.path_parameters)
    if _bearer(case.headers) in spent:  # credentials are given when cases are made up, which may be long before
        case.headers["Authorization"] = f"Bearer {own_token(case)}"
    if re.fullmatch(PATTERN, case.headers.get(HEADER, "")) and chance.random() < 0.8:
        case.headers[HEADER] = f"once-{next(numbers)}"  # or all would bear the document's example
    if operation.id in cursors and "cursor" in case.query and chance.random() < 0.5:
        case.query["cursor"] = cursors[operation.id]
    if isinstance(case.body, dict) and str(case.body.get("url", "")).startswith("http"):
        case.body["url"] = NOWHERE
    if operation.id == "acknowledge_command" and isinstance(case.body, dict) and chance.random() < 0.5:
        _sign(case.path_parameters.get("command_id"), case.body, _bearer(case.headers))


def _sign(command_id: str | None, body: dict[str, Any], token: str) -> None:
    """Make the receipt as the device would, bound once and so at generation 1."""
    body.pop("command_id", None)
    if isinstance(body.get("receipt"), str):
        key = hashlib.sha256(token.encode()).digest()
        made = hmac.digest(key, f"{command_id}|{body.get('status')}|1".encode(), "sha256")
        body["receipt"] = base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def _lead_to_something(operation: AnyOperation, path: dict[str, Any]) -> None:
    """Let a path that was made up, or a part of it, lead to what exists: often to where the operation succeeds."""
    exists = [each in known or each in FACTS["ids"] for each in path.values()]
    succeeded = answered[f"{operation.id} 200"] + answered[f"{operation.id} 201"]
    is_due = not succeeded or chance.random() < 0.5
    arranged = own.arranged(operation.id) if is_due and not all(exists) else {}
    path.update(arranged)
    if not arranged and not any(exists):
        _let_it_exist(path)


def _let_it_exist(path: dict[str, Any]) -> None:
    """Put one of the newest things of ours into the path, or one of the other project's, or leave what was made up."""
    inner = [name for name in path if name in ("command_id", "delivery_id")]
    name = [*inner, *path, ""][0]
    prefix = PREFIXES.get(name, " ")
    mine = [each for each in known if each.startswith(prefix) and not {each, known[each]} & deleted][-3:]
    others = [each for each in FACTS["ids"] if each.startswith(prefix)]
    chosen = chance.choice([None, *mine, *others])
    if chosen is None:
        return
    path[name] = chosen
    owner = known.get(chosen)
    if inner and owner is not None:
        path["webhook_id" if name == "delivery_id" else "device_id"] = owner


@schemathesis.hook
def after_call(_context: HookContext, case: Case[Any], response: Response) -> None:
    """Count it, and learn from it."""
    operation = operation_of(case)
    if operation is None:
        return
    if response.request.method == operation.method:
        answered[f"{operation.id} {response.status_code}"] += 1
    if response.status_code == 401:
        _spend(_bearer(response.request.headers))
    if response.status_code in (200, 201) and operation.media_type == "application/json":
        _learn(operation, case, response.json())


def _learn(operation: AnyOperation, case: Case[Any], content: dict[str, Any]) -> None:
    """Remember what there is, where lists go on, and the tokens of devices that were just bound."""
    for each in (content, *content.get("data", [])):
        if "id" in each:
            known.setdefault(each["id"], each.get("webhook_id", each.get("device_id")))
    if content.get("next_cursor"):
        cursors[operation.id] = content["next_cursor"]
    if "device_token" in content:
        tokens[str(content.get("id", case.path_parameters.get("device_id")))] = content["device_token"]
    if operation.id == "delete_command":
        cancelled.add(content["id"])
    elif operation.method == "DELETE":
        deleted.update(str(each) for each in case.path_parameters.values())
    elif operation.id == "restore_device":
        restored.add(content["id"])
        deleted.discard(content["id"])


def _bearer(headers: Mapping[str, Any]) -> str:
    return str(headers.get("Authorization", "")).removeprefix("Bearer ")


def _spend(secret: str) -> None:
    """The device was reset, deleted or unbound, or has a newer token."""
    for device_id in [each for each, token in tokens.items() if token == secret]:
        spent.add(tokens.pop(device_id))


@schemathesis.check
def no_other_project(_context: CheckContext, response: Response, case: Case[Any]) -> None:
    """Nothing of the other project is in any answer but what the request itself said; nothing of it can be called."""
    asked = unquote(f"{response.request.url}") + unquote(str(response.request.body or ""))
    for word in (*FACTS["ids"], *FACTS["words"]):
        assert word not in response.text or word in asked, f"the answer tells {word} of another project"
    theirs = any(each in FACTS["ids"] for each in case.path_parameters.values())
    if theirs and operation_of(case) is not None and response.request.method != "OPTIONS":  # which tells methods alone
        assert response.status_code >= 400, f"{response.status_code} for what belongs to another project"


@schemathesis.check
def no_unauthorized_access(_context: CheckContext, response: Response, case: Case[Any]) -> None:
    """What was just answered is refused to every credential that does not open it; once for each operation."""
    operation = operation_of(case)
    done = response.status_code in (200, 201) and operation is not None and response.request.method == operation.method
    if not done or operation is None or operation.access.public or operation.id in tried:
        return
    tried.add(operation.id)
    device_token = tokens[own.fresh().device_id]
    wrong = accepted_credentials(operation, response.request, FACTS, device_token)
    assert not wrong, "; ".join(wrong)


@schemathesis.check
def helpful_error(_context: CheckContext, response: Response, _case: Case[Any]) -> None:
    """An error has the contract's shape, and a message for a person: a sentence that does not end in the middle."""
    if response.status_code < 400:
        return
    if response.request.method == "HEAD" or operation_answers(response):
        return
    error = response.json()["error"]
    assert set(error) == {"code", "message", "details"}
    assert error["message"].strip().endswith((".", ")")), error["message"]


def operation_answers(response: Response) -> bool:
    """Whether this is an operation's own answer: health and readiness say 503 in their own words."""
    return response.status_code == 503 and "error" not in response.json()


@schemathesis.hook
def filter_failure(_context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Drop what is no failure here."""
    touched = {str(each) for each in case.path_parameters.values()}
    match failure:
        case UseAfterFree():
            return not touched & (restored | cancelled)
        case EnsureResourceAvailability():  # a device token opens its own device alone
            return not touched & deleted and not _bearer(response.request.headers).startswith("dtok_")
        case RejectedPositiveData():
            return not _cannot_be_said(response.json()["error"]["details"])
    return True


def _cannot_be_said(details: dict[str, Any]) -> bool:
    """JSON Schema takes 1.0 for an integer; here JSON types are taken at their word."""
    problems = {each["field"]: each["message"] for each in details.get("problems", [])}
    integers = {name for name, message in problems.items() if message == "should be a valid integer."}
    unseen = {name for name, message in problems.items() if "can be seen" in message or "cannot be seen" in message}
    return not {*problems, details.get("field")} - integers - unseen - SAID_IN_WORDS - {None}


@atexit.register
def print_summary() -> None:
    """Write down what was answered how often."""
    Path(FACTS["answered"]).write_text(json.dumps(answered), encoding="utf-8")
