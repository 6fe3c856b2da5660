"""Examples of the sign-in for the OpenAPI document, by the name of the model."""

from __future__ import annotations

from typing import Any, Final

SIGN_IN_EXAMPLES: Final[dict[str, Any]] = {
    "SessionFacts": {
        "id": "ses_01JD3M0000000000000000000C",
        "actor": "user:ann",
        "name": "Ann Example",
        "project_id": "proj_01JD3M0000000000000000000A",
        "project_name": "wards",
        "role": "operator",
        "scopes": ["devices:read", "devices:write"],
        "expires_at": "2026-11-20T20:15:00.000Z",
        "csrf_token": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
    },
    "SignedOut": {"end_session_url": "https://login.example.com/logout?client_id=gateway"},
    "SignInOptions": {"oidc": {"name": "login.example.com", "url": "auth/login"}},
}
