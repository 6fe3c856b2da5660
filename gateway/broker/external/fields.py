"""Fields of a broker's question: JSON or a form, checked strictly where it matters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

_MOST_FIELDS: Final = 64
_LONGEST_NUMBER: Final = 9
_FORM: Final = "application/x-www-form-urlencoded"


class MalformedError(ValueError):
    """The question cannot be understood, so the answer is no."""


class Fields:
    """The fields of a question; ``hook`` is the header by which VerneMQ names the question."""

    def __init__(self, values: Mapping[str, object], hook: str = "") -> None:
        self._values = values
        self.hook = hook

    @classmethod
    def parse(cls, body: bytes, content_type: str, hook: str = "") -> Fields:
        """Parse a body.

        Raises:
            MalformedError: it is not the JSON object or form that its content type says.
        """
        try:
            values = _form(body) if content_type.partition(";")[0].strip().lower() == _FORM else json.loads(body)
        except (ValueError, RecursionError) as error:
            raise MalformedError(f"the body cannot be read: {type(error).__name__}") from error
        if not isinstance(values, dict):
            raise MalformedError("the body should be an object")
        return cls(values, hook)

    def text(self, name: str) -> str:
        """Return a required field.

        Raises:
            MalformedError: it is missing, or is no text that MQTT can carry.
        """
        value = self._values.get(name)
        if not isinstance(value, str) or not _is_utf8(value):
            raise MalformedError(f"{name} should be text")
        return value

    def number(self, name: str) -> int:
        """Return a whole number, which a form holds as text.

        Raises:
            MalformedError: it is no whole number.
        """
        value = self._values.get(name)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _LONGEST_NUMBER:
            return int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise MalformedError(f"{name} should be a number")
        return value

    def flag(self, name: str) -> bool:
        """Return a yes or no, in any of the brokers' spellings; no when it is missing.

        Raises:
            MalformedError: it is something else.
        """
        value = self._values.get(name)
        if value in (None, "", False, "false", 0, "0"):
            return False
        if value in (True, "true", 1, "1"):
            return True
        raise MalformedError(f"{name} should be true or false")

    def each(self, name: str) -> list[Fields]:
        """Return a list of objects.

        Raises:
            MalformedError: it is no list, or is empty.
        """
        value = self._values.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            raise MalformedError(f"{name} should be a list of objects")
        return [Fields(item) for item in value]


def _form(body: bytes) -> dict[str, object]:
    pairs = parse_qsl(
        body.decode("ascii"),
        keep_blank_values=True,
        strict_parsing=bool(body),
        errors="strict",
        max_num_fields=_MOST_FIELDS,
    )
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a field is there twice")
    return dict(pairs)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
