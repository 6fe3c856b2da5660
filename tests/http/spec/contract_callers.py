"""Who must not get in: for an operation that has just been answered, every credential that does not open it."""

from collections.abc import Iterator
from typing import Any

from requests import PreparedRequest, Session

from gateway.http.operation import AnyOperation

UNAUTHORIZED = 401
FORBIDDEN = 403
NOT_FOUND = 404
NOTHING_KEPT = 200
"""Every project has every person, and mostly knows nothing of them."""
GUARD_SECONDS = 60


def unauthorized_requests(
    operation: AnyOperation, facts: dict[str, Any], device_token: str
) -> Iterator[tuple[str, str, set[int]]]:
    """Who it is, the secret, and the status that it has to get; one of two for a token that may have been reset."""
    for who, secret in facts["closed"].items():
        yield who, secret, {UNAUTHORIZED}
    if operation.access.scope is None:
        yield "an API key", facts["key"], {FORBIDDEN}
        return
    for scope in operation.access.scopes:
        yield f"a key without {scope}", facts["without"][scope], {FORBIDDEN}
    if not operation.access.device:
        yield "a device token", device_token, {UNAUTHORIZED, FORBIDDEN}
    if "{end_user_id}" in operation.path:
        yield "another project's key", facts["others"], {NOTHING_KEPT}
    elif "{" in operation.path and "{broker_id}" not in operation.path:  # brokers belong to the registry
        yield "another project's key", facts["others"], {NOT_FOUND}


def accepted_credentials(
    operation: AnyOperation, asked: PreparedRequest, facts: dict[str, Any], device_token: str
) -> list[str]:
    """Those of the strangers who got another answer to the very same request."""
    wrong = []
    with Session() as session:
        for who, secret, refused in unauthorized_requests(operation, facts, device_token):
            request = asked.copy()
            request.headers["Authorization"] = f"Bearer {secret}"
            with session.send(request, timeout=GUARD_SECONDS, stream=True) as answer:
                if answer.status_code not in refused:
                    wrong.append(f"{who}: {answer.status_code} instead of {refused}")
    return wrong
