"""Parser for JSON from brokers and HTTP peers. Every flaw is a ValueError.

``json.loads`` raises RecursionError for deep nesting. It also returns lone surrogates, which cannot be encoded again.
This parser, pydantic's, refuses both; its limit is 200 levels.
"""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json


def parse_json(payload: bytes | str) -> Any:
    """Return the value that a payload spells.

    Raises:
        ValueError: it is no JSON in UTF-8, or nested too deeply.
    """
    return from_json(payload, allow_inf_nan=False)
