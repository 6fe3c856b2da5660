"""Refused credentials: why, and of whom, for the audit trail."""

from __future__ import annotations

from typing import NamedTuple

from gateway.errors import UnauthorizedError
from gateway.models.sign_ins import Reason
from gateway.store.event_sql import REGISTRY


class Refused(NamedTuple):
    """Why a credential is refused, and the API key that it is or was of."""

    reason: Reason
    key_id: str | None = None
    project_id: str = REGISTRY


class RefusedCredentialError(UnauthorizedError):
    """A refused credential; ``refused`` is for the audit trail."""

    def __init__(self, message: str, refused: Refused) -> None:
        super().__init__(message)
        self.refused = refused
