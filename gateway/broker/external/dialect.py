"""Dialect: how a broker phrases its questions, and how it expects the answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.broker.external.decisions import AuthDecisions
from gateway.broker.external.fields import Fields


@dataclass(frozen=True)
class AuthAnswer:
    """An answer as it is sent."""

    content: bytes
    status: int = 200
    media_type: str = "application/json"


Question = Callable[[AuthDecisions, Fields], Awaitable[AuthAnswer]]
"""Answers one kind of question. It may raise: then the answer is the dialect's ``deny``."""


@dataclass(frozen=True)
class Dialect:
    """The questions of a broker by path, and the answer that denies any of them."""

    questions: Mapping[str, Question]
    deny: AuthAnswer


def as_json(value: Any, *, status: int = 200) -> AuthAnswer:
    """Return an answer in JSON."""
    return AuthAnswer(json.dumps(value).encode(), status)
