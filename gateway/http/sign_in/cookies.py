"""Cookies of the sign-in: the session's, and that of a sign-in under way."""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers

SESSION: Final = "gateway_session"
SIGN_IN: Final = "gateway_sign_in"
SIGN_IN_SECONDS: Final = 600
"""How long a person may take at the provider."""
_HOST: Final = "__Host-"


class Cookies:
    """Names and attributes of cookies. Beyond loopback they are ``Secure`` and bound to the host by their name.

    A name with ``__Host-`` is refused by browsers without ``Secure``, with a ``Domain`` or another path. So no page of
    another host, and no page over HTTP, can set such a cookie.
    """

    def __init__(self, *, secure: bool) -> None:
        self._secure = secure

    def name(self, cookie: str) -> str:
        """Return the name that the browser sees."""
        return _HOST + cookie if self._secure else cookie

    def found(self, headers: Headers, cookie: str) -> list[str]:
        """Return the values of a cookie, each once. A browser may send two where another path set one."""
        pattern = re.compile(rf"(?:^|;)\s*{re.escape(self.name(cookie))}=([^;\s]*)")
        values = [value for header in headers.getlist("cookie") for value in pattern.findall(header) if value]
        return list(dict.fromkeys(values))

    def kept(self, cookie: str, value: str, seconds: int) -> str:
        """Return a ``Set-Cookie`` with this value."""
        secure = "; Secure" if self._secure else ""
        return f"{self.name(cookie)}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Lax{secure}"

    def removed(self, cookie: str) -> str:
        """Return a ``Set-Cookie`` that removes it."""
        return self.kept(cookie, "", 0)
