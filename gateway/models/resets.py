"""Factory resets: what is asked for, and what a device reports of it (contract, section 7)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from gateway.core import ids
from gateway.core.visible_text import visible_not_blank
from gateway.models.fields import Count, Inbound, Text

MAX_REASON: Final = 200
_END_USER: Final = re.compile(f"(?<![A-Za-z0-9]){ids.END_USER}{ids.BODY}")


def names_no_one(text: str) -> str:
    """Return the text; refuse one that names an end user, since it outlives that person's data."""
    found = _END_USER.search(text)
    if found is not None:
        raise ValueError(
            f"should not name an end user ({found.group()[:20]}): a certificate repeats it, and outlives the person's "
            "data. Leave the id out"
        )
    return text


RecordingsWish = Literal["keep", "wipe"]
Technique = Literal["overwritten", "key_destroyed", "deleted"]
Reason = Annotated[
    Annotated[
        Text, StringConstraints(max_length=MAX_REASON), AfterValidator(visible_not_blank), AfterValidator(names_no_one)
    ]
    | None,
    Field(
        description="Why, for the audit trail and the certificate: visible text. Do not name a person here: "
        "the certificate outlives the person's data."
    ),
]
Recordings = Annotated[
    RecordingsWish | None,
    Field(
        description="What the device does with its recordings: `keep` (the default) or `wipe`. While a reset is open, "
        "one that asks for the other gets 409 `reset_pending`."
    ),
]


class ResetDevice(Inbound):
    """Body of ``POST /devices/{id}/reset``."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"reason": "Returned by ward 3, goes to repair.", "recordings": "wipe"}]}
    )

    reason: Reason = None
    recordings: Recordings = None


class RecordingsReport(Inbound):
    """How many recordings the device has wiped and kept."""

    wiped: Count
    kept: Count


class ResetReport(BaseModel):
    """The known members of a reset's ``result``. Others are taken as they are."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    wiped: Any = None
    recordings: RecordingsReport = RecordingsReport(wiped=0, kept=0)
    technique: dict[str, Technique] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _of_what_was_wiped(self) -> ResetReport:
        wiped = self.wiped if isinstance(self.wiped, list) else []
        unknown = [name for name in self.technique if name not in wiped]
        if unknown:
            raise ValueError(
                f"technique should name entries of 'wiped' only, and '{unknown[0][:64]}' is not one of them"
            )
        return self
