"""Canonical JSON (RFC 8785), written so that firmware can port it, and the digest of a command's params.

It is separate from the gateway's code, so that a difference between the two shows in tests. Firmware that sends no
fractions needs only the integer part of `_number`.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

MAX_INTEGER = 2**53 - 1
PLAIN_DIGITS = 21  # ECMAScript writes numbers from 1e-6 up to 1e21 without an exponent
PLAIN_ZEROS = -6


def params_digest(params: Mapping[str, Any]) -> str:
    """Return base64url(SHA-256(canonical JSON of the params)) without padding, the claim `par` of a grant.

    Raises:
        ValueError: the params have no canonical form.
        RecursionError: they are nested too deeply.
    """
    digest = hashlib.sha256(canonical(params).encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def canonical(value: Any) -> str:
    """Return one JSON value without whitespace, its members sorted by the UTF-16 units of their names.

    Raises:
        ValueError: a number is not finite or an integer beyond 2^53 - 1, or a text has half of a surrogate pair.
    """
    match value:
        case None | bool():
            return json.dumps(value)
        case str():
            return _text(value)
        case int() | float():
            return _number(value)
        case list():
            return f"[{','.join(canonical(each) for each in value)}]"
        case Mapping():
            names = sorted(value, key=lambda name: _require_valid_text(name).encode("utf-16-be"))
            return f"{{{','.join(f'{_text(name)}:{canonical(value[name])}' for name in names)}}}"
    raise ValueError(f"{type(value).__name__} is nothing that JSON knows")


def _text(value: str) -> str:
    """Return a JSON string. Quotes, backslashes and control characters are escaped, in short form if possible."""
    return json.dumps(_require_valid_text(value), ensure_ascii=False)


def _require_valid_text(value: str) -> str:
    value.encode()  # UnicodeEncodeError, a ValueError, for half of a surrogate pair
    return value


def _number(value: float) -> str:
    """Return the shortest digits that read back as the same double, in the form of ECMA-262, Number::toString."""
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError("an integer beyond 2^53 - 1")
        return str(value)
    if not math.isfinite(value):
        raise ValueError("a number that is not finite")
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    text, point = "".join(map(str, digits)), len(digits) + int(exponent)
    return "-" * sign + _place_point(text, point)


def _place_point(digits: str, point: int) -> str:
    """Return the digits with the point after the first `point` of them, or with an exponent if that is long."""
    if PLAIN_ZEROS < point <= 0:
        return f"0.{'0' * -point}{digits}"
    if 0 < point <= PLAIN_DIGITS:
        whole, rest = digits[:point].ljust(point, "0"), digits[point:]
        return f"{whole}.{rest}" if rest else whole
    first, rest = digits[0], digits[1:]
    return f"{first}{'.' if rest else ''}{rest}e{point - 1:+d}"
