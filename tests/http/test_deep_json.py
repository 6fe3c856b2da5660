"""Requests whose JSON is nested deeply: a clear refusal, never a failure of the gateway."""

import base64

import pytest

from tests.http.support import JSON, Caller, error

DEEP = b"[" * 20_000
SHALLOWER = b'{"metadata":' + b"[" * 1_500 + b"]" * 1_500 + b"}"


@pytest.mark.parametrize("content", [DEEP, SHALLOWER])
@pytest.mark.parametrize("path", ["/v1/devices", "/v1/projects/none", "/v1/webhooks"])
async def test_a_deeply_nested_body_is_refused(caller: Caller, content: bytes, path: str) -> None:
    """With an ``Idempotency-Key`` the body is read twice, the second time to know it again."""
    answer = await caller.api.back_end.post(path, content=content, headers={**JSON, "Idempotency-Key": "k"})
    assert answer.status_code in (400, 404)


async def test_a_deeply_nested_cursor_is_refused(caller: Caller) -> None:
    """A cursor is JSON in base64: one that is nested deeply, or has a number that nothing can hold, is refused."""
    for text in (b"[" * 1_500, b'["updated_at",true,%d,"dev_1"]' % 10**30, b'["serial_number",false,"\\ud800","d"]'):
        cursor = base64.urlsafe_b64encode(text).decode().rstrip("=")
        for sort in ("created_at", "updated_at", "serial_number"):
            answer = await caller.api.back_end.get("/v1/devices", params={"cursor": cursor, "sort": sort})
            assert error(answer, 400, "invalid_request")["details"]["field"] == "cursor"
