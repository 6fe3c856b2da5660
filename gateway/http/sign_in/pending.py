"""A sign-in under way, sealed into a cookie: it is bound to the browser, and costs the gateway nothing.

The seal's key is derived from the client secret, which every gateway of the registry has. So the browser may come back
to another gateway than the one where it began.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import secrets
from typing import Final, NamedTuple, Self

from gateway.core.sealed_text import NONCE_BYTES, seal, unseal
from gateway.http.sign_in.cookies import SIGN_IN_SECONDS

_PURPOSE: Final = "sign-in under way"
_VIEW: Final = re.compile(r"/[\x21-\x7e]{0,500}")
_RANDOM_BYTES: Final = 32


class PendingSignIn(NamedTuple):
    """What the gateway must know when the browser comes back; ``expires_at`` is in Unix seconds.

    ``view`` is the part of the page's address after ``#``: the only part of the way back that a request can choose.
    """

    state: str
    nonce: str
    verifier: str
    view: str
    expires_at: int

    @classmethod
    def begin(cls, view: str, now: int) -> Self:
        """Return a new one. A view that is not one of the page's is left out."""
        state, nonce, verifier = (secrets.token_urlsafe(_RANDOM_BYTES) for _ in range(3))
        return cls(state, nonce, verifier, view if _VIEW.fullmatch(view) else "/", now + SIGN_IN_SECONDS)

    @classmethod
    def opened(cls, cookie: str, client_secret: str, now: int) -> Self | None:
        """Return the sign-in that a cookie holds, or None where it is forged, or too old."""
        try:
            sealed = base64.b64decode(cookie.encode() + b"=" * (-len(cookie) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            return None
        text = unseal(client_secret, _PURPOSE, sealed)
        if text is None:
            return None
        found = cls(*json.loads(text))
        return found if now < found.expires_at <= now + SIGN_IN_SECONDS else None

    def sealed(self, client_secret: str) -> str:
        """Return it as the value of a cookie."""
        sealed = seal(client_secret, _PURPOSE, json.dumps(self), secrets.token_bytes(NONCE_BYTES))
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def has_state(self, given: str) -> bool:
        """Compare a state in constant time."""
        return hmac.compare_digest(self.state.encode(), given.encode("utf-8", "replace"))
