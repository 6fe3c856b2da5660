"""The shape of every error."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from gateway.models.fields import Outbound


class ErrorBody(Outbound):
    """What every error says."""

    code: str = Field(description="For programs: one of the codes that the operation names.")
    message: str = Field(description="For people: what is wrong, and what to do.")
    details: dict[str, Any] = Field(
        description="For programs: facts that belong to the code, such as the `field` that is wrong."
    )


class ErrorAnswer(Outbound):
    """The shape of every error."""

    error: ErrorBody = Field(description="The error.")
